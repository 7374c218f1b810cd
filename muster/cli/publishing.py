"""Publishing by hand: `muster capsule publish`, which needs no service of one's own.

It asks beacons and writes the three files of a capsule into a folder, for a web server, or
to be copied to one. Run it every five minutes.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

from capsules.errors import Refused
from capsules.ticket import RULES, Ticket
from chalicelib.community import keyring, publisher
from chalicelib.community.keyring import Unusable
from chalicelib.community.publisher import ALARM_AT, ENTRIES, FILES, Terms
from chalicelib.community.shelf import FolderShelf
from chalicelib.store import Unavailable
from muster import whole_file
from muster.cli import keys as key_commands
from muster.cli import names, output
from muster.cli.collecting import Answer, collect, merge
from muster.cli.output import Failure

STATE = ".muster-publish.json"
"""Records how the last runs went, next to the communities' folders."""

MOST_STATE_BYTES = 1024 * 1024
STAYS = "the last capsule stays where it is"


def publish(arguments: argparse.Namespace) -> int:
    """Publish what beacons list; the second failure in a row raises the alarm."""
    community = names.community(arguments.community)
    for url in (*arguments.beacon, *arguments.mirror):
        names.beacon(url)
    folder, now = Path(arguments.out), int(time.time())
    state = _State(folder / STATE, community)
    try:
        keys = key_commands.read_publishing(arguments.keys)
        answers = _collected(arguments, community, keyring.revoked(keys), now=now)
        if not arguments.json:
            _show_answers(answers)
        terms = Terms(keys, tuple(arguments.beacon), tuple(arguments.mirror))
        tickets = merge(answers, most=ENTRIES)
        _write(folder, terms, tickets, community=community, now=now)
    except Failure as failure:
        state.failed(failure, now=now)
        raise
    state.succeeded(now=now)
    told = {
        "community": community,
        "sequence": now,
        "peers": len(tickets),
        "files": [str(folder / community / name) for name in FILES],
    }
    if arguments.json:
        output.dump(told | {"beacons": [_answer(answer) for answer in answers]})
    else:
        output.show_facts(told)
    return output.OK


def _collected(
    arguments: argparse.Namespace, community: str, revoked: tuple[str, ...], *, now: int
) -> list[Answer]:
    trusted = frozenset(names.verify_key(key).to_base64() for key in arguments.trusted)
    rules = replace(RULES, trusted=trusted, revoked=frozenset(revoked))
    return asyncio.run(collect(arguments.beacon, community, now_ms=now * 1000, rules=rules))


def _show_answers(answers: list[Answer]) -> None:
    for answer in answers:
        got = f"{len(answer.tickets)} tickets, {answer.refused} refused"
        output.say(f"{answer.beacon}: {answer.error or got}")


def _answer(answer: Answer) -> dict[str, Any]:
    return {
        "url": answer.beacon,
        "tickets": len(answer.tickets),
        "refused": answer.refused,
        "error": answer.error,
    }


class _State:
    """How the last runs for a community went."""

    def __init__(self, path: Path, community: str) -> None:
        self._path = path
        self._community = community

    def failed(self, failure: Failure, *, now: int) -> None:
        """Count a failure; say so loudly when it is the second in a row, and only then."""
        whole, known = self._read()
        known = {
            **known,
            "failures": int(known.get("failures", 0)) + 1,
            "last_failure_at": now,
            "last_failure": str(failure),
        }
        if known["failures"] >= ALARM_AT and not known.get("alarm"):
            known["alarm"] = True
            output.say(
                f"ALARM: publishing {self._community} failed {known['failures']} times in a row"
            )
        self._write(whole, known)

    def succeeded(self, *, now: int) -> None:
        """Reset the count; say so if there was an alarm."""
        whole, known = self._read()
        if known.get("alarm"):
            output.say(f"RECOVERED: publishing {self._community} works again")
        self._write(whole, {**known, "failures": 0, "last_success_at": now, "alarm": False})

    def _read(self) -> tuple[dict[str, Any], dict[str, Any]]:
        try:
            whole = json.loads(whole_file.read(self._path, most=MOST_STATE_BYTES))
            known = whole.get(self._community, {})
        except (OSError, ValueError, AttributeError):
            return {}, {}
        return whole, known if isinstance(known, dict) else {}

    def _write(self, whole: dict[str, Any], known: dict[str, Any]) -> None:
        text = json.dumps({**whole, self._community: known})
        try:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            whole_file.write(self._path, text, mode=whole_file.PUBLIC)
        except OSError as error:
            reason = (error.strerror or str(error)).lower()
            raise Failure(f"cannot write {self._path}: {reason}") from None


def _write(folder: Path, terms: Terms, tickets: list[Ticket], *, community: str, now: int) -> None:
    if not tickets:
        raise Failure(f"no beacon gave a live ticket of {community}", STAYS)
    if not keyring.certificate(terms.keys).covers(community):
        raise Failure(
            f"these keys may not publish {community}", "'muster keygen capsule' certifies others"
        )
    try:
        keyring.check(terms.keys, now=now)
        publisher.write(FolderShelf(folder), terms, tickets, community=community, now=now)
    except Unusable as error:
        raise Failure(error.message, error.hint) from None
    except (Refused, Unavailable, ValueError) as error:
        raise Failure(f"publishing failed: {error}", STAYS) from None
