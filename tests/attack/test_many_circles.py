"""Anybody can make a circle of version 2: what a thousand of them can take, in total."""

from collections import Counter
from collections.abc import Iterator

import pytest

from chalicelib.settings import Settings
from muster.errors import RateLimited
from tests.support.circle import World, world
from tests.support.version2 import Node, Wire, in_world, new_epoch

THOUSAND = 1_000


def strangers(here: World) -> Iterator[Node]:
    """Circles of their own, each from another /64 of one /48."""
    for number in range(THOUSAND):
        yield in_world(here, new_epoch(), source_ip=f"2001:db8:0:{number:x}::7")


def stored(here: World) -> set[str]:
    """Name the kinds of items that there are."""
    census = here.service.stores.census(here.now)  # type: ignore[attr-defined]
    return {kind for table in census.values() for kind in table}


def test_a_network_makes_so_many_circles_a_day_and_others_go_on() -> None:
    here = world()
    ours = in_world(here)
    ours.sync(presence={"sealed": ours.presence()})
    said = Counter[str]()
    for one in strangers(here):
        here.clock += 0.05
        answer = one.sync(
            presence={"sealed": one.presence()}, send={"messages": [one.message("x")]}
        )
        said.update(part["code"] for part in answer["refused"].values())
        said["made"] += not answer["refused"]

    assert said["made"] == Settings().network_circles
    assert set(said) == {"made", "RATE_LIMITED"}
    assert ours.sync(send={"messages": [ours.message("still here")]})["refused"] == {}


@pytest.mark.parametrize("way", ["leaving", "large messages", "opening sockets"])
def test_no_other_way_of_writing_goes_around_that(way: str) -> None:
    """Nothing is written for a circle that was not counted."""
    here = world()
    made = 0
    for one in strangers(here):
        here.clock += 0.5
        try:
            if way == "leaving":
                made += not one.sync(presence=None)["refused"]
            elif way == "opening sockets":
                Wire(here, one, one.id)
                made += 1
            else:
                large = {"messages": [one.message("x" * 17_000)]}
                made += not one.sync(send=large)["refused"]
        except RateLimited:
            continue
    census = here.service.stores.census(here.now)  # type: ignore[attr-defined]
    once = census["guard"].get("later")

    assert made == Settings().network_circles
    assert once is None or once.keys <= made


def test_what_a_network_makes_has_a_size_a_day() -> None:
    """However small the pieces, and whatever they are called."""
    here = world(network_bytes=1024 * 1024)
    kept = 0
    for one in strangers(here):
        left = [one.message("x" * 2_000) for _ in range(20)]
        answer = one.sync(send={"messages": left})
        kept += 0 if answer["refused"] else 20 * 2_304
        here.clock += 1

    assert 512 * 1024 < kept <= 1024 * 1024


def test_at_a_closed_service_they_get_nowhere() -> None:
    here = world(access="closed")
    for one in strangers(here):
        one.code = "a guess of many letters"
        status, _, said = one.raw(b'{"want":{"peers":true}}')
        assert (status, said["code"]) == (403, "NOT_ALLOWED")
        here.clock += 0.05

    assert stored(here) == {"service"}, "its own key"


@pytest.mark.parametrize("reading", [{"peers": True}, {"messages": 99, "signals": 99}])
def test_whoever_only_reads_leaves_nothing_behind(reading: dict[str, object]) -> None:
    here = world()
    for one in strangers(here):
        assert one.sync(want=reading)["refused"] == {}
        here.clock += 0.05

    assert stored(here) <= {"service", "count"}, "its own key, and how often a network called"
