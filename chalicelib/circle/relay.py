"""Relay: two seats in a short session, and opaque frames between them.

The session lives in the store, so that the two sockets may be held by different
machines; tokens are signed and need no store.
"""

from __future__ import annotations

import hashlib
from typing import NamedTuple

from chalicelib import tables, tokens
from chalicelib.call import Call, Close, Connection, Effect, Send
from chalicelib.service import Service
from muster.errors import (
    Idle,
    InvalidFrame,
    InvalidRequest,
    NotFound,
    PeerNotAttached,
    Refused,
    SessionExpired,
)
from muster.felund import frames, records

TOUCH_S = 10
"""How often a seat that is in use is written down as such, in seconds."""

SWEEP_PAGE = 100

_NAME_BYTES = 12
"""How long the random name of a subscription's token is: no two are the same."""


def open_session(service: Service, call: Call, ask: records.OpenSession) -> records.SessionOpened:
    """Open the session of two nodes of a circle, or renew it; the same pair gets the same one."""
    if ask.node_id == ask.target_node_id:
        raise InvalidRequest("target_node_id: a node needs no relay to itself")
    target = tables.presence(service.stores, ask.circle_hint, ask.target_node_id, now=call.now)
    if target is None:
        raise NotFound("the target node is not registered in this circle now")
    expires_at = call.now + _ttl(service, ask.ttl_s)
    session_id = _session_id(service, ask, now=call.now)
    tables.save_session(service.stores, session_id, until=expires_at)
    token = tokens.Token(
        use="relay",
        circle_hint=ask.circle_hint,
        node_id=ask.node_id,
        expires_at=expires_at,
        session_id=session_id,
    )
    return records.SessionOpened(
        relay_url=_url(service, call),
        session_id=session_id,
        token=tokens.issue(service.signer(now=call.now), token),
        expires_at=expires_at,
        server_time=call.now,
    )


def open_subscription(
    service: Service, call: Call, ask: records.OpenSubscription
) -> records.SubscriptionOpened:
    """Give a member a token that opens a subscription to its circle."""
    expires_at = call.now + _ttl(service, ask.ttl_s)
    token = tokens.Token(
        use="subscribe",
        circle_hint=ask.circle_hint,
        node_id=ask.node_id,
        expires_at=expires_at,
        session_id=service.entropy(_NAME_BYTES).hex(),
    )
    return records.SubscriptionOpened(
        relay_url=_url(service, call),
        token=tokens.issue(service.signer(now=call.now), token),
        expires_at=expires_at,
        server_time=call.now,
    )


def attach(
    service: Service, token: tokens.Token, connection: Connection, *, now: int, caller: str = ""
) -> tuple[Effect, ...]:
    """Take the token's seat; a node that comes again replaces its old socket."""
    live, seats = tables.session(service.stores, token.session_id, now=now)
    if not live:
        raise SessionExpired("the relay session has expired; open it again")
    replaced = [seat for seat in seats if seat.node_id == token.node_id]
    for seat in replaced:
        tables.drop_socket(service.stores, seat, now=now)
    socket = tables.Socket(
        id=connection.id,
        endpoint=connection.endpoint,
        circle_hint=token.circle_hint,
        node_id=token.node_id,
        until=now + service.settings.socket_s,
        session_id=token.session_id,
        caller=caller,
    )
    tables.save_socket(service.stores, socket, now=now)
    service.heard.keep(connection.id, True, until=now + TOUCH_S)
    return tuple(Close(seat.connection, 1000, "the node attached again") for seat in replaced)


def greet(service: Service, socket: tables.Socket, *, now: int) -> tuple[Effect, ...]:
    """Tell both seats that the other is taken, once both are."""
    service.wake("sweep")
    _, seats = tables.session(service.stores, socket.session_id, now=now)
    if all(seat.id != socket.id for seat in seats):  # another was attached in the same moment
        return (Close(socket.connection, 1000, "the node attached again"),)
    return tuple(
        effect
        for other in seats
        if other.node_id != socket.node_id
        for effect in (
            Send(socket.connection, _attached(other)),
            Send(other.connection, _attached(socket)),
        )
    )


def passed(
    service: Service, connection: Connection, frame: frames.Frame | frames.Ack, *, now: int
) -> tuple[Effect, ...]:
    """Pass a frame to the other seat, and acknowledge it to this one when it was taken."""
    live, seats = tables.session(service.stores, frame.session_id, now=now)
    mine = next((seat for seat in seats if seat.id == connection.id), None)
    if mine is None:
        raise InvalidFrame("this socket has no seat in that session")
    if not live:
        return _ended(mine, SessionExpired("the relay session has expired; open it again"))
    _touch(service, mine, now=now)
    other = next((seat for seat in seats if seat.node_id != mine.node_id), None)
    lost = _error(
        PeerNotAttached("the other seat is empty; send again when it is taken"), frame.seq
    )
    if other is None:
        return (Send(connection, lost),)
    if isinstance(frame, frames.Ack):
        onward = frames.Ack(session_id=frame.session_id, seq=frame.seq, from_=mine.node_id)
        return (Send(other.connection, frames.encode(onward)),)
    onward_frame = frames.Frame(
        session_id=frame.session_id,
        seq=frame.seq,
        payload_b64=frame.payload_b64,
        from_=mine.node_id,
    )
    ack = frames.encode(frames.Ack(session_id=frame.session_id, seq=frame.seq))
    return (
        Send(
            other.connection,
            frames.encode(onward_frame),
            then=(Send(connection, ack),),
            lost=(Send(connection, lost),),
        ),
    )


