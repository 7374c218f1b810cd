"""The verbs `chat`, `node` and `inbox`."""

from __future__ import annotations

import argparse
import asyncio
import secrets
import sys

from muster.chat.node import Options, Room
from muster.chat.room import AnyRoom
from muster.cli import output
from muster.cli.home import Home
from muster.cli.listening import stopping
from muster.cli.output import Failure, Misuse
from muster.cli.screen.session import Session
from muster.errors import BadValue


def options(arguments: argparse.Namespace, *, headless: bool = False) -> Options:
    """Return how the node is among others, as asked."""
    return Options(
        name=arguments.name or "",
        listens=not arguments.no_listen,
        bind=arguments.bind,
        port=arguments.port or 0,
        shown=arguments.shown or "",
        can_anchor=headless or arguments.anchor,
        is_mobile=arguments.mobile,
    )


def chat(arguments: argparse.Namespace) -> int:
    """Open the chat: on the whole screen, or in plain lines."""
    plain = arguments.plain or not (sys.stdin.isatty() and sys.stdout.isatty())
    session = Session.open(Home.from_environment(), options(arguments), only=arguments.circle)
    try:
        if plain:
            from muster.cli.screen.plain import Plain

            asyncio.run(Plain(session).run())
        else:
            from muster.cli.screen.app import ChatApp

            ChatApp(session).run(mouse=not arguments.no_mouse)
    finally:
        session.close()
    return output.OK


def node(arguments: argparse.Namespace) -> int:
    """Be a node without a screen, until stopped."""
    home = Home.from_environment()
    if arguments.announce and not (arguments.peer_id and (arguments.capsule or arguments.beacon)):
        raise Misuse(
            "--announce needs a --peer-id, and where to announce it",
            "--capsule URL#KEY or --beacon URL",
        )
    session = Session.open(home, options(arguments, headless=True), only=arguments.circle)
    try:
        if not session.rooms and not arguments.announce:
            raise Failure(
                "there is no circle in this home", "muster chat, or muster circle join CODE"
            )
        asyncio.run(_node(session, arguments))
    finally:
        session.close()
    return output.OK


async def _node(session: Session, arguments: argparse.Namespace) -> None:
    for trouble in session.troubles:
        output.say(f"* {output.line(trouble)}")
    told: dict[str, str] = {}
    async with session.profile, stopping() as stop:
        announcing = asyncio.create_task(_announce(arguments))
        output.say(f"* a node of {', '.join(room.name for room in session.rooms)}; Ctrl-C ends it")
        try:
            while not stop.is_set():
                for room in session.rooms:
                    _tell(room, told, as_json=arguments.json)
                if announcing.done():
                    announcing.result()
                try:
                    async with asyncio.timeout(1.0):
                        await stop.wait()
                except TimeoutError:
                    continue
        finally:
            announcing.cancel()
            await asyncio.gather(announcing, return_exceptions=True)


def _tell(room: AnyRoom, told: dict[str, str], *, as_json: bool) -> None:
    """Say how a circle is reached, when that has changed."""
    direct = room.peers_shown() if isinstance(room, Room) else []
    status = room.trouble or room.status
    line = f"{room.name}: {output.line(status)}" + (
        f"; reached at {', '.join(direct)}" if direct else ""
    )
    if told.get(room.name) == line:
        return
    told[room.name] = line
    if as_json:
        output.dump({"circle": room.name, "status": status, "reached_at": direct})
    else:
        output.say(f"* {line}")


async def _announce(arguments: argparse.Namespace) -> None:
    """Stay known in a public community too, where that is asked for: the plan's stable node."""
    if not arguments.announce:
        await asyncio.Event().wait()
    from muster.bootstrap.announcer import Announcer
    from muster.bootstrap.cache import Damaged
    from muster.cli.bootstrap import cache_of

    cache = cache_of(arguments)
    try:
        key = cache.signing_key(secrets.token_bytes)
    except (Damaged, OSError) as error:
        raise Failure(f"there is no key to sign with: {error}", "--cache takes another") from None
    try:
        announcer = Announcer(
            key,
            *arguments.capsule,
            peer_id=arguments.peer_id,
            beacons=arguments.beacon,
            community=arguments.community,
            cache=cache,
        )
    except BadValue as error:
        raise Misuse(error.message, error.hint) from None
    told: frozenset[str] = frozenset()
    async with announcer:
        while True:
            now = frozenset(str(one.source) for one in announcer.attempts if one.announced)
            for place in sorted(now - told):
                output.say(
                    f"* announced as {output.name(arguments.peer_id)} at {output.line(place)}"
                )
            told = now or told
            await asyncio.sleep(1.0)


def close(session: Session) -> None:
    """Let go of a session's files."""
    for room in session.rooms:
        room.close()
    session.close()


def inbox(arguments: argparse.Namespace) -> int:
    """Show the newest messages, of one circle or all, without connecting."""
    from muster.cli.screen import commands

    home = Home.from_environment()
    session = Session.open(home, Options(), only=arguments.circle)
    try:
        for room in session.rooms:
            if isinstance(room, Room):
                room.talk.catch_up()
        if arguments.json:
            for room in session.rooms:
                for place in room.places():
                    for one in room.page(place.id, most=arguments.limit):
                        output.dump(
                            {
                                "circle": room.name,
                                "channel": place.name,
                                "id": one.hash.hex(),
                                "name": room.author(one),
                                "member_id": one.author.hex(),
                                "at_ms": one.at_ms,
                                "text": one.text,
                                "edited": one.edited,
                                "mine": room.is_mine(one),
                            }
                        )
            return output.OK
        lines = commands.inbox(session, arguments.limit)
        for line in lines:
            output.show(line)
        if not lines:
            output.say("nothing was said so far")
    finally:
        close(session)
    return output.OK
