"""Publishing: what a capsule holds, and what happens when it fails."""

import dataclasses
import json
import logging
from pathlib import Path
from typing import Any

import pytest

from capsules import manifest, root
from capsules.capsule import Capsule
from capsules.keys import SigningKey
from chalicelib.community import press, publisher
from chalicelib.community.keyring import RootKey, Unusable
from chalicelib.community.shelf import FolderShelf, Shelved
from chalicelib.store import Unavailable
from tests.support.circle import START, World
from tests.unit.test_beacon import Node, beacon_world

ROOT = SigningKey(b"\x01" * 32)
ONLINE = SigningKey(b"\x02" * 32)


def terms() -> publisher.Terms:
    certificate = root.certify(
        ROOT,
        ONLINE.verify_key,
        serial=1,
        not_before=START,
        expires_at=START + 90 * 24 * 3600,
    )
    keys = manifest.Publisher(ONLINE, certificate, [root.first(ROOT, now=START)])
    return publisher.Terms(keys, beacons=("https://beacon.example",))


class Shelf:
    """A shelf in memory that can be out of order."""

    def __init__(self) -> None:
        self.files: dict[str, bytes] = {}
        self.broken = False
        self.fails_on = ""
        self.meanwhile: Any = None

    def read(self, name: str) -> Shelved | None:
        """Return the file."""
        body = self.files.get(name)
        return Shelved(body, str(hash(body))) if body is not None else None

    def write(self, name: str, body: bytes, *, over: str | None) -> bool:
        """Write the file, unless something else is to happen."""
        if self.broken or name == self.fails_on:
            raise Unavailable("the bucket is away")
        if self.meanwhile:
            self.meanwhile, act = None, self.meanwhile
            act()
        current = self.read(name)
        if (current.tag if current else None) != over:
            return False
        self.files[name] = body
        return True


def published(shelf: Shelf, community: str = "mainnet") -> list[str]:
    data = json.loads(shelf.files[f"{community}/peers.json"])
    return [peer["payload"]["peerId"] for peer in data["peers"]]


def announced(count: int, **settings: Any) -> World:
    here = beacon_world(**settings)
    for number in range(1, count + 1):
        Node(number).announce(here)
    return here


def test_every_live_ticket_of_a_small_community_is_published() -> None:
    here, shelf = announced(25), Shelf()

    [outcome] = publisher.publish(here.service, shelf, terms(), now=here.now)

    assert (outcome.community, outcome.peers, outcome.failures) == ("mainnet", 25, 0)
    assert len(published(shelf)) == 25
    assert sorted(shelf.files) == sorted(f"mainnet/{name}" for name in publisher.FILES)
    capsule = Capsule.parse(shelf.files["mainnet/peers.json"])
    capsule.verify(ONLINE.verify_key, now_ms=START * 1000)
    assert shelf.files["mainnet/peers.json.sig"].decode() == capsule.signature


def test_a_community_without_tickets_is_left_alone() -> None:
    here, shelf = announced(1), Shelf()
    here.clock += 200

    assert publisher.publish(here.service, shelf, terms(), now=here.now) == []
    assert shelf.files == {}


def test_newcomers_cannot_crowd_out_the_long_lived() -> None:
    here = beacon_world()
    honest = [Node(number) for number in range(1, 41)]
    for minute in range(13):
        here.clock = START + minute * 60
        for node in honest:
            node.announce(here)
    for number in range(1_000, 1_400):
        here.clock += 0.01
        Node(number).announce(here)
    shelf = Shelf()

    publisher.publish(here.service, shelf, terms(), now=here.now)

    names = published(shelf)
    assert len(names) == publisher.ENTRIES
    assert {node.peer_id for node in honest} <= set(names)


def test_the_same_tickets_and_time_give_the_same_bytes() -> None:
    shelves = [Shelf(), Shelf()]
    for shelf in shelves:
        here = announced(30)
        publisher.publish(here.service, shelf, terms(), now=here.now)

    assert shelves[0].files == shelves[1].files


def test_a_failure_keeps_the_last_capsule_and_the_second_raises_the_alarm(
    caplog: pytest.LogCaptureFixture,
) -> None:
    here, shelf = announced(3), Shelf()
    publisher.publish(here.service, shelf, terms(), now=here.now)
    kept = dict(shelf.files)
    Node(4).announce(here)
    shelf.broken = True
    seen = []
    for _ in range(2):
        here.clock += 60
        with caplog.at_level(logging.ERROR, logger="muster.publishing"):
            seen += publisher.publish(here.service, shelf, terms(), now=here.now)

    assert [(o.failures, o.alarming) for o in seen] == [(1, False), (2, True)]
    assert shelf.files == kept
    assert caplog.records[-1].PublishFailuresInARow == 2  # type: ignore[attr-defined]
    shelf.broken = False
    here.clock += 30
    assert publisher.publish(here.service, shelf, terms(), now=here.now)[0].failures == 0
    assert [o.failures for o in publisher.outcomes(here.service, now=here.now)] == [0]


