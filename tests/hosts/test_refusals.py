"""Does every refusal look the same, whichever host and whichever layer of it says no?"""

import json
import sqlite3
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, closing
from types import SimpleNamespace
from typing import Any, NamedTuple, Protocol

import pytest

from chalicelib import http
from chalicelib.circle import sockets
from chalicelib.local import main
from chalicelib.local.websockets import WebSocket
from chalicelib.settings import Settings
from chalicelib.store import Stores
from muster.errors import (
    InternalError,
    InvalidRequest,
    InvalidSignature,
    InvalidToken,
    MethodNotAllowed,
    NotFound,
    PayloadTooLarge,
    RateLimited,
    Refused,
    Unavailable,
)
from tests.support import faults
from tests.support.gateway import Gateway, HandshakeRefused, rest_event
from tests.support.local import Server, request, start
from tests.support.members import circle

HINT = "0123456789abcdef"
ASSIST = "/api/p2p/assist"
MEMBER = f"?circle_hint={HINT}&node_id=node-00001"
HANDSHAKE = {
    "Connection": "Upgrade",
    "Upgrade": "websocket",
    "Sec-WebSocket-Version": "13",
    "Sec-WebSocket-Key": "dGhlIHNhbXBsZSBub25jZQ==",
}
OF_THE_CONNECTION = {"content-length", "connection", "date", "x-request-id"}


class Answer(Protocol):
    """An answer of either host; header names in lower case."""

    @property
    def status(self) -> int: ...
    @property
    def headers(self) -> Mapping[str, str]: ...
    @property
    def body(self) -> bytes: ...


def is_refusal(answer: Answer, expected: Refused, path: str) -> None:
    """Check that an answer is what `http.refuse` makes of a refusal with this message."""
    expected.message = json.loads(answer.body)["message"]
    made = http.refuse(expected, path)
    headers = {name.lower(): value for name, value in made.headers.items()}
    found = {name: answer.headers[name] for name in answer.headers.keys() - OF_THE_CONNECTION}
    assert (answer.status, json.loads(answer.body)) == (made.status, json.loads(made.body))
    assert found == headers
    assert answer.headers["x-request-id"]


# --- the one-machine host -------------------------------------------------------------


SERVERS: dict[str, dict[str, str]] = {
    "usual": {"head_s": "1", "body_s": "1", "waiting_body_bytes": "200000"},
    "full": {"sockets": "1", "connections": "3"},
    "strict": {"address_burst": "1", "address_per_s": "1", "address_connections": "2"},
}


class Case(NamedTuple):
    """A way to be refused by one of the `SERVERS`."""

    ask: Callable[[Server], Answer]
    refusal: Refused
    path: str = ""
    server: str = "usual"


@pytest.fixture(scope="module")
def server_of(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[[str], Server]]:
    """Start each server when the first case asks for it."""
    made: dict[str, Server] = {}

    def give(name: str) -> Server:
        if name not in made:
            folder = tmp_path_factory.mktemp(name)
            made[name] = start(folder, "--unsigned=allow", **SERVERS[name])
        return made[name]

    yield give
    for server in made.values():
        server.stop()
        assert server.process.stdout
        assert server.process.stderr
        server.process.stdout.close()
        server.process.stderr.close()


def calls(method: str, path: str, body: bytes = b"") -> Callable[[Server], Answer]:
    return lambda server: server.call(method, path, body)


def says(data: bytes) -> Callable[[Server], Answer]:
    def ask(server: Server) -> Answer:
        with closing(server.open()) as wire:
            wire.send(data)
            return wire.answer()

    return ask


def opens(target: str = sockets.PATH + MEMBER, **more: str) -> Callable[[Server], Answer]:
    named = {name.replace("_", "-"): value for name, value in more.items()}
    return says(request("GET", target, headers=HANDSHAKE | named))


def too_often(ask: Callable[[Server], Answer]) -> Callable[[Server], Answer]:
    """Ask until the address is over its limit."""

    def again(server: Server) -> Answer:
        return next(answer for _ in range(20) if (answer := ask(server)).status == 429)

    return again


def beside(count: int, ask: Callable[[Server], Answer]) -> Callable[[Server], Answer]:
    """Ask while so many connections are open."""

    def crowded(server: Server) -> Answer:
        with ExitStack() as stack:
            for _ in range(count):
                stack.enter_context(closing(server.open())).call("GET", "/v1/health")
            return ask(server)

    return crowded


