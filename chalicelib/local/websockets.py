"""WebSockets of the one-machine host: an asyncio protocol over the websockets library.

Not ASGI: a task and two queues a socket would cost more than the socket, and
nothing could be said about a reader that does not read. What the kernel does not
take waits in a queue here, counted with all other queues (`memory`); whoever lets
too much wait loses it, is closed, and delays nobody.
"""

from __future__ import annotations

import asyncio
import logging
import socket
import time
from collections import deque
from functools import lru_cache
from http import HTTPStatus
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote

from websockets.datastructures import Headers
from websockets.frames import Frame, Opcode
from websockets.http11 import Request, Response
from websockets.server import ServerProtocol

from chalicelib.call import Gone, Reply
from chalicelib.local.calls import Scope
from chalicelib.local.endings import HSTS, is_ours
from muster.felund import frames

if TYPE_CHECKING:
    from chalicelib.local.desk import SocketDesk

GOING_AWAY, UNSUPPORTED, NOT_TEXT, TOO_BIG, TRY_LATER = 1001, 1003, 1007, 1009, 1013

MOST_WAITING_BYTES = 4 * 1024 * 1024
"""What may wait for one reader; the longest list the service pushes fits 30 times."""

SEND_BUFFER_BYTES = 128 * 1024
"""What the kernel may keep for one reader; as it comes it would take megabytes."""

MOST_MESSAGE_BYTES = 256 * 1024
"""Beyond the largest frame that is taken, so that a larger one is refused in good order."""

CLOSE_S = 10.0
"""How long the other side has to read what waits and to answer a close."""

SLICE_BYTES = 4096
TURN_S = 0.005
"""One socket is served for so long at a time, however much it sends."""

PING = frames.encode(frames.Ping())

_log = logging.getLogger("muster.websocket")
_log.setLevel(logging.WARNING)


