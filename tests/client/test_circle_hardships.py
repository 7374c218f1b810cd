"""What an attack on the client had found: each a way to silence a member, and closed."""

from __future__ import annotations

import asyncio
import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx2
import pytest

from muster import keys
from muster.circle import Circle, events
from muster.circle.connection import NotLeft
from muster.circle.file import CircleFile, InUse
from muster.errors import BadValue
from muster.invites import ServiceAddress
from tests.support import local
from tests.support.members2 import address, joined, play, present, state, texts_of


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[local.Server]:
    with local.running(tmp_path_factory.mktemp("service")) as found:
        yield found


@pytest.mark.parametrize(
    ("kind", "body"),
    [
        ("text", {"n": 1.5}),
        ("My Kind", {}),
        ("text", {"text": "\ud800"}),
        ("text", {"text": "\x01" * 262_000}),
    ],
)
def test_what_cannot_be_said_is_refused_and_stops_nothing(
    server: local.Server, kind: str, body: dict[str, Any]
) -> None:
    async def scene() -> None:
        ann = Circle.new(services=[address(server.base)])
        async with present(ann, "Ann") as hers:
            with pytest.raises(BadValue):
                await hers.here.post(kind, body)
            ann.file.draft(bytes(16), "My Kind", {})  # by another process, of an older version
            await hers.here.say("all the same")
        assert texts_of(ann) == ["all the same"]

    play(scene())


def test_two_who_meet_with_thousands_of_records_each_do_not_wait_for_each_other() -> None:
    async def scene() -> None:
        ann = Circle.new()
        bob = joined(ann)
        for circle in (ann, bob):
            for number in range(1_400):
                circle.file.draft(bytes(16), "text", {"text": f"{number}"})
            for draft in circle.file.drafts():
                circle.record(draft)
        async with present(ann, "Ann") as hers:
            at = await hers.here.listen("127.0.0.1")
            bob.file.keep("peers", f"{at.host}:{at.port}".encode())
            async with present(bob, "Bob"):
                async with asyncio.timeout(60):
                    while state(ann) != state(bob):
                        await asyncio.sleep(0.2)

    play(scene(), seconds=90)


def test_signals_are_taken_from_the_queue_when_they_are_sent(server: local.Server) -> None:
    async def scene() -> None:
        ann = Circle.new(services=[address(server.base)])
        bob = joined(ann)
        async with present(ann, "Ann") as hers, present(bob, "Bob") as his:
            await hers.sees("Bob")
            (peer,) = hers.here.peers
            for number in range(40):
                await hers.here.signal(peer.node_id, "poke", {"n": number}, session=bytes(16))
            hers.here.place(name="Ann II")
            await his.until(lambda told: len(his.of(events.Signalled)) == 40, "forty signals")

    play(scene())


class Odd(httpx2.AsyncBaseTransport):
    """A service that answers strangely for as long as it is told to."""

    def __init__(self, body: bytes) -> None:
        self.body, self.on = body, True
        self.through = httpx2.AsyncHTTPTransport()

    async def aclose(self) -> None:
        await self.through.aclose()

    async def handle_async_request(self, request: httpx2.Request) -> httpx2.Response:
        if self.on:
            return httpx2.Response(502, content=self.body)
        return await self.through.handle_async_request(request)


@pytest.mark.parametrize(
    "body",
    [
        b"[" * 100_000,
        json.dumps({"ok": False, "code": "RATE_LIMITED", "retry_after_s": -(10**6)}).encode(),
        b'{"ok":false,"code":"EXPIRED_TIMESTAMP","message":' + b"9" * 5000 + b"}",
        b"\xff" * 100,
    ],
    ids=["nested", "negative wait", "numbers", "bytes"],
)
def test_whatever_a_proxy_answers_the_client_comes_back(server: local.Server, body: bytes) -> None:
    async def scene() -> None:
        made: list[Odd] = []

        def transport(_: ServiceAddress) -> Odd:
            made.append(Odd(body))
            return made[-1]

        ann = Circle.new(services=[address(server.base)])
        async with present(ann, "Ann", transport=transport) as hers:
            assert not await hers.here.ready(3)
            assert [one.state for one in hers.here.attendants] == ["offline"]
            for one in made:
                one.on = False
            await hers.live()
            await hers.here.say("back")

    play(scene())


class Cut(Odd):
    """A line that is cut when a presence is on its way for the first time, and when a signal is."""

    def __init__(self) -> None:
        super().__init__(b"")
        self.cuts = {"presence", "send"}
        self.tells: list[bool] = []

    async def handle_async_request(self, request: httpx2.Request) -> httpx2.Response:
        if request.url.path.endswith("/v2/sync"):
            asked = json.loads(await request.aread())
            if asked.get("presence"):
                self.tells.append(asked["presence"]["tell"])
            if cut := self.cuts & asked.keys():
                self.cuts -= cut
                raise httpx2.ReadError("cut")
        return await self.through.handle_async_request(request)


def test_what_was_on_its_way_when_the_line_was_cut_is_told_again(server: local.Server) -> None:
    async def scene() -> None:
        line = Cut()
        ann = Circle.new(services=[address(server.base)])
        async with (
            present(joined(ann), "Bob") as his,
            present(ann, "Ann", transport=lambda _: line) as hers,
        ):
            poke, to = b"p" * 16, his.here.node.id
            await hers.here.signal(to, "poke", {}, session=poke)
            await his.until(
                lambda _: any(one.signal.session == poke for one in his.of(events.Signalled)),
                "the signal",
            )
        assert (line.cuts, line.tells[:2]) == (set(), [True, True])

    play(scene())


