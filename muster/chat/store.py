"""The chat's store: one SQLite file for a profile, with all circles' messages, searchable.

What is in it follows from the records in the circles' own files, but for what was read, what is
set, and felund circles, which have no other place: it can be made again. Several processes may
use it at once; what follows from records is written together with up to where they were taken.
"""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, Self

from muster.chat.facts import Fact
from muster.circle.file import Unusable
from muster.database import opened, run, writing
from muster.errors import Hinted

VERSION = 1
NAME = "chat.sqlite3"
LEAST_WORD = 3
"""Shorter words are looked for without the index."""

MOST_FACTS = 5_000
"""How many facts of one author are read, the first of its chain."""

MOST_EMOJI = 16
"""How many emoji of one author on one record count: those that sort first."""

PAGE = 50

_TABLES = """
CREATE TABLE settings (name TEXT PRIMARY KEY, value TEXT NOT NULL) WITHOUT ROWID;
CREATE TABLE circles (
    id BLOB PRIMARY KEY, kind TEXT NOT NULL, place INTEGER NOT NULL DEFAULT 0,
    facts INTEGER NOT NULL DEFAULT 0, applied INTEGER NOT NULL DEFAULT -1,
    evicted INTEGER NOT NULL DEFAULT 0, file BLOB NOT NULL DEFAULT x'',
    at BLOB NOT NULL DEFAULT x'') WITHOUT ROWID;
CREATE TABLE facts (
    circle BLOB, hash BLOB, author BLOB NOT NULL, seq INTEGER NOT NULL, at_ms INTEGER NOT NULL,
    channel BLOB NOT NULL, kind TEXT NOT NULL, body TEXT NOT NULL,
    PRIMARY KEY (circle, hash)) WITHOUT ROWID;
CREATE INDEX facts_of ON facts (circle, author, seq);
CREATE TABLE talk (
    circle BLOB, hash BLOB, channel BLOB NOT NULL, shown_ms INTEGER NOT NULL,
    PRIMARY KEY (circle, hash)) WITHOUT ROWID;
CREATE INDEX talk_since ON talk (circle, channel, shown_ms);
CREATE TABLE messages (
    id INTEGER PRIMARY KEY AUTOINCREMENT, circle BLOB NOT NULL, hash BLOB NOT NULL,
    channel BLOB NOT NULL, author BLOB NOT NULL, seq INTEGER NOT NULL, at_ms INTEGER NOT NULL,
    shown_ms INTEGER NOT NULL, closed INTEGER NOT NULL, name TEXT NOT NULL, said TEXT NOT NULL,
    text TEXT NOT NULL, edited INTEGER NOT NULL DEFAULT 0, deleted INTEGER NOT NULL DEFAULT 0,
    reply BLOB, UNIQUE (circle, hash));
CREATE INDEX shown ON messages (circle, channel, shown_ms, hash);
CREATE INDEX newest ON messages (circle, channel, id);
CREATE TABLE edits (
    circle BLOB, hash BLOB, "of" BLOB NOT NULL, author BLOB NOT NULL, seq INTEGER NOT NULL,
    channel BLOB NOT NULL, closed INTEGER NOT NULL, text TEXT NOT NULL,
    PRIMARY KEY (circle, hash)) WITHOUT ROWID;
CREATE INDEX edits_of ON edits (circle, "of", seq);
CREATE INDEX edits_by ON edits (circle, channel, author);
CREATE TABLE deleted (
    circle BLOB, "of" BLOB, author BLOB, PRIMARY KEY (circle, "of", author)) WITHOUT ROWID;
CREATE TABLE reactions (
    circle BLOB, "of" BLOB, author BLOB, emoji TEXT, seq INTEGER NOT NULL, hash BLOB NOT NULL,
    channel BLOB NOT NULL, closed INTEGER NOT NULL, "on" INTEGER NOT NULL,
    PRIMARY KEY (circle, "of", author, emoji)) WITHOUT ROWID;
CREATE TABLE closed (
    circle BLOB, hash BLOB, channel BLOB NOT NULL, source BLOB NOT NULL,
    PRIMARY KEY (circle, hash)) WITHOUT ROWID;
CREATE INDEX closed_under ON closed (circle, channel, source);
CREATE TABLE cuts (
    circle BLOB, channel BLOB, author BLOB, last INTEGER NOT NULL,
    PRIMARY KEY (circle, channel, author)) WITHOUT ROWID;
CREATE TABLE outbox (
    id INTEGER PRIMARY KEY AUTOINCREMENT, circle BLOB NOT NULL, channel BLOB NOT NULL,
    text TEXT NOT NULL);
CREATE TABLE marks (
    circle BLOB, channel BLOB, id INTEGER NOT NULL, PRIMARY KEY (circle, channel)) WITHOUT ROWID;
CREATE TABLE taken (
    circle BLOB, hash BLOB, node BLOB, PRIMARY KEY (circle, hash, node)) WITHOUT ROWID;
CREATE TABLE present (
    circle BLOB, node BLOB, member BLOB NOT NULL, name TEXT NOT NULL, path TEXT NOT NULL,
    words TEXT NOT NULL, at_ms INTEGER NOT NULL, PRIMARY KEY (circle, node)) WITHOUT ROWID;
CREATE TABLE states (
    circle BLOB, service TEXT, state TEXT NOT NULL, why TEXT NOT NULL,
    PRIMARY KEY (circle, service)) WITHOUT ROWID;
CREATE VIRTUAL TABLE words USING fts5 (
    text, content = 'messages', content_rowid = 'id', tokenize = 'trigram');
CREATE TRIGGER words_in AFTER INSERT ON messages BEGIN
    INSERT INTO words (rowid, text) VALUES (new.id, new.text); END;
CREATE TRIGGER words_out AFTER DELETE ON messages BEGIN
    INSERT INTO words (words, rowid, text) VALUES ('delete', old.id, old.text); END;
CREATE TRIGGER words_new AFTER UPDATE OF text ON messages BEGIN
    INSERT INTO words (words, rowid, text) VALUES ('delete', old.id, old.text);
    INSERT INTO words (rowid, text) VALUES (new.id, new.text); END;
"""

