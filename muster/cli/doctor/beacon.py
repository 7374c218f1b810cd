"""The steps of a community: nodes announce, the beacon lists them, a capsule is published."""

from __future__ import annotations

import asyncio
import json
import secrets
from dataclasses import replace
from typing import Any

from capsules import ticket as tickets
from capsules.capsule import MAX_CAPSULE_BYTES
from capsules.errors import Refused
from capsules.keys import KEY_BYTES, SigningKey, VerifyKey
from capsules.manifest import Document, Manifest
from capsules.ticket import Ticket
from muster.answers import NOT_OURS
from muster.bootstrap.fetch import NoAnswer, fetch
from muster.bootstrap.opening import Opener
from muster.bootstrap.sources import Kind, Source
from muster.bootstrap.trusted import Trust
from muster.cli.doctor.visit import BROKEN, LOOK_S, TTL_S, Step, Visit
from muster.cli.output import Failure
from muster.felund.client import Client
from muster.felund.sockets import Unreachable

COMMUNITY = "doctor"
MOST_BYTES = 2 * MAX_CAPSULE_BYTES
CAPSULE = f"/capsules/{COMMUNITY}/peers.json"
FORBIDDEN, NOT_FOUND = 403, 404
NOTHING = "nothing was announced"


async def _announce(visit: Visit) -> str:
    try:
        return await _announced(visit)
    except Failure as failure:
        answer = failure.__cause__
        if visit.open or not isinstance(answer, NoAnswer) or answer.status != FORBIDDEN:
            raise
        return f"closed: community {COMMUNITY} is not served here"


async def _announced(visit: Visit) -> str:
    names = []
    for number in range(2):
        name = f"doctor-{number}-{secrets.token_hex(6)}"
        ticket = tickets.create(
            SigningKey(secrets.token_bytes(KEY_BYTES)),
            peer_id=name,
            user_id="doctor",
            now_ms=visit.near.now() * 1000,
            nonce=secrets.token_bytes(tickets.NONCE_BYTES),
            ttl_ms=TTL_S * 1000,
        )
        body = json.dumps({"ticket": ticket.to_json()}).encode()
        answer = _object(await _ask(visit.near, "/announce", body))
        if answer.get("ok") is not True:
            reason = answer.get("validation", {}).get("reason", "no reason was given")
            raise Failure(f"a ticket was refused: {reason}", "which tickets does it trust?")
        names.append(name)
    visit.announced = tuple(names)
    return f"tickets taken, community {COMMUNITY}"


async def _list(visit: Visit) -> str:
    if not visit.announced:
        return NOTHING
    while True:
        listed = await _listed(visit.near)
        if set(visit.announced) <= set(listed):
            return f"{len(listed)} listed, both of ours"
        await asyncio.sleep(LOOK_S)  # another process may remember its list for two seconds


async def _listed(client: Client) -> list[str]:
    """Return the peers that are listed; each ticket must be good."""
    answer = _object(await _ask(client, "/peers"))
    found = []
    for entry in answer.get("peers", ()):
        try:
            ticket = Ticket.from_json(entry)
            ticket.verify(now_ms=client.now() * 1000)
        except Refused as refusal:
            raise Failure(f"a ticket is listed that clients refuse: {refusal}", BROKEN) from None
        found.append(ticket.peer_id)
    return found


async def _publish(visit: Visit) -> str:
    if visit.capsule_root is None:
        return "this service publishes none"
    if not visit.announced:
        return NOTHING
    while True:
        found = await _manifest(visit.near)
        if found is not None and found.fresh_until > visit.near.now():
            return f"{max(visit.near.now() - found.issued_at, 0)} s old"
        await asyncio.sleep(LOOK_S)


async def _manifest(client: Client) -> Manifest | None:
    """Return what the service says of its capsule, unverified; None if there is none yet."""
    try:
        raw = await fetch(client.http, f"{client.base_url}{CAPSULE}.manifest", most=MOST_BYTES)
        return Manifest.from_json(Document.parse(raw).manifest.payload)
    except NoAnswer as refusal:
        if refusal.status == NOT_FOUND:
            return None
        raise _no_answer(refusal, f"GET {CAPSULE}.manifest") from refusal
    except Refused as refusal:
        raise _not_believed(refusal) from None


async def _verify(visit: Visit) -> str:
    """Verify the capsule from the root key on, as clients do."""
    if visit.capsule_root is None or not visit.announced:
        return "nothing to verify"
    client, trust = visit.near, Trust(None)
    key = VerifyKey.from_base64(visit.capsule_root)
    trust.open({key})

    async def fetch_it(url: str, *, most: int) -> bytes:
        return await fetch(client.http, url, most=most)

    opener = Opener(fetch_it, trust, replace(client.rim, now=client.now))
    source = Source(Kind.CAPSULE, client.base_url + CAPSULE, key)
    try:
        opened = await opener.open(source, COMMUNITY)
    except NoAnswer as refusal:
        raise _no_answer(refusal, f"GET {CAPSULE}") from refusal
    except Refused as refusal:
        raise _not_believed(refusal) from None
    return f"{len(opened.accepted.tickets)} live tickets"


STEPS = (
    Step("announce", "two nodes announce", _announce, ("reach",)),
    Step("list", "the beacon lists them", _list, ("announce",)),
    Step("publish", "a capsule is published", _publish, ("info", "announce")),
    Step("verify", "the capsule verifies", _verify, ("publish",)),
)


async def _ask(client: Client, path: str, body: bytes | None = None) -> bytes:
    """Ask the beacon."""
    url = f"{client.base_url}{path}"
    try:
        return await fetch(
            client.http, url, most=MOST_BYTES, body=body, query={"community": COMMUNITY}
        )
    except NoAnswer as refusal:
        raise _no_answer(refusal, f"{'POST' if body else 'GET'} {path}") from refusal
    except Refused as refusal:
        raise Failure(f"{path}: {refusal.message}", NOT_OURS) from None


def _no_answer(refusal: NoAnswer, call: str) -> Exception:
    if refusal.status is None:
        return Unreachable(refusal.message)
    return Failure(
        f"{call} is answered with {refusal.status}",
        "does a proxy on the way pass on paths outside /v1?",
    )


def _not_believed(refusal: Refused) -> Failure:
    return Failure(f"clients refuse the capsule: {refusal}", "is something on the way changing it?")


def _object(raw: bytes) -> dict[str, Any]:
    try:
        found = json.loads(raw)
    except ValueError:
        found = None
    if not isinstance(found, dict):
        raise Failure("the beacon answers something else than JSON", NOT_OURS)
    return found
