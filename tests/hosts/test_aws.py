"""Does the AWS host say what the service says, whatever API Gateway, Lambda and DynamoDB do?"""

import base64
import contextlib
import json
import logging
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from chalicelib import tables
from chalicelib.aws import events, host
from chalicelib.routes import PATHS
from muster import errors
from muster.felund import frames
from tests.support import aws, dynalite, faults
from tests.support.gateway import (
    HANG,
    ROOT,
    Answer,
    Gateway,
    HandshakeRefused,
    Wire,
    rest_event,
)
from tests.support.members import circle, dumps

on_sqlite = pytest.mark.parametrize("engine", ["sqlite"], indirect=True)
on_dynalite = pytest.mark.parametrize("engine", ["dynalite"], indirect=True)
ALLOW = pytest.mark.parametrize("settings", [{"MUSTER_UNSIGNED": "allow"}])


def code(answer: Answer) -> str:
    """Return the code of an error body that is whole, and has the headers it must have."""
    body = answer.json()
    assert list(body)[:5] == ["ok", "code", "message", "retryable", "detail"]
    assert body["code"] in errors.CODES
    assert answer.headers["access-control-allow-origin"] == "*"
    assert answer.headers["content-type"] in ("application/json", "application/problem+json")
    return str(body["code"])


def refused(gateway: Gateway, query: str = "", **more: Any) -> tuple[int, str]:
    """Open a socket that must be refused; return status and code."""
    with pytest.raises(HandshakeRefused) as caught:
        gateway.open(query, **more)
    return caught.value.answer.status, code(caught.value.answer)


def messages(wire: Wire) -> list[str]:
    """Take what was pushed, message by message."""
    return [
        message["msg_id"]
        for frame in wire.frames()
        if frame["t"] == "MESSAGES"
        for message in frame["messages"]
    ]


def frame(session_id: str, seq: int) -> str:
    made = frames.Frame(session_id=session_id, seq=seq, payload_b64="AAAA")
    return frames.encode(made)


# --- events -----------------------------------------------------------------------


def test_a_body_is_the_bytes_that_were_sent() -> None:
    sent = ' {"a": "é\u2028\\u00e9" }\n'.encode()
    json_type = [("content-type", "application/json; charset=utf-8")]
    as_text = rest_event("POST", "/v1/messages", body=sent, headers=json_type)
    as_base64 = rest_event("POST", "/v1/messages", body=sent)

    assert not as_text["isBase64Encoded"]
    assert as_base64["isBase64Encoded"]
    assert events.read(as_text, clock=1.5).body == sent
    assert events.read(as_base64, clock=1.5).body == sent
    assert events.read(rest_event("GET", "/v1/health"), clock=1.5).body == b""


def test_an_event_is_read_as_the_service_wants_it() -> None:
    event = rest_event(
        "GET",
        "/v1/peers",
        query="circle_hint=first&circle_hint=second&limit=",
        headers=[("X-Felund-Node", "ann-0001"), ("Accept", "a"), ("Accept", "b")],
        source_ip="2001:db8::7",
        request_id="r-1",
    )
    event["path"] = "/prefix/of/a/domain/v1/peers"

    call = events.read(event, clock=1.5)

    assert (call.method, call.path) == ("GET", "/v1/peers")
    assert call.query == {"circle_hint": "first", "limit": ""}
    assert call.headers["x-felund-node"] == call.node_id == "ann-0001"
    assert call.headers["accept"] == "a, b"
    assert (call.source_ip, call.source_port) == ("2001:db8::7", None)
    assert (call.clock, call.now, call.request_id) == (1.5, 1, "r-1")


def test_lone_surrogates_in_an_event_do_not_break_it() -> None:
    event = rest_event("POST", "/v1/messages") | {"body": '{"a": "\ud800"}'}

    assert events.read(event, clock=1.5).body == b'{"a": "\xed\xa0\x80"}'


FORGED = [("X-Muster-Viewer-Address", "203.0.113.9"), ("X-Forwarded-For", "203.0.113.9")]


def test_behind_the_edge_the_address_is_the_viewers() -> None:
    shown = [("X-Muster-Edge", "s" * 40), ("X-Muster-Viewer-Address", "2001:DB8:0::9")]
    event = rest_event("GET", "/v1/health", headers=shown, source_ip="192.0.2.1")

    assert events.read(event, clock=1.5, secret="s" * 40).source_ip == "2001:db8::9"


