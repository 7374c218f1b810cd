"""Publishing on AWS: from DynamoDB to S3 on a schedule, with keys from SSM; nothing is replaced."""

import json
import logging
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from capsules import manifest, trust
from capsules.keys import SigningKey
from chalicelib.aws.clients import open_client
from chalicelib.aws.publishing import KEYS_S, BucketPublishing, create_once
from chalicelib.aws.told import Told
from chalicelib.community import keyring, press, publisher
from chalicelib.community.keyring import RootKey
from chalicelib.community.shelf import CACHE_CONTROL, FolderShelf, S3Shelf
from tests.support import aws, moto_http
from tests.support.circle import world
from tests.support.gateway import REGION, ROOT, Answer, Gateway
from tests.unit.test_beacon import Node, announce

CLOCK_EVENT = {
    "version": "0",
    "id": "53dc4d37-cffa-4f76-80c9-8b7d4a4d2eaa",
    "detail-type": "Scheduled Event",
    "source": "aws.events",
    "account": "123456789012",
    "time": "2026-10-08T16:53:06Z",
    "region": "us-east-1",
    "resources": ["arn:aws:events:us-east-1:123456789012:rule/muster"],
    "detail": {},
}
ROOT_KEY, ONLINE, NEXT = (SigningKey(bytes([number]) * 32) for number in (1, 2, 3))

on_stores = pytest.mark.parametrize("engine", ["moto", "dynalite"], indirect=True)
on_sqlite = pytest.mark.parametrize("engine", ["sqlite"], indirect=True)
on_moto = pytest.mark.parametrize("engine", ["moto"], indirect=True)


class Cloud:
    """A bucket and a parameter store; the bucket and the keys are there when a test says so."""

    def __init__(self, bucket: str) -> None:
        self.bucket = bucket
        self.parameter = f"/{bucket}/publishing-key"
        self.s3: Any = open_client("s3")
        self.ssm: Any = open_client("ssm")

    def make_bucket(self) -> None:
        self.s3.create_bucket(Bucket=self.bucket)

    def keep_keys(self, root: RootKey, online: SigningKey = ONLINE, **more: Any) -> bytes:
        value = keyring.encode(root.certify(online, now=int(time.time()), **more))
        assert create_once(self.ssm, self.parameter, value.decode())
        return value

    def files(self, community: str = "mainnet") -> dict[str, bytes]:
        names = [f"capsules/{community}/{name}" for name in publisher.FILES]
        return {name: self.object(name)["Body"].read() for name in names}

    def object(self, name: str) -> Any:
        return self.s3.get_object(Bucket=self.bucket, Key=name)


@pytest.fixture(scope="module")
def moto_url() -> Iterator[str]:
    with moto_http.running() as url:
        yield url


@pytest.fixture
def cloud(moto_url: str, request: pytest.FixtureRequest) -> Iterator[Cloud]:
    """S3 and SSM for one test."""
    bucket = f"muster-{abs(hash(request.node.nodeid)) % 10**12}"
    environment = {"AWS_ENDPOINT_URL_S3": moto_url, "AWS_ENDPOINT_URL_SSM": moto_url}
    with aws.environ(environment | {"AWS_DEFAULT_REGION": REGION}):
        yield Cloud(bucket)


@pytest.fixture
def settings(cloud: Cloud) -> dict[str, str]:
    return {
        "MUSTER_CAPSULE_BUCKET": cloud.bucket,
        "MUSTER_CAPSULE_KEYS_PARAM": cloud.parameter,
        "MUSTER_CAPSULE_BEACONS": "https://beacon.example",
    }


@pytest.fixture
def root() -> RootKey:
    return RootKey.first(ROOT_KEY, now=int(time.time()))


def tell(gateway: Gateway, count: int) -> list[dict[str, Any]]:
    """Announce so many nodes; their tickets."""
    here = world()
    here.clock = time.time()
    tickets = [Node(number).ticket(here) for number in range(1, count + 1)]
    for ticket in tickets:
        body = json.dumps({"ticket": ticket}).encode()
        answer = gateway.call("POST", "/announce", body=body)
        assert (answer.status, answer.json()["ok"]) == (200, True)
    return tickets


def outcomes(gateway: Gateway) -> list[tuple[str, int, bool, str]]:
    service = gateway.machines[0].module.host.service
    found = publisher.outcomes(service, now=int(time.time()))
    return [(one.community, one.failures, one.alarming, one.reason) for one in found]


