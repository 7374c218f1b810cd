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
from muster.bootstrap import fetch
from muster.bootstrap.fetch import NoAnswer

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
    async with fetch.client(transport, f"muster/{__version__}") as http:

        async def ask(beacon: str) -> Answer:
            url = beacon.strip().rstrip("/") + "/peers"
            try:
                async with asyncio.timeout(within_s):
                    raw = await fetch.fetch(
                        http, url, most=MOST_BYTES, query={"community": community}
                    )
                return _judge(beacon, raw, now_ms=now_ms, rules=rules)
            except TimeoutError:
                return Answer(beacon, error=f"it did not answer within {within_s:g} s")
            except Refused as refusal:
                return Answer(beacon, error=_why(refusal))

        return list(await asyncio.gather(*(ask(beacon) for beacon in beacons)))


def merge(answers: Iterable[Answer], *, most: int) -> list[Ticket]:
    """Return one ticket for each peer and user, the one that lives longest; these first."""
    merged = ticket.merge(found for answer in answers for found in answer.tickets)
    return sorted(merged, key=lambda one: (-one.expires_at_ms, one.peer_id))[:most]


def _why(refusal: Refused) -> str:
    if isinstance(refusal, NoAnswer) and refusal.status is not None:
        return f"it answered with status {refusal.status}"
    return refusal.message


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
