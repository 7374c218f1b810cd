"""Keeping a circle: its services, its keys, its founder, and how a felund circle moves here."""

from __future__ import annotations

import argparse
import asyncio
import shlex
from collections.abc import Iterable

from muster.circle import Circle
from muster.circle.connection import NotLeft
from muster.circle.file import InUse
from muster.circle.peers import Member
from muster.cli import output, reading
from muster.cli.circle.opening import (
    called,
    connected,
    day,
    opened,
    service_address,
    told,
    tried_address,
)
from muster.cli.home import Home
from muster.cli.output import Failure, Misuse


def services_list(arguments: argparse.Namespace) -> int:
    """Show where a circle meets."""
    home = Home.from_environment()
    name = _ours(home, arguments.circle)
    with opened(home, name) as circle:
        for one in circle.services:
            if arguments.json:
                output.dump({"url": one.url, "service_id": one.id.hex(), "code": bool(one.code)})
            else:
                output.show(
                    f"{one.url}#{one.id.hex()}{'  with an access code' if one.code else ''}"
                )
        if not circle.services and not arguments.json:
            output.say("It has none yet: muster circle services add ADDRESS")
    return output.OK


def services_add(arguments: argparse.Namespace) -> int:
    """Meet at a service too; the founder's node tells the others."""
    home = Home.from_environment()
    name = _ours(home, arguments.circle)
    with opened(home, name) as circle:
        address, asked = tried_address(arguments.address, circle)
        circle.file.add_services([address])
        _tell(circle)
        if arguments.json:
            output.dump(told(circle, name))
            return output.OK
        output.show(f"'{name}' meets at {address.url} too")
        if asked:
            output.say(
                f"Its id is {address.id.hex()}; compare it with what its operator says "
                "('muster serve' prints it)."
            )
        _say_who_tells(circle)
    return output.OK


def services_remove(arguments: argparse.Namespace) -> int:
    """Meet at a service no longer, from here; others go on until they do the same."""
    home = Home.from_environment()
    name = _ours(home, arguments.circle)
    with opened(home, name) as circle:
        wanted = arguments.address.partition("#")[0].rstrip("/")
        found = [one for one in circle.services if one.url == wanted]
        if not found:
            known = ", ".join(one.url for one in circle.services) or "there is none"
            raise Misuse(f"'{name}' does not meet at {wanted}", known)
        for one in found:
            circle.file.remove_service(one.id)
        if arguments.json:
            output.dump(told(circle, name))
        else:
            output.show(f"'{name}' meets at {wanted} no longer, from here")
            output.say("The others go on there until each removes it.")
    return output.OK


def rekey(arguments: argparse.Namespace) -> int:
    """Give the circle new keys, without some members perhaps."""
    home = Home.from_environment()
    name = _ours(home, arguments.circle)
    with opened(home, name) as circle:
        out = asyncio.run(_rekey(circle, arguments))
        if out is None:
            output.say("Nothing was changed.")
            return output.FAILED
        if arguments.json:
            output.dump({**told(circle, name), "out_now": [one.name for one in out]})
        else:
            without = f" without {', '.join(output.name(one.name) for one in out)}" if out else ""
            output.show(f"'{name}' has new keys (epoch {circle.epoch.number}){without}")
            output.say(
                "Invites made before lead in no longer; 'muster circle invite' makes new ones."
            )
    return output.OK


async def _rekey(circle: Circle, arguments: argparse.Namespace) -> list[Member] | None:
    async with connected(circle, called()) as here:
        out = [_member(circle, one) for one in arguments.without]
        only = [_member(circle, one).id for one in arguments.only] or None
        standing = circle.standing([one.id for one in out], only=only)
        if not arguments.json:
            _show_standing(circle, standing.keep, standing.weak, out)
        unasked = Misuse("nobody was asked", "if that is meant, add --yes")
        if not (arguments.yes or reading.agreed("Give the circle new keys?", unasked=unasked)):
            return None
        await here.rekey([one.id for one in out], only=only)
        return out


