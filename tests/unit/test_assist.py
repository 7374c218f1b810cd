"""What clients of `/api/p2p/assist` depend on, rule by rule, and that nothing is made up."""

import hashlib
import hmac
import itertools
import json
import re
import secrets
from base64 import b64decode
from collections.abc import Iterable, Mapping
from concurrent.futures import Future
from pathlib import Path
from typing import Any

import msgspec
import pytest
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey

from chalicelib.assist import blake3, ice
from chalicelib.assist.paths import Probe, Target
from chalicelib.call import Call
from chalicelib.store.sqlite import open_sqlite
from muster.felund import signing
from tests.support.circle import ANN, HINT, SECRET, START, World, world

PATH = "/api/p2p/assist"
TOKEN = {"authorization": "Bearer a-token-for-foreign-clients"}
PLAN: dict[str, Any] = {
    "paths": [
        {"id": "ws", "address": "ws.example.org", "transport": "WebSocket", "priority": 1},
        {
            "id": "real",
            "address": "real.example.org",
            "transport": "Reality",
            "priority": 1,
            "reality_fingerprint": "AB" * 32,
        },
        {"id": "wg", "address": "wg.example.org", "port": 51820, "transport": "AmnesiaWG"},
    ],
    "probe_hosts": ["probe.example.org", "probe.example.org:80"],
}


class Seen:
    """A prober that has seen what a test says, and notes what it was asked for."""

    def __init__(self, **probes: Probe) -> None:
        self.probes = probes
        self.asked: list[Target] = []

    def start(self, targets: Iterable[Target]) -> Mapping[Target, Future[Probe]]:
        found = {}
        for target in targets:
            self.asked.append(target)
            future: Future[Probe] = Future()
            future.set_result(self.probes.get(target.host.partition(".")[0], Probe()))
            found[target] = future
        return found


def service(plan: Mapping[str, Any] | None = None, prober: Any = None, **settings: Any) -> World:
    settings = {"assist_tokens": f"another, {TOKEN['authorization'][7:]}"} | settings
    if plan is not None:
        settings["assist"] = json.dumps(plan)
    made = world(**settings)
    made.service.entropy = secrets.token_bytes
    made.service.prober = prober
    return made


def ask(w: World, body: Any = b"", method: str = "POST") -> dict[str, Any]:
    status, answer = w.call(method, PATH, body, headers=TOKEN)
    assert status == 200, answer
    return answer


def refused(w: World, body: Any, status: int = 400, headers: Any = TOKEN) -> dict[str, Any]:
    found, answer = w.call("POST", PATH, body, headers=headers)
    assert found == status, answer
    assert (answer["status"], answer["type"]) == (status, "about:blank")
    assert answer["detail"]
    return answer


# --- asking (wire/assist 1) -------------------------------------------------------


def test_an_empty_body_is_like_a_get_and_prefers_reality() -> None:
    w = service(PLAN)
    for method, body in (("POST", b""), ("GET", b""), ("GET", b'{"paths":7}')):
        answer = ask(w, body, method)
        assert [one["path_id"] for one in answer["transports"]] == ["real", "ws", "wg"]
    assert [one["path_id"] for one in ask(w, {})["transports"]] == ["ws", "real", "wg"]


def test_white_space_is_no_body() -> None:
    refused(service(), b" ")


@pytest.mark.parametrize(
    "body",
    [
        {"peer_hint": None, "paths": None, "prefer_reality": None, "fec": None, "min_paths": None},
        {"fec": {"mtu": None, "repair_overhead": None}},
        {"paths": [{"address": "a", "id": None, "port": None, "server_name": None}]},
        {"paths": [{"address": "a", "priority": None, "reality_fingerprint": None}]},
        {"paths": [{"address": "a", "reality_pem": None}]},
        {"min_paths": 0},
        {"min_paths": 1000},
        {"unknown": {"members": "are ignored"}},
        {"paths": [{"address": "a", "reality_fingerprint": "aB" * 32}]},
        {"paths": [{"address": "a", "reality_pem": "no certificate, and never parsed"}]},
    ],
    ids=json.dumps,
)
def test_nulls_count_as_absent_and_unknown_members_as_nothing(body: dict[str, Any]) -> None:
    ask(service(), body)


