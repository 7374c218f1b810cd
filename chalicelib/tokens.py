"""Tokens: what the service signs so that it need not remember.

A token names its use, node and circle and is signed with the service's Ed25519
key; whoever holds the verify key (`GET /v1/info`) can check it without a store.
"""

from __future__ import annotations

import hashlib
from typing import Literal, Protocol

import msgspec

from muster import base64url
from muster.errors import InvalidToken, SessionExpired

PREFIX = "muster1"
_PURPOSE = b"muster-token-v1\n"
_MAX_CHARS = 1024


class Token(msgspec.Struct, frozen=True, omit_defaults=True):
    """What a token says: its use, and for whom and until when."""

    use: Literal["relay", "subscribe", "assist"]
    circle_hint: str
    node_id: str
    expires_at: int
    session_id: str = ""


class Signer(Protocol):
    """The service's key: signs tokens and checks its own signatures."""

    @property
    def verify_key(self) -> bytes:
        """The public half, 32 bytes."""

    def sign(self, message: bytes) -> bytes:
        """Return the 64-byte Ed25519 signature."""

    def verify(self, message: bytes, signature: bytes) -> bool:
        """Say whether the signature is this key's."""


class Ed25519Signer:
    """A signer over PyNaCl, from a 32-byte seed."""

    def __init__(self, seed: bytes) -> None:
        from nacl.signing import SigningKey  # only calls about tokens need it

        self._key = SigningKey(seed)
        self.verify_key = bytes(self._key.verify_key)

    def sign(self, message: bytes) -> bytes:
        """Return the 64-byte Ed25519 signature."""
        return bytes(self._key.sign(message).signature)

    def verify(self, message: bytes, signature: bytes) -> bool:
        """Say whether the signature is this key's."""
        from nacl.exceptions import BadSignatureError
        from nacl.exceptions import ValueError as BadValueError

        try:
            self._key.verify_key.verify(message, signature)
        except (BadSignatureError, BadValueError):
            return False
        return True


def issue(signer: Signer, token: Token) -> str:
    """Write a token: prefix, claims and signature, safe in headers and queries."""
    claims = base64url.encode(msgspec.json.encode(token))
    signature = base64url.encode(signer.sign(_PURPOSE + claims.encode()))
    return f"{PREFIX}.{claims}.{signature}"


def claimed(text: str) -> Token:
    """Read what a token says, whoever wrote it; raises `InvalidToken` if it is none."""
    claims, _ = _split(text)
    try:
        return msgspec.json.decode(_unb64(claims), type=Token)
    except (msgspec.MsgspecError, UnicodeDecodeError):
        raise InvalidToken("this is not a token of this service") from None


def read(signer: Signer, text: str, *, now: int) -> Token:
    """Read a token that this service issued.

    Raises `InvalidToken` or `SessionExpired`.
    """
    claims, signature = _split(text)
    if not signer.verify(_PURPOSE + claims.encode(), _unb64(signature)):
        raise InvalidToken("the token was not issued by this service")
    token = msgspec.json.decode(_unb64(claims), type=Token)
    if token.expires_at <= now:
        raise SessionExpired("the token has expired; ask for a new one")
    return token


def key_id(verify_key: bytes) -> str:
    """Return the short name of a verify key: 16 hex digits of its SHA-256."""
    return hashlib.sha256(verify_key).hexdigest()[:16]


def _split(text: str) -> tuple[str, str]:
    """Return a token's claims and its signature, as they are written."""
    parts = text.split(".")
    if len(text) > _MAX_CHARS or not text.isascii() or len(parts) != 3 or parts[0] != PREFIX:
        raise InvalidToken("this is not a token of this service")
    return parts[1], parts[2]


def _unb64(text: str) -> bytes:
    try:
        return base64url.decode(text)
    except ValueError as error:
        raise InvalidToken(f"the token: {error}") from None
