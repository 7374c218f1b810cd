"""The AWS host: API Gateway's events become calls, and replies what it expects.

One `AwsHost` a container: it builds the service from the environment when the first
event comes, and keeps it. Nothing is raised to API Gateway, which would answer in a
form of its own.
"""

from __future__ import annotations

import logging
import os
import sys
import time
from base64 import b64encode
from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import cache, cached_property
from typing import TYPE_CHECKING, Any

from chalice.app import Response

from chalicelib import http, log, store
from chalicelib.aws import events
from chalicelib.aws.clients import open_client
from chalicelib.aws.events import Event
from chalicelib.aws.files import Files
from chalicelib.aws.greeter import Greeter
from chalicelib.aws.pushes import PUSH_S, Pushes
from chalicelib.aws.sender import Budget, GatewaySender
from chalicelib.aws.share import Meter, Share
from chalicelib.aws.told import Told
from chalicelib.call import Call, Connection, Effect, Reply
from chalicelib.circle import relay, sockets
from chalicelib.service import ClockName, Service
from chalicelib.settings import Settings, unknown
from chalicelib.store import Stores
from chalicelib.variables import WrongValue
from muster.errors import PayloadTooLarge

if TYPE_CHECKING:
    from pathlib import Path

    from chalicelib.app_files import AppFiles
    from chalicelib.assist.paths import Prober
    from chalicelib.aws.capsules import Capsules
    from chalicelib.aws.clocks import Clock
    from chalicelib.aws.publishing import BucketPublishing

Environment = Mapping[str, str]

METHODS = ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS")
"""What API Gateway is to pass on, so that the service itself refuses."""

ANSWER_BYTES = 6_000_000
"""The largest body that Lambda returns, a little less than its 6 MB; it counts what is escaped."""

SWEEP_S = 8.0
BELIEVED_S = 60
"""How long a container believes that a circle is let in: so soon a revoked one is refused."""

_BYTES = ("image/png",)
"""What is no text, even if it is not gzipped."""

_log = logging.getLogger("muster")


class Answer(Response):
    """A reply as Chalice wants it; a response that is none was not made by the service."""

    def __init__(self, reply: Reply) -> None:
        headers = reply.headers
        self._is_text = (
            "Content-Encoding" not in headers and headers.get("Content-Type") not in _BYTES
        )
        body = reply.body if self._is_text else b64encode(reply.body)
        super().__init__(body.decode(), dict(reply.headers), reply.status)

    def to_dict(self, binary_types: list[str] | None = None) -> dict[str, Any]:
        """Return what the gateway is told, and whether the body is in base64."""
        told: dict[str, Any] = super().to_dict()  # what is in base64 already is not to be again
        return told if self._is_text else told | {"isBase64Encoded": True}


