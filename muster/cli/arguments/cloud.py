"""The verbs for a service on AWS: `muster deploy` and its kin, and `muster cost`."""

from __future__ import annotations

import argparse
from typing import Any

from capsules import CERTIFIED_DAYS
from muster.cli.arguments import values
from muster.cli.arguments.table import CLOUD, Parser, add_json
from muster.cli.arguments.table import verb as any_verb


def add(commands: Any) -> None:
    """Add everything that has to do with AWS."""
    plan = _verb(commands, "plan", "deploy:plan", "say what deploying would change and cost")
    deploy = _verb(commands, "deploy", "deploy:deploy", "put the service on your AWS account")
    for chosen in (plan, deploy):
        _add_place(chosen)
        _add_choices(chosen)
    deploy.add_argument("--yes", action="store_true", help="do not ask")
    deploy.add_argument("--no-doctor", action="store_true", help="do not try the result")
    _add_looking(commands)
    _add_rotate(commands)
    _add_destroy(commands)
    _add_cost(commands)


def _verb(commands: Any, name: str, run: str, what: str, *, once: bool = False) -> Parser:
    return any_verb(commands, name, f"infra.{run}", what, needs=CLOUD, once=once)


def _add_looking(commands: Any) -> None:
    for name, what in (
        ("status", "say how the deployment is"),
        ("outputs", "print the deployment's addresses and keys"),
        ("dashboard", "print where the deployment's dashboard is"),
    ):
        _add_place(_verb(commands, name, f"deployed:{name}", what))
    logs = _verb(commands, "logs", "deployed:logs", "show the deployment's logs")
    _add_place(logs)
    logs.add_argument("--follow", action="store_true", help="go on showing what comes")
    logs.add_argument(
        "--since",
        default="10m",
        metavar="WHEN",
        help="how far back: 90s, 10m, 2h (%(default)s)",
    )


def _add_rotate(commands: Any) -> None:
    rotate = _verb(
        commands,
        "rotate",
        "cloud_keys:rotate",
        "publish capsules with a new key from now on",
        once=True,
    )
    _add_place(rotate)
    _add_root(rotate)
    rotate.add_argument(
        "--revoke", action="store_true", help="also tell clients never to believe the old one again"
    )
    rotate.add_argument(
        "--days",
        type=values.days,
        default=CERTIFIED_DAYS,
        help="how long the new key may publish (%(default)s)",
    )


def _add_destroy(commands: Any) -> None:
    destroy = _verb(
        commands, "destroy", "destroy:destroy", "take the service from your AWS account"
    )
    _add_place(destroy)
    destroy.add_argument("--keep-data", action="store_true", help="keep tables, capsules and keys")
    destroy.add_argument("--yes", action="store_true", help="do not ask")


def _add_cost(commands: Any) -> None:
    cost = _verb(commands, "cost", "cost_command:cost_of", "show what a month on AWS costs")
    cost.add_argument(
        "--nodes", type=values.nodes, default=5, metavar="N", help="nodes (%(default)s)"
    )
    cost.add_argument(
        "--hours",
        type=values.hours,
        default=24.0,
        metavar="H",
        help="hours a day they are there (24)",
    )
    cost.add_argument(
        "--messages",
        type=values.count,
        default=20,
        metavar="N",
        help="messages of each a day (20)",
    )
    cost.add_argument(
        "--design",
        choices=("polling", "push"),
        help="of version 1: how nodes learn what is new",
    )
    cost.add_argument(
        "--client",
        metavar="NAME",
        help="whose month: app, sync (version 2), push, quiet (version 1), spec, tui, web (other "
        "systems' clients) (app)",
    )
    cost.add_argument("--region", metavar="REGION", help="whose prices (us-east-1)")
    cost.add_argument(
        "--max-usd",
        type=values.dollars,
        metavar="USD",
        help="show the limits that keep the worst month below this",
    )
    add_json(cost)


def _add_place(command: argparse.ArgumentParser) -> None:
    command.add_argument(
        "--stage", default="dev", help="which of several deployments (%(default)s)"
    )
    command.add_argument("--profile", help="the AWS profile with the credentials")
    command.add_argument("--region", help="the AWS region")
    add_json(command)


def _add_choices(command: argparse.ArgumentParser) -> None:
    command.add_argument(
        "--param",
        metavar="K=V",
        action="append",
        default=[],
        help="a parameter of the template, or a MUSTER_ setting; may be repeated",
    )
    command.add_argument(
        "--edge",
        action=argparse.BooleanOptionalAction,
        help="have CloudFront lead to everything by one domain; or without (as it is)",
    )
    command.add_argument(
        "--open",
        action=argparse.BooleanOptionalAction,
        help="serve everybody's circles and communities; or only those let in (as it is)",
    )
    command.add_argument(
        "--max-usd",
        type=values.dollars,
        metavar="N",
        help="choose limits so that the worst month costs less than this",
    )
    command.add_argument(
        "--python", metavar="PATH", help="the Python to pack with, which Lambda will run"
    )
    _add_root(command)


def _add_root(command: argparse.ArgumentParser) -> None:
    command.add_argument("--root", metavar="FILE", help="the root key (MUSTER_HOME/root-STAGE.key)")
