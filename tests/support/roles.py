"""Roles: what the template lets its functions do, judged request by request.

The emulators do not ask who may do what. This does, as far as our policies go: actions,
tables, and the partition keys that a request names (`dynamodb:LeadingKeys`); and what else
is named by the text of its ARN.
"""

import json
import re
from collections.abc import Mapping
from typing import Any, NamedTuple

from infra import stack

TABLES = ("PresenceTable", "MailTable", "GuardTable")
"""By their logical ids, in the order of `TableNames`."""


class Asked(NamedTuple):
    """One action on one table, and the partition keys that it names."""

    action: str
    table: str
    keys: frozenset[str] = frozenset()


def asked(operation: str, body: Mapping[str, Any]) -> list[Asked]:
    """Read a request as DynamoDB judges it: each table of a batch by itself."""
    if "RequestItems" not in body:
        return [Asked(operation, body["TableName"], frozenset(_keys(body)))]
    found = []
    for table, rows in body["RequestItems"].items():
        wanted = rows["Keys"] if isinstance(rows, dict) else [_written(row) for row in rows]
        found.append(Asked(operation, table, frozenset(key["pk"]["S"] for key in wanted)))
    return found


def _keys(body: Mapping[str, Any]) -> list[str]:
    if "KeyConditionExpression" in body:
        assert re.match(r"pk = :pk( AND |$)", body["KeyConditionExpression"])
        return [body["ExpressionAttributeValues"][":pk"]["S"]]
    key = body.get("Key") or body.get("Item")
    return [key["pk"]["S"]] if key else []


def _written(row: Mapping[str, Any]) -> Any:
    return row["PutRequest"]["Item"] if "PutRequest" in row else row["DeleteRequest"]["Key"]


class Role:
    """One function's role, from the template's part that Chalice does not make."""

    def __init__(self, name: str) -> None:
        resources = json.loads(stack.RESOURCES.read_text())["Resources"]
        (policy,) = resources[name]["Properties"]["Policies"]
        every = policy["PolicyDocument"]["Statement"]
        self.statements = [one for one in every if _is_about(one, "dynamodb")]
        self.others = [one for one in every if _is_about(one, "events", "s3", "ssm")]

    def allows(self, wanted: Asked) -> bool:
        """Say whether a request, its table by its logical id, is allowed; nothing is by default."""
        return any(_allows(statement, wanted) for statement in self.statements)

    def lets(self, action: str, arn: str) -> bool:
        """Say whether an action on what the template calls *arn* is allowed."""
        return any(
            action in statement["Action"] and _like(pattern, arn)
            for statement in self.others
            for pattern in _arns(statement)
        )

    def keys(self, table: str) -> set[str]:
        """Return the patterns of partition keys that some statement names for a table."""
        return {
            pattern
            for statement in self.statements
            if statement["Resource"] == {"Fn::GetAtt": [table, "Arn"]}
            for pattern in _patterns(statement) or ()
        }


def _is_about(statement: Mapping[str, Any], *services: str) -> bool:
    return any(action.partition(":")[0] in services for action in statement["Action"])


def _arns(statement: Mapping[str, Any]) -> list[str]:
    """Return the ARNs of a statement that has no condition, as texts of the template."""
    assert (statement["Effect"], statement.get("Condition")) == ("Allow", None)
    named = statement["Resource"]
    return [
        one["Fn::Sub"] if "Fn::Sub" in one else f"${{{'.'.join(one['Fn::GetAtt'])}}}"
        for one in (named if isinstance(named, list) else [named])
    ]


def _allows(statement: Mapping[str, Any], wanted: Asked) -> bool:
    assert statement["Effect"] == "Allow"
    if f"dynamodb:{wanted.action}" not in statement["Action"]:
        return False
    if statement["Resource"] != {"Fn::GetAtt": [wanted.table, "Arn"]}:
        return False
    patterns = _patterns(statement)
    return patterns is None or all(
        any(_like(pattern, key) for pattern in patterns) for key in wanted.keys
    )


def _patterns(statement: Mapping[str, Any]) -> list[str] | None:
    """Return the keys that a statement is for; None if it is for all. No other condition is known.

    A set operator holds where there is no key at all, which no action of ours allows.
    """
    condition = statement.get("Condition")
    if condition is None:
        return None
    assert list(condition) == ["ForAllValues:StringLike"]
    assert list(condition["ForAllValues:StringLike"]) == ["dynamodb:LeadingKeys"]
    found: list[str] = condition["ForAllValues:StringLike"]["dynamodb:LeadingKeys"]
    return found


def _like(pattern: str, key: str) -> bool:
    """Compare as `StringLike` does: `*` is any text, `?` one character, all else itself."""
    form = "".join({"*": ".*", "?": "."}.get(char, re.escape(char)) for char in pattern)
    return re.fullmatch(form, key, re.DOTALL) is not None
