"""Price: what a deployment costs, as far as the cost model is there to say."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from importlib import import_module
from typing import Any

from infra import output
from infra.output import Failure


@dataclass(frozen=True, slots=True)
class Quote:
    """What a month costs: with five nodes, and at the worst that the limits allow."""

    usual_usd: float | None = None
    worst_usd: float | None = None
    allowed: Mapping[str, str] = field(default_factory=dict)

    def show(self) -> None:
        """Print it."""
        if self.usual_usd is None:
            output.show("Price: not known to this version.")
            return
        worst = f"; the limits allow at most ${self.worst_usd:,.2f}" if self.worst_usd else ""
        output.show(f"Price: about ${self.usual_usd:.2f} a month for five nodes{worst}.")
        if self.allowed:
            chosen = ", ".join(f"{name} {value}" for name, value in sorted(self.allowed.items()))
            output.show(f"       That allows {chosen}.")

    def to_json(self) -> dict[str, Any]:
        """Return it for programs."""
        return {"usual_usd": self.usual_usd, "worst_usd": self.worst_usd}


def quote(values: Mapping[str, str], *, max_usd: float | None) -> Quote:
    """Return what a deployment with these parameters costs."""
    cost = _model()
    if cost is None:
        return Quote()
    usual = float(cost.estimate(nodes=5, hours=24, design="push").total_usd)
    return Quote(usual, None, ceilings(max_usd))


def ceilings(max_usd: float | None) -> dict[str, str]:
    """Return the parameters that keep the worst month below *max_usd*."""
    if max_usd is None:
        return {}
    cost = _model()
    if cost is None:
        raise Failure("this version has no cost model", "choose limits with --param")
    found: Mapping[str, Any] = cost.ceilings(max_usd, cost.PRICES)
    return {name: str(value) for name, value in found.items()}


def _model() -> Any:
    try:
        return import_module("infra.cost")
    except ModuleNotFoundError:
        return None
