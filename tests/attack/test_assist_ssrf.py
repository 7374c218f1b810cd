"""Can assist be made to connect to where nobody outside may look? A listener counts.

Every trick is played with real sockets and the real rules; only names are resolved by
a table, as a test has no name server that lies.
"""

import ipaddress
import json
import socket
import ssl
import threading
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from typing import Any

import pytest

from chalicelib.assist import plan, probing
from chalicelib.assist.paths import Probe, Target
from tests.support.circle import World, world

INWARD = [
    "127.0.0.1",
    "127.1.2.3",
    "0.0.0.0",  # noqa: S104
    "10.0.0.1",
    "100.64.0.1",
    "169.254.169.254",
    "168.63.129.16",
    "172.16.0.1",
    "192.0.0.8",
    "192.0.2.1",
    "192.88.99.1",
    "192.168.1.1",
    "198.18.0.1",
    "198.51.100.7",
    "203.0.113.7",
    "224.0.0.1",
    "255.255.255.255",
    "240.0.0.1",
    "::",
    "::1",
    "::127.0.0.1",
    "::ffff:127.0.0.1",
    "::ffff:8.8.8.8",
    "::ffff:a9fe:a9fe",
    "64:ff9b::7f00:1",
    "64:ff9b:1::a00:1",
    "100::1",
    "2001::7f00:1",
    "2001:db8::1",
    "2002:7f00:1::",
    "2002:a9fe:a9fe::1",
    "3fff::1",
    "fc00::1",
    "fd00:ec2::254",
    "fe80::1",
    "fe80::1%lo",
    "2606:4700::1%eth0",
    "fec0::1",
    "ff02::1",
]
NUMBERS_IN_DISGUISE = [
    "2130706433",
    "0x7f000001",
    "0X7F.1",
    "017700000001",
    "0177.0.0.1",
    "127.1",
    "127.0.1",
    "0",
    "127.0.0.1.",
    "1.2.3.0x4",
    "①②⑦.0.0.1",
    "[::1]",
    "127.0.0.1:80",
    "127.0.0.1/8",
    " 127.0.0.1",
    "127.0.0.1\n",
    "http://127.0.0.1",
    "user@127.0.0.1",
    "a..b",
    "-a.example.org",
    "a" * 64 + ".example.org",
    "",
]
NAMES = ["localhost", "LOCALHOST", "localhost.", "inward.example.org", "metadata.google.internal"]


class Listener:
    """Listens on loopback, on IPv4 and IPv6, and counts who comes."""

    def __init__(self) -> None:
        self.came = 0
        self._changed = threading.Condition()
        self._sockets = [socket.create_server(("127.0.0.1", 0))]
        self.port = self._sockets[0].getsockname()[1]
        if socket.has_ipv6:
            with suppress(OSError):  # no IPv6 here
                self._sockets.append(
                    socket.create_server(("::1", self.port), family=socket.AF_INET6)
                )
        for listening in self._sockets:
            threading.Thread(target=self._count, args=(listening,), daemon=True).start()

    def _count(self, listening: socket.socket) -> None:
        while True:
            try:
                connection, _ = listening.accept()
            except OSError:
                return
            with self._changed:
                self.came += 1
                self._changed.notify_all()
            connection.close()

    def heard(self, count: int) -> int:
        """Wait for so many, as who connects may not be accepted yet; return how many came."""
        with self._changed:
            self._changed.wait_for(lambda: self.came >= count, timeout=20)
            return self.came

    def close(self) -> None:
        for listening in self._sockets:
            listening.shutdown(socket.SHUT_RDWR)
            listening.close()


@pytest.fixture
def listener() -> Iterator[Listener]:
    with closing(Listener()) as made:
        yield made


def probe(prober: probing.SocketProber, host: str, port: int, *, tls: bool = False) -> Probe:
    target = Target(host, port, host, tls)
    return prober.start([target])[target].result(timeout=20)


def resolving(**table: list[str]) -> Any:
    """A resolver that knows these names, and hands out loopback for everything else."""

    def resolve(host: str, port: int) -> list[str]:
        return table.get(host.replace(".", "_"), ["127.0.0.1"])

    return resolve