def test_of_two_runs_at_once_the_older_never_ends_on_top() -> None:
    here, shelf = announced(3), Shelf()
    publisher.publish(here.service, shelf, terms(), now=here.now)
    Node(4).announce(here)
    newer = here.now + 20

    def meanwhile() -> None:
        # the other run's machine did not see the lease
        from chalicelib import tables

        tables.end_lease(here.service.stores, "mainnet", now=newer)
        publisher.publish(here.service, shelf, terms(), now=newer)

    shelf.meanwhile = meanwhile
    [outcome] = publisher.publish(here.service, shelf, terms(), now=here.now + 10)

    assert outcome.failures == 1
    assert manifest.sequence_of(shelf.files["mainnet/peers.json.manifest"]) == newer


def test_a_second_run_waits_for_the_first() -> None:
    here, shelf = announced(3), Shelf()
    second: list[publisher.PublishOutcome] = []

    def meanwhile() -> None:
        second.extend(publisher.publish(here.service, shelf, terms(), now=here.now + 1))

    shelf.meanwhile = meanwhile
    [outcome] = publisher.publish(here.service, shelf, terms(), now=here.now)

    assert (second, outcome.failures) == ([], 0)


def test_a_folder_is_a_shelf(tmp_path: Path) -> None:
    shelf = FolderShelf(tmp_path)

    assert shelf.read("a/peers.json") is None
    assert shelf.write("a/peers.json", b"1", over=None)
    assert not shelf.write("a/peers.json", b"2", over=None)
    first = shelf.read("a/peers.json")
    assert first is not None
    assert shelf.write("a/peers.json", b"2", over=first.tag)
    assert not shelf.write("a/peers.json", b"3", over=first.tag)
    second = shelf.read("a/peers.json")
    assert second is not None
    assert second.body == b"2"


def test_a_folder_that_cannot_be_written_is_unavailable(tmp_path: Path) -> None:
    (tmp_path / "a").write_text("a file where a folder should be")

    with pytest.raises(Unavailable):
        FolderShelf(tmp_path).write("a/peers.json", b"1", over=None)


def test_a_run_that_ends_half_way_takes_back_what_it_wrote() -> None:
    here, shelf = announced(3), Shelf()
    publisher.publish(here.service, shelf, terms(), now=here.now)
    kept = dict(shelf.files)
    Node(4).announce(here)
    shelf.fails_on = "mainnet/peers.json.manifest"
    here.clock += 60

    [outcome] = publisher.publish(here.service, shelf, terms(), now=here.now)

    assert outcome.failures == 1
    assert shelf.files == kept


def test_one_community_that_fails_does_not_hold_up_the_others() -> None:
    here, shelf = announced(3), Shelf()
    Node(9).announce(here, "alpha")
    shelf.fails_on = "alpha/peers.json"

    found = publisher.publish(here.service, shelf, terms(), now=here.now)

    assert [(o.community, o.failures) for o in found] == [("alpha", 1), ("mainnet", 0)]


def test_who_waited_longest_is_published_first() -> None:
    here, shelf = announced(1), Shelf()
    Node(9).announce(here, "alpha")
    publisher.publish(here.service, shelf, terms(), now=here.now, only={"alpha"})
    here.clock += 60

    found = publisher.publish(here.service, shelf, terms(), now=here.now)

    assert [o.community for o in found] == ["mainnet", "alpha"]


def test_keys_for_one_community_publish_no_other() -> None:
    here, shelf = announced(1), Shelf()
    Node(9).announce(here, "alpha")
    keys = RootKey.first(ROOT, now=START).certify(ONLINE, now=START, communities=["alpha"])

    publisher.publish(here.service, shelf, publisher.Terms(keys), now=here.now)

    assert {name.partition("/")[0] for name in shelf.files} == {"alpha"}


def test_tickets_of_revoked_keys_are_left_out() -> None:
    here, shelf = announced(3), Shelf()
    root = RootKey.first(ROOT, now=START).revoke([Node(2).key.verify_key], now=START)
    keys = root.certify(ONLINE, now=START)

    publisher.publish(here.service, shelf, publisher.Terms(keys), now=here.now)

    assert sorted(published(shelf)) == ["peer-1", "peer-3"]


