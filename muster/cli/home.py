"""Home: what a member keeps between two commands, readable by nobody else.

``MUSTER_HOME`` or ``~/.muster`` holds one file for each circle, and one that names the circle
to use by default. A circle of version 2 is a file of SQLite with all that is kept of it
(`muster.circle.file`). One of the felund dialect is JSON, its secret and where it meets, with
another file for its cursors, how far `listen` has read; the node's name there is a file too.
Those are replaced whole, so a crash leaves the old or the new.
"""

from __future__ import annotations

import json
import os
import re
import secrets
import shlex
import unicodedata
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Self
from urllib.parse import quote, unquote

from muster import whole_file
from muster.circle.file import MARK
from muster.cli.cleaning import seen
from muster.cli.output import Failure, Misuse
from muster.felund.circle import Circle

NAME_BYTES = 64
"""How long a circle's name may be, as in an invite."""

DEFAULT_NAME = "circle"

SUFFIX = ".muster2"
"""Of the file of a circle of version 2."""


@dataclass(frozen=True, slots=True)
class Membership:
    """A circle this home belongs to: our name for it, and where it meets."""

    name: str
    circle: Circle
    base_url: str


class Home:
    """The folder, read and written."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._circles = path / "circles"
        self._cursors = path / "cursors"
        self._default = path / "default.json"

    @classmethod
    def from_environment(cls, environment: Mapping[str, str] = os.environ) -> Self:
        """Find the home: ``MUSTER_HOME``, else ``~/.muster``."""
        named = environment.get("MUSTER_HOME") or "~/.muster"
        try:
            path = Path(named).expanduser()
        except RuntimeError:  # there is no HOME, and whoever we are has no entry
            path = None
        if path is None or (named.startswith("~") and environment.get("HOME") == ""):
            raise Failure(
                f"there is no home folder for {named}", "HOME or MUSTER_HOME=DIR names one"
            )
        return cls(path)

    def node_id(self) -> str:
        """Return this home's node id; made at the first use."""
        path = self.path / "node.json"
        if not path.exists():
            fresh = json.dumps({"node_id": secrets.token_hex(12)})
            with suppress(FileExistsError):  # another command was first, and its id counts
                self._write(path, fresh, new=True)
        node_id = self._read(path).get("node_id")
        if not isinstance(node_id, str) or not re.fullmatch(r"[!-~]{8,128}", node_id):
            raise _damaged(path)
        return node_id

    # --- circles --------------------------------------------------------------

    def memberships(self) -> list[Membership]:
        """Return all circles, by name."""
        found = [self._membership(path) for path in self._circles.glob("*.json")]
        return sorted(found, key=lambda membership: membership.name)

    def names(self) -> list[str]:
        """Return the names of all circles, of either kind."""
        kinds = (self._circles.glob(f"*{end}") for end in (".json", SUFFIX))
        return sorted({_name_of(path) for found in kinds for path in found})

    def file_of(self, name: str) -> Path:
        """Return where a circle of version 2 is kept."""
        return self._circles / f"{_stem(name)}{SUFFIX}"

    def is_ours(self, name: str) -> bool:
        """Say whether a circle is of version 2."""
        return self.file_of(name).exists()

    def usual_name(self) -> str | None:
        """Return the circle that is meant where none is named: the only one, or that of `use`."""
        found = self.names()
        if len(found) == 1:
            return found[0]
        used = self._used()
        return next((name for name in found if name == used), None)

    def usual(self) -> Membership | None:
        """Return the circle that is meant where none is named, if it is of the felund dialect."""
        name = self.usual_name()
        return next((one for one in self.memberships() if one.name == name), None)

    def use(self, name: str) -> None:
        """Let a circle be the one that is meant where none is named."""
        self._write(self._default, json.dumps({"circle": name}))

    def chosen(self, name: str | None) -> Membership:
        """Return the felund circle of that name; without a name, the usual one."""
        chosen = self.which(name)
        for membership in self.memberships():
            if membership.name == chosen:
                return membership
        raise Misuse(
            f"'{chosen}' is a circle of version 2", "this is for circles of the felund dialect"
        )

    def which(self, name: str | None) -> str:
        """Return the name of the circle that is meant; without a name, the usual one."""
        found = self.names()
        if name is not None:
            if (wanted := _titled(name)) in found:
                return wanted
            raise Misuse(f"there is no circle '{name}'", _names(found))
        usual = self.usual_name()
        if usual is not None:
            return usual
        if not found:
            raise Misuse(
                "there is no circle yet",
                "'muster circle new' makes one, 'muster circle join CODE' enters somebody's",
            )
        raise Misuse(
            "there are several circles",
            f"choose one with --circle: {_names(found)}; or for good with 'muster circle use NAME' "
            "('muster circle rename' and 'muster circle leave' tidy up)",
        )

    def keep(self, membership: Membership, *, new: bool = False) -> None:
        """Keep a circle; as a *new* one only if none has its name."""
        path = self._json_of(membership)
        if new and self.is_ours(membership.name):
            raise _taken(membership.name)
        content = {"secret": membership.circle.secret.hex(), "base_url": membership.base_url}
        try:
            self._write(path, json.dumps(content), new=new)
        except FileExistsError:
            raise _taken(membership.name) from None

    def rename(self, membership: Membership, name: str) -> Membership:
        """Give a circle another name; an interruption leaves it under one of the two."""
        self.check_free(name)
        usual, renamed = self.usual(), replace(membership, name=name)
        self.keep(renamed, new=True)
        if (cursors := self._cursors_of(membership)).exists():
            self._write(self._cursors_of(renamed), json.dumps(self._read(cursors)))
        if usual == membership:
            self.use(name)
        self.forget(membership)
        return renamed

    def forget(self, membership: Membership) -> None:
        """Remove a circle, how far it was read, and that it was the default."""
        paths = [self._json_of(membership), self._cursors_of(membership)]
        if self._used() == membership.name:
            paths.append(self._default)
        for path in paths:
            try:
                path.unlink(missing_ok=True)
            except OSError as error:
                raise _unusable(error, path) from None

    def check_free(self, name: str) -> None:
        """Raise `Misuse` if a circle has that name."""
        if name.casefold() in self._taken():
            raise Misuse(f"there is a circle '{name}' already", "choose another name")

    def free_name(self, title: str = "") -> str:
        """Return a name that no circle has: a circle's own, with a number where that is taken."""
        taken, own = self._taken(), _titled(title).lstrip("-") or DEFAULT_NAME
        number, name = 1, _cut(own)
        while name.casefold() in taken:
            number += 1
            name = f"{_cut(own, NAME_BYTES - 5)}-{number}"
        return name

    def _taken(self) -> set[str]:
        """Return all names as file systems see them that know no capitals."""
        return {name.casefold() for name in self.names()}

    # --- circles of version 2 -------------------------------------------------

    def place_for(self, name: str) -> Path:
        """Return where a new circle of version 2 is kept; raises `Misuse` if the name is taken."""
        if name.casefold() in self._taken():
            raise _taken(name)
        try:
            self.path.mkdir(mode=0o700, parents=True, exist_ok=True)
            self._circles.mkdir(mode=0o700, exist_ok=True)
        except OSError as error:
            raise _unusable(error, self._circles) from None
        return self.file_of(name)

    def rename_ours(self, name: str, to: str) -> None:
        """Give a circle of version 2 another name; nothing has it open."""
        self.check_free(to)
        was_usual = self.usual_name() == name
        mark = self.file_of(name).with_name(self.file_of(name).name + MARK)
        self.file_of(name).rename(self.file_of(to))
        with suppress(FileNotFoundError):
            mark.rename(self.file_of(to).with_name(self.file_of(to).name + MARK))
        self._sweep(name)
        if was_usual:
            self.use(to)

    def forget_ours(self, name: str) -> None:
        """Remove a circle of version 2, and that it was the default."""
        if self._used() == name:
            self._default.unlink(missing_ok=True)
        self.file_of(name).unlink(missing_ok=True)
        self._sweep(name)

    def _sweep(self, name: str) -> None:
        """Remove what SQLite and the lock have left beside a file."""
        for beside in ("-wal", "-shm", "-lock", "-lock-journal", MARK):
            path = self.file_of(name)
            path.with_name(path.name + beside).unlink(missing_ok=True)

    # --- cursors --------------------------------------------------------------

    def cursor(self, membership: Membership, base_url: str) -> int | None:
        """Return how far this home has read a circle at a service, if it ever has."""
        path = self._cursors_of(membership)
        kept = self._read(path).get(_place(membership, base_url)) if path.exists() else None
        return kept if isinstance(kept, int) else None

    def keep_cursor(self, membership: Membership, base_url: str, cursor: int) -> None:
        """Remember how far this home has read."""
        path = self._cursors_of(membership)
        kept = self._read(path) if path.exists() else {}
        self._write(path, json.dumps({**kept, _place(membership, base_url): cursor}))

    def _used(self) -> object:
        return self._read(self._default).get("circle") if self._default.exists() else None

    def _cursors_of(self, membership: Membership) -> Path:
        return self._cursors / f"{_stem(membership.name)}.json"

    def _json_of(self, membership: Membership) -> Path:
        return self._circles / f"{_stem(membership.name)}.json"

    # --- files ----------------------------------------------------------------

    def _membership(self, path: Path) -> Membership:
        content = self._read(path)
        secret, base_url = content.get("secret"), content.get("base_url")
        if not isinstance(secret, str) or not isinstance(base_url, str):
            raise _damaged(path)
        try:
            return Membership(_name_of(path), Circle.from_secret_hex(secret), base_url)
        except ValueError:
            raise _damaged(path) from None

    def _read(self, path: Path) -> dict[str, Any]:
        try:
            with path.open(encoding="utf-8") as file:
                # Windows has no such bits: a folder there is its user's.
                if os.name == "posix" and os.fstat(file.fileno()).st_mode & 0o077:
                    raise Failure(f"others can read {path}", f"chmod -R go= {self.path}")
                content = json.load(file)
        except OSError as error:
            raise _unusable(error, path) from None
        except ValueError:
            raise _damaged(path) from None
        if not isinstance(content, dict):
            raise _damaged(path)
        return content

    def _write(self, path: Path, text: str, *, new: bool = False) -> None:
        """Write a file; a *new* one raises `FileExistsError` where there is one."""
        try:
            self.path.mkdir(mode=0o700, parents=True, exist_ok=True)
            path.parent.mkdir(mode=0o700, exist_ok=True)
            whole_file.write(path, text + "\n", new=new)
        except FileExistsError:
            raise
        except OSError as error:
            raise _unusable(error, path) from None


