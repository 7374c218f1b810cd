"""Networks on one machine: an internet, hosts, routers with NAT and the LANs behind them.

Everything is a network namespace of Linux, joined by virtual wires, and touches nothing outside:

    with internet() as net:
        service = net.host("service", "203.0.113.10")
        home = net.router("home", "203.0.113.20", nat="cone")
        ann = home.host("ann")
        ann.start([sys.executable, "-m", "tests.networks.node", "ann.muster2"])
        home.cut()

Linux maps a port of a LAN to the same port outside while that is free, whatever the destination:
``cone`` is that, with filtering by address and port. ``symmetric`` takes a random port for each
destination. Both drop what nobody asked for, without a word unless they are told to reject it.
"""

from __future__ import annotations

import ipaddress
import itertools
import json
import os
import secrets
import shutil
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any, Literal

Nat = Literal["cone", "symmetric"]

NETWORKS = ("203.0.113.0/24", "198.51.100.0/24")
"""What the internet is made of (RFC 5737); its own address in each is the first."""

LAN = "192.168.1.0/24"
"""Every LAN has the same addresses, as homes have."""

OURS = "musternet"
STOP_S = 10.0

_ENDING = ("setpriv", "--pdeathsig", "KILL")
"""What is started ends with whoever started it."""

_RULES = """
table ip nat {
    chain out {
        type nat hook postrouting priority srcnat;
        oifname "wire" masquerade %(ports)s
    }
}
table ip filter {
    chain to_router {
        type filter hook input priority filter; policy drop;
        iifname != "wire" accept
        ct state established,related accept
        icmp type echo-request accept
        %(uninvited)s
    }
    chain through {
        type filter hook forward priority filter; policy drop;
        iifname != "wire" accept
        ct state established,related accept
    }
}
"""
_PORTS: Mapping[Nat, str] = {"cone": "", "symmetric": "random,fully-random"}
_REJECT = "meta l4proto tcp reject with tcp reset; reject"


class Unable(RuntimeError):
    """Networks cannot be made here, or one could not be."""


def why_not() -> str:
    """Say in one sentence why networks cannot be made here, or nothing if they can."""
    if os.geteuid() != 0:
        return "networks need root, who alone may make network namespaces"
    for program, package in (("ip", "iproute2"), ("nft", "nftables"), ("setpriv", "util-linux")):
        if shutil.which(program) is None:
            return f"networks need '{program}': apt-get install {package}"
    name = f"{OURS}-{os.getpid()}-{secrets.token_hex(3)}-try"
    try:
        _run("ip", "netns", "add", name)
        try:
            _run(
                "ip", "-n", name, "link", "add", "name", "v0", "type", "veth", "peer", "name", "v1"
            )
            _run("ip", "-n", name, "link", "add", "name", "br0", "type", "bridge")
            _run("ip", "netns", "exec", name, "nft", "-f", "-", given=_rules("cone", _REJECT))
        finally:
            _run("ip", "netns", "del", name)
    except Unable as error:
        return f"networks cannot be made by this kernel, or in this container: {error}"
    return ""


@contextmanager
def internet(*, delay_ms: float = 0) -> Iterator[Internet]:
    """Make an internet; whatever was started or made in it is gone when the block ends.

    *delay_ms* is how long everything takes, one way, between the public networks.
    """
    if why := why_not():
        raise Unable(why)
    _sweep()
    made = Internet(f"{OURS}-{os.getpid()}-{secrets.token_hex(3)}")
    try:
        made.open(delay_ms)
        yield made
    finally:
        made.close()


