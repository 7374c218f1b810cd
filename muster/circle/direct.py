"""Direct links over TCP: a port of this node's, and the ways to others.

TLS 1.3, both sides proved, the circle as its only authority (`muster.certificates`). The first
frame is a hello: a session and the sender's presence. A hello of a session that is known takes
that link over; one of a fresh session makes a meeting (`muster.circle.meetings`).

Whom a node meets: the invite's peers and where members were last, while it meets nobody; its
anchor; and others that are there. Who was not reached three times is met over the relay.
"""

from __future__ import annotations

import asyncio
import socket
import ssl
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from capsules.errors import Refused as NotBelieved
from muster import certificates, network, places
from muster.circle import anchors
from muster.circle.anchors import Anchor
from muster.circle.links import MEET, Link, NoLink, PathKind
from muster.exchange import Closed
from muster.frames import PAYLOAD_BYTES, SESSION_BYTES, Kind, LinkFrame
from muster.presences import MOST_ENDPOINTS, Endpoint, Presence
from muster.seals import Said

if TYPE_CHECKING:
    from muster.circle.connection import Connection

HELLO_S = 10.0
"""How long the other side may take to prove itself and to say hello."""

LOOK_S = 1.0
"""How often a node sees whom it should meet."""

ADDRESSES_S = 15.0
"""How often it looks which addresses it has."""

FIRST_AGAIN_S, LAST_AGAIN_S = 2.0, 60.0
"""How long it waits before it dials a place again: twice as long each time."""

RELAY_FIRST_S, RELAY_AGAIN_S, RELAY_SELDOM_S = 5.0, 30.0, 3600.0
"""The same over the relay; the first is how long the higher node id leaves it to the lower."""

TRIES = 3
"""So often a node was dialled in vain before it is met over the relay."""

MOST_DIALLED = 8
"""How many meetings a node seeks at a time; more may come to it."""

MOST_BY_RELAY = 4
MOST_CONNECTIONS, MOST_FROM_ONE = 64, 16
"""How many connections are open at a time, and how many from one address."""

MOST_FRAME = 17 + PAYLOAD_BYTES
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
        peer = writer.get_extra_info("peername")
        self.host = str(peer[0]) if peer else ""
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
                await asyncio.shield(self._writer.wait_closed())  # others may wait for it too


@dataclass(slots=True)
class _Tried:
    """How often a place was dialled in vain, and when it is dialled again."""

    failures: int = 0
    again_at: float = 0.0
    busy: bool = False


