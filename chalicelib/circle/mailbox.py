"""Mailbox: a circle's messages, in the order they arrived, for 30 days.

The service reads two members of a message, its id and its time; the rest is
sealed. Messages are told apart by id within their circle: the first copy wins.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from typing import NamedTuple

import msgspec

from chalicelib import tables
from chalicelib.call import Call, Done, Effect, Send
from chalicelib.circle import journal, pieces, rooms
from chalicelib.service import Service
from chalicelib.store import Full, Unavailable
from muster import structs
from muster.errors import MailboxFull, PayloadTooLarge
from muster.felund import frames, records

GRACE_S = 20
"""How long after a writer read its clock its entry may still land, clock differences included."""

PAGE_MOST = 500
REPLY_BYTES = 1024 * 1024
"""How many bytes of messages an answer has, unless the first of them needs more.

One message may have as many as `message_bytes`, and two seconds as many as the journal
puts into them: 1.5 MiB. Lambda passes 6 MB, counted with everything escaped: three bytes
for one at worst.
"""
BACKLOG = 200
BELIEVED_S = 3600
"""How long a process believes that a message is known; one that is stays so for 30 days."""

MESSAGE_BYTES = 512
"""What a message takes beside its own bytes: its name, and its part of an entry."""

_FRAME_ROOM = frames.MAX_PUSH_BYTES - 256


def leave(service: Service, call: Call, ask: records.LeaveMessages) -> Done:
    """Keep the messages that are new to the circle, all or none, and push them to its room."""
    parts = _parts(service, call, ask)
    pk = tables.mail_key(ask.circle_hint)
    batch = pieces.Batch(service, call, ask.circle_hint)
    cursor, admitted = 0, False

    def prepare(tail: journal.Entry | None) -> Sequence[journal.Part]:
        nonlocal cursor, admitted
        cursor = tail.number if tail else 0
        seen = _seen(service, ask.circle_hint, tail, parts, now=call.now)
        new = [part for part in parts if part.name not in seen]
        if new:
            if not admitted:  # a large batch is several entries, and in or out as a whole
                admit(service, call, pk, tail, new)
                admitted = True
            _name_last(service, ask.circle_hint, tail, now=call.now)
        return [batch.fit(part, tail) for part in new]

    try:
        runs = journal.append(
            service.stores.mail,
            pk,
            prepare,
            clock=call.clock,
            lifetime_s=service.settings.message_s,
        )
    except Full:
        with suppress(Unavailable):
            tail = journal.last(service.stores.mail, pk, now=call.now)
            batch.tidy(_seen(service, ask.circle_hint, tail, parts, now=call.now))
        raise
    batch.tidy({part.name for run in runs for part in run.parts})
    answer = records.MessagesLeft(
        stored=sum(len(run.parts) for run in runs),
        server_time=call.now,
        cursor=runs[-1].number if runs else cursor,
    )
    return Done(answer, _push(service, call, ask.circle_hint, runs))


def poll(service: Service, call: Call, ask: records.PollMessages) -> records.Messages:
    """Return messages after a cursor: exact for `after`, at least once for `since`."""
    limit = min(max(ask.limit, 1), PAGE_MOST)
    pk = tables.mail_key(ask.circle_hint)
    if ask.after is not None:
        page = page_after(service, pk, ask.after, limit=limit, now=call.now)
    else:
        page = _page_since(service, pk, ask.since, limit=limit, now=call.now)
    bodies = (
        pieces.body(service, ask.circle_hint, part, now=call.now)
        for entry in page.entries
        for part in entry.parts
    )
    return records.Messages(
        messages=tuple(msgspec.Raw(body) for body in bodies if body is not None),
        server_time=max(page.server_time, 0),
        cursor=page.cursor,
        more=page.more,
    )


def backlog(service: Service, socket: tables.Socket, *, now: int) -> tuple[Effect, ...]:
    """Return the messages of the last two minutes for a socket that has just opened."""
    pk = tables.mail_key(socket.circle_hint)
    entries = _recent(service, pk, now=now)
    start, count = len(entries), 0
    while start and entries[start - 1].written_at > now - service.settings.backlog_s:
        count += len(entries[start - 1].parts)
        if count > BACKLOG and start < len(entries):
            break
        start -= 1
    before = entries[start - 1].number if start else 0
    runs = []
    for entry in entries[start:]:
        runs.append(journal.Run(before or entry.number - 1, entry.number, entry.parts))
        before = entry.number
    return tuple(Send(socket.connection, frames.encode(frame)) for frame in _packed(runs, now=now))


def _recent(service: Service, pk: str, *, now: int) -> list[journal.Entry]:
    """Return the newest entries, at least those of the backlog; few are read if few are recent."""
    entries: list[journal.Entry] = []
    for size in (1, 8, 64, BACKLOG):
        entries, older = journal.latest(service.stores.mail, pk, limit=size, now=now)
        if not older or entries[0].written_at <= now - service.settings.backlog_s:
            break
    return entries


def _parts(service: Service, call: Call, ask: records.LeaveMessages) -> tuple[journal.Part, ...]:
    """Check every message before any is written; of copies in one batch the first counts."""
    most = service.settings.message_bytes
    parts: dict[str, journal.Part] = {}
    for message in ask.messages:
        head = structs.from_json(message, records.MessageHead)
        body = msgspec.json.encode(message)
        if len(body) > most:
            raise PayloadTooLarge(f"a message may have {most} bytes; {head.msg_id} is larger")
        parts.setdefault(head.msg_id, journal.Part(head.msg_id, body, unsigned=not call.signed))
    return tuple(parts.values())


def _seen(
    service: Service,
    circle_hint: str,
    tail: journal.Entry | None,
    parts: Sequence[journal.Part],
    *,
    now: int,
) -> set[str]:
    """Return which messages the mailbox has: by name, or in its last entry.

    An entry's names are written down before the next entry is appended, so the
    last one is the only one whose names may be missing; it is read anyway.
    """
    seen = {part.name for part in tail.parts} if tail else set()
    for part in parts:
        if service.names.recall(f"{circle_hint} {part.name}", now=now):
            seen.add(part.name)
    ask = [part.name for part in parts if part.name not in seen]
    if ask:
        known = tables.known_messages(service.stores, circle_hint, ask, now=now)
        _believe(service, circle_hint, known, now=now)
        seen |= known
    return seen


def _believe(service: Service, circle_hint: str, names: Iterable[str], *, now: int) -> None:
    """Remember names that the mailbox knows: existing clients send the same messages for ever."""
    for name in names:
        service.names.keep(f"{circle_hint} {name}", True, until=now + BELIEVED_S)


def _name_last(service: Service, circle_hint: str, tail: journal.Entry | None, *, now: int) -> None:
    """Write down the names of the last entry, as something is about to follow it."""
    if tail is not None:
        names = [part.name for part in tail.parts]
        until = tail.written_at + service.settings.message_s
        tables.remember_messages(service.stores, circle_hint, names, until=until)
        _believe(service, circle_hint, names, now=now)


def admit(
    service: Service,
    call: Call,
    pk: str,
    tail: journal.Entry | None,
    new: Sequence[journal.Part],
) -> None:
    """Refuse what would take the mailbox over its bounds; nothing that waits is dropped for it."""
    service.quotas.need_room()
    size = sum(part.size + MESSAGE_BYTES for part in new)
    _fit(service, pk, tail, new, size, now=call.now)
    service.quotas.add_mail(
        call.source_ip, size, lifetime_s=service.settings.message_s, clock=call.clock
    )


def _fit(
    service: Service,
    pk: str,
    tail: journal.Entry | None,
    new: Sequence[journal.Part],
    size: int,
    *,
    now: int,
) -> None:
    most, kind = _most(service, size, unsigned=new[0].unsigned)
    if not journal.fits(service.stores.mail, pk, tail, new, most=most, now=now):
        raise MailboxFull(
            f"the circle's mailbox holds {most.parts} {kind} and {most.size} bytes at the most; "
            "older ones must expire first",
            retry_after_s=3600,
        )


def _most(service: Service, more: int, *, unsigned: bool) -> tuple[journal.Amount, str]:
    """Return what a mailbox holds once it has *more*; what is unsigned has a small place."""
    chosen = service.settings
    parts, size, kind = chosen.mailbox_messages, chosen.mailbox_bytes, "messages"
    if unsigned:
        parts, size, kind = chosen.unsigned_messages, chosen.unsigned_bytes, "unsigned messages"
    return journal.Amount(parts, service.quotas.shrunk(size, more=more)), kind


def _push(
    service: Service, call: Call, circle_hint: str, runs: Sequence[journal.Run]
) -> tuple[Effect, ...]:
    """Return the new messages for everybody who listens, the poster's own sockets left out."""
    if not runs:
        return ()
    listeners = rooms.others(service, circle_hint, call)
    if not listeners:
        return ()
    return tuple(
        Send(socket.connection, text)
        for text in [frames.encode(frame) for frame in _packed(runs, now=call.now)]
        for socket in listeners
    )


