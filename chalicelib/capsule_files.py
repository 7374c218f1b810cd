"""Capsule files: what was published, served under `/capsules/` as browsers need it, by any host."""

from __future__ import annotations

import re
from collections.abc import Callable

from chalicelib import http, store
from chalicelib.call import Call, Reply
from chalicelib.community.shelf import CACHE_CONTROL, FILES, Shelved, media_type
from muster.errors import MethodNotAllowed, NotFound, Unavailable

ROUTE = "GET /capsules/*"

_QUOTE = '"'
"""Around the tags of a bucket, as around those of HTTP; not around those of a folder."""

_PATH = re.compile(r"/capsules/([A-Za-z0-9][A-Za-z0-9._-]{0,63})/(peers\.json(?:\.\w{1,8})?)", re.A)
_HEADERS = http.CORS | {
    "Access-Control-Expose-Headers": "ETag, Retry-After, X-Request-Id",
    "Cache-Control": CACHE_CONTROL,
    "X-Content-Type-Options": "nosniff",
}
PREFLIGHT = http.PREFLIGHT | {
    "Access-Control-Allow-Methods": "GET, HEAD, OPTIONS",
    "Access-Control-Allow-Headers": "Authorization, Content-Type, If-None-Match",
}


class CapsuleFiles:
    """Answers calls for published files; *read* is a shelf's, or goes to one."""

    def __init__(self, read: Callable[[str], Shelved | None]) -> None:
        self._read = read

    def reply(self, call: Call) -> Reply:
        """Answer a call for a published file."""
        if call.method == "OPTIONS":
            return Reply(204, headers=dict(PREFLIGHT), route="OPTIONS")
        if call.method != "GET":
            raise MethodNotAllowed("this path takes GET and HEAD", allow="GET, HEAD, OPTIONS")
        path = _PATH.fullmatch(call.path)
        if not path or path[2] not in FILES:
            raise NotFound("there is no such file; /capsules/COMMUNITY/ has " + ", ".join(FILES))
        try:
            file = self._read(f"{path[1]}/{path[2]}")
        except store.Unavailable as error:
            raise Unavailable(str(error), retry_after_s=30) from error
        if file is None:
            raise NotFound("nothing is published for this community; somebody must announce first")
        tag = f'"{file.tag.strip(_QUOTE)[:32]}"'
        headers = _HEADERS | {"ETag": tag, "Content-Type": media_type(path[2])}
        if matches(call.headers.get("if-none-match", ""), tag):
            return Reply(304, headers=headers, route=ROUTE)
        return Reply(200, body=file.body, headers=headers, route=ROUTE)


def matches(condition: str, tag: str) -> bool:
    """Compare as RFC 9110 section 13.1.2 says: weakly, in a list, or with any."""
    tags = [given.strip().removeprefix("W/") for given in condition.split(",")]
    return tag in tags or tags == ["*"]
