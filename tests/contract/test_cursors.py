"""Does every reader get every acknowledged message, whoever writes at the same time?

Four writer processes post into one circle while readers, each in a process of its
own, follow the three cursors there are: `python` and `web` as the existing clients
keep theirs, and `exact`, which is ours. Every process has its own service, as
machines have, over one SQLite file or one dynalite.
"""

import itertools
import json
import random
import subprocess
import sys
import threading
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, cast

import pytest

from chalicelib.store import Store, Stores
from chalicelib.store.dynamodb import create_tables, open_dynamodb
from chalicelib.store.sqlite import open_sqlite
from tests.support.busy import KINDS, Machine, Reader, machine
from tests.support.stores import fresh_names, in_sqlite, local_client

ROOT = Path(__file__).parents[2]
WRITERS = ("ann-0001", "bob-0002", "cyd-0003", "dee-0004")
START = 1_800_000_000
Process = subprocess.Popen[str]


@dataclass(frozen=True)
class Place:
    """A store that several processes share: how to get there, and how much it bears."""

    name: str
    rounds: int
    pause_s: float
    arguments: list[str]
    opened: Callable[[], AbstractContextManager[Stores]]


@pytest.fixture(params=["sqlite", "dynalite"])
def place(request: pytest.FixtureRequest, tmp_path: Path) -> Place:
    if request.param == "sqlite":
        path = tmp_path / "muster.db"
        return Place("sqlite", 150, 0.01, [f"--sqlite={path}"], lambda: in_sqlite(path))
    url, names = request.getfixturevalue("dynalite_url"), fresh_names()
    client = local_client(url)
    create_tables(client, names)
    stores = open_dynamodb(tables=names, client=client)
    arguments = [f"--dynalite={url}", "--tables", *names]
    return Place("dynalite", 20, 0.04, arguments, lambda: nullcontext(stores))


