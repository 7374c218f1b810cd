"""Times: as people write them on the command line."""

from __future__ import annotations

import re
from datetime import datetime

from muster.cli.output import Misuse

_AGO = re.compile(r"([0-9]{1,9})([smhd])")
_UNITS = {"s": 1, "m": 60, "h": 3600, "d": 86400}


def since(text: str, *, now: float) -> float:
    """Read when to start, in Unix seconds: a while ago, a date, or ``all`` for 0."""
    if text == "all":
        return 0.0
    ago = _AGO.fullmatch(text)
    if ago:
        return now - int(ago[1]) * _UNITS[ago[2]]
    try:
        return datetime.fromisoformat(text).astimezone().timestamp()
    except (ValueError, OverflowError, OSError):
        raise Misuse(
            f"--since {text} is no time", "write 10m, 2h, 3d, 2026-01-31, 2026-01-31T12:00 or all"
        ) from None


def duration(text: str, *, option: str) -> int:
    """Read how long something is to last, in seconds."""
    found = _AGO.fullmatch(text)
    if not found or not int(found[1]):
        raise Misuse(f"{option} {text} is no length of time", "write 90s, 10m, 2h or 30d")
    return int(found[1]) * _UNITS[found[2]]
