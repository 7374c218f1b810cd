"""The key set: the deployment's own keys for hybrid, post-quantum handshakes.

Made once and kept in the store, as the service's key is. The identity (Ed25519 and
ML-DSA-65) stays; the X25519 prekey and the ML-KEM-768 key belong to a period, and a
period's keys are kept for a while after it, so that what was sent to them can still
be opened. Private halves leave this module in no other way than as what they compute:
`decapsulate` and `exchange` are for a program of the operator's that shares the store
(docs/assist.md); the service itself only publishes.
"""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING, NamedTuple

from chalicelib import tables
from muster.felund import assist_records as wire

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
    from cryptography.hazmat.primitives.asymmetric.mldsa import MLDSA65PrivateKey
    from cryptography.hazmat.primitives.asymmetric.mlkem import MLKEM768PrivateKey
    from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey

    from chalicelib.service import Service

IDENTITY_BYTES = 64
PERIOD_BYTES = 96

PURPOSE = b"muster-pq-keys-v1\n"
"""What both signatures are over: this, the four public keys as they stand in the answer
(identity, prekey, kem, signature), and `expires_at` as eight bytes, big-endian."""


class Unknown(Exception):
    """There is no such key any more."""


class _Identity(NamedTuple):
    classical: Ed25519PrivateKey
    post_quantum: MLDSA65PrivateKey


class _Period(NamedTuple):
    prekey: X25519PrivateKey
    kem: MLKEM768PrivateKey


def public(service: Service, *, now: int) -> wire.PqKeys:
    """Return the public halves of this period; made at the first call of a process."""
    length_s = service.plan.keys_s
    number = now // length_s
    kept = service.key_sets.recall(str(number), now=now)
    if kept is None:
        end = (number + 1) * length_s
        kept = _public(_identity(service, now=now), _period(service, number, now=now), end)
        service.key_sets.keep(str(number), kept, until=end)
    return kept


def decapsulate(service: Service, key_id: str, ciphertext: bytes, *, now: int) -> bytes:
    """Return the secret that somebody encapsulated to this period's key, or the last one's.

    Raises `Unknown` if the key is gone.
    """
    return _kept(service, key_id, now=now).kem.decapsulate(ciphertext)


def exchange(service: Service, key_id: str, theirs: bytes, *, now: int) -> bytes:
    """Return X25519 of the prekey and a public key; raises `Unknown` as `decapsulate` does."""
    from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PublicKey

    key = X25519PublicKey.from_public_bytes(theirs)
    return _kept(service, key_id, now=now).prekey.exchange(key)


def _public(identity: _Identity, period: _Period, expires_at: int) -> wire.PqKeys:
    keys = (
        identity.classical.public_key().public_bytes_raw(),
        period.prekey.public_key().public_bytes_raw(),
        period.kem.public_key().public_bytes_raw(),
        identity.post_quantum.public_key().public_bytes_raw(),
    )
    told = PURPOSE + b"".join(keys) + expires_at.to_bytes(8, "big")
    return wire.PqKeys(
        identity_public_hex=keys[0].hex(),
        signed_prekey_public_hex=keys[1].hex(),
        kem_public_hex=keys[2].hex(),
        signature_public_hex=keys[3].hex(),
        key_id=_key_id(period),
        expires_at=expires_at,
        identity_signature_hex=identity.classical.sign(told).hex(),
        pq_signature_hex=identity.post_quantum.sign(told).hex(),
    )


def _identity(service: Service, *, now: int) -> _Identity:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
    from cryptography.hazmat.primitives.asymmetric.mldsa import MLDSA65PrivateKey

    fresh = service.entropy(IDENTITY_BYTES)
    seeds = tables.key_set(service.stores, "identity", fresh, until=tables.FOREVER, now=now)
    return _Identity(
        Ed25519PrivateKey.from_private_bytes(seeds[:32]),
        MLDSA65PrivateKey.from_seed_bytes(seeds[32:]),
    )


def _period(service: Service, number: int, *, now: int) -> _Period:
    """Return a period's keys: all processes make the same, as the first one's are kept."""
    plan = service.plan
    until = (number + 1) * plan.keys_s + plan.keys_overlap_s
    fresh = service.entropy(PERIOD_BYTES)
    return _read(
        tables.key_set(service.stores, _name(plan.keys_s, number), fresh, until=until, now=now)
    )


def _kept(service: Service, key_id: str, *, now: int) -> _Period:
    plan = service.plan
    number = now // plan.keys_s
    oldest = max(number - 1 - plan.keys_overlap_s // plan.keys_s, 0)
    for candidate in range(number, oldest - 1, -1):
        seeds = tables.kept_key_set(service.stores, _name(plan.keys_s, candidate), now=now)
        if seeds is not None and _key_id(period := _read(seeds)) == key_id:
            return period
    raise Unknown(key_id)


def _read(seeds: bytes) -> _Period:
    from cryptography.hazmat.primitives.asymmetric.mlkem import MLKEM768PrivateKey
    from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey

    return _Period(
        X25519PrivateKey.from_private_bytes(seeds[:32]),
        MLKEM768PrivateKey.from_seed_bytes(seeds[32:]),
    )


def _key_id(period: _Period) -> str:
    return hashlib.sha256(period.kem.public_key().public_bytes_raw()).hexdigest()[:16]


def _name(length_s: int, number: int) -> str:
    return f"period {length_s} {number}"


__all__ = ["PURPOSE", "Unknown", "decapsulate", "exchange", "public"]
