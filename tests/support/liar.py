"""A service that lies: it passes calls on to a real one, and puts what it likes into the answers.

Each text in each answer is a leaf; one of them, or all, is replaced. So every place in which
the command prints something from the wire is tried, also those that nobody thought of.
"""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.client import HTTPConnection
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import urlsplit

Lie = Callable[[str, str], str]
"""Takes where a text stands, and the text; returns what to say instead."""


class Liar(ThreadingHTTPServer):
    """Serves; `places` are the leaves that were answered so far."""

    daemon_threads = True

    def __init__(self, truth: str) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.truth = urlsplit(truth).netloc
        self.base = f"http://127.0.0.1:{self.server_address[1]}"
        self.lie: Lie = lambda place, text: text
        self.places: dict[str, None] = {}
        self.refuses: dict[str, Any] | None = None
        self.redirects = ""

    def told(self, path: str, raw: bytes) -> bytes:
        try:
            return json.dumps(self._told(path, json.loads(raw))).encode()
        except ValueError:
            return raw

    def _told(self, place: str, value: Any) -> Any:
        if isinstance(value, dict):
            return {key: self._told(f"{place}.{key}", inner) for key, inner in value.items()}
        if isinstance(value, list):
            return [self._told(f"{place}[{n}]", inner) for n, inner in enumerate(value)]
        if not isinstance(value, str):
            return value
        self.places[place] = None
        return self.lie(place, value)


class _Handler(BaseHTTPRequestHandler):
    server: Liar
    protocol_version = "HTTP/1.1"

    def _pass_on(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length", "0")))
        if self.server.refuses is not None:
            self._answer(400, json.dumps(self.server.refuses).encode())
        elif self.server.redirects:
            self._answer(302, b"", self.server.redirects)
        else:
            truth = HTTPConnection(self.server.truth, timeout=10)
            headers = {k: v for k, v in self.headers.items() if k.lower() != "host"}
            truth.request(self.command, self.path, body, headers)
            answer = truth.getresponse()
            path = self.path.partition("?")[0]
            self._answer(answer.status, self.server.told(path, answer.read()))
            truth.close()

    do_GET = do_POST = do_DELETE = _pass_on

    def _answer(self, status: int, raw: bytes, location: str = "") -> None:
        self.send_response(status)
        self.send_header("Content-Length", str(len(raw)))
        if location:
            self.send_header("Location", location)
        self.end_headers()
        self.wfile.write(raw)

    def log_message(self, *words: object) -> None:
        pass


@contextmanager
def lying(truth: str) -> Iterator[Liar]:
    """Run such a service for as long as a test needs it."""
    with Liar(truth) as liar:
        serving = threading.Thread(target=liar.serve_forever, args=(0.02,), daemon=True)
        serving.start()
        yield liar
        liar.shutdown()
