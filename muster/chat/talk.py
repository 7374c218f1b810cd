"""One circle's chat: what has come is taken into the store, and what is to be said is drafted.

Nothing here waits. Records lie in the circle's file, whoever has brought them; what is to be said
is left there as a draft, and the process that has the circle open says it.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from typing import Any

from capsules.errors import Refused
from muster import base64url, boxes, keys
from muster.chat import channels, kinds
from muster.chat.facts import Call, Channel, Fact, Facts, KeySource, Words, managers_text
from muster.chat.store import Message, Row, Store, View
from muster.circle.circle import CLOSING, DELETE, Circle
from muster.circle.file import LASTING, Draft, Kept
from muster.errors import BadValue, Hinted
from muster.records import GENERAL
from muster.texts import AHEAD_MS

BATCH, BATCH_BYTES = 500, 4 * 1024 * 1024

DAY_MS = 24 * 3600 * 1000

FLOOR_MS = 1_577_836_800_000
"""The year 2020: who tells of an earlier time has no clock, and is shown when it came."""

BURST_S, SHARE = 0.5, 0.1
"""So long facts are folded at once, then for this part of the time: one can say a great many."""

MOST_KEYS = 2**32 - 1

MOST_TRIED = 64
"""How many channels a passphrase is tried at."""


class NotAllowed(Hinted):
    """Somebody else has to do this."""


@dataclass(frozen=True, slots=True)
class Pending:
    """Something that this member has written, and that was not said so far."""

    draft: int
    channel: bytes
    text: str


@dataclass(frozen=True, slots=True)
class Delivery:
    """Where a message is: at how many services, and how many nodes took it directly."""

    services: int
    nodes: int


class Talk:
    """The chat of one circle, as one member has it."""

    def __init__(
        self,
        store: Store,
        circle: Circle,
        *,
        now_ms: Callable[[], int] | None = None,
        steady: Callable[[], float] = time.monotonic,
    ) -> None:
        self.store, self.circle = store, circle
        self.now_ms = now_ms or (lambda: circle.clock_ms())
        self._steady = steady
        self._facts: Facts | None = None
        self._facts_at = -1
        self._spent_s, self._spent_at = 0.0, 0.0
        self._tried: dict[bytes, int] = {}
        self._mended: set[tuple[bytes, bytes]] = set()
        """What was done about keys: once each, whether or not it counts."""
        store.know(circle.id, "muster")

    @property
    def id(self) -> bytes:
        """The circle's name."""
        return self.circle.id

    @property
    def me(self) -> bytes:
        """Who this member is."""
        return self.circle.member.id

    @property
    def facts(self) -> Facts:
        """What is true of the circle, as far as it is known here.

        Where somebody has said so much that it takes long, it is looked at anew now and then.
        """
        _, version = self.store.place(self.id)
        if self._facts is None or (version != self._facts_at and not self._rests()):
            with self._spending():
                self._facts = Facts.of(
                    self.id,
                    self.circle.file.founder,
                    self.store.facts(self.id),
                    me=self.circle.member,
                    passphrases=self._typed(),
                )
            self._facts_at = version
        return self._facts

    def _rests(self) -> bool:
        """Say whether so much time has gone into facts that the new ones wait."""
        now = self._steady()
        self._spent_s = max(0.0, self._spent_s - SHARE * (now - self._spent_at))
        self._spent_at = now
        return self._spent_s >= BURST_S

    @contextmanager
    def _spending(self) -> Iterator[None]:
        began = time.process_time()
        yield
        self._spent_s += time.process_time() - began

    # --- taking -----------------------------------------------------------------------------

    def catch_up(self) -> int:
        """Take what has come into the circle's file; return how many records that were."""
        file, evicted = self.circle.file.identity, self.circle.file.evicted()
        begins = self._is_other(file, evicted)
        if begins:
            self.store.begin_again(self.id, file, evicted)
        count = 0
        while found := self._take_batch():
            count += found
        if not self.store.is_applied(self.id):
            self._facts_changed()
        if begins:
            with self.store.writing():
                self.store.read_again(self.id)
        return count

    def _is_other(self, file: bytes, evicted: int) -> bool:
        """Say whether what was taken is not what lies in the file: restored, or records gone."""
        known, gone, place, at = self.store.taken_from(self.id)
        if (known, gone) != (file, evicted):
            return True
        return place > 0 and self.circle.file.hash_at(place) != at

    def _take_batch(self) -> int:
        facts, closed = False, dict[bytes, set[bytes]]()
        with self.store.writing():
            place, _ = self.store.place(self.id)
            found = list(self.circle.file.records(after=place, most=BATCH, most_bytes=BATCH_BYTES))
            for kept in found:
                facts = self._take(kept, closed) or facts
            if found:
                self.store.move(self.id, found[-1].place, found[-1].hash, facts=facts)
        for channel, sources in closed.items() if self.store.is_applied(self.id) else ():
            self._open(channel, sources)
        return len(found)

    def _take(self, kept: Kept, closed: dict[bytes, set[bytes]]) -> bool:
        """Take a record; say whether it is a fact."""
        record = kept.record
        if record.kind in kinds.FACTS:
            if record.kind == "call":
                self.store.add_talk(self.id, kept.hash, record.channel, self._shown_ms(kept))
            return self.store.add_fact(self.id, _fact(kept))
        if record.kind in LASTING:
            return False
        self.store.add_talk(self.id, kept.hash, record.channel, self._shown_ms(kept))
        if record.kind not in kinds.TALK and record.kind != DELETE:
            return False  # it means nothing here, and is kept and passed on as long as texts
        if channels.is_closed(record.body) and record.kind != DELETE:
            try:
                source = channels.source_of(record.body, kept.hash)
            except Refused:
                return False
            self.store.add_closed(self.id, kept.hash, record.channel, source)
            closed.setdefault(record.channel, set()).add(source)
        else:
            self._take_talk(kept, record.body, closed=False)
        return False

    def _take_talk(self, kept: Kept, body: Mapping[str, Any], *, closed: bool) -> None:
        record, circle, author = kept.record, self.id, kept.record.author_id
        try:
            said = kinds.read(record.kind, body)
        except Refused:
            return
        match said:
            case kinds.Text():
                row = Row(
                    *(kept.hash, record.channel, author, record.seq, record.at_ms),
                    shown_ms=self._shown_ms(kept),
                    closed=closed,
                    name=said.name,
                    text=said.text,
                    reply=None if said.reply is None else bytes.fromhex(said.reply),
                )
                if self.store.add_text(circle, row):
                    self.store.settle(circle, kept.hash)
            case kinds.Edit():
                of = bytes.fromhex(said.of)
                self.store.add_edit(
                    *(circle, kept.hash),
                    of=of,
                    author=author,
                    seq=record.seq,
                    channel=record.channel,
                    closed=closed,
                    text=said.text,
                )
                self.store.settle(circle, of, by=author)
            case kinds.Delete():
                of = bytes.fromhex(said.of)
                self.store.add_deletion(circle, of=of, author=author)
            case kinds.React():
                self.store.add_reaction(
                    *(circle, kept.hash),
                    of=bytes.fromhex(said.of),
                    author=author,
                    emoji=said.emoji,
                    seq=record.seq,
                    channel=record.channel,
                    closed=closed,
                    on=said.on,
                )
            case _:
                pass

    def _shown_ms(self, kept: Kept) -> int:
        """Return when a message is shown to have been said; no clock of another is believed far."""
        at_ms, now_ms = kept.record.at_ms, self.now_ms()
        return at_ms if FLOOR_MS <= at_ms <= now_ms + AHEAD_MS else now_ms

    def _facts_changed(self) -> None:
        """Let follow what follows from facts: who counts where, and what can be opened now."""
        _, version = self.store.place(self.id)
        facts = self.facts
        if self._facts_at != version:
            return  # they rest; it is done later, as it is not noted as done
        cuts = {
            (channel.id, member): last
            for channel in facts.channels.values()
            for member, last in channel.cuts.items()
        }
        with self._spending(), self.store.writing():
            self.store.cut(self.id, cuts)
            for channel in facts.channels.values():
                if channel.is_private:
                    self._open(channel.id, channel.sources)
            self.store.apply(self.id, version)

    def _open(self, channel: bytes, sources: Iterable[bytes]) -> None:
        """Open what is closed in a channel under some keys, as far as they are known."""
        facts = self.facts
        known = facts.channels.get(channel)
        if known is None:
            return
        with self.store.writing():
            for name in self.store.closing(self.id, channel).intersection(sources):
                source = known.sources.get(name)
                tried = len(facts.keys_of(known, source)) if source is not None else 0
                if tried:
                    for hashed in self.store.closed_under(self.id, channel, name):
                        self._open_one(facts, hashed, tried)

    def _open_one(self, facts: Facts, hashed: bytes, tried: int) -> None:
        if self._tried.get(hashed) == tried:
            return  # none of these keys opens it
        kept = self.circle.file.record(hashed)
        body = None if kept is None else facts.open(_fact(kept))
        if kept is None or body is None:
            self._tried[hashed] = tried
            return
        self.store.was_opened(self.id, hashed)
        self._take_talk(kept, body, closed=True)

    def expire(self) -> int:
        """Drop the texts that are older than their channel keeps them; return how many."""
        now_ms, facts, count = self.now_ms(), self.facts, 0
        for channel in self.store.channels_with_talk(self.id):
            days = facts.days_of(channel)
            if days:
                hashes = self.store.expire(self.id, channel, now_ms - days * DAY_MS)
                self.circle.file.erase(hashes)
                count += len(hashes)
        return count

    # --- reading ----------------------------------------------------------------------------

    def view(self, channel: bytes) -> View:
        """Return a channel as the store reads it."""
        known = self.facts.channels.get(channel)
        return View(self.id, channel, known is not None and known.is_private)

    def page(self, channel: bytes, **place: Any) -> list[Message]:
        """Return messages of a channel; see `Store.page`."""
        return self.store.page(self.view(channel), **place)

    def since(self, after: int, *, until: int) -> Iterator[Message]:
        """Yield the messages that count, in the order in which they came; see `Store.since`."""
        for one in self.store.since(self.id, after, until=until):
            if one.closed == self.view(one.channel).private:
                yield one

    def search(self, channel: bytes, words: str, *, most: int = 50) -> list[Message]:
        """Return the newest messages of a channel with these words."""
        return self.store.search(self.view(channel), words, most=most)

    def unread(self, channel: bytes) -> int:
        """Return how many messages of others were not read."""
        return self.store.unread(self.view(channel), but=self.facts.devices(self.me))

    def pending(self, channel: bytes) -> list[Pending]:
        """Return the texts that were written and not said so far."""
        found = []
        for draft in self.circle.file.drafts():
            if draft.kind == "text" and draft.channel == channel:
                body = draft.body.get(CLOSING, draft.body)
                found.append(Pending(draft.id, channel, str(body.get("text", ""))))
        return found

    def delivery(self, message: Message) -> Delivery:
        """Return where a message is by now."""
        return Delivery(
            self.circle.file.at_services(message.hash),
            self.store.takers(self.id, message.hash),
        )

    def name_of(self, member: bytes) -> str:
        """Return how a member is called; nothing for one who has not said."""
        return self.facts.names.get(member) or self.circle.name_of(member)

    @property
    def title(self) -> str:
        """How the circle is called: by its managers, else as it was joined."""
        return self.facts.name or self.circle.name

    def words(self) -> Words:
        """Return the abilities that members' nodes tell now."""
        found: dict[bytes, frozenset[str]] = {}
        for node in self.store.present(self.id):
            found[node.member] = found.get(node.member, frozenset()) | node.words
        return found

    def call_in(self, channel: bytes) -> Call | None:
        """Return the call that is on in a channel."""
        return self.facts.call_in(channel, now_ms=self.now_ms(), words=self.words())

    def calls(self) -> list[Call]:
        """Return the calls that are on, one of each channel that this member can read."""
        shown = {GENERAL} | {one.id for one in self.facts.shown()}
        found = self.facts.calls_on(now_ms=self.now_ms(), words=self.words())
        return [call for call in found if call.channel in shown]

    def channel(self, name: str) -> Channel:
        """Return a channel by its name, or by the beginning of its id; raises `BadValue`."""
        wanted = name.removeprefix("#").casefold()
        shown = self.facts.shown()
        found = [one for one in shown if one.name.casefold() == wanted]
        found = found or [
            one for one in shown if len(wanted) >= 4 and one.id.hex().startswith(wanted)
        ]
        if not found:
            raise BadValue(f"there is no channel '{name}'", "/channels lists them")
        if len(found) > 1:
            keys_ = ", ".join(one.id.hex()[:6] for one in found)
            raise BadValue(f"there are several channels '{name}'", f"say which: {keys_}")
        return found[0]

    # --- saying -----------------------------------------------------------------------------

    def say(
        self, text: str, *, channel: bytes = GENERAL, name: str = "", reply: bytes | None = None
    ) -> int:
        """Draft a text; raises `BadValue` or `NotAllowed`."""
        self.circle.check_text(text)
        body = kinds.Text(text=text, name=name, reply=None if reply is None else reply.hex())
        return self._draft(channel, "text", body)

    def edit(self, of: Message, text: str) -> int:
        """Draft that a text of this member's is to say something else."""
        self._check_mine(of)
        self.circle.check_text(text)
        return self._draft(of.channel, "edit", kinds.Edit(of=of.hash.hex(), text=text))

    def delete(self, of: Message) -> int:
        """Draft that a text of this member's is dropped."""
        self._check_mine(of)
        body = kinds.write(kinds.Delete(of=of.hash.hex(), seq=of.seq))
        return self._post(of.channel, DELETE, body)

    def react(self, of: Message, emoji: str, *, on: bool = True) -> int:
        """Draft an emoji beside a text, or that it is taken away."""
        said = kinds.React(of=of.hash.hex(), emoji=emoji, on=on)
        return self._draft(of.channel, "react", said)

    def _check_mine(self, message: Message) -> None:
        if message.author != self.me:
            raise NotAllowed("only its author can do that", "choose a message of your own")

    def _draft(self, channel: bytes, kind: str, said: kinds.Body) -> int:
        """Draft something; in a private channel it is closed when it is said."""
        body = kinds.write(said)
        known = self.facts.channels.get(channel)
        if channel != GENERAL and (known is None or known.creator is None):
            if self._is_being_made(channel):
                return self._post(channel, kind, body)  # said after it, in this order
            raise BadValue("there is no such channel", "/channels lists them")
        if known is None or not known.is_private:
            return self._post(channel, kind, body)
        self._check_in(known)
        source, key = self._writing(known)
        return self._post(channel, kind, _closing(body, source, key))

    def _is_being_made(self, channel: bytes) -> bool:
        """Say whether this member has drafted a public channel that was not said so far."""
        made = ("create", "public")
        return any(
            draft.channel == channel and (draft.body.get("op"), draft.body.get("mode")) == made
            for draft in self.circle.file.drafts()
        )

    def _check_in(self, channel: Channel) -> None:
        if self.me in channel.cuts:
            raise NotAllowed(f"you were removed from #{channel.name}", "ask who manages it")

    def _writing(self, channel: Channel) -> tuple[KeySource, bytes]:
        found = self.facts.writing(channel)
        if found is None:
            raise NotAllowed(
                f"this device has no key of #{channel.name}",
                "ask who manages it for an invitation, or join with its passphrase",
            )
        return found

    def _post(self, channel: bytes, kind: str, body: Mapping[str, Any]) -> int:
        self.circle.check(channel, kind, body)
        return self.circle.file.draft(channel, kind, body)

    # --- the circle -------------------------------------------------------------------------

    def name_circle(self, name: str) -> int:
        """Draft another name of the circle; raises `NotAllowed`."""
        self._check_manages_circle()
        said = kinds.CircleName(name=_named(name), n=self.facts.next_circle_name())
        return self._post(GENERAL, "circle", kinds.write(said))

    def keep_circle(self, days: int) -> int:
        """Draft how many days texts are kept; raises `NotAllowed`."""
        self._check_manages_circle()
        said = kinds.CircleKeep(days=_days(days), n=self.facts.next_circle_days())
        return self._post(GENERAL, "circle", kinds.write(said))

    def name_managers(self, members: Iterable[bytes]) -> int:
        """Draft who manages the circle, beside this member; raises `circle.NotFounder`."""
        named = sorted({one.hex() for one in members} | {self.me.hex()})
        if len(named) > kinds.MOST_MANAGERS:
            raise BadValue(f"a circle has at most {kinds.MOST_MANAGERS} managers")
        at_ms = max(self.now_ms(), self.facts.statement_ms + 1)
        signature = self.circle.sign_as_founder(managers_text(self.id, at_ms, named))
        said = kinds.CircleManagers(
            managers=tuple(named), at_ms=at_ms, signature=base64url.encode(signature)
        )
        return self._post(GENERAL, "circle", kinds.write(said))

    def _check_manages_circle(self) -> None:
        if self.me in self.facts.managers:
            return
        if not self.circle.is_founder:
            raise NotAllowed(
                "only those who manage the circle can do that", "ask who made it, or whom it named"
            )
        self.name_managers(self.facts.managers)

    def link_device(self, other: bytes, *, on: bool = True) -> int:
        """Draft that another member key is the same person's; it counts when both say so."""
        key = self.facts.members.get(other)
        if key is None or other == self.me:
            raise BadValue("this is no other member of the circle")
        said = kinds.Person(other=base64url.encode(key), on=on)
        return self._post(GENERAL, "person", kinds.write(said))

    # --- channels ---------------------------------------------------------------------------

    def create_channel(self, name: str, mode: str = "public", *, passphrase: str = "") -> bytes:
        """Draft a channel; return its id. Raises `BadValue`."""
        name = _named(name.removeprefix("#"))
        if any(one.name.casefold() == name.casefold() for one in self.facts.shown()):
            raise BadValue(f"there is a channel '{name}' already", "choose another name")
        if name.casefold() == "general":
            raise BadValue("every circle has a channel 'general' already", "choose another name")
        entropy = self.circle.rim.entropy
        salt = entropy(channels.SALT_BYTES)
        channel = channels.channel_id(self.circle.member.public.raw, salt)
        body: dict[str, Any] = {"op": "create", "mode": mode, "salt": base64url.encode(salt)}
        if mode == "public":
            self._post(channel, "channel", {**body, "name": name})
            return channel
        if mode == "key":
            key = boxes.passphrase_key(_passphrase(passphrase), salt)
            self._remember(salt, key)
        elif mode == "invite":
            key = entropy(keys.SECRET_BYTES)
            body["box"] = self._boxed(key, self.circle.member.box_public, channel, 0)
        else:
            raise BadValue(f"'{mode}' is no mode of a channel", "public, key or invite")
        body |= {"key": 0, CLOSING: {"name": name}, "with": base64url.encode(key)}
        self._post(channel, "channel", body)
        return channel

    def join_channel(self, name: str, *, passphrase: str = "") -> Channel:
        """Draft that this member is in a channel, or asks to be.

        With a passphrase it is one that only who has that can read. Raises `BadValue`.
        """
        locked = bool(passphrase)
        channel = self._unlocked(name, passphrase) if locked else self._named_or_hidden(name)
        self._post(channel.id, "channel", kinds.write(kinds.Join()))
        return channel

    def _named_or_hidden(self, name: str) -> Channel:
        """Return a channel that is shown, or one by invitation by the beginning of its id."""
        wanted = name.removeprefix("#").casefold()
        hidden = [
            one
            for one in self.facts.channels.values()
            if one.mode == "invite" and not one.name and one.id.hex().startswith(wanted)
        ]
        return hidden[0] if len(hidden) == 1 and len(wanted) >= 4 else self.channel(name)

    def _unlocked(self, name: str, passphrase: str) -> Channel:
        """Find the channel that a passphrase opens; raises `BadValue`."""
        wanted = name.removeprefix("#").casefold()
        for channel in self._to_try(wanted):
            source = channel.standing_source()
            if source is None:
                continue
            key = boxes.passphrase_key(passphrase, source.salt)
            try:
                inner = channels.opened(
                    *(self.id, channel.id, source.fact.body),
                    author=source.fact.author,
                    seq=source.fact.seq,
                    key=key,
                )
            except Refused:
                continue
            called = str(inner.get("name", wanted)).casefold()
            if wanted in (called, channel.name.casefold()) or channel.id.hex().startswith(wanted):
                self.remember_key(source.salt, key)
                return self.facts.channels[channel.id]
        raise BadValue(
            f"no channel '{name}' opens with this passphrase", "ask for it again; case counts"
        )

    def _to_try(self, wanted: str) -> list[Channel]:
        """Return the channels to try a passphrase at: of each creator in turn, the newest first.

        Each takes a tenth of a second, and one member can create any number.
        """
        found = [one for one in self.facts.channels.values() if one.mode == "key"]
        found.sort(key=lambda one: -(one.created.at_ms if one.created else 0))
        turns: dict[bytes, int] = {}
        ranked = []
        for one in found:
            turn = turns[one.creator or b""] = turns.get(one.creator or b"", -1) + 1
            meant = len(wanted) >= 4 and one.id.hex().startswith(wanted)
            ranked.append((not meant, turn, one))
        ranked.sort(key=lambda one: one[:2])
        return [one for _, _, one in ranked[:MOST_TRIED]]

    def leave_channel(self, channel: Channel) -> int:
        """Draft that this member is in a channel no longer."""
        return self._post(channel.id, "channel", kinds.write(kinds.Leave()))

    def rename_channel(self, channel: Channel, name: str) -> int:
        """Draft another name of a channel; raises `NotAllowed`."""
        self._check_manages(channel)
        number = self.facts.next_in(channel.said_names, channel.managers)
        return self._draft(channel.id, "channel", kinds.Rename(name=_named(name), n=number))

    def set_topic(self, channel: Channel, topic: str) -> int:
        """Draft what a channel is about; raises `NotAllowed`."""
        self._check_manages(channel)
        if len(topic.encode()) > kinds.TOPIC_BYTES:
            raise BadValue(f"a topic has at most {kinds.TOPIC_BYTES} bytes")
        number = self.facts.next_in(channel.said_topics, channel.managers)
        return self._draft(channel.id, "channel", kinds.Topic(topic=topic, n=number))

    def keep_channel(self, channel: Channel, days: int) -> int:
        """Draft how many days the texts of a channel are kept; raises `NotAllowed`."""
        self._check_manages(channel)
        number = self.facts.next_in(channel.said_days, channel.managers)
        said = kinds.Keep(days=_days(days), n=number)
        return self._post(channel.id, "channel", kinds.write(said))

    def manage_channel(self, channel: Channel, members: Iterable[bytes]) -> int:
        """Draft who manages a channel beside its creator; raises `NotAllowed`.

        Who manages it no longer has a key: a private channel gets the next one.
        """
        if channel.creator != self.me:
            raise NotAllowed(f"only who created #{channel.name} names its managers", "ask them")
        named = frozenset(one for one in members if one != self.me)
        said = kinds.Managers(managers=tuple(sorted(one.hex() for one in named)))
        number = self._post(channel.id, "channel", kinds.write(said))
        if channel.managers - named - {self.me}:
            for target in channel.cuts:  # what the others have removed stays removed
                self._post(channel.id, "channel", self._removal(channel, target, new_key=False))
            if channel.mode == "invite":
                self.renew_key(replace(channel, managers=named | {self.me}))
        return number

    def invite(self, channel: Channel, member: bytes) -> int:
        """Draft that somebody is let in; with the key, where the channel has one.

        All devices of a person are. Raises `NotAllowed` or `BadValue`.
        """
        self._check_manages(channel)
        number = 0
        for device in sorted(self.facts.devices(member)):
            asked = device in channel.asking
            said = self._invitation(channel, device, approve=asked)
            number = self._post(channel.id, "channel", kinds.write(said))
        return number

    def _invitation(self, channel: Channel, member: bytes, *, approve: bool) -> kinds.Invite:
        kind = kinds.Approve if approve else kinds.Invite
        number = self.facts.next_in(channel.about, channel.managers, member)
        if channel.mode != "invite":
            return kind(to=member.hex(), n=number)
        source, key = self._writing(channel)
        box = self.facts.boxes.get(member)
        if box is None:
            raise BadValue("this member has not said so far where secrets are boxed to", "wait")
        return kind(
            to=member.hex(),
            key=source.number,
            source=source.hash.hex(),
            box=self._boxed(key, box, channel.id, source.number),
            n=number,
        )

    def remove(self, channel: Channel, member: bytes, *, passphrase: str = "") -> None:
        """Draft that a person is in a channel no longer; a private one gets another key.

        Where the channel has a passphrase it is to be a new one. Raises `NotAllowed`, `BadValue`.
        """
        self._check_manages(channel)
        devices = sorted(self.facts.devices(member))
        if self.me in devices or channel.creator in devices:
            raise BadValue("who created a channel cannot be removed from it", "leave it, or rename")
        if channel.mode == "key":
            _passphrase(passphrase)
        stay = channel.managers - frozenset(devices)
        if channel.creator == self.me and stay != channel.managers:
            named = tuple(sorted(one.hex() for one in stay - {self.me}))
            self._post(channel.id, "channel", kinds.write(kinds.Managers(managers=named)))
            channel = replace(channel, managers=stay)
        for device in devices[:-1]:
            self._post(channel.id, "channel", self._removal(channel, device, new_key=False))
        body = self._removal(
            channel,
            devices[-1],
            new_key=channel.is_private,
            without=frozenset(devices),
            passphrase=passphrase,
        )
        self._post(channel.id, "channel", body)

    def renew_key(self, channel: Channel, *, passphrase: str = "") -> int:
        """Draft the next key of a private channel; raises `NotAllowed`."""
        self._check_manages(channel)
        body = {"op": "key", **self._next_key(channel, frozenset(), passphrase)}
        return self._post(channel.id, "channel", body)

    def _removal(
        self,
        channel: Channel,
        member: bytes,
        *,
        new_key: bool,
        without: frozenset[bytes] = frozenset(),
        passphrase: str = "",
    ) -> dict[str, Any]:
        last = channel.cuts.get(member)
        if last is None:
            key = self.facts.members.get(member)
            last = 0 if key is None else self.circle.file.reach(key)[0]
        number = self.facts.next_in(channel.about, channel.managers, member)
        body: dict[str, Any] = {"op": "remove", "member": member.hex(), "last": last, "n": number}
        return body | (self._next_key(channel, without, passphrase) if new_key else {})

    def _next_key(
        self, channel: Channel, without: frozenset[bytes], passphrase: str
    ) -> dict[str, Any]:
        """Return the members of a body that make the next key, for those who are in."""
        source = channel.standing_source()
        number = 0 if source is None else source.number + 1
        if number > MOST_KEYS:
            raise BadValue(
                f"a manager of #{channel.name} has used the last number of a key",
                "who created it takes that manager's right: /channel managers NAME…",
            )
        if channel.mode == "key":
            salt = self.circle.rim.entropy(channels.SALT_BYTES)
            key = boxes.passphrase_key(_passphrase(passphrase), salt)
            self._remember(salt, key)
            return {
                "key": number,
                "salt": base64url.encode(salt),
                CLOSING: {},
                "with": base64url.encode(key),
            }
        key = self.circle.rim.entropy(keys.SECRET_BYTES)
        stay = [one for one in sorted(channel.members - without) if one in self.facts.boxes]
        if len(stay) > kinds.MOST_BOXES:
            raise BadValue(f"a private channel has at most {kinds.MOST_BOXES} members")
        boxed = {}
        for one in stay:
            try:
                boxed[one.hex()] = self._boxed(key, self.facts.boxes[one], channel.id, number)
            except BadValue:
                continue
        boxed[self.me.hex()] = self._boxed(key, self.circle.member.box_public, channel.id, number)
        return {"key": number, "boxes": boxed}

    def _boxed(self, key: bytes, to: bytes, channel: bytes, number: int) -> str:
        bound = boxes.for_channel(self.id, channel, number)
        ephemeral = self.circle.rim.entropy(keys.KEY_BYTES)
        try:
            return base64url.encode(boxes.box(key, to, bound, ephemeral=ephemeral))
        except Refused:
            raise BadValue("this member's box key leads to nothing: no secret reaches it") from None

    def _check_manages(self, channel: Channel) -> None:
        if not channel.may_manage(self.me):
            raise NotAllowed(
                f"only those who manage #{channel.name} can do that",
                f"ask {self.name_of(channel.creator or b'') or 'who created it'}",
            )

    # --- keys -------------------------------------------------------------------------------

    def _typed(self) -> dict[bytes, bytes]:
        """Return keys that no box gave, by the records that made them: typed, or imported."""
        kept = json.loads(self.circle.file.fact("passphrases", b"{}"))
        by_salt = {base64url.decode(salt): base64url.decode(key) for salt, key in kept.items()}
        brought = json.loads(self.circle.file.fact("channel keys", b"{}"))
        found = {bytes.fromhex(one): base64url.decode(key) for one, key in brought.items()}
        for fact in self.store.facts(self.id) if by_salt else ():
            salt = fact.body.get("salt") if fact.kind == "channel" else None
            if isinstance(salt, str):
                try:
                    key = by_salt.get(base64url.decode(salt))
                except ValueError:
                    continue
                if key is not None:
                    found[fact.hash] = key
        return found

    def known_keys(self) -> dict[bytes, bytes]:
        """Return the keys of private channels, by the records that made them."""
        facts = self.facts
        return {
            source.hash: key
            for channel in facts.channels.values()
            for source in channel.sources.values()
            if (key := facts.key_of(channel, source)) is not None
        }

    def keep_key(self, source: bytes, key: bytes) -> None:
        """Keep a channel's key that another device had; raises `ValueError` for what is none."""
        if len(source) != 32 or len(key) != keys.SECRET_BYTES:
            raise ValueError("a key has 32 bytes")
        brought = json.loads(self.circle.file.fact("channel keys", b"{}"))
        brought[source.hex()] = base64url.encode(key)
        self.circle.file.keep("channel keys", json.dumps(brought).encode())
        self._keys_changed()

    def remember_key(self, salt: bytes, key: bytes) -> None:
        """Keep the key that follows from a passphrase, and read what it opens."""
        self._remember(salt, key)
        self._keys_changed()

    def _keys_changed(self) -> None:
        """Read what a key opens that has come otherwise than by a record."""
        self._facts_at, self._spent_s = -1, 0.0
        self._facts_changed()

    def _remember(self, salt: bytes, key: bytes) -> None:
        kept = json.loads(self.circle.file.fact("passphrases", b"{}"))
        kept[base64url.encode(salt)] = base64url.encode(key)
        self.circle.file.keep("passphrases", json.dumps(kept).encode())

    def tend(self) -> None:
        """Before drafts are said: close them under the keys that are, and mend keys.

        Who manages a channel gives members the key who lack it, and makes the next one where
        somebody has it who was removed: two managers may have acted at once. Who has made the
        key says under it how the channel is called: who comes later has no other.
        """
        self._spent_s = 0.0  # what is said now is closed under what is true now
        drafts = self.circle.file.drafts()
        for draft in drafts:
            if CLOSING in draft.body and not _makes_key(draft):
                self._renew(draft)
        busy = {draft.channel for draft in drafts if draft.kind == "channel"}
        for channel in self.facts.channels.values():
            if channel.is_private and channel.id not in busy and channel.may_manage(self.me):
                self._mend(channel)

    def _renew(self, draft: Draft) -> None:
        channel = self.facts.channels.get(draft.channel)
        found = self.facts.writing(channel) if channel is not None else None
        if channel is None or channel.creator is None or found is None:
            return  # it was created just now, or its key is to come
        source, key = found
        if draft.body.get("from") != source.hash.hex():
            self.circle.file.redraft(draft.id, _closing(draft.body[CLOSING], source, key))

    def _mend(self, channel: Channel) -> None:
        source, found = channel.standing_source(), self.facts.writing(channel)
        if source is None or found is None or not self.facts.has_plenty(self.me):
            return  # another manager may make any number of keys, to be boxed to everybody
        has = channel.invited.get(source.hash, frozenset())
        if channel.mode == "invite" and (has - channel.members) & channel.cuts.keys():
            if self._is_first(source, b"renewed"):
                with suppress(BadValue):
                    self.renew_key(channel)
            return
        lack = sorted(channel.members - has - {self.me}) if channel.mode == "invite" else []
        for member in lack:
            if member in self.facts.boxes and self._is_first(source, member):
                with suppress(BadValue):
                    said = self._invitation(channel, member, approve=False)
                    self._post(channel.id, "channel", kinds.write(said))
        if source.author == self.me and self._is_first(source, b"named"):
            if channel.name and channel.named_under != source.hash:
                self.rename_channel(channel, channel.name)
            if channel.topic and channel.topic_under != source.hash:
                self.set_topic(channel, channel.topic)

    def _is_first(self, source: KeySource, what: bytes) -> bool:
        """Say whether something is done about a key for the first time here."""
        first = (source.hash, what) not in self._mended
        self._mended.add((source.hash, what))
        return first

    # --- calls ------------------------------------------------------------------------------

    def start_call(self, channel: bytes, media: str = "audio") -> int:
        """Draft a call; who starts one where one is on joins that instead."""
        on = self.call_in(channel)
        if on is not None:
            return self.join_call(on)
        if media not in ("audio", "video", "broadcast"):
            raise BadValue(f"'{media}' is no kind of call", "audio, video or broadcast")
        return self._draft(channel, "call", kinds.CallCreate(media=media))  # type: ignore[arg-type]

    def join_call(self, call: Call) -> int:
        """Draft that this member is in a call."""
        return self._draft(call.channel, "call", kinds.CallJoin(call=call.hash.hex()))

    def leave_call(self, call: Call) -> int:
        """Draft that this member is in a call no longer."""
        return self._draft(call.channel, "call", kinds.CallLeave(call=call.hash.hex()))

    def end_call(self, call: Call) -> int:
        """Draft that a call is over for all; raises `NotAllowed`."""
        if call.host != self.me:
            raise NotAllowed("only who began a call ends it for all", "leave it instead")
        return self._draft(call.channel, "call", kinds.CallEnd(call=call.hash.hex()))


