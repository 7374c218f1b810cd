"""Beacon: takes signed tickets of a community and lists the freshest.

The dialect is the rendezvous mesh's (docs/formats.md): milliseconds, camelCase,
the community in the query, a bad ticket answered 200 with its reason, and a
caller over its limit answered with peers, because existing clients count
anything else as a beacon that failed.

A community has a fixed number of places, half for newcomers and half for nodes
that have been there a while. The newest newcomer takes the oldest one's place;
a place among the long-lived goes to whoever has been there longest. So listing
costs the same for ten nodes and for a hundred thousand, and a flood of fresh
keys cannot push out those who stay (ADR 0010).
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import msgspec

from capsules import ticket as tickets
from capsules.errors import Refused as TicketRefused
from capsules.fields import COMMUNITY
from capsules.ticket import Ticket
from chalicelib import tables
from chalicelib.call import Call
from chalicelib.service import Service
from muster.errors import InvalidRequest
from muster.felund import records

MAINNET = "mainnet"
LONG_LIVED_S = 600
"""After so long without a break a node may have a place among the long-lived."""

TURNOVER_S = 10
"""When newcomers' places change hands faster than this, only some newcomers get one."""

LASTING_S = 60
"""A listed ticket that lives longer than this need not be replaced at once."""

COMMUNITY_S = 1200
"""How long after its last ticket a community is still looked at for publishing."""

REMEMBERED_S = 2
"""How long a process may answer with a list it has read."""

NEW, LONG = "new", "long"


@dataclass(slots=True)
class _Listing:
    """A community's places as this process last saw them."""

    places: dict[str, tables.Slot]


def announce(service: Service, call: Call, ask: records.Announce) -> records.Tickets:
    """Take a node's ticket, if it is good, and tell it who else is there."""
    community = _community(service, call, ask.community)
    ticket = _ticket(ask)
    reason = _judge(service, call, ticket)
    if reason is None:
        reason = _keep(service, call, community, ticket)
    if reason is not None:
        return records.Tickets(ok=False, peers=(), validation=records.Validation(reason=reason))
    return _answer(service, call, community, without=ticket.peer_id)


def peers(service: Service, call: Call, ask: records.ListTickets) -> records.Tickets:
    """List a community's freshest tickets."""
    return _answer(service, call, _community(service, call))


def listing(service: Service, call: Call) -> records.Tickets:
    """Answer a caller over its limit with the list as this process knows it."""
    listed = service.listings.recall(_community(service, call), now=call.now)
    places = listed.places.values() if listed else ()
    return records.Tickets(ok=True, peers=_chosen(service, call, places))


def places(service: Service, community: str, *, now: int) -> Sequence[tables.Slot]:
    """Return every place of a community with its ticket, long-lived nodes first."""
    found = tables.slots(service.stores, community, limit=service.settings.tickets_kept, now=now)
    return sorted(found, key=lambda slot: (slot.slot.startswith(NEW), slot.since))


def _community(service: Service, call: Call, named: Any = None) -> str:
    """Return the community: from the query, else as the body names it, else the usual one."""
    name = call.query.get("community", named if isinstance(named, str) else MAINNET)
    if not COMMUNITY.fullmatch(name):
        raise InvalidRequest(
            "community: expected 1 to 64 letters, digits, dots, dashes and underscores"
        )
    served = service.settings.listed("community_names")
    if served and name not in served:
        raise InvalidRequest("community: this beacon does not serve it")
    return name


def _ticket(ask: records.Announce) -> Ticket:
    try:
        return Ticket.from_json(ask.ticket)
    except TicketRefused as refused:
        raise InvalidRequest(f"ticket: {refused.message}") from None


def _judge(service: Service, call: Call, ticket: Ticket) -> str | None:
    """Return why a ticket is not good, or nothing."""
    chosen = service.settings
    rules = tickets.Rules(
        max_lifetime_ms=chosen.ticket_max_ttl_s * 1000,
        trusted=chosen.listed("trusted_ticket_keys"),
        revoked=chosen.listed("revoked_ticket_keys"),
    )
    try:
        ticket.verify(now_ms=int(call.clock * 1000), rules=rules)
    except TicketRefused as refused:
        return str(refused.reason)
    return None if tickets.listable(ticket) else "MALFORMED"


