"""What the records of a chat say: one shape for each kind, each with its bounds.

A record that has another shape is kept and passed on, and counts for nothing; members that a
reader does not know are ignored (docs/chat.md, Kinds). Where several may say one thing, *n* is
one more than the highest that its author knew: clocks differ.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal

import msgspec
from msgspec import Meta

from capsules.errors import Reason, Refused
from muster import base64url

TEXT_BYTES = 256 * 1024
NAME_BYTES = 64
TOPIC_BYTES = 512
EMOJI_BYTES = 32
MOST_MANAGERS = 64
MOST_BOXES = 1024
MOST_DAYS = 3650

KEEP_DAYS = 30
"""How long texts are kept where nobody has said otherwise: as long as mailboxes keep them."""

Hash = Annotated[str, Meta(pattern=r"^[0-9a-f]{64}$(?!\n)")]
Id = Annotated[str, Meta(pattern=r"^[0-9a-f]{32}$(?!\n)")]
B64 = Annotated[str, Meta(pattern=r"^[A-Za-z0-9_-]*$(?!\n)")]
Key = Annotated[str, Meta(pattern=r"^[A-Za-z0-9_-]{43}$(?!\n)")]
Salt = Annotated[str, Meta(pattern=r"^[A-Za-z0-9_-]{22}$(?!\n)")]
Box = Annotated[str, Meta(pattern=r"^[A-Za-z0-9_-]{107}$(?!\n)")]
Number = Annotated[int, Meta(ge=0, le=2**53 - 1)]
KeyNumber = Annotated[int, Meta(ge=0, le=2**32 - 1)]
Days = Annotated[int, Meta(ge=0, le=MOST_DAYS)]
Name = Annotated[str, Meta(min_length=1, max_length=NAME_BYTES)]
Boxes = Annotated[dict[Id, Box], Meta(max_length=MOST_BOXES)]
Mode = Literal["public", "key", "invite"]


class _Body(msgspec.Struct, frozen=True, kw_only=True):
    """The base of all bodies."""


class Text(_Body, frozen=True, kw_only=True):
    """Something said; *reply* names the record that it answers."""

    text: Annotated[str, Meta(max_length=TEXT_BYTES)]
    name: Annotated[str, Meta(max_length=NAME_BYTES)] = ""
    reply: Hash | None = None


class Edit(_Body, frozen=True, kw_only=True):
    """What a text of the same author is to say from now on."""

    of: Hash
    text: Annotated[str, Meta(max_length=TEXT_BYTES)]


class Delete(_Body, frozen=True, kw_only=True):
    """A record of the same author that is to be dropped, and its number."""

    of: Hash
    seq: Annotated[int, Meta(ge=1, le=2**53 - 1)]


class React(_Body, frozen=True, kw_only=True):
    """An emoji beside a text, or no longer."""

    of: Hash
    emoji: Annotated[str, Meta(min_length=1, max_length=EMOJI_BYTES)]
    on: bool = True


class Person(_Body, frozen=True, kw_only=True):
    """Another member key of the same person; it counts when both say so."""

    other: Key = msgspec.field(name="with")
    on: bool = True


class Member(_Body, frozen=True, kw_only=True):
    """How a member is called."""

    name: Annotated[str, Meta(max_length=NAME_BYTES)]
    box: Key


# --- kind "circle": what is about all of it ------------------------------------------------


class CircleName(_Body, frozen=True, tag_field="op", tag="name", kw_only=True):
    """How the circle is called."""

    name: Name
    n: Number = 0


class CircleKeep(_Body, frozen=True, tag_field="op", tag="keep", kw_only=True):
    """How many days texts are kept; 0 for as long as members like."""

    days: Days
    n: Number = 0


class CircleManagers(_Body, frozen=True, tag_field="op", tag="managers", kw_only=True):
    """Who may name the circle and say how long texts are kept, signed by the founder key."""

    managers: Annotated[tuple[Id, ...], Meta(max_length=MOST_MANAGERS)]
    at_ms: Number
    signature: Annotated[str, Meta(pattern=r"^[A-Za-z0-9_-]{86}$(?!\n)")]


# --- kind "channel" --------------------------------------------------------------------------


class _Op(_Body, frozen=True, tag_field="op", kw_only=True):
    """The base of what is about a channel."""


class Create(_Op, frozen=True, tag="create", kw_only=True):
    """A channel begins. Its id follows from its author and the salt, so nobody else creates it."""

    mode: Mode
    salt: Salt
    name: Name
    box: Box | None = None
    """Mode ``invite``: the first key, boxed to the author itself."""


class Rename(_Op, frozen=True, tag="rename", kw_only=True):
    """How a channel is called."""

    name: Name
    n: Number = 0


class Topic(_Op, frozen=True, tag="topic", kw_only=True):
    """What a channel is about."""

    topic: Annotated[str, Meta(max_length=TOPIC_BYTES)]
    n: Number = 0


class Keep(_Op, frozen=True, tag="keep", kw_only=True):
    """How many days the texts of a channel are kept."""

    days: Days
    n: Number = 0


class Join(_Op, frozen=True, tag="join", kw_only=True):
    """The author is in; in a channel by invitation it asks to be."""


class Leave(_Op, frozen=True, tag="leave", kw_only=True):
    """The author is in no longer, or asks no longer."""


class Managers(_Op, frozen=True, tag="managers", kw_only=True):
    """Who may do what the creator may, but for this."""

    managers: Annotated[tuple[Id, ...], Meta(max_length=MOST_MANAGERS)]


class Invite(_Op, frozen=True, tag="invite", kw_only=True):
    """Somebody is let in: with the key that the record *source* has made, boxed."""

    to: Id
    key: KeyNumber | None = None
    source: Hash | None = msgspec.field(default=None, name="from")
    box: Box | None = None
    n: Number = 0


class Approve(Invite, frozen=True, tag="approve", kw_only=True):
    """Somebody who has asked is let in."""


class Remove(_Op, frozen=True, tag="remove", kw_only=True):
    """Somebody is in no longer: nothing counts that it says here after *last*.

    In a private channel it makes the next key.
    """

    member: Id
    last: Number
    key: KeyNumber | None = None
    boxes: Boxes = msgspec.field(default_factory=dict)
    salt: Salt | None = None
    n: Number = 0


class NewKey(_Op, frozen=True, tag="key", kw_only=True):
    """The next key of a private channel."""

    key: KeyNumber
    boxes: Boxes = msgspec.field(default_factory=dict)
    salt: Salt | None = None


# --- kind "call" -------------------------------------------------------------------------------


class _Call(_Body, frozen=True, tag_field="op", kw_only=True):
    """The base of what is about a call."""


class CallCreate(_Call, frozen=True, tag="create", kw_only=True):
    """A call begins; the record's hash is its name, the author its host."""

    media: Literal["audio", "video", "broadcast"] = "audio"


