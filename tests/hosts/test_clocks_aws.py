"""The two clocks on AWS: rules of EventBridge that run only while there is something to do."""

import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from chalicelib.aws import clients
from chalicelib.aws.clocks import Clock
from chalicelib.aws.eventbridge import EventsClient, open_events
from chalicelib.aws.host import AwsHost
from chalicelib.tables import Socket, save_community, save_session, save_socket
from tests.hosts.test_publish_aws import tell
from tests.support import aws, moto_http
from tests.support.circle import HINT
from tests.support.gateway import GREET, REGION, ROOT, Gateway
from tests.support.members import circle

on_sqlite = pytest.mark.parametrize("engine", ["sqlite"], indirect=True)

KEYS = {"AWS_REGION": REGION, "AWS_ACCESS_KEY_ID": "a", "AWS_SECRET_ACCESS_KEY": "b"}
TABLES = ("PRESENCE", "MAIL", "GUARD")
NAMES = {"sweep": "muster-test-sweep", "publish": "muster-test-publish"}
TOLD = {f"MUSTER_{name.upper()}_RULE": rule for name, rule in NAMES.items()}


@pytest.fixture(scope="module")
def events_url() -> Iterator[str]:
    with moto_http.running() as url:
        yield url


class Rules:
    """The rules as EventBridge has them."""

    def __init__(self, client: Any) -> None:
        self._client = client

    def put(self, name: str, state: str = "DISABLED") -> None:
        """Have a rule as a stack's update leaves it."""
        self._client.put_rule(Name=NAMES[name], ScheduleExpression="rate(1 minute)", State=state)

    def running(self) -> list[str]:
        found = self._client.list_rules()["Rules"]
        states = {rule["Name"]: rule["State"] for rule in found}
        return [name for name, rule in NAMES.items() if states.get(rule) == "ENABLED"]


@pytest.fixture
def rules(events_url: str) -> Iterator[Rules]:
    with aws.environ({"AWS_ENDPOINT_URL_EVENTBRIDGE": events_url, "AWS_DEFAULT_REGION": REGION}):
        found = Rules(clients.open_client("events"))
        for name in NAMES:
            found.put(name)
        yield found


@pytest.fixture
def settings(rules: Rules, events_url: str) -> Mapping[str, str]:
    return TOLD | {"AWS_ENDPOINT_URL_EVENTBRIDGE": events_url}


class Host:
    """A container over a file of SQLite, whose time a test chooses."""

    def __init__(self, directory: Path, events_url: str, **more: str) -> None:
        self.now = int(time.time())
        variables = (
            KEYS
            | TOLD
            | {
                "MUSTER_STORE": f"sqlite:{directory / 'muster.db'}",
                "MUSTER_GREET_FUNCTION": GREET,
                "MUSTER_ACCESS": "open",
                "MUSTER_CAPSULE_BUCKET": "muster-capsules",
                "AWS_ENDPOINT_URL_EVENTBRIDGE": events_url,
            }
        )
        self.host = AwsHost(variables | more, clock=lambda: self.now)

    def pass_minutes(self, count: int, run: Callable[[], None]) -> None:
        """Run a clock each minute, as its rule does."""
        for _ in range(count):
            run()
            self.now += 60

    def seat(self) -> None:
        """Have somebody take a seat, and say nothing more."""
        stores, until = self.host.service.stores, self.now + 3600
        socket = Socket("c1=", "http://127.0.0.1:1", HINT, "node-one", until, "session")
        save_session(stores, "session", until=until)
        save_socket(stores, socket, now=self.now)


@pytest.fixture
def container(rules: Rules, tmp_path: Path, events_url: str) -> Host:
    return Host(tmp_path, events_url)


# --- waking -------------------------------------------------------------------------


@on_sqlite
def test_a_seat_wakes_the_sweep(gateway: Gateway, rules: Rules) -> None:
    ann, bob = circle(gateway, "ann", "bob")
    ann.leave("m0000001")
    assert rules.running() == []

    ann.attach(bob)

    assert rules.running() == ["sweep"]


@on_sqlite
def test_a_frame_wakes_the_sweep_that_an_update_has_put_to_rest(
    gateway: Gateway, rules: Rules
) -> None:
    ann, bob = circle(gateway, "ann", "bob")
    wire = ann.attach(bob)
    rules.put("sweep")

    wire.send('{"t":"PING"}', machine=gateway.start())

    assert rules.running() == ["sweep"]


@on_sqlite
def test_an_announce_wakes_the_publisher(gateway: Gateway, rules: Rules) -> None:
    gateway.call("GET", "/peers")
    assert rules.running() == []

    tell(gateway, 1)

    assert rules.running() == ["publish"]


