"""Bootstrapping: what programs get, from whom, how soon, and what is remembered."""

from __future__ import annotations

import asyncio
import base64
import json
from collections.abc import Mapping
from contextlib import AsyncExitStack, aclosing
from dataclasses import replace
from pathlib import Path
from typing import Any

import httpx2
import pytest

from capsules import trust
from muster.bootstrap import Found, Peer, bootstrap, discover, sources
from muster.bootstrap.cache import Cache, Damaged, Known, merged
from muster.bootstrap.gathering import MAX_PEERS, Gathering
from muster.bootstrap.sources import Kind, Source
from tests.support.community import COMMUNITY, Community, key, made
from tools import loopback
from tools.loopback import Answer, Place, lists, publishes, says, status

WAY = f"/capsules/{COMMUNITY}/peers.json"


@pytest.fixture
def us() -> Community:
    return Community()


def names(found: Found) -> list[str]:
    return [peer.peer_id for peer in found.peers]


async def start(
    us: Community, *places: Mapping[str, Answer], beacons: int = 0, **options: Any
) -> Found:
    """Bootstrap from capsule hosts; the last *beacons* places are beacons."""
    async with AsyncExitStack() as stack:
        opened = [await stack.enter_async_context(Place(answers)) for answers in places]
        hosts, listing = opened[: len(opened) - beacons], opened[len(opened) - beacons :]
        return await bootstrap(
            *(us.url(host.url) for host in hosts),
            beacons=[beacon.url for beacon in listing],
            **{"linger_s": None, "rim": us.rim, **options},
        )


# --- three lines --------------------------------------------------------------


def test_the_three_lines_of_the_documentation(us: Community) -> None:
    async def program(url: str) -> list[str]:
        said = []
        found = await bootstrap(url)
        for peer in found.peers:
            said.append(peer.peer_id)
        return said

    async def scene() -> list[str]:
        async with Place(publishes(us.publish("a", "b"))) as host:
            return await program(us.url(host.url))

    assert sorted(asyncio.run(scene())) == ["a", "b"]


def test_peers_of_all_sources_are_merged_and_each_says_where_it_came_from(us: Community) -> None:
    longer = us.ticket("both", ttl_s=600)
    found = asyncio.run(
        start(
            us, publishes(us.publish("capsule", "both")), lists(longer, us.ticket("b")), beacons=1
        )
    )

    known = {peer.peer_id: peer for peer in found.peers}
    assert set(known) == {"capsule", "both", "b"}
    assert [source.split()[0] for source in known["both"].sources] in (
        ["capsule", "beacon"],
        ["beacon", "capsule"],
    )
    assert known["both"].ticket == longer
    assert known["both"].vouched
    assert not known["b"].vouched
    assert names(found)[-1] == "b"  # whom a capsule vouches for comes first
    assert found.community == COMMUNITY


def test_our_own_name_is_left_out(us: Community) -> None:
    own = us.ticket("me")
    listed = lists(own, us.ticket("b"))
    for options in ({"peer_id": "me"}, {"ticket": own}):
        assert names(asyncio.run(start(us, listed, beacons=1, **options))) == ["b"]


def test_peers_come_as_they_are_found_and_one_may_break_off(us: Community) -> None:
    async def scene() -> tuple[list[str], float]:
        loop = asyncio.get_running_loop()
        async with Place(publishes(us.publish("a"))) as host, Place({}) as hanging:
            hanging.answers = {"/peers": loopback.hangs}
            begun = loop.time()
            seen = []
            async with aclosing(
                discover(us.url(host.url), beacons=[hanging.url], rim=us.rim)
            ) as peers:
                async for peer in peers:
                    seen.append(peer.peer_id)
                    break
            return seen, loop.time() - begun

    seen, took_s = asyncio.run(scene())
    assert seen == ["a"]
    assert took_s < 3


def test_discovering_ends_when_every_source_has_answered(us: Community) -> None:
    async def scene() -> list[str]:
        async with Place(publishes(us.publish("a"))) as host, Place(lists(us.ticket("b"))) as far:
            return [
                peer.peer_id
                async for peer in discover(us.url(host.url), beacons=[far.url], rim=us.rim)
            ]

    assert sorted(asyncio.run(scene())) == ["a", "b"]


