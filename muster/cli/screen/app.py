"""The screen: circles and channels, the log, who is here, and a line to write in.

It shows what a session has, and asks it again when something has changed; the log holds a window of
messages, and reads older or newer ones as it is moved.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import suppress
from itertools import islice
from typing import ClassVar

from rich.text import Text
from textual import events, on
from textual.app import App, ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Horizontal, Vertical
from textual.message import Message as Told
from textual.widgets import OptionList, Static, TextArea
from textual.widgets.option_list import Option

from muster.chat.room import AnyRoom
from muster.chat.store import Message
from muster.cli import output
from muster.cli.screen import commands, dialogs, drawing
from muster.cli.screen.session import Session
from muster.errors import Hinted

LOOK_S = 5.0
"""How often all is drawn again, though nothing seems to have changed: calls end by time."""

WINDOW = 300
"""How many messages the log holds at the most."""

STEP = 100
NARROW, WIDE = 60, 100
"""Below the first the channels are hidden, below the second who is here."""

LARGE_CHARACTERS, LARGE_LINES = 4000, 10
"""A paste that is larger is asked about."""

PART_CHARACTERS = 60_000
"""So much of a large paste goes into one message: services take no more in any script."""

MOST_WAITING = 20
"""How many texts that were not said so far are shown."""

MOST_KEPT = 200

MOST_RUNG = 5
"""For how many messages of a circle that have come at once it rings."""


class Log(OptionList, can_focus=True):
    """A window of a channel's messages; a line of it can be chosen."""

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("r", "act('reply')", "Reply"),
        Binding("e", "act('edit')", "Edit"),
        Binding("d", "act('delete')", "Delete"),
        Binding("plus", "act('react')", "React"),
        Binding("end", "newest", "Newest", show=False),
    ]

    class Act(Told):
        """Something is to be done with a message."""

        def __init__(self, verb: str, hashed: str) -> None:
            super().__init__()
            self.verb, self.hashed = verb, hashed

    class Edge(Told):
        """The window's end was reached: there may be more."""

        def __init__(self, older: bool) -> None:
            super().__init__()
            self.older = older

    @property
    def chosen(self) -> str:
        """The hash of the message that is chosen."""
        if self.highlighted is None:
            return ""
        return (self.get_option_at_index(self.highlighted).id or "").removeprefix("m")

    @property
    def at_end(self) -> bool:
        """Whether the newest line is shown."""
        return self.max_scroll_y - self.scroll_offset.y <= 1

    def action_act(self, verb: str) -> None:
        """Do something with the chosen message."""
        if self.chosen:
            self.post_message(self.Act(verb, self.chosen))

    def action_newest(self) -> None:
        """Show the newest messages."""
        self.post_message(self.Edge(older=False))
        self.scroll_end(animate=False)

    def action_cursor_up(self) -> None:
        """Move up; at the top, ask for what is older."""
        first = self.highlighted in (None, *self._first())
        super().action_cursor_up()
        if first:
            self.post_message(self.Edge(older=True))

    def _first(self) -> list[int]:
        for number in range(self.option_count):
            if not self.get_option_at_index(number).disabled:
                return [number]
        return []

    def _on_mouse_scroll_up(self, event: events.MouseScrollUp) -> None:
        """Ask for what is older, at the top."""
        if self.scroll_offset.y <= 0:
            self.post_message(self.Edge(older=True))
        super()._on_mouse_scroll_up(event)

    def _on_mouse_scroll_down(self, event: events.MouseScrollDown) -> None:
        """Ask for what is newer, at the end."""
        if self.at_end:
            self.post_message(self.Edge(older=False))
        super()._on_mouse_scroll_down(event)


