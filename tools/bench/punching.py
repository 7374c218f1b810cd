"""Can two nodes behind NATs open a direct path, and how soon? Prints JSON.

    python -m tools.bench.punching [--runs 5] [--delay-ms 20] [--aiortc PYTHON]

A rendezvous tells two nodes where it sees the other (its observed endpoint); both send there
at once, by UDP and by TCP (simultaneous open), and it is measured how long it takes from then
until each knows that the other hears it. With a Python that has aiortc, once, its data channel.
The networks are those of `tests.networks.namespaces`, and as root alone.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import platform
import selectors
import socket
import statistics
import struct
import subprocess
import sys
import time
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from importlib import import_module
from pathlib import Path
from typing import Any, cast

from tests.networks.namespaces import Host, Internet, Nat, Process, internet

ROOT = Path(__file__).resolve().parents[2]
HUB = "203.0.113.10"
PORT, STUN = 7000, 3478
SIDES = {"a": "203.0.113.20", "b": "198.51.100.20"}
PAIRS = (
    ("cone", "cone"),
    ("rejecting", "rejecting"),
    ("cone", "symmetric"),
    ("symmetric", "symmetric"),
    ("public", "cone"),
    ("public", "symmetric"),
)

PATIENCE_S = 5.0
"""How long a node tries; what has not come by then does not come."""

EVERY_S = 0.05
"""How often a datagram is sent, or a refused connection tried again."""

MAGIC = 0x2112A442
"""Of STUN (RFC 8489)."""


def main() -> None:
    """Measure everything, or be one of the programs that are measured."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--delay-ms", type=float, default=20)
    parser.add_argument("--pairs", nargs="*", default=["-".join(pair) for pair in PAIRS])
    parser.add_argument("--aiortc", metavar="PYTHON", help="a Python that has aiortc")
    parser.add_argument("--role", choices=["hub", "udp", "tcp", "rtc", "import"])
    parser.add_argument("--name", default="")
    chosen = parser.parse_args()
    match chosen.role:
        case None:
            json.dump(report(chosen), sys.stdout, indent=2)
            print()
        case "hub":
            asyncio.run(hub())
        case "udp":
            _tell(by_udp(chosen.name))
        case "tcp":
            _tell(by_tcp(chosen.name))
        case "rtc":
            asyncio.run(by_aiortc(chosen.name))
        case _:
            _tell(imported(chosen.name))


def _tell(told: dict[str, Any]) -> None:
    print(json.dumps(told), flush=True)


# --- what is measured ---------------------------------------------------------------------------


def report(chosen: argparse.Namespace) -> dict[str, Any]:
    """Measure, and say how."""
    pairs = [tuple(pair.split("-")) for pair in chosen.pairs]
    found: dict[str, Any] = {
        "python": platform.python_version(),
        "kernel": platform.release(),
        "cpus": os.cpu_count(),
        "how": f"{chosen.runs} runs, {chosen.delay_ms:g} ms one way between the two networks, the "
        "rendezvous in a's; ms from the other's observed endpoint being told to both having been "
        f"heard, the later of the two; given up after {PATIENCE_S:g} s",
        "results": {},
    }
    ours, rtc = sys.executable, chosen.aiortc
    for one, other in pairs:
        both = partial(measure, one, other, delay_ms=chosen.delay_ms)
        result = {way: both(way, ours, runs=chosen.runs) for way in ("udp", "tcp")}
        found["results"][f"{one}-{other}"] = result | (
            {"aiortc": both("rtc", rtc, runs=1)} if rtc else {}
        )
    return found | ({"aiortc": cost(rtc)} if rtc else {})


def measure(
    one: str, other: str, way: str, python: str, *, runs: int, delay_ms: float
) -> dict[str, Any]:
    """Let two nodes try to meet, on fresh networks each time; say how often and how soon."""
    told = [_try(one, other, way, python, delay_ms) for _ in range(runs)]
    opened = [max(side["ms"] for side in sides) for sides in told if all(s["open"] for s in sides)]
    found: dict[str, Any] = {"runs": runs, "opened": len(opened)}
    if opened:
        found["ms"] = {"median": round(statistics.median(opened), 1), "most": round(max(opened), 1)}
    if way == "rtc":
        found["rss_mib"] = max(side["rss_mib"] for sides in told for side in sides)
    return found


def _try(one: str, other: str, way: str, python: str, delay_ms: float) -> list[dict[str, Any]]:
    with internet(delay_ms=delay_ms) as net:
        serving = _start(net.host("hub", HUB), "hub", sys.executable)
        serving.until(lambda p: p.lines, "the rendezvous is ready")
        running = [
            _start(_side(net, name, kind), way, python, name=name)
            for name, kind in (("a", one), ("b", other))
        ]
        for process in running:
            process.until(lambda p: p.told, "a result", seconds=PATIENCE_S * 6)
        return [process.told[-1] for process in running]


def _side(net: Internet, name: str, kind: str) -> Host:
    if kind == "public":
        return net.host(name, SIDES[name])
    nat: Nat = "symmetric" if kind == "symmetric" else "cone"
    rejects = kind == "rejecting"
    return net.router(f"{name}-nat", SIDES[name], nat=nat, rejects=rejects).host(name)


