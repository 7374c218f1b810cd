"""Sync: the one call of version 2. A node says what it has to say and reads what is new.

Presence, signals, messages, then reading: each part is done or refused by itself, and an
answer says which were. Reading writes nothing. A replay of a call changes nothing that a
reader sees: a presence has the time of its signature, and what is left is named by its hash.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, NamedTuple

import msgspec
from msgspec import UNSET, UnsetType

from chalicelib import access, auth, proved, tables
from chalicelib.call import Call, Caller, Done, Effect
from chalicelib.circle import events, journal, mailbox, pieces, signals
from chalicelib.quotas import FULL_TEXT, FULL_WAIT_S
from chalicelib.service import Service
from chalicelib.store import Full, Unavailable
from muster import base64url, errors, shapes
from muster.seals import PRESENCE_BYTES, SIGNAL_BYTES, STEP_BYTES, sealed_id

NEXT_S = 30
"""How soon a node that polls is asked to come again."""

LARGE_BYTES = 16 * 1024
"""A call that sends more is spent: its copy is not even looked at."""

SOCKET_PATHS = ("/v1/relay/ws", "/v2/socket")
"""Where the socket is that a host knows of, and where version 2 says it is."""

KNOWN_S = 3600
"""How long a process remembers what was left, and which nodes there are."""

AHEAD_MS = 24 * 3600 * 1000
"""A cursor further ahead of the clock than this cannot be one of this service's."""


class Waiting(msgspec.Struct, frozen=True, array_like=True):
    """A signal as it is stored."""

    from_node: str
    until: int
    sealed: bytes


_waiting = msgspec.msgpack.Decoder(Waiting)


def sync(service: Service, call: Call, ask: shapes.Sync) -> Done:
    """Do what a node asks, part by part."""
    turn = _Turn(service, call)
    presence, sent, after, want = ask.presence, ask.send, ask.after, ask.want
    if isinstance(presence, shapes.Placed):
        turn.do("presence", turn.place, presence)
    elif presence is None:
        turn.do("presence", turn.leave)
    if sent.signals:
        turn.do("send.signals", turn.signal, sent.signals)
    if sent.messages:
        turn.do("send.messages", turn.post, sent.messages)
    if ask.quiet:
        return Done(shapes.Synced(refused=turn.refused), tuple(turn.effects))
    found = _Found()
    if want.peers:
        turn.do("peers", turn.peers, after.peers or "", found)
    if want.messages:
        turn.do("messages", turn.messages, after.messages or 0, want.messages, found)
    if want.signals:
        turn.do("signals", turn.signals, after.signals or 0, want.signals, found)
    answer = shapes.Synced(
        refused=turn.refused,
        peers=found.peers,
        entries=found.entries,
        signals=found.signals,
        more=tuple(found.more),
        ice=_ice(service, now=call.now) if want.ice else UNSET,
        next_s=NEXT_S,
    )
    return Done(answer, tuple(turn.effects))


def _ice(service: Service, *, now: int) -> shapes.Ice:
    """Return the operator's STUN and TURN servers, with logins made for this answer."""
    plan, name = service.plan, service.entropy(8).hex()
    logins = [one.login(name, ttl_s=plan.turn_ttl_s, now=now) for one in plan.ice_servers]
    ends = [login.until for login in logins if login.until]
    pairs = zip(plan.ice_servers, logins, strict=True)
    return shapes.Ice(
        servers=tuple(
            shapes.RtcIceServer(urls=one.urls, username=login.username, credential=login.credential)
            for one, login in pairs
        ),
        until_ms=min(ends) * 1000 if ends else UNSET,
    )


def info(service: Service, call: Call, ask: shapes.NoParameters) -> shapes.ServiceInfo:
    """Tell who the service is, its time and its limits."""
    verify_key = service.signer(now=call.now).verify_key
    return shapes.ServiceInfo(
        version=service.settings.version,
        time_ms=int(call.clock * 1000),
        service_id=proved.service_id(service, call).hex(),
        service_key=base64url.encode(verify_key),
        socket=service.settings.websocket_url or call.websocket_url.replace(*SOCKET_PATHS),
        open=not access.closed(service, call),
        limits=shapes.ServiceLimits(
            body_bytes=service.settings.body_bytes,
            message_bytes=service.settings.message_bytes,
        ),
    )


