"""Publisher: a community's tickets as a signed capsule, every five minutes.

For each community that was announced to, a sample of its tickets is signed and
put on a shelf as three files. A run that fails leaves the last good capsule where
it is and is counted; the second failure in a row raises the alarm.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass

import msgspec

from capsules import manifest
from capsules.errors import Refused as MetadataRefused
from capsules.ticket import Ticket
from chalicelib import beacon, log, tables
from chalicelib.service import Service
from chalicelib.shelf import Shelf
from chalicelib.store import Unavailable

EVERY_S = 300
ENTRIES = 100
"""How many tickets a capsule holds, half of them of long-lived nodes if there are so many."""

LEASE_S = 240
"""How long one run keeps others away from a community; longer than a run can take."""

ALARM_AT = 2
"""So many failures in a row raise the alarm."""


@dataclass(frozen=True, slots=True)
class Terms:
    """With which keys a capsule is published, and where else clients are told to look."""

    keys: manifest.Publisher
    beacons: tuple[str, ...] = ()
    capsules: tuple[str, ...] = ()


class Outcome(msgspec.Struct, frozen=True, kw_only=True):
    """What came of publishing one community."""

    community: str
    at: int
    sequence: int = 0
    peers: int = 0
    failures: int = 0
    reason: str = ""

    @property
    def alarming(self) -> bool:
        """Whether somebody has to look."""
        return self.failures >= ALARM_AT


def publish(service: Service, shelf: Shelf, terms: Terms, *, now: int) -> list[Outcome]:
    """Publish every community that has live tickets, and count what fails."""
    most = service.settings.communities
    outcomes = []
    for community in tables.communities(service.stores, limit=most, now=now):
        outcome = _publish(service, shelf, terms, community, now=now)
        if outcome is not None:
            outcomes.append(outcome)
            tables.save_outcome(service.stores, community, msgspec.json.encode(outcome), now=now)
            log.published(community, at=now, failures=outcome.failures, reason=outcome.reason)
    return outcomes


def outcomes(service: Service, *, now: int) -> list[Outcome]:
    """Return how publishing each community went the last time."""
    most = service.settings.communities
    found = tables.outcomes(service.stores, limit=most, now=now)
    return [msgspec.json.decode(body, type=Outcome) for body in found]


def sample(places: Sequence[tables.Slot], *, community: str, now: int) -> list[tables.Slot]:
    """Choose whose tickets are published: long-lived nodes first, then newcomers by lot.

    The lot is drawn with the time, so that it is the same on every machine and
    nobody can stand in front by choosing its name.
    """
    live = [place for place in places if place.expires_at_ms > now * 1000]
    long = [place for place in live if place.slot.startswith(beacon.LONG)][:ENTRIES]
    new = [place for place in live if not place.slot.startswith(beacon.LONG)]
    new.sort(key=lambda place: _lot(community, place.peer_id, now=now))
    kept_long = long[: max(ENTRIES // 2, ENTRIES - len(new))]
    chosen = {place.peer_id: place for place in [*new, *kept_long]}
    names = [place.peer_id for place in kept_long] + [place.peer_id for place in new]
    unique = list(dict.fromkeys(names))[:ENTRIES]
    return sorted(
        (chosen[name] for name in unique), key=lambda place: (-place.expires_at_ms, place.peer_id)
    )


def _publish(
    service: Service, shelf: Shelf, terms: Terms, community: str, *, now: int
) -> Outcome | None:
    """Publish one community; None if there is nothing to publish or somebody else is at it."""
    chosen = sample(beacon.places(service, community, now=now), community=community, now=now)
    if not chosen or not tables.lease(service.stores, community, until=now + LEASE_S, now=now):
        return None
    try:
        tickets = [Ticket.parse(bytes(place.ticket)) for place in chosen]
        sequence = _write(shelf, terms, tickets, community=community, now=now)
    except (Unavailable, MetadataRefused, ValueError) as error:
        before = _last(service, community, now=now)
        return Outcome(
            community=community,
            at=now,
            sequence=before.sequence if before else 0,
            failures=(before.failures if before else 0) + 1,
            reason=str(error),
        )
    finally:
        tables.end_lease(service.stores, community, now=now)
    return Outcome(community=community, at=now, sequence=sequence, peers=len(tickets))


def _write(
    shelf: Shelf, terms: Terms, tickets: Sequence[Ticket], *, community: str, now: int
) -> int:
    """Write the three files, the manifest last, each over the version that was read.

    Whoever reads between the writes sees that the files do not belong together and
    reads again; whoever publishes an older sequence at the same time finds that its
    versions are gone.
    """
    names = [f"{community}/{name}" for name in FILES]
    found = [shelf.read(name) for name in names]
    published = found[2]
    previous = manifest.sequence_of(published.body) if published else 0
    files = manifest.publish(
        terms.keys,
        tickets,
        community=community,
        now=now,
        previous=previous,
        beacons=terms.beacons,
        capsules=terms.capsules,
    )
    for name, body, old in zip(names, files, found, strict=True):
        if not shelf.write(name, body, over=old.tag if old else None):
            raise ValueError(f"somebody else published {name} at the same time")
    return now


def _lot(community: str, peer_id: str, *, now: int) -> bytes:
    return hashlib.sha256(f"{community} {now} {peer_id}".encode()).digest()


def _last(service: Service, community: str, *, now: int) -> Outcome | None:
    body = tables.outcome(service.stores, community, now=now)
    return msgspec.json.decode(body, type=Outcome) if body else None


FILES = ("peers.json", "peers.json.sig", "peers.json.manifest")

__all__ = ["EVERY_S", "FILES", "Outcome", "Terms", "outcomes", "publish", "sample"]
