"""API Gateway and Lambda, as far as an app can tell.

Calls and frames become the events that AWS documents, the app's handlers are run as
Lambda runs them, sockets are kept, and what the app asks of AWS over HTTP (pass a
text on, end a connection, start a function) is answered by a server on this
machine, to which the variables of `environment` lead any AWS SDK.
"""

import base64
import contextlib
import importlib.util
import json
import queue
import re
import sys
import threading
import time
from collections import Counter, deque
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import ModuleType
from typing import Any
from urllib.parse import parse_qsl, unquote

from chalicelib.aws.events import EVERY

ROOT = Path(__file__).resolve().parents[2]
API, STAGE, REGION = "a1b2c3d4e5", "api", "us-east-1"
DOMAIN = f"{API}.execute-api.{REGION}.amazonaws.com"
CALLS = "c5d4e3f2a1"
CALLS_DOMAIN = f"{CALLS}.execute-api.{REGION}.amazonaws.com"
TEXT = re.compile(r"text/|application/(json|xml|javascript)\b", re.IGNORECASE)
"""Types that an HTTP API passes on as they are; bodies of others come in base64."""

GREET = "muster-test-greet"

HTTP_BYTES = 10 * 1024 * 1024
LAMBDA_BYTES = 6 * 1024 * 1024
POST_BYTES = 128 * 1024
FRAME_BYTES = 32 * 1024

Headers = Sequence[tuple[str, str]]


@dataclass(frozen=True)
class Answer:
    """What the caller of an HTTP call sees; header names in lower case."""

    status: int
    headers: Mapping[str, str]
    body: bytes

    def json(self) -> Any:
        return json.loads(self.body)


class HandshakeRefused(Exception):
    """The WebSocket was not opened."""

    def __init__(self, answer: Answer) -> None:
        super().__init__(answer.status)
        self.answer = answer


class Context:
    """What Lambda passes beside the event."""

    function_name = "muster-test"
    memory_limit_in_mb = 1024
    aws_request_id = "c6af9ac6-7b61-11e6-9a41-93e8deadbeef"

    def get_remaining_time_in_millis(self) -> int:
        return 10_000


class Machine:
    """One Lambda container: the app imported anew, one event at a time."""

    def __init__(self) -> None:
        # Under its own name, as Lambda imports it, yet once for each machine.
        spec = importlib.util.spec_from_file_location("app", ROOT / "app.py")
        assert spec
        assert spec.loader
        self.module: ModuleType = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(self.module)
        self.crashes: list[BaseException] = []
        self._one_at_a_time = threading.Lock()

    def run(self, handler: str, event: object) -> Any:
        """Run a handler as Lambda does: JSON in, JSON out, of at most 6 MB each."""
        passed = json.dumps(event)
        with self._one_at_a_time:
            try:
                assert len(passed) <= LAMBDA_BYTES, "the event is too large for Lambda"
                result = getattr(self.module, handler)(json.loads(passed), Context())
                text = json.dumps(result, ensure_ascii=False)
                assert len(text.encode()) <= LAMBDA_BYTES, "the answer is too large for Lambda"
                return json.loads(text)
            except Exception as error:
                self.crashes.append(error)
                raise


@dataclass
class Wire:
    """One WebSocket as its client holds it."""

    id: str
    gateway: "Gateway"
    machine: Machine
    source_ip: str
    subprotocol: str | None = None
    ready: bool = False
    closed: bool = False
    received: "queue.SimpleQueue[str | None]" = field(default_factory=queue.SimpleQueue)

    def send(self, text: str, *, machine: Machine | None = None) -> None:
        """Send a text frame."""
        self.gateway.message(self, text, machine or self.machine)

    def frames(self) -> list[Any]:
        """Take the frames that have come, and say with None that it was closed."""
        found: list[Any] = []
        while not self.received.empty():
            text = self.received.get_nowait()
            found.append(text if text is None else json.loads(text))
        return found

    def vanish(self) -> None:
        """Break off, so that nobody tells the app."""
        self.closed = True

    def close(self) -> None:
        """Close in good order."""
        self.gateway.disconnect(self)