class WebSocket(asyncio.Protocol):
    """One connection from its handshake to its end; uvicorn hands it over at the upgrade."""

    __slots__ = (
        "_connections",
        "_counted",
        "_desk",
        "_parts",
        "_paused",
        "_protocol",
        "_queue",
        "_queued_bytes",
        "_rest",
        "_timer",
        "_transport",
        "_unfinished_bytes",
        "address",
        "heard_at",
        "id",
        "network",
        "open",
        "until",
    )
    _transport: Any

    def __init__(self, desk: SocketDesk, *, server_state: Any, **_: Any) -> None:
        self.id = self.address = self.network = ""
        self.heard_at = self.until = 0.0
        self.open = False
        self._desk = desk
        self._connections: set[object] = server_state.connections
        self._protocol = ServerProtocol(max_size=MOST_MESSAGE_BYTES, logger=_log)
        self._parts: bytearray | None = None
        self._rest = b""
        self._timer: asyncio.TimerHandle | None = None
        self._queue: deque[bytes] | None = None
        self._queued_bytes = self._unfinished_bytes = self._counted = 0
        self._paused = False

    # --- what the host does with it -----------------------------------------------

    def put(self, text: str) -> None:
        """Send a text; raises `Gone` if that is not possible any more."""
        if not self.open:
            raise Gone
        if self._queued_bytes > MOST_WAITING_BYTES:
            self.give_way()
            raise Gone
        self._write(_frame(text))
        if not self.open:  # it was this socket that had to make way
            raise Gone

    def close(self, code: int, reason: str) -> None:
        """Close after what waits to be sent; the other side has `CLOSE_S` to answer."""
        if self.open:
            self.open = False
            self._protocol.send_close(code, reason)
            self._flush()

    def give_way(self) -> None:
        """Drop what waits and close; what the other side does not take then ends at once."""
        if not self.open:
            self._desk.memory.hold(self, 0)
            self._transport.abort()
            return
        self._drop()
        self._count()
        self.close(TRY_LATER, "the reader is too slow")

    def shutdown(self) -> None:
        """Abort; uvicorn calls it last, after the sockets were closed."""
        self._transport.abort()

    # --- what asyncio calls ---------------------------------------------------------

    def connection_made(self, transport: Any) -> None:
        """Take the connection over; what the kernel does not take at once is to wait here."""
        self._transport = transport
        self._connections.add(self)
        transport.set_write_buffer_limits(high=0)

    def data_received(self, data: bytes) -> None:
        """Take bytes: first a handshake, then frames."""
        if self._rest:
            self._rest += data
        elif not self._transport.is_closing():
            self._take(data)
        self._count()

    def eof_received(self) -> None:
        """Nothing more comes; asyncio closes."""

    def pause_writing(self) -> None:
        """Keep from now on what is to be sent."""
        self._paused = True
        self._count()

    def resume_writing(self) -> None:
        """Send what was kept, as far as it goes."""
        self._paused = False
        self._send_queued()
        self._count()

    def connection_lost(self, exc: Exception | None) -> None:
        """Forget the connection, and tell the desk."""
        self.open = False
        self._rest = b""
        self._parts = None
        self._drop()
        self._protocol.parser.close()  # what it has read would else wait for the collector
        self._desk.memory.hold(self, 0)
        self._connections.discard(self)
        if self._timer is not None:
            self._timer.cancel()
        if self.id:
            self._desk.closed(self)

    # --- between the two ------------------------------------------------------------

    def _write(self, data: bytes) -> None:
        if not self._paused:
            self._transport.write(data)
            return
        if self._queue is None:  # most sockets never need one
            self._queue = deque()
        self._queue.append(data)
        self._queued_bytes += len(data)
        self._count()

    def _send_queued(self, *, all_of_it: bool = False) -> None:
        while self._queue and (all_of_it or not self._paused):
            data = self._queue.popleft()
            self._queued_bytes -= len(data)
            self._transport.write(data)

    def _drop(self) -> None:
        self._queue, self._queued_bytes = None, 0

    def _count(self) -> None:
        """Tell what waits here in either direction; what is on its way as it should be is not."""
        size = len(self._rest) + len(self._parts or b"")
        if self._unfinished_bytes > SLICE_BYTES:
            size += self._unfinished_bytes
        if self._paused:
            size += self._transport.get_write_buffer_size() + SEND_BUFFER_BYTES + self._queued_bytes
        if size != self._counted:
            self._counted = size
            self._desk.memory.hold(self, size)

    def _take(self, data: bytes) -> None:
        """Read frames slice by slice; when the turn is over, others come first."""
        if len(data) <= SLICE_BYTES or not self.open:
            self._read(data)
            return
        loop = asyncio.get_running_loop()
        end = loop.time() + TURN_S
        for at in range(0, len(data), SLICE_BYTES):
            self._read(data[at : at + SLICE_BYTES])
            rest = data[at + SLICE_BYTES :] if loop.time() > end else b""
            if rest:
                self._rest = rest
                self._transport.pause_reading()
                loop.call_soon(self._resume)
                return

    def _resume(self) -> None:
        data, self._rest = self._rest, b""
        if data:
            self._transport.resume_reading()
            self._take(data)
            self._count()

    def _read(self, data: bytes) -> None:
        opening, closing = not self.id, self._protocol.close_expected()
        self._protocol.receive_data(data)
        events = self._protocol.events_received()
        self._unfinished_bytes = 0 if events else self._unfinished_bytes + len(data)
        for event in events:
            if isinstance(event, Request):
                self._shake(event)
                opening = False
            elif self.open and isinstance(event, Frame):
                self._hear(event)
        if opening:
            self._refuse(self._desk.refuse("this is not a WebSocket handshake"))
        elif self.id:
            self.open = self.open and not self._protocol.close_expected()
            self._flush(closing=closing)
            if self._queued_bytes > MOST_WAITING_BYTES:
                self.give_way()

    def _shake(self, request: Request) -> None:
        response = self._protocol.accept(request)
        if response.status_code != HTTPStatus.SWITCHING_PROTOCOLS:
            self._refuse(self._desk.refuse("this is not a WebSocket handshake of version 13"))
            return
        reply = self._desk.admit(self._scope(request), self)
        if not self.id:
            self._refuse(reply)
            return
        self._transport.get_extra_info("socket").setsockopt(
            socket.SOL_SOCKET, socket.SO_SNDBUF, SEND_BUFFER_BYTES
        )
        response.headers.update(reply.headers)
        self._protocol.send_response(response)
        self._flush()
        self.open = True
        self._desk.opened(self, reply)

    def _scope(self, request: Request) -> Scope:
        path, _, query = request.path.partition("?")
        path = unquote(path)
        transport = self._transport
        return {
            "method": "GET",
            "scheme": "wss" if is_ours(transport) else "ws",
            "path": path,
            "query_string": query.encode("latin-1"),
            "headers": [
                (name.lower().encode("latin-1"), value.encode("latin-1"))
                for name, value in request.headers.raw_items()
            ],
            "client": transport.get_extra_info("peername")[:2],
            "server": transport.get_extra_info("sockname")[:2],
        }

    def _refuse(self, reply: Reply) -> None:
        """Answer a handshake with an ordinary reply."""
        headers = Headers(reply.headers | (HSTS if is_ours(self._transport) else {}))
        headers["Content-Length"] = str(len(reply.body))
        headers["Connection"] = "close"
        phrase = HTTPStatus(reply.status).phrase
        self._transport.write(Response(reply.status, phrase, headers, reply.body).serialize())
        self._transport.close()

    def _hear(self, frame: Frame) -> None:
        self.heard_at = time.time()
        last = frame.fin and frame.opcode in (Opcode.TEXT, Opcode.CONT)
        if not last and not self._desk.counted(self):  # what ends a text counts with the text
            self.close(TRY_LATER, "too many frames")
        elif frame.opcode is Opcode.TEXT and frame.fin:
            self._text(frame.data)
        elif frame.opcode is Opcode.TEXT:
            self._parts = bytearray(frame.data)
        elif frame.opcode is Opcode.CONT and self._parts is not None:
            self._parts += frame.data
            if frame.fin:
                whole, self._parts = self._parts, None
                self._text(whole)
        elif frame.opcode is Opcode.BINARY:
            self.close(UNSUPPORTED, "text frames only")

    def _text(self, data: bytes | bytearray | memoryview) -> None:
        if len(data) > frames.MAX_TEXT_BYTES:
            self.close(TOO_BIG, f"a frame may have {frames.MAX_TEXT_BYTES} bytes of text")
            return
        try:
            text = str(data, "utf-8")
        except UnicodeDecodeError:
            self.close(NOT_TEXT, "the frame is not UTF-8")
            return
        self._desk.heard(self, text)

    def _flush(self, *, closing: bool = False) -> None:
        """Write what the protocol says; after a close no PING is answered any more."""
        for data in self._protocol.data_to_send():
            if data:
                if not closing:
                    self._write(data)
            elif self._transport.can_write_eof() and not self._transport.is_closing():
                self._send_queued(all_of_it=True)
                self._transport.write_eof()
        if self._timer is None and self._protocol.close_expected():
            loop = asyncio.get_running_loop()
            self._timer = loop.call_later(CLOSE_S, self._transport.abort)


@lru_cache(maxsize=4)
def _frame(text: str) -> bytes:
    """Write a text frame; what goes to a whole room is written once."""
    return Frame(Opcode.TEXT, text.encode()).serialize(mask=False)