def test_the_manifest_says_where_else_to_look() -> None:
    here, shelf = announced(1), Shelf()
    settings = dataclasses.replace(
        here.service.settings,
        capsule_beacons=("https://a.example", "https://b.example"),
        capsule_mirrors=("https://c.example/capsules/",),
    )

    chosen = publisher.Terms.chosen(terms().keys, settings)
    publisher.publish(here.service, shelf, chosen, now=here.now)

    found = json.loads(shelf.files["mainnet/peers.json.manifest"])["manifest"]["payload"]
    assert found["beacons"] == ["https://a.example", "https://b.example"]
    assert found["capsules"] == ["https://c.example/capsules/mainnet/peers.json"]


def test_a_press_without_keys_counts_a_failure_for_each_community() -> None:
    here = announced(2)

    def lost(now: int) -> manifest.Publisher:
        raise Unusable("the keys are lost")

    runs = press.Press(here.service, Shelf(), lost)
    found = [runs.run(now=here.now + n)[0] for n in range(2)]

    assert [(o.failures, o.alarming, o.reason) for o in found] == [
        (1, False, "the keys are lost"),
        (2, True, "the keys are lost"),
    ]


def test_what_cannot_even_be_counted_in_the_store_is_counted_in_the_log(
    caplog: pytest.LogCaptureFixture,
) -> None:
    here = announced(2)
    stores = here.service.stores

    class Away:
        def __getattr__(self, verb: str) -> Any:
            raise Unavailable("the store is away")

    runs = press.Press(here.service, Shelf(), lambda now: terms().keys)
    here.service.stores = stores._replace(presence=Away())
    with caplog.at_level(logging.ERROR, logger="muster.publishing"):
        assert [runs.run(now=here.now) for _ in range(2)] == [[], []]
    assert caplog.records[-1].PublishFailuresInARow == 2  # type: ignore[attr-defined]

    here.service.stores = stores
    assert runs.run(now=here.now)[0].failures == 0


# --- what is written ------------------------------------------------------------------


class CountingShelf(Shelf):
    """A shelf that notes what is written onto it, by the names of the files."""

    def __init__(self) -> None:
        super().__init__()
        self.written: list[str] = []

    def write(self, name: str, body: bytes, *, over: str | None) -> bool:
        """Write the file, and note that."""
        self.written.append(name)
        return super().write(name, body, over=over)


@pytest.fixture
def lasting() -> tuple[World, CountingShelf]:
    """A community that is published, whose tickets live for an hour."""
    here, shelf = beacon_world(), CountingShelf()
    for number in (1, 2):
        Node(number).announce(here, ttl_s=3600)
    publisher.publish(here.service, shelf, terms(), now=here.now)
    shelf.written.clear()
    return here, shelf


def test_a_capsule_that_would_say_the_same_is_not_written_again(
    lasting: tuple[World, CountingShelf],
) -> None:
    here, shelf = lasting

    [outcome] = publisher.publish(here.service, shelf, terms(), now=START + publisher.EVERY_S)

    assert shelf.written == []
    assert (outcome.failures, outcome.peers, outcome.sequence) == (0, 2, START)
    assert outcome.at == START + publisher.EVERY_S


def test_it_is_renewed_before_its_manifest_stops_being_fresh(
    lasting: tuple[World, CountingShelf],
) -> None:
    here, shelf = lasting
    for run in range(1, 4):
        now = START + run * publisher.EVERY_S
        publisher.publish(here.service, shelf, terms(), now=now)
        at = manifest.sequence_of(shelf.files["mainnet/peers.json.manifest"])
        # the next run may be late, and takes a while
        assert at + manifest.FRESH_S >= now + publisher.EVERY_S

    assert shelf.written == [f"mainnet/{name}" for name in publisher.FILES]


@pytest.mark.parametrize("change", ["ticket", "gone", "beacons", "key", "revocation", "damage"])
def test_what_says_something_else_is_written(
    lasting: tuple[World, CountingShelf], change: str
) -> None:
    here, shelf = lasting
    here.clock += 60
    told = terms()
    keys = RootKey.first(ROOT, now=START)
    if change == "ticket":
        Node(3).announce(here, ttl_s=3600)
    elif change == "gone":
        here.clock += 3600
        Node(3).announce(here)
    elif change == "beacons":
        told = dataclasses.replace(told, beacons=("https://other.example",))
    elif change == "key":
        other = SigningKey(b"\x03" * 32)
        told = dataclasses.replace(told, keys=keys.certify(other, now=START))
    elif change == "revocation":
        revoked = keys.revoke([Node(9).key.verify_key], now=START)
        told = dataclasses.replace(told, keys=revoked.certify(ONLINE, now=START))
    else:
        shelf.files["mainnet/peers.json.sig"] += b" "

    [outcome] = publisher.publish(here.service, shelf, told, now=here.now)

    assert outcome.sequence == here.now
    assert shelf.written == [f"mainnet/{name}" for name in publisher.FILES]
