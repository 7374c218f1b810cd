"""Fetching: `muster capsule fetch`, one capsule fetched, checked and shown."""

from __future__ import annotations

import argparse
import asyncio
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from muster import whole_file
from muster.cli import bootstrap, output
from muster.cli.output import Failure, Misuse
from muster.errors import BadValue

if TYPE_CHECKING:
    from capsules.trust import Accepted
    from muster.bootstrap.cache import Cache
    from muster.bootstrap.sources import Source


class Fetched(NamedTuple):
    """The files as they came, and what is believed of them."""

    files: dict[str, bytes]
    accepted: Accepted


def run(arguments: argparse.Namespace) -> int:
    """Fetch a capsule, check it as clients do, and say what is in it."""
    from capsules.errors import Reason, Refused
    from muster.bootstrap import sources
    from muster.bootstrap.cache import Damaged

    try:
        source = sources.capsule(arguments.capsule)
    except BadValue as error:
        raise Misuse(error.message, error.hint) from None
    named = arguments.community or sources.folder(source)
    community = named if source.pinned else named or sources.MAINNET
    cache = bootstrap.cache_of(arguments)
    try:
        fetched = asyncio.run(
            _within(source, community, cache=cache, deadline_s=arguments.deadline)
        )
    except Refused as refusal:
        raise Failure(str(refusal), bootstrap.HINTS.get(refusal.reason, "")) from None
    except TimeoutError:
        late = f"{Reason.TIMEOUT}: it was not done after {arguments.deadline:g} s"
        raise Failure(late, bootstrap.HINTS["TIMEOUT"]) from None
    except Damaged as damage:
        raise Failure(
            str(damage), f"remove it from {cache.folder}; what it remembered is lost"
        ) from None
    except OSError as error:
        raise Failure(f"cannot keep what was learned: {error}", "--cache takes another") from None
    told = _told(source, fetched.accepted)
    if arguments.out:
        told["files"] = _keep(Path(arguments.out), fetched.files)
    if arguments.json:
        output.dump(told)
    else:
        _draw(told)
    return output.OK


async def _within(
    source: Source, community: str | None, *, cache: Cache, deadline_s: float
) -> Fetched:
    """Fetch before the deadline; again if the publisher wrote between our reads."""
    from capsules.errors import Reason, Refused
    from muster import __version__
    from muster.bootstrap import fetch
    from muster.bootstrap.search import RACE_WAITS_S, RACES

    async with asyncio.timeout(deadline_s):
        async with fetch.client(None, f"muster/{__version__}") as http:
            for wait_s in RACE_WAITS_S:
                try:
                    return await _fetch(http, source, community, cache)
                except Refused as refusal:
                    if refusal.reason not in RACES | {Reason.SIGNATURE_MISMATCH}:
                        raise
                await asyncio.sleep(wait_s)
            return await _fetch(http, source, community, cache)


async def _fetch(http: Any, source: Source, community: str | None, cache: Cache) -> Fetched:
    """Fetch and check; keep what was learned, of a refusal too."""
    from capsules import trust
    from capsules.capsule import MAX_CAPSULE_BYTES
    from capsules.errors import Refused
    from capsules.manifest import MAX_MANIFEST_BYTES
    from muster.bootstrap import sources
    from muster.bootstrap.fetch import NoAnswer, fetch

    if source.key is None:
        raise Misuse("a capsule needs a key")
    now = int(time.time())
    state = cache.state(source.key) or trust.begin(source.key)
    name = Path(source.url.partition("?")[0]).name or "peers.json"
    try:
        if source.pinned:
            files = {name: await fetch(http, source.url, most=MAX_CAPSULE_BYTES)}
            accepted = trust.accept_pinned(
                state, files[name], source.key, community=community, now=now
            )
        else:
            manifest = await fetch(
                http, sources.beside(source.url, ".manifest"), most=MAX_MANIFEST_BYTES
            )
            expected = trust.expect(state, manifest, community=community or "", now=now)
            state = expected.state
            files = {
                name: await fetch(http, source.url, most=expected.manifest.length),
                f"{name}.manifest": manifest,
            }
            try:
                signature = await fetch(http, sources.beside(source.url, ".sig"), most=256)
                files[f"{name}.sig"] = signature
            except NoAnswer:
                signature = None  # nothing depends on it, and not every host has it
            accepted = trust.accept(
                state, manifest, files[name], signature, community=community or "", now=now
            )
    except Refused as refusal:
        learned = refusal.state if isinstance(refusal, trust.Distrusted) else state
        cache.keep_state(source.key, learned)
        raise
    cache.keep_state(source.key, accepted.state)
    return Fetched(files, accepted)


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
    output.show(f"The capsule at {output.clean(told['url'])} is good.")
    facts = {
        "community": told["community"],
        "peers": len(told["peers"]),
        "not believed": _counted(told["skipped"]),
        "sequence": told.get("sequence"),
        "fresh until": _instant(told.get("fresh_until")),
        "valid until": _instant(told.get("valid_until") or told["expires_at"]),
        "root version": told["root_version"],
        "beacons": ", ".join(told.get("beacons", [])),
        "other places": ", ".join(told.get("capsules", [])),
        "kept": ", ".join(told.get("files", [])),
    }
    for name, value in facts.items():
        if value not in (None, ""):
            output.show(f"  {name:<13}{output.clean(str(value))}")
    for peer_id in told["peers"]:
        output.show(f"  {output.clean(peer_id)}")
    if not told["fresh"]:
        output.show("A newer one should exist: ask other sources too.")


def _counted(skipped: list[dict[str, Any]]) -> str:
    reasons = [entry["reason"] for entry in skipped]
    return ", ".join(f"{reasons.count(reason)} {reason}" for reason in dict.fromkeys(reasons))


def _instant(seconds: int | None) -> str | None:
    if seconds is None:
        return None
    return time.strftime("%Y-%m-%d %H:%M:%S UTC", time.gmtime(seconds))
