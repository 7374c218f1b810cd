"""Guards of circles: who may make a call.

A guard is asked three times, so that what costs nothing comes first: about the head of a
call, before its body is read; about the bytes of the body, before they are parsed, as a
signature covers them; and about what is asked. Only then is the nonce spent and the key
pinned: a stranger's call writes nothing.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Callable
from typing import Any, NamedTuple

from chalicelib import tables
from chalicelib.call import Call
from chalicelib.service import Service
from chalicelib.settings import DAY_S
from chalicelib.store import Item
from muster import structs
from muster.errors import (
    ExpiredTimestamp,
    InvalidRequest,
    InvalidSignature,
    NonceReplay,
)
from muster.felund import records, signing

_NODE = re.compile(r"[!-~]{8,128}")

UNSIGNED_TOLD_S = 3600
"""How often a process tells its log that unsigned calls come, and are refused."""

_ALLOWS = "for clients that do not sign, start it with --unsigned allow or MUSTER_UNSIGNED=allow"
_log = logging.getLogger("muster")

RENEWALS = 30
"""How often in its lifetime a pin in use is written again: once a day, if it is thirty days."""

UNSIGNED_S = DAY_S
"""How long after its last unsigned register a circle counts as used unsigned."""

BELIEVED_S = 300
"""How long a process believes a pinned key it has read; a live pin never changes."""


class Proof(NamedTuple):
    """What a valid signature proves: the circle's key; and the nonce that it was made with."""

    circle_hint: str
    key: bytes
    pinned: Item | None
    nonce: str
    signed_at: int


class Named(structs.Record, frozen=True, kw_only=True):
    """For which circle a call is."""

    circle_hint: records.CircleHint | None = None


class Bringing(Named, frozen=True, kw_only=True):
    """And which key it brings."""

    signing_key: records.RequestKey | None = None


class Guard:
    """Who may make a call; this one lets everybody in."""

    def meet(self, service: Service, call: Call) -> None:
        """Look at the head of a call; its body may not be here yet."""

    def wants(self, ask: type[structs.Record]) -> type[Named] | None:
        """Return what is to be found in a body before it is read as *ask*, if anything."""

    def check(self, service: Service, call: Call, named: Any) -> Proof | None:
        """Look at the bytes of a call, and at what is named in them."""

    def admit(self, service: Service, call: Call, ask: Any, proof: Proof | None) -> None:
        """Look at what is asked."""


class _Members(Guard):
    """Lets members of the circle in, who sign; and others as far as *unsigned* says."""

    def __init__(self, unsigned: Callable[[Service, Call], None], *, unpinned: bool = False):
        self._unsigned = unsigned
        self._unpinned = unpinned

    def meet(self, service: Service, call: Call) -> None:
        if signing.is_signed(call.headers):
            _check_head(call)
        else:
            self._unsigned(service, call)

    def wants(self, ask: type[structs.Record]) -> type[Named]:
        return Bringing if "signing_key" in ask.__struct_fields__ else Named

    def check(self, service: Service, call: Call, named: Any) -> Proof | None:
        if signing.is_signed(call.headers):
            proof = _verify(service, call, named)
            if proof is not None:
                return proof
            self._unsigned(service, call)
        elif self._unpinned:
            _refuse_pinned(service, call, named)
        return None

    def admit(self, service: Service, call: Call, ask: Any, proof: Proof | None) -> None:
        if proof is not None:
            _spend(service, call, ask, proof)


def _allow_unsigned(service: Service, call: Call) -> None:
    if service.settings.unsigned == "refuse":
        if not service.heard.recall("unsigned", now=call.now):
            service.heard.keep("unsigned", True, until=call.now + UNSIGNED_TOLD_S)
            _log.warning("refused an unsigned call; %s", _ALLOWS)
        raise InvalidSignature(
            f"this service refuses unsigned calls: send the four X-Felund headers; {_ALLOWS}"
        )


def _refuse_unsigned(service: Service, call: Call) -> None:
    raise InvalidSignature("this call must be signed: send the four X-Felund headers")


def _refuse_pinned(service: Service, call: Call, named: Any) -> None:
    if named.circle_hint and _pinned(service, named.circle_hint, now=call.now):
        raise InvalidSignature("this circle has a request key; sign the call with it")


anyone = Guard()
"""Lets everybody in."""

member = _Members(_allow_unsigned)
"""Lets a member of the circle in; an unsigned call only where the operator allows it."""

owner = _Members(_allow_unsigned, unpinned=True)
"""Lets a member in; a circle with a pinned key never accepts an unsigned call here."""

signed = _Members(_refuse_unsigned)
"""Lets a member in who signs, whatever the policy."""


# --- what a call says, before it is parsed ----------------------------------------


def _check_head(call: Call) -> None:
    """Refuse a signed call whose headers have not their one form, or another time than ours."""
    found = [
        call.headers.get(name, "")
        for name in (signing.NODE, signing.TIME, signing.NONCE, signing.SIGNATURE)
    ]
    if not all(found):
        raise InvalidSignature("a signed call has all four X-Felund headers")
    node_id, timestamp, nonce, _ = found
    if not _NODE.fullmatch(node_id):
        raise InvalidRequest("X-Felund-Node is not 8 to 128 printable characters without space")
    if not signing.TIME_PATTERN.fullmatch(timestamp):
        raise InvalidRequest("X-Felund-Ts is not a Unix time in seconds, ten decimal digits")
    if not signing.NONCE_PATTERN.fullmatch(nonce):
        raise InvalidRequest(
            "X-Felund-Nonce is not 8 to 128 printable characters; 32 hex digits are usual"
        )
    if abs(call.now - int(timestamp)) > signing.WINDOW_S:
        raise ExpiredTimestamp(
            f"X-Felund-Ts differs from the service's clock by more than {signing.WINDOW_S} s; "
            "read the time from /v1/health and sign again"
        )


