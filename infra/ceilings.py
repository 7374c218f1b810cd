"""Ceilings: the limits of a deployment, and the most that a month can cost under them.

Three figures, as three kinds of people can cause them: strangers, whom a closed service
refuses; members, for whom it is there; and anybody, where it is open. What has no ceiling of
its own is named beside them, with its price.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple, Self

from chalicelib.aws.capsules import KEPT_S
from chalicelib.aws.files import BURST_BYTES, BYTES_PER_S
from chalicelib.aws.publishing import COMMUNITIES_A_RUN
from chalicelib.aws.share import Share
from chalicelib.aws.told import Told
from chalicelib.settings import Settings
from infra import standing
from infra.bill import (
    ANSWER_BYTES,
    CALL_MS,
    DAYS,
    GB,
    LOG_BYTES,
    MONTH_S,
    PRICES,
    REGION,
    Estimate,
    Units,
    Use,
    bill,
    of_region,
)
from infra.cost import AN_HOUR, CAPSULE_FILES, LOAD_BYTES, idle, put, wake
from infra.standing import Standing
from muster.cli.output import Misuse

IDLE_MINUTES = 10
"""API Gateway ends a socket after this time without a frame; each frame counts as an event."""

READ_UNIT_BYTES, WRITE_UNIT_BYTES = 4_096, 1_024
PIECE_BYTES = 32 * 1024
"""What API Gateway counts as one message."""

SOCKET_ROUTES = 2
"""AWS may count a throttle for each route: sockets that open, and frames. What ends has begun."""

CALL_WRITES, EVENT_WRITES = 4, 2
"""The most that a call, or an event of a socket, writes beside mail: places, nonces, counters."""

PIN_BYTES = 300
"""What a circle's pinned key takes, once DynamoDB has added its own to it."""

MACHINES = 10
"""How many run at once in a new account, where none are reserved."""


class Knock(NamedTuple):
    """What one refused call of a stranger takes at the most; the flood test measures it."""

    read: float
    answer_bytes: float
    log_bytes: float


CALL = Knock(read=1, answer_bytes=1_900, log_bytes=375)
"""The longest answer is `GET /v1/info`; the longest line is that of a long node in a circle
whose hint is not ASCII.
A name that is not let in is looked up where more circles are let in than are read at once."""

SOCKET = Knock(read=0, answer_bytes=650, log_bytes=350)
"""A socket without a token is refused at `$connect`, and is never open."""

REFUSED_MS = 10.0
"""How long a machine is busy with a refused call; it waits for nothing, or for one read."""

PUBLIC, PUBLIC_KNOCK = Units(4, 1), Knock(read=1, answer_bytes=42_000, log_bytes=490)
"""What an announce to a community that everybody may use takes: its answer, if all tickets have
the longest names, and its line, which carries a metric."""

BODY_BYTES, METERED_BYTES = 10 * 1024 * 1024, 512 * 1024
"""The largest body that API Gateway takes; and how much of one counts as a call."""

REFUSAL_BYTES = 300
"""What the gateway's own answer takes to whoever is over its limit."""

VISITS_AT_ONCE = BURST_BYTES // LOAD_BYTES
"""To how many browsers that have nothing a container that was quiet sends the whole app."""

VISITS_A_MONTH = int(BYTES_PER_S * MONTH_S / LOAD_BYTES)
"""To how many it may in a month."""

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

LEAST_BURSTS = {"RestBurst": 120, "SocketBurst": 60}
"""As many as one address may call at once; in a month it costs no more than that many calls."""

RATES = tuple(1.1**step for step in range(-15, 97))
"""The scales that `below` tries, in calls a second."""


@dataclass(frozen=True, slots=True)
class Terms:
    """What a price depends on beside the limits."""

    region: str = REGION
    architecture: str = "arm64"
    edge: bool = False
    public_bucket: bool = False
    communities: int = 0
    """How many communities the operator named; everybody may announce to them."""
    standing: Standing = field(default_factory=standing.as_it_comes)
    prices: Mapping[str, Any] = field(default_factory=lambda: PRICES)

    @classmethod
    def of(cls, values: Mapping[str, str], *, region: str) -> Self:
        """Read the parameters and settings of a deployment."""
        edge = values.get("CloudFront") == "yes"
        named = values.get("MUSTER_COMMUNITY_NAMES", "").replace(",", " ").split()
        return cls(
            region=region,
            architecture=values.get("Architecture") or "arm64",
            edge=edge,
            public_bucket=values.get("PublicCapsules") == "yes" and not edge,
            communities=len(named),
            standing=standing.chosen(values),
        )

    def bill(self, use: Use) -> Estimate:
        """Price what is used in a month, without the free tier."""
        return bill(
            use,
            region=self.region,
            architecture=self.architecture,
            free=False,
            prices=self.prices,
        )


