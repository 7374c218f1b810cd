"""Permissions: write the policy for whoever deploys, `python -m tools.permissions`.

What the command itself calls is listed here; the tests deploy in an emulator and hold the
list against what is called (tests/infra/test_ministack.py). What CloudFormation does in the
caller's name it takes from its own schemas of the types that the template has. Whatever has
a name is named: a deployment's things begin with `muster-`.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from infra import stack

REPOSITORY = Path(__file__).resolve().parents[1]
FILE = REPOSITORY / "packaging" / "deploy-policy.json"
MOST_CHARS = 6144
"""How long a managed policy may be, white space not counted (IAM quotas)."""

COMMAND: Mapping[str, tuple[str, ...]] = {
    "cloudformation": (
        *("CreateChangeSet", "DescribeChangeSet", "ExecuteChangeSet", "DeleteChangeSet"),
        *("DescribeStacks", "DescribeStackEvents", "DescribeEvents", "ListStackResources"),
        *("GetTemplate", "DeleteStack", "ContinueUpdateRollback"),
    ),
    "dynamodb": (
        *("DescribeTable", "UpdateTable", "DeleteTable", "PutItem", "Query", "DeleteItem"),
        *("DescribeContinuousBackups", "UpdateContinuousBackups", "GetItem"),
    ),
    "lambda": ("GetAccountSettings", "InvokeFunction"),
    "logs": ("DescribeLogGroups", "DeleteLogGroup", "FilterLogEvents"),
    "cloudwatch": ("DescribeAlarms",),
    "s3": (
        *("CreateBucket", "ListBucket", "ListBucketVersions", "GetObject", "PutObject"),
        *("DeleteObject", "DeleteObjectVersion", "PutBucketVersioning", "PutBucketTagging"),
        *("PutLifecycleConfiguration", "PutBucketPublicAccessBlock", "DeleteBucket"),
    ),
    "ssm": ("GetParameter", "PutParameter", "DeleteParameter", "AddTagsToResource"),
    "sts": ("GetCallerIdentity",),
}
"""What the verbs plan, deploy, status, logs, access, rotate and destroy ask AWS for."""

CALLED_AS = {
    "s3:HeadBucket": "s3:ListBucket",
    "s3:HeadObject": "s3:GetObject",
    "s3:ListObjectVersions": "s3:ListBucketVersions",
    "s3:DeleteObjects": "s3:DeleteObject",
    "s3:PutBucketLifecycleConfiguration": "s3:PutLifecycleConfiguration",
    "s3:PutPublicAccessBlock": "s3:PutBucketPublicAccessBlock",
    "lambda:Invoke": "lambda:InvokeFunction",
}
"""Calls whose permission has another name."""

NAMED: Mapping[str, tuple[str, ...]] = {
    "cloudformation": (
        "arn:aws:cloudformation:*:*:stack/muster-*",
        "arn:aws:cloudformation:*:aws:transform/Serverless-2016-10-31",
    ),
    "dynamodb": ("arn:aws:dynamodb:*:*:table/muster-*",),
    "lambda": ("arn:aws:lambda:*:*:function:muster-*",),
    "logs": ("arn:aws:logs:*:*:log-group:/aws/lambda/muster-*",),
    "cloudwatch": (
        "arn:aws:cloudwatch:*:*:alarm:muster-*",
        "arn:aws:cloudwatch::*:dashboard/muster-*",
    ),
    "s3": ("arn:aws:s3:::muster-*",),
    "ssm": ("arn:aws:ssm:*:*:parameter/muster/*",),
    "sns": ("arn:aws:sns:*:*:muster-*",),
    "events": ("arn:aws:events:*:*:rule/muster-*",),
    "iam": ("arn:aws:iam::*:role/muster-*",),
    "apigateway": (
        "arn:aws:apigateway:*::/apis",
        "arn:aws:apigateway:*::/apis/*",
        "arn:aws:apigateway:*::/tags/*",
    ),
    "budgets": ("arn:aws:budgets::*:budget/*",),
}
"""Where each service's things are that are ours; whatever else is asked about all there are."""

