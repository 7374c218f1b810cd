"""The chat on a screen: each screen and command, driven by keys, without a terminal."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from textual.events import Paste
from textual.widgets import Input, OptionList, Static

from muster.chat.node import Options
from muster.circle import Circle
from muster.cli.home import Home
from muster.cli.screen import commands, dialogs, drawing
from muster.cli.screen.app import ChatApp, Composer, Log
from muster.cli.screen.session import Session
from muster.records import GENERAL
from tests.support.profiles import listening, room_of, until

Pilot = Any


class Seat:
    """Somebody before a screen."""

    def __init__(self, app: ChatApp, pilot: Pilot) -> None:
        self.app, self.pilot, self.session = app, pilot, app.session

    async def type(self, text: str) -> None:
        """Put a text into the line and press Enter."""
        self.app.query_one(Composer).put(text)
        await self.pilot.press("enter")
        await self.pilot.pause()

    @property
    def log(self) -> str:
        log = self.app.query_one(Log)
        return "\n".join(str(log.get_option_at_index(n).prompt) for n in range(log.option_count))

    def shown(self, where: str) -> str:
        return str(self.app.query_one(where, Static).content)

    async def sees(self, *words: str, where: str = "") -> None:
        def all_there() -> bool:
            text = self.shown(where) if where else self.log
            return all(word in text for word in words)

        try:
            await until(all_there, f"{words}", seconds=15)
        except AssertionError:
            text = self.shown(where) if where else self.log
            raise AssertionError(f"{words} not in:\n{text}") from None


@asynccontextmanager
async def seated(
    path: Path, *, name: str = "Ada", size: tuple[int, int] = (110, 30), circle: str = "friends"
) -> AsyncIterator[Seat]:
    session = Session.open(Home(path), Options(name=name, bind="127.0.0.1"))
    if circle and not session.rooms:
        session.make(circle)
    app = ChatApp(session)
    async with app.run_test(size=size) as pilot:
        await pilot.pause()
        yield Seat(app, pilot)
    session.close()


@pytest.fixture
def played(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Run a scene at a screen of a home of its own, without any service."""
    monkeypatch.setenv("MUSTER_BASE", "http://127.0.0.1:9")
    monkeypatch.delenv("MUSTER_NAME", raising=False)
    monkeypatch.setattr("muster.cli.screen.session.first_services", lambda at: [])

    def play(scene: Callable[[Seat], Coroutine[Any, Any, None]], **options: Any) -> None:
        async def main() -> None:
            async with seated(tmp_path / "home", **options) as seat:
                await scene(seat)

        asyncio.run(main())

    return play


Played = Callable[..., None]


# --- the first visit --------------------------------------------------------------------------


def test_the_first_visit_asks_for_a_name_and_makes_a_circle(played: Played) -> None:
    async def scene(seat: Seat) -> None:
        wizard = seat.app.screen
        assert isinstance(wizard, dialogs.Wizard)

        def shown(where: str) -> str:
            return str(wizard.query_one(where, Static).content)

        await seat.pilot.press(*"Grace", "enter")
        assert shown("#will") == "Enter goes on to the next field."
        await seat.pilot.press(*"no link", "enter")
        assert "felund1" in shown("#problem")
        await seat.pilot.press("tab", "enter")
        assert "a circle's name has" in shown("#problem")
        assert not seat.session.rooms
        await seat.pilot.press(*"book club")
        assert shown("#will") == "Enter makes a circle 'book club', as Grace."
        await seat.pilot.press("enter")
        await until(lambda: seat.session.rooms, "the circle")
        assert seat.session.name == "Grace"
        await seat.sees("book club", where="#head")

    played(scene, circle="")


def test_the_first_visit_joins_by_a_code(played: Played) -> None:
    async def scene(seat: Seat) -> None:
        other = Circle.new(name="friends")
        async with room_of(other, "Bob") as his:
            code = other.invite(peers=[await listening(his)]).code
            his.talk.say("welcome")
            wizard = seat.app.screen
            new = wizard.query_one("#new", Input).focus()
            new.post_message(Paste(code))
            await until(lambda: wizard.query_one("#link", Input).value == code, "the link")
            assert new.value == ""
            wizard.query_one("#link", Input).focus()
            await seat.pilot.pause()
            told = str(wizard.query_one("#will", Static).content)
            assert told == "Enter joins 'friends', as Ada."
            await seat.pilot.press("enter")
            await seat.sees("Bob: welcome")
            await seat.sees("Bob", where="#people")
            await seat.type("thank you")
            await until(lambda: len(his.page(GENERAL)) == 2, "the answer")
            await seat.sees("delivered directly to 1")

    played(scene, circle="")