class Process:
    """A program that runs in a namespace, and the lines that it has written so far."""

    def __init__(self, command: Sequence[str], *, name: str, **options: Any) -> None:
        self.name = name
        self._process = subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            bufsize=1,
            **options,
        )
        self._more = threading.Condition()
        self._lines: list[str] = []
        self._ended = False
        self._reading = threading.Thread(target=self._read, daemon=True)
        self._reading.start()

    def _read(self) -> None:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            with self._more:
                self._lines.append(line.rstrip("\n"))
                self._more.notify_all()
        with self._more:
            self._ended = True
            self._more.notify_all()

    @property
    def pid(self) -> int:
        """The id of the program itself: what starts it becomes it."""
        return self._process.pid

    @property
    def lines(self) -> list[str]:
        """What it has written so far, errors too."""
        with self._more:
            return list(self._lines)

    @property
    def told(self) -> list[dict[str, Any]]:
        """What it has written so far as JSON objects, one a line."""
        return [json.loads(line) for line in self.lines if line.startswith("{")]

    def until(self, found: Callable[[Process], object], what: str, *, seconds: float = 30) -> None:
        """Wait until what it has written comes to something; raises `AssertionError`."""
        with self._more:
            done = self._more.wait_for(lambda: found(self) or self._ended, seconds)
        if not done or not found(self):
            last = "\n".join(self.lines[-25:])
            how = "has ended" if self._ended else f"has had {seconds:g} s"
            raise AssertionError(f"{self.name} {how}, and not: {what}\n{last}")

    def tell(self, message: Mapping[str, Any]) -> None:
        """Write it a line of JSON."""
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps(message) + "\n")
        self._process.stdin.flush()

    def send(self, which: signal.Signals) -> None:
        """Send it a signal: SIGSTOP lets it sleep, SIGCONT wakes it."""
        self._process.send_signal(which)

    def stop(self, how: signal.Signals = signal.SIGTERM) -> int:
        """End it, by its id; one that does not listen is killed. Return its exit code."""
        if self._process.poll() is None:
            self._process.send_signal(how)
            self._process.send_signal(signal.SIGCONT)
        try:
            code = self._process.wait(STOP_S)
        except subprocess.TimeoutExpired:
            self._process.kill()
            code = self._process.wait(STOP_S)
        self._reading.join(STOP_S)
        for pipe in (self._process.stdin, self._process.stdout):
            if pipe is not None:
                with suppress(OSError):
                    pipe.close()
        return code


class Host:
    """A machine with one wire: to the internet, or to the LAN of a router."""

    def __init__(self, net: Internet, name: str) -> None:
        self.net, self.name = net, name
        self.space = net.space(name)
        self.address = ""
        self._segment: _Segment | None = None
        self._far = ""
        self._processes: list[Process] = []

    def start(
        self,
        command: Sequence[str],
        *,
        cwd: Path | None = None,
        environment: Mapping[str, str] | None = None,
    ) -> Process:
        """Start a program here; it ends with the network, and with whoever started it."""
        made = Process(
            (*_inside(self.space), *_ENDING, *command),
            name=self.name,
            cwd=cwd,
            env=None if environment is None else {**os.environ, **environment},
        )
        self._processes.append(made)
        return made

    def run(self, *command: str) -> str:
        """Run a program here to its end, and return what it has written; raises `Unable`."""
        return _run(*_inside(self.space), *command)

    def cut(self) -> None:
        """Cut the wire: what is sent is lost, and nobody here is told so."""
        self._wire("down")

    def restore(self) -> None:
        """Mend the wire."""
        self._wire("up")

    def move(self, place: Internet | Router | str) -> None:
        """Be somewhere else, under another address: of the internet, or behind a router.

        Connections that were open are not closed: as on a telephone, nothing tells them.
        """
        if isinstance(place, str):
            self._plug(self.net.segment(place), place)
        elif isinstance(place, Router):
            self._plug(place.lan, place.lan.free())
        else:
            self._plug(place.segments[0], place.segments[0].free())

    def close(self) -> None:
        """End what was started here."""
        for process in self._processes:
            process.stop(signal.SIGKILL)
        self._processes.clear()

    def _wire(self, state: str) -> None:
        assert self._segment is not None
        _run("ip", "-n", self._segment.space, "link", "set", self._far, state)

    def _plug(self, segment: _Segment, address: str) -> None:
        if self._segment is not None:
            _run("ip", "-n", self.space, "link", "del", "wire")
        segment.taken.add(address)
        self._segment, self._far, self.address = segment, self.net.wire_name(), address
        here = ("ip", "-n", self.space)
        there = ("ip", "-n", segment.space)
        peer = ("peer", "name", self._far, "netns", segment.space)
        _run(*here, "link", "add", "name", "wire", "type", "veth", *peer)
        _run(*there, "link", "set", self._far, "master", segment.bridge, "up")
        _run(*here, "addr", "add", f"{address}/{segment.network.prefixlen}", "dev", "wire")
        _run(*here, "link", "set", "wire", "up")
        _run(*here, "route", "add", "default", "via", segment.gateway)


class Router(Host):
    """A host that hides a LAN behind its address; `cut` and `move` are those of its own wire."""

    def __init__(self, net: Internet, name: str, nat: Nat, *, rejects: bool = False) -> None:
        super().__init__(net, name)
        self.nat = nat
        self.lan = _Segment(self.space, "lan", LAN)
        self.lan.make()
        _forward(self.space)
        _run(*_inside(self.space), "nft", "-f", "-", given=_rules(nat, _REJECT if rejects else ""))

    def host(self, name: str) -> Host:
        """Put a machine into the LAN."""
        return self.net.place(name, self)


