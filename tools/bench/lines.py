"""Lines: HTTP and WebSocket as cheaply as Python can speak them.

What a generator spends is taken from the service it measures, so these send bytes
that were made before and read of an answer no more than where it ends.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from typing import Any, cast

_TEXT = 0x81
_CLOSE = 0x88


class Line(asyncio.Protocol):
    """One keep-alive HTTP connection: a call, its answer, the next call."""

    def __init__(self) -> None:
        self._buffer = b""
        self._transport: asyncio.Transport | None = None
        self.on_answer: Callable[[bytes], None] | None = None
        self.on_lost: Callable[[Exception], None] | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Keep the transport."""
        self._transport = cast("asyncio.Transport", transport)

    def connection_lost(self, exc: Exception | None) -> None:
        """Tell whoever waits."""
        if self.on_lost:
            self.on_lost(exc or ConnectionError("the service closed the connection"))

    def data_received(self, data: bytes) -> None:
        """Look whether the answer is whole."""
        buffer = self._buffer + data if self._buffer else data
        end = buffer.find(b"\r\n\r\n")
        if end >= 0:
            start = buffer.lower().find(b"content-length:", 0, end) + 15
            length = int(buffer[start : buffer.index(b"\r", start)])
            if len(buffer) >= end + 4 + length:
                self._buffer = b""
                if self.on_answer:
                    self.on_answer(buffer)
                return
        self._buffer = buffer

    def send(self, call: bytes) -> None:
        """Send a call; `on_answer` gets what comes back."""
        assert self._transport is not None  # noqa: S101 - connected by whoever made the line
        self._transport.write(call)

    async def ask(self, call: bytes) -> dict[str, Any]:
        """Send a call and return the answer's body."""
        answered = asyncio.get_running_loop().create_future()
        self.on_answer = lambda answer: None if answered.done() else answered.set_result(answer)
        self.on_lost = lambda error: None if answered.done() else answered.set_exception(error)
        self.send(call)
        return body(await answered)

    def close(self) -> None:
        """Hang up."""
        self.on_lost = None
        if self._transport:
            self._transport.close()


class Socket(asyncio.Protocol):
    """One WebSocket; frames that come in go to `on_text`, with nothing parsed."""

    def __init__(self, url_path: str, token: str) -> None:
        self._hello = (
            f"GET {url_path} HTTP/1.1\r\nHost: 127.0.0.1\r\nUpgrade: websocket\r\n"
            "Connection: Upgrade\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n"
            f"Sec-WebSocket-Version: 13\r\nAuthorization: Bearer {token}\r\n\r\n"
        ).encode()
        self._buffer = bytearray()
        self._transport: asyncio.Transport | None = None
        self.opened: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.on_text: Callable[[bytes], None] | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Ask for the upgrade."""
        self._transport = cast("asyncio.Transport", transport)
        self._transport.write(self._hello)

    def connection_lost(self, exc: Exception | None) -> None:
        """Tell whoever waits for the upgrade."""
        if not self.opened.done():
            self.opened.set_exception(exc or ConnectionError("no WebSocket was opened"))

    def data_received(self, data: bytes) -> None:
        """Take the whole frames out of what has come."""
        self._buffer += data
        if not self.opened.done() and not self._upgraded():
            return
        while (text := self._frame()) is not None:
            if self.on_text:
                self.on_text(text)

    def send(self, frame: bytes) -> None:
        """Send a frame that `masked` has made."""
        assert self._transport is not None  # noqa: S101 - opened before
        self._transport.write(frame)

    def close(self) -> None:
        """Hang up, with a WebSocket's goodbye."""
        if self._transport:
            self._transport.write(bytes((_CLOSE, 0x82, 0, 0, 0, 0)) + (1000).to_bytes(2, "big"))
            self._transport.close()

    def _upgraded(self) -> bool:
        end = self._buffer.find(b"\r\n\r\n")
        if end < 0:
            return False
        if not self._buffer.startswith(b"HTTP/1.1 101"):
            self.opened.set_exception(ConnectionError(bytes(self._buffer).decode(errors="replace")))
            return False
        del self._buffer[: end + 4]
        self.opened.set_result(None)
        return True

    def _frame(self) -> bytes | None:
        buffer = self._buffer
        if len(buffer) < 2:
            return None
        start, length = 2, buffer[1]
        if length == 126:
            start, length = 4, int.from_bytes(buffer[2:4], "big")
        elif length == 127:
            start, length = 10, int.from_bytes(buffer[2:10], "big")
        if len(buffer) < start or len(buffer) < start + length:
            return None
        text = bytes(buffer[start : start + length])
        del buffer[: start + length]
        return text


def masked(text: bytes) -> bytes:
    """Make a text frame; its mask is zero, which costs nobody a thing."""
    size = len(text)
    if size < 126:
        head = bytes((_TEXT, 0x80 | size))
    elif size < 1 << 16:
        head = bytes((_TEXT, 0x80 | 126)) + size.to_bytes(2, "big")
    else:
        head = bytes((_TEXT, 0x80 | 127)) + size.to_bytes(8, "big")
    return head + bytes(4) + text


def body(answer: bytes) -> dict[str, Any]:
    """Return an answer's body; raises if the service refused."""
    if not accepted(answer):
        raise RuntimeError(f"refused: {answer.decode(errors='replace')[:500]}")
    found: dict[str, Any] = json.loads(answer[answer.index(b"\r\n\r\n") + 4 :])
    return found


def accepted(answer: bytes) -> bool:
    """Say whether the status is 200."""
    return answer[9:12] == b"200"
