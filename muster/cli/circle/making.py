"""Making: `muster circle new | invite | join | use | rename | leave` in version 2."""

from __future__ import annotations

import argparse
import asyncio
import io
import shlex
import sys
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import replace

from muster.circle import Circle
from muster.circle.connection import NotLeft
from muster.circle.file import Unusable
from muster.cli import output, reading
from muster.cli.base import is_this_machine
from muster.cli.circle.opening import (
    Wrong,
    called,
    first_services,
    opened,
    service_address,
    told,
    tried,
    tried_address,
)
from muster.cli.home import Home, check_name, is_name, next_command
from muster.cli.output import Failure, Misuse
from muster.invites import InvalidInvite, Invite, peer


def new(arguments: argparse.Namespace) -> int:
    """Make a circle that nobody else knows yet, whose founder this device is."""
    if arguments.base and is_name(arguments.base):
        raise Misuse(
            f"'{arguments.base}' is not the URL of a service",
            "if it is to be the circle's name: "
            f"muster circle new --name {shlex.quote(arguments.base)}",
        )
    home = Home.from_environment()
    name = check_name(arguments.name) if arguments.name else home.free_name()
    services = first_services(arguments.base or arguments.at)
    for address in services:
        tried(address)
    circle = Circle.new(home.place_for(name), name=name, services=services)
    try:
        if arguments.json:
            output.dump(told(circle, name))
            return output.OK
        where = f", which meets at {services[0].url}" if services else ""
        output.show(f"You have a circle '{name}'{where}; you are its founder")
        if not services:
            output.show("It has no service yet: muster circle services add ADDRESS")
        output.show(
            f"To let somebody in, give them what this prints: {next_command('invite', name)}"
        )
    finally:
        circle.close()
    return output.OK


def invite(arguments: argparse.Namespace) -> int:
    """Print what lets somebody in: a code, and at a terminal a link and its picture."""
    home = Home.from_environment()
    name = home.which(arguments.circle)
    with opened(home, name) as circle:
        made = circle.invite(name=circle.name or name, peers=_peers(arguments.peer))
        if arguments.base:
            first, _ = service_address(arguments.base)
            others = tuple(one for one in made.services if one.id != first.id)
            made = Invite(
                made.founder, made.epoch, (first, *others), made.peers, made.at_ms, made.name
            )
        link = made.link() if made.services else None
        if arguments.json:
            output.dump({**told(circle, name), "code": made.code, "link": link})
            return output.OK
        if circle.is_out:
            output.say("The founder has left you out: this invite leads where nobody is any more.")
        if not made.services and not made.peers:
            output.say(
                "There is no service in it, and no peer: muster circle services add ADDRESS comes "
                "first, or --peer HOST:PORT of a member's 'muster listen --port PORT'."
            )
        elif not made.services:
            pass
        elif all(is_this_machine(one.url) for one in made.services):
            output.say(
                f"This invite leads to {made.services[0].url}, so it works on this machine only; "
                "--base ADDRESS names the service as others reach it."
            )
    if sys.stdout.isatty():
        output.say(
            f"Whoever has this reads and writes in '{name}'. "
            "They join with: muster circle join CODE"
        )
        if link:
            output.say(f"As a link, or to be scanned:\n\n{link}\n")
            output.say(_picture(link))
        output.say("The code:")
    output.show(made.code)
    return output.OK


def _peers(given: list[str]) -> list[str]:
    try:
        return [peer(text) for text in given]
    except InvalidInvite:
        raise Misuse("--peer is HOST:PORT", "of a member who has 'muster listen --port'") from None


def _picture(link: str) -> str:
    """Return a QR code (ISO/IEC 18004) in half blocks."""
    import segno

    drawn = io.StringIO()
    segno.make(link, error="l", micro=False).terminal(drawn, border=2, compact=True)
    return drawn.getvalue().rstrip("\n")


def join(arguments: argparse.Namespace) -> int:
    """Become a member by an invite; joining twice does no harm."""
    home = Home.from_environment()
    try:
        found = Invite.parse(arguments.code)
    except InvalidInvite as error:
        raise Misuse(error.message, error.hint) from None
    known = _known(home, found)
    if known is not None and arguments.name not in (None, known):
        raise Misuse(f"you are in this circle already, as '{known}'", "omit --name")
    if known is not None:
        return _again(home, known, found, arguments)
    name = check_name(arguments.name) if arguments.name else home.free_name(found.name)
    base = service_address(arguments.base)[0] if arguments.base else None
    found = replace(found, services=(*found.services, *([base] if base else [])))
    _check_services(found)
    Circle.join(found, home.place_for(name)).close()
    with opened(home, name) as circle:
        heard = asyncio.run(_introduce(circle))
        if arguments.json and not circle.is_out:
            output.dump({**told(circle, name), "reached": heard})
            return output.OK
        if circle.is_out:
            raise Failure(
                "the circle has changed its keys since this invite was made",
                "ask for a new one, and join with it",
            )
        where = ", ".join(one.url for one in circle.services) or "no service"
        output.show(f"You are in: circle '{name}' meets at {where}")
        if not heard and circle.services:
            output.say("muster: warning: no service has answered; you are in all the same")
        output.show(f"Listen with: {next_command('listen', name, option='--circle')}")
    return output.OK


