"""May each function do to the tables what its code does, and nothing that a thief would want?

The AWS host plays the whole conversation and publishes, in front of dynalite; each
request that it makes is judged by the policies of the template.
"""

import contextlib
import re
import time
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

from capsules.keys import SigningKey
from chalicelib import tables
from chalicelib.aws.clients import open_client
from chalicelib.call import Call
from chalicelib.circle import journal, pieces
from chalicelib.community import keyring
from chalicelib.community.keyring import RootKey
from chalicelib.service import Service
from tests.hosts.test_publish_aws import CLOCK_EVENT, tell
from tests.support import aws, dynalite, faults, moto_http, roles, transcript
from tests.support.circle import HINT
from tests.support.gateway import REGION, Gateway
from tests.support.local import GENEROUS
from tests.support.roles import Asked, Role
from tests.support.serving import serving

SERVE, PUBLISH = Role("ServiceRole"), Role("PublishRole")
READS = ("BatchGetItem", "GetItem", "Query", "Scan")
WRITES = ("BatchWriteItem", "DeleteItem", "PutItem", "UpdateItem")


class Seen(NamedTuple):
    """What the two functions asked of the tables."""

    serving: set[Asked]
    publishing: set[Asked]


@pytest.fixture(scope="module")
def seen(tmp_path_factory: pytest.TempPathFactory) -> Seen:
    """Let both functions do all they can."""
    found = Seen(set(), set())
    with dynalite.running() as url, faults.way(url) as way, moto_http.running() as moto:
        for policy in transcript.PLAYS:
            with machines(policy, tmp_path_factory.mktemp("roles"), way, moto) as made:
                serve(made, policy)
                found.serving.update(logical(way))
                publish(made)
                found.publishing.update(logical(way))
    return found


@contextlib.contextmanager
def machines(policy: str, directory: Path, way: faults.Way, moto: str) -> Iterator[Gateway]:
    settings = GENEROUS | {
        "MUSTER_UNSIGNED": policy,
        "MUSTER_CAPSULE_BUCKET": f"muster-roles-{policy}",
        "MUSTER_CAPSULE_KEYS_PARAM": f"/roles/{policy}",
        "AWS_ENDPOINT_URL_S3": moto,
        "AWS_ENDPOINT_URL_SSM": moto,
        "AWS_DEFAULT_REGION": REGION,
    }
    with aws.running("dynalite", directory=directory, dynalite_url=way.url, **settings) as made:
        way.asked.clear()
        yield made


def serve(made: Gateway, policy: str) -> None:
    """Have the service do what the conversation wants, and what seldom happens."""
    with serving(made) as base, transcript.Player(base) as player:
        transcript.PLAYS[policy](player)
    tell(made, 3)
    made.machines[0].run("sweep", CLOCK_EVENT)
    rarely(made.machines[0].module.host.service, now=int(time.time()))


def rarely(service: Service, *, now: int) -> None:
    """Do what only some deployments, or two callers at once, make the service do."""
    call = Call("POST", "/v1/messages", clock=float(now))
    tables.count(service.stores, "bytes", 1, now=now)
    tables.key_set(service.stores, "identity", b"1" * 32, until=tables.FOREVER, now=now)
    service.stores.guard.add("count#address#192.0.2.1", "1", 1, expires_at=now + 9, now=now)
    batch = pieces.Batch(service, call, HINT)
    batch.fit(journal.Part("m0000001", bytes(2 * journal.ENTRY_BYTES)), None)
    batch.tidy(())


def publish(made: Gateway) -> None:
    """Have the publisher fail without a bucket, and then publish."""
    policy = made.machines[0].module.host.service.settings.unsigned
    made.start().run("publish", CLOCK_EVENT)
    open_client("s3").create_bucket(Bucket=f"muster-roles-{policy}")
    key = SigningKey(bytes(32))
    keys = keyring.encode(RootKey.first(key, now=0).certify(key, now=int(time.time())))
    open_client("ssm").put_parameter(
        Name=f"/roles/{policy}", Value=keys.decode(), Type="SecureString"
    )
    made.start().run("publish", CLOCK_EVENT)
    assert open_client("s3").list_objects_v2(Bucket=f"muster-roles-{policy}")["KeyCount"] > 0


def logical(way: faults.Way) -> set[Asked]:
    """Take what was asked, its tables named as the template names them."""
    named = dict(zip(("presence", "mail", "guard"), roles.TABLES, strict=True))
    found = {asked._replace(table=named[asked.table.rpartition("-")[2]]) for asked in way.asked}
    way.asked.clear()
    return found


@pytest.mark.timeout(180)
@pytest.mark.parametrize(("function", "role"), [("serving", SERVE), ("publishing", PUBLISH)])
def test_a_function_is_allowed_all_that_its_code_does(
    seen: Seen, function: str, role: Role
) -> None:
    made: set[Asked] = getattr(seen, function)

    assert made
    assert [asked for asked in made if not role.allows(asked)] == []


@pytest.mark.timeout(180)
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
