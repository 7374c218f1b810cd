"""What has a name in the template has it as a literal: CloudFormation imports nothing else."""

import json
from typing import Any

import pytest
from cfnlint.schema import PROVIDER_SCHEMA_MANAGER

from infra import naming, stack
from infra.cloud import Names
from infra.difference import DATA, Deployed
from infra.stack import Template

NAMES = Names("dev", "123456789012", "eu-central-1")
VALUES = {"Stage": "dev", "CodeBucket": NAMES.code, "CodeKey": "code/1.zip"}


def named(template: Template, **chosen: str) -> dict[str, Any]:
    values = {**stack.defaults(template), **VALUES, **chosen}
    return naming.literal(Deployed(template, values), NAMES)


@pytest.fixture(scope="module")
def expanded(template: Template) -> dict[str, Any]:
    """The resources with CloudFront and everything, as AWS makes them."""
    made = named(template, CloudFront="yes")
    found: dict[str, Any] = stack.transform(made, region=NAMES.region)["Resources"]
    return found


def identifier(kind: str) -> list[str]:
    """Return the properties that AWS knows a resource of a kind by, if we choose them."""
    schema = PROVIDER_SCHEMA_MANAGER.get_resource_schema(NAMES.region, kind).schema
    told = {path.rpartition("/")[2] for path in schema.get("readOnlyProperties", ())}
    found = [path.rpartition("/")[2] for path in schema["primaryIdentifier"]]
    return [] if told.intersection(found) else found


def test_every_name_by_which_aws_knows_a_resource_is_a_literal(expanded: dict[str, Any]) -> None:
    put_together = [
        f"{name}.{key}: {resource['Properties'][key]}"
        for name, resource in expanded.items()
        for key in identifier(resource["Type"])
        if key.endswith("Name") and isinstance(resource.get("Properties", {}).get(key), dict)
    ]

    assert put_together == []


def test_whatever_holds_data_is_named_and_kept_so_that_it_is_taken_in_again(
    expanded: dict[str, Any],
) -> None:
    data = {name: one for name, one in expanded.items() if one["Type"] in DATA}

    assert len(data) == 4
    for name, one in data.items():
        (key,) = identifier(one["Type"])
        assert isinstance(one["Properties"][key], str), name
        assert one["DeletionPolicy"] == "RetainExceptOnCreate"


def test_names_hold_the_stage_and_where_they_must_be_the_account_and_region(
    template: Template,
) -> None:
    made = named(template)["Resources"]

    assert made["MailTable"]["Properties"]["TableName"] == "muster-dev-mail"
    assert made["CapsuleBucket"]["Properties"]["BucketName"] == NAMES.capsules
    assert made["APIHandler"]["Properties"]["FunctionName"] == "muster-dev-service"


def test_a_bucket_that_is_named_keeps_its_name(template: Template) -> None:
    made = named(template, CapsuleBucketName="ours")["Resources"]

    assert made["CapsuleBucket"]["Properties"]["BucketName"] == "ours"


def test_a_name_that_is_a_reference_to_another_resource_stays_one() -> None:
    template: Template = {
        "Resources": {
            "May": {
                "Type": "AWS::Lambda::Permission",
                "Properties": {"FunctionName": {"Ref": "Publish"}},
            },
            "Bus": {
                "Type": "X",
                "Properties": {"Name": {"Fn::Sub": "${Other.Arn}-x"}},
            },
        }
    }

    assert naming.literal(Deployed(template, {}), NAMES) == template


def test_nothing_but_names_changes_and_the_template_given_stays_as_it_was(
    template: Template,
) -> None:
    before = json.dumps(template)

    assert named(template)["Outputs"] == template["Outputs"]
    assert json.dumps(template) == before


EVERYWHERE = (
    "AWS::Budgets::Budget",
    "AWS::CloudFront::Function",
    "AWS::CloudFront::OriginAccessControl",
    "AWS::CloudWatch::Dashboard",
    "AWS::IAM::Role",
    "AWS::S3::Bucket",
)
"""What has one name in an account, or in the world, wherever it is."""


def test_one_stage_in_two_regions_has_no_name_twice(template: Template) -> None:
    values = {**stack.defaults(template), **VALUES, "CloudFront": "yes"}
    made = [
        naming.literal(Deployed(template, values), Names("dev", NAMES.account, region))
        for region in ("eu-central-1", "us-east-1")
    ]
    here, there = (set(global_names(one["Resources"])) for one in made)

    assert here
    assert here & there == set()


def test_two_stages_in_one_region_have_no_name_twice(template: Template) -> None:
    made = [
        naming.literal(
            Deployed(template, {**stack.defaults(template), **VALUES, "Stage": stage}),
            Names(stage, NAMES.account, NAMES.region),
        )
        for stage in ("dev", "prod")
    ]
    here, there = (set(names_in(one["Resources"])) for one in made)

    assert "muster-dev-mail" in here
    assert here & there == set()


def global_names(resources: dict[str, Any]) -> list[str]:
    return list(names_in({k: v for k, v in resources.items() if v["Type"] in EVERYWHERE}))


def names_in(resources: dict[str, Any]) -> list[str]:
    """Return the names that resources are given: their own, and that of what they wrap."""
    found = []
    for one in resources.values():
        properties = one.get("Properties", {})
        for level in (properties, *(v for v in properties.values() if isinstance(v, dict))):
            found += [
                value
                for key, value in level.items()
                if key.endswith("Name") and isinstance(value, str) and key not in NO_NAMES
            ]
    return found


NO_NAMES = ("DisplayName", "MetricName", "StageName", "PolicyName", "AttributeName", "DomainName")
