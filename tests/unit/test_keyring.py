"""Keys on paper: what the root key signs is what clients believe, through every rotation."""

import json
from pathlib import Path
from typing import Any

import pytest

from capsules import CERTIFIED_DAYS, manifest, trust
from capsules.errors import Reason, Refused
from capsules.keys import SigningKey, VerifyKey
from capsules.manifest import Publisher
from chalicelib.community import keyring
from chalicelib.community.keyring import DAY_S, RootKey, Unusable
from muster.cli.main import parser
from tests.support.circle import START

REPOSITORY = Path(__file__).parents[2]
FIRST, SECOND, THIRD, ONLINE, OTHER = (SigningKey(bytes([n]) * 32) for n in range(1, 6))


def root() -> RootKey:
    return RootKey.first(FIRST, now=START)


def believed(keys: Publisher, state: trust.State, *, now: int = START) -> trust.State:
    """Let a client read what these keys publish; its state afterwards."""
    files = manifest.publish(keys, [], community="mainnet", now=now)
    return trust.accept(state, files.manifest, files.capsule, community="mainnet", now=now).state


def test_a_certified_key_is_believed() -> None:
    keys = root().certify(ONLINE, now=START)

    believed(keys, trust.begin(FIRST.verify_key))
    assert keyring.certificate(keys).expires_at == START + 90 * DAY_S
    assert keyring.root_key(keys) == FIRST.verify_key


@pytest.mark.parametrize("words", ["keygen capsule --root r --out o", "rotate"])
def test_a_command_certifies_a_key_for_as_long_as_every_other(words: str) -> None:
    assert parser().parse_args(words.split()).days == CERTIFIED_DAYS
    assert keyring.CERTIFIED_S == CERTIFIED_DAYS * DAY_S


def test_the_documents_say_how_long_a_key_is_certified() -> None:
    aws, capsules, security = (
        " ".join((REPOSITORY / "docs" / name).read_text("utf-8").split())
        for name in ("aws.md", "capsules.md", "security.md")
    )

    assert f"publishing key with it for {CERTIFIED_DAYS} days, and puts" in aws
    assert f"before the {CERTIFIED_DAYS} days of the certificate are over" in capsules
    assert f"until the certificate ends, at most {CERTIFIED_DAYS} days" in capsules
    assert f"certified for {CERTIFIED_DAYS} days" in security
    assert f"| {CERTIFIED_DAYS} days, by its certificate |" in security


def test_both_files_are_read_as_they_were_written() -> None:
    here = root().revoke([OTHER.verify_key], now=START)
    keys = here.certify(ONLINE, now=START, communities=["mainnet"])

    assert RootKey.parse(here.encode()) == here
    assert keyring.parse(keyring.encode(keys)) == keys


def test_a_client_follows_two_roots_and_one_online_key() -> None:
    client = trust.begin(FIRST.verify_key)
    here = root()
    keys = here.certify(ONLINE, now=START)
    client = believed(keys, client)
    here = here.succeed(SECOND, now=START + 1)
    keys = here.renew(keys, now=START + 1)
    here = here.succeed(THIRD, now=START + 2)
    keys = here.renew(keys, now=START + 2)
    client = believed(keys, client, now=START + 2)
    keys = here.certify(OTHER, now=START + 3, communities=keyring.certificate(keys).communities)

    client = believed(keys, client, now=START + 3)

    assert (client.root.version, client.root.verify_key) == (3, THIRD.verify_key)


def test_a_new_root_signs_the_revocations_again() -> None:
    here = root().revoke([OTHER.verify_key], now=START).succeed(SECOND, now=START)

    assert here.revoked == (OTHER.verify_key.to_base64(),)
    client = believed(here.certify(ONLINE, now=START), trust.begin(FIRST.verify_key))
    assert client.revoked == {OTHER.verify_key.to_base64()}


