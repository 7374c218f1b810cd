"""Is the template least-privilege, bounded, watched, and does CloudFormation take it?"""

import json
import re
import subprocess
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from chalicelib.aws import edge
from chalicelib.community import press
from chalicelib.routes import PATHS
from infra import bill, cost, linting, stack
from infra.cloud import Names
from infra.difference import Conditions, Deployed
from infra.gateway_responses import EXTENSION, gateway_responses
from infra.parameters import OUR_VARIABLES
from infra.stack import Template
from tests.support import node

ROOT = Path(__file__).resolve().parents[2]

JUSTIFIED = {
    # Connections are made while the service runs: their ids are known to nobody before.
    ("ServiceRole", "Resource", "${WebsocketAPI}/api/POST/@connections/*"),
    ("ServiceRole", "Resource", "${WebsocketAPI}/api/DELETE/@connections/*"),
    # Communities are named by those who announce; all of them are under one prefix.
    ("PublishRole", "Resource", "${CapsuleBucket.Arn}/capsules/*"),
    ("CapsuleBucketPolicy", "Resource", "${CapsuleBucket.Arn}/capsules/*"),
    # This statement forbids: everything, to everybody, without TLS.
    ("CapsuleBucketPolicy", "Principal", "*"),
    ("CapsuleBucketPolicy", "Action", "s3:*"),
    ("CapsuleBucketPolicy", "Resource", "${CapsuleBucket.Arn}/*"),
    # API Gateway may call the service for every path and method of these two APIs.
    ("APIHandlerInvokePermission", "SourceArn", "/*"),
    ("WebsocketInvokePermission", "SourceArn", "${WebsocketAPI}/*"),
}
"""Every `*` in a policy, and why."""


@pytest.mark.timeout(180)
@pytest.mark.parametrize("runtime", stack.RUNTIMES)
def test_cloudformation_has_nothing_against_it(template: Template, runtime: str) -> None:
    found = linting.problems(stack.retarget(template, runtime), region="eu-central-1")

    assert found == []


def test_a_template_with_a_mistake_is_found_out(template: Template) -> None:
    wrong = json.loads(stack.encode(template))
    wrong["Resources"]["MailTable"]["Properties"]["BillingMode"] = "FREE"

    found = linting.problems(wrong, region="eu-central-1")

    assert found
    assert found[0].startswith("E")


# --- who may do what --------------------------------------------------------------


def _strings(value: Any) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, Mapping):
        for inner in value.values():
            yield from _strings(inner)
    elif isinstance(value, list):
        for inner in value:
            yield from _strings(inner)


def _statements(resource: Mapping[str, Any]) -> Iterator[Mapping[str, Any]]:
    """Give every statement of every policy in a resource, inside conditions too."""
    found: list[Any] = []

    def search(value: Any) -> None:
        if isinstance(value, Mapping):
            if "Effect" in value:
                found.append(value)
            for inner in value.values():
                search(inner)
        elif isinstance(value, list):
            for inner in value:
                search(inner)

    search(resource)
    yield from found


def _stars(template: Template) -> Iterator[tuple[str, str, str]]:
    for name, resource in template["Resources"].items():
        for statement in _statements(resource):
            for part in ("Action", "NotAction", "Resource", "NotResource", "Principal"):
                for text in _strings(statement.get(part, [])):
                    if "*" in text:
                        yield name, part, text
        if resource["Type"] == "AWS::Lambda::Permission":
            for text in _strings(resource["Properties"]["SourceArn"]):
                if "*" in text:
                    yield name, "SourceArn", text


def test_no_star_is_unjustified(template: Template) -> None:
    unknown = [
        star
        for star in _stars(template)
        if not any(
            star[:2] == known[:2]
            and (star[2] == known[2] or star[2].endswith(known[2]))
            and (known[2] != "*" or star[2] == "*")
            for known in JUSTIFIED
        )
    ]

    assert unknown == []


def test_the_justified_stars_are_there(template: Template) -> None:
    stars = list(_stars(template))

    unused = [
        known
        for known in JUSTIFIED
        if not any(s[:2] == known[:2] and s[2].endswith(known[2]) for s in stars)
    ]

    assert unused == []


