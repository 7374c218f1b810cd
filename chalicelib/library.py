"""The browser library: the modules of `web/muster`, served under `/app/muster/` by any host.

Pages of any origin import them. What there is to serve is read once, when the first is wanted or
the host starts: no path of a call ever leads to the disk, it is a name in a table or is not.
"""

from __future__ import annotations

import gzip
import hashlib
import re
from functools import cache
from pathlib import Path
from typing import NamedTuple

from chalicelib import http
from chalicelib.call import Call, Reply
from chalicelib.capsule_files import PREFLIGHT, matches
from muster.errors import MethodNotAllowed, NotFound

FOLDER = Path(__file__).resolve().parent.parent / "web" / "muster"
"""Where they are in a checkout, in the image and in the zip for Lambda."""

ROUTE = f"GET {http.LIBRARY}*"
CACHE_CONTROL = "public, max-age=300, stale-while-revalidate=86400, stale-if-error=86400"
"""Readers ask after five minutes, or meanwhile, whether a module has changed: names do not say."""

_NAME = re.compile(r"(?:[a-z0-9][a-z0-9_-]{0,63}/){0,4}[a-z0-9][a-z0-9_-]{0,63}\.js", re.A)
_NO_GZIP = re.compile(r"0(?:\.0{0,3})?")
_HEADERS = http.CORS | {
    "Access-Control-Expose-Headers": "ETag, Retry-After, X-Request-Id",
    "Cache-Control": CACHE_CONTROL,
    "Content-Type": "text/javascript; charset=utf-8",
    "Cross-Origin-Resource-Policy": "cross-origin",
    "Vary": "Accept-Encoding",
    "X-Content-Type-Options": "nosniff",
}


class Module(NamedTuple):
    """A module as it is sent, plain and gzipped, with a tag for each."""

    body: bytes
    tag: str
    zipped: bytes
    zipped_tag: str

    @classmethod
    def of(cls, body: bytes) -> Module:
        """Tag and gzip a module."""
        digest = hashlib.sha256(body).hexdigest()[:32]
        return cls(body, f'"{digest}"', gzip.compress(body, mtime=0), f'"{digest}-gzip"')


class Library:
    """Answers calls for modules."""

    def __init__(self, folder: Path) -> None:
        self.modules = {
            f"{http.LIBRARY}{name}": Module.of(path.read_bytes())
            for path in sorted(folder.rglob("*.js"))
            if _NAME.fullmatch(name := path.relative_to(folder).as_posix())
            and path.is_file()
            and path.resolve() == folder.resolve() / name  # no link leads elsewhere
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
        body, tag, headers = module.body, module.tag, dict(_HEADERS)
        if _takes_gzip(call.headers.get("accept-encoding", "")):
            body, tag = module.zipped, module.zipped_tag
            headers["Content-Encoding"] = "gzip"
        headers["ETag"] = tag
        if matches(call.headers.get("if-none-match", ""), tag):
            return Reply(304, headers=headers, route=ROUTE)
        return Reply(200, body=body, headers=headers, route=ROUTE)


@cache
def load() -> Library:
    """Return what this installation has; read once a process."""
    return Library(FOLDER)


def _takes_gzip(accepted: str) -> bool:
    """Say whether gzip is accepted by name, RFC 9110 section 12.5.3."""
    for one in accepted.lower().split(","):
        coding, _, weight = (part.strip() for part in one.partition(";"))
        if coding == "gzip":
            return not _NO_GZIP.fullmatch(weight.removeprefix("q="))
    return False
