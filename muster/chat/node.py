"""A node of a profile: all its circles at once, kept up to date in the store.

It connects each circle that no other process has open, says what is drafted, passes on what others
lack, and keeps in the store who is there and by what path. Where another process has a circle
open, what that one brings is read from the files: a screen beside a running node shows the same.
"""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import Callable, Iterator, Mapping
from contextlib import AsyncExitStack, suppress
from dataclasses import dataclass, field, replace
from typing import Self, TypeVar

from muster.backoff import Rim
from muster.chat.facts import GENERAL_NAME
from muster.chat.room import AnyRoom, Path, Place, Someone, Waiting, told
from muster.chat.store import Message, PresentNode, Store
from muster.chat.talk import Talk
from muster.circle import Circle, Connection, events
from muster.circle.anchors import CAN_ANCHOR, IS_MOBILE
from muster.circle.connection import Transport
from muster.circle.file import InUse
from muster.errors import Hinted
from muster.records import GENERAL

_R = TypeVar("_R", bound=AnyRoom)

LOOK_S = 0.25
"""How often a circle that another process has open is looked at."""

PRESENT_S = 1.0
"""How often who is there is written down, if it has changed."""

EXPIRE_S = 3600.0
TRY_AGAIN_S = 5.0

MOST_PLACES = 200
"""How many channels are listed; others are found by their names."""

PATHS: tuple[Path, ...] = ("tcp", "webrtc", "relay", "none")
"""By what path a member is reached, the best first."""

PORTS = 100
"""How many ports after the one that is asked for are tried."""


@dataclass(frozen=True, slots=True)
class Options:
    """How a node is among others."""

    name: str = ""
    listens: bool = True
    bind: str = ""
    port: int = 0
    """The first circle's; the next have the ones after it. 0 for the one of before, or any."""
    shown: str = ""
    can_anchor: bool = False
    is_mobile: bool = False
    transport: Transport = field(default=lambda address: None)
    rim: Rim = field(default_factory=Rim)


