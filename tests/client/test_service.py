"""The client on real services, over real sockets: the issue's promises from a caller's side."""

from __future__ import annotations

import asyncio
import dataclasses
import secrets
import socket
import time
from collections.abc import AsyncIterator, Coroutine
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from signal import SIGKILL
from typing import Any, TypeVar

import pytest

from muster import errors
from muster.backoff import Backoff, Rim
from muster.felund import crypto, frames, records, sockets
from muster.felund.circle import Circle
from muster.felund.client import Client, Note, Unreachable
from muster.felund.link import Link
from muster.felund.ordering import MAX_PAYLOAD_BYTES
from muster.felund.sockets import Closed, Socket
from muster.felund.subscription import Joined, Left, Subscription
from tests.support import local

_T = TypeVar("_T")

QUICK = Backoff(first_s=0.02, longest_s=0.2)


def play(scene: Coroutine[Any, Any, _T]) -> _T:
    async def main() -> _T:
        async with asyncio.timeout(50):
            return await scene

    return asyncio.run(main())


class Line:
    """Opens real sockets, and can pull the plug on all of them."""

    def __init__(self, base: str) -> None:
        self.open: list[Socket] = []
        self._here = base.replace("http", "ws", 1) + "/v1/relay/ws"

    async def __call__(self, url: str, token: str) -> Socket:
        # What AWS would be called by is, in the tests, on this machine.
        named = self._here if ".amazonaws.com" in url else url
        self.open.append(await sockets.connect(named, token))
        return self.open[-1]

    async def cut(self) -> None:
        for found in self.open:
            await found.close()
        self.open.clear()


@asynccontextmanager
async def members(
    base: str, count: int = 2, *, lines: list[Line] | None = None
) -> AsyncIterator[list[Client]]:
    """Registered members of a new circle."""
    circle = Circle.new()
    clients = [
        Client(
            base,
            circle,
            f"node-{number}-{secrets.token_hex(4)}",
            connect=lines[number] if lines else Line(base),
        )
        for number in range(count)
    ]
    try:
        for client in clients:
            await client.register(ttl_s=600)
        yield clients
    finally:
        for client in clients:
            await client.aclose()


def text(event: object) -> str:
    return event.text if isinstance(event, Note) else type(event).__name__


async def take(events: Any, count: int) -> list[Any]:
    return [await anext(events) for _ in range(count)]


def test_every_call_has_its_method(service: str) -> None:
    async def scene() -> None:
        async with members(service) as (near, far):
            assert (await near.health()).ok
            info = await near.info()
            assert info.protocol == 1
            assert info.unsigned == "refuse"

            here = records.Endpoint(transport="tcp", host="192.0.2.7", port=4001)
            able = records.Capabilities(relay=True, transport=("tcp", "ws"))
            registered = await near.register([here], capabilities=able, ttl_s=90)
            assert registered.expires_at - registered.server_time == 90
            assert registered.observed_endpoint is not None
            (peer,) = (await far.peers()).peers
            assert (peer.node_id, peer.endpoints, peer.capabilities) == (
                near.node_id,
                (here,),
                able,
            )

            left = await near.leave_signal(far.node_id, "offer", '{"sdp":"…"}', ttl_s=60)
            (signal,) = (await far.poll_signals()).signals
            assert (signal.id, signal.from_node, signal.payload) == (
                left.id,
                near.node_id,
                '{"sdp":"…"}',
            )
            assert (await far.poll_signals(since_id=signal.id)).signals == ()

            sent = [await near.send(f"hello {number}", display_name="Zoë") for number in range(3)]
            assert [note async for note in far.receive()] == sent
            assert [note async for note in far.receive()] == []

            assert (await near.open_relay(far.node_id)).session_id
            assert (await near.unregister()).removed is True
            assert (await near.unregister()).removed is False
            assert (await far.peers()).peers == ()

    play(scene())


