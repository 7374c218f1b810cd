"""Price: what a deployment costs a month, usually and at the worst that its limits allow."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from infra import ceilings, cost
from infra.ceilings import Ceilings
from muster.cli import output
from muster.cli.output import Failure

NODES = 5
UNRESERVED = 1000
"""How many machines may run where none are reserved and AWS does not say how many it has."""


@dataclass(frozen=True, slots=True)
class Quote:
    """What a month costs, and what may happen in it."""

    usual_usd: float
    worst_usd: float
    allows: str

    def show(self) -> None:
        """Print it."""
        output.show(
            f"Price: about ${self.usual_usd:,.2f} a month for {NODES} nodes that are always there; "
            f"the worst month that the limits allow: ${self.worst_usd:,.2f}."
        )
        output.show(f"The limits: {self.allows}.")

    def to_json(self) -> dict[str, Any]:
        """Return it for programs."""
        return {
            "usual_usd": round(self.usual_usd, 4),
            "worst_usd": round(self.worst_usd, 2),
            "allows": self.allows,
        }


def limits(max_usd: float | None, *, region: str, architecture: str) -> Ceilings | None:
    """Return the limits that keep the worst month below *max_usd*; raises `Misuse`."""
    if max_usd is None:
        return None
    return ceilings.below(max_usd, region=region, architecture=architecture)


def quote(
    values: Mapping[str, str], *, region: str, machines: int | None, max_usd: float | None
) -> Quote:
    """Price a deployment; *machines* is how many may run if it reserves none."""
    if values.get("Concurrency") == "0":
        values = {**values, "Concurrency": str(UNRESERVED if machines is None else machines)}
    architecture = values["Architecture"]
    chosen = Ceilings.from_parameters(values)
    usual = cost.estimate(
        nodes=NODES,
        hours=24,
        design="push",
        region=region,
        memory_mb=chosen.memory_mb,
        architecture=architecture,
    ).total_usd
    worst = chosen.worst(region=region, architecture=architecture).total_usd
    if max_usd is not None and worst > max_usd:
        raise Failure(
            f"with these parameters the worst month costs ${worst:,.2f}, more than ${max_usd:,.2f}",
            "omit the --param that raises a limit, or raise --max-usd",
        )
    return Quote(usual, worst, chosen.allows())