class Room:
    """One of our circles in a profile, connected or looked at (`room.AnyRoom`)."""

    kind = "muster"

    def __init__(self, name: str, circle: Circle, store: Store, options: Options) -> None:
        self.name, self.circle, self.options = name, circle, options
        self.talk = Talk(store, circle)
        self.here: Connection | None = None
        self.trouble = ""
        self.happened: Callable[[events.Event], None] = lambda event: None
        self.changed: Callable[[], None] = lambda: None
        self._store = store
        self._present: list[PresentNode] = []

    @property
    def id(self) -> bytes:
        """The circle's name."""
        return self.circle.id

    @property
    def is_connected(self) -> bool:
        """Whether this process has the circle open."""
        return self.here is not None

    def close(self) -> None:
        """Let go of the circle's file."""
        self.circle.close()

    async def run(self) -> None:
        """Keep the circle up to date until cancelled."""
        while True:
            try:
                self.talk.catch_up()
                async with AsyncExitStack() as stack:
                    self.here = await self._connected(stack)
                    self.trouble = ""
                    await self._attend(self.here)
            except InUse:
                self.here = None
                with suppress(Hinted, sqlite3.Error):
                    await self._look_on()
            except Exception as error:  # the disk is full, say: it is shown, and tried again
                self.here, self.trouble = None, str(error) or type(error).__name__
                self.changed()
                await asyncio.sleep(TRY_AGAIN_S)
            finally:
                self.here = None

    async def _connected(self, stack: AsyncExitStack) -> Connection:
        options = self.options
        here = self.circle.connect(name=options.name, rim=options.rim, transport=options.transport)
        here.standing = lambda: self.talk.facts.standing
        here.before_speaking = self._before_speaking
        here.meetings.taken = self._taken
        here.can(*self._can())
        await stack.enter_async_context(here)
        if options.listens:
            await self._listen(here)
        return here

    async def _listen(self, here: Connection) -> None:
        """Be reached at the port of before, if it is free: invites name it."""
        options = self.options
        kept = int(self.circle.file.fact("port", b"0"))
        ports = [options.port + number for number in range(PORTS)] if options.port else [kept, 0]
        for port in dict.fromkeys(ports):
            try:
                found = await here.listen(options.bind, port, shown=options.shown)
            except OSError as error:
                self.trouble = (
                    f"cannot listen at port {port}: {(error.strerror or str(error)).lower()}"
                )
            else:
                self.trouble = ""
                self.circle.file.keep("port", str(found.port).encode())
                return

    def _can(self) -> tuple[str, ...]:
        options = self.options
        words = (CAN_ANCHOR,) if options.can_anchor else ()
        return (*words, *((IS_MOBILE,) if options.is_mobile else ()))

    def call_me(self, name: str) -> None:
        """Be called otherwise from now on."""
        self.options = replace(self.options, name=name)
        if self.here is not None:
            self.here.place(name=name)
        else:
            self.circle.introduce(name)

    def _before_speaking(self) -> None:
        self.talk.catch_up()
        self.talk.tend()

    def _taken(self, node: bytes, hashes: list[bytes]) -> None:
        self.talk.catch_up()
        self._store.taken_by(self.circle.id, hashes, node)
        self.changed()

    # --- while this process has it open ------------------------------------------------------

    async def _attend(self, here: Connection) -> None:
        tending = asyncio.create_task(self._tend(here))
        try:
            async for event in here:
                self._take(event)
        finally:
            tending.cancel()
            await asyncio.gather(tending, return_exceptions=True)
            with suppress(Hinted):
                self._store.show_present(self.circle.id, [])

    def _take(self, event: events.Event) -> None:
        circle = self.circle.id
        match event:
            case events.Said() | events.Rekeyed() | events.LeftOut():
                self.talk.catch_up()
            case events.Joined() | events.Left() | events.Changed() if self.here is not None:
                self._show_present(self.here)
            case events.State():
                self._store.show_state(circle, event.service, event.state, event.why)
            case _:
                pass
        self.happened(event)
        self.changed()

    async def _tend(self, here: Connection) -> None:
        """Write down who is there, drop what is too old, mend keys."""
        expire_at, before = 0.0, None
        rim = self.options.rim
        while True:
            with suppress(Exception):  # once more, then
                self.talk.catch_up()
                self._show_present(here)
                if before != (before := (self.circle.file.changes, self.talk.facts)):
                    self.changed()  # facts may have waited
                if rim.steady() >= expire_at:
                    expire_at = rim.steady() + EXPIRE_S
                    self.talk.expire()
                    self.talk.tend()
            await asyncio.sleep(PRESENT_S)

    def _show_present(self, here: Connection) -> None:
        found = [
            PresentNode(
                *(peer.node_id, peer.member_id, peer.name, here.path(peer.node_id)),
                frozenset(peer.abilities),
                0,
            )
            for peer in here.peers
        ]
        if found != self._present:
            self._present = found
            self._store.show_present(self.circle.id, found)
            self.changed()

    # --- while another process has it open ------------------------------------------------------

    async def _look_on(self) -> None:
        """Read what another process brings, until it ends."""
        until = asyncio.get_running_loop().time() + TRY_AGAIN_S
        before = None
        while asyncio.get_running_loop().time() < until:
            came = self.talk.catch_up()
            now = (self._store.present(self.circle.id), self.talk.facts)
            if came or now != before:
                self.changed()
            before = now
            await asyncio.sleep(LOOK_S)

    # --- what a screen asks -----------------------------------------------------------------------

    @property
    def title(self) -> str:
        """How the circle is called: by its managers, as it was joined, else the name here."""
        return self.talk.title or self.name

    @property
    def path_of(self) -> Mapping[bytes, Path]:
        """How each member is reached, by the best path of its nodes."""
        best: dict[bytes, Path] = {}
        for node in self._store.present(self.id):
            known = best.get(node.member, "none")
            best[node.member] = min(known, node.path, key=PATHS.index)
        return best

    @property
    def status(self) -> str:
        """How the circle is reached, in a few words."""
        if self.circle.is_out:
            return "left out"
        urls = {one.url for one in self.circle.services}
        states = {state: why for url, state, why in self._store.states(self.id) if url in urls}
        direct = sum(path == "tcp" for path in self.path_of.values())
        order = ("live", "polling", "replaced", "connecting")
        best = next((one for one in order if one in states), "")
        if not best and self.circle.services:
            why = states.get("offline", "")
            best = f"offline: {why}" if why else "offline"
        parts = [best]
        parts.append(f"{direct} direct" if direct else "")
        parts.append("" if self.is_connected else "by another process")
        return ", ".join(part for part in parts if part) or "no service, nobody met so far"

    def places(self) -> list[Place]:
        """Return the channels, `general` first."""
        facts, me, words = self.talk.facts, self.talk.me, self.talk.words()
        now_ms = self.talk.now_ms()
        found = [
            Place(GENERAL, GENERAL_NAME, unread=self.talk.unread(GENERAL), call=self._call(GENERAL))
        ]
        for channel in facts.shown()[:MOST_PLACES]:
            call = facts.call_in(channel.id, now_ms=now_ms, words=words)
            found.append(
                Place(
                    *(channel.id, channel.name, channel.mode, channel.topic),
                    unread=self.talk.unread(channel.id),
                    joined=me in channel.members,
                    call=call.media if call else "",
                )
            )
        return found

    def _call(self, channel: bytes) -> str:
        call = self.talk.call_in(channel)
        return call.media if call else ""

    def people(self) -> list[Someone]:
        """Return who is in the circle, those who are there first; devices of one person are one."""
        facts, paths = self.talk.facts, self.path_of
        names = {one.id: one.name for one in self.circle.file.members()} | dict(facts.names)
        names.setdefault(self.talk.me, self.options.name)
        found: dict[bytes, Someone] = {}
        for member, name in names.items():
            person = facts.person(member)
            known = found.get(person)
            path = paths.get(member, "none")
            here = member in paths or member == self.talk.me or bool(known and known.here)
            if known is not None:
                path = min(known.path, path, key=PATHS.index)
            found[person] = Someone(
                *(person, facts.names.get(person) or name, path),
                here=here,
                me=member == self.talk.me or bool(known and known.me),
                devices=1 if known is None else known.devices + 1,
            )
        return sorted(
            found.values(), key=lambda one: (not one.me, not one.here, one.name.casefold(), one.id)
        )

    def page(
        self,
        channel: bytes,
        *,
        before: tuple[int, bytes] | None = None,
        after: tuple[int, bytes] | None = None,
        most: int = 50,
    ) -> list[Message]:
        """Return messages, the oldest first."""
        return self.talk.page(channel, before=before, after=after, most=most)

    def search(self, channel: bytes, words: str, *, most: int = 50) -> list[Message]:
        """Return messages with these words, the oldest first."""
        return self.talk.search(channel, words, most=most)

    def since(self, after: int, *, until: int) -> Iterator[Message]:
        """Yield messages in the order in which they came, between two numbers of them."""
        return self.talk.since(after, until=until)

    def message(self, hashed: bytes) -> Message | None:
        """Return one message."""
        return self._store.message(self.id, hashed)

    def waiting(self, channel: bytes) -> list[Waiting]:
        """Return what was written and not said so far."""
        return [Waiting(one.text) for one in self.talk.pending(channel)]

    def person_of(self, member: bytes) -> bytes:
        """Return the person that a member is a device of."""
        return self.talk.facts.person(member)

    def author(self, message: Message) -> str:
        """Return who said something, as it is called now."""
        return self.talk.name_of(message.author) or message.name or message.author.hex()[:6]

    def is_mine(self, message: Message) -> bool:
        """Say whether this member said it, on whichever of its devices."""
        return message.author in self.talk.facts.devices(self.talk.me)

    def fate(self, message: Message) -> str:
        """Say where a message of one's own is by now."""
        found = self.talk.delivery(message)
        return told(found.services, found.nodes, has_services=bool(self.circle.services))

    def say(self, text: str, *, channel: bytes, reply: Message | None = None) -> None:
        """Say something soon; raises `errors.Hinted`."""
        self.talk.say(
            text,
            channel=channel,
            name=self.options.name,
            reply=None if reply is None else reply.hash,
        )

    def unread(self, channel: bytes) -> int:
        """Return how many messages of others were not read."""
        return self.talk.unread(channel)

    def mark(self, channel: bytes) -> int:
        """Return the number of the last message that was read."""
        return self._store.mark(self.id, channel)

    def read(self, channel: bytes, number: int) -> None:
        """Note that a channel was read up to a message."""
        self._store.read(self.id, channel, number)

    def invite(self) -> str:
        """Return what lets somebody in, with where this node is reached now."""
        made = self.circle.invite(name=self.title, peers=self.peers_shown())
        return made.link() if made.services else made.code

    def peers_shown(self) -> list[str]:
        """Return where this node is reached directly, for an invite."""
        found = []
        for one in self.here.reached_at if self.here is not None else ():
            host = f"[{one.host}]" if ":" in one.host else one.host
            found.append(f"{host}:{one.port}")
        return found[:4]


