"""The server under the one-machine host: uvicorn, with every wait and size bounded."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import logging
import math
import socket
from types import FrameType
from typing import Any

import uvicorn
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from chalicelib import http, network
from chalicelib.call import Reply
from chalicelib.local.app import LocalHost
from chalicelib.local.endings import HSTS, LINGER_S, close_with
from chalicelib.local.memory import give_back
from chalicelib.local.tls import Tls
from chalicelib.local.websockets import WebSocket
from muster.errors import InvalidRequest

REQUEST_S = 60.0
"""How long a whole request may take to arrive; what reads the body is stricter."""

KEEP_ALIVE_S = 65
CLOSE_SOCKETS_S = 2.0
STOP_S = 3
SILENT_S = 30
"""A peer that acknowledges nothing for so long, or reads nothing, is gone (TCP_USER_TIMEOUT)."""

MOST_URL_BYTES = 8 * 1024
MOST_HEAD_BYTES = 32 * 1024
MOST_HEADERS = 100

MOST_PIPELINED = 64
"""How many calls a connection may send before the first of them is answered."""

ANSWER_BYTES = 8 * 1024
"""What an answer may leave to be sent without being counted; most answers are smaller."""


def run(host: LocalHost, listener: socket.socket) -> None:
    """Serve on *listener* until SIGTERM or SIGINT, then stop in good order."""
    give_back()
    connection: Any = functools.partial(Http, host)
    if host.certificate is not None:
        connection = functools.partial(Tls, host, host.certificate, connection)
    logging.getLogger("uvicorn.error").setLevel(logging.ERROR)  # below, it writes addresses
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    if hasattr(socket, "TCP_USER_TIMEOUT"):  # Linux; connections inherit it
        listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, SILENT_S * 1000)
    config = uvicorn.Config(
        host,
        loop="uvloop",
        http=connection,  # it is only called
        ws=functools.partial(WebSocket, host.desk),  # type: ignore[arg-type]
        lifespan="on",
        log_config=None,
        access_log=False,
        proxy_headers=False,
        server_header=False,
        headers=list(HSTS.items()) if host.certificate is not None else [],
        timeout_keep_alive=KEEP_ALIVE_S,
        timeout_graceful_shutdown=STOP_S,
    )
    Server(config, host).run(sockets=[listener])


class Server(uvicorn.Server):
    """Uvicorn's server; it ends what takes too long, closes the sockets and exits with 0."""

    def __init__(self, config: uvicorn.Config, host: LocalHost) -> None:
        super().__init__(config)
        self._host = host

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """Stop; the second signal does not wait for anybody."""
        self.force_exit = self.should_exit
        self.should_exit = True

    async def on_tick(self, counter: int) -> bool:
        """Look once a second for connections that have something overdue."""
        if counter % 10 == 0:
            now = asyncio.get_running_loop().time()
            for connection in list(self.server_state.connections):
                if isinstance(connection, Http) and connection.due < now:
                    connection.expire()
        return await super().on_tick(counter)

    async def shutdown(self, sockets: Any = None) -> None:
        """Stop accepting, close the sockets, let the calls finish."""
        for server in self.servers:
            server.close()
        self._host.desk.close_all()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(CLOSE_SOCKETS_S):
                while len(self._host.desk.sockets) and not self.force_exit:
                    await asyncio.sleep(0.01)
        await super().shutdown(sockets)


