"""What a chat comes to: channels, roles, devices, retention, calls; and what members play."""

import json
import re
import shutil
import sqlite3
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from muster import base64url
from muster.chat import channels, kinds
from muster.chat.age import CHUNK_BYTES
from muster.chat.facts import MOST_REGISTERS, RING_S
from muster.chat.node import Options, Room
from muster.chat.store import MOST_EMOJI, PAGE, PresentNode, Store, StoreFailed
from muster.chat.talk import BURST_S, DAY_MS, SHARE, NotAllowed, Talk
from muster.chat.transfer import NotAnExport, Taken, decrypt, encrypt, lines, read, take, write
from muster.circle import Circle
from muster.circle.circle import TEXT_BYTES
from muster.circle.file import LASTING, MOST_FORKS, Unusable
from muster.errors import BadValue
from muster.invites import ServiceAddress
from muster.records import GENERAL
from muster.rekeys import Rekey
from tests.support.chatting import Chatter, circle_of, meet, retold

# --- channels ---------------------------------------------------------------------------------


def test_a_removed_member_reads_nothing_new_and_is_heard_no_more_until_invited_again() -> None:
    ada, bob, cleo = circle_of("Ada", "Bob", "Cleo")
    board = ada.talk.create_channel("board", "invite")
    meet(ada, bob, cleo)
    for who in (bob, cleo):
        ada.talk.invite(ada.talk.channel("board"), who.talk.me)
    meet(ada, bob, cleo)
    cleo.talk.say("before", channel=board)
    meet(ada, bob, cleo)
    ada.talk.remove(ada.talk.channel("board"), cleo.talk.me)
    meet(ada, bob, cleo)
    bob.talk.say("without Cleo", channel=board)
    meet(ada, bob, cleo)
    assert cleo.texts(board) == ["before"]
    assert sorted(ada.texts(board)) == ["before", "without Cleo"]
    with pytest.raises(NotAllowed, match="removed"):
        cleo.talk.say("I stay", channel=board)
    ada.talk.invite(ada.talk.channel("board"), cleo.talk.me)
    meet(ada, bob, cleo)
    cleo.talk.say("back", channel=board)
    meet(ada, bob, cleo)
    assert "back" in bob.texts(board)


def test_two_managers_who_remove_two_at_once_end_with_a_key_that_neither_has() -> None:
    ada, bob, cleo, dan = circle_of("Ada", "Bob", "Cleo", "Dan")
    board = ada.talk.create_channel("board", "invite")
    meet(ada, bob, cleo, dan)
    for who in (bob, cleo, dan):
        ada.talk.invite(ada.talk.channel("board"), who.talk.me)
    ada.talk.manage_channel(ada.talk.channel("board"), [bob.talk.me])
    meet(ada, bob, cleo, dan)
    ada.talk.remove(ada.talk.channel("board"), cleo.talk.me)
    bob.talk.remove(bob.talk.channel("board"), dan.talk.me)
    meet(ada, bob, cleo, dan)
    ada.talk.say("we two", channel=board)
    meet(ada, bob, cleo, dan)
    assert ada.texts(board) == bob.texts(board) == ["we two"]
    assert cleo.texts(board) == dan.texts(board) == []
    standing = ada.talk.facts.channels[board].standing_source()
    assert standing is not None
    assert standing.boxes == {ada.talk.me, bob.talk.me}


def test_a_manager_who_uses_the_last_number_of_a_key_is_named_and_stops_nothing_else() -> None:
    ada, bob, eve = circle_of("Ada", "Bob", "Eve")
    board = ada.talk.create_channel("board", "invite")
    meet(ada, bob, eve)
    for who in (bob, eve):
        ada.talk.invite(ada.talk.channel("board"), who.talk.me)
    ada.talk.manage_channel(ada.talk.channel("board"), [eve.talk.me])
    meet(ada, bob, eve)
    eve.forge("channel", {"op": "key", "key": 2**32 - 1, "boxes": {}}, channel=board)
    meet(ada, bob, eve)
    with pytest.raises(BadValue, match="last number"):
        ada.talk.remove(ada.talk.channel("board"), bob.talk.me)
    ada.talk.manage_channel(ada.talk.channel("board"), [])
    meet(ada, bob, eve)
    ada.talk.remove(ada.talk.channel("board"), eve.talk.me)
    meet(ada, bob, eve)
    ada.talk.say("without Eve", channel=board)
    meet(ada, bob, eve)
    assert bob.texts(board) == ["without Eve"]
    assert eve.texts(board) == []


