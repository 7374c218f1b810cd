"""Proved: the guard of version 2. Whoever calls shows who vouches for it, and signs the call.

The service knows nothing of the circle beforehand: its name is the hash of the key that
vouches (muster/calls.py). So a good signature earns a name and nothing else, and what strangers
make is bounded by addresses, by access, and by what is kept.
"""

from __future__ import annotations

import hashlib
import hmac
from typing import Any

from capsules.errors import Reason
from capsules.errors import Refused as NotBelieved
from capsules.keys import VerifyKey
from chalicelib import access
from chalicelib.auth import Guard, Proof
from chalicelib.call import Call, Caller, Reply
from chalicelib.service import Service
from muster import calls, keys
from muster.calls import Authorization, Credential
from muster.errors import (
    ExpiredTimestamp,
    InvalidRequest,
    InvalidSignature,
    NotAllowed,
    Refused,
)
from muster.structs import Record

BELIEVED_S = 3600
"""How long a process remembers that a credential is good, at the most."""

ASKS = "this service is closed and asks for an access code; who runs it has its whole address"

_HEADER = "authorization"


class _Proved(Guard):
    """Lets nodes in that prove who they are; *name* is what they sign as the name of the call."""

    def __init__(self, name: str, *, unproved: bool = False) -> None:
        self._name, self._unproved = name, unproved

    def meet(self, service: Service, call: Call) -> None:
        proved = _HEADER in call.headers or not self._unproved
        proof = _header(call).proof if proved else None
        if call.query:
            raise InvalidRequest("a call of version 2 has no query; what it asks is in the body")
        if proof is None:
            call.stamp = _Stamp(service, call, b"")
            return
        if abs(_now_ms(call) - proof.at_ms) > calls.WINDOW_MS:
            call.stamp = _Stamp(service, call, proof.raw)
            raise ExpiredTimestamp(
                "at_ms of the proof differs from the service's clock by more than two minutes; "
                "Muster-Answer has the service's time"
            )

    def wants(self, ask: type[Record]) -> None:
        return None

    def check(self, service: Service, call: Call, named: Any) -> Proof | None:
        if self._unproved and _HEADER not in call.headers:
            return None
        header = _header(call)
        try:
            credential = _believed(service, call, header.credential)
            header.proof.check(
                credential, call=self._name, service=service_id(service, call), body=call.body
            )
        except NotBelieved as error:
            raise _refusal(error) from None
        call.stamp = _Stamp(service, call, header.proof.raw)
        circle = circle_of(credential.hint)
        call.caller = Caller(circle, credential.node_id.hex(), credential.circle.raw)
        return Proof(circle, b"", None, "", header.proof.at_ms // 1000)

    def admit(self, service: Service, call: Call, ask: Any, proof: Proof | None) -> None:
        if call.caller is not None:
            service.limits.spend_node(call.caller.circle, call.caller.node_id, clock=call.clock)


sync = _Proved(calls.SYNC)
"""Lets a node in that proves a sync."""

info = _Proved(calls.INFO, unproved=True)
"""Lets everybody in; whoever proves the call has the answer signed for it."""


opening = _Proved(calls.OPEN)
"""Lets a node open a socket."""

syncing = _Proved(calls.FRAME)
"""Lets a node sync on its socket."""


def circle_of(hint: bytes) -> str:
    """Return what stores and limits call a circle of version 2.

    Version 1's hints hold no space, so that neither version reaches the other's circles.
    """
    return f"2 {hint.hex()}"


def knock(service: Service, call: Call) -> None:
    """Let a call go on that shows an access code, or whose circle was let in by its name."""
    header = _header(call)
    credential = _credential(header.credential)
    if header.tag:
        ours = service_id(service, call)

        def matches(code: str) -> bool:
            return hmac.compare_digest(calls.access_tag(code, ours, credential), header.tag)

        if access.opened_by(service, call, matches):
            return
    try:
        access.let_in(service, call, circle_of(credential.hint))
    except NotAllowed:
        raise NotAllowed(ASKS) from None


def service_id(service: Service, call: Call) -> bytes:
    """Return the service's id, which stands in its address."""
    return keys.service_id(VerifyKey(service.signer(now=call.now).verify_key))


def at_ms(call: Call) -> int:
    """Return when a call says that it was signed; a guard has checked it."""
    return _header(call).proof.at_ms


class _Stamp:
    """Signs the answer to a call, once that is there."""

    __slots__ = ("_at_ms", "_proof", "_service")

    def __init__(self, service: Service, call: Call, proof: bytes) -> None:
        self._service, self._at_ms, self._proof = service, _now_ms(call), proof

    def __call__(self, reply: Reply) -> None:
        """Put the header on a reply."""
        signer = self._service.signer(now=self._at_ms // 1000)
        lines = calls.answer_lines(
            self._proof, status=reply.status, body=reply.body, at_ms=self._at_ms
        )
        answer = calls.Answer(VerifyKey(signer.verify_key), self._at_ms, signer.sign(lines))
        reply.headers[calls.ANSWER] = answer.header


def _header(call: Call) -> Authorization:
    if isinstance(call.seen, Authorization):
        return call.seen
    text = call.headers.get(_HEADER, "")
    if not text:
        raise InvalidSignature("a call of version 2 has an Authorization header: docs/protocol2.md")
    try:
        call.seen = header = Authorization.parse(text)
    except NotBelieved as error:
        raise InvalidRequest(f"Authorization: {error.message}") from None
    return header


def _credential(raw: bytes) -> Credential:
    try:
        return Credential.from_bytes(raw)
    except NotBelieved as error:
        raise InvalidRequest(f"Authorization: {error.message}") from None


def _believed(service: Service, call: Call, raw: bytes) -> Credential:
    """Return a credential that is good; one that was good is, until it expires."""
    credential = _credential(raw)
    name = hashlib.sha256(raw).hexdigest()
    if service.vouched.recall(name, now=call.now):
        credential.check_time(now_ms=_now_ms(call))
        return credential
    credential.check(now_ms=_now_ms(call))
    until = min(call.now + BELIEVED_S, credential.expires_ms // 1000)
    service.vouched.keep(name, True, until=until)
    return credential


def _refusal(error: NotBelieved) -> Refused:
    if error.reason == Reason.MALFORMED:
        return InvalidRequest(f"Authorization: {error.message}")
    return InvalidSignature(error.message)


def _now_ms(call: Call) -> int:
    return int(call.clock * 1000)
