"""Where a member is, as far as is known."""

from __future__ import annotations

from muster.circle import Circle
from muster.circle.peers import Member
from muster.presences import Endpoint, Presence

PLACE = Endpoint("tcp", "192.0.2.7", 9999)


def test_where_a_member_is_does_not_depend_on_when_its_first_record_comes() -> None:
    for order in ("record first", "presence first"):
        ann = Circle.new()
        pia = Circle.join(ann.invite())
        found = Presence.of(pia.member.node(pia.epoch), name="Pia", at_ms=1000, endpoints=(PLACE,))
        said = Member(found.member_id, found.member, found.box, "Pia", b"", 0, 1050)
        if order == "record first":
            ann.file.introduce(said)
        ann.file.meet(found, 0)
        ann.file.introduce(said)
        (member,) = ann.file.members()

        assert (member.endpoints, member.node_id) == ((PLACE,), found.node_id), order


def test_a_presence_between_two_records_still_tells_where_a_member_is() -> None:
    ann = Circle.new()
    pia = Circle.join(ann.invite())
    node = pia.member.node(pia.epoch)
    for at_ms, endpoints in ((1000, ()), (2000, (PLACE,))):
        found = Presence.of(node, name="Pia", at_ms=at_ms, endpoints=endpoints)
        ann.file.introduce(
            Member(found.member_id, found.member, found.box, "Pia", b"", 0, at_ms + 5)
        )
        ann.file.meet(found, 0)

    assert ann.file.members()[0].endpoints == (PLACE,)
