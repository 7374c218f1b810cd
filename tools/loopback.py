"""Loopback: web servers on this machine that behave, or misbehave as they are told.

For the smoke test and for tests of attacks: real sockets, and every way in which a source
can fail its clients.
"""

from __future__ import annotations

import asyncio
import gzip
import json
import socket
from collections.abc import Awaitable, Callable, Mapping
from contextlib import suppress
from typing import NamedTuple, Self
from urllib.parse import parse_qs, urlsplit

from capsules.manifest import Files
from capsules.ticket import Ticket

BOMB = gzip.compress(bytes(64 << 20))
"""64 MiB of nothing."""


class Asked(NamedTuple):
    """A request."""

    method: str
    path: str
    query: Mapping[str, list[str]]
    body: bytes


Answer = Callable[[Asked, asyncio.StreamWriter], Awaitable[None]]


class Place:
    """A web server with one answer for each path: ``async with Place({...}) as place``."""

    def __init__(self, answers: Mapping[str, Answer] | None = None) -> None:
        self.answers = dict(answers or {})
        self.asked: list[Asked] = []
        self.url = ""
        self._open: set[asyncio.Task[None]] = set()

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        self.url = f"http://127.0.0.1:{self._server.sockets[0].getsockname()[1]}"
        return self

    async def __aexit__(self, *exc: object) -> None:
        self._server.close()
        for task in self._open:
            task.cancel()
        await asyncio.gather(*self._open, return_exceptions=True)

    @property
    def paths(self) -> list[str]:
        """What was asked for."""
        return [asked.path for asked in self.asked]

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        if task is not None:
            self._open.add(task)
            task.add_done_callback(self._open.discard)
        try:
            with suppress(OSError, asyncio.IncompleteReadError, asyncio.CancelledError):
                asked = await _read(reader)
                self.asked.append(asked)
                await self.answers.get(asked.path, status(404))(asked, writer)
        finally:
            writer.transport.abort() if writer.transport.get_write_buffer_size() else writer.close()


async def _read(reader: asyncio.StreamReader) -> Asked:
    head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
    first, *lines = head.rstrip("\r\n").split("\r\n")
    method, target, _ = first.split(" ")
    headers = {name.lower(): value for name, _, value in (line.partition(": ") for line in lines)}
    body = await reader.readexactly(int(headers.get("content-length", "0")))
    parts = urlsplit(target)
    return Asked(method, parts.path, parse_qs(parts.query, keep_blank_values=True), body)


# --- answers ------------------------------------------------------------------


def says(body: bytes, *, kind: str = "application/json", **headers: str) -> Answer:
    """Answer with a body."""
    return status(200, body, content_type=kind, **headers)


def status(code: int, body: bytes = b"", **headers: str) -> Answer:
    """Answer with a status; headers are written with underscores."""
    lines = {"content_length": str(len(body)), "connection": "close"} | headers
    head = "".join(f"{name.replace('_', '-')}: {value}\r\n" for name, value in lines.items())

    async def answer(asked: Asked, writer: asyncio.StreamWriter) -> None:
        writer.write(f"HTTP/1.1 {code} As It Is\r\n{head}\r\n".encode() + body)
        await writer.drain()

    return answer


def page(code: int = 200) -> Answer:
    """Answer with HTML, as hosts do that know nothing of us."""
    return status(code, b"<!doctype html><title>Welcome</title>", content_type="text/html")


def redirects(target: str) -> Answer:
    """Send whoever asks elsewhere."""
    return status(302, location=target)


async def hangs(asked: Asked, writer: asyncio.StreamWriter) -> None:
    """Take the call, and say nothing."""
    await asyncio.Event().wait()


async def breaks_off(asked: Asked, writer: asyncio.StreamWriter) -> None:
    """Promise more than comes."""
    writer.write(b'HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\n{"ok"')
    await writer.drain()


def drips(every_s: float = 0.02, *, head: bool = False) -> Answer:
    """Send a byte now and then, without end; with *head* even of the headers."""

    async def answer(asked: Asked, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 200 OK\r\n" + (b"" if head else b"\r\n"))
        while not writer.is_closing():
            writer.write(b"x: y\r\n" if head else b" ")
            await writer.drain()
            await asyncio.sleep(every_s)

    return answer


async def never_ends(asked: Asked, writer: asyncio.StreamWriter) -> None:
    """Send as much as whoever asks will take."""
    writer.write(b"HTTP/1.1 200 OK\r\n\r\n")
    while not writer.is_closing():
        writer.write(b" " * 65536)
        await writer.drain()


def in_turn(*answers: Answer) -> Answer:
    """Answer differently each time, and from the last one on the same."""
    left = list(answers)

    async def answer(asked: Asked, writer: asyncio.StreamWriter) -> None:
        await (left.pop(0) if len(left) > 1 else left[0])(asked, writer)

    return answer


def lists(*tickets: Ticket, announced: bool = True, reason: str = "") -> dict[str, Answer]:
    """Answer as a beacon that knows these tickets."""
    peers = [ticket.to_json() for ticket in tickets]
    listed = json.dumps({"ok": True, "peers": peers}).encode()
    refused = {"ok": False, "peers": [], "validation": {"ok": False, "reason": reason}}
    taken = listed if announced else json.dumps(refused).encode()
    return {"/peers": says(listed), "/announce": says(taken)}


def publishes(files: Files, path: str = "/capsules/mainnet/peers.json") -> dict[str, Answer]:
    """Answer as a host of a published capsule."""
    return {
        path: says(files.capsule),
        f"{path}.sig": says(files.signature, kind="text/plain"),
        f"{path}.manifest": says(files.manifest),
    }


def nobody() -> str:
    """Return a URL where nothing listens."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        return f"http://127.0.0.1:{taken.getsockname()[1]}"
