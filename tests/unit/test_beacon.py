import json
from base64 import b64encode
from collections import Counter
from collections.abc import Callable
from typing import Any

import pytest

from capsules import ticket as tickets
from capsules.keys import SigningKey
from chalicelib import tables
from chalicelib.community import beacon
from chalicelib.store import Stores
from tests.support.circle import START, World, world


class Node:
    """A node with a key of its own that announces itself."""

    def __init__(self, number: int, peer_id: str | None = None) -> None:
        self.key = SigningKey(number.to_bytes(32, "big"))
        self.peer_id = peer_id or f"peer-{number}"

    def ticket(self, here: World, ttl_s: int = 180, **changed: Any) -> dict[str, Any]:
        """Sign a ticket now."""
        made = tickets.create(
            self.key,
            peer_id=self.peer_id,
            user_id="user-" + self.peer_id,
            now_ms=int(here.clock * 1000),
            nonce=bytes(12),
            ttl_ms=ttl_s * 1000,
        )
        return dict(made.to_json()) | changed

    def announce(self, here: World, community: str = "", ttl_s: int = 180) -> dict[str, Any]:
        """Announce and return the answer."""
        return announce(here, self.ticket(here, ttl_s), community)


def announce(here: World, ticket: Any, community: str = "", **more: Any) -> dict[str, Any]:
    query = {"community": community} if community else {}
    status, body = here.call("POST", "/announce", {"ticket": ticket}, query=query, key=None, **more)
    assert status == 200, body
    return body


def listed(here: World, community: str = "", **more: Any) -> list[str]:
    query = {"community": community} if community else {}
    status, body = here.call("GET", "/peers", query=query, key=None, **more)
    assert status == 200, body
    return [envelope["payload"]["peerId"] for envelope in body["peers"]]


def beacon_world(**settings: Any) -> World:
    here = world(address_burst=10**6, address_per_s=10**6, **settings)
    drawn = iter(range(10**9))
    here.service.entropy = lambda size: (next(drawn) * 7919 % 256**size).to_bytes(size, "big")
    return here


def test_an_announced_ticket_is_listed_as_it_was_signed() -> None:
    here = beacon_world()
    ann, bob = Node(1), Node(2)
    assert ann.announce(here) == {"ok": True, "peers": []}

    answer = bob.announce(here)

    assert answer == {"ok": True, "peers": [ann.ticket(here)]}
    assert sorted(listed(here)) == ["peer-1", "peer-2"]


def test_the_newest_come_first_and_fifty_are_listed() -> None:
    here = beacon_world()
    for number in range(1, 71):
        here.clock = START + number / 10
        Node(number).announce(here)

    assert listed(here) == [f"peer-{number}" for number in range(70, 20, -1)]


def test_a_ticket_is_gone_the_moment_it_expires() -> None:
    here = beacon_world()
    Node(1).announce(here, ttl_s=60)
    here.clock = START + 59.9
    assert listed(here) == ["peer-1"]

    here.clock = START + 60

    assert listed(here) == []


def test_communities_are_apart_and_the_query_names_them() -> None:
    here = beacon_world()
    Node(1).announce(here, "alpha")
    Node(2).announce(here)

    assert (listed(here, "alpha"), listed(here), listed(here, "beta")) == (
        ["peer-1"],
        ["peer-2"],
        [],
    )


@pytest.mark.parametrize("community", ["", "../x", "a/b", "x" * 65, "é", " "])
def test_a_community_has_a_plain_name(community: str) -> None:
    status, _ = beacon_world().call("GET", "/peers", query={"community": community}, key=None)

    assert status == 400


def test_the_first_key_keeps_a_peer_id_while_its_ticket_lives_and_a_day_longer() -> None:
    here = beacon_world()
    Node(1, "wanted").announce(here)
    thief = Node(2, "wanted")

    assert thief.announce(here)["validation"] == {"ok": False, "reason": "PEER_ID_TAKEN"}
    assert here.call("GET", "/peers", key=None)[1]["peers"] == [Node(1, "wanted").ticket(here)]
    for _ in range(24):
        here.clock += 3600
        assert thief.announce(here)["ok"] is False
    here.clock += 180
    assert thief.announce(here)["ok"] is True


def test_who_slept_comes_back_to_its_peer_id() -> None:
    here = beacon_world()
    Node(1, "wanted").announce(here)
    here.clock += 23 * 3600

    assert Node(1, "wanted").announce(here)["ok"] is True
    assert listed(here) == ["wanted"]


def test_who_slept_was_not_there_without_a_break() -> None:
    here = beacon_world()
    Node(1).announce(here)
    here.clock += 3600
    Node(1).announce(here)

    [place] = beacon.places(here.service, "mainnet", now=here.now)
    assert place.slot.startswith("new")


