"""The browser library: the modules of `web/muster`, served under `/app/muster/` by any host.

Pages of any origin import them.
"""

from __future__ import annotations

from functools import cache
from pathlib import Path

from chalicelib import http, static
from chalicelib.call import Call, Reply
from chalicelib.capsule_files import PREFLIGHT
from muster.errors import MethodNotAllowed, NotFound

FOLDER = Path(__file__).resolve().parent.parent / "web" / "muster"
"""Where they are in a checkout, in the image and in the zip for Lambda."""

ROUTE = f"GET {http.LIBRARY}*"
CACHE_CONTROL = "public, max-age=300, stale-while-revalidate=86400, stale-if-error=86400"
"""Readers ask after five minutes, or meanwhile, whether a module has changed: names do not say."""

_HEADERS = http.CORS | {
    "Access-Control-Expose-Headers": "ETag, Retry-After, X-Request-Id",
    "Cache-Control": CACHE_CONTROL,
    "Content-Type": static.TYPES[".js"],
    "Cross-Origin-Resource-Policy": "cross-origin",
}


class Library:
    """Answers calls for modules."""

    def __init__(self, folder: Path) -> None:
        self.modules = {
            f"{http.LIBRARY}{name}": static.File.of(body, _HEADERS)
            for name, body in static.found(folder, ".js")
        }

    def reply(self, call: Call) -> Reply:
        """Answer a call for a module."""
        if call.method == "OPTIONS":
            return Reply(204, headers=dict(PREFLIGHT), route="OPTIONS")
        if call.method != "GET":
            raise MethodNotAllowed("this path takes GET and HEAD", allow="GET, HEAD, OPTIONS")
        module = self.modules.get(call.path)
        if module is None:
            raise NotFound(f"there is no such module; {http.LIBRARY}index.js imports what there is")
        return module.reply(call, ROUTE)


@cache
def load() -> Library:
    """Return what this installation has; read once a process."""
    return Library(FOLDER)
