"""Bootstrap: from a URL and a key to peers that can be believed.

    found = await bootstrap("https://host/capsules/main/peers.json#KEY")
    for peer in found.peers:
        print(peer.peer_id)

`discover` gives the peers as they arrive, `bootstrap` all that came in time
(docs/bootstrap.md).
"""

from __future__ import annotations

from capsules.errors import Reason, Refused
from muster.bootstrap.discovery import Found, Options, bootstrap, discover
from muster.bootstrap.gathering import Peer
from muster.bootstrap.sources import Attempt, Kind, Source

__all__ = [
    "Attempt",
    "Found",
    "Kind",
    "Options",
    "Peer",
    "Reason",
    "Refused",
    "Source",
    "bootstrap",
    "discover",
]
