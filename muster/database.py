"""SQLite files that this program keeps: how they are opened, and written whole or not at all."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path


def opened(
    path: Path | None, *, synchronous: str = "FULL", searchable: bool = False
) -> sqlite3.Connection:
    """Open a file, or memory; raises `sqlite3.DatabaseError`.

    A *searchable* one has an index of words that triggers keep, which SQLite calls trust.
    """
    database = sqlite3.connect(
        path or ":memory:", timeout=10, isolation_level=None, check_same_thread=False
    )
    try:
        for pragma in (
            "journal_mode = WAL",
            f"synchronous = {synchronous}",
            "secure_delete = ON",  # what was deleted is not to be read in the file
            f"trusted_schema = {'ON' if searchable else 'OFF'}",
        ):
            database.execute(f"PRAGMA {pragma}")
    except sqlite3.DatabaseError:
        database.close()
        raise
    return database


def run(database: sqlite3.Connection, script: str) -> None:
    """Do several statements, as a part of the transaction that is open."""
    statement = ""
    for line in script.splitlines():
        statement += line + "\n"
        if sqlite3.complete_statement(statement):
            database.execute(statement)
            statement = ""


@contextmanager
def writing(database: sqlite3.Connection) -> Iterator[None]:
    """Write everything inside, or nothing; inside another one, as part of that."""
    if database.in_transaction:
        yield
        return
    database.execute("BEGIN IMMEDIATE")
    try:
        yield
        database.execute("COMMIT")
    except BaseException:
        with suppress(sqlite3.OperationalError):  # a commit that failed may have ended it
            database.execute("ROLLBACK")
        raise
