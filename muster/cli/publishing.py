"""Publishing by hand: `muster capsule publish`, `inspect` and `verify`.

`publish` needs no service of one's own: it asks beacons and writes the three files of
a capsule into a folder, for a web server, or to be copied to one. Run it every five minutes.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import time
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from capsules import canonical, fields, manifest, trust
from capsules.capsule import MAX_CAPSULE_BYTES, Capsule
from capsules.errors import Reason, Refused
from capsules.keys import VerifyKey
from capsules.manifest import MAX_MANIFEST_BYTES, Document, Manifest
from capsules.root import Certificate
from capsules.ticket import RULES, Ticket
from chalicelib.community import key_files, keyring, publisher
from chalicelib.community.keyring import Unusable
from chalicelib.community.publisher import ALARM_AT, ENTRIES, FILES, Terms
from chalicelib.community.shelf import FolderShelf
from chalicelib.store import Unavailable
from muster import whole_file
from muster.cli import keys as key_commands
from muster.cli import output
from muster.cli.output import Failure, Misuse

STATE = ".muster-publish.json"
"""Keeps how the last runs went, beside the communities' folders."""

SHOWN = 20

HINTS: dict[Reason, str] = {
    Reason.EXPIRED: "it was not published for a day, or this machine's clock is fast",
    Reason.FROZEN: "it was not published for a day, or this machine's clock is fast",
    Reason.NOT_YET_VALID: "this machine's clock may be slow",
    Reason.CERTIFICATE_INVALID: "is this the root key of this publisher?",
    Reason.ROOT_CHAIN_BROKEN: "is this the root key of this publisher?",
    Reason.CERTIFICATE_EXPIRED: "the publisher must 'muster capsule rotate --online'",
    Reason.REVOKED_KEY: "do not use it; the publisher must rotate the key",
    Reason.SIGNATURE_INVALID: "it was changed, or another key signed it",
    Reason.HASH_MISMATCH: "the files do not belong together; fetch them once more",
    Reason.LENGTH_MISMATCH: "the files do not belong together; fetch them once more",
    Reason.MALFORMED: "'muster capsule inspect' shows what it holds",
}


def publish(arguments: argparse.Namespace) -> int:
    """Publish what beacons list; the second failure in a row raises the alarm."""
    from muster.cli.collecting import collect, merge

    community = key_commands.check_community(arguments.community)
    trusted = frozenset(key_commands.verify_key(key).to_base64() for key in arguments.trusted)
    state = _State(Path(arguments.out) / STATE, community)
    now = int(time.time())
    try:
        keys = key_commands.read_publishing(arguments.keys)
        rules = replace(RULES, trusted=trusted, revoked=frozenset(keyring.revoked(keys)))
        answers = asyncio.run(collect(arguments.beacon, community, now_ms=now * 1000, rules=rules))
        if not arguments.json:
            for answer in answers:
                got = f"{len(answer.tickets)} tickets, {answer.refused} refused"
                output.say(f"{answer.beacon}: {answer.error or got}")
        terms = Terms(keys, tuple(arguments.beacon), tuple(arguments.mirror))
        tickets = merge(answers, most=ENTRIES)
        _publish(Path(arguments.out), terms, tickets, community=community, now=now)
    except Failure as failure:
        state.failed(failure, now=now)
        raise
    state.succeeded(now=now)
    told = {
        "community": community,
        "sequence": now,
        "peers": len(tickets),
        "beacons": [
            {"url": a.beacon, "tickets": len(a.tickets), "refused": a.refused, "error": a.error}
            for a in answers
        ],
        "files": [str(Path(arguments.out) / community / name) for name in FILES],
    }
    if arguments.json:
        output.dump(told)
    else:
        key_commands.show(
            {name: told[name] for name in ("community", "sequence", "peers", "files")}
        )
    return output.OK


def inspect(arguments: argparse.Namespace) -> int:
    """Show what is in a file, without believing any of it."""
    path = key_files.publishing_path(Path(arguments.file))
    raw = _read(path)
    try:
        data = fields.members(canonical.loads(raw), "the file")
        told = _inspected(data, raw)
    except Refused as refused:
        raise Failure(f"{path}: {refused.message}", "it is no file of ours") from None
    if arguments.json:
        output.dump(told)
        return output.OK
    shown = {name: value for name, value in told.items() if name != "tickets"}
    listed = told.get("tickets", [])
    if listed:
        shown["peers"] = [_line(one) for one in listed[:SHOWN]]
        if len(listed) > SHOWN:
            shown["peers"].append(f"and {len(listed) - SHOWN} more")
    key_commands.show(shown)
    output.say("Nothing of this was checked; 'muster capsule verify' does.")
    return output.OK


def verify(arguments: argparse.Namespace) -> int:
    """Check a capsule as clients do."""
    files = _files([Path(name) for name in arguments.files])
    now = int(time.time())
    try:
        if arguments.root:
            told = _verify_root(files, _root(arguments.root), arguments.community, now=now)
        else:
            key = key_commands.verify_key(arguments.key)
            told = _verify_pinned(files, key, arguments.community, now=now)
    except Refused as refused:
        raise Failure(f"refused: {refused}", HINTS.get(refused.reason, "")) from None
    if arguments.json:
        output.dump({"ok": True, **told})
    else:
        key_commands.show({"verified": True, **told})
    return output.OK


