"""The circle's file: all that one node keeps of one circle, in SQLite, for one process at a time.

It holds the secrets, so nobody else may read it; what a service says is here only after it was
checked. A page of a mailbox and the place up to which it was read are written together, so a
crash loses nothing and shows nothing twice.
"""

from __future__ import annotations

import hashlib
import json
import secrets
import sqlite3
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

from capsules.errors import Refused as NotBelieved
from capsules.keys import SigningKey, VerifyKey
from muster import keys, presences
from muster.circle.peers import Member
from muster.database import opened, run, writing
from muster.errors import Hinted
from muster.invites import ServiceAddress
from muster.presences import Endpoint
from muster.records import Record
from muster.seals import Said

VERSION = 2

LASTING = frozenset({"member", "services", "founder", "channel", "circle", "person"})
"""Kinds of records that are left again before a mailbox drops them: who comes late needs them."""

NOT_DELETED = LASTING | {"delete", "call", "react"}
"""Kinds of records that nobody deletes: what follows from them would be told in two ways."""

MOST_FORKS = 16
"""How many records with one number of one author are kept: those of the smallest hashes."""

_TABLES = """
CREATE TABLE facts (name TEXT PRIMARY KEY, value BLOB NOT NULL) WITHOUT ROWID;
CREATE TABLE epochs (
    number INTEGER PRIMARY KEY, secret BLOB NOT NULL, began_ms INTEGER NOT NULL);
CREATE TABLE rekeys (
    number INTEGER PRIMARY KEY, text BLOB NOT NULL, signature BLOB NOT NULL);
CREATE TABLE services (
    number INTEGER PRIMARY KEY AUTOINCREMENT, id BLOB NOT NULL UNIQUE, url TEXT NOT NULL,
    code TEXT NOT NULL);
CREATE TABLE places (
    service BLOB, hint BLOB, cursor INTEGER NOT NULL, entry BLOB NOT NULL,
    PRIMARY KEY (service, hint)) WITHOUT ROWID;
CREATE TABLE records (
    place INTEGER PRIMARY KEY AUTOINCREMENT, hash BLOB NOT NULL UNIQUE, author BLOB NOT NULL,
    seq INTEGER NOT NULL, prev BLOB, epoch INTEGER NOT NULL, at_ms INTEGER NOT NULL,
    text BLOB NOT NULL, signature BLOB NOT NULL, sealed BLOB);
CREATE INDEX chains ON records (author, seq);
CREATE TABLE left (
    service BLOB, hash BLOB, at_ms INTEGER NOT NULL, seen INTEGER NOT NULL,
    PRIMARY KEY (service, hash)) WITHOUT ROWID;
CREATE TABLE members (
    id BLOB PRIMARY KEY, key BLOB NOT NULL, box BLOB NOT NULL, name TEXT NOT NULL,
    node BLOB NOT NULL, epoch INTEGER NOT NULL, at_ms INTEGER NOT NULL,
    endpoints TEXT NOT NULL) WITHOUT ROWID;
CREATE TABLE drafts (
    id INTEGER PRIMARY KEY AUTOINCREMENT, channel BLOB NOT NULL, kind TEXT NOT NULL,
    body TEXT NOT NULL, hash BLOB, services INTEGER NOT NULL DEFAULT 0);
CREATE INDEX said ON drafts (hash);
"""

_GONE = """
CREATE TABLE erased (
    author BLOB, seq INTEGER, hash BLOB, PRIMARY KEY (author, seq, hash)) WITHOUT ROWID;
CREATE TABLE gone (
    author BLOB, first INTEGER, last INTEGER, PRIMARY KEY (author, first, last)) WITHOUT ROWID;
CREATE TABLE placed (
    id BLOB PRIMARY KEY, node BLOB NOT NULL, epoch INTEGER NOT NULL, at_ms INTEGER NOT NULL,
    endpoints TEXT NOT NULL) WITHOUT ROWID;
CREATE TABLE evicted (hash BLOB PRIMARY KEY) WITHOUT ROWID;
CREATE TABLE lasting (hash BLOB PRIMARY KEY, author BLOB NOT NULL) WITHOUT ROWID;
CREATE TABLE kept_at (
    service BLOB, hint BLOB, hash BLOB, at_ms INTEGER NOT NULL,
    PRIMARY KEY (service, hint, hash)) WITHOUT ROWID;
"""
"""Version 2: what its author has deleted; what peers say that nobody keeps any more; where members
were, as their presences tell (a record that tells who one is tells no place); the records that do
not expire, and when they were last put in a mailbox."""

MOST_GONE = 1000
"""How many stretches of one author peers may say are gone."""


