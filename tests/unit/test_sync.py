"""The one call of version 2 on SQLite and a fixed clock: what a node says and what it reads."""

import hmac
import json
from base64 import b64encode
from typing import Any

import pytest

from capsules.keys import VerifyKey
from chalicelib import proved, tables
from muster import base64url, calls, keys, shapes, signals
from muster.seals import sealed_id
from tests.support.circle import World, world
from tests.support.version2 import Node, new_epoch
from tests.support.version2 import in_world as node


@pytest.fixture
def here() -> World:
    return world()


@pytest.fixture
def pair(here: World) -> tuple[Node, Node]:
    epoch = new_epoch()
    return node(here, epoch), node(here, epoch, source_ip="192.0.2.2")


def code(answer: Any, part: str) -> str:
    return str(answer["refused"][part]["code"])


# --- presence ---------------------------------------------------------------------------


def test_two_nodes_find_each_other(pair: tuple[Node, Node]) -> None:
    ann, bob = pair
    ann.sync(presence={"sealed": ann.presence("Ann")})
    found = bob.sync(presence={"sealed": bob.presence("Bob")}, want={"peers": True})

    assert bob.names(found) == ["Ann"]
    assert ann.names(ann.sync(want={"peers": True})) == ["Bob"]


def test_a_presence_ends_when_its_time_is_over(here: World, pair: tuple[Node, Node]) -> None:
    ann, bob = pair
    ann.sync(presence={"sealed": ann.presence(), "ttl_s": 60})
    here.clock += 59
    (seen,) = bob.sync(want={"peers": True})["peers"]
    here.clock += 1

    assert seen["until_ms"] == int(here.clock) * 1000
    assert bob.sync(want={"peers": True})["peers"] == []


@pytest.mark.parametrize(("asked", "kept"), [(1, 30), (-5, 30), (100.5, 100), (1e9, 660)])
def test_how_long_a_presence_is_kept_is_clamped(
    here: World, pair: tuple[Node, Node], asked: float, kept: int
) -> None:
    ann, bob = pair
    ann.sync(presence={"sealed": ann.presence(), "ttl_s": asked})

    (seen,) = bob.sync(want={"peers": True})["peers"]
    assert seen["until_ms"] == (here.now + kept) * 1000


def test_who_leaves_is_gone_and_comes_back_by_a_later_word_only(
    here: World, pair: tuple[Node, Node]
) -> None:
    ann, bob = pair
    body = json.dumps({"presence": {"sealed": ann.presence()}}).encode()
    first = ann.header(body)
    ann.raw(body, first)
    here.clock += 1
    assert ann.sync(presence=None)["refused"] == {}
    for seconds in (0, 30, 88):
        here.clock += seconds
        status, _, answer = ann.raw(body, first)  # the same call once more, by whoever heard it
        assert (status, code(answer, "presence")) == (200, "OUTDATED")
        assert bob.sync(want={"peers": True})["peers"] == []
    ann.sync(presence={"sealed": ann.presence()})

    assert len(bob.sync(want={"peers": True})["peers"]) == 1


def test_who_is_refused_is_told_what_stands(here: World, pair: tuple[Node, Node]) -> None:
    ann, _ = pair
    ann.sync(presence={"sealed": ann.presence()})
    answer = ann.sync(presence={"sealed": ann.presence()})

    assert answer["refused"]["presence"]["at_ms"] == int(here.clock * 1000)


def test_a_page_of_peers_is_bounded_and_the_next_goes_on(here: World) -> None:
    epoch = new_epoch()
    nodes = [node(here, epoch) for _ in range(shapes.PEERS_PAGE + 6)]
    for one in nodes:
        one.sync(presence={"sealed": one.presence()})
    first = nodes[0].sync(want={"peers": True})
    after = first["peers"][-1]["node_id"]
    rest = nodes[0].sync(want={"peers": True}, after={"peers": after})

    assert (len(first["peers"]), first["more"]) == (shapes.PEERS_PAGE, ["peers"])
    found = [peer["node_id"] for peer in first["peers"] + rest["peers"]]
    assert found == sorted(one.id for one in nodes[1:])
    assert rest["more"] == []


def test_nodes_that_come_and_go_make_no_list_long(here: World) -> None:
    """Anybody can make a circle, and as many nodes in it as there are numbers."""
    here = world(circle_members=8)
    epoch = new_epoch()
    codes = []
    for _ in range(20):
        one = node(here, epoch)
        answer = one.sync(presence={"sealed": one.presence()})
        codes += [part["code"] for part in answer["refused"].values()]

    assert codes == ["RATE_LIMITED"] * 12
    here.clock += 300
    one = node(here, epoch)
    assert one.sync(presence={"sealed": one.presence()})["refused"] == {}


def test_each_signal_of_a_call_costs_what_a_call_costs(here: World) -> None:
    here = world(address_burst=60, address_per_s=1)
    epoch = new_epoch()
    ann, bob = node(here, epoch), node(here, epoch, source_ip="192.0.2.2")
    ann.sync(send={"signals": [ann.signal(bob) for _ in range(50)]})
    ann.sync()
    statuses = [ann.raw(b"{}")[0] for _ in range(12)]

    assert 429 in statuses
    assert bob.sync(want={"signals": 99})["signals"]


