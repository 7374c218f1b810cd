"""Every attack of the TUF specification's list, and worse manners, against a real client.

Real servers on loopback attack one source of a client that has another, honest one. The
attack must have its name in the outcome, and the honest source must still serve. The same
attacks run against `web/muster/bootstrap` in tests/golden/fetch.test.mjs.
"""

from __future__ import annotations

import asyncio
import gzip
import json
import tracemalloc
from collections.abc import Mapping
from contextlib import AsyncExitStack
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from capsules import capsule
from capsules.envelope import Purpose, seal
from capsules.manifest import Files
from muster.bootstrap import Attempt, Found, bootstrap
from tests.support.community import COMMUNITY, DAY, Community, key
from tools import loopback
from tools.loopback import Answer, Place, lists, publishes, says

WAY = f"/capsules/{COMMUNITY}/peers.json"
MANIFEST = f"{WAY}.manifest"
DEADLINE_S = 1.5

Answers = Mapping[str, Answer]


@pytest.fixture
def us() -> Community:
    return Community()


async def meet(
    us: Community, answers: Answers, *, beacon: bool = False, **options: Any
) -> tuple[Found, Attempt]:
    """Ask an attacker and an honest beacon; return all, and what came of the attacker."""
    async with AsyncExitStack() as stack:
        honest = await stack.enter_async_context(Place(lists(us.ticket("honest"))))
        attacker = await stack.enter_async_context(Place(answers))
        capsules = () if beacon else (us.url(attacker.url),)
        beacons = [honest.url, *([attacker.url] if beacon else [])]
        options = {"deadline_s": DEADLINE_S, "linger_s": None, "rim": us.rim, **options}
        found = await bootstrap(*capsules, beacons=beacons, **options)
    outcome = next(o for o in found.sources if o.source.url.startswith(attacker.url))
    return found, outcome


def refused(us: Community, answers: Answers, reason: str, **options: Any) -> Attempt:
    """Attack; the attacker is refused by name, and the honest source serves at once."""
    found, outcome = asyncio.run(meet(us, answers, **options))
    assert outcome.reason == reason, outcome
    assert outcome.message
    assert [peer.peer_id for peer in found.peers] == ["honest"]
    assert found.first_peer_ms is not None
    assert found.first_peer_ms < DEADLINE_S * 1000
    return outcome


def resealed(files: Files, us: Community, **members: Any) -> Files:
    """Sign another manifest for the same files, as a thief of the online key could."""
    data = json.loads(files.manifest)
    payload = {**data["manifest"]["payload"], **members}
    data["manifest"] = seal(Purpose.MANIFEST, payload, us.online)
    return files._replace(manifest=capsule.pretty(data))


# --- arbitrary content --------------------------------------------------------


def test_arbitrary_content_a_capsule_signed_by_somebody_else(us: Community) -> None:
    stranger = replace(us, roots=(key("mallory"),), online=key("mallory online"))
    refused(us, publishes(stranger.publish("victim")), "ROOT_CHAIN_BROKEN")


def test_arbitrary_content_a_certificate_that_the_root_did_not_sign(us: Community) -> None:
    data = json.loads(us.publish("victim").manifest)
    data["certificate"] = json.loads(
        replace(us, roots=(key("mallory"),)).publish("victim").manifest
    )["certificate"]
    files = us.publish("victim")._replace(manifest=capsule.pretty(data))
    refused(us, publishes(files), "CERTIFICATE_INVALID")


def test_arbitrary_content_a_changed_manifest(us: Community) -> None:
    files = us.publish("victim")
    data = json.loads(files.manifest)
    data["manifest"]["payload"]["beacons"] = ["https://evil.example"]
    refused(us, publishes(files._replace(manifest=capsule.pretty(data))), "SIGNATURE_INVALID")


@pytest.mark.parametrize("raw", [b"", b"{}", b"[]", b"\xff\xfe", b"[" * 5000, b"null"])
def test_arbitrary_content_that_is_no_manifest(us: Community, raw: bytes) -> None:
    refused(us, {MANIFEST: says(raw)}, "MALFORMED")


def test_arbitrary_content_a_page(us: Community) -> None:
    refused(us, {MANIFEST: loopback.page()}, "MALFORMED")
    refused(us, {"/peers": loopback.page()}, "MALFORMED", beacon=True)


# --- endless data -------------------------------------------------------------


def test_endless_data_a_manifest_and_a_list_without_end(us: Community) -> None:
    refused(us, {MANIFEST: loopback.never_ends}, "TOO_LARGE")
    refused(us, {"/peers": loopback.never_ends}, "TOO_LARGE", beacon=True)


