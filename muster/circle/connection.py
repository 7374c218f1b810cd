"""A connection: one node among the others of its circle, at all its services at once.

It keeps presence, sockets, places in mailboxes and services by itself, and yields what happens.
Services know nothing of each other: what one of them has is merged here by the hash of records,
and nothing is lost while one is up.

    async with circle.connect(name="Ada") as here:
        await here.say("dinner at eight?")
        async for event in here: ...
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Callable, Iterable
from contextlib import suppress
from typing import Any, Self

import httpx2

from capsules import canonical
from capsules.errors import Refused as NotBelieved
from muster import keys, presences, rekeys, signals
from muster.backoff import Rim
from muster.circle import events
from muster.circle.anchors import PUBLIC_REACHABLE
from muster.circle.attending import YEAR_MS, Attendant
from muster.circle.circle import MAIL_MS, TEXT, Circle
from muster.circle.direct import Direct
from muster.circle.events import Event
from muster.circle.links import Link, Links, PathKind
from muster.circle.meetings import Meetings
from muster.circle.peers import Peer
from muster.errors import BadValue, Hinted
from muster.exchange import Closed
from muster.invites import ServiceAddress
from muster.keys import Node
from muster.presences import Endpoint, Presence
from muster.records import GENERAL
from muster.seals import Said as RecordSaid
from muster.shapes import Ice
from muster.signals import Signal
from muster.texts import AHEAD_MS

READY_S = 10.0
"""How long a node waits until it has read everything, before it says something."""

SLOW_S = 2.0
"""How much longer it waits for others, when one was read."""

LOOK_S = 0.25
"""How often it looks for what another process of this home wants to say."""

PLACE_S = 1.0
"""How often it looks whether this machine is elsewhere."""

MOST_PEERS, MOST_NODES = 1024, 4
"""How many nodes are seen, and how many of one member: it can make any number."""

MOST_WAITING = 10_000
"""How many events wait to be read at the most; older ones are in the circle's file."""

RECORD_BYTES = 1024
"""What a record and its seal add to a body, at the most."""

MOST_BYTES = 256 * 1024

Transport = Callable[[ServiceAddress], httpx2.AsyncBaseTransport | None]


class NotLeft(Hinted):
    """No service has taken it so far; it is kept, and left as soon as one does."""