# --- talking ----------------------------------------------------------------------------------


def test_what_is_typed_is_said_and_its_fate_is_shown(played: Played) -> None:
    async def scene(seat: Seat) -> None:
        await seat.type("hello everybody")
        await seat.sees("Ada: hello everybody", "waits for somebody")
        assert seat.app.query_one(Composer).text == ""
        await seat.pilot.press("up")
        assert seat.app.query_one(Composer).text == "hello everybody"
        await seat.pilot.press("down", *"two", "alt+enter", *"lines", "enter")
        await seat.sees("two\n      lines")

    played(scene)


def test_channels_are_made_switched_and_marked_where_something_is_unread(played: Played) -> None:
    async def scene(seat: Seat) -> None:
        await seat.type("/channel create plans")
        await seat.sees("#plans", where="#head")
        await until(lambda: len(seat.session.here.places()) == 2, "the channel")
        await seat.type("in plans")
        await seat.sees("in plans")
        await seat.type("/channel switch general")
        await seat.sees("Nothing was said")
        await seat.pilot.press("alt+down")
        await seat.sees("in plans")
        await seat.type("/topic what we do in May")
        await seat.sees("what we do in May", where="#head")
        await seat.pilot.press("ctrl+k")
        seat.app.screen.query_one(Input).value = "gen"
        await seat.pilot.pause()
        await seat.pilot.press("enter")
        await seat.sees("#general", where="#head")

    played(scene)


def test_a_message_is_answered_edited_reacted_to_and_taken_back(played: Played) -> None:
    async def scene(seat: Seat) -> None:
        await seat.type("dinner at eight?")
        await seat.sees("dinner at eight?", "waits for somebody")
        await seat.type("/edit dinner at nine?")
        await seat.sees("dinner at nine?", "(edited)")
        await seat.type("/react 🍝")
        await seat.sees("🍝 1")
        await seat.pilot.press("shift+up")
        assert seat.app.focused is seat.app.query_one(Log)
        await seat.pilot.press("r")
        await seat.sees("dinner at nine?", where="#about")
        await seat.type("yes")
        await seat.sees("↪ Ada: dinner at nine?", "Ada: yes  … waits")
        await seat.type("/delete ^2")
        await until(lambda: "dinner at nine?" not in seat.log.replace("↪", ""), "its end")
        await seat.pilot.press("shift+up", "enter")
        assert isinstance(seat.app.screen, dialogs.Reader)
        await seat.pilot.press("escape")

    played(scene)


def test_ten_thousand_messages_are_scrolled_to_the_first_in_pages(played: Played) -> None:
    async def scene(seat: Seat) -> None:
        talk = seat.session.ours.talk
        for number in range(1200):
            talk.circle.file.draft(GENERAL, "text", {"text": f"message {number}"})
        await until(lambda: len(talk.page(GENERAL, most=2000)) == 1200, "all", seconds=60)
        await seat.sees("message 1199  … waits")
        log = seat.app.query_one(Log)
        assert log.option_count <= 330
        for _ in range(400):
            await seat.pilot.press("pageup")
            if "message 0\n" in seat.log + "\n" or "message 0  " in seat.log:
                break
        await seat.sees("message 0 ")
        assert log.option_count <= 330
        await seat.type("/last 1")
        await seat.sees("message 1199")

    played(scene)


def test_a_large_paste_is_asked_about_and_sent_as_what_it_is(played: Played) -> None:
    async def scene(seat: Seat) -> None:
        text = "\n".join(f"line {number} of it" for number in range(20_000))  # 300 kB
        composer = seat.app.query_one(Composer)
        composer.post_message(Composer.Pasted(text))
        await seat.pilot.pause()
        question = seat.app.screen
        assert isinstance(question, dialogs.Question)
        assert "bytes in 20,000 lines" in question.text
        await seat.pilot.press("y")
        talk = seat.session.ours.talk
        await until(lambda: talk.page(GENERAL), "the parts")
        await until(lambda: not talk.pending(GENERAL), "all of them")
        assert "".join(one.text for one in talk.page(GENERAL)) == text

    played(scene)