_OF_RECORDS = ("facts", "talk", "messages", "edits", "deleted", "reactions", "closed", "cuts")
_DERIVED = (*_OF_RECORDS, "taken", "present", "states")

PathKind = Literal["tcp", "webrtc", "relay", "none"]


class StoreFailed(Hinted):
    """The store cannot be written: the disk is full, or it may only be read."""


@dataclass(frozen=True, slots=True)
class Row:
    """A text to be kept, opened if it was closed."""

    hash: bytes
    channel: bytes
    author: bytes
    seq: int
    at_ms: int
    shown_ms: int
    closed: bool
    name: str
    text: str
    reply: bytes | None


@dataclass(frozen=True, slots=True)
class Message:
    """A text as it is shown: edited, deleted, with reactions (by emoji, whose); authors by id."""

    id: int
    circle: bytes
    hash: bytes
    channel: bytes
    author: bytes
    seq: int
    at_ms: int
    shown_ms: int
    name: str
    text: str
    edited: bool
    deleted: bool
    reply: bytes | None
    closed: bool
    reactions: Mapping[str, tuple[bytes, ...]]


@dataclass(frozen=True, slots=True)
class View:
    """A channel, and whether it is private: then only what was closed counts in it."""

    circle: bytes
    channel: bytes
    private: bool = False


@dataclass(frozen=True, slots=True)
class PresentNode:
    """A node that is there, as the process that has the circle open last saw it."""

    node: bytes
    member: bytes
    name: str
    path: PathKind
    words: frozenset[str]
    at_ms: int


