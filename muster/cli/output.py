"""Output: what people read, what programs read, and how a failure is said in one line."""

from __future__ import annotations

import json
import sys
import time
import unicodedata
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, TextIO

from muster.errors import Hinted

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table

OK, FAILED, USAGE = 0, 1, 2

_YEAR_9999 = 253_402_300_799


class Failure(Hinted):
    """Something that did not work, and what to do about it."""

    exit_code = FAILED


class Misuse(Failure):
    """The command was not called as it wants to be."""

    exit_code = USAGE


def complain(failure: Failure) -> int:
    """Say what went wrong, on one line; return the exit code."""
    say(f"muster: {failure}")
    return failure.exit_code


def say(text: str, *, stream: TextIO | None = None) -> None:
    """Tell a person something that is not the data they asked for."""
    print(_encodable(clean(text), stream or sys.stderr), file=stream or sys.stderr, flush=True)


def show(text: str) -> None:
    """Print text, other people's included, at once."""
    print(_encodable(text, sys.stdout), flush=True)


def show_facts(told: Mapping[str, Any]) -> None:
    """Print names and values, a line each; instants as people read them."""
    width = max(len(name) for name in told) + 2
    for name, value in told.items():
        values = value if isinstance(value, list | tuple) else [value]
        for place, one in enumerate(values or ["none"]):
            label = name.replace("_", " ") if place == 0 else ""
            show(f"{label:<{width}}{clean(_said(name, one))}")


def dump(value: Any) -> None:
    """Print a value as one line of JSON, at once."""
    print(json.dumps(value, ensure_ascii=True, separators=(",", ":")), flush=True)


def clean(text: str) -> str:
    """Take from other people's text what a terminal would obey instead of show.

    Control characters and those that turn the direction of writing become visible
    escapes; a line break stays one.
    """
    return "".join(
        character if character == "\n" or not _obeyed(character) else _escape(character)
        for character in text.replace("\r\n", "\n").replace("\t", "    ")
    )


def console() -> Console:
    """Return where tables are drawn; as wide as needed where there is no terminal."""
    from rich.console import Console

    drawn = Console(highlight=False, emoji=False, markup=False, soft_wrap=False)
    return (
        drawn
        if drawn.is_terminal
        else Console(highlight=False, emoji=False, markup=False, width=160)
    )


def print_table(table: Table, console: Console) -> None:
    """Print a table; without a terminal, also without the blanks at the ends of lines."""
    if console.is_terminal:
        console.print(table)
        return
    with console.capture() as capture:
        console.print(table)
    for line in capture.get().splitlines():
        show(line.rstrip())


def when(second: int) -> str:
    """Write an instant for people, in UTC."""
    return time.strftime("%Y-%m-%d %H:%M UTC", time.gmtime(min(max(second, 0), _YEAR_9999)))


def plain(stream: TextIO | None = None) -> bool:
    """Say whether only ASCII can be drawn."""
    encoding = (stream or sys.stdout).encoding or "ascii"
    try:
        "✓█".encode(encoding)
    except (UnicodeEncodeError, LookupError):
        return True
    return False


def _said(name: str, value: Any) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    return when(value) if name.endswith(("_at", "_until")) else str(value)


def _obeyed(character: str) -> bool:
    return unicodedata.category(character) in ("Cc", "Cs", "Zl", "Zp") or (
        character in "\u061c\u200e\u200f\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069"
    )


def _escape(character: str) -> str:
    code = ord(character)
    return f"\\x{code:02x}" if code < 0x100 else f"\\u{code:04x}"


def _encodable(text: str, stream: TextIO) -> str:
    encoding = stream.encoding or "ascii"
    return text.encode(encoding, "backslashreplace").decode(encoding)
