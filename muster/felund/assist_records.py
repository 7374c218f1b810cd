"""Assist records: what a caller asks of `/api/p2p/assist`, and the advice it is given.

The names and shapes are those of an existing server, so they follow its customs
(`ttl_secs`, RFC 3339 instants, problem+json) and not ours. A null counts as absent.
What is added to them says so in docs/assist.md.
"""

from __future__ import annotations

from typing import Annotated, Literal

from msgspec import Meta

from muster.felund.records import (
    CircleHint,
    Duration,
    ErrorBody,
    NodeId,
    RequestKey,
    Seconds,
)
from muster.structs import Record

MAX_PATHS = 16
MAX_PEM_CHARS = 16_384

Transport = Literal[
    "WebSocket", "Reality", "Onion", "Shadowsocks", "QuicMasque", "Dns", "AmnesiaWG"
]
Resistance = Literal["Basic", "Enhanced", "Maximum", "Paranoid"]
Tier = Literal["Low", "Medium", "High", "Unknown"]
ProbeMethod = Literal["none", "tcp", "tls"]

Name = Annotated[str, Meta(min_length=1, max_length=255)]
Label = Annotated[str, Meta(max_length=64)]
Port = Annotated[int, Meta(ge=0, le=65535)]
Fingerprint = Annotated[
    str, Meta(min_length=64, max_length=64, pattern="^[0-9a-fA-F]{64}$", description="64 hex.")
]


# --- asking -------------------------------------------------------------------


class PathHint(Record, frozen=True, kw_only=True):
    """A way to a peer that the caller knows; it is data, and probed only if allowed."""

    address: Name
    id: Label | None = None
    port: Port | None = None
    server_name: Name | None = None
    priority: Annotated[int, Meta(ge=0, le=255)] | None = None
    reality_fingerprint: Fingerprint | None = None
    reality_pem: Annotated[str, Meta(max_length=MAX_PEM_CHARS)] | None = None


class FecHint(Record, frozen=True, kw_only=True):
    """How packets are to be protected; both are clamped."""

    mtu: Annotated[int, Meta(ge=0, le=65535)] | None = None
    repair_overhead: float | None = None


class AskAdvice(Record, frozen=True, kw_only=True):
    """Ask how to connect; without paths the service names those it knows."""

    peer_hint: Annotated[str, Meta(max_length=255)] | None = None
    paths: Annotated[tuple[PathHint, ...], Meta(max_length=MAX_PATHS)] | None = None
    prefer_reality: bool | None = None
    fec: FecHint | None = None
    min_paths: Annotated[int, Meta(ge=0, le=2**53 - 1)] | None = None


# --- the advice ---------------------------------------------------------------


class NoiseAdvice(Record, frozen=True, kw_only=True):
    """Parameters of a Noise handshake; the seed is fresh, and the key is X25519 of it."""

    pattern: Literal["XK", "IK"]
    prologue_hex: str
    device_seed_hex: str
    static_public_hex: str


class PqKeys(Record, frozen=True, kw_only=True):
    """The public halves of the deployment's key set, with its signatures over them."""

    identity_public_hex: str
    signed_prekey_public_hex: str
    kem_public_hex: str
    signature_public_hex: str
    key_id: str
    expires_at: Seconds
    identity_signature_hex: str
    pq_signature_hex: str


class IceServer(Record, frozen=True, kw_only=True, omit_defaults=True):
    """A STUN or TURN server and its login, empty if it wants none; older services omit that."""

    urls: tuple[str, ...]
    ttl_secs: Annotated[int, Meta(ge=0)]
    username: str | None = None
    credential: str | None = None
    expires_at: str | None = None
    realm: str | None = None


class LiteCandidate(Record, frozen=True, kw_only=True):
    """An ICE-lite host candidate that the operator runs."""

    candidate: str
    component: int
    protocol: Literal["udp"]
    foundation: str
    priority: int
    ip: str
    port: int
    typ: Literal["host"]


class IceAdvice(Record, frozen=True, kw_only=True, omit_defaults=True):
    """Random ICE credentials, and the servers that help to connect."""

    username_fragment: str
    password: str
    ttl_secs: int
    keepalive_interval_secs: int
    trickle: bool
    expires_at: str
    servers: tuple[IceServer, ...] = ()
    lite_candidates: tuple[LiteCandidate, ...] = ()


