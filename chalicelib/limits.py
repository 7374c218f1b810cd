"""Rate limits: token buckets per address and per node.

Each process keeps its buckets in memory, so an ordinary caller costs no store
operation. A key that is used a lot in one process also counts in the store, so
that many processes together stay near the one limit (ADR 0007).
"""

from __future__ import annotations

import ipaddress
from collections import OrderedDict
from dataclasses import dataclass

from chalicelib.settings import Settings
from chalicelib.store import Store, Unavailable
from muster.errors import RateLimited

SHARE_EVERY = 32
"""After so many calls of one key, a process tells the store."""

SHARE_S = 10
"""The length of the windows that processes count in together, in seconds."""

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
        """Take one call from the address's bucket; IPv6 counts by its /64."""
        chosen = self._settings
        self._spend(
            "address#" + network(address), clock, chosen.address_burst, chosen.address_per_s
        )

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

    def _spend(self, key: str, clock: float, burst: int, per_s: int) -> None:
        bucket = self._take(key, clock, burst, per_s)
        bucket.unshared += 1
        if bucket.unshared >= SHARE_EVERY:
            self._share(key, bucket, clock, burst + per_s * SHARE_S)

    def _take(self, key: str, clock: float, burst: int, per_s: int) -> _Bucket:
        bucket = self._bucket(key, clock, burst)
        bucket.tokens = min(burst, bucket.tokens + max(0.0, clock - bucket.at) * per_s)
        bucket.at = clock
        if bucket.shut_until > clock:
            raise _limited(bucket.shut_until - clock)
        if bucket.tokens < 1:
            raise _limited((1 - bucket.tokens) / per_s)
        bucket.tokens -= 1
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


def network(address: str) -> str:
    """Return what an address is counted as: itself, or the /64 of an IPv6 address."""
    if ":" not in address:
        return address
    try:
        parsed = ipaddress.IPv6Address(address.partition("%")[0])
    except ValueError:
        return address
    if parsed.ipv4_mapped is not None:
        return str(parsed.ipv4_mapped)
    return str(ipaddress.IPv6Network((parsed, 64), strict=False))


def _limited(wait_s: float) -> RateLimited:
    wait = max(1, int(wait_s + 0.999))
    return RateLimited(f"too many calls; wait {wait} s", retry_after_s=wait)
