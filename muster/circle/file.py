"""The circle's file: all that one node keeps of one circle, in SQLite, for one process at a time.

It holds the secrets, so nobody else may read it; what a service says is here only after it was
checked. A page of a mailbox and the place up to which it was read are written together, so a
crash loses nothing and shows nothing twice.
"""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

from capsules.keys import SigningKey, VerifyKey
from muster import keys, presences
from muster.circle.peers import Member
from muster.errors import Hinted
from muster.invites import ServiceAddress
from muster.presences import Endpoint
from muster.records import Record
from muster.seals import Said

VERSION = 1

MOST_FORKS = 16
"""How many records with one number of one author are kept."""

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

_PLACED = """
CREATE TABLE IF NOT EXISTS placed (
    id BLOB PRIMARY KEY, node BLOB NOT NULL, epoch INTEGER NOT NULL, at_ms INTEGER NOT NULL,
    endpoints TEXT NOT NULL) WITHOUT ROWID
"""
"""Where members were, as their presences tell; a record that tells who one is tells no place."""


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
        database = _opened(path)
        with _write(database):
            for statement in _TABLES.split(";"):
                database.execute(statement)
            database.execute(_PLACED)
            facts = {"founder": founder.raw, "member": member_secret, "name": name.encode()}
            if founder_key is not None:
                facts["founder key"] = founder_key.seed
            database.executemany("INSERT INTO facts VALUES (?, ?)", facts.items())
            database.execute(
                "INSERT INTO epochs VALUES (?, ?, ?)",
                (epoch.number, epoch.secret, began_ms),
            )
            database.execute(f"PRAGMA user_version = {VERSION}")
        return cls(database, path)

    @classmethod
    def open(cls, path: Path) -> Self:
        """Open a circle's file; raises `Unusable`."""
        path = path.resolve()
        if not path.is_file():
            raise Unusable(f"there is no circle in {path}")
        try:
            database = _opened(path)
        except sqlite3.DatabaseError as error:
            raise _damaged(path, error) from None
        try:
            (version,) = database.execute("PRAGMA user_version").fetchone()
            if version != VERSION:
                raise Unusable(
                    f"{path} is of version {version}, which this muster does not know",
                    "update muster" if version > VERSION else "restore it from a backup",
                )
            database.execute(_PLACED)  # a file of the first days has none
            return cls(database, path)
        except (sqlite3.DatabaseError, ValueError, LookupError) as error:
            database.close()
            raise _damaged(path, error) from None

    def close(self) -> None:
        """Let go of the file."""
        self.unlock()
        self._db.close()

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

    # --- facts ------------------------------------------------------------------------

    def _fact(self, name: str) -> bytes:
        row = self._db.execute("SELECT value FROM facts WHERE name = ?", (name,)).fetchone()
        if row is None:
            raise LookupError(f"it has no {name}")
        return bytes(row[0])

    def fact(self, name: str, default: bytes = b"") -> bytes:
        """Return something small that was kept."""
        try:
            return self._fact(name)
        except LookupError:
            return default

    def keep(self, name: str, value: bytes) -> None:
        """Keep something small."""
        with _write(self._db):
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
        with _write(self._db):
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
        with _write(self._db):
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
        with _write(self._db):
            for service in services:
                self._db.execute(
                    "INSERT INTO services (id, url, code) VALUES (?, ?, ?) "
                    "ON CONFLICT (id) DO UPDATE SET url = excluded.url, code = "
                    "CASE excluded.code WHEN '' THEN code ELSE excluded.code END",
                    (service.id, service.url, service.code),
                )

    def remove_service(self, service: bytes) -> None:
        """Meet there no longer."""
        with _write(self._db):
            for table, column in (("services", "id"), ("places", "service"), ("left", "service")):
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
        with _write(self._db):
            self._db.execute("DELETE FROM places WHERE hint = ?", (hint,))

    # --- records ----------------------------------------------------------------------

    @contextmanager
    def writing(self) -> Iterator[None]:
        """Write everything inside, or nothing."""
        with _write(self._db):
            yield

    def add(self, hashed: bytes, said: Said, record: Record, sealed: bytes | None = None) -> int:
        """Keep a record; return its place, or 0 if it was here or is one fork too many."""
        author, seq = record.author.raw, record.seq
        forks = self._db.execute(
            "SELECT count(*) FROM records WHERE author = ? AND seq = ?", (author, seq)
        ).fetchone()[0]
        if forks >= MOST_FORKS:
            return 0
        done = self._db.execute(
            "INSERT OR IGNORE INTO records VALUES (NULL, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
            (
                *(hashed, author, seq, record.prev, record.epoch, record.at_ms),
                *(said.text, said.signature, sealed),
            ),
        )
        return int(done.lastrowid or 0) if done.rowcount else 0

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

    def tips(self) -> dict[bytes, tuple[int, bytes]]:
        """Return all authors' last records."""
        authors = [bytes(row[0]) for row in self._db.execute("SELECT DISTINCT author FROM records")]
        found = {}
        for author in authors:
            seq, hashed = self.tip(author)
            if hashed is not None:
                found[author] = (seq, hashed)
        return found

    def missing(self) -> list[tuple[bytes, int, int]]:
        """Return the holes inside chains: author, the first number that is not here, the last."""
        rows = self._db.execute(
            "SELECT author, before + 1, seq - 1 FROM (SELECT author, seq, lag(seq) OVER "
            "(PARTITION BY author ORDER BY seq) AS before FROM records) WHERE seq > before + 1"
        )
        return [(bytes(author), int(first), int(last)) for author, first, last in rows]

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
        self, *, after: int = 0, author: bytes | None = None, seqs: tuple[int, int] | None = None
    ) -> Iterator[Kept]:
        """Yield records in the order of their arrival, or of one author in that of its chain."""
        if author is None:
            rows = self._db.execute(
                "SELECT place, hash, text, signature FROM records WHERE place > ? ORDER BY place",
                (after,),
            )
        else:
            first, last = seqs or (1, 2**53)
            rows = self._db.execute(
                "SELECT place, hash, text, signature FROM records "
                "WHERE author = ? AND seq BETWEEN ? AND ? ORDER BY seq, hash",
                (author, first, last),
            )
        for place, hashed, text, signature in rows.fetchall():
            said = Said(bytes(text), bytes(signature))
            yield Kept(place, bytes(hashed), said, Record.read(self.circle_id, said))

    def record(self, hashed: bytes) -> Kept | None:
        """Return the record of that name."""
        row = self._db.execute(
            "SELECT place, text, signature FROM records WHERE hash = ?", (hashed,)
        ).fetchone()
        if row is None:
            return None
        said = Said(bytes(row[1]), bytes(row[2]))
        return Kept(row[0], hashed, said, Record.read(self.circle_id, said))

    def drop(self, author: bytes, *, beyond: int) -> int:
        """Forget what an author said after a number: it was left out of the circle then."""
        with _write(self._db):
            done = self._db.execute(
                "DELETE FROM records WHERE author = ? AND seq > ?", (author, beyond)
            )
        return done.rowcount

    def seal(self, hashed: bytes, sealed: bytes) -> None:
        """Keep how a record is sealed: it is left everywhere, and again, in these bytes."""
        with _write(self._db):
            self._db.execute("UPDATE records SET sealed = ? WHERE hash = ?", (sealed, hashed))

    # --- what is to be left at services --------------------------------------------------

    def outgoing(
        self, service: bytes, *, epoch: int, since_ms: int, most: int
    ) -> list[tuple[bytes, bytes | None, Said]]:
        """Return own records that a service has not yet, the first said first."""
        rows = self._db.execute(
            "SELECT hash, sealed, text, signature FROM records WHERE author = ? AND epoch = ? AND "
            "at_ms >= ? AND hash NOT IN (SELECT hash FROM left WHERE service = ?) "
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
        with _write(self._db):
            self._db.execute(f"DELETE FROM left WHERE service = ?{where}", (service,))  # noqa: S608

    # --- drafts -------------------------------------------------------------------------

    def draft(self, channel: bytes, kind: str, body: Mapping[str, Any]) -> int:
        """Keep something to be said by whichever process has the circle open."""
        with _write(self._db):
            done = self._db.execute(
                "INSERT INTO drafts (channel, kind, body) VALUES (?, ?, ?)",
                (channel, kind, json.dumps(body)),
            )
        return int(done.lastrowid or 0)

    def give_up(self, number: int) -> None:
        """Drop something that cannot be said."""
        with _write(self._db):
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
        """Note by which record a draft was said; within a `writing`, with the record."""
        self._db.execute("UPDATE drafts SET hash = ? WHERE id = ?", (hashed, number))

    # --- members ------------------------------------------------------------------------

    def meet(self, presence: presences.Presence, epoch: int) -> bool:
        """Keep who a presence says it is of; False if a newer one of that member was believed."""
        with _write(self._db):
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


def _damaged(path: Path, error: Exception) -> Unusable:
    return Unusable(f"{path} is damaged: {error}", "restore it, or join again with an invite")


def _draft(row: tuple[Any, ...]) -> Draft:
    number, channel, kind, body, hashed, services = row
    return Draft(number, bytes(channel), kind, json.loads(body), hashed, services)


def _opened(path: Path | None) -> sqlite3.Connection:
    database = sqlite3.connect(
        path or ":memory:", timeout=10, isolation_level=None, check_same_thread=False
    )
    try:
        for pragma in ("journal_mode = WAL", "synchronous = FULL", "trusted_schema = OFF"):
            database.execute(f"PRAGMA {pragma}")
    except sqlite3.DatabaseError:
        database.close()
        raise
    return database


@contextmanager
def _write(database: sqlite3.Connection) -> Iterator[None]:
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
