"""Standing: what a deployment has that costs money by the month, counted from its template.

So nothing can be forgotten: what is put into the template is on the bill. Alarms are charged
by the metrics that they look at, own metrics by their names.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, Self

RESOURCES = Path(__file__).parent / "resources.json"

CODE_GB, TABLES_GB = 0.05, 0.01
"""Packed code of a few versions, and capsules; what the tables of a small circle hold."""

PLATFORM_BYTES, PLATFORM_LINES = 420, 3
"""What Lambda itself logs of each run, unless it is told to be quiet; and in so many lines."""

LINE_BYTES = 26
"""What CloudWatch counts for each line beyond its text."""


@dataclass(frozen=True, slots=True)
class Standing:
    """What is there all month, whoever calls."""

    alarms: int = 0
    metrics: int = 0
    dashboards: int = 0
    platform_bytes: int = 0
    """What the platform logs of a run, on its own."""

    @classmethod
    def of(cls, template: Mapping[str, Any], parameters: Mapping[str, str]) -> Self:
        """Count in a template, with the parameters of a deployment; others have their default."""
        known = _defaults(template) | dict(parameters)
        conditions = template.get("Conditions", {})
        there = [
            resource
            for resource in template["Resources"].values()
            if "Condition" not in resource or _true(resource["Condition"], conditions, known)
        ]
        alarms = [metric for one in _of_type(there, "Alarm") for metric in _metrics(one)]
        return cls(
            alarms=len(alarms),
            metrics=len({name for name in alarms if not name[0].startswith("AWS/")}),
            dashboards=len(list(_of_type(there, "Dashboard"))),
            platform_bytes=0 if _quiet(there) else PLATFORM_BYTES + PLATFORM_LINES * LINE_BYTES,
        )


@cache
def as_it_comes() -> Standing:
    """Return what a deployment has whose parameters nobody chose."""
    return chosen({})


def chosen(parameters: Mapping[str, str]) -> Standing:
    """Return what a deployment of today's template has."""
    return Standing.of(json.loads(RESOURCES.read_text()), parameters)


def _defaults(template: Mapping[str, Any]) -> dict[str, str]:
    return {
        name: str(declared.get("Default", ""))
        for name, declared in template.get("Parameters", {}).items()
    }


def _of_type(there: list[Mapping[str, Any]], kind: str) -> Iterator[Mapping[str, Any]]:
    for resource in there:
        if resource.get("Type") == f"AWS::CloudWatch::{kind}":
            yield resource["Properties"]


def _metrics(alarm: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """Name the metrics that an alarm looks at, each as often as it is charged."""
    if "MetricName" in alarm:
        yield str(alarm["Namespace"]), str(alarm["MetricName"])
    for one in alarm.get("Metrics", ()):
        if "MetricStat" in one:
            metric = one["MetricStat"]["Metric"]
            yield str(metric["Namespace"]), str(metric["MetricName"])


def _quiet(there: list[Mapping[str, Any]]) -> bool:
    """Say whether every function keeps the platform's own lines to warnings."""
    logging = [
        resource.get("Properties", {}).get("LoggingConfig")
        for resource in there
        if "Environment" in resource.get("Properties", {})
    ]
    return all((one or {}).get("SystemLogLevel") == "WARN" for one in logging)


def _true(condition: Any, conditions: Mapping[str, Any], known: Mapping[str, str]) -> bool:
    """Work out a condition of a template."""

    def value(of: Any) -> Any:
        return known.get(of["Ref"], "") if isinstance(of, Mapping) and "Ref" in of else of

    if isinstance(condition, str):
        return _true(conditions[condition], conditions, known)
    ((verb, told),) = condition.items()
    if verb == "Condition":
        return _true(told, conditions, known)
    if verb == "Fn::Equals":
        return str(value(told[0])) == str(value(told[1]))
    inner = [_true(one, conditions, known) for one in told]
    return {"Fn::Not": not inner[0], "Fn::And": all(inner), "Fn::Or": any(inner)}[verb]
