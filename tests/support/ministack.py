"""An AWS account that exists nowhere, with a CloudFormation of its own: ministack in a process.

It runs what was packed. Addresses are those that AWS would give, so `HTTPS_PROXY` leads to
a front that is every host of AWS: it ends TLS with a certificate of its own and passes what
it gets on to ministack, sockets too. docs/aws.md lists what ministack does differently.
"""

import asyncio
import contextlib
import json
import os
import queue
import socket
import ssl
import subprocess
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.request import Request, urlopen

from boto3.session import Session

from muster import whole_file
from tests.support import certificate
from tests.support.local import ROOT

ACCOUNT, REGION = "123456789012", "eu-central-1"
PYTHON = ROOT / "build" / "ministack" / "bin" / "python"
HOSTS = f"*.execute-api.{REGION}.amazonaws.com"
START_WITHIN_S = 60


@dataclass
class Ministack:
    """The emulated account, and what leads to it."""

    url: str
    front: str
    trusted: Path
    log: Path

    def client(self, service: str) -> Any:
        """Return a client of the account."""
        return Session().client(  # type: ignore[call-overload]
            service,
            endpoint_url=self.url,
            region_name=REGION,
            aws_access_key_id="testing",
            aws_secret_access_key="testing",
        )

    def environment(self) -> dict[str, str]:
        """Return the variables that lead the command to the account, and to what it deploys."""
        return {
            "AWS_ENDPOINT_URL": self.url,
            "AWS_ACCESS_KEY_ID": "testing",
            "AWS_SECRET_ACCESS_KEY": "testing",
            "AWS_DEFAULT_REGION": REGION,
            **self.network(),
        }

    def network(self) -> dict[str, str]:
        """Return the variables that lead every host of AWS here."""
        return {
            "HTTPS_PROXY": self.front,
            "NO_PROXY": "127.0.0.1,localhost",
            "SSL_CERT_FILE": str(self.trusted),
            "AWS_CA_BUNDLE": str(self.trusted),
        }

    def fail(self, **of: str) -> None:
        """Have calls, or making kinds of resources, fail with a message; no others any more."""
        faults = self.log.with_name("faults.json")
        whole_file.write(faults, json.dumps(of).encode())

    def reset(self) -> None:
        """Make the account empty, in which nothing fails."""
        self.fail()
        request = Request(f"{self.url}/_ministack/reset", method="POST")  # noqa: S310
        with urlopen(request):  # noqa: S310 - our own server
            pass


@contextlib.contextmanager
def running(folder: Path) -> Iterator[Ministack]:
    """Run the emulator for as long as tests need it; what it says goes to a file."""
    trusted = certificate.self_signed(folder / "aws.pem", HOSTS, f"s3.{REGION}.amazonaws.com")
    port = _free_port()
    with fronted(trusted, port) as front:
        made = Ministack(f"http://127.0.0.1:{port}", front, trusted, folder / "ministack.log")
        environment = {
            "PATH": os.environ["PATH"],
            "HOME": str(folder),
            "TMPDIR": str(folder),
            "GATEWAY_PORT": str(port),
            "MINISTACK_HOST": f"{REGION}.amazonaws.com",
            "MINISTACK_ACCOUNT_ID": ACCOUNT,
            "SFTP_ENABLED": "0",
            **made.network(),
        }
        with made.log.open("wb") as log:
            process = subprocess.Popen(
                [PYTHON, "-P", Path(__file__).with_name("emulator.py")],
                env=environment,
                cwd=folder,
                stdout=log,
                stderr=subprocess.STDOUT,
            )
        try:
            _await(made, process)
            yield made
        finally:
            process.terminate()
            try:
                process.wait(10)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def _await(made: Ministack, process: "subprocess.Popen[bytes]") -> None:
    end = time.monotonic() + START_WITHIN_S
    while True:
        try:
            with urlopen(f"{made.url}/_ministack/health", timeout=5):  # noqa: S310
                return
        except OSError:
            assert process.poll() is None, made.log.read_text()
            assert time.monotonic() < end, "ministack did not start"
        time.sleep(0.05)


# --- the front --------------------------------------------------------------------


@contextlib.contextmanager
def fronted(trusted: Path, port: int) -> Iterator[str]:
    """Serve a proxy that is itself every host that it is asked for; give its URL."""
    front = _Front(trusted, port)
    thread = threading.Thread(target=asyncio.run, args=(front.serve(),))
    thread.start()
    try:
        yield front.url.get(timeout=START_WITHIN_S)
    finally:
        front.stop()
        thread.join()


class _Front:
    """The proxy's event loop, as far as another thread may touch it."""

    def __init__(self, trusted: Path, port: int) -> None:
        self.url: queue.SimpleQueue[str] = queue.SimpleQueue()
        self._port = port
        self._context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self._context.load_cert_chain(trusted)
        self._open: set[asyncio.StreamWriter] = set()
        self._tasks: set[asyncio.Task[None]] = set()

    async def serve(self) -> None:
        self._loop, self._stopped = asyncio.get_running_loop(), asyncio.Event()
        server = await asyncio.start_server(self._start, "127.0.0.1", 0)
        self.url.put(f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}")
        await self._stopped.wait()
        server.close()
        for writer in self._open:
            writer.transport.abort()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await asyncio.sleep(0)

    def stop(self) -> None:
        self._loop.call_soon_threadsafe(self._stopped.set)

    def _start(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.ensure_future(self._tunnel(reader, writer))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _tunnel(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._open.add(writer)
        try:
            await reader.readuntil(b"\r\n\r\n")
            writer.write(b"HTTP/1.1 200 Go on\r\n\r\n")
            await writer.start_tls(self._context)
            inner, outer = await asyncio.open_connection("127.0.0.1", self._port)
            self._open.add(outer)
            try:
                await asyncio.gather(_pump(reader, outer), _pump(inner, writer))
            finally:
                outer.transport.abort()
                self._open.discard(outer)
        except (OSError, asyncio.IncompleteReadError):
            pass  # whoever called has gone
        finally:
            writer.transport.abort()
            self._open.discard(writer)


async def _pump(source: asyncio.StreamReader, target: asyncio.StreamWriter) -> None:
    with contextlib.suppress(OSError):
        while some := await source.read(65_536):
            target.write(some)
            await target.drain()
        if target.can_write_eof():
            target.write_eof()
        else:
            target.close()
