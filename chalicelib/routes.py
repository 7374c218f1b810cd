"""Routes: the whole HTTP API as a table on one screen."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from functools import cached_property
from typing import TYPE_CHECKING, Any

from chalicelib import about, access
from chalicelib.auth import anyone, member, owner, signed
from chalicelib.circle import mailbox, presence, relay, signals
from chalicelib.route import Route
from muster.felund import records

__all__ = ["EARLY", "PATHS", "ROUTES", "Route"]

EARLY = (
    Route(
        "GET",
        "/v1/health",
        anyone,
        records.Nothing,
        about.health,
        records.Health,
        knock=access.anyone,
    ),
    Route(
        "GET", "/v1/info", anyone, records.Nothing, about.info, records.Info, knock=access.anyone
    ),
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
    Route(
        "GET",
        "/v1/signal",
        member,
        records.PollSignals,
        signals.poll,
        records.Signals,
        knock=access.any_circle,
    ),
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
)
"""What nearly every call wants; the rest is loaded with the first call of it."""

if TYPE_CHECKING:
    ROUTES: tuple[Route, ...]


class _Late(Mapping[str, Route]):
    """The methods of a path that few call: what they need is loaded when one is called."""

    def __init__(self, path: str, routes: Callable[[], tuple[Route, ...]]) -> None:
        self._path, self._routes = path, routes

    @cached_property
    def _methods(self) -> dict[str, Route]:
        return {route.method: route for route in self._routes() if route.path == self._path}

    def __getitem__(self, method: str) -> Route:
        return self._methods[method]

    def __iter__(self) -> Iterator[str]:
        return iter(self._methods)

    def __len__(self) -> int:
        return len(self._methods)


def _beacon() -> tuple[Route, ...]:
    from chalicelib.community import routes

    return routes.ROUTES


def _assist() -> tuple[Route, ...]:
    from chalicelib.assist import routes

    return routes.ROUTES


def _version2() -> tuple[Route, ...]:
    from chalicelib.circle import routes

    return routes.ROUTES


def __getattr__(name: str) -> Any:
    if name == "ROUTES":
        return EARLY + _beacon() + _assist() + _version2()
    raise AttributeError(f"module 'chalicelib.routes' has no attribute {name!r}")


PATHS: dict[str, Mapping[str, Route]] = {}
for _route in EARLY:
    PATHS[_route.path] = {**PATHS.get(_route.path, {}), _route.method: _route}
for _path in ("/announce", "/peers"):
    PATHS[_path] = _Late(_path, _beacon)
for _path in ("/v1/session", "/api/p2p/assist"):
    PATHS[_path] = _Late(_path, _assist)
for _path in ("/v2/sync", "/v2/info"):
    PATHS[_path] = _Late(_path, _version2)
