"""The announcer: how often it speaks, when it signs anew, and where it looks when alone.

In virtual time, through a transport that answers as beacons and hosts do.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from concurrent.futures import Executor, Future
from dataclasses import dataclass, field, replace
from itertools import pairwise
from typing import Any

import httpx2
import pytest

from capsules.ticket import Ticket
from muster.backoff import Rim
from muster.bootstrap.announcer import Announcer
from tests.client import virtual
from tests.support.community import Community, key

NEAR, FAR = "http://127.0.0.1:1", "http://127.0.0.1:2"


class Inline(Executor):
    """Works at once: in virtual time a thread would be overtaken by the clock."""

    def submit(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Future[Any]:
        done: Future[Any] = Future()
        try:
            done.set_result(fn(*args, **kwargs))
        except Exception as error:
            done.set_exception(error)
        return done


@dataclass
class Net:
    """Every host there is; what was announced, and when."""

    us: Community
    members: list[str] = field(default_factory=list)
    announced: list[tuple[float, str, Ticket]] = field(default_factory=list)
    fetched: list[float] = field(default_factory=list)
    named: tuple[str, ...] = ()
    capsule: bytes = b""
    busy: Callable[[], httpx2.Response | None] = lambda: None

    def answer(self, request: httpx2.Request) -> httpx2.Response:
        now = virtual.now()
        self.us.now = int(now)
        if request.url.path.startswith("/capsules/"):
            if not request.url.path.endswith(".manifest"):
                return reply(self.capsule)
            self.fetched.append(now)
            files = self.us.publish(*self.members, beacons=self.named)
            self.capsule = files.capsule
            return reply(files.manifest)
        if (refusal := self.busy()) is not None:
            return refusal
        base = f"http://{request.url.netloc.decode()}"
        asked = json.loads(request.content)
        self.announced.append((now, base, Ticket.from_json(asked["ticket"])))
        listed = [self.us.ticket(member).to_json() for member in self.members]
        return reply(json.dumps({"ok": True, "peers": listed}).encode())

    def announcer(self, *, rim: Rim | None = None, **options: Any) -> Announcer:
        return Announcer(
            key("me"),
            self.us.url("http://127.0.0.1:9"),
            **{
                "peer_id": "me",
                "beacons": [NEAR],
                "transport": httpx2.MockTransport(self.answer),
                "rim": rim or virtual.rim(),
                "worker": Inline(),
                **options,
            },
        )

    def times(self, base: str = NEAR) -> list[float]:
        return [at for at, where, _ in self.announced if where == base]


def reply(raw: bytes, code: int = 200, **headers: str) -> httpx2.Response:
    return httpx2.Response(code, stream=httpx2.ByteStream(raw), headers=headers)


@pytest.fixture
def net() -> Net:
    return Net(Community(now=int(virtual.START)), members=[f"peer-{n}" for n in range(6)])


def test_it_announces_every_30_to_45_seconds_with_the_same_ticket_until_it_nears_its_end(
    net: Net,
) -> None:
    async def scene() -> None:
        async with net.announcer():
            await asyncio.sleep(900)

    virtual.run(scene())

    times = net.times()
    gaps = [after - before for before, after in pairwise(times)]
    assert all(29.9 <= gap <= 45.5 for gap in gaps)
    assert len(set(gaps)) > len(gaps) / 2  # they are spread, so that nodes do not march in step
    tickets = [ticket for _, _, ticket in net.announced]
    assert 4 <= len({ticket.message for ticket in tickets}) <= 10
    for at, _, ticket in net.announced:
        assert ticket.expires_at_ms / 1000 - at >= 59  # it outlives the time to the next


def test_it_knows_who_is_there_and_not_itself(net: Net) -> None:
    net.members.append("me")

    async def scene() -> tuple[str, ...]:
        async with net.announcer() as announcer:
            peers = await announcer.wait_for(6)
            await asyncio.sleep(600)
            assert len(announcer.peers) == 6
            net.members = ["last"]
            await asyncio.sleep(300)  # the others' tickets end
            assert [peer.peer_id for peer in announcer.peers] == ["last"]
            return tuple(peer.peer_id for peer in peers)

    assert set(virtual.run(scene())) == {f"peer-{n}" for n in range(6)}


def test_it_announces_where_a_manifest_leads(net: Net) -> None:
    net.named = (FAR,)

    async def scene() -> None:
        async with net.announcer(beacons=[]):
            await asyncio.sleep(200)

    virtual.run(scene())
    assert len(net.times(FAR)) >= 4


def test_it_searches_everywhere_while_few_are_known_and_more_and_more_seldom(net: Net) -> None:
    async def scene() -> None:
        async with net.announcer(few=5):
            await asyncio.sleep(300)
        assert len(net.fetched) == 1  # the beacon keeps enough of them known
        net.fetched.clear()
        net.members = ["only-one"]
        async with net.announcer(few=5):
            await asyncio.sleep(3600)

    virtual.run(scene())
    gaps = [b - a for a, b in pairwise(net.fetched)]
    assert 7 <= len(net.fetched) <= 14
    assert gaps[0] < 60
    assert gaps[-1] > 500


def test_a_beacon_that_asks_for_patience_gets_it(net: Net) -> None:
    refusals: list[float] = []

    def busy() -> httpx2.Response | None:
        if len(refusals) >= 2:
            return None
        refusals.append(virtual.now())
        return reply(b"", 429, **{"Retry-After": "200"})

    net.busy = busy

    async def scene() -> None:
        async with net.announcer():
            await asyncio.sleep(1000)

    virtual.run(scene())
    assert refusals[1] - refusals[0] >= 200
    assert net.times()[0] - refusals[1] >= 200


def test_no_beacon_silences_it_for_more_than_an_hour(net: Net) -> None:
    refusals = [reply(b"", 429, **{"Retry-After": "9999999"})]
    net.busy = lambda: refusals.pop() if refusals else None

    async def scene() -> None:
        async with net.announcer():
            await asyncio.sleep(3700)

    virtual.run(scene())
    assert net.times()


@pytest.mark.parametrize("step_s", [-3600, -60, 3600])
def test_a_clock_that_is_set_delays_nothing_and_is_signed_for_anew(net: Net, step_s: int) -> None:
    step = [0]
    rim = replace(virtual.rim(), now=lambda: virtual.now() + step[0])

    async def scene() -> None:
        async with net.announcer(rim=rim, few=0):
            await asyncio.sleep(200)
            step[0] = step_s
            await asyncio.sleep(200)

    virtual.run(scene())

    gaps = [after - before for before, after in pairwise([*net.times(), virtual.START + 400])]
    assert max(gaps) <= 45.5
    for at, _, ticket in net.announced:
        clock = at + (step_s if at > virtual.START + 200 else 0)
        assert ticket.issued_at_ms / 1000 <= clock < ticket.expires_at_ms / 1000


def test_a_clock_that_is_set_back_does_not_end_the_search(net: Net) -> None:
    net.members = ["only-one"]
    step = [0]
    rim = replace(virtual.rim(), now=lambda: virtual.now() + step[0])

    async def scene() -> None:
        async with net.announcer(rim=rim, few=5):
            await asyncio.sleep(100)
            net.fetched.clear()
            step[0] = -36_000
            await asyncio.sleep(700)

    virtual.run(scene())
    assert net.fetched


def test_it_goes_on_when_everything_fails(net: Net) -> None:
    net.busy = lambda: reply(b"<html>", 500)

    async def scene() -> None:
        async with net.announcer() as announcer:
            await asyncio.sleep(100)
            assert {o.reason for o in announcer.attempts} == {"UNREACHABLE"}
            net.busy = lambda: None
            assert await announcer.wait_for(6)

    virtual.run(scene())


def test_what_ends_it_is_told_to_whoever_waits(net: Net) -> None:
    def broken(size: int) -> bytes:
        raise OSError("no entropy")

    rim = virtual.rim()
    broke = Rim(now=rim.now, sleep=rim.sleep, chance=rim.chance, entropy=broken)

    async def scene() -> None:
        async with net.announcer(rim=broke) as announcer:
            await announcer.wait_for(1)

    with pytest.raises(OSError, match="no entropy"):
        virtual.run(scene())
