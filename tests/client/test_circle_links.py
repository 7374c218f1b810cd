"""Links between nodes of version 2: by the relay, by TLS, and where there is no service at all."""

from __future__ import annotations

import asyncio
import os
import random
import socket
import ssl
import time
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from capsules.keys import SigningKey
from muster import certificates, keys
from muster.circle import Circle, events
from muster.circle.connection import MOST_NODES
from muster.circle.direct import MOST_FROM_ONE
from muster.circle.links import Link, NoLink, PathKind
from muster.circle.session import Session
from muster.frames import Kind, LinkFrame
from muster.presences import Presence
from tests.support import local
from tests.support.members2 import Present, address, joined, play, present, state

HERE = "127.0.0.1"


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[local.Server]:
    with local.running(tmp_path_factory.mktemp("service")) as found:
        yield found


# --- sessions -------------------------------------------------------------------------------


@given(st.lists(st.sampled_from(["lose", "pass", "swap", "repeat", "again"]), max_size=80))
@settings(max_examples=200, deadline=None)
def test_whatever_a_path_does_each_message_counts_once_and_in_order(deeds: list[str]) -> None:
    one, two = Session(), Session()
    sent: list[bytes] = []
    heard: list[bytes] = []
    flying: list[LinkFrame] = []
    for number, deed in enumerate(deeds):
        sent.append(b"%d" % number)
        flying.append(one.put(sent[-1]))
        if deed == "lose":
            flying.pop()
        elif deed == "swap":
            flying.reverse()
        elif deed == "repeat":
            flying += flying
        elif deed == "again":
            flying = one.again()
        for frame in flying if deed != "swap" else []:
            found = two.hear(frame)
            heard += [found] if found is not None else []
        flying = []
        one.hear(two.took())
    for frame in one.again():
        found = two.hear(frame)
        heard += [found] if found is not None else []
    one.hear(two.took())

    assert heard == sent
    assert not one.waits


def test_what_was_never_sent_cannot_be_taken() -> None:
    one = Session()
    one.put(b"a")
    one.hear(LinkFrame(Kind.TOOK, 0, 2**53 - 1))
    assert one.waits


# --- links ----------------------------------------------------------------------------------


class Stuck:
    """A path to a node that reads nothing any more."""

    kind: PathKind = "tcp"

    async def send(self, frame: LinkFrame) -> None:
        if frame.kind is not Kind.TOOK:
            await asyncio.Event().wait()

    async def aclose(self) -> None:
        pass


def test_a_link_ends_though_the_other_side_reads_nothing() -> None:
    async def scene() -> None:
        link = Link(bytes(16), bytes(16))
        await link.attach(Stuck())
        sending = asyncio.create_task(link.send(b"hello"))
        await asyncio.sleep(0)
        await link.aclose()
        sending.cancel()

    play(scene(), seconds=10)


def test_of_one_member_a_few_nodes_are_seen_and_of_others_theirs() -> None:
    async def scene() -> None:
        ann = Circle.new()
        bob, eve = joined(ann), joined(ann)
        here = ann.connect()

        def told(circle: Circle) -> Presence:
            node = circle.member.node(circle.epoch)
            return Presence.of(node, name="", at_ms=ann.clock_ms(), endpoints=(), abilities=())

        for number in range(20):
            made_up = SigningKey(number.to_bytes(32, "big")).verify_key
            here.believe(replace(told(eve), node=made_up), ann.epoch)
        assert here.believe(told(bob), ann.epoch)
        seen = [peer.member_id for peer in here.peers]
        assert (seen.count(eve.member.id), seen.count(bob.member.id)) == (MOST_NODES, 1)

    play(scene())


async def linked(hers: Present, his: Present) -> tuple[Link, Link]:
    await hers.sees("Bob")
    await his.sees("Ann")
    await hers.live()
    await his.live()
    (bob,) = hers.here.peers
    mine = await hers.here.link(bob)
    await his.until(lambda told: bool(his.of(events.Linked)), "the link")
    return mine, his.of(events.Linked)[0].link


