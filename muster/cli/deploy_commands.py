"""The commands of a deployment, as the command line has them: `muster deploy` and its kin."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from typing import Any

from capsules import CERTIFIED_DAYS

Add = Callable[[Any, str, str, str], argparse.ArgumentParser]
"""Adds a command: to which, its name, where it lives, and what it is for."""


def add(commands: Any, command: Add) -> None:
    """Add everything that has to do with a deployment on AWS."""
    plan = command(
        commands, "plan", "infra.deploy:plan", "say what deploying would change and cost"
    )
    deploy = command(
        commands, "deploy", "infra.deploy:deploy", "put the service on your AWS account"
    )
    for chosen in (plan, deploy):
        _add_place(chosen)
        _add_choices(chosen)
    deploy.add_argument("--yes", action="store_true", help="do not ask")
    deploy.add_argument("--no-doctor", action="store_true", help="do not try the result")
    _add_looking(commands, command)
    rotate = command(
        commands, "rotate", "infra.cloud_keys:rotate", "publish capsules with a new key from now on"
    )
    _add_place(rotate)
    _add_root(rotate)
    rotate.add_argument(
        "--revoke", action="store_true", help="also tell clients never to believe the old one again"
    )
    rotate.add_argument(
        "--days",
        type=_days,
        default=CERTIFIED_DAYS,
        help="how long the new key may publish (%(default)s)",
    )
    destroy = command(
        commands, "destroy", "infra.destroy:destroy", "take the service from your AWS account"
    )
    _add_place(destroy)
    destroy.add_argument("--keep-data", action="store_true", help="keep tables, capsules and keys")
    destroy.add_argument("--yes", action="store_true", help="do not ask")


def _add_looking(commands: Any, command: Add) -> None:
    for name, what in (
        ("status", "say how the deployment is"),
        ("outputs", "print the deployment's addresses and keys"),
        ("dashboard", "print where the deployment's dashboard is"),
    ):
        _add_place(command(commands, name, f"infra.deployed:{name}", what))
    logs = command(commands, "logs", "infra.deployed:logs", "show the deployment's logs")
    _add_place(logs)
    logs.add_argument("--follow", action="store_true", help="go on showing what comes")
    logs.add_argument(
        "--since",
        default="10m",
        metavar="WHEN",
        help="how far back: 90s, 10m, 2h (%(default)s)",
    )


def _add_place(command: argparse.ArgumentParser) -> None:
    command.add_argument(
        "--stage", default="dev", help="which of several deployments (%(default)s)"
    )
    command.add_argument("--profile", help="the AWS profile with the credentials")
    command.add_argument("--region", help="the AWS region")
    command.add_argument("--json", action="store_true", help="print JSON, a value on each line")


def _add_choices(command: argparse.ArgumentParser) -> None:
    command.add_argument(
        "--param",
        metavar="K=V",
        action="append",
        default=[],
        help="a parameter of the template, or a MUSTER_ setting; may be repeated",
    )
    command.add_argument(
        "--max-usd",
        type=_dollars,
        metavar="N",
        help="choose limits so that the worst month costs less than this",
    )
    command.add_argument(
        "--python", metavar="PATH", help="the Python to pack with, which Lambda will run"
    )
    _add_root(command)


def _add_root(command: argparse.ArgumentParser) -> None:
    command.add_argument("--root", metavar="FILE", help="the root key (MUSTER_HOME/root-STAGE.key)")


def _days(text: str) -> int:
    if not text.isdecimal() or not 1 <= int(text) <= 3650:
        raise argparse.ArgumentTypeError(f"'{text}' is not a number of days from 1 to 3650")
    return int(text)


def _dollars(text: str) -> float:
    try:
        dollars = float(text)
    except ValueError:
        dollars = 0.0
    if not 0 < dollars < 1_000_000:
        raise argparse.ArgumentTypeError(f"'{text}' is not a number of US dollars")
    return dollars
