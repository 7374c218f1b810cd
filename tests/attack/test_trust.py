"""The attacks of the TUF specification's list on a client that starts from a URL.

Each is told as a story: what the client knew, what the attacker can do, what the client
answers. The single checks are in tests/golden/trust.json, in both languages.
"""

from __future__ import annotations

import json
import time
from dataclasses import replace
from typing import Any

import pytest

from capsules import canonical, capsule, manifest, root, ticket, trust
from capsules.errors import Reason, Refused
from capsules.keys import SigningKey
from capsules.manifest import Files, Publisher
from capsules.trust import Accepted, State
from muster.bootstrap.cache import merged
from tests.golden import make_capsules as make

NOW, DAY = make.NOW, make.DAY
START = trust.begin(make.ROOT.verify_key)


class Client:
    """A client with its cache; it forgets nothing, not even after a refusal."""

    def __init__(self, state: State = START) -> None:
        self.cache = json.dumps(state.to_json())

    @property
    def state(self) -> State:
        return State.from_json(json.loads(self.cache))

    def take(self, files: Files, *, now: int = NOW) -> Accepted:
        try:
            found = make.take(files, self.state, now=now)
        except trust.Distrusted as refusal:
            self._keep(refusal.state)
            raise
        self._keep(found.state)
        return found

    def refuses(self, files: Files, reason: Reason, *, now: int = NOW) -> None:
        with pytest.raises(Refused) as caught:
            self.take(files, now=now)
        assert caught.value.reason == reason
        assert str(caught.value).startswith(f"{reason}: ")

    def _keep(self, state: State | None) -> None:
        assert state is not None
        self.cache = json.dumps(state.to_json())


def test_arbitrary_content_is_refused_whatever_it_is() -> None:
    client, good = Client(), make.publish()
    for raw in (b"", b"\xff\xfe", b"null", b"[" * 100_000, b"{}"):
        client.refuses(good._replace(manifest=raw), Reason.MALFORMED)
    assert client.take(good).tickets


def test_arbitrary_content_by_somebody_with_keys_of_their_own() -> None:
    mallory = SigningKey(bytes(32))
    document = root.first(mallory, now=NOW)
    certificate = root.certify(
        mallory, mallory.verify_key, serial=9, not_before=0, expires_at=NOW + DAY
    )
    forged = Publisher(mallory, certificate, (document,))

    Client().refuses(make.publish(forged), Reason.ROOT_CHAIN_BROKEN)
    Client().refuses(make.publish(forged._replace(roots=())), Reason.CERTIFICATE_INVALID)


def test_endless_data_is_not_even_parsed() -> None:
    client, good = Client(), make.publish()
    started = time.process_time()

    client.refuses(good._replace(manifest=b" " * (1 << 26)), Reason.TOO_LARGE)
    client.refuses(good._replace(capsule=b" " * (1 << 26)), Reason.LENGTH_MISMATCH)
    with pytest.raises(Refused) as caught:
        trust.accept_pinned(
            START, b"[" * (1 << 26), make.ONLINE.verify_key, community="mainnet", now=NOW
        )

    assert caught.value.reason == Reason.TOO_LARGE
    # Parsing would take seconds; this is a bound on work, not a benchmark.
    assert time.process_time() - started < 2


def test_a_million_entries_in_a_signed_capsule() -> None:
    raw = make.signed_capsule(peers=[])
    many = raw.replace(b'"peers": []', b'"peers": [' + b"0," * 500_000 + b"0]")
    assert len(many) < capsule.MAX_CAPSULE_BYTES

    with pytest.raises(Refused) as caught:
        trust.accept_pinned(START, many, make.ONLINE.verify_key, community=None, now=NOW)

    assert caught.value.reason == Reason.TOO_MANY_ENTRIES


def test_the_manifest_says_how_much_to_fetch_before_anything_is_fetched() -> None:
    good = make.publish()
    expected = trust.expect(START, good.manifest, community="mainnet", now=NOW)

    assert expected.manifest.length == len(good.capsule) <= capsule.MAX_CAPSULE_BYTES
    assert expected.fresh
    assert expected.manifest.beacons == ("https://muster.example",)


def test_a_frozen_mirror_is_noticed_first_and_refused_later() -> None:
    client, old = Client(), make.publish()

    assert client.take(old).fresh
    assert not client.take(old, now=NOW + manifest.FRESH_S).fresh
    client.refuses(old, Reason.FROZEN, now=NOW + manifest.VALID_S)
    # The others still serve.
    assert client.take(make.publish(now=NOW + DAY), now=NOW + DAY).fresh


