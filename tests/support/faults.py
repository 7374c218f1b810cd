"""A way to DynamoDB on which things go wrong when a test says so."""

import contextlib
import http.client
import json
import sys
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import urlsplit

from tests.support import roles

Judge = Callable[[str], str]
"""Says of an operation what becomes of it: "pass", "throttle", "hang" or "break"."""


def _pass(operation: str) -> str:
    return "pass"


class Way(ThreadingHTTPServer):
    """Passes requests on to DynamoDB, or does not."""

    daemon_threads = True

    def __init__(self, target: str) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.target = urlsplit(target).netloc
        self.judge: Judge = _pass
        self.passed: list[str] = []
        self.asked: list[roles.Asked] = []
        self.url = f"http://127.0.0.1:{self.server_address[1]}"

    def clear(self) -> None:
        """Let everything pass again."""
        self.judge = _pass

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Say nothing of SDKs that hang up; they may."""
        if not isinstance(sys.exception(), ConnectionError):
            super().handle_error(request, client_address)


@contextlib.contextmanager
def way(target: str) -> Iterator[Way]:
    """Open a way to the DynamoDB at *target*."""
    with Way(target) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        try:
            yield server
        finally:
            server.shutdown()
            thread.join()


class _Handler(BaseHTTPRequestHandler):
    server: Way
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        operation = self.headers["X-Amz-Target"].split(".")[1]
        self.server.asked += roles.asked(operation, json.loads(body))
        verdict = self.server.judge(operation)
        if verdict == "throttle":
            code = "ProvisionedThroughputExceededException"
            fault = {"__type": f"com.amazonaws.dynamodb.v20120810#{code}", "message": "slow down"}
            self._say(400, json.dumps(fault).encode())
        elif verdict == "pass":
            self.server.passed.append(operation)
            self._say(*self._fetch(body))
        else:
            if verdict == "hang":
                self.rfile.read(1)  # until the caller has had enough
            self.close_connection = True

    def _fetch(self, body: bytes) -> tuple[int, bytes]:
        names = ("Authorization", "X-Amz-Date", "X-Amz-Target", "X-Amz-Security-Token")
        headers = {name: self.headers[name] for name in names if name in self.headers}
        headers |= {"Content-Type": "application/x-amz-json-1.0"}
        connection = http.client.HTTPConnection(self.server.target, timeout=10)
        with contextlib.closing(connection):
            connection.request("POST", "/", body, headers)
            answer = connection.getresponse()
            return answer.status, answer.read()

    def _say(self, status: int, body: bytes) -> None:
        self.send_response(status)
        self.send_header("Content-Type", "application/x-amz-json-1.0")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:
        pass
