"""Keyring: the keys with which capsules are published, and the two files that hold them.

The root key (`root.key`) belongs to the maintainer and off the server: it says which
online key may publish, and which keys are revoked. The publishing key
(`publishing.key`) is what a server needs: the online key and everything that the root
key has signed about it. Nothing here touches a disk (docs/capsules.md, The keys).
"""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Self

from capsules import canonical, fields, root
from capsules.envelope import Envelope
from capsules.errors import Refused
from capsules.keys import SigningKey, VerifyKey
from capsules.manifest import Publisher
from capsules.root import Certificate, Revocations
from muster.errors import Hinted

DAY_S = 24 * 3600
CERTIFIED_S = 90 * DAY_S
"""How long an online key may publish if nothing else is said."""

WARN_S = 14 * DAY_S
"""How long before a certificate's end somebody is told."""

MAX_FILE_BYTES = 256 * 1024

_ROOT, _PUBLISHING = "muster-root-key", "muster-publishing-key"
_ANOTHER = "'muster capsule rotate --online' makes another"


class Unusable(Hinted):
    """Keys that cannot be used, and why."""


@dataclass(frozen=True, slots=True)
class RootKey:
    """The root key, the documents that lead to it, and what it has revoked so far."""

    key: SigningKey
    documents: tuple[Mapping[str, Any], ...]
    revocations: Mapping[str, Any] | None = None

    @classmethod
    def first(cls, key: SigningKey, *, now: int) -> Self:
        """Begin a chain of root keys with this one."""
        return cls(key, (root.first(key, now=now),))

    @classmethod
    def parse(cls, raw: bytes) -> Self:
        """Read `root.key`; raises `Unusable`."""
        data = _read(raw, _ROOT)
        try:
            key = SigningKey.from_base64(fields.text(data, "signing_key", most=256))
            documents = tuple(fields.items(data, "roots", most=root.MAX_ROOTS))
            known = _newest(documents)
            if known.verify_key != key.verify_key:
                raise Unusable("the chain of root documents ends with another key")
            if data.get("revocations") is not None:
                root.revocations(known, data["revocations"])
        except (Refused, ValueError) as error:
            raise Unusable(str(error)) from None
        return cls(key, documents, data.get("revocations"))

    def encode(self) -> bytes:
        """Return the bytes of `root.key`."""
        return _write(_ROOT, self.key, roots=list(self.documents), revocations=self.revocations)

    @property
    def verify_key(self) -> VerifyKey:
        """The half that clients know."""
        return self.key.verify_key

    @property
    def revoked(self) -> tuple[str, ...]:
        """The keys revoked so far, in base64."""
        return _revoked(self.revocations)

    def certify(
        self,
        online: SigningKey,
        *,
        now: int,
        lasting_s: int = CERTIFIED_S,
        communities: Collection[str] | None = None,
        after: Publisher | None = None,
    ) -> Publisher:
        """Return publishing keys for an online key; *after* are those that it had before."""
        serial = max(now, certificate(after).serial + 1) if after else now
        signed = root.certify(
            self.key,
            online.verify_key,
            serial=serial,
            not_before=now,
            expires_at=now + lasting_s,
            communities=communities,
        )
        return Publisher(online, signed, self.documents, self.revocations)

    def renew(self, keys: Publisher, *, now: int, lasting_s: int | None = None) -> Publisher:
        """Certify the same online key again, for as long as before if nothing else is said."""
        old = certificate(keys)
        return self.certify(
            keys.key,
            now=now,
            lasting_s=lasting_s or max(old.expires_at - now, 1),
            communities=old.communities,
            after=keys,
        )

    def revoke(
        self, verify_keys: Collection[VerifyKey], *, now: int, known: Publisher | None = None
    ) -> Self:
        """Revoke more keys; *known* may hold a newer list of the same root key."""
        lists = [self.revocations, known.revocations if known else None]
        versions = [_revocations(found).version for found in lists if found]
        before = {key for found in lists for key in _revoked(found)}
        keys = {VerifyKey.from_base64(key) for key in before} | set(verify_keys)
        signed = root.revoke(self.key, keys, version=max(versions, default=0) + 1, now=now)
        return replace(self, revocations=signed)

    def succeed(self, new: SigningKey, *, now: int) -> Self:
        """Return the root key that follows: signed by this one, and signing what it signed."""
        if len(self.documents) >= root.MAX_ROOTS:
            raise Unusable(f"a chain has at most {root.MAX_ROOTS} root keys", "begin a new one")
        document = root.rotate(self.documents[-1], old=self.key, new=new, now=now)
        revocations = None
        if self.revocations is not None:
            found = _revocations(self.revocations)
            keys = [VerifyKey.from_base64(key) for key in found.verify_keys]
            revocations = root.revoke(new, keys, version=found.version + 1, now=now)
        return replace(
            self, key=new, documents=(*self.documents, document), revocations=revocations
        )


