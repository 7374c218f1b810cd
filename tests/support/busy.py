"""One of several processes that use one circle: `python -m tests.support.busy`.

Each has a service of its own over the shared store, as machines have. It says
`ready`, waits for a line, works, and says in JSON lines what it was told.
"""

import argparse
import json
import random
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from chalicelib import http
from chalicelib.call import Call, Connection
from chalicelib.service import Service
from chalicelib.settings import Settings
from chalicelib.store import Stores, TableNames
from chalicelib.store.dynamodb import open_client, open_dynamodb
from chalicelib.store.sqlite import open_sqlite

HINT = "e03c84dccc271635"
READER = "reader-0001"
PLENTY = 10**9


class Nobody:
    """Holds no sockets."""

    def send(self, connection: Connection, text: str) -> None:
        """Nobody listens, so nothing can be sent."""
        raise AssertionError("nobody listens")

    def close(self, connection: Connection, code: int, reason: str) -> None:
        """Nothing is open."""
        raise AssertionError("nothing is open")


@dataclass
class Machine:
    """A service with a clock that may be wrong, and callers on it."""

    service: Service
    skew_s: float = 0.0
    clock: Callable[[], float] = time.time

    def call(self, method: str, path: str, body: Any = None, **query: Any) -> dict[str, Any]:
        """Make an unsigned call that must succeed; one that is retryable is repeated."""
        for _ in range(50):
            reply = http.handle(
                self.service,
                Call(
                    method,
                    path,
                    query={name: str(value) for name, value in query.items()},
                    body=json.dumps(body).encode() if body is not None else b"",
                    source_ip="192.0.2.1",
                    clock=self.clock() + self.skew_s,
                ),
            )
            if reply.status != 503:
                break
        answer: dict[str, Any] = json.loads(reply.body)
        assert reply.status == 200, answer
        return answer

    def post(self, *msg_ids: str) -> dict[str, Any]:
        """Leave messages with these ids."""
        messages = [{"msg_id": msg_id, "created_ts": 1} for msg_id in msg_ids]
        return self.call("POST", "/v1/messages", {"circle_hint": HINT, "messages": messages})

    def poll(self, **cursor: int) -> dict[str, Any]:
        """Collect messages as existing clients do, 200 at a time."""
        return self.call("GET", "/v1/messages", circle_hint=HINT, limit=200, **cursor)


class Reader:
    """A client that follows a cursor and notes whatever it is given, in order."""

    def __init__(self, kind: str) -> None:
        self.kind = kind
        self.cursor = 0
        self.got: list[str] = []
        self.polls = 0

    def poll(self, machine: Machine) -> bool:
        """Ask once; say whether the answer brought anything not seen before."""
        before = len(set(self.got))
        self.polls += 1
        if self.kind.startswith("signals"):
            circle = {} if self.kind == "signals of all circles" else {"circle_hint": HINT}
            answer = machine.call(
                "GET", "/v1/signal", to_node_id=READER, since_id=self.cursor, **circle
            )
            ids = [signal["id"] for signal in answer["signals"]]
            assert ids == sorted(set(ids)), "ids grow"
            assert not ids or ids[0] > self.cursor, "ids grow"
            self.got += [signal["payload"] for signal in answer["signals"]]
            self.cursor = max([self.cursor, *(signal["id"] for signal in answer["signals"])])
            return len(set(self.got)) > before
        answer = machine.poll(**{"after" if self.kind == "exact" else "since": self.cursor})
        self.got += [message["msg_id"] for message in answer["messages"]]
        if self.kind == "exact":
            self.cursor = answer["cursor"]
        elif self.kind == "python":
            self.cursor = max(self.cursor, answer["server_time"])
        else:
            self.cursor = max(self.cursor, answer["server_time"] - 1)
        return len(set(self.got)) > before

    def drain(self, machine: Machine, *, quiet: int = 4) -> None:
        """Ask until several answers in a row bring nothing new."""
        silent = 0
        while silent < quiet:
            silent = 0 if self.poll(machine) else silent + 1


KINDS = ("python", "web", "exact")


