"""A circle on networks as they are: behind NAT, on the move, asleep, and without its service."""

from __future__ import annotations

import re
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from signal import SIGCONT, SIGKILL, SIGSTOP
from typing import Any

import pytest

from muster.circle import Circle
from muster.circle.attending import CONFIRM_S
from muster.invites import ServiceAddress
from tests.networks.namespaces import Host, Internet, Process, internet
from tests.support.local import GENEROUS, ROOT

pytestmark = pytest.mark.slow

PORT = 9999
OUTAGE_S = 4.0
"""How long a wire is cut, or a node asleep: the hardship itself, not a wait for anything."""

QUIET_S = CONFIRM_S + 1
"""How long nobody has spoken, so that a node has nothing to ask for, for minutes."""


@pytest.fixture
def net() -> Iterator[Internet]:
    """An internet; where none can be made the test fails, and says why."""
    with internet() as made:
        yield made


class Service:
    """The one-machine service at a host, which is killed and comes back at the same place."""

    def __init__(self, host: Host, directory: Path) -> None:
        self.host, self.directory = host, directory
        self.start()
        (found,) = set(re.findall(r"http://\S+#[0-9a-f]{32}", "\n".join(self.process.lines)))
        self.address = ServiceAddress.parse(found)

    def start(self) -> None:
        command = ("-m", "chalicelib.local", f"--host={self.host.address}", "--port=8787")
        self.process = self.host.start(
            [sys.executable, *command, f"--data={self.directory}"],
            cwd=ROOT,
            environment=GENEROUS | {"MUSTER_ACCESS": "open"},
        )
        self.process.until(lambda p: any("in another" in line for line in p.lines), "it serves")

    def kill(self) -> None:
        self.process.stop(SIGKILL)


class Node:
    """A member at a host, in a process of its own."""

    def __init__(self, name: str, host: Host, file: Path, *, port: int | None = None) -> None:
        self.name, self.host = name, host
        place = [f"--port={port}", f"--shown={host.address}"] if port else []
        self.process = host.start(
            [sys.executable, "-m", "tests.networks.node", str(file), f"--name={name}", *place],
            cwd=ROOT,
        )
        self.process.until(lambda p: self.of("ready"), f"{name} is ready")

    def of(self, what: str) -> list[dict[str, Any]]:
        return [one for one in self.process.told if one["is"] == what]

    def says(self, *texts: str) -> None:
        for text in texts:
            self.process.tell({"say": text})

    def heard(self) -> list[str]:
        """Every text that it was told, as often as it was told it; its own too."""
        return [one["text"] for one in self.of("said")]

    def hears(self, *texts: str, seconds: float = 30) -> None:
        def every(_: Process) -> bool:
            return set(texts) <= set(self.heard())

        try:
            self.process.until(every, f"hears {texts}", seconds=seconds)
        except AssertionError as error:
            lost = sorted(set(texts) - set(self.heard()))
            raise AssertionError(f"{self.name} has not heard {lost}: {error}") from None

    def has_left(self, *texts: str, seconds: float = 30) -> None:
        """Wait until somebody has taken what it said."""
        self.process.until(
            lambda p: set(texts) <= {one["text"] for one in self.of("taken")},
            f"{texts} are taken",
            seconds=seconds,
        )

    def is_live(self, *, seconds: float = 45) -> None:
        """Wait until its socket at the service is open."""
        self.process.until(
            lambda p: self.of("state") and self.of("state")[-1]["state"] == "live",
            "it is live",
            seconds=seconds,
        )

    def loses_service(self, *, seconds: float = 30) -> None:
        self.process.until(
            lambda p: self.of("state")[-1]["state"] not in ("live", "polling"),
            "it knows that the service is down",
            seconds=seconds,
        )

    def sees(self, *names: str) -> None:
        self.process.until(
            lambda p: set(names) <= {one["name"] for one in self.of("joined")}, f"sees {names}"
        )

    def meets(self, *names: str, seconds: float = 45) -> None:
        """Wait until it meets these, and nobody else, directly."""
        self.process.until(
            lambda p: self.of("met") and self.of("met")[-1]["names"] == sorted(names),
            f"meets {names}",
            seconds=seconds,
        )

    def has_path(self, name: str, path: str) -> None:
        """Wait until its link with another goes by a path."""

        def latest(_: Process) -> bool:
            found = [one["path"] for one in self.of("link") if one["name"] == name]
            return found[-1:] == [path]

        self.process.until(latest, f"its link with {name} goes by {path}")


