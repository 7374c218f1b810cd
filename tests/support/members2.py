"""Members of circles of version 2 by our own client, at services that really run."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any, TypeVar
from urllib.request import urlopen

from muster.circle import Circle, Connection, events
from muster.circle.events import Event
from muster.invites import ServiceAddress

_T = TypeVar("_T")


def play(scene: Coroutine[Any, Any, _T], *, seconds: float = 90) -> _T:
    async def main() -> _T:
        async with asyncio.timeout(seconds):
            return await scene

    return asyncio.run(main())


def address(base: str, *, code: str = "") -> ServiceAddress:
    """Return the whole address of a running service."""
    with urlopen(f"{base}/v2/info", timeout=10) as answer:  # noqa: S310 - our own server
        told = json.loads(answer.read())
    return ServiceAddress(base, bytes.fromhex(told["service_id"]), code)


def joined(circle: Circle, path: Path | None = None) -> Circle:
    """Another member of a circle."""
    return Circle.join(circle.invite(), path)


class Present:
    """A member who is there, and remembers everything that it was told."""

    def __init__(self, here: Connection) -> None:
        self.here, self.circle = here, here.circle
        self.told: list[Event] = []
        self._reading = asyncio.create_task(self._read())
        self._more = asyncio.Event()

    async def _read(self) -> None:
        async for event in self.here:
            self.told.append(event)
            self._more.set()

    async def until(self, found: Callable[[list[Event]], bool], what: str = "it") -> None:
        """Wait until what was told comes to something."""
        try:
            async with asyncio.timeout(30):
                while not found(self.told):
                    self._more.clear()
                    await self._more.wait()
        except TimeoutError:
            told = "\n".join(map(str, self.told[-30:]))
            raise AssertionError(f"{what} has not come: {told}") from None

    def of(self, kind: type[_T]) -> list[_T]:
        return [event for event in self.told if isinstance(event, kind)]

    @property
    def texts(self) -> list[str]:
        return [one.text for one in self.of(events.Said) if one.text]

    async def reads(self, *texts: str) -> None:
        await self.until(lambda told: set(texts) <= set(self.texts), f"one of {texts}")

    async def says_at_least(self, count: int) -> None:
        """Wait until so many different texts were told."""
        await self.until(lambda told: len(set(self.texts)) >= count, f"{count} texts")

    async def sees(self, *names: str) -> None:
        await self.until(
            lambda told: set(names) <= {peer.name for peer in self.here.peers}, f"one of {names}"
        )

    async def live(self) -> None:
        """Wait until the socket is open at every service."""
        async with asyncio.timeout(30):
            while not all(one.state == "live" for one in self.here.attendants):
                await asyncio.sleep(0.02)

    async def stop(self) -> None:
        self._reading.cancel()
        with suppress(asyncio.CancelledError):
            await self._reading


@asynccontextmanager
async def present(circle: Circle, name: str, **options: Any) -> AsyncIterator[Present]:
    async with circle.connect(name=name, **options) as here:
        member = Present(here)
        try:
            yield member
        finally:
            await member.stop()


def texts_of(circle: Circle) -> list[str]:
    """Everything that was said and is kept, in the order of arrival."""
    return [one.text for one in circle.told() if one.text]


def state(circle: Circle) -> dict[str, list[str]]:
    """What a member believes, whatever order it came in: the chains, and the epoch."""
    chains: dict[str, list[str]] = {"epoch": [circle.epoch.secret.hex()]}
    for author in sorted(circle.file.tips()):
        chains[author.hex()] = [kept.hash.hex() for kept in circle.file.records(author=author)]
    return chains