def _verify(service: Service, call: Call, named: Any) -> Proof | None:
    """Check the signature over the body as it came, with the circle's key or the one it brings.

    Where nodes register unsigned there is no key that a signature could prove, and the call
    counts as an unsigned one: whoever signs first could else lock all of them out.
    """
    if named.circle_hint is None:
        raise InvalidRequest("circle_hint: a signed call names the circle it is signed for")
    brought = getattr(named, "signing_key", None)
    pinned = _pinned(service, named.circle_hint, now=call.now)
    if pinned is None and _used_unsigned(service, named.circle_hint, now=call.now):
        return None
    key = pinned.body if pinned else bytes.fromhex(brought or "")
    if not key:
        raise InvalidSignature("no request key is pinned for this circle; register first")
    timestamp, nonce = call.headers[signing.TIME], call.headers[signing.NONCE]
    path = call.path.removeprefix("/v1")
    expected = signing.sign(key, call.method, path, call.body, timestamp=timestamp, nonce=nonce)
    if not signing.matches(expected, call.headers[signing.SIGNATURE]):
        raise InvalidSignature("the signature does not match this circle's request key")
    if brought and bytes.fromhex(brought) != key:
        raise InvalidSignature("signing_key is not this circle's pinned request key")
    return Proof(named.circle_hint, key, pinned, nonce, int(timestamp))


# --- what it asks, and what is kept of it -----------------------------------------


def _spend(service: Service, call: Call, ask: Any, proof: Proof) -> None:
    actor = _actor(ask)
    if actor is not None and actor != call.node_id:
        raise InvalidSignature("X-Felund-Node is not the node that the call speaks for")
    circle_hint, now = proof.circle_hint, call.now
    service.limits.spend_node(circle_hint, call.node_id, clock=call.clock)
    if not tables.spend(
        service.stores, circle_hint, proof.nonce, signed_at=proof.signed_at, now=now
    ):
        raise NonceReplay("the nonce was used before; sign again with a new one")
    _keep_pin(service, call, circle_hint, proof.pinned, proof.key)


def _actor(ask: Any) -> str | None:
    """Return the node that a record speaks for, if it names one."""
    if isinstance(ask, records.LeaveSignal):
        return ask.from_node_id
    if isinstance(ask, records.PollSignals):
        return ask.to_node_id
    named: str | None = getattr(ask, "node_id", None)
    return named


def note_unsigned(service: Service, call: Call, circle_hint: str) -> None:
    """Note that a node has registered unsigned: for a day nobody pins a key for its circle."""
    name, until = "unsigned#" + circle_hint, call.now + UNSIGNED_S
    if signing.is_signed(call.headers) or service.heard.recall(name, now=call.now):
        return
    tables.note_unsigned(service.stores, circle_hint, until=until)
    service.heard.keep(name, True, until=until - UNSIGNED_S // 2)


def _used_unsigned(service: Service, circle_hint: str, *, now: int) -> bool:
    """Say whether nodes of a circle without a pinned key register unsigned."""
    return service.settings.unsigned == "allow" and (
        bool(service.heard.recall("unsigned#" + circle_hint, now=now))
        or tables.used_unsigned(service.stores, circle_hint, now=now)
    )


def _pinned(service: Service, circle_hint: str, *, now: int) -> Item | None:
    """Return the circle's pinned key with its expiry."""
    item = service.pins.recall(circle_hint, now=now)
    if item is None:
        item = tables.pinned(service.stores, circle_hint, now=now)
        if item is not None:
            service.pins.keep(circle_hint, item, until=min(now + BELIEVED_S, item.expires_at))
    return item


def know(service: Service, call: Call, circle: str, key: bytes) -> None:
    """Keep that a circle whose name is the hash of its key is used, and count it if it is new.

    Nothing is pinned by that, as nobody else can have the name; known circles go first where
    room or the day's share of a network ends.
    """
    _keep_pin(service, call, circle, _pinned(service, circle, now=call.now), key)


def _keep_pin(
    service: Service, call: Call, circle_hint: str, pinned: Item | None, key: bytes
) -> None:
    """Pin the key of the circle's first valid registration, and let a pin in use live on.

    A pin in use is written again after a fraction of its lifetime, however long that is.
    """
    now, lifetime_s = call.now, service.settings.pin_s
    until = now + lifetime_s
    if pinned is None:
        if tables.allowed(service.stores, circle_hint, now=now) is None:  # the operator's own
            service.quotas.add_circle(call.source_ip, clock=call.clock)
        if tables.pin(service.stores, circle_hint, key, until=until, now=now):
            return
        item = tables.pinned(service.stores, circle_hint, now=now)
        if item is None or item.body != key:
            raise InvalidSignature("another request key was pinned for this circle first")
    elif (until - pinned.expires_at) * RENEWALS >= lifetime_s:
        tables.keep_pin(service.stores, circle_hint, key, until=until)
        service.pins.forget(circle_hint)
