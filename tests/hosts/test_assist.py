"""Assist on both hosts; the guide's own client as it stands, against the real server."""

import json
import os
import socket
import subprocess
import sys
import textwrap
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import requests

from chalicelib.settings import Settings
from muster.felund import signing
from tests.support.gateway import Gateway
from tests.support.local import ROOT, Server, circle, running

PATH = "/api/p2p/assist"
TOKEN = "a-token-that-the-operator-gave-out"
PLAN = json.dumps(
    {
        "paths": [{"id": "relay", "address": "relay.example.org", "transport": "WebSocket"}],
        "ice_servers": [{"urls": ["turn:turn.example.org:3478"], "secret": "shared"}],
    }
)

# The Python client of the guide for this path, unchanged but for its indentation.
GUIDE = textwrap.dedent(
    '''
    import requests
    from typing import Optional, List, Dict, Any

    class P2pAssistClient:
        def __init__(self, server_url: str, token: str):
            self.server_url = server_url
            self.token = token

        def request_assist(
            self,
            peer_hint: Optional[str] = None,
            paths: Optional[List[Dict[str, Any]]] = None,
            prefer_reality: bool = False,
            fec: Optional[Dict[str, Any]] = None,
            min_paths: int = 2
        ) -> Dict[str, Any]:
            """Request P2P assistance from server."""

            payload = {
                "prefer_reality": prefer_reality,
                "min_paths": min_paths
            }

            if peer_hint:
                payload["peer_hint"] = peer_hint
            if paths:
                payload["paths"] = paths
            if fec:
                payload["fec"] = fec

            response = requests.post(
                f"{self.server_url}/api/p2p/assist",
                headers={
                    "Authorization": f"Bearer {self.token}",
                    "Content-Type": "application/json"
                },
                json=payload
            )

            response.raise_for_status()
            return response.json()
    '''
)
# How the guide uses it, with our server's name for its own.
EXAMPLE = textwrap.dedent(
    """
    client = P2pAssistClient(server_url, session_token)
    assist = client.request_assist(prefer_reality=False, min_paths=2)

    print(f"Primary path: {assist['multipath']['primary_path']}")
    print(f"Available transports: {len(assist['transports'])}")
    print(f"ICE username: {assist['ice']['username_fragment']}")
    """
)


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    directory = tmp_path_factory.mktemp("assist")
    with running(directory, assist_tokens=TOKEN, assist=PLAN) as made:
        yield made


def guide(base: str, token: str) -> Any:
    """The guide's client, made of its source."""
    names: dict[str, Any] = {"server_url": base, "session_token": token}
    exec(compile(GUIDE, "the guide", "exec"), names)  # noqa: S102
    return names


def test_the_guides_own_client_and_its_example_run_unchanged(
    server: Server, capsys: pytest.CaptureFixture[str]
) -> None:
    names = guide(server.base, TOKEN)
    exec(compile(EXAMPLE, "the guide's example", "exec"), names)  # noqa: S102
    assert capsys.readouterr().out.splitlines()[:2] == [
        "Primary path: relay",
        "Available transports: 1",
    ]


def test_the_guides_client_with_everything_it_can_say(server: Server) -> None:
    client = guide(server.base, TOKEN)["P2pAssistClient"](server.base, TOKEN)
    answer = client.request_assist(
        peer_hint="relay.commucat.tech",
        prefer_reality=True,
        min_paths=3,
        paths=[
            {
                "address": "commucat.tech",
                "port": 443,
                "server_name": "commucat.tech",
                "priority": 0,
                "reality_fingerprint": "a1b2c3d4" * 8,
                "reality_pem": "-----BEGIN CERTIFICATE-----\n...",
            },
            {"address": "backup.commucat.tech", "port": 443, "priority": 1},
        ],
        fec={"mtu": 1200, "repair_overhead": 0.4},
    )
    assert [one["path_id"] for one in answer["transports"]] == ["path-1", "path-2"]
    assert answer["multipath"]["fec_overhead"] == 0.4


