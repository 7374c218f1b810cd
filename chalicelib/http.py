"""HTTP: a call in, a reply out.

What costs nothing comes first: `meet` looks at the head of a call, for which its body need
not be here yet; `begin` checks the signature, reads the body and does what is asked.

The one place that makes an error body and the one that knows CORS. Nothing is
raised from here: what a use case refuses becomes its status, what the store
cannot do becomes 503, and what nobody foresaw becomes 500 and a log line.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any, TypeVar

import msgspec

from chalicelib import access, store
from chalicelib.call import Call, Done, Reply, Wait
from chalicelib.circle import sockets
from chalicelib.quotas import FULL_TEXT, FULL_WAIT_S
from chalicelib.routes import PATHS, Route
from chalicelib.service import Service
from chalicelib.variables import WrongValue
from muster import strict, structs
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

CAPSULES = "/capsules/"
"""Below it are published files; what serves them is loaded when one is asked for."""

APP = "/app"
"""Below it are the files of the app, loaded in the same way."""

LIBRARY = f"{APP}/muster/"
"""Below it are the modules of the browser library."""

CORS = {
    "Access-Control-Allow-Origin": "*",
    "Access-Control-Expose-Headers": "Muster-Answer, Retry-After, X-Request-Id",
}
PREFLIGHT = CORS | {
    "Access-Control-Allow-Methods": "GET, POST, DELETE, OPTIONS",
    "Access-Control-Allow-Headers": (
        "Authorization, Content-Type, X-Felund-Node, X-Felund-Ts, X-Felund-Nonce, "
        "X-Felund-Signature"
    ),
    "Access-Control-Max-Age": "7200",
}
NO_SUCH_PATH = "there is no such path; GET /v1/info and docs/protocol.md list what there is"
JSON = "application/json"
PROBLEM = "application/problem+json"

_encoder = msgspec.json.Encoder()
_T = TypeVar("_T")


def handle(service: Service, call: Call) -> Reply:
    """Answer a call, whatever it is."""
    reply = meet(service, call) or begin(service, call)
    if isinstance(reply, Wait):
        reply.out()
        reply = finish(call, reply)
    return reply


def meet(service: Service, call: Call) -> Reply | None:
    """Answer a call that needs no body to be answered, a refused one for instance."""
    return _whatever(_meet, service, call)


def begin(service: Service, call: Call) -> Reply | Wait:
    """Answer a call that was met, or say what the answer waits for; `finish` follows."""
    return _whatever(_answer, service, call)


def finish(call: Call, wait: Wait) -> Reply:
    """Answer a call that has waited."""
    try:
        return _stamped(call, _reply(wait.then()))
    except Exception as error:
        return fail(call, error)


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


def for_browsers(path: str) -> bool:
    """Say whether a path is the app's or the browser library's, which the hosts serve as files."""
    return path == APP or path.startswith(f"{APP}/")


def route_name(call: Call) -> str:
    """Return the route as logs and metrics name it; unknown ones share a name."""
    known = PATHS.get(call.path, {})
    return f"{call.method} {call.path}" if call.method in known else "unknown"


def _whatever(step: Callable[[Service, Call], _T], service: Service, call: Call) -> _T | Reply:
    """Make an answer of whatever happens."""
    try:
        done = step(service, call)
    except RateLimited as refused:
        return _over(service, call, refused)
    except Exception as error:
        return fail(call, error)
    return _stamped(call, done) if isinstance(done, Reply) else done


def _stamped(call: Call, reply: Reply) -> Reply:
    """Note on a reply which call it answers."""
    reply.route = reply.route or route_name(call)
    if call.request_id:
        reply.headers["X-Request-Id"] = call.request_id
    if call.stamp is not None:
        call.stamp(reply)
    return reply


def _meet(service: Service, call: Call) -> Reply | None:
    closed = access.closed(service, call)
    service.limits.spend_address(call.source_ip, clock=call.clock, shared=not closed)
    if call.method == "OPTIONS":
        return Reply(204, headers=dict(PREFLIGHT), route="OPTIONS")
    route = _route(call)
    service.limits.spend_bytes(
        call.source_ip, call.declared_bytes, clock=call.clock, shared=not closed
    )
    if closed and call.method == "GET":
        route.knock(service, call)
    route.guard.meet(service, call)
    _check_size(service, route, max(call.declared_bytes, len(call.body)))
    return None


def _answer(service: Service, call: Call) -> Reply | Wait:
    route = PATHS[call.path][call.method]
    closed = access.closed(service, call)
    undeclared = len(call.body) - call.declared_bytes
    if undeclared > 0:
        service.limits.spend_bytes(call.source_ip, undeclared, clock=call.clock, shared=not closed)
        _check_size(service, route, len(call.body))
    if closed and call.method != "GET":
        route.knock(service, call)
    named = _named(call, route)
    proof = route.guard.check(service, call, named)
    ask = named if route.method == "GET" else _read(call, route)
    access.confirm(service, call, ask)
    route.guard.admit(service, call, ask, proof)
    call.signed = proof is not None
    use = route.unasked if route.unasked and not call.body else route.use
    done = use(service, call, ask)
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
    if call.path in sockets.PATHS and call.method == "GET":
        raise InvalidRequest("open a WebSocket here")
    if methods is None:
        raise NotFound(NO_SUCH_PATH)
    route = methods.get(call.method)
    if route is None:
        allow = ", ".join([*methods, "OPTIONS"])
        raise MethodNotAllowed(f"this path takes {allow}", allow=allow)
    return route


def _check_size(service: Service, route: Route, size: int) -> None:
    most: int = getattr(service.settings, route.body_bytes)
    if size > most:
        raise PayloadTooLarge(f"a body may have {most} bytes")


def _named(call: Call, route: Route) -> Any:
    """Return what a call says for whom it is: all of a query, the start of a body."""
    if route.method == "GET":
        return structs.from_query(call.query, route.ask)
    shape = route.guard.wants(route.ask)
    return structs.find(call.body, shape) if shape else None


def _read(call: Call, route: Route) -> Any:
    if route.unasked and not call.body:
        return records.Nothing()
    value = strict.loads(call.body)
    if not isinstance(value, dict):
        raise InvalidRequest("the body is not a JSON object")
    return structs.from_json(value, route.ask)


def _over(service: Service, call: Call, refused: RateLimited) -> Reply:
    """Answer a caller over its limit as its path does."""
    route = PATHS.get(call.path, {}).get(call.method)
    if route is None or route.over is None:
        return fail(call, refused)
    try:
        return _stamped(call, _reply(route.over(service, call)))
    except Exception as error:
        return fail(call, error)
