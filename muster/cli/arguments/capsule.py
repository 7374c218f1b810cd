"""The verbs around capsules, as the command line has them: `muster keygen`, `muster capsule`."""

from __future__ import annotations

import argparse
from typing import Any

from capsules import CERTIFIED_DAYS
from muster.cli.arguments import bootstrap, values
from muster.cli.arguments.table import SERVICE, add_json, group, listed, verb, verbs_of


def add(commands: Any) -> None:
    """Add `keygen` and `capsule`."""
    _add_keygen(commands)
    capsule = group(
        commands,
        "capsule",
        "fetch, check and publish capsules, and look after their keys",
        "A capsule is a signed list of nodes, published as static files.",
    )
    verbs = verbs_of(capsule)
    bootstrap.add_fetch(verbs)
    _add_verify(verbs)
    _add_inspect(verbs)
    _add_publish(verbs)
    _add_rotate(verbs)
    _add_revoke(verbs)
    listed(capsule, verbs)


def _add_keygen(commands: Any) -> None:
    keygen = group(
        commands,
        "keygen",
        "make keys for publishing capsules",
        "A root key stays off the server and certifies the online keys that publish.",
        needs=SERVICE,
    )
    kinds = verbs_of(keygen, "KIND")
    root = verb(
        kinds, "root", "muster.cli.keys:make_root", "make a root key", needs=SERVICE, once=True
    )
    root.add_argument("--out", metavar="FILE", required=True, help="the file; never overwritten")
    online = verb(
        kinds,
        "capsule",
        "muster.cli.keys:make_online",
        "make the keys that a server publishes with",
        needs=SERVICE,
        once=True,
    )
    _add_root(online)
    online.add_argument(
        "--out",
        metavar="PATH",
        required=True,
        help="the file, or the folder for publishing.key; never overwritten",
    )
    _add_terms(online)
    online.add_argument(
        "--import",
        dest="imported",
        metavar="FILE",
        help="certify the key in this file (base64, PKCS#8 as existing tools keep it)",
    )
    add_json(root, online)
    listed(keygen, kinds)


def _add_verify(verbs: Any) -> None:
    verify = verb(
        verbs, "verify", "muster.cli.verifying:verify", "check a capsule as clients check it"
    )
    verify.add_argument(
        "files", metavar="FILE", nargs="+", help="peers.json and its companions, or their folder"
    )
    by = verify.add_mutually_exclusive_group(required=True)
    by.add_argument("--root", metavar="KEY", help="the root's verify key, or root.key")
    by.add_argument("--key", metavar="KEY", help="the verify key that signed peers.json itself")
    verify.add_argument("--community", metavar="NAME", help="whose capsule it must be")
    add_json(verify)


def _add_inspect(verbs: Any) -> None:
    inspect = verb(
        verbs,
        "inspect",
        "muster.cli.inspecting:inspect",
        "show what is in a file; checks nothing",
        needs=SERVICE,
    )
    inspect.add_argument(
        "file",
        metavar="FILE",
        help="a capsule, a manifest or a key file (in a folder: publishing.key)",
    )
    add_json(inspect)


def _add_publish(verbs: Any) -> None:
    publish = verb(
        verbs,
        "publish",
        "muster.cli.publishing:publish",
        "publish what beacons list, once",
        needs=SERVICE,
        once=True,
    )
    publish.add_argument(
        "--beacon", metavar="URL", action="append", required=True, help="may be repeated"
    )
    publish.add_argument("--community", metavar="NAME", default="mainnet", help="(%(default)s)")
    _add_keys(publish)
    publish.add_argument("--out", metavar="DIR", required=True, help="gets COMMUNITY/peers.json")
    publish.add_argument(
        "--mirror",
        metavar="URL",
        action="append",
        default=[],
        help="where else DIR is published, for the manifest; may be repeated",
    )
    publish.add_argument(
        "--trusted",
        metavar="KEY",
        action="append",
        default=[],
        help="take only tickets of these keys; may be repeated",
    )
    add_json(publish)


def _add_rotate(verbs: Any) -> None:
    rotate = verb(
        verbs,
        "rotate",
        "muster.cli.keys:rotate",
        "put a new key in the place of an old one",
        needs=SERVICE,
        once=True,
    )
    which = rotate.add_mutually_exclusive_group(required=True)
    which.add_argument("--online", action="store_true", help="make a new online key")
    which.add_argument(
        "--new-root", metavar="FILE", help="make a new root key in this file, signed by the old"
    )
    _add_root(rotate)
    _add_keys(rotate)
    rotate.add_argument(
        "--days",
        type=values.days,
        help=f"how long the online key may publish ({CERTIFIED_DAYS}, or as before)",
    )
    add_json(rotate)


def _add_revoke(verbs: Any) -> None:
    revoke = verb(
        verbs,
        "revoke",
        "muster.cli.keys:revoke",
        "let nobody believe a key again",
        needs=SERVICE,
        once=True,
    )
    revoke.add_argument("verify_keys", metavar="KEY", nargs="+", help="verify keys in base64")
    _add_root(revoke)
    _add_keys(revoke)
    add_json(revoke)


def _add_root(command: argparse.ArgumentParser) -> None:
    command.add_argument("--root", metavar="FILE", required=True, help="the root key")


def _add_keys(command: argparse.ArgumentParser) -> None:
    command.add_argument(
        "--keys",
        metavar="PATH",
        required=True,
        help="the server's publishing.key, or the folder it is in",
    )


def _add_terms(command: argparse.ArgumentParser) -> None:
    command.add_argument(
        "--days",
        type=values.days,
        default=CERTIFIED_DAYS,
        help="how long it may publish (%(default)s)",
    )
    command.add_argument(
        "--community",
        metavar="NAME",
        action="append",
        help="for this community only; may be repeated (all of them)",
    )
