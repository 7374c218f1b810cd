"""Table: the results for people who watch, on stderr."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any


def lines(report: Mapping[str, Any]) -> Iterator[str]:
    """Yield the report as aligned text."""
    yield ""
    yield f"{'':<22}{'median':>44}{'best':>14}   aim"
    for name, result in report["results"].items():
        yield from _result(name, result)
    units = report["results"].get("store_units", {})
    if "calls" in units:
        yield ""
        yield f"{'store units a call':<34}{'write':>7}{'read':>7}{'cold read':>11}   verbs"
        yield from map(_units, units["calls"])
    yield ""
    yield f"{report['mode']}, {report['took_s']:g} s; {report['where']}"


def _result(name: str, result: Mapping[str, Any]) -> Iterator[str]:
    if "error" in result:
        yield f"{name:<22}FAILED: {result['error']}"
        return
    told = _told(result)
    if "median" in result:
        yield _row(name, result) + told
    for engine in ("file", "memory"):
        for call, figures in result.get(engine, {}).items():
            yield _row(f"cpu {call}, {engine}", figures) + (told if engine == "file" else "")
    if "sizes" in result:
        for library, size in result["sizes"].items():
            kilobytes = f"{size['min_bytes'] / 1000:.1f} KB, {size['gzip_bytes'] / 1000:.1f} gzip"
            yield f"{f'size {library}':<34}{kilobytes:>32}" + (told if library == "muster" else "")
    for way, figures in result.get("round_trips", {}).items():
        times = ", ".join(_figure(key, value) for key, value in figures.items())
        yield f"{f'there and back, {way}':<34}{times:>32}"
    if "quiet" in result:
        times = result["ratio"]["median"]
        yield _row("  quiet", result["quiet"]) + f"   p99 of the others is {times:g} times as long"
    for name in ("reference", "reference_wal", "version1"):
        if name in result:
            times = result[name]["ratio"]["median"]
            yield (
                _row(f"  {name.replace('_', ', ')}", result[name])
                + f"   ours is {times:g} times as fast"
            )


def _row(name: str, figures: Mapping[str, Any]) -> str:
    middle = ", ".join(_figure(key, value) for key, value in figures["median"].items())
    key, value = next(iter(figures["best"].items()))
    return f"{name:<22}{middle:>44}{_figure(key, value):>14}"


def _figure(name: str, value: float) -> str:
    if name == "calls_per_s":
        return f"{value:.0f}/s"
    if name.endswith("_ms"):
        label = name.removesuffix("_ms").removeprefix("server_")
        return f"{value:.2f} ms" if label == "cpu" else f"{label} {value:.2f}"
    number, unit = f"{value:.1f}", name.rpartition("_")[2]
    return f"{number} {unit.replace('mib', 'MiB idle').replace('kib', 'KiB a socket')}"


def _told(result: Mapping[str, Any]) -> str:
    if "aim" not in result:
        return ""
    return f"   {'reached' if result['reached'] else 'MISSED'}: {result['aim']}"


def _units(call: Mapping[str, Any]) -> str:
    verbs = ", ".join(f"{name} {count}" for name, count in call["verbs"].items())
    mark = " " if call["reached"] else "*"
    warm, cold = call["warm"], call["cold"]
    figures = f"{warm['write_units']:>7g}{warm['read_units']:>7g}{cold['read_units']:>11g}"
    return f"{call['call']:<34}{figures} {mark} {verbs}"