def test_a_hanging_source_delays_nobody(us: Community) -> None:
    found = asyncio.run(
        start(
            us,
            publishes(us.publish("a")),
            {"/peers": loopback.hangs},
            beacons=1,
            linger_s=0.2,
            deadline_s=20,
        )
    )
    assert names(found) == ["a"]
    assert found.took_ms < 5000
    late = next(outcome for outcome in found.sources if outcome.source.kind == Kind.BEACON)
    assert late.reason == "TIMEOUT"
    assert "not waited for" in late.message


def test_nothing_to_ask_finds_nothing() -> None:
    found = asyncio.run(bootstrap())
    assert found.peers == ()
    assert found.sources == ()
    assert found.first_peer_ms is None
    assert found.to_json()["ok"] is False


def test_what_was_found_can_be_printed(us: Community) -> None:
    stale = us.ticket("past", now=us.now - 3600)
    found = asyncio.run(start(us, publishes(us.publish("a")), lists(stale), {}, beacons=2))
    told = json.loads(json.dumps(found.to_json()))
    assert told["ok"]
    assert told["peers"][0]["peer_id"] == "a"
    capsule, beacon, gone = told["sources"]
    assert capsule["sequence"] == us.now
    assert beacon["skipped"] == {"EXPIRED": 1}
    assert gone["reason"] == "UNREACHABLE"


def test_a_transport_of_ones_own(us: Community) -> None:
    files = us.publish("a")

    def answer(request: httpx2.Request) -> httpx2.Response:
        manifest = request.url.path.endswith(".manifest")
        raw = files.manifest if manifest else files.capsule
        return httpx2.Response(200, stream=httpx2.ByteStream(raw))

    found = asyncio.run(
        bootstrap(
            us.url("https://muster.example"),
            transport=httpx2.MockTransport(answer),
            rim=us.rim,
        )
    )
    assert names(found) == ["a"]


# --- announcing ---------------------------------------------------------------


def test_a_ticket_is_left_at_every_beacon_also_at_those_a_manifest_names(us: Community) -> None:
    async def scene() -> tuple[Found, Place, Place]:
        named, found_out, host = Place(lists(us.ticket("b"))), Place(lists()), Place()
        async with named, found_out, host:
            host.answers = publishes(us.publish("a", beacons=[found_out.url]))
            found = await bootstrap(
                us.url(host.url),
                beacons=[named.url],
                ticket=us.ticket("me"),
                linger_s=None,
                rim=us.rim,
            )
        return found, named, found_out

    found, *beacons = asyncio.run(scene())
    assert set(names(found)) == {"a", "b"}
    for beacon in beacons:
        (asked,) = beacon.asked
        assert (asked.method, asked.path) == ("POST", "/announce")
        assert asked.query == {"community": [COMMUNITY]}
        assert json.loads(asked.body)["ticket"]["payload"]["peerId"] == "me"
    announced = [o.announced for o in found.sources if o.source.kind == Kind.BEACON]
    assert announced == [True, True]


def test_who_is_not_taken_may_still_ask(us: Community) -> None:
    refusing = lists(us.ticket("b"), announced=False, reason="PEER_ID_TAKEN")
    found = asyncio.run(start(us, refusing, beacons=1, ticket=us.ticket("me")))

    assert names(found) == ["b"]
    (outcome,) = found.sources
    assert outcome.ok
    assert outcome.announced is False
    assert outcome.not_announced == "PEER_ID_TAKEN"


def test_a_beacon_that_asks_for_patience_is_not_asked_again(us: Community) -> None:
    busy = {"/announce": status(429, retry_after="7"), "/peers": status(503, retry_after="9")}
    found = asyncio.run(start(us, busy, beacons=1, ticket=us.ticket("me")))
    assert found.sources[0].retry_after_s == 7
    assert "429" in found.sources[0].not_announced
    found = asyncio.run(start(us, busy, beacons=1))
    assert found.sources[0].retry_after_s == 9


