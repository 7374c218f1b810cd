"""The one-machine host on real sockets: HTTP and WebSocket on one port."""

import asyncio
import dataclasses
import json
import re
import signal
import socket
import sqlite3
import stat
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, closing, suppress
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import httpx2
import pytest
from prometheus_client.parser import text_string_to_metric_families
from websockets.exceptions import ConnectionClosed, InvalidStatus
from websockets.sync.client import ClientConnection

from chalicelib.local import main
from chalicelib.local.main import elsewhere
from chalicelib.local.websockets import WebSocket
from chalicelib.routes import ROUTES
from chalicelib.settings import Settings
from chalicelib.store import Stores
from chalicelib.store.sqlite import open_sqlite
from tests.support.certificate import Authority
from tests.support.local import (
    ROOT,
    Answer,
    Server,
    Wire,
    barrier,
    circle,
    request,
    running,
    running_with_tls,
    start,
)

HINT = "0123456789abcdef"


@pytest.fixture(scope="module", params=["plain", "tls"])
def server(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Server]:
    """A server, as it speaks in clear and as it speaks TLS itself."""
    folder = tmp_path_factory.mktemp("server")
    if request.param == "plain":
        starting = running(folder, "--unsigned=allow")
    else:
        authority = Authority(tmp_path_factory.mktemp("authority"))
        starting = running_with_tls(folder, authority, "--unsigned=allow")
    with starting as made:
        yield made
        assert made.stop() == 0
        assert made.errors() == ""


def refused(answer: Answer, status: int, code: str) -> None:
    """Check that an answer is a refusal in the one form there is."""
    assert answer.status == status, answer
    assert answer.headers["content-type"] == "application/json"
    assert answer.headers["access-control-allow-origin"] == "*"
    assert re.fullmatch(r"[0-9a-f]{16}", answer.headers["x-request-id"])
    found = answer.json()
    assert set(found) == {"ok", "code", "message", "retryable", "detail"}
    assert (found["ok"], found["code"]) == (False, code)


def closing_code(websocket: ClientConnection) -> int | None:
    """Read to the end and return the code it ended with."""
    with suppress(ConnectionClosed):
        while True:
            websocket.recv(timeout=10)
    return websocket.close_code


def websocket(server: Server, place: str) -> str:
    return f"{'wss' if server.trust else 'ws'}://{place}/v1/relay/ws"


def alive(server: Server) -> bool:
    return server.call("GET", "/v1/health").status == 200


# --- HTTP ---------------------------------------------------------------------------


@pytest.mark.parametrize("route", ROUTES, ids=lambda route: f"{route.method} {route.path}")
def test_every_route_of_the_table_answers_and_says_how_long_it_is(
    server: Server, route: Any
) -> None:
    answer = server.call(route.method, route.path, b"{}" if route.method != "GET" else b"")

    assert answer.status in (200, 400, 401)
    assert answer.headers["content-length"] == str(len(answer.body))
    assert answer.headers["access-control-allow-origin"] == "*"
    assert "content-encoding" not in answer.headers
    assert isinstance(answer.json()["ok"], bool)


def test_a_head_is_answered_like_a_get_without_its_body(server: Server) -> None:
    with closing(server.open()) as wire:
        answer = wire.call("HEAD", "/v1/health")
        assert answer.status == 200
        assert int(answer.headers["content-length"]) > 0
        assert wire.call("GET", "/v1/health").status == 200


@pytest.mark.parametrize("path", ["/v1/register", "/", "/nowhere"])
def test_a_preflight_is_answered_anywhere(server: Server, path: str) -> None:
    answer = server.call("OPTIONS", path, headers={"Origin": "https://chat.test"})

    assert (answer.status, answer.body) == (204, b"")
    assert "content-length" not in answer.headers
    assert answer.headers["access-control-max-age"] == "7200"


def test_unknown_paths_and_methods_are_refused_in_our_form(server: Server) -> None:
    refused(server.call("GET", "/v1/health/"), 404, "NOT_FOUND")
    plain = server.call("GET", "/v1/relay/ws")
    refused(plain, 400, "INVALID_REQUEST")
    assert "open a WebSocket here" in plain.json()["message"]
    refused(server.call("PUT", "/v1/register"), 405, "METHOD_NOT_ALLOWED")
    refused(server.call("POST", "/"), 405, "METHOD_NOT_ALLOWED")
    refused(server.call("TRACE", "/v1/health"), 405, "METHOD_NOT_ALLOWED")


def test_a_connection_takes_call_after_call_and_several_at_once(server: Server) -> None:
    with closing(server.open()) as wire:
        wire.send(request("GET", "/v1/health") * 3)
        assert [wire.answer().status for _ in range(3)] == [200, 200, 200]
        refused(wire.call("GET", "/nowhere"), 404, "NOT_FOUND")
        assert wire.call("GET", "/v1/health").status == 200


def test_http_1_0_without_a_host_is_answered_and_closed(server: Server) -> None:
    with closing(server.open()) as wire:
        wire.send(b"GET /v1/info HTTP/1.0\r\n\r\n")
        answer = wire.answer()
        assert answer.json()["websocket"] == websocket(server, f"127.0.0.1:{server.port}")
        assert wire.ended()


@pytest.mark.parametrize(
    "target",
    [
        "/v1/peers?circle_hint=%zz345678",
        "/v1/peers?circle_hint=%ff%fe345678",
        "/v1/peers?circle_hint=abc%00defgh",
        "/v1/peers?circle_hint=" + "x" * 4000,
        "/v1/peers?" + "&".join(f"a{n}=1" for n in range(100)),
        "/v1/messages?circle_hint=" + HINT + "&since=9e99",
        "/v1/peers?" + "y" * 9000,
        "/v1/peers?" + "y" * 200_000,
    ],
)
def test_odd_urls_are_refused(server: Server, target: str) -> None:
    refused(server.call("GET", target), 400, "INVALID_REQUEST")


@pytest.mark.parametrize("path", ["/%00", "/%ff", "/v1/%zz", "/../../etc/passwd", "//", "/%2e%2e"])
def test_odd_paths_are_not_found(server: Server, path: str) -> None:
    refused(server.call("GET", path), 404, "NOT_FOUND")


