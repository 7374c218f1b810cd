"""Channels: whose id is whose, and how what is said in a private one is closed and opened.

A channel's id follows from the key of the member who created it, so nobody can create another's.
What is closed names the record that made its key; whoever has a box of that key opens it.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from typing import Any

from capsules import canonical, fields
from capsules.errors import Reason, Refused
from muster import base64url, boxes, keys
from muster.keys import label

SALT_BYTES = 16
OPEN = ("op", "mode", "salt", "box")
"""What a closed body says openly; nothing else beside the closed part counts."""


def channel_id(author: bytes, salt: bytes) -> bytes:
    """Return the name of the channel that a member creates: the first 16 bytes of a hash."""
    return keys.identify("channel", author + salt)


def call_word(call: bytes) -> str:
    """Return the word among a presence's abilities that says: this node is in that call."""
    return "call_" + hashlib.sha256(label("call") + call).hexdigest()[:24]


def is_closed(body: Mapping[str, Any]) -> bool:
    """Say whether a body is closed."""
    return "closed" in body


def source_of(body: Mapping[str, Any], own: bytes) -> bytes:
    """Return the record that made the key of a closed body: its own, where it names none."""
    return own if body.get("from") is None else bytes.fromhex(fields.sha256(body, "from"))


def opened(
    circle: bytes,
    channel: bytes,
    body: Mapping[str, Any],
    *,
    author: bytes,
    seq: int,
    key: bytes,
) -> dict[str, Any]:
    """Return a body as it is said to those who have the key; raises `Refused`."""
    number = fields.integer(body, "key")
    closed = body.get("closed")
    try:
        raw = base64url.decode(closed) if isinstance(closed, str) else b""
        bound = boxes.for_body(circle, channel, number, author, seq)
    except (ValueError, OverflowError):
        raise Refused(Reason.MALFORMED, "the closed body is not base64url") from None
    inner = fields.members(canonical.read_strict(boxes.open_body(key, raw, bound)), "a closed body")
    return {**inner, **{name: body[name] for name in OPEN if name in body}}


def box_opened(
    circle: bytes, channel: bytes, number: int, box: str, private: bytes
) -> bytes | None:
    """Return the channel key in a box, if it is for this member."""
    try:
        bound = boxes.for_channel(circle, channel, number)
        return boxes.unbox(base64url.decode(box), private, bound)
    except (Refused, ValueError, OverflowError):
        return None
