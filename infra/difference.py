"""The difference: what a deployment would change, found here or by AWS, as people read it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

from infra import stack
from muster.cli import output

Action = Literal["add", "change", "replace", "remove"]

_SIGNS: Mapping[Action, str] = {"add": "+", "change": "~", "replace": "!", "remove": "-"}

_KINDS = {
    "AWS::ApiGateway::Deployment": "REST API, what is deployed",
    "AWS::ApiGateway::RestApi": "REST API",
    "AWS::ApiGateway::Stage": "REST API, its stage",
    "AWS::ApiGatewayV2::Api": "API",
    "AWS::ApiGatewayV2::Deployment": "API, what is deployed",
    "AWS::ApiGatewayV2::Integration": "API, its way to the service",
    "AWS::ApiGatewayV2::Route": "API, a route",
    "AWS::ApiGatewayV2::Stage": "API, its stage",
    "AWS::Budgets::Budget": "budget",
    "AWS::CloudFront::Distribution": "CloudFront",
    "AWS::CloudFront::Function": "CloudFront, what it does with a call",
    "AWS::CloudFront::OriginAccessControl": "CloudFront, its way to the capsules",
    "AWS::CloudWatch::Alarm": "alarm",
    "AWS::CloudWatch::Dashboard": "dashboard",
    "AWS::DynamoDB::Table": "table",
    "AWS::Events::Rule": "schedule",
    "AWS::IAM::Role": "role",
    "AWS::Lambda::Function": "function",
    "AWS::Lambda::Permission": "permission",
    "AWS::Logs::LogGroup": "log",
    "AWS::S3::Bucket": "bucket",
    "AWS::S3::BucketPolicy": "bucket, who may read it",
    "AWS::SNS::Subscription": "alarms by e-mail",
    "AWS::SNS::Topic": "topic for alarms",
    "AWS::Serverless::Api": "REST API",
    "AWS::Serverless::Function": "function",
}

DATA = ("AWS::DynamoDB::Table", "AWS::S3::Bucket")
"""What holds something that cannot be made again."""


@dataclass(frozen=True, slots=True)
class Change:
    """One resource, and what becomes of it."""

    action: Action
    name: str
    kind: str
    why: tuple[str, ...] = ()

    @property
    def destroys_data(self) -> bool:
        """Whether something is lost that cannot be made again."""
        return self.kind in DATA and self.action in ("remove", "replace")

    def to_json(self) -> dict[str, Any]:
        """Return it for programs."""
        return {"action": self.action, "name": self.name, "type": self.kind, "why": list(self.why)}


@dataclass(frozen=True, slots=True)
class Deployed:
    """What is there: the template as it was given, and the parameters."""

    template: Mapping[str, Any]
    parameters: Mapping[str, str]


def between(old: Deployed | None, new: Deployed) -> list[Change]:
    """Compare what is there with what would be, without asking anybody."""
    before, after = _existing(old) if old else {}, _existing(new)
    moved = _moved(old, new)
    conditions = new.template.get("Conditions", {})
    found = []
    for name in sorted(before.keys() | after.keys()):
        kind = (after.get(name) or before[name])["Type"]
        if name not in before:
            found.append(Change("add", name, kind))
        elif name not in after:
            found.append(Change("remove", name, kind))
        elif why := _why(before[name], after[name], moved, conditions):
            found.append(Change("change", name, kind, why))
    return found


def _moved(old: Deployed | None, new: Deployed) -> set[str]:
    """Name the parameters that differ, the hidden ones too."""
    if old is None:
        return set()
    before = old.parameters
    return {
        name
        for name, value in new.parameters.items()
        if before.get(name, "") != value and not (hidden(name) and before.get(name))
    }


def changed_parameters(old: Deployed | None, new: Deployed) -> dict[str, tuple[str, str]]:
    """Return the parameters that differ and may be shown: before and after."""
    before = old.parameters if old else {}
    return {
        name: (before.get(name, ""), new.parameters[name])
        for name in _moved(old, new)
        if not hidden(name)
    }


def hidden(name: str) -> bool:
    """Say whether a parameter is not to be shown."""
    return name == "EdgeSecret"


def from_change_set(described: Iterable[Mapping[str, Any]]) -> list[Change]:
    """Read the changes of a change set."""
    found = []
    for entry in described:
        change = entry.get("ResourceChange")
        if not change:
            continue
        details = change.get("Details") or ()
        why = {
            target.get("Name") or target.get("Attribute", "")
            for target in (detail.get("Target") or {} for detail in details)
        }
        action: Action = {"Add": "add", "Remove": "remove", "Import": "add"}.get(  # type: ignore[assignment]
            change["Action"], "replace" if change.get("Replacement") == "True" else "change"
        )
        names = tuple(sorted(name for name in why if name))
        found.append(Change(action, change["LogicalResourceId"], change["ResourceType"], names))
    return sorted(found, key=lambda change: change.name)


def moved(base: str) -> str:
    """Say in capitals what it means that an address goes."""
    return (
        f"THE ADDRESS {base} GOES, AND ANOTHER DEPLOYMENT GETS ANOTHER ONE: INVITES, LINKS AND "
        "PROFILES THAT NAME IT LEAD NOWHERE THEN."
    )


def moves(old: Deployed | None, new: Deployed, changes: Iterable[Change]) -> bool:
    """Say whether clients find the service somewhere else afterwards."""
    if old is None:
        return False
    before, after = _addressed(old), _addressed(new)
    gone = {change.name for change in changes if change.action in ("remove", "replace")}
    return before != after or before in gone


def _addressed(deployed: Deployed) -> str:
    """Return what gives a deployment its address: a domain, or a resource."""
    domain = deployed.parameters.get("DomainName", "")
    if "Distribution" in _existing(deployed):
        return domain or "Distribution"
    names = deployed.template.get("Resources", {})
    return next((name for name in ("CallsApi", "RestAPI") if name in names), "")


def show(changes: Iterable[Change], moved: Mapping[str, tuple[str, str]]) -> None:
    """Print changes, what is lost last and loudest."""
    found = list(changes)
    if not found and not moved:
        output.show("Nothing changes.")
        return
    for name, (before, after) in sorted(moved.items()):
        output.show(f"  ~ {name}: {before or 'nothing'} -> {after or 'nothing'}")
    for change in found:
        sign = _SIGNS[change.action]
        kind = _KINDS.get(change.kind, change.kind)
        why = f"  ({', '.join(change.why)})" if change.why else ""
        output.show(f"  {sign} {change.name:<32} {kind}{why}")
    output.show(f"{_counted(found)}.")
    lost = [change.name for change in found if change.destroys_data]
    if lost:
        output.show(f"THIS TAKES DATA OUT OF SERVICE: {', '.join(lost)}; the old ones are kept.")


def _counted(changes: list[Change]) -> str:
    words = {"add": "to add", "change": "to change", "replace": "to replace", "remove": "to remove"}
    counts = {action: sum(c.action == action for c in changes) for action in words}
    return ", ".join(f"{n} {words[action]}" for action, n in counts.items() if n) or "0 to change"


def _why(
    before: Mapping[str, Any],
    after: Mapping[str, Any],
    moved: set[str],
    conditions: Mapping[str, Any],
) -> tuple[str, ...]:
    old, new = before.get("Properties", {}), after.get("Properties", {})
    properties = {key for key in old.keys() | new.keys() if old.get(key) != new.get(key)}
    kept = ("DeletionPolicy", "UpdateReplacePolicy")
    properties |= {key for key in kept if before.get(key) != after.get(key)}
    through = {
        key
        for key, value in new.items()
        if not moved.isdisjoint(stack.references(value, conditions))
    }
    return tuple(sorted(properties | through))


def _existing(deployed: Deployed) -> dict[str, Any]:
    """Return the resources whose conditions hold."""
    conditions = Conditions(deployed)
    return {
        name: resource
        for name, resource in deployed.template.get("Resources", {}).items()
        if "Condition" not in resource or conditions.holds(resource["Condition"])
    }


class Conditions:
    """Works out a template's conditions, of those functions that ours use."""

    def __init__(self, deployed: Deployed) -> None:
        self._conditions = deployed.template.get("Conditions", {})
        self._parameters = {**stack.defaults(deployed.template), **deployed.parameters}

    def holds(self, name: str) -> bool:
        """Say whether a condition holds."""
        return self._true(self._conditions[name])

    def _true(self, condition: Mapping[str, Any]) -> bool:
        ((function, inner),) = condition.items()
        match function:
            case "Fn::Equals":
                one, other = (self._value(part) for part in inner)
                return one == other
            case "Fn::Not":
                return not self._true(inner[0])
            case "Fn::And":
                return all(self._true(part) for part in inner)
            case "Fn::Or":
                return any(self._true(part) for part in inner)
            case "Condition":
                return self.holds(inner)
        return True

    def _value(self, part: Any) -> str:
        if isinstance(part, Mapping) and "Ref" in part:
            return self._parameters.get(part["Ref"], "")
        return str(part)
