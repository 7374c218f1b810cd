"""Members of a circle who chat, without a network: records are handed on as a test likes."""

from __future__ import annotations

import itertools
import random
from collections.abc import Iterable, Iterator
from typing import Any

from muster.backoff import Rim
from muster.chat.store import Store
from muster.chat.talk import Talk
from muster.circle import Circle
from muster.circle.file import Kept
from muster.records import Record
from muster.seals import Said

START_MS = 1_790_000_000_000


def _leaping() -> Iterator[float]:
    """A clock by which facts never rest, however many there are."""
    return itertools.count(1e6, 1e6)


class Chatter:
    """A member, with a clock of its own that a test turns."""

    def __init__(self, name: str, circle: Circle, store: Store | None = None) -> None:
        self.name, self.circle = name, circle
        self.now_ms = START_MS
        circle.clock_ms = lambda: self.now_ms
        self.talk = Talk(
            store or Store.open(None),
            circle,
            now_ms=lambda: self.now_ms,
            steady=_leaping().__next__,
        )
        if not circle.is_out:
            circle.introduce(name)
        self.speak()

    def speak(self) -> None:
        """Say what is drafted, as a connection does."""

        def prepare() -> None:
            self.talk.catch_up()
            self.talk.tend()

        for _ in self.circle.speak(prepare):
            self.now_ms += 1000
        self.talk.catch_up()

    def hear(self, found: Iterable[Kept]) -> None:
        for kept in found:
            self.circle.take_record(kept.said, kept.record.epoch)
        self.talk.catch_up()

    def forge(
        self,
        kind: str,
        body: dict[str, Any],
        *,
        channel: bytes = bytes(16),
        at_ms: int | None = None,
        seq: int | None = None,
    ) -> Record:
        """Say anything, as a member does who plays."""
        last, prev = self.circle.file.tip(self.circle.member.public.raw)
        seq = seq or last + 1
        prev = None if seq == 1 else prev or bytes(32)
        record = Record(
            *(self.circle.id, self.circle.epoch.number, self.circle.member.public),
            *(seq, prev, self.now_ms if at_ms is None else at_ms),
            *(channel, kind, body),
        )
        said = record.said(self.circle.member)
        self.circle.take_record(said, self.circle.epoch.number)
        self.now_ms += 1000
        self.talk.catch_up()
        return record

    @property
    def all_said(self) -> list[Kept]:
        return list(self.circle.file.records())

    def texts(self, channel: bytes = bytes(16)) -> list[str]:
        return [message.text for message in self.talk.page(channel, most=1000)]

    def snapshot(self) -> dict[str, Any]:
        """Everything that follows from records, but when each came here."""
        facts = self.talk.facts
        channels = [bytes(16), *sorted(one.id for one in facts.channels.values())]
        return {
            "facts": facts.snapshot(),
            "messages": {
                channel.hex(): sorted(
                    (
                        *(one.hash.hex(), one.author.hex(), one.text, one.edited, one.deleted),
                        sorted(
                            (key, [by.hex() for by in who]) for key, who in one.reactions.items()
                        ),
                    )
                    for one in self.talk.page(channel, most=100_000)
                )
                for channel in dict.fromkeys(channels)
            },
        }


def circle_of(*names: str, seed: int = 1) -> list[Chatter]:
    """Make a circle; the first is its founder. Randomness and time are the seed's."""
    chance = random.Random(seed)
    rim = Rim(now=lambda: START_MS / 1000, entropy=chance.randbytes)
    first = Circle.new(None, name="friends", rim=rim)
    circles = [first, *(Circle.join(first.invite(), None, rim=rim) for _ in names[1:])]
    return [Chatter(name, circle) for name, circle in zip(names, circles, strict=True)]


def meet(*chatters: Chatter) -> None:
    """Let all hear what all have said, until nothing is new."""
    while True:
        before = sum(len(one.all_said) for one in chatters)
        for one in chatters:
            one.speak()
        said = {kept.hash: kept for one in chatters for kept in one.all_said}
        for one in chatters:
            one.hear(kept for kept in said.values() if not one.circle.file.has(kept.hash))
        drafts = any(one.circle.file.drafts() for one in chatters)
        if sum(len(one.all_said) for one in chatters) == before and not drafts:
            return


def retold(by: Chatter, said: Iterable[Kept]) -> Chatter:
    """The same member as if everything had come to it in this order."""
    circle = _copy(by.circle)
    again = Chatter.__new__(Chatter)
    again.name, again.circle, again.now_ms = by.name, circle, by.now_ms
    circle.clock_ms = lambda: again.now_ms
    again.talk = Talk(
        Store.open(None), circle, now_ms=lambda: again.now_ms, steady=_leaping().__next__
    )
    again.hear(said)
    return again


def _copy(circle: Circle) -> Circle:
    from muster.circle.file import CircleFile

    made = CircleFile.make(
        None,
        founder=circle.file.founder,
        member_secret=circle.member.secret,
        epoch=circle.epoch,
        began_ms=0,
        founder_key=circle.file.founder_key,
    )
    made.keep("passphrases", circle.file.fact("passphrases", b"{}"))
    return Circle(made, rim=circle.rim)


__all__ = ["Chatter", "Said", "circle_of", "meet", "retold"]
