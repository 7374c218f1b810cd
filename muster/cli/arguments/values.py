"""Values of options: each is read here, or refused with a message that names it."""

from __future__ import annotations

import argparse
import re
from collections.abc import Callable

_NUMBER, _WHOLE = re.compile(r"[0-9.eE+-]{1,40}"), re.compile(r"[0-9]{1,18}")


def number(what: str, *, most: float) -> Callable[[str], float]:
    """Read a number above 0 and up to *most*; *what* completes "is not a …"."""

    def read(text: str) -> float:
        try:
            value = float(text) if _NUMBER.fullmatch(text) else 0.0
        except ValueError:
            value = 0.0
        if not 0 < value <= most:
            raise argparse.ArgumentTypeError(f"'{text}' is not a {what}")
        return value

    return read


def whole(what: str, *, least: int = 0, most: int) -> Callable[[str], int]:
    """Read a whole number in bounds; *what* completes "is not a …"."""

    def read(text: str) -> int:
        if not _WHOLE.fullmatch(text) or not least <= int(text) <= most:
            raise argparse.ArgumentTypeError(f"'{text}' is not a {what}")
        return int(text)

    return read


port = whole("port", most=65_535)
count = whole("number up to a million", most=1_000_000)
nodes = whole("number of nodes from 1 to a million", least=1, most=1_000_000)
days = whole("number of days from 1 to 3650", least=1, most=3650)
times = whole("number from 1 to 1000", least=1, most=1000)
whole_seconds = whole("whole number of seconds up to a day", most=86_400)
seconds = number("number of seconds", most=3600)
dollars = number("number of US dollars", most=10_000_000)
hours = number("number of hours a day", most=24)
