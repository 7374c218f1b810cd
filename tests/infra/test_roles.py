"""May each function do what its code does, and nothing that a thief would want?

The AWS host plays the whole conversation and publishes, in front of dynalite and moto; each
request that it makes is judged by the policies of the template.
"""

import contextlib
import itertools
import json
import os
import re
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

from capsules.keys import SigningKey
from chalicelib import tables
from chalicelib.aws.clients import open_client
from chalicelib.aws.host import AwsHost
from chalicelib.call import Call
from chalicelib.circle import journal, pieces
from chalicelib.community import keyring
from chalicelib.community.keyring import RootKey
from chalicelib.service import Service
from infra import stack
from tests.hosts.test_publish_aws import CLOCK_EVENT, tell
from tests.support import aws, dynalite, faults, moto_http, roles, transcript, version2
from tests.support.circle import HINT
from tests.support.gateway import REGION, Gateway
from tests.support.local import GENEROUS
from tests.support.roles import Asked, Role
from tests.support.serving import serving
from tests.support.witness import Act, Witness, watching

SERVE, PUBLISH = Role("ServiceRole"), Role("PublishRole")
READS = ("BatchGetItem", "GetItem", "Query", "Scan")
WRITES = ("BatchWriteItem", "DeleteItem", "PutItem", "UpdateItem")


RULES = {name: f"muster-roles-{name}" for name in ("sweep", "publish")}
ARN = "arn:${AWS::Partition}:%s:${AWS::Region}:${AWS::AccountId}:%s"


class Seen(NamedTuple):
    """What the two functions asked of the tables, and what they did to anything else."""

    serving: set[Asked]
    publishing: set[Asked]
    serving_did: set[Act]
    publishing_did: set[Act]


@pytest.fixture(scope="module")
def seen(tmp_path_factory: pytest.TempPathFactory) -> Seen:
    """Let both functions do all they can."""
    found = Seen(set(), set(), set(), set())
    with contextlib.ExitStack() as opened:
        way = opened.enter_context(faults.way(opened.enter_context(dynalite.running())))
        moto = opened.enter_context(moto_http.running())
        witness = opened.enter_context(watching(moto))
        for policy in transcript.PLAYS:
            directory = tmp_path_factory.mktemp("roles")
            with machines(policy, directory, way, witness.url) as made:
                prepare(moto)
                serve(made, policy)
                rest(way, AwsHost.sweep)
                found.serving.update(logical(way))
                found.serving_did.update(taken(witness))
                publish(made, moto)
                rest(way, AwsHost.publish)
                found.publishing.update(logical(way))
                found.publishing_did.update(taken(witness))
    return found


@contextlib.contextmanager
def machines(policy: str, directory: Path, way: faults.Way, witness: str) -> Iterator[Gateway]:
    settings = GENEROUS | {
        "MUSTER_UNSIGNED": policy,
        "MUSTER_CAPSULE_BUCKET": f"muster-roles-{policy}",
        "MUSTER_CAPSULE_KEYS_PARAM": f"/roles/{policy}",
        **{f"MUSTER_{name.upper()}_RULE": rule for name, rule in RULES.items()},
        **{f"AWS_ENDPOINT_URL_{name}": witness for name in ("S3", "SSM", "EVENTBRIDGE")},
        "AWS_DEFAULT_REGION": REGION,
    }
    with aws.running("dynalite", directory=directory, dynalite_url=way.url, **settings) as made:
        way.asked.clear()
        yield made


def serve(made: Gateway, policy: str) -> None:
    """Have the service do what the conversation wants, and what seldom happens."""
    with serving(made) as base, transcript.Player(base) as player:
        transcript.PLAYS[policy](player)
        version2.converse(base)
    tell(made, 3)
    made.call("GET", "/capsules/mainnet/peers.json")
    made.machines[0].run("sweep", CLOCK_EVENT)
    rarely(made.machines[0].module.host.service, now=int(time.time()))


def rarely(service: Service, *, now: int) -> None:
    """Do what only some deployments, or two callers at once, make the service do."""
    call = Call("POST", "/v1/messages", clock=float(now))
    tables.count(service.stores, "bytes", 1, now=now)
    tables.few_allowed(service.stores, most=1, now=now)  # as a closed service does
    tables.key_set(service.stores, "identity", b"1" * 32, until=tables.FOREVER, now=now)
    service.stores.guard.add("count#address#192.0.2.1", "1", 1, expires_at=now + 9, now=now)
    batch = pieces.Batch(service, call, HINT)
    batch.fit(journal.Part("m0000001", bytes(2 * journal.ENTRY_BYTES)), None)
    batch.tidy(())


