"""Sockets: a WebSocket that carries frames, with heartbeats that notice a dead connection.

`Socket` is the seam: subscriptions and links need these three verbs and a way to
connect, which tests script.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable
from typing import TYPE_CHECKING, Protocol

from muster import errors
from muster.backoff import Rim
from muster.exchange import Closed, Unreachable, open_websocket
from muster.felund import frames
from muster.felund.frames import FromNode, FromService

if TYPE_CHECKING:
    from websockets.asyncio.client import ClientConnection

__all__ = [
    "PING_S",
    "QUIET_PING_S",
    "Closed",
    "Connect",
    "Socket",
    "Unreachable",
    "connect",
    "listen",
]

PING_S = 20.0
"""How often a node sends PING; the service ends a session that is silent for 30 s."""

QUIET_PING_S = 360.0
"""How often it does on a subscription: API Gateway charges each, and waits ten minutes. A circle
of five that is always there pays $0.35 a month so, and $0.38 if it were every four minutes."""


class Socket(Protocol):
    """An open WebSocket on which frames go out and come in."""

    async def send(self, frame: FromNode) -> None:
        """Send a frame; raises `Closed`."""

    async def receive(self) -> FromService:
        """Wait for the next frame; raises `Closed`. May be cancelled without loss."""

    async def close(self) -> None:
        """Close the socket; never raises, and may be repeated."""


Connect = Callable[[str, str], Awaitable[Socket]]
"""Opens a socket to a URL with a token; raises `Refused` or `Unreachable`."""


async def connect(url: str, token: str) -> Socket:
    """Open a WebSocket with a token in its header, where no log will keep it."""
    return _WebSocket(
        await open_websocket(
            url, authorization=f"Bearer {token}", max_size=2 * frames.MAX_PUSH_BYTES
        )
    )


async def listen(
    socket: Socket, rim: Rim, *, ping_s: float = PING_S
) -> AsyncGenerator[FromService]:
    """Yield what arrives; answer and send PING (heartbeat), and raise `Closed` on a dead socket.

    A service that sends PING itself does not charge for them: from then on ours are
    as frequent as on a relay session, whatever *ping_s* is.
    """
    hearing = asyncio.ensure_future(socket.receive())
    beat = asyncio.ensure_future(rim.sleep(ping_s))
    heard = True
    try:
        while True:
            await asyncio.wait({hearing, beat}, return_when=asyncio.FIRST_COMPLETED)
            if hearing.done():
                frame, heard = hearing.result(), True
                hearing = asyncio.ensure_future(socket.receive())
                if isinstance(frame, frames.Ping):
                    await socket.send(frames.Pong())
                    if ping_s > PING_S:
                        ping_s = PING_S
                        beat.cancel()
                        beat = asyncio.ensure_future(rim.sleep(ping_s))
                elif not isinstance(frame, frames.Pong):
                    yield frame
            if beat.done() and not beat.cancelled():
                if not heard:
                    raise Closed("the service has not answered a PING")
                beat, heard = asyncio.ensure_future(rim.sleep(ping_s)), False
                await socket.send(frames.Ping())
    finally:
        hearing.cancel()
        beat.cancel()
        await asyncio.gather(hearing, beat, return_exceptions=True)


class _WebSocket:
    """A `Socket` on a real connection."""

    def __init__(self, connection: ClientConnection) -> None:
        self._connection = connection

    async def send(self, frame: FromNode) -> None:
        from websockets.exceptions import ConnectionClosed

        try:
            await self._connection.send(frames.encode(frame))
        except ConnectionClosed as closed:
            raise Closed(str(closed)) from None

    async def receive(self) -> FromService:
        from websockets.exceptions import ConnectionClosed

        while True:
            try:
                text = await self._connection.recv()
            except ConnectionClosed as closed:
                raise Closed(str(closed)) from None
            try:
                return frames.decode_from_service(text)
            except errors.InvalidFrame:
                continue  # of a newer version, or not for us

    async def close(self) -> None:
        await self._connection.close()
