"""The beacon on both hosts, and on AWS over every engine: names, networks, capsules in time."""

import json
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest

from capsules import ticket as tickets
from capsules.keys import SigningKey
from chalicelib import tables
from chalicelib.community import press
from chalicelib.community.publisher import PublishOutcome
from chalicelib.local.publishing import FolderPublishing
from chalicelib.local.publishing_keys import KeyFolder
from tests.support import aws, local
from tests.support.circle import world
from tests.unit.test_beacon import Node

Announce = Callable[..., dict[str, Any]]
PROXY = ("--trusted-proxy", "127.0.0.1")


@pytest.fixture(params=["one machine", *(f"AWS, {engine}" for engine in aws.ENGINES)])
def announce(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Announce]:
    """Announce a ticket from an address to a host."""
    host, _, engine = request.param.partition(", ")
    if host == "AWS":
        url = request.getfixturevalue("dynalite_url") if engine == "dynalite" else ""
        with aws.running(engine, directory=tmp_path, dynalite_url=url) as gateway:
            yield lambda body, address="198.51.100.7": gateway.call(
                "POST", "/announce", body=json.dumps(body).encode(), source_ip=address
            ).json()
        assert gateway.crashes == []
        return
    with local.running(tmp_path, *PROXY) as server:
        yield lambda body, address="198.51.100.7": server.call(
            "POST", "/announce", json.dumps(body).encode(), {"X-Forwarded-For": address}
        ).json()


def ticket(number: int, peer_id: str = "", *, ttl_ms: int = 180_000) -> dict[str, Any]:
    made = tickets.create(
        SigningKey(number.to_bytes(32, "big")),
        peer_id=peer_id or f"peer-{number}",
        user_id="",
        now_ms=int(time.time() * 1000),
        nonce=bytes(12),
        ttl_ms=ttl_ms,
    )
    return dict(made.to_json())


def names(answer: dict[str, Any]) -> set[str]:
    return {peer["payload"]["peerId"] for peer in answer["peers"]}


def test_a_peer_id_is_its_first_key_s_after_its_ticket_too(announce: Announce) -> None:
    announce({"ticket": ticket(2)})
    assert announce({"ticket": ticket(1, "wanted", ttl_ms=1500)})["ok"] is True
    deadline = time.monotonic() + 20
    while "wanted" in names(announce({"ticket": ticket(2)})):
        assert time.monotonic() < deadline

    thief = announce({"ticket": ticket(9, "wanted")})

    assert (thief["ok"], thief["validation"]["reason"]) == (False, "PEER_ID_TAKEN")
    assert names(thief) == {"peer-2"}
    assert announce({"ticket": ticket(1, "wanted")})["ok"] is True


def test_an_empty_community_in_the_body_means_the_usual_one(announce: Announce) -> None:
    assert announce({"ticket": ticket(1), "community": ""})["ok"] is True
    assert names(announce({"ticket": ticket(2)})) == {"peer-1"}


def test_a_network_s_crowd_shuts_nobody_out(announce: Announce) -> None:
    for number in range(1, 121):
        announce({"ticket": ticket(1_000 + number)}, "203.0.113.9")
    for number in range(1, 21):
        announce({"ticket": ticket(number)}, f"198.18.{number}.1")

    listed = names(announce({"ticket": ticket(999)}, "192.0.2.1"))
    assert {f"peer-{number}" for number in range(1, 21)} <= listed
    assert len(listed) == 50


def test_the_one_machine_host_publishes_what_is_about_to_end(tmp_path: Path) -> None:
    here = world()
    here.clock = time.time()
    keys = KeyFolder(tmp_path / "keys")
    keys.prepare(now=here.now)
    shortly = PublishOutcome(
        community="mainnet", at=here.now - 60, sequence=here.now - 60, ends_at=here.now + 50
    )
    tables.save_outcome(here.service.stores, "mainnet", msgspec.json.encode(shortly), now=here.now)
    publishing = FolderPublishing(
        here.service, keys=keys, folder=tmp_path / "capsules", every_s=300, now=here.now
    )
    Node(1).announce(here)

    assert publishing.due(here.now)
    publishing.run()

    [outcome] = publishing.outcomes(now=here.now)
    assert (outcome.peers, outcome.failures) == (1, 0)
    assert outcome.ends_at >= here.now + 170
    assert not publishing.due(here.now + press.LOOK_S - 2)
