"""Calls and answers of version 2: who vouches for a node, what it signs, what is signed back.

A call carries one header, ``Authorization: Muster2 CREDENTIAL.PROOF[.TAG]``. The service
knows no secret: it checks a chain of two signatures that begins with the circle's name
(docs/protocol2.md, Calls). Nothing here reads a clock, and the service imports nothing else
of version 2 on the client's side.
"""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property
from typing import Self

from capsules.canonical import MAX_INTEGER
from capsules.errors import Reason, Refused
from capsules.keys import KEY_BYTES, SIGNATURE_BYTES, SigningKey, VerifyKey
from muster import base64url
from muster.keys import identify, label, node_id, service_id

SCHEME = "Muster2"
ANSWER = "Muster-Answer"
"""The header that carries the service's signature."""

SYNC, INFO, OPEN, FRAME = "POST /v2/sync", "GET /v2/info", "GET /v2/socket", "SYNC /v2/socket"
"""The names of the calls, as they are signed: gateways rewrite paths, and these stay."""

WINDOW_MS = 120_000
"""How far a call's time may be from the service's clock."""

CREDENTIAL_MS = 8 * 24 * 3600 * 1000
"""How long a credential may last at the most."""

LEAST_CODE = 16
"""How many characters an access code has at least."""

CREDENTIAL_BYTES = 2 * KEY_BYTES + 8 + SIGNATURE_BYTES
PROOF_BYTES = 8 + SIGNATURE_BYTES
TAG_BYTES = 16
ANSWER_BYTES = KEY_BYTES + 8 + SIGNATURE_BYTES


@dataclass(frozen=True)
class Credential:
    """That a holder of the circle key vouches for a node key, until a time."""

    circle: VerifyKey
    node: VerifyKey
    expires_ms: int
    signature: bytes

    @classmethod
    def make(cls, circle: SigningKey, node: VerifyKey, *, expires_ms: int) -> Self:
        """Vouch for a node."""
        signed = _vouched(node, expires_ms)
        return cls(circle.verify_key, node, expires_ms, circle.sign(signed))

    @classmethod
    def from_bytes(cls, raw: bytes) -> Self:
        """Take a credential apart; raises `Refused` (``MALFORMED``)."""
        circle, node, expires, signature = _cut(raw, "credential", (32, 32, 8, 64))
        expires_ms = _instant(expires, "credential")
        return cls(VerifyKey(circle), VerifyKey(node), expires_ms, signature)

    @cached_property
    def raw(self) -> bytes:
        """Its 136 bytes."""
        return self.circle.raw + self.node.raw + _u64(self.expires_ms) + self.signature

    @cached_property
    def hint(self) -> bytes:
        """The name of the circle that it is about."""
        return identify("hint", self.circle.raw)

    @cached_property
    def node_id(self) -> bytes:
        """The name of the node that it is about."""
        return node_id(self.node)

    def check(self, *, now_ms: int) -> None:
        """Raise `Refused` unless the circle vouches for the node at this time."""
        self.check_time(now_ms=now_ms)
        if not self.circle.verify(_vouched(self.node, self.expires_ms), self.signature):
            raise Refused(Reason.SIGNATURE_INVALID, "the credential is not the circle's")

    def check_time(self, *, now_ms: int) -> None:
        """Raise `Refused` if the credential has expired, or lasts longer than it may."""
        if self.expires_ms <= now_ms:
            raise Refused(Reason.EXPIRED, "the credential has expired")
        if self.expires_ms > now_ms + CREDENTIAL_MS + WINDOW_MS:
            raise Refused(
                Reason.LIFETIME_TOO_LONG, "the credential lasts longer than eight days from now"
            )


@dataclass(frozen=True, slots=True)
class Proof:
    """That a node makes a call at a service, now."""

    at_ms: int
    signature: bytes

    @classmethod
    def make(
        cls,
        node: SigningKey,
        credential: Credential,
        *,
        call: str,
        service: bytes,
        body: bytes,
        at_ms: int,
    ) -> Self:
        """Sign a call for the service with that id."""
        lines = _call_lines(credential, call=call, service=service, body=body, at_ms=at_ms)
        return cls(at_ms, node.sign(lines))

    @classmethod
    def from_bytes(cls, raw: bytes) -> Self:
        """Take a proof apart; raises `Refused` (``MALFORMED``)."""
        at, signature = _cut(raw, "proof", (8, 64))
        return cls(_instant(at, "proof"), signature)

    @property
    def raw(self) -> bytes:
        """Its 72 bytes."""
        return _u64(self.at_ms) + self.signature

    def check_time(self, *, now_ms: int) -> None:
        """Raise `Refused` if the call was not signed within two minutes of now."""
        if abs(now_ms - self.at_ms) > WINDOW_MS:
            reason = Reason.EXPIRED if self.at_ms < now_ms else Reason.NOT_YET_VALID
            raise Refused(reason, "the call was not signed within two minutes of now")

    def check(self, credential: Credential, *, call: str, service: bytes, body: bytes) -> None:
        """Raise `Refused` unless the credential's node signed this call for this service."""
        lines = _call_lines(credential, call=call, service=service, body=body, at_ms=self.at_ms)
        if not credential.node.verify(lines, self.signature):
            raise Refused(Reason.SIGNATURE_INVALID, "the call is not signed by its node")


