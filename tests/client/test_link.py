"""Two links over a scripted relay: whatever the network does, payloads come once and in order."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable
from contextlib import suppress
from itertools import pairwise
from typing import Any

import httpx2
import pytest
from hypothesis import given
from hypothesis import strategies as st

from muster import errors
from muster.felund import frames, link
from muster.felund.client import Unreachable
from muster.felund.link import Link, LinkClosed
from muster.felund.ordering import MAX_PAYLOAD_BYTES
from muster.felund.sockets import PING_S
from tests.client import virtual
from tests.client.scripted import FAR, NEAR, Relay


def numbered(count: int) -> list[bytes]:
    return [b"%d" % number for number in range(count)]


async def take(reader: Link, count: int) -> list[bytes]:
    return [await anext(reader) for _ in range(count)]


async def opened(relay: Relay) -> tuple[Link, Link]:
    near = Link(relay.client(NEAR, seed=1), FAR)
    far = Link(relay.client(FAR, seed=2), NEAR)
    await near.__aenter__()
    await far.__aenter__()
    return near, far


def play(act: Callable[[Relay, Link, Link], Awaitable[None]]) -> Relay:
    """Run a scene between two open links."""

    async def main() -> Relay:
        relay = Relay()
        near, far = await opened(relay)
        try:
            await act(relay, near, far)
        finally:
            relay.network = lambda node_id, frame: None
            await near.close()
            await far.close()
        return relay

    return virtual.run(main())


def test_payloads_pass_both_ways_in_order() -> None:
    async def scene(relay: Relay, near: Link, far: Link) -> None:
        for number in numbered(100):
            await asyncio.gather(near.send(b"to " + number), far.send(b"back " + number))
            assert await take(far, 1) == [b"to " + number]
            assert await take(near, 1) == [b"back " + number]
        await near.flush()
        await far.flush()

    play(scene)


def test_what_is_sent_before_the_other_side_is_there_waits_for_it() -> None:
    async def main() -> None:
        relay = Relay()
        async with Link(relay.client(NEAR), FAR) as near:
            for payload in numbered(5):
                await near.send(payload)
            await asyncio.sleep(20)
            assert not near.there
            asked = len(relay.said(NEAR, frames.Frame))
            assert asked <= 4, "one frame asks, ever more seldom"
            async with Link(relay.client(FAR, seed=2), NEAR) as far:
                assert await take(far, 5) == numbered(5)
                assert near.there

    virtual.run(main())


def test_a_payload_of_the_largest_size_passes_and_a_larger_one_is_refused() -> None:
    async def scene(relay: Relay, near: Link, far: Link) -> None:
        await near.send(bytes(MAX_PAYLOAD_BYTES))
        assert await take(far, 1) == [bytes(MAX_PAYLOAD_BYTES)]
        with pytest.raises(errors.PayloadTooLarge, match=str(MAX_PAYLOAD_BYTES)):
            await near.send(bytes(MAX_PAYLOAD_BYTES + 1))

    play(scene)


def test_a_sender_waits_while_the_window_is_full() -> None:
    async def scene(relay: Relay, near: Link, far: Link) -> None:
        async def send_all() -> None:
            for payload in numbered(link.WINDOW + 3):
                await near.send(payload)

        sending = asyncio.ensure_future(send_all())
        await asyncio.sleep(1)
        assert not sending.done()
        assert await take(far, 2) == numbered(2)
        await asyncio.sleep(1)
        assert not sending.done()
        assert await take(far, 1) == [b"2"]
        await sending

    play(scene)


def test_a_frame_is_acknowledged_when_the_program_takes_it() -> None:
    async def scene(relay: Relay, near: Link, far: Link) -> None:
        await near.send(b"hello")
        await asyncio.sleep(1)
        assert relay.said(FAR, frames.Ack) == []
        await take(far, 1)
        await near.flush()
        assert len(relay.said(FAR, frames.Ack)) == 1

    play(scene)


def test_a_reader_that_is_slow_is_asked_again_ever_more_seldom() -> None:
    async def scene(relay: Relay, near: Link, far: Link) -> None:
        await near.send(b"hello")
        await asyncio.sleep(600)
        assert 5 <= len(relay.said(NEAR, frames.Frame)) <= 14
        assert await take(far, 1) == [b"hello"]

    play(scene)


@pytest.mark.parametrize("dies", [NEAR, FAR])
def test_a_connection_that_breaks_is_taken_up_again(dies: str) -> None:
    async def scene(relay: Relay, near: Link, far: Link) -> None:
        for number, payload in enumerate(numbered(30)):
            await near.send(payload)
            if number % 10 == 5:
                await asyncio.sleep(2)
                relay.seats[dies].die()
        assert await take(far, 30) == numbered(30)
        await near.flush()

    relay = play(scene)

    assert len([node for node, _ in relay.attached if node == dies]) >= 3


def test_a_lost_frame_is_sent_again_when_its_acknowledgement_is_overdue() -> None:
    async def scene(relay: Relay, near: Link, far: Link) -> None:
        lose = [True]
        await asyncio.sleep(1)  # until both are there
        relay.network = lambda node_id, frame: None if lose and lose.pop() else 0.0
        for payload in numbered(3):
            await near.send(payload)
        assert await take(far, 3) == numbered(3)
        assert 5 <= virtual.now() - virtual.START < 8

    play(scene)


def test_a_lost_acknowledgement_holds_nothing_up() -> None:
    async def scene(relay: Relay, near: Link, far: Link) -> None:
        def network(node_id: str, frame: Any) -> float | None:
            return None if isinstance(frame, frames.Ack) and not healed else 0.0

        healed: list[bool] = []
        relay.network = network
        await near.send(b"one")
        assert await take(far, 1) == [b"one"]
        healed.append(True)
        await near.send(b"two")
        assert await take(far, 1) == [b"two"]
        await near.flush()

    play(scene)


def test_a_lost_acknowledgement_is_given_again_when_the_frame_comes_again() -> None:
    async def scene(relay: Relay, near: Link, far: Link) -> None:
        relay.network = lambda node_id, frame: None if isinstance(frame, frames.Ack) else 0.0
        await near.send(b"one")
        assert await take(far, 1) == [b"one"]
        await asyncio.sleep(1)
        relay.network = lambda node_id, frame: 0.0
        await near.flush()
        assert virtual.now() - virtual.START < 8

    play(scene)


@pytest.mark.parametrize("told", [True, False])
@pytest.mark.parametrize("dies", [NEAR, FAR])
def test_what_was_under_way_when_a_seat_changed_is_sent_again_at_once(
    dies: str, told: bool
) -> None:
    """Also when the notice that the seat is taken gets lost, if the own socket is new."""

    async def scene(relay: Relay, near: Link, far: Link) -> None:
        await near.send(b"zero")
        assert await take(far, 1) == [b"zero"]
        relay.network = lambda node_id, frame: None
        await near.send(b"one")
        await asyncio.sleep(11)  # sent again once, at 5 s; the next time would be at 15 s
        relay.network = lambda node_id, frame: 0.0
        relay.announces = told
        relay.seats[dies].die()
        assert await take(far, 1) == [b"one"]
        assert virtual.now() - virtual.START < 13 or not (told or dies == NEAR)

    play(scene)


@given(st.integers(0, 2**32))
def test_a_network_that_loses_delays_and_breaks_delivers_all_the_same(seed: int) -> None:
    chance = random.Random(seed)

    def network(node_id: str, frame: Any) -> float | None:
        return None if chance.random() < 0.1 else chance.random() ** 4

    async def scene(relay: Relay, near: Link, far: Link) -> None:
        async def trouble() -> None:
            for _ in range(6):
                await asyncio.sleep(chance.random() * 3)
                seat = relay.seats.get(chance.choice([NEAR, FAR]))
                if seat is not None:
                    seat.die()

        async def talk(out: Link) -> None:
            for payload in numbered(60):
                await out.send(payload)

        relay.network = network
        *_, got, back = await asyncio.gather(
            trouble(), talk(near), talk(far), take(far, 60), take(near, 60)
        )
        assert got == back == numbered(60)

    play(scene)


def test_a_receiver_that_starts_again_goes_on_where_the_old_one_was() -> None:
    async def scene(relay: Relay, near: Link, far: Link) -> None:
        for payload in numbered(6):
            await near.send(payload)
        assert await take(far, 3) == numbered(3)
        await asyncio.sleep(1)
        relay.seats[FAR].die()  # killed: no goodbye
        reborn = Link(relay.client(FAR, seed=3), NEAR)
        async with reborn:
            assert await take(reborn, 3) == numbered(6)[3:]

    play(scene)


def test_a_sender_that_starts_again_is_followed() -> None:
    async def scene(relay: Relay, near: Link, far: Link) -> None:
        for payload in numbered(3):
            await near.send(payload)
        assert await take(far, 3) == numbered(3)
        await asyncio.sleep(2)
        relay.seats[NEAR].die()
        async with Link(relay.client(NEAR, seed=3), FAR) as reborn:
            for payload in (b"new 0", b"new 1"):
                await reborn.send(payload)
            assert await take(far, 2) == [b"new 0", b"new 1"]
            await far.send(b"welcome back")
            assert await take(reborn, 1) == [b"welcome back"]

    play(scene)


def test_closing_ends_the_other_sides_iteration_after_the_last_payload() -> None:
    async def scene(relay: Relay, near: Link, far: Link) -> None:
        for payload in numbered(3):
            await near.send(payload)
        closing = asyncio.ensure_future(near.close())
        assert [payload async for payload in far] == numbered(3)
        await closing
        assert [payload async for payload in far] == []

    relay = play(scene)

    assert relay.seats == {}


def test_closing_does_not_wait_for_a_reader_that_does_not_read() -> None:
    async def scene(relay: Relay, near: Link, far: Link) -> None:
        await near.send(b"unread")
        await asyncio.sleep(1)
        before = virtual.now()
        await near.close()
        assert virtual.now() - before <= 2.1

    play(scene)


def test_closing_is_quick_when_everything_was_taken() -> None:
    async def scene(relay: Relay, near: Link, far: Link) -> None:
        await near.send(b"read")
        await take(far, 1)
        before = virtual.now()
        await near.close()
        await far.close()
        assert virtual.now() - before < 0.2

    play(scene)


def test_a_closed_link_says_so() -> None:
    async def scene(relay: Relay, near: Link, far: Link) -> None:
        waiting = asyncio.ensure_future(anext(near))
        await asyncio.sleep(1)
        await near.close()
        with pytest.raises(StopAsyncIteration):
            await waiting
        with pytest.raises(LinkClosed):
            await near.send(b"late")
        assert [payload async for payload in near] == []
        await near.close()

    play(scene)


def test_a_link_is_opened_before_it_is_used() -> None:
    async def main() -> None:
        near = Link(Relay().client(NEAR), FAR)
        with pytest.raises(LinkClosed, match="async with"):
            await near.send(b"early")
        with pytest.raises(LinkClosed, match="async with"):
            await anext(near)
        await near.close()

    virtual.run(main())


def test_the_session_is_renewed_at_seven_tenths_of_its_time() -> None:
    async def scene(relay: Relay, near: Link, far: Link) -> None:
        await asyncio.sleep(130)

    relay = play(scene)

    assert [round(at) for node, at in relay.opened if node == NEAR] == [0, 42, 84, 126]
    assert len(relay.attached) == 2, "renewing needs no new socket"


def test_a_renewal_that_fails_is_tried_again_while_the_socket_stays() -> None:
    async def scene(relay: Relay, near: Link, far: Link) -> None:
        await asyncio.sleep(41)
        relay.registered.discard(FAR)
        await asyncio.sleep(5)
        relay.registered.add(FAR)
        await asyncio.sleep(9)
        assert near.there

    relay = play(scene)

    (first, second) = (at for node, at in relay.opened if node == NEAR)
    assert first == 0
    assert 46 <= second <= 54
    assert len(relay.attached) == 2


def test_a_renewal_that_is_refused_for_good_ends_the_link() -> None:
    async def scene(relay: Relay, near: Link, far: Link) -> None:
        relay.refusal = errors.InvalidSignature("another key was pinned")
        with pytest.raises(errors.InvalidSignature):
            await anext(near)
        assert virtual.now() - virtual.START == pytest.approx(42, abs=1)

    play(scene)


def test_a_session_that_is_a_new_one_gets_a_new_socket() -> None:
    async def scene(relay: Relay, near: Link, far: Link) -> None:
        relay.session += 1
        await asyncio.sleep(60)
        await near.send(b"hello")
        assert await take(far, 1) == [b"hello"]
        assert {seat.session_id for seat in relay.seats.values()} == {"session-1"}

    play(scene)


def test_an_idle_link_says_ping_in_time() -> None:
    async def scene(relay: Relay, near: Link, far: Link) -> None:
        await asyncio.sleep(5 * PING_S + 1)

    relay = play(scene)

    assert len(relay.said(NEAR, frames.Ping)) == 5
    assert len(relay.attached) == 2


def test_a_service_that_says_ping_is_answered() -> None:
    async def scene(relay: Relay, near: Link, far: Link) -> None:
        relay.seats[NEAR].tell(frames.Ping())
        await asyncio.sleep(1)
        assert relay.said(NEAR, frames.Pong) == [frames.Pong()]

    play(scene)


def test_a_dead_socket_is_noticed_by_its_silence() -> None:
    async def scene(relay: Relay, near: Link, far: Link) -> None:
        await asyncio.sleep(1)
        relay.silent = True
        await asyncio.sleep(2 * PING_S + 1)
        relay.silent = False
        await near.send(b"hello")
        assert await take(far, 1) == [b"hello"]

    relay = play(scene)

    assert [node for node, _ in relay.attached] == [NEAR, FAR, NEAR]


def test_a_service_that_is_away_is_asked_ever_more_seldom_until_it_is_back() -> None:
    async def scene(relay: Relay, near: Link, far: Link) -> None:
        relay.unreachable = True
        for seat in list(relay.seats.values()):
            seat.die()
        await asyncio.sleep(300)
        relay.unreachable = False
        await near.send(b"hello")
        assert await take(far, 1) == [b"hello"]

    play(scene)


def test_a_peer_that_is_not_registered_is_told_at_once_and_waited_for_later() -> None:
    async def main() -> None:
        relay = Relay()
        relay.registered.discard(FAR)
        with pytest.raises(errors.NotFound):
            await Link(relay.client(NEAR), FAR).__aenter__()

    virtual.run(main())

    async def scene(relay: Relay, near: Link, far: Link) -> None:
        relay.registered.discard(FAR)
        relay.seats[NEAR].die()
        await asyncio.sleep(30)
        relay.registered.add(FAR)
        await near.send(b"hello")
        assert await take(far, 1) == [b"hello"]

    play(scene)


def test_a_refusal_that_stays_is_raised_where_the_link_is_used() -> None:
    async def scene(relay: Relay, near: Link, far: Link) -> None:
        relay.refusal = errors.InvalidSignature("another key was pinned")
        waiting = asyncio.ensure_future(anext(near))
        relay.seats[NEAR].die()
        with pytest.raises(errors.InvalidSignature):
            await waiting
        with pytest.raises(errors.InvalidSignature):
            await near.send(b"hello")

    play(scene)


@pytest.mark.parametrize("status", [400, 401, 403, 404])
def test_a_front_end_at_work_is_waited_for(status: int) -> None:
    async def scene(relay: Relay, near: Link, far: Link) -> None:
        relay.page = httpx2.Response(status, text="<html>back soon</html>")
        for seat in list(relay.seats.values()):
            seat.die()
        await asyncio.sleep(120)
        relay.page = None
        await near.send(b"hello")
        assert await take(far, 1) == [b"hello"]

    play(scene)


def test_a_handshake_that_is_told_to_wait_is_made_after_that() -> None:
    async def scene(relay: Relay, near: Link, far: Link) -> None:
        relay.handshake = errors.Unavailable("slowly", retry_after_s=100)
        relay.seats[NEAR].die()
        await asyncio.sleep(400)
        relay.handshake = None

    relay = play(scene)
    gaps = [after - before for before, after in pairwise(relay.refused)]
    assert len(gaps) >= 2
    assert min(gaps) >= 100


@pytest.mark.parametrize("step_s", [-3600.0, 3600.0])
def test_a_clock_that_is_set_delays_nothing(step_s: float) -> None:
    async def scene(relay: Relay, near: Link, far: Link) -> None:
        await near.send(b"before")
        assert await take(far, 1) == [b"before"]
        relay.network = lambda node_id, frame: None
        await near.send(b"lost on the way")
        await asyncio.sleep(1)
        relay.step_s = step_s
        relay.network = lambda node_id, frame: 0.0
        before = virtual.now()
        assert await take(far, 1) == [b"lost on the way"]
        assert virtual.now() - before < 10

    play(scene)


@pytest.mark.parametrize("code", ["SESSION_EXPIRED", "IDLE", "INVALID_FRAME"])
def test_a_lost_seat_is_taken_again(code: str) -> None:
    async def scene(relay: Relay, near: Link, far: Link) -> None:
        relay.seats[NEAR].tell(frames.Error(code=code, message="out", retryable=False))
        await asyncio.sleep(2)
        await near.send(b"hello")
        assert await take(far, 1) == [b"hello"]

    relay = play(scene)

    assert [node for node, _ in relay.attached].count(NEAR) == 2


def test_a_frame_the_service_calls_too_large_ends_the_link() -> None:
    async def scene(relay: Relay, near: Link, far: Link) -> None:
        error = frames.Error(code="PAYLOAD_TOO_LARGE", message="8 KiB", retryable=False, seq=1)
        relay.seats[NEAR].tell(error)
        with pytest.raises(errors.PayloadTooLarge, match="8 KiB"):
            await anext(near)

    play(scene)


@pytest.mark.parametrize("code", ["RATE_LIMITED", "UNAVAILABLE"])
def test_a_service_that_is_busy_gets_a_rest_and_then_everything_again(code: str) -> None:
    async def scene(relay: Relay, near: Link, far: Link) -> None:
        await asyncio.sleep(1)
        relay.network = lambda node_id, frame: None
        for payload in numbered(5):
            await near.send(payload)
        await asyncio.sleep(0.01)
        sent = len(relay.said(NEAR, frames.Frame))
        relay.seats[NEAR].tell(frames.Error(code=code, message="later", retryable=True))
        await asyncio.sleep(0.4)
        relay.network = lambda node_id, frame: 0.0
        assert len(relay.said(NEAR, frames.Frame)) == sent == 5
        assert await take(far, 5) == numbered(5)
        assert virtual.now() - virtual.START < 2.5

    relay = play(scene)

    assert len(relay.attached) == 2


def test_frames_of_strangers_and_of_other_programs_are_passed_over() -> None:
    async def scene(relay: Relay, near: Link, far: Link) -> None:
        def frame(raw: bytes, sender: str | None) -> frames.Frame:
            return frames.Frame(
                session_id="session-0", seq=5, payload_b64=frames.payload(raw), from_=sender
            )

        seat = relay.seats[FAR]
        seat.tell(frame(b"m1" + bytes(11) + b"forged", "node-stranger"))
        seat.tell(frame(b"not a link", NEAR))
        seat.tell(frames.Frame(session_id="session-0", seq=5, payload_b64="*", from_=NEAR))
        seat.tell(frames.Messages(messages=(), server_time=1, after=0, cursor=0))
        seat.tell(frames.Ack(session_id="session-0", seq=12345, from_=NEAR))
        await asyncio.sleep(1)
        await near.send(b"hello")
        assert await take(far, 1) == [b"hello"]

    play(scene)


def test_a_link_that_cannot_be_opened_leaves_nothing_behind() -> None:
    async def main() -> None:
        relay = Relay()
        relay.unreachable = True
        near = Link(relay.client(NEAR), FAR)
        with suppress(Unreachable):
            await near.__aenter__()
        await near.close()
        assert len(asyncio.all_tasks()) == 1

    virtual.run(main())