def test_a_client_that_has_met_the_revocation_refuses_the_old_keys() -> None:
    here = root()
    stolen = here.certify(ONLINE, now=START)
    here = here.revoke([ONLINE.verify_key], now=START, known=stolen)
    client = believed(
        here.certify(OTHER, now=START + 1), trust.begin(FIRST.verify_key), now=START + 1
    )

    with pytest.raises(Refused) as caught:
        believed(stolen, client, now=START + 2)

    assert caught.value.reason in (Reason.REVOKED_KEY, Reason.ROLLBACK)


def test_revocations_grow_and_take_in_what_the_server_knew() -> None:
    here, keys = root(), [VerifyKey(bytes([n]) * 32) for n in (7, 8, 9)]
    server = here.revoke(keys[:1], now=START).certify(ONLINE, now=START)

    newer = here.revoke(keys[1:2], now=START).revoke(keys[2:], now=START + 1, known=server)

    assert set(newer.revoked) == {key.to_base64() for key in keys}
    assert newer.revocations is not None
    assert newer.revocations["payload"]["version"] == 2


def test_serials_grow_even_within_a_second() -> None:
    here = root()
    first = here.certify(ONLINE, now=START)

    second = here.renew(first, now=START)

    assert keyring.certificate(second).serial == keyring.certificate(first).serial + 1
    assert keyring.certificate(second).expires_at == keyring.certificate(first).expires_at


def test_a_chain_has_an_end() -> None:
    here = root()
    for number in range(2, 33):
        here = here.succeed(SigningKey(number.to_bytes(32, "big")), now=START)

    with pytest.raises(Unusable, match="at most 32"):
        here.succeed(OTHER, now=START)


def test_keys_that_nobody_would_believe_are_not_used() -> None:
    here = root()
    keys = here.certify(ONLINE, now=START, lasting_s=60)
    keyring.check(keys, now=START + 59)

    with pytest.raises(Unusable, match="past its time"):
        keyring.check(keys, now=START + 60)
    revoked = here.revoke([ONLINE.verify_key], now=START).certify(ONLINE, now=START)
    with pytest.raises(Unusable, match="revoked"):
        keyring.check(revoked, now=START)


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"type": "muster-root-key"}, "no publishing-key"),
        ({"version": 2}, "no publishing-key"),
        ({"signing_key": OTHER.to_base64()}, "another key's"),
        ({"signing_key": "x"}, "base64"),
        ({"signing_key": 1}, "signing_key"),
        ({"roots": []}, "no root document"),
        ({"roots": None}, "roots"),
        ({"roots": [{}]}, "signatures"),
        ({"certificate": None}, "certificate"),
        ({"revocations": {}}, "signatures"),
    ],
)
def test_damaged_publishing_keys_are_told_apart(changed: dict[str, Any], said: str) -> None:
    good = json.loads(keyring.encode(root().certify(ONLINE, now=START)))

    with pytest.raises(Unusable, match=said):
        keyring.parse(json.dumps(good | changed).encode())


@pytest.mark.parametrize(
    "changed", [{"signing_key": OTHER.to_base64()}, {"roots": []}, {"revocations": {}}]
)
def test_a_damaged_root_key_is_told(changed: dict[str, Any]) -> None:
    good = json.loads(root().encode())

    with pytest.raises(Unusable):
        RootKey.parse(json.dumps(good | changed).encode())


@pytest.mark.parametrize("raw", [b"", b"[]", b"{", b"\xff", b"x" * 300_000])
def test_what_is_no_key_file_is_told(raw: bytes) -> None:
    with pytest.raises(Unusable):
        keyring.parse(raw)
    with pytest.raises(Unusable):
        RootKey.parse(raw)


def test_a_signing_key_does_not_show() -> None:
    here = root()

    assert FIRST.to_base64() not in repr(here)
    assert str(FIRST.seed) not in repr(here.certify(ONLINE, now=START))
