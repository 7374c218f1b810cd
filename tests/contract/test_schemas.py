"""The API documents: current, valid, and held against what the service really answers."""

import json
import typing
from collections.abc import Iterator
from typing import Any

import pytest
from jsonschema import Draft202012Validator  # type: ignore[import-untyped] # has no types
from referencing import Registry, Resource
from referencing.jsonschema import DRAFT202012
from schemathesis.specs.openapi.definitions import OPENAPI_31

from capsules import ticket as tickets
from capsules.keys import SigningKey
from chalicelib import proved
from chalicelib.call import Call
from chalicelib.routes import ROUTES, Route
from muster import shapes
from muster.felund import frames, signing
from tests.support.circle import ANN, BOB, HINT, SECRET, START, World, world
from tests.support.version2 import Wire, in_world, new_epoch
from tools import asyncapi, examples, openapi

OPENAPI = openapi.document()
ASYNCAPI = asyncapi.document()
PROVED = [route for route in ROUTES if route.guard in (proved.sync, proved.info)]
EVERY_ROUTE = pytest.mark.parametrize("route", ROUTES, ids=lambda r: f"{r.method} {r.path}")


def validator(document: dict[str, Any], pointer: str) -> Draft202012Validator:
    """Return a validator for a schema inside a document."""
    resource = Resource.from_contents(document, default_specification=DRAFT202012)
    registry: Registry[Any] = Registry().with_resource("urn:document", resource)
    return Draft202012Validator(
        {"$schema": openapi.DIALECT, "$ref": f"urn:document#{pointer}"}, registry=registry
    )


def check(document: dict[str, Any], name: str, value: Any) -> None:
    """Hold a value against a schema of a document; nothing may be there that it does not name."""
    schema = document["components"]["schemas"][name]
    validator(document, f"/components/schemas/{name}").validate(value)
    assert set(value) <= set(schema["properties"])


# --- the documents --------------------------------------------------------------


@pytest.mark.parametrize("path", openapi.documents(), ids=lambda path: path.name)
def test_the_documents_are_current(path: Any) -> None:
    assert path.read_text(encoding="utf-8") == openapi.documents()[path], "make openapi"