def test_a_source_that_fails_at_once_is_asked_once_more(us: Community) -> None:
    listed = lists(us.ticket("b"))["/peers"]
    flaky = {"/peers": loopback.in_turn(loopback.page(502), listed)}
    assert names(asyncio.run(start(us, flaky, beacons=1))) == ["b"]


# --- rotation -----------------------------------------------------------------


def test_a_client_that_knows_the_first_root_follows_two_rotations_and_a_new_online_key(
    us: Community, tmp_path: Path
) -> None:
    first, second, third = key("root 1"), key("root 2"), key("root 3")

    async def meet(now: Community) -> Found:
        async with Place(publishes(now.publish("a"))) as host:
            return await bootstrap(
                us.url(host.url, first=first), cache=tmp_path, linger_s=None, rim=now.rim
            )

    steps = [
        us,
        replace(us, now=us.now + 1, roots=(first, second)),
        replace(us, now=us.now + 2, roots=(first, second, third)),
        replace(us, now=us.now + 3, roots=(first, second, third), online=key("online 2")),
    ]
    for step in steps:
        found = asyncio.run(meet(step))
        assert [o.reason for o in found.sources] == ["", ""], step
    state = Cache(tmp_path).state(first.verify_key)
    assert state is not None
    assert (state.root.version, state.root.verify_key) == (3, third.verify_key)

    # Whoever stole the first root key now has nothing, and a revoked key has less.
    old = asyncio.run(meet(replace(us, now=us.now + 4)))
    assert old.sources[1].reason == "CERTIFICATE_INVALID"
    gone = replace(steps[3], now=us.now + 5, online=key("online 3"), revoked=(key("online 2"),))
    assert asyncio.run(meet(gone)).sources[1].ok
    met = asyncio.run(meet(replace(steps[3], now=us.now + 6)))
    assert met.sources[1].reason == "REVOKED_KEY"


def test_a_client_that_was_away_follows_all_of_it_at_once(us: Community) -> None:
    roots = (key("root 1"), key("root 2"), key("root 3"))
    later = replace(us, roots=roots, online=key("online 2"))
    found = asyncio.run(start(later, publishes(later.publish("a"))))
    assert names(found) == ["a"]


# --- pinned capsules of existing tools ----------------------------------------


def test_a_capsule_without_manifest_is_believed_by_its_own_key(us: Community) -> None:
    async def scene(**options: Any) -> Found:
        async with Place({"/peers.json": says(us.pinned("a"))}) as host:
            return await bootstrap(us.pinned_url(host.url), linger_s=None, rim=us.rim, **options)

    found = asyncio.run(scene())
    assert names(found) == ["a"]
    assert found.peers[0].vouched
    assert asyncio.run(scene(community="other")).sources[0].reason == "WRONG_COMMUNITY"


# --- the cache ----------------------------------------------------------------


def test_who_was_there_is_there_again_at_once(us: Community, tmp_path: Path) -> None:
    folder = tmp_path / "deep" / "cache"
    asyncio.run(start(us, publishes(us.publish("a")), cache=folder))

    found = asyncio.run(start(us, {}, cache=folder))
    assert names(found) == ["a"]
    assert found.peers[0].sources == (f"cache {folder}",)
    later = replace(us, now=us.now + 3600)
    assert names(asyncio.run(start(later, {}, cache=folder))) == []
    assert found.sources[0].source.kind == Kind.CACHE
    modes = {path.stat().st_mode & 0o777 for path in folder.iterdir()}
    assert modes == {0o600}
    assert folder.stat().st_mode & 0o777 == 0o700


def test_the_cache_leads_to_places_that_a_manifest_named(us: Community, tmp_path: Path) -> None:
    async def scene() -> Found:
        async with Place(lists(us.ticket("b"))) as beacon, Place() as host:
            host.answers = publishes(us.publish(us.ticket("a", ttl_s=60), beacons=[beacon.url]))
            await bootstrap(us.url(host.url), cache=tmp_path, linger_s=None, rim=us.rim)
            host.answers = {}
            later = replace(us, now=us.now + 120)
            beacon.answers = lists(later.ticket("c"))
            return await bootstrap(us.url(host.url), cache=tmp_path, linger_s=None, rim=later.rim)

    found = asyncio.run(scene())
    assert "c" in names(found)
    assert any(o.source.learned and o.ok for o in found.sources)


