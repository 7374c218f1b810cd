"""Is the template least-privilege, bounded, watched, and does CloudFormation take it?"""

import copy
import json
import re
import subprocess
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from chalicelib import log
from chalicelib.aws import edge
from chalicelib.aws.events import EVERY
from chalicelib.community import press
from infra import linting, stack
from infra.ceilings import Ceilings
from infra.cloud import Names
from infra.difference import Conditions, Deployed
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
    ("ServiceRole", "Resource", "${CapsuleBucket.Arn}/capsules/*"),
    ("CapsuleBucketPolicy", "Resource", "${CapsuleBucket.Arn}/capsules/*"),
    # This statement forbids: everything, to everybody, without TLS.
    ("CapsuleBucketPolicy", "Principal", "*"),
    ("CapsuleBucketPolicy", "Action", "s3:*"),
    ("CapsuleBucketPolicy", "Resource", "${CapsuleBucket.Arn}/*"),
    # API Gateway may call the service for every path and method of these two APIs.
    ("CallsPermission", "SourceArn", "${CallsApi}/*"),
    ("WebsocketInvokePermission", "SourceArn", "${WebsocketAPI}/*"),
}
"""Every `*` in a policy, and why."""


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


@pytest.fixture(scope="module")
def expanded(template: Template) -> Template:
    """The template as AWS expands it: what SAM adds is in it."""
    return stack.transform(template, region="eu-central-1")


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
    assert "s3:PutObject" not in serve
    assert "s3:DeleteObject" not in serve + publish
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


def test_the_clocks_start_at_rest(expanded: Template) -> None:
    rules = of_type(expanded, "AWS::Events::Rule")

    assert {name: rule["State"] for name, rule in rules.items()} == {
        "APIHandlerSweep": "DISABLED",
        "PublishPublishEvent": "DISABLED",
    }


def _listed(value: Any) -> list[Any]:
    return value if isinstance(value, list) else [value]


def test_all_calls_come_by_one_route_so_that_one_throttle_counts_them(expanded: Template) -> None:
    """AWS may count the throttles of a stage for each of its routes: then each is another way."""
    routes = of_type(expanded, "AWS::ApiGatewayV2::Route")
    keys = {
        api: sorted(r["RouteKey"] for r in routes.values() if r["ApiId"] == {"Ref": api})
        for api in ("CallsApi", "WebsocketAPI")
    }

    assert keys["CallsApi"] == [f"ANY {EVERY}"]
    assert keys["WebsocketAPI"] == ["$connect", "$default", "$disconnect"]
    assert len(routes) == sum(map(len, keys.values()))
    for route in routes.values():
        assert route["Target"]["Fn::Sub"] in (
            "integrations/${CallsIntegration}",
            "integrations/${WebsocketIntegration}",
        )
    integration = of_type(expanded, "AWS::ApiGatewayV2::Integration")["CallsIntegration"]
    assert integration["PayloadFormatVersion"] == "1.0", "Chalice reads no other"
    assert "AuthorizationType" not in json.dumps(routes)
    api = expanded["Resources"]["CallsApi"]["Properties"]
    assert "CorsConfiguration" not in api, "the service answers preflights, and counts them"


def test_each_api_has_one_stage_and_throttles_on_it(expanded: Template) -> None:
    """A stage without throttles is a way past every limit and alarm."""
    stages = of_type(expanded, "AWS::ApiGatewayV2::Stage")
    kinds = {resource["Type"] for resource in expanded["Resources"].values()}

    assert {
        stage["ApiId"]["Ref"]: (stage["StageName"], stage["DefaultRouteSettings"])
        for stage in stages.values()
    } == {
        "CallsApi": ("$default", throttles("Rest")),
        "WebsocketAPI": ("api", throttles("Socket")),
    }
    assert len(stages) == len(of_type(expanded, "AWS::ApiGatewayV2::Api")) == 2
    assert [kind for kind in kinds if kind.startswith("AWS::ApiGateway::")] == []
    assert all("RouteSettings" not in stage for stage in stages.values()), "no route has its own"


