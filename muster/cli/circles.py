"""Circles: `muster circle new | invite | join | list | use | rename | leave`."""

from __future__ import annotations

import argparse
import asyncio
import shlex
import sys
from contextlib import suppress
from dataclasses import replace
from typing import Any

from muster.cli import hints, output, reading
from muster.cli.base import (
    PATIENCE_S,
    base_url,
    is_closed,
    is_this_machine,
    open_client,
    silence,
)
from muster.cli.home import Home, Membership, check_name, is_name, next_command
from muster.cli.output import Misuse
from muster.felund.circle import Circle
from muster.felund.invite import InvalidInvite, Invite


def new(arguments: argparse.Namespace) -> int:
    """Make a circle that nobody else knows yet; a service need not be there."""
    if arguments.base and is_name(arguments.base):
        raise Misuse(
            f"'{arguments.base}' is not the URL of a service",
            "if it is to be the circle's name: "
            f"muster circle new --name {shlex.quote(arguments.base)}",
        )
    home = Home.from_environment()
    name = check_name(arguments.name) if arguments.name else home.free_name()
    membership = Membership(name, Circle.new(), base_url(arguments.base or arguments.at))
    home.keep(membership, new=True)
    if arguments.json:
        output.dump(_told(membership))
    else:
        output.show(f"You have a circle '{name}', which meets at {membership.base_url}")
        output.show(
            f"To let somebody in, give them what this prints: {next_command('invite', name)}"
        )
        if home.usual_name() is None:
            output.show(
                f"To say and hear things here by default: muster circle use {shlex.quote(name)}"
            )
    if _check(membership) and is_closed(membership.base_url):
        hint = hints.let_in(f"{membership.circle.circle_hint} --name {shlex.quote(name)}")
        output.say(f"muster: this service is closed; {hint}")
    return output.OK


def invite(arguments: argparse.Namespace) -> int:
    """Print the circle's invite code: the one place where the secret is shown."""
    membership = Home.from_environment().chosen(arguments.circle)
    base = base_url(arguments.base or membership.base_url)
    code = Invite(membership.circle, base).code()
    silent = silence(base)
    if silent is not None:
        output.say(f"muster: warning: {silent}")
        output.say("The code leads there all the same; --base URL names another service.")
    if arguments.json:
        output.dump({**_told(membership), "base_url": base, "code": code})
        return output.OK
    if sys.stdout.isatty():
        output.say(
            f"Whoever has this code reads and writes in '{membership.name}'. "
            "They join with: muster circle join CODE"
        )
    if is_this_machine(base):
        output.say(
            f"This code leads to {base}, so it works on this machine only; "
            "--base URL names the service as others reach it."
        )
    output.show(code)
    return output.OK


def join(arguments: argparse.Namespace) -> int:
    """Keep the circle of an invite code; joining twice does no harm."""
    home = Home.from_environment()
    invite = _read_invite(arguments.code)
    base = base_url(arguments.base or invite.base_url)
    known = next((m for m in home.memberships() if m.circle == invite.circle), None)
    if known is not None and arguments.name not in (None, known.name):
        raise Misuse(f"you are in this circle already, as '{known.name}'", "omit --name")
    name = known.name if known else arguments.name or home.free_name()
    membership = Membership(check_name(name), invite.circle, base)
    home.keep(membership, new=known is None)
    if arguments.json:
        output.dump(_told(membership))
    else:
        became = "You were in already" if known else "You are in"
        output.show(f"{became}: circle '{name}' meets at {base}")
        output.show(f"Listen with: {next_command('listen', name, option='--circle')}")
    _check(membership)
    return output.OK


def show_all(arguments: argparse.Namespace) -> int:
    """List the circles of this home."""
    home = Home.from_environment()
    usual = home.usual_name()
    found = [_listed(home, name) for name in home.names()]
    if arguments.json:
        for told, _ in found:
            output.dump({**told, "default": told["circle"] == usual})
        return output.OK
    if not found:
        output.say(
            "There is no circle yet; 'muster circle new' makes one, "
            "'muster circle join CODE' enters somebody's."
        )
        return output.OK
    from rich.table import Table

    table = Table(box=None, pad_edge=False)
    for heading in ("circle", "known to services as", "meets at", ""):
        table.add_column(heading, overflow="fold")
    for told, where in found:
        row = (told["circle"], told["circle_hint"], where)
        table.add_row(*row, "default" if told["circle"] == usual else "")
    output.draw(table)
    return output.OK