class AwsHost:
    """What one container keeps between events."""

    def __init__(
        self,
        environment: Environment,
        *,
        clock: Callable[[], float] = time.time,
        web: Path | None = None,
    ) -> None:
        self._environment, self._clock, self._web = environment, clock, web
        self._pushes = Pushes()
        self._to_wake: set[ClockName] = set()
        self.used = Meter()
        """What the event at hand has taken from the tables, or the last one took."""

    @cached_property
    def service(self) -> Service:
        """The service, from the environment; raises `WrongValue` for what does not fit."""
        told, ours = self._told, self._share.settings() if self._share else {}
        settings = Settings.from_environment({**ours, **_set(self._environment)})
        settings = replace(settings, access=settings.access or "closed")
        if stray := unknown(self._environment):
            _log.warning("%s", stray)  # a name that nobody reads is not worth an outage
        return Service(
            settings,
            _open_stores(told, self._environment, self.used),
            GatewaySender(self._open_gateway, budget=Budget(settings.pushes_per_s)),
            os.urandom,
            prober=_open_prober(settings),
            spread=True,
            believed_s=BELIEVED_S,
            wake=self._to_wake.add,
        )

    @cached_property
    def _share(self) -> Share | None:
        """What one address may use, where the function was told what there is."""
        return Share(self._told) if self._told.bounded else None

    @cached_property
    def greeter(self) -> Greeter:
        """Has new connections greeted."""
        function = self._told.greet_function
        if not function:
            raise WrongValue("MUSTER_GREET_FUNCTION must name a Lambda function; it is not set")
        return Greeter(open_client("lambda"), function)

    @cached_property
    def _told(self) -> Told:
        """What the function is told; read first of all, so that its log is ready by then."""
        if "AWS_LAMBDA_FUNCTION_NAME" in self._environment:
            _log_to_stdout(self._environment["AWS_LAMBDA_FUNCTION_NAME"])
        return Told.from_environment(self._environment)

    @cached_property
    def _publishing(self) -> BucketPublishing:
        """Whoever publishes; loaded by the one function that does."""
        from chalicelib.aws.publishing import BucketPublishing

        return BucketPublishing(self._told, lambda: self.service)

    @cached_property
    def _clocks(self) -> Mapping[ClockName, Clock]:
        """The clocks that this function wakes, and of which it may put its own to rest."""
        from chalicelib.aws.clocks import Clock

        client = cache(lambda: _open_events(self._environment))
        told = self._told
        return {
            "sweep": Clock(told.sweep_rule, client),
            "publish": Clock(told.publish_rule, client),
        }

    @cached_property
    def _capsules(self) -> Capsules | None:
        """Who answers for published files, where the function was told a bucket."""
        bucket = self._told.capsule_bucket
        if not bucket:
            return None
        from chalicelib.aws.capsules import Capsules
        from chalicelib.community.shelf import S3Shelf

        client = cache(lambda: open_client("s3"))  # once a file is wanted, for it loads botocore
        return Capsules(self.service, S3Shelf(client, bucket).read, self._files)

    @cached_property
    def _files(self) -> Files:
        """Who sends files, of whatever kind, and bounds it."""
        return Files(self.service)

    @cached_property
    def _app_files(self) -> AppFiles:
        """Who answers for the app and the browser library; read once one of them is wanted."""
        from chalicelib import app_files

        return app_files.load(self._web) if self._web else app_files.load()

    def answer(self, event: Event) -> Answer:
        """Answer an HTTP call."""
        return Answer(self._answered(event, self._call))

    def connect(self, event: Event) -> dict[str, Any]:
        """Admit a connection, or refuse it with the status of the refusal."""
        reply = self._answered(event, self._connect, route=f"GET {sockets.PATH}")
        return {"statusCode": reply.status, "headers": reply.headers, "body": reply.body.decode()}

    def receive(self, event: Event) -> None:
        """Take a frame."""
        connection = self.connection(event)
        text = events.body(event).decode(errors="surrogateescape")
        now = int(self._clock())
        try:
            effects = sockets.receive(self.service, connection, text, now=now)
        except Exception as error:
            effects = relay.send_error(connection, http.refusal_for(error))
        self._deliver(effects, now=now)
        self._wake(now)

    def disconnect(self, event: Event) -> None:
        """Forget a connection that has ended."""
        self._perform(lambda now: sockets.closed(self.service, self.connection(event), now=now))

    def greet(self, event: Event) -> None:
        """Send a new connection its first frames, now that it can be sent to."""
        connection = Connection(event["id"], event["endpoint"])
        self.used.clear()
        self._perform(lambda now: sockets.greet(self.service, connection, now=now))
        self._charge(event.get("address", ""), clock=self._clock())
        self._wake(int(self._clock()))

    def sweep(self) -> None:
        """End the seats that are idle or out of time."""
        after, more, seats = "", True, 0
        while more:
            now = int(self._clock())
            try:
                swept = relay.sweep(self.service, now=now, after=after)
            except store.Unavailable:
                _log.warning("the store did not answer in time")
                return
            self._deliver(swept.effects, now=now, within_s=SWEEP_S)
            after = swept.after
            more, seats = bool(after), seats + swept.seats
        self._clocks["sweep"].ran(
            busy=seats > 0, look=lambda: relay.seated(self.service, now=now), now=now
        )

    def connection(self, event: Event) -> Connection:
        """Return a connection, and where its gateway takes what is for it.

        A domain of one's own hides the stage, so the gateway is named by its API.
        """
        context = event["requestContext"]
        domain = context["domainName"]
        if ".execute-api." not in domain:
            region = self._environment["AWS_REGION"]
            suffix = ".cn" if region.startswith("cn-") else ""
            domain = f"{context['apiId']}.execute-api.{region}.amazonaws.com{suffix}"
        return Connection(context["connectionId"], f"https://{domain}/{context['stage']}")

    def publish(self) -> None:
        """Publish the capsules that are due."""
        now = int(self._clock())
        self._publishing.run(now=now)
        self._clocks["publish"].ran(
            busy=not self._publishing.idle, look=lambda: self._publishing.wanted(now=now), now=now
        )

    def _answered(
        self, event: Event, ask: Callable[[Call, Event], Reply], *, route: str = ""
    ) -> Reply:
        clock = self._clock()
        call = events.head(event, clock=clock)
        try:
            call = events.read(event, clock=clock, secret=self._told.edge_secret)
            reply = ask(call, event)
        except Exception as error:
            reply = http.fail(call, error)
        reply.route = route or reply.route
        self._deliver(reply.effects, now=call.now)
        self._wake(call.now)
        log.call(call, reply, latency_s=self._clock() - clock)
        return reply

    def _call(self, call: Call, event: Event) -> Reply:
        self.used.clear()
        reply = self._file(call) or http.handle(self.service, call)
        self._charge(call.source_ip, clock=call.clock, paid=1)
        if len(reply.body) > ANSWER_BYTES // 2 and _escaped_bytes(reply.body) > ANSWER_BYTES:
            raise PayloadTooLarge("the answer is larger than the gateway passes; lower the limit")
        return reply

    def _file(self, call: Call) -> Reply | None:
        """Answer a call for a file."""
        if http.for_browsers(call.path):
            return self._files.reply(call, self._app_files.reply)
        if call.path.startswith(http.CAPSULES) and self._capsules is not None:
            return self._capsules.reply(call)
        return None

    def _connect(self, call: Call, event: Event) -> Reply:
        connection, greeter, service = self.connection(event), self.greeter, self.service
        self.used.clear()
        try:
            opened = sockets.open_socket(service, call, connection)
        finally:
            self._charge(call.source_ip, clock=call.clock, paid=1)
        self._deliver(opened.effects, now=call.now)
        greeter.greet(connection, call.source_ip)
        headers = {"X-Request-Id": call.request_id} if call.request_id else {}
        if opened.subprotocol:
            headers["Sec-WebSocket-Protocol"] = opened.subprotocol
        return Reply(200, headers=headers)

    def _charge(self, address: str, *, clock: float, paid: float = 0) -> None:
        """Charge an address what an event took beyond what it has paid."""
        owed = self._share.calls(self.used) - paid if self._share else 0
        if owed > 0:
            self.service.limits.charge_address(address, owed, clock=clock)

    def _wake(self, now: int) -> None:
        """Have those clocks run to which the event at hand has given something to do."""
        while self._to_wake:
            self._clocks[self._to_wake.pop()].wake(now=now)

    def _perform(
        self, step: Callable[[int], tuple[Effect, ...]], *, within_s: float = PUSH_S
    ) -> None:
        now = int(self._clock())
        try:
            effects = step(now)
        except store.Unavailable:
            _log.warning("the store did not answer in time")
        else:
            self._deliver(effects, now=now, within_s=within_s)

    def _deliver(self, effects: tuple[Effect, ...], *, now: int, within_s: float = PUSH_S) -> None:
        if effects:
            self._pushes.deliver(self.service, effects, now=now, within_s=within_s)

    def _open_gateway(self, endpoint: str) -> Any:
        """Make a client for one gateway; AWS's own variable may name another place."""
        override = self._environment.get("AWS_ENDPOINT_URL_APIGATEWAYMANAGEMENTAPI")
        return open_client("apigatewaymanagementapi", endpoint_url=override or endpoint)