def run(gateway: Gateway, machine: int = 0) -> None:
    gateway.machines[machine].run("publish", CLOCK_EVENT)


@on_stores
def test_the_schedule_publishes_what_the_other_host_would(
    gateway: Gateway, cloud: Cloud, root: RootKey, tmp_path: Path
) -> None:
    cloud.make_bucket()
    value = cloud.keep_keys(root)
    tickets = tell(gateway, 25)

    run(gateway)

    files = cloud.files()
    described = files["capsules/mainnet/peers.json.manifest"]
    sequence = manifest.sequence_of(described)
    accepted = trust.accept(
        trust.begin(ROOT_KEY.verify_key),
        described,
        files["capsules/mainnet/peers.json"],
        files["capsules/mainnet/peers.json.sig"],
        community="mainnet",
        now=sequence,
    )
    assert {ticket.peer_id for ticket in accepted.tickets} == {
        ticket["payload"]["peerId"] for ticket in tickets
    }
    # the same tickets, keys and time on one machine
    here = world(capsule_beacons="https://beacon.example")
    here.clock = sequence - 0.5
    for ticket in tickets:
        announce(here, ticket)
    shelf = FolderShelf(tmp_path / "capsules")
    press.Press(here.service, shelf, lambda now: keyring.parse(value)).run(now=sequence)
    assert files == {name: (tmp_path / name).read_bytes() for name in files}


@on_moto
def test_objects_are_for_browsers_and_caches(gateway: Gateway, cloud: Cloud, root: RootKey) -> None:
    cloud.make_bucket()
    cloud.keep_keys(root)
    tell(gateway, 1)

    run(gateway)

    for name, kind in (("peers.json", "application/json"), ("peers.json.sig", "text/plain")):
        found = cloud.object(f"capsules/mainnet/{name}")
        assert (found["ContentType"], found["CacheControl"]) == (kind, CACHE_CONTROL)


@on_stores
def test_two_runs_at_once_leave_one_capsule_whole(
    gateway: Gateway, cloud: Cloud, root: RootKey
) -> None:
    cloud.make_bucket()
    cloud.keep_keys(root)
    tell(gateway, 5)
    gateway.start()

    with ThreadPoolExecutor(2) as side_by_side:
        list(side_by_side.map(lambda machine: run(gateway, machine), (0, 1)))

    files = list(cloud.files().values())
    now = manifest.sequence_of(files[2])
    trust.accept(trust.begin(ROOT_KEY.verify_key), files[2], files[0], community="mainnet", now=now)
    assert len(outcomes(gateway)) == 1


@on_stores
def test_a_bucket_that_fails_is_counted_and_raises_the_alarm(
    gateway: Gateway, cloud: Cloud, root: RootKey, caplog: pytest.LogCaptureFixture
) -> None:
    cloud.keep_keys(root)
    tell(gateway, 2)

    run(gateway)
    assert outcomes(gateway) == [
        ("mainnet", 1, False, "cannot read mainnet/peers.json: NoSuchBucket")
    ]
    with caplog.at_level(logging.ERROR, logger="muster.publishing"):
        run(gateway)
    assert [found[1:3] for found in outcomes(gateway)] == [(2, True)]
    assert caplog.records[-1].PublishFailuresInARow == 2  # type: ignore[attr-defined]

    cloud.make_bucket()
    run(gateway)
    assert [found[1:3] for found in outcomes(gateway)] == [(0, False)]


@on_moto
def test_keys_that_are_missing_or_damaged_are_counted(
    gateway: Gateway, cloud: Cloud, root: RootKey
) -> None:
    cloud.make_bucket()
    tell(gateway, 2)

    run(gateway)
    assert outcomes(gateway)[0][3] == (
        f"there are no publishing keys in {cloud.parameter}; `muster deploy` makes them"
    )
    with aws.environ({"AWS_ENDPOINT_URL_SSM": "http://127.0.0.1:1"}):
        run(gateway, machine=gateway.machines.index(gateway.start()))
    assert outcomes(gateway)[0][3].startswith("the publishing keys cannot be read: Endpoint")
    assert create_once(cloud.ssm, cloud.parameter, "no keys")
    run(gateway)
    assert outcomes(gateway)[0][1:3] == (3, True)
    assert "no publishing-key" in outcomes(gateway)[0][3]
    cloud.ssm.delete_parameter(Name=cloud.parameter)
    cloud.keep_keys(root)
    run(gateway)
    assert outcomes(gateway)[0][1:3] == (0, False)