def test_rollback_to_a_capsule_that_was_valid() -> None:
    client, old, new = Client(), make.publish(), make.publish(now=NOW + 300)
    client.take(old)
    client.take(new, now=NOW + 300)

    client.refuses(old, Reason.ROLLBACK, now=NOW + 300)
    # Nor by another key: the community has one newest capsule, whoever signs it.
    client.refuses(make.publish(make.second()), Reason.ROLLBACK, now=NOW + 300)


def test_rollback_to_a_capsule_of_the_online_key_before() -> None:
    client, old, new = Client(), make.publish(), make.publish(make.second(), now=NOW + 300)
    client.take(new, now=NOW + 300)

    client.refuses(old, Reason.ROLLBACK, now=NOW + 300)
    assert client.take(new, now=NOW + 300).tickets


def test_rollback_under_a_new_root_that_certified_again() -> None:
    client = Client()
    client.take(make.publish(now=NOW + 300), now=NOW + 300)

    for online in (make.ONLINE, make.ONLINE_2):
        again = Publisher(online, make.certificate(make.ROOT_3, online), make.ROOTS)
        client.refuses(make.publish(again), Reason.ROLLBACK, now=NOW + 300)
        assert client.take(make.publish(again, now=NOW + 300), now=NOW + 300).tickets


def test_two_publishers_of_one_community_take_turns() -> None:
    client, one, two = Client(), make.PUBLISHER, make.second()
    for second in range(0, 3000, 300):
        ours = make.publish(one, now=NOW + second)
        theirs = make.publish(two, now=NOW + second + 1)
        assert client.take(ours, now=NOW + second).fresh
        assert client.take(theirs, now=NOW + second + 1).fresh
        # Who is older by a second waits for the own next run, and no longer.
        client.refuses(ours, Reason.ROLLBACK, now=NOW + second + 1)


def test_two_publishers_in_one_second_do_not_contradict_each_other() -> None:
    client, one, two = Client(), make.publish(), make.publish(make.second())

    for files in (one, two, one):
        assert client.take(files).tickets
    client.refuses(make.remade(one, beacons=[]), Reason.EQUIVOCATION)


def test_a_publisher_whose_clock_is_ahead_holds_another_up_for_the_tolerance() -> None:
    client, ahead = Client(), NOW + trust.TOLERANCE_S
    client.take(make.publish(make.second(), now=ahead))

    client.refuses(make.publish(now=NOW + 60), Reason.ROLLBACK, now=NOW + 60)
    assert client.take(make.publish(now=ahead), now=ahead).fresh


def test_what_a_stolen_key_said_holds_nobody_up_once_it_is_revoked() -> None:
    client, furthest = Client(), NOW + trust.TOLERANCE_S
    client.take(make.publish(make.second(), now=NOW + 100), now=NOW + 100)
    client.take(make.publish(now=furthest), now=NOW + 100)
    gone = root.revoke(make.ROOT, [make.ONLINE.verify_key], version=1, now=NOW)
    recovered = make.second()._replace(revocations=gone)

    # What those said who are not revoked still counts.
    client.refuses(make.publish(recovered, now=NOW + 99), Reason.ROLLBACK, now=NOW + 101)
    assert client.take(make.publish(recovered, now=NOW + 101), now=NOW + 101).fresh


def test_a_word_of_a_revoked_key_in_a_cache_holds_nobody_up() -> None:
    thief = replace(WORD_OF_ONLINE, sequence=NOW + 80 * DAY, issued_at=NOW + 80 * DAY)
    revoked = frozenset({make.ONLINE.verify_key.to_base64()})
    client = Client(replace(START, revocations=1, revoked=revoked, memories=(thief,)))

    gone = root.revoke(make.ROOT, [make.ONLINE.verify_key], version=1, now=NOW)
    assert client.take(make.publish(make.second()._replace(revocations=gone))).fresh


def test_serials_count_for_the_key_that_they_certify() -> None:
    client = Client()
    client.take(make.publish(make.second(serial=NOW)))

    assert client.take(make.publish(now=NOW + 1), now=NOW + 1).tickets
    client.refuses(make.publish(make.second(), now=NOW + 2), Reason.ROLLBACK, now=NOW + 2)


def test_rollback_after_a_look_at_the_manifest_alone() -> None:
    client, old, new = Client(), make.publish(), make.publish(now=NOW + 300)
    client.refuses(new._replace(capsule=b"{}"), Reason.LENGTH_MISMATCH, now=NOW + 300)

    client.refuses(old, Reason.ROLLBACK, now=NOW + 300)


