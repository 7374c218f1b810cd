"""Clocks: EventBridge rules that run a function each minute, only while that has something to do.

Two rules start as disabled: the sweep's, which ends idle relay seats, and the publisher's.
Who gives one something to do wakes it: a seat that is taken or heard of, a ticket that is
announced. A run that has found nothing for `AWAKE_S` puts its own clock to rest. So an idle
deployment runs nothing: no invocation, no unit of a table, no log line in a month, for
43,800 runs of each clock and as many read units before. A relay session takes a run a minute
and two or three more; so does a community, and up to twenty after its last ticket.

Enabling and disabling cost nothing and are asked of EventBridge directly, as DynamoDB is
(ADR 0013). A container asks once in `AWAKE_S` and believes meanwhile that the clock runs.
That is true, because a clock rests only when a run has found nothing for as long as that, and
looks once more when it has stopped it; what can go by both is a seat that was taken and left
in between. Then, or when a stack's update has reset the rule, or enabling fails:

* the next thing that a seat says wakes the clock after `AWAKE_S` at the latest. One that says
  nothing is not told that it is idle, and its session not that it is over: the gateway ends
  its socket after ten silent minutes, and its items end by themselves;
* the next announce wakes the publisher. Until then the capsule stays as it is, and its
  manifest says how old that may be.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any

from chalicelib.log import code_of
from chalicelib.store import Unavailable

AWAKE_S = 120
"""How long a container believes that a clock runs, and how long there must be nothing to do."""

FAILED_S = 30
"""How long after a failure nobody asks again."""

_log = logging.getLogger("muster")


class Clock:
    """One rule, as one container knows it. Nothing is raised; what fails is a line in the log.

    Without a *rule* the clock is another's to wind, and nothing is asked.
    """

    def __init__(self, rule: str, client: Callable[[], Any]) -> None:
        self._rule, self._client = rule, client
        self._again_at = self._idle_since = self._ran_at = 0

    def wake(self, *, now: int) -> None:
        """Have the clock run, unless it was asked to a moment ago."""
        if self._rule and now >= self._again_at:
            self._again_at = now + (AWAKE_S if self._ask("enable") else FAILED_S)

    def ran(self, *, busy: bool, look: Callable[[], bool], now: int) -> None:
        """Note what a run has found; where that was nothing for a while, have the clock rest.

        Whoever comes at that moment believes that it runs: so *look* says, when it has been
        stopped, whether there is something after all.
        """
        before, self._ran_at = self._ran_at, now
        if busy or now - before > AWAKE_S:  # others may have run meanwhile, and found something
            self._idle_since = now
        if now - self._idle_since < AWAKE_S or not self._rule:
            return
        self._idle_since = now
        if self._ask("disable"):
            self._again_at = 0
            if _something(look):
                self.wake(now=now)

    def _ask(self, verb: str) -> bool:
        try:
            getattr(self._client(), f"{verb}_rule")(Name=self._rule)
        except Exception as error:
            _log.warning("the rule %s is not %sd: %s", self._rule, verb, code_of(error))
            return False
        return True


def _something(look: Callable[[], bool]) -> bool:
    try:
        return look()
    except Unavailable:
        return True  # the next run sees


__all__ = ["AWAKE_S", "FAILED_S", "Clock"]