def test_who_asks_for_a_taken_peer_id_learns_who_is_there() -> None:
    here = beacon_world()
    for number in range(1, 4):
        Node(number).announce(here)

    answer = Node(9, "peer-1").announce(here)

    assert (answer["ok"], answer["validation"]["reason"]) == (False, "PEER_ID_TAKEN")
    names = [envelope["payload"]["peerId"] for envelope in answer["peers"]]
    assert sorted(names) == ["peer-2", "peer-3"]


def test_a_network_has_so_many_peer_ids_remembered_a_day() -> None:
    here = beacon_world(names_kept=3)
    for number in range(1, 6):
        Node(number).announce(here)
    announce(here, Node(9).ticket(here), source_ip="198.51.100.1")
    here.clock += 180

    taken = [Node(100 + n, f"peer-{n}").announce(here)["ok"] for n in (1, 2, 3, 4, 5, 9)]

    assert taken == [False, False, False, True, True, False]


def test_announcing_the_same_ticket_again_is_safe_and_writes_nothing_soon() -> None:
    here = beacon_world()
    ann = Node(1)
    ticket = ann.ticket(here)
    announce(here, ticket)
    before = here.service.stores.presence

    class ReadOnly:
        def __getattr__(self, name: str) -> Any:
            assert name not in ("put", "put_new", "delete", "add")
            return getattr(before, name)

    here.service.stores = here.service.stores._replace(presence=ReadOnly())
    here.clock += 5

    assert announce(here, ticket) == {"ok": True, "peers": []}


def test_an_older_ticket_of_the_same_node_does_not_replace_a_newer_one() -> None:
    here = beacon_world()
    ann = Node(1)
    old = ann.ticket(here)
    here.clock += 40
    new = ann.ticket(here)
    announce(here, new)
    here.clock += 40

    announce(here, old)

    assert here.call("GET", "/peers", key=None)[1]["peers"] == [new]


def test_a_renewed_ticket_takes_over_before_the_old_one_ends() -> None:
    here = beacon_world()
    ann = Node(1)
    ann.announce(here, ttl_s=30)
    here.clock += 20

    ann.announce(here)

    here.clock += 20
    assert listed(here) == ["peer-1"]


def tampered(here: World) -> dict[str, Any]:
    ticket = Node(1).ticket(here)
    return ticket | {"payload": ticket["payload"] | {"peerId": "other"}}


def other(ttl_s: int = 180, **changed: Any) -> Callable[[World], dict[str, Any]]:
    return lambda here: Node(1).ticket(here, ttl_s, **changed)


@pytest.mark.parametrize(
    ("make", "reason"),
    [
        pytest.param(tampered, "SIGNATURE_INVALID", id="another payload"),
        pytest.param(other(algorithm="rsa"), "UNSUPPORTED_ALGORITHM", id="another algorithm"),
        pytest.param(other(3601), "LIFETIME_TOO_LONG", id="a long life"),
        pytest.param(
            other(signature=b64encode(bytes(64)).decode()), "SIGNATURE_INVALID", id="zeros"
        ),
        pytest.param(other(publicKey="AAAA"), "SIGNATURE_INVALID", id="a short key"),
        pytest.param(other(version="1"), "MALFORMED", id="a version in quotes"),
        pytest.param(other(extra=1), "MALFORMED", id="a member nobody knows"),
    ],
)
def test_a_bad_ticket_is_answered_200_with_its_reason(make: Any, reason: str) -> None:
    here = beacon_world()

    answer = announce(here, make(here))

    assert answer == {"ok": False, "peers": [], "validation": {"ok": False, "reason": reason}}
    assert listed(here) == []


@pytest.mark.parametrize(("shift", "reason"), [(-200, "EXPIRED"), (20, "NOT_YET_VALID")])
def test_a_ticket_from_another_time_is_answered_with_its_reason(shift: int, reason: str) -> None:
    here = beacon_world()
    here.clock = START + shift
    ticket = Node(1).ticket(here)
    here.clock = START

    assert announce(here, ticket)["validation"]["reason"] == reason


def test_fifteen_seconds_of_difference_are_nothing() -> None:
    here = beacon_world()
    here.clock = START + 14
    ahead = Node(1).ticket(here)
    here.clock = START - 190
    behind = Node(2).ticket(here)
    here.clock = START

    assert announce(here, ahead)["ok"] is True
    assert announce(here, behind)["ok"] is True
    assert listed(here) == ["peer-1"]


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"null",
        b"[]",
        b"{}",
        b'{"ticket":null}',
        b'{"ticket":"x"}',
        b'{"ticket":[]}',
        b'{"ticket":{}}',
        b'{"ticket":{"payload":{}}}',
    ],
)
def test_what_is_no_ticket_is_refused(body: bytes) -> None:
    here = beacon_world()

    status, answer = here.call("POST", "/announce", body, key=None)

    assert (status, answer["ok"], answer["code"]) == (400, False, "INVALID_REQUEST")
    assert listed(here) == []


