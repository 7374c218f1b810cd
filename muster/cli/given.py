"""What a given backup holds: its rows and keys are taken, and nothing else of it is trusted.

A database can carry triggers, views, indexes that compute, virtual tables and pages that lie;
a tar can carry links, devices, holes and headers without end. Rows of the known tables are
read within bounds and put into a fresh file; keys are taken by name and size.
"""

from __future__ import annotations

import contextlib
import io
import re
import shutil
import sqlite3
import tarfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import quote

from chalicelib.store import Item, Stores
from chalicelib.store.sqlite import open_sqlite
from muster import whole_file
from muster.cli import output

DATABASE, KEYS = "muster.sqlite3", "keys"
MOST_KEYS, MOST_KEY_BYTES = 16, 1024 * 1024
MOST_CELL_BYTES = 4 * 1024 * 1024
"""More than the largest item that any version has stored."""

MOST_NAME_BYTES = 1024
MOST_SECONDS = 2**53
BATCH = 500

KEY_FILE = re.compile(r"[^\x00-\x1f\x7f/.][^\x00-\x1f\x7f/]{0,99}")
"""What a key's file may be called."""

_COLUMNS = ["pk", "sk", "expires_at", "body"]


class NotOurs(Exception):
    """What is given is no copy of a service's data, and why."""


def unpack(file: Path, folder: Path) -> list[str]:
    """Take the database and the keys out of a copy; return the names of the keys.

    Raises `NotOurs`, `tarfile.TarError` and `OSError`.
    """
    keys: list[str] = []
    with _Sparing(file) as opened, tarfile.open(fileobj=opened, mode="r:") as tar:
        for entry in tar:
            name = entry.name.removeprefix(f"{KEYS}/")
            # The type, not isreg(): that takes a file of holes too, which may claim any size.
            if entry.type not in (tarfile.REGTYPE, tarfile.AREGTYPE) or entry.issparse():
                raise NotOurs(f"it holds the unexpected {output.clean(entry.name)[:60]!r}")
            if entry.name == DATABASE:
                target = folder / DATABASE
            elif entry.name == f"{KEYS}/{name}" and KEY_FILE.fullmatch(name):
                keys.append(name)
                target = folder / KEYS / name
                if len(keys) > MOST_KEYS or entry.size > MOST_KEY_BYTES:
                    raise NotOurs("it holds too many or too large key files")
            else:
                raise NotOurs(f"it holds the unexpected {output.clean(entry.name)[:60]!r}")
            _extract(tar, entry, target)
    if not (folder / DATABASE).is_file():
        raise NotOurs(f"it has no {DATABASE}")
    return keys


def copy_rows(given: Path, fresh: Path) -> int:
    """Put the rows of the known tables into a fresh database; return how many there are.

    Raises `NotOurs` and `sqlite3.Error`.
    """
    count = 0
    with (
        contextlib.closing(sqlite3.connect(read_only(given, more="&immutable=1"), uri=True)) as old,
        contextlib.closing(open_sqlite(fresh)) as new,
    ):
        old.setlimit(sqlite3.SQLITE_LIMIT_LENGTH, MOST_CELL_BYTES)
        old.text_factory = bytes
        for pragma in ("trusted_schema = OFF", "cell_size_check = ON", "query_only = ON"):
            old.execute(f"PRAGMA {pragma}")
        old.execute("PRAGMA ignore_check_constraints = ON")  # they may compute for hours
        for name, store in zip(Stores._fields, new.tables, strict=True):
            for batch in _batches(old, name):
                store.put(*batch)
                count += len(batch)
    return count


def read_only(database: Path, *, more: str = "") -> str:
    """Return the URI that opens a database for reading, whatever its path is called."""
    return f"file:{quote(str(database))}?mode=ro{more}"


class _Sparing(io.BufferedReader):
    """A file that is read in pieces: nothing that it says of itself fills the memory."""

    def __init__(self, file: Path) -> None:
        super().__init__(io.FileIO(file))

    def read(self, size: int | None = -1, /) -> bytes:
        if size is None or not 0 <= size <= MOST_KEY_BYTES:
            raise tarfile.ReadError("a header in it has an impossible size")
        return super().read(size)


def _extract(tar: tarfile.TarFile, entry: tarfile.TarInfo, target: Path) -> None:
    target.parent.mkdir(mode=0o700, exist_ok=True)
    with whole_file.writing(target, new=True) as opened:
        if source := tar.extractfile(entry):
            shutil.copyfileobj(source, opened)


def _batches(old: sqlite3.Connection, name: str) -> Iterator[list[Item]]:
    _check_table(old, name)
    # NOT INDEXED: an index is part of what was given, and may say anything.
    rows = old.execute(f"SELECT pk, sk, expires_at, body FROM main.{name} NOT INDEXED")  # noqa: S608
    while found := rows.fetchmany(BATCH):
        yield [_item(row, name) for row in found]


def _check_table(old: sqlite3.Connection, name: str) -> None:
    """Check that a name is that of a plain table with our columns, whose pages are whole."""
    plain = old.execute(
        "SELECT 1 FROM main.sqlite_schema WHERE type = 'table' AND name = ? AND rootpage > 0",
        (name,),
    ).fetchall()
    columns = old.execute("SELECT name, hidden FROM pragma_table_xinfo(?)", (name,)).fetchall()
    if len(plain) != 1 or columns != [(column.encode(), 0) for column in _COLUMNS]:
        raise NotOurs(f"its database has no table {name} as ours is")
    ((verdict,),) = old.execute(f"PRAGMA main.quick_check({name})").fetchmany(1)
    if verdict != b"ok":
        raise NotOurs(f"its database is damaged: {output.line(verdict.decode(errors='replace'))}")


def _item(row: tuple[Any, ...], table: str) -> Item:
    """Return a row as our engine would have stored it."""
    pk, sk, expires_at, body = row
    try:
        names = pk.decode(), sk.decode()
    except (AttributeError, UnicodeDecodeError):
        names = ("", "")
    whole = type(expires_at) is int and -MOST_SECONDS < expires_at < MOST_SECONDS
    good = all(0 < len(name.encode()) <= MOST_NAME_BYTES for name in names) and whole
    if not good or type(body) not in (bytes, int):
        raise NotOurs(f"a row of its table {table} is none of ours")
    return Item(*names, expires_at, body)
