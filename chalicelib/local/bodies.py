"""Bodies: reading what callers send, within bounds of size, time and memory."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

from chalicelib.local.bounds import Bounds
from muster.errors import InvalidRequest, Refused, Unavailable

Event = dict[str, Any]
Receive = Callable[[], Awaitable[Event]]


class CallerLeft(Exception):
    """The caller went away in the middle of its call."""


class Unread(Refused):
    """A refusal before the call was read, after which the connection is of no more use."""


class TooSlow(Unread, InvalidRequest):
    """The body takes too long."""


class TooMany(Unread, Unavailable):
    """The bodies of all callers together take too much memory."""


class Bodies:
    """Reads the bodies of all calls, and counts what waits for its rest."""

    def __init__(self, bounds: Bounds, *, most_bytes: int) -> None:
        self._bounds = bounds
        self._too_large = bytes(most_bytes + 1)
        self._waiting_bytes = 0

    async def read(self, receive: Receive) -> bytes:
        """Read the body; of one that turns out too large, no more than says so.

        Raises `CallerLeft`, `TooSlow` and `TooMany`.
        """
        event = await receive()
        if event["type"] == "http.request" and not event.get("more_body", False):
            return bytes(event.get("body", b""))
        pieces = bytearray()
        try:
            async with asyncio.timeout(self._bounds.body_s):
                return await self._join(pieces, event, receive)
        except TimeoutError:
            wait = self._bounds.body_s
            raise TooSlow(f"the body did not arrive within {wait} s") from None
        finally:
            self._waiting_bytes -= len(pieces)

    async def _join(self, pieces: bytearray, event: Event, receive: Receive) -> bytes:
        while event["type"] == "http.request":
            piece = event.get("body", b"")
            pieces += piece
            self._waiting_bytes += len(piece)
            if len(pieces) >= len(self._too_large):
                return self._too_large
            if not event.get("more_body", False):
                return bytes(pieces)
            if self._waiting_bytes > self._bounds.waiting_body_bytes:
                raise TooMany("too many large calls are under way", retry_after_s=5)
            event = await receive()
        raise CallerLeft
