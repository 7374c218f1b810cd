"""Rate limits: token buckets per address and per node.

Each process keeps its buckets in memory, so an ordinary caller costs no store
operation. A key that is used a lot in one process also counts in the store, so
that many processes together stay near the one limit (ADR 0007). How soon it counts
there follows from how much of what was counted is its own: the more processes a
caller reaches, the sooner each of them asks.

Addresses count by their network (chalicelib/network.py). Whoever has a /48 of IPv6 has
65,536 networks of its own, so that counts too, with a few times the limit of one.
"""

from __future__ import annotations

from collections import Counter, OrderedDict
from dataclasses import dataclass

from chalicelib.network import counts_as, wider
from chalicelib.settings import Settings
from chalicelib.store import Store, Unavailable
from muster.errors import RateLimited

SHARE_EVERY = 32
"""After so many calls of one key, at the latest, a process tells the store."""

SHARE_BYTES = 16 * 1024 * 1024
"""The same for the bytes of one key."""

SMALL_BYTES = 16 * 1024
"""A body so small counts as a call and no more."""

SHARE_S = 10
"""The length of the windows that processes count in together, in seconds."""

SPREAD_EVERY, SPREAD_S = 8, 60
"""The same where calls are spread over many processes: as long as a process knows nothing
better it tells the store after so few, and the windows are longer, so that what each of
them lets through before it has asked weighs little."""

SPREAD_MORE = 1.25
"""A burst is no reason for more than this times what a bucket fills with in such a window."""

WIDER = 8
"""How many times the limit of a /64 its /48 has."""

NEWCOMERS_S = 300
"""In so many seconds a circle may have as many new nodes as it may have members."""

_KEYS = 20_000
_UNIT_BYTES = SHARE_BYTES // SHARE_EVERY
"""So many bytes weigh as much as a call."""


@dataclass(slots=True)
class _Bucket:
    tokens: float
    at: float
    due: float
    """How much more may be spent before the store is told."""
    unshared: float = 0.0
    window: int = 0
    own: int = 0
    """How much of the window's total this process has told."""
    part: float = 1.0
    before: float = 1.0
    """Which part of the total that was when it told last, and in the window before."""
    shut_until: float = 0.0

    def told(self, window: int, spent: int, *, total: int, allowed: float) -> None:
        """Choose when to tell next: of what is left, this process may take half of its part."""
        if window != self.window:
            self.window, self.own, self.before = window, 0, self.part
        self.own += spent
        self.part = self.own / total
        left = (allowed - total) * min(self.part, self.before) / 2
        self.due = max(1.0, min(left, 2 * self.due, SHARE_EVERY))


