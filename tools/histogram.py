"""Histogram: how times are distributed, as text for a terminal and as a drawing."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape

from muster.cli.bars import bar

EDGES_MS = (10, 20, 50, 100, 200, 500, 1000, 2000, 5000)
CELLS = 50

_STYLE = (
    "text{font:13px system-ui,sans-serif;fill:#24292f}.bar{fill:#2f6f4f}.none{fill:#b3261e}"
    ".title{font-size:15px;font-weight:600}.soft{fill:#57606a}.axis{stroke:#8c959f}"
    ".paper{fill:#fff}@media(prefers-color-scheme:dark){text{fill:#e6edf3}.soft{fill:#9da7b3}"
    ".bar{fill:#57b98a}.none{fill:#f28b82}.paper{fill:#0d1117}.axis{stroke:#6e7681}}"
)


def buckets(times_ms: Sequence[float], *, never: int = 0) -> list[tuple[str, int]]:
    """Count the times between the edges, and those who never found a peer."""
    found: list[tuple[str, int]] = []
    low = 0.0
    for edge in EDGES_MS:
        found.append((f"to {_span(edge)}", sum(low < time <= edge for time in times_ms)))
        low = edge
    found.append((f"over {_span(low)}", sum(time > low for time in times_ms)))
    found.append(("never", never))
    return found


def text(times_ms: Sequence[float], *, never: int = 0) -> list[str]:
    """Draw bars of characters, a line each."""
    counts = buckets(times_ms, never=never)
    most = max(max(count for _, count in counts), 1)
    lines = []
    for name, count in counts:
        drawn = bar(0, count, most, ascii_only=True, cells=CELLS) if count else " " * CELLS
        lines.append(f"{name:>12} |{drawn} {count}".rstrip())
    return lines


def svg(times_ms: Sequence[float], *, never: int = 0, title: str = "", subtitle: str = "") -> str:
    """Draw bars as SVG, for light and dark pages."""
    counts = buckets(times_ms, never=never)
    most = max(max(count for _, count in counts), 1)
    wide, high, left, top, step = 840, 380, 30, 80, 70
    floor = high - 60
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {wide} {high}" role="img">',
        f"<title>{escape(title)}</title><style>{_STYLE}</style>",
        f'<rect class="paper" width="{wide}" height="{high}"/>',
        f'<text class="title" x="{left}" y="28">{escape(title)}</text>',
        f'<text class="soft" x="{left}" y="50">{escape(subtitle)}</text>',
        f'<line class="axis" x1="{left}" x2="{wide - left}" y1="{floor}" y2="{floor}"/>',
    ]
    for place, (name, count) in enumerate(counts):
        x = left + place * step
        tall = count / most * (floor - top)
        kind = "none" if name == "never" else "bar"
        parts += [
            f'<rect class="{kind}" x="{x + 6}" y="{floor - tall:.1f}" width="{step - 12}" '
            f'height="{tall:.1f}" rx="2"/>',
            f'<text x="{x + step / 2}" y="{floor - tall - 6:.1f}" text-anchor="middle">'
            f"{count or ''}</text>",
            f'<text class="soft" x="{x + step / 2}" y="{floor + 20}" text-anchor="middle">'
            f"{escape(name)}</text>",
        ]
    parts += [
        f'<text class="soft" x="{left}" y="{high - 14}">'
        "time to the first peer, by the client's clock; the number of reconnects above each bar"
        "</text>",
        "</svg>",
    ]
    return "\n".join(parts) + "\n"


def _span(ms: float) -> str:
    return f"{ms / 1000:g} s" if ms >= 1000 else f"{ms:g} ms"
