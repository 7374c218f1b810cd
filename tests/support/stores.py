"""The engines as tests open them: SQLite in a file, DynamoDB in moto and in dynalite.

DynamoDB is asked by botocore, and where the name says so by our own small client.
"""

import functools
import itertools
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import moto

from chalicelib.store import Stores, TableNames
from chalicelib.store.dynamodb import Meter, create_tables, open_client, open_dynamodb
from chalicelib.store.dynamodb_http import Credentials, SignedClient
from chalicelib.store.sqlite import SqliteStores, open_sqlite

if TYPE_CHECKING:
    from mypy_boto3_dynamodb import DynamoDBClient

ENGINES = ("sqlite", "moto", "dynalite", "dynalite, signed")

_numbers = itertools.count()


@contextmanager
def opened(engine: str, *, directory: Path, dynalite_url: str) -> Iterator[Stores]:
    """Open empty stores on the engine of that name."""
    if engine == "sqlite":
        with in_sqlite(directory / "muster.db") as stores:
            yield stores
    elif engine == "moto":
        with in_moto() as stores:
            yield stores
    elif engine.endswith(", signed"):
        yield signed(dynalite_url)
    else:
        yield in_dynalite(dynalite_url)


@contextmanager
def in_sqlite(path: Path) -> Iterator[SqliteStores]:
    stores = open_sqlite(path)
    try:
        yield stores
    finally:
        stores.close()


@contextmanager
def in_moto(*, meter: Meter | None = None) -> Iterator[Stores]:
    with moto.mock_aws():
        yield _created(local_client(None), meter=meter)


def in_dynalite(url: str, *, meter: Meter | None = None) -> Stores:
    return _created(local_client(url), meter=meter)


def signed(url: str, *, meter: Meter | None = None) -> Stores:
    """Open fresh tables at *url*, asked without botocore."""
    names = fresh_names()
    create_tables(local_client(url), names)
    return open_dynamodb(tables=names, client=signed_client(url), meter=meter)


@functools.cache
def signed_client(url: str, *, read_s: float = 10, attempts: int = 1) -> SignedClient:
    """Make a client of our own, as patient as `local_client`."""
    who = Credentials("testing", "testing", "testing")
    return SignedClient(url, "us-east-1", who, read_s=read_s, attempts=attempts)


@functools.cache
def local_client(url: str | None, *, read_s: float = 10, attempts: int = 1) -> "DynamoDBClient":
    """Make a client that waits longer and repeats less than the real one, so that nothing hides."""
    return open_client(endpoint_url=url, region="us-east-1", read_s=read_s, attempts=attempts)


def fresh_names() -> TableNames:
    """Name three tables as no other test of this run did."""
    stem = f"t{os.getpid()}-{next(_numbers)}"
    return TableNames(f"{stem}-presence", f"{stem}-mail", f"{stem}-guard")


def _created(client: "DynamoDBClient", *, meter: Meter | None) -> Stores:
    names = fresh_names()
    create_tables(client, names)
    return open_dynamodb(tables=names, client=client, meter=meter)
