"""Quotas: what one network may store in a day, and who makes way as the store fills.

Circles are free and each has a mailbox, so a bound for each circle is none for all. A
process counts in memory and tells the store after every 64th of a day's share, which is
what a restart may forget: a call that stays within its share costs no store operation.

As the store fills, first new circles are refused, then mailboxes and shares shrink, so
that the largest are refused before the small; presence and guards are never refused here.
"""

from __future__ import annotations

from collections import OrderedDict
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from chalicelib import network
from chalicelib.settings import DAY_S, Settings
from chalicelib.store import Room, Store, Unavailable
from muster import errors

TIGHT, FULL = 0.8, 0.9
"""From which part of the store new circles are refused, and from which all mail is."""

TELLS = 64
"""A process tells the store of so many parts of a day's share, one by one."""

MOST_SHARE = 8
"""One circle, or one network in a day, has this part of the store at the most."""

FULL_TEXT, FULL_WAIT_S = "the service's store is full; nothing was kept", 60
"""What is told whoever meets a full store, and when they may try again."""

NEWCOMER_BYTES = 4096
"""What a presence counts as: about as much as one may have."""

_NETWORKS = 20_000


@dataclass(slots=True)
class _Spent:
    """What a network has had of one thing in a day, and what of that the store was not told."""

    day: int
    total: int
    untold: int = 0


class Quotas:
    """What the networks that one process has seen have stored today."""

    def __init__(self, guard: Store, settings: Settings) -> None:
        self._guard = guard
        self._settings = settings
        self._spent: OrderedDict[str, _Spent] = OrderedDict()
        self._room = Room(0, 0)
        self._since_bytes = 0

    def measured(self, room: Room) -> None:
        """Note how full the store is; until the next time, what is stored is added to it."""
        self._room, self._since_bytes = room, 0

    @property
    def fullness(self) -> float:
        """The part of the store that is used; 0 where the store has no end."""
        if not self._room.most_bytes:
            return 0.0
        return (self._room.used_bytes + self._since_bytes) / self._room.most_bytes

    @property
    def full(self) -> bool:
        """Whether mail is refused."""
        return self._room.refused or self.fullness >= FULL

    def to_json(self) -> dict[str, Any]:
        """Return how full the store is, for the status page."""
        return {
            "used_bytes": self._room.used_bytes + self._since_bytes,
            "most_bytes": self._room.most_bytes,
            "full": self.full,
        }

    def shrunk(self, most: int, *, more: int) -> int:
        """Return what is left of a bound once *more* bytes are stored, as the store fills.

        In a small store it is less anyway. That *more* counts is what keeps one large
        message from filling the store for everybody.
        """
        if not self._room.most_bytes:
            return most
        most = min(most, self._room.most_bytes // MOST_SHARE)
        left = FULL - self.fullness - more / self._room.most_bytes
        return int(most * min(1.0, max(0.0, left / (FULL - TIGHT))))

    def need_room(self) -> None:
        """Raise `errors.Unavailable` if the store is full."""
        if self.full:
            raise errors.Unavailable(FULL_TEXT, retry_after_s=FULL_WAIT_S)

    def add_circle(self, address: str, *, clock: float) -> None:
        """Count a circle that is new; raises `errors.Unavailable` and `errors.RateLimited`."""
        if self.full or self.fullness >= TIGHT:
            raise errors.Unavailable(
                "the service's store is nearly full, so it takes no new circles",
                retry_after_s=3600,
            )
        self._spend("circles", address, 1, self._settings.network_circles, clock=clock)

    def add_newcomer(self, address: str, *, lifetime_s: int, clock: float) -> None:
        """Count the presence of a node that was not there; raises `errors.RateLimited`."""
        size = max(1, NEWCOMER_BYTES * lifetime_s // DAY_S)
        self._spend("presence", address, size, self._settings.network_bytes, clock=clock)
        self._since_bytes += NEWCOMER_BYTES

    def add_mail(self, address: str, size: int, *, lifetime_s: int, clock: float) -> None:
        """Count what is about to be stored; raises `errors.Unavailable` and `errors.RateLimited`.

        What lives for less than a day counts for less.
        """
        self.need_room()
        most = self.shrunk(self._settings.network_bytes, more=size)
        lasting = max(1, size * min(lifetime_s, DAY_S) // DAY_S)
        self._spend("mail", address, lasting, most, clock=clock)
        self._since_bytes += size

    def _spend(self, kind: str, address: str, amount: int, most: int, *, clock: float) -> None:
        key = f"{kind} {network.wider(address)}"
        spent = self._of(key, clock)
        if spent.total + amount > most:
            raise errors.RateLimited(
                f"this network has had its share of {kind} for today",
                retry_after_s=min(3600, max(1, (spent.day + 1) * DAY_S - int(clock))),
            )
        spent.total += amount
        spent.untold += amount
        if spent.untold * TELLS >= most:
            self._tell(key, spent, clock)

    def _of(self, key: str, clock: float) -> _Spent:
        day = int(clock) // DAY_S
        spent = self._spent.get(key)
        if spent is None or spent.day != day:
            spent = self._spent[key] = _Spent(day, self._told(key, day))
            if len(self._spent) > _NETWORKS:
                self._spent.popitem(last=False)
        self._spent.move_to_end(key)
        return spent

    def _told(self, key: str, day: int) -> int:
        """Return what all processes, and those before a restart, have told the store."""
        with suppress(Unavailable):
            kept = self._guard.get("quota#" + key, str(day), now=day * DAY_S)
            return int(kept.body) if kept else 0
        return 0

    def _tell(self, key: str, spent: _Spent, clock: float) -> None:
        end = (spent.day + 2) * DAY_S
        with suppress(Unavailable):  # a quota is no other way for a call to fail
            spent.total = self._guard.add(
                "quota#" + key, str(spent.day), spent.untold, expires_at=end, now=int(clock)
            )
            spent.untold = 0
