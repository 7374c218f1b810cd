"""Boxes: a secret of 32 bytes, readable by one member; and the bodies of private channels."""

from __future__ import annotations

import unicodedata

from capsules.errors import Reason, Refused
from muster.keys import KEY_BYTES, agree, derive, label, x25519_public

BOX_BYTES = KEY_BYTES + 32 + 16
NONCE_BYTES = 12
SALT_BYTES = 16

ROUNDS = 600_000
"""How often a passphrase is hashed (OWASP, 2023, for PBKDF2-HMAC-SHA256)."""


def for_rekey(circle: bytes, epoch: int) -> bytes:
    """Return what the box of a new epoch secret is bound to."""
    return label("box rekey") + circle + epoch.to_bytes(4, "big")


def for_channel(circle: bytes, channel: bytes, number: int) -> bytes:
    """Return what the box of a channel key is bound to."""
    return label("box channel") + circle + channel + number.to_bytes(4, "big")


def box(secret: bytes, to: bytes, bound: bytes, *, ephemeral: bytes) -> bytes:
    """Box a secret to a member's box key.

    *ephemeral* is 32 random bytes, used once. Raises `Refused` (``WEAK_KEY``) for a box key
    that leads to nothing.
    """
    from cryptography.hazmat.primitives.ciphers.aead import AESGCM

    fresh = x25519_public(ephemeral)
    key = derive(agree(ephemeral, to), fresh + to, "box")
    return fresh + AESGCM(key).encrypt(bytes(NONCE_BYTES), secret, bound)


def unbox(sealed: bytes, private: bytes, bound: bytes) -> bytes:
    """Open a box; raises `Refused` (``MALFORMED``, ``WEAK_KEY`` or ``UNREADABLE``)."""
    from cryptography.exceptions import InvalidTag
    from cryptography.hazmat.primitives.ciphers.aead import AESGCM

    if len(sealed) != BOX_BYTES:
        raise Refused(Reason.MALFORMED, f"a box has {BOX_BYTES} bytes")
    fresh, closed = sealed[:KEY_BYTES], sealed[KEY_BYTES:]
    key = derive(agree(private, fresh), fresh + x25519_public(private), "box")
    try:
        return AESGCM(key).decrypt(bytes(NONCE_BYTES), closed, bound)
    except InvalidTag:
        raise Refused(Reason.UNREADABLE, "the box is another member's, or altered") from None


def passphrase_key(passphrase: str, salt: bytes) -> bytes:
    """Return the channel key that follows from a passphrase: as people type it, in NFC."""
    from cryptography.hazmat.primitives import hashes
    from cryptography.hazmat.primitives.kdf.pbkdf2 import PBKDF2HMAC

    typed = unicodedata.normalize("NFC", passphrase).encode()
    return PBKDF2HMAC(hashes.SHA256(), KEY_BYTES, salt, ROUNDS).derive(typed)


def for_body(circle: bytes, channel: bytes, number: int, author: bytes, seq: int) -> bytes:
    """Return what the body of a record in a private channel is bound to."""
    place = number.to_bytes(4, "big") + author + seq.to_bytes(8, "big")
    return label("channel") + circle + channel + place


def close_body(key: bytes, text: bytes, bound: bytes, *, nonce: bytes) -> bytes:
    """Encrypt the body of a record in a private channel."""
    from cryptography.hazmat.primitives.ciphers.aead import AESGCM

    return nonce + AESGCM(key).encrypt(nonce, text, bound)


def open_body(key: bytes, closed: bytes, bound: bytes) -> bytes:
    """Read the body of a record in a private channel; raises `Refused`."""
    from cryptography.exceptions import InvalidTag
    from cryptography.hazmat.primitives.ciphers.aead import AESGCM

    if len(closed) < NONCE_BYTES + 16:
        raise Refused(Reason.MALFORMED, "the body of a private channel has at least 28 bytes")
    try:
        return AESGCM(key).decrypt(closed[:NONCE_BYTES], closed[NONCE_BYTES:], bound)
    except InvalidTag:
        raise Refused(
            Reason.UNREADABLE, "the body is under another channel key, or altered"
        ) from None