def _escaped_bytes(body: bytes) -> int:
    """Return how long a JSON body is once it is a string in Lambda's JSON."""
    return len(body) + body.count(b'"') + body.count(b"\\")


def _set(environment: Environment) -> Environment:
    """Return the variables that say something: an empty one is the same as none."""
    return {name: text for name, text in environment.items() if text}


def _open_stores(told: Told, environment: Environment, used: Meter) -> Stores:
    """Open DynamoDB's tables, or a file of SQLite on one's own machine."""
    if told.sqlite_path:
        from chalicelib.store.sqlite import open_sqlite

        return open_sqlite(told.sqlite_path)
    from chalicelib.store.dynamodb import open_client, open_dynamodb
    from chalicelib.store.dynamodb_http import from_environment

    # Twice at the most, so that there is an answer before Lambda's own time is out.
    client = from_environment(environment, read_s=2, attempts=2)
    asked = client or open_client(read_s=2, attempts=2)
    return open_dynamodb(tables=told.tables, client=asked, meter=used.add)


def _open_events(environment: Environment) -> Any:
    """Make a client of EventBridge, once a clock is to be woken."""
    from chalicelib.aws import eventbridge

    return eventbridge.open_events(environment)


def _open_prober(settings: Settings) -> Prober | None:
    """Return a prober, if paths are configured."""
    if settings.assist is None:
        return None
    from chalicelib.assist import probing

    return probing.open_prober(settings.assist)


def _log_to_stdout(function: str) -> None:
    handler = logging.StreamHandler(sys.stdout)
    handler.setFormatter(log.JsonLines(function))
    muster = logging.getLogger("muster")
    muster.handlers, muster.propagate = [handler], False
    muster.setLevel(logging.INFO)
