"""The one-machine host: HTTP and WebSocket on one port, SQLite in one directory."""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import errno
import fcntl
import logging
import os
import resource
import secrets
import shlex
import shutil
import socket
import sqlite3
import sys
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple, TextIO
from urllib.parse import urlsplit

from capsules.keys import VerifyKey
from chalicelib import log, tables, variables
from chalicelib.community.keyring import Unusable
from chalicelib.community.publisher import EVERY_S
from chalicelib.local import certificate
from chalicelib.local.app import LocalHost
from chalicelib.local.bounds import Bounds
from chalicelib.local.calls import base_url, is_loopback
from chalicelib.local.certificate import Certificate
from chalicelib.local.publishing import FolderPublishing
from chalicelib.local.publishing_keys import KeyFolder, notice
from chalicelib.settings import Settings, unknown
from chalicelib.store import Stores
from chalicelib.store.sqlite import SqliteStores, open_sqlite
from chalicelib.variables import WrongValue
from muster import keys, places

__all__ = ["Bounds", "Chosen", "LocalHost", "build", "read", "serve"]

BUSY_S = 0.25
"""How long a call may wait for another process; everybody else waits meanwhile, and once."""

SPARE_FILES = 64
DATA = "data"

_ACCESS = {
    "": "open to calls from this machine; closed to what comes from elsewhere or by a proxy",
    "closed": "closed: only circles that were let in are served, and communities that were named",
    "open": "open: whoever reaches it can make circles and communities here, and fill the disk\n"
    "            as far as the limits go; --closed serves only those that were let in",
}

_NEEDS_TLS = (
    "reach the app only by https: --tls-cert and --tls-key, or a proxy (docs/one-machine.md)"
)

_log = logging.getLogger("muster")
_level = variables.choice("info", "warning")


class Chosen(NamedTuple):
    """What the environment says of a service on one machine."""

    settings: Settings
    bounds: Bounds
    verbose: bool
    tls: tuple[str, str] = ("", "")
    """The files of a certificate and its key, where TLS is to be ours."""


def read(environment: Mapping[str, str]) -> Chosen:
    """Read every ``MUSTER_…``; raises `WrongValue` for a value or a name that does not fit."""
    if stray := unknown(environment):
        raise WrongValue(stray)
    level = _level("MUSTER_LOG", environment.get("MUSTER_LOG", "").lower() or "warning")
    return Chosen(
        Settings.from_environment(environment),
        Bounds.from_environment(environment),
        verbose=level == "info",
        tls=(environment.get(certificate.CERTIFICATE, ""), environment.get(certificate.KEY, "")),
    )


def build(
    settings: Settings,
    stores: Stores,
    *,
    trusted_proxies: Iterable[str] = (),
    bounds: Bounds | None = None,
    shown: Certificate | None = None,
) -> LocalHost:
    """Put the host together over open stores: an ASGI app."""
    return LocalHost(
        settings, stores, trusted_proxies=trusted_proxies, bounds=bounds, certificate=shown
    )


def serve(
    settings: Settings,
    *,
    host: str,
    port: int,
    data_dir: Path | str,
    trusted_proxies: Iterable[str] = (),
    verbose: bool = False,
    bounds: Bounds | None = None,
    publish_every_s: int = EVERY_S,
    tls: tuple[str, str] = ("", ""),
) -> None:
    """Serve until SIGTERM or SIGINT; port 0 takes any free one; 0 publishes no capsules.

    With *tls*, the files of a certificate and its key, it speaks TLS alone. Unless the settings
    say so, it is closed if more than this machine can reach it.

    Raises `OSError` if it cannot listen there or use the directory, `Unusable` if it cannot use
    the publishing keys there, `Unfit` if it cannot use the certificate, and `ValueError` if a
    proxy is not a network.
    """
    from chalicelib.local import server

    directory = Path(data_dir)
    if directory.exists() and not directory.is_dir():
        raise NotADirectoryError(errno.ENOTDIR, "it is a file, not a folder", str(directory))
    log_to(sys.stderr, verbose=verbose)
    shown = certificate.chosen(*tls)
    files = _many_files()
    bounds = bounds or Bounds()
    if shown or is_reachable(settings, host=host, trusted_proxies=trusted_proxies):
        settings = dataclasses.replace(settings, access=settings.access or "closed")
    with (
        _listening(host, port) as listener,  # first: where it fails, no folder is left behind
        _alone_in(directory),
        contextlib.closing(_opened(directory, bounds)) as stores,
    ):
        app = build(settings, stores, trusted_proxies=trusted_proxies, bounds=bounds, shown=shown)
        base = base_url(host, listener.getsockname()[1], scheme="https" if shown else "http")
        published = _publish(app, directory, base, every_s=publish_every_s)
        named = f"#{_service_id(app)}"
        if settings.access == "closed":
            named += _first_code(stores)
        others = elsewhere(host, base, here=_addresses() if places.is_any(host) else ())
        print(_greeting(settings, base, directory, published, named, others), flush=True)
        if files < bounds.connections + SPARE_FILES:
            _log.warning("only %d files may be open; not every connection will find room", files)
        server.run(app, listener)


