"""`muster assist`, as the command line has it."""

from __future__ import annotations

from typing import Any

from muster.cli.arguments import values
from muster.cli.arguments.table import add_json, verb


def add(commands: Any) -> None:
    """Add `assist`."""
    assist = verb(commands, "assist", "muster.cli.assist:assist", "ask a service how to connect")
    assist.add_argument("base", metavar="BASE", nargs="?", help="the service's URL")
    assist.add_argument(
        "--token",
        metavar="T",
        help="a token of the operator's (MUSTER_ASSIST_TOKEN); else one is asked for",
    )
    assist.add_argument(
        "--path",
        metavar="HOST[:PORT]",
        action="append",
        default=[],
        help="a path of your own; may be repeated",
    )
    assist.add_argument(
        "--peer-hint", metavar="HOST", help="a host to fall back on, if there is no --path"
    )
    assist.add_argument(
        "--prefer-reality", action="store_true", help="the operator's Reality paths first"
    )
    assist.add_argument("--mtu", type=int, metavar="N", help="the size of packets")
    assist.add_argument("--overhead", type=float, metavar="X", help="repair packets for each one")
    assist.add_argument(
        "--timeout",
        type=values.seconds,
        default=10.0,
        metavar="S",
        help="longest wait, in seconds (%(default)g)",
    )
    add_json(assist)
