"""Direct links over TCP, and what nodes tell each other on them where no service can.

TLS 1.3, both sides proved, the circle as its only authority (`muster.certificates`). The first
frame is a hello: a session and the sender's presence. A hello of a session that is known takes
that link over; one of a fresh session makes a *meeting*: both sides tell up to where they have
each author, and leave each other what is missing, then what is new.
"""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Iterable
from contextlib import suppress
from typing import TYPE_CHECKING, Any

import msgspec

from capsules.errors import Refused as NotBelieved
from muster import base64url, certificates, network
from muster.backoff import within
from muster.base64url import encode
from muster.circle.file import Kept
from muster.circle.links import Link, PathKind
from muster.exchange import Closed
from muster.frames import PAYLOAD_BYTES, SESSION_BYTES, Kind, LinkFrame
from muster.presences import Endpoint, Presence
from muster.seals import Said

if TYPE_CHECKING:
    from muster.circle.connection import Connection

HELLO_S = 10.0
"""How long the other side may take to prove itself and to say hello."""

DIAL_AGAIN_S = 20.0
SOON_S = 1.0
"""How soon those are sought who have told of a new place, or who were met until now."""

MOST_CONNECTIONS = 64
MOST_FRAME = 17 + PAYLOAD_BYTES
MOST_MESSAGE = 1024 * 1024
TIPS_PAGE = 500
MOST_TIPS = 10_000
MOST_KNOWN = 16
"""How many members are sought at a time: one member could name any number of places."""
_HEAD = 4


class TcpPath:
    """Link frames over TLS, each after its length."""

    kind: PathKind = "tcp"

    def __init__(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, other: bytes
    ) -> None:
        self._reader, self._writer, self.other = reader, writer, other
        self._socket = writer.get_extra_info("socket")
        network.notice_end(self._socket)

    def check_place(self) -> None:
        """End it if this machine is elsewhere now."""
        if network.has_moved(self._socket):
            self._writer.transport.abort()

    async def send(self, frame: LinkFrame) -> None:
        """Send a frame; raises `Closed`."""
        raw = frame.raw
        try:
            self._writer.write(len(raw).to_bytes(_HEAD, "big") + raw)
            await self._writer.drain()
        except (OSError, RuntimeError) as error:
            raise Closed(str(error)) from None

    async def receive(self) -> LinkFrame:
        """Wait for the next frame; raises `Closed`."""
        try:
            size = int.from_bytes(await self._reader.readexactly(_HEAD), "big")
            if size > MOST_FRAME:
                raise Closed("a frame is larger than any")
            return LinkFrame.from_bytes(await self._reader.readexactly(size))
        except (asyncio.IncompleteReadError, OSError) as error:
            raise Closed(str(error)) from None
        except NotBelieved as error:
            raise Closed(f"this is no link: {error}") from None

    async def aclose(self) -> None:
        """Close the connection; never raises."""
        self._writer.close()
        with suppress(OSError, ssl.SSLError, TimeoutError):
            async with asyncio.timeout(1):
                await self._writer.wait_closed()