def is_reachable(settings: Settings, *, host: str, trusted_proxies: Iterable[str]) -> bool:
    """Say whether more than this machine can reach a service that listens there."""
    told = urlsplit(settings.websocket_url).hostname or host
    return bool(tuple(trusted_proxies)) or not (is_loopback(host) and is_loopback(told))


def elsewhere(host: str, base: str, *, here: Sequence[str]) -> list[str]:
    """Return the URLs by which others reach what listens at *host*; *here* if at all addresses."""
    if not places.is_any(host):
        return [] if is_loopback(host) else [base]
    parts = urlsplit(base)
    return [
        base_url(one, parts.port, scheme=parts.scheme)
        for one in here
        if ":" not in one or host != "0.0.0.0"  # noqa: S104 - it is compared
    ]


def _addresses() -> list[str]:
    """Return the addresses of this machine, where that can be asked; the service needs none."""
    try:
        return places.Here.look().shown()
    except (ImportError, OSError):
        return []


def log_to(stream: TextIO, *, verbose: bool) -> None:
    """Write logs as JSON lines: warnings and errors, or every call as well."""
    handler = logging.StreamHandler(stream)
    handler.setFormatter(log.JsonLines())
    for name in ("muster", "uvicorn", "asyncio"):
        logger = logging.getLogger(name)
        logger.handlers, logger.propagate = [handler], False
    logging.getLogger("muster").setLevel(logging.INFO if verbose else logging.WARNING)


@contextlib.contextmanager
def _alone_in(directory: Path) -> Iterator[None]:
    """Hold the directory, made if need be: two hosts would take each other's sockets for gone."""
    directory.mkdir(mode=0o700, parents=True, exist_ok=True)
    with (directory / "muster.lock").open("a") as lock:  # "w" empties what a link leads to
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise OSError(f"another muster is serving from {directory}") from None
        yield


def _opened(directory: Path, bounds: Bounds) -> SqliteStores:
    """Open the store; its files, which hold request keys, are their owner's alone.

    SQLite gives what it writes beside its file the mode of the file.
    """
    for path in directory.glob("muster.*"):
        path.chmod(0o600)
    if directory.stat().st_mode & 0o077:
        _log.warning("others can look into %s; 'chmod go= %s' keeps them out", directory, directory)
    before = os.umask(0o077)
    try:
        return open_sqlite(
            directory / "muster.sqlite3", busy_s=BUSY_S, most_bytes=bounds.store_bytes
        )
    finally:
        os.umask(before)


def _listening(host: str, port: int) -> socket.socket:
    try:
        family, address = _resolved(host, port)
        everywhere = family == socket.AF_INET6 and host in ("::", "")
        return socket.create_server(
            address[:2], family=family, backlog=2048, dualstack_ipv6=everywhere
        )
    except (OSError, OverflowError) as error:
        reason = getattr(error, "strerror", None) or error
        raise OSError(f"cannot listen on {host} port {port}: {reason}") from error


