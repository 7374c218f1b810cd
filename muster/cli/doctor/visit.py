"""What the steps of an examination share, and what a step is."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import NamedTuple

from muster.felund.circle import Circle
from muster.felund.client import Client
from muster.felund.sockets import Socket
from muster.invites import ServiceAddress

TTL_S = 60
LOOK_S = 0.25
"""How long to wait before looking again for what takes a moment."""

SPLIT = "do several services share this address without sharing their store?"
BROKEN = "the service is broken"

Make = Callable[[Circle, str], Client]
"""Makes a client for a node of a circle, pointed at the service to be examined."""


@dataclass(slots=True)
class Visit:
    """What the steps share: two nodes of a fresh circle, and what they have got so far."""

    make: Make
    circle: Circle
    near: Client
    far: Client
    stranger: Client
    own: bool = False
    """Whether the circle is somebody's, in which others may be."""
    open: bool = True
    version: str = ""
    subscription: Socket | None = None
    seats: tuple[Socket, Socket] | None = None
    session_id: str = ""
    texts: list[str] = field(default_factory=list)
    capsule_root: str | None = None
    announced: tuple[str, ...] = ()
    address: ServiceAddress | None = None
    """The whole address of the service, where that was given."""


class NotTried(Exception):
    """What a step is for is not to be had here, which is no fault; it says why."""


class Step(NamedTuple):
    """One thing that must work: what it is called, what it does, what it needs."""

    name: str
    what: str
    work: Callable[[Visit], Awaitable[str]]
    needs: tuple[str, ...] = ()
    opens_websocket: bool = False
