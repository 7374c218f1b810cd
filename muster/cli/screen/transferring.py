"""Transferring: `muster export | import`, a profile brought to another device."""

from __future__ import annotations

import argparse
import sys
import time
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from muster.chat.felund import FelundRoom
from muster.chat.node import Options, Room
from muster.cli import output
from muster.cli.cleaning import seen
from muster.cli.home import Home
from muster.cli.output import Failure, Misuse
from muster.cli.screen.session import Session
from muster.cli.screen.verbs import close
from muster.errors import BadValue

if TYPE_CHECKING:
    from muster.chat.transfer import Taken


def export(arguments: argparse.Namespace) -> int:
    """Write circles and their history to a file, encrypted unless asked otherwise."""
    from muster import whole_file
    from muster.chat import transfer

    home, file = Home.from_environment(), Path(arguments.file)
    if file.is_dir():
        raise Misuse(f"{file} is a folder", "name a file in it")
    session = Session.open(home, Options(), only=arguments.circle)
    try:
        if not session.rooms:
            raise Failure("there is no circle in this home", "muster chat makes one")
        found = transfer.lines(session.rooms, name=session.name, at_ms=int(time.time() * 1000))
        content = transfer.write(found)
        if not arguments.plain:
            content = transfer.encrypt(content, _passphrase(arguments, twice=True))
        whole_file.write(file, content)
        told = {"file": str(file), "circles": len(session.rooms), "bytes": len(content)}
    except BadValue as error:
        raise Misuse(error.message, error.hint) from None
    finally:
        close(session)
    if arguments.json:
        output.dump(told)
    else:
        count = f"{told['circles']} circle{'s' if told['circles'] != 1 else ''}"
        output.show(f"{count} in {file}; 'muster import {file}' takes it in elsewhere")
        if arguments.plain:
            output.say("It is not encrypted: whoever reads it is a member of these circles.")
    return output.OK


def import_(arguments: argparse.Namespace) -> int:
    """Take circles and their history from a file; this device becomes a member of its own."""
    from muster.chat import transfer

    home, file = Home.from_environment(), Path(arguments.file)
    content = file.read_bytes()
    session = Session.open(home, Options())
    taken = transfer.Taken()
    try:
        if content.startswith(transfer.AGE):
            content = transfer.decrypt(content, _passphrase(arguments, twice=False))
        found = transfer.read(content)
        _be_called(session, found)
        _take_in(session, found, taken)
    except BadValue as error:
        raise Misuse(error.message, error.hint) from None
    finally:
        close(session)
    if arguments.json:
        output.dump({"circles": taken.circles, "records": taken.records, "refused": taken.refused})
        return output.OK
    output.show(f"{', '.join(taken.circles)}: {taken.records} records that were not here")
    if taken.refused:
        output.say(f"muster: warning: {taken.refused} lines were damaged, and left out")
    output.say(
        "To be shown as one person with your other device, type there and here: /device NAME"
    )
    return output.OK


def _be_called(session: Session, found: list[dict[str, Any]]) -> None:
    """Be called as in the file, where nobody has said otherwise here: others keep what they see."""
    name = next((one.get("name") for one in found if one["t"] == "muster-export"), None)
    if not session.is_named and isinstance(name, str) and seen(name):
        with suppress(BadValue):
            session.call_me(seen(name))


def _take_in(session: Session, found: list[dict[str, Any]], taken: Taken) -> None:
    from muster.chat import transfer

    for value in found:
        if value["t"] == "circle":
            ours = session.join(transfer.invite_of(value).code, sure=True)
            if isinstance(ours, Room):
                transfer.take(ours, found, taken)
                taken.circles.append(ours.name)
        elif value["t"] == "felund":
            other = session.join(str(value.get("invite")))
            if isinstance(other, FelundRoom):
                transfer.take_felund(other, found, taken)
                taken.circles.append(other.name)


def _passphrase(arguments: argparse.Namespace, *, twice: bool) -> str:
    """Ask for the passphrase of a file, or read it from one."""
    if arguments.passphrase_file:
        lines = Path(arguments.passphrase_file).read_text(encoding="utf-8").splitlines()
        return lines[0] if lines else ""
    if not sys.stdin.isatty():
        raise Misuse(
            "nobody is here to type the passphrase",
            "--passphrase-file FILE has it; or --plain"
            if twice
            else "--passphrase-file FILE has it",
        )
    import getpass

    typed = getpass.getpass("Passphrase for the file: ")
    if twice and getpass.getpass("Once more: ") != typed:
        raise Misuse("the two passphrases differ", "once more")
    return typed
