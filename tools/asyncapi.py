"""AsyncAPI: the WebSocket as a document, made from the frames."""

from __future__ import annotations

import inspect
import typing
from typing import Any

import msgspec

from chalicelib.circle import live, sockets
from muster import __version__, errors, shapes
from muster.felund import frames
from tools import examples

_SESSION_FROM_NODE = (frames.Ping, frames.Pong, frames.Frame, frames.Ack)
_SESSION_TO_NODE = (
    frames.Ping,
    frames.Pong,
    frames.Frame,
    frames.Ack,
    frames.Attached,
    frames.Gone,
    frames.Error,
)
_CIRCLE_FROM_NODE = (frames.Ping, frames.Pong)
_CIRCLE_TO_NODE = (
    frames.Ping,
    frames.Pong,
    frames.Messages,
    frames.Signals,
    frames.Presence,
    frames.Error,
)
_LIVE_FROM_NODE = typing.get_args(shapes.FromNode)
_LIVE_TO_NODE = typing.get_args(shapes.FromService)
_ALL = tuple(
    dict.fromkeys(
        (
            *(*_SESSION_TO_NODE, *_CIRCLE_TO_NODE, *_SESSION_FROM_NODE, *_CIRCLE_FROM_NODE),
            *(*_LIVE_FROM_NODE, *_LIVE_TO_NODE),
        )
    )
)

_SESSION = "00112233445566778899aabbccddeeff"
_NODE = "6f8ffa1ede50a325ec54c6fb67547228"
_EXAMPLES: tuple[msgspec.Struct, ...] = (
    shapes.SyncFrame(n=1, proof="A" * 96, body='{"want":{"messages":200}}'),
    shapes.NodeFrame(n=2, to=_NODE, payload="b3BhcXVl"),
    shapes.SyncedFrame(n=1, status=200, answer="A" * 139, body='{"ok":true,"refused":{}}'),
    shapes.Event(left=(_NODE,)),
    shapes.PassedFrame(from_=_NODE, payload="b3BhcXVl"),
    shapes.Taken(n=2),
    shapes.ErrorFrame(n=2, code="NOT_FOUND", message="that node has no socket", retryable=True),
    shapes.Replaced(),
    frames.Ping(),
    frames.Pong(),
    frames.Frame(session_id=_SESSION, seq=7, payload_b64="b3BhcXVl"),
    frames.Ack(session_id=_SESSION, seq=7),
    frames.Attached(session_id=_SESSION, node_id=examples.OTHER),
    frames.Gone(session_id=_SESSION, node_id=examples.OTHER),
    frames.Messages(
        messages=(msgspec.Raw(msgspec.json.encode(examples.MESSAGE)),),
        server_time=examples.NOW,
        after=1_790_000_000_122,
        cursor=1_790_000_000_123,
    ),
    frames.Signals(signals=()),
    frames.Presence(left=(examples.OTHER,)),
    frames.Error(code="NOT_FOUND", message="the other seat is empty", retryable=True, seq=7),
)


