"""Paths: which there are, which of them may be probed, and what a probe means.

A caller's path is data. It is probed only where the operator allowed that host and
port, and it is called by a transport only if the operator configured that path.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Literal, NamedTuple, Protocol
from urllib.parse import urlsplit

from chalicelib.assist.plan import PathPlan, Plan, spelled
from muster.felund import assist_records as wire

if TYPE_CHECKING:
    from concurrent.futures import Future

MOST_S = 1.5
"""How long probing may take, all of it."""

Kind = wire.Transport | Literal["Unknown"]

_RESISTANCE: dict[Kind, wire.Resistance] = {
    "Reality": "Maximum",
    "AmnesiaWG": "Maximum",
    "QuicMasque": "Enhanced",
    "Shadowsocks": "Enhanced",
    "Dns": "Enhanced",
    "Onion": "Paranoid",
    "WebSocket": "Basic",
    "Unknown": "Basic",
}
_OVER_UDP: frozenset[Kind] = frozenset({"AmnesiaWG", "QuicMasque"})
_OVER_TLS: frozenset[Kind] = frozenset({"WebSocket", "Reality", "Unknown"})
_TLS_PORTS = frozenset({443, 853, 993, 5349, 8443})
_FRONTED: frozenset[Kind] = frozenset({"WebSocket", "QuicMasque", "Dns"})
_MIMICKING: frozenset[Kind] = frozenset({"Shadowsocks", "Reality"})


class Target(NamedTuple):
    """What a probe connects to."""

    host: str
    port: int
    server_name: str
    tls: bool


class Probe(NamedTuple):
    """What a probe saw: how often it tried, and the round trips that came back.

    A name that does not resolve, or not in time, leads *nowhere*: nobody can try.
    """

    tries: int = 0
    rtts_ms: tuple[float, ...] = ()
    nowhere: bool = False


class Prober(Protocol):
    """Measures targets; callers who ask at the same time share one measurement."""

    def start(self, targets: Iterable[Target]) -> Mapping[Target, Future[Probe]]:
        """Return what each target's probe will say; none of them ever raises.

        A probe that is running is shared, and a recent result is used again. This
        does not wait.
        """


class Path(NamedTuple):
    """One way to connect; *configured* if the operator runs it."""

    id: str
    address: str
    port: int
    server_name: str | None = None
    priority: int = 100
    transport: Kind = "Unknown"
    configured: bool = False
    fingerprint: str | None = None
    target: Target | None = None


class Measured(NamedTuple):
    """A path, and what its probe measured, if there was one."""

    path: Path
    probe: Probe

    @property
    def probed(self) -> bool:
        """Whether anybody looked."""
        return self.probe.tries > 0

    @property
    def dead(self) -> bool:
        """Whether somebody looked and nothing answered."""
        return self.probed and not self.probe.rtts_ms


# --- which paths ----------------------------------------------------------------


def chosen(plan: Plan, ask: wire.AskAdvice, *, relay_url: str) -> list[Path]:
    """Return the caller's paths; or else the operator's, or else the service's own relay."""
    if ask.paths:
        return [_hinted(plan, hint, number) for number, hint in enumerate(ask.paths, 1)]
    found = [_configured(plan, path) for path in plan.paths] or _relay(plan, relay_url)
    if ask.peer_hint:
        found.append(_hinted(plan, wire.PathHint(address=ask.peer_hint, priority=1), 0))
    return found


def in_order(found: Iterable[Measured], *, prefer_reality: bool) -> list[Measured]:
    """Return the paths by priority, and within it those that answered first, the dead last.

    What is dead or leads nowhere comes after all that answered, whatever its priority.
    """
    listed = list(found)

    def wish(one: Measured) -> tuple[bool, int]:
        return prefer_reality and one.path.transport != "Reality", one.path.priority

    last = max((wish(one) for one in listed if one.probe.rtts_ms), default=(False, 0))

    def rank(one: Measured) -> tuple[tuple[bool, int], int]:
        if one.probe.rtts_ms:
            return wish(one), 0
        if one.dead or one.probe.nowhere:
            return max(wish(one), last), 1 + one.dead
        return wish(one), 1

    return sorted(listed, key=rank)


def _configured(plan: Plan, path: PathPlan) -> Path:
    return Path(
        path.id,
        path.address,
        path.port,
        path.server_name,
        path.priority,
        path.transport,
        configured=True,
        fingerprint=path.reality_fingerprint and path.reality_fingerprint.lower(),
        target=_target(path) if path.probe != "none" else None,
    )


def _relay(plan: Plan, url: str) -> list[Path]:
    """Return the way to the relay of this very service, as far as it knows its own name."""
    try:
        parts = urlsplit(url)
        host, named_port = parts.hostname, parts.port
    except ValueError:  # the name that the caller knows us by is the caller's
        return []
    if not host:
        return []
    tls = parts.scheme == "wss"
    port = named_port or (443 if tls else 80)
    target = Target(spelled(host), port, host, tls)
    allowed = target[:2] in plan.probed()
    return [Path("primary", host, port, host, 0, "WebSocket", target=target if allowed else None)]


