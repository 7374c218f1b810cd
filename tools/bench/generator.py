"""Generator: drives a server from a process of its own; returns what it saw.

Every function here runs in that process and takes and returns what can be sent
between processes.
"""

from __future__ import annotations

import asyncio
import contextlib
import gc
import time
from collections.abc import Coroutine, Iterator, Sequence
from functools import partial
from typing import Any, TypeVar

import uvloop

from muster.felund import frames
from tools.bench.figures import Run, latencies
from tools.bench.lines import Line, Socket, accepted, masked
from tools.bench.members import Member, Ready

WAY = "/v1/relay/ws"
PATIENCE_S = 30.0

_T = TypeVar("_T")


def drive(port: int, calls: Sequence[bytes], *, connections: int, seconds: float) -> Run:
    """Send calls over keep-alive connections, each waiting for its answer before the next.

    Ends after *seconds*, or when there are no calls left.
    """
    return _run(_drive(port, calls, connections=connections, seconds=seconds))


def ask(port: int, calls: Sequence[bytes]) -> list[dict[str, Any]]:
    """Make calls one after the other and return the answers."""
    return _run(_ask(port, calls))


def push(port: int, poster: Member, reader: Member, *, count: int) -> Run:
    """Post messages one by one; measure from sending the post to having the frame."""
    return _run(_push(port, poster, reader, count=count))


def relay(port: int, one: Member, other: Member, *, size: int, count: int) -> Run:
    """Pass frames one by one; measure from sending one to having it on the other seat."""
    return _run(_relay(port, one, other, size=size, count=count))


def flood(port: int, call: bytes, *, connections: int, seconds: float) -> int:
    """Send one call again and again, whatever it is answered; return how often."""
    return _run(_flood(port, call, connections=connections, seconds=seconds))


class Crowd:
    """Many idle subscriptions, held until they are told to go."""

    def __init__(self) -> None:
        self._runner = asyncio.Runner(loop_factory=uvloop.new_event_loop)
        self._sockets: list[Socket] = []

    def come(self, port: int, tokens: Sequence[str]) -> int:
        """Open a subscription for each token; return how many there are."""
        return self._runner.run(self._come(port, tokens))

    def go(self) -> None:
        """Close them all."""
        for socket in self._sockets:
            socket.close()
        self._runner.run(asyncio.sleep(0.1))
        self._runner.close()

    async def _come(self, port: int, tokens: Sequence[str]) -> int:
        for token in tokens:
            self._sockets.append(await _socket(port, token))
        return len(self._sockets)


def _run(work: Coroutine[Any, Any, _T]) -> _T:
    gc.collect()
    gc.disable()
    try:
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            return runner.run(work)
    finally:
        gc.enable()


async def _line(port: int) -> Line:
    _, line = await asyncio.get_running_loop().create_connection(Line, "127.0.0.1", port)
    return line


async def _socket(port: int, token: str) -> Socket:
    make = partial(Socket, WAY, token)
    _, socket = await asyncio.get_running_loop().create_connection(make, "127.0.0.1", port)
    await asyncio.wait_for(socket.opened, PATIENCE_S)
    return socket


async def _drive(port: int, calls: Sequence[bytes], *, connections: int, seconds: float) -> Run:
    lines = [await _line(port) for _ in range(connections)]
    done = asyncio.get_running_loop().create_future()
    took: list[float] = []
    rest = iter(calls)
    busy = len(lines)
    started = time.perf_counter()
    end = started + seconds

    def step(line: Line) -> None:
        nonlocal busy
        call = next(rest, None)
        sent = time.perf_counter()
        if call is None or sent >= end:
            busy -= 1
            if not busy and not done.done():
                done.set_result(None)
            return
        line.on_answer = partial(answered, line, sent)
        line.send(call)

    def answered(line: Line, sent: float, answer: bytes) -> None:
        took.append(time.perf_counter() - sent)
        if not accepted(answer):
            fail(RuntimeError(f"refused: {answer.decode(errors='replace')[:500]}"))
            return
        step(line)

    def fail(error: Exception) -> None:
        if not done.done():
            done.set_exception(error)

    for line in lines:
        line.on_lost = fail
        step(line)
    try:
        await asyncio.wait_for(done, seconds + PATIENCE_S)
        elapsed = time.perf_counter() - started
    finally:
        for line in lines:
            line.close()
    return {"calls": len(took), "calls_per_s": len(took) / elapsed} | latencies(took)


async def _flood(port: int, call: bytes, *, connections: int, seconds: float) -> int:
    end = time.perf_counter() + seconds

    async def send() -> int:
        sent = 0
        while time.perf_counter() < end:
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            with contextlib.suppress(OSError, asyncio.IncompleteReadError):
                while time.perf_counter() < end:
                    writer.write(call)
                    await writer.drain()
                    head = await reader.readuntil(b"\r\n\r\n")
                    length = int(head.lower().partition(b"content-length:")[2].split()[0])
                    await reader.readexactly(length)
                    sent += 1
            writer.close()
        return sent

    return sum(await asyncio.gather(*(send() for _ in range(connections))))


async def _ask(port: int, calls: Sequence[bytes]) -> list[dict[str, Any]]:
    line = await _line(port)
    try:
        return [await line.ask(call) for call in calls]
    finally:
        line.close()


async def _push(port: int, poster: Member, reader: Member, *, count: int) -> Run:
    line = await _line(port)
    token = (await line.ask(reader.subscription().http()))["token"]
    socket = await _socket(port, token)
    took: list[float] = []
    try:
        for call in _posts(poster, count):
            seen = asyncio.get_running_loop().create_future()
            socket.on_text = partial(_seen, seen, b'"MESSAGES"')
            sent = time.perf_counter()
            answer = asyncio.ensure_future(line.ask(call))
            took.append(await asyncio.wait_for(seen, PATIENCE_S) - sent)
            await answer
    finally:
        socket.close()
        line.close()
    return latencies(took)


async def _relay(port: int, one: Member, other: Member, *, size: int, count: int) -> Run:
    line = await _line(port)
    seats = []
    for mine, theirs in ((one, other), (other, one)):
        opened = await line.ask(mine.session(theirs).http())
        seats.append(await _socket(port, opened["token"]))
    near, far = seats
    session_id, payload = opened["session_id"], frames.payload(bytes(size))
    took: list[float] = []
    try:
        for seq in range(count):
            frame = frames.Frame(session_id=session_id, seq=seq, payload_b64=payload)
            ready = masked(frames.encode(frame).encode())
            loop = asyncio.get_running_loop()
            came, acked = loop.create_future(), loop.create_future()
            far.on_text = partial(_seen, came, b'"FRAME"')
            near.on_text = partial(_seen, acked, b'"ACK"')
            sent = time.perf_counter()
            near.send(ready)
            took.append(await asyncio.wait_for(came, PATIENCE_S) - sent)
            await asyncio.wait_for(acked, PATIENCE_S)
    finally:
        for seat in seats:
            seat.close()
        line.close()
    return latencies(took)


def _posts(poster: Member, count: int) -> Iterator[bytes]:
    ready: list[Ready] = [poster.post() for _ in range(count)]
    return (call.http() for call in ready)


def _seen(seen: asyncio.Future[float], kind: bytes, text: bytes) -> None:
    """Note when the first frame of a kind came; one that refuses ends the measurement."""
    now = time.perf_counter()
    if seen.done():
        return
    if kind in text[:200]:
        seen.set_result(now)
    elif b'"ERROR"' in text[:200]:
        seen.set_exception(RuntimeError(text.decode()))
