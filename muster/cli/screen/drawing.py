"""Drawing: messages, people and places as lines; what others wrote is cleaned here."""

from __future__ import annotations

import re
from collections.abc import Iterable
from datetime import datetime

from rich.cells import cell_len
from rich.text import Text

from muster.chat.room import AnyRoom, Place, Someone, Waiting
from muster.chat.store import Message
from muster.cli import output
from muster.cli.screen import looks

MOST_CELLS = 2000
"""How much of a text is shown in the log; the whole is read by Enter on it."""

INDENT = " " * 6
"""Before all lines of a message but the first."""

_PIECES = re.compile(r"\n|[^\S\n]+|\S+")

MOST_REACTIONS = 8
SNIPPET = 60

COLOURS = (
    "cyan",
    "green",
    "yellow",
    "magenta",
    "bright_blue",
    "bright_red",
    "bright_cyan",
    "orange3",
)
MARKS = {"tcp": "●", "webrtc": "●", "relay": "◐", "none": "○"}
"""How somebody is reached: directly, by the service, not."""

LOCKS = {"key": "⚿", "invite": "⚑"}


def colour(member: bytes) -> str:
    """Return the colour of a member: the same everywhere."""
    return COLOURS[member[0] % len(COLOURS)]


def instant(at_ms: int) -> datetime | None:
    """Return a time of this place's clock, if it can be one."""
    try:
        return datetime.fromtimestamp(at_ms / 1000).astimezone()
    except (OverflowError, ValueError, OSError):
        return None


def day(at_ms: int) -> str:
    """Return the day of a message."""
    found = instant(at_ms)
    return f"{found:%A, %Y-%m-%d}" if found else "some day"


def message(
    one: Message, room: AnyRoom, names: dict[bytes, str], *, mentions: str = "", width: int = 0
) -> Text:
    """Return a message as it stands in the log, its lines broken here at *width* cells."""
    found = instant(one.shown_ms)
    who = names.get(room.person_of(one.author)) or output.name(room.author(one))
    mine = room.is_mine(one)
    mentioned = mentions and mentions.casefold() in one.text.casefold() and not mine
    parts = []
    if one.reply is not None:
        parts.append((f"{INDENT}↪ {_snippet(room, one.reply, names)}", "dim italic"))
        parts.append(("\n", "start"))
    parts += [
        (f"{found:%H:%M} " if found else "--:-- ", "dim"),
        (who, f"bold {colour(room.person_of(one.author))}"),
        (": ", ""),
        (output.clean(one.text, most=MOST_CELLS), "bold reverse" if mentioned else ""),
    ]
    if one.edited:
        parts.append((" (edited)", "dim"))
    if mine:
        parts.append((f"  {fate(room.fate(one))}", "dim"))
    if one.reactions:
        shown = list(one.reactions.items())[:MOST_REACTIONS]
        more = len(one.reactions) - len(shown)
        line = "  ".join(f"{output.name(emoji, most=8)} {len(by)}" for emoji, by in shown)
        parts.append((f"\n{line}{f'  +{more}' if more else ''}", "dim"))
    return flow(parts, width=width)


def flow(parts: Iterable[tuple[str, str]], *, width: int) -> Text:
    """Break texts into lines, all but the first of them indented.

    A text with the right number of blanks in it would begin a line like one of ours otherwise.
    """
    drawn, used = Text(), 0
    for text, style in parts:
        if style == "start":
            drawn.append("\n")
            used = 0
            continue
        for piece in _PIECES.findall(text):
            cells = cell_len(piece)
            if piece == "\n" or (width and used + cells > width):
                if piece != "\n" and piece.isspace():
                    continue
                drawn.append(f"\n{INDENT}")
                used = len(INDENT)
                if piece == "\n":
                    continue
            if width and cells > width - len(INDENT):
                for character in piece:  # a word longer than a line
                    if used + cell_len(character) > width:
                        drawn.append(f"\n{INDENT}")
                        used = len(INDENT)
                    drawn.append(character, style=style)
                    used += cell_len(character)
                continue
            drawn.append(piece, style=style)
            used += cells
    return drawn


def fate(told: str) -> str:
    """Return where a message is by now, with a mark."""
    if "directly" in told:
        return f"⇄ {told}"
    return f"✓ {told}" if "left" in told else f"… {told}"


def _snippet(room: AnyRoom, hashed: bytes, names: dict[bytes, str]) -> str:
    found = room.message(hashed)
    if found is None:
        return "a message that is not here"
    who = names.get(room.person_of(found.author)) or output.name(room.author(found))
    said = "deleted" if found.deleted else output.line(found.text, most=SNIPPET)
    return f"{who}: {said}"


def waiting(one: Waiting, called: str, *, width: int = 0) -> Text:
    """Return a text that was not said so far."""
    text = output.clean(one.text, most=MOST_CELLS)
    return flow([(f"  …   {output.name(called)}: {text}  (on its way)", "dim")], width=width)


def divider(text: str, *, style: str = "dim") -> Text:
    """Return a line between messages."""
    return Text(f"── {text} ──", style=style, justify="center")


def place(one: Place, *, shown: bool) -> Text:
    """Return a channel as the list shows it."""
    drawn = Text("  ")
    mark = LOCKS.get(one.mode, "#")
    style = "bold reverse" if shown else ("bold" if one.unread else ("" if one.joined else "dim"))
    drawn.append(f"{mark}{output.name(one.name, most=18)}", style=style)
    if one.call:
        drawn.append(" ☎", style="green")
    if one.unread and not shown:
        drawn.append(f" {one.unread if one.unread < 1000 else '999+'}", style="bold yellow")
    return drawn


def person(one: Someone, names: dict[bytes, str]) -> Text:
    """Return a person as the list shows it."""
    drawn = Text()
    mark = MARKS[one.path] if not one.me else "●"
    drawn.append(f"{mark} ", style="green" if one.here else "dim")
    drawn.append(names[one.id], style=colour(one.id) if one.here else "dim")
    if one.me:
        drawn.append(" (you)", style="dim")
    return drawn


def everybody(room: AnyRoom) -> tuple[list[Someone], dict[bytes, str]]:
    """Return the people of a circle, and how each is shown."""
    people = room.people()
    return people, looks.names(people)
