"""Tickets: a node's signed word that it can be reached, for a few minutes.

The format and the checks 1 to 8 are those of existing clients (docs/formats.md, Tickets); our
own, stricter ones have names of their own. Times are milliseconds, as in the format.
"""

from __future__ import annotations

import base64
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Self

from capsules import canonical, fields, keys
from capsules.errors import Reason, Refused
from capsules.keys import SigningKey, VerifyKey

ALGORITHM = "ed25519"
SKEW_MS = 15_000
"""Accepted difference between two clocks."""

TTL_MS = 180_000
"""How long a ticket lives if nobody says otherwise."""

MAX_LIFETIME_MS = 86_400_000
"""The longest life a ticket may have: a day."""

MAX_TICKET_BYTES = 4096
MAX_NAME_BYTES = 256
NONCE_BYTES = 12

_ENVELOPE = frozenset({"version", "algorithm", "publicKey", "signature", "payload"})
_PAYLOAD = frozenset({"peerId", "userId", "issuedAt", "expiresAt", "nonce"})


@dataclass(frozen=True, slots=True)
class Rules:
    """What a reader of tickets asks of them beyond their signature."""

    skew_ms: int = SKEW_MS
    max_lifetime_ms: int = MAX_LIFETIME_MS
    trusted: frozenset[str] = frozenset()
    """Base64 of the only keys to believe, compared as text; empty: any key."""
    revoked: frozenset[str] = frozenset()
    """Base64 of keys never to believe, compared as keys, however the ticket spells them."""


RULES = Rules()
"""What existing clients ask, and a day at most."""


@dataclass(frozen=True, slots=True)
class Ticket:
    """One ticket as it was received; it has the right shape, and nothing more is known."""

    envelope: Mapping[str, Any]
    peer_id: str
    user_id: str
    issued_at_ms: int
    expires_at_ms: int

    @classmethod
    def from_json(cls, data: Any) -> Self:
        """Read an envelope, which is kept as it is: every member of it is signed.

        Raises `Refused`: ``MALFORMED``, ``NOT_CANONICAL`` or ``TOO_LARGE``.
        """
        envelope = fields.members(data, "the ticket")
        payload = fields.members(envelope.get("payload"), "payload")
        fields.text(envelope, "algorithm", most=64)
        fields.text(envelope, "publicKey", most=256)
        fields.text(envelope, "signature", most=256)
        fields.text(payload, "nonce", most=128)
        ticket = cls(
            envelope=envelope,
            peer_id=fields.text(payload, "peerId", least=1, most=MAX_NAME_BYTES),
            user_id=fields.text(payload, "userId", most=MAX_NAME_BYTES),
            issued_at_ms=fields.integer(payload, "issuedAt"),
            expires_at_ms=fields.integer(payload, "expiresAt"),
        )
        if ticket.expires_at_ms <= ticket.issued_at_ms:
            raise fields.malformed("expiresAt must be after issuedAt")
        if len(canonical.encode(envelope)) > MAX_TICKET_BYTES:
            raise Refused(Reason.TOO_LARGE, f"a ticket has at most {MAX_TICKET_BYTES} bytes")
        return ticket

    @classmethod
    def parse(cls, raw: bytes) -> Self:
        """Read a ticket from JSON text."""
        return cls.from_json(canonical.loads(raw))

    def to_json(self) -> Mapping[str, Any]:
        """Return the envelope exactly as it was received."""
        return self.envelope

    @property
    def verify_key(self) -> VerifyKey:
        """The key that the ticket says it was signed with.

        Raises `Refused` (``SIGNATURE_INVALID``) when it is none.
        """
        try:
            return VerifyKey(keys.lenient_base64(self.envelope["publicKey"]))
        except ValueError:
            raise Refused(Reason.SIGNATURE_INVALID, "publicKey is not a verify key") from None

    @property
    def message(self) -> bytes:
        """The bytes that the signature covers: the payload's canonical form."""
        return canonical.encode(self.envelope["payload"])

    def verify(
        self,
        *,
        now_ms: int,
        rules: Rules = RULES,
        peer_id: str | None = None,
        user_id: str | None = None,
    ) -> None:
        """Raise `Refused` with the first reason not to believe this ticket."""
        self._check_time(now_ms, rules)
        self._check_names(peer_id, user_id)
        self._check_key(rules)
        try:
            signature = keys.lenient_base64(self.envelope["signature"])
        except ValueError:
            raise fields.malformed("signature must be base64") from None
        if not self.verify_key.verify(self.message, signature):
            raise Refused(Reason.SIGNATURE_INVALID, "the key did not sign this payload")

    def _check_time(self, now_ms: int, rules: Rules) -> None:
        if self.expires_at_ms + rules.skew_ms < now_ms:
            raise Refused(Reason.EXPIRED, "the ticket is past its time")
        if self.issued_at_ms - rules.skew_ms > now_ms:
            raise Refused(Reason.NOT_YET_VALID, "the ticket is from the future")

    def _check_names(self, peer_id: str | None, user_id: str | None) -> None:
        if peer_id is not None and peer_id != self.peer_id:
            raise Refused(Reason.PEER_ID_MISMATCH, "the ticket is another peer's")
        if user_id is not None and user_id != self.user_id:
            raise Refused(Reason.USER_ID_MISMATCH, "the ticket is another user's")

    def _check_key(self, rules: Rules) -> None:
        if rules.trusted and self.envelope["publicKey"] not in rules.trusted:
            raise Refused(Reason.UNTRUSTED_PUBLIC_KEY, "the key is not among the trusted ones")
        if self.envelope["algorithm"] != ALGORITHM:
            raise Refused(Reason.UNSUPPORTED_ALGORITHM, "only ed25519 is understood")
        if self.expires_at_ms - self.issued_at_ms > rules.max_lifetime_ms:
            raise Refused(Reason.LIFETIME_TOO_LONG, "the ticket lives longer than it may")
        if rules.revoked and self.verify_key.to_base64() in rules.revoked:
            raise Refused(Reason.REVOKED_KEY, "the key was revoked")


