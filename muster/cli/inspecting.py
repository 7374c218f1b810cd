"""Inspecting: `muster capsule inspect`, what is in a file, without believing any of it."""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from capsules import canonical, fields
from capsules.capsule import Capsule
from capsules.errors import Reason, Refused
from capsules.manifest import Document, Manifest
from capsules.root import Certificate
from capsules.ticket import Ticket
from chalicelib.community import key_files, keyring
from chalicelib.community.keyring import Unusable
from muster.cli import output
from muster.cli.output import Failure
from muster.cli.verifying import read

SHOWN = 20


def inspect(arguments: argparse.Namespace) -> int:
    """Show what is in a file, without believing any of it."""
    path = key_files.publishing_path(Path(arguments.file))
    raw = read(path)
    try:
        data = fields.members(canonical.loads(raw), "the file")
        told = _inspected(data, raw)
    except Refused as refusal:
        raise Failure(f"{path}: {refusal.message}", "it is no file of ours") from None
    if arguments.json:
        output.dump(told)
        return output.OK
    shown = {name: value for name, value in told.items() if name != "tickets"}
    listed = told.get("tickets", [])
    if listed:
        shown["peers"] = [_line(one) for one in listed[:SHOWN]]
        if len(listed) > SHOWN:
            shown["peers"].append(f"and {len(listed) - SHOWN} more")
    output.show_facts(shown)
    output.say("Nothing of this was checked; 'muster capsule verify' does.")
    return output.OK


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
    except Refused as refusal:
        return {"refused": str(refusal.reason)}
    return {
        "peer_id": found.peer_id,
        "user_id": found.user_id,
        "expires_at": found.expires_at_ms // 1000,
    }


def _line(ticket: Mapping[str, Any]) -> str:
    if "refused" in ticket:
        return f"(unreadable: {ticket['refused']})"
    until = output.when(ticket["expires_at"])
    return f"{ticket['peer_id']}  {ticket['user_id']}  until {until}"
