"""Ed25519 keys: signing keys, verify keys and their short names.

PyNaCl is imported where it is first needed: whoever only reads metadata starts without it.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import re
from dataclasses import dataclass, field
from typing import Self

KEY_BYTES = 32
SIGNATURE_BYTES = 64

_FIELD = 2**255 - 19
_ORDER = 2**252 + 27742317777372353535851937790883648493
_SMALL_ORDER = frozenset(
    int.from_bytes(bytes.fromhex(y), "little")
    for y in (
        "00" * 32,
        "01" + "00" * 31,
        "26e8958fc2b227b045c3f489f2ef98f0d5dfac05d3c63339b13802886d53fc05",
        "c7176a703d4dd84fba3c0b760d10670f2a2053fa2c39ccc64ec7fd7792ac037a",
        "ec" + "ff" * 30 + "7f",
    )
)
"""The y of the eight points that a few additions lead back to themselves."""

_PKCS8 = bytes.fromhex("302e020100300506032b657004220420")
"""What stands before the 32 bytes of a signing key in PKCS#8 DER (RFC 8410, section 7)."""

_SPACE = re.compile(r"[\t\n\f\r ]+", re.ASCII)
_ALPHABET = re.compile(r"[A-Za-z0-9+/]*", re.ASCII)


@dataclass(frozen=True, slots=True)
class VerifyKey:
    """The half of a key that everybody may know."""

    raw: bytes

    def __post_init__(self) -> None:
        if len(self.raw) != KEY_BYTES:
            raise ValueError(f"an Ed25519 verify key has {KEY_BYTES} bytes")

    @classmethod
    def from_base64(cls, text: str) -> Self:
        """Read standard base64, padded and in its only form, as `to_base64` writes it.

        Raises `ValueError` for anything else.
        """
        return cls(exact_base64(text))

    def to_base64(self) -> str:
        """Return the 44 characters of standard base64 that name this key everywhere."""
        return base64.b64encode(self.raw).decode()

    @property
    def key_id(self) -> str:
        """The short name: 16 hex digits of the key's SHA-256."""
        return hashlib.sha256(self.raw).hexdigest()[:16]

    def verify(self, message: bytes, signature: bytes) -> bool:
        """Say whether *signature* over *message* was made by the other half of this key.

        Libraries disagree about signatures that nobody makes by accident, so one rule stands in
        front of each, here and in JavaScript: S is below the order of the group, key and R are
        points in their only spelling and not of small order; then the cofactorless equation
        (docs/protocol2.md, Signatures).
        """
        from nacl import bindings, exceptions

        if len(signature) != SIGNATURE_BYTES or not _one_meaning(self.raw, signature):
            return False
        try:
            bindings.crypto_sign_open(signature + message, self.raw)
        except exceptions.BadSignatureError:
            return False
        return True


@dataclass(frozen=True, slots=True)
class SigningKey:
    """The half of a key that never leaves its place; it does not show in logs."""

    seed: bytes = field(repr=False)

    def __post_init__(self) -> None:
        if len(self.seed) != KEY_BYTES:
            raise ValueError(f"an Ed25519 signing key has {KEY_BYTES} bytes")

    @classmethod
    def from_pkcs8(cls, der: bytes) -> Self:
        """Read the 48 bytes of PKCS#8 DER that browsers export."""
        if len(der) != len(_PKCS8) + KEY_BYTES or not der.startswith(_PKCS8):
            raise ValueError("this is not an Ed25519 signing key in PKCS#8")
        return cls(der[len(_PKCS8) :])

    @classmethod
    def from_base64(cls, text: str) -> Self:
        """Read the base64 of PKCS#8 (as existing tools keep it) or of the bare 32 bytes."""
        raw = lenient_base64(text)
        return cls(raw) if len(raw) == KEY_BYTES else cls.from_pkcs8(raw)

    def to_pkcs8(self) -> bytes:
        """Return PKCS#8 DER, which WebCrypto imports."""
        return _PKCS8 + self.seed

    def to_base64(self) -> str:
        """Return PKCS#8 DER in standard base64, as existing tools keep it."""
        return base64.b64encode(self.to_pkcs8()).decode()

    @property
    def verify_key(self) -> VerifyKey:
        """The other half."""
        from nacl import bindings

        return VerifyKey(bindings.crypto_sign_seed_keypair(self.seed)[0])

    def sign(self, message: bytes) -> bytes:
        """Return the 64 bytes of an Ed25519 signature (RFC 8032)."""
        from nacl import bindings

        secret = bindings.crypto_sign_seed_keypair(self.seed)[1]
        return bindings.crypto_sign(message, secret)[:SIGNATURE_BYTES]


def _one_meaning(key: bytes, signature: bytes) -> bool:
    """Say whether every library would come to the same verdict."""
    if int.from_bytes(signature[32:], "little") >= _ORDER:
        return False
    for point in (key, signature[:32]):
        y = int.from_bytes(point, "little") & (2**255 - 1)
        if y >= _FIELD or y in _SMALL_ORDER:
            return False
    return True


def exact_base64(text: str) -> bytes:
    """Read padded standard base64 that has no other spelling; raises `ValueError`."""
    raw = base64.b64decode(text.encode("ascii"), validate=True)
    if base64.b64encode(raw).decode() != text:
        raise ValueError("this base64 has another spelling")
    return raw


def lenient_base64(text: str) -> bytes:
    """Read base64 as ``atob`` of browsers does; raises `ValueError` where it throws.

    White space is skipped, padding may be missing, left-over bits may be set (WHATWG
    Infra, forgiving-base64 decode).
    """
    packed = _SPACE.sub("", text)
    if len(packed) % 4 == 0:
        packed = packed.removesuffix("=") if not packed.endswith("==") else packed[:-2]
    if len(packed) % 4 == 1 or not _ALPHABET.fullmatch(packed):
        raise ValueError("this is not base64")
    return binascii.a2b_base64(packed + "=" * (-len(packed) % 4))
