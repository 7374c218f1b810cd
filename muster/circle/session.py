"""A session: what two nodes send each other is numbered, whatever path carries it.

Each number counts once and in its order. What the other side has not taken is kept, and sent
again on the next path; so a better path takes over, or a worse one, without loss.
"""

from __future__ import annotations

from collections import OrderedDict

from muster.frames import Kind, LinkFrame

WINDOW = 256
"""How many frames wait to be taken at the most."""

TELL_EVERY = 16
"""So many frames are taken before the other side is told, if nothing else tells it."""


class Session:
    """One side of it; nothing here waits or sends."""

    def __init__(self) -> None:
        self._next = 1
        self._waiting: OrderedDict[int, LinkFrame] = OrderedDict()
        self.taken = 0
        self._told = 0
        self.ended = False

    @property
    def full(self) -> bool:
        """Whether as much waits to be taken as may."""
        return len(self._waiting) >= WINDOW

    @property
    def waits(self) -> bool:
        """Whether something is still to be taken by the other side."""
        return bool(self._waiting)

    @property
    def waiting(self) -> int:
        """How many frames the other side has not taken."""
        return len(self._waiting)

    @property
    def untold(self) -> int:
        """How many frames were taken since the other side was told."""
        return self.taken - self._told

    def put(self, payload: bytes, *, kind: Kind = Kind.DATA) -> LinkFrame:
        """Give what is to be sent its number."""
        frame = LinkFrame(kind, self._next, self.taken, payload)
        self._waiting[self._next] = frame
        self._next += 1
        self._told = self.taken
        return frame

    def again(self) -> list[LinkFrame]:
        """Return what was not taken, to be sent once more."""
        self._told = self.taken
        return [frame._replace(taken=self.taken) for frame in self._waiting.values()]

    def took(self) -> LinkFrame:
        """Return what tells the other side how far we are."""
        self._told = self.taken
        return LinkFrame(Kind.TOOK, 0, self.taken)

    def hear(self, frame: LinkFrame) -> bytes | None:
        """Take a frame; return what it carries if its turn has come, and it is the first time."""
        if frame.taken < self._next:
            while self._waiting and next(iter(self._waiting)) <= frame.taken:
                self._waiting.popitem(last=False)
        if frame.kind not in (Kind.DATA, Kind.END):
            return None
        if frame.number <= self.taken:
            self._told = min(self._told, self.taken - 1)  # it was not heard: tell it again
        if frame.number != self.taken + 1:
            return None
        self.taken = frame.number
        if frame.kind is Kind.END:
            self.ended = True
            return None
        return frame.payload
