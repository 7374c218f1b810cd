"""Calling a service: signed calls of one node in one circle, repeated where that can help.

Each attempt has a time and a nonce of its own; a clock that the service finds wrong is
corrected once, within a day.
"""

from __future__ import annotations

from typing import Any, Self, TypeVar

import httpx2
import msgspec

from muster import structs
from muster.backoff import Backoff, Rim
from muster.errors import ExpiredTimestamp, NonceReplay, Refused
from muster.felund import records, signing
from muster.felund.circle import Circle
from muster.felund.exchange import (
    MAX_REPLY_BYTES,
    TIMEOUT_S,
    BadReply,
    Exchange,
    Operation,
    members,
    service_url,
)
from muster.felund.place import DAY_S
from muster.felund.sockets import Unreachable

_R = TypeVar("_R", bound=structs.Record)

_HEALTH = Operation(records.Health, "GET", "/health", signed=False)


class Caller:
    """A node of a circle that calls a service; `muster.felund.client` says what for."""

    def __init__(
        self,
        base_url: str,
        circle: Circle,
        node_id: str,
        *,
        transport: httpx2.AsyncBaseTransport | None = None,
        backoff: Backoff | None = None,
        rim: Rim | None = None,
        timeout_s: float = TIMEOUT_S,
        max_reply_bytes: int = MAX_REPLY_BYTES,
    ) -> None:
        named = {"node_id": node_id, "circle_hint": circle.circle_hint}
        structs.from_json(named, records.Unregister)  # before it becomes a header
        self.base_url = service_url(base_url)
        self.circle = circle
        self.node_id = node_id
        self.clock_offset_s = 0.0
        self.rim = rim or Rim()
        self._backoff = backoff or Backoff()
        self._exchange = Exchange(
            self.base_url,
            transport=transport,
            timeout_s=timeout_s,
            max_reply_bytes=max_reply_bytes,
        )

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *exc: object) -> None:
        await self.aclose()

    async def aclose(self) -> None:
        """Close the connections."""
        await self._exchange.http.aclose()

    @property
    def http(self) -> httpx2.AsyncClient:
        """The connections, for what the service publishes outside ``/v1``."""
        return self._exchange.http

    def now(self) -> int:
        """Return the time as the service sees it, as far as we know."""
        return int(self.rim.now() + self.clock_offset_s)

    async def health(self) -> records.Health:
        """Ask whether the service lives."""
        return await self._call(_HEALTH)

    async def _call(
        self,
        operation: Operation[_R],
        ask: structs.Record | None = None,
        *,
        token: str = "",
        may_correct: bool = True,
    ) -> _R:
        """Make a call and read its reply; repeat it while that can help."""
        may_correct, failures = may_correct and operation.signed, 0
        while True:
            try:
                return await self._once(operation, ask, token)
            except ExpiredTimestamp:
                if not may_correct:
                    raise
                may_correct = False
                await self._correct_clock()
            except (Refused, Unreachable) as failure:
                failures += 1
                await self._back_off(failure, failures)

    async def _once(self, operation: Operation[_R], ask: structs.Record | None, token: str) -> _R:
        """Make one attempt, signed with the time and a nonce of its own."""
        in_query = operation.method == "GET"
        query = members(ask) if ask and in_query else {}
        content = msgspec.json.encode(members(ask)) if ask and not in_query else b""
        headers = {"Content-Type": "application/json"} if content else {}
        if operation.signed:
            headers |= self._signature(operation, content)
        if token:
            headers["Authorization"] = f"Bearer {token}"
        return await self._exchange.make(operation, query, content, headers)

    async def _back_off(self, failure: Refused | Unreachable, failures: int) -> None:
        """Wait until the next attempt; raises *failure* where another cannot help."""
        wait_s = failure.retry_after_s if isinstance(failure, Refused) else None
        if not _passing(failure) or not self._backoff.again(failures, retry_after_s=wait_s):
            raise failure
        chance = self.rim.chance()
        await self.rim.sleep(self._backoff.delay(failures - 1, chance=chance, retry_after_s=wait_s))

    def _signature(self, operation: Operation[Any], content: bytes) -> dict[str, str]:
        return signing.headers(
            self.circle.request_key,
            operation.method,
            operation.path,
            content,
            node_id=self.node_id,
            now=self.now(),
            nonce=self.rim.entropy(16),
        )

    async def _correct_clock(self) -> None:
        """Learn how far our clock is from the service's, to half the way there and back.

        Raises `ExpiredTimestamp` where that is more than a day: who is told another year
        would sign calls that are good then.
        """
        before = self.rim.now()
        health = await self.health()
        offset_s = health.time + 0.5 - (before + self.rim.now()) / 2
        if abs(offset_s) > DAY_S:
            raise ExpiredTimestamp(
                f"the service's clock is {abs(offset_s) / DAY_S:.1f} days from this machine's",
                "set this machine's clock, or the service's",
            )
        self.clock_offset_s = offset_s


def _passing(failure: Refused | Unreachable) -> bool:
    """Say whether the same call, made again, may succeed."""
    if isinstance(failure, Refused):
        # A replay of a fresh nonce was made on the way, by a proxy that tries again.
        return failure.passing or isinstance(failure, NonceReplay)
    return not isinstance(failure, BadReply)
