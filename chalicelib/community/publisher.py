"""Publisher: a community's tickets as a signed capsule, every five minutes or sooner.

For each community that was announced to, a sample of its tickets is signed and
put on a shelf as three files; again before the last of these tickets ends, as a capsule
without a usable ticket helps nobody. A run that fails leaves the last good capsule where
it is and is counted; the second failure in a row raises the alarm.
"""

from __future__ import annotations

import contextlib
import hashlib
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass

import msgspec

from capsules import manifest
from capsules.errors import Refused as MetadataRefused
from capsules.ticket import Ticket
from chalicelib import access, log, tables
from chalicelib.community import beacon, keyring
from chalicelib.community.shares import fair
from chalicelib.community.shelf import FILES, Shelf, Shelved
from chalicelib.service import Service
from chalicelib.settings import Settings
from chalicelib.store import Unavailable

EVERY_S = 300
ENTRIES = 100
"""How many tickets a capsule holds; up to half are of long-lived nodes, newcomers permitting."""

RENEW_S = EVERY_S + 120
"""So long before a manifest stops being fresh it is renewed: sooner than the run after next."""

LEASE_S = 240
"""How long one run keeps others away from a community; longer than a run can take."""

ALARM_AT = 2
"""How many failures in a row raise the alarm."""


@dataclass(frozen=True, slots=True)
class Terms:
    """With which keys a capsule is published, and where else clients are told to look.

    A mirror is a URL under which every community has its folder, as under `/capsules`.
    """

    keys: manifest.Publisher
    beacons: tuple[str, ...] = ()
    mirrors: tuple[str, ...] = ()

    @classmethod
    def chosen(cls, keys: manifest.Publisher, settings: Settings) -> Terms:
        """Return the terms that an operator chose."""
        return cls(keys, settings.capsule_beacons, settings.capsule_mirrors)

    def places(self, community: str) -> tuple[str, ...]:
        """Return where else a community's capsule is."""
        return tuple(f"{mirror.rstrip('/')}/{community}/{FILES[0]}" for mirror in self.mirrors)


class PublishOutcome(msgspec.Struct, frozen=True, kw_only=True):
    """How publishing one community went."""

    community: str
    at: int
    sequence: int = 0
    peers: int = 0
    failures: int = 0
    reason: str = ""
    ends_at: int = 0
    """When the last of the published tickets ends."""

    @property
    def alarming(self) -> bool:
        """Whether somebody has to look."""
        return self.failures >= ALARM_AT


def publish(
    service: Service,
    shelf: Shelf,
    terms: Terms,
    *,
    now: int,
    only: Collection[str] | None = None,
) -> list[PublishOutcome]:
    """Publish every community that has live tickets, or of these *only*; count what fails."""
    last = {done.community: done for done in outcomes(service, now=now)}
    names = [name for name in communities(service, now=now) if only is None or name in only]
    return each(_by_age(names, last), lambda name: published(service, shelf, terms, name, now=now))


def outcome(service: Service, community: str, *, now: int) -> PublishOutcome | None:
    """Return how publishing a community went the last time."""
    body = tables.outcome(service.stores, community, now=now)
    return msgspec.json.decode(body, type=PublishOutcome) if body else None


def outcomes(service: Service, *, now: int) -> list[PublishOutcome]:
    """Return how publishing each community went the last time."""
    most = service.settings.communities
    bodies = tables.outcomes(service.stores, limit=most, now=now)
    return [msgspec.json.decode(body, type=PublishOutcome) for body in bodies]


def sample(
    places: Sequence[tables.Slot], *, community: str, now: int, share: int
) -> list[tables.Slot]:
    """Choose by lot whose tickets are published, long-lived nodes and newcomers.

    The lot is a hash with the time in it, so that it is the same on every machine and
    nobody can come first by choosing its name.
    """
    live = [place for place in places if place.expires_at_ms > now * 1000]
    live.sort(key=lambda place: _lot(community, place.peer_id, now=now))
    chosen = fair(live, most=ENTRIES, share=share)
    return sorted(chosen, key=lambda place: (-place.expires_at_ms, place.peer_id))


def communities(service: Service, *, now: int) -> list[str]:
    """Return the communities that were announced to lately."""
    most = 2 * service.settings.communities  # some have their place whatever the bound
    known = tables.communities(service.stores, limit=most, now=now)
    return access.published(service.settings, known)


def _by_age(names: Sequence[str], last: Mapping[str, PublishOutcome]) -> list[str]:
    """Order communities, those first that were not published for the longest time."""
    return sorted(names, key=lambda name: (last[name].at if name in last else 0, name))


def each(names: Sequence[str], act: Callable[[str], PublishOutcome | None]) -> list[PublishOutcome]:
    """Do something for one community after the other; return what came of it."""
    return [done for name in names if (done := act(name)) is not None]


def published(
    service: Service, shelf: Shelf, terms: Terms, name: str, *, now: int, beyond: int = 0
) -> PublishOutcome | None:
    """Publish one community and note how it went, if there was something to do."""
    done = _publish(service, shelf, terms, name, now=now, beyond=beyond)
    return _noted(service, done, now=now) if done else None


def failed(service: Service, name: str, reason: str, *, now: int) -> PublishOutcome | None:
    """Note a failure that affects all communities, for one that has something to publish."""
    if not _places(service, name, now=now):
        return None
    return _noted(service, _failure(service, name, reason, now=now), now=now)


