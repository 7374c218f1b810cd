"""A search: cache, beacons and capsules are asked at once, and none of them delays another.

Each source has its own deadline, its own bound on bytes and its own result. What a verified
manifest names is asked too, one step far.
"""

from __future__ import annotations

import asyncio
import functools
from collections.abc import AsyncIterator, Callable, Iterable, Sequence
from concurrent.futures import Executor, ThreadPoolExecutor
from contextlib import suppress
from dataclasses import replace
from typing import ParamSpec, Self, TypeVar

import httpx2

from capsules.errors import Reason, Refused
from capsules.ticket import RULES, Rules, Ticket
from muster import __version__
from muster.backoff import Rim
from muster.bootstrap import fetch, sources
from muster.bootstrap.asking import Asker, Asking
from muster.bootstrap.cache import MAX_TICKETS, Cache, Known
from muster.bootstrap.gathering import Gathering, Peer
from muster.bootstrap.sources import Attempt, Kind, Source
from muster.bootstrap.trusted import Trust
from muster.bootstrap.wanted import Wanted

DEADLINE_S = 5.0

MAX_LEARNED = 8
"""How many places that the caller did not name are asked."""

_P = ParamSpec("_P")
_T = TypeVar("_T")


class Search:
    """One race: ``async with Search(wanted) as search: async for peer in search: ...``.

    Peers come as they are first believed; the loop ends when every source has answered or
    missed its deadline. `peers` and `attempts` may be read at any time.
    """

    def __init__(
        self,
        wanted: Wanted,
        *,
        cache: Cache | None = None,
        deadline_s: float = DEADLINE_S,
        rules: Rules = RULES,
        transport: httpx2.AsyncBaseTransport | None = None,
        rim: Rim | None = None,
        worker: Executor | None = None,
    ) -> None:
        self._wanted = wanted
        self._cache = cache
        self._deadline_s = deadline_s
        self._transport = transport
        self._rim = rim or Rim()
        self._trust = Trust(cache, rules=rules)
        self._gathering = Gathering(without=wanted.without)
        # A thread of its own: the loop's may all be waiting for a name server that hangs.
        self._own = ThreadPoolExecutor(1, "muster-verify")
        self._worker = worker or self._own
        self._attempts: list[Attempt] = []
        self._asking: dict[asyncio.Task[None], Asking] = {}
        self._asked: list[Source] = []
        self._news: asyncio.Queue[Peer | None] = asyncio.Queue()
        self._first = asyncio.Event()
        self._finished = asyncio.Event()
        self._started = 0.0
        self.first_peer_ms: float | None = None

    async def __aenter__(self) -> Self:
        self._loop = asyncio.get_running_loop()
        self._started = self._loop.time()
        # The worker does one thing at a time: the states are read before anything is checked.
        self._worker.submit(self._trust.open, {s.key for s in self._wanted.sources if s.key})
        if self._cache is not None:
            self._ask(Source(Kind.CACHE, str(self._cache.folder)))
        self._http = fetch.client(self._transport, f"muster/{__version__}")
        self._asker = Asker(
            self._wanted,
            self._trust,
            self._http,
            self._rim,
            work=self._work,
            take=self._take,
            follow=self._follow,
        )
        for source in self._wanted.sources:
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
        """Wait for the first peer, and then at most *linger_s* for all other sources."""
        await self._first.wait()
        with suppress(TimeoutError):
            async with asyncio.timeout(linger_s):
                await self._finished.wait()

    async def aclose(self) -> None:
        """End the race: whoever has not answered is not waited for; what was found is kept."""
        await asyncio.sleep(0)  # so that each has begun, and has a result
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
    def attempts(self) -> tuple[Attempt, ...]:
        """How it went with each source, in the order in which they were asked."""
        ordered = sorted(self._attempts, key=lambda attempt: attempt.started_ms)
        return tuple(self._with_damage(attempt) for attempt in ordered)

    @property
    def learned(self) -> tuple[Source, ...]:
        """The places that verified manifests named."""
        return tuple(source for source in self._asked if source.learned)

    # --- the race -------------------------------------------------------------

    def _ask(self, source: Source) -> None:
        asking = Asking(source, self.elapsed_ms())
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

    async def _run(self, asking: Asking) -> None:
        """Ask one source; whatever happens becomes its result."""
        refusal: Refused | None = None
        try:
            async with asyncio.timeout(self._deadline_s):
                await self._asker.ask(asking)
        except Refused as raised:
            refusal = raised
        except TimeoutError:
            refusal = Refused(Reason.TIMEOUT, f"it was not done after {self._deadline_s:g} s")
        except asyncio.CancelledError:
            refusal = Refused(Reason.TIMEOUT, "others were faster, and it was not waited for")
            raise
        except Exception as error:  # a source must not end the race, whatever it found to send
            refusal = Refused(Reason.UNREACHABLE, f"{type(error).__name__}: {error}"[:200])
        finally:
            self._attempts.append(asking.ended(refusal, elapsed_ms=self.elapsed_ms()))

    def _with_damage(self, attempt: Attempt) -> Attempt:
        """Say what is wrong with the cache, whenever it was noticed."""
        damage = self._trust.damage
        if attempt.source.kind != Kind.CACHE or not damage:
            return attempt
        message = "; ".join(dict.fromkeys(refusal.message for refusal in damage))
        return replace(attempt, reason=str(damage[0].reason), message=message)

    def _take(self, asking: Asking, tickets: Iterable[Ticket], vouched: bool) -> None:
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

    def _follow(self, places: Sequence[Source]) -> None:
        """Ask further places: those of a known root key, and not too many."""
        keys = {source.key for source in self._wanted.sources if not source.pinned}
        local = any(sources.on_loopback(source.url) for source in self._wanted.sources)
        for place in places:
            known = any((s.kind, s.url) == (place.kind, place.url) for s in self._asked)
            allowed = place.key in keys and sources.may_follow(place.url, local=local)
            if allowed and not known and len(self.learned) < MAX_LEARNED:
                self._ask(place)

    async def _work(
        self, function: Callable[_P, _T], *arguments: _P.args, **named: _P.kwargs
    ) -> _T:
        """Run what takes processor time or the disk outside the event loop, one at a time."""
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
        self._trust.keep_known(self._wanted.community, known)
