"""Presences: where a node is and who it is, sealed for its circle and signed by its node key."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any, NamedTuple, Self

from capsules import fields
from capsules.errors import Reason, Refused
from capsules.keys import SIGNATURE_BYTES, VerifyKey
from muster import seals, texts
from muster.base64url import encode
from muster.keys import KEY_BYTES, Epoch, Node, bond_text, label, member_id, node_id
from muster.seals import Said

NAME_BYTES = 64
MOST_ENDPOINTS = 8
MOST_ABILITIES = 16
HOST_BYTES = 253

STALE_MS = 30 * 60 * 1000
"""A presence that is older says where a node was."""

_WORD = re.compile(r"[a-z][a-z0-9_]{0,31}", re.ASCII)


class Endpoint(NamedTuple):
    """Where a node says that it can be reached: transport, host and port."""

    transport: str
    host: str
    port: int


@dataclass(frozen=True, slots=True)
class Presence:
    """What a node tells its circle of itself."""

    node: VerifyKey
    member: VerifyKey
    bond: bytes
    box: bytes
    name: str
    endpoints: tuple[Endpoint, ...]
    abilities: tuple[str, ...]
    at_ms: int

    @property
    def node_id(self) -> bytes:
        """The node's name in this epoch."""
        return node_id(self.node)

    @property
    def member_id(self) -> bytes:
        """The member's name in all epochs."""
        return member_id(self.member.raw)

    @classmethod
    def of(
        cls,
        node: Node,
        *,
        name: str,
        at_ms: int,
        endpoints: tuple[Endpoint, ...] = (),
        abilities: tuple[str, ...] = (),
    ) -> Self:
        """Say where our node is."""
        member = node.member
        return cls(
            node.public,
            member.public,
            node.bond,
            member.box_public,
            name,
            endpoints,
            abilities,
            at_ms,
        )

    @classmethod
    def from_said(cls, epoch: Epoch, said: Said) -> Self:
        """Read a presence and check who signed it; raises `Refused`."""
        data = texts.read("presence", epoch.circle_id, said.text)
        presence = cls(
            node=texts.key(data, "node"),
            member=texts.key(data, "member"),
            bond=texts.raw(data, "bond", SIGNATURE_BYTES),
            box=texts.raw(data, "box", KEY_BYTES),
            name=fields.text(data, "name", most=NAME_BYTES),
            endpoints=tuple(
                _endpoint(item) for item in fields.items(data, "endpoints", most=MOST_ENDPOINTS)
            ),
            abilities=tuple(
                _word(item) for item in fields.items(data, "abilities", most=MOST_ABILITIES)
            ),
            at_ms=fields.integer(data, "at_ms"),
        )
        texts.check("presence", presence.node, said)
        bond = bond_text(epoch.hint, presence.node.raw, presence.box)
        if not presence.member.verify(bond, presence.bond):
            raise Refused(Reason.SIGNATURE_INVALID, "the bond is not signed by its member")
        return presence

    def said(self, node: Node) -> Said:
        """Write and sign the presence."""
        text = texts.write(
            "presence",
            node.epoch.circle_id,
            {
                "node": encode(self.node.raw),
                "member": encode(self.member.raw),
                "bond": encode(self.bond),
                "box": encode(self.box),
                "name": self.name,
                "endpoints": [list(endpoint) for endpoint in self.endpoints],
                "abilities": list(self.abilities),
                "at_ms": self.at_ms,
            },
        )
        return Said(text, node.key.sign(label("presence") + text))


def seal(node: Node, presence: Presence, *, nonce: bytes) -> bytes:
    """Seal a presence in the smaller of its two sizes; raises `ValueError` if it fits neither."""
    said, bound = presence.said(node), seals.for_presence(node.epoch.hint, node.id)
    key, (small, large) = node.epoch.seal_key("presence"), seals.PRESENCE_BYTES
    try:
        return seals.seal(key, said, bound, nonce=nonce, size=small)
    except ValueError:
        return seals.seal(key, said, bound, nonce=nonce, size=large)


def unseal(epoch: Epoch, node: bytes, sealed: bytes) -> Presence:
    """Open the presence that a service lists for a node, and check all that it claims.

    Raises `Refused`. Whether it is newer than what was believed before is the caller's to say.
    """
    if len(sealed) not in seals.PRESENCE_BYTES:
        raise Refused(Reason.MALFORMED, "a sealed presence has 640 or 864 bytes")
    said = seals.unseal(epoch.seal_key("presence"), sealed, seals.for_presence(epoch.hint, node))
    presence = Presence.from_said(epoch, said)
    if presence.node_id != node:
        raise Refused(Reason.WRONG_NODE, "the presence is another node's")
    return presence


def _endpoint(value: Any) -> Endpoint:
    if not isinstance(value, list) or len(value) != 3:
        raise fields.malformed("an endpoint must be a transport, a host and a port")
    parts = dict(zip(("transport", "host", "port"), value, strict=True))
    port = fields.integer(parts, "port", least=1)
    if port > 65535:
        raise fields.malformed("port must be at most 65535")
    return Endpoint(_word(parts["transport"]), fields.text(parts, "host", most=HOST_BYTES), port)


def _word(value: Any) -> str:
    if not isinstance(value, str) or not _WORD.fullmatch(value):
        raise fields.malformed("a transport or an ability must be a short word in lower case")
    return value
