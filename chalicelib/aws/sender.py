"""Sender: how text reaches one connection that API Gateway holds, within a budget.

API Gateway keeps the connections and is asked over HTTPS to pass text on.
"""

from __future__ import annotations

import logging
import time
from collections import deque
from collections.abc import Callable
from functools import cache
from threading import Lock
from typing import Any, Literal

from chalicelib.call import Connection, Gone
from chalicelib.log import code_of

_log = logging.getLogger("muster")

PAUSES_S = (0.05, 0.15, 0.3)
"""When a throttled send is repeated, and one to a connection that is not there, or not yet.

Until the answer to `$connect` has gone out, the gateway says of a connection that
it is gone (ADR 0008).
"""

PIECE_BYTES = 32 * 1024
BURST = 2_000
"""How many pieces a machine may send at once: a large circle's, some times over."""

_REMEMBERED = 256

Failure = Literal["gone", "busy", "lost"]


class Undelivered(Exception):
    """Nobody knows that the text has arrived, and the connection may still be there."""

    def __init__(self, connection: Connection) -> None:
        super().__init__(connection.id)
        self.connection = connection


class Budget:
    """What a machine may send a second, in pieces as they are charged for, and at once.

    It bounds what a month can cost (`infra/cost.py`), far above what a circle needs.
    """

    def __init__(
        self, per_s: int, *, burst: int = 0, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._per_s, self._most = per_s, burst or max(BURST, per_s)
        self._left, self._clock = float(self._most), clock
        self._at, self._lock = clock(), Lock()

    def take(self, pieces: int) -> bool:
        """Take so much; say whether it was there."""
        with self._lock:
            now = self._clock()
            self._left = min(self._most, self._left + (now - self._at) * self._per_s)
            self._at = now
            if self._left < pieces:
                return False
            self._left -= pieces
            return True


class GatewaySender:
    """A `Sender` over the API Gateway Management API.

    What the budget does not allow waits in the store, as everything that a push only hints at.
    """

    def __init__(
        self,
        open_client: Callable[[str], Any],
        *,
        budget: Budget | None = None,
        pause: Callable[[float], None] = time.sleep,
    ) -> None:
        self._open_client = cache(open_client)
        self._budget = budget
        self._opening = Lock()
        self._pause = pause
        self._gone: deque[str] = deque(maxlen=_REMEMBERED)

    def send(self, connection: Connection, text: str) -> None:
        """Pass text to the connection; raises `Gone`, or `Undelivered` if it is too busy."""
        if connection.id in self._gone:
            raise Gone
        if self._budget and not self._budget.take(1 + len(text) // PIECE_BYTES):
            _log.warning("the budget for pushes is spent")
            raise Undelivered(connection)
        failure = self._post(connection, text)
        for pause_s in PAUSES_S:
            if failure is None or failure == "lost":
                break
            self._pause(pause_s)
            failure = self._post(connection, text)
        if failure == "gone":
            self._gone.append(connection.id)
            raise Gone
        if failure:
            raise Undelivered(connection)

    def close(self, connection: Connection, code: int, reason: str) -> None:
        """End the connection; the gateway chooses the close code itself."""
        failure = self._try("delete_connection", connection)
        if failure == "busy":
            self._pause(PAUSES_S[0])
            self._try("delete_connection", connection)

    def _post(self, connection: Connection, text: str) -> Failure | None:
        return self._try("post_to_connection", connection, Data=text.encode())

    def _try(self, verb: str, connection: Connection, **more: Any) -> Failure | None:
        try:
            with self._opening:
                client = self._open_client(connection.endpoint)
            getattr(client, verb)(ConnectionId=connection.id, **more)
        except Exception as error:
            return _meaning(error)
        return None


def _meaning(error: Exception) -> Failure:
    """Say what the gateway's answer means for the connection."""
    answer: dict[str, Any] = getattr(error, "response", None) or {}
    status = answer.get("ResponseMetadata", {}).get("HTTPStatusCode")
    if status == 410:
        return "gone"
    if status == 429:
        return "busy"
    _log.warning("the gateway did not take it: %s", code_of(error))
    return "lost"
