"""ICE: random credentials, TURN logins that coturn checks by itself, the lite candidate."""

from __future__ import annotations

import ipaddress
from datetime import UTC, datetime
from functools import lru_cache

from chalicelib.assist import blake3
from chalicelib.assist.plan import IceServerPlan, LitePlan, Plan
from muster.felund import assist_records as wire

MIN_TTL_S, MAX_TTL_S = 60, 3600
MIN_KEEPALIVE_S, MAX_KEEPALIVE_S = 5, 120
UFRAG_BYTES, PASSWORD_BYTES = 8, 32
ENTROPY_BYTES = UFRAG_BYTES + PASSWORD_BYTES

LITE_PRIORITY = (126 << 24) + (65535 << 8) + (256 - 1)
"""A host candidate's, component 1 (RFC 8445, 5.1.2.1)."""


def advice(plan: Plan, *, entropy: bytes, now: int) -> wire.IceAdvice:
    """Return fresh credentials, and the operator's servers and candidate."""
    ttl_s = min(max(plan.ice_ttl_s, MIN_TTL_S), MAX_TTL_S)
    ufrag = entropy[:UFRAG_BYTES].hex()
    return wire.IceAdvice(
        username_fragment=ufrag,
        password=entropy[UFRAG_BYTES:ENTROPY_BYTES].hex(),
        ttl_secs=ttl_s,
        keepalive_interval_secs=min(max(plan.ice_keepalive_s, MIN_KEEPALIVE_S), MAX_KEEPALIVE_S),
        trickle=True,
        expires_at=instant(now + ttl_s),
        servers=tuple(
            _server(server, ufrag, ttl_s=plan.turn_ttl_s, now=now) for server in plan.ice_servers
        ),
        lite_candidates=(_lite(plan.ice_lite),) if plan.ice_lite else (),
    )


def instant(at: int) -> str:
    """Write an instant as RFC 3339 has it."""
    return datetime.fromtimestamp(at, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def foundation(ip: str) -> str:
    """Return the name of an address's candidates: four bytes of its BLAKE3."""
    return blake3.digest(ipaddress.ip_address(ip).packed)[:4].hex()


def _server(server: IceServerPlan, ufrag: str, *, ttl_s: int, now: int) -> wire.IceServer:
    login = server.login(ufrag, ttl_s=ttl_s, now=now)
    return wire.IceServer(
        urls=server.urls,
        ttl_secs=login.until - now if login.until else 0,
        username=login.username,
        credential=login.credential,
        expires_at=instant(login.until) if login.until else None,
        realm=server.realm or None,
    )


@lru_cache(maxsize=8)
def _lite(lite: LitePlan) -> wire.LiteCandidate:
    ip = str(ipaddress.ip_address(lite.ip))
    name = foundation(ip)
    return wire.LiteCandidate(
        candidate=f"candidate:{name} 1 udp {LITE_PRIORITY} {ip} {lite.port} typ host generation 0",
        component=1,
        protocol="udp",
        foundation=name,
        priority=LITE_PRIORITY,
        ip=ip,
        port=lite.port,
        typ="host",
    )
