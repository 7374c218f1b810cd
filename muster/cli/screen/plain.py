"""Plain lines: the chat for screen readers, pipes and logs; commands as on the screen."""

from __future__ import annotations

import asyncio
import sys
import threading
import time
from contextlib import suppress
from itertools import islice

from muster.chat.facts import GENERAL_NAME
from muster.chat.node import Room
from muster.chat.room import AnyRoom
from muster.chat.store import Message
from muster.cli import output
from muster.cli.listening import stopping
from muster.cli.screen import commands, drawing, looks
from muster.cli.screen.session import Session
from muster.errors import Hinted
from muster.records import GENERAL

SHOWN = 20
"""How many messages are shown at the start."""

LOOK_S = 0.2
PAGE = 50

CALL_REST_S = 60.0
"""How long nothing is told of another call of the same person: one may begin any number."""


class Calls:
    """What is told of the calls of one circle: a line when one begins, and one when it is over."""

    def __init__(self) -> None:
        self._told: dict[bytes, bool] = {}
        """By channel in which a call is on, whether a line has told of it."""
        self._rest_until: dict[bytes, float] = {}

    def lines(self, room: Room, *, now: float) -> list[str]:
        """Return what is new of them; *now* by a steady clock."""
        on = {call.channel: call for call in room.talk.calls()}
        found = [
            f"the call in {_place(room, channel)} is over"
            for channel, told in self._told.items()
            if told and channel not in on
        ]
        self._told = {one: told for one, told in self._told.items() if one in on}
        self._rest_until = {one: at for one, at in self._rest_until.items() if at > now}
        mine = room.talk.facts.devices(room.talk.me)
        for channel, call in on.items():
            host = room.person_of(call.host)
            if channel in self._told or host in self._rest_until:
                continue
            self._told[channel] = not mine & {call.host, *call.participants, *call.viewers}
            if self._told[channel]:
                self._rest_until[host] = now + CALL_REST_S
                who = looks.names(room.people()).get(host) or host.hex()[:6]
                found.append(
                    f"{who} calls in {_place(room, channel)} ({call.media}); {commands.JOINED_BY}"
                    + "".join(f": {one.url}/app/" for one in room.circle.services[:1])
                )
        return found


def _place(room: Room, channel: bytes) -> str:
    known = None if channel == GENERAL else room.talk.facts.channels.get(channel)
    return f"{room.name}#{output.name(known.name if known else GENERAL_NAME)}"


