"""`muster cost`: what a month costs and what the money is spent on."""

from __future__ import annotations

import argparse
from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

from infra import ceilings, cost
from infra.bill import PRICES, REGION, Estimate, Row
from infra.ceilings import Ceilings
from muster.cli import output
from muster.cli.bars import bar
from muster.cli.output import Misuse

BAR_CELLS = 28


def cost_of(arguments: argparse.Namespace) -> int:
    """Print what a month costs by the model, and the most that the limits allow."""
    asked = _asked(arguments)
    limits = ceilings.below(arguments.max_usd, region=asked.region) if arguments.max_usd else None
    worst = (limits or Ceilings()).worst(region=asked.region)
    if arguments.json:
        output.dump(_told(asked, limits or Ceilings(), worst))
        return output.OK
    draw = _Drawing()
    draw.say(f"{asked.nodes} nodes, {asked.hours:g} h a day, {asked.region}: a month of")
    draw.say(cost.clients()[asked.client].what)
    draw.say("")
    draw.bill(asked.estimate(asked.client))
    draw.say("")
    draw.say("The same by other clients:")
    draw.bars((name, usd, cost.clients()[name].what) for name, usd in asked.others().items())
    draw.say("")
    held = "these limits" if limits else "the limits of a deployment as it comes"
    draw.say(f"The worst month that {held} allow, every second of it: ${worst.total_usd:,.2f}")
    draw.say(f"  {(limits or Ceilings()).allows()}")
    draw.say("")
    draw.say(f"Prices as of {PRICES['as_of']}: {PRICES['note']}.")
    return output.OK


class _Asked(NamedTuple):
    """Whose month is estimated."""

    nodes: int
    hours: float
    messages: float
    region: str
    client: str

    def estimate(self, client: str) -> Estimate:
        """Return the month of these nodes if they all were clients of that name."""
        return cost.estimate(**{**self._asdict(), "client": client})

    def others(self) -> dict[str, float]:
        """Return the total of every kind of client."""
        return {name: self.estimate(name).total_usd for name in cost.clients()}


def _asked(arguments: argparse.Namespace) -> _Asked:
    known = cost.clients()
    if arguments.client and arguments.client not in known:
        raise Misuse(f"there is no client '{arguments.client}'", f"there are: {', '.join(known)}")
    return _Asked(
        nodes=arguments.nodes,
        hours=arguments.hours,
        messages=arguments.messages,
        region=_region(arguments.region),
        client=arguments.client or cost.DESIGNS[arguments.design],
    )


def _told(asked: _Asked, limits: Ceilings, worst: Estimate) -> dict[str, Any]:
    return {
        **asked._asdict(),
        **asked.estimate(asked.client).to_json(),
        "others_usd": {name: round(usd, 4) for name, usd in asked.others().items()},
        "worst_usd": round(worst.total_usd, 2),
        "limits": limits.parameters(),
        "prices_as_of": PRICES["as_of"],
    }


def _region(name: str | None) -> str:
    known = PRICES["regions"]
    if name is not None and name not in known:
        raise Misuse(
            f"there are no prices of {name} here", f"there are those of {', '.join(known)}"
        )
    return name or REGION


class _Drawing:
    """A bill, drawn."""

    def __init__(self) -> None:
        self._ascii_only = output.plain()

    def say(self, text: str) -> None:
        """Print a line."""
        output.show(text)

    def bill(self, estimate: Estimate) -> None:
        """Print the lines of a bill, the most expensive first, and its total."""
        off: Mapping[str, float] = {row.what: row.usd for row in estimate.free}
        rows = sorted(estimate.rows, key=lambda row: -row.usd - off.get(row.what, 0))
        most = max((row.usd for row in rows), default=0)
        for row in rows:
            self._row(row, row.usd + off.get(row.what, 0), most)
        self.say(f"{'':<20}{'':>28}  {'-' * 10}")
        spared = estimate.list_usd - estimate.total_usd
        note = f"   ${spared:,.2f} more without the free tier of every account"
        total = f"{'a month':<20}{'':>28}  {_usd(estimate.total_usd)}"
        self.say(total + (note if spared >= 0.005 else ""))

    def _row(self, row: Row, usd: float, most: float) -> None:
        quantity = f"{_number(row.quantity)} {row.unit}"
        drawn = bar(0, usd, most, ascii_only=self._ascii_only, cells=BAR_CELLS) if usd else ""
        self.say(f"{row.what:<20}{quantity:>28}  {_usd(usd)}  {drawn}".rstrip())

    def bars(self, things: Iterable[tuple[str, float, str]]) -> None:
        """Print sums with bars to compare them."""
        rows = list(things)
        most = max(usd for _, usd, _ in rows)
        for name, usd, what in rows:
            drawn = bar(0, usd, most, ascii_only=self._ascii_only, cells=16)
            self.say(f"  {name:<8}{_usd(usd)}  {drawn}  {what}")


def _usd(usd: float) -> str:
    return f"{'$' + format(usd, ',.2f'):>10}"


def _number(quantity: float) -> str:
    return f"{quantity:,.0f}" if quantity >= 10 else f"{quantity:,.2f}"
