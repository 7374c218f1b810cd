"""One service, as a node calls it: every call is signed, and every answer is checked.

An answer without a good signature is a broken path, never the service's word: it is raised as
`Unproved`, which passes. What the service does refuse is raised as it was refused.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping
from contextlib import suppress
from typing import TYPE_CHECKING, Any

import httpx2
import msgspec

from capsules.errors import Refused as NotBelieved
from muster import answers, base64url, calls, exchange, keys, network, shapes
from muster.backoff import Rim
from muster.calls import Answer, Authorization, Credential, Proof
from muster.errors import ExpiredTimestamp, Refused
from muster.exchange import BadReply, Closed, Unreachable
from muster.invites import ServiceAddress
from muster.shapes import ServiceInfo, Synced

if TYPE_CHECKING:
    from websockets.asyncio.client import ClientConnection

DAY_MS = 24 * 3600 * 1000
VOUCHED_MS = 7 * DAY_MS
"""How long a credential lasts that a node makes for itself."""

UP_BYTES = 32 * 1024
"""How large a frame may be that a node sends; what is larger goes by HTTP."""

ANSWER_S = 15.0
MOST_WAITING = 1024

_FRAMES: msgspec.json.Decoder[shapes.FromService] = msgspec.json.Decoder(shapes.FromService)


class Unproved(Unreachable):
    """An answer without the service's signature; *refusal* is what it said, for people."""

    def __init__(self, refusal: Refused) -> None:
        super().__init__(refusal.message, refusal.hint)
        self.refusal = refusal


class Forged(BadReply):
    """An answer with a signature that is not the service's, or not over this answer."""