@pytest.mark.parametrize(
    ("secret", "headers"),
    [
        ("s" * 40, FORGED),
        ("s" * 40, [*FORGED, ("X-Muster-Edge", "")]),
        ("s" * 40, [*FORGED, ("X-Muster-Edge", "s" * 39)]),
        ("s" * 40, [*FORGED, ("X-Muster-Edge", "s" * 40), ("X-Muster-Edge", "s" * 40)]),
        ("s" * 40, [("X-Muster-Edge", "s" * 40), ("X-Muster-Viewer-Address", "not one")]),
        ("s" * 40, [("X-Muster-Edge", "s" * 40)]),
        ("", FORGED),
        ("", [*FORGED, ("X-Muster-Edge", "")]),
        ("s" * 40, [*FORGED, ("X-Muster-Edge", "ß\ud800")]),
    ],
)
def test_without_the_edges_secret_the_address_is_the_gateways(
    secret: str, headers: list[tuple[str, str]]
) -> None:
    event = rest_event("GET", "/v1/health", headers=headers, source_ip="192.0.2.1")

    assert events.read(event, clock=1.5, secret=secret).source_ip == "192.0.2.1"


@pytest.mark.parametrize(
    ("event", "kind"),
    [
        ({"requestContext": {"httpMethod": "GET"}, "source": "aws.events"}, "call"),
        ({"requestContext": {"eventType": "CONNECT"}}, "connect"),
        ({"requestContext": {"eventType": "MESSAGE"}}, "message"),
        ({"requestContext": {"eventType": "DISCONNECT"}}, "disconnect"),
        ({"source": "aws.events", "detail-type": "Scheduled Event"}, "sweep"),
        ({"id": "L0SM9cOF1=", "endpoint": "https://x"}, "greet"),
    ],
)
def test_one_function_tells_all_events_apart(event: dict[str, object], kind: str) -> None:
    assert events.kind(event) == kind


def test_nothing_at_all_is_a_call_of_no_path() -> None:
    assert events.read({}, clock=1.5).path == ""


# --- HTTP -------------------------------------------------------------------------


@on_sqlite
def test_every_method_of_every_path_is_answered_by_the_service(gateway: Gateway) -> None:
    for path, routes in PATHS.items():
        for method in host.METHODS:
            answer = gateway.call(method, path)

            assert answer.headers["access-control-allow-origin"] == "*"
            assert answer.headers["x-request-id"].startswith("request-")
            if method == "OPTIONS":
                assert answer.status == 204
                assert answer.body == b""
                assert answer.headers["access-control-max-age"] == "7200"
            elif method in routes or (method == "HEAD" and "GET" in routes):
                assert answer.status in (200, 400, 401)
            else:
                assert (answer.status, code(answer)) == (405, "METHOD_NOT_ALLOWED")
                assert answer.headers["allow"] == ", ".join([*routes, "OPTIONS"])


@on_sqlite
@pytest.mark.parametrize("path", ["/v1/nothing", "/v1/health/", "//v1/health", "/%761/health"])
def test_an_unknown_path_is_refused_in_the_services_words(gateway: Gateway, path: str) -> None:
    answer = gateway.call("GET", path)

    assert (answer.status, code(answer)) == (404, "NOT_FOUND")
    assert answer.headers["access-control-allow-origin"] == "*"


@on_sqlite
def test_the_root_alone_ends_at_the_gateway(gateway: Gateway) -> None:
    assert gateway.call("GET", "/").json() == {"message": "Not Found"}


@on_sqlite
@pytest.mark.parametrize(
    ("change", "status"),
    [
        ({"resourcePath": "/v1/health"}, 200),
        ({"resourcePath": None}, 404),
        ({"httpMethod": "TRACE"}, 405),
    ],
)
def test_what_chalice_refuses_before_the_view_is_answered_by_the_service(
    gateway: Gateway, change: dict[str, Any], status: int
) -> None:
    event = rest_event("GET", "/v1/health" if status < 404 else "/v1/nothing")
    event = event if status != 405 else rest_event("GET", "/v1/health")
    event["requestContext"] |= change

    answer = gateway.machines[0].run("app", event)

    assert answer["statusCode"] == status
    assert answer["headers"]["Access-Control-Allow-Origin"] == "*"
    assert json.loads(answer["body"])["ok"] is (status == 200)


