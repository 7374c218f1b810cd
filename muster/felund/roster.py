"""Roster: who of a circle is there, as far as we have heard, told as changes."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass

from muster.backoff import Rim
from muster.felund import records

LATE_S = 60.0
"""How long what was said earlier may still be under way."""

LONGEST_S = 1800.0
"""A presence is doubted after so long, whatever it says of itself."""


@dataclass(frozen=True, slots=True)
class Joined:
    """A node of the circle is there, or has changed where or what it is."""

    peer: records.Peer


@dataclass(frozen=True, slots=True)
class Left:
    """A node of the circle is gone."""

    node_id: str


Change = Joined | Left


@dataclass(frozen=True, slots=True)
class _Heard:
    """A node as we heard of it last; both times are of the steady clock."""

    peer: records.Peer
    at: float
    until: float


class Roster:
    """The nodes that are there; whoever went without a word is still in it after `ends_at`."""

    def __init__(self, rim: Rim) -> None:
        self._rim = rim
        self._heard: dict[str, _Heard] = {}

    def ends_at(self) -> float:
        """Return when the first presence is over unless it was renewed, by the steady clock."""
        return min((heard.until for heard in self._heard.values()), default=math.inf)

    def listed(self, found: records.Peers) -> list[Change]:
        """Take the circle's list of nodes; return what has changed."""
        there = {peer.node_id for peer in found.peers}
        gone = [] if found.more else [name for name in self._heard if name not in there]
        return self.told(found.peers, gone, server_time=found.server_time)

    def told(
        self,
        joined: Iterable[records.Peer],
        left: Iterable[str],
        *,
        server_time: int | None = None,
    ) -> list[Change]:
        """Take who came and who left; a renewal is no change."""
        changes: list[Change] = [
            Left(name) for name in left if self._heard.pop(name, None) is not None
        ]
        for peer in joined:
            known = self._heard.get(peer.node_id)
            if known is not None and self._overtaken(peer, known):
                continue
            since = peer.observed_at if server_time is None else server_time
            self._hear(peer, left_s=peer.expires_at - since)
            if known is None or _where(known.peer) != _where(peer):
                changes.append(Joined(peer))
        return changes

    def _hear(self, peer: records.Peer, *, left_s: int) -> None:
        now = self._rim.steady()
        self._heard[peer.node_id] = _Heard(peer, now, now + min(max(left_s, 0), LONGEST_S))

    def _overtaken(self, peer: records.Peer, known: _Heard) -> bool:
        """Say whether this is older than what we know; a date of tomorrow's holds for a minute."""
        late = self._rim.steady() - known.at <= LATE_S
        return late and peer.observed_at < known.peer.observed_at


def _where(peer: records.Peer) -> object:
    return peer.endpoints, peer.capabilities
