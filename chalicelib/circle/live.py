"""Live: the socket of version 2. A node syncs on it, is told of its circle, and passes frames.

A frame that syncs is the same call as `POST /v2/sync`, with a proof of its own; node and circle
are the handshake's, whatever a frame says. A node has one socket at a service: a newer one
takes over. Everything here returns what is to be sent to whom; the host sends.
"""

from __future__ import annotations

from typing import Any

import msgspec

from chalicelib import access, auth, proved, tables
from chalicelib.call import Call, Close, Connection, Done, Effect, Reply, Send
from chalicelib.circle import events, sync
from chalicelib.network import counts_as
from chalicelib.service import Service
from chalicelib.store import Unavailable
from muster import base64url, calls, errors, shapes, strict, structs

PATH = "/v2/socket"
"""What the frames of a socket are calls to."""

PAYLOAD_BYTES = 16 * 1024
"""How much one frame passes to another node."""

_decoder = msgspec.json.Decoder(shapes.FromNode)


def open_socket(service: Service, call: Call, connection: Connection) -> tuple[Effect, ...]:
    """Admit a node's socket; the one that it had is told and closed."""
    _authorize(call)
    if access.closed(service, call):
        proved.knock(service, call)
    proved.opening.meet(service, call)
    proved.opening.check(service, call, None)
    proved.opening.admit(service, call, None, None)
    caller = call.caller
    if caller is None:
        raise errors.InvalidSignature("a socket is opened by who proves it")
    auth.know(service, call, caller.circle, caller.circle_key)
    if not tables.spend_later(
        service.stores,
        caller.circle,
        f"{caller.node_id} open",
        at_ms=proved.at_ms(call),
        now=call.now,
    ):
        raise errors.Outdated("this handshake was used; sign another")
    room = tables.room(service.stores, caller.circle, now=call.now)
    before = [socket for socket in room if socket.node_id == caller.node_id]
    if len(room) - len(before) >= service.settings.circle_members:
        raise errors.CircleFull(f"a circle may have {service.settings.circle_members} sockets")
    socket = tables.Socket(
        id=connection.id,
        endpoint=connection.endpoint,
        circle_hint=caller.circle,
        node_id=caller.node_id,
        until=call.now + service.settings.socket_s,
        caller=counts_as(call.source_ip) if service.spread else "",
        credential=call.headers["authorization"].partition(" ")[2].partition(".")[0],
        address=call.source_ip,
    )
    for other in before:
        tables.drop_socket(service.stores, other, now=call.now)
        service.live.forget(other.id)
    tables.save_socket(service.stores, socket, now=call.now)
    service.live.keep(socket.id, socket, until=socket.until)
    return tuple(effect for other in before for effect in _replaced(other.connection))


def greet(service: Service, socket: tables.Socket, *, now: int) -> tuple[Effect, ...]:
    """Tell a socket whose place another has, which its node opened in the same moment."""
    other = tables.socket_of(service.stores, socket.circle_hint, socket.node_id, now=now)
    if other is not None and other.id != socket.id:
        return _replaced(socket.connection)
    return ()


def receive(service: Service, socket: tables.Socket, text: str, *, now: int) -> tuple[Effect, ...]:
    """Take a text frame from a socket and return what follows from it."""
    try:
        frame = _decoder.decode(text)
    except (msgspec.MsgspecError, RecursionError):
        refusal = errors.InvalidFrame("this is no SYNC and no FRAME of version 2")
        return (_error(socket, refusal, 0),)
    if isinstance(frame, shapes.SyncFrame):
        return _sync(service, socket, frame, now=now)
    return _pass(service, socket, frame, now=now)


def closed(service: Service, socket: tables.Socket, *, now: int) -> tuple[Effect, ...]:
    """Forget a socket that is gone; the presence that it kept up ends with it."""
    service.live.forget(socket.id)
    held = tables.drop_socket(service.stores, socket, now=now)
    left = tables.displace(
        service.stores, socket.circle_hint, socket.node_id, socket_id=socket.id, now=now
    )
    if not (held and left):
        return ()
    return events.tell(
        service, socket.circle_hint, shapes.Event(left=(socket.node_id,)), socket.node_id, now=now
    )


# --- frames -----------------------------------------------------------------------------


