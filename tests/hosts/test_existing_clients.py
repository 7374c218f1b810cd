"""Do the existing clients, as they are, get what they need?

Two clients written from their wire alone (tests/support/felund.py) call the real
server: the terminal client, which signs nearly everything, and the browser
client, which signs half of its calls and obeys CORS.
"""

import base64
import itertools
import json
import os
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import pytest
from websockets.exceptions import InvalidStatus
from websockets.sync.client import ClientConnection

from chalicelib.settings import Settings
from tests.support import aws
from tests.support.felund import (
    PAGE_ORIGIN,
    Browser,
    Circle,
    Got,
    Page,
    PythonClient,
    WebClient,
    browser_socket,
    new_circle,
    sealed,
    session_id,
    signature,
    signed,
)
from tests.support.local import GENEROUS, Server, running
from tests.support.serving import serving


def named(value: object) -> str:
    """Name a parameter, a long one by its ends and its length."""
    text = str(value)
    return text if len(text) < 70 else f"{text[:30]}...{text[-35:]} ({len(text)})"


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A server whose operator wants the browser client: it accepts unsigned calls."""
    with running(tmp_path_factory.mktemp("allow"), "--unsigned=allow") as made:
        yield made


@pytest.fixture(scope="module")
def strict(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A server as it is by default: it refuses unsigned calls."""
    with running(tmp_path_factory.mktemp("refuse"), "--unsigned=refuse") as made:
        yield made