@pytest.mark.parametrize(
    "head",
    [
        b"GET\r\n\r\n",
        b"GET /v1/health HTTP/1.1\r\nHost: a\r\nno colon\r\n\r\n",
        b"GET /v1/health HTTP/1.1\r\nHost: a\x00b\r\n\r\n",
        b"GET /v1/health HTTP/1.1\r\n\r\n",
        b"GET /v1/health HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n",
        b"GET /v1/health HTTP/1.1\r\nHost: a\r\nContent-Length: -1\r\n\r\n",
        b"GET /v1/health HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n",
        b"POST /v1/register HTTP/1.1\r\nHost: a\r\nContent-Length: 99999999999999999999999\r\n\r\n",
        b"POST /v1/register HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\n"
        b"Transfer-Encoding: chunked\r\n\r\n",
        b"POST /v1/register HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
        b"CONNECT muster.test:443 HTTP/1.1\r\nHost: a\r\n\r\n",
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
        b"GET /v1/health HTTP/1.1\r\nHost: a\r\n" + b"A: b\r\n" * 101 + b"\r\n",
        b"GET /v1/health HTTP/1.1\r\nHost: a\r\nA: " + b"b" * 40_000 + b"\r\n\r\n",
    ],
)
def test_what_is_no_request_is_refused_in_our_form_and_closed(server: Server, head: bytes) -> None:
    with closing(server.open()) as wire:
        wire.send(head)
        refused(wire.answer(), 400, "INVALID_REQUEST")
        assert wire.ended()


def test_a_head_that_does_not_end_is_refused(server: Server) -> None:
    with closing(server.open()) as wire:
        wire.send(b"GET /v1/health HTTP/1.1\r\n")
        for _ in range(5):
            wire.send(b"X-Long: " + b"x" * 8000 + b"\r\n")
        refused(wire.answer(), 400, "INVALID_REQUEST")


def test_repeated_headers_are_joined_so_that_none_is_picked(server: Server) -> None:
    with closing(server.open()) as wire:
        twice = b"X-Felund-Node: node-00001\r\nX-Felund-Node: node-00002\r\nX-Felund-Ts: 1\r\n"
        wire.send(b"GET /v1/peers?circle_hint=" + HINT.encode() + b" HTTP/1.1\r\nHost: a\r\n")
        wire.send(twice + b"\r\n")
        refused(wire.answer(), 401, "INVALID_SIGNATURE")


def test_an_upgrade_to_something_else_is_ignored(server: Server) -> None:
    headers = {"Connection": "Upgrade, HTTP2-Settings", "Upgrade": "h2c", "HTTP2-Settings": "AA"}
    assert server.call("GET", "/v1/health", headers=headers).status == 200


# --- bodies ---------------------------------------------------------------------------


def test_a_body_over_the_bound_is_refused_before_it_is_read(server: Server) -> None:
    with closing(server.open()) as wire:
        wire.send(b"POST /v1/register HTTP/1.1\r\nHost: a\r\nContent-Length: 1048577\r\n\r\n")
        refused(wire.answer(), 413, "PAYLOAD_TOO_LARGE")


def test_whoever_sends_all_of_a_large_body_still_reads_the_refusal(server: Server) -> None:
    with closing(server.open()) as wire:
        refused(wire.call("POST", "/v1/register", b"x" * 3_000_000), 413, "PAYLOAD_TOO_LARGE")
        assert wire.call("GET", "/v1/health").status == 200


def test_a_body_in_chunks_is_refused_when_it_passes_the_bound(server: Server) -> None:
    with closing(server.open()) as wire:
        wire.send(b"POST /v1/register HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n")
        for _ in range(17):
            wire.send(b"10000\r\n" + b"x" * 0x10000 + b"\r\n")
        refused(wire.answer(), 413, "PAYLOAD_TOO_LARGE")


def test_whoever_asks_first_is_not_told_to_send_too_much(server: Server) -> None:
    with closing(server.open()) as wire:
        expecting = {"Expect": "100-continue", "Content-Length": "5000000"}
        wire.send(request("POST", "/v1/register", headers=expecting))
        answer = wire.answer()
        refused(answer, 413, "PAYLOAD_TOO_LARGE")
        assert answer.headers["connection"] == "close"
        assert wire.ended()
    with closing(server.open()) as wire:
        expecting["Content-Length"] = "2"
        wire.send(request("POST", "/v1/register", headers=expecting))
        assert wire.answer().status == 100
        wire.send(b"{}")
        refused(wire.answer(), 400, "INVALID_REQUEST")


def test_a_body_of_exactly_the_bound_is_read(server: Server) -> None:
    body = json.dumps({"circle_hint": HINT, "messages": []}).encode()
    answer = server.call("POST", "/v1/messages", body.ljust(1024 * 1024))

    assert (answer.status, answer.json()["stored"]) == (200, 0)


def test_slow_heads_and_bodies_are_given_up_and_silence_too(tmp_path: Path) -> None:
    with running(tmp_path, "--unsigned=allow", head_s="1", body_s="1") as server:
        with closing(server.open()) as silent, closing(server.open()) as slow_head:
            slow_head.send(b"GET /v1/hea")
            with closing(server.open()) as slow_body:
                slow_body.send(
                    b"POST /v1/register HTTP/1.1\r\nHost: a\r\nContent-Length: 10\r\n\r\n{"
                )
                refused(slow_body.answer(), 400, "INVALID_REQUEST")
                assert slow_body.ended()
            refused(slow_head.answer(), 400, "INVALID_REQUEST")
            assert silent.ended()
        assert alive(server)


def test_a_caller_that_goes_in_the_middle_of_its_body_leaves_nothing(server: Server) -> None:
    with closing(server.open()) as wire:
        wire.send(b"POST /v1/register HTTP/1.1\r\nHost: a\r\nContent-Length: 10\r\n\r\n{")
    assert alive(server)


