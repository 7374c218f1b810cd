"""The announcer: keeps a node known to its community, and its community known to the node.

It leaves the same ticket at every beacon, also at those that manifests name, every 30 to 45
seconds, and signs a new one before the old one ends. When few peers are left it searches
everywhere again, less and less often while that does not help.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Sequence
from concurrent.futures import Executor
from typing import Self

import httpx2

from capsules import ticket as tickets
from capsules.keys import SigningKey
from capsules.ticket import NONCE_BYTES, RULES, TTL_MS, Rules, Ticket
from muster.backoff import LONGEST_WAIT_S, Rim
from muster.bootstrap.cache import Cache
from muster.bootstrap.gathering import Gathering, Peer
from muster.bootstrap.search import DEADLINE_S, Search
from muster.bootstrap.sources import Attempt, Kind, Source
from muster.bootstrap.wanted import Wanted

SOONEST_S, LATEST_S = 30.0, 45.0
MARGIN_S = 15.0
"""How much longer a ticket lives, at least, than until the next announcement."""

SEARCH_AGAIN_S, SEARCH_LATEST_S = 30.0, 600.0


class Announcer:
    """A node that stays known: ``async with Announcer(key, ...) as announcer: ...``.

    *capsules* and *beacons* are those of `bootstrap`. The key is the node's own and
    should be kept: the first key that claims a ``peer_id`` keeps it. `peers` are those known
    now; `attempts` says how it went with each source that was asked last.
    """

    def __init__(
        self,
        key: SigningKey,
        *capsules: str,
        peer_id: str,
        user_id: str = "",
        beacons: Sequence[str] = (),
        community: str | None = None,
        few: int = 5,
        ttl_ms: int = TTL_MS,
        cache: str | os.PathLike[str] | Cache | None = None,
        deadline_s: float = DEADLINE_S,
        rules: Rules = RULES,
        transport: httpx2.AsyncBaseTransport | None = None,
        rim: Rim | None = None,
        worker: Executor | None = None,
    ) -> None:
        self.attempts: tuple[Attempt, ...] = ()
        self._key = key
        self._user_id = user_id
        self._wanted = Wanted.named(capsules, beacons=beacons, community=community, peer_id=peer_id)
        self._few = few
        self._ttl_ms = ttl_ms
        self._cache = cache if cache is None or isinstance(cache, Cache) else Cache(cache)
        self._deadline_s = deadline_s
        self._rules = rules
        self._transport = transport
        self._rim = rim or Rim()
        self._worker = worker
        self._ticket: Ticket | None = None
        self._gathering = Gathering(without=peer_id)
        self._beacons = {s.url: s for s in self._wanted.sources if s.kind == Kind.BEACON}
        self._waits: dict[str, float] = {}
        self._search_at = 0.0  # by the steady clock, as all waits are
        self._search_gap_s = SEARCH_AGAIN_S
        self._changed = asyncio.Event()
        self._keeper: asyncio.Task[None] | None = None

    async def __aenter__(self) -> Self:
        self._keeper = asyncio.create_task(self._keep())
        return self

    async def __aexit__(self, *exc: object) -> None:
        if self._keeper is not None:
            self._keeper.cancel()
            await asyncio.gather(self._keeper, return_exceptions=True)

    @property
    def peers(self) -> tuple[Peer, ...]:
        """Who is known now, the best first."""
        return self._gathering.peers(now_ms=self._now_ms())

    @property
    def ticket(self) -> Ticket:
        """The ticket that is left at beacons; signed again when the clock no longer fits it."""
        now_ms = self._now_ms()
        if self._ticket is None or not _fits(self._ticket, now_ms):
            self._ticket = tickets.create(
                self._key,
                peer_id=self._wanted.without or "",
                user_id=self._user_id,
                now_ms=now_ms,
                nonce=self._rim.entropy(NONCE_BYTES),
                ttl_ms=self._ttl_ms,
            )
        return self._ticket

    async def wait_for(self, count: int = 1) -> tuple[Peer, ...]:
        """Wait until *count* peers are known."""
        while len(self.peers) < count:
            self._raise()
            self._changed.clear()
            await self._changed.wait()
        return self.peers

    async def _keep(self) -> None:
        try:
            while True:
                await self._once()
                wait_s = SOONEST_S + self._rim.chance() * (LATEST_S - SOONEST_S)
                await self._rim.sleep(wait_s)
        finally:
            self._changed.set()

    async def _once(self) -> None:
        """Announce at every beacon that wants it now, and search where that is due."""
        now = self._rim.steady()
        self._gathering.prune(now_ms=self._now_ms())
        everywhere = len(self.peers) < self._few and now >= self._search_at
        places: list[Source] = [s for s in self._beacons.values() if self._due(s, now)]
        if everywhere:
            places += [s for s in self._wanted.sources if s.kind != Kind.BEACON]
            self._search_at = now + self._search_gap_s
            self._search_gap_s = min(self._search_gap_s * 2, SEARCH_LATEST_S)
        wanted = self._wanted._replace(sources=tuple(places), ticket=self.ticket)
        await self._ask(wanted, self._cache if everywhere else None)
        if len(self.peers) >= self._few:
            self._search_gap_s = SEARCH_AGAIN_S

    async def _ask(self, wanted: Wanted, cache: Cache | None) -> None:
        running = Search(
            wanted,
            cache=cache,
            deadline_s=self._deadline_s,
            rules=self._rules,
            transport=self._transport,
            rim=self._rim,
            worker=self._worker,
        )
        async with running:
            async for peer in running:
                self._take(peer)
        for peer in running.peers:
            self._take(peer)
        self.attempts = running.attempts
        for attempt in running.attempts:
            source = attempt.source
            if source.kind == Kind.BEACON:
                self._beacons.setdefault(source.url, source)
                wait_s = min(attempt.retry_after_s or 0, LONGEST_WAIT_S)
                self._waits[source.url] = self._rim.steady() + wait_s
        self._changed.set()

    def _take(self, peer: Peer) -> None:
        self._gathering.add(peer.ticket, peer.sources, vouched=peer.vouched, found_ms=peer.found_ms)
        self._changed.set()

    def _due(self, beacon: Source, now: float) -> bool:
        """Say whether a beacon wants to hear of us; *now* is of the steady clock."""
        return self._waits.get(beacon.url, now) <= now

    def _raise(self) -> None:
        """Raise what ended the keeper, if anything did."""
        if self._keeper is not None and self._keeper.done():
            self._keeper.result()

    def _now_ms(self) -> int:
        return int(self._rim.now() * 1000)


def _fits(ticket: Ticket, now_ms: int) -> bool:
    """Say whether a ticket is not of the future, as after the clock was set back, and lasts."""
    lasts = ticket.expires_at_ms - now_ms >= (LATEST_S + MARGIN_S) * 1000
    return lasts and ticket.issued_at_ms <= now_ms