@pytest.mark.parametrize(
    "body",
    [
        {"paths": [{}]},
        {"paths": [{"address": None}]},
        {"paths": [{"address": ""}]},
        {"paths": [{"address": "a", "port": 65536}]},
        {"paths": [{"address": "a", "port": -1}]},
        {"paths": [{"address": "a", "priority": 256}]},
        {"paths": [{"address": "a", "reality_fingerprint": "a1b2c3d4..."}]},
        {"paths": [{"address": "a", "reality_fingerprint": "g" * 64}]},
        {"paths": [["a", "an-id", 443]]},
        {"paths": [{"address": "a"}] * 17},
        {"paths": {}},
        {"prefer_reality": "yes"},
        {"min_paths": -1},
        {"fec": {"mtu": 65536}},
        {"fec": {"mtu": 1152.5}},
        {"fec": {"mtu": -1}},
        {"fec": {"repair_overhead": "much"}},
        ["relay.example.org"],
        b'{"min_paths":1,"min_paths":2}',
        b"{",
        b"\xff",
        b'{"fec":{"repair_overhead":1e999}}',
    ],
    ids=str,
)
def test_what_is_malformed_is_refused(body: Any) -> None:
    answer = refused(service(), body)
    assert answer["title"] == "Bad Request"


def test_ten_thousand_paths_and_ten_megabytes_are_refused() -> None:
    w = service()
    refused(w, {"paths": [{"address": "a"}] * 3_000})
    assert refused(w, {"paths": [{"address": "a"}] * 10_000}, 413)["title"] == "Content Too Large"
    refused(w, b" " * 10_000_000, 413)


def test_the_command_line_clients_own_call_is_answered() -> None:
    """Its only path is always 127.0.0.1:3478, which must be accepted, and not probed."""
    prober = Seen()
    body = {
        "peer_hint": None,
        "paths": [{"address": "127.0.0.1", "id": "primary", "port": 3478, "priority": 0}],
        "prefer_reality": False,
        "fec": {"mtu": 1200, "repair_overhead": 0.18},
        "min_paths": 1,
    }
    answer = ask(service(PLAN, prober), body)
    assert answer["multipath"]["sample_segments"] == {"primary": {"total": 4, "repair": 1}}
    assert answer["multipath"]["primary_path"] == "primary"
    assert answer["transports"][0]["network_quality"]["probe_method"] == "none"
    assert prober.asked == []


def test_paths_without_a_name_are_numbered_and_names_may_repeat() -> None:
    paths = [{"address": "a"}, {"address": "b", "id": "x"}, {"address": "c", "id": "x"}]
    answer = ask(service(), {"paths": paths})
    assert [one["path_id"] for one in answer["transports"]] == ["path-1", "x", "x"]
    segments = answer["multipath"]["sample_segments"]
    assert set(segments) == {"path-1", "x"}
    assert sum(one["total"] for one in segments.values()) == 3 + 1


def test_without_paths_the_service_names_its_own_relay_and_the_callers_hint() -> None:
    answer = ask(service(), {"peer_hint": "relay.commucat.tech"})
    assert [
        (one["path_id"], one["transport"], one["address"], one["port"])
        for one in answer["transports"]
    ] == [
        ("primary", "WebSocket", "muster.example", 443),
        ("backup", "Unknown", "relay.commucat.tech", 443),
    ]


def test_a_service_that_knows_no_name_of_its_own_invents_no_path() -> None:
    w = service()
    reply = w.reply(Call("POST", PATH, headers=TOKEN, clock=w.clock, source_ip="192.0.2.1"))
    answer = json.loads(reply.body)
    assert answer["transports"] == []
    assert answer["multipath"]["primary_path"] is None
    assert answer["multipath"]["sample_segments"] == {}


@pytest.mark.parametrize("url", ["ws://muster.example:99999/v1/relay/ws", "wss://[::1/x", "ws:///"])
def test_a_name_that_no_service_can_have_is_no_path(url: str) -> None:
    w = service()
    call = Call("POST", PATH, headers=TOKEN, clock=w.clock, websocket_url=url)
    reply = w.reply(call)
    assert (reply.status, json.loads(reply.body)["transports"]) == (200, [])


def test_the_services_own_relay_is_probed_where_the_operator_says_so() -> None:
    prober = Seen(muster=Probe(3, (5.0,) * 3))
    [found] = ask(service({"probe_hosts": ["muster.example"]}, prober), {})["transports"]
    assert (found["path_id"], found["network_quality"]["probe_method"]) == ("primary", "tls")


