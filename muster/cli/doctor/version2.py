"""The step of version 2: two nodes of a fresh circle prove themselves, and one reads the other."""

from __future__ import annotations

import time

import httpx2

from capsules.errors import Refused
from muster import calls
from muster.circle import Circle
from muster.circle.connection import Connection
from muster.circle.service import Unproved
from muster.cli.doctor.visit import BROKEN, Step, Visit
from muster.cli.output import Failure
from muster.errors import NotAllowed
from muster.invites import Invite, ServiceAddress

NEW_CODE = "was it revoked, or cut off? 'muster access new' makes another where the service runs"
ASK_AGAIN = "ask who runs it, before you trust it: another service may be in its place"


class _Through(httpx2.AsyncBaseTransport):
    """Makes calls by the connections that the examination has open."""

    def __init__(self, client: httpx2.AsyncClient) -> None:
        self._client = client

    async def handle_async_request(self, request: httpx2.Request) -> httpx2.Response:
        return await self._client.send(request, stream=True)


async def _prove(visit: Visit) -> str:
    service = await _service(visit)
    if service is None:
        return "it speaks version 1 alone"
    ann = Circle.new(services=[service])
    bob = Circle.join(Invite.parse(ann.invite().code))
    started = time.perf_counter()
    try:
        async with _connect(visit, ann) as hers:
            if not await hers.ready():
                return _closed(hers)
            said = await hers.say("doctor")
            async with _connect(visit, bob) as his:
                if not await his.ready():
                    return _closed(his)
                if bob.said(said.hash) is None:
                    raise Failure("what one node left, the other does not read", BROKEN)
    finally:
        ann.close()
        bob.close()
    took_ms = (time.perf_counter() - started) * 1000
    return f"version 2 too: signed both ways, left and read in {took_ms:.0f} ms"


def _connect(visit: Visit, circle: Circle) -> Connection:
    return circle.connect(transport=lambda address: _Through(visit.near.http))


def _closed(here: Connection) -> str:
    """Say that a closed service wants a code, which is no fault; raises every other failure.

    A code that was given, and does not let in, is one.
    """
    (attendant,) = here.attendants
    trouble = attendant.trouble or Failure("it has not answered a sync in time", BROKEN)
    if isinstance(trouble, Unproved) and isinstance(trouble.refusal, NotAllowed):
        if attendant.service.address.code:
            raise Failure("the access code of the address does not let in", NEW_CODE)
        return "version 2 too: closed, it wants an access code (muster access new)"
    raise trouble


async def _service(visit: Visit) -> ServiceAddress | None:
    """Ask who the service is; None for one that does not know version 2."""
    base = visit.near.base_url
    reply = await visit.near.http.get(f"{base}/v2/info")
    told = reply.headers.get(calls.ANSWER)
    if told is None:
        return None
    try:
        service = calls.answered_by(told, status=reply.status_code, body=reply.content)
    except Refused as error:
        raise Failure(f"its answer of version 2 is not signed well: {error}", BROKEN) from None
    given = visit.address
    if given is not None and given.id != service:
        raise Failure(f"it has another key than the address says: #{service.hex()}", ASK_AGAIN)
    return ServiceAddress(base, service, given.code if given else "")


STEPS = (Step("prove", "two nodes prove themselves", _prove, ("reach",)),)
"""It comes after those of version 1, and says which versions the service speaks."""
