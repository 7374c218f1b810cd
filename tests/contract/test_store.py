"""Do the engines agree? What `Store` promises, on each of them."""

from concurrent.futures import ThreadPoolExecutor

import pytest

from chalicelib.store import PAGE_BYTES, Item, Page, Store, Stores, stamp, stamped

# In the order of their UTF-8 bytes; UTF-16 would put the last before the one above it.
KEYS = (
    "\x00",
    " ",
    "#",
    "%",
    "'",
    "0",
    "00",
    "10",
    "2",
    "A",
    "_",
    "a",
    "a#",
    "é",
    "日",
    "\uffff",
    "😀",
)


def keep(store: Store, *sks: str, pk: str = "circle#c", expires_at: int = 100) -> None:
    store.put(*(Item(pk, sk, expires_at) for sk in sks))


def sks(page: Page) -> list[str]:
    return [item.sk for item in page.items]


class TestPut:
    def test_what_was_put_is_there(self, store: Store) -> None:
        item = Item("circle#c", "node#n", 10, b"body")
        store.put(item)

        assert store.get("circle#c", "node#n", now=1) == item

    def test_a_later_put_replaces_all_of_it(self, store: Store) -> None:
        store.put(Item("circle#c", "node#n", 10, b"body"))
        store.put(Item("circle#c", "node#n", 20))

        assert store.get("circle#c", "node#n", now=1) == Item("circle#c", "node#n", 20, b"")

    def test_nothing_may_be_put(self, store: Store) -> None:
        store.put()

        assert store.newest("circle#c", limit=1, now=1) == Page((), more=False)

    @pytest.mark.parametrize("count", [2, 25, 26, 60])
    def test_any_number_is_put_at_once(self, store: Store, count: int) -> None:
        items = tuple(Item("circle#c", f"{n:03}", 10, b"%d" % n) for n in range(count))
        store.put(*items)

        assert store.after("circle#c", "", limit=100, now=1).items == items

    def test_of_two_with_one_key_the_later_stays(self, store: Store) -> None:
        store.put(*(Item("circle#c", "node#n", 10, body) for body in (b"first", b"later")))

        assert store.newest("circle#c", limit=9, now=1).items == (
            Item("circle#c", "node#n", 10, b"later"),
        )

    @pytest.mark.parametrize("body", [b"", b"\x00", bytes(range(256)), b"7", "é".encode()])
    def test_a_body_is_any_bytes(self, store: Store, body: bytes) -> None:
        store.put(Item("circle#c", "node#n", 10, body))

        found = store.get("circle#c", "node#n", now=1)
        assert found is not None
        assert found.body == body

    def test_a_body_is_large(self, store: Store) -> None:
        store.put(Item("circle#c", "node#n", 10, b"x" * 300_000))

        found = store.get("circle#c", "node#n", now=1)
        assert found is not None
        assert len(found.body) == 300_000

    @pytest.mark.parametrize("key", KEYS)
    def test_a_key_is_any_text(self, store: Store, key: str) -> None:
        store.put(Item(key, key, 10, b"body"))

        assert store.get(key, key, now=1) == Item(key, key, 10, b"body")

    def test_tables_and_partitions_are_apart(self, stores: Stores) -> None:
        for n, store in enumerate(stores):
            store.put(Item("circle#c", "node#n", 10, b"%d" % n))
            store.put(Item("circle#d", "node#n", 10, b"other"))

        assert [store.newest("circle#c", limit=9, now=1).items for store in stores] == [
            (Item("circle#c", "node#n", 10, b"%d" % n),) for n in range(3)
        ]


class TestLive:
    def test_an_item_is_live_until_the_second_it_expires(self, store: Store) -> None:
        item = Item("circle#c", "node#n", 10)
        store.put(item)

        assert store.get("circle#c", "node#n", now=9) == item
        assert store.known("circle#c", ["node#n"], now=9) == {"node#n"}
        assert store.newest("circle#c", limit=1, now=9) == Page((item,), more=False)
        assert store.after("circle#c", "", limit=1, now=9) == Page((item,), more=False)

    def test_an_item_is_gone_at_the_second_it_expires(self, store: Store) -> None:
        store.put(Item("circle#c", "node#n", 10))

        assert store.get("circle#c", "node#n", now=10) is None
        assert store.known("circle#c", ["node#n"], now=10) == set()
        assert store.newest("circle#c", limit=1, now=10) == Page((), more=False)
        assert store.after("circle#c", "", limit=1, now=10) == Page((), more=False)
        assert not store.delete("circle#c", "node#n", now=10)


