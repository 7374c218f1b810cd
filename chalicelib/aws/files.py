"""Files: what the call's address sends of capsules, the app and its library, bounded in total.

Nobody signs a call for a file, and files are larger than answers, so what strangers can cause
has two bounds beside those of the gateway:

* An address pays for a large file with as many calls as it takes `CALL_BYTES`.
* A container sends `BYTES_PER_S` of files in the long run, and `BURST_BYTES` when it is
  new, which is the whole app for six browsers: ten of them 108 GB a month, $9.69 at $0.09
  a GB. Whoever has more readers takes the edge, opens the bucket, or serves the library at a
  place of their own.

A file takes no unit of a table, unless its address is told to the others (ADR 0007).
"""

from __future__ import annotations

from collections.abc import Callable

from chalicelib import access
from chalicelib.aws.sender import Budget
from chalicelib.call import Call, Reply
from chalicelib.service import Service
from muster.errors import RateLimited

CALL_BYTES = 16 * 1024
BYTES_PER_S, BURST_BYTES = 4 * 1024, 1024 * 1024
WAIT_S = 30


class Files:
    """Answers calls for files, within what a container may send."""

    def __init__(self, service: Service) -> None:
        self._service = service
        self._budget = Budget(BYTES_PER_S, burst=BURST_BYTES)

    def reply(self, call: Call, find: Callable[[Call], Reply]) -> Reply:
        """Answer a call with what *find* replies; raises what it is refused with."""
        limits, shared = self._service.limits, not access.closed(self._service, call)
        limits.spend_address(call.source_ip, clock=call.clock, shared=shared)
        reply = find(call)
        size = len(reply.body)
        if not self._budget.take(size):
            raise RateLimited("too many files are read here; wait 30 s", retry_after_s=WAIT_S)
        limits.charge_address(call.source_ip, size // CALL_BYTES, clock=call.clock, shared=shared)
        if call.request_id:
            reply.headers["X-Request-Id"] = call.request_id
        return reply
