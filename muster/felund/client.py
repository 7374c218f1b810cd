"""The client of one node in one circle: a method for each call of the service.

Calls are signed, bounded in time and size, and repeated where that can help: with
a fresh time and nonce for each attempt, after a back-off, and once more with a
corrected clock. What the service refuses is raised as the class it was refused
with (`muster.errors`); what never reached it, as `Unreachable`.
"""

from __future__ import annotations

from collections import deque
from collections.abc import AsyncIterator, Iterable, Mapping
from dataclasses import replace
from typing import Any

import httpx2
import msgspec

from muster.backoff import Backoff, Rim
from muster.errors import ExpiredTimestamp
from muster.felund import assist_records, crypto, records, sockets
from muster.felund.calling import Caller
from muster.felund.circle import Circle, signal_session
from muster.felund.crypto import GENERAL, Note, Unreadable
from muster.felund.exchange import (
    MAX_REPLY_BYTES,
    TIMEOUT_S,
    BadReply,
    Operation,
    service_url,
    websocket_url,
)
from muster.felund.place import Place, highest
from muster.felund.sockets import Connect, Socket, Unreachable

__all__ = ["BadReply", "Client", "Note", "Unreachable", "service_url"]

CHECK_S = 1800.0
"""How often a reader makes sure that it is not beyond the end of a mailbox."""

PEERS_PAGE = 200
LATEST = 2**53 - 1

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