def beside_a_socket(server: Server) -> Answer:
    with server.websocket(MEMBER):
        return opens()(server)


def while_the_store_is_locked(server: Server) -> Answer:
    with closing(sqlite3.connect(server.directory / "muster.sqlite3")) as other:
        other.execute("BEGIN IMMEDIATE")
        return opens()(server)


def beside_an_unreadable_capsule(server: Server) -> Answer:
    (server.directory / "capsules/broken/peers.json").mkdir(parents=True, exist_ok=True)
    return server.call("GET", "/capsules/broken/peers.json")


def listens(server: Server) -> Answer:
    """Send nothing, as the connection itself is refused."""
    with closing(server.open()) as wire:
        return wire.answer()


HALF = b"POST /v1/messages HTTP/1.1\r\nHost: a\r\nContent-Length: "

LOCAL = {
    "no such path": Case(calls("GET", "/nowhere"), NotFound("")),
    "no such method": Case(
        calls("PUT", "/v1/health"), MethodNotAllowed("", allow="GET, OPTIONS"), "/v1/health"
    ),
    "no such method of a problem path": Case(
        calls("PUT", ASSIST), MethodNotAllowed("", allow="POST, GET, OPTIONS"), ASSIST
    ),
    "no token for a problem path": Case(calls("GET", ASSIST), InvalidToken(""), ASSIST),
    "no such method of the status page": Case(
        calls("POST", "/"), MethodNotAllowed("", allow="GET, OPTIONS")
    ),
    "no such method of a capsule": Case(
        calls("POST", "/capsules/mainnet/peers.json"),
        MethodNotAllowed("", allow="GET, HEAD, OPTIONS"),
    ),
    "no such capsule": Case(calls("GET", "/capsules/mainnet/peers.json"), NotFound("")),
    "no capsule that can be read": Case(
        beside_an_unreadable_capsule, Unavailable("", retry_after_s=30)
    ),
    "no query": Case(calls("GET", "/v1/peers?circle_hint=%zz"), InvalidRequest("")),
    "no query of a problem path": Case(calls("GET", ASSIST + "?a=%zz"), InvalidRequest(""), ASSIST),
    "no HTTP": Case(says(b"nonsense\r\n\r\n"), InvalidRequest("")),
    "a head that is slow": Case(says(b"GET /v1/hea"), InvalidRequest("")),
    "a body that is slow": Case(says(HALF + b"10\r\n\r\n{"), InvalidRequest("")),
    "a body that is large": Case(says(HALF + b"9999999\r\n\r\n"), PayloadTooLarge("")),
    "a large body of a problem path, and no token": Case(
        calls("POST", ASSIST, b" " * 2_000_000), InvalidToken(""), ASSIST
    ),
    "large bodies of all": Case(
        says(HALF + b"300000\r\n\r\n" + b"x" * 250_000), Unavailable("", retry_after_s=5)
    ),
    "calls too often": Case(
        too_often(calls("GET", "/v1/health")),
        RateLimited("", retry_after_s=1),
        server="strict",
    ),
    "the status page too often": Case(
        too_often(calls("GET", "/")), RateLimited("", retry_after_s=1), server="strict"
    ),
    "capsules too often": Case(
        too_often(calls("GET", "/capsules/mainnet/peers.json")),
        RateLimited("", retry_after_s=1),
        server="strict",
    ),
    "connections from one address": Case(
        beside(2, listens), RateLimited("", retry_after_s=5), server="strict"
    ),
    "connections from all": Case(
        beside(3, listens), Unavailable("", retry_after_s=5), server="full"
    ),
    "no handshake": Case(opens(Sec_WebSocket_Version="8"), InvalidRequest("")),
    "a handshake elsewhere": Case(opens("/v1/nowhere"), NotFound("")),
    "a handshake at a problem path": Case(opens(ASSIST), NotFound(""), ASSIST),
    "a handshake without a query": Case(opens(sockets.PATH), InvalidRequest("")),
    "a handshake with a forged token": Case(opens(sockets.PATH + "?token=x"), InvalidToken("")),
    "handshakes too often": Case(
        too_often(opens(sockets.PATH + "?token=x")),
        RateLimited("", retry_after_s=1),
        server="strict",
    ),
    "a handshake beside too many sockets": Case(
        beside_a_socket, RateLimited("", retry_after_s=30), server="full"
    ),
    "a handshake while the store is locked": Case(
        while_the_store_is_locked, Unavailable("", retry_after_s=1)
    ),
}


