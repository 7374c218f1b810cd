"""Run the test suites one after the other and say plainly what was run, and what was not.

    python tests/suites.py [--no-coverage] [SUITE ...] [-- PYTEST ARGUMENTS]

Several suites run two at a time, each in a process of its own whose output is shown when it
has ended; those that measure what the machine bears run alone, after the others.

A skipped test must say what it needs ("needs chromium: ..."): any other skip fails the run,
and so does a suite without tests.
"""

import os
import shutil
import subprocess
import sys
import time
import xml.etree.ElementTree as ET
from collections import Counter
from concurrent.futures import ThreadPoolExecutor, as_completed
from contextlib import nullcontext
from dataclasses import dataclass, field
from pathlib import Path

TESTS = Path(__file__).resolve().parent
ROOT = TESTS.parent
sys.path.insert(0, str(ROOT))

from tests.support import javascript  # noqa: E402 - found by the line above

BUILD = ROOT / "build"
REPORTS = BUILD / "reports"
ORDER = (
    *("unit", "contract", "golden", "property", "web", "hosts", "attack"),
    *("client", "networks", "cli", "compat", "browser", "infra"),
)
AT_ONCE = 2
ALONE = ("attack",)
"""They fill disks and memory and count the time of others."""

UNCOUNTED = ("property", "attack")
"""They run many times over what others run too; counting lines would double their time."""

JAVASCRIPT = BUILD / "coverage" / "js"
PAGES = "browser"
"""What only a browser can run of the library is run by this suite."""

LONGEST_FIRST = ("cli", "infra", "contract", "browser", "hosts", "networks")
NOTHING_COLLECTED = 5
WHY = 400
"""So many letters of a failure are shown again at the end, where the log of a run is read first."""

NEEDS = {
    "contract": ("node",),
    "golden": ("node",),
    "property": ("node",),
    "web": ("node",),
    "hosts": ("node", "coturn", "nginx", "caddy"),
    "networks": ("networks",),
    "cli": ("node", "tmux"),
    "browser": ("node", "chromium", "firefox", "coturn"),
    "infra": ("node", "ministack"),
}
"""What a suite needs beside the Python packages: targets of the Makefile, made when it runs."""


@dataclass(slots=True)
class Result:
    """What one suite came to."""

    suite: str
    passed: int = 0
    failed: int = 0
    expected_failures: int = 0
    seconds: float = 0.0
    exit_code: int = 0
    skips: Counter[str] = field(default_factory=Counter)
    failures: list[str] = field(default_factory=list)
    """Each that failed, by name, with the beginning of why."""

    @property
    def unexplained(self) -> int:
        """How many tests were skipped without saying what they need."""
        return sum(n for reason, n in self.skips.items() if not reason.startswith("needs "))

    @property
    def verdict(self) -> str:
        """One or two words for the last column."""
        if self.exit_code == NOTHING_COLLECTED:
            return "NO TESTS"
        if self.failed or self.exit_code:
            return "FAILED"
        if self.unexplained:
            return "SKIPPED WITHOUT REASON"
        return "ok" if not self.skips else "ok, in part"

    @property
    def good(self) -> bool:
        """Whether nothing stands against a release."""
        return self.verdict.startswith("ok")


def main(arguments: list[str]) -> int:
    """Run the chosen suites, or all; the number of bad ones decides the exit code."""
    options, extra = _split(arguments)
    measured = "--no-coverage" not in options
    chosen = [option for option in options if not option.startswith("--")]
    existing = suites()
    unknown = sorted(set(chosen) - set(existing))
    if unknown:
        print(f"no such suite: {', '.join(unknown)}; there are: {', '.join(existing)}")
        return 2
    shutil.rmtree(REPORTS, ignore_errors=True)
    shutil.rmtree(BUILD / "coverage", ignore_errors=True)
    (BUILD / "coverage").mkdir(parents=True)
    REPORTS.mkdir(exist_ok=True)
    for need in sorted({need for suite in chosen or existing for need in NEEDS.get(suite, ())}):
        subprocess.run(["make", "--no-print-directory", need], cwd=ROOT, check=True)
    results = run_all(chosen or existing, extra, measured=measured)
    covered = True
    if measured and set(chosen or existing) - set(UNCOUNTED):
        complete = not (chosen or extra)
        seen = not any(result.skips for result in results if result.suite == PAGES)
        python, library = _coverage(complete=complete), _library(complete=complete and seen)
        covered = python and library
    report(
        results, covered=covered, missing=[] if chosen else [s for s in ORDER if s not in existing]
    )
    return 0 if covered and results and all(result.good for result in results) else 1


def suites() -> list[str]:
    """Every folder with tests: the known ones in their order, then what was added since."""
    found = {
        path.relative_to(TESTS).parts[0]
        for path in TESTS.glob("*/**/test_*.py")
        if "node_modules" not in path.parts
    }
    stray = [path.name for path in TESTS.glob("test_*.py")]
    if stray:
        raise SystemExit(f"tests belong in a suite's folder: {', '.join(stray)}")
    return [*(s for s in ORDER if s in found), *sorted(found.difference(ORDER))]


