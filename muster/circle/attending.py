"""Attending: one node at one service, for as long as a connection lasts.

It reads everything that is new, leaves what the service has not yet, opens the socket and keeps
the node's presence there; without a socket it asks again as often as the service wishes. Pushed
events are hints: places in a mailbox move by syncs alone.

    offline --info--> reading --all read--> leaving --socket--> live
       ^                                       |   no socket      |
       +------ back-off, full jitter ----------+---- polling -----+
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Iterable
from contextlib import suppress
from typing import TYPE_CHECKING, Any, NamedTuple

from capsules.errors import Refused as NotBelieved
from muster import base64url, errors, keys, presences, records, rekeys, shapes, signals
from muster.backoff import RECONNECT, asked_s
from muster.base64url import encode
from muster.circle import events
from muster.circle.circle import MAIL_MS
from muster.circle.events import Event, Status
from muster.circle.service import DAY_MS, Forged, Service, ServiceSocket, fits
from muster.errors import Hinted, Outdated, PayloadTooLarge, Refused
from muster.exchange import Closed, Unreachable
from muster.invites import ServiceAddress
from muster.keys import Node
from muster.presences import Presence
from muster.shapes import Entry, Ice, SealedPeer, SealedSignal, Synced

if TYPE_CHECKING:
    from muster.circle.connection import Connection

TTL_S = 660
KEEP_UP_S = 480.0
"""How often a presence is kept up on a socket, and everything is read that no push told of."""

CONFIRM_S = 20.0
"""How soon after a push the place in the mailbox follows."""

OLD_S = 900.0
"""How often the mailbox of an old epoch is read, once it is hours old."""

AGAIN_MS = 20 * 24 * 3600 * 1000
"""How often the founder's node leaves a rekey again, and an author what lasts, ..."""
YEAR_MS = 365 * 24 * 3600 * 1000
"""... and for how long."""

OTHERS_MS = 8 * 24 * 3600 * 1000
"""Up to so much later others leave again what lasts, where its author has not."""

NEVER_MS = 10 * 60 * 1000
"""Up to so long others wait where a mailbox has never had it: a new service, or a new epoch."""

LOOK_AGAIN_S = 600.0
"""How often a node looks what is to be left again."""

SOCKET_AGAIN_S = 60.0
"""How long a node polls at the most before it tries to open a socket again."""

MOST_LEFT = 50
MOST_LEFT_BYTES = 600_000
"""How much one call leaves at the most: base64 of it fits in a body."""

HELD_S = 30.0
"""How long nothing is left after messages were refused."""

LIVED_S = 30.0
"""How long a socket must have lived, so that the next is opened without a wait."""

MESSAGES = 200
MOST_LISTED = 1024
"""How many nodes a service lists at the most."""


class _Signal(NamedTuple):
    """A signal that is to be left, unless it is too late for it."""

    to: bytes
    sealed: bytes
    ttl_s: int
    until: float