def test_places_of_a_root_that_nobody_named_are_not_asked(us: Community, tmp_path: Path) -> None:
    place = Source(Kind.BEACON, "http://127.0.0.1:9", key("other").verify_key, learned=True)
    Cache(tmp_path).keep_known(COMMUNITY, Known(places=(place,)))
    found = asyncio.run(start(us, publishes(us.publish("a")), cache=tmp_path))
    assert [outcome.source.kind for outcome in found.sources] == ["cache", "capsule"]


@pytest.mark.parametrize(
    "damage",
    [
        "",
        "{",
        "[]",
        '{"version": 2}',
        "\x00",
        '{"version": 1, "tickets": [], "places": [{"kind": "x"}]}',
        '{"version": 1, "tickets": [1], "places": []}',
    ],
)
def test_a_damaged_cache_is_passed_over_and_said(
    us: Community, tmp_path: Path, damage: str
) -> None:
    asyncio.run(start(us, publishes(us.publish("a")), cache=tmp_path))
    for path in tmp_path.iterdir():
        path.write_text(damage)

    found = asyncio.run(start(us, publishes(us.publish("b")), cache=tmp_path))

    assert names(found) == ["b"]
    cache = found.sources[0]
    assert cache.reason == "MALFORMED"
    assert "trust-" in cache.message
    assert "known-" in cache.message
    assert asyncio.run(start(us, {}, cache=tmp_path)).sources[0].ok  # it was written anew


def test_a_cache_that_cannot_be_kept_is_said_and_nothing_else_fails(
    us: Community, tmp_path: Path
) -> None:
    (tmp_path / "file").write_text("")
    found = asyncio.run(start(us, publishes(us.publish("a")), cache=tmp_path / "file" / "cache"))
    assert names(found) == ["a"]
    assert not found.sources[0].ok


def test_a_cache_that_is_too_large_or_no_file(tmp_path: Path) -> None:
    cache = Cache(tmp_path)
    root = key("root 1").verify_key
    path = tmp_path / f"trust-{root.key_id}.json"
    path.write_bytes(b" " * (4 * 1024 * 1024 + 1))
    with pytest.raises(Damaged, match="more than"):
        cache.state(root)
    path.unlink()
    path.mkdir()
    with pytest.raises(Damaged, match="cannot be read"):
        cache.state(root)


def test_two_programs_with_one_cache_forget_nothing(us: Community, tmp_path: Path) -> None:
    root = us.roots[0].verify_key
    old = trust.expect(
        trust.begin(root), us.publish("a").manifest, community=COMMUNITY, now=us.now
    ).state
    later = replace(us, now=us.now + 9, revoked=(key("mallory"),))
    new = trust.expect(
        trust.begin(root), later.publish("a").manifest, community=COMMUNITY, now=later.now
    ).state

    assert merged(old, new) == merged(new, old) == new
    cache = Cache(tmp_path)
    cache.keep_state(root, new)
    assert cache.keep_state(root, old) == new
    assert cache.state(root) == new
    gone = replace(new, revocations=9, revoked=frozenset({us.online.verify_key.to_base64()}))
    assert merged(new, gone).memories == ()


def test_a_node_keeps_its_key(tmp_path: Path) -> None:
    cache = Cache(tmp_path / "cache")
    first = cache.signing_key(lambda size: b"1" * size)
    assert cache.signing_key(lambda size: b"2" * size) == first
    (tmp_path / "cache" / "node.json").write_text('{"signing_key": "?"}')
    with pytest.raises(Damaged, match="no signing key"):
        cache.signing_key(lambda size: b"3" * size)


# --- gathering ----------------------------------------------------------------


