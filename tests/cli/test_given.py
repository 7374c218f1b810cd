# ruff: noqa: S608 - statements of our own
"""`muster restore` and a file that somebody made: rows and keys are taken, and nothing else."""

from __future__ import annotations

import contextlib
import io
import sqlite3
import tarfile
import time
from pathlib import Path
from typing import Any

import pytest

from chalicelib.store import Item, Stores
from chalicelib.store.sqlite import open_sqlite
from muster.cli import copies, given
from tests.cli.terminal import Terminal

LATER = int(time.time()) + 3600
ROW = Item("circle#0123456789abcdef", "ann-00001", LATER, b"{}")


class Given:
    """A database as a service makes it, to be tampered with, and the service it is given to."""

    def __init__(self, folder: Path) -> None:
        self.database = folder / "made.sqlite3"
        self.file = folder / "given.tar"
        self.data = folder / "data"
        self.terminal = Terminal(folder / "home")
        with contextlib.closing(open_sqlite(self.database)) as stores:
            stores.presence.put(ROW)
            stores.guard.add("count", "er", 7, expires_at=LATER, now=1)
        self.sql("PRAGMA journal_mode = DELETE")
        self.data.mkdir(mode=0o700)
        (self.data / "keys").mkdir(mode=0o700)
        with contextlib.closing(open_sqlite(self.data / copies.DATABASE)) as stores:
            stores.presence.put(ROW._replace(sk="before-01"))
        self.before = self.held()

    def sql(self, *statements: str) -> None:
        with contextlib.closing(sqlite3.connect(self.database)) as opened:
            opened.execute("PRAGMA writable_schema = ON")
            for statement in statements:
                opened.execute(statement)
            opened.commit()

    def pack(self, *more: tarfile.TarInfo | tuple[tarfile.TarInfo, bytes]) -> None:
        entry = tarfile.TarInfo(copies.DATABASE)
        content = self.database.read_bytes()
        entry.size = len(content)
        with tarfile.open(self.file, "w") as tar:
            tar.addfile(entry, io.BytesIO(content))
            for one in more:
                named, body = one if isinstance(one, tuple) else (one, b"")
                tar.addfile(named, io.BytesIO(body))

    def restore(self) -> None:
        words = ("restore", str(self.file), "--data", str(self.data), "--yes")
        self.terminal.run(*words)

    def refused(self) -> str:
        """Try to restore; nothing may have changed."""
        words = ("restore", str(self.file), "--data", str(self.data), "--yes")
        line = self.terminal.fails(*words)
        assert self.held() == self.before
        assert not list(self.data.glob(".new-*"))
        assert not list((self.data / "keys").iterdir())
        return line

    def held(self) -> list[tuple[Any, ...]]:
        """What is in the service's database, schema and rows."""
        with contextlib.closing(sqlite3.connect(self.data / copies.DATABASE)) as opened:
            found = opened.execute("SELECT type, name, sql FROM sqlite_schema").fetchall()
            for name in Stores._fields:
                found += opened.execute(f"SELECT pk, sk, expires_at, body FROM {name}").fetchall()
            return found


@pytest.fixture
def handed(tmp_path: Path) -> Given:
    return Given(tmp_path)


def file(name: str, body: bytes) -> tuple[tarfile.TarInfo, bytes]:
    entry = tarfile.TarInfo(name)
    entry.size = len(body)
    return entry, body


def test_rows_come_back_and_nothing_that_was_put_beside_them(handed: Given) -> None:
    handed.sql(
        "CREATE TRIGGER evil AFTER INSERT ON presence BEGIN DELETE FROM presence; END",
        "CREATE VIEW spy AS SELECT * FROM presence",
        "CREATE TABLE more (x)",
        "CREATE INDEX clever ON presence (lower(pk))",
        "CREATE VIRTUAL TABLE words USING fts5 (text)",
        "PRAGMA user_version = 99",
    )
    handed.pack()
    handed.restore()

    assert [row for row in handed.held() if row[0] == ROW.pk] == [ROW]
    assert ("count", "er", LATER, 7) in handed.held()
    made = {row[:2] for row in handed.held() if row[0] in ("table", "index", "trigger", "view")}
    assert made == {("table", name) for name in Stores._fields}


