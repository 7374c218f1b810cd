"""What a month on AWS costs: who calls how often, what a call takes, what AWS asks for it.

    USD a month = nodes x hours a month x calls an hour x (what one call takes x its price)

and what the service takes when nobody calls. Prices are in `prices.json`; store units
are held against DynamoDB's own counting by a test. Everything is a list price: what
every account has for nothing is taken off at the end and shown by itself.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, NamedTuple

from muster.cli.output import Misuse

Design = Literal["polling", "push"]

DAYS = 365 / 12
MONTH_S = DAYS * 86_400
GB = 1_000_000_000

PRICES: Mapping[str, Any] = json.loads((Path(__file__).parent / "prices.json").read_text())
REGION = "us-east-1"

CALL_MS = 15.0
"""What a call keeps a machine busy: two or three round trips to DynamoDB, one after the other."""

PUSH_MS = 10.0
"""What it takes to pass one text to one socket."""

ANSWER_BYTES, LOG_BYTES = 1_000, 600
"""What goes out for a call, and what is logged of it, Lambda's own three lines included."""

SWEEPS_AN_HOUR, PUBLISHING_AN_HOUR = 60, 12
ALARMS = 9


class Units(NamedTuple):
    """What a call takes from DynamoDB, as `make bench` counts it under the name *bench*."""

    write: float
    read: float
    bench: str = ""


CALLS: Mapping[str, Units] = {
    "register": Units(2, 1, "register, again"),
    "peers": Units(1, 2, "peers, 10"),
    "post": Units(3, 3, "message"),
    "post 50 known": Units(1, 5, "messages, 50 known"),
    "poll": Units(1, 1, "poll, nothing new"),
    "poll signals": Units(1, 1, "signals, nothing new"),
    "token": Units(1, 0, "subscription"),
    "preflight": Units(0, 0),
}
SOCKET = Units(4, 50, "socket, subscribed and closed")
SWEEP = Units(0, 1)
PUBLISH = Units(2, 2)


@dataclass(frozen=True, slots=True)
class Client:
    """How often a node that is there does what, an hour."""

    what: str
    calls: Mapping[str, float]
    messages: float = 0
    """Text frames between it and the gateway, both ways, PING and PONG most of all."""
    events: float = 0
    """Text frames from it, of which each wakes a machine."""
    opens: float = 0
    held: bool = False


def _every(seconds: float) -> float:
    return 3600 / seconds


def _push(what: str, *, register_s: float, check_s: float, ping_s: float) -> Client:
    """Describe one of our own clients, which holds a socket."""
    checks = _every(check_s)
    return Client(
        what,
        {
            "register": _every(register_s),
            "poll": checks,
            "poll signals": checks,
            "peers": checks,
            "token": 0.5,
        },
        messages=2 * _every(ping_s),
        events=_every(ping_s),
        opens=0.5,  # API Gateway ends every socket after two hours
        held=True,
    )


def clients() -> Mapping[str, Client]:
    """Return who may call, by name."""
    from muster.cli.chat import TTL_S
    from muster.felund.sockets import QUIET_PING_S
    from muster.felund.subscription import CHECK_S

    return {
        "spec": Client(
            "polling as the protocol's guide advises: peers and mail every 8 s",
            {"register": _every(60), "peers": _every(8), "poll": _every(8)},
        ),
        "tui": Client(
            "felund's terminal client: everything every 8 s, its newest 100 messages too",
            {
                "register": _every(8),
                "peers": _every(8),
                "poll": _every(8),
                "post 50 known": 2 * _every(8),
            },
        ),
        "web": Client(
            "felund's browser client: peers and mail every 5 s, signals every 2 s",
            {
                "register": _every(60),
                "peers": _every(5),
                "poll": _every(5),
                "poll signals": _every(2),
                "preflight": 7 * _every(64),
            },
        ),
        "push": _push(
            "our client on a socket", register_s=TTL_S / 2, check_s=CHECK_S, ping_s=QUIET_PING_S
        ),
        "quiet": _push(
            "on a socket, as seldom as the protocol allows",
            register_s=540,
            check_s=3600,
            ping_s=540,
        ),
    }


DESIGNS: Mapping[Design, str] = {"polling": "spec", "push": "push"}