# --- publishing -------------------------------------------------------------------


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
        """Begin to count anew; say so if there was an alarm."""
        whole, known = self._read()
        if known.get("alarm"):
            output.say(f"RECOVERED: publishing {self._community} works again")
        self._write(whole, {**known, "failures": 0, "last_success_at": now, "alarm": False})

    def _read(self) -> tuple[dict[str, Any], dict[str, Any]]:
        try:
            whole = json.loads(self._path.read_text(encoding="utf-8"))
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


def _publish(
    folder: Path, terms: Terms, tickets: list[Ticket], *, community: str, now: int
) -> None:
    if not tickets:
        raise Failure(
            f"no beacon gave a live ticket of {community}", "the last capsule stays where it is"
        )
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
        raise Failure(f"publishing failed: {error}", "the last capsule stays where it is") from None


# --- looking ----------------------------------------------------------------------


def _inspected(data: Mapping[str, Any], raw: bytes) -> dict[str, Any]:
    if data.get("type") == "muster-root-key":
        return _inspected_root(raw)
    if data.get("type") == "muster-publishing-key":
        return _inspected_publishing(raw)
    if "manifest" in data:
        return _inspected_manifest(Document.parse(raw))
    if "peers" in data:
        return _inspected_capsule(Capsule.parse(raw))
    raise Refused(Reason.MALFORMED, "this is neither a capsule, nor a manifest, nor a key file")


def _inspected_root(raw: bytes) -> dict[str, Any]:
    try:
        root = keyring.RootKey.parse(raw)
    except Unusable as error:
        raise Refused(Reason.MALFORMED, str(error)) from None
    return {
        "file": "root key (private; not shown)",
        "verify_key": root.verify_key.to_base64(),
        "key_id": root.verify_key.key_id,
        "root_keys": len(root.documents),
        "revoked": list(root.revoked),
    }


def _inspected_publishing(raw: bytes) -> dict[str, Any]:
    try:
        keys = keyring.parse(raw)
    except Unusable as error:
        raise Refused(Reason.MALFORMED, str(error)) from None
    return {
        "file": "publishing keys (private; not shown)",
        "verify_key": keys.key.verify_key.to_base64(),
        "key_id": keys.key.verify_key.key_id,
        **_certified(keyring.certificate(keys)),
        "root_verify_key": keyring.root_key(keys).to_base64(),
        "revoked": list(keyring.revoked(keys)),
    }


def _inspected_manifest(document: Document) -> dict[str, Any]:
    found = Manifest.from_json(document.manifest.payload)
    certificate = Certificate.from_json(fields.members(document.certificate["payload"], "payload"))
    return {
        "file": "manifest",
        "community": found.community,
        "sequence": found.sequence,
        "issued_at": found.issued_at,
        "fresh_until": found.fresh_until,
        "valid_until": found.valid_until,
        "capsule": f"{found.length} bytes, SHA-256 {found.sha256}",
        "online_key": document.verify_key.to_base64(),
        **_certified(certificate),
        "root_keys": len(document.roots),
        "beacons": list(found.beacons),
        "capsules": list(found.capsules),
    }


def _inspected_capsule(found: Capsule) -> dict[str, Any]:
    return {
        "file": "capsule",
        "community": found.community,
        "issued_at": found.issued_at_ms // 1000,
        "expires_at": found.expires_at_ms // 1000,
        "entries": len(found.peers),
        "tickets": [_ticket(entry) for entry in found.peers],
    }


def _certified(found: Certificate) -> dict[str, Any]:
    return {
        "certified_until": found.expires_at,
        "communities": "all" if found.communities is None else list(found.communities),
    }


def _ticket(entry: Any) -> dict[str, Any]:
    try:
        found = Ticket.from_json(entry)
    except Refused as refused:
        return {"refused": str(refused.reason)}
    return {
        "peer_id": found.peer_id,
        "user_id": found.user_id,
        "expires_at": found.expires_at_ms // 1000,
    }


def _line(ticket: Mapping[str, Any]) -> str:
    if "refused" in ticket:
        return f"(unreadable: {ticket['refused']})"
    until = key_commands.when(ticket["expires_at"])
    return f"{ticket['peer_id']}  {ticket['user_id']}  until {until}"


# --- verifying --------------------------------------------------------------------


class _Files(dict[str, bytes]):
    """The files at hand, by their names."""

    def __missing__(self, name: str) -> bytes:
        raise Misuse(f"{name} is missing", "name it too, or the folder that holds it")


def _files(paths: list[Path]) -> _Files:
    """Read the files that are named, and those that stand beside the capsule."""
    if len(paths) == 1 and paths[0].is_dir():
        paths = [paths[0] / FILES[0]]
    if len(paths) == 1 and paths[0].name == FILES[0]:
        paths += [path for name in FILES[1:] if (path := paths[0].with_name(name)).exists()]
    found = _Files()
    for path in paths:
        suffix = path.suffix if path.suffix in (".sig", ".manifest") else ""
        found[FILES[0] + suffix] = _read(path)
    return found


def _read(path: Path) -> bytes:
    try:
        with path.open("rb") as file:
            return file.read(max(MAX_CAPSULE_BYTES, MAX_MANIFEST_BYTES) + 1)
    except OSError as error:
        reason = (error.strerror or str(error)).lower()
        raise Failure(f"cannot read {path}: {reason}") from None


def _root(named: str) -> VerifyKey:
    path = Path(named)
    if path.is_file():
        return key_commands.read_root(named).verify_key
    return key_commands.verify_key(named)


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
