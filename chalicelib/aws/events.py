"""Events: what API Gateway, the clock and the service itself hand to Lambda, and how to read it."""

from __future__ import annotations

from base64 import b64decode
from collections.abc import Mapping
from dataclasses import replace
from typing import Any, Literal

from chalicelib.aws import edge
from chalicelib.call import Call
from chalicelib.circle import sockets

Event = Mapping[str, Any]
Kind = Literal["call", "connect", "message", "disconnect", "greet", "sweep"]

EVERY = "/{proxy+}"
"""Every path, as the gateway is told it: one route, so that one throttle counts all calls."""

_SOCKET_EVENTS: Mapping[str, Kind] = {
    "CONNECT": "connect",
    "MESSAGE": "message",
    "DISCONNECT": "disconnect",
}


def kind(event: Event) -> Kind:
    """Say what an event is, for a function that takes all of them.

    Every call from outside has a request context, which the gateway made.
    """
    context = event.get("requestContext")
    if context is None:
        return "sweep" if event.get("source") == "aws.events" else "greet"
    return _SOCKET_EVENTS.get(context.get("eventType", ""), "call")


def head(event: Event, *, clock: float) -> Call:
    """Read what every HTTP call and every `$connect` has.

    The path is what the route matched: the event's own may begin with a domain's prefix. A
    gateway may leave a slash at the end out of what it matched; `/app` and `/app/` are two paths.
    """
    context = event.get("requestContext") or {}
    method = context.get("httpMethod", "GET")
    matched = (event.get("pathParameters") or {}).get("proxy")
    path = sockets.PATH if "connectionId" in context else f"/{matched}" if matched else ""
    if matched and not path.endswith("/") and str(event.get("path", "")).endswith("/"):
        path += "/"
    return Call(
        method="GET" if method == "HEAD" else method,
        path=path,
        clock=clock,
        request_id=context.get("requestId", ""),
    )


def read(event: Event, *, clock: float, secret: str = "") -> Call:
    """Read an HTTP call or a `$connect`.

    The address is the one the gateway saw, whatever X-Forwarded-For says; or, if the
    call shows the edge's *secret*, the one the edge saw.
    """
    headers = {name.lower(): ", ".join(values) for name, values in _all(event, "Headers")}
    seen = ((event.get("requestContext") or {}).get("identity") or {}).get("sourceIp") or ""
    return replace(
        head(event, clock=clock),
        query={name: values[0] for name, values in _all(event, "QueryStringParameters") if values},
        headers=headers,
        body=body(event),
        source_ip=edge.address(headers, seen=seen, secret=secret),
    )


def _all(event: Event, name: str) -> list[tuple[str, list[str]]]:
    return list((event.get("multiValue" + name) or {}).items())


def body(event: Event) -> bytes:
    """Return the body as it was sent: signatures cover its bytes."""
    body = event.get("body") or ""
    if event.get("isBase64Encoded"):
        return b64decode(body)
    return str(body).encode(errors="surrogatepass")
