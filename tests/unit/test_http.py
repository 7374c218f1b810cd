import json
import logging
from typing import Any

import pytest

from chalicelib import http, proved
from chalicelib.auth import anyone
from chalicelib.call import Call
from chalicelib.circle import sockets
from chalicelib.routes import PATHS, ROUTES, Route
from chalicelib.store import Store, Unavailable
from muster.errors import CODES
from tests.support.circle import ANN, BOB, HINT, START, World, world


def call(here: World, method: str, path: str, body: bytes = b"", **query: str) -> Any:
    return here.reply(
        Call(method, path, query=query, body=body, source_ip="192.0.2.1", clock=here.clock)
    )


def is_refusal(body: bytes) -> bool:
    said = json.loads(body)
    return (
        list(said)[:5] == ["ok", "code", "message", "retryable", "detail"]
        and said["ok"] is False
        and said["code"] in CODES
        and said["detail"] == said["message"]
        and isinstance(said["retryable"], bool)
    )


@pytest.mark.parametrize("route", ROUTES, ids=lambda r: f"{r.method} {r.path}")
def test_every_route_but_the_open_ones_refuses_an_unsigned_call(route: Route) -> None:
    body = {
        "node_id": ANN,
        "target_node_id": BOB,
        "from_node_id": ANN,
        "to_node_id": BOB,
        "circle_hint": HINT,
        "session_id": "a-session",
        "type": "offer",
        "payload": "",
        "endpoints": [],
    }
    reply = call(
        world(),
        route.method,
        route.path,
        json.dumps(body).encode(),
        circle_hint=HINT,
        to_node_id=BOB,
    )

    if route.guard in (anyone, proved.info):
        assert reply.status in (200, 400)
    else:
        assert reply.status == 401
        assert is_refusal(reply.body)


@pytest.mark.parametrize("path", ["/", "/v1", "/v1/health/", "/v2/health", "/v1/relay", "/%00"])
def test_an_unknown_path_is_refused_with_our_body(path: str) -> None:
    reply = call(world(), "GET", path)

    assert reply.status == 404
    assert is_refusal(reply.body)
    assert reply.headers["Access-Control-Allow-Origin"] == "*"


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize("method", ["PUT", "PATCH", "TRACE", "BREW"])
def test_a_wrong_method_is_refused_and_told_the_right_ones(path: str, method: str) -> None:
    reply = call(world(), method, path)

    assert reply.status == 405
    assert is_refusal(reply.body)
    assert set(reply.headers["Allow"].split(", ")) == {*PATHS[path], "OPTIONS"}


@pytest.mark.parametrize("path", [*PATHS, "/anything"])
def test_a_preflight_is_answered_and_may_be_kept(path: str) -> None:
    reply = call(world(), "OPTIONS", path)

    assert (reply.status, reply.body) == (204, b"")
    allowed = reply.headers["Access-Control-Allow-Headers"].lower()
    for name in ("content-type", "x-felund-node", "x-felund-ts", "x-felund-nonce", "authorization"):
        assert name in allowed
    assert int(reply.headers["Access-Control-Max-Age"]) >= 600
    assert "DELETE" in reply.headers["Access-Control-Allow-Methods"]


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"hello",
        b"null",
        b"[]",
        b"7",
        b'"text"',
        b'{"node_id":"ann-0001"',
        b'{"node_id":"ann-0001","node_id":"bob-0002","circle_hint":"e03c84dccc271635"}',
        b'{"node_id":NaN}',
        b'{"node_id":1e999}',
        b'{"node_id":"\\ud800xxxxxxxx"}',
        b'\xff\xfe{"a":1}',
        b"[" * 200_000,
        b'{"a":' * 200 + b"1" + b"}" * 200,
        b'{"ttl_s":90071992547409930}',
    ],
)
def test_a_body_that_is_not_strict_json_is_refused(body: bytes) -> None:
    for route in ROUTES:
        if route.guard is proved.sync:
            continue  # tests/hosts/test_version2.py: the call is proved first
        if route.method != "GET" and (body or not route.unasked):
            here = world(assist_open="allow", assist_body_bytes=1024 * 1024)
            here.register()
            status, said = here.call(route.method, route.path, body)
            assert status == 400
            assert is_refusal(json.dumps(said).encode())