@pytest.mark.parametrize(
    ("sealed", "said"),
    [
        (base64url.encode(bytes(639)), "640 or 864 bytes"),
        (base64url.encode(bytes(768)), "640 or 864 bytes"),
        (base64url.encode(bytes(640))[:-1] + "B", "another spelling"),
    ],
)
def test_a_presence_of_another_form_is_refused_and_the_rest_stands(
    pair: tuple[Node, Node], sealed: str, said: str
) -> None:
    ann, bob = pair
    answer = ann.sync(presence={"sealed": sealed}, send={"messages": [ann.message("hello")]})

    assert said in answer["refused"]["presence"]["message"]
    assert bob.texts(bob.sync(want={"messages": 9})) == ["hello"]


# --- messages ---------------------------------------------------------------------------


def test_what_is_left_is_read_by_exact_cursors(pair: tuple[Node, Node]) -> None:
    ann, bob = pair
    ann.sync(send={"messages": [ann.message(f"{n}") for n in range(3)]})
    first = bob.sync(want={"messages": 1})
    ann.sync(send={"messages": [ann.message("3")]})
    after = first["entries"][-1]["number"]
    second = bob.sync(want={"messages": 9}, after={"messages": after})
    end = second["entries"][-1]["number"]

    assert bob.texts(first) == ["0", "1", "2"], "entries are whole"
    assert bob.texts(second) == ["3"]
    assert bob.sync(want={"messages": 9}, after={"messages": end})["entries"] == []


def test_a_page_of_messages_says_that_there_are_more(pair: tuple[Node, Node]) -> None:
    ann, bob = pair
    for n in range(4):
        ann.sync(send={"messages": [ann.message(f"{n}")]})
    page = bob.sync(want={"messages": 3})

    assert bob.texts(page) == ["0", "1", "2"]
    assert page["more"] == ["messages"]


def test_a_copy_of_a_message_is_not_kept_again(pair: tuple[Node, Node]) -> None:
    ann, bob = pair
    message = ann.message("once")
    for _ in range(3):
        ann.sync(send={"messages": [message]})
    bob.sync(send={"messages": [message]})

    assert bob.texts(bob.sync(want={"messages": 9})) == ["once"]


@pytest.mark.parametrize("bad", [bytes(128), bytes(255), bytes(257)])
def test_a_message_that_is_not_filled_is_refused_and_none_is_kept(
    pair: tuple[Node, Node], bad: bytes
) -> None:
    ann, bob = pair
    answer = ann.sync(send={"messages": [ann.message("good"), base64url.encode(bad)]})

    assert "multiple of 256" in answer["refused"]["send.messages"]["message"]
    assert bob.sync(want={"messages": 9})["entries"] == []


def test_a_large_message_comes_back_whole(here: World, pair: tuple[Node, Node]) -> None:
    ann, bob = pair
    text = "x" * 600_000
    assert ann.sync(send={"messages": [ann.message(text)]}).get("refused", {}) == {}

    assert bob.texts(bob.sync(want={"messages": 9})) == [text]


def test_a_large_call_is_spent(here: World, pair: tuple[Node, Node]) -> None:
    ann, bob = pair
    body = json.dumps({"send": {"messages": [ann.message("x" * 20_000)]}}).encode()
    header = ann.header(body)
    ann.raw(body, header)
    here.service.names.__init__(16_384)  # type: ignore[misc]  # another process
    _, _, answer = ann.raw(body, header)

    assert code(answer, "send.messages") == "OUTDATED"
    assert len(bob.sync(want={"messages": 9})["entries"]) == 1


def test_a_cursor_that_no_clock_allows_is_not_believed(pair: tuple[Node, Node]) -> None:
    ann, _ = pair
    answer = ann.sync(want={"messages": 9, "signals": 9}, after={"messages": 2**53 - 1})

    assert "read again from 0" in answer["refused"]["messages"]["message"]
    assert answer["signals"] == []


# --- signals ----------------------------------------------------------------------------


def test_a_signal_reaches_its_node_and_no_other(here: World) -> None:
    epoch = new_epoch()
    ann, bob, eve = (node(here, epoch) for _ in range(3))
    ann.sync(send={"signals": [ann.signal(bob)]})
    (found,) = bob.sync(want={"signals": 9})["signals"]
    opened = signals.unseal(epoch, ann.node.id, bob.node.id, base64url.decode(found["sealed"]))

    assert (found["from"], opened.kind) == (ann.id, "connect")
    assert eve.sync(want={"signals": 9})["signals"] == []
    assert bob.sync(want={"signals": 9}, after={"signals": found["number"]})["signals"] == []


def test_a_signal_is_void_after_its_time_and_kept_once(
    here: World, pair: tuple[Node, Node]
) -> None:
    ann, bob = pair
    signal = ann.signal(bob) | {"ttl_s": 20}
    ann.sync(send={"signals": [signal]})
    ann.sync(send={"signals": [signal, signal]})
    assert len(bob.sync(want={"signals": 9})["signals"]) == 1
    here.clock += 20

    assert bob.sync(want={"signals": 9})["signals"] == []


