"""Records: the shapes of version 1, each one type with its bounds.

The types are the schema: the service reads calls with them, the client reads
replies with them, and docs/openapi.json is generated from them. Members a
record does not know are ignored, so that newer clients can talk to older
services; known members are held to their bounds.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

import msgspec
from msgspec import UNSET, Meta, UnsetType

from muster.structs import Record

MAX_ENDPOINTS = 16
MAX_BATCH = 50
MAX_PAYLOAD_CHARS = 65536
MAX_FRAME_BYTES = 16384

# Printable ASCII without the space: an identifier is a key in stores, a header
# value and a line in logs, so nothing in it may end any of them. In Python `$`
# alone would let one line break pass at the end.
_WORD = r"^[!-~]+$(?!\n)"

NodeId = Annotated[
    str,
    Meta(
        min_length=8,
        max_length=128,
        pattern=_WORD,
        description="A node's stable name: 8 to 128 printable ASCII characters, no space.",
    ),
]
CircleHint = Annotated[
    str,
    Meta(
        min_length=8,
        max_length=128,
        pattern=_WORD,
        description="What the service may know of a circle: a truncated hash.",
    ),
]
SessionId = Annotated[
    str,
    Meta(min_length=8, max_length=300, pattern=_WORD, description="A signalling session."),
]
MessageId = Annotated[
    str, Meta(min_length=8, max_length=64, pattern=_WORD, description="A message's name.")
]
EndpointHost = Annotated[str, Meta(min_length=1, max_length=255, pattern=_WORD)]
Port = Annotated[int, Meta(ge=1, le=65535)]
Seconds = Annotated[int, Meta(ge=0, le=2**53 - 1, description="Unix seconds.")]
Number = Annotated[int, Meta(ge=0, le=2**53 - 1)]
RequestKey = Annotated[
    str,
    Meta(
        min_length=64,
        max_length=64,
        pattern="^[0-9a-fA-F]{64}$",
        description="HMAC-SHA256(circle secret, 'api-v1') in hex.",
    ),
]
# A duration is clamped, not refused (seed: "clamp ttl_s to server max"), and
# some clients send it with a fraction.
Duration = Annotated[int | float, Meta(description="Seconds; clamped to the service's limits.")]


# How many is clamped too, but a number no program means is a mistake.
Limit = Annotated[int, Meta(ge=-(2**53 - 1), le=2**53 - 1)]


# --- presence -----------------------------------------------------------------


class Endpoint(Record, frozen=True, kw_only=True):
    """Where a node says it can be reached."""

    transport: Literal["tcp", "ws"]
    host: EndpointHost
    port: Port
    family: Literal["ipv4", "ipv6"] = "ipv4"
    nat: Literal["unknown", "open", "restricted", "symmetric"] = "unknown"


class Capabilities(Record, frozen=True, kw_only=True):
    """What a node can do for others."""

    relay: bool = False
    transport: Annotated[
        tuple[Annotated[str, Meta(min_length=1, max_length=16, pattern=_WORD)], ...],
        Meta(max_length=8),
    ] = ("tcp",)
    can_anchor: bool = False


class Register(Record, frozen=True, kw_only=True):
    """Keep where the calling node is, for `ttl_s` seconds."""

    node_id: NodeId
    circle_hint: CircleHint
    endpoints: Annotated[tuple[Endpoint, ...], Meta(max_length=MAX_ENDPOINTS)] = ()
    capabilities: Capabilities = Capabilities()
    ttl_s: Duration = 120
    signing_key: RequestKey | None = None


class Unregister(Record, frozen=True, kw_only=True):
    """Forget the calling node in this circle."""

    node_id: NodeId
    circle_hint: CircleHint


class ListPeers(Record, frozen=True, kw_only=True):
    """List a circle's live nodes; the newest first.

    With `after`, at first empty, they come by `node_id`, those beyond it: for lists that are
    longer than a page.
    """

    circle_hint: CircleHint
    limit: Limit = 50
    after: Annotated[str, Meta(max_length=128)] | None = None


class Observed(Record, frozen=True, kw_only=True):
    """Where the service saw the call come from."""

    host: str
    family: Literal["ipv4", "ipv6"]
    port: int | None = None


class ObservedHost(Record, frozen=True, kw_only=True):
    """The observed endpoint as older clients know it."""

    host: str
    family: Literal["ipv4", "ipv6"]


class Registered(Record, frozen=True, kw_only=True):
    """The answer to a register."""

    ok: Literal[True] = True
    server_time: Seconds
    expires_at: Seconds
    observed_endpoint: Observed | None = None
    observed_host: ObservedHost | None = None


class Unregistered(Record, frozen=True, kw_only=True):
    """The answer to an unregister; repeating it is safe."""

    ok: Literal[True] = True
    removed: bool


class Peer(Record, frozen=True, kw_only=True):
    """A live node of the circle."""

    node_id: str
    circle_hint: str
    endpoints: tuple[Endpoint, ...]
    capabilities: Capabilities
    observed_at: Seconds
    expires_at: Seconds


class Peers(Record, frozen=True, kw_only=True):
    """The answer to a peers call; `more` answers `after`, and says whether others follow."""

    ok: Literal[True] = True
    peers: tuple[Peer, ...]
    server_time: Seconds
    more: bool | msgspec.UnsetType = msgspec.UNSET


# --- mail ---------------------------------------------------------------------


class MessageHead(Record, frozen=True, kw_only=True):
    """The two members of a message that the service reads; the rest is opaque."""

    msg_id: MessageId
    created_ts: Seconds = 0


class LeaveMessages(Record, frozen=True, kw_only=True):
    """Leave up to 50 messages in a circle's mailbox: all of them or none."""

    circle_hint: CircleHint
    messages: Annotated[tuple[dict[str, Any], ...], Meta(max_length=MAX_BATCH)] = ()


