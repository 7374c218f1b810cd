"""A link: payloads to one other node through the relay, in order, each of them once.

The relay passes frames on and keeps nothing, so the two ends do the rest
(`muster.felund.ordering`): a frame is kept until the program at the other end has taken
it, and sent again when the other seat is taken again, when this side has
reconnected, and when an acknowledgement is overdue.

While both programs live, every payload arrives exactly once. When the receiver
starts again, what its earlier life took without confirming arrives again; when
the sender does, what it had not yet delivered is lost with it. The link does not
encrypt: the relay can read, drop and invent payloads, so seal them end to end.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
from contextlib import aclosing, suppress
from typing import Self

from muster.backoff import RECONNECT, Backoff, asked_s, within
from muster.errors import (
    Idle,
    InvalidFrame,
    NotFound,
    PayloadTooLarge,
    Refused,
    SessionExpired,
    from_json,
)
from muster.felund import frames, records
from muster.felund.client import Client
from muster.felund.ordering import EARLY, MAX_PAYLOAD_BYTES, Inbox, Outbox, new_start
from muster.felund.sockets import Closed, Socket, Unreachable, listen

__all__ = ["MAX_PAYLOAD_BYTES", "WINDOW", "Link", "LinkClosed"]

WINDOW = 32
"""How many frames may be under way unacknowledged; `send` waits beyond that."""

_RENEW_AT = 0.7
_CLOSE_S = 2.0
_QUIET_S = 0.5
_LONG_S = 3600.0


class LinkClosed(Exception):
    """The link is closed, on this side."""


class Link:
    """A link with one node: ``async with Link(client, node_id) as link``.

    Both nodes open one, naming each other. `send` puts payloads in, ``async for``
    takes them out, and ends when the other side has closed. The link reconnects
    and renews its session by itself; `there` says whether the other seat is taken.
    A refusal that is not retryable is raised from `send` and the iteration.
    """

    def __init__(
        self,
        client: Client,
        target_node_id: str,
        *,
        ttl_s: int = 60,
        window: int = WINDOW,
        backoff: Backoff = RECONNECT,
    ) -> None:
        self.target_node_id = target_node_id
        self.there = False
        self._client = client
        self._rim = client.rim
        self._ttl_s = ttl_s
        self._window = min(window, EARLY)
        self._backoff = backoff
        self._opened: records.SessionOpened  # from when it is entered
        self._outbox = Outbox(start=0)  # until then
        self._inbox = Inbox()
        self._confirm: deque[int] = deque()
        self._runner: asyncio.Task[None] | None = None
        self._failure: BaseException | None = LinkClosed("open the link with 'async with'")
        self._quiet_until = 0.0
        self._asked_s: float | None = None
        self._closed = False
        self._work = asyncio.Event()
        self._waiters: set[asyncio.Future[None]] = set()

    async def __aenter__(self) -> Self:
        """Open the session; raises what the service refuses it with."""
        await self._renew()
        self._outbox = Outbox(
            start=new_start(
                server_time=self._opened.server_time,
                now=self._rim.now(),
                chance=self._rim.entropy(1)[0],
            )
        )
        socket = await self._client.attach(self._opened)
        self._failure = None
        self._runner = asyncio.create_task(self._run(socket))
        self._runner.add_done_callback(self._stopped)
        return self

    async def __aexit__(self, *exc: object) -> None:
        await self.close()

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> bytes:
        await self._until(lambda: bool(self._inbox) or self._inbox.end is not None or self._closed)
        if not self._inbox:
            raise StopAsyncIteration
        taken = self._inbox.take()
        self._acknowledge(taken.seq)
        return taken.body

    async def send(self, payload: bytes) -> None:
        """Send a payload of at most `MAX_PAYLOAD_BYTES`; waits while the window is full."""
        if len(payload) > MAX_PAYLOAD_BYTES:
            raise PayloadTooLarge(
                f"a link takes payloads of {MAX_PAYLOAD_BYTES} bytes, this one has {len(payload)}"
            )
        await self._until(lambda: len(self._outbox) < self._window)
        if self._failure is not None:
            raise self._failure
        self._outbox.add(payload)
        self._work.set()

    async def flush(self) -> None:
        """Wait until the other side has taken everything."""
        await self._until(lambda: not self._outbox)

    async def close(self) -> None:
        """Tell the other side that nothing follows, and close.

        What is under way has two seconds to be taken; `flush` first to be sure.
        """
        runner, self._runner = self._runner, None
        if runner is None:
            return
        if self._failure is None and (self.there or self._outbox):
            await self._say_goodbye()
        runner.cancel()
        with suppress(asyncio.CancelledError):
            await runner
        self._closed = True
        self._fail(LinkClosed("the link is closed"))

    async def _say_goodbye(self) -> None:
        was_there = self.there
        self._outbox.end()
        self._work.set()
        done = self._until(
            lambda: not (self._outbox or self._confirm) or (was_there and not self.there)
        )
        with suppress(Refused, Unreachable):
            await within(done, _CLOSE_S, self._rim)

    # --- the socket, in the background ----------------------------------------

    async def _run(self, first: Socket) -> None:
        """Hold the seat: on this socket, and on others after it."""
        socket: Socket | None = first
        failures = 0
        while self._failure is None:
            if socket is not None:
                since = self._rim.steady()
                await self._hold(socket)
                held = self._rim.steady() - since > self._backoff.longest_s
                failures = 0 if held else failures
            chance = self._rim.chance()
            wait_s = self._backoff.delay(failures, chance=chance, retry_after_s=self._asked_s)
            await self._rim.sleep(wait_s)
            failures += 1
            socket = await self._reopen()

    async def _reopen(self) -> Socket | None:
        self._asked_s = None
        try:
            await self._renew()
            return await self._client.attach(self._opened)
        except (Refused, Unreachable) as error:
            self._asked_s = asked_s(error)
            self._judge(error)
            return None

    async def _hold(self, socket: Socket) -> None:
        """Use a socket until it closes."""
        work = [
            asyncio.ensure_future(part)
            for part in (self._hear_all(socket), self._say_all(socket), self._stay())
        ]
        try:
            await asyncio.wait(work, return_when=asyncio.FIRST_COMPLETED)
        finally:
            self.there = False
            for task in work:
                task.cancel()
            ends = await asyncio.gather(*work, return_exceptions=True)
            await socket.close()
            self._outbox.rewind()
            self._wake()
        for end in ends:
            if isinstance(end, Exception) and not isinstance(end, Closed):
                self._judge(end)

    async def _stay(self) -> None:
        """Renew the session in time; a session that is a new one needs a new socket."""
        failures, asked = 0, None
        while True:
            session_id = self._opened.session_id
            left_s = self._opened.expires_at - self._opened.server_time
            wait_s = _RENEW_AT * left_s
            if failures:
                chance = self._rim.chance()
                wait_s = self._backoff.delay(failures, chance=chance, retry_after_s=asked)
            await self._rim.sleep(max(wait_s, 1.0))
            try:
                await self._renew()
            except (Refused, Unreachable) as error:
                self._judge(error)
                failures, asked = failures + 1, asked_s(error)
            else:
                failures = 0
            if self._failure is not None or self._opened.session_id != session_id:
                return

    async def _renew(self) -> None:
        self._opened = await self._client.open_relay(self.target_node_id, ttl_s=self._ttl_s)

    def _judge(self, error: Exception) -> None:
        """Give up where no retry can help; a node that is not registered may come back."""
        passing = isinstance(error, (NotFound, SessionExpired, Unreachable)) or (
            isinstance(error, Refused) and error.passing
        )
        if not passing:
            self._fail(error)

    # --- what we say ----------------------------------------------------------

    async def _say_all(self, socket: Socket) -> None:
        while True:
            self._work.clear()
            if (quiet_s := self._quiet_until - self._rim.steady()) > 0:
                await self._rim.sleep(quiet_s)
            while self._confirm:
                await socket.send(self._ack(self._confirm[0]))
                self._confirm.popleft()
                self._wake()
            # Without a peer, the oldest frame alone asks from time to time if there is one.
            most = None if self.there else 1
            for seq in self._outbox.due(now=self._rim.steady(), most=most):
                raw = self._outbox.take(seq, now=self._rim.steady())
                if raw is not None:
                    await socket.send(self._frame(seq, raw))
            wait_s = self._outbox.due_at(most=most) - self._rim.steady()
            await within(self._work.wait(), min(max(wait_s, 0.0), _LONG_S), self._rim)

    def _frame(self, seq: int, raw: bytes) -> frames.Frame:
        payload_b64 = frames.payload(raw)
        return frames.Frame(session_id=self._opened.session_id, seq=seq, payload_b64=payload_b64)

    def _ack(self, seq: int) -> frames.Ack:
        return frames.Ack(session_id=self._opened.session_id, seq=seq)

    def _acknowledge(self, seq: int) -> None:
        self._confirm.append(seq)
        self._work.set()

    # --- what we hear ---------------------------------------------------------

    async def _hear_all(self, socket: Socket) -> None:
        async with aclosing(listen(socket, self._rim)) as arriving:
            async for frame in arriving:
                self._hear(frame)

    def _hear(self, frame: frames.FromService) -> None:
        match frame:
            case frames.Frame() if frame.from_ == self.target_node_id:
                self._here()
                self._receive(frame)
            case frames.Ack(from_=None):
                self._here()  # the service handed a frame on
            case frames.Ack() if frame.from_ == self.target_node_id:
                self._here()
                if self._outbox.acknowledge(frame.seq):
                    self._wake()
            case frames.Attached() if frame.node_id == self.target_node_id:
                self._outbox.rewind()
                self._here()
                self._work.set()
            case frames.Gone() if frame.node_id == self.target_node_id:
                self._away()
            case frames.Error():
                self._hear_error(frame)
            case _:
                pass

    def _receive(self, frame: frames.Frame) -> None:
        try:
            raw = frames.payload_bytes(frame.payload_b64)
            again = self._inbox.put(frame.seq, raw, now=self._rim.steady())
        except (InvalidFrame, PayloadTooLarge):
            return  # not from a link; without an acknowledgement its sender knows
        if again or frame.seq == self._inbox.end:
            self._acknowledge(frame.seq)
        self._wake()

    def _hear_error(self, frame: frames.Error) -> None:
        refusal = from_json({"code": frame.code, "message": frame.message}, status=400)
        if isinstance(refusal, NotFound):
            self._away()
        elif isinstance(refusal, PayloadTooLarge):
            self._fail(refusal)
        elif isinstance(refusal, (SessionExpired, Idle, InvalidFrame)):
            raise Closed(frame.message)  # the seat is lost; take it again
        elif refusal.retryable:
            # Too fast, or the store is away: who knows what was passed on meanwhile.
            self._quiet_until = self._rim.steady() + _QUIET_S * (1 + self._rim.chance())
            self._outbox.rewind()
            self._work.set()

    def _here(self) -> None:
        if not self.there:
            self.there = True
            self._work.set()

    def _away(self) -> None:
        self.there = False
        self._wake()

    # --- waiting --------------------------------------------------------------

    async def _until(self, ready: Callable[[], bool]) -> None:
        while not ready():
            if self._failure is not None:
                raise self._failure
            waiter = asyncio.get_running_loop().create_future()
            self._waiters.add(waiter)
            try:
                await waiter
            finally:
                self._waiters.discard(waiter)

    def _wake(self) -> None:
        for waiter in self._waiters:
            if not waiter.done():
                waiter.set_result(None)

    def _stopped(self, runner: asyncio.Task[None]) -> None:
        """Let nobody wait for a runner that broke."""
        if not runner.cancelled() and (error := runner.exception()) is not None:
            self._fail(error)

    def _fail(self, error: BaseException) -> None:
        self._failure = self._failure or error
        self._wake()