class Store:
    """The file, read and written; None keeps it in memory."""

    def __init__(self, database: sqlite3.Connection, path: Path | None) -> None:
        self._db, self.path = database, path

    @classmethod
    def open(cls, path: Path | None) -> Self:
        """Open the store of a profile, or make it; raises `Unusable`."""
        if path is not None:
            try:
                path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
                with suppress(FileExistsError):
                    path.touch(mode=0o600, exist_ok=False)
            except OSError as error:
                raise Unusable(f"cannot use {path}: {_reason(error)}") from None
        try:
            database = opened(path, synchronous="NORMAL", searchable=True)
        except sqlite3.DatabaseError as error:
            raise _unusable(path, error) from None
        try:
            version = _made(database)
        except sqlite3.DatabaseError as error:
            database.close()
            raise _unusable(path, error) from None
        if version > VERSION:
            database.close()
            raise Unusable(
                f"{path} is of version {version}, which this muster does not know",
                "update muster",
            )
        return cls(database, path)

    def close(self) -> None:
        """Let go of the file."""
        self._db.close()

    @contextmanager
    def writing(self) -> Iterator[None]:
        """Write everything inside, or nothing; raises `StoreFailed`."""
        try:
            with writing(self._db):
                yield
        except sqlite3.OperationalError as error:
            raise StoreFailed(f"cannot write {self.path}: {error}", "is the disk full?") from None

    # --- settings ---------------------------------------------------------------------------

    def setting(self, name: str, default: str = "") -> str:
        """Return what is set."""
        row = self._db.execute("SELECT value FROM settings WHERE name = ?", (name,)).fetchone()
        return str(row[0]) if row else default

    def put(self, name: str, value: str) -> None:
        """Set something."""
        with self.writing():
            self._db.execute("INSERT OR REPLACE INTO settings VALUES (?, ?)", (name, value))

    def settings(self) -> dict[str, str]:
        """Return all that is set."""
        return dict(self._db.execute("SELECT name, value FROM settings ORDER BY name"))

    # --- circles ----------------------------------------------------------------------------

    def know(self, circle: bytes, kind: str) -> None:
        """Keep that there is a circle."""
        with self.writing():
            self._db.execute(
                "INSERT OR IGNORE INTO circles (id, kind) VALUES (?, ?)", (circle, kind)
            )

    def place(self, circle: bytes) -> tuple[int, int]:
        """Return up to which place records were taken, and how often facts have changed."""
        row = self._db.execute(
            "SELECT place, facts FROM circles WHERE id = ?", (circle,)
        ).fetchone()
        return (int(row[0]), int(row[1])) if row else (0, 0)

    def move(self, circle: bytes, place: int, at: bytes, *, facts: bool) -> None:
        """Note up to which place records were taken, and which one is there.

        Within a `writing`.
        """
        self._db.execute(
            "UPDATE circles SET place = ?, at = ?, facts = facts + ? WHERE id = ?",
            (place, at, int(facts), circle),
        )

    def is_applied(self, circle: bytes) -> bool:
        """Say whether what follows from facts was done since they changed last."""
        row = self._db.execute(
            "SELECT facts = applied FROM circles WHERE id = ?", (circle,)
        ).fetchone()
        return bool(row and row[0])

    def apply(self, circle: bytes, version: int) -> None:
        """Note that what follows from facts of a version was done; within a `writing`."""
        self._db.execute("UPDATE circles SET applied = ? WHERE id = ?", (version, circle))

    def taken_from(self, circle: bytes) -> tuple[bytes, int, int, bytes]:
        """Return from which file records were taken, how many had gone from it, and up to where."""
        row = self._db.execute(
            "SELECT file, evicted, place, at FROM circles WHERE id = ?", (circle,)
        ).fetchone()
        return (bytes(row[0]), row[1], row[2], bytes(row[3])) if row else (b"", 0, 0, b"")

    def begin_again(self, circle: bytes, file: bytes, evicted: int) -> None:
        """Drop what follows from records, to take them again; what was read stays read."""
        with self.writing():
            read = self._db.execute(
                "SELECT k.channel, (SELECT hash FROM messages AS m WHERE m.circle = k.circle AND "
                "m.channel = k.channel AND m.id <= k.id ORDER BY m.id DESC LIMIT 1) "
                "FROM marks AS k WHERE circle = ?",
                (circle,),
            ).fetchall()
            for table in _OF_RECORDS:
                self._db.execute(f"DELETE FROM {table} WHERE circle = ?", (circle,))
            self._db.execute(
                "UPDATE circles SET place = 0, at = x'', facts = facts + 1, file = ?, evicted = ? "
                "WHERE id = ?",
                (file, evicted, circle),
            )
            self._db.execute("DELETE FROM marks WHERE circle = ?", (circle,))
            for channel, hashed in read:
                self.put(_read_again(circle, channel), "" if hashed is None else hashed.hex())

    def read_again(self, circle: bytes) -> None:
        """Let what was read be read, after all was taken again; within a `writing`."""
        prefix = _read_again(circle, b"")
        for name, hashed in self.settings().items():
            if not name.startswith(prefix):
                continue
            row = self._db.execute(
                "SELECT channel, id FROM messages WHERE circle = ? AND hash = ?",
                (circle, bytes.fromhex(hashed)),
            ).fetchone()
            if row is not None:
                self.read(circle, bytes(row[0]), int(row[1]))
            self._db.execute("DELETE FROM settings WHERE name = ?", (name,))

    def forget(self, circle: bytes) -> None:
        """Drop everything of a circle."""
        with self.writing():
            for table in (*_DERIVED, "marks", "outbox"):
                self._db.execute(f"DELETE FROM {table} WHERE circle = ?", (circle,))
            self._db.execute("DELETE FROM circles WHERE id = ?", (circle,))

    # --- facts --------------------------------------------------------------------------------

    def add_fact(self, circle: bytes, fact: Fact) -> bool:
        """Keep a fact; within a `writing`. Say whether it is new."""
        done = self._db.execute(
            "INSERT OR IGNORE INTO facts VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
            (
                *(circle, fact.hash, fact.author, fact.seq, fact.at_ms, fact.channel, fact.kind),
                json.dumps(dict(fact.body)),
            ),
        )
        return bool(done.rowcount)

    def facts(self, circle: bytes) -> Iterator[Fact]:
        """Yield all facts of a circle, of each author the first of its chain."""
        rows = self._db.execute(
            "SELECT hash, author, seq, at_ms, channel, kind, body FROM facts WHERE circle = ? "
            "ORDER BY author, seq, hash",
            (circle,),
        )
        author, count = b"", 0
        for hashed, by, seq, at_ms, channel, kind, body in rows:
            author, count = (by, count + 1) if by == author else (by, 1)
            if count <= MOST_FACTS:
                yield Fact(hashed, by, seq, at_ms, channel, kind, json.loads(body))

    # --- talk ---------------------------------------------------------------------------------

    def add_talk(self, circle: bytes, hashed: bytes, channel: bytes, shown_ms: int) -> None:
        """Keep that a record expires with the texts of its channel; within a `writing`."""
        self._db.execute(
            "INSERT OR IGNORE INTO talk VALUES (?, ?, ?, ?)", (circle, hashed, channel, shown_ms)
        )

    def add_text(self, circle: bytes, row: Row) -> bool:
        """Keep a text; within a `writing`. Say whether it is new."""
        done = self._db.execute(
            "INSERT OR IGNORE INTO messages (circle, hash, channel, author, seq, at_ms, shown_ms, "
            "closed, name, said, text, reply) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
            (
                *(circle, row.hash, row.channel, row.author, row.seq, row.at_ms, row.shown_ms),
                *(int(row.closed), row.name, row.text, row.text, row.reply),
            ),
        )
        return bool(done.rowcount)

    def add_edit(
        self,
        circle: bytes,
        hashed: bytes,
        *,
        of: bytes,
        author: bytes,
        seq: int,
        channel: bytes,
        closed: bool,
        text: str,
    ) -> None:
        """Keep an edit; within a `writing`."""
        self._db.execute(
            "INSERT OR IGNORE INTO edits VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
            (circle, hashed, of, author, seq, channel, int(closed), text),
        )

    def add_deletion(self, circle: bytes, *, of: bytes, author: bytes) -> None:
        """Keep that an author has deleted a text, or an edit of one; within a `writing`."""
        self._db.execute("INSERT OR IGNORE INTO deleted VALUES (?, ?, ?)", (circle, of, author))
        row = self._db.execute(
            'SELECT "of" FROM edits WHERE circle = ? AND hash = ?', (circle, of)
        ).fetchone()
        self.settle(circle, of if row is None else bytes(row[0]), by=author)

    def add_reaction(
        self,
        circle: bytes,
        hashed: bytes,
        *,
        of: bytes,
        author: bytes,
        emoji: str,
        seq: int,
        channel: bytes,
        closed: bool,
        on: bool,
    ) -> None:
        """Keep a reaction, if it is its author's last of that emoji; within a `writing`."""
        self._db.execute(
            "INSERT INTO reactions VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?) "
            'ON CONFLICT (circle, "of", author, emoji) DO UPDATE SET seq = excluded.seq, '
            "hash = excluded.hash, channel = excluded.channel, closed = excluded.closed, "
            '"on" = excluded."on" WHERE excluded.seq > seq '
            "OR (excluded.seq = seq AND excluded.hash < hash)",
            (circle, of, author, emoji, seq, hashed, channel, int(closed), int(on)),
        )
        self._db.execute(
            'DELETE FROM reactions WHERE circle = ? AND "of" = ? AND author = ? AND emoji NOT IN '
            '(SELECT emoji FROM reactions WHERE circle = ? AND "of" = ? AND author = ? '
            "ORDER BY emoji LIMIT ?)",
            (circle, of, author, circle, of, author, MOST_EMOJI),
        )

    def cut(self, circle: bytes, cuts: Mapping[tuple[bytes, bytes], int]) -> None:
        """Keep up to where removed members count: by channel and member. Within a `writing`."""
        known = {
            (bytes(channel), bytes(author)): last
            for channel, author, last in self._db.execute(
                "SELECT channel, author, last FROM cuts WHERE circle = ?", (circle,)
            )
        }
        if known == cuts:
            return
        self._db.execute("DELETE FROM cuts WHERE circle = ?", (circle,))
        self._db.executemany(
            "INSERT INTO cuts VALUES (?, ?, ?, ?)",
            [(circle, channel, author, last) for (channel, author), last in cuts.items()],
        )
        for channel, author in {*known, *cuts}:
            for of in self._edited_by(circle, channel, author):
                self.settle(circle, of)

    def settle(self, circle: bytes, of: bytes, *, by: bytes | None = None) -> None:
        """Decide what a text says now: deleted, or as its author's last edit has it.

        What has come *by* somebody else than its author decides nothing. Within a `writing`.
        """
        row = self._db.execute(
            "SELECT author, channel, closed, said FROM messages WHERE circle = ? AND hash = ?",
            (circle, of),
        ).fetchone()
        if row is None:
            return
        author, channel, closed, said = row
        if by is not None and by != author:
            return
        gone = self._db.execute(
            'SELECT 1 FROM deleted WHERE circle = ? AND "of" = ? AND author = ?',
            (circle, of, author),
        ).fetchone()
        if gone is not None:
            said, text, edited = "", "", 0
        else:
            edit = self._db.execute(
                'SELECT seq, text FROM edits AS m WHERE circle = ? AND "of" = ? AND author = ? AND '
                f"channel = ? AND closed = ? AND {_HEARD} AND NOT EXISTS (SELECT 1 FROM deleted "
                'AS d WHERE d.circle = m.circle AND d."of" = m.hash AND d.author = m.author) '
                "ORDER BY seq DESC, hash LIMIT 1",
                (circle, of, author, channel, closed),
            ).fetchone()
            edited, text = edit if edit is not None else (0, said)
        self._db.execute(
            "UPDATE messages SET said = ?, text = ?, edited = ?, deleted = ? "
            "WHERE circle = ? AND hash = ? AND (text != ? OR deleted != ? OR edited != ?)",
            (
                *(said, text, edited, int(gone is not None), circle, of),
                *(text, int(gone is not None), edited),
            ),
        )

    def _edited_by(self, circle: bytes, channel: bytes, author: bytes) -> set[bytes]:
        """Return the texts that an author has edited in a channel."""
        rows = self._db.execute(
            'SELECT DISTINCT "of" FROM edits WHERE circle = ? AND channel = ? AND author = ?',
            (circle, channel, author),
        )
        return {bytes(row[0]) for row in rows}

    def add_closed(self, circle: bytes, hashed: bytes, channel: bytes, source: bytes) -> None:
        """Keep that a record could not be opened so far; within a `writing`."""
        self._db.execute(
            "INSERT OR IGNORE INTO closed VALUES (?, ?, ?, ?)", (circle, hashed, channel, source)
        )

    def closing(self, circle: bytes, channel: bytes) -> set[bytes]:
        """Return the records that made the keys of what could not be opened so far."""
        rows = self._db.execute(
            "SELECT DISTINCT source FROM closed WHERE circle = ? AND channel = ?", (circle, channel)
        )
        return {bytes(row[0]) for row in rows}

    def closed_under(self, circle: bytes, channel: bytes, source: bytes) -> list[bytes]:
        """Return what could not be opened so far of those that name a key."""
        rows = self._db.execute(
            "SELECT hash FROM closed WHERE circle = ? AND channel = ? AND source = ?",
            (circle, channel, source),
        )
        return [bytes(row[0]) for row in rows]

    def was_opened(self, circle: bytes, hashed: bytes) -> None:
        """Note that a record is open now; within a `writing`."""
        self._db.execute("DELETE FROM closed WHERE circle = ? AND hash = ?", (circle, hashed))

    def expire(self, circle: bytes, channel: bytes, before_ms: int) -> list[bytes]:
        """Drop the talk of a channel that is older; return the records to be dropped too."""
        rows = self._db.execute(
            "SELECT hash FROM talk WHERE circle = ? AND channel = ? AND shown_ms < ?",
            (circle, channel, before_ms),
        )
        hashes = [bytes(row[0]) for row in rows]
        if hashes:
            with self.writing():
                for table in ("talk", "messages", "edits", "reactions", "closed", "facts"):
                    self._db.executemany(
                        f"DELETE FROM {table} WHERE circle = ? AND hash = ?",
                        [(circle, hashed) for hashed in hashes],
                    )
        return hashes

    def channels_with_talk(self, circle: bytes) -> list[bytes]:
        """Return the channels in which something was said."""
        rows = self._db.execute("SELECT DISTINCT channel FROM talk WHERE circle = ?", (circle,))
        return [bytes(row[0]) for row in rows]

    # --- messages -----------------------------------------------------------------------------

    def page(
        self,
        view: View,
        *,
        before: tuple[int, bytes] | None = None,
        after: tuple[int, bytes] | None = None,
        most: int = PAGE,
    ) -> list[Message]:
        """Return messages of a channel, the oldest first: the newest ones, or those beside a place.

        A place is `shown_ms` and hash.
        """
        where, values = _counts(view)
        order = "DESC"
        if before is not None:
            where += " AND (shown_ms, hash) < (?, ?)"
            values += before
        elif after is not None:
            where += " AND (shown_ms, hash) > (?, ?)"
            values += after
            order = "ASC"
        rows = self._db.execute(
            f"SELECT {_COLUMNS} FROM messages AS m WHERE {where} "
            f"ORDER BY shown_ms {order}, hash {order} LIMIT ?",
            (*values, most),
        ).fetchall()
        return self._messages(rows if order == "ASC" else rows[::-1])

    def message(self, circle: bytes, hashed: bytes) -> Message | None:
        """Return one message."""
        rows = self._db.execute(
            f"SELECT {_COLUMNS} FROM messages WHERE circle = ? AND hash = ?",
            (circle, hashed),
        ).fetchall()
        return self._messages(rows)[0] if rows else None

    def since(self, circle: bytes, after: int, *, until: int) -> Iterator[Message]:
        """Yield messages in the order in which they came, between two numbers of them.

        Whether what is closed, or is not, counts in its channel is left to be seen.
        """
        while True:
            rows = self._db.execute(
                f"SELECT {_COLUMNS} FROM messages AS m WHERE circle = ? AND id > ? AND id <= ? "
                f"AND deleted = 0 AND {_HEARD} ORDER BY id LIMIT ?",
                (circle, after, until, PAGE),
            ).fetchall()
            yield from self._messages(rows)
            if len(rows) < PAGE:
                return
            after = rows[-1][0]

    def newest(self) -> int:
        """Return the number of the message that came last."""
        (number,) = self._db.execute("SELECT coalesce(max(id), 0) FROM messages").fetchone()
        return int(number)

    def search(self, view: View, words: str, *, most: int = PAGE) -> list[Message]:
        """Return the newest messages of a channel that have all these words, the oldest first."""
        where, values = _counts(view)
        matches = [word for word in words.split() if len(word) >= LEAST_WORD]
        if matches:
            where += " AND id IN (SELECT rowid FROM words WHERE words MATCH ?)"
            values += (" ".join(f'"{word.replace(chr(34), chr(34) * 2)}"' for word in matches),)
        for word in words.split():
            if len(word) < LEAST_WORD:
                where += " AND text LIKE ? ESCAPE '\\'"
                values += (f"%{_like(word)}%",)
        rows = self._db.execute(
            f"SELECT {_COLUMNS} FROM messages AS m WHERE {where} "
            "ORDER BY shown_ms DESC, hash DESC LIMIT ?",
            (*values, most),
        ).fetchall()
        return self._messages(rows[::-1])

    def _messages(self, rows: list[tuple[Any, ...]]) -> list[Message]:
        found = []
        for number, circle, hashed, channel, author, seq, at_ms, shown_ms, *rest in rows:
            name, text, edited, deleted, reply, closed = rest
            reactions: dict[str, list[bytes]] = {}
            for emoji, by in self._db.execute(
                'SELECT emoji, author FROM reactions AS m WHERE circle = ? AND "of" = ? '
                f'AND "on" = 1 AND channel = ? AND closed = ? AND {_HEARD} '
                "ORDER BY emoji, author LIMIT 500",
                (circle, hashed, channel, closed),
            ):
                reactions.setdefault(emoji, []).append(bytes(by))
            found.append(
                Message(
                    *(number, circle, hashed, channel, author, seq, at_ms, shown_ms, name, text),
                    edited=bool(edited),
                    deleted=bool(deleted),
                    reply=reply,
                    closed=bool(closed),
                    reactions={emoji: tuple(by) for emoji, by in reactions.items()},
                )
            )
        return found

    # --- what a felund circle is to be told ---------------------------------------------

    def put_out(self, circle: bytes, channel: bytes, text: str) -> None:
        """Keep a text that is to be sent."""
        with self.writing():
            self._db.execute(
                "INSERT INTO outbox (circle, channel, text) VALUES (?, ?, ?)",
                (circle, channel, text),
            )

    def outbox(self, circle: bytes) -> list[tuple[int, bytes, str]]:
        """Return the texts that are to be sent: number, channel and text."""
        return self._db.execute(
            "SELECT id, channel, text FROM outbox WHERE circle = ? ORDER BY id", (circle,)
        ).fetchall()

    def sent(self, number: int) -> None:
        """Note that a text was sent; within a `writing`, with the message."""
        self._db.execute("DELETE FROM outbox WHERE id = ?", (number,))

    # --- what was read --------------------------------------------------------------------------

    def mark(self, circle: bytes, channel: bytes) -> int:
        """Return the number of the last message of a channel that was read."""
        row = self._db.execute(
            "SELECT id FROM marks WHERE circle = ? AND channel = ?", (circle, channel)
        ).fetchone()
        return int(row[0]) if row else 0

    def read(self, circle: bytes, channel: bytes, number: int) -> None:
        """Note that a channel was read up to a message."""
        with self.writing():
            self._db.execute(
                "INSERT INTO marks VALUES (?, ?, ?) ON CONFLICT (circle, channel) DO UPDATE SET "
                "id = max(id, excluded.id)",
                (circle, channel, number),
            )

    def unread(self, view: View, *, but: Iterable[bytes] = ()) -> int:
        """Return how many messages of a channel were not read, those of some authors aside."""
        where, values = _counts(view)
        own = tuple(but)
        where += f" AND author NOT IN ({', '.join('?' * len(own))})"
        (count,) = self._db.execute(
            f"SELECT count(*) FROM (SELECT 1 FROM messages AS m WHERE {where} "
            "AND id > ? LIMIT 1000)",
            (*values, *own, self.mark(view.circle, view.channel)),
        ).fetchone()
        return int(count)

    # --- who is there, and what was delivered -----------------------------------------------------

    def taken_by(self, circle: bytes, hashes: Iterable[bytes], node: bytes) -> None:
        """Note that a node has taken records directly."""
        with self.writing():
            self._db.executemany(
                "INSERT OR IGNORE INTO taken SELECT circle, hash, ? FROM messages "
                "WHERE circle = ? AND hash = ?",
                [(node, circle, hashed) for hashed in hashes],
            )

    def takers(self, circle: bytes, hashed: bytes) -> int:
        """Return how many nodes have taken a record directly."""
        (count,) = self._db.execute(
            "SELECT count(*) FROM taken WHERE circle = ? AND hash = ?", (circle, hashed)
        ).fetchone()
        return int(count)

    def show_present(self, circle: bytes, nodes: Iterable[PresentNode]) -> None:
        """Keep who is there now."""
        with self.writing():
            self._db.execute("DELETE FROM present WHERE circle = ?", (circle,))
            self._db.executemany(
                "INSERT OR REPLACE INTO present VALUES (?, ?, ?, ?, ?, ?, ?)",
                [
                    (
                        *(circle, one.node, one.member, one.name, one.path),
                        *(" ".join(sorted(one.words)), one.at_ms),
                    )
                    for one in nodes
                ],
            )

    def present(self, circle: bytes) -> list[PresentNode]:
        """Return who was there when the process that has the circle open last looked."""
        rows = self._db.execute(
            "SELECT node, member, name, path, words, at_ms FROM present WHERE circle = ? "
            "ORDER BY name, node",
            (circle,),
        )
        return [
            PresentNode(node, member, name, path, frozenset(words.split()), at_ms)
            for node, member, name, path, words, at_ms in rows
        ]

    def show_state(self, circle: bytes, service: str, state: str, why: str) -> None:
        """Keep how a service is reached."""
        with self.writing():
            self._db.execute(
                "INSERT OR REPLACE INTO states VALUES (?, ?, ?, ?)", (circle, service, state, why)
            )

    def states(self, circle: bytes) -> list[tuple[str, str, str]]:
        """Return how services are reached: URL, state and why not better."""
        return self._db.execute(
            "SELECT service, state, why FROM states WHERE circle = ? ORDER BY service", (circle,)
        ).fetchall()


