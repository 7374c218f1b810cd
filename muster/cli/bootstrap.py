"""Bootstrapping: `muster bootstrap`, from a URL to peers, with every source's part in it."""

from __future__ import annotations

import argparse
import asyncio
import secrets
import time
from pathlib import Path
from typing import TYPE_CHECKING

from muster.cli import output
from muster.cli.home import Home
from muster.cli.output import Failure, Misuse
from muster.errors import BadValue

if TYPE_CHECKING:
    from capsules.ticket import Ticket
    from muster.bootstrap import Found, Outcome
    from muster.bootstrap.cache import Cache

BAR_CELLS = 24

CLOCK = "does this machine's clock tell the right time?"
WRONG_KEY = "compare the key with the one the community's maintainer shows"
SHOWN_TWICE = "somebody shows an old list; another source may have the new one"

HINTS = {
    "UNREACHABLE": "is the URL right, and this machine online?",
    "TIMEOUT": "a source that is slow today; --deadline gives it more time",
    "CLOCK_WRONG": CLOCK,
    "EXPIRED": CLOCK,
    "FROZEN": f"nobody has published for long, or it is an old copy; {CLOCK}",
    "NOT_YET_VALID": CLOCK,
    "CERTIFICATE_EXPIRED": f"the maintainer has to certify the publisher again; {CLOCK}",
    "CERTIFICATE_NOT_YET_VALID": CLOCK,
    "CERTIFICATE_INVALID": WRONG_KEY,
    "ROOT_CHAIN_BROKEN": WRONG_KEY,
    "SIGNATURE_INVALID": WRONG_KEY,
    "REVOKED_KEY": "the maintainer has revoked this key; ask for the new one",
    "WRONG_COMMUNITY": "--community says which one is meant",
    "ROLLBACK": SHOWN_TWICE,
    "EQUIVOCATION": "the publisher's key says two things at once; tell its maintainer",
    "MALFORMED": "something else lives at this URL",
    "TOO_LARGE": "something else lives at this URL",
}


def run(arguments: argparse.Namespace) -> int:
    """Print the peers to trust, where each came from, and what came of every source."""
    from muster.bootstrap import bootstrap

    if not arguments.capsule and not arguments.beacon:
        raise Misuse("there is nowhere to look", "name a --capsule URL#KEY or a --beacon URL")
    if arguments.announce and not arguments.peer_id:
        raise Misuse("--announce needs a --peer-id", "it is the name other nodes will see")
    cache = cache_of(arguments)
    ticket = _ticket(cache, arguments.peer_id) if arguments.announce else None
    try:
        found = asyncio.run(
            bootstrap(
                *arguments.capsule,
                linger_s=None,
                beacons=arguments.beacon,
                community=arguments.community,
                ticket=ticket,
                peer_id=arguments.peer_id,
                cache=cache,
                deadline_s=arguments.deadline,
            )
        )
    except BadValue as error:
        raise Misuse(error.message, error.hint) from None
    if arguments.json:
        output.dump(found.to_json())
    else:
        draw(found)
    return output.OK if found.peers else output.FAILED


def cache_of(arguments: argparse.Namespace) -> Cache:
    """Return the cache that was chosen, or the one in this home."""
    from muster.bootstrap.cache import Cache

    chosen = arguments.cache
    return Cache(Path(chosen) if chosen else Home.from_environment().path / "bootstrap")


def _ticket(cache: Cache, peer_id: str) -> Ticket:
    """Sign that we are here; with the same key each time, since the first to come keeps a name."""
    from capsules import ticket
    from capsules.errors import Refused
    from muster.bootstrap.cache import Damaged

    try:
        return ticket.create(
            cache.signing_key(secrets.token_bytes),
            peer_id=peer_id,
            user_id="",
            now_ms=int(time.time() * 1000),
            nonce=secrets.token_bytes(ticket.NONCE_BYTES),
        )
    except Refused as refusal:
        raise Misuse(f"--peer-id: {refusal.message}") from None
    except (Damaged, OSError) as error:
        raise Failure(f"there is no key to sign with: {error}", "--cache takes another") from None