def _show_standing(
    circle: Circle, keep: Iterable[Member], weak: Iterable[Member], out: list[Member]
) -> None:
    """Show who stays, the newest first: one may have joined twice."""
    output.say("These stay:")
    for one in keep:
        mine = one.id == circle.member.id
        when = "" if mine else f", last heard of {day(one.at_ms)}"
        output.say(f"  {'you' if mine else output.name(one.name)} ({one.id.hex()[:8]}){when}")
    if out:
        output.say("These do not, and read nothing that comes after:")
        for one in out:
            output.say(f"  {output.name(one.name)} ({one.id.hex()[:8]})")
    for one in weak:
        output.say(f"  {output.name(one.name)} ({one.id.hex()[:8]}) cannot: its box key is no key")


def founder_give(arguments: argparse.Namespace) -> int:
    """Give a member the founder key; this device keeps it too."""
    home = Home.from_environment()
    name = _ours(home, arguments.circle)
    with opened(home, name) as circle:
        to = asyncio.run(_give(circle, arguments.name))
        if arguments.json:
            output.dump({**told(circle, name), "given_to": to.id.hex()})
        else:
            output.show(f"{output.name(to.name)} has the founder key of '{name}' too")
    return output.OK


async def _give(circle: Circle, name: str) -> Member:
    async with connected(circle, called()) as here:
        to = _member(circle, name)
        circle.give_founder(to)
        await here.introduced()
        return to


def upgrade(arguments: argparse.Namespace) -> int:
    """Make a circle of version 2, and invite the members of a felund circle into it, through it."""
    from muster.cli.sending import say_in

    home = Home.from_environment()
    felund = home.chosen(arguments.circle)
    name = home.free_name(felund.name)
    address, _ = service_address(felund.base_url)
    circle = Circle.new(home.place_for(name), name=felund.name, services=[address])
    code = circle.invite().code
    circle.close()
    text = f"This circle moves. Join the new one with: muster circle join {code}"
    try:
        say_in(felund, felund.base_url, home.node_id(), text, name=called())
    except Failure:
        home.forget_ours(name)
        raise
    if arguments.json:
        output.dump({"circle": name, "from": felund.name, "code": code})
    else:
        output.show(f"You have a circle '{name}', and everybody in '{felund.name}' has its invite")
        output.say(
            f"Leave the old one when all have moved: muster circle leave {shlex.quote(felund.name)}"
        )
    return output.OK


def _tell(circle: Circle) -> None:
    """As the founder, tell the others where the circle meets; now, if a service answers."""
    if not circle.is_founder:
        return
    circle.tell_services()

    async def leave() -> None:
        async with circle.connect(name=called()) as here:
            if await here.ready(5):
                await here.introduced()

    try:
        asyncio.run(leave())
    except InUse:
        return  # the process that has it open tells them
    except NotLeft as error:
        output.say(f"muster: warning: {error.message}; the others are told with the next 'listen'")


def _say_who_tells(circle: Circle) -> None:
    if not circle.is_founder:
        output.say(
            "Only the founder's node tells the others; invites of yours name it from now on."
        )


def _ours(home: Home, name: str | None) -> str:
    chosen = home.which(name)
    if not home.is_ours(chosen):
        raise Misuse(
            f"'{chosen}' is a felund circle, which has one service and keys for good",
            "'muster circle upgrade' moves its members to a circle of version 2",
        )
    return chosen


def _member(circle: Circle, named: str) -> Member:
    """Return the one member that is meant, by name or by the start of its id."""
    others = [one for one in circle.file.members() if one.id != circle.member.id]
    found = [one for one in others if one.name == named]
    found = found or [one for one in others if len(named) >= 4 and one.id.hex().startswith(named)]
    if len(found) == 1:
        return found[0]
    if found:
        ids = ", ".join(f"{one.id.hex()[:8]} of {day(one.at_ms)}" for one in found)
        raise Misuse(f"{len(found)} members are called '{named}'", f"name one by its id: {ids}")
    known = ", ".join(sorted({output.name(one.name) for one in others})) or "nobody has been here"
    raise Misuse(f"no member is called '{named}'", known)
