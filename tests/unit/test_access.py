"""A closed service: whom it lets in, what a refusal costs, and what cannot be smuggled past it."""

import json
from contextlib import closing
from typing import Any

import pytest

from chalicelib import access, http, proved, tables
from chalicelib.call import Call, Connection, Reply
from chalicelib.circle import sockets
from chalicelib.routes import ROUTES
from chalicelib.service import Service
from chalicelib.settings import Settings
from chalicelib.store import Stores
from chalicelib.store.sqlite import open_sqlite
from muster.errors import InvalidToken, NotAllowed
from muster.felund import signing
from tests.support.circle import HINT, Gateway, world
from tools.bench.units import Tally

NOW = 1_800_000_000
OTHER = "0123456789abcdef"


def service(access: str = "closed", stores: Stores | None = None, **settings: Any) -> Service:
    chosen = Settings(access=access, unsigned="allow", **settings)  # type: ignore[arg-type]
    return Service(chosen, stores or open_sqlite(":memory:"), Gateway(), bytes)


def allow(made: Service, circle_hint: str = HINT, *, until: int = tables.FOREVER) -> None:
    tables.allow(made.stores, circle_hint, tables.Allowed("ours", NOW), until=until)


def post(made: Service, body: Any, *, now: float = NOW, **more: Any) -> Reply:
    raw = body if isinstance(body, bytes) else json.dumps(body).encode()
    return http.handle(made, Call("POST", "/v1/messages", body=raw, clock=now, **more))


# --- open, closed, and as it comes ------------------------------------------------------


@pytest.mark.parametrize(
    ("chosen", "outside", "served"),
    [
        ("", False, True),
        ("", True, False),
        ("closed", False, False),
        ("closed", True, False),
        ("open", False, True),
        ("open", True, True),
    ],
)
def test_strangers_are_served_where_it_is_open_and_as_it_comes_from_this_machine(
    chosen: str, outside: bool, served: bool
) -> None:
    made = service(chosen)
    call = Call("GET", "/v1/info", clock=NOW, outside=outside)

    assert (post(made, {"circle_hint": OTHER}, outside=outside).status == 200) is served
    assert json.loads(http.handle(made, call).body)["open"] is served


def test_health_and_info_answer_anybody_and_every_other_route_asks_first() -> None:
    made = service()
    free = {route.path for route in ROUTES if route.knock is access.anyone}

    assert free == {"/v1/health", "/v1/info", "/v2/info", "/api/p2p/assist"}, "a token, for that"
    for path in ("/v1/health", "/v1/info", "/v2/info"):
        assert http.handle(made, Call("GET", path, clock=NOW)).status == 200


PROVED = [route for route in ROUTES if route.knock is proved.knock]
ASKING = [route for route in ROUTES if route.knock is not access.anyone and route not in PROVED]


@pytest.mark.parametrize("route", ASKING, ids=[f"{r.method} {r.path}" for r in ASKING])
def test_a_refusal_is_one_text_and_tells_nothing_of_what_was_wrong(route: Any) -> None:
    made = service()
    for body, query in ((b"", {}), (b"{", {"circle_hint": OTHER}), (b"[1", {"x": "y"})):
        signed = {
            signing.NODE: "some-node",
            signing.TIME: str(int(NOW)),
            signing.NONCE: "0" * 32,
            signing.SIGNATURE: "0" * 64,
        }
        call = Call(route.method, route.path, body=body, query=query, headers=signed, clock=NOW)
        reply = http.handle(made, call)
        if route.knock is access.any_circle and "circle_hint" not in query:
            continue  # what the browser client polls for: its guard decides
        assert (reply.status, reply.code) == (403, "NOT_ALLOWED")
        assert json.loads(reply.body)["message"] == NotAllowed().message


# --- who is let in --------------------------------------------------------------------


def test_a_circle_is_let_in_until_it_is_revoked_and_a_process_notices_within_a_second() -> None:
    made = service()
    assert post(made, {"circle_hint": HINT}).status == 403

    allow(made)
    assert post(made, {"circle_hint": HINT}, now=NOW + 1).status == 200

    assert tables.disallow(made.stores, HINT, now=NOW + 1)
    assert post(made, {"circle_hint": HINT}, now=NOW + 2).status == 403


