"""The beacon over every engine: what it promises, what it costs, and a flood."""

from collections.abc import Iterator
from typing import Any

import msgspec
import pytest

from chalicelib import tables
from chalicelib.call import Call
from chalicelib.community import publisher
from chalicelib.community.press import Press
from chalicelib.store import Item, Stores
from tests.support import stores as engines
from tests.support.circle import START, World, world
from tests.unit.test_beacon import Node, announce, beacon_world, listed
from tests.unit.test_publisher import Shelf, published, terms
from tools.bench.units import Tally

LIVE = (10, 1_000, 100_000)
MINUTE = 60


@pytest.fixture
def here(stores: Stores) -> World:
    """A beacon on an engine; its lot is drawn the same way in every run."""
    return over(stores)


def over(stores: Stores) -> World:
    made = world(stores, address_burst=10**6, address_per_s=10**6)
    drawn = iter(range(10**9))
    made.service.entropy = lambda size: (next(drawn) * 7919 % 256**size).to_bytes(size, "big")
    return made


def another(here: World) -> World:
    """A second process over the same store, which remembers nothing."""
    made = over(here.service.stores)
    made.clock = here.clock
    return made


# --- promises ---------------------------------------------------------------------


def test_what_one_process_takes_another_lists(here: World) -> None:
    nodes = [Node(number) for number in range(1, 13)]
    for node in nodes:
        assert node.announce(here)["ok"] is True

    assert sorted(listed(another(here))) == sorted(node.peer_id for node in nodes)


def test_a_peer_id_is_the_first_keys_in_every_process(here: World) -> None:
    Node(1, "wanted").announce(here)

    assert Node(2, "wanted").announce(another(here))["validation"]["reason"] == "PEER_ID_TAKEN"
    assert listed(another(here)) == ["wanted"]


def test_what_has_expired_is_listed_nowhere_and_makes_room(here: World) -> None:
    for number in range(1, 6):
        Node(number).announce(here, ttl_s=60)
    here.clock += 60

    assert listed(another(here)) == []
    assert Node(9, "peer-1").announce(another(here))["validation"]["reason"] == "PEER_ID_TAKEN"
    assert Node(1).announce(another(here))["ok"] is True
    here.clock += 24 * 3600
    assert Node(9, "peer-2").announce(here)["ok"] is True
    assert listed(another(here)) == ["peer-2"]


def test_a_network_s_peer_ids_are_counted_in_all_processes(stores: Stores) -> None:
    processes = [world(stores, names_kept=2, address_burst=10**6) for _ in range(2)]
    for number in range(1, 5):
        Node(number).announce(processes[number % 2])
    for process in processes:
        process.clock += 180

    taken = [Node(90, f"peer-{number}").announce(processes[0])["ok"] for number in range(1, 5)]
    assert taken == [False, False, True, True]


def test_one_network_shuts_nobody_out_in_any_process(here: World) -> None:
    for number in range(1, 121):
        announce(here, Node(1_000 + number).ticket(here), source_ip="203.0.113.1")
    for number in range(1, 31):
        process = another(here)
        announce(process, Node(number).ticket(here), source_ip=f"198.18.{number}.1")

    names = set(listed(another(here)))
    assert {f"peer-{number}" for number in range(1, 31)} <= names
    assert len(names) == 50


def test_a_crowd_keeps_its_places_and_no_more(here: World) -> None:
    for number in range(1, 231):
        here.clock = START + number / 50
        Node(number).announce(here)

    kept = tables.slots(here.service.stores, "mainnet", limit=1_000, now=here.now)
    assert len(kept) == here.service.settings.tickets_kept // 2
    assert len(listed(another(here))) == here.service.settings.tickets_listed


def test_what_is_announced_is_published(here: World) -> None:
    for number in range(1, 21):
        Node(number).announce(here)
    shelf = Shelf()

    [outcome] = publisher.publish(here.service, shelf, terms(), now=here.now)

    assert (outcome.peers, outcome.failures) == (20, 0)
    assert len(published(shelf)) == 20


# --- cost -------------------------------------------------------------------------