class Client(Caller):
    """A node of a circle, seen from inside; use it as ``async with``.

    *base_url* may end in ``/``, in ``/v1`` or have a path. *cursor* is where
    `receive` goes on: keep it to start again from there. Answers that cannot be
    true (a cursor of tomorrow's) are a `BadReply`, and change nothing.
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
        super().__init__(
            base_url,
            circle,
            node_id,
            transport=transport,
            backoff=backoff,
            rim=rim,
            timeout_s=timeout_s,
            max_reply_bytes=max_reply_bytes,
        )
        self.cursor = cursor
        self.unreadable = 0
        self._connect = connect
        self._collected: deque[Note] = deque()

    @property
    def cursor(self) -> int:
        """Where `receive` goes on."""
        return self._place.at

    @cursor.setter
    def cursor(self, cursor: int) -> None:
        self._place = Place(cursor)
        self._check_at: float | None = None

    # --- the service ----------------------------------------------------------

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

    async def all_peers(self) -> records.Peers:
        """List all of the circle's other live nodes, page by page, by node id.

        ``more`` is set where an older service, which knows no pages, has left some out.
        """
        found: dict[str, records.Peer] = {}
        after = ""
        while True:
            ask = records.ListPeers(
                circle_hint=self.circle.circle_hint, limit=PEERS_PAGE, after=after
            )
            page = await self._call(_PEERS, ask)
            found |= {peer.node_id: peer for peer in page.peers}
            last = max((peer.node_id for peer in page.peers), default="")
            if not page.more or last <= after:
                break
            after = last
        cut = page.more is msgspec.UNSET and len(page.peers) >= PEERS_PAGE
        return records.Peers(peers=tuple(found.values()), server_time=page.server_time, more=cut)

    # --- messages -------------------------------------------------------------

    async def leave_messages(self, envelopes: Iterable[Mapping[str, Any]]) -> records.MessagesLeft:
        """Leave envelopes in the circle's mailbox: all of them or none, each once."""
        return await self._call(_LEAVE_MESSAGES, self._leaving(envelopes))

    async def poll_messages(self, *, after: int = 0, limit: int = 200) -> records.Messages:
        """Collect a page of envelopes after a cursor, in arrival order."""
        ask = records.PollMessages(circle_hint=self.circle.circle_hint, after=after, limit=limit)
        page = await self._call(_POLL_MESSAGES, ask)
        self._believe(page.cursor, after=after, count=len(page.messages))
        return page

    async def newest_message(self) -> int:
        """Ask for the number of the newest message in the mailbox; 0 if it is empty."""
        ask = records.PollMessages(circle_hint=self.circle.circle_hint, since=LATEST, limit=1)
        page = await self._call(_POLL_MESSAGES, ask)
        self._believe(page.cursor, after=0, count=0)
        return page.cursor

    async def send(
        self,
        text: str,
        *,
        channel: str = GENERAL,
        display_name: str = "",
        author: str | None = None,
    ) -> Note:
        """Encrypt a text for the circle and leave it in the mailbox.

        It is dated by the service's clock as soon as ours is known to be wrong. *author* is
        the node that wrote it, if not this one.
        """
        note = crypto.new_note(
            self.circle,
            author or self.node_id,
            text,
            now=self.now(),
            display_name=display_name,
            channel=channel,
            entropy=self.rim.entropy,
        )
        ask = self._leaving([self._sealed(note)])
        try:
            await self._call(_LEAVE_MESSAGES, ask, may_correct=False)
        except ExpiredTimestamp:
            await self._correct_clock()
            note = replace(note, created_ts=self.now())
            await self.leave_messages([self._sealed(note)])
        return note

    def _sealed(self, note: Note) -> dict[str, Any]:
        nonce = self.rim.entropy(crypto.NONCE_BYTES)
        return crypto.encrypt(self.circle, note, nonce=nonce)

    def _leaving(self, envelopes: Iterable[Mapping[str, Any]]) -> records.LeaveMessages:
        return records.LeaveMessages(
            circle_hint=self.circle.circle_hint,
            messages=tuple(dict(envelope) for envelope in envelopes),
        )

    async def receive(self) -> AsyncIterator[Note]:
        """Yield the messages since `cursor`, oldest first, until there are no more.

        Call it again for what came since; stopping in the middle loses nothing.
        What this circle cannot read is counted in `unreadable` and skipped. A
        `cursor` beyond the end of the mailbox goes back: messages of an earlier
        life may come again then, known by their ``msg_id``.
        """
        more = True
        while more or self._collected:
            if not self._collected:
                more = await self._collect()
            while self._collected:
                yield self._collected.popleft()

    async def _collect(self) -> bool:
        """Take the next page; say whether there is another.

        At the end, a cursor that was kept is checked at once, and any from time to time.
        """
        place, before = self._place, self.cursor
        if self._check_at is None:
            self._check_at = self.rim.steady() + (0 if before else CHECK_S)
        page = await self.poll_messages(after=before)
        place.advance(page.cursor, count=len(page.messages))
        self._collected += self.read(raw for raw in page.messages if place.first_time(bytes(raw)))
        if page.messages or not before or self.rim.steady() < self._check_at:
            return page.more and place.at > before
        self._check_at = self.rim.steady() + CHECK_S
        return place.confirm(await self.newest_message())

    def _believe(self, number: int, *, after: int, count: int) -> None:
        """Raise `BadReply` for a number that the service cannot have handed out yet."""
        if number > max(after + count, highest(self.now())):
            raise BadReply(f"{self.base_url} answered with a number of the future")

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
        found = await self._call(_POLL_SIGNALS, ask)
        for count, signal in enumerate(found.signals, start=1):
            self._believe(signal.id, after=since_id, count=count)
        return found

    async def newest_signal(self) -> int:
        """Ask for the id of the newest signal that waits for this node; 0 if none does."""
        newest = 0
        while True:
            found = await self.poll_signals(since_id=newest)
            highest_id = max((signal.id for signal in found.signals), default=0)
            if highest_id <= newest:
                return newest
            newest = highest_id

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

    def _named(self) -> dict[str, Any]:
        return {"node_id": self.node_id, "circle_hint": self.circle.circle_hint}


def _object(raw: msgspec.Raw) -> Mapping[str, Any]:
    try:
        return msgspec.json.decode(raw, type=dict)
    except msgspec.MsgspecError:
        raise Unreadable("the message is not an object") from None
