import json
from typing import Any

import pytest

from muster.felund.records import MAX_PAYLOAD_CHARS
from tests.support.circle import ANN, BOB, HINT, START, World, world


def leave(here: World, kind: str = "offer", **members: Any) -> tuple[int, dict[str, Any]]:
    body = {
        "session_id": f"{ANN}:{BOB}",
        "from_node_id": ANN,
        "to_node_id": BOB,
        "circle_hint": HINT,
        "type": kind,
        "payload": json.dumps({"type": kind}),
    } | members
    return here.call("POST", "/v1/signal", body, node=body["from_node_id"])


def poll(here: World, since_id: int = 0, **query: str) -> list[dict[str, Any]]:
    asked = {"to_node_id": BOB, "since_id": str(since_id), "circle_hint": HINT} | query
    status, body = here.call("GET", "/v1/signal", query=asked, node=BOB)
    assert status == 200, body
    signals: list[dict[str, Any]] = body["signals"]
    return signals


@pytest.fixture
def here() -> World:
    made = world()
    made.register(ANN)
    return made


def test_a_signal_is_read_as_it_was_left(here: World) -> None:
    leave(here)

    [signal] = poll(here)

    assert signal.pop("id") > 0
    assert signal == {
        "session_id": f"{ANN}:{BOB}",
        "from_node": ANN,
        "to_node": BOB,
        "type": "offer",
        "payload": '{"type": "offer"}',
        "created_at": START,
    }


@pytest.mark.parametrize(
    "kind", ["offer", "answer", "candidate", "media-offer", "media-answer", "media-candidate"]
)
def test_all_six_types_travel(here: World, kind: str) -> None:
    assert leave(here, kind)[0] == 200
    assert [signal["type"] for signal in poll(here)] == [kind]


def test_every_reader_with_its_own_cursor_sees_every_signal(here: World) -> None:
    for _ in range(3):
        leave(here, "candidate")

    first = poll(here)
    later = poll(here, since_id=first[0]["id"])

    assert poll(here) == first
    assert later == first[1:]


def test_numbers_grow_below_2_to_the_53_and_do_not_start_again(here: World) -> None:
    old = leave(here)[1]["id"]
    here.clock += 10_000
    here.register(ANN)
    new = leave(here)[1]["id"]

    assert old < new < 2**53
    assert [signal["id"] for signal in poll(here, since_id=old)] == [new]


def test_a_short_lived_signal_does_not_lower_the_next_number(here: World) -> None:
    leave(here, "offer")
    candidate = leave(here, "candidate", ttl_s=10)[1]["id"]
    here.clock += 61

    late = leave(here, "candidate")[1]["id"]

    assert late > candidate
    assert [signal["id"] for signal in poll(here, since_id=candidate)] == [late]


@pytest.mark.parametrize(
    ("kind", "ttl_s", "lives"),
    [
        ("offer", None, 120),
        ("candidate", None, 60),
        ("media-candidate", 1000, 60),
        ("answer", 1, 10),
        ("offer", 45.9, 45),
        ("offer", "soon", 120),
        ("offer", True, 120),
        ("media-offer", 1e300, 120),
    ],
)
def test_a_signal_lives_as_long_as_its_type_may(
    here: World, kind: str, ttl_s: object, lives: int
) -> None:
    leave(here, kind, ttl_s=ttl_s)
    here.clock = START + lives - 1
    assert len(poll(here)) == 1

    here.clock = START + lives

    assert poll(here) == []


def test_a_fresh_offer_voids_what_its_sender_said_before(here: World) -> None:
    leave(here, "offer")
    leave(here, "candidate")
    leave(here, "candidate", session_id="another-session")
    leave(here, "media-candidate")
    fresh = leave(here, "offer")[1]["id"]
    leave(here, "candidate")

    kept = poll(here)

    assert [signal["type"] for signal in kept] == [
        "candidate",
        "media-candidate",
        "offer",
        "candidate",
    ]
    assert kept[0]["session_id"] == "another-session"
    assert kept[2]["id"] == fresh


def test_a_candidate_that_overtook_its_offer_is_kept(here: World) -> None:
    leave(here, "candidate")
    leave(here, "offer")
    leave(here, "candidate")

    assert [signal["type"] for signal in poll(here)] == ["candidate", "offer", "candidate"]

    leave(here, "offer")

    assert [signal["type"] for signal in poll(here)] == ["offer"]


