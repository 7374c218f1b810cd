"""Ceilings: the limits of a deployment, and the most that a month can cost under them."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from chalicelib.aws.publishing import COMMUNITIES_A_RUN
from chalicelib.aws.share import Share
from chalicelib.aws.told import Told
from infra.bill import (
    ANSWER_BYTES,
    GB,
    LOG_BYTES,
    MONTH_S,
    PRICES,
    REGION,
    Estimate,
    bill,
)
from infra.cost import PUBLISHING_AN_HOUR, idle, put
from muster.cli.output import Misuse

TABLES = 3
IDLE_MINUTES = 10
"""API Gateway ends a socket after this time without a frame; each frame counts as an event."""

READ_UNIT_BYTES = 4_096
PIECE_BYTES = 32 * 1024
"""What API Gateway counts as one message."""

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

RATES = tuple(1.1**step for step in range(-15, 97))
"""The scales that `below` tries, in calls a second."""


@dataclass(frozen=True, slots=True)
class Ceilings:
    """The limits of a deployment, and the most expensive month they allow.

    Each bounds what happens in a second: the gateway refuses further calls and socket
    events, which costs nothing, and AWS gives no more machines and store units.
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
            f"{self.pushes_per_s} pushes a second; one address {self.calls_per_s} of the calls"
        )

    @property
    def calls_per_s(self) -> int:
        """How many calls a second one address has in the long run."""
        told = Told(rest_rate=self.rest_rate, socket_rate=self.socket_rate)
        return int(Share(told).settings()["MUSTER_ADDRESS_PER_S"])

    def worst(
        self,
        *,
        region: str = REGION,
        architecture: str = "arm64",
        prices: Mapping[str, Any] = PRICES,
    ) -> Estimate:
        """Price a month in which every limit is reached in every second, without free tier.

        It assumes that everything read from the store goes out, and that every machine
        runs all the time. An attacker can cause no more; no ordinary use comes near it.
        """
        calls = self.rest_rate * MONTH_S
        events = self.socket_rate * MONTH_S
        sent = self.pushes_per_s * self.concurrency * MONTH_S
        use = idle(memory_mb=self.memory_mb)
        put(use, COMMUNITIES_A_RUN * PUBLISHING_AN_HOUR * MONTH_S / 3600)
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


def below(
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


def _shape(rate: float) -> Ceilings:
    """Return limits in the proportions that *rate* calls a second need."""

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