def check_name(name: str) -> str:
    """Return a circle's name if it can be one."""
    found = _titled(name)
    plain = " ".join(unicodedata.normalize("NFC", name).split())
    if not found or found != plain or found.startswith("-") or _cut(found) != found:
        raise Misuse(
            f"'{name}' cannot name a circle",
            f"use up to {NAME_BYTES} bytes of text that is seen, and no dash at its beginning",
        )
    return found


def is_name(text: str) -> bool:
    """Say whether a text that should be an address is rather meant as a circle's name."""
    return not any(one in text for one in "/:#")


def _titled(text: str) -> str:
    """Return a name as it is kept: others may have written it, and it is shown and typed."""
    return seen(unicodedata.normalize("NFC", text))


def _cut(name: str, most: int = NAME_BYTES) -> str:
    return name.encode(errors="replace")[:most].decode(errors="ignore").strip()


def _stem(name: str) -> str:
    """Return what a circle's files are called: no system reads more into it than a name."""
    return ("%2E" if name.startswith(".") else "") + quote(name.removeprefix("."), safe=" ")


def _name_of(path: Path) -> str:
    return unquote(path.stem)


def _place(membership: Membership, base_url: str) -> str:
    """Name a mailbox: a service, and whose circle; a name may come to mean another circle."""
    return f"{base_url} {membership.circle.circle_hint}"


def next_command(verb: str, name: str, *, option: str = "") -> str:
    """Return the command to type next; the circle that is meant anyway needs no name."""
    usual = Home.from_environment().usual_name()
    words = ["muster", *([] if option else ["circle"]), verb]
    if usual != name:
        words += [option or "--circle", shlex.quote(name)]
    return " ".join(words)


def _taken(name: str) -> Misuse:
    return Misuse(f"there is a circle '{name}' already", "choose another --name")


def _names(found: list[str]) -> str:
    return ", ".join(found) or "there is none at all yet"


def _unusable(error: OSError, path: Path) -> Failure:
    reason = (error.strerror or str(error)).lower()
    return Failure(f"cannot use {path}: {reason}", "MUSTER_HOME chooses another place")


def _damaged(path: Path) -> Failure:
    return Failure(f"{path} is damaged", "put a copy back, or remove it and join again")
