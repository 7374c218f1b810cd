"""Watching: `muster watch`, for cron and timers: silent while all is well, else a line a fault.

It asks what anybody may ask. Cron mails what is printed, and a timer's unit fails by the exit
code, so nothing else is needed to be told. With ``--after N`` a fault must last for N runs; the
count is a small file in the home.
"""

from __future__ import annotations

import argparse
import asyncio
import hashlib
import json
import ssl
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, TypeVar

from muster import whole_file
from muster.cli import names, output
from muster.cli.base import base_url
from muster.cli.home import Home
from muster.cli.output import Failure, Misuse

if TYPE_CHECKING:
    import httpx2

    from capsules.keys import VerifyKey
    from muster.felund.records import Health

CLOCK_S = 60
"""By how much the service's clock may differ from ours; calls are refused from 300 s on."""

DAY_S = 24 * 3600
MOST_ANSWER_BYTES = 64 * 1024
MOST_COUNT_BYTES = 4096

_Answer = TypeVar("_Answer")


@dataclass(slots=True)
class Watched:
    """What is looked at, and what was found to be wrong."""

    base: str
    communities: tuple[str, ...]
    root: VerifyKey | None
    days: int
    wrong: list[tuple[str, Failure]] = field(default_factory=list)
    """What each fault is about, and the sentence that says it."""

    certificate_until: int | None = None
    """When the certificate ends that the service showed, where it showed one."""

    def to_json(self, *, failures: int) -> dict[str, Any]:
        """Return it for programs."""
        return {
            "ok": not self.wrong,
            "url": self.base,
            "communities": list(self.communities),
            "certificate_until": self.certificate_until,
            "failures": failures,
            "wrong": [
                {"about": about, "message": fault.message, "hint": fault.hint}
                for about, fault in self.wrong
            ],
        }


def watch(arguments: argparse.Namespace) -> int:
    """Look at a service once; say what is wrong with it, if it was wrong often enough."""
    watched = Watched(
        base_url(arguments.base),
        tuple(dict.fromkeys(names.community(name) for name in arguments.community)),
        names.verify_key(arguments.root) if arguments.root else None,
        arguments.days,
    )
    if watched.root and not watched.communities:
        raise Misuse("--root KEY checks capsules, and none is named", "--community C names one")
    asyncio.run(_look(watched, within_s=arguments.timeout))
    count = _Count(watched) if arguments.after > 1 else None
    before, failures = count.add() if count else (0, int(bool(watched.wrong)))
    told = failures >= arguments.after
    if arguments.json:
        output.dump(watched.to_json(failures=failures))
    elif told:
        for _, fault in watched.wrong:
            output.say(output.line(f"muster: {watched.base}: {fault}"))
    elif before >= arguments.after and not watched.wrong:
        output.show(f"RECOVERED: {output.line(watched.base)} is well again")
    return output.FAILED if told else output.OK


# --- looking --------------------------------------------------------------------------


async def _look(watched: Watched, *, within_s: float) -> None:
    """Look at everything; where the service does not answer, at nothing else."""
    from muster import __version__
    from muster.bootstrap import fetch
    from muster.felund.records import Health

    async def note_certificate(reply: httpx2.Response) -> None:
        stream = reply.extensions.get("network_stream")
        tls = stream.get_extra_info("ssl_object") if stream else None
        shown = tls.getpeercert() if tls else None
        if shown:
            watched.certificate_until = int(ssl.cert_time_to_seconds(shown["notAfter"]))

    try:
        async with fetch.client(None, f"muster/{__version__}") as http:
            http.event_hooks = {"response": [note_certificate]}
            health = await _ask(http, watched.base, "/v1/health", Health, within_s=within_s)
            _judge(watched, health, now=int(time.time()))
            if watched.communities:
                await _look_at_capsules(watched, http, within_s=within_s)
    except Failure as failure:
        watched.wrong.append(("service", failure))


def _judge(watched: Watched, health: Health, *, now: int) -> None:
    """Judge what the service has said, and the certificate that it has shown."""
    ahead_s = health.time - now
    if abs(ahead_s) > CLOCK_S:
        which = "ahead of" if ahead_s > 0 else "behind"
        message = f"its clock is {abs(ahead_s)} s {which} this machine's"
        watched.wrong.append(("clock", Failure(message, "set the one that is wrong")))
    if health.store_full is True:
        hint = "see MUSTER_STORE_BYTES, and the disk"
        watched.wrong.append(("store", Failure("its store is full and takes no messages", hint)))
    until = watched.certificate_until
    if until is not None and until < now + watched.days * DAY_S:
        message = f"its certificate ends on {output.when(until)}"
        watched.wrong.append(("certificate", Failure(message, "what renews it has not")))


