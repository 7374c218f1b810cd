"""Shares: what one network may have of a list, as long as others want it too (ADR 0010).

Nothing is left empty for the sake of a share: a community behind one address has all
its places, and makes way for the first node from elsewhere.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from chalicelib.tables import Slot

NEW, LONG = "new", "long"


class Shares:
    """How much each network has; *most* is the share of a narrow one, twice that of a wide one."""

    def __init__(self, most: int, slots: Iterable[Slot] = ()) -> None:
        self._most = most
        self._held: dict[str, int] = {}
        for slot in slots:
            self._count(slot)

    def used_up(self, networks: Sequence[str]) -> set[str]:
        """Return those of a node's networks that have their share."""
        pairs = enumerate(networks)
        return {name for wide, name in pairs if self._held.get(name, 0) >= self._most << wide}

    def exceeded(self, slot: Slot) -> bool:
        """Say whether a slot's networks have more than their share."""
        pairs = enumerate(slot.networks)
        return any(self._held[name] > self._most << wide for wide, name in pairs)

    def take(self, slot: Slot) -> bool:
        """Count one more slot unless a network of its has its share; say whether it counts."""
        for wide, name in enumerate(slot.networks):
            if self._held.get(name, 0) >= self._most << wide:
                return False
        self._count(slot)
        return True

    def _count(self, slot: Slot) -> None:
        for name in slot.networks:
            self._held[name] = self._held.get(name, 0) + 1


class _Half:
    """The slots of a kind, those within the shares of their networks and those beyond."""

    def __init__(self, share: int) -> None:
        self._shares = Shares(share)
        self.within: list[Slot] = []
        self.beyond: list[Slot] = []

    def add(self, slot: Slot) -> None:
        (self.within if self._shares.take(slot) else self.beyond).append(slot)


def fair(slots: Iterable[Slot], *, most: int, share: int) -> list[Slot]:
    """Choose so many of *slots*, which come in order of preference.

    Half of them are long-lived nodes if there are so many, those within their networks'
    shares first. Newcomers beyond a share come last of all. No node is chosen twice.
    """
    seen: set[str] = set()
    new, long = _Half(share), _Half(share)
    for slot in slots:
        if slot.peer_id not in seen:
            seen.add(slot.peer_id)
            (long if slot.slot.startswith(LONG) else new).add(slot)
            if len(new.within) >= most - most // 2 and len(long.within) >= most // 2:
                break  # of both there are enough, whatever else comes
    stayed = long.within + long.beyond
    kept = min(len(new.within), max(most - len(stayed), most - most // 2))
    chosen = [*new.within[:kept], *stayed[: most - kept]]
    return chosen + new.beyond[: most - len(chosen)]


def kind(slot: Slot) -> str:
    """Return whether a slot's place is a newcomer's or one among the long-lived."""
    return LONG if slot.slot.startswith(LONG) else NEW


__all__ = ["LONG", "NEW", "Shares", "fair", "kind"]