class CallJoin(_Call, frozen=True, tag="join", kw_only=True):
    """The author talks in a call."""

    call: Hash


class CallView(_Call, frozen=True, tag="view", kw_only=True):
    """The author looks on."""

    call: Hash


class CallLeave(_Call, frozen=True, tag="leave", kw_only=True):
    """The author is in it no longer."""

    call: Hash


class CallEnd(_Call, frozen=True, tag="end", kw_only=True):
    """The host ends it for all."""

    call: Hash


class CallRevoke(_Call, frozen=True, tag="revoke", kw_only=True):
    """The host shuts somebody out of it."""

    call: Hash
    member: Id


ChannelOp = Create | Rename | Topic | Keep | Join | Leave | Managers | Invite | Approve | Remove
AnyChannelOp = ChannelOp | NewKey
CircleOp = CircleName | CircleKeep | CircleManagers
CallOp = CallCreate | CallJoin | CallView | CallLeave | CallEnd | CallRevoke
Body = Text | Edit | Delete | React | Person | Member | AnyChannelOp | CircleOp | CallOp

SHAPES: Mapping[str, Any] = {
    "text": Text,
    "edit": Edit,
    "delete": Delete,
    "react": React,
    "person": Person,
    "member": Member,
    "circle": CircleOp,
    "channel": AnyChannelOp,
    "call": CallOp,
}
TALK = frozenset({"text", "edit", "react"})
FACTS = frozenset({"member", "circle", "channel", "person", "call"})

_BYTES: Mapping[str, int] = {
    "text": TEXT_BYTES,
    "name": NAME_BYTES,
    "topic": TOPIC_BYTES,
    "emoji": EMOJI_BYTES,
}


_B64 = ("box", "other", "salt", "signature")


def _is_spelled(text: str) -> bool:
    """Say whether base64url has its only spelling: what does not encode back was not meant."""
    try:
        return base64url.encode(base64url.decode(text)) == text
    except ValueError:
        return False


def read(kind: str, body: Mapping[str, Any]) -> Body:
    """Read what a record says; raises `Refused` for what has no such shape."""
    shape = SHAPES.get(kind)
    if shape is None:
        raise Refused(Reason.MALFORMED, f"the chat knows no kind '{kind}'")
    try:
        found: Body = msgspec.convert(dict(body), type=shape)
    except (msgspec.ValidationError, RecursionError) as error:
        raise Refused(Reason.MALFORMED, f"{kind}: {error}") from None
    for name in _B64:
        value = getattr(found, name, None)
        if isinstance(value, str) and value and not _is_spelled(value):
            raise Refused(Reason.NOT_CANONICAL, f"{kind}: {name} is no base64url")
    for name, most in _BYTES.items():
        value = getattr(found, name, None)
        if isinstance(value, str) and len(value.encode(errors="replace")) > most:
            raise Refused(Reason.TOO_LARGE, f"{name} has more than {most} bytes")
    return found


def write(body: Body) -> dict[str, Any]:
    """Return a body as JSON; members that say nothing are left out."""
    found: dict[str, Any] = msgspec.to_builtins(body)
    return {
        name: value
        for name, value in found.items()
        if value is not None and value != {} and (name, value) not in (("name", ""), ("n", 0))
    }