def test_only_public_capsules_may_be_read_by_everybody(template: Template) -> None:
    policy = template["Resources"]["CapsuleBucketPolicy"]
    to_all = [
        s for s in _statements(policy) if s.get("Principal") == "*" and s["Effect"] == "Allow"
    ]

    assert [s["Sid"] for s in to_all] == ["AnybodyReadsCapsules"]
    assert to_all[0]["Action"] == "s3:GetObject"
    conditions = [
        entry["Fn::If"][0]
        for entry in policy["Properties"]["PolicyDocument"]["Statement"]
        if "Fn::If" in entry and to_all[0] in entry["Fn::If"]
    ]
    assert conditions == ["OpenBucket"]


def test_each_function_has_only_its_own(template: Template) -> None:
    resources = template["Resources"]
    roles = [name for name, r in resources.items() if r["Type"] == "AWS::IAM::Role"]
    serve, publish = (json.dumps(resources[name]) for name in ("ServiceRole", "PublishRole"))

    assert sorted(roles) == ["PublishRole", "ServiceRole"]
    assert "ssm:" not in serve
    assert "s3:" not in serve
    assert "MailTable" not in publish
    assert "execute-api" not in publish
    for role in (serve, publish):
        for forbidden in ("Scan", "DeleteTable", "CreateLogGroup", "iam:", "kms:"):
            assert forbidden not in role


def test_functions_get_every_variable_that_they_need_and_no_secret_in_the_clear(
    template: Template,
) -> None:
    variables = {
        name: template["Resources"][name]["Properties"]["Environment"]["Variables"]
        for name in (stack.SERVE, stack.PUBLISH)
    }

    assert set().union(*variables.values()) == set(OUR_VARIABLES)
    assert "MUSTER_CAPSULE_KEYS_PARAM" not in variables[stack.SERVE]
    assert "MUSTER_EDGE_SECRET" not in variables[stack.PUBLISH]
    assert template["Parameters"]["EdgeSecret"]["NoEcho"] is True


# --- what is in it ------------------------------------------------------------------


def test_one_function_takes_everything_but_publishing(template: Template) -> None:
    functions = {
        name: resource["Properties"]
        for name, resource in template["Resources"].items()
        if resource["Type"] == "AWS::Serverless::Function"
    }

    assert {n: f["Handler"] for n, f in functions.items()} == {
        stack.SERVE: "app.serve",
        stack.PUBLISH: "app.publish",
    }
    schedules = {
        (function["Handler"], event["Properties"]["Schedule"])
        for function in functions.values()
        for event in function["Events"].values()
    }
    assert schedules == {
        ("app.serve", "rate(1 minute)"),
        ("app.publish", f"rate({press.LOOK_S // 60} minute)"),
    }


def test_the_apis_have_every_path_and_refuse_in_our_words(template: Template) -> None:
    document = template["Resources"]["RestAPI"]["Properties"]["DefinitionBody"]
    routes = [
        r["Properties"]["RouteKey"]
        for r in template["Resources"].values()
        if r["Type"] == "AWS::ApiGatewayV2::Route"
    ]

    assert set(document["paths"]) == set(PATHS)
    assert document[EXTENSION] == gateway_responses()
    assert sorted(routes) == ["$connect", "$default", "$disconnect"]


def test_everything_is_bounded(template: Template) -> None:
    resources = template["Resources"]
    (method,) = resources["RestAPI"]["Properties"]["MethodSettings"]
    sockets = resources["WebsocketAPIStage"]["Properties"]["DefaultRouteSettings"]

    assert method["ThrottlingRateLimit"] == {"Ref": "RestRate"}
    assert method["ThrottlingBurstLimit"] == {"Ref": "RestBurst"}
    assert sockets["ThrottlingRateLimit"] == {"Ref": "SocketRate"}
    for name in ("PresenceTable", "MailTable", "GuardTable"):
        table = resources[name]["Properties"]
        assert table["BillingMode"] == "PAY_PER_REQUEST"
        assert table["TimeToLiveSpecification"] == {"AttributeName": "expires_at", "Enabled": True}
        assert table["OnDemandThroughput"] == {
            "MaxReadRequestUnits": {"Ref": "TableReadUnits"},
            "MaxWriteRequestUnits": {"Ref": "TableWriteUnits"},
        }
    for name in (stack.SERVE, stack.PUBLISH):
        assert "ReservedConcurrentExecutions" in resources[name]["Properties"]
    logs = [r for r in resources.values() if r["Type"] == "AWS::Logs::LogGroup"]
    assert len(logs) == 2
    assert all("RetentionInDays" in log["Properties"] for log in logs)


