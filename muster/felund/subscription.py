"""A subscription: what happens in a circle, as it happens, with nothing lost or given twice.

Push is a hint and the mailbox is the truth. Messages have an exact cursor: a
frame that does not begin where we stand is not read but polled for, and so is
everything on each connection. Signals and presence are told apart the same way,
by what is already known. Without a socket the same events come from polling.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Iterable
from contextlib import aclosing, suppress
from dataclasses import dataclass
from typing import Self

import msgspec

from muster.backoff import RECONNECT, Backoff, within
from muster.errors import Refused
from muster.felund import frames, records
from muster.felund.client import Client
from muster.felund.crypto import Note
from muster.felund.sockets import QUIET_PING_S, Closed, Socket, Unreachable, listen

POLL_S = 5.0
"""How often to poll while there is no socket."""

CHECK_S = 1800.0
"""How often to poll while there is a socket, in case the last push was lost."""

_ORDER = _MESSAGES, _SIGNALS, _PRESENCE = "messages", "signals", "presence"

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


@dataclass(frozen=True, slots=True)
class _Ready:
    """An event to give, and where we stand once it was given."""

    event: Event | None = None
    cursor: int | None = None
    signal_id: int | None = None


class Subscription:
    """The events of a circle: ``async with Subscription(client) as events: async for ...``.

    *after* and *since_id* are the cursors to resume from. `cursor` and `signal_id`
    are where to resume after the event given last; where several messages came at
    once they move with the last of them, so a program that is killed in between
    sees some again, and misses none. `live` says whether there is a socket.
    A refusal that is not retryable is raised. Waiting for an event may be
    cancelled, and begun again, without loss.
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
        self._read_to = after
        self._heard_to = since_id
        self._ready: deque[_Ready] = deque()
        self._present: dict[str, records.Peer] = {}
        self._frames: deque[frames.FromService] = deque()
        self._ahead: set[int] = set()
        self._due = set(self._wanted)
        self._failures = 0
        self._retry_after_s: float | None = None
        self._news = asyncio.Event()
        self._listener: asyncio.Task[None] | None = None

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
        while True:
            while self._ready:
                event = self._give()
                if event is not None:
                    return event
            await self._proceed()

    async def aclose(self) -> None:
        """Stop listening."""
        if self._listener is not None:
            self._listener.cancel()
            with suppress(asyncio.CancelledError):
                await self._listener

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
            async with aclosing(listen(socket, self._rim, ping_s=QUIET_PING_S)) as arriving:
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

    def _give(self) -> Event | None:
        ready = self._ready.popleft()
        self.cursor = self.cursor if ready.cursor is None else ready.cursor
        self.signal_id = self.signal_id if ready.signal_id is None else ready.signal_id
        return ready.event

    async def _proceed(self) -> None:
        """Do one thing that may make events ready; being cancelled undoes it."""
        if self._due:
            await self._poll(min(self._due, key=_ORDER.index))
        elif self._frames:
            self._told(self._frames.popleft())
        else:
            await self._pause()

    async def _poll(self, kind: str) -> None:
        """Ask the service for what is due; failing that, ask again later."""
        self._due.discard(kind)
        try:
            await self._ask(kind)
        except asyncio.CancelledError:
            self._due.add(kind)
            raise
        except Refused as refusal:
            if not refusal.retryable:
                raise
            self._put_off(refusal.retry_after_s)
        except Unreachable:
            self._put_off(None)
        else:
            self._failures = self._failures if self._due else 0

    def _put_off(self, retry_after_s: float | None) -> None:
        self._failures += 1
        self._retry_after_s = retry_after_s
        self._due.clear()  # until the pause is over

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

    async def _ask(self, kind: str) -> None:
        if kind == _MESSAGES:
            page = await self._client.poll_messages(after=self._read_to)
            if page.more and page.cursor > self._read_to:
                self._due.add(_MESSAGES)
            self._read(page.messages, cursor=page.cursor)
        elif kind == _SIGNALS:
            found = await self._client.poll_signals(since_id=self._heard_to)
            self._polled_signals(found.signals)
        else:
            self._compare(await self._client.peers(limit=_MOST_PEERS))

    def _told(self, frame: frames.FromService) -> None:
        match frame:
            case frames.Messages():
                self._pushed_messages(frame)
            case frames.Signals() if _SIGNALS in self._wanted:
                self._pushed_signals(frame.signals)
            case frames.Presence() if _PRESENCE in self._wanted:
                self._change(frame.joined, frame.left)
            case _:
                pass

    # --- messages -------------------------------------------------------------

    def _pushed_messages(self, frame: frames.Messages) -> None:
        partial = frame.cursor == frame.after  # of what no frame can hold whole
        if frame.cursor < self._read_to or (frame.cursor == self._read_to and not partial):
            return  # known already
        if partial or frame.after != self._read_to:
            self._due.add(_MESSAGES)  # something is missing, or some of it is known
            return
        self._read(frame.messages, cursor=frame.cursor)

    def _read(self, envelopes: Iterable[msgspec.Raw], *, cursor: int) -> None:
        notes = self._client.read(envelopes)
        self._read_to = max(cursor, self._read_to)
        self._ready.extend(_Ready(note) for note in notes[:-1])
        self._ready.append(_Ready(notes[-1] if notes else None, cursor=self._read_to))

    # --- signals --------------------------------------------------------------

    def _polled_signals(self, signals: Iterable[records.Signal]) -> None:
        before = self._heard_to
        for signal in signals:
            self._heard_to = max(signal.id, self._heard_to)
            event = None if signal.id in self._ahead else signal
            self._ready.append(_Ready(event, signal_id=self._heard_to))
        if self._heard_to > before:
            self._due.add(_SIGNALS)  # until there are none
        else:
            self._ahead.clear()

    def _pushed_signals(self, signals: Iterable[records.Signal]) -> None:
        """Give signals at once; one that does not follow its predecessor makes us poll."""
        for signal in signals:
            if signal.id <= self._heard_to or signal.id in self._ahead:
                continue
            if signal.id == self._heard_to + 1:
                self._heard_to = signal.id
                self._ready.append(_Ready(signal, signal_id=signal.id))
            else:
                self._ahead.add(signal.id)
                self._due.add(_SIGNALS)
                self._ready.append(_Ready(signal))

    # --- presence -------------------------------------------------------------

    def _compare(self, found: records.Peers) -> None:
        there = {peer.node_id for peer in found.peers}
        whole = len(found.peers) < _MOST_PEERS
        gone = [node_id for node_id in self._present if whole and node_id not in there]
        self._change(found.peers, gone)

    def _change(self, joined: Iterable[records.Peer], left: Iterable[str]) -> None:
        for node_id in left:
            if self._present.pop(node_id, None) is not None:
                self._ready.append(_Ready(Left(node_id)))
        for peer in joined:
            known = self._present.get(peer.node_id)
            if known is not None and peer.observed_at < known.observed_at:
                continue  # overtaken on the way
            self._present[peer.node_id] = peer
            if known is None or _place(known) != _place(peer):
                self._ready.append(_Ready(Joined(peer)))


def _place(peer: records.Peer) -> object:
    return peer.endpoints, peer.capabilities