def _listed(home: Home, name: str) -> tuple[dict[str, Any], str]:
    """Return a circle of either kind for programs, and where it meets for people."""
    if home.is_ours(name):
        from muster.cli.circle import opening

        with opening.opened(home, name) as circle:
            where = "\n".join(one.url for one in circle.services)
            return opening.told(circle, name), where or "no service yet"
    membership = home.chosen(name)
    return dict(_told(membership)), membership.base_url


def use(arguments: argparse.Namespace) -> int:
    """Choose the circle that is meant where none is named, and where it meets."""
    home = Home.from_environment()
    membership = home.chosen(arguments.name)
    if arguments.base:
        membership = replace(membership, base_url=base_url(arguments.base))
        home.keep(membership)
    home.use(membership.name)
    if arguments.json:
        output.dump({**_told(membership), "default": True})
    else:
        output.show(
            f"Commands mean '{membership.name}' from now on, which meets at {membership.base_url}; "
            "--circle names another"
        )
    _check(membership)
    return output.OK


def rename(arguments: argparse.Namespace) -> int:
    """Give a circle another name in this home; others do not notice."""
    home = Home.from_environment()
    renamed = home.rename(home.chosen(arguments.name), check_name(arguments.new))
    if arguments.json:
        output.dump(_told(renamed))
    else:
        output.show(f"'{arguments.name}' is called '{renamed.name}' here from now on")
    return output.OK


def leave(arguments: argparse.Namespace) -> int:
    """Forget a circle's secret, and tell its service that this node is gone."""
    home = Home.from_environment()
    membership = home.chosen(arguments.name)
    if not (arguments.yes or _agreed(membership)):
        output.say("Nothing was changed.")
        return output.FAILED
    node_id = home.node_id()
    home.forget(membership)
    silent = silence(membership.base_url)
    unregistered = silent is None and asyncio.run(_unregister(membership, node_id))
    if arguments.json:
        output.dump({**_told(membership), "unregistered": unregistered})
        return output.OK
    output.show(f"You have left '{membership.name}'")
    if silent is not None:
        output.say(f"The service could not be told: {silent.message}. It forgets you by itself.")
    return output.OK


def _agreed(membership: Membership) -> bool:
    """Say what leaving loses, and ask."""
    lost = (
        f"leaving '{membership.name}' removes its secret from here: you come back only with an "
        "invite of another member, and if there is none, nobody can read its messages again"
    )
    unasked = Misuse(
        lost, f"if that is meant: muster circle leave {shlex.quote(membership.name)} --yes"
    )
    return reading.agreed(f"{lost[:1].upper()}{lost[1:]}.\nLeave it?", unasked=unasked)


async def _unregister(membership: Membership, node_id: str) -> bool:
    """Tell the service; say whether it knew this node, and knows it no longer."""
    from muster.errors import Refused
    from muster.felund.sockets import Unreachable

    base, circle = membership.base_url, membership.circle
    with suppress(Refused, Unreachable):
        async with open_client(base, circle, node_id, timeout_s=PATIENCE_S) as client:
            return (await client.unregister()).removed
    return False


def _check(membership: Membership) -> bool:
    """Say whether the service answers, and warn if not: perhaps another one was meant."""
    silent = silence(membership.base_url)
    if silent is not None:
        output.say(f"muster: warning: {silent}")
        output.say(
            "The circle is kept, and meets there all the same. To let it meet elsewhere: "
            f"muster circle use {shlex.quote(membership.name)} --base URL; "
            "for new circles: MUSTER_BASE=URL"
        )
    return silent is None


def _read_invite(code: str) -> Invite:
    try:
        return Invite.parse(code)
    except InvalidInvite as error:
        raise Misuse(error.message, error.hint) from None


def _told(membership: Membership) -> dict[str, str]:
    return {
        "circle": membership.name,
        "circle_hint": membership.circle.circle_hint,
        "base_url": membership.base_url,
    }
