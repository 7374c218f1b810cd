"""A program and the browser library over one link, each by its own code: they exchange a file.

The library runs in a process of Node; signals and frames pass between the two as lines.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import os
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from capsules.keys import SigningKey
from muster.base64url import decode, encode
from muster.circle.links import Link, Links
from muster.circle.pipes import Pipes
from muster.signals import Signal
from tests.support import node
from tests.support.members2 import play

SCRIPT = Path(__file__).parents[1] / "web" / "node.mjs"
KEY = SigningKey(bytes(32)).verify_key


class Wire:
    """What `Links` asks of a connection, and the process at the other end."""

    def __init__(self, process: asyncio.subprocess.Process, mine: bytes, theirs: bytes) -> None:
        self._process, self._theirs = process, theirs
        self.node = SimpleNamespace(id=mine)
        self.rim = SimpleNamespace(entropy=os.urandom)
        self.peers: list[Any] = []
        self.linked: asyncio.Queue[Link] = asyncio.Queue()
        self.links = Links(self, self.linked.put_nowait)  # type: ignore[arg-type]

    async def _say(self, what: dict[str, Any]) -> None:
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps(what).encode() + b"\n")
        await self._process.stdin.drain()

    async def signal(self, to: bytes, kind: str, body: dict[str, Any], *, session: bytes) -> bytes:
        at_ms = time.time_ns() // 1_000_000
        told = {
            "to": to.hex(),
            "session": session.hex(),
            "kind": kind,
            "body": body,
            "at_ms": at_ms,
        }
        text = json.dumps(told).encode()
        await self._say({"signal": told, "text": encode(text)})
        return text

    async def frame(self, to: bytes, payload: bytes) -> None:
        assert to == self._theirs
        await self._say({"payload": encode(payload)})

    async def hear(self) -> None:
        assert self._process.stdout is not None
        async for line in self._process.stdout:
            told = json.loads(line)
            if "payload" in told:
                self.links.passed(self._theirs, decode(told["payload"]))
                continue
            said = told["signal"]
            session = bytes.fromhex(said["session"])
            found = Signal(KEY, bytes(16), session, said["kind"], said["at_ms"], said["body"])
            self.links.signalled(_From(found, self._theirs), decode(told["text"]))  # type: ignore[arg-type]


class _From:
    """A signal of the node at the other end, whose key nobody needs here."""

    def __init__(self, signal: Signal, node_id: bytes) -> None:
        self.node_id = node_id
        self.kind, self.session = signal.kind, signal.session
        self.body, self.at_ms = signal.body, signal.at_ms


@asynccontextmanager
async def page(mine: bytes, theirs: bytes, *opens: str) -> AsyncIterator[Wire]:
    process = await asyncio.create_subprocess_exec(
        str(node.executable()),
        str(SCRIPT),
        theirs.hex(),
        mine.hex(),
        *opens,
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        limit=1 << 20,
    )
    wire = Wire(process, mine, theirs)
    hearing = asyncio.create_task(wire.hear())
    try:
        yield wire
        assert await asyncio.wait_for(process.wait(), 10) == 0
    finally:
        hearing.cancel()
        if process.returncode is None:
            process.kill()
            await process.wait()
        await wire.links.aclose()


ANN, BOB = bytes([1] * 16), bytes([2] * 16)


def test_a_program_opens_a_link_and_a_file_goes_there_and_back(tmp_path: Path) -> None:
    async def scene() -> None:
        file = tmp_path / "été.bin"
        file.write_bytes(os.urandom(5_000_000))
        digest = hashlib.sha256(file.read_bytes()).hexdigest()
        async with page(ANN, BOB) as wire, Pipes(await wire.links.open(BOB)) as pipes:
            await pipes.send("chat", {"a": [1, 0.5, "é", None]})
            assert (await anext(pipes)).data == {"a": [1, 0.5, "é", None]}
            await pipes.send("text", "né" * 40_000)
            assert (await anext(pipes)).data == "né" * 40_000
            await pipes.send("raw", bytes(range(256)) * 100)
            assert (await anext(pipes)).data == bytes(range(256)) * 100
            await pipes.send("cursor", [1, 2], reliable=False)
            assert (await anext(pipes)).data == [1, 2]
            await pipes.send("files", file)
            seen, back = await anext(pipes), await anext(pipes)
            assert seen.data == {"name": "été.bin", "size": 5_000_000, "digest": digest}
            assert (back.pipe, back.name) == ("files", "été.bin")
            assert hashlib.sha256(back.data.read_bytes()).hexdigest() == digest
            await pipes.send("end", 1)
            assert (await anext(pipes)).data == 1
            with pytest.raises(StopAsyncIteration):
                await asyncio.wait_for(anext(pipes), 10)

    play(scene())


@pytest.mark.parametrize(("mine", "theirs"), [(ANN, BOB), (BOB, ANN)], ids=["lower", "higher"])
def test_a_page_opens_a_link_and_of_two_at_once_one_stands(mine: bytes, theirs: bytes) -> None:
    async def scene() -> None:
        async with page(mine, theirs, "opens") as wire:
            opened = await wire.links.open(theirs)
            while not wire.linked.empty():
                opened = wire.linked.get_nowait()
            async with Pipes(opened) as pipes:
                await pipes.send("chat", 7)
                found = [(await anext(pipes)).data, (await anext(pipes)).data]
                assert sorted(map(str, found)) == ["7", "from a page"]
                await pipes.send("end", 1)
                assert (await anext(pipes)).data == 1

    play(scene())
