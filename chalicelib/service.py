"""The service: what every use case is given, put together once by the host."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Generic, Literal, TypeVar

from chalicelib import tables
from chalicelib.call import Sender
from chalicelib.limits import Limits
from chalicelib.quotas import Quotas
from chalicelib.settings import Settings
from chalicelib.store import Item, Stores
from chalicelib.tokens import Ed25519Signer, Signer

if TYPE_CHECKING:
    from chalicelib.assist.paths import Prober
    from chalicelib.assist.plan import Plan

_V = TypeVar("_V")

ClockName = Literal["sweep", "publish"]
"""The clocks of a host, by what they start."""


@dataclass(slots=True)
class Service:
    """Settings, stores, and the sender; plus what a warm process may remember."""

    settings: Settings
    stores: Stores
    sender: Sender
    entropy: Callable[[int], bytes]
    limits: Limits = field(init=False)
    quotas: Quotas = field(init=False)
    pins: Memory[Item] = field(init=False)
    heard: Memory[bool] = field(init=False)
    callers: Memory[str] = field(init=False)
    names: Memory[bool] = field(init=False)
    let_in: Memory[bool] = field(init=False)
    kept_out: Memory[bool] = field(init=False)
    listings: Memory[Any] = field(init=False)
    key_sets: Memory[Any] = field(init=False)
    vouched: Memory[bool] = field(init=False)
    codes: Memory[tuple[str, ...]] = field(init=False)
    live: Memory[tables.Socket] = field(init=False)
    prober: Prober | None = None
    host_limits: Mapping[str, int] = field(default_factory=dict)
    """What the host bounds besides the settings, for `GET /v1/info`."""
    believed_s: int = 1
    """How long this process believes who is let in, without reading it again."""

    spread: bool = False
    """Whether the calls of one caller and the frames of one socket come to many processes."""

    wake: Callable[[ClockName], None] = field(default=lambda clock: None)
    """Told that there is something to sweep or to publish; a host's clocks may be at rest."""

    _signer: Signer | None = None

    def __post_init__(self) -> None:
        self.limits = Limits(self.stores.guard, self.settings, spread=self.spread)
        self.quotas = Quotas(self.stores.guard, self.settings)
        self.pins = Memory(4096)
        self.heard = Memory(4096)
        self.callers = Memory(4096)
        self.names = Memory(16_384)
        self.let_in = Memory(4096)
        self.kept_out = Memory(4096)  # apart: strangers push nobody out who was let in
        self.listings = Memory(64)
        self.key_sets = Memory(2)
        self.vouched = Memory(4096)
        self.codes = Memory(1)
        self.live = Memory(16_384)

    @property
    def plan(self) -> Plan:
        """What the operator knows about connecting; only assist asks."""
        if self.settings.assist is not None:
            return self.settings.assist
        from chalicelib.assist import plan

        return plan.NOTHING

    def signer(self, *, now: int) -> Signer:
        """Return the service's key; made once per deployment and kept in the store."""
        if self._signer is None:
            seed = tables.service_seed(self.stores, self.entropy(32), now=now)
            self._signer = Ed25519Signer(seed)
        return self._signer


class Memory(Generic[_V]):
    """A few values that a process may go on believing for a while without reading them again."""

    def __init__(self, size: int) -> None:
        self._size = size
        self._values: OrderedDict[str, tuple[int, _V]] = OrderedDict()

    def recall(self, key: str, *, now: int) -> _V | None:
        """Return what was kept under *key*, if it is still to be believed."""
        kept = self._values.get(key)
        if kept is None or kept[0] <= now:
            return None
        return kept[1]

    def keep(self, key: str, value: _V, *, until: int) -> None:
        """Remember *value*; the oldest are forgotten first."""
        self._values[key] = (until, value)
        self._values.move_to_end(key)
        while len(self._values) > self._size:
            self._values.popitem(last=False)

    def forget(self, key: str) -> None:
        """Do not believe *key* any longer."""
        self._values.pop(key, None)
