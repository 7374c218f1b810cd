"""Messages, encrypted for a circle: the service and the network see only the envelope.

An envelope is what a mailbox keeps: ``msg_id``, ``circle_id``, ``channel_id``,
``author_node_id`` and ``created_ts`` in clear, and name and text in ``enc``
(AES-256-GCM; the clear members are authenticated with it). The form of older
clients, with name and text in clear and a ``mac``, is not read: its key also
signs what strangers choose in the handshakes of existing clients, so anybody can
obtain such a ``mac``. Every member holds the same key, so an envelope proves
that a member wrote it, not which one.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import json
import re
import secrets
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from muster.backoff import Entropy
from muster.errors import BadValue
from muster.felund.circle import Circle

CONTROL = "__control"
"""The channel that carries events between programs and not text between people."""

GENERAL = "general"
"""The channel of whoever names none."""

HEADS = ("msg_id", "circle_id", "channel_id", "author_node_id", "created_ts")
"""The members of an envelope that stay in clear, in the order of their authentication."""

NONCE_BYTES = 12
KEY_ID = "epoch-0"
ALGORITHM = "AES-256-GCM"

_TAG_BYTES = 16

_HANDSHAKE_NONCE = re.compile(r"[0-9a-f]{32}")


class Unreadable(Exception):
    """The envelope is not one that this circle can read: another key, or altered."""


@dataclass(frozen=True, slots=True)
class Note:
    """A message as people see it: who wrote what, where and when."""

    msg_id: str
    circle_id: str
    channel_id: str
    author_node_id: str
    created_ts: int
    display_name: str
    text: str

    def heads(self) -> dict[str, Any]:
        """Return the members that stay in clear."""
        return {name: getattr(self, name) for name in HEADS}


def new_msg_id(node_id: str, *, now: int, entropy: Entropy = secrets.token_bytes) -> str:
    """Make the name of a new message; unique without asking anyone."""
    seed = f"{node_id}|{now}|{entropy(8).hex()}"
    return hashlib.sha256(seed.encode()).hexdigest()[:32]


def new_note(
    circle: Circle,
    node_id: str,
    text: str,
    *,
    now: int,
    display_name: str = "",
    channel: str = GENERAL,
    entropy: Entropy = secrets.token_bytes,
) -> Note:
    """Make a message of a node, written now."""
    return Note(
        msg_id=new_msg_id(node_id, now=now, entropy=entropy),
        circle_id=circle.circle_id,
        channel_id=channel,
        author_node_id=node_id,
        created_ts=now,
        display_name=display_name,
        text=text,
    )


def encrypt(circle: Circle, note: Note, *, nonce: bytes | None = None) -> dict[str, Any]:
    """Write a note as an envelope.

    A *nonce* is used once per circle; by default it is random, which is safe for
    2^32 messages of a circle (NIST SP 800-38D, 8.3). Raises `ValueError` for a
    note that nobody could read: half a surrogate pair, or a bar in an identifier.
    """
    if any("|" in str(head) for head in note.heads().values()):
        raise ValueError("an identifier of a message cannot hold a '|'")
    spent = secrets.token_bytes(NONCE_BYTES) if nonce is None else nonce
    plain = {"display_name": note.display_name, "text": note.text}
    sealed = _cipher(circle).encrypt(spent, _compact(plain), aad(note))
    return {
        **note.heads(),
        "enc": {
            "alg": ALGORITHM,
            "key_id": KEY_ID,
            "nonce": base64.b64encode(spent).decode(),
            "ciphertext": base64.b64encode(sealed).decode(),
        },
    }


def decrypt(circle: Circle, envelope: Mapping[str, Any]) -> Note:
    """Read an encrypted envelope; what is not encrypted counts for nothing.

    Raises `Unreadable`, whatever is wrong with it.
    """
    if _text(envelope, "circle_id") != circle.circle_id:
        raise Unreadable("the message belongs to another circle")
    note = _note(envelope, display_name="", text="")
    plain = _opened(circle, envelope.get("enc"), aad=aad(note))
    return _note(envelope, display_name=_text(plain, "display_name"), text=_text(plain, "text"))


def aad(note: Note) -> bytes:
    """Return the bytes that are authenticated beside the ciphertext."""
    return "|".join(str(head) for head in note.heads().values()).encode()


def datachannel_auth(circle: Circle, my_nonce: str, peer_nonce: str) -> str:
    """Return what proves to a peer, over a data channel, that we are of the circle.

    The peer chooses its nonce, and the circle's secret signs it: raises `BadValue`, a
    `ValueError`, for anything but 32 lower-case hex digits, and for our own nonce sent
    back, which a stranger could answer with our own proof. It proves nothing about the
    connection: the DTLS fingerprints are not part of it, so whoever passes both sides'
    frames on may sit between them.
    """
    for nonce in (my_nonce, peer_nonce):
        if not _HANDSHAKE_NONCE.fullmatch(nonce):
            raise BadValue("a nonce of the handshake has 32 lower-case hex digits")
    if my_nonce == peer_nonce:
        raise BadValue("the peer sent our own nonce back")
    proof = f"dc-auth:{my_nonce}:{peer_nonce}".encode()
    return hmac.digest(circle.secret, proof, "sha256").hex()


def _cipher(circle: Circle) -> Any:
    from cryptography.hazmat.primitives.ciphers.aead import AESGCM

    return AESGCM(circle.message_key)


def _opened(circle: Circle, enc: Any, *, aad: bytes) -> Mapping[str, Any]:
    from cryptography.exceptions import InvalidTag

    if not isinstance(enc, Mapping):
        raise Unreadable("the message is not encrypted")
    nonce, sealed = _bytes(enc, "nonce"), _bytes(enc, "ciphertext")
    if len(nonce) != NONCE_BYTES or len(sealed) < _TAG_BYTES:
        raise Unreadable("the nonce or the ciphertext has the wrong length")
    try:
        plain = json.loads(_cipher(circle).decrypt(nonce, sealed, aad))
    except InvalidTag:
        raise Unreadable("the message was altered or encrypted with another key") from None
    except (ValueError, RecursionError):
        raise Unreadable("the decrypted message is not JSON") from None
    if not isinstance(plain, Mapping):
        raise Unreadable("the decrypted message is not an object")
    return plain


def _note(envelope: Mapping[str, Any], *, display_name: str, text: str) -> Note:
    created_ts = envelope.get("created_ts")
    if type(created_ts) is not int or not 0 <= created_ts < 2**53:
        raise Unreadable("created_ts is not a number of seconds")
    return Note(
        msg_id=_unambiguous(envelope, "msg_id"),
        circle_id=_unambiguous(envelope, "circle_id"),
        channel_id=_unambiguous(envelope, "channel_id"),
        author_node_id=_unambiguous(envelope, "author_node_id"),
        created_ts=created_ts,
        display_name=display_name,
        text=text,
    )


def _text(members: Mapping[str, Any], name: str) -> str:
    """Read a string that can be written as UTF-8, so that nothing later chokes on it."""
    value = members.get(name)
    if not isinstance(value, str):
        raise Unreadable(f"{name} is missing or not text")
    try:
        value.encode()
    except UnicodeEncodeError:
        raise Unreadable(f"{name} holds half a surrogate pair") from None
    return value


def _unambiguous(members: Mapping[str, Any], name: str) -> str:
    """Read a member that is authenticated between bars: a bar inside could move a border."""
    value = _text(members, name)
    if "|" in value:
        raise Unreadable(f"{name} holds a '|', which the authentication cannot tell from a border")
    return value


def _bytes(members: Mapping[str, Any], name: str) -> bytes:
    try:
        return base64.b64decode(_text(members, name), validate=True)
    except (binascii.Error, ValueError):
        raise Unreadable(f"{name} is not padded standard base64") from None


def _compact(value: Any) -> bytes:
    return json.dumps(value, separators=(",", ":"), ensure_ascii=False).encode()
