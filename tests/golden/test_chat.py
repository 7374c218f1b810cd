"""The chat's golden file: whoever writes a client comes to the same states, in any order."""

import json
import random
from typing import Any

import pytest

from capsules.errors import Refused
from capsules.keys import VerifyKey
from muster import base64url, boxes, keys
from muster.chat import channels, kinds
from muster.chat.store import Store
from muster.chat.talk import Talk
from muster.circle import Circle
from muster.circle.file import CircleFile
from muster.seals import Said
from tests.golden import make_chat
from tests.golden.make_capsules import render
from tests.support.chatting import START_MS, Chatter

GOLDEN: dict[str, Any] = json.loads(make_chat.FILE.read_text("utf-8"))


def test_the_file_is_what_the_code_makes(rewrite_golden: bool) -> None:
    made = render(make_chat.made())
    if rewrite_golden:
        make_chat.FILE.write_text(made, encoding="utf-8")

    assert make_chat.FILE.read_text("utf-8") == made


@pytest.mark.parametrize("case", GOLDEN["bodies"])
def test_a_body_has_the_shape_of_its_kind_or_counts_for_nothing(case: dict[str, Any]) -> None:
    try:
        kinds.read(case["kind"], case["body"])
        ok = True
    except Refused:
        ok = False

    assert ok is case["ok"]


def test_ids_follow_from_what_they_name() -> None:
    for case in GOLDEN["channel_ids"]:
        author, salt = base64url.decode(case["author"]), base64url.decode(case["salt"])
        assert channels.channel_id(author, salt).hex() == case["id"]
    for case in GOLDEN["call_words"]:
        assert channels.call_word(bytes.fromhex(case["call"])) == case["word"]


@pytest.mark.parametrize("state", GOLDEN["states"], ids=lambda state: state["name"])
@pytest.mark.parametrize("order", ["as they stand", "backwards", "mixed"])
def test_a_state_follows_from_its_records_in_any_order(state: dict[str, Any], order: str) -> None:
    founder = VerifyKey(base64url.decode(state["founder"]))
    circle = Circle(
        CircleFile.make(
            None,
            founder=founder,
            member_secret=base64url.decode(state["member_secret"]),
            epoch=keys.Epoch(keys.circle_id(founder), 0, bytes(32)),
            began_ms=0,
        )
    )
    reader = Chatter.__new__(Chatter)
    reader.circle, reader.now_ms = circle, START_MS
    reader.talk = Talk(Store.open(None), circle, now_ms=lambda: START_MS)
    told = list(state["records"])
    if order == "backwards":
        told.reverse()
    elif order == "mixed":
        random.Random(1).shuffle(told)
    for one in told:
        said = Said(base64url.decode(one["text"]), base64url.decode(one["signature"]))
        circle.take_record(said, one["epoch"])
    reader.talk.catch_up()
    if state["passphrase"]:
        for channel in reader.talk.facts.channels.values():
            for source in channel.sources.values():
                key = boxes.passphrase_key(state["passphrase"], source.salt)
                reader.talk.remember_key(source.salt, key)

    assert json.loads(json.dumps(reader.snapshot())) == state["expect"]
