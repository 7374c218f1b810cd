"""Logs: one JSON line a call, for people who keep their users' secrets.

A line has the request id, node, a shortened circle hint, route, status and
latency. It never has a secret, a payload, a whole hint or an address.
"""

from __future__ import annotations

import json
import logging
from typing import Any

from chalicelib.call import Call, Reply
from muster.errors import NotAllowed

HINT_CHARS = 6
NODE_CHARS = 64
"""A stranger's line is paid for as well: so much of what it calls itself is kept."""

BEACON = ("POST /announce", "GET /peers")
FUNCTION = "Function"
"""The dimension of the metrics, which the template's alarms name."""

_log = logging.getLogger("muster.calls")
_publishing = logging.getLogger("muster.publishing")
_STANDARD = frozenset(vars(logging.makeLogRecord({}))) | {"message", "taskName"}


def code_of(error: Exception) -> str:
    """Return what AWS calls the error, or what Python does; never more, as logs are read."""
    response: dict[str, Any] = getattr(error, "response", None) or {}
    code: str = (response.get("Error") or {}).get("Code") or type(error).__name__
    return code


class JsonLines(logging.Formatter):
    """Writes a record and what was added to it as one JSON object.

    A metric is counted for *function* alone: another deployment's alarms must not see it.
    """

    def __init__(self, function: str = "") -> None:
        super().__init__()
        self._function = function

    def format(self, record: logging.LogRecord) -> str:
        """Return the line."""
        line: dict[str, Any] = {
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
        }
        line |= {key: value for key, value in vars(record).items() if key not in _STANDARD}
        if "_aws" in line:
            line[FUNCTION] = self._function
        if record.exc_info:
            line["exception"] = self.formatException(record.exc_info)
        return json.dumps(line, separators=(",", ":"), default=str)


def call(made: Call, reply: Reply, *, latency_s: float) -> None:
    """Log one answered call."""
    if not _log.isEnabledFor(logging.INFO):
        return
    extra: dict[str, Any] = {
        "request_id": made.request_id,
        "node_id": made.node_id[:NODE_CHARS].encode("ascii", "replace").decode(),
        "circle_hint": shorten(reply.circle_hint or made.query.get("circle_hint", "")),
        "status": reply.status,
        "code": reply.code,
        "latency_ms": round(latency_s * 1000, 2),
    }
    good = beacon(reply)
    if good is not None:
        extra |= _metric("BeaconSuccess", good, at=made.now)
    _log.info("%s %d", reply.route, reply.status, extra=extra)


def beacon(reply: Reply) -> bool | None:
    """Say whether a beacon did what it was asked; the alarm watches the share of these.

    Nothing is said of other calls, nor of those that a closed service keeps out: strangers
    would else raise the alarm of a service that does what it should.
    """
    if reply.route not in BEACON or reply.code == NotAllowed.code:
        return None
    return reply.status < 300 and not reply.code


def shorten(circle_hint: str) -> str:
    """Return as much of a circle hint as logs may hold."""
    return circle_hint[:HINT_CHARS] + "…" if circle_hint else ""


def published(community: str, *, at: int, failures: int, reason: str) -> None:
    """Log one publishing; a failure carries the metric that the alarm watches.

    The metric is in CloudWatch's embedded format, which needs no call to CloudWatch.
    """
    extra: dict[str, Any] = {"community": community, "failures": failures}
    if failures:
        extra |= {"reason": reason, **_metric("PublishFailuresInARow", failures, at=at)}
        _publishing.error("publishing failed", extra=extra)
    else:
        _publishing.info("published", extra=extra | _metric("PublishFailuresInARow", 0, at=at))


def _metric(name: str, value: float, *, at: int) -> dict[str, Any]:
    described = {"Namespace": "Muster", "Dimensions": [[FUNCTION]], "Metrics": [{"Name": name}]}
    return {name: float(value), "_aws": {"Timestamp": at * 1000, "CloudWatchMetrics": [described]}}
