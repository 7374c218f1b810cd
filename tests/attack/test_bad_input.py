"""What does the real server do with 10,000 bad requests and frames?

Each is refused in our form and in time; nothing is stored; the server lives, and
neither its memory nor its open files grow. The input is made from a seed.
"""

import asyncio
import contextlib
import json
import random
import socket
import sqlite3
import struct
import threading
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any

import pytest

from chalicelib.settings import Settings
from muster import structs
from muster.errors import InvalidRequest
from muster.felund import records
from tests.support import mischief
from tests.support.local import Node, Server, circle, running
from tests.support.mischief import Bad

REQUESTS = 6_000
HEADS = 1_200
HANDSHAKES = 300
TEXTS = 2_400
ENDINGS = 330
VANISHING = 400
SLOW = 150

MOST_GROWTH_BYTES = 50 * 1024 * 1024
ANSWER_WITHIN_S = 20
"""Far more than an answer takes on a busy machine, and far less than for ever."""


@dataclass
class Tally:
    """What was sent and what came back."""

    sent: Counter[str] = field(default_factory=Counter)
    answers: Counter[Any] = field(default_factory=Counter)
    wrong: list[str] = field(default_factory=list)

    def note(self, bad: Bad, status: int | None, headers: dict[str, str], body: bytes) -> None:
        """Count an answer, and write down what is wrong with it."""
        self.answers[status] += 1
        if status is None:
            return
        if status not in bad.statuses:
            self.wrong.append(f"{bad.what}: {status} {body[:200]!r} for {bad.raw[:200]!r}")
        elif complaint := not_ours(status, headers, body):
            self.wrong.append(f"{bad.what}: {complaint} in {body[:200]!r} for {bad.raw[:200]!r}")


def not_ours(status: int, headers: dict[str, str], body: bytes) -> str:
    """Say what an error answer lacks."""
    if headers.get("content-type") != "application/json":
        return "no JSON"
    said = json.loads(body)
    if set(said) != {"ok", "code", "message", "retryable", "detail"}:
        return "not the error body"
    if said["ok"] is not False or said["detail"] != said["message"] or not said["message"]:
        return "not the error body's values"
    if said["retryable"] is not (status in (429, 503)):
        return "wrongly retryable"
    if len(body) > 2_000:
        return "an echo"
    if status == 429 and int(headers.get("retry-after", "0")) < 1:
        return "no Retry-After"
    if headers.get("access-control-allow-origin") != "*":
        return "no CORS"
    return "" if "x-request-id" in headers else "no request id"


class Line:
    """A connection that counts as hung when nothing comes for too long."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader, self.writer = reader, writer

    @classmethod
    async def to(cls, server: Server) -> "Line":
        return cls(*await asyncio.open_connection("127.0.0.1", server.port, limit=2**22))

    async def send(self, data: bytes) -> None:
        self.writer.write(data)
        with contextlib.suppress(ConnectionError):
            await self.writer.drain()

    async def answer(self) -> tuple[int | None, dict[str, str], bytes]:
        """Read an answer; None where the other side ended the connection without one."""
        try:
            async with asyncio.timeout(ANSWER_WITHIN_S):
                head = await self.reader.readuntil(b"\r\n\r\n")
                first, *lines = head.decode("latin-1").rstrip().split("\r\n")
                pairs = (line.partition(": ") for line in lines)
                headers = {name.lower(): value for name, _, value in pairs}
                body = await self.reader.readexactly(int(headers.get("content-length", "0")))
        except (asyncio.IncompleteReadError, ConnectionError):
            return None, {}, b""
        return int(first.split(" ")[1]), headers, body

    async def ended(self) -> bool:
        """Wait for the other side's end."""
        async with asyncio.timeout(ANSWER_WITHIN_S):
            with contextlib.suppress(ConnectionError):
                while await self.reader.read(65536):
                    pass
        return True

    def half_close(self) -> None:
        with contextlib.suppress(OSError):
            self.writer.write_eof()

    async def close(self) -> None:
        self.writer.close()
        with contextlib.suppress(ConnectionError):
            await self.writer.wait_closed()

    def reset(self) -> None:
        """End the connection by a reset."""
        raw = self.writer.get_extra_info("socket")
        raw.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.writer.transport.abort()


