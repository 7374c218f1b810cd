"""Does a message that is larger than an item of an engine arrive whole, once, or not at all?"""

import json
from collections import Counter
from collections.abc import Callable
from typing import Any, cast

import pytest

from chalicelib import http, tables
from chalicelib.call import Call
from chalicelib.circle import journal, mailbox, pieces
from chalicelib.store import Item, Store, Stores, Unavailable
from tests.support.busy import HINT, KINDS, Machine, Reader, machine

START = 1_800_000_000
KIB = 1024
DAY_S = 24 * 3600

Message = dict[str, Any]


def message(msg_id: str, kib: int) -> Message:
    """Make a message of about so many KiB; no two of its KiB are alike."""
    lines = "".join(f"{msg_id}/{n:06}".ljust(KIB, ".") for n in range(kib))
    return {"msg_id": msg_id, "created_ts": 1, "text": lines}


@pytest.fixture
def here(stores: Stores) -> Machine:
    return at(machine(stores), START)


def at(here: Machine, second: float) -> Machine:
    here.clock = lambda: second
    return here


def post(here: Machine, *messages: Message) -> int:
    body = {"circle_hint": HINT, "messages": messages}
    stored: int = here.call("POST", "/v1/messages", body)["stored"]
    return stored


def status(here: Machine, *messages: Message) -> int:
    """Leave messages; say how that was answered, whatever the answer is."""
    body = json.dumps({"circle_hint": HINT, "messages": messages}).encode()
    call = Call("POST", "/v1/messages", body=body, clock=here.clock(), source_ip="192.0.2.1")
    return http.handle(here.service, call).status


def read(here: Machine, kind: str) -> tuple[list[Message], list[int]]:
    """Follow a cursor to the end; return what came, and how many bytes each answer had."""
    reader, got, sizes = Reader(kind), [], []
    for _ in range(40):
        before = reader.cursor
        name = "after" if kind == "exact" else "since"
        answer = here.poll(**{name: reader.cursor})
        got += answer["messages"]
        sizes.append(sum(len(json.dumps(one)) for one in answer["messages"]))
        back = {"exact": 0, "python": 0, "web": 1}[kind]
        told = answer["cursor" if kind == "exact" else "server_time"]
        reader.cursor = max(reader.cursor, told - back)
        if reader.cursor == before and not answer["more"]:
            return got, sizes
    raise AssertionError("the cursor moves for ever")


def once(got: list[Message]) -> list[Message]:
    """Return each message once, as clients keep them."""
    return list({one["msg_id"]: one for one in got}.values())


def held(stores: Stores) -> list[Item]:
    """Return the pieces of the circle's large messages that an entry names."""
    entries = journal.following(stores.mail, tables.mail_key(HINT), 0, now=START)
    names = [part.body.decode() for entry in entries for part in entry.parts if part.apart]
    keys = [tables.pieces_key(HINT, name) for name in names]
    return [item for pk in keys for item in stores.mail.after(pk, "", limit=9, now=START).items]


@pytest.mark.parametrize("kind", KINDS)
def test_large_messages_arrive_whole_among_small_ones(here: Machine, kind: str) -> None:
    sent = [
        message("small-01", 1),
        message("large-01", 300),
        message("large-02", 700),
        message("small-02", 1),
        message("large-03", 1000),
        *(message(f"batch-{n:02}", kib) for n, kib in enumerate((300, 2, 700))),
        message("small-03", 1),
    ]
    for batch in (sent[:1], sent[1:2], sent[2:4], sent[4:5], sent[5:8], sent[8:]):
        assert post(here, *batch) == len(batch)

    got, _ = read(here, kind)

    assert once(got) == sent
    if kind == "exact":
        assert got == sent


@pytest.mark.parametrize("kind", KINDS)
def test_an_answer_holds_a_mebibyte_or_one_message(here: Machine, kind: str) -> None:
    sent = [message(f"large-{n:02}", 260 + 150 * (n % 6)) for n in range(12)]
    small = [message(f"small-{n:02}", 90) for n in range(24)]
    for n, large in enumerate(sent):
        post(here, large)
        post(here, *small[2 * n : 2 * n + 2])

    got, sizes = read(here, kind)

    assert {one["msg_id"] for one in got} == {one["msg_id"] for one in sent + small}
    assert max(sizes) <= 1.05 * mailbox.REPLY_BYTES


def test_a_message_may_be_as_large_as_a_body(here: Machine) -> None:
    most = here.service.settings.body_bytes
    frame = len(json.dumps({"circle_hint": HINT, "messages": [message("largest1", 0)]}))
    largest = message("largest1", 0) | {"text": "x" * (most - frame)}

    assert post(here, largest) == 1
    assert status(here, largest | {"text": "x" * (most - frame + 1)}) == 413
    assert read(here, "exact")[0] == [largest]