def _start(host: Host, role: str, python: str, *, name: str = "") -> Process:
    command = ["-m", "tools.bench.punching", f"--role={role}", f"--name={name}"]
    return host.start([python, *command], cwd=ROOT)


# --- the rendezvous -----------------------------------------------------------------------------


class _Datagrams(asyncio.DatagramProtocol):
    """Tells each of two nodes where the other is seen; answers STUN, if it is that."""

    def __init__(self) -> None:
        self._seen: dict[str, tuple[str, int]] = {}

    def connection_made(self, transport: asyncio.DatagramTransport) -> None:  # type: ignore[override]
        self._transport = transport

    def datagram_received(self, data: bytes, addr: tuple[str, int]) -> None:
        if data[:1] != b"{":
            self._transport.sendto(_stun(data, addr), addr)
            return
        self._seen[json.loads(data)["name"]] = addr
        if len(self._seen) == len(SIDES):
            for name, place in self._seen.items():
                other = next(seen for others, seen in self._seen.items() if others != name)
                self._transport.sendto(json.dumps({"other": other}).encode(), place)


def _stun(data: bytes, addr: tuple[str, int]) -> bytes:
    """Answer a binding request with XOR-MAPPED-ADDRESS (RFC 8489, 14.2)."""
    port = addr[1] ^ (MAGIC >> 16)
    host = int.from_bytes(socket.inet_aton(addr[0]), "big") ^ MAGIC
    mapped = struct.pack("!HHBBHI", 0x0020, 8, 0, 1, port, host)
    return struct.pack("!HHI", 0x0101, len(mapped), MAGIC) + data[8:20] + mapped


async def hub() -> None:
    """Be the rendezvous: by UDP, by TCP where it passes on lines too, and a STUN server."""
    writers: dict[str, asyncio.StreamWriter] = {}

    async def come(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        name = json.loads(await reader.readline())["name"]
        writers[name] = writer
        if len(writers) == len(SIDES):
            for mine, one in writers.items():
                other = next(two for theirs, two in writers.items() if theirs != mine)
                seen = other.get_extra_info("peername")
                one.write(json.dumps({"other": seen}).encode() + b"\n")
        with suppress(ConnectionError):
            while line := await reader.readline():
                next(two for theirs, two in writers.items() if theirs != name).write(line)

    loop = asyncio.get_running_loop()
    for port in (PORT, STUN):
        await loop.create_datagram_endpoint(_Datagrams, local_addr=(HUB, port))
    server = await asyncio.start_server(come, HUB, PORT)
    print("ready", flush=True)
    await server.serve_forever()


# --- by UDP -------------------------------------------------------------------------------------


def by_udp(name: str) -> dict[str, Any]:
    """Open a hole to where the other is seen; what comes from elsewhere is answered there."""
    me = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    me.bind(("", 0))
    me.settimeout(EVERY_S)
    other = _told_by_udp(me, name)
    began = time.monotonic()
    heard, is_heard = False, False
    while (now := time.monotonic()) < began + PATIENCE_S:
        me.sendto(b"heard" if heard else b"punch", other)
        while not is_heard and time.monotonic() < now + EVERY_S:
            with suppress(TimeoutError, ConnectionError):
                data, place = me.recvfrom(99)
                if place[0] == HUB:
                    continue
                if not heard:
                    heard, other = True, place
                    me.sendto(b"heard", other)
                is_heard = data == b"heard"
        if is_heard:
            ms = (time.monotonic() - began) * 1000
            for _ in range(5):
                me.sendto(b"heard", other)
            return {"open": True, "ms": ms}
    return {"open": False}


def _told_by_udp(me: socket.socket, name: str) -> tuple[str, int]:
    while True:
        me.sendto(json.dumps({"name": name}).encode(), (HUB, PORT))
        with suppress(TimeoutError):
            data, place = me.recvfrom(999)
            if place == (HUB, PORT):
                host, port = json.loads(data)["other"]
                return host, port


# --- by TCP -------------------------------------------------------------------------------------


@dataclass(slots=True)
class _Attempt:
    """Connections from one port to where the other is seen, and those that come to it."""

    here: tuple[str, int]
    other: tuple[str, int]
    found: selectors.BaseSelector

    def connect(self) -> None:
        """Begin once more."""
        made = _bound(self.here)
        made.connect_ex(self.other)
        self.found.register(made, selectors.EVENT_WRITE, "connecting")

    def look(self) -> bool:
        """Take what has happened; say whether the other is heard."""
        for key, _ in self.found.select(EVERY_S):
            one = cast(socket.socket, key.fileobj)
            if key.data == "listening":
                come, _ = one.accept()
                self._greet(come)
            elif key.data == "connecting":
                self.found.unregister(one)
                if one.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR):
                    one.close()
                    time.sleep(EVERY_S)
                    self.connect()
                else:
                    self._greet(one)
            else:
                with suppress(OSError):
                    if one.recv(9):
                        return True
                self.found.unregister(one)
        return False

    def _greet(self, one: socket.socket) -> None:
        one.setblocking(False)
        one.send(b"hello")
        self.found.register(one, selectors.EVENT_READ, "open")


