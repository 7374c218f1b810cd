"""A subscription: what happens in a circle, as it happens, with nothing lost or given twice.

Push is a hint and the mailbox is the truth. Messages have an exact cursor: a
frame that does not begin where we stand is not read but polled for, and so is
everything on each connection. Signals and presence are told apart the same way,
by what is already known. Without a socket the same events come from polling.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncGenerator, Iterable
from contextlib import aclosing, suppress
from dataclasses import dataclass
from typing import Self

import msgspec

from muster import frames, records
from muster.backoff import RECONNECT, Backoff, within
from muster.client import Client
from muster.crypto import Note
from muster.errors import Refused
from muster.sockets import Closed, Socket, Unreachable, listen

POLL_S = 5.0
"""How often to poll while there is no socket."""

CHECK_S = 300.0
"""How often to poll beside a socket, for a push that was lost and followed by no other."""

_MESSAGES, _SIGNALS, _PRESENCE = "messages", "signals", "presence"

_MOST_PEERS = 200

_WAITING = 64
"""How many frames wait for a slow reader; what is more is dropped, and polled for later."""


@dataclass(frozen=True, slots=True)
class Joined:
    """A node of the circle is there, or has changed where or what it is."""

    peer: records.Peer


@dataclass(frozen=True, slots=True)
class Left:
    """A node of the circle is gone."""

    node_id: str


Event = Note | records.Signal | Joined | Left


class Subscription:
    """The events of a circle: ``async with Subscription(client) as events: async for ...``.

    *after* and *since_id* are the cursors to resume from. `cursor` and `signal_id`
    are where to resume after the event given last; where several messages came at
    once they move with the last of them, so a program that is killed in between
    sees some again, and misses none. `live` says whether there is a socket.
    A refusal that no retry can mend ends the iteration with that refusal.
    """

    def __init__(
        self,
        client: Client,
        *,
        after: int = 0,
        since_id: int = 0,
        signals: bool = True,
        presence: bool = True,
        poll_s: float = POLL_S,
        check_s: float = CHECK_S,
        backoff: Backoff = RECONNECT,
    ) -> None:
        self.cursor = after
        self.signal_id = since_id
        self.live = False
        self._client = client
        self._rim = client.rim
        self._wanted = {_MESSAGES}
        self._wanted |= {_SIGNALS} if signals else set()
        self._wanted |= {_PRESENCE} if presence else set()
        self._poll_s = poll_s
        self._check_s = check_s
        self._backoff = backoff
        self._present: dict[str, records.Peer] = {}
        self._frames: deque[frames.FromService] = deque()
        self._ahead: set[int] = set()
        self._due = set(self._wanted)
        self._failures = 0
        self._retry_after_s: float | None = None
        self._news = asyncio.Event()
        self._listener: asyncio.Task[None] | None = None
        self._given = self._events()

    async def __aenter__(self) -> Self:
        self._listener = asyncio.create_task(self._stay_connected())
        return self

    async def __aexit__(self, *exc: object) -> None:
        await self.aclose()

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> Event:
        if self._listener is None:
            raise RuntimeError("open a subscription with 'async with'")
        return await anext(self._given)

    async def aclose(self) -> None:
        """Stop listening."""
        if self._listener is not None:
            self._listener.cancel()
            with suppress(asyncio.CancelledError):
                await self._listener
        await self._given.aclose()

    # --- the socket, in the background ----------------------------------------

    async def _stay_connected(self) -> None:
        """Keep a socket open, and pass on what it brings."""
        failures = 0
        while True:
            since = self._rim.now()
            with suppress(Refused, Unreachable, Closed):
                socket = await self._client.attach(await self._client.open_subscription())
                since = self._rim.now()
                await self._listen(socket)
            # A socket that held for a while is no reason to wait long for the next.
            held = self._rim.now() - since > self._backoff.longest_s
            failures = 0 if held else failures + 1
            chance = self._rim.chance()
            await self._rim.sleep(self._backoff.delay(failures, chance=chance))

    async def _listen(self, socket: Socket) -> None:
        try:
            self._mark(live=True)
            async with aclosing(listen(socket, self._rim)) as arriving:
                async for frame in arriving:
                    self._keep(frame)
        finally:
            self._mark(live=False)
            await socket.close()

    def _mark(self, *, live: bool) -> None:
        """Note that the socket came or went; either way something may have been missed."""
        self.live = live
        self._due |= self._wanted
        self._news.set()

    def _keep(self, frame: frames.FromService) -> None:
        if len(self._frames) < _WAITING:
            self._frames.append(frame)
        else:
            self._due |= self._wanted
        self._news.set()

    # --- the events, as they are asked for ------------------------------------

    async def _events(self) -> AsyncGenerator[Event]:
        while True:
            if self._due:
                async for event in self._poll():
                    yield event
            elif self._frames:
                async for event in self._told(self._frames.popleft()):
                    yield event
            else:
                await self._pause()

    async def _pause(self) -> None:
        """Wait for news; without any, poll when it is time."""
        seconds = self._check_s if self.live else self._poll_s
        if self._failures:
            chance = self._rim.chance()
            seconds = self._backoff.delay(
                self._failures - 1, chance=chance, retry_after_s=self._retry_after_s
            )
        self._news.clear()
        if not await within(self._news.wait(), seconds, self._rim):
            self._due |= self._wanted

    async def _poll(self) -> AsyncGenerator[Event]:
        """Ask the service for what is due; failing that, ask again later."""
        due, self._due = self._due, set()
        try:
            if _MESSAGES in due:
                async for note in self._poll_messages():
                    yield note
            if _SIGNALS in due:
                async for signal in self._poll_signals():
                    yield signal
            if _PRESENCE in due:
                for change in self._compare(await self._client.peers(limit=_MOST_PEERS)):
                    yield change
        except Refused as refusal:
            if not refusal.retryable:
                raise
            self._failures += 1
            self._retry_after_s = refusal.retry_after_s
        except Unreachable:
            self._failures += 1
            self._retry_after_s = None
        else:
            self._failures = 0

    async def _told(self, frame: frames.FromService) -> AsyncGenerator[Event]:
        match frame:
            case frames.Messages():
                async for note in self._pushed_messages(frame):
                    yield note
            case frames.Signals() if _SIGNALS in self._wanted:
                for signal in self._pushed_signals(frame.signals):
                    yield signal
            case frames.Presence() if _PRESENCE in self._wanted:
                for change in self._changes(frame.joined, frame.left):
                    yield change
            case _:
                pass

    # --- messages -------------------------------------------------------------

    async def _poll_messages(self) -> AsyncGenerator[Note]:
        more = True
        while more:
            page = await self._client.poll_messages(after=self.cursor)
            more = page.more and page.cursor > self.cursor
            async for note in self._read(page.messages, cursor=page.cursor):
                yield note

    async def _pushed_messages(self, frame: frames.Messages) -> AsyncGenerator[Note]:
        partial = frame.cursor == frame.after  # of what no frame can hold whole
        if frame.cursor < self.cursor or (frame.cursor == self.cursor and not partial):
            return  # known already
        if partial or frame.after != self.cursor:
            self._due.add(_MESSAGES)  # something is missing, or some of it is known
            return
        async for note in self._read(frame.messages, cursor=frame.cursor):
            yield note

    async def _read(self, envelopes: Iterable[msgspec.Raw], *, cursor: int) -> AsyncGenerator[Note]:
        notes = self._client.read(envelopes)
        for note in notes[:-1]:
            yield note
        self.cursor = max(cursor, self.cursor)
        if notes:
            yield notes[-1]

    # --- signals --------------------------------------------------------------

    async def _poll_signals(self) -> AsyncGenerator[records.Signal]:
        more = True
        while more:
            before = self.signal_id
            for signal in (await self._client.poll_signals(since_id=before)).signals:
                self.signal_id = max(signal.id, self.signal_id)
                if signal.id not in self._ahead:
                    yield signal
            more = self.signal_id > before
        self._ahead.clear()

    def _pushed_signals(self, signals: Iterable[records.Signal]) -> Iterable[records.Signal]:
        """Give signals at once; one that does not follow its predecessor makes us poll."""
        for signal in signals:
            if signal.id <= self.signal_id or signal.id in self._ahead:
                continue
            if signal.id == self.signal_id + 1:
                self.signal_id = signal.id
            else:
                self._ahead.add(signal.id)
                self._due.add(_SIGNALS)
            yield signal

    # --- presence -------------------------------------------------------------

    def _compare(self, found: records.Peers) -> list[Event]:
        there = {peer.node_id for peer in found.peers}
        whole = len(found.peers) < _MOST_PEERS
        gone = [node_id for node_id in self._present if whole and node_id not in there]
        return self._changes(found.peers, gone)

    def _changes(self, joined: Iterable[records.Peer], left: Iterable[str]) -> list[Event]:
        events: list[Event] = [
            Left(node_id) for node_id in left if self._present.pop(node_id, None)
        ]
        for peer in joined:
            if peer.node_id == self._client.node_id:
                continue
            known = self._present.get(peer.node_id)
            self._present[peer.node_id] = peer
            if known is None or _place(known) != _place(peer):
                events.append(Joined(peer))
        return events


def _place(peer: records.Peer) -> object:
    return peer.endpoints, peer.capabilities
