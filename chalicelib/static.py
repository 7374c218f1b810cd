"""Static files: a table of them, and the answer to a call for one.

What there is to serve is read once, when the first is wanted or the host starts: no path of a
call ever leads to the disk, it is a name in a table or is not.
"""

from __future__ import annotations

import gzip
import hashlib
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import NamedTuple

from chalicelib.call import Call, Reply
from chalicelib.capsule_files import matches

TYPES: Mapping[str, str] = {
    ".css": "text/css; charset=utf-8",
    ".html": "text/html; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".png": "image/png",
    ".svg": "image/svg+xml",
    ".webmanifest": "application/manifest+json",
}

_NAME = re.compile(r"(?:[a-z0-9][a-z0-9_-]{0,63}/){0,4}[a-z0-9][a-z0-9_-]{0,63}\.[a-z]{2,11}", re.A)
_NO_GZIP = re.compile(r"0(?:\.0{0,3})?")


class File(NamedTuple):
    """A file as it is sent, plain and gzipped, with a tag for each, and what is said with it."""

    body: bytes
    tag: str
    zipped: bytes
    zipped_tag: str
    headers: Mapping[str, str]

    @classmethod
    def of(cls, body: bytes, headers: Mapping[str, str]) -> File:
        """Tag and gzip a file."""
        digest = hashlib.sha256(body).hexdigest()[:32]
        zipped = gzip.compress(body, mtime=0)
        always = {"Vary": "Accept-Encoding", "X-Content-Type-Options": "nosniff"}
        return cls(body, f'"{digest}"', zipped, f'"{digest}-gzip"', {**headers, **always})

    def reply(self, call: Call, route: str) -> Reply:
        """Answer a call for this file, or say that the caller has it already."""
        body, tag, headers = self.body, self.tag, dict(self.headers)
        if _takes_gzip(call.headers.get("accept-encoding", "")):
            body, tag = self.zipped, self.zipped_tag
            headers["Content-Encoding"] = "gzip"
        headers["ETag"] = tag
        if matches(call.headers.get("if-none-match", ""), tag):
            return Reply(304, headers=headers, route=route)
        return Reply(200, body=body, headers=headers, route=route)


def found(folder: Path, *suffixes: str) -> Iterator[tuple[str, bytes]]:
    """Yield name and body of every file of these kinds that lies in a folder itself.

    Names are relative, with slashes, in order; those that no URL of ours has are passed over,
    and so is a link that leads elsewhere.
    """
    home = folder.resolve()
    for path in sorted(folder.rglob("*")):
        name = path.relative_to(folder).as_posix()
        if (
            path.suffix in suffixes
            and _NAME.fullmatch(name)
            and path.is_file()
            and path.resolve() == home / name
        ):
            yield name, path.read_bytes()


def _takes_gzip(accepted: str) -> bool:
    """Say whether gzip is accepted by name, RFC 9110 section 12.5.3."""
    for one in accepted.lower().split(","):
        coding, _, weight = (part.strip() for part in one.partition(";"))
        if coding == "gzip":
            return not _NO_GZIP.fullmatch(weight.removeprefix("q="))
    return False
