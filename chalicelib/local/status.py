"""Status: what an operator may see of a running host, and so may everybody else.

Counts and times, and the names of some public communities; never a hint, a node
or an address, and nothing that says who talks to whom.
"""

from __future__ import annotations

import asyncio
import hashlib
import logging
import math
import re
import time
from base64 import b64encode
from bisect import bisect_left
from collections import Counter, deque
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, Protocol

import msgspec
from prometheus_client import CollectorRegistry, ProcessCollector, generate_latest
from prometheus_client.core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    InfoMetricFamily,
    Metric,
)
from prometheus_client.registry import Collector

from chalicelib import log
from chalicelib.call import Reply
from chalicelib.http import CORS
from chalicelib.service import Service
from chalicelib.store import Unavailable

PAGES = ("/", "/status.json", "/metrics")

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
_encoder = msgspec.json.Encoder()


class Open(Protocol):
    """Whoever counts open sockets and what was pushed on them."""

    pushed: int

    def __len__(self) -> int: ...


class Shown(Protocol):
    """Whoever publishes and tells how that goes."""

    def to_json(self, *, now: int) -> dict[str, Any]:
        """Return what the page shows of it."""


class Success:
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


class Route:
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


class Numbers:
    """Counts what happens, and asks the store what it holds."""

    def __init__(self, service: Service, sockets: Open, *, started_at: float) -> None:
        self.service = service
        self.sockets = sockets
        self.started_at = started_at
        self.routes: dict[str, Route] = {}
        self.beacon = Success()
        self.publishing: Shown | None = None
        self._seconds: Counter[int] = Counter()
        self._stored: dict[str, int] = {}
        self._count_again_at = 0.0
        self._counting: asyncio.Task[None] | None = None

    def note(self, reply: Reply, latency_s: float) -> None:
        """Count an answered call."""
        clock = time.time()
        route = self.routes.get(reply.route)
        if route is None:
            route = self.routes[reply.route] = Route()
        route.note(reply.status, latency_s, clock=clock)
        if reply.route in log.BEACON:
            self.beacon.note(good=log.good(reply), clock=clock)
        second = int(clock)
        if second not in self._seconds:
            for old in [kept for kept in self._seconds if kept <= second - SECONDS]:
                del self._seconds[old]
        self._seconds[second] += 1

    async def stored(self) -> Mapping[str, int]:
        """Return how much of what is stored, as it was counted last; the first time, wait."""
        census = getattr(self.service.stores, "census", None)
        if census is not None and time.monotonic() >= self._count_again_at:
            self._count_again_at = math.inf
            self._counting = asyncio.create_task(self._count(census))
        if self._counting is not None and not self._stored:
            await asyncio.shield(self._counting)
        return self._stored

    async def _count(self, census: Callable[[int], Mapping[str, Mapping[str, Any]]]) -> None:
        """Count beside the calls, and the less often the longer it takes."""
        started = time.monotonic()
        try:
            self._stored = _flat(await asyncio.to_thread(census, int(time.time())))
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
            "sockets": len(self.sockets),
            "pushed": self.sockets.pushed,
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


class Pages:
    """The three ways to look: a page, its numbers, and the same for Prometheus."""

    def __init__(self, numbers: Numbers) -> None:
        self._numbers = numbers
        self._page, self._policy = _page()
        self._registry = CollectorRegistry()
        self._registry.register(_Metrics(numbers))
        ProcessCollector(registry=self._registry)

    async def reply(self, path: str) -> Reply:
        """Return one of `PAGES`."""
        headers = CORS | {"Cache-Control": "no-store", "X-Content-Type-Options": "nosniff"}
        if path == "/":
            headers |= {
                "Content-Type": "text/html; charset=utf-8",
                "Content-Security-Policy": self._policy,
                "Referrer-Policy": "no-referrer",
            }
            body = self._page
        elif path == "/status.json":
            headers["Content-Type"] = "application/json"
            body = _encoder.encode(await self._numbers.to_json())
        else:
            await self._numbers.stored()
            headers["Content-Type"] = "text/plain; version=0.0.4; charset=utf-8"
            body = generate_latest(self._registry)
        return Reply(200, body=body, headers=headers, route=f"GET {path}")


