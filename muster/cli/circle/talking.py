"""Talking: `muster send | listen | peers` in a circle of version 2."""

from __future__ import annotations

import argparse
import asyncio
import socket
import sys
import time
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from muster.circle import Circle, Connection, events
from muster.circle.circle import TEXT
from muster.circle.connection import NotLeft
from muster.circle.events import Event
from muster.circle.file import InUse
from muster.circle.peers import Peer
from muster.cli import output, times
from muster.cli.circle.opening import called, connected, day, opened
from muster.cli.home import Home
from muster.cli.listening import stopping
from muster.cli.output import Failure
from muster.cli.sending import text_of
from muster.records import GENERAL

RECENT = 20
"""How many messages the first `listen` shows."""

LOOK_S = 0.25
SHOWN = "shown"
OTHER_S = 15.0
"""How long the process that has the circle open may take to say a text."""

PATIENCE_S = 3.0


def send(arguments: argparse.Namespace) -> int:
    """Say a text; a `listen` of the same home says it, if there is one."""
    home = Home.from_environment()
    name = home.which(arguments.circle)
    text = text_of(arguments.text)
    with opened(home, name) as circle:
        circle.check_text(text)
        said = asyncio.run(_send(circle, text, called(arguments.name)))
        if arguments.json:
            output.dump({"circle": name, **_told(said)})
        else:
            output.show(f"sent to '{name}'")
    return output.OK


async def _send(circle: Circle, text: str, who: str) -> events.Said:
    try:
        async with connected(circle, who) as here:
            return await here.say(text)
    except InUse:
        return await _by_another(circle, text, who)


async def _by_another(circle: Circle, text: str, who: str) -> events.Said:
    """Have the process that has the circle open say it: two would fork the chain."""
    number = circle.file.draft(GENERAL, TEXT, {"text": text, "name": who})
    end = time.monotonic() + OTHER_S
    while time.monotonic() < end:
        draft = circle.file.drafted(number)
        if draft is not None and draft.hash and (draft.services or not circle.services):
            said = circle.said(draft.hash)
            if said is not None:
                return said
        await asyncio.sleep(0.05)
    raise NotLeft(
        "the process that has the circle open has not sent it so far",
        "it is kept, and sent as soon as a service takes it",
    )


def listen(arguments: argparse.Namespace) -> int:
    """Show what was said since the last time, and what is said from now on."""
    home = Home.from_environment()
    name = home.which(arguments.circle)
    since = None if arguments.since is None else times.since(arguments.since, now=time.time())
    with opened(home, name) as circle:
        place = None if arguments.port is None else (arguments.bind, arguments.port)
        asyncio.run(_Listener(circle, name, as_json=arguments.json, place=place).run(since=since))
    return output.OK


def peers(arguments: argparse.Namespace) -> int:
    """Show who is there now, and who was."""
    home = Home.from_environment()
    name = home.which(arguments.circle)
    with opened(home, name) as circle:
        try:
            found = asyncio.run(_peers(circle))
        except InUse:
            found = _seen_by_another(home, circle)
        _show_peers(circle, found, as_json=arguments.json)
    return output.OK


async def _peers(circle: Circle) -> list[Peer]:
    async with connected(circle, called()) as here:
        return here.peers


def _seen_by_another(home: Home, circle: Circle) -> list[Peer]:
    """Return who is there as the process saw it that has the circle open."""
    from muster.chat.store import NAME, Store

    store = Store.open(home.path / NAME)
    places = {one.id: one.endpoints for one in circle.file.members()}
    try:
        return [
            Peer(one.node, one.member, one.name, places.get(one.member, ()), tuple(one.words), 0)
            for one in store.present(circle.id)
        ]
    finally:
        store.close()