# --- order, quiet, names ------------------------------------------------------------------


def test_a_quiet_sync_says_what_was_refused_and_reads_nothing(pair: tuple[Node, Node]) -> None:
    ann, _ = pair
    quiet = ann.sync(presence={"sealed": ann.presence()}, want={"peers": True}, quiet=True)
    again = ann.sync(presence={"sealed": ann.presence()}, quiet=True)

    assert quiet == {"ok": True, "refused": {}}
    assert code(again, "presence") == "OUTDATED"


def test_an_empty_sync_is_a_sync(pair: tuple[Node, Node]) -> None:
    ann, _ = pair

    assert ann.sync() == {"ok": True, "refused": {}, "more": [], "next_s": 30}


def test_info_is_signed_for_whoever_asks(here: World, pair: tuple[Node, Node]) -> None:
    ann, _ = pair
    status, headers, body = ann.send("GET", "/v2/info", {}, b"")
    calls.Answer.parse(headers["muster-answer"]).check(
        ann.service_id, b"", status=status, body=body
    )
    header = ann.header(b"", call=calls.INFO)
    status, headers, body = ann.send("GET", "/v2/info", {"Authorization": header.header}, b"")
    calls.Answer.parse(headers["muster-answer"]).check(
        ann.service_id, header.proof.raw, status=status, body=body
    )
    told = json.loads(body)

    assert keys.service_id(VerifyKey(base64url.decode(told["service_key"]))) == ann.service_id
    assert told["time_ms"] == int(here.clock * 1000)


def test_version_1_does_not_reach_a_circle_of_version_2(
    here: World, pair: tuple[Node, Node]
) -> None:
    ann, bob = pair
    ann.sync(presence={"sealed": ann.presence()}, send={"messages": [ann.message("hello")]})
    hint = ann.epoch.hint.hex()
    for named in (hint, proved.circle_of(ann.epoch.hint)):
        for method, path, body in (
            ("POST", "/v1/register", {"node_id": "mallory-1", "circle_hint": named}),
            ("POST", "/v1/messages", {"circle_hint": named, "messages": []}),
        ):
            status, _ = here.call(method, path, body, node="mallory-1")
            assert status in (200, 400, 401)
        status, found = here.call("GET", "/v1/messages", query={"circle_hint": named})
        assert status >= 400 or found["messages"] == []

    assert bob.texts(bob.sync(want={"messages": 9})) == ["hello"]
    assert len(bob.sync(want={"peers": True})["peers"]) == 1


def test_what_is_stored_of_a_presence_is_one_unit(here: World, pair: tuple[Node, Node]) -> None:
    """The larger size, the key and the names of the attributes included."""
    ann, _ = pair
    sealed = base64url.encode(bytes(864))
    ann.sync(presence={"sealed": sealed})
    (item,) = here.service.stores.presence.after(
        "circle#" + proved.circle_of(ann.epoch.hint), "", limit=9, now=here.now
    ).items
    names = len("pk") + len("sk") + len("expires_at") + len("body") + 8

    assert len(item.pk) + len(item.sk) + len(item.body) + names <= 1024


def test_names_are_those_that_readers_compute(here: World, pair: tuple[Node, Node]) -> None:
    ann, _ = pair
    message = ann.message("hello")
    ann.sync(send={"messages": [message]})
    pk = tables.mail_key(proved.circle_of(ann.epoch.hint))
    (item,) = here.service.stores.mail.after(pk, "", limit=9, now=here.now).items

    assert sealed_id(base64url.decode(message)).hex().encode() in item.body


# --- ice --------------------------------------------------------------------------------

PLAN = {
    "ice_servers": [
        {"urls": ["stun:stun.example:3478"]},
        {"urls": ["turn:turn.example:3478"], "secret": "s3cret"},
        {"urls": ["turn:other.example:3478"], "username": "u", "password": "p"},
    ],
    "turn_ttl_s": 600,
}


def test_a_node_that_wants_ice_gets_the_operator_s_servers_with_logins() -> None:
    here = world(assist=json.dumps(PLAN))
    found = node(here).sync(want={"ice": True})["ice"]

    stun, turn, fixed = found["servers"]
    assert stun == {"urls": ["stun:stun.example:3478"]}
    assert (fixed["username"], fixed["credential"]) == ("u", "p")
    until = found["until_ms"] // 1000
    assert until == here.now + 600
    assert turn["username"].startswith(f"{until}:")
    made = hmac.digest(b"s3cret", turn["username"].encode(), "sha1")
    assert turn["credential"] == b64encode(made).decode()


def test_ice_is_empty_where_the_operator_planned_nothing_and_absent_where_nobody_asks(
    here: World,
) -> None:
    assert node(here).sync(want={"ice": True})["ice"] == {"servers": []}
    assert "ice" not in node(here).sync(want={"peers": True})
