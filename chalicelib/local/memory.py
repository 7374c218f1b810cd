"""Memory: what waits on slow connections, all of them together; the fullest make way.

Each connection has a bound of its own, and there are thousands: what counts is the sum.
A connection on which nothing waits is not in here and costs nothing.
"""

from __future__ import annotations

import ctypes
import logging
import time
from collections import Counter
from typing import Protocol

from chalicelib.local.bounds import Bounds

TOLD_S = 60.0
"""How often the log is told that connections make way."""

M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3
GIVE_BACK_BYTES = 128 * 1024
"""From here on a buffer is memory of its own (glibc's own first value, mallopt(3))."""

_log = logging.getLogger("muster")


def give_back() -> None:
    """Have the C library return large buffers to the system as they are let go.

    glibc raises both thresholds with the largest buffer it saw let go, up to 32 MiB; then
    hundreds of half messages leave holes that no count of ours shows. Other C libraries,
    which have no such call, stay as they are.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:
        mallopt(M_MMAP_THRESHOLD, GIVE_BACK_BYTES)
        mallopt(M_TRIM_THRESHOLD, GIVE_BACK_BYTES)


class Holder(Protocol):
    """A connection; *network* is whose it is, and empty where a proxy speaks for many."""

    network: str

    def give_way(self) -> None:
        """Let go of what waits: in good order when it is told first, at once the second time."""


class Memory:
    """Counts what waits, in total and by network, and ends the fullest when it is too much."""

    def __init__(self, bounds: Bounds) -> None:
        self.total_bytes = 0
        self.ended = 0
        self._most_bytes = bounds.waiting_bytes
        self._network_bytes = bounds.network_waiting_bytes
        self._held: dict[Holder, int] = {}
        self._by_network: Counter[str] = Counter()
        self._tell_at = 0.0

    def to_json(self) -> dict[str, int]:
        """Return what waits, and how often a connection had to make way."""
        return {"waiting_bytes": self.total_bytes, "ended": self.ended}

    def hold(self, holder: Holder, size: int) -> None:
        """Note how many bytes wait on a connection now; whoever is fullest may have to go."""
        before = self._held.pop(holder, 0)
        if size:
            self._held[holder] = size
        self.total_bytes += size - before
        if holder.network:
            self._by_network[holder.network] += size - before
            if not self._by_network[holder.network]:
                del self._by_network[holder.network]
        if size > before:
            self._fit(holder.network)

    def _fit(self, network: str) -> None:
        while self._by_network.get(network, 0) > self._network_bytes:
            self._end([holder for holder in self._held if holder.network == network])
        while self.total_bytes > self._most_bytes:
            self._end(list(self._held))

    def _end(self, among: list[Holder]) -> None:
        max(among, key=self._held.__getitem__).give_way()
        self.ended += 1
        now = time.monotonic()
        if now >= self._tell_at:
            self._tell_at = now + TOLD_S
            _log.warning(
                "connections that read or send too slowly are closed, the fullest first, as more "
                "waits on them than MUSTER_WAITING_BYTES or MUSTER_NETWORK_WAITING_BYTES; "
                "so far %d times",
                self.ended,
            )