def _show_peers(circle: Circle, found: list[Peer], *, as_json: bool) -> None:
    there = {peer.member_id for peer in found}
    others = [one for one in circle.file.members() if one.id != circle.member.id]
    if as_json:
        for peer in found:
            output.dump(
                {
                    "name": peer.name,
                    "member_id": peer.member_id.hex(),
                    "node_id": peer.node_id.hex(),
                    "endpoints": [list(one) for one in peer.endpoints],
                    "here": True,
                    "at_ms": peer.at_ms,
                }
            )
        for one in others:
            if one.id not in there:
                told = {"name": one.name, "member_id": one.id.hex(), "here": False}
                output.dump({**told, "at_ms": one.at_ms})
        return
    if not found and not others:
        output.say("Nobody else has been here yet; 'muster circle invite' prints an invite.")
        return
    from rich.table import Table

    table = Table(box=None, pad_edge=False)
    for heading in ("who", "is", "reached at"):
        table.add_column(heading, overflow="fold")
    for peer in found:
        places = " ".join(f"{one.host}:{one.port}" for one in peer.endpoints) or "by the service"
        table.add_row(output.name(peer.name) or peer.member_id.hex()[:8], "here", places)
    for one in others:
        if one.id not in there:
            when = day(one.at_ms)
            table.add_row(output.name(one.name) or one.id.hex()[:8], f"was here {when}", "")
    output.draw(table)


@dataclass
class _Listener:
    """One `muster listen`: shows what happens, and remembers what it has shown."""

    circle: Circle
    name: str
    as_json: bool = False
    place: tuple[str, int] | None = None
    day: str = ""
    shown: int = 0

    async def run(self, *, since: float | None) -> None:
        """Listen until Ctrl-C or SIGTERM."""
        self._show_kept(since)
        if self.circle.is_out:
            self._remark("the founder has gone on without you: you read nothing new here")
        try:
            await self._be_there()
        except InUse:
            await self._look_on()

    async def _look_on(self) -> None:
        """Show what another process brings, a 'muster node' say, that has the circle open."""
        self._remark(f"listening to '{self.name}' beside another process; Ctrl-C ends it")
        async with stopping() as stop:
            while not stop.is_set():
                for one in self.circle.told(after=self.shown):
                    self._show(one)
                with suppress(TimeoutError):
                    async with asyncio.timeout(LOOK_S):
                        await stop.wait()

    async def _be_there(self) -> None:
        async with self.circle.connect(name=called()) as here, stopping() as stop:
            if self.place is not None:
                await self._be_reached(here, *self.place)
            following = asyncio.create_task(self._follow(here))
            stopped = asyncio.create_task(stop.wait())
            try:
                await here.ready()
                self._remark(f"listening to '{self.name}'{_where(here)}; Ctrl-C ends it")
                done, _ = await asyncio.wait(
                    {following, stopped}, return_when=asyncio.FIRST_COMPLETED
                )
                for task in done:
                    task.result()
            finally:
                following.cancel()
                stopped.cancel()
                await asyncio.gather(following, stopped, return_exceptions=True)
            if sys.stderr.isatty():
                output.say("")  # below the terminal's ^C
        self._remark("you left")

    async def _be_reached(self, here: Connection, bind: str, port: int) -> None:
        try:
            at = await here.listen(bind, port, shown=bind or _own_address())
        except (OSError, OverflowError) as error:
            reason = getattr(error, "strerror", None) or error
            raise Failure(
                f"cannot be reached at port {port}: {reason}", "choose another --port"
            ) from None
        self._remark(f"reached directly at {at.host}:{at.port}")

    def _show_kept(self, since: float | None) -> None:
        """Show what is here already: of the first time, the last."""
        shown = int(self.circle.file.fact(SHOWN) or b"-1")
        kept = self.circle.told()
        self.shown = max((one.place for one in kept), default=0)
        if since is not None:
            found = [one for one in kept if one.at_ms >= since * 1000]
        elif shown < 0:
            found = [one for one in kept if one.text][-RECENT:]
        else:
            found = [one for one in kept if one.place > shown]
        for one in found:
            self._show_said(one)
        self._keep()

    async def _follow(self, here: Connection) -> None:
        async for event in here:
            self._show(event)

    def _keep(self) -> None:
        self.circle.file.keep(SHOWN, str(self.shown).encode())

    def _show(self, event: Event) -> None:
        if isinstance(event, events.Said):
            if event.place > self.shown:
                self._show_said(event)
                self.shown = event.place
                self._keep()
        elif self.as_json:
            output.dump(describe(event))
        else:
            for line in _lines(event):
                self._remark(line)

    def _show_said(self, said: events.Said) -> None:
        if self.as_json:
            output.dump({"t": "message" if said.text else "record", **_told(said)})
            return
        if not said.text:
            return
        try:
            written = datetime.fromtimestamp(said.at_ms / 1000).astimezone()
            day, hour = f"{written:%Y-%m-%d}", f"{written:%H:%M}"
        except (OverflowError, ValueError, OSError):
            day, hour = "some day", "--:--"
        if day != self.day:
            self.day = day
            output.show(f"-- {day} --")
        who = output.name(said.name) or said.member_id.hex()[:8]
        output.show_wrapped(f"{hour} {who}: {said.text}", indent=" " * 6)

    def _remark(self, text: str) -> None:
        """Say something about the circle; it goes to stderr."""
        output.say(f"* {text}")


