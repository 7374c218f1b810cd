import json
from collections.abc import Callable
from typing import Any

import pytest

from chalicelib.circle import journal, mailbox, sockets
from muster.errors import RateLimited
from tests.support.circle import ANN, BOB, HINT, START, World, world


def ids(body: dict[str, object]) -> list[str]:
    return [message["msg_id"] for message in body["messages"]]  # type: ignore[attr-defined]


def test_messages_come_back_unchanged_in_arrival_order() -> None:
    here = world()
    here.register()
    odd = {
        "msg_id": "m-000002",
        "created_ts": 7,
        "enc": {"alg": "x"},
        "näme": "✓ \u2028",
        "n": [1.5, None],
    }
    here.leave("m-000009")
    here.call("POST", "/v1/messages", {"circle_hint": HINT, "messages": [odd]})

    messages = here.poll(since=0)["messages"]

    assert messages == [{"msg_id": "m-000009", "created_ts": 1}, odd]


def test_a_known_message_is_stored_once_per_circle() -> None:
    here = world(unsigned="allow")
    there = {"circle_hint": "another-circle", "messages": [{"msg_id": "m-000001"}]}
    here.register()

    assert here.leave("m-000001", "m-000001", "m-000002")[1]["stored"] == 2
    assert here.leave("m-000002", "m-000001", "m-000003")[1]["stored"] == 1
    assert here.leave("m-000001")[1]["stored"] == 0
    assert here.call("POST", "/v1/messages", there, key=None)[1]["stored"] == 1
    assert ids(here.poll(after=0)) == ["m-000001", "m-000002", "m-000003"]


def test_one_bad_message_keeps_the_whole_batch_out() -> None:
    here = world()
    here.register()

    status, body = here.leave("m-000001", "short")

    assert (status, body["code"]) == (400, "INVALID_REQUEST")
    assert ids(here.poll(after=0)) == []


def test_a_message_expires_after_thirty_days() -> None:
    here = world()
    here.register()
    here.leave("m-000001")
    here.clock = START + 30 * 24 * 3600 - 1
    here.register()
    assert ids(here.poll(after=0)) == ["m-000001"]

    here.clock += 1

    assert ids(here.poll(after=0)) == []


def test_a_full_mailbox_refuses_and_drops_nothing() -> None:
    here = world(mailbox_messages=3)
    here.register()
    here.leave("m-000001", "m-000002", "m-000003")

    status, body = here.leave("m-000004")

    assert (status, body["code"], body["retryable"]) == (429, "MAILBOX_FULL", True)
    assert len(ids(here.poll(after=0))) == 3
    here.clock += 30 * 24 * 3600
    here.register()
    assert here.leave("m-000004")[0] == 200


def test_a_mailbox_is_bounded_in_bytes_too() -> None:
    here = world(mailbox_bytes=2_000)
    here.register()
    here.leave("m-000001", text="x" * 1500)

    assert here.leave("m-000002", text="x" * 1500)[1]["code"] == "MAILBOX_FULL"


def test_a_large_message_is_refused_and_one_below_the_limit_kept() -> None:
    here = world(message_bytes=10_000)
    here.register()

    assert here.leave("m-000001", text="x" * 10_000)[0] == 413
    assert here.leave("m-000002", text="x" * 9_900)[0] == 200


def test_a_batch_too_large_for_one_entry_is_kept_whole() -> None:
    here = world()
    here.register()
    names = [f"m-{number:06d}" for number in range(20)]

    assert here.leave(*names, text="x" * 50_000)[1]["stored"] == 20
    assert here.leave(*names, text="x" * 50_000)[1]["stored"] == 0
    assert collect_exact(here) == names


# --- the cursors of wire/felund.md section 5 -------------------------------------


def python_reader(here: World) -> Callable[[], list[str]]:
    """The rule of the existing Python client: take `server_time` if it is larger."""
    since = 0

    def read() -> list[str]:
        nonlocal since
        body = here.poll(since=since, limit=200)
        since = max(since, body["server_time"])
        return ids(body)

    return read


def web_reader(here: World) -> Callable[[], list[str]]:
    """The rule of the existing browser client: one second back."""
    since = 0

    def read() -> list[str]:
        nonlocal since
        body = here.poll(since=since, limit=200)
        since = max(since, body["server_time"] - 1)
        return ids(body)

    return read


def collect_exact(here: World, after: int = 0, limit: int = 200) -> list[str]:
    found: list[str] = []
    while True:
        body = here.poll(after=after, limit=limit)
        found += ids(body)
        after = body["cursor"]
        if not body["more"]:
            return found