class Profile:
    """All circles of a profile, in one store; use it as ``async with``."""

    def __init__(self, store: Store, options: Options | None = None) -> None:
        self.store, self.options = store, options or Options()
        self.rooms: dict[str, AnyRoom] = {}
        self._running: dict[str, asyncio.Task[None]] | None = None

    async def __aenter__(self) -> Self:
        self._running = {}
        for room in self.rooms.values():
            self._start(room)
        return self

    async def __aexit__(self, *exc: object) -> None:
        running, self._running = self._running or {}, None
        for task in running.values():
            task.cancel()
        await asyncio.gather(*running.values(), return_exceptions=True)
        for room in self.rooms.values():
            room.close()

    def add(self, name: str, circle: Circle) -> Room:
        """Have one of our circles in the profile."""
        options = self.options
        if options.port:
            options = replace(options, port=options.port + len(self.rooms))
        return self.add_room(Room(name, circle, self.store, options))

    def add_room(self, room: _R) -> _R:
        """Have a circle of any kind in the profile."""
        self.rooms[room.name] = room
        if self._running is not None:
            self._start(room)
        return room

    async def drop(self, name: str) -> None:
        """Have a circle in the profile no longer, and close it."""
        room, task = self.rooms.pop(name), (self._running or {}).pop(name, None)
        if task is not None:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
        self.store.forget(room.id)
        room.close()

    def _start(self, room: AnyRoom) -> None:
        if self._running is not None:
            self._running[room.name] = asyncio.create_task(room.run())
