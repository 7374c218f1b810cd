"""Felund circles in the chat: texts and names with existing clients, at a real service."""

import base64
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from muster.chat.felund import FelundRoom
from muster.chat.node import Options, Profile
from muster.chat.store import Store
from muster.errors import BadValue
from muster.felund.circle import Circle
from muster.records import GENERAL
from tests.support import felund, local
from tests.support.members2 import play
from tests.support.profiles import until

GOLDEN = json.loads(
    (Path(__file__).parents[1] / "golden" / "felund_messages.json").read_text("utf-8")
)


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with local.running(tmp_path_factory.mktemp("service")) as server:
        yield server.base


def room_at(base: str, secret: bytes, *, store: Store | None = None) -> tuple[Profile, FelundRoom]:
    profile = Profile(store or Store.open(None), Options())
    circle = Circle.from_secret_hex(secret.hex())
    room = FelundRoom("old", circle, base, "c" * 24, profile.store, called="Chat")
    return profile, profile.add_room(room)


def read_by_existing(circle: felund.Circle, message: dict[str, Any]) -> dict[str, Any]:
    """Open a message as their clients do, with nothing of ours."""
    enc = message["enc"]
    bound = "|".join(
        str(message[name])
        for name in ("msg_id", "circle_id", "channel_id", "author_node_id", "created_ts")
    )
    key = Circle.from_secret_hex(circle.secret.hex()).message_key
    raw = AESGCM(key).decrypt(
        base64.b64decode(enc["nonce"]), base64.b64decode(enc["ciphertext"]), bound.encode()
    )
    found: dict[str, Any] = json.loads(raw)
    return found


def test_what_existing_clients_leave_is_shown_and_their_events_are_not(base: str) -> None:
    secret = bytes.fromhex(GOLDEN["secret"])
    client = felund.PythonClient(base, felund.Circle(secret))
    assert client.register().status == 200
    assert client.leave([one["wire"] for one in GOLDEN["messages"]]).status == 200

    async def scene() -> None:
        profile, room = room_at(base, secret)
        async with profile:
            said = [one for one in GOLDEN["messages"] if one["wire"]["channel_id"] == "general"]
            await until(lambda: len(room.page(GENERAL)) == len(said), "all texts")
            shown = {(one.text, room.author(one)) for one in room.page(GENERAL)}
            assert shown == {(one["text"], one["display_name"]) for one in said}
            assert [place.name for place in room.places()] == ["general"]
            assert room.unread(GENERAL) == len(said)
            room.read(GENERAL, profile.store.newest())
            assert room.unread(GENERAL) == 0
            assert len(room.search(GENERAL, "hello")) == 2

    play(scene())


def test_what_the_chat_says_existing_clients_read(base: str) -> None:
    circle = felund.new_circle()
    client = felund.PythonClient(base, circle)
    assert client.register().status == 200

    async def scene() -> None:
        profile, room = room_at(base, circle.secret)
        async with profile:
            room.say("ü 😀\nof the chat", channel=GENERAL)
            room.say("elsewhere", channel=room.channel("#Plans"))
            await until(lambda: len(room.page(room.channel("plans"))) == 1, "that both are sent")
            assert room.waiting(GENERAL) == []
            assert room.is_mine(room.page(GENERAL)[0])
            with pytest.raises(BadValue):
                room.say("no", channel=GENERAL, reply=room.page(GENERAL)[0])

    play(scene())
    found = [(one["channel_id"], read_by_existing(circle, one)) for one in client.pull()]
    assert [(channel, one["text"], one["display_name"]) for channel, one in found] == [
        ("general", "ü 😀\nof the chat", "Chat"),
        ("plans", "elsewhere", "Chat"),
    ]


def test_a_text_that_no_service_takes_is_said_to_be_lost_and_holds_nothing_up(base: str) -> None:
    circle = felund.new_circle()

    async def scene() -> None:
        profile, room = room_at(base, circle.secret)
        async with profile:
            room.say("x" * 3_000_000, channel=GENERAL)
            room.say("after it", channel=GENERAL)
            await until(lambda: room.page(GENERAL), "the next one")
            assert [one.text for one in room.page(GENERAL)] == ["after it"]
            assert "not sent" in room.trouble

    play(scene())


def test_a_service_that_is_away_is_said_and_what_is_written_waits(tmp_path: Path) -> None:
    circle, store = felund.new_circle(), Store.open(None)

    async def scene(base: str, *, there: bool) -> None:
        profile, room = room_at(base, circle.secret, store=store)
        async with profile:
            if there:
                await until(lambda: [one.text for one in room.page(GENERAL)] == ["later"], "it")
            else:
                room.say("later", channel=GENERAL)
                await until(lambda: room.trouble, "what is wrong")
                assert [one.text for one in room.waiting(GENERAL)] == ["later"]

    with local.running(tmp_path / "one") as server:
        base = server.base
    play(scene(base, there=False))
    with local.running(tmp_path / "two") as server:
        play(scene(server.base, there=True))