def test_a_message_that_is_posted_twice_is_stored_once(service: str) -> None:
    async def scene() -> None:
        async with members(service) as (near, far):
            note = Note(
                crypto.new_msg_id(near.node_id, now=1), near.circle.circle_id, "general",
                near.node_id, 1, "Ann", "once",
            )  # fmt: skip
            envelope = crypto.encrypt(near.circle, note)
            assert (await near.leave_messages([envelope])).stored == 1
            assert (await near.leave_messages([envelope])).stored == 0
            assert [found.text async for found in far.receive()] == ["once"]

    play(scene())


def test_a_backlog_of_any_length_is_received_in_order(service: str) -> None:
    async def scene() -> None:
        async with members(service) as (near, far):
            texts = [str(number) for number in range(620)]
            notes = [
                Note(f"message-{index:05}", near.circle.circle_id, "g", near.node_id, 1, "A", body)
                for index, body in enumerate(texts)
            ]
            sealed = [crypto.encrypt(near.circle, note) for note in notes]
            for start in range(0, len(sealed), 50):
                await near.leave_messages(sealed[start : start + 50])
            assert [found.text async for found in far.receive()] == texts

    play(scene())


@pytest.mark.parametrize(
    "beyond", [2**53 - 1, int(time.time() * 1000) + 3_600_000], ids=["the last", "in an hour"]
)
def test_a_place_beyond_the_mailbox_and_the_signals_is_given_up(service: str, beyond: int) -> None:
    async def scene() -> None:
        async with members(service) as (ann, bob):
            assert await bob.newest_message() == await bob.newest_signal() == 0
            await ann.send("one")
            await ann.leave_signal(bob.node_id, "offer", "two")
            bob.cursor = beyond
            assert [note.text async for note in bob.receive()] == ["one"]
            assert bob.cursor == await bob.newest_message() < beyond
            events = Subscription(bob, after=beyond, since_id=beyond, presence=False)
            async with events:
                assert {type(await anext(events)) for _ in range(2)} == {Note, records.Signal}
                assert events.cursor == bob.cursor
                assert events.signal_id == await bob.newest_signal()

    play(scene())


def test_all_members_are_listed(service: str) -> None:
    async def scene() -> None:
        async with members(service, 4) as (ann, *others):
            found = await ann.all_peers()
            assert [peer.node_id for peer in found.peers] == sorted(n.node_id for n in others)
            assert found.more is False

    play(scene())


def test_a_clock_that_is_an_hour_off_is_corrected(service: str) -> None:
    async def scene() -> None:
        rim = dataclasses.replace(Rim(), now=lambda: time.time() + 3600)
        async with Client(service, Circle.new(), "node-skewed-01", rim=rim) as client:
            await client.register()
            assert client.clock_offset_s == pytest.approx(-3600, abs=2)
            assert (await client.peers()).peers == ()

    play(scene())


def test_another_circles_key_opens_nothing(service: str) -> None:
    async def scene() -> None:
        async with members(service, 1) as (owner,):
            thief = Circle.new()
            object.__setattr__(thief, "circle_hint", owner.circle.circle_hint)
            async with Client(service, thief, "node-thief-001") as client:
                for call in (
                    client.register,
                    client.peers,
                    client.unregister,
                    client.poll_messages,
                    client.poll_signals,
                    client.open_subscription,
                ):
                    with pytest.raises(errors.InvalidSignature):
                        await call()

    play(scene())


@pytest.mark.parametrize("token", ["nonsense", "", "muster1.a.b"])
def test_a_socket_without_a_good_token_is_refused_as_everything_is(
    service: str, token: str
) -> None:
    async def scene() -> None:
        async with members(service, 1) as (client,):
            opened = await client.open_subscription()
            forged = records.SubscriptionOpened(
                relay_url=opened.relay_url,
                token=token,
                expires_at=opened.expires_at,
                server_time=opened.server_time,
            )
            with pytest.raises(errors.InvalidToken):
                await client.attach(forged)

    play(scene())