class Http(HttpToolsProtocol):
    """Uvicorn's HTTP connection, with bounds on its head, deadlines, and errors in our form."""

    def __init__(self, host: LocalHost, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.due = math.inf
        self._host = host
        self._complaint = "this is not an HTTP/1.1 request"
        self._in_head = False
        self._overhead_bytes = 0
        self._complete = True
        self._leaving = False
        self._counted = ""
        self._answered = False
        self.network = ""

    def connection_made(self, transport: Any) -> None:
        """Take a connection, unless there are too many."""
        super().connection_made(transport)
        self.due = self.loop.time() + self._host.bounds.head_s
        address = self.client[0] if self.client else ""
        refusal = self._host.crowded(address, opened=len(self.connections))
        if refusal is not None:
            self._end(http.refuse(refusal))
        else:
            self._host.connections.add(address)
            self._counted = address
        transport.set_write_buffer_limits(high=ANSWER_BYTES)
        if not self._host.trusts(address):
            self.network = network.wider(address)

    def connection_lost(self, exc: Exception | None) -> None:
        """Forget the connection."""
        self._uncount()
        self._host.memory.hold(self, 0)
        super().connection_lost(exc)

    def pause_writing(self) -> None:
        """Take no further call until this answer is read: it waits in memory, as the next would."""
        super().pause_writing()
        self.transport.pause_reading()
        self._host.memory.hold(self, self.transport.get_write_buffer_size())

    def resume_writing(self) -> None:
        """Go on where it was paused."""
        super().resume_writing()
        self._host.memory.hold(self, 0)
        if not self.flow.read_paused:
            self.transport.resume_reading()
        if self._answered:
            self._answered = False
            super().on_response_complete()

    def give_way(self) -> None:
        """Drop the answer that waits, as others need the memory."""
        self._host.memory.hold(self, 0)
        self.transport.abort()

    def handle_websocket_upgrade(self) -> None:
        """Hand over to a `WebSocket`, which the host counts by itself."""
        self._uncount()
        super().handle_websocket_upgrade()
        self.parser: Any = None  # it and this would else wait for the collector

    def data_received(self, data: bytes) -> None:
        """Take bytes; a head that does not end is refused, and so are trailers.

        What is no body counts: the parser keeps a header until its value ends.
        """
        if self.transport.is_closing():
            return
        self._overhead_bytes += len(data)
        super().data_received(data)
        if self._complete:
            self._overhead_bytes = 0
        elif self._overhead_bytes > MOST_HEAD_BYTES and not self.transport.is_closing():
            what = "the head of a request" if self._in_head else "what is around a body"
            self._complaint = f"{what} may have {MOST_HEAD_BYTES} bytes"
            self.send_400_response(self._complaint)

    def on_message_begin(self) -> None:
        """Note that a request has begun; what is raised here becomes a 400."""
        if len(self.pipeline) >= MOST_PIPELINED:
            self._complaint = f"{MOST_PIPELINED} calls wait on this connection; read the answers"
            raise ValueError(self._complaint)
        super().on_message_begin()
        self.due = self.loop.time() + self._host.bounds.head_s
        self._in_head, self._complete = True, False

    def on_header(self, name: bytes, value: bytes) -> None:
        """Keep a header; a trailer is none, as nobody has checked it when the call begins."""
        if self._in_head:
            super().on_header(name, value)

    def on_headers_complete(self) -> None:
        """Check the head's size and go on; what is raised here becomes a 400."""
        self.due = self.loop.time() + REQUEST_S
        size = sum(len(name) + len(value) + 4 for name, value in self.headers)
        if len(self.url) > MOST_URL_BYTES:
            self._complaint = f"a URL may have {MOST_URL_BYTES} bytes"
        elif size > MOST_HEAD_BYTES or len(self.headers) > MOST_HEADERS:
            self._complaint = (
                f"a request may have {MOST_HEADERS} headers of {MOST_HEAD_BYTES} bytes together"
            )
        elif self._hosts() != 1 and self.parser.get_http_version() == "1.1":
            self._complaint = "a request of HTTP/1.1 has one Host header"
        else:
            super().on_headers_complete()
            self._in_head = False
            if self.cycle is not None:
                self.cycle.transport = _Lingering(self)  # type: ignore[assignment]
            return
        raise ValueError(self._complaint)

    def on_body(self, body: bytes) -> None:
        """Take a piece of the body."""
        self._overhead_bytes = 0
        super().on_body(body)

    def on_message_complete(self) -> None:
        """Note that the request is whole."""
        self.due = math.inf
        self._complete = True
        self._overhead_bytes = 0
        super().on_message_complete()
        if self._leaving:
            self.transport.close()

    def on_response_complete(self) -> None:
        """Note that the request is answered, perhaps before it was whole."""
        if not self._complete:
            self.due = self.loop.time() + LINGER_S
        if self._leaving:
            self.flow.resume_reading()
        elif self.flow.write_paused:
            self._answered = True
        else:
            super().on_response_complete()

    def close_when_read(self) -> None:
        """End the connection, but first let the rest of the call arrive."""
        if self._complete:
            self.transport.close()
        elif not self._leaving:
            self._leaving = True
            self.transport.write_eof()

    def send_400_response(self, msg: str) -> None:
        """Answer what is no request, unless it was answered before that was seen."""
        in_body = not (self._complete or self._in_head)
        if in_body and getattr(self.cycle, "response_complete", False):
            self.transport.close()
        else:
            self._end(http.refuse(InvalidRequest(self._complaint)))

    def expire(self) -> None:
        """End a connection on which something is overdue."""
        self.due = math.inf
        if self._in_head:
            self._complaint = f"the head did not arrive within {self._host.bounds.head_s} s"
            self.send_400_response(self._complaint)
        else:
            self.transport.close()

    def _hosts(self) -> int:
        return sum(name == b"host" for name, _ in self.headers)

    def _uncount(self) -> None:
        if self._counted:
            self._host.connections.remove(self._counted)
            self._counted = ""

    def _end(self, reply: Reply) -> None:
        close_with(self.transport, reply)


class _Lingering:
    """The transport as an answer sees it: to end it waits for the rest of the call.

    Closed with bytes unread the connection would be reset, and the caller, still
    sending, might never see the answer.
    """

    __slots__ = ("close", "is_closing", "write")

    def __init__(self, connection: Http) -> None:
        self.write = connection.transport.write
        self.is_closing = connection.transport.is_closing
        self.close = connection.close_when_read
