"""Network: calls, pushes and frames through the one-machine host, on the loopback interface."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import partial
from itertools import count, cycle, islice
from multiprocessing import get_context
from typing import Any

from capsules.keys import VerifyKey
from muster import base64url
from tools.bench import generator, servers
from tools.bench.figures import Figures, Run, ratio
from tools.bench.members import Member, Node, Ready, circle

CONNECTIONS = 16
FASTEST_PER_S = 12_000
"""More calls a second than are signed in advance; nothing here comes near."""

LARGE_BYTES = 16 * 1024
FLOODS = 3
NESTED = b"[%s]" % b",".join([b"[" * 30 + b"]" * 30] * 17_180)
"""A mebibyte of JSON that is dear to parse."""
IDLE_SOCKETS = 1_000
SERVERS_FOR_MEMORY = 2

REFERENCES = {"reference": False, "reference_wal": True}
"""The references by what they are called, and whether they keep their file in WAL."""

Results = dict[str, dict[str, Any]]


@dataclass(frozen=True, slots=True)
class Pace:
    """How often and how long things are measured."""

    runs: int
    seconds: float
    count: int
    sockets: int = IDLE_SOCKETS


class Load:
    """The generator's process."""

    def __init__(self, pool: ProcessPoolExecutor, pace: Pace) -> None:
        self._pool = pool
        self.pace = pace

    def sign(self, calls: Iterator[Ready]) -> list[bytes]:
        """Make as many calls ready as one run can need."""
        wanted = int(self.pace.seconds * FASTEST_PER_S)
        return [ready.http() for ready in islice(calls, wanted)]

    def drive(self, server: servers.Server, calls: Sequence[bytes]) -> Run:
        """Send calls for one run; also says what processor time a call took the server."""
        before = server.cpu_s()
        driven = self._pool.submit(
            generator.drive,
            server.port,
            calls,
            connections=CONNECTIONS,
            seconds=self.pace.seconds,
        )
        run = driven.result()
        answered = run.pop("calls")
        return run | {"server_cpu_ms": (server.cpu_s() - before) / answered * 1000}

    def ask(self, port: int, *calls: Ready) -> list[dict[str, Any]]:
        """Make some calls and return their answers."""
        return self._pool.submit(generator.ask, port, [ready.http() for ready in calls]).result()

    def push(self, port: int, poster: Member, reader: Member) -> Run:
        """Measure pushes for one run."""
        return self._pool.submit(
            generator.push, port, poster, reader, count=self.pace.count
        ).result()

    def relay(self, port: int, one: Member, other: Member, *, size: int) -> Run:
        """Measure frames for one run."""
        return self._pool.submit(
            generator.relay, port, one, other, size=size, count=self.pace.count
        ).result()


@contextmanager
def load(pace: Pace) -> Iterator[Load]:
    """Start the generator's process."""
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
        yield Load(pool, pace)


def register(load: Load) -> Results:
    """Register again, as nodes do every minute."""
    members = [member for _ in range(64) for member in circle(8)]
    result = _beside(load, members, lambda: (m.register() for m in cycle(members)))
    workload = (
        f"{len(members)} nodes in 64 circles register again, {CONNECTIONS} keep-alive connections"
    )
    return {"register": {"workload": workload} | result}


def sync(load: Load) -> Results:
    """Sync as nodes of version 2 do, in turns with signed registers at the same server."""
    members = [member for _ in range(64) for member in circle(8)]
    syncs, registers = Figures(), Figures()
    with servers.muster() as server:
        load.ask(server.port, *(member.register() for member in members))
        (told,) = load.ask(server.port, Ready("GET", "/v2/info", {}, {}, b""))
        service = VerifyKey(base64url.decode(told["service_key"]))
        nodes = [Node(service) for _ in members]
        for _ in range(load.pace.runs):
            wanted = int(load.pace.seconds * FASTEST_PER_S / 3)  # to sign them takes longer
            calls = [node.sync().http() for node in islice(cycle(nodes), wanted)]
            syncs.runs.append(load.drive(server, calls))
            calls = load.sign(m.register() for m in cycle(members))
            registers.runs.append(load.drive(server, calls))
    ours, theirs = syncs.to_json(), registers.to_json()
    workload = (
        f"{len(nodes)} nodes of version 2 say where they are and read everything, nothing new, "
        f"{CONNECTIONS} keep-alive connections; version1: signed registers in turns with them"
    )
    told = {
        "version1": theirs
        | {
            "ratio": ratio(ours, theirs, "calls_per_s"),
            "cpu_ratio": ratio(theirs, ours, "server_cpu_ms"),
        }
    }
    return {"sync": {"workload": workload} | ours | told}


def peers(load: Load) -> Results:
    """List a circle of fifty."""
    members = circle(51)
    result = _beside(load, members, lambda: (m.peers() for m in cycle(members)))
    workload = f"a circle with 50 live peers, {CONNECTIONS} keep-alive connections"
    return {"peers_50": {"workload": workload} | result}


def post(load: Load) -> Results:
    """Leave messages, one a call."""
    members = [circle(1)[0] for _ in range(CONNECTIONS)]
    with servers.muster() as server:
        load.ask(server.port, *(member.register() for member in members))
        figures = _measure(
            load, lambda: load.drive(server, load.sign(m.post() for m in cycle(members)))
        )
    workload = f"one message a call into {CONNECTIONS} circles, {CONNECTIONS} connections"
    return {"post": {"workload": workload} | figures.to_json()}


