"""What the SQLite engine does beyond the protocol: files, threads, purge and census."""

import sqlite3
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path

import pytest

from chalicelib.store import PAGE_BYTES, Full, Item, Page, Stores, Unavailable
from chalicelib.store.sqlite import Count, SqliteStores, open_sqlite
from tests.support.stores import in_sqlite


@pytest.fixture(params=["file", "memory"])
def stores(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[SqliteStores]:
    stores = open_sqlite(":memory:" if request.param == "memory" else tmp_path / "muster.db")
    yield stores
    stores.close()


def together(*tasks: Callable[[], None]) -> None:
    """Run the tasks at the same time; raise what one of them raised."""
    raised: list[BaseException] = []
    barrier = threading.Barrier(len(tasks))

    def run(task: Callable[[], None]) -> None:
        try:
            barrier.wait(10)
            task()
        except BaseException as error:
            raised.append(error)

    threads = [threading.Thread(target=run, args=(task,)) for task in tasks]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if raised:
        raise raised[0]


def test_a_file_is_still_there_when_it_is_opened_again(tmp_path: Path) -> None:
    item = Item("circle#c", "node#n", 10, b"body")
    for _ in range(2):
        with in_sqlite(tmp_path / "muster.db") as stores:
            stores.mail.put_new(item, now=1)

    with in_sqlite(tmp_path / "muster.db") as stores:
        assert stores.mail.get("circle#c", "node#n", now=1) == item


def test_two_memories_are_apart() -> None:
    one, other = open_sqlite(":memory:"), open_sqlite(":memory:")
    one.mail.put(Item("circle#c", "node#n", 10))

    assert other.mail.get("circle#c", "node#n", now=1) is None
    one.close()
    other.close()


def test_a_closed_file_can_be_used_again(tmp_path: Path) -> None:
    with in_sqlite(tmp_path / "muster.db") as stores:
        stores.mail.put(Item("circle#c", "node#n", 10))
        assert [path.name for path in tmp_path.glob("*-wal")] == ["muster.db-wal"]
        stores.database.close()
        assert list(tmp_path.glob("*-wal")) == []

        assert stores.mail.get("circle#c", "node#n", now=1) is not None


def test_threads_share_a_store(stores: SqliteStores) -> None:
    """Readers and writers, single items and several: no answer is mixed up, none is lost."""
    rounds, writers = 100, 4
    totals: list[int] = []

    def write(writer: int) -> None:
        for n in range(rounds):
            assert stores.mail.put_new(Item("new", f"{writer} {n:03}", 10, b"x"), now=1)
            stores.mail.put(*(Item(f"many {writer}", f"{part}", 10, b"%d" % n) for part in "abc"))
            totals.append(stores.mail.add("count", "c", 1, expires_at=10, now=1))

    def read() -> None:
        for _ in range(rounds):
            for writer in range(writers):
                page = stores.mail.after(f"many {writer}", "", limit=9, now=1)
                assert len({item.body for item in page.items}) <= 1, "half of a put was seen"

    together(*(lambda writer=writer: write(writer) for writer in range(writers)), read, read)

    assert sorted(totals) == list(range(1, rounds * writers + 1))
    assert len(stores.mail.newest("new", limit=9_999, now=1).items) == rounds * writers


def test_purge_removes_what_expired_a_slice_at_a_time(stores: SqliteStores) -> None:
    for pk in "abc":
        stores.guard.put(*(Item(pk, f"{n:02}", 5 + n % 2) for n in range(20)))
    stores.mail.put(Item("circle#c", "node#n", 5))

    gone = [stores.purge(5, slice_items=8) for _ in range(8)]

    # Sixty items of which every other one expired, in slices of eight; and one in another table.
    assert gone == [4 + 1, 4, 4, 4, 4, 4, 4, 2]
    assert all(len(stores.guard.newest(pk, limit=99, now=1).items) == 10 for pk in "abc")
    assert [stores.purge(6, slice_items=25) for _ in range(3)] == [25, 5, 0]
    assert stores.census(0) == {"presence": {}, "mail": {}, "guard": {}}


def test_purge_leaves_the_live_alone_and_comes_round_again(stores: SqliteStores) -> None:
    stores.mail.put(*(Item("circle#c", f"{n}", 100) for n in range(7)))
    for _ in range(10):
        assert stores.purge(99, slice_items=3) == 0
    stores.mail.put(Item("a", "first in order", 1))

    assert sum(stores.purge(99, slice_items=3) for _ in range(4)) == 1
    assert len(stores.mail.newest("circle#c", limit=99, now=1).items) == 7


def test_census_counts_what_is_live_by_kind(stores: SqliteStores) -> None:
    stores.presence.put(
        Item("circle#c", "a", 10),
        Item("circle#c", "b", 10),
        Item("circle#d", "a", 10),
        Item("circle#e", "expired", 5),
        Item("key#c", "-", 10),
        Item("seats", "-", 10),
    )
    stores.guard.add("count#n", "1", 1, expires_at=10, now=1)

    assert stores.census(5) == {
        "presence": {"circle": Count(2, 3), "key": Count(1, 1), "seats": Count(1, 1)},
        "mail": {},
        "guard": {"count": Count(1, 1)},
    }


def test_a_long_partition_is_not_read_whole_for_a_page(tmp_path: Path) -> None:
    """A page of large items stops the reading: the connection is free for others at once."""
    with in_sqlite(tmp_path / "muster.db") as stores:
        stores.mail.put(*(Item("circle#c", f"{n:03}", 10, b"x" * 100_000) for n in range(40)))
        page = stores.mail.after("circle#c", "", limit=500, now=1)
        assert (len(page.items), page.more) == (9, True)
        with stores.database.connection() as connection:
            busy, _, _ = connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()
        assert busy == 0


def test_an_item_larger_than_a_page_is_a_page(stores: SqliteStores) -> None:
    items = [Item("circle#c", sk, 10, b"x" * (PAGE_BYTES + 1)) for sk in "ab"]
    stores.mail.put(*items)

    assert stores.mail.after("circle#c", "", limit=9, now=1) == Page((items[0],), more=True)
    assert stores.mail.after("circle#c", "a", limit=9, now=1) == Page((items[1],), more=False)


def test_room_tells_what_is_used_without_reading_it(tmp_path: Path) -> None:
    with closing(open_sqlite(tmp_path / "muster.db", most_bytes=100_000_000)) as stores:
        before = stores.room()
        stores.mail.put(*(Item("circle#c", f"{n:02}", 10, b"x" * 10_000) for n in range(30)))
        after = stores.room()
        assert 90_000_000 < after.most_bytes < 100_000_000, "a part is kept for the log"
        assert after.used_bytes - before.used_bytes > 300_000
        while stores.purge(11):
            pass
        stores.database.run("PRAGMA wal_checkpoint(TRUNCATE)")
        assert stores.room().used_bytes <= before.used_bytes


def test_a_write_that_finds_no_room_is_told_apart_and_remembered(tmp_path: Path) -> None:
    with closing(open_sqlite(tmp_path / "muster.db")) as stores:
        pages = stores.database.run("PRAGMA page_count")[0][0]
        stores.database.run(f"PRAGMA max_page_count = {pages + 5}")
        with pytest.raises(Full, match="full"):
            stores.mail.put(Item("circle#c", "one", 10, b"x" * 100_000))
        assert stores.room().refused
        stores.guard.put(Item("nonce#c", "one", 10))


def test_after_one_waited_in_vain_for_a_lock_nobody_waits_until_it_is_free(tmp_path: Path) -> None:
    path = tmp_path / "muster.db"
    with closing(open_sqlite(path, busy_s=0.3)) as stores:
        item = Item("circle#c", "one", 10)
        stores.mail.put(item)
        with closing(sqlite3.connect(path, isolation_level=None)) as other:
            other.execute("BEGIN IMMEDIATE")
            took = []
            for _ in range(5):
                started = time.monotonic()
                with pytest.raises(Unavailable, match="locked"):
                    stores.mail.put(item, item)
                took.append(time.monotonic() - started)
                assert stores.mail.get("circle#c", "one", now=1) == item
            assert took[0] >= 0.3
            assert sum(took[1:]) < 0.3
            other.execute("COMMIT")
        stores.mail.put(item)
        with closing(sqlite3.connect(path, isolation_level=None)) as other:
            other.execute("BEGIN IMMEDIATE")
            started = time.monotonic()
            with pytest.raises(Unavailable, match="locked"):
                stores.mail.put(item)
            assert time.monotonic() - started >= 0.3, "after a write the next one waits again"


def test_its_stores_are_stores(stores: Stores) -> None:
    assert [store.newest("x", limit=1, now=1) for store in stores] == [Page((), more=False)] * 3
