"""The socket of version 2 on SQLite and a fixed clock: who has it and what passes through."""

import json
from typing import Any

import msgspec
import pytest

from chalicelib import tables
from chalicelib.circle import live, sockets
from muster import base64url, calls, errors
from muster.calls import Answer
from tests.support.circle import World, world
from tests.support.version2 import Wire, in_world, new_epoch


@pytest.fixture
def here() -> World:
    return world()


@pytest.fixture
def pair(here: World) -> tuple[Wire, Wire]:
    epoch = new_epoch()
    return Wire(here, in_world(here, epoch), "ann"), Wire(here, in_world(here, epoch), "bob")


def test_a_socket_names_its_subprotocol_and_is_told_nothing_first(here: World) -> None:
    wire = Wire(here, in_world(here), "ann")

    assert wire.opened.subprotocol == "muster.v2"
    assert wire.told() == []


def test_what_one_says_the_other_is_told(pair: tuple[Wire, Wire]) -> None:
    ann, bob = pair
    ann.sync(presence={"sealed": ann.node.presence("Ann"), "tell": True})
    ann.sync(send={"messages": [ann.node.message("hello")]})
    ann.sync(send={"signals": [ann.node.signal(bob.node)]})
    ann.here.clock += 1
    ann.sync(presence=None)
    peers, entries, signals, left = bob.told()

    assert bob.node.names(peers) == ["Ann"]
    assert bob.node.texts(entries) == ["hello"]
    assert signals["signals"][0]["from"] == left["left"][0] == ann.node.id
    assert {frame["t"] for frame in (peers, entries, signals, left)} == {"EVENT"}


def test_what_was_pushed_is_what_is_read(pair: tuple[Wire, Wire]) -> None:
    ann, bob = pair
    ann.sync(send={"messages": [ann.node.message("one"), ann.node.message("two")]})
    (event,) = bob.told()
    read = bob.sync(want={"messages": 9})

    assert read["entries"] == event["entries"]


def test_by_http_one_is_told_of_by_sockets_too(here: World, pair: tuple[Wire, Wire]) -> None:
    ann, bob = pair
    carl = in_world(here, ann.node.epoch)
    carl.sync(send={"messages": [carl.message("from afar")]})

    assert bob.node.texts(bob.told()[0]) == ["from afar"]
    assert ann.node.texts(ann.told()[0]) == ["from afar"]


def test_a_presence_is_told_only_where_that_is_wanted(pair: tuple[Wire, Wire]) -> None:
    ann, bob = pair
    ann.sync(presence={"sealed": ann.node.presence()})

    assert bob.told() == []


def test_a_quiet_sync_is_answered_only_where_it_is_refused(
    here: World, pair: tuple[Wire, Wire]
) -> None:
    ann, _ = pair
    placed = {"sealed": ann.node.presence()}

    assert ann.sync(presence=placed, quiet=True) is None
    assert ann.sync(presence=placed, quiet=True)["refused"]["presence"]["code"] == "OUTDATED"


def test_a_frame_is_passed_and_taken(pair: tuple[Wire, Wire]) -> None:
    ann, bob = pair
    payload = base64url.encode(bytes(live.PAYLOAD_BYTES))
    told = ann.say({"t": "FRAME", "n": 7, "to": bob.node.id, "payload": payload})

    assert told == [{"t": "TAKEN", "n": 7}]
    assert bob.told() == [{"t": "FRAME", "from": ann.node.id, "payload": payload}]


