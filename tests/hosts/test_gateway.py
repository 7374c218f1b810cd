"""Does text reach who it is for, in order and in good time, whatever the gateway says?"""

import threading
import time
from collections.abc import Iterator
from typing import Any

import pytest
from botocore.exceptions import ClientError, ReadTimeoutError

from chalicelib.aws import host
from chalicelib.aws.greeter import Greeter
from chalicelib.aws.pushes import Pushes
from chalicelib.aws.sender import PAUSES_S, PIECE_BYTES, Budget, GatewaySender, Undelivered
from chalicelib.call import Close, Connection, Gone, Send
from chalicelib.service import Service
from chalicelib.settings import Settings
from chalicelib.store.sqlite import open_sqlite

ANN, BOB = Connection("ann", "https://one"), Connection("bob", "https://two")


def said(status: int, code: str) -> ClientError:
    metadata = {"HTTPStatusCode": status}
    return ClientError({"Error": {"Code": code}, "ResponseMetadata": metadata}, "PostToConnection")  # type: ignore[typeddict-item]


GONE = said(410, "GoneException")
BUSY = said(429, "LimitExceededException")
TIMED_OUT = ReadTimeoutError(endpoint_url="https://one")


class Client:
    """A management client that fails as it is told, and then no more."""

    def __init__(self, *failures: Exception) -> None:
        self.failures = list(failures)
        self.asked: list[tuple[str, str]] = []
        self.held = threading.Event()
        self.held.set()

    def post_to_connection(self, *, ConnectionId: str, Data: bytes) -> None:
        self._ask(ConnectionId, Data.decode())

    def delete_connection(self, *, ConnectionId: str) -> None:
        self._ask(ConnectionId, "-")

    def invoke(self, **asked: Any) -> None:
        self._ask(asked["FunctionName"], asked["InvocationType"])

    def _ask(self, name: str, what: str) -> None:
        self.held.wait(10)
        self.asked.append((name, what))
        if self.failures:
            raise self.failures.pop(0)


class Bench:
    """A sender over a client, and the pauses it made."""

    def __init__(self, *failures: Exception) -> None:
        self.client = Client(*failures)
        self.pauses: list[float] = []
        self.opened: list[str] = []
        self.sender = GatewaySender(self._open, pause=self.pauses.append)

    def _open(self, endpoint: str) -> Client:
        self.opened.append(endpoint)
        return self.client


def test_a_client_is_opened_once_for_each_gateway() -> None:
    bench = Bench()

    for connection in (ANN, BOB, ANN, BOB):
        bench.sender.send(connection, "text")

    assert bench.opened == ["https://one", "https://two"]


@pytest.mark.parametrize("failure", [GONE, BUSY])
def test_what_passes_with_time_is_tried_again(failure: Exception) -> None:
    bench = Bench(failure, failure)

    bench.sender.send(ANN, "text")

    assert bench.client.asked == [("ann", "text")] * 3
    assert bench.pauses == list(PAUSES_S[:2])


def test_a_connection_that_stays_away_is_gone_and_not_waited_for_again() -> None:
    bench = Bench(*[GONE] * 9)

    for _ in range(3):
        with pytest.raises(Gone):
            bench.sender.send(ANN, "text")

    assert bench.pauses == list(PAUSES_S)
    assert len(bench.client.asked) == 1 + len(PAUSES_S)


def test_a_gateway_that_stays_busy_leaves_the_connection_alone() -> None:
    bench = Bench(*[BUSY] * 9)

    with pytest.raises(Undelivered):
        bench.sender.send(ANN, "text")

    assert bench.pauses == list(PAUSES_S)


@pytest.mark.parametrize(
    "failure", [TIMED_OUT, said(403, "ForbiddenException"), said(413, "PayloadTooLargeException")]
)
def test_what_may_have_arrived_or_never_will_is_not_sent_twice(failure: Exception) -> None:
    bench = Bench(failure)

    with pytest.raises(Undelivered):
        bench.sender.send(ANN, "text")

    assert len(bench.client.asked) == 1
    bench.sender.send(ANN, "text")


@pytest.mark.parametrize(
    ("failures", "asked"), [([], 1), ([GONE], 1), ([BUSY], 2), ([BUSY] * 9, 2)]
)
def test_closing_never_fails(failures: list[Exception], asked: int) -> None:
    bench = Bench(*failures)

    bench.sender.close(ANN, 1000, "enough")

    assert bench.client.asked == [("ann", "-")] * asked


def test_greeting_never_fails() -> None:
    client = Client(BUSY)
    greeter = Greeter(client, "greet")

    greeter.greet(ANN)
    greeter.greet(ANN)

    assert client.asked == [("greet", "Event")] * 2


