"""Beacon: takes signed tickets of a community and lists the freshest.

The dialect is the rendezvous mesh's (docs/formats.md): milliseconds, camelCase,
the community in the query, a bad ticket answered 200 with its reason, and a
caller over its limit answered with peers, because existing clients count
anything else as a beacon that failed.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import msgspec

from capsules import ticket as tickets
from capsules.errors import Refused as TicketRefused
from capsules.fields import COMMUNITY
from capsules.ticket import Ticket
from chalicelib import access, network, tables
from chalicelib.call import Call
from chalicelib.community.places import Applicant, Place, Places, pick, remembered
from chalicelib.community.shares import NEW
from chalicelib.service import Service
from muster.errors import InvalidRequest
from muster.felund import records

MAINNET = access.USUAL_COMMUNITY

COMMUNITY_S = 1200
"""How long after its last ticket a community is still looked at for publishing."""

TAKEN = "PEER_ID_TAKEN"

KEPT_S = 24 * 3600
"""How long after its last ticket a peer id still belongs to its first key."""

OVER_LISTED = 8
"""How many tickets a caller over its limit is told: enough to meet somebody."""


def announce(service: Service, call: Call, ask: records.Announce) -> records.Tickets:
    """Take a node's ticket, if it is good, and tell it who else is there."""
    community = _community(service, call, ask.community)
    ticket = _ticket(ask)
    reason = _judge(service, call, ticket)
    if reason is None:
        reason = _keep(service, call, community, ticket)
    if reason not in (None, TAKEN):
        return _refused(reason, ())
    known = Places(service, community, clock=call.clock)
    listed = _listed(service, call, known, without=ticket.peer_id)
    return records.Tickets(ok=True, peers=listed) if reason is None else _refused(reason, listed)


def peers(service: Service, call: Call, ask: records.ListTickets) -> records.Tickets:
    """List a community's freshest tickets."""
    known = Places(service, _community(service, call), clock=call.clock)
    return records.Tickets(ok=True, peers=_listed(service, call, known))


def listing(service: Service, call: Call) -> records.Tickets:
    """Answer a caller over its limit with the start of the list as this process knows it."""
    known = remembered(service, _community(service, call), now=call.now) or {}
    listed = _listed(service, call, known.values())
    return records.Tickets(ok=True, peers=listed[:OVER_LISTED])


def places(service: Service, community: str, *, now: int) -> Sequence[tables.Slot]:
    """Return every place of a community with its ticket, long-lived nodes first."""
    found = tables.slots(service.stores, community, limit=service.settings.tickets_kept, now=now)
    return sorted(found, key=lambda slot: (slot.slot.startswith(NEW), slot.since))


def named_in_body(named: Any) -> str:
    """Return which community a body's member means; clients send an empty text for the usual."""
    return named if isinstance(named, str) and named else MAINNET


def _community(service: Service, call: Call, named: Any = None) -> str:
    """Return the community: from the query, else as the body names it, else the usual one."""
    name = call.query.get("community", named_in_body(named))
    if not COMMUNITY.fullmatch(name):
        raise InvalidRequest(
            "community: expected 1 to 64 letters, digits, dots, dashes and underscores"
        )
    access.named(service, call, name)
    served = service.settings.community_names
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
    settings = service.settings
    rules = tickets.Rules(
        max_lifetime_ms=settings.ticket_max_ttl_s * 1000,
        trusted=settings.trusted_ticket_keys,
        revoked=settings.revoked_ticket_keys,
    )
    try:
        ticket.verify(now_ms=int(call.clock * 1000), rules=rules)
    except TicketRefused as refused:
        return str(refused.reason)
    return None if tickets.listable(ticket) else "MALFORMED"


def _keep(service: Service, call: Call, community: str, ticket: Ticket) -> str | None:
    """Give a good ticket its place; return why not if the peer id is somebody else's."""
    if ticket.expires_at_ms <= call.now * 1000:
        return None  # good by the clocks' tolerance, and over before it can be listed
    claim = tables.claim(service.stores, community, ticket.peer_id, now=call.now)
    if claim is not None and claim.key != ticket.verify_key.to_base64():
        return TAKEN
    applicant = Applicant(ticket, claim, network.neighbours(call.source_ip), call.clock)
    _note_community(service, call, community)
    known = Places(service, community, clock=call.clock)
    if known.is_current(applicant):
        return None
    place = known.choose(applicant)
    if not _claim(service, community, applicant, place):
        return TAKEN
    if place:
        known.fill(place, applicant)
    return None


def _claim(service: Service, community: str, applicant: Applicant, place: Place | None) -> bool:
    """Claim the peer id, or go on holding it; False if another key was faster."""
    stores, peer_id = service.stores, applicant.ticket.peer_id
    claim = applicant.claiming(place.name if place else "", kept_s=_kept_s(service, applicant))
    if applicant.claim is not None:
        tables.keep_claim(stores, community, peer_id, claim)
        return True
    if tables.take_claim(stores, community, peer_id, claim, now=applicant.now):
        return True
    other = tables.claim(stores, community, peer_id, now=applicant.now)
    return other is None or other.key == claim.key


def _kept_s(service: Service, applicant: Applicant) -> int:
    """Return how long a peer id is to be remembered: a day, or not at all.

    A network can have so many remembered each day; the others are remembered while they live.
    """
    if applicant.claim is not None and applicant.claim.kept_s:
        return applicant.claim.kept_s
    now, widest = applicant.now, applicant.networks[-1]
    if service.heard.recall("names#" + widest, now=now):
        return 0
    if tables.count_name(service.stores, widest, now=now) <= service.settings.names_kept:
        return KEPT_S
    service.heard.keep("names#" + widest, True, until=(now // tables.DAY_S + 1) * tables.DAY_S)
    return 0


def _listed(
    service: Service, call: Call, slots: Iterable[tables.Slot], *, without: str | None = None
) -> tuple[msgspec.Raw, ...]:
    settings = service.settings
    listed = pick(
        (slot for slot in slots if slot.peer_id != without),
        most=settings.tickets_listed,
        share=settings.network_places,
        clock=call.clock,
        first=int.from_bytes(service.entropy(2), "big"),
    )
    return tuple(slot.ticket for slot in listed)


def _refused(reason: str | None, peers: tuple[msgspec.Raw, ...]) -> records.Tickets:
    validation = records.Validation(reason=reason or "")
    return records.Tickets(ok=False, peers=peers, validation=validation)


def _note_community(service: Service, call: Call, community: str) -> None:
    """Note that a community is alive, so that it is published; a few hundred at the most.

    Whoever comes when there are so many is served as well, and only not published.
    The usual community and those that the operator named always have their place.
    """
    service.wake("publish")
    if service.heard.recall("community#" + community, now=call.now):
        return
    settings = service.settings
    known = tables.communities(service.stores, limit=2 * settings.communities, now=call.now)
    named = {MAINNET, *settings.community_names, *known}
    if community in named or len(known) < settings.communities:
        tables.save_community(service.stores, community, until=call.now + COMMUNITY_S)
    service.heard.keep("community#" + community, True, until=call.now + COMMUNITY_S // 4)
