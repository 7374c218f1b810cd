"""Texts that members sign: strict JSON with one spelling, and readers of their members.

Every text says what it is and for which circle, so that none can stand for another. Members
that are unknown are signed and ignored: what is added later does not break what is there.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from capsules import canonical, fields
from capsules.errors import Reason, Refused
from capsules.keys import KEY_BYTES, VerifyKey
from muster import base64url
from muster.keys import ID_BYTES, label
from muster.seals import Said

AHEAD_MS = 10 * 60 * 1000
"""How far ahead of one's own clock another's may be."""

_ID = re.compile(r"[0-9a-f]{32}", re.ASCII)


def write(what: str, circle: bytes, members: Mapping[str, Any]) -> bytes:
    """Write a text; raises `Refused` (``NOT_CANONICAL``) for what JSON readers disagree about."""
    return canonical.strict({"is": what, "circle": circle.hex(), **members})


def read(what: str, circle: bytes, text: bytes) -> dict[str, Any]:
    """Read a text of this kind and circle; its signature is checked elsewhere.

    Raises `Refused`: ``MALFORMED``, ``NOT_CANONICAL`` or ``WRONG_CIRCLE``.
    """
    data = fields.members(canonical.read_strict(text), f"a {what}")
    fields.constant(data, "is", what)
    if identifier(data, "circle") != circle:
        raise Refused(Reason.WRONG_CIRCLE, f"the {what} is another circle's")
    return data


def check(what: str, key: VerifyKey, said: Said) -> None:
    """Raise `Refused` unless the key signed the text as one of this kind."""
    if not key.verify(label(what) + said.text, said.signature):
        raise Refused(Reason.SIGNATURE_INVALID, f"the {what} is not signed by who it says")


def identifier(data: Mapping[str, Any], name: str) -> bytes:
    """Return the 16 bytes of a name in hex."""
    return bytes.fromhex(fields.matching(data, name, _ID))


def raw(data: Mapping[str, Any], name: str, size: int) -> bytes:
    """Return so many bytes in base64url."""
    value = data.get(name)
    try:
        found = base64url.decode(value) if isinstance(value, str) else b""
    except ValueError:
        found = b""
    if len(found) != size:
        raise fields.malformed(f"{name} must be the base64url of {size} bytes")
    return found


def key(data: Mapping[str, Any], name: str) -> VerifyKey:
    """Return an Ed25519 key."""
    return VerifyKey(raw(data, name, KEY_BYTES))


def ids(values: Mapping[str, Any], name: str) -> dict[bytes, Any]:
    """Return an object whose keys are names in hex."""
    data = fields.members(values.get(name), name)
    if not all(_ID.fullmatch(text) for text in data):
        raise fields.malformed(f"the members of {name} must be {2 * ID_BYTES} hex digits")
    return {bytes.fromhex(text): value for text, value in data.items()}
