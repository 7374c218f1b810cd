"""Access: whose circles and which communities a closed service serves.

A service is open, closed, or, as it comes, open to calls that cannot have come from
another machine and closed to all others; only hosts can tell those apart (`Call.outside`).
Where it is closed, whoever was not let in is refused before a body is parsed: that costs
no write, and at most one read; where few circles are let in they are all read at once,
and what strangers call then costs no read at all. What is looked for in an unparsed body
is a first guess; `confirm` decides once the call has been read.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from typing import Any

from chalicelib import tables
from chalicelib.call import Call
from chalicelib.service import Service
from chalicelib.settings import Settings
from chalicelib.store import Item
from muster.errors import NotAllowed

Knock = Callable[[Service, Call], None]
"""What a route asks of a call before anything is parsed; raises `NotAllowed`."""

USUAL_COMMUNITY = "mainnet"
"""Which community is meant by a call that names none."""

SEARCHED_BYTES = 4096
"""How much of a body's beginning and of its end is searched for a name."""

REFUSED_S = 10
"""How long a process remembers that a circle was not let in, at the most."""

READ_AT_ONCE = 16
"""So many circles are read at once, for one read unit; then no stranger's name is looked up."""

MOST_CODES = 64
"""So many access codes are looked at: a stranger's guess costs no more hashes than that."""

MORE_S = 3600
"""How long a process remembers that there are more, and looks up one by one."""

_LIST = "who is let in"
_CIRCLE = re.compile(rb'"circle_hint"\s*:\s*"([!-~]{8,128}?)"')
_COMMUNITY = re.compile(rb'"community"\s*:\s*"([!-~]{1,64}?)"')


def closed(service: Service, call: Call) -> bool:
    """Say whether the service is closed to strangers who make such a call."""
    chosen = service.settings.access
    return chosen == "closed" or (chosen != "open" and call.outside)


def let_in(service: Service, call: Call, circle_hint: str) -> None:
    """Refuse a call about a circle that was not let in, where the service is closed."""
    if closed(service, call) and not _known(service, circle_hint, now=call.now):
        raise NotAllowed


def opened_by(service: Service, call: Call, matches: Callable[[str], bool]) -> bool:
    """Say whether an access code that opens the service is the one that *matches*."""
    return any(matches(code) for code in _codes(service, now=call.now))


def named(service: Service, call: Call, community: str) -> None:
    """Refuse a call about a community that the operator did not name, where it is closed."""
    if closed(service, call) and community not in service.settings.community_names:
        raise NotAllowed


def confirm(service: Service, call: Call, ask: Any) -> None:
    """Refuse what a call, now that it has been read, turns out to be about."""
    circle_hint = getattr(ask, "circle_hint", None)
    if circle_hint is not None:
        let_in(service, call, circle_hint)


def published(settings: Settings, communities: Iterable[str]) -> list[str]:
    """Return those communities that may be published."""
    closed = settings.access == "closed"
    return [name for name in communities if not closed or name in settings.community_names]


# --- what routes ask before anything is parsed ------------------------------------------


def anyone(service: Service, call: Call) -> None:
    """Let every call go on: it costs nothing, or its guard asks for a token."""


def circle(service: Service, call: Call) -> None:
    """Let a call go on that names a circle that was let in."""
    let_in(service, call, _said(call, "circle_hint", _CIRCLE) or "")


def any_circle(service: Service, call: Call) -> None:
    """Let a call go on that names such a circle, or none: its guard decides about that one."""
    circle_hint = call.query.get("circle_hint")
    if circle_hint is not None:
        let_in(service, call, circle_hint)


def community(service: Service, call: Call) -> None:
    """Let a call go on that is about a community that the operator named."""
    name = call.query.get("community") or _said(call, "community", _COMMUNITY)
    named(service, call, name or USUAL_COMMUNITY)


def _said(call: Call, name: str, pattern: re.Pattern[bytes]) -> str | None:
    """Return what a call names, in its query or, as far as can be seen, in its body."""
    if call.method == "GET":
        return call.query.get(name)
    body, tail = call.body, max(len(call.body) - SEARCHED_BYTES, SEARCHED_BYTES)
    for part in (body[:SEARCHED_BYTES], body[tail:]):
        found = pattern.search(part)
        if found:
            return found[1].decode()
    return None


def _codes(service: Service, *, now: int) -> tuple[str, ...]:
    """Return the access codes; they are read together, for one read unit, and remembered."""
    known = service.codes.recall(_LIST, now=now)
    if known is None:
        known = tables.codes(service.stores, limit=MOST_CODES, now=now)
        service.codes.keep(_LIST, known, until=now + min(service.believed_s, REFUSED_S))
    return known


def _known(service: Service, circle_hint: str, *, now: int) -> bool:
    if service.let_in.recall(circle_hint, now=now):
        return True
    read_all = service.heard.recall(_LIST, now=now)
    if not circle_hint or read_all or service.kept_out.recall(circle_hint, now=now):
        return False
    until = now + min(service.believed_s, REFUSED_S)
    if read_all is None:
        items = tables.few_allowed(service.stores, most=READ_AT_ONCE, now=now)
        if items is not None:
            service.heard.keep(_LIST, True, until=until)
            _believe(service, items, now=now)
            return any(item.sk == circle_hint for item in items)
        service.heard.keep(_LIST, False, until=now + MORE_S)
    item = tables.allowed(service.stores, circle_hint, now=now)
    if item is None:
        service.kept_out.keep(circle_hint, True, until=until)
        return False
    _believe(service, (item,), now=now)
    return True


def _believe(service: Service, items: Iterable[Item], *, now: int) -> None:
    for item in items:
        until = min(now + service.believed_s, item.expires_at)
        service.let_in.keep(item.sk, True, until=until)
