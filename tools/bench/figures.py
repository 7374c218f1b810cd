"""Figures: what was measured several times, the best and the median of it, and the aim."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

Run = dict[str, float]


@dataclass(frozen=True, slots=True)
class Aim:
    """A number to reach: where it is read, and whether more or less of it is better."""

    text: str
    figure: Callable[[Mapping[str, Any]], float | None]
    at_least: float | None = None
    at_most: float | None = None

    def reached(self, result: Mapping[str, Any]) -> bool | None:
        """Say whether the result reaches the aim; None if it has no such figure."""
        value = self.figure(result)
        if value is None:
            return None
        return (self.at_least is None or value >= self.at_least) and (
            self.at_most is None or value <= self.at_most
        )


@dataclass(slots=True)
class Figures:
    """The runs of one measurement."""

    runs: list[Run] = field(default_factory=list)

    def to_json(self) -> dict[str, Any]:
        """Return how often it was run, and of each figure the best and the median."""
        names = self.runs[0] if self.runs else {}
        return {
            "runs": len(self.runs),
            "best": {name: rounded(_best(name, self._all(name))) for name in names},
            "median": {name: rounded(statistics.median(self._all(name))) for name in names},
        }

    def _all(self, name: str) -> list[float]:
        return [run[name] for run in self.runs]


def latencies(seconds: Sequence[float]) -> Run:
    """Return the middle and the tail of some latencies, in milliseconds."""
    ordered = sorted(seconds)
    return {
        "p50_ms": ordered[len(ordered) // 2] * 1000,
        "p99_ms": ordered[min(len(ordered) * 99 // 100, len(ordered) - 1)] * 1000,
    }


def ratio(ours: Mapping[str, Any], theirs: Mapping[str, Any], name: str) -> dict[str, float]:
    """Return how many times theirs we are, best against best and median against median."""
    return {which: rounded(ours[which][name] / theirs[which][name]) for which in ("best", "median")}


def rounded(value: float) -> float:
    """Keep as many digits as such a measurement can mean."""
    return float(f"{value:.4g}")


def _best(name: str, values: Sequence[float]) -> float:
    return max(values) if name.endswith("_per_s") else min(values)