class _Found:
    """What was read."""

    def __init__(self) -> None:
        self.peers: tuple[shapes.SealedPeer, ...] | UnsetType = UNSET
        self.entries: tuple[shapes.Entry, ...] | UnsetType = UNSET
        self.signals: tuple[shapes.SealedSignal, ...] | UnsetType = UNSET
        self.more: list[str] = []


class _Left(NamedTuple):
    """Something sealed that a node leaves, and its name."""

    name: str
    sealed: bytes


class _Turn:
    """One call on its way: who makes it, and what was refused of it."""

    def __init__(self, service: Service, call: Call) -> None:
        if call.caller is None:
            raise errors.InvalidSignature("a sync is proved by its node")
        self._service, self._call = service, call
        self._caller: Caller = call.caller
        self._known = False
        self.refused: dict[str, shapes.PartRefused] = {}
        self.effects: list[Effect] = []

    def do(self, part: str, step: Callable[..., None], *told: Any) -> None:
        """Do a part of the call, or note why it is not done."""
        try:
            with _explained():
                step(*told)
        except errors.Refused as refused:
            self.refused[part] = shapes.PartRefused(
                code=refused.code,
                message=str(refused),
                retry_after_s=refused.retry_after_s,
                at_ms=getattr(refused, "at_ms", None),
            )

    # --- what a node says -----------------------------------------------------------

    def place(self, ask: shapes.Placed) -> None:
        """Keep where the node is."""
        sealed = _bytes(ask.sealed, "presence")
        if len(sealed) not in PRESENCE_BYTES:
            raise errors.InvalidRequest("a sealed presence has 640 or 864 bytes")
        ttl_s = int(min(max(ask.ttl_s, shapes.LEAST_TTL_S), shapes.MOST_TTL_S))
        self._admit(lifetime_s=ttl_s)
        until = self._call.now + ttl_s
        self._place(sealed, until)
        if ask.tell:
            peer = shapes.SealedPeer(
                node_id=self._caller.node_id, sealed=ask.sealed, until_ms=until * 1000
            )
            self._tell(shapes.Event(peers=(peer,)))

    def leave(self) -> None:
        """Keep that the node is nowhere: what it said before is not believed again."""
        self._admit(lifetime_s=tables.STAMP_KEPT_S)
        self._place(b"", 0)
        self._tell(shapes.Event(left=(self._caller.node_id,)))

    def signal(self, asked: Sequence[shapes.SentSignal]) -> None:
        """Leave signals for nodes of the circle; each costs its address what a call does."""
        self._know()
        self._service.limits.charge_address(
            self._call.source_ip,
            len(asked) - 1,
            clock=self._call.clock,
            shared=not access.closed(self._service, self._call),
        )
        for ask in asked:
            sealed = _bytes(ask.sealed, "a signal")
            if len(sealed) % STEP_BYTES or len(sealed) > SIGNAL_BYTES:
                raise errors.InvalidRequest(
                    f"a sealed signal has a multiple of {STEP_BYTES} bytes, {SIGNAL_BYTES} at most"
                )
            self._signal(ask, _Left(sealed_id(sealed).hex(), sealed))

    def post(self, asked: Sequence[str]) -> None:
        """Leave messages in the circle's mailbox, all or none."""
        left = [self._message(text) for text in asked]
        self._know()
        size = sum(len(one.sealed) for one in left)
        if size > LARGE_BYTES and not tables.spend_later(
            self._service.stores,
            self._caller.circle,
            f"{self._caller.node_id} large",
            at_ms=self._at_ms,
            now=self._call.now,
        ):
            raise errors.Outdated("a large call of this node was signed later; sign it again")
        self._append(left)

    def _message(self, text: str) -> _Left:
        sealed, most = _bytes(text, "a message"), self._service.settings.message_bytes
        if len(sealed) % STEP_BYTES:
            raise errors.InvalidRequest(f"a sealed message has a multiple of {STEP_BYTES} bytes")
        if len(sealed) > most:
            raise errors.PayloadTooLarge(f"a message may have {most} bytes")
        return _Left(sealed_id(sealed).hex(), sealed)

    def _admit(self, *, lifetime_s: int) -> None:
        """Count a node that this process has not heard of, and its circle."""
        service, caller, call = self._service, self._caller, self._call
        self._know()
        name = f"{caller.circle} {caller.node_id}"
        if not service.names.recall(name, now=call.now):
            service.limits.spend_newcomer(caller.circle, clock=call.clock)
            service.quotas.add_newcomer(call.source_ip, lifetime_s=lifetime_s, clock=call.clock)
        service.names.keep(name, True, until=call.now + KNOWN_S)

    def _place(self, sealed: bytes, until: int) -> None:
        placed = tables.Placed(self._caller.node_id, sealed, until, self._call.socket)
        stands = tables.place(
            self._service.stores,
            self._caller.circle,
            placed,
            at_ms=self._at_ms,
            now=self._call.now,
        )
        if stands is not None:
            raise errors.Outdated(
                "a presence of this node was signed at the same time or later", at_ms=stands
            )

    def _signal(self, ask: shapes.SentSignal, left: _Left) -> None:
        service, call, name = self._service, self._call, f"{self._caller.circle} {left.name}"
        if service.names.recall(name, now=call.now):
            return
        ttl_s = int(min(max(ask.ttl_s, 10), service.settings.signal_max_ttl_s))
        size = len(left.sealed) + signals.ENTRY_BYTES
        service.quotas.add_mail(
            call.source_ip, size, lifetime_s=tables.SIGNAL_KEPT_S, clock=call.clock
        )
        waiting = Waiting(self._caller.node_id, call.now + ttl_s, left.sealed)
        part = journal.Part(left.name, msgspec.msgpack.encode(waiting))
        pk = tables.signal_key(self._caller.circle, ask.to)

        def prepare(tail: journal.Entry | None) -> Sequence[journal.Part]:
            if tail is not None and any(one.name == left.name for one in tail.parts):
                return ()
            signals.fit(service, pk, tail, part, now=call.now)
            return (part,)

        runs = journal.append(
            service.stores.mail, pk, prepare, clock=call.clock, lifetime_s=tables.SIGNAL_KEPT_S
        )
        service.names.keep(name, True, until=call.now + tables.SIGNAL_KEPT_S)
        for run in runs:
            signal = shapes.SealedSignal(
                number=run.number, from_=self._caller.node_id, sealed=ask.sealed
            )
            self._tell(shapes.Event(signals=(signal,)), only=ask.to)

    def _append(self, left: Sequence[_Left]) -> None:
        service, call, circle = self._service, self._call, self._caller.circle
        parts = {one.name: journal.Part(one.name, one.sealed) for one in left}
        pk = tables.mail_key(circle)
        batch = pieces.Batch(service, call, circle)
        admitted = False

        def prepare(tail: journal.Entry | None) -> Sequence[journal.Part]:
            nonlocal admitted
            there = {part.name for part in tail.parts} if tail else set()
            new = [
                part
                for name, part in parts.items()
                if name not in there and not service.names.recall(f"{circle} {name}", now=call.now)
            ]
            if new and not admitted:
                mailbox.admit(service, call, pk, tail, new)
                admitted = True
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
            batch.tidy(())
            raise
        batch.tidy({part.name for run in runs for part in run.parts})
        for name in parts:
            service.names.keep(f"{circle} {name}", True, until=call.now + KNOWN_S)
        for run in runs:
            if all(not part.apart for part in run.parts):
                self._tell(shapes.Event(entries=(_entry(run),)))

    def _tell(self, event: shapes.Event, *, only: str | None = None) -> None:
        self.effects += events.tell(
            self._service,
            self._caller.circle,
            event,
            self._caller.node_id,
            now=self._call.now,
            only=only,
        )

    def _know(self) -> None:
        """Count the circle if it is new; once a call."""
        if not self._known:
            auth.know(self._service, self._call, self._caller.circle, self._caller.circle_key)
            self._known = True

    @property
    def _at_ms(self) -> int:
        return proved.at_ms(self._call)

    # --- what a node reads ------------------------------------------------------------

    def peers(self, after: str, found: _Found) -> None:
        """Read a page of the circle's other nodes, by node id."""
        there, more = tables.placed(
            self._service.stores,
            self._caller.circle,
            after=after,
            limit=shapes.PEERS_PAGE + 1,
            now=self._call.now,
        )
        others = [one for one in there if one.node_id != self._caller.node_id]
        found.peers = tuple(
            shapes.SealedPeer(
                node_id=one.node_id,
                sealed=base64url.encode(one.sealed),
                until_ms=one.until * 1000,
            )
            for one in others[: shapes.PEERS_PAGE]
        )
        if more or len(others) > shapes.PEERS_PAGE:
            found.more.append("peers")

    def messages(self, after: int, limit: int, found: _Found) -> None:
        """Read whole entries of the mailbox after a number."""
        page = mailbox.page_after(
            self._service,
            tables.mail_key(self._caller.circle),
            self._cursor(after),
            limit=min(limit, shapes.MESSAGES_PAGE),
            now=self._call.now,
        )
        found.entries = tuple(self._entry(entry) for entry in page.entries)
        if page.more:
            found.more.append("messages")

    def signals(self, after: int, limit: int, found: _Found) -> None:
        """Read the signals that wait for the node after a number."""
        pk = tables.signal_key(self._caller.circle, self._caller.node_id)
        taken: list[shapes.SealedSignal] = []
        size, now = 0, self._call.now
        entries = journal.following(self._service.stores.mail, pk, self._cursor(after), now=now)
        for entry in entries:
            if len(taken) >= min(limit, shapes.SIGNALS_PAGE) or size > shapes.REPLY_BYTES // 2:
                found.more.append("signals")
                break
            for part in entry.parts:
                waiting = _waiting.decode(part.body)
                if waiting.until > now:
                    sealed = base64url.encode(waiting.sealed)
                    size += len(sealed)
                    taken.append(
                        shapes.SealedSignal(
                            number=entry.number, from_=waiting.from_node, sealed=sealed
                        )
                    )
        found.signals = tuple(taken)

    def _entry(self, entry: journal.Entry) -> shapes.Entry:
        bodies = (
            pieces.body(self._service, self._caller.circle, part, now=self._call.now)
            for part in entry.parts
        )
        return shapes.Entry(
            number=entry.number,
            messages=tuple(base64url.encode(body) for body in bodies if body is not None),
        )

    def _cursor(self, after: int) -> int:
        if after > self._call.clock * 1000 + AHEAD_MS:
            raise errors.InvalidRequest(
                "the cursor is beyond what this service can have given; read again from 0"
            )
        return after


def _entry(run: journal.Run) -> shapes.Entry:
    messages = tuple(base64url.encode(part.body) for part in run.parts)
    return shapes.Entry(number=run.number, messages=messages)


@contextmanager
def _explained() -> Iterator[None]:
    """Say in a refusal what the store could not do."""
    try:
        yield
    except Full:
        raise errors.Unavailable(FULL_TEXT, retry_after_s=FULL_WAIT_S) from None
    except Unavailable:
        raise errors.Unavailable(
            "the store did not answer in time; try again", retry_after_s=1
        ) from None


def _bytes(text: str, what: str) -> bytes:
    try:
        return base64url.decode(text)
    except ValueError as error:
        raise errors.InvalidRequest(f"{what}: {error}") from None
