"""The three tables in one SQLite file, which several processes may share.

WAL with synchronous=NORMAL: what was acknowledged survives `kill -9` of any process;
after a power cut the last moments may be missing, but the file is whole.
"""

from __future__ import annotations

import itertools
import shutil
import sqlite3
import time
from collections import deque
from collections.abc import Collection, Iterator
from contextlib import AbstractContextManager, contextmanager, suppress
from pathlib import Path
from typing import Any, NamedTuple

from chalicelib.store import (
    STAMP_BYTES,
    Full,
    Item,
    Page,
    Room,
    Stores,
    Unavailable,
    cut,
    stamp,
)

__all__ = ["Count", "SqliteStore", "SqliteStores", "open_sqlite"]

_memories = itertools.count()

_TABLE = """CREATE TABLE IF NOT EXISTS items (
    pk TEXT NOT NULL, sk TEXT NOT NULL, expires_at INTEGER NOT NULL, body BLOB NOT NULL,
    PRIMARY KEY (pk, sk)) WITHOUT ROWID"""
_PUT = "INSERT OR REPLACE INTO items VALUES (?, ?, ?, ?)"
_PUT_NEW = """INSERT INTO items VALUES (?, ?, ?, ?)
    ON CONFLICT DO UPDATE SET expires_at = excluded.expires_at, body = excluded.body
    WHERE expires_at <= ? RETURNING 1"""
# Blobs compare byte by byte, so a body that begins with a stamp is below every later stamp.
_PUT_LATER = """INSERT INTO items VALUES (?1, ?2, ?3, ?4)
    ON CONFLICT DO UPDATE SET expires_at = excluded.expires_at, body = excluded.body
    WHERE expires_at <= ?5 OR body < ?6 RETURNING 1"""
# A counter's body is an INTEGER; the cast reads it as its decimal digits, and leaves blobs alone.
_SELECT = "SELECT pk, sk, expires_at, CAST(body AS BLOB) FROM items WHERE pk = ? AND expires_at > ?"
_GET = f"{_SELECT} AND sk = ?"
_NEWEST = f"{_SELECT} ORDER BY sk DESC LIMIT ?"
_AFTER = f"{_SELECT} AND sk > ? ORDER BY sk LIMIT ?"
_KNOWN = "SELECT sk FROM items WHERE pk = ? AND expires_at > ? AND sk IN ({})"
_DELETE = """DELETE FROM items WHERE pk = ?1 AND sk = ?2 AND (?3 IS NULL OR body = ?3)
    RETURNING expires_at"""
_ADD = """INSERT INTO items VALUES (?1, ?2, ?4, ?3)
    ON CONFLICT DO UPDATE SET expires_at = excluded.expires_at, body = excluded.body
        + iif(expires_at > ?5 AND typeof(body) = 'integer', body, 0)
    RETURNING body"""
_SLICE_END = """SELECT pk, sk FROM items WHERE (pk, sk) > (?, ?)
    ORDER BY pk, sk LIMIT 1 OFFSET ?"""
_PURGE = """DELETE FROM items WHERE (pk, sk) > (?, ?) AND (pk, sk) <= (?, ?)
    AND expires_at <= ? RETURNING 1"""
_PURGE_REST = "DELETE FROM items WHERE (pk, sk) > (?, ?) AND expires_at <= ? RETURNING 1"
_CENSUS = """SELECT kind, count(*), sum(items_of_pk) FROM (
        SELECT substr(pk, 1, instr(pk || '#', '#') - 1) AS kind, count(*) AS items_of_pk
        FROM items WHERE expires_at > ? GROUP BY pk)
    GROUP BY kind"""

_CHUNK = 500

# A checkpoint waits for the disk, and the writer that commits one page too many runs it: the
# owner's `checkpoint` comes before that, in a thread of its own.
_WAL_PAGES = 20_000

_WAL_SHARE = 16
"""On a small disk the log may take this part of it."""

_LARGEST_BYTES = 2 * 1024 * 1024
"""What one transaction may add to the log when that is as long as it may get."""

_PAGE_BYTES = 4096
_FULL = {sqlite3.SQLITE_FULL, sqlite3.SQLITE_IOERR_WRITE, sqlite3.SQLITE_IOERR_SHMSIZE}
_REFUSED_S = 5.0
"""How long a write that found no room is remembered, so that few try in vain."""


class Count(NamedTuple):
    """How many partition keys of one kind there are, and live items under them."""

    keys: int
    items: int


class _Lent:
    """A connection for a block. No generator, as every call has several."""

    __slots__ = ("_connection", "_database", "_hurry")

    def __init__(self, database: _Database) -> None:
        self._database = database
        self._hurry: AbstractContextManager[None] | None = None

    def __enter__(self) -> sqlite3.Connection:
        database = self._database
        try:
            connection = self._connection = database.take()
        except sqlite3.OperationalError as error:
            raise database.unavailable(error) from error
        if database.locked:
            self._hurry = database.hurry(connection)
            self._hurry.__enter__()
        return connection

    def __exit__(self, kind: Any, error: BaseException | None, trace: Any) -> None:
        database = self._database
        try:
            if self._hurry is not None:
                self._hurry.__exit__(kind, error, trace)
        finally:
            database.idle.append(self._connection)
        if isinstance(error, sqlite3.OperationalError):
            raise database.unavailable(error) from error