def test_the_guides_client_is_refused_in_the_guides_words(server: Server) -> None:
    client = guide(server.base, "wrong")["P2pAssistClient"](server.base, "wrong")
    with pytest.raises(requests.HTTPError) as refusal:
        client.request_assist()
    response = refusal.value.response
    assert response is not None
    assert response.status_code == 401
    assert response.headers["content-type"] == "application/problem+json"
    assert response.headers["www-authenticate"] == "Bearer"
    said = response.json()
    assert (said["type"], said["title"], said["status"]) == ("about:blank", "Unauthorized", 401)


BAD_BODIES = (b"", b"{", b"[]", b'{"paths":7}', b" ", b"\xff", b"x" * 70_000)


@pytest.mark.parametrize("body", BAD_BODIES, ids=lambda body: str(body[:12]))
def test_a_bad_token_is_said_before_a_bad_body(server: Server, body: bytes) -> None:
    for headers in ({}, {"Authorization": "Bearer wrong"}):
        answer = server.call("POST", PATH, body, headers)
        assert (answer.status, answer.json()["title"]) == (401, "Unauthorized")
    answer = server.call("POST", PATH, body, {"Authorization": f"Bearer {TOKEN}"})
    assert answer.status == (413 if len(body) > 65_536 else 400 if body else 200)


def test_a_member_gets_in_by_a_signed_call(server: Server) -> None:
    [ann] = circle(server, "ann")
    opened = ann.ask("POST", "/v1/session", {"node_id": ann.node_id, "circle_hint": ann.hint})
    bearer = {"Authorization": f"Bearer {opened['token']}"}
    for method in ("GET", "POST"):
        assert server.call(method, PATH, headers=bearer).status == 200
    answer = server.call("POST", PATH, b"{}", bearer).json()
    assert answer["transports"][0]["path_id"] == "relay"
    assert answer["ice"]["servers"][0]["credential"]
    assert answer["security"]["active_connections"] == 0


def test_counters_outlive_kill_9(tmp_path: Path) -> None:
    counted = []
    for _ in range(2):
        with running(tmp_path, assist_open="allow") as server:
            for _ in range(3):
                counted.append(server.call("GET", PATH).json()["security"]["multipath_sessions"])
            server.process.kill()
            server.process.wait(timeout=15)
    assert counted == [1, 2, 3, 4, 5, 6]


def test_a_body_of_ten_megabytes_is_a_problem(server: Server) -> None:
    answer = server.call("POST", PATH, b" " * 10_000_000, {"Authorization": f"Bearer {TOKEN}"})
    assert (answer.status, answer.json()["title"]) == (413, "Content Too Large")
    assert answer.headers["content-type"] == "application/problem+json"


def test_wrong_methods_and_too_many_calls_are_problems(tmp_path: Path) -> None:
    with running(tmp_path, assist_open="allow", address_burst="3", address_per_s="1") as server:
        assert server.call("PUT", PATH).json()["title"] == "Method Not Allowed"
        answers = [server.call("GET", PATH) for _ in range(6)]
    limited = answers[-1]
    assert (limited.status, limited.json()["title"]) == (429, "Rate Limited")
    assert limited.json()["retry_after_seconds"] == int(limited.headers["retry-after"])


def test_a_probe_of_an_inward_path_reaches_nobody_and_holds_nobody_up(tmp_path: Path) -> None:
    """The real server, its real rules: a careless operator lists loopback itself."""
    with socket.create_server(("127.0.0.1", 0)) as listening:
        listening.settimeout(0.5)
        port = listening.getsockname()[1]
        paths = [
            {"id": name, "address": name, "port": port, "transport": "WebSocket"}
            for name in ("127.0.0.1", "localhost", "::1", "2130706433", "0")
        ]
        with running(tmp_path, assist_open="allow", assist=json.dumps({"paths": paths})) as server:
            answer = server.call("POST", PATH, b"{}").json()
        with pytest.raises(TimeoutError):
            listening.accept()
    methods = {one["network_quality"]["probe_method"] for one in answer["transports"]}
    assert methods == {"none"}


