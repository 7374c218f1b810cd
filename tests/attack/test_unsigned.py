"""Where unsigned calls are allowed: what an outsider who knows the hint can do to members.

Members here sign all their calls; the existing browser client signs what it registers and
asks about peers, and nothing else (tests/hosts/test_existing_clients.py).
"""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from chalicelib.auth import UNSIGNED_S
from chalicelib.circle import journal
from chalicelib.store import Stores
from muster.errors import RateLimited
from muster.felund import signing
from tests.support import aws, gateway, local, members
from tests.support import stores as engines
from tests.support.circle import ANN, BOB, HINT, SECRET, World, world

FEW = {
    "unsigned_messages": 20,
    "unsigned_bytes": 100_000,
    "unsigned_signals": 10,
    "unsigned_sockets": 5,
    "mailbox_messages": 30,
    "mailbox_bytes": 200_000,
    "signals_waiting": 12,
}
PEERS = ("GET", "/v1/peers")
MALLORY = "mallory-01"


@pytest.fixture(params=engines.ENGINES)
def stores(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Stores]:
    engine = str(request.param)
    url = request.getfixturevalue("dynalite_url") if "dynalite" in engine else ""
    with engines.opened(engine, directory=tmp_path, dynalite_url=url) as opened:
        yield opened


@pytest.fixture
def here(stores: Stores) -> World:
    """A circle with a pinned key on a service that allows unsigned calls."""
    made = world(stores, unsigned="allow", **FEW)
    made.register(ANN, ttl_s=600)
    made.register(BOB, ttl_s=600)
    return made


def unsigned(here: World, n: int, *, size: int = 1) -> int:
    message = {"msg_id": f"strange-{n:04d}", "text": "x" * size}
    body = {"circle_hint": HINT, "messages": [message]}
    return here.call("POST", "/v1/messages", body, key=None, node=MALLORY)[0]


def signal(here: World, n: int, **more: Any) -> int:
    body = {
        "session_id": f"{ANN}:{BOB}",
        "from_node_id": ANN,
        "to_node_id": BOB,
        "circle_hint": HINT,
        "type": "candidate",
        "payload": f"{n}",
    }
    return here.call("POST", "/v1/signal", body, **more)[0]


def payloads(here: World, hint: str | None) -> list[str]:
    """Return what waits for Bob: signed in a circle, or as the browser client asks."""
    query = {"to_node_id": BOB} | ({"circle_hint": hint} if hint else {})
    key = signing.request_key(SECRET) if hint else None
    answer = here.call("GET", "/v1/signal", query=query, node=BOB, key=key)[1]
    return [one["payload"] for one in answer["signals"]]


def register(here: World, node: str, **more: Any) -> tuple[int, dict[str, Any]]:
    body = {"node_id": node, "circle_hint": HINT} | more.pop("members", {})
    return here.call("POST", "/v1/register", body, node=node, **more)


def listed(here: World, **more: Any) -> list[str]:
    status, body = here.call(*PEERS, query={"circle_hint": HINT}, **more)
    assert status == 200, body
    return sorted(peer["node_id"] for peer in body["peers"])


# --- the mailbox ----------------------------------------------------------------------


def test_strangers_fill_a_place_of_their_own_and_members_have_all_of_theirs(here: World) -> None:
    assert [unsigned(here, n) for n in range(25)] == [200] * 20 + [429] * 5

    for n in range(30):
        assert here.leave(f"m-{n:06d}")[0] == 200
    assert here.leave("m-000030")[0] == 429
    assert len(here.poll(after=0)["messages"]) == 50


def test_the_same_by_bytes(here: World) -> None:
    assert [unsigned(here, n, size=40_000) for n in range(4)] == [200, 200, 429, 429]

    assert [here.leave(f"m-{n:06d}", text="x" * 60_000)[0] for n in range(4)] == [200] * 3 + [429]


def test_members_who_fill_their_mailbox_leave_the_unsigned_ones_their_place(here: World) -> None:
    """The existing browser client leaves its messages unsigned."""
    for n in range(30):
        here.leave(f"m-{n:06d}")

    assert [unsigned(here, n) for n in range(21)] == [200] * 20 + [429]


def test_a_strangers_place_is_free_again_when_its_messages_expire(here: World) -> None:
    for n in range(20):
        unsigned(here, n)
    here.clock += here.service.settings.message_s // 2
    assert here.leave("m-000000")[0] == 200
    here.clock += here.service.settings.message_s // 2 + 1

    assert [unsigned(here, n) for n in range(100, 121)] == [200] * 20 + [429]


def test_a_large_unsigned_message_counts_as_one(stores: Stores) -> None:
    here = world(stores, unsigned="allow", unsigned_bytes=1_000_000, mailbox_bytes=1_000_000)
    here.register(ANN)

    assert [unsigned(here, n, size=700_000) for n in range(2)] == [200, 429]
    assert here.leave("m-000001", text="x" * 700_000)[0] == 200


def test_what_was_kept_before_signatures_were_told_apart_counts_as_signed(here: World) -> None:
    store, pk = here.service.stores.mail, "mail#" + HINT
    old = [journal.Part(f"m-{n:06d}", b'{"msg_id":"m-%06d"}' % n) for n in range(30)]
    journal.append(store, pk, lambda tail: old, clock=here.clock, lifetime_s=1_000)

    assert here.leave("m-000099")[0] == 429
    assert unsigned(here, 1) == 200


# --- signals --------------------------------------------------------------------------