# --- effects ----------------------------------------------------------------------


@pytest.fixture
def bench() -> Bench:
    return Bench()


@pytest.fixture
def service(bench: Bench) -> Iterator[Service]:
    stores = open_sqlite(":memory:")
    yield Service(Settings(), stores, bench.sender, bytes)
    stores.close()


def test_everybody_is_told_in_order(bench: Bench, service: Service) -> None:
    effects = [
        effect
        for number in range(5)
        for effect in (Send(ANN, f"a{number}"), Send(BOB, f"b{number}", then=(Send(ANN, "x"),)))
    ]

    Pushes().deliver(service, [*effects, Close(ANN), Close(BOB)], now=1)

    for name in ("ann", "bob"):
        told = [what for who, what in bench.client.asked if who == name and what != "x"]
        assert told == [*(f"{name[0]}{number}" for number in range(5)), "-"]
    assert bench.client.asked.count(("ann", "x")) == 5


def test_after_a_failure_a_connection_is_told_nothing_more(bench: Bench, service: Service) -> None:
    bench.client.failures = [TIMED_OUT]
    effects = (Send(ANN, "1", then=(Send(BOB, "ack"),), lost=(Send(BOB, "lost"),)), Send(ANN, "2"))

    Pushes().deliver(service, effects, now=1)

    assert bench.client.asked == [("ann", "1"), ("bob", "lost")]


def test_an_acknowledgement_that_is_lost_does_not_make_the_frame_lost(
    bench: Bench, service: Service
) -> None:
    def post_to_connection(*, ConnectionId: str, Data: bytes) -> None:
        bench.client.asked.append((ConnectionId, Data.decode()))
        if ConnectionId == "bob":
            raise TIMED_OUT

    bench.client.post_to_connection = post_to_connection  # type: ignore[method-assign]
    effect = Send(ANN, "1", then=(Send(BOB, "ack"),), lost=(Send(BOB, "lost"),))

    Pushes().deliver(service, [effect], now=1)

    assert bench.client.asked == [("ann", "1"), ("bob", "ack")]


def test_a_call_does_not_wait_for_who_is_slow(
    bench: Bench, service: Service, caplog: pytest.LogCaptureFixture
) -> None:
    bench.client.held.clear()
    started = time.monotonic()

    Pushes().deliver(service, [Send(ANN, "1"), Send(ANN, "2"), Send(BOB, "1")], now=1, within_s=0.1)

    assert time.monotonic() - started < 5
    assert "2 of 2 connections were not told in time" in caplog.text
    bench.client.held.set()


def test_out_of_time_nothing_more_is_begun(bench: Bench, service: Service) -> None:
    Pushes().deliver(service, [Send(ANN, "1")], now=1, within_s=0)

    assert bench.client.asked == []


def test_an_error_ends_a_line_and_nothing_else(bench: Bench, service: Service) -> None:
    bench.client.failures = [RuntimeError("what?")]
    Pushes().deliver(service, [Send(ANN, "1"), Send(ANN, "2")], now=1)

    assert bench.client.asked == [("ann", "1")]


# --- where the gateway is -----------------------------------------------------------


@pytest.mark.parametrize(
    ("domain", "region", "expected"),
    [
        (
            "a1.execute-api.eu-west-1.amazonaws.com",
            "eu-west-1",
            "https://a1.execute-api.eu-west-1.amazonaws.com/api",
        ),
        ("muster.example", "eu-west-1", "https://a1.execute-api.eu-west-1.amazonaws.com/api"),
        ("muster.example", "cn-north-1", "https://a1.execute-api.cn-north-1.amazonaws.com.cn/api"),
    ],
)
def test_a_domain_of_ones_own_is_not_where_texts_are_posted(
    domain: str, region: str, expected: str
) -> None:
    opened = host.AwsHost({"AWS_REGION": region})
    context = {"domainName": domain, "apiId": "a1", "stage": "api", "connectionId": "c="}

    assert opened.connection({"requestContext": context}) == Connection("c=", expected)


def test_what_a_machine_sends_a_second_is_bounded() -> None:
    clock = [0.0]
    budget = Budget(10, burst=40, clock=lambda: clock[0])
    bench = Bench()
    bench.sender = GatewaySender(bench._open, budget=budget)
    for _ in range(40):
        bench.sender.send(ANN, "text")
    with pytest.raises(Undelivered):
        bench.sender.send(ANN, "text")
    clock[0] = 0.5
    large = "x" * (4 * PIECE_BYTES)  # the gateway counts five messages
    bench.sender.send(ANN, large)
    with pytest.raises(Undelivered):
        bench.sender.send(ANN, "text")

    assert len(bench.client.asked) == 41