def test_a_manager_who_makes_many_keys_cannot_use_up_what_another_may_say() -> None:
    ada, bob, eve = circle_of("Ada", "Bob", "Eve")
    board = ada.talk.create_channel("board", "invite")
    meet(ada, bob, eve)
    for who in (bob, eve):
        ada.talk.invite(ada.talk.channel("board"), who.talk.me)
    ada.talk.manage_channel(ada.talk.channel("board"), [eve.talk.me])
    meet(ada, bob, eve)
    boxed = eve.talk._next_key(eve.talk.channel("board"), frozenset({bob.talk.me}), "")
    eve.forge("channel", {"op": "key", **boxed}, channel=board)
    ada.hear(kept for kept in eve.all_said if not ada.circle.file.has(kept.hash))
    used = ada.talk.facts._used
    for count, drafts in ((MOST_REGISTERS // 2, 0), (0, 1)):
        used[ada.talk.me] = count
        ada.talk.tend()
        assert len(ada.circle.file.drafts()) == drafts


def test_a_draft_that_waits_is_closed_under_the_key_that_is_when_it_is_said() -> None:
    ada, bob, cleo = circle_of("Ada", "Bob", "Cleo")
    board = ada.talk.create_channel("board", "invite")
    meet(ada, bob, cleo)
    for who in (bob, cleo):
        ada.talk.invite(ada.talk.channel("board"), who.talk.me)
    meet(ada, bob, cleo)
    bob.talk.say("written before Cleo went", channel=board)  # a draft: Bob's node is away
    ada.talk.remove(ada.talk.channel("board"), cleo.talk.me)
    ada.speak()
    bob.hear(ada.all_said)
    meet(ada, bob, cleo)
    assert ada.texts(board) == ["written before Cleo went"]
    assert cleo.texts(board) == []


def test_what_is_written_right_after_a_removal_is_closed_to_the_one_who_was_removed() -> None:
    ada, bob, cleo = circle_of("Ada", "Bob", "Cleo")
    board = ada.talk.create_channel("board", "invite")
    meet(ada, bob, cleo)
    for who in (bob, cleo):
        ada.talk.invite(ada.talk.channel("board"), who.talk.me)
    meet(ada, bob, cleo)
    ada.talk.remove(ada.talk.channel("board"), cleo.talk.me)
    ada.talk.say("at last", channel=board)  # both are drafts: Ada's node is away
    meet(ada, bob, cleo)
    assert bob.texts(board) == ["at last"]
    assert cleo.texts(board) == []


@pytest.mark.parametrize("mode", ["invite", "key"])
def test_who_comes_after_a_removal_reads_what_a_private_channel_is_called(mode: str) -> None:
    ada, bob, cleo, dan = circle_of("Ada", "Bob", "Cleo", "Dan")
    first, second = ("a first passphrase", "a second passphrase") if mode == "key" else ("", "")
    board = ada.talk.create_channel("board", mode, passphrase=first)
    meet(ada, bob, cleo, dan)
    ada.talk.invite(ada.talk.channel("board"), bob.talk.me)
    ada.talk.set_topic(ada.talk.channel("board"), "what we plan")
    meet(ada, bob, cleo, dan)
    for removed in (bob, cleo):
        ada.talk.remove(ada.talk.channel("board"), removed.talk.me, passphrase=second)
        meet(ada, bob, cleo, dan)
    ada.talk.invite(ada.talk.channel("board"), dan.talk.me)
    meet(ada, bob, cleo, dan)
    if mode == "key":
        dan.talk.join_channel("board", passphrase=second)
    found = dan.talk.channel("board")
    assert (found.id, found.topic) == (board, "what we plan")
    assert bob.talk.facts.channels[board].name == ("board" if mode == "invite" else "")
    said = [kept for kept in ada.all_said if kept.record.body.get("op") in ("rename", "topic")]
    assert len(said) == 5  # the topic, and both under each new key


def test_what_came_since_is_all_that_counts_and_nothing_else() -> None:
    ada, bob, eve = circle_of("Ada", "Bob", "Eve")
    board = ada.talk.create_channel("board", "invite")
    tea = ada.talk.create_channel("tea")
    meet(ada, bob, eve)
    for number in range(2 * PAGE + 1):
        bob.talk.say(f"{number}", channel=tea)
    ada.talk.remove(ada.talk.channel("tea"), eve.talk.me)
    meet(ada, bob, eve)
    for channel in (board, tea):
        eve.forge("text", {"text": "I am in"}, channel=channel)
    ada.talk.say("just us", channel=board)
    meet(ada, bob, eve)
    newest = ada.talk.store.newest()
    said = [one.text for one in ada.talk.since(0, until=newest)]
    assert sorted(said) == sorted([*(f"{number}" for number in range(2 * PAGE + 1)), "just us"])
    assert list(ada.talk.since(newest, until=newest + 1)) == []


def test_a_manager_who_is_removed_with_two_devices_manages_no_more_and_has_no_key() -> None:
    ada, bob, phone, cleo = circle_of("Ada", "Bob", "Phone", "Cleo")
    meet(ada, bob, phone, cleo)
    bob.talk.link_device(phone.talk.me)
    phone.talk.link_device(bob.talk.me)
    board = ada.talk.create_channel("board", "key", passphrase="correct horse battery")
    meet(ada, bob, phone, cleo)
    for who in (bob, phone, cleo):
        who.talk.join_channel("board", passphrase="correct horse battery")
    ada.talk.manage_channel(ada.talk.channel("board"), [bob.talk.me, phone.talk.me])
    meet(ada, bob, phone, cleo)
    assert bob.talk.channel("board").managers >= {ada.talk.me, bob.talk.me}
    with pytest.raises(BadValue):
        ada.talk.remove(ada.talk.channel("board"), bob.talk.me, passphrase="short")
    ada.talk.remove(ada.talk.channel("board"), bob.talk.me, passphrase="another long passphrase")
    meet(ada, bob, phone, cleo)
    ada.talk.say("without Bob", channel=board)
    meet(ada, bob, phone, cleo)
    found = ada.talk.channel("board")
    assert found.managers == {ada.talk.me}
    assert found.cuts.keys() >= {bob.talk.me, phone.talk.me}
    assert "without Bob" not in bob.texts(board) + phone.texts(board) + cleo.texts(board)
    cleo.talk.join_channel("board", passphrase="another long passphrase")
    meet(ada, cleo)
    assert "without Bob" in cleo.texts(board)


def test_what_asks_too_much_is_refused_and_drafts_nothing() -> None:
    ada, bob = circle_of("Ada", "Bob")
    tea = [who.talk.create_channel("tea") for who in (ada, bob)]
    ada.talk.keep_circle(3)
    meet(ada, bob)
    talk, before = ada.talk, len(ada.circle.file.drafts())
    for refused, why in (
        (lambda: talk.channel("tea"), f"say which: .*{tea[1].hex()[:6]}"),
        (lambda: talk.link_device(talk.me), "no other member"),
        (lambda: talk.link_device(bytes(32)), "no other member"),
        (lambda: talk.start_call(GENERAL, "smoke signals"), "audio, video or broadcast"),
        (lambda: talk.keep_circle(10**6), "texts are kept 1 to"),
        (lambda: talk.name_circle(" "), "a name has 1 to"),
        (lambda: talk.name_managers([bytes([n]) * 32 for n in range(200)]), "at most"),
        (lambda: talk.create_channel("tea", "public"), "already"),
        (lambda: talk.create_channel("open", "open"), "public, key or invite"),
        (lambda: talk.say("into the void", channel=bytes([9]) * 16), "no such channel"),
        (lambda: talk.say("", channel=GENERAL), ""),
    ):
        with pytest.raises(BadValue) as error:
            refused()
        assert re.search(why, f"{error.value.message} {error.value.hint}"), error.value
    assert len(ada.circle.file.drafts()) == before
    with pytest.raises(NotAllowed):
        bob.talk.keep_circle(3)


@pytest.mark.parametrize(
    ("text", "why"),
    [(" \n", "nothing to say"), ("\ud800", "not UTF-8"), ("ü" * TEXT_BYTES, f"{2 * TEXT_BYTES}")],
    ids=["blank", "no UTF-8", "large"],
)
def test_a_text_that_no_record_can_hold_is_never_drafted(text: str, why: str) -> None:
    (ada,) = circle_of("Ada")

    with pytest.raises(BadValue, match=why):
        ada.circle.check_text(text)
    with pytest.raises(BadValue):
        ada.talk.say(text)
    with pytest.raises(BadValue, match="cannot be said"):
        ada.circle.check(GENERAL, "text", {"text": 1.5})
    assert ada.circle.file.drafts() == []


def test_an_invite_to_another_circle_teaches_nothing() -> None:
    (ada,), (eve,) = circle_of("Ada"), circle_of("Eve", seed=7)
    before = ada.circle.services, ada.circle.epoch.number

    with pytest.raises(BadValue, match="another circle"):
        ada.circle.take_invite(eve.circle.invite())
    assert (ada.circle.services, ada.circle.epoch.number) == before


def test_an_invented_invite_is_asked_about_and_the_founder_s_next_rekey_leads_back() -> None:
    ada, bob = circle_of("Ada", "Bob")
    meet(ada, bob)
    true = ada.circle.invite()
    assert bob.circle.news_of(true) == ()
    elsewhere = ServiceAddress("https://elsewhere.example", b"e" * 16)
    made_up = replace(
        true, epoch=replace(true.epoch, number=7, secret=bytes(32)), services=(elsewhere,)
    )
    news = bob.circle.news_of(made_up)
    assert news == ("another service, https://elsewhere.example", "new keys (epoch 7)")
    bob.circle.take_invite(made_up)
    assert bob.circle.news_of(made_up) == ()
    assert bob.circle.epoch.number == 7
    before = ada.circle.epoch
    bob.circle.take_rekey(before, ada.circle.rekey())
    assert bob.circle.epoch == ada.circle.epoch
    bob.circle.take_rekey(ada.circle.epoch, ada.circle.rekey([bob.talk.me]))
    assert bob.circle.is_out
    assert bob.circle.news_of(ada.circle.invite()) == ()


def test_a_channel_is_written_in_before_it_is_said_and_a_call_is_left_again() -> None:
    ada, bob = circle_of("Ada", "Bob")
    tea = ada.talk.create_channel("tea")
    ada.talk.say("first", channel=tea)
    meet(ada, bob)
    assert bob.texts(tea) == ["first"]
    ada.talk.start_call(tea)
    meet(ada, bob)
    bob.talk.start_call(tea, "video")
    meet(ada, bob)
    call = ada.talk.call_in(tea)
    assert call is not None
    assert call.media == "audio"
    assert set(call.participants) == {ada.talk.me, bob.talk.me}
    bob.talk.leave_call(call)
    meet(ada, bob)
    call = ada.talk.call_in(tea)
    assert call is not None
    assert set(call.participants) == {ada.talk.me}


def test_nothing_of_a_private_channel_stands_in_clear_in_what_is_sent() -> None:
    ada, bob = circle_of("Ada", "Bob")
    for name, mode, secret in (("hush", "invite", ""), ("vault", "key", "correct horse")):
        channel = ada.talk.create_channel(f"{name}-name", mode, passphrase=secret)
        meet(ada, bob)
        ada.talk.set_topic(ada.talk.channel(f"{name}-name"), f"{name}-topic")
        ada.talk.say(f"{name}-text", channel=channel)
        ada.talk.start_call(channel)
        meet(ada, bob)
        ada.talk.edit(ada.talk.page(channel)[0], f"{name}-edited")
        ada.talk.react(ada.talk.page(channel)[0], f"{name}-emoji")
        meet(ada, bob)
    everything = b"".join(kept.said.text for kept in bob.all_said)
    for word in ("name", "topic", "text", "edited", "emoji"):
        assert f"hush-{word}".encode() not in everything
        assert f"vault-{word}".encode() not in everything
    assert bob.talk.facts.shown() == []


def test_a_wrong_passphrase_opens_nothing_and_a_short_one_is_refused() -> None:
    ada, bob = circle_of("Ada", "Bob")
    with pytest.raises(BadValue, match="8 characters"):
        ada.talk.create_channel("vault", "key", passphrase="short")
    ada.talk.create_channel("vault", "key", passphrase="correct horse")
    meet(ada, bob)
    with pytest.raises(BadValue, match="opens with this passphrase"):
        bob.talk.join_channel("vault", passphrase="wrong horse")
    bob.talk.join_channel("vault", passphrase="correct horse")
    meet(ada, bob)
    assert bob.talk.me in ada.talk.channel("vault").members


def test_nonsense_in_a_box_cannot_hide_the_right_key() -> None:
    ada, bob, eve = circle_of("Ada", "Bob", "Eve")
    board = ada.talk.create_channel("board", "invite")
    meet(ada, bob, eve)
    source = ada.talk.facts.channels[board].standing_source()
    assert source is not None
    junk = base64url.encode(bytes(80))
    invite = {"op": "invite", "to": bob.talk.me.hex(), "key": 0, "from": source.hash.hex()}
    eve.forge("channel", {**invite, "box": junk}, channel=board)
    meet(ada, bob, eve)
    ada.talk.invite(ada.talk.channel("board"), bob.talk.me)
    meet(ada, bob, eve)
    assert bob.talk.channel("board").id == board


def test_who_is_no_manager_lets_nobody_in_and_names_nothing() -> None:
    ada, bob, eve = circle_of("Ada", "Bob", "Eve")
    plans = ada.talk.create_channel("plans")
    meet(ada, bob, eve)
    channel = eve.talk.channel("plans")
    for forbidden in (
        lambda: eve.talk.rename_channel(channel, "mine"),
        lambda: eve.talk.remove(channel, bob.talk.me),
        lambda: eve.talk.manage_channel(channel, [eve.talk.me]),
        lambda: eve.talk.name_circle("mine"),
        lambda: eve.talk.keep_circle(1),
    ):
        with pytest.raises(NotAllowed):
            forbidden()
    before = ada.snapshot()["facts"]["channels"]
    for body in (
        {"op": "rename", "name": "mine"},
        {"op": "topic", "topic": "mine"},
        {"op": "keep", "days": 1},
        {"op": "managers", "managers": [eve.talk.me.hex()]},
        {"op": "remove", "member": ada.talk.me.hex(), "last": 0},
    ):
        eve.forge("channel", body, channel=plans, at_ms=2**53 - 1)
    meet(ada, bob, eve)
    assert ada.snapshot()["facts"]["channels"] == before


# --- what members who play can make others keep -------------------------------------------------


def test_a_member_who_says_a_million_things_bounds_what_others_remember() -> None:
    ada, eve = circle_of("Ada", "Eve")
    for number in range(60):
        salt = base64url.encode(number.to_bytes(16, "big"))
        channel = channels.channel_id(eve.circle.member.public.raw, number.to_bytes(16, "big"))
        body = {"op": "create", "mode": "public", "salt": salt, "name": f"c{number}"}
        eve.forge("channel", body, channel=channel)
    meet(ada, eve)
    facts = ada.talk.facts
    assert len(facts.shown()) == 60
    room = Room("friends", ada.circle, ada.talk.store, Options())
    assert len(room.places()) == 61
    facts._used[eve.talk.me] = MOST_REGISTERS
    assert not facts._room(eve.talk.me)


def test_of_one_author_s_emoji_those_that_sort_first_count_in_any_order() -> None:
    ada, eve = circle_of("Ada", "Eve")
    ada.talk.say("look")
    meet(ada, eve)
    of = ada.talk.page(GENERAL)[0].hash.hex()
    for number in range(3 * MOST_EMOJI):
        eve.forge("react", {"of": of, "emoji": f"e{number * 7 % 48:02d}", "on": number % 5 != 0})
    ada.talk.react(ada.talk.page(GENERAL)[0], "👍")
    meet(ada, eve)
    reactions = ada.talk.page(GENERAL)[0].reactions
    assert "👍" in reactions
    assert set(reactions) - {"👍"} <= {f"e{number:02d}" for number in range(MOST_EMOJI)}
    assert retold(ada, [*reversed(ada.all_said)]).snapshot() == ada.snapshot()


def test_what_was_said_lies_in_no_draft_any_more_and_a_deletion_finds_all_of_it(
    tmp_path: Path,
) -> None:
    circle = Circle.new(tmp_path / "us.muster2")
    talk = Talk(Store.open(tmp_path / "chat.sqlite3"), circle)
    word = "a very particular sentence"
    talk.say(word)
    for draft in circle.file.drafts():
        circle.record(draft)
    talk.catch_up()
    talk.delete(talk.page(GENERAL)[0])
    for draft in circle.file.drafts():
        circle.record(draft)
    talk.catch_up()
    assert talk.page(GENERAL) == []
    circle.close()
    talk.store.close()
    with sqlite3.connect(tmp_path / "us.muster2") as database:
        database.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    database.close()
    assert word.encode() not in (tmp_path / "us.muster2").read_bytes()


def test_of_one_number_the_smallest_hashes_are_kept_whatever_came_first() -> None:
    ada, eve = circle_of("Ada", "Eve")
    eve.talk.say("the first")
    meet(ada, eve)
    seq = eve.circle.file.tip(eve.circle.member.public.raw)[0] + 1
    forks = []
    for number in range(2 * MOST_FORKS):
        liar = retold(eve, eve.all_said)
        liar.forge("text", {"text": f"fork {number}"}, seq=seq)
        forks += [kept for kept in liar.all_said if kept.record.seq == seq]
    ada.hear(forks)
    upwards = ada.snapshot()
    other = retold(ada, [*reversed(forks), *ada.all_said])
    assert other.snapshot() == upwards
    assert len(ada.circle.file.hashes(eve.circle.member.public.raw, seq)) == MOST_FORKS


@pytest.mark.parametrize(
    ("kind", "body"),
    [
        ("text", {"text": "x" * 200_000}),
        ("text", {"text": "a" + "\u0301" * 50_000}),
        ("text", {"text": "loop", "reply": "00" * 32}),
        ("text", {"text": ["no text"]}),
        ("text", {}),
        ("edit", {"of": "00" * 32, "text": "x"}),
        ("delete", {"of": "00" * 32, "seq": 2**53 - 1}),
        ("react", {"of": "00" * 32, "emoji": "\u202e"}),
        ("channel", {"op": "nothing"}),
        ("channel", {"op": "create", "closed": "!!", "key": -1}),
        ("circle", {"op": "managers", "managers": ["x"], "at_ms": 0, "signature": ""}),
        ("person", {"with": 7}),
        ("call", {"op": "create", "closed": "AAAA", "key": 2**40}),
        ("member", {"name": "\ud7ff" * 30, "box": "?"}),
        ("dance", {"deep": {"er": {"st": [[[[]]]]}}}),
    ],
)
def test_whatever_a_member_says_is_taken_without_a_fault(kind: str, body: dict[str, Any]) -> None:
    ada, eve = circle_of("Ada", "Eve")
    channel = ada.talk.create_channel("board", "invite")
    meet(ada, eve)
    for where in (GENERAL, channel, b"\xff" * 16):
        eve.forge(kind, body, channel=where, at_ms=2**53 - 1)
    meet(ada, eve)
    ada.talk.say("still here")
    meet(ada, eve)
    assert "still here" in eve.texts()


def test_times_of_nobody_s_clock_are_shown_when_they_came() -> None:
    ada, eve = circle_of("Ada", "Eve")
    for at_ms in (0, 2**53 - 1):
        eve.forge("text", {"text": f"at {at_ms}"}, at_ms=at_ms)
    meet(ada, eve)
    shown = {one.text: one.shown_ms for one in ada.talk.page(GENERAL)}
    assert set(shown.values()) == {ada.now_ms}


# --- retention --------------------------------------------------------------------------------


def test_texts_expire_and_facts_stay_and_nothing_is_said_to_be_missing() -> None:
    ada, bob = circle_of("Ada", "Bob")
    plans = ada.talk.create_channel("plans")
    ada.talk.say("old")
    meet(ada, bob)
    ada.talk.keep_channel(ada.talk.channel("plans"), 0)
    ada.talk.say("for ever", channel=plans)
    meet(ada, bob)
    for one in (ada, bob):
        one.now_ms += 31 * DAY_MS
        one.talk.expire()
    assert bob.texts() == []
    assert bob.texts(plans) == ["for ever"]
    assert bob.talk.channel("plans").name == "plans"
    assert bob.circle.file.missing() == []
    assert all(b'"old"' not in kept.said.text for kept in bob.all_said)
    ada.talk.keep_circle(1)
    ada.talk.say("for a day")
    meet(ada, bob)
    bob.now_ms += 2 * DAY_MS
    bob.talk.expire()
    assert bob.texts() == []


def test_a_peer_that_dropped_texts_says_so_and_nobody_is_blamed() -> None:
    ada, bob = circle_of("Ada", "Bob")
    ada.talk.say("one")
    ada.talk.say("two")
    ada.talk.name_circle("friends")
    meet(ada, bob)
    author = ada.circle.member.public.raw
    bob.now_ms += 31 * DAY_MS
    bob.talk.expire()
    gaps = bob.circle.file.gaps(author, 0)
    assert gaps
    late = Chatter("Late", Circle.join(bob.circle.invite()))
    late.hear(bob.all_said)
    assert late.circle.file.missing()
    for first, last in gaps:
        late.circle.file.note_gone(author, first, last)
    assert late.circle.file.missing() == []


def test_a_deletion_fills_its_own_hole_and_no_other() -> None:
    ada, bob = circle_of("Ada", "Bob")
    for text in ("one", "two", "three"):
        ada.talk.say(text)
    meet(ada, bob)
    one, two, _ = ada.talk.page(GENERAL)
    ada.talk.delete(two)
    meet(ada, bob)
    said = [kept for kept in bob.all_said if kept.hash != one.hash]
    late = Chatter("Late", Circle.join(bob.circle.invite()))
    late.hear(said)
    author = ada.circle.member.public.raw
    assert late.circle.file.missing() == [(author, one.seq, one.seq)]
    assert "two" not in str([kept.said.text for kept in bob.all_said])


def test_a_fact_of_an_earlier_epoch_is_taken_from_a_later_mailbox_and_a_text_is_not() -> None:
    ada, bob = circle_of("Ada", "Bob")
    ada.talk.create_channel("plans")
    ada.talk.say("before")
    meet(ada, bob)
    old = ada.all_said
    ada.circle.rekey()
    late = Circle.join(ada.circle.invite())
    from muster import records

    taken, refused = set(), set()
    for kept in old:
        sealed = records.seal(ada.circle.epoch, kept.said, nonce=bytes(12))
        try:
            late.take(late.epoch, sealed)
            taken.add(kept.record.kind)
        except Exception:
            refused.add(kept.record.kind)
    assert taken <= LASTING
    assert "channel" in taken
    assert refused == {"text"}


# --- devices ----------------------------------------------------------------------------------


def test_two_devices_are_one_person_when_both_say_so_and_no_longer_when_one_takes_it_back() -> None:
    ada, phone, bob = circle_of("Ada", "Phone", "Bob")
    meet(ada, phone, bob)
    ada.talk.link_device(phone.talk.me)
    meet(ada, phone, bob)
    assert bob.talk.facts.person(ada.talk.me) != bob.talk.facts.person(phone.talk.me)
    assert phone.talk.facts.asks(phone.talk.me) == {ada.talk.me}
    phone.talk.link_device(ada.talk.me)
    phone.circle.introduce("Ada on the train")
    meet(ada, phone, bob)
    assert bob.talk.facts.person(ada.talk.me) == bob.talk.facts.person(phone.talk.me)
    assert bob.talk.name_of(ada.talk.me) == "Ada on the train"
    board = bob.talk.create_channel("board", "invite")
    meet(ada, phone, bob)
    bob.talk.invite(bob.talk.channel("board"), ada.talk.me)
    meet(ada, phone, bob)
    bob.talk.say("both read it", channel=board)
    meet(ada, phone, bob)
    assert ada.texts(board) == phone.texts(board) == ["both read it"]
    assert phone.talk.unread(GENERAL) == 0
    phone.talk.link_device(ada.talk.me, on=False)
    meet(ada, phone, bob)
    assert bob.talk.facts.devices(ada.talk.me) == {ada.talk.me}


# --- calls ------------------------------------------------------------------------------------


def _present(talk: Talk, *nodes: tuple[bytes, bytes]) -> None:
    talk.store.show_present(
        talk.id,
        [
            PresentNode(member, member, "", "tcp", frozenset({channels.call_word(call)}), 0)
            for member, call in nodes
        ],
    )


def test_two_calls_that_start_at_once_meet_and_only_the_host_ends_one() -> None:
    ada, bob, cleo = circle_of("Ada", "Bob", "Cleo")
    ada.talk.start_call(GENERAL, "video")
    bob.talk.start_call(GENERAL, "audio")
    meet(ada, bob, cleo)
    calls = {one.talk.call_in(GENERAL) for one in (ada, bob, cleo)}
    (call,) = calls
    assert call is not None
    cleo.talk.join_call(call)
    loser = bob if call.host == ada.talk.me else ada
    loser.talk.start_call(GENERAL)
    meet(ada, bob, cleo)
    call = cleo.talk.call_in(GENERAL)
    assert call is not None
    assert call.participants == {ada.talk.me, bob.talk.me, cleo.talk.me}
    with pytest.raises(NotAllowed):
        cleo.talk.end_call(call)
    host = ada if call.host == ada.talk.me else bob
    host.talk.end_call(call)
    meet(ada, bob, cleo)
    now = cleo.talk.call_in(GENERAL)
    assert now is None or now.hash != call.hash


def test_a_call_whose_people_have_crashed_ends_by_itself() -> None:
    ada, bob = circle_of("Ada", "Bob")
    ada.talk.start_call(GENERAL)
    meet(ada, bob)
    call = bob.talk.call_in(GENERAL)
    assert call is not None
    bob.now_ms += int(RING_S * 1000) + 60_000
    assert bob.talk.call_in(GENERAL) is None
    _present(bob.talk, (ada.talk.me, call.hash))
    assert bob.talk.call_in(GENERAL) == call
    _present(bob.talk)
    assert bob.talk.call_in(GENERAL) is None


# --- the store ----------------------------------------------------------------------------------


def test_facts_wait_where_one_has_said_a_great_many_and_none_is_left_out() -> None:
    ada, bob = circle_of("Ada", "Bob")
    clock = [0.0]
    talk = Talk(Store.open(None), ada.circle, steady=lambda: clock[0])
    tea = bob.talk.create_channel("tea")
    meet(ada, bob)
    talk.catch_up()
    talk._spent_s = 2 * BURST_S  # so much time has gone into them
    bob.talk.set_topic(bob.talk.channel("tea"), "green or black")
    bob.talk.say("which?", channel=tea)
    meet(ada, bob)
    talk.catch_up()
    assert [one.text for one in talk.page(tea)] == ["which?"]
    assert talk.channel("tea").topic == ""
    clock[0] += 2 * BURST_S / SHARE
    talk.catch_up()
    assert talk.channel("tea").topic == "green or black"


def test_a_store_that_is_gone_is_made_again_from_the_circles(tmp_path: Path) -> None:
    ada, bob = circle_of("Ada", "Bob")
    ada.talk.create_channel("plans")
    bob.talk.say("hello")
    meet(ada, bob)
    before = ada.snapshot()
    fresh = Talk(Store.open(tmp_path / "chat.sqlite3"), ada.circle, now_ms=lambda: ada.now_ms)
    fresh.catch_up()
    again = Chatter.__new__(Chatter)
    again.circle, again.talk, again.now_ms = ada.circle, fresh, ada.now_ms
    assert again.snapshot() == before
    assert (tmp_path / "chat.sqlite3").stat().st_mode & 0o077 == 0


@pytest.mark.parametrize("damage", ["garbage", "newer", "folder"])
def test_a_store_that_cannot_be_used_is_one_sentence_that_names_it(
    tmp_path: Path, damage: str
) -> None:
    path = tmp_path / "chat.sqlite3"
    if damage == "garbage":
        path.write_bytes(b"no database at all" * 1000)
    elif damage == "newer":
        Store.open(path).close()
        with sqlite3.connect(path) as database:
            database.execute("PRAGMA user_version = 99")
        database.close()
    else:
        path.mkdir()
    with pytest.raises(Unusable, match=r"chat\.sqlite3") as refused:
        Store.open(path)
    assert refused.value.hint


def test_a_store_that_is_full_loses_nothing_and_goes_on_when_there_is_room(tmp_path: Path) -> None:
    ada, bob = circle_of("Ada", "Bob")
    store = Store.open(tmp_path / "chat.sqlite3")
    talk = Talk(store, ada.circle, now_ms=lambda: ada.now_ms)
    talk.catch_up()
    (pages,) = store._db.execute("PRAGMA page_count").fetchone()
    store._db.execute(f"PRAGMA max_page_count = {pages}")
    for number in range(40):
        bob.talk.say(f"{number} " + "x" * 2000)
    bob.speak()
    for kept in bob.all_said:
        ada.circle.take_record(kept.said, 0)
    with pytest.raises(StoreFailed, match=r"chat\.sqlite3") as failed:
        talk.catch_up()
    assert failed.value.hint
    store._db.execute("PRAGMA max_page_count = 1000000")
    talk.catch_up()
    assert len(talk.page(GENERAL, most=100)) == 40
    store.close()


def test_a_restored_circle_file_and_one_of_a_member_who_comes_back_are_taken_anew(
    tmp_path: Path,
) -> None:
    store = Store.open(tmp_path / "chat.sqlite3")
    path, copy = tmp_path / "us.muster2", tmp_path / "copy"
    circle = Circle.new(path)

    def say(circle: Circle, text: str) -> Talk:
        talk = Talk(store, circle)
        talk.say(text)
        for draft in circle.file.drafts():
            circle.record(draft)
        talk.catch_up()
        return talk

    say(circle, "one")
    invite = circle.invite()
    circle.file._db.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    shutil.copyfile(path, copy)
    talk = say(circle, "two")
    store.read(circle.id, GENERAL, store.newest())
    circle.close()
    shutil.copyfile(copy, path)
    for beside in ("-wal", "-shm"):
        path.with_name(path.name + beside).unlink(missing_ok=True)
    restored = Circle.open(path)
    talk = say(restored, "three")
    assert {one.text for one in talk.page(GENERAL)} == {"one", "three"}
    restored.close()
    again = Circle.join(invite, tmp_path / "again.muster2")
    talk = say(again, "back as another member")
    assert [one.text for one in talk.page(GENERAL)] == ["back as another member"]
    again.close()
    store.close()


def test_what_was_read_stays_read_when_records_go_and_all_is_taken_anew() -> None:
    ada, eve = circle_of("Ada", "Eve")
    for text in ("one", "two"):
        eve.talk.say(text)
    meet(ada, eve)
    ada.talk.store.read(ada.talk.id, GENERAL, ada.talk.store.newest())
    eve.talk.say("three")
    meet(ada, eve)
    assert ada.talk.unread(GENERAL) == 1
    ada.circle.file.drop(eve.circle.member.public.raw, beyond=10**6)
    ada.circle.file._evict(b"x" * 32)
    ada.talk.catch_up()
    assert ada.talk.unread(GENERAL) == 1
    assert sorted(ada.texts()) == ["one", "three", "two"]


def test_two_processes_that_take_the_same_records_store_them_once(tmp_path: Path) -> None:
    ada, bob = circle_of("Ada", "Bob")
    bob.talk.say("once")
    meet(ada, bob)
    stores = [Store.open(tmp_path / "chat.sqlite3") for _ in range(2)]
    talks = [Talk(store, ada.circle, now_ms=lambda: ada.now_ms) for store in stores]
    for talk in talks:
        talk.catch_up()
    assert [one.text for one in talks[1].page(GENERAL)] == ["once"]
    assert talks[0].unread(GENERAL) == 1
    talks[1].store.read(ada.circle.id, GENERAL, talks[1].store.newest())
    assert talks[0].unread(GENERAL) == 0
    for store in stores:
        store.close()


def test_search_finds_parts_of_words_in_any_script_and_never_what_was_taken_back() -> None:
    ada, bob = circle_of("Ada", "Bob")
    for text in ("the greenhouse", "Grüße aus Köln", "晩ご飯は八時", "100% sure_thing", 'say "x"'):
        ada.talk.say(text)
    meet(ada, bob)

    def found(words: str) -> list[str]:
        return [one.text for one in bob.talk.search(GENERAL, words)]

    assert found("house") == ["the greenhouse"]
    assert found("köln grüße") == ["Grüße aus Köln"]
    assert found("ご飯は") == ["晩ご飯は八時"]
    assert found("八時") == ["晩ご飯は八時"]
    assert found("%") == ["100% sure_thing"]
    assert found('"x"') == ['say "x"']
    assert found("house nothing") == []
    ada.talk.delete(next(one for one in ada.talk.page(GENERAL) if "house" in one.text))
    meet(ada, bob)
    assert found("house") == []


# --- another device -----------------------------------------------------------------------------


def test_an_export_brings_history_and_channels_and_no_place_in_a_chain() -> None:
    ada, bob = circle_of("Ada", "Bob")
    board = ada.talk.create_channel("board", "invite")
    meet(ada, bob)
    ada.talk.say("in the board", channel=board)
    bob.talk.say("hello")
    meet(ada, bob)
    room = Room("friends", ada.circle, ada.talk.store, Options(name="Ada"))
    plain = write(lines([room], name="Ada", at_ms=1))
    assert base64url.encode(ada.circle.member.secret).encode() not in plain
    assert base64url.encode(ada.circle.file.fact("founder key")).encode() not in plain
    content = decrypt(encrypt(plain, "correct horse"), "correct horse")
    found = read(content)
    phone = Circle.join(ada.circle.invite())
    brought = Room("friends", phone, Store.open(None), Options(name="Phone"))
    taken = Taken()
    take(brought, found, taken)
    assert taken.refused == 0
    assert [one.text for one in brought.talk.page(board)] == ["in the board"]
    assert [one.text for one in brought.talk.page(GENERAL)] == ["hello"]
    assert phone.member.id != ada.circle.member.id
    again = Taken()
    take(brought, found, again)
    assert again.records == 0


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"no json\n",
        b'{"t":"record"}\n',
        b'{"t":"muster-export","v":99}\n',
        b'{"t":"muster-export","v":1}\n[1]\n',
        b"[" * 100_000,
    ],
)
def test_what_is_no_export_is_refused_by_one_sentence(content: bytes) -> None:
    with pytest.raises(NotAnExport):
        read(content)


