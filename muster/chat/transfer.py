"""Transfer: a profile as lines of JSON, and in one encrypted file; brought to another device.

What is brought is circles, their history and the keys of channels; never a member secret, nor the
founder key: another device is another member, or two would speak at one place of a chain. The
encrypted file is of age (age-encryption.org/v1), under a passphrase, so that other tools open it.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any

from capsules.errors import Refused
from muster import base64url
from muster.chat import age
from muster.chat.felund import FelundRoom
from muster.chat.node import Room
from muster.chat.room import AnyRoom
from muster.chat.store import Row
from muster.errors import BadValue
from muster.invites import InvalidInvite, Invite
from muster.seals import Said

VERSION = 1
BATCH = 500
AGE = age.BEGIN
LEAST_PASSPHRASE = 8


class NotAnExport(BadValue):
    """The file is none that an export made."""


def lines(rooms: Iterable[AnyRoom], *, name: str, at_ms: int) -> Iterator[dict[str, Any]]:
    """Yield what a profile has, a value a line."""
    yield {"t": "muster-export", "v": VERSION, "at_ms": at_ms, "name": name}
    for room in rooms:
        if isinstance(room, Room):
            yield from _ours(room)
        elif isinstance(room, FelundRoom):
            yield from _felund(room)


def _ours(room: Room) -> Iterator[dict[str, Any]]:
    circle, talk = room.circle, room.talk
    talk.catch_up()
    invite = circle.invite(name=room.title, peers=room.peers_shown())
    yield {
        "t": "circle",
        "name": room.name,
        "circle": room.id.hex(),
        "invite": invite.code,
        "member": talk.me.hex(),
    }
    for source, key in talk.known_keys().items():
        yield {
            "t": "key",
            "circle": room.id.hex(),
            "from": source.hex(),
            "key": base64url.encode(key),
        }
    for kept in circle.file.records():
        yield {
            "t": "record",
            "circle": room.id.hex(),
            "epoch": kept.record.epoch,
            "text": base64url.encode(kept.said.text),
            "signature": base64url.encode(kept.said.signature),
        }


def _felund(room: FelundRoom) -> Iterator[dict[str, Any]]:
    yield {"t": "felund", "name": room.name, "circle": room.id.hex(), "invite": room.invite()}
    for place in room.places():
        for one in room.page(place.id, most=1_000_000):
            yield {
                "t": "note",
                "circle": room.id.hex(),
                "channel": place.name,
                "id": one.hash.hex(),
                "author": one.author.hex(),
                "name": one.name,
                "at_ms": one.at_ms,
                "text": one.text,
            }


def write(found: Iterable[dict[str, Any]]) -> bytes:
    """Return lines as a file."""
    return b"".join(
        json.dumps(one, ensure_ascii=False, separators=(",", ":")).encode() + b"\n" for one in found
    )


def encrypt(content: bytes, passphrase: str) -> bytes:
    """Return a file under a passphrase (age, scrypt); raises `BadValue` for one that is short."""
    if len(passphrase) < LEAST_PASSPHRASE:
        raise BadValue(f"the passphrase has fewer than {LEAST_PASSPHRASE} characters")
    return age.sealed(content, passphrase)


def decrypt(content: bytes, passphrase: str) -> bytes:
    """Open a file under a passphrase; raises `NotAnExport`."""
    import pyrage
    from pyrage import passphrase as under  # type: ignore[attr-defined]

    try:
        plain: bytes = under.decrypt(content, passphrase)
    except pyrage.DecryptError:  # type: ignore[attr-defined]
        raise NotAnExport(
            "the file does not open with this passphrase, or is damaged", "case counts"
        ) from None
    return plain


def read(content: bytes) -> list[dict[str, Any]]:
    """Read lines; raises `NotAnExport`."""
    found = []
    for number, line in enumerate(content.splitlines(), start=1):
        try:
            value = json.loads(line)
        except (ValueError, RecursionError):
            value = None
        if not isinstance(value, dict) or not isinstance(value.get("t"), str):
            raise NotAnExport(f"line {number} is none of an export", "is the file complete?")
        found.append(value)
    first = found[0] if found else {}
    if first.get("t") != "muster-export":
        raise NotAnExport("the file is no export of 'muster export'")
    if first.get("v") != VERSION:
        raise NotAnExport(
            f"the export is of version {first.get('v')}, which this muster does not know",
            "update muster",
        )
    return found


@dataclass
class Taken:
    """What an import has brought."""

    circles: list[str] = field(default_factory=list)
    records: int = 0
    refused: int = 0


def invite_of(value: dict[str, Any]) -> Invite:
    """Return the invite of a circle's line; raises `NotAnExport`."""
    try:
        return Invite.parse(str(value.get("invite")))
    except InvalidInvite as error:
        raise NotAnExport(f"a circle's invite is damaged: {error.message}") from None


def take(room: Room, found: Iterable[dict[str, Any]], taken: Taken) -> None:
    """Take what an export has of one circle; what no member has signed is counted and left."""
    name = room.id.hex()
    batch: list[tuple[Said, int]] = []
    for one in found:
        if one.get("circle") != name:
            continue
        try:
            if one["t"] == "key":
                source = bytes.fromhex(one["from"])
                room.talk.keep_key(source, base64url.decode(one["key"]))
            elif one["t"] == "record":
                said = Said(base64url.decode(one["text"]), base64url.decode(one["signature"]))
                batch.append((said, int(one["epoch"])))
        except (KeyError, TypeError, ValueError):
            taken.refused += 1
        if len(batch) >= BATCH:
            batch = _flush(room, batch, taken)
    _flush(room, batch, taken)
    room.talk.catch_up()


def _flush(room: Room, batch: list[tuple[Said, int]], taken: Taken) -> list[tuple[Said, int]]:
    circle = room.circle
    with circle.file.writing():
        for said, epoch in batch:
            try:
                if epoch > circle.epoch.number:
                    taken.refused += 1
                    continue
                _, found = circle.take_record(said, epoch)
                taken.records += bool(found)
            except (Refused, ValueError):
                taken.refused += 1
    return []


def take_felund(room: FelundRoom, found: Iterable[dict[str, Any]], taken: Taken) -> None:
    """Take the notes that an export has of a felund circle."""
    name = room.id.hex()
    with room.store.writing():
        for one in found:
            if one.get("circle") != name or one["t"] != "note":
                continue
            try:
                at_ms = int(one["at_ms"])
                row = Row(
                    hash=bytes.fromhex(one["id"]),
                    channel=room.channel(str(one["channel"])),
                    author=bytes.fromhex(one["author"]),
                    seq=0,
                    at_ms=at_ms,
                    shown_ms=at_ms,
                    closed=False,
                    name=str(one["name"]),
                    text=str(one["text"]),
                    reply=None,
                )
                taken.records += room.store.add_text(room.id, row)
            except (KeyError, TypeError, ValueError, BadValue):
                taken.refused += 1
