"""Signals: WebRTC offers, answers and candidates left for a node.

Reading takes nothing away, because one node has several readers, each with its
own cursor; and numbers never start again, because a reader whose cursor is
higher would go deaf.

A node has a journal in each circle, so that no other circle can fill it. Readers
of the existing browser client name no circle and expect the signals of all; for
them, where unsigned calls are allowed, there is a second journal of each node.
Two such clients that share two circles have one session id for both, and each
takes the answers of either circle for its own: what does not belong to the circle
of the session's newest offer is left out of what they are told.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence

import msgspec

from chalicelib import tables
from chalicelib.call import Call, Done
from chalicelib.circle import journal, rooms
from chalicelib.service import Service
from chalicelib.settings import Settings
from muster.errors import MailboxFull
from muster.felund import frames, records

PAGE = 200
PAGE_BYTES = 1024 * 1024
SCAN_BYTES = 8 * 1024 * 1024
ENTRY_BYTES = 512
_LARGEST_BYTES = 8 * records.MAX_PAYLOAD_CHARS  # more than any signal has
"""What a signal takes beside its payload."""

_STALE = {
    # A fresh offer starts a new connection: all the old one said is void. A media
    # offer renegotiates a connection whose candidates stay good. What comes before the
    # first offer is early, and belongs to it.
    "offer": frozenset({"offer", "answer", "candidate"}),
    "media-offer": frozenset({"media-offer"}),
}
_FOLLOWING = frozenset({"answer", "candidate"})
"""What belongs to an offer; calls have sessions of their own in each circle."""


class _Kept(msgspec.Struct, frozen=True):
    """A signal as it is stored."""

    session_id: str
    from_node: str
    type: records.SignalType
    payload: str
    created_at: int
    expires_at: int
    circle_hint: str
    signed: bool


_decoder = msgspec.json.Decoder(_Kept)


def leave(service: Service, call: Call, ask: records.LeaveSignal) -> Done:
    """Keep a signal for its node until it expires, and tell the node if it listens."""
    kept = _Kept(
        session_id=ask.session_id,
        from_node=ask.from_node_id,
        type=ask.type,
        payload=ask.payload,
        created_at=call.now,
        expires_at=call.now + _ttl(service.settings, ask),
        circle_hint=ask.circle_hint,
        signed=call.signed,
    )
    size = len(ask.payload) + ENTRY_BYTES
    service.quotas.add_mail(call.source_ip, size, lifetime_s=tables.SIGNAL_KEPT_S, clock=call.clock)
    if service.settings.unsigned == "allow":
        if kept.type == "offer":
            _note_offer(service, call, kept)
        _keep_for_all(service, call, ask.to_node_id, kept)
    number = _keep(service, call, tables.signal_key(ask.circle_hint, ask.to_node_id), kept)
    frame = frames.Signals(signals=(_signal(number, ask.to_node_id, kept),))
    effects = rooms.tell(service, ask.circle_hint, frame, call, only=ask.to_node_id)
    return Done(records.SignalLeft(server_time=call.now, id=number), effects)


def poll(service: Service, call: Call, ask: records.PollSignals) -> records.Signals:
    """Return the signals for a node after an id, oldest first."""
    found: list[tuple[int, _Kept]] = []
    size = scanned = 0
    pk = (
        tables.all_signals_key(ask.to_node_id)
        if ask.circle_hint is None
        else tables.signal_key(ask.circle_hint, ask.to_node_id)
    )
    belongs = _of_newest_offer(service, ask, now=call.now)
    entries = journal.following(service.stores.mail, pk, max(ask.since_id, 0), now=call.now)
    for entry in entries:
        for part in entry.parts:
            scanned += len(part.body)
            kept = _decoder.decode(part.body)
            live = kept.expires_at > call.now
            wanted = live and ask.session_id in (None, kept.session_id)
            if wanted and belongs(entry.number, kept):
                found.append((entry.number, kept))
                size += len(part.body)
        if len(found) >= PAGE or size >= PAGE_BYTES or scanned >= SCAN_BYTES:
            break
    signals = tuple(_signal(number, ask.to_node_id, kept) for number, kept in _fresh(found))
    return records.Signals(signals=signals, server_time=call.now)


def _keep(service: Service, call: Call, pk: str, kept: _Kept) -> int:
    """Append a signal to a journal and return its number."""
    part = journal.Part("", msgspec.json.encode(kept), unsigned=not kept.signed)

    def prepare(tail: journal.Entry | None) -> Sequence[journal.Part]:
        fit(service, pk, tail, part, now=call.now)
        return (part,)

    runs = journal.append(
        service.stores.mail, pk, prepare, clock=call.clock, lifetime_s=tables.SIGNAL_KEPT_S
    )
    return runs[-1].number


def _keep_for_all(service: Service, call: Call, to_node_id: str, kept: _Kept) -> None:
    """Keep a signal for readers who name no circle.

    Anybody can fill that journal, so a member who signs is not refused for it.
    """
    try:
        _keep(service, call, tables.all_signals_key(to_node_id), kept)
    except MailboxFull:
        if not kept.signed:
            raise


def _fresh(found: Iterable[tuple[int, _Kept]]) -> list[tuple[int, _Kept]]:
    """Drop what a newer offer of the same session and sender has made void."""
    fresh: list[tuple[int, _Kept]] = []
    for number, kept in found:
        if kept.type in _STALE:
            void = _voided(fresh, kept)
            fresh = [(older, other) for older, other in fresh if older not in void]
        fresh.append((number, kept))
    return fresh


def _note_offer(service: Service, call: Call, kept: _Kept) -> None:
    """Note an offer before anybody can answer it; an unsigned one displaces no signed one."""
    known = tables.offer(service.stores, kept.session_id, now=call.now)
    if known is not None and known.signed and not kept.signed:
        return
    pk = tables.all_signals_key(kept.from_node)
    tail = journal.last(service.stores.mail, pk, now=call.now)
    after = tail.number if tail else 0
    offer = tables.Offer(kept.circle_hint, kept.from_node, after, kept.signed)
    until = call.now + tables.SIGNAL_KEPT_S
    tables.save_offer(service.stores, kept.session_id, offer, until=until)


def _of_newest_offer(
    service: Service, ask: records.PollSignals, *, now: int
) -> Callable[[int, _Kept], bool]:
    """Return who says whether a signal belongs to its session's newest offer, in any circle.

    Where a circle is named there is no other to tell it from. So many sessions are looked
    up as a page may have; who floods a node with more of them only gains what it had.
    """
    offers: dict[str, tables.Offer | None] = {}

    def belongs(number: int, kept: _Kept) -> bool:
        if ask.circle_hint is not None or kept.type not in _FOLLOWING:
            return True
        if kept.session_id not in offers and len(offers) < PAGE:
            offers[kept.session_id] = tables.offer(service.stores, kept.session_id, now=now)
        offer = offers.get(kept.session_id)
        if offer is None:
            return True
        late = number > offer.after or offer.from_node != ask.to_node_id
        return late and offer.circle_hint == kept.circle_hint

    return belongs


def _voided(before: Iterable[tuple[int, _Kept]], offer: _Kept) -> set[int]:
    """Return the signals that an offer makes void; the first has early candidates, no old ones."""
    stale = [
        (number, kept)
        for number, kept in before
        if kept.type in _STALE[offer.type]
        and kept.session_id == offer.session_id
        and kept.from_node == offer.from_node
        and kept.circle_hint == offer.circle_hint
        and kept.signed <= offer.signed
    ]
    first = all(kept.type != offer.type for _, kept in stale)
    return {number for number, kept in stale if not (first and kept.type == "candidate")}


def fit(
    service: Service, pk: str, tail: journal.Entry | None, part: journal.Part, *, now: int
) -> None:
    """Refuse a signal where enough of its kind wait: unsigned ones take no room from the others."""
    chosen = service.settings
    most = chosen.unsigned_signals if part.unsigned else chosen.signals_waiting
    room = journal.Amount(most, most * _LARGEST_BYTES)
    if not journal.fits(service.stores.mail, pk, tail, (part,), most=room, now=now):
        raise MailboxFull(f"{most} signals wait for this node; try again later", retry_after_s=60)


def _ttl(settings: Settings, ask: records.LeaveSignal) -> int:
    longest = settings.candidate_max_ttl_s if "candidate" in ask.type else settings.signal_max_ttl_s
    wanted = ask.ttl_s
    if isinstance(wanted, bool) or not isinstance(wanted, int | float) or not math.isfinite(wanted):
        return longest
    return int(min(max(wanted, 10), longest))


def _signal(number: int, to_node_id: str, kept: _Kept) -> records.Signal:
    return records.Signal(
        id=number,
        session_id=kept.session_id,
        from_node=kept.from_node,
        to_node=to_node_id,
        type=kept.type,
        payload=kept.payload,
        created_at=kept.created_at,
    )