@pytest.mark.parametrize(
    ("frame", "code"),
    [
        ({"to": "0" * 32, "payload": "AAAA"}, "NOT_FOUND"),
        ({"to": "ann", "payload": "AAAA"}, "INVALID_FRAME"),
        ({"to": "0" * 32, "payload": "AA=="}, "INVALID_FRAME"),
        ({"to": "0" * 32, "payload": base64url.encode(bytes(16_385))}, "PAYLOAD_TOO_LARGE"),
        ({"payload": "AAAA"}, "INVALID_FRAME"),
    ],
)
def test_a_frame_that_cannot_be_passed_is_answered_by_name(
    pair: tuple[Wire, Wire], frame: dict[str, Any], code: str
) -> None:
    ann, bob = pair
    (told,) = ann.say({"t": "FRAME", "n": 3} | frame)

    assert (told["t"], told["code"]) == ("ERROR", code)
    assert bob.told() == []


@pytest.mark.parametrize(
    "text",
    ["", "{", "[]", '{"t":"PING"}', '{"t":"SYNC"}', '{"t":"SYNC","n":-1,"proof":"","body":""}'],
)
def test_what_is_no_frame_is_one_error(pair: tuple[Wire, Wire], text: str) -> None:
    (told,) = pair[0].say(text)

    assert (told["t"], told["code"]) == ("ERROR", "INVALID_FRAME")


def test_nobody_passes_frames_into_another_circle(here: World, pair: tuple[Wire, Wire]) -> None:
    eve = Wire(here, in_world(here), "eve")
    (told,) = eve.say({"t": "FRAME", "n": 1, "to": pair[0].node.id, "payload": "AAAA"})

    assert told["code"] == "NOT_FOUND"
    assert pair[0].told() == []


def test_a_node_has_one_socket_and_the_newer_takes_over(
    here: World, pair: tuple[Wire, Wire]
) -> None:
    ann, bob = pair
    ann.sync(presence={"sealed": ann.node.presence()})
    here.clock += 1
    again = Wire(here, ann.node, "ann-2")

    assert ann.told() == [{"t": "REPLACED"}]
    assert here.gateway.closed["ann"] == 1000
    ann.close()
    assert bob.told() == [], "she is there still"
    bob.say({"t": "FRAME", "n": 1, "to": ann.node.id, "payload": "AAAA"})
    assert again.told()[0]["t"] == "FRAME"


def test_of_two_that_were_opened_in_one_moment_one_is_told(
    here: World, pair: tuple[Wire, Wire]
) -> None:
    ann, _ = pair
    mine = tables.socket(here.service.stores, "ann", now=here.now)
    assert mine is not None
    other = msgspec.structs.replace(mine, id="elsewhere")
    tables.save_socket(here.service.stores, other, now=here.now)
    ann.deliver(sockets.greet(here.service, ann.connection, now=here.now))

    assert ann.told() == [{"t": "REPLACED"}]
    assert "ann" in here.gateway.closed


def test_the_presence_of_a_socket_ends_with_it(here: World, pair: tuple[Wire, Wire]) -> None:
    ann, bob = pair
    ann.sync(presence={"sealed": ann.node.presence()})
    assert len(bob.sync(want={"peers": True})["peers"]) == 1
    ann.close()
    (event,) = bob.told()

    assert event == {"t": "EVENT", "left": [ann.node.id]}
    assert bob.sync(want={"peers": True})["peers"] == []


def test_a_presence_that_is_not_the_sockets_stays(here: World, pair: tuple[Wire, Wire]) -> None:
    ann, bob = pair
    ann.sync(presence={"sealed": ann.node.presence()})
    here.clock += 1
    ann.node.sync(presence={"sealed": ann.node.presence()})  # by HTTP, in the background
    ann.close()

    assert bob.told() == []
    assert len(bob.sync(want={"peers": True})["peers"]) == 1


def test_a_handshake_is_good_once(here: World) -> None:
    ann = in_world(here)
    header = ann.header(b"", call=calls.OPEN)
    Wire(here, ann, "one", header)

    with pytest.raises(errors.Outdated):
        Wire(here, ann, "two", header)


@pytest.mark.parametrize("call", [calls.SYNC, calls.FRAME, calls.INFO])
def test_a_handshake_is_signed_as_one(here: World, call: str) -> None:
    ann = in_world(here)

    with pytest.raises(errors.InvalidSignature):
        Wire(here, ann, "one", ann.header(b"", call=call))


