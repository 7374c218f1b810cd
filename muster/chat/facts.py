"""Facts: what is true of a circle's chat, by one rule, in whatever order records came.

All facts are folded anew, author by author in the order of their chains. What an author says
later replaces what it said before; what several may say is decided by their time, then by the
smaller hash; who may say it is judged by who may now (docs/chat.md, One rule). So the same
records give every node the same state, and a node that has only what still stands has it too.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple, TypeVar

from capsules import canonical
from capsules.errors import Refused
from capsules.keys import VerifyKey
from muster import base64url, keys
from muster.chat import channels, kinds
from muster.keys import label
from muster.records import GENERAL
from muster.texts import AHEAD_MS

MOST_REGISTERS = 4000
"""How many different facts of one author count, the first of its chain: memory is bounded."""

CALL_S = 12 * 3600
RING_S = 90.0
"""How long a call is believed to be on, where no presence says so."""

GENERAL_NAME = "general"

_TURNED = bytes(range(255, -1, -1))

_T = TypeVar("_T")


@dataclass(frozen=True, slots=True)
class Fact:
    """A record about the circle itself, as it is kept: the body as on the wire."""

    hash: bytes
    author: bytes
    seq: int
    at_ms: int
    channel: bytes
    kind: str
    body: Mapping[str, Any]


class Latest(NamedTuple):
    """What an author said last of one thing; *n* orders what several say of it."""

    n: int
    at_ms: int
    hash: bytes
    value: Any


@dataclass(frozen=True, slots=True)
class KeySource:
    """A record that makes a key of a private channel."""

    hash: bytes
    number: int
    author: bytes
    boxes: frozenset[bytes]
    salt: bytes
    fact: Fact


@dataclass(slots=True)
class Channel:
    """A channel, as far as it is known; *creator* is None while its creation has not come."""

    id: bytes
    creator: bytes | None = None
    created: Latest | None = None
    seq: int = 0
    mode: str = "public"
    name: str = ""
    topic: str = ""
    named_under: bytes = b""
    """The record that made the key under which the name was said, in a private channel."""
    topic_under: bytes = b""
    days: int | None = None
    managers: frozenset[bytes] = frozenset()
    members: frozenset[bytes] = frozenset()
    asking: frozenset[bytes] = frozenset()
    cuts: dict[bytes, int] = field(default_factory=dict)
    """By member, the last record of it that counts here, of those who were removed."""
    sources: dict[bytes, KeySource] = field(default_factory=dict)
    invited: dict[bytes, frozenset[bytes]] = field(default_factory=dict)
    """By the record that made a key, to whom it was boxed."""
    # what was said, by whom
    said_names: dict[bytes, Latest] = field(default_factory=dict)
    said_topics: dict[bytes, Latest] = field(default_factory=dict)
    said_days: dict[bytes, Latest] = field(default_factory=dict)
    said_managers: dict[bytes, Latest] = field(default_factory=dict)
    here: dict[bytes, Latest] = field(default_factory=dict)
    about: dict[tuple[bytes, bytes], Latest] = field(default_factory=dict)
    given: dict[tuple[bytes, bytes, bytes, bytes], Latest] = field(default_factory=dict)
    ever: dict[bytes, dict[bytes, frozenset[bytes]]] = field(default_factory=dict)
    """By author and record, whom it has named as managers, then or now."""

    @property
    def is_private(self) -> bool:
        """Whether what is said here is closed under a key of the channel."""
        return self.mode != "public"

    def may_manage(self, member: bytes) -> bool:
        """Say whether a member may do what the creator may."""
        return member in self.managers

    def hears(self, member: bytes, seq: int) -> bool:
        """Say whether a record of a member counts here."""
        cut = self.cuts.get(member)
        return cut is None or seq <= cut

    def standing_source(self) -> KeySource | None:
        """Return what made the key that is used now: the highest number, the smaller hash."""
        counting = [one for one in self.sources.values() if self.may_manage(one.author)]
        return min(counting, key=lambda one: (-one.number, one.hash), default=None)


@dataclass(frozen=True, slots=True)
class Call:
    """A call: who is in it as records say; whether it is on, `Facts.is_live` says."""

    hash: bytes
    channel: bytes
    host: bytes
    media: str
    at_ms: int
    participants: frozenset[bytes]
    viewers: frozenset[bytes]
    ended: bool
    heard_ms: int
    """When somebody in it said so last."""


Words = Mapping[bytes, frozenset[str]]
"""By member, the abilities that its nodes tell now."""


class Facts:
    """What is true of one circle now."""

    def __init__(
        self,
        circle: bytes,
        founder: VerifyKey,
        *,
        me: keys.Member | None = None,
        passphrases: Mapping[bytes, bytes] | None = None,
    ) -> None:
        self.circle, self._founder, self._me = circle, founder, me
        self._passphrases = passphrases or {}
        self.channels: dict[bytes, Channel] = {}
        self.names: dict[bytes, str] = {}
        self.boxes: dict[bytes, bytes] = {}
        self.members: dict[bytes, bytes] = {}
        """Member keys by the ids of members."""
        self.name = ""
        self.days = kinds.KEEP_DAYS
        self.managers: frozenset[bytes] = frozenset()
        self.standing: frozenset[bytes] = frozenset()
        self.calls: dict[bytes, Call] = {}
        self._calls_in: dict[bytes, list[Call]] = {}
        """By channel, the calls that somebody is in: a member is in one at a time."""
        self._person_of: dict[bytes, bytes] = {}
        self._devices: dict[bytes, frozenset[bytes]] = {}
        self._used: dict[bytes, int] = {}
        self._member: dict[bytes, Latest] = {}
        self._persons: dict[tuple[bytes, bytes], Latest] = {}
        self._circle_names: dict[bytes, Latest] = {}
        self._circle_days: dict[bytes, Latest] = {}
        self._statement: Latest | None = None
        self._statements: dict[bytes, tuple[Fact, kinds.CircleManagers]] = {}
        self._call_creates: dict[bytes, tuple[Fact, kinds.CallCreate]] = {}
        self._call_at: dict[bytes, Latest] = {}
        self._call_ends: dict[bytes, Latest] = {}
        self._call_revokes: dict[tuple[bytes, bytes], Latest] = {}
        self._keys: dict[bytes, tuple[bytes, ...]] = {}
        self._given_me: dict[tuple[bytes, bytes], list[kinds.Invite]] = {}
        """By channel and the record that made a key, who has given this member a box of it."""

    @classmethod
    def of(
        cls,
        circle: bytes,
        founder: VerifyKey,
        found: Iterable[Fact],
        *,
        me: keys.Member | None = None,
        passphrases: Mapping[bytes, bytes] | None = None,
    ) -> Facts:
        """Fold facts, in whatever order they are given."""
        made = cls(circle, founder, me=me, passphrases=passphrases)
        ordered = sorted(found, key=lambda fact: (fact.author, fact.seq, _falling(fact.hash)))
        later: list[Fact] = []
        for fact in ordered:
            made._fold(fact, later)
        made._settle_channels()
        for fact in later:
            made._fold_closed(fact)
        made._settle()
        return made

    # --- reading facts ---------------------------------------------------------------------

    def _fold(self, fact: Fact, later: list[Fact]) -> None:
        author = keys.member_id(fact.author)
        try:
            if fact.kind == "channel":
                self._fold_channel(fact, author, later)
            elif fact.kind == "call":
                later.append(fact)
            else:
                self._fold_circle(fact, author, kinds.read(fact.kind, fact.body))
        except (Refused, ValueError, OverflowError):
            return  # one that nobody can read stops none of the others

    def _fold_circle(self, fact: Fact, author: bytes, said: kinds.Body) -> None:
        match said:
            case kinds.Member():
                if self._keep(author, self._member, author, fact, said.name):
                    self.members[author] = fact.author
                    self.boxes[author] = base64url.decode(said.box)
            case kinds.Person():
                other = keys.member_id(base64url.decode(said.other))
                self._keep(author, self._persons, (author, other), fact, said.on)
            case kinds.CircleName():
                self._keep(author, self._circle_names, author, fact, said.name, said.n)
            case kinds.CircleKeep():
                self._keep(author, self._circle_days, author, fact, said.days, said.n)
            case kinds.CircleManagers():
                if author in self._statements or self._room(author):
                    self._statements[author] = (fact, said)
            case _:
                pass

    def _believe_statements(self) -> None:
        """Believe the newest statement that the founder key has signed; of an author its last."""
        order = sorted(
            self._statements.values(),
            key=lambda one: (-one[1].at_ms, one[0].hash),
        )
        for fact, said in order:
            text = managers_text(self.circle, said.at_ms, said.managers)
            if self._founder.verify(text, base64url.decode(said.signature)):
                managers = frozenset(bytes.fromhex(one) for one in said.managers)
                self._statement = Latest(0, said.at_ms, fact.hash, managers)
                return

    def _fold_channel(self, fact: Fact, author: bytes, later: list[Fact]) -> None:
        op = fact.body.get("op")
        if channels.is_closed(fact.body) and op in ("rename", "topic"):
            later.append(fact)
            return
        body = dict(fact.body)
        if channels.is_closed(fact.body) and op == "create":
            body["name"] = "?"  # its name is read when its key is known
        said = kinds.read("channel", body)
        if fact.channel == GENERAL and not isinstance(said, kinds.Keep):
            return
        if fact.channel not in self.channels and not self._room(author):
            return
        channel = self.channels.setdefault(fact.channel, Channel(fact.channel))
        match said:
            case kinds.Create():
                self._create(channel, fact, author, said)
                if channels.is_closed(fact.body):
                    later.append(fact)
            case kinds.Rename():
                self._keep(author, channel.said_names, author, fact, (said.name, b""), said.n)
            case kinds.Topic():
                self._keep(author, channel.said_topics, author, fact, (said.topic, b""), said.n)
            case kinds.Keep():
                self._keep(author, channel.said_days, author, fact, said.days, said.n)
            case kinds.Join():
                self._keep(author, channel.here, author, fact, True)
            case kinds.Leave():
                self._keep(author, channel.here, author, fact, False)
            case kinds.Managers():
                named = frozenset(bytes.fromhex(one) for one in said.managers)
                if self._keep(author, channel.said_managers, author, fact, named):
                    channel.ever.setdefault(author, {})[fact.hash] = named
            case kinds.Remove():
                target = bytes.fromhex(said.member)
                self._keep(author, channel.about, (author, target), fact, said, said.n)
                self._new_key(channel, fact, author, said)
            case kinds.NewKey():
                self._new_key(channel, fact, author, said)
            case kinds.Invite():
                target = bytes.fromhex(said.to)
                self._keep(author, channel.about, (author, target), fact, said, said.n)
                if said.source is not None and said.box is not None:
                    source = bytes.fromhex(said.source)
                    given = (author, source, target, fact.hash)  # all of them: one may be junk
                    self._keep(author, channel.given, given, fact, said)

    def _create(self, channel: Channel, fact: Fact, author: bytes, said: kinds.Create) -> None:
        if channels.channel_id(fact.author, base64url.decode(said.salt)) != fact.channel:
            return
        if channels.is_closed(fact.body) == (said.mode == "public"):
            return
        if channel.created is not None and channel.seq < fact.seq:
            return  # a channel is created once
        channel.creator, channel.mode, channel.seq = author, said.mode, fact.seq
        channel.created = Latest(0, fact.at_ms, fact.hash, said)
        if said.mode == "public":
            channel.name = said.name
            return
        mine = frozenset({author}) if said.box is not None else frozenset[bytes]()
        salt = base64url.decode(said.salt)
        channel.sources[fact.hash] = KeySource(fact.hash, 0, author, mine, salt, fact)

    def _new_key(
        self, channel: Channel, fact: Fact, author: bytes, said: kinds.Remove | kinds.NewKey
    ) -> None:
        if said.key is None or not self._room(author):
            return
        boxed = frozenset(bytes.fromhex(one) for one in said.boxes)
        salt = b"" if said.salt is None else base64url.decode(said.salt)
        channel.sources[fact.hash] = KeySource(fact.hash, said.key, author, boxed, salt, fact)

    def _fold_closed(self, fact: Fact) -> None:
        """Fold what could be read only when modes and keys were known."""
        channel = self.channels.get(fact.channel)
        author = keys.member_id(fact.author)
        private = channel is not None and channel.is_private
        if channel is not None and not channel.hears(author, fact.seq):
            return
        if fact.kind == "call" and not private and not channels.is_closed(fact.body):
            body: Mapping[str, Any] | None = fact.body
        else:
            body = self.open(fact)
        if body is None:
            return
        try:
            said = kinds.read(fact.kind, body)
        except Refused:
            return
        under = channels.source_of(fact.body, fact.hash) if private else b""
        match said:
            case kinds.Create() if channel is not None:
                if channel.created is not None and channel.created.hash == fact.hash:
                    channel.name, channel.named_under = said.name, fact.hash
            case kinds.Rename() if channel is not None:
                self._keep(author, channel.said_names, author, fact, (said.name, under), said.n)
            case kinds.Topic() if channel is not None:
                self._keep(author, channel.said_topics, author, fact, (said.topic, under), said.n)
            case kinds.CallCreate():
                if self._room(author):
                    self._call_creates[fact.hash] = (fact, said)
                    self._keep(
                        author, self._call_at, author, fact, (fact.hash, "join", fact.channel)
                    )
            case kinds.CallJoin() | kinds.CallView() | kinds.CallLeave():
                op = str(type(said).__struct_config__.tag)
                value = (bytes.fromhex(said.call), op, fact.channel)
                self._keep(author, self._call_at, author, fact, value)
            case kinds.CallEnd():
                self._keep(author, self._call_ends, author + bytes.fromhex(said.call), fact, True)
            case kinds.CallRevoke():
                about = (author + bytes.fromhex(said.call), bytes.fromhex(said.member))
                self._keep(author, self._call_revokes, about, fact, True)
            case _:
                pass

    def _keep(
        self,
        author: bytes,
        where: dict[_T, Latest],
        name: _T,
        fact: Fact,
        value: Any,
        n: int = 0,
    ) -> bool:
        """Let a fact replace what its author said of this before: facts come in its order."""
        if name not in where and not self._room(author):
            return False
        where[name] = Latest(n, fact.at_ms, fact.hash, value)
        return True

    def has_plenty(self, author: bytes) -> bool:
        """Say whether less than half of the facts that count of an author are said."""
        return self._used.get(author, 0) < MOST_REGISTERS // 2

    def _room(self, author: bytes) -> bool:
        used = self._used.get(author, 0)
        self._used[author] = used + 1
        return used < MOST_REGISTERS

    # --- what follows -------------------------------------------------------------------------

    def _settle_channels(self) -> None:
        """Decide who may do what, and who is in."""
        for channel in self.channels.values():
            creator = channel.creator
            if creator is None:
                continue
            named = channel.said_managers.get(creator)
            gone = {
                target
                for (author, target), latest in channel.about.items()
                if author == creator and isinstance(latest.value, kinds.Remove)
            }
            managers = (named.value if named else frozenset()) - gone
            channel.managers = frozenset({creator}) | managers
            self._settle_members(channel, creator)
            self._settle_keys(channel, creator)

    def _settle_members(self, channel: Channel, creator: bytes) -> None:
        said: dict[bytes, Latest] = {}
        for (author, target), latest in channel.about.items():
            removes = isinstance(latest.value, kinds.Remove)
            shielded = target == creator or (target in channel.managers and author != creator)
            if not channel.may_manage(author) or (removes and shielded):
                continue
            known = said.get(target)
            if known is None or _later(latest, known):
                said[target] = latest
        cuts, let_in = {}, set(channel.managers)
        for target, latest in said.items():
            if isinstance(latest.value, kinds.Remove):
                cuts[target] = latest.value.last
            else:
                let_in.add(target)
        here = {one for one, latest in channel.here.items() if latest.value}
        gone = {one for one, latest in channel.here.items() if not latest.value}
        inside = let_in if channel.mode == "invite" else (here | let_in)
        channel.cuts = cuts
        channel.members = frozenset(inside - gone - cuts.keys())
        channel.asking = frozenset(here - inside - cuts.keys())

    def _settle_keys(self, channel: Channel, creator: bytes) -> None:
        """Let keys count that were made and given by those who may, or once might.

        Who is no manager any more makes none; what was said under a key that one has made stays.
        """
        once = frozenset({creator}).union(*channel.ever.get(creator, {}).values())
        channel.sources = {
            hashed: source
            for hashed, source in channel.sources.items()
            if source.author in once and channel.hears(source.author, source.fact.seq)
        }
        channel.given = {name: latest for name, latest in channel.given.items() if name[0] in once}
        given: dict[bytes, set[bytes]] = {}
        for (_, about, target, _), latest in channel.given.items():
            given.setdefault(about, set()).add(target)
            if self._me is not None and target == self._me.id:
                self._given_me.setdefault((channel.id, about), []).append(latest.value)
        for source in channel.sources.values():
            channel.invited[source.hash] = source.boxes | given.get(source.hash, set())

    def _settle(self) -> None:
        """Decide names, persons, calls, and what still stands."""
        self._believe_statements()
        if self._statement is not None:
            self.managers = self._statement.value
        self.name = self._decided(self._circle_names, self.managers, "")
        self.days = self._decided(self._circle_days, self.managers, kinds.KEEP_DAYS)
        for channel in self.channels.values():
            may, private = channel.managers, channel.is_private
            spoken, topics = (
                {one: latest for one, latest in said.items() if bool(latest.value[1]) == private}
                for said in (channel.said_names, channel.said_topics)
            )
            created = (channel.name, channel.named_under)
            channel.name, channel.named_under = self._decided(spoken, may, created)
            channel.topic, channel.topic_under = self._decided(topics, may, ("", b""))
            who = self.managers if channel.id == GENERAL else may
            channel.days = self._decided(channel.said_days, who, None)
        self._settle_persons()
        self._settle_calls()
        self.standing = frozenset(self._all_standing())

    def _decided(self, said: Mapping[bytes, Latest], may: frozenset[bytes], usual: _T) -> _T:
        """Return what those who may have said last."""
        best: Latest | None = None
        for author, latest in said.items():
            if author in may and (best is None or _later(latest, best)):
                best = latest
        return usual if best is None else best.value

    def _settle_persons(self) -> None:
        """Join members who name each other; a person is called as its newest device says."""
        groups: dict[bytes, set[bytes]] = {}
        for (one, other), latest in self._persons.items():
            back = self._persons.get((other, one))
            if latest.value and back is not None and back.value and one < other:
                both = (groups.setdefault(one, {one}), groups.setdefault(other, {other}))
                less, joined = sorted(both, key=len)
                if less is not joined:
                    joined |= less
                    groups |= dict.fromkeys(less, joined)
        for group in {id(group): group for group in groups.values()}.values():
            person = min(group)
            self._devices[person] = frozenset(group)
            self._person_of |= dict.fromkeys(group, person)
        newest: dict[bytes, Latest] = {}
        for member, latest in self._member.items():
            person = self.person(member)
            known = newest.get(person)
            if known is None or _later(latest, known):
                newest[person] = latest
        self.names = {member: newest[self.person(member)].value for member in self._member}

    def _settle_calls(self) -> None:
        inside: dict[tuple[bytes, str], set[bytes]] = {}
        heard: dict[bytes, int] = {}
        for author, latest in self._call_at.items():
            call, op, place = latest.value
            created = self._call_creates.get(call)
            if created is None or op == "leave" or place != created[0].channel:
                continue
            if (keys.member_id(created[0].author) + call, author) in self._call_revokes:
                continue
            inside.setdefault((call, op), set()).add(author)
            heard[call] = max(heard.get(call, 0), latest.at_ms)
        for hashed, (fact, said) in self._call_creates.items():
            host = keys.member_id(fact.author)
            self.calls[hashed] = Call(
                hashed,
                fact.channel,
                host,
                said.media,
                fact.at_ms,
                participants=frozenset(inside.get((hashed, "join"), ())),
                viewers=frozenset(inside.get((hashed, "view"), ())),
                ended=(host + hashed) in self._call_ends,
                heard_ms=max(fact.at_ms, heard.get(hashed, 0)),
            )
        for call in self.calls.values():
            if call.participants and not call.ended:
                self._calls_in.setdefault(call.channel, []).append(call)

    def _all_standing(self) -> Iterable[bytes]:
        registers: list[Mapping[Any, Latest]] = [
            *(self._member, self._persons, self._circle_names, self._circle_days)
        ]
        for channel in self.channels.values():
            registers += [channel.said_names, channel.said_topics, channel.said_days]
            registers += [channel.said_managers, channel.here, channel.about, channel.given]
            yield from channel.sources
            yield from channel.ever.get(channel.creator or b"", {})
            if channel.created is not None:
                yield channel.created.hash
        for register in registers:
            for latest in register.values():
                yield latest.hash
        if self._statement is not None:
            yield self._statement.hash

    # --- keys -----------------------------------------------------------------------------------

    def keys_of(self, channel: Channel, source: KeySource) -> tuple[bytes, ...]:
        """Return what may be the key that a record has made: others may have boxed nonsense."""
        found = self._keys.get(source.hash)
        if found is None:
            found = self._keys[source.hash] = tuple(self._find_keys(channel, source))
        return found

    def _find_keys(self, channel: Channel, source: KeySource) -> Iterable[bytes]:
        typed = self._passphrases.get(source.hash)
        if typed is not None:
            yield typed
        me = self._me
        if me is None:
            return
        boxed = source.fact.body.get("boxes")
        own = source.fact.body.get("box") if source.author == me.id else None
        found = [boxed.get(me.id.hex(), own) if isinstance(boxed, dict) else own]
        given = self._given_me.get((channel.id, source.hash), ())
        found += [said.box for said in given if said.key == source.number]
        for box in found:
            if isinstance(box, str):
                key = channels.box_opened(self.circle, channel.id, source.number, box, me.box_key)
                if key is not None:
                    yield key

    def key_of(self, channel: Channel, source: KeySource) -> bytes | None:
        """Return the key that a record has made, where it opens what was closed with it."""
        check = source.fact
        for key in self.keys_of(channel, source):
            if not channels.is_closed(check.body):
                return key
            try:
                channels.opened(
                    *(self.circle, channel.id, check.body),
                    author=check.author,
                    seq=check.seq,
                    key=key,
                )
            except Refused:
                continue
            return key
        return None

    def open(self, fact: Fact) -> Mapping[str, Any] | None:
        """Return what a closed record says, if this member can read it."""
        channel = self.channels.get(fact.channel)
        if channel is None or not channel.is_private or not channels.is_closed(fact.body):
            return None
        try:
            source = channel.sources.get(channels.source_of(fact.body, fact.hash))
        except Refused:
            return None
        if source is None or fact.body.get("key") != source.number:
            return None
        for key in self.keys_of(channel, source):
            try:
                return channels.opened(
                    *(self.circle, channel.id, fact.body),
                    author=fact.author,
                    seq=fact.seq,
                    key=key,
                )
            except Refused:
                continue
        return None

    def writing(self, channel: Channel) -> tuple[KeySource, bytes] | None:
        """Return the key to close with now, if this member has it."""
        source = channel.standing_source()
        key = None if source is None else self.key_of(channel, source)
        return None if source is None or key is None else (source, key)

    # --- asking -----------------------------------------------------------------------------------

    def person(self, member: bytes) -> bytes:
        """Return who a member is: the least of the members of one person."""
        return self._person_of.get(member, member)

    def devices(self, member: bytes) -> frozenset[bytes]:
        """Return all members that are the same person."""
        return self._devices.get(self.person(member)) or frozenset({member})

    def asks(self, member: bytes) -> frozenset[bytes]:
        """Return the members that say they are the same person, and are not believed so far."""
        named = {
            one for (one, to), latest in self._persons.items() if to == member and latest.value
        }
        return frozenset(named - self.devices(member))

    def days_of(self, channel: bytes) -> int:
        """Return how many days the texts of a channel are kept; 0 is for ever."""
        known = self.channels.get(channel)
        return self.days if known is None or known.days is None else known.days

    def shown(self) -> list[Channel]:
        """Return the channels that this member can read, by name; the general one is not in it."""
        found = [
            one
            for one in self.channels.values()
            if one.creator is not None and one.name and one.id != GENERAL
        ]
        return sorted(found, key=lambda one: (one.name.casefold(), one.id))

    def next_in(
        self, said: Mapping[Any, Latest], may: frozenset[bytes], about: bytes | None = None
    ) -> int:
        """Return the number of something new among what those who may have said of it."""
        found = 0
        for name, latest in said.items():
            author = name[0] if isinstance(name, tuple) else name
            if author in may and (about is None or name[1] == about):
                found = max(found, latest.n)
        return min(found + 1, 2**53 - 1)

    def next_circle_name(self) -> int:
        """Return the number of another name of the circle."""
        return self.next_in(self._circle_names, self.managers)

    def next_circle_days(self) -> int:
        """Return the number of another time to keep texts."""
        return self.next_in(self._circle_days, self.managers)

    @property
    def statement_ms(self) -> int:
        """When the founder last said who manages the circle; 0 for never."""
        return 0 if self._statement is None else self._statement.at_ms

    def is_live(self, call: Call, *, now_ms: int, words: Words) -> bool:
        """Say whether a call is on: somebody in it is there, or has said so just now."""
        if call.ended or not call.participants:
            return False
        if not call.at_ms - AHEAD_MS <= now_ms <= call.at_ms + CALL_S * 1000:
            return False
        if abs(now_ms - call.heard_ms) <= RING_S * 1000:
            return True
        word = channels.call_word(call.hash)
        return any(word in words.get(member, frozenset()) for member in call.participants)

    def call_in(self, channel: bytes, *, now_ms: int, words: Words) -> Call | None:
        """Return the call that is on in a channel.

        Of several the one that others have joined stands, then the one that began first.
        """
        live = [
            call
            for call in self._calls_in.get(channel, ())
            if self.is_live(call, now_ms=now_ms, words=words)
        ]
        return min(
            live,
            key=lambda call: (len(call.participants) < 2, call.at_ms, call.hash),
            default=None,
        )

    def calls_on(self, *, now_ms: int, words: Words) -> list[Call]:
        """Return the calls that are on, one of each channel."""
        found = (self.call_in(one, now_ms=now_ms, words=words) for one in self._calls_in)
        return [call for call in found if call is not None]

    def snapshot(self) -> dict[str, Any]:
        """Return all of it as JSON: two nodes with the same records have the same."""
        return {
            "name": self.name,
            "days": self.days,
            "managers": sorted(one.hex() for one in self.managers),
            "names": {one.hex(): name for one, name in sorted(self.names.items())},
            "persons": {one.hex(): self.person(one).hex() for one in sorted(self._person_of)},
            "channels": {
                one.id.hex(): _channel_snapshot(one)
                for one in sorted(self.channels.values(), key=lambda one: one.id)
                if one.creator is not None
            },
            "calls": {
                call.hash.hex(): {
                    "channel": call.channel.hex(),
                    "host": call.host.hex(),
                    "media": call.media,
                    "participants": sorted(one.hex() for one in call.participants),
                    "viewers": sorted(one.hex() for one in call.viewers),
                    "ended": call.ended,
                }
                for call in sorted(self.calls.values(), key=lambda call: call.hash)
            },
        }


def managers_text(circle: bytes, at_ms: int, managers: Iterable[str]) -> bytes:
    """Return what the founder key signs of who manages the circle."""
    return label("managers") + circle + at_ms.to_bytes(8, "big") + canonical.strict(list(managers))


def _channel_snapshot(channel: Channel) -> dict[str, Any]:
    standing = channel.standing_source()
    return {
        "creator": (channel.creator or b"").hex(),
        "mode": channel.mode,
        "name": channel.name,
        "topic": channel.topic,
        "days": channel.days,
        "managers": sorted(one.hex() for one in channel.managers),
        "members": sorted(one.hex() for one in channel.members),
        "asking": sorted(one.hex() for one in channel.asking),
        "removed": {one.hex(): last for one, last in sorted(channel.cuts.items())},
        "key": None if standing is None else [standing.number, standing.hash.hex()],
    }


def _later(one: Latest, other: Latest) -> bool:
    """Say whether one stands over the other: the higher number, the later, the smaller hash."""
    return (one.n, one.at_ms, _falling(one.hash)) > (other.n, other.at_ms, _falling(other.hash))


def _falling(hashed: bytes) -> bytes:
    """Return a hash so that the smaller one comes later."""
    return hashed.translate(_TURNED)
