"""Circles: `muster circle new | invite | join | list`."""

from __future__ import annotations

import argparse
import sys

from infra import output
from infra.base import base_url, is_this_machine
from infra.home import NAME, Home, Membership, check_name
from infra.output import Misuse
from muster.circle import Circle
from muster.invite import InvalidInvite, Invite


def new(arguments: argparse.Namespace) -> int:
    """Make a circle that nobody else knows yet; no service is asked."""
    if arguments.base and NAME.fullmatch(arguments.base):
        raise Misuse(
            f"'{arguments.base}' is not the URL of a service",
            f"if it is to be the circle's name: muster circle new --name {arguments.base}",
        )
    home = Home.from_environment()
    name = check_name(arguments.name) if arguments.name else home.free_name()
    membership = Membership(name, Circle.new(), base_url(arguments.base))
    home.keep(membership, new=True)
    if arguments.json:
        output.dump(_told(membership))
    else:
        output.show(f"You have a circle '{name}', which meets at {membership.base_url}")
        output.show(f"To let somebody in, give them what this prints: {_command('invite', name)}")
    return output.OK


def invite(arguments: argparse.Namespace) -> int:
    """Print the circle's invite code: the one place where the secret is shown."""
    membership = Home.from_environment().chosen(arguments.circle)
    base = base_url(arguments.base or membership.base_url)
    code = Invite(membership.circle, base).code()
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
    """Keep the circle of an invite code; joining twice is no mistake."""
    home = Home.from_environment()
    invite = _read_invite(arguments.code)
    base = base_url(arguments.base or invite.base_url)
    known = next((m for m in home.memberships() if m.circle == invite.circle), None)
    if known is not None and arguments.name not in (None, known.name):
        raise Misuse(f"you are in this circle already, as '{known.name}'", "leave --name away")
    name = known.name if known else arguments.name or home.free_name()
    membership = Membership(check_name(name), invite.circle, base)
    home.keep(membership, new=known is None)
    if arguments.json:
        output.dump(_told(membership))
    else:
        became = "You were in already" if known else "You are in"
        output.show(f"{became}: circle '{name}' meets at {base}")
        output.show(f"Listen with: {_command('listen', name, option='--circle')}")
    return output.OK


def show_all(arguments: argparse.Namespace) -> int:
    """List the circles of this home."""
    found = Home.from_environment().memberships()
    if arguments.json:
        for membership in found:
            output.dump(_told(membership))
        return output.OK
    if not found:
        output.say("There is no circle yet; 'muster circle new' makes one, or join CODE.")
        return output.OK
    from rich.table import Table

    table = Table(box=None, pad_edge=False)
    for heading in ("circle", "known to services as", "meets at"):
        table.add_column(heading, overflow="fold")
    for membership in found:
        table.add_row(membership.name, membership.circle.circle_hint, membership.base_url)
    output.console().print(table)
    return output.OK


def _read_invite(code: str) -> Invite:
    if code == "-":
        code = sys.stdin.readline()
    try:
        return Invite.parse(code)
    except InvalidInvite as error:
        message, _, hint = str(error).partition("; ")
        raise Misuse(message, hint) from None


def _told(membership: Membership) -> dict[str, str]:
    return {
        "circle": membership.name,
        "circle_hint": membership.circle.circle_hint,
        "base_url": membership.base_url,
    }


def _command(verb: str, name: str, *, option: str = "") -> str:
    """Return the command to type next; with one circle it needs no name."""
    alone = len(Home.from_environment().memberships()) == 1
    words = ["muster", *([] if option else ["circle"]), verb]
    if not alone:
        words += [option or "--circle", name]
    return " ".join(words)
