"""What strangers who read or send slowly can keep in the memory of a running service."""

import json
import os
import socket
import struct
import time
from collections.abc import Iterator
from contextlib import ExitStack, closing, contextmanager, suppress
from pathlib import Path

import pytest

from chalicelib.local.bounds import Bounds
from chalicelib.local.memory import Memory
from muster.felund import signing
from tests.support.certificate import Authority
from tests.support.local import Node, Server, Wire, circle, request, running, running_with_tls

MIB = 1024 * 1024


class Slow:
    """A connection on which something waits; it gives way in two steps, as sockets do."""

    def __init__(self, memory: Memory, network: str) -> None:
        self.memory, self.network, self.asked = memory, network, 0

    def give_way(self) -> None:
        self.asked += 1
        self.memory.hold(self, 0)


def test_the_fullest_goes_first_in_all_and_in_each_network() -> None:
    memory = Memory(Bounds(waiting_bytes=100, network_waiting_bytes=50))
    one, two, near, far = (Slow(memory, name) for name in ("a", "a", "b", "c"))
    memory.hold(one, 20)
    memory.hold(two, 30)
    memory.hold(near, 45)
    assert memory.total_bytes == 95

    memory.hold(one, 25)
    assert (one.asked, two.asked, near.asked) == (0, 1, 0)
    memory.hold(far, 31)
    assert (one.asked, near.asked, far.asked) == (0, 1, 0)
    assert memory.total_bytes == 56


def test_a_proxy_that_speaks_for_many_has_no_share_of_its_own() -> None:
    memory = Memory(Bounds(waiting_bytes=100, network_waiting_bytes=10))
    proxy = Slow(memory, "")
    memory.hold(proxy, 100)
    assert not proxy.asked
    memory.hold(proxy, 101)
    assert proxy.asked


def test_the_log_is_told_once_a_minute(caplog: pytest.LogCaptureFixture) -> None:
    memory = Memory(Bounds(waiting_bytes=1))
    for _ in range(5):
        memory.hold(Slow(memory, "a"), 2)
    assert memory.ended == 5
    assert len(caplog.records) == 1


@contextmanager
def serving(folder: Path, way: str, **environment: str) -> Iterator[Server]:
    """Run a server that speaks in clear, or TLS."""
    if way == "plain":
        starting = running(folder / "data", **environment)
    else:
        starting = running_with_tls(folder / "data", Authority(folder), **environment)
    with starting as server:
        yield server


either_way = pytest.mark.parametrize("way", ["plain", "tls"])


def narrow(server: Server) -> Wire:
    """Connect, and take as little from the network as the system allows."""
    connection = socket.socket()
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    connection.connect(("127.0.0.1", server.port))
    if server.trust:
        connection = server.trust.wrap_socket(connection, server_hostname="127.0.0.1")
    return Wire(connection)


def seat(server: Server, token: str) -> Wire:
    """Subscribe on a connection that is narrow."""
    wire = narrow(server)
    wire.send(
        f"GET /v1/relay/ws?token={token} HTTP/1.1\r\nHost: muster.test\r\nUpgrade: websocket\r\n"
        "Connection: Upgrade\r\nSec-WebSocket-Version: 13\r\n"
        "Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n\r\n".encode()
    )
    assert wire.answer(head_only=True).status == 101
    return wire


def nodes(server: Server, count: int) -> list[Node]:
    return circle(server, *(f"node{number:04}" for number in range(count)))


@contextmanager
def seats(server: Server, members: list[Node], each: int) -> Iterator[list[Wire]]:
    with ExitStack() as stack:
        tokens = [member.token() for member in members for _ in range(each)]
        yield [stack.enter_context(closing(seat(server, token))) for token in tokens]


@either_way
def test_seats_that_do_not_read_stay_within_one_budget(tmp_path: Path, way: str) -> None:
    with serving(tmp_path, way, network_waiting_bytes=str(8 * MIB)) as server:
        ann, cat, *slow = nodes(server, 12)
        with seats(server, slow, 8) as wires, cat.subscribe() as hers:
            before = server.rss_bytes()
            for number in range(60):
                ann.leave(f"message-{number:04}", text=os.urandom(50_000).hex())
                assert json.loads(hers.recv(timeout=10))["messages"], "she reads, so she is served"
            grown = server.rss_bytes() - before
            status = server.call("GET", "/status.json").json()
            told = [closing_reason(wire) for wire in wires]
        assert grown < 24 * MIB, f"{len(wires)} seats hold {grown} bytes"
        assert status["memory"]["waiting_bytes"] <= 8 * MIB
        assert status["memory"]["ended"] >= len(wires) // 4
        assert (1013, b"the reader is too slow") in told
        metrics = server.call("GET", "/metrics").body.decode()
        assert "muster_waiting_bytes" in metrics
        assert "muster_made_way_total" in metrics
        server.stop()
        assert server.errors().count("the fullest first") == 1


