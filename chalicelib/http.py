"""HTTP: a call in, a reply out; limit, read, guard, use case.

The one place that makes an error body and the one that knows CORS. Nothing is
raised from here: what a use case refuses becomes its status, what the store
cannot do becomes 503, and what nobody foresaw becomes 500 and a log line.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any

import msgspec

from chalicelib import store
from chalicelib.call import Call, Done, Reply, Wait
from chalicelib.circle import sockets
from chalicelib.quotas import FULL_TEXT, FULL_WAIT_S
from chalicelib.routes import PATHS, Route
from chalicelib.service import Service
from chalicelib.variables import WrongValue
from muster import strict
from muster.errors import (
    InternalError,
    InvalidRequest,
    MethodNotAllowed,
    NotFound,
    PayloadTooLarge,
    RateLimited,
    Refused,
    Unavailable,
)
from muster.felund import records

_log = logging.getLogger("muster")

CORS = {
    "Access-Control-Allow-Origin": "*",
    "Access-Control-Expose-Headers": "Retry-After, X-Request-Id",
}
PREFLIGHT = CORS | {
    "Access-Control-Allow-Methods": "GET, POST, DELETE, OPTIONS",
    "Access-Control-Allow-Headers": (
        "Authorization, Content-Type, X-Felund-Node, X-Felund-Ts, X-Felund-Nonce, "
        "X-Felund-Signature"
    ),
    "Access-Control-Max-Age": "7200",
}
JSON = "application/json"
PROBLEM = "application/problem+json"

_encoder = msgspec.json.Encoder()


def handle(service: Service, call: Call) -> Reply:
    """Answer a call, whatever it is."""
    reply = begin(service, call)
    if isinstance(reply, Wait):
        reply.out()
        reply = finish(call, reply)
    return reply


def begin(service: Service, call: Call) -> Reply | Wait:
    """Answer a call, or say what the answer waits for; `finish` follows."""
    if call.method == "OPTIONS":
        return _stamped(call, Reply(204, headers=dict(PREFLIGHT), route="OPTIONS"))
    return _whatever(call, lambda: _answer(service, call))


def finish(call: Call, wait: Wait) -> Reply:
    """Answer a call that has waited."""
    reply = _whatever(call, lambda: _reply(wait.then()))
    assert isinstance(reply, Reply)  # noqa: S101 - what has waited does not wait again
    return reply


def fail(call: Call, error: Exception) -> Reply:
    """Return the reply for what went wrong with a call, here or in a host."""
    return _stamped(call, refuse(refusal_for(error, call.request_id), call.path))


def refusal_for(error: Exception, request_id: str = "") -> Refused:
    """Return what the caller may know of an error; the log gets the rest."""
    if isinstance(error, Refused):
        return error
    if isinstance(error, store.Full):
        return Unavailable(FULL_TEXT, retry_after_s=FULL_WAIT_S)
    if isinstance(error, store.Unavailable):
        return Unavailable("the store did not answer in time; try again", retry_after_s=1)
    if isinstance(error, WrongValue):
        _log.error("%s", error, extra={"request_id": request_id})
        return InternalError("the service is not set up; its log says why")
    _log.error("unforeseen", exc_info=error, extra={"request_id": request_id})
    return InternalError("the service failed; the log has the request id")


def refuse(refusal: Refused, path: str = "") -> Reply:
    """Return the reply for a refusal, in the form that the clients of a path know."""
    write = next((route.refusal for route in PATHS.get(path, {}).values()), None)
    headers = CORS | {"Content-Type": PROBLEM if write else JSON, "Cache-Control": "no-store"}
    if write and refusal.status == 401:
        headers["WWW-Authenticate"] = "Bearer"
    if refusal.retry_after_s is not None:
        headers["Retry-After"] = str(refusal.retry_after_s)
    if isinstance(refusal, MethodNotAllowed):
        headers["Allow"] = refusal.allow
    return Reply(
        refusal.status,
        body=_encoder.encode(write(refusal) if write else refusal.to_json()),
        headers=headers,
        code=refusal.code,
    )


def route_name(call: Call) -> str:
    """Return the route as logs and metrics name it; unknown ones share a name."""
    known = PATHS.get(call.path, {})
    return f"{call.method} {call.path}" if call.method in known else "unknown"


def _whatever(call: Call, answer: Callable[[], Reply | Wait]) -> Reply | Wait:
    """Make an answer of whatever happens."""
    try:
        reply = answer()
    except Exception as error:
        return fail(call, error)
    return reply if isinstance(reply, Wait) else _stamped(call, reply)


def _stamped(call: Call, reply: Reply) -> Reply:
    """Note on a reply which call it answers."""
    reply.route = reply.route or route_name(call)
    if call.request_id:
        reply.headers["X-Request-Id"] = call.request_id
    return reply


def _answer(service: Service, call: Call) -> Reply | Wait:
    try:
        service.limits.spend_address(call.source_ip, clock=call.clock)
        route = _route(call)
        if route.guard_first:
            route.guard(service, call, None)
        ask = _read(service, call, route)
        if not route.guard_first:
            route.guard(service, call, ask)
        use = route.unasked if route.unasked and not call.body else route.use
        done = use(service, call, ask)
    except RateLimited:
        over = _over(call)
        if over is None:
            raise
        return _reply(over(service, call))
    if isinstance(done, Wait):
        return done
    reply = _reply(done)
    reply.circle_hint = getattr(ask, "circle_hint", None) or ""
    return reply


def _reply(done: Any) -> Reply:
    answer, effects = done if isinstance(done, Done) else (done, ())
    headers = CORS | {"Content-Type": JSON, "Cache-Control": "no-store"}
    code = answer.code if isinstance(answer, records.Tickets) else ""
    return Reply(200, _encoder.encode(answer), headers=headers, effects=effects, code=code)


def _route(call: Call) -> Route:
    methods = PATHS.get(call.path)
    if call.path == sockets.PATH and call.method == "GET":
        raise InvalidRequest("open a WebSocket here")
    if methods is None:
        raise NotFound(
            "there is no such path; GET /v1/info and docs/protocol.md list what there is"
        )
    route = methods.get(call.method)
    if route is None:
        allow = ", ".join([*methods, "OPTIONS"])
        raise MethodNotAllowed(f"this path takes {allow}", allow=allow)
    return route


def _over(call: Call) -> Callable[..., Any] | None:
    route = PATHS.get(call.path, {}).get(call.method)
    return route.over if route else None


def _read(service: Service, call: Call, route: Route) -> Any:
    most: int = getattr(service.settings, route.body_bytes)
    if len(call.body) > most:
        raise PayloadTooLarge(f"a body may have {most} bytes")
    if route.method == "GET":
        return records.from_query(call.query, route.ask)
    if route.unasked and not call.body:
        return records.Nothing()
    value = strict.loads(call.body)
    if not isinstance(value, dict):
        raise InvalidRequest("the body is not a JSON object")
    return records.from_json(value, route.ask)
