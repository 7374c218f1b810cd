"""The door on both hosts: who is served where a service is closed, and at what price."""

import json
import os
import time
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, closing
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import pytest

from chalicelib import access, http, proved, tables, tokens
from chalicelib.call import Call
from chalicelib.circle import sockets
from chalicelib.local import main
from chalicelib.routes import ROUTES
from chalicelib.service import Service
from chalicelib.settings import Settings
from chalicelib.store import Stores, TableNames
from chalicelib.store.dynamodb import create_tables, open_client, open_dynamodb
from chalicelib.store.sqlite import open_sqlite
from muster.felund import signing
from tests.support import aws, gateway, stores
from tests.support.circle import Gateway as Nobody
from tests.support.felund import (
    Browser,
    PythonClient,
    WebClient,
    browser_socket,
    new_circle,
    sealed,
)
from tests.support.gateway import Gateway, HandshakeRefused
from tests.support.local import Server, request, running
from tools.bench.units import Tally

HOSTS = ("local", "sqlite", "dynalite")
ALLOWED, REVOKED, STRANGER = "a110wedcirc1e000", "a110wedcirc1e001", "5tranger00000000"
HANDSHAKE = {
    "Connection": "Upgrade",
    "Upgrade": "websocket",
    "Sec-WebSocket-Version": "13",
    "Sec-WebSocket-Key": "dGhlIHNhbXBsZSBub25jZQ==",
}
LATER = int(time.time()) + 3600


class Answer(Protocol):
    @property
    def status(self) -> int: ...
    def json(self) -> Any: ...


class House(NamedTuple):
    """A service on either host, and the tables that whoever runs it writes to."""

    served: Server | Gateway
    stores: Stores

    def call(
        self,
        method: str,
        path: str,
        query: str = "",
        body: bytes = b"",
        headers: Mapping[str, str] | None = None,
    ) -> Answer:
        headers = headers or {}
        if isinstance(self.served, Server):
            return self.served.call(method, f"{path}?{query}", body, headers)
        every = [("Content-Type", "application/json"), *headers.items()]
        return self.served.call(method, path, query=query, body=body, headers=every)

    def open(self, query: str) -> str:
        """Open a socket; return the code of the refusal, or nothing."""
        if isinstance(self.served, Gateway):
            try:
                self.served.open(query).close()
            except HandshakeRefused as refused:
                return str(json.loads(refused.answer.body)["code"])
            return ""
        with closing(self.served.open()) as wire:
            wire.send(request("GET", f"{sockets.PATH}?{query}", headers=HANDSHAKE))
            answer = wire.answer()
            return "" if answer.status == 101 else str(answer.json()["code"])

    def token(self, use: Any, circle_hint: str) -> str:
        seed = tables.service_seed(self.stores, os.urandom(32), now=0)
        made = tokens.Token(use, circle_hint, "node-00001", LATER)
        return tokens.issue(tokens.Ed25519Signer(seed), made)


def opened(stack: ExitStack, host: str, directory: Path, url: str, **settings: str) -> House:
    """Start a service on a host; let one circle in, and another in and out again."""
    if host == "local":
        chosen = {name.removeprefix("MUSTER_").lower(): text for name, text in settings.items()}
        served: Server | Gateway = stack.enter_context(running(directory, **chosen))
        found: Stores = open_sqlite(directory / "muster.sqlite3")
    else:
        served = stack.enter_context(
            aws.running(host, directory=directory, dynalite_url=url, **settings)
        )
        if host == "sqlite":
            found = open_sqlite(directory / "muster.db")
        else:
            names = TableNames(*(os.environ[f"MUSTER_TABLE_{t.upper()}"] for t in Stores._fields))
            found = open_dynamodb(
                tables=names, client=open_client(endpoint_url=url, region=gateway.REGION)
            )
    for circle_hint in (ALLOWED, REVOKED):
        tables.allow(found, circle_hint, tables.Allowed(), until=tables.FOREVER)
    assert tables.disallow(found, REVOKED, now=0)
    return House(served, found)


