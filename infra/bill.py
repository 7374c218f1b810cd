"""A bill: what was used in a month, in AWS's own units, and what AWS charges for it.

Prices are in `prices.json`. Everything is a list price; the free tier that every account
has is deducted at the end and shown by itself.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

DAYS = 365 / 12
MONTH_S = DAYS * 86_400
GB = 1_000_000_000

PRICES: Mapping[str, Any] = json.loads((Path(__file__).parent / "prices.json").read_text())
REGION = "us-east-1"

CALL_MS = 15.0
"""How long a call keeps a machine busy: two or three round trips to DynamoDB in sequence."""

ANSWER_BYTES, LOG_BYTES = 1_000, 600
"""What goes out for a call, and what is logged of it, Lambda's own three lines included."""


class Units(NamedTuple):
    """What a call takes from DynamoDB, as `make bench` counts it under the name *bench*."""

    write: float
    read: float
    bench: str = ""


@dataclass(frozen=True, slots=True)
class Row:
    """One line of a bill."""

    what: str
    quantity: float
    unit: str
    usd: float


@dataclass(frozen=True, slots=True)
class Estimate:
    """A month's bill; `total_usd` is `list_usd` less the free tier."""

    total_usd: float
    list_usd: float
    rows: tuple[Row, ...]
    free: tuple[Row, ...] = ()

    def to_json(self) -> dict[str, Any]:
        """Return it for programs."""

        def told(rows: tuple[Row, ...]) -> list[dict[str, Any]]:
            return [
                {
                    "what": row.what,
                    "quantity": round(row.quantity, 3),
                    "unit": row.unit,
                    "usd": round(row.usd, 4),
                }
                for row in rows
            ]

        return {
            "total_usd": round(self.total_usd, 4),
            "list_usd": round(self.list_usd, 4),
            "rows": told(self.rows),
            "free": told(self.free),
        }


@dataclass(slots=True)
class Use:
    """What a month takes, in AWS's own units."""

    http_call: float = 0
    socket_message: float = 0
    socket_minute: float = 0
    lambda_request: float = 0
    lambda_gb_s: float = 0
    write_unit: float = 0
    read_unit: float = 0
    file_put: float = 0
    file_get: float = 0
    log_gb: float = 0
    transfer_gb: float = 0
    edge_call: float = 0
    alarm_month: float = 0
    stored_gb_month: float = 0
    _memory_gb: float = field(default=1.0, repr=False)

    def run(self, times: float, ms: float) -> None:
        """Count runs of the function."""
        self.lambda_request += times
        self.busy(times * ms)
        self.log_gb += times * LOG_BYTES / GB

    def busy(self, ms: float) -> None:
        """Count time of the function."""
        self.lambda_gb_s += ms / 1000 * self._memory_gb

    def ask(self, times: float, units: Units) -> None:
        """Count what is asked of the store."""
        self.write_unit += times * units.write
        self.read_unit += times * units.read

    def call(self, times: float, units: Units) -> None:
        """Count HTTP calls."""
        self.http_call += times
        self.edge_call += times
        self.transfer_gb += times * ANSWER_BYTES / GB
        self.run(times, CALL_MS)
        self.ask(times, units)


WHAT: Mapping[str, tuple[str, str]] = {
    "http_call": ("HTTP calls", "calls"),
    "socket_message": ("socket messages", "messages"),
    "socket_minute": ("sockets held open", "minutes"),
    "lambda_request": ("function runs", "runs"),
    "lambda_gb_s": ("function time", "GB-seconds"),
    "write_unit": ("store, written", "units"),
    "read_unit": ("store, read", "units"),
    "file_put": ("files written", "files"),
    "file_get": ("files read", "files"),
    "log_gb": ("logs", "GB"),
    "transfer_gb": ("data out", "GB"),
    "edge_call": ("CloudFront calls", "calls"),
    "alarm_month": ("alarms", "alarms"),
    "stored_gb_month": ("stored", "GB"),
}


def bill(
    use: Use,
    *,
    region: str = REGION,
    architecture: str = "arm64",
    free: bool = True,
    prices: Mapping[str, Any] = PRICES,
) -> Estimate:
    """Price what was used; a region without prices of its own gets those of `REGION`."""
    asked = prices["regions"].get(region) or prices["regions"][REGION]
    allowed = prices["always_free"]
    rows, off = [], []
    for name, (what, unit) in WHAT.items():
        quantity = getattr(use, name)
        each = asked[f"{name}_{architecture}" if name == "lambda_gb_s" else name]
        if quantity:
            rows.append(Row(what, quantity, unit, quantity * each))
        spared = min(quantity, float(allowed.get(name, 0))) if free else 0
        if spared:
            off.append(Row(what, spared, unit, -spared * each))
    total = sum(row.usd for row in rows)
    return Estimate(total + sum(row.usd for row in off), total, tuple(rows), tuple(off))