# --- HTTP -----------------------------------------------------------------------------


def requests(seed: int, count: int) -> Iterator[Bad]:
    """Yield bad requests of every kind."""
    chance = random.Random(seed)
    kinds = (
        (mischief.bodies(chance), 60),
        (mischief.queries(chance), 14),
        (mischief.paths(chance), 10),
        (mischief.signatures(chance), 12),
        (mischief.after_negative(chance), 3),
        (mischief.large_bodies(chance), 1),
    )
    sources, weights = zip(*kinds, strict=True)
    for source in chance.choices(sources, weights, k=count):
        yield next(source)


async def ask_in_turn(server: Server, bads: Iterator[Bad], tally: Tally) -> None:
    """Send one bad request after the other, on one connection as long as it lasts."""
    line = await Line.to(server)
    for bad in bads:
        tally.sent["request"] += 1
        await line.send(bad.raw)
        status, headers, body = await line.answer()
        if status is None:
            tally.wrong.append(f"{bad.what}: no answer to {bad.raw[:200]!r}")
        tally.note(bad, status, headers, body)
        if status is None or headers.get("connection") == "close":
            await line.close()
            line = await Line.to(server)
    await line.close()


async def ask_once_each(server: Server, bads: Iterator[Bad], tally: Tally) -> None:
    """Send each on a connection of its own, say that this was all, and await the end."""
    for bad in bads:
        tally.sent["head"] += 1
        line = await Line.to(server)
        await line.send(bad.raw)
        line.half_close()
        tally.note(bad, *await line.answer())
        await line.ended()
        await line.close()


async def vanish(server: Server, chance: random.Random, count: int, tally: Tally) -> None:
    """Begin something and be gone, by an end or by a reset."""
    for n in range(count):
        tally.sent["vanished"] += 1
        line = await Line.to(server)
        await line.send(mischief.partial(chance))
        if n % 2:
            line.reset()
        else:
            await line.close()


async def dawdle(server: Server, tally: Tally) -> None:
    """Send a head, or a body, so slowly that it never ends; be refused all the same."""
    tally.sent["slow"] += 1
    line = await Line.to(server)
    head = b"POST /v1/messages HTTP/1.1\r\nHost: muster.test\r\n"
    slow_body = tally.sent["slow"] % 2
    await line.send(head + (b"Content-Length: 1000\r\n\r\n" if slow_body else b""))
    answer = asyncio.create_task(line.answer())
    while not answer.done():
        await line.send(b"x" if slow_body else b"X: 1\r\n")
        await asyncio.wait([answer], timeout=0.5)
    status, headers, body = answer.result()
    if status is None:
        tally.wrong.append("a slow call was not answered")
    tally.note(Bad("slow", b"", frozenset({400})), status, headers, body)
    await line.ended()
    await line.close()


async def watch(server: Server, done: asyncio.Event) -> float:
    """Ask for health all the while, and return the longest that an answer took."""
    longest = 0.0
    while not done.is_set():
        begun = time.monotonic()
        line = await Line.to(server)
        await line.send(mischief.request("GET", "/v1/health"))
        status, _, _ = await line.answer()
        await line.close()
        assert status == 200
        longest = max(longest, time.monotonic() - begun)
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(done.wait(), 0.1)
    return longest


# --- WebSockets -----------------------------------------------------------------------