class Page(NamedTuple):
    """The entries of an answer, and where the next one begins."""

    entries: Sequence[journal.Entry]
    server_time: int
    cursor: int
    more: bool = False


def page_after(service: Service, pk: str, after: int, *, limit: int, now: int) -> Page:
    """Return whole entries after a number, of so many messages and bytes as an answer has."""
    taken: list[journal.Entry] = []
    count = size = 0
    for entry in journal.following(service.stores.mail, pk, after, now=now):
        if count >= limit or (taken and size + entry.size > REPLY_BYTES):
            return Page(taken, now, taken[-1].number, more=True)
        taken.append(entry)
        count += len(entry.parts)
        size += entry.size
    return Page(taken, now, taken[-1].number if taken else after)


def _page_since(service: Service, pk: str, since: int, *, limit: int, now: int) -> Page:
    """Return whole seconds of messages and a `server_time` that loses none.

    Existing clients ask next for what is dated after the `server_time` they got
    (or the second before it), so that must be a date C that nothing unseen can
    have: dates never fall along the journal, so the second before the last entry
    is safe, and so is any time at which every writer still at work has started
    later.
    """
    newest, entries = _dated_after(service, pk, since, now=now)
    settled = now - 1 - GRACE_S
    if newest is None:
        return Page([], settled, 0)
    taken, following = _whole_seconds(entries, limit=limit)
    if following is not None:
        return Page(taken, following - 1, taken[-1].number, more=True)
    end = taken[-1] if taken else newest
    return Page(taken, max(end.written_at - 1, settled), end.number)


