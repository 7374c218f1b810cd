"""A program and the browser library meet, each by its own code: both have the same records then.

The library runs in a process of Node; the messages of the link pass between the two by pipes.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from muster.base64url import encode
from muster.circle import Circle, Connection
from muster.exchange import Closed
from muster.records import GENERAL
from tests.support import javascript, node
from tests.support.members2 import joined, play

SCRIPT = Path(__file__).parents[1] / "web" / "meeting.mjs"


class Pipe:
    """A link to the process, as meetings see one."""

    path = "tcp"
    has_come = False
    closed = False

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self.other = bytes(16)
        self.session = SimpleNamespace(waits=0)
        self.writing = asyncio.Lock()
        self.seen: list[dict[str, Any]] = []
        self._process = process

    async def send(self, data: bytes) -> None:
        assert self._process.stdin is not None
        try:
            self._process.stdin.write(len(data).to_bytes(4, "big") + data)
            await self._process.stdin.drain()
        except ConnectionError:
            raise Closed("the process has ended") from None

    async def drained(self) -> None:
        """The pipe takes everything."""

    def __aiter__(self) -> AsyncIterator[bytes]:
        return self

    async def __anext__(self) -> bytes:
        assert self._process.stdout is not None
        try:
            size = int.from_bytes(await self._process.stdout.readexactly(4), "big")
            return await self._process.stdout.readexactly(size)
        except asyncio.IncompleteReadError:
            raise StopAsyncIteration from None

    async def aclose(self) -> None:
        self.abort()

    def abort(self) -> None:
        assert self._process.stdin is not None
        self._process.stdin.close()


class Page:
    """The process: what it says that it has."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self.process = process
        self.told: dict[str, Any] = {}

    async def listen(self) -> None:
        assert self.process.stderr is not None
        async for line in self.process.stderr:
            self.told = json.loads(line)


@asynccontextmanager
async def page(given: Path) -> AsyncIterator[Page]:
    process = await asyncio.create_subprocess_exec(
        *(node.executable(), SCRIPT, given),
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        env=javascript.environment(),
        limit=1 << 24,
    )
    made = Page(process)
    listening = asyncio.create_task(made.listen())
    try:
        yield made
        await asyncio.wait_for(process.wait(), 10)
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
        await asyncio.gather(listening, return_exceptions=True)


def say(circle: Circle, *spoken: str) -> None:
    for text in spoken:
        circle.file.draft(GENERAL, "text", {"text": text})
    for draft in circle.file.drafts():
        circle.record(draft)


def here(circle: Circle) -> list[str]:
    return sorted(kept.hash.hex() for kept in circle.file.records())


def runs(circle: Circle) -> dict[str, list[Any]]:
    return {
        encode(author): [run.first, run.last, run.hash.hex(), run.digest.hex()]
        for author, run in circle.file.runs().items()
    }


def test_a_program_and_a_page_that_meet_have_the_same_records(tmp_path: Path) -> None:
    async def scene() -> None:
        ann = Circle.new()
        bob = joined(ann)
        say(ann, *(f"program {number}" for number in range(300)), "é" * 60_000)
        say(bob, *(f"both {number}" for number in range(10)))
        chain = list(bob.file.records())
        for at in (0, 1, 2, 7, 8, 9):
            ann.take_record(chain[at].said, 0)
        dropped = [kept.hash for kept in list(ann.file.records(author=ann.member.public.raw))[4:7]]
        ann.file.erase(dropped)
        given = tmp_path / "given.json"
        records = [
            {"text": encode(kept.said.text), "signature": encode(kept.said.signature)}
            for kept in chain[2:7]
        ]
        given.write_text(json.dumps({"circle": ann.id.hex(), "records": records}))
        async with page(given) as theirs, Connection(ann, name="Ann") as hers:
            link = Pipe(theirs.process)
            meeting = asyncio.create_task(hers.meetings.hold(link))  # type: ignore[arg-type]

            def same() -> bool:
                return bool(theirs.told) and theirs.told["here"] == here(ann)

            await until(lambda: same() and theirs.told["missing"] == [], theirs)
            assert len(here(ann)) >= 300 + 301 + 10 - 3
            assert ann.file.missing() == []
            assert theirs.told["presences"] >= 1
            tips, ours = theirs.told["runs"], runs(ann)
            assert tips.keys() == ours.keys()
            own, both = (encode(one.member.public.raw) for one in (ann, bob))
            (other,) = tips.keys() - {own, both}
            assert tips[both] == ours[both]
            assert tips[own][:3] == [8, *ours[own][1:3]]  # before it is what she has dropped
            assert ours[other][:3] == [3, *tips[other][1:3]]  # and what the page has deleted
            before = len(here(ann))
            await hers.say("say something")
            await until(lambda: same() and len(here(ann)) == before + 2, theirs)
            await link.aclose()
            await meeting

    play(scene())


async def until(found: Any, theirs: Page) -> None:
    for _ in range(600):
        if found():
            return
        assert theirs.process.returncode is None, theirs.told
        await asyncio.sleep(0.05)
    raise AssertionError({key: str(value)[:300] for key, value in theirs.told.items()})