def throttles(name: str) -> dict[str, Any]:
    return {
        "ThrottlingRateLimit": {"Ref": f"{name}Rate"},
        "ThrottlingBurstLimit": {"Ref": f"{name}Burst"},
    }


def of_type(template: Template, kind: str) -> dict[str, Any]:
    """Return the properties of all resources of a type."""
    return {n: r["Properties"] for n, r in template["Resources"].items() if r["Type"] == kind}


def test_nothing_is_open_to_everybody_but_what_is_named(expanded: Template) -> None:
    """Whom a policy or a permission names: our functions' makers, and the public one by choice."""
    services = {"lambda.amazonaws.com"}
    for name, resource in expanded["Resources"].items():
        if resource["Type"] == "AWS::Lambda::Permission":
            told = resource["Properties"]
            assert told["Principal"] in ("apigateway.amazonaws.com", "events.amazonaws.com")
            assert told["SourceArn"], f"{name}: whose gateway or clock"
            assert "FunctionUrlAuthType" not in told
            continue
        for statement in _statements(resource):
            if statement["Effect"] != "Allow" or "Principal" not in statement:
                continue
            match statement["Principal"]:
                case "*":
                    assert statement["Sid"] == "AnybodyReadsCapsules"
                case {"Service": "cloudfront.amazonaws.com"}:
                    assert statement["Condition"]["StringEquals"]["AWS:SourceArn"]
                case {"Service": str(service)}:
                    assert service in services
                case other:
                    raise AssertionError(f"{name} names {other}")
    kinds = {resource["Type"] for resource in expanded["Resources"].values()}
    assert "AWS::Lambda::Url" not in kinds


def test_every_right_to_a_table_but_mails_names_its_partitions(expanded: Template) -> None:
    for name in ("ServiceRole", "PublishRole"):
        for statement in _statements(expanded["Resources"][name]):
            actions = _listed(statement["Action"])
            if actions[0].startswith("dynamodb:") and statement["Sid"] != "Mail":
                keys = statement["Condition"]["ForAllValues:StringLike"]["dynamodb:LeadingKeys"]
                assert keys, (name, statement["Sid"])


def test_every_parameter_is_used(expanded: Template) -> None:
    conditions = expanded["Conditions"]
    used = set(stack.references([expanded["Resources"], expanded["Outputs"]], conditions))

    assert set(expanded["Parameters"]) - used == set()


def test_everything_is_bounded(template: Template) -> None:
    resources = template["Resources"]

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


def test_the_limits_as_they_come_are_those_that_the_price_is_reckoned_with(
    template: Template,
) -> None:
    given = stack.defaults(template)

    assert (given["Concurrency"], given["RestRate"]) == ("10", "11")
    assert {name: given[name] for name in Ceilings().parameters()} == Ceilings().parameters()


def test_the_platform_logs_only_what_is_wrong(template: Template) -> None:
    """A call that went well is one line, ours; Lambda's own three cost more than that one."""
    for name in (stack.SERVE, stack.PUBLISH):
        assert template["Resources"][name]["Properties"]["LoggingConfig"] == {
            "LogFormat": "JSON",
            "SystemLogLevel": "WARN",
            "ApplicationLogLevel": "INFO",
        }


def test_data_outlives_the_stack(template: Template) -> None:
    for resource in template["Resources"].values():
        if resource["Type"] in ("AWS::DynamoDB::Table", "AWS::S3::Bucket"):
            assert resource["DeletionPolicy"] == "RetainExceptOnCreate"
            assert resource["UpdateReplacePolicy"] == "Retain"


def test_a_first_deployment_that_fails_can_remove_its_tables(template: Template) -> None:
    """A protected table survives the rollback, and is in the way of the next try."""
    tables = of_type(template, "AWS::DynamoDB::Table")

    assert len(tables) == 3
    assert all("DeletionProtectionEnabled" not in table for table in tables.values())


