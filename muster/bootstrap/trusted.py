"""What a search believes: the trust machine's states, kept as soon as they change.

For one thread at a time; the search has one for it, so that checking signatures does not
delay asking further sources.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import replace
from typing import Any, NamedTuple, TypeVar

from capsules import canonical, fields, trust
from capsules.errors import Reason, Refused
from capsules.keys import VerifyKey
from capsules.ticket import RULES, Rules, Ticket
from capsules.trust import Accepted, Distrusted, Expected, State
from muster.bootstrap.cache import Cache, Damaged, Known

MAX_LISTED = 1000
"""How many tickets a beacon may list."""

_T = TypeVar("_T", Accepted, Expected)


class Listed(NamedTuple):
    """A beacon's answer: the tickets to believe, why not the others, and what of ours."""

    tickets: tuple[Ticket, ...]
    skipped: Counter[str]
    refusal: str


class Trust:
    """The states of all root keys and pinned keys that a search knows."""

    def __init__(self, cache: Cache | None, *, rules: Rules = RULES) -> None:
        self._cache = cache
        self._rules = rules
        self._states: dict[VerifyKey, State] = {}
        self.damage: list[Refused] = []

    @property
    def revoked(self) -> frozenset[str]:
        """The keys that any of the roots has revoked."""
        return frozenset().union(*(state.revoked for state in list(self._states.values())))

    @property
    def rules(self) -> Rules:
        """What is asked of tickets now."""
        return replace(self._rules, revoked=self._rules.revoked | self.revoked)

    def open(self, keys: Iterable[VerifyKey]) -> None:
        """Read what was learned about these keys before; a damaged file goes to `damage`."""
        for key in keys:
            state = None
            try:
                state = self._cache.state(key) if self._cache else None
            except Damaged as damage:
                self.damage.append(Refused(Reason.MALFORMED, str(damage)))
            self._states[key] = state or trust.begin(key)

    def expect(self, key: VerifyKey, manifest: bytes, *, community: str, now: int) -> Expected:
        """Believe a manifest (`capsules.trust.expect`)."""

        def ask(state: State) -> Expected:
            return trust.expect(state, manifest, community=community, now=now)

        return self._learn(key, ask)

    def accept(
        self,
        key: VerifyKey,
        manifest: bytes,
        capsule: bytes,
        signature: bytes | None = None,
        *,
        community: str,
        now: int,
    ) -> Accepted:
        """Believe a published capsule (`capsules.trust.accept`)."""

        def ask(state: State) -> Accepted:
            return trust.accept(
                state, manifest, capsule, signature, community=community, now=now, rules=self.rules
            )

        return self._learn(key, ask)

    def accept_pinned(
        self, key: VerifyKey, capsule: bytes, *, community: str | None, now: int
    ) -> Accepted:
        """Believe a capsule by its own key, unless one of the roots has revoked it."""
        if key.to_base64() in self.revoked:
            raise Refused(Reason.REVOKED_KEY, "the pinned key was revoked")

        def ask(state: State) -> Accepted:
            return trust.accept_pinned(
                state, capsule, key, community=community, now=now, rules=self.rules
            )

        return self._learn(key, ask)

    def known(self, community: str, *, now_ms: int) -> tuple[Known, Counter[str]]:
        """Return who was there when the last search ended, as far as they still are."""
        if self._cache is None:
            return Known(), Counter()
        try:
            kept = self._cache.known(community)
        except Damaged as damage:
            self.damage.append(Refused(Reason.MALFORMED, str(damage)))
            return Known(), Counter()
        good, skipped = self._believed(kept.tickets, now_ms=now_ms)
        return replace(kept, tickets=good), skipped

    def keep_known(self, community: str, known: Known) -> None:
        """Keep who is there and where to look, for the next search."""
        try:
            if self._cache is not None:
                self._cache.keep_known(community, known)
        except OSError as error:
            self.damage.append(_lost(error))

    def listed(self, raw: bytes, *, now_ms: int) -> Listed:
        """Read a beacon's answer, and verify each ticket for itself; raises `Refused`."""
        data = fields.members(canonical.loads(raw), "the answer")
        peers = data.get("peers")
        if not isinstance(peers, list):
            raise fields.malformed("the answer has no peers; is this a beacon?")
        if len(peers) > MAX_LISTED:
            raise Refused(Reason.TOO_MANY_ENTRIES, f"a beacon lists at most {MAX_LISTED} tickets")
        good, skipped = self._believed(peers, now_ms=now_ms)
        return Listed(good, skipped, "" if data.get("ok") is not False else _reason(data))

    def _learn(self, key: VerifyKey, ask: Callable[[State], _T]) -> _T:
        before = self._states[key]
        try:
            found = ask(before)
        except Distrusted as refusal:
            self._keep(key, before, refusal.state)
            raise
        self._keep(key, before, found.state)
        return found

    def _keep(self, key: VerifyKey, before: State, after: State) -> None:
        if after == before:
            return
        self._states[key] = after
        if self._cache is None:
            return
        try:
            self._states[key] = self._cache.keep_state(key, after)
        except OSError as error:
            self.damage.append(_lost(error))

    def _believed(
        self, entries: Iterable[Any], *, now_ms: int
    ) -> tuple[tuple[Ticket, ...], Counter[str]]:
        rules = self.rules
        good: list[Ticket] = []
        skipped: Counter[str] = Counter()
        for entry in entries:
            try:
                ticket = entry if isinstance(entry, Ticket) else Ticket.from_json(entry)
                ticket.verify(now_ms=now_ms, rules=rules)
            except Refused as refusal:
                skipped[refusal.reason] += 1
            else:
                good.append(ticket)
        return tuple(good), skipped


def _reason(data: dict[str, Any]) -> str:
    """Return why a beacon did not take our ticket, in few and harmless words."""
    validation = data.get("validation")
    reason = validation.get("reason") if isinstance(validation, dict) else None
    return reason[:60] if isinstance(reason, str) and reason.isascii() else "REFUSED"


def _lost(error: OSError) -> Refused:
    why = (error.strerror or str(error)).lower()
    return Refused(Reason.UNREACHABLE, f"what was learned cannot be kept: {why}")
