"""Somebody who has only docs/protocol2.md can write a client that talks to ours, and be read."""

import json
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from muster.invites import Invite, ServiceAddress
from tests.client import independent
from tests.support.local import running
from tests.support.version2 import Node, founded, opened, passing


@pytest.fixture
def base(tmp_path: Path) -> Iterator[str]:
    with running(tmp_path, "--publish-every=0") as server:
        yield server.base


def test_a_client_from_the_page_alone_joins_talks_and_reads(base: str) -> None:
    founder, epoch = founded()
    told = json.loads(passing(base)("GET", "/v2/info", {}, b"")[2])
    address = ServiceAddress(base, bytes.fromhex(told["service_id"]))
    code = Invite(founder, epoch, (address,)).code
    ann, bob = independent.Member(code, "Ann"), independent.Member(code, "Bob")
    ours = Node(epoch, passing(base), lambda: int(time.time() * 1000))

    assert ann.arrive()["refused"] == {}
    assert bob.arrive()["refused"] == {}
    ours.sync(presence={"sealed": ours.presence("Ours")})
    ann.say("dinner at eight?")
    ann.say("\u00fcber alles \U0001f35c")

    assert ann.hint == epoch.hint
    people, texts = bob.read()
    assert sorted(people) == ["Ann", "Ours"]
    assert texts == ["dinner at eight?", "\u00fcber alles \U0001f35c"]
    assert bob.read()[1] == []
    found = ours.sync(want={"peers": True, "messages": 9})
    assert sorted(ours.names(found)) == ["Ann", "Bob"]
    assert ours.texts(found) == texts


def test_it_passes_a_frame_to_a_node_of_ours_and_takes_one(base: str) -> None:
    founder, epoch = founded()
    told = json.loads(passing(base)("GET", "/v2/info", {}, b"")[2])
    address = ServiceAddress(base, bytes.fromhex(told["service_id"]))
    ann = independent.Member(Invite(founder, epoch, (address,)).code, "Ann")
    ours = Node(epoch, passing(base), lambda: int(time.time() * 1000))

    with opened(ours, base) as socket, ann.open() as hers:
        hers.send(json.dumps({"t": "FRAME", "n": 1, "to": ours.id, "payload": "AAAA"}))
        heard = socket.hear()
        assert (heard["from"], heard["payload"]) == (ann.node_id.hex(), "AAAA")
        assert json.loads(hers.recv(timeout=20)) == {"t": "TAKEN", "n": 1}
        socket.say(t="FRAME", n=2, to=heard["from"], payload="BBBB")
        assert json.loads(hers.recv(timeout=20))["payload"] == "BBBB"


def test_it_is_short_and_imports_nothing_of_ours() -> None:
    lines = Path(independent.__file__).read_text().splitlines()
    imports = [line.split()[1] for line in lines if line.startswith(("import ", "from "))]

    assert len(lines) <= 150
    assert not {name.partition(".")[0] for name in imports} & {"muster", "capsules", "tests"}