def test_a_callers_path_to_an_allowed_host_is_probed_with_tls_where_the_port_says_so() -> None:
    prober = Seen()
    paths = [{"address": "PROBE.example.org", "port": port} for port in (443, 80)]
    ask(service(PLAN, prober), {"paths": paths})
    assert {(one.host, one.port, one.tls) for one in prober.asked} == {
        ("probe.example.org", 443, True),
        ("probe.example.org", 80, False),
    }


# --- what the client's deserialiser demands (wire/assist 2) --------------------------


class _Noise(msgspec.Struct):
    pattern: str
    prologue_hex: str
    device_seed_hex: str
    static_public_hex: str


class _Pq(msgspec.Struct):
    identity_public_hex: str
    signed_prekey_public_hex: str
    kem_public_hex: str
    signature_public_hex: str


class _Transport(msgspec.Struct):
    path_id: str
    transport: str
    resistance: str
    latency: str
    throughput: str


class _Sample(msgspec.Struct):
    total: int
    repair: int


class _Multipath(msgspec.Struct):
    fec_mtu: int
    fec_overhead: float
    primary_path: str | None = None
    sample_segments: dict[str, _Sample] = {}


class _Obfuscation(msgspec.Struct):
    reality_fingerprint_hex: str | None = None
    domain_fronting: bool = False
    protocol_mimicry: bool = False
    tor_bridge: bool = False


class _Security(msgspec.Struct):
    noise_handshakes: int
    pq_handshakes: int
    fec_packets: int
    multipath_sessions: int
    average_paths: float
    censorship_deflections: int


class CommandLineAnswer(msgspec.Struct):
    """The existing client's type: what it reads, and what it breaks without."""

    noise: _Noise
    pq: _Pq
    transports: list[_Transport]
    multipath: _Multipath
    obfuscation: _Obfuscation
    security: _Security


@pytest.mark.parametrize("plan", [None, PLAN], ids=["nothing planned", "planned"])
@pytest.mark.parametrize("body", [b"", {}, {"paths": [{"address": "a"}]}], ids=str)
def test_the_command_line_client_reads_every_answer(body: Any, plan: Any) -> None:
    w = service(plan)
    reply = w.reply(
        Call(
            "POST",
            PATH,
            headers=TOKEN,
            body=body if isinstance(body, bytes) else json.dumps(body).encode(),
            clock=w.clock,
            source_ip="192.0.2.1",
        )
    )
    assert reply.status == 200
    assert reply.headers["Content-Type"] == "application/json"
    assert reply.headers["Cache-Control"] == "no-store"
    read = msgspec.json.decode(reply.body, type=CommandLineAnswer)
    assert read.multipath.fec_mtu == 1200
    assert b'fec_mtu":1200,' in reply.body


# --- Noise ------------------------------------------------------------------------


def test_noise_seeds_are_fresh_and_their_key_is_x25519_of_them() -> None:
    w = service()
    answers = [ask(w)["noise"] for _ in range(3)]
    assert len({answer["device_seed_hex"] for answer in answers}) == 3
    for answer in answers:
        key = X25519PrivateKey.from_private_bytes(bytes.fromhex(answer["device_seed_hex"]))
        assert key.public_key().public_bytes_raw().hex() == answer["static_public_hex"]
        assert answer["pattern"] == "XK"
        assert bytes.fromhex(answer["prologue_hex"]) == b"commucat"


def test_the_guides_own_seed_and_key_belong_together() -> None:
    w = service()
    seed = "90144b6eb668cca2780759e8492d72445b2762a45564230f767471469a655eea"
    w.service.entropy = lambda size: bytes.fromhex(seed)[:size].ljust(size, b"\0")
    noise = ask(w)["noise"]
    assert noise["device_seed_hex"] == seed
    expected = "4ee4ecee64e8b9041184ac845dbd7950f01e86f798869e757711abd9cd4d0166"
    assert noise["static_public_hex"] == expected


def test_an_operator_chooses_pattern_and_prologue() -> None:
    noise = ask(service({"noise_pattern": "IK", "noise_prologue": "ours"}))["noise"]
    assert (noise["pattern"], noise["prologue_hex"]) == ("IK", b"ours".hex())


# --- ICE (wire/assist 3) -------------------------------------------------------------