def closing_reason(wire: Wire) -> tuple[int, bytes] | None:
    """Read what has come; how the other side closed, if it said so."""
    last = b""
    wire.socket.settimeout(0.2)
    with suppress(OSError):
        while data := wire.socket.recv(MIB):
            last = (last + data)[-200:]
    at = last.rfind(b"\x88")
    return (struct.unpack("!H", last[at + 2 : at + 4])[0], last[at + 4 :]) if at >= 0 else None


@either_way
def test_messages_that_do_not_end_stay_within_the_budget(tmp_path: Path, way: str) -> None:
    with serving(tmp_path, way, network_waiting_bytes=str(4 * MIB)) as server:
        members = nodes(server, 30)
        with seats(server, members, 8) as wires:
            before = server.rss_bytes()
            head = b"\x81\xff" + (250_000).to_bytes(8, "big") + bytes(4)
            for wire in wires:
                with suppress(OSError):
                    wire.send(head + b"x" * 240_000)
            assert server.call("GET", "/v1/health").status == 200
            grown = server.rss_bytes() - before
            status = server.call("GET", "/status.json").json()
        assert status["memory"]["waiting_bytes"] <= 4 * MIB
        # What TLS has freed, in pieces of a record, the process keeps for the next ones.
        most = 26 * MIB if way == "plain" else 42 * MIB
        assert grown < most, f"{len(wires)} messages without an end hold {grown} bytes"


@either_way
def test_answers_that_nobody_reads_stay_within_the_budget(tmp_path: Path, way: str) -> None:
    with serving(tmp_path, way, network_waiting_bytes=str(4 * MIB)) as server:
        (ann,) = circle(server, "ann")
        ann.leave("message-0001", text="x" * 900_000)
        ask = signed_poll(ann)
        before = server.rss_bytes()
        with ExitStack() as stack:
            wires: list[Wire] = []
            for _ in range(60):
                wires.append(stack.enter_context(closing(narrow(server))))
                wires[-1].send(next(ask) + next(ask))
            assert server.call("GET", "/v1/health").status == 200
            status = server.call("GET", "/status.json").json()
            grown = server.rss_bytes() - before
        assert status["memory"]["waiting_bytes"] <= 4 * MIB
        assert grown < 24 * MIB


def signed_poll(node: Node) -> Iterator[bytes]:
    """Yield requests for the mailbox, signed as they are sent."""
    while True:
        headers = signing.headers(
            signing.request_key(node.secret),
            *("GET", "/messages", b""),
            node_id=node.node_id,
            now=int(time.time()),
            nonce=os.urandom(16),
        )
        yield request("GET", f"/v1/messages?circle_hint={node.hint}&after=0", b"", headers)


def test_calls_that_wait_for_the_answer_to_the_first_are_few(tmp_path: Path) -> None:
    with running(tmp_path) as server, closing(server.open()) as wire:
        wire.send(b"GET /v1/health HTTP/1.1\r\nHost: a\r\n\r\n" * 2_000)
        statuses: list[int] = []
        with suppress(OSError, ConnectionError):
            while len(statuses) < 2_000:
                statuses.append(wire.answer().status)
        assert statuses[-1] == 400
        assert len(statuses) < 200


@either_way
def test_whoever_reads_slowly_gets_the_whole_answer_and_then_the_next(
    tmp_path: Path, way: str
) -> None:
    with serving(tmp_path, way) as server:
        (ann,) = circle(server, "ann")
        ann.leave("message-0001", text="x" * 900_000)
        ask = signed_poll(ann)
        with closing(server.open()) as wire:
            wire.send(next(ask) + next(ask) + next(ask))
            for _ in range(3):
                answer = wire.answer()
                assert answer.status == 200
                assert len(answer.json()["messages"][0]["text"]) == 900_000
            wire.send(next(ask))
            assert wire.answer().status == 200
