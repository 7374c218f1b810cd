"""The commands that start from a URL, as the command line has them."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from typing import Any

Add = Callable[[Any, str, str, str], argparse.ArgumentParser]
"""Adds a command: to which, its name, where it lives, and what it is for."""


def add(commands: Any, capsule: Any, command: Add) -> None:
    """Add `bootstrap`, and `fetch` to the commands of *capsule*."""
    start = command(
        commands, "bootstrap", "muster.cli.bootstrap:run", "find a community's nodes from a URL"
    )
    start.add_argument(
        "--capsule",
        metavar="URL#KEY",
        action="append",
        default=[],
        help="a capsule and its root key, or URL#capsule=KEY for its own; may be repeated",
    )
    start.add_argument(
        "--beacon", metavar="URL", action="append", default=[], help="a beacon; may be repeated"
    )
    start.add_argument(
        "--announce", action="store_true", help="also leave a ticket of ours at every beacon"
    )
    start.add_argument("--peer-id", metavar="ID", help="ours: announced, and left out of the list")
    fetch = command(capsule, "fetch", "muster.cli.fetching:run", "fetch a capsule and check it")
    fetch.add_argument(
        "capsule", metavar="URL#KEY", help="URL#KEY with the root key, or URL#capsule=KEY"
    )
    fetch.add_argument("--out", metavar="DIR", help="keep the files here, if they are good")
    for added in (start, fetch):
        added.add_argument(
            "--community", metavar="C", help="if the URL's folder does not say (mainnet)"
        )
        added.add_argument(
            "--cache",
            metavar="DIR",
            help="what is remembered between two runs (MUSTER_HOME/bootstrap)",
        )
        added.add_argument(
            "--deadline",
            type=_seconds,
            default=5.0,
            metavar="S",
            help="how long each source has, in seconds (%(default)g)",
        )
        added.add_argument("--json", action="store_true", help="print JSON")


def _seconds(text: str) -> float:
    try:
        seconds = float(text)
    except ValueError:
        seconds = 0.0
    if not 0 < seconds <= 600:
        raise argparse.ArgumentTypeError(f"'{text}' is not a number of seconds")
    return seconds
