"""One node of a circle, told what to do by lines of JSON, that says in others what happens.

    python -m tests.networks.node FILE [--name NAME] [--host HOST] [--port N] [--shown HOST]

It hears `{"say": text}`, `{"link": name}` and `{"end": true}`. It says what `is` the matter:
`ready`, `listens`, `said`, `taken` or `kept` (what became of a `say`), `joined`, `left`, `state`,
`met` (who is met directly now), `link` (and by which path) and `trouble`.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import sys
from contextlib import suppress
from pathlib import Path
from typing import Any

from muster.circle import Circle, Connection, events
from muster.circle.connection import NotLeft
from muster.circle.links import Link, NoLink

LOOK_S = 0.05


async def run(chosen: argparse.Namespace) -> None:
    """Be a node until it is told to end, or nobody can tell it any more."""
    circle = Circle.open(chosen.file)
    try:
        async with circle.connect(name=chosen.name or chosen.file.stem) as here:
            if chosen.port is not None:
                place = await here.listen(chosen.host, chosen.port, shown=chosen.shown)
                tell("listens", host=place.host, port=place.port)
            tell("ready", name=here.name)
            async with asyncio.TaskGroup() as tasks:
                others = [
                    tasks.create_task(work(here)) for work in (_watch, _watch_met, _watch_links)
                ]
                await _hear(here, tasks)
                for one in others:
                    one.cancel()
    finally:
        circle.close()


def tell(what: str, **more: Any) -> None:
    """Say what happens, in one line."""
    print(json.dumps({"is": what} | more), flush=True)


_links: dict[bytes, Link] = {}


async def _hear(here: Connection, tasks: asyncio.TaskGroup) -> None:
    reader = asyncio.StreamReader()
    await asyncio.get_running_loop().connect_read_pipe(
        lambda: asyncio.StreamReaderProtocol(reader), sys.stdin
    )
    doing: list[asyncio.Task[None]] = []
    while line := await reader.readline():
        asked = json.loads(line)
        if "end" in asked:
            break
        if "say" in asked:
            doing.append(tasks.create_task(_say(here, asked["say"])))
        if "link" in asked:
            doing.append(tasks.create_task(_link(here, asked["link"])))
    for one in doing:
        one.cancel()


async def _say(here: Connection, text: str) -> None:
    try:
        await here.say(text)
    except NotLeft as error:
        tell("kept", text=text, why=str(error))
    else:
        tell("taken", text=text)


async def _link(here: Connection, name: str) -> None:
    found = next((peer for peer in here.peers if peer.name == name), None)
    if found is None:
        tell("trouble", why=f"{name} is not here")
        return
    try:
        link = await here.link(found)
    except NoLink as error:
        tell("trouble", why=str(error))
    else:
        _links[link.session_id] = link


async def _watch(here: Connection) -> None:
    async for event in here:
        match event:
            case events.Said():
                if event.text:
                    tell("said", text=event.text, author=event.name, mine=event.mine)
            case events.Joined(peer) | events.Left(peer):
                tell(type(event).__name__.lower(), name=peer.name)
            case events.State():
                tell("state", service=event.service, state=event.state, why=event.why)
            case events.Linked(link):
                _links[link.session_id] = link
            case events.Missing() | events.Forked() | events.Distrusted() | events.Unread():
                tell("trouble", why=repr(event))
            case _:
                pass


async def _watch_met(here: Connection) -> None:
    """Say who is met directly, whenever that changes."""
    before: list[str] = []
    while True:
        met = {peer.node_id: peer.name for peer in here.peers}
        now = sorted(met.get(node, node.hex()) for node in here.met)
        if now != before:
            tell("met", names=now)
            before = now
        await asyncio.sleep(LOOK_S)


async def _watch_links(here: Connection) -> None:
    """Say by which path each link goes, whenever that changes."""
    before: dict[bytes, str] = {}
    while True:
        for session, link in list(_links.items()):
            if before.get(session) != link.path:
                before[session] = link.path
                names = {peer.node_id: peer.name for peer in here.peers}
                tell("link", name=names.get(link.other, link.other.hex()), path=link.path)
        await asyncio.sleep(LOOK_S)


def main() -> None:
    """Read what to be from the command line."""
    parser = argparse.ArgumentParser()
    parser.add_argument("file", type=Path)
    parser.add_argument("--name", default="")
    parser.add_argument("--host", default="0.0.0.0")  # noqa: S104 - in a namespace of its own
    parser.add_argument("--port", type=int)
    parser.add_argument("--shown", default="")
    with suppress(KeyboardInterrupt):
        asyncio.run(run(parser.parse_args()))


if __name__ == "__main__":
    main()
