"""A real coturn with our configuration, on free loopback ports, and a client that asks it."""

import asyncio
import contextlib
import re
import shutil
import socket
import subprocess
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

from aioice import stun, turn

PROGRAM = "turnserver"
REALM = "muster.test"
CONFIGURATION = Path(__file__).parents[2] / "packaging" / "turnserver.conf"
HERE = """
listening-ip=127.0.0.1
relay-ip=127.0.0.1
pidfile={directory}/coturn.pid
userdb={directory}/coturn.db
"""


def missing() -> str:
    """Say why there is no coturn here, or nothing."""
    if shutil.which(PROGRAM):
        return ""
    return "needs coturn: .ci/setup coturn installs it as root on Debian"


HERE_TOO = """
allow-loopback-peers
allowed-peer-ip=127.0.0.1
"""
"""What lets it lead to this machine, as ours never does, for two browsers that are both here."""


@contextmanager
def running(
    directory: Path, *, secret: str = "", login: str = "", port: int = 0, here_too: bool = False
) -> Iterator[int]:
    """Run coturn with a shared secret, or a fixed ``name:password``; yields its port.

    With *here_too* it leads to this machine as well; all else is our configuration.
    """
    port = port or _free_port()
    file, output = directory / "turnserver.conf", directory / "coturn.out"
    file.write_text(
        _configured(port, secret=secret, login=login)
        + HERE.format(directory=directory)
        + (HERE_TOO if here_too else "")
    )
    log = output.open("wb")
    process = subprocess.Popen(
        [PROGRAM, "-c", str(file)],
        cwd=directory,
        stdin=subprocess.DEVNULL,
        stdout=log,
        stderr=log,
    )
    try:
        _wait(port, process, output)
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


def refused(port: int, peers: Iterable[str], *, username: str, password: str) -> dict[str, int]:
    """Ask whether an allocation may reach these peers; the code for each that it may not.

    Nothing is sent to any of them.
    """

    async def ask() -> dict[str, int]:
        loop, found = asyncio.get_running_loop(), {}
        _, client = await loop.create_datagram_endpoint(
            lambda: turn.TurnClientUdpProtocol(
                ("127.0.0.1", port),
                username=username,
                password=password,
                lifetime=turn.DEFAULT_ALLOCATION_LIFETIME,
                channel_refresh_time=turn.DEFAULT_CHANNEL_REFRESH_TIME,
            ),
            remote_addr=("127.0.0.1", port),
        )
        await client.connect()
        try:
            for number, peer in enumerate(peers):
                try:
                    await client.channel_bind(0x4000 + number, (peer, 9))
                except Refused as refusal:
                    found[peer] = int(refusal.response.attributes["ERROR-CODE"][0])
        finally:
            await client.delete()
        return found

    return asyncio.run(ask())


Refused = stun.TransactionFailed


def _configured(port: int, *, secret: str, login: str) -> str:
    """Return our configuration, in which only places, logins and the log are changed."""
    text = CONFIGURATION.read_text()
    logins = f"static-auth-secret={secret}" if secret else f"user={login}"
    for pattern, found in (
        (r"realm=.*", f"realm={REALM}"),
        (r"static-auth-secret=.*", logins),
        (r"listening-port=.*", f"listening-port={port}"),
        (r"log-file=.*\nno-stdout-log", "log-file=stdout\nsimple-log"),
        *([] if secret else [(r"use-auth-secret", "lt-cred-mech")]),
    ):
        text, times = re.subn(f"^{pattern}$", found, text, flags=re.MULTILINE)
        assert times == 1, pattern
    return text


def _free_port() -> int:
    """Return a port that is free for UDP and for TCP, as coturn takes both."""
    for _ in range(100):
        with socket.socket() as tcp, socket.socket(type=socket.SOCK_DGRAM) as udp:
            tcp.bind(("127.0.0.1", 0))
            with contextlib.suppress(OSError):
                udp.bind(tcp.getsockname())
                return int(tcp.getsockname()[1])
    raise RuntimeError("no port is free")


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
