"""The `muster` command: what there is, and nothing of how it is done.

Only argparse is loaded here; each command loads what it needs when it is called,
so that `--help` and completion answer at once.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence
from importlib import import_module

from muster.cli import (
    assist_commands,
    bootstrap_commands,
    capsule_commands,
    deploy_commands,
    upkeep_commands,
)
from muster.cli.output import Failure, complain

INTERRUPTED = 130

EPILOG = """\
try it, in three terminals:
  1  muster serve                  a service on this machine
  2  muster circle new             a circle, once
     muster listen                 shows what is said in it
  3  muster send hello             says something
     muster doctor                 shows that everything works

exit codes: 0 done, 1 refused or failed, 2 called in a wrong way.
environment: MUSTER_HOME (default ~/.muster), MUSTER_BASE (default http://127.0.0.1:8787),
MUSTER_NAME (how you are called); for 'serve', MUSTER_... for every setting.
"""


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command; return its exit code."""
    arguments = parser().parse_args(argv)
    module, _, function = arguments.run.partition(":")
    try:
        code: int = getattr(import_module(module), function)(arguments)
        sys.stdout.flush()
    except Failure as failure:
        return complain(failure)
    except KeyboardInterrupt:
        return INTERRUPTED
    except BrokenPipeError:
        # Whoever read our output has seen enough; keep the interpreter from trying again.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    return code


def parser() -> argparse.ArgumentParser:
    """Return the command line: commands, options, and where each command lives."""
    top = _Parser(
        prog="muster",
        description="Lets the programs of a small group find each other and talk.",
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    top.add_argument("--version", action=_Version, help="print the version and exit")
    commands = top.add_subparsers(title="commands", metavar="COMMAND", required=True)
    _add_service(commands)
    _add_circle(commands)
    _add_chat(commands)
    capsule = capsule_commands.add(commands, _command)
    bootstrap_commands.add(commands, capsule, _command)
    assist_commands.add(commands, _command)
    upkeep_commands.add(commands, _command)
    deploy_commands.add(commands, _command)
    return top


class _Parser(argparse.ArgumentParser):
    """An argument parser whose errors are one line, as all of ours are."""

    def error(self, message: str) -> None:  # type: ignore[override] # it exits, as the base does
        """Say what was wrong and where to read on."""
        sys.stderr.write(f"muster: {message}; see '{self.prog} --help'\n")
        sys.exit(2)


class _Version(argparse.Action):
    """Prints the version; the package is asked only then."""

    def __init__(self, option_strings: Sequence[str], dest: str, **rest: object) -> None:
        super().__init__(option_strings, dest, nargs=0, help=str(rest.get("help")))

    def __call__(self, parser: argparse.ArgumentParser, *rest: object) -> None:
        from muster import __version__

        print(f"muster {__version__}")
        parser.exit()


def _add_service(commands: argparse._SubParsersAction[_Parser]) -> None:
    serve = _command(
        commands, "serve", "muster.cli.serving:serve", "run the service on this machine"
    )
    serve.add_argument("--host", default="127.0.0.1", help="address to listen on (%(default)s)")
    serve.add_argument("--port", type=_port, default=8787, help="port to listen on (%(default)s)")
    serve.add_argument(
        "--data", metavar="DIR", default="data", help="folder for the database (./%(default)s)"
    )
    serve.add_argument(
        "--unsigned",
        choices=("refuse", "allow"),
        help="whether calls without a signature are accepted (refuse)",
    )
    serve.add_argument(
        "--trusted-proxy",
        metavar="CIDR",
        action="append",
        default=[],
        help="believe X-Forwarded-For from this network; may be repeated",
    )
    serve.add_argument("--verbose", action="store_true", help="log every call, a JSON line each")
    serve.add_argument(
        "--publish-every",
        type=_whole_seconds,
        default=300,
        metavar="S",
        help="how often capsules are published, in seconds; 0 for never (%(default)s)",
    )

    for name, what in (
        ("doctor", "let two nodes meet through a service, and say what works"),
        ("info", "show a service's version, policy, limits and keys"),
    ):
        command = _command(commands, name, f"muster.cli.about:{name}", what)
        command.add_argument("base", metavar="BASE", nargs="?", help="the service's URL")
        command.add_argument(
            "--timeout",
            type=_seconds,
            default=10.0,
            metavar="S",
            help="longest wait for each step, in seconds (%(default)g)",
        )
        _add_json(command)


def _add_circle(commands: argparse._SubParsersAction[_Parser]) -> None:
    circle = commands.add_parser(
        "circle",
        help="make, join, list and leave circles",
        description="A circle is people who share a secret. It is kept in MUSTER_HOME.",
    )
    verbs = circle.add_subparsers(title="commands", metavar="COMMAND", required=True)
    new = _command(verbs, "new", "muster.cli.circles:new", "make a circle")
    where = new.add_mutually_exclusive_group()
    where.add_argument("base", metavar="BASE", nargs="?", help="the service where it meets")
    where.add_argument("--base", dest="at", metavar="URL", help="the same")
    _add_name(new, "what to call the circle here")
    invite = _command(
        verbs, "invite", "muster.cli.circles:invite", "print the code that lets people in"
    )
    invite.add_argument("--circle", metavar="NAME", help="which circle, if there are several")
    _add_base(invite, "where the code leads, if not where the circle meets")
    join = _command(verbs, "join", "muster.cli.circles:join", "join the circle of an invite code")
    join.add_argument("code", metavar="CODE", help="felund1.…, or - to read it from stdin")
    _add_name(join, "what to call the circle here")
    _add_base(join, "where it meets, if not where the code says")
    everything = _command(verbs, "list", "muster.cli.circles:show_all", "list the circles")
    use = _command(verbs, "use", "muster.cli.circles:use", "choose the circle that commands mean")
    use.add_argument("name", metavar="NAME", help="the circle")
    _add_base(use, "let it meet at this service from now on")
    rename = _command(verbs, "rename", "muster.cli.circles:rename", "call a circle otherwise here")
    rename.add_argument("name", metavar="OLD", help="the circle")
    rename.add_argument("new", metavar="NEW", help="what to call it")
    leave = _command(
        verbs, "leave", "muster.cli.circles:leave", "leave a circle and forget its secret"
    )
    leave.add_argument("name", metavar="NAME", help="the circle")
    leave.add_argument("--yes", action="store_true", help="do not ask")
    for command in (new, invite, join, everything, use, rename, leave):
        _add_json(command)


def _add_chat(commands: argparse._SubParsersAction[_Parser]) -> None:
    send = _command(commands, "send", "muster.cli.chat:send", "say something in a circle")
    send.add_argument(
        "text", metavar="TEXT", nargs="+", help="the text, or - to read it from stdin"
    )
    _add_name(send, "how you are called (MUSTER_NAME, else your user name)")
    listen = _command(commands, "listen", "muster.cli.chat:listen", "show what is said in a circle")
    listen.add_argument(
        "--since",
        metavar="WHEN",
        help="start earlier: 10m, 2h, 3d, 2026-01-31, 2026-01-31T12:00 or all "
        "(default: where the last 'listen' stopped)",
    )
    for command in (send, listen):
        command.add_argument("--circle", metavar="NAME", help="which circle, if there are several")
        _add_base(command, "the service, if not where the circle meets")
        _add_json(command)


def _command(
    commands: argparse._SubParsersAction[_Parser], name: str, run: str, what: str
) -> _Parser:
    command = commands.add_parser(name, help=what, description=f"{what[:1].upper()}{what[1:]}.")
    command.set_defaults(run=run)
    return command


def _add_json(command: _Parser) -> None:
    command.add_argument("--json", action="store_true", help="print JSON, a value on each line")


def _add_name(command: _Parser, what: str) -> None:
    command.add_argument("--name", metavar="NAME", help=what)


def _add_base(command: _Parser, what: str) -> None:
    command.add_argument("--base", metavar="URL", help=what)


def _port(text: str) -> int:
    if not text.isdecimal() or int(text) > 65535:
        raise argparse.ArgumentTypeError(f"'{text}' is not a port")
    return int(text)


def _whole_seconds(text: str) -> int:
    if not text.isdecimal() or int(text) > 86400:
        raise argparse.ArgumentTypeError(f"'{text}' is not a whole number of seconds up to a day")
    return int(text)


def _seconds(text: str) -> float:
    try:
        seconds = float(text)
    except ValueError:
        seconds = 0.0
    if not 0 < seconds <= 3600:
        raise argparse.ArgumentTypeError(f"'{text}' is not a number of seconds")
    return seconds
