"""Smoke: many clients come back at once while most of what they know is broken.

    python -m tools.smoke [--reconnects 200] [--seed 1] [--out build/reports]

Every reconnect knows three beacons, three places of a capsule and perhaps a cache, and each
of these fails by chance, in one of many ways, on real sockets. What counts is how long it
took by the client's own clock until it knew a peer. Exit code 0 if 99 of 100 had one within
five seconds. The distribution is printed, and drawn as smoke.svg.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import random
import sys
import tempfile
from collections import Counter
from collections.abc import Mapping, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from muster import whole_file
from muster.bootstrap import Found, bootstrap
from muster.bootstrap.cache import Cache, Known
from tools import histogram, smoke_world
from tools.smoke_world import BEACONS, COMMUNITY, HOSTS, OK, World

WITHIN_MS = 5000
WANTED = 0.99
FAILING = 1 / 3
"""How often a source fails; all six at once do so about once in 700."""

AT_ONCE = 20


@dataclass(frozen=True, slots=True)
class Reconnect:
    """One client's try: what its sources did, and how long it took to know a peer."""

    beacons: tuple[str, ...]
    hosts: tuple[str, ...]
    cache: str
    first_peer_ms: float | None
    refusals: tuple[str, ...]

    @property
    def hopeless(self) -> bool:
        """Whether no source could have helped."""
        return OK not in self.beacons + self.hosts and self.cache != "live"

    @property
    def good(self) -> bool:
        """Whether it knew a peer in time."""
        return self.first_peer_ms is not None and self.first_peer_ms <= WITHIN_MS


@dataclass(frozen=True, slots=True)
class Report:
    """How all of it went."""

    seed: int
    reconnects: tuple[Reconnect, ...]
    took_s: float

    @property
    def share(self) -> float:
        """The share of those who knew a peer in time."""
        return sum(one.good for one in self.reconnects) / len(self.reconnects)

    @property
    def times_ms(self) -> list[float]:
        """How long those took who found somebody."""
        return sorted(t for one in self.reconnects if (t := one.first_peer_ms) is not None)

    def quantile(self, share: float) -> float:
        """Return the time within which this share of those who found somebody did."""
        times = self.times_ms
        return times[min(int(share * len(times)), len(times) - 1)] if times else float("inf")

    def lines(self) -> list[str]:
        """Tell it to people."""
        count = len(self.reconnects)
        never = count - len(self.times_ms)
        hopeless = sum(one.hopeless for one in self.reconnects)
        failures = Counter(
            kind for one in self.reconnects for kind in one.beacons + one.hosts if kind != OK
        )
        refusals = Counter(reason for one in self.reconnects for reason in one.refusals)
        caches = Counter(one.cache for one in self.reconnects)
        return [
            f"{count} reconnects in {self.took_s:.1f} s, seed {self.seed}: "
            f"{self.share:.1%} knew a peer within {WITHIN_MS / 1000:g} s",
            f"time to the first peer: p50 {self.quantile(0.5):.0f} ms, "
            f"p90 {self.quantile(0.9):.0f} ms, p99 {self.quantile(0.99):.0f} ms, "
            f"longest {self.quantile(1):.0f} ms",
            "",
            *histogram.text(self.times_ms, never=never),
            "",
            f"broken sources: {_counted(failures)}",
            f"caches: {_counted(caches)}",
            f"refusals: {_counted(refusals)}",
            f"reconnects without a single source that worked: {hopeless}",
        ]


async def run(
    count: int, *, seed: int = 1, deadline_s: float = WITHIN_MS / 1000, failing: float = FAILING
) -> Report:
    """Let *count* clients reconnect, a few of them at a time."""
    chance = random.Random(seed)  # noqa: S311 - chance, so that it can be repeated
    loop = asyncio.get_running_loop()
    gate = asyncio.Semaphore(AT_ONCE)
    with tempfile.TemporaryDirectory(prefix="muster-smoke-") as name:
        async with AsyncExitStack() as stack:
            world = await smoke_world.build(stack, chance)
            clients = [_drawn(world, chance, Path(name) / str(n), failing) for n in range(count)]

            async def reconnect(client: _Reconnecting) -> Reconnect:
                async with gate:
                    return await _reconnect(world, client, deadline_s)

            begun = loop.time()
            done = await asyncio.gather(*(reconnect(client) for client in clients))
            took_s = loop.time() - begun
    return Report(seed, tuple(done), took_s)


