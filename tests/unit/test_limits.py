import contextlib
import itertools
from typing import Any

import pytest

from chalicelib.call import Call
from chalicelib.limits import (
    SHARE_BYTES,
    SHARE_EVERY,
    SHARE_S,
    SMALL_BYTES,
    SPREAD_EVERY,
    SPREAD_MORE,
    SPREAD_S,
    WIDER,
    Limits,
    Tally,
)
from chalicelib.network import counts_as
from chalicelib.settings import Settings
from chalicelib.store import Store, Unavailable
from chalicelib.store.sqlite import open_sqlite
from muster.errors import RateLimited
from tests.support.circle import ANN, HINT, world


@pytest.fixture
def guard() -> Store:
    return open_sqlite(":memory:").guard


def spent(limits: Limits, calls: int, clock: float = 1_000.0) -> int:
    """Say how many of *calls* were let through."""
    passed = 0
    for _ in range(calls):
        try:
            limits.spend_address("192.0.2.1", clock=clock)
        except RateLimited:
            continue
        passed += 1
    return passed


def test_a_bucket_holds_its_burst_and_fills_with_time(guard: Store) -> None:
    limits = Limits(guard, Settings(address_burst=10, address_per_s=2))

    assert spent(limits, 20) == 10
    assert spent(limits, 20, clock=1_003.0) == 6
    assert spent(limits, 20, clock=2_000.0) == 10


def test_a_clock_that_steps_back_fills_nothing(guard: Store) -> None:
    limits = Limits(guard, Settings(address_burst=10, address_per_s=2))
    spent(limits, 10)

    assert spent(limits, 5, clock=900.0) == 0


def test_many_processes_share_one_limit(guard: Store) -> None:
    settings = Settings(address_burst=100, address_per_s=1)
    processes = [Limits(guard, settings) for _ in range(20)]

    passed = sum(spent(limits, 100) for limits in processes)

    assert passed <= 100 + SHARE_S * 1 + SHARE_EVERY * len(processes)


def test_a_key_that_is_shut_opens_with_the_next_window(guard: Store) -> None:
    settings = Settings(address_burst=SHARE_EVERY, address_per_s=1)
    first, second = Limits(guard, settings), Limits(guard, settings)
    spent(first, SHARE_EVERY)
    spent(second, SHARE_EVERY)

    assert spent(second, 1, clock=1_001.0) == 0
    assert spent(second, 1, clock=1_010.0) == 1


def test_an_ordinary_caller_costs_the_store_nothing() -> None:
    class Untouched:
        def __getattr__(self, name: str) -> None:
            raise AssertionError(name)

    limits = Limits(Untouched(), Settings())  # type: ignore[arg-type]

    assert spent(limits, SHARE_EVERY - 1) == SHARE_EVERY - 1


def test_a_store_that_does_not_answer_stops_nobody() -> None:
    class Away:
        def add(self, *args: object, **kwargs: object) -> int:
            raise Unavailable("throttled")

    limits = Limits(Away(), Settings())  # type: ignore[arg-type]

    assert spent(limits, 3 * SHARE_EVERY) == 3 * SHARE_EVERY


@pytest.mark.parametrize(
    ("address", "counted"),
    [
        ("192.0.2.1", "192.0.2.1"),
        ("2001:db8:1:2:3:4:5:6", "2001:db8:1:2::/64"),
        ("2001:db8:1:2::1", "2001:db8:1:2::/64"),
        ("2001:db8:1:3::1", "2001:db8:1:3::/64"),
        ("::ffff:192.0.2.1", "192.0.2.1"),
        ("fe80::1%eth0", "fe80::/64"),
        ("not:an:address", "not:an:address"),
        ("", ""),
    ],
)
def test_ipv6_counts_by_its_network(address: str, counted: str) -> None:
    assert counts_as(address) == counted


def test_a_node_has_its_own_limit_wherever_it_calls_from() -> None:
    here = world(node_burst=3, node_per_s=1)
    here.register(ANN)

    answers = [
        here.call("GET", "/v1/peers", query={"circle_hint": HINT}, source_ip=f"192.0.2.{host}")
        for host in range(4)
    ]

    assert [status for status, _ in answers] == [200, 200, 429, 429]


def test_a_stranger_cannot_use_up_a_nodes_limit() -> None:
    here = world(node_burst=3, node_per_s=1)
    here.register(ANN)
    for _ in range(10):
        here.call("GET", "/v1/peers", query={"circle_hint": HINT}, key=b"\x66" * 32)

    assert here.call("GET", "/v1/peers", query={"circle_hint": HINT})[0] == 200


def test_memory_for_buckets_is_bounded(guard: Store) -> None:
    limits = Limits(guard, Settings())
    for host in range(21_000):
        limits.spend_address(f"address-{host}", clock=1.0)

    assert len(limits._buckets) <= 20_000


def test_a_48_has_a_few_times_the_limit_of_a_64(guard: Store) -> None:
    limits = Limits(guard, Settings(address_burst=10, address_per_s=1))
    passed = 0
    for network in range(20):
        for host in range(20):
            try:
                limits.spend_address(f"2001:db8:1:{network:x}::{host:x}", clock=1.0)
            except RateLimited:
                continue
            passed += 1

    assert passed == 10 * WIDER
    limits.spend_address("2001:db8:2::1", clock=1.0)


