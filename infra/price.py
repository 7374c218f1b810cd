"""Price: what a deployment costs a month, usually and at the worst that its limits allow."""

from __future__ import annotations

import textwrap
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from infra import ceilings, cost
from infra.bill import PRICES
from infra.ceilings import Ceilings, Terms
from muster.cli import output
from muster.cli.output import Failure

NODES = 5
WIDTH = 80
UNRESERVED = 1000
"""How many machines may run where none are reserved and AWS does not say how many it has."""


@dataclass(frozen=True, slots=True)
class Quote:
    """What a month costs, and what may happen in it."""

    idle_usd: float
    usual_usd: float
    strangers_usd: float
    members_usd: float
    open_usd: float
    is_open: bool
    allows: str
    boundless: tuple[str, ...]
    region: str

    @property
    def worst_usd(self) -> float:
        """The most that a month can cost, whoever calls."""
        return self.open_usd if self.is_open else self.members_usd

    def show(self) -> None:
        """Print it."""
        output.show(f"Price of a month in {self.region}, list prices of {PRICES['as_of']}:")
        output.show(f"{_usd(self.idle_usd)}  while nobody is there")
        output.show(f"{_usd(self.usual_usd)}  about, for {NODES} nodes that are always there")
        for usd, whose in self.worst():
            output.show(f"{_usd(usd)}  at most, {whose}")
        show(f"The limits: {self.allows}.", indent="  ")
        show_boundless(self.boundless)

    def worst(self) -> Iterator[tuple[float, str]]:
        """Yield the worst months and who can cause them."""
        if self.is_open:
            yield self.open_usd, "by anybody: it is open, strangers do what members do"
        else:
            yield self.strangers_usd, "by strangers: it is closed, they are refused"
            yield self.members_usd, "by members; --max-usd chooses it"

    def to_json(self) -> dict[str, Any]:
        """Return it for programs."""
        return {
            "idle_usd": round(self.idle_usd, 4),
            "usual_usd": round(self.usual_usd, 4),
            "worst_usd": round(self.worst_usd, 2),
            **{
                name: round(getattr(self, name), 2)
                for name in ("strangers_usd", "members_usd", "open_usd")
            },
            "access": "open" if self.is_open else "closed",
            "allows": self.allows,
            "boundless": list(self.boundless),
            "prices_as_of": PRICES["as_of"],
        }


def show_boundless(boundless: tuple[str, ...]) -> None:
    """Print what the worst months do not count, as nothing bounds it."""
    output.show("Not in it, as nothing of ours bounds it; the budget's e-mail tells of it:")
    for one in boundless:
        show(f"  - {one}", indent="    ")


def show(text: str, *, indent: str = "") -> None:
    """Print a text in lines that fit a narrow terminal, the others behind *indent*."""
    output.show(textwrap.fill(text, WIDTH, subsequent_indent=indent))


def limits(max_usd: float | None, *, region: str, architecture: str) -> Ceilings | None:
    """Return the limits that keep every month below *max_usd*; raises `Misuse`."""
    if max_usd is None:
        return None
    return ceilings.below(max_usd, region=region, architecture=architecture)


def quote(
    values: Mapping[str, str],
    *,
    region: str,
    machines: int | None = None,
    max_usd: float | None = None,
) -> Quote:
    """Price a deployment; *machines* is how many may run if it reserves none.

    Raises `Misuse` where the region's prices are not known, `Failure` where a month may cost
    more than *max_usd*.
    """
    if values.get("Concurrency") == "0":
        values = {**values, "Concurrency": str(UNRESERVED if machines is None else machines)}
    chosen, terms = Ceilings.from_parameters(values), Terms.of(values, region=region)
    usual = cost.estimate(
        nodes=NODES,
        hours=24,
        client=cost.USUAL,
        region=region,
        memory_mb=chosen.memory_mb,
        architecture=terms.architecture,
        edge=terms.edge,
        standing=terms.standing,
    )
    made = Quote(
        idle_usd=cost.nobody(region=region, standing=terms.standing).total_usd,
        usual_usd=usual.total_usd,
        strangers_usd=chosen.strangers(terms).total_usd,
        members_usd=chosen.members(terms).total_usd,
        open_usd=chosen.open(terms).total_usd,
        is_open=values.get("Access") == "open",
        allows=chosen.allows(),
        boundless=tuple(ceilings.boundless(chosen, terms)),
        region=region,
    )
    if max_usd is not None and made.worst_usd > max_usd:
        raise Failure(
            f"with these parameters the worst month costs ${made.worst_usd:,.2f}, "
            f"more than ${max_usd:,.2f}",
            "omit the --param that raises a limit, or raise --max-usd",
        )
    return made


def _usd(usd: float) -> str:
    return f"{'$' + format(usd, ',.2f'):>11}"