def test_endless_data_a_capsule_longer_than_its_manifest_says(us: Community) -> None:
    answers = publishes(us.publish("victim")) | {WAY: loopback.never_ends}
    refused(us, answers, "TOO_LARGE")


def test_endless_data_a_length_that_is_too_large_is_not_read(us: Community) -> None:
    answers = {MANIFEST: loopback.status(200, content_length=str(10**18))}
    refused(us, answers, "TOO_LARGE")


def test_endless_data_a_gzip_bomb_is_never_unpacked(us: Community) -> None:
    bomb = says(loopback.BOMB, content_encoding="gzip")
    refused(us, {MANIFEST: bomb}, "TOO_LARGE")
    tracemalloc.start()
    try:
        refused(us, {"/peers": bomb}, "TOO_LARGE", beacon=True)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 16 << 20  # of 64 MiB


def test_what_is_packed_and_small_is_unpacked(us: Community) -> None:
    files = us.publish("victim")
    packed = {
        path: says(gzip.compress(raw), content_encoding="gzip")
        for path, raw in ((WAY, files.capsule), (MANIFEST, files.manifest))
    }
    found, outcome = asyncio.run(meet(us, packed))
    assert outcome.ok
    assert {peer.peer_id for peer in found.peers} == {"victim", "honest"}


@pytest.mark.parametrize("coding", ["br", "zstd", "gzip, gzip"])
def test_what_is_packed_in_a_way_nobody_asked_for(us: Community, coding: str) -> None:
    refused(us, {MANIFEST: says(b"x", content_encoding=coding)}, "UNREACHABLE")


def test_what_only_claims_to_be_packed(us: Community) -> None:
    refused(us, {MANIFEST: says(b"{}", content_encoding="gzip")}, "UNREACHABLE")
    cut = gzip.compress(b"x" * 1000)[:-9]
    refused(us, {MANIFEST: says(cut, content_encoding="gzip")}, "UNREACHABLE")


def test_endless_data_a_capsule_of_a_million_entries(us: Community) -> None:
    million = b'{"version":1,"algorithm":"ed25519","issuedAt":1,"expiresAt":2,"peers":['
    million += b",".join([b"{}"] * 1_000_000) + b'],"signature":""}'

    async def scene() -> Found:
        answers = {"/peers.json": says(million)}
        async with Place(answers) as attacker, Place(lists(us.ticket("honest"))) as honest:
            return await bootstrap(
                us.pinned_url(attacker.url), beacons=[honest.url], linger_s=None, rim=us.rim
            )

    found = asyncio.run(scene())
    assert found.sources[0].reason == "TOO_LARGE"
    assert [peer.peer_id for peer in found.peers] == ["honest"]


def test_endless_data_more_entries_than_anybody_reads(us: Community) -> None:
    crowd = json.dumps({"ok": True, "peers": [{}] * 1001}).encode()
    refused(us, {"/peers": says(crowd)}, "TOO_MANY_ENTRIES", beacon=True)


# --- slow retrieval -----------------------------------------------------------


@pytest.mark.parametrize(
    "answer",
    [loopback.hangs, loopback.drips(), loopback.drips(head=True)],
    ids=["hangs", "drips", "drips headers"],
)
@pytest.mark.parametrize("beacon", [True, False])
def test_slow_retrieval_is_cut_by_the_deadline(us: Community, answer: Answer, beacon: bool) -> None:
    answers = {"/peers" if beacon else MANIFEST: answer}
    found, outcome = asyncio.run(meet(us, answers, beacon=beacon, deadline_s=1.0))

    assert outcome.reason == "TIMEOUT"
    assert 950 < outcome.took_ms < 3000
    assert [peer.peer_id for peer in found.peers] == ["honest"]
    assert (found.first_peer_ms or 9e9) < 950


def test_slow_retrieval_after_the_manifest(us: Community) -> None:
    refused(us, publishes(us.publish("victim")) | {WAY: loopback.hangs}, "TIMEOUT", deadline_s=0.5)


def test_a_body_that_breaks_off(us: Community) -> None:
    refused(us, {MANIFEST: loopback.breaks_off}, "UNREACHABLE")


# --- freeze, rollback, fast-forward -------------------------------------------


def test_freeze_an_old_capsule_shown_for_ever(us: Community) -> None:
    old = replace(us, now=us.now - DAY)
    outcome = refused(us, publishes(old.publish("victim")), "FROZEN")
    assert "past its time" in outcome.message


