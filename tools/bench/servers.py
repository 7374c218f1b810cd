"""Servers: the one-machine host and the reference, each in a process of its own."""

from __future__ import annotations

import contextlib
import os
import re
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

START_WITHIN_S = 20
STOP_WITHIN_S = 10

UNBOUND = {
    f"MUSTER_{name}": str(10**9)
    for name in (
        "ADDRESS_BURST",
        "ADDRESS_PER_S",
        "ADDRESS_BURST_BYTES",
        "ADDRESS_BYTES_PER_S",
        "NODE_BURST",
        "NODE_PER_S",
        "FRAME_BURST",
        "FRAMES_PER_S",
        "MAILBOX_MESSAGES",
        "MAILBOX_BYTES",
        "NETWORK_CIRCLES",
        "NETWORK_BYTES",
    )
}
"""Every limit is counted as always, but none of them refuses: the load comes from one address."""


class Server(NamedTuple):
    """A server that answers on a port of this machine."""

    port: int
    pid: int

    def memory_bytes(self) -> int | None:
        """Return what the process alone holds in memory, if the system tells."""
        try:
            text = Path(f"/proc/{self.pid}/smaps_rollup").read_text()
        except OSError:
            return None
        return sum(int(kb) * 1024 for kb in re.findall(r"^Private_\w+:\s+(\d+) kB", text, re.M))

    def cpu_s(self) -> float:
        """Return how much processor time the process has used, in all its threads."""
        try:
            fields = Path(f"/proc/{self.pid}/stat").read_text().rpartition(")")[2].split()
        except OSError:
            return 0.0
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


@contextlib.contextmanager
def muster(environment: Mapping[str, str] = UNBOUND) -> Iterator[Server]:
    """Run the one-machine host on an empty directory."""
    with _run("chalicelib.local", environment=environment) as server:
        yield server


@contextlib.contextmanager
def reference(*, wal: bool) -> Iterator[Server]:
    """Run the reference on an empty file."""
    with _run("tools.bench.reference", *(["--wal"] if wal else [])) as server:
        yield server


@contextlib.contextmanager
def _run(module: str, *more: str, environment: Mapping[str, str] = UNBOUND) -> Iterator[Server]:
    port = free_port()
    with tempfile.TemporaryDirectory(prefix="muster-bench-") as data:
        command = [sys.executable, "-m", module, "--port", str(port), "--data", data, *more]
        with program(command, port=port, environment=environment) as server:
            yield server


@contextlib.contextmanager
def program(
    command: Sequence[str | Path], *, port: int, environment: Mapping[str, str]
) -> Iterator[Server]:
    """Run a program that listens on a port, as soon as it does."""
    with tempfile.TemporaryDirectory(prefix="muster-bench-") as folder:
        said = Path(folder) / "said"
        with said.open("wb") as errors:
            process = subprocess.Popen(  # noqa: S603 - our own module, or one that we installed
                command,
                env=os.environ | dict(environment),
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=errors,
            )
        try:
            _await_port(process, port, said)
            yield Server(port, process.pid)
        finally:
            process.terminate()
            try:
                process.wait(STOP_WITHIN_S)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


def free_port() -> int:
    """Return a port that nothing listens on now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def _await_port(process: subprocess.Popen[bytes], port: int, said: Path) -> None:
    deadline = time.monotonic() + START_WITHIN_S
    while time.monotonic() < deadline:
        if process.poll() is not None:
            break
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 0.2):
            return
        time.sleep(0.02)
    raise RuntimeError(f"a server did not start: {said.read_text(errors='replace')[-2000:]}")
