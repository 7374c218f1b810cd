"""Asking one source for its peers: each kind of source in its own way, within bounds."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

import httpx2

from capsules.errors import Refused
from capsules.ticket import Ticket
from capsules.trust import Expected
from muster.backoff import Rim
from muster.bootstrap import fetch, sources
from muster.bootstrap.cache import Known
from muster.bootstrap.fetch import NoAnswer
from muster.bootstrap.opening import Opener, Work
from muster.bootstrap.sources import Attempt, Kind, Source
from muster.bootstrap.trusted import Listed, Trust
from muster.bootstrap.wanted import Wanted

MAX_LISTING_BYTES = 1_048_576
"""How much a beacon may answer."""

TRIES = 2
AGAIN_S = 0.25
"""A source that failed at once is asked once more, after up to this long."""


@dataclass(slots=True)
class Asking:
    """A source that is being asked, and what is known so far of how it went."""

    source: Source
    started_ms: float
    peers: int = 0
    skipped: Counter[str] = field(default_factory=Counter)
    announced: bool | None = None
    not_announced: str = ""
    fresh: bool = True
    sequence: int | None = None

    def ended(self, refusal: Refused | None, *, elapsed_ms: float) -> Attempt:
        """Return how it went, now that it is over."""
        return Attempt(
            source=self.source,
            started_ms=self.started_ms,
            took_ms=round(elapsed_ms - self.started_ms, 3),
            reason=str(refusal.reason) if refusal else "",
            message=refusal.message if refusal else "",
            peers=self.peers,
            skipped=dict(self.skipped),
            announced=self.announced,
            not_announced=self.not_announced,
            fresh=self.fresh,
            sequence=self.sequence,
            retry_after_s=refusal.retry_after_s if isinstance(refusal, NoAnswer) else None,
        )


Take = Callable[[Asking, Iterable[Ticket], bool], None]
"""Takes believed tickets; the last says whether a signed capsule vouches for them."""

Follow = Callable[[Sequence[Source]], None]
"""Takes further places, of which some may be asked too."""


class Asker:
    """Asks sources: believed tickets go to *take*, places that are named to *follow*."""

    def __init__(
        self,
        wanted: Wanted,
        trust: Trust,
        http: httpx2.AsyncClient,
        rim: Rim,
        *,
        work: Work,
        take: Take,
        follow: Follow,
    ) -> None:
        self._wanted = wanted
        self._trust = trust
        self._http = http
        self._rim = rim
        self._work = work
        self._take = take
        self._follow = follow
        self._opener = Opener(self._fetch, trust, rim, work=work)

    async def ask(self, asking: Asking) -> None:
        """Ask a source; raises `Refused`."""
        match asking.source.kind:
            case Kind.CACHE:
                await self._recall(asking)
            case Kind.BEACON:
                await self._list(asking)
            case Kind.CAPSULE:
                await self._open(asking)

    async def _recall(self, asking: Asking) -> None:
        known: Known
        known, skipped = await self._work(
            self._trust.known, self._wanted.community, now_ms=self._now_ms()
        )
        asking.skipped += skipped
        self._take(asking, known.tickets, False)
        self._follow(known.places)

    async def _list(self, asking: Asking) -> None:
        listed = await self._announce(asking) if self._wanted.ticket else None
        if listed is None:
            raw = await self._fetch(
                f"{asking.source.url}/peers", most=MAX_LISTING_BYTES, query=self._query()
            )
            listed = await self._read(raw)
        asking.skipped += listed.skipped
        self._take(asking, listed.tickets, False)

    async def _announce(self, asking: Asking) -> Listed | None:
        """Leave our ticket; return who else is there, or None if they must be asked for."""
        ticket = self._wanted.ticket
        if ticket is None:
            return None
        asking.announced = False
        body = {"ticket": ticket.to_json(), "community": self._wanted.community}
        try:
            raw = await self._fetch(
                f"{asking.source.url}/announce",
                most=MAX_LISTING_BYTES,
                query=self._query(),
                body=json.dumps(body, ensure_ascii=False).encode(),
            )
        except NoAnswer as refusal:
            asking.not_announced = refusal.message
            raise
        listed = await self._read(raw)
        asking.not_announced = listed.refusal
        asking.announced = not listed.refusal
        return listed if asking.announced else None

    async def _read(self, raw: bytes) -> Listed:
        listed: Listed = await self._work(self._trust.listed, raw, now_ms=self._now_ms())
        return listed

    async def _open(self, asking: Asking) -> None:
        source, wanted = asking.source, self._wanted

        def seen(expected: Expected) -> None:
            asking.sequence, asking.fresh = expected.manifest.sequence, expected.fresh
            self._follow(_named(source, expected))

        community = wanted.expected if source.pinned else wanted.community
        accepted = (await self._opener.open(source, community, seen=seen)).accepted
        asking.fresh = accepted.fresh
        asking.skipped.update(str(skipped.reason) for skipped in accepted.skipped)
        self._take(asking, accepted.tickets, True)

    def _query(self) -> dict[str, str]:
        return {"community": self._wanted.community}

    def _now_ms(self) -> int:
        return int(self._rim.now() * 1000)

    async def _fetch(self, url: str, *, most: int, **how: Any) -> bytes:
        for tried in range(1, TRIES + 1):
            try:
                return await fetch.fetch(self._http, url, most=most, **how)
            except NoAnswer as refusal:
                if not refusal.again or tried == TRIES:
                    raise
            await self._rim.sleep(AGAIN_S * (0.5 + self._rim.chance() / 2))
        raise AssertionError  # pragma: no cover - the last try raises or returns


def _named(source: Source, expected: Expected) -> list[Source]:
    """Return the places that a verified manifest names, unless it was itself named so."""
    if source.learned:
        return []
    local = sources.on_loopback(source.url)
    found = [(Kind.BEACON, url) for url in expected.manifest.beacons]
    found += [(Kind.CAPSULE, url) for url in expected.manifest.capsules]
    return [
        Source(kind, url.rstrip("/"), source.key, learned=True)
        for kind, url in found
        if sources.may_follow(url, local=local)
    ]
