"""Listening: `muster listen`, which shows what is said in a circle."""

from __future__ import annotations

import argparse
import asyncio
import signal
import sys
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from datetime import datetime
from importlib import import_module

from muster.cli import output, times
from muster.cli.base import base_url, explained, open_client
from muster.cli.home import Home, Membership
from muster.cli.output import Misuse
from muster.cli.sending import ATTEMPTS, told
from muster.errors import InvalidSignature, Refused
from muster.felund.client import Client
from muster.felund.crypto import CONTROL, Note
from muster.felund.records import Peer
from muster.felund.sockets import Unreachable
from muster.felund.subscription import Event, Joined, Left, Subscription

TTL_S = 600
RECENT = 20
"""How many messages the first `listen` shows."""

PATIENCE_S = 3.0
"""How long there may be no live connection before we speak of it."""


def listen(arguments: argparse.Namespace) -> int:
    """Show what was said since the last time, and what is said from now on."""
    if arguments.port is not None:
        raise Misuse("a felund circle has no direct links", "omit --port")
    import_module("websockets")  # say now that it is missing: in the background nobody would
    home = Home.from_environment()
    membership = home.chosen(arguments.circle)
    base = base_url(arguments.base or membership.base_url)
    since = None if arguments.since is None else times.since(arguments.since, now=time.time())
    listener = Listener(home, membership, base, as_json=arguments.json)
    asyncio.run(listener.run(since=since))
    return output.OK


def peers(arguments: argparse.Namespace) -> int:
    """Show who is there, as far as nodes of a felund circle say it."""
    home = Home.from_environment()
    membership = home.chosen(arguments.circle)
    found = asyncio.run(_peers(membership, home.node_id()))
    for peer in found:
        places = [f"{one.host}:{one.port}" for one in peer.endpoints]
        if arguments.json:
            output.dump({"node_id": peer.node_id, "endpoints": places, "here": True})
        else:
            output.show(f"{output.name(peer.node_id, most=24)}  {' '.join(places)}".rstrip())
    if not found and not arguments.json:
        output.say("nobody else is there")
    return output.OK


async def _peers(membership: Membership, node_id: str) -> tuple[Peer, ...]:
    base, circle = membership.base_url, membership.circle
    async with open_client(base, circle, node_id, attempts=ATTEMPTS) as client:
        with explained(base, circle.circle_hint):
            await client.register(ttl_s=30)
            found = (await client.all_peers()).peers
            await client.unregister()
            return found


