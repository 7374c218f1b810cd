"""Asking beacons: each failure is one beacon's, with its reason, and holds up nobody."""

import asyncio
import json
import time
from collections.abc import AsyncIterator, Callable
from typing import Any

import httpx2
import pytest

from capsules import ticket as tickets
from capsules.keys import SigningKey
from capsules.ticket import RULES, Rules
from muster.cli.collecting import MOST_BYTES, Answer, collect, merge

NOW_MS = 1_790_000_000_000
BEACON = "https://beacon.example"


def ticket(
    number: int = 1, peer_id: str = "peer", ttl_ms: int = 180_000, now_ms: int = NOW_MS
) -> dict[str, Any]:
    made = tickets.create(
        SigningKey(number.to_bytes(32, "big")),
        peer_id=peer_id,
        user_id="user",
        now_ms=now_ms,
        nonce=bytes(12),
        ttl_ms=ttl_ms,
    )
    return dict(made.to_json())


class Body(httpx2.AsyncByteStream):
    """A body that comes in pieces."""

    def __init__(self, pieces: Callable[[], AsyncIterator[bytes]]) -> None:
        self._pieces = pieces

    def __aiter__(self) -> AsyncIterator[bytes]:
        return self._pieces()


class Beacons(httpx2.AsyncBaseTransport):
    """Beacons by their host."""

    def __init__(self, **answers: Any) -> None:
        self.answers = answers
        self.asked: list[str] = []

    async def handle_async_request(self, request: httpx2.Request) -> httpx2.Response:
        self.asked.append(str(request.url))
        answer = self.answers[request.url.host.partition(".")[0]]
        found: httpx2.Response = await answer()
        return found


def said(content: Any, status: int = 200) -> Any:
    async def answer() -> httpx2.Response:
        raw = content if isinstance(content, bytes) else json.dumps(content).encode()

        async def pieces() -> AsyncIterator[bytes]:
            yield raw

        return httpx2.Response(status, stream=Body(pieces))

    return answer


async def hang() -> httpx2.Response:
    await asyncio.sleep(3600)
    raise AssertionError


async def drip() -> httpx2.Response:
    async def pieces() -> AsyncIterator[bytes]:
        while True:
            await asyncio.sleep(0.01)
            yield b" "

    return httpx2.Response(200, stream=Body(pieces))


async def endless() -> httpx2.Response:
    async def pieces() -> AsyncIterator[bytes]:
        while True:
            yield b" " * 65536

    return httpx2.Response(200, stream=Body(pieces))


async def unreachable() -> httpx2.Response:
    raise httpx2.ConnectError("nobody there")


def asked(rules: Rules = RULES, **answers: Any) -> dict[str, Answer]:
    beacons = [f"https://{name}.example" for name in answers]
    found = asyncio.run(
        collect(
            beacons,
            "mainnet",
            now_ms=NOW_MS,
            rules=rules,
            transport=Beacons(**answers),
            within_s=1,
        )
    )
    return dict(zip(answers, found, strict=True))


@pytest.mark.parametrize(
    ("answer", "reason"),
    [
        (hang, "did not answer within 1 s"),
        (drip, "did not answer within 1 s"),
        (endless, f"more than {MOST_BYTES} bytes"),
        (unreachable, "nobody there"),
        (said({"peers": []}, 503), "status 503"),
        (said({}, 302), "status 302"),
        (said(b"<html>hello</html>"), "not JSON"),
        (said([]), "must be an object"),
        (said({"peers": {}}), "peers must be an array"),
        (said({"peers": [None] * 5_001}), "peers must be an array of at most"),
    ],
)
def test_a_beacon_that_fails_says_why_and_the_others_count(answer: Any, reason: str) -> None:
    started = time.monotonic()

    found = asked(bad=answer, good=said({"ok": True, "peers": [ticket()]}))

    assert reason in found["bad"].error
    assert (len(found["good"].tickets), found["good"].error) == (1, "")
    assert time.monotonic() - started < 30


def test_only_tickets_that_every_client_believes_are_taken() -> None:
    listed = [
        ticket(),
        ticket() | {"signature": "***"},
        ticket(now_ms=NOW_MS - 185_000),
        ticket() | {"extra": 1},
        None,
        {},
    ]

    found = asked(beacon=said({"peers": listed}))["beacon"]

    assert (len(found.tickets), found.refused) == (1, 5)


def test_the_operators_lists_count() -> None:
    trusted = SigningKey((2).to_bytes(32, "big")).verify_key.to_base64()
    rules = Rules(trusted=frozenset({trusted}))

    found = asked(rules, beacon=said({"peers": [ticket(1, "a"), ticket(2, "b")]}))["beacon"]

    assert [one.peer_id for one in found.tickets] == ["b"]


def test_a_peer_is_taken_once_with_the_ticket_that_lives_longest() -> None:
    here = said({"peers": [ticket(1, "a", 100_000), ticket(2, "b", 150_000)]})
    there = said({"peers": [ticket(1, "a", 200_000), ticket(3, "c", 50_000)]})

    merged = merge(asked(here=here, there=there).values(), most=2)

    assert [(one.peer_id, one.expires_at_ms - NOW_MS) for one in merged] == [
        ("a", 200_000),
        ("b", 150_000),
    ]


def test_a_url_may_have_a_path_and_a_slash() -> None:
    beacons = Beacons(beacon=said({"peers": []}))

    asyncio.run(
        collect([f"{BEACON}/mesh/"], "alpha", now_ms=NOW_MS, rules=RULES, transport=beacons)
    )

    assert beacons.asked == [f"{BEACON}/mesh/peers?community=alpha"]


def test_what_is_no_url_is_told() -> None:
    [found] = asyncio.run(collect(["beacon"], "a", now_ms=NOW_MS, rules=RULES))

    assert found.error
