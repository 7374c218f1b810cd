"""Shapes of version 2: what its calls ask and answer, each one type with its bounds.

The types are the schema, as those of version 1 are. What is sealed is opaque here: it is
measured, never opened.
"""

from __future__ import annotations

from typing import Annotated, Literal

import msgspec
from msgspec import UNSET, Meta, UnsetType

from muster.structs import Record

MOST_SENT = 50
"""How many messages, and how many signals, one call leaves."""

PEERS_PAGE = 64
REPLY_BYTES = 1024 * 1024
MESSAGES_PAGE, SIGNALS_PAGE = 500, 200

LEAST_TTL_S, MOST_TTL_S = 30, 660
LEAST_NEXT_S, MOST_NEXT_S = 5, 900

_ID = r"^[0-9a-f]{32}$(?!\n)"
_B64 = r"^[A-Za-z0-9_-]*$(?!\n)"

NodeId = Annotated[str, Meta(pattern=_ID, description="A node's name: 32 hex digits.")]
Sealed = Annotated[
    str, Meta(min_length=128, pattern=_B64, description="Sealed bytes, base64url without padding.")
]
Cursor = Annotated[int, Meta(ge=0, le=2**53 - 1)]
Count = Annotated[int, Meta(ge=0, le=2**53 - 1)]
Seconds = Annotated[int | float, Meta(description="Seconds; clamped to what is allowed.")]


class Placed(Record, frozen=True, kw_only=True):
    """Where the calling node is, sealed; kept for `ttl_s` seconds."""

    sealed: Sealed
    ttl_s: Seconds = 120
    tell: bool = False
    """Whether the circle is told at once."""


class SentSignal(Record, frozen=True, kw_only=True):
    """One sealed signal for a node."""

    to: NodeId
    sealed: Sealed
    ttl_s: Seconds = 120


class Sent(Record, frozen=True, kw_only=True):
    """What is left for the circle."""

    messages: Annotated[tuple[Sealed, ...], Meta(max_length=MOST_SENT)] = ()
    signals: Annotated[tuple[SentSignal, ...], Meta(max_length=MOST_SENT)] = ()


class After(Record, frozen=True, kw_only=True):
    """Up to where the caller has read."""

    peers: NodeId | None = None
    messages: Cursor | None = None
    signals: Cursor | None = None


class Want(Record, frozen=True, kw_only=True):
    """What the caller reads: whether peers, and how many messages and signals at the most."""

    peers: bool = False
    messages: Count = 0
    signals: Count = 0
    ice: bool = False
    """Whether the STUN and TURN servers that the operator knows."""


class Sync(Record, frozen=True, kw_only=True):
    """Everything that a node has to say and to read; every member may be absent."""

    presence: Placed | UnsetType | None = UNSET
    """Null: the node leaves."""
    send: Sent = Sent()
    after: After = After()
    want: Want = Want()
    quiet: bool = False
    """Whether the answer says no more than what was refused."""


class PartRefused(Record, frozen=True, kw_only=True, omit_defaults=True):
    """Why a part of a call was not done; the other parts were."""

    code: str
    message: str
    retry_after_s: int | None = None
    at_ms: int | None = None
    """Of a presence: when the one was signed that stands."""


class SealedPeer(Record, frozen=True, kw_only=True):
    """A node of the circle: its sealed presence, and until when it is kept."""

    node_id: NodeId
    sealed: Sealed
    until_ms: Count


class SealedSignal(Record, frozen=True, kw_only=True):
    """A signal for the caller."""

    number: Cursor
    from_: NodeId = msgspec.field(name="from")
    sealed: Sealed


class Entry(Record, frozen=True, kw_only=True):
    """Messages that were left together; the number is a cursor."""

    number: Cursor
    messages: tuple[Sealed, ...]


class RtcIceServer(Record, frozen=True, kw_only=True, omit_defaults=True):
    """A STUN or TURN server, as RTCPeerConnection takes it."""

    urls: tuple[str, ...]
    username: str = ""
    credential: str = ""


