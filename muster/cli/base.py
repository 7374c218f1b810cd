"""Base: which service a command talks to."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from muster import urls
from muster.cli.output import Failure, Misuse

if TYPE_CHECKING:
    from muster.felund.circle import Circle
    from muster.felund.client import Client
    from muster.invites import ServiceAddress

HERE = "http://127.0.0.1:8787"

PATIENCE_S = 2.0
"""How long a service may take to say that it is there, where that is not what was asked for."""


def base_url(named: str | None) -> str:
    """Return the service's base URL: as named, from ``MUSTER_BASE``, or on this machine.

    Of a whole address, with the service's id and perhaps an access code, it is the first part.
    """
    from muster.errors import BadValue
    from muster.felund.exchange import service_url

    text = base_named(named)
    try:
        if (found := whole_address(text)) is not None:
            return found.url
        return service_url(text)
    except BadValue as error:
        raise Misuse(error.message, error.hint) from None


def base_named(named: str | None) -> str:
    """Return what names the service: as named, in ``MUSTER_BASE``, or on this machine."""
    return named or os.environ.get("MUSTER_BASE") or HERE


def whole_address(text: str) -> ServiceAddress | None:
    """Read the address that a service prints; None for a URL alone. Raises `BadValue`."""
    from muster.invites import ServiceAddress

    return ServiceAddress.parse(text) if "#" in text else None


def open_client(
    base: str, circle: Circle, node_id: str, *, attempts: int = 1, timeout_s: float = 10.0
) -> Client:
    """Return a client that soon says what is wrong: somebody waits for the answer."""
    from muster.backoff import Backoff
    from muster.errors import BadValue
    from muster.felund.client import Client

    backoff = Backoff(attempts=attempts)
    try:
        return Client(base, circle, node_id, backoff=backoff, timeout_s=timeout_s)
    except BadValue as error:
        raise Misuse(error.message, error.hint) from None


@contextmanager
def explained(base: str, circle_hint: str = "") -> Iterator[None]:
    """Turn what a service refuses a circle, or the network, into a line with a hint."""
    from muster.cli import hints
    from muster.errors import Refused
    from muster.felund.sockets import Unreachable

    try:
        yield
    except (Refused, Unreachable) as error:
        raise hints.explain(error, base, circle_hint) from None


def silence(base: str) -> Failure | None:
    """Return why no service answers at a URL, or None if one does; never waits long.

    The thread is left behind if need be: a look-up in a broken DNS cannot be cancelled.
    """
    from muster.cli import hints

    found: list[Failure | None] = []

    def ask() -> None:
        try:
            _ask(base)
        except Exception as error:
            found.append(hints.explain(error, base))
        else:
            found.append(None)

    asking = threading.Thread(target=ask, daemon=True)
    asking.start()
    asking.join(PATIENCE_S + 0.5)
    return found[0] if found else hints.explain(TimeoutError(), base)


def _ask(base: str) -> None:
    import httpx2
    import msgspec

    from muster import network
    from muster.felund.exchange import BadReply
    from muster.felund.records import Health
    from muster.felund.sockets import Unreachable

    try:
        url = f"{base}/v1/health"
        reply = httpx2.get(url, timeout=PATIENCE_S, **network.options(url))
        msgspec.json.decode(reply.content, type=Health)
    except httpx2.HTTPError as error:
        raise Unreachable(f"cannot reach {base}: {error}") from error
    except msgspec.MsgspecError:
        raise BadReply(f"{base} does not answer as Muster does") from None


def is_closed(base: str) -> bool:
    """Say whether a service that answers serves only circles that were let in."""
    import httpx2

    from muster import network

    try:
        url = f"{base}/v1/info"
        told = httpx2.get(url, timeout=PATIENCE_S, **network.options(url)).json()
    except (httpx2.HTTPError, ValueError):
        return False
    return isinstance(told, dict) and told.get("open") is False


def is_this_machine(base: str) -> bool:
    """Say whether a URL means nothing on another machine."""
    return urls.this_machine(urlsplit(base).hostname or "")