class Connection:
    """Use it as ``async with``; iterate over it for what happens.

    Raises `file.InUse` where another process has the circle open.
    """

    def __init__(
        self,
        circle: Circle,
        *,
        name: str = "",
        endpoints: Iterable[Endpoint] = (),
        abilities: Iterable[str] = (),
        rim: Rim | None = None,
        transport: Transport = lambda address: None,
    ) -> None:
        self.circle = circle
        self.name = _named(name)
        self.rim = rim or circle.rim
        self.transport = transport
        self._endpoints, self._abilities = tuple(endpoints), tuple(abilities)
        self._attending: dict[tuple[bytes, bytes], tuple[Attendant, asyncio.Task[None]]] = {}
        self._peers: dict[bytes, Peer] = {}
        self._events: deque[Event] = deque(maxlen=MOST_WAITING)
        self._some = asyncio.Event()
        self._changed = asyncio.Event()
        self._spoken = asyncio.Event()
        self._told_missing: set[tuple[bytes, int, int]] = set()
        self._told_broken: set[tuple[bytes, int]] = set()
        self._tasks: list[asyncio.Task[None]] = []
        self._speaking = asyncio.Lock()
        self._closed = False
        self.standing: Callable[[], frozenset[bytes] | None] = lambda: None
        """The lasting records that still count, where somebody knows; else all do."""
        self.before_speaking: Callable[[], None] = lambda: None
        """What is done before drafts are said, and when something lasting was."""
        self.links = Links(self, lambda link: self.tell(events.Linked(link)))
        self.meetings = Meetings(self)
        self._direct = Direct(self)
        self.links.dial = self._direct.improve
        self.links.meet = self._direct.begin_by_relay

    async def __aenter__(self) -> Self:
        self.circle.file.lock()
        self.circle.clock_ms = self.now_ms
        if not self.circle.is_out and (self.name or not self.circle.file.fact("introduced")):
            self.circle.introduce(self.name)  # without it a rekey would not keep this member
        self._attend()
        self._tasks = [
            asyncio.create_task(self._supervise()),
            asyncio.create_task(self._watch_drafts()),
            asyncio.create_task(self._direct.seek()),
            asyncio.create_task(self._watch_place()),
        ]
        return self

    async def __aexit__(self, *exc: object) -> None:
        try:
            await self._leave()
        finally:
            self._some.set()
            self.circle.file.unlock()

    async def _leave(self) -> None:
        self._closed = True
        await self.links.aclose()
        await self._direct.aclose()
        for task in self._tasks[:4]:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        attending = list(self._attending.values())
        await asyncio.gather(*(attendant.goodbye() for attendant, _ in attending))
        await asyncio.gather(*(self._dismiss(*one) for one in attending))

    def __aiter__(self) -> AsyncIterator[Event]:
        return self

    async def __anext__(self) -> Event:
        """Wait for the next thing that happens."""
        while not self._events:
            if self._closed:
                raise StopAsyncIteration
            self._some.clear()
            await self._some.wait()
        return self._events.popleft()

    async def messages(self, *, channel: bytes | None = None) -> AsyncIterator[events.Said]:
        """Yield what the others say in texts, each once, and none from before this member joined.

        It takes the events that iterating would yield, so use one of the two. With a circle in a
        file, what was said since it was open last comes too; `Circle.told` has what is older.
        """
        async for event in self:
            if not isinstance(event, events.Said) or event.mine or not event.text:
                continue
            wrong_ms = self.now_ms() - int(self.rim.now() * 1000)
            since_ms = self.circle.file.joined_ms + wrong_ms
            if event.at_ms >= since_ms and channel in (None, event.channel):
                yield event

    # --- who is there --------------------------------------------------------------------

    @property
    def node(self) -> Node:
        """This node, in the epoch that is."""
        return self.circle.member.node(self.circle.epoch)

    @property
    def peers(self) -> list[Peer]:
        """The nodes that are there now, by name."""
        return sorted(self._peers.values(), key=lambda peer: (peer.name, peer.node_id))

    @property
    def attendants(self) -> list[Attendant]:
        """How each service is reached, for the epoch that is."""
        return [attendant for attendant, _ in self._attending.values() if not attendant.old]

    def now_ms(self) -> int:
        """Return the time that others are told: with the smallest correction of any service."""
        heard = (one.service for one in self.attendants if one.service.believed_at_ms)
        offsets = [service.offset_ms for service in heard]
        return int(self.rim.now() * 1000) + min(offsets, key=abs, default=0)

    def place(
        self, *, endpoints: Iterable[Endpoint] | None = None, name: str | None = None
    ) -> None:
        """Tell the others where this node is now, or what it is called."""
        if endpoints is not None:
            self._endpoints = tuple(endpoints)
        if name is not None:
            self.name = _named(name)
            self.circle.introduce(name)
            self._spoken.set()
        self.moved()

    def moved(self) -> None:
        """Tell the others anew where this node is, and what it can."""
        self.meetings.forget_own()
        for attendant in self.attendants:
            attendant.wake(presence=True)

    def can(self, *words: str) -> None:
        """Tell the others what this node can: words among its presence's abilities."""
        if self._abilities != words:
            self._abilities = words
            self.moved()

    # --- saying -----------------------------------------------------------------------------

    async def say(self, text: str, *, channel: bytes = GENERAL) -> events.Said:
        """Say a text; returns when a service or a node has taken it, or raises `NotLeft`."""
        self.circle.check_text(text)
        body: dict[str, Any] = {"text": text}
        if self.name:
            body["name"] = self.name
        return await self.post(TEXT, body, channel=channel)

    async def post(
        self, kind: str, body: dict[str, Any], *, channel: bytes = GENERAL, wait_s: float = READY_S
    ) -> events.Said:
        """Say anything as a record; returns when somebody has taken it, or raises `NotLeft`."""
        self.circle.check(channel, kind, body)
        self._check_size(body)
        number = self.circle.file.draft(channel, kind, body)
        said = await self._speak(number)
        if self.circle.is_out:
            raise NotLeft("the founder has left this member out of the circle", "ask them")
        if said is None or not await self._until_left(said.hash, wait_s):
            raise NotLeft(
                "nobody has taken it so far", "it is kept, and left as soon as somebody does"
            )
        return said

    async def introduced(self) -> None:
        """Wait until a service has who this member is; raises `NotLeft`."""
        await self._speak()
        seq, hashed = self.circle.file.tip(self.circle.member.public.raw)
        if hashed is not None and not await self._until_left(hashed, READY_S):
            raise NotLeft(f"no service has taken record {seq} so far", "it is left as soon as one")

    async def link(self, to: Peer) -> Link:
        """Open a link to a node that is there; raises `links.NoLink`."""
        return await self.links.open(to.node_id)

    async def listen(self, host: str, port: int = 0, *, shown: str = "") -> Endpoint:
        """Be reached directly at a port of this machine, and tell the others where.

        *shown* is the host or address by which they reach it. Raises `OSError`.
        """
        taken = await self._direct.listen(host, port, shown=shown)
        self.moved()
        found = self._direct.endpoints()
        return found[0] if found else Endpoint("tcp", shown or host, taken)

    @property
    def reached_at(self) -> list[Endpoint]:
        """Where others reach this node directly, as far as it knows."""
        return self._direct.endpoints()

    @property
    def met(self) -> frozenset[bytes]:
        """The nodes that are met directly now, without a service."""
        meetings = self.meetings
        return frozenset(node for node in meetings.met if meetings.path(node) == "tcp")

    @property
    def anchor(self) -> bytes | None:
        """The node that this one holds on to, where no other reaches it."""
        return self._direct.anchor.node

    def path(self, node: bytes) -> PathKind:
        """Return how a node is reached: ``tcp``, ``relay``, or ``none``."""
        found = self.meetings.path(node)
        return "relay" if found == "none" and self.is_at_service(node) else found

    def is_at_service(self, node: bytes) -> bool:
        """Say whether a service passes frames between a node and this one."""
        return any(one.live and node in one.there for one in self.attendants)

    def is_pushed(self, hashed: bytes, node: bytes) -> bool:
        """Say whether a service has a record, and pushes it to a node."""
        left = self.circle.file.left_at_ms
        return any(
            one.live and node in one.there and left(one.service.id, hashed)
            for one in self.attendants
        )

    def heard(self) -> dict[bytes, float]:
        """Return when each node was heard of last, by a steady clock: at services it is now."""
        now = self.rim.steady()
        return self.meetings.heard() | {
            node: now for one in self.attendants if one.live for node in one.there
        }

    def seen_from(self, host: str) -> None:
        """Take note of the address from which another node sees this one."""
        self._direct.seen_from(host)

    def _check_size(self, body: dict[str, Any]) -> None:
        """Raise `BadValue` for what a service would not take: it would stay a hole in the chain."""
        limits = [one.message_bytes for one in self.attendants if one.message_bytes]
        size, most = len(canonical.strict(body)) + RECORD_BYTES, min(limits, default=MOST_BYTES)
        if size > most:
            raise BadValue(
                f"it has {size} bytes as a record, and a service of this circle takes {most}"
            )

    async def signal(
        self, to: bytes, kind: str, body: dict[str, Any], *, session: bytes, ttl_s: int = 120
    ) -> bytes:
        """Leave a signal for a node, at all services that are reached; return its text."""
        node = self.node
        made = Signal(node.public, to, session, kind, self.now_ms(), body)
        sealed = signals.seal(node, made, nonce=self.rim.entropy(12))
        for attendant in self.attendants:
            attendant.signal(to, sealed, ttl_s=ttl_s)
        return made.said(node).text

    async def ice(self) -> Ice:
        """Ask for STUN and TURN servers, with logins, at the first service that has some.

        Raises `NotLeft` where no service can be asked.
        """
        found, trouble = None, "no service can be asked"
        for attendant in self.attendants:
            try:
                found = await attendant.ice()
            except (Closed, Hinted) as error:
                trouble = str(error)
            else:
                if found.servers:
                    return found
        if found is None:
            raise NotLeft(trouble, "try again when one is reached")
        return found

    async def ready(self, seconds: float = READY_S) -> bool:
        """Wait until every service was read, or has failed; say whether one was read.

        Once one was read, a slow one among the others is not waited for much longer.
        """
        steady = self.rim.steady
        end = steady() + seconds
        while steady() < end:
            if all(attendant.tried.is_set() for attendant in self.attendants):
                break
            if any(attendant.read.is_set() for attendant in self.attendants):
                end = min(end, steady() + SLOW_S)
            await self.rim.sleep(0.02)
        return any(attendant.read.is_set() for attendant in self.attendants)

    async def rekey(
        self,
        without: Iterable[bytes] = (),
        *,
        only: Iterable[bytes] | None = None,
        wait_s: float = READY_S,
    ) -> None:
        """Begin a new epoch for all members but these; returns when all services have it.

        With *only*, it is for these members alone, beside this one. Raises `circle.NotFounder`,
        `BadValue`, and `NotLeft` where a service could not be read first: who said what there
        is to be known before.
        """
        await self.ready()
        for attendant in self.attendants:
            if not attendant.read.is_set():
                raise NotLeft(
                    f"{attendant.url} cannot be read: {attendant.trouble or 'it does not answer'}",
                    "try again when it is up, or remove it: muster circle services remove",
                )
        old = self.circle.epoch
        said = self.circle.rekey(without, only=only)
        self.tell(events.Rekeyed(self.circle.epoch.number))
        self._attend()
        name, wanted = rekeys.order(said), len(self.circle.services)
        with suppress(TimeoutError):
            async with asyncio.timeout(wait_s):
                while self.circle.file.at_services(name) < wanted:
                    await self.rim.sleep(0.05)
        if wanted and not self.circle.file.at_services(name):
            raise NotLeft(
                f"no service has taken the rekey to epoch {old.number + 1} so far",
                "it is kept: connect again, and it is left",
            )

    async def _speak(self, wanted: int = 0) -> events.Said | None:
        """Say all drafts, once everything was read: a restored node goes on where it was."""
        read = await self.ready()
        found = None
        async with self._speaking:
            if self.circle.is_out or not (read or self._knows_itself()):
                return None  # what others have of our chain is not known: drafts stay drafts
            for draft, said in self.circle.speak(self.before_speaking):
                self.tell(said)
                self._pass_on([said.hash])
                found = said if draft.id == wanted else found
        if found is None and wanted:
            done = self.circle.file.drafted(wanted)  # another task was first
            found = self.circle.said(done.hash) if done and done.hash else None
        for attendant in self.attendants:
            attendant.wake()
        return found

    def _knows_itself(self) -> bool:
        """Say whether this node knows all that it has said, though it has read no service."""
        alone = not self.circle.services and not self.circle.file.is_copy
        return alone or self.meetings.caught_up

    async def _until_left(self, hashed: bytes, seconds: float) -> bool:
        """Wait until a service has taken a record."""
        with suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                while not self._is_left(hashed):
                    self._spoken.clear()
                    with suppress(TimeoutError):
                        async with asyncio.timeout(0.5):
                            await self._spoken.wait()
        return self._is_left(hashed)

    def _is_left(self, hashed: bytes) -> bool:
        """Say whether a service has a record, or a node that is met directly."""
        return bool(self.circle.file.at_services(hashed)) or hashed in self.meetings.passed

    async def _watch_drafts(self) -> None:
        """Do what other processes of this home have left to be done."""
        services = self.circle.services
        while True:
            with suppress(Exception):  # the disk may be full: once more, then
                if self.circle.file.drafts():
                    await self._speak()
                if services != (services := self.circle.services):
                    self._changed.set()
                self.look_round()
            await self.rim.sleep(LOOK_S)

    async def _watch_place(self) -> None:
        """Begin anew what leads to where this machine is no longer."""
        while True:
            await self.rim.sleep(PLACE_S)
            for attendant in self.attendants:
                attendant.check_place()
            self._direct.check_place()

    # --- what attendants tell -----------------------------------------------------------------

    def tell(self, event: Event) -> None:
        """Yield an event to whoever iterates."""
        self._events.append(event)
        self._some.set()

    def happened(self, found: Iterable[Event]) -> None:
        """Yield what follows from records, and act on it."""
        for event in found:
            self.tell(event)
            if isinstance(event, events.Said):
                self._pass_on([event.hash])
            if isinstance(event, events.Rekeyed | events.Services | events.LeftOut):
                self._changed.set()

    def left(self) -> None:
        """Note that a service, or a node that is met, has taken something."""
        self._spoken.set()

    def presence(self, node: Node) -> Presence:
        """Return what others are told of this node."""
        return Presence.of(
            node,
            name=self.name,
            at_ms=self.now_ms(),
            endpoints=(*self._endpoints, *self._direct.endpoints())[: presences.MOST_ENDPOINTS],
            abilities=(
                *self._abilities,
                *((PUBLIC_REACHABLE,) if self._direct.is_reached else ()),
            )[: presences.MOST_ABILITIES],
        )

    def believe(self, found: Presence, epoch: keys.Epoch) -> bool:
        """Take a presence unless it is of the future; say whether its node is there now."""
        now_ms = self.now_ms()
        if found.node_id == self.node.id or found.at_ms > now_ms + AHEAD_MS:
            return False
        before = self._peers.get(found.node_id)
        if before is not None and before.at_ms > found.at_ms:
            return True  # there, as the newer one says
        if before is None:
            nodes = sum(one.member_id == found.member_id for one in self._peers.values())
            if nodes >= MOST_NODES or len(self._peers) >= MOST_PEERS:
                return False
        self.circle.file.meet(found, epoch.number)
        if found.at_ms < now_ms - presences.STALE_MS:
            return False
        peer = Peer.of(found)
        self._peers[found.node_id] = peer
        if before is None or before.endpoints != peer.endpoints:
            self.meetings.changed.set()
        if before is None:
            self.tell(events.Joined(peer))
        elif (before.name, before.endpoints, before.abilities) != (
            peer.name,
            peer.endpoints,
            peer.abilities,
        ):
            self.tell(events.Changed(peer))
        return True

    def look_round(self) -> None:
        """See who is there no longer, at any service."""
        there = self.meetings.there()
        for attendant in self.attendants:
            there |= attendant.there.keys()
        for node_id in list(self._peers):
            if node_id not in there:
                self.tell(events.Left(self._peers.pop(node_id)))

    def caught_up(self) -> None:
        """Look for holes in chains, when a service was read to its end."""
        file = self.circle.file
        now_ms = self.now_ms()
        read = tuple(one.url for one in self.attendants if one.read.is_set())
        for author, first, last in file.missing():
            if (author, first, last) in self._told_missing:
                continue
            self._told_missing.add((author, first, last))
            member = keys.member_id(author)
            old = file.said_ms(author, first - 1) < now_ms - MAIL_MS
            name = self.circle.name_of(member)
            self.tell(events.Missing(member, name, first, last, read, old))
        for author, seq in file.broken():
            if (author, seq) not in self._told_broken:
                self._told_broken.add((author, seq))
                member = keys.member_id(author)
                self.tell(events.Forked(member, self.circle.name_of(member), seq))

    def take_direct(self, told: Iterable[tuple[RecordSaid, int]], source: bytes) -> int:
        """Take records that a node has told, all in one write; return how many were wrong."""
        found: list[Event] = []
        refused = 0
        with self.circle.file.writing():
            for said, epoch in told:
                try:
                    if epoch <= self.circle.epoch.number:
                        found += self.circle.take_record(said, epoch)[1]
                except (NotBelieved, ValueError):
                    refused += 1
        hashes = [event.hash for event in found if isinstance(event, events.Said)]
        for event in found:
            self.tell(event)
        self._pass_on(hashes, source)
        if any(isinstance(event, events.Services) for event in found):
            self._changed.set()
        return refused

    def _pass_on(self, hashes: Iterable[bytes], source: bytes = b"") -> None:
        """Tell those that are met what they may not have yet."""
        if self.meetings.met - {source}:
            found = [self.circle.file.record(hashed) for hashed in hashes]
            self.meetings.tell([kept for kept in found if kept is not None], source)

    def direct_changed(self) -> None:
        """See who is there, when a direct meeting has begun or ended."""
        self._spoken.set()
        self.look_round()

    def signalled(self, signal: Signal, text: bytes) -> None:
        """Take a signal for this node."""
        if not self.links.signalled(signal, text):
            self.tell(events.Signalled(signal))

    def passed(self, sender: bytes, payload: bytes) -> None:
        """Take a frame that another node's socket has passed."""
        self.links.passed(sender, payload)

    async def frame(self, to: bytes, payload: bytes) -> None:
        """Pass bytes to another node by the first service that can; raises `Closed`."""
        trouble: Exception = Closed("no service has a socket open")
        for attendant in self.attendants:
            if attendant.live and to in attendant.there:
                try:
                    await attendant.frame(to, payload)
                except (Closed, Hinted) as error:
                    trouble = error
                else:
                    return
        raise Closed(str(trouble)) from trouble

    # --- services and epochs --------------------------------------------------------------------

    async def _supervise(self) -> None:
        """Attend where the circle meets, as that changes."""
        while True:
            await self._changed.wait()
            self._changed.clear()
            self._attend()
            await self._direct.refresh()

    def meet_elsewhere(self) -> None:
        """Take note that services were added or removed."""
        self._changed.set()

    def _attend(self) -> None:
        """Attend each service in this epoch, and read the mailboxes of those before."""
        circle, now_ms = self.circle, int(self.rim.now() * 1000)
        *before, current = circle.file.epochs()
        wanted: dict[tuple[bytes, bytes], tuple[ServiceAddress, keys.Epoch, bool]] = {}
        for service in circle.services:
            wanted[service.id, current.hint] = (service, current, False)
            for epoch in before:
                ended_ms = circle.file.began_ms(epoch.number + 1)
                keep_ms = YEAR_MS if circle.is_founder else MAIL_MS
                if now_ms < ended_ms + keep_ms:
                    wanted[service.id, epoch.hint] = (service, epoch, True)
        for key in list(self._attending):
            attendant, _ = self._attending[key]
            as_it_is = (attendant.service.address, attendant.node.epoch, attendant.old)
            if wanted.get(key) != as_it_is:
                going = asyncio.create_task(self._dismiss(*self._attending.pop(key)))
                self._tasks.append(going)
        for key, (service, epoch, old) in wanted.items():
            if key not in self._attending:
                attendant = Attendant(self, service, circle.member.node(epoch), old=old)
                self._attending[key] = (attendant, asyncio.create_task(attendant.run()))

    async def _dismiss(self, attendant: Attendant, task: asyncio.Task[None]) -> None:
        attendant.tried.set()  # nobody waits for it any more
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        await attendant.aclose()


def _named(name: str) -> str:
    """Return a name that a presence can hold; raises `BadValue`."""
    try:
        size = len(name.encode())
    except UnicodeEncodeError:
        raise BadValue("the name is not UTF-8") from None
    if size > presences.NAME_BYTES:
        raise BadValue(f"the name has {size} bytes, and {presences.NAME_BYTES} are allowed")
    return name
