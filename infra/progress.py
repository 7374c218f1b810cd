"""Progress: what CloudFormation does, a line a resource, and a word while it is silent."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from typing import Any

from muster.cli.output import say

SILENT_S = 15.0
"""How long a person at a terminal is left without a line."""

_FAILED = ("CREATE_FAILED", "UPDATE_FAILED", "DELETE_FAILED", "IMPORT_FAILED")


class Silence:
    """Says now and then that AWS is still at work, to a person who watches."""

    def __init__(self, watched: bool, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._watched, self._clock = watched, clock
        self._began = self._last = clock()
        self._open: dict[str, None] = {}

    def note(self, event: Mapping[str, Any]) -> None:
        """Remember what is being worked on."""
        name = event["LogicalResourceId"]
        self._open.pop(name, None)
        if (
            event["ResourceStatus"].endswith("_IN_PROGRESS")
            and event.get("ResourceType") != "AWS::CloudFormation::Stack"
        ):
            self._open[name] = None

    def broken(self) -> None:
        """Note that something was said."""
        self._last = self._clock()

    def keep(self) -> None:
        """Say that it goes on, if nothing was said for a while."""
        now = self._clock()
        if not self._watched or now - self._last < SILENT_S:
            return
        self._last = now
        minutes, seconds = divmod(int(now - self._began), 60)
        passed = f"{minutes} min {seconds} s" if minutes else f"{seconds} s"
        waited = ", ".join(list(self._open)[:3])
        say(f"  still at work: CloudFormation, {passed}" + (f", at {waited}" if waited else ""))


def line(event: Mapping[str, Any], name: str) -> str:
    """Say how a resource or the stack ended, on one line; nothing while it is at it."""
    what = event["LogicalResourceId"]
    status = event["ResourceStatus"].lower().replace("_", " ")
    if status.endswith("in progress") and what != name:
        return ""
    what = "the stack" if what == name else what
    reason = event.get("ResourceStatusReason", "")
    shown = f"  {event['Timestamp']:%H:%M:%S}  {what:<34} {status}"
    return f"{shown}: {reason}" if reason and "failed" in status else shown


def failure(event: Mapping[str, Any]) -> str:
    """Return why a resource failed, if it failed by itself and not because another did."""
    reason = str(event.get("ResourceStatusReason", ""))
    if event["ResourceStatus"] not in _FAILED or "cancelled" in reason.lower():
        return ""
    return f"{event['LogicalResourceId']}: {reason}" if reason else ""