def test_an_encrypted_export_opens_with_its_passphrase_alone() -> None:
    chunk = b"x" * CHUNK_BYTES
    for content in (b"", chunk, chunk + b"y"):  # as the format's own library reads it
        assert decrypt(encrypt(content, "correct horse"), "correct horse") == content
    closed = encrypt(b"content", "correct horse")
    assert re.search(rb"^-> scrypt \S{22} 18$", closed, re.MULTILINE)  # a phone opens it
    with pytest.raises(NotAnExport):
        decrypt(closed, "wrong horse")
    with pytest.raises(NotAnExport):
        decrypt(closed[:-1] + bytes([closed[-1] ^ 1]), "correct horse")
    with pytest.raises(BadValue):
        encrypt(b"content", "short")


def test_a_damaged_line_of_an_export_is_counted_and_the_rest_is_taken() -> None:
    ada, bob = circle_of("Ada", "Bob")
    bob.talk.say("hello")
    meet(ada, bob)
    room = Room("friends", ada.circle, ada.talk.store, Options())
    found = read(write(lines([room], name="", at_ms=1)))
    for one in found:
        if one["t"] == "record" and b"hello" in base64url.decode(one["text"]):
            one["signature"] = base64url.encode(bytes(64))
    found.append({"t": "record", "circle": room.id.hex(), "epoch": "x", "text": 1})
    brought = Room("friends", Circle.join(ada.circle.invite()), Store.open(None), Options())
    taken = Taken()
    take(brought, found, taken)
    assert taken.refused == 2
    assert brought.talk.page(GENERAL) == []
    assert set(brought.talk.facts.names.values()) == {"Ada", "Bob"}


