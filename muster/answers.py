"""Answers that are no good: what a service, or something in front of it, refuses with.

Between a client and its service stand proxies that answer in their own words, in HTML or in
JSON of theirs. Such a no says nothing about the call: the path is broken, and that passes.
"""

from __future__ import annotations

import msgspec

from muster import errors
from muster.errors import Refused

NOT_OURS = "is this the service's URL?"


def refusal(status: int, raw: bytes, *, host: str, retry_after: str = "") -> Refused:
    """Read an answer into the refusal the service raised, or that of who answered for it."""
    try:
        body = msgspec.json.decode(raw, type=dict)
    except (msgspec.MsgspecError, RecursionError):
        body = {}
    found = errors.from_json(body, status=status, retry_after_s=_seconds(retry_after))
    if found.foreign:
        found.message = f"{host} answered {status} without a word from Muster"
        found.hint = NOT_OURS
    return found


def _seconds(retry_after: str) -> int | None:
    whole = retry_after.isascii() and retry_after.isdecimal() and len(retry_after) < 10
    return int(retry_after) if whole else None
