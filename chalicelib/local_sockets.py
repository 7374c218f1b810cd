"""The sockets one process holds: each with a bounded queue, so that nobody waits for a slow reader."""

from __future__ import annotations

import asyncio
from collections import Counter, deque
from collections.abc import Awaitable, Callable, Iterator
from typing import Any

from chalicelib.call import Connection, Gone
from muster import frames

Send = Callable[[dict[str, Any]], Awaitable[None]]

QUEUE_FRAMES = 256
QUEUE_BYTES = 4 * 1024 * 1024

GOING_AWAY, UNSUPPORTED, TOO_BIG, TRY_LATER = 1001, 1003, 1009, 1013

PING = frames.encode(frames.Ping())


class Socket:
    """One open WebSocket and what waits to be sent on it."""

    __slots__ = (
        "_bytes",
        "_closing",
        "_queue",
        "_send",
        "_task",
        "address",
        "closed",
        "heard",
        "until",
    )

    def __init__(self, address: str, *, heard: float, until: float) -> None:
        self.address = address
        self.heard = heard
        self.until = until
        self.closed = False
        self._queue: deque[str] = deque()
        self._bytes = 0
        self._closing: tuple[int, str] | None = None
        self._send: Send | None = None
        self._task: asyncio.Task[None] | None = None

    def open(self, send: Send) -> None:
        """Begin to send: what has been put so far, and then what comes."""
        self._send = send
        self._wake()

    def put(self, text: str) -> None:
        """Queue a frame; raises `Gone` if the socket is closed, or is now for being too slow."""
        if self.closed:
            raise Gone
        self._bytes += len(text)
        if len(self._queue) >= QUEUE_FRAMES or self._bytes > QUEUE_BYTES:
            self._queue.clear()
            self.close(TRY_LATER, "the reader is too slow")
            raise Gone
        self._queue.append(text)
        self._wake()

    def close(self, code: int, reason: str) -> None:
        """Close after what waits has been sent."""
        if not self.closed:
            self.closed = True
            self._closing = (code, reason)
            self._wake()

    def _wake(self) -> None:
        if self._task is None and self._send is not None:
            self._task = asyncio.get_running_loop().create_task(self._drain(self._send))

    async def _drain(self, send: Send) -> None:
        try:
            while self._queue:
                text = self._queue.popleft()
                self._bytes -= len(text)
                await send({"type": "websocket.send", "text": text})
            if self._closing is not None:
                code, reason = self._closing
                await send({"type": "websocket.close", "code": code, "reason": reason})
        except OSError:
            self.closed = True  # the reading side hears of it as well, and tidies up
        finally:
            self._task = None


class Sockets:
    """All sockets by connection id; the service's sender."""

    def __init__(self) -> None:
        self._held: dict[str, Socket] = {}
        self._by_address: Counter[str] = Counter()
        self.pushed = 0

    def __len__(self) -> int:
        return len(self._held)

    def __iter__(self) -> Iterator[tuple[str, Socket]]:
        return iter(list(self._held.items()))

    def at(self, address: str) -> int:
        """Return how many sockets come from an address."""
        return self._by_address[address]

    def add(self, connection_id: str, socket: Socket) -> None:
        """Hold a socket."""
        self._held[connection_id] = socket
        self._by_address[socket.address] += 1

    def remove(self, connection_id: str) -> None:
        """Let go of a socket."""
        socket = self._held.pop(connection_id, None)
        if socket is None:
            return
        socket.closed = True
        self._by_address[socket.address] -= 1
        if not self._by_address[socket.address]:
            del self._by_address[socket.address]

    def send(self, connection: Connection, text: str) -> None:
        """Queue text for a connection; raises `Gone` if it is not held here."""
        socket = self._held.get(connection.id)
        if socket is None:
            raise Gone
        socket.put(text)
        self.pushed += 1

    def close(self, connection: Connection, code: int, reason: str) -> None:
        """End a connection."""
        socket = self._held.get(connection.id)
        if socket is not None:
            socket.close(code, reason)
