"""Place: where a reader stands in a list of numbers that the service hands out.

One false answer could put a reader behind numbers that were not handed out yet, where it would
wait for ever, also after a restart if the place was kept. So a number that does not follow from
what came with it, and a place from an earlier life, are doubted until the service has said how
far the list goes. A reader beyond its end goes back, and what it has had already is passed over.
"""

from __future__ import annotations

DAY_S = 86_400
"""How far the clocks of two machines may be apart; what is dated later is not believed."""

_REMEMBERED = 20_000  # as many as a mailbox holds


class Place:
    """Where a reader stands: it has all numbers up to `at`. ``doubtful`` asks for `confirm`."""

    def __init__(self, at: int = 0) -> None:
        self.at = at
        self.doubtful = at > 0
        self._sure = 0
        self._had: dict[int, None] = {}

    def advance(self, to: int, *, count: int) -> None:
        """Go on to a number that came with so many entries."""
        if to <= self.at:
            return
        self.doubtful |= to - self.at > count
        self.at = to
        if not self.doubtful:
            self._sure = to

    def confirm(self, newest: int) -> bool:
        """Take the newest number there is; say whether that made us go back."""
        self.doubtful = False
        lost = self.at > newest
        if lost:
            self.at = self._sure if self._sure <= newest else 0
        self._sure = self.at
        return lost

    def doubt(self) -> None:
        """Ask again how far the list goes; at its start there is nothing to ask."""
        self.doubtful |= self.at > 0

    def first_time(self, entry: bytes) -> bool:
        """Remember an entry; say whether it was new."""
        if entry in self:
            return False
        self._had[hash(entry)] = None
        if len(self._had) > _REMEMBERED:
            del self._had[next(iter(self._had))]
        return True

    def __contains__(self, entry: bytes) -> bool:
        return hash(entry) in self._had


def highest(now: float) -> int:
    """Return the highest number that can have been handed out: lists start at a millisecond.

    A list grows beyond it only by more than a thousand entries a second all its life.
    """
    return int((now + DAY_S) * 1000)
