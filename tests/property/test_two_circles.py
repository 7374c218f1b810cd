"""Two browsers share two circles: whatever happens in which order, do answers reach the right one?

The existing browser client names no circle when it asks for signals, and has one
session id for both circles. Each of its pollers has a cursor of its own.
"""

import json
from typing import NamedTuple

from hypothesis import given
from hypothesis import strategies as st

from tests.support.circle import World, world

ANN, BOB = "a" * 32, "b" * 32
SESSION = f"{ANN}:{BOB}"
CIRCLES = ("circle-x", "circle-y")


class Step(NamedTuple):
    """Somebody leaves a signal in a circle, or (with no kind) one of its pollers asks."""

    who: str
    kind: str
    circle: str


circles = st.sampled_from(CIRCLES)
ANNS = st.builds(Step, st.just(ANN), st.sampled_from(["offer", "candidate", ""]), circles)
BOBS = st.builds(Step, st.just(BOB), st.sampled_from(["answer", "candidate", ""]), circles)


class Signal(NamedTuple):
    """What a poller waits for."""

    number: int
    kind: str
    circle: str


class Pollers:
    """The model: what each poller was left since it last asked, and the newest offer's circle."""

    def __init__(self) -> None:
        self.waiting: dict[tuple[str, str], list[Signal]] = {
            (who, circle): [] for who in (ANN, BOB) for circle in CIRCLES
        }
        self.newest = ""

    def leave(self, who: str, signal: Signal) -> None:
        if signal.kind == "offer":
            self.newest = signal.circle
            self.waiting |= {(who, circle): [] for circle in CIRCLES}  # that was for an older one
        for circle in CIRCLES:
            self.waiting[BOB if who == ANN else ANN, circle].append(signal)

    def poll(self, who: str, circle: str) -> list[Signal]:
        left = self.waiting[who, circle]
        right = [one for n, one in enumerate(left) if self.is_right(one, left[:n], left[n + 1 :])]
        heard = left.index(right[-1]) + 1 if right else 0
        self.waiting[who, circle] = left[heard:]  # a cursor stands at the last one heard
        return right

    def is_right(self, signal: Signal, earlier: list[Signal], later: list[Signal]) -> bool:
        """An offer stands until a fresher one of its circle; the rest must follow the newest.

        A candidate may overtake the first offer, and belongs to it.
        """
        before, after = (
            sum((one.kind, one.circle) == ("offer", signal.circle) for one in some)
            for some in (earlier, later)
        )
        early = signal.kind == "candidate" and before == 0
        if after > early:
            return False
        return signal.kind == "offer" or self.newest in ("", signal.circle)


def leave(here: World, step: Step, number: int) -> None:
    body = {
        "session_id": SESSION,
        "from_node_id": step.who,
        "to_node_id": BOB if step.who == ANN else ANN,
        "circle_hint": step.circle,
        "type": step.kind,
        "payload": json.dumps([number, step.kind, step.circle]),
    }
    assert here.call("POST", "/v1/signal", body, key=None)[0] == 200


def poll(here: World, who: str, since_id: int) -> tuple[list[Signal], int]:
    asked = {"to_node_id": who, "since_id": str(since_id)}
    status, body = here.call("GET", "/v1/signal", query=asked, key=None)
    assert status == 200
    got = [Signal(*json.loads(one["payload"])) for one in body["signals"]]
    return got, max([since_id, *(one["id"] for one in body["signals"])])


def test_an_answer_that_was_left_out_does_not_come_for_a_later_offer() -> None:
    here, since_id = world(unsigned="allow"), 0
    for number, step in enumerate(
        (
            Step(ANN, "offer", "circle-x"),
            Step(ANN, "offer", "circle-y"),
            Step(BOB, "answer", "circle-x"),
            Step(BOB, "candidate", "circle-x"),
            Step(ANN, "", "circle-y"),
            Step(ANN, "offer", "circle-x"),
            Step(ANN, "", "circle-x"),
        )
    ):
        if step.kind:
            leave(here, step, number)
        else:
            assert poll(here, ANN, since_id) == ([], since_id)
    leave(here, Step(BOB, "answer", "circle-x"), 9)

    assert poll(here, ANN, since_id)[0] == [Signal(9, "answer", "circle-x")]


def test_however_many_signals_are_left_out_those_behind_them_are_heard() -> None:
    """A page would otherwise be full of what is not told, and its reader deaf."""
    here = world(unsigned="allow", address_burst=10**6)
    leave(here, Step(ANN, "offer", "circle-x"), 0)
    for number in range(250):
        leave(here, Step(BOB, "candidate", "circle-y"), number)
    leave(here, Step(BOB, "answer", "circle-x"), 999)

    assert poll(here, ANN, 0)[0] == [Signal(999, "answer", "circle-x")]


@given(st.lists(ANNS | BOBS, max_size=40))
def test_every_answer_of_the_newest_offers_circle_is_heard_once_and_no_other(
    steps: list[Step],
) -> None:
    here, model = world(unsigned="allow"), Pollers()
    cursors = dict.fromkeys(model.waiting, 0)
    every_poller = [Step(who, "", circle) for who, circle in model.waiting]
    for number, step in enumerate(steps + every_poller):
        here.clock += 0.2
        if step.kind:
            leave(here, step, number)
            model.leave(step.who, Signal(number, step.kind, step.circle))
            continue
        poller = step.who, step.circle
        got, cursors[poller] = poll(here, step.who, cursors[poller])

        assert got == model.poll(*poller)
        answered = {one.circle for one in got if one.kind == "answer"}
        assert not model.newest or answered <= {model.newest}
