"""Copies: `muster backup` and `muster restore`, the data of a service on one machine in one file.

A copy is a tar of the database and the publishing keys. What was published is not in
it: it is made again. A copy holds request keys and private keys, so only its owner may
read it.
"""

from __future__ import annotations

import argparse
import contextlib
import fcntl
import sqlite3
import sys
import tarfile
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import IO, TYPE_CHECKING

import msgspec

from chalicelib.store import Stores
from muster import whole_file
from muster.cli import given, output, reading
from muster.cli.given import NotOurs
from muster.cli.output import Failure, Misuse

if TYPE_CHECKING:
    from chalicelib.settings import Settings

DATABASE, KEYS = given.DATABASE, given.KEYS
LOCK, STDOUT = "muster.lock", "-"
BEFORE = ".before-restore"
KEPT = DATABASE + BEFORE
OURS = "is it a file that 'muster backup' made?"
SIDES = ("-wal", "-shm")


def backup(arguments: argparse.Namespace) -> int:
    """Copy the data, also while the service runs."""
    data, file = Path(arguments.data), arguments.file
    source = data / DATABASE
    if not source.is_file():
        raise Failure(f"there is no service's data in {data.absolute()}", "--data DIR names it")
    if file.is_dir():
        raise Misuse(f"{file} is a folder", "name a file in it")
    piped = str(file) == STDOUT
    if piped and (arguments.json or sys.stdout.isatty()):
        raise Misuse("standard output is taken", "name a file, or pipe it on without --json")
    with _explained(f"cannot write {file}"), tempfile.TemporaryDirectory() as folder:
        snapshot = Path(folder) / DATABASE
        items = _snapshot(source, snapshot)
        keys = sorted(path for path in (data / KEYS).glob("*") if _is_key(path))
        with whole_file.delivering(Path("/dev/fd/1") if piped else file) as opened:
            size = _pack(opened, snapshot, keys)
    if arguments.json:
        output.dump({"file": str(file), "bytes": size, "items": items, "keys": len(keys)})
        return output.OK
    tell = output.say if piped else output.show
    tell(f"{file}: {items} items and {len(keys)} key files, {size / 1e6:.1f} MB")
    tell("It holds keys: keep it as you keep passwords.")
    return output.OK


def restore(arguments: argparse.Namespace) -> int:
    """Put a copy in the place of the data; the old data is kept in the same folder."""
    data, file = Path(arguments.data), arguments.file
    with _explained(f"cannot restore {file}", OURS), contextlib.ExitStack() as stack:
        data.mkdir(mode=0o700, parents=True, exist_ok=True)
        stack.enter_context(_alone_in(data))
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(dir=data, prefix=".new-")))
        keys = given.unpack(file, folder)
        fresh = folder / "fresh"
        items = given.copy_rows(folder / DATABASE, fresh)
        journals = _leap(fresh)
        there = (data / DATABASE).exists()
        if there and not (arguments.yes or _agreed(data)):
            output.say("Nothing was changed.")
            return output.FAILED
        _place(data, fresh, folder / KEYS, keys)
    told = {"data": str(data), "items": items, "keys": len(keys), "journals": journals}
    if arguments.json:
        output.dump(told)
    else:
        output.show(f"{data.absolute()}: {items} items and {len(keys)} key files are back.")
        if there:
            output.show(
                f"What was there is kept as …{BEFORE}; delete it when you no longer need it."
            )
    return output.OK


def _is_key(path: Path) -> bool:
    named = given.KEY_FILE.fullmatch(path.name) and not path.name.endswith(BEFORE)
    return bool(named) and path.is_file()


def _snapshot(source: Path, target: Path) -> int:
    """Copy a database with SQLite's backup, which sees only whole transactions."""
    with (
        contextlib.closing(sqlite3.connect(given.read_only(source), uri=True)) as before,
        contextlib.closing(sqlite3.connect(target)) as after,
    ):
        before.backup(after, pages=1_000, sleep=0.005)
        after.execute("PRAGMA journal_mode = DELETE")
        return _count(after)


def _pack(opened: IO[bytes], snapshot: Path, keys: list[Path]) -> int:
    """Write the copy, also into a pipe; return its bytes."""
    with tarfile.open(fileobj=opened, mode="w|") as tar:
        tar.add(snapshot, DATABASE, filter=_anonymous)
        for path in keys:
            tar.add(path, f"{KEYS}/{path.name}", filter=_anonymous)
    return tar.offset