def test_a_full_mailbox_holds_messages_back_and_nothing_else(tmp_path: Path) -> None:
    async def scene(few: local.Server) -> None:
        ann = Circle.new(services=[address(few.base)])
        bob = joined(ann)
        async with present(bob, "Bob") as his:
            async with present(ann, "Ann") as hers:
                for number in range(4):
                    await hers.here.say(f"word {number}")
            with pytest.raises(NotLeft):
                await his.here.post("text", {"text": "one too many"}, wait_s=1)
            await his.reads("word 3")
            await his.live()
            async with present(ann, "Ann") as hers:
                await his.sees("Ann")
                await hers.reads("one too many")  # over the relay, where the mailbox has no room

    with local.running(tmp_path, mailbox_messages="6") as few:
        play(scene(few))


def test_an_invite_over_a_gap_of_epochs_and_one_after_being_left_out_lead_in(
    server: local.Server,
) -> None:
    async def scene() -> None:
        ann = Circle.new(services=[address(server.base)])
        late, eve = joined(ann), joined(ann)
        async with present(eve, "Eve") as hers:
            await hers.here.introduced()
        async with present(ann, "Ann") as hers:
            await hers.here.rekey([eve.member.id])
            eve.take_invite(ann.invite())
            async with present(eve, "Eve") as eves:
                await eves.here.say("back again")
                await hers.reads("back again")
                assert (eve.is_out, eve.epoch) == (False, ann.epoch)
            await hers.here.rekey()
            late.take_invite(ann.invite())
            async with present(late, "Late") as hers_too:
                await hers_too.here.say("late, but here")
                await hers.reads("late, but here")

    play(scene())


def test_who_was_left_out_is_not_kept_by_the_next_rekey() -> None:
    ann = Circle.new()
    eve = joined(ann)
    eve.introduce("Eve")
    for draft in eve.file.drafts():
        kept = eve.file.record(eve.record(draft).hash)
        assert kept is not None
        ann.take_record(kept.said, 0)
    ann.rekey([eve.member.id])

    assert eve.member.id not in {one.id for one in ann.standing().keep}


def test_history_of_who_a_rekey_does_not_name_stays() -> None:
    ann = Circle.new()
    bob, dan = joined(ann), joined(ann)
    bob.introduce("Bob")
    dan.file.draft(bytes(16), "text", {"text": "long ago"})
    for circle, to in ((bob, ann), (dan, bob)):
        for draft in circle.file.drafts():
            kept = circle.file.record(circle.record(draft).hash)
            assert kept is not None
            to.take_record(kept.said, 0)
    said = ann.rekey()
    bob.take_rekey(bob.file.epochs()[0], said)

    assert bob.epoch.number == 1
    assert texts_of(bob) == ["long ago"]


def test_a_copy_that_reaches_nobody_keeps_what_it_would_say(
    server: local.Server, tmp_path: Path
) -> None:
    async def scene() -> None:
        ann = Circle.new(tmp_path / "a.muster2", services=[address(server.base)])
        bob = joined(ann)
        async with present(ann, "Ann") as hers:
            await hers.here.say("one")
        ann.close()
        shutil.copy(tmp_path / "a.muster2", tmp_path / "b.muster2")
        ann = Circle.open(tmp_path / "a.muster2")
        async with present(ann, "Ann") as hers:
            await hers.here.say("two")
        copy = Circle.open(tmp_path / "b.muster2")
        (service,) = copy.services
        copy.file.add_services([ServiceAddress("http://127.0.0.1:9", service.id)])
        async with present(copy, "Ann") as hers:
            with pytest.raises(NotLeft):
                await hers.here.post("text", {"text": "three"}, wait_s=1)
        copy.file.add_services([service])
        async with present(copy, "Ann") as hers, present(bob, "Bob") as his:
            await his.reads("one", "two", "three")
            assert not his.of(events.Forked)
        copy.close()
        ann.close()

    play(scene())


def test_who_was_replaced_says_no_goodbye_for_the_other(
    server: local.Server, tmp_path: Path
) -> None:
    async def scene() -> None:
        ann = Circle.new(tmp_path / "a.muster2", services=[address(server.base)])
        bob = joined(ann)
        ann.close()
        shutil.copy(tmp_path / "a.muster2", tmp_path / "b.muster2")
        one, two = Circle.open(tmp_path / "a.muster2"), Circle.open(tmp_path / "b.muster2")
        async with present(bob, "Bob") as his, present(one, "Ann") as old:
            await old.live()
            async with present(two, "Ann") as new:
                await new.live()
                await old.until(
                    lambda told: any(one.state == "replaced" for one in old.of(events.State)),
                    "that it was replaced",
                )
                await old.here.__aexit__()
                await his.sees("Ann")
                await asyncio.sleep(0.5)
                assert [peer.name for peer in his.here.peers] == ["Ann"]
        one.close()
        two.close()

    play(scene())


def test_the_lock_is_where_the_file_is_whatever_leads_there(tmp_path: Path) -> None:
    circle = Circle.new(tmp_path / "a.muster2")
    (tmp_path / "link.muster2").symlink_to(tmp_path / "a.muster2")
    again = CircleFile.open(tmp_path / "link.muster2")
    circle.file.lock()
    with pytest.raises(InUse):
        again.lock()
    again.close()
    circle.close()


def test_a_name_that_no_presence_holds_is_refused_at_once() -> None:
    circle = Circle.new()
    for name in ("x" * 65, "\ud800"):
        with pytest.raises(BadValue):
            circle.connect(name=name)
    assert len(circle.id) == keys.ID_BYTES
    circle.close()
