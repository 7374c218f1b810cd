"""Probing: connecting to what the operator allowed, and to nothing that leads inward.

A name is resolved once. If any of its addresses is not global unicast the target is
refused; else the first is connected to by number, a few times. Nothing is sent but
a TLS handshake where there is one, and no lock is held meanwhile.
"""

from __future__ import annotations

import ipaddress
import re
import socket
import ssl
import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import Future

from chalicelib.assist.paths import MOST_S, Probe, Prober, Target
from chalicelib.assist.plan import Plan

TRIES = 3
CONNECT_S = 0.2
HANDSHAKE_S = 0.4
PAUSE_S = 0.05
FRESH_S = 10.0
"""How long a probe's result is good for others."""

MOST_PROBES = 32
MOST_KEPT = 256

Address = ipaddress.IPv4Address | ipaddress.IPv6Address
Resolve = Callable[[str, int], Iterable[str]]

_LABEL = re.compile(r"[a-z0-9_]([a-z0-9_-]{0,61}[a-z0-9_])?")
_NUMBER = re.compile(r"[0-9]+|0x[0-9a-f]*")

_INWARD = tuple(
    ipaddress.ip_network(network)
    for network in (
        "0.0.0.0/8",
        "10.0.0.0/8",
        "100.64.0.0/10",
        "127.0.0.0/8",
        "168.63.129.16/32",  # a cloud's own services, at an address that looks global
        "169.254.0.0/16",
        "172.16.0.0/12",
        "192.0.0.0/24",
        "192.0.2.0/24",
        "192.31.196.0/24",
        "192.52.193.0/24",
        "192.88.99.0/24",  # 6to4 relays
        "192.168.0.0/16",
        "192.175.48.0/24",
        "198.18.0.0/15",
        "198.51.100.0/24",
        "203.0.113.0/24",
        "224.0.0.0/4",
        "240.0.0.0/4",
        "2001::/23",  # Teredo, ORCHID and other addresses that contain others
        "2001:db8::/32",
        "2002::/16",  # 6to4
        "2620:4f:8000::/48",
        "3fff::/20",
    )
)
_UNICAST_6 = ipaddress.ip_network("2000::/3")  # leaves out ::ffff:0:0/96, 64:ff9b::/96, fc00::/7


class Inward(Exception):
    """The host is none, or leads to where nobody outside may look."""