MARK = "-mark"
"""What ends the name of the file beside it that tells a copy from the original."""


class Unusable(Hinted):
    """The file is not there, damaged, or another program's."""


class InUse(Hinted):
    """Another process has the circle open."""


@dataclass(frozen=True, slots=True)
class Kept:
    """A record as it is kept: its place in the order of arrival, and whether it is sealed."""

    place: int
    hash: bytes
    said: Said
    record: Record


@dataclass(frozen=True, slots=True)
class Run:
    """What is here of an author without a hole up to its last record; *digest* is of all of it."""

    first: int
    last: int
    hash: bytes
    digest: bytes


@dataclass(frozen=True, slots=True)
class Draft:
    """Something that is to be said: by which record it was, and at how many services that is."""

    id: int
    channel: bytes
    kind: str
    body: Mapping[str, Any]
    hash: bytes | None
    services: int


class CircleFile:
    """One circle, read and written; *path* is None for one that is kept in memory alone."""

    def __init__(self, database: sqlite3.Connection, path: Path | None) -> None:
        self._db, self.path = database, path
        self._lock: sqlite3.Connection | None = None
        self._founder = VerifyKey(self._fact("founder"))
        self.circle_id = keys.circle_id(self._founder)
        self.member = keys.Member(self.circle_id, self._fact("member"))

    @classmethod
    def make(
        cls,
        path: Path | None,
        *,
        founder: VerifyKey,
        member_secret: bytes,
        epoch: keys.Epoch,
        began_ms: int,
        name: str = "",
        founder_key: SigningKey | None = None,
    ) -> Self:
        """Make the file of a circle; raises `FileExistsError`."""
        if path is not None:
            path = path.resolve()  # the lock is beside it, whatever leads here
            path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            path.touch(mode=0o600, exist_ok=False)
        database = opened(path)
        with writing(database):
            run(database, _TABLES + _GONE)
            facts = {"founder": founder.raw, "member": member_secret, "name": name.encode()}
            if founder_key is not None:
                facts["founder key"] = founder_key.seed
            database.executemany("INSERT INTO facts VALUES (?, ?)", facts.items())
            database.execute(
                "INSERT INTO epochs VALUES (?, ?, ?)",
                (epoch.number, epoch.secret, began_ms),
            )
            database.execute(f"PRAGMA user_version = {VERSION}")
        made = cls(database, path)
        made.mark()
        return made

    @classmethod
    def open(cls, path: Path) -> Self:
        """Open a circle's file; raises `Unusable`."""
        path = path.resolve()
        if not path.is_file():
            raise Unusable(f"there is no circle in {path}")
        try:
            database = opened(path)
        except sqlite3.DatabaseError as error:
            raise _damaged(path, error) from None
        try:
            (version,) = database.execute("PRAGMA user_version").fetchone()
            if version not in (1, VERSION):
                raise Unusable(
                    f"{path} is of version {version}, which this muster does not know",
                    "update muster" if version > VERSION else "restore it from a backup",
                )
            if version == 1:
                _migrate(database)
            found = cls(database, path)
        except (sqlite3.DatabaseError, ValueError, LookupError, NotBelieved) as error:
            database.close()
            raise _damaged(path, error) from None
        if version == 1:
            found.mark()
        return found

    def close(self) -> None:
        """Let go of the file."""
        self.unlock()
        self._db.close()

    @property
    def identity(self) -> bytes:
        """What tells this file from another of the same circle: places mean nothing elsewhere."""
        found = self.fact("file")
        if not found:
            found = secrets.token_bytes(16)
            self.keep("file", found)
        return found

    @property
    def changes(self) -> int:
        """How often this process has changed something: to see whether it has since."""
        return self._db.total_changes

    # --- one process at a time --------------------------------------------------------

    def lock(self) -> None:
        """Keep other processes from being this node: two would fork its chain; raises `InUse`."""
        if self.path is None or self._lock is not None:
            return
        beside = self.path.with_name(self.path.name + "-lock")
        with suppress(FileExistsError):
            beside.touch(mode=0o600, exist_ok=False)
        lock = sqlite3.connect(beside, timeout=0, isolation_level=None, check_same_thread=False)
        try:
            lock.execute("BEGIN EXCLUSIVE")
        except sqlite3.OperationalError:
            lock.close()
            raise InUse("this circle is open in another process already", "end it first") from None
        self._lock = lock

    def unlock(self) -> None:
        """Let others."""
        if self._lock is not None:
            self._lock.close()
            self._lock = None

    # --- whether it is the only copy --------------------------------------------------

    def mark(self) -> None:
        """Note beside the file up to where this member has spoken, and which file it is."""
        if self.path is not None:
            seq, _ = self.tip(self.member.public.raw)
            with suppress(OSError):
                beside = self.path.with_name(self.path.name + MARK)
                beside.touch(mode=0o600)
                beside.write_text(f"{self.path.stat().st_ino} {seq}\n")

    @property
    def is_copy(self) -> bool:
        """Whether the file was copied, moved or restored: what was said since is known to others.

        Who speaks before it has asked them forks its chain.
        """
        if self.path is None:
            return False
        try:
            inode, seq = self.path.with_name(self.path.name + MARK).read_text().split()
            own = self.tip(self.member.public.raw)[0]
            return int(inode) != self.path.stat().st_ino or int(seq) > own
        except (OSError, ValueError):
            return True

    # --- facts ------------------------------------------------------------------------

    def _fact(self, name: str) -> bytes:
        return _value(self._db, name)

    def fact(self, name: str, default: bytes = b"") -> bytes:
        """Return something small that was kept."""
        try:
            return self._fact(name)
        except LookupError:
            return default

    def keep(self, name: str, value: bytes) -> None:
        """Keep something small."""
        with writing(self._db):
            self._db.execute("INSERT OR REPLACE INTO facts VALUES (?, ?)", (name, value))

    @property
    def founder(self) -> VerifyKey:
        """Whose signature makes the next epoch."""
        return self._founder

    @property
    def founder_key(self) -> SigningKey | None:
        """The founder key, on the device that has it."""
        seed = self.fact("founder key")
        return SigningKey(seed) if seed else None

    # --- epochs -----------------------------------------------------------------------

    def epochs(self) -> list[keys.Epoch]:
        """Return all epochs that this node has the secret of, the oldest first."""
        rows = self._db.execute("SELECT number, secret FROM epochs ORDER BY number")
        return [keys.Epoch(self.circle_id, number, bytes(secret)) for number, secret in rows]

    def epoch(self) -> keys.Epoch:
        """Return the epoch that is."""
        return self.epochs()[-1]

    def began_ms(self, number: int) -> int:
        """Return when this node learnt of an epoch, or of the first after it that it knows."""
        row = self._db.execute(
            "SELECT min(began_ms) FROM epochs WHERE number >= ?", (number,)
        ).fetchone()
        return int(row[0] or 0)

    @property
    def joined_ms(self) -> int:
        """When this node came into the circle, by this machine's clock."""
        return self.began_ms(0)

    def rekey_to(self, number: int) -> Said | None:
        """Return the rekey to an epoch that stands, as far as this node knows."""
        row = self._db.execute(
            "SELECT text, signature FROM rekeys WHERE number = ?", (number,)
        ).fetchone()
        return Said(bytes(row[0]), bytes(row[1])) if row else None

    def begin(self, number: int, said: Said, epoch: keys.Epoch | None, *, now_ms: int) -> None:
        """Let a rekey stand, and its epoch begin; *epoch* is None for who is left out.

        What was said in an epoch that loses its place is sealed and left anew.
        """
        with writing(self._db):
            for table in ("epochs", "rekeys"):
                self._db.execute(f"DELETE FROM {table} WHERE number >= ?", (number,))  # noqa: S608
            self._db.execute(
                "INSERT INTO rekeys VALUES (?, ?, ?)", (number, said.text, said.signature)
            )
            if epoch is not None:
                self._db.execute(
                    "INSERT INTO epochs VALUES (?, ?, ?)", (number, epoch.secret, now_ms)
                )
            again = "SELECT hash FROM records WHERE epoch >= ?"
            self._db.execute(f"DELETE FROM left WHERE hash IN ({again})", (number,))  # noqa: S608
            self._db.execute("UPDATE records SET sealed = NULL WHERE epoch >= ?", (number,))

    def enter(self, epoch: keys.Epoch, *, now_ms: int) -> None:
        """Be in an epoch that an invite has led to."""
        with writing(self._db):
            self._db.execute(
                "INSERT OR REPLACE INTO epochs VALUES (?, ?, ?)",
                (epoch.number, epoch.secret, now_ms),
            )

    # --- services ---------------------------------------------------------------------

    def services(self) -> list[ServiceAddress]:
        """Return the services where the circle meets."""
        rows = self._db.execute("SELECT url, id, code FROM services ORDER BY number")
        return [ServiceAddress(url, bytes(service), code) for url, service, code in rows]

    def add_services(self, services: Iterable[ServiceAddress]) -> None:
        """Meet at these services too; a known one has the URL and the code that are given."""
        with writing(self._db):
            for service in services:
                self._db.execute(
                    "INSERT INTO services (id, url, code) VALUES (?, ?, ?) "
                    "ON CONFLICT (id) DO UPDATE SET url = excluded.url, code = "
                    "CASE excluded.code WHEN '' THEN code ELSE excluded.code END",
                    (service.id, service.url, service.code),
                )

    def remove_service(self, service: bytes) -> None:
        """Meet there no longer."""
        with writing(self._db):
            for table, column in (
                *(("services", "id"), ("places", "service"), ("left", "service")),
                ("kept_at", "service"),
            ):
                self._db.execute(f"DELETE FROM {table} WHERE {column} = ?", (service,))  # noqa: S608

    def cursor(self, service: bytes, hint: bytes) -> int:
        """Return up to where a mailbox was read."""
        row = self._db.execute(
            "SELECT cursor FROM places WHERE service = ? AND hint = ?", (service, hint)
        ).fetchone()
        return int(row[0]) if row else 0

    def entry(self, service: bytes, hint: bytes) -> bytes:
        """Return what told the last entry that was read from all others."""
        row = self._db.execute(
            "SELECT entry FROM places WHERE service = ? AND hint = ?", (service, hint)
        ).fetchone()
        return bytes(row[0]) if row else b""

    def move(self, service: bytes, hint: bytes, cursor: int, entry: bytes = b"") -> None:
        """Note up to where a mailbox was read; within a `writing`, with what was read.

        A service that was restored from a backup gives numbers again: *entry* tells apart.
        """
        self._db.execute(
            "INSERT OR REPLACE INTO places VALUES (?, ?, ?, ?)", (service, hint, cursor, entry)
        )

    def forget_places(self, hint: bytes) -> None:
        """Read a mailbox from its beginning, at all services."""
        with writing(self._db):
            self._db.execute("DELETE FROM places WHERE hint = ?", (hint,))

    # --- records ----------------------------------------------------------------------

    @contextmanager
    def writing(self) -> Iterator[None]:
        """Write everything inside, or nothing."""
        with writing(self._db):
            yield

    def add(self, hashed: bytes, said: Said, record: Record, sealed: bytes | None = None) -> int:
        """Keep a record; return its place, or 0 if it was here or is one fork too many."""
        author, seq = record.author.raw, record.seq
        forks = self.hashes(author, seq)
        if len(forks) >= MOST_FORKS:
            if hashed >= forks[-1]:
                return 0
            self._evict(forks[-1])
        if record.kind not in NOT_DELETED and self._is_erased(author, seq, hashed):
            said, sealed = Said(b"", b""), None
        done = self._db.execute(
            "INSERT OR IGNORE INTO records VALUES (NULL, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
            (
                *(hashed, author, seq, record.prev, record.epoch, record.at_ms),
                *(said.text, said.signature, sealed),
            ),
        )
        if done.rowcount and record.kind in LASTING:
            self._db.execute("INSERT OR IGNORE INTO lasting VALUES (?, ?)", (hashed, author))
        return int(done.lastrowid or 0) if done.rowcount else 0

    def _evict(self, hashed: bytes) -> None:
        for table in ("records", "lasting"):
            self._db.execute(f"DELETE FROM {table} WHERE hash = ?", (hashed,))  # noqa: S608
        self._db.execute("INSERT OR IGNORE INTO evicted VALUES (?)", (hashed,))

    def evicted(self) -> int:
        """Return how many records had to make room for others of their number."""
        (count,) = self._db.execute("SELECT count(*) FROM evicted").fetchone()
        return int(count)

    def _is_erased(self, author: bytes, seq: int, hashed: bytes) -> bool:
        found = self._db.execute(
            "SELECT 1 FROM erased WHERE author = ? AND seq = ? AND hash = ?", (author, seq, hashed)
        ).fetchone()
        return found is not None

    def delete(self, author: bytes, seq: int, hashed: bytes) -> None:
        """Drop what an author said and has deleted, now or when it comes; its hash stays."""
        with writing(self._db):
            self._db.execute("INSERT OR IGNORE INTO erased VALUES (?, ?, ?)", (author, seq, hashed))
            self._db.execute(
                "UPDATE records SET text = x'', signature = x'', sealed = NULL "
                "WHERE hash = ? AND author = ? AND seq = ?",
                (hashed, author, seq),
            )

    def erase(self, hashes: Iterable[bytes]) -> None:
        """Drop what records say, as they are older than they are kept; their hashes stay."""
        with writing(self._db):
            self._db.executemany(
                "UPDATE records SET text = x'', signature = x'', sealed = NULL WHERE hash = ?",
                [(hashed,) for hashed in hashes],
            )

    def note_gone(self, author: bytes, first: int, last: int) -> None:
        """Note that a peer has had records and keeps them no longer: nobody holds them back.

        Of authors that are known here, and up to what is known of them.
        """
        last = min(last, self.tip(author)[0])
        if last < first:
            return
        (count,) = self._db.execute(
            "SELECT count(*) FROM gone WHERE author = ?", (author,)
        ).fetchone()
        if count < MOST_GONE:
            with writing(self._db):
                self._db.execute(
                    "INSERT OR IGNORE INTO gone VALUES (?, ?, ?)", (author, first, last)
                )

    def gaps(self, author: bytes, after: int) -> list[tuple[int, int]]:
        """Return the stretches of a chain that were here and are kept no longer."""
        rows = self._db.execute(
            "SELECT seq FROM records WHERE author = ? AND seq > ? AND text = x'' UNION "
            "SELECT seq FROM erased WHERE author = ? AND seq > ? ORDER BY seq",
            (author, after, author, after),
        )
        return _stretches(int(row[0]) for row in rows)

    def hashes(self, author: bytes, seq: int) -> list[bytes]:
        """Return the records of an author with one number: several are a fork."""
        rows = self._db.execute(
            "SELECT hash FROM records WHERE author = ? AND seq = ? ORDER BY hash", (author, seq)
        )
        return [bytes(row[0]) for row in rows]

    def has(self, hashed: bytes) -> bool:
        """Say whether a record is here."""
        found = self._db.execute("SELECT 1 FROM records WHERE hash = ?", (hashed,)).fetchone()
        return found is not None

    def tip(self, author: bytes) -> tuple[int, bytes | None]:
        """Return the number and the hash of an author's last record here."""
        row = self._db.execute(
            "SELECT seq, hash FROM records WHERE author = ? ORDER BY seq DESC, hash LIMIT 1",
            (author,),
        ).fetchone()
        return (int(row[0]), bytes(row[1])) if row else (0, None)

    def reach(self, author: bytes) -> tuple[int, bytes | None]:
        """Return up to where an author is heard who is shut out: a number and its hash.

        The end of the stretch from its first record on. Its last number alone would be one that
        it has made up, and everything up to it would count for ever.
        """
        rows = self._db.execute(
            "SELECT seq, min(hash) FROM (SELECT seq, hash FROM records WHERE author = ? UNION ALL "
            "SELECT seq, NULL FROM erased WHERE author = ?) GROUP BY seq ORDER BY seq",
            (author, author),
        )
        end = 0
        found: tuple[int, bytes | None] = (0, None)
        for seq, hashed in rows:
            if end and seq > end + 1:
                break
            end = int(seq)
            if hashed is not None:
                found = (end, bytes(hashed))
        return found

    def tips(self) -> dict[bytes, tuple[int, bytes]]:
        """Return all authors' last records."""
        authors = [bytes(row[0]) for row in self._db.execute("SELECT DISTINCT author FROM records")]
        found = {}
        for author in authors:
            seq, hashed = self.tip(author)
            if hashed is not None:
                found[author] = (seq, hashed)
        return found

    def said_ms(self, author: bytes, seq: int) -> int:
        """Return when a record says that it was said, though its text is kept no longer."""
        row = self._db.execute(
            "SELECT min(at_ms) FROM records WHERE author = ? AND seq = ?", (author, seq)
        ).fetchone()
        return int(row[0] or 0)

    def runs(self) -> dict[bytes, Run]:
        """Return of each author what is here without a hole up to the last record."""
        found: dict[bytes, Run] = {}
        rows = self._db.execute("SELECT author, seq, hash FROM records ORDER BY author, seq, hash")
        author, first, last, tip, digest = b"", 0, 0, b"", hashlib.sha256()
        for by, seq, hashed in rows:
            if by != author or seq > last + 1:
                author, first, last, tip, digest = by, seq, seq, hashed, hashlib.sha256()
            elif seq > last:
                last, tip = seq, hashed
            digest.update(hashed)
            found[by] = Run(first, last, tip, digest.digest()[:8])
        return found

    def missing(self) -> list[tuple[bytes, int, int]]:
        """Return the holes inside chains: author, the first number that is not here, the last."""
        rows = self._db.execute(
            "SELECT author, before + 1, seq - 1 FROM (SELECT author, seq, lag(seq) OVER "
            "(PARTITION BY author ORDER BY seq) AS before FROM records) WHERE seq > before + 1"
        )
        holes = [(bytes(author), int(first), int(last)) for author, first, last in rows]
        return [hole for one in holes for hole in self._not_gone(*one)]

    def _not_gone(self, author: bytes, first: int, last: int) -> list[tuple[bytes, int, int]]:
        """Return what of a hole was neither deleted by its author nor dropped by peers."""
        covers = self._db.execute(
            "SELECT seq, seq FROM erased WHERE author = ? AND seq BETWEEN ? AND ? UNION "
            "SELECT first, last FROM gone WHERE author = ? AND first <= ? AND last >= ? ORDER BY 1",
            (author, first, last, author, last, first),
        )
        found = []
        for begin, end in covers:
            if begin > first:
                found.append((author, first, int(begin) - 1))
            first = max(first, int(end) + 1)
        if first <= last:
            found.append((author, first, last))
        return found

    def broken(self) -> list[tuple[bytes, int]]:
        """Return where a record follows none that is here of the number before: a fork unseen."""
        rows = self._db.execute(
            "SELECT DISTINCT one.author, one.seq - 1 FROM records AS one WHERE EXISTS "
            "(SELECT 1 FROM records AS two WHERE two.author = one.author AND two.seq = one.seq - 1)"
            " AND NOT EXISTS (SELECT 1 FROM records AS two WHERE two.author = one.author AND "
            "two.seq = one.seq - 1 AND two.hash = one.prev)"
        )
        return [(bytes(author), int(seq)) for author, seq in rows]

    def records(
        self,
        *,
        after: int = 0,
        author: bytes | None = None,
        seqs: tuple[int, int] | None = None,
        most: int = -1,
        most_bytes: int = 2**62,
    ) -> Iterator[Kept]:
        """Yield records in the order of their arrival, or of one author in that of its chain.

        What was deleted, or is kept no longer, is left out.
        """
        if author is None:
            rows = self._db.execute(
                "SELECT place, hash, text, signature FROM records WHERE place > ? AND text != x'' "
                "ORDER BY place LIMIT ?",
                (after, most),
            )
        else:
            first, last = seqs or (1, 2**53)
            rows = self._db.execute(
                "SELECT place, hash, text, signature FROM records "
                "WHERE author = ? AND seq BETWEEN ? AND ? AND text != x'' "
                "ORDER BY seq, hash LIMIT ?",
                (author, first, last, most),
            )
        size = 0
        found: list[tuple[Any, ...]] = []
        for row in rows:
            size += len(row[2])
            if found and size > most_bytes:
                break
            found.append(row)
        for place, hashed, text, signature in found:
            said = Said(bytes(text), bytes(signature))
            yield Kept(place, bytes(hashed), said, Record.read(self.circle_id, said))

    def record(self, hashed: bytes) -> Kept | None:
        """Return the record of that name."""
        row = self._db.execute(
            "SELECT place, text, signature FROM records WHERE hash = ? AND text != x''", (hashed,)
        ).fetchone()
        if row is None:
            return None
        said = Said(bytes(row[1]), bytes(row[2]))
        return Kept(row[0], hashed, said, Record.read(self.circle_id, said))

    def hash_at(self, place: int) -> bytes:
        """Return which record came at a place; nothing where none did."""
        row = self._db.execute("SELECT hash FROM records WHERE place = ?", (place,)).fetchone()
        return bytes(row[0]) if row else b""

    def drop(self, author: bytes, *, beyond: int) -> int:
        """Forget what an author said after a number: it was left out of the circle then."""
        with writing(self._db):
            self._db.execute(
                "INSERT OR IGNORE INTO evicted SELECT hash FROM records "
                "WHERE author = ? AND seq > ?",
                (author, beyond),
            )
            done = self._db.execute(
                "DELETE FROM records WHERE author = ? AND seq > ?", (author, beyond)
            )
        return done.rowcount

    def seal(self, hashed: bytes, sealed: bytes) -> None:
        """Keep how a record is sealed: it is left everywhere, and again, in these bytes."""
        with writing(self._db):
            self._db.execute("UPDATE records SET sealed = ? WHERE hash = ?", (sealed, hashed))

    # --- what is to be left at services --------------------------------------------------

    def outgoing(
        self, service: bytes, *, epoch: int, since_ms: int, most: int
    ) -> list[tuple[bytes, bytes | None, Said]]:
        """Return own records that a service has not yet, the first said first."""
        rows = self._db.execute(
            "SELECT hash, sealed, text, signature FROM records WHERE author = ? AND epoch = ? AND "
            "text != x'' AND at_ms >= ? AND hash NOT IN (SELECT hash FROM left WHERE service = ?) "
            "ORDER BY seq LIMIT ?",
            (self.member.public.raw, epoch, since_ms, service, most),
        )
        return [
            (bytes(hashed), None if sealed is None else bytes(sealed), Said(bytes(text), bytes(by)))
            for hashed, sealed, text, by in rows
        ]

    def note_left(self, service: bytes, hashes: Iterable[bytes], *, at_ms: int, seen: bool) -> None:
        """Note that a service has taken records, or that they were read there."""
        for hashed in hashes:
            self._db.execute(
                "INSERT INTO left VALUES (?, ?, ?, ?) ON CONFLICT (service, hash) DO UPDATE SET "
                "seen = max(seen, excluded.seen), at_ms = excluded.at_ms",
                (service, hashed, at_ms, int(seen)),
            )
            self._db.execute(
                "UPDATE drafts SET services = "
                "(SELECT count(*) FROM left WHERE hash = ? AND at_ms > 0) WHERE hash = ?",
                (hashed, hashed),
            )

    def note_kept(self, service: bytes, hint: bytes, hashes: Iterable[bytes], at_ms: int) -> None:
        """Note that a mailbox has lasting records, and since when; others are passed over."""
        self._db.executemany(
            "INSERT INTO kept_at SELECT ?, ?, hash, ? FROM lasting WHERE hash = ? "
            "ON CONFLICT (service, hint, hash) DO UPDATE SET at_ms = max(at_ms, excluded.at_ms)",
            [(service, hint, at_ms, hashed) for hashed in hashes],
        )

    def kept_since(self, service: bytes, hint: bytes) -> list[tuple[bytes, bytes, int]]:
        """Return lasting records, their authors, and since when a mailbox has them; 0 for never."""
        rows = self._db.execute(
            "SELECT l.hash, l.author, coalesce(k.at_ms, 0) FROM lasting AS l LEFT JOIN kept_at AS "
            "k ON k.hash = l.hash AND k.service = ? AND k.hint = ?",
            (service, hint),
        )
        return [(bytes(hashed), bytes(author), int(at_ms)) for hashed, author, at_ms in rows]

    def left_at_ms(self, service: bytes, hashed: bytes) -> int | None:
        """Return when a service has taken something."""
        row = self._db.execute(
            "SELECT at_ms FROM left WHERE service = ? AND hash = ?", (service, hashed)
        ).fetchone()
        return int(row[0]) if row else None

    def at_services(self, hashed: bytes) -> int:
        """Return how many services have taken a record."""
        row = self._db.execute(
            "SELECT count(*) FROM left WHERE hash = ? AND at_ms > 0", (hashed,)
        ).fetchone()
        return int(row[0])

    def doubt(self, service: bytes, *, all_of_it: bool) -> None:
        """Leave again at a service what was not read there, or everything."""
        where = "" if all_of_it else " AND seen = 0"
        with writing(self._db):
            self._db.execute(f"DELETE FROM left WHERE service = ?{where}", (service,))  # noqa: S608
            if all_of_it:
                self._db.execute("DELETE FROM kept_at WHERE service = ?", (service,))

    # --- drafts -------------------------------------------------------------------------

    def draft(self, channel: bytes, kind: str, body: Mapping[str, Any]) -> int:
        """Keep something to be said by whichever process has the circle open."""
        with writing(self._db):
            done = self._db.execute(
                "INSERT INTO drafts (channel, kind, body) VALUES (?, ?, ?)",
                (channel, kind, json.dumps(body)),
            )
        return int(done.lastrowid or 0)

    def redraft(self, number: int, body: Mapping[str, Any]) -> None:
        """Let a draft say something else."""
        with writing(self._db):
            self._db.execute(
                "UPDATE drafts SET body = ? WHERE id = ? AND hash IS NULL",
                (json.dumps(body), number),
            )

    def give_up(self, number: int) -> None:
        """Drop something that cannot be said."""
        with writing(self._db):
            self._db.execute("DELETE FROM drafts WHERE id = ?", (number,))

    def drafts(self) -> list[Draft]:
        """Return what is still to be said."""
        rows = self._db.execute("SELECT * FROM drafts WHERE hash IS NULL ORDER BY id")
        return [_draft(row) for row in rows]

    def drafted(self, number: int) -> Draft | None:
        """Return what has become of something to be said."""
        row = self._db.execute("SELECT * FROM drafts WHERE id = ?", (number,)).fetchone()
        return _draft(row) if row else None

    def said(self, number: int, hashed: bytes) -> None:
        """Note by which record a draft was said; within a `writing`, with the record.

        What it says lies in the record alone from now on: a deletion must find all of it.
        """
        self._db.execute("UPDATE drafts SET hash = ?, body = '{}' WHERE id = ?", (hashed, number))

    # --- members ------------------------------------------------------------------------

    def meet(self, presence: presences.Presence, epoch: int) -> bool:
        """Keep who a presence says it is of; False if a newer one of that member was believed."""
        with writing(self._db):
            done = self._db.execute(
                "INSERT INTO members VALUES (?, ?, ?, ?, ?, ?, ?, ?) ON CONFLICT (id) DO UPDATE "
                "SET box = excluded.box, name = excluded.name, node = excluded.node, "
                "epoch = excluded.epoch, at_ms = excluded.at_ms, endpoints = excluded.endpoints "
                "WHERE excluded.epoch > epoch OR "
                "(excluded.epoch = epoch AND excluded.at_ms > at_ms)",
                (
                    *(presence.member_id, presence.member.raw, presence.box, presence.name),
                    *(presence.node_id, epoch, presence.at_ms),
                    places := json.dumps([list(endpoint) for endpoint in presence.endpoints]),
                ),
            )
            self._db.execute(
                "INSERT INTO placed VALUES (?, ?, ?, ?, ?) ON CONFLICT (id) DO UPDATE SET "
                "node = excluded.node, epoch = excluded.epoch, at_ms = excluded.at_ms, "
                "endpoints = excluded.endpoints WHERE excluded.epoch > epoch OR "
                "(excluded.epoch = epoch AND excluded.at_ms > at_ms)",
                (presence.member_id, presence.node_id, epoch, presence.at_ms, places),
            )
        return bool(done.rowcount)

    def introduce(self, member: Member) -> None:
        """Keep who a member says it is; where it is, presences tell."""
        self._db.execute(
            "INSERT INTO members VALUES (?, ?, ?, ?, ?, ?, ?, '[]') ON CONFLICT (id) DO UPDATE "
            "SET box = excluded.box, name = excluded.name, at_ms = excluded.at_ms "
            "WHERE excluded.at_ms > at_ms",
            (
                *(member.id, member.key.raw, member.box, member.name, member.node_id),
                *(member.epoch, member.at_ms),
            ),
        )

    def name_of(self, member_id: bytes) -> str:
        """Return how a member is called; nothing for one who was not met."""
        row = self._db.execute("SELECT name FROM members WHERE id = ?", (member_id,)).fetchone()
        return str(row[0]) if row else ""

    def members(self) -> list[Member]:
        """Return everybody whom this node has met, the newest first."""
        rows = self._db.execute(
            "SELECT m.id, m.key, m.box, m.name, coalesce(p.node, m.node), m.epoch, m.at_ms, "
            "coalesce(p.endpoints, m.endpoints) FROM members AS m LEFT JOIN placed AS p "
            "ON p.id = m.id AND p.epoch = m.epoch ORDER BY m.at_ms DESC, m.id"
        )
        return [
            Member(
                *(bytes(row[0]), VerifyKey(bytes(row[1])), bytes(row[2]), row[3], bytes(row[4])),
                *(row[5], row[6], tuple(Endpoint(*one) for one in json.loads(row[7]))),
            )
            for row in rows
        ]


