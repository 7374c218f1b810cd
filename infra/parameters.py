"""Parameters: what an operator may choose for a deployment, checked before AWS is asked.

`--param` takes the template's parameters, and the service's own settings by the names
of their variables (``MUSTER_CIRCLE_MEMBERS=64``). What is not named keeps its value.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from difflib import get_close_matches
from functools import cache
from typing import Any

from infra import stack
from muster.cli.output import Misuse

OURS = ("Stage", "CodeBucket", "CodeKey", "EdgeSecret", "CapsuleRoot")
"""What the command decides itself."""

OUR_VARIABLES = (
    "MUSTER_TABLE_PRESENCE",
    "MUSTER_TABLE_MAIL",
    "MUSTER_TABLE_GUARD",
    "MUSTER_REST_RATE",
    "MUSTER_SOCKET_RATE",
    "MUSTER_TABLE_READ_UNITS",
    "MUSTER_TABLE_WRITE_UNITS",
    "MUSTER_GREET_FUNCTION",
    "MUSTER_SWEEP_RULE",
    "MUSTER_PUBLISH_RULE",
    "MUSTER_WEBSOCKET_URL",
    "MUSTER_UNSIGNED",
    "MUSTER_ACCESS",
    "MUSTER_CAPSULE_ROOT",
    "MUSTER_CAPSULE_BUCKET",
    "MUSTER_CAPSULE_KEYS_PARAM",
    "MUSTER_EDGE_SECRET",
)

FOR_THE_EDGE = ("DomainName", "CertificateArn", "PriceClass")


@dataclass(frozen=True, slots=True)
class Chosen:
    """What was chosen on the command line."""

    parameters: Mapping[str, str] = field(default_factory=dict)
    settings: Mapping[str, str] = field(default_factory=dict)


def parse(pairs: Iterable[str]) -> Chosen:
    """Read ``K=V`` pairs; raises `Misuse` for what no deployment would take."""
    parameters: dict[str, str] = {}
    settings: dict[str, str] = {}
    for pair in pairs:
        name, separator, value = pair.partition("=")
        if not separator:
            raise Misuse(f"--param {pair} has no value", "write it as --param NAME=VALUE")
        if name.startswith("MUSTER_"):
            settings[name] = value
        else:
            parameters[name] = value
    for name, value in parameters.items():
        _check(name, value)
    _check_names(settings)
    check_settings(settings, alone=True)
    return Chosen(parameters, settings)


@cache
def declared() -> Mapping[str, Mapping[str, Any]]:
    """Return the template's parameters."""
    found: dict[str, dict[str, Any]] = json.loads(stack.RESOURCES.read_text())["Parameters"]
    return found


def merged(chosen: Mapping[str, str], before: Mapping[str, str], **ours: str) -> dict[str, str]:
    """Return a value for every parameter: chosen, else as it is, else the default."""
    values = {}
    for name, told in declared().items():
        kept = before.get(name, str(told.get("Default", "")))
        values[name] = ours.get(name, chosen.get(name, kept))
    return values


def check_settings(settings: Mapping[str, str], *, alone: bool = False) -> None:
    """Raise `Misuse` for what the functions would refuse; *alone*, each setting by itself."""
    from chalicelib import variables
    from chalicelib.settings import Settings

    if not settings.get("MUSTER_ASSIST", "{").lstrip().startswith("{"):
        raise Misuse(
            "--param MUSTER_ASSIST must be the JSON itself",
            "a file of this machine is not there on Lambda",
        )
    try:
        found = variables.chosen(Settings, settings)
        if not alone:
            Settings(**found)
    except ValueError as error:
        raise Misuse(f"--param {error}", "docs/one-machine.md lists the settings") from None


def _check(name: str, value: str) -> None:
    if name in OURS:
        raise Misuse(f"--param {name} is not to be chosen", "the command decides it")
    told = declared().get(name)
    if told is None:
        free = [known for known in declared() if known not in OURS]
        close = get_close_matches(name, free, 3, cutoff=0.5) or sorted(free)
        raise Misuse(f"there is no parameter '{name}'", f"there are: {', '.join(close)}")
    problem = _problem(told, value)
    if problem:
        raise Misuse(f"--param {name}={value}: {problem}", told["Description"])


def _problem(told: Mapping[str, Any], value: str) -> str:
    if "AllowedValues" in told:
        allowed = [str(one) for one in told["AllowedValues"]]
        return "" if value in allowed else f"must be one of {', '.join(allowed)}"
    if told["Type"] == "Number":
        return _number_problem(told, value)
    if not re.fullmatch(told.get("AllowedPattern", ".*"), value, re.ASCII):
        return f"must be {told['ConstraintDescription']}"
    return ""


def _number_problem(told: Mapping[str, Any], value: str) -> str:
    low, high = told["MinValue"], told["MaxValue"]
    whole = not isinstance(told["Default"], float) and not isinstance(low, float)
    if not re.fullmatch(r"\d{1,9}" if whole else r"\d{1,9}(\.\d{1,6})?", value, re.ASCII):
        return "must be a whole number" if whole else "must be a number"
    return "" if low <= float(value) <= high else f"must be from {low} to {high}"


def _check_names(settings: Mapping[str, str]) -> None:
    from chalicelib.settings import NAMES

    known = NAMES - {*OUR_VARIABLES, "MUSTER_VERSION"}
    for name in settings:
        if name not in known:
            close = get_close_matches(name, known, 3) or ["see docs/one-machine.md, Settings"]
            raise Misuse(f"there is no setting {name} to choose", f"there are: {', '.join(close)}")


def check_together(chosen: Mapping[str, str], values: Mapping[str, str]) -> None:
    """Refuse what does not go together, and what would be taken and do nothing.

    *chosen* is what is named now; *values* has also what the stack keeps.
    """
    edge = values.get("CloudFront") == "yes"
    certified = values.get("CertificateArn", "") not in (
        "",
        declared()["CertificateArn"]["Default"],
    )
    if edge and values.get("DomainName") and not certified:
        raise Misuse(
            "DomainName needs CertificateArn", "AWS Certificate Manager makes one, in us-east-1"
        )
    for name in FOR_THE_EDGE:
        if chosen.get(name) and not edge:
            raise Misuse(
                f"{name} is for deployments with CloudFront", "add --edge, or leave it out"
            )
    if chosen.get("CertificateArn") and not values.get("DomainName"):
        raise Misuse("CertificateArn needs DomainName", "name the domain that it is for")
    if edge and values.get("PublicCapsules") == "yes":
        raise Misuse(
            "PublicCapsules=yes is for deployments without CloudFront",
            "CloudFront serves capsules itself; choose --no-edge or --param PublicCapsules=no",
        )
