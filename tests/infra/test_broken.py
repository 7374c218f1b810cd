"""Whatever stopped a deployment, what is said names the reason and what to type next."""

import json
from datetime import UTC, datetime

import pytest

from infra.cloud import Cloud, connect
from infra.difference import Deployed, moves
from infra.progress import Silence
from infra.stacks import Stacks, State
from infra.ways_out import FAILED_FIRST, FRESH, STUCK, WAYS_OUT
from muster.cli import main
from muster.cli.output import Failure
from tests.support.account import REGION, Account

TOPIC = {"Type": "AWS::SNS::Topic", "Properties": {"TopicName": "t"}}
BUCKET = "templates-of-tests"


@pytest.fixture
def cloud(emulated: Account) -> Cloud:
    return connect("dev", region=REGION)


@pytest.fixture
def made(emulated: Account, cloud: Cloud) -> Stacks:
    """A small stack that is being proposed."""
    s3 = emulated.client("s3")
    s3.create_bucket(Bucket=BUCKET, CreateBucketConfiguration={"LocationConstraint": REGION})
    s3.put_object(Bucket=BUCKET, Key="t.json", Body=json.dumps({"Resources": {"Topic": TOPIC}}))
    return Stacks(cloud, pause=lambda seconds: None)


def propose(emulated: Account, made: Stacks) -> None:
    made.propose(f"{emulated.url}/{BUCKET}/t.json", {}, made.state())


def events(*told: tuple[str, str, str], at: datetime | None = None) -> str:
    """Return what AWS tells of a stack, the newest first: resource, status, reason."""
    members = "".join(
        f"<member><EventId>{number}</EventId><StackId>s</StackId><StackName>muster-dev</StackName>"
        f"<LogicalResourceId>{name}</LogicalResourceId><ResourceStatus>{status}</ResourceStatus>"
        f"<ResourceStatusReason>{reason}</ResourceStatusReason>"
        f"<Timestamp>{(at or datetime.now(UTC)).isoformat()}</Timestamp></member>"
        for number, (name, status, reason) in enumerate(told)
    )
    return (
        "<DescribeStackEventsResponse><DescribeStackEventsResult><StackEvents>"
        f"{members}</StackEvents></DescribeStackEventsResult></DescribeStackEventsResponse>"
    )


def failing(emulated: Account, made: Stacks, status: str, told: str) -> Failure:
    """Carry a change out that AWS answers in such a way; return what is said."""
    propose(emulated, made)

    def fail() -> None:
        emulated.answers["DescribeStackEvents"] = told
        emulated.stack("muster-dev").status = status

    emulated.after["ExecuteChangeSet"] = fail
    with pytest.raises(Failure) as caught:
        made.carry_out()
    return caught.value


@pytest.mark.parametrize("status", ["ROLLBACK_COMPLETE", "UPDATE_ROLLBACK_COMPLETE"])
def test_an_account_that_may_not_make_a_cloudfront_yet_is_told_how_to_go_on(
    emulated: Account, made: Stacks, status: str
) -> None:
    said = (
        "Resource handler returned message: &quot;Access denied for operation "
        "'AWS::CloudFront::Distribution: Your account must be verified before you can add new "
        "CloudFront resources. To verify your account, please contact AWS Support'.&quot;"
    )

    failure = failing(emulated, made, status, events(("Distribution", "CREATE_FAILED", said)))

    assert "Your account must be verified" in failure.message
    assert "'muster deploy --no-edge'" in failure.hint
    assert "ask AWS Support" in failure.hint


@pytest.mark.parametrize(
    ("reason", "hint"),
    [
        ("User is not authorized to perform: sns:CreateTopic", "allow what the message names"),
        ("muster-dev-mail already exists in stack x", "'muster destroy --keep-data' removes"),
        (
            "Specified ReservedConcurrentExecutions ... UnreservedConcurrentExecution",
            "Concurrency=0",
        ),
        ("Something else", "'muster deploy' removes it and begins anew"),
    ],
)
def test_a_first_deployment_that_failed_says_what_to_type_next(
    emulated: Account, made: Stacks, reason: str, hint: str
) -> None:
    told = events(
        ("Later", "CREATE_FAILED", "Resource creation cancelled"),
        ("Topic", "CREATE_FAILED", reason),
    )

    failure = failing(emulated, made, "ROLLBACK_COMPLETE", told)

    assert f"muster-dev is ROLLBACK_COMPLETE: Topic: {reason}" in failure.message
    assert hint in failure.hint


