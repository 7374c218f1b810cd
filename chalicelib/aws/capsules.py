"""Capsules: the call's address answers for published files too, and reads them from the bucket.

So a deployment without an edge has them, at the address that everybody knows. Nobody signs
such a call, and a capsule may be large, so what strangers can cause is bounded:

* A file is read from the bucket once in `KEPT_S` by each container, and so is the news that
  there is none. Where the service is closed, only the communities that the operator named
  are looked for: containers x files x communities / `KEPT_S` reads a second at the most,
  which for 10 containers and one community are 1.5, $1.58 a month at $0.40 a million. Where
  it is open, each call may name another community: a read for each call.
* An address pays for a large file with as many calls as it takes `CALL_BYTES`.
* A container sends `BYTES_PER_S` of capsules in the long run: ten of them 108 GB a month,
  $9.69 at $0.09 a GB. Whoever has more readers takes the edge, or opens the bucket.

A read takes no unit of a table, unless its address is told to the others (ADR 0007).
"""

from __future__ import annotations

import time
from collections import OrderedDict
from collections.abc import Callable

from chalicelib import access
from chalicelib.aws.sender import Budget
from chalicelib.call import Call, Reply
from chalicelib.capsule_files import CapsuleFiles
from chalicelib.community.shelf import Shelved
from chalicelib.service import Service
from muster.errors import RateLimited

KEPT_S = 20
"""How long a file is not read again; readers may keep it for half a minute themselves."""

KEPT_FILES, KEPT_BYTES = 128, 8 * 1024 * 1024
"""What a container keeps at the most; the oldest go first."""

CALL_BYTES = 8 * 1024
BYTES_PER_S, BURST_BYTES = 4 * 1024, 1024 * 1024
WAIT_S = 30


class KeptFiles:
    """Reads files through a memory of a few seconds; a file that is missing is remembered too."""

    def __init__(
        self,
        read: Callable[[str], Shelved | None],
        *,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._read, self._clock = read, clock
        self._kept: OrderedDict[str, tuple[float, Shelved | None]] = OrderedDict()
        self._bytes = 0

    def read(self, name: str) -> Shelved | None:
        """Return the file, or nothing if there is none; raises what reading raises."""
        now = self._clock()
        until, file = self._kept.get(name, (now, None))
        if now < until:
            return file
        file = self._read(name)
        self._drop(name)
        self._kept[name] = (now + KEPT_S, file)
        self._bytes += _size(file)
        while len(self._kept) > KEPT_FILES or self._bytes > KEPT_BYTES:
            self._drop(next(iter(self._kept)))
        return file

    def _drop(self, name: str) -> None:
        _, file = self._kept.pop(name, (0, None))
        self._bytes -= _size(file)


class Capsules:
    """Answers calls for capsules, within what a container may send."""

    def __init__(self, service: Service, read: Callable[[str], Shelved | None]) -> None:
        self._service = service
        self._kept = KeptFiles(read)
        self._files = CapsuleFiles(self._find)
        self._budget = Budget(BYTES_PER_S, burst=BURST_BYTES)

    def reply(self, call: Call) -> Reply:
        """Answer a call for a published file; raises what it is refused with."""
        limits, shared = self._service.limits, not access.closed(self._service, call)
        limits.spend_address(call.source_ip, clock=call.clock, shared=shared)
        reply = self._files.reply(call)
        size = len(reply.body)
        if not self._budget.take(size):
            raise RateLimited("too many capsules are read here; wait 30 s", retry_after_s=WAIT_S)
        limits.charge_address(call.source_ip, size // CALL_BYTES, clock=call.clock, shared=shared)
        if call.request_id:
            reply.headers["X-Request-Id"] = call.request_id
        return reply

    def _find(self, name: str) -> Shelved | None:
        """Read a file of a community that is published; others have none."""
        community = name.partition("/")[0]
        if not access.published(self._service.settings, (community,)):
            return None
        return self._kept.read(name)


def _size(file: Shelved | None) -> int:
    return len(file.body) if file else 0
