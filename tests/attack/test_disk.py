"""What strangers can keep on the disk of a running service, and what a full disk does."""

import json
import os
import socket
import sqlite3
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import closing, suppress
from dataclasses import dataclass
from pathlib import Path

import pytest

from muster.felund import signing
from tests.support.local import Answer, Node, Server, Wire, circle, request, running

MIB = 1024 * 1024


@dataclass
class Elsewhere:
    """A server as it is reached from another address of this machine."""

    server: Server
    address: str

    def call(self, *told: object) -> Answer:
        """Make one call on a connection of its own."""
        to, here = ("127.0.0.1", self.server.port), (self.address, 0)
        with closing(Wire(socket.create_connection(to, timeout=10, source_address=here))) as wire:
            return wire.call(*told)  # type: ignore[arg-type]


def stranger(server: Server, number: int) -> Node:
    """Return a member of a circle of its own, at an address of its own."""
    there = Elsewhere(server, f"127.0.{number // 250}.{number % 250 + 2}")
    return Node(there, "stranger-01", os.urandom(32))  # type: ignore[arg-type]


def register(node: Node) -> Answer:
    body = {
        "node_id": node.node_id,
        "circle_hint": node.hint,
        "signing_key": signing.request_key(node.secret).hex(),
    }
    return node.call("POST", "/v1/register", body)


def post(node: Node, name: str, size: int) -> Answer:
    """Leave ten messages of *size* bytes each."""
    text = "x" * size
    messages = [{"msg_id": f"{name}-{part:02}", "text": text} for part in range(10)]
    return node.call("POST", "/v1/messages", {"circle_hint": node.hint, "messages": messages})