@dataclass(frozen=True, slots=True)
class Ceilings:
    """The limits of a deployment, and the most expensive months they allow.

    Each bounds what happens in a second: the gateway refuses further calls and socket
    events, which AWS does not charge, and AWS gives no more machines and store units.
    """

    rest_rate: int = 11
    socket_rate: int = 5
    concurrency: int = 10
    memory_mb: int = 1024
    read_units: int = 110
    write_units: int = 55
    pushes_per_s: int = 5

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
        return found | {
            name: str(max(2 * rate, LEAST_BURSTS[name])) for name, rate in bursts.items()
        }

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

    def strangers(self, terms: Terms | None = None) -> Estimate:
        """Price a month in which strangers call a closed service all that the gateway lets in.

        Every call is refused, and takes as much as the most expensive kind. Only communities
        that the operator named are theirs too: to announce to, and to read the capsules of. Files
        are sent to everybody, as far as the service itself bounds it.
        """
        terms = terms or Terms()
        calls, knocks = self.rest_rate * MONTH_S, self.socket_rate * MONTH_S
        use = self._idle(terms)
        use.http_call += calls
        use.socket_message += knocks  # AWS does not say that a refused one is free
        use.arrive(calls + knocks)
        use.lambda_request += calls + knocks
        use.busy((calls + knocks) * REFUSED_MS)
        use.read_unit += calls * CALL.read + knocks * SOCKET.read
        call = PUBLIC_KNOCK if terms.communities else CALL
        use.send(calls * call.answer_bytes + knocks * SOCKET.answer_bytes)
        own = terms.standing.platform_bytes
        use.log(calls * (call.log_bytes + own) + knocks * (SOCKET.log_bytes + own))
        self._files(use)
        if terms.communities:
            self._announced(use, calls)
            self._capsules(use, terms, terms.communities)
        return terms.bill(use)

    def members(self, terms: Terms | None = None) -> Estimate:
        """Price a month in which every limit is reached in every second.

        It assumes that what the tables give goes out, that they are as full as they can get,
        and that every machine runs all the time. No ordinary use comes near it.
        """
        terms = terms or Terms()
        return terms.bill(self._everything(terms, terms.communities))

    def open(self, terms: Terms | None = None) -> Estimate:
        """Price the same where the service is open: then strangers do what members do.

        They also bring communities, of which so many are published a minute.
        """
        terms = terms or Terms()
        return terms.bill(self._everything(terms, max(terms.communities, COMMUNITIES_A_RUN)))

    def _idle(self, terms: Terms) -> Use:
        return idle(memory_mb=self.memory_mb, edge=terms.edge, standing=terms.standing)

    def _machines(self) -> int:
        return self.concurrency or MACHINES

    def _announced(self, use: Use, calls: float) -> None:
        """Count announces in place of refused calls, as far as the tables' ceilings let them."""
        use.write_unit += min(calls * PUBLIC.write, 2 * self.write_units * MONTH_S)
        use.read_unit += min(calls * PUBLIC.read, 2 * self.read_units * MONTH_S)
        use.busy(calls * (CALL_MS - REFUSED_MS))

    def _capsules(self, use: Use, terms: Terms, communities: int) -> None:
        """Count what is published each minute, and what the service reads of it."""
        wake(use, publish_hours=24 * DAYS)
        put(use, min(communities, COMMUNITIES_A_RUN) * AN_HOUR * 24 * DAYS)
        reads = self._machines() * CAPSULE_FILES * communities / KEPT_S
        use.file_get += min(reads, self.rest_rate) * MONTH_S

    def _files(self, use: Use) -> None:
        """Count what the service sends of files: the app and its library are everybody's."""
        use.send(self._machines() * BYTES_PER_S * MONTH_S)

    def _everything(self, terms: Terms, communities: int) -> Use:
        calls, events = self.rest_rate * MONTH_S, SOCKET_ROUTES * self.socket_rate * MONTH_S
        sent = self.pushes_per_s * self._machines() * MONTH_S
        use = self._idle(terms)
        use.http_call += calls
        use.arrive(calls + events)
        use.socket_message += events + sent
        use.socket_minute += self.socket_rate * MONTH_S * IDLE_MINUTES
        use.lambda_request += calls + 2 * events
        use.lambda_gb_s += self._machines() * MONTH_S * self.memory_mb / 1024
        beside = self.rest_rate * CALL_WRITES + SOCKET_ROUTES * self.socket_rate * EVENT_WRITES
        use.write_unit += (self.write_units + min(beside, 2 * self.write_units)) * MONTH_S
        looked = min(self.rest_rate + SOCKET_ROUTES * self.socket_rate, self.read_units)
        use.read_unit += (2 * self.read_units + looked) * MONTH_S
        chosen = Settings()
        kept = self.write_units * WRITE_UNIT_BYTES * chosen.message_s / GB
        kept += self.rest_rate * PIN_BYTES * chosen.pin_s / GB
        use.stored_gb_month += kept
        use.backup_gb_month += kept
        use.log((calls + 2 * events) * (LOG_BYTES + terms.standing.platform_bytes))
        use.send(2 * self.read_units * READ_UNIT_BYTES * MONTH_S)
        use.send(sent * PIECE_BYTES + calls * ANSWER_BYTES)
        self._files(use)
        wake(use, sweep_hours=24 * DAYS)
        if communities:
            self._capsules(use, terms, communities)
        return use