def hear(service: Service, connection: Connection, *, now: int) -> None:
    """Note that a seat lives, whatever it said."""
    if service.heard.recall(connection.id, now=now):
        return
    socket = tables.socket(service.stores, connection.id, now=now)
    if socket is not None and socket.session_id:
        _touch(service, socket, now=now)
    elif socket is not None:
        service.heard.keep(socket.id, True, until=now + TOUCH_S)


def left(service: Service, socket: tables.Socket, *, now: int) -> tuple[Effect, ...]:
    """Tell the other seat that this one is empty."""
    _, seats = tables.session(service.stores, socket.session_id, now=now)
    gone = frames.encode(frames.Gone(session_id=socket.session_id, node_id=socket.node_id))
    return tuple(Send(other.connection, gone) for other in seats if other.node_id != socket.node_id)


class Swept(NamedTuple):
    """What a slice of sweeping came to: what to send, where the next begins, who had a seat."""

    effects: tuple[Effect, ...]
    after: str
    seats: int


def sweep(service: Service, *, now: int, after: str = "") -> Swept:
    """End the seats that are idle or whose session has expired, a slice of them at a time.

    Run it once in a while, each time from where the last one stopped; an empty
    `after` says that all have been looked at.
    """
    page = tables.occupied(service.stores, after, limit=SWEEP_PAGE, now=now)
    effects = [effect for seated in page for effect in _sweep_one(service, seated, now=now)]
    after = page[-1].socket.id if len(page) == SWEEP_PAGE else ""
    return Swept(tuple(effects), after, len(page))


def seated(service: Service, *, now: int) -> bool:
    """Say whether anybody has a seat, for one read of one item."""
    return bool(tables.occupied(service.stores, "", limit=1, now=now))


def send_error(
    connection: Connection, refusal: Refused, seq: int | None = None
) -> tuple[Effect, ...]:
    """Return the ERROR frame for a refusal; *seq* names the frame it answers."""
    return (Send(connection, _error(refusal, seq)),)


def _sweep_one(service: Service, seated: tables.Seated, *, now: int) -> tuple[Effect, ...]:
    socket = seated.socket
    live, _ = tables.session(service.stores, socket.session_id, now=now)
    if not live:
        refusal: Refused = SessionExpired("the relay session has expired; open it again")
    elif seated.active_at + service.settings.idle_s + TOUCH_S <= now:
        refusal = Idle(f"nothing was heard for {service.settings.idle_s} s")
    else:
        return ()
    held = tables.drop_socket(service.stores, socket, now=now)
    return _ended(socket, refusal) + (left(service, socket, now=now) if held else ())


def _ended(socket: tables.Socket, refusal: Refused) -> tuple[Effect, ...]:
    return (
        Send(socket.connection, _error(refusal)),
        Close(socket.connection, 1000, refusal.code),
    )


def _touch(service: Service, socket: tables.Socket, *, now: int) -> None:
    if not service.heard.recall(socket.id, now=now):
        tables.touch(service.stores, socket, now=now)
        service.heard.keep(socket.id, True, until=now + TOUCH_S)
        service.wake("sweep")


def _error(refusal: Refused, seq: int | None = None) -> str:
    return frames.encode(
        frames.Error(
            code=refusal.code, message=refusal.message, retryable=refusal.retryable, seq=seq
        )
    )


def _attached(seat: tables.Socket) -> str:
    return frames.encode(frames.Attached(session_id=seat.session_id, node_id=seat.node_id))


def _session_id(service: Service, ask: records.OpenSession, *, now: int) -> str:
    """Name the session of a pair: nobody can guess it, and both ask for the same one."""
    pair = " ".join(sorted((ask.node_id, ask.target_node_id)))
    secret = service.signer(now=now).sign(b"muster-session-v1\n")
    name = f"{ask.circle_hint} {pair}".encode()
    return hashlib.blake2b(name, key=secret, digest_size=16).hexdigest()


def _ttl(service: Service, wanted: float) -> int:
    chosen = service.settings
    return min(max(int(wanted), chosen.session_min_ttl_s), chosen.session_max_ttl_s)


def _url(service: Service, call: Call) -> str:
    return service.settings.websocket_url or call.websocket_url