class Composer(TextArea):
    """Where one writes: Enter sends, Alt-Enter begins a line, arrows recall what was written."""

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("alt+enter,ctrl+j", "line", "New line", show=False),
        Binding("ctrl+r", "recall", "Recall", show=False),
    ]

    class Sent(Told):
        """A line was finished."""

        def __init__(self, text: str) -> None:
            super().__init__()
            self.text = text

    class Pasted(Told):
        """Something large was pasted."""

        def __init__(self, text: str) -> None:
            super().__init__()
            self.text = text

    class Completing(Told):
        """Tab was pressed."""

    def __init__(self) -> None:
        super().__init__(id="composer", soft_wrap=True, tab_behavior="focus", compact=True)
        self.written: list[str] = []
        self._back = 0
        self._draft = ""
        self.candidates: list[str] = []

    def action_line(self) -> None:
        """Begin another line."""
        self.insert("\n")

    def action_recall(self) -> None:
        """Find the last thing written that contains what stands here."""
        typed = self.text.strip()
        for text in reversed(self.written):
            if typed in text and text != typed:
                self.put(text)
                return

    async def _on_key(self, event: events.Key) -> None:
        if event.key == "enter":
            event.prevent_default()
            event.stop()
            self.post_message(self.Sent(self.text))
            return
        if event.key == "tab":
            event.prevent_default()
            event.stop()
            self.post_message(self.Completing())
            return
        self.candidates = []
        if event.key == "up" and self.cursor_location[0] == 0 and self._step(1):
            event.prevent_default()
            event.stop()
            return
        last = self.document.line_count - 1
        if event.key == "down" and self.cursor_location[0] == last and self._step(-1):
            event.prevent_default()
            event.stop()
            return
        await super()._on_key(event)

    async def _on_paste(self, event: events.Paste) -> None:
        lines = event.text.count("\n")
        if len(event.text) > LARGE_CHARACTERS or lines > LARGE_LINES:
            event.prevent_default()
            event.stop()
            self.post_message(self.Pasted(event.text))
            return
        await super()._on_paste(event)

    def remember(self, text: str) -> None:
        """Keep what was written."""
        before = [one for one in self.written if one != text]
        self.written = [*before[-MOST_KEPT:], text]
        self._back = 0

    def put(self, text: str) -> None:
        """Let this stand here, the cursor after it."""
        self.text = text
        self.move_cursor(self.document.end)

    def _step(self, by: int) -> bool:
        place = self._back + by
        if not 0 <= place <= len(self.written) or place == self._back:
            return False
        if self._back == 0:
            self._draft = self.text
        self._back = place
        self.put(self._draft if place == 0 else self.written[-place])
        return True


