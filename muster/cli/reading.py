"""Reading: what people pipe in or type, within bounds and as UTF-8."""

from __future__ import annotations

import sys
from typing import IO

from muster.cli import output
from muster.cli.output import Misuse

MOST_BYTES = 1024 * 1024
"""As much as one call of a service carries."""


def text() -> str:
    """Return everything on standard input."""
    return _decoded(_bytes().read(MOST_BYTES + 1))


def line() -> str:
    """Return the first line on standard input."""
    return _decoded(_bytes().readline(MOST_BYTES + 1))


def agreed(question: str, *, unasked: Misuse) -> bool:
    """Ask a person; raises *unasked* where nobody sits at a terminal."""
    if not sys.stdin.isatty():
        raise unasked
    output.ask(f"{question} [y/N] ")
    return sys.stdin.readline().strip().lower() in ("y", "yes")


def _bytes() -> IO[bytes]:
    return sys.stdin.buffer


def _decoded(raw: bytes) -> str:
    if len(raw) > MOST_BYTES:
        raise Misuse(
            f"there are more than {MOST_BYTES} bytes on standard input", "send less at a time"
        )
    try:
        return raw.decode()
    except UnicodeDecodeError:
        raise Misuse(
            "what stands on standard input is not UTF-8", "'iconv -t UTF-8' converts text"
        ) from None