class _Database:
    """One file and its idle connections: each is used by one thread at a time."""

    def __init__(self, path: str | Path, *, busy_s: float, most_bytes: int) -> None:
        memory = str(path) == ":memory:"
        self.file = None if memory else Path(path)
        self.most_bytes = most_bytes
        self._uri = memory
        self._path = f"file:/muster-{next(_memories)}?vfs=memdb" if memory else str(path)
        self._busy_s = busy_s
        self.locked = False
        self._refused_until = 0.0
        self.idle: deque[sqlite3.Connection] = deque()
        with self.connection() as connection:
            _use_wal(connection)

    def _connect(self) -> sqlite3.Connection:
        connection = sqlite3.connect(
            self._path,
            uri=self._uri,
            timeout=self._busy_s,
            isolation_level=None,
            check_same_thread=False,
        )
        connection.execute("PRAGMA synchronous = NORMAL")
        connection.execute(f"PRAGMA wal_autocheckpoint = {self._wal_pages()}")
        connection.execute(f"PRAGMA journal_size_limit = {self._wal_pages() * _PAGE_BYTES}")
        return connection

    def _wal_pages(self) -> int:
        most = self.most_bytes
        if self.file is not None:
            with suppress(OSError):
                most = min(most, shutil.disk_usage(self.file.parent).total)
        return max(16, min(_WAL_PAGES, most // _PAGE_BYTES // _WAL_SHARE))

    def connection(self) -> _Lent:
        """Lend a connection for a block; what goes wrong leaves it as `Unavailable`."""
        return _Lent(self)

    def take(self) -> sqlite3.Connection:
        """Take an idle connection or make one; it belongs in `idle` again."""
        try:
            return self.idle.pop()
        except IndexError:
            return self._connect()

    @contextmanager
    def hurry(self, connection: sqlite3.Connection) -> Iterator[None]:
        """After one has waited in vain for another process, nobody waits until one has written."""
        before = connection.total_changes
        connection.execute("PRAGMA busy_timeout = 0")
        try:
            yield
            if connection.total_changes != before:
                self.locked = False
        finally:
            connection.execute(f"PRAGMA busy_timeout = {int(self._busy_s * 1000)}")

    def unavailable(self, error: sqlite3.OperationalError) -> Unavailable:
        code = getattr(error, "sqlite_errorcode", 0)
        if code & 0xFF == sqlite3.SQLITE_BUSY:
            self.locked = True
        if code not in _FULL:
            return Unavailable(str(error))
        self._refused_until = time.monotonic() + _REFUSED_S
        return Full(str(error))

    def room(self) -> Room:
        """Say how much of the disk is used and may be; the engine's own figures, nothing is read.

        Free pages inside the file are room, and what is free on the disk, if there is no more
        than that; room for the log and for one large transaction in it is taken off first.
        What is still in the log alone has its place in the file taken off by that, too.
        """
        with self.connection() as connection:
            pages, free, size, most_pages = (
                connection.execute(f"PRAGMA {name}").fetchone()[0]
                for name in ("page_count", "freelist_count", "page_size", "max_page_count")
            )
        log, most = 0, self.most_bytes
        if self.file is not None:
            with suppress(OSError):
                log = self.file.with_name(self.file.name + "-wal").stat().st_size
            with suppress(OSError):
                held = self.file.stat().st_size + log
                most = min(most, held + shutil.disk_usage(self.file.parent).free)
            most -= max(log, self._wal_pages() * _PAGE_BYTES) + min(_LARGEST_BYTES, most // 16)
        most = min(most, most_pages * size)
        return Room((pages - free) * size, max(1, most), time.monotonic() < self._refused_until)

    def run(self, sql: str, *values: object) -> list[Any]:
        with self.connection() as connection:
            return connection.execute(sql, values).fetchall()

    def close(self) -> None:
        while self.idle:
            self.idle.pop().close()


def _use_wal(connection: sqlite3.Connection) -> None:
    """Switch the file to WAL; where processes meet in this step SQLite refuses without waiting."""
    for _ in range(100):
        with suppress(sqlite3.OperationalError):
            connection.execute("PRAGMA journal_mode = WAL")
            return
        time.sleep(0.01)
    connection.execute("PRAGMA journal_mode = WAL")


class SqliteStore:
    """One table of the file; its verbs are those of `Store`."""

    def __init__(self, database: _Database, table: str) -> None:
        def sql(text: str) -> str:
            return text.replace("items ", f"{table} ")

        self._database = database
        self._run = database.run
        self._hand = ("", "")
        self._put, self._put_new, self._get = sql(_PUT), sql(_PUT_NEW), sql(_GET)
        self._put_later = sql(_PUT_LATER)
        self._newest, self._after, self._known = sql(_NEWEST), sql(_AFTER), sql(_KNOWN)
        self._delete, self._add = sql(_DELETE), sql(_ADD)
        self._slice_end, self._purge, self._purge_rest = (
            sql(_SLICE_END),
            sql(_PURGE),
            sql(_PURGE_REST),
        )
        self._census = sql(_CENSUS)
        self._run(sql(_TABLE))

    def put(self, *items: Item) -> None:
        if len(items) == 1:
            self._run(self._put, *items[0])
        elif items:
            with self._database.connection() as connection:
                connection.execute("BEGIN IMMEDIATE")
                try:
                    connection.executemany(self._put, items)
                    connection.execute("COMMIT")
                except BaseException:
                    connection.rollback()
                    raise

    def put_new(self, item: Item, *, now: int) -> bool:
        return bool(self._run(self._put_new, *item, now))

    def put_later(self, item: Item, *, now: int) -> int | None:
        if self._run(self._put_later, *item, now, item.body[:STAMP_BYTES]):
            return None
        kept = self.get(item.pk, item.sk, now=now)
        return stamp(kept)[0] if kept else stamp(item)[0]

    def get(self, pk: str, sk: str, *, now: int) -> Item | None:
        return next(map(Item._make, self._run(self._get, pk, now, sk)), None)

    def known(self, pk: str, sks: Collection[str], *, now: int) -> set[str]:
        found: set[str] = set()
        rest = iter(set(sks))
        while chunk := tuple(itertools.islice(rest, _CHUNK)):
            sql = self._known.format(",".join("?" * len(chunk)))
            found.update(sk for (sk,) in self._run(sql, pk, now, *chunk))
        return found

    def newest(self, pk: str, *, limit: int, now: int) -> Page:
        return self._page(limit, self._newest, pk, now, limit + 1)

    def after(self, pk: str, sk: str, *, limit: int, now: int) -> Page:
        return self._page(limit, self._after, pk, now, sk, limit + 1)

    def delete(self, pk: str, sk: str, *, now: int, body: bytes | None = None) -> bool:
        return any(expires_at > now for (expires_at,) in self._run(self._delete, pk, sk, body))

    def add(self, pk: str, sk: str, amount: int, *, expires_at: int, now: int) -> int:
        ((total,),) = self._run(self._add, pk, sk, amount, expires_at, now)
        return int(total)

    def purge(self, now: int, *, slice_items: int = 1_000) -> int:
        """Look at the next so many items, remove the expired; say how many went.

        Goes round the table, call after call: an index that would find them at
        once would cost every write more than this costs.
        """
        ends = self._run(self._slice_end, *self._hand, slice_items - 1)
        if ends:
            gone = self._run(self._purge, *self._hand, *ends[0], now)
        else:
            gone = self._run(self._purge_rest, *self._hand, now)
        self._hand = ends[0] if ends else ("", "")
        return len(gone)

    def census(self, now: int) -> dict[str, Count]:
        """Count what is live by kind, the part of the partition key before its first `#`."""
        return {kind: Count(keys, items) for kind, keys, items in self._run(self._census, now)}

    def _page(self, limit: int, sql: str, *values: object) -> Page:
        with self._database.connection() as connection:
            cursor = connection.execute(sql, values)
            try:
                return cut(map(Item._make, cursor), limit)
            finally:
                cursor.close()


class SqliteStores(Stores):
    """The stores of one file, with what only its owner does."""

    tables: tuple[SqliteStore, ...]
    database: _Database

    def purge(self, now: int, *, slice_items: int = 1_000) -> int:
        """Remove expired items from the next slice of each table."""
        return sum(table.purge(now, slice_items=slice_items) for table in self.tables)

    def room(self) -> Room:
        """Say how full the store is; cheap, but not for every call."""
        return self.database.room()

    def census(self, now: int) -> dict[str, dict[str, Count]]:
        """Count what is live in each table; reads all of them, so not for every call."""
        return {
            name: table.census(now) for name, table in zip(self._fields, self.tables, strict=True)
        }

    def checkpoint(self) -> None:
        """Fold the write-ahead log into the file; waits for the disk, and nobody waits for it."""
        self.database.run("PRAGMA wal_checkpoint(PASSIVE)")

    def close(self) -> None:
        """Close the file, which folds the write-ahead log into it."""
        self.database.close()


def open_sqlite(path: str | Path, *, busy_s: float = 5.0, most_bytes: int = 2**40) -> SqliteStores:
    """Open or make the file at *path*; `:memory:` keeps it nowhere.

    A writer waits up to *busy_s* for another process before it is `Unavailable`; those
    after it do not wait, until one has written again. Of the file's size only `room`
    tells: whoever writes decides what *most_bytes* mean to it.
    """
    database = _Database(path, busy_s=busy_s, most_bytes=most_bytes)
    tables = tuple(SqliteStore(database, name) for name in Stores._fields)
    stores = SqliteStores(*tables)
    stores.tables, stores.database = tables, database
    return stores
