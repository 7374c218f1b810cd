"""Examples: one call and one answer for each route, as records, so that they always fit."""

from __future__ import annotations

from typing import Any, NamedTuple

import msgspec

from chalicelib.assist import ice, paths
from chalicelib.assist.plan import IceServerPlan, LitePlan, Plan
from chalicelib.settings import Settings
from muster import errors, shapes, structs
from muster.felund import assist_records as wire
from muster.felund import records
from muster.felund.circle import Circle

NOW = 1_790_000_000
SECRET = bytes(range(32))
CIRCLE = Circle(SECRET)
HINT = CIRCLE.circle_hint
NODE = "0f1e2d3c4b5a69788796a5b4"
OTHER = "c0ffee00c0ffee00c0ffee00"
MESSAGE = {
    "msg_id": "6b86b273ff34fce19d6b804eff5a3f57",
    "circle_id": CIRCLE.circle_id,
    "channel_id": "general",
    "author_node_id": NODE,
    "created_ts": NOW,
    "enc": {
        "alg": "AES-256-GCM",
        "key_id": "epoch-0",
        "nonce": "AAECAwQFBgcICQoL",
        "ciphertext": "c2VhbGVkOyB0aGUgc2VydmljZSBjYW5ub3QgcmVhZCBpdA==",
    },
}
SIGNAL_SESSION = ":".join(sorted((NODE, OTHER)))
TOKEN = "muster1.eyJ1c2UiOiJyZWxheSJ9.c2lnbmF0dXJl"  # noqa: S105 - opens nothing
RELAY_URL = "ws://127.0.0.1:8787/v1/relay/ws"

_ENDPOINT = records.Endpoint(transport="tcp", host="192.0.2.7", port=9000)
_PEER = records.Peer(
    node_id=OTHER,
    circle_hint=HINT,
    endpoints=(_ENDPOINT,),
    capabilities=records.Capabilities(),
    observed_at=NOW - 12,
    expires_at=NOW + 108,
)
_RAW = (msgspec.Raw(msgspec.json.encode(MESSAGE)),)

TICKET = {
    "version": 1,
    "algorithm": "ed25519",
    "publicKey": "1wCLULFXYj12jEzlyOfb2qd54C4H3CsY3DiZ5dOkjDE=",
    "signature": "8PDHWOaUC85j3MQMyK1Iagx51KQTliRCTjYOOOsShXa+"
    "QAGLhPDUS3xtPu6u9YAdDha/2vCCv5RQFMgywUQoBQ==",
    "payload": {
        "peerId": "peer-alice",
        "userId": "alice",
        "issuedAt": NOW * 1000,
        "expiresAt": (NOW + 180) * 1000,
        "nonce": "K9gGyX8OAK8aH8My",
    },
}
_TICKETS = (msgspec.Raw(msgspec.json.encode(TICKET)),)

_PATH = wire.PathHint(address="relay.example.org", id="relay", port=443, priority=0)
_PLAN = Plan(
    ice_servers=(
        IceServerPlan(urls=("turn:turn.example.org:3478",), secret="shared", realm="example.org"),  # noqa: S106
    ),
    ice_lite=LitePlan(ip="198.51.100.10", port=3478),
)
_ADVICE = wire.Advice(
    noise=wire.NoiseAdvice(
        pattern="XK",
        prologue_hex=b"commucat".hex(),
        device_seed_hex="90144b6eb668cca2780759e8492d72445b2762a45564230f767471469a655eea",
        static_public_hex="4ee4ecee64e8b9041184ac845dbd7950f01e86f798869e757711abd9cd4d0166",
    ),
    pq=wire.PqKeys(
        identity_public_hex="a1b2c3… (32 bytes)",
        signed_prekey_public_hex="7890ab… (32 bytes)",
        kem_public_hex="fedcba… (1184 bytes)",
        signature_public_hex="012345… (1952 bytes)",
        key_id="2b84ca051e50f7bc",
        expires_at=NOW + 14 * 24 * 3600,
        identity_signature_hex="5e6f70… (64 bytes)",
        pq_signature_hex="8192a3… (3309 bytes)",
    ),
    ice=ice.advice(_PLAN, entropy=bytes(range(ice.ENTROPY_BYTES)), now=NOW),
    transports=(
        paths.advice(
            paths.Measured(
                paths.Path(
                    "relay",
                    "relay.example.org",
                    443,
                    "relay.example.org",
                    0,
                    "WebSocket",
                    target=paths.Target("relay.example.org", 443, "relay.example.org", tls=True),
                ),
                paths.Probe(3, (21.4, 20.1, 22.0)),
            )
        ),
    ),
    multipath=wire.MultipathAdvice(
        fec_mtu=1200,
        fec_overhead=0.4,
        primary_path="relay",
        sample_segments={"relay": wire.Segments(total=5, repair=2)},
    ),
    obfuscation=wire.ObfuscationAdvice(
        reality_fingerprint_hex=None,
        domain_fronting=True,
        protocol_mimicry=False,
        tor_bridge=False,
    ),
    security=wire.SecurityCounters(
        noise_handshakes=0,
        pq_handshakes=0,
        fec_packets=0,
        multipath_sessions=1234,
        average_paths=1.5,
        censorship_deflections=0,
        active_connections=89,
        rate_limited_ips=2,
    ),
)

