"""A circle: what its members derive from the secret they share.

The secret never leaves the client. The service learns the hint, which names the
circle, and the request key, which signs its calls; neither leads back to the
secret.
"""

from __future__ import annotations

import hashlib
import hmac
import re
import secrets
from dataclasses import dataclass, field
from typing import Self

from muster.backoff import Entropy
from muster.felund import signing

SECRET_BYTES = 32
MIN_SECRET_BYTES = 16
MAX_SECRET_BYTES = 64

_HEX = re.compile(r"(?:[0-9a-fA-F]{2})+")


@dataclass(frozen=True, slots=True)
class Circle:
    """People who share a secret, seen from inside.

    Raises `ValueError` for a secret that is too short to keep anyone out.
    """

    secret: bytes = field(repr=False)
    circle_id: str = field(init=False, repr=False, compare=False)
    circle_hint: str = field(init=False, repr=False, compare=False)
    request_key: bytes = field(init=False, repr=False, compare=False)
    message_key: bytes = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        """Derive everything once; a circle is used for every call."""
        if not MIN_SECRET_BYTES <= len(self.secret) <= MAX_SECRET_BYTES:
            raise ValueError(
                f"a circle secret has {SECRET_BYTES} bytes, this one has {len(self.secret)}"
            )
        circle_id = hashlib.sha256(self.secret).hexdigest()[:24]
        circle_hint = hashlib.sha256(circle_id.encode()).hexdigest()[:16]
        object.__setattr__(self, "circle_id", circle_id)
        object.__setattr__(self, "circle_hint", circle_hint)
        object.__setattr__(self, "request_key", signing.request_key(self.secret))
        object.__setattr__(self, "message_key", _hkdf(self.secret, b"felund-msg-v1"))

    def __repr__(self) -> str:
        """Name the circle without its secret, and without the whole hint."""
        return f"Circle({self.circle_hint[:6]}…)"

    @classmethod
    def new(cls, entropy: Entropy = secrets.token_bytes) -> Self:
        """Make a circle that nobody else knows yet."""
        return cls(entropy(SECRET_BYTES))

    @classmethod
    def from_secret_hex(cls, text: str) -> Self:
        """Read a circle from its secret in hex; case does not matter."""
        if not _HEX.fullmatch(text):
            raise ValueError("a circle secret is written as hex digits, two for each byte")
        return cls(bytes.fromhex(text))


def signal_session(node_id: str, other_id: str) -> str:
    """Name the signalling session of two nodes; both sides get the same name."""
    return ":".join(sorted((node_id, other_id)))


def media_session(call_id: str, node_id: str, other_id: str) -> str:
    """Name the signalling session of two nodes in a call."""
    return f"media:{call_id}:{signal_session(node_id, other_id)}"


def _hkdf(secret: bytes, purpose: bytes) -> bytes:
    """Derive 32 bytes by HKDF-SHA256 with an empty salt (RFC 5869); one block is enough."""
    extracted = hmac.digest(bytes(32), secret, "sha256")
    return hmac.digest(extracted, purpose + b"\x01", "sha256")