def _own_address() -> str:
    """Return this machine's address, as others in its network see it."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        try:
            probe.connect(("192.0.2.1", 9))  # sends nothing: it asks which address would
            return str(probe.getsockname()[0])
        except OSError:
            return "127.0.0.1"


def _where(here: Connection) -> str:
    found = ", ".join(one.url for one in here.attendants if one.read.is_set())
    if not here.attendants:
        return ", which has no service"
    return f" at {found}" if found else ", of which no service has answered so far"


def _lines(event: Event) -> Iterable[str]:
    """Say an event to people."""
    match event:
        case events.Joined(peer):
            yield f"{_name(peer.name, peer.member_id)} is here"
        case events.Left(peer):
            yield f"{_name(peer.name, peer.member_id)} has left"
        case events.Missing(member_id, name, first, last, services, old):
            count = last - first + 1
            what = f"{count} message{'s' if count > 1 else ''} of {_name(name, member_id)}"
            if old:
                yield f"{what} had expired before they could be read here"
            else:
                yield f"{what} are missing; {' and '.join(services)} do not have them"
        case events.Forked(member_id, name, seq):
            yield f"{_name(name, member_id)} has said two things as number {seq}: a copied home?"
        case events.Distrusted(service, why):
            yield f"do not trust {service}: {why}"
        case events.Unread(service, number, why):
            yield f"something at {service} is no message ({why}), in entry {number}"
        case events.State(service, "offline", why):
            yield f"{service} is not reached ({output.line(why)}); trying again"
        case events.State(service, "replaced", why):
            yield f"{service}: {why}"
        case events.Rekeyed(epoch):
            yield f"the circle has new keys (epoch {epoch})"
        case events.LeftOut():
            yield "the founder has gone on without you: you read nothing new here"
        case events.Founder():
            yield "you were given the founder key"
        case events.Services(urls):
            yield f"the circle meets at {', '.join(urls)} too"
        case _:
            return


def _name(name: str, member_id: bytes) -> str:
    return output.name(name) or member_id.hex()[:8]


def describe(event: Event) -> dict[str, Any]:
    """Return an event for programs."""
    found: dict[str, Any] = {"t": type(event).__name__.lower()}
    match event:
        case events.Joined(peer) | events.Left(peer) | events.Changed(peer):
            found |= {
                "name": peer.name,
                "node_id": peer.node_id.hex(),
                "member_id": peer.member_id.hex(),
            }
        case events.Signalled(signal):
            found |= {"node_id": signal.node_id.hex(), "kind": signal.kind}
        case _:
            for name in type(event).__dataclass_fields__:
                value = getattr(event, name)
                found[name] = value.hex() if isinstance(value, bytes) else value
    return found


def _told(said: events.Said) -> dict[str, Any]:
    """Return a record for programs."""
    return {
        "id": said.hash.hex(),
        "member_id": said.member_id.hex(),
        "name": said.name,
        "channel": said.channel.hex(),
        "kind": said.kind,
        "at_ms": said.at_ms,
        "mine": said.mine,
        **({"text": said.text} if said.text else {"body": dict(said.body)}),
    }
