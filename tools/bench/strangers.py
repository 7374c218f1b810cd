"""Strangers: what they can keep in the service's memory and on its disk; prints JSON.

Seats that do not read, and circles that fill the store: how much they get, and whether
honest members notice. `python -m tools.bench.strangers`; with TMPDIR on a small file
system the disk is full in earnest. `--quick` shows that it runs, with figures that mean nothing.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import http.client
import json
import os
import socket
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from multiprocessing import Pool
from typing import Any, NamedTuple

from capsules.keys import SigningKey
from muster import keys, presences
from muster.base64url import encode
from muster.calls import SYNC, Authorization, Credential, Proof
from muster.felund import frames
from tools.bench import servers
from tools.bench.figures import latencies
from tools.bench.generator import WAY
from tools.bench.lines import Line, Socket, masked
from tools.bench.members import Member, Ready, circle, message

FRAME_BYTES = 22_000
GROUP = 50
ROUND_S = 0.01
PING = masked(frames.encode(frames.Ping()).encode())
"""Keeps a seat from being idle."""

CALLERS = 4
"""So many processes call for the circles at a time."""

POST_BYTES = 700_000

GENEROUS = {name: str(10**9) for name in servers.UNBOUND if "BURST" in name or "PER_S" in name}
"""Rates that do not refuse, as all the load comes from one machine; all else as it comes."""


@dataclass(frozen=True, slots=True)
class Scale:
    """How much of everything there is."""

    seats: int = 500
    frames: int = 250
    """To each seat that does not read."""
    honest_frames: int = 300
    strangers: int = 12
    posts: int = 32
    """Of each stranger."""
    store_mib: int = 64
    circles: int = 1_000
    syncs: int = 10
    """Of each circle."""
    honest_syncs: int = 500
    known: int = 50
    """Calls of the known circle, before or after the load."""


QUICK = Scale(2, 20, 5, 3, 2, 2, 6, 3, 10, 3)


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure what was asked for, and print it."""
    parser = argparse.ArgumentParser(prog="python -m tools.bench.strangers", description=__doc__)
    parser.add_argument("--only", choices=("seats", "disk", "circles"))
    parser.add_argument("--seats", type=int)
    parser.add_argument("--quick", action="store_true")
    chosen = parser.parse_args(arguments)
    scale = QUICK if chosen.quick else Scale()
    if chosen.seats:
        scale = replace(scale, seats=chosen.seats)
    report = {}
    if chosen.only in (None, "seats"):
        report["seats_that_do_not_read"] = seats(scale)
    if chosen.only in (None, "disk"):
        report["strangers_fill_the_disk"] = disk(scale)
    if chosen.only in (None, "circles"):
        report["a_thousand_circles_of_version_2"] = circles(scale)
    print(json.dumps(report, indent=2))
    return 0


# --- memory -----------------------------------------------------------------------------


class Deaf(Socket):
    """A socket that reads nothing any more."""

    def deafen(self) -> None:
        """Stop reading."""
        assert self._transport is not None  # noqa: S101 - opened before
        self._transport.pause_reading()


def seats(scale: Scale) -> dict[str, Any]:
    """Send frames to many seats that do not read, and measure a pair that does meanwhile."""
    with servers.muster(
        GENEROUS | {"MUSTER_ADDRESS_SOCKETS": str(3 * (scale.seats + 1))}
    ) as server:
        return asyncio.run(_seats(server, scale))


async def _seats(server: servers.Server, scale: Scale) -> dict[str, Any]:
    count = scale.seats
    honest = await _pair(server.port, Socket, *circle(2))
    quiet = await _honest(*honest, first=0, frames_=scale.honest_frames)
    many = [node for _ in range(0, count, 100) for node in circle(200)][: 2 * count]
    pairs = [
        await _pair(server.port, Deaf, *nodes) for nodes in zip(many[::2], many[1::2], strict=True)
    ]
    for _, deaf, _ in pairs:
        deaf.deafen()
    before = server.memory_bytes() or 0
    flood = asyncio.create_task(_flood(pairs, scale.frames))
    watch = asyncio.create_task(_highest(server, flood))
    loud: list[float] = []
    while not flood.done():
        loud += await _honest(*honest, first=len(quiet) + len(loud), frames_=5)
        await asyncio.sleep(0.05)
    highest = await watch
    return {
        "seats": count,
        "sent_mib": round(count * scale.frames * FRAME_BYTES / 2**20),
        "grown_mib": round((highest - before) / 2**20, 1),
        "kib_a_seat": round((highest - before) / count / 2**10, 1),
        "honest_quiet": latencies(quiet),
        "honest_meanwhile": latencies(loud),
        "honest_frames": len(loud),
    }


