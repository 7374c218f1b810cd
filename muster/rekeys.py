"""Rekeys: the founder's word for who stays in a circle, with the next secret boxed to each.

Whoever is left out cannot open a box, and what it said after the rekey counts for nothing:
*out* names the last record of each that still does.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple, Self

from capsules import fields
from capsules.keys import SigningKey, VerifyKey
from muster import boxes, texts
from muster.base64url import encode
from muster.keys import MOST_EPOCHS, Epoch, Member, circle_id, label
from muster.seals import Said

MOST_MEMBERS = 4096
"""How many members a rekey names at the most."""

_HASH = re.compile(r"[0-9a-f]{64}", re.ASCII)


class Last(NamedTuple):
    """The last record of a member that still counts."""

    seq: int
    hash: bytes


@dataclass(frozen=True, slots=True)
class Rekey:
    """That an epoch begins, for whom, and up to where those who go are heard."""

    circle: bytes
    epoch: int
    at_ms: int
    keep: Mapping[bytes, bytes]
    out: Mapping[bytes, Last]

    @classmethod
    def from_said(cls, founder: VerifyKey, said: Said) -> Self:
        """Read a rekey and check that the founder signed it; raises `Refused`."""
        circle = circle_id(founder)
        data = texts.read("rekey", circle, said.text)
        keep, out = texts.ids(data, "keep"), texts.ids(data, "out")
        if len(keep) + len(out) > MOST_MEMBERS or keep.keys() & out.keys():
            raise fields.malformed(f"a rekey names each member once, {MOST_MEMBERS} at most")
        epoch = fields.integer(data, "epoch", least=1)
        if epoch > MOST_EPOCHS:
            raise fields.malformed("epochs are numbered in 32 bits")
        rekey = cls(
            circle=circle,
            epoch=epoch,
            at_ms=fields.integer(data, "at_ms"),
            keep={
                name: texts.raw({"box": box}, "box", boxes.BOX_BYTES) for name, box in keep.items()
            },
            out={name: _last(value) for name, value in out.items()},
        )
        texts.check("rekey", founder, said)
        return rekey

    def said(self, founder: SigningKey) -> Said:
        """Write and sign the rekey."""
        text = texts.write(
            "rekey",
            self.circle,
            {
                "epoch": self.epoch,
                "at_ms": self.at_ms,
                "keep": {name.hex(): encode(box) for name, box in self.keep.items()},
                "out": {name.hex(): [last.seq, last.hash.hex()] for name, last in self.out.items()},
            },
        )
        return Said(text, founder.sign(label("rekey") + text))

    def follow(self, member: Member) -> Epoch | None:
        """Return the epoch that begins, or None for a member who is left out.

        Raises `Refused` for a box that is not this member's.
        """
        closed = self.keep.get(member.id)
        if closed is None:
            return None
        bound = boxes.for_rekey(self.circle, self.epoch)
        return Epoch(self.circle, self.epoch, boxes.unbox(closed, member.box_key, bound))


def order(said: Said) -> bytes:
    """Return what decides between two rekeys to one epoch: the smaller stands."""
    return hashlib.sha256(said.text).digest()


def _last(value: Any) -> Last:
    if not isinstance(value, list) or len(value) != 2:
        raise fields.malformed("out names a number and a hash for each who goes")
    parts = dict(zip(("seq", "hash"), value, strict=True))
    return Last(fields.integer(parts, "seq"), bytes.fromhex(fields.matching(parts, "hash", _HASH)))
