"""Links: two nodes joined directly, or by the relay until they are.

    opener                                  other
      | connect (ephemeral key) ---signal---> |
      | <---signal--- connect (ephemeral key) |
      | <======= relay frames, sealed ======> |
      | --- TLS to its endpoint, hello -----> |   the better path takes over

A link has one interface whatever carries it: `send`, ``async for``, `path`. Between programs
the better path is TLS 1.3 with the circle as its own authority; a hello there names the
session, and is believed from the session's other node alone.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Callable
from contextlib import suppress
from typing import TYPE_CHECKING, Any, Literal, Protocol

from capsules.errors import Refused as NotBelieved
from muster import frames, keys, texts
from muster.base64url import encode
from muster.circle.session import TELL_EVERY, Session
from muster.errors import Hinted
from muster.exchange import Closed
from muster.frames import PAYLOAD_BYTES, SESSION_BYTES, Kind, LinkFrame, RelayKeys
from muster.presences import Endpoint

if TYPE_CHECKING:
    from muster.circle.connection import Connection
    from muster.signals import Signal

CONNECT, MEET = "connect", "meet"
"""Kinds of signals that open a link: an app's, or a meeting (`muster.circle.meetings`)."""

ANSWER_S = 15.0
"""How long the other node may take to answer."""

AGAIN_S = 2.0
"""How soon what was not taken is sent again; frames of the relay may be lost."""

MOST_LINKS = 64
MOST_ASKED = 1024
MOST_COME = 1024

PathKind = Literal["tcp", "relay", "none"]
BETTER: tuple[PathKind, ...] = ("tcp", "relay")


class NoLink(Hinted):
    """The other node has not answered, or is not there."""


class Path(Protocol):
    """What carries the frames of a link."""

    kind: PathKind

    async def send(self, frame: LinkFrame) -> None:
        """Send a frame; raises `Closed`."""

    async def aclose(self) -> None:
        """Close it; never raises."""


class Link:
    """A stream of messages to another node, each at most 16,000 bytes, each once and in order."""

    def __init__(self, session_id: bytes, other: bytes) -> None:
        self.session_id, self.other = session_id, other
        self.session = Session()
        self._paths: dict[PathKind, Path] = {}
        self._come: deque[bytes] = deque()
        self._some = asyncio.Event()
        self._room = asyncio.Event()
        self._read = asyncio.Event()
        self._closed = False
        self._sending = asyncio.Lock()
        self.writing = asyncio.Lock()
        """Held by who writes something larger than one message."""
        self._heard = False
        self._task = asyncio.create_task(self._tend())

    @property
    def path(self) -> PathKind:
        """What carries it now; ``none`` while nothing does."""
        return next((kind for kind in BETTER if kind in self._paths), "none")

    async def send(self, data: bytes) -> None:
        """Send a message; waits while too much was not taken. Raises `Closed`, `ValueError`."""
        if len(data) > PAYLOAD_BYTES:
            raise ValueError(f"a message of a link has at most {PAYLOAD_BYTES} bytes")
        while self.session.full and not self._closed:
            self._room.clear()
            await self._room.wait()
        if self._closed:
            raise Closed("the link is closed")
        async with self._sending:
            await self._pass(self.session.put(data))

    async def drained(self) -> None:
        """Wait until the other side has taken everything; raises `Closed`."""
        while self.session.waits:
            if self.closed:
                raise Closed("the link is closed")
            self._room.clear()
            with suppress(TimeoutError):
                async with asyncio.timeout(0.2):
                    await self._room.wait()

    @property
    def has_come(self) -> bool:
        """Whether a message waits to be read."""
        return bool(self._come)

    def __aiter__(self) -> AsyncIterator[bytes]:
        return self

    async def __anext__(self) -> bytes:
        """Wait for the next message; ends when the other side has closed the link."""
        while not self._come:
            if self.session.ended or self._closed:
                raise StopAsyncIteration
            self._some.clear()
            await self._some.wait()
        self._read.set()
        return self._come.popleft()

    async def aclose(self) -> None:
        """End the link, on both sides; what was sent before is still taken, if that is soon."""
        if self._closed:
            return
        if not self.session.ended:
            with suppress(TimeoutError):
                async with asyncio.timeout(1):  # the other side may read nothing any more
                    async with self._sending:
                        await self._pass(self.session.put(b"", kind=Kind.END))
                    while self.session.waits and self._paths:
                        self._room.clear()
                        await self._room.wait()
        self.abort()
        await asyncio.gather(self._task, return_exceptions=True)
        for path in list(self._paths.values()):
            await path.aclose()
        self._paths.clear()

    def abort(self) -> None:
        """Stop, without a word."""
        self._closed = True
        self._task.cancel()
        self._some.set()
        self._room.set()
        self._read.set()

    @property
    def closed(self) -> bool:
        """Whether it is over."""
        return self._closed or self.session.ended

    # --- paths ------------------------------------------------------------------------

    async def attach(self, path: Path) -> None:
        """Use a path, if it is the best; what was not taken goes out on it again."""
        before = self._paths.get(path.kind)
        self._paths[path.kind] = path
        if before is not None and before is not path:
            await before.aclose()
        if self.path == path.kind:
            async with self._sending:
                for frame in [self.session.took(), *self.session.again()]:
                    await self._pass(frame)

    def detach(self, path: Path) -> None:
        """Use a path no longer: it has ended."""
        if self._paths.get(path.kind) is path:
            del self._paths[path.kind]
            self._heard = False

    def hear(self, frame: LinkFrame) -> None:
        """Take a frame from any path."""
        self._heard = True
        if len(self._come) >= MOST_COME and frame.kind is Kind.DATA:
            return  # nobody reads: it is not taken, and sent again
        found = self.session.hear(frame)
        if found is not None:
            self._come.append(found)
        self._some.set()
        self._room.set()

    async def has_room(self) -> None:
        """Wait while nobody reads what has come: a direct path makes the sender wait with it."""
        while len(self._come) >= MOST_COME and not self._closed:
            self._read.clear()
            await self._read.wait()

    async def _pass(self, frame: LinkFrame) -> None:
        """Send by the best path; without one it waits for the next."""
        while (kind := self.path) != "none":
            path = self._paths[kind]
            try:
                await path.send(frame)
            except Closed:
                if kind == "relay":
                    return  # the socket is opened again soon, and the frame sent once more
                self.detach(path)
            else:
                return

    async def _tend(self) -> None:
        """Tell the other side what was taken, and send again what it has not."""
        quiet_s = 0.0
        while True:
            await asyncio.sleep(0.1)
            untold = self.session.untold
            if untold >= TELL_EVERY or (untold and quiet_s >= 0.1):
                async with self._sending:
                    await self._pass(self.session.took())
            quiet_s += 0.1
            if self._heard:
                self._heard, quiet_s = False, 0.1
            elif self.session.waits and self.path == "relay" and quiet_s >= AGAIN_S:
                quiet_s = 0.0
                async with self._sending:
                    for frame in self.session.again():
                        await self._pass(frame)


