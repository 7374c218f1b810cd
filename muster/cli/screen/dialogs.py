"""Dialogs: what lies over the chat for a while: help, invite, settings, search, and questions."""

from __future__ import annotations

import io
from collections.abc import Callable
from typing import ClassVar

from rich.text import Text
from textual import on
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Horizontal, Vertical, VerticalScroll
from textual.events import DescendantFocus
from textual.screen import ModalScreen
from textual.widgets import Button, Input, Label, OptionList, Static
from textual.widgets.option_list import Option

from muster.chat.node import Room
from muster.chat.room import AnyRoom
from muster.chat.store import Message
from muster.cli import output
from muster.cli.screen import drawing
from muster.cli.screen.commands import COMMANDS
from muster.cli.screen.session import Session
from muster.errors import BadValue, Hinted
from muster.felund.invite import PREFIX as FELUND_PREFIX
from muster.invites import NAME_BYTES, PREFIX

KEYS = (
    ("Enter", "send; in the log: read the whole message"),
    ("Alt-Enter, Ctrl-J", "another line"),
    ("Tab", "complete a command, a channel, a name"),
    ("Up, Down", "what you typed before"),
    ("Shift-Up", "into the log, to choose a message"),
    ("Ctrl-R", "find what you typed before"),
    ("PgUp, PgDn", "older and newer messages"),
    ("Alt-Up, Alt-Down", "channel above, below"),
    ("Alt-A", "next channel with something unread"),
    ("Alt-U", "the first message that you have not read"),
    ("Ctrl-K", "go to a channel by its name"),
    ("Ctrl-F", "search in this channel"),
    ("r, e, d, +", "in the log: reply, edit, delete, react"),
    ("F5", "show or hide who is here"),
    ("F6", "leave the mouse to the terminal, to copy"),
    ("Escape", "back to what you write"),
    ("Ctrl-Q", "end"),
)


class Dialog(ModalScreen[str | None]):
    """The base: Escape closes it."""

    BINDINGS: ClassVar[list[BindingType]] = [Binding("escape", "close", "Close")]

    def action_close(self) -> None:
        """Close it, without an answer."""
        self.dismiss(None)


class Help(Dialog):
    """All keys and commands."""

    BINDINGS: ClassVar[list[BindingType]] = [Binding("f1", "close", "Close")]

    def compose(self) -> ComposeResult:
        """Draw the table."""
        text = Text()
        text.append("Keys\n", style="bold")
        for key, what in KEYS:
            text.append(f"  {key:<20}", style="cyan")
            text.append(f"{what}\n")
        text.append("\nCommands\n", style="bold")
        for one in COMMANDS.values():
            text.append(f"  {one.typed}\n", style="cyan")
            text.append(f"      {one.what}\n")
        text.append("\n// begins a text with a slash.", style="dim")
        with Vertical(classes="dialog tall"):
            yield Label("Help", classes="title")
            with VerticalScroll(can_focus=True) as scroll:
                scroll.focus()
                yield Static(text)
            yield Label("Escape closes", classes="foot")


class InviteDialog(Dialog):
    """What lets somebody in: a link or code, and its picture."""

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("f2", "close", "Close"),
        Binding("c", "copy", "Copy"),
    ]

    def __init__(self, room: AnyRoom) -> None:
        super().__init__()
        self.room = room
        self.code = room.invite()

    def compose(self) -> ComposeResult:
        """Draw link and picture."""
        title = output.name(self.room.title)
        with Vertical(classes="dialog tall"):
            yield Label(f"Whoever has this reads and writes in '{title}'", classes="title")
            with VerticalScroll(can_focus=True) as scroll:
                scroll.focus()
                yield Static(Text(self.code, overflow="fold"), id="code")
                yield Static(
                    Text(f"\nIn a terminal: muster chat, then /join and the {self._what()}\n")
                )
                yield Static(Text(picture(self.code), style="#ffffff on #000000"), id="qr")
            yield Label("c copies · Escape closes", classes="foot")

    def _what(self) -> str:
        return "link" if "://" in self.code else "code"

    def action_copy(self) -> None:
        """Copy it, by the terminal (OSC 52)."""
        self.app.copy_to_clipboard(self.code)
        self.notify("copied, if your terminal allows it")