class Service:
    """The calls of one node at one service."""

    def __init__(
        self,
        address: ServiceAddress,
        node: keys.Node,
        *,
        rim: Rim | None = None,
        transport: httpx2.AsyncBaseTransport | None = None,
    ) -> None:
        self.address, self.node = address, node
        self.offset_ms = 0
        self.believed_at_ms = 0
        """The newest time that a good answer told."""
        self._rim = rim or Rim()
        self._exchange = exchange.Exchange(address.url, transport=transport)
        self._credential: Credential | None = None
        self._last_ms = 0

    @property
    def id(self) -> bytes:
        """The service's name."""
        return self.address.id

    async def aclose(self) -> None:
        """Close the connections."""
        await self._exchange.http.aclose()

    def now_ms(self) -> int:
        """Return the time as the service sees it, as far as it was heard of."""
        return int(self._rim.now() * 1000) + self.offset_ms

    def later_than(self, at_ms: int) -> None:
        """Sign what comes next later than this, if that is not of another day."""
        if at_ms < self.now_ms() + DAY_MS:
            self._last_ms = max(self._last_ms, at_ms)

    # --- calls --------------------------------------------------------------------------

    async def info(self) -> ServiceInfo:
        """Ask what the service is, and where its sockets are."""
        told: ServiceInfo = await self._call("GET", "/v2/info", calls.INFO, b"", ServiceInfo)
        return told

    async def sync(self, asked: Mapping[str, Any]) -> Synced:
        """Make a sync by HTTP."""
        body = msgspec.json.encode(asked)
        synced: Synced = await self._call("POST", "/v2/sync", calls.SYNC, body, Synced)
        return synced

    async def _call(self, method: str, path: str, call: str, body: bytes, answer: Any) -> Any:
        """Make a call; once more where the service has told its time."""
        try:
            return await self._once(method, path, call, body, answer)
        except ExpiredTimestamp:
            return await self._once(method, path, call, body, answer)

    async def _once(self, method: str, path: str, call: str, body: bytes, answer: Any) -> Any:
        shown = self.authorize(call, body)
        headers = {"Authorization": shown.header}
        if body:
            headers["Content-Type"] = "application/json"
        url = self.address.url + path
        reply, raw = await self._exchange.send(method, url, {}, body, headers)
        told = reply.headers.get(calls.ANSWER)
        if told is None:
            found = exchange.refusal(reply, raw)
            raise Unproved(found) if isinstance(found, Refused) else found
        self.believe(told, shown.proof, status=reply.status_code, body=raw)
        return self.read(reply.status_code, raw, answer, retry=reply.headers.get("retry-after", ""))

    def authorize(self, call: str, body: bytes) -> Authorization:
        """Sign a call; no two are signed at the same time."""
        now_ms = max(self.now_ms(), self._last_ms + 1)
        self._last_ms = now_ms
        credential = self._vouched(now_ms)
        proof = Proof.make(
            self.node.key, credential, call=call, service=self.id, body=body, at_ms=now_ms
        )
        code = self.address.code
        tag = calls.access_tag(code, self.id, credential) if code else b""
        return Authorization(credential.raw, proof, tag)

    def _vouched(self, now_ms: int) -> Credential:
        made = self._credential
        if made is None or not now_ms + DAY_MS < made.expires_ms <= now_ms + calls.CREDENTIAL_MS:
            made = Credential.make(
                self.node.epoch.circle_key, self.node.public, expires_ms=now_ms + VOUCHED_MS
            )
            self._credential = made
        return made

    def believe(self, told: str, proof: Proof, *, status: int, body: bytes) -> None:
        """Check the signature of an answer; raises `Forged`."""
        try:
            answer = Answer.parse(told)
            answer.check(self.id, proof.raw, status=status, body=body)
        except NotBelieved as error:
            raise Forged(f"the answer of {self.address.url} is not believed: {error}") from None
        self.believed_at_ms = answer.at_ms

    def read(self, status: int, raw: bytes, answer: Any, *, retry: str = "") -> Any:
        """Read an answer that was believed; raises what the service refuses."""
        if status != 200:
            found = answers.refusal(status, raw, host=self.address.url, retry_after=retry)
            if isinstance(found, ExpiredTimestamp):
                self._correct_clock(found)
            raise found
        try:
            return msgspec.json.decode(raw, type=answer)
        except (msgspec.MsgspecError, RecursionError) as error:
            raise BadReply(f"{self.address.url} did not answer as Muster does: {error}") from None

    def _correct_clock(self, refused: ExpiredTimestamp) -> None:
        """Take the service's time, by a day at most: it is for its calls alone."""
        offset_ms = self.believed_at_ms - int(self._rim.now() * 1000)
        if abs(offset_ms) > DAY_MS:
            raise ExpiredTimestamp(
                f"the clock of {self.address.url} is {abs(offset_ms) / DAY_MS:.1f} days from "
                "this machine's",
                "set this machine's clock, or the service's",
            ) from refused
        self.offset_ms, self._last_ms = offset_ms, 0

    async def open(self, url: str) -> ServiceSocket:
        """Open the node's socket at the URL that `info` names."""
        shown = self.authorize(calls.OPEN, b"")
        connection = await exchange.open_websocket(
            exchange.websocket_url(self.address.url, url),
            authorization=shown.header,
            max_size=2 * shapes.ANSWER_BYTES,
        )
        return ServiceSocket(self, connection)