class Party:
    """A circle, and those who are in it."""

    def __init__(
        self, folder: Path, *services: Service, peers: tuple[str, ...] = (), founder: str = "Ann"
    ) -> None:
        self.folder = folder
        addresses = [one.address for one in services]
        made = Circle.new(folder / f"{founder}.muster2", services=addresses)
        self.invite = made.invite(peers=peers)
        made.close()
        self.nodes: list[Node] = []

    def node(self, name: str, host: Host, *, port: int | None = None) -> Node:
        file = self.folder / f"{name}.muster2"
        if not file.exists():
            Circle.join(self.invite, file).close()
        made = Node(name, host, file, port=port)
        self.nodes.append(made)
        return made

    def are_live(self) -> None:
        for node in self.nodes:
            node.is_live()
            node.sees(*(one.name for one in self.nodes if one is not node))

    def hear(self, *texts: str, seconds: float = 30) -> None:
        """Wait until everybody has heard everything, and nobody anything twice."""
        end = time.monotonic() + seconds
        for node in self.nodes:
            node.hears(*texts, seconds=max(end - time.monotonic(), 0.1))
        for node in self.nodes:
            assert len(node.heard()) == len(set(node.heard())), f"{node.name} was told twice"
            assert not node.of("trouble"), node.of("trouble")

    def each_says(self, about: str) -> list[str]:
        said = []
        for node in self.nodes:
            said.append(f"{node.name} {about}")
            node.says(said[-1])
        return said


def five(net: Internet, service: Service, folder: Path) -> Party:
    """Ann and Bob are each behind a NAT; Pia can be reached; Mo moves; Sol sleeps."""
    home = net.router("home", "203.0.113.20", nat="cone")
    flat = net.router("flat", "198.51.100.20", nat="symmetric")
    party = Party(folder, service)
    party.node("Ann", home.host("ann"))
    party.node("Bob", flat.host("bob"))
    party.node("Pia", net.host("pia", "203.0.113.30"), port=PORT)
    party.node("Mo", net.host("mo", "198.51.100.40"))
    party.node("Sol", net.host("sol", "198.51.100.50"))
    return party


def test_five_nodes_hear_everything_whatever_befalls_them_and_their_service(
    net: Internet, tmp_path: Path
) -> None:
    service = Service(net.host("service", "203.0.113.10"), tmp_path / "service")
    party = five(net, service, tmp_path)
    ann, bob, pia, mo, sol = party.nodes
    party.are_live()
    said = party.each_says("is here")
    party.hear(*said)
    for node in (ann, bob, mo, sol):
        node.meets("Pia")

    sol.process.send(SIGSTOP)
    mo.host.cut()
    ann.says("where is Mo?")
    bob.hears("where is Mo?")
    service.kill()
    for node in (ann, bob, pia):
        node.loses_service()
    said += ["where is Mo?", "the service is down", "I hear you", "so do I"]
    ann.says("the service is down")
    bob.says("I hear you")
    pia.says("so do I")
    for node in (ann, bob, pia):
        node.hears(*said, seconds=10)
    time.sleep(OUTAGE_S)
    mo.host.move("203.0.113.41")
    sol.process.send(SIGCONT)
    mo.says("I have moved")
    sol.says("I have slept")
    said += ["I have moved", "I have slept"]
    for node in (ann, bob, pia, sol):
        node.hears("I have slept", seconds=10)

    service.start()
    said += party.each_says("is back")
    party.hear(*said, seconds=40)
    party.are_live()


def test_what_is_said_while_the_service_is_down_goes_by_the_one_who_can_be_reached(
    net: Internet, tmp_path: Path
) -> None:
    service = Service(net.host("service", "203.0.113.10"), tmp_path / "service")
    party = five(net, service, tmp_path)
    party.are_live()
    ann, bob, pia, mo, sol = party.nodes
    for node in (ann, bob, mo, sol):
        node.meets("Pia")
    service.kill()
    for node in party.nodes:
        node.loses_service()
    party.hear(*party.each_says("has no service"), seconds=10)
    pia.meets("Ann", "Bob", "Mo", "Sol", seconds=1)


def test_who_has_no_direct_path_hears_all_when_the_service_is_back(
    net: Internet, tmp_path: Path
) -> None:
    service = Service(net.host("service", "203.0.113.10"), tmp_path / "service")
    home = net.router("home", "203.0.113.20", nat="cone")
    flat = net.router("flat", "198.51.100.20", nat="symmetric")
    party = Party(tmp_path, service)
    ann, bob = party.node("Ann", home.host("ann")), party.node("Bob", flat.host("bob"))
    party.are_live()
    service.kill()
    ann.loses_service()
    bob.loses_service()
    said = party.each_says("has no service")
    for node in party.nodes:
        node.process.until(lambda p, node=node: node.of("kept"), "it is kept")  # type: ignore[misc]
    service.start()
    party.hear(*said, seconds=45)


def test_a_node_whose_address_changes_hears_and_is_heard_within_half_a_minute(
    net: Internet, tmp_path: Path
) -> None:
    service = Service(net.host("service", "203.0.113.10"), tmp_path / "service")
    party = Party(tmp_path, service)
    ann = party.node("Ann", net.host("ann", "203.0.113.30"))
    mo = party.node("Mo", net.host("mo", "198.51.100.40"))
    party.are_live()
    party.hear(*party.each_says("is here"))
    time.sleep(QUIET_S)
    mo.host.move("203.0.113.41")
    ann.says("I only listen for Mo")
    mo.hears("I only listen for Mo")
    mo.says("I have moved")
    ann.hears("I have moved")


