"""Gathering: believed tickets from many sources, merged into peers.

A peer is a ``peerId`` with a ``userId``, as for existing clients, and of its tickets the one
that lives longest counts. But whoever merely lists tickets cannot replace one that a signed
capsule vouches for by one of another key: anybody can sign a ticket with any name.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable
from dataclasses import dataclass, replace
from typing import Any

from capsules.ticket import SKEW_MS, Ticket

MAX_PEERS = 2000
"""How many peers are gathered; this bounds a flood of names."""


@dataclass(frozen=True, slots=True)
class Peer:
    """A node that says it can be reached, and who told us.

    ``vouched`` says that it stands in a believed capsule, and ``found_ms`` how long after the
    search began it was first believed.
    """

    peer_id: str
    user_id: str
    ticket: Ticket
    sources: tuple[str, ...]
    vouched: bool
    found_ms: float

    @property
    def expires_at(self) -> int:
        """When its ticket is over, in Unix seconds."""
        return self.ticket.expires_at_ms // 1000

    def to_json(self) -> dict[str, Any]:
        """Return the peer for programs."""
        return {
            "peer_id": self.peer_id,
            "user_id": self.user_id,
            "expires_at": self.expires_at,
            "vouched": self.vouched,
            "found_ms": self.found_ms,
            "sources": list(self.sources),
            "ticket": self.ticket.to_json(),
        }


class Gathering:
    """The peers so far; tickets come in verified, in any order."""

    def __init__(self, *, without: str | None = None) -> None:
        self._without = without
        self._peers: dict[tuple[str, str], Peer] = {}

    def add(
        self,
        ticket: Ticket,
        sources: Iterable[str],
        *,
        vouched: bool = False,
        found_ms: float = 0.0,
    ) -> Peer | None:
        """Take a ticket; return the peer if it was not known before."""
        name = ticket.peer_id, ticket.user_id
        if ticket.peer_id == self._without:
            return None
        known = self._peers.get(name)
        if known is None:
            if len(self._peers) >= MAX_PEERS:
                return None
            peer = Peer(*name, ticket, tuple(sources), vouched, found_ms)
            self._peers[name] = peer
            return peer
        if known.ticket.verify_key != ticket.verify_key:
            self._peers[name] = _other_key(known, ticket, tuple(sources), vouched)
            return None
        longest = max(known.ticket, ticket, key=lambda one: one.expires_at_ms)
        self._peers[name] = replace(
            known,
            ticket=longest,
            sources=tuple(dict.fromkeys((*known.sources, *sources))),
            vouched=known.vouched or vouched,
        )
        return None

    def peers(self, *, now_ms: int, revoked: Collection[str] = ()) -> tuple[Peer, ...]:
        """Return the live peers: those in a believed capsule first, then the most recent."""
        live = [
            peer
            for peer in self._peers.values()
            if not _over(peer, now_ms) and peer.ticket.verify_key.to_base64() not in revoked
        ]
        live.sort(key=lambda peer: (not peer.vouched, -peer.ticket.issued_at_ms, peer.peer_id))
        return tuple(live)

    def prune(self, *, now_ms: int) -> None:
        """Forget peers whose ticket has expired."""
        gone = [
            name
            for name, peer in self._peers.items()
            if peer.ticket.expires_at_ms + SKEW_MS < now_ms
        ]
        for name in gone:
            del self._peers[name]


def _over(peer: Peer, now_ms: int) -> bool:
    return peer.ticket.expires_at_ms + SKEW_MS < now_ms


def _other_key(known: Peer, ticket: Ticket, sources: tuple[str, ...], vouched: bool) -> Peer:
    """Choose between two keys for one name."""
    if known.vouched != vouched:
        wins = vouched
    else:
        wins = ticket.expires_at_ms > known.ticket.expires_at_ms
    return replace(known, ticket=ticket, sources=sources, vouched=vouched) if wins else known