def test_fast_forward_by_a_thief_lasts_as_long_as_the_tolerance() -> None:
    client = Client()
    furthest = NOW + trust.TOLERANCE_S
    for sequence in (2**53 - 1, furthest + 1):
        thief = make.remade(make.publish(), sequence=sequence)
        client.refuses(thief, Reason.FAST_FORWARD)
    ahead = make.publish(now=furthest)
    client.take(ahead)

    client.refuses(make.publish(now=NOW + 60), Reason.ROLLBACK, now=NOW + 60)
    assert client.take(make.publish(now=furthest + 1), now=furthest + 1).fresh


def test_fast_forward_of_a_clock_that_was_a_year_ahead_ends_with_the_thief() -> None:
    client, year = Client(), NOW + 80 * DAY
    client.take(make.publish(now=year), now=year)
    client.refuses(make.publish(), Reason.CLOCK_WRONG)

    gone = root.revoke(make.ROOT, [make.ONLINE.verify_key], version=1, now=NOW)
    recovered = make.second()._replace(revocations=gone)

    assert client.take(make.publish(recovered)).fresh


def test_mix_and_match_of_two_publications() -> None:
    client, one, two = Client(), make.publish(), make.publish(now=NOW + 1)

    client.refuses(one._replace(capsule=two.capsule), Reason.HASH_MISMATCH)
    client.refuses(one._replace(signature=two.signature), Reason.SIGNATURE_MISMATCH)
    client.refuses(two._replace(manifest=one.manifest), Reason.HASH_MISMATCH)


def test_a_wrong_target() -> None:
    client = Client()
    client.refuses(make.publish(community="testnet"), Reason.WRONG_COMMUNITY)

    narrow = make.PUBLISHER._replace(certificate=make.certificate(communities=["testnet"]))
    client.refuses(make.publish(narrow), Reason.WRONG_COMMUNITY)


def test_a_stolen_online_key_is_worth_nothing_once_revoked() -> None:
    client = Client()
    client.take(make.publish())
    gone = root.revoke(make.ROOT, [make.ONLINE.verify_key], version=1, now=NOW)
    client.take(make.publish(make.second()._replace(revocations=gone)))

    # The thief does not send the list, but the client has it.
    client.refuses(make.publish(now=NOW + 60), Reason.REVOKED_KEY, now=NOW + 60)
    # Nor may an older list bring the key back.
    none = root.revoke(make.ROOT, [], version=1, now=NOW)
    client.refuses(make.publish(make.PUBLISHER._replace(revocations=none)), Reason.REVOKED_KEY)


def test_a_revocation_is_learned_from_a_manifest_that_is_spoiled() -> None:
    client = Client()
    gone = root.revoke(make.ROOT, [make.ONLINE.verify_key], version=1, now=NOW)
    client.refuses(
        make.publish(make.second()._replace(revocations=gone)), Reason.FROZEN, now=NOW + DAY
    )

    client.refuses(make.publish(now=NOW + DAY), Reason.REVOKED_KEY, now=NOW + DAY)


def test_a_mirror_cannot_take_the_revocations_out() -> None:
    client = Client()
    gone = root.revoke(make.ROOT, [make.ONLINE.verify_key], version=1, now=NOW)
    honest = make.publish(make.second()._replace(revocations=gone))

    def take_out(data: dict[str, Any]) -> None:
        data["revocations"] = None

    client.refuses(make.changed(honest, take_out), Reason.REVOCATIONS_INVALID)
    assert client.take(honest).fresh


def test_a_revoked_ticket_key_speaks_in_no_capsule() -> None:
    client = Client()
    gone = root.revoke(make.ROOT, [make.ALICE.verify_key], version=1, now=NOW)
    found = client.take(make.publish(make.PUBLISHER._replace(revocations=gone)))

    assert [one.peer_id for one in found.tickets] == ["peer-bob"]
    assert (0, Reason.REVOKED_KEY) in found.skipped


def test_a_certificate_past_its_time_certifies_nothing() -> None:
    client, late = Client(), NOW + 91 * DAY
    client.refuses(make.publish(now=late), Reason.CERTIFICATE_EXPIRED, now=late)

    renewed = make.certificate(serial=2, expires_at=late + DAY)
    renewing = make.PUBLISHER._replace(certificate=renewed)
    assert client.take(make.publish(renewing, now=late), now=late).fresh
    # The certificate before it, even while it lives, is a step back.
    old = make.PUBLISHER._replace(certificate=make.certificate(expires_at=late + DAY))
    client.refuses(make.publish(old, now=late + 1), Reason.ROLLBACK, now=late + 1)


