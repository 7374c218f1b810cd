"""Lambda on this machine: AWS's own runtime client runs an unpacked package, we hand it events.

The process has its package, the standard library and what Lambda's runtime has, and
nothing else of this machine.
"""

import contextlib
import json
import os
import queue
import subprocess
import sys
import sysconfig
import tempfile
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

from tests.support import gateway

RUNTIME = ("awslambdaric", "runtime_client", "simplejson", "snapshot_restore_py")
SDK = ("boto3", "botocore", "dateutil", "jmespath", "s3transfer", "six", "urllib3")
ANSWER_WITHIN_S = 30

START = """
import os, sys
sys.path[:0] = sys.argv[2:]
sys.argv[1:] = sys.argv[1:2]
from awslambdaric.__main__ import main
main(sys.argv)
"""


class Crash(Exception):
    """What the function let through to Lambda."""


class Lambda:
    """One container of one function."""

    def __init__(self, process: "subprocess.Popen[str]", api: "_Api", started: float) -> None:
        self._process, self._api, self._started = process, api, started
        self.said: list[str] = []
        self._listener = threading.Thread(target=self._listen)
        self._listener.start()

    def _listen(self) -> None:
        """Take its output off it, so that it never waits to be heard."""
        self.said.extend(self._process.stdout or ())

    def end(self) -> None:
        """End it as Lambda does, without a word."""
        self._process.kill()
        self._listener.join()

    def await_init(self) -> float:
        """Return how long it took from the process's start until it asked for work."""
        self._wait(self._api.ready)
        return self._api.ready_at - self._started

    def run(self, event: object) -> Any:
        """Hand over an event and return what the function returns; raises `Crash`."""
        self._api.events.put(json.dumps(event))
        verdict, body = self._answer()
        if verdict != "response":
            raise Crash(body)
        return json.loads(body)

    def _answer(self) -> tuple[str, str]:
        deadline = time.monotonic() + ANSWER_WITHIN_S
        while time.monotonic() < deadline:
            with contextlib.suppress(queue.Empty):
                return self._api.answers.get(timeout=0.05)
            self._still_there()
        raise TimeoutError("the function did not answer")

    def _wait(self, event: threading.Event) -> None:
        deadline = time.monotonic() + ANSWER_WITHIN_S
        while not event.wait(0.05):
            self._still_there()
            assert time.monotonic() < deadline, "the function did not ask for work"

    def _still_there(self) -> None:
        if self._process.poll() is not None and self._api.answers.empty():
            self._listener.join()
            raise Crash(f"it ended with {self._process.returncode}: {''.join(self.said)}")


@contextlib.contextmanager
def running(
    package: Path, handler: str, environment: Mapping[str, str], *, eager: Sequence[Path] = ()
) -> Iterator[Lambda]:
    """Start a function from an unpacked package; *eager* are more folders to import from."""
    with _Api() as api, _runtime() as runtime:
        thread = threading.Thread(target=api.serve_forever, args=(0.01,))
        thread.start()
        variables = {
            "AWS_LAMBDA_FUNCTION_NAME": "muster-test",
            "AWS_LAMBDA_LOG_FORMAT": "JSON",
            "AWS_LAMBDA_LOG_LEVEL": "INFO",
            "AWS_LAMBDA_RUNTIME_API": f"127.0.0.1:{api.server_address[1]}",
            "AWS_EXECUTION_ENV": f"AWS_Lambda_python3.{sys.version_info.minor}",
            "LAMBDA_TASK_ROOT": str(package),
            "AWS_ACCESS_KEY_ID": "testing",
            "AWS_SECRET_ACCESS_KEY": "testing",
            "AWS_SESSION_TOKEN": "testing",
            "AWS_REGION": gateway.REGION,
            "AWS_DEFAULT_REGION": gateway.REGION,
            "AWS_EC2_METADATA_DISABLED": "true",
            "PATH": os.environ["PATH"],
        }
        places = [str(package), *map(str, eager), str(runtime)]
        command = [sys.executable, "-I", "-S", "-B", "-c", START, handler, *places]
        started = time.monotonic()
        process = subprocess.Popen(
            command,
            cwd=package,
            env=variables | dict(environment),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        with process:
            function = Lambda(process, api, started)
            try:
                yield function
            finally:
                function.end()
                api.stop()
                thread.join()


@contextlib.contextmanager
def _runtime() -> Iterator[Path]:
    """Gather what Lambda's own image has beside the standard library, by links."""
    installed = Path(sysconfig.get_path("platlib"))
    with tempfile.TemporaryDirectory() as name:
        for path in installed.iterdir():
            if path.name.partition(".")[0] in (*RUNTIME, *SDK):
                (Path(name) / path.name).symlink_to(path)
        yield Path(name)


class _Api(ThreadingHTTPServer):
    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.events: queue.SimpleQueue[str] = queue.SimpleQueue()
        self.answers: queue.SimpleQueue[tuple[str, str]] = queue.SimpleQueue()
        self.ready, self.ready_at = threading.Event(), 0.0
        self.stopped = False

    def stop(self) -> None:
        """Stop, also where an event is being waited for."""
        self.stopped = True
        self.shutdown()

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Say nothing of a process that was ended while it waited."""
        if not isinstance(sys.exception(), ConnectionError):
            super().handle_error(request, client_address)


class _Handler(BaseHTTPRequestHandler):
    """The Runtime API, version 2018-06-01."""

    server: _Api
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True

    def do_GET(self) -> None:
        assert self.path == "/2018-06-01/runtime/invocation/next", self.path
        if not self.server.ready.is_set():
            self.server.ready_at = time.monotonic()
            self.server.ready.set()
        event = self._next_event()
        if event is None:
            return
        deadline = int((time.time() + 10) * 1000)
        arn = f"arn:aws:lambda:{gateway.REGION}:123456789012:function:muster-test"
        self.send_response(200)
        self.send_header("Lambda-Runtime-Aws-Request-Id", f"request-{time.monotonic_ns()}")
        self.send_header("Lambda-Runtime-Deadline-Ms", str(deadline))
        self.send_header("Lambda-Runtime-Invoked-Function-Arn", arn)
        self.send_header("Lambda-Runtime-Trace-Id", "Root=1-5bef4de7-ad49b0e87f6ef6c87fc2e700")
        self.send_header("Content-Type", "application/json")
        self._end(event.encode())

    def _next_event(self) -> str | None:
        """Wait for an event, until the server is told to stop."""
        while not self.server.stopped:
            with contextlib.suppress(queue.Empty):
                return self.server.events.get(timeout=0.05)
        self.close_connection = True
        return None

    def do_POST(self) -> None:
        body = self._body().decode()
        self.server.answers.put((self.path.rpartition("/")[2], body))
        self.send_response(202)
        self._end(b"{}")

    def _body(self) -> bytes:
        if self.headers.get("Transfer-Encoding") != "chunked":
            return self.rfile.read(int(self.headers["Content-Length"]))
        body = b""
        while size := int(self.rfile.readline(), 16):
            body += self.rfile.read(size + 2)[:-2]
        self.rfile.readline()
        return body

    def _end(self, body: bytes) -> None:
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:
        pass
