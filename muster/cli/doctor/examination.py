"""An examination: two fresh nodes meet through a running service, and each step is timed.

The steps are a table and know no network: whoever calls `examine` says how a client is
made, so the same steps run against a URL and, in tests, against the AWS host without a
gateway.
"""

from __future__ import annotations

import asyncio
import copy
import secrets
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import asdict, dataclass
from typing import Any, Literal

from muster.cli import hints
from muster.cli.doctor import beacon, steps, version2
from muster.cli.doctor.visit import Make, NotTried, Step, Visit
from muster.cli.output import Failure
from muster.errors import Refused
from muster.felund.circle import Circle
from muster.felund.sockets import Unreachable
from muster.invites import ServiceAddress

DEADLINE_S = 10.0

STEPS = (*steps.STEPS, *version2.STEPS, *beacon.STEPS)

Status = Literal["ok", "failed", "skipped"]


@dataclass(frozen=True, slots=True)
class Result:
    """How a step went, and when; times in milliseconds since the start."""

    name: str
    what: str
    status: Status
    started_ms: float
    took_ms: float
    detail: str = ""
    error: str = ""
    hint: str = ""


@dataclass(frozen=True, slots=True)
class Report:
    """How the whole examination went."""

    base: str
    version: str
    took_ms: float
    steps: tuple[Result, ...]

    @property
    def ok(self) -> bool:
        """Whether everything worked that can be had here."""
        return not self.failed

    @property
    def failed(self) -> list[Result]:
        """The steps that failed."""
        return [step for step in self.steps if step.status == "failed"]

    def to_json(self) -> dict[str, Any]:
        """Return the report for programs."""
        return {"ok": self.ok, **asdict(self)}


async def examine(
    make: Make,
    *,
    base: str,
    address: ServiceAddress | None = None,
    circle: Circle | None = None,
    deadline_s: float = DEADLINE_S,
    starting: Callable[[Step], None] | None = None,
) -> Report:
    """Take every step that can be taken, each within its deadline, and report."""
    own, circle = circle is not None, circle or Circle.new()
    visit = Visit(
        make=make,
        circle=circle,
        own=own,
        address=address,
        near=make(circle, "doctor-near-" + secrets.token_hex(6)),
        far=make(circle, "doctor-far-" + secrets.token_hex(6)),
        stranger=make(_forged(circle), "doctor-stranger-" + secrets.token_hex(6)),
    )
    started = time.perf_counter()
    results: dict[str, Result] = {}
    try:
        for step in STEPS:
            if starting is not None:
                starting(step)
            results[step.name] = await _take(
                step, visit, results, base=base, started=started, deadline_s=deadline_s
            )
    finally:
        await _tidy(visit)
    return Report(base, visit.version, _ms(started), tuple(results.values()))


async def _take(
    step: Step,
    visit: Visit,
    before: dict[str, Result],
    *,
    base: str,
    started: float,
    deadline_s: float,
) -> Result:
    begun = _ms(started)
    missing = [name for name in step.needs if before[name].status != "ok"]
    if missing:
        return Result(step.name, step.what, "skipped", begun, 0.0, detail=f"needs '{missing[0]}'")
    try:
        async with asyncio.timeout(deadline_s):
            detail = await step.work(visit)
    except NotTried as why:
        return Result(step.name, step.what, "skipped", begun, 0.0, detail=str(why))
    except ModuleNotFoundError:
        raise  # it is about this machine, not about the service
    except Exception as error:
        explain = hints.websocket if step.opens_websocket else hints.explain
        failure = explain(error, base)
        if isinstance(error, TimeoutError):
            failure = Failure(f"not done after {deadline_s:g} s", failure.hint)
        took = round(_ms(started) - begun, 3)
        return Result(
            step.name,
            step.what,
            "failed",
            begun,
            took,
            error=failure.message,
            hint=failure.hint,
        )
    return Result(step.name, step.what, "ok", begun, round(_ms(started) - begun, 3), detail=detail)


async def _tidy(visit: Visit) -> None:
    """Close what is open; leave nobody registered, whatever happened."""
    for socket in (visit.subscription, *(visit.seats or ())):
        if socket is not None:
            await socket.close()
    for client in (visit.near, visit.far):
        with suppress(Refused, Unreachable, TimeoutError):
            async with asyncio.timeout(1):
                await client.unregister()
        await client.aclose()
    await visit.stranger.aclose()


def _forged(circle: Circle) -> Circle:
    """Return what an outsider can have: the circle's hint, and a key of its own."""
    forged = copy.copy(circle)
    object.__setattr__(forged, "request_key", secrets.token_bytes(32))
    return forged


def _ms(since: float) -> float:
    return round((time.perf_counter() - since) * 1000, 3)
