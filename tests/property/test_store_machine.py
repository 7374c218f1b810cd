"""Is each engine a dictionary? Random verbs on both, and every answer compared."""

import contextlib
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, rule, run_state_machine_as_test

from chalicelib.store import Item, Page, Store, stamp, stamped
from tests.support import stores

PKS = st.sampled_from(["circle#c", "circle#d"])
SKS = st.sampled_from(["a", "b", "ba", "\uffff", "😀"]) | st.text(
    st.characters(codec="utf-8"), min_size=1, max_size=2
)
BODIES = st.sampled_from([b"", b"1", b"x"]) | st.binary(max_size=8)
LIVES = st.integers(-1, 4)
LIMITS = st.integers(1, 4)


class StoreMachine(RuleBasedStateMachine):
    """A store beside a dictionary: key to expires_at and an item's bytes or a counter's total."""

    engine: str
    dynalite_url: str

    @initialize()
    def open(self) -> None:
        self.now = 10
        self.model: dict[tuple[str, str], tuple[int, bytes | int]] = {}
        self.rest = contextlib.ExitStack()
        directory = self.rest.enter_context(tempfile.TemporaryDirectory())
        opened = stores.opened(
            self.engine, directory=Path(directory), dynalite_url=self.dynalite_url
        )
        self.store: Store = self.rest.enter_context(opened).mail

    def teardown(self) -> None:
        if not hasattr(self, "store"):
            return
        with self.rest:
            for pk in ("circle#c", "circle#d"):
                everything = tuple(self.live(pk))
                assert self.store.after(pk, "", limit=999, now=self.now) == (everything, False)

    def live(self, pk: str) -> Iterator[Item]:
        """What the dictionary has of a partition, in order."""
        for (its_pk, sk), (expires_at, value) in sorted(
            self.model.items(), key=lambda one: one[0][1].encode()
        ):
            if its_pk == pk and expires_at > self.now:
                body = value if isinstance(value, bytes) else str(value).encode()
                yield Item(pk, sk, expires_at, body)

    @rule(seconds=st.integers(1, 3))
    def wait(self, seconds: int) -> None:
        self.now += seconds

    @rule(drafts=st.lists(st.tuples(PKS, SKS, LIVES, BODIES), max_size=30))
    def put(self, drafts: list[tuple[str, str, int, bytes]]) -> None:
        items = [Item(pk, sk, self.now + life, body) for pk, sk, life, body in drafts]
        self.store.put(*items)
        self.model.update({(pk, sk): (expires_at, body) for pk, sk, expires_at, body in items})

    @rule(pk=PKS, sk=SKS, life=LIVES, body=BODIES)
    def put_new(self, pk: str, sk: str, life: int, body: bytes) -> None:
        free = self.model.get((pk, sk), (0, b""))[0] <= self.now
        if free:
            self.model[pk, sk] = (self.now + life, body)
        assert self.store.put_new(Item(pk, sk, self.now + life, body), now=self.now) == free

    @rule(pk=PKS, sk=SKS, life=LIVES, body=BODIES, at=st.integers(0, 3))
    def put_later(self, pk: str, sk: str, life: int, body: bytes, at: int) -> None:
        item = stamped(Item(pk, sk, self.now + life, body), at)
        expires_at, value = self.model.get((pk, sk), (0, b""))
        live = expires_at > self.now and isinstance(value, bytes)
        if live and isinstance(value, bytes) and value >= item.body[:8]:
            standing = stamp(Item(pk, sk, expires_at, value))[0]
            assert self.store.put_later(item, now=self.now) == standing
            return
        assert self.store.put_later(item, now=self.now) is None
        self.model[pk, sk] = (item.expires_at, item.body)

    @rule(pk=PKS, sk=SKS)
    def get(self, pk: str, sk: str) -> None:
        expected = next((item for item in self.live(pk) if item.sk == sk), None)
        assert self.store.get(pk, sk, now=self.now) == expected

    @rule(pk=PKS, sks=st.sets(SKS, max_size=8))
    def known(self, pk: str, sks: set[str]) -> None:
        expected = {item.sk for item in self.live(pk)} & sks
        assert self.store.known(pk, sks, now=self.now) == expected

    @rule(pk=PKS, limit=LIMITS)
    def newest(self, pk: str, limit: int) -> None:
        expected = tuple(self.live(pk))[::-1]
        page = self.store.newest(pk, limit=limit, now=self.now)
        assert page == Page(expected[:limit], more=len(expected) > limit)

    @rule(pk=PKS, sk=SKS | st.just(""), limit=LIMITS)
    def after(self, pk: str, sk: str, limit: int) -> None:
        expected = tuple(item for item in self.live(pk) if item.sk.encode() > sk.encode())
        page = self.store.after(pk, sk, limit=limit, now=self.now)
        assert page == Page(expected[:limit], more=len(expected) > limit)

    @rule(pk=PKS, sk=SKS, body=st.none() | BODIES)
    def delete(self, pk: str, sk: str, body: bytes | None) -> None:
        expires_at, value = self.model.get((pk, sk), (0, None))
        matches = value is not None and body in (None, value)
        if matches:
            del self.model[pk, sk]
        gone = matches and expires_at > self.now
        assert self.store.delete(pk, sk, now=self.now, body=body) == gone

    @rule(pk=PKS, sk=SKS, amount=st.integers(-(2**40), 2**40), life=LIVES)
    def add(self, pk: str, sk: str, amount: int, life: int) -> None:
        expires_at, before = self.model.get((pk, sk), (0, 0))
        counted = isinstance(before, int) and expires_at > self.now
        total = amount + (before if counted and isinstance(before, int) else 0)
        self.model[pk, sk] = (self.now + life, total)
        until = self.now + life
        assert self.store.add(pk, sk, amount, expires_at=until, now=self.now) == total


@pytest.mark.parametrize("engine", stores.ENGINES)
def test_an_engine_is_a_dictionary(engine: str, dynalite_url: str) -> None:
    machine = type("Machine", (StoreMachine,), {"engine": engine, "dynalite_url": dynalite_url})
    profile = settings()
    examples = profile.max_examples if engine == "sqlite" else max(5, profile.max_examples // 100)
    run_state_machine_as_test(machine, settings=settings(profile, max_examples=examples))
