"""Naming: what has a name gets it as a literal, as CloudFormation imports nothing else.

What `destroy --keep-data` left is taken in again by its name, which CloudFormation reads
from the template as it is written: a name that is put together there is none. So what is
known when deploying (stack, account, region, the chosen parameters) is put into the names
of the template, and nowhere else.
"""

from __future__ import annotations

import copy
import re
from collections.abc import Mapping
from typing import Any

from infra.cloud import Names
from infra.difference import Conditions, Deployed

_VARIABLE = re.compile(r"\$\{([^}!]+)\}")
_PARTITION = {"AWS::Partition": "aws", "AWS::URLSuffix": "amazonaws.com"}
"""No other partition is deployed to: `infra.cloud` refuses them."""


def literal(deployed: Deployed, names: Names) -> dict[str, Any]:
    """Return the template with literal names, wherever all that a name consists of is known."""
    template: dict[str, Any] = copy.deepcopy(dict(deployed.template))
    known = {
        **deployed.parameters,
        **_PARTITION,
        "AWS::StackName": names.stack,
        "AWS::AccountId": names.account,
        "AWS::Region": names.region,
    }
    conditions = Conditions(deployed)
    for resource in template["Resources"].values():
        _name(resource.get("Properties", {}), known, conditions)
    return template


def _name(value: Any, known: Mapping[str, str], conditions: Conditions) -> None:
    """Put literals in the place of the names in a resource's properties, at any depth."""
    if isinstance(value, dict):
        for key, inner in value.items():
            told = _told(inner, known, conditions) if key.endswith("Name") else None
            if told is not None:
                value[key] = told
            else:
                _name(inner, known, conditions)
    elif isinstance(value, list):
        for inner in value:
            _name(inner, known, conditions)


def _told(value: Any, known: Mapping[str, str], conditions: Conditions) -> str | None:
    """Return what an expression comes to; None if that is known to AWS alone."""
    match value:
        case str():
            return value
        case {"Ref": str(name)}:
            return known.get(name)
        case {"Fn::If": [str(name), one, other]}:
            return _told(one if conditions.holds(name) else other, known, conditions)
        case {"Fn::Sub": str(text)} if known.keys() >= set(_VARIABLE.findall(text)):
            return _VARIABLE.sub(lambda found: known[found[1]], text)
    return None
