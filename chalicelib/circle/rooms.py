"""Rooms: who is subscribed to a circle, and what they are told.

Push is a hint: whatever a room misses waits in the store.
"""

from __future__ import annotations

from chalicelib import tables
from chalicelib.call import Call, Effect, Send
from chalicelib.service import Service
from muster.felund import frames


def others(service: Service, circle_hint: str, call: Call) -> list[tables.Socket]:
    """Return everybody in the room but the calling node."""
    return [
        socket
        for socket in tables.room(service.stores, circle_hint, now=call.now)
        if socket.node_id != call.node_id
    ]


def tell(
    service: Service,
    circle_hint: str,
    frame: frames.FromService,
    call: Call,
    *,
    only: str | None = None,
) -> tuple[Effect, ...]:
    """Return a frame for the others in the room, or for *only* one of them.

    Sockets of older clients know nothing but messages, so they are left out.
    """
    listeners = [
        socket
        for socket in others(service, circle_hint, call)
        if not socket.legacy and only in (None, socket.node_id)
    ]
    if not listeners:
        return ()
    text = frames.encode(frame)
    return tuple(Send(socket.connection, text) for socket in listeners)