def _keep(service: Service, call: Call, community: str, ticket: Ticket) -> str | None:
    """Give a good ticket its place; return why not if the peer id is somebody else's."""
    key = ticket.verify_key.to_base64()
    until = -(-ticket.expires_at_ms // 1000)
    if until <= call.now:
        return None  # good by the clocks' tolerance, and over before it can be listed
    held = tables.claim(service.stores, community, ticket.peer_id, now=call.now)
    if held is not None and held.key != key:
        return "PEER_ID_TAKEN"
    _note_community(service, call, community)
    known = _listing(service, call, community)
    if held is not None and _listed_well(service, call, known, ticket, held):
        return None
    since = held.since if held else call.now
    slot = _place(service, call, known, ticket, held, since=since)
    if held is not None:
        until = max(until, held.until)
    claim = tables.Claim(key=key, since=since, seen_at=call.now, until=until, slot=slot)
    if held is None:
        stores = service.stores
        if not tables.take_claim(stores, community, ticket.peer_id, claim, now=call.now):
            other = tables.claim(stores, community, ticket.peer_id, now=call.now)
            if other is not None and other.key != key:
                return "PEER_ID_TAKEN"
    else:
        tables.keep_claim(service.stores, community, ticket.peer_id, claim)
    if slot:
        _fill(service, call, community, known, ticket, slot=slot, since=since, held=held)
    return None


def _listed_well(
    service: Service, call: Call, known: _Listing, ticket: Ticket, held: tables.Claim
) -> bool:
    """Say whether the list needs no change: the same node again, or an older ticket of its."""
    mine = known.places.get(held.slot)
    if mine is None or mine.peer_id != ticket.peer_id:
        return False
    if mine.expires_at_ms > ticket.expires_at_ms:
        return True
    fresh = call.now - held.seen_at < service.settings.ticket_again_s
    lasting = mine.expires_at_ms == ticket.expires_at_ms or (
        mine.expires_at_ms > (call.clock + LASTING_S) * 1000
    )
    return fresh and lasting


def _place(
    service: Service,
    call: Call,
    known: _Listing,
    ticket: Ticket,
    held: tables.Claim | None,
    *,
    since: int,
) -> str:
    """Choose a place: one's own, a free one, or one whose ticket has to make way; or none."""
    half = service.settings.tickets_kept // 2
    mine = known.places.get(held.slot) if held else None
    own = mine.slot if mine is not None and mine.peer_id == ticket.peer_id else ""
    if own.startswith(LONG):
        return own
    if call.now - since >= LONG_LIVED_S:
        long = _free(service, known, LONG, half)
        if long:
            return long
        youngest = max(_of(known, LONG), key=lambda slot: slot.since)
        if youngest.since > since:
            return youngest.slot
    if own:
        return own
    free = _free(service, known, NEW, service.settings.tickets_kept - half)
    if free:
        return free
    oldest = min(_of(known, NEW), key=lambda slot: slot.received_at)
    age_s = max(0.0, call.clock - oldest.received_at)
    chance = int.from_bytes(service.entropy(2), "big") / 65536
    return oldest.slot if age_s >= TURNOVER_S or chance < age_s / TURNOVER_S else ""


def _fill(
    service: Service,
    call: Call,
    community: str,
    known: _Listing,
    ticket: Ticket,
    *,
    slot: str,
    since: int,
    held: tables.Claim | None,
) -> None:
    kept = tables.Slot(
        slot=slot,
        peer_id=ticket.peer_id,
        since=since,
        received_at=call.clock,
        expires_at_ms=ticket.expires_at_ms,
        ticket=msgspec.Raw(msgspec.json.encode(ticket.to_json())),
    )
    tables.save_slot(service.stores, community, kept)
    left = known.places.get(held.slot) if held and held.slot != slot else None
    if left is not None and left.peer_id == ticket.peer_id:
        tables.drop_slot(service.stores, community, left, now=call.now)
        known.places.pop(left.slot, None)
    known.places[slot] = kept


def _free(service: Service, known: _Listing, kind: str, count: int) -> str:
    """Choose a free place at random, so that two who come at once seldom choose the same."""
    free = [name for n in range(count) if (name := f"{kind}{n:04d}") not in known.places]
    if not free:
        return ""
    return free[int.from_bytes(service.entropy(2), "big") % len(free)]


def _of(known: _Listing, kind: str) -> list[tables.Slot]:
    return [slot for slot in known.places.values() if slot.slot.startswith(kind)]


def _listing(service: Service, call: Call, community: str) -> _Listing:
    listed: _Listing | None = service.listings.recall(community, now=call.now)
    if listed is None:
        most = service.settings.tickets_kept
        found = tables.slots(service.stores, community, limit=most, now=call.now)
        listed = _Listing({slot.slot: slot for slot in found})
        service.listings.keep(community, listed, until=call.now + REMEMBERED_S)
    now_ms = call.clock * 1000
    over = [name for name, slot in listed.places.items() if slot.expires_at_ms <= now_ms]
    for name in over:
        del listed.places[name]
    return listed


def _answer(
    service: Service, call: Call, community: str, *, without: str | None = None
) -> records.Tickets:
    listed = _listing(service, call, community)
    others = (slot for slot in listed.places.values() if slot.peer_id != without)
    return records.Tickets(ok=True, peers=_chosen(service, call, others))


def _chosen(service: Service, call: Call, places: Iterable[tables.Slot]) -> tuple[msgspec.Raw, ...]:
    """Choose what is listed: half of it long-lived nodes if there are so many, newest first."""
    most = service.settings.tickets_listed
    live = [slot for slot in places if slot.expires_at_ms > call.clock * 1000]
    live.sort(key=lambda slot: slot.received_at, reverse=True)
    long = [slot for slot in live if slot.slot.startswith(LONG)]
    new = [slot for slot in live if slot.slot.startswith(NEW)]
    kept_new = min(len(new), max(most - len(long), most - most // 2))
    chosen = new[:kept_new] + long[: most - kept_new]
    seen: set[str] = set()
    unique = [s for s in chosen if not (s.peer_id in seen or seen.add(s.peer_id))]  # type: ignore[func-returns-value]
    unique.sort(key=lambda slot: slot.received_at, reverse=True)
    return tuple(slot.ticket for slot in unique)


def _note_community(service: Service, call: Call, community: str) -> None:
    """Note that a community is alive, so that it is published; a few hundred at the most.

    Whoever comes when there are so many is served as well, and only not published.
    The usual community and those that the operator named always have their place.
    """
    if service.heard.recall("community#" + community, now=call.now):
        return
    chosen = service.settings
    known = tables.communities(service.stores, limit=2 * chosen.communities, now=call.now)
    named = {MAINNET, *chosen.listed("community_names"), *known}
    if community in named or len(known) < chosen.communities:
        tables.save_community(service.stores, community, until=call.now + COMMUNITY_S)
    service.heard.keep("community#" + community, True, until=call.now + COMMUNITY_S // 4)
