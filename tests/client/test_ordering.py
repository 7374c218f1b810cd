from __future__ import annotations

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from muster.errors import InvalidFrame
from muster.felund import records
from muster.felund.ordering import (
    EARLY,
    LATE_S,
    MAX_PAYLOAD_BYTES,
    RESEND_MOST_S,
    RESEND_S,
    Inbox,
    Outbox,
    new_start,
)


def send(outbox: Outbox, *bodies: bytes) -> list[tuple[int, bytes]]:
    """Send payloads, and return the frames as they travel."""
    return [frame(outbox, outbox.add(body)) for body in bodies]


def frame(outbox: Outbox, seq: int, *, now: float = 0.0) -> tuple[int, bytes]:
    raw = outbox.take(seq, now=now)
    assert raw is not None
    return seq, raw


def put(inbox: Inbox, arriving: tuple[int, bytes], *, now: float = 0.0) -> bool:
    return inbox.put(*arriving, now=now)


def read(inbox: Inbox) -> list[bytes]:
    """Take everything that is in its turn."""
    return [inbox.take().body for _ in range(len(inbox))]


def test_payloads_come_out_as_they_went_in() -> None:
    inbox = Inbox()

    for arriving in send(Outbox(start=7), b"one", b"", b"three"):
        assert put(inbox, arriving) is False

    assert read(inbox) == [b"one", b"", b"three"]


def test_what_overtakes_waits_for_its_turn() -> None:
    inbox = Inbox()
    one, two, three = send(Outbox(start=7), b"one", b"two", b"three")

    put(inbox, three)
    put(inbox, two)
    assert read(inbox) == []
    put(inbox, one)

    assert read(inbox) == [b"one", b"two", b"three"]


def test_what_comes_twice_is_given_once_and_acknowledged_again_once_it_was_taken() -> None:
    inbox = Inbox()
    (one,) = send(Outbox(start=7), b"one")

    assert put(inbox, one) is False
    assert put(inbox, one) is False, "not taken yet, so not acknowledged"
    assert read(inbox) == [b"one"]
    assert put(inbox, one) is True
    assert read(inbox) == []


def test_a_receiver_that_starts_anew_goes_in_where_the_sender_stands() -> None:
    outbox = Outbox(start=7)
    one, two, _ = send(outbox, b"one", b"two", b"three")
    first = Inbox()
    for arriving in (one, two):
        put(first, arriving)
    read(first)
    outbox.acknowledge(two[0])

    second = Inbox()
    for seq in outbox.due(now=1e9):
        put(second, frame(outbox, seq))

    assert read(second) == [b"three"]


def test_a_new_receiver_does_not_wait_for_what_a_late_frame_counted_on() -> None:
    outbox = Outbox(start=7)
    frames = send(outbox, b"one", b"two", b"three")
    late = frames[2]  # sent while 'one' was unacknowledged
    outbox.acknowledge(frames[1][0])

    inbox = Inbox()
    put(inbox, late)
    assert read(inbox) == []
    put(inbox, frame(outbox, late[0]))

    assert read(inbox) == [b"three"]


def life(server_time: int, milli: int = 0, chance: int = 0) -> Outbox:
    start = new_start(server_time=server_time, now=milli / 1000, chance=chance)
    return Outbox(start=start)


def test_a_sender_that_starts_anew_is_followed_and_its_late_frames_are_not() -> None:
    inbox = Inbox()
    old = send(life(1_800_000_000), b"old one", b"old two", b"old three")
    new = send(life(1_800_000_001), b"new one", b"new two")

    put(inbox, old[0])
    put(inbox, old[2])
    put(inbox, new[0])
    assert put(inbox, old[1]) is False
    put(inbox, new[1])

    assert read(inbox) == [b"old one", b"new one", b"new two"]


def test_a_straggler_is_not_followed_even_if_its_life_was_never_heard_of() -> None:
    inbox = Inbox()
    (straggler,) = send(life(1_800_000_000), b"old")
    one, two = send(life(1_800_000_001), b"one", b"two")

    put(inbox, one)
    assert put(inbox, straggler) is False
    put(inbox, two)

    assert read(inbox) == [b"one", b"two"]