class ChatApp(App[None]):
    """The chat on a screen."""

    TITLE = "Muster"
    CSS_PATH = "chat.tcss"
    ENABLE_COMMAND_PALETTE = False
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("f1", "help", "Help", priority=True),
        Binding("f2", "invite", "Invite", priority=True),
        Binding("f3", "settings", "Settings", priority=True),
        Binding("ctrl+f", "search", "Search", priority=True),
        Binding("ctrl+k", "jump", "Go to", priority=True),
        Binding("f5", "people", "People", priority=True),
        Binding("f6", "mouse", "Mouse", show=False, priority=True),
        Binding("ctrl+q", "quit", "End", priority=True),
        Binding("alt+up", "next_place(-1)", show=False, priority=True),
        Binding("alt+down", "next_place(1)", show=False, priority=True),
        Binding("alt+a", "unread", show=False, priority=True),
        Binding("alt+u", "first_unread", show=False, priority=True),
        Binding("pageup", "page(-1)", show=False, priority=True),
        Binding("pagedown", "page(1)", show=False, priority=True),
        Binding("shift+up", "log", show=False, priority=True),
        Binding("escape", "write", show=False),
    ]

    def __init__(self, session: Session) -> None:
        super().__init__()
        self.session = session
        self._dirty = asyncio.Event()
        self._window: list[Message] = []
        self._newest = True
        self._shown: tuple[str, bytes] | None = None
        self._mark = 0
        self._people_wanted: bool | None = None
        self._seen = session.store.newest()
        self._replying: Message | None = None
        self._said: list[Text] = []
        self._names: dict[bytes, str] = {}
        self._without_mouse = False
        self._drawn: list[tuple[str | None, str]] = []

    # --- drawing --------------------------------------------------------------------------

    def compose(self) -> ComposeResult:
        """Lay it out."""
        yield Static(id="head")
        with Horizontal(id="middle"):
            yield OptionList(id="places")
            with Vertical(id="talk"):
                yield Log(id="log")
                yield Static(id="answer")
            yield Static(id="people")
        yield Static(id="about")
        yield Composer()
        yield Static(id="foot")

    async def on_mount(self) -> None:
        """Begin: connect the circles, and redraw when something changes."""
        self.session.changed = self._changed
        self.session.heard = self._heard
        await self.session.profile.__aenter__()
        self.run_worker(self._redraw(), exclusive=True, group="redraw")
        self.set_interval(LOOK_S, self._changed)
        self.query_one(Composer).focus()
        for trouble in self.session.troubles:
            self._answer((output.line(trouble),), style="bold red")
        if self.session.room is None and not self.session.troubles:
            self.push_screen(dialogs.Wizard(self.session), lambda _: self._changed())

    async def on_unmount(self) -> None:
        """End: say goodbye to the circles."""
        await self.session.profile.__aexit__()

    def _heard(self, line: str) -> None:
        """Show what happens underneath, among the answers."""
        self._said = [*self._said[-MOST_KEPT:], Text(f"  {output.line(line)}", style="dim")]
        self._changed()

    def _changed(self) -> None:
        self._dirty.set()

    async def _redraw(self) -> None:
        while True:
            await self._dirty.wait()
            self._dirty.clear()
            with suppress(Hinted):
                self._draw()
            await asyncio.sleep(0.05)

    def on_resize(self, event: events.Resize) -> None:
        """Hide what has no room."""
        self._fit(event.size.width)

    def _fit(self, width: int) -> None:
        people = self._people_wanted if self._people_wanted is not None else width >= WIDE
        self.query_one("#people").display = people
        self.query_one("#places").display = width >= NARROW
        self._changed()

    def _draw(self) -> None:
        if not self.query("#log"):
            return
        room = self.session.room
        self._draw_head(room)
        self._draw_places()
        if room is None:
            return
        people, names = drawing.everybody(room)
        self._names = names
        drawn = Text("Who is here\n", style="bold")
        for one in people[:200]:
            drawn.append_text(drawing.person(one, names))
            drawn.append("\n")
        self.query_one("#people", Static).update(drawn)
        self._draw_log(room, names)
        self._ring(room)

    def _draw_head(self, room: AnyRoom | None) -> None:
        head = Text(" muster", style="bold")
        if room is not None:
            place = self.session.place
            head.append(f" · {output.name(room.title)}", style="bold")
            head.append(f" · #{output.name(place.name)}")
            if place.topic:
                head.append(f" — {output.line(place.topic, most=60)}", style="italic")
            if place.call:
                head.append(" · ☎ a call is on; the app can join it", style="bold green")
            head.append(f" · {output.line(room.status, most=100)}", style="dim")
            if room.trouble:
                head.append(f" · {output.line(room.trouble, most=60)}", style="yellow")
        self.query_one("#head", Static).update(head)
        foot = Text(" F1 Help  F2 Invite  F3 Settings  ^F Search  ^K Go to  ^Q End", style="dim")
        self.query_one("#foot", Static).update(foot)

    def _draw_places(self) -> None:
        shown = self.query_one("#places", OptionList)
        options: list[Option] = []
        for room in self.session.rooms:
            title = Text("● " if room is self.session.room else "○ ", style="bold")
            title.append(output.name(room.title, most=18), style="bold")
            options.append(Option(title, id=f"title {bytes(16).hex()} {room.name}"))
            for place in room.places():
                here = room is self.session.room and place.id == self.session.channel
                options.append(
                    Option(drawing.place(place, shown=here), id=f"{place.id.hex()} {room.name}")
                )
        before = [str(shown.get_option_at_index(one).prompt) for one in range(shown.option_count)]
        if before != [str(one.prompt) for one in options] or not before:
            at = shown.highlighted
            shown.clear_options()
            shown.add_options(options)
            shown.highlighted = at if at is not None and at < len(options) else None

    def _draw_log(self, room: AnyRoom, names: dict[bytes, str]) -> None:
        log = self.query_one("#log", Log)
        here = (room.name, self.session.channel)
        moved = here != self._shown
        if moved:
            self._shown, self._newest = here, True
            self._mark = room.mark(self.session.channel)
            self._said.clear()
        follow = moved or (self._newest and log.at_end)
        if self._newest:
            self._window = room.page(
                self.session.channel, most=min(max(len(self._window), STEP), WINDOW)
            )
        else:
            self._window = [
                fresh
                for one in self._window
                if (fresh := room.message(one.hash)) and not fresh.deleted
            ]
        self._fill(log, room, names)
        if follow:
            self.call_after_refresh(log.scroll_end, animate=False)
            if self._window and self.screen is self.screen_stack[0] and self.app_focus:
                room.read(self.session.channel, max(one.id for one in self._window))

    def _fill(self, log: Log, room: AnyRoom, names: dict[bytes, str]) -> None:
        options: list[Option] = []
        before_day, unread = "", False
        width = max(log.scrollable_content_region.width - 2, 20)
        for one in self._window:
            day = drawing.day(one.shown_ms)
            if day != before_day:
                options.append(Option(drawing.divider(day), disabled=True))
                before_day = day
            if not unread and one.id > self._mark > 0 and not room.is_mine(one):
                unread = True
                options.append(Option(drawing.divider("not read", style="yellow"), id="unread"))
            drawn = drawing.message(one, room, names, mentions=self.session.name, width=width)
            options.append(Option(drawn, id=f"m{one.hash.hex()}"))
        if self._newest:
            options += [
                Option(drawing.waiting(one, self.session.name, width=width), disabled=True)
                for one in room.waiting(self.session.channel)[:MOST_WAITING]
            ]
            options += [Option(line, disabled=True) for line in self._said]
        if not options:
            welcome = "Nothing was said here so far. F2 shows what lets somebody in."
            options.append(Option(Text(welcome, style="dim"), disabled=True))
        plain = [(one.id, str(one.prompt)) for one in options]
        if plain == self._drawn:
            return
        self._drawn = plain
        chosen, offset = log.chosen, log.scroll_offset.y
        log.clear_options()
        log.add_options(options)
        if chosen:
            with suppress(Exception):
                log.highlighted = log.get_option_index(f"m{chosen}")
        log.scroll_to(y=offset, animate=False)

    def _ring(self, room: AnyRoom) -> None:
        """Ring for what was said to this person elsewhere, or while nobody looks."""
        newest = self.session.store.newest()
        if newest <= self._seen:
            return
        for other in self.session.rooms:
            for one in islice(other.since(self._seen, until=newest), MOST_RUNG):
                if other.is_mine(one) or self.session.name.casefold() not in one.text.casefold():
                    continue
                if other is not room or one.channel != self.session.channel or not self.app_focus:
                    who, text = output.name(other.author(one)), output.line(one.text, most=80)
                    self.notify(f"{who}: {text}", title=output.name(other.title), markup=False)
                    self.bell()
        self._seen = newest

    # --- writing --------------------------------------------------------------------------

    @on(Composer.Sent)
    async def sent(self, told: Composer.Sent) -> None:
        """Do or say what was written."""
        composer, text = self.query_one(Composer), told.text
        if not text.strip():
            return
        try:
            if self._replying is not None and not text.startswith("/"):
                self.session.here.say(text, channel=self.session.channel, reply=self._replying)
                answer = commands.Answer()
            else:
                answer = await commands.run(self.session, text)
        except Hinted as error:
            self._answer(commands.problem(error), style="yellow")
            return  # what was typed stays
        composer.remember(text)
        composer.put("")
        self._about(None)
        self._newest = True
        self._answer(answer.lines)
        self._show(answer)
        self._changed()

    def _show(self, answer: commands.Answer) -> None:
        match answer.show:
            case "help":
                self.action_help()
            case "invite":
                self.action_invite()
            case "settings":
                self.action_settings()
            case "search":
                self._search(answer.about)
            case "quit":
                self.exit()
            case "debug":
                shown = "shown" if self.session.debugs else "hidden"
                self._answer((f"what happens underneath is {shown}",))
            case _:
                pass

    def _answer(self, lines: tuple[str, ...], *, style: str = "") -> None:
        """Show what a command has to say, above the line; long answers in the log."""
        drawn = Text("\n".join(lines), style=style)
        if len(lines) > 4:
            self._said += [Text(f"  {line}", style=style or "cyan") for line in lines]
            drawn = Text("")
        self.query_one("#answer", Static).update(drawn)
        self.query_one("#answer").display = bool(drawn.plain)
        self._changed()

    @on(Composer.Completing)
    def completing(self) -> None:
        """Complete what stands before the cursor, or show how it could go on."""
        composer = self.query_one(Composer)
        if composer.candidates:
            composer.candidates = composer.candidates[1:] + composer.candidates[:1]
            composer.put(composer.candidates[0])
            return
        found = commands.complete(self.session, composer.text)
        if len(found) == 1:
            composer.put(found[0])
        elif found:
            common = _common(found)
            if len(common) > len(composer.text):
                composer.put(common)
            else:
                composer.candidates = [found[-1], *found[:-1]]
            self._answer(
                ("  ".join(one.strip().rpartition("\n")[2] for one in found[:30]),), style="dim"
            )

    @on(Composer.Pasted)
    def pasted(self, told: Composer.Pasted) -> None:
        """Ask what to do with something large."""
        parts = _parts(told.text)
        lines = told.text.count("\n") + 1
        size = f"{len(told.text.encode(errors='replace')):,} bytes in {lines:,} lines"
        how = "one message" if len(parts) == 1 else f"{len(parts)} messages"

        def answered(yes: bool | None) -> None:
            if yes:
                self._send_parts(parts)

        self.push_screen(
            dialogs.Question(f"Send what was pasted, {size}, as {how}?", "Send", "No"), answered
        )

    def _send_parts(self, parts: list[str]) -> None:
        try:
            for part in parts:
                self.session.here.say(part, channel=self.session.channel)
        except Hinted as error:
            self._answer(commands.problem(error), style="yellow")
        self._changed()

    def _about(self, message: Message | None) -> None:
        """Show which message is answered."""
        self._replying = message
        about = self.query_one("#about", Static)
        about.display = message is not None
        if message is not None:
            who = output.name(self.session.here.author(message))
            about.update(Text(f" ↪ {who}: {output.line(message.text, most=60)}  (Escape: no)"))

    # --- the log --------------------------------------------------------------------------

    @on(Log.Act)
    async def act(self, told: Log.Act) -> None:
        """Reply to, edit, delete or react to the chosen message."""
        room, composer = self.session.here, self.query_one(Composer)
        message = room.message(bytes.fromhex(told.hashed))
        if message is None:
            return
        key = f"^{message.hash.hex()[:8]}"
        if told.verb == "reply":
            self._about(message)
        elif told.verb == "edit":
            composer.put(f"/edit {key} {message.text}")
        elif told.verb == "react":
            composer.put(f"/react {key} ")
        else:
            composer.put(f"/delete {key}")
        composer.focus()

    @on(OptionList.OptionSelected, "#log")
    def read_whole(self, event: OptionList.OptionSelected) -> None:
        """Show the whole of a message."""
        hashed = (event.option.id or "").removeprefix("m")
        if len(hashed) == 64:
            message = self.session.here.message(bytes.fromhex(hashed))
            if message is not None:
                self.push_screen(dialogs.Reader(self.session.here, message))

    @on(OptionList.OptionSelected, "#places")
    def go(self, event: OptionList.OptionSelected) -> None:
        """Show a channel."""
        self._go(event.option.id)

    def _go(self, where: str | None) -> None:
        if where:
            channel, _, name = where.removeprefix("title ").partition(" ")
            self.session.go(self.session.profile.rooms[name], bytes.fromhex(channel))
            self._about(None)
            self.query_one(Composer).focus()

    @on(Log.Edge)
    def edge(self, told: Log.Edge) -> None:
        """Read older or newer messages into the window."""
        if not self._window or self.session.room is None:
            return
        room, channel, log = self.session.here, self.session.channel, self.query_one("#log", Log)
        if told.older:
            first = self._window[0]
            older = room.page(channel, before=(first.shown_ms, first.hash), most=STEP)
            if not older:
                return
            self._window = (older + self._window)[:WINDOW]
            self._newest = self._newest and len(self._window) < WINDOW
            at = first.hash.hex()
        else:
            last = self._window[-1]
            newer = room.page(channel, after=(last.shown_ms, last.hash), most=STEP)
            self._window = (self._window + newer)[-WINDOW:]
            self._newest = len(newer) < STEP
            at = last.hash.hex()
            if not newer:
                self._changed()
                return
        self._fill(log, room, self._names)
        self._scroll_to(at, top=told.older)

    def _scroll_to(self, hashed: str, *, top: bool) -> None:
        log = self.query_one("#log", Log)
        with suppress(Exception):
            log.highlighted = log.get_option_index(f"m{hashed}")
        self.call_after_refresh(log.scroll_to_highlight, top=top)

    def _search(self, words: str) -> None:
        if self.session.room is None:
            return

        def chosen(hashed: str | None) -> None:
            if hashed:
                self.show_message(bytes.fromhex(hashed))

        self.push_screen(dialogs.Search(self.session.here, self.session.channel, words), chosen)

    def show_message(self, hashed: bytes) -> None:
        """Show a message in the log, with what stands around it."""
        room, channel = self.session.here, self.session.channel
        message = room.message(hashed)
        if message is None:
            return
        at = (message.shown_ms, message.hash)
        before = room.page(channel, before=at, most=STEP)
        after = room.page(channel, after=at, most=STEP)
        self._window, self._newest = [*before, message, *after], len(after) < STEP
        self._fill(self.query_one("#log", Log), room, self._names)
        self._scroll_to(hashed.hex(), top=True)
        self.query_one("#log", Log).focus()

    # --- keys -----------------------------------------------------------------------------

    def action_help(self) -> None:
        """Show all keys and commands."""
        self._over(dialogs.Help)

    def action_invite(self) -> None:
        """Show what lets somebody in."""
        if self.session.room is not None:
            self._over(lambda: dialogs.InviteDialog(self.session.here))

    def action_settings(self) -> None:
        """Show the settings."""
        self._over(lambda: dialogs.Settings(self.session))

    def action_search(self) -> None:
        """Search in this channel."""
        if len(self.screen_stack) == 1:
            self._search("")

    def action_jump(self) -> None:
        """Go to a channel by its name."""
        if len(self.screen_stack) == 1:
            self.push_screen(dialogs.Jump(self.session), self._go)

    def _over(self, make: Callable[[], dialogs.Dialog]) -> None:
        """Lay a dialog over the chat, or take it away again."""
        if len(self.screen_stack) > 1:
            if isinstance(self.screen, dialogs.Dialog):
                self.screen.dismiss(None)
            return
        self.push_screen(make())

    def action_people(self) -> None:
        """Show who is here, or hide it."""
        self._people_wanted = not self.query_one("#people").display
        self._fit(self.size.width)

    def action_mouse(self) -> None:
        """Leave the mouse to the terminal, or take it."""
        driver = self._driver
        switch = getattr(driver, "_disable_mouse_support", None)
        if switch is not None and not self._without_mouse:
            switch()
            self._without_mouse = True
            self.notify("the mouse is the terminal's: select and copy; F6 takes it again")
        elif (back := getattr(driver, "_enable_mouse_support", None)) is not None:
            back()
            self._without_mouse = False

    def action_next_place(self, by: int) -> None:
        """Go to the channel above or below."""
        order = [(room, place.id) for room in self.session.rooms for place in room.places()]
        here = (self.session.room, self.session.channel)
        if order:
            at = next((n for n, one in enumerate(order) if one == here), 0)
            self.session.go(*order[(at + by) % len(order)])

    def action_unread(self) -> None:
        """Go to the next channel with something unread."""
        for room in self.session.rooms:
            for place in room.places():
                here = room is self.session.room and place.id == self.session.channel
                if place.unread and not here:
                    self.session.go(room, place.id)
                    return
        self.notify("everything was read")

    def action_first_unread(self) -> None:
        """Show the first message that was not read."""
        room = self.session.room
        if room is None:
            return
        for one in self._window:
            if one.id > self._mark and not room.is_mine(one):
                self._scroll_to(one.hash.hex(), top=True)
                return

    def action_page(self, by: int) -> None:
        """Move the log, or what lies over it, by a page."""
        if len(self.screen_stack) > 1:
            for one in self.screen.query("VerticalScroll, OptionList"):
                one.scroll_page_down() if by > 0 else one.scroll_page_up()
            return
        log = self.query_one("#log", Log)
        if by < 0 and log.scroll_offset.y <= 0:
            log.post_message(Log.Edge(older=True))
        elif by > 0 and log.at_end:
            log.post_message(Log.Edge(older=False))
        elif by < 0:
            log.scroll_page_up(animate=False)
        else:
            log.scroll_page_down(animate=False)

    def action_log(self) -> None:
        """Go into the log, to choose a message."""
        if len(self.screen_stack) > 1:
            return
        log = self.query_one("#log", Log)
        log.focus()
        if log.option_count:
            log.action_last()

    def action_write(self) -> None:
        """Go back to what is written."""
        self._about(None)
        self.query_one("#answer").display = False
        self.query_one(Composer).focus()


def _common(texts: list[str]) -> str:
    """Return what several texts begin with."""
    first, last = min(texts), max(texts)
    same = next((at for at, one in enumerate(first) if one != last[at : at + 1]), len(first))
    return first[:same]


def _parts(text: str) -> list[str]:
    """Cut a large text into messages, between lines where that is near."""
    parts = []
    while len(text) > PART_CHARACTERS:
        cut = text.rfind("\n", PART_CHARACTERS // 2, PART_CHARACTERS)
        cut = PART_CHARACTERS if cut < 0 else cut + 1
        parts.append(text[:cut])
        text = text[cut:]
    return [*parts, text] if text.strip() else parts