def test_the_capsule_bucket_is_private_versioned_and_forgets(template: Template) -> None:
    bucket = template["Resources"]["CapsuleBucket"]["Properties"]

    assert bucket["VersioningConfiguration"] == {"Status": "Enabled"}
    assert bucket["PublicAccessBlockConfiguration"]["BlockPublicAcls"] is True
    assert bucket["OwnershipControls"]["Rules"] == [{"ObjectOwnership": "BucketOwnerEnforced"}]
    assert bucket["LifecycleConfiguration"]["Rules"][0]["NoncurrentVersionExpiration"]


def alarms_of(template: Template) -> dict[str, Any]:
    return of_type(template, "AWS::CloudWatch::Alarm")


def test_alarms_go_to_the_topic(template: Template) -> None:
    alarms = alarms_of(template)

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


def metrics(alarm: Mapping[str, Any]) -> list[Any]:
    """Return the metrics that an alarm watches; AWS charges for each."""
    asked = [m["MetricStat"]["Metric"] for m in alarm.get("Metrics", ()) if "MetricStat" in m]
    return asked or [{k: alarm[k] for k in ("Namespace", "MetricName", "Dimensions")}]


def test_the_alarms_watch_at_most_ten_metrics(template: Template) -> None:
    """So many are free in an account."""
    watched = [metric for alarm in alarms_of(template).values() for metric in metrics(alarm)]

    assert len(watched) == 10


def test_no_alarm_watches_what_another_deployment_counts(template: Template) -> None:
    for name, alarm in alarms_of(template).items():
        for metric in metrics(alarm):
            dimensions = {d["Name"]: d["Value"] for d in metric["Dimensions"]}
            ours = [value for value in dimensions.values() if isinstance(value, dict)]
            assert ours, f"{name} counts for a whole account"
            if metric["Namespace"] == "Muster":
                assert set(dimensions) == {log.FUNCTION}


def test_a_few_slow_calls_are_no_alarm(template: Template) -> None:
    """A percentile of too few calls is that of a cold start: CloudWatch is told to ignore it."""
    alarm = alarms_of(template)["LatencyAlarm"]

    assert alarm["ExtendedStatistic"] == "p90"
    assert alarm["EvaluateLowSampleCountPercentile"] == "ignore"
    assert alarm["EvaluationPeriods"] == 3


def test_whoever_gave_an_address_is_told_of_the_bill(template: Template) -> None:
    budget = template["Resources"]["Budget"]
    told = budget["Properties"]["NotificationsWithSubscribers"]

    assert budget["Condition"] == "Mail"
    assert budget["Properties"]["Budget"]["BudgetLimit"] == {
        "Amount": {"Ref": "MonthlyBudgetUSD"},
        "Unit": "USD",
    }
    assert [one["Notification"]["NotificationType"] for one in told] == ["ACTUAL", "FORECASTED"]
    for one in told:
        assert one["Subscribers"] == [
            {"SubscriptionType": "EMAIL", "Address": {"Ref": "AlarmEmail"}}
        ]
    # Another subscriber is another budget, made while the old one is there: no name of ours.
    assert "BudgetName" not in budget["Properties"]["Budget"]


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
    assert present() & gone == set(), "as it comes there is no edge"
    assert present(AlarmEmail="a@example.org") - present() == {"AlarmMail", "Budget"}
    assert present(Dashboard="yes") - present() == {"Overview"}


def told_where(template: Template, **chosen: str) -> dict[str, Any]:
    """Return the outputs that are there, with what their conditions come to."""
    conditions = Conditions(Deployed(template, {**stack.defaults(template), **chosen}))

    def settled(value: Any) -> Any:
        if isinstance(value, dict) and "Fn::If" in value:
            name, one, other = value["Fn::If"]
            return settled(one if conditions.holds(name) else other)
        return value

    return {
        name: settled(output["Value"])
        for name, output in template["Outputs"].items()
        if "Condition" not in output or conditions.holds(output["Condition"])
    }


