"""A circle of the felund dialect in the chat: texts and names, by version 1's client.

Its clients sign nothing of their own, have no chains, and keep no facts: what a message claims
is all there is. Its channels are the names in messages.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, suppress

from muster import keys
from muster.backoff import Backoff, Rim
from muster.chat.room import Place, Someone, Waiting
from muster.chat.store import Message, Row, Store, View
from muster.errors import BadValue, Refused
from muster.felund.circle import Circle
from muster.felund.client import Client
from muster.felund.crypto import GENERAL as GENERAL_NAME
from muster.felund.crypto import Note
from muster.felund.invite import Invite
from muster.felund.roster import Joined, Left
from muster.felund.sockets import Unreachable
from muster.felund.subscription import Subscription
from muster.records import GENERAL

TTL_S = 600
TRY_AGAIN_S = 5.0
LOOK_S = 0.25
LACKS = "a felund circle has texts and names alone: existing clients know nothing else"


class FelundRoom:
    """One felund circle of a profile (`room.AnyRoom`)."""

    kind = "felund"

    def __init__(
        self,
        name: str,
        circle: Circle,
        base_url: str,
        node_id: str,
        store: Store,
        *,
        called: str = "",
        rim: Rim | None = None,
    ) -> None:
        self.name, self.circle, self.base_url, self.node_id = name, circle, base_url, node_id
        self.called, self.trouble = called, ""
        self.changed: Callable[[], None] = lambda: None
        self._rim = rim or Rim()
        self.store = store
        self._names: dict[bytes, str] = {}
        self._there: set[str] = set()
        self._live = False
        self._kept_as = f"felund {circle.circle_hint}"
        store.know(self.id, "felund")

    @property
    def id(self) -> bytes:
        """The circle's name in the store."""
        return keys.identify("felund circle", self.circle.circle_hint.encode())

    @property
    def title(self) -> str:
        """How the circle is called: as it is here, it has no other name."""
        return self.name

    @property
    def status(self) -> str:
        """How the service is reached, in a few words."""
        return self.trouble or ("live" if self._live else "polling")

    def close(self) -> None:
        """There is nothing to close."""

    # --- keeping up ------------------------------------------------------------------------------

    async def run(self) -> None:
        """Read what comes, and send what is written, until cancelled."""
        while True:
            try:
                async with self._client() as client:
                    await client.register(ttl_s=TTL_S)
                    self.trouble = ""
                    await self._stay(client)
            except (Refused, Unreachable) as error:
                self.trouble, self._live = " ".join(str(error).split()), False
                self.changed()
            await asyncio.sleep(TRY_AGAIN_S)

    @asynccontextmanager
    async def _client(self) -> AsyncIterator[Client]:
        cursor = int(self.store.setting(f"{self._kept_as} cursor", "0"))
        opened = Client(
            *(self.base_url, self.circle, self.node_id),
            cursor=cursor,
            backoff=Backoff(attempts=2),
            rim=self._rim,
        )
        async with opened as client:
            try:
                yield client
            finally:
                with suppress(Refused, Unreachable, TimeoutError):
                    async with asyncio.timeout(2):
                        await client.unregister()

    async def _stay(self, client: Client) -> None:
        async with Subscription(client, after=client.cursor, signals=False) as events:
            tasks = [
                asyncio.create_task(work)
                for work in (
                    self._follow(events),
                    self._send(client),
                    self._stay_registered(client),
                    self._watch(events),
                )
            ]
            try:
                done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
                for task in done:
                    task.result()
            finally:
                for task in tasks:
                    task.cancel()
                await asyncio.gather(*tasks, return_exceptions=True)

    async def _follow(self, events: Subscription) -> None:
        async for event in events:
            match event:
                case Note():
                    with self.store.writing():
                        self._take(event)
                    self.store.put(f"{self._kept_as} cursor", str(events.cursor))
                case Joined():
                    self._there.add(event.peer.node_id)
                case Left():
                    self._there.discard(event.node_id)
                case _:
                    continue
            self.changed()

    async def _send(self, client: Client) -> None:
        while True:
            for number, channel, text in self.store.outbox(self.id):
                name = self._channel_names().get(bytes(channel).hex(), GENERAL_NAME)
                note = None
                try:
                    note = await client.send(text, channel=name, display_name=self.called)
                except Refused as error:
                    if error.passing:
                        raise
                    self.trouble = f"not sent: {error}"  # it would never be, and hold up the rest
                with self.store.writing():
                    if note is not None:
                        self._take(note)
                    self.store.sent(number)
                self.changed()
            await self._rim.sleep(LOOK_S)

    async def _stay_registered(self, client: Client) -> None:
        while True:
            await self._rim.sleep(TTL_S / 2)
            await client.register(ttl_s=TTL_S)

    async def _watch(self, events: Subscription) -> None:
        while True:
            if self._live != events.live:
                self._live = events.live
                self.changed()
            await self._rim.sleep(1.0)

    def _take(self, note: Note) -> None:
        if note.channel_id.startswith("__"):
            return  # what its clients tell each other: nobody's text
        channel = _channel(note.channel_id)
        names = self._channel_names()
        if channel != GENERAL and channel.hex() not in names and len(names) < 1000:
            names[channel.hex()] = note.channel_id
            self.store.put(f"{self._kept_as} channels", json.dumps(names))
        at_ms = max(note.created_ts, 0) * 1000
        self.store.add_text(
            self.id,
            Row(
                hash=hashlib.sha256(note.msg_id.encode()).digest(),
                channel=channel,
                author=_author(note.author_node_id),
                seq=0,
                at_ms=at_ms,
                shown_ms=min(at_ms, int(self._rim.now() * 1000) + 600_000),
                closed=False,
                name=note.display_name,
                text=note.text,
                reply=None,
            ),
        )
        self._names[_author(note.author_node_id)] = note.display_name

    def _channel_names(self) -> dict[str, str]:
        found: dict[str, str] = json.loads(self.store.setting(f"{self._kept_as} channels", "{}"))
        return found

    # --- what a screen asks -----------------------------------------------------------------------

    def places(self) -> list[Place]:
        """Return the channels that messages name, `general` first."""
        found = [Place(GENERAL, GENERAL_NAME, unread=self.unread(GENERAL))]
        for channel, name in sorted(self._channel_names().items(), key=lambda one: one[1]):
            raw = bytes.fromhex(channel)
            found.append(Place(raw, name, unread=self.unread(raw)))
        return found

    def people(self) -> list[Someone]:
        """Return who is there, as far as nodes say it."""
        mine = Someone(_author(self.node_id), self.called, "relay", here=True, me=True)
        others = [
            Someone(_author(node), self._names.get(_author(node), node[:8]), "relay", here=True)
            for node in sorted(self._there)
            if node != self.node_id
        ]
        return [mine, *others]

    def page(
        self,
        channel: bytes,
        *,
        before: tuple[int, bytes] | None = None,
        after: tuple[int, bytes] | None = None,
        most: int = 50,
    ) -> list[Message]:
        """Return messages, the oldest first."""
        view = View(self.id, channel)
        return self.store.page(view, before=before, after=after, most=most)

    def search(self, channel: bytes, words: str, *, most: int = 50) -> list[Message]:
        """Return messages with these words, the oldest first."""
        return self.store.search(View(self.id, channel), words, most=most)

    def since(self, after: int, *, until: int) -> Iterator[Message]:
        """Yield messages in the order in which they came, between two numbers of them."""
        return self.store.since(self.id, after, until=until)

    def message(self, hashed: bytes) -> Message | None:
        """Return one message."""
        return self.store.message(self.id, hashed)

    def waiting(self, channel: bytes) -> list[Waiting]:
        """Return what was written and not sent so far."""
        return [Waiting(text) for _, place, text in self.store.outbox(self.id) if place == channel]

    def person_of(self, member: bytes) -> bytes:
        """Return the same: a felund circle tells nothing of devices."""
        return member

    def author(self, message: Message) -> str:
        """Return who a message says that it is of."""
        return message.name or message.author.hex()[:6]

    def is_mine(self, message: Message) -> bool:
        """Say whether this node sent it."""
        return message.author == _author(self.node_id)

    def fate(self, message: Message) -> str:
        """Say where a message is: what is stored here was taken by the service."""
        return "left with 1 service"

    def say(self, text: str, *, channel: bytes, reply: Message | None = None) -> None:
        """Send a text soon; raises `BadValue`."""
        if not text.strip():
            raise BadValue("there is nothing to say")
        if reply is not None:
            raise BadValue(LACKS, "write it as a text of its own")
        self.store.put_out(self.id, channel, text)

    def unread(self, channel: bytes) -> int:
        """Return how many messages of others were not read."""
        return self.store.unread(View(self.id, channel), but=[_author(self.node_id)])

    def mark(self, channel: bytes) -> int:
        """Return the number of the last message that was read."""
        return self.store.mark(self.id, channel)

    def read(self, channel: bytes, number: int) -> None:
        """Note that a channel was read up to a message."""
        self.store.read(self.id, channel, number)

    def invite(self) -> str:
        """Return what lets somebody in."""
        return Invite(self.circle, self.base_url).code()

    def channel(self, name: str) -> bytes:
        """Return a channel by its name; one that nobody has written in is made by writing."""
        name = name.removeprefix("#").strip().lower()
        if name == GENERAL_NAME:
            return GENERAL
        if not name or len(name) > 32 or name.startswith("__"):
            raise BadValue(f"'{name}' cannot name a channel of a felund circle")
        names = self._channel_names()
        channel = _channel(name)
        if channel.hex() not in names:
            names[channel.hex()] = name
            self.store.put(f"{self._kept_as} channels", json.dumps(names))
        return channel


def _channel(name: str) -> bytes:
    return GENERAL if name == GENERAL_NAME else keys.identify("felund channel", name.encode())


def _author(node_id: str) -> bytes:
    return keys.identify("felund node", node_id.encode())
