"""Frames: what travels as text on the WebSocket, each one type.

A relay session passes `Frame` and `Ack`; a subscription is told of `Messages`,
`Signals` and `Presence`. The payload of a frame is opaque: it is measured, never
parsed.
"""

from __future__ import annotations

import binascii
from base64 import b64decode, b64encode
from typing import Annotated, Any

import msgspec
from msgspec import Meta

from muster import strict, structs
from muster.errors import InvalidFrame, InvalidRequest, PayloadTooLarge
from muster.felund import records

MAX_TEXT_BYTES = 32 * 1024
"""The largest text frame a node may send, in bytes; API Gateway's own limit."""

MAX_PUSH_BYTES = 120 * 1024
"""The largest text the service sends, in bytes; API Gateway allows 128 KiB."""

_PAYLOAD_CHARS = (records.MAX_FRAME_BYTES + 2) // 3 * 4

SUBPROTOCOL = "muster.v1"
"""The subprotocol that a browser names along with its token."""


class _Tagged(msgspec.Struct, frozen=True, tag_field="t", omit_defaults=True):
    """The base of all frames: ``t`` tells them apart."""


class Ping(_Tagged, frozen=True, kw_only=True, tag="PING"):
    """Asks whether the other side is there."""


class Pong(_Tagged, frozen=True, kw_only=True, tag="PONG"):
    """Answers a ping."""


class Frame(_Tagged, frozen=True, kw_only=True, tag="FRAME"):
    """One opaque payload for the other seat; ``from_`` is set by the service."""

    session_id: records.SessionId
    seq: records.Number
    payload_b64: str
    from_: str | None = msgspec.field(default=None, name="from")


class Ack(_Tagged, frozen=True, kw_only=True, tag="ACK"):
    """An answer to a ``seq``: the service's own, or with ``from_`` the peer's."""

    session_id: records.SessionId
    seq: records.Number
    from_: str | None = msgspec.field(default=None, name="from")


class Attached(_Tagged, frozen=True, kw_only=True, tag="ATTACHED"):
    """The other seat is taken."""

    session_id: str
    node_id: str


class Gone(_Tagged, frozen=True, kw_only=True, tag="GONE"):
    """The other seat is empty."""

    session_id: str
    node_id: str


class Messages(_Tagged, frozen=True, kw_only=True, tag="MESSAGES"):
    """Messages as they arrive; ``after`` and ``cursor`` say where they stand."""

    messages: tuple[msgspec.Raw, ...]
    server_time: records.Seconds
    after: records.Number
    cursor: records.Number


class Signals(_Tagged, frozen=True, kw_only=True, tag="SIGNALS"):
    """Signals for this node, as they arrive."""

    signals: tuple[records.Signal, ...]


class Presence(_Tagged, frozen=True, kw_only=True, tag="PRESENCE"):
    """Who came or changed, and who left."""

    joined: tuple[records.Peer, ...] = ()
    left: tuple[str, ...] = ()


class Error(_Tagged, frozen=True, kw_only=True, tag="ERROR"):
    """A refusal on the socket; ``seq`` names the frame it answers."""

    code: str
    message: str
    retryable: bool
    seq: Annotated[int, Meta(ge=0)] | None = None


FromNode = Ping | Pong | Frame | Ack
FromService = Ping | Pong | Frame | Ack | Attached | Gone | Messages | Signals | Presence | Error

_encoder = msgspec.json.Encoder()
_from_service = msgspec.json.Decoder(FromService)


def encode(frame: FromService) -> str:
    """Write a frame as text."""
    return _encoder.encode(frame).decode()


def decode_from_node(text: str) -> FromNode:
    """Read what a node sent.

    Raises `InvalidFrame` or `PayloadTooLarge`.
    """
    if len(text) > MAX_TEXT_BYTES:
        raise PayloadTooLarge(f"a frame may have {MAX_TEXT_BYTES} bytes of text")
    frame: FromNode = _decode(text, FromNode)
    if isinstance(frame, Frame):
        payload_bytes(frame.payload_b64)
    return frame


def decode_from_service(text: str | bytes) -> FromService:
    """Read what the service sent.

    Raises `InvalidFrame`.
    """
    try:
        frame: FromService = _from_service.decode(text)
    except (msgspec.MsgspecError, UnicodeEncodeError) as error:
        raise InvalidFrame(structs.plain(str(error))) from None
    return frame


def payload(data: bytes) -> str:
    """Write a payload as ``payload_b64``."""
    return b64encode(data).decode()


def payload_bytes(payload_b64: str) -> bytes:
    """Read ``payload_b64``: standard alphabet, padded, 16 KiB at the most."""
    if len(payload_b64) > _PAYLOAD_CHARS:
        raise PayloadTooLarge(f"a frame's payload may have {records.MAX_FRAME_BYTES} bytes")
    try:
        data = b64decode(payload_b64, validate=True)
    except (binascii.Error, ValueError):
        raise InvalidFrame("payload_b64 is not padded standard base64") from None
    if len(data) > records.MAX_FRAME_BYTES:
        raise PayloadTooLarge(f"a frame's payload may have {records.MAX_FRAME_BYTES} bytes")
    return data


def _decode(text: str, shape: Any) -> Any:
    try:
        return msgspec.convert(strict.loads(text.encode()), shape)
    except (InvalidRequest, UnicodeEncodeError) as error:
        raise InvalidFrame(str(error).replace("the body", "the frame")) from None
    except msgspec.ValidationError as error:
        raise InvalidFrame(structs.plain(str(error))) from None