@dataclass(frozen=True, slots=True)
class Row:
    """One line of a bill."""

    what: str
    quantity: float
    unit: str
    usd: float


@dataclass(frozen=True, slots=True)
class Estimate:
    """A month's bill; `total_usd` is what is left after what every account has for nothing."""

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
    log_gb: float = 0
    transfer_gb: float = 0
    edge_call: float = 0
    alarm_month: float = 0
    stored_gb_month: float = 0
    _memory_gb: float = field(default=1.0, repr=False)

    def run(self, times: float, ms: float) -> None:
        """Count runs of the function."""
        self.lambda_request += times
        self.lambda_gb_s += times * ms / 1000 * self._memory_gb
        self.log_gb += times * LOG_BYTES / GB

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
    "log_gb": ("logs", "GB"),
    "transfer_gb": ("data out", "GB"),
    "edge_call": ("CloudFront calls", "calls"),
    "alarm_month": ("alarms", "alarms"),
    "stored_gb_month": ("stored", "GB"),
}


def estimate(
    *,
    nodes: int = 5,
    hours: float = 24,
    design: Design = "push",
    client: str | None = None,
    messages: float = 20,
    region: str = REGION,
    memory_mb: int = 1024,
    architecture: str = "arm64",
) -> Estimate:
    """Price a month of a circle of *nodes* that are there *hours* a day.

    Each leaves *messages* a day. *client* is one of `clients`, if not the design's own.
    """
    chosen = clients()[client or DESIGNS[design]]
    use = idle(memory_mb=memory_mb)
    node_hours = nodes * hours * DAYS
    for name, an_hour in chosen.calls.items():
        use.call(node_hours * an_hour, CALLS[name])
    posts = nodes * messages * DAYS * hours / 24
    use.call(posts, CALLS["post"])
    if chosen.held:
        use.socket_minute += node_hours * 60
        use.socket_message += node_hours * chosen.messages + posts * (nodes - 1)
        use.lambda_gb_s += posts * (nodes - 1) * PUSH_MS / 1000 * memory_mb / 1024
        use.run(node_hours * chosen.events, CALL_MS + PUSH_MS)
        opened = node_hours * chosen.opens
        use.socket_message += 2 * opened
        use.run(3 * opened, CALL_MS)  # connect, greet, disconnect
        use.ask(opened, SOCKET)
    return bill(use, region=region, architecture=architecture)


def idle(*, memory_mb: int = 1024) -> Use:
    """Return what a month takes when nobody is there: the clock's events and the alarms."""
    use = Use(alarm_month=ALARMS, _memory_gb=memory_mb / 1024)
    for an_hour, units in ((SWEEPS_AN_HOUR, SWEEP), (PUBLISHING_AN_HOUR, PUBLISH)):
        times = an_hour * 24 * DAYS
        use.run(times, CALL_MS)
        use.ask(times, units)
    return use


def bill(
    use: Use,
    *,
    region: str = REGION,
    architecture: str = "arm64",
    free: bool = True,
    prices: Mapping[str, Any] = PRICES,
) -> Estimate:
    """Price what was used; a region without prices of its own has those of another one."""
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


# --- the worst month ------------------------------------------------------------------

TABLES = 3
IDLE_MINUTES = 10
"""After so long without a frame API Gateway ends a socket; each frame counts as an event."""

READ_UNIT_BYTES = 4_096
PIECE_BYTES = 32 * 1024
"""What API Gateway counts as one message."""


