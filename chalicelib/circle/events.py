"""Events: what the sockets of a circle of version 2 are told as it happens.

A hint, as every push: whatever a socket misses waits in the store.
"""

from __future__ import annotations

import msgspec

from chalicelib import tables
from chalicelib.call import Effect, Send
from chalicelib.service import Service
from muster import shapes


def tell(
    service: Service,
    circle: str,
    event: shapes.Event,
    but: str,
    *,
    now: int,
    only: str | None = None,
) -> tuple[Effect, ...]:
    """Return an event for the circle's sockets *but* one node's, or for *only* one node's.

    What is too large for a socket is not sent; readers find it by syncing.
    """
    room = tables.room(service.stores, circle, now=now)
    listeners = [
        socket for socket in room if socket.node_id != but and only in (None, socket.node_id)
    ]
    if not listeners:
        return ()
    text = msgspec.json.encode(event).decode()
    if len(text) > shapes.ANSWER_BYTES:
        return ()
    return tuple(Send(socket.connection, text) for socket in listeners)
