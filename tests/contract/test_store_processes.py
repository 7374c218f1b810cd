"""What holds when several processes write at once, and when one of them is killed?"""

import json
import sqlite3
import subprocess
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, closing, contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path

import pytest

from chalicelib.store import Item, Page, Store
from chalicelib.store.dynamodb import create_tables, open_dynamodb
from tests.support.stores import fresh_names, in_sqlite, local_client
from tests.support.writer import BATCH, HEAT, NOW

ROOT = Path(__file__).parents[2]


@contextmanager
def writer(
    task: str, name: str, rounds: int, where: list[str]
) -> Iterator["subprocess.Popen[str]"]:
    command = [sys.executable, "-m", "tests.support.writer", task, *where]
    with subprocess.Popen(
        [*command, f"--name={name}", f"--rounds={rounds}"],
        cwd=ROOT,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        try:
            yield process
        finally:
            process.kill()


def start(*processes: "subprocess.Popen[str]") -> None:
    """Let them go when all are ready, so that they meet."""
    for process in processes:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
    for process in processes:
        assert process.stdin is not None
        process.stdin.write("go\n")
        process.stdin.flush()


@dataclass(frozen=True)
class Place:
    """A store that several processes use: how many rounds it bears, and how to get there."""

    rounds: int
    arguments: list[str]
    opened: Callable[[], AbstractContextManager[Store]]


@pytest.fixture(params=["sqlite", "dynalite"])
def place(request: pytest.FixtureRequest, tmp_path: Path) -> Place:
    if request.param == "sqlite":
        path = tmp_path / "muster.db"
        return Place(500, [f"--sqlite={path}"], lambda: _in_file(path))
    url, names = request.getfixturevalue("dynalite_url"), fresh_names()
    client = local_client(url)
    create_tables(client, names)
    store = open_dynamodb(tables=names, client=client).mail
    return Place(60, [f"--dynalite={url}", "--tables", *names], lambda: nullcontext(store))


@contextmanager
def _in_file(path: Path) -> Iterator[Store]:
    with in_sqlite(path) as stores:
        yield stores.mail


@pytest.mark.parametrize("there_before", [False, True], ids=["empty", "with expired items"])
def test_of_four_writers_one_wins_each_key_and_no_addition_is_lost(
    place: Place, there_before: bool
) -> None:
    rounds = place.rounds
    if there_before:
        with place.opened() as store:
            store.put(*(Item("race", f"expired {n:04}", NOW, b"old") for n in range(rounds)))
            store.add("count", "expired", 1_000_000, expires_at=NOW, now=1)
    with ExitStack() as running:
        writers = {
            name: running.enter_context(writer("race", name, rounds, place.arguments))
            for name in ("ann", "bob", "cy", "dee")
        }
        for heat in range(rounds // HEAT):
            first = heat % len(writers)
            start(*[*writers.values()][first:], *[*writers.values()][:first])
        told = {name: json.loads(process.communicate()[0]) for name, process in writers.items()}

    winners = {sk: name for name, one in told.items() for sk in one["won"]}
    assert sum(len(one["won"]) for one in told.values()) == len(winners) == 2 * rounds
    assert len(set(winners.values())) > 1, "they did not meet: this shows nothing"
    with place.opened() as store:
        kept = store.after("race", "", limit=9_999, now=NOW).items
        counters = store.after("count", "", limit=9, now=NOW).items
    assert {item.sk: item.body.decode() for item in kept} == winners
    assert {item.sk: int(item.body) for item in counters} == dict.fromkeys(
        ("expired", "fresh"), 4 * rounds
    )
    for counter in ("fresh", "expired"):
        totals = [total for one in told.values() for total in one["totals"][counter]]
        assert sorted(totals) == list(range(1, 4 * rounds + 1))


def test_what_a_killed_writer_had_acknowledged_is_there(tmp_path: Path) -> None:
    """Three processes in a row are killed in the middle of writing, beside one that goes on."""
    path = tmp_path / "muster.db"
    where = [f"--sqlite={path}"]
    acknowledged: list[str] = []
    with writer("pour", "survivor", 1_500, where) as survivor:
        start(survivor)
        for name in ("first", "second", "third"):
            with writer("pour", name, 1_000_000, where) as process:
                start(process)
                assert process.stdout is not None
                acknowledged += [sk for _ in range(300) for sk in json.loads(next(process.stdout))]
                process.kill()
                # A last line that was cut off says nothing.
                rest = [line for line in process.stdout if line.endswith("\n")]
                acknowledged += [sk for line in rest for sk in json.loads(line)]
        survived = survivor.communicate()[0].splitlines()
        acknowledged += [sk for line in survived for sk in json.loads(line)]

    assert len(survived) == 1_500
    with _in_file(path) as store:
        kept = _everything(store)
    assert set(acknowledged) <= kept.keys()
    halves = Counter(sk.rsplit(" ", 1)[0] for sk in kept)
    assert {n for batch, n in halves.items() if int(batch.split()[1]) % 2} == {BATCH}
    with closing(sqlite3.connect(path)) as connection:
        assert connection.execute("PRAGMA integrity_check").fetchone() == ("ok",)


def _everything(store: Store) -> dict[str, Item]:
    found: dict[str, Item] = {}
    page = Page((), more=True)
    while page.more:
        page = store.after("pour", max(found, default=""), limit=5_000, now=NOW)
        found.update({item.sk: item for item in page.items})
    return found