class ServiceSocket:
    """A node's open socket: syncs and frames go out, events and frames come in."""

    def __init__(self, service: Service, connection: ClientConnection) -> None:
        self._service, self._connection = service, connection
        self._numbers = 0
        self._waiting: dict[int, asyncio.Future[shapes.FromService]] = {}
        self._came: asyncio.Queue[shapes.FromService | None] = asyncio.Queue(MOST_WAITING)
        self.lost = False
        """Whether so much has come at once that not all of it was heard."""
        self._one_at_a_time = asyncio.Lock()
        self._hearing = asyncio.create_task(self._hear())

    async def aclose(self) -> None:
        """Close the socket."""
        self._hearing.cancel()
        with suppress(asyncio.CancelledError):
            await self._hearing
        await self._connection.close()

    def check_place(self) -> None:
        """End the socket if this machine is elsewhere now: nobody else would say so."""
        transport = self._connection.transport
        if network.has_moved(transport.get_extra_info("socket")):
            transport.abort()

    def __aiter__(self) -> AsyncIterator[shapes.FromService]:
        return self

    async def __anext__(self) -> shapes.FromService:
        """Wait for what the service says by itself; ends when the socket has."""
        frame = await self._came.get()
        if frame is None:
            self._came.put_nowait(None)
            raise StopAsyncIteration
        return frame

    async def sync(self, asked: Mapping[str, Any]) -> Synced | None:
        """Make a sync as a frame; None if it is quiet and nothing was refused so far.

        Raises `Closed` and what the service refuses. What is too large is the caller's to
        send by HTTP: see `fits`.
        """
        async with self._one_at_a_time:
            body = msgspec.json.encode(asked)
            shown = self._service.authorize(calls.FRAME, body)
            self._numbers += 1
            frame = shapes.SyncFrame(
                n=self._numbers, proof=base64url.encode(shown.proof.raw), body=body.decode()
            )
            if asked.get("quiet"):
                await self._send(frame)
                return None
            told = await self._ask(frame)
            if isinstance(told, shapes.ErrorFrame):
                raise _refused(told)
            if not isinstance(told, shapes.SyncedFrame):
                raise BadReply("the service answered a sync with something else")
            raw = told.body.encode()
            if not told.answer:
                found = answers.refusal(told.status, raw, host=self._service.address.url)
                raise Unproved(found)
            self._service.believe(told.answer, shown.proof, status=told.status, body=raw)
            read: Synced = self._service.read(told.status, raw, Synced)
            return read

    async def frame(self, to: bytes, payload: bytes) -> None:
        """Pass bytes to another node's socket; raises `Closed`, or a `Refused` if it has none."""
        self._numbers += 1
        told = await self._ask(
            shapes.NodeFrame(n=self._numbers, to=to.hex(), payload=base64url.encode(payload))
        )
        if isinstance(told, shapes.ErrorFrame):
            raise _refused(told)

    async def _ask(self, frame: shapes.SyncFrame | shapes.NodeFrame) -> shapes.FromService:
        future: asyncio.Future[shapes.FromService] = asyncio.get_running_loop().create_future()
        self._waiting[frame.n] = future
        try:
            await self._send(frame)
            async with asyncio.timeout(ANSWER_S):
                return await future
        except TimeoutError:
            raise Closed(f"the service has not answered in {ANSWER_S:g} s") from None
        finally:
            del self._waiting[frame.n]

    async def _send(self, frame: shapes.FromNode) -> None:
        from websockets.exceptions import ConnectionClosed

        try:
            await self._connection.send(msgspec.json.encode(frame).decode())
        except ConnectionClosed as closed:
            raise Closed(str(closed)) from None

    async def _hear(self) -> None:
        from websockets.exceptions import ConnectionClosed

        try:
            while True:
                raw = await self._connection.recv()
                try:
                    frame = _FRAMES.decode(raw)
                except (msgspec.MsgspecError, RecursionError):
                    continue  # of a newer version, or not for us
                waiting = self._waiting.get(getattr(frame, "n", 0))
                if waiting is None:
                    self._push(frame)
                elif not waiting.done():
                    waiting.set_result(frame)
        except ConnectionClosed:
            pass
        finally:
            for future in self._waiting.values():
                if not future.done():
                    future.set_exception(Closed("the socket is closed"))
                    future.exception()  # whoever waited may have gone
            if self._came.full():
                self._came.get_nowait()
            self._came.put_nowait(None)

    def _push(self, frame: shapes.FromService) -> None:
        """Let what is oldest go where nobody keeps up: an answer that is waited for comes after."""
        if self._came.full():
            self._came.get_nowait()
            self.lost = True
        self._came.put_nowait(frame)


def fits(asked: Mapping[str, Any]) -> bool:
    """Say whether a sync can go as a frame."""
    return len(msgspec.json.encode(asked)) * 9 // 8 + 512 <= UP_BYTES


def _refused(frame: shapes.ErrorFrame) -> Refused:
    from muster import errors

    told = {"code": frame.code, "message": frame.message, "retryable": frame.retryable}
    return errors.from_json(told, status=400)
