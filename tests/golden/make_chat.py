"""What chat.json has: bodies of records, and the states that follow from records in any order.

`make golden` writes it. Each state has all records of a circle as they were signed, who reads
them (the member secret, a passphrase that was typed), and what that member's chat comes to.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from muster import base64url
from muster.chat import channels
from muster.records import GENERAL
from tests.support.chatting import Chatter, circle_of, meet

FILE = Path(__file__).with_name("chat.json")
PASSPHRASE = "correct horse battery"

Story = Callable[[list[Chatter]], None]


def _talk(people: list[Chatter]) -> None:
    ada, bob, _ = people
    ada.talk.say("dinner at eight?")
    meet(*people)
    asked = bob.talk.page(GENERAL)[0]
    bob.talk.say("yes", reply=asked.hash)
    bob.talk.react(asked, "👍")
    bob.talk.react(asked, "🍝")
    meet(*people)
    bob.talk.react(asked, "🍝", on=False)
    ada.talk.edit(asked, "dinner at nine?")
    meet(*people)


def _not_the_author(people: list[Chatter]) -> None:
    ada, bob, cleo = people
    ada.talk.say("mine")
    meet(*people)
    said = ada.talk.page(GENERAL)[0]
    bob.forge("edit", {"of": said.hash.hex(), "text": "not mine"})
    cleo.forge("delete", {"of": said.hash.hex(), "seq": 1})
    meet(*people)


def _deleted(people: list[Chatter]) -> None:
    ada, bob, _ = people
    ada.talk.say("never mind")
    ada.talk.say("and this stays")
    meet(*people)
    gone = ada.talk.page(GENERAL)[0]
    bob.talk.react(gone, "?")
    ada.talk.delete(gone)
    meet(*people)


def _channels(people: list[Chatter]) -> None:
    ada, bob, cleo = people
    ada.talk.create_channel("plans")
    meet(*people)
    plans = ada.talk.channel("plans")
    ada.talk.set_topic(plans, "what we do next")
    ada.talk.manage_channel(plans, [bob.talk.me])
    bob.talk.join_channel("plans")
    cleo.talk.join_channel("plans")
    meet(*people)
    bob.talk.rename_channel(bob.talk.channel("plans"), "plans for May")
    cleo.talk.say("first", channel=plans.id)
    meet(*people)
    bob.talk.remove(bob.talk.channel("plans for May"), cleo.talk.me)
    meet(*people)
    cleo.forge("text", {"text": "after I was removed"}, channel=plans.id)
    cleo.forge("channel", {"op": "rename", "name": "taken"}, channel=plans.id)
    meet(*people)


def _not_the_creator(people: list[Chatter]) -> None:
    ada, bob, cleo = people
    channel = ada.talk.create_channel("plans")
    meet(*people)
    salt = ada.talk.facts.channels[channel].created
    assert salt is not None
    create = {"op": "create", "mode": "public", "salt": salt.value.salt, "name": "Bob's"}
    bob.forge("channel", create, channel=channel, at_ms=0)
    cleo.forge("channel", {"op": "managers", "managers": [cleo.talk.me.hex()]}, channel=channel)
    cleo.forge("channel", {"op": "remove", "member": ada.talk.me.hex(), "last": 0}, channel=channel)
    meet(*people)


def _private(people: list[Chatter]) -> None:
    ada, bob, cleo = people
    channel = ada.talk.create_channel("board", "invite")
    meet(*people)
    board = ada.talk.channel("board")
    ada.talk.invite(board, bob.talk.me)
    cleo.talk.join_channel(channel.hex())
    meet(*people)
    bob.talk.say("under the first key", channel=channel)
    meet(*people)
    ada.talk.remove(ada.talk.channel("board"), bob.talk.me)
    meet(*people)
    ada.talk.say("under the second key", channel=channel)
    ada.talk.invite(ada.talk.channel("board"), cleo.talk.me)
    meet(*people)
    cleo.talk.say("let in", channel=channel)
    cleo.forge("text", {"text": "said openly"}, channel=channel)
    meet(*people)


def _passphrase(people: list[Chatter]) -> None:
    ada, bob, _ = people
    channel = ada.talk.create_channel("vault", "key", passphrase=PASSPHRASE)
    meet(*people)
    bob.talk.join_channel("vault", passphrase=PASSPHRASE)
    meet(*people)
    bob.talk.say("opened", channel=channel)
    meet(*people)


def _circle(people: list[Chatter]) -> None:
    ada, bob, cleo = people
    ada.talk.name_circle("The friends")
    meet(*people)
    ada.talk.name_managers([bob.talk.me])
    meet(*people)
    bob.talk.name_circle("The best friends")
    cleo.forge("circle", {"op": "name", "name": "Cleo's"}, at_ms=2**53 - 1)
    meet(*people)
    ada.talk.keep_circle(0)
    ada.talk.name_managers([])
    meet(*people)


def _persons(people: list[Chatter]) -> None:
    ada, bob, cleo = people
    ada.talk.link_device(bob.talk.me)
    cleo.talk.link_device(ada.talk.me)
    meet(*people)
    bob.talk.link_device(ada.talk.me)
    meet(*people)
    bob.circle.introduce("Ada on the train")
    meet(*people)


def _calls(people: list[Chatter]) -> None:
    ada, bob, cleo = people
    ada.talk.start_call(GENERAL, "video")
    bob.talk.start_call(GENERAL)  # at once, without having heard of the other
    meet(*people)
    first = next(call for call in cleo.talk.facts.calls.values() if call.host == ada.talk.me)
    cleo.talk.join_call(first)
    cleo.forge("call", {"op": "end", "call": first.hash.hex()})
    meet(*people)
    bob.talk.join_call(first)
    meet(*people)
    ada.forge("call", {"op": "revoke", "call": first.hash.hex(), "member": bob.talk.me.hex()})
    meet(*people)


def _forked(people: list[Chatter]) -> None:
    ada, bob, cleo = people
    ada.talk.create_channel("plans")
    meet(*people)
    channel = ada.talk.channel("plans").id
    seq = ada.circle.file.tip(ada.circle.member.public.raw)[0] + 1
    for name in ("one", "two"):
        ada.forge("channel", {"op": "rename", "name": name}, channel=channel, seq=seq)
    bob.talk.say("hello")
    cleo.talk.say("hello")
    meet(*people)


STORIES: dict[str, Story] = {
    "texts, replies, edits and reactions": _talk,
    "who is not the author edits and deletes nothing": _not_the_author,
    "a deletion drops what was said": _deleted,
    "a channel, its managers, and who is removed from it": _channels,
    "nobody else creates or takes over a channel": _not_the_creator,
    "a private channel, its keys, and who is removed from it": _private,
    "a channel with a passphrase": _passphrase,
    "the circle's name and retention, by those the founder key has named": _circle,
    "two devices of one person": _persons,
    "calls that start at once, and who may end them": _calls,
    "a fork: the smaller hash stands": _forked,
}

_HASH, _ID, _SALT = "ab" * 32, "cd" * 16, "A" * 22
BODIES: list[tuple[str, dict[str, Any], bool]] = [
    ("text", {"text": "hi"}, True),
    ("text", {"text": "hi", "reply": _HASH, "later": 1}, True),
    ("text", {"text": 5}, False),
    ("text", {}, False),
    ("text", {"text": "hi", "reply": _HASH.upper()}, False),
    ("text", {"text": "hi", "name": "ü" * 33}, False),
    ("edit", {"of": _HASH, "text": ""}, True),
    ("edit", {"of": _ID, "text": "x"}, False),
    ("delete", {"of": _HASH, "seq": 1}, True),
    ("delete", {"of": _HASH, "seq": 0}, False),
    ("react", {"of": _HASH, "emoji": "👍"}, True),
    ("react", {"of": _HASH, "emoji": ""}, False),
    ("react", {"of": _HASH, "emoji": "👍" * 9}, False),
    ("person", {"with": "A" * 43}, True),
    ("person", {"with": "A" * 42}, False),
    ("circle", {"op": "name", "name": "friends"}, True),
    ("circle", {"op": "name", "name": ""}, False),
    ("circle", {"op": "keep", "days": 0}, True),
    ("circle", {"op": "keep", "days": 3651}, False),
    ("circle", {"op": "keep", "days": 1.5}, False),
    ("circle", {"op": "unheard"}, False),
    ("channel", {"op": "create", "mode": "public", "salt": _SALT, "name": "x"}, True),
    ("channel", {"op": "create", "mode": "secret", "salt": _SALT, "name": "x"}, False),
    ("channel", {"op": "topic", "topic": ""}, True),
    ("channel", {"op": "topic", "topic": "x" * 513}, False),
    ("channel", {"op": "join"}, True),
    ("channel", {"op": "managers", "managers": [_ID] * 64}, True),
    ("channel", {"op": "managers", "managers": [_ID] * 65}, False),
    ("channel", {"op": "invite", "to": _ID, "key": 0, "from": _HASH, "box": "A" * 107}, True),
    ("channel", {"op": "invite", "to": _ID, "key": 2**32}, False),
    ("channel", {"op": "remove", "member": _ID, "last": 7}, True),
    ("channel", {"op": "remove", "member": _ID, "last": -1}, False),
    ("channel", {"op": "key", "key": 1, "boxes": {_ID: "A" * 107}}, True),
    ("channel", {"op": "key", "key": 1, "boxes": {"x": "A" * 107}}, False),
    ("call", {"op": "create", "media": "audio"}, True),
    ("call", {"op": "create", "media": "smell"}, False),
    ("call", {"op": "revoke", "call": _HASH, "member": _ID}, True),
    ("call", {"op": "join", "call": 7}, False),
    ("dance", {}, False),
]


def made() -> dict[str, Any]:
    """Return everything that chat.json has."""
    return {
        "bodies": [{"kind": kind, "body": body, "ok": ok} for kind, body, ok in BODIES],
        "channel_ids": [
            {
                "author": base64url.encode(bytes([number]) * 32),
                "salt": base64url.encode(bytes([number + 1]) * 16),
                "id": channels.channel_id(bytes([number]) * 32, bytes([number + 1]) * 16).hex(),
            }
            for number in (0, 7)
        ],
        "call_words": [
            {"call": _HASH, "word": channels.call_word(bytes.fromhex(_HASH))},
        ],
        "states": [state for name, story in STORIES.items() for state in _states(name, story)],
    }


def _states(name: str, story: Story) -> list[dict[str, Any]]:
    people = circle_of("Ada", "Bob", "Cleo", seed=len(name))
    meet(*people)
    story(people)
    return [
        {
            "name": f"{name}: {one.name}",
            "founder": base64url.encode(one.circle.file.founder.raw),
            "member_secret": base64url.encode(one.circle.member.secret),
            "passphrase": PASSPHRASE if one.circle.file.fact("passphrases") else "",
            "records": [
                {
                    "epoch": kept.record.epoch,
                    "text": base64url.encode(kept.said.text),
                    "signature": base64url.encode(kept.said.signature),
                }
                for kept in sorted(one.all_said, key=lambda kept: kept.hash)
            ],
            "expect": one.snapshot(),
        }
        for one in people
    ]