def picture(text: str) -> str:
    """Return a QR code (ISO/IEC 18004) in half blocks, dark on light."""
    import segno

    matrix = [
        [0] * 2 + list(row) + [0] * 2 for row in segno.make(text, error="l", micro=False).matrix
    ]
    blank = [0] * len(matrix[0])
    rows = [blank, blank, *matrix, blank, blank]
    rows += [blank] if len(rows) % 2 else []
    drawn = io.StringIO()
    blocks = {(0, 0): "█", (0, 1): "▀", (1, 0): "▄", (1, 1): " "}
    for upper, lower in zip(rows[::2], rows[1::2], strict=True):
        drawn.write("".join(blocks[bool(a), bool(b)] for a, b in zip(upper, lower, strict=True)))
        drawn.write("\n")
    return drawn.getvalue()


class Settings(Dialog):
    """How one is called, where the circle meets, how long texts are kept."""

    BINDINGS: ClassVar[list[BindingType]] = [Binding("f3", "close", "Close")]

    def __init__(self, session: Session) -> None:
        super().__init__()
        self.session = session

    def compose(self) -> ComposeResult:
        """Draw fields and facts."""
        room = self.session.room
        with Vertical(classes="dialog"):
            yield Label("Settings", classes="title")
            yield Label("You are called")
            yield Input(self.session.name, id="name", max_length=64)
            if isinstance(room, Room):
                yield Label("Texts are kept for so many days (0: as long as one likes)")
                yield Input(str(room.talk.facts.days), id="days", type="integer", max_length=4)
                yield Label("Add a service (its whole address)")
                yield Input(placeholder="https://host#id", id="service")
            yield Static(self._facts(), id="facts")
            yield Label("Enter keeps a field · Escape closes", classes="foot")

    def _facts(self) -> Text:
        room = self.session.room
        text = Text("\n")
        if room is None:
            return text
        text.append(f"Circle      {output.name(room.title)}, here '{room.name}'\n")
        text.append(f"Reached     {output.line(room.status)}\n")
        if room.trouble:
            text.append(f"Trouble     {output.line(room.trouble)}\n", style="yellow")
        if isinstance(room, Room):
            for service in room.circle.services:
                state = {
                    url: f"{state} {why}" for url, state, why in self.session.store.states(room.id)
                }
                text.append(
                    f"Service     {service.url}  {output.line(state.get(service.url, ''))}\n"
                )
            text.append(f"Direct      {', '.join(room.peers_shown()) or 'not reached directly'}\n")
            founder = "yes" if room.circle.is_founder else "no"
            text.append(f"Founder     {founder}; epoch {room.circle.epoch.number}\n")
        return text

    @on(Input.Submitted)
    def keep(self, event: Input.Submitted) -> None:
        """Keep what was typed."""
        try:
            if event.input.id == "name":
                self.session.call_me(event.value)
            elif event.input.id == "days":
                self.session.ours.talk.keep_circle(int(event.value or "30"))
            else:
                from muster.cli.circle.opening import service_address

                address, _ = service_address(event.value.strip())
                self.session.ours.circle.file.add_services([address])
                event.input.value = ""
            self.notify("kept")
        except (Hinted, ValueError) as error:
            self.notify(output.line(str(error)), severity="error")
        self.query_one("#facts", Static).update(self._facts())


class Search(Dialog):
    """Messages with some words; the one that is chosen is shown in the log."""

    def __init__(self, room: AnyRoom, channel: bytes, words: str = "") -> None:
        super().__init__()
        self.room, self.channel, self.words = room, channel, words
        self.found: list[Message] = []

    def compose(self) -> ComposeResult:
        """Draw the field and what was found."""
        with Vertical(classes="dialog tall"):
            yield Label("Search in this channel", classes="title")
            yield Input(self.words, placeholder="words", id="words")
            yield OptionList(id="found")
            yield Label("Enter goes there · Escape closes", classes="foot")

    def on_mount(self) -> None:
        """Search for what was given."""
        self.query_one(Input).focus()
        self._search(self.words)

    @on(Input.Changed)
    def typed(self, event: Input.Changed) -> None:
        """Search as it is typed."""
        self._search(event.value)

    @on(Input.Submitted)
    def entered(self) -> None:
        """Go on to what was found."""
        if self.found:
            self.query_one(OptionList).focus()

    @on(OptionList.OptionSelected)
    def chosen(self, event: OptionList.OptionSelected) -> None:
        """Show it."""
        self.dismiss(event.option.id)

    def _search(self, words: str) -> None:
        found = self.room.search(self.channel, words, most=100) if words.strip() else []
        self.found = found[::-1]
        shown = self.query_one(OptionList)
        shown.clear_options()
        for one in self.found:
            at = drawing.instant(one.shown_ms)
            line = Text(f"{at:%Y-%m-%d %H:%M} " if at else "", style="dim")
            line.append(output.name(self.room.author(one)), style="bold")
            line.append(f": {output.line(one.text, most=200)}", style="")
            shown.add_option(Option(line, id=one.hash.hex()))
        if words.strip() and not self.found:
            shown.add_option(Option(Text("nothing found", style="dim"), disabled=True))
        elif self.found:
            shown.highlighted = 0