@on_moto
def test_a_certificate_that_has_ended_is_not_published_with(
    gateway: Gateway, cloud: Cloud, root: RootKey
) -> None:
    cloud.make_bucket()
    cloud.keep_keys(root, lasting_s=-5)
    tell(gateway, 1)

    run(gateway)

    assert "past its time" in outcomes(gateway)[0][3]


@on_moto
@pytest.mark.parametrize("settings", [{}])
def test_without_a_bucket_nothing_is_published(gateway: Gateway) -> None:
    tell(gateway, 1)

    run(gateway)

    assert outcomes(gateway) == []


def test_new_keys_are_taken_in_time_and_old_ones_go_on_meanwhile(
    cloud: Cloud, root: RootKey
) -> None:
    cloud.make_bucket()
    cloud.keep_keys(root)
    here = world()
    told = Told(capsule_bucket=cloud.bucket, capsule_keys_param=cloud.parameter)
    here.clock = time.time()
    publishing = BucketPublishing(told, lambda: here.service)

    def signed_by(at: float) -> str:
        here.clock = at
        Node(1).announce(here, ttl_s=3600)
        [outcome] = publishing.run(now=here.now)
        assert outcome.failures == 0, outcome.reason
        return str(json.loads(cloud.files()["capsules/mainnet/peers.json.manifest"])["publicKey"])

    started = here.clock
    assert signed_by(started) == ONLINE.verify_key.to_base64()
    renewed = keyring.encode(root.certify(NEXT, now=here.now)).decode()
    cloud.ssm.put_parameter(
        Name=cloud.parameter, Value=renewed, Type="SecureString", Overwrite=True
    )
    assert signed_by(started + KEYS_S - publisher.EVERY_S) == ONLINE.verify_key.to_base64()
    assert signed_by(started + KEYS_S) == NEXT.verify_key.to_base64()
    cloud.ssm.delete_parameter(Name=cloud.parameter)
    assert signed_by(started + 2 * KEYS_S) == NEXT.verify_key.to_base64()


def test_a_parameter_is_written_once(cloud: Cloud) -> None:
    assert create_once(cloud.ssm, "/muster/once", "first") is True
    assert create_once(cloud.ssm, "/muster/once", "second") is False

    found = cloud.ssm.get_parameter(Name="/muster/once", WithDecryption=True)["Parameter"]
    assert (found["Value"], found["Type"]) == ("first", "SecureString")


def test_a_bucket_is_a_shelf(cloud: Cloud) -> None:
    shelf = S3Shelf(lambda: cloud.s3, cloud.bucket)
    cloud.make_bucket()

    assert shelf.read("a/peers.json") is None
    assert not shelf.write("a/peers.json", b"0", over='"0123"')
    assert shelf.write("a/peers.json", b"1", over=None)
    assert not shelf.write("a/peers.json", b"2", over=None)
    first = shelf.read("a/peers.json")
    assert first is not None
    assert shelf.write("a/peers.json", b"2", over=first.tag)
    assert not shelf.write("a/peers.json", b"3", over=first.tag)
    second = shelf.read("a/peers.json")
    assert second is not None
    assert second.body == b"2"


def test_only_the_function_that_publishes_may_reach_the_keys_and_write_into_the_bucket() -> None:
    resources = json.loads((ROOT / "infra" / "resources.json").read_text())["Resources"]
    everybody, one = (
        {
            action
            for policy in resources[role]["Properties"]["Policies"]
            for statement in policy["PolicyDocument"]["Statement"]
            for action in statement["Action"]
        }
        for role in ("ServiceRole", "PublishRole")
    )
    reading = {"s3:GetObject", "s3:ListBucket"}

    assert {action for action in everybody if action.startswith(("s3:", "ssm:"))} == reading
    assert {action for action in one if action.startswith(("s3:", "ssm:"))} == {
        *(*reading, "s3:PutObject", "ssm:GetParameter")
    }
    assert not any("*" in action for action in one)


# --- reading ------------------------------------------------------------------------

CAPSULE, SIGNATURE, MANIFEST = (f"/capsules/mainnet/{name}" for name in publisher.FILES)
NO_FILES = (
    *("", "mainnet", "mainnet/", "other/peers.json", "mainnet/peers.json.new", "mainnet/.lock"),
    *("../peers.json", "mainnet/../mainnet/peers.json", "mainnet/peers.json/", "a b/peers.json"),
)


