"""Round trips of messages and invites; readers accept or refuse, and never crash."""

from __future__ import annotations

import contextlib
import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from muster.felund import crypto
from muster.felund.circle import Circle
from muster.felund.crypto import Note, Unreadable
from muster.felund.invite import PREFIX, InvalidInvite, Invite

SECRETS = st.binary(min_size=16, max_size=64)
TEXT = st.text(st.characters(codec="utf-8"))
NAMES = st.text(st.characters(codec="utf-8", exclude_characters="|"))
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=8,
)
PEERS = st.sampled_from(
    ["", "relay", "host:1", "[::1]:65535", "https://m.example", "http://h:8787/api", "//m.example"]
)


@st.composite
def notes(draw: st.DrawFn, circle: Circle) -> Note:
    return Note(
        msg_id=draw(NAMES),
        circle_id=circle.circle_id,
        channel_id=draw(NAMES),
        author_node_id=draw(NAMES),
        created_ts=draw(st.integers(0, 2**53 - 1)),
        display_name=draw(TEXT),
        text=draw(TEXT),
    )


@given(st.data(), SECRETS, st.binary(min_size=12, max_size=12))
def test_what_is_encrypted_is_read_back_from_the_wire(
    data: st.DataObject, secret: bytes, nonce: bytes
) -> None:
    circle = Circle(secret)
    note = data.draw(notes(circle))

    envelope = json.loads(json.dumps(crypto.encrypt(circle, note, nonce=nonce)))

    assert crypto.decrypt(circle, envelope) == note
    assert set(envelope) == {*crypto.HEADS, "enc"}


@given(st.data(), SECRETS, SECRETS)
def test_another_circle_reads_nothing(data: st.DataObject, ours: bytes, theirs: bytes) -> None:
    if ours == theirs:
        return
    envelope = crypto.encrypt(Circle(ours), data.draw(notes(Circle(ours))), nonce=bytes(12))

    # Even if the service passes it off as theirs.
    envelope["circle_id"] = Circle(theirs).circle_id
    with pytest.raises(Unreadable):
        crypto.decrypt(Circle(theirs), envelope)


@given(st.data(), SECRETS)
def test_no_envelope_crashes_the_reader(data: st.DataObject, secret: bytes) -> None:
    circle = Circle(secret)
    envelope: dict[str, Any] = crypto.encrypt(circle, data.draw(notes(circle)), nonce=bytes(12))
    where = data.draw(st.sampled_from([*envelope, "mac", "text", "display_name"]))
    envelope[where] = data.draw(JSON)
    if data.draw(st.booleans()):
        envelope["enc"] = data.draw(
            st.fixed_dictionaries({"nonce": JSON, "ciphertext": JSON}) | st.none()
        )
    with contextlib.suppress(Unreadable):
        crypto.decrypt(circle, envelope)


@given(SECRETS, PEERS)
def test_an_invite_is_read_back(secret: bytes, peer: str) -> None:
    invite = Invite(Circle(secret), peer)

    assert Invite.parse(invite.code()) == invite
    assert secret.hex() not in repr(invite)


@given(st.text() | st.binary().map(lambda raw: PREFIX + raw.hex()) | JSON.map(json.dumps))
def test_no_text_crashes_the_reader_of_invites(text: str) -> None:
    with contextlib.suppress(InvalidInvite):
        Invite.parse(text)


@given(SECRETS)
def test_a_circle_does_not_print_its_secret(secret: bytes) -> None:
    circle = Circle(secret)

    for text in (repr(circle), str(circle), f"{circle}", repr([circle])):
        assert secret.hex() not in text
        assert repr(secret) not in text
        assert circle.circle_hint not in text


def test_a_message_id_is_new_each_time() -> None:
    names = {crypto.new_msg_id("node-1234", now=1700000000) for _ in range(100)}

    assert len(names) == 100
    assert all(len(name) == 32 for name in names)


def test_a_message_id_depends_on_nothing_but_its_arguments() -> None:
    first = crypto.new_msg_id("node-1234", now=5, entropy=bytes)

    assert first == crypto.new_msg_id("node-1234", now=5, entropy=bytes)
    assert first != crypto.new_msg_id("node-1234", now=6, entropy=bytes)


@pytest.mark.parametrize("name", ["msg_id", "channel_id", "author_node_id"])
def test_a_bar_in_an_identifier_is_not_written(name: str) -> None:
    circle = Circle(bytes(32))
    members: dict[str, Any] = {
        "msg_id": "m" * 32,
        "circle_id": circle.circle_id,
        "channel_id": "general",
        "author_node_id": "a" * 24,
        "created_ts": 1,
        "display_name": "Ann",
        "text": "hello",
    }
    members[name] += "|"

    with pytest.raises(ValueError, match="cannot hold"):
        crypto.encrypt(circle, Note(**members))


def test_half_a_surrogate_pair_is_not_written() -> None:
    circle = Circle(bytes(32))
    note = Note("m" * 32, circle.circle_id, "general", "a" * 24, 1, "Ann", "\ud83d")

    with pytest.raises(ValueError, match="surrogate"):
        crypto.encrypt(circle, note)
