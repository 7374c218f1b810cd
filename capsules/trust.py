"""The trust machine: what was believed, and what may be believed next.

It reads no clock, no disk and no network. A client keeps one `State`, gives it every manifest
and capsule it fetched, from whatever source, and keeps the state it gets back, also the
one in a refusal (`Distrusted`). The order of the checks is in docs/formats.md (Trust); each
answers an attack of the TUF specification's list.
"""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any, NamedTuple, Self

from capsules import canonical, fields, root
from capsules.capsule import MAX_CAPSULE_BYTES, Capsule, Skipped
from capsules.envelope import Purpose
from capsules.errors import Reason, Refused
from capsules.keys import VerifyKey
from capsules.manifest import MAX_VALID_S, Document, Manifest
from capsules.root import Certificate, Root
from capsules.ticket import RULES, Rules, Ticket

TOLERANCE_S = 300
"""Accepted difference between the publisher's clock and ours."""

MAX_MEMORIES = 4096
"""How many signers' words a state holds; the oldest go first."""


@dataclass(frozen=True, slots=True)
class Memory:
    """The newest word of one signer for one community."""

    community: str
    verify_key: str
    pinned: bool
    sequence: int
    serial: int
    issued_at: int
    sha256: str


@dataclass(frozen=True, slots=True)
class State:
    """What a client has learned and must not forget."""

    root: Root
    revocations: int = 0
    revoked: frozenset[str] = frozenset()
    memories: tuple[Memory, ...] = ()

    @property
    def latest(self) -> int:
        """The newest instant that a signer who is not revoked has vouched for."""
        return max((memory.issued_at for memory in self.memories), default=0)

    def recall(self, community: str, verify_key: str, *, pinned: bool) -> Memory | None:
        """Return the newest word of a signer for a community."""
        wanted = (community, verify_key, pinned)
        for memory in self.memories:
            if (memory.community, memory.verify_key, memory.pinned) == wanted:
                return memory
        return None

    def highest(self, memory: Memory) -> int:
        """Return the sequence that this word may not be lower than; 0 if there is none.

        A community has one newest capsule, whichever certified key signed it, so that the
        key before cannot bring an old one back. A pinned key counts for itself alone: no root
        says what it has to do with others, and its sequences are milliseconds.
        """
        return max(
            (
                known.sequence
                for known in self.memories
                if known.community == memory.community
                and known.pinned == memory.pinned
                and (not known.pinned or known.verify_key == memory.verify_key)
            ),
            default=0,
        )

    def remember(self, memory: Memory) -> State:
        """Return the state with this newest word in place of the signer's last."""
        old = self.recall(memory.community, memory.verify_key, pinned=memory.pinned)
        kept = tuple(known for known in self.memories if known is not old)
        return replace(self, memories=(*kept, memory)[-MAX_MEMORIES:])

    def to_json(self) -> dict[str, Any]:
        """Return the state as JSON members, for the client's cache."""
        return {
            "version": 1,
            "root": {"version": self.root.version, "verify_key": self.root.verify_key.to_base64()},
            "revocations": {"version": self.revocations, "verify_keys": sorted(self.revoked)},
            "memories": [
                {
                    "community": memory.community,
                    "verify_key": memory.verify_key,
                    "pinned": memory.pinned,
                    "sequence": memory.sequence,
                    "serial": memory.serial,
                    "issued_at": memory.issued_at,
                    "sha256": memory.sha256,
                }
                for memory in self.memories
            ],
        }

    @classmethod
    def from_json(cls, data: Any) -> Self:
        """Read a state from the cache; raises `Refused` (``MALFORMED``) when it is damaged."""
        whole = fields.members(data, "the state")
        fields.constant(whole, "version", 1)
        known = fields.members(whole.get("root"), "root")
        revocations = fields.members(whole.get("revocations"), "revocations")
        revoked = frozenset(
            fields.verify_key({"verify_keys": key}, "verify_keys").to_base64()
            for key in fields.items(revocations, "verify_keys", most=root.MAX_REVOKED)
        )
        memories = (
            _memory(fields.members(entry, "a memory"))
            for entry in fields.items(whole, "memories", most=MAX_MEMORIES)
        )
        return cls(
            root=Root(fields.integer(known, "version"), fields.verify_key(known)),
            revocations=fields.integer(revocations, "version"),
            revoked=revoked,
            memories=_binding(memories, revoked),
        )


class Distrusted(Refused):
    """Something is not believed, and this is the state to keep all the same.

    It holds what was learned before the refusal (a newer root, revoked keys): who drops it lets
    an attacker who spoils the rest of a manifest hide a revocation.
    """

    def __init__(self, refusal: Refused, state: State) -> None:
        super().__init__(refusal.reason, refusal.message)
        self.state = state


class Expected(NamedTuple):
    """A manifest that is believed: fetch ``manifest.length`` bytes of capsule, and no more."""

    state: State
    manifest: Manifest
    verify_key: VerifyKey
    fresh: bool


