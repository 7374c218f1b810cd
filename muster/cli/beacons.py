"""Beacons: what the doctor asks of one, through a client of its service."""

from __future__ import annotations

import json
from typing import Any

import httpx2

from capsules import trust
from capsules.capsule import MAX_CAPSULE_BYTES
from capsules.errors import Reason, Refused
from capsules.keys import VerifyKey
from capsules.manifest import Document, Manifest
from capsules.ticket import Ticket
from muster.cli.output import Failure
from muster.felund.client import Client, Unreachable

MOST_BYTES = 2 * MAX_CAPSULE_BYTES
NOT_WHOLE = (Reason.LENGTH_MISMATCH, Reason.HASH_MISMATCH)


async def announce(client: Client, community: str, ticket: Ticket) -> str | None:
    """Announce a ticket; return why it was not taken, if it was not."""
    body = json.dumps({"ticket": ticket.to_json()}).encode()
    answer = _object(await _ask(client, "POST", f"/announce?community={community}", body))
    reason = answer.get("validation", {}).get("reason", "no reason was given")
    return None if answer.get("ok") is True else str(reason)


async def listed(client: Client, community: str) -> list[str]:
    """Return the peers that are listed and whose tickets are good."""
    answer = _object(await _ask(client, "GET", f"/peers?community={community}"))
    found = []
    for entry in answer.get("peers", ()):
        try:
            ticket = Ticket.from_json(entry)
            ticket.verify(now_ms=client.now() * 1000)
        except Refused as refused:
            raise Failure(
                f"a ticket is listed that clients refuse: {refused}", "the service is broken"
            ) from None
        found.append(ticket.peer_id)
    return found


async def manifest(client: Client, community: str) -> Manifest | None:
    """Return what the service says of its capsule, unverified; None if there is none yet."""
    raw = await _ask(client, "GET", f"/capsules/{community}/peers.json.manifest", missing=True)
    if raw is None:
        return None
    try:
        return Manifest.from_json(Document.parse(raw).manifest.payload)
    except Refused as refused:
        raise _refused(refused) from None


async def verified(client: Client, community: str, key: VerifyKey) -> int:
    """Verify a capsule from the root key on, as clients do; return its live tickets."""
    for last in (False, True):
        try:
            return await _verified(client, community, key)
        except Refused as refused:
            if last or refused.reason not in NOT_WHOLE:
                raise _refused(refused) from None
            # It was published between two of our calls.
    raise AssertionError("the last attempt returns or raises")


def _refused(refused: Refused) -> Failure:
    return Failure(f"clients refuse the capsule: {refused}", "is something on the way changing it?")


async def _verified(client: Client, community: str, key: VerifyKey) -> int:
    described = await _ask(client, "GET", f"/capsules/{community}/peers.json.manifest")
    capsule = await _ask(client, "GET", f"/capsules/{community}/peers.json")
    accepted = trust.accept(
        trust.begin(key), described or b"", capsule or b"", community=community, now=client.now()
    )
    return len(accepted.tickets)


async def _ask(
    client: Client, method: str, path: str, body: bytes = b"", *, missing: bool = False
) -> bytes | None:
    """Return the body of an answer; nothing where nothing is, if that may be."""
    headers = {"Content-Type": "application/json"} if body else {}
    http, url = client.http, client.base_url + path
    try:
        async with http.stream(method, url, content=body, headers=headers) as reply:
            if missing and reply.status_code == 404:
                return None
            if reply.status_code != 200:
                raise Failure(
                    f"{method} {path.partition('?')[0]} is answered with {reply.status_code}",
                    "does a proxy on the way pass on paths outside /v1?",
                )
            raw = bytearray()
            async for piece in reply.aiter_raw():
                raw += piece
                if len(raw) > MOST_BYTES:
                    raise Failure("an answer has no end", "is this the service's URL?")
            return bytes(raw)
    except httpx2.HTTPError as error:
        raise Unreachable(str(error) or type(error).__name__) from error


def _object(raw: bytes | None) -> dict[str, Any]:
    try:
        found = json.loads(raw or b"")
    except ValueError:
        found = None
    if not isinstance(found, dict):
        raise Failure("the beacon answers something else than JSON", "is this the service's URL?")
    return found


__all__ = ["announce", "listed", "manifest", "verified"]
