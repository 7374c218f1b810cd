"""Whatever members say, hostile ones too, and in whatever order it comes: one state at all."""

import random
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from muster import base64url
from muster.chat.facts import Facts
from muster.chat.store import Message
from muster.errors import Hinted
from muster.records import GENERAL
from tests.support.chatting import Chatter, circle_of, meet, retold

NAMES = ("Ada", "Bob", "Cleo", "Dan")
PASSPHRASE = "correct horse"


def _some(chance: random.Random, one: Chatter) -> Message | None:
    channels = [GENERAL, *(known.id for known in one.talk.facts.shown())]
    found = one.talk.page(chance.choice(channels))
    return chance.choice(found) if found else None


def _play(chance: random.Random, one: Chatter, others: list[Chatter]) -> None:
    """Let a member do anything that the chat offers."""
    talk, facts = one.talk, one.talk.facts
    shown = facts.shown()
    channel = chance.choice(shown) if shown else None
    who = chance.choice(others).talk.me
    text = f"{one.name} {chance.randrange(1000)}"
    places = [GENERAL, *(known.id for known in shown)]
    actions: list[Callable[[], Any]] = [
        lambda: talk.say(text, channel=chance.choice(places)),
        lambda: talk.create_channel(text, chance.choice(("public", "invite"))),
        lambda: one.circle.introduce(text),
        lambda: talk.name_circle(text),
        lambda: talk.keep_circle(chance.randrange(1, 60)),
        lambda: talk.name_managers([who]),
        lambda: talk.link_device(who, on=chance.random() < 0.8),
        lambda: talk.start_call(chance.choice(places)),
    ]
    if message := _some(chance, one):
        actions += [
            lambda: talk.say(text, channel=message.channel, reply=message.hash),
            lambda: talk.edit(message, text),
            lambda: talk.delete(message),
            lambda: talk.react(message, chance.choice("👍👎"), on=chance.random() < 0.7),
        ]
    if channel:
        actions += [
            lambda: talk.invite(channel, who),
            lambda: talk.remove(channel, who),
            lambda: talk.rename_channel(channel, text),
            lambda: talk.set_topic(channel, text),
            lambda: talk.manage_channel(channel, [who]),
            lambda: talk.join_channel(channel.id.hex()),
            lambda: talk.leave_channel(channel),
            lambda: talk.keep_channel(channel, 5),
        ]
    for call in facts.calls.values():
        actions += [partial(talk.join_call, call), partial(talk.end_call, call)]
    with suppress(Hinted):
        chance.choice(actions)()
    one.speak()


def _mischief(chance: random.Random, one: Chatter, others: list[Chatter]) -> None:
    """Let a member say what our own program would not."""
    facts = one.talk.facts
    places = [GENERAL, *facts.channels, chance.randbytes(16)]
    hashes = [kept.hash.hex() for kept in one.all_said] + ["0" * 64]
    who = chance.choice([*others, one]).talk.me.hex()
    of, call = chance.choice(hashes), chance.choice(hashes)
    junk = base64url.encode(chance.randbytes(80))
    bodies: list[tuple[str, dict[str, Any]]] = [
        ("text", {"text": "open", "reply": of}),
        ("text", {"key": 0, "closed": junk, "from": of}),
        ("edit", {"of": of, "text": "taken over"}),
        ("delete", {"of": of, "seq": chance.randrange(1, 9)}),
        ("react", {"of": of, "emoji": "x", "on": chance.random() < 0.5}),
        ("circle", {"op": "name", "name": "taken"}),
        (
            "circle",
            {"op": "managers", "managers": [who], "at_ms": 2**53 - 1, "signature": "A" * 86},
        ),
        ("channel", {"op": "create", "mode": "public", "salt": "A" * 22, "name": "taken"}),
        ("channel", {"op": "rename", "name": "taken"}),
        ("channel", {"op": "managers", "managers": [who]}),
        ("channel", {"op": "remove", "member": who, "last": 0, "key": 7, "boxes": {who: junk}}),
        ("channel", {"op": "invite", "to": who, "key": 0, "from": of, "box": junk}),
        ("channel", {"op": "key", "key": 2**32 - 1, "boxes": {who: junk}}),
        ("call", {"op": "end", "call": call}),
        ("call", {"op": "revoke", "call": call, "member": who}),
        ("call", {"op": "join", "call": call}),
        ("member", {"name": chance.choice(NAMES), "box": base64url.encode(bytes(32))}),
        ("person", {"with": base64url.encode(chance.randbytes(32))}),
        ("nonsense", {"op": [1, {"x": None}]}),
    ]
    kind, body = chance.choice(bodies)
    tip, _ = one.circle.file.tip(one.circle.member.public.raw)
    one.forge(
        kind,
        body,
        channel=chance.choice(places),
        at_ms=chance.choice((0, one.now_ms, 2**53 - 1)),
        seq=chance.choice((None, None, max(tip, 1), tip + 3)),  # also forks, and holes
    )