class RelayPath:
    """Frames by a service's sockets, sealed under keys of the session."""

    kind: PathKind = "relay"

    def __init__(self, connection: Connection, other: bytes, send: bytes, hear: bytes) -> None:
        self._connection, self._other = connection, other
        self._send_key, self._hear_key = send, hear
        self._sent, self._heard = 0, 0

    async def send(self, frame: LinkFrame) -> None:
        """Send a frame; each has a counter of its own, repeats too."""
        self._sent += 1
        payload = frames.close(self._send_key, self._sent, frame.raw)
        await self._connection.frame(self._other, payload)

    def open(self, payload: bytes) -> LinkFrame | None:
        """Open what came, if it is of this session and newer than what came before."""
        try:
            counter, raw = frames.open_closed(self._hear_key, payload)
            frame = LinkFrame.from_bytes(raw)
        except NotBelieved:
            return None
        if counter <= self._heard:
            return None
        self._heard = counter
        return frame

    async def aclose(self) -> None:
        """There is nothing to close: the socket is the node's."""


class _Opening:
    """A link that this node has asked for, and that the other has not answered yet."""

    def __init__(self, purpose: str, session: bytes, private: bytes, text: bytes) -> None:
        self.purpose = purpose
        self.session, self.private, self.text = session, private, text
        self.done: asyncio.Future[Link] = asyncio.get_running_loop().create_future()