class Ice(Record, frozen=True, kw_only=True, omit_defaults=True):
    """How to find a way between two nodes; to be asked for again before *until_ms*."""

    servers: tuple[RtcIceServer, ...]
    until_ms: Count | UnsetType = UNSET
    """When the first login ends; absent where none does."""


class Synced(Record, frozen=True, kw_only=True):
    """What was refused, and what the caller wanted; a quiet one says no more than the first."""

    ok: Literal[True] = True
    refused: dict[str, PartRefused]
    peers: tuple[SealedPeer, ...] | UnsetType = UNSET
    signals: tuple[SealedSignal, ...] | UnsetType = UNSET
    entries: tuple[Entry, ...] | UnsetType = UNSET
    more: tuple[str, ...] | UnsetType = UNSET
    ice: Ice | UnsetType = UNSET
    next_s: Count | UnsetType = UNSET


class NoParameters(Record, frozen=True, kw_only=True):
    """A call without parameters."""


class ServiceLimits(Record, frozen=True, kw_only=True):
    """What a service takes; times in seconds."""

    body_bytes: Count
    message_bytes: Count
    sent: Count = MOST_SENT
    least_ttl_s: Count = LEAST_TTL_S
    most_ttl_s: Count = MOST_TTL_S


class ServiceInfo(Record, frozen=True, kw_only=True):
    """What a client has to know of a service of version 2."""

    ok: Literal[True] = True
    version: str
    time_ms: Count
    service_id: NodeId
    service_key: str
    socket: str
    """Where a socket is opened."""
    open: bool
    limits: ServiceLimits


# --- the socket: frames are told apart by `t` ---------------------------------------------

SUBPROTOCOL = "muster.v2"
"""What a socket's subprotocol is called; beside it stands the header's text."""

ANSWER_BYTES = 96 * 1024
"""How large a frame of the service may be; what is larger goes by HTTP."""

Proved = Annotated[str, Meta(min_length=96, max_length=96, pattern=_B64)]


class _Tagged(msgspec.Struct, frozen=True, tag_field="t", omit_defaults=True, kw_only=True):
    """The base of all frames."""


class SyncFrame(_Tagged, frozen=True, tag="SYNC", kw_only=True):
    """A sync with a proof of its own; the body is JSON as text, as it was signed."""

    n: Count
    proof: Proved
    body: str


class NodeFrame(_Tagged, frozen=True, tag="FRAME", kw_only=True):
    """An opaque payload for the socket of another node of the circle."""

    n: Count
    to: NodeId
    payload: str


class SyncedFrame(_Tagged, frozen=True, tag="SYNCED", kw_only=True, omit_defaults=False):
    """The answer to a SYNC: status, signature and body of what HTTP would answer."""

    n: Count
    status: int
    answer: str
    body: str


class Event(_Tagged, frozen=True, tag="EVENT", kw_only=True):
    """What happened in the circle: members of an answer, and who has left."""

    peers: tuple[SealedPeer, ...] = ()
    left: tuple[NodeId, ...] = ()
    entries: tuple[Entry, ...] = ()
    signals: tuple[SealedSignal, ...] = ()


class PassedFrame(_Tagged, frozen=True, tag="FRAME", kw_only=True):
    """A payload as it arrives."""

    from_: NodeId = msgspec.field(name="from")
    payload: str


class Taken(_Tagged, frozen=True, tag="TAKEN", kw_only=True):
    """The other node's socket has taken a FRAME."""

    n: Count


class ErrorFrame(_Tagged, frozen=True, tag="ERROR", kw_only=True, omit_defaults=False):
    """Why a frame was not done."""

    n: Count
    code: str
    message: str
    retryable: bool


class Replaced(_Tagged, frozen=True, tag="REPLACED", kw_only=True):
    """The node has opened a newer socket; this one stays away."""


FromNode = SyncFrame | NodeFrame
FromService = SyncedFrame | Event | PassedFrame | Taken | ErrorFrame | Replaced