@pytest.mark.parametrize(("before", "after"), [(0, 1), (10, 500), (8190, 3), (8191, 900)])
def test_lives_of_one_second_are_told_apart_by_milliseconds_that_go_round(
    before: int, after: int
) -> None:
    inbox = Inbox()
    old = send(life(1_800_000_000, before), b"old one", b"old two")
    new = send(life(1_800_000_000, after), b"new")

    put(inbox, old[0])
    put(inbox, new[0])
    put(inbox, old[1])

    assert read(inbox) == [b"old one", b"new"]


def test_a_clock_that_went_back_is_believed_once_the_known_life_is_silent() -> None:
    inbox = Inbox()
    known = send(life(1_800_000_000), b"known one", b"known two")
    earlier = send(life(1_700_000_000), b"earlier")

    put(inbox, known[0])
    put(inbox, known[1], now=50)
    put(inbox, earlier[0], now=50 + LATE_S)
    assert read(inbox) == [b"known one", b"known two"]
    put(inbox, earlier[0], now=51 + LATE_S)

    assert read(inbox) == [b"earlier"]


@given(st.integers(0, 2**33), st.floats(0, 2**33), st.integers(0, 255))
def test_numbers_stay_where_every_json_reader_is_exact(
    server_time: int, now: float, chance: int
) -> None:
    assert 0 <= new_start(server_time=server_time, now=now, chance=chance) < 2**52


def test_an_acknowledgement_of_an_earlier_life_confirms_nothing() -> None:
    old, new = life(1_800_000_000), life(1_800_000_001)
    send(new, b"new")

    for seq, _ in send(old, *(b"old" for _ in range(1000))):
        assert new.acknowledge(seq) is False
    assert len(new) == 1


def test_an_acknowledgement_stands_for_all_before_it() -> None:
    outbox = Outbox(start=0)
    send(outbox, b"one", b"two", b"three")

    assert outbox.acknowledge(1)
    assert not outbox.acknowledge(0)
    assert outbox.due(now=1e9) == [2]


def test_the_end_comes_after_everything_and_stands_for_itself() -> None:
    outbox, inbox = Outbox(start=0), Inbox()
    (one,) = send(outbox, b"one")
    end = frame(outbox, outbox.end())

    put(inbox, end)
    early = inbox.end
    put(inbox, one)
    outbox.acknowledge(end[0])

    assert early is None, "what was before it is missing"
    assert inbox.end == end[0]

    assert read(inbox) == [b"one"]
    assert len(outbox) == 1


def test_after_the_end_nothing_is_taken() -> None:
    inbox, other = Inbox(), Outbox(start=99)
    outbox = Outbox(start=0)
    put(inbox, frame(outbox, outbox.end()))

    for arriving in send(other, b"more"):
        assert put(inbox, arriving) is False

    assert read(inbox) == []


def test_an_overdue_acknowledgement_makes_a_frame_due_again_ever_later() -> None:
    outbox = Outbox(start=0)
    send(outbox, b"one")

    waits, now = [], 0.0
    for _ in range(8):
        waits.append(outbox.due_at() - now)
        assert outbox.due(now=outbox.due_at() - 0.001) == []
        now = outbox.due_at()
        assert outbox.due(now=now) == [0]
        frame(outbox, 0, now=now)

    assert waits[:4] == [RESEND_S, 2 * RESEND_S, 4 * RESEND_S, 8 * RESEND_S]
    assert max(waits) == RESEND_MOST_S


def test_rewinding_makes_everything_due_oldest_first() -> None:
    outbox = Outbox(start=5)
    send(outbox, b"one", b"two", b"three")
    assert outbox.due(now=1.0) == []

    outbox.rewind()

    assert outbox.due(now=1.0) == [5, 6, 7]
    assert outbox.due(now=1.0, most=1) == [5]


def test_what_was_acknowledged_in_the_meantime_is_not_sent() -> None:
    outbox = Outbox(start=5)
    send(outbox, b"one")
    outbox.acknowledge(5)

    assert outbox.take(5, now=0) is None
    assert outbox.due_at() == float("inf")


def test_the_largest_payload_fits_a_frame() -> None:
    ((_, raw),) = send(Outbox(start=0), bytes(MAX_PAYLOAD_BYTES))

    assert len(raw) == records.MAX_FRAME_BYTES


@pytest.mark.parametrize(
    "raw",
    [b"", b"m1", b"m2" + bytes(11), b"hello world, this is no header", b"m1\0" + b"\xff" * 10],
)
def test_a_payload_that_no_link_made_is_refused(raw: bytes) -> None:
    with pytest.raises(InvalidFrame):
        Inbox().put(5, raw, now=0)


