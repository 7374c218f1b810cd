"""A node of a profile: all its circles at once, kept up to date in the store.

It connects each circle that no other process has open, says what is drafted, passes on what others
lack, and keeps in the store who is there and by what path. Where another process has a circle
open, what that one brings is read from the files: a screen beside a running node shows the same.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Mapping
from contextlib import AsyncExitStack, suppress
from dataclasses import dataclass, field
from pathlib import Path

from muster.backoff import Rim
from muster.chat.store import PresentNode, Store
from muster.chat.talk import Talk
from muster.circle import Circle, Connection, events
from muster.circle.anchors import CAN_ANCHOR, IS_MOBILE
from muster.circle.connection import Transport
from muster.circle.file import InUse
from muster.errors import Hinted

LOOK_S = 0.25
"""How often a circle that another process has open is looked at."""

PRESENT_S = 1.0
"""How often who is there is written down, if it has changed."""

EXPIRE_S = 3600.0
TRY_AGAIN_S = 5.0

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
    """One circle of the profile, connected or looked at."""

    def __init__(self, name: str, circle: Circle, store: Store, options: Options) -> None:
        self.name, self.circle, self.options = name, circle, options
        self.talk = Talk(store, circle)
        self.here: Connection | None = None
        self.trouble = ""
        self._store = store
        self._words: tuple[str, ...] = ()
        self._present: list[PresentNode] = []
        self._tasks: set[asyncio.Task[None]] = set()
        self.changed: Callable[[Room, events.Event | None], None] = lambda room, event: None

    @property
    def is_connected(self) -> bool:
        """Whether this process has the circle open."""
        return self.here is not None

    async def run(self) -> None:
        """Keep the circle up to date until cancelled."""
        self.talk.catch_up()
        while True:
            try:
                async with AsyncExitStack() as stack:
                    self.here = await self._connected(stack)
                    self.trouble = ""
                    await self._attend(self.here)
            except InUse:
                self.here = None
                await self._look_on()
            except (Hinted, OSError) as error:
                self.here, self.trouble = None, str(error)
                self.changed(self, None)
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
        return (*words, *((IS_MOBILE,) if options.is_mobile else ()), *self._words)

    def tell_words(self, words: Iterable[str]) -> None:
        """Tell others more of what this node can or does, a call it is in for instance."""
        self._words = tuple(words)
        if self.here is not None:
            self.here.can(*self._can())

    def _before_speaking(self) -> None:
        self.talk.catch_up()
        self.talk.tend()

    def _taken(self, node: bytes, hashes: list[bytes]) -> None:
        self._store.taken_by(self.circle.id, hashes, node)
        self.changed(self, None)

    # --- while this process has it open ------------------------------------------------------

    async def _attend(self, here: Connection) -> None:
        tending = asyncio.create_task(self._tend(here))
        try:
            async for event in here:
                self._happened(event)
        finally:
            tending.cancel()
            await asyncio.gather(tending, return_exceptions=True)
            with suppress(Hinted):
                self._store.show_present(self.circle.id, [])

    def _happened(self, event: events.Event) -> None:
        circle = self.circle.id
        match event:
            case events.Said():
                self.talk.catch_up()
            case events.Rekeyed() | events.LeftOut():
                self.talk.resync()
            case events.State():
                self._store.show_state(circle, event.service, event.state, event.why)
            case _:
                pass
        self.changed(self, event)

    async def _tend(self, here: Connection) -> None:
        """Write down who is there, drop what is too old, mend keys."""
        expire_at = 0.0
        rim = self.options.rim
        while True:
            with suppress(Hinted):
                if self.talk.catch_up():
                    self.changed(self, None)
                self._show_present(here)
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
            self.changed(self, None)

    # --- while another process has it open ------------------------------------------------------

    async def _look_on(self) -> None:
        """Read what another process brings, until it ends."""
        until = asyncio.get_running_loop().time() + TRY_AGAIN_S
        present = None
        while asyncio.get_running_loop().time() < until:
            found = self._store.present(self.circle.id)
            if self.talk.catch_up() or found != present:
                self.changed(self, None)
            present = found
            await asyncio.sleep(LOOK_S)

    @property
    def path_of(self) -> Mapping[bytes, str]:
        """How each member is reached, by the best path of its nodes."""
        order = ("tcp", "webrtc", "relay", "none")
        best: dict[bytes, str] = {}
        for node in self._store.present(self.circle.id):
            known = best.get(node.member, "none")
            best[node.member] = min(known, node.path, key=order.index)
        return best

    def peers_shown(self) -> list[str]:
        """Return where this node is reached directly, for an invite."""
        if self.here is None:
            return []
        found = []
        for one in self.here.reached_at:
            host = f"[{one.host}]" if ":" in one.host else one.host
            found.append(f"{host}:{one.port}")
        return found[:4]


class Profile:
    """All circles of a profile, in one store; use it as ``async with``."""

    def __init__(self, store: Store, options: Options | None = None) -> None:
        self.store, self.options = store, options or Options()
        self.rooms: dict[str, Room] = {}
        self.changed: Callable[[Room, events.Event | None], None] = lambda room, event: None
        self._running: dict[str, asyncio.Task[None]] = {}

    async def __aenter__(self) -> Profile:
        for name, room in self.rooms.items():
            self._start(name, room)
        return self

    async def __aexit__(self, *exc: object) -> None:
        for task in self._running.values():
            task.cancel()
        await asyncio.gather(*self._running.values(), return_exceptions=True)
        self._running.clear()
        for room in self.rooms.values():
            room.circle.close()

    def add(self, name: str, path: Path | Circle, *, start: bool = False) -> Room:
        """Have a circle in the profile; raises `circle.file.Unusable`."""
        circle = path if isinstance(path, Circle) else Circle.open(path)
        count = len(self.rooms)
        options = self.options
        if options.port:
            port = options.port + count
            options = _with_port(options, port)
        room = Room(name, circle, self.store, options)
        room.changed = lambda room, event: self.changed(room, event)
        self.rooms[name] = room
        if start:
            self._start(name, room)
        return room

    async def drop(self, name: str) -> None:
        """Have a circle in the profile no longer, and close it."""
        room, task = self.rooms.pop(name), self._running.pop(name, None)
        if task is not None:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
        self.store.forget(room.circle.id)
        room.circle.close()

    def _start(self, name: str, room: Room) -> None:
        self._running[name] = asyncio.create_task(room.run())


def _with_port(options: Options, port: int) -> Options:
    from dataclasses import replace

    return replace(options, port=port)