async def _pair(
    port: int, kind: type[Socket], one: Member, other: Member
) -> tuple[Socket, Any, str]:
    """Seat two nodes: one that sends, one of the kind that is wanted."""
    loop = asyncio.get_running_loop()
    _, line = await loop.create_connection(Line, "127.0.0.1", port)
    found: list[Any] = []
    for member in (one, other):
        await line.ask(member.register().http())
    seats: tuple[tuple[Member, Member, Callable[..., Any]], ...] = (
        (one, other, Socket),
        (other, one, kind),
    )
    for mine, theirs, shape in seats:
        opened = await line.ask(mine.session(theirs).http())
        make = partial(shape, WAY, opened["token"])
        connection = socket.socket()
        if shape is Deaf:  # or the kernel reads megabytes for it
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        connection.setblocking(False)
        await loop.sock_connect(connection, ("127.0.0.1", port))
        _, seat = await loop.create_connection(make, sock=connection)
        await seat.opened
        found.append(seat)
    line.close()
    return found[0], found[1], opened["session_id"]


async def _highest(server: servers.Server, flood: asyncio.Task[None]) -> int:
    """Return the most memory that the server has had while it was flooded."""
    found = [0]
    while not flood.done():
        found.append(server.memory_bytes() or 0)
        await asyncio.sleep(0.2)
    return max(found)


