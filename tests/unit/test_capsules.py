"""Keys, tickets, capsules and manifests: making them, and what makers are told when they err."""

from __future__ import annotations

import base64
import json
import subprocess
import sys
from dataclasses import replace
from typing import Any

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from capsules import canonical, capsule, manifest, root, ticket, trust
from capsules.errors import Reason, Refused
from capsules.keys import SigningKey, VerifyKey, exact_base64, lenient_base64
from tests.golden import make_capsules as make

KEY = make.ALICE
NOW = make.NOW


def test_keys_are_those_of_every_other_library() -> None:
    other = Ed25519PrivateKey.from_private_bytes(KEY.seed)
    der = other.private_bytes(
        serialization.Encoding.DER,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    )

    assert KEY.to_pkcs8() == der
    assert SigningKey.from_pkcs8(der) == KEY
    assert KEY.verify_key.raw == other.public_key().public_bytes_raw()
    assert KEY.sign(b"message") == other.sign(b"message")


def test_a_signing_key_is_read_as_existing_tools_keep_it() -> None:
    assert SigningKey.from_base64(KEY.to_base64()) == KEY
    assert SigningKey.from_base64(base64.b64encode(KEY.seed).decode() + "\n") == KEY
    assert len(KEY.to_pkcs8()) == 48


def test_a_signing_key_does_not_show() -> None:
    assert KEY.seed.hex() not in repr(KEY)
    assert repr(KEY.seed) not in repr(KEY)


@pytest.mark.parametrize("raw", [b"", bytes(31), bytes(33)])
def test_keys_have_32_bytes(raw: bytes) -> None:
    for kind in (SigningKey, VerifyKey):
        with pytest.raises(ValueError, match="32 bytes"):
            kind(raw)


@pytest.mark.parametrize("der", [b"", bytes(48), KEY.to_pkcs8() + b"\0", b"\x31" + bytes(47)])
def test_other_pkcs8_is_not_a_signing_key(der: bytes) -> None:
    with pytest.raises(ValueError, match="PKCS#8"):
        SigningKey.from_pkcs8(der)


def test_a_verify_key_has_one_spelling() -> None:
    text = KEY.verify_key.to_base64()

    assert VerifyKey.from_base64(text) == KEY.verify_key
    assert len(KEY.verify_key.key_id) == 16
    for other in (text.rstrip("="), text + " ", text[:-2] + "/=", "é" * 44, ""):
        with pytest.raises(ValueError, match=r".*"):
            VerifyKey.from_base64(other)


def test_a_signature_is_of_its_message_and_key_and_has_64_bytes() -> None:
    signature = KEY.sign(b"message")

    assert KEY.verify_key.verify(b"message", signature)
    assert not KEY.verify_key.verify(b"massage", signature)
    assert not make.BOB.verify_key.verify(b"message", signature)
    assert not KEY.verify_key.verify(b"message", signature + b"\0")
    assert not KEY.verify_key.verify(b"message", b"")


# Measured in a browser: what atob takes, and what it throws at.
@pytest.mark.parametrize(
    ("text", "raw"),
    [
        ("", b""),
        ("AA==", b"\0"),
        ("AA", b"\0"),
        ("AP==", b"\0"),
        (" A\tA\n=\r=\f", b"\0"),
        ("AAA=", b"\0\0"),
        ("+/+/", b"\xfb\xff\xbf"),
        ("AA=", None),
        ("A", None),
        ("AAA==", None),
        ("A===", None),
        ("====", None),
        ("-_-_", None),
        ("AA\x0bAA", None),
        ("AA\u00a0AA", None),
        ("=AAA", None),
    ],
)
def test_base64_is_read_as_browsers_read_it(text: str, raw: bytes | None) -> None:
    if raw is None:
        with pytest.raises(ValueError, match="base64"):
            lenient_base64(text)
    else:
        assert lenient_base64(text) == raw
        assert exact_base64("AA==") == b"\0"


def test_a_ticket_is_kept_as_it_was_received() -> None:
    text = json.dumps(make.sign(make.payload(load=0.5)), indent=3)
    found = ticket.Ticket.parse(text.encode())
    found.verify(now_ms=make.NOW_MS)

    assert json.dumps(found.to_json(), indent=3) == text
    assert found.verify_key == KEY.verify_key


def test_numbers_may_come_from_a_parser_that_makes_them_floats() -> None:
    payload = make.payload(issuedAt=float(make.NOW_MS))
    found = ticket.Ticket.from_json(make.sign(payload, version=1.0))
    found.verify(now_ms=make.NOW_MS)

    assert isinstance(found.issued_at_ms, int)
    assert ticket.listable(found)


def test_a_ticket_that_no_reader_would_take_is_not_created() -> None:
    with pytest.raises(Refused) as caught:
        ticket.create(KEY, **{**make.created(), "peer_id": ""})
    assert caught.value.reason == Reason.MALFORMED


def test_of_one_peer_the_ticket_that_lives_longest_counts() -> None:
    def made(peer: str, user: str, ttl_ms: int) -> ticket.Ticket:
        settings = {**make.created(), "peer_id": peer, "user_id": user, "ttl_ms": ttl_ms}
        return ticket.create(KEY, **settings)

    first, longer, other = made("p", "u", 10), made("p", "u", 20), made("p", "v", 30)

    assert ticket.merge([first, longer, other]) == [other, longer]
    assert ticket.merge([longer, first]) == [longer]


def test_peers_json_is_pretty_and_its_signature_stands_beside_it() -> None:
    raw = make.peers_json()
    data = json.loads(raw)

    assert raw.decode() == json.dumps(data, indent=2, ensure_ascii=False)
    assert list(data) == [
        "version",
        "community",
        "issuedAt",
        "expiresAt",
        "peers",
        "signature",
        "algorithm",
    ]
    assert capsule.signature_file(raw).decode() == data["signature"]


