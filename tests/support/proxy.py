"""A proxy as companies have them, on a thread of its own: CONNECT, and absolute URLs for http.

Whatever host is named, it leads to 127.0.0.1: so names that no DNS knows can be tried, and
what arrives without the proxy does not arrive.
"""

from __future__ import annotations

import socket
import socketserver
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from urllib.parse import urlsplit


class Proxy(socketserver.ThreadingTCPServer):
    """Serves, and remembers what it was asked."""

    daemon_threads = True
    allow_reuse_address = True

    def __init__(self, *, refuses: bool = False) -> None:
        super().__init__(("127.0.0.1", 0), _Tunnel)
        self.refuses = refuses
        self.asked: list[str] = []
        self.authorized: list[str] = []

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}"


class _Tunnel(socketserver.StreamRequestHandler):
    server: Proxy

    def handle(self) -> None:
        first, *lines = self._head()
        method, target, _ = first.split(" ")
        self.server.asked.append(f"{method} {target}")
        headers = {name.lower(): value for name, _, value in (x.partition(": ") for x in lines)}
        self.server.authorized.append(headers.get("proxy-authorization", ""))
        if self.server.refuses:
            self.wfile.write(b"HTTP/1.1 403 Forbidden\r\nContent-Length: 0\r\n\r\n")
            return
        tunnel = method == "CONNECT"
        parts = urlsplit(f"//{target}" if tunnel else target)
        with socket.create_connection(("127.0.0.1", parts.port or 0)) as beyond:
            if tunnel:
                self.wfile.write(b"HTTP/1.1 200 Go on\r\n\r\n")
            else:
                path = parts._replace(scheme="", netloc="").geturl()
                kept = [x for x in lines if not x.lower().startswith("connection:")]
                head = [f"{method} {path} HTTP/1.1", *kept, "Connection: close", "", ""]
                beyond.sendall("\r\n".join(head).encode())
            back = threading.Thread(target=_pump, args=(beyond, self.connection), daemon=True)
            back.start()
            _pump(self.connection, beyond)
            back.join(5)

    def _head(self) -> list[str]:
        lines = []
        while (line := self.rfile.readline().rstrip(b"\r\n")) != b"":
            lines.append(line.decode("latin-1"))
        return lines


def _pump(source: socket.socket, target: socket.socket) -> None:
    with suppress(OSError):
        while some := source.recv(65_536):
            target.sendall(some)
        target.shutdown(socket.SHUT_WR)


@contextmanager
def running(*, refuses: bool = False) -> Iterator[Proxy]:
    """Run a proxy for as long as a test needs it."""
    with Proxy(refuses=refuses) as proxy:
        serving = threading.Thread(target=proxy.serve_forever, args=(0.02,), daemon=True)
        serving.start()
        yield proxy
        proxy.shutdown()
