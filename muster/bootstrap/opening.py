"""Opening a capsule: fetch its files, and believe them or say why not.

The publisher replaces three files one after the other, so whoever reads in between gets
files that do not belong together, and reads again.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any, NamedTuple, Protocol

from capsules.capsule import MAX_CAPSULE_BYTES
from capsules.errors import Reason, Refused
from capsules.keys import VerifyKey
from capsules.manifest import MAX_MANIFEST_BYTES
from capsules.trust import Accepted, Expected
from muster.backoff import Rim
from muster.bootstrap import sources
from muster.bootstrap.fetch import NoAnswer
from muster.bootstrap.sources import Source
from muster.bootstrap.trusted import Trust

MAX_SIGNATURE_BYTES = 256

TORN = frozenset(
    {
        Reason.TOO_LARGE,
        Reason.LENGTH_MISMATCH,
        Reason.HASH_MISMATCH,
        Reason.SIGNATURE_MISMATCH,
    }
)
"""Reasons that a reader meets while the publisher replaces the files."""

TORN_WAITS_S = (0.05, 0.5)
"""How long to wait before each further attempt."""


class Fetch(Protocol):
    """Fetches what is at a URL, at most *most* bytes; raises `Refused`."""

    async def __call__(self, url: str, *, most: int) -> bytes:
        """Return the bytes."""


Work = Callable[..., Awaitable[Any]]
"""Calls a function with arguments, perhaps in another thread."""


class Opened(NamedTuple):
    """The files of a capsule as they came, and what is believed of them."""

    accepted: Accepted
    capsule: bytes
    manifest: bytes | None = None
    signature: bytes | None = None


async def _at_once(function: Callable[..., Any], *arguments: Any, **named: Any) -> Any:
    return function(*arguments, **named)


class Opener:
    """Opens capsules: *fetch* brings the files, and *trust* decides what is believed.

    Checking signatures is done by *work*. With *signature* the file ``.sig`` is fetched
    too, on which nothing depends.
    """

    def __init__(
        self,
        fetch: Fetch,
        trust: Trust,
        rim: Rim,
        *,
        work: Work = _at_once,
        signature: bool = False,
    ) -> None:
        self._fetch = fetch
        self._trust = trust
        self._rim = rim
        self._work = work
        self._signature = signature

    async def open(
        self,
        source: Source,
        community: str | None,
        *,
        seen: Callable[[Expected], None] = lambda expected: None,
    ) -> Opened:
        """Fetch and check a capsule; raises `Refused`.

        *seen* is told what a verified manifest says before the capsule is fetched. Only a
        pinned capsule may be of any *community* (None).
        """
        if source.pinned:
            return await self._open_pinned(source, community)
        for wait_s in TORN_WAITS_S:
            try:
                return await self._open_published(source, community or "", seen)
            except Refused as refusal:
                if refusal.reason not in TORN:
                    raise
            await self._rim.sleep(wait_s)
        return await self._open_published(source, community or "", seen)

    async def _open_published(
        self, source: Source, community: str, seen: Callable[[Expected], None]
    ) -> Opened:
        key = _key(source)
        manifest = await self._fetch(
            sources.beside(source.url, ".manifest"), most=MAX_MANIFEST_BYTES
        )
        expected = await self._work(
            self._trust.expect, key, manifest, community=community, now=self._now()
        )
        seen(expected)
        capsule = await self._fetch(source.url, most=expected.manifest.length)
        signature = await self._fetch_signature(source) if self._signature else None
        accepted = await self._work(
            self._trust.accept,
            key,
            manifest,
            capsule,
            signature,
            community=community,
            now=self._now(),
        )
        return Opened(accepted, capsule, manifest, signature)

    async def _fetch_signature(self, source: Source) -> bytes | None:
        try:
            return await self._fetch(sources.beside(source.url, ".sig"), most=MAX_SIGNATURE_BYTES)
        except NoAnswer:
            return None  # not every host has it

    async def _open_pinned(self, source: Source, community: str | None) -> Opened:
        capsule = await self._fetch(source.url, most=MAX_CAPSULE_BYTES)
        accepted = await self._work(
            self._trust.accept_pinned, _key(source), capsule, community=community, now=self._now()
        )
        return Opened(accepted, capsule)

    def _now(self) -> int:
        return int(self._rim.now())


def _key(source: Source) -> VerifyKey:
    if source.key is None:
        raise ValueError(f"{source} has no key")
    return source.key