def test_a_signature_that_is_not_base64_is_never_listed() -> None:
    here = beacon_world()
    body = json.dumps({"ticket": Node(1).ticket(here, signature="***")}).encode()

    status, _ = here.call("POST", "/announce", body, key=None)

    assert status in (200, 400)
    assert listed(here) == []


def test_trusted_and_revoked_keys_are_the_operators_choice() -> None:
    friend, stranger = Node(1), Node(2)
    trusted = friend.key.verify_key.to_base64()

    only = beacon_world(trusted_ticket_keys=f" {trusted} ,")
    assert friend.announce(only)["ok"] is True
    assert stranger.announce(only)["validation"]["reason"] == "UNTRUSTED_PUBLIC_KEY"

    never = beacon_world(revoked_ticket_keys=trusted)
    assert friend.announce(never)["validation"]["reason"] == "REVOKED_KEY"
    assert stranger.announce(never)["ok"] is True


def test_a_flood_of_fresh_keys_leaves_long_lived_nodes_listed() -> None:
    here = beacon_world()
    honest = [Node(number) for number in range(1, 31)]
    for minute in range(13):
        here.clock = START + minute * 60
        for node in honest:
            node.announce(here)
    for number in range(1_000, 3_000):
        here.clock += 0.01
        Node(number).announce(here)
        if number % 500 == 0:
            for node in honest:
                node.announce(here)

    names = listed(here)

    assert len(names) == 50
    assert len([name for name in names if int(name.removeprefix("peer-")) < 100]) >= 25
    assert len(beacon.places(here.service, "mainnet", now=here.now)) <= 200


def test_places_among_the_long_lived_go_by_lot_to_those_old_enough() -> None:
    here = beacon_world(tickets_kept=4, tickets_listed=4)
    older, old = [Node(1), Node(2)], [Node(3), Node(4), Node(5), Node(6)]
    held: Counter[str] = Counter()
    for minute in range(300):
        here.clock = START + minute * 60
        for node in older + (old if minute >= 30 else []):
            node.announce(here)
        places = beacon.places(here.service, "mainnet", now=here.now)
        long = {slot.peer_id for slot in places if slot.slot.startswith("long")}
        assert minute < 11 or long
        assert minute > 39 or long <= {"peer-1", "peer-2"}, "the others are not old enough"
        held.update(long)

    assert len(held) == 6, "all have their turn"
    assert sum(held.values()) > 500


def test_a_network_that_waits_long_enough_shuts_nobody_out() -> None:
    here = beacon_world()
    patient = [Node(1_000 + number) for number in range(200)]
    honest = [Node(number) for number in range(1, 41)]
    for turn in range(14):
        here.clock = START + turn * 150
        for node in patient:
            announce(here, node.ticket(here))
        if turn >= 6:
            for number, node in enumerate(honest):
                announce(here, node.ticket(here), source_ip=f"198.18.{number}.1")

    names = {node.peer_id for node in honest}
    places = beacon.places(here.service, "mainnet", now=here.now)
    long = {slot.peer_id for slot in places if slot.slot.startswith("long")}
    assert names <= {slot.peer_id for slot in places}
    assert names <= set(listed(here))
    assert len(listed(here)) == 50
    assert len(names & long) >= 35


@pytest.mark.parametrize("network", ["2001:db8:1:{:x}::1", "2001:db8:1:1::{:x}"])
def test_networks_of_ipv6_share_places_however_many_addresses_they_have(network: str) -> None:
    here = beacon_world()
    for number in range(1, 201):
        ticket = Node(1_000 + number).ticket(here)
        announce(here, ticket, source_ip=network.format(number))
    for number in range(1, 41):
        announce(here, Node(number).ticket(here), source_ip=f"198.18.{number}.1")

    assert {f"peer-{number}" for number in range(1, 41)} <= set(listed(here))


def test_a_community_behind_one_address_has_all_its_places() -> None:
    for address in ("203.0.113.1", "127.0.0.1"):
        here = beacon_world()
        for number in range(1, 101):
            announce(here, Node(number).ticket(here), source_ip=address)

        assert len(beacon.places(here.service, "mainnet", now=here.now)) == 100
        assert len(listed(here)) == 50


def test_machines_of_a_private_network_have_shares_of_their_own() -> None:
    here = beacon_world(network_places=1)
    for number in range(1, 151):
        announce(here, Node(number).ticket(here), source_ip=f"10.0.0.{number}")
    announce(here, Node(999).ticket(here), source_ip="10.0.0.1")

    places = beacon.places(here.service, "mainnet", now=here.now)
    assert len({slot.networks for slot in places}) == 100