def test_a_renegotiation_keeps_the_candidates_of_its_connection(here: World) -> None:
    leave(here, "media-offer")
    leave(here, "media-candidate")
    leave(here, "media-offer")

    assert [signal["type"] for signal in poll(here)] == ["media-candidate", "media-offer"]


def test_another_circles_signals_stay_apart(here: World) -> None:
    other = world(here.service.stores, unsigned="allow")
    mine = {
        "session_id": f"{ANN}:{BOB}",
        "from_node_id": ANN,
        "to_node_id": BOB,
        "circle_hint": HINT,
        "type": "offer",
        "payload": "x",
    }
    for body in (mine, mine | {"circle_hint": "another-circle"}):
        assert other.call("POST", "/v1/signal", body, key=None)[0] == 200

    assert len(poll(here)) == 1
    status, everything = other.call("GET", "/v1/signal", query={"to_node_id": BOB}, key=None)
    assert (status, len(everything["signals"])) == (200, 2)
    ids = [signal["id"] for signal in everything["signals"]]
    assert ids == sorted(ids)


@pytest.mark.parametrize("unsigned", ["refuse", "allow"])
def test_another_circle_cannot_fill_a_nodes_signals(unsigned: str) -> None:
    here = world(unsigned=unsigned, signals_waiting=5)
    here.register(ANN)
    key = b"\x66" * 32
    body = {"node_id": "mallory-1", "circle_hint": "foreign-circle", "signing_key": key.hex()}
    here.call("POST", "/v1/register", body, node="mallory-1", key=key)
    flood = {
        "session_id": f"{ANN}:{BOB}",
        "from_node_id": "mallory-1",
        "to_node_id": BOB,
        "circle_hint": "foreign-circle",
        "type": "candidate",
        "payload": "x",
    }
    for _ in range(7):
        here.call("POST", "/v1/signal", flood, node="mallory-1", key=key)

    assert leave(here)[0] == 200
    assert len(poll(here)) == 1


def test_an_unsigned_offer_does_not_void_a_signed_one() -> None:
    here = world(unsigned="allow")
    here.register(ANN)
    leave(here, payload="real")
    forged = {
        "session_id": f"{ANN}:{BOB}",
        "from_node_id": ANN,
        "to_node_id": BOB,
        "circle_hint": HINT,
        "type": "offer",
        "payload": "evil",
    }
    here.call("POST", "/v1/signal", forged, key=None)

    assert [signal["payload"] for signal in poll(here)] == ["real", "evil"]


def test_a_session_can_be_singled_out(here: World) -> None:
    leave(here)
    leave(here, session_id="another-session")

    assert len(poll(here, session_id="another-session")) == 1


@pytest.mark.parametrize(
    "members",
    [
        {"type": "shout"},
        {"payload": {"sdp": 1}},
        {"payload": "x" * (MAX_PAYLOAD_CHARS + 1)},
        {"session_id": "short"},
        {"session_id": "x" * 301},
        {"to_node_id": "b"},
        {"to_node_id": None},
        {"circle_hint": 12345678},
    ],
)
def test_a_malformed_signal_is_refused_and_not_kept(here: World, members: dict[str, Any]) -> None:
    status, body = leave(here, **members)

    assert status in (400, 401), body
    assert poll(here) == []


def test_a_flood_for_one_node_is_refused_in_time() -> None:
    here = world(signals_waiting=5)
    here.register(ANN)
    answers = [leave(here, "candidate")[0] for _ in range(7)]

    assert answers == [200, 200, 200, 200, 200, 429, 429]
    here.clock += 301
    here.register(ANN)
    assert leave(here, "candidate")[0] == 200


def test_two_hundred_candidates_in_ten_seconds_are_no_flood(here: World) -> None:
    assert {leave(here, "candidate")[0] for _ in range(200)} == {200}


def test_a_listening_node_is_told_at_once_and_others_are_not(here: World) -> None:
    bob, carl = here.subscribe(BOB, "c-bob"), here.subscribe("carl-003", "c-carl")

    leave(here)

    [frame] = here.gateway.take(bob.id)
    assert (frame["t"], frame["signals"]) == ("SIGNALS", poll(here))
    assert here.gateway.take(carl.id) == []
