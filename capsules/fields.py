"""Reading the members of signed metadata: the right type and size, or a refusal that says which."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from capsules import keys
from capsules.canonical import MAX_INTEGER
from capsules.errors import Reason, Refused
from capsules.keys import VerifyKey

COMMUNITY = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}", re.ASCII)
"""A community's name: also the name of the folder its capsule lies in."""

_SHA256 = re.compile(r"[0-9a-f]{64}", re.ASCII)
_SURROGATE = re.compile("[\ud800-\udfff]")


def members(value: Any, name: str) -> dict[str, Any]:
    """Return *value* if it is an object."""
    if not isinstance(value, dict):
        raise malformed(f"{name} must be an object")
    return value


def items(data: Mapping[str, Any], name: str, *, most: int) -> list[Any]:
    """Return an array of at most *most* elements."""
    value = data.get(name)
    if not isinstance(value, list) or len(value) > most:
        raise malformed(f"{name} must be an array of at most {most}")
    return value


def integer(data: Mapping[str, Any], name: str, *, least: int = 0) -> int:
    """Return a whole number from *least* to 2^53 - 1."""
    value = data.get(name)
    if isinstance(value, float) and value.is_integer():
        value = int(value)  # 1e3 is a whole number too, and not every parser says so
    if isinstance(value, bool) or not isinstance(value, int) or not least <= value <= MAX_INTEGER:
        raise malformed(f"{name} must be a whole number from {least}")
    return value


def text(data: Mapping[str, Any], name: str, *, least: int = 0, most: int) -> str:
    """Return a string of *least* to *most* bytes of UTF-8."""
    value = data.get(name)
    if not isinstance(value, str) or _SURROGATE.search(value):
        raise malformed(f"{name} must be a string")
    if not least <= len(value.encode("utf-8")) <= most:
        raise malformed(f"{name} must have {least} to {most} bytes")
    return value


def matching(data: Mapping[str, Any], name: str, pattern: re.Pattern[str]) -> str:
    """Return a string that has the form of *pattern*."""
    value = data.get(name)
    if not isinstance(value, str) or not pattern.fullmatch(value):
        raise malformed(f"{name} does not have the right form")
    return value


def community(data: Mapping[str, Any], name: str = "community") -> str:
    """Return a community's name."""
    return matching(data, name, COMMUNITY)


def sha256(data: Mapping[str, Any], name: str) -> str:
    """Return a SHA-256 in lower-case hex."""
    return matching(data, name, _SHA256)


def verify_key(data: Mapping[str, Any], name: str = "verify_key") -> VerifyKey:
    """Return an Ed25519 verify key from its 44 characters of base64."""
    try:
        return VerifyKey.from_base64(text(data, name, most=44))
    except ValueError:
        raise malformed(f"{name} must be the base64 of an Ed25519 verify key") from None


def signature(data: Mapping[str, Any], name: str = "signature") -> bytes:
    """Return the 64 bytes of a signature from their base64."""
    try:
        raw = keys.exact_base64(text(data, name, most=88))
    except ValueError:
        raw = b""
    if len(raw) != keys.SIGNATURE_BYTES:
        raise malformed(f"{name} must be the base64 of an Ed25519 signature")
    return raw


def constant(data: Mapping[str, Any], name: str, value: Any) -> None:
    """Refuse when a member is not exactly *value*."""
    found = data.get(name)
    if isinstance(found, bool) or found != value:
        raise malformed(f"{name} must be {value!r}")


def malformed(message: str) -> Refused:
    """Return the refusal for what does not have the right shape."""
    return Refused(Reason.MALFORMED, message)
