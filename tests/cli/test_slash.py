"""Slash commands without a screen: what each does, and what it says to who asks too much."""

from __future__ import annotations

import argparse
import asyncio
import json
from collections.abc import Callable, Coroutine
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from muster.chat.felund import FelundRoom
from muster.chat.node import Options, Room
from muster.chat.store import Row
from muster.circle import Circle
from muster.cli.home import Home
from muster.cli.output import Misuse
from muster.cli.screen import transferring
from muster.cli.screen.commands import JOINED_BY, complete, run
from muster.cli.screen.plain import Calls
from muster.cli.screen.session import Session
from muster.errors import BadValue, Hinted
from muster.felund.circle import Circle as FelundCircle
from muster.felund.invite import Invite as FelundInvite
from muster.invites import Invite, ServiceAddress
from muster.records import GENERAL
from tests.support.chatting import circle_of, meet
from tests.support.profiles import listening, room_of, until

NOWHERE = "http://127.0.0.1:9"
FELUND = FelundInvite(FelundCircle.from_secret_hex("5a" * 32), NOWHERE).code()


@pytest.fixture(autouse=True)
def _no_service(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody is asked where a service is, and homes of commands are here."""
    monkeypatch.setattr("muster.cli.screen.session.first_services", lambda at: [])
    monkeypatch.setenv("MUSTER_HOME", str(tmp_path / "home"))
    monkeypatch.delenv("MUSTER_NAME", raising=False)


def session_in(path: Path, *circles: str, name: str = "Ada") -> Session:
    session = Session.open(Home(path), Options(name=name, bind="127.0.0.1"))
    for one in circles:
        session.make(one)
    return session


def typed(session: Session, *texts: str) -> list[str]:
    """Type lines where nothing runs; return what the last one answers."""
    lines: tuple[str, ...] = ()
    for text in texts:
        lines = asyncio.run(run(session, text)).lines
    return list(lines)


async def said(session: Session, text: str) -> str:
    """Type a line where circles run; return its answer when all it drafted is said."""
    answer = await run(session, text)
    talk = session.ours.talk

    def done() -> bool:
        talk.catch_up()
        return not talk.circle.file.drafts()

    await until(done, f"{text} is said")
    return "\n".join(answer.lines)


def among_two(path: Path, scene: Callable[[Session, Room], Coroutine[Any, Any, None]]) -> None:
    """Play a scene of Ada, who types, and Bob, who is in her circle."""

    async def main() -> None:
        session = session_in(path, "friends")
        async with session.profile:
            ours = session.ours
            invite = ours.circle.invite(peers=[await listening(ours)])
            async with room_of(Circle.join(invite), "Bob") as bob:
                await until(lambda: bob.talk.me in ours.talk.facts.boxes, "who Bob is")
                await until(lambda: any(one.name == "Bob" for one in ours.people()), "Bob's name")
                await scene(session, bob)
        session.close()

    asyncio.run(main())


# --- circles ----------------------------------------------------------------------------------


def test_circles_are_listed_switched_and_called_by_either_name(tmp_path: Path) -> None:
    session = session_in(tmp_path, "friends", "Book Club")

    assert [line[0] for line in typed(session, "/circles")].count("*") == 1
    assert any(line.startswith("* Book Club: ") for line in typed(session, "/circles"))
    assert typed(session, "/circle name") == ["this circle is called 'Book Club'"]
    typed(session, "/circle switch friends")
    assert session.here.name == "friends"
    typed(session, "/circle switch book club")
    assert session.here.title == "Book Club"
    with pytest.raises(BadValue, match="there is no circle 'strangers'"):
        typed(session, "/circle switch strangers")
    assert complete(session, "/circle switch fr") == ["/circle switch friends "]
    session.close()


def test_the_same_circle_is_joined_once_by_whatever_word(tmp_path: Path) -> None:
    session = session_in(tmp_path / "a", "friends")
    code = session.ours.circle.invite().code
    session.make("second")

    assert typed(session, f"/circle join {code}") == ["you are in 'friends'"]
    assert (session.here.name, len(session.rooms)) == ("friends", 2)
    other = session_in(tmp_path / "b", name="Bob")
    assert typed(other, f"/join {code}") == ["you are in 'friends'"]
    moved = replace(Invite.parse(code), services=(ServiceAddress(NOWHERE, b"s" * 16),)).code
    with pytest.raises(Misuse, match=f"brings another service, {NOWHERE}"):
        typed(other, f"/join {moved}")
    assert other.ours.circle.services == []
    typed(other, f"/join {moved} yes")
    assert [one.url for one in other.ours.circle.services] == [NOWHERE]
    assert other.ours.id == session.ours.id
    for one in (session, other):
        one.close()


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("/join", "no link or code"),
        ("/join muster2.broken", "invite"),
        ("/join something else", "felund1"),
        ("/topic", "in no circle yet"),
        ("/help bogus", "no command '/bogus'"),
        ("/name " + "x" * 65, "1 to 64 bytes"),
        ("/", "no command '/'"),
    ],
)
def test_what_cannot_be_done_says_why(tmp_path: Path, text: str, why: str) -> None:
    session = session_in(tmp_path)

    with pytest.raises(Hinted) as refused:
        typed(session, text)

    assert why in f"{refused.value.message} {refused.value.hint}"
    assert session.rooms == []
    session.close()


def test_a_name_is_shown_and_changed_in_all_circles(tmp_path: Path) -> None:
    session = session_in(tmp_path, "friends")
    typed(session, f"/join {FELUND}")

    assert typed(session, "/name") == ["you are called Ada"]
    assert typed(session, "/name Grace  Hopper") == ["you are called Grace Hopper from now on"]
    assert {one.name for room in session.rooms for one in room.people() if one.me} == {
        "Grace Hopper"
    }
    session.close()
    again = session_in(tmp_path, name="")
    assert typed(again, "/name") == ["you are called Grace Hopper"]
    again.close()


def test_a_damaged_circle_is_named_and_the_others_open(tmp_path: Path) -> None:
    session = session_in(tmp_path, "friends", "broken")
    session.close()
    for room in session.rooms:
        room.close()
    session.home.file_of("broken").write_bytes(b"this is no circle")

    again = session_in(tmp_path)

    assert [room.name for room in again.rooms] == ["friends"]
    assert "broken" in " ".join(again.troubles)
    again.close()


# --- felund circles ---------------------------------------------------------------------------


def test_a_felund_circle_is_joined_once_and_takes_texts_alone(tmp_path: Path) -> None:
    session = session_in(tmp_path)

    typed(session, f"/join {FELUND}", f"/join {FELUND}")
    assert [room.kind for room in session.rooms] == ["felund"]
    with pytest.raises(BadValue, match="begin when somebody writes") as refused:
        typed(session, "/channel create tea")
    assert refused.value.hint == "/channel switch tea"
    typed(session, "/channel switch #tea", "two sugars")
    assert [one.text for one in session.here.waiting(session.channel)] == ["two sugars"]
    assert typed(session, "/channels")[-1].startswith("* #tea")
    for text in ("/topic tea", "/channel switch __secret", "/reply no"):
        with pytest.raises(BadValue):
            typed(session, text)
    assert "(felund)" in typed(session, "/circles")[0]
    typed(session, "/circle leave yes")
    assert (session.rooms, session.home.memberships()) == ([], [])
    session.close()


def noted(room: FelundRoom, text: str, *, channel: bytes = GENERAL) -> None:
    """Have a text of somebody else in a felund circle."""
    row = Row(
        *(text.encode().ljust(32, b"."), channel, b"b" * 32, 0, 1_700_000_000_000),
        shown_ms=1_700_000_000_000,
        closed=False,
        name="Bob",
        text=text,
        reply=None,
    )
    with room.store.writing():
        room.store.add_text(room.id, row)


def options(file: Path, **more: Any) -> argparse.Namespace:
    usual = {"file": str(file), "circle": None, "plain": False, "json": True}
    return argparse.Namespace(**usual | {"passphrase_file": None} | more)


def test_a_felund_circle_and_its_notes_move_by_a_file(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    session = session_in(tmp_path / "home")
    typed(session, f"/join {FELUND}")
    room = session.here
    assert isinstance(room, FelundRoom)
    noted(room, "hello")
    noted(room, "with milk", channel=room.channel("tea"))
    session.close()
    file = tmp_path / "export"

    assert transferring.export(options(file, plain=True)) == 0
    assert json.loads(capsys.readouterr().out)["circles"] == 1
    broken = json.dumps({"t": "note", "circle": room.id.hex(), "at_ms": "soon"})
    file.write_text(file.read_text() + broken + "\n")
    monkeypatch.setenv("MUSTER_HOME", str(tmp_path / "other"))
    assert transferring.import_(options(file)) == 0

    taken = json.loads(capsys.readouterr().out)
    assert (taken["records"], taken["refused"]) == (2, 1)
    assert transferring.import_(options(file, json=False)) == 0
    printed = capsys.readouterr()
    assert "0 records that were not here" in printed.out
    assert "1 lines were damaged" in printed.err
    other = session_in(tmp_path / "other")
    found = {one.name: other.here.page(one.id) for one in other.here.places()}
    assert {name: [one.text for one in page] for name, page in found.items()} == {
        "general": ["hello"],
        "tea": ["with milk"],
    }
    other.close()


@pytest.mark.parametrize(
    ("circle", "why"), [(None, "no circle in this home"), ("friends", "nobody is here to type")]
)
def test_what_cannot_be_exported_says_why_and_leaves_no_file(
    tmp_path: Path, circle: str | None, why: str
) -> None:
    if circle:
        session_in(tmp_path / "home", circle).close()

    with pytest.raises(Exception, match=why):
        transferring.export(options(tmp_path / "file"))
    with pytest.raises(Misuse, match="is a folder"):
        transferring.export(options(tmp_path))
    assert not (tmp_path / "file").exists()


def test_a_passphrase_that_is_short_encrypts_nothing(tmp_path: Path) -> None:
    session_in(tmp_path / "home", "friends").close()
    short = tmp_path / "short"
    short.write_text("")

    with pytest.raises(Misuse, match="fewer than 8"):
        transferring.export(options(tmp_path / "export", passphrase_file=str(short)))
    assert not (tmp_path / "export").exists()


# --- channels and messages --------------------------------------------------------------------


def test_who_has_the_key_of_a_channel_is_let_in_and_put_out(tmp_path: Path) -> None:
    async def scene(session: Session, bob: Room) -> None:
        talk = session.ours.talk
        await said(session, "/channel create vault key correct horse battery")
        await until(lambda: bob.talk.facts.channels, "the channel at Bob's")
        bob.talk.join_channel("vault", passphrase="correct horse battery")
        vault = talk.channel("vault").id
        await until(lambda: bob.talk.me in talk.facts.channels[vault].members, "Bob in it")
        assert "Bob" in await said(session, "/who vault")
        answer = await said(session, "/channel remove Bob another long passphrase")
        assert answer == "Bob is removed and there is a new key"
        assert bob.talk.me not in talk.facts.channels[vault].members
        with pytest.raises(BadValue, match="already"):
            await run(session, "/channel create vault")
        with pytest.raises(BadValue, match="no mode"):
            await run(session, "/channel create other open")
        with pytest.raises(BadValue, match="every circle has"):
            await run(session, "/channel create general")
        with pytest.raises(BadValue, match="at most"):
            await run(session, "/topic " + "x" * 2000)
        with pytest.raises(BadValue, match="cannot be removed"):
            await run(session, "/channel remove Ada a third passphrase")

    among_two(tmp_path, scene)


def test_two_devices_are_one_person_when_both_have_said_so(tmp_path: Path) -> None:
    async def scene(session: Session, bob: Room) -> None:
        talk = session.ours.talk
        bob.talk.link_device(talk.me)
        await until(lambda: bob.talk.me in talk.facts.asks(talk.me), "what Bob has said")
        assert await said(session, "/device Bob") == "Bob and you are one person from now on"
        (me,) = session.here.people()
        assert (me.me, me.devices) == (True, 2)
        assert ", 2 devices" in await said(session, "/who")

    among_two(tmp_path, scene)


def test_managers_of_the_circle_are_named_and_listed(tmp_path: Path) -> None:
    async def scene(session: Session, bob: Room) -> None:
        assert await said(session, "/circle managers Bob") == "named"
        assert "Bob" in await said(session, "/circle managers")
        await until(lambda: bob.talk.me in bob.talk.facts.managers, "that Bob may")
        bob.talk.name_circle("Bob's friends")
        await until(lambda: session.here.title == "Bob's friends", "the name")

    among_two(tmp_path, scene)


def test_messages_are_named_by_their_place_or_key(tmp_path: Path) -> None:
    async def scene(session: Session, bob: Room) -> None:
        await said(session, "one")
        await said(session, "two")
        await until(lambda: len(session.here.page(GENERAL)) == 2, "both")
        first = session.here.page(GENERAL)[0]
        await said(session, f"/edit ^{first.hash.hex()[:8]} three")
        assert session.find_message("^2").text == "three"
        lines = await said(session, "/last 1")
        assert "two" in lines
        assert "three" not in lines
        for ref in ("^3", "^0", "^ffffffffff"):
            with pytest.raises(BadValue, match="there is no message"):
                session.find_message(ref)
        await said(session, "/delete ^1")
        await until(lambda: "two" not in [m.text for m in bob.page(GENERAL)], "that it is gone")
        await said(session, "//hello")
        assert session.find_message("^1").text == "/hello"
        assert complete(session, "hello @b") == ["hello @Bob "]
        assert complete(session, "bo") == ["Bob: "]
        assert complete(session, "see #gen") == ["see #general "]
        with pytest.raises(BadValue, match="no call is on"):
            await run(session, "/call end")
        with pytest.raises(BadValue, match="cannot start a call; the app can"):
            await run(session, "/call start video")
        with pytest.raises(BadValue, match="cannot do '/call join'; the app can"):
            await run(session, "/call join")

    among_two(tmp_path, scene)


def test_a_line_tells_when_a_call_begins_and_when_it_is_over_and_one_who_floods_has_a_few() -> None:
    ada, bob, eve = circle_of("Ada", "Bob", "Eve")
    ada.circle.file.add_services([ServiceAddress(NOWHERE, b"s" * 16)])
    tea = eve.talk.create_channel("tea\x1b[2J")
    meet(ada, bob, eve)
    room, calls = Room("friends", ada.circle, ada.talk.store, Options()), Calls()
    bob.talk.start_call(GENERAL, "video")
    eve.talk.start_call(tea)
    meet(ada, bob, eve)
    assert sorted(calls.lines(room, now=0)) == [
        f"Bob calls in friends#general (video); {JOINED_BY}: {NOWHERE}/app/",
        f"Eve calls in friends#tea\\x1b[2J (audio); {JOINED_BY}: {NOWHERE}/app/",
    ]
    assert calls.lines(room, now=1) == []
    on = bob.talk.call_in(GENERAL)
    assert on is not None
    bob.talk.end_call(on)
    told = []
    for second in range(20):
        eve.forge("call", {"op": "create", "media": "audio"}, channel=(GENERAL, tea)[second % 2])
        meet(ada, bob, eve)
        told += calls.lines(room, now=2 + 5 * second)
    assert "the call in friends#general is over" in told
    assert len(told) <= 4
    ada.talk.start_call(GENERAL)
    meet(ada, bob, eve)
    assert calls.lines(room, now=1000)[1:] == []  # one's own is told by nobody


def test_names_that_several_have_are_told_apart_by_keys(tmp_path: Path) -> None:
    async def scene(session: Session, bob: Room) -> None:
        await said(session, "/channel create tea")
        bob.talk.create_channel("drinks")
        await until(lambda: len(session.here.places()) == 3, "both channels")
        theirs = next(one for one in session.here.places() if one.name == "drinks")
        bob.talk.rename_channel(bob.talk.channel("drinks"), "tea")
        bob.call_me("Ada")
        await until(
            lambda: [one.name for one in session.here.places()].count("tea") == 2, "a second tea"
        )
        await until(lambda: [one.name for one in session.here.people()].count("Ada") == 2, "Adas")
        with pytest.raises(BadValue, match="several channels") as refused:
            await run(session, "/channel switch tea")
        assert theirs.id.hex()[:6] in refused.value.hint
        await run(session, f"/channel switch {theirs.id.hex()[:6]}")
        assert session.channel == theirs.id
        with pytest.raises(BadValue, match="several are called") as refused:
            await run(session, "/device Ada")
        him = next(one for one in session.here.people() if not one.me)
        assert him.key in refused.value.hint
        assert session.find_person(him.id.hex()[:8]) == him
        with pytest.raises(BadValue, match="nobody here"):
            session.find_person("Carol")

    among_two(tmp_path, scene)