def test_large_bodies_of_all_callers_together_are_bounded(tmp_path: Path) -> None:
    with running(tmp_path, "--unsigned=allow", waiting_body_bytes="200000") as server:
        with closing(server.open()) as wire:
            wire.send(b"POST /v1/register HTTP/1.1\r\nHost: a\r\nContent-Length: 300000\r\n\r\n")
            wire.send(b"x" * 250_000)
            refused(wire.answer(), 503, "UNAVAILABLE")
        assert alive(server)


CHUNKED = "POST {} HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n{}\r\n"


def chunked(body: bytes, *, path: str = "/v1/register", headers: str = "") -> bytes:
    """Write a request in chunks, up to where trailers may stand."""
    head = CHUNKED.format(path, headers).encode()
    return head + b"%x\r\n%b\r\n0\r\n" % (len(body), body)


@pytest.mark.parametrize(
    "endless",
    [
        b"2\r\n{}\r\n0\r\n" + b"A: b\r\n" * 200_000,
        b"2\r\n{}\r\n0\r\nA: " + b"b" * 1_000_000,
        b"2\r\n{}\r\n0\r\n" + b"A" * 1_000_000,
        b"2;" + b"a" * 1_000_000,
    ],
)
def test_what_does_not_end_beside_a_body_is_refused(server: Server, endless: bytes) -> None:
    before = server.rss_bytes()
    with closing(server.open()) as wire:
        wire.send(CHUNKED.format("/v1/register", "").encode())
        with suppress(OSError):  # it may end before all is sent
            for _ in range(10):
                wire.send(endless)
        with suppress(ConnectionError):
            refused(wire.answer(), 400, "INVALID_REQUEST")
        assert wire.ended()
    assert server.rss_bytes() - before < 4_000_000
    assert alive(server)


def test_trailers_after_an_early_answer_end_the_connection(server: Server) -> None:
    with closing(server.open()) as wire:
        wire.send(CHUNKED.format("/v1/register", "").encode())
        for _ in range(17):
            wire.send(b"10000\r\n" + b"x" * 0x10000 + b"\r\n")
        refused(wire.answer(), 413, "PAYLOAD_TOO_LARGE")
        with suppress(OSError):
            wire.send(b"0\r\n" + b"A: b\r\n" * 20_000)
        assert wire.ended()


def test_many_small_chunks_are_a_body_like_another(server: Server) -> None:
    body = json.dumps({"circle_hint": HINT, "messages": []}).encode().ljust(20_000)
    with closing(server.open()) as wire:
        wire.send(CHUNKED.format("/v1/messages", "").encode())
        wire.send(b"".join(b"1\r\n%c\r\n" % byte for byte in body) + b"0\r\n\r\n")
        assert wire.answer().status == 200
        assert wire.call("GET", "/v1/health").status == 200


# --- where calls come from ------------------------------------------------------------


def observed(server: Server, **headers: str) -> Any:
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    body = json.dumps({"node_id": "node-00001", "circle_hint": "f" * 16}).encode()
    return server.call("POST", "/v1/register", body, named).json()["observed_endpoint"]


def test_what_a_stranger_says_of_its_address_counts_for_nothing(server: Server) -> None:
    found = observed(server, X_Forwarded_For="198.51.100.7", X_Real_IP="198.51.100.7")
    assert found["host"] == "127.0.0.1"
    assert found["port"] > 0

    named = {"Host": "muster.test", "X-Forwarded-Proto": "https"}
    info = server.call("GET", "/v1/info", headers=named).json()
    assert info["websocket"] == websocket(server, "muster.test")


def test_a_trusted_proxy_is_believed_as_far_as_it_wrote_itself(tmp_path: Path) -> None:
    proxies = ("--trusted-proxy=127.0.0.0/8", "--trusted-proxy=10.0.0.0/8")
    with running(tmp_path, "--unsigned=allow", *proxies) as server:
        told = {
            "203.0.113.9": "203.0.113.9",
            "198.51.100.7, 203.0.113.9": "203.0.113.9",
            "198.51.100.7, 203.0.113.9, 10.1.2.3": "203.0.113.9",
            "forged, 203.0.113.9:4711": "203.0.113.9",
            "[2001:db8::7]:4711": "2001:db8::7",
            "::ffff:203.0.113.9": "203.0.113.9",
            "10.9.9.9": "10.9.9.9",
            "203.0.113.9, nonsense": "127.0.0.1",
            "": "127.0.0.1",
        }
        for header, address in told.items():
            assert observed(server, X_Forwarded_For=header)["host"] == address
        assert observed(server, X_Forwarded_For="203.0.113.9").get("port") is None

        named = {"Host": "muster.test", "X-Forwarded-Proto": "https"}
        info = server.call("GET", "/v1/info", headers=named).json()
        assert info["websocket"] == "wss://muster.test/v1/relay/ws"


def test_trailers_are_no_headers(tmp_path: Path) -> None:
    body = json.dumps({"node_id": "node-00001", "circle_hint": "f" * 16}).encode()
    trailers = b"X-Forwarded-For: 198.51.100.7\r\nX-Felund-Ts: 1\r\nExpect: 100-continue\r\n\r\n"
    proxy = "--trusted-proxy=127.0.0.0/8"
    with running(tmp_path, "--unsigned=allow", proxy) as server, closing(server.open()) as wire:
        headers = "X-Forwarded-For: 203.0.113.9\r\n"
        for pause in (False, True):
            wire.send(chunked(body, headers=headers))
            if pause:  # in another packet, while the call waits for its end
                assert alive(server)
            wire.send(trailers)
            answer = wire.answer()
            assert answer.status == 200, answer
            assert answer.json()["observed_endpoint"]["host"] == "203.0.113.9"


def test_a_host_header_that_is_none_does_not_get_into_urls(server: Server) -> None:
    for host in ("evil/../x", "a b", "<script>", "x" * 300, ""):
        info = server.call("GET", "/v1/info", headers={"Host": host}).json()
        assert info["websocket"] == websocket(server, f"127.0.0.1:{server.port}")


# --- WebSockets -----------------------------------------------------------------------


