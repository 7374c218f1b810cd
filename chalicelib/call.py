"""One HTTP exchange without a framework, and what a use case wants sent.

Hosts translate their events into a `Call` and a `Reply` back; the rest of the
service knows no host.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

from muster.felund import signing

if TYPE_CHECKING:
    from concurrent.futures import Future


class Caller(NamedTuple):
    """Who makes a call of version 2: its circle as stores and limits know it, its node, its key."""

    circle: str
    node_id: str
    circle_key: bytes


@dataclass(slots=True)
class Call:
    """One request: header names in lower case, of repeated parameters the first.

    Its head comes first: the host adds the body, and a guard whether it is signed.
    """

    method: str
    path: str
    query: Mapping[str, str] = field(default_factory=dict)
    headers: Mapping[str, str] = field(default_factory=dict)
    body: bytes = b""
    source_ip: str = ""
    source_port: int | None = None
    clock: float = 0.0
    request_id: str = ""
    websocket_url: str = ""
    outside: bool = False
    """Whether the call may have come from another machine, as far as the host can tell."""
    signed: bool = False
    """Whether a guard has found that a member of the circle signed it."""
    seen: Any = None
    """What a guard has read of the head, so that it reads it once."""
    socket: str = ""
    """The connection that it came by as a frame."""
    caller: Caller | None = None
    """Who makes it, where a guard has proved that."""
    stamp: Callable[[Reply], None] | None = None
    """What signs the answer, where the caller is to have one that is signed."""

    @property
    def declared_bytes(self) -> int:
        """How large the body is to be, as the head says; nothing if it does not say."""
        text = self.headers.get("content-length", "")
        return int(text) if text.isdecimal() and len(text) < 16 else 0

    @property
    def now(self) -> int:
        """The second in which the call arrived, Unix time."""
        return int(self.clock)

    @property
    def node_id(self) -> str:
        """The node the caller says it is; proved only where a guard has checked it."""
        if self.caller is not None:
            return self.caller.node_id
        return self.headers.get(signing.NODE, "")


class Connection(NamedTuple):
    """One open WebSocket: its id, and where the gateway that holds it can be reached."""

    id: str
    endpoint: str = ""


class Send(NamedTuple):
    """Text for a connection, and what else is to be sent if it arrived or was lost."""

    connection: Connection
    text: str
    then: tuple[Send, ...] = ()
    lost: tuple[Send, ...] = ()


class Close(NamedTuple):
    """The end of a connection, with a WebSocket close code."""

    connection: Connection
    code: int = 1000
    reason: str = ""


Effect = Send | Close


class Done(NamedTuple):
    """What a use case answers, and what is to be sent besides."""

    answer: Any
    effects: tuple[Effect, ...] = ()


class Wait(NamedTuple):
    """What an answer waits for, how long at the most, and what it is then."""

    pending: tuple[Future[Any], ...]
    within_s: float
    then: Callable[[], Any]

    def out(self) -> None:
        """Wait in this thread; a host with an event loop waits without blocking it."""
        from concurrent import futures

        futures.wait(self.pending, timeout=self.within_s)


class Gone(Exception):
    """The connection is not there any more."""


class Sender(Protocol):
    """What holds the sockets: a gateway, or the one-machine host."""

    def send(self, connection: Connection, text: str) -> None:
        """Pass *text* to the connection; raises `Gone` if it is not there."""

    def close(self, connection: Connection, code: int, reason: str) -> None:
        """End the connection; one that is gone already is no error."""


@dataclass(slots=True)
class Reply:
    """The answer to a call, and what is to be sent besides it."""

    status: int
    body: bytes = b""
    headers: dict[str, str] = field(default_factory=dict)
    effects: tuple[Effect, ...] = ()
    code: str = ""
    route: str = ""
    circle_hint: str = ""
