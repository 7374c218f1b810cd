"""One of several processes that write to the same store: `python -m tests.support.writer`.

It says `ready`, waits for a line, works, and says in JSON lines what it was told. In a race
it does so again every few rounds, so that the writers meet whoever of them is faster.
"""

import argparse
import json
import sys

from chalicelib.store import Item, Store, TableNames
from chalicelib.store.dynamodb import open_dynamodb
from chalicelib.store.sqlite import open_sqlite
from tests.support.stores import local_client

NOW = 20
UNTIL = 1_000
BATCH = 5
HEAT = 10


def race(store: Store, *, name: str, rounds: int) -> None:
    """Take the same keys and add to the same counters as everybody else."""
    won: list[str] = []
    totals: dict[str, list[int]] = {"fresh": [], "expired": []}
    for n in range(rounds):
        if n % HEAT == 0:
            _await_start()
        for sk in (f"fresh {n:04}", f"expired {n:04}"):
            if store.put_new(Item("race", sk, UNTIL, name.encode()), now=NOW):
                won.append(sk)
        for sk, seen in totals.items():
            seen.append(store.add("count", sk, 1, expires_at=UNTIL, now=NOW))
    print(json.dumps({"won": won, "totals": totals}))


def pour(store: Store, *, name: str, rounds: int) -> None:
    """Put items, by one and by five, and say of each put that it was acknowledged."""
    _await_start()
    for n in range(rounds):
        sks = [f"{name} {n:06} {part}" for part in range(BATCH if n % 2 else 1)]
        store.put(*(Item("pour", sk, UNTIL, b"x" * 700) for sk in sks))
        print(json.dumps(sks), flush=True)


def _await_start() -> None:
    print("ready", flush=True)
    sys.stdin.readline()


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("task", choices=["race", "pour"])
    parser.add_argument("--name", required=True)
    parser.add_argument("--rounds", type=int, required=True)
    parser.add_argument("--sqlite")
    parser.add_argument("--dynalite")
    parser.add_argument("--tables", nargs=3)
    chosen = parser.parse_args()
    store = (
        open_sqlite(chosen.sqlite).mail
        if chosen.sqlite
        else open_dynamodb(
            tables=TableNames(*chosen.tables), client=local_client(chosen.dynalite)
        ).mail
    )
    {"race": race, "pour": pour}[chosen.task](store, name=chosen.name, rounds=chosen.rounds)


if __name__ == "__main__":
    main()