def later(n: int, *, expires_at: int = 100, body: bytes = b"body") -> Item:
    return stamped(Item("node", "n", expires_at, body), n)


class TestPutLater:
    def test_the_later_stamp_stays_in_whatever_order(self, store: Store) -> None:
        assert store.put_later(later(5), now=1) is None
        assert store.put_later(later(4), now=1) == 5
        assert store.put_later(later(6, body=b"last"), now=1) is None

        found = store.get("node", "n", now=1)
        assert found is not None
        assert stamp(found) == (6, b"last")

    def test_the_same_stamp_changes_nothing(self, store: Store) -> None:
        store.put_later(later(5, body=b"first"), now=1)

        assert store.put_later(later(5, body=b"second"), now=1) == 5
        assert store.put_later(later(5, body=b""), now=1) == 5
        assert store.get("node", "n", now=1) == later(5, body=b"first")

    def test_an_earlier_stamp_takes_the_place_of_an_expired_one(self, store: Store) -> None:
        store.put_later(later(9, expires_at=10), now=1)

        assert store.put_later(later(3), now=9) == 9
        assert store.put_later(later(3), now=10) is None

    @pytest.mark.parametrize(
        ("low", "high"), [(0, 1), (255, 256), (2**32 - 1, 2**32), (1, 2**53 - 1)]
    )
    def test_stamps_are_numbers_and_not_texts(self, store: Store, low: int, high: int) -> None:
        assert store.put_later(later(low), now=1) is None
        assert store.put_later(later(high), now=1) is None
        assert store.put_later(later(low), now=1) == high

    def test_an_empty_body_counts_as_any(self, store: Store) -> None:
        """Who leaves keeps a place, so that no earlier word finds it free."""
        store.put_later(later(5), now=1)

        assert store.put_later(later(6, body=b""), now=1) is None
        assert store.put_later(later(5), now=1) == 6

    def test_it_takes_the_place_of_what_has_no_stamp(self, store: Store) -> None:
        store.add("node", "n", 7, expires_at=100, now=1)
        assert store.put_later(later(1), now=1) is None
        store.put(Item("node", "n", 100))
        assert store.put_later(later(1), now=1) is None
        assert store.put_later(later(1), now=1) == 1

    def test_the_other_verbs_see_an_item_like_any(self, store: Store) -> None:
        store.put_later(later(5), now=1)

        assert store.known("node", ["n"], now=1) == {"n"}
        assert store.after("node", "", limit=9, now=1).items == (later(5),)
        assert not store.put_new(later(9), now=1)
        assert store.delete("node", "n", now=1, body=later(5).body)
        assert store.put_later(later(1), now=1) is None

    @pytest.mark.parametrize("engine", ["sqlite", "dynalite", "dynalite, signed"], indirect=True)
    def test_of_many_at_once_the_latest_stays(self, store: Store) -> None:
        """Not in moto: it checks and writes in two steps, which no lock holds together."""
        with ThreadPoolExecutor(8) as pool:
            told = list(pool.map(lambda n: store.put_later(later(n), now=1), range(1, 41)))

        assert store.get("node", "n", now=1) == later(40)
        assert told[-1] is None
        assert all(found is None or found > n for n, found in enumerate(told, 1))


class TestPutNew:
    def test_the_first_is_kept_and_the_second_is_not(self, store: Store) -> None:
        assert store.put_new(Item("nonce#k", "n", 10, b"first"), now=1)
        assert not store.put_new(Item("nonce#k", "n", 20, b"second"), now=1)

        assert store.get("nonce#k", "n", now=1) == Item("nonce#k", "n", 10, b"first")

    def test_it_gives_way_to_a_live_item_that_was_put(self, store: Store) -> None:
        store.put(Item("nonce#k", "n", 10, b"put"))

        assert not store.put_new(Item("nonce#k", "n", 20, b"new"), now=9)

    def test_it_takes_the_place_of_an_expired_one(self, store: Store) -> None:
        store.put(Item("nonce#k", "n", 10, b"old"))

        assert store.put_new(Item("nonce#k", "n", 20), now=10)
        assert store.get("nonce#k", "n", now=10) == Item("nonce#k", "n", 20)
        assert not store.put_new(Item("nonce#k", "n", 30), now=10)

    def test_it_gives_way_to_a_live_counter_only(self, store: Store) -> None:
        store.add("nonce#k", "n", 1, expires_at=10, now=1)

        assert not store.put_new(Item("nonce#k", "n", 20, b"new"), now=9)
        assert store.put_new(Item("nonce#k", "n", 20, b"new"), now=10)
        assert store.get("nonce#k", "n", now=10) == Item("nonce#k", "n", 20, b"new")


