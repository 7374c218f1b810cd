"""Fetching: `muster capsule fetch`, one capsule fetched, checked and shown."""

from __future__ import annotations

import argparse
import asyncio
from pathlib import Path
from typing import TYPE_CHECKING, Any

from muster import whole_file
from muster.cli import bootstrap, output
from muster.cli.output import Failure, Misuse
from muster.errors import BadValue

if TYPE_CHECKING:
    from capsules.trust import Accepted
    from muster.bootstrap.cache import Cache
    from muster.bootstrap.opening import Opened
    from muster.bootstrap.sources import Source
    from muster.bootstrap.trusted import Trust


def run(arguments: argparse.Namespace) -> int:
    """Fetch a capsule, check it as clients do, and say what is in it."""
    from muster.bootstrap import sources

    try:
        source = sources.capsule(arguments.capsule)
    except BadValue as error:
        raise Misuse(error.message, error.hint) from None
    named = arguments.community or sources.folder(source)
    community = named if source.pinned else named or sources.MAINNET
    trust = _trust(bootstrap.cache_of(arguments), source)
    opened = _opened(source, community, trust, deadline_s=arguments.deadline)
    if trust.damage:
        raise Failure(trust.damage[0].message, "--cache takes another")
    told = _told(source, opened.accepted)
    if arguments.out:
        told["files"] = _keep(Path(arguments.out), _files(source, opened))
    if arguments.json:
        output.dump(told)
    else:
        _draw(told)
    return output.OK


def _trust(cache: Cache, source: Source) -> Trust:
    """Return what was learned about a capsule's signers; a damaged cache must be seen to."""
    from muster.bootstrap.trusted import Trust

    trust = Trust(cache)
    trust.open({source.key} if source.key else ())
    if trust.damage:
        raise Failure(
            trust.damage[0].message, f"remove it from {cache.folder}; what it remembered is lost"
        )
    return trust


def _opened(source: Source, community: str | None, trust: Trust, *, deadline_s: float) -> Opened:
    from capsules.errors import Reason, Refused
    from muster.cli.hints import REASONS

    try:
        return asyncio.run(_open(source, community, trust, deadline_s=deadline_s))
    except Refused as refusal:
        raise Failure(str(refusal), REASONS.get(refusal.reason, "")) from None
    except TimeoutError:
        late = f"{Reason.TIMEOUT}: it was not done after {deadline_s:g} s"
        raise Failure(late, REASONS[Reason.TIMEOUT]) from None


async def _open(
    source: Source, community: str | None, trust: Trust, *, deadline_s: float
) -> Opened:
    from muster import __version__
    from muster.backoff import Rim
    from muster.bootstrap import fetch
    from muster.bootstrap.opening import Opener

    async with (
        asyncio.timeout(deadline_s),
        fetch.client(None, f"muster/{__version__}") as http,
    ):

        async def fetch_it(url: str, *, most: int) -> bytes:
            return await fetch.fetch(http, url, most=most)

        return await Opener(fetch_it, trust, Rim(), signature=True).open(source, community)


def _files(source: Source, opened: Opened) -> dict[str, bytes]:
    name = Path(source.url.partition("?")[0]).name or "peers.json"
    files = {
        name: opened.capsule,
        f"{name}.manifest": opened.manifest,
        f"{name}.sig": opened.signature,
    }
    return {name: raw for name, raw in files.items() if raw is not None}


def _told(source: Source, accepted: Accepted) -> dict[str, Any]:
    manifest = accepted.manifest
    told: dict[str, Any] = {
        "ok": True,
        "url": source.url,
        "community": accepted.capsule.community,
        "fresh": accepted.fresh,
        "expires_at": accepted.capsule.expires_at_ms // 1000,
        "peers": [ticket.peer_id for ticket in accepted.tickets],
        "skipped": [{"place": s.place, "reason": str(s.reason)} for s in accepted.skipped],
        "root_version": None if source.pinned else accepted.state.root.version,
    }
    if manifest is not None:
        told |= {
            "sequence": manifest.sequence,
            "issued_at": manifest.issued_at,
            "fresh_until": manifest.fresh_until,
            "valid_until": manifest.valid_until,
            "beacons": list(manifest.beacons),
            "capsules": list(manifest.capsules),
        }
    return told


def _keep(folder: Path, files: dict[str, bytes]) -> list[str]:
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for name, raw in files.items():
            whole_file.write(folder / name, raw, mode=whole_file.PUBLIC)
    except OSError as error:
        reason = (error.strerror or str(error)).lower()
        raise Failure(f"cannot write to {folder}: {reason}", "--out takes another folder") from None
    return sorted(str(folder / name) for name in files)


def _draw(told: dict[str, Any]) -> None:
    output.show(f"The capsule at {output.line(told['url'])} is good.")
    facts = {
        "community": told["community"],
        "peers": len(told["peers"]),
        "not believed": _counted(told["skipped"]),
        "sequence": told.get("sequence"),
        "fresh until": output.when(told["fresh_until"]) if "fresh_until" in told else None,
        "valid until": output.when(told.get("valid_until") or told["expires_at"]),
        "root version": told["root_version"],
        "beacons": ", ".join(told.get("beacons", [])),
        "other places": ", ".join(told.get("capsules", [])),
        "kept": ", ".join(told.get("files", [])),
    }
    for name, value in facts.items():
        if value not in (None, ""):
            output.show(f"  {name:<13}{output.line(str(value))}")
    for peer_id in told["peers"]:
        output.show(f"  {output.name(peer_id, most=128)}")
    if not told["fresh"]:
        output.show("A newer one should exist: ask other sources too.")


def _counted(skipped: list[dict[str, Any]]) -> str:
    reasons = [entry["reason"] for entry in skipped]
    return ", ".join(f"{reasons.count(reason)} {reason}" for reason in dict.fromkeys(reasons))