@dataclass
class Listener:
    """One `muster listen`: shows events, stays registered, remembers how far it came."""

    home: Home
    membership: Membership
    base: str
    as_json: bool = False
    ttl_s: float = TTL_S
    again_s: float = 5.0
    names: dict[str, str] = field(default_factory=dict)
    day: str = ""
    kept: int = 0

    async def run(self, *, since: float | None) -> None:
        """Listen until Ctrl-C, SIGTERM, or a refusal that is not retryable."""
        node_id = self.home.node_id()
        opened = open_client(self.base, self.membership.circle, node_id, attempts=ATTEMPTS)
        async with opened as client, stopping() as stop:
            with explained(self.base, self.membership.circle.circle_hint):
                await client.register(ttl_s=TTL_S)
                try:
                    await self._catch_up(client, since=since)
                    await self._stay(client, stop)
                finally:
                    await self._leave(client)
            self._remark("you left")

    async def _catch_up(self, client: Client, *, since: float | None) -> None:
        """Show what was missed; the first time, the last of what there is."""
        kept = self.home.cursor(self.membership, self.base)
        client.cursor = 0 if since is not None else kept or 0
        missed = [note async for note in client.receive()]
        if kept is not None and client.cursor < kept:
            kept = None  # no such place is there: as if it were the first time
        older = 0
        if since is not None:
            missed = [note for note in missed if note.created_ts >= since]
        elif kept is None:
            older = max(len(missed) - RECENT, 0)
            missed = missed[older:]
        if older:
            self._remark(f"{older} older messages: muster listen --since all")
        if missed and kept is not None and since is None:
            self._remark(f"{len(missed)} while you were away:")
        for note in missed:
            self._show(note)
        if client.unreadable:
            self._remark(f"{client.unreadable} messages could not be read")
        self._keep(client.cursor)
        self._remark(f"listening to '{self.membership.name}' at {self.base}; Ctrl-C ends it")

    async def _stay(self, client: Client, stop: asyncio.Event) -> None:
        async with Subscription(client, after=client.cursor, signals=False) as events:
            tasks = [
                asyncio.create_task(work)
                for work in (
                    self._follow(client, events),
                    self._stay_registered(client),
                    self._watch(events),
                    stop.wait(),
                )
            ]
            try:
                done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
                for task in done:
                    task.result()
            finally:
                for task in tasks:
                    task.cancel()
                await asyncio.gather(*tasks, return_exceptions=True)

    async def _follow(self, client: Client, events: Subscription) -> None:
        """Show what happens; a service that has lost its data is told again who we are."""
        clock = asyncio.get_running_loop().time
        again_at = -self.again_s
        while True:
            try:
                async for event in events:
                    self._show(event)
                    self._keep(events.cursor)
            except InvalidSignature:
                if clock() - again_at < self.again_s:
                    raise  # registering was accepted and has not helped
                await self._register(client)
                again_at = clock()
                self._remark("the service had forgotten this circle: registered again")

    async def _stay_registered(self, client: Client) -> None:
        while True:
            await asyncio.sleep(self.ttl_s / 2)
            await self._register(client)

    async def _register(self, client: Client) -> None:
        """Register, as soon as that is possible; raises a refusal that is not retryable."""
        while True:
            try:
                await client.register(ttl_s=TTL_S)
            except (Refused, Unreachable) as error:
                if isinstance(error, Refused) and not error.passing:
                    raise
                await asyncio.sleep(self.again_s)
            else:
                return

    async def _watch(self, events: Subscription) -> None:
        """Report a live connection that stays lost, and its return."""
        said_lost, down_s, step_s = False, 0.0, 0.25
        while True:
            await asyncio.sleep(step_s)
            down_s = 0.0 if events.live else down_s + step_s
            if down_s >= PATIENCE_S and not said_lost:
                said_lost = True
                why = f" ({' '.join(str(events.trouble).split())})" if events.trouble else ""
                self._remark(f"no live connection{why}: asking every few seconds, and trying again")
            elif events.live and said_lost:
                said_lost = False
                self._remark("the connection is live again")

    async def _leave(self, client: Client) -> None:
        if sys.stderr.isatty():
            output.say("")  # below the terminal's ^C
        with suppress(Refused, Unreachable, TimeoutError):
            async with asyncio.timeout(2):
                await client.unregister()

    def _keep(self, cursor: int) -> None:
        if cursor != self.kept:
            self.home.keep_cursor(self.membership, self.base, cursor)
            self.kept = cursor

    # --- what is shown --------------------------------------------------------

    def _show(self, event: Event) -> None:
        match event:
            case Note():
                self.names[event.author_node_id] = event.display_name
                if self.as_json:
                    output.dump({"t": "message", **told(event)})
                elif event.channel_id != CONTROL:
                    self._show_note(event)
            case Joined():
                self._presence("joined", event.peer.node_id)
            case Left():
                self._presence("left", event.node_id)
            case _:
                pass

    def _show_note(self, note: Note) -> None:
        try:
            written = datetime.fromtimestamp(note.created_ts).astimezone()
            day, hour = f"{written:%Y-%m-%d}", f"{written:%H:%M}"
        except (OverflowError, ValueError, OSError):
            day, hour = "some day", "--:--"
        if day != self.day:
            self.day = day
            output.show(f"-- {day} --")
        who = output.name(note.display_name) or output.name(note.author_node_id, most=8)
        output.show_wrapped(f"{hour} {who}: {note.text}", indent=" " * 6)

    def _presence(self, what: str, node_id: str) -> None:
        if self.as_json:
            output.dump({"t": what, "node_id": node_id})
        else:
            name = output.name(self.names.get(node_id, ""))
            node = output.name(node_id, most=8 if name else 24)
            self._remark(f"{name} ({node}) {what}" if name else f"{node} {what}")

    def _remark(self, text: str) -> None:
        """Say something about the connection; it goes to stderr."""
        output.say(f"* {text}")


@asynccontextmanager
async def stopping() -> AsyncIterator[asyncio.Event]:
    """Turn Ctrl-C and SIGTERM into an event, so that there is time to say goodbye."""
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    with suppress(NotImplementedError):  # on Windows Ctrl-C cancels this task instead
        for number in (signal.SIGINT, signal.SIGTERM):
            loop.add_signal_handler(number, stop.set)
    try:
        yield stop
    finally:
        with suppress(NotImplementedError):
            for number in (signal.SIGINT, signal.SIGTERM):
                loop.remove_signal_handler(number)
