from base64 import b64encode
from typing import Any

import pytest

from chalicelib.call import Close, Connection
from chalicelib.circle import relay, sockets
from muster.errors import SessionExpired
from muster.felund.records import MAX_FRAME_BYTES
from tests.support.circle import ANN, BOB, HINT, START, World, world


class Pair:
    """Two members with a relay session between them."""

    def __init__(self, here: World) -> None:
        self.here = here
        here.register(ANN, ttl_s=600)
        here.register(BOB, ttl_s=600)
        self.opened = {ANN: here.session(ANN, BOB)[1], BOB: here.session(BOB, ANN)[1]}
        self.session_id = self.opened[ANN]["session_id"]
        self.ann = here.open("c-ann", self.opened[ANN]["token"])
        self.bob = here.open("c-bob", self.opened[BOB]["token"])
        self.greetings = [here.gateway.take("c-ann"), here.gateway.take("c-bob")]

    def frame(self, seq: int = 1, data: bytes = b"hello", **members: Any) -> dict[str, Any]:
        """Return a FRAME."""
        return {
            "t": "FRAME",
            "session_id": self.session_id,
            "seq": seq,
            "payload_b64": b64encode(data).decode(),
        } | members

    def told(self, connection: Connection) -> list[dict[str, Any]]:
        """Return what a socket was sent since last asked."""
        return self.here.gateway.take(connection.id)


@pytest.fixture
def pair() -> Pair:
    return Pair(world())


def test_both_sides_ask_and_get_one_session_with_a_token_each(pair: Pair) -> None:
    ann, bob = pair.opened[ANN], pair.opened[BOB]

    assert ann["session_id"] == bob["session_id"]
    assert ann["token"] != bob["token"]
    assert ann["relay_url"] == "wss://muster.example/v1/relay/ws"
    assert ann["expires_at"] == START + 60


def test_other_pairs_and_circles_have_other_sessions() -> None:
    here = world(unsigned="allow")
    for node in (ANN, BOB, "carl-003"):
        here.register(node)
    found = {here.session(ANN, other)[1]["session_id"] for other in (BOB, "carl-003")}

    assert len(found) == 2


def test_each_is_told_when_the_other_seat_is_taken(pair: Pair) -> None:
    attached = [[frame["node_id"] for frame in told] for told in pair.greetings]

    assert attached == [[BOB], [ANN]]


def test_a_frame_arrives_unchanged_and_is_acknowledged(pair: Pair) -> None:
    sent = pair.frame(seq=7)

    pair.here.say(pair.ann, sent)

    assert pair.told(pair.bob) == [sent | {"from": ANN}]
    assert pair.told(pair.ann) == [{"t": "ACK", "session_id": pair.session_id, "seq": 7}]


def test_a_peers_own_acknowledgement_is_passed_with_its_name(pair: Pair) -> None:
    pair.here.say(pair.bob, {"t": "ACK", "session_id": pair.session_id, "seq": 7})

    assert pair.told(pair.ann) == [
        {"t": "ACK", "session_id": pair.session_id, "seq": 7, "from": BOB}
    ]


def test_a_name_cannot_be_forged_in_a_frame(pair: Pair) -> None:
    pair.here.say(pair.ann, pair.frame() | {"from": "carl-003"})

    assert pair.told(pair.bob)[0]["from"] == ANN


def test_the_largest_payload_passes_and_one_byte_more_does_not(pair: Pair) -> None:
    pair.here.say(pair.ann, pair.frame(seq=1, data=b"x" * MAX_FRAME_BYTES))
    pair.here.say(pair.ann, pair.frame(seq=2, data=b"x" * (MAX_FRAME_BYTES + 1)))

    assert [frame["seq"] for frame in pair.told(pair.bob)] == [1]
    assert [frame.get("code") for frame in pair.told(pair.ann)] == [None, "PAYLOAD_TOO_LARGE"]


