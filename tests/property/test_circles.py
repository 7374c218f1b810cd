"""Whatever order a circle's mail comes in, and however often, members believe the same."""

from __future__ import annotations

import random
from collections.abc import Callable

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from capsules.errors import Refused
from muster import boxes, keys, records
from muster.circle import Circle
from muster.circle.circle import TEXT
from muster.circle.file import CircleFile
from muster.records import GENERAL
from muster.rekeys import Rekey
from tests.support.members2 import joined, state

Mail = dict[bytes, list[bytes]]


class Mailboxes:
    """What a service keeps of a circle, by hint, and who has read how far."""

    def __init__(self) -> None:
        self.mail: Mail = {}

    def say(self, circle: Circle, text: str) -> None:
        circle.file.draft(GENERAL, TEXT, {"text": text})
        self.leave(circle)

    def leave(self, circle: Circle) -> None:
        """Say all drafts, and leave what is of the epoch that is."""
        for draft in circle.file.drafts():
            circle.record(draft)
        epoch = circle.epoch
        for hashed, kept, said in circle.file.outgoing(
            b"service", epoch=epoch.number, since_ms=0, most=1000
        ):
            self.mail.setdefault(epoch.hint, []).append(circle.sealed(epoch, hashed, kept, said))
            with circle.file.writing():
                circle.file.note_left(b"service", [hashed], at_ms=1, seen=True)

    def rekey(self, circle: Circle, without: list[bytes]) -> None:
        """Leave a rekey in the mailbox that ends."""
        old = circle.epoch
        said = circle.rekey(without)
        sealed = records.seal(old, said, nonce=random.randbytes(12))
        self.mail.setdefault(old.hint, []).append(sealed)

    def read(self, circle: Circle, order: Callable[[list[bytes]], list[bytes]]) -> None:
        """Read every mailbox that a member can, again while that changes what it knows."""
        before = None
        while before != (before := state(circle)) or before is None:
            for epoch in circle.file.epochs():
                for sealed in order(self.mail.get(epoch.hint, [])):
                    try:
                        circle.take(epoch, sealed)
                    except Refused:
                        continue
            if before == state(circle):
                return


def story() -> tuple[Mailboxes, dict[str, Circle]]:
    """Five members; one goes, by two devices of the founder at once, and speaks on."""
    there = Mailboxes()
    ann = Circle.new()
    cast = {"ann": ann, **{name: joined(ann) for name in ("bob", "cat", "dan", "eve")}}
    for name, circle in cast.items():
        circle.introduce(name)
        there.leave(circle)
        there.say(circle, f"I am {name}")
    for circle in cast.values():
        there.read(circle, list)
    (bob,) = [one for one in ann.file.members() if one.name == "bob"]
    ann.give_founder(bob)
    there.leave(ann)
    there.read(cast["bob"], list)
    there.say(cast["eve"], "before it is known")
    names = {name: circle.member.id for name, circle in cast.items()}
    there.rekey(ann, [names["eve"]])
    there.say(ann, "the new keys of Ann")
    there.rekey(cast["bob"], [names["eve"], names["cat"]])
    there.say(cast["bob"], "the new keys of Bob")
    cast["eve"].clock_ms = lambda: 1  # as if it had been said long ago
    there.say(cast["eve"], "and after it: this counts for nothing")
    for _ in range(3):  # whoever followed the one that does not stand moves, and says it again
        for name in ("ann", "bob"):
            there.read(cast[name], list)
            there.leave(cast[name])
    return there, cast


@pytest.fixture(scope="module")
def told() -> tuple[Mailboxes, dict[str, Circle]]:
    return story()


@given(seed=st.integers(0, 2**32))
@settings(max_examples=60, deadline=None)
def test_in_whatever_order_mail_comes_a_member_believes_the_same(
    told: tuple[Mailboxes, dict[str, Circle]], seed: int
) -> None:
    there, cast = told
    chance = random.Random(seed)

    def order(mail: list[bytes]) -> list[bytes]:
        return chance.sample(mail, len(mail)) + chance.sample(mail, len(mail) // 2)

    copy = _copy(cast["dan"])
    there.read(copy, order)
    assert copy.epoch == cast["ann"].epoch == cast["bob"].epoch
    assert state(copy) == state(cast["ann"])
    texts = [one.text for one in copy.told() if one.text]
    assert "and after it: this counts for nothing" not in texts
    assert {"the new keys of Ann", "the new keys of Bob"} <= set(texts)
    copy.close()


@given(seed=st.integers(0, 2**32))
@settings(max_examples=30, deadline=None)
def test_who_is_left_out_stays_out_in_whatever_order_its_mail_comes(
    told: tuple[Mailboxes, dict[str, Circle]], seed: int
) -> None:
    there, cast = told
    chance = random.Random(seed)
    copy = _copy(cast["eve"])
    there.read(copy, lambda mail: chance.sample(mail, len(mail)))
    assert copy.is_out
    assert copy.epoch.number == 0
    copy.close()


def _copy(circle: Circle) -> Circle:
    """Return the same member as it joined, before it has read anything."""
    made = CircleFile.make(
        None,
        founder=circle.file.founder,
        member_secret=circle.member.secret,
        epoch=circle.file.epochs()[0],
        began_ms=0,
    )
    return Circle(made)


def test_the_box_of_another_cannot_be_opened_by_who_was_left_out(
    told: tuple[Mailboxes, dict[str, Circle]],
) -> None:
    _, cast = told
    said = cast["ann"].file.rekey_to(1)
    assert said is not None
    rekey = Rekey.from_said(cast["ann"].file.founder, said)
    for box in rekey.keep.values():
        with pytest.raises(Refused):
            boxes.unbox(box, cast["eve"].member.box_key, boxes.for_rekey(cast["ann"].id, 1))
    assert keys.member_id(cast["eve"].member.public.raw) not in rekey.keep