class Jump(Dialog):
    """A channel of any circle, by its name."""

    def __init__(self, session: Session) -> None:
        super().__init__()
        self.session = session

    def compose(self) -> ComposeResult:
        """Draw the field and the channels."""
        with Vertical(classes="dialog"):
            yield Label("Go to", classes="title")
            yield Input(placeholder="channel or circle")
            yield OptionList()

    def on_mount(self) -> None:
        """Show all."""
        self.query_one(Input).focus()
        self._list("")

    @on(Input.Changed)
    def typed(self, event: Input.Changed) -> None:
        """Show those that fit."""
        self._list(event.value)

    @on(Input.Submitted)
    def entered(self) -> None:
        """Go to the first."""
        shown = self.query_one(OptionList)
        if shown.option_count:
            self.dismiss(shown.get_option_at_index(shown.highlighted or 0).id)

    @on(OptionList.OptionSelected)
    def chosen(self, event: OptionList.OptionSelected) -> None:
        """Go there."""
        self.dismiss(event.option.id)

    def on_key(self, event: object) -> None:
        """Let the arrows move in the list, while the field is typed in."""
        key = getattr(event, "key", "")
        shown = self.query_one(OptionList)
        if key == "down":
            shown.action_cursor_down()
        elif key == "up":
            shown.action_cursor_up()

    def _list(self, typed: str) -> None:
        shown = self.query_one(OptionList)
        shown.clear_options()
        for room in self.session.rooms:
            for place in room.places():
                text = f"{output.name(room.title)} #{output.name(place.name)}"
                if _fuzzy(typed.casefold(), text.casefold()):
                    unread = f"  {place.unread}" if place.unread else ""
                    shown.add_option(
                        Option(Text(text + unread), id=f"{place.id.hex()} {room.name}")
                    )
        if shown.option_count:
            shown.highlighted = 0


def _fuzzy(typed: str, text: str) -> bool:
    letters = iter(text)
    return all(one in letters for one in typed if one != " ")


class Question(ModalScreen[bool]):
    """A question with yes or no."""

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("escape,n", "answer(False)", "No"),
        Binding("y", "answer(True)", "Yes"),
    ]

    def __init__(self, text: str, yes: str = "Yes", no: str = "No") -> None:
        super().__init__()
        self.text, self.yes, self.no = text, yes, no

    def compose(self) -> ComposeResult:
        """Draw it."""
        with Vertical(classes="dialog small"):
            yield Label(Text(self.text), classes="title")
            with Horizontal(classes="buttons"):
                yield Button(self.yes, variant="primary", id="yes")
                yield Button(self.no, id="no")

    @on(Button.Pressed)
    def pressed(self, event: Button.Pressed) -> None:
        """Answer."""
        self.dismiss(event.button.id == "yes")

    def action_answer(self, yes: bool) -> None:
        """Answer."""
        self.dismiss(yes)


class Reader(Dialog):
    """One message, the whole of it."""

    def __init__(self, room: AnyRoom, message: Message) -> None:
        super().__init__()
        self.room, self.message = room, message

    def compose(self) -> ComposeResult:
        """Draw it."""
        one = self.message
        at = drawing.instant(one.shown_ms)
        who = output.name(self.room.author(one))
        facts = [f"{at:%Y-%m-%d %H:%M:%S}" if at else "some time"]
        facts += [f"key {one.author.hex()[:6]}", f"message ^{one.hash.hex()[:4]}"]
        facts += [self.room.fate(one)] if self.room.is_mine(one) else []
        with Vertical(classes="dialog tall"):
            yield Label(Text(f"{who}, {', '.join(facts)}"), classes="title")
            with VerticalScroll(can_focus=True) as scroll:
                scroll.focus()
                yield Static(Text(output.clean(one.text, most=400_000)))
            yield Label("Escape closes", classes="foot")