def test_what_nobody_listens_on_is_unreachable() -> None:
    async def scene() -> None:
        with socket.create_server(("127.0.0.1", 0)) as taken:
            port = taken.getsockname()[1]
        base = f"http://127.0.0.1:{port}"
        async with Client(base, Circle.new(), "node-lonely-01", backoff=QUICK) as client:
            with pytest.raises(Unreachable, match=f"{port}"):
                await client.health()
        with pytest.raises(Unreachable, match="cannot open a WebSocket"):
            await sockets.connect(f"ws://127.0.0.1:{port}/v1/relay/ws", "token")

    play(scene())


def test_a_socket_that_was_closed_says_so(service: str) -> None:
    async def scene() -> None:
        async with members(service, 1) as (client,):
            found = await client.attach(await client.open_subscription())
            await found.close()
            await found.close()
            with pytest.raises(Closed):
                await found.receive()
            with pytest.raises(Closed):
                await found.send(frames.Ping())

    play(scene())


def test_a_subscription_hears_messages_signals_and_presence(service: str) -> None:
    async def scene() -> None:
        async with members(service) as (near, far), Subscription(near) as events:
            assert await take(events, 1) == [Joined((await near.peers()).peers[0])]
            while not events.live:
                await asyncio.sleep(0.01)
            sent = await far.send("pushed")
            assert await anext(events) == sent
            left = await far.leave_signal(near.node_id, "offer", "sdp")
            signal = await anext(events)
            assert isinstance(signal, records.Signal)
            assert signal.id == left.id
            await far.unregister()
            assert await anext(events) == Left(far.node_id)
            await far.register()
            assert isinstance(await anext(events), Joined)

    play(scene())


def test_a_subscription_takes_messages_too_large_to_push(service: str) -> None:
    async def scene() -> None:
        async with (
            members(service) as (near, far),
            Subscription(near, signals=False, presence=False) as events,
        ):
            for size in (100, 150_000, 100, 60_000, 60_000, 100):
                sent = await far.send("x" * size)
                assert await anext(events) == sent

    play(scene())


def test_a_subscription_survives_its_line_being_cut(service: str) -> None:
    async def scene() -> None:
        lines = [Line(service), Line(service)]
        async with (
            members(service, lines=lines) as (near, far),
            Subscription(near, presence=False, backoff=QUICK, poll_s=0.2) as events,
        ):
            got: list[str] = []
            for number in range(60):
                await far.send(str(number))
                if number % 15 == 7:
                    await lines[0].cut()
                if number % 4 == 3:
                    got += map(text, await take(events, 3))
            got += map(text, await take(events, 60 - len(got)))
            assert got == [str(number) for number in range(60)]
            with suppress(TimeoutError):
                async with asyncio.timeout(1):
                    assert await anext(events) is None, "given twice"

    play(scene())


def test_two_writers_and_a_late_reader_agree_on_the_order(service: str) -> None:
    async def scene() -> None:
        async with members(service, 3) as (one, two, reader):

            async def write(client: Client, name: str) -> None:
                for number in range(40):
                    await client.send(f"{name}{number}")

            async with Subscription(reader, presence=False) as events:
                await asyncio.gather(write(one, "a"), write(two, "b"))
                live = [text(event) for event in await take(events, 80)]
            late = [note.text async for note in reader.receive()]
            assert live == late
            assert sorted(live) == sorted(f"{name}{n}" for name in "ab" for n in range(40))

    play(scene())


