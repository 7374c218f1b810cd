"""Units: which store verbs a call takes, and what DynamoDB charges for them.

Counted on dynalite, which reports consumed capacity as DynamoDB does. *Warm* is a
process that knows the circle's pinned key; *cold* is one that has just started.
"""

from __future__ import annotations

import json
import os
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, cast

from chalicelib.call import Call, Connection, Reply
from chalicelib.circle import sockets
from chalicelib.circle.relay import TOUCH_S
from chalicelib.limits import SHARE_EVERY
from chalicelib.store import READS, Store, Stores, TableNames
from chalicelib.store.dynamodb import create_tables, open_client, open_dynamodb
from muster.felund import frames
from tools.bench import inside
from tools.bench.members import Member, Ready, circle, message

MOST_WRITES = 3.0
MOST_READS = 2.0

NOTES = (
    "a list that finds nothing counts as one read unit; dynalite says none",
    f"every {SHARE_EVERY}th call of an address and of a node also writes a counter: "
    f"{2 / SHARE_EVERY:g} write units a call",
    f"a relay seat in use is noted every {TOUCH_S} s: one write unit",
    "a pinned key in use is written again once a day, and read every 5 minutes by each process",
)

NOWHERE = {
    "AWS_ACCESS_KEY_ID": "bench",
    "AWS_SECRET_ACCESS_KEY": "bench",
    "AWS_SESSION_TOKEN": "bench",
    "AWS_EC2_METADATA_DISABLED": "true",
    "AWS_CONFIG_FILE": os.devnull,
    "AWS_SHARED_CREDENTIALS_FILE": os.devnull,
    "NO_PROXY": "127.0.0.1",
}
"""What keeps botocore from looking for a real account; dynalite takes any key."""

Act = Callable[[], None]


class Tally:
    """What has been asked of the stores since the last `take`."""

    def __init__(self) -> None:
        self._verbs: Counter[str] = Counter()
        self._units: defaultdict[str, float] = defaultdict(float)

    def meter(self, verb: str, units: float) -> None:
        """Take note of consumed capacity."""
        reads = verb in READS
        kind = "read_units" if reads else "write_units"
        self._units[kind] += max(units, 1.0) if reads else units

    def watch(self, stores: Stores) -> Stores:
        """Return the stores with every verb counted."""
        pairs = zip(Stores._fields, stores, strict=True)
        return Stores(*(cast("Store", _Watched(self._verbs, name, store)) for name, store in pairs))

    def take(self) -> tuple[dict[str, int], dict[str, float]]:
        """Return verbs and units, and start again."""
        verbs = dict(self._verbs)
        units = {name: self._units[name] for name in ("read_units", "write_units")}
        self._verbs.clear()
        self._units.clear()
        return verbs, units


class _Watched:
    """A store whose verbs are counted when they are looked up."""

    def __init__(self, verbs: Counter[str], name: str, store: Store) -> None:
        self._verbs, self._name, self._store = verbs, name, store

    def __getattr__(self, verb: str) -> Any:
        self._verbs[f"{self._name}.{verb}"] += 1
        return getattr(self._store, verb)


class World:
    """A service on DynamoDB and the circles in it."""

    def __init__(self, stores: Stores) -> None:
        self._stores = stores
        self.service = inside.service(stores)
        self._connections = 0

    def cool(self) -> None:
        """Put a new process in place of the old one; it knows the service's key, as it must."""
        self.service = inside.service(self._stores)
        self.service.signer(now=int(time.time()))

    def do(self, ready: Ready) -> dict[str, Any]:
        """Make a call and return the answer."""
        reply: Reply = inside.answer(self.service, ready.call())
        found: dict[str, Any] = json.loads(reply.body)
        return found

    def open(self, token: str) -> Connection:
        """Open a socket and greet it."""
        self._connections += 1
        connection, clock = Connection(f"connection-{self._connections}"), time.time()
        call = Call(
            "GET",
            sockets.PATH,
            headers={"authorization": f"Bearer {token}"},
            source_ip="192.0.2.1",
            clock=clock,
        )
        opened = sockets.open_socket(self.service, call, connection)
        self._deliver(opened.effects)
        self._deliver(sockets.greet(self.service, connection, now=int(clock)))
        return connection

    def say(self, connection: Connection, text: str) -> None:
        """Send a frame from a node."""
        self._deliver(sockets.receive(self.service, connection, text, now=int(time.time())))

    def close(self, connection: Connection) -> None:
        """Hang up."""
        self._deliver(sockets.closed(self.service, connection, now=int(time.time())))

    def _deliver(self, effects: tuple[Any, ...]) -> None:
        sockets.deliver(self.service, effects, now=int(time.time()))


def store_units() -> dict[str, Any]:
    """Count for every kind of call."""
    tally = Tally()
    with _dynalite(tally) as stores:
        world = World(tally.watch(stores))
        rows = [
            _row(world, tally, name, prepare, in_ten=in_ten)
            for name, prepare, in_ten in _kinds(world)
        ]
    return {
        "workload": "a circle of ten, nine of them subscribed, unless the name says otherwise",
        "engine": "DynamoDB as dynalite charges it",
        "notes": list(NOTES),
        "calls": rows,
    }


