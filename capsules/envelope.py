"""Envelopes: a payload and who signed it, for everything that is not a format of the mesh.

A signature covers its purpose, a line break and the payload's canonical form (`canonical.strict`),
so that what was signed for one purpose proves nothing for another.
"""

from __future__ import annotations

import base64
from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, Self

from capsules import canonical, fields
from capsules.keys import SigningKey, VerifyKey

MAX_SIGNATURES = 4


class Purpose(StrEnum):
    """What a signature is for; the first line of what it covers."""

    ROOT = "muster-root-v1"
    CERTIFICATE = "muster-certificate-v1"
    REVOCATIONS = "muster-revocations-v1"
    MANIFEST = "muster-manifest-v1"


@dataclass(frozen=True, slots=True)
class Envelope:
    """A payload and its signatures, none of them checked yet."""

    payload: Mapping[str, Any]
    signatures: tuple[tuple[str, bytes], ...]

    @classmethod
    def from_json(cls, data: Any, name: str) -> Self:
        """Read an envelope; *name* says which one when it is malformed."""
        outer = fields.members(data, name)
        entries = [
            fields.members(entry, "a signature")
            for entry in fields.items(outer, "signatures", most=MAX_SIGNATURES)
        ]
        return cls(
            payload=fields.members(outer.get("payload"), f"the payload of {name}"),
            signatures=tuple(
                (fields.text(entry, "key_id", most=64), fields.signature(entry))
                for entry in entries
            ),
        )

    def signed_by(self, key: VerifyKey, purpose: Purpose) -> bool:
        """Say whether *key* signed this payload for this purpose."""
        covered = message(purpose, self.payload)
        return any(
            key_id == key.key_id and key.verify(covered, signature)
            for key_id, signature in self.signatures
        )


def message(purpose: Purpose, payload: Mapping[str, Any]) -> bytes:
    """Return the bytes that a signature covers."""
    return f"{purpose}\n".encode() + canonical.strict(payload)


def seal(purpose: Purpose, payload: Mapping[str, Any], *keys: SigningKey) -> dict[str, Any]:
    """Sign a payload with each of *keys*; return the envelope as JSON members."""
    covered = message(purpose, payload)
    return {
        "payload": dict(payload),
        "signatures": [
            {
                "key_id": key.verify_key.key_id,
                "signature": base64.b64encode(key.sign(covered)).decode(),
            }
            for key in keys
        ],
    }
