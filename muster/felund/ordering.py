"""Ordering: what makes a reliable stream of frames that may be lost, doubled or overtaken.

Both ends may start again from nothing while the other lives, and frames and
acknowledgements of an earlier life may still be under way (on AWS even behind
later ones). So the numbers of a life begin beyond those of the one before, and
each payload carries a header that the relay does not read: the start, which
names the sender's life, and how far back the oldest unacknowledged frame lies::

    2 bytes  "m1"
    1 byte   flags: 1 = the sender has closed, nothing follows
    8 bytes  start, big-endian: the number of this life's first frame
    2 bytes  back, big-endian: this frame's number less the oldest unacknowledged one

* A start is the service's time when the session was opened, in seconds, then the
  sender's own milliseconds modulo 8192, then seven random bits. A receiver
  follows the newer life and ignores stragglers of older ones. Should the clock
  have gone back, it follows once the life it knows has been silent for a minute.
* A receiver goes into a life that is new to it at the oldest unacknowledged
  frame: all before it was taken, if not by this life of the receiver.
* An acknowledgement names a number, so one for an earlier life confirms nothing
  in a later one.
* A frame is acknowledged when the receiving program takes it, not before: what
  waits there unread keeps the sender's window full, which slows the sender down.
  Only the frame that ends a life is acknowledged as it comes.

There is no I/O here.
"""

from __future__ import annotations

import math
import struct
from collections import deque
from dataclasses import dataclass
from itertools import islice

from muster.errors import InvalidFrame
from muster.felund import records

_HEADER = struct.Struct(">2sBQH")
_MAGIC = b"m1"
_FIN = 1

MAX_PAYLOAD_BYTES = records.MAX_FRAME_BYTES - _HEADER.size
"""The largest payload: the relay's 16 KiB without the header."""

EARLY = 256
"""How many frames a receiver holds, in turn and out of turn; what is beyond is ignored."""

RESEND_S = 5.0
"""When an acknowledgement is overdue; the wait doubles each time."""

RESEND_MOST_S = 60.0

LATE_S = 60.0
"""How long a straggler may be under way."""

_SECOND, _MILLI = 20, 7  # where seconds and milliseconds stand in a start, in bits
_MILLIS = 1 << (_SECOND - _MILLI)


def new_start(*, server_time: int, now: float, chance: int) -> int:
    """Name a new life by the service's time and our own; *chance* is a random byte."""
    milli = int(now * 1000) % _MILLIS
    return server_time % (1 << 32) << _SECOND | milli << _MILLI | chance % (1 << _MILLI)


@dataclass(slots=True)
class _Kept:
    """A frame that the other end has not acknowledged."""

    body: bytes
    flags: int
    due_at: float = 0.0
    tries: int = 0


@dataclass(frozen=True, slots=True)
class _Taken:
    """A payload in its turn."""

    seq: int
    body: bytes
    flags: int


class Outbox:
    """What we send: numbered, and kept until acknowledged."""

    def __init__(self, *, start: int) -> None:
        self._start = start
        self._next = start
        self._kept: dict[int, _Kept] = {}

    def __len__(self) -> int:
        return len(self._kept)

    def add(self, body: bytes, *, flags: int = 0) -> int:
        """Keep a payload under the next number; it is due at once."""
        seq, self._next = self._next, self._next + 1
        self._kept[seq] = _Kept(body, flags)
        return seq

    def end(self) -> int:
        """Keep a frame that says that nothing follows."""
        return self.add(b"", flags=_FIN)

    def acknowledge(self, seq: int) -> bool:
        """Forget what the other end has taken; say whether it was waited for.

        Payloads are taken in order, so one acknowledgement stands for those before
        it, too. The end of a life is acknowledged as it comes, for itself alone.
        """
        kept = self._kept.get(seq)
        if kept is None:
            return False
        taken = [seq] if kept.flags & _FIN else [older for older in self._kept if older <= seq]
        for older in taken:
            del self._kept[older]
        return True

    def rewind(self) -> None:
        """Make everything due: either seat was taken again."""
        for kept in self._kept.values():
            kept.due_at, kept.tries = 0.0, 0

    def due(self, *, now: float, most: int | None = None) -> list[int]:
        """Return which of the oldest *most* are to be sent now, oldest first."""
        return [seq for seq, kept in islice(self._kept.items(), most) if kept.due_at <= now]

    def due_at(self, *, most: int | None = None) -> float:
        """Return when one of the oldest *most* will be due."""
        return min((kept.due_at for kept in islice(self._kept.values(), most)), default=math.inf)

    def take(self, seq: int, *, now: float) -> bytes | None:
        """Return a frame to send, and note when it is overdue; None if it was acknowledged."""
        kept = self._kept.get(seq)
        if kept is None:
            return None
        kept.due_at = now + min(RESEND_S * 2.0**kept.tries, RESEND_MOST_S)
        kept.tries = min(kept.tries + 1, 16)
        oldest = next(iter(self._kept))
        return _HEADER.pack(_MAGIC, kept.flags, self._start, seq - oldest) + kept.body