def _story(seed: int) -> list[Chatter]:
    """Play a while, members hearing of each other now and then; then let all hear everything."""
    chance = random.Random(seed)
    people = circle_of(*NAMES, seed=seed)
    meet(*people)
    for _ in range(40):
        one = chance.choice(people)
        others = [other for other in people if other is not one]
        if one.name == "Dan" and chance.random() < 0.7:
            _mischief(chance, one, others)
        else:
            _play(chance, one, others)
        if chance.random() < 0.4:
            chance.choice(others).hear(one.all_said)
    meet(*people)
    return people


@given(seed=st.integers(0, 2**32))
@settings(max_examples=12)
def test_a_member_has_the_same_state_in_whatever_order_records_come(seed: int) -> None:
    people = _story(seed)
    chance = random.Random(seed + 1)
    for one in people:
        whole = one.all_said
        expected = one.snapshot()
        for _ in range(2):
            said = whole.copy()
            chance.shuffle(said)
            half = chance.randrange(len(said) + 1)
            again = retold(one, said[:half])
            again.hear(said)
            assert again.snapshot() == expected, one.name


@given(seed=st.integers(0, 2**32))
@settings(max_examples=12)
def test_members_who_can_read_the_same_agree_about_everything_else(seed: int) -> None:
    people = _story(seed)
    shots = [one.talk.facts.snapshot() for one in people]
    for shot in shots:
        for channel in shot["channels"].values():
            if channel["mode"] != "public":
                del channel["name"], channel["topic"]
        private = {key for key, one in shot["channels"].items() if one["mode"] != "public"}
        shot["calls"] = {
            key: call for key, call in shot["calls"].items() if call["channel"] not in private
        }
    assert all(shot == shots[0] for shot in shots)


@given(seed=st.integers(0, 2**32))
@settings(max_examples=12)
def test_a_newcomer_needs_only_the_facts_that_stand(seed: int) -> None:
    for one in _story(seed):
        facts = one.talk.facts
        known = list(one.talk.store.facts(one.talk.id))
        only = Facts.of(
            one.talk.id,
            one.circle.file.founder,
            [fact for fact in known if fact.hash in facts.standing or fact.kind == "call"],
            me=one.circle.member,
        )
        assert only.snapshot() == facts.snapshot()


@given(seed=st.integers(0, 2**32))
@settings(max_examples=12)
def test_nobody_reads_a_private_channel_without_a_key_of_it(seed: int) -> None:
    people = _story(seed)
    for one in people:
        for channel in one.talk.facts.channels.values():
            if not channel.is_private or channel.creator is None:
                continue
            boxed = {member for source in channel.invited.values() for member in source} | {
                channel.creator
            }
            if one.talk.me not in boxed:
                assert not one.texts(channel.id)
                assert not channel.name
