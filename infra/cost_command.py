"""`muster cost`: where the money goes, as people read it, or was seen to go."""

from __future__ import annotations

import argparse
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

from infra import cost
from infra.cost import Estimate, Row
from muster.cli import output
from muster.cli.output import Misuse

if TYPE_CHECKING:
    from rich.console import Console

BAR_CELLS = 28


def cost_of(arguments: argparse.Namespace) -> int:
    """Print what a month costs, by the model or by what CloudWatch has counted."""
    if arguments.actual:
        return _actual(arguments)
    if arguments.client and arguments.client not in cost.clients():
        raise Misuse(
            f"there is no client '{arguments.client}'", f"there are: {', '.join(cost.clients())}"
        )
    asked: dict[str, Any] = {
        "nodes": arguments.nodes,
        "hours": arguments.hours,
        "messages": arguments.messages,
        "region": _region(arguments.region),
    }
    chosen = arguments.client or cost.DESIGNS[arguments.design]
    estimate = cost.estimate(client=chosen, **asked)
    limits = cost.ceilings(arguments.max_usd, region=asked["region"]) if arguments.max_usd else None
    worst = (limits or cost.Ceilings()).worst(region=asked["region"])
    beside = {name: cost.estimate(client=name, **asked).total_usd for name in cost.clients()}
    if arguments.json:
        output.dump(
            {
                **asked,
                "client": chosen,
                **estimate.to_json(),
                "others_usd": {name: round(usd, 4) for name, usd in beside.items()},
                "worst_usd": round(worst.total_usd, 2),
                "limits": (limits or cost.Ceilings()).parameters(),
                "prices_as_of": cost.PRICES["as_of"],
            }
        )
        return output.OK
    draw = _Drawing()
    draw.say(f"{arguments.nodes} nodes, {arguments.hours:g} h a day, {asked['region']}: a month of")
    draw.say(cost.clients()[chosen].what)
    draw.say("")
    draw.bill(estimate)
    draw.say("")
    draw.say("The same by other clients:")
    draw.bars((name, usd, cost.clients()[name].what) for name, usd in beside.items())
    draw.say("")
    held = "these limits" if limits else "the limits of a deployment as it comes"
    draw.say(f"The worst month that {held} allow, every second of it: ${worst.total_usd:,.2f}")
    draw.say(f"  {(limits or cost.Ceilings()).allows()}")
    draw.say("")
    draw.say(f"Prices as of {cost.PRICES['as_of']}: {cost.PRICES['note']}.")
    return output.OK


def _actual(arguments: argparse.Namespace) -> int:
    from infra import cost_actual

    actual = cost_actual.read(
        stage=arguments.stage, profile=arguments.profile, region=arguments.region
    )
    if arguments.json:
        output.dump(
            {
                "days": actual.days,
                "month": actual.estimate.to_json(),
                "total_usd": round(actual.estimate.total_usd, 4),
            }
        )
        return output.OK
    draw = _Drawing()
    draw.say(f"{actual.stack}: what CloudWatch counted in {actual.days} days, as a month")
    draw.say("")
    draw.bill(actual.estimate)
    draw.say("")
    draw.say("CloudFront and data out are not in it; the bill of AWS is what counts.")
    return output.OK


def _region(name: str | None) -> str:
    known = cost.PRICES["regions"]
    if name is not None and name not in known:
        raise Misuse(
            f"there are no prices of {name} here", f"there are those of {', '.join(known)}"
        )
    return name or cost.REGION


class _Drawing:
    """A bill, drawn."""

    def __init__(self) -> None:
        self._console: Console = output.console()
        self._full = "#" if output.plain() else "█"

    def say(self, text: str) -> None:
        """Print a line."""
        self._console.print(output.clean(text), soft_wrap=True)

    def bill(self, estimate: Estimate) -> None:
        """Print the lines of a bill, the dearest first, and its total."""
        off: Mapping[str, float] = {row.what: row.usd for row in estimate.free}
        rows = sorted(estimate.rows, key=lambda row: -row.usd - off.get(row.what, 0))
        most = max((row.usd for row in rows), default=0)
        for row in rows:
            self._row(row, row.usd + off.get(row.what, 0), most)
        self.say(f"{'':<20}{'':>28}  {'-' * 10}")
        spared = estimate.list_usd - estimate.total_usd
        note = f"   ${spared:,.2f} more without what every account has for nothing"
        total = f"{'a month':<20}{'':>28}  {_usd(estimate.total_usd)}"
        self.say(total + (note if spared >= 0.005 else ""))

    def _row(self, row: Row, usd: float, most: float) -> None:
        quantity = f"{_number(row.quantity)} {row.unit}"
        bar = self._full * round(BAR_CELLS * usd / most) if most else ""
        self.say(f"{row.what:<20}{quantity:>28}  {_usd(usd)}  {bar}".rstrip())

    def bars(self, things: Iterable[tuple[str, float, str]]) -> None:
        """Print sums beside one another."""
        rows = list(things)
        most = max((usd for _, usd, _ in rows), default=0) or 1
        for name, usd, what in rows:
            bar = self._full * max(round(16 * usd / most), 1)
            self.say(f"  {name:<8}{_usd(usd)}  {bar:<16}  {what}")


def _usd(usd: float) -> str:
    return f"{'$' + format(usd, ',.2f'):>10}"


def _number(quantity: float) -> str:
    return f"{quantity:,.0f}" if quantity >= 10 else f"{quantity:,.2f}"
