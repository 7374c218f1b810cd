"""Rate limits: token buckets per address and per node.

Each process keeps its buckets in memory, so an ordinary caller costs no store
operation. A key that is used a lot in one process also counts in the store, so
that many processes together stay near the one limit (ADR 0007).

Addresses count by their network (chalicelib/network.py). Whoever has a /48 of IPv6 has
65,536 networks of its own, so that counts too, with a few times the limit of one.
"""

from __future__ import annotations

from collections import Counter, OrderedDict
from dataclasses import dataclass

from chalicelib.network import counts_as, wider
from chalicelib.settings import Settings
from chalicelib.store import Store, Unavailable
from muster.errors import RateLimited

SHARE_EVERY = 32
"""After so many calls of one key, a process tells the store."""

SHARE_BYTES = 16 * 1024 * 1024
"""After so many bytes of one key, a process tells the store."""

SMALL_BYTES = 16 * 1024
"""A body so small counts as a call and no more."""

SHARE_S = 10
"""The length of the windows that processes count in together, in seconds."""

WIDER = 8
"""How many times the limit of a /64 its /48 has."""

_KEYS = 20_000


@dataclass(slots=True)
class _Bucket:
    tokens: float
    at: float
    unshared: int = 0
    shut_until: float = 0.0


class Limits:
    """The buckets of one process and their shared counters."""

    def __init__(self, guard: Store, settings: Settings) -> None:
        self._guard = guard
        self._settings = settings
        self._buckets: OrderedDict[str, _Bucket] = OrderedDict()

    def spend_address(self, address: str, *, clock: float) -> None:
        """Take one call from the bucket of the address's network."""
        burst, per_s = self._settings.address_burst, self._settings.address_per_s
        for network, times in allowances(address):
            self._spend("address#" + network, clock, burst * times, per_s * times)

    def spend_bytes(self, address: str, size: int, *, clock: float) -> None:
        """Take the bytes of a body that is not small; the last may be larger than what is left."""
        if size <= SMALL_BYTES:
            return
        burst = self._settings.address_burst_bytes
        per_s = self._settings.address_bytes_per_s
        for network, times in allowances(address):
            key = "bytes#" + network
            self._spend(key, clock, burst * times, per_s * times, size, SHARE_BYTES)

    def spend_node(self, circle_hint: str, node_id: str, *, clock: float) -> None:
        """Take one call from a proved node's bucket."""
        chosen = self._settings
        self._spend(f"node#{circle_hint} {node_id}", clock, chosen.node_burst, chosen.node_per_s)

    def spend_frame(self, connection_id: str, *, clock: float) -> None:
        """Take one frame from a socket's bucket; a socket is one process's at a time."""
        chosen = self._settings
        self._take("socket#" + connection_id, clock, chosen.frame_burst, chosen.frames_per_s)

    def shut(self, *, clock: float) -> int:
        """Count the addresses that are refused at this moment; they were heard of lately."""
        refused = 0
        for key, bucket in reversed(self._buckets.items()):
            if bucket.at < clock - SHARE_S:
                break
            if key.startswith("address#"):
                spent = bucket.tokens + (clock - bucket.at) * self._settings.address_per_s < 1
                refused += bucket.shut_until > clock or spent
        return refused

    def _spend(
        self,
        key: str,
        clock: float,
        burst: int,
        per_s: int,
        amount: int = 1,
        share_every: int = SHARE_EVERY,
    ) -> None:
        bucket = self._take(key, clock, burst, per_s, amount)
        bucket.unshared += amount
        if bucket.unshared >= share_every:
            self._share(key, bucket, clock, burst + per_s * SHARE_S)

    def _take(self, key: str, clock: float, burst: int, per_s: int, amount: int = 1) -> _Bucket:
        bucket = self._bucket(key, clock, burst)
        bucket.tokens = min(burst, bucket.tokens + max(0.0, clock - bucket.at) * per_s)
        bucket.at = clock
        if bucket.shut_until > clock:
            raise _limited(bucket.shut_until - clock)
        if bucket.tokens < 1:
            raise _limited((1 - bucket.tokens) / per_s)
        bucket.tokens -= amount
        return bucket

    def _share(self, key: str, bucket: _Bucket, clock: float, allowed: int) -> None:
        spent, bucket.unshared = bucket.unshared, 0
        window = int(clock) // SHARE_S
        end = (window + 1) * SHARE_S
        try:
            total = self._guard.add(
                "count#" + key, str(window), spent, expires_at=end + SHARE_S, now=int(clock)
            )
        except Unavailable:
            return  # the limit is a courtesy to the store, not another way for it to fail
        if total > allowed:
            bucket.shut_until = float(end)

    def _bucket(self, key: str, clock: float, burst: int) -> _Bucket:
        bucket = self._buckets.get(key)
        if bucket is None:
            bucket = self._buckets[key] = _Bucket(float(burst), clock)
            if len(self._buckets) > _KEYS:
                self._buckets.popitem(last=False)
        else:
            self._buckets.move_to_end(key)
        return bucket


def allowances(address: str) -> tuple[tuple[str, int], ...]:
    """Return the networks that an address counts in, and how many times a limit each has."""
    if ":" not in address:
        return ((address, 1),)  # most are IPv4, and every call asks
    narrow, wide = counts_as(address), wider(address)
    return ((narrow, 1),) if narrow == wide else ((narrow, 1), (wide, WIDER))


class Tally:
    """How many of something each network has, a socket for instance."""

    def __init__(self) -> None:
        self._counts: Counter[str] = Counter()

    def full(self, address: str, *, most: int) -> bool:
        """Say whether an address's network has as many as it may have."""
        return any(self._counts[network] >= most * times for network, times in allowances(address))

    def add(self, address: str) -> None:
        """Count one more."""
        self._counts.update(network for network, _ in allowances(address))

    def remove(self, address: str) -> None:
        """Count one less; what is at nothing is forgotten."""
        for network, _ in allowances(address):
            self._counts[network] -= 1
            if not self._counts[network]:
                del self._counts[network]


def _limited(wait_s: float) -> RateLimited:
    wait = max(1, int(wait_s + 0.999))
    return RateLimited(f"too many calls; wait {wait} s", retry_after_s=wait)
