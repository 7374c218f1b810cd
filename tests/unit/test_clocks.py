"""Clocks: when a rule of EventBridge is enabled and disabled, by what events and runs find."""

import pytest

from chalicelib.aws.clocks import AWAKE_S, FAILED_S, Clock
from chalicelib.circle import relay
from chalicelib.service import ClockName
from chalicelib.store import Unavailable
from tests.support.circle import ANN, BOB, START, world
from tests.unit.test_beacon import Node, announce, beacon_world
from tests.unit.test_relay import Pair

MINUTE = 60


class Events:
    """EventBridge, as far as rules go: what was asked, and which rules run."""

    def __init__(self) -> None:
        self.asked: list[str] = []
        self.running = False
        self.fails = False

    def enable_rule(self, Name: str) -> None:
        self._ask("enable", Name)
        self.running = True

    def disable_rule(self, Name: str) -> None:
        self._ask("disable", Name)
        self.running = False

    def _ask(self, verb: str, name: str) -> None:
        assert name == "the-rule"
        self.asked.append(verb)
        if self.fails:
            raise TimeoutError


@pytest.fixture
def events() -> Events:
    return Events()


@pytest.fixture
def clock(events: Events) -> Clock:
    return Clock("the-rule", lambda: events)


def nothing() -> bool:
    return False


def test_a_clock_is_woken_once_in_a_while(clock: Clock, events: Events) -> None:
    for second in range(2 * AWAKE_S):
        clock.wake(now=START + second)

    assert events.asked == ["enable"] * 2


def test_each_container_wakes_it_by_itself(clock: Clock, events: Events) -> None:
    other = Clock("the-rule", lambda: events)
    clock.wake(now=START)
    other.wake(now=START)

    assert events.asked == ["enable"] * 2


def test_a_failure_raises_nothing_is_told_and_is_tried_again_soon(
    clock: Clock, events: Events, caplog: pytest.LogCaptureFixture
) -> None:
    events.fails = True
    clock.wake(now=START)
    clock.wake(now=START + FAILED_S - 1)
    assert [record.getMessage() for record in caplog.records] == [
        "the rule the-rule is not enabled: TimeoutError"
    ]
    events.fails = False
    clock.wake(now=START + FAILED_S)

    assert events.running


def test_a_clock_rests_when_its_runs_have_found_nothing_for_a_while(
    clock: Clock, events: Events
) -> None:
    clock.wake(now=START)
    for minute in range(10):
        if events.running:
            clock.ran(busy=minute < 3, look=nothing, now=START + minute * MINUTE)

    assert events.asked == ["enable", "disable"]
    assert not events.running


def test_a_container_that_ran_long_ago_has_seen_nothing_for_no_while(
    clock: Clock, events: Events
) -> None:
    clock.ran(busy=False, look=nothing, now=START)
    clock.ran(busy=False, look=nothing, now=START + 3600)

    assert events.asked == []


def test_it_looks_once_more_when_it_has_stopped_and_goes_on_if_somebody_came(
    clock: Clock, events: Events
) -> None:
    seen: list[bool] = []

    def somebody() -> bool:
        seen.append(events.running)
        return True

    for minute in range(3):
        clock.ran(busy=False, look=somebody, now=START + minute * MINUTE)

    assert seen == [False], "it is stopped before it looks"
    assert events.asked == ["disable", "enable"]


def test_where_it_cannot_look_it_goes_on(clock: Clock, events: Events) -> None:
    def away() -> bool:
        raise Unavailable("throttled")

    for minute in range(3):
        clock.ran(busy=False, look=away, now=START + minute * MINUTE)

    assert events.running


def test_whoever_believes_that_it_runs_is_right(events: Events) -> None:
    """A seat is taken in one container at any second, when another's runs put the clock to rest."""
    for taken_at in range(1, 6 * MINUTE):
        one, two = (Clock("the-rule", lambda: events) for _ in range(2))
        one.wake(now=START)  # for a seat that leaves at once
        for second in range(6 * MINUTE):
            now = START + second
            if second >= taken_at:
                one.wake(now=now)
                assert events.running
            if second % MINUTE == 0 and events.running:
                two.ran(busy=second >= taken_at, look=nothing, now=now)


def test_a_rest_that_fails_is_tried_again(clock: Clock, events: Events) -> None:
    events.running = events.fails = True
    for minute in range(5):
        clock.ran(busy=False, look=nothing, now=START + minute * MINUTE)
    events.fails = False
    clock.ran(busy=False, look=nothing, now=START + 6 * MINUTE)

    assert events.asked == ["disable"] * 3
    assert not events.running


def test_without_a_rule_nothing_is_asked(events: Events) -> None:
    clock = Clock("", lambda: events)
    clock.wake(now=START)
    for minute in range(5):
        clock.ran(busy=False, look=nothing, now=START + minute * MINUTE)

    assert events.asked == []


# --- what wakes them ------------------------------------------------------------------


def test_a_seat_wakes_the_sweep_when_it_is_greeted_and_while_it_says_something() -> None:
    here, woken = world(), list[ClockName]()
    here.service.wake = woken.append
    pair = Pair(here)
    assert woken == ["sweep"] * 2
    woken.clear()
    for _ in range(3):
        here.say(pair.ann, {"t": "PING"})
    assert woken == []

    here.clock += relay.TOUCH_S
    here.say(pair.ann, {"t": "PING"})
    assert woken == ["sweep"]


def test_a_subscription_wakes_nothing() -> None:
    here, woken = world(), list[ClockName]()
    here.service.wake = woken.append
    here.register(ANN)
    here.register(BOB)
    subscribed = here.subscribe(ANN, "c-ann")
    here.say(subscribed, {"t": "PING"})

    assert woken == []


def test_a_good_ticket_wakes_the_publisher_and_a_bad_one_does_not() -> None:
    here, woken = beacon_world(), list[ClockName]()
    here.service.wake = woken.append
    late = Node(1).ticket(here)
    here.clock += 3600
    announce(here, late)
    assert woken == []
    Node(1).announce(here)

    assert woken == ["publish"]