def machine(stores: Stores, *, skew_s: float = 0.0, **chosen: Any) -> Machine:
    """Make a machine over shared stores; its limits are out of the way."""
    settings = Settings(
        unsigned="allow",
        address_burst=PLENTY,
        address_per_s=PLENTY,
        signals_waiting=PLENTY,
        unsigned_messages=PLENTY,
        unsigned_signals=PLENTY,
        **chosen,
    )
    return Machine(Service(settings, stores, Nobody(), lambda size: bytes(size)), skew_s=skew_s)


def write(here: Machine, *, name: str, rounds: int, pause_s: float) -> None:
    """Post batches of one to four, and say what was acknowledged."""
    chance = random.Random(name)
    for n in range(rounds):
        ids = [f"{name}-{n:05}-{part}" for part in range(chance.randint(1, 4))]
        here.post(*ids)
        print(json.dumps(ids), flush=True)
        time.sleep(chance.uniform(0, 2 * pause_s))


def signal(here: Machine, *, name: str, rounds: int, pause_s: float) -> None:
    """Leave signals for the reader, and say what was acknowledged and under which id."""
    chance = random.Random(name)
    for n in range(rounds):
        told = here.call(
            "POST",
            "/v1/signal",
            {
                "session_id": f"{name}:{READER}",
                "from_node_id": name,
                "to_node_id": READER,
                "circle_hint": HINT,
                "type": "candidate",
                "payload": f"{name}-{n:05}",
            },
        )
        print(json.dumps([f"{name}-{n:05}", told["id"]]), flush=True)
        time.sleep(chance.uniform(0, 2 * pause_s))


def read(here: Machine, *, kind: str, pause_s: float) -> None:
    """Follow a cursor until told to stop, then until it is quiet, and say what came."""
    stop = threading.Event()
    threading.Thread(target=_await_line, args=[stop], daemon=True).start()
    chance = random.Random(kind)
    reader = Reader(kind)
    while not stop.is_set():
        reader.poll(here)
        time.sleep(chance.uniform(0, 2 * pause_s))
    reader.drain(here)
    print(json.dumps({"got": reader.got, "polls": reader.polls}))


def _await_line(stop: threading.Event) -> None:
    sys.stdin.readline()
    stop.set()


def chat(here: Machine, *, name: str, kind: str) -> None:
    """Poll, post and poll again in every second that is called out, and say what came."""
    reader = Reader(kind)
    for n, line in enumerate(sys.stdin):
        if line.strip() == "stop":
            break
        at = float(line)
        here.clock = lambda at=at: at  # type: ignore[misc]
        reader.poll(here)
        here.post(f"{name}-{n:05}-before")
        reader.poll(here)
        here.post(f"{name}-{n:05}-after")
        print("done", flush=True)
    reader.drain(here)
    print(json.dumps({"got": reader.got, "polls": reader.polls}))


@contextmanager
def _opened(chosen: argparse.Namespace) -> Iterator[Stores]:
    if chosen.sqlite:
        stores = open_sqlite(chosen.sqlite)
        try:
            yield stores
        finally:
            stores.close()
    else:
        client = open_client(endpoint_url=chosen.dynalite, region="us-east-1", attempts=1)
        yield open_dynamodb(tables=TableNames(*chosen.tables), client=client)


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("task", choices=["write", "signal", "read", "chat"])
    parser.add_argument("--name", default="")
    parser.add_argument("--kind", default="")
    parser.add_argument("--rounds", type=int, default=0)
    parser.add_argument("--pause-s", type=float, default=0.0)
    parser.add_argument("--skew-s", type=float, default=0.0)
    parser.add_argument("--sqlite")
    parser.add_argument("--dynalite")
    parser.add_argument("--tables", nargs=3)
    chosen = parser.parse_args()
    with _opened(chosen) as stores:
        here = machine(stores, skew_s=chosen.skew_s)
        print("ready", flush=True)
        sys.stdin.readline()
        if chosen.task == "read":
            read(here, kind=chosen.kind, pause_s=chosen.pause_s)
        elif chosen.task == "chat":
            chat(here, name=chosen.name, kind=chosen.kind)
        else:
            task = {"write": write, "signal": signal}[chosen.task]
            task(here, name=chosen.name, rounds=chosen.rounds, pause_s=chosen.pause_s)


if __name__ == "__main__":
    main()