class Gateway:
    """An HTTP API and a WebSocket API before the same machines."""

    def __init__(self) -> None:
        self.machines: list[Machine] = []
        self.wires: dict[str, Wire] = {}
        self.faults: dict[str, deque[int]] = {}
        self.asked: Counter[tuple[str, str]] = Counter()
        self.unsigned: list[str] = []
        self.delay_s = 0.0
        self.holding = False
        self.invocations: deque[tuple[str, Any]] = deque()
        self.refuse_invocations = False
        self._numbers = iter(range(1, sys.maxsize))

    def environment(self, url: str) -> dict[str, str]:
        """Return the variables that lead an app's SDK here."""
        return {
            "AWS_REGION": REGION,
            "AWS_DEFAULT_REGION": REGION,
            "AWS_ENDPOINT_URL_APIGATEWAYMANAGEMENTAPI": f"{url}/{STAGE}",
            "AWS_ENDPOINT_URL_LAMBDA": url,
            "MUSTER_GREET_FUNCTION": GREET,
            "MUSTER_WEBSOCKET_URL": f"wss://{DOMAIN}/{STAGE}",
        }

    def start(self) -> Machine:
        """Start a machine."""
        machine = Machine()
        self.machines.append(machine)
        return machine

    # --- HTTP -------------------------------------------------------------------

    def call(
        self,
        method: str,
        path: str,
        *,
        query: str = "",
        headers: Headers = (),
        body: bytes = b"",
        source_ip: str = "198.51.100.7",
        machine: Machine | None = None,
    ) -> Answer:
        """Pass a call on as an HTTP API with one route for every path does."""
        machine = machine or self.machines[0]
        if path == "/":
            return _own_words(404, "Not Found")
        event = rest_event(
            method,
            path,
            query=query,
            headers=headers,
            body=body,
            source_ip=source_ip,
            request_id=f"request-{next(self._numbers)}",
        )
        if len(body) > HTTP_BYTES or len(json.dumps(event)) > LAMBDA_BYTES:
            return _own_words(413, "Request Entity Too Large")
        try:
            result = machine.run("serve", event)
        except Exception:
            return _own_words(500, "Internal Server Error")
        return _answer(result)

    # --- WebSocket --------------------------------------------------------------

    def open(
        self,
        query: str = "",
        *,
        headers: Headers = (),
        source_ip: str = "198.51.100.7",
        machine: Machine | None = None,
        faults: Sequence[int] = (),
    ) -> Wire:
        """Open a WebSocket; *faults* are what the first posts to it are answered with."""
        machine = machine or self.machines[0]
        wire = Wire(f"L0SM9cOF{next(self._numbers)}=", self, machine, source_ip)
        self.wires[wire.id] = wire
        self.faults[wire.id] = deque(faults)
        event = socket_event(wire, "$connect", query=query, headers=headers)
        try:
            answer = _answer(machine.run("serve", event))
        except Exception:
            answer = _own_words(502, "Internal server error")
        if answer.status != 200:
            wire.closed = True
            raise HandshakeRefused(answer)
        wire.subprotocol = answer.headers.get("sec-websocket-protocol")
        wire.ready = True
        if not self.holding:
            self.run_invocations()
        return wire

    def message(self, wire: Wire, text: str, machine: Machine) -> None:
        """Pass a text frame on."""
        if wire.closed:
            raise ConnectionError("the socket is closed")
        event = socket_event(wire, "$default", body=text)
        try:
            result = machine.run("serve", event)
        except Exception:
            wire.received.put(json.dumps({"message": "Internal server error"}))
        else:
            assert result == {"statusCode": 200}

    def disconnect(self, wire: Wire) -> None:
        """Tell the app that a socket has ended."""
        wire.closed = True
        with contextlib.suppress(Exception):
            wire.machine.run("serve", socket_event(wire, "$disconnect"))

    def run_invocations(self) -> None:
        """Run what the app has started and does not wait for."""
        while self.invocations:
            name, event = self.invocations.popleft()
            assert name == GREET
            with contextlib.suppress(Exception):
                self.machines[-1].run("serve", event)

    @property
    def crashes(self) -> list[BaseException]:
        """What any machine let through to Lambda."""
        return [error for machine in self.machines for error in machine.crashes]

    # --- what the app asks of AWS -------------------------------------------------

    def post(self, connection_id: str, text: str) -> int:
        """Pass text to a connection; return the status."""
        self.asked["POST", connection_id] += 1
        time.sleep(self.delay_s)  # the network's, so that doing things side by side shows
        wire, faults = self.wires.get(connection_id), self.faults.get(connection_id)
        if faults:
            return faults.popleft()
        if wire is None or wire.closed or not wire.ready:
            return 410
        if len(text.encode()) > POST_BYTES:
            return 413
        wire.received.put(text)
        return 200

    def delete(self, connection_id: str) -> int:
        """End a connection; return the status."""
        self.asked["DELETE", connection_id] += 1
        wire = self.wires.get(connection_id)
        if wire is None or wire.closed:
            return 410
        wire.received.put(None)
        wire.closed = True
        return 204

    def invoke(self, function: str, event: object) -> int:
        """Note that a function is to be run; return the status."""
        if self.refuse_invocations:
            return 429
        self.invocations.append((function, event))
        return 202


