"""What the DynamoDB engine asks of DynamoDB: which requests, and how many units they cost."""

import subprocess
import sys
from collections.abc import Callable
from typing import Any

import pytest

from chalicelib.store import Item, Store, Stores, stamped
from chalicelib.store.dynamodb import create_tables, open_client, open_dynamodb
from tests.support.stores import fresh_names, in_dynalite, in_moto, signed

SMALL = Item("circle#c", "node#n", 100, b"x" * 400)


def test_botocore_is_not_imported_before_it_is_needed() -> None:
    code = "import sys, chalicelib.store.dynamodb; sys.exit('botocore' in sys.modules)"

    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_nothing_is_scanned_and_every_read_is_consistent(dynalite_url: str) -> None:
    asked: list[tuple[str, dict[str, Any]]] = []
    client = open_client(endpoint_url=dynalite_url, region="us-east-1")
    names = fresh_names()
    create_tables(client, names)
    client.meta.events.register(
        "provide-client-params.dynamodb",
        lambda params, model, **_: asked.append((model.name, params)),
    )
    store = open_dynamodb(tables=names, client=client).mail
    store.put(SMALL)
    store.put(SMALL, SMALL._replace(sk="other"))
    store.put_new(SMALL, now=1)
    store.get("circle#c", "node#n", now=1)
    store.known("circle#c", ["node#n"], now=1)
    store.newest("circle#c", limit=1, now=1)
    store.after("circle#c", "node", limit=1, now=1)
    store.delete("circle#c", "node#n", now=1, body=b"")
    store.delete("circle#c", "node#n", now=1)
    store.add("count", "c", 1, expires_at=10, now=1)

    assert [name for name, _ in asked] == [
        *("PutItem", "BatchWriteItem", "PutItem", "GetItem", "BatchGetItem"),
        *("Query", "Query", "DeleteItem", "DeleteItem", "UpdateItem"),
    ]
    reads = [params for name, params in asked if name in ("GetItem", "Query")]
    reads += [batch for _, params in asked for batch in params.get("RequestItems", {}).values()][1:]
    assert [read["ConsistentRead"] for read in reads] == [True] * 4
    assert not any("IndexName" in params for _, params in asked)


def setup(store: Store) -> None:
    """Ten members of a circle, a seat, and a counter that expired."""
    store.put(*(SMALL._replace(sk=f"node#{n}") for n in range(10)))
    store.put(Item("seat", "n", 100, b"mine"))
    store.put_later(stamped(Item("stamped", "n", 100), 5), now=1)
    store.add("count", "old", 1, expires_at=10, now=1)


UNITS: dict[str, tuple[float, Callable[[Store], object]]] = {
    "put": (1, lambda store: store.put(SMALL)),
    "put of 1 KB": (2, lambda store: store.put(SMALL._replace(body=b"x" * 1_024))),
    "put of ten": (10, lambda store: store.put(*(SMALL._replace(sk=f"{n}") for n in range(10)))),
    "put_new": (1, lambda store: store.put_new(Item("nonce", "n", 100), now=1)),
    "put_new that is refused": (1, lambda store: store.put_new(Item("seat", "n", 100), now=1)),
    "put_later": (1, lambda store: store.put_later(stamped(Item("node", "n", 100), 5), now=1)),
    "put_later that is refused": (
        2,
        lambda store: store.put_later(stamped(Item("stamped", "n", 100), 5), now=1),
    ),
    "get": (1, lambda store: store.get("circle#c", "node#1", now=1)),
    "get of nothing": (1, lambda store: store.get("circle#c", "nobody", now=1)),
    "known of ten": (
        10,
        lambda store: store.known("circle#c", [f"m{n}" for n in range(10)], now=1),
    ),
    "newest of ten members": (2, lambda store: store.newest("circle#c", limit=50, now=1)),
    "after with one new": (1, lambda store: store.after("circle#c", "node#8", limit=50, now=1)),
    "delete": (1, lambda store: store.delete("circle#c", "node#1", now=1)),
    "delete of its own": (1, lambda store: store.delete("seat", "n", now=1, body=b"mine")),
    "delete of another's": (1, lambda store: store.delete("seat", "n", now=1, body=b"yours")),
    "add": (1, lambda store: store.add("count", "new", 1, expires_at=100, now=20)),
    "add to an expired counter": (
        2,
        lambda store: store.add("count", "old", 1, expires_at=100, now=20),
    ),
}


@pytest.mark.parametrize("create", [in_dynalite, signed])
@pytest.mark.parametrize("name", UNITS)
def test_a_verb_costs_so_many_units(
    name: str, create: Callable[..., Stores], dynalite_url: str
) -> None:
    expected, verb = UNITS[name]
    used: list[tuple[str, float]] = []
    store = create(dynalite_url, meter=lambda verb, units: used.append((verb, units))).mail
    setup(store)
    used.clear()
    verb(store)

    told = {"get"} if name == "put_later that is refused" else set()  # which stamp stands there
    assert {verb for verb, _ in used} == {name.split()[0]} | told
    assert sum(units for _, units in used) == expected


def test_what_expired_is_passed_in_growing_steps(dynalite_url: str) -> None:
    used: list[str] = []
    store = in_dynalite(dynalite_url, meter=lambda verb, _: used.append(verb)).mail
    store.put(*(Item("circle#c", f"{n:04}", 5) for n in range(500)), Item("circle#c", "z", 10))
    used.clear()

    assert store.after("circle#c", "", limit=1, now=5).items == (Item("circle#c", "z", 10),)
    assert len(used) == 8  # 2 + 4 + ... + 256


def test_moto_is_metered_as_well() -> None:
    used: list[tuple[str, float]] = []
    with in_moto(meter=lambda verb, units: used.append((verb, units))) as stores:
        stores.mail.put(SMALL)
        stores.mail.put(SMALL, SMALL._replace(sk="other"))

    assert [verb for verb, _ in used] == ["put", "put"]