def test_what_was_asked_of_a_process_before_opens_nothing_in_the_next(base: str) -> None:
    async def scene() -> None:
        ann = Circle.new(services=[address(base)])
        bob = joined(ann)
        async with present(ann, "Ann") as hers:
            async with present(bob, "Bob") as his:
                await linked(hers, his)
                (there,) = hers.here.peers
            await hers.here.signal(there.node_id, "connect", {"key": "A" * 43}, session=bytes(16))
            async with present(bob, "Bob") as again:
                await again.live()
                one = await hers.here.link(there)
                await again.until(lambda told: bool(again.of(events.Linked)), "the new link")
                links = [event.link for event in again.of(events.Linked)]
                assert [link.session_id for link in links] == [one.session_id]

    play(scene())


def test_two_nodes_talk_over_the_relay_and_the_service_reads_nothing(base: str) -> None:
    async def scene() -> None:
        ann = Circle.new(services=[address(base)])
        bob = joined(ann)
        async with present(ann, "Ann") as hers, present(bob, "Bob") as his:
            one, two = await linked(hers, his)
            assert (one.path, two.path) == ("relay", "relay")
            for number in range(40):
                await one.send(b"%d" % number)
            await two.send(b"back")
            assert [await anext(two) for _ in range(40)] == [b"%d" % n for n in range(40)]
            assert await anext(one) == b"back"
            with pytest.raises(ValueError, match="16000"):
                await one.send(bytes(16_001))
            await one.aclose()
            with pytest.raises(StopAsyncIteration):
                await asyncio.wait_for(anext(two), 10)

    play(scene())


def test_a_direct_path_takes_over_and_nothing_is_lost_or_doubled(server: local.Server) -> None:
    async def scene() -> None:
        ann = Circle.new(services=[address(server.base)])
        bob = joined(ann)
        async with present(ann, "Ann") as hers, present(bob, "Bob") as his:
            one, two = await linked(hers, his)
            sent = [os.urandom(random.choice((1, 900, 16_000))) for _ in range(300)]
            reading = asyncio.create_task(_read(two, len(sent)))
            for number, data in enumerate(sent):
                await one.send(data)
                if number == 50:
                    await his.here.listen(HERE)
                    await hers.until(
                        lambda told: any(isinstance(e, events.Changed) for e in told), "where"
                    )
                    (peer,) = hers.here.peers
                    hers.here.links._improve(one)
                    assert peer.endpoints[0].host == HERE
            assert await asyncio.wait_for(reading, 30) == sent
            assert (one.path, two.path) == ("tcp", "tcp")

    play(scene())


async def _read(link: Link, count: int) -> list[bytes]:
    return [await anext(link) for _ in range(count)]


def test_a_node_that_is_not_there_is_said(server: local.Server) -> None:
    async def scene() -> None:
        ann = Circle.new(services=[address(server.base)])
        bob = joined(ann)
        async with present(ann, "Ann") as hers:
            async with present(bob, "Bob") as his:
                await hers.sees("Bob")
                (peer,) = hers.here.peers
                await his.live()
            with pytest.raises(NoLink):
                await hers.here.link(peer)

    play(scene(), seconds=40)


# --- no service at all ------------------------------------------------------------------------


def free_port() -> int:
    with socket.socket() as found:
        found.bind((HERE, 0))
        return int(found.getsockname()[1])


def test_two_nodes_of_an_invite_with_peers_meet_and_reconcile_without_a_service() -> None:
    async def scene() -> None:
        ann, port = Circle.new(), free_port()
        bob = Circle.join(ann.invite(peers=[f"{HERE}:{port}"]))
        for number in range(200):
            ann.file.draft(bytes(16), "text", {"text": f"before {number}"})
        bob.file.draft(bytes(16), "text", {"text": "x" * 200_000})
        async with present(ann, "Ann") as hers:
            await hers.here.listen(HERE, port)
            async with present(bob, "Bob") as his:
                await his.reads("before 0", "before 199")
                await hers.reads("x" * 200_000)
                await hers.sees("Bob")
                await his.sees("Ann")
                await hers.here.say("can you hear me?")
                await his.reads("can you hear me?")
                await his.here.say("yes")
                await hers.reads("yes")
                assert len(his.texts) == len(set(his.texts))
        assert state(ann) == state(bob)

    play(scene())


