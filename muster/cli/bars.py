"""Bars: lengths and spans of time, drawn with characters."""

from __future__ import annotations

CELLS = 24


def bar(start: float, length: float, whole: float, *, ascii_only: bool, cells: int = CELLS) -> str:
    """Draw the part of *whole* that begins at *start*: at least one cell, never outside."""
    if whole <= 0:
        return " " * cells
    first = min(int(start / whole * cells), cells - 1)
    filled = max(1, min(round(length / whole * cells), cells - first))
    return (" " * first + ("#" if ascii_only else "█") * filled).ljust(cells)
