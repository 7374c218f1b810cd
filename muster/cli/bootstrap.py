"""Bootstrapping: `muster bootstrap`, from a URL to peers, with every source's part in it."""

from __future__ import annotations

import argparse
import asyncio
import secrets
import time
from pathlib import Path
from typing import TYPE_CHECKING

from muster.cli import output
from muster.cli.bars import bar
from muster.cli.home import Home
from muster.cli.output import Failure, Misuse
from muster.errors import BadValue

if TYPE_CHECKING:
    from capsules.ticket import Ticket
    from muster.bootstrap import Attempt, Found
    from muster.bootstrap.cache import Cache


def run(arguments: argparse.Namespace) -> int:
    """Print the peers to trust, where each came from, and how it went with each source."""
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
    for attempt in found.sources:
        style = "green" if attempt.ok else "bold red"
        table.add_row(
            Text(marks[attempt.ok], style=style),
            Text(output.line(str(attempt.source)), style="" if attempt.ok else "red"),
            Text(output.line(_summary(attempt)), style="dim" if attempt.ok else style),
            Text(f"{attempt.took_ms:.1f} ms"),
            Text(_bar(attempt, longest_ms, ascii_only=ascii_only), style=style),
        )
    output.draw(table)
    for attempt in found.sources:
        for note in _notes(attempt):
            output.show(output.line(f"{attempt.source}: {note}"))
    _list(found)
    _conclude(found)


def _bar(attempt: Attempt, all_ms: float, *, ascii_only: bool) -> str:
    return bar(attempt.started_ms, attempt.took_ms, all_ms, ascii_only=ascii_only)


def _summary(attempt: Attempt) -> str:
    """Say in a word how it went with a source."""
    peers = f"{attempt.peers} {'peer' if attempt.peers == 1 else 'peers'}"
    return peers if attempt.ok else attempt.reason


def _notes(attempt: Attempt) -> list[str]:
    """Say what else there is to say."""
    notes = [attempt.message] if attempt.reason else []
    if attempt.skipped:
        named = ", ".join(f"{count} {reason}" for reason, count in attempt.skipped.items())
        notes.append(f"not believed: {named}")
    if attempt.announced:
        notes.append("announced")
    if attempt.not_announced:
        notes.append(f"not announced: {attempt.not_announced}")
    if not attempt.fresh:
        notes.append("a newer one should exist")
    if attempt.source.learned:
        notes.append("named by a manifest")
    return notes


def _list(found: Found) -> None:
    now = int(time.time())
    for peer in found.peers:
        left_s = max(peer.expires_at - now, 0)
        user = f" ({output.name(peer.user_id)})" if peer.user_id else ""
        sources = output.line(", ".join(peer.sources))
        output.show(f"{output.name(peer.peer_id, most=128)}{user}  {left_s} s left  from {sources}")


def _conclude(found: Found) -> None:
    from muster.cli.hints import REASONS

    if found.peers and found.first_peer_ms is not None:
        count = f"{len(found.peers)} {'peer' if len(found.peers) == 1 else 'peers'}"
        output.show(f"{count} in {found.community}; the first after {found.first_peer_ms:.0f} ms.")
        return
    output.say(f"No peer was found in {found.community}.")
    for reason in dict.fromkeys(_reasons(found)):
        if reason in REASONS:
            output.say(f"  {reason}: {REASONS[reason]}")
    if any(attempt.ok and attempt.source.kind != "cache" for attempt in found.sources):
        output.say("  A source answered: perhaps nobody is there; --announce makes you the first.")


def _reasons(found: Found) -> list[str]:
    refused = [attempt.reason for attempt in found.sources if attempt.reason]
    return refused + [reason for attempt in found.sources for reason in attempt.skipped]