class NetworkQuality(Record, frozen=True, kw_only=True):
    """What a probe found; with the method `none` nobody looked, and the zeros mean nothing."""

    rtt_ms: Annotated[int, Meta(ge=0)] = 0
    jitter_ms: float = 0.0
    packet_loss_percent: float = 0.0
    bandwidth_kbps: Annotated[int, Meta(ge=0, description="Always 0: nobody measures it.")] = 0
    quality_score: Annotated[int, Meta(ge=0, le=100)] = 0
    quality_label: Literal["excellent", "good", "fair", "poor", "critical", "unknown"] = "unknown"
    probe_method: ProbeMethod = "none"


class TransportAdvice(Record, frozen=True, kw_only=True):
    """One path: where it leads, by what, and how well as far as it was measured."""

    path_id: str
    transport: Transport | Literal["Unknown"]
    resistance: Resistance
    latency: Tier
    throughput: Tier
    address: str
    port: int
    server_name: str | None
    network_quality: NetworkQuality


class Segments(Record, frozen=True, kw_only=True):
    """Packets of the sample that go by one path, and how many of them repair."""

    total: Annotated[int, Meta(ge=0)] = 0
    repair: Annotated[int, Meta(ge=0)] = 0


class MultipathAdvice(Record, frozen=True, kw_only=True):
    """How to spread packets over the paths."""

    fec_mtu: Annotated[int, Meta(ge=0, le=65535)]
    fec_overhead: float
    primary_path: str | None
    sample_segments: dict[str, Segments]


class ObfuscationAdvice(Record, frozen=True, kw_only=True):
    """Which disguises the operator's paths have."""

    reality_fingerprint_hex: str | None
    domain_fronting: bool
    protocol_mimicry: bool
    tor_bridge: bool


class SecurityCounters(Record, frozen=True, kw_only=True, omit_defaults=True):
    """What was counted since the deployment began; what nobody counts is 0."""

    noise_handshakes: int
    pq_handshakes: int
    fec_packets: int
    multipath_sessions: int
    average_paths: float
    censorship_deflections: int
    active_connections: int | None = None
    rate_limited_ips: int | None = None


class KeepaliveAdvice(Record, frozen=True, kw_only=True):
    """How to keep a connection alive."""

    enabled: bool = True
    ping_interval_secs: int = 30
    pong_timeout_secs: int = 10
    max_missed_pongs: int = 3


class ReconnectAdvice(Record, frozen=True, kw_only=True):
    """How to connect again; no attempts at most means without end."""

    strategy: Literal["exponential_backoff"] = "exponential_backoff"
    initial_backoff_secs: int = 1
    max_backoff_secs: int = 60
    max_attempts: int = 0


class Advice(Record, frozen=True, kw_only=True):
    """How to connect: credentials, paths as far as they were measured, and packet protection."""

    noise: NoiseAdvice
    pq: PqKeys
    ice: IceAdvice
    transports: tuple[TransportAdvice, ...]
    multipath: MultipathAdvice
    obfuscation: ObfuscationAdvice
    security: SecurityCounters
    keepalive: KeepaliveAdvice = KeepaliveAdvice()
    reconnect: ReconnectAdvice = ReconnectAdvice()


class Problem(ErrorBody, frozen=True, kw_only=True):
    """A refusal on `/api/p2p/assist`: problem+json (RFC 9457), and the members it has anywhere."""

    type: str
    title: str
    status: int
    retry_after_seconds: int | None = None


# --- session tokens -----------------------------------------------------------


class OpenAssist(Record, frozen=True, kw_only=True):
    """Ask for a bearer token for `/api/p2p/assist`; the first call may pin the circle's key."""

    node_id: NodeId
    circle_hint: CircleHint
    ttl_s: Duration = 300
    signing_key: RequestKey | None = None


class AssistOpened(Record, frozen=True, kw_only=True):
    """A bearer token, good until `expires_at`."""

    ok: Literal[True] = True
    token: str
    expires_at: Seconds
    server_time: Seconds