def test_members_meet_by_their_last_endpoints_when_every_service_is_down(
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    async def scene(stop: Any, service: Any) -> None:
        ann = Circle.new(services=[service])
        bob = joined(ann)
        async with present(ann, "Ann") as hers, present(bob, "Bob") as his:
            await hers.here.listen(HERE)
            await his.until(
                lambda told: any(peer.endpoints for peer in his.here.peers), "where she is"
            )
            stop()
            async with asyncio.timeout(40):
                while not his.here.met:
                    await asyncio.sleep(0.05)
            await hers.here.say("the service is down")
            await his.reads("the service is down")
            assert [peer.name for peer in his.here.peers] == ["Ann"]

    with local.running(tmp_path_factory.mktemp("down")) as server:
        play(scene(server.stop, address(server.base)))


# --- who may not ------------------------------------------------------------------------------


def test_only_a_member_of_this_epoch_gets_in_and_only_as_itself() -> None:
    async def scene() -> None:
        ann = Circle.new()
        async with present(ann, "Ann") as hers:
            place = await hers.here.listen(HERE)
            strange, earlier = Circle.new(), keys.Epoch(ann.id, 7, bytes(range(32)))
            for node in (strange.member.node(strange.epoch), ann.member.node(earlier)):
                with pytest.raises((ssl.SSLError, ConnectionError, asyncio.IncompleteReadError)):
                    await _knock(place.port, node)
            bob = joined(ann)
            hello = hers.here._direct._hello(bytes(16))
            assert await _knock(place.port, bob.member.node(bob.epoch), hello.raw) == b""
            assert hers.here.met == frozenset()

    play(scene())


def test_one_address_opens_so_many_connections_and_others_still_come() -> None:
    async def scene() -> None:
        ann = Circle.new()
        bob = joined(ann)
        async with present(ann, "Ann") as hers:
            place = await hers.here.listen(HERE)
            tls = certificates.context(bob.member.node(bob.epoch), server=False, now=_now())
            idle = [
                await asyncio.open_connection(HERE, place.port, ssl=tls, server_hostname="")
                for _ in range(MOST_FROM_ONE)
            ]
            reader, writer = await asyncio.open_connection(
                HERE, place.port, ssl=tls, server_hostname=""
            )
            async with asyncio.timeout(5):
                assert await reader.read() == b""
            for _, one in idle:
                one.close()
            writer.close()
            bob.file.keep("peers", f"{HERE}:{place.port}".encode())
            async with present(bob, "Bob") as his:
                await his.sees("Ann")

    play(scene())


async def _knock(port: int, node: keys.Node, raw: bytes = b"") -> bytes:
    tls = certificates.context(node, server=False, now=_now())
    # The stranger takes whoever answers: it is the other side that must refuse.
    tls.verify_mode = ssl.CERT_NONE
    reader, writer = await asyncio.open_connection(HERE, port, ssl=tls, server_hostname="")
    try:
        writer.write(len(raw).to_bytes(4, "big") + raw)
        await writer.drain()
        return await asyncio.wait_for(reader.readexactly(1), 5)
    except asyncio.IncompleteReadError as cut:
        if raw:
            return cut.partial
        raise
    finally:
        writer.close()


def _now() -> int:
    return int(time.time())


def test_a_certificate_with_another_s_key_is_another_node() -> None:
    node = Circle.new()
    mine = node.member.node(node.epoch)
    certificate, _ = certificates.issue(mine, now=_now())
    der = ssl.PEM_cert_to_DER_cert(certificate.decode())
    assert certificates.peer_node(der) == mine.id
    assert certificates.peer_node(der) != keys.node_id(SigningKey(bytes(32)).verify_key)