class Inbox:
    """What we receive: put in order, each payload once.

    `end` is the number of the frame with which the sender closed, once all
    before it is there; from then on nothing more is taken.
    """

    def __init__(self) -> None:
        self.end: int | None = None
        self._start: int | None = None
        self._heard_at = 0.0
        self._expected = 0
        self._early: dict[int, _Taken] = {}
        self._ready: deque[_Taken] = deque()

    def __len__(self) -> int:
        return len(self._ready)

    def put(self, seq: int, raw: bytes, *, now: float) -> bool:
        """Take a frame as it comes; say whether we had and delivered it (acknowledge again).

        Raises `InvalidFrame` for a payload that no link made.
        """
        start, back, taken = _unpacked(seq, raw)
        if start != self._start:
            if not self._follows(start, now=now):
                return False
            self._begin(start)
        self._heard_at = now
        self._skip_to(seq - back)
        if seq < self._expected:
            return all(waiting.seq != seq for waiting in self._ready)
        if self.end is None and seq < self._expected - len(self._ready) + EARLY:
            self._early[seq] = taken
            self._line_up()
        return False

    def take(self) -> _Taken:
        """Return the next payload, which is thereby delivered."""
        return self._ready.popleft()

    def _follows(self, start: int, *, now: float) -> bool:
        if self.end is not None:
            return False
        if self._start is None or now - self._heard_at > LATE_S:
            return True
        return _newer(start, self._start)

    def _begin(self, start: int) -> None:
        """Follow a new life of the sender; what was missing of the old one never comes."""
        self._start = self._expected = start
        self._early.clear()

    def _skip_to(self, oldest: int) -> None:
        """Expect nothing older than what the sender still keeps; an earlier life of ours had it."""
        if oldest > self._expected:
            self._expected = oldest
            self._early = {seq: taken for seq, taken in self._early.items() if seq >= oldest}
            self._line_up()

    def _line_up(self) -> None:
        while (taken := self._early.pop(self._expected, None)) is not None:
            self._expected += 1
            if taken.flags & _FIN:
                self.end = taken.seq
                return
            self._ready.append(taken)


def _unpacked(seq: int, raw: bytes) -> tuple[int, int, _Taken]:
    if len(raw) < _HEADER.size:
        raise InvalidFrame("the payload is shorter than a link's header")
    magic, flags, start, back = _HEADER.unpack_from(raw)
    if magic != _MAGIC or not start <= seq - back:
        raise InvalidFrame("the payload does not carry a link's header")
    return start, back, _Taken(seq, raw[_HEADER.size :], flags)


def _newer(start: int, than: int) -> bool:
    """Compare two starts; in the same second, by milliseconds that go round."""
    if start >> _SECOND != than >> _SECOND:
        return start > than
    ahead = ((start >> _MILLI) - (than >> _MILLI)) % _MILLIS
    return 0 < ahead < _MILLIS // 2