NOWHERE = frozenset(
    {
        "cloudwatch:DescribeAlarms",
        "lambda:GetAccountSettings",
        "logs:DescribeLogGroups",
        "sts:GetCallerIdentity",
    }
)
"""What cannot be allowed for single things."""

PASSED = {
    "Effect": "Allow",
    "Action": "iam:PassRole",
    "Resource": "arn:aws:iam::*:role/muster-*",
    "Condition": {"StringEquals": {"iam:PassedToService": "lambda.amazonaws.com"}},
}

_UNUSED = (
    *("Replica", "Kinesis", "ContributorInsights", "Import", "MetadataTable", "Analytics"),
    *("Inventory", "IntelligentTiering", "Metrics", "Replication", "Accelerate", "ObjectLock"),
    *("CodeSigning", "RuntimeManagement", "RuntimeAlias", "Recursion", "Scaling", "LayerVersion"),
    *("CapacityProvider", "DataProtection", "IndexPolic", "Kms", "LogDelivery", "BearerToken"),
    *("ConnectionGroup", "VpcOrigin", "Staging", "PermissionsBoundary", "AttachRolePolicy"),
    *("DetachRolePolicy", "Website", "Notification", "Abac", "BillingView", "MetadataAnnotation"),
    *("MetadataInventory", "MetadataJournal", "BatchWrite", "Scan", "UpdateItem", "LogStream"),
    *("PutLogEvents", "ServiceLinked", "ObjectAcl", "BucketLogging", "DeletionProtection"),
)
"""Parts of the names of what the schemas list for features that the template does not use."""


def types() -> frozenset[str]:
    """Return the types of resources that a deployment consists of, once SAM has done its part."""
    template = json.loads(stack.RESOURCES.read_text())
    own = {one["Type"] for one in template["Resources"].values() if "Type" in one}
    sam = {"AWS::Lambda::Function", "AWS::Events::Rule", "AWS::ApiGatewayV2::Deployment"}
    return frozenset(own | sam)


def asked_by_cloudformation() -> frozenset[str]:
    """Return what CloudFormation asks for to make, change, read and delete these types."""
    import cfnlint

    schemas = Path(cfnlint.__file__).parent / "data" / "schemas"
    known = json.loads((schemas / "providers" / "us-east-1.json").read_text())
    found: set[str] = set()
    for kind in types():
        schema = json.loads((schemas / "resources" / f"{known[kind]}.json").read_text())
        for verb, handler in schema.get("handlers", {}).items():
            if verb != "list":
                found.update(handler.get("permissions", ()))
    return frozenset(action for action in found if _is_ours(action))


def actions() -> frozenset[str]:
    """Return everything that deploying and its kin need."""
    command = {f"{service}:{name}" for service, names in COMMAND.items() for name in names}
    return asked_by_cloudformation() | command


def policy() -> dict[str, Any]:
    """Return the policy."""
    everything = actions()
    statements = [
        _allow(_of(service, everything - NOWHERE), resources)
        for service, resources in sorted(NAMED.items())
    ]
    elsewhere = {one for one in everything if one.partition(":")[0] not in NAMED} | NOWHERE
    return {
        "Version": "2012-10-17",
        "Statement": [*statements, PASSED, _allow(elsewhere, ("*",))],
    }


def render() -> str:
    """Return the file's text."""
    return json.dumps(policy(), indent=1) + "\n"


def _allow(wanted: Iterable[str], resources: tuple[str, ...]) -> dict[str, Any]:
    return {
        "Effect": "Allow",
        "Action": sorted(wanted),
        "Resource": resources[0] if len(resources) == 1 else list(resources),
    }


def _of(service: str, everything: Iterable[str]) -> set[str]:
    return {one for one in everything if one.partition(":")[0] == service}


def _is_ours(action: str) -> bool:
    """Say whether an action is about a service and a feature that the template has."""
    service, _, name = action.partition(":")
    known = service in NAMED or service == "cloudfront"
    real = name.isalnum() and name[0].isupper() and name not in ("PassRole", "GetObjectMetadata")
    return known and real and not any(part in name for part in _UNUSED)


if __name__ == "__main__":
    FILE.write_text(render(), encoding="utf-8")
