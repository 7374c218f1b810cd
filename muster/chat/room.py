"""A room: one circle as a screen shows it, of whichever kind; here what both kinds share.

A screen asks a room for places (channels), pages of messages, who is there and how a message
fares, and says things in it. `muster.chat.node.Room` is one of our circles,
`muster.chat.felund.FelundRoom` one of the felund dialect.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Literal, Protocol

from muster.chat.store import Message

Path = Literal["tcp", "webrtc", "relay", "none"]


@dataclass(frozen=True, slots=True)
class Place:
    """A channel, as a list shows it."""

    id: bytes
    name: str
    mode: str = "public"
    topic: str = ""
    unread: int = 0
    joined: bool = True
    call: str = ""


@dataclass(frozen=True, slots=True)
class Someone:
    """A person of a circle: how called, and by what path reached now."""

    id: bytes
    name: str
    path: Path = "none"
    here: bool = False
    me: bool = False
    devices: int = 1

    @property
    def key(self) -> str:
        """What tells apart who is called alike."""
        return self.id.hex()[:6]


@dataclass(frozen=True, slots=True)
class Waiting:
    """A text that was written, and that is not said so far."""

    text: str


class AnyRoom(Protocol):
    """What a screen needs of a circle."""

    name: str
    kind: str
    trouble: str
    changed: Callable[[], None]

    @property
    def id(self) -> bytes:
        """The circle's name in the store."""

    @property
    def title(self) -> str:
        """How the circle is called."""

    @property
    def status(self) -> str:
        """How it is reached, in a few words."""

    async def run(self) -> None:
        """Keep it up to date until cancelled."""

    def close(self) -> None:
        """Let go of its files."""

    def places(self) -> list[Place]:
        """Return the channels, `general` first."""

    def people(self) -> list[Someone]:
        """Return who is in the circle, those who are there first."""

    def page(
        self,
        channel: bytes,
        *,
        before: tuple[int, bytes] | None = None,
        after: tuple[int, bytes] | None = None,
        most: int = 50,
    ) -> list[Message]:
        """Return messages, the oldest first."""

    def search(self, channel: bytes, words: str, *, most: int = 50) -> list[Message]:
        """Return messages with these words, the oldest first."""

    def since(self, after: int, *, until: int) -> Iterator[Message]:
        """Yield messages in the order in which they came, between two numbers of them."""

    def message(self, hashed: bytes) -> Message | None:
        """Return one message."""

    def waiting(self, channel: bytes) -> Sequence[Waiting]:
        """Return what was written and not said so far."""

    def person_of(self, member: bytes) -> bytes:
        """Return the person that a member is a device of."""

    def author(self, message: Message) -> str:
        """Return who said something, as it is called now; one's key where nobody knows."""

    def is_mine(self, message: Message) -> bool:
        """Say whether this member said it."""

    def fate(self, message: Message) -> str:
        """Say where a message of one's own is by now."""

    def say(self, text: str, *, channel: bytes, reply: Message | None = None) -> None:
        """Say something soon; raises `errors.Hinted`."""

    def unread(self, channel: bytes) -> int:
        """Return how many messages of others were not read."""

    def mark(self, channel: bytes) -> int:
        """Return the number of the last message that was read."""

    def read(self, channel: bytes, number: int) -> None:
        """Note that a channel was read up to a message."""

    def invite(self) -> str:
        """Return what lets somebody in."""


def told(services: int, nodes: int, *, has_services: bool) -> str:
    """Say where a message is by now, in a few words."""
    parts = []
    if services:
        parts.append(f"left with {services} service{'s' if services > 1 else ''}")
    if nodes:
        parts.append(f"delivered directly to {nodes}")
    return ", ".join(parts) or ("on its way" if has_services else "waits for somebody")
