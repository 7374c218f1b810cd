"""What becomes of connections and meetings when this node or another is elsewhere."""

from __future__ import annotations

import socket

from muster import network
from muster.circle import Circle, events
from tests.support.members2 import play, present

HERE = "127.0.0.1"


def test_a_connection_has_moved_when_its_address_is_no_longer_this_machine_s() -> None:
    with (
        socket.create_server((HERE, 0)) as server,
        socket.create_connection(server.getsockname()) as here,
    ):
        assert not network.has_moved(here)
        network.notice_end(here)
        assert here.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE) == 1
    assert not network.has_moved(here)

    class Elsewhere:
        family = socket.AF_INET

        def getsockname(self) -> tuple[str, int]:
            return "192.0.2.1", 4242

    assert network.has_moved(Elsewhere())  # type: ignore[arg-type]


def test_nodes_that_dial_each_other_at_once_keep_one_meeting() -> None:
    async def scene() -> None:
        ann = Circle.new()
        bob = Circle.join(ann.invite())
        async with present(ann, "Ann") as hers, present(bob, "Bob") as his:
            for one, other in ((hers, his), (his, hers)):
                place = await one.here.listen(HERE)
                other.circle.file.keep("peers", f"{HERE}:{place.port}".encode())
            hers.here.meetings.changed.set()
            his.here.meetings.changed.set()
            await hers.sees("Bob")
            await his.sees("Ann")
            for number in range(20):
                await hers.here.say(f"hers {number}")
                await his.here.say(f"his {number}")
            await his.reads("hers 19")
            await hers.reads("his 19")
            assert not hers.of(events.Left)

    play(scene())