@pytest.mark.parametrize("reader", [python_reader, web_reader])
def test_messages_of_the_second_in_which_one_polls_are_not_lost(
    reader: Callable[[World], Callable[[], list[str]]],
) -> None:
    here = world()
    here.register()
    read = reader(here)
    seen: set[str] = set()
    for number in range(5):
        here.leave(f"m-{number:06d}")
        seen |= set(read())
        here.leave(f"n-{number:06d}")
        here.clock += 0.1 * number

    here.clock += 60
    seen |= set(read())

    assert len(seen) == 10


@pytest.mark.parametrize("reader", [python_reader, web_reader])
@pytest.mark.parametrize("seconds", [0.0, 0.01, 0.9])
def test_a_backlog_of_any_length_is_read_to_its_end(
    reader: Callable[[World], Callable[[], list[str]]], seconds: float
) -> None:
    here = world(address_burst=10**6, node_burst=10**6)
    here.register()
    sent = [f"m-{number:06d}" for number in range(1_250)]
    for start in range(0, len(sent), 25):
        here.leave(*sent[start : start + 25])
        here.clock += seconds
    read = reader(here)

    seen = [msg_id for _ in range(40) for msg_id in read()]

    assert set(seen) == set(sent)


def test_a_quiet_mailbox_is_not_sent_again() -> None:
    here = world()
    here.register()
    here.leave("m-000001")
    read = python_reader(here)
    assert read() == ["m-000001"]

    here.clock += mailbox.GRACE_S + 2

    assert read() == ["m-000001"]
    assert read() == []


def test_health_time_is_a_cursor_that_shows_the_new_and_none_of_the_old() -> None:
    here = world()
    here.register()
    here.leave("m-000001")
    here.clock += 1
    since = here.call("GET", "/v1/health", key=None)[1]["time"]
    here.clock += 1
    here.leave("m-000002")

    assert ids(here.poll(since=since)) == ["m-000002"]


def test_a_writer_whose_clock_is_behind_cannot_write_into_the_past() -> None:
    here = world()
    here.register()
    here.clock = START + 10
    here.leave("m-000001")
    body = here.poll(since=0)
    here.clock = START + 3
    here.leave("m-000002")
    here.clock = START + 11

    assert ids(here.poll(since=body["server_time"]))[-1] == "m-000002"


def test_an_exact_cursor_gives_every_message_once() -> None:
    here = world()
    here.register()
    sent = [f"m-{number:06d}" for number in range(100)]
    for name in sent:
        here.leave(name)

    assert collect_exact(here, limit=7) == sent


@pytest.mark.parametrize("since", ["abc", "--5", "²", "1e400", "9" * 30, ""])
def test_a_cursor_that_is_no_number_is_refused(since: str) -> None:
    here = world()
    here.register()

    status, body = here.call("GET", "/v1/messages", query={"circle_hint": HINT, "since": since})

    assert (status, body["code"]) == (400, "INVALID_REQUEST")


def test_a_batch_of_several_entries_is_admitted_as_a_whole() -> None:
    here = world(mailbox_bytes=900_000)
    here.register()
    names = [f"m-{number:06d}" for number in range(8)]

    assert here.leave(*names, text="x" * 100_000)[1]["stored"] == 8
    assert here.leave("m-more-1", text="x" * 100_000)[0] == 429


# --- push ------------------------------------------------------------------------


def test_a_message_is_pushed_to_the_others_and_not_to_its_node() -> None:
    here = world()
    here.register()
    ann, bob = here.subscribe(ANN, "c-ann"), here.subscribe(BOB, "c-bob")

    here.leave("m-000001")
    here.leave("m-000001")

    [frame] = here.gateway.take(bob.id)
    assert (frame["t"], ids(frame)) == ("MESSAGES", ["m-000001"])
    assert frame["cursor"] == here.poll(after=0)["cursor"]
    assert here.gateway.take(ann.id) == []


def test_frames_tell_where_they_stand_so_that_a_gap_is_seen() -> None:
    here = world()
    here.register()
    bob = here.subscribe(BOB, "c-bob")

    for name in ("m-000001", "m-000002", "m-000003"):
        here.leave(name)

    frames = here.gateway.take(bob.id)
    assert [frame["after"] for frame in frames[1:]] == [frame["cursor"] for frame in frames[:-1]]


def test_a_nodes_oldest_sockets_make_way_for_new_ones() -> None:
    here = world()
    here.register()
    for number in range(sockets.NODE_SOCKETS + 2):
        here.clock += 1
        here.subscribe(BOB, f"c-{number}")

    here.leave("m-000001")

    assert set(here.gateway.closed) == {"c-0", "c-1"}
    assert len(here.gateway.sent) == sockets.NODE_SOCKETS