# --- a client -----------------------------------------------------------------


class _Reconnecting(NamedTuple):
    beacons: tuple[tuple[str, str], ...]
    hosts: tuple[tuple[str, str], ...]
    cache: str
    folder: Path


def _drawn(world: World, chance: random.Random, folder: Path, failing: float) -> _Reconnecting:
    return _Reconnecting(
        _chosen(world.beacons, chance, BEACONS, failing),
        _chosen(world.hosts, chance, HOSTS, failing),
        chance.choices(("none", "empty", "past", "damaged", "live"), (30, 30, 20, 12, 8))[0],
        folder,
    )


def _chosen(
    places: Mapping[str, list[str]], chance: random.Random, count: int, failing: float
) -> tuple[tuple[str, str], ...]:
    """Choose what each source does, and a place of its own that does it."""
    broken = [kind for kind in places if kind != OK]
    kinds = [chance.choice(broken) if chance.random() < failing else OK for _ in range(count)]
    return tuple((kind, places[kind][n]) for n, kind in enumerate(kinds))


async def _reconnect(world: World, client: _Reconnecting, deadline_s: float) -> Reconnect:
    cache = await asyncio.to_thread(_cache, world, client)
    found: Found = await bootstrap(
        *(f"{url}#{world.key}" for _, url in client.hosts),
        beacons=[url for _, url in client.beacons],
        cache=cache,
        deadline_s=deadline_s,
        linger_s=0.1,
    )
    return Reconnect(
        beacons=tuple(kind for kind, _ in client.beacons),
        hosts=tuple(kind for kind, _ in client.hosts),
        cache=client.cache,
        first_peer_ms=found.first_peer_ms,
        refusals=tuple(outcome.reason for outcome in found.sources if outcome.reason),
    )


def _cache(world: World, client: _Reconnecting) -> Cache | None:
    if client.cache == "none":
        return None
    cache = Cache(client.folder)
    if client.cache in ("past", "live"):
        kept = world.live if client.cache == "live" else world.past
        cache.keep_known(COMMUNITY, Known(tickets=(kept,)))
    elif client.cache == "damaged":
        cache.keep_known(COMMUNITY, Known())
        for path in client.folder.iterdir():
            path.write_text("{")
    return cache


# --- the command --------------------------------------------------------------


def main(argv: Sequence[str] | None = None) -> int:
    """Run it, print and draw the distribution."""
    parser = argparse.ArgumentParser(
        prog="python -m tools.smoke",
        description="Let many clients start again while most of what they know is broken.",
    )
    parser.add_argument("--reconnects", type=int, default=200, metavar="N", help="(%(default)s)")
    parser.add_argument("--seed", type=int, default=1, metavar="N", help="(%(default)s)")
    parser.add_argument("--out", type=Path, default=Path("build/reports"), metavar="DIR")
    parser.add_argument("--json", action="store_true", help="print JSON instead of text")
    arguments = parser.parse_args(argv)
    if arguments.reconnects < 1:
        parser.error("--reconnects must be 1 or more")
    report = asyncio.run(run(arguments.reconnects, seed=arguments.seed))
    drawing = keep(report, arguments.out)
    if arguments.json:
        print(json.dumps(_told(report)))
    else:
        print("\n".join([*report.lines(), "", f"drawn in {drawing}"]))
    return 0 if report.share >= WANTED else 1


def keep(report: Report, folder: Path) -> Path:
    """Write the drawing; return where it is."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "smoke.svg"
    first, second, *_ = report.lines()
    never = len(report.reconnects) - len(report.times_ms)
    drawing = histogram.svg(report.times_ms, never=never, title=first, subtitle=second)
    whole_file.write(path, drawing, mode=whole_file.PUBLIC)
    return path


def _told(report: Report) -> dict[str, object]:
    return {
        "ok": report.share >= WANTED,
        "seed": report.seed,
        "reconnects": len(report.reconnects),
        "share": report.share,
        "hopeless": sum(one.hopeless for one in report.reconnects),
        "first_peer_ms": report.times_ms,
        "took_s": round(report.took_s, 3),
    }


def _counted(counts: Counter[str]) -> str:
    return ", ".join(f"{count} {name}" for name, count in counts.most_common()) or "none"


if __name__ == "__main__":
    sys.exit(main())