_SEALED = "A" * 854
"""As long as a sealed presence is; a text, and not one that opens."""

_EXAMPLES: dict[tuple[str, str], tuple[structs.Record, structs.Record]] = {
    ("POST", "/v2/sync"): (
        shapes.Sync(
            presence=shapes.Placed(sealed=_SEALED, ttl_s=660, tell=True),
            send=shapes.Sent(messages=(_SEALED,)),
            after=shapes.After(messages=NOW * 1000),
            want=shapes.Want(peers=True, messages=200, signals=50),
        ),
        shapes.Synced(
            refused={
                "send.messages": shapes.PartRefused(
                    code="MAILBOX_FULL", message="the circle's mailbox is full", retry_after_s=3600
                )
            },
            peers=(
                shapes.SealedPeer(
                    node_id="6f8ffa1ede50a325ec54c6fb67547228",
                    sealed=_SEALED,
                    until_ms=(NOW + 660) * 1000,
                ),
            ),
            signals=(),
            entries=(shapes.Entry(number=NOW * 1000 + 1, messages=(_SEALED,)),),
            more=(),
            next_s=30,
        ),
    ),
    ("GET", "/v2/info"): (
        shapes.NoParameters(),
        shapes.ServiceInfo(
            version="0.1.0",
            time_ms=NOW * 1000,
            service_id="a5dad8c16b2ac4d09cda313146c3d611",
            service_key="ypOsFwUYcHHWe4PH_w7-gQjo7EUwV113JodTM9va5_w",
            socket="ws://127.0.0.1:8787/v2/socket",
            open=False,
            limits=shapes.ServiceLimits(body_bytes=1024 * 1024, message_bytes=1024 * 1024),
        ),
    ),
    ("GET", "/v1/health"): (
        records.Nothing(),
        records.Health(version="0.1.0", time=NOW),
    ),
    ("GET", "/v1/info"): (
        records.Nothing(),
        records.Info(
            version="0.1.0",
            time=NOW,
            protocol=1,
            unsigned="refuse",
            limits=Settings().limits(),
            keys=(
                records.VerifyKey(
                    kid="0123456789abcdef",
                    verify_key="A6EHv_POEL4dcN0Y50vAmWfk1jCbpQ1fHdyGZBJVMbg",
                ),
            ),
            websocket=RELAY_URL,
            capsule_root="A6EHv/POEL4dcN0Y50vAmWfk1jCbpQ1fHdyGZBJVMbg=",
        ),
    ),
    ("POST", "/v1/register"): (
        records.Register(
            node_id=NODE,
            circle_hint=HINT,
            endpoints=(_ENDPOINT,),
            signing_key=CIRCLE.request_key.hex(),
        ),
        records.Registered(
            server_time=NOW,
            expires_at=NOW + 120,
            observed_endpoint=records.Observed(host="198.51.100.4", family="ipv4", port=40404),
            observed_host=records.ObservedHost(host="198.51.100.4", family="ipv4"),
        ),
    ),
    ("DELETE", "/v1/register"): (
        records.Unregister(node_id=NODE, circle_hint=HINT),
        records.Unregistered(removed=True),
    ),
    ("GET", "/v1/peers"): (
        records.ListPeers(circle_hint=HINT),
        records.Peers(peers=(_PEER,), server_time=NOW),
    ),
    ("POST", "/v1/messages"): (
        records.LeaveMessages(circle_hint=HINT, messages=(MESSAGE,)),
        records.MessagesLeft(stored=1, server_time=NOW, cursor=1_790_000_000_123),
    ),
    ("GET", "/v1/messages"): (
        records.PollMessages(circle_hint=HINT, after=1_790_000_000_122),
        records.Messages(messages=_RAW, server_time=NOW - 1, cursor=1_790_000_000_123),
    ),
    ("POST", "/v1/signal"): (
        records.LeaveSignal(
            session_id=SIGNAL_SESSION,
            from_node_id=NODE,
            to_node_id=OTHER,
            circle_hint=HINT,
            type="offer",
            payload="v=0\r\n",
            ttl_s=60,
        ),
        records.SignalLeft(server_time=NOW, id=1_790_000_000_001),
    ),
    ("GET", "/v1/signal"): (
        records.PollSignals(
            to_node_id=OTHER, since_id=0, session_id=SIGNAL_SESSION, circle_hint=HINT
        ),
        records.Signals(
            signals=(
                records.Signal(
                    id=1_790_000_000_001,
                    session_id=SIGNAL_SESSION,
                    from_node=NODE,
                    to_node=OTHER,
                    type="offer",
                    payload="v=0\r\n",
                    created_at=NOW,
                ),
            ),
            server_time=NOW,
        ),
    ),
    ("POST", "/v1/relay/session"): (
        records.OpenSession(node_id=NODE, target_node_id=OTHER, circle_hint=HINT),
        records.SessionOpened(
            relay_url=RELAY_URL,
            session_id="00112233445566778899aabbccddeeff",
            token=TOKEN,
            expires_at=NOW + 60,
            server_time=NOW,
        ),
    ),
    ("POST", "/v1/relay/subscription"): (
        records.OpenSubscription(node_id=NODE, circle_hint=HINT),
        records.SubscriptionOpened(
            relay_url=RELAY_URL, token=TOKEN, expires_at=NOW + 60, server_time=NOW
        ),
    ),
    ("POST", "/announce"): (
        records.Announce(ticket=TICKET),
        records.Tickets(ok=True, peers=()),
    ),
    ("GET", "/peers"): (
        records.ListTickets(community="mainnet"),
        records.Tickets(ok=True, peers=_TICKETS),
    ),
    ("POST", "/v1/session"): (
        wire.OpenAssist(node_id=NODE, circle_hint=HINT),
        wire.AssistOpened(token=TOKEN, expires_at=NOW + 300, server_time=NOW),
    ),
    ("POST", "/api/p2p/assist"): (
        wire.AskAdvice(paths=(_PATH,), fec=wire.FecHint(mtu=1200, repair_overhead=0.4)),
        _ADVICE,
    ),
    ("GET", "/api/p2p/assist"): (records.Nothing(), _ADVICE),
}


class _Signed(NamedTuple):
    secret: bytes
    method: str
    path: str
    body: bytes
    nonce: bytes


SIGNED = _Signed(
    secret=SECRET,
    method="DELETE",
    path="/register",
    body=msgspec.json.encode(_EXAMPLES["DELETE", "/v1/register"][0]),
    nonce=bytes(range(16)),
)


def of(method: str, path: str) -> tuple[structs.Record, structs.Record] | None:
    """Return a route's example: what is asked, and what is answered."""
    return _EXAMPLES.get((method, path))


def plain(record: structs.Record) -> dict[str, Any]:
    """Return a record as JSON has it."""
    members: dict[str, Any] = msgspec.json.decode(msgspec.json.encode(record))
    return members


def status_of(code: str) -> int:
    """Return the HTTP status that goes with a code."""
    return _refusal(code).status


def refusal(code: str) -> dict[str, Any]:
    """Return an error body with that code."""
    return _refusal(code).to_json()


def _refusal(code: str) -> errors.Refused:
    body = {"code": code, "message": "what was wrong, for people"}
    return errors.from_json(body, status=400)