@pytest.fixture(scope="module", params=HOSTS)
def host(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(params=["open", "closed"])
def chosen(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def house(host: str, chosen: str, tmp_path: Path, dynalite_url: str) -> Iterator[House]:
    settings = {
        "MUSTER_ACCESS": chosen,
        "MUSTER_UNSIGNED": "allow",
        "MUSTER_COMMUNITY_NAMES": "home",
        "MUSTER_ASSIST_TOKENS": "given-out",
    }
    with ExitStack() as stack:
        yield opened(stack, host, tmp_path, dynalite_url, **settings)


def signed() -> dict[str, str]:
    """Return what a stranger can have: the form of a signature."""
    values = ("node-00001", str(int(time.time())), os.urandom(16).hex(), "0" * 64)
    names = (signing.NODE, signing.TIME, signing.NONCE, signing.SIGNATURE)
    return dict(zip(names, values, strict=True))


def refused(answer: Answer) -> bool:
    body = answer.json()
    if body.get("code") != "NOT_ALLOWED":
        return False
    assert answer.status == 403
    assert body.keys() == {"ok", "code", "message", "retryable", "detail"}
    return True


def test_every_route_serves_whom_it_should_and_refuses_the_rest(house: House, chosen: str) -> None:
    for circle_hint in (STRANGER, REVOKED, ALLOWED):
        kept_out = chosen == "closed" and circle_hint != ALLOWED
        named = {"circle_hint": circle_hint, "node_id": "node-00001"}
        for route in (r for r in ROUTES if r.knock in (access.circle, access.any_circle)):
            about = f"circle_hint={circle_hint}" if route.method == "GET" else ""
            body = b"" if route.method == "GET" else json.dumps(named).encode()
            answer = house.call(route.method, route.path, about, body, signed())
            assert refused(answer) is kept_out, (route.path, circle_hint)
        for query in (
            f"circle_hint={circle_hint}&node_id=node-00001",
            f"token={house.token('subscribe', circle_hint)}",
        ):
            assert house.open(query) == ("NOT_ALLOWED" if kept_out else ""), circle_hint


def test_a_bearer_of_assist_is_served_by_its_circle_or_by_the_operator_s_token(
    house: House, chosen: str
) -> None:
    for token, kept_out in (
        (house.token("assist", ALLOWED), False),
        (house.token("assist", STRANGER), chosen == "closed"),
        ("given-out", False),
    ):
        headers = {"Authorization": f"Bearer {token}"}
        if isinstance(house.served, Server):
            answer: Answer = house.served.call("GET", "/api/p2p/assist", headers=headers)
        else:
            answer = house.served.call("GET", "/api/p2p/assist", headers=list(headers.items()))
        assert answer.status == (403 if kept_out else 200)


def test_a_beacon_serves_the_communities_that_it_was_told_of(house: House, chosen: str) -> None:
    assert not refused(house.call("GET", "/peers", "community=home"))
    for query in ("community=other", ""):
        for method, body in (("GET", b""), ("POST", b'{"ticket":{}}')):
            path = "/peers" if method == "GET" else "/announce"
            assert refused(house.call(method, path, query, body)) is (chosen == "closed")


def test_anybody_may_ask_whether_it_lives_and_whether_it_is_open(house: House, chosen: str) -> None:
    assert house.call("GET", "/v1/health").status == 200
    assert house.call("GET", "/v1/info").json()["open"] is (chosen == "open")


@pytest.mark.parametrize("engine", ["sqlite"], indirect=True)
@pytest.mark.parametrize("settings", [{"MUSTER_ACCESS": "", "MUSTER_UNSIGNED": "allow"}])
def test_as_it_comes_the_aws_host_is_closed(gateway: Gateway) -> None:
    answer = gateway.call("GET", "/v1/messages", query=f"circle_hint={STRANGER}")

    assert refused(answer)


# --- what is this machine's, on the one-machine host --------------------------------------


@pytest.fixture(scope="module")
def usual(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A server as it comes, on loopback."""
    with running(tmp_path_factory.mktemp("usual"), "--unsigned=allow", access="") as server:
        yield server


OURS = ("localhost", "localhost:8787", "LOCALHOST", "127.0.0.1", "127.0.0.2:1", "[::1]:8787")
THEIRS = ("evil.example", "localhost.evil.example", "127.0.0.1.nip.io", "10.0.0.1:8787", "a b", "")
PASSED_ON = ("X-Forwarded-For", "Forwarded", "Via", "X-Real-IP", "X-Forwarded-Host", "CF-Ray")


@pytest.mark.parametrize(
    ("headers", "outside"),
    [
        *(({"Host": name}, False) for name in OURS),
        *(({"Host": name}, True) for name in THEIRS),
        *(({name: "127.0.0.1"}, True) for name in PASSED_ON),
        ({"Origin": "https://chat.example"}, False),
    ],
)
def test_a_call_that_was_passed_on_or_meant_for_another_name_is_a_stranger_s(
    usual: Server, headers: dict[str, str], outside: bool
) -> None:
    assert refused(usual.call("GET", f"/v1/messages?circle_hint={STRANGER}", headers=headers)) is (
        outside
    )
    assert usual.call("GET", "/v1/info", headers=headers).json()["open"] is not outside


def test_a_proxy_that_speaks_http_1_0_is_told_by_that(usual: Server) -> None:
    with closing(usual.open()) as wire:
        wire.send(
            b"GET /v1/messages?circle_hint=%b HTTP/1.0\r\nHost: localhost\r\n\r\n"
            % STRANGER.encode()
        )
        assert refused(wire.answer())


def test_a_handshake_that_was_passed_on_is_a_stranger_s_too(usual: Server) -> None:
    query = f"{sockets.PATH}?circle_hint={STRANGER}&node_id=node-00001"
    for headers, status in (({}, 101), ({"Via": "1.1 x"}, 403), ({"Host": "x.example"}, 403)):
        with closing(usual.open()) as wire:
            wire.send(request("GET", query, headers=HANDSHAKE | headers))
            assert wire.answer().status == status


@pytest.mark.parametrize(
    ("words", "environment", "closed"),
    [
        ((), {}, False),
        (("--host=0.0.0.0",), {}, True),
        (("--trusted-proxy=127.0.0.1/32",), {}, True),
        ((), {"websocket_url": "wss://muster.example/v1/relay/ws"}, True),
        (("--closed",), {}, True),
        ((), {"access": "closed"}, True),
        (("--open", "--host=0.0.0.0"), {}, False),
        (("--open",), {"access": "closed"}, False),
    ],
)
def test_what_more_than_this_machine_can_reach_is_closed(
    tmp_path: Path, words: tuple[str, ...], environment: dict[str, str], closed: bool
) -> None:
    with running(tmp_path, *words, **({"access": ""} | environment)) as server:
        assert server.call("GET", "/v1/info").json()["open"] is not closed
        assert ("access new" in server.greeting) is closed
        assert ("whoever reaches it" in server.greeting) is ("--open" in words)


# --- the pages ------------------------------------------------------------------------------

PAGES = ("/", "/status.json", "/metrics")


@pytest.mark.parametrize("path", PAGES)
def test_the_pages_are_this_machine_s_and_for_others_not_there(usual: Server, path: str) -> None:
    mine = usual.call("GET", path)
    assert mine.status == 200
    assert not [name for name in mine.headers if name.startswith("access-control")]

    nowhere = usual.call("GET", "/nowhere", headers={"Via": "1.1 x"})
    for headers in (
        {"Host": "evil.example"},
        {"X-Forwarded-For": "192.0.2.7"},
        {"Origin": "https://evil.example"},
        {"Origin": "null"},
        {"Via": "1.1 x", "Authorization": "Bearer guess"},
    ):
        theirs = usual.call("GET", path, headers=headers)
        assert (theirs.status, theirs.json()) == (404, nowhere.json())
        assert usual.call("POST", path, headers=headers).status == 404


@pytest.mark.parametrize("path", PAGES)
def test_who_shows_the_token_sees_the_pages_from_anywhere(tmp_path: Path, path: str) -> None:
    token = "a-token-of-the-operator"
    basic = {
        "token": "dXNlcjphLXRva2VuLW9mLXRoZS1vcGVyYXRvcg==",
        "guess": "dXNlcjphLWd1ZXNz",
        "junk": "é",
    }
    with running(tmp_path, "--closed", "--verbose", status_token=token) as server:
        there = {"Host": "muster.example", "Via": "1.1 x"}

        def status(**headers: str) -> int:
            return server.call("GET", path, headers=there | headers).status

        assert status(Authorization=f"Bearer {token}") == 200
        assert status(Authorization=f"Basic {basic['token']}") == 200
        for wrong in ("Bearer guess", f"Basic {basic['guess']}", "Basic ***", "Digest x", ""):
            assert status(Authorization=wrong) == 401
        asked = server.call("GET", f"{path}?token={token}", headers=there)
        assert asked.status == 401
        assert asked.headers["www-authenticate"].startswith("Basic ")
        assert "access-control-allow-origin" not in asked.headers
        assert token not in server.call("GET", "/v1/info").body.decode()
        server.stop()
        assert token not in server.errors()


# --- what people have -------------------------------------------------------------------------


def test_existing_clients_notice_nothing_once_their_circle_is_let_in(tmp_path: Path) -> None:
    with running(tmp_path, "--closed", "--unsigned=allow") as server, closing(Browser()) as browser:
        circle = new_circle()
        ann, web = PythonClient(server.base, circle), WebClient(server.base, circle, browser)
        assert ann.register().status == 403

        with closing(open_sqlite(tmp_path / "muster.sqlite3")) as opened_store:
            tables.allow(opened_store, circle.hint, tables.Allowed(), until=tables.FOREVER)
        deadline = time.monotonic() + 20
        while (status := ann.register().status) != 200:
            assert time.monotonic() < deadline, status

        wim = WebClient(server.base, circle, browser)
        assert web.register().status == wim.register().status == 200
        assert {ann.node_id, wim.node_id} <= set(web.peers())
        query = f"circle_hint={circle.hint}&node_id={wim.node_id}"
        with browser_socket(f"{server.base}{sockets.PATH}?{query}") as socket:
            note = sealed(circle, web.node_id, int(time.time()))
            assert web.leave(note).status == 200
            frame = json.loads(socket.recv(timeout=8))
        assert [m["msg_id"] for m in frame["messages"]] == [note["msg_id"]]
        assert [m["msg_id"] for m in wim.pull()] == [note["msg_id"]]
        assert web.signal(wim, "offer", {"sdp": "v=0"}).status == 200
        assert [signal["from_node"] for signal in wim.signals()] == [web.node_id]
        assert ann.unregister().status == 200
        stranger = WebClient(server.base, new_circle(), browser)
        assert stranger.register().status == stranger.leave(note).status == 403


# --- what a stranger costs ----------------------------------------------------------------------


def test_on_dynamodb_a_stranger_costs_one_read_unit_at_the_most_and_no_write(
    dynalite_url: str,
) -> None:
    names = stores.fresh_names()
    client = open_client(endpoint_url=dynalite_url, region=gateway.REGION)
    create_tables(client, names)
    tally = Tally()
    counted = open_dynamodb(tables=names, client=client, meter=tally.meter)
    made = Service(Settings(access="closed"), counted, Nobody(), os.urandom, believed_s=60)
    now = int(time.time())
    for route in ROUTES:
        named = {"circle_hint": os.urandom(8).hex()}
        body = b"" if route.method == "GET" else json.dumps(named).encode()
        query = named if route.method == "GET" and route.guard is not proved.info else {}
        call = Call(route.method, route.path, query, signed(), body, "192.0.2.7", clock=now)
        for _ in range(40):
            assert http.handle(made, call).status in (200, 401, 403)
        _, units = tally.take()
        if route.path == "/v1/info":
            continue  # it makes the service's key, once in its life
        assert units["write_units"] == 0, route.path
        assert units["read_units"] <= 1, route.path


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost", "::1", "127.0.0.9"])
def test_loopback_is_this_machine(host: str) -> None:
    assert not main.is_reachable(Settings(), host=host, trusted_proxies=())


EVERYWHERE = "0.0.0.0"  # noqa: S104 - nothing is bound


@pytest.mark.parametrize("host", [EVERYWHERE, "::", "", "192.0.2.7", "muster.example"])
def test_every_other_address_is_not(host: str) -> None:
    assert main.is_reachable(Settings(), host=host, trusted_proxies=())
