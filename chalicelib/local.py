"""The one-machine host: HTTP and WebSocket on one port, SQLite in one directory.

A raw ASGI app on uvicorn. Calls are answered on the event loop, as the store
takes tens of microseconds; what could take longer runs beside it.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import fcntl
import ipaddress
import logging
import os
import re
import secrets
import shutil
import socket
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TextIO
from urllib.parse import parse_qsl

from chalicelib import http, log, relay, sockets, store
from chalicelib.call import Call, Connection, Effect, Reply
from chalicelib.local_sockets import GOING_AWAY, PING, TOO_BIG, UNSUPPORTED, Socket, Sockets
from chalicelib.service import Service
from chalicelib.settings import Settings
from chalicelib.store import Stores
from muster import frames
from muster.errors import (
    InternalError,
    InvalidRequest,
    NotFound,
    PayloadTooLarge,
    RateLimited,
    Refused,
    Unavailable,
)

Scope = dict[str, Any]
Receive = Callable[[], Awaitable[dict[str, Any]]]
SendEvent = Callable[[dict[str, Any]], Awaitable[None]]
Network = ipaddress.IPv4Network | ipaddress.IPv6Network

_log = logging.getLogger("muster")

_BAD_ESCAPE = re.compile(rb"%(?![0-9A-Fa-f]{2})")
_HOST = re.compile(r"[A-Za-z0-9._\-]{1,253}(:[0-9]{1,5})?|\[[0-9A-Fa-f:.]{2,45}\](:[0-9]{1,5})?")
_MOST_PARAMETERS = 64


@dataclass(frozen=True, slots=True)
class Bounds:
    """What one process takes on at once; times in seconds."""

    sockets: int = 10_000
    address_sockets: int = 1_000
    body_s: float = 10.0
    silence_s: float = 15.0
    sweep_s: float = 5.0
    purge_s: float = 60.0


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
        self.service = Service(settings, stores, self.sockets, secrets.token_bytes)
        self._trusted: tuple[Network, ...] = tuple(
            ipaddress.ip_network(proxy, strict=False) for proxy in trusted_proxies
        )
        self._too_large = bytes(settings.body_bytes + 1)

    async def __call__(self, scope: Scope, receive: Receive, send: SendEvent) -> None:
        """Answer one ASGI connection."""
        if scope["type"] == "http":
            await self._http(scope, receive, send)
        elif scope["type"] == "websocket":
            await self._websocket(scope, receive, send)
        else:
            await self._lifespan(receive, send)

    # --- HTTP -------------------------------------------------------------------

    async def _http(self, scope: Scope, receive: Receive, send: SendEvent) -> None:
        started = time.perf_counter()
        request_id = secrets.token_hex(8)
        try:
            body = await self._body(scope, receive)
            call = self._call(scope, body, request_id)
        except Refused as refusal:
            call = Call(method=scope["method"], path="", request_id=request_id)
            reply = http.refuse(refusal)
            reply.headers["X-Request-Id"] = request_id
        except _Left:
            return
        else:
            reply = http.handle(self.service, call)
        self._deliver(reply.effects, now=call.now)
        log.call(call, reply, latency_s=time.perf_counter() - started)
        await _answer(send, "http", reply)

    async def _body(self, scope: Scope, receive: Receive) -> bytes:
        """Read the body; of one that is too large, no more than says so."""
        for name, value in scope["headers"]:
            if name == b"content-length" and int(value) >= len(self._too_large):
                return self._too_large
        event = await receive()
        if event["type"] == "http.request" and not event.get("more_body", False):
            return bytes(event.get("body", b""))
        try:
            async with asyncio.timeout(self.bounds.body_s):
                return await self._slow_body(event, receive)
        except TimeoutError:
            raise InvalidRequest(
                f"the body did not arrive within {self.bounds.body_s:g} s"
            ) from None

    async def _slow_body(self, event: dict[str, Any], receive: Receive) -> bytes:
        body = bytearray()
        while True:
            if event["type"] == "http.disconnect":
                raise _Left
            body += event.get("body", b"")
            if len(body) >= len(self._too_large):
                return self._too_large
            if not event.get("more_body", False):
                return bytes(body)
            event = await receive()

    # --- WebSocket --------------------------------------------------------------

    async def _websocket(self, scope: Scope, receive: Receive, send: SendEvent) -> None:
        await receive()
        connection = Connection(secrets.token_urlsafe(12))
        request_id = secrets.token_hex(8)
        try:
            call, opened = self._open(scope, connection, request_id)
        except Refused as refusal:
            reply = http.refuse(refusal)
            reply.headers["X-Request-Id"] = request_id
            await _answer(send, "websocket.http", reply)
            return
        held = Socket(
            call.source_ip,
            heard=call.clock,
            until=call.clock + self.service.settings.socket_s,
        )
        self.sockets.add(connection.id, held)
        try:
            await send(
                {
                    "type": "websocket.accept",
                    "subprotocol": opened.subprotocol,
                    "headers": [(b"x-request-id", request_id.encode())],
                }
            )
            held.open(send)
            self._deliver(opened.effects, now=call.now)
            self._perform(lambda now: sockets.greet(self.service, connection, now=now))
            await self._listen(connection, held, receive)
        except OSError:
            pass  # gone before it was open
        finally:
            self.sockets.remove(connection.id)
            self._perform(lambda now: sockets.closed(self.service, connection, now=now))

    def _open(
        self, scope: Scope, connection: Connection, request_id: str
    ) -> tuple[Call, sockets.Opened]:
        call = self._call(scope, b"", request_id, method="GET")
        if call.path != sockets.WAY:
            raise NotFound(f"there is no WebSocket here; it is at {sockets.WAY}")
        if (
            len(self.sockets) >= self.bounds.sockets
            or self.sockets.at(call.source_ip) >= self.bounds.address_sockets
        ):
            raise RateLimited("too many sockets are open; try again later", retry_after_s=30)
        try:
            return call, sockets.open_socket(self.service, call, connection)
        except Refused:
            raise
        except store.Unavailable:
            raise Unavailable("the store did not answer in time; try again") from None
        except Exception:
            _log.exception("unforeseen", extra={"request_id": request_id})
            raise InternalError("the service failed; the log has the request id") from None

    async def _listen(self, connection: Connection, held: Socket, receive: Receive) -> None:
        while True:
            event = await receive()
            if event["type"] == "websocket.disconnect":
                return
            if held.closed:
                continue
            held.heard = time.time()
            text = event.get("text")
            if text is None:
                held.close(UNSUPPORTED, "text frames only")
            elif len(text) > frames.MAX_TEXT_BYTES or (
                not text.isascii() and len(text.encode()) > frames.MAX_TEXT_BYTES
            ):
                held.close(TOO_BIG, f"a frame may have {frames.MAX_TEXT_BYTES} bytes")
            else:
                self._receive(connection, text)

    def _receive(self, connection: Connection, text: str) -> None:
        self._perform(lambda now: sockets.receive(self.service, connection, text, now=now))

    # --- both -------------------------------------------------------------------

    def _call(
        self, scope: Scope, body: bytes, request_id: str, *, method: str | None = None
    ) -> Call:
        headers: dict[str, str] = {}
        for raw_name, raw_value in scope["headers"]:
            name, value = raw_name.decode("latin-1"), raw_value.decode("latin-1")
            headers[name] = f"{headers[name]}, {value}" if name in headers else value
        source_ip, source_port, secure = self._source(scope, headers)
        method = method or scope["method"]
        return Call(
            method="GET" if method == "HEAD" else method,
            path=scope["path"],
            query=_query(scope["query_string"]),
            headers=headers,
            body=body,
            source_ip=source_ip,
            source_port=source_port,
            clock=time.time(),
            request_id=request_id,
            websocket_url=_websocket_url(scope, headers, secure=secure),
        )

    def _source(self, scope: Scope, headers: Mapping[str, str]) -> tuple[str, int | None, bool]:
        """Return where a call comes from, and whether it came over TLS.

        What a header says counts only as far as it was written by trusted proxies.
        """
        address, port = scope["client"] or ("", None)
        secure = scope["scheme"] in ("https", "wss")
        if not self._trusted:
            return address, port, secure
        if not self._trusts(address):
            return address, port, secure
        if "x-forwarded-proto" in headers:
            secure = headers["x-forwarded-proto"].rpartition(",")[2].strip() in ("https", "wss")
        for hop in reversed(headers.get("x-forwarded-for", "").split(",")):
            found = _address(hop)
            if found is None:
                break
            address = found
            if not self._trusts(found):
                break
        return address, None, secure

    def _trusts(self, address: str) -> bool:
        try:
            parsed = ipaddress.ip_address(address)
        except ValueError:
            return False
        return any(parsed in network for network in self._trusted)

    def _perform(self, step: Callable[[int], Iterable[Effect]]) -> None:
        """Take a step and deliver what follows from it; the server outlives whatever happens."""
        now = int(time.time())
        try:
            sockets.deliver(self.service, step(now), now=now)
        except store.Unavailable:
            _log.warning("the store did not answer in time")
        except Exception:
            _log.exception("unforeseen")

    def _deliver(self, effects: Sequence[Effect], *, now: int) -> None:
        if effects:
            self._perform(lambda _: effects)

    # --- beside the calls ---------------------------------------------------------

    async def _lifespan(self, receive: Receive, send: SendEvent) -> None:
        async with self._running():
            while True:
                event = await receive()
                if event["type"] == "lifespan.startup":
                    await send({"type": "lifespan.startup.complete"})
                else:
                    break
        await send({"type": "lifespan.shutdown.complete"})

    @contextlib.asynccontextmanager
    async def _running(self) -> AsyncIterator[None]:
        """Keep house while the server runs."""
        chores = [
            asyncio.create_task(_every(self.bounds.sweep_s, self._sweep)),
            asyncio.create_task(_every(1.0, self._look_after_sockets)),
            asyncio.create_task(_every(self.bounds.purge_s, self._purge)),
        ]
        try:
            yield
        finally:
            for chore in chores:
                chore.cancel()
            await asyncio.gather(*chores, return_exceptions=True)

    async def _sweep(self) -> None:
        self._perform(lambda now: relay.sweep(self.service, now=now))

    async def _look_after_sockets(self) -> None:
        """Say PING where it is silent, and end what is too old."""
        clock = time.time()
        for _, held in self.sockets:
            if held.closed:
                continue
            if held.until <= clock:
                held.close(GOING_AWAY, "open for too long; connect again")
            elif held.heard + self.bounds.silence_s <= clock:
                held.heard = clock
                with contextlib.suppress(Exception):
                    held.put(PING)

    async def _purge(self) -> None:
        """Remove what has expired, a slice at a time, so that calls come in between."""
        purge = getattr(self.service.stores, "purge", None)
        if purge is None:
            return
        for _ in range(100):
            purge(int(time.time()), slice_items=200)
            await asyncio.sleep(0.05)

    def say_goodbye(self) -> None:
        """Close every socket, as the host is about to stop."""
        for _, held in self.sockets:
            held.close(GOING_AWAY, "the service is stopping; connect again")


class _Left(Exception):
    """The caller went away in the middle of its call."""


async def _every(period_s: float, chore: Callable[[], Awaitable[None]]) -> None:
    while True:
        await asyncio.sleep(period_s)
        try:
            await chore()
        except store.Unavailable:
            _log.warning("the store did not answer in time")
        except Exception:
            _log.exception("unforeseen")


async def _answer(send: SendEvent, kind: str, reply: Reply) -> None:
    headers = [
        (name.lower().encode("latin-1"), value.encode("latin-1"))
        for name, value in reply.headers.items()
    ]
    if reply.status != 204:
        headers.append((b"content-length", b"%d" % len(reply.body)))
    await send({"type": f"{kind}.response.start", "status": reply.status, "headers": headers})
    await send({"type": f"{kind}.response.body", "body": reply.body})


def _query(text: bytes) -> dict[str, str]:
    """Read a query string; of repeated parameters the first counts."""
    if not text:
        return {}
    try:
        if _BAD_ESCAPE.search(text):
            raise ValueError
        pairs = parse_qsl(
            text.decode("ascii"),
            keep_blank_values=True,
            errors="strict",
            max_num_fields=_MOST_PARAMETERS,
        )
    except ValueError:
        raise InvalidRequest("the query is not percent-encoded UTF-8") from None
    found: dict[str, str] = {}
    for name, value in pairs:
        found.setdefault(name, value)
    return found


def _address(hop: str) -> str | None:
    """Read an address as proxies write it, with or without a port."""
    text = hop.strip()
    if text.startswith("["):
        text = text[1:].partition("]")[0]
    elif text.count(":") == 1:
        text = text.partition(":")[0]
    try:
        parsed = ipaddress.ip_address(text)
    except ValueError:
        return None
    return str(getattr(parsed, "ipv4_mapped", None) or parsed)


def _websocket_url(scope: Scope, headers: Mapping[str, str], *, secure: bool) -> str:
    host = headers.get("host", "")
    if not _HOST.fullmatch(host):
        address, port = scope.get("server") or ("127.0.0.1", None)
        host = _base(address, port).partition("//")[2]
    return f"{'wss' if secure else 'ws'}://{host}{sockets.WAY}"


def build(
    settings: Settings,
    stores: Stores,
    *,
    trusted_proxies: Iterable[str] = (),
    bounds: Bounds | None = None,
) -> Host:
    """Put the host together over open stores."""
    return Host(settings, stores, trusted_proxies=trusted_proxies, bounds=bounds)


def serve(
    settings: Settings,
    *,
    host: str,
    port: int,
    data_dir: Path | str,
    trusted_proxies: Iterable[str] = (),
    verbose: bool = False,
    bounds: Bounds | None = None,
) -> None:
    """Serve until SIGTERM or SIGINT; port 0 takes any free one.

    Raises `OSError` if it cannot listen there or use the directory.
    """
    from chalicelib.local_server import run
    from chalicelib.store.sqlite import open_sqlite

    directory = Path(data_dir)
    directory.mkdir(parents=True, exist_ok=True)
    _log_to(sys.stderr, verbose=verbose)
    with _alone_in(directory), _listening(host, port) as listener:
        base = _base(host, listener.getsockname()[1])
        stores = open_sqlite(directory / "muster.sqlite3")
        app = build(settings, stores, trusted_proxies=trusted_proxies, bounds=bounds)
        print(_greeting(settings, base, directory), flush=True)
        try:
            run(app, listener)
        finally:
            stores.close()


@contextlib.contextmanager
def _alone_in(directory: Path) -> Any:
    """Hold the directory: two hosts would take each other's sockets for gone."""
    with (directory / "muster.lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise OSError(f"another muster is serving from {directory}") from None
        yield


def _listening(host: str, port: int) -> socket.socket:
    try:
        family, *_, address = socket.getaddrinfo(
            host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
        return socket.create_server(
            address[:2],
            family=family,
            backlog=2048,
            dualstack_ipv6=family == socket.AF_INET6 and host in ("::", ""),
        )
    except OSError as error:
        raise OSError(f"cannot listen on {host} port {port}: {error.strerror or error}") from error


def _base(host: str, port: int | None) -> str:
    shown = {"0.0.0.0": "127.0.0.1", "::": "[::1]", "": "127.0.0.1"}.get(host)  # noqa: S104
    if shown is None:
        shown = f"[{host}]" if ":" in host else host
    return f"http://{shown}" + (f":{port}" if port else "")


def _log_to(stream: TextIO, *, verbose: bool) -> None:
    handler = logging.StreamHandler(stream)
    handler.setFormatter(log.JsonLines())
    chatty = verbose or os.environ.get("MUSTER_LOG", "").lower() in ("info", "debug")
    levels = {
        "muster": logging.INFO if chatty else logging.WARNING,
        "uvicorn": logging.ERROR,  # below that it writes addresses and tokens
        "asyncio": logging.ERROR,
    }
    for name, level in levels.items():
        logger = logging.getLogger(name)
        logger.handlers, logger.propagate = [handler], False
        logger.setLevel(level)


def _command() -> str:
    """Return how the reader can call `muster` from here."""
    beside = Path(sys.executable).with_name("muster")
    found = shutil.which("muster")
    if (found and Path(found).samefile(beside)) or not beside.exists():
        return "muster"
    return os.path.relpath(beside) if beside.is_relative_to(Path.cwd()) else str(beside)


def _greeting(settings: Settings, base: str, directory: Path) -> str:
    muster = _command()
    return f"""Muster {settings.version} listens on {base}
  data      {directory}
  unsigned  {settings.unsigned}
  status    {base}/

see it work:    {muster} doctor {base}
talk, first:    {muster} circle new {base}
      then:     {muster} listen          and elsewhere: {muster} circle join INVITE
"""


def main(arguments: Sequence[str] | None = None) -> int:
    """Serve as told on the command line; `muster serve` is the command for people."""
    parser = argparse.ArgumentParser(prog="python -m chalicelib.local", description=__doc__)
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, default=8787)
    parser.add_argument("--data", default="data")
    parser.add_argument("--unsigned", choices=("refuse", "allow"))
    parser.add_argument("--trusted-proxy", action="append", default=[], metavar="CIDR")
    parser.add_argument("--verbose", action="store_true")
    chosen = parser.parse_args(arguments)
    environment = dict(os.environ)
    if chosen.unsigned:
        environment["MUSTER_UNSIGNED"] = chosen.unsigned
    try:
        serve(
            Settings.from_environment(environment),
            host=chosen.host,
            port=chosen.port,
            data_dir=chosen.data,
            trusted_proxies=chosen.trusted_proxy,
            verbose=chosen.verbose,
        )
    except (OSError, ValueError) as error:
        print(f"muster: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
