"""A subscription: what happens in a circle, as it happens, with nothing lost or given twice.

Push is a hint and the mailbox is the truth. Messages have an exact cursor: a
frame that does not begin where we stand is not read but polled for, and so is
everything on each connection. Signals and presence are told apart the same way,
by what is already known. Without a socket the same events come from polling.
Where we stand is doubted when it did not follow from what came (`Place`).
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Iterable, Sequence
from contextlib import aclosing, suppress
from dataclasses import dataclass
from typing import Self

import msgspec

from muster.backoff import RECONNECT, Backoff, asked_s, within
from muster.errors import Refused
from muster.felund import frames, records
from muster.felund.client import CHECK_S, Client
from muster.felund.crypto import Note
from muster.felund.place import Place
from muster.felund.roster import Change, Joined, Left, Roster
from muster.felund.sockets import QUIET_PING_S, Closed, Socket, Unreachable, listen

__all__ = ["CHECK_S", "Event", "Joined", "Left", "Subscription"]

POLL_S = 5.0
"""How often to poll while there is no socket; with one it is every `CHECK_S`, in case the last
push was lost."""

GONE_S = 600.0
"""How often to ask, at most, whether nodes whose presence is over have renewed it."""

_ORDER = _MESSAGES, _MAIL_END, _SIGNALS, _SIGNALS_END, _PRESENCE = (
    "messages",
    "end of the mailbox",
    "signals",
    "end of the signals",
    "presence",
)

_WAITING = 64
"""How many frames wait for a slow reader; what is more is dropped, and polled for later."""

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
    sees some again, and misses none; and they go back where the service turns out
    not to be that far. `live` says whether there is a socket, and `trouble` what
    is in the way if something is: it is tried again. A refusal by the service that
    is not retryable is raised. Waiting for an event may be cancelled, and begun
    again, without loss.
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
        self.trouble: Exception | None = None
        self._client = client
        self._rim = client.rim
        self._wanted = {_MESSAGES}
        self._wanted |= {_SIGNALS} if signals else set()
        self._wanted |= {_PRESENCE} if presence else set()
        self._poll_s = poll_s
        self._check_s = check_s
        self._backoff = backoff
        self._mail = Place(after)
        self._heard = Place(since_id)
        self._roster = Roster(client.rim)
        self._ready: deque[_Ready] = deque()
        self._frames: deque[frames.FromService] = deque()
        self._due = set(self._wanted)
        self._polled_at = self._checked_at = self._listed_at = 0.0  # until it is entered
        self._failures = 0
        self._again_at = 0.0
        self._news = asyncio.Event()
        self._listener: asyncio.Task[None] | None = None

    async def __aenter__(self) -> Self:
        self._poll_all()
        self._checked_at = self._polled_at
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
            since = self._rim.steady()
            wait_s = None
            try:
                socket = await self._client.attach(await self._client.open_subscription())
                since = self._rim.steady()
                await self._listen(socket)
            except (Refused, Unreachable, Closed) as failure:
                self.trouble, wait_s = failure, asked_s(failure)
            # A socket that held for a while is no reason to wait long for the next.
            held = self._rim.steady() - since > self._backoff.longest_s
            failures = 0 if held else failures + 1
            chance = self._rim.chance()
            await self._rim.sleep(
                self._backoff.delay(failures, chance=chance, retry_after_s=wait_s)
            )

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
        self.trouble = None if live else self.trouble
        self._poll_all()
        self._news.set()

    def _poll_all(self) -> None:
        self._due |= self._wanted
        self._polled_at = self._rim.steady()

    def _keep(self, frame: frames.FromService) -> None:
        if len(self._frames) < _WAITING:
            self._frames.append(frame)
        else:
            self._poll_all()
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
        except (Refused, Unreachable) as failure:
            if isinstance(failure, Refused) and not failure.passing:
                raise
            self._put_off(failure)
        else:
            self._failures = self._failures if self._due else 0
            self.trouble = None if self.live else self.trouble

    def _put_off(self, failure: Refused | Unreachable) -> None:
        """Leave the service alone for a while."""
        self.trouble = failure
        wait_s = self._backoff.delay(
            self._failures, chance=self._rim.chance(), retry_after_s=asked_s(failure)
        )
        self._failures += 1
        self._again_at = self._rim.steady() + wait_s
        self._due.clear()  # until then

    async def _pause(self) -> None:
        """Wait for news; without any, poll what it is time for."""
        at, due = self._next_poll()
        self._news.clear()
        if await within(self._news.wait(), max(at - self._rim.steady(), 0.0), self._rim):
            return
        if due == {_PRESENCE}:
            self._due |= due
            return
        self._poll_all()
        if self._polled_at - self._checked_at >= self._check_s:
            self._checked_at = self._polled_at
            self._mail.doubt()
            self._heard.doubt()

    def _next_poll(self) -> tuple[float, set[str]]:
        """Return when to poll next, and for what."""
        if self._failures:
            return self._again_at, self._wanted
        if not self.live:
            return self._polled_at + self._poll_s, self._wanted
        check_at = self._polled_at + self._check_s
        gone_at = max(self._roster.ends_at(), self._listed_at + GONE_S)
        return (gone_at, {_PRESENCE}) if gone_at < check_at else (check_at, self._wanted)

    async def _ask(self, kind: str) -> None:
        client = self._client
        if kind == _MESSAGES:
            self._polled_messages(await client.poll_messages(after=self._mail.at))
        elif kind == _MAIL_END:
            if self._mail.confirm(await client.newest_message()):
                self._due.add(_MESSAGES)
                self._ready.append(_Ready(cursor=self._mail.at))
        elif kind == _SIGNALS:
            found = await client.poll_signals(since_id=self._heard.at)
            self._polled_signals(found.signals)
        elif kind == _SIGNALS_END:
            if self._heard.confirm(await client.newest_signal()):
                self._due.add(_SIGNALS)
                self._ready.append(_Ready(signal_id=self._heard.at))
        else:
            self._tell(self._roster.listed(await client.all_peers()))
            self._listed_at = self._rim.steady()

    def _told(self, frame: frames.FromService) -> None:
        match frame:
            case frames.Messages():
                self._pushed_messages(frame)
            case frames.Signals() if _SIGNALS in self._wanted:
                self._pushed_signals(frame.signals)
            case frames.Presence() if _PRESENCE in self._wanted:
                self._tell(self._roster.told(frame.joined, frame.left))
            case _:
                pass

    def _tell(self, changes: Iterable[Change]) -> None:
        self._ready.extend(_Ready(change) for change in changes)

    # --- messages -------------------------------------------------------------

    def _polled_messages(self, page: records.Messages) -> None:
        if page.more and page.cursor > self._mail.at:
            self._due.add(_MESSAGES)
        self._read(page.messages, cursor=page.cursor)
        if self._mail.doubtful:
            self._due.add(_MAIL_END)

    def _pushed_messages(self, frame: frames.Messages) -> None:
        """Read a frame that follows on where we stand; any other may make us ask."""
        at, partial = self._mail.at, frame.cursor == frame.after
        if frame.after == at and 0 < frame.cursor - at <= len(frame.messages):
            self._read(frame.messages, cursor=frame.cursor)
        elif frame.cursor > at or (frame.cursor == at and partial):
            self._due.add(_MESSAGES)  # something is missing, or some of it is known
        elif any(bytes(raw) not in self._mail for raw in frame.messages):
            self._due.add(_MAIL_END)  # it is new, and yet we are beyond it

    def _read(self, envelopes: Sequence[msgspec.Raw], *, cursor: int) -> None:
        notes = self._client.read(raw for raw in envelopes if self._mail.first_time(bytes(raw)))
        self._mail.advance(cursor, count=len(envelopes))
        self._ready.extend(_Ready(note) for note in notes[:-1])
        self._ready.append(_Ready(notes[-1] if notes else None, cursor=self._mail.at))

    # --- signals --------------------------------------------------------------

    def _polled_signals(self, signals: Iterable[records.Signal]) -> None:
        before = self._heard.at
        for signal in signals:
            self._heard.advance(signal.id, count=1)
            event = signal if self._heard.first_time(_body(signal)) else None
            self._ready.append(_Ready(event, signal_id=self._heard.at))
        if self._heard.at > before:
            self._due.add(_SIGNALS)  # until there are none
        elif self._heard.doubtful:
            self._due.add(_SIGNALS_END)

    def _pushed_signals(self, signals: Iterable[records.Signal]) -> None:
        """Give signals at once; one that does not follow its predecessor makes us poll."""
        for signal in signals:
            if _body(signal) in self._heard:
                continue
            if signal.id <= self._heard.at:
                self._due.add(_SIGNALS_END)  # it is new, and yet we are beyond it
                continue
            self._heard.first_time(_body(signal))
            if signal.id == self._heard.at + 1:
                self._heard.advance(signal.id, count=1)
                self._ready.append(_Ready(signal, signal_id=signal.id))
            else:
                self._due.add(_SIGNALS)
                self._ready.append(_Ready(signal))


def _body(signal: records.Signal) -> bytes:
    return msgspec.json.encode(signal)