class Attendant:
    """Keeps one node at one service; *old* for an epoch that is only read."""

    def __init__(
        self, connection: Connection, address: ServiceAddress, node: Node, *, old: bool = False
    ) -> None:
        self.node, self.old = node, old
        self.service = Service(
            address, node, rim=connection.rim, transport=connection.transport(address)
        )
        self.there: dict[bytes, Presence] = {}
        self.read = asyncio.Event()
        """Everything was read once."""
        self.tried = asyncio.Event()
        """Everything was read once, or that has failed."""
        self.state: Status = "connecting"
        self.why = ""
        self.trouble: Exception | None = None
        self._connection = connection
        self._file = connection.circle.file
        self._socket: ServiceSocket | None = None
        self._wake = asyncio.Event()
        self._signals: deque[_Signal] = deque(maxlen=256)
        self._sending: list[_Signal] = []
        self._signals_after = 0
        self._seen_signals: deque[bytes] = deque(maxlen=1024)
        self._next_s = 30.0
        self._limits: shapes.ServiceLimits | None = None
        self._replaced = False
        self._presence_due = True
        self._has_come = False
        self._without = 0
        self._held_until = 0.0
        self._outdated = False
        self._unread: deque[str] = deque(maxlen=256)
        self._read_ms = 0
        self._look_again_at = 0.0
        self._due: list[bytes] = []

    @property
    def url(self) -> str:
        """Where the service is."""
        return self.service.address.url

    @property
    def message_bytes(self) -> int:
        """How large a sealed record the service takes; 0 while that is not known."""
        return self._limits.message_bytes if self._limits else 0

    @property
    def live(self) -> bool:
        """Whether the socket is open."""
        return self._socket is not None

    def wake(self, *, presence: bool = False) -> None:
        """Leave soon what is to be left, and the presence too if it has changed."""
        self._presence_due = self._presence_due or presence
        self._wake.set()

    def check_place(self) -> None:
        """See whether this machine is elsewhere now."""
        if self._socket is not None:
            self._socket.check_place()

    def signal(self, to: bytes, sealed: bytes, *, ttl_s: int) -> None:
        """Leave a signal soon."""
        self._signals.append(_Signal(to, sealed, ttl_s, self._connection.rim.steady() + ttl_s))
        self._wake.set()

    async def frame(self, to: bytes, payload: bytes) -> None:
        """Pass bytes to another node by the socket; raises `Closed` or `Refused`."""
        if self._socket is None:
            raise Closed("there is no socket at this service")
        await self._socket.frame(to, payload)

    async def ice(self) -> Ice:
        """Ask for the service's STUN and TURN servers; raises `Closed` or what it refuses."""
        answer = await self.service.sync({"want": {"ice": True}})
        return answer.ice if isinstance(answer.ice, Ice) else Ice(servers=())

    # --- the life of it -------------------------------------------------------------------

    async def run(self) -> None:
        """Attend until cancelled."""
        failures = 0
        while True:
            try:
                await self._attend()
                failures = 0
            except (Closed, Unreachable, Refused) as error:
                failures = self._without if isinstance(error, Closed) else failures + 1
                self._fail(error)
            except Exception as error:  # the disk is full, say: a state, not the silent end
                failures += 1
                self._fail(error)
            rim = self._connection.rim
            delay_s = RECONNECT.delay(
                failures, chance=rim.chance(), retry_after_s=asked_s(self.trouble)
            )
            await rim.sleep(delay_s)

    async def goodbye(self) -> None:
        """Tell the service that this node leaves; never raises."""
        if self.old or self._replaced or not self.read.is_set():
            return
        with suppress(Closed, Hinted, TimeoutError):
            async with asyncio.timeout(2):
                await self._sync({"presence": None, "quiet": self._socket is not None})

    async def aclose(self) -> None:
        """Close the connections."""
        if self._socket is not None:
            await self._socket.aclose()
        await self.service.aclose()

    async def _attend(self) -> None:
        told = await self.service.info()
        self._limits = told.limits
        await self._catch_up()
        self._succeed()
        if self.old:
            await self._connection.rim.sleep(self._old_s())
            return
        if self._replaced:
            await self._poll(OLD_S)
            return
        try:
            socket = await self.service.open(told.socket)
        except (Refused, Unreachable) as error:
            self._show("polling", error)
            self._without += 1
            await self._poll(min(2.0**self._without, SOCKET_AGAIN_S))
            return
        self._socket, opened_at = socket, self._connection.rim.steady()
        try:
            await self._round(presence=True)
            self._show("live")
            await self._follow(socket)
        finally:
            self._socket = None
            lived = self._connection.rim.steady() - opened_at >= LIVED_S
            self._without = 0 if lived else self._without + 1
            await socket.aclose()

    def _old_s(self) -> float:
        """Return how soon to read an old mailbox again: often at first, as another may be left."""
        ended_ms = self._file.began_ms(self.node.epoch.number + 1)
        return min(max((self._connection.now_ms() - ended_ms) / 8000, 5.0), OLD_S)

    async def _poll(self, seconds: float) -> None:
        """Ask as often as the service wishes."""
        steady = self._connection.rim.steady
        end = steady() + seconds
        while steady() < end:
            await self._woken(min(self._next_s, max(end - steady(), 0.0)))
            await self._round(presence=not self._replaced)

    async def _follow(self, socket: ServiceSocket) -> None:
        """Hear what the service says, and leave what is to be left, until the socket ends."""
        steady = self._connection.rim.steady
        hearing = asyncio.ensure_future(anext(socket))
        waking = asyncio.ensure_future(self._wake.wait())
        keep_up_at, confirm_at = steady() + KEEP_UP_S, float("inf")
        try:
            while True:
                left_s = max(0.0, min(keep_up_at, confirm_at) - steady())
                await asyncio.wait(
                    {hearing, waking}, timeout=left_s, return_when=asyncio.FIRST_COMPLETED
                )
                if hearing.done():
                    try:
                        frame = hearing.result()
                    except StopAsyncIteration:
                        raise Closed("the service has closed the socket") from None
                    if await self._hear(frame):
                        confirm_at = min(confirm_at, steady() + CONFIRM_S)
                    if socket.lost:
                        socket.lost = False
                        keep_up_at = min(keep_up_at, steady() + CONFIRM_S)
                    hearing = asyncio.ensure_future(anext(socket))
                if waking.done():
                    self._wake.clear()
                    waking = asyncio.ensure_future(self._wake.wait())
                    await self._flush()
                if steady() >= min(keep_up_at, confirm_at):
                    due = steady() >= keep_up_at
                    await self._round(presence=due, peers=due)
                    confirm_at = float("inf")
                    keep_up_at = steady() + KEEP_UP_S if due else keep_up_at
        finally:
            hearing.cancel()
            waking.cancel()
            await asyncio.gather(hearing, waking, return_exceptions=True)

    async def _woken(self, seconds: float) -> None:
        with suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self._wake.wait()
        self._wake.clear()

    def _succeed(self) -> None:
        self.trouble = None
        if not self.old:
            self._show("polling")
        self._read_ms = self._read_ms or self._connection.now_ms()
        self.read.set()
        self.tried.set()
        self._connection.caught_up()

    def _fail(self, error: Exception) -> None:
        self.trouble = error
        self._presence_due = True  # it may not have come there, or is told to be gone
        if isinstance(error, Forged):
            self._connection.tell(events.Distrusted(self.url, str(error)))
        if self.there:
            self.there.clear()
            self._connection.look_round()
        if not self.old:
            self._show("offline", error)
        self.tried.set()

    def _show(self, state: Status, error: Exception | None = None) -> None:
        why = "" if error is None else str(error)
        if self._replaced and state == "polling":
            state, why = "replaced", "another process is this node, or a copy of its file is in use"
        if (state, why) != (self.state, self.why):
            self.state, self.why = state, why
            self._connection.tell(events.State(self.url, state, why))

    # --- syncs ----------------------------------------------------------------------------

    async def _catch_up(self) -> None:
        """Read everything; then leave what was not read there, in the order it was said."""
        file, service, hint = self._file, self.service.id, self.node.epoch.hint
        before = file.cursor(service, hint)
        if before and not await self._is_there(before):
            with file.writing():
                file.move(service, hint, 0)
            file.doubt(service, all_of_it=True)
        await self._round(presence=not self.old and not self._replaced, leaving=False)
        file.doubt(service, all_of_it=False)
        await self._round(presence=False, peers=False)

    async def _is_there(self, cursor: int) -> bool:
        """Say whether the last entry that was read is still there: else data was lost."""
        asked = {"after": {"messages": cursor - 1}, "want": {"messages": 1}}
        answer = await self._sync(asked)
        entries = answer.entries or ()
        kept = self._file.entry(self.service.id, self.node.epoch.hint)
        return bool(entries) and (entries[0].number, _mark(entries[0])) == (cursor, kept)

    async def _flush(self) -> None:
        """Leave what is to be left, and read nothing."""
        if self._presence_due:
            await self._round(presence=True, peers=False)
            return
        while True:
            asked, names = self._leaving()
            if not asked:
                return
            await self._leave({"send": asked}, names)

    async def _round(self, *, presence: bool, peers: bool = True, leaving: bool = True) -> None:
        """Make syncs until everything is read and left."""
        listed: set[bytes] | None = set() if peers and not self.old else None
        page = ""
        while True:
            asked: dict[str, Any] = {"want": {"messages": MESSAGES}, "after": {}}
            if presence and not self.old:
                asked["presence"] = self._placed(tell=self._presence_due)
                presence = self._presence_due = False
            send, names = self._leaving() if leaving else ({}, [])
            if send:
                asked["send"] = send
            asked["after"]["messages"] = self._file.cursor(self.service.id, self.node.epoch.hint)
            if not self.old:
                asked["want"]["signals"] = 50
                asked["after"]["signals"] = self._signals_after
                asked["want"]["peers"] = listed is not None
                if page:
                    asked["after"]["peers"] = page
            answer = await self._leave(asked, names)
            more = set(answer.more or ())
            before = self._place()
            self._take_entries(answer.entries or (), to="page")
            if "signals" in answer.refused:
                self._signals_after = 0  # of a clock that was set back
            self._take_signals(answer.signals or ())
            self._has_come = self._has_come or "signals" not in (answer.more or ())
            if self._place() == before:
                more -= {"messages", "signals"}  # it names a page, and gives none
            if "peers" in answer.refused:
                listed = None  # who was there is
            if listed is not None:
                found = answer.peers or ()
                listed |= {bytes.fromhex(peer.node_id) for peer in found}
                self._take_peers(found)
                after, page = page, found[-1].node_id if found and "peers" in more else ""
                if page <= after or len(listed) >= MOST_LISTED:
                    page = ""
                    more.discard("peers")
                    self._keep_only(listed)
                    listed = None
            if listed is None:
                more.discard("peers")
            if isinstance(answer.next_s, int):
                self._next_s = float(min(max(answer.next_s, 5), 900))
            if not more & {"messages", "signals", "peers"} and not (leaving and self._has_more()):
                return

    def _place(self) -> tuple[int, int]:
        """Return up to where messages and signals were read."""
        return self._file.cursor(self.service.id, self.node.epoch.hint), self._signals_after

    async def _leave(self, asked: dict[str, Any], names: list[bytes]) -> Synced:
        """Make a sync that leaves something, and note what was taken."""
        try:
            answer = await self._sync(asked)
        except (Closed, Unreachable, Refused):
            self._signals.extendleft(reversed(self._sending))
            raise
        finally:
            self._sending = []
        refused = answer.refused
        if "presence" in refused:
            self._presence_refused(refused["presence"])
        elif "presence" in asked:
            self._outdated = False
        if "send.messages" in refused:
            self._hold(_error(refused["send.messages"]))
            names = []
        if names:
            with self._file.writing():
                now_ms = self._connection.now_ms()
                self._file.note_left(self.service.id, names, at_ms=now_ms, seen=False)
                self._file.note_kept(self.service.id, self.node.epoch.hint, names, now_ms)
            self._connection.left()
        if "messages" in refused:
            error = _error(refused["messages"])
            if isinstance(error, PayloadTooLarge):
                return await self._by_http(asked)
            raise error
        return answer

    def _hold(self, error: Refused) -> None:
        """Leave nothing for a while: the mailbox is full, or too much was left. Reading goes on."""
        wait_s = min(max(asked_s(error) or HELD_S, HELD_S), OLD_S)
        self._held_until = self._connection.rim.steady() + wait_s
        self._connection.tell(events.State(self.url, self.state, f"messages wait here: {error}"))

    def _presence_refused(self, refused: shapes.PartRefused) -> None:
        error = _error(refused)
        again, self._outdated = not self._outdated, isinstance(error, Outdated)
        if self._outdated and again and refused.at_ms is not None:
            self.service.later_than(refused.at_ms)
            self._presence_due = True
            self._wake.set()
        else:
            self._presence_due = True
            self._connection.tell(events.State(self.url, self.state, str(error)))

    async def _by_http(self, asked: dict[str, Any]) -> Synced:
        """Read by HTTP what no frame can hold; raises what is refused there too."""
        reading: dict[str, Any] = {name: asked[name] for name in ("want", "after") if name in asked}
        answer = await self.service.sync(reading)
        if "messages" in answer.refused:
            raise _error(answer.refused["messages"])
        return answer

    async def _sync(self, asked: dict[str, Any]) -> Synced:
        if self._socket is not None and fits(asked):
            answer = await self._socket.sync(asked)
            return answer or Synced(refused={})
        return await self.service.sync(asked)

    def _placed(self, *, tell: bool) -> dict[str, Any]:
        sealed = presences.seal(
            self.node, self._connection.presence(self.node), nonce=self._connection.rim.entropy(12)
        )
        return {"sealed": encode(sealed), "ttl_s": TTL_S, "tell": tell}

    # --- what is left ---------------------------------------------------------------------

    def _leaving(self) -> tuple[dict[str, Any], list[bytes]]:
        """Return what a sync can leave, and the names of the records in it."""
        if self._connection.circle.is_out:
            return {}, []
        leaving, names = ({}, []) if self._is_held else self._leaving_messages()
        now = self._connection.rim.steady()
        found = [self._signals.popleft() for _ in range(min(len(self._signals), 16))]
        self._sending = [one for one in found if one.until > now]
        if self._sending:
            leaving["signals"] = [
                {"to": one.to.hex(), "sealed": encode(one.sealed), "ttl_s": one.ttl_s}
                for one in self._sending
            ]
        return leaving, names

    @property
    def _is_held(self) -> bool:
        """Whether no messages are left for a while; signals do not wait for a full mailbox."""
        return self._held_until > self._connection.rim.steady()

    def _leaving_messages(self) -> tuple[dict[str, Any], list[bytes]]:
        if self.old:
            rekey = self._leaving_rekey()
            if rekey[1]:
                return rekey
        messages: list[str] = []
        names: list[bytes] = []
        size = 0
        most = self._limits.message_bytes if self._limits else MOST_LEFT_BYTES
        since_ms = self._connection.now_ms() - MAIL_MS
        found = self._file.outgoing(
            self.service.id, epoch=self.node.epoch.number, since_ms=since_ms, most=MOST_LEFT
        )
        for hashed, kept, said in found:
            sealed = self._connection.circle.sealed(self.node.epoch, hashed, kept, said)
            if len(sealed) > most:
                self._too_large(hashed, len(sealed), most)
                continue
            if messages and size + len(sealed) > MOST_LEFT_BYTES:
                break
            messages.append(encode(sealed))
            names.append(hashed)
            size += len(sealed)
        if not found:
            messages, names = self._leaving_again()
        return ({"messages": messages} if messages else {}), names

    def _leaving_again(self) -> tuple[list[str], list[bytes]]:
        """Return lasting records that the mailbox is to have once more, sealed anew."""
        if self.old or not self.read.is_set():
            return [], []
        steady = self._connection.rim.steady()
        if not self._due and steady >= self._look_again_at:
            self._look_again_at = steady + LOOK_AGAIN_S
            self._due = self._lasting_due()
        messages: list[str] = []
        names: list[bytes] = []
        size = 0
        most = self._limits.message_bytes if self._limits else MOST_LEFT_BYTES
        while self._due and len(messages) < MOST_LEFT and size < MOST_LEFT_BYTES // 2:
            kept = self._file.record(self._due.pop())
            if kept is None:
                continue
            nonce = self._connection.rim.entropy(12)  # in other bytes: no copy of the last entry
            sealed = records.seal(self.node.epoch, kept.said, nonce=nonce)
            if len(sealed) <= most:
                messages.append(encode(sealed))
                names.append(kept.hash)
                size += len(sealed)
        return messages, names

    def _lasting_due(self) -> list[bytes]:
        """Return what is soon gone from the mailbox, or was never in it.

        Its author leaves it first; of the others each waits a time of its own, so that one does
        and the rest find it done.
        """
        circle, now_ms = self._connection.circle, self._connection.now_ms()
        mine = circle.member.public.raw
        standing = self._connection.standing()
        due = []
        for hashed, author, at_ms in self._file.kept_since(self.service.id, self.node.epoch.hint):
            if standing is not None and hashed not in standing:
                continue
            first = author == mine or (at_ms == 0 and circle.is_founder)
            share = 0.0 if first else _share(hashed, self.node.id)
            since_ms = at_ms + AGAIN_MS if at_ms else self._read_ms
            if now_ms >= since_ms + share * (OTHERS_MS if at_ms else NEVER_MS):
                due.append(hashed)
        return due

    def _has_more(self) -> bool:
        """Say whether there is still something to leave; takes nothing."""
        if self.old or self._connection.circle.is_out:
            return False
        if self._signals or self._is_held:
            return bool(self._signals)
        since_ms = self._connection.now_ms() - MAIL_MS
        epoch = self.node.epoch.number
        found = self._file.outgoing(self.service.id, epoch=epoch, since_ms=since_ms, most=1)
        return bool(found or self._due)

    def _too_large(self, hashed: bytes, size: int, most: int) -> None:
        with self._file.writing():
            self._file.note_left(self.service.id, [hashed], at_ms=0, seen=True)
        why = f"a record of {size} bytes stays here: the service takes {most}"
        self._connection.tell(events.State(self.url, self.state, why))

    def _leaving_rekey(self) -> tuple[dict[str, Any], list[bytes]]:
        """Return the rekey that ended this epoch, where the founder's node is to leave it."""
        said = self._file.rekey_to(self.node.epoch.number + 1)
        if said is None or not self._connection.circle.is_founder:
            return {}, []
        name, now_ms = rekeys.order(said), self._connection.now_ms()
        began_ms = self._file.began_ms(self.node.epoch.number + 1)
        at_ms = self._file.left_at_ms(self.service.id, name)
        if (at_ms is not None and now_ms < at_ms + AGAIN_MS) or now_ms > began_ms + YEAR_MS:
            return {}, []
        nonce = self._connection.rim.entropy(12)  # in other bytes each time: no copy of the last
        return {"messages": [encode(records.seal(self.node.epoch, said, nonce=nonce))]}, [name]

    # --- what comes -----------------------------------------------------------------------

    async def _hear(self, frame: shapes.FromService) -> bool:
        """Take what the service says by itself; True if there is a place to move."""
        match frame:
            case shapes.Event():
                self._take_peers(frame.peers)
                for node_id in frame.left:
                    self.there.pop(bytes.fromhex(node_id), None)
                if frame.peers or frame.left:
                    self._connection.look_round()
                self._take_entries(frame.entries, to="push")
                self._take_signals(frame.signals)
                return bool(frame.entries)
            case shapes.PassedFrame():
                self._take_frame(frame)
            case shapes.Replaced():
                self._replaced = True
                raise Closed("another process is this node now")
            case shapes.SyncedFrame():  # a quiet sync of which something was refused
                self._presence_due = True
                self._wake.set()
            case _:
                pass
        return False

    def _take_entries(self, entries: Iterable[Entry], *, to: str) -> None:
        """Take what a mailbox holds, and move the place with it; pushes move nothing."""
        if not entries:
            return
        service, hint = self.service.id, self.node.epoch.hint
        happened: list[Event] = []
        now_ms = self._connection.now_ms()
        latest = max(now_ms, self.service.now_ms()) + DAY_MS
        with self._file.writing():
            cursor = self._file.cursor(service, hint)
            for entry in entries:
                if to == "page" and not cursor < entry.number <= latest:
                    what = "out of order" if entry.number <= cursor else "of the future"
                    happened.append(
                        events.Distrusted(self.url, f"the entries of its mailbox are {what}")
                    )
                    break
                names = []
                for sealed in entry.messages:
                    name, found = self._take_message(entry.number, sealed)
                    names += [name] if name else []
                    happened += found
                self._file.note_left(service, names, at_ms=now_ms, seen=True)
                self._file.note_kept(service, hint, names, min(entry.number, now_ms))
                if to == "page":
                    cursor = entry.number
                    self._file.move(service, hint, cursor, _mark(entry))
        self._connection.happened(happened)

    def _take_message(self, number: int, sealed: str) -> tuple[bytes, list[Event]]:
        try:
            return self._connection.circle.take(self.node.epoch, base64url.decode(sealed))
        except (NotBelieved, ValueError) as error:
            return b"", [events.Unread(self.url, number, str(error))]

    def _take_peers(self, peers: Iterable[SealedPeer]) -> None:
        for peer in peers:
            try:
                node_id = bytes.fromhex(peer.node_id)
                found = presences.unseal(self.node.epoch, node_id, base64url.decode(peer.sealed))
            except (NotBelieved, ValueError) as error:
                if peer.node_id not in self._unread:  # a member may have left it
                    self._unread.append(peer.node_id)
                    self._connection.tell(events.Unread(self.url, 0, str(error)))
                continue
            if self._connection.believe(found, self.node.epoch):
                self.there[node_id] = found
            else:
                self.there.pop(node_id, None)

    def _keep_only(self, listed: set[bytes]) -> None:
        for node_id in list(self.there):
            if node_id not in listed:
                del self.there[node_id]
        self._connection.look_round()

    def _take_signals(self, found: Iterable[SealedSignal]) -> None:
        for one in found:
            self._signals_after = max(self._signals_after, one.number)
            if not self._has_come:
                continue  # it waited for the process that was this node before: it opens nothing
            try:
                sealed = base64url.decode(one.sealed)
                name = keys.identify("seen", sealed)
                if name in self._seen_signals:
                    continue
                self._seen_signals.append(name)
                signal, text = signals.opened(
                    self.node.epoch, bytes.fromhex(one.from_), self.node.id, sealed
                )
                signal.check_time(now_ms=self._connection.now_ms())
            except (NotBelieved, ValueError):
                continue  # of a member who plays, or too old: nobody waits for it
            self._connection.signalled(signal, text)

    def _take_frame(self, frame: shapes.PassedFrame) -> None:
        with suppress(ValueError):
            self._connection.passed(bytes.fromhex(frame.from_), base64url.decode(frame.payload))


def _share(hashed: bytes, node_id: bytes) -> float:
    """Return how much later than others a node is, of one record; between 0 and 1."""
    return int.from_bytes(keys.identify("again", hashed + node_id)[:4], "big") / 2**32


def _mark(entry: Entry) -> bytes:
    """Return what tells an entry from another with its number."""
    return keys.identify("entry", "".join(entry.messages).encode())


def _error(refused: shapes.PartRefused) -> Refused:
    told = {"code": refused.code, "message": refused.message, "ok": False}
    return errors.from_json(told, status=400, retry_after_s=refused.retry_after_s)