def test_a_link_passes_payloads_of_all_sizes_both_ways(service: str) -> None:
    async def scene() -> None:
        async with (
            members(service) as (near, far),
            Link(near, far.node_id) as out,
            Link(far, near.node_id) as back,
        ):
            payloads = [bytes([size % 256]) * size for size in (0, 1, 100, MAX_PAYLOAD_BYTES)]
            payloads += [secrets.token_bytes(1000) for _ in range(100)]

            async def send(link: Link) -> None:
                for payload in payloads:
                    await link.send(payload)
                await link.flush()

            *_, there, here = await asyncio.gather(
                send(out), send(back), take(back, len(payloads)), take(out, len(payloads))
            )
            assert there == here == payloads
            await out.close()
            assert [payload async for payload in back] == []

    play(scene())


def test_a_link_survives_its_lines_being_cut(service: str) -> None:
    async def scene() -> None:
        lines = [Line(service), Line(service)]
        async with (
            members(service, lines=lines) as (near, far),
            Link(near, far.node_id, backoff=QUICK) as out,
            Link(far, near.node_id, backoff=QUICK) as back,
        ):
            payloads = [b"%d" % number for number in range(200)]

            async def send() -> None:
                for number, payload in enumerate(payloads):
                    await out.send(payload)
                    if number % 50 == 20:
                        await lines[number // 50 % 2].cut()

            _, got = await asyncio.gather(send(), take(back, len(payloads)))
            assert got == payloads
            await out.flush()

    play(scene())


def test_a_node_that_starts_again_finds_its_link_where_it_was(service: str) -> None:
    async def scene() -> None:
        lines = [Line(service), Line(service)]
        async with (
            members(service, lines=lines) as (near, far),
            Link(near, far.node_id, backoff=QUICK) as out,
        ):
            first = Link(far, near.node_id)
            await first.__aenter__()
            for payload in (b"one", b"two", b"three"):
                await out.send(payload)
            assert await take(first, 2) == [b"one", b"two"]
            while len(out._outbox) > 1:
                await asyncio.sleep(0.01)
            assert first._runner is not None
            first._runner.cancel()  # killed: no goodbye
            await lines[1].cut()
            async with Link(far, near.node_id) as second:
                assert await take(second, 1) == [b"three"]
                await out.send(b"four")
                assert await take(second, 1) == [b"four"]
                await second.send(b"hello from my second life")
                assert await take(out, 1) == [b"hello from my second life"]

    play(scene())


def test_a_link_that_is_too_fast_for_the_service_arrives_all_the_same(tmp_path: Path) -> None:
    async def scene(base: str) -> None:
        async with (
            members(base) as (near, far),
            Link(near, far.node_id) as out,
            Link(far, near.node_id) as back,
        ):
            payloads = [b"%d" % number for number in range(120)]

            async def send() -> None:
                for payload in payloads:
                    await out.send(payload)

            _, got = await asyncio.gather(send(), take(back, len(payloads)))
            assert got == payloads

    with local.running(tmp_path, websocket_url="", frame_burst="40", frames_per_s="40") as server:
        play(scene(server.base))


def test_everything_goes_on_after_the_service_was_killed(tmp_path: Path) -> None:
    async def scene(first: local.Server) -> None:
        async with (
            members(first.base) as (near, far),
            Subscription(near, presence=False, backoff=QUICK, poll_s=0.1) as events,
            Link(near, far.node_id, backoff=QUICK) as out,
            Link(far, near.node_id, backoff=QUICK) as back,
        ):
            await far.send("before")
            assert text(await anext(events)) == "before"
            await out.send(b"before")
            assert await take(back, 1) == [b"before"]
            first.stop(SIGKILL)
            await out.send(b"meanwhile")
            sending = asyncio.ensure_future(far.send("meanwhile"))
            with local.running(tmp_path, f"--port={first.port}", websocket_url=""):
                await sending
                assert text(await anext(events)) == "meanwhile"
                assert await take(back, 1) == [b"meanwhile"]
                await back.send(b"after")
                assert await take(out, 1) == [b"after"]
                await far.send("after")
                assert text(await anext(events)) == "after"

    with local.running(tmp_path, websocket_url="") as server:
        play(scene(server))
