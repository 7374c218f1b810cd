"""Base64url without padding, in its only spelling (RFC 4648, section 5).

Two spellings of one value would be two texts to sign, to remember and to compare.
"""

from __future__ import annotations

import base64


def encode(raw: bytes) -> str:
    """Write bytes in letters that are safe in headers, queries and fragments."""
    return base64.urlsafe_b64encode(raw).decode().rstrip("=")


def decode(text: str) -> bytes:
    """Read what `encode` writes; raises `ValueError` for anything else."""
    try:
        raw = base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))
    except ValueError:
        raise ValueError("it is not base64url") from None
    if encode(raw) != text:
        raise ValueError("this base64url has another spelling")
    return raw
