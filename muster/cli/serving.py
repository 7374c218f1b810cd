"""Serving: `muster serve`, the service on one machine."""

from __future__ import annotations

import argparse
import dataclasses
import errno
import ipaddress
import os
import socket
import sqlite3
from pathlib import Path

from muster.cli import output
from muster.cli.output import Failure, Misuse


def serve(arguments: argparse.Namespace) -> int:
    """Run the service until it is told to stop."""
    from chalicelib.community.keyring import Unusable
    from chalicelib.local import main
    from chalicelib.local.certificate import Unfit

    try:
        settings, bounds, verbose, tls = main.read(os.environ)
    except ValueError as error:
        raise Misuse(str(error), "it was read from the environment") from None
    named = {"unsigned": arguments.unsigned, "access": arguments.access}
    settings = dataclasses.replace(settings, **{name: word for name, word in named.items() if word})
    proxies = tuple(_network(text) for text in arguments.trusted_proxy)
    if not arguments.data:
        raise Misuse("--data names no folder", "'--data .' is the one you are in")
    data = Path(arguments.data)
    try:
        main.serve(
            settings,
            bounds=bounds,
            host=arguments.host,
            port=arguments.port,
            data_dir=data,
            trusted_proxies=proxies,
            verbose=arguments.verbose or verbose,
            publish_every_s=arguments.publish_every,
            tls=(arguments.tls_cert or tls[0], arguments.tls_key or tls[1]),
        )
    except Unfit as error:
        raise Misuse(str(error), "--tls-cert FILE and --tls-key FILE name them") from None
    except Unusable as error:
        raise Failure(
            f"cannot publish capsules with the keys in {data.absolute() / 'keys'}: {error}",
            "--publish-every 0 serves without publishing",
        ) from None
    except OSError as error:
        raise explain(error, arguments.host, arguments.port, data) from None
    except sqlite3.Error as error:
        raise Failure(
            f"cannot use the database in {data.absolute()}: {error}",
            "another folder can be chosen with --data DIR",
        ) from None
    return output.OK


def explain(error: OSError, host: str, port: int, data: Path) -> Failure:
    """Say why the service cannot start, and what to do about it."""
    cause = error.__cause__ if isinstance(error.__cause__, OSError) else error
    if isinstance(cause, socket.gaierror) or cause.errno == errno.EADDRNOTAVAIL:
        return Failure(
            f"'{host}' is no address of this machine", "take --host 127.0.0.1, or 0.0.0.0 for all"
        )
    if cause.errno == errno.EADDRINUSE:
        return Failure(
            f"port {port} of {host} is taken",
            f"'muster info http://{host}:{port}' shows whether by Muster; --port takes another",
        )
    if cause.errno == errno.EACCES and cause.filename is None:
        return Failure(f"port {port} is for the system", "--port takes another, above 1023")
    if cause.filename is not None:
        reason = (cause.strerror or str(cause)).lower()
        return Failure(
            f"cannot keep data in {data.absolute()}: {reason}", "--data DIR takes another folder"
        )
    if cause.errno is None:
        return Failure(str(error), "--data DIR takes another folder")
    return Failure(str(error))


def _network(text: str) -> str:
    try:
        return str(ipaddress.ip_network(text))
    except ValueError:
        raise Misuse(
            f"--trusted-proxy {text} is not a network", "write it like 10.0.0.0/8 or 192.0.2.7"
        ) from None