def test_bytes_are_shared_between_processes_and_a_few_cost_the_store_nothing(guard: Store) -> None:
    settings = Settings(address_burst_bytes=2 * SHARE_BYTES, address_bytes_per_s=1)
    processes = [Limits(guard, settings) for _ in range(4)]
    passed = 0
    for limits in processes:
        for _ in range(4):
            try:
                limits.spend_bytes("192.0.2.1", SHARE_BYTES // 2, clock=1_000.0)
            except RateLimited:
                continue
            passed += 1

    assert passed < 4 * len(processes)
    with pytest.raises(RateLimited):
        processes[-1].spend_bytes("192.0.2.1", SMALL_BYTES + 1, clock=1_000.0)


def test_what_is_open_is_counted_by_network() -> None:
    tally = Tally()
    for host in range(5):
        assert not tally.full(f"2001:db8:1:2::{host:x}", most=5)
        tally.add(f"2001:db8:1:2::{host:x}")

    assert tally.full("2001:db8:1:2:ffff::1", most=5)
    assert not tally.full("2001:db8:1:3::1", most=5)
    tally.remove("2001:db8:1:2::4")
    assert not tally.full("2001:db8:1:2:ffff::1", most=5)


def test_what_is_open_in_a_48_is_bounded_too_and_ipv4_counts_whole_addresses() -> None:
    tally = Tally()
    for number in range(WIDER * 2):
        tally.add(f"2001:db8:1:{number:x}::1")
        tally.add(f"192.0.2.{number}")

    assert tally.full("2001:db8:1:ffff::1", most=2)
    assert not tally.full("2001:db8:2::1", most=2)
    assert not tally.full("192.0.2.1", most=2)
    for number in range(WIDER * 2):
        tally.remove(f"2001:db8:1:{number:x}::1")
    assert not tally.full("2001:db8:1:ffff::1", most=1)


def test_a_preflight_counts_like_any_call() -> None:
    here = world(address_burst=3, address_per_s=1)
    call = Call("OPTIONS", "/v1/register", source_ip="192.0.2.1", clock=here.clock)

    assert [here.reply(call).status for _ in range(5)] == [204, 204, 204, 429, 429]


# --- many processes -----------------------------------------------------------------


def passed_in(
    processes: list[Limits], *, seconds: int, a_second: int, start: int = 1_200
) -> list[int]:
    """Let one address call the processes in turn; return how many passed, second by second."""
    turn = itertools.cycle(processes)
    return [spent(next(turn), 1, clock=start + n / a_second) for n in range(seconds * a_second)]


@pytest.mark.parametrize("count", [1, 2, 5, 20, 50])
def test_a_caller_spread_over_processes_gets_little_more_than_its_minute(
    guard: Store, count: int
) -> None:
    """As fast as the gateway lets calls through, and one after the other to each process."""
    settings = Settings(address_burst=60, address_per_s=2)
    processes = [Limits(guard, settings, spread=True) for _ in range(count)]
    minute = 2 * SPREAD_S * SPREAD_MORE

    first = passed_in(processes, seconds=SPREAD_S, a_second=50)
    second = passed_in(processes, seconds=SPREAD_S, a_second=50, start=1_200 + SPREAD_S)

    assert sum(first) <= minute + SPREAD_EVERY * count, "until each has asked for the first time"
    assert sum(second) <= minute * 1.2


def test_a_caller_of_one_process_tells_the_store_seldom(guard: Store) -> None:
    told = Counting(guard)
    limits = Limits(told, Settings(address_burst=300, address_per_s=20), spread=True)

    passed = passed_in([limits], seconds=600, a_second=1)

    assert sum(passed) == 600
    assert told.adds <= 600 / 16


def test_what_a_call_cost_is_owed_and_told_to_all(guard: Store) -> None:
    settings = Settings(address_burst=30, address_per_s=2)
    here, there = (Limits(guard, settings, spread=True) for _ in range(2))

    here.spend_address("192.0.2.1", clock=1_200.0)
    here.charge_address("192.0.2.1", 69.0, clock=1_200.0)

    assert spent(here, 1, clock=1_219.0) == 0
    assert spent(here, 1, clock=1_221.0) == 1
    assert spent(there, 100, clock=1_221.0) == 30
    there.charge_address("192.0.2.1", 60.0, clock=1_221.0)
    assert spent(there, 1, clock=1_259.0) == 0, "both together have spent their minute"


def test_frames_count_over_processes_where_a_socket_is_spread_over_them(guard: Store) -> None:
    settings = Settings(frame_burst=60, frames_per_s=4)
    processes = [Limits(guard, settings, spread=True) for _ in range(20)]
    passed = 0
    for n in range(2 * SPREAD_S * 100):
        with contextlib.suppress(RateLimited):
            processes[n % 20].spend_frame("192.0.2.1", clock=1_200 + n / 100)
            passed += n >= SPREAD_S * 100

    assert passed <= 4 * SPREAD_S * SPREAD_MORE * 1.2


class Counting:
    """A store of counters that counts how often it is told."""

    def __init__(self, guard: Store) -> None:
        self._guard, self.adds = guard, 0

    def __getattr__(self, verb: str) -> Any:
        self.adds += verb == "add"
        return getattr(self._guard, verb)