def test_ice_credentials_are_random_and_of_their_lengths() -> None:
    w = service()
    answers = [ask(w)["ice"] for _ in range(3)]
    assert len({answer["username_fragment"] for answer in answers}) == 3
    assert {len(answer["username_fragment"]) for answer in answers} == {16}
    assert {len(answer["password"]) for answer in answers} == {64}
    assert all(answer["trickle"] is True for answer in answers)
    assert not any({"servers", "lite_candidates"} & set(answer) for answer in answers)


@pytest.mark.parametrize(("chosen", "told"), [(1, 60), (300, 300), (9999, 3600)])
def test_the_lifetime_is_clamped(chosen: int, told: int) -> None:
    found = ask(service({"ice_ttl_s": chosen}))["ice"]
    assert found["ttl_secs"] == told
    assert found["expires_at"] == ice.instant(START + told)


@pytest.mark.parametrize(("chosen", "told"), [(1, 5), (60, 60), (3600, 120)])
def test_the_keepalive_is_clamped(chosen: int, told: int) -> None:
    found = ask(service({"ice_keepalive_s": chosen}))["ice"]
    assert found["keepalive_interval_secs"] == told


def test_an_instant_is_rfc_3339() -> None:
    assert ice.instant(1_759_752_000) == "2025-10-06T12:00:00Z"


@pytest.mark.parametrize(("chosen", "ttl_s"), [(0, 60), (600, 600)])
def test_a_shared_secret_makes_a_login_that_coturn_checks(chosen: int, ttl_s: int) -> None:
    server = {"urls": ["turn:turn.example.org:3478"], "secret": "shared", "realm": "commucat"}
    found = ask(service({"ice_servers": [server], "turn_ttl_s": chosen}))["ice"]
    [told] = found["servers"]
    username = f"{START + ttl_s}:{found['username_fragment']}"
    assert told["username"] == username
    expected = hmac.digest(b"shared", username.encode(), hashlib.sha1)
    assert b64decode(told["credential"]) == expected
    assert (told["ttl_secs"], told["realm"]) == (ttl_s, "commucat")
    assert told["expires_at"] == ice.instant(START + ttl_s)
    assert "shared" not in json.dumps(found)


def test_fixed_logins_are_told_as_they_are_and_stun_has_an_empty_one() -> None:
    servers = [
        {"urls": ["turn:b.example.org"], "username": "ann", "password": "pw"},
        {"urls": ["stun:a.example.org"]},
    ]
    assert ask(service({"ice_servers": servers}))["ice"]["servers"] == [
        {"urls": ["turn:b.example.org"], "ttl_secs": 0, "username": "ann", "credential": "pw"},
        {"urls": ["stun:a.example.org"], "ttl_secs": 0, "username": "", "credential": ""},
    ]


def test_the_lite_candidate_is_told_where_there_is_one() -> None:
    found = ask(service({"ice_lite": {"ip": "198.51.100.10", "port": 3478}}))["ice"]
    assert found["lite_candidates"] == [
        {
            "candidate": "candidate:2d2e29bc 1 udp 2130706431 198.51.100.10 3478 "
            "typ host generation 0",
            "component": 1,
            "protocol": "udp",
            "foundation": "2d2e29bc",
            "priority": 2130706431,
            "ip": "198.51.100.10",
            "port": 3478,
            "typ": "host",
        }
    ]


@pytest.mark.parametrize(
    ("data", "digest"),
    [
        (b"", "af1349b9f5f9a1a6a0404dea36dcc9499bcb25c9adc112b7cc9a93cae41f3262"),
        (b"abc", "6437b3ac38465133ffb63b75273a8db548c558465d79db03fd359c6cd5bd9d85"),
    ],
)
def test_the_hash_of_foundations_is_blake3(data: bytes, digest: str) -> None:
    assert blake3.digest(data).hex() == digest
    assert len(ice.foundation("2001:4860:4860::8888")) == 8


# --- transports and quality (wire/assist 4) ---------------------------------------------


def test_kinds_and_their_resistance_are_what_the_operator_configured() -> None:
    kinds = {
        "WebSocket": "Basic",
        "QuicMasque": "Enhanced",
        "Shadowsocks": "Enhanced",
        "Dns": "Enhanced",
        "Reality": "Maximum",
        "AmnesiaWG": "Maximum",
        "Onion": "Paranoid",
    }
    paths = [{"id": kind, "address": "a.example.org", "transport": kind} for kind in kinds]
    found = ask(service({"paths": paths}), {})["transports"]
    assert {one["transport"]: one["resistance"] for one in found} == kinds
    assert {one["latency"] for one in found} == {"Unknown"}
    assert {one["throughput"] for one in found} == {"Unknown"}


