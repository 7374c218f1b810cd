"""Where a check of JavaScript is switched off, the comment says why."""

from __future__ import annotations

import re
from pathlib import Path

ROOT = Path(__file__).parents[2]
FILES = [
    path
    for folder in ("web", "tests", "tools")
    for path in (ROOT / folder).rglob("*.*js")
    if path.suffix in {".js", ".mjs"} and not {"node_modules", "types"} & set(path.parts)
]
OFF = re.compile(
    r"(?P<eslint>eslint-disable[\w-]*)(?P<rules>[^\n*]*)|@ts-(?:ignore|expect-error|nocheck)(?P<why>.*)"
)


def test_what_is_switched_off_has_a_reason() -> None:
    bare = [
        f"{path.relative_to(ROOT)}: {found[0].strip()}"
        for path in FILES
        for found in OFF.finditer(path.read_text("utf-8"))
        if len((found["rules"] or "").partition("--")[2] or found["why"] or "") < 8
    ]

    assert FILES
    assert bare == []