def _anonymous(entry: tarfile.TarInfo) -> tarfile.TarInfo:
    entry.uid = entry.gid = 0
    entry.uname = entry.gname = ""
    entry.mode = 0o600
    return entry


def _count(opened: sqlite3.Connection) -> int:
    counts = (f"SELECT count(*) FROM {name}" for name in Stores._fields)  # noqa: S608 - our names
    return sum(int(opened.execute(count).fetchone()[0]) for count in counts)


def _leap(database: Path) -> int:
    """Let every journal continue above the numbers that readers may have seen since the copy."""
    from chalicelib.circle import journal
    from chalicelib.settings import Settings
    from chalicelib.store.sqlite import open_sqlite

    settings, clock, leaps = Settings(), time.time(), 0
    with contextlib.closing(open_sqlite(database)) as stores, _journals():
        found = stores.database.run(
            "SELECT DISTINCT pk FROM mail WHERE pk GLOB 'mail#*' OR pk GLOB 'signal*#*'"
        )
        for (pk,) in found:
            lifetime_s = settings.message_s if pk.startswith("mail#") else 300
            _name_last(stores, pk, settings, now=int(clock))
            leaps += journal.leap(stores.mail, pk, clock=clock, lifetime_s=lifetime_s) > 0
    with contextlib.closing(sqlite3.connect(database)) as opened:
        opened.execute("PRAGMA journal_mode = DELETE")  # one file again
    return leaps


@contextlib.contextmanager
def _journals() -> Iterator[None]:
    """Say so if what should be a journal cannot be read as one."""
    try:
        yield
    except (msgspec.MsgspecError, ValueError, OverflowError):
        raise NotOurs("a mailbox in it cannot be read") from None


def _name_last(stores: Stores, pk: str, settings: Settings, *, now: int) -> None:
    """Remember the names of a mailbox's last messages, which the leap hides from the journal.

    Otherwise messages that a client leaves again would be stored twice.
    """
    from chalicelib import tables
    from chalicelib.circle import journal

    tail = journal.last(stores.mail, pk, now=now)
    if tail is not None and pk.startswith("mail#"):
        names = [part.name for part in tail.parts]
        until = tail.written_at + settings.message_s
        tables.remember_messages(stores, pk.removeprefix("mail#"), names, until=until)


def _place(data: Path, fresh: Path, folder: Path, keys: list[str]) -> None:
    """Move what is new to where it belongs, and what it replaces aside; each step is whole."""
    there = data / DATABASE
    if there.exists():
        with contextlib.closing(sqlite3.connect(there)) as opened:
            opened.execute("PRAGMA wal_checkpoint(TRUNCATE)")
            opened.execute("PRAGMA journal_mode = DELETE")
        there.replace(data / KEPT)
    for side in SIDES:
        there.with_name(DATABASE + side).unlink(missing_ok=True)
    (data / KEYS).mkdir(mode=0o700, exist_ok=True)
    for name in keys:
        _place_key(folder / name, data / KEYS / name)
    fresh.replace(there)
    whole_file.sync_folder(data)


def _place_key(new: Path, there: Path) -> None:
    """Put a key in its place; another one that is there is kept, as it may be the only copy."""
    if there.is_file() and there.read_bytes() != new.read_bytes():
        there.replace(there.with_name(there.name + BEFORE))
    new.replace(there)


@contextlib.contextmanager
def _alone_in(data: Path) -> Iterator[None]:
    """Lock the folder as a service does, so that none runs in it."""
    with (data / LOCK).open("a") as lock:  # "w" would empty whatever a link leads to
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise Failure(
                f"a service is running in {data.absolute()}", "stop it, restore, start it again"
            ) from None
        yield


@contextlib.contextmanager
def _explained(what: str, hint: str = "") -> Iterator[None]:
    try:
        yield
    except (NotOurs, tarfile.TarError, sqlite3.Error, EOFError) as error:
        raise Failure(f"{what}: {output.line(str(error))}", hint) from None
    except OSError as error:
        raise Failure(f"{what}: {(error.strerror or str(error)).lower()}") from None


def _agreed(data: Path) -> bool:
    unasked = Misuse(f"there is data in {data.absolute()}", "--yes replaces it")
    return reading.agreed(f"Replace the data in {data.absolute()}?", unasked=unasked)
