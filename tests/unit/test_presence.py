import pytest

from chalicelib import tables
from muster.felund import records, signing
from tests.support.circle import ANN, BOB, HINT, SECRET, START, world


def test_a_registered_node_is_found_by_another_member() -> None:
    here = world()
    here.register(ANN)
    here.register(BOB)

    status, body = here.call("GET", "/v1/peers", query={"circle_hint": HINT}, node=BOB)

    assert status == 200
    assert [peer["node_id"] for peer in body["peers"]] == [ANN]
    assert body["peers"][0]["endpoints"] == [
        {"transport": "tcp", "host": "192.0.2.7", "port": 9999, "family": "ipv4", "nat": "unknown"}
    ]


def test_a_node_is_gone_at_the_second_it_expires() -> None:
    here = world()
    here.register(ANN, ttl_s=60)
    here.clock = START + 59
    assert here.call("GET", "/v1/peers", query={"circle_hint": HINT}, node=BOB)[1]["peers"]

    here.clock = START + 60

    assert here.call("GET", "/v1/peers", query={"circle_hint": HINT}, node=BOB)[1]["peers"] == []


@pytest.mark.parametrize(
    ("asked", "kept"), [(1, 30), (120, 120), (90.7, 90), (10_000, 600), (1e300, 600), (-5, 30)]
)
def test_a_lifetime_is_clamped_not_refused(asked: float, kept: int) -> None:
    _, body = world().register(ANN, ttl_s=asked)

    assert body["expires_at"] - body["server_time"] == kept


def test_the_caller_learns_where_it_was_seen() -> None:
    _, body = world().register(ANN)

    assert body["observed_endpoint"] == {"host": "192.0.2.1", "port": 4242, "family": "ipv4"}
    assert body["observed_host"] == {"host": "192.0.2.1", "family": "ipv4"}


def test_a_forwarded_address_from_a_stranger_counts_for_nothing() -> None:
    here = world()
    here.register(ANN)
    raw = b'{"node_id":"ann-0001","circle_hint":"e03c84dccc271635"}'
    headers = here.signed("POST", "/v1/register", raw, node=ANN, key=signing.request_key(SECRET))
    headers["x-forwarded-for"] = "203.0.113.9"
    headers["x-real-ip"] = "203.0.113.9"

    _, answer = here.call("POST", "/v1/register", raw, headers=headers)

    assert answer["observed_endpoint"]["host"] == "192.0.2.1"


def test_the_newest_come_first_and_the_limit_holds() -> None:
    here = world()
    for second, node in enumerate(["node-aaa", "node-bbb", "node-ccc"]):
        here.clock = START + second
        here.register(node)

    _, body = here.call("GET", "/v1/peers", query={"circle_hint": HINT, "limit": "2"}, node=ANN)

    assert [peer["node_id"] for peer in body["peers"]] == ["node-ccc", "node-bbb"]


@pytest.mark.parametrize("limit", ["0", "-3", "100000"])
def test_an_odd_limit_is_clamped(limit: str) -> None:
    here = world()
    here.register(BOB)

    status, body = here.call("GET", "/v1/peers", query={"circle_hint": HINT, "limit": limit})

    assert (status, len(body["peers"])) == (200, 1)


def test_more_members_than_a_page_holds_are_listed_to_the_end() -> None:
    here = world()
    names = {f"node-{number:04}" for number in range(450)}
    for name in names:
        here.register(name)
    query = {"circle_hint": HINT, "limit": "200"}

    pages, after = [], ""
    while True:
        _, body = here.call("GET", "/v1/peers", query=query | {"after": after}, node="node-0123")
        pages.append([peer["node_id"] for peer in body["peers"]])
        if not body["more"]:
            break
        after = pages[-1][-1]

    assert [len(page) for page in pages] == [200, 200, 49]
    assert {name for page in pages for name in page} == names - {"node-0123"}


def test_pages_that_may_read_little_lead_to_the_end_as_well() -> None:
    here = world(presence_bytes=1024, peers_bytes=16 * 1024)
    here.register(ANN)
    names = [f"node-{number:04}" for number in range(40)]
    for name in names:
        tables.save_presence(here.service.stores, _large(name, now=here.now))

    found, after, more = [], "", True
    while more:
        query = {"circle_hint": HINT, "limit": "200", "after": after}
        _, body = here.call("GET", "/v1/peers", query=query, node=ANN)
        found += [peer["node_id"] for peer in body["peers"]]
        after, more = found[-1], body["more"]
        assert len(body["peers"]) <= 16

    assert found == names


def _large(node_id: str, *, now: int) -> records.Peer:
    endpoints = (records.Endpoint(transport="tcp", host="h" * 255, port=1),) * 2
    return records.Peer(
        node_id=node_id,
        circle_hint=HINT,
        endpoints=endpoints,
        capabilities=records.Capabilities(),
        observed_at=now,
        expires_at=now + 600,
    )


@pytest.mark.parametrize("after", ["\ud800", "é", "\x00", "~" * 128])
def test_a_page_begins_at_any_text(after: str) -> None:
    here = world()
    here.register(ANN)

    query = {"circle_hint": HINT, "after": after}
    status, body = here.call("GET", "/v1/peers", query=query, node=BOB)

    assert (status, body["more"]) == (200, False)


def test_a_presence_that_is_too_large_is_refused_and_the_old_one_stays() -> None:
    here = world(presence_bytes=1024)
    here.register(ANN)
    endpoint = {"transport": "tcp", "host": "h" * 255, "port": 1}

    status, body = here.register(ANN, endpoints=[endpoint] * 4)

    assert (status, body["code"]) == (413, "PAYLOAD_TOO_LARGE")
    _, seen = here.call("GET", "/v1/peers", query={"circle_hint": HINT}, node=BOB)
    assert [len(peer["endpoints"]) for peer in seen["peers"]] == [1]


def test_a_list_without_a_place_to_begin_is_as_it_was() -> None:
    here = world()
    here.register(ANN)

    _, body = here.call("GET", "/v1/peers", query={"circle_hint": HINT}, node=BOB)

    assert set(body) == {"ok", "peers", "server_time"}


def test_unregistering_twice_is_safe() -> None:
    here = world()
    here.register(ANN)
    body = {"node_id": ANN, "circle_hint": HINT}

    first = here.call("DELETE", "/v1/register", body)
    second = here.call("DELETE", "/v1/register", body)

    assert (first, second) == (
        (200, {"ok": True, "removed": True}),
        (200, {"ok": True, "removed": False}),
    )


def test_a_full_circle_refuses_newcomers_and_keeps_its_members() -> None:
    here = world(circle_members=2)
    here.register(ANN)
    here.register(BOB)

    newcomer = here.register("eve-0003")
    member = here.register(ANN)

    assert (newcomer[0], newcomer[1]["code"]) == (409, "CIRCLE_FULL")
    assert member[0] == 200


def test_subscribers_hear_who_comes_moves_and_leaves_but_not_refreshes() -> None:
    here = world()
    here.register(BOB)
    bob = here.subscribe(BOB, "c-bob")

    here.register(ANN)
    here.register(ANN)
    here.register(ANN, endpoints=[])
    here.call("DELETE", "/v1/register", {"node_id": ANN, "circle_hint": HINT})

    told = here.gateway.take(bob.id)
    assert [(frame["t"], list(frame)[1]) for frame in told] == [
        ("PRESENCE", "joined"),
        ("PRESENCE", "joined"),
        ("PRESENCE", "left"),
    ]
    assert told[2]["left"] == [ANN]
