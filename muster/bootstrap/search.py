"""A search: cache, beacons and capsules raced together from the first millisecond.

Each source has its own deadline, its own bound on bytes and its own outcome; whatever one of
them does, the others are neither stopped nor delayed. What a verified manifest names is asked
too, one step far.
"""

from __future__ import annotations

import asyncio
import functools
import json
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterable, Sequence
from concurrent.futures import Executor, ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, field, replace
from typing import Any, NamedTuple, ParamSpec, Self, TypeVar

import httpx2

from capsules.capsule import MAX_CAPSULE_BYTES
from capsules.errors import Reason, Refused
from capsules.keys import VerifyKey
from capsules.manifest import MAX_MANIFEST_BYTES
from capsules.ticket import RULES, Rules, Ticket
from capsules.trust import Accepted, Expected
from muster import __version__
from muster.backoff import Rim
from muster.bootstrap import fetch, sources
from muster.bootstrap.cache import MAX_TICKETS, Cache, Known
from muster.bootstrap.fetch import NoAnswer
from muster.bootstrap.gathering import Gathering, Peer
from muster.bootstrap.sources import Kind, Outcome, Source
from muster.bootstrap.trusted import Listed, Trust

DEADLINE_S = 5.0
MAX_LISTING_BYTES = 1_048_576
"""How much a beacon may answer."""

MAX_LEARNED = 8
"""How many places that the caller did not name are asked."""

TRIES = 2
AGAIN_S = 0.25
"""A source that failed at once is asked once more, after up to so long."""

RACES = frozenset({Reason.TOO_LARGE, Reason.LENGTH_MISMATCH, Reason.HASH_MISMATCH})
"""What it looks like when the publisher writes between our two reads."""

RACE_WAITS_S = (0.05, 0.5)
"""So long we wait until it has written both."""

_P = ParamSpec("_P")
_T = TypeVar("_T")


class Plan(NamedTuple):
    """What to search: which community, where, and as whom.

    With *expected* None a pinned capsule may be any community's, as for existing clients.
    """

    community: str
    expected: str | None
    sources: tuple[Source, ...]
    ticket: Ticket | None = None
    without: str | None = None


@dataclass(slots=True)
class _Asking:
    """A source that is being asked, and what is known of the outcome so far."""

    source: Source
    started_ms: float
    peers: int = 0
    skipped: Counter[str] = field(default_factory=Counter)
    announced: bool | None = None
    not_announced: str = ""
    fresh: bool = True
    sequence: int | None = None


