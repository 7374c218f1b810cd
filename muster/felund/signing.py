"""Request signing, version 1: who may speak for a circle.

The canonical string joins its parts without separators and leaves the query
out, because existing clients compute it so (docs/protocol.md, Signing). The
service makes up for both: the time has exactly ten digits and the paths are
fixed, so no border can move, and a query selects the key it is verified with.
"""

from __future__ import annotations

import hashlib
import hmac
import re
from collections.abc import Mapping

NODE = "x-felund-node"
TIME = "x-felund-ts"
NONCE = "x-felund-nonce"
SIGNATURE = "x-felund-signature"

WINDOW_S = 300
"""Accepted difference between the signed time and the service's clock, in seconds."""

NONCE_PATTERN = re.compile(r"[!-~]{8,128}")
"""A nonce: clients send 16 random bytes in hex; any printable word of 8 to 128 will do."""

TIME_PATTERN = re.compile(r"[1-9][0-9]{9}")
"""A signed time: Unix seconds, ten digits, until the year 2286."""


def request_key(secret: bytes) -> bytes:
    """Derive the key that signs a circle's calls; the same for every member."""
    return hmac.digest(secret, b"api-v1", "sha256")


def canonical(method: str, path: str, body: bytes, *, timestamp: str, nonce: str) -> bytes:
    """Return the bytes that a signature covers.

    *path* is what follows ``/v1``, without the query: ``/register``.
    """
    digest = hashlib.sha256(body).hexdigest()
    return f"{method.upper()}{path}{digest}{timestamp}{nonce}".encode()


def sign(key: bytes, method: str, path: str, body: bytes, *, timestamp: str, nonce: str) -> str:
    """Return the lower-case hex HMAC-SHA256 of the canonical string."""
    message = canonical(method, path, body, timestamp=timestamp, nonce=nonce)
    return hmac.digest(key, message, "sha256").hex()


def headers(
    key: bytes, method: str, path: str, body: bytes, *, node_id: str, now: int, nonce: bytes
) -> dict[str, str]:
    """Return the four headers of a signed call; *nonce* is 16 random bytes."""
    timestamp, spent = str(now), nonce.hex()
    return {
        "X-Felund-Node": node_id,
        "X-Felund-Ts": timestamp,
        "X-Felund-Nonce": spent,
        "X-Felund-Signature": sign(key, method, path, body, timestamp=timestamp, nonce=spent),
    }


def is_signed(headers: Mapping[str, str]) -> bool:
    """Say whether a call claims to be signed; header names in lower case."""
    return SIGNATURE in headers or NONCE in headers or TIME in headers


def matches(expected: str, claimed: str) -> bool:
    """Compare two signatures in constant time; hex case does not matter."""
    return hmac.compare_digest(expected.encode(), claimed.lower().encode())