@pytest.mark.parametrize("case", LOCAL.values(), ids=LOCAL)
def test_a_refusal_of_the_one_machine_host_is_whole(
    server_of: Callable[[str], Server], case: Case
) -> None:
    answer = case.ask(server_of(case.server))

    is_refusal(answer, case.refusal, case.path)


class Broken:
    """A store whose verbs all fail in a way that nobody foresaw."""

    def __getattr__(self, name: str) -> Any:
        raise RuntimeError("nobody foresaw this")


def test_a_handshake_that_fails_in_a_way_nobody_foresaw_is_refused_whole() -> None:
    broken: Any = Broken()
    host = main.build(Settings(unsigned="allow"), Stores(broken, broken, broken))
    websocket = WebSocket(host.desk, server_state=SimpleNamespace(connections=set()))
    scope = {"scheme": "ws", "path": sockets.PATH, "query_string": MEMBER[1:].encode()}

    reply = host.desk.admit(
        scope | {"method": "GET", "headers": [], "client": ("192.0.2.7", 4711)}, websocket
    )

    headers = {name.lower(): value for name, value in reply.headers.items()}
    answer = SimpleNamespace(status=reply.status, headers=headers, body=reply.body)
    is_refusal(answer, InternalError(""), sockets.PATH)


# --- the AWS host ---------------------------------------------------------------------


on_sqlite = pytest.mark.parametrize("engine", ["sqlite"], indirect=True)


def refused(gateway: Gateway, query: str = "") -> Answer:
    """Open a socket that must be refused."""
    with pytest.raises(HandshakeRefused) as caught:
        gateway.open(query)
    return caught.value.answer


def answered(gateway: Gateway, event: Mapping[str, Any]) -> Answer:
    """Let the machine answer an event that no gateway would let through."""
    result = gateway.machines[0].run("app", event)
    headers = {name.lower(): value for name, value in result["headers"].items()}
    return SimpleNamespace(
        status=result["statusCode"], headers=headers, body=result["body"].encode()
    )


@on_sqlite
@pytest.mark.parametrize("settings", [{"MUSTER_ADDRESS_BURST": "2", "MUSTER_ADDRESS_PER_S": "1"}])
def test_a_handshake_that_the_aws_host_refuses_is_refused_whole(gateway: Gateway) -> None:
    is_refusal(refused(gateway), InvalidToken(""), sockets.PATH)
    is_refusal(refused(gateway, "token=x"), InvalidToken(""), sockets.PATH)
    is_refusal(refused(gateway), RateLimited("", retry_after_s=1), sockets.PATH)


def test_a_handshake_is_refused_whole_while_the_store_is_away(
    way: faults.Way, shaky: Gateway
) -> None:
    (ann,) = circle(shaky, "ann")
    query = f"token={ann.token()}"
    way.judge = lambda operation: "throttle"
    answer = refused(shaky, query)
    way.clear()

    is_refusal(answer, Unavailable("", retry_after_s=1), sockets.PATH)


@on_sqlite
@pytest.mark.parametrize("path", ["/v1/messages", ASSIST])
def test_an_event_that_cannot_be_read_is_refused_whole(
    gateway: Gateway, path: str, caplog: pytest.LogCaptureFixture
) -> None:
    event = rest_event("POST", path, request_id="r-1")
    event |= {"body": "a", "isBase64Encoded": True}

    answer = answered(gateway, event)

    is_refusal(answer, InternalError(""), path)
    assert answer.headers["x-request-id"] == "r-1"
    assert [getattr(line, "request_id", "") for line in caplog.records if line.exc_info] == ["r-1"]


@on_sqlite
@pytest.mark.parametrize(
    ("method", "path", "expected"),
    [
        ("GET", "/v1/nothing", NotFound("")),
        ("TRACE", "/v1/health", MethodNotAllowed("", allow="GET, OPTIONS")),
        ("GET", ASSIST, InvalidToken("")),
        ("PUT", ASSIST, MethodNotAllowed("", allow="POST, GET, OPTIONS")),
        ("POST", "/v1/messages", InvalidSignature("")),
    ],
)
def test_a_call_that_the_aws_host_refuses_is_refused_whole(
    gateway: Gateway, method: str, path: str, expected: Refused
) -> None:
    event = rest_event("GET", path, request_id="r-1")
    event["requestContext"]["httpMethod"] = method

    is_refusal(answered(gateway, event), expected, path)
