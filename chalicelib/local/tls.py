"""TLS on one machine: a connection that shakes hands before anything else hears of it.

Not the event loop's own TLS: there a connection is nobody's until its handshake is done, and
what waits for a slow reader lies where nobody counts it. Here it counts from its first byte,
has a deadline, costs its address a call, and what waits is in one place, as without TLS.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import ssl
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from chalicelib import http
from chalicelib.local.certificate import Certificate
from chalicelib.local.endings import LINGER_S, close_with
from muster.errors import InvalidRequest, RateLimited

if TYPE_CHECKING:
    from chalicelib.local.app import LocalHost

RECORD_BYTES = 16 * 1024
"""Bytes are read and written in pieces of a record's size; what comes after waits in the kernel."""

_piece = memoryview(bytearray(RECORD_BYTES))
"""Where the event loop puts what it reads, for all connections: each takes it out at once."""

HANDSHAKE = 0x16
"""What every TLS connection begins with; a call in clear begins with a letter."""


class Tls(asyncio.BufferedProtocol):
    """The protocol of a TCP connection, and the transport of the one that *inside* makes."""

    _raw: Any
    _object: ssl.SSLObject

    def __init__(
        self,
        host: LocalHost,
        certificate: Certificate,
        inside: Callable[..., asyncio.Protocol],
        *,
        server_state: Any,
        **rest: Any,
    ) -> None:
        self._host = host
        self._certificate = certificate
        self._make = functools.partial(inside, server_state=server_state, **rest)
        self._connections: set[object] = server_state.connections
        self._inside: asyncio.Protocol | None = None
        self._incoming, self._outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        self._timer: asyncio.TimerHandle | None = None
        self._counted = ""
        self._paused = self._stopped = self._reading = False
        self._begun = self._closing = self._leaving = False

    # --- what asyncio calls ---------------------------------------------------------

    def connection_made(self, transport: Any) -> None:
        """Take a connection, unless there are too many, or its address makes too many."""
        self._raw = transport
        self._connections.add(self)
        address = (transport.get_extra_info("peername") or ("",))[0]
        if self._unwelcome(address):
            self.abort()
            return
        self._host.connections.add(address)
        self._counted = address
        context = self._certificate.context
        self._object = context.wrap_bio(self._incoming, self._outgoing, server_side=True)
        loop = asyncio.get_running_loop()
        self._timer = loop.call_later(self._host.bounds.head_s, self.abort)

    def get_buffer(self, sizehint: int) -> memoryview:
        """Return where to put what comes."""
        return _piece

    def buffer_updated(self, nbytes: int) -> None:
        """Take bytes of TLS; after the end they are dropped."""
        if self.is_closing():
            return
        if not self._begun and _piece[0] != HANDSHAKE:
            self._refuse_clear()
            return
        self._begun = True
        self._incoming.write(_piece[:nbytes])
        self._read()

    def eof_received(self) -> None:
        """Nothing more comes; asyncio closes."""

    def pause_writing(self) -> None:
        """Tell who writes that what they write waits."""
        if self._inside is not None:
            self._inside.pause_writing()

    def resume_writing(self) -> None:
        """Tell who writes to go on."""
        if self._inside is not None:
            self._inside.resume_writing()

    def connection_lost(self, exc: Exception | None) -> None:
        """Forget the connection."""
        self._leave()
        inside, self._inside = self._inside, None  # else both would wait for the collector
        if inside is not None:
            inside.connection_lost(exc)

    def shutdown(self) -> None:
        """End a handshake, as the server stops."""
        self.abort()

    # --- what the protocol inside calls: a transport --------------------------------

    def write(self, data: bytes) -> None:
        """Send bytes; all that waits, waits in the transport below."""
        if self.is_closing():
            return
        view, records = memoryview(data), []
        try:
            for at in range(0, len(view), RECORD_BYTES):
                self._object.write(view[at : at + RECORD_BYTES])
                records.append(self._outgoing.read())
        except ssl.SSLError:
            self.abort()
        else:
            self._raw.writelines(records)  # at once, so that who counts what waits sees all of it

    def write_eof(self) -> None:
        """Say goodbye, and go on reading; but first read what is here.

        What comes in later may be read after the goodbye, what was here before is an error.
        """
        self._leaving = self._reading or self._paused
        if not self._leaving:
            self._part()

    def close(self) -> None:
        """Say goodbye and close, without waiting for the other side's (RFC 8446, section 6.1).

        Whoever is sending is let go on for a while: a connection that is closed with bytes
        unread is reset, and they might never see what was said last.
        """
        if self.is_closing():
            return
        self._closing = True
        self._part()
        if not self._reading:
            self._raw.close()
            return
        if self._stopped:
            self._raw.resume_reading()
        self._timer = asyncio.get_running_loop().call_later(LINGER_S, self._raw.close)

    def abort(self) -> None:
        """End the connection at once."""
        self._raw.abort()

    def is_closing(self) -> bool:
        """Say whether it is closed, or about to be."""
        return self._closing or bool(self._raw.is_closing())

    def can_write_eof(self) -> bool:
        """Say that half of it can be closed."""
        return True

    def pause_reading(self) -> None:
        """Hand nothing on, and take no more."""
        if self.is_closing():
            return
        self._paused = True
        if not self._stopped:
            self._stopped = True
            self._raw.pause_reading()

    def resume_reading(self) -> None:
        """Hand on what was kept, and only then take more."""
        if self._paused and not self.is_closing():
            self._paused = False
            asyncio.get_running_loop().call_soon(self._resume)

    def set_write_buffer_limits(self, high: int | None = None, low: int | None = None) -> None:
        """Set from when on writing is paused."""
        self._raw.set_write_buffer_limits(high=high, low=low)

    def get_write_buffer_size(self) -> int:
        """Return how much waits to be sent."""
        return int(self._raw.get_write_buffer_size())

    def get_extra_info(self, name: str, default: Any = None) -> Any:
        """Return what is known of the connection."""
        if name == "sslcontext":
            return self._object.context
        return self._raw.get_extra_info(name, default)

    def set_protocol(self, protocol: asyncio.Protocol) -> None:
        """Hand what comes to another protocol."""
        self._inside = protocol

    # --- between the two ------------------------------------------------------------

    def _unwelcome(self, address: str) -> bool:
        """Say whether a connection may not even shake hands, which is work."""
        if self._host.crowded(address, opened=len(self._connections)) is not None:
            return True
        if self._host.trusts(address):
            return False
        try:
            self._host.service.limits.spend_address(address, clock=time.time())
        except RateLimited:
            return True
        return False

    def _resume(self) -> None:
        if not self._paused and self._read() and self._stopped:
            self._stopped = False
            self._raw.resume_reading()

    def _read(self) -> bool:
        """Hand on what can be read, and end what is no TLS; say whether more is wanted."""
        if self.is_closing():
            return False
        self._reading = True
        try:
            if self._inside is None:
                self._object.do_handshake()
                self._hand_over()
            while self._inside is not None and not self._paused and not self.is_closing():
                data = self._object.read(RECORD_BYTES)
                if data:
                    self._inside.data_received(data)
                else:  # the other side has said goodbye
                    self._reading = False
                    self.close()
        except ssl.SSLWantReadError:
            self._flush()
            if self._leaving:
                self._leaving = False
                self._part()
        except ssl.SSLError:
            self._flush()  # the alert that says what was wrong
            self._raw.close()
        finally:
            self._reading = False
        return not self._paused and not self.is_closing()

    def _hand_over(self) -> None:
        """Let the protocol inside have the connection, which counts it by itself."""
        self._flush()
        self._leave()
        self._inside = self._make()
        self._inside.connection_made(self)  # type: ignore[arg-type]  # all of one that is used

    def _part(self) -> None:
        with contextlib.suppress(ssl.SSLError):  # it would wait for the other side's goodbye
            self._object.unwrap()
        self._flush()
        self._raw.write_eof()

    def _leave(self) -> None:
        self._connections.discard(self)
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if self._counted:
            self._host.connections.remove(self._counted)
            self._counted = ""

    def _refuse_clear(self) -> None:
        """Tell who speaks in clear, in clear."""
        refusal = InvalidRequest("this port speaks TLS alone: the address begins with https://")
        close_with(self._raw, http.refuse(refusal))

    def _flush(self) -> None:
        if self._outgoing.pending and not self._raw.is_closing():
            self._raw.write(self._outgoing.read())
