"""Sockets: one WebSocket endpoint with two uses, told apart when it opens.

With a relay token a socket takes a seat in a session; otherwise it subscribes to
a circle. Everything here returns what is to be sent to whom; the host sends.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import NamedTuple

import msgspec

from chalicelib import access, tables, tokens
from chalicelib.call import Call, Close, Connection, Effect, Gone, Send
from chalicelib.circle import mailbox, relay
from chalicelib.network import counts_as
from chalicelib.service import Service
from chalicelib.store import Unavailable
from muster import structs
from muster.errors import InvalidToken, RateLimited, Refused
from muster.felund import frames, records

PATH = "/v1/relay/ws"
PATHS = (PATH, "/v2/socket")
"""Where sockets are opened; on AWS they have an address of their own, without a path."""

VERSION2 = "muster.v2"
"""The subprotocol of version 2; a program may show its Authorization in its place."""

NODE_SOCKETS = 8
"""So many subscriptions one node may have in a circle; the oldest make way."""

_SEQ = re.compile(r'"seq":\s?(\d{1,15})')


class Opened(NamedTuple):
    """An accepted socket: the subprotocol to name, and what to send others at once."""

    subprotocol: str | None
    effects: tuple[Effect, ...] = ()


class Wanted(structs.Record, frozen=True, kw_only=True):
    """What a socket without a token asks for, in the query."""

    circle_hint: records.CircleHint
    node_id: records.NodeId


def open_socket(service: Service, call: Call, connection: Connection) -> Opened:
    """Admit a socket, or refuse it; `greet` follows once it can be sent to."""
    closed = access.closed(service, call)
    service.limits.spend_address(call.source_ip, clock=call.clock, shared=not closed)
    if _is_version2(call):
        from chalicelib.circle import live  # a cold start does without, here and below

        chosen = VERSION2 if VERSION2 in _offered(call) else None
        return Opened(chosen, live.open_socket(service, call, connection))
    caller = counts_as(call.source_ip) if service.spread else ""
    text, subprotocol = _token(call)
    if not text:
        return Opened(None, _subscribe_unsigned(service, call, connection, caller))
    if closed:
        access.let_in(service, call, tokens.claimed(text).circle_hint)
    token = tokens.read(service.signer(now=call.now), text, now=call.now)
    for name in ("circle_hint", "node_id"):
        if call.query.get(name, getattr(token, name)) != getattr(token, name):
            raise InvalidToken(f"the token is for another {name}")
    if token.use == "assist":
        raise InvalidToken("the token is for assist, not for a socket")
    if token.use == "relay":
        effects = relay.attach(service, token, connection, now=call.now, caller=caller)
        return Opened(subprotocol, effects)
    socket = _socket(service, connection, token.circle_hint, token.node_id, now=call.now)
    socket = msgspec.structs.replace(socket, token_id=token.session_id, caller=caller)
    return Opened(subprotocol, _join(service, socket, now=call.now))


def greet(service: Service, connection: Connection, *, now: int) -> tuple[Effect, ...]:
    """Return what a socket is told first: its backlog, or who sits opposite.

    One that was forgotten while it opened is told to open again.
    """
    socket = tables.socket(service.stores, connection.id, now=now)
    if socket is None:
        return (Close(connection, 1012, "open it again"),)
    if socket.credential:
        from chalicelib.circle import live

        return live.greet(service, socket, now=now)
    if socket.session_id:
        return relay.greet(service, socket, now=now)
    return mailbox.backlog(service, socket, now=now)


def receive(service: Service, connection: Connection, text: str, *, now: int) -> tuple[Effect, ...]:
    """Take a text frame from a socket and return what follows from it."""
    try:
        service.limits.spend_frame(_counted_as(service, connection, now=now), clock=now)
    except RateLimited as refusal:
        # Neither parsed nor looked up: whoever floods is to cost as little as can be.
        named = _SEQ.search(text[:512])
        return relay.send_error(connection, refusal, int(named[1]) if named else None)
    socket = service.live.recall(connection.id, now=now)
    if socket is not None:
        from chalicelib.circle import live

        return live.receive(service, socket, text, now=now)
    try:
        frame = frames.decode_from_node(text)
        if isinstance(frame, frames.Frame | frames.Ack):
            return relay.passed(service, connection, frame, now=now)
        relay.hear(service, connection, now=now)
        return (Send(connection, _PONG),) if isinstance(frame, frames.Ping) else ()
    except Refused as refusal:
        return _refuse(service, connection, refusal, now=now)


def closed(service: Service, connection: Connection, *, now: int) -> tuple[Effect, ...]:
    """Forget a socket that is gone, and tell the seat opposite."""
    socket = tables.socket(service.stores, connection.id, now=now)
    if socket is None:
        return ()
    if socket.credential:
        from chalicelib.circle import live

        return live.closed(service, socket, now=now)
    held = tables.drop_socket(service.stores, socket, now=now)
    return relay.left(service, socket, now=now) if held and socket.session_id else ()


def deliver(service: Service, effects: Iterable[Effect], *, now: int) -> None:
    """Perform effects; a connection that is gone is forgotten, and no other."""
    waiting = list(effects)
    while waiting:
        effect = waiting.pop(0)
        if isinstance(effect, Close):
            service.sender.close(effect.connection, effect.code, effect.reason)
            continue
        try:
            service.sender.send(effect.connection, effect.text)
        except Gone:
            waiting.extend(effect.lost)
            waiting.extend(_forget(service, effect.connection, now=now))
        else:
            waiting.extend(effect.then)


def _forget(service: Service, connection: Connection, *, now: int) -> tuple[Effect, ...]:
    """Forget a connection that is gone; if the store is away, the next push will find it again."""
    try:
        return closed(service, connection, now=now)
    except Unavailable:
        return ()


def _is_version2(call: Call) -> bool:
    scheme = call.headers.get("authorization", "").partition(" ")[0]
    return scheme.lower() == "muster2" or VERSION2 in _offered(call)


def _offered(call: Call) -> list[str]:
    return [part.strip() for part in call.headers.get("sec-websocket-protocol", "").split(",")]


def _token(call: Call) -> tuple[str, str | None]:
    """Find the token: a browser cannot set headers, so it may stand in three places."""
    scheme, _, text = call.headers.get("authorization", "").partition(" ")
    if scheme.lower() == "bearer" and text:
        return text.strip(), None
    offered = _offered(call)
    if frames.SUBPROTOCOL in offered:
        rest = [part for part in offered if part.startswith(tokens.PREFIX + ".")]
        return (rest[0] if rest else call.query.get("token", "")), frames.SUBPROTOCOL
    return call.query.get("token", ""), None


def _counted_as(service: Service, connection: Connection, *, now: int) -> str:
    """Return whose frames these are: the socket's, or of all sockets that its caller opened.

    Where the frames of one socket come to many processes, each reads once what it is.
    """
    if not service.spread:
        return connection.id
    caller = service.callers.recall(connection.id, now=now)
    if caller is None:
        socket = tables.socket(service.stores, connection.id, now=now)
        caller = (socket and socket.caller) or connection.id
        if socket and socket.credential:
            service.live.keep(connection.id, socket, until=socket.until)
        service.callers.keep(connection.id, caller, until=now + service.settings.socket_s)
    return caller


def _subscribe_unsigned(
    service: Service, call: Call, connection: Connection, caller: str
) -> tuple[Effect, ...]:
    if service.settings.unsigned == "refuse":
        raise InvalidToken(
            "this service opens sockets only with a token: POST /v1/relay/subscription "
            "or /v1/relay/session, signed, gives one"
        )
    wanted = structs.from_query(call.query, Wanted)
    access.let_in(service, call, wanted.circle_hint)
    socket = _socket(service, connection, wanted.circle_hint, wanted.node_id, now=call.now)
    socket = msgspec.structs.replace(socket, legacy=True, caller=caller)
    return _join(service, socket, now=call.now)


def _socket(
    service: Service, connection: Connection, circle_hint: str, node_id: str, *, now: int
) -> tables.Socket:
    return tables.Socket(
        id=connection.id,
        endpoint=connection.endpoint,
        circle_hint=circle_hint,
        node_id=node_id,
        until=now + service.settings.socket_s,
    )


def _join(service: Service, socket: tables.Socket, *, now: int) -> tuple[Effect, ...]:
    """Subscribe a socket; a node's oldest make way, and members' are never kept out.

    So does the one that was opened with the same token: a token has one socket at a time.
    """
    room = tables.room(service.stores, socket.circle_hint, now=now)
    if socket.legacy and sum(other.legacy for other in room) >= service.settings.unsigned_sockets:
        raise RateLimited("this circle has as many sockets without a token as it may have")
    again = [other for other in room if socket.token_id and other.token_id == socket.token_id]
    kind = (socket.node_id, socket.legacy)
    same = [o for o in room if (o.node_id, o.legacy) == kind and o not in again]
    oldest = sorted(same, key=lambda other: other.until)[: max(0, len(same) - NODE_SOCKETS + 1)]
    for other in again + oldest:
        tables.drop_socket(service.stores, other, now=now)
    tables.save_socket(service.stores, socket, now=now)
    return tuple(
        Close(other.connection, 1000, "the node has opened a newer socket")
        for other in again + oldest
    )


def _refuse(
    service: Service, connection: Connection, refusal: Refused, *, now: int
) -> tuple[Effect, ...]:
    """Answer a frame with a refusal; sockets of older clients are not answered."""
    socket = tables.socket(service.stores, connection.id, now=now)
    if socket is None:
        return (Close(connection, 1008, "unknown socket"),)
    if socket.legacy:
        return ()
    return relay.send_error(connection, refusal)


_PONG = frames.encode(frames.Pong())

__all__ = ["PATH", "PATHS", "Opened", "closed", "deliver", "greet", "open_socket", "receive"]