class Limits:
    """The buckets of one process and their shared counters."""

    def __init__(self, guard: Store, settings: Settings, *, spread: bool = False) -> None:
        self._guard = guard
        self._settings = settings
        self._spread = spread
        self._first, self._window_s = (SPREAD_EVERY, SPREAD_S) if spread else (SHARE_EVERY, SHARE_S)
        self._buckets: OrderedDict[str, _Bucket] = OrderedDict()

    def spend_address(self, address: str, *, clock: float, shared: bool = True) -> None:
        """Take one call from the bucket of the address's network.

        What is not *shared* is counted in this process alone, and writes nothing.
        """
        burst, per_s = self._settings.address_burst, self._settings.address_per_s
        for network, times in allowances(address):
            self._spend("address#" + network, clock, burst * times, per_s * times, shared=shared)

    def spend_bytes(self, address: str, size: int, *, clock: float, shared: bool = True) -> None:
        """Take the bytes of a body that is not small; the last may be larger than what is left."""
        if size <= SMALL_BYTES:
            return
        burst = self._settings.address_burst_bytes / _UNIT_BYTES
        per_s = self._settings.address_bytes_per_s / _UNIT_BYTES
        least, calls = 1 / _UNIT_BYTES, size / _UNIT_BYTES
        for network, times in allowances(address):
            key = "bytes#" + network
            self._spend(
                key,
                clock,
                burst * times,
                per_s * times,
                calls=calls,
                least=least,
                shared=shared,
            )

    def charge_address(
        self, address: str, calls: float, *, clock: float, shared: bool = True
    ) -> None:
        """Take from the address's bucket what a call cost beyond itself; it may end up owing."""
        for network, times in allowances(address):
            key, burst = "address#" + network, self._settings.address_burst * times
            bucket = self._bucket(key, clock, burst)
            bucket.tokens -= calls
            if shared:
                per_s = self._settings.address_per_s * times
                self._count(key, bucket, calls, clock, burst, per_s)

    def spend_node(self, circle_hint: str, node_id: str, *, clock: float) -> None:
        """Take one call from a proved node's bucket."""
        chosen = self._settings
        self._spend(f"node#{circle_hint} {node_id}", clock, chosen.node_burst, chosen.node_per_s)

    def spend_newcomer(self, circle: str, *, clock: float) -> None:
        """Take one new node from a circle's bucket: as many as it may have, in five minutes.

        Whatever nodes come and go, lists of a circle are never much longer than its members.
        """
        most = self._settings.circle_members
        self._spend("newcomer#" + circle, clock, most, most / NEWCOMERS_S)

    def spend_frame(self, whose: str, *, clock: float) -> None:
        """Take one frame from the bucket of a socket, or of all sockets of one address.

        Where one process holds a socket, no other need know of its frames.
        """
        chosen = self._settings
        spend = self._spend if self._spread else self._take
        spend("socket#" + whose, clock, chosen.frame_burst, chosen.frames_per_s)

    def shut(self, *, clock: float) -> int:
        """Count the addresses that are refused at this moment; they were heard of lately."""
        refused = 0
        for key, bucket in reversed(self._buckets.items()):
            if bucket.at < clock - SHARE_S:
                break
            if key.startswith("address#"):
                spent = bucket.tokens + (clock - bucket.at) * self._settings.address_per_s < 1
                refused += bucket.shut_until > clock or spent
        return refused

    def _spend(
        self,
        key: str,
        clock: float,
        burst: float,
        per_s: float,
        *,
        calls: float = 1,
        least: float = 1,
        shared: bool = True,
    ) -> None:
        bucket = self._take(key, clock, burst, per_s, calls=calls, least=least)
        if shared:
            self._count(key, bucket, calls, clock, burst, per_s)
        if bucket.shut_until > clock:
            raise _limited(bucket.shut_until - clock)

    def _count(
        self, key: str, bucket: _Bucket, calls: float, clock: float, burst: float, per_s: float
    ) -> None:
        bucket.unshared += calls
        if bucket.unshared >= bucket.due:
            self._share(key, bucket, clock, self._allowed(burst, per_s))

    def _allowed(self, burst: float, per_s: float) -> float:
        """Return what all processes together may let through in a window."""
        if self._spread:
            return max(burst, per_s * SPREAD_S * SPREAD_MORE)
        return burst + per_s * SHARE_S

    def _take(
        self,
        key: str,
        clock: float,
        burst: float,
        per_s: float,
        *,
        calls: float = 1,
        least: float = 1,
    ) -> _Bucket:
        bucket = self._bucket(key, clock, burst)
        bucket.tokens = min(burst, bucket.tokens + max(0.0, clock - bucket.at) * per_s)
        bucket.at = clock
        if bucket.shut_until > clock:
            raise _limited(bucket.shut_until - clock)
        if bucket.tokens < least:
            raise _limited((least - bucket.tokens) / per_s)
        bucket.tokens -= calls
        return bucket

    def _share(self, key: str, bucket: _Bucket, clock: float, allowed: float) -> None:
        spent = int(bucket.unshared)
        bucket.unshared -= spent
        window = int(clock) // self._window_s
        end = (window + 1) * self._window_s
        try:
            total = self._guard.add(
                "count#" + key,
                str(window),
                spent,
                expires_at=end + self._window_s,
                now=int(clock),
            )
        except Unavailable:
            return  # the limit is a courtesy to the store, not another way for it to fail
        bucket.told(window, spent, total=total, allowed=allowed)
        if total > allowed:
            bucket.shut_until = float(end)

    def _bucket(self, key: str, clock: float, burst: float) -> _Bucket:
        bucket = self._buckets.get(key)
        if bucket is None:
            bucket = self._buckets[key] = _Bucket(float(burst), clock, self._first)
            if len(self._buckets) > _KEYS:
                self._buckets.popitem(last=False)
        else:
            self._buckets.move_to_end(key)
        return bucket


def allowances(address: str) -> tuple[tuple[str, int], ...]:
    """Return the networks that an address counts in, and how many times a limit each has."""
    if ":" not in address:
        return ((address, 1),)  # most are IPv4, and every call asks
    narrow, wide = counts_as(address), wider(address)
    return ((narrow, 1),) if narrow == wide else ((narrow, 1), (wide, WIDER))


class Tally:
    """How many of something each network has, a socket for instance."""

    def __init__(self) -> None:
        self._counts: Counter[str] = Counter()

    def full(self, address: str, *, most: int) -> bool:
        """Say whether an address's network has as many as it may have."""
        return any(self._counts[network] >= most * times for network, times in allowances(address))

    def add(self, address: str) -> None:
        """Count one more."""
        self._counts.update(network for network, _ in allowances(address))

    def remove(self, address: str) -> None:
        """Count one less; what is at nothing is forgotten."""
        for network, _ in allowances(address):
            self._counts[network] -= 1
            if not self._counts[network]:
                del self._counts[network]


def _limited(wait_s: float) -> RateLimited:
    wait = max(1, int(wait_s + 0.999))
    return RateLimited(f"too many calls; wait {wait} s", retry_after_s=wait)