async def _look_at_capsules(watched: Watched, http: httpx2.AsyncClient, *, within_s: float) -> None:
    from capsules.keys import VerifyKey
    from muster.felund.records import Info

    root = watched.root
    if root is None:
        told = await _ask(http, watched.base, "/v1/info", Info, within_s=within_s)
        try:
            root = VerifyKey.from_base64(told.capsule_root or "")
        except ValueError:
            failure = Failure("it publishes no capsules", "--root KEY says by which key to believe")
            watched.wrong.append(("capsules", failure))
            return
    for community in watched.communities:
        try:
            await _look_at_capsule(watched, http, community, root, within_s=within_s)
        except Failure as failure:
            watched.wrong.append((f"capsule {community}", failure))


async def _look_at_capsule(
    watched: Watched,
    http: httpx2.AsyncClient,
    community: str,
    root: VerifyKey,
    *,
    within_s: float,
) -> None:
    """Fetch a capsule as whoever sees it for the first time; raises `Failure`."""
    from capsules.errors import Refused
    from muster.backoff import Rim
    from muster.bootstrap import fetch
    from muster.bootstrap.opening import Opener
    from muster.bootstrap.sources import Kind, Source
    from muster.bootstrap.trusted import Trust
    from muster.cli.hints import REASONS

    async def fetch_it(url: str, *, most: int) -> bytes:
        return await fetch.fetch(http, url, most=most)

    trust = Trust(None)
    trust.open([root])
    source = Source(Kind.CAPSULE, f"{watched.base}/capsules/{community}/peers.json", root)
    try:
        async with asyncio.timeout(within_s):
            opened = await Opener(fetch_it, trust, Rim()).open(source, community)
    except Refused as refusal:
        hint = REASONS.get(refusal.reason, "")
        raise Failure(f"the capsule of {community} is no good: {refusal}", hint) from None
    except TimeoutError:
        raise Failure(f"the capsule of {community} took too long") from None
    manifest = opened.accepted.manifest
    if not opened.accepted.fresh and manifest is not None:
        since = output.when(manifest.issued_at)
        raise Failure(
            f"the capsule of {community} was last published on {since}",
            "docs/capsules.md says what to do when publishing fails",
        )


async def _ask(
    http: httpx2.AsyncClient, base: str, path: str, shape: type[_Answer], *, within_s: float
) -> _Answer:
    """Ask a service for what anybody may know; raises `Failure`."""
    import msgspec

    from capsules.errors import Refused
    from muster.answers import NOT_OURS
    from muster.bootstrap import fetch
    from muster.cli import hints
    from muster.felund.sockets import Unreachable

    try:
        async with asyncio.timeout(within_s):
            raw = await fetch.fetch(http, base + path, most=MOST_ANSWER_BYTES)
        return msgspec.json.decode(raw, type=shape)
    except msgspec.MsgspecError:
        raise Failure("it does not answer as Muster does", NOT_OURS) from None
    except TimeoutError as error:
        raise hints.explain(error, base) from None
    except Refused as refusal:
        if refusal.__cause__ is None:
            raise Failure(refusal.message, NOT_OURS) from None
        unreachable = Unreachable(f"cannot reach {base}: {refusal.message}")
        unreachable.__cause__ = refusal.__cause__
        raise hints.explain(unreachable, base) from None


# --- counting -------------------------------------------------------------------------


class _Count:
    """How often in a row a service was found wanting, kept from run to run."""

    def __init__(self, watched: Watched) -> None:
        self._watched = watched
        named = "\n".join((watched.base, *sorted(watched.communities)))
        name = hashlib.sha256(named.encode()).hexdigest()[:16]
        self._path = Home.from_environment().path / "watch" / f"{name}.json"

    def add(self) -> tuple[int, int]:
        """Count this run; return what the count was, and what it is now."""
        before = self._read()
        now = before + 1 if self._watched.wrong else 0
        if now != before:
            self._write(now)
        return before, now

    def _read(self) -> int:
        try:
            kept = json.loads(whole_file.read(self._path, most=MOST_COUNT_BYTES))
            return max(0, int(kept["failures"]))
        except (OSError, ValueError, TypeError, KeyError):
            return 0

    def _write(self, failures: int) -> None:
        text = json.dumps({"url": self._watched.base, "failures": failures})
        try:
            self._path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            whole_file.write(self._path, text + "\n")
        except OSError as error:
            reason = (error.strerror or str(error)).lower()
            raise Failure(
                f"cannot count in {self._path}: {reason}", "MUSTER_HOME=DIR takes another folder"
            ) from None