def boundless(limits: Ceilings, terms: Terms) -> list[str]:
    """Say what has no ceiling of its own, or none that AWS promises, and what it costs."""
    price = of_region(terms.region, terms.prices)

    def millions(*names: str) -> str:
        return f"${sum(price[name] for name in names) * 1e6:,.2f} a million"

    pieces = BODY_BYTES // METERED_BYTES
    more = limits.rest_rate * MONTH_S * (pieces - 1) * price["http_call"]
    mbit = limits.rest_rate * BODY_BYTES * 8 / 1e6
    found = [
        "large bodies: API Gateway counts each 512 KB as a call, and takes up to 10 MB: "
        f"${more:,.0f} more for somebody who sends {mbit:,.0f} Mbit/s all month",
        "the path /, which the gateway answers by itself: "
        f"{millions('http_call')}, if AWS charges them",
        "calls over the limit, which AWS documents as not charged: traffic of the answers, "
        f"${price['transfer_gb'] * REFUSAL_BYTES / 1000:,.2f} a million",
        "AWS calls the limits of gateways and tables targets, not promises",
    ]
    if terms.edge:
        found.append(
            "CloudFront, which has no limit of calls: "
            f"{millions('edge_call', 'edge_function')} and ${price['edge_gb']:.3f} a GB"
        )
    if terms.public_bucket:
        found.append(
            "capsules read from the bucket itself: "
            f"{millions('file_get')} and ${price['transfer_gb']:.2f} a GB"
        )
    return found


def below(max_usd: float, *, region: str = REGION, architecture: str = "arm64") -> Ceilings:
    """Return the highest limits with which no month costs more than *max_usd*, whoever calls.

    It holds for every way to deploy: open, with the edge, with a dashboard. All limits grow
    together, in the proportions that calls need them. Raises `Misuse` where even the lowest
    allow more.
    """
    ways = [
        Terms(
            region=region,
            architecture=architecture,
            edge=edge,
            communities=Settings().communities,
            standing=standing.chosen({"Dashboard": "yes"}),
        )
        for edge in (False, True)
    ]

    def worst(limits: Ceilings) -> float:
        return max(limits.open(terms).total_usd for terms in ways)

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

    machines = 1 + min(int(rate / 4), 999)  # calls come at the same time, and each needs its own
    return Ceilings(
        rest_rate=scaled(1, 10_000),
        socket_rate=scaled(1 / 2, 10_000),
        concurrency=machines,
        memory_mb=1024 if rate >= 16 else 512 if rate >= 2 else 256,
        read_units=scaled(5, 40_000),
        write_units=scaled(2.5, 40_000),
        pushes_per_s=max(1, int(rate * 2 / machines)),
    )