@pytest.fixture(params=["one machine", *aws.ENGINES])
def anywhere(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    """Where each host is that accepts unsigned calls, on AWS with each engine behind it."""
    if request.param == "one machine":
        yield request.getfixturevalue("server").base
        return
    url = request.getfixturevalue("dynalite_url") if request.param == "dynalite" else ""
    settings = GENEROUS | {"MUSTER_UNSIGNED": "allow"}
    with (
        aws.running(request.param, directory=tmp_path, dynalite_url=url, **settings) as made,
        serving(made) as base,
    ):
        yield base
    assert made.crashes == []


@pytest.fixture
def circle() -> Circle:
    return new_circle()


@pytest.fixture
def browser() -> Iterator[Browser]:
    with closing(Browser()) as made:
        yield made


@pytest.fixture
def ann(server: Server, circle: Circle) -> PythonClient:
    """A terminal client; its circle has been here before, as it registers before all else."""
    made = PythonClient(server.base, circle)
    assert made.register().status == made.unregister().status == 200
    return made


@pytest.fixture
def bob(server: Server, circle: Circle) -> PythonClient:
    """Another terminal client of the same circle."""
    return PythonClient(server.base, circle)


@pytest.fixture
def web(server: Server, circle: Circle, browser: Browser) -> WebClient:
    return WebClient(server.base, circle, browser)


@pytest.fixture
def wim(server: Server, circle: Circle, browser: Browser) -> WebClient:
    """Another page of the same circle."""
    return WebClient(server.base, circle, browser)


def unsigned(server: Server, circle: Circle) -> PythonClient:
    """A caller that never signs; there are such."""
    return PythonClient(server.base, circle, signs=False)


def refused(got: Got, status: int, code: str = "") -> bool:
    """Whether it is this refusal, in our form, and a page may read it."""
    body = got.json()
    return (
        got.status == status
        and body["ok"] is False
        and body["detail"] == body["message"]
        and isinstance(body["retryable"], bool)
        and code in ("", body["code"])
        and got.headers["content-type"] == "application/json"
        and got.headers["access-control-allow-origin"] == "*"
    )


def ids(messages: list[dict[str, Any]]) -> list[str]:
    return [message["msg_id"] for message in messages]


def barrier(socket: ClientConnection) -> list[Any]:
    """Say PING; what came before the PONG."""
    socket.send('{"t":"PING"}')
    before: list[Any] = []
    while (frame := json.loads(socket.recv(timeout=8))) != {"t": "PONG"}:
        before.append(frame)
    return before


def pushed(socket: ClientConnection) -> list[dict[str, Any]]:
    """Return the messages that have come."""
    return [m for frame in barrier(socket) if frame["t"] == "MESSAGES" for m in frame["messages"]]


def next_second(client: PythonClient, after: int) -> None:
    """Wait until the service's clock has passed a second."""
    while client.health().json()["time"] <= after:
        time.sleep(0.02)


# --- the base URL and the ways of the two HTTP libraries ----------------------------


@pytest.mark.parametrize("tail", ["", "/", "///"])
def test_the_terminal_client_joins_its_base(server: Server, circle: Circle, tail: str) -> None:
    client = PythonClient(server.base + tail, circle)

    assert client.health().json()["ok"] is True
    client.cycle()


@pytest.mark.parametrize("form", ["{}", "{}/", "  {}// ", "{}/v1", "{}/v1/"])
def test_the_browser_client_joins_its_base(
    server: Server, circle: Circle, browser: Browser, form: str
) -> None:
    client = WebClient(form.format(server.base), circle, browser)

    assert client.health().status == client.register().status == 200
    client.peers()
    client.say()
    client.pull()
    with client.socket() as socket:
        barrier(socket)
    if "v1" in form:  # there it asks for /v1/v1/signal, on every server
        with pytest.raises(AssertionError):
            client.signals()
    else:
        assert client.signals() == []


def test_health_says_version_and_time_and_asks_for_nothing(
    ann: PythonClient, web: WebClient
) -> None:
    for got in (ann.health(), web.health()):
        body = got.json()

        assert got.status == 200
        assert body["ok"] is True
        assert isinstance(body["version"], str)
        assert abs(body["time"] - time.time()) < 5
        assert isinstance(body["time"], int)


@pytest.mark.parametrize("coding", ["identity", "gzip, deflate, br, zstd"])
def test_nothing_is_compressed_and_everything_says_how_long_it_is(
    ann: PythonClient, coding: str
) -> None:
    ann.leave([sealed(ann.circle, ann.node_id, n) | {"pad": "x" * 900} for n in range(50)])
    headers = {"Accept-Encoding": coding}

    got = ann.request("GET", "/messages", query={"circle_hint": ann.circle.hint}, headers=headers)

    assert len(got.raw) > 40_000
    assert "content-encoding" not in got.headers
    assert "transfer-encoding" not in got.headers
    assert int(got.headers["content-length"]) == len(got.raw)


@pytest.mark.parametrize("method", ["GET", "POST", "DELETE"])
@pytest.mark.parametrize(
    "path", ["/health/", "/register/", "/messages/", "/", "", "/v1/signal", "//health", "/Health"]
)
def test_nothing_redirects(ann: PythonClient, method: str, path: str) -> None:
    got = ann.request(method, path, {} if method != "GET" else None)

    assert "location" not in got.headers
    assert refused(got, 404, "NOT_FOUND")


def test_bodies_are_utf_8_as_it_is(ann: PythonClient) -> None:
    ann.leave([sealed(ann.circle, ann.node_id, 1) | {"display_name": "Zoë 🐳"}])

    got = ann.request("GET", "/messages", query={"circle_hint": ann.circle.hint})

    assert "Zoë 🐳".encode() in got.raw
    assert got.headers["content-type"].startswith("application/json")


# --- presence -----------------------------------------------------------------------


def test_both_clients_register_find_each_other_and_leave(
    ann: PythonClient, bob: PythonClient, web: WebClient
) -> None:
    for client in (ann, bob, web):
        got = client.register()
        body = got.json()

        assert got.status == 200
        assert body["ok"] is True
        assert body["expires_at"] == body["server_time"] + 120
        assert body["observed_host"] == {"host": "127.0.0.1", "family": "ipv4"}
        assert body["observed_endpoint"]["host"] == "127.0.0.1"
        assert isinstance(body["observed_endpoint"]["port"], int)

    assert ann.peers() == [(bob.node_id, "192.0.2.7", 9999)]
    assert sorted(web.peers()) == sorted([ann.node_id, bob.node_id])
    assert [bob.unregister().json()["removed"] for _ in range(2)] == [True, False]
    assert [web.unregister().json()["removed"] for _ in range(2)] == [True, False]
    assert ann.peers() == []


def test_a_peer_is_told_with_all_that_clients_read(ann: PythonClient, web: WebClient) -> None:
    web.register()
    asked = {"circle_hint": ann.circle.hint, "limit": 50}

    [peer] = ann.request("GET", "/peers", query=asked).json()["peers"]

    assert peer["node_id"] == web.node_id
    assert peer["circle_hint"] == ann.circle.hint
    assert peer["endpoints"] == [
        {
            "transport": "ws",
            "host": "chat.example",
            "port": 443,
            "family": "ipv4",
            "nat": "unknown",
        }
    ]
    assert peer["capabilities"] == {"relay": False, "transport": ["ws"], "can_anchor": False}
    assert isinstance(peer["observed_at"], int)
    assert isinstance(peer["expires_at"], int)


@pytest.mark.parametrize(
    ("sent", "kept"), [(120, 120), (1, 30), (-5, 30), (31, 31), (100_000, 600), (45.9, 45)]
)
def test_a_lifetime_is_clamped_and_not_refused(ann: PythonClient, sent: float, kept: int) -> None:
    body = ann.register(ttl_s=sent).json()

    assert body["expires_at"] - body["server_time"] == kept


GOOD = {"transport": "tcp", "host": "192.0.2.7", "port": 9999, "family": "ipv4", "nat": "unknown"}


@pytest.mark.parametrize(
    "endpoints",
    [
        ["tcp:192.0.2.7"],
        [GOOD, None],
        [GOOD | {"port": "9999"}],
        [GOOD | {"port": 0}],
        [GOOD | {"port": 65536}],
        [GOOD | {"host": ""}],
        [GOOD | {"host": "h" * 256}],
        [GOOD | {"transport": "carrier pigeon"}],
        [GOOD | {"family": "ipv5"}],
        [GOOD] * 17,
        {"0": GOOD},
        "192.0.2.7",
    ],
    ids=named,
)
def test_an_endpoint_that_would_break_a_peer_s_lookup_is_refused(
    ann: PythonClient, bob: PythonClient, endpoints: Any
) -> None:
    bob.register()

    assert refused(ann.register(endpoints=endpoints), 400, "INVALID_REQUEST")
    assert ann.peers() == [(bob.node_id, "192.0.2.7", 9999)]
    assert bob.peers() == []


@pytest.mark.parametrize("count", [0, 1, 16])
def test_up_to_16_endpoints_are_kept(ann: PythonClient, bob: PythonClient, count: int) -> None:
    assert ann.register(endpoints=[GOOD] * count).status == 200
    assert len(bob.peers()) == min(count, 1)


def test_endpoints_without_family_and_nat_have_the_usual_ones(
    ann: PythonClient, bob: PythonClient
) -> None:
    ann.register(endpoints=[{"transport": "tcp", "host": "192.0.2.7", "port": 9999}])

    [peer] = bob.request("GET", "/peers", query={"circle_hint": ann.circle.hint}).json()["peers"]

    assert peer["endpoints"] == [GOOD]


def test_registering_again_replaces_and_circles_are_apart(
    server: Server, ann: PythonClient, bob: PythonClient
) -> None:
    elsewhere = PythonClient(server.base, new_circle(), node_id=ann.node_id)
    elsewhere.register()
    ann.register()
    ann.register(endpoints=[GOOD | {"port": 1}])

    assert bob.peers() == [(ann.node_id, "192.0.2.7", 1)]
    assert elsewhere.unregister().json()["removed"] is True
    assert bob.peers() == [(ann.node_id, "192.0.2.7", 1)]


def test_where_a_call_comes_from_is_not_what_it_says_of_itself(ann: PythonClient) -> None:
    body = {"node_id": ann.node_id, "circle_hint": new_circle().hint, "endpoints": []}
    headers = {"X-Forwarded-For": "198.51.100.1", "X-Real-IP": "198.51.100.2"}

    got = ann.request("POST", "/register", body, headers=headers).json()

    assert got["observed_host"] == {"host": "127.0.0.1", "family": "ipv4"}


@pytest.mark.parametrize(("limit", "given"), [(None, 50), (1, 1), (0, 1), (-3, 1), (70, 70)])
def test_peers_are_limited_as_asked(
    server: Server, circle: Circle, limit: int | None, given: int
) -> None:
    caller = unsigned(server, circle)
    for _ in range(71):
        PythonClient(server.base, circle, signs=False).register()
    query = {"circle_hint": circle.hint} | ({} if limit is None else {"limit": limit})

    assert len(caller.request("GET", "/peers", query=query).json()["peers"]) == given


def test_the_newest_peer_is_listed_first(ann: PythonClient, bob: PythonClient) -> None:
    first = ann.register().json()["server_time"]
    next_second(ann, first)
    bob.register()
    observer = PythonClient(ann.base, ann.circle)

    assert [node_id for node_id, _, _ in observer.peers()] == [bob.node_id, ann.node_id]
    next_second(ann, bob.health().json()["time"])
    ann.register()
    assert [node_id for node_id, _, _ in observer.peers()] == [ann.node_id, bob.node_id]


# --- signing ------------------------------------------------------------------------


def test_our_clients_sign_as_the_known_answer_says() -> None:
    circle = Circle(bytes(range(32)))
    key = circle.signing_key

    assert circle.hint == "e03c84dccc271635"
    assert key.hex() == "10f949b7b330494e5aa0c8d585da75796242d39ab1378bf05f2c416cdd2efdd3"
    assert (
        signature(key, "POST", "/register", b'{"a":1}', 1_700_000_000, "0f" * 16)
        == "2281283d8b00c40672fd52f1619a5186826f3ca0b56c8679d79c1b2de1059bed"
    )


def test_the_terminal_client_needs_no_concession(strict: Server, circle: Circle) -> None:
    ann, bob = PythonClient(strict.base, circle), PythonClient(strict.base, circle)
    ann.cycle()
    bob.cycle()
    said = ann.say()
    ann.cycle()
    bob.cycle()

    assert said in bob.known
    assert ann.peers() == [(bob.node_id, "192.0.2.7", 9999)]
    assert ann.unregister().json()["removed"] is True
    assert bob.peers() == []


def test_without_the_concession_every_unsigned_call_is_refused(
    strict: Server, circle: Circle, browser: Browser
) -> None:
    web, caller = WebClient(strict.base, circle, browser), unsigned(strict, circle)

    assert web.health().status == web.register().status == 200
    assert refused(web.leave(sealed(circle, web.node_id, 1)), 401, "INVALID_SIGNATURE")
    assert refused(web.signal(web, "offer", "sdp"), 401, "INVALID_SIGNATURE")
    asked = {"circle_hint": circle.hint}
    for method, path, body, query in (
        ("POST", "/register", {"node_id": caller.node_id, **asked, "endpoints": []}, None),
        ("DELETE", "/register", {"node_id": web.node_id, **asked}, None),
        ("GET", "/peers", None, asked),
        ("GET", "/messages", None, asked),
        ("GET", "/signal", None, {"to_node_id": web.node_id}),
    ):
        got = caller.request(method, path, body, query=query)
        assert refused(got, 401, "INVALID_SIGNATURE"), (method, path, got)
    with pytest.raises(InvalidStatus) as refusal:
        web.socket()
    assert refusal.value.response.status_code == 401
    assert web.peers() == []


def test_the_refusal_of_an_unsigned_call_and_the_log_say_what_would_let_it_in(
    tmp_path: Path, circle: Circle, browser: Browser
) -> None:
    with running(tmp_path) as server:
        web = WebClient(server.base, circle, browser)
        for _ in range(3):
            said = web.leave(sealed(circle, web.node_id, 1)).json()["message"]
            assert "--unsigned allow" in said
            assert "MUSTER_UNSIGNED=allow" in said
        server.stop()
        logged = server.errors()

    assert logged.count("MUSTER_UNSIGNED=allow") == 1
    assert circle.hint not in logged
    assert "127.0.0.1" not in logged


@pytest.mark.parametrize("engine", aws.ENGINES)
def test_the_refusal_of_an_unsigned_call_says_it_on_aws_too(
    engine: str, tmp_path: Path, circle: Circle, dynalite_url: str
) -> None:
    with aws.running(engine, directory=tmp_path, dynalite_url=dynalite_url) as gateway:
        refusal = gateway.call("GET", "/v1/messages", query=f"circle_hint={circle.hint}")

    assert refusal.status == 401
    assert "MUSTER_UNSIGNED=allow" in refusal.json()["message"]


def test_a_circle_with_a_key_still_takes_unsigned_mail_but_no_unsigned_presence(
    web: WebClient, wim: WebClient, server: Server
) -> None:
    web.register()
    outsider = unsigned(server, web.circle)
    asked = {"circle_hint": web.circle.hint}

    assert refused(outsider.register(), 401, "INVALID_SIGNATURE")
    body = {"node_id": web.node_id, **asked}
    assert refused(outsider.request("DELETE", "/register", body), 401, "INVALID_SIGNATURE")
    assert refused(outsider.request("GET", "/peers", query=asked), 401, "INVALID_SIGNATURE")
    said = wim.say()
    assert ids(web.pull()) == [said]
    assert wim.signal(web, "offer", "sdp").status == 200
    with web.socket() as socket:
        assert ids(pushed(socket)) == [said]


def test_an_outsider_who_knows_the_hint_cannot_bring_a_key_of_its_own(
    server: Server, ann: PythonClient, bob: PythonClient
) -> None:
    ann.register()
    outsider = PythonClient(server.base, new_circle())
    body = {
        "node_id": ann.node_id,
        "circle_hint": ann.circle.hint,
        "endpoints": [GOOD | {"port": 666}],
        "signing_key": outsider.circle.signing_key.hex(),
    }

    got = outsider.request("POST", "/register", body)

    assert refused(got, 401)
    assert bob.peers() == [(ann.node_id, "192.0.2.7", 9999)]


def test_a_circle_that_nobody_registered_takes_unsigned_calls_of_all_kinds(
    server: Server, circle: Circle, browser: Browser
) -> None:
    caller, web = unsigned(server, circle), WebClient(server.base, circle, browser)
    named = {"X-Felund-Node": "someone-else-000"}  # some callers name a node and never sign

    said = web.say()
    assert ids(caller.pull()) == [said]
    assert caller.register().status == 200
    got = caller.request("GET", "/peers", query={"circle_hint": circle.hint}, headers=named)
    assert [peer["node_id"] for peer in got.json()["peers"]] == [caller.node_id]
    assert caller.unregister().json()["removed"] is True


@pytest.mark.parametrize("path", ["/register", "/messages", "/peers", "get messages"])
@pytest.mark.parametrize("broken", ["X-Felund-Signature", "X-Felund-Nonce", "X-Felund-Ts"])
def test_a_signature_that_is_there_is_checked_even_where_none_is_needed(
    ann: PythonClient, path: str, broken: str
) -> None:
    ann.register()
    asked = {"circle_hint": ann.circle.hint}
    body: dict[str, Any] | None = {"node_id": ann.node_id, "messages": [], **asked}
    method = "POST" if path in ("/register", "/messages") else "GET"
    path = "/messages" if path == "get messages" else path
    body = body if method == "POST" else None
    raw = json.dumps(body).encode() if body else b""
    headers = signed(ann.circle, ann.node_id, method, path, raw)
    other = {"X-Felund-Ts": str(int(headers["X-Felund-Ts"]) + 1)}.get(broken, "0f" * 32)
    query = None if body else asked

    got = ann.request(method, path, body, query=query, headers=headers | {broken: other})
    assert refused(got, 401, "INVALID_SIGNATURE")
    left = {name: value for name, value in headers.items() if name != broken}
    got = ann.request(method, path, body, query=query, headers=left)
    assert refused(got, 401, "INVALID_SIGNATURE")
    headers["X-Felund-Signature"] = headers["X-Felund-Signature"].upper()
    assert ann.request(method, path, body, query=query, headers=headers).status == 200
    replayed = ann.request(method, path, body, query=query, headers=headers)
    assert refused(replayed, 409, "NONCE_REPLAY")


@pytest.mark.parametrize("off_by", [-301 - 5, 301 + 5])
def test_a_time_outside_the_window_is_refused(ann: PythonClient, off_by: int) -> None:
    ann.register()
    ts, nonce = int(time.time()) + off_by, os.urandom(16).hex()
    headers = {
        "X-Felund-Node": ann.node_id,
        "X-Felund-Ts": str(ts),
        "X-Felund-Nonce": nonce,
        "X-Felund-Signature": signature(ann.circle.signing_key, "GET", "/peers", b"", ts, nonce),
    }

    got = ann.request("GET", "/peers", query={"circle_hint": ann.circle.hint}, headers=headers)

    assert refused(got, 400, "EXPIRED_TIMESTAMP")


# --- messages -----------------------------------------------------------------------


def test_messages_come_back_byte_for_byte(web: WebClient) -> None:
    now = int(time.time())
    legacy = {
        "msg_id": os.urandom(16).hex(),
        "circle_id": web.circle.circle_id,
        "channel_id": "general",
        "author_node_id": web.node_id,
        "display_name": "Zoë | 🐳",
        "created_ts": now,
        "text": 'line\nbreak "quoted" \u2028 \\ / \u0000',
        "mac": "00" * 32,
    }
    odd = {
        "zzz": [1, 2.5, -0.001, None, True, {"b": 1, "a": {"": []}}],
        "created_ts": 0,
        "msg_id": os.urandom(16).hex(),
        "enc": {},
        "10": "ten",
        "9": "nine",
    }
    messages = [sealed(web.circle, web.node_id, now), legacy, odd]

    assert web.leave(*messages).json()["stored"] == 3
    asked = f"/messages?circle_hint={web.circle.hint}&since=0&limit=200"
    got = web.browser.fetch("GET", web.url(asked))

    for message in messages:
        text = json.dumps(message, separators=(",", ":"), ensure_ascii=False).encode()
        assert text in got.raw.replace(b"\\u2028", "\u2028".encode())
    given = got.json()["messages"]
    assert given == messages
    assert [list(message) for message in given] == [list(message) for message in messages]
    assert [type(message["created_ts"]) for message in given] == [int] * 3


def test_pushing_the_same_hundred_every_cycle_stores_and_pushes_nothing_new(
    ann: PythonClient, bob: PythonClient, web: WebClient
) -> None:
    for _ in range(100):
        ann.say()
    with web.socket() as socket:
        assert ann.push() == 100
        assert len(pushed(socket)) == 100
        first = {message["msg_id"]: message for message in bob.pull()}
        for client in (ann, bob, ann):  # bob pushes what others wrote, sealed anew
            assert client.push() == 0
        assert pushed(socket) == []
    late = PythonClient(ann.base, ann.circle)

    assert {message["msg_id"]: message for message in late.pull()} == first
    assert len(first) == 100


@pytest.mark.parametrize(
    ("body", "status"),
    [
        ({}, 200),
        ({"messages": []}, 200),
        ({"messages": [{"msg_id": f"message-{n}"} for n in range(50)]}, 200),
        ({"messages": [{"msg_id": f"message-{n}"} for n in range(51)]}, 400),
        ({"messages": [{"msg_id": "1234567"}]}, 400),
        ({"messages": [{"msg_id": "12345678"}]}, 200),
        ({"messages": [{"msg_id": "m" * 64}]}, 200),
        ({"messages": [{"msg_id": "m" * 65}]}, 400),
        ({"messages": [{"msg_id": 12345678}]}, 400),
        ({"messages": [{"created_ts": 1}]}, 400),
        ({"messages": ["message"]}, 400),
        ({"messages": [[]]}, 400),
        ({"messages": None}, 400),
        ({"messages": {}}, 400),
        *(
            ({"messages": [{"msg_id": "12345678", "created_ts": created}]}, status)
            for created, status in [
                (0, 200),
                (1_700_000_000, 200),
                (-1, 400),
                (1.5, 400),
                ("1", 400),
                (True, 400),
                (None, 400),
                (2**63, 400),
            ]
        ),
    ],
    ids=named,
)
def test_a_batch_is_taken_or_refused(ann: PythonClient, body: dict[str, Any], status: int) -> None:
    got = ann.request("POST", "/messages", {"circle_hint": ann.circle.hint} | body)

    if status == 200:
        assert got.status == 200
        assert got.json()["stored"] == len(body.get("messages", []))
        assert isinstance(got.json()["server_time"], int)
    else:
        assert refused(got, status, "INVALID_REQUEST")
        assert ann.pull() == []


def test_a_batch_with_one_bad_message_leaves_nothing_and_pushes_nothing(
    ann: PythonClient, web: WebClient
) -> None:
    good = sealed(ann.circle, ann.node_id, 1)
    with web.socket() as socket:
        assert refused(ann.leave([good, {"msg_id": "bad"}]), 400, "INVALID_REQUEST")
        assert pushed(socket) == []
        assert ann.pull() == []
        assert ann.leave([good]).json()["stored"] == 1
        assert pushed(socket) == [good]


def test_an_id_is_taken_in_its_own_circle_only(server: Server, ann: PythonClient) -> None:
    message = sealed(ann.circle, ann.node_id, 1)
    elsewhere = PythonClient(server.base, new_circle())
    elsewhere.register()

    assert ann.leave([message]).json()["stored"] == 1
    assert elsewhere.leave([message]).json()["stored"] == 1
    assert ids(ann.pull()) == ids(elsewhere.pull()) == [message["msg_id"]]


@pytest.mark.parametrize("size", [1024, 200_000])
def test_large_messages_pass_whole(ann: PythonClient, bob: PythonClient, size: int) -> None:
    message = sealed(ann.circle, ann.node_id, 1) | {"text": "ä" * (size // 2)}

    assert ann.leave([message]).json()["stored"] == 1
    assert bob.pull() == [message]


def test_messages_of_300_and_700_kib_are_heard_on_every_host(
    anywhere: str, circle: Circle, browser: Browser
) -> None:
    """Each alone and both in one batch, left by both clients, and heard by both."""
    ann, bob = PythonClient(anywhere, circle), PythonClient(anywhere, circle)
    web, wim = (WebClient(anywhere, circle, browser) for _ in range(2))
    ann.register()
    sent = {}
    with wim.socket() as socket:
        for number, kib in enumerate((0, 300, 700, 0, 300, 700)):
            ciphertext = base64.b64encode(os.urandom(kib * 768)).decode()
            message = sealed(circle, ann.node_id, number)
            message["enc"] |= {"ciphertext": ciphertext}
            sent[message["msg_id"]] = message
        left = list(sent.values())
        assert ann.leave(left[1:2]).json()["stored"] == 1
        assert web.leave(left[2]).json()["stored"] == 1
        assert ann.leave(left[3:]).json()["stored"] == 3
        assert ann.leave(left[3:]).json()["stored"] == 0, "it repeats itself"
        assert web.leave(left[0]).json()["stored"] == 1
        told = pushed(socket)
    for _ in range(8):
        for client in (bob, web, wim):
            client.pull()

    assert [one["msg_id"] for one in told] == [left[3]["msg_id"], left[0]["msg_id"]]
    for client in (bob, web, wim):
        assert client.known == sent


def test_a_body_beyond_a_mebibyte_is_refused_and_blocks_nothing(
    ann: PythonClient, web: WebClient
) -> None:
    """Also on a connection that urllib wants closed: the refusal arrives, and no reset."""
    messages = [sealed(ann.circle, ann.node_id, n) | {"text": "x" * 250_000} for n in range(6)]
    for _ in range(15):
        assert refused(ann.leave(messages), 413, "PAYLOAD_TOO_LARGE")
        assert refused(web.leave(*messages), 413, "PAYLOAD_TOO_LARGE")

    assert ann.leave(messages[:1]).json()["stored"] == 1
    assert web.leave(*messages[1:2]).json()["stored"] == 1


@pytest.mark.parametrize("since", [0, -1, -(2**40)])
def test_a_since_before_everything_gives_everything(ann: PythonClient, since: int) -> None:
    ann.leave([sealed(ann.circle, ann.node_id, n) for n in range(3)])
    query = {"circle_hint": ann.circle.hint, "since": since, "limit": 200}

    assert len(ann.request("GET", "/messages", query=query).json()["messages"]) == 3


def test_messages_of_one_second_keep_the_order_of_their_arrival(
    ann: PythonClient, web: WebClient
) -> None:
    """A `create` must come before its `join`, whatever their ids are."""
    sent = [sealed(ann.circle, ann.node_id, 1, msg_id=f"{99 - n:02}" * 16) for n in range(40)]
    for message in sent:
        assert ann.leave([message]).json()["stored"] == 1

    assert web.pull() == sent


def test_the_time_of_health_serves_as_a_cursor(ann: PythonClient, web: WebClient) -> None:
    """Some callers begin there, and want what is posted a second later, and nothing older."""
    ann.leave([sealed(ann.circle, ann.node_id, n) for n in range(5)])
    begin = ann.health().json()["time"]
    assert abs(begin - time.time()) < 2, "it is the ordinary clock"
    next_second(ann, begin)
    new = sealed(ann.circle, ann.node_id, 9)
    ann.leave([new])
    query = {"circle_hint": ann.circle.hint, "since": begin, "limit": 200}

    assert ann.request("GET", "/messages", query=query).json()["messages"] == [new]


@pytest.mark.parametrize("count", [450, 1_000])
def test_a_client_that_joins_late_gets_the_whole_backlog(
    ann: PythonClient, web: WebClient, bob: PythonClient, count: int
) -> None:
    sent = [sealed(ann.circle, ann.node_id, n) for n in range(count)]
    for start in range(0, count, 50):
        assert ann.leave(sent[start : start + 50]).status == 200

    for _ in range(12):
        web.pull()
        bob.pull()

    assert list(web.known) == list(bob.known) == ids(sent)


def test_clients_that_pull_beside_a_busy_writer_lose_nothing(
    server: Server, ann: PythonClient, bob: PythonClient, web: WebClient
) -> None:
    """The loss that the clients' own servers have, tried in several seconds."""
    writers = [PythonClient(server.base, ann.circle) for _ in range(2)]
    until = time.monotonic() + 3.2

    def write(writer: PythonClient) -> list[str]:
        sent = []
        while time.monotonic() < until:
            message = sealed(writer.circle, writer.node_id, 1)
            assert writer.leave([message]).status == 200
            sent.append(str(message["msg_id"]))
        return sent

    def read(client: PythonClient | WebClient) -> None:
        while time.monotonic() < until:
            client.pull()

    with ThreadPoolExecutor(5) as pool:
        sent = [pool.submit(write, writer) for writer in writers]
        for done in [pool.submit(read, client) for client in (bob, web)]:
            done.result()
        expected = {msg_id for one in sent for msg_id in one.result()}
    for _ in range(3):
        bob.pull()
        web.pull()

    assert len(expected) > 50
    assert set(bob.known) == set(web.known) == expected


def test_a_hint_may_be_any_word(server: Server) -> None:
    """Some callers hash the secret's hex text; the service must not care."""
    for hint in ("6c86c6aac5fb24bc", "UPPER-lower_09", "h" * 128, "12345678"):
        caller = unsigned(server, new_circle())
        body = {"circle_hint": hint, "messages": [{"msg_id": "12345678"}]}
        assert caller.request("POST", "/messages", body).json()["stored"] == 1
        got = caller.request("GET", "/messages", query={"circle_hint": hint, "since": 0})
        assert ids(got.json()["messages"]) == ["12345678"]


# --- what browsers ask first --------------------------------------------------------


def test_a_page_asks_once_for_leave_and_not_again(web: WebClient, wim: WebClient) -> None:
    for _ in range(5):
        web.register()
        web.peers()
        web.pull()
        web.say()
        web.signal(wim, "offer", "sdp")
        wim.signals()
        web.unregister()

    assert web.browser.preflights == 5, "register twice, peers, messages, signal"


@pytest.mark.parametrize("path", ["/v1/register", "/v1/messages", "/v1/nothing", "/", "/elsewhere"])
def test_a_preflight_allows_all_that_the_clients_send(server: Server, path: str) -> None:
    headers = {
        "Origin": PAGE_ORIGIN,
        "Access-Control-Request-Method": "DELETE",
        "Access-Control-Request-Headers": "content-type,x-felund-node",
    }
    got = server.call("OPTIONS", path, headers=headers)
    names = got.headers["access-control-allow-headers"].lower()

    assert got.status == 204
    assert got.body == b""
    assert got.headers["access-control-allow-origin"] == "*"
    assert int(got.headers["access-control-max-age"]) >= 7200
    assert {"GET", "POST", "DELETE"} <= {
        method.strip() for method in got.headers["access-control-allow-methods"].split(",")
    }
    for name in ("content-type", "x-felund-node", "x-felund-ts", "x-felund-nonce"):
        assert name in names
    assert "x-felund-signature" in names
    assert "access-control-allow-credentials" not in got.headers


REFUSALS: list[tuple[str, str, Any, int]] = [
    ("GET", "/v1/nothing", None, 404),
    ("PUT", "/v1/register", {}, 405),
    ("GET", "/v1/register", None, 405),
    ("POST", "/v1/peers", {}, 405),
    ("POST", "/v1/messages", [], 400),
    ("POST", "/v1/messages", "text", 400),
    ("POST", "/v1/messages", None, 400),
    ("GET", "/v1/messages", None, 400),
    ("GET", "/v1/signal?to_node_id=short", None, 400),
    ("GET", "/v1/messages?circle_hint=12345678&since=--5", None, 400),
    ("GET", "/v1/messages?circle_hint=12345678&since=9223372036854775808", None, 400),
    ("GET", "/v1/messages?circle_hint=12345678&limit=%C2%B2", None, 400),
]


@pytest.mark.parametrize(("method", "path", "body", "status"), REFUSALS)
def test_every_refusal_has_our_form_and_a_page_may_read_it(
    server: Server, browser: Browser, method: str, path: str, body: Any, status: int
) -> None:
    raw = None if body is None else json.dumps(body).encode()
    headers = {"Content-Type": "application/json"} if raw else {}
    if method == "PUT":  # no page sends it; a preflight would say so
        got = Got(*server.call(method, path, raw or b"", headers))
    else:
        got = browser.fetch(method, server.base + path, raw, headers)

    assert refused(got, status)


# --- the socket ---------------------------------------------------------------------


def test_a_socket_is_told_of_exactly_what_is_new(web: WebClient, ann: PythonClient) -> None:
    with web.socket() as socket:
        assert barrier(socket) == [], "nothing is sent when there is nothing"
        first, second = (sealed(ann.circle, ann.node_id, n) for n in range(2))
        ann.leave([first])
        ann.leave([first, second])
        got = barrier(socket)

        assert [frame["t"] for frame in got] == ["MESSAGES", "MESSAGES"]
        assert [frame["messages"] for frame in got] == [[first], [second]]
        assert [type(frame["server_time"]) for frame in got] == [int, int]
        assert socket.subprotocol is None
        assert socket.protocol.extensions == []


def test_a_socket_is_first_given_the_last_two_minutes_oldest_first(
    web: WebClient, ann: PythonClient
) -> None:
    sent = [sealed(ann.circle, ann.node_id, n) for n in range(230)]
    for start in range(0, 230, 10):
        ann.leave(sent[start : start + 10])
    with web.socket() as socket:
        got = pushed(socket)

    assert got == sent[-200:], "of too many, the newest"


def test_a_page_hears_its_own_messages_and_a_node_that_names_itself_does_not(
    web: WebClient, wim: WebClient, ann: PythonClient
) -> None:
    """The browser client posts without the header, gets its own back, and drops it by its id."""
    ann.register()
    query = urlencode({"circle_hint": ann.circle.hint, "node_id": ann.node_id})
    url = f"{ann.base}/v1/relay/ws?{query}"
    with web.socket() as own, wim.socket() as other, browser_socket(url) as terminal:
        said = web.say()
        for socket in (own, other, terminal):
            assert ids(pushed(socket)) == [said]
        ann.say()
        ann.push()
        assert len(pushed(own)) == len(pushed(other)) == 1
        assert pushed(terminal) == []


@pytest.mark.parametrize(
    "frame",
    [
        '{"t":"PONG"}',
        '{"t":"HELLO"}',
        "hello",
        "",
        "[]",
        "null",
        "{",
        '{"t":"FRAME","session_id":"12345678","seq":1,"payload_b64":"aGk="}',
        '{"t":"ACK","session_id":"12345678","seq":1}',
        "x" * 32_768,
        '{"t":"PING","t":"PING"}',
    ],
    ids=named,
)
def test_what_a_page_says_on_its_socket_is_ignored(web: WebClient, frame: str) -> None:
    with web.socket() as socket:
        socket.send(frame)
        assert barrier(socket) == []
        said = web.say()
        assert ids(pushed(socket)) == [said]


@pytest.mark.parametrize(
    "query", ["", "?circle_hint=12345678", "?node_id=12345678", "?circle_hint=1234&node_id=n", "?x"]
)
def test_a_socket_without_circle_or_node_is_refused_with_400(server: Server, query: str) -> None:
    with pytest.raises(InvalidStatus) as refusal:
        browser_socket(f"{server.base}/v1/relay/ws{query}")
    response = refusal.value.response

    assert response.status_code == 400
    assert json.loads(response.body or b"")["code"] == "INVALID_REQUEST"


def test_a_page_has_a_socket_for_each_circle_and_can_connect_again(
    server: Server, browser: Browser, web: WebClient
) -> None:
    elsewhere = WebClient(server.base, new_circle(), browser, node_id=web.node_id)
    with web.socket() as one, elsewhere.socket() as other:
        here, there = web.say(), elsewhere.say()
        assert ids(pushed(one)) == [here]
        assert ids(pushed(other)) == [there]
    missed = web.say()
    with web.socket() as again, web.socket() as twice:
        assert ids(pushed(again)) == ids(pushed(twice)) == [here, missed]


def test_a_node_id_is_percent_encoded_in_the_query(server: Server, circle: Circle) -> None:
    query = urlencode({"circle_hint": circle.hint, "node_id": "node+id/with?odd&signs=%"})
    with browser_socket(f"{server.base}/v1/relay/ws?{query}") as socket:
        assert barrier(socket) == []


# --- signals ------------------------------------------------------------------------

TYPES = ("offer", "answer", "candidate", "media-offer", "media-answer", "media-candidate")


@pytest.mark.parametrize("kind", TYPES)
def test_a_signal_arrives_as_the_page_reads_it(web: WebClient, wim: WebClient, kind: str) -> None:
    payload = {"type": kind, "sdp": 'v=0\r\no=- 1 "ü" \u2028'}

    told = web.signal(wim, kind, payload).json()
    [got] = wim.signals()

    assert told["ok"] is True
    assert isinstance(told["server_time"], int)
    assert json.loads(got.pop("payload")) == payload
    assert isinstance(got.pop("created_at"), int)
    number = got.pop("id")
    assert type(number) is int
    assert 0 < number < 2**53
    assert got == {
        "session_id": session_id(web.node_id, wim.node_id),
        "from_node": web.node_id,
        "to_node": wim.node_id,
        "type": kind,
    }
    assert wim.signals() == web.signals() == []


def test_every_poller_has_its_own_cursor_and_reading_takes_nothing_away(
    web: WebClient, wim: WebClient
) -> None:
    for n in range(6):
        web.signal(wim, "candidate", n)
        if n % 2:
            wim.signals()
    everything = wim.signals(0)

    assert [json.loads(one["payload"]) for one in everything] == list(range(6))
    assert wim.signals(0) == everything, "after a reload it gets everything again"
    numbers = [one["id"] for one in everything]
    assert numbers == sorted(set(numbers))
    assert [one["id"] for one in wim.signals(numbers[3])] == numbers[4:]


def test_a_poller_gets_the_signals_of_all_circles(
    server: Server, browser: Browser, web: WebClient
) -> None:
    """Pages poll by node alone, one poller for each circle and one for each call."""
    elsewhere = WebClient(server.base, new_circle(), browser)
    other = WebClient(server.base, web.circle, browser)

    elsewhere.signal(web, "offer", "there")
    other.signal(web, "media-offer", "here")

    assert [json.loads(one["payload"]) for one in web.signals()] == ["there", "here"]


def test_two_pages_that_share_two_circles_do_not_cross_their_answers(
    anywhere: str, browser: Browser
) -> None:
    """Whichever circle is shown, and whichever of the other page's pollers is the first."""
    circles = new_circle(), new_circle()
    pages = (Page(anywhere, circles, browser) for _ in range(2))
    caller, callee = sorted(pages, key=lambda page: page.node_id)
    rounds = list(itertools.product((0, 1), (1, -1), (1, -1)))
    for shown, first_to_answer, first_to_hear in rounds:
        caller.offer(shown, callee)
        callee.poll(caller, order=first_to_answer)
        caller.poll(callee, order=first_to_hear)

    assert caller.outcomes == ["open"] * len(rounds)


ORDERS = [
    steps
    for steps in itertools.permutations(["offer 0", "answer 0", "offer 1", "answer 1"])
    if all(steps.index(f"offer {n}") < steps.index(f"answer {n}") for n in (0, 1))
]


@pytest.mark.parametrize("steps", ORDERS, ids="-".join)
def test_in_whatever_order_two_circles_offer_and_answer_only_the_last_ones_answer_is_heard(
    server: Server, browser: Browser, steps: tuple[str, ...]
) -> None:
    circles = new_circle(), new_circle()
    ann, bob = (Page(server.base, circles, browser) for _ in range(2))
    for step in steps:
        kind, _, which = step.partition(" ")
        who, other = (ann, bob) if kind == "offer" else (bob, ann)
        who.pollers[int(which)].signal(other.pollers[0], kind, step)
    last = [step for step in steps if step.startswith("offer")][-1][-1]

    for poller in ann.pollers:
        assert [json.loads(one["payload"]) for one in poller.signals()] == [f"answer {last}"]
    for poller in bob.pollers:
        assert {json.loads(one["payload"]) for one in poller.signals()} == {"offer 0", "offer 1"}


LIFETIMES: tuple[Any, ...] = (0, 10, 60, 120.5, 10**9, None, "60", [])


@pytest.mark.parametrize("call", ["", "c0ffee", "call-" + "x" * 30, "y" * 150])
def test_long_session_ids_are_taken(web: WebClient, wim: WebClient, call: str) -> None:
    named = session_id(web.node_id, wim.node_id, call=call or "c" * 32)
    assert call or len(named) == 104

    assert web.signal(wim, "media-offer", "sdp", session_id=named).status == 200
    assert [one["session_id"] for one in wim.signals()] == [named]


@pytest.mark.parametrize(
    ("more", "status"),
    [
        ({"payload": "x" * 65536}, 200),
        ({"payload": "ü" * 65536}, 200),
        ({"payload": "x" * 65537}, 400),
        ({"payload": ""}, 200),
        ({"payload": {"sdp": ""}}, 400),
        ({"payload": None}, 400),
        ({"session_id": "1234567"}, 400),
        ({"session_id": "s" * 256}, 200),
        ({"from_node_id": "short"}, 400),
        ({"to_node_id": "short"}, 400),
        ({"circle_hint": "short"}, 400),
        ({"type": "bye"}, 400),
        ({"type": "media-bye"}, 400),
        *(({"ttl_s": ttl_s}, 200) for ttl_s in LIFETIMES),
    ],
    ids=named,
)
def test_a_signal_is_taken_or_refused(
    web: WebClient, wim: WebClient, more: dict[str, Any], status: int
) -> None:
    got = web.signal(wim, "offer", "sdp", **more)

    if status == 200:
        assert got.status == 200
        assert len(wim.signals()) == 1
    else:
        assert refused(got, status)
        assert wim.signals() == []


def test_a_fresh_offer_makes_void_what_the_old_one_left(web: WebClient, wim: WebClient) -> None:
    """Or a page that was reloaded would answer the dead offer and ignore the fresh one."""
    for n in range(2):
        web.signal(wim, "offer", f"offer {n}")
        web.signal(wim, "candidate", f"candidate {n}")
        web.signal(wim, "media-offer", f"media {n}")

    got = [json.loads(one["payload"]) for one in wim.signals(0)]

    assert got[-3:] == ["offer 1", "candidate 1", "media 1"]
    assert "offer 0" not in got
    assert "candidate 0" not in got
    assert "media 0" not in got


def test_two_hundred_candidates_in_ten_seconds_are_welcome(tmp_path: Path) -> None:
    """With the limits as they are by default, from one address, beside all the polling."""
    names = ("address_burst", "address_per_s", "node_burst", "node_per_s")
    usual = {name: str(getattr(Settings(), name)) for name in names}
    with (
        running(tmp_path, "--unsigned=allow", **usual) as server,
        closing(Browser()) as one,
        closing(Browser()) as two,
    ):
        circle = new_circle()
        web, wim = WebClient(server.base, circle, one), WebClient(server.base, circle, two)
        web.register()
        begun = time.monotonic()
        for n in range(200):
            assert web.signal(wim, "candidate", n).status == 200
            if n % 20 == 0:
                web.signals()
        assert time.monotonic() - begun < 10

        got: list[dict[str, Any]] = []
        while page := wim.signals():
            got += page
        assert [json.loads(signal["payload"]) for signal in got] == list(range(200))


def test_signals_beyond_the_limit_wait_for_retry_after(tmp_path: Path) -> None:
    with (
        running(tmp_path, "--unsigned=allow", address_burst="40", address_per_s="20") as server,
        closing(Browser()) as browser,
    ):
        circle = new_circle()
        web, wim = (WebClient(server.base, circle, browser) for _ in range(2))
        got = [web.signal(wim, "candidate", n) for n in range(60)]
        late = [one for one in got if one.status == 429]

        assert late
        for one in late:
            assert refused(one, 429, "RATE_LIMITED")
            assert one.json()["retryable"] is True
            assert 1 <= int(one.headers["retry-after"]) <= 10
        time.sleep(int(late[-1].headers["retry-after"]))
        assert web.signal(wim, "offer", "sdp").status == 200


# --- what an idle client costs ------------------------------------------------------


def test_the_default_limits_leave_a_household_of_clients_alone(tmp_path: Path) -> None:
    """Eight cycles (a minute) of ten terminal clients behind one address, at once."""
    with running(tmp_path, address_burst="2000", address_per_s="200") as server:
        circle = new_circle()
        clients = [PythonClient(server.base, circle) for _ in range(10)]
        for _ in range(100):
            clients[0].say()

        def minute(client: PythonClient) -> None:
            for _ in range(8):
                client.cycle()

        with ThreadPoolExecutor(4) as pool:
            list(pool.map(minute, clients))
        assert all(len(client.known) == 100 for client in clients)
        assert len(clients[0].peers()) == 9


def each(calls: list[Callable[[], Got]]) -> list[int]:
    return [call().status for call in calls]


def test_a_whole_day_of_a_web_and_a_terminal_client(
    ann: PythonClient, web: WebClient, wim: WebClient
) -> None:
    """Everything in the order in which it happens when people meet, talk and leave."""
    assert each([web.health, ann.health, web.register, ann.register, wim.register]) == [200] * 5
    assert {web.node_id, wim.node_id} == set(wim.peers()) ^ set(web.peers())
    with web.socket() as socket:
        ann.say()
        ann.push()
        assert len(pushed(socket)) == 1
        caller, callee = sorted((web, wim), key=lambda page: page.node_id)
        caller.signal(callee, "offer", {"type": "offer", "sdp": "o"})
        assert [one["type"] for one in callee.signals()] == ["offer"]
        callee.signal(caller, "answer", {"type": "answer", "sdp": "a"})
        for n in range(6):
            caller.signal(callee, "candidate", {"candidate": n})
        assert [one["type"] for one in caller.signals()] == ["answer"]
        assert [one["type"] for one in callee.signals()] == ["candidate"] * 6
        said = wim.say()
        assert ids(pushed(socket)) == [said]
    assert said in ids(ann.pull())
    assert said in ids(web.pull())
    assert each([web.unregister, ann.unregister, wim.unregister]) == [200] * 3
    assert web.peers() == []
