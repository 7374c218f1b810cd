"""Measure the service on this machine and print JSON.

Everything runs on the loopback interface, in processes that end with this one.
Aims stand beside the results; the exit code tells only whether everything ran.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import resource
import sys
import time
from collections.abc import Callable, Sequence
from typing import Any

import muster
from tools.bench import chat, inside, network, table, units, web
from tools.bench.aims import AIMS, ELSEWHERE
from tools.bench.network import Load, Pace, Results

PACES = {
    "default": Pace(runs=5, seconds=1.0, count=1_000),
    "quick": Pace(runs=2, seconds=0.2, count=100, sockets=200),
}

WHERE = "client and servers share this machine, and with whatever else runs on it"
HOW = (
    "each figure is measured `runs` times; `best` is the best of them and `median` the middle "
    "one, figure by figure",
    "calls are signed before a run starts; signature, nonce and limits are checked as always, "
    "with limits so high that they count but do not refuse",
    "the reference is a small aiohttp and aiosqlite server without signatures, nonces and limits "
    "(tools/bench/reference.py), measured in the same run by the same generator, in turns; "
    "`reference` keeps its file with SQLite's defaults, `reference_wal` as the service keeps its",
    "one server process, the generator in another; no pipelining",
)

Measure = Callable[[Load, Pace], Results]


def _handler_cpu(load: Load, pace: Pace) -> Results:
    runs = min(pace.runs, 3)
    return {"handler_cpu": inside.handler_cpu(runs=runs, calls=pace.count)}


def _store_units(load: Load, pace: Pace) -> Results:
    return {"store_units": units.store_units()}


def _chat(load: Load, pace: Pace) -> Results:
    return {"chat": chat.measure(messages=10 * pace.count, members=20)}


def _web(load: Load, pace: Pace) -> Results:
    return web.measure(count=pace.count)


def _through(measure: Callable[[Load], Results]) -> Measure:
    return lambda load, pace: measure(load)


MEASURES: dict[str, tuple[tuple[str, ...], Measure]] = {
    "register": (("register",), _through(network.register)),
    "sync": (("sync",), _through(network.sync)),
    "peers": (("peers_50",), _through(network.peers)),
    "post": (("post",), _through(network.post)),
    "poll": (("poll_nothing_new", "poll_50_new"), _through(network.poll)),
    "push": (("post_to_push",), _through(network.push)),
    "relay": (("relay_frame", "relay_frame_16_kib"), _through(network.relay)),
    "bodies": (("large_bodies",), _through(network.large_bodies)),
    "cpu": (("handler_cpu",), _handler_cpu),
    "units": (("store_units",), _store_units),
    "memory": (("memory",), _through(network.memory)),
    "chat": (("chat",), _chat),
    "web": (("web_size", "web_latency"), _web),
}


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure what was asked for; return 1 if something could not be measured."""
    parser = argparse.ArgumentParser(prog="python -m tools.bench", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="some 12 s instead of 70")
    parser.add_argument(
        "--only", action="append", choices=tuple(MEASURES), help="may be given several times"
    )
    chosen = parser.parse_args(arguments)
    mode = "quick" if chosen.quick else "default"
    report = measure(PACES[mode], chosen.only or list(MEASURES))
    report = {"mode": mode} | report
    print(json.dumps(report, indent=2))
    if sys.stderr.isatty():
        print("\n".join(table.lines(report)), file=sys.stderr)
    return 1 if any("error" in result for result in report["results"].values()) else 0


def measure(pace: Pace, names: Sequence[str]) -> dict[str, Any]:
    """Measure by name; what fails says so in its place, and the rest goes on."""
    _allow_sockets(pace.sockets + 100)
    started = time.perf_counter()
    results: Results = {}
    with network.load(pace) as load:
        for number, name in enumerate(names, 1):
            _progress(f"{number} of {len(names)}: {name}")
            keys, run = MEASURES[name]
            try:
                results |= run(load, pace)
            except Exception as error:
                results |= {key: {"error": f"{type(error).__name__}: {error}"} for key in keys}
    _progress("")
    for name, result in results.items():
        if name in AIMS and "error" not in result:
            result |= {"aim": AIMS[name].text, "reached": AIMS[name].reached(result)}
        if name in ELSEWHERE:
            result |= {"elsewhere": ELSEWHERE[name]}
    return {
        "muster": muster.__version__,
        "python": platform.python_version(),
        "cpus": os.cpu_count(),
        "where": WHERE,
        "how": list(HOW),
        "took_s": round(time.perf_counter() - started, 1),
        "results": results,
    }


def _allow_sockets(count: int) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = count if hard == resource.RLIM_INFINITY else min(count, hard)
    if soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))


def _progress(text: str) -> None:
    if sys.stderr.isatty():
        print(f"\r\033[K{text}", end="", file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main())
