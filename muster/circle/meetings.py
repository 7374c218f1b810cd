"""Meetings: what two nodes of a circle tell each other over a link, without any service.

Both tell up to where they have each author, leave what the other lacks, then what is new; and
who else is there. The same messages go over TLS, over the relay and over data channels
(docs/chat.md, Between nodes). What is passed on was signed by its author: nobody has to be
believed.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable
from contextlib import suppress
from typing import TYPE_CHECKING, Any

import msgspec

from capsules.errors import Refused as NotBelieved
from muster import base64url
from muster.base64url import encode
from muster.circle.file import Kept, Run
from muster.circle.links import Link, PathKind
from muster.exchange import Closed
from muster.frames import PAYLOAD_BYTES
from muster.presences import Presence
from muster.seals import Said

if TYPE_CHECKING:
    from muster.circle.connection import Connection

MOST_MESSAGE = 2 * 1024 * 1024
"""A mailbox takes a mebibyte, and base64 makes that a third more."""

TIPS_PAGE = 500
MOST_TIPS = 10_000
RECORDS_PAGE = 200
PEERS_PAGE = 32
RANGES_PAGE = 500

MOST_LEAVING = 10_000
"""How many new records wait for a node that takes none."""

MOST_REFUSED = 100
"""So many records that nobody signed end a meeting."""

PEERS_S = 2.0
"""How often presences are read at the most: each takes two signatures to check."""

HERE_S = 7.0
"""How often a node says on a direct path that it is there; the relay costs, and services tell."""

WHO_S = 21.0
"""How often it says there who else is."""

SILENT_S = 20.0
"""A direct path on which nothing came for longer is dead."""

TOLD_S = 45.0
"""So long a node is believed to be there that others tell of."""

_HEAD = 4

NOTHING = Run(1, 0, b"", b"")


class Tips(msgspec.Struct, frozen=True, tag_field="t", tag="TIPS"):
    """What a node has of authors, by member key in b64, without a hole up to the last record.

    Its number and hash in hex; from which number on; and a digest of all these hashes.
    """

    tips: dict[str, tuple[int, str, int, str]]
    last: bool


class Told(msgspec.Struct, frozen=True, tag_field="t", tag="RECORD"):
    """One record, as it was signed."""

    epoch: int
    text: str
    signature: str


class Gone(msgspec.Struct, frozen=True, tag_field="t", tag="GONE"):
    """Numbers of an author that the sender had, and keeps no longer."""

    author: str
    ranges: tuple[tuple[int, int], ...]


class Signed(msgspec.Struct, frozen=True):
    """A presence, as it was signed."""

    text: str
    signature: str


class Peers(msgspec.Struct, frozen=True, tag_field="t", tag="PEERS", omit_defaults=True):
    """Who is there, the sender first; and from where it sees the other call."""

    peers: tuple[Signed, ...]
    seen: str = ""


_DECODER: msgspec.json.Decoder[Tips | Told | Gone | Peers] = msgspec.json.Decoder(
    Tips | Told | Gone | Peers
)


class Meetings:
    """All meetings of a connection, and who is there by what was told in them."""

    def __init__(self, connection: Connection) -> None:
        self.connection = connection
        self._held: dict[bytes, Meeting] = {}
        self._told: dict[bytes, tuple[Presence, Said, float]] = {}
        self._own: tuple[float, Said] | None = None
        self.passed: set[bytes] = set()
        """The records of our own that a node has taken."""
        self.taken: Callable[[bytes, list[bytes]], None] = lambda node, hashes: None
        self.changed = asyncio.Event()

    @property
    def met(self) -> frozenset[bytes]:
        """The nodes that are met now."""
        return frozenset(self._held)

    @property
    def caught_up(self) -> bool:
        """Whether some node has told all that it has of our own chain."""
        return any(meeting.caught_up for meeting in self._held.values())

    def path(self, node: bytes) -> PathKind:
        """Return what carries the meeting with a node."""
        meeting = self._held.get(node)
        return "none" if meeting is None else meeting.link.path

    def link(self, node: bytes) -> Link | None:
        """Return the link of a meeting."""
        meeting = self._held.get(node)
        return None if meeting is None else meeting.link

    def there(self) -> set[bytes]:
        """Return who is there, as far as nodes that are met tell."""
        now = self.connection.rim.steady()
        told = {node for node, (_, _, heard) in self._told.items() if now - heard <= TOLD_S}
        return told | self._held.keys()

    def heard(self) -> dict[bytes, float]:
        """Return when each node was heard of last, by a steady clock."""
        return {node: heard for node, (_, _, heard) in self._told.items()}

    async def hold(self, link: Link, *, seen: str = "") -> None:
        """Hold a meeting over a link, until that ends or is cancelled."""
        meeting = Meeting(self, link, seen=seen)
        self._held[link.other] = meeting
        self.connection.direct_changed()
        try:
            await meeting.run()
        finally:
            if self._held.get(link.other) is meeting:
                del self._held[link.other]
                self._told.pop(link.other, None)  # others tell, if it is still there
            link.abort()
            self.changed.set()
            self.connection.direct_changed()

    async def aclose(self) -> None:
        """End all meetings, with a word to the other side."""
        await asyncio.gather(*(one.link.aclose() for one in list(self._held.values())))

    def tell(self, kept: Iterable[Kept], source: bytes = b"") -> None:
        """Tell all that are met of new records, but whom they came from."""
        found = list(kept)
        for node, meeting in self._held.items():
            if node != source:
                meeting.leave(found)

    async def leave(self, link: Link, found: Iterable[Kept]) -> None:
        """Leave records at a node; when it has taken them, they are passed. Raises `Closed`."""
        own, count = self.connection.circle.member.public, 0
        hashes = []
        for kept in found:
            message = _record(kept.said, kept.record.epoch)
            if len(message) > MOST_MESSAGE:
                continue  # no mailbox takes it either
            await write(link, message)
            count += 1
            if kept.record.author == own:
                hashes.append(kept.hash)
        if count:
            await link.drained()
        if hashes:
            self.passed.update(hashes)
            self.taken(link.other, hashes)
            self.connection.left()

    # --- who is there ---------------------------------------------------------------------

    def hear_of(self, said: Said) -> None:
        """Take a presence that was told; raises `Refused`."""
        epoch = self.connection.circle.epoch
        found = Presence.from_said(epoch, said)
        node = found.node_id
        if node == self.connection.node.id:
            return
        known = self._told.get(node)
        if known is not None and known[0].at_ms >= found.at_ms:
            return
        self._told[node] = (found, said, self.connection.rim.steady())
        if not self.connection.believe(found, epoch):
            del self._told[node]

    def is_alive(self, node: bytes) -> None:
        """Note that a node that is met has said so."""
        known = self._told.get(node)
        if known is not None:
            self._told[node] = (known[0], known[1], self.connection.rim.steady())

    def own(self) -> Said:
        """Return our own presence as it is now; signed anew when some seconds old."""
        now = self.connection.rim.steady()
        if self._own is None or now - self._own[0] > WHO_S / 2:
            node = self.connection.node
            self._own = (now, self.connection.presence(node).said(node))
        return self._own[1]

    def forget_own(self) -> None:
        """Sign our presence anew: something in it has changed."""
        self._own = None
        for meeting in self._held.values():
            meeting.say_here()

    def known(self, but: bytes) -> list[Said]:
        """Return the presences to tell a node: our own first, then those heard of lately."""
        now = self.connection.rim.steady()
        fresh = sorted(
            (now - heard, said)
            for node, (_, said, heard) in self._told.items()
            if node != but and now - heard <= TOLD_S / 2
        )
        for node, (_, _, heard) in list(self._told.items()):
            if now - heard > 10 * TOLD_S:
                del self._told[node]
        return [self.own(), *(said for _, said in fresh[: PEERS_PAGE - 1])]


class Meeting:
    """One meeting: reading, writing what the other lacks, and saying that we are there."""

    def __init__(self, meetings: Meetings, link: Link, *, seen: str = "") -> None:
        self.link, self.caught_up = link, False
        self._meetings, self._connection = meetings, meetings.connection
        self._seen = seen
        self._theirs: dict[bytes, Run] = {}
        self._theirs_known = asyncio.Event()
        self._buffer = bytearray()
        self._leaving: list[Kept] = []
        self._some = asyncio.Event()
        self._here = asyncio.Event()
        self._heard_at = self._connection.rim.steady()
        self._peers_at = float("-inf")
        self._refused = 0

    async def run(self) -> None:
        """Meet until the link ends."""
        tasks = [
            asyncio.create_task(_quiet(work))
            for work in (self._say_who_is_here(), self._tell(), self._watch())
        ]
        try:
            await self._read()
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    def leave(self, found: Iterable[Kept]) -> None:
        """Leave new records soon."""
        self._leaving += found
        self._some.set()
        if len(self._leaving) > MOST_LEAVING:
            self.link.abort()  # it takes nothing: what it lacks is left when it comes again

    def say_here(self) -> None:
        """Say soon that we are there, and how."""
        self._here.set()

    # --- telling ----------------------------------------------------------------------------

    async def _tell(self) -> None:
        """Tell our tips; leave what the other lacks; then what is new."""
        file = self._connection.circle.file
        tips = list(file.runs().items())
        for at in range(0, max(len(tips), 1), TIPS_PAGE):
            page = {
                encode(author): (run.last, run.hash.hex(), run.first, run.digest.hex())
                for author, run in tips[at : at + TIPS_PAGE]
            }
            last = at + TIPS_PAGE >= len(tips)
            await write(self.link, msgspec.json.encode(Tips(page, last)))
        await self._theirs_known.wait()
        self._leaving = []  # it is among what is missing
        await self._leave_missing()
        while True:
            self._some.clear()
            found, self._leaving = self._leaving, []
            await self._meetings.leave(self.link, filter(self._is_wanted, found))
            await self._some.wait()

    def _is_wanted(self, kept: Kept) -> bool:
        """Say whether a new record is worth telling: the relay carries no copies of mailboxes."""
        if self.link.path == "relay" and self._connection.is_pushed(kept.hash, self.link.other):
            return False
        theirs = self._theirs.get(kept.record.author.raw, NOTHING)
        seq = kept.record.seq
        return not theirs.first <= seq <= theirs.last or kept.hash != theirs.hash

    async def _leave_missing(self) -> None:
        file = self._connection.circle.file
        for author, ours in file.runs().items():
            theirs = self._theirs.get(author, NOTHING)
            stretches = [(1, theirs.first - 1), (theirs.last + 1, ours.last)]
            same = (theirs.first, theirs.last) == (ours.first, ours.last)
            if same and theirs.digest != ours.digest:
                stretches = [(1, ours.last)]  # a fork that one of us has not seen
            for first, last in stretches:
                await self._leave_stretch(author, first, last)
            gaps = file.gaps(author, after=0)
            for start in range(0, len(gaps), RANGES_PAGE):
                said = Gone(encode(author), tuple(gaps[start : start + RANGES_PAGE]))
                await write(self.link, msgspec.json.encode(said))

    async def _leave_stretch(self, author: bytes, first: int, last: int) -> None:
        file = self._connection.circle.file
        while first <= last:
            found = list(file.records(author=author, seqs=(first, last), most=RECORDS_PAGE))
            await self._meetings.leave(self.link, found)
            if len(found) < RECORDS_PAGE:
                return
            first = found[-1].record.seq + 1

    async def _say_who_is_here(self) -> None:
        rim = self._connection.rim
        who_at = float("-inf")
        while True:
            known: list[Said] = []
            if self._here.is_set() or rim.steady() >= who_at:
                known, who_at = self._meetings.known(self.link.other), rim.steady() + WHO_S
            self._here.clear()
            said = tuple(Signed(one.text.decode(), encode(one.signature)) for one in known)
            await write(self.link, msgspec.json.encode(Peers(said, self._seen if said else "")))
            end = rim.steady() + HERE_S
            while rim.steady() < end or self.link.path == "relay":
                if self._here.is_set():
                    break
                await rim.sleep(0.2)

    async def _watch(self) -> None:
        """End what leads nowhere: a direct path that is silent, a relay to who is there no more."""
        rim = self._connection.rim
        alive_at = rim.steady()
        while True:
            await rim.sleep(1.0)
            if self.link.path != "relay":
                alive_at = self._heard_at
            elif self._connection.is_at_service(self.link.other) and not self.link.session.waits:
                alive_at = rim.steady()  # there, and it has taken everything
            alive_at = max(alive_at, self._heard_at)
            if rim.steady() - alive_at > SILENT_S:
                self.link.abort()
                return

    # --- hearing ----------------------------------------------------------------------------

    async def _read(self) -> None:
        batch: list[Told] = []
        async for data in self.link:
            self._heard_at = self._connection.rim.steady()
            for raw in self._whole(data):
                message = _decoded(raw)
                if isinstance(message, Told):
                    batch.append(message)
                    continue
                batch = self._flush(batch)
                if message is not None:
                    self._take(message)
            if batch and (len(batch) >= RECORDS_PAGE or not self.link.has_come):
                batch = self._flush(batch)
                await asyncio.sleep(0)

    def _flush(self, batch: list[Told]) -> list[Told]:
        """Take records, all of a batch in one write."""
        found = []
        for told in batch:
            with suppress(ValueError):
                said = Said(base64url.decode(told.text), base64url.decode(told.signature))
                found.append((said, told.epoch))
        if found:
            self._refused += self._connection.take_direct(found, self.link.other)
            self._see_own()
        if self._refused > MOST_REFUSED:
            self.link.abort()
        return []

    def _take(self, message: Tips | Gone | Peers) -> None:
        with suppress(NotBelieved, ValueError):
            match message:
                case Tips():
                    self._take_tips(message)
                case Gone():
                    author = base64url.decode(message.author)
                    for first, last in message.ranges[:RANGES_PAGE]:
                        if 0 < first <= last < 2**53:
                            self._connection.circle.file.note_gone(author, first, last)
                case Peers():
                    self._meetings.is_alive(self.link.other)
                    now = self._connection.rim.steady()
                    if not message.peers or now - self._peers_at < PEERS_S:
                        return
                    self._peers_at = now
                    for one in message.peers[:PEERS_PAGE]:
                        with suppress(NotBelieved, ValueError):
                            signature = base64url.decode(one.signature)
                            self._meetings.hear_of(Said(one.text.encode(), signature))
                    if message.seen:
                        self._connection.seen_from(message.seen)

    def _take_tips(self, message: Tips) -> None:
        if self._theirs_known.is_set():
            return  # it was told before: once is enough
        for author, (last, hashed, first, digest) in message.tips.items():
            if len(self._theirs) < MOST_TIPS and 0 < first <= last < 2**53:
                run = Run(first, last, bytes.fromhex(hashed), bytes.fromhex(digest))
                self._theirs[base64url.decode(author)] = run
        if message.last:
            self._theirs_known.set()
            self._see_own()

    def _see_own(self) -> None:
        """See whether we know all of our own chain that the other has."""
        if self._theirs_known.is_set() and not self.caught_up:
            own = self._connection.circle.member.public.raw
            theirs = self._theirs.get(own, NOTHING)
            self.caught_up = self._connection.circle.file.tip(own)[0] >= theirs.last

    def _whole(self, data: bytes) -> Iterable[bytes]:
        self._buffer += data
        while len(self._buffer) >= _HEAD:
            size = int.from_bytes(self._buffer[:_HEAD], "big")
            if size > MOST_MESSAGE:
                self.link.abort()
                return
            if len(self._buffer) < _HEAD + size:
                return
            yield bytes(self._buffer[_HEAD : _HEAD + size])
            del self._buffer[: _HEAD + size]


def _decoded(raw: bytes) -> Tips | Told | Gone | Peers | None:
    try:
        return _DECODER.decode(raw)
    except (msgspec.MsgspecError, RecursionError, UnicodeDecodeError):
        return None  # of a newer version, or of a member who plays


def _record(said: Said, epoch: int) -> bytes:
    return msgspec.json.encode(Told(epoch, encode(said.text), encode(said.signature)))


async def write(link: Link, message: bytes) -> None:
    """Send a message of any size: its length, then as many pieces as it takes. Raises `Closed`."""
    raw = len(message).to_bytes(_HEAD, "big") + message
    async with link.writing:
        for at in range(0, len(raw), PAYLOAD_BYTES):
            await link.send(raw[at : at + PAYLOAD_BYTES])


async def _quiet(work: Any) -> None:
    with suppress(Closed):
        await work