def test_a_callers_path_has_a_kind_only_if_the_operator_runs_it() -> None:
    paths = [
        {"address": "WG.example.org.", "port": 51820, "id": "theirs"},
        {"address": "wg.example.org", "port": 443, "reality_fingerprint": "CD" * 32},
    ]
    answer = ask(service(PLAN), {"paths": paths})
    assert [one["transport"] for one in answer["transports"]] == ["AmnesiaWG", "Unknown"]
    assert answer["transports"][0]["path_id"] == "theirs"
    assert answer["obfuscation"]["reality_fingerprint_hex"] == "cd" * 32


def test_an_unprobed_path_says_so_and_scores_nothing() -> None:
    for one in ask(service(PLAN), {})["transports"]:
        assert one["network_quality"] == {
            "rtt_ms": 0,
            "jitter_ms": 0.0,
            "packet_loss_percent": 0.0,
            "bandwidth_kbps": 0,
            "quality_score": 0,
            "quality_label": "unknown",
            "probe_method": "none",
        }


@pytest.mark.parametrize(
    ("rtts", "rtt_ms", "loss", "score", "label", "latency"),
    [
        ((20.0, 20.0, 20.0), 20, 0.0, 100, "excellent", "Low"),
        ((30.9, 30.9, 30.9), 30, 0.0, 100, "excellent", "Low"),
        ((45.0, 45.0, 45.0), 45, 0.0, 95, "excellent", "Low"),
        ((90.0, 90.0, 90.0), 90, 0.0, 90, "excellent", "Medium"),
        ((180.0, 180.0, 180.0), 180, 0.0, 75, "good", "Medium"),
        ((10.0, 40.0, 70.0), 40, 0.0, 90, "excellent", "Low"),
        ((20.0, 20.0), 20, 33.333, 89, "good", "Low"),
        ((20.0,), 20, 66.667, 77, "good", "Low"),
        ((250.0,), 250, 66.667, 37, "poor", "High"),
        ((), 0, 100.0, 0, "critical", "Unknown"),
    ],
)
def test_quality_is_by_the_published_formulas(
    rtts: tuple[float, ...], rtt_ms: int, loss: float, score: int, label: str, latency: str
) -> None:
    w = service(PLAN, Seen(ws=Probe(3, rtts)))
    [found] = [one for one in ask(w, {})["transports"] if one["path_id"] == "ws"]
    quality = found["network_quality"]
    assert (quality["rtt_ms"], quality["packet_loss_percent"]) == (rtt_ms, loss)
    assert (quality["quality_score"], quality["quality_label"]) == (score, label)
    assert (quality["probe_method"], quality["bandwidth_kbps"]) == ("tls", 0)
    assert found["latency"] == latency


def test_jitter_is_the_populations_deviation() -> None:
    w = service(PLAN, Seen(ws=Probe(3, (10.0, 40.0, 70.0))))
    [found] = [one for one in ask(w, {})["transports"] if one["path_id"] == "ws"]
    assert found["network_quality"]["jitter_ms"] == pytest.approx(24.495)


def test_within_a_priority_what_answers_comes_first_and_the_dead_last() -> None:
    dead, alive = Probe(3), Probe(3, (20.0,) * 3)
    w = service(PLAN, Seen(ws=dead, real=alive))
    answer = ask(w, {})
    assert [one["path_id"] for one in answer["transports"]] == ["real", "ws", "wg"]
    assert answer["multipath"]["primary_path"] == "real"
    assert answer["multipath"]["sample_segments"] == {
        "real": {"total": 2, "repair": 0},
        "ws": {"total": 0, "repair": 0},
        "wg": {"total": 2, "repair": 1},
    }


def test_a_reachable_path_of_a_lower_priority_stays_behind() -> None:
    paths = [dict(path, priority=i) for i, path in enumerate(PLAN["paths"])]
    w = service({"paths": paths}, Seen(real=Probe(3, (20.0,) * 3)))
    assert [one["path_id"] for one in ask(w, {})["transports"]] == ["ws", "real", "wg"]


NOWHERE = Probe(nowhere=True)


