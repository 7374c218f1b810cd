"""The client of one node in one circle: a method for each call of the service.

Calls are signed, bounded in time and size, and repeated where that can help: with
a fresh time and nonce for each attempt, after a back-off, and once more with a
corrected clock. What the service refuses is raised as the class it was refused
with (`muster.errors`); what never reached it, as `Unreachable`.
"""

from __future__ import annotations

from collections import deque
from collections.abc import AsyncIterator, Iterable, Mapping
from typing import Any, Self, TypeVar

import httpx2
import msgspec

from muster.backoff import Backoff, Rim
from muster.errors import ExpiredTimestamp, NonceReplay, Refused
from muster.felund import assist_records, crypto, records, signing, sockets
from muster.felund.circle import Circle, signal_session
from muster.felund.crypto import GENERAL, Note, Unreadable
from muster.felund.exchange import (
    MAX_REPLY_BYTES,
    TIMEOUT_S,
    BadReply,
    Exchange,
    Operation,
    members,
    service_url,
    websocket_url,
)
from muster.felund.sockets import Connect, Socket, Unreachable

__all__ = ["BadReply", "Client", "Note", "Unreachable", "service_url"]

_R = TypeVar("_R", bound=records.Record)

_HEALTH = Operation(records.Health, "GET", "/health", signed=False)
_INFO = Operation(records.Info, "GET", "/info", signed=False)
_REGISTER = Operation(records.Registered, "POST", "/register")
_UNREGISTER = Operation(records.Unregistered, "DELETE", "/register")
_PEERS = Operation(records.Peers, "GET", "/peers")
_LEAVE_MESSAGES = Operation(records.MessagesLeft, "POST", "/messages")
_POLL_MESSAGES = Operation(records.Messages, "GET", "/messages")
_LEAVE_SIGNAL = Operation(records.SignalLeft, "POST", "/signal")
_POLL_SIGNALS = Operation(records.Signals, "GET", "/signal")
_OPEN_RELAY = Operation(records.SessionOpened, "POST", "/relay/session")
_OPEN_SUBSCRIPTION = Operation(records.SubscriptionOpened, "POST", "/relay/subscription")
_OPEN_SESSION = Operation(assist_records.AssistOpened, "POST", "/session")
_ASSIST = Operation(assist_records.Advice, "POST", "/api/p2p/assist", signed=False, root=True)