def test_a_message_is_pushed_to_who_listens_and_not_to_who_posted(server: Server) -> None:
    ann, bob = circle(server, "ann", "bob")
    with ann.subscribe() as hers, bob.subscribe() as his:
        ann.leave("message-0001")

        pushed = json.loads(his.recv(timeout=10))
        assert [message["msg_id"] for message in pushed["messages"]] == ["message-0001"]
        assert "MESSAGES" not in [frame["t"] for frame in barrier(hers)]


def test_a_socket_gets_what_came_just_before_it(server: Server) -> None:
    ann, bob = circle(server, "ann", "bob")
    ann.leave("message-0001")
    with bob.subscribe() as his:
        assert json.loads(his.recv(timeout=10))["messages"][0]["msg_id"] == "message-0001"


def test_frames_pass_both_ways_and_a_seat_that_empties_is_told(server: Server) -> None:
    ann, bob = circle(server, "ann", "bob")
    hers, session_id = ann.attach(bob)
    his, same = bob.attach(ann)
    assert same == session_id
    with hers, his:
        assert json.loads(hers.recv(timeout=10))["t"] == "ATTACHED"
        assert json.loads(his.recv(timeout=10))["t"] == "ATTACHED"
        frame = {"t": "FRAME", "session_id": session_id, "seq": 1, "payload_b64": "aGk="}
        hers.send(json.dumps(frame))
        assert json.loads(his.recv(timeout=10)) == frame | {"from": ann.node_id}
        ack = {"t": "ACK", "session_id": session_id, "seq": 1}
        assert json.loads(hers.recv(timeout=10)) == ack
        his.socket.close()  # without a word
        gone = {"t": "GONE", "session_id": session_id, "node_id": bob.node_id}
        assert json.loads(hers.recv(timeout=10)) == gone


def test_older_clients_subscribe_without_a_token_where_that_is_allowed(server: Server) -> None:
    with server.websocket(f"?circle_hint={HINT}&node_id=node-00001") as websocket:
        assert barrier(websocket) == []


def test_a_socket_is_found_however_its_path_is_escaped(server: Server) -> None:
    query = f"circle_hint={HINT}&node_id=node-00001"
    with closing(server.open()) as wire:
        wire.send(request("GET", f"/v1/%72elay/%77s?{query}", headers=UPGRADE | KEY))
        assert wire.answer().status == 101


def test_a_browser_names_its_token_as_a_subprotocol(server: Server) -> None:
    (ann,) = circle(server, "ann")
    with server.websocket(subprotocols=["muster.v1", ann.token()]) as websocket:
        assert websocket.subprotocol == "muster.v1"
        assert barrier(websocket) == []


@pytest.mark.parametrize(
    ("query", "status", "code"),
    [
        ("?token=forged", 401, "INVALID_TOKEN"),
        ("", 400, "INVALID_REQUEST"),
        ("?circle_hint=short&node_id=node-00001", 400, "INVALID_REQUEST"),
        ("?circle_hint=%ff", 400, "INVALID_REQUEST"),
        ("/else", 404, "NOT_FOUND"),
        ("%2felse", 404, "NOT_FOUND"),
    ],
)
def test_a_socket_is_refused_with_an_ordinary_answer(
    server: Server, query: str, status: int, code: str
) -> None:
    with pytest.raises(InvalidStatus) as refusal:
        server.websocket(query).close()
    response = refusal.value.response
    headers = {name.lower(): value for name, value in response.headers.raw_items()}
    refused(Answer(response.status_code, headers, bytes(response.body or b"")), status, code)


def test_sockets_are_only_for_tokens_where_unsigned_calls_are_refused(tmp_path: Path) -> None:
    with running(tmp_path) as server:
        with pytest.raises(InvalidStatus, match="401"):
            server.websocket(f"?circle_hint={HINT}&node_id=node-00001").close()
        refused(server.call("GET", f"/v1/messages?circle_hint={HINT}"), 401, "INVALID_SIGNATURE")


UPGRADE = {"Connection": "Upgrade", "Upgrade": "websocket", "Sec-WebSocket-Version": "13"}
KEY = {"Sec-WebSocket-Key": "dGhlIHNhbXBsZSBub25jZQ=="}


@pytest.mark.parametrize(
    ("method", "headers"),
    [
        ("GET", UPGRADE),
        ("GET", UPGRADE | {"Sec-WebSocket-Key": "c2hvcnQ="}),
        ("GET", UPGRADE | KEY | {"Sec-WebSocket-Version": "8"}),
        ("POST", UPGRADE | KEY),
        ("GET", UPGRADE | KEY | {"X-Long": "x" * 9000}),
    ],
)
def test_a_handshake_that_is_none_is_refused_in_our_form(
    server: Server, method: str, headers: dict[str, str]
) -> None:
    path = f"/v1/relay/ws?circle_hint={HINT}&node_id=node-00001"
    with closing(server.open()) as wire:
        refused(wire.call(method, path, headers=headers), 400, "INVALID_REQUEST")
        assert wire.ended()


@pytest.mark.parametrize(
    ("sent", "code"),
    [
        (b"binary", 1003),
        ("x" * (32 * 1024 + 1), 1009),
        ("é" * (16 * 1024 + 1), 1009),
        ("x" * 300_000, 1009),
        (["x" * 20_000, "x" * 20_000], 1009),
        ([b"bin", b"ary"], 1003),
    ],
)
def test_a_frame_of_the_wrong_kind_or_size_closes(server: Server, sent: Any, code: int) -> None:
    with server.websocket(f"?circle_hint={HINT}&node_id=node-00001") as websocket:
        with suppress(ConnectionClosed):  # it may be closed before all of it is sent
            websocket.send(sent)
        assert closing_code(websocket) == code
    assert alive(server)


def test_a_frame_of_the_largest_size_and_one_in_pieces_are_read(server: Server) -> None:
    (ann,) = circle(server, "ann")
    with ann.subscribe() as websocket:
        websocket.send("x" * (32 * 1024))
        assert json.loads(websocket.recv(timeout=10))["code"] == "INVALID_FRAME"
        websocket.send(['{"t":', '"PI', 'NG"}'])
        assert json.loads(websocket.recv(timeout=10)) == {"t": "PONG"}