@pytest.mark.parametrize("silent", [Probe(3), NOWHERE], ids=["dead", "no such name"])
@pytest.mark.parametrize("body", [b"", {}], ids=["prefers reality", "prefers nothing"])
def test_what_leads_nowhere_ranks_below_all_that_answered_whatever_its_priority(
    body: Any, silent: Probe
) -> None:
    names = ("real", "ws", "wg")
    kinds = {path["id"]: path for path in PLAN["paths"]}
    paths = [kinds[name] | {"priority": n, "probe": "tcp"} for n, name in enumerate(names)]
    w = service({"paths": paths}, Seen(real=silent, ws=Probe(3, (20.0,) * 3)))

    answer = ask(w, body)

    assert [one["path_id"] for one in answer["transports"]] == ["ws", "real", "wg"]
    assert answer["multipath"]["primary_path"] == "ws"


def test_a_name_that_does_not_resolve_is_not_called_probed_and_stays_where_nothing_answered() -> (
    None
):
    w = service(PLAN, Seen(ws=NOWHERE, real=NOWHERE))

    answer = ask(w, {})

    assert [one["path_id"] for one in answer["transports"]] == ["ws", "real", "wg"]
    methods = {one["network_quality"]["probe_method"] for one in answer["transports"]}
    assert methods == {"none"}
    assert answer["multipath"]["primary_path"] == "ws"


def test_where_every_path_is_dead_there_is_no_primary() -> None:
    plan = {"paths": PLAN["paths"][:2]}
    answer = ask(service(plan, Seen(ws=Probe(3), real=Probe(3))), {})
    assert answer["multipath"]["primary_path"] is None
    assert set(answer["multipath"]["sample_segments"]) == {"ws", "real"}
    assert not answer["obfuscation"]["domain_fronting"]
    assert not answer["obfuscation"]["protocol_mimicry"]


@pytest.mark.parametrize(
    ("path", "tls"),
    [
        ({"transport": "WebSocket"}, True),
        ({"transport": "WebSocket", "port": 8080}, False),
        ({"transport": "Shadowsocks"}, False),
        ({"transport": "AmnesiaWG"}, None),
        ({"transport": "QuicMasque"}, None),
        ({"transport": "AmnesiaWG", "probe": "tcp"}, False),
        ({"transport": "Shadowsocks", "probe": "tls"}, True),
        ({"transport": "WebSocket", "probe": "none"}, None),
    ],
)
def test_how_a_path_is_probed_follows_from_what_it_is(
    path: dict[str, Any], tls: bool | None
) -> None:
    prober = Seen()
    ask(service({"paths": [{"id": "p", "address": "p.example.org"} | path]}, prober))
    assert [target.tls for target in prober.asked] == ([] if tls is None else [tls])


@pytest.mark.parametrize(
    ("kind", "fronted", "mimics", "tor"),
    [
        ("WebSocket", True, False, False),
        ("QuicMasque", True, False, False),
        ("Dns", True, False, False),
        ("Shadowsocks", False, True, False),
        ("Reality", False, True, False),
        ("Onion", False, False, True),
        ("AmnesiaWG", False, False, False),
    ],
)
def test_disguises_follow_from_the_operators_paths(
    kind: str, *, fronted: bool, mimics: bool, tor: bool
) -> None:
    plan = {"paths": [{"id": "p", "address": "p.example.org", "transport": kind}]}
    assert ask(service(plan))["obfuscation"] == {
        "reality_fingerprint_hex": None,
        "domain_fronting": fronted,
        "protocol_mimicry": mimics,
        "tor_bridge": tor,
    }


def test_the_services_own_relay_and_callers_paths_disguise_nothing() -> None:
    for body in ({}, {"paths": [{"address": "a"}]}):
        told = ask(service(), body)["obfuscation"]
        assert not any(told.values())


def test_the_operators_fingerprint_is_told_in_lower_case() -> None:
    assert ask(service(PLAN))["obfuscation"]["reality_fingerprint_hex"] == "ab" * 32


# --- counters, keepalive, reconnect (wire/assist 6) ----------------------------------------


def test_counters_count_what_happened_and_outlive_the_process() -> None:
    stores = open_sqlite(":memory:")
    for number in itertools.count(1):
        w = service(PLAN)
        w.service.stores = stores
        counted = ask(w, {})["security"]
        assert counted["multipath_sessions"] == number
        assert counted["average_paths"] == 3.0
        for name in ("noise_handshakes", "pq_handshakes", "fec_packets", "censorship_deflections"):
            assert counted[name] == 0, "nobody counts it"
        if number == 3:
            break
    answer = ask(w, {"paths": [{"address": "a"}]})
    assert answer["security"]["average_paths"] == 2.5


