"""The edge: whose address a call has when CloudFront stands in front of the gateway.

The gateway then sees CloudFront's address. A function at the edge writes down the
viewer's (whatever the viewer itself has sent under that name), and CloudFront adds a
secret that only it and the service know. Without the secret the header counts for
nothing: anybody can call the gateway directly.
"""

from __future__ import annotations

import hmac
import ipaddress
from collections.abc import Mapping

SECRET, VIEWER = "x-muster-edge", "x-muster-viewer-address"
"""The headers, as infra/resources.json and infra/edge.js set them."""


def address(headers: Mapping[str, str], *, seen: str, secret: str) -> str:
    """Return the caller's address: what the edge says if it is our edge, else what was *seen*."""
    shown = headers.get(SECRET, "")
    if not secret or not hmac.compare_digest(shown.encode(errors="surrogatepass"), secret.encode()):
        return seen
    try:
        return str(ipaddress.ip_address(headers.get(VIEWER, "")))
    except ValueError:
        return seen


__all__ = ["SECRET", "VIEWER", "address"]