@contextlib.contextmanager
def running() -> Iterator[tuple[Gateway, dict[str, str]]]:
    """Give a gateway whose AWS side answers, and the variables that lead there."""
    gateway = Gateway()
    with _AwsSide(gateway) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        try:
            yield gateway, gateway.environment(f"http://127.0.0.1:{server.server_address[1]}")
        finally:
            server.shutdown()
            thread.join()


def rest_event(
    method: str,
    path: str,
    *,
    query: str = "",
    headers: Headers = (),
    body: bytes = b"",
    source_ip: str = "198.51.100.7",
    request_id: str = "request-0",
) -> dict[str, Any]:
    """Return the event of the route `ANY /{proxy+}` of an HTTP API, payload format 1.0."""
    every = [*headers, ("Host", CALLS_DOMAIN), ("X-Forwarded-Port", "443")]
    every += [("X-Forwarded-For", source_ip), ("X-Forwarded-Proto", "https")]
    content_type = {name.lower(): value for name, value in every}.get("content-type", "")
    binary = not TEXT.match(content_type)
    return {
        "version": "1.0",
        "resource": EVERY,
        "path": path,
        "httpMethod": method,
        **_parameters("Headers", every),
        **_parameters("QueryStringParameters", parse_qsl(query, keep_blank_values=True)),
        "pathParameters": {"proxy": path.removeprefix("/")},
        "stageVariables": None,
        "requestContext": {
            "authorizer": {"claims": None, "scopes": None},
            "resourceId": f"ANY {EVERY}",
            "resourcePath": EVERY,
            "httpMethod": method,
            "extendedRequestId": "c6BwKGNIFiAFplQ=",
            "requestTime": "20/Feb/2026:22:38:36 +0000",
            "path": path,
            "accountId": "123456789012",
            "protocol": "HTTP/1.1",
            "stage": "$default",
            "domainPrefix": CALLS,
            "requestTimeEpoch": int(time.time() * 1000),
            "requestId": request_id,
            "identity": _identity(source_ip),
            "domainName": CALLS_DOMAIN,
            "apiId": CALLS,
        },
        "body": _text(body, binary=binary),
        "isBase64Encoded": binary and bool(body),
    }


def socket_event(
    wire: Wire, route: str, *, query: str = "", headers: Headers = (), body: str | None = None
) -> dict[str, Any]:
    """Return the event of a WebSocket API."""
    kind = {"$connect": "CONNECT", "$default": "MESSAGE", "$disconnect": "DISCONNECT"}[route]
    event: dict[str, Any] = {
        "requestContext": {
            "routeKey": route,
            "eventType": kind,
            "extendedRequestId": "AXHiHEYHliAFXpQ=",
            "requestTime": "20/Feb/2026:22:38:36 +0000",
            "messageDirection": "IN",
            "stage": STAGE,
            "connectedAt": int(time.time() * 1000),
            "requestTimeEpoch": int(time.time() * 1000),
            "identity": {"sourceIp": wire.source_ip},
            "requestId": "AXHiHEYHliAFXpQ=",
            "domainName": DOMAIN,
            "connectionId": wire.id,
            "apiId": API,
        },
        "isBase64Encoded": False,
    }
    if route == "$connect":
        every = [*headers, ("Host", DOMAIN), ("X-Forwarded-For", "203.0.113.9, 10.0.0.1")]
        event |= _parameters("Headers", every)
        if query:
            event |= _parameters("QueryStringParameters", parse_qsl(query, keep_blank_values=True))
    elif route == "$default":
        event["requestContext"]["messageId"] = "AXHiHEYHliAFXpQ="
        event["body"] = body
    else:
        event |= _parameters("Headers", [("Host", DOMAIN), ("x-api-key", "")])
        event["requestContext"] |= {"disconnectStatusCode": 1005, "disconnectReason": ""}
    return event