def frames_of(wire: Wire, query: str) -> None:
    """Shake hands on a bare connection."""
    wire.send(request("GET", f"/v1/relay/ws{query}", headers=UPGRADE | KEY))
    assert wire.answer().status == 101


def masked(opcode: int, payload: bytes, *, fin: bool = True) -> bytes:
    """Write a client's frame, masked with zeros."""
    head = bytes([opcode | (0x80 if fin else 0)])
    if len(payload) < 126:
        return head + bytes([0x80 | len(payload)]) + bytes(4) + payload
    return head + b"\xfe" + len(payload).to_bytes(2, "big") + bytes(4) + payload


@pytest.mark.parametrize(
    ("data", "code"),
    [
        (masked(1, b"\xff\xfe"), 1007),
        (masked(3, b""), 1002),
        (masked(0, b"x"), 1002),
        (b"\x81\x02hi", 1002),
        (masked(9, b"x" * 126), 1002),
        (masked(1, b"a", fin=False) + masked(1, b"b"), 1002),
        (b"\x81\xff" + (2**40).to_bytes(8, "big") + bytes(4), 1009),
    ],
)
def test_broken_frames_close_with_the_code_of_the_rfc(
    server: Server, data: bytes, code: int
) -> None:
    with closing(server.open()) as wire:
        frames_of(wire, f"?circle_hint={HINT}&node_id=node-00001")
        wire.send(data)
        closed = wire.socket.recv(1024)
        assert closed[0] == 0x88
        assert int.from_bytes(closed[2:4], "big") == code
    assert alive(server)


def test_endless_empty_pieces_take_no_room(server: Server) -> None:
    with closing(server.open()) as wire:
        frames_of(wire, f"?circle_hint={HINT}&node_id=node-00001")
        wire.send(masked(1, b"", fin=False))
        before = server.rss_bytes()
        wire.send(masked(0, b"", fin=False) * 50_000)
        wire.send(masked(0, b'{"t":"PING"}'))
        assert wire.socket.recv(1024).endswith(b'{"t":"PONG"}')
        assert server.rss_bytes() - before < 4_000_000


