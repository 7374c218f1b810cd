"""The app as it is packed: what of it goes to Lambda, and whether it was made of today's sources.

`make app` packs `web/app` and the part of `web/muster` that it needs into `web/app/packed`, so
that nobody who deploys needs Node, and notes of what it was made.

    python -m infra.app_files --write    note it, in web/app/packed/sources
    python -m infra.app_files --check    refuse what was made of something else
"""

from __future__ import annotations

import argparse
import hashlib
import re
import shutil
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

from chalicelib import app_files, static
from chalicelib.app_files import BESIDE, PACKED, PAGE, WORKER
from chalicelib.library import Library
from muster.cli import output
from muster.cli.output import Failure

WEB = Path(__file__).resolve().parent.parent / "web"
SOURCES = "sources"
"""Beside the packed files: a line with the digest of what they were made of."""

MAKE = "'make app' packs it again"
_NAMED = re.compile(r"""\b(?:src|href)=["']\./([^"'#?]*)""")


def digest(web: Path = WEB) -> str:
    """Return what names the sources: every module and style of the app, every module below it.

    The page and the worker are not among them: they are not packed, but copied.
    """
    found = hashlib.sha256()
    for name, body in _sources(web):
        found.update(f"{name}\n{len(body)}\n".encode() + body)
    return found.hexdigest()


def check(web: Path = WEB) -> None:
    """Refuse packed files that are not there, or were made of other sources."""
    note = web / "app" / PACKED / SOURCES
    if not note.is_file():
        raise Failure("web/app is not packed", MAKE)
    if note.read_text(encoding="utf-8").strip() != digest(web):
        raise Failure("web/app/packed was made of other sources than web/app and web/muster", MAKE)


def copy(web: Path, target: Path) -> None:
    """Copy what goes to a service that has no sources; *target* has the library already.

    Raises `Failure` where the packed files are not today's, or the page names what is not there.
    """
    check(web)
    packed = [f"{PACKED}/{name}" for name, _ in static.found(web / "app" / PACKED, ".js", ".css")]
    for name in (*BESIDE, *packed):
        source, copied = web / "app" / name, target / "app" / name
        if not source.is_file():
            raise Failure(f"web/app/{name} is missing", "it belongs to the app")
        copied.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(source, copied)
    served = app_files.AppFiles(target / "app", Library(target / "muster")).files
    page = served["/app/"].body.decode() if "/app/" in served else ""
    lacking = [name for name in _NAMED.findall(page) if f"/app/{name}" not in served]
    if lacking or not page:
        raise Failure(f"web/app/{PAGE} names what is not packed: {', '.join(lacking)}", MAKE)


def _sources(web: Path) -> Iterator[tuple[str, bytes]]:
    for room, suffixes in (("app", (".js", ".css")), ("muster", (".js",))):
        for name, body in static.found(web / room, *suffixes):
            if room == "muster" or not (name.startswith(f"{PACKED}/") or name == WORKER):
                yield f"{room}/{name}", body


def main(arguments: Sequence[str] | None = None, web: Path = WEB) -> int:
    """Note of what the packed files were made, or check it."""
    parser = argparse.ArgumentParser(prog="python -m infra.app_files", description=__doc__)
    what = parser.add_mutually_exclusive_group(required=True)
    what.add_argument("--write", action="store_true", help="note the digest of the sources")
    what.add_argument("--check", action="store_true", help="fail if it is another one")
    chosen = parser.parse_args(arguments)
    try:
        if chosen.write:
            (web / "app" / PACKED / SOURCES).write_text(f"{digest(web)}\n", encoding="utf-8")
        else:
            check(web)
    except Failure as failure:
        return output.complain(failure)
    return output.OK


if __name__ == "__main__":
    sys.exit(main())
