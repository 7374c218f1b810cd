"""The one-machine host as users run it: a process of its own on a free loopback port."""

import hashlib
import json
import os
import re
import signal
import socket
import ssl
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from websockets.sync.client import ClientConnection, connect

from muster.felund import signing
from tests.support.certificate import Authority

ROOT = Path(__file__).resolve().parents[2]

GENEROUS = {
    f"MUSTER_{name}": "1000000"
    for name in (
        "ADDRESS_BURST",
        "ADDRESS_PER_S",
        "NODE_BURST",
        "NODE_PER_S",
        "FRAME_BURST",
        "FRAMES_PER_S",
        "NETWORK_CIRCLES",
    )
} | {"MUSTER_ADDRESS_BURST_BYTES": "1000000000000"}
"""Rate limits that no test meets by accident."""


class Answer(NamedTuple):
    """An HTTP answer; header names in lower case."""

    status: int
    headers: dict[str, str]
    body: bytes

    def json(self) -> Any:
        return json.loads(self.body)


@dataclass
class Server:
    """A running server, its process and what it said when it started."""

    directory: Path
    process: subprocess.Popen[str]
    greeting: str
    port: int
    trust: ssl.SSLContext | None = None
    """Whom to believe, if it speaks TLS."""

    @property
    def base(self) -> str:
        return f"{'https' if self.trust else 'http'}://127.0.0.1:{self.port}"

    def stop(self, how: signal.Signals = signal.SIGTERM) -> int:
        """Send a signal to the process, and to no other, and wait for its end."""
        self.process.send_signal(how)
        return self.process.wait(timeout=15)

    def errors(self) -> str:
        """Return what it wrote to stderr; only after its end."""
        assert self.process.stderr is not None
        return self.process.stderr.read()

    def rss_bytes(self) -> int:
        """Return the memory the process has resident."""
        text = Path(f"/proc/{self.process.pid}/status").read_text()
        found = re.search(r"VmRSS:\s+(\d+) kB", text)
        assert found is not None
        return int(found[1]) * 1024

    def open(self) -> "Wire":
        """Open a TCP connection."""
        opened = socket.create_connection(("127.0.0.1", self.port), timeout=10)
        opened.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)  # as clients do; 40 ms each
        if self.trust:
            opened = self.trust.wrap_socket(opened, server_hostname="127.0.0.1")
        return Wire(opened)

    def call(
        self, method: str, path: str, body: bytes = b"", headers: Mapping[str, str] | None = None
    ) -> Answer:
        """Make one call on a connection of its own."""
        with closing(self.open()) as wire:
            return wire.call(method, path, body, headers)

    def await_published(self, community: str, *peers: str) -> None:
        """Wait for a capsule of these peers and for the manifest, which is written after it."""
        path, deadline = f"/capsules/{community}/peers.json", time.monotonic() + 30
        while not self._published(path, peers):
            assert time.monotonic() < deadline, f"{path} was not published with {peers}"
            time.sleep(0.1)

    def _published(self, path: str, peers: tuple[str, ...]) -> bool:
        manifest, capsule = self.call("GET", path + ".manifest"), self.call("GET", path).body
        belongs = hashlib.sha256(capsule).hexdigest().encode() in manifest.body
        return belongs and all(f'"{peer}"'.encode() in capsule for peer in peers)

    def websocket(self, query: str = "", **options: Any) -> ClientConnection:
        """Open a WebSocket."""
        url = f"ws{self.base.removeprefix('http')}/v1/relay/ws{query}"
        options = {"ssl": self.trust} | options
        opened: ClientConnection = connect(url, compression=None, ping_interval=None, **options)
        return opened


class Wire:
    """A TCP connection on which a test says what it wants, byte by byte."""

    def __init__(self, connection: socket.socket) -> None:
        self.socket = connection
        self._buffer = b""

    def close(self) -> None:
        self.socket.close()

    def send(self, data: bytes) -> None:
        self.socket.sendall(data)

    def call(
        self, method: str, path: str, body: bytes = b"", headers: Mapping[str, str] | None = None
    ) -> Answer:
        """Make a call and leave the connection open."""
        self.send(request(method, path, body, headers))
        return self.answer(head_only=method == "HEAD")

    def answer(self, *, head_only: bool = False) -> Answer:
        """Read an answer that says how long it is."""
        head = self._until(b"\r\n\r\n").decode("latin-1")
        first, *lines = head.rstrip("\r\n").split("\r\n")
        headers = {name.lower(): value for name, _, value in (x.partition(": ") for x in lines)}
        status = int(first.split(" ")[1])
        size = 0 if head_only else int(headers.get("content-length", "0"))
        while len(self._buffer) < size:
            self._more()
        body, self._buffer = self._buffer[:size], self._buffer[size:]
        return Answer(status, headers, body)

    def ended(self) -> bool:
        """Wait for the other side's end; whether nothing came before it."""
        try:
            return not self._buffer and not self.socket.recv(65536)
        except ConnectionResetError:
            return True

    def _until(self, mark: bytes) -> bytes:
        while mark not in self._buffer:
            self._more()
        head, _, self._buffer = self._buffer.partition(mark)
        return head + mark

    def _more(self) -> None:
        data = self.socket.recv(65536)
        if not data:
            raise ConnectionError(f"the connection ended after {self._buffer!r}")
        self._buffer += data


