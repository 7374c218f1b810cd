"""A member in Python that is there while a test does something else, pages for instance."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable, Coroutine, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

from muster.chat.node import Options, Profile, Room
from muster.chat.store import Store
from muster.circle import Circle, events
from muster.circle.links import Link
from muster.circle.pipes import Message, Pipes
from muster.invites import Invite, ServiceAddress
from tests.support.members2 import Present, present

_T = TypeVar("_T")


class Program:
    """A member with an event loop of its own."""

    def __init__(self, circle: Circle, member: Present, loop: asyncio.AbstractEventLoop) -> None:
        self.circle, self.member, self._loop = circle, member, loop

    def run(self, work: Coroutine[Any, Any, _T], *, seconds: float = 30) -> _T:
        """Do something in its loop, and wait for it."""
        return asyncio.run_coroutine_threadsafe(work, self._loop).result(seconds)

    def says(self, text: str) -> None:
        self.run(self.member.here.say(text))

    def reads(self, text: str) -> None:
        self.run(self.member.reads(text))

    def sees(self, name: str) -> None:
        self.run(self.member.sees(name))

    def meets_at(self, service: ServiceAddress) -> None:
        """Meet at one more service."""

        async def add() -> None:
            self.circle.file.add_services([service])
            self.member.here.meet_elsewhere()
            await asyncio.sleep(0.1)
            await self.member.live()

        self.run(add())

    def linked(self) -> Link:
        """Wait until another node has opened a link."""

        async def wait() -> Link:
            await self.member.until(lambda told: bool(self.member.of(events.Linked)), "a link")
            return self.member.of(events.Linked)[-1].link

        return self.run(wait())

    def exchanges(self, link: Link, pipe: str, data: Any) -> tuple[Message, bytes]:
        """Wait for one file by a pipe, and send something back; returns the file's bytes too."""

        async def both() -> tuple[Message, bytes]:
            async with Pipes(link) as pipes:
                found = await anext(pipes)
                raw = await asyncio.to_thread(found.data.read_bytes)
                await pipes.send(pipe, data)
                return found, raw

        return self.run(both())


class Chatting:
    """A member with our chat, without a screen, in an event loop of its own."""

    def __init__(self, room: Room, loop: asyncio.AbstractEventLoop) -> None:
        self._room, self._loop = room, loop

    @property
    def me(self) -> str:
        return self._room.talk.me.hex()

    def _run(self, work: Callable[[], _T]) -> _T:
        async def do() -> _T:
            return work()

        return asyncio.run_coroutine_threadsafe(do(), self._loop).result(30)

    def _until(self, work: Callable[[], Any]) -> Any:
        end = time.monotonic() + 20
        while not (found := self._run(work)):
            assert time.monotonic() < end, self._run(self._room.places)
            time.sleep(0.05)
        return found

    def _id(self, name: str) -> bytes:
        return self._room.talk.channel(name).id

    def sees_channel(self, name: str) -> None:
        """Wait until a channel can be read."""
        self._until(lambda: any(one.name == name for one in self._room.talk.facts.shown()))

    def says(self, channel: str, text: str) -> None:
        self._run(lambda: self._room.say(text, channel=self._id(channel)))

    def reads(self, channel: str, text: str) -> None:
        """Wait until a text is shown in a channel."""
        self._until(lambda: any(one.text == text for one in self._room.page(self._id(channel))))


@contextmanager
def chatting(invite: str, name: str, directory: Path) -> Iterator[Chatting]:
    """Join a circle with our chat, and be there for the length of a block."""

    async def main(started: Callable[[Chatting], None], stop: asyncio.Event) -> None:
        circle = Circle.join(Invite.parse(invite), directory / "us.muster2")
        store = Store.open(directory / "chat.db")
        profile = Profile(store, Options(name=name, listens=False))
        room = profile.add("us", circle)
        async with profile:
            started(Chatting(room, asyncio.get_running_loop()))
            await stop.wait()
        store.close()

    with _threaded(main) as made:
        yield made


@contextmanager
def program(
    invite: Invite | str, name: str, path: Path, *, opens: bool = False, **options: Any
) -> Iterator[Program]:
    """Join a circle, or open one that was made before; be there for the length of a block."""

    async def main(started: Callable[[Program], None], stop: asyncio.Event) -> None:
        if opens:
            circle = Circle.open(path)
        else:
            found = Invite.parse(invite) if isinstance(invite, str) else invite
            circle = Circle.join(found, path)
        async with present(circle, name, **options) as member:
            started(Program(circle, member, asyncio.get_running_loop()))
            await stop.wait()
        circle.close()

    with _threaded(main) as made:
        yield made


@contextmanager
def _threaded(
    main: Callable[[Callable[[_T], None], asyncio.Event], Coroutine[Any, Any, None]],
) -> Iterator[_T]:
    """Run something in a thread with an event loop of its own, for the length of a block."""
    begun = threading.Event()
    made: list[_T] = []
    loops: list[tuple[asyncio.AbstractEventLoop, asyncio.Event]] = []
    failed: list[BaseException] = []

    def started(one: _T) -> None:
        made.append(one)
        begun.set()

    async def run() -> None:
        stop = asyncio.Event()
        loops.append((asyncio.get_running_loop(), stop))
        await main(started, stop)

    def body() -> None:
        try:
            asyncio.run(run())
        except BaseException as error:
            failed.append(error)
        finally:
            begun.set()

    thread = threading.Thread(target=body)
    thread.start()
    begun.wait(30)
    try:
        if failed:
            raise failed[0]
        yield made[0]
    finally:
        if thread.is_alive():
            loop, stop = loops[0]
            loop.call_soon_threadsafe(stop.set)
        thread.join(30)
    if failed:
        raise failed[0]
