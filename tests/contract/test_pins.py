"""A circle's pinned key over every engine: it lives on in use, in every process."""

import pytest

from chalicelib import tables
from chalicelib.store import Stores
from muster.felund import signing
from tests.support.circle import ANN, BOB, HINT, world

HOUR = 3600
MALLORY = signing.request_key(b"\x66" * 32)


@pytest.mark.parametrize("pin_s", [HOUR, 24 * HOUR])
def test_a_pin_of_a_day_or_less_lives_on_in_use(stores: Stores, pin_s: int) -> None:
    processes = [world(stores, pin_s=pin_s) for _ in range(2)]
    processes[0].register(ANN)
    for call in range(1, 26):
        here = processes[call % 2]
        here.clock = processes[0].clock + pin_s / 10
        processes[0].clock = here.clock
        assert here.register(BOB)[0] == 200
        assert here.register("evil-node", signing_key=MALLORY.hex())[0] == 401

    pinned = tables.pinned(stores, HINT, now=processes[0].now)
    assert pinned is not None
    assert pinned.expires_at > processes[0].now + pin_s * 0.8


def test_a_pin_in_use_is_seldom_written(stores: Stores) -> None:
    here = world(stores)
    here.register(ANN)
    written = []
    for _ in range(48):
        here.clock += HOUR
        here.register(ANN)
        pinned = tables.pinned(stores, HINT, now=here.now)
        assert pinned is not None
        written.append(pinned.expires_at)

    assert len(set(written)) <= 3
