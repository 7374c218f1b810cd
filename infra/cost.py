"""What a month on AWS costs: who calls how often, and what a call uses.

    USD a month = nodes x hours a month x calls an hour x (what one call uses x its price)

and what is there when nobody calls. A test compares the store units with what DynamoDB
itself counts, another what strangers cause with what a flood does.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Literal

from infra.bill import ANSWER_BYTES, CALL_MS, DAYS, LOG_BYTES, REGION, Estimate, Units, Use, bill
from infra.standing import CODE_GB, TABLES_GB, Standing, as_it_comes

Design = Literal["polling", "push"]

PUSH_MS = 10.0
"""How long it takes to pass one text to one socket."""

AN_HOUR = 60
"""How often a clock runs that is awake: while a relay session is open, or a community there."""

CALLS: Mapping[str, Units] = {
    "register": Units(2, 1, "register, again"),
    "peers": Units(1, 2, "peers, 10"),
    "post": Units(3, 3, "message"),
    "post 50 known": Units(1, 5, "messages, 50 known"),
    "poll": Units(1, 1, "poll, nothing new"),
    "poll signals": Units(1, 1, "signals, nothing new"),
    "token": Units(1, 0, "subscription"),
    "preflight": Units(0, 0),
}
SOCKET = Units(4, 50, "socket, subscribed and closed")
SYNC_QUIET, SYNC_MESSAGE, SOCKET_2 = Units(1, 0), Units(1, 2), Units(7, 6)
"""Of version 2, as tests/hosts/test_version2.py counts them: a socket with a presence between."""

SWEEP = Units(0, 1)
PUBLISH = Units(0, 1)
PUBLISHED = Units(3, 32)
"""A community's lease and outcome, and its places, if it has all of them."""

CAPSULE_FILES, CAPSULE_MS = 3, 200.0
KEYS_AN_HOUR = 4
"""How often a publisher that works reads its keys."""


LOAD_CALLS, LOAD_BYTES, FILE_MS = 12, 150_000, 10.0
"""What the packed app takes in a browser that has nothing of it, gzipped: six calls until it can
be used, and as many of the worker that keeps it. A file waits for nothing."""


@dataclass(frozen=True, slots=True)
class Client:
    """How often a node that is there does what, an hour."""

    what: str
    calls: Mapping[str, float]
    messages: float = 0
    """Text frames between it and the gateway, both ways, PING and PONG most of all."""
    events: float = 0
    """Text frames from it, of which each wakes a machine."""
    opens: float = 0
    held: bool = False
    event: Units = CALLS["preflight"]
    """What such a frame takes, if anything."""
    post: Units = CALLS["post"]
    socket: Units = SOCKET
    by_socket: bool = False
    """Whether what it leaves goes by the socket too."""
    loads: float = 0
    """How often it loads the app, as if its browser had nothing of it."""


def _every(seconds: float) -> float:
    return 3600 / seconds


def _push(what: str, *, register_s: float, check_s: float, list_s: float, ping_s: float) -> Client:
    """Describe one of our own clients, which holds a socket."""
    checks = _every(check_s)
    return Client(
        what,
        {
            "register": _every(register_s),
            "poll": checks,
            "poll signals": checks,
            "peers": _every(list_s),
            "token": 0.5,
        },
        messages=2 * _every(ping_s),
        events=_every(ping_s),
        opens=0.5,  # API Gateway ends every socket after two hours
        held=True,
    )


def clients() -> Mapping[str, Client]:
    """Return who may call, by name: what is usual first, and clients of other systems last."""
    from muster.cli.listening import TTL_S
    from muster.felund.sockets import QUIET_PING_S
    from muster.felund.subscription import CHECK_S, GONE_S

    sync = Client(
        "version 2 on a socket: 'muster listen', 'chat' and 'node'",
        {},
        messages=_every(480),  # a quiet sync, which has no answer
        events=_every(480),
        opens=0.5,
        held=True,
        event=SYNC_QUIET,
        post=SYNC_MESSAGE,
        socket=SOCKET_2,
        by_socket=True,
    )
    return {
        "app": replace(
            sync,
            what="version 2 with the app, loaded every day by a browser that kept nothing",
            loads=1 / 24,
        ),
        "sync": sync,
        "push": _push(
            "version 1: our client on a socket",
            register_s=TTL_S / 2,
            check_s=CHECK_S,
            list_s=GONE_S,
            ping_s=QUIET_PING_S,
        ),
        "quiet": _push(
            "version 1: on a socket, as seldom as the protocol allows",
            register_s=540,
            check_s=3600,
            list_s=3600,
            ping_s=540,
        ),
        "spec": Client(
            "version 1: polling as the protocol's guide advises: peers and mail every 8 s",
            {"register": _every(60), "peers": _every(8), "poll": _every(8)},
        ),
        "tui": Client(
            "felund's terminal client: everything every 8 s, its newest 100 messages too",
            {
                "register": _every(8),
                "peers": _every(8),
                "poll": _every(8),
                "post 50 known": 2 * _every(8),
            },
        ),
        "web": Client(
            "felund's browser client: peers and mail every 5 s, signals every 2 s",
            {
                "register": _every(60),
                "peers": _every(5),
                "poll": _every(5),
                "poll signals": _every(2),
                "preflight": 7 * _every(64),
            },
        ),
    }


