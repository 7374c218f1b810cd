"""Output: what people read, what programs read, and how a failure is said in one line.

Standard output may be closed, full or a pipe that nobody reads any more. What was asked for
is then lost, which is one sentence and never a traceback.
"""

from __future__ import annotations

import io
import json
import os
import sys
import time
from collections.abc import Mapping
from contextlib import suppress
from typing import TYPE_CHECKING, Any, TextIO

from muster.cli.cleaning import clean as clean
from muster.cli.cleaning import line as line
from muster.cli.cleaning import name as name
from muster.cli.cleaning import wrapped
from muster.errors import Hinted

if TYPE_CHECKING:
    from rich.console import Console, RenderableType

OK, FAILED, USAGE = 0, 1, 2
WIDEST = 400
"""Cells of the widest terminal that tables are drawn for; COLUMNS can say anything."""

_YEAR_9999 = 253_402_300_799


class Failure(Hinted):
    """Something that did not work, and what to do about it."""

    exit_code = FAILED


class Misuse(Failure):
    """The command was not called as it wants to be."""

    exit_code = USAGE


class Unwritten(Failure):
    """Standard output does not take what was asked for."""


def complain(failure: Failure) -> int:
    """Say what went wrong, on one line; return the exit code."""
    say(line(f"muster: {failure}"))
    return failure.exit_code


def say(text: str) -> None:
    """Tell a person something that is not the data they asked for; never fails."""
    with suppress(OSError, ValueError):
        print(_encodable(clean(text), sys.stderr), file=sys.stderr, flush=True)


def watched() -> bool:
    """Say whether a person may be looking at what is said."""
    return sys.stderr.isatty()


def ask(question: str) -> None:
    """Write a question, after which the answer is typed."""
    with suppress(OSError, ValueError):
        print(_encodable(clean(question), sys.stderr), end="", file=sys.stderr, flush=True)


def show(text: str) -> None:
    """Print text at once; raises `Unwritten`."""
    _write(_encodable(clean(text), sys.stdout))


def show_wrapped(text: str, *, indent: str) -> None:
    """Print text whose lines all begin with *indent*, but for the first; raises `Unwritten`."""
    width = console().width if sys.stdout.isatty() else sys.maxsize
    show(wrapped(clean(text), width=width, indent=indent))


def show_facts(told: Mapping[str, Any]) -> None:
    """Print names and values, a line each; instants as people read them."""
    width = max(map(len, told)) + 2
    for fact, value in told.items():
        values = value if isinstance(value, list | tuple) else [value]
        for place, one in enumerate(values or ["none"]):
            label = fact.replace("_", " ") if place == 0 else ""
            show(f"{label:<{width}}{line(_said(fact, one))}")


def dump(value: Any) -> None:
    """Print a value as one line of JSON, at once; raises `Unwritten`."""
    text = json.dumps(value, ensure_ascii=True, separators=(",", ":"))
    _write(text.replace("\x7f", "\\u007f"))  # ASCII, and yet a control character


def console() -> Console:
    """Return where tables are drawn; as wide as needed where there is no terminal."""
    from rich.console import Console

    drawn = Console(highlight=False, emoji=False, markup=False, soft_wrap=False)
    width = min(max(drawn.width, 20), WIDEST) if drawn.is_terminal else 160
    return Console(highlight=False, emoji=False, markup=False, soft_wrap=False, width=width)


def draw(drawing: RenderableType) -> None:
    """Print a drawing; without a terminal, also without the blanks at the ends of lines.

    What others wrote in it must be clean: on a terminal its colours are kept.
    """
    from rich.console import Console

    shown, paper = console(), io.StringIO()
    Console(
        file=paper,
        force_terminal=shown.is_terminal,
        width=shown.width,
        no_color=shown.no_color,
        highlight=False,
        emoji=False,
        markup=False,
    ).print(drawing)
    for drawn in paper.getvalue().splitlines():
        text = drawn if shown.is_terminal else clean(drawn.rstrip())
        _write(_encodable(text, sys.stdout))


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


# --- streams ----------------------------------------------------------------------


def mend_streams() -> None:
    """Let a closed stream lead nowhere, so that no file takes its number and its text."""
    for number, (stream, mode) in enumerate((("stdin", "r"), ("stdout", "w"), ("stderr", "w"))):
        if getattr(sys, stream) is None:
            handle = os.open(os.devnull, os.O_RDWR)
            if handle != number:
                os.dup2(handle, number)
                os.close(handle)
            setattr(sys, stream, open(number, mode, encoding="utf-8", closefd=False))  # noqa: SIM115
    for opened in (sys.stdout, sys.stderr):
        if isinstance(opened, io.TextIOWrapper):
            opened.reconfigure(errors="backslashreplace")


def flush() -> None:
    """Write what is still held back; raises `Unwritten`."""
    try:
        sys.stdout.flush()
    except BrokenPipeError:
        raise
    except OSError as error:
        raise _unwritten(error) from None


def give_up_stdout() -> None:
    """Let the rest of the output lead nowhere, so that the interpreter does not try again."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _write(text: str) -> None:
    try:
        print(text, flush=True)
    except BrokenPipeError:
        raise
    except OSError as error:
        raise _unwritten(error) from None


def _unwritten(error: OSError) -> Unwritten:
    reason = (error.strerror or str(error)).lower()
    return Unwritten(f"cannot write to standard output: {reason}")


def _said(fact: str, value: Any) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    return when(value) if fact.endswith(("_at", "_until")) else str(value)


def _encodable(text: str, stream: TextIO) -> str:
    encoding = stream.encoding or "ascii"
    return text.encode(encoding, "backslashreplace").decode(encoding)