def fill(server: Server, *, networks: int = 60, posts: int = 30) -> list[Answer]:
    """Let strangers store what they may; the answers that refused them."""
    refused = []
    for number in range(networks):
        node = stranger(server, number)
        answer = register(node)
        for one in range(posts):
            if answer.status != 200:
                break
            answer = post(node, f"fill-{number:03}-{one:03}", 40_000)
        if answer.status != 200:
            refused.append(answer)
    return refused


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A real file system of 8 MiB."""
    place = tmp_path / "disk"
    place.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", "size=8m", "tmpfs", str(place)]
    try:
        subprocess.run(command, check=True, capture_output=True)
    except (OSError, subprocess.CalledProcessError):
        pytest.skip("needs root: it mounts a file system of its own")
    try:
        yield place
    finally:
        subprocess.run(["umount", str(place)], check=True)


def members_are_served(ann: Node, name: str) -> None:
    """Check that a known circle has everything."""
    ann.register()
    ann.leave(f"{name}-message", text="hello")
    assert f"{name}-message" in ann.collect()


def test_strangers_cannot_fill_the_disk_for_circles_that_are_known(small_disk: Path) -> None:
    with running(small_disk) as server:
        (ann,) = circle(server, "ann")
        members_are_served(ann, "before")
        refused = fill(server)
        assert {answer.json()["code"] for answer in refused} <= {
            "UNAVAILABLE",
            "MAILBOX_FULL",
            "RATE_LIMITED",
        }
        assert len(refused) > 40
        assert all(int(answer.headers["retry-after"]) > 0 for answer in refused)
        members_are_served(ann, "after")
        with ann.subscribe():
            pass
        ann.register()


def test_a_ceiling_holds_where_the_disk_has_more(tmp_path: Path) -> None:
    with running(tmp_path, store_bytes=str(8 * MIB)) as server:
        (ann,) = circle(server, "ann")
        members_are_served(ann, "before")
        refused = fill(server)
        assert len(refused) > 40
        members_are_served(ann, "after")
        shown = server.call("GET", "/status.json").json()["store"]
        assert 6.5 * MIB < shown["most_bytes"] <= 8 * MIB
        assert 0.7 * shown["most_bytes"] < shown["used_bytes"] < 0.9 * shown["most_bytes"]
    assert sum(path.stat().st_size for path in tmp_path.glob("muster.sqlite3*")) < 8 * MIB


def until(fact: Callable[[], bool]) -> None:
    """Wait until something holds."""
    end = time.monotonic() + 10
    while not fact():
        assert time.monotonic() < end
        time.sleep(0.02)


def store_full(server: Server) -> bool:
    return server.call("GET", "/v1/health").json().get("store_full", False) is True


def test_a_disk_that_others_fill_is_told_of_and_heals_without_a_restart(small_disk: Path) -> None:
    with running(small_disk) as server:
        (ann,) = circle(server, "ann")
        ann.leave("message-0001", text="x" * 500_000)
        assert not store_full(server)
        assert server.call("GET", "/v1/health").json().keys() == {"ok", "version", "time"}
        ballast = small_disk / "ballast"
        with suppress(OSError), ballast.open("wb", buffering=0) as file:
            while True:
                file.write(bytes(4096))
        until(lambda: store_full(server))

        message = {"msg_id": "message-0002", "text": "x" * 600_000}
        body = {"circle_hint": ann.hint, "messages": [message]}
        answer = ann.call("POST", "/v1/messages", body)
        assert (answer.status, answer.json()["code"]) == (503, "UNAVAILABLE")
        assert answer.json()["retryable"] is True
        assert int(answer.headers["retry-after"]) >= 1
        assert server.call("GET", "/status.json").json()["store"]["full"] is True
        assert "muster_store_full 1.0" in server.call("GET", "/metrics").body.decode()

        ballast.unlink()
        until(lambda: not store_full(server))
        ann.leave("message-0003", text="hello")
        assert ann.collect() == ["message-0001", "message-0003"]
        with closing(sqlite3.connect(small_disk / "muster.sqlite3")) as db:
            kinds = "SELECT count(DISTINCT pk) FROM mail WHERE pk LIKE 'piece#%'"
            assert db.execute(kinds).fetchone() == (1,), "no half of what was refused is left"
        server.stop()
        assert server.errors().count("the store is full") == 1


def test_what_expired_makes_room_before_anybody_is_refused_for_long(tmp_path: Path) -> None:
    with running(tmp_path, store_bytes=str(8 * MIB), message_s="2") as server:
        (ann,) = circle(server, "ann")
        fill(server, networks=20)
        until(lambda: register(stranger(server, 200)).status == 200)
        until(lambda: post(stranger_known(server), "later", 10_000).status == 200)
        ann.leave("message-0001")


def stranger_known(server: Server) -> Node:
    node = stranger(server, 201)
    assert register(node).status in (200, 503)
    return node


def test_a_network_makes_so_many_circles_a_day(tmp_path: Path) -> None:
    with running(tmp_path, network_circles="3") as server:
        statuses = [register(Node(server, "node-00001", os.urandom(32))).status for _ in range(4)]
        assert statuses == [200, 200, 200, 429]
        assert register(stranger(server, 1)).status == 200


def test_a_network_has_so_much_stored_a_day_also_after_a_restart(tmp_path: Path) -> None:
    kept = os.urandom(32)
    with running(tmp_path, network_bytes=str(MIB)) as server:
        node = Node(server, "node-00001", kept)
        node.register()
        answers = [post(node, f"fill-{one:03}", 40_000) for one in range(4)]
        assert [answer.status for answer in answers] == [200, 200, 429, 429]
        assert answers[-1].json()["code"] == "RATE_LIMITED"
        node.register()
    with running(tmp_path, network_bytes=str(MIB)) as server:
        assert post(Node(server, "node-00001", kept), "again", 40_000).status == 429


def test_health_answers_at_once_while_another_process_holds_the_lock(tmp_path: Path) -> None:
    with running(tmp_path) as server:
        (ann,) = circle(server, "ann")
        body = {"circle_hint": ann.hint, "messages": [{"msg_id": "message-0001"}]}
        with closing(sqlite3.connect(tmp_path / "muster.sqlite3")) as other:
            other.execute("BEGIN IMMEDIATE")
            wires = [server.open() for _ in range(20)]
            started = time.monotonic()
            for wire in wires:
                wire.send(signed(ann, "POST", "/v1/messages", json.dumps(body).encode()))
            assert server.call("GET", "/v1/health").status == 200
            took = time.monotonic() - started
            answers = [wire.answer() for wire in wires]
            other.rollback()
        assert took < 1.5
        assert {answer.status for answer in answers} == {503}
        assert {answer.headers["retry-after"] for answer in answers} == {"1"}
        ann.leave("message-0001")
        for wire in wires:
            wire.close()


def signed(node: Node, method: str, path: str, body: bytes) -> bytes:
    headers = signing.headers(
        signing.request_key(node.secret),
        method,
        path.removeprefix("/v1"),
        body,
        node_id=node.node_id,
        now=int(time.time()),
        nonce=os.urandom(16),
    )
    return request(method, path, body, headers)