class Socket:
    """A WebSocket by hand: what is sent need not be right."""

    def __init__(self, line: Line) -> None:
        self.line = line

    @classmethod
    async def to(cls, server: Server, way: str) -> "Socket":
        line = await Line.to(server)
        await line.send(mischief.handshake(way))
        status, _, body = await line.answer()
        assert status == 101, body
        return cls(line)

    async def frame(self) -> tuple[int, bytes]:
        """Read a frame of the server's; 0 when the connection has ended."""
        try:
            async with asyncio.timeout(ANSWER_WITHIN_S):
                first, length = await self.line.reader.readexactly(2)
                if length == 126:
                    (length,) = struct.unpack("!H", await self.line.reader.readexactly(2))
                elif length == 127:
                    (length,) = struct.unpack("!Q", await self.line.reader.readexactly(8))
                return first & 15, await self.line.reader.readexactly(length)
        except (asyncio.IncompleteReadError, ConnectionError):
            return 0, b""

    async def until_pong(self) -> list[dict[str, Any]]:
        """Say PING and return what came before the PONG."""
        await self.line.send(mischief.framed(b'{"t":"PING"}'))
        before: list[dict[str, Any]] = []
        while True:
            opcode, data = await self.frame()
            assert opcode == mischief.TEXT, (opcode, data)
            said = json.loads(data)
            if said == {"t": "PONG"}:
                return before
            before.append(said)

    async def leave(self) -> None:
        """Close in good order."""
        await self.line.send(mischief.framed(struct.pack("!H", 1000), mischief.CLOSE))
        await self.line.ended()
        await self.line.close()


ERRORS = {"INVALID_FRAME", "PAYLOAD_TOO_LARGE", "INVALID_REQUEST", "NOT_FOUND"}


async def babble(
    server: Server, way: str, texts: Iterator[str], tally: Tally, *, answered: bool
) -> None:
    """Say nonsense; a socket with a token is told so each time, an older one is not."""
    here = await Socket.to(server, way)
    await here.until_pong()  # what it was greeted with
    while batch := list(islice(texts, 20)):
        tally.sent["text"] += len(batch)
        for text in batch:
            await here.line.send(mischief.framed(text.encode()))
        said = await here.until_pong()
        for one in said:
            tally.answers[one.get("code")] += 1
            wanted = {"t", "code", "message", "retryable"}
            if one["t"] != "ERROR" or not wanted <= set(one) or one["code"] not in ERRORS:
                tally.wrong.append(f"{one} for one of {batch}")
        if len(said) != (len(batch) if answered else 0):
            tally.wrong.append(f"{len(said)} answers to {batch}")
    await here.leave()


async def end_badly(
    server: Server, ways: Sequence[str], endings: Iterator[mischief.Ends], tally: Tally
) -> None:
    """Break each socket in another way, and be told by its close code."""
    for ending in endings:
        tally.sent["ending"] += 1
        n = tally.sent["ending"]
        here = await Socket.to(server, ways[n % len(ways)])
        await here.line.send(ending.raw)
        opcode, data = await here.frame()
        while opcode not in (0, mischief.CLOSE):
            opcode, data = await here.frame()
        code = struct.unpack("!H", data[:2])[0] if data else None
        tally.answers[code] += 1
        if code not in ending.codes:
            tally.wrong.append(f"{ending.what}: closed with {code}, {data[2:]!r}")
        if n % 4 == 0:
            here.line.reset()
            continue
        if n % 4 == 1:  # as a client should; the others leave it to the server to give up
            await here.line.send(mischief.framed(data, mischief.CLOSE))
        await here.line.ended()
        await here.line.close()


async def shake_badly(server: Server, bads: Iterator[Bad], tally: Tally) -> None:
    """Ask for sockets that are not given."""
    for bad in bads:
        tally.sent["handshake"] += 1
        line = await Line.to(server)
        await line.send(bad.raw)
        tally.note(bad, *await line.answer())
        await line.close()


# --- the storm ------------------------------------------------------------------------


@dataclass(frozen=True)
class Ground:
    """A server with a circle in it, and the ways to its sockets."""

    server: Server
    seat: str
    subscription: str
    older: str
    ends: tuple[str, ...]
    session_id: str


