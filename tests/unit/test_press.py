"""When capsules are published: before the last usable ticket of the published one ends."""

import json
from itertools import pairwise
from typing import Any

import pytest

from capsules import manifest
from chalicelib.community import press
from chalicelib.community.press import Press, due
from chalicelib.community.publisher import PublishOutcome
from tests.support.circle import START, World
from tests.unit.test_beacon import Node, announce, beacon_world
from tests.unit.test_publisher import Shelf, published, terms

SKEW_S = 15
"""What existing clients tolerate at a ticket's end."""


class Swarm:
    """Nodes that announce as existing clients do: every 30 s, a ticket of 3 minutes to its end."""

    def __init__(self, here: World, count: int) -> None:
        self.here = here
        self.nodes = [Node(number) for number in range(1, count + 1)]
        self.tickets: dict[str, Any] = {}

    def tick(self, second: int) -> None:
        for number, node in enumerate(self.nodes):
            if (second + number * 37) % 30 == 0 and second >= number * 37 % 180:
                ticket = self.tickets.get(node.peer_id)
                if not ticket or ticket["payload"]["expiresAt"] - 5000 < self.here.clock * 1000:
                    ticket = self.tickets[node.peer_id] = node.ticket(self.here)
                announce(self.here, ticket)


def opened(here: World, shelf: Shelf, **more: Any) -> Press:
    return Press(here.service, shelf, lambda now: terms().keys, **more)


def usable(shelf: Shelf, now: int) -> bool:
    """Say whether the published capsule leads an existing client to somebody."""
    body = shelf.files.get("mainnet/peers.json")
    peers = json.loads(body)["peers"] if body else []
    return any(peer["payload"]["expiresAt"] / 1000 + SKEW_S >= now for peer in peers)


@pytest.mark.parametrize("count", [6, 25])
def test_a_capsule_always_holds_a_usable_ticket_while_nodes_announce(count: int) -> None:
    here, shelf = beacon_world(), Shelf()
    swarm, runs = Swarm(here, count), opened(here, shelf)
    at, without = [], 0
    for second in range(1800):
        here.clock = START + second
        swarm.tick(second)
        if second % 60 == 20:  # as a schedule does
            at += [outcome.at for outcome in runs.run(now=here.now)]
        without += second >= 20 and not usable(shelf, here.now)

    assert without == 0
    assert len(at) <= 1800 / 100, "seldom more often than needed"


def test_a_community_of_one_goes_without_for_less_than_a_minute() -> None:
    here, shelf = beacon_world(), Shelf()
    swarm, runs = Swarm(here, 1), opened(here, shelf)
    without = []
    for second in range(3600):
        here.clock = START + second
        swarm.tick(second)
        if second % 60 == 20:
            runs.run(now=here.now)
        if second >= 20 and not usable(shelf, here.now):
            without.append(second)

    longest = length = 0
    for before, after in pairwise(without):
        length = length + 1 if after == before + 1 else 0
        longest = max(longest, length)
    assert longest < 60


def test_a_community_is_published_once_a_minute_at_the_most() -> None:
    here, shelf = beacon_world(), Shelf()
    runs, at = opened(here, shelf), []
    for second in range(600):
        here.clock = START + second
        Node(1).announce(here, ttl_s=30)
        at += [outcome.at for outcome in runs.run(now=here.now)]

    assert len(at) > 5
    pairs = pairwise(at)
    assert min(after - before for before, after in pairs) >= press.LOOK_S - press.JITTER_S


def test_tickets_that_live_long_are_published_every_five_minutes() -> None:
    here, shelf = beacon_world(), Shelf()
    runs, at = opened(here, shelf), []
    for minute in range(31):
        here.clock = START + minute * 60
        Node(1).announce(here, ttl_s=3600)
        at += [outcome.at for outcome in runs.run(now=here.now)]

    assert at == [START + 300 * n for n in range(7)]


def test_nothing_is_published_early_that_would_end_no_later() -> None:
    here, shelf = beacon_world(), Shelf()
    runs = opened(here, shelf)
    Node(1).announce(here, ttl_s=100)
    runs.run(now=here.now)
    first = dict(shelf.files)
    here.clock += 60

    assert runs.run(now=here.now) == []
    assert shelf.files == first
    Node(2).announce(here)
    assert [outcome.peers for outcome in runs.run(now=here.now)] == [2]


def test_a_run_with_nothing_to_do_reads_the_names_and_nothing_else() -> None:
    here, shelf = beacon_world(), Shelf()
    runs = opened(here, shelf)
    asked: list[str] = []
    store = here.service.stores.presence

    class Watched:
        def __getattr__(self, verb: str) -> Any:
            asked.append(verb)
            return getattr(store, verb)

    watched: Any = Watched()
    here.service.stores = here.service.stores._replace(presence=watched)
    assert runs.run(now=here.now) == []
    assert asked == ["after"]
    Node(1).announce(here)
    runs.run(now=here.now)
    asked.clear()

    assert runs.run(now=here.now + 60) == []
    assert asked == ["after"]


def test_another_process_s_capsule_is_not_published_again() -> None:
    here, shelf = beacon_world(), Shelf()
    first, second = opened(here, shelf), opened(here, shelf)
    Node(1).announce(here, ttl_s=3600)
    second.run(now=here.now)
    Node(2).announce(here, ttl_s=3600)
    first.run(now=here.now + 300)
    sequence = manifest.sequence_of(shelf.files["mainnet/peers.json.manifest"])

    assert second.run(now=here.now + 301) == []
    assert sequence == here.now + 300


def test_what_failed_is_tried_again_at_the_next_look() -> None:
    here, shelf = beacon_world(), Shelf()
    runs = opened(here, shelf)
    Node(1).announce(here)
    shelf.broken = True
    assert [outcome.failures for outcome in runs.run(now=here.now)] == [1]
    shelf.broken = False

    assert [outcome.failures for outcome in runs.run(now=here.now + 60)] == [0]
    assert published(shelf) == ["peer-1"]


def test_a_flood_of_communities_costs_a_bounded_number_of_writes_and_shuts_nobody_out() -> None:
    here, shelf = beacon_world(communities=200), Shelf()
    runs = opened(here, shelf, most=4)
    for number in range(40):
        Node(number + 1).announce(here, f"flood-{number}", ttl_s=60)
    Node(99).announce(here, "honest", ttl_s=3600)
    Node(99).announce(here, ttl_s=3600)
    turns: dict[str, int] = {}
    for minute in range(15):
        here.clock = START + minute * 60
        done = runs.run(now=here.now)
        assert len(done) <= 4
        turns |= {outcome.community: minute for outcome in done if outcome.community not in turns}

    assert turns["mainnet"] == 0
    assert turns["honest"] <= 11


def test_an_outcome_of_an_earlier_version_is_due_after_a_minute() -> None:
    old = PublishOutcome(community="mainnet", at=START, sequence=START, peers=3)

    assert not due(old, now=START + 30)
    assert due(old, now=START + 60)
    assert not due(old, now=START + 1, every_s=3)
    assert due(old, now=START + 3, every_s=3)
