"""Verifying: `muster capsule verify`, which checks files as clients check what they fetch."""

from __future__ import annotations

import argparse
import time
from pathlib import Path
from typing import Any

from capsules import canonical, fields, manifest, trust
from capsules.capsule import MAX_CAPSULE_BYTES
from capsules.errors import Refused
from capsules.keys import SigningKey, VerifyKey
from capsules.manifest import MAX_MANIFEST_BYTES, Document, Manifest
from muster.cli import names, output
from muster.cli.hints import REASONS
from muster.cli.output import Failure, Misuse

FILES = ("peers.json", "peers.json.sig", "peers.json.manifest")


def verify(arguments: argparse.Namespace) -> int:
    """Check a capsule as clients do."""
    files = _files([Path(name) for name in arguments.files])
    now = int(time.time())
    try:
        if arguments.root:
            told = _verify_root(files, _root_key(arguments.root), arguments.community, now=now)
        else:
            key = names.verify_key(arguments.key)
            told = _verify_pinned(files, key, arguments.community, now=now)
    except Refused as refusal:
        raise Failure(f"refused: {refusal}", REASONS.get(refusal.reason, "")) from None
    if arguments.json:
        output.dump({"ok": True, **told})
    else:
        output.show_facts({"verified": True, **told})
    return output.OK


class _Files(dict[str, bytes]):
    """The files at hand, by their names."""

    def __missing__(self, name: str) -> bytes:
        raise Misuse(f"{name} is missing", "name it too, or the folder that holds it")


def _files(paths: list[Path]) -> _Files:
    """Read the files that are named, and those next to the capsule."""
    if len(paths) == 1 and paths[0].is_dir():
        paths = [paths[0] / FILES[0]]
    if len(paths) == 1 and paths[0].name == FILES[0]:
        paths += [path for name in FILES[1:] if (path := paths[0].with_name(name)).exists()]
    found = _Files()
    for path in paths:
        suffix = path.suffix if path.suffix in (".sig", ".manifest") else ""
        found[FILES[0] + suffix] = read(path)
    return found


def read(path: Path) -> bytes:
    """Read a published file, and not more than one may have."""
    try:
        with path.open("rb") as file:
            return file.read(max(MAX_CAPSULE_BYTES, MAX_MANIFEST_BYTES) + 1)
    except OSError as error:
        reason = (error.strerror or str(error)).lower()
        raise Failure(f"cannot read {path}: {reason}") from None


def _root_key(named: str) -> VerifyKey:
    """Read a root's verify key: as it is written, or from the file of the root key."""
    path = Path(named)
    if not path.is_file():
        return names.verify_key(named)
    try:
        data = fields.members(canonical.loads(read(path)), "the file")
        fields.constant(data, "type", "muster-root-key")
        return SigningKey.from_base64(fields.text(data, "signing_key", most=256)).verify_key
    except (Refused, ValueError) as error:
        raise Failure(f"{named}: this is no root key: {error}") from None


def _verify_root(
    files: _Files, key: VerifyKey, community: str | None, *, now: int
) -> dict[str, Any]:
    described = files[FILES[2]]
    if community is None:
        community = Manifest.from_json(Document.parse(described).manifest.payload).community
    accepted = trust.accept(
        trust.begin(key),
        described,
        files[FILES[0]],
        files.get(FILES[1]),
        community=community,
        now=now,
    )
    found = accepted.manifest
    if found is None:
        raise AssertionError("a capsule that was accepted has its manifest")
    return {
        "community": found.community,
        "sequence": manifest.sequence_of(described),
        "issued_at": found.issued_at,
        "fresh_until": found.fresh_until,
        "fresh": accepted.fresh,
        "root": accepted.state.root.verify_key.to_base64(),
        "root_number": accepted.state.root.version,
        **_counted(accepted),
    }


def _verify_pinned(
    files: _Files, key: VerifyKey, community: str | None, *, now: int
) -> dict[str, Any]:
    # The state of a client that has seen nothing: its root plays no part for a pinned key.
    accepted = trust.accept_pinned(
        trust.begin(key), files[FILES[0]], key, community=community, now=now
    )
    return {
        "community": accepted.capsule.community,
        "issued_at": accepted.capsule.issued_at_ms // 1000,
        "key": key.to_base64(),
        **_counted(accepted),
    }


def _counted(accepted: trust.Accepted) -> dict[str, Any]:
    skipped = sorted({str(one.reason) for one in accepted.skipped})
    return {
        "tickets": len(accepted.tickets),
        "skipped": f"{len(accepted.skipped)} ({', '.join(skipped)})" if skipped else 0,
    }
