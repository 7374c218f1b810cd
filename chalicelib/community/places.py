"""Places: which tickets a community lists, and who makes way for whom (ADR 0010).

A community has a fixed number of places, half for newcomers and half for nodes
that have been there a while. The newest newcomer takes the oldest one's place;
a place among the long-lived goes to whoever has been there longest. So listing
costs the same for ten nodes and for a hundred thousand, and a flood of fresh
keys cannot push out those who stay.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import msgspec

from capsules.ticket import Ticket
from chalicelib import tables
from chalicelib.service import Service

LONG_LIVED_S = 600
"""After so long without a break a node may have a place among the long-lived."""

TURNOVER_S = 10
"""When newcomers' places change hands faster than this, only some newcomers get one."""

LASTING_S = 60
"""A listed ticket that lives longer than this need not be replaced at once."""

REMEMBERED_S = 2
"""How long a process may answer with a list it has read."""

NEW, LONG = "new", "long"


@dataclass(frozen=True, slots=True)
class Applicant:
    """A node that asks for a place with a good ticket, and the claim it has already."""

    ticket: Ticket
    claim: tables.Claim | None
    clock: float

    @property
    def now(self) -> int:
        """The second of its call."""
        return int(self.clock)

    @property
    def since(self) -> int:
        """Since when it has been there without a break."""
        return self.claim.since if self.claim else self.now

    def claiming(self, place: str) -> tables.Claim:
        """Return the claim that it has with a place, or with none."""
        until = -(-self.ticket.expires_at_ms // 1000)
        return tables.Claim(
            key=self.ticket.verify_key.to_base64(),
            since=self.since,
            seen_at=self.now,
            until=max(until, self.claim.until) if self.claim else until,
            slot=place,
        )


class Places:
    """The places of one community as this process last saw them, at the time of one call."""

    def __init__(self, service: Service, community: str, *, clock: float) -> None:
        self._service = service
        self._community = community
        self._clock = clock
        self._most = service.settings.tickets_kept
        self._taken = self._read()

    def __iter__(self) -> Iterator[tables.Slot]:
        return iter(self._taken.values())

    def is_current(self, applicant: Applicant) -> bool:
        """Say whether the list needs no change: the same node again, or an older ticket of its."""
        ticket, claim, listed = applicant.ticket, applicant.claim, self._of(applicant)
        if listed is None or claim is None:
            return False
        if listed.expires_at_ms > ticket.expires_at_ms:
            return True
        fresh = applicant.now - claim.seen_at < self._service.settings.ticket_again_s
        lasting = listed.expires_at_ms == ticket.expires_at_ms or (
            listed.expires_at_ms > (self._clock + LASTING_S) * 1000
        )
        return fresh and lasting

    def choose(self, applicant: Applicant) -> str:
        """Choose a place: one's own, a free one, or one whose ticket has to make way; or none."""
        listed = self._of(applicant)
        own = listed.slot if listed else ""
        if own.startswith(LONG):
            return own
        if applicant.now - applicant.since >= LONG_LIVED_S:
            long = self._long_lived(applicant.since)
            if long:
                return long
        return own or self._newcomers()

    def fill(self, place: str, applicant: Applicant) -> None:
        """Give a place to an applicant, and free the one that it had."""
        ticket = applicant.ticket
        kept = tables.Slot(
            slot=place,
            peer_id=ticket.peer_id,
            since=applicant.since,
            received_at=self._clock,
            expires_at_ms=ticket.expires_at_ms,
            ticket=msgspec.Raw(msgspec.json.encode(ticket.to_json())),
        )
        left = self._of(applicant)
        tables.save_slot(self._service.stores, self._community, kept)
        if left is not None and left.slot != place:
            now = applicant.now
            tables.drop_slot(self._service.stores, self._community, left, now=now)
            self._taken.pop(left.slot, None)
        self._taken[place] = kept

    def _of(self, applicant: Applicant) -> tables.Slot | None:
        """Return what an applicant has listed, if its claim's place is still its own."""
        listed = self._taken.get(applicant.claim.slot) if applicant.claim else None
        return listed if listed and listed.peer_id == applicant.ticket.peer_id else None

    def _long_lived(self, since: int) -> str:
        """Return a free place among the long-lived, or that of one who came later than *since*."""
        free = self._free(LONG, self._most // 2)
        if free:
            return free
        youngest = max(self._kind(LONG), key=lambda slot: slot.since)
        return youngest.slot if youngest.since > since else ""

    def _newcomers(self) -> str:
        """Return a free newcomers' place, or the oldest one if it is its turn, or none."""
        free = self._free(NEW, self._most - self._most // 2)
        if free:
            return free
        oldest = min(self._kind(NEW), key=lambda slot: slot.received_at)
        age_s = max(0.0, self._clock - oldest.received_at)
        chance = int.from_bytes(self._service.entropy(2), "big") / 65536
        return oldest.slot if age_s >= TURNOVER_S or chance < age_s / TURNOVER_S else ""

    def _free(self, kind: str, count: int) -> str:
        """Choose a free place at random, so that two who come at once seldom choose the same."""
        free = [name for n in range(count) if (name := f"{kind}{n:04d}") not in self._taken]
        if not free:
            return ""
        return free[int.from_bytes(self._service.entropy(2), "big") % len(free)]

    def _kind(self, kind: str) -> list[tables.Slot]:
        return [slot for slot in self if slot.slot.startswith(kind)]

    def _read(self) -> dict[str, tables.Slot]:
        """Return the places by name: those remembered, or else those in the store."""
        now = int(self._clock)
        taken = remembered(self._service, self._community, now=now)
        if taken is None:
            found = tables.slots(self._service.stores, self._community, limit=self._most, now=now)
            taken = {slot.slot: slot for slot in found}
            self._service.listings.keep(self._community, taken, until=now + REMEMBERED_S)
        for name in [name for name, slot in taken.items() if not is_live(slot, clock=self._clock)]:
            del taken[name]
        return taken


def remembered(service: Service, community: str, *, now: int) -> dict[str, tables.Slot] | None:
    """Return the places that this process read a moment ago; costs the store nothing."""
    taken: dict[str, tables.Slot] | None = service.listings.recall(community, now=now)
    return taken


def is_live(slot: tables.Slot, *, clock: float) -> bool:
    """Say whether a place's ticket has not ended, to the millisecond."""
    return slot.expires_at_ms > clock * 1000


def pick(slots: Iterable[tables.Slot], *, most: int, clock: float) -> list[tables.Slot]:
    """Choose what is listed: half of it long-lived nodes if there are so many, newest first."""
    live = [slot for slot in slots if is_live(slot, clock=clock)]
    live.sort(key=lambda slot: slot.received_at, reverse=True)
    long = [slot for slot in live if slot.slot.startswith(LONG)]
    new = [slot for slot in live if slot.slot.startswith(NEW)]
    kept_new = min(len(new), max(most - len(long), most - most // 2))
    by_peer: dict[str, tables.Slot] = {}
    for slot in new[:kept_new] + long[: most - kept_new]:
        by_peer.setdefault(slot.peer_id, slot)
    return sorted(by_peer.values(), key=lambda slot: slot.received_at, reverse=True)