def test_a_node_whose_router_is_given_another_address_hears_and_is_heard_again(
    net: Internet, tmp_path: Path
) -> None:
    service = Service(net.host("service", "203.0.113.10"), tmp_path / "service")
    home = net.router("home", "203.0.113.20", nat="cone")
    party = Party(tmp_path, service)
    ann, bob = party.node("Ann", home.host("ann")), party.node("Bob", net.host("bob"))
    party.are_live()
    party.hear(*party.each_says("is here"))
    time.sleep(QUIET_S)
    home.move("198.51.100.20")
    bob.says("I only listen for Ann")
    ann.hears("I only listen for Ann")
    ann.says("I have noticed nothing")
    bob.hears("I have noticed nothing")


def test_a_node_whose_address_changes_meets_the_others_again_without_a_service(
    net: Internet, tmp_path: Path
) -> None:
    party = Party(tmp_path, peers=(f"203.0.113.30:{PORT}",))
    ann = party.node("Ann", net.host("ann", "203.0.113.30"), port=PORT)
    mo = party.node("Mo", net.host("mo", "198.51.100.40"))
    party.hear(*party.each_says("is here"))
    mo.host.move(net.router("cafe", "203.0.113.21", nat="cone"))
    mo.says("I have moved")
    ann.hears("I have moved")
    ann.says("I hear you")
    mo.hears("I hear you")


def test_a_node_whose_wire_was_cut_hears_what_was_said_meanwhile(
    net: Internet, tmp_path: Path
) -> None:
    service = Service(net.host("service", "203.0.113.10"), tmp_path / "service")
    home = net.router("home", "203.0.113.20", nat="cone")
    party = Party(tmp_path, service)
    ann, mo = party.node("Ann", home.host("ann")), party.node("Mo", net.host("mo"))
    party.are_live()
    for cut in (mo.host, home):
        cut.cut()
        said = party.each_says(f"speaks while the wire of {cut.name} is cut")
        time.sleep(OUTAGE_S)
        cut.restore()
        party.hear(*said)
        ann.has_left(said[0])
        mo.has_left(said[1])


def test_a_node_that_has_slept_hears_what_was_said_meanwhile(net: Internet, tmp_path: Path) -> None:
    service = Service(net.host("service", "203.0.113.10"), tmp_path / "service")
    party = Party(tmp_path, service)
    ann, sol = party.node("Ann", net.host("ann")), party.node("Sol", net.host("sol"))
    party.are_live()
    sol.process.send(SIGSTOP)
    said = [f"number {n}" for n in range(40)]
    ann.says(*said)
    ann.has_left(*said)
    time.sleep(OUTAGE_S)
    sol.process.send(SIGCONT)
    party.hear(*said)
    assert sol.heard() == said
    party.hear(*party.each_says("is awake"))


def test_two_nodes_on_one_lan_need_no_service_and_no_way_out(net: Internet, tmp_path: Path) -> None:
    home = net.router("home", "203.0.113.20")
    here, there = home.host("ann"), home.host("bob")
    home.cut()
    party = Party(tmp_path, peers=(f"{here.address}:{PORT}",))
    ann, bob = party.node("Ann", here, port=PORT), party.node("Bob", there)
    ann.says("can you hear me?")
    bob.says("yes")
    party.hear("can you hear me?", "yes", seconds=10)
    ann.has_left("can you hear me?")
    bob.has_left("yes")
    ann.meets("Bob")
    bob.meets("Ann")


def test_nodes_on_one_lan_meet_again_when_the_one_who_is_reached_comes_last(
    net: Internet, tmp_path: Path
) -> None:
    home = net.router("home", "203.0.113.20")
    here, there = home.host("ann"), home.host("bob")
    party = Party(tmp_path, peers=(f"{here.address}:{PORT}",))
    bob = party.node("Bob", there)
    bob.says("am I alone?")
    bob.process.until(lambda p: bob.of("kept"), "nobody takes it")
    ann = party.node("Ann", here, port=PORT)
    ann.says("no")
    party.hear("am I alone?", "no")


def test_a_link_is_direct_where_a_port_is_reached_and_by_the_relay_between_two_nats(
    net: Internet, tmp_path: Path
) -> None:
    service = Service(net.host("service", "203.0.113.10"), tmp_path / "service")
    party = Party(tmp_path, service)
    ann = party.node("Ann", net.router("home").host("ann"))
    bob = party.node("Bob", net.router("flat", nat="symmetric").host("bob"), port=PORT)
    pia = party.node("Pia", net.host("pia", "203.0.113.30"), port=PORT)
    party.are_live()
    ann.process.tell({"link": "Pia"})
    ann.has_path("Pia", "tcp")
    pia.has_path("Ann", "tcp")
    ann.process.tell({"link": "Bob"})
    ann.has_path("Bob", "relay")
    bob.has_path("Ann", "relay")