def run_all(names: list[str], extra: list[str], *, measured: bool) -> list[Result]:
    """Run suites, two at a time where there are several; results come in the order asked for."""
    together = [name for name in names if name not in ALONE]
    if len(together) < AT_ONCE:
        return [run(name, extra, measured=measured) for name in names]
    ranks = {name: rank for rank, name in enumerate(LONGEST_FIRST)}
    together.sort(key=lambda name: ranks.get(name, len(ranks)))
    done = {}
    with ThreadPoolExecutor(AT_ONCE) as pool:
        started = [
            pool.submit(run, name, extra, measured=measured, later=True) for name in together
        ]
        for future in as_completed(started):
            result = future.result()
            done[result.suite] = result
            print(f"\n==> {result.suite}\n{log(result.suite).read_text()}", flush=True)
    done |= {name: run(name, extra, measured=measured) for name in names if name in ALONE}
    return [done[name] for name in names]


def log(suite: str) -> Path:
    """Where the output of a suite is that runs beside another."""
    return REPORTS / f"{suite}.log"


def run(suite: str, extra: list[str], *, measured: bool, later: bool = False) -> Result:
    """Run one suite in a process of its own; its output is shown as it comes, or *later*."""
    print(f"\n==> {suite}{': begins' if later else ''}", flush=True)
    file = REPORTS / f"{suite}.xml"
    counted = measured and suite not in UNCOUNTED
    python = [sys.executable, "-m", *(["coverage", "run", "-m"] if counted else [])]
    command = [*python, "pytest", "-q", f"tests/{suite}", f"--junit-xml={file}", *extra]
    started = time.monotonic()
    environment = os.environ | ({javascript.VARIABLE: str(JAVASCRIPT)} if measured else {})
    with log(suite).open("wb") if later else nullcontext() as output:
        done = subprocess.run(
            command, cwd=ROOT, env=environment, check=False, stdout=output, stderr=output
        )
    result = Result(suite, seconds=time.monotonic() - started, exit_code=done.returncode)
    if file.exists():
        _count(result, ET.parse(file))  # noqa: S314 - written by pytest a moment ago
    return result


def _count(result: Result, tree: "ET.ElementTree[ET.Element]") -> None:
    for case in tree.iter("testcase"):
        skipped = case.find("skipped")
        failures = [*case.findall("failure"), *case.findall("error")]
        if failures:
            result.failed += 1
            result.failures += [_told(case, failure) for failure in failures]
        elif skipped is None:
            result.passed += 1
        elif skipped.get("type") == "pytest.xfail":
            result.expected_failures += 1
        else:
            result.skips[skipped.get("message", "")] += 1


def _told(case: "ET.Element[str]", failure: "ET.Element[str]") -> str:
    """Name a test that failed and say why, so shortly that it can stand at the end of all."""
    why = " ".join(failure.get("message", "").split())
    return f"{case.get('classname', '')}::{case.get('name', '')}: {why[:WHY]}"


def _coverage(*, complete: bool) -> bool:
    coverage = [sys.executable, "-m", "coverage"]
    quiet = subprocess.DEVNULL
    subprocess.run([*coverage, "combine", "--quiet"], cwd=ROOT, check=False, stderr=quiet)
    floor = [] if complete else ["--fail-under=0"]
    print("\n==> coverage", flush=True)
    shown = subprocess.run([*coverage, "report", *floor], cwd=ROOT, check=False)
    return shown.returncode == 0


def _library(*, complete: bool) -> bool:
    if not JAVASCRIPT.exists():  # none of the chosen suites has run JavaScript
        return True
    print("\n==> coverage of web/muster, by Node and by pages", flush=True)
    return javascript.report(JAVASCRIPT, floor=javascript.FLOOR if complete else 0)


def report(results: list[Result], *, covered: bool, missing: list[str]) -> None:
    """Print the table, then everything that did not run and why."""
    print(f"\n{'suite':<12}{'passed':>8}{'failed':>8}{'skipped':>9}{'xfail':>7}{'seconds':>9}")
    for r in results:
        numbers = f"{r.passed:>8}{r.failed:>8}{r.skips.total():>9}{r.expected_failures:>7}"
        print(f"{r.suite:<12}{numbers}{r.seconds:>9.1f}  {r.verdict}")
    if len(results) > 1:
        sums = [sum(r.passed for r in results), sum(r.failed for r in results)]
        skipped = sum(r.skips.total() for r in results)
        expected = sum(r.expected_failures for r in results)
        seconds = sum(r.seconds for r in results)
        print(f"{'all':<12}{sums[0]:>8}{sums[1]:>8}{skipped:>9}{expected:>7}{seconds:>9.1f}")
    for r in results:
        for reason, n in sorted(r.skips.items()):
            print(f"NOT RUN: {n} of {r.suite}: {reason or 'no reason given'}")
    for r in results:
        for told in r.failures:
            print(f"FAILED: {told}")
    if not covered:
        print("FAILED: coverage is below its floor (the list above says where)")
    if missing:
        print(f"NOT RUN: no tests exist yet in {', '.join(missing)}")


def _split(arguments: list[str]) -> tuple[list[str], list[str]]:
    if "--" not in arguments:
        return arguments, []
    border = arguments.index("--")
    return arguments[:border], arguments[border + 1 :]


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