def _parameters(name: str, pairs: Sequence[tuple[str, str]]) -> dict[str, Any]:
    """Return parameters as events have them twice: the last value of each, and all."""
    every: dict[str, list[str]] = {}
    for key, value in pairs:
        every.setdefault(key, []).append(value)
    one = {key: values[-1] for key, values in every.items()}
    lower = name[0].lower() + name[1:]
    return {lower: one or None, f"multiValue{name}": every or None}


def _identity(source_ip: str) -> dict[str, Any]:
    names = (
        "accessKey accountId apiKey apiKeyId caller cognitoAuthenticationProvider "
        "cognitoAuthenticationType cognitoIdentityId cognitoIdentityPoolId "
        "principalOrgId user userArn"
    )
    return dict.fromkeys(names.split()) | {
        "sourceIp": source_ip,
        "userAgent": "Python-urllib/3.11",
    }


def _text(body: bytes, *, binary: bool) -> str | None:
    """Write a body into an event: base64 for binary types, else as text."""
    if not body:
        return None
    return base64.b64encode(body).decode() if binary else body.decode(errors="replace")


def _own_words(status: int, message: str) -> Answer:
    """Say what a gateway says by itself: it cannot be told another body, or headers for CORS."""
    body = json.dumps({"message": message}).encode()
    return Answer(status, {"content-type": "application/json"}, body)


def _answer(result: Mapping[str, Any]) -> Answer:
    headers = {name.lower(): str(value) for name, value in (result.get("headers") or {}).items()}
    body = result.get("body") or ""
    content = base64.b64decode(body) if result.get("isBase64Encoded") else body.encode()
    return Answer(int(result["statusCode"]), headers, content)


class _AwsSide(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 128

    def __init__(self, gateway: Gateway) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.gateway = gateway

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Say nothing of SDKs that hang up; they may."""
        if not isinstance(sys.exception(), ConnectionError):
            super().handle_error(request, client_address)


_ERRORS = {
    403: "ForbiddenException",
    410: "GoneException",
    413: "PayloadTooLargeException",
    429: "LimitExceededException",
    500: "InternalServerError",
}

HANG = 0
"""A fault: say nothing for longer than anybody waits."""


class _Handler(BaseHTTPRequestHandler):
    server: _AwsSide
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        kind, name = self._asked()
        gateway = self.server.gateway
        if kind == "functions":
            assert self.headers["X-Amz-Invocation-Type"] == "Event"
            self._say(gateway.invoke(name, json.loads(body)))
        else:
            self._say(gateway.post(name, body.decode()))

    def do_DELETE(self) -> None:
        self._say(self.server.gateway.delete(self._asked()[1]))

    def _asked(self) -> tuple[str, str]:
        if not self.headers.get("Authorization", "").startswith("AWS4-HMAC-SHA256 "):
            self.server.gateway.unsigned.append(self.path)
        parts = self.path.strip("/").split("/")
        if parts[0] == "2015-03-31":
            return parts[1], unquote(parts[2])
        assert parts[:2] == [STAGE, "@connections"], self.path
        return "@connections", unquote(parts[2])

    def _say(self, status: int) -> None:
        if status == HANG:
            self.rfile.read(1)
            self.close_connection = True
            return
        self.send_response(status)
        if status in _ERRORS:
            self.send_header("x-amzn-ErrorType", _ERRORS[status])
        if status != 204:
            self.send_header("Content-Length", "2")
        self.end_headers()
        if status != 204:
            self.wfile.write(b"{}")

    def log_message(self, format: str, *args: object) -> None:
        pass