class Plain:
    """Lines in, lines out, until the input ends."""

    def __init__(self, session: Session) -> None:
        self.session = session
        self._after = 0
        self._day = ""
        self._told: dict[str, str] = {}
        self._calls: dict[bytes, Calls] = {}

    async def run(self) -> None:
        """Talk until /quit, Ctrl-C or the end of the input."""
        session = self.session
        session.heard = lambda line: output.say(f"* {output.line(line)}")
        for trouble in session.troubles:
            output.say(f"* {output.line(trouble)}")
        async with session.profile, stopping() as stop:
            self._greet()
            lines: asyncio.Queue[str | None] = asyncio.Queue()
            self._read(lines)
            following = asyncio.create_task(self._follow())
            ending = asyncio.create_task(stop.wait())
            try:
                while not stop.is_set():
                    reading = asyncio.create_task(lines.get())
                    done, _ = await asyncio.wait(
                        {reading, ending, following}, return_when=asyncio.FIRST_COMPLETED
                    )
                    if following in done:
                        following.result()
                    if reading not in done:
                        reading.cancel()
                        break
                    text = reading.result()
                    if text is None or not await self._typed(text):
                        break
                await self._drain()
            finally:
                following.cancel()
                ending.cancel()
                await asyncio.gather(following, ending, return_exceptions=True)

    def _greet(self) -> None:
        room = self.session.room
        if room is None:
            output.say("* you are in no circle yet: /circle create NAME, or /join LINK")
            return
        output.say(f"* '{output.name(room.title)}'; /help lists commands, /quit ends")
        self._show(room, room.page(self.session.channel, most=SHOWN))
        self._after = self.session.store.newest()

    def _read(self, lines: asyncio.Queue[str | None]) -> None:
        """Read lines in a thread of its own: a terminal cannot be asked whether there is one."""
        loop = asyncio.get_running_loop()

        def reading() -> None:
            with suppress(RuntimeError, ValueError, OSError):  # the loop has ended before
                for line in sys.stdin:
                    loop.call_soon_threadsafe(lines.put_nowait, line.rstrip("\n"))
                loop.call_soon_threadsafe(lines.put_nowait, None)

        threading.Thread(target=reading, daemon=True).start()

    async def _typed(self, text: str) -> bool:
        """Do or say a line; False to end."""
        if not text.strip():
            return True
        try:
            answer = await commands.run(self.session, text)
        except Hinted as error:
            output.say("* " + "; ".join(commands.problem(error)))
            return True
        for line in answer.lines:
            output.show(f"* {line}")
        match answer.show:
            case "help":
                for one in commands.COMMANDS.values():
                    output.show(f"* {one.typed}: {one.what}")
            case "invite":
                output.show(answer.about)
            case "search":
                room = self.session.here
                self._show(room, room.search(self.session.channel, answer.about))
            case "settings":
                output.show(f"* you are called {self.session.name}: /name, /circle keep, /circles")
            case "debug":
                shown = "shown" if self.session.debugs else "hidden"
                output.show(f"* what happens underneath is {shown}")
            case "quit":
                return False
            case _:
                pass
        return True

    async def _follow(self) -> None:
        """Show what comes, and how circles are reached."""
        while True:
            newest = self.session.store.newest()
            for room in self.session.rooms:
                found = room.since(self._after, until=newest)
                while page := list(islice(found, PAGE)):
                    self._show(room, page)
                    for channel, number in {one.channel: one.id for one in page}.items():
                        room.read(channel, number)
                    await asyncio.sleep(0)  # a long history lets others have their turn
                status = room.trouble or room.status
                if self._told.get(room.name, status) != status:
                    output.say(f"* {room.name}: {output.line(status)}")
                self._told[room.name] = status
                if isinstance(room, Room):
                    calls = self._calls.setdefault(room.id, Calls())
                    for line in calls.lines(room, now=time.monotonic()):
                        output.say(f"* {output.line(line)}")
            self._after = max(self._after, newest)
            await asyncio.sleep(LOOK_S)

    async def _drain(self) -> None:
        """Give what was written last a moment to be said."""
        for _ in range(15):
            waiting = [
                one
                for room in self.session.rooms
                for place in room.places()
                for one in room.waiting(place.id)
            ]
            if not waiting:
                break
            await asyncio.sleep(LOOK_S)
        await asyncio.sleep(LOOK_S * 2)

    def _show(self, room: AnyRoom, found: list[Message]) -> None:
        if found:
            places = {place.id: place.name for place in room.places()}
            names = looks.names(room.people())
            for one in found:
                self._show_one(room, one, places, names)

    def _show_one(
        self, room: AnyRoom, one: Message, places: dict[bytes, str], names: dict[bytes, str]
    ) -> None:
        day = drawing.day(one.shown_ms)
        if day != self._day:
            self._day = day
            output.show(f"-- {day} --")
        where = ""
        if room is not self.session.room or one.channel != self.session.channel:
            where = f"{room.name}#{output.name(places.get(one.channel, '?'))} "
        who = names.get(room.person_of(one.author)) or output.name(room.author(one))
        if room.is_mine(one):
            who = f"{who} (you)"
        at = commands.clock(one.shown_ms, "%H:%M")
        output.show_wrapped(f"{at} {where}{who}: {one.text}", indent=" " * 6)
