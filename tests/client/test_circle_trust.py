"""What members of a circle of version 2 believe: of services that lie, of rekeys, of copies.

The services really run; one that lies stands behind a proxy that changes what it says, and signs
it with the service's own key: it is the operator who lies.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing
from pathlib import Path
from typing import Any

import httpx2
import pytest

from capsules.errors import Refused as NotBelieved
from capsules.keys import SigningKey
from chalicelib.store.sqlite import open_sqlite
from muster import calls, keys
from muster.backoff import Rim
from muster.calls import Answer
from muster.circle import Circle, events
from muster.circle.attending import Attendant
from muster.circle.circle import NotFounder
from muster.circle.connection import NotLeft
from muster.circle.peers import Member
from muster.errors import BadValue
from muster.invites import ServiceAddress
from muster.seals import Said
from tests.support import local
from tests.support.members2 import address, joined, play, present, state, texts_of

Lie = Callable[[dict[str, Any]], None]


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[local.Server]:
    with local.running(tmp_path_factory.mktemp("service")) as found:
        yield found


class Liar(httpx2.AsyncBaseTransport):
    """Passes calls on, and changes what is answered; *key* signs it anew, if there is one."""

    def __init__(self, base: str, lie: Lie, key: SigningKey | None) -> None:
        self.base, self.lie, self.key = base, lie, key
        self.through = httpx2.AsyncHTTPTransport()

    async def handle_async_request(self, request: httpx2.Request) -> httpx2.Response:
        if request.url.path.endswith("/v2/info"):
            return await self._info(request)
        found = await self.through.handle_async_request(request)
        body = await found.aread()
        told = json.loads(body)
        self.lie(told)
        return self._answer(request, found, json.dumps(told).encode())

    async def aclose(self) -> None:
        await self.through.aclose()

    async def _info(self, request: httpx2.Request) -> httpx2.Response:
        found = await self.through.handle_async_request(request)
        told = json.loads(await found.aread())
        told["socket"] = "ws://127.0.0.1:9/v2/socket"  # it has none: all goes by HTTP
        return self._answer(request, found, json.dumps(told).encode())

    def _answer(
        self, request: httpx2.Request, found: httpx2.Response, body: bytes
    ) -> httpx2.Response:
        headers = {"Content-Type": "application/json"}
        if self.key is None:
            headers[calls.ANSWER] = found.headers[calls.ANSWER]
            return httpx2.Response(found.status_code, headers=headers, content=body)
        shown = calls.Authorization.parse(request.headers["authorization"])
        before = Answer.parse(found.headers[calls.ANSWER])
        lines = calls.answer_lines(
            shown.proof.raw, status=found.status_code, body=body, at_ms=before.at_ms
        )
        signed = Answer(self.key.verify_key, before.at_ms, self.key.sign(lines))
        headers[calls.ANSWER] = signed.header
        return httpx2.Response(found.status_code, headers=headers, content=body)


def service_key(server: local.Server) -> SigningKey:
    """The key of a service, from its own store."""
    with closing(open_sqlite(server.directory / "muster.sqlite3")) as stores:
        kept = stores.guard.get("service", "key", now=0)
    assert kept is not None
    return SigningKey(bytes(kept.body))


async def read_by(circle: Circle, server: local.Server, lie: Lie, *, sign: bool) -> list[Any]:
    """Read everything at a service whose operator lies; return what was told of it."""
    key = service_key(server) if sign else None

    def transport(service: ServiceAddress) -> httpx2.AsyncBaseTransport:
        return Liar(service.url, lie, key)

    async with present(circle, "Bob", transport=transport) as his:
        await his.here.ready(8)
        await asyncio.sleep(0.1)
        return his.told


def entries(told: dict[str, Any]) -> list[Any]:
    return list(told.get("entries") or ())


def omit(told: dict[str, Any]) -> None:
    for entry in entries(told):
        del entry["messages"][2:3]


def reorder(told: dict[str, Any]) -> None:
    told["entries"] = entries(told)[::-1]


def alter(told: dict[str, Any]) -> None:
    for entry in entries(told):
        first = entry["messages"][0]
        entry["messages"][0] = first[:200] + ("A" if first[200] != "A" else "B") + first[201:]


def invent(told: dict[str, Any]) -> None:
    told["peers"] = [{"node_id": "0" * 32, "sealed": "A" * 854 + "Q", "until_ms": 2**52}]


async def spoken(server: local.Server) -> Circle:
    """A circle in which Ann has said eight things in two entries, and is gone."""
    ann = Circle.new(services=[address(server.base)])
    async with present(ann, "Ann") as hers:
        for number in range(8):
            await hers.here.say(f"word {number}")
    return ann


@pytest.mark.parametrize(
    ("lie", "kind"),
    [
        (reorder, events.Distrusted),
        (alter, events.Unread),
        (invent, events.Unread),
    ],
)
def test_a_service_that_lies_over_its_signature_is_named(
    server: local.Server, lie: Lie, kind: type[Any]
) -> None:
    async def scene() -> None:
        told = await read_by(joined(await spoken(server)), server, lie, sign=True)
        found = [event for event in told if isinstance(event, kind)]
        assert [event.service for event in found[:1]] == [server.base]

    play(scene())


def test_a_service_that_omits_inside_a_chain_is_named(server: local.Server) -> None:
    async def scene() -> None:
        ann = await spoken(server)

        def lie(told: dict[str, Any]) -> None:
            told["entries"] = [e for number, e in enumerate(entries(told)) if number != 3]

        told = await read_by(joined(ann), server, lie, sign=True)
        (gap,) = [event for event in told if isinstance(event, events.Missing)]
        assert (gap.name, gap.services, gap.old) == ("Ann", (server.base,), False)
        assert gap.first == gap.last

    play(scene())


@pytest.mark.parametrize("lie", [reorder, alter, invent, omit])
def test_who_changes_an_answer_on_the_way_is_not_believed_at_all(
    server: local.Server, lie: Lie
) -> None:
    async def scene() -> None:
        bob = joined(await spoken(server))
        told = await read_by(bob, server, lie, sign=False)
        assert texts_of(bob) == []
        assert any(isinstance(event, events.Distrusted) for event in told)

    play(scene())


def test_an_honest_service_is_never_blamed_after_a_restore_from_backup_either(
    tmp_path: Path,
) -> None:
    async def scene(stack: ExitStack) -> None:
        one = stack.enter_context(local.running(tmp_path / "data"))
        first = Circle.new(services=[address(one.base)])
        second, third = joined(first), joined(first)
        async with present(first, "Ann") as hers, present(second, "Bob") as his:
            for number in range(3):
                await hers.here.say(f"before {number}")
            await his.reads("before 2")
            one.stop()
            shutil.copytree(tmp_path / "data", tmp_path / "backup")
            again = f"--port={one.port}"
            two = stack.enter_context(local.running(tmp_path / "data", again))
            await hers.live()
            for number in range(3):
                await hers.here.say(f"after {number}")
            await his.here.say("mine")
            await hers.reads("mine")
            two.stop()
            shutil.rmtree(tmp_path / "data")
            shutil.move(tmp_path / "backup", tmp_path / "data")
            stack.enter_context(local.running(tmp_path / "data", again))
            async with present(third, "Cat") as cats:
                await cats.reads("before 2", "after 0", "after 2", "mine")
                for one_ in (hers, his, cats):
                    assert not one_.of(events.Missing)
                    assert not one_.of(events.Distrusted)
                    assert len(one_.texts) == len(set(one_.texts))
        assert state(first) == state(second) == state(third)

    with ExitStack() as stack:
        play(scene(stack))


# --- copies ---------------------------------------------------------------------------------


def test_a_restored_copy_of_a_home_goes_on_where_the_node_was(
    server: local.Server, tmp_path: Path
) -> None:
    async def scene() -> None:
        ann = Circle.new(tmp_path / "a.muster2", services=[address(server.base)])
        bob = joined(ann)
        async with present(ann, "Ann") as hers:
            await hers.here.say("one")
        ann.close()
        shutil.copy(tmp_path / "a.muster2", tmp_path / "copy.muster2")
        ann = Circle.open(tmp_path / "a.muster2")
        async with present(ann, "Ann") as hers:
            await hers.here.say("two")
        copy = Circle.open(tmp_path / "copy.muster2")
        async with present(copy, "Ann") as hers, present(bob, "Bob") as his:
            await hers.here.say("three")
            await his.reads("one", "two", "three")
            assert not his.of(events.Forked)
            assert not his.of(events.Missing)

    play(scene())


def test_a_copy_that_speaks_unseen_is_a_fork_and_both_are_kept(tmp_path: Path) -> None:
    """Two devices with one key, which never read each other before they spoke."""
    ann = Circle.new(tmp_path / "a.muster2")
    ann.close()
    shutil.copy(tmp_path / "a.muster2", tmp_path / "b.muster2")
    one, two = Circle.open(tmp_path / "a.muster2"), Circle.open(tmp_path / "b.muster2")
    bob = joined(one)
    for circle, text in ((one, "yes"), (two, "no")):
        circle.file.draft(bytes(16), "text", {"text": text})
        circle.record(circle.file.drafts()[0])
    found: list[Any] = []
    for circle in (one, two):
        for kept in circle.file.records():
            found += bob.take_record(kept.said, 0)[1]

    (fork,) = [event for event in found if isinstance(event, events.Forked)]
    assert (fork.member_id, fork.seq) == (one.member.id, 1)
    assert sorted(texts_of(bob)) == ["no", "yes"]
    bob.close()
    one.close()
    two.close()


# --- rekeys ---------------------------------------------------------------------------------


def test_those_who_stay_follow_a_rekey_and_who_is_left_out_reads_no_more(base: str) -> None:
    async def scene() -> None:
        ann = Circle.new(services=[address(base)])
        bob, eve, late = joined(ann), joined(ann), joined(ann)
        async with present(late, "Late") as latecomer:
            await latecomer.here.say("I shall be late")
        async with (
            present(ann, "Ann") as hers,
            present(bob, "Bob") as his,
            present(eve, "Eve") as eves,
        ):
            await eves.here.say("let us talk about Ann")
            await hers.reads("let us talk about Ann")
            await hers.here.rekey(without=[eve.member.id])
            await his.until(lambda told: bool(his.of(events.Rekeyed)), "the rekey")
            await eves.until(lambda told: bool(eves.of(events.LeftOut)), "that she is out")
            await hers.here.say("Eve is gone")
            await his.reads("Eve is gone")
            with pytest.raises(NotLeft, match="left this member out"):
                await eves.here.say("hello?")
            async with present(late, "Late") as latecomer:
                await latecomer.reads("let us talk about Ann", "Eve is gone")
                assert "Eve is gone" not in texts_of(eve)
                with pytest.raises(NotFounder):
                    await his.here.rekey()
        assert ann.epoch.number == bob.epoch.number == late.epoch.number == 1
        assert eve.epoch.number == 0
        assert state(ann) == state(bob) == state(late)

    play(scene())


def test_of_two_rekeys_at_once_one_stands_everywhere_and_nothing_is_lost(
    server: local.Server, tmp_path: Path
) -> None:
    """Two devices of the founder, each without another member."""

    async def scene() -> None:
        ann = Circle.new(services=[address(server.base)])
        bob, cat, dan = joined(ann), joined(ann), joined(ann)
        async with present(ann, "Ann") as hers:
            for circle, name in ((bob, "Bob"), (cat, "Cat"), (dan, "Dan")):
                async with present(circle, name) as one:
                    await one.here.say(f"I am {name}")
            await hers.reads("I am Bob", "I am Cat", "I am Dan")
            (to,) = [one for one in ann.file.members() if one.name == "Bob"]
            ann.give_founder(to)
            async with present(bob, "Bob") as his:
                await his.until(lambda told: bob.is_founder, "the founder key")
        for circle in (ann, bob):
            others = {one.name: one.id for one in circle.file.members()}
            circle.rekey([others["Cat"]] if circle is ann else [others["Dan"]])
            circle.file.draft(bytes(16), "text", {"text": f"after {circle is ann}"})
        async with present(ann, "Ann") as hers, present(bob, "Bob") as his:
            await hers.reads("after True", "after False")
            await his.reads("after True", "after False")
        async with present(cat, "Cat"), present(dan, "Dan"):
            async with asyncio.timeout(20):
                while not (cat.is_out or dan.is_out) or cat.epoch == dan.epoch:
                    await asyncio.sleep(0.05)
        assert ann.epoch == bob.epoch
        assert cat.is_out != dan.is_out
        (stays,) = [one for one in (cat, dan) if not one.is_out]
        assert stays.epoch == ann.epoch
        assert state(ann) == state(bob)

    play(scene())


def test_a_full_mailbox_keeps_a_rekey_waiting_and_loses_nothing(tmp_path: Path) -> None:
    """Who must go has filled it; the operator makes room, and the circle goes on."""

    async def scene(stack: ExitStack) -> None:
        few = stack.enter_context(local.running(tmp_path, mailbox_messages="8"))
        ann = Circle.new(services=[address(few.base)])
        bob, eve = joined(ann), joined(ann)
        async with present(bob, "Bob") as his:
            await his.here.say("hello")
        async with present(eve, "Eve") as hers:
            for number in range(5):
                await hers.here.post("text", {"text": f"noise {number}"})
            with pytest.raises(NotLeft):
                await hers.here.post("text", {"text": "one too many"}, wait_s=1)
        async with present(ann, "Ann") as hers:
            await hers.reads("hello")
            with pytest.raises(NotLeft, match="taken the rekey"):
                await hers.here.rekey([eve.member.id], wait_s=2)
        assert ann.epoch.number == 1
        few.stop()
        more = f"--port={few.port}"
        stack.enter_context(local.running(tmp_path, more, mailbox_messages="100"))
        async with present(ann, "Ann") as hers, present(bob, "Bob") as his:
            await his.until(lambda told: bob.epoch == ann.epoch, "the rekey")
            await hers.here.say("among us")
            await his.reads("among us")

    with ExitStack() as stack:
        play(scene(stack))


def test_a_rekey_by_who_is_not_the_founder_counts_for_nothing() -> None:
    ann = Circle.new()
    bob = joined(ann)
    mallory = Circle.new()
    said = mallory.rekey()

    with pytest.raises(NotBelieved):
        bob.take_rekey(bob.epoch, said)
    assert bob.epoch.number == 0


# --- clocks and codes ------------------------------------------------------------------------


def test_a_clock_an_hour_off_does_not_keep_a_node_away(server: local.Server) -> None:
    async def scene() -> None:
        ann = Circle.new(services=[address(server.base)])
        bob = joined(ann)
        slow = Rim(now=lambda: time.time() - 3600)
        async with present(ann, "Ann") as hers, present(bob, "Bob", rim=slow) as his:
            await his.sees("Ann")
            await hers.sees("Bob")
            await his.here.say("what time is it?")
            await hers.reads("what time is it?")
            assert abs(his.here.now_ms() / 1000 - time.time()) < 5

    play(scene())


def test_a_closed_service_wants_a_code_and_says_so(tmp_path: Path) -> None:
    async def scene(server: local.Server, code: str) -> None:
        ann = Circle.new(services=[address(server.base)])
        async with present(ann, "Ann") as hers:
            await hers.here.ready()
            with pytest.raises(NotLeft):
                await hers.here.post("text", {"text": "hello"}, wait_s=0.5)
            (attendant,) = hers.here.attendants
            assert "closed" in str(attendant.trouble)
            ann.file.add_services([address(server.base, code=code)])
            hers.here.meet_elsewhere()
            await hers.live()
            assert ann.file.outgoing(address(server.base).id, epoch=0, since_ms=0, most=9) == []

    with local.running(tmp_path, access="closed") as server:
        command = [sys.executable, "-m", "muster.cli", "access", "new", "--json"]
        command += ["--data", str(tmp_path)]
        made = subprocess.run(command, capture_output=True, text=True, check=True)
        play(scene(server, json.loads(made.stdout)["code"]))


# --- what strangers and members can make a client do ------------------------------------------


def test_a_service_that_names_more_pages_for_ever_is_asked_no_more_than_usual(
    server: local.Server,
) -> None:
    asked: list[int] = []

    def lie(told: dict[str, Any]) -> None:
        asked.append(1)
        if "entries" in told or "peers" in told:
            told["more"] = ["peers", "messages", "signals"]

    async def scene() -> None:
        bob = joined(await spoken(server))
        asked.clear()
        told = await read_by(bob, server, lie, sign=True)
        assert texts_of(bob) == [f"word {number}" for number in range(8)]
        assert not any(isinstance(event, events.Distrusted) for event in told)
        assert len(asked) < 20

    play(scene())


def test_a_part_that_is_refused_is_not_taken_for_an_empty_one(server: local.Server) -> None:
    """Of peers: nobody has gone. Of messages that no frame holds: not everything was read."""
    key, asked = service_key(server), []
    refused: dict[str, Any] = {}

    def lie(told: dict[str, Any]) -> None:
        asked.append(1)
        told["refused"] = told["refused"] | refused
        for part in refused:
            told.pop("entries" if part == "messages" else part, None)

    async def scene() -> None:
        ann = Circle.new(services=[address(server.base)])
        bob, cleo = joined(ann), joined(ann)

        def transport(service: ServiceAddress) -> httpx2.AsyncBaseTransport:
            return Liar(service.url, lie, key)

        async with present(ann, "Ann"), present(bob, "Bob", transport=transport) as his:
            await his.sees("Ann")
            refused["peers"] = {"code": "RATE_LIMITED", "message": "later"}
            for _ in range(2):  # when the second is asked for, the first was taken
                before = len(asked)
                his.here.moved()
                while len(asked) == before:
                    await asyncio.sleep(0.02)
            assert [one.name for one in his.here.peers] == ["Ann"]
        refused.clear()
        refused["messages"] = {"code": "PAYLOAD_TOO_LARGE", "message": "by HTTP"}
        async with present(cleo, "Cleo", transport=transport) as hers:
            assert not await hers.here.ready(3)

    play(scene())


def test_an_entry_of_the_future_moves_nobody_s_place(server: local.Server) -> None:
    def lie(told: dict[str, Any]) -> None:
        for entry in entries(told)[-1:]:
            entry["number"] = 2**53 - 1

    async def scene() -> None:
        ann = await spoken(server)
        bob = joined(ann)
        told = await read_by(bob, server, lie, sign=True)
        assert any("of the future" in getattr(event, "why", "") for event in told)
        async with present(bob, "Bob") as his:
            assert await his.here.ready()
            (service,) = bob.services
            assert bob.file.cursor(service.id, bob.epoch.hint) < time.time() * 1000 + 60_000
        assert texts_of(bob) == [f"word {number}" for number in range(8)]

    play(scene())


def test_what_was_said_before_a_rekey_was_known_is_read_after_it(server: local.Server) -> None:
    """Said without a service, in an epoch that had ended: the chain has no hole."""

    async def scene() -> None:
        ann = Circle.new(services=[address(server.base)])
        bob = joined(ann)
        async with present(bob, "Bob") as his:
            await his.here.say("first")
        (service,) = bob.services
        bob.file.remove_service(service.id)
        bob.file.draft(bytes(16), "text", {"text": "on the train"})
        bob.record(bob.file.drafts()[0])
        async with present(ann, "Ann") as hers:
            await hers.reads("first")
            await hers.here.rekey()
            bob.file.add_services([service])
            async with present(bob, "Bob") as his:
                await his.until(lambda told: bool(his.of(events.Rekeyed)), "the rekey")
                await his.here.say("back in town")
                await hers.reads("on the train", "back in town")
        async with present(ann, "Ann") as hers:
            await hers.here.ready()
            assert not hers.of(events.Missing)

    play(scene())


def test_a_service_that_takes_less_than_a_text_has_makes_no_hole(tmp_path: Path) -> None:
    async def scene(server: local.Server) -> None:
        ann = Circle.new(services=[address(server.base)])
        async with present(ann, "Ann") as hers:
            await hers.here.ready()
            with pytest.raises(BadValue, match="takes 4096"):
                await hers.here.say("x" * 5_000)
            await hers.here.say("short")
        assert texts_of(ann) == ["short"]

    with local.running(tmp_path, message_bytes="4096") as server:
        play(scene(server))


def test_who_fills_a_circle_with_names_cannot_keep_the_founder_from_a_rekey() -> None:
    ann = Circle.new()
    bob = joined(ann)
    bob.introduce("Bob")
    ann.take_record(next(iter(_spoken(bob))), 0)
    for number in range(1_100):
        fake = keys.Member.new(ann.id)
        ann.file.introduce(
            Member(fake.id, fake.public, fake.box_public, f"fake {number}", b"", 0, number)
        )

    with pytest.raises(BadValue, match="alone are to stay"):
        ann.rekey()
    said = ann.rekey(only=[bob.member.id])
    assert [type(event) for event in bob.take_rekey(bob.epoch, said)] == [events.Rekeyed]
    assert bob.epoch == ann.epoch


def _spoken(circle: Circle) -> Iterator[Said]:
    for draft in circle.file.drafts():
        kept = circle.file.record(circle.record(draft).hash)
        assert kept is not None
        yield kept.said


def test_the_founder_s_node_leaves_a_rekey_again_every_twenty_days_for_a_year() -> None:
    """In other bytes each time: services drop copies. Whoever was away for months follows."""

    async def scene() -> None:
        clock = [time.time()]
        rim = Rim(now=lambda: clock[0])
        ann = Circle.new(services=[ServiceAddress("http://127.0.0.1:9", bytes(16))], rim=rim)
        old = ann.member.node(ann.epoch)
        ann.rekey()
        attendant = Attendant(ann.connect(), ann.services[0], old, old=True)
        seen: set[str] = set()
        days: list[int] = []
        for day in range(400):
            asked, names = attendant._leaving()
            if names:
                days.append(day)
                seen.update(asked["messages"])
                with ann.file.writing():
                    at_ms = int(clock[0] * 1000)
                    ann.file.note_left(bytes(16), names, at_ms=at_ms, seen=True)
            clock[0] += 86_400
        assert days[:3] == [0, 20, 40]
        assert 360 <= days[-1] <= 366
        assert len(seen) == len(days)
        await attendant.aclose()

    play(scene())


def test_dead_and_slow_services_among_good_ones_keep_nobody_from_talking(
    server: local.Server,
) -> None:
    async def scene() -> None:
        writers: list[asyncio.StreamWriter] = []

        async def keep(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            writers.append(writer)  # and never answer

        silent = await asyncio.start_server(keep, "127.0.0.1", 0)
        port = silent.sockets[0].getsockname()[1]
        services = [
            ServiceAddress("http://127.0.0.1:9", bytes(16)),
            ServiceAddress(f"http://127.0.0.1:{port}", bytes(range(16))),
            address(server.base),
        ]
        ann = Circle.new(services=services)
        bob = joined(ann)
        async with present(ann, "Ann") as hers, present(bob, "Bob") as his:
            for number in range(3):
                await hers.here.say(f"word {number}")
            await his.reads("word 2")
            states = {one.url: one.state for one in hers.here.attendants}
            assert states["http://127.0.0.1:9"] == "offline"
            assert states[server.base] in ("live", "polling")
            assert not his.of(events.Missing)
        silent.close()
        for writer in writers:
            writer.close()
            with contextlib.suppress(OSError):
                await writer.wait_closed()

    play(scene())


def test_a_service_whose_clock_is_days_off_is_said_and_moves_no_other_clock(
    server: local.Server,
) -> None:
    async def scene() -> None:
        ann = Circle.new(services=[address(server.base)])
        late = Rim(now=lambda: time.time() - 3 * 86_400)
        async with present(ann, "Ann", rim=late) as hers:
            assert not await hers.here.ready()
            (attendant,) = hers.here.attendants
            assert "3.0 days from this machine's" in str(attendant.trouble)
            assert attendant.service.offset_ms == 0

    play(scene())