def test_sockets_without_a_token_cannot_keep_members_from_hearing() -> None:
    here = world(unsigned="allow", address_burst=10**6)
    here.register()
    for number in range(here.service.settings.unsigned_sockets):
        here.open(f"a-{number}", circle_hint=HINT, node_id=f"node-{number:04d}")
    with pytest.raises(RateLimited):
        here.open("a-more", circle_hint=HINT, node_id="node-more")

    bob = here.subscribe(BOB, "z-bob")
    here.leave("m-000001")

    assert [ids(frame) for frame in here.gateway.take(bob.id)] == [["m-000001"]]


def test_a_new_socket_is_given_the_last_two_minutes() -> None:
    here = world()
    here.register()
    here.leave("m-000001")
    here.clock += 100
    here.leave("m-000002")
    here.clock += 30
    here.leave("m-000003")

    bob = here.subscribe(BOB, "c-bob")

    [frame] = here.gateway.take(bob.id)
    assert ids(frame) == ["m-000002", "m-000003"]


def test_nothing_is_sent_where_nothing_was_said() -> None:
    here = world()
    here.register()

    assert here.gateway.take(here.subscribe(BOB, "c-bob").id) == []


def test_large_messages_travel_in_frames_a_gateway_passes_or_wait_in_the_mailbox() -> None:
    here = world()
    here.register()
    bob = here.subscribe(BOB, "c-bob")

    here.leave("m-000001", "m-000002", text="x" * 70_000)
    here.leave("m-000003", text="x" * 200_000)
    here.leave("m-000004")

    frames = here.gateway.take(bob.id)
    assert all(len(json.dumps(frame)) < 128 * 1024 for frame in frames)
    assert [ids(frame) for frame in frames] == [["m-000001"], ["m-000002"], [], ["m-000004"]]
    assert [frame["after"] == frame["cursor"] for frame in frames] == [True, True, True, False]
    assert frames[3]["after"] != frames[2]["cursor"]


def test_a_message_too_large_for_any_frame_is_a_hint_to_poll() -> None:
    here = world()
    here.register()
    bob = here.subscribe(BOB, "c-bob")

    here.leave("m-000001", text="x" * 700_000)
    carl = here.subscribe("carl-003", "c-carl")

    for listener in (bob, carl):
        [frame] = here.gateway.take(listener.id)
        assert (frame["t"], ids(frame)) == ("MESSAGES", [])
        assert frame["after"] == frame["cursor"]
        assert ids(here.poll(after=frame["after"])) == ["m-000001"]


def test_a_gone_connection_is_forgotten_and_no_other() -> None:
    here = world()
    here.register()
    bob = here.subscribe(BOB, "c-bob")
    carl = here.subscribe("carl-003", "c-carl")
    here.gateway.gone.add(bob.id)

    here.leave("m-000001")
    here.gateway.gone.clear()
    here.leave("m-000002")

    assert here.gateway.take(bob.id) == []
    assert [ids(frame) for frame in here.gateway.take(carl.id)] == [["m-000001"], ["m-000002"]]
    assert ids(here.poll(after=0)) == ["m-000001", "m-000002"]


def test_more_than_a_second_may_hold_is_dated_a_second_later() -> None:
    here = world(address_burst=10**6, node_burst=10**6)
    here.register()
    for batch in range(journal.SECOND_PARTS // 50 + 1):
        here.leave(*[f"m-{batch:03d}-{number:03d}" for number in range(50)])

    body = here.poll(since=0, limit=1)

    assert len(ids(body)) == journal.SECOND_PARTS + 50
    assert body["server_time"] == START


def test_a_large_message_whose_entry_finds_no_room_leaves_no_pieces_behind() -> None:
    here = world()
    here.register()
    stores: Any = here.service.stores
    pages = stores.database.run("PRAGMA page_count")[0][0]
    stores.database.run(f"PRAGMA max_page_count = {pages + 200}")  # for the second, not for both
    both = [{"msg_id": "m-000001", "text": "x" * 250_000}, {"msg_id": "m-000002", "text": LARGE}]

    status, body = here.call("POST", "/v1/messages", {"circle_hint": HINT, "messages": both})

    assert (status, body["code"]) == (503, "UNAVAILABLE")
    assert ids(here.poll(after=0)) == []
    assert pieces_of(stores) == []
    assert here.leave("m-000003")[0] == 200, "what fits is taken at once"


LARGE = "x" * 700_000


def pieces_of(stores: Any) -> list[str]:
    """Return the large messages of which the store has pieces."""
    rows = stores.database.run("SELECT DISTINCT pk FROM mail WHERE pk LIKE 'piece#%'")
    return [pk for (pk,) in rows]