def test_a_sync_on_a_socket_is_the_sockets_nodes(here: World, pair: tuple[Wire, Wire]) -> None:
    """Neither another node's proof nor a proof for HTTP is good here."""
    ann, bob = pair
    body = json.dumps({"presence": None})
    for header in (
        bob.node.header(body.encode(), call=calls.FRAME),
        ann.node.header(body.encode(), call=calls.SYNC),
    ):
        proof = base64url.encode(header.proof.raw)
        (told,) = ann.say({"t": "SYNC", "n": 1, "proof": proof, "body": body})
        assert (told["t"], told["status"]) == ("SYNCED", 401)
        assert json.loads(told["body"])["code"] == "INVALID_SIGNATURE"


def test_a_body_of_another_shape_is_refused_and_signed(pair: tuple[Wire, Wire]) -> None:
    ann, _ = pair
    for body in ("{", "[]", '{"want":7}'):
        header = ann.node.header(body.encode(), call=calls.FRAME)
        proof = base64url.encode(header.proof.raw)
        (told,) = ann.say({"t": "SYNC", "n": 1, "proof": proof, "body": body})
        assert told["status"] == 400
        Answer.parse(told["answer"]).check(
            ann.node.service_id, header.proof.raw, status=400, body=told["body"].encode()
        )


def test_what_no_frame_holds_is_read_by_http(pair: tuple[Wire, Wire]) -> None:
    ann, bob = pair
    ann.node.sync(send={"messages": [ann.node.message("x" * 80_000)]})
    answer = bob.sync(want={"messages": 9, "peers": True})

    assert bob.told() == []
    assert answer["refused"]["messages"]["code"] == "PAYLOAD_TOO_LARGE"
    assert answer["peers"] == []
    assert bob.node.texts(bob.node.sync(want={"messages": 9})) == ["x" * 80_000]


def test_a_closed_service_opens_sockets_for_who_was_let_in(here: World) -> None:
    closed = world(access="closed")

    with pytest.raises(errors.NotAllowed):
        Wire(closed, in_world(closed), "eve")


def test_another_process_finds_what_a_socket_is_for(here: World, pair: tuple[Wire, Wire]) -> None:
    """On AWS the frames of one socket come to many processes."""
    ann, bob = pair
    here.service.live.forget("ann")
    here.service.spread = True
    told = ann.say({"t": "FRAME", "n": 7, "to": bob.node.id, "payload": "AAAA"})

    assert told == [{"t": "TAKEN", "n": 7}]


def test_a_sync_by_frame_counts_as_a_call_of_its_address(here: World) -> None:
    here = world(address_burst=5, address_per_s=1)
    ann = Wire(here, in_world(here), "ann")
    statuses = [ann.raw_sync("{}")[0]["status"] for _ in range(6)]

    assert statuses.count(429) >= 3
    assert statuses[0] == 200


def test_a_frame_finds_its_node_however_many_there_are(here: World) -> None:
    """Whoever floods in a large circle costs what it costs in a small one."""
    epoch = new_epoch()
    wires = [Wire(here, in_world(here, epoch), f"w{n}") for n in range(30)]
    read: list[str] = []
    presence = here.service.stores.presence
    here.service.stores = here.service.stores._replace(presence=Watched(presence, read))
    told = wires[0].say({"t": "FRAME", "n": 1, "to": wires[29].node.id, "payload": "AAAA"})

    assert told == [{"t": "TAKEN", "n": 1}]
    assert read == ["get"]


class Watched:
    """A store that notes what it is asked for."""

    def __init__(self, store: Any, asked: list[str]) -> None:
        self._store, self._asked = store, asked

    def __getattr__(self, verb: str) -> Any:
        self._asked.append(verb)
        return getattr(self._store, verb)