def test_data_outlives_the_stack(template: Template) -> None:
    for resource in template["Resources"].values():
        if resource["Type"] in ("AWS::DynamoDB::Table", "AWS::S3::Bucket"):
            assert resource["DeletionPolicy"] == "RetainExceptOnCreate"
            assert resource["UpdateReplacePolicy"] == "Retain"


def test_the_capsule_bucket_is_private_versioned_and_forgets(template: Template) -> None:
    bucket = template["Resources"]["CapsuleBucket"]["Properties"]

    assert bucket["VersioningConfiguration"] == {"Status": "Enabled"}
    assert bucket["PublicAccessBlockConfiguration"]["BlockPublicAcls"] is True
    assert bucket["OwnershipControls"]["Rules"] == [{"ObjectOwnership": "BucketOwnerEnforced"}]
    assert bucket["LifecycleConfiguration"]["Rules"][0]["NoncurrentVersionExpiration"]


def test_alarms_go_to_the_topic(template: Template) -> None:
    alarms = {
        name: resource["Properties"]
        for name, resource in template["Resources"].items()
        if resource["Type"] == "AWS::CloudWatch::Alarm"
    }

    assert len(alarms) == cost.ALARMS
    for alarm in alarms.values():
        assert alarm["AlarmActions"] == [{"Ref": "AlarmTopic"}]
        assert alarm["AlarmDescription"]
    failures, beacon = alarms["PublishFailuresAlarm"], alarms["BeaconAlarm"]
    assert (failures["MetricName"], failures["Threshold"]) == ("PublishFailuresInARow", 2)
    assert (beacon["MetricName"], beacon["Threshold"], beacon["Period"]) == (
        "BeaconSuccess",
        0.8,
        900,
    )
    assert beacon["ComparisonOperator"] == "LessThanThreshold"


def test_what_a_day_costs_is_counted_with_the_regions_prices(template: Template) -> None:
    known = bill.PRICES["regions"]["us-east-1"]
    told = template["Mappings"]["Prices"]["USD"]

    assert float(told["Call"]) == known["http_call"]
    assert float(told["Write"]) == known["write_unit"]


def test_names_are_what_the_command_takes_them_for(template: Template) -> None:
    names = Names("dev", "123456789012", "eu-central-1")
    resources = template["Resources"]

    def named(name: str, key: str) -> str:
        text: str = resources[name]["Properties"][key]["Fn::Sub"]
        for variable, value in (
            ("AWS::StackName", names.stack),
            ("AWS::AccountId", names.account),
            ("AWS::Region", names.region),
        ):
            text = text.replace(f"${{{variable}}}", value)
        return text

    tables = ("PresenceTable", "MailTable", "GuardTable")
    assert tuple(named(name, "TableName") for name in tables) == names.tables
    assert tuple(named(n, "LogGroupName") for n in ("ServiceLogs", "PublishLogs")) == names.logs
    assert f"{names.stack}-capsules-{names.account}-{names.region}" == names.capsules
    keys = resources[stack.PUBLISH]["Properties"]["Environment"]["Variables"]
    parameter = keys["MUSTER_CAPSULE_KEYS_PARAM"]["Fn::Sub"].replace("${Stage}", "dev")
    assert parameter == names.keys


def test_a_change_of_routes_is_a_new_deployment_of_the_websocket_api(template: Template) -> None:
    names = [n for n in template["Resources"] if n.startswith("WebsocketAPIDeployment")]

    assert len(names) == 1
    assert re.fullmatch(r"WebsocketAPIDeployment[0-9a-f]{10}", names[0])
    stage = template["Resources"]["WebsocketAPIStage"]["Properties"]
    assert stage["DeploymentId"] == {"Ref": names[0]}


