"""Circles of version 2 by our own client, over services that really run."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import AsyncExitStack, ExitStack
from pathlib import Path
from signal import SIGKILL

import pytest

from muster.circle import Circle, events
from muster.circle.file import InUse
from muster.invites import Invite
from tests.support import local
from tests.support.members2 import address, joined, play, present, state, texts_of


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[local.Server]:
    with local.running(tmp_path_factory.mktemp("service")) as found:
        yield found


def test_two_nodes_meet_and_talk(base: str) -> None:
    async def scene() -> None:
        ann = Circle.new(services=[address(base)])
        bob = joined(ann)
        async with present(ann, "Ann") as hers, present(bob, "Bob") as his:
            await hers.sees("Bob")
            await his.sees("Ann")
            said = await hers.here.say("hello")
            await his.reads("hello")
            await his.here.say("hello yourself")
            await hers.reads("hello yourself")
            assert said.mine
            (heard,) = [one for one in his.of(events.Said) if one.text == "hello"]
            assert (heard.name, heard.member_id, heard.mine) == ("Ann", ann.member.id, False)
            await hers.live()
            await his.live()
        async with present(ann, "Ann") as hers:
            await hers.here.ready()
            assert hers.texts == [], "nothing is told twice"
        assert sorted(texts_of(ann)) == sorted(texts_of(bob)) == ["hello", "hello yourself"]
        assert state(ann) == state(bob)

    play(scene())


def test_who_leaves_is_seen_to_leave(server: local.Server) -> None:
    async def scene() -> None:
        ann = Circle.new(services=[address(server.base)])
        bob = joined(ann)
        async with present(ann, "Ann") as hers:
            async with present(bob, "Bob") as his:
                await hers.sees("Bob")
                await his.live()
                await hers.live()
            await hers.until(lambda told: any(isinstance(e, events.Left) for e in told), "Left")
            assert hers.here.peers == []

    play(scene())


def test_one_of_five_who_was_offline_reads_a_thousand_messages(server: local.Server) -> None:
    async def scene() -> None:
        first = Circle.new(services=[address(server.base)])
        circles = [first, *(joined(first) for _ in range(3))]
        absent = joined(first)
        async with present(absent, "Eve") as eve:
            await eve.here.say("back later")
        async with AsyncExitStack() as stack:
            members = [
                await stack.enter_async_context(present(circle, f"M{number}"))
                for number, circle in enumerate(circles)
            ]
            for one in members:
                await one.here.ready()
            for number, one in enumerate(members):
                for count in range(250):
                    one.circle.file.draft(bytes(16), "text", {"text": f"{number} {count}"})
            for one in members:
                await one.says_at_least(1001)
        async with present(absent, "Eve") as eve:
            await eve.says_at_least(1000)
            assert len(eve.texts) == len(set(eve.texts)), "nothing is shown twice"
            assert not eve.of(events.Missing)
        assert state(absent) == state(first)

    play(scene(), seconds=200)


def test_a_home_is_one_node_in_one_process_at_a_time(server: local.Server, tmp_path: Path) -> None:
    async def scene() -> None:
        ann = Circle.new(tmp_path / "a.muster2", services=[address(server.base)])
        again = Circle.open(tmp_path / "a.muster2")
        async with present(ann, "Ann") as hers:
            with pytest.raises(InUse):
                async with again.connect():
                    pass
            number = again.file.draft(bytes(16), "text", {"text": "by the other process"})
            await hers.reads("by the other process")
            while not _left(again, number):
                await asyncio.sleep(0.05)
        async with again.connect():
            pass

    play(scene())


def test_an_invite_is_all_that_a_newcomer_needs(server: local.Server, tmp_path: Path) -> None:
    ann = Circle.new(tmp_path / "a.muster2", name="us", services=[address(server.base)])
    bob = Circle.join(Invite.parse(ann.invite().link()), tmp_path / "b.muster2")

    assert (bob.id, bob.epoch, bob.services, bob.name) == (ann.id, ann.epoch, ann.services, "us")
    assert bob.member.id != ann.member.id
    assert (ann.is_founder, bob.is_founder) == (True, False)
    assert (tmp_path / "b.muster2").stat().st_mode & 0o077 == 0


def _left(circle: Circle, number: int) -> bool:
    draft = circle.file.drafted(number)
    return draft is not None and draft.services > 0


# --- several services, and services that lie ------------------------------------------------


def test_two_services_are_killed_in_turn_and_nothing_acknowledged_is_lost(tmp_path: Path) -> None:
    async def scene(stack: ExitStack) -> None:
        one, two = (stack.enter_context(local.running(tmp_path / name)) for name in ("a", "b"))
        first = Circle.new(services=[address(one.base), address(two.base)])
        second = joined(first)
        said: list[str] = []
        async with present(first, "Ann") as hers, present(second, "Bob") as his:
            await hers.sees("Bob")
            await hers.live()
            await his.live()

            async def talk() -> None:
                for number in range(90):
                    await hers.here.say(f"word {number}")
                    said.append(f"word {number}")

            talking = asyncio.create_task(talk())
            await his.reads("word 5")
            one.stop(SIGKILL)
            await his.reads("word 30")
            again = f"--port={one.port}"
            stack.enter_context(local.running(tmp_path / "a", again))
            await hers.live()
            await his.live()
            two.stop(SIGKILL)
            await talking
            await his.reads(*said)
            assert len(his.texts) == len(set(his.texts)), "nothing is shown twice"
            assert not his.of(events.Missing)
        assert state(first) == state(second)

    with ExitStack() as stack:
        play(scene(stack), seconds=200)
