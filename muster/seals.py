"""Seals: the one form of everything that members keep from the service.

A sealed thing is ``nonce 12 + AES-256-GCM(length u32 + signature 64 + text + zeros) + tag 16``.
The signature is inside, so that the service does not see who signed; the zeros hide how long
the text is. What the seal is bound to (circle, node, receiver) is authenticated beside it.
"""

from __future__ import annotations

import hashlib
from typing import NamedTuple

from capsules.errors import Reason, Refused
from capsules.keys import SIGNATURE_BYTES
from muster.keys import label

NONCE_BYTES = 12
TAG_BYTES = 16
STEP_BYTES = 256
"""Sealed things are filled to a multiple of this, ..."""

PRESENCE_BYTES = (640, 864)
"""... and presences to one of these, so that one write unit keeps them."""

SIGNAL_BYTES = 16 * 1024
"""How large a sealed signal may be."""

_HEAD_BYTES = 4 + SIGNATURE_BYTES
_FRAME_BYTES = NONCE_BYTES + _HEAD_BYTES + TAG_BYTES


class Said(NamedTuple):
    """A text and the signature over it, as one seal holds them."""

    text: bytes
    signature: bytes


def seal(key: bytes, said: Said, bound: bytes, *, nonce: bytes, size: int | None = None) -> bytes:
    """Seal a signed text; *size* is how large it becomes, by default the next multiple of 256.

    A nonce is used once for a key: random ones are safe for 2^32 seals of an epoch. Raises
    `ValueError` if the text does not fit.
    """
    from cryptography.hazmat.primitives.ciphers.aead import AESGCM

    least = _FRAME_BYTES + len(said.text)
    full = size or -(-least // STEP_BYTES) * STEP_BYTES
    if least > full:
        raise ValueError(f"the text has {least - full} bytes too many for a seal of {full}")
    plain = len(said.text).to_bytes(4, "big") + said.signature + said.text + bytes(full - least)
    return nonce + AESGCM(key).encrypt(nonce, plain, bound)


def unseal(key: bytes, sealed: bytes, bound: bytes) -> Said:
    """Open what `seal` made; the signature is still to be checked.

    Raises `Refused`: ``MALFORMED`` for what has another form, ``UNREADABLE`` for another key,
    another circle, sender or receiver, or what was altered.
    """
    from cryptography.exceptions import InvalidTag
    from cryptography.hazmat.primitives.ciphers.aead import AESGCM

    if len(sealed) < _FRAME_BYTES:
        raise Refused(Reason.MALFORMED, f"a sealed thing has at least {_FRAME_BYTES} bytes")
    try:
        plain = AESGCM(key).decrypt(sealed[:NONCE_BYTES], sealed[NONCE_BYTES:], bound)
    except InvalidTag:
        raise Refused(
            Reason.UNREADABLE, "it was sealed with another key or for something else, or altered"
        ) from None
    end = _HEAD_BYTES + int.from_bytes(plain[:4], "big")
    if end > len(plain) or any(plain[end:]):
        raise Refused(Reason.MALFORMED, "the seal is not a text filled with zeros")
    return Said(plain[_HEAD_BYTES:end], plain[4:_HEAD_BYTES])


def sealed_id(sealed: bytes) -> bytes:
    """Return the name by which a service and its readers tell sealed things apart."""
    return hashlib.sha256(sealed).digest()[:16]


def for_presence(hint: bytes, node: bytes) -> bytes:
    """Return what a presence is bound to: its circle and its node."""
    return label("presence") + hint + node


def for_signal(hint: bytes, node: bytes, to: bytes) -> bytes:
    """Return what a signal is bound to: its circle, its sender and its receiver."""
    return label("signal") + hint + node + to


def for_record(hint: bytes) -> bytes:
    """Return what a record or a rekey is bound to: its circle."""
    return label("record") + hint
