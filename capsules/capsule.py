"""Capsules: a signed snapshot of a community's tickets, as a static file.

``peers.json`` is exactly what existing clients verify (docs/formats.md, Capsule). Times are
milliseconds, as in the format.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple, Self

from capsules import canonical, fields, keys
from capsules.errors import Reason, Refused
from capsules.keys import SigningKey, VerifyKey
from capsules.ticket import ALGORITHM, RULES, Rules, Ticket, listable

MAX_CAPSULE_BYTES = 1_048_576
MAX_ENTRIES = 1000
"""How many tickets a capsule may hold."""


class Skipped(NamedTuple):
    """A ticket of a capsule that is not believed, by its place in the list, and why."""

    place: int
    reason: Reason


@dataclass(frozen=True, slots=True)
class Capsule:
    """A capsule as it was received; it has the right shape, and nothing more is known."""

    community: str | None
    issued_at_ms: int
    expires_at_ms: int
    peers: tuple[Any, ...]
    signature: str

    @classmethod
    def parse(cls, raw: bytes) -> Self:
        """Read ``peers.json``; what is too large is not parsed.

        Raises `Refused`: ``TOO_LARGE``, ``MALFORMED``, ``UNSUPPORTED_ALGORITHM`` or
        ``TOO_MANY_ENTRIES``.
        """
        if len(raw) > MAX_CAPSULE_BYTES:
            raise Refused(Reason.TOO_LARGE, f"a capsule has at most {MAX_CAPSULE_BYTES} bytes")
        data = fields.members(canonical.loads(raw), "the capsule")
        fields.constant(data, "version", 1)
        if data.get("algorithm", ALGORITHM) != ALGORITHM:
            raise Refused(Reason.UNSUPPORTED_ALGORITHM, "only ed25519 is understood")
        community = None
        if data.get("community") is not None:
            community = fields.text(data, "community", most=256)
        peers = data.get("peers")
        if not isinstance(peers, list):
            raise fields.malformed("peers must be an array")
        if len(peers) > MAX_ENTRIES:
            raise Refused(Reason.TOO_MANY_ENTRIES, f"a capsule has at most {MAX_ENTRIES} entries")
        return cls(
            community=community,
            issued_at_ms=fields.integer(data, "issuedAt"),
            expires_at_ms=fields.integer(data, "expiresAt"),
            peers=tuple(peers),
            signature=fields.text(data, "signature", most=256),
        )

    @property
    def message(self) -> bytes:
        """The bytes that the signature covers.

        Raises `Refused` (``NOT_CANONICAL``) when browsers could disagree about them.
        """
        return canonical.encode(
            {
                "version": 1,
                "community": self.community,
                "issuedAt": self.issued_at_ms,
                "expiresAt": self.expires_at_ms,
                "peers": self.peers,
            }
        )

    def verify(self, key: VerifyKey, *, now_ms: int) -> None:
        """Raise `Refused` unless the capsule is live and signed by *key*.

        As for existing clients nothing is tolerated for clocks that differ.
        """
        if self.expires_at_ms < now_ms:
            raise Refused(Reason.EXPIRED, "the capsule is past its time")
        try:
            signature = keys.lenient_base64(self.signature)
        except ValueError:
            raise fields.malformed("signature must be base64") from None
        if not key.verify(self.message, signature):
            raise Refused(Reason.SIGNATURE_INVALID, "the key did not sign this capsule")

    def tickets(
        self, *, now_ms: int, rules: Rules = RULES
    ) -> tuple[tuple[Ticket, ...], tuple[Skipped, ...]]:
        """Return the tickets to believe, and why the others are not."""
        good: list[Ticket] = []
        skipped: list[Skipped] = []
        for place, entry in enumerate(self.peers):
            try:
                ticket = Ticket.from_json(entry)
                ticket.verify(now_ms=now_ms, rules=rules)
            except Refused as refusal:
                skipped.append(Skipped(place, refusal.reason))
            else:
                good.append(ticket)
        return tuple(good), tuple(skipped)


def build(
    key: SigningKey, tickets: Iterable[Ticket], *, community: str, now_ms: int, ttl_ms: int
) -> bytes:
    """Return the bytes of ``peers.json``, in the order of *tickets*.

    Raises `ValueError` for a ticket that is not listable, or when there are too many.
    """
    peers = []
    for ticket in tickets:
        if not listable(ticket):
            raise ValueError("a capsule holds only tickets that every client can read")
        peers.append(ticket.to_json())
    if len(peers) > MAX_ENTRIES:
        raise ValueError(f"a capsule has at most {MAX_ENTRIES} entries")
    covered = {
        "version": 1,
        "community": fields.community({"community": community}),
        "issuedAt": now_ms,
        "expiresAt": now_ms + ttl_ms,
        "peers": peers,
    }
    signature = base64.b64encode(key.sign(canonical.encode(covered))).decode()
    raw = pretty({**covered, "signature": signature, "algorithm": ALGORITHM})
    if len(raw) > MAX_CAPSULE_BYTES:
        raise ValueError(f"a capsule has at most {MAX_CAPSULE_BYTES} bytes")
    return raw


def signature_file(raw: bytes) -> bytes:
    """Return the bytes of ``peers.json.sig`` for those of ``peers.json``."""
    return Capsule.parse(raw).signature.encode()


def pretty(value: Mapping[str, Any]) -> bytes:
    """Write JSON as existing tools do: two spaces, no final newline, nothing escaped in vain."""
    return json.dumps(value, indent=2, ensure_ascii=False).encode("utf-8")