def test_without_cloudfront_nothing_of_it_is_there(template: Template) -> None:
    defaults = stack.defaults(template)

    def present(**chosen: str) -> set[str]:
        conditions = Conditions(Deployed(template, {**defaults, **chosen}))
        return {
            name
            for name, resource in template["Resources"].items()
            if "Condition" not in resource or conditions.holds(resource["Condition"])
        }

    gone = present(CloudFront="yes") - present(CloudFront="no")
    assert gone == {"Distribution", "EdgeFunction", "CapsuleAccess"}
    assert present(AlarmEmail="a@example.org") - present(AlarmEmail="") == {"AlarmMail"}


# --- the edge -------------------------------------------------------------------------


def test_one_domain_leads_everywhere(template: Template) -> None:
    config = template["Resources"]["Distribution"]["Properties"]["DistributionConfig"]
    leads = {b["PathPattern"]: b["TargetOriginId"] for b in config["CacheBehaviors"]}
    origins = {origin["Id"]: origin for origin in config["Origins"]}

    assert leads == {
        "/v1/relay/ws": "sockets",
        "/capsules/*": "capsules",
        "/v1/*": "calls",
        "/announce": "calls",
        "/peers": "calls",
        "/api/*": "calls",
    }
    assert config["DefaultCacheBehavior"]["TargetOriginId"] == "calls"
    for name in ("calls", "sockets"):
        (header,) = origins[name]["OriginCustomHeaders"]
        assert header == {"HeaderName": edge.SECRET, "HeaderValue": {"Ref": "EdgeSecret"}}
    assert "OriginCustomHeaders" not in origins["capsules"]


@pytest.mark.parametrize(
    ("uri", "leads_to"),
    [("/v1/relay/ws", "/"), ("/v1/peers", "/v1/peers"), ("/v1/relay/ws/", "/v1/relay/ws/")],
)
def test_the_edge_says_who_calls_whatever_the_viewer_says(
    template: Template, uri: str, leads_to: str
) -> None:
    code = template["Resources"]["EdgeFunction"]["Properties"]["FunctionCode"]
    event = {
        "viewer": {"ip": "2001:db8::7"},
        "request": {"uri": uri, "headers": {edge.VIEWER: {"value": "203.0.113.9"}}},
    }
    script = f"{code}\nconsole.log(JSON.stringify(handler({json.dumps(event)})));"

    done = subprocess.run(
        [str(node.executable()), "-e", script], capture_output=True, text=True, check=True
    )

    assert json.loads(done.stdout) == {
        "uri": leads_to,
        "headers": {edge.VIEWER: {"value": "2001:db8::7"}},
    }


# --- the picture in the docs ------------------------------------------------------------


def picture() -> str:
    text = (ROOT / "docs" / "aws.md").read_text(encoding="utf-8")
    return text[text.index("## How it is built") :].partition("\n## ")[0]


def test_everything_in_the_docs_picture_is_in_the_template(template: Template) -> None:
    section = picture()
    named = set(re.findall(r"`(AWS::[A-Za-z0-9]+::[A-Za-z0-9]+)`", section))
    there = {resource["Type"] for resource in template["Resources"].values()}

    assert named, "the picture names resources by their types"
    assert named - there == set()


def test_the_docs_picture_leaves_no_kind_out(template: Template) -> None:
    section = picture()
    small = {
        "AWS::ApiGatewayV2::Deployment",
        "AWS::ApiGatewayV2::Integration",
        "AWS::ApiGatewayV2::Route",
        "AWS::ApiGatewayV2::Stage",
        "AWS::CloudFront::Function",
        "AWS::CloudFront::OriginAccessControl",
        "AWS::Lambda::Permission",
        "AWS::S3::BucketPolicy",
        "AWS::SNS::Subscription",
    }
    there = {resource["Type"] for resource in template["Resources"].values()} - small

    assert {kind for kind in there if f"`{kind}`" not in section} == set()