def test_tab_completes_commands_channels_and_names(played: Played) -> None:
    async def scene(seat: Seat) -> None:
        composer = seat.app.query_one(Composer)
        composer.put("/chann")
        await seat.pilot.press("tab")
        assert composer.text == "/channel"
        composer.put("/sett")
        await seat.pilot.press("tab")
        assert composer.text == "/settings "
        composer.put("/channel switch gen")
        await seat.pilot.press("tab")
        assert composer.text == "/channel switch general "
        composer.put("")

    played(scene)


# --- dialogs ----------------------------------------------------------------------------------


def test_help_invite_and_settings_open_and_close(played: Played) -> None:
    async def scene(seat: Seat) -> None:
        for key, kind in (
            ("f1", dialogs.Help),
            ("f2", dialogs.InviteDialog),
            ("f3", dialogs.Settings),
        ):
            await seat.pilot.press(key)
            assert isinstance(seat.app.screen, kind)
            await seat.pilot.press(key)
            assert not isinstance(seat.app.screen, kind)
        await seat.pilot.press("f2")
        qr = str(seat.app.screen.query_one("#qr", Static).content)
        assert "█▀" in qr or "▄█" in qr
        assert "muster2." in str(seat.app.screen.query_one("#code", Static).content)
        await seat.pilot.press("escape", "f3")
        field = seat.app.screen.query_one("#name", Input)
        field.value = "Ada L."
        field.focus()
        await seat.pilot.press("enter")
        assert seat.session.name == "Ada L."
        days = seat.app.screen.query_one("#days", Input)
        days.value = "7"
        days.focus()
        await seat.pilot.press("enter", "escape")
        await until(lambda: seat.session.ours.talk.facts.days == 7, "the days")
        await seat.sees("Ada L.", where="#people")

    played(scene)


def test_search_finds_what_is_stored_and_goes_there(played: Played) -> None:
    async def scene(seat: Seat) -> None:
        for text in ("the blue house", "the red house", "a green tree"):
            await seat.type(text)
        await seat.sees("a green tree")
        await seat.pilot.press("ctrl+f")
        seat.app.screen.query_one("#words", Input).value = "hou red"
        await seat.pilot.pause()
        found = seat.app.screen.query_one("#found", OptionList)
        assert found.option_count == 1
        await seat.pilot.press("enter", "enter")
        await seat.pilot.pause()
        log = seat.app.query_one(Log)
        assert "the red house" in str(log.get_option_at_index(log.highlighted or 0).prompt)

    played(scene)


def _answered(seat: Seat, answer: str) -> bool:
    return answer in seat.shown("#answer") + seat.log


def _said(seat: Seat) -> bool:
    """Say whether all that was drafted is said, and known to the chat."""
    talk = seat.session.ours.talk
    talk.catch_up()
    return not talk.circle.file.drafts()


# --- commands ---------------------------------------------------------------------------------


def test_every_command_is_explained_and_what_looks_like_one_is_never_said(played: Played) -> None:
    async def scene(seat: Seat) -> None:
        for name in commands.COMMANDS:
            await seat.type(f"/help {name}")
            await until(partial(_answered, seat, f"/{name}"), name)
        for text in ("/bogus muster2.secret", "/channel", "/reply", "/device Nobody", "/react"):
            await seat.type(text)
            assert seat.app.query_one(Composer).text == text, "what was typed stays"
        assert seat.session.here.page(GENERAL) == []
        await seat.type("//shrug")
        await seat.sees("Ada: /shrug")

    played(scene)


COMMANDS_THAT_ANSWER = (
    ("/circles", "friends"),
    ("/channels", "#general"),
    ("/who", "Ada (you): here"),
    ("/name", "you are called Ada"),
    ("/call", "no call is on"),
    ("/inbox", "friends#general Ada: one"),
    ("/last", "Ada: one"),
    ("/circle name", "friends"),
    ("/circle managers", "Ada"),
    ("/circle keep 0", "as long as one likes"),
    ("/circle keep x", "a number of days"),
    ("/circle leave", "/circle leave yes"),
    ("/channel requests", "everybody's"),
    ("/channel approve Bob", "nobody here is called"),
    ("/channel join nowhere", "there is no channel"),
    ("/inbox -m", "nothing was said so far"),
    ("/debug", "what happens underneath is shown"),
    ("/search", ""),
    ("/read", ""),
)