@dataclass(frozen=True, slots=True)
class Ceilings:
    """The limits of a deployment, and the worst month they let happen.

    Whatever is asked of it, it does no more a second: calls and socket events are
    refused by the gateway, which costs nothing, machines and store units are not given.
    """

    rest_rate: int = 50
    socket_rate: int = 100
    concurrency: int = 50
    memory_mb: int = 1024
    read_units: int = 500
    write_units: int = 250
    pushes_per_s: int = 50

    @classmethod
    def from_parameters(cls, values: Mapping[str, str]) -> Ceilings:
        """Read the parameters of a template; what is not there has its default."""
        found = {
            name: int(float(values[parameter]))
            for name, parameter in PARAMETERS.items()
            if values.get(parameter)
        }
        return cls(**found)

    def parameters(self) -> dict[str, str]:
        """Return them as parameters of the template, bursts included."""
        found = {parameter: str(getattr(self, name)) for name, parameter in PARAMETERS.items()}
        del found[PUSHES]
        bursts = {"RestBurst": self.rest_rate, "SocketBurst": self.socket_rate}
        return found | {name: str(max(2 * rate, 20)) for name, rate in bursts.items()}

    def settings(self) -> dict[str, str]:
        """Return those that the service holds itself, as variables of its functions."""
        return {PUSHES: str(self.pushes_per_s)}

    def allows(self) -> str:
        """Say what they allow."""
        return (
            f"{self.rest_rate} HTTP calls and {self.socket_rate} socket events a second, "
            f"{self.concurrency} machines at once, in each table {self.read_units} units read "
            f"and {self.write_units} written a second, and each machine "
            f"{self.pushes_per_s} pushes a second"
        )

    def worst(
        self,
        *,
        region: str = REGION,
        architecture: str = "arm64",
        prices: Mapping[str, Any] = PRICES,
    ) -> Estimate:
        """Price a month in which every limit is reached in every second, nothing for free.

        Everything read from the store is taken to go out; a machine is taken to run
        all the time. An attacker could do no more, and no use does as much.
        """
        calls = self.rest_rate * MONTH_S
        events = self.socket_rate * MONTH_S
        sent = self.pushes_per_s * self.concurrency * MONTH_S
        use = idle(memory_mb=self.memory_mb)
        use.http_call += calls
        use.edge_call += calls
        use.socket_message += events + sent
        use.socket_minute += events * IDLE_MINUTES
        use.lambda_request += calls + 2 * events
        use.lambda_gb_s += self.concurrency * MONTH_S * self.memory_mb / 1024
        use.write_unit += TABLES * self.write_units * MONTH_S
        use.read_unit += TABLES * self.read_units * MONTH_S
        use.log_gb += (calls + 2 * events) * LOG_BYTES / GB
        out = TABLES * self.read_units * READ_UNIT_BYTES * MONTH_S + sent * PIECE_BYTES
        use.transfer_gb += (out + calls * ANSWER_BYTES) / GB
        use.stored_gb_month += STORED_GB
        return bill(use, region=region, architecture=architecture, free=False, prices=prices)


PUSHES = "MUSTER_PUSHES_PER_S"
PARAMETERS: Mapping[str, str] = {
    "rest_rate": "RestRate",
    "socket_rate": "SocketRate",
    "concurrency": "Concurrency",
    "memory_mb": "MemorySize",
    "read_units": "TableReadUnits",
    "write_units": "TableWriteUnits",
    "pushes_per_s": PUSHES,
}
STORED_GB = 1.0


def ceilings(
    max_usd: float,
    prices: Mapping[str, Any] = PRICES,
    *,
    region: str = REGION,
    architecture: str = "arm64",
) -> Ceilings:
    """Return the highest limits whose worst month costs at most *max_usd*.

    All of them grow together, in the proportions that calls need them. Raises `Misuse`
    where even the lowest limits allow more.
    """

    def worst(limits: Ceilings) -> float:
        return limits.worst(region=region, architecture=architecture, prices=prices).total_usd

    fitting = [limits for rate in RATES if worst(limits := _shape(rate)) <= max_usd]
    if not fitting:
        least = math.ceil(worst(_shape(RATES[0])))
        raise Misuse(
            f"no limits keep the worst month below ${max_usd:g}",
            f"the lowest ones allow ${least}; what usually comes is less: see 'muster cost'",
        )
    return max(fitting, key=worst)


RATES = tuple(1.1**step for step in range(-15, 97))
"""The scales that `ceilings` tries, in calls a second."""


def _shape(rate: float) -> Ceilings:
    """Return limits that fit one another around so many calls a second."""

    def scaled(by: float, most: int) -> int:
        return min(max(1, int(rate * by)), most)

    machines = scaled(1 / 8, 1_000)
    return Ceilings(
        rest_rate=scaled(1, 10_000),
        socket_rate=scaled(1, 10_000),
        concurrency=machines,
        memory_mb=1024 if rate >= 16 else 512 if rate >= 2 else 256,
        read_units=scaled(3, 40_000),
        write_units=scaled(2, 40_000),
        pushes_per_s=max(1, int(rate * 2 / machines)),
    )