class Direct:
    """The TCP side of a connection: a port, and the ways to others."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._meetings = connection.meetings
        self._server: asyncio.Server | None = None
        self._open: set[asyncio.Task[Any]] = set()
        self._paths: set[TcpPath] = set()
        self._place: tuple[str, int] | None = None
        self._shown = ""
        self._epoch = -1
        self._tried: dict[tuple[str, int], _Tried] = {}
        self._relayed: dict[bytes, _Tried] = {}
        self._dialled_by_us: set[bytes] = set()
        self._seen_hosts: list[str] = []
        self._seen_at = float("-inf")
        self._came: dict[str, int] = {}
        self._here = places.Here([])
        self._looked_at = float("-inf")
        self.anchor = Anchor()
        self.is_reached = False
        """Whether somebody came from elsewhere: others reach this node."""

    # --- a port ---------------------------------------------------------------------------

    async def listen(self, host: str, port: int, *, shown: str = "") -> int:
        """Be reached at a port of this machine; 0 takes a free one. Returns the port."""
        await self.close_port()
        if places.is_any(host):
            port = port or _free_port()  # the same for both families
        self._server = await asyncio.start_server(
            self._come,
            host or None,
            port,
            ssl=self._tls(server=True),
            ssl_handshake_timeout=HELLO_S,
            limit=MOST_FRAME * 2,
        )
        port = int(self._server.sockets[0].getsockname()[1])
        self._place, self._epoch = (host, port), self._connection.circle.epoch.number
        self._shown = shown
        self._look_here()
        return port

    @property
    def port(self) -> int:
        """The port that this node listens at; 0 for none."""
        return 0 if self._place is None or self._server is None else self._place[1]

    def endpoints(self) -> list[Endpoint]:
        """Return where others reach this node, as far as it knows: its own addresses first."""
        if self._place is None or self._server is None:
            return []
        host, port = self._place
        hosts = [self._shown] if self._shown else []
        hosts += self._here.shown() if places.is_any(host) else [host]
        hosts += self._seen_hosts
        return [Endpoint("tcp", one, port) for one in dict.fromkeys(hosts)][:MOST_ENDPOINTS]

    def _look_here(self) -> None:
        before = self.endpoints()
        if self._place is not None and places.is_any(self._place[0]):
            with suppress(OSError, ValueError):
                self._here = places.Here.look()
        if self.endpoints() != before:
            self._connection.moved()

    def seen_from(self, host: str) -> None:
        """Take note of the address from which another node sees us: a router's, perhaps."""
        if self._place is None or not places.is_any(self._place[0]) or len(host) > 64:
            return
        now = self._connection.rim.steady()
        if host in self._seen_hosts or not self._here.is_elsewhere(host):
            return
        if now - self._seen_at < LAST_AGAIN_S:
            return  # a member could name a new one with every breath
        self._seen_at = now
        self._seen_hosts = [host, *self._seen_hosts][:2]
        self._connection.moved()

    async def refresh(self) -> None:
        """Speak for the epoch that is: others cannot be met in an old one."""
        if self._place is not None and self._epoch != self._connection.circle.epoch.number:
            await self.listen(*self._place, shown=self._shown)

    async def close_port(self) -> None:
        """Be reached no longer."""
        if self._server is not None:
            self._server.close()
            self._server = None

    async def aclose(self) -> None:
        """Close the port and all meetings."""
        await self.close_port()
        await self._meetings.aclose()
        for task in list(self._open):
            task.cancel()
        await asyncio.gather(*self._open, return_exceptions=True)

    # --- ways to others ---------------------------------------------------------------

    async def seek(self) -> None:
        """Meet whoever is to be met, as that changes."""
        rim = self._connection.rim
        while True:
            if rim.steady() - self._looked_at >= ADDRESSES_S:
                self._looked_at = rim.steady()
                self._look_here()
            with suppress(Exception):  # the disk may be full: once more, then
                self._dial()
                self._meet_by_relay()
            self._meetings.changed.clear()
            with suppress(TimeoutError):
                async with asyncio.timeout(LOOK_S):
                    await self._meetings.changed.wait()

    def _dial(self) -> None:
        now, known = self._connection.rim.steady(), self._wanted()
        for place, node in known.items():
            tried = self._tried.setdefault(place, _Tried())
            if tried.busy or now < tried.again_at:
                continue
            tried.busy = True
            self._start(self._meet(*place, node, tried))
        for place in [place for place, tried in self._tried.items() if not tried.busy]:
            if place not in known and now > self._tried[place].again_at + 10 * LAST_AGAIN_S:
                del self._tried[place]

    def _wanted(self) -> dict[tuple[str, int], bytes | None]:
        """Return the places to dial, the most useful first; None for whoever is there."""
        circle, met = self._connection.circle, self._meetings.met
        by_tcp = {node for node in met if self._meetings.path(node) == "tcp"}
        found: dict[tuple[str, int], bytes | None] = {}
        peers = {peer.node_id: peer for peer in self._connection.peers}
        anchor = self.choose_anchor()
        order = sorted(peers, key=lambda node: (node != anchor, *_descending(peers[node])))
        for node in order:
            if node in by_tcp or (len(by_tcp) >= MOST_DIALLED and node != anchor):
                continue
            for one in peers[node].endpoints:
                if one.transport == "tcp" and len(found) < 2 * MOST_KNOWN:
                    found.setdefault((one.host, one.port), node)
        if by_tcp:
            return found
        for text in circle.peers:
            host, _, port = text.rpartition(":")
            found.setdefault((host.strip("[]"), int(port)), None)
        most = len(found) + MOST_KNOWN
        for member in circle.file.members():
            if len(found) >= most:
                break
            if member.epoch != circle.epoch.number or member.id == circle.member.id:
                continue
            for one in member.endpoints:
                if one.transport == "tcp":
                    found.setdefault((one.host, one.port), member.node_id)
        return found

    def choose_anchor(self) -> bytes | None:
        """Choose the anchor among the nodes that are there."""
        rim, connection = self._connection.rim, self._connection
        nodes = {peer.node_id: peer.abilities for peer in connection.peers}
        return self.anchor.choose(nodes, connection.heard(), now=rim.steady())

    async def _meet(self, host: str, port: int, node: bytes | None, tried: _Tried) -> None:
        """Make a meeting with a node, or with whoever of the circle is there."""
        rim, met = self._connection.rim, False
        try:
            path = await self._dialled(host, port, node)
            met = True
            mine = path.other == self._connection.node.id
            if mine or self._meetings.path(path.other) == "tcp":
                await path.aclose()
                tried.again_at = rim.steady() + LAST_AGAIN_S
                return
            session = self._connection.rim.entropy(SESSION_BYTES)
            await path.send(self._hello(session))
            tried.failures = 0
            self._dialled_by_us.add(path.other)
            try:
                await self._hold(path, Link(session, path.other))
            finally:
                self._dialled_by_us.discard(path.other)
            tried.again_at = rim.steady() + 1.0
        except (Closed, OSError, TimeoutError, NotBelieved):
            tried.failures += not met
            wait_s = min(FIRST_AGAIN_S * 2.0 ** min(tried.failures - 1, 10), LAST_AGAIN_S)
            tried.again_at = rim.steady() + wait_s * (0.5 + rim.chance())
        finally:
            tried.busy = False

    def _meet_by_relay(self) -> None:
        """Meet over the relay whom we cannot reach: the lower node id of two begins."""
        connection, now = self._connection, self._connection.rim.steady()
        held = sum(self._meetings.path(node) == "relay" for node in self._meetings.met)
        anchor = self.anchor.node
        peers = sorted(connection.peers, key=lambda one: (one.node_id != anchor, *_descending(one)))
        for node in self._relayed.keys() - {peer.node_id for peer in peers}:
            del self._relayed[node]
        for peer in peers:
            if held >= MOST_BY_RELAY:
                return
            node = peer.node_id
            tried = self._relayed.get(node)
            if node in self._meetings.met or (tried is not None and now < tried.again_at):
                continue
            if not connection.is_at_service(node) or not self._is_out_of_reach(peer.endpoints):
                continue
            if tried is None:
                tried = self._relayed[node] = _Tried()
                if connection.node.id > node:
                    tried.again_at = now + RELAY_FIRST_S  # it is for the other to begin
                    continue
            # Who does not answer knows no meetings, a browser say: it is asked ever less often.
            tried.again_at = now + min(RELAY_AGAIN_S * 2.0**tried.failures, RELAY_SELDOM_S)
            tried.failures += 1
            self._start(self._open_relay(node, tried))
            held += 1

    def _is_out_of_reach(self, endpoints: tuple[Endpoint, ...]) -> bool:
        """Say whether a node has no place of its own, or was dialled often enough in vain."""
        tcp = [(one.host, one.port) for one in endpoints if one.transport == "tcp"]
        return all(self._tried.get(place, _Tried()).failures >= TRIES for place in tcp)

    async def _open_relay(self, node: bytes, tried: _Tried) -> None:
        with suppress(NoLink, Closed):
            link = await self._connection.links.open(node, purpose=MEET)
            tried.failures = 0
            await self.met_by_relay(link)

    async def met_by_relay(self, link: Link) -> None:
        """Hold a meeting over the relay, unless there is a direct one.

        Who opens one has none: the one before leads to a process that has ended.
        """
        if self._meetings.path(link.other) == "tcp":
            await link.aclose()
            return
        before = self._meetings.link(link.other)
        if before is not None:
            before.abort()
        await self._meetings.hold(link)

    def begin_by_relay(self, link: Link) -> None:
        """Hold a meeting that another node has opened over the relay."""
        self._start(self.met_by_relay(link))

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
        host = ""
        try:
            path = TcpPath(reader, writer, _proved(writer))
            host = path.host
            self._count(host)
            async with asyncio.timeout(HELLO_S):
                hello = await path.receive()
            session = self._greeted(hello, path.other)
            await path.send(self._hello(session))
            if self._here.is_elsewhere(path.host) and not self.is_reached:
                self.is_reached = True
                self._connection.moved()
            link = self._connection.links.find(session, path.other)
            if link is not None:
                await link.attach(path)
                await self._carry(path, link)
            elif self._is_second(path.other):
                await path.aclose()
            else:
                await self._hold(path, Link(session, path.other))
        except (Closed, OSError, TimeoutError, NotBelieved):
            writer.close()
        except asyncio.CancelledError:
            writer.close()  # asyncio's streams complain of a task that was cancelled
        finally:
            self._open.discard(task)
            if host in self._came:
                self._came[host] -= 1
                if not self._came[host]:
                    del self._came[host]

    def _count(self, host: str) -> None:
        """Count a connection from an address; raises `Closed` where there are too many."""
        self._came[host] = self._came.get(host, 0) + 1
        if self._came[host] > MOST_FROM_ONE:
            raise Closed("too many connections come from there")

    def _is_second(self, other: bytes) -> bool:
        """Say whether a meeting with a node is held already, and stands.

        Who says hello has no meeting: it has moved, and ours leads to where it was. If both have
        dialled at once, the meeting stands that the lower node id has dialled.
        """
        dialled = other in self._dialled_by_us and self._meetings.path(other) == "tcp"
        return dialled and self._connection.node.id < other

    def check_place(self) -> None:
        """End all paths if this machine is elsewhere now."""
        for path in list(self._paths):
            path.check_place()

    def _hello(self, session: bytes) -> LinkFrame:
        said = self._meetings.own()
        return LinkFrame(Kind.HELLO, 0, 0, session + said.signature + said.text)

    def _greeted(self, hello: LinkFrame, other: bytes) -> bytes:
        """Read a hello: its session; its presence, if it is the other node's own."""
        if hello.kind is not Kind.HELLO or len(hello.payload) < SESSION_BYTES + 64:
            raise Closed("it does not say hello")
        session, rest = hello.payload[:SESSION_BYTES], hello.payload[SESSION_BYTES:]
        said = Said(rest[64:], rest[:64])
        found = Presence.from_said(self._connection.circle.epoch, said)
        if found.node_id != other:
            raise Closed("the hello is another node's")
        self._meetings.hear_of(said)
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

    async def _hold(self, path: TcpPath, link: Link) -> None:
        """Hold a meeting over TLS, until the path ends; one that was held before makes way."""
        before = self._meetings.link(path.other)
        if before is not None:
            self._start(before.aclose())
        await link.attach(path)
        meeting = asyncio.create_task(self._meetings.hold(link, seen=path.host))
        carrying = asyncio.create_task(self._carry(path, link))
        try:
            await asyncio.wait({meeting, carrying}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            meeting.cancel()
            carrying.cancel()
            link.abort()
            await asyncio.gather(meeting, carrying, return_exceptions=True)
            await path.aclose()

    def _start(self, work: Any) -> None:
        task = asyncio.ensure_future(work)
        self._open.add(task)
        task.add_done_callback(self._open.discard)


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("", 0))
        return int(probe.getsockname()[1])


def _descending(peer: Any) -> tuple[int, bytes]:
    points, tie = anchors.score(peer.node_id, peer.abilities)
    return -points, bytes(255 - byte for byte in tie)


def _proved(writer: asyncio.StreamWriter) -> bytes:
    """Return whose certificate the other side has proved."""
    session = writer.get_extra_info("ssl_object")
    return certificates.peer_node(session.getpeercert(binary_form=True))
