"""The steps in a circle: nodes register, find each other, exchange messages and frames."""

from __future__ import annotations

import asyncio
import secrets
import time
from collections.abc import Awaitable, Callable
from typing import Any, TypeVar

from muster.cli import hints
from muster.cli.doctor.visit import BROKEN, SPLIT, TTL_S, NotTried, Step, Visit
from muster.cli.output import Failure
from muster.errors import InvalidSignature, NotAllowed
from muster.felund import crypto, frames, records, signing
from muster.felund.circle import signal_session
from muster.felund.client import Client
from muster.felund.sockets import Socket

PROTOCOL = 1
LOOSE_S = 2.0
"""Clocks that differ by less are said to agree; the service tells whole seconds."""

_F = TypeVar("_F", bound=frames.FromService)


async def _reach(visit: Visit) -> str:
    health = await visit.near.health()
    visit.version = health.version
    return f"muster {health.version}"


async def _info(visit: Visit) -> str:
    info = await visit.near.info()
    if info.protocol != PROTOCOL:
        raise Failure(
            f"the service speaks protocol {info.protocol}, this command {PROTOCOL}",
            "update whichever is older",
        )
    visit.capsule_root, visit.open = info.capsule_root, info.open
    policy = "refused" if info.unsigned == "refuse" else "allowed"
    return f"protocol {info.protocol}, unsigned calls {policy}"


async def _clock(visit: Visit) -> str:
    before = time.time()
    health = await visit.near.health()
    behind_s = health.time + 0.5 - (before + time.time()) / 2
    apart = abs(behind_s)
    if apart <= LOOSE_S:
        return f"less than {LOOSE_S:g} s apart"
    which = "behind" if behind_s > 0 else "ahead of"
    said = f"this machine is {apart:.0f} s {which} the service"
    if apart > signing.WINDOW_S:
        raise Failure(said, f"signed calls may be {signing.WINDOW_S} s off; set the wrong clock")
    return said


async def _register(visit: Visit) -> str:
    try:
        seen = await visit.near.register([_endpoint(4001)], ttl_s=TTL_S)
    except NotAllowed as refusal:
        if visit.address is not None and visit.address.code and not visit.own:
            raise NotTried("closed to existing clients; --circle NAME tries one") from None
        raise _closed(visit, refusal) from None
    await visit.far.register([_endpoint(4002)], ttl_s=TTL_S)
    if seen.observed_endpoint is None:
        return "two nodes"
    return f"two nodes, seen at {seen.observed_endpoint.host}"


async def _find(visit: Visit) -> str:
    for client, other in ((visit.near, visit.far), (visit.far, visit.near)):
        found = {peer.node_id: peer for peer in (await client.peers()).peers}
        if other.node_id not in found or not (visit.own or len(found) == 1):
            raise Failure(
                f"{_name(client, visit)} does not see exactly the other node",
                SPLIT,
            )
        if not found[other.node_id].endpoints:
            raise Failure("the other node's endpoint was lost", BROKEN)
    return "each sees the other"


async def _outsider(visit: Visit) -> str:
    """Knock with the circle's hint, but not its secret."""
    knocks: dict[str, Callable[[], Awaitable[object]]] = {
        "register": visit.stranger.register,
        "list the nodes": visit.stranger.peers,
        "read the mailbox": visit.stranger.poll_messages,
    }
    for what, knock in knocks.items():
        try:
            await knock()
        except InvalidSignature:
            continue
        raise Failure(f"a stranger without the secret may {what}", "do not use this service")
    return "a stranger is refused"


async def _signal(visit: Visit) -> str:
    near, far = visit.near, visit.far
    session = signal_session(near.node_id, far.node_id)
    await near.leave_signal(far.node_id, "offer", "an offer")
    offer = _signal_for(await far.poll_signals(session_id=session), "offer", near)
    await far.leave_signal(near.node_id, "answer", f"an answer to {offer.payload}")
    answer = _signal_for(await near.poll_signals(session_id=session), "answer", far)
    if answer.payload != "an answer to an offer":
        raise Failure("a signal was changed on the way", BROKEN)
    return "offer and answer"


async def _subscribe(visit: Visit) -> str:
    opened = await visit.far.open_subscription()
    visit.subscription = await visit.far.attach(opened)
    return f"WebSocket at {opened.relay_url.partition('?')[0]}"


async def _push(visit: Visit) -> str:
    if visit.subscription is None:
        raise RuntimeError("there is no subscription")
    text = "pushed " + secrets.token_hex(4)
    envelope = _envelope(visit.near, text)
    # The push may overtake the answer to the call that causes it.
    pushed = asyncio.ensure_future(_pushed(visit, visit.subscription, text))
    try:
        sent = time.perf_counter()
        await visit.near.leave_messages([envelope])
        visit.texts.append(text)
        arrived = await pushed
    finally:
        pushed.cancel()
    return f"encrypted, there after {(arrived - sent) * 1000:.1f} ms"


async def _pushed(visit: Visit, socket: Socket, text: str) -> float:
    while True:
        told = await _next(socket, frames.Messages)
        if any(note.text == text for note in visit.far.read(told.messages)):
            return time.perf_counter()


async def _collect(visit: Visit) -> str:
    text = "left " + secrets.token_hex(4)
    await visit.far.leave_messages([_envelope(visit.far, text)])
    visit.texts.append(text)
    found = [note.text async for note in visit.near.receive()]
    if visit.own:
        found = [text for text in found if text in visit.texts]
    if found != visit.texts:
        raise Failure(
            f"{len(visit.texts)} messages were left and {len(found)} collected",
            "the service is broken, or several services share this address",
        )
    return f"{len(found)} messages, in order"


