"""Press: when a community is published; what is published is `publisher`'s to say.

A capsule is replaced every five minutes, and sooner if its last ticket would end before:
one without a usable ticket helps nobody. What goes wrong is tried again a minute later.
"""

from __future__ import annotations

from collections.abc import Callable, Collection

from capsules.manifest import Publisher
from chalicelib import log
from chalicelib.community import beacon, publisher
from chalicelib.community.publisher import PublishOutcome
from chalicelib.community.shelf import Shelf
from chalicelib.service import Service

LOOK_S = 60
"""How often a host looks for what is due; no community is published more often."""

LEAD_S = 75
"""So long before the last ticket ends a capsule is replaced: before the next look, and a run."""

JITTER_S = 5
"""How much sooner than its time a clock may start a run."""


def due(last: PublishOutcome | None, *, now: int, every_s: int = publisher.EVERY_S) -> bool:
    """Say whether a community is to be published, by how it went the last time."""
    if last is None or last.failures:
        return True
    age = now - last.at
    if age < min(LOOK_S - JITTER_S, every_s):
        return False
    return age >= every_s - JITTER_S or last.ends_at <= now + LEAD_S


class Press:
    """Publishes what is due, for a host that looks every minute and says where the keys are.

    A run with nothing to do reads the names of the communities and nothing else. What goes
    wrong is counted with each community; where even that cannot be stored, in the process.
    A run never raises.
    """

    def __init__(
        self,
        service: Service,
        shelf: Shelf,
        keys: Callable[[int], Publisher],
        *,
        every_s: int = publisher.EVERY_S,
        most: int | None = None,
    ) -> None:
        self._service = service
        self._shelf = shelf
        self._keys = keys
        self._every_s = every_s
        self._most = most
        self._latest: dict[str, PublishOutcome] = {}
        self._tried: dict[str, int] = {}
        self._uncounted = 0
        self.idle = False
        """Whether the last run found no community at all."""

    def run(self, *, now: int, only: Collection[str] | None = None) -> list[PublishOutcome]:
        """Publish every community that is due, or of these *only*; return how it went."""
        self.idle = False
        try:
            done = self._run(now, only)
        except Exception as error:
            self._uncounted += 1
            log.published("", at=now, failures=self._uncounted, reason=publisher.said(error))
            return []
        self._uncounted = 0
        self._latest |= {outcome.community: outcome for outcome in done}
        return done

    def _run(self, now: int, only: Collection[str] | None) -> list[PublishOutcome]:
        names = self._due(now, only)
        if not names:
            return []
        try:
            terms = publisher.Terms.chosen(self._keys(now), self._service.settings)
        except Exception as error:
            why = publisher.said(error)
            return publisher.each(
                names, lambda name: publisher.failed(self._service, name, why, now=now)
            )
        return publisher.each(names, lambda name: self._publish(terms, name, now))

    def _publish(self, terms: publisher.Terms, name: str, now: int) -> PublishOutcome | None:
        last = self._latest.get(name)
        early = last and not last.failures and now - last.at < self._every_s - JITTER_S
        beyond = last.ends_at if last and early else 0
        return publisher.published(self._service, self._shelf, terms, name, now=now, beyond=beyond)

    def _due(self, now: int, only: Collection[str] | None) -> list[str]:
        """Return what is due: what the operator named first, then what waited longest."""
        known = publisher.communities(self._service, now=now)
        self.idle = not known
        names = [name for name in known if only is None or name in only]
        if any(self._is_due(name, now) for name in names):  # as far as this process knows
            done = publisher.outcomes(self._service, now=now)
            self._latest = {outcome.community: outcome for outcome in done}
        waiting = sorted(name for name in names if self._is_due(name, now))
        waiting.sort(key=self._turn)
        chosen = waiting[: self._most]
        self._tried = {name: self._tried.get(name, 0) for name in known} | dict.fromkeys(
            chosen, now
        )
        return chosen

    def _turn(self, name: str) -> tuple[bool, int]:
        """Return what orders communities; one with nothing to publish waits its turn as well."""
        named = name == beacon.MAINNET or name in self._service.settings.community_names
        last = self._latest.get(name)
        return not named, max(last.at if last else 0, self._tried.get(name, 0))

    def _is_due(self, name: str, now: int) -> bool:
        return due(self._latest.get(name), now=now, every_s=self._every_s)


__all__ = ["LOOK_S", "Press", "due"]