def _publish(
    service: Service, shelf: Shelf, terms: Terms, community: str, *, now: int, beyond: int
) -> PublishOutcome | None:
    """Publish one community; None if no ticket outlasts *beyond* or another run has the lease."""
    if not keyring.certificate(terms.keys).covers(community):
        return None
    try:
        chosen = _places(service, community, now=now)
        ends_at = max((place.expires_at_ms // 1000 for place in chosen), default=0)
        if ends_at <= beyond:
            return None
        keyring.check(terms.keys, now=now)
        with _alone(service, community, now=now) as alone:
            if not alone:
                return None
            tickets = _believed(terms, chosen)
            sequence = write(shelf, terms, tickets, community=community, now=now)
    except (Unavailable, MetadataRefused, ValueError, keyring.Unusable) as error:
        return _failure(service, community, said(error), now=now)
    return PublishOutcome(
        community=community, at=now, sequence=sequence, peers=len(tickets), ends_at=ends_at
    )


def _believed(terms: Terms, chosen: Sequence[tables.Slot]) -> list[Ticket]:
    """Return the tickets, without those whose keys were revoked since they were taken."""
    revoked = keyring.revoked(terms.keys)
    found = [Ticket.parse(bytes(place.ticket)) for place in chosen]
    return [ticket for ticket in found if ticket.verify_key.to_base64() not in revoked]


def _places(service: Service, community: str, *, now: int) -> list[tables.Slot]:
    found = beacon.places(service, community, now=now)
    share = service.settings.network_places
    return sample(found, community=community, now=now, share=share)


@contextlib.contextmanager
def _alone(service: Service, community: str, *, now: int) -> Iterator[bool]:
    """Hold the community's lease; False if another run has it."""
    if not tables.lease(service.stores, community, until=now + LEASE_S, now=now):
        yield False
        return
    try:
        yield True
    finally:
        with contextlib.suppress(Unavailable):  # it ends by itself
            tables.end_lease(service.stores, community, now=now)


def _failure(service: Service, community: str, reason: str, *, now: int) -> PublishOutcome:
    before = outcome(service, community, now=now)
    return PublishOutcome(
        community=community,
        at=now,
        sequence=before.sequence if before else 0,
        failures=(before.failures if before else 0) + 1,
        reason=reason,
    )


def _noted(service: Service, done: PublishOutcome, *, now: int) -> PublishOutcome:
    tables.save_outcome(service.stores, done.community, msgspec.json.encode(done), now=now)
    log.published(done.community, at=now, failures=done.failures, reason=done.reason)
    return done


def write(
    shelf: Shelf, terms: Terms, tickets: Sequence[Ticket], *, community: str, now: int
) -> int:
    """Write the three files, the manifest last, each over the version that was read.

    What would say the same as what is there is not written while that is fresh for long
    enough (`RENEW_S`). Returns the sequence that is published then.

    Whoever reads between the writes sees that the files do not belong together and
    reads again; whoever publishes an older sequence at the same time finds that its
    versions are gone. If the last cannot be written, the first are rolled back.
    """
    names = [f"{community}/{name}" for name in FILES]
    old_files = [shelf.read(name) for name in names]
    published = old_files[2]
    previous = manifest.sequence_of(published.body) if published else 0
    if now <= previous + manifest.FRESH_S - RENEW_S:
        same = _files(terms, tickets, community=community, now=previous)
        if [old and old.body for old in old_files] == [*same]:
            return previous
    files = _files(terms, tickets, community=community, now=now, previous=previous)
    written: list[tuple[str, bytes, Shelved | None]] = []
    try:
        for name, body, old in zip(names, files, old_files, strict=True):
            written.append((name, body, old))
            _put(shelf, name, body, over=old)
    except Exception:
        _roll_back(shelf, written)
        raise
    return now


def _files(
    terms: Terms, tickets: Sequence[Ticket], *, community: str, now: int, previous: int = 0
) -> manifest.Files:
    """Return the files as of *now*: for the same words and time they have the same bytes."""
    return manifest.publish(
        terms.keys,
        tickets,
        community=community,
        now=now,
        previous=previous,
        beacons=terms.beacons,
        capsules=terms.places(community),
    )


def _put(shelf: Shelf, name: str, body: bytes, *, over: Shelved | None) -> None:
    if not shelf.write(name, body, over=over.tag if over else None):
        raise ValueError(f"somebody else published {name} at the same time")


def _roll_back(shelf: Shelf, written: Sequence[tuple[str, bytes, Shelved | None]]) -> None:
    """Restore the earlier versions, as far as that is possible."""
    with contextlib.suppress(Unavailable):
        for name, body, old in written:
            now_there = shelf.read(name)
            if old is not None and now_there is not None and now_there.body == body != old.body:
                shelf.write(name, old.body, over=now_there.tag)


def said(error: Exception) -> str:
    """Return what is noted of an error."""
    return str(error) or type(error).__name__


def _lot(community: str, peer_id: str, *, now: int) -> bytes:
    return hashlib.sha256(f"{community} {now} {peer_id}".encode()).digest()


__all__ = [
    "EVERY_S",
    "FILES",
    "PublishOutcome",
    "Terms",
    "communities",
    "each",
    "failed",
    "outcome",
    "outcomes",
    "publish",
    "published",
    "said",
    "sample",
    "write",
]
