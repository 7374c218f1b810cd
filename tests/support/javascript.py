"""JavaScript under test: Node's test runner, and which lines of web/muster have been run.

Node and pages leave what V8 counted in one folder, in V8's own form: Node by itself
(``NODE_V8_COVERAGE``), pages by the browser's profiler. `report` makes one figure of it, with
c8. Nothing is counted unless ``JS_COVERAGE`` names the folder, as tests/suites.py does.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import subprocess
import tempfile
import uuid
import xml.etree.ElementTree as ET
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tests.support import node

if TYPE_CHECKING:
    from playwright.sync_api import BrowserContext, CDPSession, Page

ROOT = Path(__file__).parents[2]
LIBRARY = ROOT / "web" / "muster"
VARIABLE = "JS_COVERAGE"
FLOOR = 90
TEST_MS = 120_000
"""When Node gives up a test, or a file that does not end."""
_OURS = re.compile(r"https?://[^/]+/(?:web|app)/muster/([\w./-]+\.js)(?:[?#].*)?")


@dataclass(frozen=True, slots=True)
class Case:
    """What one test of a file came to."""

    name: str
    failure: str | None
    skip: str | None


@dataclass(frozen=True, slots=True)
class Run:
    """What the tests of a file came to, and what they printed."""

    cases: list[Case]
    passed: bool
    output: str


def environment() -> dict[str, str]:
    """Return the environment of a Node whose lines are counted, if any are."""
    folder = os.environ.get(VARIABLE)
    return os.environ | ({"NODE_V8_COVERAGE": folder} if folder else {})


def run(file: Path) -> Run:
    """Run one file of tests in Node."""
    with tempfile.TemporaryDirectory() as folder:
        told = Path(folder) / "told.xml"
        command: list[str | Path] = [
            *(node.executable(), "--test", f"--test-timeout={TEST_MS}"),
            *("--test-reporter=junit", f"--test-reporter-destination={told}"),
            *("--test-reporter=spec", "--test-reporter-destination=stdout"),
            file,
        ]
        done = subprocess.run(
            command, cwd=ROOT, env=environment(), capture_output=True, text=True, check=False
        )
        cases = list(_cases(told)) if told.exists() else []
    return Run(cases, done.returncode == 0, done.stdout[-16_000:] + done.stderr[-4_000:])


def _cases(told: Path) -> list[Case]:
    found = []
    for case in ET.parse(told).iter("testcase"):  # noqa: S314 - Node wrote it a moment ago
        failure, skipped = case.find("failure"), case.find("skipped")
        found.append(
            Case(
                case.get("name", ""),
                None if failure is None else failure.text or failure.get("message", ""),
                None if skipped is None else skipped.get("message", ""),
            )
        )
    return found


# --- what a page runs -----------------------------------------------------------------------

_sessions: dict[Page, CDPSession] = {}


def begin(page: Page) -> Page:
    """Count what a page runs of the library, from its next document on, if anything is counted."""
    if VARIABLE not in os.environ:
        return page
    session = page.context.new_cdp_session(page)
    session.send("Profiler.enable")
    session.send("Profiler.startPreciseCoverage", {"callCount": True, "detailed": True})
    _sessions[page] = session
    return page


def end(*closing: Page | BrowserContext) -> None:
    """Write down what pages have run, or all pages of a context; call it before they close."""
    pages = [page for one in closing for page in getattr(one, "pages", [one])]
    for page in pages:
        session = _sessions.pop(page, None)
        if session is not None:
            _write(session)


def _write(session: CDPSession) -> None:
    from playwright.sync_api import Error

    with contextlib.suppress(Error):  # a page that has crashed or closed itself tells nothing
        counted: list[dict[str, Any]] = session.send("Profiler.takePreciseCoverage")["result"]
        found = [
            script | {"url": (LIBRARY / ours[1]).as_uri()}
            for script in counted
            if (ours := _OURS.fullmatch(script["url"])) and (LIBRARY / ours[1]).exists()
        ]
        folder = Path(os.environ[VARIABLE])
        folder.mkdir(parents=True, exist_ok=True)
        name = f"coverage-page-{uuid.uuid4().hex}.json"
        (folder / name).write_text(json.dumps({"result": found}), "utf-8")


# --- the figure ------------------------------------------------------------------------------


def report(folder: Path, *, floor: int = FLOOR) -> bool:
    """Print which lines of the library nothing has run; say whether enough were."""
    script = ROOT / "tests" / "node_modules" / "c8" / "bin" / "c8.js"
    command: list[str | Path] = [
        *(node.executable(), script, "report", "--all", "--src=web/muster"),
        *(f"--temp-directory={folder}", "--reporter=text", "--exclude-after-remap=false"),
        *("--include=web/muster/**/*.js", "--exclude=web/muster/types"),
        *("--check-coverage", f"--lines={floor}"),
        *("--functions=0", "--branches=0", "--statements=0"),
    ]
    return subprocess.run(command, cwd=ROOT, check=False).returncode == 0
