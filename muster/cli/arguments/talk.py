"""The verbs that talk with a service: `send`, `listen`, `doctor`, `info` and `watch`."""

from __future__ import annotations

import argparse
from typing import Any

from muster.cli.arguments import values
from muster.cli.arguments.circle import add_base, add_circle
from muster.cli.arguments.table import add_json, verb


def add_chat(commands: Any) -> None:
    """Add `send`, `listen` and `peers`."""
    send = verb(commands, "send", "muster.cli.which:send", "say something in a circle", once=True)
    send.add_argument(
        "text", metavar="TEXT", nargs="+", help="the text, or - to read it from stdin"
    )
    send.add_argument(
        "--name", metavar="NAME", help="how you are called (MUSTER_NAME, else your user name)"
    )
    listen = verb(commands, "listen", "muster.cli.which:listen", "show what is said in a circle")
    listen.add_argument(
        "--since",
        metavar="WHEN",
        help="start earlier: 10m, 2h, 3d, 2026-01-31, 2026-01-31T12:00 or all "
        "(default: where the last 'listen' stopped)",
    )
    listen.add_argument(
        "--port",
        type=int,
        metavar="PORT",
        help="be reached directly at this port too (0: any free one), with or without a service",
    )
    listen.add_argument(
        "--bind", metavar="ADDRESS", default="", help="at this address of the machine alone"
    )
    for command in (send, listen):
        add_circle(command)
        add_base(command, "the service, if not where a felund circle meets")
        add_json(command)
    peers = verb(commands, "peers", "muster.cli.which:peers", "show who is in a circle now")
    add_circle(peers)
    add_json(peers)


def add_screen(commands: Any) -> None:
    """Add `chat`, `node` and `inbox`."""
    chat = verb(
        commands, "chat", "muster.cli.screen.verbs:chat", "talk: circles, channels, who is here"
    )
    chat.add_argument(
        "--plain", action="store_true", help="lines only, for screen readers, pipes and logs"
    )
    chat.add_argument(
        "--no-mouse",
        action="store_true",
        help="leave the mouse to the terminal, to select and copy",
    )
    node = verb(
        commands,
        "node",
        "muster.cli.screen.verbs:node",
        "stay in your circles without a screen, so that others find what was said",
    )
    for command in (chat, node):
        command.add_argument("--name", metavar="NAME", help="how you are called, in all circles")
        command.add_argument(
            "--port",
            type=values.port,
            metavar="PORT",
            help="be reached directly at this port (default: any; a circle keeps its port); with "
            "several circles at the next ones too",
        )
        command.add_argument(
            "--bind", metavar="ADDRESS", default="", help="at this address of the machine alone"
        )
        command.add_argument(
            "--shown", metavar="HOST", help="tell others this host, where a port is forwarded"
        )
        command.add_argument(
            "--no-listen", action="store_true", help="do not be reached directly at all"
        )
        command.add_argument(
            "--mobile", action="store_true", help="this machine comes and goes: it is no anchor"
        )
    chat.add_argument(
        "--anchor", action="store_true", help="this machine stays: others may hold on to it"
    )
    add_circle(chat)
    node.set_defaults(anchor=True)
    add_circle(node)
    node.add_argument(
        "--announce",
        action="store_true",
        help="stay known in a public community too, by --peer-id at --capsule or --beacon",
    )
    node.add_argument("--peer-id", metavar="ID", help="the name to announce")
    node.add_argument(
        "--capsule", metavar="URL#KEY", action="append", default=[], help="may be repeated"
    )
    node.add_argument("--beacon", metavar="URL", action="append", default=[], help="the same")
    node.add_argument("--community", metavar="C", help="if the URL's folder does not say (mainnet)")
    node.set_defaults(cache=None)
    inbox = verb(
        commands, "inbox", "muster.cli.screen.verbs:inbox", "show the newest messages that are here"
    )
    add_circle(inbox)
    inbox.add_argument(
        "--limit",
        type=values.whole("number of messages", most=100_000),
        default=20,
        metavar="N",
        help="so many (%(default)d)",
    )
    export = verb(
        commands,
        "export",
        "muster.cli.screen.transferring:export",
        "write circles and their history to a file, for another device",
        once=True,
    )
    export.add_argument("file", metavar="FILE", help="where to")
    add_circle(export)
    export.add_argument(
        "--plain", action="store_true", help="lines of JSON, not encrypted: keep it to yourself"
    )
    bring = verb(
        commands,
        "import",
        "muster.cli.screen.transferring:import_",
        "take circles and their history from such a file",
        once=True,
    )
    bring.add_argument("file", metavar="FILE", help="a file of 'muster export'")
    for command in (export, bring):
        command.add_argument(
            "--passphrase-file", metavar="FILE", help="its first line is the passphrase"
        )
    add_json(node, inbox, export, bring)


def add_looking(commands: Any) -> None:
    """Add `doctor`, `info` and `watch`."""
    for name, run, what in (
        (
            "doctor",
            "muster.cli.doctor:doctor",
            "let two nodes meet through a service, and say what works",
        ),
        ("info", "muster.cli.info:info", "show a service's version, policy, limits and keys"),
        (
            "watch",
            "muster.cli.watching:watch",
            "for cron: say what is wrong with a service, else nothing",
        ),
    ):
        command = verb(commands, name, run, what)
        command.add_argument(
            "base", metavar="BASE", nargs="?", help="the service's URL, or its whole address"
        )
        command.add_argument(
            "--timeout",
            type=values.seconds,
            default=10.0,
            metavar="S",
            help="longest wait for each step, in seconds (%(default)g)",
        )
        if name == "doctor":
            command.add_argument(
                "--circle",
                metavar="NAME",
                help="examine it as a circle of yours, which a closed service has let in; "
                "three messages stay in its mailbox",
            )
        if name == "watch":
            _add_watched(command)
        add_json(command)


def _add_watched(watch: argparse.ArgumentParser) -> None:
    watch.add_argument(
        "--community",
        metavar="C",
        action="append",
        default=[],
        help="its capsule must be fresh and verify; may be repeated",
    )
    watch.add_argument(
        "--root",
        metavar="KEY",
        help="the root key to believe capsules by (default: what the service says)",
    )
    watch.add_argument(
        "--days",
        type=values.days,
        default=14,
        metavar="N",
        help="how long an https certificate must last (%(default)d)",
    )
    watch.add_argument(
        "--after",
        type=values.times,
        default=1,
        metavar="N",
        help="say it when something was wrong N times in a row, and until it is well again; "
        "the count is kept in MUSTER_HOME (%(default)d)",
    )