USUAL = "app"
"""Whose month is told where nobody asks for another."""

DESIGNS: Mapping[Design, str] = {"polling": "spec", "push": "push"}


def estimate(
    *,
    nodes: int = 5,
    hours: float = 24,
    design: Design = "push",
    client: str | None = None,
    messages: float = 20,
    region: str = REGION,
    memory_mb: int = 1024,
    architecture: str = "arm64",
    edge: bool = False,
    standing: Standing | None = None,
) -> Estimate:
    """Price a month of a circle of *nodes* that are there *hours* a day.

    Each leaves *messages* a day. *client* is one of `clients`, if not the design's own.
    """
    chosen = clients()[client or DESIGNS[design]]
    use = idle(memory_mb=memory_mb, edge=edge, standing=standing)
    node_hours = nodes * hours * DAYS
    for name, an_hour in chosen.calls.items():
        use.call(node_hours * an_hour, CALLS[name])
    load(use, node_hours * chosen.loads)
    posts = nodes * messages * DAYS * hours / 24
    if chosen.by_socket:
        use.socket_message += 2 * posts
        use.run(posts, CALL_MS)
        use.ask(posts, chosen.post)
    else:
        use.call(posts, chosen.post)
    if chosen.held:
        use.arrive(node_hours * chosen.opens)
        use.socket_minute += node_hours * 60
        use.socket_message += node_hours * chosen.messages + posts * (nodes - 1)
        use.lambda_gb_s += posts * (nodes - 1) * PUSH_MS / 1000 * memory_mb / 1024
        use.run(node_hours * chosen.events, CALL_MS + PUSH_MS)
        use.ask(node_hours * chosen.events, chosen.event)
        opened = node_hours * chosen.opens
        use.socket_message += 2 * opened
        use.run(3 * opened, CALL_MS)  # connect, greet, disconnect
        use.ask(opened, chosen.socket)
    return bill(use, region=region, architecture=architecture)


def idle(*, memory_mb: int = 1024, edge: bool = False, standing: Standing | None = None) -> Use:
    """Return what a month takes when no node is there: what stands, and nothing that runs."""
    there = standing or as_it_comes()
    return Use(
        alarm_month=there.alarms,
        metric_month=there.metrics,
        dashboard_month=there.dashboards,
        stored_gb_month=TABLES_GB,
        backup_gb_month=TABLES_GB,
        file_gb_month=CODE_GB,
        _memory_gb=memory_mb / 1024,
        _edge=edge,
        _log_bytes=LOG_BYTES + there.platform_bytes,
    )


def nobody(*, region: str = REGION, standing: Standing | None = None) -> Estimate:
    """Price a month in which nobody calls."""
    return bill(idle(standing=standing), region=region)


def wake(use: Use, *, sweep_hours: float = 0, publish_hours: float = 0) -> None:
    """Count the runs of the two clocks in the hours that they are awake."""
    for hours, units in ((sweep_hours, SWEEP), (publish_hours, PUBLISH)):
        use.run(hours * AN_HOUR, CALL_MS)
        use.ask(hours * AN_HOUR, units)
    use.key_call += publish_hours * KEYS_AN_HOUR


def load(use: Use, times: float) -> None:
    """Count first loads of the app; no table is asked."""
    calls = times * LOAD_CALLS
    use.http_call += calls
    use.arrive(calls)
    use.send(times * LOAD_BYTES + calls * ANSWER_BYTES)
    use.run(calls, FILE_MS)


def publish(use: Use, capsules: float) -> None:
    """Count so many published capsules of full communities."""
    put(use, capsules)
    use.ask(capsules, PUBLISHED)
    use.busy(capsules * CAPSULE_MS)


def put(use: Use, capsules: float) -> None:
    """Count the files of so many capsules; each is read before it is replaced."""
    use.file_put += capsules * CAPSULE_FILES
    use.file_get += capsules * CAPSULE_FILES
