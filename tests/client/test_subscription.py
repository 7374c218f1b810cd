"""A subscription on a scripted mailbox: whatever push does, nothing is lost or given twice."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import itertools
import random
from collections.abc import Awaitable, Callable
from typing import Any

import httpx2
import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from muster import errors, structs
from muster.felund import crypto, frames, records
from muster.felund.client import Client, Unreachable
from muster.felund.crypto import Note
from muster.felund.frames import FromNode, FromService
from muster.felund.sockets import PING_S, QUIET_PING_S, Closed
from muster.felund.subscription import CHECK_S, GONE_S, POLL_S, Joined, Left, Subscription
from tests.client import virtual
from tests.client.scripted import CIRCLE, FAR, LATENCY_S, NEAR

FIRST = 1_800_000_000_000
PAGE = 7


class Ear:
    """The node's end of a subscription's WebSocket."""

    def __init__(self) -> None:
        self.said: list[FromNode] = []
        self.dead = False
        self._told = 0
        self._heard: asyncio.Queue[FromService | None] = asyncio.Queue()

    async def send(self, frame: FromNode) -> None:
        if self.dead:
            raise Closed("gone")
        self.said.append(frame)
        if isinstance(frame, frames.Ping):
            self.tell(frames.Pong())

    async def receive(self) -> FromService:
        frame = await self._heard.get()
        if frame is None:
            raise Closed("gone")
        return frame

    async def close(self) -> None:
        self.dead = True

    def tell(self, frame: FromService, *, after_s: float = LATENCY_S) -> None:
        self._told += 1  # what is told with the same delay arrives in order
        delay_s = after_s + self._told * 1e-7
        asyncio.get_running_loop().call_later(delay_s, self._heard.put_nowait, frame)

    def die(self) -> None:
        self.dead = True
        self._heard.put_nowait(None)


class Mailbox:
    """The part of the service that subscriptions need; push can be made to fail."""

    def __init__(self) -> None:
        self.rim = virtual.rim()
        self.entries: list[tuple[bytes, ...]] = []
        self.signals: list[records.Signal] = []
        self.peers: list[records.Peer] = []
        self.ears: list[Ear] = []
        self.calls: list[str] = []
        self.push: Callable[[], float | None] = lambda: 0.0
        self.sockets = True
        self.refusal: errors.Refused | None = None
        self.page: httpx2.Response | None = None
        self.handshake: errors.Refused | None = None
        self.handshakes: list[float] = []
        self.down = False
        self.lies: list[int] = []
        self.signal_lies: list[records.Signal] = []

    @property
    def cursor(self) -> int:
        return FIRST + len(self.entries) - 1 if self.entries else 0

    def client(self) -> Client:
        return Client(
            "http://mail.test",
            CIRCLE,
            NEAR,
            transport=httpx2.MockTransport(self._call),
            connect=self._connect,
            rim=self.rim,
        )

    def post(self, *texts: str) -> None:
        """Leave messages in one entry, and push them."""
        before = self.cursor
        self.entries.append(tuple(_sealed(text) for text in texts))
        self._tell(
            frames.Messages(
                messages=tuple(msgspec.Raw(body) for body in self.entries[-1]),
                server_time=1,
                after=before,
                cursor=self.cursor,
            )
        )

    def signal(self, payload: str) -> None:
        signal = records.Signal(
            id=FIRST + len(self.signals),
            session_id="session-1",
            from_node=FAR,
            to_node=NEAR,
            type="candidate",
            payload=payload,
            created_at=1,
        )
        self.signals.append(signal)
        self._tell(frames.Signals(signals=(signal,)))

    def join(self, node_id: str, port: int = 1, *, lives_s: int = 1) -> None:
        self.forget(node_id)
        self.peers.append(_peer(node_id, port, lives_s=lives_s))
        self._tell(frames.Presence(joined=(self.peers[-1],)))

    def forget(self, node_id: str) -> None:
        self.peers = [peer for peer in self.peers if peer.node_id != node_id]

    def leave(self, node_id: str) -> None:
        self.forget(node_id)
        self._tell(frames.Presence(left=(node_id,)))

    def asked(self, path: str) -> int:
        return self.calls.count(path)

    def _tell(self, frame: FromService) -> None:
        for ear in self.ears:
            after_s = self.push()
            if not ear.dead and after_s is not None:
                ear.tell(frame, after_s=LATENCY_S + after_s)

    async def _connect(self, url: str, token: str) -> Ear:
        await asyncio.sleep(LATENCY_S)
        self.handshakes.append(virtual.now() - virtual.START)
        if self.handshake is not None:
            raise self.handshake
        if not self.sockets:
            raise Unreachable("a proxy knows no WebSocket")
        ear = Ear()
        self.ears.append(ear)
        recent = self.entries[-3:]
        if recent:
            start = self.cursor - len(recent)
            ear.tell(
                frames.Messages(
                    messages=tuple(msgspec.Raw(body) for entry in recent for body in entry),
                    server_time=1,
                    after=start if start >= FIRST else 0,
                    cursor=self.cursor,
                )
            )
        return ear

    async def _call(self, call: httpx2.Request) -> httpx2.Response:
        path = call.url.path.removeprefix("/v1")
        self.calls.append(path)
        await asyncio.sleep(LATENCY_S)
        if self.down:
            raise httpx2.ConnectError("down")
        if self.page is not None:
            return httpx2.Response(self.page.status_code, content=self.page.content)
        if self.refusal is not None:
            headers = {"Retry-After": str(self.refusal.retry_after_s)}
            body = self.refusal.to_json()
            return httpx2.Response(self.refusal.status, json=body, headers=headers)
        answer = {
            "/messages": self._messages,
            "/signal": self._signals,
            "/peers": self._peers,
            "/relay/subscription": self._open,
        }[path]
        return httpx2.Response(200, content=msgspec.json.encode(answer(call.url.params)))

    def _messages(self, query: httpx2.QueryParams) -> structs.Record:
        if "after" not in query:
            return records.Messages(messages=(), server_time=1, cursor=self.cursor)
        after = int(query["after"])
        skip = max(after - FIRST + 1, 0)
        page = self.entries[skip : skip + PAGE]
        cursor = FIRST + skip + len(page) - 1 if page else after
        return records.Messages(
            messages=tuple(msgspec.Raw(body) for entry in page for body in entry),
            server_time=1,
            cursor=self.lies.pop() if self.lies else cursor,
            more=skip + PAGE < len(self.entries),
        )

    def _signals(self, query: httpx2.QueryParams) -> structs.Record:
        since_id = int(query["since_id"])
        found = [signal for signal in self.signals if signal.id > since_id]
        found = [self.signal_lies.pop()] if self.signal_lies else found
        return records.Signals(signals=tuple(found[:PAGE]), server_time=1)

    def _peers(self, query: httpx2.QueryParams) -> structs.Record:
        return records.Peers(peers=tuple(self.peers), server_time=1)

    def _open(self, query: httpx2.QueryParams) -> structs.Record:
        return records.SubscriptionOpened(
            relay_url="ws://mail.test/v1/relay/ws", token="t", expires_at=2, server_time=1
        )


def _sealed(text: str) -> bytes:
    note = Note(crypto.new_msg_id(FAR, now=1), CIRCLE.circle_id, "general", FAR, 1, "Ann", text)
    return msgspec.json.encode(crypto.encrypt(CIRCLE, note))


def _peer(node_id: str, port: int, *, lives_s: int = 1) -> records.Peer:
    return records.Peer(
        node_id=node_id,
        circle_hint=CIRCLE.circle_hint,
        endpoints=(records.Endpoint(transport="tcp", host="192.0.2.1", port=port),),
        capabilities=records.Capabilities(),
        observed_at=1,
        expires_at=1 + lives_s,
    )


def said(event: object) -> str:
    match event:
        case Note():
            return event.text
        case records.Signal():
            return f"signal {event.payload}"
        case Joined(peer):
            return f"joined {peer.node_id} {peer.endpoints[0].port}"
        case Left(node_id):
            return f"left {node_id}"
    raise AssertionError(event)


async def take(events: Subscription, count: int) -> list[str]:
    async with asyncio.timeout(2 * CHECK_S):
        return [said(await anext(events)) for _ in range(count)]


async def silence(events: Subscription, seconds: float) -> None:
    """Make sure that nothing happens for so long."""
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(seconds):
            assert said(await anext(events)) == "nothing"


Scene = Callable[[Mailbox, Subscription], Awaitable[None]]


def play(scene: Scene, mailbox: Mailbox | None = None, **options: Any) -> Mailbox:
    async def main() -> Mailbox:
        found = mailbox or Mailbox()
        async with Subscription(found.client(), **options) as events:
            await scene(found, events)
        assert len(asyncio.all_tasks()) == 1
        return found

    return virtual.run(main())


def test_what_was_there_comes_first_and_in_order() -> None:
    mailbox = Mailbox()

    async def scene(mailbox: Mailbox, events: Subscription) -> None:
        texts = [str(number) for number in range(30)]
        assert await take(events, 30) == texts
        assert events.cursor == mailbox.cursor
        await silence(events, 1)

    async def main() -> None:
        for number in range(30):
            mailbox.post(str(number))

    virtual.run(main())
    play(scene, mailbox)


def test_a_push_is_given_without_asking() -> None:
    async def scene(mailbox: Mailbox, events: Subscription) -> None:
        mailbox.post("before")
        assert await take(events, 1) == ["before"]
        await silence(events, 1)
        assert events.live
        asked = len(mailbox.calls)
        for text in ("one", "two", "three"):
            mailbox.post(text)
            before = virtual.now()
            assert await take(events, 1) == [text]
            assert virtual.now() - before < 2 * LATENCY_S
        assert len(mailbox.calls) == asked

    play(scene)


def test_a_gap_is_filled_by_polling_messages_alone() -> None:
    async def scene(mailbox: Mailbox, events: Subscription) -> None:
        mailbox.post("one")
        assert await take(events, 1) == ["one"]
        await silence(events, 1)
        peers, messages = mailbox.asked("/peers"), mailbox.asked("/messages")
        mailbox.push = lambda: None
        mailbox.post("lost")
        mailbox.push = lambda: 0.0
        mailbox.post("arrives")
        assert await take(events, 2) == ["lost", "arrives"]
        await silence(events, 1)
        assert mailbox.asked("/peers") == peers
        assert mailbox.asked("/messages") == messages + 1

    play(scene)


def test_the_last_push_that_is_lost_is_found_by_checking_now_and_then() -> None:
    async def scene(mailbox: Mailbox, events: Subscription) -> None:
        await silence(events, 1)
        mailbox.push = lambda: None
        mailbox.post("lost")
        assert await take(events, 1) == ["lost"]
        assert virtual.now() - virtual.START <= CHECK_S + 2

    play(scene)


def test_a_message_no_frame_can_hold_is_polled_for() -> None:
    async def scene(mailbox: Mailbox, events: Subscription) -> None:
        mailbox.post("small")
        assert await take(events, 1) == ["small"]
        await silence(events, 1)
        before = mailbox.cursor
        mailbox.push = lambda: None
        mailbox.post("large")
        for ear in mailbox.ears:
            ear.tell(frames.Messages(messages=(), server_time=1, after=before, cursor=before))
        assert await take(events, 1) == ["large"]
        assert virtual.now() - virtual.START < 5
        for ear in mailbox.ears:  # again, late
            ear.tell(frames.Messages(messages=(), server_time=1, after=before, cursor=before))
        await silence(events, 1)

    play(scene)


def test_a_subscription_resumes_from_its_cursors() -> None:
    async def scene(mailbox: Mailbox, events: Subscription) -> None:
        for number in range(5):
            mailbox.post(f"a{number}", f"b{number}")
        assert await take(events, 6) == ["a0", "b0", "a1", "b1", "a2", "b2"]
        mailbox.signal("one")
        mailbox.signal("two")
        assert await take(events, 6) == ["a3", "b3", "a4", "b4", "signal one", "signal two"]
        mailbox.post("last")
        mailbox.signal("last")
        again = Subscription(mailbox.client(), after=events.cursor, since_id=events.signal_id)
        async with again:
            assert sorted(await take(again, 2)) == ["last", "signal last"]
            await silence(again, CHECK_S + 1)

    play(scene)


def test_a_subscription_that_is_left_in_a_page_resumes_behind_what_was_given() -> None:
    async def scene(mailbox: Mailbox, events: Subscription) -> None:
        for number in range(5):
            mailbox.post(f"a{number}", f"b{number}")
        assert await take(events, 7) == ["a0", "b0", "a1", "b1", "a2", "b2", "a3"]
        async with Subscription(mailbox.client(), after=events.cursor) as again:
            rest = await take(again, 10 - 2 * (events.cursor - FIRST + 1 if events.cursor else 0))
        assert rest[-3:] == ["b3", "a4", "b4"]

    play(scene, signals=False, presence=False)


def test_the_cursor_moves_with_the_last_message_of_an_entry() -> None:
    async def scene(mailbox: Mailbox, events: Subscription) -> None:
        mailbox.post("a", "b")
        assert await take(events, 1) == ["a"]
        assert events.cursor == 0, "a program that is killed here sees 'a' again, and not only 'b'"
        assert await take(events, 1) == ["b"]
        assert events.cursor == mailbox.cursor

    play(scene)


def test_what_nobody_can_read_is_passed_over_and_moves_the_cursor() -> None:
    async def scene(mailbox: Mailbox, events: Subscription) -> None:
        mailbox.entries.append((b'{"msg_id":"unreadable"}',))
        mailbox.post("readable")
        assert await take(events, 1) == ["readable"]
        mailbox.entries.append((b'"not even an object"',))
        await silence(events, CHECK_S + 1)
        assert events.cursor == mailbox.cursor

    play(scene)


def test_signals_come_at_once_and_once() -> None:
    async def scene(mailbox: Mailbox, events: Subscription) -> None:
        for number in range(3):
            mailbox.signal(str(number))
        assert await take(events, 3) == ["signal 0", "signal 1", "signal 2"]
        await silence(events, 1)
        asked = mailbox.asked("/signal")
        mailbox.signal("pushed")
        assert await take(events, 1) == ["signal pushed"]
        assert mailbox.asked("/signal") == asked
        mailbox.push = lambda: None
        mailbox.signal("lost")
        mailbox.push = lambda: 0.0
        mailbox.signal("ahead")
        assert await take(events, 2) == ["signal ahead", "signal lost"]
        await silence(events, 2 * CHECK_S)

    play(scene)


def test_presence_is_told_as_changes() -> None:
    async def scene(mailbox: Mailbox, events: Subscription) -> None:
        mailbox.join("node-old-00001")
        assert await take(events, 1) == ["joined node-old-00001 1"]
        await silence(events, 1)
        mailbox.join("node-new-00001")
        mailbox.join("node-old-00001")  # a refresh, nothing new
        mailbox.join("node-old-00001", port=2)
        mailbox.leave("node-new-00001")
        mailbox.leave("node-unknown-1")
        assert await take(events, 3) == [
            "joined node-new-00001 1",
            "joined node-old-00001 2",
            "left node-new-00001",
        ]
        await silence(events, 2 * CHECK_S)

    play(scene)


def test_presence_that_changed_behind_our_back_is_told_on_connecting() -> None:
    async def scene(mailbox: Mailbox, events: Subscription) -> None:
        mailbox.join("node-old-00001")
        assert await take(events, 1) == ["joined node-old-00001 1"]
        await silence(events, 1)
        mailbox.push = lambda: None
        mailbox.leave("node-old-00001")
        mailbox.join("node-new-00001")
        mailbox.ears[-1].die()
        assert await take(events, 2) == ["left node-old-00001", "joined node-new-00001 1"]
        assert virtual.now() - virtual.START < 5

    play(scene)


def test_what_is_not_wanted_is_neither_asked_for_nor_given() -> None:
    async def scene(mailbox: Mailbox, events: Subscription) -> None:
        mailbox.signal("no")
        mailbox.join("node-new-00001")
        mailbox.post("yes")
        assert await take(events, 1) == ["yes"]
        mailbox.signal("no")
        mailbox.leave("node-new-00001")
        await silence(events, CHECK_S)

    mailbox = play(scene, signals=False, presence=False)

    assert set(mailbox.calls) == {"/messages", "/relay/subscription"}


def test_without_a_socket_the_same_comes_from_polling() -> None:
    async def scene(mailbox: Mailbox, events: Subscription) -> None:
        mailbox.sockets = False
        await silence(events, 1)
        assert events.live is False
        before = virtual.now()
        mailbox.post("polled")
        mailbox.signal("polled")
        mailbox.join("node-new-00001")
        found = await take(events, 3)
        assert found == ["polled", "signal polled", "joined node-new-00001 1"]
        assert virtual.now() - before <= POLL_S + 1
        mailbox.sockets = True
        await silence(events, 60)
        assert len(mailbox.ears) == 1
        mailbox.post("pushed")
        assert await take(events, 1) == ["pushed"]

    play(scene)


def test_a_socket_is_not_asked_for_in_a_hurry() -> None:
    async def scene(mailbox: Mailbox, events: Subscription) -> None:
        mailbox.sockets = False
        await silence(events, 600)

    mailbox = play(scene)

    assert 15 <= mailbox.asked("/relay/subscription") <= 60
    assert 100 <= mailbox.asked("/messages") <= 125


def test_a_service_that_is_away_is_waited_for() -> None:
    async def scene(mailbox: Mailbox, events: Subscription) -> None:
        await silence(events, 1)
        mailbox.post("one")
        assert await take(events, 1) == ["one"]
        mailbox.down = True
        mailbox.ears[-1].die()
        await silence(events, 300)
        tries = len(mailbox.calls)
        mailbox.post("two")
        mailbox.down = False
        assert await take(events, 1) == ["two"]
        assert tries < 300, "less than one a second"

    play(scene)


def test_a_service_that_is_busy_is_left_alone_as_long_as_it_said() -> None:
    async def scene(mailbox: Mailbox, events: Subscription) -> None:
        mailbox.sockets = False
        mailbox.refusal = errors.RateLimited("too many", retry_after_s=100)
        await silence(events, 99)
        assert mailbox.asked("/messages") == 1
        mailbox.refusal = None
        mailbox.post("one")
        assert await take(events, 1) == ["one"]

    play(scene)


def test_a_refusal_that_stays_is_raised() -> None:
    async def scene(mailbox: Mailbox, events: Subscription) -> None:
        mailbox.refusal = errors.InvalidSignature("another key was pinned")
        with pytest.raises(errors.InvalidSignature):
            await take(events, 1)

    play(scene)


def test_pings_keep_the_socket_and_their_lack_ends_it() -> None:
    async def scene(mailbox: Mailbox, events: Subscription) -> None:
        await silence(events, 5 * QUIET_PING_S + 1)
        (ear,) = mailbox.ears
        assert ear.said == [frames.Ping()] * 5
        ear.tell = lambda frame, *, after_s=0.0: None  # type: ignore[method-assign]
        await silence(events, 3 * QUIET_PING_S)
        assert len(mailbox.ears) == 2
        mailbox.ears[1].tell(frames.Ping())
        await silence(events, 1)
        assert mailbox.ears[1].said[-1] == frames.Pong()

    play(scene)


def test_a_service_that_says_ping_is_asked_often() -> None:
    async def scene(mailbox: Mailbox, events: Subscription) -> None:
        await silence(events, 1)
        (ear,) = mailbox.ears
        ear.tell(frames.Ping())
        await silence(events, 3 * PING_S + 1)
        assert ear.said == [frames.Pong(), *[frames.Ping()] * 3]

    play(scene)


def test_a_slow_reader_loses_nothing_and_holds_little() -> None:
    async def scene(mailbox: Mailbox, events: Subscription) -> None:
        await silence(events, 1)
        for number in range(500):
            mailbox.post(str(number))
        for number in range(500):
            mailbox.signal(str(number))
        await asyncio.sleep(10)
        assert len(events._frames) <= 64
        found = await take(events, 1000)
        assert [event for event in found if not event.startswith("signal")] == [
            str(number) for number in range(500)
        ]
        assert {event for event in found if event.startswith("signal")} == {
            f"signal {number}" for number in range(500)
        }

    play(scene)


def test_a_wait_that_was_given_up_takes_nothing_with_it() -> None:
    async def scene(mailbox: Mailbox, events: Subscription) -> None:
        found: list[str] = []
        for number in range(40):
            mailbox.post(f"a{number}", f"b{number}")
            for _ in range(3):
                try:
                    async with asyncio.timeout(0.004):
                        found += [said(await anext(events))]
                except TimeoutError:
                    continue
        found += await take(events, 80 - len(found))
        assert found == [f"{letter}{number}" for number in range(40) for letter in "ab"]

    play(scene, poll_s=0.5)


def test_a_poll_that_was_given_up_is_made_again() -> None:
    async def scene(mailbox: Mailbox, events: Subscription) -> None:
        mailbox.post("one")
        mailbox.join("node-new-00001")
        for _ in range(5):
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(LATENCY_S / 2):
                    assert said(await anext(events)) == "nothing"
        assert await take(events, 2) == ["one", "joined node-new-00001 1"]

    play(scene, signals=False)


def test_frames_that_mean_nothing_here_are_passed_over() -> None:
    async def scene(mailbox: Mailbox, events: Subscription) -> None:
        mailbox.join("node-new-00001", port=2)
        assert await take(events, 1) == ["joined node-new-00001 2"]
        await silence(events, 1)
        (ear,) = mailbox.ears
        ear.tell(frames.Error(code="INVALID_FRAME", message="what?", retryable=False))
        ear.tell(frames.Gone(session_id="session-1", node_id=FAR))
        overtaken = msgspec.structs.replace(_peer("node-new-00001", 1), observed_at=0)
        ear.tell(frames.Presence(joined=(overtaken,)))
        await silence(events, 1)
        mailbox.post("one")
        assert await take(events, 1) == ["one"]

    play(scene)


# --- false answers, broken paths, crashed peers, clocks that are set -----------------


@pytest.mark.parametrize("beyond", [2**53 - 1, FIRST + 86_400_000, FIRST + 40])
@pytest.mark.parametrize("sockets", [True, False])
def test_one_false_cursor_makes_nobody_deaf(beyond: int, sockets: bool) -> None:
    async def scene(mailbox: Mailbox, events: Subscription) -> None:
        mailbox.sockets = sockets
        mailbox.post("one")
        assert await take(events, 1) == ["one"]
        await silence(events, 1)
        mailbox.lies = [beyond]
        mailbox.push = lambda: None
        mailbox.post("two")
        if mailbox.ears:
            mailbox.ears[-1].die()
        mailbox.push = lambda: 0.0
        assert await take(events, 1) == ["two"]
        await silence(events, 60)
        mailbox.post("three")
        assert await take(events, 1) == ["three"]
        assert events.cursor == mailbox.cursor

    play(scene)


@pytest.mark.parametrize("kept", [2**53 - 1, FIRST + 86_400_000, FIRST + 40])
def test_a_false_cursor_that_was_kept_heals_by_itself(kept: int) -> None:
    async def scene(mailbox: Mailbox, events: Subscription) -> None:
        mailbox.post("one", "two")
        mailbox.signal("one")
        found = await take(events, 3)
        assert sorted(found) == ["one", "signal one", "two"]
        assert (events.cursor, events.signal_id) == (mailbox.cursor, FIRST)
        await silence(events, 2 * CHECK_S)

    play(scene, after=kept, since_id=kept)


def test_a_push_beyond_the_mailbox_is_not_believed() -> None:
    async def scene(mailbox: Mailbox, events: Subscription) -> None:
        mailbox.post("one")
        assert await take(events, 1) == ["one"]
        await silence(events, 1)
        (ear,) = mailbox.ears
        fake = tuple(msgspec.Raw(body) for body in mailbox.entries[-1])
        ear.tell(
            frames.Messages(
                messages=fake, server_time=1, after=mailbox.cursor, cursor=mailbox.cursor + 1000
            )
        )
        await silence(events, 1)
        mailbox.post("two")
        assert await take(events, 1) == ["two"]

    play(scene)


def test_a_reader_beyond_the_mailbox_notices_at_the_next_push() -> None:
    async def scene(mailbox: Mailbox, events: Subscription) -> None:
        mailbox.post("one")
        assert await take(events, 1) == ["one"]
        await silence(events, 1)
        events._mail.advance(FIRST + 500, count=500)  # two false answers agreed
        mailbox.post("two")
        assert await take(events, 1) == ["two"]
        assert virtual.now() - virtual.START < 5

    play(scene)


@pytest.mark.parametrize("beyond", [2**53 - 1, FIRST + 86_400_000, FIRST + 40])
def test_one_false_signal_makes_nobody_deaf(beyond: int) -> None:
    async def scene(mailbox: Mailbox, events: Subscription) -> None:
        mailbox.signal("one")
        assert await take(events, 1) == ["signal one"]
        await silence(events, 1)
        fake = msgspec.structs.replace(mailbox.signals[0], id=beyond, payload="fake")
        mailbox.signal_lies = [fake]
        mailbox.ears[-1].die()
        await asyncio.sleep(60)
        mailbox.signal("two")
        found = [said(await anext(events))]
        while found[-1] != "signal two":
            found.append(said(await anext(events)))
        assert "signal one" not in found
        await silence(events, 1)

    play(scene)


@pytest.mark.parametrize("status", [400, 401, 403, 404])
def test_a_front_end_at_work_is_waited_for_and_told(status: int) -> None:
    async def scene(mailbox: Mailbox, events: Subscription) -> None:
        await silence(events, 1)
        assert events.trouble is None
        mailbox.page = httpx2.Response(status, text="<html>back soon</html>")
        mailbox.ears[-1].die()
        await silence(events, 600)
        assert mailbox.ears[-1].dead
        assert f"answered {status} without a word from Muster" in str(events.trouble)
        mailbox.page = None
        mailbox.post("one")
        assert await take(events, 1) == ["one"]
        await silence(events, 60)
        assert (events.live, events.trouble) == (True, None)

    play(scene)


def test_a_handshake_that_is_told_to_wait_is_made_after_that() -> None:
    async def scene(mailbox: Mailbox, events: Subscription) -> None:
        mailbox.handshake = errors.Unavailable("slowly", retry_after_s=100)
        await silence(events, 350)

    mailbox = play(scene)

    gaps = [after - before for before, after in itertools.pairwise(mailbox.handshakes)]
    assert len(gaps) >= 2
    assert min(gaps) >= 100


def test_no_answer_silences_a_subscription_for_more_than_an_hour() -> None:
    async def scene(mailbox: Mailbox, events: Subscription) -> None:
        mailbox.sockets = False
        mailbox.refusal = errors.RateLimited("never again", retry_after_s=999_999_999)
        await silence(events, 10)
        mailbox.refusal = None
        mailbox.post("one")
        async with asyncio.timeout(2 * 3600):
            assert said(await anext(events)) == "one"

    play(scene)


def test_a_peer_that_crashed_is_gone_and_one_that_renews_is_not() -> None:
    async def scene(mailbox: Mailbox, events: Subscription) -> None:
        mailbox.join("node-crashes-1", lives_s=300)
        mailbox.join("node-renews-01", lives_s=300)
        assert sorted(await take(events, 2)) == [
            "joined node-crashes-1 1",
            "joined node-renews-01 1",
        ]
        for _ in range(4):
            await silence(events, 60)
            mailbox.push = lambda: None  # a renewal is not pushed
            mailbox.join("node-renews-01", lives_s=300)
            mailbox.push = lambda: 0.0
            mailbox.post("people talk")
            assert await take(events, 1) == ["people talk"]
        asked = mailbox.asked("/peers")
        mailbox.forget("node-crashes-1")
        assert await take(events, 1) == ["left node-crashes-1"]
        assert virtual.now() - virtual.START < GONE_S + 1
        assert mailbox.asked("/peers") == asked + 1

    play(scene)


def test_a_peer_dated_tomorrow_can_still_move() -> None:
    async def scene(mailbox: Mailbox, events: Subscription) -> None:
        mailbox.join("node-old-00001")
        mailbox.peers[0] = msgspec.structs.replace(mailbox.peers[0], observed_at=2**53 - 1)
        assert await take(events, 1) == ["joined node-old-00001 1"]
        await silence(events, 61)
        mailbox.join("node-old-00001", port=2)
        assert await take(events, 1) == ["joined node-old-00001 2"]

    play(scene)


@pytest.mark.parametrize("step_s", [-3600, 3600])
def test_a_clock_that_is_set_delays_nothing(step_s: int) -> None:
    mailbox = Mailbox()
    step = [0]
    mailbox.rim = dataclasses.replace(mailbox.rim, now=lambda: virtual.now() + step[0])

    async def scene(mailbox: Mailbox, events: Subscription) -> None:
        mailbox.sockets = False
        await silence(events, 1)
        step[0] = step_s
        mailbox.post("one")
        before = virtual.now()
        assert await take(events, 1) == ["one"]
        assert virtual.now() - before <= POLL_S + 1
        mailbox.sockets = True
        await silence(events, 60)
        assert events.live

    play(scene, mailbox)


def test_a_subscription_is_opened_before_it_is_used() -> None:
    async def main() -> None:
        events = Subscription(Mailbox().client())
        with pytest.raises(RuntimeError, match="async with"):
            await anext(events)
        await events.aclose()

    virtual.run(main())


@given(st.integers(0, 2**32))
def test_pushes_that_are_lost_late_or_out_of_order_change_nothing(seed: int) -> None:
    chance = random.Random(seed)

    async def scene(mailbox: Mailbox, events: Subscription) -> None:
        mailbox.push = lambda: None if chance.random() < 0.2 else chance.random() ** 6

        async def write() -> None:
            for number in range(80):
                mailbox.post(*(f"{number}.{part}" for part in range(chance.choice([1, 1, 3]))))
                mailbox.signal(str(number))
                if chance.random() < 0.05 and mailbox.ears:
                    mailbox.ears[-1].die()
                await asyncio.sleep(chance.random() ** 4)

        writing = asyncio.ensure_future(write())
        found: list[str] = []
        with contextlib.suppress(TimeoutError):
            while True:
                async with asyncio.timeout(2 * CHECK_S):
                    found.append(said(await anext(events)))
        assert writing.done()
        texts = [event for event in found if not event.startswith("signal")]
        signals = [event for event in found if event.startswith("signal")]
        posted = [
            crypto.decrypt(CIRCLE, msgspec.json.decode(body)).text
            for entry in mailbox.entries
            for body in entry
        ]
        assert texts == posted
        assert sorted(signals) == sorted(f"signal {number}" for number in range(80))

    play(scene, presence=False)
