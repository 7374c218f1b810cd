"""Rate limits: token buckets per address and per node.

Each process keeps its buckets in memory, so an ordinary caller costs no store
operation. A key that is used a lot in one process also counts in the store, so
that many processes together stay near the one limit (ADR 0007). How soon it counts
there follows from how much of what was counted is its own: the more processes a
caller reaches, the sooner each of them asks.
"""

from __future__ import annotations

import ipaddress
from collections import OrderedDict
from dataclasses import dataclass

from chalicelib.settings import Settings
from chalicelib.store import Store, Unavailable
from muster.errors import RateLimited

SHARE_EVERY = 32
"""After so many calls of one key, at the latest, a process tells the store."""

SHARE_S = 10
"""The length of the windows that processes count in together, in seconds."""

SPREAD_EVERY, SPREAD_S = 8, 60
"""The same where calls are spread over many processes: as long as a process knows nothing
better it tells the store after so few, and the windows are longer, so that what each of
them lets through before it has asked weighs little."""

SPREAD_MORE = 1.25
"""A burst is no reason for more than this times what a bucket fills with in such a window."""

_KEYS = 20_000


@dataclass(slots=True)
class _Bucket:
    tokens: float
    at: float
    due: float
    """How much more may be spent before the store is told."""
    unshared: float = 0.0
    window: int = 0
    own: int = 0
    """How much of the window's total this process has told."""
    part: float = 1.0
    before: float = 1.0
    """Which part of the total that was when it told last, and in the window before."""
    shut_until: float = 0.0

    def told(self, window: int, spent: int, *, total: int, allowed: int) -> None:
        """Choose when to tell next: of what is left, this process may take half of its part."""
        if window != self.window:
            self.window, self.own, self.before = window, 0, self.part
        self.own += spent
        self.part = self.own / total
        left = (allowed - total) * min(self.part, self.before) / 2
        self.due = max(1.0, min(left, 2 * self.due, SHARE_EVERY))


class Limits:
    """The buckets of one process and their shared counters."""

    def __init__(self, guard: Store, settings: Settings, *, spread: bool = False) -> None:
        self._guard = guard
        self._settings = settings
        self._spread = spread
        self._first, self._window_s = (SPREAD_EVERY, SPREAD_S) if spread else (SHARE_EVERY, SHARE_S)
        self._buckets: OrderedDict[str, _Bucket] = OrderedDict()

    def spend_address(self, address: str, *, clock: float) -> None:
        """Take one call from the address's bucket; IPv6 counts by its /64."""
        chosen = self._settings
        self._spend(
            "address#" + network(address), clock, chosen.address_burst, chosen.address_per_s
        )

    def charge_address(self, address: str, calls: float, *, clock: float) -> None:
        """Take from the address's bucket what a call cost beyond itself; it may end up owing."""
        chosen = self._settings
        key = "address#" + network(address)
        bucket = self._bucket(key, clock, chosen.address_burst)
        bucket.tokens -= calls
        self._count(key, bucket, calls, clock, chosen.address_burst, chosen.address_per_s)

    def spend_node(self, circle_hint: str, node_id: str, *, clock: float) -> None:
        """Take one call from a proved node's bucket."""
        chosen = self._settings
        self._spend(f"node#{circle_hint} {node_id}", clock, chosen.node_burst, chosen.node_per_s)

    def spend_frame(self, whose: str, *, clock: float) -> None:
        """Take one frame from the bucket of a socket, or of all sockets of one address.

        Where one process holds a socket, no other need know of its frames.
        """
        chosen = self._settings
        spend = self._spend if self._spread else self._take
        spend("socket#" + whose, clock, chosen.frame_burst, chosen.frames_per_s)

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
        self._count(key, bucket, 1, clock, burst, per_s)
        if bucket.shut_until > clock:
            raise _limited(bucket.shut_until - clock)

    def _count(
        self, key: str, bucket: _Bucket, calls: float, clock: float, burst: int, per_s: int
    ) -> None:
        bucket.unshared += calls
        if bucket.unshared >= bucket.due:
            self._share(key, bucket, clock, self._allowed(burst, per_s))

    def _allowed(self, burst: int, per_s: int) -> int:
        """Return what all processes together may let through in a window."""
        if self._spread:
            return max(burst, int(per_s * SPREAD_S * SPREAD_MORE))
        return burst + per_s * SHARE_S

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
        spent = int(bucket.unshared)
        bucket.unshared -= spent
        window = int(clock) // self._window_s
        end = (window + 1) * self._window_s
        try:
            total = self._guard.add(
                "count#" + key,
                str(window),
                spent,
                expires_at=end + self._window_s,
                now=int(clock),
            )
        except Unavailable:
            return  # the limit is a courtesy to the store, not another way for it to fail
        bucket.told(window, spent, total=total, allowed=allowed)
        if total > allowed:
            bucket.shut_until = float(end)

    def _bucket(self, key: str, clock: float, burst: int) -> _Bucket:
        bucket = self._buckets.get(key)
        if bucket is None:
            bucket = self._buckets[key] = _Bucket(float(burst), clock, self._first)
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