class _Metrics(Collector):
    """Reads the numbers when Prometheus asks, so that a call pays for nothing else."""

    def __init__(self, numbers: Numbers) -> None:
        self._numbers = numbers

    def collect(self) -> Iterator[Metric]:
        """Yield every metric; labels are routes, statuses and some communities: they are few."""
        numbers = self._numbers
        yield InfoMetricFamily(
            "muster", "The service.", {"version": numbers.service.settings.version}
        )
        yield GaugeMetricFamily("muster_start_time_seconds", "When it started.", numbers.started_at)
        yield GaugeMetricFamily("muster_sockets", "Open WebSockets.", len(numbers.sockets))
        yield CounterMetricFamily("muster_pushes", "Frames sent.", numbers.sockets.pushed)
        stored = GaugeMetricFamily("muster_stored", "What is stored and live.", labels=["kind"])
        for kind, count in sorted(numbers._stored.items()):
            stored.add_metric([kind], count)
        yield stored
        calls = CounterMetricFamily("muster_calls", "Calls.", labels=["route", "status"])
        seconds = HistogramMetricFamily("muster_call_seconds", "Latency.", labels=["route"])
        for name, route in sorted(numbers.routes.items()):
            for status, count in sorted(route.statuses.items()):
                calls.add_metric([name, str(status)], count)
            seconds.add_metric([name], _cumulated(route.buckets), route.total_s)
        yield calls
        yield seconds
        clock = time.time()
        yield GaugeMetricFamily(
            "muster_beacon_success_ratio",
            "Good answers of announce and list, of all in the last 15 minutes.",
            numbers.beacon.to_json(clock=clock)["share"],
        )
        if numbers.publishing is not None:
            yield from _publishing(numbers.publishing.to_json(now=int(clock)))


def _publishing(found: dict[str, Any]) -> Iterator[Metric]:
    """Yield how publishing goes, for each community that is named and for the others together."""
    yield GaugeMetricFamily(
        "muster_publish_alarm", "Whether a community failed twice in a row.", found["alarm"]
    )
    yield GaugeMetricFamily(
        "muster_publish_certified_until_seconds",
        "When the online key's certificate ends.",
        found["certified_until"],
    )
    for name, what, member in (
        ("at_seconds", "When it was published, or tried, the last time.", "at"),
        ("sequence", "The sequence of the last capsule.", "sequence"),
        ("peers", "The tickets in the last capsule.", "peers"),
        ("failures_in_a_row", "The runs that failed since the last good one.", "failures"),
    ):
        metric = GaugeMetricFamily(f"muster_publish_{name}", what, labels=["community"])
        for community in found["communities"]:
            metric.add_metric([community["community"]], community[member])
        yield metric
    for name, what in (
        ("communities", "The communities that are not named here."),
        ("peers", "The tickets in their last capsules."),
        ("failures", "The runs that failed since their last good ones."),
    ):
        yield GaugeMetricFamily(f"muster_publish_other_{name}", what, found["others"][name])


def _cumulated(buckets: list[int]) -> list[tuple[str, float]]:
    bounds = [*map(str, BUCKETS_S), "+Inf"]
    return [(bound, sum(buckets[: at + 1])) for at, bound in enumerate(bounds)]


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


def _page() -> tuple[bytes, str]:
    """Return the page, and the policy that lets it run its own script and nothing else."""
    page = Path(__file__).with_name("status.html").read_bytes()
    script, style = (
        " ".join(
            f"'sha256-{b64encode(hashlib.sha256(text).digest()).decode()}'"
            for text in re.findall(rb"<%b>(.*?)</%b>" % (tag, tag), page, re.DOTALL)
        )
        for tag in (b"script", b"style")
    )
    return page, (
        f"default-src 'none'; script-src {script}; style-src {style}; connect-src 'self'; "
        "img-src data:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    )
