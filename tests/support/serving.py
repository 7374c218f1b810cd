"""The AWS host's gateway on a port of this machine, as clients see it."""

import asyncio
import contextlib
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import uvicorn

from chalicelib.circle import sockets
from tests.support import aws, local
from tests.support.gateway import (
    FRAME_BYTES,
    Answer,
    Gateway,
    HandshakeRefused,
    Wire,
)
from tests.support.members2 import address

START_WITHIN_S = 20


@contextlib.contextmanager
def on_aws(directory: Path) -> Iterator[str]:
    """Run the handlers of AWS for real clients; give the whole address. No crash is passed over."""
    with (
        aws.running("sqlite", directory=directory, **local.GENEROUS) as gateway,
        serving(gateway) as url,
        aws.environ({"MUSTER_WEBSOCKET_URL": url.replace("http", "ws", 1) + "/v2/socket"}),
    ):
        yield address(url).text
    assert gateway.crashes == []


@contextlib.contextmanager
def serving(gateway: Gateway) -> Iterator[str]:
    """Serve a gateway from a thread; give its base URL."""
    config = uvicorn.Config(
        _Front(gateway),
        host="127.0.0.1",
        port=0,
        http="httptools",
        ws="websockets-sansio",
        ws_ping_interval=None,
        ws_per_message_deflate=False,
        ws_max_size=256 * 1024,
        log_config=None,
        access_log=False,
        proxy_headers=False,
        server_header=False,
        timeout_graceful_shutdown=1,
    )
    server = uvicorn.Server(config)
    thread = threading.Thread(target=server.run)
    thread.start()
    try:
        deadline = time.monotonic() + START_WITHIN_S
        while not server.started:
            assert time.monotonic() < deadline, "the server did not start"
            time.sleep(0.005)
        yield f"http://127.0.0.1:{server.servers[0].sockets[0].getsockname()[1]}"
    finally:
        server.should_exit = True
        thread.join()


class _Front:
    """An ASGI app that passes calls and frames to a `Gateway`, under one address."""

    def __init__(self, gateway: Gateway) -> None:
        self._gateway = gateway
        self._threads = ThreadPoolExecutor(256, thread_name_prefix="front")

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] == "http":
            await self._http(scope, receive, send)
        elif scope["type"] == "websocket":
            await self._websocket(scope, receive, send)
        else:
            await self._lifespan(receive, send)

    async def _http(self, scope: Any, receive: Any, send: Any) -> None:
        body = b""
        more = True
        while more:
            event = await receive()
            body += event.get("body", b"")
            more = event.get("more_body", False)
        answer = await self._aside(
            lambda: self._gateway.call(
                scope["method"],
                scope["path"],
                query=scope["query_string"].decode(),
                headers=_headers(scope),
                body=body,
                source_ip=scope["client"][0],
            )
        )
        await _say(send, "http", answer)

    async def _websocket(self, scope: Any, receive: Any, send: Any) -> None:
        await receive()
        if scope["path"] not in sockets.PATHS:
            answer = self._gateway.call("GET", scope["path"])
            await _say(send, "websocket.http", answer)
            return
        try:
            wire = await self._aside(
                lambda: self._gateway.open(
                    scope["query_string"].decode(),
                    headers=_headers(scope),
                    source_ip=scope["client"][0],
                )
            )
        except HandshakeRefused as refused:
            await _say(send, "websocket.http", refused.answer)
            return
        await send({"type": "websocket.accept", "subprotocol": wire.subprotocol})
        pump = asyncio.create_task(self._pump(wire, send))
        await self._listen(wire, receive, send)
        wire.received.put(None)
        with contextlib.suppress(Exception):
            await pump

    async def _listen(self, wire: Wire, receive: Any, send: Any) -> None:
        while (event := await receive())["type"] != "websocket.disconnect":
            if not wire.closed:
                await self._pass(wire, event.get("text"), send)
        if not wire.closed:
            await self._aside(wire.close)

    async def _pass(self, wire: Wire, text: str | None, send: Any) -> None:
        if text is None:
            await send({"type": "websocket.close", "code": 1003})
        elif len(text.encode()) > FRAME_BYTES:
            await send({"type": "websocket.close", "code": 1009})
        else:
            await self._aside(lambda: wire.send(text))

    async def _pump(self, wire: Wire, send: Any) -> None:
        while (text := await self._aside(wire.received.get)) is not None:
            await send({"type": "websocket.send", "text": text})
        await send({"type": "websocket.close", "code": 1000})

    async def _aside(self, work: Any) -> Any:
        return await asyncio.get_running_loop().run_in_executor(self._threads, work)

    async def _lifespan(self, receive: Any, send: Any) -> None:
        while True:
            event = await receive()
            await send({"type": f"{event['type']}.complete"})
            if event["type"] == "lifespan.shutdown":
                self._threads.shutdown(wait=False, cancel_futures=True)
                return


def _headers(scope: Any) -> list[tuple[str, str]]:
    return [(name.decode(), value.decode("latin-1")) for name, value in scope["headers"]]


async def _say(send: Any, kind: str, answer: Answer) -> None:
    headers = [(name.encode(), value.encode()) for name, value in answer.headers.items()]
    if answer.status != 204:
        headers.append((b"content-length", str(len(answer.body)).encode()))
    await send({"type": f"{kind}.response.start", "status": answer.status, "headers": headers})
    await send({"type": f"{kind}.response.body", "body": answer.body})
