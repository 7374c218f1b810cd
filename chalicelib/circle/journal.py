"""Journal: an append-only list that no reader misses a line of.

The number of an entry is its place. A writer reads the last entry and claims
the next number with one conditional write; if somebody else had it first, the
writer looks again. So an entry becomes visible only after all before it, on any
number of machines and whatever their clocks say, and a reader who has seen
number *n* will never be handed a smaller one (ADR 0004).

An empty journal starts at the current millisecond, so that numbers do not start
again when everything has expired. Writers who find it empty at the same time
first agree on that number, or one of them could write below what was read.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import msgspec

from chalicelib.store import Item, Store, Unavailable

ATTEMPTS = 200
"""How often a writer looks for the end before it says the journal is too busy."""

START_S = 60
"""How long those who find a journal empty agree on the number it starts at."""

ENTRY_BYTES = 256 * 1024
"""When an entry has reached this size the next part opens another; an item may have 400 KB."""

SECOND_PARTS = 1_000
SECOND_BYTES = 512 * 1024
"""What one second may hold; more is dated a second later, so that any two seconds fit one page.

An entry that is larger than `ENTRY_BYTES`, as its one part is, has a second to itself and an
empty one on both sides, so that a page can hold it alone.
"""


class Part(msgspec.Struct, frozen=True, array_like=True):
    """One thing written: its name (empty where names do not matter) and its bytes.

    Where *apart* is not 0, so many bytes are kept elsewhere and *body* says where. What
    nobody signed is counted by itself.
    """

    name: str
    body: bytes
    apart: int = 0
    unsigned: bool = False

    @property
    def size(self) -> int:
        """How many bytes it has, wherever they are kept."""
        return self.apart or len(self.body)


class _Line(msgspec.Struct, frozen=True, array_like=True):
    """What an item of the journal holds."""

    written_at: int
    second_parts: int
    second_bytes: int
    total_parts: int
    total_bytes: int
    parts: tuple[Part, ...]
    unsigned_parts: int = 0
    unsigned_bytes: int = 0


class Amount(NamedTuple):
    """How many parts, and how many bytes they have."""

    parts: int = 0
    size: int = 0

    def within(self, most: Amount) -> bool:
        """Say whether this is no more than *most* in either."""
        return self.parts <= most.parts and self.size <= most.size

    def plus(self, other: Amount) -> Amount:
        """Return both together."""
        return Amount(self.parts + other.parts, self.size + other.size)

    def minus(self, other: Amount) -> Amount:
        """Return what is left without *other*."""
        return Amount(self.parts - other.parts, self.size - other.size)


@dataclass(frozen=True, slots=True)
class Entry:
    """One entry: its number, its date (never before an earlier entry's), its parts.

    The totals count all parts and bytes from the start of the journal to here.
    """

    number: int
    written_at: int
    second_parts: int
    second_bytes: int
    total_parts: int
    total_bytes: int
    parts: tuple[Part, ...]
    unsigned_parts: int = 0
    unsigned_bytes: int = 0

    @property
    def size(self) -> int:
        """The bytes of its parts."""
        return _size(self.parts)

    def so_far(self, *, unsigned: bool) -> Amount:
        """Return what was written from the start to here, the unsigned or the rest."""
        if unsigned:
            return Amount(self.unsigned_parts, self.unsigned_bytes)
        return Amount(
            self.total_parts - self.unsigned_parts, self.total_bytes - self.unsigned_bytes
        )


Prepare = Callable[[Entry | None], Sequence[Part]]


class Run(NamedTuple):
    """Parts that stand in one entry: the entry's number, and that of the entry before it."""

    before: int
    number: int
    parts: Sequence[Part]


def append(store: Store, pk: str, prepare: Prepare, *, clock: float, lifetime_s: int) -> list[Run]:
    """Write parts at the end, in one entry or, if they are large, several in a row.

    *prepare* is given the last entry and returns what is to be written after it;
    it is asked again whenever another writer was faster. Returns what was written.
    """
    runs: list[Run] = []
    for _ in range(ATTEMPTS):
        tail = last(store, pk, now=int(clock))
        parts = prepare(tail)
        if not parts:
            return runs
        fitting = _fitting(parts)
        number = _claim(store, pk, tail, fitting, clock=clock, lifetime_s=lifetime_s)
        if number is None:
            continue
        runs.append(Run(tail.number if tail else number - 1, number, fitting))
        if len(fitting) == len(parts):
            return runs
    raise Unavailable("too many writers at once")


def leap(store: Store, pk: str, *, clock: float, lifetime_s: int) -> int:
    """Go on at the current millisecond, above all that was handed out; return that number.

    For a journal that comes from a copy: readers may have seen numbers that were written
    after it was made, and would take the next ones for old. Numbers are never ahead of
    the clock, unless a journal had more than a thousand entries a second all its life.
    """
    now = int(clock)
    tail = last(store, pk, now=now)
    if tail is None:
        return 0
    line = _line(tail, (), now=now)
    number = max(tail.number + 1, int(clock * 1000))
    store.put(Item(pk, _key(number), line.written_at + lifetime_s, msgspec.msgpack.encode(line)))
    return number


def last(store: Store, pk: str, *, now: int) -> Entry | None:
    """Return the newest entry."""
    items = store.newest(pk, limit=1, now=now).items
    return _entry(items[0]) if items else None


def first(store: Store, pk: str, *, now: int) -> Entry | None:
    """Return the oldest entry that is still kept."""
    items = store.after(pk, "", limit=1, now=now).items
    return _entry(items[0]) if items else None


def latest(store: Store, pk: str, *, limit: int, now: int) -> tuple[list[Entry], bool]:
    """Return the newest entries, oldest of them first, and whether older ones exist."""
    page = store.newest(pk, limit=limit, now=now)
    return [_entry(item) for item in reversed(page.items)], page.more


def following(store: Store, pk: str, number: int, *, now: int, page: int = 100) -> Iterator[Entry]:
    """Yield the entries after *number*, reading page by page as they are asked for.

    The first pages are small: an entry may hold fifty messages, and what is read
    and not asked for is paid for all the same.
    """
    sk = _key(number)
    for limit in itertools.chain((5, 25), itertools.repeat(page)):
        found = store.after(pk, sk, limit=min(limit, page), now=now)
        for item in found.items:
            yield _entry(item)
        if not found.more or not found.items:
            return
        sk = found.items[-1].sk


def amount(parts: Sequence[Part], *, unsigned: bool) -> Amount:
    """Return how much of an entry is unsigned, or is not: it is all of one kind."""
    if not parts or parts[0].unsigned != unsigned:
        return Amount()
    return Amount(len(parts), _size(parts))


def fits(
    store: Store, pk: str, tail: Entry | None, more: Sequence[Part], *, most: Amount, now: int
) -> bool:
    """Say whether *more*, all of it signed or none, leaves no more than *most* of its kind kept.

    What is not of its kind takes no room from it. Most often the totals of the last entry
    say so, and otherwise what the oldest entry that is kept leaves of them.
    """
    if not more:
        return True
    unsigned, new = more[0].unsigned, Amount(len(more), _size(more))
    if tail is None:
        return new.within(most)
    wanted = tail.so_far(unsigned=unsigned).plus(new)
    if wanted.within(most):
        return True
    oldest = first(store, pk, now=now)
    if oldest is None:
        return new.within(most)
    gone = oldest.so_far(unsigned=unsigned).minus(amount(oldest.parts, unsigned=unsigned))
    return wanted.minus(gone).within(most)


def before_date(store: Store, pk: str, date: int, *, now: int) -> int:
    """Return the number after which the entries dated later than *date* begin.

    Dates never fall along a journal, so this is a binary search: some fifteen
    single reads in a journal of 20,000 entries.
    """
    oldest, newest = first(store, pk, now=now), last(store, pk, now=now)
    if oldest is None or newest is None or oldest.written_at > date:
        return 0
    low, high = oldest.number, newest.number
    while low < high:  # entry `low` is dated at or before `date`
        middle = (low + high + 1) // 2
        found = store.after(pk, _key(middle - 1), limit=1, now=now).items
        entry = _entry(found[0]) if found else newest
        if entry.written_at > date:
            high = middle - 1
        else:
            low = max(middle, entry.number)
    return low


def _claim(
    store: Store,
    pk: str,
    tail: Entry | None,
    parts: Sequence[Part],
    *,
    clock: float,
    lifetime_s: int,
) -> int | None:
    now = int(clock)
    line = _line(tail, parts, now=now)
    number = tail.number + 1 if tail else _start(store, pk, clock=clock, lifetime_s=lifetime_s)
    item = Item(pk, _key(number), line.written_at + lifetime_s, msgspec.msgpack.encode(line))
    return number if store.put_new(item, now=now) else None


def _start(store: Store, pk: str, *, clock: float, lifetime_s: int) -> int:
    """Return the number at which an empty journal starts, the same to all who ask just now.

    So they compete for one key like everybody else. The mark is gone long before
    the first entry is, and with it the number.
    """
    now = int(clock)
    until = now + max(1, min(START_S, lifetime_s // 2))
    mark = Item("start#" + pk, "-", until, _key(int(clock * 1000)).encode())
    if store.put_new(mark, now=now):
        return int(mark.body)
    kept = store.get(mark.pk, mark.sk, now=now)
    return int(kept.body if kept else mark.body)


def _line(tail: Entry | None, parts: Sequence[Part], *, now: int) -> _Line:
    size, strangers = _size(parts), amount(parts, unsigned=True)
    if tail is None:
        return _Line(now, len(parts), size, len(parts), size, tuple(parts), *strangers)
    date = _date(tail, size, now=now)
    same = date == tail.written_at
    return _Line(
        date,
        len(parts) + (tail.second_parts if same else 0),
        size + (tail.second_bytes if same else 0),
        tail.total_parts + len(parts),
        tail.total_bytes + size,
        tuple(parts),
        tail.unsigned_parts + strangers.parts,
        tail.unsigned_bytes + strangers.size,
    )


def _date(tail: Entry, size: int, *, now: int) -> int:
    """Return the date of an entry of *size* bytes after *tail*."""
    if max(size, tail.size) > ENTRY_BYTES:
        return max(now, tail.written_at + 2)
    full = tail.second_parts >= SECOND_PARTS or tail.second_bytes >= SECOND_BYTES
    return max(now, tail.written_at + full)


def _size(parts: Sequence[Part]) -> int:
    if len(parts) == 1:  # as most often
        return parts[0].size
    return sum([part.size for part in parts])


def _fitting(parts: Sequence[Part]) -> Sequence[Part]:
    if len(parts) == 1:
        return parts
    size = 0
    for count, part in enumerate(parts):
        size += part.size
        if size > ENTRY_BYTES:
            return parts[: max(count, 1)]
    return parts


def _entry(item: Item) -> Entry:
    line = _decoder.decode(item.body)
    return Entry(
        int(item.sk),
        line.written_at,
        line.second_parts,
        line.second_bytes,
        line.total_parts,
        line.total_bytes,
        line.parts,
        line.unsigned_parts,
        line.unsigned_bytes,
    )


def _key(number: int) -> str:
    return f"{number:016d}"


_decoder = msgspec.msgpack.Decoder(_Line)