def _resolved(host: str, port: int) -> tuple[int, Any]:
    try:
        family, *_, address = socket.getaddrinfo(
            host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
    except UnicodeError:  # a label that is empty or too long
        raise socket.gaierror(socket.EAI_NONAME, "Name or service not known") from None
    return family, address


def _many_files() -> int:
    """Let this process open as many files as it may; return how many that are."""
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    with contextlib.suppress(ValueError, OSError):
        resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    return resource.getrlimit(resource.RLIMIT_NOFILE)[0]


def _publish(app: LocalHost, directory: Path, base: str, *, every_s: int) -> str:
    """Publish capsules with the directory's keys; return what is to be said of it."""
    if not every_s:
        return ""
    now, keys = int(time.time()), KeyFolder(directory / "keys")
    made = keys.prepare(now=now)
    folder = directory / "capsules"
    app.attach(FolderPublishing(app.service, keys=keys, folder=folder, every_s=every_s, now=now))
    return notice(keys, base, made=made, now=now)


def _service_id(app: LocalHost) -> str:
    """Return by what name circles of version 2 know the service, whatever its URL is."""
    signer = app.service.signer(now=int(time.time()))
    return keys.service_id(VerifyKey(signer.verify_key)).hex()


def _first_code(stores: Stores) -> str:
    """Make an access code if there is none yet; return what it adds to the address."""
    now = int(time.time())
    if tables.codes(stores, limit=1, now=now):
        return ""
    code = secrets.token_urlsafe(16)
    allowed = tables.Allowed("the first", now, code)
    tables.allow(stores, tables.code_key(code), allowed, until=tables.FOREVER)
    return f"&access={code}"


def _greeting(
    settings: Settings,
    base: str,
    directory: Path,
    published: str,
    named: str,
    others: Sequence[str],
) -> str:
    """Say where it listens and what to try; *named* is its id, with a code perhaps."""
    muster, address = _command(), base + named
    far = [url + named for url in others if url != base]
    beside = "".join(f"  {'' if place else 'others':<10}{one}\n" for place, one in enumerate(far))
    if others and base.startswith("http:"):
        beside += f"  {'' if far else 'others':<10}{_NEEDS_TLS}\n"
    first = f"See two peers meet:       {muster} doctor {base}"
    shown = shlex.quote(address)
    if settings.access == "closed":
        data = "" if str(directory) == DATA else f" --data {shlex.quote(str(directory))}"
        first = f"Let people in:            {muster} access new{data}, or allow CODE for one circle"
        if "&access=" in address:
            first += "\n  This once, the address above has a code that lets in whoever is given it."
    return f"""\
Muster {settings.version} listens on {base}
  app       {base}/app/
  look      {base}/
  address   {address}
{beside}  data      {directory}
  access    {_ACCESS[settings.access]}
  unsigned  {settings.unsigned}
{published}
{first}
Talk, in one terminal:    {muster} circle new {shown}, then {muster} listen
      and in another:     {muster} circle join CODE, then {muster} send "hello"
"""


def _command() -> str:
    """Return how the reader can call `muster` from here."""
    beside = Path(sys.executable).with_name("muster")
    found = shutil.which("muster")
    if not beside.exists() or (found and Path(found).samefile(beside)):
        return "muster"
    return os.path.relpath(beside) if beside.is_relative_to(Path.cwd()) else str(beside)


def main(arguments: Sequence[str] | None = None) -> int:
    """Serve as told on the command line; `muster serve` is the command for people."""
    parser = argparse.ArgumentParser(prog="python -m chalicelib.local", description=__doc__)
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, default=8787)
    parser.add_argument("--data", default=DATA)
    for word in ("open", "closed"):
        parser.add_argument(f"--{word}", dest="access", action="store_const", const=word)
    parser.add_argument("--unsigned", choices=("refuse", "allow"))
    parser.add_argument("--trusted-proxy", action="append", default=[], metavar="CIDR")
    parser.add_argument("--tls-cert")
    parser.add_argument("--tls-key")
    parser.add_argument("--verbose", action="store_true")
    parser.add_argument("--publish-every", type=int, default=EVERY_S, metavar="SECONDS")
    chosen = parser.parse_args(arguments)
    named = {
        "MUSTER_UNSIGNED": chosen.unsigned,
        "MUSTER_ACCESS": chosen.access,
        certificate.CERTIFICATE: chosen.tls_cert,
        certificate.KEY: chosen.tls_key,
    }
    try:
        settings, bounds, verbose, tls = read(
            os.environ | {name: word for name, word in named.items() if word}
        )
        serve(
            settings,
            bounds=bounds,
            host=chosen.host,
            port=chosen.port,
            data_dir=chosen.data,
            trusted_proxies=chosen.trusted_proxy,
            verbose=chosen.verbose or verbose,
            publish_every_s=max(chosen.publish_every, 0),
            tls=tls,
        )
    except (OSError, Unusable, ValueError, sqlite3.Error) as error:
        print(f"muster: {error}", file=sys.stderr)
        return 1
    return 0
