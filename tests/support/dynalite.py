"""Dynalite, an independent implementation of DynamoDB, for as long as a test run lasts."""

import contextlib
import socket
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

from tests.support import node

PROGRAM = Path(__file__).parents[1] / "node_modules" / "dynalite" / "cli.js"
START_WITHIN_S = 20


@contextlib.contextmanager
def running() -> Iterator[str]:
    """Start dynalite in memory on a free port of this machine; give its URL; end it by its id."""
    if not PROGRAM.exists():
        raise FileNotFoundError("dynalite is not installed: run make setup")
    port = _free_port()
    command = [node.executable(), PROGRAM, "--host", "127.0.0.1", "--port", str(port)]
    instant = ["--createTableMs", "0", "--deleteTableMs", "0", "--updateTableMs", "0"]
    process = subprocess.Popen(
        [*map(str, command), *instant],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    )
    with process:
        try:
            _await_port(process, port)
            yield f"http://127.0.0.1:{port}"
        finally:
            process.kill()  # it keeps nothing that would need a farewell


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def _await_port(process: subprocess.Popen[str], port: int) -> None:
    deadline = time.monotonic() + START_WITHIN_S
    while time.monotonic() < deadline:
        if process.poll() is not None:
            said = process.stderr.read() if process.stderr else ""
            raise RuntimeError(f"dynalite ended with {process.returncode}: {said}")
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 0.2):
            return
        time.sleep(0.02)
    raise TimeoutError(f"dynalite did not listen within {START_WITHIN_S} s")
