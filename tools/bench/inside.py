"""Inside: what the service's own code costs a call, without a network."""

from __future__ import annotations

import os
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from capsules.keys import VerifyKey
from chalicelib import http
from chalicelib.call import Call, Connection, Reply
from chalicelib.circle import sockets
from chalicelib.service import Service
from chalicelib.settings import Settings
from chalicelib.store import Stores
from chalicelib.store.sqlite import open_sqlite
from tools.bench.figures import Figures
from tools.bench.members import Member, Node, Ready, circle

WARM_UP = 20


class Silent:
    """A gateway that takes everything and sends nothing."""

    def send(self, connection: Connection, text: str) -> None:
        """Take it."""

    def close(self, connection: Connection, code: int, reason: str) -> None:
        """Take note."""


def service(stores: Stores) -> Service:
    """Put a service together whose limits count and never refuse."""
    most = 10**9
    settings = Settings(
        address_burst=most,
        address_per_s=most,
        node_burst=most,
        node_per_s=most,
        mailbox_messages=most,
        mailbox_bytes=most,
        signals_waiting=most,
        network_circles=most,
        network_bytes=2**40,
    )
    return Service(settings, stores, Silent(), os.urandom)


def answer(service: Service, call: Call) -> Reply:
    """Make a call, which must succeed, and send what follows from it."""
    reply = http.handle(service, call)
    if reply.status != 200:
        raise RuntimeError(f"{reply.route} was refused: {reply.body.decode()}")
    sockets.deliver(service, reply.effects, now=call.now)
    return reply


def handler_cpu(*, runs: int, calls: int) -> dict[str, Any]:
    """Measure processor time per signed call, with the store in a file and in memory."""
    with tempfile.TemporaryDirectory(prefix="muster-bench-") as data:
        return {
            "workload": "http.handle in this process: a circle of ten, calls signed in advance",
            "calls": calls,
            "file": _engine(Path(data) / "muster.sqlite3", runs=runs, calls=calls),
            "memory": _engine(":memory:", runs=runs, calls=calls),
        }


def _engine(path: Path | str, *, runs: int, calls: int) -> dict[str, Any]:
    stores = open_sqlite(path)
    try:
        made = service(stores)
        ten = circle(10)
        for member in ten:
            answer(made, member.register().call())
        kinds = _kinds(made, ten)
        figures = {name: Figures() for name in kinds}
        for _ in range(runs):
            for name, make in kinds.items():
                figures[name].runs.append({"cpu_ms": _cpu_ms(made, make, calls)})
        return {name: found.to_json() for name, found in figures.items()}
    finally:
        stores.close()


def _kinds(made: Service, ten: list[Member]) -> dict[str, Callable[[], Ready]]:
    one, other = ten[0], ten[1]
    answer(made, one.post().call())
    node = Node(VerifyKey(made.signer(now=int(time.time())).verify_key))
    return {
        "register": one.register,
        "peers": one.peers,
        "message": one.post,
        "signal": lambda: one.signal(other),
        "poll": lambda: one.poll(10**15),
        "sync": node.sync,
        "sync_new_credential": node.sync_anew,
    }


def _cpu_ms(made: Service, make: Callable[[], Ready], calls: int) -> float:
    ready = [make().call() for _ in range(WARM_UP + calls)]
    for call in ready[:WARM_UP]:
        answer(made, call)
    started = time.process_time()
    replies = [http.handle(made, call) for call in ready[WARM_UP:]]
    took = time.process_time() - started
    refused = [reply for reply in replies if reply.status != 200]
    if refused:
        raise RuntimeError(f"{refused[0].route} was refused: {refused[0].body.decode()}")
    return took / calls * 1000
