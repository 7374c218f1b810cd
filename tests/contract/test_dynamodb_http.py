"""Our own small client of DynamoDB: signatures as AWS's, connections kept, answers whole."""

import json
import socket
import subprocess
import sys
import threading
import zlib
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest
from botocore.auth import SigV4Auth
from botocore.awsrequest import AWSRequest
from botocore.credentials import Credentials as BotoCredentials

from chalicelib.store import Unavailable
from chalicelib.store.dynamodb_http import Credentials, DynamoError, SignedClient, from_environment
from chalicelib.store.dynamodb_http import sign as signed_headers

ON_LAMBDA = {
    "AWS_REGION": "eu-central-1",
    "AWS_ACCESS_KEY_ID": "ASIA",
    "AWS_SECRET_ACCESS_KEY": "secret",
    "AWS_SESSION_TOKEN": "token",
}


class Place(ThreadingHTTPServer):
    """Answers one thing to everybody, and counts connections."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.url = f"http://127.0.0.1:{self.server_address[1]}"
        self.answer: tuple[int, bytes, dict[str, str]] = (200, b"{}", {})
        self.asked: list[tuple[dict[str, str], Any]] = []
        self.connections = 0

    def client(self, *, attempts: int = 2, **more: str) -> SignedClient:
        who = Credentials("ASIA", "secret", **more)
        return SignedClient(self.url, "eu-central-1", who, attempts=attempts, pause=self.pause)

    def pause(self, seconds: float) -> None:
        assert 0 <= seconds <= 1


class _Handler(BaseHTTPRequestHandler):
    server: Place
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True

    def setup(self) -> None:
        self.server.connections += 1
        super().setup()

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        self.server.asked.append((dict(self.headers), json.loads(body)))
        status, content, headers = self.server.answer
        self.send_response(status)
        for name, text in headers.items():
            self.send_header(name, text)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)
        self.close_connection = "close" in headers.values()

    def log_message(self, format: str, *args: object) -> None:
        pass


@pytest.fixture
def place() -> Iterator[Place]:
    with Place() as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        yield server
        server.shutdown()
        thread.join()


@pytest.mark.parametrize("token", ["", "a session token"])
def test_a_signature_is_what_botocore_signs(token: str) -> None:
    headers = {
        "Content-Type": "application/x-amz-json-1.0",
        "Host": "dynamodb.eu-central-1.amazonaws.com",
        "X-Amz-Date": "20260131T120000Z",
        "X-Amz-Target": "DynamoDB_20120810.GetItem",
    }
    body = '{"TableName":"mail","Key":{"pk":{"S":"é"}}}'.encode()
    ours = signed_headers(
        Credentials("AKIA", "secret", token),
        headers,
        body,
        region="eu-central-1",
        service="dynamodb",
    )
    request = AWSRequest("POST", f"https://{headers['Host']}/", headers=headers, data=body)
    request.context["timestamp"] = headers["X-Amz-Date"]
    if token:
        request.headers["X-Amz-Security-Token"] = token
    oracle = SigV4Auth(BotoCredentials("AKIA", "secret", token), "dynamodb", "eu-central-1")
    canonical = oracle.canonical_request(request)
    text = oracle.string_to_sign(request, canonical)

    assert ours["Authorization"].endswith(f"Signature={oracle.signature(text, request)}")
    assert ours.get("X-Amz-Security-Token", "") == token


def test_a_connection_is_kept(place: Place) -> None:
    client = place.client()
    for _ in range(3):
        client.get_item(TableName="mail")

    assert place.connections == 1
    assert [asked for _, asked in place.asked] == [{"TableName": "mail"}] * 3


def test_a_connection_that_the_other_side_ended_is_not_used_again(place: Place) -> None:
    """No attempt is lost to it: with one attempt the second call still succeeds."""
    client = place.client(attempts=1)
    place.answer = (200, b"{}", {"Connection": "close"})
    client.get_item(TableName="mail")
    place.answer = (200, b"{}", {})
    client.get_item(TableName="mail")

    assert place.connections == 2


def test_a_connection_that_went_while_it_was_idle_is_noticed(place: Place) -> None:
    client = place.client(attempts=1)
    client.get_item(TableName="mail")
    (idle,) = client._idle
    idle.sock.shutdown(socket.SHUT_RD)  # what a hang-up of the other side looks like here
    client.get_item(TableName="mail")

    assert place.connections == 2


def test_threads_have_connections_of_their_own(place: Place) -> None:
    client = place.client()
    threads = [threading.Thread(target=client.query, kwargs={"n": n}) for n in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert sorted(asked["n"] for _, asked in place.asked) == list(range(8))


def test_bytes_go_and_come_as_bytes(place: Place) -> None:
    place.answer = (200, b'{"Item":{"body":{"B":"/wA="}}}', {})

    assert place.client().put_item(Item={"body": {"B": b"\xff\0"}}) == {
        "Item": {"body": {"B": b"\xff\0"}}
    }
    assert place.asked[0][1] == {"Item": {"body": {"B": "/wA="}}}


def test_what_is_no_bytes_is_not_made_up(place: Place) -> None:
    with pytest.raises(TypeError, match="set"):
        place.client().put_item(Item={"body": {"B": {1}}})


def test_an_answer_that_its_checksum_does_not_fit_is_asked_for_again(place: Place) -> None:
    place.answer = (200, b"{}", {"x-amz-crc32": "1"})
    with pytest.raises(Unavailable):
        place.client(attempts=2).get_item(TableName="mail")

    assert len(place.asked) == 2
    place.answer = (200, b"{}", {"x-amz-crc32": str(zlib.crc32(b"{}"))})
    assert place.client().get_item(TableName="mail") == {}


@pytest.mark.parametrize("body", [b"", b"<html>", b"[]", b'{"message": "no"}', b'{"__type": 7}'])
def test_an_error_that_says_nothing_is_called_by_its_status(place: Place, body: bytes) -> None:
    place.answer = (403, body, {})
    with pytest.raises(DynamoError, match="403"):
        place.client().get_item(TableName="mail")

    assert len(place.asked) == 1


def test_a_session_token_is_sent_and_signed(place: Place) -> None:
    place.client(token="a token").get_item(TableName="mail")
    headers, _ = place.asked[0]

    assert headers["X-Amz-Security-Token"] == "a token"
    assert "x-amz-security-token" in headers["Authorization"]


def test_lambda_s_environment_is_enough() -> None:
    client = from_environment(ON_LAMBDA)

    assert client is not None
    assert client._host == "dynamodb.eu-central-1.amazonaws.com"


@pytest.mark.parametrize(
    ("environment", "host"),
    [
        ({"AWS_REGION": "cn-north-1"}, "dynamodb.cn-north-1.amazonaws.com.cn"),
        ({"AWS_ENDPOINT_URL": "http://127.0.0.1:1"}, "127.0.0.1:1"),
        ({"AWS_ENDPOINT_URL_DYNAMODB": "http://127.0.0.1:2"}, "127.0.0.1:2"),
    ],
)
def test_a_place_may_be_named(environment: dict[str, str], host: str) -> None:
    client = from_environment(ON_LAMBDA | environment)

    assert client is not None
    assert client._host == host


@pytest.mark.parametrize(
    "environment",
    [
        {"AWS_ACCESS_KEY_ID": ""},
        {"AWS_SECRET_ACCESS_KEY": ""},
        {"AWS_REGION": ""},
        {"AWS_PROFILE": "work"},
        {"HTTPS_PROXY": "http://proxy:3128"},
        {"AWS_USE_FIPS_ENDPOINT": "true"},
    ],
)
def test_what_only_botocore_understands_is_left_to_it(environment: dict[str, str]) -> None:
    assert from_environment(ON_LAMBDA | environment) is None


def test_the_names_of_others_are_checked_over_tls() -> None:
    client = from_environment(ON_LAMBDA)
    assert client is not None
    trust = client._trust()

    assert trust.check_hostname
    assert trust.verify_mode.name == "CERT_REQUIRED"
    assert client._trust() is trust


def test_a_cold_start_takes_no_sdk() -> None:
    code = (
        "import sys, app, chalicelib.store.dynamodb, chalicelib.store.dynamodb_http as d; "
        "d.from_environment({}); sys.exit('botocore' in sys.modules)"
    )

    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