def test_a_capsule_that_no_reader_would_take_is_not_built() -> None:
    many = make.tickets()[:1] * (capsule.MAX_ENTRIES + 1)
    long = ticket.create(KEY, **{**make.created(), "peer_id": "p" * 256, "user_id": "\x01" * 256})
    settings: dict[str, Any] = {"community": "mainnet", "now_ms": make.NOW_MS, "ttl_ms": 1}

    with pytest.raises(ValueError, match="at most 1000 entries"):
        capsule.build(KEY, many, **settings)
    with pytest.raises(ValueError, match="bytes"):
        capsule.build(KEY, [long] * capsule.MAX_ENTRIES, **settings)
    with pytest.raises(Refused, match="community"):
        capsule.build(KEY, [], **{**settings, "community": "../etc"})


def test_a_file_may_be_as_large_as_its_limit_and_no_larger() -> None:
    files = make.publish()
    for read, raw, most in (
        (capsule.Capsule.parse, files.capsule, capsule.MAX_CAPSULE_BYTES),
        (manifest.Document.parse, files.manifest, manifest.MAX_MANIFEST_BYTES),
    ):
        full = raw + b" " * (most - len(raw))
        assert read(full) == read(raw)
        with pytest.raises(Refused) as caught:
            read(full + b" ")
        assert caught.value.reason == Reason.TOO_LARGE


def test_a_capsule_may_hold_a_thousand_tickets() -> None:
    many = make.tickets()[:1] * capsule.MAX_ENTRIES
    raw = capsule.build(KEY, many, community="mainnet", now_ms=make.NOW_MS, ttl_ms=1)

    assert len(capsule.Capsule.parse(raw).peers) == capsule.MAX_ENTRIES


def test_what_is_not_json_has_no_canonical_form() -> None:
    deep: Any = []
    for _ in range(canonical.MAX_DEPTH):
        deep = [deep]
    for value in (b"bytes", {1, 2}, object(), deep):
        for write in (canonical.encode, canonical.strict):
            with pytest.raises(Refused) as caught:
                write(value)
            assert caught.value.reason == Reason.NOT_CANONICAL


@pytest.mark.parametrize("value", [0.5, 1.0, 2**53, "\ud800", {"é": 1}, {"\n": 1}])
def test_what_we_sign_ourselves_has_one_form_in_every_language(value: Any) -> None:
    with pytest.raises(Refused) as caught:
        canonical.strict([value])
    assert caught.value.reason == Reason.NOT_CANONICAL


def test_an_integer_beyond_all_doubles_is_null() -> None:
    assert canonical.number(10**400) == "null"
    assert canonical.number(float("nan")) == "null"


def test_bytes_that_are_not_utf_8_are_malformed() -> None:
    for raw in (b"\xff", b'"\xed\xa0\x80"'):
        with pytest.raises(Refused, match="UTF-8"):
            canonical.loads(raw)


def test_json_deep_enough_to_exhaust_a_parser_is_malformed() -> None:
    with pytest.raises(Refused, match="deep"):
        canonical.loads("[" * 500_000)


def test_a_rotation_needs_the_key_of_the_last_root_and_a_new_one() -> None:
    with pytest.raises(ValueError, match="previous root"):
        root.rotate(make.ROOT_DOCUMENT, old=make.BOB, new=make.ROOT_2, now=NOW)
    with pytest.raises(ValueError, match="the old one"):
        root.rotate(make.ROOT_DOCUMENT, old=make.ROOT, new=make.ROOT, now=NOW)


def test_a_certificate_names_communities_by_their_names() -> None:
    with pytest.raises(Refused, match="communities"):
        make.certificate(communities=["no/slash"])


def test_a_manifest_that_no_reader_would_take_is_not_built() -> None:
    with pytest.raises(Refused, match="beacons"):
        make.publish(beacons=["ftp://muster.example"])
    with pytest.raises(Refused, match="at most 32"):
        make.publish(make.PUBLISHER._replace(roots=[make.ROOT_DOCUMENT] * 33))
    with pytest.raises(Refused, match="bytes"):
        make.publish(make.PUBLISHER._replace(roots=[make.ROOT_DOCUMENT] * 1000))


def test_the_next_sequence_is_the_second_it_is_published_in() -> None:
    files = make.publish(previous=NOW - 1)

    assert manifest.sequence_of(files.manifest) == NOW
    with pytest.raises(ValueError, match="already published"):
        make.publish(previous=NOW)


def test_the_same_tickets_and_second_are_the_same_bytes() -> None:
    assert make.publish() == make.publish()


def test_what_existing_tools_read_of_a_manifest_is_still_there() -> None:
    data = json.loads(make.publish().manifest)

    assert list(data)[:3] == ["version", "algorithm", "publicKey"]
    assert data["version"] == 1
    assert data["algorithm"] == "ed25519"
    assert data["publicKey"] == make.ONLINE.verify_key.to_base64()


def test_rules_of_the_caller_come_on_top_of_the_revoked_keys() -> None:
    bob = make.BOB.verify_key.to_base64()
    files = make.publish()
    found = trust.accept(
        trust.begin(make.ROOT.verify_key),
        files.manifest,
        files.capsule,
        community="mainnet",
        now=NOW,
        rules=replace(ticket.RULES, revoked=frozenset({bob})),
    )

    assert [one.peer_id for one in found.tickets] == ["peer-alice"]


def test_reading_starts_without_nacl() -> None:
    code = "import sys, capsules.trust; sys.exit('nacl' in sys.modules)"

    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
