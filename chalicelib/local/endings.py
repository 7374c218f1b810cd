"""Endings: what a connection is told last, where no app answers it."""

from __future__ import annotations

import secrets
from http import HTTPStatus
from typing import Any

from chalicelib.call import Reply

LINGER_S = 5.0
"""How long the rest of a request that was answered early is read, so that the answer arrives."""

HSTS = {"Strict-Transport-Security": f"max-age={180 * 24 * 3600}"}
"""Browsers that were here by https come back by https alone; where TLS is ours, for half a year."""


def is_ours(transport: Any) -> bool:
    """Say whether a connection has our TLS on it."""
    return transport.get_extra_info("sslcontext") is not None


def close_with(transport: Any, reply: Reply) -> None:
    """Send a reply, and close."""
    headers = reply.headers | {
        "X-Request-Id": secrets.token_hex(8),
        "Content-Length": str(len(reply.body)),
        "Connection": "close",
    }
    if is_ours(transport):
        headers |= HSTS
    lines = [f"HTTP/1.1 {reply.status} {HTTPStatus(reply.status).phrase}"]
    lines += [f"{name}: {value}" for name, value in headers.items()]
    transport.write("\r\n".join([*lines, "", ""]).encode("latin-1") + reply.body)
    transport.close()