def test_freeze_is_noticed_before_it_is_refused(us: Community) -> None:
    earlier = replace(us, now=us.now - 1000)
    victim = us.ticket("victim", ttl_s=3600)
    found, outcome = asyncio.run(meet(us, publishes(earlier.publish(victim))))
    assert outcome.ok
    assert not outcome.fresh
    assert len(found.peers) == 2


def test_rollback_of_what_was_seen_before(us: Community, tmp_path: Path) -> None:
    old = replace(us, now=us.now - 300).publish("victim")
    found, outcome = asyncio.run(meet(us, publishes(us.publish("new")), cache=tmp_path))
    assert outcome.ok

    found, outcome = asyncio.run(meet(us, publishes(old), cache=tmp_path))

    assert outcome.reason == "ROLLBACK"
    assert {peer.peer_id for peer in found.peers} == {"honest", "new"}  # "new" from the cache


def test_rollback_of_another_word_under_the_same_number(us: Community, tmp_path: Path) -> None:
    asyncio.run(meet(us, publishes(us.publish("one")), cache=tmp_path))
    _, outcome = asyncio.run(meet(us, publishes(us.publish("two")), cache=tmp_path))
    assert outcome.reason == "EQUIVOCATION"


def test_fast_forward_by_a_thief(us: Community) -> None:
    thief = resealed(us.publish("victim"), us, sequence=2**53 - 1)
    refused(us, publishes(thief), "FAST_FORWARD")
    future = replace(us, now=us.now + 3600)
    refused(us, publishes(future.publish()), "NOT_YET_VALID")


# --- mix-and-match, wrong target ----------------------------------------------


def test_mix_and_match_of_two_publications(us: Community) -> None:
    one, two = us.publish("one-"), us.publish("two-")
    assert len(one.capsule) == len(two.capsule)
    refused(us, publishes(one._replace(capsule=two.capsule)), "HASH_MISMATCH")
    refused(us, publishes(one._replace(capsule=one.capsule[:-1])), "LENGTH_MISMATCH")


def test_a_publisher_that_writes_between_our_two_reads_is_no_attacker(us: Community) -> None:
    old, new = replace(us, now=us.now - 10).publish("old"), us.publish("new")
    racing = publishes(new) | {
        MANIFEST: loopback.in_turn(*[says(old.manifest)] * 2, says(new.manifest))
    }
    found, outcome = asyncio.run(meet(us, racing))
    assert outcome.ok
    assert {peer.peer_id for peer in found.peers} == {"new", "honest"}


def test_a_capsule_of_another_community(us: Community) -> None:
    refused(us, publishes(us.publish("victim", community="testnet")), "WRONG_COMMUNITY")
    narrow = replace(us, certificate={"communities": ["testnet"]})
    refused(us, publishes(narrow.publish("victim")), "WRONG_COMMUNITY")


# --- keys ---------------------------------------------------------------------


def test_key_compromise_a_revoked_publisher_is_refused_for_good(
    us: Community, tmp_path: Path
) -> None:
    stolen = us.publish("victim")
    after = replace(us, online=key("online 2"), revoked=(us.online,))
    _, outcome = asyncio.run(meet(us, publishes(after.publish("new")), cache=tmp_path))
    assert outcome.ok

    found, outcome = asyncio.run(meet(us, publishes(stolen), cache=tmp_path))

    assert outcome.reason == "REVOKED_KEY"
    assert "victim" not in {peer.peer_id for peer in found.peers}


def test_key_compromise_a_revocation_cannot_be_hidden_by_spoiling_the_rest(
    us: Community, tmp_path: Path
) -> None:
    after = replace(us, online=key("online 2"), revoked=(us.online,)).publish("new")
    spoiled = publishes(after._replace(capsule=after.capsule.replace(b"new", b"old")))
    _, outcome = asyncio.run(meet(us, spoiled, cache=tmp_path))
    assert outcome.reason == "HASH_MISMATCH"

    _, outcome = asyncio.run(meet(us, publishes(us.publish("victim")), cache=tmp_path))

    assert outcome.reason == "REVOKED_KEY"


def test_key_compromise_a_revoked_ticket_key_is_believed_nowhere(us: Community) -> None:
    after = replace(us, revoked=(key("mallory"),))
    answers = publishes(after.publish("mallory", "victim"))

    async def scene() -> Found:
        async with Place(answers) as host, Place(lists(us.ticket("mallory"))) as beacon:
            return await bootstrap(
                us.url(host.url), beacons=[beacon.url], linger_s=None, rim=us.rim
            )

    assert [peer.peer_id for peer in asyncio.run(scene()).peers] == ["victim"]