class Direct:
    """The TCP side of a connection: a port, the ways to others, and the meetings there."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._server: asyncio.Server | None = None
        self._open: set[asyncio.Task[Any]] = set()
        self._meetings: dict[bytes, Link] = {}
        self._paths: set[TcpPath] = set()
        self._dialled_by_us: set[bytes] = set()
        self._soon = asyncio.Event()
        self._place: tuple[str, int] | None = None
        self._epoch = -1
        self.passed: set[bytes] = set()
        """The records that a node has taken directly."""

    @property
    def met(self) -> frozenset[bytes]:
        """The nodes that are met directly now."""
        return frozenset(self._meetings)

    async def listen(self, host: str, port: int) -> int:
        """Be reached at a port of this machine; 0 takes a free one. Returns the port."""
        await self.close_port()
        self._server = await asyncio.start_server(
            self._come,
            host,
            port,
            ssl=self._tls(server=True),
            ssl_handshake_timeout=HELLO_S,
            limit=MOST_FRAME * 2,
        )
        port = int(self._server.sockets[0].getsockname()[1])
        self._place, self._epoch = (host, port), self._connection.circle.epoch.number
        return port

    async def refresh(self) -> None:
        """Speak for the epoch that is: others cannot be met in an old one."""
        if self._place is not None and self._epoch != self._connection.circle.epoch.number:
            await self.listen(*self._place)

    async def close_port(self) -> None:
        """Be reached no longer."""
        if self._server is not None:
            self._server.close()
            self._server = None

    async def aclose(self) -> None:
        """Close the port and all meetings."""
        await self.close_port()
        for link in list(self._meetings.values()):
            link.abort()
        for task in list(self._open):
            task.cancel()
        await asyncio.gather(*self._open, return_exceptions=True)

    # --- ways to others ---------------------------------------------------------------

    async def seek(self) -> None:
        """Meet whoever can be reached: the invite's peers, and members where they were last."""
        while True:
            for host, port, node in self._known():
                if node is None or node not in self._meetings:
                    self._start(self._meet(host, port, node))
            rim = self._connection.rim
            await rim.sleep(SOON_S)
            await within(self._soon.wait(), DIAL_AGAIN_S - SOON_S, rim)
            self._soon.clear()

    def seek_soon(self) -> None:
        """Look again for whoever can be reached: somebody is elsewhere now."""
        self._soon.set()

    def check_place(self) -> None:
        """End all paths if this machine is elsewhere now."""
        for path in list(self._paths):
            path.check_place()

    def _known(self) -> Iterable[tuple[str, int, bytes | None]]:
        circle, mine = self._connection.circle, self._connection.node.id
        epoch = circle.epoch.number
        found: dict[tuple[str, int], bytes | None] = {}
        if not self._meetings:
            for text in circle.peers:
                host, _, port = text.rpartition(":")
                found[host.strip("[]"), int(port)] = None
        for member in circle.file.members():
            if len(found) >= MOST_KNOWN:
                break
            if member.epoch != epoch or member.node_id == mine:
                continue
            for one in member.endpoints:
                if one.transport == "tcp":
                    found[one.host, one.port] = member.node_id
        return [(host, port, node) for (host, port), node in found.items()]

    async def _meet(self, host: str, port: int, node: bytes | None) -> None:
        """Make a meeting with a node, or with whoever of the circle is there."""
        with suppress(Closed, OSError, TimeoutError, NotBelieved):
            path = await self._dialled(host, port, node)
            if path.other in self._meetings or path.other == self._connection.node.id:
                await path.aclose()
                return
            session = self._connection.rim.entropy(SESSION_BYTES)
            await path.send(self._hello(session))
            await self._hold(path, Link(session, path.other), dialled=True)

    async def improve(self, link: Link, endpoint: Endpoint) -> None:
        """Open a direct path for a link that goes by the relay."""
        with suppress(Closed, OSError, TimeoutError, NotBelieved):
            path = await self._dialled(endpoint.host, endpoint.port, link.other)
            await path.send(self._hello(link.session_id))
            await link.attach(path)
            await self._carry(path, link)

    async def _dialled(self, host: str, port: int, node: bytes | None) -> TcpPath:
        """Connect; go on only with the node that is meant. Raises `Closed`, `OSError`."""
        async with asyncio.timeout(HELLO_S):
            reader, writer = await asyncio.open_connection(
                host,
                port,
                ssl=self._tls(server=False),
                server_hostname="",
                ssl_handshake_timeout=HELLO_S,
                limit=MOST_FRAME * 2,
            )
        path = TcpPath(reader, writer, _proved(writer))
        if node is not None and path.other != node:
            await path.aclose()
            raise Closed("another node answers there")
        return path

    # --- who comes --------------------------------------------------------------------

    async def _come(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        if len(self._open) >= MOST_CONNECTIONS or task is None:
            writer.close()
            return
        self._open.add(task)
        try:
            path = TcpPath(reader, writer, _proved(writer))
            async with asyncio.timeout(HELLO_S):
                hello = await path.receive()
            session = self._greeted(hello, path.other)
            await path.send(self._hello(session))
            link = self._connection.links.find(session, path.other)
            if link is not None:
                await link.attach(path)
                await self._carry(path, link)
            elif not self._gives_way(path.other):
                await path.aclose()
            else:
                await self._hold(path, Link(session, path.other))
        except (Closed, OSError, TimeoutError, NotBelieved):
            writer.close()
        finally:
            self._open.discard(task)

    def _gives_way(self, other: bytes) -> bool:
        """Say whether a fresh hello of a node is to be held, though it is met already.

        Who says hello has no meeting: it has moved, and ours leads to where it was. If both have
        dialled at once, the meeting stands that the lower node_id has dialled.
        """
        dialled = other in self._meetings and other in self._dialled_by_us
        return not (dialled and self._connection.node.id < other)

    def _hello(self, session: bytes) -> LinkFrame:
        node = self._connection.node
        said = self._connection.presence(node).said(node)
        return LinkFrame(Kind.HELLO, 0, 0, session + said.signature + said.text)

    def _greeted(self, hello: LinkFrame, other: bytes) -> bytes:
        """Read a hello: its session; its presence, if it is the other node's own."""
        if hello.kind is not Kind.HELLO or len(hello.payload) < SESSION_BYTES + 64:
            raise Closed("it does not say hello")
        session, rest = hello.payload[:SESSION_BYTES], hello.payload[SESSION_BYTES:]
        epoch = self._connection.circle.epoch
        found = Presence.from_said(epoch, Said(rest[64:], rest[:64]))
        if found.node_id != other:
            raise Closed("the hello is another node's")
        self._connection.believe(found, epoch)
        return session

    def _tls(self, *, server: bool) -> ssl.SSLContext:
        now = int(self._connection.now_ms() / 1000)
        return certificates.context(self._connection.node, server=server, now=now)

    # --- what a path carries ------------------------------------------------------------

    async def _carry(self, path: TcpPath, link: Link) -> None:
        """Give a link what comes by a path, until that ends."""
        self._paths.add(path)
        try:
            while not link.closed:
                frame = await path.receive()
                if frame.kind is Kind.HELLO:
                    self._greeted(frame, path.other)
                else:
                    await link.has_room()
                    link.hear(frame)
        finally:
            self._paths.discard(path)
            link.detach(path)
            await path.aclose()

    async def _hold(self, path: TcpPath, link: Link, *, dialled: bool = False) -> None:
        """Hold a meeting, until the path ends; one that was held before ends."""
        if (before := self._meetings.get(path.other)) is not None:
            self._start(before.aclose())
        self._meetings[path.other] = link
        (self._dialled_by_us.add if dialled else self._dialled_by_us.discard)(path.other)
        self._connection.direct_changed()
        await link.attach(path)
        meeting = asyncio.create_task(_Meeting(self._connection, link).run())
        try:
            await self._carry(path, link)
        finally:
            if self._meetings.get(path.other) is link:
                del self._meetings[path.other]
                self.seek_soon()
            meeting.cancel()
            link.abort()
            await asyncio.gather(meeting, return_exceptions=True)
            self._connection.direct_changed()

    def tell(self, kept: Kept, source: bytes = b"") -> None:
        """Tell all that are met of a record, but whom it came from."""
        for node, link in self._meetings.items():
            if node != source:
                self._start(self.leave(link, [kept]))

    async def leave(self, link: Link, found: Iterable[Kept]) -> None:
        """Leave records at a node; when it has taken them, they are passed. Raises `Closed`."""
        hashes = []
        for kept in found:
            await _write(link, _record(kept.said, kept.record.epoch))
            hashes.append(kept.hash)
        await link.drained()
        self.passed.update(hashes)
        self._connection.left()

    def _start(self, work: Any) -> None:
        task = asyncio.ensure_future(_quiet(work))
        self._open.add(task)
        task.add_done_callback(self._open.discard)


class Tips(msgspec.Struct, frozen=True, tag_field="t", tag="TIPS"):
    """Up to where a node has authors: member key in b64, number, hash in hex."""

    tips: dict[str, tuple[int, str]]
    last: bool


class Told(msgspec.Struct, frozen=True, tag_field="t", tag="RECORD"):
    """One record, as it was signed."""

    epoch: int
    text: str
    signature: str


_DECODER: msgspec.json.Decoder[Tips | Told] = msgspec.json.Decoder(Tips | Told)


class _Meeting:
    """What two nodes tell each other: up to where they are, what is missing, what is new."""

    def __init__(self, connection: Connection, link: Link) -> None:
        self._connection, self._link = connection, link
        self._theirs: dict[bytes, tuple[int, bytes]] = {}
        self._buffer = bytearray()
        self._leaving: asyncio.Task[None] | None = None

    async def run(self) -> None:
        """Tell our tips; take what comes; leave what the other lacks."""
        tips = list(self._connection.circle.file.tips().items())
        for at in range(0, max(len(tips), 1), TIPS_PAGE):
            page = {
                encode(author): (seq, hashed.hex())
                for author, (seq, hashed) in tips[at : at + TIPS_PAGE]
            }
            last = at + TIPS_PAGE >= len(tips)
            await _write(self._link, msgspec.json.encode(Tips(page, last)))
        try:
            async for data in self._link:
                for message in self._whole(data):
                    await self._take(message)
        finally:
            if self._leaving is not None:
                self._leaving.cancel()

    def _whole(self, data: bytes) -> Iterable[bytes]:
        self._buffer += data
        while len(self._buffer) >= _HEAD:
            size = int.from_bytes(self._buffer[:_HEAD], "big")
            if size > MOST_MESSAGE:
                self._link.abort()
                return
            if len(self._buffer) < _HEAD + size:
                return
            yield bytes(self._buffer[_HEAD : _HEAD + size])
            del self._buffer[: _HEAD + size]

    async def _take(self, raw: bytes) -> None:
        try:
            message = _DECODER.decode(raw)
            if isinstance(message, Told):
                said = Said(base64url.decode(message.text), base64url.decode(message.signature))
                self._connection.take_direct(said, message.epoch, self._link.other)
                return
            if self._leaving is not None:
                return  # it was told before: once is enough
            for author, (seq, hashed) in message.tips.items():
                self._theirs[base64url.decode(author)] = (seq, bytes.fromhex(hashed))
        except (msgspec.MsgspecError, NotBelieved, ValueError):
            return  # of a newer version, or of a member who plays
        if message.last or len(self._theirs) > MOST_TIPS:
            # beside reading: two that write and do not read would wait for each other for ever
            self._leaving = asyncio.create_task(_quiet(self._leave_missing()))

    async def _leave_missing(self) -> None:
        file = self._connection.circle.file
        for author, (seq, hashed) in file.tips().items():
            theirs, at = self._theirs.get(author, (0, b""))
            first = seq if theirs == seq and at != hashed else theirs + 1
            found = file.records(author=author, seqs=(first, seq))
            await self._connection.leave_directly(self._link, found)


def _record(said: Said, epoch: int) -> bytes:
    return msgspec.json.encode(Told(epoch, encode(said.text), encode(said.signature)))


async def _write(link: Link, message: bytes) -> None:
    """Send a message of any size: its length, then as many pieces as it takes."""
    raw = len(message).to_bytes(_HEAD, "big") + message
    async with link.writing:
        for at in range(0, len(raw), PAYLOAD_BYTES):
            await link.send(raw[at : at + PAYLOAD_BYTES])


async def _quiet(work: Any) -> None:
    with suppress(Closed):
        await work


def _proved(writer: asyncio.StreamWriter) -> bytes:
    """Return whose certificate the other side has proved."""
    session = writer.get_extra_info("ssl_object")
    return certificates.peer_node(session.getpeercert(binary_form=True))
