"""`muster access`, as the command line has it."""

from __future__ import annotations

from typing import Any

from muster.cli.arguments.table import SERVICE, Parser, add_json, group, listed, verb, verbs_of


def add(commands: Any) -> None:
    """Add `access` and its verbs."""
    access = group(
        commands,
        "access",
        "say whose circles a closed service serves",
        "A closed service serves only circles that its operator let in.",
        needs=SERVICE,
    )
    verbs = verbs_of(access)
    _add_allow(verbs)
    _add_new(verbs)
    _add_place(_verb(verbs, "list", "show_all", "list the circles and codes that are let in"))
    revoke = _verb(verbs, "revoke", "revoke", "serve a circle, or those of a code, no longer")
    _add_circle(revoke)
    _add_place(revoke)
    listed(access, verbs)


def _verb(verbs: Any, name: str, run: str, what: str) -> Parser:
    return verb(verbs, name, f"muster.cli.access:{run}", what, needs=SERVICE)


def _add_allow(verbs: Any) -> None:
    allow = _verb(verbs, "allow", "allow", "let a circle in")
    _add_circle(allow)
    allow.add_argument("--name", metavar="NAME", help="what to call it in 'muster access list'")
    allow.add_argument(
        "--for", dest="lasting", metavar="WHILE", help="let it in for a while: 10m, 2h, 30d"
    )
    _add_place(allow)


def _add_new(verbs: Any) -> None:
    new = _verb(verbs, "new", "new", "make an access code, for circles of version 2")
    new.add_argument("--name", metavar="NAME", help="what to call it in 'muster access list'")
    new.add_argument("--for", dest="lasting", metavar="WHILE", help="for a while: 10m, 2h, 30d")
    _add_place(new)


def _add_circle(command: Parser) -> None:
    command.add_argument(
        "circle",
        metavar="INVITE-OR-HINT",
        help="its invite code, what 'muster circle list' says that services know it as, or - to "
        "read either from stdin; to revoke an access code, the code-… of 'muster access list'",
    )


def _add_place(command: Parser) -> None:
    where = command.add_mutually_exclusive_group()
    where.add_argument(
        "--data", metavar="DIR", default="data", help="the service's folder (./%(default)s)"
    )
    where.add_argument("--stage", metavar="STAGE", help="a deployment on AWS, in its place")
    command.add_argument("--profile", help="the AWS profile with the credentials")
    command.add_argument("--region", help="the AWS region")
    add_json(command)