def prepare(server: Server) -> Ground:
    """Let a circle live there: members, messages, signals, a session."""
    ann, bob, *others = circle(server, "ann", "bob", *(f"eve{n}" for n in range(20)))
    ann.register(ttl_s=600)
    bob.register(ttl_s=600)
    ann.leave("message-0001", "message-0002")
    signal = {
        "session_id": f"{ann.node_id}:{bob.node_id}",
        "from_node_id": ann.node_id,
        "to_node_id": bob.node_id,
        "circle_hint": ann.hint,
        "type": "offer",
        "payload": "{}",
    }
    ann.ask("POST", "/v1/signal", signal)
    session = ann.ask("POST", "/v1/relay/session", session_body(ann, bob))
    older = f"?circle_hint={ann.hint}&node_id={ann.node_id}"
    return Ground(
        server,
        f"/v1/relay/ws?token={session['token']}",
        f"/v1/relay/ws?token={subscription(ann)}",
        f"/v1/relay/ws{older}",
        # a node's oldest sockets make way for newer ones, so each end has a node of its own
        tuple(
            f"/v1/relay/ws?token={subscription(node)}"
            if turn % 2
            else f"/v1/relay/ws?circle_hint={node.hint}&node_id={node.node_id}"
            for turn, node in enumerate(others)
        ),
        session["session_id"],
    )


def session_body(node: Node, other: Node) -> dict[str, Any]:
    return {
        "node_id": node.node_id,
        "target_node_id": other.node_id,
        "circle_hint": node.hint,
        "ttl_s": 120,
    }


def subscription(node: Node) -> str:
    body = {"node_id": node.node_id, "circle_hint": node.hint, "ttl_s": 120}
    return str(node.ask("POST", "/v1/relay/subscription", body)["token"])


def stored(directory: Path) -> dict[str, set[tuple[Any, ...]]]:
    """Read everything in the store but the counters of the rate limit."""
    file = directory / "muster.sqlite3"
    with contextlib.closing(sqlite3.connect(f"file:{file}?mode=ro", uri=True)) as database:
        tables = [name for (name,) in database.execute("SELECT name FROM sqlite_schema")]
        return {
            table: set(
                database.execute(f"SELECT * FROM {table} WHERE pk NOT LIKE 'count#%'")  # noqa: S608
            )
            for table in tables
        }


def descriptors(server: Server) -> int:
    """Count the process's open files."""
    return len(list(Path(f"/proc/{server.process.pid}/fd").iterdir()))


async def storm(ground: Ground, seed: int, scale: float) -> tuple[Tally, float]:
    """Let everything loose at once; return what came of it, and the longest wait for health."""
    server, tally, done = ground.server, Tally(), asyncio.Event()
    chance = random.Random(seed)
    every = requests(seed, int(REQUESTS * scale))
    nonsense = islice(mischief.texts(chance, ground.session_id), int(TEXTS * scale))
    older = islice(mischief.texts(chance, ground.session_id), int(TEXTS * scale / 3))
    hardly = islice(mischief.heads(chance), int(HEADS * scale))
    shaken = islice(mischief.bad_handshakes(chance), int(HANDSHAKES * scale))
    endings = islice(mischief.endings(chance), int(ENDINGS * scale) + 1)
    watching = asyncio.create_task(watch(server, done))
    async with asyncio.TaskGroup() as tasks:
        for _ in range(8):
            tasks.create_task(ask_in_turn(server, every, tally))
        for _ in range(4):
            tasks.create_task(ask_once_each(server, hardly, tally))
        for _ in range(2):
            tasks.create_task(shake_badly(server, shaken, tally))
        for _ in range(int(SLOW * scale)):
            tasks.create_task(dawdle(server, tally))
        tasks.create_task(vanish(server, chance, int(VANISHING * scale), tally))
        tasks.create_task(babble(server, ground.seat, nonsense, tally, answered=True))
        tasks.create_task(babble(server, ground.subscription, nonsense, tally, answered=True))
        tasks.create_task(babble(server, ground.older, older, tally, answered=False))
        for way in ground.ends:
            tasks.create_task(end_badly(server, (way,), endings, tally))
    done.set()
    return tally, await watching


