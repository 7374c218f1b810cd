"""What a deployment has really used: CloudWatch's counts, priced as the model prices.

The counts of the last days become those of a month. What CloudWatch does not count,
CloudFront and the data that goes out, is not in it.
"""

from __future__ import annotations

import datetime
from collections.abc import Iterator
from typing import Any, NamedTuple

from infra import cost
from infra.cost import Estimate, Use

DAYS = 14
DAY_S = 86_400
AT_ONCE = 100


class Actual(NamedTuple):
    """What was found."""

    stack: str
    days: int
    estimate: Estimate


class Count(NamedTuple):
    """A metric, and what its sum is used for."""

    use: str
    namespace: str
    metric: str
    dimension: str
    name: str
    each: float = 1


def read(*, stage: str, profile: str | None, region: str | None) -> Actual:
    """Ask CloudWatch what the deployment of *stage* has used."""
    from infra.cloud import connect, explained

    cloud = connect(stage, profile=profile, region=region)
    with explained("reading what was used"):
        return price(
            cloud.client("cloudformation"),
            cloud.client("cloudwatch"),
            stack=cloud.names.stack,
            region=cloud.region,
            now=datetime.datetime.now(datetime.UTC),
        )


def price(
    cloudformation: Any, cloudwatch: Any, *, stack: str, region: str, now: datetime.datetime
) -> Actual:
    """Price what a stack's parts have used in the days before *now*."""
    found = cloudformation.describe_stack_resources(StackName=stack)["StackResources"]
    counts = [count for one in found for count in _counts(one, stack)]
    use = Use(alarm_month=sum(one["ResourceType"] == "AWS::CloudWatch::Alarm" for one in found))
    for count, total in _sums(cloudwatch, counts, now):
        month = total * count.each * cost.DAYS / DAYS
        setattr(use, count.use, getattr(use, count.use) + month)
    return Actual(stack, DAYS, cost.bill(use, region=region))


def _counts(resource: Any, stack: str) -> Iterator[Count]:
    """Yield what is counted for one part of a stack."""
    name = resource.get("PhysicalResourceId", "")
    match resource["ResourceType"]:
        case "AWS::DynamoDB::Table":
            at = ("AWS/DynamoDB", "TableName", name)
            yield _count("write_unit", "ConsumedWriteCapacityUnits", at)
            yield _count("read_unit", "ConsumedReadCapacityUnits", at)
        case "AWS::Lambda::Function":
            at = ("AWS/Lambda", "FunctionName", name)
            yield _count("lambda_request", "Invocations", at)
            yield _count("lambda_gb_s", "Duration", at, 1 / 1000)  # of 1 GB, as the template has it
        case "AWS::ApiGateway::RestApi":
            yield _count("http_call", "Count", ("AWS/ApiGateway", "ApiName", stack))
        case "AWS::ApiGatewayV2::Api":
            yield _count("socket_message", "MessageCount", ("AWS/ApiGateway", "ApiId", name))
        case "AWS::Logs::LogGroup":
            yield _count("log_gb", "IncomingBytes", ("AWS/Logs", "LogGroupName", name), 1 / cost.GB)


def _count(use: str, metric: str, at: tuple[str, str, str], each: float = 1) -> Count:
    namespace, dimension, name = at
    return Count(use, namespace, metric, dimension, name, each)


def _sums(
    cloudwatch: Any, counts: list[Count], now: datetime.datetime
) -> Iterator[tuple[Count, float]]:
    for first in range(0, len(counts), AT_ONCE):
        some = counts[first : first + AT_ONCE]
        queries = [
            {
                "Id": f"m{number}",
                "MetricStat": {
                    "Metric": {
                        "Namespace": count.namespace,
                        "MetricName": count.metric,
                        "Dimensions": [{"Name": count.dimension, "Value": count.name}],
                    },
                    "Period": DAY_S,
                    "Stat": "Sum",
                },
            }
            for number, count in enumerate(some)
        ]
        asked: dict[str, Any] = {
            "MetricDataQueries": queries,
            "StartTime": now - datetime.timedelta(days=DAYS),
            "EndTime": now,
        }
        totals = [0.0] * len(some)
        while True:
            answer = cloudwatch.get_metric_data(**asked)
            for result in answer["MetricDataResults"]:
                totals[int(result["Id"][1:])] += sum(result["Values"])
            if not answer.get("NextToken"):
                break
            asked["NextToken"] = answer["NextToken"]
        yield from zip(some, totals, strict=True)