@on_sqlite
@pytest.mark.parametrize(
    "settings",
    [
        TOLD | {"AWS_ENDPOINT_URL_EVENTBRIDGE": "http://127.0.0.1:1"},
        {"MUSTER_PUBLISH_RULE": "not-there", "MUSTER_SWEEP_RULE": "not-there"},
    ],
)
def test_a_clock_that_cannot_be_woken_fails_no_call(
    gateway: Gateway, caplog: pytest.LogCaptureFixture
) -> None:
    ann, bob = circle(gateway, "ann", "bob")
    near, far = ann.attach(bob), bob.attach(ann)
    tell(gateway, 2)

    assert [found["t"] for found in near.frames()] == ["ATTACHED"]
    assert [found["t"] for found in far.frames()] == ["ATTACHED"]
    told = [r.getMessage() for r in caplog.records if "is not enabled" in r.getMessage()]
    assert len(told) == 2, "once a clock, not once a call"


# --- resting ------------------------------------------------------------------------


def test_the_sweep_rests_when_the_last_seat_is_gone(container: Host, rules: Rules) -> None:
    container.seat()  # idle by the second run
    rules.put("sweep", "ENABLED")

    container.pass_minutes(3, container.host.sweep)
    assert rules.running() == ["sweep"]
    container.pass_minutes(1, container.host.sweep)

    assert rules.running() == []


def test_the_publisher_rests_when_the_last_community_is_forgotten(
    container: Host, rules: Rules
) -> None:
    save_community(container.host.service.stores, "mainnet", until=container.now + 170)
    rules.put("publish", "ENABLED")

    container.pass_minutes(4, container.host.publish)
    assert rules.running() == ["publish"]
    container.pass_minutes(1, container.host.publish)

    assert rules.running() == []


@pytest.mark.parametrize("settings", [{"MUSTER_CAPSULE_BUCKET": ""}])
def test_the_publisher_rests_where_it_has_no_bucket(
    rules: Rules, tmp_path: Path, events_url: str, settings: Mapping[str, str]
) -> None:
    container = Host(tmp_path, events_url, **settings)
    save_community(container.host.service.stores, "mainnet", until=container.now + 7200)
    rules.put("publish", "ENABLED")

    container.pass_minutes(4, container.host.publish)

    assert rules.running() == []


def test_while_the_store_is_away_the_sweep_goes_on(rules: Rules, events_url: str) -> None:
    nowhere = {f"MUSTER_TABLE_{name}": f"muster-{name.lower()}" for name in TABLES}
    variables = KEYS | TOLD | nowhere | {"AWS_ENDPOINT_URL_EVENTBRIDGE": events_url}
    now = int(time.time())
    host = AwsHost(variables | {"AWS_ENDPOINT_URL": "http://127.0.0.1:1"}, clock=lambda: now)
    rules.put("sweep", "ENABLED")
    for _ in range(4):
        host.sweep()
        now += 60

    assert rules.running() == ["sweep"]


# --- asking EventBridge -------------------------------------------------------------


@pytest.mark.parametrize("ours", [True, False])
def test_either_client_enables_and_disables(rules: Rules, events_url: str, ours: bool) -> None:
    variables = KEYS | {"AWS_ENDPOINT_URL_EVENTBRIDGE": events_url}
    client = open_events(variables if ours else variables | {"AWS_PROFILE": "work"})
    assert isinstance(client, EventsClient) is ours

    client.enable_rule(Name=NAMES["sweep"])
    assert rules.running() == ["sweep"]
    client.disable_rule(Name=NAMES["sweep"])
    assert rules.running() == []


def test_a_rule_that_is_not_there_is_told_by_its_name(
    rules: Rules, events_url: str, caplog: pytest.LogCaptureFixture
) -> None:
    clock = Clock("gone", lambda: open_events(KEYS | {"AWS_ENDPOINT_URL": events_url}))

    clock.wake(now=1)

    assert [record.getMessage() for record in caplog.records] == [
        "the rule gone is not enabled: ResourceNotFoundException"
    ]


def test_waking_the_publisher_loads_no_sdk(rules: Rules, events_url: str) -> None:
    """An announce waits for it."""
    code = (
        "import os, sys; from chalicelib.aws.clocks import Clock; "
        "from chalicelib.aws.eventbridge import open_events; "
        f"Clock('{NAMES['publish']}', lambda: open_events(os.environ)).wake(now=1); "
        "sys.exit('botocore' in sys.modules)"
    )
    variables = KEYS | {"AWS_ENDPOINT_URL_EVENTBRIDGE": events_url}
    subprocess.run([sys.executable, "-c", code], env=variables, cwd=ROOT, check=True)

    assert rules.running() == ["publish"]