def test_a_host_that_is_the_whole_service_tells_its_sockets_and_whom_it_limits() -> None:
    w = service(address_burst=1, address_per_s=1)
    assert "active_connections" not in ask(w)["security"]

    class Whole:
        def __len__(self) -> int:
            return 4

    w.service.sender = Whole()  # type: ignore[assignment]
    for _ in range(3):
        w.call("GET", "/v1/health", source_ip="192.0.2.77")
    w.clock += 1
    security = ask(w)["security"]
    assert security["active_connections"] == 4
    assert security["rate_limited_ips"] == 1  # the one that asks now has spent its last call
    w.clock += 60
    assert ask(w)["security"]["rate_limited_ips"] == 1


def test_keepalive_and_reconnect_are_the_known_constants() -> None:
    answer = ask(service())
    assert answer["keepalive"] == {
        "enabled": True,
        "ping_interval_secs": 30,
        "pong_timeout_secs": 10,
        "max_missed_pongs": 3,
    }
    assert answer["reconnect"] == {
        "strategy": "exponential_backoff",
        "initial_backoff_secs": 1,
        "max_backoff_secs": 60,
        "max_attempts": 0,
    }


# --- who may ask, and refusals (wire/assist 7) ------------------------------------------------


@pytest.mark.parametrize(
    "headers",
    [
        {},
        {"authorization": ""},
        {"authorization": "Bearer"},
        {"authorization": "Bearer  "},
        {"authorization": "Bearer wrong"},
        {"authorization": "Bearer another,"},
        {"authorization": "Bearer , "},
        {"authorization": "Basic YTpi"},
        {"authorization": "Bearer a.b.c"},
        {"authorization": "Bearer muster1.e30.AAAA"},
        {"authorization": "Bearer ß\ud800"},
        {"authorization": "Bearer " + "x" * 5000},
    ],
    ids=str,
)
def test_without_a_token_that_counts_there_is_no_advice(headers: dict[str, str]) -> None:
    for plan in (None, PLAN):
        prober = Seen()
        answer = refused(service(plan, prober), {}, 401, headers)
        assert answer["title"] == "Unauthorized"
        assert prober.asked == []


def test_every_one_of_the_operators_tokens_counts_with_or_without_bearer() -> None:
    w = service()
    for text in ("Bearer another", "bearer another", "another", TOKEN["authorization"]):
        assert w.call("POST", PATH, {}, headers={"authorization": text})[0] == 200


def test_an_operator_may_open_it_deliberately() -> None:
    assert service(assist_open="allow").call("POST", PATH, {}, headers={})[0] == 200
    with pytest.raises(ValueError, match="ASSIST_OPEN"):
        service(assist_open="yes")


def session(w: World, **members: Any) -> tuple[int, dict[str, Any]]:
    key = signing.request_key(SECRET).hex()
    body = {"node_id": ANN, "circle_hint": HINT, "signing_key": key} | members
    return w.call("POST", "/v1/session", body)


def test_a_member_gets_a_token_by_a_signed_call_without_registering_first() -> None:
    w = service(assist_tokens="")
    status, opened = session(w)
    assert (status, opened["expires_at"]) == (200, START + 300)
    bearer = {"authorization": f"Bearer {opened['token']}"}
    assert w.call("POST", PATH, {}, headers=bearer)[0] == 200
    w.clock += 299
    assert w.call("POST", PATH, {}, headers=bearer)[0] == 200
    w.clock += 1
    assert refused(w, {}, 401, bearer)["code"] == "SESSION_EXPIRED"


@pytest.mark.parametrize(("asked", "given"), [(1, 60), (900, 900), (1e9, 3600)])
def test_a_tokens_life_is_clamped(asked: float, given: int) -> None:
    assert session(service(), ttl_s=asked)[1]["expires_at"] == START + given


def test_a_token_is_not_given_without_a_signature() -> None:
    w = service(unsigned="allow")
    body = {"node_id": ANN, "circle_hint": HINT}
    assert w.call("POST", "/v1/session", body, key=None)[0] == 401
    assert w.call("POST", "/v1/session", body)[1]["code"] == "INVALID_SIGNATURE"