def encode(keys: Publisher) -> bytes:
    """Return the bytes of `publishing.key`."""
    return _write(
        _PUBLISHING,
        keys.key,
        certificate=keys.certificate,
        roots=list(keys.roots),
        revocations=keys.revocations,
    )


def parse(raw: bytes) -> Publisher:
    """Read `publishing.key`, and check that clients will believe it; raises `Unusable`."""
    data = _read(raw, _PUBLISHING)
    try:
        key = SigningKey.from_base64(fields.text(data, "signing_key", most=256))
        documents = fields.items(data, "roots", most=root.MAX_ROOTS)
        known = _newest(documents)
        found = root.certificate(known, data.get("certificate"))
        if data.get("revocations") is not None:
            root.revocations(known, data["revocations"])
    except (Refused, ValueError) as error:
        raise Unusable(str(error)) from None
    if found.verify_key != key.verify_key:
        raise Unusable("the certificate is another key's")
    return Publisher(key, data["certificate"], tuple(documents), data.get("revocations"))


def certificate(keys: Publisher) -> Certificate:
    """Return what the root key says of the online key."""
    return Certificate.from_json(_payload(keys.certificate))


def root_key(keys: Publisher) -> VerifyKey:
    """Return the newest root key's half that clients know."""
    return fields.verify_key(_payload(keys.roots[-1]))


def revoked(keys: Publisher) -> tuple[str, ...]:
    """Return the keys that the root key has revoked, in base64."""
    return _revoked(keys.revocations)


def check(keys: Publisher, *, now: int) -> None:
    """Raise `Unusable` if no client would believe what these keys sign now."""
    found = certificate(keys)
    if found.verify_key.to_base64() in revoked(keys):
        raise Unusable("the online key was revoked", _ANOTHER)
    if found.expires_at <= now:
        raise Unusable("the online key's certificate is past its time", _ANOTHER)


def _newest(documents: Sequence[Any]) -> root.Root:
    """Follow a chain of root documents from its own first key to its end."""
    if not documents:
        raise Unusable("there is no root document")
    first = fields.verify_key(Envelope.from_json(documents[0], "a root document").payload)
    return root.follow(root.Root(0, first), documents)


def _payload(envelope: Mapping[str, Any]) -> Mapping[str, Any]:
    return fields.members(envelope.get("payload"), "a payload")


def _revocations(envelope: Mapping[str, Any]) -> Revocations:
    return Revocations.from_json(_payload(envelope))


def _revoked(envelope: Mapping[str, Any] | None) -> tuple[str, ...]:
    return _revocations(envelope).verify_keys if envelope else ()


def _read(raw: bytes, kind: str) -> dict[str, Any]:
    try:
        data = fields.members(canonical.loads(raw[:MAX_FILE_BYTES]), "the file")
        fields.constant(data, "type", kind)
        fields.constant(data, "version", 1)
    except Refused as refusal:
        raise Unusable(f"this is no {kind.removeprefix('muster-')}: {refusal.message}") from None
    return data


def _write(kind: str, key: SigningKey, **members: Any) -> bytes:
    whole = {
        "type": kind,
        "version": 1,
        "verify_key": key.verify_key.to_base64(),
        "key_id": key.verify_key.key_id,
        "signing_key": key.to_base64(),
        **members,
    }
    return json.dumps(whole, separators=(",", ":")).encode() + b"\n"


__all__ = [
    "CERTIFIED_S",
    "DAY_S",
    "WARN_S",
    "RootKey",
    "Unusable",
    "certificate",
    "check",
    "encode",
    "parse",
    "revoked",
    "root_key",
]