@dataclass
class Node:
    """A member of a circle that signs its calls to a server."""

    server: Server
    node_id: str
    secret: bytes

    @property
    def hint(self) -> str:
        return self.secret.hex()[:16]

    def call(self, method: str, path: str, body: Any = None, query: str = "") -> Answer:
        """Make a signed call."""
        raw = b"" if body is None else json.dumps(body).encode()
        headers = signing.headers(
            signing.request_key(self.secret),
            method,
            path.removeprefix("/v1"),
            raw,
            node_id=self.node_id,
            now=int(time.time()),
            nonce=os.urandom(16),
        )
        return self.server.call(method, path + query, raw, headers)

    def ask(self, method: str, path: str, body: Any = None, query: str = "") -> Any:
        """Make a signed call that must succeed."""
        answer = self.call(method, path, body, query)
        assert answer.status == 200, answer
        return answer.json()

    def register(self, **more: Any) -> Any:
        key = signing.request_key(self.secret).hex()
        body = {"node_id": self.node_id, "circle_hint": self.hint, "signing_key": key}
        return self.ask("POST", "/v1/register", body | more)

    def leave(self, *msg_ids: str, text: str = "") -> Any:
        messages = [{"msg_id": msg_id, "text": text} for msg_id in msg_ids]
        body = {"circle_hint": self.hint, "messages": messages}
        return self.ask("POST", "/v1/messages", body)

    def collect(self) -> list[str]:
        """Read the whole mailbox; the ids in it."""
        found: list[str] = []
        cursor, more = 0, True
        while more:
            query = f"?circle_hint={self.hint}&after={cursor}"
            page = self.ask("GET", "/v1/messages", query=query)
            found += [message["msg_id"] for message in page["messages"]]
            cursor, more = page["cursor"], page["more"]
        return found

    def token(self) -> str:
        body = {"node_id": self.node_id, "circle_hint": self.hint}
        return str(self.ask("POST", "/v1/relay/subscription", body)["token"])

    def subscribe(self, **options: Any) -> ClientConnection:
        headers = {"Authorization": f"Bearer {self.token()}"}
        return self.server.websocket(additional_headers=headers, **options)

    def attach(self, other: "Node") -> tuple[ClientConnection, str]:
        """Take the seat opposite another node; the socket and the session's id."""
        body = {
            "node_id": self.node_id,
            "target_node_id": other.node_id,
            "circle_hint": self.hint,
        }
        session = self.ask("POST", "/v1/relay/session", body)
        headers = {"Authorization": f"Bearer {session['token']}"}
        return self.server.websocket(additional_headers=headers), session["session_id"]


def request(
    method: str, path: str, body: bytes = b"", headers: Mapping[str, str] | None = None
) -> bytes:
    """Write a request."""
    every = {"Host": "localhost"} | dict(headers or {})
    if body:
        every.setdefault("Content-Length", str(len(body)))
    lines = [f"{method} {path} HTTP/1.1", *(f"{name}: {value}" for name, value in every.items())]
    return "\r\n".join([*lines, "", ""]).encode("latin-1") + body


def circle(server: Server, *names: str) -> list[Node]:
    """Return registered members of a new circle."""
    secret = os.urandom(32)
    nodes = [Node(server, f"{name}-000001", secret) for name in names]
    for node in nodes:
        node.register()
    return nodes


def barrier(socket: ClientConnection) -> list[Any]:
    """Say PING; everything that came before the PONG."""
    socket.send('{"t":"PING"}')
    before: list[Any] = []
    while (frame := json.loads(socket.recv(timeout=10))) != {"t": "PONG"}:
        before.append(frame)
    return before


def start(directory: Path, *arguments: str, **environment: str) -> Server:
    """Start a server; names of the environment without their prefix.

    It is open to whatever name it is called by; `access=""` has it as it comes.
    """
    environment = {"access": "open"} | environment
    chosen = {f"MUSTER_{name.upper()}": value for name, value in environment.items()}
    process = subprocess.Popen(
        [sys.executable, "-m", "chalicelib.local", "--port=0", f"--data={directory}", *arguments],
        cwd=ROOT,
        env=os.environ | GENEROUS | chosen,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    greeting = ""
    for line in process.stdout:
        greeting += line
        if "in another" in line:  # its last line
            break
    found = re.search(r"listens on https?://\S+:(\d+)", greeting)
    if found is None:
        process.wait(timeout=15)
        assert process.stderr is not None
        raise RuntimeError(f"it did not start: {process.stderr.read()}")
    return Server(directory, process, greeting, int(found[1]))


@contextmanager
def running(directory: Path, *arguments: str, **environment: str) -> Iterator[Server]:
    """Run a server for the length of a block, and end it whatever happens."""
    server = start(directory, *arguments, **environment)
    try:
        yield server
    finally:
        if server.process.poll() is None:
            server.stop()
        for pipe in (server.process.stdout, server.process.stderr):
            assert pipe is not None
            pipe.close()


@contextmanager
def running_with_tls(
    directory: Path, authority: Authority, *arguments: str, **environment: str
) -> Iterator[Server]:
    """Run a server that speaks TLS itself, with a certificate of this authority."""
    certificate, key = authority.issue(directory.name)
    options = (f"--tls-cert={certificate}", f"--tls-key={key}", *arguments)
    with running(directory, *options, **environment) as server:
        server.trust = authority.trust()
        yield server