def test_an_update_that_meets_a_name_does_not_advise_to_destroy(
    emulated: Account, made: Stacks
) -> None:
    told = events(("Topic", "CREATE_FAILED", "t already exists"))

    failure = failing(emulated, made, "UPDATE_ROLLBACK_COMPLETE", told)

    assert failure.hint == "delete or rename it, then deploy again"


def test_a_clock_that_is_wrong_hides_no_event(
    emulated: Account, made: Stacks, capsys: pytest.CaptureFixture[str]
) -> None:
    """AWS stamps events with its own time; a laptop may be hours ahead of it."""
    long_ago = datetime(2020, 1, 1, tzinfo=UTC)
    told = events(("Topic", "CREATE_FAILED", "it is Monday"), at=long_ago)

    failure = failing(emulated, made, "ROLLBACK_COMPLETE", told)

    assert "it is Monday" in failure.message
    assert "create failed: it is Monday" in capsys.readouterr().err


# --- before AWS begins ---------------------------------------------------------------

REFUSED = (
    "<DescribeChangeSetResponse><DescribeChangeSetResult><Status>FAILED</Status><StatusReason>"
    "The following hook(s)/validation failed: [AWS::EarlyValidation::ResourceExistenceCheck]. "
    "To troubleshoot Early Validation errors, use the DescribeEvents API for detailed failure "
    "information.</StatusReason></DescribeChangeSetResult></DescribeChangeSetResponse>"
)
GONE = {
    "DeleteChangeSet": "<DeleteChangeSetResponse><DeleteChangeSetResult/></DeleteChangeSetResponse>"
}
EARLY = (
    "<DescribeEventsResponse><DescribeEventsResult><OperationEvents><member>"
    "<EventType>VALIDATION_ERROR</EventType><LogicalResourceId>ServiceLogs</LogicalResourceId>"
    "<ValidationName>NAME_CONFLICT_VALIDATION</ValidationName><ValidationStatus>FAILED"
    "</ValidationStatus><ValidationStatusReason>Resource of type 'AWS::Logs::LogGroup' with "
    "identifier '/aws/lambda/muster-dev-service' already exists.</ValidationStatusReason></member>"
    "</OperationEvents></DescribeEventsResult></DescribeEventsResponse>"
)


def test_what_aws_finds_before_it_begins_is_looked_up_where_it_tells_it(
    emulated: Account, made: Stacks
) -> None:
    emulated.answers |= {"DescribeChangeSet": REFUSED, "DescribeEvents": EARLY, **GONE}

    with pytest.raises(Failure) as caught:
        propose(emulated, made)

    assert "ServiceLogs: Resource of type 'AWS::Logs::LogGroup'" in caught.value.message
    assert "'muster destroy --keep-data' removes what is left" in caught.value.hint


def test_where_it_cannot_be_looked_up_the_reason_that_was_given_is_told(
    emulated: Account, made: Stacks
) -> None:
    emulated.answers |= {"DescribeChangeSet": REFUSED, **GONE}
    emulated.refuse("DescribeEvents", "AccessDenied")

    with pytest.raises(Failure, match="AWS::EarlyValidation::ResourceExistenceCheck"):
        propose(emulated, made)


def test_the_backup_of_a_table_is_switched_off_before_it_goes(
    emulated: Account, cloud: Cloud
) -> None:
    """AWS would keep what was in it for 35 days."""
    tables, name = emulated.client("dynamodb"), cloud.names.tables[1]
    tables.create_table(
        TableName=name,
        BillingMode="PAY_PER_REQUEST",
        AttributeDefinitions=[{"AttributeName": "pk", "AttributeType": "S"}],
        KeySchema=[{"AttributeName": "pk", "KeyType": "HASH"}],
        DeletionProtectionEnabled=True,
    )
    tables.update_continuous_backups(
        TableName=name, PointInTimeRecoverySpecification={"PointInTimeRecoveryEnabled": True}
    )
    backups: list[str] = []

    def look() -> None:
        told = tables.describe_continuous_backups(TableName=name)["ContinuousBackupsDescription"]
        backups.append(told["PointInTimeRecoveryDescription"]["PointInTimeRecoveryStatus"])

    emulated.before["DeleteTable"] = look

    assert main.main(["destroy", "--yes"]) == 0

    assert backups == ["DISABLED"]
    assert tables.list_tables()["TableNames"] == []


