"""Shelves: where published files are stored, and replaced only by who has read the last version.

A file is written against the version that was read, so that of two who publish at
once the second is refused. `FolderShelf` is a directory, `S3Shelf` a bucket.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple, Protocol

from chalicelib.log import code_of
from chalicelib.store import Unavailable
from muster import whole_file

FILES = ("peers.json", "peers.json.sig", "peers.json.manifest")
"""What is published for each community, in the order in which it is written."""

CACHE_CONTROL = "public, max-age=30, stale-if-error=600"
"""Readers may keep a file for half a minute; the manifest says what is fresh."""

MAX_BYTES = 2 * 1024 * 1024

_TOO_LATE = {
    *("PreconditionFailed", "ConditionalRequestConflict", "412", "409"),
    *("NoSuchKey", "404"),  # what was to be replaced is gone
}

TYPES = {".json": "application/json", ".sig": "text/plain", ".manifest": "application/json"}


class Shelved(NamedTuple):
    """A file, and the tag of this version of it."""

    body: bytes
    tag: str


class Shelf(Protocol):
    """Named files; a name is a relative path of plain words. May raise `Unavailable`."""

    def read(self, name: str) -> Shelved | None:
        """Return the file, or nothing if there is none."""

    def write(self, name: str, body: bytes, *, over: str | None) -> bool:
        """Write the file over the version tagged *over* (None: over none); say whether it was."""


class FolderShelf:
    """A shelf in a directory; each file is replaced whole or not at all."""

    def __init__(self, root: Path) -> None:
        self._root = root

    def read(self, name: str) -> Shelved | None:
        """Return the file, or nothing if there is none."""
        try:
            with (self._root / name).open("rb") as file:
                body = file.read(MAX_BYTES)
        except FileNotFoundError:
            return None
        except OSError as error:
            raise Unavailable(f"cannot read {name}: {error.strerror}") from error
        return Shelved(body, _tag(body))

    def write(self, name: str, body: bytes, *, over: str | None) -> bool:
        """Write the file over the version tagged *over*; say whether it was."""
        try:
            with self._alone(name) as path:
                current = self.read(name)
                if (current.tag if current else None) != over:
                    return False
                whole_file.write(path, body, mode=whole_file.PUBLIC)
        except OSError as error:
            raise Unavailable(f"cannot write {name}: {error.strerror}") from error
        return True

    @contextlib.contextmanager
    def _alone(self, name: str) -> Iterator[Path]:
        """Hold the folder's lock, so that looking and writing are one step among processes."""
        path = self._root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        with (path.parent / ".lock").open("a") as lock:  # "w" empties what a link leads to
            fcntl.flock(lock, fcntl.LOCK_EX)
            yield path


class S3Shelf:
    """A shelf in a bucket, under a prefix; S3 itself compares the tags.

    *client* opens it, or returns the one that is open.
    """

    def __init__(self, client: Callable[[], Any], bucket: str, prefix: str = "capsules/") -> None:
        self._client = client
        self._bucket = bucket
        self._prefix = prefix

    def read(self, name: str) -> Shelved | None:
        """Return the file, or nothing if there is none."""
        try:
            found = self._client().get_object(Bucket=self._bucket, Key=self._prefix + name)
            return Shelved(found["Body"].read(MAX_BYTES), found["ETag"])
        except Exception as error:
            if code_of(error) in ("NoSuchKey", "404"):
                return None
            raise Unavailable(f"cannot read {name}: {code_of(error)}") from error

    def write(self, name: str, body: bytes, *, over: str | None) -> bool:
        """Write the file over the version tagged *over*; say whether it was."""
        condition = {"IfMatch": over} if over else {"IfNoneMatch": "*"}
        try:
            self._client().put_object(
                Bucket=self._bucket,
                Key=self._prefix + name,
                Body=body,
                ContentType=media_type(name),
                CacheControl=CACHE_CONTROL,
                **condition,
            )
        except Exception as error:
            if code_of(error) in _TOO_LATE:
                return False
            raise Unavailable(f"cannot write {name}: {code_of(error)}") from error
        return True


def media_type(name: str) -> str:
    """Return a published file's media type."""
    return TYPES.get(Path(name).suffix, "application/octet-stream")


def _tag(body: bytes) -> str:
    return hashlib.sha256(body).hexdigest()