def test_kinds_write_what_they_read() -> None:
    for body in (
        kinds.Text(text="x", reply="ab" * 32),
        kinds.Topic(topic=""),
        kinds.Invite(to="cd" * 16, key=1, source="ab" * 32, box="A" * 107),
        kinds.Managers(managers=()),
    ):
        kind = "text" if isinstance(body, kinds.Text) else "channel"
        assert kinds.read(kind, json.loads(json.dumps(kinds.write(body)))) == body


def test_who_has_made_up_a_number_is_heard_no_further_when_it_is_shut_out() -> None:
    ada, eve = circle_of("Ada", "Eve")
    meet(ada, eve)
    channel = ada.talk.create_channel("plans")
    ada.speak()
    meet(ada, eve)
    eve.forge("text", {"text": "far away"}, channel=channel, seq=2**53 - 1)
    meet(ada, eve)
    reached, _ = ada.circle.file.reach(eve.circle.member.public.raw)
    assert reached < 100

    ada.talk.remove(ada.talk.facts.channels[channel], eve.talk.me)
    ada.speak()

    assert ada.talk.facts.channels[channel].cuts[eve.talk.me] == reached
    assert "far away" not in ada.texts(channel)
    ada.circle.rekey([eve.talk.me])
    said = ada.circle.file.rekey_to(1)
    assert said is not None
    out = Rekey.from_said(ada.circle.file.founder, said).out
    assert out[eve.talk.me].seq == reached