@pytest.mark.parametrize("hint", [HINT, None])
def test_a_stranger_cannot_fill_a_members_signals(here: World, hint: str | None) -> None:
    flood = [signal(here, n, key=None) for n in range(15)]
    assert flood == [200] * 10 + [429] * 5

    assert [signal(here, n) for n in range(100, 112)] == [200] * 12
    assert payloads(here, hint)[-12:] == [str(n) for n in range(100, 112)]
    here.clock += 301
    assert signal(here, 1, key=None) == 200


def test_unsigned_signals_have_a_place_of_their_own_too(here: World) -> None:
    for n in range(12):
        signal(here, n)

    assert [signal(here, n, key=None) for n in range(11)] == [200] * 10 + [429]


# --- the room -------------------------------------------------------------------------


def test_a_stranger_cannot_fill_a_members_room(here: World) -> None:
    for n in range(5):
        here.open(f"strange-{n}", circle_hint=HINT, node_id=f"strange-{n}")
    with pytest.raises(RateLimited):
        here.open("strange-5", circle_hint=HINT, node_id="strange-5")

    bob = here.subscribe(BOB, "bob")
    here.leave("m-000001")

    assert [one["msg_id"] for one in here.gateway.take(bob.id)[0]["messages"]] == ["m-000001"]


# --- the key --------------------------------------------------------------------------


def test_a_circle_whose_nodes_register_unsigned_is_pinned_by_nobody(stores: Stores) -> None:
    here = world(stores, unsigned="allow")
    assert register(here, ANN, key=None)[0] == 200
    evil = signing.request_key(b"\x66" * 32)

    status, _ = register(here, MALLORY, key=evil, members={"signing_key": evil.hex()})

    assert status == 200, "it counts as an unsigned call"
    assert register(here, BOB, key=None)[0] == 200
    assert listed(here, key=None) == [ANN, BOB, MALLORY]
    assert listed(here, key=evil, node=MALLORY) == [ANN, BOB]


def test_members_who_sign_join_such_a_circle_and_lock_nobody_out(stores: Stores) -> None:
    here = world(stores, unsigned="allow")
    register(here, ANN, key=None)

    assert here.register(BOB)[0] == 200
    assert here.leave("m-000001", node=BOB)[0] == 200
    assert listed(here, node=BOB) == [ANN]
    assert listed(here, key=None) == [ANN, BOB]
    body = {"node_id": BOB, "circle_hint": HINT}
    assert here.call("POST", "/v1/relay/subscription", body, node=BOB)[0] == 401


def test_such_a_signature_proves_nothing(stores: Stores) -> None:
    here = world(stores, unsigned="allow", **FEW)
    register(here, ANN, key=None)
    evil = signing.request_key(b"\x66" * 32)

    assert [signal(here, n, key=evil) for n in range(11)] == [200] * 10 + [429]


def test_a_circle_can_be_pinned_a_day_after_its_last_unsigned_register(stores: Stores) -> None:
    here = world(stores, unsigned="allow")
    for hours in range(0, 30, 6):
        here.clock += 6 * 3600 if hours else 0
        register(here, ANN, key=None)
        here.register(BOB)
    assert register(here, ANN, key=None)[0] == 200

    here.clock += UNSIGNED_S + 1
    here.register(BOB)

    assert register(here, ANN, key=None)[0] == 401
    assert listed(here, node=BOB) == []


def test_messages_and_signals_alone_keep_nobody_from_pinning(stores: Stores) -> None:
    """The existing browser client signs its register, and may poll before."""
    here = world(stores, unsigned="allow")
    unsigned(here, 1)
    signal(here, 1, key=None)

    here.register(ANN)

    assert register(here, MALLORY, key=None)[0] == 401


def test_a_service_that_refuses_unsigned_calls_pins_as_ever(stores: Stores) -> None:
    allowing = world(stores, unsigned="allow")
    register(allowing, ANN, key=None)
    here = world(stores)

    here.register(BOB)

    assert listed(here, node=BOB) == [ANN]
    assert here.call("GET", "/v1/messages", query={"circle_hint": HINT}, key=None)[0] == 401


# --- on the hosts ---------------------------------------------------------------------


def body(hint: str, n: int) -> bytes:
    messages = [{"msg_id": f"strange-{n:04d}"}]
    return json.dumps({"circle_hint": hint, "messages": messages}).encode()


@pytest.mark.parametrize("engine", aws.ENGINES)
def test_on_aws_a_pinned_circles_members_are_unharmed(
    engine: str, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    url = request.getfixturevalue("dynalite_url") if engine == "dynalite" else ""
    few = {"MUSTER_UNSIGNED": "allow", "MUSTER_UNSIGNED_MESSAGES": "3"}
    with aws.running(engine, directory=tmp_path, dynalite_url=url, **few) as made:
        (ann,) = members.circle(made, "ann")
        assert flooded(made, ann.hint) == [200] * 3 + [429] * 2
        assert ann.leave("message-01")["stored"] == 1


def flooded(made: gateway.Gateway | local.Server, hint: str) -> list[int]:
    return [made.call("POST", "/v1/messages", body=body(hint, n)).status for n in range(5)]


def test_on_one_machine_a_pinned_circles_members_are_unharmed(tmp_path: Path) -> None:
    with local.running(tmp_path, "--unsigned=allow", unsigned_messages="3") as server:
        (ann,) = local.circle(server, "ann")
        assert flooded(server, ann.hint) == [200] * 3 + [429] * 2
        assert ann.leave("message-01")["stored"] == 1