def assist(prober: Any, **settings: Any) -> World:
    made = world(assist_open="allow", **settings)
    made.service.prober = prober
    return made


# --- through the prober: even a careless operator's list leads nowhere inward ----------


@pytest.mark.parametrize("host", INWARD + NUMBERS_IN_DISGUISE, ids=repr)
def test_an_address_that_leads_inward_is_never_connected_to(host: str, listener: Listener) -> None:
    prober = probing.SocketProber(resolve=resolving())
    assert probe(prober, host, listener.port) == Probe()
    assert listener.came == 0


@pytest.mark.parametrize("name", NAMES)
def test_a_name_that_resolves_inward_is_never_connected_to(name: str, listener: Listener) -> None:
    assert probe(probing.SocketProber(resolve=resolving()), name, listener.port) == Probe()
    assert probe(probing.SocketProber(), "localhost", listener.port) == Probe()
    assert listener.came == 0


@pytest.mark.parametrize("address", INWARD)
def test_a_name_with_one_inward_address_among_others_is_refused(
    address: str, listener: Listener
) -> None:
    asked: list[Any] = []

    def allows(found: Any) -> bool:
        asked.append(found)
        return probing.is_public(found)

    for addresses in (["8.8.8.8", address], [address, "2606:4700:4700::1111"]):
        prober = probing.SocketProber(resolve=resolving(mixed_example_org=addresses), allows=allows)
        with pytest.raises(probing.Inward):
            prober.address(Target("mixed.example.org", listener.port, "x", tls=False))
    assert asked
    assert listener.came == 0


def test_a_name_that_changes_between_look_ups_is_looked_up_once(listener: Listener) -> None:
    """DNS rebinding: global first, loopback ever after. The first answer is the only one."""
    looked_up: list[str] = []
    answers = iter([["203.0.113.9"]])

    def rebinding(host: str, port: int) -> list[str]:
        looked_up.append(host)
        return next(answers, ["127.0.0.1"])

    # 203.0.113.9 stands for a global address; nobody is there
    prober = probing.SocketProber(
        resolve=rebinding, allows=lambda address: str(address) == "203.0.113.9", most_s=0.5
    )
    found = probe(prober, "rebinding.example.org", listener.port)
    assert found.rtts_ms == ()
    assert looked_up == ["rebinding.example.org"]
    assert listener.came == 0


def test_what_a_resolver_answers_must_be_an_address(listener: Listener) -> None:
    for answer in (["localhost"], [""], [], ["127.0.0.1\0"], ["::1%lo"]):
        prober = probing.SocketProber(resolve=resolving(odd_example_org=answer))
        assert probe(prober, "odd.example.org", listener.port) == Probe()
    assert listener.came == 0


def test_a_name_that_does_not_resolve_leads_nowhere(listener: Listener) -> None:
    def resolve(host: str, port: int) -> list[str]:
        raise socket.gaierror(socket.EAI_NONAME, "no such name")

    found = probe(probing.SocketProber(resolve=resolve), "no-such.example.org", listener.port)

    assert found == Probe(nowhere=True)
    assert listener.came == 0


@pytest.mark.parametrize(
    "address", ["8.8.8.8", "1.1.1.1", "93.184.216.34", "2606:4700:4700::1111", "2a00:1450::1"]
)
def test_global_unicast_is_allowed(address: str) -> None:
    assert probing.is_public(ipaddress.ip_address(address))


@pytest.mark.parametrize("address", INWARD)
def test_everything_else_is_not(address: str) -> None:
    assert not probing.is_public(ipaddress.ip_address(address))


# --- through the service: only what the operator named is looked at, at its port ----------


@pytest.mark.parametrize("host", [*INWARD, *NUMBERS_IN_DISGUISE[:-1], *NAMES], ids=repr)
def test_no_callers_path_reaches_the_listener(host: str, listener: Listener) -> None:
    plan_ = {"probe_hosts": [f"allowed.example.org:{listener.port}"]}
    prober = probing.SocketProber(resolve=resolving(), allows=lambda address: True)
    w = assist(prober, assist=json.dumps(plan_))
    for body in (
        {"paths": [{"address": host, "port": listener.port}]},
        {"paths": [{"address": host, "port": listener.port, "server_name": "allowed.example.org"}]},
        {"peer_hint": host},
    ):
        status, answer = w.call("POST", "/api/p2p/assist", body, headers={})
        assert status == 200
        methods = {one["network_quality"]["probe_method"] for one in answer["transports"]}
        assert methods == {"none"}
    assert listener.came == 0