def test_a_circle_may_be_let_in_for_a_while() -> None:
    made = service()
    made.believed_s = 60
    allow(made, until=NOW + 10)

    assert post(made, {"circle_hint": HINT}, now=NOW + 9).status == 200
    assert post(made, {"circle_hint": HINT}, now=NOW + 10).status == 403


def test_on_aws_who_is_let_in_is_read_once_a_minute_and_every_ten_seconds_for_strangers() -> None:
    tally, stores = Tally(), open_sqlite(":memory:")
    made = service(stores=tally.watch(stores))
    made.believed_s = 60
    allow(made)
    tally.take()

    for second in range(60):
        access.let_in(made, Call("GET", "/", clock=NOW + second), HINT)
    assert tally.take()[0] == {"guard.after": 1}

    for number in range(60 * 50):
        hint = f"{number:016d}"
        address = f"10.{number // 250}.{number % 250}.1"
        post(made, {"circle_hint": hint}, now=NOW + 60 + number // 50, source_ip=address)
    assert tally.take()[0] == {"guard.after": 6}


def test_among_many_circles_each_is_looked_up_by_itself() -> None:
    tally, stores = Tally(), open_sqlite(":memory:")
    made = service(stores=tally.watch(stores))
    made.believed_s = 60
    many = [f"{number:016d}" for number in range(access.READ_AT_ONCE + 1)]
    for hint in many:
        tables.allow(made.stores, hint, tables.Allowed(), until=NOW + 1000)
    tally.take()

    for second in range(60):
        for hint in many:
            access.let_in(made, Call("GET", "/", clock=NOW + second), hint)
        assert post(made, {"circle_hint": OTHER}, now=NOW + second).status == 403
    assert tally.take()[0] == {"guard.after": 1, "guard.get": len(many) + 6}


def test_strangers_push_nobody_out_of_a_process_s_memory() -> None:
    tally, stores = Tally(), open_sqlite(":memory:")
    made = service(stores=tally.watch(stores), address_burst=10**6)
    made.believed_s = 60
    allow(made)
    post(made, {"circle_hint": HINT})
    for number in range(5_000):
        post(made, {"circle_hint": f"{number:016d}"})
    tally.take()

    access.let_in(made, Call("GET", "/", clock=NOW), HINT)

    assert tally.take()[0] == {}
    assert len(made.kept_out._values) <= 4096


# --- what a stranger costs ----------------------------------------------------------------


@pytest.mark.parametrize(
    "body",
    [
        b'{"circle_hint":"0123456789abcdef","messages":[' + b"[" * 900_000,
        b'{"messages":[' + b"[" * 900_000 + b'],"circle_hint":"0123456789abcdef"}',
        b"[" * 1_000_000,
        b"\xff" * 1_000_000,
        b'"circle_hint"' * 70_000,
    ],
    ids=["named first", "named last", "lists", "no text", "names"],
)
def test_nothing_is_parsed_written_or_read_twice_for_a_stranger(body: bytes) -> None:
    tally, stores = Tally(), open_sqlite(":memory:")
    made = service(stores=tally.watch(stores), address_burst_bytes=10**9)

    for _ in range(100):
        assert post(made, body, source_ip="192.0.2.7").status == 403

    assert tally.take()[0] in ({}, {"guard.after": 1})


def test_a_hint_that_was_let_in_opens_the_door_to_no_other_circle() -> None:
    made = service()
    allow(made)
    nested = {"messages": [{"circle_hint": HINT, "msg_id": "m-000001"}], "circle_hint": OTHER}
    escaped = b'{"circle_hint":"%s","\\u0063ircle_hint":"%s"}' % (HINT.encode(), OTHER.encode())

    assert post(made, nested).status == 403
    assert post(made, escaped).status == 400, "a name that is there twice is no JSON of ours"
    assert made.stores.mail.after("mail#" + OTHER, "", limit=9, now=NOW).items == ()


@pytest.mark.parametrize("more", [{}, {"indent": 2}, {"separators": (",", ":")}])
@pytest.mark.parametrize("first", [True, False])
def test_a_circle_that_was_let_in_is_found_wherever_its_clients_name_it(
    more: dict[str, Any], first: bool
) -> None:
    made = service()
    allow(made)
    messages = [{"msg_id": f"m-{n:06d}", "text": 'é "circle_hint":"x"' * 100} for n in range(9)]
    named: dict[str, Any] = {"circle_hint": HINT}
    body = named | {"messages": messages} if first else {"messages": messages} | named

    assert post(made, json.dumps(body, **more).encode()).status == 200


def test_a_token_of_a_circle_that_was_not_let_in_is_refused_before_the_service_s_key_is_read() -> (
    None
):
    here = world()
    here.register()
    _, opened = here.call(
        "POST",
        "/v1/relay/subscription",
        {"node_id": "node-00001", "circle_hint": HINT},
        node="node-00001",
    )
    tally = Tally()
    made = service(stores=tally.watch(here.service.stores))
    for token, refusal in ((opened["token"], NotAllowed), ("muster1.e30.AAAA", InvalidToken)):
        call = Call("GET", sockets.PATH, query={"token": token}, clock=here.clock)
        with pytest.raises(refusal):
            sockets.open_socket(made, call, Connection("c-1"))
        assert tally.take()[0] in ({"guard.after": 1}, {})

    allow(made)
    call = Call("GET", sockets.PATH, query={"token": opened["token"]}, clock=here.clock + 1)
    assert sockets.open_socket(made, call, Connection("c-1"))


# --- communities --------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("query", "body", "served"),
    [
        ({"community": "home"}, {}, True),
        ({}, {"community": "home"}, True),
        ({"community": "other"}, {}, False),
        ({"community": "other"}, {"community": "home"}, False),
        ({}, {}, False),
        ({}, {"x": {"community": "home"}, "community": "other"}, False),
    ],
)
def test_a_closed_beacon_serves_the_communities_that_were_named(
    query: dict[str, str], body: dict[str, Any], served: bool
) -> None:
    made = service(community_names=frozenset({"home"}))
    raw = json.dumps(body | {"ticket": {}}).encode()
    reply = http.handle(made, Call("POST", "/announce", query=query, body=raw, clock=NOW))

    assert (reply.code == "NOT_ALLOWED") is not served


