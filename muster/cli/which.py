"""Which kind of circle: the one place where the command tells ours from the felund dialect.

A circle of version 2 is one file of SQLite, one of the felund dialect a file of JSON. What is
done with either has a module of its own, and the same verbs.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from importlib import import_module

from muster.cli.home import Home
from muster.invites import PREFIX


def new(arguments: argparse.Namespace) -> int:
    """Make a circle: of version 2, unless existing clients are to be in it."""
    return _run("circles:new" if arguments.felund else "circle.making:new", arguments)


def join(arguments: argparse.Namespace) -> int:
    """Enter the circle of an invite, which says of which kind it is."""
    from muster.cli import reading

    if arguments.code == "-":
        arguments.code = reading.line()
    ours = f"#{PREFIX}" in arguments.code or arguments.code.strip().startswith(PREFIX)
    return _run("circle.making:join" if ours else "circles:join", arguments)


def invite(arguments: argparse.Namespace) -> int:
    """Print what lets somebody in."""
    return _either(arguments.circle, "circle.making:invite", "circles:invite", arguments)


def leave(arguments: argparse.Namespace) -> int:
    """Forget a circle."""
    return _either(arguments.name, "circle.making:leave", "circles:leave", arguments)


def use(arguments: argparse.Namespace) -> int:
    """Choose the circle that commands mean."""
    return _either(arguments.name, "circle.making:use", "circles:use", arguments)


def rename(arguments: argparse.Namespace) -> int:
    """Give a circle another name here."""
    return _either(arguments.name, "circle.making:rename", "circles:rename", arguments)


def send(arguments: argparse.Namespace) -> int:
    """Say something."""
    return _either(arguments.circle, "circle.talking:send", "sending:send", arguments)


def listen(arguments: argparse.Namespace) -> int:
    """Show what is said."""
    return _either(arguments.circle, "circle.talking:listen", "listening:listen", arguments)


def peers(arguments: argparse.Namespace) -> int:
    """Show who is there."""
    return _either(arguments.circle, "circle.talking:peers", "listening:peers", arguments)


def _either(name: str | None, ours: str, felund: str, arguments: argparse.Namespace) -> int:
    """Run one of two, by the kind of the circle that is meant."""
    home = Home.from_environment()
    return _run(ours if home.is_ours(home.which(name)) else felund, arguments)


def _run(where: str, arguments: argparse.Namespace) -> int:
    module, _, function = where.partition(":")
    found: Callable[[argparse.Namespace], int] = getattr(
        import_module(f"muster.cli.{module}"), function
    )
    return found(arguments)
