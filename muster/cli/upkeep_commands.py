"""The commands of those who keep a service: what it costs, and copies of its data."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from pathlib import Path
from typing import Any

Command = Callable[[Any, str, str, str], argparse.ArgumentParser]


def add(commands: Any, command: Command) -> None:
    """Add them to the command line."""
    _add_cost(
        command(commands, "cost", "infra.cost_command:cost_of", "show what a month on AWS costs")
    )
    backup = command(
        commands, "backup", "muster.cli.copies:backup", "copy a service's data; it may be running"
    )
    backup.add_argument("file", metavar="FILE", type=Path, help="where the copy goes")
    restore = command(
        commands,
        "restore",
        "muster.cli.copies:restore",
        "put a copy in the place of a service's data",
    )
    restore.add_argument("file", metavar="FILE", type=Path, help="the copy")
    restore.add_argument("--yes", action="store_true", help="replace what is there without asking")
    for one in (backup, restore):
        one.add_argument(
            "--data", metavar="DIR", default="data", help="the service's folder (./%(default)s)"
        )
        one.add_argument("--json", action="store_true", help="print JSON")


def _add_cost(made: argparse.ArgumentParser) -> None:
    made.add_argument("--nodes", type=_count, default=5, metavar="N", help="nodes (%(default)s)")
    made.add_argument(
        "--hours", type=_hours, default=24.0, metavar="H", help="hours a day they are there (24)"
    )
    made.add_argument(
        "--messages", type=_count, default=20, metavar="N", help="messages of each a day (20)"
    )
    made.add_argument(
        "--design",
        choices=("polling", "push"),
        default="push",
        help="how nodes learn what is new (%(default)s)",
    )
    made.add_argument("--client", metavar="NAME", help="in its place: spec, tui, web, push, quiet")
    made.add_argument("--region", metavar="REGION", help="whose prices (us-east-1)")
    made.add_argument(
        "--max-usd",
        type=_usd,
        metavar="USD",
        help="show the limits that keep the worst month below this",
    )
    made.add_argument("--json", action="store_true", help="print JSON")


def _count(text: str) -> int:
    if not text.isdecimal() or int(text) > 1_000_000:
        raise argparse.ArgumentTypeError(f"'{text}' is not a number up to a million")
    return int(text)


def _hours(text: str) -> float:
    return _number(text, "number of hours a day", most=24)


def _usd(text: str) -> float:
    return _number(text, "sum of dollars", most=10_000_000)


def _number(text: str, what: str, *, most: float) -> float:
    try:
        number = float(text)
    except ValueError:
        number = -1
    if not 0 < number <= most:
        raise argparse.ArgumentTypeError(f"'{text}' is not a {what}")
    return number