def test_an_allowed_host_is_looked_at_and_no_other_port_of_it(listener: Listener) -> None:
    plan_ = {"probe_hosts": [f"allowed.example.org:{listener.port}"]}
    prober = probing.SocketProber(resolve=resolving(), allows=lambda address: True)
    w = assist(prober, assist=json.dumps(plan_))
    paths = [
        {"address": "allowed.example.org", "port": port, "id": str(port)}
        for port in (listener.port, 22, 443, 3306)
    ]
    _, answer = w.call("POST", "/api/p2p/assist", {"paths": paths}, headers={})
    found = {one["path_id"]: one["network_quality"] for one in answer["transports"]}
    assert found.pop(str(listener.port))["probe_method"] == "tcp"
    assert {one["probe_method"] for one in found.values()} == {"none"}
    assert listener.heard(probing.TRIES) == probing.TRIES


def test_a_name_that_does_not_resolve_ranks_below_a_path_that_answered(listener: Listener) -> None:
    def resolve(host: str, port: int) -> list[str]:
        if host.startswith("no-such"):
            raise socket.gaierror(socket.EAI_NONAME, "no such name")
        return ["127.0.0.1"]

    paths = [
        {"id": name, "address": f"{name}.example.org", "port": listener.port, "priority": n}
        for n, name in enumerate(("no-such", "here"))
    ]
    plan_ = {"paths": [path | {"transport": "Shadowsocks"} for path in paths]}
    w = assist(
        probing.SocketProber(resolve=resolve, allows=lambda address: True), assist=json.dumps(plan_)
    )

    _, answer = w.call("POST", "/api/p2p/assist", {}, headers={})

    assert [one["path_id"] for one in answer["transports"]] == ["here", "no-such"]
    assert answer["multipath"]["primary_path"] == "here"
    assert listener.heard(probing.TRIES) == probing.TRIES


def test_a_stranger_makes_nobody_connect(listener: Listener) -> None:
    plan_ = {"probe_hosts": [f"allowed.example.org:{listener.port}"]}
    prober = probing.SocketProber(resolve=resolving(), allows=lambda address: True)
    w = world(assist=json.dumps(plan_))
    w.service.prober = prober
    path = {"address": "allowed.example.org", "port": listener.port}
    assert w.call("POST", "/api/p2p/assist", {"paths": [path]}, headers={})[0] == 401
    assert listener.came == 0


def test_without_a_plan_there_is_nobody_who_could_connect() -> None:
    assert probing.open_prober(plan.NOTHING) is None


# --- TLS --------------------------------------------------------------------------------


@contextmanager
def tls_server(context: ssl.SSLContext) -> Iterator[int]:
    with socket.create_server(("127.0.0.1", 0)) as listening:

        def serve() -> None:
            while True:
                try:
                    connection, _ = listening.accept()
                except OSError:
                    return
                try:
                    with context.wrap_socket(connection, server_side=True):
                        pass
                except OSError:
                    continue

        threading.Thread(target=serve, daemon=True).start()
        yield listening.getsockname()[1]
        listening.shutdown(socket.SHUT_RDWR)


def test_a_tls_path_counts_only_if_it_greets(
    listener: Listener, certificate: ssl.SSLContext
) -> None:
    def prober() -> probing.SocketProber:
        return probing.SocketProber(resolve=resolving(), allows=lambda address: True)

    with tls_server(certificate) as port:
        greeted = probe(prober(), "tls.example.org", port, tls=True)
        assert (greeted.tries, len(greeted.rtts_ms)) == (3, 3)
    silent = probe(prober(), "tls.example.org", listener.port, tls=True)
    assert (silent.tries, silent.rtts_ms) == (3, ())


@pytest.fixture
def certificate(tmp_path: Any) -> ssl.SSLContext:
    """A server's TLS context with a certificate that nobody vouches for."""
    from tests.support.certificate import self_signed

    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(self_signed(tmp_path / "server.pem"))
    return context