async def _relay(visit: Visit) -> str:
    near, far = visit.near, visit.far
    mine = await near.open_relay(far.node_id)
    theirs = await far.open_relay(near.node_id)
    if mine.session_id != theirs.session_id:
        raise Failure("the two nodes were given different sessions", BROKEN)
    visit.session_id = mine.session_id
    seats = [await near.attach(mine)]
    try:
        seats.append(await far.attach(theirs))
        for seat in seats:
            await _next(seat, frames.Attached)
    except BaseException:
        for seat in seats:
            await seat.close()
        raise
    visit.seats = (seats[0], seats[1])
    return "both seats taken"


async def _frames(visit: Visit) -> str:
    if visit.seats is None:
        raise RuntimeError("there is no relay session")
    near, far = visit.seats
    times = [
        await _pass(visit, origin, target, seq=seq, payload=secrets.token_bytes(size))
        for seq, size in enumerate((64, records.MAX_FRAME_BYTES))
        for origin, target in ((near, far), (far, near))
    ]
    small = min(times) * 1000
    return f"{len(times)} passed and acknowledged, one way {small:.1f} ms"


async def _pass(visit: Visit, origin: Socket, target: Socket, *, seq: int, payload: bytes) -> float:
    """Pass one frame, have it acknowledged by service and peer; return its seconds one way."""
    sent = time.perf_counter()
    frame = frames.Frame(session_id=visit.session_id, seq=seq, payload_b64=frames.payload(payload))
    await origin.send(frame)
    came = await _next(target, frames.Frame)
    took = time.perf_counter() - sent
    if (came.seq, came.payload_b64) != (seq, frame.payload_b64):
        raise Failure("a frame was changed on the way", BROKEN)
    await target.send(frames.Ack(session_id=visit.session_id, seq=seq))
    acks = [await _next(origin, frames.Ack) for _ in range(2)]
    if {ack.from_ is None for ack in acks} != {True, False} or any(ack.seq != seq for ack in acks):
        raise Failure("a frame was not acknowledged by service and peer, once each", BROKEN)
    return took


async def _leave(visit: Visit) -> str:
    for client in (visit.near, visit.far):
        if not (await client.unregister()).removed:
            raise Failure(
                f"{_name(client, visit)} was not registered any more",
                SPLIT,
            )
    left = [peer for peer in (await visit.near.peers()).peers if _is_ours(peer, visit)]
    if left:
        raise Failure("a node that left is still listed", BROKEN)
    return "nobody is left"


STEPS = (
    Step("reach", "the service answers", _reach),
    Step("info", "it says what it is", _info, ("reach",)),
    Step("clock", "the clocks agree", _clock, ("reach",)),
    Step("register", "two nodes register", _register, ("reach",)),
    Step("find", "they find each other", _find, ("register",)),
    Step("outsider", "strangers are kept out", _outsider, ("register",)),
    Step("signal", "they exchange signals", _signal, ("register",)),
    Step("subscribe", "one subscribes", _subscribe, ("register",), opens_websocket=True),
    Step("push", "a message is pushed", _push, ("subscribe",)),
    Step("collect", "messages are collected", _collect, ("register",)),
    Step("relay", "both attach to the relay", _relay, ("register",)),
    Step("frames", "frames pass both ways", _frames, ("relay",)),
    Step("unregister", "they leave", _leave, ("register",)),
)


async def _next(socket: Socket, wanted: type[_F]) -> _F:
    """Wait for a frame of a kind; pass over others, and raise what the service refuses."""
    while True:
        frame = await socket.receive()
        if isinstance(frame, wanted):
            return frame
        if isinstance(frame, frames.Error):
            raise Failure(f"the relay refused: {frame.message}", f"code {frame.code}")
        if isinstance(frame, frames.Ping):
            await socket.send(frames.Pong())


def _is_ours(peer: records.Peer, visit: Visit) -> bool:
    return not visit.own or peer.node_id in (visit.near.node_id, visit.far.node_id)


def _closed(visit: Visit, refusal: NotAllowed) -> Failure:
    """Say how the doctor gets into a closed service."""
    if visit.own:
        return Failure(f"refused: {refusal.message}", hints.let_in(visit.circle.circle_hint))
    return Failure(
        "this service is closed to a circle that was made up for the examination",
        "give the whole address, with its access code (muster access new); or --circle NAME takes "
        "one of yours that 'muster access allow' has let in",
    )


def _signal_for(found: records.Signals, kind: str, sender: Client) -> records.Signal:
    for signal in found.signals:
        if signal.type == kind and signal.from_node == sender.node_id:
            return signal
    raise Failure(
        f"the {kind} did not arrive",
        SPLIT,
    )


def _envelope(author: Client, text: str) -> dict[str, Any]:
    """Encrypt a text for the circle."""
    note = crypto.new_note(
        author.circle, author.node_id, text, now=author.now(), display_name="doctor"
    )
    return crypto.encrypt(author.circle, note)


def _endpoint(port: int) -> records.Endpoint:
    """Return an endpoint that leads nowhere (RFC 5737)."""
    return records.Endpoint(transport="tcp", host="192.0.2.1", port=port)


def _name(client: Client, visit: Visit) -> str:
    return "the first node" if client is visit.near else "the second node"
