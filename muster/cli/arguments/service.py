"""The verbs of those who run a service: `serve`, `backup` and `restore`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from muster.cli.arguments import values
from muster.cli.arguments.table import SERVICE, Parser, add_json, verb


def add(commands: Any) -> None:
    """Add them."""
    _add_serve(commands)
    backup = verb(
        commands,
        "backup",
        "muster.cli.copies:backup",
        "copy a service's data; it may be running",
        needs=SERVICE,
        once=True,
    )
    backup.add_argument("file", metavar="FILE", type=Path, help="where the copy goes; - for stdout")
    restore = verb(
        commands,
        "restore",
        "muster.cli.copies:restore",
        "put a copy in the place of a service's data",
        needs=SERVICE,
        once=True,
    )
    restore.add_argument("file", metavar="FILE", type=Path, help="the copy")
    restore.add_argument("--yes", action="store_true", help="replace what is there without asking")
    for command in (backup, restore):
        _add_data(command, "the service's folder (./%(default)s)")
        add_json(command)


def _add_serve(commands: Any) -> None:
    serve = verb(
        commands,
        "serve",
        "muster.cli.serving:serve",
        "run the service on this machine",
        needs=SERVICE,
    )
    serve.add_argument("--host", default="127.0.0.1", help="address to listen on (%(default)s)")
    serve.add_argument(
        "--port", type=values.port, default=8787, help="port to listen on (%(default)s)"
    )
    _add_data(serve, "folder for the database (./%(default)s)")
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
    serve.add_argument(
        "--tls-cert",
        metavar="FILE",
        help="speak https, with the certificate (and its chain) in this file (MUSTER_TLS_CERT)",
    )
    serve.add_argument(
        "--tls-key",
        metavar="FILE",
        help="the certificate's key (MUSTER_TLS_KEY); both files are read again when they change",
    )
    for word, what in (
        ("closed", "serve only circles that were let in ('muster access'), whoever calls"),
        ("open", "serve everybody (default: calls from this machine); the last of the two counts"),
    ):
        serve.add_argument(f"--{word}", dest="access", action="store_const", const=word, help=what)
    serve.add_argument("--verbose", action="store_true", help="log every call, a JSON line each")
    serve.add_argument(
        "--publish-every",
        type=values.whole_seconds,
        default=300,
        metavar="S",
        help="how often capsules are published, in seconds; 0 for never (%(default)s)",
    )


def _add_data(command: Parser, what: str) -> None:
    command.add_argument("--data", metavar="DIR", default="data", help=what)
