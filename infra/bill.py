"""A bill: what was used in a month, in AWS's own units, and what AWS charges for it.

Prices are in `prices.json`, each with where AWS says it. Everything is a list price; the free
tier that every account has is deducted at the end and shown by itself.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

from muster.cli.output import Misuse

DAYS = 365 / 12
MONTH_S = DAYS * 86_400
GB = 1_000_000_000

PRICES: Mapping[str, Any] = json.loads((Path(__file__).parent / "prices.json").read_text())
REGION = "us-east-1"

CALL_MS = 15.0
"""How long a call keeps a machine busy: two or three round trips to DynamoDB in sequence."""

ANSWER_BYTES, LOG_BYTES = 1_000, 350
"""What goes out for a call, and what is logged of it, with what CloudWatch adds to a line."""

RETENTION_DAYS = 14


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
    each_usd: float = 0
    source: str = ""
    """Which of the pages named in `prices.json` says what one costs."""


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
                    "each_usd": row.each_usd,
                    "source": PRICES["sources"].get(row.source, ""),
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
    stored_gb_month: float = 0
    backup_gb_month: float = 0
    file_put: float = 0
    file_get: float = 0
    file_gb_month: float = 0
    log_gb: float = 0
    log_gb_month: float = 0
    metric_month: float = 0
    alarm_month: float = 0
    dashboard_month: float = 0
    key_call: float = 0
    transfer_gb: float = 0
    edge_call: float = 0
    edge_function: float = 0
    edge_gb: float = 0
    _memory_gb: float = field(default=1.0, repr=False)
    _edge: bool = field(default=False, repr=False)
    _log_bytes: float = field(default=LOG_BYTES, repr=False)

    def run(self, times: float, ms: float) -> None:
        """Count runs of a function, and what each logs."""
        self.lambda_request += times
        self.busy(times * ms)
        self.log(times * self._log_bytes)

    def busy(self, ms: float) -> None:
        """Count time of a function."""
        self.lambda_gb_s += ms / 1000 * self._memory_gb

    def log(self, size: float) -> None:
        """Count bytes that are logged, and kept for `RETENTION_DAYS`."""
        self.log_gb += size / GB
        self.log_gb_month += size / GB * RETENTION_DAYS / DAYS

    def ask(self, times: float, units: Units) -> None:
        """Count what is asked of the store."""
        self.write_unit += times * units.write
        self.read_unit += times * units.read

    def send(self, size: float) -> None:
        """Count bytes that leave AWS, by the edge where there is one."""
        if self._edge:
            self.edge_gb += size / GB
        else:
            self.transfer_gb += size / GB

    def arrive(self, calls: float) -> None:
        """Count calls that come by the edge, where there is one."""
        if self._edge:
            self.edge_call += calls
            self.edge_function += calls

    def call(self, times: float, units: Units) -> None:
        """Count HTTP calls."""
        self.http_call += times
        self.arrive(times)
        self.send(times * ANSWER_BYTES)
        self.run(times, CALL_MS)
        self.ask(times, units)


class Charge(NamedTuple):
    """What one kind of use is called in a bill, in which unit, and who says its price."""

    what: str
    unit: str
    source: str


WHAT: Mapping[str, Charge] = {
    "http_call": Charge("HTTP calls", "calls", "API Gateway"),
    "socket_message": Charge("socket messages", "messages", "API Gateway"),
    "socket_minute": Charge("sockets held open", "minutes", "API Gateway"),
    "lambda_request": Charge("function runs", "runs", "Lambda"),
    "lambda_gb_s": Charge("function time", "GB-seconds", "Lambda"),
    "write_unit": Charge("store, written", "units", "DynamoDB"),
    "read_unit": Charge("store, read", "units", "DynamoDB"),
    "stored_gb_month": Charge("store, kept", "GB", "DynamoDB"),
    "backup_gb_month": Charge("store, restorable", "GB", "DynamoDB"),
    "file_put": Charge("files written", "files", "S3"),
    "file_get": Charge("files read", "files", "S3"),
    "file_gb_month": Charge("files kept", "GB", "S3"),
    "log_gb": Charge("logs written", "GB", "CloudWatch"),
    "log_gb_month": Charge("logs kept", "GB", "CloudWatch"),
    "metric_month": Charge("own metrics", "metrics", "CloudWatch"),
    "alarm_month": Charge("alarms", "metrics", "CloudWatch"),
    "dashboard_month": Charge("dashboards", "dashboards", "CloudWatch"),
    "key_call": Charge("secrets read", "times", "KMS"),
    "transfer_gb": Charge("data out", "GB", "transfer"),
    "edge_call": Charge("CloudFront calls", "calls", "CloudFront"),
    "edge_function": Charge("CloudFront's code", "runs", "CloudFront"),
    "edge_gb": Charge("CloudFront's data", "GB", "CloudFront"),
}


def regions(prices: Mapping[str, Any] = PRICES) -> list[str]:
    """Return the regions whose prices are known."""
    return sorted({*prices["regions"], *prices["same"]})


def of_region(region: str, prices: Mapping[str, Any] = PRICES) -> Mapping[str, float]:
    """Return the prices of a region; raises `Misuse` where they are not known."""
    found: Mapping[str, float] | None = prices["regions"].get(prices["same"].get(region, region))
    if found is None:
        raise Misuse(
            f"there are no prices of {region} here, so that nobody could say what it costs",
            f"choose one of {', '.join(regions(prices))}; or put its prices into infra/prices.json",
        )
    return found


def bill(
    use: Use,
    *,
    region: str = REGION,
    architecture: str = "arm64",
    free: bool = True,
    prices: Mapping[str, Any] = PRICES,
) -> Estimate:
    """Price what was used; raises `Misuse` for a region whose prices are not known."""
    asked = of_region(region, prices)
    allowed = prices["always_free"]
    rows, off = [], []
    for name, (what, unit, source) in WHAT.items():
        quantity = getattr(use, name)
        each = asked[f"{name}_{architecture}" if name == "lambda_gb_s" else name]
        if quantity:
            rows.append(Row(what, quantity, unit, quantity * each, each, source))
        spared = min(quantity, float(allowed.get(name, 0))) if free else 0
        if spared:
            off.append(Row(what, spared, unit, -spared * each, each, source))
    total = sum(row.usd for row in rows)
    return Estimate(total + sum(row.usd for row in off), total, tuple(rows), tuple(off))