def test_calls_and_capsules_have_one_address_without_a_stage(template: Template) -> None:
    told = told_where(template)
    base = "https://${CallsApi}.execute-api.${AWS::Region}.${AWS::URLSuffix}"

    assert told["BaseUrl"] == {"Fn::Sub": base}
    assert told["CapsuleUrl"] == {"Fn::Sub": f"{base}/capsules/"}
    assert told["WebSocketUrl"]["Fn::Sub"].startswith("wss://${WebsocketAPI}.execute-api.")
    assert not {"CapsuleBucketUrl", "DomainTarget", "DashboardUrl"} & set(told)


def test_an_own_domain_says_what_its_record_is_to_name(template: Template) -> None:
    told = told_where(template, CloudFront="yes", DomainName="m.example.org")

    assert told["BaseUrl"] == {"Fn::Sub": "https://${DomainName}"}
    assert told["CapsuleUrl"] == {"Fn::Sub": "https://${DomainName}/capsules/"}
    assert told["DomainTarget"] == {"Fn::GetAtt": ["Distribution", "DomainName"]}


def test_a_bucket_that_anybody_may_read_is_told(template: Template) -> None:
    assert "CapsuleBucketUrl" in told_where(template, PublicCapsules="yes")
    assert "CapsuleBucketUrl" not in told_where(template, PublicCapsules="yes", CloudFront="yes")


# --- the edge -------------------------------------------------------------------------

OPTIMIZED, DISABLED = "658327ea-f89d-4fab-a63d-7e88639e58f6", "4135ea2d-6df8-44a3-9df3-4b5a84be39ad"
"""AWS's own policies CachingOptimized and CachingDisabled."""


def test_one_domain_leads_everywhere(template: Template) -> None:
    config = template["Resources"]["Distribution"]["Properties"]["DistributionConfig"]
    leads = {b["PathPattern"]: b["TargetOriginId"] for b in config["CacheBehaviors"]}
    origins = {origin["Id"]: origin for origin in config["Origins"]}

    assert leads == {
        "/v1/relay/ws": "sockets",
        "/capsules/*": "capsules",
        "/app/*": "calls",
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
    assert origins["calls"]["DomainName"]["Fn::Sub"].startswith("${CallsApi}.")
    assert "OriginPath" not in origins["calls"]


def test_the_edge_keeps_the_app_with_its_library_and_nothing_else_of_the_calls(
    template: Template,
) -> None:
    """By path and encoding alone, and a call for one it lacks says who makes it."""
    config = template["Resources"]["Distribution"]["Properties"]["DistributionConfig"]
    every = [config["DefaultCacheBehavior"], *config["CacheBehaviors"]]
    kept = [one for one in every if one["CachePolicyId"] == OPTIMIZED]
    app, others = kept[1], [one for one in every if one not in kept]

    assert [one["PathPattern"] for one in kept] == ["/capsules/*", "/app/*"]
    assert app["AllowedMethods"] == ["GET", "HEAD", "OPTIONS"]
    assert app["FunctionAssociations"] == others[0]["FunctionAssociations"]
    assert app["OriginRequestPolicyId"] == others[0]["OriginRequestPolicyId"]
    assert {one["CachePolicyId"] for one in others} == {DISABLED}


def test_the_edge_keeps_no_error_for_everybody(template: Template) -> None:
    """CloudFront keeps errors for ten seconds, whatever the answer says, by the path alone."""
    config = template["Resources"]["Distribution"]["Properties"]["DistributionConfig"]
    kept = {one.pop("ErrorCode"): one for one in copy.deepcopy(config["CustomErrorResponses"])}

    assert {403, 404, 500, 502, 503, 504} <= set(kept)
    assert all(rest == {"ErrorCachingMinTTL": 0} for rest in kept.values())


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
