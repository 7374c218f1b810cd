"""Pushes: what follows from a call is sent to many connections side by side and in good time.

Each connection is told things in their order; different ones do not wait for each
other, and a caller does not wait long for any of them: push is a hint.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

from chalicelib.aws.clients import CONNECTIONS
from chalicelib.aws.sender import Undelivered
from chalicelib.call import Effect, Send
from chalicelib.circle import sockets
from chalicelib.service import Service

if TYPE_CHECKING:
    from concurrent.futures import ThreadPoolExecutor

_log = logging.getLogger("muster")

PUSH_S = 3.0
"""How long a call waits for what it sends besides its answer."""


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
            self._pool = futures.ThreadPoolExecutor(CONNECTIONS, thread_name_prefix="push")
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