def _fact(kept: Kept) -> Fact:
    record = kept.record
    return Fact(
        *(kept.hash, record.author.raw, record.seq, record.at_ms, record.channel, record.kind),
        record.body,
    )


def _closing(body: Mapping[str, Any], source: KeySource, key: bytes) -> dict[str, Any]:
    """Return a draft's body that is closed under a key when it is said."""
    clear = {name: body[name] for name in channels.OPEN if name in body}
    inner = {name: value for name, value in body.items() if name not in channels.OPEN}
    return {
        **clear,
        "key": source.number,
        "from": source.hash.hex(),
        CLOSING: inner,
        "with": base64url.encode(key),
    }


def _makes_key(draft: Draft) -> bool:
    return draft.kind == "channel" and draft.body.get("op") in ("create", "remove", "key")


def _named(name: str) -> str:
    name = " ".join(name.split())
    if not name or len(name.encode(errors="replace")) > kinds.NAME_BYTES:
        raise BadValue(f"a name has 1 to {kinds.NAME_BYTES} bytes")
    return name


def _days(days: int) -> int:
    if not 0 <= days <= kinds.MOST_DAYS:
        raise BadValue(f"texts are kept 1 to {kinds.MOST_DAYS} days, or 0 for as long as one likes")
    return days


def _passphrase(passphrase: str) -> str:
    if len(passphrase) < 8:
        raise BadValue("the passphrase of a channel has at least 8 characters", "say a longer one")
    return passphrase