class Internet:
    """Public networks that reach each other, and all that was put into them."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.segments: list[_Segment] = []
        self._ending = ExitStack()
        self._numbers = itertools.count(1)

    def open(self, delay_ms: float) -> None:
        """Make the public networks, and what slows them down."""
        space = self.space("internet")
        _forward(space)
        for number, network in enumerate(NETWORKS):
            made = _Segment(space, f"net{number}", network)
            made.make()
            self.segments.append(made)
        if delay_ms:
            self._slow(space, delay_ms)

    def _slow(self, space: str, delay_ms: float) -> None:
        """Lead what goes from network to network by a device that lets it wait."""
        command = (sys.executable, str(Path(__file__).with_name("delay.py")), "slow", str(delay_ms))
        slowing = Process((*_inside(space), *_ENDING, *command), name="delay")
        self._ending.callback(slowing.stop, signal.SIGKILL)
        slowing.until(lambda p: p.lines, "it is ready")
        _run("ip", "-n", space, "link", "set", "slow", "up")
        _run("ip", "-n", space, "route", "add", "default", "dev", "slow", "table", "100")
        for segment in self.segments:
            _run("ip", "-n", space, "rule", "add", "iif", segment.bridge, "table", "100")

    def host(self, name: str, address: str = "") -> Host:
        """Put a machine with a public address into the internet."""
        return self.place(name, address or self)

    def router(
        self, name: str, address: str = "", *, nat: Nat = "cone", rejects: bool = False
    ) -> Router:
        """Put a router with NAT into the internet, with an empty LAN behind it.

        One that *rejects* answers what nobody asked for, by a reset or by ICMP.
        """
        made = Router(self, name, nat, rejects=rejects)
        self._ending.callback(made.close)
        made.move(address or self)
        return made

    def place(self, name: str, where: Internet | Router | str) -> Host:
        """Put a machine somewhere: in the internet, at an address there, behind a router."""
        made = Host(self, name)
        self._ending.callback(made.close)
        made.move(where)
        return made

    def segment(self, address: str) -> _Segment:
        """Return the public network that an address is in; raises `Unable`."""
        for segment in self.segments:
            if ipaddress.IPv4Address(address) in segment.network:
                return segment
        raise Unable(f"{address} is in no network of this internet")

    def space(self, name: str) -> str:
        """Make a namespace, and return its name."""
        made = f"{self.name}-{name}"
        _run("ip", "netns", "add", made)
        self._ending.callback(_run, "ip", "netns", "del", made)
        _run("ip", "-n", made, "link", "set", "lo", "up")
        return made

    def wire_name(self) -> str:
        """Return a name for the far end of a wire."""
        return f"w{next(self._numbers)}"

    def close(self) -> None:
        """End every program, by its id, and remove every namespace."""
        self._ending.close()


class _Segment:
    """A bridge in a namespace: one network, whose first address is the way out of it."""

    def __init__(self, space: str, bridge: str, network: str) -> None:
        self.space, self.bridge = space, bridge
        self.network = ipaddress.IPv4Network(network)
        self.gateway = str(self.network[1])
        self.taken = {self.gateway}

    def free(self) -> str:
        return next(found for one in self.network.hosts() if (found := str(one)) not in self.taken)

    def make(self) -> None:
        here = ("ip", "-n", self.space)
        _run(*here, "link", "add", "name", self.bridge, "type", "bridge", "forward_delay", "0")
        _run(*here, "addr", "add", f"{self.gateway}/{self.network.prefixlen}", "dev", self.bridge)
        _run(*here, "link", "set", self.bridge, "up")


def _rules(nat: Nat, uninvited: str) -> str:
    return _RULES % {"ports": _PORTS[nat], "uninvited": uninvited}


def _forward(space: str) -> None:
    """Let a namespace pass on what is not for itself, and tell nobody of shorter ways."""
    settings = ("ip_forward=1", "conf.all.send_redirects=0", "conf.default.send_redirects=0")
    for setting in settings:
        path, _, value = setting.partition("=")
        command = f"echo {value} > /proc/sys/net/ipv4/{path.replace('.', '/')}"
        _run(*_inside(space), "sh", "-c", command)


def _inside(space: str) -> tuple[str, ...]:
    return ("ip", "netns", "exec", space)


def _run(*command: str, given: str = "") -> str:
    done = subprocess.run(command, input=given, capture_output=True, text=True, check=False)
    if done.returncode:
        why = done.stderr.strip().replace("\n", "; ") or f"exit code {done.returncode}"
        raise Unable(f"'{' '.join(command)}' has failed: {why}")
    return done.stdout


def _sweep() -> None:
    """Remove what runs that were killed have left: theirs alone, by the process in the name."""
    for line in _run("ip", "netns", "list").splitlines():
        ours, _, rest = line.partition("-")
        pid = rest.partition("-")[0]
        if ours == OURS and pid.isdigit() and not Path(f"/proc/{pid}").exists():
            with suppress(Unable):  # another run was first
                _run("ip", "netns", "del", line.split()[0])
