"""Cleaning: what others wrote, made fit for a terminal: shown, never obeyed, and bounded.

Names of members and nodes, refusals, URLs and records all come from somebody else. `clean`
keeps line breaks, `line` makes one line, `name` a short one without gaps: use the last two
wherever the text stands inside a line of ours, or it could forge the next.
"""

from __future__ import annotations

import re
import unicodedata

MOST_TEXT, MOST_LINE, MOST_NAME = 20_000, 2_000, 40
"""How many cells of a terminal a text, a line and a name may take."""

MARKS = 4
"""How many marks may stand on one letter; no language needs more, and a pile hides lines."""

_BREAKS = re.compile(r"\s*[\n\r\x0b\x0c\x1c-\x1e\x85\u2028\u2029]\s*|\s{3,}")
_JOINERS = "\u200c\u200d"
_NUMBER_SIGNS = range(0x600, 0x606)
_UNSEEN = frozenset("\u115f\u1160\u17b4\u17b5\u180b\u180c\u180d\u180e\u2800\u3164\uffa0")


def clean(text: str, *, most: int = MOST_TEXT) -> str:
    """Return text whose control characters are visible escapes; a line break stays one.

    Escaped are also characters that turn the direction of writing or that nobody sees. More
    than *most* cells are cut off.
    """
    shown: list[str] = []
    before, marks, cells = "", 0, 0
    for character in text.replace("\r\n", "\n").replace("\t", "    "):
        mark = unicodedata.combining(character) != 0 or unicodedata.category(character) == "Me"
        marks = marks + 1 if mark else 0
        if marks > MARKS:
            continue
        one = character
        if (mark and before in ("", "\n")) or _obeyed(character, before):
            one = _escape(character)
        cells += 0 if mark else sum(map(_width, one))
        if cells > most:
            return "".join(shown) + "…"
        shown.append(one)
        before = character
    return "".join(shown)


def line(text: str, *, most: int = MOST_LINE) -> str:
    """Return text as one line."""
    return clean(_BREAKS.sub("  ", text.strip()), most=most)


def name(text: str, *, most: int = MOST_NAME) -> str:
    """Return what somebody is called: one short line without gaps."""
    return clean(" ".join(text.split()), most=most)


def seen(text: str) -> str:
    """Return text without what a terminal obeys and nobody sees, as one line without gaps."""
    kept = (one for one in text if one.isspace() or not _obeyed(one, "a"))
    return clean(" ".join("".join(kept).split()))


def wrapped(text: str, *, width: int, indent: str) -> str:
    """Begin all lines but the first with *indent*, also those that a terminal would begin.

    Otherwise a text with the right number of blanks in it would begin one of ours.
    """
    shown, used = "", 0
    for character in text:
        cells = _width(character)
        if character == "\n" or used + cells > width:
            shown += f"\n{indent}"
            used = len(indent)
        if character != "\n":
            shown += character
            used += cells
    return shown


def _obeyed(character: str, before: str) -> bool:
    """Say whether a terminal would obey a character, or show nothing for it."""
    if character == "\n" or " " <= character <= "~":
        return False
    if character in _JOINERS:  # they belong into some scripts, and between some pictures
        return before.isascii() or before in _JOINERS
    kind = unicodedata.category(character)
    if kind == "Cf":
        return ord(character) not in _NUMBER_SIGNS
    return kind in ("Cc", "Cs", "Zl", "Zp") or character in _UNSEEN


def _width(character: str) -> int:
    if character == "\n" or unicodedata.category(character) in ("Mn", "Me", "Cf"):
        return 0
    return 2 if unicodedata.east_asian_width(character) in "WF" else 1


def _escape(character: str) -> str:
    code = ord(character)
    if code < 0x100:
        return f"\\x{code:02x}"
    return f"\\u{code:04x}" if code < 0x10000 else f"\\U{code:08x}"
