"""What a search looks for: which community, at which sources, and as whom."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple, Self

from capsules.ticket import Ticket
from muster.bootstrap import sources
from muster.bootstrap.sources import Source


class Wanted(NamedTuple):
    """A community and where to look for it.

    With *expected* None a pinned capsule may be any community's, as for existing clients.
    *ticket* is left at every beacon; *without* is the peer id that is not given back.
    """

    community: str
    expected: str | None
    sources: tuple[Source, ...]
    ticket: Ticket | None = None
    without: str | None = None

    @classmethod
    def named(
        cls,
        capsules: Sequence[str],
        *,
        beacons: Sequence[str] = (),
        community: str | None = None,
        ticket: Ticket | None = None,
        peer_id: str | None = None,
    ) -> Self:
        """Read what a caller names; raises `muster.errors.BadValue`.

        Without *community* it is the one in whose folder the first capsule lies
        (``…/capsules/NAME/peers.json``), else the main one.
        """
        found = [sources.capsule(text) for text in capsules]
        places = dict.fromkeys([*found, *(sources.beacon(text) for text in beacons)])
        folders = [folder for source in found if (folder := sources.folder(source))]
        chosen = community or next(iter(folders), None)
        own = ticket.peer_id if ticket is not None else peer_id
        return cls(chosen or sources.MAINNET, chosen, tuple(places), ticket, own)
