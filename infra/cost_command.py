"""`muster cost`: what a month costs and what the money is spent on."""

from __future__ import annotations

import argparse
from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

from infra import ceilings, cost, price
from infra.bill import PRICES, REGION, Estimate, Row, of_region
from infra.ceilings import Ceilings
from infra.price import Quote
from muster.cli import output
from muster.cli.bars import bar
from muster.cli.output import Misuse


def cost_of(arguments: argparse.Namespace) -> int:
    """Print what a month costs by the model, and the most that the limits allow."""
    asked = _asked(arguments)
    limits = ceilings.below(arguments.max_usd, region=asked.region) if arguments.max_usd else None
    held = limits or Ceilings()
    quote = price.quote(held.parameters() | held.settings(), region=asked.region)
    if arguments.json:
        output.dump(_told(asked, held, quote))
        return output.OK
    draw = _Drawing()
    nodes = f"{asked.nodes} node{'' if asked.nodes == 1 else 's'}"
    draw.say(f"{nodes}, {asked.hours:g} h a day, {asked.region}: a month of")
    draw.say(f"{asked.client}: {cost.clients()[asked.client].what}")
    draw.say("")
    draw.bill(asked.estimate(asked.client))
    draw.say("")
    draw.say(f"The same by every client ('{asked.client}' is above; --client NAME shows another):")
    draw.bars(
        [(name, usd, cost.clients()[name].what) for name, usd in asked.others().items()]
        + [("nobody", quote.idle_usd, "what stands; nothing runs")]
    )
    draw.say("")
    draw.worst(quote, "with these limits" if limits else "of a deployment as it comes")
    draw.say("")
    price.show(f"Prices as of {PRICES['as_of']}: {PRICES['note']}.")
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
        client=arguments.client or cost.DESIGNS.get(arguments.design, cost.USUAL),
    )


def _told(asked: _Asked, limits: Ceilings, quote: Quote) -> dict[str, Any]:
    worst = quote.to_json()
    return {
        **asked._asdict(),
        **asked.estimate(asked.client).to_json(),
        "others_usd": {name: round(usd, 4) for name, usd in asked.others().items()},
        **{name: worst[name] for name in worst if name.endswith("_usd") and name != "usual_usd"},
        "idle": cost.nobody(region=asked.region).to_json(),
        "boundless": worst["boundless"],
        "limits": limits.parameters(),
        "prices_as_of": PRICES["as_of"],
    }


def _region(name: str | None) -> str:
    of_region(name or REGION)
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
        for row in rows:
            self._row(row, row.usd + off.get(row.what, 0))
        self.say(f"{'':<40}{'-' * 9}")
        spared = estimate.list_usd - estimate.total_usd
        self.say(f"{'a month':<39}{_usd(estimate.total_usd)}")
        if spared >= 0.005:
            self.say(f"{'without the free tier of every account':<39}{_usd(estimate.list_usd)}")

    def _row(self, row: Row, usd: float) -> None:
        quantity = f"{_number(row.quantity)} {row.unit}"
        self.say(f"{row.what:<18}{quantity:>21}{_usd(usd)}  {_each(row)}, {row.source}")

    def worst(self, quote: Quote, held: str) -> None:
        """Print the worst months that limits allow, and what they do not count."""
        self.say(f"The worst month {held}, every limit reached in every second:")
        for usd, whose in (
            (quote.strangers_usd, "by strangers, whom a closed service refuses"),
            (quote.members_usd, "by members of a closed service"),
            (quote.open_usd, "by anybody, where it is open"),
        ):
            self.say(f"  {_usd(usd)}  {whose}")
        price.show(f"  {quote.allows}", indent="  ")
        price.show_boundless(quote.boundless)

    def bars(self, things: Iterable[tuple[str, float, str]]) -> None:
        """Print sums with bars to compare them."""
        rows = list(things)
        most = max(usd for _, usd, _ in rows)
        for name, usd, what in rows:
            drawn = bar(0, usd, most, ascii_only=self._ascii_only, cells=8)
            price.show(f"  {name:<7}{_usd(usd)}  {drawn}  {what}", indent=" " * 31)


def _each(row: Row) -> str:
    """Say what one costs, or a million where one costs next to nothing."""
    if row.each_usd < 0.005:
        return f"${_exact(row.each_usd * 1e6)} a million"
    return f"${_exact(row.each_usd)} {'a GB' if row.unit == 'GB' else 'each'}"


def _exact(usd: float) -> str:
    """Write a price with a third decimal where it has one."""
    text = f"{usd:,.3f}"
    return text.removesuffix("0")


def _usd(usd: float) -> str:
    return f"{'$' + format(usd, ',.2f'):>10}"


def _number(quantity: float) -> str:
    return f"{quantity:,.0f}" if quantity >= 10 or quantity == int(quantity) else f"{quantity:,.2f}"
