"""Anchors: whom the nodes that nobody reaches hold on to, the same for all of them.

    rank = 8 if public_reachable + 4 if can_anchor + 2 if not is_mobile

Of equals the one stands whose SHA-256 of the node id is greater (docs/chat.md, Anchors). Nothing
here waits: who was heard, and when, is given.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping

CAN_ANCHOR, PUBLIC_REACHABLE, IS_MOBILE = "can_anchor", "public_reachable", "is_mobile"
"""Words among a presence's abilities."""

COOLDOWN_S = 60.0
"""So long an anchor is kept, though a better one is there."""

STALE_S = 20.0
"""An anchor that was not heard for longer is none."""


def score(node_id: bytes, abilities: Iterable[str]) -> tuple[int, bytes]:
    """Return how good an anchor a node is; a greater one is better."""
    words = frozenset(abilities)
    points = 8 * (PUBLIC_REACHABLE in words) + 4 * (CAN_ANCHOR in words)
    points += 2 * (IS_MOBILE not in words)
    return points, hashlib.sha256(node_id).digest()


def ranked(nodes: Mapping[bytes, Iterable[str]]) -> list[bytes]:
    """Return the nodes that can anchor, the best first; *nodes* are abilities by node id."""
    found = {node: frozenset(words) for node, words in nodes.items()}
    able = [node for node, words in found.items() if CAN_ANCHOR in words]
    return sorted(able, key=lambda node: score(node, found[node]), reverse=True)


class Anchor:
    """The anchor that a node holds on to: kept for a while, changed at once when it goes."""

    def __init__(self) -> None:
        self.node: bytes | None = None
        self._since = float("-inf")

    def choose(
        self, nodes: Mapping[bytes, Iterable[str]], heard: Mapping[bytes, float], *, now: float
    ) -> bytes | None:
        """Choose among nodes by when each was heard last (seconds of a steady clock)."""
        fresh = {
            node: words
            for node, words in nodes.items()
            if now - heard.get(node, float("-inf")) <= STALE_S
        }
        order = ranked(fresh)
        if self.node in order and now - self._since < COOLDOWN_S:
            return self.node
        best = order[0] if order else None
        if best != self.node:
            self.node, self._since = best, now
        return self.node
