"""Keys and names of version 2: what follows from a circle's secrets, and what each is for.

Every byte string that is signed, hashed, derived or sealed begins with a label, so that none
can stand for another (docs/protocol2.md, Keys). Secrets do not show in logs.
"""

from __future__ import annotations

import hashlib
import secrets
from dataclasses import dataclass, field
from functools import cached_property
from typing import Literal, Self

from capsules.errors import Reason, Refused
from capsules.keys import SigningKey, VerifyKey
from muster.backoff import Entropy

ID_BYTES = 16
SECRET_BYTES = 32
KEY_BYTES = 32

MOST_EPOCHS = 2**32 - 1

Sealed = Literal["presence", "signal", "record"]
"""What has a seal key of its own; a rekey is sealed as a record."""


def label(what: str) -> bytes:
    """Return what stands before everything of one kind."""
    return b"muster2 " + what.encode("ascii") + b"\n"


def identify(what: str, key: bytes) -> bytes:
    """Return the 16 bytes that name a key; as text they are lower-case hex."""
    return hashlib.sha256(label(what) + key).digest()[:ID_BYTES]


def derive(secret: bytes, salt: bytes, what: str) -> bytes:
    """Derive 32 bytes by HKDF-SHA256 (RFC 5869)."""
    from cryptography.hazmat.primitives import hashes
    from cryptography.hazmat.primitives.kdf.hkdf import HKDF

    return HKDF(hashes.SHA256(), KEY_BYTES, salt, label(what)).derive(secret)


def agree(private: bytes, public: bytes) -> bytes:
    """Return what two X25519 keys share (RFC 7748).

    Raises `Refused` (``WEAK_KEY``) where the other key leads to nothing but zeros.
    """
    from nacl import bindings

    try:
        shared = bindings.crypto_scalarmult(private, public)
    except RuntimeError:
        shared = bytes(KEY_BYTES)
    if not any(shared):
        raise Refused(Reason.WEAK_KEY, "the X25519 key is of small order")
    return shared


def x25519_public(private: bytes) -> bytes:
    """Return the public half of an X25519 key."""
    from nacl import bindings

    public: bytes = bindings.crypto_scalarmult_base(private)
    return public


def circle_id(founder: VerifyKey) -> bytes:
    """Return the name of the circle that a founder key makes; it lasts over all epochs."""
    return identify("circle", founder.raw)


def node_id(node: VerifyKey) -> bytes:
    """Return the name of a node in an epoch."""
    return identify("node", node.raw)


def service_id(service: VerifyKey) -> bytes:
    """Return the name of a service, which stands in its address."""
    return identify("service", service.raw)


@dataclass(frozen=True)
class Epoch:
    """One secret of a circle, shared by its members until the founder makes the next."""

    circle_id: bytes
    number: int
    secret: bytes = field(repr=False)

    def __post_init__(self) -> None:
        """Refuse what cannot be a secret."""
        if len(self.circle_id) != ID_BYTES or len(self.secret) != SECRET_BYTES:
            raise ValueError("a circle id has 16 bytes, and an epoch secret 32")
        if not 0 <= self.number <= MOST_EPOCHS:
            raise ValueError("epochs are numbered from 0, in 32 bits")

    @classmethod
    def first(cls, founder: VerifyKey, entropy: Entropy = secrets.token_bytes) -> Self:
        """Make the first epoch of a new circle."""
        return cls(circle_id(founder), 0, entropy(SECRET_BYTES))

    @property
    def salt(self) -> bytes:
        """What tells the keys of this epoch from those of all others."""
        return self.circle_id + self.number.to_bytes(4, "big")

    @cached_property
    def circle_key(self) -> SigningKey:
        """The key that every member has, and that vouches for nodes."""
        return SigningKey(derive(self.secret, self.salt, "circle key"))

    @cached_property
    def circle_public(self) -> VerifyKey:
        """Its other half, which the service knows."""
        return self.circle_key.verify_key

    @cached_property
    def hint(self) -> bytes:
        """What the service calls the circle in this epoch."""
        return identify("hint", self.circle_public.raw)

    def seal_key(self, what: Sealed) -> bytes:
        """Return the key that seals presences, signals or records."""
        return self._seal_keys[what]

    @cached_property
    def _seal_keys(self) -> dict[Sealed, bytes]:
        kinds: tuple[Sealed, ...] = ("presence", "signal", "record")
        return {kind: derive(self.secret, self.salt, f"seal {kind}") for kind in kinds}


@dataclass(frozen=True)
class Member:
    """What a member signs and is boxed to; the same in all epochs of one circle."""

    circle_id: bytes
    secret: bytes = field(repr=False)

    def __post_init__(self) -> None:
        """Refuse what cannot be a secret."""
        if len(self.circle_id) != ID_BYTES or len(self.secret) != SECRET_BYTES:
            raise ValueError("a circle id has 16 bytes, and a member secret 32")

    @classmethod
    def new(cls, circle_id: bytes, entropy: Entropy = secrets.token_bytes) -> Self:
        """Make a member that nobody else can be."""
        return cls(circle_id, entropy(SECRET_BYTES))

    @cached_property
    def key(self) -> SigningKey:
        """The member key: it signs what lasts."""
        return SigningKey(derive(self.secret, self.circle_id, "member key"))

    @cached_property
    def public(self) -> VerifyKey:
        """The other half of the member key."""
        return self.key.verify_key

    @cached_property
    def id(self) -> bytes:
        """The member's name."""
        return member_id(self.public.raw)

    @cached_property
    def box_key(self) -> bytes:
        """The X25519 key that secrets are boxed to."""
        return derive(self.secret, self.circle_id, "box key")

    @cached_property
    def box_public(self) -> bytes:
        """The other half of the box key."""
        return x25519_public(self.box_key)

    def node(self, epoch: Epoch) -> Node:
        """Return the member's node in an epoch."""
        return Node(epoch, self)


@dataclass(frozen=True)
class Node:
    """A member's place in one epoch: it signs what is said now, calls for instance."""

    epoch: Epoch
    member: Member

    @cached_property
    def key(self) -> SigningKey:
        """The node key, new in each epoch."""
        return SigningKey(derive(self.member.secret, self.epoch.hint, "node key"))

    @cached_property
    def public(self) -> VerifyKey:
        """The other half of the node key."""
        return self.key.verify_key

    @cached_property
    def id(self) -> bytes:
        """The node's name, in this epoch."""
        return node_id(self.public)

    @cached_property
    def bond(self) -> bytes:
        """What shows that the node and the box key are this member's."""
        return self.member.key.sign(
            bond_text(self.epoch.hint, self.public.raw, self.member.box_public)
        )


def member_id(public: bytes) -> bytes:
    """Return the name of a member."""
    return identify("member", public)


def bond_text(hint: bytes, node: bytes, box: bytes) -> bytes:
    """Return what a member key signs of its node and box key in an epoch."""
    return label("bond") + hint + node + box