async def _flood(pairs: Sequence[tuple[Socket, Deaf, str]], count: int) -> None:
    """Send to a group of seats after another; all of them stay, and none is idle."""
    payload = frames.payload(bytes(frames.MAX_TEXT_BYTES // 2))
    for first in range(0, len(pairs), GROUP):
        for sender, deaf, _ in pairs:
            sender.send(PING)
            deaf.send(PING)
        for seq in range(count):
            for sender, _, session_id in pairs[first : first + GROUP]:
                frame = frames.Frame(session_id=session_id, seq=seq, payload_b64=payload)
                sender.send(masked(frames.encode(frame).encode()))
            await asyncio.sleep(ROUND_S)


async def _honest(
    near: Socket, far: Socket, session_id: str, *, first: int, frames_: int
) -> list[float]:
    """Pass frames one by one between two that read."""
    loop, took = asyncio.get_running_loop(), []
    far.send(PING)
    for seq in range(first, first + frames_):
        came = loop.create_future()
        far.on_text = partial(_seen, came)
        frame = frames.Frame(session_id=session_id, seq=seq, payload_b64=frames.payload(b"x" * 64))
        sent = time.perf_counter()
        near.send(masked(frames.encode(frame).encode()))
        await asyncio.wait_for(came, 30)
        took.append(time.perf_counter() - sent)
    return took


def _seen(came: asyncio.Future[None], text: bytes) -> None:
    if b'"FRAME"' in text[:200] and not came.done():
        came.set_result(None)


# --- disk -------------------------------------------------------------------------------


def disk(scale: Scale) -> dict[str, Any]:
    """Let strangers store as much as they may, and a known circle go on."""
    environment = GENEROUS | {"MUSTER_STORE_BYTES": str(scale.store_mib * 2**20)}
    with servers.muster(environment) as server:
        (member,) = circle(1)
        ask = partial(_ask, server.port, "127.0.0.1")
        assert ask(member.register())  # noqa: S101 - it is known from here on
        stored = refused = 0
        honest: list[bool] = []
        started = time.perf_counter()
        for number, call in _strangers(scale):
            accepted = _ask(server.port, f"127.0.1.{number + 1}", call)
            stored += POST_BYTES * accepted
            refused += not accepted
            honest.append(ask(member.post()))
        took = time.perf_counter() - started
        registered = [ask(member.register()) for _ in range(scale.known)]
    return {
        "store_mib": scale.store_mib,
        "asked_mib": round(scale.strangers * scale.posts * POST_BYTES / 2**20),
        "strangers_stored_mib": round(stored / 2**20, 1),
        "strangers_refused": refused,
        "took_s": round(took, 1),
        "known_circle_posted": f"{sum(honest)} of {len(honest)}",
        "known_circle_registered": f"{sum(registered)} of {len(registered)}",
    }


def _strangers(scale: Scale) -> Iterator[tuple[int, Ready]]:
    """Yield calls that fill the store, each stranger with an address and a circle of its own."""
    for number in range(scale.strangers):
        (stranger,) = circle(1)
        yield number, stranger.register()
        for _ in range(scale.posts):
            yield number, stranger.repost([_large(stranger)])


def _large(author: Member) -> dict[str, Any]:
    return message(author.node_id) | {"text": "x" * POST_BYTES}


def _ask(port: int, address: str, call: Ready) -> bool:
    """Make a call from an address of this machine; say whether it was accepted."""
    line = http.client.HTTPConnection("127.0.0.1", port, 30, source_address=(address, 0))
    with contextlib.closing(line):
        target = call.path
        line.request(call.method, target, call.body, call.headers)
        answer = line.getresponse()
        answer.read()
        return answer.status == 200


# --- circles of version 2 ---------------------------------------------------------------


class Bare(NamedTuple):
    """A call as it goes over the wire, and the address that it comes from."""

    address: str
    raw: bytes


def circles(scale: Scale) -> dict[str, Any]:
    """Let a thousand self-made circles sync as they may, and a circle that was first go on."""
    with servers.muster({"MUSTER_ACCESS": "open"}) as server:
        service = _service_id(server.port)
        first, count = scale.known, scale.honest_syncs
        ours = _syncs(service, "127.0.0.1", first + 2 * count)
        for call in ours[:first]:
            _exchange(server.port, call)
        quiet = [_exchange(server.port, call)[1] for call in ours[first : first + count]]
        calls = [
            call
            for number in range(scale.circles)
            for call in _syncs(service, f"127.1.{number // 250}.{number % 250 + 1}", scale.syncs)
        ]
        before = server.memory_bytes() or 0
        with Pool(CALLERS) as pool:
            flood = pool.starmap_async(
                _flood_syncs, [(server.port, calls[one::CALLERS]) for one in range(CALLERS)]
            )
            loud = []
            for call in ours[first + count :]:
                loud.append(_exchange(server.port, call))
                time.sleep(0.01)
                if flood.ready():
                    break
            answers = Counter(status for part in flood.get(120) for status in part)
        grown = (server.memory_bytes() or 0) - before
    return {
        "circles": scale.circles,
        "calls": len(calls),
        "answers": {str(status): count for status, count in sorted(answers.items())},
        "grown_mib": round(grown / 2**20, 1),
        "honest_quiet": latencies(quiet),
        "honest_meanwhile": latencies([took for _, took in loud]),
        "honest_accepted": f"{sum(status == 200 for status, _ in loud)} of {len(loud)}",
    }


def _service_id(port: int) -> bytes:
    line = http.client.HTTPConnection("127.0.0.1", port, 30)
    with contextlib.closing(line):
        line.request("GET", "/v2/info")
        return bytes.fromhex(json.loads(line.getresponse().read())["service_id"])


def _syncs(service: bytes, address: str, count: int) -> list[Bare]:
    """Sign syncs of one node of a circle of its own: presence, peers and messages."""
    founder = SigningKey(os.urandom(32)).verify_key
    epoch = keys.Epoch.first(founder)
    node = keys.Member.new(epoch.circle_id).node(epoch)
    now_ms = int(time.time() * 1000)
    presence = presences.Presence.of(node, name="bench", at_ms=now_ms)
    sealed = encode(presences.seal(node, presence, nonce=os.urandom(12)))
    asked = {"presence": {"sealed": sealed}, "want": {"peers": True, "messages": 9}}
    body = json.dumps(asked).encode()
    made = Credential.make(epoch.circle_key, node.public, expires_ms=now_ms + 86_400_000)
    found = []
    for number in range(count):
        proof = Proof.make(
            node.key, made, call=SYNC, service=service, body=body, at_ms=now_ms + number
        )
        head = (
            "POST /v2/sync HTTP/1.1\r\nHost: bench\r\nConnection: close\r\n"
            f"Authorization: {Authorization(made.raw, proof).header}\r\n"
            f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
        )
        found.append(Bare(address, head.encode() + body))
    return found


def _exchange(port: int, call: Bare) -> tuple[int, float]:
    """Make a call on a connection of its own; return its status and how long it took."""
    started = time.perf_counter()
    with socket.create_connection(
        ("127.0.0.1", port), 30, source_address=(call.address, 0)
    ) as line:
        line.sendall(call.raw)
        answer = b""
        while data := line.recv(65536):
            answer += data
    return int(answer[9:12] or b"0"), time.perf_counter() - started


def _flood_syncs(port: int, calls: list[Bare]) -> list[int]:
    return [_exchange(port, call)[0] for call in calls]


if __name__ == "__main__":
    raise SystemExit(main())
