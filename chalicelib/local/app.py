"""The one-machine host as an ASGI app, and its sockets' life.

Calls are answered on the event loop, as the store takes tens of microseconds;
what could take longer runs beside it.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import secrets
import time
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from dataclasses import asdict
from typing import Any

from chalicelib import http, log, store
from chalicelib.assist import plan, probing
from chalicelib.call import Call, Connection, Effect, Gone, Reply, Wait
from chalicelib.circle import relay, sockets
from chalicelib.local import status
from chalicelib.local.bounds import Bounds
from chalicelib.local.calls import Reader, Scope
from chalicelib.local.publishing import SOON_S, WAY, Publishing
from chalicelib.local.websockets import GOING_AWAY, PING, Sockets, WebSocket
from chalicelib.service import Service
from chalicelib.settings import Settings
from chalicelib.store import Stores
from muster.errors import (
    InvalidRequest,
    MethodNotAllowed,
    NotFound,
    RateLimited,
    Refused,
    Unavailable,
)

Event = dict[str, Any]
Receive = Callable[[], Awaitable[Event]]
Send = Callable[[Event], Awaitable[None]]

_log = logging.getLogger("muster")

SWEEP_S = 5.0
SLICE_S = 0.05
PURGE_S = 0.25
PURGE_ITEMS = 500
CHECKPOINT_S = 0.5


class Host:
    """The ASGI app: turns events into calls, and replies and effects into events."""

    def __init__(
        self,
        settings: Settings,
        stores: Stores,
        *,
        trusted_proxies: Iterable[str] = (),
        bounds: Bounds | None = None,
    ) -> None:
        self.bounds = bounds or Bounds()
        self.sockets = Sockets()
        self.connections: Counter[str] = Counter()
        self.service = Service(
            settings,
            stores,
            self.sockets,
            secrets.token_bytes,
            prober=probing.open_prober(plan.read(settings.assist)),
            host_limits=asdict(self.bounds),
        )
        self.numbers = status.Numbers(self.service, self.sockets, started_at=time.time())
        self._reader = Reader(trusted_proxies)
        self._pages = status.Pages(self.numbers)
        self._too_large = bytes(settings.body_bytes + 1)
        self._waiting_bytes = 0
        self._publishing: Publishing | None = None

    def publish(self, publishing: Publishing) -> None:
        """Publish capsules from now on, and serve them."""
        self._publishing = self.numbers.publishing = publishing
        self.service.host_limits = {
            **self.service.host_limits,
            "publish_every_s": publishing.every_s,
        }

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one ASGI connection."""
        if scope["type"] == "http":
            await self._http(scope, receive, send)
        elif scope["type"] == "lifespan":
            await self._lifespan(receive, send)
        else:
            raise NotImplementedError("WebSockets come by another way: chalicelib.local.websockets")

    def trusts(self, address: str) -> bool:
        """Say whether a trusted proxy is at *address*, so that it speaks for many."""
        return self._reader.trusts(address)

    # --- HTTP -----------------------------------------------------------------------

    async def _http(self, scope: Scope, receive: Receive, send: Send) -> None:
        request_id = secrets.token_hex(8)
        call = Call(scope["method"], scope["path"], request_id=request_id)
        unread = False
        started = time.perf_counter()
        scope = scope | {"headers": tuple(scope["headers"])}  # as they were before the body
        try:
            body = await self._body(scope, receive)
            unread = body is self._too_large and _expects(scope)
            started = time.perf_counter()
            call = self._reader.call(scope, body, request_id=request_id)
            reply = await self._reply(call)
        except _Left:
            return
        except Exception as error:
            unread = unread or isinstance(error, _Unread)
            reply = http.fail(call, error)
        reply.headers["X-Request-Id"] = request_id
        self._deliver(reply.effects, now=call.now)
        self._note(call, reply, started)
        headers = [
            (name.lower().encode("latin-1"), value.encode("latin-1"))
            for name, value in reply.headers.items()
        ]
        if reply.status not in (204, 304):
            headers.append((b"content-length", b"%d" % len(reply.body)))
        if unread:
            headers.append((b"connection", b"close"))
        await send({"type": "http.response.start", "status": reply.status, "headers": headers})
        await send({"type": "http.response.body", "body": reply.body})

    async def _reply(self, call: Call) -> Reply:
        if self._publishing is not None and call.path.startswith(WAY):
            return self._published(self._publishing, call)
        if call.path not in status.PAGES or call.method == "OPTIONS":
            reply = await self._answered(call)
            if self._publishing is not None:
                self._publishing.heard(call, reply)
            return reply
        self.service.limits.spend_address(call.source_ip, clock=call.clock)
        if call.method != "GET":
            raise MethodNotAllowed("this path takes GET", allow="GET, OPTIONS")
        return await self._pages.reply(call.path)

    async def _answered(self, call: Call) -> Reply:
        """Answer a call; what waits for others to answer holds up nobody else."""
        answer = http.begin(self.service, call)
        if isinstance(answer, Wait):
            pending = [asyncio.wrap_future(future) for future in answer.pending]
            await asyncio.wait(pending, timeout=answer.within_s)
            answer = http.finish(call, answer)
        return answer

    def _published(self, publishing: Publishing, call: Call) -> Reply:
        if call.method != "OPTIONS":
            self.service.limits.spend_address(call.source_ip, clock=call.clock)
        return publishing.reply(call)

    async def _body(self, scope: Scope, receive: Receive) -> bytes:
        """Read the body; of one that is too large, no more than says so."""
        for name, value in scope["headers"]:
            if name == b"content-length" and int(value) >= len(self._too_large):
                return self._too_large
        event = await receive()
        if event["type"] == "http.request" and not event.get("more_body", False):
            return bytes(event.get("body", b""))
        pieces = bytearray()
        try:
            async with asyncio.timeout(self.bounds.body_s):
                return await self._pieced(pieces, event, receive)
        except TimeoutError:
            wait = self.bounds.body_s
            raise _TooSlow(f"the body did not arrive within {wait} s") from None
        finally:
            self._waiting_bytes -= len(pieces)

    async def _pieced(self, pieces: bytearray, event: Event, receive: Receive) -> bytes:
        while event["type"] == "http.request":
            piece = event.get("body", b"")
            pieces += piece
            self._waiting_bytes += len(piece)
            if len(pieces) >= len(self._too_large):
                return self._too_large
            if not event.get("more_body", False):
                return bytes(pieces)
            if self._waiting_bytes > self.bounds.waiting_body_bytes:
                raise _TooMany("too many large calls are under way", retry_after_s=5)
            event = await receive()
        raise _Left

    # --- sockets --------------------------------------------------------------------

    def admit(self, scope: Scope, held: WebSocket) -> Reply:
        """Answer a handshake: 101, or a refusal."""
        request_id = secrets.token_hex(8)
        call = Call("GET", scope["path"], request_id=request_id)
        started = time.perf_counter()
        try:
            call = self._reader.call(scope, b"", request_id=request_id)
            connection = Connection(secrets.token_urlsafe(12))
            opened = self._open(call, connection)
        except Exception as error:
            reply = http.fail(call, error)
        else:
            held.id, held.address, held.heard_at = connection.id, call.source_ip, call.clock
            held.until = call.clock + self.service.settings.socket_s
            headers = {"X-Request-Id": request_id}
            if opened.subprotocol:
                headers["Sec-WebSocket-Protocol"] = opened.subprotocol
            reply = Reply(101, headers=headers, effects=opened.effects)
        if call.path == sockets.WAY:
            reply.route = f"GET {sockets.WAY}"
        self._note(call, reply, started)
        return reply

    def refuse(self, message: str) -> Reply:
        """Answer what is no handshake."""
        call = Call("GET", "", request_id=secrets.token_hex(8))
        return http.fail(call, InvalidRequest(message))

    def opened(self, held: WebSocket, reply: Reply) -> None:
        """Say hello on a socket that was admitted with *reply*."""
        self.sockets.add(held)
        connection = Connection(held.id)
        self._perform(lambda now: reply.effects)
        self._perform(lambda now: sockets.greet(self.service, connection, now=now))

    def heard(self, held: WebSocket, text: str) -> None:
        """Take a text."""
        connection = Connection(held.id)
        self._perform(lambda now: sockets.receive(self.service, connection, text, now=now))

    def counted(self, held: WebSocket) -> bool:
        """Count a frame that is no text; say whether there may be one more."""
        try:
            self.service.limits.spend_frame(held.id, clock=int(time.time()))
        except RateLimited:
            return False
        return True

    def closed(self, held: WebSocket) -> None:
        """Let go of a socket that was admitted."""
        self.sockets.remove(held)
        connection = Connection(held.id)
        self._perform(lambda now: sockets.closed(self.service, connection, now=now))

    def say_goodbye(self) -> None:
        """Close every socket, as the host is about to stop."""
        for held in self.sockets:
            held.close(GOING_AWAY, "the service is stopping; connect again")

    def _open(self, call: Call, connection: Connection) -> sockets.Opened:
        if call.path != sockets.WAY:
            raise NotFound(f"there is no WebSocket here; it is at {sockets.WAY}")
        if (
            len(self.sockets) >= self.bounds.sockets
            or self.sockets.at(call.source_ip) >= self.bounds.address_sockets
        ):
            raise RateLimited("too many sockets are open; try again later", retry_after_s=30)
        return sockets.open_socket(self.service, call, connection)

    def _perform(self, step: Callable[[int], Iterable[Effect]]) -> None:
        """Take a step and deliver what follows from it; the server outlives whatever happens."""
        now = int(time.time())
        try:
            sockets.deliver(self.service, step(now), now=now)
        except store.Unavailable:
            _log.warning("the store did not answer in time")
        except Exception:
            _log.exception("unforeseen")

    def _deliver(self, effects: Iterable[Effect], *, now: int) -> None:
        if effects:
            self._perform(lambda _: effects)

    def _note(self, call: Call, reply: Reply, started: float) -> None:
        latency_s = time.perf_counter() - started
        self.numbers.note(reply, latency_s)
        log.call(call, reply, latency_s=latency_s)

    # --- beside the calls -------------------------------------------------------------

    async def _lifespan(self, receive: Receive, send: Send) -> None:
        await receive()
        async with self._chores():
            await send({"type": "lifespan.startup.complete"})
            await receive()
        await send({"type": "lifespan.shutdown.complete"})

    @contextlib.asynccontextmanager
    async def _chores(self) -> AsyncIterator[None]:
        """Keep house while the server runs."""
        chores = [
            asyncio.create_task(self._sweep()),
            asyncio.create_task(_every(PURGE_S, self._purge)),
            asyncio.create_task(_every(1.0, self._look_after_sockets)),
            asyncio.create_task(_every(CHECKPOINT_S, self._checkpoint, beside=True)),
            asyncio.create_task(self._publish()),
        ]
        try:
            yield
        finally:
            for chore in chores:
                chore.cancel()
            await asyncio.gather(*chores, return_exceptions=True)
            if self._publishing is not None:
                self._publishing.stop()

    async def _publish(self) -> None:
        """Publish beside the calls, when it is time to."""
        while self._publishing is not None:
            await asyncio.sleep(SOON_S)
            try:
                if self._publishing.due(int(time.time())):
                    await asyncio.to_thread(self._publishing.run)
            except Exception:
                _log.exception("unforeseen")

    async def _sweep(self) -> None:
        """Sweep relay seats slice by slice, so that many of them hold nobody up."""
        after = ""
        while True:
            await asyncio.sleep(SLICE_S if after else SWEEP_S)
            now = int(time.time())
            try:
                swept = relay.sweep(self.service, now=now, after=after)
                self._deliver(swept.effects, now=now)
                after = swept.after
            except Exception:
                _log.exception("unforeseen")

    def _purge(self) -> None:
        """Remove what has expired among the next few hundred items of each table."""
        purge = getattr(self.service.stores, "purge", None)  # DynamoDB does that by itself
        if purge is not None:
            purge(int(time.time()), slice_items=PURGE_ITEMS)

    def _checkpoint(self) -> None:
        """Write to the file what has been committed; runs in a thread, as the disk may be slow."""
        checkpoint = getattr(self.service.stores, "checkpoint", None)
        if checkpoint is not None:
            checkpoint()

    def _look_after_sockets(self) -> None:
        """Say PING where it is silent, and end what is too old."""
        clock = time.time()
        for held in self.sockets:
            if held.until <= clock:
                held.close(GOING_AWAY, "open for too long; connect again")
            elif held.heard_at + self.bounds.silence_s <= clock:
                held.heard_at = clock
                with contextlib.suppress(Gone):
                    held.put(PING)


class _Left(Exception):
    """The caller went away in the middle of its call."""


class _Unread(Refused):
    """A refusal before the call was read, after which the connection is of no more use."""


class _TooSlow(_Unread, InvalidRequest):
    """The body takes too long."""


class _TooMany(_Unread, Unavailable):
    """The bodies of all callers together take too much memory."""


async def _every(period_s: float, chore: Callable[[], None], *, beside: bool = False) -> None:
    while True:
        await asyncio.sleep(period_s)
        try:
            if beside:
                await asyncio.to_thread(chore)
            else:
                chore()
        except store.Unavailable:
            _log.warning("the store did not answer in time")
        except Exception:
            _log.exception("unforeseen")


def _expects(scope: Scope) -> bool:
    """Say whether the caller holds its body back until it is told to go on."""
    return any(name == b"expect" for name, _ in scope["headers"])
