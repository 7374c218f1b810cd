"""Manifests: which capsule is the newest, until when, and who says so.

``peers.json.manifest`` keeps the three members that existing tools write and adds envelopes:
the manifest, signed by the online key; that key's certificate, the revocations and the chain
of roots, signed by root keys (docs/formats.md, Manifest). Times are Unix seconds.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, Self

from capsules import canonical, capsule, fields
from capsules.capsule import pretty
from capsules.envelope import Envelope, Purpose, seal
from capsules.errors import Reason, Refused
from capsules.keys import SigningKey, VerifyKey
from capsules.root import MAX_ROOTS, Revocations
from capsules.ticket import ALGORITHM, Ticket

MAX_MANIFEST_BYTES = 131_072
MAX_SOURCES = 16
MAX_VALID_S = 604_800
"""The longest time a manifest may be valid: a week."""

FRESH_S = 900
VALID_S = 86_400

_URL = re.compile(r"https?://[\x21-\x7e]{1,500}", re.ASCII)


@dataclass(frozen=True, slots=True)
class Manifest:
    """What the online key says of the newest capsule.

    ``revocations`` is the version of the list beside it, 0 if there is none.
    """

    community: str
    sequence: int
    issued_at: int
    fresh_until: int
    valid_until: int
    revocations: int
    sha256: str
    length: int
    beacons: tuple[str, ...]
    capsules: tuple[str, ...]

    @classmethod
    def from_json(cls, payload: Mapping[str, Any]) -> Self:
        """Read the payload of a manifest."""
        fields.constant(payload, "type", "manifest")
        described = fields.members(payload.get("capsule"), "capsule")
        manifest = cls(
            community=fields.community(payload),
            sequence=fields.integer(payload, "sequence", least=1),
            issued_at=fields.integer(payload, "issued_at"),
            fresh_until=fields.integer(payload, "fresh_until"),
            valid_until=fields.integer(payload, "valid_until"),
            revocations=fields.integer(payload, "revocations"),
            sha256=fields.sha256(described, "sha256"),
            length=fields.integer(described, "length", least=1),
            beacons=_urls(payload, "beacons"),
            capsules=_urls(payload, "capsules"),
        )
        if not manifest.issued_at <= manifest.fresh_until <= manifest.valid_until:
            raise fields.malformed("issued_at, fresh_until and valid_until must be in this order")
        return manifest

    def to_json(self) -> dict[str, Any]:
        """Return the payload that is signed."""
        return {
            "type": "manifest",
            "community": self.community,
            "sequence": self.sequence,
            "issued_at": self.issued_at,
            "fresh_until": self.fresh_until,
            "valid_until": self.valid_until,
            "revocations": self.revocations,
            "capsule": {"sha256": self.sha256, "length": self.length},
            "beacons": list(self.beacons),
            "capsules": list(self.capsules),
        }


@dataclass(frozen=True, slots=True)
class Document:
    """The whole file ``peers.json.manifest``; it has the right shape, no signature is checked."""

    verify_key: VerifyKey
    manifest: Envelope
    certificate: Any
    revocations: Any | None
    roots: tuple[Any, ...]

    @classmethod
    def parse(cls, raw: bytes) -> Self:
        """Read the file; what is too large is not parsed.

        Raises `Refused`: ``TOO_LARGE``, ``MALFORMED`` or ``UNSUPPORTED_ALGORITHM``.
        """
        if len(raw) > MAX_MANIFEST_BYTES:
            raise Refused(Reason.TOO_LARGE, f"a manifest has at most {MAX_MANIFEST_BYTES} bytes")
        data = fields.members(canonical.loads(raw), "the file")
        fields.constant(data, "version", 1)
        if data.get("algorithm") != ALGORITHM:
            raise Refused(Reason.UNSUPPORTED_ALGORITHM, "only ed25519 is understood")
        return cls(
            verify_key=fields.verify_key(data, "publicKey"),
            manifest=Envelope.from_json(data.get("manifest"), "manifest"),
            certificate=data.get("certificate"),
            revocations=data.get("revocations"),
            roots=tuple(fields.items(data, "roots", most=MAX_ROOTS)),
        )


class Publisher(NamedTuple):
    """What a server needs to publish: the online key, and what the root key signed for it."""

    key: SigningKey
    certificate: Mapping[str, Any]
    roots: Sequence[Mapping[str, Any]] = ()
    revocations: Mapping[str, Any] | None = None


class Files(NamedTuple):
    """The three files of a published capsule; write the manifest last."""

    capsule: bytes
    signature: bytes
    manifest: bytes


def build(publisher: Publisher, manifest: Manifest) -> bytes:
    """Return the bytes of ``peers.json.manifest``.

    Raises `Refused` (``MALFORMED``, ``TOO_LARGE``) for a file that no client would read.
    """
    Manifest.from_json(manifest.to_json())
    raw = pretty(
        {
            "version": 1,
            "algorithm": ALGORITHM,
            "publicKey": publisher.key.verify_key.to_base64(),
            "manifest": seal(Purpose.MANIFEST, manifest.to_json(), publisher.key),
            "certificate": publisher.certificate,
            "revocations": publisher.revocations,
            "roots": list(publisher.roots),
        }
    )
    Document.parse(raw)
    return raw


def publish(
    publisher: Publisher,
    tickets: Iterable[Ticket],
    *,
    community: str,
    now: int,
    previous: int = 0,
    fresh_s: int = FRESH_S,
    valid_s: int = VALID_S,
    beacons: Sequence[str] = (),
    capsules: Sequence[str] = (),
) -> Files:
    """Build the three files of a community's next capsule.

    *previous* is the sequence of the one that is published now, 0 if there is none.
    Raises `ValueError` for tickets that are not listable and when *previous* is not in the past.
    """
    peers = capsule.build(
        publisher.key, tickets, community=community, now_ms=now * 1000, ttl_ms=valid_s * 1000
    )
    manifest = Manifest(
        community=community,
        sequence=next_sequence(previous, now=now),
        issued_at=now,
        fresh_until=now + fresh_s,
        valid_until=now + valid_s,
        revocations=_version(publisher.revocations),
        sha256=hashlib.sha256(peers).hexdigest(),
        length=len(peers),
        beacons=tuple(beacons),
        capsules=tuple(capsules),
    )
    return Files(peers, capsule.signature_file(peers), build(publisher, manifest))


def next_sequence(previous: int, *, now: int) -> int:
    """Return the sequence of a manifest issued now: the second itself.

    A sequence beyond the second of its issue is refused by clients: nobody can run so far
    ahead that the honest publisher cannot catch up (docs/adr/0009). Raises `ValueError` when
    *previous* is not smaller: somebody else published in this second, or a clock is wrong.
    """
    if previous >= now:
        raise ValueError(f"sequence {previous} is already published, and it is {now} now")
    return now


def sequence_of(raw: bytes) -> int:
    """Return the sequence in ``peers.json.manifest``, unverified: for the publisher's own file."""
    return Manifest.from_json(Document.parse(raw).manifest.payload).sequence


def _version(revocations: Mapping[str, Any] | None) -> int:
    return 0 if revocations is None else Revocations.from_json(revocations["payload"]).version


def _urls(payload: Mapping[str, Any], name: str) -> tuple[str, ...]:
    urls = fields.items(payload, name, most=MAX_SOURCES)
    return tuple(fields.matching({name: url}, name, _URL) for url in urls)
