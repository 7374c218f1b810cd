"""Records: what a member says, signed with its member key and chained to what it said before.

The chain is what makes a service unable to leave out, alter or reorder unseen: each record
holds its place and the hash of the one before. A record's name is the hash of its text;
sealed or signed twice, it is one record.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Self

from capsules import fields
from capsules.errors import Reason, Refused
from capsules.keys import VerifyKey
from muster import seals, texts
from muster.base64url import encode
from muster.keys import Epoch, Member, label, member_id
from muster.seals import Said

GENERAL = bytes(16)
"""The channel of whoever names none; what is about the circle itself stands there too."""

_KIND = re.compile(r"[a-z][a-z0-9_]{0,31}", re.ASCII)


@dataclass(frozen=True, slots=True)
class Record:
    """One thing that a member said. *seq* counts from 1, over all epochs."""

    circle: bytes
    epoch: int
    author: VerifyKey
    seq: int
    prev: bytes | None
    at_ms: int
    channel: bytes
    kind: str
    body: Mapping[str, Any]

    @property
    def author_id(self) -> bytes:
        """The member who said it."""
        return member_id(self.author.raw)

    @classmethod
    def from_said(cls, circle: bytes, said: Said) -> Self:
        """Read a record and check who signed it; raises `Refused`."""
        record = cls.read(circle, said)
        texts.check("record", record.author, said)
        return record

    @classmethod
    def read(cls, circle: bytes, said: Said) -> Self:
        """Read a record whose signature was checked before; raises `Refused`."""
        data = texts.read("record", circle, said.text)
        record = cls(
            circle=circle,
            epoch=fields.integer(data, "epoch"),
            author=texts.key(data, "author"),
            seq=fields.integer(data, "seq", least=1),
            prev=None if data.get("prev") is None else bytes.fromhex(fields.sha256(data, "prev")),
            at_ms=fields.integer(data, "at_ms"),
            channel=texts.identifier(data, "channel"),
            kind=fields.matching(data, "kind", _KIND),
            body=fields.members(data.get("body"), "body"),
        )
        if (record.seq == 1) != (record.prev is None):
            raise fields.malformed("the first record of a chain, and no other, follows none")
        return record

    def said(self, member: Member) -> Said:
        """Write and sign the record."""
        text = texts.write(
            "record",
            self.circle,
            {
                "epoch": self.epoch,
                "author": encode(self.author.raw),
                "seq": self.seq,
                "prev": None if self.prev is None else self.prev.hex(),
                "at_ms": self.at_ms,
                "channel": self.channel.hex(),
                "kind": self.kind,
                "body": self.body,
            },
        )
        return Said(text, member.key.sign(label("record") + text))


def record_hash(text: bytes) -> bytes:
    """Return the name of a record: the hash of what is signed."""
    return hashlib.sha256(label("record") + text).digest()


def seal(epoch: Epoch, said: Said, *, nonce: bytes) -> bytes:
    """Seal a record, or a rekey: a service cannot tell them apart."""
    return seals.seal(epoch.seal_key("record"), said, seals.for_record(epoch.hint), nonce=nonce)


def unseal(epoch: Epoch, sealed: bytes) -> Said:
    """Open what a mailbox keeps: the text of a record or of a rekey, still to be checked.

    Raises `Refused`.
    """
    if len(sealed) % seals.STEP_BYTES:
        raise Refused(Reason.MALFORMED, "a sealed record has a multiple of 256 bytes")
    return seals.unseal(epoch.seal_key("record"), sealed, seals.for_record(epoch.hint))
