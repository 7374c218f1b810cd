"""Aims: the numbers to reach, and what others were seen to reach (docs/benchmarks.md)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from tools.bench.figures import Aim


def _at(*path: str) -> Any:
    def figure(result: Mapping[str, Any]) -> float | None:
        found: Any = result
        for name in path:
            found = found.get(name) if isinstance(found, Mapping) else None
        return found if isinstance(found, float | int) else None

    return figure


_times = _at("reference", "ratio", "median")


def _dearest_call(result: Mapping[str, Any]) -> float | None:
    calls = result.get("file")
    if not isinstance(calls, Mapping) or not calls:
        return None
    return max(float(call["median"]["cpu_ms"]) for call in calls.values())


def _beyond(result: Mapping[str, Any]) -> float | None:
    calls = result.get("calls")
    return None if calls is None else float(sum(not call["reached"] for call in calls))


AIMS = {
    "register": Aim(
        "at least 4 times the reference", _at("reference", "ratio", "median"), at_least=4
    ),
    "peers_50": Aim(
        "at least 6 times the reference", _at("reference", "ratio", "median"), at_least=6
    ),
    "post_to_push": Aim("p50 at most 1 ms", _at("median", "p50_ms"), at_most=1.0),
    "relay_frame": Aim("p50 at most 0.5 ms", _at("median", "p50_ms"), at_most=0.5),
    "large_bodies": Aim(
        "p99 of the others at most 3 times that of a quiet server", _at("ratio", "best"), at_most=3
    ),
    "handler_cpu": Aim("at most 0.3 ms for each call on a file", _dearest_call, at_most=0.3),
    "web_size": Aim(
        "index.js and what it imports: at most 15 KB compressed",
        _at("sizes", "muster", "gzip_bytes"),
        at_most=15_000,
    ),
    "store_units": Aim(
        "at most 3 write units a call, and 2 read units in a circle of ten", _beyond, at_most=0
    ),
}

ELSEWHERE = {
    "register": "felund's aiohttp relay, unsigned: 664 calls/s",
    "peers_50": "felund's aiohttp relay, unsigned: 395 calls/s",
    "post_to_push": "felund's aiohttp relay: p50 3.8 ms",
    "relay_frame": "PeerJS: p50 0.23 ms; magic-wormhole's mailbox server: p50 0.61 ms",
}
"""Measured once, elsewhere: the machines were not compared, and none of it is part of a run."""