@dataclass(frozen=True, slots=True)
class Authorization:
    """What a call's header says: a credential, a proof, and where codes are asked for a tag."""

    credential: bytes
    proof: Proof
    tag: bytes = b""

    @classmethod
    def parse(cls, header: str) -> Self:
        """Read the header of a call; raises `Refused` (``MALFORMED``)."""
        scheme, _, text = header.partition(" ")
        if scheme.lower() != SCHEME.lower():
            raise Refused(Reason.MALFORMED, f"the scheme of Authorization is not {SCHEME}")
        return cls.read(text)

    @classmethod
    def read(cls, text: str) -> Self:
        """Read what stands after the scheme; raises `Refused` (``MALFORMED``)."""
        parts = text.split(".") if len(text) <= 512 else []
        if len(parts) not in (2, 3):
            raise Refused(
                Reason.MALFORMED, "Authorization is not a credential, a proof and perhaps a tag"
            )
        credential = _base64(parts[0], "credential")
        if len(credential) != CREDENTIAL_BYTES:
            raise Refused(Reason.MALFORMED, f"a credential has {CREDENTIAL_BYTES} bytes")
        proof = Proof.from_bytes(_base64(parts[1], "proof"))
        tag = b""
        if len(parts) == 3:
            (tag,) = _cut(_base64(parts[2], "access tag"), "access tag", (TAG_BYTES,))
        return cls(credential, proof, tag)

    @property
    def text(self) -> str:
        """What stands after the scheme; in a socket's handshake, a subprotocol."""
        parts = [self.credential, self.proof.raw, *([self.tag] if self.tag else [])]
        return ".".join(base64url.encode(part) for part in parts)

    @property
    def header(self) -> str:
        """The value of the header."""
        return f"{SCHEME} {self.text}"


@dataclass(frozen=True, slots=True)
class Answer:
    """That a service answers this call so, at its time."""

    service: VerifyKey
    at_ms: int
    signature: bytes

    @classmethod
    def from_bytes(cls, raw: bytes) -> Self:
        """Take an answer apart; raises `Refused` (``MALFORMED``)."""
        service, at, signature = _cut(raw, "answer", (32, 8, 64))
        return cls(VerifyKey(service), _instant(at, "answer"), signature)

    @classmethod
    def parse(cls, header: str) -> Self:
        """Read the header of an answer; raises `Refused` (``MALFORMED``)."""
        return cls.from_bytes(_base64(header, "answer"))

    @property
    def raw(self) -> bytes:
        """Its 104 bytes."""
        return self.service.raw + _u64(self.at_ms) + self.signature

    @property
    def header(self) -> str:
        """The value of the header."""
        return base64url.encode(self.raw)

    def check(self, service: bytes, proof: bytes, *, status: int, body: bytes) -> None:
        """Raise `Refused` unless the service with this id gave this answer to this proof."""
        if service_id(self.service) != service:
            raise Refused(Reason.KEY_MISMATCH, "the answer is signed by another service's key")
        lines = answer_lines(proof, status=status, body=body, at_ms=self.at_ms)
        if not self.service.verify(lines, self.signature):
            raise Refused(Reason.SIGNATURE_INVALID, "the answer is not signed by its service")


def answered_by(header: str, *, status: int, body: bytes) -> bytes:
    """Return which service has signed its answer to a call without a proof.

    Raises `Refused`.
    """
    answer = Answer.parse(header)
    found = service_id(answer.service)
    answer.check(found, b"", status=status, body=body)
    return found


def access_tag(code: str, service: bytes, credential: Credential) -> bytes:
    """Return what shows a service that the caller knows an access code, which is never sent."""
    told = label("access") + service + credential.circle.raw + credential.node.raw
    return hmac.digest(code.encode("ascii"), told, "sha256")[:TAG_BYTES]


def answer_lines(proof: bytes, *, status: int, body: bytes, at_ms: int) -> bytes:
    """Return what a service signs of an answer."""
    return label("answer") + _lines((_digest(proof), str(status), _digest(body), str(at_ms)))


def _vouched(node: VerifyKey, expires_ms: int) -> bytes:
    return label("credential") + node.raw + _u64(expires_ms)


def _call_lines(
    credential: Credential, *, call: str, service: bytes, body: bytes, at_ms: int
) -> bytes:
    return label("call") + _lines(
        (call, service.hex(), _digest(body), _digest(credential.raw), str(at_ms))
    )


def _lines(lines: Iterable[str]) -> bytes:
    return "".join(line + "\n" for line in lines).encode("ascii")


def _digest(raw: bytes) -> str:
    return hashlib.sha256(raw).hexdigest()


def _cut(raw: bytes, what: str, lengths: tuple[int, ...]) -> list[bytes]:
    """Cut bytes into parts of these lengths, which are all there is."""
    if len(raw) != sum(lengths):
        raise Refused(Reason.MALFORMED, f"this {what} has not {sum(lengths)} bytes")
    parts, at = [], 0
    for length in lengths:
        parts.append(raw[at : at + length])
        at += length
    return parts


def _base64(text: str, what: str) -> bytes:
    try:
        return base64url.decode(text)
    except ValueError as error:
        raise Refused(Reason.MALFORMED, f"the {what}: {error}") from None


def _u64(value: int) -> bytes:
    return value.to_bytes(8, "big")


def _instant(raw: bytes, what: str) -> int:
    value = int.from_bytes(raw, "big")
    if value > MAX_INTEGER:
        raise Refused(Reason.MALFORMED, f"the time of this {what} is beyond 2^53")
    return value