def test_key_compromise_a_pinned_key_that_a_root_has_revoked(us: Community, tmp_path: Path) -> None:
    after = replace(us, online=key("online 2"), revoked=(us.online,))

    async def scene() -> Found:
        answers = publishes(after.publish("new")) | {"/peers.json": says(us.pinned("victim"))}
        async with Place(answers) as host:
            await bootstrap(us.url(host.url), cache=tmp_path, rim=us.rim)
            return await bootstrap(
                us.url(host.url),
                us.pinned_url(host.url),
                cache=tmp_path,
                linger_s=None,
                rim=us.rim,
            )

    found = asyncio.run(scene())
    reasons = {o.source.url.rpartition("/")[2]: o.reason for o in found.sources if o.source.pinned}
    assert reasons == {"peers.json": "REVOKED_KEY"}
    assert [peer.peer_id for peer in found.peers] == ["new"]


def test_an_expired_certificate(us: Community) -> None:
    late = replace(us, certificate={"not_before": us.now - 9 * DAY, "expires_at": us.now - 1})
    refused(us, publishes(late.publish("victim")), "CERTIFICATE_EXPIRED")
    early = replace(us, certificate={"not_before": us.now + DAY})
    refused(us, publishes(early.publish("victim")), "CERTIFICATE_NOT_YET_VALID")


# --- malicious mirrors and beacons --------------------------------------------


def test_malicious_mirrors_block_no_other(us: Community) -> None:
    """Seven mirrors misbehave in every way at once, and the eighth serves within moments."""
    wicked: list[Answers] = [
        {MANIFEST: loopback.hangs},
        {MANIFEST: loopback.drips()},
        {MANIFEST: loopback.never_ends},
        {MANIFEST: says(loopback.BOMB, content_encoding="gzip")},
        {MANIFEST: loopback.page(503)},
        {MANIFEST: loopback.redirects(MANIFEST)},
        publishes(replace(us, now=us.now - DAY).publish("victim")),
    ]

    async def scene() -> Found:
        async with AsyncExitStack() as stack:
            places = [await stack.enter_async_context(Place(answers)) for answers in wicked]
            honest = await stack.enter_async_context(Place(publishes(us.publish("good"))))
            return await bootstrap(
                *(us.url(place.url) for place in (*places, honest)),
                deadline_s=DEADLINE_S,
                linger_s=None,
                rim=us.rim,
            )

    found = asyncio.run(scene())

    assert [peer.peer_id for peer in found.peers] == ["good"]
    assert (found.first_peer_ms or 9e9) < DEADLINE_S * 1000
    assert sorted(outcome.reason for outcome in found.sources) == [
        "",
        "FROZEN",
        "TIMEOUT",
        "TIMEOUT",
        "TOO_LARGE",
        "TOO_LARGE",
        "UNREACHABLE",
        "UNREACHABLE",
    ]


@pytest.mark.parametrize("target", ["/peers", "http://127.0.0.1:9/peers", "/other"])
def test_a_redirect_leads_nowhere(us: Community, target: str) -> None:
    answers = {"/peers": loopback.redirects(target), "/other": says(b'{"peers":[]}')}
    outcome = refused(us, answers, "UNREACHABLE", beacon=True)
    assert target in outcome.message


def test_a_beacon_that_is_gone(us: Community) -> None:
    refused(us, {}, "UNREACHABLE", beacon=True)
    refused(us, {"/peers": loopback.page(500)}, "UNREACHABLE", beacon=True)


def test_a_beacon_lists_what_cannot_be_believed(us: Community) -> None:
    good = us.ticket("good")
    forged = {**good.to_json(), "publicKey": key("mallory").verify_key.to_base64()}
    listed = [
        {**us.ticket("odd").to_json(), "signature": "this is not base64!"},
        us.ticket("past", now=us.now - 3600).to_json(),
        us.ticket("ahead", now=us.now + 3600).to_json(),
        us.ticket("long", ttl_s=10 * DAY).to_json(),
        forged,
        "a text",
        good.to_json(),
    ]
    answer = says(json.dumps({"ok": True, "peers": listed}).encode())

    found, outcome = asyncio.run(meet(us, {"/peers": answer}, beacon=True))

    assert outcome.ok
    assert outcome.skipped == {
        "MALFORMED": 2,
        "EXPIRED": 1,
        "NOT_YET_VALID": 1,
        "LIFETIME_TOO_LONG": 1,
        "SIGNATURE_INVALID": 1,
    }
    assert {peer.peer_id for peer in found.peers} == {"good", "honest"}


