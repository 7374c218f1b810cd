"""A member in Python that is there while a test does something else, pages for instance."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Coroutine, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

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


@contextmanager
def program(
    invite: Invite | str, name: str, path: Path, *, opens: bool = False, **options: Any
) -> Iterator[Program]:
    """Join a circle, or open one that was made before; be there for the length of a block."""
    started, stop = threading.Event(), asyncio.Event()
    made: list[Program] = []
    failed: list[BaseException] = []

    async def main() -> None:
        if opens:
            circle = Circle.open(path)
        else:
            found = Invite.parse(invite) if isinstance(invite, str) else invite
            circle = Circle.join(found, path)
        async with present(circle, name, **options) as member:
            made.append(Program(circle, member, asyncio.get_running_loop()))
            started.set()
            await stop.wait()
        circle.close()

    def body() -> None:
        try:
            asyncio.run(main())
        except BaseException as error:
            failed.append(error)
        finally:
            started.set()

    thread = threading.Thread(target=body)
    thread.start()
    started.wait(30)
    try:
        if failed:
            raise failed[0]
        yield made[0]
    finally:
        if made:
            made[0]._loop.call_soon_threadsafe(stop.set)
        thread.join(30)
    if failed:
        raise failed[0]
