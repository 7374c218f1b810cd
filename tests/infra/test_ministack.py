"""A deployment's whole life against an account with a CloudFormation of its own.

The zip that was packed answers the calls and the sockets, through addresses like AWS's. The
command runs as it is; only the packing is done once for all.
"""

import argparse
import asyncio
import json
import sys
from collections.abc import Callable, Iterator
from contextlib import aclosing
from pathlib import Path
from typing import Any

import pytest
from botocore.client import BaseClient

from infra import archive, deploy, packing
from infra.cloud import Names
from infra.packing import Package
from muster.cli import main
from muster.cli.output import Failure
from muster.felund.circle import Circle
from muster.felund.client import Client
from tests.support import ministack
from tests.support.ministack import ACCOUNT, REGION, Ministack
from tools import permissions

NAMES = Names("dev", ACCOUNT, REGION)
HERE = ("--python", sys.executable, "--param", f"Architecture={archive.here()}")

Run = Callable[..., str]


@pytest.fixture(scope="session")
def emulator(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Ministack]:
    """The emulator, for all tests of this file."""
    if not ministack.PYTHON.exists():
        pytest.skip("needs ministack: make ministack")
    with ministack.running(tmp_path_factory.mktemp("aws")) as running:
        yield running


@pytest.fixture
def aws(emulator: Ministack, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Ministack:
    """An empty account, to which the environment leads."""
    emulator.reset()
    for name in ("AWS_REGION", "AWS_PROFILE", "AWS_SESSION_TOKEN"):
        monkeypatch.delenv(name, raising=False)
    for name, value in emulator.environment().items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("MUSTER_HOME", str(tmp_path / "home"))
    return emulator


@pytest.fixture
def called(monkeypatch: pytest.MonkeyPatch) -> set[str]:
    """Everything that AWS is asked for by the SDK from now on, by the names of permissions."""
    base: Any = BaseClient
    plain, found = base._make_api_call, set[str]()

    def call(client: Any, operation: str, told: Any) -> Any:
        service = client.meta.service_model.signing_name
        action = f"{'cloudwatch' if service == 'monitoring' else service}:{operation}"
        found.add(permissions.CALLED_AS.get(action, action))
        return plain(client, operation, told)

    monkeypatch.setattr(BaseClient, "_make_api_call", call)
    return found


@pytest.fixture
def muster(
    aws: Ministack, package: Package, called: set[str], capsys: pytest.CaptureFixture[str]
) -> Run:
    """Run the command in this process, with what is packed already; return what it said.

    Whatever it asks AWS for, the policy for whoever deploys lets it.
    """
    every = permissions.COMMAND.items()
    allowed = {f"{service}:{name}" for service, names in every for name in names}

    def packed(target: Path, python: packing.Python, *, architecture: str) -> Package:
        assert python.runtime == package.runtime
        return package

    def run(*words: str, expect: int = 0) -> str:
        capsys.readouterr()
        called.clear()
        if words[0] == "deploy":
            code = _deploy(main.parser().parse_args([*words, "--yes", "--no-edge", *HERE]), packed)
        else:
            code = main.main(words)
        out, err = capsys.readouterr()
        if code != expect:
            pytest.fail(f"{words} exited with {code}:\n{out}{err}{logged(aws)}")
        assert called <= allowed, words
        return out + err

    return run


def logged(aws: Ministack) -> str:
    """Return what the functions have logged."""
    client, lines = aws.client("logs"), []
    for group in client.describe_log_groups()["logGroups"]:
        found = client.filter_log_events(logGroupName=group["logGroupName"])
        lines += [event["message"] for event in found["events"]]
    return "\n".join(lines)


def _deploy(arguments: argparse.Namespace, packed: deploy.Pack) -> int:
    try:
        return deploy.deploy(arguments, pack=packed)
    except Failure as failure:
        print(f"muster: {failure}", file=sys.stderr)
        return failure.exit_code


def test_a_deployment_lives_is_updated_comes_back_and_goes(
    aws: Ministack, muster: Run, tmp_path: Path
) -> None:
    """From nothing to a green doctor on the first try, and through all that may come after."""
    first = muster("deploy")

    assert "two nodes register" in first, "the doctor was there"
    assert "It is closed; to let people in: muster access new" in first
    assert protected(aws) == {True}
    assert "POST /v1/register 200" in muster("logs", "--since", "10m")
    keys = secret(aws)
    root = tmp_path / "home" / "root-dev.key"
    made = root.read_bytes()

    aws.client("ssm").delete_parameter(Name=NAMES.keys)
    assert "'muster deploy' makes a new one" in muster("status", expect=1)
    again = muster("deploy", "--no-doctor")

    assert "Nothing changes: all of it is deployed already." in again
    assert secret(aws) != keys
    assert root.read_bytes() == made, "the same root certifies it"
    keys = secret(aws)

    circle = Circle.new()
    muster("access", "allow", circle.circle_hint, "--stage", "dev", "--name", "us")
    changed = muster("deploy", "--no-doctor", "--param", "RestRate=21")

    assert "RestRate: " in changed
    assert "update complete" in changed
    asyncio.run(leave(base_url(muster), circle, "before all"))
    assert secret(aws) == keys
    assert "for 89 more days" in muster("status") or "for 90 more days" in muster("status")

    muster("rotate", "--json")
    assert secret(aws) != keys

    gone = muster("destroy", "--yes", "--keep-data")

    assert f"THE ADDRESS {base_of(first)} GOES" in gone
    assert f"kept: {NAMES.tables[1]}" in gone
    assert set(aws.client("dynamodb").list_tables()["TableNames"]) == set(NAMES.tables)

    back = muster("deploy")

    assert "two nodes register" in back
    assert base_of(back) != base_of(first)
    assert protected(aws) == {True}
    assert asyncio.run(collect(base_url(muster), circle)) == ["before all"]

    muster("destroy", "--yes")

    assert left(aws) == []
    assert "There is nothing" in muster("destroy", "--yes")


PHASES = {
    "uploading": {"CreateChangeSet": "User is not authorized to perform: cloudformation:X"},
    "keeping the keys": {"PutParameter": "User is not authorized to perform: ssm:PutParameter"},
    "beginning": {"ExecuteChangeSet": "User is not authorized to perform: iam:CreateRole"},
    "making the first things": {"AWS::DynamoDB::Table": "the quota of tables is full"},
    "making the last things": {"AWS::ApiGatewayV2::Stage": "API Gateway is not well"},
    "protecting the tables": {"UpdateTable": "User is not authorized to perform: dynamodb:X"},
}


def test_after_a_failure_in_any_phase_the_same_command_goes_on(aws: Ministack, muster: Run) -> None:
    """Each attempt gets beyond where the one before had failed."""
    for phase, faults in PHASES.items():
        aws.fail(**faults)
        failed = muster("deploy", "--no-doctor", expect=1)
        (reason,) = faults.values()
        assert reason.rpartition(": ")[2] in failed, phase

    aws.fail()
    muster("deploy", "--no-doctor")

    assert protected(aws) == {True}
    assert "no alarm" in muster("status")


def test_what_an_update_breaks_is_taken_back_and_repeated(aws: Ministack, muster: Run) -> None:
    muster("deploy", "--no-doctor")
    aws.fail(**{"AWS::Logs::LogGroup:update": "CloudWatch is not well"})

    failed = muster("deploy", "--no-doctor", "--param", "LogRetentionDays=30", expect=1)

    assert "UPDATE_ROLLBACK_COMPLETE" in failed
    assert "the deployment before is in service" in failed
    assert "the last update failed" in muster("status")

    aws.fail()
    muster("deploy", "--no-doctor", "--param", "LogRetentionDays=30")

    (group,) = aws.client("logs").describe_log_groups(logGroupNamePrefix=NAMES.logs[0])["logGroups"]
    assert group["retentionInDays"] == 30


# --- what is there -------------------------------------------------------------------


def protected(aws: Ministack) -> set[bool]:
    """Say of the tables whether they refuse to be deleted."""
    tables = aws.client("dynamodb")
    found = (tables.describe_table(TableName=name)["Table"] for name in NAMES.tables)
    return {bool(table.get("DeletionProtectionEnabled")) for table in found}


def secret(aws: Ministack) -> str:
    """Return the publishing keys."""
    found = aws.client("ssm").get_parameter(Name=NAMES.keys, WithDecryption=True)
    return str(found["Parameter"]["Value"])


def left(aws: Ministack) -> list[str]:
    """Name whatever of a deployment is there."""
    client = aws.client
    found = [
        *client("dynamodb").list_tables()["TableNames"],
        *(bucket["Name"] for bucket in client("s3").list_buckets()["Buckets"]),
        *(group["logGroupName"] for group in client("logs").describe_log_groups()["logGroups"]),
        *(one["Name"] for one in client("ssm").describe_parameters()["Parameters"]),
        *(one["FunctionName"] for one in client("lambda").list_functions()["Functions"]),
        *(one["RoleName"] for one in client("iam").list_roles()["Roles"]),
        *(one["Name"] for one in client("events").list_rules()["Rules"]),
        *(one["TopicArn"] for one in client("sns").list_topics()["Topics"]),
        *(one["Name"] for one in client("apigatewayv2").get_apis()["Items"]),
        *(one["name"] for one in client("apigateway").get_rest_apis()["items"]),
        *(one["AlarmName"] for one in client("cloudwatch").describe_alarms()["MetricAlarms"]),
    ]
    return [name for name in found if "muster" in name]


def base_of(said: str) -> str:
    """Return the address that a deployment has told."""
    (line,) = (line for line in said.splitlines() if line.startswith("BaseUrl "))
    return line.split()[1]


def base_url(muster: Run) -> str:
    return str(json.loads(muster("outputs", "--json").splitlines()[0])["BaseUrl"])


async def leave(base: str, circle: Circle, text: str) -> None:
    """Leave a message in a circle's mailbox."""
    async with aclosing(Client(base, circle, "node-writes")) as client:
        await client.register([])
        await client.send(text)


async def collect(base: str, circle: Circle) -> list[str]:
    """Return the messages of a circle's mailbox."""
    async with aclosing(Client(base, circle, "node-reads")) as client:
        await client.register([])
        return [note.text async for note in client.receive()]
