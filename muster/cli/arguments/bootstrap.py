"""The verbs that start from a URL: `muster bootstrap` and `muster capsule fetch`."""

from __future__ import annotations

import argparse
from typing import Any

from muster.cli.arguments import values
from muster.cli.arguments.table import add_json, verb


def add(commands: Any) -> None:
    """Add `bootstrap`."""
    start = verb(
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
    _add_search(start)


def add_fetch(verbs: Any) -> None:
    """Add `fetch` to the verbs of `capsule`."""
    fetch = verb(verbs, "fetch", "muster.cli.fetching:run", "fetch a capsule and check it")
    fetch.add_argument(
        "capsule", metavar="URL#KEY", help="URL#KEY with the root key, or URL#capsule=KEY"
    )
    fetch.add_argument("--out", metavar="DIR", help="keep the files here, if they are good")
    _add_search(fetch)


def _add_search(added: argparse.ArgumentParser) -> None:
    added.add_argument(
        "--community", metavar="C", help="if the URL's folder does not say (mainnet)"
    )
    added.add_argument(
        "--cache", metavar="DIR", help="what is remembered between two runs (MUSTER_HOME/bootstrap)"
    )
    added.add_argument(
        "--deadline",
        type=values.number("number of seconds", most=600),
        default=5.0,
        metavar="S",
        help="how long each source has, in seconds (%(default)g)",
    )
    add_json(added)