def _migrate(database: sqlite3.Connection) -> None:
    """Make a file of version 1 one of this version."""
    with writing(database):
        run(database, _GONE)
        database.execute("UPDATE drafts SET body = '{}' WHERE hash IS NOT NULL")
        circle = keys.circle_id(VerifyKey(bytes(_value(database, "founder"))))
        rows = database.execute("SELECT hash, author, text, signature FROM records").fetchall()
        for hashed, author, text, signature in rows:
            if Record.read(circle, Said(bytes(text), bytes(signature))).kind in LASTING:
                database.execute("INSERT INTO lasting VALUES (?, ?)", (hashed, author))
        database.execute(f"PRAGMA user_version = {VERSION}")


def _value(database: sqlite3.Connection, name: str) -> bytes:
    row = database.execute("SELECT value FROM facts WHERE name = ?", (name,)).fetchone()
    if row is None:
        raise LookupError(f"it has no {name}")
    return bytes(row[0])


def _stretches(numbers: Iterable[int]) -> list[tuple[int, int]]:
    """Return rising numbers as stretches: first and last."""
    found: list[tuple[int, int]] = []
    for number in numbers:
        if found and number <= found[-1][1] + 1:
            found[-1] = (found[-1][0], max(number, found[-1][1]))
        else:
            found.append((number, number))
    return found


def _damaged(path: Path, error: Exception) -> Unusable:
    return Unusable(f"{path} is damaged: {error}", "restore it, or join again with an invite")


def _draft(row: tuple[Any, ...]) -> Draft:
    number, channel, kind, body, hashed, services = row
    return Draft(number, bytes(channel), kind, json.loads(body), hashed, services)
