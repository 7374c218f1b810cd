"""Capsules: the call's address answers for published files too, and reads them from the bucket.

So a deployment without an edge has them, at the address that everybody knows. What is sent is
bounded with all other files (`chalicelib/aws/files.py`), and what is read is bounded here: a
community's files are read from the bucket once in `KEPT_S` by each container, and so is the news
that there are none. Where the service is closed, only the communities that the operator named are
looked for: containers x communities x 3 files / `KEPT_S` reads a second at the most, which for 10
containers and one community are 3, $3.15 a month at $0.40 a million. Where it is open, each call
may name another community: a read for each call.
"""

from __future__ import annotations

import hashlib
import time
from collections import OrderedDict
from collections.abc import Callable

from chalicelib import access
from chalicelib.aws.files import Files
from chalicelib.call import Call, Reply
from chalicelib.capsule_files import CapsuleFiles
from chalicelib.community.shelf import FILES, Shelved
from chalicelib.service import Service

Read = Callable[[str], Shelved | None]
Capsule = dict[str, Shelved]

KEPT_S = 10
"""How long files are not read again; readers may keep them for half a minute themselves."""

TORN_S = 1
"""How long files are not read again that do not belong together: they are just being replaced."""

KEPT_COMMUNITIES, KEPT_BYTES = 128, 8 * 1024 * 1024
"""What a container keeps at the most; the oldest go first."""


class KeptCapsules:
    """Reads capsules through a memory of a few seconds; one that is missing is remembered too.

    The three files of a capsule are read and forgotten together: a reader who gets one of
    this version and one of that starts again, but not for as long as we keep them. What was
    read while it was being replaced is kept for a moment only.
    """

    def __init__(self, read: Read, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._read, self._clock = read, clock
        self._kept: OrderedDict[str, tuple[float, Capsule]] = OrderedDict()
        self._bytes = 0

    def read(self, name: str) -> Shelved | None:
        """Return a file, or nothing if there is none; raises what reading raises."""
        community, _, file = name.partition("/")
        return self._files(community).get(file)

    def _files(self, community: str) -> Capsule:
        until, files = self._kept.get(community, (0.0, {}))
        if self._clock() < until:
            return files
        files = self._fetch(community)
        self._drop(community)
        kept_s = KEPT_S if _is_whole(files) else TORN_S
        self._kept[community] = (self._clock() + kept_s, files)
        self._bytes += _size(files)
        while len(self._kept) > KEPT_COMMUNITIES or self._bytes > KEPT_BYTES:
            self._drop(next(iter(self._kept)))
        return files

    def _fetch(self, community: str) -> Capsule:
        """Read the manifest first: it is written last, and without it there is no capsule."""
        files: Capsule = {}
        for file in reversed(FILES):
            found = self._read(f"{community}/{file}")
            if found is None:
                break
            files[file] = found
        return files

    def _drop(self, community: str) -> None:
        _, files = self._kept.pop(community, (0.0, {}))
        self._bytes -= _size(files)


class Capsules:
    """Answers calls for capsules."""

    def __init__(self, service: Service, read: Read, files: Files | None = None) -> None:
        self._service = service
        self._kept = KeptCapsules(read)
        self._found = CapsuleFiles(self._find)
        self._files = files or Files(service)

    def reply(self, call: Call) -> Reply:
        """Answer a call for a published file; raises what it is refused with."""
        return self._files.reply(call, self._found.reply)

    def _find(self, name: str) -> Shelved | None:
        """Read a file of a community that is published; others have none."""
        community = name.partition("/")[0]
        if not access.published(self._service.settings, (community,)):
            return None
        return self._kept.read(name)


def _is_whole(files: Capsule) -> bool:
    """Say whether the manifest, if there is one, is that of the capsule beside it."""
    capsule, manifest = files.get(FILES[0]), files.get(FILES[2])
    if capsule is None or manifest is None:
        return not files
    return hashlib.sha256(capsule.body).hexdigest().encode() in manifest.body


def _size(files: Capsule) -> int:
    return sum(len(file.body) for file in files.values())