def test_a_body_over_the_limit_is_refused_unread() -> None:
    reply = call(world(unsigned="allow", body_bytes=1_000), "POST", "/v1/messages", b"x" * 1_001)

    assert reply.status == 413
    assert json.loads(reply.body)["code"] == "PAYLOAD_TOO_LARGE"


@pytest.mark.parametrize(
    "members",
    [
        {"node_id": None},
        {"node_id": "short"},
        {"node_id": "x" * 129},
        {"node_id": "line\nbreak-in-it"},
        {"node_id": "with space"},
        {"node_id": 12345678},
        {"circle_hint": ["12345678"]},
        {"endpoints": {}},
        {"endpoints": ["tcp"]},
        {"endpoints": [{"transport": "tcp", "host": "h"}]},
        {"endpoints": [{"transport": "smoke", "host": "h", "port": 1}]},
        {"endpoints": [{"transport": "tcp", "host": "", "port": 1}]},
        {"endpoints": [{"transport": "tcp", "host": "h" * 256, "port": 1}]},
        {"endpoints": [{"transport": "tcp", "host": "h", "port": 0}]},
        {"endpoints": [{"transport": "tcp", "host": "h", "port": 65536}]},
        {"endpoints": [{"transport": "tcp", "host": "h", "port": "1"}]},
        {"endpoints": [{"transport": "tcp", "host": "h", "port": 1, "family": "ipx"}]},
        {"endpoints": [{"transport": "tcp", "host": "h", "port": 1}] * 17},
        {"capabilities": []},
        {"capabilities": {"relay": "yes"}},
        {"capabilities": {"transport": ["x"] * 9}},
        {"ttl_s": "120"},
        {"ttl_s": None},
        {"ttl_s": True},
        {"signing_key": "zz" * 32},
        {"signing_key": "ab"},
    ],
)
def test_a_malformed_register_is_refused_and_nothing_kept(members: dict[str, Any]) -> None:
    here = world(unsigned="allow")

    status, body = here.register(ANN, **members)

    assert status == 400
    assert body["code"] == "INVALID_REQUEST"
    peers = here.call("GET", "/v1/peers", query={"circle_hint": HINT}, key=None)
    assert peers[1]["peers"] == []


def test_members_nobody_knows_are_ignored() -> None:
    assert world().register(ANN, sig="whatever", version=9)[0] == 200


def test_a_refusal_names_the_member_and_what_it_should_be() -> None:
    _, body = world().register(ANN, endpoints=[{"transport": "tcp", "host": "h", "port": 0}])

    assert body["message"].startswith("endpoints[0].port: expected")


class Broken:
    """A store that does not answer."""

    def __init__(self, store: Store, error: Exception, verbs: set[str]) -> None:
        self._store, self._error, self._verbs = store, error, verbs

    def __getattr__(self, name: str) -> Any:
        if name in self._verbs:
            raise self._error
        return getattr(self._store, name)


@pytest.mark.parametrize("table", ["presence", "mail", "guard"])
@pytest.mark.parametrize("verb", ["put", "put_new", "get", "newest", "after", "known", "add"])
def test_a_store_that_does_not_answer_makes_a_call_retryable(table: str, verb: str) -> None:
    here = world()
    here.register(ANN)
    here.register(BOB)
    store = getattr(here.service.stores, table)
    broken = Broken(store, Unavailable("throttled"), {verb})
    here.service.stores = here.service.stores._replace(**{table: broken})
    here.service.pins.forget(HINT)

    answers = [here.register(ANN), here.leave("m-000001"), here.session(ANN, BOB)]

    for status, body in answers:
        assert status in (200, 503)
        if status == 503:
            assert (body["code"], body["retryable"]) == ("UNAVAILABLE", True)
    here.service.stores = here.service.stores._replace(**{table: store})
    assert here.leave("m-000001")[0] == 200
    assert [m["msg_id"] for m in here.poll(after=0)["messages"]] == ["m-000001"]