def prepare(moto: str) -> None:
    """Have the rules, as they are while nobody is there."""
    events = open_client("events", endpoint_url=moto)
    for rule in RULES.values():
        events.put_rule(Name=rule, ScheduleExpression="rate(1 minute)", State="DISABLED")


def rest(way: faults.Way, run: Callable[[AwsHost], None]) -> None:
    """Have a clock rest when all is over; where it cannot look once more, it goes on."""
    now = time.time() + 24 * 3600
    host = AwsHost(os.environ, clock=lambda: now)
    for minute in range(4):
        asked = itertools.count()
        way.judge = lambda operation: "throttle" if minute == 2 and next(asked) else "pass"  # noqa: B023
        run(host)
        now += 60
    way.clear()


def publish(made: Gateway, moto: str) -> None:
    """Have the publisher fail without a bucket, and then publish."""
    policy = made.machines[0].module.host.service.settings.unsigned
    s3, ssm = (open_client(name, endpoint_url=moto) for name in ("s3", "ssm"))
    made.start().run("publish", CLOCK_EVENT)
    s3.create_bucket(Bucket=f"muster-roles-{policy}")
    key = SigningKey(bytes(32))
    keys = keyring.encode(RootKey.first(key, now=0).certify(key, now=int(time.time())))
    ssm.put_parameter(Name=f"/roles/{policy}", Value=keys.decode(), Type="SecureString")
    made.start().run("publish", CLOCK_EVENT)
    assert s3.list_objects_v2(Bucket=f"muster-roles-{policy}")["KeyCount"] > 0


def taken(witness: Witness) -> set[Act]:
    """Take what was done, to what the template calls it."""
    found = {Act(action, _arn(action, on)) for action, on in witness.seen}
    witness.seen.clear()
    return found


def _arn(action: str, on: str) -> str:
    if action.startswith("s3:"):
        return "${CapsuleBucket.Arn}/" + on
    if action.startswith("ssm:"):
        return ARN % ("ssm", "parameter/muster/${Stage}/publishing-key")
    return ARN % ("events", "rule/${AWS::StackName}-" + on.rpartition("-")[2])


def logical(way: faults.Way) -> set[Asked]:
    """Take what was asked, its tables named as the template names them."""
    named = dict(zip(("presence", "mail", "guard"), roles.TABLES, strict=True))
    found = {asked._replace(table=named[asked.table.rpartition("-")[2]]) for asked in way.asked}
    way.asked.clear()
    return found


@pytest.mark.parametrize(("function", "role"), [("serving", SERVE), ("publishing", PUBLISH)])
def test_a_function_is_allowed_all_that_its_code_does(
    seen: Seen, function: str, role: Role
) -> None:
    made: set[Asked] = getattr(seen, function)

    assert made
    assert [asked for asked in made if not role.allows(asked)] == []


@pytest.mark.parametrize(("function", "role"), [("serving", SERVE), ("publishing", PUBLISH)])
def test_a_function_is_allowed_no_action_that_its_code_does_not_take(
    seen: Seen, function: str, role: Role
) -> None:
    made: set[Asked] = getattr(seen, function)
    taken = {(f"dynamodb:{asked.action}", asked.table) for asked in made}
    granted = {
        (action, statement["Resource"]["Fn::GetAtt"][0])
        for statement in role.statements
        for action in statement["Action"]
    }

    assert granted - taken == set()


@pytest.mark.parametrize(("function", "role"), [("serving", SERVE), ("publishing", PUBLISH)])
def test_a_function_is_allowed_what_its_code_does_besides_and_no_other_action(
    seen: Seen, function: str, role: Role
) -> None:
    did: set[Act] = getattr(seen, f"{function}_did")
    granted = {action for statement in role.others for action in statement["Action"]}

    assert [act for act in did if not role.lets(act.action, act.on)] == []
    # nobody asks to list: without it, S3 does not say that a file is missing
    assert granted - {"s3:ListBucket"} == {act.action for act in did}


def test_the_service_reads_capsules_and_nothing_else_of_the_bucket() -> None:
    capsule = "${CapsuleBucket.Arn}/capsules/mainnet/peers.json"

    assert SERVE.lets("s3:GetObject", capsule)
    assert not SERVE.lets("s3:PutObject", capsule)
    assert not SERVE.lets("s3:GetObject", "${CapsuleBucket.Arn}/elsewhere")


