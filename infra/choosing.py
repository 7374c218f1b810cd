"""Choosing: what a deployment's parameters come to, from all who have a say in them.

The command line goes first, then what fits the price, then what is deployed, then the
template; the account's quota has the last word.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from infra import parameters, price, stack
from infra.cloud import Cloud
from infra.difference import Deployed
from infra.parameters import Chosen
from infra.price import Quote
from muster.cli import output
from muster.cli.output import Failure, Misuse, say

SPARE = 100
"""How many machines AWS keeps free for functions that reserve none."""

AUTOMATIC = "Automatic"
"""Under this name a template keeps which parameters the account's quota decided."""


@dataclass(frozen=True, slots=True)
class Choice:
    """What was chosen, what it costs, and which of it the account's quota decided."""

    values: Mapping[str, str]
    settings: Mapping[str, str]
    quote: Quote
    automatic: list[str]


def choose(
    arguments: argparse.Namespace, chosen: Chosen, cloud: Cloud, before: Deployed | None
) -> Choice:
    """Choose parameters and settings: as named, else within the price, else as they are."""
    kept = _kept(before)
    settings = stack.settings(before.template) if before else {}
    architecture = parameters.merged(chosen.parameters, kept)["Architecture"]
    limits = price.limits(arguments.max_usd, region=cloud.region, architecture=architecture)
    wanted = {**(limits.parameters() if limits else {}), **chosen.parameters}
    settings |= {**(limits.settings() if limits else {}), **chosen.settings}
    parameters.check_settings(settings)
    free = _free_machines(cloud)
    insisted = "Concurrency" in chosen.parameters
    fitting = _within_quota(cloud, wanted, kept, free, insisted=insisted)
    automatic = [] if fitting == wanted else ["Concurrency"]
    wanted = fitting
    values = parameters.merged(wanted, kept)
    parameters.check_together(chosen.parameters, values)
    quote = price.quote(
        {**values, **settings}, region=cloud.region, machines=free, max_usd=arguments.max_usd
    )
    return Choice(values, settings, quote, automatic)


SHORT = (("edge", "CloudFront", ("yes", "no")), ("open", "Access", ("open", "closed")))
"""Options that stand for a parameter, and its value with them and with their opposites."""


def _kept(before: Deployed | None) -> dict[str, str]:
    """Return the parameters that stay as they are: not what a quota decided."""
    if before is None:
        return {}
    told = (before.template.get("Metadata") or {}).get("Muster") or {}
    return {k: v for k, v in before.parameters.items() if k not in told.get(AUTOMATIC, ())}


def pairs(arguments: argparse.Namespace) -> list[str]:
    """Return what ``--param`` names, with ``--edge`` and ``--open`` as the parameters they are."""
    found: list[str] = list(arguments.param)
    for option, name, (yes, no) in SHORT:
        chosen = getattr(arguments, option)
        if chosen is None:
            continue
        if any(pair.startswith(f"{name}=") for pair in found):
            raise Misuse(f"{name} is chosen twice", f"--{option} is --param {name}={yes}: name one")
        found.append(f"{name}={yes if chosen else no}")
    return found


def with_mail(chosen: Chosen, arguments: argparse.Namespace) -> Chosen:
    """Ask a person at a terminal who is to be told of alarms; nobody may be the answer."""
    if getattr(arguments, "yes", True) or arguments.json or not sys.stdin.isatty():
        return chosen
    output.ask("Who is told when something is wrong, or costs more than meant? E-mail, or Enter: ")
    mail = sys.stdin.readline().strip()
    if not mail:
        return chosen
    return Chosen(
        {**chosen.parameters, **parameters.parse([f"AlarmEmail={mail}"]).parameters},
        chosen.settings,
    )


def _within_quota(
    cloud: Cloud,
    wanted: dict[str, str],
    kept: Mapping[str, str],
    free: int | None,
    *,
    insisted: bool,
) -> dict[str, str]:
    """Refuse to reserve more machines than the account has, or reserve none."""
    values = parameters.merged(wanted, kept)
    asked, had = int(values["Concurrency"]), int(kept.get("Concurrency", "0"))
    if free is None or asked <= max(had, 0) or asked + 1 <= free + had - SPARE:
        return wanted
    if insisted or had:
        raise Failure(
            f"this account can reserve {max(free + had - SPARE - 1, 0)} machines in "
            f"{cloud.region}, not {asked}",
            "choose less with --param Concurrency=N (0 reserves none), or have Lambda's quota "
            "'Concurrent executions' raised",
        )
    say(
        f"this account's quota leaves {free} machines in {cloud.region}: none are reserved, "
        "and its other functions share them"
    )
    return {**wanted, "Concurrency": "0"}


def _free_machines(cloud: Cloud) -> int | None:
    """Return how many machines are not reserved; None if AWS does not say."""
    from botocore.exceptions import BotoCoreError, ClientError

    try:
        told = cloud.client("lambda").get_account_settings()
        return int(told["AccountLimit"]["UnreservedConcurrentExecutions"])
    except (BotoCoreError, ClientError, KeyError):
        return None


def remember(choice: Choice, template: dict[str, Any]) -> None:
    """Write into a template what the quota decided, so that it is decided anew each time."""
    if choice.automatic:
        template["Metadata"]["Muster"][AUTOMATIC] = choice.automatic