def _row(
    world: World, tally: Tally, name: str, prepare: Callable[[], Act], *, in_ten: bool
) -> dict[str, Any]:
    act = prepare()
    tally.take()
    act()
    verbs, warm = tally.take()
    act = prepare()
    world.cool()
    tally.take()
    act()
    _, cold = tally.take()
    aim = {"write_units": MOST_WRITES} | ({"read_units": MOST_READS} if in_ten else {})
    return {
        "call": name,
        "verbs": verbs,
        "warm": warm,
        "cold": cold,
        "aim": aim,
        "reached": all(warm[unit] <= most for unit, most in aim.items()),
    }


def _kinds(world: World) -> Iterator[tuple[str, Callable[[], Act], bool]]:
    """Yield what is counted: a name, what makes it ready to be done, and whether ten take part."""
    nine = circle(9)
    for member in nine:
        world.do(member.register())
        world.open(world.do(member.subscription())["token"])
    one, other = nine[0], nine[1]
    yield from _presence(world, one)
    yield from _mail(world, one, other)
    yield from _relay(world, one, other)
    yield from _large(world)


def _presence(world: World, one: Member) -> Iterator[tuple[str, Callable[[], Act], bool]]:
    tenth = Member(one.circle, os.urandom(12).hex())

    def leave() -> Ready:
        return tenth.sign("DELETE", "/v1/register", {"node_id": tenth.node_id})

    def coming() -> Act:
        world.do(leave())
        return _call(world, tenth.register())

    def leaving() -> Act:
        world.do(tenth.register())
        return _call(world, leave())

    yield "register, first", coming, True
    yield "register, again", lambda: _call(world, one.register()), True
    yield "peers, 10", lambda: _call(world, one.peers()), True
    yield "unregister", leaving, True


def _mail(
    world: World, one: Member, other: Member
) -> Iterator[tuple[str, Callable[[], Act], bool]]:
    def cursor(*posts: Ready) -> int:
        found: list[int] = [world.do(ready)["cursor"] for ready in posts]
        return found[0]

    def fifty() -> Act:
        world.do(one.post(50))
        return _call(world, one.post(50))

    def after_fifty() -> Act:
        world.do(one.post(50))
        return _call(world, one.post())

    def again() -> Act:
        messages = [message(one.node_id) for _ in range(50)]
        world.do(one.repost(messages))
        world.do(one.post())
        return _call(world, one.repost(messages))

    def since() -> Act:
        query = {"since": str(int(time.time()))}
        return _call(world, one.sign("GET", "/v1/messages", query=query))

    world.do(one.post())
    world.do(one.signal(other))
    yield "message", lambda: _call(world, one.post()), True
    yield "messages, 50 after 50", fifty, True
    yield "message after 50", after_fifty, True
    yield "messages, 50 known", again, True
    yield "poll, nothing new", lambda: _call(world, other.poll(cursor(one.post()))), True
    yield (
        "poll, 1 new",
        lambda: _call(world, other.poll(cursor(one.post(), one.post()))),
        True,
    )
    yield "poll by since, nothing new", since, True
    yield "signal", lambda: _call(world, one.signal(other)), True

    def signals(back: int) -> Act:
        number = int(world.do(one.signal(other))["id"])
        return _call(world, other.signals(number - back))

    yield "signals, nothing new", lambda: signals(0), True
    yield "signals, 1 new", lambda: signals(1), True


def _relay(
    world: World, one: Member, other: Member
) -> Iterator[tuple[str, Callable[[], Act], bool]]:
    def connect() -> Act:
        token = world.do(one.subscription())["token"]
        return lambda: world.close(world.open(token))

    def attach() -> Act:
        token = world.do(one.session(other))["token"]
        return lambda: world.close(world.open(token))

    def frame() -> Act:
        world.open(world.do(other.session(one))["token"])
        opened = world.do(one.session(other))
        seat = world.open(opened["token"])
        text = frames.Frame(
            session_id=opened["session_id"], seq=1, payload_b64=frames.payload(bytes(64))
        )
        return lambda: world.say(seat, frames.encode(text))

    yield "subscription", lambda: _call(world, one.subscription()), True
    yield "socket, subscribed and closed", connect, True
    yield "relay session", lambda: _call(world, one.session(other)), True
    yield "socket, seated and closed", attach, True
    yield "frame", frame, True


def _large(world: World) -> Iterator[tuple[str, Callable[[], Act], bool]]:
    fifty = circle(50)
    for member in fifty:
        world.do(member.register())
    yield "peers, 50", lambda: _call(world, fifty[0].peers()), False

    (reader,) = circle(1)
    world.do(reader.register())
    for _ in range(20):
        world.do(reader.post(50))

    def backlog() -> None:
        after, more = 0, True
        while more:
            page = world.do(reader.poll(after))
            after, more = page["cursor"], page["more"]

    yield "poll, backlog of 1000, all calls", lambda: backlog, False


def _call(world: World, ready: Ready) -> Act:
    def act() -> None:
        world.do(ready)

    return act


@contextmanager
def _dynalite(tally: Tally) -> Iterator[Stores]:
    from tests.support import dynalite

    os.environ.update(NOWHERE)
    names = TableNames("presence", "mail", "guard")
    with dynalite.running() as url:
        client = open_client(endpoint_url=url, region="us-east-1", read_s=20)
        create_tables(client, names)
        yield open_dynamodb(tables=names, client=client, meter=tally.meter)
