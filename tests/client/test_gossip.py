"""Nodes that meet directly: who hears what, by which path, and who is held on to."""

import random
import shutil
import time
from collections.abc import Callable
from contextlib import AsyncExitStack
from functools import partial
from pathlib import Path
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from muster.chat.node import Room
from muster.chat.store import Store
from muster.circle import Circle
from muster.circle.anchors import COOLDOWN_S, STALE_S, Anchor, ranked
from muster.places import Here
from muster.records import GENERAL
from tests.support import local
from tests.support.members2 import address, joined, play
from tests.support.profiles import listening, names, path, room_of, texts, until

# --- anchors ----------------------------------------------------------------------------------

WORDS = ("can_anchor", "public_reachable", "is_mobile", "something_else")


def test_all_nodes_rank_ten_thousand_random_sets_of_peers_alike() -> None:
    chance = random.Random(7)
    for _ in range(10_000):
        peers = [
            (chance.randbytes(16), chance.sample(WORDS, chance.randrange(4)))
            for _ in range(chance.randrange(8))
        ]
        first = ranked(dict(peers))
        chance.shuffle(peers)
        assert ranked({node: reversed(words) for node, words in peers}) == first


def test_who_is_reached_from_elsewhere_comes_before_who_only_stays_at_home() -> None:
    public, home, mobile, none = (bytes([number]) * 16 for number in range(4))
    nodes = {
        mobile: ("can_anchor", "is_mobile"),
        home: ("can_anchor",),
        public: ("can_anchor", "public_reachable"),
        none: ("public_reachable",),
    }
    assert ranked(nodes) == [public, home, mobile]


@given(
    st.lists(
        st.tuples(st.sampled_from(["comes", "goes", "waits"]), st.integers(0, 4), st.floats(1, 40)),
        max_size=40,
    )
)
def test_an_anchor_is_changed_at_once_when_it_goes_and_else_not_within_its_time(
    deeds: list[tuple[str, int, float]],
) -> None:
    nodes = {
        bytes([number]) * 16: ("can_anchor", *(("public_reachable",) if number % 2 else ()))
        for number in range(5)
    }
    heard: dict[bytes, float] = {}
    anchor, now, changed_at = Anchor(), 0.0, float("-inf")
    for deed, number, seconds in deeds:
        now += seconds
        if deed == "goes":
            heard.pop(bytes([number]) * 16, None)
        for node in list(heard):
            heard[node] = now - 1
        if deed == "comes":
            heard[bytes([number]) * 16] = now
        before = anchor.node
        chosen = anchor.choose(nodes, heard, now=now)
        assert (chosen is None) == (not heard)
        if chosen != before:
            assert before not in heard or now - changed_at >= COOLDOWN_S
            changed_at = now
        if chosen is not None:
            assert now - heard[chosen] <= STALE_S


# --- places -----------------------------------------------------------------------------------


def test_addresses_are_shown_widest_first_and_who_comes_from_elsewhere_is_told_apart() -> None:
    here = Here(["127.0.0.1/8", "192.168.1.7/24", "8.8.4.4/24", "fe80::1/64", "::1/128"])

    assert here.shown() == ["8.8.4.4", "192.168.1.7"]
    assert here.is_elsewhere("203.0.113.9")
    assert here.is_elsewhere("::ffff:203.0.113.9")
    for near in ("192.168.1.9", "127.0.0.1", "fe80::2%eth0", "::1", "no address"):
        assert not here.is_elsewhere(near)


# --- without a service ------------------------------------------------------------------------


def test_two_nodes_of_an_invite_alone_meet_and_say_by_which_path() -> None:
    async def scene() -> None:
        ann = Circle.new()
        async with room_of(ann, "Ann") as hers:
            bob = Circle.join(ann.invite(peers=[await listening(hers)]))
            async with room_of(bob, "Bob") as his:
                hers.talk.say("hello")
                his.talk.say("hi")
                await until(lambda: set(texts(hers)) == {"hello", "hi"}, "both texts")
                await until(lambda: set(texts(his)) == {"hello", "hi"}, "both texts")
                await until(lambda: path(hers, his) == path(his, hers) == "tcp", "the path")
                (said,) = [one for one in hers.talk.page(GENERAL) if one.text == "hello"]
                await until(lambda: hers.talk.delivery(said).nodes == 1, "that it was taken")

    play(scene())


def test_who_met_through_one_member_goes_on_when_that_one_leaves() -> None:
    async def scene() -> None:
        ann = Circle.new()
        async with AsyncExitStack() as others:
            async with room_of(ann, "Ann") as hers:
                place = await listening(hers)
                rooms = [
                    await others.enter_async_context(
                        room_of(Circle.join(ann.invite(peers=[place])), name)
                    )
                    for name in ("Bob", "Cleo", "Dan")
                ]
                for room in rooms:
                    await until(partial(_sees, room, 3), "all others")
                bob, cleo, dan = rooms
                await until(lambda: path(bob, cleo) == path(cleo, dan) == "tcp", "direct paths")
            bob.talk.say("Ann has left")
            await until(lambda: "Ann has left" in texts(cleo), "the text")
            await until(lambda: "Ann has left" in texts(dan), "the text")

    play(scene())


