"""The share of good answers, and when it is an alarm."""

import logging
from typing import Any

import pytest

from chalicelib import log
from chalicelib.call import Call, Reply
from chalicelib.local.counters import BeaconSuccess

NOON = 1_800_000_000.0


def share(good: int, bad: int) -> dict[str, Any]:
    success = BeaconSuccess()
    for number in range(good + bad):
        success.note(good=number < good, clock=NOON)
    return success.to_json(clock=NOON)


@pytest.mark.parametrize(
    ("good", "bad", "alarm"),
    [(0, 0, False), (0, 4, False), (8, 2, False), (79, 21, True), (0, 5, True)],
)
def test_fewer_than_four_in_five_good_answers_are_an_alarm(
    good: int, bad: int, alarm: bool
) -> None:
    assert share(good, bad)["alarm"] is alarm


def test_a_quarter_of_an_hour_is_remembered_and_no_more() -> None:
    success = BeaconSuccess()
    success.note(good=False, clock=NOON)
    success.note(good=True, clock=NOON + 14 * 60)

    assert success.to_json(clock=NOON + 14 * 60)["answers"] == 2
    assert success.to_json(clock=NOON + 16 * 60) == {
        "answers": 1,
        "good": 1,
        "share": 1.0,
        "alarm": False,
    }


@pytest.mark.parametrize(
    ("reply", "good"),
    [
        (Reply(200, route="POST /announce"), 1.0),
        (Reply(200, route="POST /announce", code="EXPIRED"), 0.0),
        (Reply(503, route="GET /peers", code="UNAVAILABLE"), 0.0),
        (Reply(403, route="GET /peers", code="NOT_ALLOWED"), None),
        (Reply(200, route="GET /v1/peers"), None),
    ],
)
def test_a_beacons_line_carries_the_metric_that_the_alarm_watches(
    reply: Reply, good: float | None, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.INFO, logger="muster.calls"):
        log.call(Call("GET", "/"), reply, latency_s=0)

    assert getattr(caplog.records[-1], "BeaconSuccess", None) == good


def test_a_strangers_line_is_as_long_as_ours_whatever_it_calls_itself(
    caplog: pytest.LogCaptureFixture,
) -> None:
    name = "n\u00e9" * 4000
    with caplog.at_level(logging.INFO, logger="muster.calls"):
        log.call(Call("GET", "/", headers={"x-felund-node": name}), Reply(401), latency_s=0)

    written = str(getattr(caplog.records[-1], "node_id", ""))
    assert written.isascii()
    assert len(written) == log.NODE_CHARS
