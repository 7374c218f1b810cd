"""The policy for whoever deploys: generated, whole, and as narrow as names make it.

What the command really calls is held against it in test_ministack.py.
"""

import json
import re
from pathlib import Path

import pytest
from botocore.session import Session

from tools import permissions

ROOT = Path(__file__).parents[2]


def test_the_file_is_what_the_tool_writes() -> None:
    text = permissions.FILE.read_text("utf-8")

    assert text == permissions.render(), "write it: python -m tools.permissions"


def test_it_fits_into_one_managed_policy() -> None:
    text = json.dumps(permissions.policy(), separators=(",", ":"))

    assert len(text) <= permissions.MOST_CHARS


def test_what_is_about_no_name_of_ours_is_what_has_no_names() -> None:
    wide = [one for one in permissions.policy()["Statement"] if one["Resource"] == "*"]
    (statement,) = wide

    assert {one for one in statement["Action"] if not one.startswith("cloudfront:")} == set(
        permissions.NOWHERE
    )


def test_roles_are_passed_to_functions_and_nobody_else() -> None:
    passing = [one for one in permissions.policy()["Statement"] if "iam:PassRole" in one["Action"]]

    assert passing == [permissions.PASSED]
    assert "iam:AttachRolePolicy" not in permissions.actions(), "no policy of others is attached"


def test_cloudformation_may_make_change_and_delete_each_type_of_the_template() -> None:
    asked = permissions.asked_by_cloudformation()

    assert "AWS::DynamoDB::Table" in permissions.types()
    for action in (
        *("dynamodb:CreateTable", "lambda:CreateFunction", "iam:CreateRole", "s3:CreateBucket"),
        *("apigateway:POST", "sns:CreateTopic", "events:PutRule", "logs:CreateLogGroup"),
        *("cloudwatch:PutMetricAlarm", "budgets:ModifyBudget", "cloudfront:CreateDistribution"),
    ):
        assert action in asked


@pytest.mark.parametrize("service", permissions.COMMAND)
def test_the_command_is_allowed_nothing_that_it_never_calls(service: str) -> None:
    """Each permission has a call of the SDK, which stands somewhere in the code."""
    code = "\n".join(
        path.read_text("utf-8")
        for room in ("infra", "chalicelib/store", "muster/cli")
        for path in (ROOT / room).rglob("*.py")
    )
    names = {CLIENTS.get(service, service)}
    model = Session().get_service_model(names.pop())
    other = {asked: called for called, asked in permissions.CALLED_AS.items()}
    for name in permissions.COMMAND[service]:
        called = other.get(f"{service}:{name}", f"{service}:{name}").partition(":")[2]
        spelled = {called, re.sub(r"(?<!^)(?=[A-Z])", "_", called).lower()}
        if name in BY_THE_WAY:
            continue
        assert called in model.operation_names, name
        assert any(re.search(rf"\b{one}\b", code) for one in spelled), name


CLIENTS = {"cloudwatch": "cloudwatch"}
BY_THE_WAY = {
    "AddTagsToResource": "a parameter is put with its tags",
    "DeleteObjectVersion": "objects are deleted with their versions",
    "ListBucket": "a bucket is looked for",
}