# --- status --------------------------------------------------------------------------


def test_every_state_in_which_a_stack_can_stay_has_a_way_out() -> None:
    from boto3.session import Session

    api = Session().client("cloudformation", region_name=REGION)
    every = api.meta.service_model.shape_for("StackStatus").enum
    resting = {one for one in every if not one.endswith("_IN_PROGRESS") or one in FRESH}
    fine = {"CREATE_COMPLETE", "UPDATE_COMPLETE", "IMPORT_COMPLETE", "DELETE_COMPLETE"}

    assert resting - fine == set(WAYS_OUT)
    assert {*FAILED_FIRST, *STUCK} <= WAYS_OUT.keys()
    assert all("'muster " in way for way in WAYS_OUT.values())


def state(status: str) -> State:
    return State("s", status, "", {}, {}, None)


def test_status_names_each_state_and_the_way_out(
    emulated: Account, made: Stacks, capsys: pytest.CaptureFixture[str]
) -> None:
    propose(emulated, made)
    made.carry_out()
    for status, way_out in WAYS_OUT.items():
        emulated.stack("muster-dev").status = status
        capsys.readouterr()

        main.main(["status"])

        said = capsys.readouterr().out
        assert status in said
        assert way_out in said


def test_status_says_that_aws_is_at_work() -> None:
    assert "AWS is at work on it" in state("UPDATE_IN_PROGRESS").way_out
    assert state("UPDATE_COMPLETE").way_out == ""


def test_status_says_that_nothing_can_be_published(
    emulated: Account, made: Stacks, capsys: pytest.CaptureFixture[str]
) -> None:
    propose(emulated, made)
    made.carry_out()
    capsys.readouterr()

    assert main.main(["status"]) == 1

    said = capsys.readouterr().out
    assert "NO KEY to publish with: /muster/dev/publishing-key is not there" in said
    assert "'muster deploy' makes a new one" in said


# --- at work -------------------------------------------------------------------------


class Clock:
    """A clock that a test sets."""

    now = 0.0

    def __call__(self) -> float:
        return self.now


def working(name: str, status: str = "CREATE_IN_PROGRESS") -> dict[str, str]:
    return {"LogicalResourceId": name, "ResourceStatus": status, "ResourceType": "X"}


def test_a_person_is_told_now_and_then_that_it_goes_on(capsys: pytest.CaptureFixture[str]) -> None:
    clock = Clock()
    silence = Silence(watched=True, clock=clock)
    silence.note(working("Distribution"))
    silence.note(working("Topic"))
    silence.note(working("Topic", "CREATE_COMPLETE"))

    for clock.now in (14.0, 20.0, 30.0, 80.0):
        silence.keep()

    assert capsys.readouterr().err.splitlines() == [
        "  still at work: CloudFormation, 20 s, at Distribution",
        "  still at work: CloudFormation, 1 min 20 s, at Distribution",
    ]


def test_what_was_said_breaks_the_silence_too(capsys: pytest.CaptureFixture[str]) -> None:
    clock = Clock()
    silence = Silence(watched=True, clock=clock)
    clock.now = 14.0
    silence.broken()
    clock.now = 28.0
    silence.keep()

    assert capsys.readouterr().err == ""


def test_no_program_is_told_that_it_goes_on(capsys: pytest.CaptureFixture[str]) -> None:
    clock = Clock()
    silence = Silence(watched=False, clock=clock)
    clock.now = 1000.0
    silence.keep()

    assert capsys.readouterr().err == ""


# --- addresses -----------------------------------------------------------------------


def deployed(*names: str, **values: str) -> Deployed:
    return Deployed({"Resources": {name: {"Type": "X"} for name in names}}, values)


@pytest.mark.parametrize(
    ("before", "after", "lost"),
    [
        (deployed("RestAPI"), deployed("CallsApi"), True),
        (deployed("CallsApi"), deployed("CallsApi"), False),
        (deployed("RestAPI", "Distribution"), deployed("CallsApi", "Distribution"), False),
        (deployed("CallsApi", "Distribution"), deployed("CallsApi"), True),
        (
            deployed("RestAPI", "Distribution", DomainName="a.example"),
            deployed("CallsApi", "Distribution", DomainName="a.example"),
            False,
        ),
    ],
)
def test_an_address_that_goes_is_noticed(before: Deployed, after: Deployed, lost: bool) -> None:
    assert moves(before, after, []) is lost
    assert moves(None, after, []) is False
