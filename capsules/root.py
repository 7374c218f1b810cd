"""What the root key signs, off the server: its successor, certificates and revocations.

Root documents form a chain: each is signed by the root key before it and by its own, so
that a client that knows any one of them can follow to the newest (TUF specification, 5.3).
Times are Unix seconds.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Self

from capsules import fields
from capsules.envelope import Envelope, Purpose, seal
from capsules.errors import Reason, Refused
from capsules.keys import SigningKey, VerifyKey

MAX_ROOTS = 32
MAX_REVOKED = 512
MAX_COMMUNITIES = 64


@dataclass(frozen=True, slots=True)
class Root:
    """A root key and its version; version 0 is a key whose place in the chain is not known."""

    version: int
    verify_key: VerifyKey


@dataclass(frozen=True, slots=True)
class Certificate:
    """The root's word that a key may publish, for which communities and until when."""

    serial: int
    verify_key: VerifyKey
    communities: tuple[str, ...] | None
    not_before: int
    expires_at: int

    @classmethod
    def from_json(cls, payload: Mapping[str, Any]) -> Self:
        """Read the payload of a certificate."""
        fields.constant(payload, "type", "certificate")
        communities = None
        if payload.get("communities") is not None:
            names = fields.items(payload, "communities", most=MAX_COMMUNITIES)
            communities = tuple(fields.community({"communities": n}, "communities") for n in names)
        key = fields.verify_key(payload)
        fields.constant(payload, "key_id", key.key_id)
        return cls(
            serial=fields.integer(payload, "serial", least=1),
            verify_key=key,
            communities=communities,
            not_before=fields.integer(payload, "not_before"),
            expires_at=fields.integer(payload, "expires_at"),
        )

    def covers(self, community: str) -> bool:
        """Say whether the key may publish for *community*."""
        return self.communities is None or community in self.communities


@dataclass(frozen=True, slots=True)
class Revocations:
    """Keys never to believe again, of publishers and of tickets; a newer list replaces it."""

    version: int
    verify_keys: tuple[str, ...]

    @classmethod
    def from_json(cls, payload: Mapping[str, Any]) -> Self:
        """Read the payload of a list of revocations."""
        fields.constant(payload, "type", "revocations")
        fields.integer(payload, "issued_at")
        found = fields.items(payload, "verify_keys", most=MAX_REVOKED)
        return cls(
            version=fields.integer(payload, "version", least=1),
            verify_keys=tuple(
                fields.verify_key({"verify_keys": key}, "verify_keys").to_base64() for key in found
            ),
        )


def first(key: SigningKey, *, now: int) -> dict[str, Any]:
    """Return the first root document, signed by its own key."""
    return seal(Purpose.ROOT, _document(1, key, now), key)


def rotate(
    previous: Mapping[str, Any], *, old: SigningKey, new: SigningKey, now: int
) -> dict[str, Any]:
    """Return the root document that follows *previous*, signed by the old and the new key.

    Certificates and revocations must be signed again by the new key. Raises `ValueError`
    when *old* is not the key of *previous* or the keys are the same.
    """
    known = _read(previous)[0]
    if known.verify_key != old.verify_key:
        raise ValueError("the old key is not the one of the previous root document")
    if old == new:
        raise ValueError("the new key is the old one")
    return seal(Purpose.ROOT, _document(known.version + 1, new, now), old, new)


def certify(
    root: SigningKey,
    key: VerifyKey,
    *,
    serial: int,
    not_before: int,
    expires_at: int,
    communities: Collection[str] | None = None,
) -> dict[str, Any]:
    """Return the certificate of a publisher's key; *communities* None means all of them.

    Serials grow with each certificate of the same key.
    """
    payload = {
        "type": "certificate",
        "serial": serial,
        "verify_key": key.to_base64(),
        "key_id": key.key_id,
        "communities": None if communities is None else sorted(communities),
        "not_before": not_before,
        "expires_at": expires_at,
    }
    Certificate.from_json(payload)
    return seal(Purpose.CERTIFICATE, payload, root)


def revoke(
    root: SigningKey, keys: Collection[VerifyKey], *, version: int, now: int
) -> dict[str, Any]:
    """Return the list of all keys revoked so far; versions grow with each list."""
    payload = {
        "type": "revocations",
        "version": version,
        "issued_at": now,
        "verify_keys": sorted(key.to_base64() for key in keys),
    }
    Revocations.from_json(payload)
    return seal(Purpose.REVOCATIONS, payload, root)


def follow(known: Root, documents: Sequence[Any]) -> Root:
    """Go from the root that is known to the newest of *documents*.

    Raises `Refused` (``ROOT_CHAIN_BROKEN``) when a step is missing or not signed by both keys.
    """
    chain = [_read(document) for document in documents]
    if known.version == 0 and chain:
        known = _locate(known.verify_key, chain)
    for root, envelope in chain:
        if root.version <= known.version:
            continue
        if root.version != known.version + 1:
            raise Refused(Reason.ROOT_CHAIN_BROKEN, f"root {known.version + 1} is missing")
        for key in (known.verify_key, root.verify_key):
            if not envelope.signed_by(key, Purpose.ROOT):
                message = f"root {root.version} is not signed by {key.key_id}"
                raise Refused(Reason.ROOT_CHAIN_BROKEN, message)
        known = root
    return known


def certificate(root: Root, data: Any) -> Certificate:
    """Return a certificate that *root* signed.

    Raises `Refused` (``CERTIFICATE_INVALID``) when it did not.
    """
    envelope = Envelope.from_json(data, "the certificate")
    if not envelope.signed_by(root.verify_key, Purpose.CERTIFICATE):
        raise Refused(Reason.CERTIFICATE_INVALID, "the root key did not sign the certificate")
    return Certificate.from_json(envelope.payload)


def revocations(root: Root, data: Any) -> Revocations:
    """Return revocations that *root* signed.

    Raises `Refused` (``REVOCATIONS_INVALID``) when it did not.
    """
    envelope = Envelope.from_json(data, "the revocations")
    if not envelope.signed_by(root.verify_key, Purpose.REVOCATIONS):
        raise Refused(Reason.REVOCATIONS_INVALID, "the root key did not sign the revocations")
    return Revocations.from_json(envelope.payload)


def _document(version: int, key: SigningKey, now: int) -> dict[str, Any]:
    return {
        "type": "root",
        "version": version,
        "verify_key": key.verify_key.to_base64(),
        "key_id": key.verify_key.key_id,
        "issued_at": now,
    }


def _read(data: Any) -> tuple[Root, Envelope]:
    envelope = Envelope.from_json(data, "a root document")
    payload = envelope.payload
    fields.constant(payload, "type", "root")
    fields.integer(payload, "issued_at")
    key = fields.verify_key(payload)
    fields.constant(payload, "key_id", key.key_id)
    return Root(fields.integer(payload, "version", least=1), key), envelope


def _locate(key: VerifyKey, chain: Sequence[tuple[Root, Envelope]]) -> Root:
    for root, envelope in chain:
        if root.verify_key == key and envelope.signed_by(key, Purpose.ROOT):
            return root
    raise Refused(Reason.ROOT_CHAIN_BROKEN, f"no root document is signed by {key.key_id}")