def settle(fact: Any, within_s: float = 15) -> None:
    """Wait until something is so."""
    until = time.monotonic() + within_s
    while not fact():
        assert time.monotonic() < until, "it did not settle"
        time.sleep(0.05)


@contextlib.contextmanager
def heard(server: Server) -> Iterator[list[str]]:
    """Collect what the server says on stderr, so that the pipe does not fill."""
    assert server.process.stderr is not None
    lines: list[str] = []
    reading = threading.Thread(target=lines.extend, args=[server.process.stderr])
    reading.start()
    try:
        yield lines
    finally:
        server.stop()
        reading.join()


def test_ten_thousand_bad_requests_and_frames_change_nothing(tmp_path: Path) -> None:
    with (
        running(tmp_path, "--unsigned=allow", head_s="3", body_s="3") as server,
        heard(server) as log,
    ):
        ground = prepare(server)
        asyncio.run(storm(ground, seed=1, scale=0.05))  # what is made once is not growth
        before, files, memory = stored(tmp_path), descriptors(server), server.rss_bytes()

        tally, longest = asyncio.run(storm(ground, seed=2, scale=1))

        print(f"sent {dict(tally.sent)}; answers {dict(tally.answers)}")
        grown = server.rss_bytes() - memory
        print(f"memory grew by {grown / 2**20:.1f} MiB; health took {longest:.3f} s at the most")
        assert tally.wrong == [], "\n".join(tally.wrong[:20])
        assert sum(tally.sent.values()) >= 10_000
        assert longest < 5, "others are served meanwhile"
        assert server.call("GET", "/v1/health").status == 200
        settle(lambda: descriptors(server) <= files + 2)
        settle(lambda: stored(tmp_path) == before)
        assert grown < MOST_GROWTH_BYTES
    assert [line for line in log if "unforeseen" in line or "Traceback" in line] == []


def test_with_the_limits_as_they_are_a_flood_is_told_to_wait(tmp_path: Path) -> None:
    usual = Settings()
    names = ("address_burst", "address_per_s", "node_burst", "node_per_s")
    limits = {name: str(getattr(usual, name)) for name in names}
    with running(tmp_path, "--unsigned=allow", **limits) as server, heard(server) as log:
        tally = Tally()
        asyncio.run(flood(server, tally, until=usual.address_burst * 4))

        assert tally.wrong == [], "\n".join(tally.wrong[:20])
        assert tally.answers[429] > 0
        assert tally.answers[400] >= usual.address_burst / 2
        settle(lambda: server.call("GET", "/v1/health").status == 200)
    assert [line for line in log if "unforeseen" in line or "Traceback" in line] == []


async def flood(server: Server, tally: Tally, *, until: int) -> None:
    """Send bad requests as fast as it goes, until enough were told to wait."""
    chance = random.Random(3)
    bads = (bad._replace(statuses=bad.statuses | {429}) for bad in mischief.queries(chance))

    def some() -> Iterator[Bad]:
        while tally.answers[429] < 100 and tally.sent["request"] < until:
            yield next(bads)

    async with asyncio.TaskGroup() as tasks:
        for _ in range(8):
            tasks.create_task(ask_in_turn(server, some(), tally))


@pytest.mark.parametrize("name", ["node-0001\n", "node-0001\r\n", "\nnode-0001", "node\n0001"])
def test_no_name_holds_a_line_break(name: str) -> None:
    """A `$` alone would let one pass at the end, into logs and headers."""
    with pytest.raises(InvalidRequest):
        structs.from_json({"node_id": name, "circle_hint": "circle-0001"}, records.Unregister)


def test_a_refusal_quotes_little_of_what_it_was_given() -> None:
    given = mischief.GOOD["POST", "/v1/signal"] | {"type": "o" * 50_000}

    with pytest.raises(InvalidRequest) as caught:
        structs.from_json(given, records.LeaveSignal)

    assert caught.value.message.startswith("type: invalid enum value")
    assert len(caught.value.message) < 300