class PollMessages(Record, frozen=True, kw_only=True):
    """Collect messages after a cursor.

    ``since`` is a `server_time` of an earlier answer; ``after`` a `cursor`, which
    is exact. Give one of them.
    """

    circle_hint: CircleHint
    since: Annotated[int, Meta(ge=-(2**53 - 1), le=2**53 - 1)] = 0
    after: Number | None = None
    limit: Limit = 200


class MessagesLeft(Record, frozen=True, kw_only=True):
    """The answer to leaving messages: how many were new, and where the mailbox stands."""

    ok: Literal[True] = True
    stored: int
    server_time: Seconds
    cursor: Number


class Messages(Record, frozen=True, kw_only=True):
    """A page of messages in arrival order.

    ``server_time`` is the next ``since``, chosen so that nothing is lost;
    ``cursor`` is the next ``after``.
    """

    ok: Literal[True] = True
    messages: tuple[msgspec.Raw, ...]
    server_time: Seconds
    cursor: Number
    more: bool = False


SignalType = Literal[
    "offer", "answer", "candidate", "media-offer", "media-answer", "media-candidate"
]


class LeaveSignal(Record, frozen=True, kw_only=True):
    """Leave one WebRTC offer, answer or candidate for a node."""

    session_id: SessionId
    from_node_id: NodeId
    to_node_id: NodeId
    circle_hint: CircleHint
    type: SignalType
    payload: Annotated[str, Meta(max_length=MAX_PAYLOAD_CHARS)]
    ttl_s: Any = None


class PollSignals(Record, frozen=True, kw_only=True):
    """Collect the signals left for a node after an id."""

    to_node_id: NodeId
    since_id: Annotated[int, Meta(ge=-(2**53 - 1), le=2**53 - 1)] = 0
    session_id: SessionId | None = None
    circle_hint: CircleHint | None = None


