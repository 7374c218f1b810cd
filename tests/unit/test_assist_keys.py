"""The key set: real, the deployment's own, rotated with an overlap, private halves kept in."""

import json
import secrets
from typing import Any

import pytest
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from cryptography.hazmat.primitives.asymmetric.mldsa import MLDSA65PublicKey
from cryptography.hazmat.primitives.asymmetric.mlkem import MLKEM768PublicKey
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey

from chalicelib.assist import pq_keys
from chalicelib.store import Stores
from chalicelib.store.sqlite import open_sqlite
from tests.support.circle import World, world

DAY_S = 24 * 3600
START = 30 * DAY_S * 700
"""The first second of a period."""


def service(stores: Stores | None = None, at: int = START, **plan: Any) -> World:
    made = world(stores, assist=json.dumps(plan), assist_open="allow")
    made.service.entropy = secrets.token_bytes
    made.clock = float(at)
    return made


def keys(w: World) -> dict[str, Any]:
    status, answer = w.call("POST", "/api/p2p/assist", {}, headers={})
    assert status == 200
    found: dict[str, Any] = answer["pq"]
    return found


def told(pq: dict[str, Any]) -> bytes:
    """What both signatures are over, as docs/assist.md says."""
    names = ("identity", "signed_prekey", "kem", "signature")
    public = b"".join(bytes.fromhex(pq[f"{name}_public_hex"]) for name in names)
    return b"muster-pq-keys-v1\n" + public + int(pq["expires_at"]).to_bytes(8, "big")


def check(pq: dict[str, Any], message: bytes) -> None:
    Ed25519PublicKey.from_public_bytes(bytes.fromhex(pq["identity_public_hex"])).verify(
        bytes.fromhex(pq["identity_signature_hex"]), message
    )
    MLDSA65PublicKey.from_public_bytes(bytes.fromhex(pq["signature_public_hex"])).verify(
        bytes.fromhex(pq["pq_signature_hex"]), message
    )


def test_the_keys_are_of_their_kinds_and_both_signatures_hold() -> None:
    pq = keys(service())
    sizes = {"identity": 32, "signed_prekey": 32, "kem": 1184, "signature": 1952}
    for name, size in sizes.items():
        assert len(bytes.fromhex(pq[f"{name}_public_hex"])) == size
    X25519PublicKey.from_public_bytes(bytes.fromhex(pq["signed_prekey_public_hex"]))
    MLKEM768PublicKey.from_public_bytes(bytes.fromhex(pq["kem_public_hex"]))
    check(pq, told(pq))
    with pytest.raises(InvalidSignature):
        check(pq, told(pq | {"expires_at": pq["expires_at"] + 1}))


def test_what_is_encapsulated_to_the_answer_the_deployment_opens() -> None:
    w = service()
    pq = keys(w)
    secret, sealed = MLKEM768PublicKey.from_public_bytes(
        bytes.fromhex(pq["kem_public_hex"])
    ).encapsulate()
    assert pq_keys.decapsulate(w.service, pq["key_id"], sealed, now=w.now) == secret
    mine = X25519PrivateKey.generate()
    theirs = X25519PublicKey.from_public_bytes(bytes.fromhex(pq["signed_prekey_public_hex"]))
    opened = pq_keys.exchange(
        w.service, pq["key_id"], mine.public_key().public_bytes_raw(), now=w.now
    )
    assert opened == mine.exchange(theirs)


def test_all_processes_tell_the_same_keys_and_a_restart_changes_nothing() -> None:
    stores = open_sqlite(":memory:")
    first, second = keys(service(stores)), keys(service(stores))
    same = {name for name in first if first[name] == second[name]}
    assert {name for name in first if name not in same} <= {"pq_signature_hex"}  # is randomized
    assert keys(service())["kem_public_hex"] != first["kem_public_hex"]


def test_keys_rotate_with_the_period_and_the_identity_stays() -> None:
    stores = open_sqlite(":memory:")
    w = service(stores)
    before = keys(w)
    assert before["expires_at"] == START + 30 * DAY_S
    w.clock = float(before["expires_at"] - 1)
    assert keys(w)["key_id"] == before["key_id"]
    w.clock += 1
    after = keys(w)
    for name in ("signed_prekey_public_hex", "kem_public_hex", "key_id", "expires_at"):
        assert after[name] != before[name]
    for name in ("identity_public_hex", "signature_public_hex"):
        assert after[name] == before[name]
    check(after, told(after))


def test_old_keys_open_what_was_sent_to_them_until_the_overlap_ends() -> None:
    w = service()
    pq = keys(w)
    kem = MLKEM768PublicKey.from_public_bytes(bytes.fromhex(pq["kem_public_hex"]))
    secret, sealed = kem.encapsulate()
    last = pq["expires_at"] + 7 * DAY_S - 1
    assert pq_keys.decapsulate(w.service, pq["key_id"], sealed, now=last) == secret
    with pytest.raises(pq_keys.Unknown):
        pq_keys.decapsulate(w.service, pq["key_id"], sealed, now=last + 1)
    with pytest.raises(pq_keys.Unknown):
        pq_keys.decapsulate(w.service, "0" * 16, sealed, now=w.now)


def test_a_short_period_may_have_a_long_overlap() -> None:
    w = service(keys_s=3600, keys_overlap_s=5 * 3600)
    pq = keys(w)
    kem = MLKEM768PublicKey.from_public_bytes(bytes.fromhex(pq["kem_public_hex"]))
    secret, sealed = kem.encapsulate()
    at = w.now + 5 * 3600 + 1800
    assert pq_keys.decapsulate(w.service, pq["key_id"], sealed, now=at) == secret


def test_no_private_half_is_in_an_answer_or_in_a_log(caplog: pytest.LogCaptureFixture) -> None:
    drawn: list[bytes] = []

    def entropy(size: int) -> bytes:
        drawn.append(secrets.token_bytes(size))
        return drawn[-1]

    w = service()
    w.service.entropy = entropy
    with caplog.at_level(0):
        answer = json.dumps(w.call("POST", "/api/p2p/assist", {}, headers={})[1])
    seeds = [data for data in drawn if len(data) in (pq_keys.IDENTITY_BYTES, pq_keys.PERIOD_BYTES)]
    assert len(seeds) == 2
    for seed in seeds:
        for start in range(0, len(seed), 32):
            assert seed[start : start + 32].hex() not in answer
            assert seed[start : start + 32].hex() not in caplog.text
