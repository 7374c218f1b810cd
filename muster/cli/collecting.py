"""Collecting: what beacons list, each asked at once, within bounds of time and size."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from typing import NamedTuple

import httpx2

from capsules import canonical, fields, ticket
from capsules.errors import Refused
from capsules.ticket import Rules, Ticket
from muster import __version__

WITHIN_S = 8.0
MOST_BYTES = 4 * 1024 * 1024
MOST_TICKETS = 5_000


class Answer(NamedTuple):
    """What one beacon said: tickets to believe, how many not to, or why it said nothing."""

    beacon: str
    tickets: tuple[Ticket, ...] = ()
    refused: int = 0
    error: str = ""


async def collect(
    beacons: Iterable[str],
    community: str,
    *,
    now_ms: int,
    rules: Rules,
    transport: httpx2.AsyncBaseTransport | None = None,
    within_s: float = WITHIN_S,
) -> list[Answer]:
    """Ask every beacon for its list; those that fail say why."""
    async with httpx2.AsyncClient(
        transport=transport,
        timeout=within_s,
        headers={
            "Accept": "application/json",
            "Accept-Encoding": "identity",
            "User-Agent": f"muster/{__version__}",
        },
    ) as client:

        async def ask(beacon: str) -> Answer:
            try:
                async with asyncio.timeout(within_s):
                    raw = await _read(client, beacon, community)
                return _judge(beacon, raw, now_ms=now_ms, rules=rules)
            except TimeoutError:
                return Answer(beacon, error=f"it did not answer within {within_s:g} s")
            except (httpx2.HTTPError, httpx2.InvalidURL, Refused, _Bad) as error:
                return Answer(beacon, error=str(error) or type(error).__name__)

        return list(await asyncio.gather(*(ask(beacon) for beacon in beacons)))


def merge(answers: Iterable[Answer], *, most: int) -> list[Ticket]:
    """Return one ticket for each peer and user, the one that lives longest; these first."""
    merged = ticket.merge(found for answer in answers for found in answer.tickets)
    return sorted(merged, key=lambda one: (-one.expires_at_ms, one.peer_id))[:most]


class _Bad(Exception):
    """An answer that is not a beacon's."""


async def _read(client: httpx2.AsyncClient, beacon: str, community: str) -> bytes:
    url = beacon.strip().rstrip("/") + "/peers"
    async with client.stream("GET", url, params={"community": community}) as reply:
        if reply.status_code != 200:
            raise _Bad(f"it answered with status {reply.status_code}")
        body = bytearray()
        async for piece in reply.aiter_raw():
            body += piece
            if len(body) > MOST_BYTES:
                raise _Bad(f"its answer has more than {MOST_BYTES} bytes")
    return bytes(body)


def _judge(beacon: str, raw: bytes, *, now_ms: int, rules: Rules) -> Answer:
    listed = fields.items(
        fields.members(canonical.loads(raw), "the answer"), "peers", most=MOST_TICKETS
    )
    good = []
    for entry in listed:
        try:
            found = Ticket.from_json(entry)
            found.verify(now_ms=now_ms, rules=rules)
        except Refused:
            continue
        if ticket.listable(found) and found.expires_at_ms > now_ms:
            good.append(found)
    return Answer(beacon, tuple(good), refused=len(listed) - len(good))