class Accepted(NamedTuple):
    """A capsule that is believed, and the state to keep.

    ``fresh`` is false when a newer one should exist: look at other sources too. A pinned
    capsule has no manifest.
    """

    state: State
    capsule: Capsule
    tickets: tuple[Ticket, ...]
    skipped: tuple[Skipped, ...]
    manifest: Manifest | None
    fresh: bool


def begin(verify_key: VerifyKey) -> State:
    """Return the state of a client that knows a root key, of whatever version, and nothing else."""
    return State(Root(0, verify_key))


def expect(state: State, manifest: bytes, *, community: str, now: int) -> Expected:
    """Believe ``peers.json.manifest``, or raise `Distrusted` with the state to keep."""
    try:
        document = Document.parse(manifest)
        state = _follow(state, document)
        state = _revoke(state, document)
        _check_clock(state, now)
        certificate = root.certificate(state.root, document.certificate)
        _check_certificate(state, certificate, community=community, now=now)
        found = _read_manifest(document, certificate)
        _check_manifest(found, community=community, now=now)
        _check_complete(state, found)
        digest = hashlib.sha256(canonical.strict(document.manifest.payload)).hexdigest()
        state = _advance(
            state,
            Memory(
                community=community,
                verify_key=certificate.verify_key.to_base64(),
                pinned=False,
                sequence=found.sequence,
                serial=certificate.serial,
                issued_at=found.issued_at,
                sha256=digest,
            ),
        )
    except Refused as refusal:
        raise Distrusted(refusal, state) from refusal
    return Expected(state, found, certificate.verify_key, now < found.fresh_until)


def accept(
    state: State,
    manifest: bytes,
    capsule: bytes,
    signature: bytes | None = None,
    *,
    community: str,
    now: int,
    rules: Rules = RULES,
) -> Accepted:
    """Believe a published capsule, or raise `Distrusted` with the state to keep.

    *signature* is ``peers.json.sig`` for those who fetched it; nothing depends on it.
    """
    expected = expect(state, manifest, community=community, now=now)
    try:
        _check_bytes(expected.manifest, capsule)
        found = Capsule.parse(capsule)
        _check_capsule(found, signature, community=community)
        found.verify(expected.verify_key, now_ms=now * 1000)
    except Refused as refusal:
        raise Distrusted(refusal, expected.state) from refusal
    tickets, skipped = _tickets(expected.state, found, now=now, rules=rules)
    return Accepted(expected.state, found, tickets, skipped, expected.manifest, expected.fresh)


def accept_pinned(
    state: State,
    capsule: bytes,
    key: VerifyKey,
    *,
    community: str | None,
    now: int,
    rules: Rules = RULES,
) -> Accepted:
    """Believe a capsule without manifest because the caller pinned its key (URL#KEY).

    With *community* None it may be any community's, as for existing clients.

    What is lost: the key cannot be rotated or certified, revocations come only with somebody
    else's manifest, a frozen capsule passes until its own expiry, and nothing says where else
    to look. Rollback is still noticed, by ``issuedAt``.
    """
    try:
        found = _check_pinned(state, capsule, key, community=community, now=now)
        word = Memory(
            community=found.community or "",
            verify_key=key.to_base64(),
            pinned=True,
            sequence=found.issued_at_ms,
            serial=0,
            issued_at=found.issued_at_ms // 1000,
            sha256=hashlib.sha256(found.message).hexdigest(),
        )
        state = _advance(state, word)
    except Refused as refusal:
        raise Distrusted(refusal, state) from refusal
    tickets, skipped = _tickets(state, found, now=now, rules=rules)
    return Accepted(state, found, tickets, skipped, None, fresh=True)


def _follow(state: State, document: Document) -> State:
    """Go to the newest root, whatever else the manifest is worth."""
    newest = root.follow(state.root, document.roots)
    if newest.verify_key == state.root.verify_key:
        return replace(state, root=newest)
    # What the last root revoked stays so until the new one signs a list, of any version.
    return replace(state, root=newest, revocations=0)


def _revoke(state: State, document: Document) -> State:
    """Take newer revocations, whatever else the manifest is worth."""
    if document.revocations is None:
        return state
    found = root.revocations(state.root, document.revocations)
    if found.version <= state.revocations:
        return state
    revoked = frozenset(found.verify_keys)
    kept = _binding(state.memories, revoked)
    return replace(state, revocations=found.version, revoked=revoked, memories=kept)


def _binding(memories: Iterable[Memory], revoked: Collection[str]) -> tuple[Memory, ...]:
    """Leave out a thief's words: they bind nobody, neither by sequence nor by time."""
    return tuple(memory for memory in memories if memory.verify_key not in revoked)


def _check_clock(state: State, now: int) -> None:
    if now + TOLERANCE_S < state.latest:
        raise Refused(Reason.CLOCK_WRONG, "the clock is behind what was already seen signed")


def _check_certificate(state: State, certificate: Certificate, *, community: str, now: int) -> None:
    if certificate.verify_key.to_base64() in state.revoked:
        raise Refused(Reason.REVOKED_KEY, "the publisher's key was revoked")
    if certificate.not_before > now + TOLERANCE_S:
        raise Refused(Reason.CERTIFICATE_NOT_YET_VALID, "the certificate is from the future")
    if certificate.expires_at <= now:
        raise Refused(Reason.CERTIFICATE_EXPIRED, "the certificate is past its time")
    if not certificate.covers(community):
        raise Refused(Reason.WRONG_COMMUNITY, "the key may not publish for this community")