@on_sqlite
@pytest.mark.parametrize(
    "content_type",
    [
        None,
        "application/json",
        "application/json; charset=utf-8",
        "text/plain",
        "application/octet-stream",
        "image/png",
        "application/x-www-form-urlencoded",
        "no type at all",
    ],
)
def test_any_content_type_is_taken(gateway: Gateway, content_type: str | None) -> None:
    (ann,) = circle(gateway, "ann")
    headers = [("Content-Type", content_type)] if content_type else []
    body = {"node_id": ann.node_id, "circle_hint": ann.hint}

    assert ann.call("DELETE", "/v1/register", body, headers=headers).json()["removed"]
    ann.register(headers=headers)


@on_sqlite
@pytest.mark.parametrize("accept", [None, "*/*", "image/png", "application/octet-stream"])
def test_an_answer_does_not_depend_on_what_is_accepted(
    gateway: Gateway, accept: str | None
) -> None:
    headers = [("Accept", accept)] if accept else []

    assert gateway.call("GET", "/v1/health", headers=headers).json()["ok"]


@on_sqlite
def test_a_signature_covers_the_bytes_and_not_their_meaning(gateway: Gateway) -> None:
    (ann,) = circle(gateway, "ann")
    odd = f' {{"circle_hint" :"{ann.hint}",  "messages":[{{"msg_id":"m0000001","t":"é"}}] }}\n'
    other = f'{{"circle_hint":"{ann.hint}","messages":[]}}'.encode()

    assert ann.ask("POST", "/v1/messages", odd.encode())["stored"] == 1
    headers = list(ann.signed("POST", "/v1/messages", odd.encode()).items())
    answer = gateway.call("POST", "/v1/messages", headers=headers, body=other)
    assert (answer.status, code(answer)) == (401, "INVALID_SIGNATURE")


@on_sqlite
@pytest.mark.parametrize("settings", [{"MUSTER_ADDRESS_BURST": "3", "MUSTER_ADDRESS_PER_S": "1"}])
def test_a_preflight_counts_like_any_call(gateway: Gateway) -> None:
    statuses = [gateway.call("OPTIONS", "/v1/register").status for _ in range(8)]

    assert statuses[:3] == [204] * 3
    assert 429 in statuses


@on_sqlite
def test_the_address_is_the_one_the_gateway_saw(gateway: Gateway) -> None:
    (ann,) = circle(gateway, "ann")
    seen = ann.register(headers=[("X-Forwarded-For", "203.0.113.66"), ("X-Real-IP", "203.0.113.6")])

    assert seen["observed_endpoint"] == {"host": "198.51.100.7", "port": None, "family": "ipv4"}


@ALLOW
@on_sqlite
@pytest.mark.parametrize("body", [b"\xff\xfe{}", b"{", b"[]", b'{"a":1,"a":2}', b"\x00" * 99])
def test_bodies_that_are_no_json_objects_are_refused(gateway: Gateway, body: bytes) -> None:
    for content_type in ("application/json", "application/octet-stream"):
        answer = gateway.call(
            "POST", "/v1/messages", body=body, headers=[("content-type", content_type)]
        )

        assert (answer.status, code(answer)) == (400, "INVALID_REQUEST")


@ALLOW
@on_sqlite
@pytest.mark.parametrize("size", [1024 * 1024 + 1, 5_000_000])
def test_bodies_that_are_too_large_are_refused(gateway: Gateway, size: int) -> None:
    headers = [("Content-Type", "application/json")]
    answer = gateway.call("POST", "/v1/messages", headers=headers, body=b"x" * size)

    assert (answer.status, code(answer)) == (413, "PAYLOAD_TOO_LARGE")


@on_sqlite
@pytest.mark.parametrize("size", [5_000_000, 11_000_000])
def test_what_no_function_can_take_the_gateway_refuses_in_its_own_words(
    gateway: Gateway, size: int
) -> None:
    """Five megabytes of what is no text are too much for Lambda, in base64."""
    answer = gateway.call("POST", "/v1/messages", body=b"x" * size)

    assert (answer.status, answer.json()) == (413, {"message": "Request Entity Too Large"})