def test_a_closed_service_publishes_the_communities_that_were_named() -> None:
    names = frozenset({"home"})

    assert access.published(Settings(community_names=names), ["home", "x"]) == ["home", "x"]
    closed_one = Settings(access="closed", community_names=names)
    assert access.published(closed_one, ["home", "mainnet"]) == ["home"]


# --- tokens once ----------------------------------------------------------------------------


def test_a_token_has_one_socket_and_the_next_takes_over() -> None:
    here = world()
    here.register()
    _, opened = here.call(
        "POST",
        "/v1/relay/subscription",
        {"node_id": "node-00002", "circle_hint": HINT},
        node="node-00002",
    )
    for number in range(3):
        here.open(f"c-{number}", opened["token"])
    other = here.subscribe("node-00002", "d-0")
    here.leave("m-000001")

    assert set(here.gateway.closed) == {"c-0", "c-1"}
    assert [len(here.gateway.take(name)) for name in ("c-2", other.id)] == [1, 1]


def test_of_two_sockets_that_take_a_seat_in_the_same_moment_one_is_closed() -> None:
    with closing(open_sqlite(":memory:")) as stores:
        made = service("open", stores)
        tables.save_session(stores, "s" * 32, until=NOW + 60)
        for name in ("c-1", "c-2"):
            socket = tables.Socket(name, "", HINT, "node-00001", NOW + 60, session_id="s" * 32)
            tables.save_socket(stores, socket, now=NOW)

        (told,) = sockets.greet(made, Connection("c-1"), now=NOW)
        assert told.connection.id == "c-1"
        assert sockets.greet(made, Connection("c-2"), now=NOW) == ()