_COLUMNS = (
    "id, circle, hash, channel, author, seq, at_ms, shown_ms, name, text, edited, deleted, reply, "
    "closed"
)


_HEARD = (
    "NOT EXISTS (SELECT 1 FROM cuts AS c WHERE c.circle = m.circle AND c.channel = m.channel "
    "AND c.author = m.author AND m.seq > c.last)"
)
"""Not said in a channel by somebody who was removed from it before."""


def _counts(view: View) -> tuple[str, tuple[Any, ...]]:
    """Return what the messages of a channel are that count: a condition, and its values."""
    where = f"circle = ? AND channel = ? AND closed = ? AND deleted = 0 AND {_HEARD}"
    return where, (view.circle, view.channel, int(view.private))


def _like(word: str) -> str:
    return word.replace("\\", "\\\\").replace("%", "\\%").replace("_", "\\_")


def _made(database: sqlite3.Connection) -> int:
    """Make the tables that are not there; return which version the file is of."""
    with writing(database):  # another process may be about to
        (version,) = database.execute("PRAGMA user_version").fetchone()
        if version < VERSION:
            run(database, _TABLES)
            database.execute(f"PRAGMA user_version = {VERSION}")
            version = VERSION
        database.execute("SELECT count(*) FROM sqlite_schema").fetchone()
    return int(version)


def _unusable(path: Path | None, error: Exception) -> Unusable:
    return Unusable(
        f"{path} is damaged or cannot be written: {error}",
        "move it away: it is made again from the circles, but for what was read and set",
    )


def _reason(error: OSError) -> str:
    return (error.strerror or str(error)).lower()


def _read_again(circle: bytes, channel: bytes) -> str:
    return f"read {circle.hex()} {channel.hex()}"
