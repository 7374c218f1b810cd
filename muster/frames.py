"""Frames between two nodes: what a link carries, and how the relay passes it unread.

A link frame is ``kind u8 + number u64 + taken u64 + payload``; over TLS its length comes
before it, over the relay it is sealed under keys of the session alone.
"""

from __future__ import annotations

import hashlib
from enum import IntEnum
from typing import NamedTuple, Self

from capsules.errors import Reason, Refused
from muster.keys import agree, derive

PAYLOAD_BYTES = 16_000
"""How much of what an app sends one frame carries."""

MOST_NUMBER = 2**53 - 1
SESSION_BYTES = 16

_HEAD_BYTES = 1 + 8 + 8
_TAG_BYTES = 16


class Kind(IntEnum):
    """What a link frame is for."""

    HELLO = 0
    DATA = 1
    TOOK = 2
    END = 3


class LinkFrame(NamedTuple):
    """One frame: its number in the session, and up to which the other side's were taken."""

    kind: Kind
    number: int
    taken: int
    payload: bytes = b""

    @classmethod
    def from_bytes(cls, raw: bytes) -> Self:
        """Take a frame apart; raises `Refused` (``MALFORMED`` or ``TOO_LARGE``)."""
        if len(raw) < _HEAD_BYTES or raw[0] > max(Kind):
            raise Refused(Reason.MALFORMED, "this is no link frame")
        number, taken = int.from_bytes(raw[1:9], "big"), int.from_bytes(raw[9:17], "big")
        if max(number, taken) > MOST_NUMBER:
            raise Refused(Reason.MALFORMED, "a number of a link frame is beyond 2^53")
        if len(raw) > _HEAD_BYTES + PAYLOAD_BYTES:
            raise Refused(Reason.TOO_LARGE, f"a link frame carries at most {PAYLOAD_BYTES} bytes")
        return cls(Kind(raw[0]), number, taken, raw[_HEAD_BYTES:])

    @property
    def raw(self) -> bytes:
        """The bytes of the frame."""
        if len(self.payload) > PAYLOAD_BYTES:
            raise ValueError(f"a link frame carries at most {PAYLOAD_BYTES} bytes")
        head = bytes([self.kind]) + self.number.to_bytes(8, "big") + self.taken.to_bytes(8, "big")
        return head + self.payload


class RelayKeys(NamedTuple):
    """The two keys of a session over the relay: what its opener sends, and what the other does."""

    opener: bytes
    other: bytes

    @classmethod
    def of(cls, private: bytes, public: bytes, *, opener_text: bytes, other_text: bytes) -> Self:
        """Derive them from our ephemeral key, the other's, and the two ``connect`` signals.

        Raises `Refused` (``WEAK_KEY``).
        """
        shared = agree(private, public)
        salt = hashlib.sha256(opener_text).digest() + hashlib.sha256(other_text).digest()
        return cls(derive(shared, salt, "relay opener"), derive(shared, salt, "relay other"))


def close(key: bytes, counter: int, frame: bytes) -> bytes:
    """Seal a link frame for the relay; a counter is used once for a key, for repeats too."""
    from cryptography.hazmat.primitives.ciphers.aead import AESGCM

    told = counter.to_bytes(8, "big")
    return told + AESGCM(key).encrypt(bytes(4) + told, frame, None)


def open_closed(key: bytes, payload: bytes) -> tuple[int, bytes]:
    """Return a relay payload's counter and its link frame.

    Raises `Refused` (``MALFORMED`` or ``UNREADABLE``). That a counter only grows is the
    caller's to check.
    """
    from cryptography.exceptions import InvalidTag
    from cryptography.hazmat.primitives.ciphers.aead import AESGCM

    if len(payload) < 8 + _HEAD_BYTES + _TAG_BYTES:
        raise Refused(Reason.MALFORMED, "this is no relay payload")
    counter = int.from_bytes(payload[:8], "big")
    try:
        return counter, AESGCM(key).decrypt(bytes(4) + payload[:8], payload[8:], None)
    except InvalidTag:
        raise Refused(Reason.UNREADABLE, "the frame is another session's, or altered") from None