def test_a_beacon_cannot_take_a_name_that_a_capsule_vouches_for(us: Community) -> None:
    taken = us.ticket("victim", signer=key("mallory"), ttl_s=3600)

    async def scene(*, capsule_first: bool) -> Found:
        slow = {path: later(answer) for path, answer in published.items()}
        listed = lists(taken)
        answers = published if capsule_first else slow
        beaten = {path: later(answer) for path, answer in listed.items()}
        async with Place(answers) as host, Place(beaten if capsule_first else listed) as beacon:
            return await bootstrap(
                us.url(host.url), beacons=[beacon.url], linger_s=None, rim=us.rim
            )

    published = publishes(us.publish("victim"))
    for capsule_first in (True, False):
        (peer,) = asyncio.run(scene(capsule_first=capsule_first)).peers
        assert peer.ticket.verify_key == key("victim").verify_key
        assert peer.vouched


def later(answer: Answer) -> Answer:
    async def wait(asked: Any, writer: Any) -> None:
        await asyncio.sleep(0.2)
        await answer(asked, writer)

    return wait


# --- the clock ----------------------------------------------------------------


@pytest.mark.parametrize(
    ("off_s", "reason", "skipped"),
    [(DAY, "FROZEN", "EXPIRED"), (-DAY, "NOT_YET_VALID", "NOT_YET_VALID")],
    ids=["a day fast", "a day slow"],
)
def test_a_clock_that_is_wrong_by_a_day_is_named(
    us: Community, off_s: int, reason: str, skipped: str
) -> None:
    wrong = (
        replace(us, certificate={"not_before": us.now - 9 * DAY}),
        replace(us, now=us.now + off_s),
    )
    found, outcome = asyncio.run(meet(wrong[0], publishes(wrong[0].publish("x")), rim=wrong[1].rim))

    assert outcome.reason == reason
    assert found.peers == ()
    listed = next(o for o in found.sources if o.source.kind == "beacon")
    assert listed.skipped == {skipped: 1}


def test_a_clock_that_fell_back_is_noticed(us: Community, tmp_path: Path) -> None:
    asyncio.run(meet(us, publishes(us.publish("new")), cache=tmp_path))
    past = replace(us, now=us.now - 3600)
    _, outcome = asyncio.run(meet(past, publishes(past.publish("victim")), cache=tmp_path))
    assert outcome.reason == "CLOCK_WRONG"


# --- where a manifest leads ---------------------------------------------------


def test_a_manifest_leads_one_step_and_no_further(us: Community) -> None:
    async def scene() -> tuple[Found, list[Place]]:
        async with AsyncExitStack() as stack:
            places = [await stack.enter_async_context(Place()) for _ in range(3)]
            first, second, third = places
            third.answers = publishes(us.publish("third"))
            second.answers = publishes(
                replace(us, online=key("online 2")).publish(
                    "second", capsules=[f"{third.url}{WAY}"]
                )
            )
            first.answers = publishes(us.publish("first", capsules=[f"{second.url}{WAY}"]))
            found = await bootstrap(us.url(first.url), linger_s=None, rim=us.rim)
        return found, places

    found, places = asyncio.run(scene())
    assert {peer.peer_id for peer in found.peers} == {"first", "second"}
    assert [outcome.source.learned for outcome in found.sources] == [False, True]
    assert places[2].asked == []


def test_a_manifest_leads_to_eight_places_at_most(us: Community) -> None:
    async def scene() -> Found:
        async with Place() as first:
            beacons = [f"{first.url}/{n}" for n in range(16)]
            first.answers = publishes(us.publish("first", beacons=beacons))
            return await bootstrap(us.url(first.url), linger_s=None, rim=us.rim)

    assert sum(outcome.source.learned for outcome in asyncio.run(scene()).sources) == 8


def test_a_manifest_from_elsewhere_leads_to_no_unencrypted_place() -> None:
    from muster.bootstrap.sources import may_follow

    assert may_follow("https://a.example", local=False)
    assert may_follow("http://127.0.0.1:1/x", local=True)
    assert may_follow("http://[::1]:1/x", local=True)
    assert may_follow("http://localhost/x", local=True)
    for url in ("http://127.0.0.1/", "http://a.example", "http://192.168.0.1", "http://["):
        assert not may_follow(url, local=False)
    for url in ("http://a.example", "http://192.168.0.1", "http://["):
        assert not may_follow(url, local=True)