def _hinted(plan: Plan, hint: wire.PathHint, number: int) -> Path:
    """Read a caller's path; it is the operator's if host and port are."""
    port = 443 if hint.port is None else hint.port
    where = (spelled(hint.address), port)
    for known in plan.paths:
        if (spelled(known.address), known.port) == where:
            path = _configured(plan, known)
            break
    else:
        path = Path("", hint.address, port)
        if where in plan.probed():
            path = path._replace(target=Target(*where, where[0], port in _TLS_PORTS))
    theirs = hint.reality_fingerprint and hint.reality_fingerprint.lower()
    return path._replace(
        id=hint.id or (f"path-{number}" if number else "backup"),
        address=hint.address,
        server_name=hint.server_name or path.server_name,
        priority=100 if hint.priority is None else hint.priority,
        fingerprint=path.fingerprint or theirs,
    )


def _target(path: PathPlan) -> Target | None:
    """Return what to probe, if a TCP connection says anything about this transport."""
    if path.probe == "auto" and path.transport in _OVER_UDP:
        return None
    tls = path.transport in _OVER_TLS and path.port in _TLS_PORTS
    if path.probe != "auto":
        tls = path.probe == "tls"
    host = spelled(path.address)
    return Target(host, path.port, path.server_name or host, tls)


# --- what a probe means -----------------------------------------------------------


def quality(measured: Measured) -> wire.NetworkQuality:
    """Return what the probe found, by the published formulas."""
    tries, rtts = measured.probe.tries, measured.probe.rtts_ms
    if not tries:
        return wire.NetworkQuality()
    method: wire.ProbeMethod = "tls" if measured.path.target and measured.path.target.tls else "tcp"
    loss = 1 - len(rtts) / tries
    rtt_ms = int(sum(rtts) / len(rtts)) if rtts else 0
    jitter_ms = _deviation(rtts)
    score = _score(rtt_ms, jitter_ms, loss, len(rtts)) if rtts else 0
    return wire.NetworkQuality(
        rtt_ms=rtt_ms,
        jitter_ms=round(jitter_ms, 3),
        packet_loss_percent=round(loss * 100, 3),
        quality_score=score,
        quality_label=_label(score),
        probe_method=method,
    )


def advice(measured: Measured) -> wire.TransportAdvice:
    """Return a path as the caller is told of it."""
    path, told = measured.path, quality(measured)
    return wire.TransportAdvice(
        path_id=path.id,
        transport=path.transport,
        resistance=_RESISTANCE[path.transport],
        latency=_latency(told.rtt_ms) if measured.probe.rtts_ms else "Unknown",
        throughput="Unknown",
        address=path.address,
        port=path.port,
        server_name=path.server_name,
        network_quality=told,
    )


def obfuscation(found: Iterable[Measured], *, theirs: Iterable[Path]) -> wire.ObfuscationAdvice:
    """Return the disguises of the operator's paths that are not known to be dead."""
    alive = [one.path for one in found if one.path.configured and not one.dead]
    kinds = {path.transport for path in alive}
    prints = [path.fingerprint for path in alive if path.fingerprint]
    asked = [path.fingerprint for path in theirs if path.fingerprint]
    return wire.ObfuscationAdvice(
        reality_fingerprint_hex=prints[0] if prints else asked[-1] if asked else None,
        domain_fronting=bool(kinds & _FRONTED),
        protocol_mimicry=bool(kinds & _MIMICKING),
        tor_bridge="Onion" in kinds,
    )


def _deviation(rtts: tuple[float, ...]) -> float:
    """Return the population's standard deviation."""
    if not rtts:
        return 0.0
    mean = sum(rtts) / len(rtts)
    return math.sqrt(sum((rtt - mean) ** 2 for rtt in rtts) / len(rtts))


def _score(rtt_ms: int, jitter_ms: float, loss: float, answered: int) -> int:
    lost = int(loss * 35)
    guessed = _bandwidth(rtt_ms, loss, answered)
    score = 100 - lost
    score -= _step(rtt_ms, ((30, 0), (60, 5), (100, 10), (200, 20)), 30)
    score -= 0 if jitter_ms < 10 else 5 if jitter_ms < 30 else 15 if jitter_ms < 60 else 25
    score -= _step(guessed, ((1000, 10), (3000, 5)), 0)
    return max(score, 0)


def _bandwidth(rtt_ms: int, loss: float, answered: int) -> float:
    """Return the bandwidth that the published score goes by; a function of rtt, never told."""
    steps = ((20, 20_000), (40, 15_000), (80, 10_000), (150, 6_000), (250, 3_000))
    sure = 1.0 if answered >= 4 else 0.8 if answered >= 2 else 0.5
    return _step(rtt_ms, steps, 1_500) * max(0.2, 1 - loss) * sure


def _label(
    score: int,
) -> Literal["excellent", "good", "fair", "poor", "critical"]:
    if score >= 90:
        return "excellent"
    if score >= 75:
        return "good"
    if score >= 50:
        return "fair"
    return "poor" if score >= 25 else "critical"


def _latency(rtt_ms: int) -> wire.Tier:
    return "Low" if rtt_ms <= 60 else "Medium" if rtt_ms <= 200 else "High"


def _step(value: float, steps: tuple[tuple[int, int], ...], above: int) -> int:
    for bound, result in steps:
        if value <= bound:
            return result
    return above