@ALLOW
@on_sqlite
def test_an_answer_fits_through_lambda_however_much_waits(gateway: Gateway) -> None:
    hint = "0123456789abcdef"
    for number in range(40):
        message = {"msg_id": f"m{number:07}", "text": '"' * 100_000}
        body = dumps({"circle_hint": hint, "messages": [message]})
        assert gateway.call("POST", "/v1/messages", body=body).status == 200

    collected: list[str] = []
    after = 0
    for _ in range(40):
        query = f"circle_hint={hint}&after={after}&limit=500"
        answer = gateway.call("GET", "/v1/messages", query=query)
        assert answer.status == 200
        page = answer.json()
        collected += [message["msg_id"] for message in page["messages"]]
        after = page["cursor"]
        if not page["more"]:
            break

    assert collected == [f"m{number:07}" for number in range(40)]


@on_sqlite
def test_a_service_that_cannot_be_built_answers_in_its_own_words(
    gateway: Gateway, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MUSTER_UNSIGNED", "perhaps")

    answer = gateway.call("GET", "/v1/health", machine=gateway.start())

    assert (answer.status, code(answer)) == (500, "INTERNAL")
    assert refused(gateway, machine=gateway.machines[-1]) == (500, "INTERNAL")


# --- opening sockets --------------------------------------------------------------


@on_sqlite
def test_a_socket_without_a_token_is_refused(gateway: Gateway) -> None:
    assert refused(gateway) == (401, "INVALID_TOKEN")
    assert refused(gateway, "circle_hint=0123456789abcdef&node_id=ann-0001") == (
        401,
        "INVALID_TOKEN",
    )


@on_sqlite
def test_a_forged_token_is_refused_wherever_it_stands(gateway: Gateway) -> None:
    (ann,) = circle(gateway, "ann")
    head, claims, signature = ann.token().split(".")
    forged = f"{head}.{claims}.{signature[::-1]}"

    assert refused(gateway, f"token={forged}") == (401, "INVALID_TOKEN")
    for name, value in (
        ("Authorization", f"Bearer {forged}"),
        ("Sec-WebSocket-Protocol", f"muster.v1, {forged}"),
    ):
        assert refused(gateway, headers=[(name, value)]) == (401, "INVALID_TOKEN")
    assert not gateway.invocations, "nothing is started for a stranger"


@ALLOW
@on_sqlite
def test_a_socket_without_circle_and_node_is_refused(gateway: Gateway) -> None:
    assert refused(gateway) == (400, "INVALID_REQUEST")
    assert refused(gateway, "circle_hint=short&node_id=ann-0001") == (400, "INVALID_REQUEST")


@on_sqlite
@pytest.mark.parametrize("settings", [{"MUSTER_ADDRESS_BURST": "1", "MUSTER_ADDRESS_PER_S": "1"}])
def test_too_many_sockets_from_one_address_are_refused(gateway: Gateway) -> None:
    assert refused(gateway) == (401, "INVALID_TOKEN")

    with pytest.raises(HandshakeRefused) as caught:
        gateway.open()

    assert (caught.value.answer.status, code(caught.value.answer)) == (429, "RATE_LIMITED")
    assert caught.value.answer.headers["retry-after"] == "1"
    assert refused(gateway, source_ip="198.51.100.8") == (401, "INVALID_TOKEN")


@on_sqlite
def test_a_subprotocol_is_named_if_it_was_offered(gateway: Gateway) -> None:
    (ann,) = circle(gateway, "ann")
    token = ann.token()
    offer = [("Sec-WebSocket-Protocol", f"muster.v1, {token}")]

    assert gateway.open(headers=offer).subprotocol == "muster.v1"
    assert gateway.open(headers=[("Authorization", f"Bearer {token}")]).subprotocol is None
    assert gateway.open(f"token={token}").subprotocol is None


def test_a_socket_is_greeted_with_what_it_missed(gateway: Gateway) -> None:
    ann, bob = circle(gateway, "ann", "bob")
    ann.leave("m0000001", "m0000002")

    assert messages(bob.subscribe()) == ["m0000001", "m0000002"]


@on_sqlite
def test_a_socket_is_not_greeted_before_it_is_open(gateway: Gateway) -> None:
    ann, bob = circle(gateway, "ann", "bob")
    ann.leave("m0000001")
    gateway.holding = True

    wire = bob.subscribe()
    assert wire.frames() == []
    gateway.run_invocations()

    assert messages(wire) == ["m0000001"]


@on_sqlite
def test_a_greeting_that_comes_too_early_is_repeated(gateway: Gateway) -> None:
    ann, bob = circle(gateway, "ann", "bob")
    ann.leave("m0000001")

    assert messages(bob.subscribe(faults=[410, 410])) == ["m0000001"]


@on_sqlite
def test_a_socket_that_was_forgotten_while_it_opened_is_closed_to_open_again(
    gateway: Gateway,
) -> None:
    ann, bob = circle(gateway, "ann", "bob")
    gateway.holding = True
    wire = bob.subscribe(faults=[410] * 9)
    ann.leave("m0000001")

    gateway.faults[wire.id].clear()
    gateway.run_invocations()

    assert wire.frames() == [None]
    gateway.holding = False
    assert messages(bob.subscribe()) == ["m0000001"]


@on_sqlite
def test_a_socket_opens_even_if_nobody_can_greet_it(gateway: Gateway) -> None:
    ann, bob = circle(gateway, "ann", "bob")
    gateway.refuse_invocations = True

    wire = bob.subscribe()
    ann.leave("m0000001")

    assert messages(wire) == ["m0000001"]


@on_sqlite
def test_a_greeting_for_a_socket_that_left_does_nothing(gateway: Gateway) -> None:
    ann, bob = circle(gateway, "ann", "bob")
    ann.leave("m0000001")
    gateway.holding = True
    wire = bob.subscribe()

    wire.close()
    gateway.run_invocations()

    assert wire.frames() == []


# --- frames -----------------------------------------------------------------------


def test_two_seats_pass_frames(gateway: Gateway) -> None:
    ann, bob = circle(gateway, "ann", "bob")
    session_id = ann.session(bob)["session_id"]
    near, far = ann.attach(bob), bob.attach(ann)

    assert [found["t"] for found in near.frames()] == ["ATTACHED"]
    assert [found["t"] for found in far.frames()] == ["ATTACHED"]
    near.send(frame(session_id, 7))

    (arrived,) = far.frames()
    assert (arrived["t"], arrived["seq"], arrived["from"]) == ("FRAME", 7, ann.node_id)
    assert near.frames() == [{"t": "ACK", "session_id": session_id, "seq": 7}]
    far.close()
    assert near.frames() == [{"t": "GONE", "session_id": session_id, "node_id": bob.node_id}]


@on_sqlite
def test_a_seat_taken_again_ends_the_old_socket(gateway: Gateway) -> None:
    ann, bob = circle(gateway, "ann", "bob")
    old = ann.attach(bob)

    ann.attach(bob)

    assert old.frames() == [None]


@on_sqlite
def test_ping_is_answered_and_nonsense_refused(gateway: Gateway) -> None:
    (ann,) = circle(gateway, "ann")
    wire = ann.subscribe()

    for text in ('{"t":"PING"}', "[]", "{", "x" * 32_768, '{"t":"FRAME"}', '"\ud800"'):
        wire.send(text)

    answers = wire.frames()
    assert answers[0] == {"t": "PONG"}
    assert [found["t"] for found in answers[1:]] == ["ERROR"] * 5


@on_sqlite
def test_a_frame_in_base64_is_read(gateway: Gateway) -> None:
    (ann,) = circle(gateway, "ann")
    wire = ann.subscribe()
    context = {
        "connectionId": wire.id,
        "domainName": "x.execute-api.us-east-1.amazonaws.com",
        "apiId": "x",
        "stage": "api",
        "routeKey": "$default",
        "eventType": "MESSAGE",
    }
    for body in (b'{"t":"PING"}', b"\xff\xfe"):
        text = base64.b64encode(body).decode()
        event = {"requestContext": context, "body": text, "isBase64Encoded": True}
        gateway.machines[0].run("on_message", event)

    assert [found["t"] for found in wire.frames()] == ["PONG", "ERROR"]


@on_sqlite
def test_the_gateway_is_asked_where_it_holds_the_connection(gateway: Gateway) -> None:
    (ann,) = circle(gateway, "ann")
    wire = ann.subscribe()
    stores = gateway.machines[0].module.host.service.stores

    socket = tables.socket(stores, wire.id, now=int(time.time()))

    assert socket is not None
    assert socket.endpoint == "https://a1b2c3d4e5.execute-api.us-east-1.amazonaws.com/api"


# --- pushing ----------------------------------------------------------------------


def test_a_message_is_pushed_to_everybody_but_its_sender(gateway: Gateway) -> None:
    ann, bob, cat = circle(gateway, "ann", "bob", "cat")
    wires = [member.subscribe() for member in (ann, bob, cat)]

    ann.leave("m0000001")

    assert [messages(wire) for wire in wires] == [[], ["m0000001"], ["m0000001"]]


def test_a_gone_connection_removes_itself_and_no_other(gateway: Gateway) -> None:
    ann, bob, cat = circle(gateway, "ann", "bob", "cat")
    gone, old, young = bob.subscribe(), cat.subscribe(), bob.subscribe()
    gone.vanish()

    ann.leave("m0000001")
    ann.leave("m0000002")

    stores = gateway.machines[0].module.host.service.stores
    room = tables.room(stores, ann.hint, now=int(time.time()))
    assert {socket.id for socket in room} == {old.id, young.id}
    assert messages(old) == messages(young) == ["m0000001", "m0000002"]
    assert tables.socket(stores, gone.id, now=int(time.time())) is None
    assert sorted(bob.collect()) == ["m0000001", "m0000002"]


@on_sqlite
def test_a_throttled_push_is_repeated(gateway: Gateway) -> None:
    ann, bob = circle(gateway, "ann", "bob")
    wire = bob.subscribe()
    gateway.faults[wire.id].extend([429, 429])

    ann.leave("m0000001")

    assert messages(wire) == ["m0000001"]


@on_sqlite
@pytest.mark.parametrize("fault", [429, 403, 413, 500])
def test_a_push_that_fails_fails_nothing_else(gateway: Gateway, fault: int) -> None:
    ann, bob, cat = circle(gateway, "ann", "bob", "cat")
    wire, other = bob.subscribe(), cat.subscribe()
    gateway.faults[wire.id].extend([fault] * 4)

    assert ann.leave("m0000001")["stored"] == 1
    gateway.faults[wire.id].clear()
    ann.leave("m0000002")

    assert messages(other) == ["m0000001", "m0000002"]
    assert messages(wire) == ["m0000002"], "it stays in the room, and polls for what it missed"


@on_sqlite
@pytest.mark.parametrize("fault", [429, 500])
def test_a_frame_that_nobody_took_is_not_acknowledged(gateway: Gateway, fault: int) -> None:
    ann, bob = circle(gateway, "ann", "bob")
    session_id = ann.session(bob)["session_id"]
    near, far = ann.attach(bob), bob.attach(ann)
    near.frames()
    gateway.faults[far.id].extend([fault] * 4)

    near.send(frame(session_id, 7))

    (answer,) = near.frames()
    assert (answer["t"], answer["code"], answer["retryable"], answer["seq"]) == (
        "ERROR",
        "NOT_FOUND",
        True,
        7,
    )
    gateway.faults[far.id].clear()
    near.send(frame(session_id, 7))
    assert [found["t"] for found in near.frames()] == ["ACK"]


@on_sqlite
def test_a_gateway_that_hangs_does_not_hold_up_the_answer(gateway: Gateway) -> None:
    ann, bob, cat = circle(gateway, "ann", "bob", "cat")
    stuck, wire = bob.subscribe(), cat.subscribe()
    gateway.faults[stuck.id].append(HANG)

    started = time.monotonic()
    assert ann.leave("m0000001")["stored"] == 1

    assert time.monotonic() - started < 4
    assert messages(wire) == ["m0000001"]


@on_sqlite
def test_a_large_room_is_told_side_by_side_and_everyone_in_order(gateway: Gateway) -> None:
    ann, *others = circle(gateway, "ann", *(f"b{number:02}" for number in range(20)))
    wires = [member.subscribe() for member in others]
    large = [f"m{number:07}" for number in range(12)]
    gateway.delay_s = 0.02

    started = time.monotonic()
    ann.leave(*large, size=60_000)
    took = time.monotonic() - started

    assert [messages(wire) for wire in wires] == [large] * len(wires)
    assert took < 20 * 6 * gateway.delay_s, "one after the other"


def test_a_message_that_comes_through_one_machine_reaches_who_is_at_another(
    gateway: Gateway,
) -> None:
    ann, bob = circle(gateway, "ann", "bob")
    here, there = gateway.machines[0], gateway.start()
    wire = gateway.open(f"token={bob.token()}", machine=here)

    ann.leave("m0000001", machine=there)
    assert messages(wire) == ["m0000001"]

    session_id = ann.session(bob)["session_id"]
    near, far = ann.attach(bob, machine=here), bob.attach(ann, machine=there)
    far.frames()
    near.send(frame(session_id, 1), machine=there)
    far.send(frame(session_id, 2), machine=here)

    assert [found["t"] for found in near.frames()] == ["ATTACHED", "ACK", "FRAME"]
    assert [found["t"] for found in far.frames()] == ["FRAME", "ACK"]
    assert sorted(bob.collect(machine=here)) == sorted(bob.collect(machine=there)) == ["m0000001"]


# --- sweeping ---------------------------------------------------------------------

CLOCK_EVENT = {
    "version": "0",
    "id": "53dc4d37-cffa-4f76-80c9-8b7d4a4d2eaa",
    "detail-type": "Scheduled Event",
    "source": "aws.events",
    "account": "123456789012",
    "time": "2026-10-08T16:53:06Z",
    "region": "us-east-1",
    "resources": ["arn:aws:events:us-east-1:123456789012:rule/muster"],
    "detail": {},
}


def test_the_clock_ends_seats_that_are_idle(gateway: Gateway) -> None:
    ann, bob = circle(gateway, "ann", "bob")
    near, far = ann.attach(bob), bob.attach(ann)
    near.frames(), far.frames()
    stores = gateway.machines[0].module.host.service.stores
    now = int(time.time())
    seat = tables.socket(stores, near.id, now=now)
    assert seat is not None
    tables.touch(stores, seat, now=now - 100)

    gateway.machines[0].run("sweep", CLOCK_EVENT)

    error, end = near.frames()
    assert (error["t"], error["code"], end) == ("ERROR", "IDLE", None)
    assert [found["t"] for found in far.frames()] == ["GONE"]


# --- when DynamoDB is not well ------------------------------------------------------


def assert_unavailable(answer: Answer) -> None:
    assert (answer.status, code(answer)) == (503, "UNAVAILABLE")
    assert answer.json()["retryable"]
    assert answer.headers["retry-after"] == "1"


@pytest.mark.parametrize("verdict", ["throttle", "break", "hang"])
def test_a_store_that_fails_is_an_answer_and_nothing_is_half_written(
    way: faults.Way, shaky: Gateway, verdict: str
) -> None:
    ann, bob = circle(shaky, "ann", "bob")
    body = {"circle_hint": ann.hint, "messages": [{"msg_id": f"m{n:07}"} for n in range(50)]}
    wire = bob.subscribe()

    way.judge = lambda operation: verdict
    started = time.monotonic()
    answer = ann.call("POST", "/v1/messages", body)
    took = time.monotonic() - started
    way.clear()

    assert_unavailable(answer)
    assert took < 9, "there must be an answer before Lambda's time is out"
    assert bob.collect() == []
    assert messages(wire) == []
    assert ann.ask("POST", "/v1/messages", body)["stored"] == 50
    assert len(bob.collect()) == len(messages(wire)) == 50


@pytest.mark.parametrize("skipped", range(6))
def test_a_store_that_fails_half_way_writes_nothing_by_halves(
    way: faults.Way, shaky: Gateway, skipped: int
) -> None:
    ann, bob = circle(shaky, "ann", "bob")
    ann.leave("m0000000")
    body = {"circle_hint": ann.hint, "messages": [{"msg_id": f"m{n:07}"} for n in range(5)]}
    seen: list[str] = []

    def judge(operation: str) -> str:
        seen.append(operation)
        return "pass" if len(seen) <= skipped else "throttle"

    way.judge = judge
    answer = ann.call("POST", "/v1/messages", body)
    way.clear()

    if answer.status != 200:
        assert_unavailable(answer)
        assert bob.collect() in (["m0000000"], [f"m{n:07}" for n in range(5)])
    ann.ask("POST", "/v1/messages", body)
    assert bob.collect() == [f"m{n:07}" for n in range(5)]


def test_a_socket_is_refused_and_a_frame_answered_while_the_store_fails(
    way: faults.Way, shaky: Gateway
) -> None:
    ann, bob = circle(shaky, "ann", "bob")
    session_id = ann.session(bob)["session_id"]
    near, far = ann.attach(bob), bob.attach(ann)
    near.frames(), far.frames()
    token = bob.token()

    way.judge = lambda operation: "throttle"
    assert refused(shaky, f"token={token}") == (503, "UNAVAILABLE")
    near.send(frame(session_id, 1))
    far.close()
    shaky.machines[0].run("sweep", CLOCK_EVENT)
    way.clear()

    (answer,) = near.frames()
    assert (answer["t"], answer["code"], answer["retryable"]) == ("ERROR", "UNAVAILABLE", True)
    near.send(frame(session_id, 2))
    assert [found["t"] for found in near.frames()] == ["ERROR", "GONE"]


def test_a_dynamodb_that_is_not_there_is_an_answer(tmp_path: Path) -> None:
    with contextlib.ExitStack() as stack, contextlib.ExitStack() as first:
        url = first.enter_context(dynalite.running())
        running = aws.running("dynalite", directory=tmp_path, dynalite_url=url)
        gateway = stack.enter_context(running)
        (ann,) = circle(gateway, "ann")
        first.close()

        assert_unavailable(ann.call("GET", "/v1/peers", query=f"circle_hint={ann.hint}"))
        assert gateway.call("GET", "/v1/health").status == 200


# --- logs -------------------------------------------------------------------------


@pytest.fixture
def own_log() -> Iterator[None]:
    """Give the log back as it was."""
    logger = logging.getLogger("muster")
    before = logger.handlers, logger.propagate, logger.level
    yield
    logger.handlers, logger.propagate = before[0], before[1]
    logger.setLevel(before[2])


@on_sqlite
@pytest.mark.usefixtures("own_log")
@pytest.mark.parametrize("settings", [{"AWS_LAMBDA_FUNCTION_NAME": "muster-test"}])
def test_every_call_is_one_line_without_secrets(
    gateway: Gateway, capsys: pytest.CaptureFixture[str]
) -> None:
    (ann,) = circle(gateway, "ann")
    token = ann.token()
    gateway.open(f"token={token}&circle_hint={ann.hint}")
    refused(gateway, "token=nonsense")
    peers = gateway.call("GET", "/v1/peers", query=f"circle_hint={ann.hint}")

    text = capsys.readouterr().out
    lines = [json.loads(line) for line in text.splitlines()]

    calls = [line for line in lines if line["logger"] == "muster.calls"]
    assert [line["message"] for line in calls] == [
        "POST /v1/register 200",
        "POST /v1/relay/subscription 200",
        "GET /v1/relay/ws 200",
        "GET /v1/relay/ws 401",
        "GET /v1/peers 401",
    ]
    assert calls[-1]["request_id"] == peers.headers["x-request-id"]
    for secret in (token, ann.hint, ann.key.hex(), "198.51.100.7"):
        assert secret not in text


# --- deployment -------------------------------------------------------------------


def test_a_cold_start_loads_nothing_it_does_not_need() -> None:
    heavy = (
        "boto3 botocore cryptography nacl sqlite3 asyncio concurrent.futures uvicorn websockets "
        "httpx2 jsonschema muster.felund.client chalicelib.local chalicelib.store.dynamodb"
    )
    program = f"import sys, app\nprint(*sorted(set({heavy.split()!r}) & set(sys.modules)))\n"
    unmeasured = {name: value for name, value in os.environ.items() if "COVERAGE" not in name}
    done = subprocess.run(
        [sys.executable, "-c", program],
        cwd=ROOT,
        env=unmeasured,
        capture_output=True,
        text=True,
        check=True,
    )

    assert done.stdout.split() == []


def test_every_route_is_deployed_and_nothing_else(gateway: Gateway) -> None:
    app = gateway.machines[0].module.app

    assert set(app.routes) == {events.EVERY}
    assert all(set(methods) == set(host.METHODS) for methods in app.routes.values())
    assert set(app.websocket_handlers) == {"$connect", "$default", "$disconnect"}
