"""What one network may store in a day, and who makes way as the store fills."""

import dataclasses
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from chalicelib import tables
from chalicelib.quotas import Quotas
from chalicelib.settings import DAY_S, Settings
from chalicelib.store import Room, Stores
from muster.errors import RateLimited, Unavailable
from tests.support.circle import HINT, world
from tests.support.stores import in_sqlite

CLOCK = 1_760_000_000.0
FEW = Settings(network_circles=3, network_bytes=1000)
MONTH_S = 30 * DAY_S


@pytest.fixture
def stores(tmp_path: Path) -> Iterator[Stores]:
    with in_sqlite(tmp_path / "muster.db") as stores:
        yield stores


def full_to(part: float) -> Room:
    return Room(int(part * 1_000_000), 1_000_000)


def test_a_network_makes_so_many_circles_a_day_and_another_still_may(stores: Stores) -> None:
    quotas = Quotas(stores.guard, FEW)
    for _ in range(3):
        quotas.add_circle("192.0.2.1", clock=CLOCK)
    with pytest.raises(RateLimited, match="circles") as refusal:
        quotas.add_circle("192.0.2.1", clock=CLOCK)
    assert 0 < (refusal.value.retry_after_s or 0) <= 3600
    quotas.add_circle("192.0.2.2", clock=CLOCK)
    quotas.add_circle("192.0.2.1", clock=CLOCK + DAY_S)


def test_a_48_is_one_network(stores: Stores) -> None:
    quotas = Quotas(stores.guard, FEW)
    for part in range(3):
        quotas.add_circle(f"2001:db8:1:{part}::1", clock=CLOCK)
    with pytest.raises(RateLimited):
        quotas.add_circle("2001:db8:1:ffff::2", clock=CLOCK)


def test_what_a_network_stored_survives_a_restart(stores: Stores) -> None:
    quotas = Quotas(stores.guard, FEW)
    quotas.add_mail("192.0.2.1", 990, lifetime_s=MONTH_S, clock=CLOCK)
    with pytest.raises(RateLimited):
        Quotas(stores.guard, FEW).add_mail("192.0.2.1", 11, lifetime_s=MONTH_S, clock=CLOCK)
    Quotas(stores.guard, FEW).add_mail("192.0.2.1", 10, lifetime_s=MONTH_S, clock=CLOCK)


def test_several_processes_share_a_networks_day(stores: Stores) -> None:
    one, other = Quotas(stores.guard, FEW), Quotas(stores.guard, FEW)
    stored = 0
    with suppress(RateLimited):
        for quotas in (one, other) * 100:
            quotas.add_mail("192.0.2.1", 20, lifetime_s=MONTH_S, clock=CLOCK)
            stored += 20
    assert 1000 <= stored <= 1000 + 2 * 20, "a process is behind by a 64th at the most"


def test_what_is_gone_in_minutes_counts_for_little(stores: Stores) -> None:
    quotas = Quotas(stores.guard, dataclasses.replace(FEW, network_bytes=10_000))
    for _ in range(100):
        quotas.add_mail("192.0.2.1", 5_000, lifetime_s=300, clock=CLOCK)
    for _ in range(100):
        quotas.add_newcomer("192.0.2.1", lifetime_s=600, clock=CLOCK)


def test_presence_has_a_share_of_its_own(stores: Stores) -> None:
    quotas = Quotas(stores.guard, FEW)
    quotas.add_mail("192.0.2.1", 1000, lifetime_s=MONTH_S, clock=CLOCK)
    quotas.measured(full_to(1.0))
    quotas.add_newcomer("192.0.2.1", lifetime_s=600, clock=CLOCK)


def test_as_the_store_fills_new_circles_go_first_and_then_large_mailboxes(stores: Stores) -> None:
    quotas = Quotas(stores.guard, Settings())
    quotas.measured(full_to(0.79))
    quotas.add_circle("192.0.2.1", clock=CLOCK)
    assert quotas.shrunk(1000, more=0) == 1000
    assert quotas.shrunk(1_000_000, more=0) == 125_000, (
        "no circle has more than its part of the store"
    )

    quotas.measured(full_to(0.85))
    with pytest.raises(Unavailable, match="no new circles"):
        quotas.add_circle("192.0.2.1", clock=CLOCK)
    assert 480 < quotas.shrunk(1000, more=0) < 520
    quotas.add_mail("192.0.2.1", 100, lifetime_s=MONTH_S, clock=CLOCK)
    assert not quotas.full


def test_a_full_store_takes_no_mail_until_there_is_room(stores: Stores) -> None:
    quotas = Quotas(stores.guard, Settings())
    for room in (full_to(0.9), Room(1, 1_000_000, refused=True)):
        quotas.measured(room)
        assert quotas.full
        with pytest.raises(Unavailable, match="full") as refusal:
            quotas.add_mail("192.0.2.1", 1, lifetime_s=MONTH_S, clock=CLOCK)
        assert refusal.value.retry_after_s == 60
    quotas.measured(full_to(0.5))
    quotas.add_mail("192.0.2.1", 1, lifetime_s=MONTH_S, clock=CLOCK)


def test_what_is_stored_counts_before_the_store_is_measured_again(stores: Stores) -> None:
    quotas = Quotas(stores.guard, Settings())
    quotas.measured(full_to(0.5))
    with pytest.raises(RateLimited):
        store_much(quotas)
    assert 0.8 < quotas.fullness < 0.9


def store_much(quotas: Quotas) -> None:
    """Store half a million bytes, each tenth from another network."""
    for number in range(50):
        quotas.add_mail(f"192.0.2.{number}", 10_000, lifetime_s=MONTH_S, clock=CLOCK)


@pytest.mark.parametrize("size", [10, 1_000, 30_000])
def test_no_number_of_strangers_fills_the_store_to_its_end(stores: Stores, size: int) -> None:
    quotas = Quotas(stores.guard, Settings())
    quotas.measured(full_to(0.79))
    for number in range(2_000):
        with suppress(RateLimited):
            quotas.add_mail(
                f"10.{number >> 8}.{number & 255}.1", size, lifetime_s=MONTH_S, clock=CLOCK
            )
    assert quotas.fullness > 0.79
    quotas.add_mail("192.0.2.1", 10, lifetime_s=MONTH_S, clock=CLOCK)
    assert not quotas.full


def test_the_first_message_of_a_mailbox_is_bounded_as_the_others_are() -> None:
    here = world()
    here.register()
    here.service.quotas.measured(full_to(0.5))
    text = "x" * 126_000
    assert here.leave("m-000001", text=text)[0] == 429
    assert here.leave("m-000001", text=text[:100_000])[0] == 200


def test_a_store_without_an_end_is_never_full(stores: Stores) -> None:
    quotas = Quotas(stores.guard, Settings())
    quotas.add_mail("192.0.2.1", 10_000_000, lifetime_s=MONTH_S, clock=CLOCK)
    assert (quotas.full, quotas.fullness) == (False, 0.0)


def test_a_nearly_full_store_still_takes_circles_that_the_operator_let_in() -> None:
    here = world()
    here.service.quotas.measured(full_to(0.85))
    assert here.register()[0] == 503
    tables.allow(here.service.stores, HINT, tables.Allowed(), until=here.now + DAY_S)
    assert here.register()[0] == 200
    here.service.quotas.measured(full_to(0.89))
    assert here.leave("m-000001")[0] == 200, "and those that it knows"