class Wizard(ModalScreen[None]):
    """The first visit: a name, then a circle of one's own or somebody's link."""

    BINDINGS: ClassVar[list[BindingType]] = [Binding("ctrl+q", "app.quit", "End")]

    def __init__(self, session: Session) -> None:
        super().__init__()
        self.session = session

    def compose(self) -> ComposeResult:
        """Draw the fields."""
        with Vertical(classes="dialog"):
            yield Label("Welcome to Muster", classes="title")
            yield Static(
                Text(
                    "A circle is a few people who talk without a company in the middle.\n"
                    "Paste the link that a friend gave you, or make a circle of your own."
                )
            )
            yield Label("You are called")
            yield Input(self.session.known_as, id="name")
            yield Label("A link or code")
            yield Input(placeholder="https://…/app/#muster2.…", id="link")
            yield Label("or a circle of your own, called")
            yield Input(placeholder="friends", id="new")
            yield Static("", id="will")
            yield Static("", id="problem")
            with Horizontal(classes="buttons"):
                yield Button("Join", variant="primary", id="join")
                yield Button("Make it", id="make")

    def on_mount(self) -> None:
        """Begin with the name."""
        self.query_one("#name", Input).focus()

    @on(Input.Changed)
    def changed(self, event: Input.Changed) -> None:
        """Put a link where it belongs, wherever it was pasted, and say what Enter does."""
        if event.input.id != "link" and is_link(event.value):
            self.query_one("#link", Input).value = event.value.strip()
            event.input.value = self.session.known_as if event.input.id == "name" else ""
        self.query_one("#will", Static).update(Text(self._will()))

    @on(DescendantFocus)
    def moved(self) -> None:
        """Say what Enter does here."""
        self.query_one("#will", Static).update(Text(self._will()))

    def _will(self) -> str:
        """Return what Enter does now, in a sentence."""
        name, link, new = (self._typed(one) for one in ("name", "link", "new"))
        who = f", as {output.name(name)}" if name else ""
        at = getattr(self.focused, "id", "")
        if at == "name" or (at == "link" and not link):
            return "Enter goes on to the next field."
        if at in ("link", "join"):
            return f"Enter joins{self.session.told_by(link)}{who}."
        if new:
            return f"Enter makes a circle '{output.name(new)}'{who}."
        return "A circle of your own wants a name."

    def _typed(self, field: str) -> str:
        return " ".join(self.query_one(f"#{field}", Input).value.split())

    @on(Input.Submitted, "#name")
    def named(self) -> None:
        """Go on to the link."""
        self.query_one("#link", Input).focus()

    @on(Input.Submitted, "#link")
    @on(Button.Pressed, "#join")
    def join(self) -> None:
        """Join by the link; where there is none, go on."""
        if not self._typed("link") and not isinstance(self.focused, Button):
            self.query_one("#new", Input).focus()
            return
        self._do(lambda: self.session.join(self._typed("link")))

    @on(Input.Submitted, "#new")
    @on(Button.Pressed, "#make")
    def make(self) -> None:
        """Make a circle."""
        self._do(lambda: self.session.make(self._new()))

    def _new(self) -> str:
        new = self._typed("new")
        if not new or len(new.encode(errors="replace")) > NAME_BYTES:
            raise BadValue(f"a circle's name has 1 to {NAME_BYTES} bytes", "type one")
        return new

    def _do(self, work: Callable[[], object]) -> None:
        try:
            self.session.call_me(self._typed("name"))
            work()
        except Hinted as error:
            text = Text(output.line(str(error)), style="bold red")
            self.query_one("#problem", Static).update(text)
        else:
            self.dismiss(None)


def is_link(text: str) -> bool:
    """Say whether a text is an invite, or means to be one."""
    return any(one in text for one in (PREFIX, FELUND_PREFIX))