def _whole_seconds(
    entries: Iterable[journal.Entry], *, limit: int
) -> tuple[Sequence[journal.Entry], int | None]:
    """Return what fits an answer, cut between two seconds, and the date of what follows it.

    What is returned spans two seconds at least, empty ones counted, or a client that
    steps back one second would stay where it is.
    """
    taken: list[journal.Entry] = []
    count = size = fitting = following = 0
    for entry in entries:
        if taken and entry.written_at >= max(taken[-1].written_at + 1, taken[0].written_at + 2):
            fitting, following = len(taken), entry.written_at
            if count >= limit:
                return taken, following
        taken.append(entry)
        count += len(entry.parts)
        size += entry.size
        if fitting and size > REPLY_BYTES:
            return taken[:fitting], following
    return taken, None


def _dated_after(
    service: Service, pk: str, since: int, *, now: int
) -> tuple[journal.Entry | None, Iterable[journal.Entry]]:
    """Return the newest entry and those dated after *since*; near the end, few are read."""
    store = service.stores.mail
    found: list[journal.Entry] = []
    for size in (1, 8, 64):
        found, older = journal.latest(store, pk, limit=size, now=now)
        if not found:
            return None, ()
        if not older or found[0].written_at <= since:
            return found[-1], [entry for entry in found if entry.written_at > since]
    start = journal.before_date(store, pk, since, now=now)
    return found[-1], journal.following(store, pk, start, now=now)


def _packed(runs: Iterable[journal.Run], *, now: int) -> Iterator[frames.Messages]:
    """Pack messages into frames that a gateway passes.

    A frame's cursor moves only past entries it holds whole. For an entry that no
    frame can hold whole it stays where it was, which tells the reader to poll.
    """
    held: list[journal.Run] = []
    size = 0
    for run in runs:
        length = sum(part.size + 1 for part in run.parts)
        if held and (size + length > _FRAME_ROOM or held[-1].number != run.before):
            yield _frame(held, now=now)
            held, size = [], 0
        if length <= _FRAME_ROOM:
            held.append(run)
            size += length
        else:
            yield from _pieces(run, now=now)
    if held:
        yield _frame(held, now=now)


def _frame(runs: Sequence[journal.Run], *, now: int) -> frames.Messages:
    return frames.Messages(
        messages=tuple(msgspec.Raw(part.body) for run in runs for part in run.parts),
        server_time=now,
        after=runs[0].before,
        cursor=runs[-1].number,
    )


def _pieces(run: journal.Run, *, now: int) -> Iterator[frames.Messages]:
    """Pack as much of a large entry as frames can hold; the rest waits in the mailbox."""
    held: list[msgspec.Raw] = []
    size = 0
    for part in run.parts:
        if size + part.size + 1 > _FRAME_ROOM and held:
            yield frames.Messages(
                messages=tuple(held), server_time=now, after=run.before, cursor=run.before
            )
            held, size = [], 0
        if part.size + 1 <= _FRAME_ROOM:
            held.append(msgspec.Raw(part.body))
            size += part.size + 1
    yield frames.Messages(
        messages=tuple(held), server_time=now, after=run.before, cursor=run.before
    )
