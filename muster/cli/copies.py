"""Copies: `muster backup` and `muster restore`, the data of a service on one machine in one file.

A copy is a tar of the database and the publishing keys. What was published is not in
it: it is made again. A copy holds request keys and private keys, so only its owner may
read it.
"""

from __future__ import annotations

import argparse
import contextlib
import fcntl
import shutil
import sqlite3
import sys
import tarfile
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from chalicelib.store import Stores
from muster import whole_file
from muster.cli import output
from muster.cli.output import Failure, Misuse

if TYPE_CHECKING:
    from chalicelib.settings import Settings

DATABASE, LOCK, KEYS = "muster.sqlite3", "muster.lock", "keys"
KEPT = f"{DATABASE}.before-restore"
SIDES = ("-wal", "-shm")
MOST_KEYS, MOST_KEY_BYTES = 16, 1024 * 1024


def backup(arguments: argparse.Namespace) -> int:
    """Copy the data, also while the service runs."""
    data, file = Path(arguments.data), arguments.file
    source = data / DATABASE
    if not source.is_file():
        raise Failure(f"there is no service's data in {data.absolute()}", "--data DIR names it")
    if file.is_dir():
        raise Misuse(f"{file} is a folder", "name a file in it")
    with _explained(f"cannot write {file}"), tempfile.TemporaryDirectory() as folder:
        snapshot = Path(folder) / DATABASE
        items = _snapshot(source, snapshot)
        keys = sorted(path for path in (data / KEYS).glob("*") if path.is_file())
        _pack(file, snapshot, keys)
    size = file.stat().st_size
    if arguments.json:
        output.dump({"file": str(file), "bytes": size, "items": items, "keys": len(keys)})
    else:
        output.show(f"{file}: {items} items and {len(keys)} key files, {size / 1e6:.1f} MB")
        output.show("It holds keys: keep it as you keep passwords.")
    return output.OK


def restore(arguments: argparse.Namespace) -> int:
    """Put a copy in the place of the data; the old data is kept in the same folder."""
    data, file = Path(arguments.data), arguments.file
    with _explained(f"cannot restore {file}"), contextlib.ExitStack() as stack:
        data.mkdir(mode=0o700, parents=True, exist_ok=True)
        stack.enter_context(_alone_in(data))
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(dir=data, prefix=".new-")))
        keys = _unpack(file, folder)
        items = _check(folder / DATABASE, file)
        there = (data / DATABASE).exists()
        if there and not (arguments.yes or _agreed(data)):
            output.show("Nothing was changed.")
            return output.FAILED
        journals = _leap(folder / DATABASE)
        _place(data, folder, keys)
    told = {"data": str(data), "items": items, "keys": len(keys), "journals": journals}
    if arguments.json:
        output.dump(told)
    else:
        output.show(f"{data.absolute()}: {items} items and {len(keys)} key files are back.")
        if there:
            output.show(f"What was there is kept as {KEPT}; delete it when you no longer need it.")
    return output.OK


def _snapshot(source: Path, target: Path) -> int:
    """Copy a database with SQLite's backup, which sees only whole transactions."""
    with (
        contextlib.closing(sqlite3.connect(f"file:{source}?mode=ro", uri=True)) as before,
        contextlib.closing(sqlite3.connect(target)) as after,
    ):
        before.backup(after, pages=1_000, sleep=0.005)
        after.execute("PRAGMA journal_mode = DELETE")
        return _count(after)


def _pack(file: Path, snapshot: Path, keys: list[Path]) -> None:
    with whole_file.writing(file) as opened, tarfile.open(fileobj=opened, mode="w") as tar:
        tar.add(snapshot, DATABASE, filter=_anonymous)
        for path in keys:
            tar.add(path, f"{KEYS}/{path.name}", filter=_anonymous)


def _anonymous(entry: tarfile.TarInfo) -> tarfile.TarInfo:
    entry.uid = entry.gid = 0
    entry.uname = entry.gname = ""
    entry.mode = 0o600
    return entry


def _unpack(file: Path, folder: Path) -> list[str]:
    """Take the database and the keys out of a copy, and nothing else that may be in it."""
    keys: list[str] = []
    with tarfile.open(file, "r:") as tar:
        for entry in tar:
            name = Path(entry.name)
            if entry.name == DATABASE and entry.isreg():
                target = folder / DATABASE
            elif entry.isreg() and name.parent == Path(KEYS) and name.name not in (".", ".."):
                if len(keys) >= MOST_KEYS or entry.size > MOST_KEY_BYTES:
                    raise tarfile.ReadError("too many or too large key files")
                keys.append(name.name)
                target = folder / KEYS / name.name
            else:
                raise tarfile.ReadError(f"unexpected {output.clean(entry.name)[:60]!r}")
            target.parent.mkdir(mode=0o700, exist_ok=True)
            with whole_file.writing(target, new=True) as opened:
                if source := tar.extractfile(entry):
                    shutil.copyfileobj(source, opened)
    return keys


def _check(database: Path, file: Path) -> int:
    """Check that a database is intact and a service's; count its items."""
    if not database.is_file():
        raise Failure(f"{file} is no copy of a service's data: it has no {DATABASE}")
    with contextlib.closing(sqlite3.connect(database)) as opened:
        (verdict,) = opened.execute("PRAGMA quick_check").fetchone()
        if verdict != "ok":
            raise Failure(f"the database in {file} is damaged: {verdict}")
        return _count(opened)


def _count(opened: sqlite3.Connection) -> int:
    counts = (f"SELECT count(*) FROM {name}" for name in Stores._fields)  # noqa: S608 - our names
    return sum(int(opened.execute(count).fetchone()[0]) for count in counts)


def _leap(database: Path) -> int:
    """Let every journal continue above the numbers that readers may have seen since the copy."""
    from chalicelib.circle import journal
    from chalicelib.settings import Settings
    from chalicelib.store.sqlite import open_sqlite

    settings, clock, leaps = Settings(), time.time(), 0
    with contextlib.closing(open_sqlite(database)) as stores:
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


def _place(data: Path, folder: Path, keys: list[str]) -> None:
    """Move what was unpacked to where it belongs; each step leaves something whole."""
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
        (folder / KEYS / name).replace(data / KEYS / name)
    (folder / DATABASE).replace(there)
    whole_file.sync_folder(data)


@contextlib.contextmanager
def _alone_in(data: Path) -> Iterator[None]:
    """Lock the folder as a service does, so that none runs in it."""
    with (data / LOCK).open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise Failure(
                f"a service is running in {data.absolute()}", "stop it, restore, start it again"
            ) from None
        yield


@contextlib.contextmanager
def _explained(what: str) -> Iterator[None]:
    try:
        yield
    except (tarfile.TarError, sqlite3.Error, EOFError) as error:
        raise Failure(f"{what}: {error}", "is it a file that 'muster backup' made?") from None
    except OSError as error:
        raise Failure(f"{what}: {(error.strerror or str(error)).lower()}") from None


def _agreed(data: Path) -> bool:
    if not sys.stdin.isatty():
        raise Misuse(f"there is data in {data.absolute()}", "--yes replaces it")
    answer = input(f"Replace the data in {data.absolute()}? [y/N] ")
    return answer.strip().lower() in ("y", "yes")