class Search:
    """One race: ``async with Search(plan) as search: async for peer in search: ...``.

    Peers come as they are first believed; the loop ends when every source has answered or
    missed its deadline. `peers` and `outcomes` may be read at any time.
    """

    def __init__(
        self,
        plan: Plan,
        *,
        cache: Cache | None = None,
        deadline_s: float = DEADLINE_S,
        rules: Rules = RULES,
        transport: httpx2.AsyncBaseTransport | None = None,
        rim: Rim | None = None,
        worker: Executor | None = None,
    ) -> None:
        self._plan = plan
        self._cache = cache
        self._deadline_s = deadline_s
        self._transport = transport
        self._rim = rim or Rim()
        self._trust = Trust(cache, rules=rules)
        self._gathering = Gathering(without=plan.without)
        # A thread of its own: the loop's may all be waiting for a name server that hangs.
        self._own = ThreadPoolExecutor(1, "muster-verify")
        self._worker = worker or self._own
        self._outcomes: list[Outcome] = []
        self._asking: dict[asyncio.Task[None], _Asking] = {}
        self._asked: list[Source] = []
        self._news: asyncio.Queue[Peer | None] = asyncio.Queue()
        self._first = asyncio.Event()
        self._finished = asyncio.Event()
        self._started = 0.0
        self.first_peer_ms: float | None = None

    async def __aenter__(self) -> Self:
        self._loop = asyncio.get_running_loop()
        self._started = self._loop.time()
        # It does one thing after the other, so the states are read before anything is checked.
        self._worker.submit(self._trust.open, {s.key for s in self._plan.sources if s.key})
        if self._cache is not None:
            self._ask(Source(Kind.CACHE, str(self._cache.folder)))
        self._http = fetch.client(self._transport, f"muster/{__version__}")
        for source in self._plan.sources:
            self._ask(source)
        if not self._asking:
            self._finish()
        return self

    async def __aexit__(self, *exc: object) -> None:
        await self.aclose()

    async def __aiter__(self) -> AsyncIterator[Peer]:
        while (peer := await self._news.get()) is not None:
            yield peer
        self._news.put_nowait(None)

    async def settle(self, linger_s: float | None) -> None:
        """Wait for the first peer, and then for all the others, but so long at most."""
        await self._first.wait()
        with suppress(TimeoutError):
            async with asyncio.timeout(linger_s):
                await self._finished.wait()

    async def aclose(self) -> None:
        """End the race: whoever has not answered is not waited for; what was found is kept."""
        await asyncio.sleep(0)  # so that each has begun, and has an outcome
        for task in self._asking:
            task.cancel()
        await asyncio.gather(*self._asking, return_exceptions=True)
        try:
            with suppress(TimeoutError):
                async with asyncio.timeout(1):
                    await self._http.aclose()
                await self._work(self._remember)
        finally:
            self._own.shutdown(wait=False)

    def now_ms(self) -> int:
        """Return the time, in the unit of tickets."""
        return int(self._rim.now() * 1000)

    def elapsed_ms(self) -> float:
        """Return how long the search has taken so far."""
        return round((self._loop.time() - self._started) * 1000, 3)

    @property
    def peers(self) -> tuple[Peer, ...]:
        """Who is believed so far, the best first (`Gathering.peers`)."""
        return self._gathering.peers(now_ms=self.now_ms(), revoked=self._trust.revoked)

    @property
    def outcomes(self) -> tuple[Outcome, ...]:
        """What came of each source, in the order in which they were asked."""
        ordered = sorted(self._outcomes, key=lambda outcome: outcome.started_ms)
        return tuple(self._with_damage(outcome) for outcome in ordered)

    @property
    def learned(self) -> tuple[Source, ...]:
        """The places that verified manifests named."""
        return tuple(source for source in self._asked if source.learned)

    # --- the race -------------------------------------------------------------

    def _ask(self, source: Source) -> None:
        asking = _Asking(source, self.elapsed_ms())
        self._asked.append(source)
        task = asyncio.create_task(self._run(asking))
        self._asking[task] = asking
        task.add_done_callback(self._done)

    def _done(self, task: asyncio.Task[None]) -> None:
        del self._asking[task]
        if not self._asking:
            self._finish()

    def _finish(self) -> None:
        self._news.put_nowait(None)
        self._first.set()
        self._finished.set()

    async def _run(self, asking: _Asking) -> None:
        """Ask one source; whatever happens becomes its outcome."""
        try:
            async with asyncio.timeout(self._deadline_s):
                await self._answer(asking)
        except Refused as refusal:
            self._end(asking, refusal)
        except TimeoutError:
            late = Refused(Reason.TIMEOUT, f"it was not done after {self._deadline_s:g} s")
            self._end(asking, late)
        except asyncio.CancelledError:
            late = Refused(Reason.TIMEOUT, "others were faster, and it was not waited for")
            self._end(asking, late)
            raise
        except Exception as error:  # a source must not end the race, whatever it found to send
            broken = Refused(Reason.UNREACHABLE, f"{type(error).__name__}: {error}"[:200])
            self._end(asking, broken)
        else:
            self._end(asking, None)

    def _end(self, asking: _Asking, refusal: Refused | None) -> None:
        self._outcomes.append(
            Outcome(
                source=asking.source,
                started_ms=asking.started_ms,
                took_ms=round(self.elapsed_ms() - asking.started_ms, 3),
                reason=str(refusal.reason) if refusal else "",
                message=refusal.message if refusal else "",
                peers=asking.peers,
                skipped=dict(asking.skipped),
                announced=asking.announced,
                not_announced=asking.not_announced,
                fresh=asking.fresh,
                sequence=asking.sequence,
                retry_after_s=refusal.retry_after_s if isinstance(refusal, NoAnswer) else None,
            )
        )

    def _with_damage(self, outcome: Outcome) -> Outcome:
        """Say what is wrong with the cache, whenever it was noticed."""
        damage = self._trust.damage
        if outcome.source.kind != Kind.CACHE or not damage:
            return outcome
        message = "; ".join(dict.fromkeys(refusal.message for refusal in damage))
        return replace(outcome, reason=str(damage[0].reason), message=message)

    async def _answer(self, asking: _Asking) -> None:
        match asking.source.kind:
            case Kind.CACHE:
                await self._recall(asking)
            case Kind.BEACON:
                await self._list(asking)
            case Kind.CAPSULE if asking.source.pinned:
                await self._open_pinned(asking)
            case Kind.CAPSULE:
                await self._open(asking)

    def _take(self, asking: _Asking, tickets: Iterable[Ticket], *, vouched: bool = False) -> None:
        for ticket in tickets:
            asking.peers += 1
            at_ms = self.elapsed_ms()
            new = self._gathering.add(
                ticket, (str(asking.source),), vouched=vouched, found_ms=at_ms
            )
            if new is not None:
                if self.first_peer_ms is None:
                    self.first_peer_ms = at_ms
                    self._first.set()
                self._news.put_nowait(new)

    # --- the kinds of sources -------------------------------------------------

    async def _recall(self, asking: _Asking) -> None:
        community = self._plan.community
        known, skipped = await self._work(self._trust.known, community, now_ms=self.now_ms())
        asking.skipped += skipped
        self._take(asking, known.tickets)
        for place in known.places:
            self._follow(place)

    async def _list(self, asking: _Asking) -> None:
        url = f"{asking.source.url}/peers"
        if self._plan.ticket is not None:
            listed = await self._announce(asking, self._plan.ticket)
            if listed is not None:
                return
        raw = await self._fetch(url, most=MAX_LISTING_BYTES, query=self._query())
        listed = await self._work(self._trust.listed, raw, now_ms=self.now_ms())
        asking.skipped += listed.skipped
        self._take(asking, listed.tickets)

    async def _announce(self, asking: _Asking, ticket: Ticket) -> Listed | None:
        """Leave our ticket; return who else is there, or None if they must be asked for."""
        asking.announced = False
        ask = {"ticket": ticket.to_json(), "community": self._plan.community}
        try:
            raw = await self._fetch(
                f"{asking.source.url}/announce",
                most=MAX_LISTING_BYTES,
                query=self._query(),
                body=json.dumps(ask, ensure_ascii=False).encode(),
            )
        except NoAnswer as refusal:
            asking.not_announced = refusal.message
            raise
        listed = await self._work(self._trust.listed, raw, now_ms=self.now_ms())
        if listed.refusal:
            asking.not_announced = listed.refusal
            return None
        asking.announced = True
        asking.skipped += listed.skipped
        self._take(asking, listed.tickets)
        return listed

    async def _open(self, asking: _Asking) -> None:
        for wait_s in RACE_WAITS_S:
            try:
                accepted = await self._published(asking)
            except Refused as refusal:
                if refusal.reason not in RACES:
                    raise
            else:
                self._believe(asking, accepted)
                return
            await self._rim.sleep(wait_s)
        self._believe(asking, await self._published(asking))

    async def _published(self, asking: _Asking) -> Accepted:
        source, key = asking.source, _key(asking.source)
        url, community = source.url, self._plan.community
        raw = await self._fetch(sources.beside(url, ".manifest"), most=MAX_MANIFEST_BYTES)
        expected = await self._work(
            self._trust.expect, key, raw, community=community, now=self._now()
        )
        asking.sequence, asking.fresh = expected.manifest.sequence, expected.fresh
        self._look(source, expected)
        capsule = await self._fetch(url, most=expected.manifest.length)
        return await self._work(
            self._trust.accept, key, raw, capsule, community=community, now=self._now()
        )

    async def _open_pinned(self, asking: _Asking) -> None:
        source = asking.source
        raw = await self._fetch(source.url, most=MAX_CAPSULE_BYTES)
        accepted = await self._work(
            self._trust.accept_pinned,
            _key(source),
            raw,
            community=self._plan.expected,
            now=self._now(),
        )
        self._believe(asking, accepted)

    def _believe(self, asking: _Asking, accepted: Accepted) -> None:
        asking.fresh = accepted.fresh
        asking.skipped.update(str(skipped.reason) for skipped in accepted.skipped)
        self._take(asking, accepted.tickets, vouched=True)

    # --- further places -------------------------------------------------------

    def _look(self, source: Source, expected: Expected) -> None:
        """Ask the places that a verified manifest names, unless it was itself named so."""
        if source.learned:
            return
        local = sources.on_loopback(source.url)
        for kind, urls in (
            (Kind.BEACON, expected.manifest.beacons),
            (Kind.CAPSULE, expected.manifest.capsules),
        ):
            for url in urls:
                if sources.may_follow(url, local=local):
                    self._follow(Source(kind, url.rstrip("/"), source.key, learned=True))

    def _follow(self, place: Source) -> None:
        keys = {source.key for source in self._plan.sources if not source.pinned}
        local = any(sources.on_loopback(source.url) for source in self._plan.sources)
        known = any((s.kind, s.url) == (place.kind, place.url) for s in self._asked)
        room = len(self.learned) < MAX_LEARNED
        if place.key in keys and sources.may_follow(place.url, local=local) and room and not known:
            self._ask(place)

    # --- what they share ------------------------------------------------------

    def _now(self) -> int:
        return int(self._rim.now())

    def _query(self) -> dict[str, str]:
        return {"community": self._plan.community}

    async def _fetch(self, url: str, *, most: int, **how: Any) -> bytes:
        for tried in range(1, TRIES + 1):
            try:
                return await fetch.fetch(self._http, url, most=most, **how)
            except NoAnswer as refusal:
                if not refusal.again or tried == TRIES:
                    raise
            await self._rim.sleep(AGAIN_S * (0.5 + self._rim.chance() / 2))
        raise AssertionError  # pragma: no cover - the last try raises or returns

    async def _work(
        self, function: Callable[_P, _T], *arguments: _P.args, **named: _P.kwargs
    ) -> _T:
        """Do what takes processor time or the disk beside the loop; one such thing at a time."""
        work = functools.partial(function, *arguments, **named)
        return await self._loop.run_in_executor(self._worker, work)

    def _remember(self) -> None:
        if self._cache is None:
            return
        known = Known(
            tickets=tuple(peer.ticket for peer in self.peers[:MAX_TICKETS]),
            places=self.learned,
        )
        if not known.tickets and not known.places:
            return  # what was known before is worth more than nothing
        self._trust.keep_known(self._plan.community, known)


def _key(source: Source) -> VerifyKey:
    if source.key is None:
        raise ValueError(f"{source} has no key")
    return source.key


def plan(
    capsules: Sequence[str],
    *,
    beacons: Sequence[str] = (),
    community: str | None = None,
    ticket: Ticket | None = None,
    peer_id: str | None = None,
) -> Plan:
    """Read what a caller wants searched; raises `ValueError` with a hint.

    Without *community* it is the one in whose folder the first capsule lies
    (``…/capsules/NAME/peers.json``), else the main one.
    """
    named = [sources.capsule(text) for text in capsules]
    places = dict.fromkeys([*named, *(sources.beacon(text) for text in beacons)])
    folders = [folder for source in named if (folder := sources.folder(source))]
    chosen = community or next(iter(folders), None)
    own = ticket.peer_id if ticket is not None else peer_id
    return Plan(chosen or sources.MAINNET, chosen, tuple(places), ticket, own)


def only(wanted: Plan, places: Iterable[Source], ticket: Ticket | None) -> Plan:
    """Return a plan for some places alone."""
    return wanted._replace(sources=tuple(places), ticket=ticket)


__all__ = ["DEADLINE_S", "Plan", "Search", "only", "plan"]
