"""The networks that tests are made on are what they say, and leave nothing behind."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from tests.networks import namespaces
from tests.networks.namespaces import Host, Internet, Unable, internet

SEES = """
import socket
port = socket.create_server(("0.0.0.0", 7000))
sockets = [socket.socket(socket.AF_INET, socket.SOCK_DGRAM) for _ in range(2)]
for number, one in enumerate(sockets):
    one.bind(("0.0.0.0", 7001 + number))
print("ready", flush=True)
while True:
    for one in sockets:
        print(*one.recvfrom(9)[1], flush=True)
"""
SENDS = """
import socket
one = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
one.bind(("0.0.0.0", 5555))
for port in (7001, 7002):
    one.sendto(b"x", ("203.0.113.10", port))
"""
CALLS = "import socket; socket.create_connection(('203.0.113.10', 7000), timeout=1)"


def seen(net: Internet, *hosts: Host) -> list[list[str]]:
    """Return what a public host sees of each, at two of its ports."""
    program = [sys.executable, "-c", SEES]
    public = net.host("public", "203.0.113.10").start(program)
    public.until(lambda p: p.lines, "it is ready")
    for number, host in enumerate(hosts):
        host.run(sys.executable, "-c", SENDS)
        public.until(lambda p, most=3 + 2 * number: len(p.lines) >= most, "it sees")  # type: ignore[misc]
    lines = public.lines[1:]
    return [lines[at : at + 2] for at in range(0, len(lines), 2)]


def test_a_cone_shows_one_port_to_all_and_a_symmetric_nat_one_to_each() -> None:
    with internet() as net:
        cone, symmetric = net.router("one"), net.router("two", nat="symmetric")
        first, second = seen(net, cone.host("ann"), symmetric.host("bob"))

        assert first == [f"{cone.address} 5555"] * 2
        assert [line.split()[0] for line in second] == [symmetric.address] * 2
        assert len({"5555", *(line.split()[1] for line in second)}) == 3


def test_a_host_has_no_way_while_its_wire_is_cut_and_another_address_when_it_has_moved() -> None:
    with internet() as net:
        ann = net.host("ann", "198.51.100.7")
        assert seen(net, ann) == [["198.51.100.7 5555"] * 2]
        ann.run(sys.executable, "-c", CALLS)
        ann.cut()
        with pytest.raises(Unable, match=r"timed out|No route"):
            ann.run(sys.executable, "-c", CALLS)
        ann.restore()
        ann.run(sys.executable, "-c", CALLS)
        ann.move(net.router("home"))
        assert ann.address == "192.168.1.2"
        ann.run(sys.executable, "-c", CALLS)


def test_nothing_is_left_when_a_block_ends_badly_and_two_do_not_meet() -> None:
    with internet() as other, pytest.raises(RuntimeError, match="badly"):  # noqa: PT012
        there = other.host("ann", "203.0.113.9")
        with internet() as net:
            here = net.host("ann", "203.0.113.9")
            process = here.start(["sleep", "1000"])
            assert {here.space, there.space} <= set(spaces())
            raise RuntimeError("it ends badly")

    assert not {here.space, there.space} & set(spaces())
    assert not Path(f"/proc/{process.pid}").exists()


def spaces() -> list[str]:
    listed = subprocess.run(["ip", "netns", "list"], check=True, capture_output=True, text=True)
    return [line.split()[0] for line in listed.stdout.splitlines()]


def test_where_networks_cannot_be_made_it_is_said_and_nothing_is_skipped(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    assert namespaces.why_not() == ""
    monkeypatch.setenv("PATH", str(tmp_path))
    assert namespaces.why_not() == "networks need 'ip': apt-get install iproute2"
    with pytest.raises(Unable, match="networks need"), internet():
        pass
