"""Access: `muster access allow | new | list | revoke`, whom a closed service serves.

It writes where the service reads, beside it: into its folder, or into its table on AWS.
A service on one machine notices within a second, one on AWS within a minute.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import re
import secrets
import sqlite3
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from capsules.keys import KEY_BYTES, SigningKey
from chalicelib import proved, tables
from chalicelib.store import Stores, Unavailable
from muster import keys
from muster.cli import output, times
from muster.cli.output import Failure, Misuse
from muster.errors import BadValue

DATABASE = "muster.sqlite3"
MOST_LISTED = 10_000
NAME_CHARS = 64
SHOWN_CHARS = 6
"""So much of a hint is shown to people: whoever knows all of it may call as that circle."""

CODE, CODE_BYTES, CODE_ID_CHARS = "code-", 16, tables.CODE_ID_CHARS
"""An access code is so many random bytes; people are shown `code-` and the start of its hash."""

_CODE_ID = re.compile(rf"{CODE}[0-9a-f]{{{CODE_ID_CHARS}}}")
_HINT = re.compile(r"[!-~]{8,128}")
_HINT_2 = re.compile(r"2 [0-9a-f]{32}")
"""A circle of version 2, as the service calls it."""


def allow(arguments: argparse.Namespace) -> int:
    """Let a circle in, from now on or for a while."""
    circle_hint, name = _circle(arguments.circle), _name(arguments.name)
    now = int(time.time())
    until = _until(arguments.lasting, now=now)
    with _stores(arguments) as stores:
        tables.allow(stores, circle_hint, tables.Allowed(name, now), until=until)
    entry = tables.Entry(circle_hint, tables.Allowed(name, now), until)
    _tell(arguments, _told(entry), f"{_shown(entry)} is let in{_end(entry)}")
    return output.OK


def new(arguments: argparse.Namespace) -> int:
    """Make an access code: whoever has it may use the service for circles of version 2."""
    code, name, now = secrets.token_urlsafe(CODE_BYTES), _name(arguments.name), int(time.time())
    until = _until(arguments.lasting, now=now)
    entry = tables.Entry(tables.code_key(code), tables.Allowed(name, now, code), until)
    with _stores(arguments) as stores:
        seed = tables.service_seed(stores, os.urandom(KEY_BYTES), now=now)
        tables.allow(stores, entry.circle_hint, entry.allowed, until=until)
    service_id = keys.service_id(SigningKey(seed).verify_key).hex()
    ends = f"#{service_id}&access={code}"
    told = {**_told(entry), "code": code, "service_id": service_id, "address_ends": ends}
    _tell(
        arguments,
        told,
        f"{code}\n{_shown(entry)} opens this service{_end(entry)}; it is shown this once.\n"
        f"The address to give: https://YOUR-SERVICE{ends}",
    )
    return output.OK


def revoke(arguments: argparse.Namespace) -> int:
    """Serve a circle no longer, or those of a code; what they left expires by itself."""
    circle_hint = _named_so(arguments.circle)
    with _stores(arguments) as stores:
        was = tables.disallow(stores, circle_hint, now=int(time.time()))
    code = circle_hint.startswith(tables.CODE)
    if not was:
        raise Failure("that was not let in", "'muster access list' shows what is")
    _tell(
        arguments,
        {**_key(circle_hint), "revoked": True},
        f"{'Nobody comes in by it any more' if code else 'It is served no longer'}. What was left "
        "here stays until it expires; nobody can read it.",
    )
    return output.OK


def show_all(arguments: argparse.Namespace) -> int:
    """List the circles that are let in."""
    with _stores(arguments) as stores:
        entries = tables.all_allowed(stores, limit=MOST_LISTED, now=int(time.time()))
    if arguments.json:
        for entry in entries:
            output.dump(_told(entry))
    elif entries:
        _draw(entries)
    else:
        output.say("No circle is let in; 'muster access allow INVITE-OR-HINT' does.")
    return output.OK


def hint_of(text: str) -> str:
    """Return the hint of a circle that is named by its invite code or by the hint itself."""
    from muster import invites
    from muster.felund.invite import Invite

    try:
        if text.startswith("felund1."):
            return Invite.parse(text).circle.circle_hint
        if invites.PREFIX in text:
            return proved.circle_of(invites.Invite.parse(text).epoch.hint)
    except BadValue as error:
        raise Misuse(error.message, error.hint) from None
    if not (_HINT.fullmatch(text) or _HINT_2.fullmatch(text)):
        raise Misuse(
            f"'{output.clean(text)[:40]}' is no circle",
            "name its invite code, or what 'muster circle list' says that services know it as",
        )
    return text


# --- where it is written ----------------------------------------------------------------


@contextlib.contextmanager
def _stores(arguments: argparse.Namespace) -> Iterator[Stores]:
    if arguments.stage or arguments.profile or arguments.region:
        with _on_aws(arguments) as stores:
            yield stores
    else:
        with _on_this_machine(Path(arguments.data)) as stores:
            yield stores


def _on_aws(arguments: argparse.Namespace) -> contextlib.AbstractContextManager[Stores]:
    from infra import cloud

    stage = arguments.stage or "dev"
    return cloud.stores(cloud.connect(stage, profile=arguments.profile, region=arguments.region))


@contextlib.contextmanager
def _on_this_machine(data: Path) -> Iterator[Stores]:
    from chalicelib.store.sqlite import open_sqlite

    file = data / DATABASE
    if not file.is_file():
        raise Failure(
            f"there is no service's data in {data.absolute()}",
            "--data DIR names the folder that 'muster serve' was started with",
        )
    try:
        with contextlib.closing(open_sqlite(file)) as stores:
            yield stores
    except (Unavailable, sqlite3.Error) as error:
        raise Failure(f"cannot use the database in {data.absolute()}: {error}") from None


# --- what is said, and told ---------------------------------------------------------------


def _circle(text: str) -> str:
    return hint_of((sys.stdin.readline() if text == "-" else text).strip())


def _name(text: str | None) -> str:
    name = output.clean(text or "")
    if len(name) > NAME_CHARS:
        raise Misuse(f"--name may have {NAME_CHARS} characters")
    return name


def _until(lasting: str | None, *, now: int) -> int:
    if lasting is None:
        return tables.FOREVER
    return min(now + times.duration(lasting, option="--for"), tables.FOREVER)


def _named_so(text: str) -> str:
    """Return the key of a circle or of an access code, as `list` shows it or whole."""
    if _CODE_ID.fullmatch(text):
        return tables.CODE + text.removeprefix(CODE)
    return _circle(text)


def _is_code(entry: tables.Entry) -> bool:
    return entry.circle_hint.startswith(tables.CODE)


def _key(key: str) -> dict[str, str]:
    if key.startswith(tables.CODE):
        return {"code_id": CODE + key.removeprefix(tables.CODE)}
    return {"circle_hint": key}


def _told(entry: tables.Entry) -> dict[str, Any]:
    return {
        **_key(entry.circle_hint),
        "name": entry.allowed.name,
        "since": entry.allowed.since,
        "expires_at": None if entry.expires_at == tables.FOREVER else entry.expires_at,
    }


def _shown(entry: tables.Entry) -> str:
    if _is_code(entry):
        named = _key(entry.circle_hint)["code_id"]
        return f"'{entry.allowed.name}' ({named})" if entry.allowed.name else f"The code {named}"
    short = f"{entry.circle_hint[:SHOWN_CHARS]}…"
    return f"'{entry.allowed.name}' ({short})" if entry.allowed.name else f"The circle {short}"


def _end(entry: tables.Entry) -> str:
    forever = entry.expires_at == tables.FOREVER
    return "" if forever else f" until {output.when(entry.expires_at)}"


def _draw(entries: list[tables.Entry]) -> None:
    from rich.table import Table
    from rich.text import Text

    table = Table(box=None, pad_edge=False)
    for heading in ("circle or code", "called", "since", "until"):
        table.add_column(heading)
    for entry in entries:
        table.add_row(
            _key(entry.circle_hint).get("code_id")
            or output.clean(entry.circle_hint[:SHOWN_CHARS]) + "…",
            Text(output.clean(entry.allowed.name)),
            output.when(entry.allowed.since),
            _end(entry).removeprefix(" until ") or "no end",
        )
    output.draw(table)


def _tell(arguments: argparse.Namespace, told: dict[str, Any], sentence: str) -> None:
    if arguments.json:
        output.dump(told)
    else:
        output.show(sentence)
