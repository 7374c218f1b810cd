"""The one-machine host as an ASGI app.

Calls are answered on the event loop, as the store takes tens of microseconds;
what could take longer runs in a thread.
"""

from __future__ import annotations

import asyncio
import secrets
import time
from collections.abc import Awaitable, Callable, Iterable
from dataclasses import asdict

from chalicelib import app_files, http
from chalicelib.assist import plan, probing
from chalicelib.call import Call, Reply, Wait
from chalicelib.limits import Tally
from chalicelib.local import status
from chalicelib.local.bodies import Bodies, CallerLeft, Event, Receive, Unread
from chalicelib.local.bounds import Bounds
from chalicelib.local.calls import Reader, Scope
from chalicelib.local.certificate import Certificate
from chalicelib.local.counters import Counters
from chalicelib.local.desk import SocketDesk
from chalicelib.local.housekeeping import Housekeeping
from chalicelib.local.memory import Memory
from chalicelib.local.open_sockets import OpenSockets
from chalicelib.local.publishing import FolderPublishing
from chalicelib.service import Service
from chalicelib.settings import Settings
from chalicelib.store import Stores
from muster.errors import NotFound, RateLimited, Refused, Unavailable

Send = Callable[[Event], Awaitable[None]]


class LocalHost:
    """The ASGI app: turns events into calls, and replies into events."""

    def __init__(
        self,
        settings: Settings,
        stores: Stores,
        *,
        trusted_proxies: Iterable[str] = (),
        bounds: Bounds | None = None,
        certificate: Certificate | None = None,
    ) -> None:
        self.bounds = bounds or Bounds()
        self.certificate = certificate
        self.connections = Tally()
        self.memory = Memory(self.bounds)
        opened = OpenSockets()
        self.service = Service(
            settings,
            stores,
            opened,
            secrets.token_bytes,
            prober=probing.open_prober(settings.assist or plan.NOTHING),
            host_limits=asdict(self.bounds),
        )
        self._reader = Reader(trusted_proxies)
        self._counters = Counters(self.service, opened, started_at=time.time())
        self._counters.memory = self.memory
        self.desk = SocketDesk(
            self.service,
            opened,
            reader=self._reader,
            counters=self._counters,
            bounds=self.bounds,
            memory=self.memory,
        )
        self._housekeeping = Housekeeping(self.service, self.desk, certificate)
        self._pages = status.Pages(self._counters, token=settings.status_token)
        self._bodies = Bodies(self.bounds, most_bytes=settings.body_bytes)
        self._app_files = app_files.load()
        self._publishing: FolderPublishing | None = None

    def attach(self, publishing: FolderPublishing) -> None:
        """Publish capsules from now on, serve them, and show how that goes."""
        self._publishing = publishing
        self._housekeeping.publishing = self._counters.publishing = publishing
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
            raise NotImplementedError("WebSockets are served by chalicelib.local.websockets")

    def trusts(self, address: str) -> bool:
        """Say whether a trusted proxy is at *address*, so that it speaks for many."""
        return self._reader.trusts(address)

    def crowded(self, address: str, *, opened: int) -> Refused | None:
        """Return why there may be no further connection from *address*; *opened* counts it."""
        if opened > self.bounds.connections:
            return Unavailable("too many connections", retry_after_s=5)
        most = self.bounds.address_connections
        if not self.trusts(address) and self.connections.full(address, most=most):
            return RateLimited("too many connections from this address", retry_after_s=5)
        return None

    async def _lifespan(self, receive: Receive, send: Send) -> None:
        await receive()
        async with self._housekeeping.running():
            await send({"type": "lifespan.startup.complete"})
            await receive()
        await send({"type": "lifespan.shutdown.complete"})

    async def _http(self, scope: Scope, receive: Receive, send: Send) -> None:
        request_id = secrets.token_hex(8)
        call = Call(scope["method"], scope["path"], request_id=request_id)
        unread = False
        started = time.perf_counter()
        try:
            call = self._reader.call(scope, request_id=request_id)
            reply = await self._page(call, scope) or http.meet(self.service, call)
            if reply is None:
                call.body = await self._bodies.read(receive)
                call.clock, started = time.time(), time.perf_counter()
                reply = await self._answer(call)
            else:
                unread = "expect" in call.headers  # so the caller still holds its body back
        except CallerLeft:
            return
        except Exception as error:
            unread = isinstance(error, Unread)
            reply = http.fail(call, error)
        reply.headers["X-Request-Id"] = request_id
        self.desk.deliver(reply.effects)
        self._counters.answered(call, reply, latency_s=time.perf_counter() - started)
        await _send(reply, send, last=unread)

    async def _page(self, call: Call, scope: Scope) -> Reply | None:
        """Answer a call for a page or a file, which are the host's own."""
        publishing = self._publishing
        if http.for_browsers(call.path):
            self.service.limits.spend_address(call.source_ip, clock=call.clock)
            if b"%" in scope.get("raw_path", b""):  # what is escaped resolves to other imports
                raise NotFound(http.NO_SUCH_PATH)
            return self._app_files.reply(call)
        if publishing is not None and call.path.startswith(http.CAPSULES):
            self.service.limits.spend_address(call.source_ip, clock=call.clock)
            return publishing.files.reply(call)
        if call.path not in status.PAGES or call.method == "OPTIONS":
            return None
        self.service.limits.spend_address(call.source_ip, clock=call.clock)
        return await self._pages.reply(call)

    async def _answer(self, call: Call) -> Reply:
        """Answer a call; what waits for others to answer holds up nobody else."""
        reply = http.begin(self.service, call)
        if isinstance(reply, Wait):
            pending = [asyncio.wrap_future(future) for future in reply.pending]
            await asyncio.wait(pending, timeout=reply.within_s)
            reply = http.finish(call, reply)
        if self._publishing is not None:
            self._publishing.heard(call, reply)
        return reply


async def _send(reply: Reply, send: Send, *, last: bool) -> None:
    """Send a reply; after the *last* one the connection is closed."""
    headers = [
        (name.lower().encode("latin-1"), value.encode("latin-1"))
        for name, value in reply.headers.items()
    ]
    if reply.status not in (204, 304):
        headers.append((b"content-length", b"%d" % len(reply.body)))
    if last:
        headers.append((b"connection", b"close"))
    await send({"type": "http.response.start", "status": reply.status, "headers": headers})
    await send({"type": "http.response.body", "body": reply.body})
