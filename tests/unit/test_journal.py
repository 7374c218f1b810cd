"""The journal against writers that interleave in the worst way."""

from collections.abc import Callable

import msgspec
import pytest

from chalicelib.circle import journal
from chalicelib.store import Item, Page, Store, Unavailable
from chalicelib.store.sqlite import open_sqlite

PK = "mail#circle"


@pytest.fixture
def store() -> Store:
    return open_sqlite(":memory:").mail


def write(store: Store, *names: str, clock: float = 1_000.0) -> list[journal.Run]:
    parts = [journal.Part(name, name.encode()) for name in names]
    return journal.append(store, PK, lambda tail: parts, clock=clock, lifetime_s=100)


def names(store: Store, after: int = 0, now: int = 1_000) -> list[str]:
    return [part.name for e in journal.following(store, PK, after, now=now) for part in e.parts]


class Interrupted:
    """A store that lets somebody else work just before a claim."""

    def __init__(self, store: Store, meanwhile: Callable[[], object]) -> None:
        self._store = store
        self._meanwhile: Callable[[], object] | None = meanwhile

    def __getattr__(self, name: str) -> object:
        return getattr(self._store, name)

    def put_new(self, item: Item, *, now: int) -> bool:
        """Let the other writer go first, once."""
        if self._meanwhile is not None:
            meanwhile, self._meanwhile = self._meanwhile, None
            meanwhile()
        return self._store.put_new(item, now=now)


def test_numbers_follow_each_other(store: Store) -> None:
    [first] = write(store, "a")
    [second] = write(store, "b", clock=1_000.5)

    assert (second.before, second.number) == (first.number, first.number + 1)


def test_a_writer_that_was_overtaken_writes_behind(store: Store) -> None:
    write(store, "a")
    slow = Interrupted(store, lambda: write(store, "b"))

    write(slow, "c")  # type: ignore[arg-type]

    assert names(store) == ["a", "b", "c"]


@pytest.mark.parametrize("other_clock", [999.0, 1_000.0, 1_000.9])
def test_two_who_start_an_empty_journal_both_stay_readable(
    store: Store, other_clock: float
) -> None:
    seen: list[str] = []
    cursor = 0

    def meanwhile() -> None:
        nonlocal cursor
        cursor = write(store, "b", clock=other_clock)[-1].number
        seen.extend(names(store))

    write(Interrupted(store, meanwhile), "a")  # type: ignore[arg-type]

    assert seen == ["b"]
    assert names(store, after=cursor) == ["a"]


def test_numbers_do_not_start_again_when_everything_has_expired(store: Store) -> None:
    [old] = write(store, *"abcdefgh")

    [new] = write(store, "i", clock=1_200.0)

    assert new.number > old.number
    assert names(store, after=old.number, now=1_200) == ["i"]


def test_dates_never_fall(store: Store) -> None:
    write(store, "a", clock=1_000.0)
    write(store, "b", clock=900.0)

    assert [entry.written_at for entry in journal.following(store, PK, 0, now=900)] == [
        1_000,
        1_000,
    ]


def test_a_date_is_found_by_search_wherever_it_lies(store: Store) -> None:
    clocks = [1_000.0, 1_000.0, 1_001.0, 1_004.0, 1_004.0, 1_004.0, 1_009.0]
    for clock in clocks:
        write(store, "x", clock=clock)
    for date in range(998, 1_012):
        start = journal.before_date(store, PK, date, now=1_009)

        found = [entry.written_at for entry in journal.following(store, PK, start, now=1_009)]

        assert found == [int(clock) for clock in clocks if clock > date], date


def test_totals_and_seconds_are_counted(store: Store) -> None:
    write(store, "a", "bb", clock=1_000.0)
    write(store, "ccc", clock=1_000.5)
    write(store, "d", clock=1_002.0)

    entries = list(journal.following(store, PK, 0, now=1_002))

    assert [(e.second_parts, e.total_parts, e.total_bytes) for e in entries] == [
        (2, 2, 3),
        (3, 3, 6),
        (1, 4, 7),
    ]


def test_a_writer_that_never_gets_a_turn_gives_up(store: Store) -> None:
    class Busy(Interrupted):
        def put_new(self, item: Item, *, now: int) -> bool:
            return False

    write(store, "a")

    with pytest.raises(Unavailable):
        write(Busy(store, lambda: None), "b")  # type: ignore[arg-type]


def test_pages_are_read_only_as_far_as_they_are_wanted(store: Store) -> None:
    for number in range(30):
        write(store, str(number))
    reads = 0

    class Counting(Interrupted):
        def after(self, pk: str, sk: str, *, limit: int, now: int) -> Page:
            nonlocal reads
            reads += 1
            return store.after(pk, sk, limit=limit, now=now)

    entries = journal.following(Counting(store, lambda: None), PK, 0, now=1_000, page=10)  # type: ignore[arg-type]
    taken = [next(entries) for _ in range(10)]

    assert (len(taken), reads) == (10, 2)


def test_a_journal_from_a_copy_goes_on_above_what_was_handed_out(store: Store) -> None:
    def put(clock: float) -> int:
        (run,) = journal.append(
            store, "j", lambda tail: [journal.Part("", b"x")], clock=clock, lifetime_s=60
        )
        return run.number

    first = put(1_000.0)
    number = journal.leap(store, "j", clock=1_010.0, lifetime_s=60)
    after = put(1_010.0)
    found = list(journal.following(store, "j", first, now=1_010))

    assert (first, number, after) == (1_000_000, 1_010_000, 1_010_001)
    assert [len(entry.parts) for entry in found] == [0, 1]
    assert found[-1].total_parts == 2
    assert journal.leap(store, "empty", clock=1_010.0, lifetime_s=60) == 0


def test_a_large_entry_has_a_second_to_itself_between_two_empty_ones(store: Store) -> None:
    """So a page that is cut between seconds can hold it alone."""
    for size, clock in ((1, 1_000.0), (700_000, 1_000.1), (300_000, 1_002.5), (1, 1_005.2)):
        part = journal.Part("", b"elsewhere", size)
        journal.append(store, PK, lambda tail, part=part: [part], clock=clock, lifetime_s=100)  # type: ignore[misc]
    write(store, "a", clock=1_006.0)

    entries = list(journal.following(store, PK, 0, now=1_006))

    assert [entry.written_at for entry in entries] == [1_000, 1_002, 1_004, 1_006, 1_006]
    assert [entry.size for entry in entries] == [1, 700_000, 300_000, 1, 1]
    assert entries[-1].total_bytes == 1_000_003


def test_an_entry_of_before_there_were_pieces_is_read(store: Store) -> None:
    line = (1_000, 1, 3, 1, 3, (("a", b"old"),))
    store.put(Item(PK, f"{1_000_000:016d}", 1_100, msgspec.msgpack.encode(line)))

    [entry] = journal.following(store, PK, 0, now=1_000)

    assert entry.parts == (journal.Part("a", b"old"),)
    assert entry.size == 3