@pytest.mark.parametrize(
    "text",
    [
        "",
        "hello",
        "[]",
        "null",
        "{}",
        '{"t":"SHOUT"}',
        '{"t":"FRAME"}',
        '{"t":"FRAME","t":"FRAME"}',
        '{"t":"FRAME","session_id":"SID","seq":-1,"payload_b64":""}',
        '{"t":"FRAME","session_id":"SID","seq":1.5,"payload_b64":""}',
        '{"t":"FRAME","session_id":"SID","seq":9007199254740992,"payload_b64":""}',
        '{"t":"FRAME","session_id":"SID","seq":NaN,"payload_b64":""}',
        '{"t":"FRAME","session_id":"SID","seq":1,"payload_b64":"***"}',
        '{"t":"FRAME","session_id":"SID","seq":1,"payload_b64":"AA"}',
        '{"t":"FRAME","session_id":"SID","seq":1,"payload_b64":"A-_A"}',
        '{"t":"FRAME","session_id":"SID","seq":1,"payload_b64":7}',
        '{"t":"FRAME","session_id":"other-session","seq":1,"payload_b64":"AAAA"}',
        '{"t":"ACK","session_id":"other-session","seq":1}',
        '{"t":"FRAME","session_id":"\\ud800\\ud800\\ud800","seq":1,"payload_b64":"AAAA"}',
        "[" * 30_000,
    ],
)
def test_a_frame_that_makes_no_sense_is_refused_and_the_session_lives(
    pair: Pair, text: str
) -> None:
    pair.here.say(pair.ann, text.replace("SID", pair.session_id))

    [refusal] = pair.told(pair.ann)
    assert (refusal["t"], refusal["code"]) == ("ERROR", "INVALID_FRAME")
    assert pair.told(pair.bob) == []
    pair.here.say(pair.ann, pair.frame())
    assert len(pair.told(pair.bob)) == 1


def test_a_frame_for_an_empty_seat_is_refused_for_now() -> None:
    pair = Pair(world())
    pair.here.gateway.gone.add(pair.bob.id)

    pair.here.say(pair.ann, pair.frame(seq=5))

    refusals = [frame for frame in pair.told(pair.ann) if frame["t"] == "ERROR"]
    assert [(r["code"], r["retryable"], r["seq"]) for r in refusals] == [("NOT_FOUND", True, 5)]
    pair.here.say(pair.ann, pair.frame(seq=6))
    assert [frame["code"] for frame in pair.told(pair.ann)] == ["NOT_FOUND"]


def test_a_closed_socket_empties_its_seat_and_the_other_is_told(pair: Pair) -> None:
    effects = sockets.closed(pair.here.service, pair.bob, now=pair.here.now)
    sockets.deliver(pair.here.service, effects, now=pair.here.now)

    assert pair.told(pair.ann) == [{"t": "GONE", "session_id": pair.session_id, "node_id": BOB}]
    assert sockets.closed(pair.here.service, pair.bob, now=pair.here.now) == ()


def test_a_node_that_comes_again_replaces_its_old_socket(pair: Pair) -> None:
    new = pair.here.open("c-bob-2", pair.opened[BOB]["token"])
    assert pair.here.gateway.closed == {"c-bob": 1000}
    assert sockets.closed(pair.here.service, pair.bob, now=pair.here.now) == ()
    pair.told(pair.ann)

    pair.here.say(pair.ann, pair.frame())

    assert [frame["t"] for frame in pair.told(new)] == ["ATTACHED", "FRAME"]


def test_a_session_ends_with_its_time(pair: Pair) -> None:
    pair.here.clock = START + 60

    pair.here.say(pair.ann, pair.frame())

    assert [frame["code"] for frame in pair.told(pair.ann)] == ["SESSION_EXPIRED"]
    assert pair.here.gateway.closed["c-ann"] == 1000
    with pytest.raises(SessionExpired):
        pair.here.open("c-late", pair.opened[BOB]["token"])


def test_renewing_keeps_a_session_and_its_sockets(pair: Pair) -> None:
    pair.here.clock = START + 42
    renewed = pair.here.session(ANN, BOB, ttl_s=120)[1]
    pair.here.clock = START + 100

    pair.here.say(pair.ann, pair.frame())

    assert renewed["session_id"] == pair.session_id
    assert [frame["t"] for frame in pair.told(pair.bob)] == ["FRAME"]


