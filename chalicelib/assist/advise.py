"""Assist: how to connect, as far as anybody knows.

Nothing in the answer is made up: secrets are random, paths are the operator's or the
caller's own, and what was not measured says so (ADR 0011).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence, Sized
from functools import partial
from http import HTTPStatus
from typing import TYPE_CHECKING, Any

from chalicelib import tables, tokens
from chalicelib.assist import fec, ice, paths, pq_keys
from chalicelib.assist.paths import Measured, Path, Probe, Target
from chalicelib.call import Call, Wait
from chalicelib.service import Service
from muster.errors import Refused
from muster.felund import assist_records as wire
from muster.felund import records

if TYPE_CHECKING:
    from concurrent.futures import Future

LATEST_S = paths.MOST_S + 0.1
"""How long an answer waits for probes, whoever began them."""

UNASKED = wire.AskAdvice(prefer_reality=True)
"""What is meant by a call without a body; an empty object prefers nothing."""

UNASKED_FEC, FEC_GAPS = fec.Profile(1200, 0.25), fec.Profile(1152, 0.35)

_TITLES = {413: "Content Too Large", 429: "Rate Limited"}
"""Where the title is not the phrase that every Python has for the status."""


def open_session(service: Service, call: Call, ask: wire.OpenAssist) -> wire.AssistOpened:
    """Give a member a bearer token for assist; nothing is kept for it."""
    chosen = service.settings
    ttl_s = min(max(int(ask.ttl_s), chosen.assist_min_ttl_s), chosen.assist_max_ttl_s)
    token = tokens.Token("assist", ask.circle_hint, ask.node_id, call.now + ttl_s)
    return wire.AssistOpened(
        token=tokens.issue(service.signer(now=call.now), token),
        expires_at=token.expires_at,
        server_time=call.now,
    )


def unasked(service: Service, call: Call, ask: records.Nothing) -> Wait | wire.Advice:
    """Advise a caller who asks for nothing in particular."""
    return advise(service, call, UNASKED)


def advise(service: Service, call: Call, ask: wire.AskAdvice) -> Wait | wire.Advice:
    """Tell how to connect, once the paths that may be probed were."""
    relay_url = service.settings.websocket_url or call.websocket_url
    named = paths.chosen(service.plan, ask, relay_url=relay_url)
    targets = {path.target for path in named if path.target}
    probes = service.prober.start(targets) if targets and service.prober else {}
    then = partial(_advice, service, call, ask, named, probes)
    waiting = tuple(probe for probe in probes.values() if not probe.done())
    return Wait(waiting, LATEST_S, then) if waiting else then()


def problem(refusal: Refused) -> dict[str, Any]:
    """Write a refusal as the clients of this path read it; for ours, as it is anywhere."""
    status = refusal.status
    title = _TITLES.get(status) or HTTPStatus(status).phrase
    body = refusal.to_json() | {"type": "about:blank", "title": title, "status": status}
    if refusal.retry_after_s is not None:
        body["retry_after_seconds"] = refusal.retry_after_s
    return body


def _advice(
    service: Service,
    call: Call,
    ask: wire.AskAdvice,
    named: Sequence[Path],
    probes: Mapping[Target, Future[Probe]],
) -> wire.Advice:
    plan, now = service.plan, call.now
    found = paths.in_order(
        (Measured(path, _seen(probes, path)) for path in named),
        prefer_reality=bool(ask.prefer_reality) and not ask.paths,
    )
    theirs = named if ask.paths else ()
    return wire.Advice(
        noise=_noise(service),
        pq=pq_keys.public(service, now=now),
        ice=ice.advice(plan, entropy=service.entropy(ice.ENTROPY_BYTES), now=now),
        transports=tuple(paths.advice(one) for one in found),
        multipath=_multipath(ask, found),
        obfuscation=paths.obfuscation(found, theirs=theirs),
        security=_count(service, call, len(found)),
    )


def _seen(probes: Mapping[Target, Future[Probe]], path: Path) -> Probe:
    """Return what the path's probe saw, if one was made."""
    probe = probes.get(path.target) if path.target else None
    if probe is None:
        return Probe()
    return probe.result() if probe.done() else Probe(nowhere=True)


def _noise(service: Service) -> wire.NoiseAdvice:
    from nacl.bindings import crypto_scalarmult_base  # only this call needs it

    plan, seed = service.plan, service.entropy(32)
    return wire.NoiseAdvice(
        pattern=plan.noise_pattern,
        prologue_hex=plan.noise_prologue.encode().hex(),
        device_seed_hex=seed.hex(),
        static_public_hex=crypto_scalarmult_base(seed).hex(),
    )


def _multipath(ask: wire.AskAdvice, found: Sequence[Measured]) -> wire.MultipathAdvice:
    """Spread a sample over the paths that are not known to be dead."""
    chosen = _profile(ask.fec)
    alive = [one.path.id for one in found if not one.dead]
    segments = {one.path.id: wire.Segments() for one in found}
    shares = fec.spread(*fec.packets(chosen), len(alive))
    for name, (total, repair) in zip(alive, shares, strict=True):
        before = segments[name]  # two paths of one name are counted together
        segments[name] = wire.Segments(total=before.total + total, repair=before.repair + repair)
    return wire.MultipathAdvice(
        fec_mtu=chosen.mtu,
        fec_overhead=chosen.overhead,
        primary_path=alive[0] if alive else None,
        sample_segments=segments,
    )


def _profile(hint: wire.FecHint | None) -> fec.Profile:
    if hint is None:
        return UNASKED_FEC
    mtu = FEC_GAPS.mtu if hint.mtu is None else hint.mtu
    overhead = FEC_GAPS.overhead if hint.repair_overhead is None else hint.repair_overhead
    return fec.profile(mtu, overhead)


def _count(service: Service, call: Call, listed: int) -> wire.SecurityCounters:
    """Count this answer, and tell what was counted; handshakes happen elsewhere, and are not."""
    sessions = tables.count(service.stores, "sessions", 1, now=call.now)
    total = tables.count(service.stores, "paths", listed, now=call.now)
    whole = isinstance(service.sender, Sized)  # one process is all there is, and knows itself
    return wire.SecurityCounters(
        noise_handshakes=0,
        pq_handshakes=0,
        fec_packets=0,
        multipath_sessions=sessions,
        average_paths=round(total / sessions, 3),
        censorship_deflections=0,
        active_connections=len(service.sender) if isinstance(service.sender, Sized) else None,
        rate_limited_ips=service.limits.shut(clock=call.clock) if whole else None,
    )
