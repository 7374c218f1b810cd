"""What two nodes that talk directly put on the wire, and what somebody between them can do."""

from __future__ import annotations

import asyncio
import hashlib
import json
import re
import sys
from base64 import b64encode
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path

import pytest

from muster import base64url
from muster.circle import Circle
from muster.circle.links import Link
from muster.circle.meetings import MOST_MESSAGE, Meetings, write
from muster.exchange import Closed
from muster.records import GENERAL
from tests.cli.terminal import Terminal
from tests.support.chatting import circle_of, meet
from tests.support.members2 import play, present
from tests.support.profiles import HERE, listening, path, room_of, texts, until

Spoil = Callable[[bytes, int], bytes | None]


class Between:
    """Somebody on the way, who sees all bytes and may change them or cut the wire."""

    def __init__(self, to: int, spoil: Spoil) -> None:
        self.to, self.spoil = to, spoil
        self.seen = bytearray()
        self.ended = 0
        self.port = 0
        self._tasks: set[asyncio.Task[None]] = set()

    async def come(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        out_reader, out_writer = await asyncio.open_connection(HERE, self.to)
        ways = [
            asyncio.create_task(self._pass(reader, out_writer)),
            asyncio.create_task(self._pass(out_reader, writer)),
        ]
        await asyncio.wait(ways, return_when=asyncio.FIRST_COMPLETED)
        self.ended += 1
        for way in ways:
            way.cancel()
        await asyncio.gather(*ways, return_exceptions=True)
        for one in (writer, out_writer):
            one.transport.abort()

    async def _pass(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while data := await reader.read(65536):
            before = len(self.seen)
            self.seen += data
            spoilt = self.spoil(data, before)
            if spoilt is None:
                return
            writer.write(spoilt)
            await writer.drain()


@asynccontextmanager
async def between(to: int, spoil: Spoil = lambda data, before: data) -> AsyncIterator[Between]:
    made = Between(to, spoil)
    server = await asyncio.start_server(made.come, HERE, 0)
    made.port = server.sockets[0].getsockname()[1]
    try:
        yield made
    finally:
        server.close()


def _port(place: str) -> int:
    return int(place.rpartition(":")[2])


async def _talk(spoil: Spoil, *, count: int = 30) -> Between:
    """Let two talk through somebody; all that was said arrives in the end."""
    ann = Circle.new(name="the circle's name")
    async with AsyncExitStack() as stack:
        hers = await stack.enter_async_context(room_of(ann, "Annabella"))
        port = _port(await listening(hers))
        way = await stack.enter_async_context(between(port, spoil))
        bob = Circle.join(ann.invite(peers=[f"{HERE}:{way.port}"]))
        his = await stack.enter_async_context(room_of(bob, "Bartholomew", listens=False))
        for number in range(count):
            hers.say(f"a text of hers {number}", channel=GENERAL)
            his.say(f"a text of his {number}", channel=GENERAL)
        await until(lambda: len(texts(hers)) == 2 * count, "all", seconds=40)
        await until(lambda: len(texts(his)) == 2 * count, "all", seconds=40)
        assert ann.file.missing() == bob.file.missing() == []
        await until(lambda: way.ended, "the end of that link")
        return way


def test_a_capture_of_two_nodes_shows_no_name_text_circle_or_key() -> None:
    ann = Circle.new(name="the circle's name")

    async def scene() -> bytes:
        async with AsyncExitStack() as stack:
            hers = await stack.enter_async_context(room_of(ann, "Annabella"))
            way = await stack.enter_async_context(between(_port(await listening(hers))))
            bob = Circle.join(ann.invite(peers=[f"{HERE}:{way.port}"]))
            his = await stack.enter_async_context(room_of(bob, "Bartholomew", listens=False))
            hers.say("a text of hers", channel=GENERAL)
            his.say("a text of his", channel=GENERAL)
            await until(lambda: len(texts(his)) == len(texts(hers)) == 2, "both")
            await until(lambda: path(hers, his) == "tcp", "the path")
            secrets.extend((bob.member.secret, bob.member.public.raw, bob.member.id))
            return bytes(way.seen)

    epoch = ann.epoch
    secrets: list[bytes] = [
        *(ann.id, epoch.hint, epoch.secret, epoch.circle_public.raw, ann.file.founder.raw),
        *(ann.member.secret, ann.member.public.raw, ann.member.id, ann.member.node(epoch).id),
    ]
    seen = play(scene())
    assert len(seen) > 5000
    words = ["Annabella", "Bartholomew", "the circle's name", "a text of", "muster"]
    for word in [word.encode() for word in words]:
        assert word not in seen
    for secret in secrets:
        for shown in (secret, secret.hex().encode(), base64url.encode(secret).encode()):
            assert shown not in seen
        assert b64encode(secret) not in seen


@pytest.mark.parametrize("at", [40, 600, 2500, 4000, 6000, 9000])
def test_a_bit_that_is_flipped_ends_the_link_and_loses_nothing(at: int) -> None:
    done: list[int] = []

    def flip(data: bytes, before: int) -> bytes:
        if done or not before <= at < before + len(data):
            return data
        done.append(at)
        spoilt = bytearray(data)
        spoilt[at - before] ^= 0x10
        return bytes(spoilt)

    play(_talk(flip))
    assert done


@pytest.mark.parametrize("at", [1, 60, 900, 1700, 2600, 3300, 4500, 5200, 7000, 9100, 14000])
def test_a_wire_that_is_cut_at_any_byte_loses_nothing(at: int) -> None:
    done: list[int] = []

    def cut(data: bytes, before: int) -> bytes | None:
        if done or before + len(data) < at:
            return data
        done.append(at)
        return None

    play(_talk(cut))
    assert done


# --- a member that lies -------------------------------------------------------------------------


LIES = (
    b"no json",
    b"[]",
    b'{"t":"TIPS","tips":{"x":[1,"zz",1,"zz"]},"last":true}',
    b'{"t":"RECORD","epoch":0,"text":"AAAA","signature":"AAAA"}',
    b'{"t":"RECORD","epoch":4294967295,"text":"","signature":""}',
    b'{"t":"GONE","author":"AAAA","ranges":[[1,9007199254740991],[-1,0],[5,2]]}',
    b'{"t":"PEERS","peers":[{"text":"{}","signature":"AA"}],"seen":"' + b"9" * 300 + b'"}',
    b'{"t":"PEERS","peers":[],"seen":"\\u0000"}',
    b'{"t":"UNHEARD","x":' + b"[" * 5000 + b"]" * 5000 + b"}",
    b"",
)


def test_a_member_that_lies_on_a_link_changes_nothing_and_stops_nobody() -> None:
    async def scene() -> None:
        ann = Circle.new()
        bob = Circle.join(ann.invite())
        async with room_of(bob, "Bob") as his:
            place = await listening(his)
            ann.file.keep("peers", place.encode())
            async with present(ann, "Ann") as hers:
                await until(lambda: hers.here.met, "the meeting")
                (node,) = hers.here.met
                link = hers.here.meetings.link(node)
                assert link is not None
                for lie in LIES:
                    await write(link, lie)
                await hers.here.say("and one true thing")
                await until(lambda: "and one true thing" in texts(his), "the truth")
            assert bob.file.missing() == []
            assert not his.talk.facts.channels

    play(scene())


def test_a_message_without_an_end_ends_the_link_and_is_not_kept() -> None:
    async def scene() -> None:
        ann = Circle.new()
        async with present(ann, "Ann") as hers:
            link = Link(bytes(16), b"x" * 16)
            held = asyncio.create_task(Meetings(hers.here).hold(link))
            await asyncio.sleep(0)
            link._come.append((MOST_MESSAGE + 1).to_bytes(4, "big") + b"x")
            link._some.set()
            async with asyncio.timeout(5):
                await held
            assert link.closed
            with pytest.raises(Closed):
                await link.send(b"more")

    play(scene())


# --- who keeps what it cannot read ----------------------------------------------------------------


def _memory(process: int) -> bytes:
    """Return what a process has in memory, as a debugger reads it."""
    found = bytearray()
    with Path(f"/proc/{process}/mem").open("rb", 0) as memory:
        for line in Path(f"/proc/{process}/maps").read_text().splitlines():
            match = re.match(r"([0-9a-f]+)-([0-9a-f]+) rw", line)
            if match is None:
                continue
            first, last = (int(one, 16) for one in match.groups())
            try:
                memory.seek(first)
                found += memory.read(last - first)
            except (OSError, ValueError, OverflowError):
                continue
    return bytes(found)


@pytest.mark.skipif(sys.platform != "linux", reason="needs /proc")
def test_an_anchor_has_no_plaintext_of_what_it_has_no_key_of(tmp_path: Path) -> None:
    """Neither of a private channel that it passes on, nor of a circle that knocks at its door."""
    hush, other = "hush: the key is under the mat", "of another circle entirely"

    async def scene(pid: int, place: str, ann: Circle) -> None:
        stranger = Circle.new()
        stranger.file.keep("peers", place.encode())
        async with AsyncExitStack() as stack:
            hers = await stack.enter_async_context(room_of(ann, "Ann", listens=False))
            theirs = await stack.enter_async_context(room_of(stranger, "Eve", listens=False))
            theirs.say(other, channel=GENERAL)
            channel = hers.talk.create_channel("board-of-secrets", "invite")
            await until(lambda: channel in hers.talk.facts.channels, "the channel")
            hers.say(hush, channel=channel)
            hers.say("in the open", channel=GENERAL)
            await until(lambda: hers.talk.page(channel), "the text")
            (said,) = hers.talk.page(channel)
            await until(lambda: hers.talk.delivery(said).nodes == 1, "that the anchor has it")
            hashes.append(said.hash)

    hashes: list[bytes] = []
    home = Terminal(tmp_path / "anchor", "http://127.0.0.1:9")
    home.run("circle", "new", "--name", "us")
    with home.running("node", "--bind", HERE, "--json") as node:
        (place,) = json.loads(node.until(r'"reached_at":\["').string)["reached_at"]
        code = home.run("circle", "invite", "--peer", place).stdout
        from muster.invites import Invite

        pid = node._process.pid
        play(scene(pid, place, Circle.join(Invite.parse(code))))
        held = _memory(pid)
        files = b"".join(one.read_bytes() for one in home.home.rglob("*") if one.is_file())
        assert b"in the open" in files
        assert hashes[0] in files
        for word in (hush, other, "board-of-secrets"):
            assert word.encode() not in held + files
            assert word.encode("utf-16-le") not in held


def test_two_of_a_story_have_the_same_whatever_was_dropped_doubled_or_restarted() -> None:
    """Every exchange may lose, double or reorder records, and either side may begin anew."""
    people = circle_of("Ada", "Bob", "Cleo", seed=9)
    for number in range(12):
        one = people[number % 3]
        one.talk.say(f"{one.name} {number}")
        one.speak()
        said = one.all_said
        order = hashlib.sha256(bytes([number])).digest()
        lossy = [kept for at, kept in enumerate(said) if order[at % 32] % 3]
        people[(number + 1) % 3].hear([*reversed(lossy), *lossy])
        if number % 4 == 3:
            again = people[number % 3]
            again.talk.store.forget(again.circle.id)
            again.talk.store.know(again.circle.id, "muster")
            again.talk.catch_up()
    meet(*people)
    shots = [one.snapshot()["messages"] for one in people]
    assert shots[0] == shots[1] == shots[2]
