"""Sending: `muster send`, which leaves a text in the circle's mailbox."""

from __future__ import annotations

import argparse
import asyncio
import getpass
import os
from typing import Any

from muster.cli import output, reading
from muster.cli.base import base_url, explained, open_client
from muster.cli.home import Home, Membership
from muster.cli.output import Misuse
from muster.errors import InvalidSignature
from muster.felund.crypto import Note

ATTEMPTS = 3
"""A person waits: a few quick attempts, then say what is wrong."""


def send(arguments: argparse.Namespace) -> int:
    """Leave a text in the circle's mailbox."""
    home = Home.from_environment()
    membership = home.chosen(arguments.circle)
    base = base_url(arguments.base or membership.base_url)
    text = text_of(arguments.text)
    name = _utf8(arguments.name or os.environ.get("MUSTER_NAME") or _user(), "your name")
    note = say_in(membership, base, home.node_id(), text, name=name)
    if arguments.json:
        output.dump({"circle": membership.name, **told(note)})
    else:
        output.show(f"sent to '{membership.name}'")
    return output.OK


def say_in(membership: Membership, base: str, node_id: str, text: str, *, name: str) -> Note:
    """Leave a text in a felund circle's mailbox."""
    return asyncio.run(_send(membership, base, node_id, text, name=name))


async def _send(membership: Membership, base: str, node_id: str, text: str, *, name: str) -> Note:
    # The service does not echo to the node that posts, but a `listen` in the next
    # terminal, of the same home, is to hear it: so the call is another node's.
    circle = membership.circle
    async with open_client(base, circle, f"{node_id}-send", attempts=ATTEMPTS) as client:
        with explained(base, circle.circle_hint):
            try:
                return await client.send(text, display_name=name, author=node_id)
            except InvalidSignature:
                await client.register(ttl_s=30)  # pins the circle's key, if nobody was here yet
                note = await client.send(text, display_name=name, author=node_id)
                await client.unregister()
                return note


def text_of(words: list[str]) -> str:
    """Return the text that is meant; ``-`` reads it from stdin. Raises `Misuse`."""
    text = reading.text().rstrip("\n") if words == ["-"] else " ".join(words)
    if not text.strip():
        raise Misuse("there is nothing to send", "muster send TEXT")
    return _utf8(text, "the text")


def _utf8(text: str, what: str) -> str:
    try:
        text.encode()
    except UnicodeEncodeError:
        raise Misuse(f"{what} is not UTF-8", "check the terminal's locale") from None
    return text


def _user() -> str:
    try:
        return getpass.getuser()
    except (OSError, KeyError):
        return "somebody"


def told(note: Note) -> dict[str, Any]:
    """Return a message for programs."""
    return {
        "msg_id": note.msg_id,
        "node_id": note.author_node_id,
        "name": note.display_name,
        "channel": note.channel_id,
        "created_at": note.created_ts,
        "text": note.text,
    }