def test_what_nobody_foresaw_is_a_500_with_our_body_and_a_log_line(
    caplog: pytest.LogCaptureFixture,
) -> None:
    here = world()
    broken = Broken(here.service.stores.guard, ZeroDivisionError("secret detail"), {"put_new"})
    here.service.stores = here.service.stores._replace(guard=broken)

    status, body = here.register(ANN)

    assert (status, body["code"], body["retryable"]) == (500, "INTERNAL", True)
    assert "secret" not in json.dumps(body)
    assert "ZeroDivisionError" in caplog.text


def test_where_a_websocket_is_a_plain_call_is_told_so() -> None:
    reply = call(world(), "GET", sockets.PATH)

    assert reply.status == 400
    assert json.loads(reply.body)["message"] == "open a WebSocket here"


def test_info_tells_what_the_host_bounds() -> None:
    here = world()
    here.service.host_limits = {"sockets": 7}

    _, body = here.call("GET", "/v1/info", key=None)

    assert (body["limits"]["sockets"], body["limits"]["batch_messages"]) == (7, 50)


def test_info_tells_every_limit_and_the_key() -> None:
    status, body = world().call("GET", "/v1/info", key=None)

    assert (status, body["protocol"], body["unsigned"], body["time"]) == (200, 1, "refuse", START)
    assert all(isinstance(limit, int) for limit in body["limits"].values())
    assert body["limits"]["batch_messages"] == 50
    assert body["keys"][0]["alg"] == "ed25519"


def test_the_services_key_is_made_once() -> None:
    first = world()
    second = world(first.service.stores)
    second.service.entropy = lambda size: b"\x07" * size

    keys = [here.call("GET", "/v1/info", key=None)[1]["keys"] for here in (first, second)]

    assert keys[0] == keys[1]


def test_too_many_calls_from_one_address_are_told_when_to_come_back() -> None:
    here = world(address_burst=3, address_per_s=1)
    answers = [call(here, "GET", "/v1/health") for _ in range(5)]

    assert [reply.status for reply in answers] == [200, 200, 200, 429, 429]
    assert answers[-1].headers["Retry-After"] == "1"
    assert is_refusal(answers[-1].body)
    here.clock += 1
    assert call(here, "GET", "/v1/health").status == 200


def test_the_request_id_comes_back() -> None:
    reply = http.handle(world().service, Call("GET", "/v1/health", request_id="r-77"))

    assert reply.headers["X-Request-Id"] == "r-77"


def test_the_log_says_once_an_hour_that_unsigned_calls_come_and_not_who_makes_them(
    caplog: pytest.LogCaptureFixture,
) -> None:
    here = world()
    with caplog.at_level(logging.INFO, logger="muster"):
        for clock, told in ((0, 1), (1, 1), (3_599, 1), (3_600, 2), (5_000, 2)):
            here.clock = START + clock
            reply = call(here, "GET", "/v1/messages", circle_hint=HINT)
            assert len(caplog.records) == told

    for said in (json.loads(reply.body)["message"], caplog.text):
        assert "--unsigned allow" in said
        assert "MUSTER_UNSIGNED=allow" in said
    assert HINT not in caplog.text
    assert "192.0.2.1" not in caplog.text


def test_a_service_that_takes_unsigned_calls_has_nothing_to_say_of_them(
    caplog: pytest.LogCaptureFixture,
) -> None:
    here = world(unsigned="allow")
    with caplog.at_level(logging.INFO, logger="muster"):
        assert call(here, "GET", "/v1/messages", circle_hint=HINT).status == 200
        here.register()
        assert call(here, "GET", "/v1/peers", circle_hint=HINT).status == 401

    assert caplog.records == []
