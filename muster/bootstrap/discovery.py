"""Discovery: one search for the peers of a community, waited for or followed."""

from __future__ import annotations

import os
from collections.abc import AsyncGenerator, Sequence
from dataclasses import dataclass
from typing import Any, TypedDict, Unpack

import httpx2

from capsules.ticket import RULES, Rules, Ticket
from muster.backoff import Rim
from muster.bootstrap.cache import Cache
from muster.bootstrap.gathering import Peer
from muster.bootstrap.search import DEADLINE_S, Search
from muster.bootstrap.sources import Attempt
from muster.bootstrap.wanted import Wanted

LINGER_S = 1.0


class Options(TypedDict, total=False):
    """What both functions take, all of it by name.

    ``beacons``: further base URLs to ask. ``community``: if the capsule's folder does not say.
    ``ticket``: ours, left at every beacon. ``peer_id``: ours, to be omitted. ``cache``: a
    folder that remembers. ``deadline_s``: for each source. ``rules``: which tickets to
    believe. ``transport`` and ``rim``: the network and the clock, for tests.
    """

    beacons: Sequence[str]
    community: str | None
    ticket: Ticket | None
    peer_id: str | None
    cache: str | os.PathLike[str] | Cache | None
    deadline_s: float
    rules: Rules
    transport: httpx2.AsyncBaseTransport | None
    rim: Rim | None


@dataclass(frozen=True, slots=True)
class Found:
    """Who was found, and how it went with each source. Times are in milliseconds."""

    community: str
    peers: tuple[Peer, ...]
    sources: tuple[Attempt, ...]
    first_peer_ms: float | None
    took_ms: float

    def to_json(self) -> dict[str, Any]:
        """Return all of it for programs."""
        return {
            "ok": bool(self.peers),
            "community": self.community,
            "first_peer_ms": self.first_peer_ms,
            "took_ms": self.took_ms,
            "peers": [peer.to_json() for peer in self.peers],
            "sources": [attempt.to_json() for attempt in self.sources],
        }


async def bootstrap(
    *capsules: str, linger_s: float | None = LINGER_S, **options: Unpack[Options]
) -> Found:
    """Find peers of a community; *capsules* are ``URL#KEY``.

    Every source is asked at once. When there is a peer, the others have *linger_s* to answer
    too (None: all the time they have), so that one that hangs delays nobody. A failure of a
    source is never raised, but stands in ``sources``; only a URL or key that cannot be read
    raises `ValueError`.
    """
    wanted = _wanted(capsules, options)
    async with _search(wanted, options) as running:
        await running.settle(linger_s)
    return Found(
        community=wanted.community,
        peers=running.peers,
        sources=running.attempts,
        first_peer_ms=running.first_peer_ms,
        took_ms=running.elapsed_ms(),
    )


async def discover(*capsules: str, **options: Unpack[Options]) -> AsyncGenerator[Peer, None]:
    """Give each peer of a community as soon as it is believed, once.

    It ends when every source has answered or missed its deadline. Break off at will:
    ``async with contextlib.aclosing(discover(...)) as peers`` ends the search at once.
    """
    async with _search(_wanted(capsules, options), options) as running:
        async for peer in running:
            yield peer


def _wanted(capsules: Sequence[str], options: Options) -> Wanted:
    return Wanted.named(
        capsules,
        beacons=options.get("beacons", ()),
        community=options.get("community"),
        ticket=options.get("ticket"),
        peer_id=options.get("peer_id"),
    )


def _search(wanted: Wanted, options: Options) -> Search:
    cache = options.get("cache")
    return Search(
        wanted,
        cache=cache if cache is None or isinstance(cache, Cache) else Cache(cache),
        deadline_s=options.get("deadline_s", DEADLINE_S),
        rules=options.get("rules", RULES),
        transport=options.get("transport"),
        rim=options.get("rim"),
    )
