"""`muster circle`, as the command line has it."""

from __future__ import annotations

from typing import Any

from muster.cli.arguments.table import Parser, add_json, group, listed, verb, verbs_of

NAME_HERE = "what to call the circle here"


def add(commands: Any) -> None:
    """Add `circle` and its verbs."""
    circle = group(
        commands,
        "circle",
        "make, join, list and leave circles",
        "A circle is people who share a secret. It is kept in MUSTER_HOME.",
    )
    verbs = verbs_of(circle)
    _add_new(verbs)
    _add_invite(verbs)
    _add_join(verbs)
    add_json(verb(verbs, "list", "muster.cli.circles:show_all", "list the circles"))
    _add_use(verbs)
    _add_rename(verbs)
    _add_leave(verbs)
    _add_services(verbs)
    _add_rekey(verbs)
    _add_founder(verbs)
    _add_upgrade(verbs)
    listed(circle, verbs)


def add_base(command: Parser, what: str) -> None:
    """Let a verb use another service."""
    command.add_argument("--base", metavar="URL", help=what)


def add_circle(command: Parser) -> None:
    """Let a verb mean another circle than the default."""
    command.add_argument("--circle", metavar="NAME", help="which circle, if there are several")


def _add_new(verbs: Any) -> None:
    new = verb(verbs, "new", "muster.cli.which:new", "make a circle", once=True)
    where = new.add_mutually_exclusive_group()
    where.add_argument("base", metavar="BASE", nargs="?", help="the service where it meets")
    where.add_argument("--base", dest="at", metavar="URL", help="the same")
    new.add_argument("--name", metavar="NAME", help=NAME_HERE)
    new.add_argument(
        "--felund", action="store_true", help="for existing clients of the felund protocol"
    )
    add_json(new)


def _add_invite(verbs: Any) -> None:
    invite = verb(verbs, "invite", "muster.cli.which:invite", "print the code that lets people in")
    add_circle(invite)
    add_base(invite, "where the code leads, if not where the circle meets")
    invite.add_argument(
        "--peer",
        metavar="HOST:PORT",
        action="append",
        default=[],
        help="where a member is reached directly ('muster listen --port'); may be repeated",
    )
    add_json(invite)


def _add_join(verbs: Any) -> None:
    join = verb(
        verbs, "join", "muster.cli.which:join", "join the circle of an invite code", once=True
    )
    join.add_argument(
        "code",
        metavar="CODE",
        help="muster2.…, a link with it or felund1.…; or - to read it from stdin",
    )
    join.add_argument("--name", metavar="NAME", help=NAME_HERE)
    join.add_argument(
        "--yes", action="store_true", help="take what it changes in a circle of yours, unasked"
    )
    add_base(join, "where it meets, if not where the code says")
    add_json(join)


def _add_use(verbs: Any) -> None:
    use = verb(
        verbs, "use", "muster.cli.which:use", "choose the circle that commands mean", once=True
    )
    use.add_argument("name", metavar="NAME", help="the circle")
    add_base(use, "let it meet at this service from now on")
    add_json(use)


def _add_rename(verbs: Any) -> None:
    rename = verb(
        verbs, "rename", "muster.cli.which:rename", "give a circle another name here", once=True
    )
    rename.add_argument("name", metavar="OLD", help="the circle")
    rename.add_argument("new", metavar="NEW", help="what to call it")
    add_json(rename)


def _add_leave(verbs: Any) -> None:
    leave = verb(
        verbs,
        "leave",
        "muster.cli.which:leave",
        "leave a circle and forget its secret",
        once=True,
    )
    leave.add_argument("name", metavar="NAME", help="the circle")
    leave.add_argument("--yes", action="store_true", help="do not ask")
    add_json(leave)


def _add_services(verbs: Any) -> None:
    services = group(
        verbs,
        "services",
        "add, remove and list where a circle meets",
        "A circle of version 2 may meet at several services; it loses nothing while one is up.",
    )
    added = verbs_of(services)
    add = verb(
        added, "add", "muster.cli.circle.keeping:services_add", "meet at one more", once=True
    )
    remove = verb(
        added,
        "remove",
        "muster.cli.circle.keeping:services_remove",
        "meet there no longer",
        once=True,
    )
    for one in (add, remove):
        one.add_argument(
            "address", metavar="ADDRESS", help="https://host#id, with &access=CODE where closed"
        )
    show = verb(added, "list", "muster.cli.circle.keeping:services_list", "show where it meets")
    for one in (add, remove, show):
        add_circle(one)
        add_json(one)
    listed(services, added)


def _add_rekey(verbs: Any) -> None:
    rekey = verb(
        verbs,
        "rekey",
        "muster.cli.circle.keeping:rekey",
        "give a circle new keys, without somebody perhaps",
        once=True,
    )
    rekey.add_argument(
        "--without",
        metavar="NAME",
        action="append",
        default=[],
        help="who is to go: a name, or the start of an id; may be repeated",
    )
    rekey.add_argument(
        "--only",
        metavar="NAME",
        action="append",
        default=[],
        help="who alone is to stay, beside you: where somebody has filled the circle with names",
    )
    rekey.add_argument("--yes", action="store_true", help="do not ask")
    add_circle(rekey)
    add_json(rekey)


def _add_founder(verbs: Any) -> None:
    founder = group(
        verbs,
        "founder",
        "hand the founder key on",
        "The founder key makes new keys and tells of services; who made the circle has it.",
    )
    added = verbs_of(founder)
    give = verb(
        added,
        "give",
        "muster.cli.circle.keeping:founder_give",
        "give a member the founder key too",
        once=True,
    )
    give.add_argument("name", metavar="NAME", help="the member: a name, or the start of an id")
    add_circle(give)
    add_json(give)
    listed(founder, added)


def _add_upgrade(verbs: Any) -> None:
    upgrade = verb(
        verbs,
        "upgrade",
        "muster.cli.circle.keeping:upgrade",
        "invite a felund circle's members into a circle of version 2",
        once=True,
    )
    add_circle(upgrade)
    add_json(upgrade)