def document() -> dict[str, Any]:
    """Return the AsyncAPI 3.0 document."""
    return {
        "asyncapi": "3.0.0",
        "info": {
            "title": "Muster relay",
            "version": __version__,
            "description": "One WebSocket endpoint of version 1 with two uses, told apart by the "
            "token: frames between two nodes, or what happens in a circle; and one of version 2. "
            f"Text frames only, {frames.MAX_TEXT_BYTES} bytes at the most; docs/protocol.md and "
            "docs/protocol2.md are binding.",
            "license": {"name": "Apache-2.0", "url": "https://www.apache.org/licenses/LICENSE-2.0"},
        },
        "defaultContentType": "application/json",
        "servers": {
            "local": {
                "host": "127.0.0.1:8787",
                "protocol": "ws",
                "description": "The one-machine host.",
                "security": [{"$ref": "#/components/securitySchemes/token"}],
            }
        },
        "channels": {
            "live": _channel(
                "A socket of version 2: syncs, what happens in the circle, frames to other nodes.",
                (*_LIVE_FROM_NODE, *_LIVE_TO_NODE),
                query={},
                address=live.PATH,
                shown={
                    "Authorization": _text("Muster2 CREDENTIAL.PROOF[.TAG]: docs/protocol2.md."),
                    "Sec-WebSocket-Protocol": _text(
                        f"{sockets.VERSION2}, and what stands after Muster2."
                    ),
                },
            ),
            "session": _channel(
                "A relay session: frames to and from one other node (POST /v1/relay/session).",
                (*_SESSION_FROM_NODE, *_SESSION_TO_NODE),
                query={"token": _text("The token, where no header can be set.")},
            ),
            "circle": _channel(
                "A subscription to a circle (POST /v1/relay/subscription).",
                (*_CIRCLE_FROM_NODE, *_CIRCLE_TO_NODE),
                query={
                    "token": _text("The token, where no header can be set."),
                    "circle_hint": _text("Without a token, where `unsigned` is `allow`."),
                    "node_id": _text("Without a token, where `unsigned` is `allow`."),
                },
            ),
        },
        "operations": {
            **_operations("live", _LIVE_FROM_NODE, _LIVE_TO_NODE),
            **_operations("session", _SESSION_FROM_NODE, _SESSION_TO_NODE),
            **_operations("circle", _CIRCLE_FROM_NODE, _CIRCLE_TO_NODE),
        },
        "components": {
            "schemas": schemas(),
            "messages": {kind.__name__: _message(kind) for kind in _ALL},
            "securitySchemes": {
                "token": {
                    "type": "http",
                    "scheme": "bearer",
                    "bearerFormat": "muster1",
                    "description": "Authorization: Bearer TOKEN, or ?token=TOKEN, or "
                    f"Sec-WebSocket-Protocol: {frames.SUBPROTOCOL}, TOKEN",
                }
            },
        },
    }


def schemas() -> dict[str, Any]:
    """Return the JSON Schema of every frame and of what it holds, by name."""
    _, found = msgspec.json.schema_components(_ALL, ref_template="#/components/schemas/{name}")
    found["Messages"]["properties"]["messages"]["items"] = {"type": "object"}
    found["Error"]["properties"]["code"]["enum"] = sorted(errors.CODES)
    return dict(sorted(found.items()))


_TOKEN = {
    "Authorization": {"type": "string", "description": "Bearer and the token."},
    "Sec-WebSocket-Protocol": {
        "type": "string",
        "description": f"{frames.SUBPROTOCOL}, and the token.",
    },
}


def _channel(
    what: str,
    kinds: tuple[type, ...],
    *,
    query: dict[str, Any],
    address: str = sockets.PATH,
    shown: dict[str, Any] | None = None,
) -> dict[str, Any]:
    return {
        "address": address,
        "description": what,
        "messages": {
            kind.__name__: {"$ref": f"#/components/messages/{kind.__name__}"}
            for kind in dict.fromkeys(kinds)
        },
        "bindings": {
            "ws": {
                "method": "GET",
                "query": {"type": "object", "properties": query},
                "headers": {"type": "object", "properties": shown or _TOKEN},
                "bindingVersion": "0.1.0",
            }
        },
    }


def _operations(
    channel: str, from_node: tuple[type, ...], to_node: tuple[type, ...]
) -> dict[str, Any]:
    return {
        f"{channel}_{verb}": {
            "action": verb,
            "channel": {"$ref": f"#/channels/{channel}"},
            "summary": f"What the service {verb}s.",
            "messages": [
                {"$ref": f"#/channels/{channel}/messages/{kind.__name__}"} for kind in kinds
            ],
        }
        for verb, kinds in (("receive", from_node), ("send", to_node))
    }


def _message(kind: type) -> dict[str, Any]:
    return {
        "name": kind.__struct_config__.tag,  # type: ignore[attr-defined] # a msgspec struct
        "summary": (inspect.getdoc(kind) or "").partition("\n")[0],
        "payload": {"$ref": f"#/components/schemas/{kind.__name__}"},
        "examples": [
            {"payload": msgspec.json.decode(msgspec.json.encode(example))}
            for example in _EXAMPLES
            if type(example) is kind
        ],
    }


def _text(what: str) -> dict[str, str]:
    return {"type": "string", "description": what}