class Cost:
    """Counts what calls to a beacon with many live tickets cost the store."""

    def __init__(self, stores: Stores, tally: Tally) -> None:
        self.here, self.tally, self.live = over(stores), tally, 0
        self._watched = tally.watch(stores)

    def fill(self, live: int) -> None:
        """Bring the community to so many live tickets: places first, then claims alone."""
        until = self.here.now + 3600
        places = min(live, 200) - min(self.live, 200)
        for number in range(self.live + 1, self.live + 1 + places):
            Node(number).announce(self.here, ttl_s=3600)
        claim = tables.Claim(key="x" * 44, since=START, seen_at=START, until=until, slot="")
        self.here.service.stores.presence.put(
            *(self._claim(number, claim) for number in range(self.live + places + 1, live + 1))
        )
        self.live = live
        self.here.clock += 30  # so that a newcomer's place may change hands

    def _claim(self, number: int, claim: tables.Claim) -> Item:
        kept: list[Item] = []

        class Noting:
            def put(self, *items: Item) -> None:
                kept.extend(items)

        noting: Any = self.here.service.stores._replace(presence=Noting())  # type: ignore[arg-type]
        tables.keep_claim(noting, "mainnet", f"peer-{number}", claim)
        return kept[0]

    def rows(self) -> Iterator[tuple[str, dict[str, int], dict[str, float]]]:
        """Make each kind of call once, in a process that knows nothing and in one that does."""
        fresh = Node(10**6 + self.live)
        ticket = fresh.ticket(self.here, 3600)
        cold = self._process()
        yield self._row("announce, cold", cold, lambda: announce(cold, ticket))
        yield self._row("announce again", cold, lambda: announce(cold, ticket))
        other = Node(2 * 10**6 + self.live).ticket(self.here, 3600)
        yield self._row("announce, warm", cold, lambda: announce(cold, other))
        cold = self._process()
        yield self._row("list, cold", cold, lambda: listed(cold))
        yield self._row("list, warm", cold, lambda: listed(cold))

    def _process(self) -> World:
        made = another(self.here)
        made.service.stores = self._watched
        return made

    def _row(self, name: str, process: World, act: Any) -> tuple[str, Any, Any]:
        process.clock = self.here.clock
        self.tally.take()
        act()
        return (name, *self.tally.take())


@pytest.mark.slow
def test_a_large_community_costs_no_more_than_a_full_one(
    dynalite_url: str, capsys: pytest.CaptureFixture[str]
) -> None:
    tally = Tally()
    cost = Cost(engines.in_dynalite(dynalite_url, meter=tally.meter), tally)
    found: dict[str, list[dict[str, float]]] = {}
    for live in LIVE:
        cost.fill(live)
        for name, _, units in cost.rows():
            found.setdefault(name, []).append(units)

    with capsys.disabled():
        print("\n\nstore units (read + write) with so many live tickets in one community")
        print(f"{'':<16}" + "".join(f"{live:>16,}" for live in LIVE))
        for name, row in found.items():
            cells = (f"{u['read_units']:g} + {u['write_units']:g}" for u in row)
            print(f"{name:<16}" + "".join(f"{cell:>16}" for cell in cells))
    for name, (_, full, large) in found.items():
        assert large == pytest.approx(full, abs=2), name
        assert large["write_units"] <= 4, name
    assert found["list, warm"][-1] == {"read_units": 0, "write_units": 0}
    assert found["list, cold"][-1]["read_units"] <= 50
    assert found["announce again"][-1]["write_units"] == 0


def test_a_look_for_what_is_due_costs_one_read_unit_if_nothing_is(dynalite_url: str) -> None:
    tally = Tally()
    here = over(engines.in_dynalite(dynalite_url, meter=tally.meter))
    runs = Press(here.service, Shelf(), lambda now: terms().keys)
    tally.take()
    assert runs.run(now=here.now) == []
    assert tally.take()[1] == {"read_units": 1, "write_units": 0}
    Node(1).announce(here)
    assert len(runs.run(now=here.now)) == 1
    tally.take()

    assert runs.run(now=here.now + 60) == []
    assert tally.take()[1] == {"read_units": 1, "write_units": 0}


@pytest.mark.slow
def test_verbs_do_not_grow_with_the_community() -> None:
    tally = Tally()
    cost = Cost(beacon_world().service.stores, tally)
    verbs = []
    for live in LIVE:
        cost.fill(live)
        verbs.append({name: asked for name, asked, _ in cost.rows()})

    assert verbs[1] == verbs[2]
    assert verbs[2]["list, cold"] == {"presence.after": 1}
    assert verbs[2]["list, warm"] == {}


# --- a flood ----------------------------------------------------------------------


@pytest.mark.slow
def test_ten_thousand_fresh_keys_do_not_push_out_those_who_stay() -> None:
    here = beacon_world()
    honest = [Node(number) for number in range(1, 26)]
    for minute in range(12):
        here.clock = START + minute * MINUTE
        for node in honest:
            node.announce(here)

    for number in range(10_000):
        here.clock += 0.006  # within a minute, from a new address each
        stranger = Node(10**6 + number).ticket(here)
        reply = here.reply(_call(here, stranger, number))
        assert reply.status == 200
        if number % 5_000 == 2_500:
            for node in honest:
                assert node.announce(here)["ok"] is True

    names = {node.peer_id for node in honest}
    assert names <= set(listed(another(here)))
    assert len(listed(here)) == here.service.settings.tickets_listed
    shelf = Shelf()
    publisher.publish(here.service, shelf, terms(), now=here.now)
    assert names <= set(published(shelf))
    assert len(published(shelf)) == publisher.ENTRIES


def _call(here: World, ticket: Any, number: int) -> Call:
    return Call(
        "POST",
        "/announce",
        body=msgspec.json.encode({"ticket": ticket}),
        source_ip=f"2001:db8:{number:x}::1",
        clock=here.clock,
    )
