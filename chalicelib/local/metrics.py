"""Metrics: the counters in the words of Prometheus."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Any

from prometheus_client.core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    InfoMetricFamily,
    Metric,
)
from prometheus_client.registry import Collector

from chalicelib.local.counters import BUCKETS_S, Counters


class Metrics(Collector):
    """Reads the counters when Prometheus asks, so that a call pays for nothing else."""

    def __init__(self, counters: Counters) -> None:
        self._counters = counters

    def collect(self) -> Iterator[Metric]:
        """Yield every metric; labels are routes, statuses and some communities: they are few."""
        counters = self._counters
        yield InfoMetricFamily(
            "muster", "The service.", {"version": counters.service.settings.version}
        )
        yield GaugeMetricFamily(
            "muster_start_time_seconds", "When it started.", counters.started_at
        )
        yield GaugeMetricFamily("muster_sockets", "Open WebSockets.", len(counters.sockets))
        yield CounterMetricFamily("muster_pushes", "Frames sent.", counters.sockets.pushed)
        if counters.memory is not None:
            yield GaugeMetricFamily(
                "muster_waiting_bytes",
                "What waits on slow connections.",
                counters.memory.total_bytes,
            )
            yield CounterMetricFamily(
                "muster_made_way", "Slow connections that were closed.", counters.memory.ended
            )
        stored = GaugeMetricFamily("muster_stored", "What is stored and live.", labels=["kind"])
        for kind, count in sorted(counters.counted.items()):
            stored.add_metric([kind], count)
        yield stored
        yield from store_metrics(counters.service.quotas.to_json())
        calls = CounterMetricFamily("muster_calls", "Calls.", labels=["route", "status"])
        seconds = HistogramMetricFamily("muster_call_seconds", "Latency.", labels=["route"])
        for name, route in sorted(counters.routes.items()):
            for status, count in sorted(route.statuses.items()):
                calls.add_metric([name, str(status)], count)
            seconds.add_metric([name], _cumulated(route.buckets), route.total_s)
        yield calls
        yield seconds
        clock = time.time()
        yield GaugeMetricFamily(
            "muster_beacon_success_ratio",
            "Good answers of announce and list, of all in the last 15 minutes.",
            counters.beacon.to_json(clock=clock)["share"],
        )
        if counters.publishing is not None:
            yield from publishing_metrics(counters.publishing.to_json(now=int(clock)))


def store_metrics(shown: dict[str, Any]) -> Iterator[Metric]:
    """Yield how full the store is."""
    for name, what in (
        ("used_bytes", "What the store takes of the disk."),
        ("most_bytes", "What it may take."),
        ("full", "Whether messages are refused as the store is full."),
    ):
        yield GaugeMetricFamily(f"muster_store_{name}", what, shown[name])


def publishing_metrics(shown: dict[str, Any]) -> Iterator[Metric]:
    """Yield how publishing goes, for each community that is named and for the others together."""
    yield GaugeMetricFamily(
        "muster_publish_alarm", "Whether a community failed twice in a row.", shown["alarm"]
    )
    yield GaugeMetricFamily(
        "muster_publish_certified_until_seconds",
        "When the online key's certificate ends.",
        shown["certified_until"],
    )
    for name, what, member in (
        ("at_seconds", "When it was published, or tried, the last time.", "at"),
        ("sequence", "The sequence of the last capsule.", "sequence"),
        ("peers", "The tickets in the last capsule.", "peers"),
        ("failures_in_a_row", "The runs that failed since the last good one.", "failures"),
    ):
        metric = GaugeMetricFamily(f"muster_publish_{name}", what, labels=["community"])
        for community in shown["communities"]:
            metric.add_metric([community["community"]], community[member])
        yield metric
    for name, what in (
        ("communities", "The communities that are not named here."),
        ("peers", "The tickets in their last capsules."),
        ("failures", "The runs that failed since their last good ones."),
    ):
        yield GaugeMetricFamily(f"muster_publish_other_{name}", what, shown["others"][name])


def _cumulated(buckets: list[int]) -> list[tuple[str, float]]:
    bounds = [*map(str, BUCKETS_S), "+Inf"]
    return [(bound, sum(buckets[: at + 1])) for at, bound in enumerate(bounds)]
