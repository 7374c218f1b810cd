"""ICE: random credentials, TURN logins that coturn checks by itself, the lite candidate."""

from __future__ import annotations

import hashlib
import hmac
import ipaddress
import struct
from base64 import b64encode
from datetime import UTC, datetime
from functools import lru_cache

from chalicelib.assist.plan import IceServerPlan, LitePlan, Plan
from muster.felund import assist_records as wire

MIN_TTL_S, MAX_TTL_S = 60, 3600
MIN_KEEPALIVE_S, MAX_KEEPALIVE_S = 5, 120
MIN_TURN_TTL_S = 60
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
    return _blake3(ipaddress.ip_address(ip).packed)[:4].hex()


def _server(server: IceServerPlan, ufrag: str, *, ttl_s: int, now: int) -> wire.IceServer:
    username, credential, expires_at = server.username or None, server.password or None, None
    left_s = 0
    if server.secret:  # coturn's use-auth-secret: the name says how long it is good
        left_s = max(MIN_TURN_TTL_S, ttl_s)
        username = f"{now + left_s}:{ufrag}"
        made = hmac.digest(server.secret.encode(), username.encode(), hashlib.sha1)
        credential, expires_at = b64encode(made).decode(), instant(now + left_s)
    return wire.IceServer(
        urls=server.urls,
        ttl_secs=left_s,
        username=username,
        credential=credential,
        expires_at=expires_at,
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


# --- BLAKE3 of one block -------------------------------------------------------

_IV = (
    0x6A09E667, 0xBB67AE85, 0x3C6EF372, 0xA54FF53A,
    0x510E527F, 0x9B05688C, 0x1F83D9AB, 0x5BE0CD19,
)  # fmt: skip
_ORDER = (2, 6, 3, 10, 7, 0, 4, 13, 1, 11, 12, 5, 9, 14, 15, 8)
_MIXES = (
    (0, 4, 8, 12), (1, 5, 9, 13), (2, 6, 10, 14), (3, 7, 11, 15),
    (0, 5, 10, 15), (1, 6, 11, 12), (2, 7, 8, 13), (3, 4, 9, 14),
)  # fmt: skip
_CHUNK_START, _CHUNK_END, _ROOT = 1, 2, 8


def _blake3(data: bytes) -> bytes:
    """Return the BLAKE3 hash of at most 64 bytes, which an address is; no library is worth it."""
    words = list(struct.unpack("<16I", data.ljust(64, b"\0")))
    state = [*_IV, *_IV[:4], 0, 0, len(data), _CHUNK_START | _CHUNK_END | _ROOT]
    for _ in range(7):
        for i, places in enumerate(_MIXES):
            _mix(state, places, words[2 * i], words[2 * i + 1])
        words = [words[place] for place in _ORDER]
    return struct.pack("<8I", *(state[i] ^ state[i + 8] for i in range(8)))


def _mix(state: list[int], places: tuple[int, int, int, int], x: int, y: int) -> None:
    a, b, c, d = places
    for word, down, up in ((x, 16, 12), (y, 8, 7)):
        state[a] = (state[a] + state[b] + word) & 0xFFFFFFFF
        state[d] = _turn(state[d] ^ state[a], down)
        state[c] = (state[c] + state[d]) & 0xFFFFFFFF
        state[b] = _turn(state[b] ^ state[c], up)


def _turn(word: int, bits: int) -> int:
    return (word >> bits | word << (32 - bits)) & 0xFFFFFFFF
