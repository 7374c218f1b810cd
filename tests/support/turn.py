"""A real coturn on free loopback ports, and a client that asks it for an allocation."""

import asyncio
import shutil
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from aioice import stun, turn

PROGRAM = "turnserver"
REALM = "muster.test"


def missing() -> str:
    """Say why there is no coturn here, or nothing."""
    if shutil.which(PROGRAM):
        return ""
    return "needs coturn: .ci/setup coturn installs it as root on Debian"


@contextmanager
def running(directory: Path, *, secret: str = "", login: str = "") -> Iterator[int]:
    """Run coturn with a shared secret, or a fixed ``name:password``; yields its port."""
    port = _free_port()
    choice = ["--use-auth-secret", f"--static-auth-secret={secret}"] if secret else []
    choice += [f"--user={login}"] if login else []
    log = (directory / "coturn.out").open("wb")
    process = subprocess.Popen(
        [
            PROGRAM,
            "-n",
            "--listening-ip=127.0.0.1",
            "--relay-ip=127.0.0.1",
            f"--listening-port={port}",
            "--min-port=50000",
            "--max-port=50100",
            "--lt-cred-mech",
            f"--realm={REALM}",
            "--no-tls",
            "--no-dtls",
            "--no-cli",
            "--allow-loopback-peers",
            f"--pidfile={directory / 'coturn.pid'}",
            f"--userdb={directory / 'coturn.db'}",
            "--log-file=stdout",
            "--simple-log",
            *choice,
        ],
        cwd=directory,
        stdin=subprocess.DEVNULL,
        stdout=log,
        stderr=log,
    )
    try:
        _wait(port, process, directory / "coturn.out")
        yield port
    finally:
        process.terminate()
        process.wait(timeout=15)
        log.close()


def allocate(port: int, *, username: str, password: str) -> tuple[str, int]:
    """Ask for an allocation, and give it back; returns the relayed address.

    Raises `stun.TransactionFailed` if coturn refuses.
    """

    async def ask() -> tuple[str, int]:
        transport, _ = await turn.create_turn_endpoint(
            asyncio.DatagramProtocol,
            server_addr=("127.0.0.1", port),
            username=username,
            password=password,
            transport="udp",
        )
        address: tuple[str, int] = transport.get_extra_info("sockname")
        transport.close()
        await asyncio.sleep(0.1)  # the goodbye is a call of its own, which nobody awaits
        return address

    return asyncio.run(ask())


Refused = stun.TransactionFailed


def _free_port() -> int:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _wait(port: int, process: "subprocess.Popen[bytes]", log: Path) -> None:
    """Wait until it listens on TCP, which it does after UDP."""
    for _ in range(100):
        if process.poll() is not None:
            raise RuntimeError(log.read_text(errors="replace"))
        try:
            socket.create_connection(("127.0.0.1", port), timeout=1).close()
        except OSError:
            time.sleep(0.1)
        else:
            return
    raise RuntimeError(f"coturn does not listen: {log.read_text(errors='replace')}")