class SignalLeft(Record, frozen=True, kw_only=True):
    """The answer to leaving a signal."""

    ok: Literal[True] = True
    server_time: Seconds
    id: Number


class Signal(Record, frozen=True, kw_only=True):
    """One signal as its reader sees it; `id` grows in the order of becoming visible."""

    id: Number
    session_id: str
    from_node: str
    to_node: str
    type: SignalType
    payload: str
    created_at: Seconds


class Signals(Record, frozen=True, kw_only=True):
    """The answer to polling signals."""

    ok: Literal[True] = True
    signals: tuple[Signal, ...]
    server_time: Seconds


# --- relay --------------------------------------------------------------------


class OpenSession(Record, frozen=True, kw_only=True):
    """Open or renew a relay session between two nodes of a circle."""

    node_id: NodeId
    target_node_id: NodeId
    circle_hint: CircleHint
    ttl_s: Duration = 60


class SessionOpened(Record, frozen=True, kw_only=True):
    """A relay session: the same pair gets the same session while it lives."""

    ok: Literal[True] = True
    relay_url: str
    session_id: str
    token: str
    expires_at: Seconds
    server_time: Seconds


class OpenSubscription(Record, frozen=True, kw_only=True):
    """Ask for a token that opens a subscription to a circle."""

    node_id: NodeId
    circle_hint: CircleHint
    ttl_s: Duration = 60


class SubscriptionOpened(Record, frozen=True, kw_only=True):
    """A subscription token; it must be used before `expires_at`."""

    ok: Literal[True] = True
    relay_url: str
    token: str
    expires_at: Seconds
    server_time: Seconds


# --- beacon: the rendezvous mesh's own dialect, camelCase and milliseconds -------


class Announce(Record, frozen=True, kw_only=True):
    """A signed ticket for a beacon; the community in the query wins over the one here."""

    ticket: dict[str, Any]
    community: Any = None


class ListTickets(Record, frozen=True, kw_only=True):
    """List a community's freshest tickets."""

    community: str = "mainnet"


class Validation(Record, frozen=True, kw_only=True):
    """Why a beacon did not take a ticket."""

    ok: Literal[False] = False
    reason: str


class Tickets(Record, frozen=True, kw_only=True, omit_defaults=True):
    """A beacon's answer: tickets as their nodes signed them, the newest first."""

    ok: bool
    peers: tuple[msgspec.Raw, ...]
    validation: Validation | None = None

    @property
    def code(self) -> str:
        """The reason why a ticket was not taken, if it was not."""
        return self.validation.reason if self.validation else ""


# --- service ------------------------------------------------------------------


class Nothing(Record, frozen=True, kw_only=True):
    """A call without parameters."""


class Health(Record, frozen=True, kw_only=True):
    """The service lives, and what its clock says."""

    ok: Literal[True] = True
    version: str
    time: Seconds
    store_full: Literal[True] | UnsetType = UNSET
    """There while the store takes no messages; presence and all else goes on."""


class VerifyKey(Record, frozen=True, kw_only=True):
    """A public key of the service."""

    kid: str
    alg: Literal["ed25519"] = "ed25519"
    verify_key: str


class Info(Record, frozen=True, kw_only=True):
    """Everything a client would otherwise have to guess."""

    ok: Literal[True] = True
    version: str
    time: Seconds
    protocol: int
    unsigned: Literal["refuse", "allow"]
    limits: dict[str, int]
    keys: tuple[VerifyKey, ...]
    websocket: str
    capsule_root: str | None = None
    """The root verify key of the capsules published here, in base64 (docs/formats.md)."""
    open: bool = True
    """Whether anybody's circle is served, or only those that the operator let in."""


class ErrorBody(Record, frozen=True, kw_only=True):
    """The body of every refusal; `detail` repeats `message` for older clients."""

    ok: Literal[False] = False
    code: str
    message: str
    retryable: bool
    detail: str
