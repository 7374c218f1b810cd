"""When to try again: exponential back-off with full jitter, and the rim it waits on.

Full jitter spreads clients that failed together over the whole interval, which
empties a queue soonest (Brooker, "Exponential Backoff And Jitter", 2015).
"""

from __future__ import annotations

import asyncio
import random
import secrets
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from muster.errors import Refused

Entropy = Callable[[int], bytes]
"""A source of random bytes: takes a length, returns as many."""


LONGEST_WAIT_S = 3600.0
"""How long a service may make those wait who ask without end; a false answer silences nobody."""


def _steady() -> float:
    return asyncio.get_running_loop().time()


@dataclass(frozen=True, slots=True)
class Rim:
    """What the client takes from the world: clocks, sleep and chance; tests bring their own.

    ``now`` is the time of day, for what is signed and shown; it may be set back or forward.
    ``steady`` only ever goes on, with ``sleep``, and is for everything that waits.
    """

    now: Callable[[], float] = time.time
    steady: Callable[[], float] = _steady
    sleep: Callable[[float], Awaitable[None]] = asyncio.sleep
    chance: Callable[[], float] = random.random
    entropy: Entropy = secrets.token_bytes


@dataclass(frozen=True, slots=True)
class Backoff:
    """How often to try, and how long to wait in between.

    The n-th wait is up to ``first_s * 2**n``, at most ``longest_s``. A service
    that asks to wait longer than ``patience_s`` is not asked again: coming back
    sooner would be rude, and waiting longer is the caller's decision.
    """

    first_s: float = 0.25
    longest_s: float = 10.0
    attempts: int = 5
    patience_s: float = 30.0

    def delay(self, failures: int, *, chance: float, retry_after_s: float | None = None) -> float:
        """Return how long to wait after so many failures; *chance* is in [0, 1)."""
        ceiling = min(self.first_s * 2.0 ** min(failures, 32), self.longest_s)
        return (retry_after_s or 0.0) + chance * ceiling

    def again(self, tried: int, *, retry_after_s: float | None = None) -> bool:
        """Say whether a call that failed *tried* times is worth another try."""
        return tried < self.attempts and (retry_after_s or 0.0) <= self.patience_s


RECONNECT = Backoff(first_s=0.5, longest_s=30.0)
"""How sockets come back: without an end, at most every half minute."""


def asked_s(failure: BaseException | None) -> float | None:
    """Return how long a service asked to be left alone, within reason."""
    wait_s = failure.retry_after_s if isinstance(failure, Refused) else None
    return None if wait_s is None else min(max(wait_s, 0), LONGEST_WAIT_S)


async def within(work: Awaitable[object], seconds: float, rim: Rim) -> bool:
    """Wait for *work*, but not longer than this; say whether it was done."""
    task = asyncio.ensure_future(work)
    alarm = asyncio.ensure_future(rim.sleep(seconds))
    try:
        await asyncio.wait({task, alarm}, return_when=asyncio.FIRST_COMPLETED)
        if not task.done():
            return False
        task.result()
        return True
    finally:
        task.cancel()
        alarm.cancel()