def _check_services(invite: Invite) -> None:
    """Raise `Wrong` where an invite leads to services that all refuse, and to nobody else."""
    wrong = []
    for address in invite.services:
        guest = Circle.join(invite)
        try:
            tried(address, guest)
        except Wrong as failure:
            wrong.append(failure)
        except Failure as failure:
            output.say(f"muster: warning: {failure}")
        finally:
            guest.close()
    if wrong and len(wrong) == len(invite.services) and not invite.peers:
        raise wrong[0]
    for one in wrong:
        output.say(f"muster: warning: {one}")


def _known(home: Home, found: Invite) -> str | None:
    """Return the circle of this home that an invite is for."""
    from muster import keys

    for name in home.names():
        if home.is_ours(name):
            with opened(home, name) as circle:
                if circle.id == keys.circle_id(found.founder):
                    return name
    return None


def _again(home: Home, name: str, found: Invite, arguments: argparse.Namespace) -> int:
    """Take from a newer invite what is new in it: services, and an epoch after being left out."""
    with opened(home, name) as circle:
        news = circle.news_of(found)
        if news and not (arguments.yes or _trusted(name, news)):
            output.say("Nothing was changed.")
            return output.FAILED
        fresh = found.epoch.number > circle.epoch.number
        circle.take_invite(found)
        if arguments.json:
            output.dump(told(circle, name))
            return output.OK
        output.show(
            f"You are in '{name}' {'again' if fresh else 'already'}; "
            f"listen with: {next_command('listen', name, option='--circle')}"
        )
    return output.OK


def _trusted(name: str, news: Iterable[str]) -> bool:
    brings = f"you are in '{name}' already, and the invite brings {', '.join(news)}"
    unasked = Misuse(brings, "if you trust who gave it to you with that, add --yes")
    return reading.agreed(f"{brings[:1].upper()}{brings[1:]}.\nTake it?", unasked=unasked)


async def _introduce(circle: Circle) -> bool:
    """Tell the others who has come, so that a rekey keeps this member; False if nobody hears."""
    async with circle.connect(name=called()) as here:
        if not await here.ready(5):
            return False
        with suppress(NotLeft):
            await here.introduced()
            return True
    return False


def use(arguments: argparse.Namespace) -> int:
    """Choose the circle that is meant where none is named."""
    home = Home.from_environment()
    name = home.which(arguments.name)
    with opened(home, name) as circle:
        if arguments.base:
            circle.file.add_services([tried_address(arguments.base, circle)[0]])
        home.use(name)
        if arguments.json:
            output.dump({**told(circle, name), "default": True})
        else:
            output.show(f"Commands mean '{name}' from now on; --circle names another")
    return output.OK


def rename(arguments: argparse.Namespace) -> int:
    """Give a circle another name in this home; others do not notice."""
    home = Home.from_environment()
    name, to = home.which(arguments.name), check_name(arguments.new)
    with opened(home, name) as circle:
        circle.file.lock()
    home.rename_ours(name, to)
    if arguments.json:
        with opened(home, to) as circle:
            output.dump(told(circle, to))
    else:
        output.show(f"'{name}' is called '{to}' here from now on")
    return output.OK


def leave(arguments: argparse.Namespace) -> int:
    """Forget a circle: its secrets, and everything that was said."""
    home = Home.from_environment()
    name = home.which(arguments.name)
    with opened(home, name) as circle:
        circle.file.lock()
        told_, founder, circle_id = told(circle, name), circle.is_founder, circle.id
    lost = (
        f"leaving '{name}' removes its secrets and all that was said from here"
        + ("; nobody else has the founder key, if you have not given it" if founder else "")
        + "; you come back only with an invite"
    )
    unasked = Misuse(lost, f"if that is meant: muster circle leave {shlex.quote(name)} --yes")
    if not (
        arguments.yes
        or reading.agreed(f"{lost[:1].upper()}{lost[1:]}.\nLeave it?", unasked=unasked)
    ):
        output.say("Nothing was changed.")
        return output.FAILED
    try:
        forget_shown(home, circle_id)
        home.forget_ours(name)
    except OSError as error:
        raise Failure(f"cannot remove it: {error}", "remove the file by hand") from None
    if arguments.json:
        output.dump(told_)
    else:
        output.show(f"You have left '{name}'")
    return output.OK


def forget_shown(home: Home, circle_id: bytes) -> None:
    """Remove what the chat shows of a circle; without a chat there is nothing to remove."""
    from muster.chat.store import NAME as STORE
    from muster.chat.store import Store

    if (home.path / STORE).exists():
        try:
            store = Store.open(home.path / STORE)
        except Unusable as error:
            raise Failure(error.message, error.hint) from None
        store.forget(circle_id)
        store.close()