def test_a_client_that_knows_the_first_root_follows_two_rotations_and_a_new_online_key() -> None:
    client = Client()
    client.take(make.publish())
    third = Publisher(make.ONLINE_2, make.certificate(make.ROOT_3, make.ONLINE_2), make.ROOTS)

    assert client.take(make.publish(third)).fresh
    assert client.state.root.version == 3
    assert client.state.root.verify_key == make.ROOT_3.verify_key
    # Whoever has the first root key now, has nothing.
    client.refuses(make.publish(now=NOW + 1), Reason.CERTIFICATE_INVALID, now=NOW + 1)


def test_whoever_stole_an_old_root_key_cannot_fork_the_chain() -> None:
    client = Client()
    client.take(make.publish(Publisher(make.ONLINE, make.certificate(make.ROOT_3), make.ROOTS)))
    fork = root.rotate(make.ROOT_DOCUMENT, old=make.ROOT, new=make.BOB, now=NOW)
    forged = Publisher(make.ONLINE_2, make.certificate(make.BOB, make.ONLINE_2), (fork,))

    client.refuses(make.publish(forged, now=NOW + 1), Reason.CERTIFICATE_INVALID, now=NOW + 1)


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (-DAY, Reason.NOT_YET_VALID),
        (DAY, Reason.FROZEN),
        (-trust.TOLERANCE_S, None),
        (trust.TOLERANCE_S, None),
    ],
)
def test_a_clock_that_is_wrong(error: int, reason: Reason | None) -> None:
    client = Client()
    if reason is None:
        client.take(make.publish(), now=NOW + error)
    else:
        client.refuses(make.publish(), reason, now=NOW + error)
    # Nothing of it sticks.
    assert client.take(make.publish(now=NOW + 1), now=NOW + 1).fresh


def test_a_clock_that_fell_back_is_noticed() -> None:
    client = Client()
    client.take(make.publish(now=NOW + DAY), now=NOW + DAY)

    client.refuses(make.publish(), Reason.CLOCK_WRONG)


def test_a_mirror_that_lies_blocks_no_other() -> None:
    client, good = Client(), make.publish()
    spoiled: list[Files] = [
        good._replace(manifest=b"<html>"),
        good._replace(capsule=good.capsule[:-1]),
        make.remade(good, make.BOB, sequence=2**53 - 1),
        make.publish(PUBLISHER_OF_BOB),
        make.changed(good, lambda data: data.update(roots=[{}])),
    ]
    for files in spoiled:
        with pytest.raises(Refused):
            client.take(files)

    assert client.take(good).fresh


PUBLISHER_OF_BOB = Publisher(make.BOB, make.certificate(make.BOB, make.BOB))


def test_a_signature_for_one_purpose_proves_nothing_for_another() -> None:
    online = make.ONLINE
    payload = json.loads(make.publish().manifest)["manifest"]["payload"]
    bare = online.sign(canonical.strict(payload))
    for name in ("root", "certificate", "revocations", "manifest"):
        covered = f"muster-{name}-v1\n".encode() + canonical.strict(payload)
        assert not online.verify_key.verify(covered, bare)


def test_a_pinned_capsule_cannot_be_rolled_back_but_can_be_frozen_until_it_expires() -> None:
    def take(state: State, raw: bytes, now: int) -> Accepted:
        key = make.ONLINE.verify_key
        return trust.accept_pinned(state, raw, key, community="mainnet", now=now)

    old = make.peers_json(ttl_ms=DAY * 1000)
    new = make.peers_json(now_ms=make.NOW_MS + 60_000)
    found = take(START, old, NOW + DAY)
    assert found.manifest is None
    assert found.fresh
    state = take(found.state, new, NOW + 60).state
    with pytest.raises(Refused) as caught:
        take(state, old, NOW + 60)
    assert caught.value.reason == Reason.ROLLBACK


def test_two_programs_that_share_a_cache_forget_no_revocation_when_the_root_rotates() -> None:
    gone = root.revoke(make.ROOT, [make.BOB.verify_key], version=3, now=NOW)
    knows = make.seen(make.publish(make.PUBLISHER._replace(revocations=gone)))
    third = Publisher(make.ONLINE, make.certificate(make.ROOT_3), make.ROOTS)
    ahead = make.seen(make.publish(third))
    listed = root.revoke(make.ROOT_3, [make.ALICE.verify_key], version=1, now=NOW)
    replaced = make.seen(make.publish(third._replace(revocations=listed)))

    for state in (merged(knows, ahead), merged(ahead, knows)):
        assert state.root.version == 3
        assert make.BOB.verify_key.to_base64() in state.revoked
    # Until the new root signs a list: that replaces it.
    for state in (merged(knows, replaced), merged(replaced, knows)):
        assert state.revoked == {make.ALICE.verify_key.to_base64()}