@pytest.mark.parametrize("text", ["{", '{"routes":[]}', "/no/such/file"])
def test_a_plan_that_does_not_fit_keeps_the_server_from_starting(tmp_path: Path, text: str) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "chalicelib.local", "--port=0", f"--data={tmp_path}"],
        cwd=ROOT,
        env=os.environ | {"MUSTER_ASSIST": text},
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )
    assert done.returncode == 1
    assert done.stderr.startswith("muster: MUSTER_ASSIST")
    assert len(done.stderr.splitlines()) == 1


# --- AWS --------------------------------------------------------------------------------


@pytest.fixture
def settings() -> dict[str, str]:
    return {"MUSTER_ASSIST_TOKENS": TOKEN, "MUSTER_ASSIST": PLAN}


def test_the_aws_host_answers_alike_on_every_engine(gateway: Gateway) -> None:
    bearer = [("Authorization", f"Bearer {TOKEN}")]
    answers = [
        gateway.call("POST", PATH, body=b"{}", headers=bearer),
        gateway.call("GET", PATH, headers=bearer),
        gateway.call("POST", PATH, headers=bearer),
    ]
    for number, answer in enumerate(answers, 1):
        assert answer.status == 200, answer.body
        said = answer.json()
        assert said["transports"][0]["path_id"] == "relay"
        assert said["security"]["multipath_sessions"] == number
        assert "active_connections" not in said["security"], "one of many does not know"
    keys = {answer.json()["pq"]["kem_public_hex"] for answer in answers}
    assert len(keys) == 1
    refused = gateway.call("POST", PATH, body=b"{}")
    assert (refused.status, refused.json()["title"]) == (401, "Unauthorized")
    assert refused.headers["content-type"] == "application/problem+json"


def test_a_bad_token_is_said_before_a_bad_body_on_aws_too(gateway: Gateway) -> None:
    for body in BAD_BODIES:
        for headers in ([], [("Authorization", "Bearer wrong")]):
            answer = gateway.call("POST", PATH, body=body, headers=headers)
            assert (answer.status, answer.json()["title"]) == (401, "Unauthorized"), body[:12]


def test_another_machine_tells_the_same_keys(gateway: Gateway) -> None:
    bearer = [("Authorization", f"Bearer {TOKEN}")]
    first = gateway.call("GET", PATH, headers=bearer).json()
    other = gateway.start()
    second = gateway.call("GET", PATH, headers=bearer, machine=other).json()
    assert first["pq"]["key_id"] == second["pq"]["key_id"]
    assert first["pq"]["identity_public_hex"] == second["pq"]["identity_public_hex"]


def test_a_member_gets_a_token_on_aws(gateway: Gateway) -> None:
    key = signing.request_key(bytes(range(32)))
    members = {"node_id": "ann-0001", "circle_hint": "0123456789abcdef", "signing_key": key.hex()}
    body = json.dumps(members).encode()
    headers = signing.headers(
        key,
        "POST",
        "/session",
        body,
        node_id="ann-0001",
        now=int(time.time()),
        nonce=os.urandom(16),
    )
    opened = gateway.call("POST", "/v1/session", body=body, headers=list(headers.items()))
    assert opened.status == 200, opened.body
    bearer = [("Authorization", f"Bearer {opened.json()['token']}")]
    assert gateway.call("POST", PATH, body=b"{}", headers=bearer).status == 200


def test_every_setting_of_assist_is_read_from_the_environment() -> None:
    chosen = Settings.from_environment(
        {
            "MUSTER_ASSIST": PLAN,
            "MUSTER_ASSIST_TOKENS": "a, b",
            "MUSTER_ASSIST_OPEN": "allow",
            "MUSTER_ASSIST_BODY_BYTES": "4096",
        }
    )
    assert chosen.assist_tokens == ("a", "b")
    assert (chosen.assist_open, chosen.assist_body_bytes) == ("allow", 4096)
