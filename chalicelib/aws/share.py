"""Share: how much of a deployment one address may use, in calls and in units of the tables.

The gateway and the tables have ceilings for everybody together. The template tells them
to the function, and one address gets a twentieth, so that many callers fit beside one
that takes all it can, but never less than a client needs. What a call takes is what
DynamoDB says it took.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from chalicelib.aws.told import Told
from chalicelib.limits import SPREAD_MORE
from chalicelib.store import READS

CALLERS = 20
"""So many addresses fit, each of which takes what it is allowed in every minute."""

LEAST_CALLS, LEAST_FRAMES = 4, 1
"""What an address gets a second though fewer fit then: a household of three browsers that poll
(3.1 calls), or a doctor."""

BURST_S = 30
"""A burst is what an address may call in so many seconds, at once: `muster doctor` makes forty."""

PRESENCE_BYTES = 1024
"""One write unit, and a quarter of a read unit."""

PEERS_BYTES = 240 * 1024
"""Sixty read units: with what is read to see whether there are more, fewer than 64."""


@dataclass(slots=True)
class Meter:
    """The units that one call has taken so far, all tables together."""

    read: float = 0.0
    written: float = 0.0

    def add(self, verb: str, units: float) -> None:
        """Note what a request took."""
        if verb in READS:
            self.read += units
        else:
            self.written += units

    def clear(self) -> None:
        """Begin with the next call."""
        self.read = self.written = 0.0


@dataclass(frozen=True, slots=True)
class Share:
    """What one address gets of the ceilings that a function was told."""

    told: Told

    def settings(self) -> Mapping[str, str]:
        """Return the settings that follow, as variables; what an operator chose goes first."""
        calls_per_s = max(LEAST_CALLS, _a_second(self.told.rest_rate))
        frames_per_s = max(LEAST_FRAMES, _a_second(self.told.socket_rate))
        chosen = {
            "ADDRESS_PER_S": calls_per_s,
            "ADDRESS_BURST": calls_per_s * BURST_S,
            "NODE_PER_S": calls_per_s,
            "NODE_BURST": calls_per_s * BURST_S,
            "FRAMES_PER_S": frames_per_s,
            "FRAME_BURST": frames_per_s * BURST_S,
            "PRESENCE_BYTES": PRESENCE_BYTES,
            "PEERS_BYTES": PEERS_BYTES,
        }
        return {f"MUSTER_{name}": str(number) for name, number in chosen.items()}

    def calls(self, used: Meter) -> float:
        """Return how many calls it would take to use a table's units as *used* does."""
        told = self.told
        read = used.read * told.rest_rate / told.table_read_units
        return max(read, used.written * told.rest_rate / told.table_write_units)


def _a_second(rate: int) -> int:
    """Return how many a second keep `CALLERS` with their bursts below the rate."""
    return int(rate / CALLERS / SPREAD_MORE)