@pytest.mark.parametrize(
    ("role", "verb", "rule", "allowed"),
    [
        (SERVE, "Enable", "sweep", True),
        (SERVE, "Disable", "sweep", True),
        (SERVE, "Enable", "publish", True),
        (SERVE, "Disable", "publish", False),
        (PUBLISH, "Enable", "publish", True),
        (PUBLISH, "Disable", "publish", True),
        (PUBLISH, "Enable", "sweep", False),
        (PUBLISH, "Disable", "sweep", False),
    ],
)
def test_a_clock_is_put_to_rest_by_its_own_function_alone(
    role: Role, verb: str, rule: str, allowed: bool
) -> None:
    arn = ARN % ("events", "rule/${AWS::StackName}-" + rule)

    assert role.lets(f"events:{verb}Rule", arn) is allowed
    assert not role.lets(f"events:{verb}Rule", ARN % ("events", "rule/other"))


def test_the_rules_are_called_what_the_roles_and_the_functions_call_them() -> None:
    resources = json.loads(stack.RESOURCES.read_text())["Resources"]
    for name, function, event in (
        ("sweep", stack.SERVE, "Sweep"),
        ("publish", stack.PUBLISH, "PublishEvent"),
    ):
        declared = resources[function]["Properties"]["Events"][event]["Properties"]
        called = {"Fn::Sub": "${AWS::StackName}-" + name}
        assert (declared["Name"], declared["State"]) == (called, "DISABLED")
        told = resources[function]["Properties"]["Environment"]["Variables"]
        assert told[f"MUSTER_{name.upper()}_RULE"] == called


@pytest.mark.parametrize("action", READS)
@pytest.mark.parametrize("key", [f"key#{HINT}", f"circle#{HINT}", f"room#{HINT}", "seats"])
def test_the_publisher_reads_no_request_key_and_nothing_of_circles(action: str, key: str) -> None:
    assert not PUBLISH.allows(Asked(action, "PresenceTable", frozenset({key})))


@pytest.mark.parametrize("action", [*READS, *WRITES])
@pytest.mark.parametrize("key", ["service", "keyset", f"nonce#{HINT}", "count#address#192.0.2.1"])
def test_the_publisher_neither_reads_nor_writes_the_service_key(action: str, key: str) -> None:
    assert not PUBLISH.allows(Asked(action, "GuardTable", frozenset({key})))


@pytest.mark.parametrize("action", [*READS, *WRITES])
def test_the_publisher_does_nothing_to_mail(action: str) -> None:
    assert not PUBLISH.allows(Asked(action, "MailTable", frozenset({f"mail#{HINT}"})))


@pytest.mark.parametrize("key", [f"key#{HINT}", "communities", "slots#mainnet", "claim#0"])
@pytest.mark.parametrize("action", WRITES)
def test_the_publisher_changes_no_pin_and_no_place(action: str, key: str) -> None:
    assert not PUBLISH.allows(Asked(action, "PresenceTable", frozenset({key})))


@pytest.mark.parametrize("key", [f"key#{HINT}", "outcomes"])
@pytest.mark.parametrize("action", ["BatchWriteItem", "DeleteItem", "UpdateItem"])
def test_the_service_removes_no_pin_and_no_outcome(action: str, key: str) -> None:
    assert not SERVE.allows(Asked(action, "PresenceTable", frozenset({key})))


@pytest.mark.parametrize("key", ["service", "keyset", "lease#mainnet", f"nonce#{HINT}"])
@pytest.mark.parametrize("action", ["BatchWriteItem", "DeleteItem", "UpdateItem", "Scan", "Query"])
def test_the_service_makes_its_keys_and_does_nothing_else_to_them(action: str, key: str) -> None:
    assert not SERVE.allows(Asked(action, "GuardTable", frozenset({key})))


def test_one_key_that_is_not_allowed_denies_a_whole_batch() -> None:
    batch = Asked("BatchWriteItem", "PresenceTable", frozenset({"seats", "session#1"}))

    assert SERVE.allows(batch)
    assert not SERVE.allows(batch._replace(keys=batch.keys | {f"key#{HINT}"}))


def test_the_roles_name_the_partitions_that_there_are() -> None:
    """A new partition is a line in `tables`, and a key in the role of whoever uses it."""
    lines = re.findall(r"^\w[\w ]+?  +(presence|guard) (\S+)", tables.__doc__ or "", re.MULTILINE)
    partitions = {(f"{table.capitalize()}Table", re.sub("#.*", "#*", key)) for table, key in lines}
    named = {
        (table, key)
        for role in (SERVE, PUBLISH)
        for table in ("PresenceTable", "GuardTable")
        for key in role.keys(table)
    }

    assert len(partitions) > 15
    assert named == partitions
