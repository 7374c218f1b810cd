"""What happens in a circle, as a connection yields it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from muster.circle.links import Link
from muster.circle.peers import Peer
from muster.signals import Signal

Status = Literal["connecting", "live", "polling", "offline", "replaced"]


@dataclass(frozen=True, slots=True)
class Author:
    """Whose words they are."""

    id: bytes
    name: str


@dataclass(frozen=True, slots=True)
class Said:
    """Somebody has said something; *mine* if it was this node's member."""

    place: int
    hash: bytes
    member_id: bytes
    name: str
    channel: bytes
    kind: str
    body: Mapping[str, Any]
    at_ms: int
    mine: bool = False

    @property
    def author(self) -> Author:
        """Who has said it."""
        return Author(self.member_id, self.name)

    @property
    def text(self) -> str:
        """The text, for what is one."""
        text = self.body.get("text")
        return text if self.kind == "text" and isinstance(text, str) else ""


@dataclass(frozen=True, slots=True)
class Joined:
    """A node is there."""

    peer: Peer


@dataclass(frozen=True, slots=True)
class Changed:
    """A node that is there has another name, or other endpoints or abilities."""

    peer: Peer


@dataclass(frozen=True, slots=True)
class Left:
    """A node is there no longer."""

    peer: Peer


@dataclass(frozen=True, slots=True)
class Missing:
    """Records of a member are missing between others; these services do not have them.

    *old*: what comes before them is older than mailboxes keep anything, so nobody is to blame.
    """

    member_id: bytes
    name: str
    first: int
    last: int
    services: tuple[str, ...]
    old: bool


@dataclass(frozen=True, slots=True)
class Forked:
    """A member has said two things under one number: it told members different stories."""

    member_id: bytes
    name: str
    seq: int


@dataclass(frozen=True, slots=True)
class Distrusted:
    """A service has answered with something that no honest one answers."""

    service: str
    why: str


@dataclass(frozen=True, slots=True)
class Unread:
    """Something in a mailbox is no record: a member has left it, or the service altered it."""

    service: str
    number: int
    why: str


@dataclass(frozen=True, slots=True)
class State:
    """How a service is reached now, and why not better."""

    service: str
    state: Status
    why: str = ""


@dataclass(frozen=True, slots=True)
class Rekeyed:
    """The founder has begun a new epoch, and this node is in it."""

    epoch: int


@dataclass(frozen=True, slots=True)
class LeftOut:
    """The founder has begun a new epoch without this node."""

    epoch: int


@dataclass(frozen=True, slots=True)
class Founder:
    """This node was given the founder key."""


@dataclass(frozen=True, slots=True)
class Services:
    """The founder has told of services that this node did not know."""

    urls: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Signalled:
    """A node has left a signal for this one."""

    signal: Signal


@dataclass(frozen=True, slots=True)
class Linked:
    """Another node has opened a link to this one."""

    link: Link


Event = (
    Said
    | Joined
    | Changed
    | Left
    | Missing
    | Forked
    | Distrusted
    | Unread
    | State
    | Rekeyed
    | LeftOut
    | Founder
    | Services
    | Signalled
    | Linked
)