def test_who_announces_another_s_ticket_again_does_not_move_it_into_its_network() -> None:
    here = beacon_world()
    ann = Node(1)
    ticket = ann.ticket(here)
    announce(here, ticket, source_ip="198.51.100.7")
    here.clock += 30
    announce(here, ticket, source_ip="203.0.113.66")

    [place] = beacon.places(here.service, "mainnet", now=here.now)
    assert place.networks == ("198.51.100.0/24",)
    here.clock += 30
    announce(here, ann.ticket(here), source_ip="192.0.2.9")
    [place] = beacon.places(here.service, "mainnet", now=here.now)
    assert place.networks == ("192.0.2.0/24",)


@pytest.mark.parametrize("apart_s", [0.0, 0.001, 0.02])
def test_of_250_nodes_in_lockstep_every_one_is_soon_seen(apart_s: float) -> None:
    here = beacon_world()
    nodes = [Node(number) for number in range(1, 251)]
    seen: set[str] = set()
    for turn in range(8):
        for number, node in enumerate(nodes):
            here.clock = START + turn * 30 + number * apart_s
            answer = node.announce(here)
            seen |= {peer["payload"]["peerId"] for peer in answer["peers"]}

    assert len(seen) == 250


def test_a_caller_over_its_limit_is_still_answered_with_peers() -> None:
    here = world(address_burst=5, address_per_s=1)
    for number in range(1, 6):
        Node(number).announce(here)

    for _ in range(10):
        assert len(listed(here)) == 5
        assert Node(9).announce(here)["ok"] is True
    assert here.call("GET", "/v1/health", key=None)[0] == 429


def test_a_caller_over_its_limit_gets_a_short_list_from_memory() -> None:
    here = world(address_burst=21, address_per_s=1)
    for number in range(1, 21):
        here.clock = START + number / 1000  # of those who come at once, each list begins elsewhere
        Node(number).announce(here)
    everybody = listed(here)
    here.service.stores = Stores(*[None] * 3)  # type: ignore[arg-type]

    assert len(everybody) == 20
    assert listed(here) == everybody[: beacon.OVER_LISTED]


def test_a_flood_of_communities_shuts_nobody_out() -> None:
    here = beacon_world(communities=3)
    for number in range(10):
        Node(1).announce(here, f"flood-{number}")
    Node(2).announce(here)
    Node(2).announce(here, "late")

    assert listed(here) == ["peer-2"]
    assert listed(here, "late") == ["peer-2"]
    noted = tables.communities(here.service.stores, limit=100, now=here.now)
    assert noted == ["flood-0", "flood-1", "flood-2", "mainnet"]
    here.clock += beacon.COMMUNITY_S
    assert tables.communities(here.service.stores, limit=100, now=here.now) == []


def test_a_community_is_noted_as_long_as_its_nodes_announce() -> None:
    here = beacon_world()
    for minute in range(26 * 60):
        here.clock = START + minute * 60
        Node(1).announce(here, "steady")

    assert tables.communities(here.service.stores, limit=100, now=here.now) == ["steady"]


def test_an_operator_may_name_the_communities_that_are_served() -> None:
    here = beacon_world(community_names="home, mainnet", communities=1)
    Node(1).announce(here, "home")
    Node(1).announce(here)

    body = {"ticket": Node(1).ticket(here)}
    refused = here.call("POST", "/announce", body, query={"community": "other"}, key=None)

    assert refused[0] == 400
    assert tables.communities(here.service.stores, limit=9, now=here.now) == ["home", "mainnet"]


@pytest.mark.parametrize("named", ["", None, 7])
def test_a_body_that_names_no_community_means_the_usual_one(named: Any) -> None:
    here = beacon_world()
    body = {"ticket": Node(1).ticket(here), "community": named}

    assert here.call("POST", "/announce", body, key=None)[0] == 200
    assert listed(here) == ["peer-1"]


def test_a_community_in_the_body_counts_where_the_query_names_none() -> None:
    here = beacon_world()
    ticket = Node(1).ticket(here)
    here.call("POST", "/announce", {"ticket": ticket, "community": "alpha"}, key=None)
    here.call(
        "POST",
        "/announce",
        {"ticket": ticket, "community": "alpha"},
        query={"community": "beta"},
        key=None,
    )

    assert (listed(here, "alpha"), listed(here, "beta"), listed(here)) == (
        ["peer-1"],
        ["peer-1"],
        [],
    )


def test_listing_costs_the_same_however_many_there_are() -> None:
    here = beacon_world()
    for number in range(1, 601):
        here.clock += 1
        Node(number).announce(here)

    kept = beacon.places(here.service, "mainnet", now=here.now)

    assert len(kept) <= 200
    assert len(listed(here)) == 50
