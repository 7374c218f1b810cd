"""Who is in a circle: members, whom a node has met, and peers, which are there now."""

from __future__ import annotations

from dataclasses import dataclass

from capsules.keys import VerifyKey
from muster.presences import Endpoint, Presence


@dataclass(frozen=True, slots=True)
class Member:
    """A member whom this node has met: its keys, and where it was last."""

    id: bytes
    key: VerifyKey
    box: bytes
    name: str
    node_id: bytes
    epoch: int
    at_ms: int
    endpoints: tuple[Endpoint, ...] = ()


@dataclass(frozen=True, slots=True)
class Peer:
    """A node of the circle that is there now."""

    node_id: bytes
    member_id: bytes
    name: str
    endpoints: tuple[Endpoint, ...]
    abilities: tuple[str, ...]
    at_ms: int

    @classmethod
    def of(cls, presence: Presence) -> Peer:
        """Return whom a presence tells of."""
        return cls(
            presence.node_id,
            presence.member_id,
            presence.name,
            presence.endpoints,
            presence.abilities,
            presence.at_ms,
        )