def test_commands_answer(played: Played) -> None:
    async def scene(seat: Seat) -> None:
        await seat.type("one")
        await seat.sees("Ada: one")
        await until(lambda: seat.session.ours.talk.facts.managers, "who manages the circle")
        for text, answer in COMMANDS_THAT_ANSWER:
            await seat.type(text)
            if text == "/search":
                assert isinstance(seat.app.screen, dialogs.Search)
                await seat.pilot.press("escape")
            await until(partial(_answered, seat, answer), f"{text}: {answer}")
            seat.app.query_one(Composer).put("")
        await seat.type("/circle leave yes")
        await until(lambda: not seat.session.rooms, "the end of the circle")
        await seat.type("/circle create again")
        await seat.sees("again", where="#head")

    played(scene)


def test_a_channel_is_managed_by_commands(played: Played) -> None:
    async def scene(seat: Seat) -> None:
        ours = seat.session.ours
        await until(ours.peers_shown, "the port")
        invite = ours.circle.invite(peers=ours.peers_shown())
        async with room_of(Circle.join(invite), "Bob") as bob:
            await seat.sees("Bob", where="#people")
            await until(lambda: bob.talk.me in ours.talk.facts.boxes, "who Bob is")
            for text, answer in (
                ("/channel create board invite", "#board is made"),
                ("/channel invite Bob", "Bob is let in"),
                ("/channel managers Bob", "named"),
                ("/channel managers", "Bob"),
                ("/channel requests", "nobody asks"),
                ("/channel keep 3", "for 3 days"),
                ("/who board", "Bob: here, direct"),
                ("/channel name panel", ""),
                ("/topic what to decide", ""),
            ):
                await seat.type(text)
                await until(partial(_answered, seat, answer), f"{text}: {answer}")
                await until(partial(_said, seat), f"{text} is said")
            await until(lambda: "panel" in [one.name for one in bob.places()], "Bob's panel")
            bob.say("in the panel", channel=ours.talk.channel("panel").id)
            await seat.sees("Bob: in the panel")
            await seat.type("/channel remove Bob")
            await until(partial(_answered, seat, "there is a new key"), "the removal")
            await seat.type("/channel leave")
            await seat.sees("#general", where="#head")
            await seat.type("/channel create vault key correct horse battery")
            await seat.sees("#vault", where="#head")
            await seat.type("/channel join vault correct horse battery")
            await seat.type("/device Bob")
            await until(partial(_answered, seat, "on the other device"), "what is to be done")
            await seat.type("/device Bob no")
            await until(partial(_answered, seat, "somebody else"), "that it is undone")
            ours.talk.start_call(GENERAL)
            await seat.type("/channel switch general")
            await seat.sees("a call is on", where="#head")
            await seat.type("/call")
            await until(partial(_answered, seat, "a terminal cannot join it"), "the call")
            await seat.type("/call end")
            await until(partial(_answered, seat, "the call is over"), "its end")
            await seat.type("/channels")
            await until(partial(_answered, seat, "vault"), "the channels")

    played(scene)


def test_keys_move_between_channels_and_to_what_was_not_read(played: Played) -> None:
    async def scene(seat: Seat) -> None:
        ours, composer = seat.session.ours, seat.app.query_one(Composer)
        await until(ours.peers_shown, "the port")
        invite = ours.circle.invite(peers=ours.peers_shown())
        async with room_of(Circle.join(invite), "Bob") as bob:
            await seat.type("/channel create plans")
            await seat.sees("#plans", where="#head")
            await seat.type("/channel switch general")
            await until(lambda: len(bob.places()) == 2, "that Bob knows it")
            bob.say("Ada, look here", channel=ours.talk.channel("plans").id)
            await until(lambda: ours.unread(ours.talk.channel("plans").id) == 1, "something unread")
            await seat.pilot.press("alt+a")
            await seat.sees("Bob: Ada, look here")
            await seat.pilot.press("alt+u", "alt+a", "alt+up", "f5", "f5", "f6", "f6")
            await seat.sees("#general", where="#head")
            for number in range(150):
                ours.circle.file.draft(GENERAL, "text", {"text": f"number {number}"})
            await seat.sees("number 149  …")
            await seat.pilot.press("shift+up")
            for key in ("up", "home", "up", "plus", "escape"):
                await seat.pilot.press(key)
            await seat.pilot.press("shift+up", "e")
            assert composer.text.startswith("/edit ^")
            await seat.pilot.press("escape", "shift+up", "d")
            assert composer.text.startswith("/delete ^")
            composer.put("number 14")
            await seat.pilot.press("ctrl+r")
            composer.put("hello @Bo")
            await seat.pilot.press("tab")
            assert composer.text == "hello @Bob "
            composer.put("/channel")
            await seat.pilot.press("tab", "tab", "tab")
            await seat.pilot.press("pagedown", "pageup", "f1", "pagedown", "f1")
            log = seat.app.query_one(Log)
            log.post_message(Log.Edge(older=True))
            await seat.pilot.pause()
            log.action_newest()
            await seat.pilot.pause()
            composer.put("")
            await seat.type("/circles")
            await seat.type("/search number 7")
            await seat.pilot.press("escape")
            await seat.type("/circle switch friends")
            await seat.type("/help channel")
            await seat.type("/settings")
            assert isinstance(seat.app.screen, dialogs.Settings)
            field = seat.app.screen.query_one("#service", Input)
            field.value = "no address"
            field.focus()
            await seat.pilot.press("enter", "escape")

    played(scene)