def test_who_was_heard_of_last_comes_first_among_equals() -> None:
    gathering = Gathering()
    for age, name in enumerate("abc"):
        gathering.add(made(name, now=1000 - age), ["x"])
    gathering.add(made("z", now=900), ["x"], vouched=True)
    assert [peer.peer_id for peer in gathering.peers(now_ms=1_000_000)] == ["z", "a", "b", "c"]
    assert gathering.peers(now_ms=9_000_000_000) == ()
    gathering.prune(now_ms=9_000_000_000)
    assert gathering.peers(now_ms=1_000_000) == ()


def test_a_longer_life_wins_and_a_flood_of_names_ends() -> None:
    gathering = Gathering()
    assert gathering.add(made("a", now=1000), ["one"]) is not None
    assert gathering.add(made("a", now=1000, ttl_s=300), ["two"]) is None
    (peer,) = gathering.peers(now_ms=1_000_000)
    assert peer.expires_at == 1300
    assert peer.sources == ("one", "two")
    thief = made("a", now=1000, ttl_s=500, signer=key("thief"))
    gathering.add(thief, ["three"])  # nobody vouches for either
    assert gathering.peers(now_ms=1_000_000)[0].ticket == thief
    gathering.add(made("a", now=1000), ["four"])
    assert gathering.peers(now_ms=1_000_000)[0].ticket == thief

    for number in range(MAX_PEERS):
        last = gathering.add(made(f"n{number}", now=1000, signer=key("flood")), ["x"])
    assert last is None
    assert len(gathering.peers(now_ms=1_000_000)) == MAX_PEERS


# --- what is asked ------------------------------------------------------------


def test_a_source_is_read_from_a_url_and_a_key() -> None:
    wanted = key("root 1").verify_key
    standard = base64.b64encode(wanted.raw).decode()
    for text in (sources.fragment(wanted), standard, f"root={standard}", standard.rstrip("=")):
        read = sources.capsule(f"https://a.example/capsules/town/peers.json#{text}")
        assert read.key == wanted
        assert not read.pinned
        assert sources.folder(read) == "town"
    pinned = sources.capsule(f"http://a.example/x?y=z#capsule={standard}")
    assert pinned.pinned
    assert sources.folder(pinned) is None
    assert sources.beside(pinned.url, ".manifest") == "http://a.example/x.manifest?y=z"
    assert str(sources.beacon("https://a.example/b/ ")) == "beacon https://a.example/b"


@pytest.mark.parametrize(
    ("text", "says_what"),
    [
        ("https://a.example/peers.json", "needs the key"),
        ("https://a.example/peers.json#short", "is not a key"),
        ("ftp://a.example/#x", "is not a URL"),
        ("https://[/#x", "is not a URL"),
        ("https://a.example:x/#y", "is not a URL"),
        ("https://user@a.example/#y", "no place"),
    ],
)
def test_a_source_that_cannot_be_read(text: str, says_what: str) -> None:
    with pytest.raises(ValueError, match=says_what):
        sources.capsule(text)
    with pytest.raises(ValueError, match=says_what):
        asyncio.run(bootstrap(text))


def test_a_beacon_has_no_fragment() -> None:
    for text in ("https://a.example/?x", "https://a.example/#x"):
        with pytest.raises(ValueError, match="not a beacon"):
            sources.beacon(text)


def test_the_community_is_the_folder_or_as_named(us: Community) -> None:
    async def asked(*urls: str, **options: Any) -> str:
        return (await bootstrap(*urls, deadline_s=1, **options)).community

    gone = loopback.nobody()
    named = us.url(gone).replace(COMMUNITY, "town")
    assert asyncio.run(asked(named)) == "town"
    assert asyncio.run(asked(named, community="city")) == "city"
    assert asyncio.run(asked(beacons=[gone])) == "mainnet"


def test_rules_of_ones_own(us: Community) -> None:
    from capsules.ticket import Rules

    only = Rules(trusted=frozenset({key("a").verify_key.to_base64()}))
    found = asyncio.run(start(us, lists(us.ticket("a"), us.ticket("b")), beacons=1, rules=only))
    assert names(found) == ["a"]
    assert found.sources[0].skipped == {"UNTRUSTED_PUBLIC_KEY": 1}
    assert isinstance(found.peers[0], Peer)
