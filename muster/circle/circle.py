"""A circle of version 2, as one member has it: made, joined, opened; what it says and believes.

Nothing here waits for a network: a `Connection` does. Whatever order records come
in, by whichever service or link, the same is believed.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

from capsules import canonical, fields
from capsules.errors import Reason
from capsules.errors import Refused as NotBelieved
from capsules.keys import SIGNATURE_BYTES, SigningKey
from muster import base64url, boxes, keys, records, rekeys, texts
from muster.backoff import Rim
from muster.circle import events
from muster.circle.events import Event
from muster.circle.file import LASTING, NOT_DELETED, CircleFile, Draft, Kept
from muster.circle.peers import Member
from muster.errors import BadValue, Hinted
from muster.invites import NAME_BYTES, Invite, ServiceAddress
from muster.keys import Epoch, label
from muster.records import GENERAL, Record
from muster.rekeys import Last, Rekey
from muster.seals import Said

MAIL_MS = 30 * 24 * 3600 * 1000
"""How long mailboxes keep anything, and an old epoch is read."""

TEXT_BYTES = 256 * 1024

MOST_KEPT = 1024
"""How many members a rekey keeps: each takes a box of it, and a mailbox takes a mebibyte."""

TEXT, MEMBER, SERVICES, FOUNDER = "text", "member", "services", "founder"
"""Kinds of records: what is said; who a member is; where to meet; the founder key, boxed."""

DELETE = "delete"
"""By it an author drops something that it said: its hash stays, and the chain whole."""

CLOSING = "closing"
"""What stands in a draft's body for what is closed under a channel's key when it is said."""


class NotFounder(Hinted):
    """Only the device with the founder key can do this."""


@dataclass(frozen=True, slots=True)
class Standing:
    """Who stays by a rekey, and who cannot: members whose box key leads to nothing."""

    keep: tuple[Member, ...]
    weak: tuple[Member, ...]


class Circle:
    """One circle, in a file or, without a path, in memory alone."""

    def __init__(self, file: CircleFile, *, rim: Rim | None = None) -> None:
        self.file = file
        self.rim = rim or Rim()
        self.clock_ms: Callable[[], int] = lambda: int(self.rim.now() * 1000)
        """The time that records and presences tell; a connection knows it better."""

    @classmethod
    def new(
        cls,
        path: Path | None = None,
        *,
        name: str = "",
        services: Iterable[ServiceAddress] = (),
        rim: Rim | None = None,
    ) -> Self:
        """Make a circle, whose founder this device is; raises `FileExistsError`."""
        rim = rim or Rim()
        founder = SigningKey(rim.entropy(keys.SECRET_BYTES))
        made = CircleFile.make(
            path,
            founder=founder.verify_key,
            founder_key=founder,
            member_secret=rim.entropy(keys.SECRET_BYTES),
            epoch=Epoch.first(founder.verify_key, rim.entropy),
            began_ms=int(rim.now() * 1000),
            name=name,
        )
        made.add_services(services)
        return cls(made, rim=rim)

    @classmethod
    def join(cls, invite: Invite, path: Path | None = None, *, rim: Rim | None = None) -> Self:
        """Become a member by an invite; raises `FileExistsError`."""
        rim = rim or Rim()
        made = CircleFile.make(
            path,
            founder=invite.founder,
            member_secret=rim.entropy(keys.SECRET_BYTES),
            epoch=invite.epoch,
            began_ms=int(rim.now() * 1000),
            name=invite.name,
        )
        made.add_services(invite.services)
        if invite.peers:
            made.keep("peers", "\n".join(invite.peers).encode())
        return cls(made, rim=rim)

    @classmethod
    def open(cls, path: Path, *, rim: Rim | None = None) -> Self:
        """Open a circle that was made or joined before; raises `file.Unusable`."""
        return cls(CircleFile.open(path), rim=rim)

    def close(self) -> None:
        """Let go of the file."""
        self.file.close()

    # --- what it is -----------------------------------------------------------------

    @property
    def id(self) -> bytes:
        """The circle's name, over all epochs."""
        return self.file.circle_id

    @property
    def name(self) -> str:
        """What it was called when it was made or joined."""
        return self.file.fact("name").decode()

    @property
    def member(self) -> keys.Member:
        """Who this node is in it."""
        return self.file.member

    @property
    def epoch(self) -> Epoch:
        """The epoch that is."""
        return self.file.epoch()

    @property
    def is_founder(self) -> bool:
        """Whether this device has the founder key."""
        return self.file.founder_key is not None

    @property
    def is_out(self) -> bool:
        """Whether the founder has left this member out."""
        return self.file.fact("out") == b"1"

    @property
    def services(self) -> list[ServiceAddress]:
        """Where it meets."""
        return self.file.services()

    @property
    def peers(self) -> tuple[str, ...]:
        """Where the invite says that members can be reached themselves: host and port."""
        return tuple(self.file.fact("peers").decode().split())

    def news_of(self, invite: Invite) -> tuple[str, ...]:
        """Return what another invite to this circle would change; raises `BadValue`.

        Nobody has signed it: anybody who was ever in the circle can make one that leads away from
        the others, so a person is asked first. Who was left out has nothing to be led away from.
        """
        self._check_ours(invite)
        if self.is_out:
            return ()
        known = {service.id: service.url for service in self.services}
        found = [
            f"another service, {one.url}" if one.id not in known else f"a service at {one.url} now"
            for one in invite.services
            if known.get(one.id) != one.url
        ]
        later = invite.epoch.number > self.epoch.number
        return (*found, *([f"new keys (epoch {invite.epoch.number})"] if later else []))

    def _check_ours(self, invite: Invite) -> None:
        if keys.circle_id(invite.founder) != self.id:
            raise BadValue("the invite is another circle's")

    def take_invite(self, invite: Invite) -> None:
        """Take from another invite to this circle what is new in it; raises `BadValue`.

        See `news_of`. For as long as the old mailbox is read, the founder's next rekey that keeps
        this member leads back from a lie.
        """
        self._check_ours(invite)
        self.file.add_services(invite.services)
        if invite.epoch.number > self.epoch.number:
            self.file.enter(invite.epoch, now_ms=self.clock_ms())
            self.file.keep("out", b"0")

    def invite(self, *, name: str = "", peers: Iterable[str] = ()) -> Invite:
        """Return what lets somebody in; whoever has it reads and writes."""
        return Invite(
            self.file.founder,
            self.epoch,
            tuple(self.services),
            tuple(peers) or self.peers,
            self.clock_ms(),
            (name or self.name).encode(errors="replace")[:NAME_BYTES].decode(errors="ignore"),
        )

    def name_of(self, member_id: bytes) -> str:
        """Return how a member is called, as far as it is known."""
        return self.file.name_of(member_id)

    # --- what it says ---------------------------------------------------------------

    def check_text(self, text: str) -> None:
        """Raise `BadValue` for a text that no record can hold."""
        if not text.strip():
            raise BadValue("there is nothing to say")
        try:
            size = len(text.encode())
        except UnicodeEncodeError:
            raise BadValue("the text is not UTF-8", "check where it comes from") from None
        if size > TEXT_BYTES:
            raise BadValue(f"the text has {size} bytes, and {TEXT_BYTES} are allowed")

    def check(self, channel: bytes, kind: str, body: Mapping[str, Any]) -> None:
        """Raise `BadValue` for what no record can hold: it would stop all that comes after it."""
        try:
            self._next(channel, kind, body)
        except (NotBelieved, ValueError, TypeError, RecursionError) as error:
            raise BadValue(f"it cannot be said: {error}") from None

    def _next(self, channel: bytes, kind: str, body: Mapping[str, Any]) -> tuple[Record, Said]:
        """Return the next record of this member's chain, as others read it."""
        seq, prev = self.file.tip(self.member.public.raw)
        if CLOSING in body:
            body = self._closed(channel, body, seq + 1)
        made = Record(
            self.id,
            self.epoch.number,
            self.member.public,
            seq + 1,
            prev,
            self.clock_ms(),
            channel,
            kind,
            body,
        )
        said = made.said(self.member)
        return Record.read(self.id, said), said

    def _closed(self, channel: bytes, body: Mapping[str, Any], seq: int) -> dict[str, Any]:
        """Close what a draft says for a private channel, at its place in the chain."""
        number, key = int(body["key"]), base64url.decode(body["with"])
        bound = boxes.for_body(self.id, channel, number, self.member.public.raw, seq)
        text = canonical.strict(body[CLOSING])
        closed = boxes.close_body(key, text, bound, nonce=self.rim.entropy(boxes.NONCE_BYTES))
        clear = {name: body[name] for name in body if name not in (CLOSING, "with")}
        return {**clear, "closed": base64url.encode(closed)}

    def record(self, draft: Draft) -> events.Said:
        """Say a draft: the next record of this member's chain."""
        record, said = self._next(draft.channel, draft.kind, draft.body)
        hashed = records.record_hash(said.text)
        with self.file.writing():
            place = self.file.add(hashed, said, record)
            self.file.said(draft.id, hashed)
            if record.kind == DELETE:
                self._delete(record)
        self.file.mark()
        return self._told(Kept(place, hashed, said, record))

    def speak(self, prepare: Callable[[], None]) -> Iterator[tuple[Draft, events.Said]]:
        """Say all drafts, in their order; *prepare* is called before, and when that is due again.

        It is where something lasting was said, a private channel's next key, say: what comes
        after it is closed under that one.
        """
        prepare()
        waiting = deque(self.file.drafts())
        while waiting:
            draft = waiting.popleft()
            try:
                said = self.record(draft)
            except (NotBelieved, BadValue, ValueError, TypeError):
                self.file.give_up(draft.id)
                continue
            yield draft, said
            if draft.kind in LASTING:
                prepare()
                numbers = {one.id for one in waiting}
                waiting = deque(one for one in self.file.drafts() if one.id in numbers)

    def introduce(self, name: str) -> bool:
        """Say who this member is, if that was not said yet or has changed; say whether it was."""
        told = f"{name}\n{base64url.encode(self.member.box_public)}".encode()
        if self.file.fact("introduced") == told:
            return False
        body = {"name": name, "box": base64url.encode(self.member.box_public)}
        self.file.draft(GENERAL, MEMBER, body)
        self.file.keep("introduced", told)
        return True

    def sealed(self, epoch: Epoch, hashed: bytes, sealed: bytes | None, said: Said) -> bytes:
        """Return how a record is left: sealed once, then always in the same bytes."""
        if sealed is None:
            sealed = records.seal(epoch, said, nonce=self.rim.entropy(12))
            self.file.seal(hashed, sealed)
        return sealed

    def tell_services(self) -> None:
        """As the founder, tell members where the circle meets; raises `NotFounder`."""
        key, at_ms = self._founder_key(), self.clock_ms()
        addresses = [service.text for service in self.services]
        signature = key.sign(_services_text(self.id, at_ms, addresses))
        body = {"services": addresses, "at_ms": at_ms, "signature": base64url.encode(signature)}
        self.file.draft(GENERAL, SERVICES, body)

    def give_founder(self, to: Member) -> None:
        """Give a member the founder key, boxed; this device keeps it too. Raises `NotFounder`."""
        bound = label("box founder") + self.id
        box = boxes.box(
            self._founder_key().seed, to.box, bound, ephemeral=self.rim.entropy(keys.KEY_BYTES)
        )
        self.file.draft(GENERAL, FOUNDER, {"to": to.id.hex(), "box": base64url.encode(box)})

    def sign_as_founder(self, text: bytes) -> bytes:
        """Sign a text with the founder key; raises `NotFounder`."""
        return self._founder_key().sign(text)

    def _founder_key(self) -> SigningKey:
        key = self.file.founder_key
        if key is None:
            raise NotFounder(
                "only the founder's device can do this",
                "ask who made the circle; 'muster circle founder give NAME' hands the key on",
            )
        return key

    # --- what it believes -----------------------------------------------------------

    def take(self, epoch: Epoch, sealed: bytes) -> tuple[bytes, list[Event]]:
        """Take what a mailbox of an epoch holds: a record or a rekey.

        Returns its name, and what follows from it. Raises `capsules.errors.Refused` for what
        no member of the epoch has said.
        """
        said = records.unseal(epoch, sealed)
        if _kind(said) == "rekey":
            return rekeys.order(said), self.take_rekey(epoch, said)
        return self.take_record(said, epoch.number)

    def take_record(self, said: Said, epoch: int) -> tuple[bytes, list[Event]]:
        """Take a record of an epoch, from wherever it comes; raises `capsules.errors.Refused`.

        One that lasts may come in a later epoch: members say again there what a newcomer needs.
        """
        hashed = records.record_hash(said.text)
        if self.file.has(hashed):
            return hashed, []
        record = Record.from_said(self.id, said)
        if record.epoch != epoch and not (record.kind in LASTING and record.epoch < epoch):
            raise NotBelieved(Reason.WRONG_CIRCLE, "the record is another epoch's")
        if not self._counts(record, hashed):
            return hashed, []
        forked = self.file.hashes(record.author.raw, record.seq)
        place = self.file.add(hashed, said, record)
        if not place:
            return hashed, []
        found: list[Event] = list(self._follow_record(record))
        found.append(self._told(Kept(place, hashed, said, record)))
        if forked:
            found.append(
                events.Forked(record.author_id, self.name_of(record.author_id), record.seq)
            )
        return hashed, found

    def _counts(self, record: Record, hashed: bytes) -> bool:
        """Say whether a record is heard: of who was left out, only what came before."""
        for number in range(record.epoch + 1, self.epoch.number + 1):
            said = self.file.rekey_to(number)
            if said is None:
                continue  # this member came later, by an invite
            rekey = Rekey.from_said(self.file.founder, said)
            if record.author_id in rekey.keep:
                continue
            last = rekey.out.get(record.author_id)
            if last is None or record.seq > last.seq:
                return False
            if record.seq == last.seq and hashed != last.hash:
                return False
        return True

    def _follow_record(self, record: Record) -> Iterable[Event]:
        try:
            if record.kind == MEMBER:
                self._meet(record)
            elif record.kind == SERVICES:
                yield from self._learn_services(record.body)
            elif record.kind == FOUNDER and self._take_founder(record.body):
                yield events.Founder()
            elif record.kind == DELETE:
                self._delete(record)
        except (NotBelieved, BadValue, ValueError):
            return  # the record is kept; what it claims is not believed

    def _delete(self, record: Record) -> None:
        """Drop what its author has deleted; who names another's record drops nothing."""
        hashed = bytes.fromhex(fields.sha256(record.body, "of"))
        seq = fields.integer(record.body, "seq", least=1)
        found = self.file.record(hashed)
        if seq < record.seq and (found is None or found.record.kind not in NOT_DELETED):
            self.file.delete(record.author.raw, seq, hashed)

    def _meet(self, record: Record) -> None:
        name = fields.text(record.body, "name", most=64)
        box = texts.raw(record.body, "box", keys.KEY_BYTES)
        self.file.introduce(
            Member(
                *(record.author_id, record.author, box, name, b"", record.epoch),
                min(record.at_ms, self.clock_ms() + texts.AHEAD_MS),
            )
        )

    def _learn_services(self, body: Mapping[str, Any]) -> Iterable[Event]:
        addresses = [str(text) for text in fields.items(body, "services", most=8)]
        at_ms = fields.integer(body, "at_ms")
        signature = texts.raw(body, "signature", SIGNATURE_BYTES)
        if not self.file.founder.verify(_services_text(self.id, at_ms, addresses), signature):
            return
        if at_ms <= int(self.file.fact("services at") or b"0"):
            return
        found = [ServiceAddress.parse(text) for text in addresses]
        known = self.services
        self.file.add_services(found)
        self.file.keep("services at", str(at_ms).encode())
        if fresh := tuple(one.url for one in self.services if one not in known):
            yield events.Services(fresh)

    def _take_founder(self, body: Mapping[str, Any]) -> bool:
        if self.is_founder or texts.identifier(body, "to") != self.member.id:
            return False
        box = texts.raw(body, "box", boxes.BOX_BYTES)
        seed = boxes.unbox(box, self.member.box_key, label("box founder") + self.id)
        if SigningKey(seed).verify_key != self.file.founder:
            return False
        self.file.keep("founder key", seed)
        return True

    def _told(self, kept: Kept) -> events.Said:
        record = kept.record
        name = record.body.get("name")
        return events.Said(
            kept.place,
            kept.hash,
            record.author_id,
            name if isinstance(name, str) and name else self.name_of(record.author_id),
            record.channel,
            record.kind,
            record.body,
            record.at_ms,
            mine=record.author == self.member.public,
        )

    def told(self, *, after: int = 0) -> list[events.Said]:
        """Return what is here, in the order of arrival, after a place."""
        return [self._told(kept) for kept in self.file.records(after=after)]

    def said(self, hashed: bytes) -> events.Said | None:
        """Return the record of that name."""
        kept = self.file.record(hashed)
        return self._told(kept) if kept else None

    # --- rekeying -------------------------------------------------------------------

    def standing(
        self, without: Iterable[bytes] = (), *, only: Iterable[bytes] | None = None
    ) -> Standing:
        """Return who would stay by a rekey; raises `NotFounder`, `BadValue` if too many would."""
        self._founder_key()
        left_out = frozenset(without)
        named = None if only is None else frozenset(only)
        mine = self.member
        own = Member(mine.id, mine.public, mine.box_public, "", b"", self.epoch.number, 0)
        gone = self._gone()
        others = [one for one in self.file.members() if one.id != mine.id and one.id not in gone]
        keep, weak = [own], []
        for one in others:
            if one.id in left_out or (named is not None and one.id not in named):
                continue
            try:
                keys.agree(self.rim.entropy(keys.KEY_BYTES), one.box)
            except NotBelieved:
                weak.append(one)
            else:
                keep.append(one)
        if len(keep) > MOST_KEPT:
            raise BadValue(
                f"{len(keep)} members would stay, and {MOST_KEPT} can",
                "somebody has filled the circle with names: name those who alone are to stay",
            )
        return Standing(tuple(keep), tuple(weak))

    def _gone(self) -> frozenset[bytes]:
        """Return who was left out by the rekey to this epoch, and has not come back since."""
        said = self.file.rekey_to(self.epoch.number)
        if said is None:
            return frozenset()
        rekey, now = Rekey.from_said(self.file.founder, said), self.epoch.number
        return frozenset(
            one.id for one in self.file.members() if one.id not in rekey.keep and one.epoch < now
        )

    def rekey(self, without: Iterable[bytes] = (), *, only: Iterable[bytes] | None = None) -> Said:
        """Begin a new epoch for all but these members; raises `NotFounder` or `BadValue`.

        It is kept here. Read all services first, and leave it in the old mailbox at all of
        them: `Connection.rekey` does both.
        """
        key, old = self._founder_key(), self.epoch
        stays = self.standing(without, only=only).keep
        epoch = Epoch(self.id, old.number + 1, self.rim.entropy(keys.SECRET_BYTES))
        bound = boxes.for_rekey(self.id, epoch.number)
        names = {one.id for one in stays}
        going = {}
        for author in self.file.tips():
            seq, hashed = self.file.reach(author)
            if keys.member_id(author) not in names and hashed is not None:
                going[keys.member_id(author)] = Last(seq, hashed)
        made = Rekey(
            self.id,
            epoch.number,
            self.clock_ms(),
            keep={
                one.id: boxes.box(
                    epoch.secret, one.box, bound, ephemeral=self.rim.entropy(keys.KEY_BYTES)
                )
                for one in stays
            },
            out=dict(list(going.items())[: rekeys.MOST_MEMBERS - len(stays)]),
        )
        said = made.said(key)
        self.take_rekey(old, said)
        return said

    def take_rekey(self, epoch: Epoch, said: Said) -> list[Event]:
        """Follow a rekey that was left in an epoch's mailbox; raises `capsules.errors.Refused`.

        Only the founder's counts, to the next number; of two the smaller hash stands.
        """
        rekey = Rekey.from_said(self.file.founder, said)
        if rekey.epoch != epoch.number + 1:
            raise NotBelieved(Reason.WRONG_CIRCLE, "the rekey is to another epoch")
        known = self.file.rekey_to(rekey.epoch)
        if known is not None and rekeys.order(known) <= rekeys.order(said):
            return []
        follows = rekey.follow(self.member)
        if follows is None:
            if self.epoch.number >= rekey.epoch and known is None:
                return []  # an invite to a later epoch has let this member in again
            self.file.begin(rekey.epoch, said, None, now_ms=self.clock_ms())
            self.file.keep("out", b"1")
            return [events.LeftOut(rekey.epoch)]
        self.file.begin(rekey.epoch, said, follows, now_ms=self.clock_ms())
        if known is not None:
            self.file.forget_places(epoch.hint)  # what the other one left out is read again
        self.file.keep("out", b"0")
        for author in self.file.tips():
            name = keys.member_id(author)
            last = rekey.out.get(name)
            if name not in rekey.keep and last is not None:
                self.file.drop(author, beyond=last.seq)
        return [events.Rekeyed(rekey.epoch)]


def _kind(said: Said) -> Any:
    data = canonical.read_strict(said.text)
    return data.get("is") if isinstance(data, dict) else None


def _services_text(circle: bytes, at_ms: int, addresses: list[str]) -> bytes:
    return label("services") + circle + at_ms.to_bytes(8, "big") + canonical.strict(addresses)