@contextmanager
def process(task: str, place: Place, **options: Any) -> Iterator[Process]:
    """Start a process and end it by its id, whatever happens."""
    command = [sys.executable, "-m", "tests.support.busy", task, *place.arguments]
    command += [f"--{name.replace('_', '-')}={value}" for name, value in options.items()]
    with subprocess.Popen(
        command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as started:
        try:
            yield started
        finally:
            started.kill()


def say(process: Process, line: str) -> None:
    assert process.stdin is not None
    process.stdin.write(line + "\n")
    process.stdin.flush()


def hear(process: Process) -> str:
    assert process.stdout is not None
    return process.stdout.readline().strip()


def start(processes: Sequence[Process]) -> None:
    """Let them go when all are ready, so that they meet."""
    for waiting in processes:
        assert hear(waiting) == "ready"
    for waiting in processes:
        say(waiting, "go")


def run(
    place: Place, task: str, kinds: Sequence[str], *, skews: Sequence[float] = (0, 0, 0, 0)
) -> tuple[list[Any], list[list[str]]]:
    """Let four write while readers follow; return what was acknowledged, and what each got."""
    with ExitStack() as running:
        readers = [
            running.enter_context(
                process("read", place, kind=kind, pause_s=place.pause_s, skew_s=skew)
            )
            for kind, skew in zip(kinds, itertools.cycle(skews), strict=False)
        ]
        writers = [
            running.enter_context(
                process(
                    task,
                    place,
                    name=name,
                    rounds=place.rounds,
                    pause_s=place.pause_s,
                    skew_s=skew,
                )
            )
            for name, skew in zip(WRITERS, skews, strict=True)
        ]
        start([*readers, *writers])
        said = [writer.communicate()[0].splitlines() for writer in writers]
        assert [writer.returncode for writer in writers] == [0] * 4
        told = [json.loads(reader.communicate("stop\n")[0]) for reader in readers]
    assert all(one["polls"] > 10 for one in told), "the readers did not meet the writers"
    return [json.loads(line) for lines in said for line in lines], [one["got"] for one in told]


def firsts(got: Sequence[str]) -> list[str]:
    """Return what was received in the order in which it first came."""
    return list(dict.fromkeys(got))


def own(order: Sequence[str], name: str) -> list[str]:
    return [one for one in order if one.startswith(name)]


@pytest.mark.parametrize(
    "skews", [(0, 0, 0, 0), (-4, 0, 2.5, 5)], ids=["clocks agree", "clocks differ by 9 s"]
)
def test_no_reader_loses_a_message_of_four_writer_processes(
    place: Place, skews: Sequence[float]
) -> None:
    kinds = ("python", "web", "exact", "exact")
    acknowledged, got = run(place, "write", kinds, skews=skews)
    sent = [msg_id for batch in acknowledged for msg_id in batch]

    order = got[kinds.index("exact")]
    assert Counter(order) == Counter(sent), "the exact cursor gives each message once"
    for kind, one in zip(kinds, got, strict=True):
        assert set(one) == set(sent), f"{kind} lost {set(sent) - set(one)}"
        assert firsts(one) == order, f"{kind} saw another order"
    for name in WRITERS:
        assert own(order, name) == sorted(own(order, name)), "a writer's own order is kept"


@pytest.mark.parametrize(
    "skews", [(0, 0, 0, 0), (-4, 0, 2.5, 5)], ids=["clocks agree", "clocks differ by 9 s"]
)
def test_no_reader_loses_a_signal_of_four_writer_processes(
    place: Place, skews: Sequence[float]
) -> None:
    kinds = ["signals", "signals", "signals of all circles", "signals of all circles"]
    acknowledged, got = run(place, "signal", kinds, skews=skews)
    numbers = dict(acknowledged)

    for kind, one in zip(kinds, got, strict=True):
        assert sorted(one) == sorted(numbers), "each signal reaches each poller, once"
        if kind == "signals":
            ids = [numbers[payload] for payload in one]
            assert ids == sorted(set(ids)), "in the order of the ids that were acknowledged"
    assert got[0] == got[1]
    assert got[2] == got[3]
    assert max(numbers.values()) < 2**53


@pytest.mark.parametrize("kinds", [("python", "python"), ("python", "web"), ("exact", "web")])
def test_two_clients_that_poll_in_phase_lose_nothing(place: Place, kinds: tuple[str, str]) -> None:
    """Started together they poll and post in the same second, every 8 s, in two processes."""
    cycles = 20 if place.name == "sqlite" else 8
    with ExitStack() as running:
        clients = [
            running.enter_context(process("chat", place, name=name, kind=kind))
            for name, kind in zip(WRITERS, kinds, strict=False)
        ]
        start(clients)
        for n in range(cycles):
            for client in clients:
                say(client, str(START + 8 * n + 0.5))
            assert [hear(client) for client in clients] == ["done", "done"]
        told = [json.loads(client.communicate("stop\n")[0])["got"] for client in clients]

    sent = {
        f"{name}-{n:05}-{part}"
        for name in WRITERS[:2]
        for n in range(cycles)
        for part in ("before", "after")
    }
    assert [set(got) for got in told] == [sent, sent]


@pytest.fixture
def machines(place: Place) -> Iterator[tuple[Machine, Machine]]:
    """Two machines over one store, with a clock that the test sets."""
    with place.opened() as stores:
        yield machine(stores), machine(stores)


def at(second: float, *machines: Machine) -> None:
    for one in machines:
        one.clock = lambda: second


@pytest.mark.parametrize("kinds", list(itertools.product(KINDS, repeat=2)))
@pytest.mark.parametrize("order", ["pPqQ", "PpQq", "pqPQ", "PQpq", "PpqPQq", "pqPQpqPQpq"])
def test_no_order_of_polls_and_posts_in_one_second_loses_anything(
    kinds: tuple[str, str], order: str
) -> None:
    """Two clients, p and q, poll (small letters) and post (capitals) on two machines."""
    stores = open_sqlite(":memory:")
    machines = machine(stores), machine(stores)
    sent = []
    readers = [Reader(kind) for kind in kinds]
    for cycle in range(3):
        at(START + 8 * cycle, *machines)
        for n, step in enumerate(order):
            who = "pq".index(step.lower())
            if step.islower():
                readers[who].poll(machines[who])
            else:
                sent.append(f"{step}-{cycle}-{n:05}")
                machines[who].post(sent[-1])
    at(START + 24, *machines)
    for reader, here in zip(readers, machines, strict=True):
        reader.drain(here)
    stores.close()
    for reader in readers:
        assert firsts(reader.got) == sent
        assert reader.kind != "exact" or reader.got == sent


@dataclass(frozen=True)
class Backlog:
    """How many messages were written in which seconds before anybody read."""

    name: str
    seconds: tuple[int, ...]


BACKLOGS = (
    Backlog("in one second", (1_000,)),
    Backlog("in two seconds", (999, 1)),
    Backlog("mostly in the second second", (1, 999)),
    Backlog("over ten seconds", (100,) * 10),
    Backlog("over 40 seconds", (25,) * 40),
    Backlog("exactly a page a second", (200,) * 5),
    Backlog("more than a second may hold", (1_500,)),
)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("backlog", BACKLOGS, ids=lambda backlog: backlog.name)
def test_a_reader_that_joins_a_backlog_gets_all_of_it(
    machines: tuple[Machine, Machine], kind: str, backlog: Backlog
) -> None:
    writer, other = machines
    sent = fill(writer, backlog)
    reader = Reader(kind)
    for _ in range(3):  # it reads, and the others go on writing
        reader.poll(other)
        sent.append(f"late-{len(sent):05}")
        writer.post(sent[-1])
    reader.drain(other)

    assert firsts(reader.got) == sent
    assert kind != "exact" or reader.got == sent
    assert reader.polls < 60, "it takes a bounded number of polls"


def fill(writer: Machine, backlog: Backlog) -> list[str]:
    """Write the backlog, 50 messages at a time, and leave the clock in its last second."""
    sent: list[str] = []
    for second, count in enumerate(backlog.seconds):
        at(START + second, writer)
        ids = [f"message-{len(sent) + n:05}" for n in range(count)]
        for batch in chunks(ids):
            writer.post(*batch)
        sent += ids
    return sent


def chunks(ids: Sequence[str]) -> Iterator[Sequence[str]]:
    return (ids[n : n + 50] for n in range(0, len(ids), 50))


class Turns:
    """Lets threads take store steps one at a time, in an order that a seed decides."""

    def __init__(self, seed: int) -> None:
        self._chance = random.Random(seed)
        self._parked = threading.Semaphore(0)
        self._waiting: list[threading.Semaphore] = []

    def run(self, *tasks: Callable[[], object]) -> None:
        """Run the tasks to their ends; at each of their steps any of them may go on."""
        threads = [threading.Thread(target=self._task, args=[task]) for task in tasks]
        for thread in threads:
            thread.start()
            self._parked.acquire()
        while self._waiting:
            self._waiting.pop(self._chance.randrange(len(self._waiting))).release()
            self._parked.acquire()
        for thread in threads:
            thread.join()

    def step(self) -> None:
        """Wait for the next turn."""
        mine = threading.Semaphore(0)
        self._waiting.append(mine)
        self._parked.release()
        mine.acquire()

    def _task(self, task: Callable[[], object]) -> None:
        self.step()
        try:
            task()
        finally:
            self._parked.release()


class Stepped:
    """A store whose every verb waits for its turn."""

    def __init__(self, store: Store, turns: Turns) -> None:
        self._store, self._turns = store, turns

    def __getattr__(self, name: str) -> Any:
        verb = getattr(self._store, name)

        def step(*args: Any, **options: Any) -> Any:
            self._turns.step()
            return verb(*args, **options)

        return step


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("skew_s", [0.003, 5.0], ids=["3 ms", "5 s"])
def test_whatever_the_order_of_steps_the_first_messages_of_a_circle_are_read(
    kind: str, skew_s: float
) -> None:
    """Two machines, their clocks apart, find the mailbox empty; a third reads all the while."""
    for seed in range(150):
        turns, stores = Turns(seed), open_sqlite(":memory:")
        stepped = Stores(*(cast(Store, Stepped(store, turns)) for store in stores))
        ann, bob, cyd = (machine(stepped, skew_s=skew) for skew in (skew_s, 0, 0))
        at(START, ann, bob, cyd)
        reader = Reader(kind)
        turns.run(
            partial(post_each, ann, ["ann-0001", "ann-0002"]),
            partial(post_each, bob, [f"bob-{n:04}" for n in range(8)]),
            partial(poll_often, reader, cyd),
        )
        late = machine(stores)
        at(START + 1, late)
        reader.drain(late)
        stores.close()

        sent = {"ann-0001", "ann-0002", *(f"bob-{n:04}" for n in range(8))}
        assert set(reader.got) == sent, f"seed {seed}"
        assert kind != "exact" or len(reader.got) == len(sent), f"seed {seed}"


def post_each(here: Machine, msg_ids: Sequence[str]) -> None:
    for msg_id in msg_ids:
        here.post(msg_id)


def poll_often(reader: Reader, here: Machine) -> None:
    for _ in range(12):
        reader.poll(here)


def test_a_backlog_of_four_writer_processes_is_read_whole(place: Place) -> None:
    acknowledged, _ = run(place, "write", ["exact"])
    sent = {msg_id for batch in acknowledged for msg_id in batch}
    with place.opened() as stores:
        here = machine(stores)
        for kind in KINDS:
            reader = Reader(kind)
            reader.drain(here)
            assert set(reader.got) == sent