VIEW = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n) SELECT i, i, i, i FROM n"
PLAIN = "pk TEXT NOT NULL, sk TEXT NOT NULL, expires_at INTEGER NOT NULL, body BLOB NOT NULL"
TAMPERED = {
    "a view for a table": (
        "DROP TABLE mail",
        f"CREATE VIEW mail (pk, sk, expires_at, body) AS {VIEW}",
    ),
    "a virtual table": (
        "DROP TABLE mail",
        "CREATE VIRTUAL TABLE mail USING fts5 (pk, sk, expires_at, body)",
    ),
    "no table": ("DROP TABLE mail",),
    "other columns": ("DROP TABLE mail", "CREATE TABLE mail (pk, sk, body, expires_at)"),
    "a column that computes": (
        "DROP TABLE mail",
        "CREATE TABLE mail (pk, sk, expires_at, body AS (zeroblob(9999)))",
    ),
    "a check that computes": (
        "DROP TABLE mail",
        f"CREATE TABLE mail ({PLAIN}, CHECK (length(hex(zeroblob(400000000))) > 0))",
        "PRAGMA ignore_check_constraints = ON",
        "INSERT INTO mail VALUES ('a', '', 3, 4)",
    ),
    "a huge cell": (
        f"INSERT INTO mail VALUES ('a', 'b', 3, zeroblob({given.MOST_CELL_BYTES + 1}))",
    ),
    "a huge name": ("INSERT INTO mail VALUES (hex(zeroblob(600)), 'b', 3, x'00')",),
    "an empty name": ("INSERT INTO mail VALUES ('', 'b', 3, x'00')",),
    "a name that is no text": ("INSERT INTO mail VALUES (CAST(x'ff' AS TEXT), 'b', 3, x'00')",),
    "a name that is a number": (
        "DROP TABLE mail",
        "CREATE TABLE mail (pk, sk, expires_at, body)",
        "INSERT INTO mail VALUES (1, 'b', 3, x'00')",
    ),
    "a time that is none": ("INSERT INTO mail VALUES ('a', 'b', 'never', x'00')",),
    "a time beyond all": ("INSERT INTO mail VALUES ('a', 'b', 9223372036854775807, x'00')",),
    "a body that is a number with a point": ("INSERT INTO mail VALUES ('a', 'b', 3, 1.5)",),
    "a mailbox that is none": (f"INSERT INTO mail VALUES ('mail#a', '1', {LATER}, x'c1')",),
    "a mailbox that counts on for ever": (
        f"INSERT INTO mail VALUES ('mail#a', 'x', {LATER}, x'96ceffffffff0000000090')",
    ),
    "a schema that is none": (
        "UPDATE sqlite_schema SET sql = 'CREATE TABLE mail (' WHERE name = 'mail'",
    ),
    "two tables in one place": ("UPDATE sqlite_schema SET rootpage = 1 WHERE name = 'mail'",),
}


@pytest.mark.parametrize("how", TAMPERED)
def test_a_database_that_was_tampered_with_is_refused_in_a_sentence(
    handed: Given, how: str
) -> None:
    handed.sql(*TAMPERED[how])
    handed.pack()
    started = time.monotonic()
    line = handed.refused()

    assert "cannot restore" in line
    assert time.monotonic() - started < 15


def test_pages_that_lie_are_refused(handed: Given) -> None:
    with contextlib.closing(open_sqlite(handed.database)) as stores:
        stores.presence.put(*(ROW._replace(sk=f"node-{n:06}", body=b"x" * 90) for n in range(3000)))
    handed.sql("PRAGMA journal_mode = DELETE")
    whole = handed.database.read_bytes()
    (size,) = {int.from_bytes(whole[16:18], "big")}
    pages = [whole[at : at + size] for at in range(0, len(whole), size)]
    for number, page in enumerate(pages[1:], 1):
        if page[0] == 2 and len(pages) > 8:  # an interior page, whose children become one
            cells = int.from_bytes(page[3:5], "big")
            at = [int.from_bytes(page[12 + 2 * n : 14 + 2 * n], "big") for n in range(cells)]
            tampered = bytearray(page)
            for place in at:
                tampered[place : place + 4] = page[at[0] : at[0] + 4]
            pages[number] = bytes(tampered)
    assert b"".join(pages) != whole
    handed.database.write_bytes(b"".join(pages))
    handed.pack()

    assert "damaged" in handed.refused()


def special(kind: bytes, name: str = "keys/publishing.key", **more: object) -> tarfile.TarInfo:
    entry = tarfile.TarInfo(name)
    entry.type = kind
    for attribute, value in more.items():
        setattr(entry, attribute, value)
    return entry


