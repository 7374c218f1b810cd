"""The client of one node in one circle: a method for each call of the service.

Calls are signed, bounded in time and size, and repeated where that can help: with
a fresh time and nonce for each attempt, after a back-off, and once more with a
corrected clock. What the service refuses is raised as the class it was refused
with (`muster.errors`); what never reached it, as `Unreachable`.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Iterable, Mapping
from typing import Any, Self, TypeVar
from urllib.parse import urlsplit

import httpx2
import msgspec

from muster import __version__, errors
from muster.backoff import Backoff, Rim
from muster.errors import ExpiredTimestamp, NonceReplay, Refused
from muster.felund import assist_records, crypto, records, signing, sockets
from muster.felund.circle import Circle, signal_session
from muster.felund.crypto import Note, Unreadable
from muster.felund.sockets import Connect, Socket, Unreachable

__all__ = ["BadReply", "Client", "Note", "Unreachable", "service_url"]

TIMEOUT_S = 10.0
MAX_REPLY_BYTES = 8 * 1024 * 1024
ASSIST = "/api/p2p/assist"
"""The one path that is not below ``/v1``: existing clients want it at the root."""

_R = TypeVar("_R", bound=records.Record)


class BadReply(Unreachable):
    """Something answered, but not a Muster service, or not in bounds."""


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
        self._timeout_s = timeout_s
        self._max_reply_bytes = max_reply_bytes
        self._connect = connect
        self._collected: deque[Note] = deque()
        self._http = httpx2.AsyncClient(
            transport=transport,
            timeout=timeout_s,
            headers={
                "Accept": "application/json",
                "Accept-Encoding": "identity",  # so that a bound on bytes is a bound on work
                "User-Agent": f"muster/{__version__}",
            },
        )

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *exc: object) -> None:
        await self.aclose()

    async def aclose(self) -> None:
        """Close the connections."""
        await self._http.aclose()

    def now(self) -> int:
        """Return the time as the service sees it, as far as we know."""
        return int(self.rim.now() + self.clock_offset_s)

    # --- the service ----------------------------------------------------------

    async def health(self) -> records.Health:
        """Ask whether the service lives."""
        return await self._call(records.Health, "GET", "/health", signed=False)

    async def info(self) -> records.Info:
        """Ask for the service's version, limits and keys."""
        return await self._call(records.Info, "GET", "/info", signed=False)

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
        return await self._call(records.Registered, "POST", "/register", body=ask)

    async def unregister(self) -> records.Unregistered:
        """Say that this node is gone."""
        ask = records.Unregister(**self._named())
        return await self._call(records.Unregistered, "DELETE", "/register", body=ask)

    async def peers(self, *, limit: int = 50) -> records.Peers:
        """List the circle's other live nodes, the newest first."""
        ask = records.ListPeers(circle_hint=self.circle.circle_hint, limit=limit)
        return await self._call(records.Peers, "GET", "/peers", query=ask)

    # --- messages -------------------------------------------------------------

    async def leave_messages(self, envelopes: Iterable[Mapping[str, Any]]) -> records.MessagesLeft:
        """Leave envelopes in the circle's mailbox: all of them or none, each once."""
        ask = records.LeaveMessages(
            circle_hint=self.circle.circle_hint,
            messages=tuple(dict(envelope) for envelope in envelopes),
        )
        return await self._call(records.MessagesLeft, "POST", "/messages", body=ask)

    async def poll_messages(self, *, after: int = 0, limit: int = 200) -> records.Messages:
        """Collect a page of envelopes after a cursor, in arrival order."""
        ask = records.PollMessages(circle_hint=self.circle.circle_hint, after=after, limit=limit)
        return await self._call(records.Messages, "GET", "/messages", query=ask)

    async def send(self, text: str, *, channel: str = "general", display_name: str = "") -> Note:
        """Encrypt a text for the circle and leave it in the mailbox."""
        now = self.now()
        note = Note(
            msg_id=crypto.new_msg_id(self.node_id, now=now, entropy=self.rim.entropy),
            circle_id=self.circle.circle_id,
            channel_id=channel,
            author_node_id=self.node_id,
            created_ts=now,
            display_name=display_name,
            text=text,
        )
        nonce = self.rim.entropy(crypto.NONCE_BYTES)
        await self.leave_messages([crypto.encrypt(self.circle, note, nonce=nonce)])
        return note

    async def receive(self) -> AsyncIterator[Note]:
        """Yield the messages since `cursor`, oldest first, until there are no more.

        Call it again for what came since; breaking off in the middle loses nothing.
        What this circle cannot read is counted in `unreadable` and passed over.
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
        return await self._call(records.SignalLeft, "POST", "/signal", body=ask)

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
        return await self._call(records.Signals, "GET", "/signal", query=ask)

    # --- relay ----------------------------------------------------------------

    async def open_relay(self, target_node_id: str, *, ttl_s: int = 60) -> records.SessionOpened:
        """Open a relay session with a node, or renew it."""
        ask = records.OpenSession(**self._named(), target_node_id=target_node_id, ttl_s=ttl_s)
        return await self._call(records.SessionOpened, "POST", "/relay/session", body=ask)

    async def open_subscription(self, *, ttl_s: int = 60) -> records.SubscriptionOpened:
        """Ask for a token that opens a subscription."""
        ask = records.OpenSubscription(**self._named(), ttl_s=ttl_s)
        return await self._call(records.SubscriptionOpened, "POST", "/relay/subscription", body=ask)

    async def attach(self, opened: records.SessionOpened | records.SubscriptionOpened) -> Socket:
        """Open the WebSocket of a relay session or a subscription."""
        return await self._connect(_socket_url(self.base_url, opened.relay_url), opened.token)

    # --- assist ---------------------------------------------------------------

    async def open_session(self, *, ttl_s: int = 300) -> assist_records.AssistOpened:
        """Ask for a token for `assist`; a service that does not know the circle pins its key."""
        ask = assist_records.OpenAssist(
            **self._named(), ttl_s=ttl_s, signing_key=self.circle.request_key.hex()
        )
        return await self._call(assist_records.AssistOpened, "POST", "/session", body=ask)

    async def assist(
        self, ask: assist_records.AskAdvice | None = None, *, token: str = ""
    ) -> assist_records.Advice:
        """Ask how to connect, with a token of `open_session` or of the operator."""
        token = token or (await self.open_session()).token
        return await self._call(
            assist_records.Advice, "POST", ASSIST, body=ask, signed=False, token=token
        )

    # --- one call -------------------------------------------------------------

    def _named(self) -> dict[str, Any]:
        return {"node_id": self.node_id, "circle_hint": self.circle.circle_hint}

    async def _call(
        self,
        shape: type[_R],
        method: str,
        path: str,
        *,
        query: records.Record | None = None,
        body: records.Record | None = None,
        signed: bool = True,
        token: str = "",
    ) -> _R:
        """Make a call and read its reply; repeat it while that can help."""
        content = msgspec.json.encode(_members(body)) if body else b""
        asked = _members(query) if query else None
        failures, corrected = 0, False
        while True:
            headers = self._headers(method, path, content) if signed else {}
            if token:
                headers["Authorization"] = f"Bearer {token}"
            try:
                return await self._once(shape, method, path, asked, content, headers)
            except ExpiredTimestamp:
                if corrected or not signed:
                    raise
                corrected = True
                await self._correct_clock()
                continue
            except Refused as refusal:
                failure: Refused | Unreachable = refusal
                wait_s = refusal.retry_after_s
                # A replay of a fresh nonce was made on the way, by a proxy that tries again.
                if not refusal.retryable and not isinstance(refusal, NonceReplay):
                    raise
            except BadReply:
                raise
            except Unreachable as error:
                failure, wait_s = error, None
            failures += 1
            if not self._backoff.again(failures, retry_after_s=wait_s):
                raise failure
            chance = self.rim.chance()
            await self.rim.sleep(
                self._backoff.delay(failures - 1, chance=chance, retry_after_s=wait_s)
            )

    def _headers(self, method: str, path: str, content: bytes) -> dict[str, str]:
        return signing.headers(
            self.circle.request_key,
            method,
            path,
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

    async def _once(
        self,
        shape: type[_R],
        method: str,
        path: str,
        query: Mapping[str, Any] | None,
        content: bytes,
        headers: dict[str, str],
    ) -> _R:
        url = self.base_url + (path if path == ASSIST else f"/v1{path}")
        if content:
            headers["Content-Type"] = "application/json"
        try:
            async with (
                asyncio.timeout(self._timeout_s),
                self._http.stream(
                    method, url, params=query, content=content or None, headers=headers
                ) as reply,
            ):
                raw = await self._bounded(reply)
        except TimeoutError:
            raise Unreachable(f"{url} has not answered in {self._timeout_s:g} s") from None
        except httpx2.HTTPError as error:
            reason = str(error) or type(error).__name__
            raise Unreachable(f"cannot reach {url}: {reason}") from error
        if not reply.is_success:
            raise _refusal(reply, raw)
        try:
            return msgspec.json.decode(raw, type=shape)
        except msgspec.MsgspecError as error:
            raise BadReply(f"{url} did not answer as Muster does: {error}") from None

    async def _bounded(self, reply: httpx2.Response) -> bytes:
        """Read a body, as long as it stays in bounds."""
        if reply.headers.get("content-encoding", "identity") != "identity":
            raise BadReply(f"{reply.url.host} answered compressed, which was not asked for")
        raw = bytearray()
        async for chunk in reply.aiter_bytes():
            raw += chunk
            if len(raw) > self._max_reply_bytes:
                raise BadReply(f"{reply.url.host} answered more than {self._max_reply_bytes} bytes")
        return bytes(raw)


def service_url(text: str) -> str:
    """Return a base URL without a slash or ``/v1`` at its end.

    Raises `ValueError` with a hint if it is not an http or https URL.
    """
    url = text.strip()
    parts = urlsplit(url)
    if parts.scheme.lower() not in ("http", "https") or not parts.hostname:
        raise ValueError(f"'{text}' is not the URL of a service; it looks like https://host/path")
    if parts.query or parts.fragment or parts.username is not None:
        raise ValueError("a service's URL has no user name, '?' or '#' in it")
    return url.rstrip("/").removesuffix("/v1").rstrip("/")


def _socket_url(base_url: str, relay_url: str) -> str:
    """Return where to open a socket; a token from an https service is not sent in clear."""
    base, relay = urlsplit(base_url), urlsplit(relay_url)
    if relay.scheme not in ("ws", "wss") or not relay.hostname:
        raise BadReply("the service named a relay that is not a WebSocket URL")
    if base.scheme.lower() == "http" or relay.scheme == "wss":
        return relay_url
    if relay.hostname != base.hostname:
        raise BadReply(f"the service named a relay without encryption, {relay.hostname}")
    return relay._replace(scheme="wss").geturl()  # the service stands behind a proxy that decrypts


def _members(record: records.Record) -> dict[str, Any]:
    """Return what is set in a record."""
    members = msgspec.structs.asdict(record)
    return {name: value for name, value in members.items() if value is not None}


def _object(raw: msgspec.Raw) -> Mapping[str, Any]:
    try:
        return msgspec.json.decode(raw, type=dict)
    except msgspec.MsgspecError:
        raise Unreadable("the message is not an object") from None


def _refusal(reply: httpx2.Response, raw: bytes) -> Refused | Unreachable:
    if reply.has_redirect_location:
        target = reply.headers["location"]
        return BadReply(f"{reply.url.host} redirects to {target}; use that as the service's URL")
    try:
        body = msgspec.json.decode(raw, type=dict)
    except msgspec.MsgspecError:
        body = {}
    if "code" not in body:
        hint = "without a word from Muster; is this the service's URL?"
        body = {"message": f"{reply.url.host} answered {reply.status_code} {hint}"}
    retry_after = reply.headers.get("retry-after", "")
    seconds = int(retry_after) if retry_after.isdecimal() and len(retry_after) < 10 else None
    return errors.from_json(body, status=reply.status_code, retry_after_s=seconds)
