"""What cannot be deployed is refused before anything is changed, with the way out."""

import contextlib
import io
import json
import os
import sys
from collections.abc import Callable
from datetime import UTC, datetime, timedelta

import pytest

from infra import destroy
from infra.cloud import Cloud, connect
from infra.stacks import CHANGE_SET, Stacks
from muster.cli import main
from muster.cli.output import Failure
from tests.support.account import REGION, Account

Run = Callable[..., str]

DEPLOY = ("deploy", "--yes", "--no-doctor", "--python", sys.executable)
BUCKET = "templates-of-tests"
CONTINUED = (
    "<ContinueUpdateRollbackResponse><ContinueUpdateRollbackResult/>"
    "</ContinueUpdateRollbackResponse>"
)
TOPIC = {"Type": "AWS::SNS::Topic", "Properties": {"TopicName": "t"}}


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str]) -> Run:
    """Run the command in this process; return what it said."""

    def command(*words: str, expect: int = 1) -> str:
        capsys.readouterr()
        try:
            code = main.main(words)
        except SystemExit as left:
            code = int(left.code or 0)
        out, err = capsys.readouterr()
        assert code == expect, (out, err)
        return out + err

    return command


@pytest.fixture
def cloud(emulated: Account) -> Cloud:
    return connect("dev", region=REGION)


def propose(emulated: Account, stacks: Stacks, **resources: object) -> None:
    """Propose a small stack, in place of the whole."""
    body = {"Resources": resources or {"Topic": TOPIC}}
    s3 = emulated.client("s3")
    with contextlib.suppress(s3.exceptions.BucketAlreadyOwnedByYou):
        s3.create_bucket(Bucket=BUCKET, CreateBucketConfiguration={"LocationConstraint": REGION})
    s3.put_object(Bucket=BUCKET, Key="t.json", Body=json.dumps(body).encode())
    stacks.propose(f"{emulated.url}/{BUCKET}/t.json", {}, stacks.state())


def a_stack(emulated: Account, cloud: Cloud, status: str) -> Stacks:
    """Make a small stack and put it into a state."""
    stacks = Stacks(cloud, pause=lambda seconds: None)
    propose(emulated, stacks)
    stacks.carry_out()
    emulated.stack("muster-dev").status = status
    emulated.asked.clear()
    return stacks


# --- before AWS is asked --------------------------------------------------------------


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("--stage", "Prod!"), "'Prod!' is no stage"),
        (
            ("--param", "Concurrencies=3"),
            "no parameter 'Concurrencies'; there are: Concurrency",
        ),
        (("--param", "Concurrency"), "has no value"),
        (("--param", "Concurrency=-1"), "must be a whole number"),
        (("--param", "Concurrency=2.5"), "must be a whole number"),
        (("--param", "Concurrency=100000"), "must be from 0 to 1000"),
        (("--param", "Architecture=mips"), "must be one of arm64, x86_64"),
        (("--param", "LogRetentionDays=15"), "must be one of 1, 3, 5"),
        (("--param", "AlarmEmail=me"), "must be an e-mail address"),
        (("--param", "EdgeSecret=x"), "is not to be chosen"),
        (("--param", "DailySpendUSD=1"), "there is no parameter 'DailySpendUSD'"),
        (("--param", "MUSTER_TABLE_MAIL=x"), "there is no setting MUSTER_TABLE_MAIL"),
        (("--param", "MUSTER_CIRCLE_MEMBER=3"), "there are: MUSTER_CIRCLE_MEMBERS"),
        (("--param", "MUSTER_CIRCLE_MEMBERS=many"), "must be a whole number"),
        (("--param", "MUSTER_CIRCLE_MEMBERS=0"), "must be at least 1"),
        (("--param", "MUSTER_CIRCLE_MEMBERS=７"), "must be a whole number"),
        (("--param", "Concurrency=７"), "must be a whole number"),
        (("--param", "MUSTER_ASSIST=/etc/plan.json"), "must be the JSON itself"),
        (("--param", "MUSTER_TRUSTED_TICKET_KEYS=,"), "MUSTER_TRUSTED_TICKET_KEYS must be a comma"),
        (("--max-usd", "-3"), "is not a number of US dollars"),
        (("--profile", "nobody"), "there is no AWS profile 'nobody'"),
        (("--region", "eu-centrall-1"), "did you mean eu-central-1"),
    ],
)
def test_what_is_called_in_a_wrong_way(
    emulated: Account, run: Run, words: tuple[str, ...], said: str
) -> None:
    assert said in run(*DEPLOY, *words, expect=2)
    assert not emulated.asked


def test_settings_that_do_not_fit_together(emulated: Account, run: Run) -> None:
    least = ("--param", "MUSTER_PRESENCE_MIN_TTL_S=700")
    assert "must not be above MUSTER_PRESENCE_MAX_TTL_S" in run(*DEPLOY, *least, expect=2)


def test_a_python_that_lambda_does_not_have(emulated: Account, run: Run) -> None:
    assert "there is no Python" in run("plan", "--python", "/nowhere/python3.13")
    assert not emulated.asked


