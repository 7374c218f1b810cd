"""Routes: the whole HTTP API as a table on one screen."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

from chalicelib import about, assist, beacon, mailbox, presence, relay, signals
from chalicelib.auth import Guard, anyone, bearer, member, owner, signed
from muster import assist_records, records
from muster.errors import Refused


class Route(NamedTuple):
    """One endpoint: who may call it, what it reads, what it does, what it answers."""

    method: str
    path: str
    guard: Guard
    ask: type[records.Record]
    use: Callable[..., Any]
    answer: type[records.Record]
    over: Callable[..., Any] | None = None
    """What a caller over its address's limit is answered instead of a refusal."""
    unasked: Callable[..., Any] | None = None
    """What a call with an empty body uses; without it, a body must be there."""
    refusal: Callable[[Refused], Any] | None = None
    """How the path writes refusals, as problem+json, if its clients know another form."""
    body_bytes: str = "body_bytes"
    """The setting that says how large a body may be."""


ROUTES = (
    Route("GET", "/v1/health", anyone, records.Nothing, about.health, records.Health),
    Route("GET", "/v1/info", anyone, records.Nothing, about.info, records.Info),
    Route("POST", "/v1/register", owner, records.Register, presence.register, records.Registered),
    Route(
        "DELETE",
        "/v1/register",
        owner,
        records.Unregister,
        presence.unregister,
        records.Unregistered,
    ),
    Route("GET", "/v1/peers", owner, records.ListPeers, presence.peers, records.Peers),
    Route(
        "POST", "/v1/messages", member, records.LeaveMessages, mailbox.leave, records.MessagesLeft
    ),
    Route("GET", "/v1/messages", member, records.PollMessages, mailbox.poll, records.Messages),
    Route("POST", "/v1/signal", member, records.LeaveSignal, signals.leave, records.SignalLeft),
    Route("GET", "/v1/signal", member, records.PollSignals, signals.poll, records.Signals),
    Route(
        "POST",
        "/v1/relay/session",
        signed,
        records.OpenSession,
        relay.open_session,
        records.SessionOpened,
    ),
    Route(
        "POST",
        "/v1/relay/subscription",
        signed,
        records.OpenSubscription,
        relay.open_subscription,
        records.SubscriptionOpened,
    ),
    Route(
        "POST",
        "/announce",
        anyone,
        records.Announce,
        beacon.announce,
        records.Tickets,
        over=beacon.listing,
    ),
    Route(
        "GET",
        "/peers",
        anyone,
        records.ListTickets,
        beacon.peers,
        records.Tickets,
        over=beacon.listing,
    ),
    Route(
        "POST",
        "/v1/session",
        signed,
        assist_records.OpenAssist,
        assist.open_session,
        assist_records.AssistOpened,
    ),
    Route(
        "POST",
        "/api/p2p/assist",
        bearer,
        assist_records.AskAdvice,
        assist.advise,
        assist_records.Advice,
        unasked=assist.unasked,
        refusal=assist.problem,
        body_bytes="assist_body_bytes",
    ),
    Route(
        "GET",
        "/api/p2p/assist",
        bearer,
        records.Nothing,
        assist.unasked,
        assist_records.Advice,
        refusal=assist.problem,
    ),
)

PATHS: dict[str, dict[str, Route]] = {}
REFUSALS = {route.path: route.refusal for route in ROUTES if route.refusal}
"""Paths that write refusals in their own form."""

for _route in ROUTES:
    PATHS.setdefault(_route.path, {})[_route.method] = _route