def _read_manifest(document: Document, certificate: Certificate) -> Manifest:
    if document.verify_key != certificate.verify_key:
        raise Refused(Reason.KEY_MISMATCH, "the certificate is another key's")
    if not document.manifest.signed_by(certificate.verify_key, Purpose.MANIFEST):
        raise Refused(Reason.SIGNATURE_INVALID, "the publisher did not sign this manifest")
    return Manifest.from_json(document.manifest.payload)


def _check_manifest(manifest: Manifest, *, community: str, now: int) -> None:
    if manifest.community != community:
        raise Refused(Reason.WRONG_COMMUNITY, "the manifest is another community's")
    if manifest.issued_at > now + TOLERANCE_S:
        raise Refused(Reason.NOT_YET_VALID, "the manifest is from the future, or the clock slow")
    if manifest.sequence > manifest.issued_at:
        raise Refused(Reason.FAST_FORWARD, "the sequence is ahead of its time")
    if manifest.valid_until - manifest.issued_at > MAX_VALID_S:
        raise Refused(Reason.LIFETIME_TOO_LONG, "the manifest is valid for more than a week")
    if manifest.valid_until <= now:
        raise Refused(Reason.FROZEN, "the manifest is past its time, or the clock fast")
    if manifest.length > MAX_CAPSULE_BYTES:
        raise Refused(Reason.TOO_LARGE, f"a capsule has at most {MAX_CAPSULE_BYTES} bytes")


def _check_complete(state: State, manifest: Manifest) -> None:
    if state.revocations < manifest.revocations:
        raise Refused(Reason.REVOCATIONS_INVALID, "the revocations were taken out of the manifest")


def _check_bytes(manifest: Manifest, capsule: bytes) -> None:
    if len(capsule) != manifest.length:
        raise Refused(Reason.LENGTH_MISMATCH, "the capsule is not as long as its manifest says")
    if hashlib.sha256(capsule).hexdigest() != manifest.sha256:
        raise Refused(Reason.HASH_MISMATCH, "the capsule is not the one of this manifest")


def _check_capsule(capsule: Capsule, signature: bytes | None, *, community: str) -> None:
    if signature is not None and signature != capsule.signature.encode():
        raise Refused(Reason.SIGNATURE_MISMATCH, "peers.json.sig is not of this capsule")
    if capsule.community != community:
        raise Refused(Reason.WRONG_COMMUNITY, "the capsule is another community's")


def _check_pinned(
    state: State, capsule: bytes, key: VerifyKey, *, community: str | None, now: int
) -> Capsule:
    _check_clock(state, now)
    if key.to_base64() in state.revoked:
        raise Refused(Reason.REVOKED_KEY, "the pinned key was revoked")
    found = Capsule.parse(capsule)
    found.verify(key, now_ms=now * 1000)
    if community is not None and found.community != community:
        raise Refused(Reason.WRONG_COMMUNITY, "the capsule is another community's")
    if found.issued_at_ms > (now + TOLERANCE_S) * 1000:
        raise Refused(Reason.NOT_YET_VALID, "the capsule is from the future, or the clock slow")
    if found.expires_at_ms - found.issued_at_ms > MAX_VALID_S * 1000:
        raise Refused(Reason.LIFETIME_TOO_LONG, "the capsule lives longer than a week")
    return found


def _advance(state: State, memory: Memory) -> State:
    if memory.sequence < state.highest(memory):
        raise Refused(Reason.ROLLBACK, "something newer was already said of this community")
    known = state.recall(memory.community, memory.verify_key, pinned=memory.pinned)
    if known is not None:
        _check_again(known, memory)
    return state.remember(memory)


def _check_again(known: Memory, memory: Memory) -> None:
    if memory.serial < known.serial:
        raise Refused(Reason.ROLLBACK, "the signer has shown a newer certificate")
    if memory.sequence == known.sequence and memory.sha256 != known.sha256:
        raise Refused(Reason.EQUIVOCATION, "the signer has said something else under this number")


def _tickets(
    state: State, capsule: Capsule, *, now: int, rules: Rules
) -> tuple[tuple[Ticket, ...], tuple[Skipped, ...]]:
    known = replace(rules, revoked=rules.revoked | state.revoked)
    return capsule.tickets(now_ms=now * 1000, rules=known)


def _memory(data: Mapping[str, Any]) -> Memory:
    pinned = data.get("pinned")
    if not isinstance(pinned, bool):
        raise fields.malformed("pinned must be true or false")
    return Memory(
        community=fields.text(data, "community", most=256),
        verify_key=fields.verify_key(data).to_base64(),
        pinned=pinned,
        sequence=fields.integer(data, "sequence"),
        serial=fields.integer(data, "serial"),
        issued_at=fields.integer(data, "issued_at"),
        sha256=fields.sha256(data, "sha256"),
    )
