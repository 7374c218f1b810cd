"""Counters: what has happened since the host started, and what its store holds.

Counts and times, and the names of some public communities; never a hint, a node
or an address, and nothing that says who talks to whom.
"""

from __future__ import annotations

import asyncio
import logging
import math
import time
from bisect import bisect_left
from collections import Counter, deque
from collections.abc import Callable, Mapping
from typing import Any

from chalicelib import log
from chalicelib.call import Call, Reply
from chalicelib.local.memory import Memory
from chalicelib.local.open_sockets import OpenSockets
from chalicelib.local.publishing import FolderPublishing
from chalicelib.service import Service
from chalicelib.store import Unavailable

SECONDS = 60
RECENT = 512
COUNT_S = 5.0
"""How old the counts of what is stored may be; counting reads all of it."""

BUCKETS_S = (0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.1, 0.5, 2.5)

BEACON_WINDOW_S = 900
BEACON_SHARE = 0.8
"""A beacon that gives fewer good answers than this raises an alarm."""

BEACON_LEAST = 5

_log = logging.getLogger("muster")


class BeaconSuccess:
    """How many of a beacon's answers were good, of the last quarter of an hour."""

    def __init__(self) -> None:
        self._minutes: dict[int, tuple[int, int]] = {}

    def note(self, *, good: bool, clock: float) -> None:
        """Count one answer."""
        minute = int(clock) // 60
        goods, total = self._minutes.get(minute, (0, 0))
        self._minutes[minute] = (goods + good, total + 1)

    def to_json(self, *, clock: float) -> dict[str, Any]:
        """Return the share of good answers, and whether somebody has to look."""
        since = int(clock) // 60 - BEACON_WINDOW_S // 60
        self._minutes = {at: kept for at, kept in self._minutes.items() if at > since}
        good, total = (sum(kept[place] for kept in self._minutes.values()) for place in (0, 1))
        share = good / total if total else 1.0
        return {
            "answers": total,
            "good": good,
            "share": round(share, 4),
            "alarm": total >= BEACON_LEAST and share < BEACON_SHARE,
        }


class RouteCounter:
    """What happened on one route since the start."""

    __slots__ = ("buckets", "last_at", "recent_s", "statuses", "total_s")

    def __init__(self) -> None:
        self.statuses: Counter[int] = Counter()
        self.recent_s: deque[float] = deque(maxlen=RECENT)
        self.buckets = [0] * (len(BUCKETS_S) + 1)
        self.total_s = 0.0
        self.last_at = 0.0

    def note(self, status: int, latency_s: float, *, clock: float) -> None:
        """Count one call."""
        self.statuses[status] += 1
        self.recent_s.append(latency_s)
        self.buckets[bisect_left(BUCKETS_S, latency_s)] += 1
        self.total_s += latency_s
        self.last_at = clock

    def to_json(self, name: str, *, clock: float) -> dict[str, Any]:
        """Return the route's line on the page."""
        recent = sorted(self.recent_s)
        return {
            "route": name,
            "calls": self.statuses.total(),
            "statuses": {str(status): count for status, count in sorted(self.statuses.items())},
            "p50_ms": round(recent[len(recent) // 2] * 1000, 3),
            "p99_ms": round(recent[len(recent) * 99 // 100] * 1000, 3),
            "last_s_ago": round(max(clock - self.last_at, 0), 1),
        }


class Counters:
    """Counts what happens, and asks the store what it holds."""

    def __init__(self, service: Service, sockets: OpenSockets, *, started_at: float) -> None:
        self.service = service
        self.sockets = sockets
        self.started_at = started_at
        self.routes: dict[str, RouteCounter] = {}
        self.beacon = BeaconSuccess()
        self.memory: Memory | None = None
        self.publishing: FolderPublishing | None = None
        self.counted: Mapping[str, int] = {}
        """What is stored, as it was counted last."""
        self._seconds: Counter[int] = Counter()
        self._count_again_at = 0.0
        self._counting: asyncio.Task[None] | None = None

    def answered(self, call: Call, reply: Reply, *, latency_s: float) -> None:
        """Count an answered call, and log it."""
        log.call(call, reply, latency_s=latency_s)
        clock = time.time()
        route = self.routes.get(reply.route)
        if route is None:
            route = self.routes[reply.route] = RouteCounter()
        route.note(reply.status, latency_s, clock=clock)
        good = log.beacon(reply)
        if good is not None:
            self.beacon.note(good=good, clock=clock)
        second = int(clock)
        if second not in self._seconds:
            for old in [kept for kept in self._seconds if kept <= second - SECONDS]:
                del self._seconds[old]
        self._seconds[second] += 1

    async def stored(self) -> Mapping[str, int]:
        """Return what is stored, as it was counted last; the first time, wait for the count."""
        census = getattr(self.service.stores, "census", None)
        if census is not None and time.monotonic() >= self._count_again_at:
            self._count_again_at = math.inf
            self._counting = asyncio.create_task(self._count(census))
        if self._counting is not None and not self.counted:
            await asyncio.shield(self._counting)
        return self.counted

    async def _count(self, census: Callable[[int], Mapping[str, Mapping[str, Any]]]) -> None:
        """Count in a thread, and the less often the longer it takes."""
        started = time.monotonic()
        try:
            self.counted = _flat(await asyncio.to_thread(census, int(time.time())))
        except Unavailable:
            _log.warning("the store did not answer in time")
        finally:
            ended = time.monotonic()
            self._count_again_at = ended + max(COUNT_S, 20 * (ended - started))

    async def to_json(self) -> dict[str, Any]:
        """Return everything the page shows."""
        settings, clock = self.service.settings, time.time()
        second = int(clock)
        return {
            "ok": True,
            "version": settings.version,
            "time": second,
            "uptime_s": int(clock - self.started_at),
            "unsigned": settings.unsigned,
            "stored": await self.stored(),
            "store": self.service.quotas.to_json(),
            "sockets": len(self.sockets),
            "pushed": self.sockets.pushed,
            "memory": self.memory.to_json() if self.memory else None,
            "calls": sum(route.statuses.total() for route in self.routes.values()),
            "calls_per_second": [
                self._seconds.get(second - ago, 0) for ago in range(SECONDS, 0, -1)
            ],
            "routes": [
                route.to_json(name, clock=clock) for name, route in sorted(self.routes.items())
            ],
            "limits": {**settings.limits(), **self.service.host_limits},
            "beacon": self.beacon.to_json(clock=clock),
            "publishing": self.publishing.to_json(now=second) if self.publishing else None,
        }


def _flat(census: Mapping[str, Mapping[str, Any]]) -> dict[str, int]:
    """Return what the tables hold in words of the glossary."""
    presence, mail = census.get("presence", {}), census.get("mail", {})

    def count(table: Mapping[str, Any], kind: str, part: str) -> int:
        return int(getattr(table.get(kind), part, 0))

    return {
        "circles": max(count(presence, "circle", "keys"), count(mail, "mail", "keys")),
        "nodes": count(presence, "circle", "items"),
        "messages": count(mail, "mid", "items") + count(mail, "mail", "keys"),
        "signals": count(mail, "signal", "items"),
        "sessions": count(presence, "session", "keys"),
        "seats": count(presence, "seats", "items"),
        "subscriptions": count(presence, "room", "items"),
    }