def _sync(
    service: Service, socket: tables.Socket, frame: shapes.SyncFrame, *, now: int
) -> tuple[Effect, ...]:
    body = frame.body.encode(errors="surrogatepass")
    call = Call(
        "SYNC",
        PATH,
        headers={"authorization": f"{calls.SCHEME} {socket.credential}.{frame.proof}"},
        body=body,
        source_ip=socket.address,
        clock=float(now),
        socket=socket.id,
    )
    effects: tuple[Effect, ...] = ()
    try:
        answer, effects, quiet = _answered(service, call)
        reply = Reply(200, msgspec.json.encode(answer))
    except errors.Refused as refused:
        reply, quiet = Reply(refused.status, msgspec.json.encode(refused.to_json())), False
    except Unavailable:
        late = errors.Unavailable("the store did not answer in time; try again", retry_after_s=1)
        reply, quiet = Reply(late.status, msgspec.json.encode(late.to_json())), False
    if quiet:
        return effects
    if call.stamp is not None:
        call.stamp(reply)
    told = shapes.SyncedFrame(
        n=frame.n,
        status=reply.status,
        answer=reply.headers.get(calls.ANSWER, ""),
        body=reply.body.decode(),
    )
    return (*effects, Send(socket.connection, msgspec.json.encode(told).decode()))


def _answered(service: Service, call: Call) -> tuple[shapes.Synced, tuple[Effect, ...], bool]:
    """Do what a frame asks; say as well whether its answer need not be sent."""
    shared = not access.closed(service, call)
    service.limits.spend_address(call.source_ip, clock=call.clock, shared=shared)
    service.limits.spend_bytes(call.source_ip, len(call.body), clock=call.clock, shared=shared)
    proved.syncing.meet(service, call)
    proved.syncing.check(service, call, None)
    value = strict.loads(call.body)
    if not isinstance(value, dict):
        raise errors.InvalidRequest("the body is not a JSON object")
    ask = structs.from_json(value, shapes.Sync)
    proved.syncing.admit(service, call, ask, None)
    done: Done = sync.sync(service, call, ask)
    answer: shapes.Synced = done.answer
    return _fitting(answer), done.effects, ask.quiet and not answer.refused


def _fitting(answer: shapes.Synced) -> shapes.Synced:
    """Leave out what no frame can hold: it is read by HTTP."""
    for part, name in (("entries", "messages"), ("signals", "signals"), ("peers", "peers")):
        if len(msgspec.json.encode(answer)) <= shapes.ANSWER_BYTES:
            break
        large = shapes.PartRefused(
            code=errors.PayloadTooLarge.code, message="too large for a socket; POST /v2/sync has it"
        )
        without: dict[str, Any] = {part: msgspec.UNSET, "refused": {**answer.refused, name: large}}
        answer = msgspec.structs.replace(answer, **without)
    return answer


def _pass(
    service: Service, socket: tables.Socket, frame: shapes.NodeFrame, *, now: int
) -> tuple[Effect, ...]:
    try:
        size = len(base64url.decode(frame.payload))
    except ValueError as error:
        return (_error(socket, errors.InvalidFrame(f"payload: {error}"), frame.n),)
    if size > PAYLOAD_BYTES:
        refusal = errors.PayloadTooLarge(f"a frame passes at most {PAYLOAD_BYTES} bytes")
        return (_error(socket, refusal, frame.n),)
    away = _error(socket, errors.PeerNotAttached("that node has no socket here now"), frame.n)
    to = tables.socket_of(service.stores, socket.circle_hint, frame.to, now=now)
    if to is None or to.id == socket.id:
        return (away,)
    passed = shapes.PassedFrame(from_=socket.node_id, payload=frame.payload)
    taken = Send(socket.connection, msgspec.json.encode(shapes.Taken(n=frame.n)).decode())
    text = msgspec.json.encode(passed).decode()
    return (Send(to.connection, text, then=(taken,), lost=(away,)),)


def _error(socket: tables.Socket, refusal: errors.Refused, n: int) -> Send:
    told = shapes.ErrorFrame(
        n=n, code=refusal.code, message=str(refusal), retryable=refusal.retryable
    )
    return Send(socket.connection, msgspec.json.encode(told).decode())


def _replaced(connection: Connection) -> tuple[Effect, ...]:
    text = msgspec.json.encode(shapes.Replaced()).decode()
    return Send(connection, text), Close(connection, 1000, "the node has opened a newer socket")


def _authorize(call: Call) -> None:
    """Take the header's text from the subprotocols: a browser can set no header."""
    if "authorization" in call.headers:
        return
    offered = call.headers.get("sec-websocket-protocol", "").split(",")
    parts = [part.strip() for part in offered]
    text = next((part for part in parts if "." in part and part != shapes.SUBPROTOCOL), "")
    call.headers = {**call.headers, "authorization": f"{calls.SCHEME} {text}"}