def test_nobody_is_there_to_ask(
    emulated: Account, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sys.stdin", io.StringIO())

    assert "--yes answers it" in run("deploy", expect=2)
    assert "--yes answers it" in run("destroy", expect=2)
    assert not emulated.asked


def test_there_are_no_credentials(
    emulated: Account, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("AWS_ACCESS_KEY_ID")
    monkeypatch.delenv("AWS_SECRET_ACCESS_KEY")

    assert "there are no AWS credentials; set AWS_ACCESS_KEY_ID" in run(*DEPLOY)


def test_no_region_is_chosen(emulated: Account, run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("AWS_DEFAULT_REGION")
    monkeypatch.delenv("AWS_REGION")

    assert "name one with --region" in run(*DEPLOY, expect=2)


def test_aws_is_out_of_reach(emulated: Account, run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")

    assert "AWS is out of reach" in run("status")


# --- what AWS refuses -----------------------------------------------------------------


@pytest.mark.parametrize(
    ("action", "code", "message", "said"),
    [
        ("GetCallerIdentity", "ExpiredToken", "", "credentials are past their time; log in again"),
        ("GetCallerIdentity", "InvalidClientTokenId", "", "AWS does not know these credentials"),
        ("GetCallerIdentity", "SignatureDoesNotMatch", "", "AWS does not know these credentials"),
        (
            "DescribeStacks",
            "AccessDenied",
            "User: x is not authorized to perform: cloudformation:DescribeStacks on resource: y",
            "these credentials may not do cloudformation:DescribeStacks",
        ),
        ("DescribeStacks", "Throttling", "Rate exceeded", "AWS asks to go slower"),
        ("GetParameter", "AccessDeniedException", "", "these credentials may not do GetParameter"),
        ("HEAD bucket", "403", "", "is taken, or these credentials may not see it"),
    ],
)
def test_aws_refuses_while_looking(
    emulated: Account, run: Run, action: str, code: str, message: str, said: str
) -> None:
    emulated.refuse(action, code, message, status=403 if code == "403" else 400)

    assert said in run(*DEPLOY)
    assert emulated.changed == []


def test_the_account_has_not_enabled_the_region(emulated: Account, run: Run) -> None:
    emulated.refuse("GetCallerIdentity", "InvalidClientTokenId", times=1)

    assert "this account has not enabled af-south-1" in run("status", "--region", "af-south-1")


def test_a_bucket_name_that_is_taken_can_be_changed(emulated: Account, run: Run) -> None:
    emulated.client("s3").create_bucket(
        Bucket="muster-dev-code-123456789012-eu-central-1",
        CreateBucketConfiguration={"LocationConstraint": REGION},
    )
    emulated.asked.clear()
    emulated.before["HEAD bucket"] = lambda: emulated.refuse("HEAD bucket", "403", status=403)

    said = run(*DEPLOY, "--param", "CapsuleBucketName=somebodys-bucket")

    assert "is taken" in said
    assert emulated.changed == []


def test_a_quota_that_is_too_small(emulated: Account, run: Run) -> None:
    limits = {"AccountLimit": {"UnreservedConcurrentExecutions": 10}}
    emulated.answers["GET /2016-08-19/account-settings"] = json.dumps(limits)

    said = run(*DEPLOY, "--param", "Concurrency=20")

    assert "can reserve 0 machines in eu-central-1, not 20; choose less" in said
    assert emulated.changed == []


# --- stacks that are not as they should be -----------------------------------------------


@pytest.mark.parametrize("status", ["UPDATE_IN_PROGRESS", "DELETE_IN_PROGRESS"])
def test_a_second_deployment_at_the_same_time(
    emulated: Account, cloud: Cloud, run: Run, status: str
) -> None:
    a_stack(emulated, cloud, status)

    assert f"is being changed already ({status})" in run(*DEPLOY)
    assert "is being changed" in run("destroy", "--yes")
    assert emulated.changed == []


def test_a_second_deployment_while_the_first_is_being_prepared(
    emulated: Account, cloud: Cloud, run: Run
) -> None:
    propose(emulated, Stacks(cloud))
    emulated.asked.clear()

    assert "another deployment of muster-dev is being prepared" in run(*DEPLOY)
    assert emulated.changed == []


def test_one_that_was_given_up_is_taken_over(emulated: Account, cloud: Cloud) -> None:
    propose(emulated, Stacks(cloud))
    later = Stacks(cloud, clock=lambda: (datetime.now(UTC) + timedelta(hours=1)).timestamp())

    later.refuse_if_busy(later.state())
    propose(emulated, later)

    assert emulated.asked["DeleteChangeSet"] == 1


def test_letting_a_circle_into_what_is_not_there(emulated: Account, run: Run) -> None:
    said = run("access", "list", "--stage", "dev", "--region", REGION)
    assert "there is no muster-dev in account" in said
    assert "'muster deploy' makes one" in said


def test_a_half_deleted_stack(emulated: Account, cloud: Cloud, run: Run) -> None:
    a_stack(emulated, cloud, "DELETE_FAILED")

    assert "'muster destroy' goes on deleting it" in run(*DEPLOY)
    assert emulated.changed == []

    said = run("destroy", "--yes", expect=0)

    assert "muster-dev is gone" in said


@pytest.mark.parametrize("status", ["ROLLBACK_COMPLETE", "ROLLBACK_FAILED", "CREATE_FAILED"])
def test_what_a_first_deployment_left_is_removed(
    emulated: Account, cloud: Cloud, status: str
) -> None:
    stacks = a_stack(emulated, cloud, status)

    assert stacks.mend(stacks.state()) is None
    assert stacks.state() is None


def test_a_way_back_that_failed_is_gone_on_with(
    emulated: Account, cloud: Cloud, capsys: pytest.CaptureFixture[str]
) -> None:
    stacks = a_stack(emulated, cloud, "UPDATE_ROLLBACK_FAILED")
    emulated.answers["ContinueUpdateRollback"] = CONTINUED

    def recovered() -> None:
        emulated.stack("muster-dev").status = "UPDATE_ROLLBACK_COMPLETE"

    emulated.before["ContinueUpdateRollback"] = recovered
    state = stacks.mend(stacks.state())

    assert state is not None
    assert state.good
    assert "going on with it" in capsys.readouterr().err


def test_a_way_back_that_fails_again_says_why(emulated: Account, cloud: Cloud) -> None:
    stacks = a_stack(emulated, cloud, "UPDATE_ROLLBACK_FAILED")
    emulated.answers["ContinueUpdateRollback"] = CONTINUED

    with pytest.raises(Failure, match="muster-dev is UPDATE_ROLLBACK_FAILED"):
        stacks.mend(stacks.state())


def test_what_aws_would_not_delete_is_named_and_let_go_of(
    emulated: Account, cloud: Cloud, capsys: pytest.CaptureFixture[str]
) -> None:
    stacks = a_stack(emulated, cloud, "CREATE_COMPLETE")
    emulated.answers["DeleteStack"] = "<DeleteStackResponse/>"
    emulated.answers["ListStackResources"] = RESOURCES
    emulated.stack("muster-dev").status = "DELETE_FAILED"

    with pytest.raises(Failure, match="muster-dev is DELETE_FAILED"):
        destroy.delete_stack(stacks)

    said = capsys.readouterr().err
    assert emulated.asked["DeleteStack"] == 2
    assert "DELETE_FAILED" in said


RESOURCES = """<ListStackResourcesResponse><ListStackResourcesResult><StackResourceSummaries>
<member><LogicalResourceId>Role</LogicalResourceId><PhysicalResourceId>r-1</PhysicalResourceId>
<ResourceType>AWS::IAM::Role</ResourceType><ResourceStatus>DELETE_FAILED</ResourceStatus>
<LastUpdatedTimestamp>2026-01-01T00:00:00Z</LastUpdatedTimestamp></member>
</StackResourceSummaries></ListStackResourcesResult></ListStackResourcesResponse>"""


def test_the_change_set_of_somebody_faster(emulated: Account, cloud: Cloud) -> None:
    stacks = Stacks(cloud)
    propose(emulated, stacks)
    emulated.refuse("ExecuteChangeSet", "ChangeSetNotFound", "gone")

    with pytest.raises(Failure, match="was faster"):
        stacks.carry_out()


def test_a_withdrawn_first_deployment_leaves_no_stack(emulated: Account, cloud: Cloud) -> None:
    stacks = Stacks(cloud)
    propose(emulated, stacks)

    stacks.withdraw()

    assert stacks.state() is None


def test_there_is_nothing_to_look_at(emulated: Account, run: Run) -> None:
    for command in ("status", "outputs", "dashboard", "logs"):
        assert "there is no muster-dev in account 123456789012, eu-central-1" in run(command)
    assert "'muster deploy' makes it" in run("rotate")


def test_logs_are_shown_as_people_read_them(emulated: Account, cloud: Cloud, run: Run) -> None:
    a_stack(emulated, cloud, "CREATE_COMPLETE")
    logs, group = emulated.client("logs"), "/aws/lambda/muster-dev-service"
    logs.create_log_group(logGroupName=group)
    logs.create_log_stream(logGroupName=group, logStreamName="s")
    at = int(datetime.now(UTC).timestamp() * 1000)
    line = json.dumps({"level": "info", "logger": "x", "message": "GET /v1/peers 200", "node": "n"})
    logs.put_log_events(
        logGroupName=group,
        logStreamName="s",
        logEvents=[
            {"timestamp": at - 2_000_000, "message": "long ago"},
            {"timestamp": at - 2, "message": "START RequestId \x1b[31m"},
            {"timestamp": at - 1, "message": line},
        ],
    )

    said = run("logs", expect=0)

    assert "long ago" not in said
    assert "START RequestId \\x1b[31m" in said
    assert "info  GET /v1/peers 200 node=n" in said
    assert "long ago" in run("logs", "--since", "1h", "--json", expect=0)
    assert "is no time" in run("logs", "--since", "soon", expect=2)
    assert CHANGE_SET not in said
    assert os.environ["AWS_SECRET_ACCESS_KEY"] not in said