@pytest.mark.parametrize(("asked", "given"), [(1, 30), (75, 75), (10_000, 120)])
def test_a_session_lasts_between_30_and_120_seconds(asked: int, given: int) -> None:
    here = world()
    here.register(ANN)
    here.register(BOB)

    assert here.session(ANN, BOB, ttl_s=asked)[1]["expires_at"] == START + given


def test_a_session_needs_a_registered_target() -> None:
    here = world()
    here.register(ANN)

    assert here.session(ANN, BOB)[0] == 404
    assert here.session(ANN, ANN)[0] == 400


def test_an_idle_seat_is_swept_and_a_busy_one_stays() -> None:
    pair = Pair(world())
    pair.here.session(ANN, BOB, ttl_s=120)
    for second in range(5, 50, 5):
        pair.here.clock = START + second
        pair.here.say(pair.ann, {"t": "PING"})

    effects = relay.sweep(pair.here.service, now=pair.here.now).effects
    sockets.deliver(pair.here.service, effects, now=pair.here.now)

    assert pair.here.gateway.closed == {"c-bob": 1000}
    assert [frame["code"] for frame in pair.told(pair.bob)] == ["IDLE"]
    assert pair.told(pair.ann)[-1]["t"] == "GONE"


def test_seats_of_an_expired_session_are_swept(pair: Pair) -> None:
    pair.here.clock = START + 61

    effects = relay.sweep(pair.here.service, now=pair.here.now).effects
    sockets.deliver(pair.here.service, effects, now=pair.here.now)

    assert set(pair.here.gateway.closed) == {"c-ann", "c-bob"}
    assert relay.sweep(pair.here.service, now=pair.here.now) == ((), "", 0)


def test_many_seats_are_swept_slice_by_slice() -> None:
    here = world(address_burst=10**6, node_burst=10**6)
    nodes = [f"node-{number:04d}" for number in range(relay.SWEEP_PAGE + 1)]
    for node in nodes:
        here.register(node, ttl_s=600)
    for node, other in zip(nodes, [*nodes[1:], nodes[0]], strict=True):
        here.open(f"c-{node}", here.session(node, other)[1]["token"])
    here.clock = START + 61

    first = relay.sweep(here.service, now=here.now)
    second = relay.sweep(here.service, now=here.now, after=first.after)

    ended = [effect for effect in first.effects + second.effects if isinstance(effect, Close)]
    assert {close.connection.id for close in ended} == {f"c-{node}" for node in nodes}
    assert first.after
    assert not second.after


def test_a_ping_is_answered(pair: Pair) -> None:
    pair.here.say(pair.ann, {"t": "PING"})
    pair.here.say(pair.ann, {"t": "PONG"})

    assert pair.told(pair.ann) == [{"t": "PONG"}]


def test_a_frame_on_a_subscription_is_refused(pair: Pair) -> None:
    listener = pair.here.subscribe(ANN, "c-listen")

    pair.here.say(listener, pair.frame())

    assert [frame["code"] for frame in pair.told(listener)] == ["INVALID_FRAME"]
    assert pair.told(pair.bob) == []


def test_a_flood_of_frames_is_refused() -> None:
    pair = Pair(world(frame_burst=10))
    for seq in range(12):
        pair.here.say(pair.ann, pair.frame(seq=seq))

    assert len(pair.told(pair.bob)) == 10
    refusal = pair.told(pair.ann)[-1]
    assert (refusal["code"], refusal["seq"]) == ("RATE_LIMITED", 11)


def test_a_socket_nobody_knows_is_closed() -> None:
    here = world()

    here.say(Connection("c-unknown"), "[]")

    assert here.gateway.closed == {"c-unknown": 1008}


def test_an_older_clients_socket_is_pushed_messages_and_nothing_else() -> None:
    here = world(unsigned="allow")
    here.register(ANN)
    old = here.open("c-old", circle_hint=HINT, node_id=BOB)

    here.say(old, {"t": "FRAME"})
    here.say(old, "whatever")
    here.register("carl-003")
    here.leave("m-000001")

    [frame] = here.gateway.take(old.id)
    assert frame["t"] == "MESSAGES"