class TestKnown:
    def test_only_live_ones_of_this_partition_are_known(self, store: Store) -> None:
        keep(store, "a", "b")
        keep(store, "c", expires_at=5)
        keep(store, "d", pk="circle#d")

        assert store.known("circle#c", ["a", "b", "c", "d", "e"], now=5) == {"a", "b"}

    def test_of_none_none_is_known(self, store: Store) -> None:
        assert store.known("circle#c", (), now=1) == set()

    def test_asking_twice_for_one_is_asking_once(self, store: Store) -> None:
        keep(store, "a")

        assert store.known("circle#c", ("a", "a", "b", "b"), now=1) == {"a"}

    def test_it_takes_more_than_one_batch(self, store: Store) -> None:
        there = {f"{n:03}" for n in range(250)}
        keep(store, *there)

        assert store.known("circle#c", there | {f"{n:03}" for n in range(250, 600)}, now=1) == there


class TestLists:
    def test_newest_is_downwards_and_after_is_upwards(self, store: Store) -> None:
        keep(store, "b", "c", "a")

        assert sks(store.newest("circle#c", limit=9, now=1)) == ["c", "b", "a"]
        assert sks(store.after("circle#c", "", limit=9, now=1)) == ["a", "b", "c"]

    def test_the_order_is_that_of_utf_8_bytes(self, store: Store) -> None:
        keep(store, *reversed(KEYS))

        assert sks(store.after("circle#c", "", limit=99, now=1)) == list(KEYS)
        assert sks(store.newest("circle#c", limit=99, now=1)) == list(reversed(KEYS))
        assert sks(store.after("circle#c", "\uffff", limit=99, now=1)) == ["😀"]

    def test_after_a_key_means_greater_whether_it_exists_or_not(self, store: Store) -> None:
        keep(store, "a", "c")

        assert sks(store.after("circle#c", "a", limit=9, now=1)) == ["c"]
        assert sks(store.after("circle#c", "b", limit=9, now=1)) == ["c"]
        assert store.after("circle#c", "c", limit=9, now=1) == Page((), more=False)

    @pytest.mark.parametrize(
        ("limit", "more"), [(1, True), (2, True), (3, False), (4, False), (500, False)]
    )
    def test_more_is_said_only_when_there_is_more(
        self, store: Store, limit: int, more: bool
    ) -> None:
        keep(store, "a", "b", "c")

        newest = store.newest("circle#c", limit=limit, now=1)
        after = store.after("circle#c", "", limit=limit, now=1)
        assert (sks(newest), newest.more) == (["c", "b", "a"][:limit], more)
        assert (sks(after), after.more) == (["a", "b", "c"][:limit], more)

    def test_expired_items_neither_end_a_page_nor_count_as_more(self, store: Store) -> None:
        keep(store, *(f"{n:03}" for n in range(300)), expires_at=5)
        keep(store, "100", "200")

        assert store.after("circle#c", "", limit=1, now=5).more
        for page in (
            store.after("circle#c", "", limit=2, now=5),
            store.newest("circle#c", limit=2, now=5),
        ):
            assert (set(sks(page)), page.more) == ({"100", "200"}, False)
        assert store.after("circle#c", "200", limit=2, now=5) == Page((), more=False)

    @pytest.mark.parametrize("size", [10_000, 60_000, 390_000, 399_000])
    def test_a_page_ends_at_its_size_in_bytes(self, store: Store, size: int) -> None:
        keys = [f"{n:03}" for n in range(2_400_000 // size)]
        for key in keys:
            store.put(Item("circle#c", key, 10, b"x" * size))
        upwards: list[str] = []
        page = Page((), more=True)
        while page.more:
            page = store.after("circle#c", upwards[-1] if upwards else "", limit=500, now=1)
            assert 0 < sum(len(item.body) for item in page.items) <= PAGE_BYTES
            upwards += sks(page)

        newest = store.newest("circle#c", limit=500, now=1)
        assert upwards == keys
        assert newest.more
        assert sks(newest) == keys[::-1][: len(newest.items)]
        assert sum(len(item.body) for item in newest.items) > PAGE_BYTES - 2 * size

    def test_a_page_walk_meets_every_item_once(self, store: Store) -> None:
        keys = [f"{n:03}" for n in range(57)]
        keep(store, *keys)
        keep(store, *(f"{n:03}x" for n in range(57)), expires_at=1)
        met: list[str] = []
        page = Page((), more=True)
        while page.more:
            page = store.after("circle#c", met[-1] if met else "", limit=10, now=1)
            met += sks(page)

        assert met == keys


class TestDelete:
    def test_a_live_item_goes_once(self, store: Store) -> None:
        keep(store, "a", "b")

        assert store.delete("circle#c", "a", now=1)
        assert not store.delete("circle#c", "a", now=1)
        assert sks(store.newest("circle#c", limit=9, now=1)) == ["b"]

    @pytest.mark.parametrize("body", [b"", b"mine"])
    def test_with_a_body_it_goes_only_if_that_is_its_body(self, store: Store, body: bytes) -> None:
        store.put(Item("seat#s", "n", 10, body))

        for other in {b"", b"mine", b"theirs", b"mine "} - {body}:
            assert not store.delete("seat#s", "n", now=1, body=other)
        assert store.get("seat#s", "n", now=1) is not None
        assert store.delete("seat#s", "n", now=1, body=body)
        assert store.get("seat#s", "n", now=1) is None
        assert not store.delete("seat#s", "n", now=1, body=body)

    def test_an_expired_item_with_that_body_was_not_live(self, store: Store) -> None:
        store.put(Item("seat#s", "n", 10, b"mine"))

        assert not store.delete("seat#s", "n", now=10, body=b"mine")

    @pytest.mark.parametrize("body", [b"", b"5"])
    def test_a_counter_has_no_body_to_match(self, store: Store, body: bytes) -> None:
        store.add("count", "c", 5, expires_at=10, now=1)

        assert not store.delete("count", "c", now=1, body=body)
        assert store.delete("count", "c", now=1)
        assert store.add("count", "c", 5, expires_at=10, now=1) == 5


class TestAdd:
    def test_it_starts_from_nothing_and_returns_the_total(self, store: Store) -> None:
        totals = [store.add("count", "c", amount, expires_at=10, now=1) for amount in (2, 3, -4, 0)]

        assert totals == [2, 5, 1, 1]

    def test_it_reads_as_its_decimal_digits(self, store: Store) -> None:
        store.add("count", "c", 2**53, expires_at=10, now=1)
        store.add("count", "d", -7, expires_at=10, now=1)

        c = Item("count", "c", 10, b"9007199254740992")
        d = Item("count", "d", 10, b"-7")
        assert store.get("count", "c", now=1) == c
        assert store.newest("count", limit=9, now=1).items == (d, c)
        assert store.known("count", ["c"], now=1) == {"c"}

    def test_it_lives_as_long_as_was_said_last(self, store: Store) -> None:
        store.add("count", "c", 1, expires_at=10, now=1)
        store.add("count", "c", 1, expires_at=20, now=9)

        assert store.add("count", "c", 1, expires_at=5, now=19) == 3
        assert store.get("count", "c", now=5) is None

    def test_an_expired_one_starts_again(self, store: Store) -> None:
        store.add("count", "c", 5, expires_at=10, now=1)

        assert store.add("count", "c", 3, expires_at=20, now=10) == 3
        assert store.add("count", "c", 3, expires_at=20, now=10) == 6
        assert store.get("count", "c", now=10) == Item("count", "c", 20, b"6")

    def test_one_that_was_never_live_starts_again_each_time(self, store: Store) -> None:
        assert [store.add("count", "c", 1, expires_at=5, now=9) for _ in range(3)] == [1, 1, 1]

    def test_an_item_that_is_no_counter_becomes_one(self, store: Store) -> None:
        store.put(Item("count", "c", 10, b"41"))

        assert store.add("count", "c", 1, expires_at=20, now=1) == 1
        assert store.get("count", "c", now=1) == Item("count", "c", 20, b"1")
        assert not store.delete("count", "c", now=1, body=b"41")

    def test_an_expired_item_that_is_no_counter_becomes_one(self, store: Store) -> None:
        store.put(Item("count", "c", 10, b"41"))

        assert store.add("count", "c", 1, expires_at=20, now=10) == 1
        assert not store.delete("count", "c", now=10, body=b"41")

    def test_a_counter_that_is_replaced_is_one_no_more(self, store: Store) -> None:
        store.add("count", "c", 1, expires_at=10, now=1)
        store.put(Item("count", "c", 10, b"41"))

        assert store.get("count", "c", now=1) == Item("count", "c", 10, b"41")
        assert store.add("count", "c", 1, expires_at=10, now=1) == 1