def test_a_stale_document_is_found_and_rewritten(
    tmp_path: Any, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(openapi, "DOCS", tmp_path)
    assert openapi.main(["--check"]) == 1
    assert "docs/openapi.json is stale: make openapi" in capsys.readouterr().err
    assert openapi.main(["--write"]) == 0
    assert openapi.main(["--check"]) == 0
    (tmp_path / "asyncapi.json").write_text("{}")
    assert openapi.main(["--check"]) == 1
    assert openapi.main([]) == 0
    assert openapi.main(["--check"]) == 0


def test_the_openapi_document_is_one() -> None:
    Draft202012Validator(OPENAPI_31).validate(OPENAPI)


@pytest.mark.parametrize("document", [OPENAPI, ASYNCAPI], ids=["openapi", "asyncapi"])
def test_every_reference_leads_somewhere(document: dict[str, Any]) -> None:
    for reference in _references(document):
        found: Any = document
        for part in reference.removeprefix("#/").split("/"):
            found = found[part]
        assert found


@pytest.mark.parametrize("document", [OPENAPI, ASYNCAPI], ids=["openapi", "asyncapi"])
def test_every_schema_is_one(document: dict[str, Any]) -> None:
    for schema in document["components"]["schemas"].values():
        Draft202012Validator.check_schema(schema)


@EVERY_ROUTE
def test_every_route_is_described(route: Route) -> None:
    operation = OPENAPI["paths"][route.path][route.method.lower()]
    assert operation["summary"].endswith(".")
    assert {"200", "400", "429", "500", "503"} <= set(operation["responses"])
    assert route.ask.__name__ in OPENAPI["components"]["schemas"]
    assert route.answer.__name__ in OPENAPI["components"]["schemas"]


def test_operations_have_names_of_their_own() -> None:
    names = [
        operation["operationId"]
        for path in OPENAPI["paths"].values()
        for operation in path.values()
    ]
    assert len(names) == len(set(names)) == len(ROUTES) + len(("app_page", "app_file"))


@EVERY_ROUTE
def test_every_example_fits(route: Route) -> None:
    example = examples.of(route.method, route.path)
    assert example, "put one into tools/examples.py"
    asked, answered = example
    assert (type(asked), type(answered)) == (route.ask, route.answer)
    members = examples.plain(asked)
    if route.method == "GET":
        members = {name: value for name, value in members.items() if value is not None}
    check(OPENAPI, route.ask.__name__, members)
    check(OPENAPI, route.answer.__name__, examples.plain(answered))


def test_the_example_of_signing_is_accepted() -> None:
    example = OPENAPI["x-muster-signing"]["example"]
    w = world()
    w.clock = float(examples.NOW)
    registers = examples.of("POST", "/v1/register")
    assert registers
    w.call("POST", "/v1/register", examples.plain(registers[0]), node=examples.NODE)
    reply = w.reply(
        Call(
            example["method"],
            example["path"],
            headers={name.lower(): value for name, value in example["headers"].items()},
            body=example["body"].encode(),
            clock=w.clock,
        )
    )
    assert (reply.status, json.loads(reply.body)) == (200, {"ok": True, "removed": True})


# --- the WebSocket ---------------------------------------------------------------


def test_every_frame_is_described() -> None:
    told, heard = (
        {
            frame.__name__
            for shape in (getattr(frames, way), getattr(shapes, way))
            for frame in typing.get_args(shape)
        }
        for way in ("FromService", "FromNode")
    )
    assert set(ASYNCAPI["components"]["messages"]) == told | heard
    directions = {"receive": heard, "send": told}
    for verb, names in directions.items():
        found = {
            reference["$ref"].rpartition("/")[2]
            for operation in ASYNCAPI["operations"].values()
            if operation["action"] == verb
            for reference in operation["messages"]
        }
        assert found == names


def test_every_example_of_a_frame_fits() -> None:
    for name, message in ASYNCAPI["components"]["messages"].items():
        assert message["examples"]
        for example in message["examples"]:
            check(ASYNCAPI, name, example["payload"])


def test_the_asyncapi_document_has_what_one_must_have() -> None:
    assert ASYNCAPI["asyncapi"] == "3.0.0"
    assert {"title", "version"} <= set(ASYNCAPI["info"])
    for server in ASYNCAPI["servers"].values():
        assert {"host", "protocol"} <= set(server)
    for operation in ASYNCAPI["operations"].values():
        channel = operation["channel"]["$ref"]
        assert operation["action"] in ("send", "receive")
        assert all(one["$ref"].startswith(f"{channel}/messages/") for one in operation["messages"])


# --- what is really said -----------------------------------------------------------


def test_real_answers_are_as_described() -> None:
    w = world(assist_open="allow")
    seen = set()
    for method, path, members, node in _dialogue():
        query = {k: str(v) for k, v in members.items()} if method == "GET" else None
        body = None if method == "GET" else members
        status, answer = w.call(method, path, body, query=query, node=node)
        assert status == 200, (method, path, answer)
        check(OPENAPI, _route(method, path).answer.__name__, answer)
        seen.add((method, path))
    assert seen == {(route.method, route.path) for route in ROUTES if route not in PROVED}


def test_real_answers_of_version_2_are_as_described() -> None:
    w = world()
    epoch = new_epoch()
    ann, bob = in_world(w, epoch), in_world(w, epoch)
    sent = {"messages": [ann.message("hello")], "signals": [ann.signal(bob)]}
    ann.sync(presence={"sealed": ann.presence()}, send=sent)
    whole = {"peers": True, "messages": 9, "signals": 9}
    answers = [
        bob.sync(want=whole),
        ann.sync(presence={"sealed": ann.presence()}, quiet=True),
        ann.sync(after={"messages": 2**53 - 1}, want=whole),
    ]

    assert all(answers[0][name] for name in ("peers", "signals", "entries"))
    assert [list(answer["refused"]) for answer in answers] == [[], ["presence"], ["messages"]]
    for answer in answers:
        check(OPENAPI, "Synced", answer)
    check(OPENAPI, "ServiceInfo", json.loads(ann.send("GET", "/v2/info", {}, b"")[2]))


@EVERY_ROUTE
@pytest.mark.parametrize("body", [b"{", b"[]", b"\xff", b'{"node_id":1}', b"x" * 2_000_000])
def test_real_refusals_are_as_described(route: Route, body: bytes) -> None:
    w = world(unsigned="allow")
    reply = w.reply(
        Call(
            route.method,
            route.path,
            body=body,
            query={"circle_hint": "short", "limit": "x"},
            clock=w.clock,
        )
    )
    if reply.status == 200:
        return  # health and info take no parameters, and a call without a body has none
    responses = OPENAPI["paths"][route.path][route.method.lower()]["responses"]
    assert str(reply.status) in responses
    check(OPENAPI, "Problem" if route.refusal else "ErrorBody", json.loads(reply.body))


@pytest.mark.parametrize("status", [401, 404, 409, 429, 503])
def test_refusals_of_each_status_are_as_described(status: int) -> None:
    w = world(node_burst=3, node_per_s=1)
    replies = {
        401: lambda: w.call("GET", "/v1/peers", query={"circle_hint": HINT}, key=None),
        404: lambda: w.session(ANN, "nobody-0003"),
        409: lambda: _replayed(w),
        429: lambda: [w.register(ANN) for _ in range(9)][-1],
        503: lambda: _without_store(w),
    }
    w.register(ANN)
    found, body = replies[status]()
    assert found == status
    check(OPENAPI, "ErrorBody", body)
    assert body["code"] in OPENAPI["components"]["responses"][f"Refused{status}"]["description"]


def test_real_frames_of_version_2_are_as_described() -> None:
    w = world()
    epoch = new_epoch()
    ann, bob = (Wire(w, in_world(w, epoch), name) for name in ("ann", "bob"))
    body = json.dumps({"send": {"messages": [ann.node.message("hello")]}})
    told = [*ann.raw_sync(body), *bob.told()]
    frame = {"t": "FRAME", "n": 2, "payload": "AAAA"}
    told += [*ann.say(frame | {"to": bob.node.id}), *bob.told()]
    told += ann.say(frame | {"to": "0" * 32})
    w.clock += 1
    Wire(w, ann.node, "again")
    told += ann.told()
    names = {"FRAME": "PassedFrame", "ERROR": "ErrorFrame", "SYNCED": "SyncedFrame"}

    for one in told:
        check(ASYNCAPI, names.get(one["t"], one["t"].title()), one)
    assert {one["t"] for one in told} == {*names, "EVENT", "TAKEN", "REPLACED"}


def test_real_frames_are_as_described() -> None:
    w = world()
    w.register(ANN)
    w.register(BOB)
    listening = w.subscribe(BOB, "subscription")
    w.leave("message-1")
    w.call("POST", "/v1/signal", _signal(), node=ANN)
    w.register(ANN, endpoints=[])
    w.call("DELETE", "/v1/register", {"node_id": ANN, "circle_hint": HINT}, node=ANN)
    w.say(listening, {"t": "PING"})
    w.say(listening, {"t": "FRAME"})
    w.register(ANN)
    seats = {}
    for node, other in ((ANN, BOB), (BOB, ANN)):
        _, opened = w.session(node, other)
        seats[node] = w.open(f"seat-{node}", opened["token"])
    frame = {"t": "FRAME", "session_id": opened["session_id"], "seq": 1, "payload_b64": "AAAA"}
    w.say(seats[ANN], frame)
    w.say(seats[BOB], {"t": "ACK", "session_id": opened["session_id"], "seq": 1})
    w.open(f"again-{BOB}", w.session(BOB, ANN)[1]["token"])
    seen = set()
    for sent in w.gateway.sent.values():
        for told in sent:
            name = told["t"].title()
            check(ASYNCAPI, name, told)
            seen.add(name)
    assert seen >= {"Messages", "Signals", "Presence", "Pong", "Error", "Frame", "Ack", "Attached"}


def _dialogue() -> Iterator[tuple[str, str, dict[str, Any], str]]:
    key = signing.request_key(SECRET).hex()
    endpoint = {"transport": "tcp", "host": "192.0.2.7", "port": 9999}
    yield "GET", "/v1/health", {}, ANN
    yield "GET", "/v1/info", {}, ANN
    for node in (ANN, BOB):
        asked = {"node_id": node, "circle_hint": HINT, "signing_key": key, "endpoints": [endpoint]}
        yield "POST", "/v1/register", asked, node
    yield "GET", "/v1/peers", {"circle_hint": HINT}, ANN
    left = {"circle_hint": HINT, "messages": [examples.MESSAGE]}
    yield "POST", "/v1/messages", left, ANN
    yield "GET", "/v1/messages", {"circle_hint": HINT, "after": 0}, BOB
    yield "GET", "/v1/messages", {"circle_hint": HINT, "since": 0}, BOB
    yield "POST", "/v1/signal", _signal(), ANN
    yield "GET", "/v1/signal", {"to_node_id": BOB, "circle_hint": HINT}, BOB
    yield (
        "POST",
        "/v1/relay/session",
        {
            "node_id": ANN,
            "target_node_id": BOB,
            "circle_hint": HINT,
        },
        ANN,
    )
    yield "POST", "/v1/relay/subscription", {"node_id": ANN, "circle_hint": HINT}, ANN
    yield "DELETE", "/v1/register", {"node_id": ANN, "circle_hint": HINT}, ANN
    ticket = tickets.create(
        SigningKey(bytes(32)),
        peer_id="peer-ann",
        user_id="ann",
        now_ms=START * 1000,
        nonce=bytes(12),
    )
    yield "POST", "/announce", {"ticket": ticket.to_json()}, ANN
    yield "POST", "/announce", {"ticket": {**ticket.to_json(), "algorithm": "rsa"}}, ANN
    yield "GET", "/peers", {"community": "mainnet"}, ANN
    yield "POST", "/v1/session", {"node_id": ANN, "circle_hint": HINT}, ANN
    yield "POST", "/api/p2p/assist", {"paths": [{"address": "relay.example.org"}]}, ANN
    yield "GET", "/api/p2p/assist", {}, ANN


def _signal() -> dict[str, Any]:
    return {
        "session_id": f"{ANN}:{BOB}",
        "from_node_id": ANN,
        "to_node_id": BOB,
        "circle_hint": HINT,
        "type": "offer",
        "payload": "v=0",
    }


def _replayed(w: World) -> tuple[int, dict[str, Any]]:
    headers = w.signed("GET", "/v1/peers", b"", node=ANN, key=signing.request_key(SECRET))
    for _ in range(2):
        answer = w.call("GET", "/v1/peers", query={"circle_hint": HINT}, headers=headers)
    return answer


def _without_store(w: World) -> tuple[int, dict[str, Any]]:
    from chalicelib.store import Unavailable

    class Down:
        def __getattr__(self, verb: str) -> Any:
            def fail(*args: Any, **more: Any) -> Any:
                raise Unavailable

            return fail

    w.service.stores = w.service.stores._replace(presence=Down())
    return w.call("GET", "/v1/peers", query={"circle_hint": HINT})


def _route(method: str, path: str) -> Route:
    return next(route for route in ROUTES if (route.method, route.path) == (method, path))


def _references(value: Any) -> Iterator[str]:
    if isinstance(value, dict):
        if isinstance(value.get("$ref"), str):
            yield value["$ref"]
        for child in value.values():
            yield from _references(child)
    elif isinstance(value, list):
        for child in value:
            yield from _references(child)
