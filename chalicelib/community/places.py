"""Places: which tickets a community lists, and who makes way for whom (ADR 0010).

A community has a fixed number of places, half for newcomers and half for nodes
that have been there a while. Where there are more nodes than places, each place goes
by lot to one of those who asked while it was due to change hands. So listing costs the
same for ten nodes and for a hundred thousand, everybody is listed in turn, and neither
a flood of fresh keys nor the patience of one network pushes out all others.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from operator import attrgetter
from typing import NamedTuple

import msgspec

from capsules.ticket import Ticket
from chalicelib import tables
from chalicelib.community.shares import LONG, NEW, Shares, fair, kind
from chalicelib.service import Service

LONG_LIVED_S = 600
"""After so long without a break a node may have a place among the long-lived."""

_received = attrgetter("received_at")

TURNOVER_S = {NEW: 10, LONG: 600}
"""After so long anybody who asks may have a place; before, it depends on the lots drawn."""

LOTS = 65_536

LASTING_S = 60
"""A listed ticket that lives longer than this need not be replaced at once."""

REMEMBERED_S = 2
"""How long a process may answer with a list it has read."""


class Place(NamedTuple):
    """A place for a node, since when it has it, and the lot that it drew."""

    name: str
    since: int
    lot: int


@dataclass(frozen=True, slots=True)
class Applicant:
    """A node that asks for a place: its good ticket, its claim if it has one, and its networks."""

    ticket: Ticket
    claim: tables.Claim | None
    networks: tuple[str, ...]
    clock: float

    @property
    def now(self) -> int:
        """The second of its call."""
        return int(self.clock)

    @property
    def since(self) -> int:
        """Since when it has been there without a break."""
        return self.claim.since if self.claim and self.claim.until > self.now else self.now

    @property
    def waits(self) -> int:
        """Since when it has asked for a place and got none."""
        return (self.claim and self.since == self.claim.since and self.claim.waits) or self.now

    def claiming(self, place: str, *, kept_s: int) -> tables.Claim:
        """Return the claim that it has with a place, or with none."""
        until = -(-self.ticket.expires_at_ms // 1000)
        return tables.Claim(
            key=self.ticket.verify_key.to_base64(),
            since=self.since,
            seen_at=self.now,
            until=max(until, self.claim.until) if self.claim else until,
            slot=place,
            kept_s=kept_s,
            waits=0 if place else self.waits,
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

    def choose(self, applicant: Applicant) -> Place | None:
        """Choose a place: one's own, a free one, or one that is won by lot; or none."""
        listed = self._of(applicant)
        own = Place(listed.slot, listed.since, listed.lot) if listed else None
        if listed and kind(listed) == LONG:
            return own
        if applicant.now - applicant.since >= LONG_LIVED_S:
            long = self._draw(LONG, applicant)
            if long:
                return long
        return own or self._draw(NEW, applicant)

    def fill(self, place: Place, applicant: Applicant) -> None:
        """Give a place to an applicant, and free the one that it had."""
        ticket, left = applicant.ticket, self._of(applicant)
        # Anybody may announce a ticket again, but only its node has a newer one.
        again = left is not None and left.expires_at_ms >= ticket.expires_at_ms
        kept = tables.Slot(
            slot=place.name,
            peer_id=ticket.peer_id,
            since=place.since,
            received_at=self._clock,
            expires_at_ms=ticket.expires_at_ms,
            ticket=msgspec.Raw(msgspec.json.encode(ticket.to_json())),
            lot=place.lot,
            networks=left.networks if left and again else applicant.networks,
        )
        tables.save_slot(self._service.stores, self._community, kept)
        if left is not None and left.slot != place.name:
            now = applicant.now
            tables.drop_slot(self._service.stores, self._community, left, now=now)
            self._taken.pop(left.slot, None)
        self._taken[place.name] = kept

    def _of(self, applicant: Applicant) -> tables.Slot | None:
        """Return what an applicant has listed, if its claim's place is still its own."""
        listed = self._taken.get(applicant.claim.slot) if applicant.claim else None
        return listed if listed and listed.peer_id == applicant.ticket.peer_id else None

    def _draw(self, wanted: str, applicant: Applicant) -> Place | None:
        """Draw a lot for a place of a kind: a free one, or the one that is easiest to win."""
        lot = self._lot(waited_s=0 if wanted == LONG else applicant.now - applicant.waits)
        free = self._free(wanted)
        if free:
            return Place(free[lot % len(free)], applicant.now, lot)
        rivals, sure = self._rivals(wanted, applicant)
        weakest = min(rivals, key=self._standing)
        won = sure or lot / LOTS > self._standing(weakest)
        return Place(weakest.slot, applicant.now, lot) if won else None

    def _lot(self, *, waited_s: int) -> int:
        """Draw a lot; whoever has waited longer has a better chance, in proportion."""
        drawn = int.from_bytes(self._service.entropy(2), "big") / LOTS
        return int(LOTS * drawn ** (TURNOVER_S[NEW] / (TURNOVER_S[NEW] + waited_s)))

    def _rivals(self, wanted: str, applicant: Applicant) -> tuple[list[tables.Slot], bool]:
        """Return whose places are to be won, and whether they have to make way in any case."""
        held = [slot for slot in self if kind(slot) == wanted]
        shares = Shares(self._service.settings.network_places, held)
        used_up = shares.used_up(applicant.networks)
        if used_up:
            return [slot for slot in held if not used_up.isdisjoint(slot.networks)], False
        exceeding = [slot for slot in held if shares.exceeded(slot)]
        return (exceeding, True) if exceeding else (held, False)

    def _standing(self, slot: tables.Slot) -> float:
        """Return what a lot must be above to win a place: its own lot, and less as time passes.

        Of those who ask at once, the ones with the best lots have the places in the end.
        """
        return slot.lot / LOTS - (self._clock - slot.since) / TURNOVER_S[kind(slot)]

    def _free(self, wanted: str) -> list[str]:
        half = self._most // 2
        count = half if wanted == LONG else self._most - half
        return [name for n in range(count) if (name := f"{wanted}{n:04d}") not in self._taken]

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


def pick(
    slots: Iterable[tables.Slot], *, most: int, share: int, clock: float, first: int
) -> list[tables.Slot]:
    """Choose what is listed, newest first; of those that came at once, from the *first* on."""
    clock_ms = clock * 1000
    live = [slot for slot in slots if slot.expires_at_ms > clock_ms]
    turn = first % len(live) if live else 0
    newest = sorted(live[turn:] + live[:turn], key=_received, reverse=True)
    return sorted(fair(newest, most=most, share=share), key=_received, reverse=True)