def create(
    key: SigningKey, *, peer_id: str, user_id: str, now_ms: int, nonce: bytes, ttl_ms: int = TTL_MS
) -> Ticket:
    """Sign that *peer_id* can be reached until *ttl_ms* from now; *nonce* is 12 random bytes."""
    payload = {
        "peerId": peer_id,
        "userId": user_id,
        "issuedAt": now_ms,
        "expiresAt": now_ms + ttl_ms,
        "nonce": base64.b64encode(nonce).decode(),
    }
    signature = key.sign(canonical.encode(payload))
    return Ticket.from_json(
        {
            "version": 1,
            "algorithm": ALGORITHM,
            "publicKey": key.verify_key.to_base64(),
            "signature": base64.b64encode(signature).decode(),
            "payload": payload,
        }
    )


def listable(ticket: Ticket) -> bool:
    """Say whether a ticket may stand in lists and capsules that existing clients read.

    It may if it has the members of the format and no others, in their usual form: a signature
    that is not base64 makes those clients drop the whole list, and a member whose place in the
    canonical order depends on the reader's language breaks the signature of a whole capsule.
    """
    envelope, payload = ticket.envelope, ticket.envelope["payload"]
    if envelope.keys() != _ENVELOPE or payload.keys() != _PAYLOAD:
        return False
    try:
        fields.constant(envelope, "version", 1)
        fields.constant(envelope, "algorithm", ALGORITHM)
        fields.verify_key(envelope, "publicKey")
        fields.signature(envelope)
    except Refused:
        return False
    return True


def merge(tickets: Iterable[Ticket]) -> list[Ticket]:
    """Keep the ticket of each peer that lives longest, and put those that live longest first.

    The same peer is the same ``peerId`` and ``userId``, as for existing clients.
    """
    best: dict[tuple[str, str], Ticket] = {}
    for ticket in tickets:
        known = best.get((ticket.peer_id, ticket.user_id))
        if known is None or ticket.expires_at_ms > known.expires_at_ms:
            best[ticket.peer_id, ticket.user_id] = ticket
    return sorted(best.values(), key=lambda ticket: -ticket.expires_at_ms)
