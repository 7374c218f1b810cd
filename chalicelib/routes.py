"""Routes: the whole HTTP API as a table on one screen."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

from chalicelib import about, beacon, mailbox, presence, relay, signals
from chalicelib.auth import Guard, anyone, member, owner, signed
from muster import records


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
)

PATHS: dict[str, dict[str, Route]] = {}
for _route in ROUTES:
    PATHS.setdefault(_route.path, {})[_route.method] = _route