def draw(found: Found) -> None:
    """Print what was found, for people."""
    from rich.table import Table
    from rich.text import Text

    ascii_only = output.plain()
    marks = {True: "ok", False: "NO"} if ascii_only else {True: "✓", False: "✗"}
    table = Table.grid(padding=(0, 1), collapse_padding=False)
    for column in ("mark", "source", "detail", "time", "bar"):
        table.add_column(
            no_wrap=column != "source",
            overflow="fold",
            justify="right" if column == "time" else "left",
        )
    longest_ms = max((o.started_ms + o.took_ms for o in found.sources), default=0.0)
    for outcome in found.sources:
        style = "green" if outcome.ok else "bold red"
        table.add_row(
            Text(marks[outcome.ok], style=style),
            Text(output.clean(str(outcome.source)), style="" if outcome.ok else "red"),
            Text(_summary(outcome), style="dim" if outcome.ok else style),
            Text(f"{outcome.took_ms:.1f} ms"),
            Text(bar(outcome, longest_ms, ascii_only=ascii_only), style=style),
        )
    console = output.console()
    with console.capture() as capture:
        console.print(table)
    for line in capture.get().splitlines():
        output.show(line.rstrip())
    for outcome in found.sources:
        for note in _notes(outcome):
            output.show(output.clean(f"{outcome.source}: {note}"))
    _list(found)
    _conclude(found)


def bar(outcome: Outcome, all_ms: float, *, ascii_only: bool, cells: int = BAR_CELLS) -> str:
    """Draw when a source was asked: never shorter than a cell, never outside the picture."""
    if all_ms <= 0:
        return " " * cells
    first = min(int(outcome.started_ms / all_ms * cells), cells - 1)
    length = max(1, min(round(outcome.took_ms / all_ms * cells), cells - first))
    return (" " * first + ("#" if ascii_only else "█") * length).ljust(cells)


def _summary(outcome: Outcome) -> str:
    """Say in a word what came of a source."""
    peers = f"{outcome.peers} {'peer' if outcome.peers == 1 else 'peers'}"
    return peers if outcome.ok else outcome.reason


def _notes(outcome: Outcome) -> list[str]:
    """Say what else there is to say."""
    notes = [outcome.message] if outcome.reason else []
    if outcome.skipped:
        named = ", ".join(f"{count} {reason}" for reason, count in outcome.skipped.items())
        notes.append(f"not believed: {named}")
    if outcome.announced:
        notes.append("announced")
    if outcome.not_announced:
        notes.append(f"not announced: {outcome.not_announced}")
    if not outcome.fresh:
        notes.append("a newer one should exist")
    if outcome.source.learned:
        notes.append("named by a manifest")
    return notes


def _list(found: Found) -> None:
    now = int(time.time())
    for peer in found.peers:
        left_s = max(peer.expires_at - now, 0)
        user = f" ({peer.user_id})" if peer.user_id else ""
        sources = ", ".join(peer.sources)
        output.show(output.clean(f"{peer.peer_id}{user}  {left_s} s left  from {sources}"))


def _conclude(found: Found) -> None:
    if found.peers and found.first_peer_ms is not None:
        count = f"{len(found.peers)} {'peer' if len(found.peers) == 1 else 'peers'}"
        output.show(f"{count} in {found.community}; the first after {found.first_peer_ms:.0f} ms.")
        return
    output.say(f"No peer was found in {found.community}.")
    for reason in dict.fromkeys(_reasons(found)):
        if reason in HINTS:
            output.say(f"  {reason}: {HINTS[reason]}")
    if any(outcome.ok and outcome.source.kind != "cache" for outcome in found.sources):
        output.say("  A source answered: perhaps nobody is there; --announce makes you the first.")


def _reasons(found: Found) -> list[str]:
    refused = [outcome.reason for outcome in found.sources if outcome.reason]
    return refused + [reason for outcome in found.sources for reason in outcome.skipped]
