"""The world of the smoke test: places that answer well, and places that fail in every way."""

from __future__ import annotations

import asyncio
import random
import secrets
import time
from collections.abc import Mapping
from contextlib import AsyncExitStack
from typing import NamedTuple

from capsules import manifest, root, ticket
from capsules.keys import KEY_BYTES, SigningKey
from capsules.manifest import Files, Publisher
from capsules.ticket import Ticket
from muster.bootstrap import sources
from tools import loopback
from tools.loopback import Answer, Asked, Place, lists, publishes, says

COMMUNITY = "mainnet"
PATH = f"/capsules/{COMMUNITY}/peers.json"
BEACONS, HOSTS = 3, 3
OK = "ok"


class World(NamedTuple):
    """Everything a client may know: places by what they do, and keys and tickets behind them."""

    beacons: Mapping[str, list[str]]
    hosts: Mapping[str, list[str]]
    key: str
    live: Ticket
    past: Ticket


async def build(stack: AsyncExitStack, chance: random.Random) -> World:
    """Start every place, good ones and bad ones; *stack* ends them."""
    now = int(time.time())
    first, online, node = (SigningKey(chance.randbytes(KEY_BYTES)) for _ in range(3))
    live = [_ticket(node, f"peer-{n}", now) for n in range(20)]
    publisher = Publisher(
        online,
        root.certify(
            first,
            online.verify_key,
            serial=1,
            not_before=now - 100_000,
            expires_at=now + 100_000,
        ),
        (root.first(first, now=now - 100_000),),
    )
    good = manifest.publish(publisher, live, community=COMMUNITY, now=now)
    stale = manifest.publish(publisher, live, community=COMMUNITY, now=now - 90_000)
    other = manifest.publish(publisher, live, community="testnet", now=now)
    tampered = good._replace(capsule=good.capsule.replace(b"peer-1", b"peer-X", 1))
    broken: dict[str, Answer | None] = {
        "dead": None,
        "hanging": loopback.hangs,
        "dripping": loopback.drips(0.2),
        "endless": loopback.never_ends,
        "bomb": says(loopback.BOMB, content_encoding="gzip"),
        "failing": loopback.page(503),
        "a page": loopback.page(),
        "redirecting": loopback.redirects("/peers"),
        "breaking off": loopback.breaks_off,
    }
    listed = lists(*live)["/peers"]
    forged = lists(*(_forged(one, node) for one in live))["/peers"]
    beacons = {**broken, "forging": forged, OK: _delayed(listed, chance)}
    hosts: dict[str, Answer | Files | None] = {
        **broken,
        "stale": stale,
        "tampered": tampered,
        "another community": other,
        OK: good,
    }
    return World(
        beacons={
            kind: [await _beacon(stack, answer) for _ in range(BEACONS)]
            for kind, answer in beacons.items()
        },
        hosts={
            kind: [await _host(stack, answer, chance) for _ in range(HOSTS)]
            for kind, answer in hosts.items()
        },
        key=sources.fragment(first.verify_key),
        live=live[0],
        past=_ticket(node, "peer-past", now - 3600),
    )


async def _beacon(stack: AsyncExitStack, answer: Answer | None) -> str:
    if answer is None:
        return loopback.nobody()
    return (await stack.enter_async_context(Place({"/peers": answer}))).url


async def _host(stack: AsyncExitStack, answer: Answer | Files | None, chance: random.Random) -> str:
    if answer is None:
        return loopback.nobody() + PATH
    if isinstance(answer, Files):
        published = publishes(answer, PATH)
        answers = {path: _delayed(one, chance) for path, one in published.items()}
    else:
        answers = {f"{PATH}.manifest": answer}
    return (await stack.enter_async_context(Place(answers))).url + PATH


def _delayed(answer: Answer, chance: random.Random) -> Answer:
    """Answer as from afar: after 60 ms mostly, sometimes after a second."""

    async def wait(asked: Asked, writer: asyncio.StreamWriter) -> None:
        await asyncio.sleep(min(chance.lognormvariate(-2.8, 0.9), 3.0))
        await answer(asked, writer)

    return wait


def _ticket(key: SigningKey, peer_id: str, now: int) -> Ticket:
    nonce = secrets.token_bytes(ticket.NONCE_BYTES)
    return ticket.create(key, peer_id=peer_id, user_id="", now_ms=now * 1000, nonce=nonce)


def _forged(good: Ticket, key: SigningKey) -> Ticket:
    payload = {**good.envelope["payload"], "peerId": "peer-forged"}
    return Ticket.from_json({**good.envelope, "payload": payload})
