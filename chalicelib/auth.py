"""Guards of circles: who may make a call.

First everything that costs nothing is checked, then the signature, and only
then is the nonce spent: a stranger's call writes nothing.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Callable
from typing import Any

from chalicelib import tables
from chalicelib.call import Call
from chalicelib.service import Service
from chalicelib.settings import DAY_S
from chalicelib.store import Item
from muster.errors import (
    ExpiredTimestamp,
    InvalidRequest,
    InvalidSignature,
    NonceReplay,
)
from muster.felund import records, signing

Guard = Callable[[Service, Call, Any], None]

_NODE = re.compile(r"[!-~]{8,128}")

UNSIGNED_TOLD_S = 3600
"""How often a process tells its log that unsigned calls come, and are refused."""

_ALLOWS = "for clients that do not sign, start it with --unsigned allow or MUSTER_UNSIGNED=allow"
_log = logging.getLogger("muster")

BELIEVED_S = 300
"""How long a process believes a pinned key it has read; a live pin never changes."""


def anyone(service: Service, call: Call, ask: Any) -> None:
    """Let everybody in."""


def member(service: Service, call: Call, ask: Any) -> None:
    """Let a member of the circle in; an unsigned call only where the operator allows it."""
    if signing.is_signed(call.headers):
        _verify(service, call, ask)
    else:
        _allow_unsigned(service, call)


def owner(service: Service, call: Call, ask: Any) -> None:
    """Let a member in; a circle with a pinned key never accepts an unsigned call here."""
    if signing.is_signed(call.headers):
        _verify(service, call, ask)
        return
    _allow_unsigned(service, call)
    if _pinned(service, ask.circle_hint, now=call.now) is not None:
        raise InvalidSignature("this circle has a request key; sign the call with it")


def signed(service: Service, call: Call, ask: Any) -> None:
    """Let a member in who signs, whatever the policy."""
    if not signing.is_signed(call.headers):
        raise InvalidSignature("this call must be signed: send the four X-Felund headers")
    _verify(service, call, ask)


def _allow_unsigned(service: Service, call: Call) -> None:
    if service.settings.unsigned == "refuse":
        if not service.heard.recall("unsigned", now=call.now):
            service.heard.keep("unsigned", True, until=call.now + UNSIGNED_TOLD_S)
            _log.warning("refused an unsigned call; %s", _ALLOWS)
        raise InvalidSignature(
            f"this service refuses unsigned calls: send the four X-Felund headers; {_ALLOWS}"
        )


def _verify(service: Service, call: Call, ask: Any) -> None:
    timestamp, nonce, claimed = _headers(call)
    actor = _actor(ask)
    if actor is not None and actor != call.node_id:
        raise InvalidSignature("X-Felund-Node is not the node that the call speaks for")
    signed_at = int(timestamp)
    if abs(call.now - signed_at) > signing.WINDOW_S:
        raise ExpiredTimestamp(
            f"X-Felund-Ts differs from the service's clock by more than {signing.WINDOW_S} s; "
            "read the time from /v1/health and sign again"
        )
    circle_hint = _circle(ask)
    brought = getattr(ask, "signing_key", None)
    pinned = _pinned(service, circle_hint, now=call.now)
    key = pinned.body if pinned else (bytes.fromhex(brought) if brought else None)
    if key is None:
        raise InvalidSignature("no request key is pinned for this circle; register first")
    path = call.path.removeprefix("/v1")
    expected = signing.sign(key, call.method, path, call.body, timestamp=timestamp, nonce=nonce)
    if not signing.matches(expected, claimed):
        raise InvalidSignature("the signature does not match this circle's request key")
    if brought and bytes.fromhex(brought) != key:
        raise InvalidSignature("signing_key is not this circle's pinned request key")
    service.limits.spend_node(circle_hint, call.node_id, clock=call.clock)
    if not tables.spend(service.stores, circle_hint, nonce, signed_at=signed_at, now=call.now):
        raise NonceReplay("the nonce was used before; sign again with a new one")
    _keep_pin(service, call, circle_hint, pinned, key)


def _headers(call: Call) -> tuple[str, str, str]:
    """Return time, nonce and signature of a signed call, each in its one form."""
    found = [
        call.headers.get(name, "")
        for name in (signing.NODE, signing.TIME, signing.NONCE, signing.SIGNATURE)
    ]
    if not all(found):
        raise InvalidSignature("a signed call has all four X-Felund headers")
    node_id, timestamp, nonce, claimed = found
    if not _NODE.fullmatch(node_id):
        raise InvalidRequest("X-Felund-Node is not 8 to 128 printable characters without space")
    if not signing.TIME_PATTERN.fullmatch(timestamp):
        raise InvalidRequest("X-Felund-Ts is not a Unix time in seconds, ten decimal digits")
    if not signing.NONCE_PATTERN.fullmatch(nonce):
        raise InvalidRequest(
            "X-Felund-Nonce is not 8 to 128 printable characters; 32 hex digits are usual"
        )
    return timestamp, nonce, claimed


def _actor(ask: Any) -> str | None:
    """Return the node that a record speaks for, if it names one."""
    if isinstance(ask, records.LeaveSignal):
        return ask.from_node_id
    if isinstance(ask, records.PollSignals):
        return ask.to_node_id
    named: str | None = getattr(ask, "node_id", None)
    return named


def _circle(ask: Any) -> str:
    circle_hint: str | None = ask.circle_hint
    if circle_hint is None:
        raise InvalidRequest("circle_hint: a signed call names the circle it is signed for")
    return circle_hint


def _pinned(service: Service, circle_hint: str, *, now: int) -> Item | None:
    """Return the circle's pinned key with its expiry."""
    item = service.pins.recall(circle_hint, now=now)
    if item is None:
        item = tables.pinned(service.stores, circle_hint, now=now)
        if item is not None:
            service.pins.keep(circle_hint, item, until=min(now + BELIEVED_S, item.expires_at))
    return item


def _keep_pin(
    service: Service, call: Call, circle_hint: str, pinned: Item | None, key: bytes
) -> None:
    """Pin the key of the circle's first valid registration, and let a pin in use live on.

    A pin that is used is written again at most once a day.
    """
    now = call.now
    until = now + service.settings.pin_s
    if pinned is None:
        service.quotas.add_circle(call.source_ip, clock=call.clock)
        if tables.pin(service.stores, circle_hint, key, until=until, now=now):
            return
        item = tables.pinned(service.stores, circle_hint, now=now)
        if item is None or item.body != key:
            raise InvalidSignature("another request key was pinned for this circle first")
    elif until - pinned.expires_at >= DAY_S:
        tables.keep_pin(service.stores, circle_hint, key, until=until)
        service.pins.forget(circle_hint)