class Links:
    """All links of a connection."""

    def __init__(self, connection: Connection, linked: Callable[[Link], None]) -> None:
        self._connection, self._linked = connection, linked
        self._links: dict[bytes, Link] = {}
        self._relays: dict[bytes, RelayPath] = {}
        self._openings: dict[tuple[str, bytes], _Opening] = {}
        self._tasks: set[asyncio.Task[Any]] = set()
        self._asked_ms: dict[tuple[str, bytes], int] = {}
        self.dial: Callable[[Link, Endpoint], Any] | None = None
        """What opens the better path, where this node can."""
        self.meet: Callable[[Link], None] | None = None
        """What holds a meeting that another node has opened."""

    async def open(self, other: bytes, *, purpose: str = CONNECT) -> Link:
        """Open a link to a node; raises `NoLink`."""
        opening = self._openings.get((purpose, other))
        if opening is None:
            opening = await self._ask(other, purpose)
        try:
            async with asyncio.timeout(ANSWER_S):
                link = await asyncio.shield(opening.done)
        except TimeoutError:
            raise NoLink(
                "the other node has not answered", "is it there? 'muster peers' shows who is"
            ) from None
        finally:
            self._openings.pop((purpose, other), None)
        if purpose == CONNECT:
            self._improve(link)
        return link

    def find(self, session: bytes, other: bytes) -> Link | None:
        """Return the link of a session, for its other node alone."""
        link = self._links.get(session)
        return link if link is not None and link.other == other and not link.closed else None

    async def aclose(self) -> None:
        """End all links."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await asyncio.gather(*(link.aclose() for link in self._links.values()))
        self._links.clear()

    async def _ask(self, other: bytes, purpose: str) -> _Opening:
        entropy = self._connection.rim.entropy
        session, private = entropy(SESSION_BYTES), entropy(keys.KEY_BYTES)
        body = {"key": encode(keys.x25519_public(private))}
        text = await self._connection.signal(other, purpose, body, session=session)
        opening = _Opening(purpose, session, private, text)
        self._openings[purpose, other] = opening
        return opening

    def signalled(self, signal: Signal, text: bytes) -> bool:
        """Take a signal, if it is about links."""
        if signal.kind not in (CONNECT, MEET):
            return False
        try:
            public = texts.raw(signal.body, "key", keys.KEY_BYTES)
        except NotBelieved:
            return True
        opening = self._openings.get((signal.kind, signal.node_id))
        if opening is not None and opening.session == signal.session:
            if not opening.done.done():
                self._answered(opening, signal, text, public)
        elif signal.session not in self._links:
            if opening is not None and self._connection.node.id < signal.node_id:
                return True  # both have opened one: the lower node_id's stands
            if not self._is_newest(signal):
                return True  # of before, when this node was another process perhaps
            self._start(self._accept(signal, text, public, opening))
        return True

    def _is_newest(self, signal: Signal) -> bool:
        """Say whether a node has opened nothing later: signals wait, and come in any order."""
        before = self._asked_ms.pop((signal.kind, signal.node_id), -1)
        self._asked_ms[signal.kind, signal.node_id] = max(before, signal.at_ms)
        if len(self._asked_ms) > MOST_ASKED:
            del self._asked_ms[next(iter(self._asked_ms))]
        return signal.at_ms > before

    def _answered(self, opening: _Opening, signal: Signal, text: bytes, public: bytes) -> None:
        try:
            made = RelayKeys.of(opening.private, public, opener_text=opening.text, other_text=text)
        except NotBelieved:
            return
        link = self._made(signal, made.opener, made.other)
        opening.done.set_result(link)

    async def _accept(
        self, signal: Signal, text: bytes, public: bytes, opening: _Opening | None
    ) -> None:
        if len(self._links) >= MOST_LINKS:
            return
        private = self._connection.rim.entropy(keys.KEY_BYTES)
        body = {"key": encode(keys.x25519_public(private))}
        answer = await self._connection.signal(
            signal.node_id, signal.kind, body, session=signal.session
        )
        try:
            made = RelayKeys.of(private, public, opener_text=text, other_text=answer)
        except NotBelieved:
            return
        link = self._made(signal, made.other, made.opener)
        if opening is not None and not opening.done.done():
            opening.done.set_result(link)
        elif signal.kind == CONNECT:
            self._linked(link)
        elif self.meet is not None:
            self.meet(link)

    def _made(self, signal: Signal, send: bytes, hear: bytes) -> Link:
        self._forget_closed()
        link = Link(signal.session, signal.node_id)
        relay = RelayPath(self._connection, signal.node_id, send, hear)
        self._links[signal.session], self._relays[signal.session] = link, relay
        self._start(link.attach(relay))
        return link

    def _forget_closed(self) -> None:
        for session, link in list(self._links.items()):
            if link.closed:
                del self._links[session]
                self._relays.pop(session, None)

    def passed(self, sender: bytes, payload: bytes) -> None:
        """Take a frame that came by the relay."""
        for session, link in self._links.items():
            if link.other == sender and session in self._relays:
                frame = self._relays[session].open(payload)
                if frame is not None:
                    link.hear(frame)
                    return

    def _improve(self, link: Link) -> None:
        """Open a better path, where the other node says that there is one."""
        if self.dial is None:
            return
        peer = next((one for one in self._connection.peers if one.node_id == link.other), None)
        for endpoint in peer.endpoints if peer else ():
            if endpoint.transport == "tcp":
                self._start(self.dial(link, endpoint))

    def _start(self, work: Any) -> None:
        task = asyncio.ensure_future(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