def test_tokens_of_sockets_and_of_assist_do_not_pass_for_each_other() -> None:
    w = service()
    w.register(ANN)
    _, opened = w.call("POST", "/v1/relay/subscription", {"node_id": ANN, "circle_hint": HINT})
    answer = refused(w, {}, 401, {"authorization": f"Bearer {opened['token']}"})
    assert answer["code"] == "INVALID_TOKEN"
    _, mine = session(w)
    with pytest.raises(Exception, match="not for a socket"):
        w.open("c", mine["token"])


def test_a_call_too_many_is_told_when_to_try_again() -> None:
    w = service(node_burst=2, node_per_s=1)
    for _ in range(2):
        ask(w)
    reply = w.reply(Call("POST", PATH, headers=TOKEN, clock=w.clock, source_ip="192.0.2.1"))
    answer = json.loads(reply.body)
    assert (reply.status, answer["title"]) == (429, "Rate Limited")
    assert answer["retry_after_seconds"] == int(reply.headers["Retry-After"]) >= 1
    assert reply.headers["Content-Type"] == "application/problem+json"


def test_a_wrong_method_is_a_problem_too() -> None:
    w = service()
    reply = w.reply(Call("DELETE", PATH, clock=w.clock, source_ip="192.0.2.1"))
    assert (reply.status, json.loads(reply.body)["title"]) == (405, "Method Not Allowed")
    assert reply.headers["Content-Type"] == "application/problem+json"
    assert set(reply.headers["Allow"].split(", ")) == {"GET", "POST", "OPTIONS"}


def test_a_store_that_fails_and_a_mistake_of_ours_are_problems_without_details() -> None:
    from chalicelib.store import Unavailable

    w = service()

    def fail(*args: Any, **more: Any) -> Any:
        raise Unavailable

    class Down:
        def __getattr__(self, verb: str) -> Any:
            return fail

    w.service.stores = w.service.stores._replace(guard=Down())
    assert refused(w, {}, 503)["title"] == "Service Unavailable"
    w = service()
    w.service.entropy = lambda size: b""
    assert refused(w, {}, 500)["title"] == "Internal Server Error"


# --- the operator's plan --------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("{", "MUSTER_ASSIST: "),
        ("/no/such/file.json", "no file"),
        ('{"routes": []}', "routes"),
        ('{"paths": [{"id": "a", "address": "b", "transport": "Pigeon"}]}', "Pigeon"),
        (
            '{"paths": [{"id": "a", "address": "b", "transport": "Dns"},'
            ' {"id": "a", "address": "c", "transport": "Dns"}]}',
            "same id",
        ),
        ('{"ice_servers": [{"urls": ["http://a"]}]}', "turn:"),
        ('{"ice_servers": [{"urls": ["turn:a"], "username": "u"}]}', "password"),
        (
            '{"ice_servers": [{"urls": ["turn:a"], "username": "u", "password": "p",'
            ' "secret": "hush"}]}',
            "not both",
        ),
        ('{"ice_lite": {"ip": "localhost", "port": 1}}', "IPv4"),
        ('{"probe_hosts": ["a:b:c"]}', "host:port"),
        ('{"probe_hosts": ["a:99999"]}', "host:port"),
        ('{"keys_s": 1}', "keys_s"),
    ],
)
def test_a_plan_that_does_not_fit_is_refused_at_the_start(text: str, complaint: str) -> None:
    with pytest.raises(ValueError, match=complaint) as refusal:
        world(assist=text)
    assert "hush" not in str(refusal.value)


def test_a_plan_may_stand_in_a_file(tmp_path: Any) -> None:
    file = tmp_path / "assist.json"
    file.write_text(json.dumps({"noise_prologue": "from a file"}))
    w = service(assist=str(file))
    assert bytes.fromhex(ask(w)["noise"]["prologue_hex"]) == b"from a file"


def test_the_plan_that_the_docs_show_is_one() -> None:
    text = (Path(__file__).parents[2] / "docs" / "assist.md").read_text(encoding="utf-8")
    [shown] = re.findall(r"```json\n(\{\s+\"paths\".*?)```", text, flags=re.DOTALL)
    answer = ask(service(json.loads(shown.replace("<64 hex digits>", "ab" * 32))), {})
    assert [one["path_id"] for one in answer["transports"]] == ["relay", "reality", "wg"]
    assert len(answer["ice"]["servers"]) == 2
    assert answer["obfuscation"]["protocol_mimicry"]