@pytest.fixture
def read(gateway: Gateway, cloud: Cloud, root: RootKey) -> Gateway:
    """A gateway whose service has published something."""
    cloud.make_bucket()
    cloud.keep_keys(root)
    tell(gateway, 2)
    run(gateway)
    return gateway


@on_sqlite
def test_published_files_are_answered_at_the_call_s_address(read: Gateway, cloud: Cloud) -> None:
    for name, body in cloud.files().items():
        answer = read.call("GET", f"/{name}", headers=[("X-Felund-Node", "somebody")])
        assert (answer.status, answer.body) == (200, body)
        assert answer.headers["etag"] == cloud.object(name)["ETag"]
        assert answer.headers["cache-control"] == CACHE_CONTROL
        assert answer.headers["access-control-allow-origin"] == "*"
        assert answer.headers["x-request-id"].startswith("request-")
    assert read.call("GET", CAPSULE).headers["content-type"] == "application/json"
    assert read.call("GET", SIGNATURE).headers["content-type"] == "text/plain"


@on_sqlite
def test_a_reader_who_has_it_is_sent_nothing(read: Gateway) -> None:
    tag = read.call("GET", CAPSULE).headers["etag"]
    again = read.call("GET", CAPSULE, headers=[("If-None-Match", tag)])
    asked = read.call("OPTIONS", CAPSULE)

    assert (again.status, again.body, again.headers["etag"]) == (304, b"", tag)
    assert (asked.status, asked.body) == (204, b"")
    assert "If-None-Match" in asked.headers["access-control-allow-headers"]
    assert read.call("HEAD", CAPSULE).headers["etag"] == tag


@on_sqlite
def test_there_is_nothing_else_to_read_and_nothing_to_write(read: Gateway) -> None:
    for path in NO_FILES:
        answer = read.call("GET", f"/capsules/{path}")
        assert (answer.status, code(answer)) == (404, "NOT_FOUND"), path
        assert answer.headers["access-control-allow-origin"] == "*"
    for method in ("POST", "PUT", "PATCH", "DELETE"):
        answer = read.call(method, CAPSULE)
        assert (answer.status, code(answer)) == (405, "METHOD_NOT_ALLOWED")
        assert answer.headers["allow"] == "GET, HEAD, OPTIONS"


@on_sqlite
@pytest.mark.parametrize("settings", [{"MUSTER_ACCESS": "closed"}])
def test_a_closed_service_answers_for_the_communities_that_were_named(
    gateway: Gateway, cloud: Cloud, settings: dict[str, str]
) -> None:
    cloud.make_bucket()
    for name in ("mainnet", "friends"):
        for file in publisher.FILES:
            S3Shelf(lambda: cloud.s3, cloud.bucket).write(f"{name}/{file}", b"{}", over=None)
    bucket = {"MUSTER_CAPSULE_BUCKET": cloud.bucket, "MUSTER_COMMUNITY_NAMES": "friends"}
    with aws.environ(bucket):
        machine = gateway.start()
        named = gateway.call("GET", "/capsules/friends/peers.json", machine=machine)
        other = gateway.call("GET", CAPSULE, machine=machine)

    assert (named.status, named.body) == (200, b"{}")
    assert (other.status, code(other)) == (404, "NOT_FOUND")


@on_sqlite
def test_a_bucket_that_cannot_be_read_is_an_answer(gateway: Gateway) -> None:
    answer = gateway.call("GET", CAPSULE)

    assert (answer.status, code(answer), answer.headers["retry-after"]) == (
        503,
        "UNAVAILABLE",
        "30",
    )


@on_sqlite
@pytest.mark.parametrize("settings", [{}])
def test_without_a_bucket_there_is_no_such_path(gateway: Gateway) -> None:
    answer = gateway.call("GET", CAPSULE)

    assert (answer.status, code(answer)) == (404, "NOT_FOUND")
    assert "/v1/info" in answer.json()["message"]


@on_moto
def test_reading_takes_no_unit_of_a_table(read: Gateway) -> None:
    read.call("GET", CAPSULE)

    used = read.machines[0].module.host.used
    assert (used.read, used.written) == (0, 0)


def code(answer: Answer) -> str:
    return str(answer.json()["code"])
