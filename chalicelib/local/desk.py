"""The desk for sockets: which are opened, what is heard on them, and what is sent to them."""

from __future__ import annotations

import contextlib
import logging
import secrets
import time
from collections.abc import Callable, Iterable

from chalicelib import http, network, store
from chalicelib.call import Call, Connection, Effect, Gone, Reply
from chalicelib.circle import sockets
from chalicelib.local.bounds import Bounds
from chalicelib.local.calls import Reader, Scope
from chalicelib.local.counters import Counters
from chalicelib.local.memory import Memory
from chalicelib.local.open_sockets import OpenSockets
from chalicelib.local.websockets import GOING_AWAY, PING, WebSocket
from chalicelib.service import Service
from muster.errors import InvalidRequest, NotFound, RateLimited

_log = logging.getLogger("muster")


class SocketDesk:
    """Stands between the WebSockets of one process and the service."""

    def __init__(
        self,
        service: Service,
        opened: OpenSockets,
        *,
        reader: Reader,
        counters: Counters,
        bounds: Bounds,
        memory: Memory,
    ) -> None:
        self.sockets = opened
        self.memory = memory
        self._service = service
        self._reader = reader
        self._counters = counters
        self._bounds = bounds

    # --- a socket's life ------------------------------------------------------------

    def admit(self, scope: Scope, websocket: WebSocket) -> Reply:
        """Answer a handshake: 101, or a refusal."""
        request_id = secrets.token_hex(8)
        call = Call("GET", scope["path"], request_id=request_id)
        started = time.perf_counter()
        try:
            call = self._reader.call(scope, request_id=request_id)
            connection = Connection(secrets.token_urlsafe(12))
            opened = self._open(call, connection)
        except Exception as error:
            reply = http.fail(call, error)
        else:
            websocket.id, websocket.address = connection.id, call.source_ip
            websocket.network = network.wider(call.source_ip)
            websocket.heard_at = call.clock
            websocket.until = call.clock + self._service.settings.socket_s
            headers = {"X-Request-Id": request_id}
            if opened.subprotocol:
                headers["Sec-WebSocket-Protocol"] = opened.subprotocol
            reply = Reply(101, headers=headers, effects=opened.effects)
        if call.path in sockets.PATHS:
            reply.route = f"GET {call.path}"
        self._counters.answered(call, reply, latency_s=time.perf_counter() - started)
        return reply

    def refuse(self, message: str) -> Reply:
        """Answer what is no handshake."""
        call = Call("GET", "", request_id=secrets.token_hex(8))
        return http.fail(call, InvalidRequest(message))

    def opened(self, websocket: WebSocket, reply: Reply) -> None:
        """Greet a socket that was admitted with *reply*."""
        self.sockets.add(websocket)
        connection = Connection(websocket.id)
        self._perform(lambda now: reply.effects)
        self._perform(lambda now: sockets.greet(self._service, connection, now=now))

    def heard(self, websocket: WebSocket, text: str) -> None:
        """Take a text, and count it."""
        connection = Connection(websocket.id)
        self._perform(lambda now: sockets.receive(self._service, connection, text, now=now))

    def counted(self, websocket: WebSocket) -> bool:
        """Count a frame that is no text; say whether there may be one more."""
        try:
            self._service.limits.spend_frame(websocket.id, clock=int(time.time()))
        except RateLimited:
            return False
        return True

    def closed(self, websocket: WebSocket) -> None:
        """Forget a socket that was admitted."""
        self.sockets.remove(websocket)
        connection = Connection(websocket.id)
        self._perform(lambda now: sockets.closed(self._service, connection, now=now))

    # --- all of them ----------------------------------------------------------------

    def deliver(self, effects: Iterable[Effect]) -> None:
        """Send what follows from a call; raises nothing."""
        if effects:
            self._perform(lambda now: effects)

    def check_sockets(self) -> None:
        """Send a heartbeat where it is silent, and close what has been open for too long."""
        clock = time.time()
        for websocket in self.sockets:
            if websocket.until <= clock:
                websocket.close(GOING_AWAY, "open for too long; connect again")
            elif websocket.heard_at + self._bounds.silence_s <= clock:
                websocket.heard_at = clock
                with contextlib.suppress(Gone):
                    websocket.put(PING)

    def close_all(self) -> None:
        """Close every socket, as the host is about to stop."""
        for websocket in self.sockets:
            websocket.close(GOING_AWAY, "the service is stopping; connect again")

    def _open(self, call: Call, connection: Connection) -> sockets.Opened:
        if call.path not in sockets.PATHS:
            raise NotFound(f"there is no WebSocket here; it is at {sockets.PATH}")
        if len(self.sockets) >= self._bounds.sockets or self.sockets.crowded(
            call.source_ip, most=self._bounds.address_sockets
        ):
            raise RateLimited("too many sockets are open; try again later", retry_after_s=30)
        return sockets.open_socket(self._service, call, connection)

    def _perform(self, step: Callable[[int], Iterable[Effect]]) -> None:
        """Take a step and deliver what follows from it; the server outlives whatever happens."""
        now = int(time.time())
        try:
            sockets.deliver(self._service, step(now), now=now)
        except store.Unavailable:
            _log.warning("the store did not answer in time")
        except Exception:
            _log.exception("unforeseen")
