"""Facts outlive texts: whoever has them leaves them again, and a newcomer finds the circle."""

import time

from muster import base64url
from muster.backoff import Rim
from muster.chat.store import Store
from muster.chat.talk import Talk
from muster.circle import Circle
from muster.circle.attending import Attendant
from muster.invites import ServiceAddress
from muster.records import GENERAL
from tests.support.members2 import play

DAY_S = 86_400
SERVICE = ServiceAddress("http://127.0.0.1:9", bytes(16))


class Keeper:
    """A node at a mailbox that keeps everything for thirty days, and nothing longer."""

    def __init__(self, circle: Circle, clock: list[float], mailbox: dict[str, float]) -> None:
        self.circle, self.clock, self.mailbox = circle, clock, mailbox
        self.talk = Talk(Store.open(None), circle, now_ms=lambda: int(clock[0] * 1000))
        here = circle.connect()
        here.standing = lambda: self.talk.facts.standing
        self.attendant = Attendant(here, SERVICE, circle.member.node(circle.epoch))
        self.attendant.read.set()
        self.attendant._read_ms = int(clock[0] * 1000)

    def look(self) -> int:
        """Read what is new in the mailbox, and leave what is to be left; how many that are."""
        now_ms, hint = int(self.clock[0] * 1000), self.circle.epoch.hint
        for sealed, at in self.mailbox.items():
            hashed, _ = self.circle.take(self.circle.epoch, base64url.decode(sealed))
            with self.circle.file.writing():
                self.circle.file.note_kept(bytes(16), hint, [hashed], int(at * 1000))
        self.talk.catch_up()
        count = 0
        while True:
            asked, names = self.attendant._leaving()
            if not names:
                return count
            count += len(names)
            with self.circle.file.writing():
                self.circle.file.note_left(bytes(16), names, at_ms=now_ms, seen=True)
                self.circle.file.note_kept(bytes(16), hint, names, now_ms)
            for sealed in asked["messages"]:
                self.mailbox[sealed] = self.clock[0]


def test_a_newcomer_after_months_finds_channels_and_names_though_their_author_has_gone() -> None:
    async def scene() -> None:
        clock, mailbox = [time.time()], dict[str, float]()
        rim = Rim(now=lambda: clock[0], steady=lambda: clock[0])
        ann = Circle.new(services=[SERVICE], rim=rim)
        bob = Circle.join(ann.invite(), rim=rim)
        hers, his = Keeper(ann, clock, mailbox), Keeper(bob, clock, mailbox)
        for name, keeper in (("Ann", hers), ("Bob", his)):
            keeper.circle.introduce(name)
        hers.talk.create_channel("plans")
        hers.talk.name_circle("The friends")
        hers.talk.say("a text that does not last")
        for keeper in (hers, his):
            for draft in keeper.circle.file.drafts():
                keeper.circle.record(draft)
            keeper.look()
        his.look()
        left: list[int] = []
        for _ in range(70):  # Ann does not come back
            clock[0] += DAY_S
            for sealed, at in list(mailbox.items()):
                if clock[0] - at > 30 * DAY_S:
                    del mailbox[sealed]
            left.append(his.look())
        assert sum(left[:19]) == 0
        assert 5 <= sum(left) <= 40
        late = Circle.join(ann.invite(), rim=rim)
        newcomer = Keeper(late, clock, mailbox)
        newcomer.look()
        facts = newcomer.talk.facts
        assert [one.name for one in facts.shown()] == ["plans"]
        assert facts.name == "The friends"
        assert {"Ann", "Bob"} <= set(facts.names.values())
        assert newcomer.talk.page(GENERAL) == []
        for keeper in (hers, his, newcomer):
            await keeper.attendant.aclose()

    play(scene())


def test_an_author_leaves_its_facts_first_and_others_find_it_done() -> None:
    async def scene() -> None:
        clock, mailbox = [time.time()], dict[str, float]()
        rim = Rim(now=lambda: clock[0], steady=lambda: clock[0])
        ann = Circle.new(services=[SERVICE], rim=rim)
        others = [Circle.join(ann.invite(), rim=rim) for _ in range(4)]
        keepers = [Keeper(circle, clock, mailbox) for circle in (ann, *others)]
        for number, keeper in enumerate(keepers):
            keeper.circle.introduce(f"member {number}")
            for draft in keeper.circle.file.drafts():
                keeper.circle.record(draft)
            keeper.look()
        keepers[0].look()
        again = 0
        for _ in range(25):
            clock[0] += DAY_S
            again += sum(keeper.look() for keeper in keepers)
        assert again == len(keepers)
        for keeper in keepers:
            await keeper.attendant.aclose()

    play(scene())
