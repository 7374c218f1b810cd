"""Signals: what one node says to another while they connect, sealed for the circle.

The sender's whole key stands in the text, so that a receiver who has not heard of the node
yet can check it; the seal is bound to sender and receiver.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Self

from capsules import fields
from capsules.errors import Reason, Refused
from capsules.keys import VerifyKey
from muster import seals, texts
from muster.base64url import encode
from muster.keys import Epoch, Node, label, node_id
from muster.seals import Said

_KIND = re.compile(r"[a-z][a-z0-9_]{0,31}", re.ASCII)


@dataclass(frozen=True, slots=True)
class Signal:
    """One signal of a session between two nodes of an epoch."""

    node: VerifyKey
    to: bytes
    session: bytes
    kind: str
    at_ms: int
    body: Mapping[str, Any] = field(default_factory=dict)

    @property
    def node_id(self) -> bytes:
        """Who says it."""
        return node_id(self.node)

    @classmethod
    def from_said(cls, epoch: Epoch, said: Said) -> Self:
        """Read a signal and check who signed it; raises `Refused`."""
        data = texts.read("signal", epoch.circle_id, said.text)
        if fields.integer(data, "epoch") != epoch.number:
            raise Refused(Reason.WRONG_CIRCLE, "the signal is another epoch's")
        signal = cls(
            node=texts.key(data, "node"),
            to=texts.identifier(data, "to"),
            session=texts.identifier(data, "session"),
            kind=fields.matching(data, "kind", _KIND),
            at_ms=fields.integer(data, "at_ms"),
            body=fields.members(data.get("body"), "body"),
        )
        texts.check("signal", signal.node, said)
        return signal

    def said(self, node: Node) -> Said:
        """Write and sign the signal."""
        text = texts.write(
            "signal",
            node.epoch.circle_id,
            {
                "epoch": node.epoch.number,
                "node": encode(self.node.raw),
                "to": self.to.hex(),
                "session": self.session.hex(),
                "kind": self.kind,
                "body": self.body,
                "at_ms": self.at_ms,
            },
        )
        return Said(text, node.key.sign(label("signal") + text))

    def check_time(self, *, now_ms: int) -> None:
        """Raise `Refused` if the signal is ten minutes off: old signals open no sessions."""
        if abs(now_ms - self.at_ms) > texts.AHEAD_MS:
            reason = Reason.EXPIRED if self.at_ms < now_ms else Reason.NOT_YET_VALID
            raise Refused(reason, "the signal was not made within ten minutes of now")


def seal(node: Node, signal: Signal, *, nonce: bytes) -> bytes:
    """Seal a signal; raises `ValueError` if it has more than 16 KiB then."""
    sealed = seals.seal(
        node.epoch.seal_key("signal"),
        signal.said(node),
        seals.for_signal(node.epoch.hint, node.id, signal.to),
        nonce=nonce,
    )
    if len(sealed) > seals.SIGNAL_BYTES:
        raise ValueError(f"a sealed signal has at most {seals.SIGNAL_BYTES} bytes")
    return sealed


def unseal(epoch: Epoch, node: bytes, to: bytes, sealed: bytes) -> Signal:
    """Open what a service says one node left for another, and check all that it claims.

    Raises `Refused`. Its time, and whether it came before, is the caller's to say.
    """
    return opened(epoch, node, to, sealed)[0]


def opened(epoch: Epoch, node: bytes, to: bytes, sealed: bytes) -> tuple[Signal, bytes]:
    """Do the same; return the text too, from which two nodes derive the keys of a session."""
    if len(sealed) > seals.SIGNAL_BYTES or len(sealed) % seals.STEP_BYTES:
        raise Refused(Reason.MALFORMED, "a sealed signal has a multiple of 256 bytes, 16 KiB most")
    bound = seals.for_signal(epoch.hint, node, to)
    said = seals.unseal(epoch.seal_key("signal"), sealed, bound)
    signal = Signal.from_said(epoch, said)
    if signal.node_id != node or signal.to != to:
        raise Refused(Reason.WRONG_NODE, "the signal is between other nodes")
    return signal, said.text