def by_tcp(name: str) -> dict[str, Any]:
    """Connect from the port that the rendezvous sees to where it sees the other, both at once."""
    me = _bound(("", 0))
    me.setblocking(True)
    me.connect((HUB, PORT))
    me.sendall(json.dumps({"name": name}).encode() + b"\n")
    here = me.getsockname()
    listening = _bound(here)
    listening.listen()
    host, port = json.loads(me.makefile().readline())["other"]
    began = time.monotonic()
    attempt = _Attempt(here, (host, port), selectors.DefaultSelector())
    attempt.found.register(listening, selectors.EVENT_READ, "listening")
    attempt.connect()
    while time.monotonic() < began + PATIENCE_S:
        if attempt.look():
            return {"open": True, "ms": (time.monotonic() - began) * 1000}
    return {"open": False}


def _bound(here: tuple[str, int]) -> socket.socket:
    made = socket.socket()
    made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
    made.setblocking(False)
    made.bind(here)
    return made


# --- aiortc -------------------------------------------------------------------------------------


async def by_aiortc(name: str) -> None:
    """Open a data channel as browsers do, by STUN alone; the rendezvous passes the signals."""
    aiortc = import_module("aiortc")

    reader, writer = await asyncio.open_connection(HUB, PORT)
    writer.write(json.dumps({"name": name}).encode() + b"\n")
    await reader.readline()
    began = time.monotonic()
    servers = [aiortc.RTCIceServer(f"stun:{HUB}:{STUN}")]
    link = aiortc.RTCPeerConnection(aiortc.RTCConfiguration(iceServers=servers))
    heard = asyncio.Event()

    def use(channel: Any) -> None:
        channel.on("message", lambda _: heard.set())
        if channel.readyState == "open":
            channel.send("hello")
        channel.on("open", lambda: channel.send("hello"))

    if name == "a":
        use(link.createDataChannel("c"))
        await link.setLocalDescription(await link.createOffer())
        _pass(writer, link.localDescription)
        await link.setRemoteDescription(await _next(reader))
    else:
        link.on("datachannel", use)
        await link.setRemoteDescription(await _next(reader))
        await link.setLocalDescription(await link.createAnswer())
        _pass(writer, link.localDescription)
    with suppress(TimeoutError):
        async with asyncio.timeout(PATIENCE_S * 4):
            await heard.wait()
    ms = (time.monotonic() - began) * 1000
    _tell({"open": heard.is_set(), "ms": ms, "rss_mib": _rss_mib()})
    await asyncio.sleep(PATIENCE_S)  # the other may still be at it


def _pass(writer: asyncio.StreamWriter, described: Any) -> None:
    told = {"type": described.type, "sdp": described.sdp}
    writer.write(json.dumps(told).encode() + b"\n")


async def _next(reader: asyncio.StreamReader) -> Any:
    described = json.loads(await reader.readline())
    return import_module("aiortc").RTCSessionDescription(**described)


def cost(python: str) -> dict[str, Any]:
    """Say what aiortc takes of the disk, of memory and of time, beside our own client."""
    done = {"aiortc": _least(python, "aiortc"), "muster": _least(sys.executable, "muster.circle")}
    sizes = json.loads(_output(python, "-c", _SIZES))
    new = {name: round(size / 2**20, 1) for name, size in sizes.items() if name not in OURS}
    return done | {"installed_mib": round(sum(new.values()), 1), "packages": new}


OURS = {"cffi", "cryptography", "pip", "pycparser", "setuptools", "typing_extensions", "wheel"}
"""What is there without aiortc too."""

_SIZES = """
import json
from importlib.metadata import distributions
print(json.dumps({
    one.name: sum(f.locate().stat().st_size for f in one.files or () if f.locate().is_file())
    for one in sorted(distributions(), key=lambda one: one.name)
}))
"""


def _least(python: str, module: str) -> dict[str, Any]:
    run = ("-m", "tools.bench.punching", "--role=import", f"--name={module}")
    told: list[dict[str, Any]] = [json.loads(_output(python, *run)) for _ in range(5)]
    return min(told, key=lambda one: one["import_ms"])


def imported(module: str) -> dict[str, Any]:
    """Import a module here, and say what that took."""
    before_mib, began = _rss_mib(), time.perf_counter()
    import_module(module)
    import_ms = (time.perf_counter() - began) * 1000
    return {"import_ms": round(import_ms), "more_rss_mib": round(_rss_mib() - before_mib, 1)}


def _output(python: str, *arguments: str) -> str:
    command = [python, *arguments]
    done = subprocess.run(command, cwd=ROOT, check=True, capture_output=True, text=True)  # noqa: S603 - ours
    return done.stdout


def _rss_mib() -> float:
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return round(pages * os.sysconf("SC_PAGE_SIZE") / 2**20, 1)


if __name__ == "__main__":
    main()
