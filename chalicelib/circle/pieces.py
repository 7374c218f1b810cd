"""Pieces: a message that is too large for one item is divided over several.

The pieces are written before the entry that names them, and they live longer than it
does, so that no reader finds half a message. Where some are missing all the same (an
operator deleted them, say), readers leave the message out.
"""

from __future__ import annotations

import hashlib
from collections.abc import Collection

from chalicelib import tables
from chalicelib.call import Call
from chalicelib.circle import journal
from chalicelib.service import Service
from chalicelib.store import Item, Store

PIECE_BYTES = 256 * 1024
"""How much one item holds; DynamoDB takes 400 KB."""

SLACK_S = 3600
"""How much longer than its message a piece lives, dates ahead of the clock included."""

_PAGE = 16


class Batch:
    """One call's messages on their way into the journal: the large ones are written once."""

    def __init__(self, service: Service, call: Call, circle_hint: str) -> None:
        self._service, self._call, self._circle_hint = service, call, circle_hint
        self._written: dict[str, journal.Part] = {}

    def fit(self, part: journal.Part, tail: journal.Entry | None) -> journal.Part:
        """Return a part as it is to stand after *tail*: one that is too large without its bytes."""
        if part.size <= journal.ENTRY_BYTES:
            return part
        if part.name not in self._written:
            self._written[part.name] = self._write(part, tail)
        return self._written[part.name]

    def tidy(self, kept: Collection[str]) -> None:
        """Remove the pieces of messages that are not in the journal by this call."""
        for name, part in self._written.items():
            if name not in kept:
                pk = _key(self._circle_hint, part)
                _drop(self._service.stores.mail, pk, part.size, now=self._call.now)

    def _write(self, part: journal.Part, tail: journal.Entry | None) -> journal.Part:
        # The name is new each time: of two callers with one message, one removes its pieces.
        name = hashlib.sha256(self._service.entropy(16) + part.body).hexdigest()[:32]
        apart = journal.Part(part.name, name.encode(), part.size, part.unsigned)
        since = max(self._call.now, tail.written_at if tail else 0)
        until = since + self._service.settings.message_s + SLACK_S
        _keep(self._service.stores.mail, _key(self._circle_hint, apart), part.body, until=until)
        return apart


def body(service: Service, circle_hint: str, part: journal.Part, *, now: int) -> bytes | None:
    """Return a part's bytes, from wherever they are kept; None if a piece is missing."""
    if not part.apart:
        return part.body
    return _read(service.stores.mail, _key(circle_hint, part), part.apart, now=now)


def _key(circle_hint: str, part: journal.Part) -> str:
    return tables.pieces_key(circle_hint, part.body.decode())


def _keep(store: Store, pk: str, body: bytes, *, until: int) -> None:
    starts = range(0, len(body), PIECE_BYTES)
    store.put(
        *(
            Item(pk, f"{n:04d}", until, body[start : start + PIECE_BYTES])
            for n, start in enumerate(starts)
        )
    )


def _read(store: Store, pk: str, size: int, *, now: int) -> bytes | None:
    found, sk, more = bytearray(), "", True
    while more:
        page = store.after(pk, sk, limit=_PAGE, now=now)
        for item in page.items:
            found += item.body
            sk = item.sk
        more = page.more
    return bytes(found) if len(found) == size else None


def _drop(store: Store, pk: str, size: int, *, now: int) -> None:
    for n in range(-(-size // PIECE_BYTES)):
        store.delete(pk, f"{n:04d}", now=now)