def test_a_large_message_that_is_left_again_is_known_and_written_once(
    here: Machine, stores: Stores
) -> None:
    """The terminal client leaves everything again every eight seconds."""
    large = message("large-01", 700)
    assert post(here, large) == 1
    written = held(stores)

    assert [post(here, large), post(here, large | {"text": "other"}, message("small-01", 1))] == [
        0,
        1,
    ]
    assert held(stores) == written
    assert post(at(machine(stores), START + 8), large) == 0


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("lost", [[0], [2], [0, 1, 2]], ids=str)
def test_a_message_of_which_a_piece_is_lost_is_left_out_and_nothing_else(
    here: Machine, stores: Stores, kind: str, lost: list[int]
) -> None:
    sent = [message("small-01", 1), message("torso-01", 700), message("large-01", 300)]
    post(here, *sent)
    torso = [item for item in held(stores) if item.body and b"torso" in item.body]
    assert len(torso) == 3
    for n in lost:
        stores.mail.delete(torso[n].pk, torso[n].sk, now=START)

    got, _ = read(here, kind)

    assert once(got) == [sent[0], sent[2]]


@pytest.mark.parametrize("kind", KINDS)
def test_a_large_message_is_whole_to_its_last_second_and_then_gone(
    here: Machine, stores: Stores, kind: str
) -> None:
    """Whatever an engine removes on its own, it removes after this."""
    large = message("large-01", 700)
    post(here, large)
    assert all(item.expires_at > START + 30 * DAY_S for item in held(stores))

    assert once(read(at(here, START + 30 * DAY_S - 1), kind)[0]) == [large]
    assert read(at(here, START + 30 * DAY_S), kind)[0] == []


def test_what_large_messages_take_counts_for_the_mailbox(stores: Stores) -> None:
    here = at(machine(stores, unsigned_bytes=1_500 * KIB), START)

    assert status(here, message("large-01", 700)) == 200
    assert status(here, message("large-02", 700)) == 200
    assert status(here, message("large-03", 300)) == 429
    assert {one["msg_id"] for one in read(here, "exact")[0]} == {"large-01", "large-02"}
    assert status(at(here, START + 31 * DAY_S), message("large-03", 300)) == 200


class Meddled:
    """A store that something happens to before a verb is performed, the first time."""

    def __init__(self, store: Store, verb: str, meanwhile: Callable[[], object]) -> None:
        self._store, self._verb, self._meanwhile = store, verb, [meanwhile]
        self.written: list[str] = []

    def __getattr__(self, name: str) -> Any:
        if name == self._verb and self._meanwhile:
            self._meanwhile.pop()()
        return getattr(self._store, name)

    def put(self, *items: Item) -> None:
        """Note what is written in pieces."""
        self.written += [item.pk for item in items if item.pk.startswith("piece#")]
        self.__getattr__("put")(*items)


def meddled(stores: Stores, verb: str, meanwhile: Callable[[], object]) -> tuple[Machine, Meddled]:
    """Make a machine on a meddled store; its random numbers are not those of the others."""
    mail = Meddled(stores.mail, verb, meanwhile)
    made = at(machine(stores._replace(mail=cast(Store, mail))), START)
    made.service.entropy = lambda size: b"\x77" * size
    return made, mail


@pytest.mark.parametrize("sealed_anew", [False, True])
def test_of_two_who_leave_one_large_message_at_once_one_copy_stays(
    here: Machine, stores: Stores, *, sealed_anew: bool
) -> None:
    first, theirs, last = message("small-01", 1), message("large-01", 700), message("small-02", 1)
    mine = theirs | {"text": theirs["text"].swapcase()} if sealed_anew else theirs
    post(here, first)
    slow, store = meddled(stores, "put_new", lambda: post(here, theirs))

    assert post(slow, mine, last) == 1

    assert len(store.written) == 3, "it was written before the other was seen"
    assert stores.mail.after(store.written[0], "", limit=9, now=START).items == ()
    assert len(held(stores)) == 3
    assert read(here, "exact")[0] == [first, theirs, last]


@pytest.mark.parametrize("verb", ["put", "put_new"])
def test_where_the_store_fails_no_half_message_is_seen_and_repeating_is_safe(
    here: Machine, stores: Stores, verb: str
) -> None:
    def fail() -> None:
        raise Unavailable("out of reach")

    sent = [message("large-01", 300), message("large-02", 700)]

    assert status(meddled(stores, verb, fail)[0], *sent) == 503
    assert read(here, "exact")[0] == []
    assert post(here, *sent) == 2
    assert read(here, "exact")[0] == sent


def test_large_messages_of_several_writers_at_once_are_all_read(stores: Stores) -> None:
    """Each finds that somebody else was faster, between its pieces and its entry."""
    names = [f"large-{n:02}" for n in range(6)]

    def write(waiting: list[str]) -> None:
        if waiting:
            slow, _ = meddled(stores, "put_new", lambda: write(waiting[1:]))
            assert post(slow, message(waiting[0], 300)) == 1

    write(names)
    here = at(machine(stores), START)

    got, _ = read(here, "exact")
    assert Counter(one["msg_id"] for one in got) == Counter(names)
    assert sorted(got, key=str) == sorted((message(name, 300) for name in names), key=str)
    for kind in ("python", "web"):
        assert once(read(here, kind)[0]) == got


def test_a_piece_fits_an_item_of_every_engine() -> None:
    assert pieces.PIECE_BYTES + 1024 < 400 * 1000