def poll(load: Load) -> Results:
    """Collect messages: when there are none, and when there are fifty."""
    (member,) = circle(1)
    with servers.muster() as server:
        first = load.ask(server.port, member.register(), *(member.post(50) for _ in range(10)))
        before, last = first[-2]["cursor"], first[-1]["cursor"]
        nothing, fifty = (
            _measure(load, partial(_polled, load, server, member, after))
            for after in (last, before)
        )
    return {
        "poll_nothing_new": {"workload": "the cursor is at the end"} | nothing.to_json(),
        "poll_50_new": {"workload": "50 messages of some 350 bytes"} | fifty.to_json(),
    }


def push(load: Load) -> Results:
    """Post a message and have it pushed."""
    with servers.muster() as server:
        one, other = circle(2)
        load.ask(server.port, one.register(), other.register())
        figures = _measure(load, lambda: load.push(server.port, one, other))
    workload = f"{load.pace.count} messages one by one, one subscriber; sending to having it"
    return {"post_to_push": {"workload": workload} | figures.to_json()}


def relay(load: Load) -> Results:
    """Pass frames through a relay session."""
    results: Results = {}
    with servers.muster() as server:
        one, other = circle(2)
        for name, size in (("relay_frame", 64), ("relay_frame_16_kib", LARGE_BYTES)):
            load.ask(server.port, one.register(), other.register())
            figures = _measure(load, partial(load.relay, server.port, one, other, size=size))
            workload = f"{load.pace.count} frames of {size} bytes one by one, one way"
            results[name] = {"workload": workload} | figures.to_json()
    return results


def large_bodies(load: Load) -> Results:
    """Serve others while strangers send a mebibyte after the other, unsigned."""
    members = [member for _ in range(64) for member in circle(8)]
    head = f"POST /v1/messages HTTP/1.1\r\nHost: a\r\nContent-Length: {len(NESTED)}\r\n\r\n"
    quiet, busy, sent = Figures(), Figures(), 0
    with servers.muster() as server, ProcessPoolExecutor(1, mp_context=get_context("spawn")) as two:
        load.ask(server.port, *(member.register() for member in members))
        for _ in range(load.pace.runs):
            quiet.runs.append(load.drive(server, load.sign(m.register() for m in cycle(members))))
            calls = load.sign(m.register() for m in cycle(members))
            flood = two.submit(
                generator.flood,
                server.port,
                head.encode() + NESTED,
                connections=FLOODS,
                seconds=load.pace.seconds,
            )
            busy.runs.append(load.drive(server, calls))
            sent += flood.result()
    others, alone = busy.to_json(), quiet.to_json()
    workload = (
        f"signed registers on {CONNECTIONS} connections, while {FLOODS} more send "
        f"{len(NESTED)} bytes of nested lists a call, unsigned, without a limit by bytes"
    )
    told = {"sent": sent, "quiet": alone, "ratio": ratio(others, alone, "p99_ms")}
    return {"large_bodies": {"workload": workload} | others | told}


def memory(load: Load) -> Results:
    """Hold many idle subscriptions."""
    figures = Figures()
    for _ in range(min(load.pace.runs, SERVERS_FOR_MEMORY)):
        with servers.muster() as server:
            figures.runs.append(_memory(load, server))
    workload = f"{load.pace.sockets} subscriptions in 20 circles; the server's own private memory"
    return {"memory": {"workload": workload} | figures.to_json()}


def _memory(load: Load, server: servers.Server) -> Run:
    members = [circle(1)[0] for _ in range(20)]
    asked = [call for m in members for call in (m.register(), m.subscription())]
    answers = load.ask(server.port, *asked)
    tokens = [answer["token"] for answer in answers if "token" in answer]
    idle = server.memory_bytes()
    crowd = generator.Crowd()
    try:
        held = crowd.come(server.port, list(islice(cycle(tokens), load.pace.sockets)))
        full = server.memory_bytes()
    finally:
        crowd.go()
    if idle is None or full is None:
        raise RuntimeError("this system does not tell what a process holds (no /proc)")
    return {"idle_server_mib": idle / 2**20, "socket_kib": (full - idle) / held / 2**10}


def _beside(
    load: Load, members: Sequence[Member], make: Callable[[], Iterator[Ready]]
) -> dict[str, Any]:
    """Measure us and the references in turns, so that a busy moment meets all of them."""
    figures = {name: Figures() for name in ("ours", *REFERENCES)}
    with ExitStack() as running:
        found = {"ours": running.enter_context(servers.muster())}
        for name, wal in REFERENCES.items():
            found[name] = running.enter_context(servers.reference(wal=wal))
        for server in found.values():
            load.ask(server.port, *(member.register() for member in members))
        for _ in range(load.pace.runs):
            calls = load.sign(make())
            for name, server in found.items():
                figures[name].runs.append(load.drive(server, calls))
    ours = figures["ours"].to_json()
    beside = {name: figures[name].to_json() for name in REFERENCES}
    for reference in beside.values():
        reference["ratio"] = ratio(ours, reference, "calls_per_s")
        reference["cpu_ratio"] = ratio(reference, ours, "server_cpu_ms")
    return ours | beside


def _measure(load: Load, once: Callable[[], Run]) -> Figures:
    return Figures([once() for _ in range(load.pace.runs)])


def _polled(load: Load, server: servers.Server, member: Member, after: int) -> Run:
    return load.drive(server, load.sign(member.poll(after) for _ in count()))
