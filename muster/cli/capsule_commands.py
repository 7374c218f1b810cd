"""The commands around capsules, as the command line has them: `muster keygen`, `muster capsule`."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from typing import Any

from capsules import CERTIFIED_DAYS

Add = Callable[[Any, str, str, str], argparse.ArgumentParser]
"""Adds a command: to which, its name, where it lives, and what it is for."""


def add(commands: Any, command: Add) -> Any:
    """Add `keygen` and `capsule`; return the latter's commands, for others to join."""
    _add_keygen(commands, command)
    capsule = commands.add_parser(
        "capsule",
        help="publish and look at capsules, and look after their keys",
        description="A capsule is a signed list of nodes, published as static files.",
    )
    verbs = capsule.add_subparsers(title="commands", metavar="COMMAND", required=True)
    _add_keeping(verbs, command)
    _add_looking(verbs, command)
    return verbs


def _add_keygen(commands: Any, command: Add) -> None:
    keygen = commands.add_parser(
        "keygen",
        help="make keys for publishing capsules",
        description="A root key stays off the server and certifies the online keys that publish.",
    )
    kinds = keygen.add_subparsers(title="commands", metavar="KIND", required=True)
    root = command(kinds, "root", "muster.cli.keys:make_root", "make a root key")
    root.add_argument("--out", metavar="FILE", required=True, help="the file; never overwritten")
    online = command(
        kinds,
        "capsule",
        "muster.cli.keys:make_online",
        "make the keys that a server publishes with",
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
    for made in (root, online):
        _add_json(made)


def _add_keeping(verbs: Any, command: Add) -> None:
    rotate = command(
        verbs, "rotate", "muster.cli.keys:rotate", "put a new key in the place of an old one"
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
        type=_days,
        help=f"how long the online key may publish ({CERTIFIED_DAYS}, or as before)",
    )
    revoke = command(verbs, "revoke", "muster.cli.keys:revoke", "let nobody believe a key again")
    revoke.add_argument("verify_keys", metavar="KEY", nargs="+", help="verify keys in base64")
    _add_root(revoke)
    _add_keys(revoke)
    for kept in (rotate, revoke):
        _add_json(kept)


def _add_looking(verbs: Any, command: Add) -> None:
    publish = command(
        verbs, "publish", "muster.cli.publishing:publish", "publish what beacons list, once"
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
    inspect = command(
        verbs, "inspect", "muster.cli.publishing:inspect", "show what is in a file; checks nothing"
    )
    inspect.add_argument(
        "file",
        metavar="FILE",
        help="a capsule, a manifest or a key file (in a folder: publishing.key)",
    )
    verify = command(
        verbs, "verify", "muster.cli.publishing:verify", "check a capsule as clients check it"
    )
    verify.add_argument(
        "files", metavar="FILE", nargs="+", help="peers.json and its companions, or their folder"
    )
    by = verify.add_mutually_exclusive_group(required=True)
    by.add_argument("--root", metavar="KEY", help="the root's verify key, or root.key")
    by.add_argument("--key", metavar="KEY", help="the verify key that signed peers.json itself")
    verify.add_argument("--community", metavar="NAME", help="whose capsule it must be")
    for looked in (publish, inspect, verify):
        _add_json(looked)


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
        "--days", type=_days, default=CERTIFIED_DAYS, help="how long it may publish (%(default)s)"
    )
    command.add_argument(
        "--community",
        metavar="NAME",
        action="append",
        help="for this community only; may be repeated (all of them)",
    )


def _add_json(command: argparse.ArgumentParser) -> None:
    command.add_argument("--json", action="store_true", help="print JSON, a value on each line")


def _days(text: str) -> int:
    if not text.isdecimal() or not 1 <= int(text) <= 3650:
        raise argparse.ArgumentTypeError(f"'{text}' is not a number of days from 1 to 3650")
    return int(text)
