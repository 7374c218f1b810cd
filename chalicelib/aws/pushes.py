"""The gateway that holds the sockets: how text reaches them, side by side and in good time.

API Gateway keeps the connections and is asked over HTTPS to pass text on. Each
connection is told things in their order; different ones do not wait for each
other, and a caller does not wait long for any of them: push is a hint.
"""

from __future__ import annotations

import json
import logging
import time
from collections import deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import cache
from threading import Lock
from typing import TYPE_CHECKING, Any, Literal, Protocol

from chalicelib.call import Connection, Effect, Gone, Send
from chalicelib.circle import sockets
from chalicelib.service import Service

if TYPE_CHECKING:
    from concurrent.futures import ThreadPoolExecutor

_log = logging.getLogger("muster")

PUSH_S = 3.0
"""How long a call waits for what it sends besides its answer."""

LINES = 16
"""How many connections are sent to at once."""

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
    """What a machine may send a second, in pieces as the gateway counts and charges them.

    It bounds what a month can cost (`infra/cost.py`), far above what a circle needs. What
    is not sent waits in the store, as everything that a push only hints at.
    """

    def __init__(
        self, per_s: int, *, burst: int = 0, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._per_s, self._most = per_s, burst or max(BURST, per_s)
        self._left, self._clock = float(self._most), clock
        self._at, self._lock = clock(), Lock()

    def take(self, text: str) -> bool:
        """Take what sending *text* needs; say whether there was so much."""
        pieces = 1 + len(text) // PIECE_BYTES
        with self._lock:
            now = self._clock()
            self._left = min(self._most, self._left + (now - self._at) * self._per_s)
            self._at = now
            if self._left < pieces:
                return False
            self._left -= pieces
            return True


class Later(Protocol):
    """Whoever greets a connection once it can be sent to."""

    def greet(self, connection: Connection) -> None:
        """See to it that the connection is greeted soon; raises nothing."""


class GatewaySender:
    """A `Sender` over the API Gateway Management API."""

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
        if self._budget and not self._budget.take(text):
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


class Greeter:
    """A `Later` over a Lambda function that is started and not waited for."""

    def __init__(self, client: Any, function: str) -> None:
        self._client, self._function = client, function

    def greet(self, connection: Connection) -> None:
        """Start the function; if that fails, the socket lives without its backlog."""
        payload = json.dumps({"id": connection.id, "endpoint": connection.endpoint}).encode()
        try:
            self._client.invoke(
                FunctionName=self._function, InvocationType="Event", Payload=payload
            )
        except Exception as error:
            _log.warning("a socket is not greeted: %s", _name(error))


class Pushes:
    """Performs effects: one line per connection, the lines side by side.

    A line that is late is left to itself: Lambda stops the process when it has the
    answer, and the line goes on with the next event, or never.
    """

    def __init__(self) -> None:
        self._pool: ThreadPoolExecutor | None = None

    def deliver(
        self, service: Service, effects: Iterable[Effect], *, now: int, within_s: float = PUSH_S
    ) -> None:
        """Send what is to be sent, and stop waiting after *within_s*; raises nothing."""
        lines: dict[str, list[Effect]] = {}
        for effect in effects:
            lines.setdefault(effect.connection.id, []).append(effect)
        end = time.monotonic() + within_s
        if len(lines) < 2:
            for line in lines.values():
                _send_line(service, line, now=now, end=end)
        else:
            self._send_lines(service, lines.values(), now=now, end=end)

    def _send_lines(
        self, service: Service, lines: Iterable[Sequence[Effect]], *, now: int, end: float
    ) -> None:
        from concurrent import futures

        if self._pool is None:
            self._pool = futures.ThreadPoolExecutor(LINES, thread_name_prefix="push")
        started = [self._pool.submit(_send_line, service, line, now=now, end=end) for line in lines]
        _, late = futures.wait(started, timeout=end - time.monotonic())
        for line in late:
            line.cancel()
        if late:
            _log.warning("%d of %d connections were not told in time", len(late), len(started))


def _send_line(service: Service, line: Iterable[Effect], *, now: int, end: float) -> None:
    """Tell one connection, in order; after a failure it is told nothing more."""
    for effect in line:
        if time.monotonic() >= end:
            return
        try:
            sockets.deliver(service, (effect,), now=now)
        except Undelivered as failure:
            if isinstance(effect, Send) and failure.connection == effect.connection:
                _send_line(service, effect.lost, now=now, end=end)
            return
        except Exception:
            _log.exception("unforeseen")
            return


def open_client(service: str, **chosen: Any) -> Any:
    """Make a client of an AWS service that gives up soon; repeating is up to the caller."""
    import botocore.config

    config = botocore.config.Config(
        connect_timeout=1,
        read_timeout=2,
        retries={"mode": "standard", "total_max_attempts": 1},
        max_pool_connections=LINES,
        parameter_validation=False,
        tcp_keepalive=True,
    )
    return _session().create_client(service, config=config, **chosen)


@cache
def _session() -> Any:
    import botocore.session

    return botocore.session.Session()


def _meaning(error: Exception) -> Failure:
    """Say what the gateway's answer means for the connection."""
    status = _answer(error).get("ResponseMetadata", {}).get("HTTPStatusCode")
    if status == 410:
        return "gone"
    if status == 429:
        return "busy"
    _log.warning("the gateway did not take it: %s", _name(error))
    return "lost"


def _name(error: Exception) -> str:
    """Name an error for the log, without what it says: that may hold a connection's id."""
    return str(_answer(error).get("Error", {}).get("Code") or type(error).__name__)


def _answer(error: Exception) -> Mapping[str, Any]:
    """Return what AWS answered, if it did."""
    return getattr(error, "response", None) or {}