class SocketProber(Prober):
    """Probes with real sockets, each target in a thread of its own, and a bounded number."""

    def __init__(
        self,
        *,
        resolve: Resolve | None = None,
        allows: Callable[[Address], bool] | None = None,
        most_s: float = MOST_S,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._resolve = resolve or _resolve
        self._allows = allows or is_public
        self._most_s = most_s
        self._clock = clock
        self._lock = threading.Lock()
        self._kept: OrderedDict[Target, _Flight] = OrderedDict()
        self._flying = 0

    def start(self, targets: Iterable[Target]) -> Mapping[Target, Future[Probe]]:
        """Return what each target's probe will say; see `Prober`."""
        wanted, fresh = {}, []
        with self._lock:
            for target in targets:
                flight = self._kept.get(target)
                if flight is None or flight.is_over(self._clock()):
                    flight = self._new(target)
                    if flight.landed_at is None:
                        fresh.append((target, flight))
                wanted[target] = flight.future
        for target, flight in fresh:
            try:
                threading.Thread(target=self._fly, args=(target, flight), daemon=True).start()
            except RuntimeError:  # there is no room for another thread
                self._land(flight, Probe())
        return wanted

    def _new(self, target: Target) -> _Flight:
        flight = _Flight()
        if self._flying >= MOST_PROBES:
            flight.landed_at = self._clock()
            flight.future.set_result(Probe())
            return flight  # unprobed, and not remembered
        self._flying += 1
        self._kept[target] = flight
        self._kept.move_to_end(target)
        while len(self._kept) > MOST_KEPT:
            self._kept.popitem(last=False)
        return flight

    def _fly(self, target: Target, flight: _Flight) -> None:
        seen = Probe()
        try:
            seen = self._look(target, until=self._clock() + self._most_s)
        except (Inward, ValueError):
            pass  # nobody was asked, so nothing was seen
        finally:
            self._land(flight, seen)

    def _land(self, flight: _Flight, seen: Probe) -> None:
        with self._lock:
            self._flying -= 1
            flight.landed_at = self._clock()
        flight.future.set_result(seen)

    def _look(self, target: Target, *, until: float) -> Probe:
        try:
            address = self.address(target)
        except OSError:
            return Probe(nowhere=True)
        tries, rtts = 0, []
        while tries < TRIES and (left_s := until - self._clock()) > 0:
            tries += 1
            try:
                rtts.append(_touch(address, target, left_s))
            except (OSError, ValueError):
                continue
            finally:
                if tries < TRIES:
                    time.sleep(PAUSE_S)
        return Probe(tries, tuple(rtts))

    def address(self, target: Target) -> Address:
        """Resolve a target, once, to the address that is connected to.

        Raises `Inward` if any of its addresses may not be.
        """
        found = [literal] if (literal := _literal(target.host)) else self._named(target)
        if not found or not all(self._allows(address) for address in found):
            raise Inward(target.host)
        return min(found, key=lambda address: address.version)

    def _named(self, target: Target) -> list[Address]:
        if not is_name(target.host):
            raise Inward(target.host)
        return [_parsed(text) for text in self._resolve(target.host, target.port)]


class _Flight:
    """A probe that is running, or its result."""

    __slots__ = ("future", "landed_at")

    def __init__(self) -> None:
        self.future: Future[Probe] = Future()
        self.landed_at: float | None = None

    def is_over(self, now: float) -> bool:
        """Whether the result is too old."""
        return self.landed_at is not None and now - self.landed_at > FRESH_S


def open_prober(plan: Plan) -> Prober | None:
    """Return a prober, if the operator allowed anything to be probed."""
    return SocketProber() if plan.probed() else None


def is_public(address: Address) -> bool:
    """Say whether an address is global unicast, and hides no other one in itself."""
    if isinstance(address, ipaddress.IPv6Address) and (
        address.scope_id is not None or address not in _UNICAST_6
    ):
        return False
    return not any(address in network for network in _INWARD if network.version == address.version)


def is_name(host: str) -> bool:
    """Say whether a host is a DNS name, and not a number in one of its many spellings."""
    labels = host.split(".")
    return (
        len(host) <= 253
        and all(_LABEL.fullmatch(label) for label in labels)
        and not _NUMBER.fullmatch(labels[-1])
    )


def _literal(host: str) -> Address | None:
    try:
        return ipaddress.ip_address(host)
    except ValueError:
        return None


def _parsed(text: str) -> Address:
    try:
        return ipaddress.ip_address(text)
    except ValueError:
        raise Inward(text) from None


def _resolve(host: str, port: int) -> list[str]:
    found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    return [str(address[0]) for *_, address in found]


def _touch(address: Address, target: Target, left_s: float) -> float:
    """Connect once; return the milliseconds until the other side had answered."""
    family = socket.AF_INET6 if address.version == 6 else socket.AF_INET
    with socket.socket(family, socket.SOCK_STREAM) as connection:
        connection.settimeout(min(CONNECT_S, left_s))
        started = time.perf_counter()
        connection.connect((str(address), target.port))
        rtt_ms = (time.perf_counter() - started) * 1000
        if target.tls:
            connection.settimeout(min(HANDSHAKE_S, left_s))
            with _TLS.wrap_socket(connection, server_hostname=target.server_name):
                pass
        return rtt_ms


def _any_certificate() -> ssl.SSLContext:
    """Return a context that wants TLS and judges nobody: whether it answers is all we ask."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    return context


_TLS = _any_certificate()