# --- what others wrote, and where it is shown ---------------------------------------------------


HOSTILE = (
    "\x1b[2J\x1b[31mred",
    "abc\u202egnp.exe",
    "line\r\none\u2028two\x0bthree",
    "a" + "\u0301" * 100_000,
    "wide " * 300,
    "[bold]markup[/bold] [link=x]",
    "\u200b\u2066hidden\u2069",
    "🏳️‍🌈" * 500,
    "\ufffd\U000e0001tag",
)


@pytest.mark.parametrize("size", [(80, 24), (40, 12), (200, 60)])
def test_what_others_write_moves_nothing_on_the_screen(
    played: Played, size: tuple[int, int]
) -> None:
    async def scene(seat: Seat) -> None:
        for text in HOSTILE:
            seat.session.here.say(text, channel=GENERAL)
        seat.session.ours.circle.introduce("\x1b]0;title\x07Eve\u202e\n\n")
        seat.session.ours.talk.name_circle("\x1b[1mcircle\u202e")
        await until(lambda: len(seat.session.here.page(GENERAL)) == len(HOSTILE), "all of them")
        await seat.sees("[bold]markup[/bold]", "\\x1b[2J")
        everything = seat.log + seat.shown("#people") + seat.shown("#head")
        for forbidden in ("\x1b", "\u202e", "\u2028", "\x07", "\u2066", "\u0301" * 5):
            assert forbidden not in everything
        assert seat.app.size == size

    played(scene, size=size)


@pytest.mark.parametrize("width", [20, 43, 80])
def test_no_text_begins_a_line_like_one_of_ours(width: int) -> None:
    for blanks in range(1, 2 * width):
        drawn = drawing.flow(
            [
                ("23:15 ", "dim"),
                ("Eve", "bold"),
                (": ", ""),
                ("x" + " " * blanks + "23:16 Ada: no", ""),
            ],
            width=width,
        )
        first, *others = drawn.plain.splitlines()
        assert first.startswith("23:15 Eve: ")
        assert all(line.startswith(drawing.INDENT) for line in others)
        assert all(len(line) <= width for line in (first, *others))
        assert "".join(drawn.plain.split()) == "23:15Eve:x23:16Ada:no"


def test_names_that_look_alike_are_told_apart_by_a_key(played: Played) -> None:
    async def scene(seat: Seat) -> None:
        ours = seat.session.ours
        await until(ours.peers_shown, "the port")
        invite = ours.circle.invite(peers=ours.peers_shown())
        async with room_of(Circle.join(invite), "Аda") as other:
            await seat.sees("Аda (" + other.talk.me.hex()[:6], where="#people")

    played(scene)


def test_what_happens_underneath_is_shown_to_who_asks(played: Played) -> None:
    async def scene(seat: Seat) -> None:
        await seat.type("/debug")
        await seat.type("seen from below")
        await seat.sees("friends said:", "kind=text")
        await seat.type("/debug")
        await until(lambda: "is hidden" in seat.shown("#answer"), "that it is hidden")

    played(scene)


def test_no_color_and_a_small_screen_still_show_everything(
    played: Played, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("NO_COLOR", "1")

    async def scene(seat: Seat) -> None:
        await seat.type("small")
        await seat.sees("Ada: small")
        assert not seat.app.query_one("#people").display
        assert not seat.app.query_one("#places").display
        await seat.pilot.press("f5")
        assert seat.app.query_one("#people").display

    played(scene, size=(50, 12))
