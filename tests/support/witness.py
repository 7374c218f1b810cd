"""A witness between the service and AWS: passes requests on, and says which actions they were."""

import contextlib
import http.client
import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import NamedTuple
from urllib.parse import urlsplit

TARGETS = {"AmazonSSM": "ssm", "AWSEvents": "events"}
OBJECTS = {"GET": "s3:GetObject", "PUT": "s3:PutObject"}


class Act(NamedTuple):
    """One action, and what on: a parameter's or a rule's name, or the key of an object."""

    action: str
    on: str


class Witness(ThreadingHTTPServer):
    """Passes requests on to the emulator at *target*."""

    daemon_threads = True

    def __init__(self, target: str) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.target = urlsplit(target).netloc
        self.url = f"http://127.0.0.1:{self.server_address[1]}"
        self.seen: set[Act] = set()


@contextlib.contextmanager
def watching(target: str) -> Iterator[Witness]:
    """Have a witness before the emulator at *target*."""
    with Witness(target) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        try:
            yield server
        finally:
            server.shutdown()
            thread.join()


def act(method: str, path: str, target: str, body: bytes) -> Act:
    """Say what a request asks for; buckets are addressed by paths here."""
    if target:
        service, _, operation = target.partition(".")
        return Act(f"{TARGETS[service]}:{operation}", json.loads(body)["Name"])
    return Act(OBJECTS[method], urlsplit(path).path.split("/", 2)[2])


class _Handler(BaseHTTPRequestHandler):
    server: Witness
    protocol_version = "HTTP/1.1"

    def _pass(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length", "0")))
        target = self.headers.get("X-Amz-Target", "")
        self.server.seen.add(act(self.command, self.path, target, body))
        connection = http.client.HTTPConnection(self.server.target, timeout=10)
        with contextlib.closing(connection):
            connection.request(self.command, self.path, body, dict(self.headers))
            answer = connection.getresponse()
            content = answer.read()
        self.send_response(answer.status)
        for name, value in answer.getheaders():
            if name.lower() in ("etag", "content-type"):
                self.send_header(name, value)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    do_GET = do_PUT = do_POST = _pass

    def log_message(self, format: str, *args: object) -> None:
        pass