class Client:
    """A node of a circle, seen from inside; use it as ``async with``.

    *base_url* may end in ``/``, in ``/v1`` or have a path. *cursor* is where
    `receive` goes on: keep it to start again from there.
    """

    def __init__(
        self,
        base_url: str,
        circle: Circle,
        node_id: str,
        *,
        cursor: int = 0,
        transport: httpx2.AsyncBaseTransport | None = None,
        connect: Connect = sockets.connect,
        backoff: Backoff | None = None,
        rim: Rim | None = None,
        timeout_s: float = TIMEOUT_S,
        max_reply_bytes: int = MAX_REPLY_BYTES,
    ) -> None:
        named = {"node_id": node_id, "circle_hint": circle.circle_hint}
        records.from_json(named, records.Unregister)  # before it becomes a header
        self.base_url = service_url(base_url)
        self.circle = circle
        self.node_id = node_id
        self.cursor = cursor
        self.clock_offset_s = 0.0
        self.unreadable = 0
        self.rim = rim or Rim()
        self._backoff = backoff or Backoff()
        self._connect = connect
        self._collected: deque[Note] = deque()
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

    # --- the service ----------------------------------------------------------

    async def health(self) -> records.Health:
        """Ask whether the service lives."""
        return await self._call(_HEALTH)

    async def info(self) -> records.Info:
        """Ask for the service's version, limits and keys."""
        return await self._call(_INFO)

    # --- presence -------------------------------------------------------------

    async def register(
        self,
        endpoints: Iterable[records.Endpoint] = (),
        *,
        capabilities: records.Capabilities | None = None,
        ttl_s: int = 120,
    ) -> records.Registered:
        """Say where this node is, for *ttl_s* seconds; register again to stay."""
        ask = records.Register(
            **self._named(),
            endpoints=tuple(endpoints),
            capabilities=capabilities or records.Capabilities(),
            ttl_s=ttl_s,
            signing_key=self.circle.request_key.hex(),
        )
        return await self._call(_REGISTER, ask)

    async def unregister(self) -> records.Unregistered:
        """Say that this node is gone."""
        ask = records.Unregister(**self._named())
        return await self._call(_UNREGISTER, ask)

    async def peers(self, *, limit: int = 50) -> records.Peers:
        """List the circle's other live nodes, the newest first."""
        ask = records.ListPeers(circle_hint=self.circle.circle_hint, limit=limit)
        return await self._call(_PEERS, ask)

    # --- messages -------------------------------------------------------------

    async def leave_messages(self, envelopes: Iterable[Mapping[str, Any]]) -> records.MessagesLeft:
        """Leave envelopes in the circle's mailbox: all of them or none, each once."""
        ask = records.LeaveMessages(
            circle_hint=self.circle.circle_hint,
            messages=tuple(dict(envelope) for envelope in envelopes),
        )
        return await self._call(_LEAVE_MESSAGES, ask)

    async def poll_messages(self, *, after: int = 0, limit: int = 200) -> records.Messages:
        """Collect a page of envelopes after a cursor, in arrival order."""
        ask = records.PollMessages(circle_hint=self.circle.circle_hint, after=after, limit=limit)
        return await self._call(_POLL_MESSAGES, ask)

    async def send(self, text: str, *, channel: str = GENERAL, display_name: str = "") -> Note:
        """Encrypt a text for the circle and leave it in the mailbox."""
        note = crypto.new_note(
            self.circle,
            self.node_id,
            text,
            now=self.now(),
            display_name=display_name,
            channel=channel,
            entropy=self.rim.entropy,
        )
        nonce = self.rim.entropy(crypto.NONCE_BYTES)
        await self.leave_messages([crypto.encrypt(self.circle, note, nonce=nonce)])
        return note

    async def receive(self) -> AsyncIterator[Note]:
        """Yield the messages since `cursor`, oldest first, until there are no more.

        Call it again for what came since; stopping in the middle loses nothing.
        What this circle cannot read is counted in `unreadable` and skipped.
        """
        more = True
        while more or self._collected:
            if not self._collected:
                page = await self.poll_messages(after=self.cursor)
                more = page.more and page.cursor > self.cursor
                self.cursor = page.cursor
                self._collected.extend(self.read(page.messages))
            while self._collected:
                yield self._collected.popleft()

    def read(self, envelopes: Iterable[msgspec.Raw]) -> list[Note]:
        """Decrypt the envelopes that this circle can read; count the others."""
        notes = []
        for envelope in envelopes:
            try:
                notes.append(crypto.decrypt(self.circle, _object(envelope)))
            except Unreadable:
                self.unreadable += 1
        return notes

    # --- signals --------------------------------------------------------------

    async def leave_signal(
        self,
        to_node_id: str,
        kind: records.SignalType,
        payload: str,
        *,
        session_id: str | None = None,
        ttl_s: int | None = None,
    ) -> records.SignalLeft:
        """Leave a WebRTC offer, answer or candidate for a node."""
        ask = records.LeaveSignal(
            session_id=session_id or signal_session(self.node_id, to_node_id),
            from_node_id=self.node_id,
            to_node_id=to_node_id,
            circle_hint=self.circle.circle_hint,
            type=kind,
            payload=payload,
            ttl_s=ttl_s,
        )
        return await self._call(_LEAVE_SIGNAL, ask)

    async def poll_signals(
        self, *, since_id: int = 0, session_id: str | None = None
    ) -> records.Signals:
        """Collect the signals left for this node after an id; nothing is taken away."""
        ask = records.PollSignals(
            to_node_id=self.node_id,
            since_id=since_id,
            session_id=session_id,
            circle_hint=self.circle.circle_hint,
        )
        return await self._call(_POLL_SIGNALS, ask)

    # --- relay ----------------------------------------------------------------

    async def open_relay(self, target_node_id: str, *, ttl_s: int = 60) -> records.SessionOpened:
        """Open a relay session with a node, or renew it."""
        ask = records.OpenSession(**self._named(), target_node_id=target_node_id, ttl_s=ttl_s)
        return await self._call(_OPEN_RELAY, ask)

    async def open_subscription(self, *, ttl_s: int = 60) -> records.SubscriptionOpened:
        """Ask for a token that opens a subscription."""
        ask = records.OpenSubscription(**self._named(), ttl_s=ttl_s)
        return await self._call(_OPEN_SUBSCRIPTION, ask)

    async def attach(self, opened: records.SessionOpened | records.SubscriptionOpened) -> Socket:
        """Open the WebSocket of a relay session or a subscription."""
        return await self._connect(websocket_url(self.base_url, opened.relay_url), opened.token)

    # --- assist ---------------------------------------------------------------

    async def open_session(self, *, ttl_s: int = 300) -> assist_records.AssistOpened:
        """Ask for a token for `assist`; a service that does not know the circle pins its key."""
        ask = assist_records.OpenAssist(
            **self._named(), ttl_s=ttl_s, signing_key=self.circle.request_key.hex()
        )
        return await self._call(_OPEN_SESSION, ask)

    async def assist(
        self, ask: assist_records.AskAdvice | None = None, *, token: str = ""
    ) -> assist_records.Advice:
        """Ask how to connect, with a token of `open_session` or of the operator."""
        token = token or (await self.open_session()).token
        return await self._call(_ASSIST, ask, token=token)

    # --- one call -------------------------------------------------------------

    def _named(self) -> dict[str, Any]:
        return {"node_id": self.node_id, "circle_hint": self.circle.circle_hint}

    async def _call(
        self, operation: Operation[_R], ask: records.Record | None = None, *, token: str = ""
    ) -> _R:
        """Make a call and read its reply; repeat it while that can help."""
        may_correct, failures = operation.signed, 0
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

    async def _once(self, operation: Operation[_R], ask: records.Record | None, token: str) -> _R:
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
        """Learn how far our clock is from the service's, to half the way there and back."""
        before = self.rim.now()
        health = await self.health()
        self.clock_offset_s = health.time + 0.5 - (before + self.rim.now()) / 2


def _passing(failure: Refused | Unreachable) -> bool:
    """Say whether the same call, made again, may succeed."""
    if isinstance(failure, Refused):
        # A replay of a fresh nonce was made on the way, by a proxy that tries again.
        return failure.retryable or isinstance(failure, NonceReplay)
    return not isinstance(failure, BadReply)


def _object(raw: msgspec.Raw) -> Mapping[str, Any]:
    try:
        return msgspec.json.decode(raw, type=dict)
    except msgspec.MsgspecError:
        raise Unreadable("the message is not an object") from None