def test_nodes_that_nobody_reaches_hold_on_to_another_anchor_when_theirs_goes(
    record_property: Callable[[str, object], None],
) -> None:
    async def scene() -> float:
        ann = Circle.new()
        async with AsyncExitStack() as stack, AsyncExitStack() as one, AsyncExitStack() as two:
            hers = await one.enter_async_context(room_of(ann, "Ann", can_anchor=True))
            bob = Circle.join(ann.invite(peers=[await listening(hers)]))
            his = await two.enter_async_context(room_of(bob, "Bob", can_anchor=True))
            places = [await listening(hers), await listening(his)]
            quiet = []
            for name in ("Cleo", "Dan"):
                circle = Circle.join(ann.invite(peers=places))
                quiet.append(await stack.enter_async_context(room_of(circle, name, listens=False)))
            cleo, dan = quiet
            for one_of_them in quiet:
                await until(partial(_sees, one_of_them, 3), "all others")
            cleo.talk.say("by an anchor")
            await until(lambda: "by an anchor" in texts(dan), "the text")
            held = {room.here.anchor for room in quiet if room.here}
            assert len(held) == 1
            await (one if held == {ann.member.node(ann.epoch).id} else two).aclose()
            began = time.monotonic()
            cleo.talk.say("after it has gone")
            dan.talk.say("me too")
            await until(lambda: "after it has gone" in texts(dan), "the text", seconds=20)
            await until(lambda: "me too" in texts(cleo), "the text", seconds=20)
            return time.monotonic() - began

    record_property("seconds until all was heard again", round(play(scene()), 2))


def _sees(room: Room, count: int) -> bool:
    return len(names(room)) == count


# --- over the relay ---------------------------------------------------------------------------


def test_who_is_not_reached_directly_is_met_over_the_relay_and_gives_what_no_mailbox_has(
    tmp_path: Path,
) -> None:
    async def scene(base: str) -> None:
        ann = Circle.new(services=[address(base)])
        ann.introduce("Ann")
        ann.file.draft(GENERAL, "text", {"text": "older than any mailbox"})
        for draft in ann.file.drafts():
            ann.record(draft)
        # The mailbox has dropped it long ago, as this node believes.
        service = ann.services[0].id
        with ann.file.writing():
            ann.file.note_left(
                service, [one.hash for one in ann.file.records()], at_ms=1, seen=True
            )
        bob = joined(ann)
        alone: Any = {"listens": False}
        async with room_of(ann, "Ann", **alone) as hers, room_of(bob, "Bob", **alone) as his:
            await until(lambda: "older than any mailbox" in texts(his), "what Ann has", seconds=60)
            await until(lambda: path(hers, his) == path(his, hers) == "relay", "the path")

    with local.running(tmp_path / "service") as server:
        play(scene(server.base))


# --- copies -----------------------------------------------------------------------------------


def test_a_restored_copy_asks_a_member_before_it_speaks_and_makes_no_fork(tmp_path: Path) -> None:
    async def scene() -> None:
        file, copy = tmp_path / "ann.muster2", tmp_path / "copy.muster2"
        ann = Circle.new(file)
        async with AsyncExitStack() as stack:
            seed = Circle.join(ann.invite())
            his = await stack.enter_async_context(room_of(seed, "Bob"))
            place = await listening(his)
            ann.file.keep("peers", place.encode())
            async with room_of(ann, "Ann") as hers:
                hers.talk.say("first")
                await until(lambda: "first" in texts(his), "the text")
            shutil.copyfile(file, copy)
            again = Circle.open(file)
            async with room_of(again, "Ann") as hers:
                hers.talk.say("second")
                await until(lambda: "second" in texts(his), "the text")
            restored = Circle.open(copy)
            assert restored.file.is_copy
            async with room_of(restored, "Ann", store=Store.open(None)) as hers:
                hers.talk.say("third")
                await until(lambda: "third" in texts(his), "the text")
                assert [one for one in texts(hers) if one != "third"] == ["first", "second"]
            own = restored_chain(seed)
            assert own == sorted(set(own))

    def restored_chain(circle: Circle) -> list[int]:
        author = max(circle.file.tips(), key=lambda one: circle.file.tip(one)[0])
        return [kept.record.seq for kept in circle.file.records(author=author)]

    play(scene())


def test_a_copy_that_meets_nobody_says_nothing_and_keeps_what_was_written(tmp_path: Path) -> None:
    file, copy = tmp_path / "ann.muster2", tmp_path / "copy.muster2"
    Circle.new(file).close()
    shutil.copyfile(file, copy)

    async def scene() -> None:
        async with room_of(Circle.open(copy), "Ann") as hers:
            hers.talk.say("not yet")
            await until(lambda: hers.is_connected, "the connection")
            await until(lambda: hers.talk.pending(GENERAL), "the draft")
            assert texts(hers) == []

    play(scene())