@pytest.mark.parametrize(
    "entry",
    [
        special(tarfile.SYMTYPE, linkname="/etc/passwd"),
        special(tarfile.LNKTYPE, linkname=copies.DATABASE),
        special(tarfile.CHRTYPE, devmajor=1, devminor=3),
        special(tarfile.BLKTYPE, devmajor=8),
        special(tarfile.FIFOTYPE),
        special(tarfile.DIRTYPE, "keys"),
        special(tarfile.CONTTYPE),
        special(tarfile.GNUTYPE_SPARSE),
        special(tarfile.REGTYPE, copies.DATABASE),
        special(tarfile.REGTYPE, "keys/.lock"),
        special(tarfile.REGTYPE, "keys/.."),
        special(tarfile.REGTYPE, "keys/a\x1b[2J"),
        special(tarfile.REGTYPE, "keys/" + "a" * 101),
        special(tarfile.REGTYPE, "keys/"),
        special(tarfile.REGTYPE, "keys/./a"),
        special(tarfile.REGTYPE, "./keys/a"),
        special(tarfile.REGTYPE, ""),
        file("keys/large", b"x" * (given.MOST_KEY_BYTES + 1)),
    ],
    ids=range(18),
)
def test_an_odd_member_is_refused(
    handed: Given, entry: tarfile.TarInfo | tuple[tarfile.TarInfo, bytes]
) -> None:
    handed.pack(entry)
    line = handed.refused()

    assert "\x1b" not in line


def test_too_many_keys_are_refused(handed: Given) -> None:
    handed.pack(*(file(f"keys/{n}.key", b"x") for n in range(given.MOST_KEYS + 1)))
    assert "too many" in handed.refused()


def blocks(*entries: bytes) -> bytes:
    return b"".join(entries) + bytes(1024)


def header(kind: bytes, name: str, size: bytes) -> bytes:
    """A header that no library would write."""
    made = bytearray(tarfile.TarInfo(name).tobuf(tarfile.GNU_FORMAT))
    made[124 : 124 + 12] = size.ljust(12, b"\0")
    made[156:157] = kind
    made[148:156] = b" " * 8
    made[148:156] = b"%06o\0 " % sum(made)
    return bytes(made)


HUGE, NEGATIVE = b"77777777777", b"\xff" * 12


@pytest.mark.parametrize("kind", [b"0", b"x", b"g", b"L", b"K", b"S"], ids=bytes.decode)
@pytest.mark.parametrize("size", [HUGE, NEGATIVE], ids=["huge", "negative"])
def test_a_size_that_cannot_be_is_refused_and_fills_neither_memory_nor_disk(
    handed: Given, kind: bytes, size: bytes
) -> None:
    handed.file.write_bytes(blocks(header(kind, copies.DATABASE, size)))
    handed.refused()


def test_a_file_of_holes_is_refused(handed: Given) -> None:
    """GNU's form 1.0: a small member that claims to be a terabyte."""
    entry, body = file(copies.DATABASE, b"0\n".ljust(512, b"\0"))
    entry.pax_headers = {
        "GNU.sparse.major": "1",
        "GNU.sparse.minor": "0",
        "GNU.sparse.name": copies.DATABASE,
        "GNU.sparse.realsize": str(2**40),
    }
    with tarfile.open(handed.file, "w", format=tarfile.PAX_FORMAT) as tar:
        tar.addfile(entry, io.BytesIO(body))

    assert "unexpected" in handed.refused()


def test_a_key_that_is_replaced_is_kept_too(handed: Given) -> None:
    key = handed.data / "keys" / "root.key"
    key.write_bytes(b"ours")
    handed.pack(file("keys/root.key", b"theirs"))
    handed.restore()
    assert key.read_bytes() == b"theirs"
    assert key.with_name("root.key.before-restore").read_bytes() == b"ours"

    handed.terminal.run("backup", str(handed.file), "--data", str(handed.data))
    with tarfile.open(handed.file) as tar:
        assert tar.getnames() == [copies.DATABASE, "keys/root.key"]


def test_a_folder_may_be_called_anything(handed: Given, tmp_path: Path) -> None:
    handed.pack()
    handed.data = tmp_path / "a?b#c%20d e"
    handed.restore()
    handed.terminal.run("backup", str(tmp_path / "again"), "--data", str(handed.data))
    assert (tmp_path / "again").stat().st_size > 0


def test_a_lock_that_is_a_link_empties_no_file(handed: Given, tmp_path: Path) -> None:
    theirs = tmp_path / "theirs"
    theirs.write_text("theirs")
    (handed.data / copies.LOCK).symlink_to(theirs)
    handed.pack()
    handed.restore()
    assert theirs.read_text() == "theirs"