def test_frames_far_ahead_are_not_held() -> None:
    outbox, inbox = Outbox(start=0), Inbox()
    frames = send(outbox, *(b"%d" % number for number in range(EARLY + 10)))

    for arriving in reversed(frames):
        put(inbox, arriving)

    assert len(read(inbox)) == EARLY


def test_a_reader_that_does_not_read_is_not_filled() -> None:
    outbox, inbox = Outbox(start=0), Inbox()

    for arriving in send(outbox, *(b"x" for _ in range(EARLY + 10))):
        put(inbox, arriving)

    assert len(inbox) == EARLY


@given(st.binary(max_size=40), st.integers(0, 2**53 - 1))
def test_no_payload_crashes_the_receiver(raw: bytes, seq: int) -> None:
    inbox = Inbox()
    for body in (raw, b"m1" + raw, b"m1\0" + bytes(8) + raw):
        try:
            inbox.put(seq, body, now=0)
        except InvalidFrame:
            continue
    assert len(inbox) <= 3


@given(st.integers(0, 2**64), st.integers(1, 40), st.floats(0, 0.6))
def test_a_network_that_loses_doubles_and_reorders_changes_nothing(
    seed: int, count: int, loss: float
) -> None:
    chance = random.Random(seed)
    outbox, inbox = life(chance.randrange(2**31)), Inbox()
    wanted = [b"%d" % number for number in range(count)]
    waiting, out, back, got = list(wanted), list[tuple[int, bytes]](), list[int](), list[bytes]()
    now = 0.0
    while waiting or len(outbox):
        while waiting and len(outbox) < 8:
            outbox.add(waiting.pop(0))
        for seq in outbox.due(now=now):
            out += [frame(outbox, seq, now=now)] * chance.choice([1, 1, 2])
        chance.shuffle(out)
        for _ in range(chance.randint(0, len(out))):
            arriving = out.pop()
            if chance.random() >= loss and put(inbox, arriving):
                back.append(arriving[0])
        for _ in range(chance.randint(0, len(inbox))):
            taken = inbox.take()
            got.append(taken.body)
            back.append(taken.seq)
        chance.shuffle(back)
        for _ in range(chance.randint(0, len(back))):
            seq = back.pop()
            if chance.random() >= loss:
                outbox.acknowledge(seq)
        now += RESEND_S

    assert got == wanted


class Lives:
    """A sender and a receiver that start again now and then; nothing under way is ever lost."""

    def __init__(self, seed: int) -> None:
        self.chance = random.Random(seed)
        self.lives = self.number = 0
        self.outbox, self.inbox = life(0), Inbox()
        self.read: list[list[tuple[int, int]]] = [[]]
        self.out: list[tuple[int, bytes]] = []
        self.back: list[int] = []

    def step(self, now: float) -> None:
        act = self.chance.random()
        if act < 0.03:
            self.lives, self.number = self.lives + 1, 0
            self.outbox = life(self.lives // 3, milli=self.lives)
        elif act < 0.06:
            self.inbox = Inbox()
            self.read.append([])
            self.outbox.rewind()
        elif act < 0.4 and len(self.outbox) < 8:
            self.outbox.add(b"%d %d" % (self.lives, self.number))
            self.number += 1
        self.out += [frame(self.outbox, seq, now=now) for seq in self.outbox.due(now=now)]
        if self.out and self.chance.random() < 0.8:
            arriving = self.out.pop(self.chance.randrange(len(self.out)))
            if put(self.inbox, arriving):
                self.back.append(arriving[0])
        while len(self.inbox) and self.chance.random() < 0.7:
            taken = self.inbox.take()
            which_life, which = map(int, taken.body.split())
            self.read[-1].append((which_life, which))
            self.back.append(taken.seq)
        if self.back and self.chance.random() < 0.5:
            self.outbox.acknowledge(self.back.pop(self.chance.randrange(len(self.back))))


@given(st.integers(0, 2**64))
def test_when_either_end_starts_again_nothing_is_skipped_and_lives_do_not_mix(seed: int) -> None:
    both = Lives(seed)
    for now in range(300):
        both.step(now)

    for taken in both.read:
        assert taken == sorted(taken), "lives mixed or out of order"
        assert len(set(taken)) == len(taken), "given twice"
    for number in range(both.lives + 1):
        ever = {which for taken in both.read for of, which in taken if of == number}
        assert ever == set(range(len(ever))), "skipped"