def endless(wire: Wire, frame: bytes, *, most_bytes: int) -> int | None:
    """Send frames and read nothing until the other side has had enough; its close code."""
    burst = frame * (65_536 // len(frame))
    wire.socket.settimeout(2)
    with suppress(OSError):
        for _ in range(most_bytes // len(burst)):
            wire.send(burst)
    last = b""
    with suppress(OSError):
        while data := wire.socket.recv(1 << 20):
            last = (last + data)[-200:]
    at = last.rfind(b"\x88", 0, -3)
    return int.from_bytes(last[at + 2 : at + 4], "big") if at >= 0 else None


def test_pings_of_who_reads_nothing_are_no_way_to_take_room(server: Server) -> None:
    before = server.rss_bytes()
    with closing(server.open()) as wire:
        frames_of(wire, f"?circle_hint={HINT}&node_id=node-00001")
        code = endless(wire, masked(9, b"x" * 125), most_bytes=30_000_000)
        grown = server.rss_bytes() - before
        assert code in (1013, None)
    assert grown < 16_000_000
    assert alive(server)


@pytest.mark.parametrize(
    ("first", "each"),
    [
        (b"", masked(9, b"")),
        (b"", masked(10, b"x")),
        (masked(1, b"", fin=False), masked(0, b"", fin=False)),
    ],
    ids=["pings", "pongs", "pieces"],
)
def test_frames_of_every_kind_are_counted(tmp_path: Path, first: bytes, each: bytes) -> None:
    with running(tmp_path, "--unsigned=allow", frame_burst="100", frames_per_s="10") as server:
        with closing(server.open()) as wire:
            frames_of(wire, f"?circle_hint={HINT}&node_id=node-00001")
            wire.send(first + each * 80)
            wire.send(masked(9, b"still here"))
            last = b""
            while not last.endswith(b"still here"):
                last += wire.socket.recv(4096)
            wire.send(each * 100)
            while not last.endswith(b"too many frames"):
                data = wire.socket.recv(4096)
                assert data
                last += data
        assert alive(server)


def test_a_protocol_ping_is_answered_and_a_half_closed_socket_is_let_go(server: Server) -> None:
    with closing(server.open()) as wire:
        frames_of(wire, f"?circle_hint={HINT}&node_id=node-00001")
        wire.send(masked(9, b"hello"))
        assert wire.socket.recv(1024) == b"\x8a\x05hello"
        wire.socket.shutdown(socket.SHUT_WR)
        assert wire.ended()


def test_a_socket_that_floods_is_served_in_turns(server: Server) -> None:
    with closing(server.open()) as wire:
        frames_of(wire, f"?circle_hint={HINT}&node_id=node-00001")

        def flood() -> None:
            wire.send(masked(1, b'{"t":"PONG"}') * 50_000 + masked(1, b'{"t":"PING"}'))
            assert wire.socket.recv(1024).endswith(b'{"t":"PONG"}')

        thread = threading.Thread(target=flood)
        thread.start()
        between = 0
        while thread.is_alive():
            assert alive(server)
            between += 1
        thread.join()
        assert between > 5


def test_a_reader_that_does_not_read_is_closed_and_delays_nobody(server: Server) -> None:
    ann, bob, cat = circle(server, "ann", "bob", "cat")
    with closing(server.open()) as wire, cat.subscribe() as hers:
        frames_of(wire, f"?token={bob.token()}")
        size, posted = 100_000, 250
        for number in range(posted):
            ann.leave(f"message-{number:04}", text="x" * size)
            pushed = json.loads(hers.recv(timeout=10))
            assert pushed["messages"][0]["msg_id"] == f"message-{number:04}"
        received, last = 0, b""
        while not last.endswith(b"the reader is too slow"):
            data = wire.socket.recv(1 << 20)
            assert data
            received, last = received + len(data), (last + data)[-200:]
        assert received < posted * size
    assert len(bob.collect()) == posted


def test_silence_is_met_with_a_ping_and_age_with_a_close(tmp_path: Path) -> None:
    with running(tmp_path, silence_s="1", socket_s="3") as server:
        (ann,) = circle(server, "ann")
        with ann.subscribe() as websocket:
            assert json.loads(websocket.recv(timeout=10)) == {"t": "PING"}
            websocket.send('{"t":"PONG"}')
            assert closing_code(websocket) == 1001


def test_sockets_and_connections_are_bounded(tmp_path: Path) -> None:
    bounds = {"sockets": "3", "address_sockets": "2", "address_connections": "4"}
    with running(tmp_path, **bounds) as server:
        (ann,) = circle(server, "ann")
        queries = [f"?token={ann.token()}" for _ in range(3)]
        with server.websocket(queries[0]), server.websocket(queries[1]):
            with pytest.raises(InvalidStatus, match="429") as refusal:
                server.websocket(queries[2]).close()
            assert refusal.value.response.headers["Retry-After"] == "30"
        wires = [server.open() for _ in range(4)]
        for wire in wires:
            wire.call("GET", "/v1/health")
        with closing(server.open()) as fifth:
            refused(fifth.answer(), 429, "RATE_LIMITED")
        for wire in wires:
            wire.close()
        wait_for(lambda: ask_or_none(server) == 200)


def test_sockets_are_counted_by_network_and_preflights_as_calls(tmp_path: Path) -> None:
    bounds = {"address_sockets": "2", "address_burst": "9", "address_per_s": "1"}
    with running(tmp_path, "--unsigned=allow", "--trusted-proxy=127.0.0.1", **bounds) as server:

        def opened(address: str) -> int:
            way = f"?circle_hint={HINT}&node_id=node-00001"
            headers = {"X-Forwarded-For": address}
            try:
                sockets.enter_context(server.websocket(way, additional_headers=headers))
            except InvalidStatus as refusal:
                return refusal.response.status_code
            return 101

        with ExitStack() as sockets:
            found = [opened(f"2001:db8:1:2::{host}") for host in range(1, 5)]
            assert found == [101, 101, 429, 429]
            assert opened("2001:db8:1:3::1") == 101
        asked = {"X-Forwarded-For": "192.0.2.7"}
        statuses = [server.call("OPTIONS", "/peers", headers=asked).status for _ in range(12)]
        assert statuses[:9] == [204] * 9
        assert 429 in statuses[9:]


def ask_or_none(server: Server) -> int | None:
    try:
        return server.call("GET", "/v1/health").status
    except OSError:
        return None


def wait_for(fact: Any) -> None:
    """Wait until something holds."""
    end = time.monotonic() + 10
    while not fact():
        assert time.monotonic() < end
        time.sleep(0.01)


def test_connections_of_all_callers_together_are_bounded(tmp_path: Path) -> None:
    with running(tmp_path, connections="2") as server:
        with closing(server.open()) as first, closing(server.open()) as second:
            assert first.call("GET", "/v1/health").status == 200
            assert second.call("GET", "/v1/health").status == 200
            with closing(server.open()) as third:
                refused(third.answer(), 503, "UNAVAILABLE")
        wait_for(lambda: ask_or_none(server) == 200)


def test_an_idle_socket_costs_little_memory(
    server: Server, record_property: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    (ann,) = circle(server, "ann")
    query, count = f"?token={ann.token()}", 500
    wires: list[Wire] = []
    try:
        before = 0
        for number in range(count + 50):
            if number == 50:  # the first ones pay for what all share
                before = server.rss_bytes()
            wire = server.open()
            wires.append(wire)
            frames_of(wire, query)
        each = (server.rss_bytes() - before) // count
    finally:
        for wire in wires:
            wire.close()
    record_property("bytes_per_idle_socket", each)
    with capsys.disabled():
        print(f" [{each} bytes per idle socket] ", end="")
    # What handshakes that come one upon the other have let go of, later connections use.
    assert each < (32_000 if server.trust else 24_000)


# --- life and death -------------------------------------------------------------------


def test_it_says_where_it_listens_and_what_to_try(tmp_path: Path) -> None:
    with running(tmp_path, "--unsigned=allow") as server:
        assert f"listens on {server.base}\n" in server.greeting
        assert "unsigned  allow" in server.greeting
        assert str(tmp_path) in server.greeting
        assert f"doctor {server.base}" in server.greeting
        assert "others" not in server.greeting


def test_it_says_by_which_addresses_others_reach_it(tmp_path: Path) -> None:
    here = ["192.0.2.7", "2001:db8::7"]
    base = "http://127.0.0.1:8787"
    assert elsewhere("0.0.0.0", base, here=here) == ["http://192.0.2.7:8787"]  # noqa: S104
    assert elsewhere("::", base, here=here) == [
        *("http://192.0.2.7:8787", "http://[2001:db8::7]:8787")
    ]
    assert elsewhere("localhost", base, here=()) == []
    assert elsewhere("192.0.2.7", "http://192.0.2.7:1", here=()) == ["http://192.0.2.7:1"]
    with running(tmp_path, "--host=0.0.0.0") as server:
        assert "reach the app only by https: --tls-cert" in server.greeting


@pytest.mark.parametrize("how", [signal.SIGTERM, signal.SIGINT])
def test_it_stops_in_good_order_and_goes_on_where_it_was(
    tmp_path: Path, how: signal.Signals
) -> None:
    with running(tmp_path) as server:
        (ann,) = circle(server, "ann")
        ann.leave("message-0001")
        with closing(server.open()) as idle, ann.subscribe() as websocket:
            idle.call("GET", "/v1/health")
            assert server.stop(how) == 0
            assert closing_code(websocket) == 1001
            assert idle.ended()
        assert server.errors() == ""
        assert not list(tmp_path.glob("*-wal")), "the write-ahead log is folded in"
    with running(tmp_path) as again:
        ann.server = again
        assert ann.collect() == ["message-0001"]


def test_a_call_under_way_is_finished_before_it_stops(tmp_path: Path) -> None:
    with running(tmp_path, "--unsigned=allow") as server, closing(server.open()) as wire:
        waiting = {"Expect": "100-continue", "Content-Length": "2"}
        wire.send(request("POST", "/v1/register", headers=waiting))
        assert wire.answer().status == 100
        server.process.send_signal(signal.SIGTERM)
        wait_for(lambda: ask_or_none(server) is None)
        wire.send(b"{}")
        refused(wire.answer(), 400, "INVALID_REQUEST")
        assert server.process.wait(timeout=15) == 0


def test_what_was_acknowledged_survives_kill_9(tmp_path: Path) -> None:
    server = start(tmp_path)
    (ann,) = circle(server, "ann")
    kept: list[str] = []

    def post() -> None:
        for number in range(1000):
            try:
                ann.leave(f"message-{number:04}")
            except OSError:
                return
            kept.append(f"message-{number:04}")

    poster = threading.Thread(target=post)
    poster.start()
    wait_for(lambda: len(kept) >= 300)
    assert server.stop(signal.SIGKILL) == -signal.SIGKILL
    poster.join()
    for pipe in (server.process.stdout, server.process.stderr):
        assert pipe is not None
        pipe.close()
    assert 300 <= len(kept) < 1000

    with running(tmp_path) as again:
        ann.server = again
        found = ann.collect()
        assert len(found) == len(set(found)), "none twice"
        assert found[: len(kept)] == kept
        assert len(found) <= len(kept) + 1, "at most the one that was under way"
        assert ann.leave(*kept[-20:])["stored"] == 0


def test_sockets_of_a_killed_server_are_forgotten_when_somebody_speaks(tmp_path: Path) -> None:
    server = start(tmp_path)
    ann, bob = circle(server, "ann", "bob")
    with bob.subscribe():
        server.stop(signal.SIGKILL)
    for pipe in (server.process.stdout, server.process.stderr):
        assert pipe is not None
        pipe.close()
    with running(tmp_path) as again:
        ann.server = bob.server = again
        with bob.subscribe() as his:
            ann.leave("message-0001")
            assert json.loads(his.recv(timeout=10))["messages"][0]["msg_id"] == "message-0001"
        stored = again.call("GET", "/status.json").json()["stored"]
        assert stored["subscriptions"] <= 1


def run(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "chalicelib.local", *arguments]
    return subprocess.run(
        command, cwd=ROOT, capture_output=True, text=True, timeout=30, check=False
    )


def test_it_says_plainly_why_it_cannot_start(server: Server, tmp_path: Path) -> None:
    taken = run(f"--port={server.port}", f"--data={tmp_path}")
    assert taken.returncode == 1
    assert taken.stderr.startswith(f"muster: cannot listen on 127.0.0.1 port {server.port}: ")

    second = run("--port=0", f"--data={server.directory}")
    assert second.returncode == 1
    assert second.stderr == f"muster: another muster is serving from {server.directory}\n"

    assert run("--port=0", f"--data={tmp_path}", "--trusted-proxy=nonsense").returncode == 1
    file = tmp_path / "file"
    file.touch()
    for path in (file, Path("/dev/null")):
        no_folder = run("--port=0", f"--data={path}")
        assert no_folder.returncode == 1
        assert "it is a file, not a folder" in no_folder.stderr
        assert str(path) in no_folder.stderr


def modes(directory: Path, pattern: str) -> dict[str, int]:
    """Return who may do what with files that others have no business with."""
    return {path.name: stat.S_IMODE(path.stat().st_mode) for path in directory.glob(pattern)}


def test_what_it_keeps_is_its_owners_alone_whatever_the_folder(tmp_path: Path) -> None:
    tmp_path.chmod(0o755)
    private = {"muster.lock", "muster.sqlite3", "muster.sqlite3-shm", "muster.sqlite3-wal"}
    with running(tmp_path) as server:
        circle(server, "ann")
        assert modes(tmp_path, "muster.*") == dict.fromkeys(private, 0o600)
        assert set(modes(tmp_path / "keys", "*").values()) == {0o600}
        server.stop(signal.SIGKILL)
    for path in tmp_path.glob("muster.*"):
        path.chmod(0o644)
    with running(tmp_path) as again:
        assert modes(tmp_path, "muster.*") == dict.fromkeys(private, 0o600)
        again.stop()
        [line] = again.errors().splitlines()
        assert f"others can look into {tmp_path}" in json.loads(line)["message"]


@pytest.mark.parametrize("value", ["many", "0", "-1"])
def test_bounds_are_whole_numbers_from_one(value: str) -> None:
    with pytest.raises(ValueError, match="MUSTER_SOCKETS"):
        main.Bounds.from_environment({"MUSTER_SOCKETS": value})


def test_info_tells_what_one_process_takes_on(tmp_path: Path) -> None:
    with running(tmp_path, "--publish-every=77", sockets="3") as server:
        limits = server.call("GET", "/v1/info").json()["limits"]
        shown = server.call("GET", "/status.json").json()["limits"]

    assert limits["sockets"] == 3
    assert limits["publish_every_s"] == 77
    assert {field.name for field in dataclasses.fields(main.Bounds)} <= set(limits)
    assert shown == limits


# --- what it tells of itself ----------------------------------------------------------


def test_logs_hold_a_line_for_each_call_and_no_secret_in_any(tmp_path: Path) -> None:
    with running(tmp_path, "--verbose") as server:
        ann, bob = circle(server, "ann", "bob")
        token = bob.token()
        with server.websocket(f"?token={token}"):
            ann.leave("message-0001", text="a text that nobody else may read")
            ann.collect()
        server.call("GET", "/v1/peers", headers={"X-Forwarded-For": "198.51.100.7"})
        with closing(server.open()) as wire:
            wire.send(b"nonsense\r\n\r\n")
            wire.answer()
        server.stop()
        text = server.errors()
    lines = [json.loads(line) for line in text.splitlines()]
    assert [line["message"] for line in lines].count("POST /v1/messages 200") == 1
    assert "GET /v1/relay/ws 101" in [line["message"] for line in lines]
    secrets = (token, ann.hint, ann.secret.hex(), "nobody else", "127.0.0.1", "198.51.100.7")
    assert [secret for secret in secrets if secret in text] == []


def test_the_status_page_stands_alone_and_may_run_nothing_else(server: Server) -> None:
    answer = server.call("GET", "/")

    page = answer.body.decode()
    assert answer.headers["content-type"] == "text/html; charset=utf-8"
    assert answer.headers["x-content-type-options"] == "nosniff"
    policy = answer.headers["content-security-policy"]
    assert policy.startswith("default-src 'none'; script-src 'sha256-")
    assert "unsafe" not in policy
    assert re.findall(r"(?:src|href)=\"(?!/|data:)", page) == []
    assert "@import" not in page
    assert re.sub(r"http://www\.w3\.org/2000/svg", "", page).count("://") == 0


def test_the_numbers_tell_how_it_goes_and_nothing_of_whom(tmp_path: Path) -> None:
    with running(tmp_path) as server:
        ann, bob = circle(server, "ann", "bob")
        with bob.subscribe() as his:
            ann.leave("message-0001")
            his.recv(timeout=10)
            server.call("GET", "/v1/peers")
            for path in (f"/{ann.hint}", f"/v1/{ann.node_id}"):
                server.call("GET", path)
            text = server.call("GET", "/status.json").body.decode()
            metrics = server.call("GET", "/metrics").body.decode()
        found = json.loads(text)
        assert found["ok"] is True
        assert found["unsigned"] == "refuse"
        expected = {"circles": 1, "nodes": 2, "messages": 1, "subscriptions": 1, "sessions": 0}
        assert expected.items() <= found["stored"].items()
        assert (found["sockets"], found["calls"]) == (1, 8)
        assert found["pushed"] >= 1
        routes = {route["route"]: route for route in found["routes"]}
        assert routes["POST /v1/register"]["statuses"] == {"200": 2}
        assert routes["GET /v1/peers"]["statuses"] == {"401": 1}
        assert routes["unknown"]["calls"] == 2
        assert 0 < routes["POST /v1/messages"]["p50_ms"] <= routes["POST /v1/messages"]["p99_ms"]
        assert len(found["calls_per_second"]) == 60

        families = {family.name: family for family in text_string_to_metric_families(metrics)}
        assert {sample.value for sample in families["muster_sockets"].samples} == {1}
        counted = {
            (sample.labels["route"], sample.labels["status"]): sample.value
            for sample in families["muster_calls"].samples
        }
        assert counted["POST /v1/register", "200"] == 2
        assert families["muster_call_seconds"].type == "histogram"
        for told in (text, metrics):
            for secret in (ann.hint, ann.node_id, bob.node_id, "127.0.0.1"):
                assert secret not in told


# --- without a server: the ASGI app ---------------------------------------------------


class Broken:
    """A store whose verbs all fail in a way that nobody foresaw."""

    def __getattr__(self, name: str) -> Any:
        raise RuntimeError("nobody foresaw this")


def ask(host: main.LocalHost, method: str, path: str, **more: Any) -> httpx2.Response:
    async def go() -> httpx2.Response:
        transport = httpx2.ASGITransport(app=host)  # type: ignore[arg-type]
        async with httpx2.AsyncClient(transport=transport, base_url="http://localhost") as client:
            return await client.request(method, path, **more)

    return asyncio.run(go())


def test_what_nobody_foresaw_is_a_500_with_a_request_id(
    caplog: pytest.LogCaptureFixture,
) -> None:
    broken: Any = Broken()
    host = main.build(Settings(unsigned="allow"), Stores(broken, broken, broken))

    answer = ask(host, "GET", f"/v1/peers?circle_hint={HINT}")

    assert answer.status_code == 500
    assert answer.json()["code"] == "INTERNAL"
    assert "nobody foresaw" not in answer.text
    logged = [record for record in caplog.records if record.name == "muster"]
    assert getattr(logged[-1], "request_id", "") == answer.headers["x-request-id"]


def test_the_app_answers_without_a_server(tmp_path: Path) -> None:
    with closing(open_sqlite(tmp_path / "muster.sqlite3")) as stores:
        host = main.build(Settings(unsigned="allow"), stores)
        assert ask(host, "GET", "/v1/health").json()["ok"] is True
        assert ask(host, "GET", "/status.json").json()["stored"]["nodes"] == 0
        assert ask(host, "POST", "/v1/register", content=b"x" * 2_000_000).status_code == 413


def test_a_database_that_is_locked_is_a_503(tmp_path: Path) -> None:
    with running(tmp_path, "--unsigned=allow") as server:
        with closing(sqlite3.connect(tmp_path / "muster.sqlite3")) as other:
            other.execute("BEGIN IMMEDIATE")
            body = json.dumps({"node_id": "node-00001", "circle_hint": HINT}).encode()
            answer = server.call("POST", "/v1/register", body)
            other.rollback()
        refused(answer, 503, "UNAVAILABLE")
        assert answer.json()["retryable"] is True
        assert server.call("POST", "/v1/register", body).status == 200


def test_a_locked_database_refuses_sockets_and_harms_none(tmp_path: Path) -> None:
    with running(tmp_path, "--unsigned=allow") as server:
        query = f"?circle_hint={HINT}&node_id=node-00001"
        with server.websocket(query) as websocket:
            with closing(sqlite3.connect(tmp_path / "muster.sqlite3")) as other:
                other.execute("BEGIN IMMEDIATE")
                with pytest.raises(InvalidStatus, match="503"):
                    server.websocket(query).close()
                other.rollback()
            assert barrier(websocket) == []


def test_a_socket_outlives_what_nobody_foresaw(caplog: pytest.LogCaptureFixture) -> None:
    broken: Any = Broken()
    host = main.build(Settings(unsigned="allow"), Stores(broken, broken, broken))
    state = SimpleNamespace(connections=set())
    held = WebSocket(host.desk, server_state=state)
    query = f"circle_hint={HINT}&node_id=node-00001".encode()
    scope = {"method": "GET", "scheme": "ws", "path": "/v1/relay/ws", "query_string": query}

    reply = host.desk.admit(scope | {"headers": [], "client": ("192.0.2.7", 4711)}, held)
    host.desk.heard(held, '{"t":"PONG"}')
    host.desk.closed(held)

    assert (reply.status, reply.code, held.id) == (500, "INTERNAL", "")
    assert [record.message for record in caplog.records] == ["unforeseen"] * 3