def test_two_programs_that_share_a_cache_forget_no_certificate() -> None:
    renewed = make.PUBLISHER._replace(certificate=make.certificate(serial=2))
    one = make.seen(make.publish(renewed))
    two = make.seen(make.publish(now=NOW + 1))

    for state in (merged(one, two), merged(two, one)):
        client = Client(state)
        client.refuses(make.publish(now=NOW + 2), Reason.ROLLBACK, now=NOW + 2)
        client.refuses(make.publish(renewed), Reason.ROLLBACK, now=NOW + 2)
        assert client.take(make.publish(renewed, now=NOW + 2), now=NOW + 2).fresh


def test_two_programs_that_share_a_cache_know_what_is_older_also_by_another_key() -> None:
    one, two = make.seen(make.publish(make.second(), now=NOW + 60)), make.seen(make.publish())

    for state in (merged(one, two), merged(two, one)):
        Client(state).refuses(make.publish(), Reason.ROLLBACK, now=NOW + 60)


def test_a_pinned_key_and_a_manifest_bind_each_other_in_nothing() -> None:
    key = make.ONLINE.verify_key
    seen = Client()
    seen.take(make.publish(make.second(), now=NOW + 60), now=NOW + 60)

    pinned = trust.accept_pinned(
        seen.state, make.peers_json(), key, community="mainnet", now=NOW + 60
    )
    # Milliseconds are not compared with seconds, in neither direction.
    after = Client(pinned.state)
    assert after.take(make.publish(now=NOW + 61), now=NOW + 61).fresh
    after.refuses(make.publish(make.second(), now=NOW + 60), Reason.ROLLBACK, now=NOW + 61)
    trust.accept_pinned(after.state, make.peers_json(), key, community="mainnet", now=NOW + 61)


def test_two_pinned_keys_bind_each_other_in_nothing() -> None:
    later = make.peers_json(now_ms=make.NOW_MS + 1000)
    state = trust.accept_pinned(
        START, later, make.ONLINE.verify_key, community="mainnet", now=NOW
    ).state

    other = make.signed_capsule(make.BOB)
    assert trust.accept_pinned(state, other, make.BOB.verify_key, community="mainnet", now=NOW)


def test_a_state_holds_a_bounded_number_of_words() -> None:
    word = trust.Memory("c", make.ALICE.verify_key.to_base64(), False, 1, 1, 1, "0" * 64)
    state = replace(
        START,
        memories=tuple(replace(word, community=f"c{n}") for n in range(trust.MAX_MEMORIES)),
    )
    grown = state.remember(word)

    assert len(grown.memories) == trust.MAX_MEMORIES
    assert grown.memories[-1] == word
    assert State.from_json(grown.to_json()) == grown


WORD_OF_ONLINE = make.seen(make.publish()).memories[0]
WORD = make.seen(make.publish()).to_json()["memories"][0]


@pytest.mark.parametrize(
    "damage",
    [
        None,
        [],
        {},
        {"version": 2},
        {"root": None},
        {"root": {"version": 1, "verify_key": "x"}},
        {"revocations": {"version": 1, "verify_keys": ["x"]}},
        {"memories": [None]},
        {"memories": [{}]},
        {"memories": [{"pinned": True}]},
        {"memories": [{**WORD, "pinned": "no"}]},
        {"memories": [{**WORD, "sha256": "x"}]},
        {"memories": [{**WORD, "sequence": -1}]},
    ],
)
def test_a_damaged_cache_is_refused_and_not_half_read(damage: Any) -> None:
    data = damage if not damage else {**START.to_json(), **damage}
    with pytest.raises(Refused) as caught:
        State.from_json(data)
    assert caught.value.reason == Reason.MALFORMED


def test_a_capsule_is_never_built_with_a_ticket_that_clients_choke_on() -> None:
    odd = ticket.Ticket.from_json(make.sign(make.payload(), note="beside"))
    with pytest.raises(ValueError, match="every client can read"):
        capsule.build(make.ONLINE, [odd], community="mainnet", now_ms=make.NOW_MS, ttl_ms=1)
