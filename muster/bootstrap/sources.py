"""Sources: where peers of a community can be learned, and how asking there went."""

from __future__ import annotations

import base64
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any
from urllib.parse import unquote, urlsplit

from capsules.fields import COMMUNITY
from capsules.keys import VerifyKey
from muster import base64url, urls
from muster.errors import BadValue

MAINNET = "mainnet"
"""The community of whoever names none, as for existing clients."""

_FOLDER = re.compile(r"/capsules/([^/]+)/[^/]+\Z")
_PINNED, _ROOT = "capsule=", "root="


class Kind(StrEnum):
    """What kind of place a source is."""

    CACHE = "cache"
    BEACON = "beacon"
    CAPSULE = "capsule"


@dataclass(frozen=True, slots=True)
class Source:
    """A place to ask; a capsule has the key that it is believed by.

    ``key`` is a root key, or with ``pinned`` the capsule's own. ``learned`` says that a
    verified manifest named this place, not the caller.
    """

    kind: Kind
    url: str
    key: VerifyKey | None = None
    pinned: bool = False
    learned: bool = False

    def __str__(self) -> str:
        return f"{self.kind} {self.url}"


@dataclass(frozen=True, slots=True)
class Attempt:
    """How it went with one source: its peers, or the named reason why there are none.

    Times are milliseconds since the search began. ``announced`` is None where no ticket was
    left, True where it was taken, and False where it was not, for ``not_announced``.
    """

    source: Source
    started_ms: float
    took_ms: float
    reason: str = ""
    message: str = ""
    peers: int = 0
    skipped: Mapping[str, int] = field(default_factory=dict)
    announced: bool | None = None
    not_announced: str = ""
    fresh: bool = True
    sequence: int | None = None
    retry_after_s: int | None = None

    @property
    def ok(self) -> bool:
        """Whether the source answered, and could be believed."""
        return not self.reason

    def to_json(self) -> dict[str, Any]:
        """Return it for programs."""
        members: dict[str, Any] = {
            "kind": str(self.source.kind),
            "url": self.source.url,
            "learned": self.source.learned,
            "ok": self.ok,
            "started_ms": self.started_ms,
            "took_ms": self.took_ms,
            "peers": self.peers,
            "skipped": dict(self.skipped),
        }
        if self.reason:
            members |= {"reason": self.reason, "message": self.message}
        if self.announced is not None:
            members |= {"announced": self.announced, "not_announced": self.not_announced}
        if self.sequence is not None:
            members |= {"fresh": self.fresh, "sequence": self.sequence}
        if self.retry_after_s is not None:
            members["retry_after_s"] = self.retry_after_s
        return members


def capsule(text: str) -> Source:
    """Read where a capsule is and what it is believed by.

    ``URL#KEY`` names the root key; ``URL#capsule=KEY`` pins the capsule's own key, for
    capsules of existing tools, which have no manifest. Keys are base64 in either alphabet.
    Raises `BadValue`, a `ValueError`.
    """
    url, _, fragment = text.strip().partition("#")
    url = urls.read(url).geturl()
    if not fragment:
        raise BadValue(f"'{url}' needs the key to believe it by", f"write {url}#KEY")
    pinned = fragment.startswith(_PINNED)
    key = fragment.removeprefix(_PINNED if pinned else _ROOT)
    return Source(Kind.CAPSULE, url, verify_key(unquote(key)), pinned=pinned)


def beacon(text: str) -> Source:
    """Read the base URL of a beacon; raises `BadValue`."""
    parts = urls.read(text)
    if parts.query or parts.fragment:
        raise BadValue(f"'{parts.geturl()}' is not a beacon: its URL has no '?' or '#' in it")
    return Source(Kind.BEACON, parts.geturl().rstrip("/"))


def verify_key(text: str) -> VerifyKey:
    """Read a verify key from base64 in either alphabet; raises `BadValue`."""
    standard = text.strip().rstrip("=").replace("-", "+").replace("_", "/")
    try:
        raw = base64.b64decode(standard + "=" * (-len(standard) % 4), validate=True)
        return VerifyKey(raw)
    except ValueError:
        raise BadValue(f"'{text}' is not a key", "it has 43 letters, digits, '-' and '_'") from None


def fragment(key: VerifyKey) -> str:
    """Return a key as it stands in ``URL#KEY``."""
    return base64url.encode(key.raw)


def folder(source: Source) -> str | None:
    """Return the community whose folder a capsule lies in: ``…/capsules/NAME/peers.json``."""
    found = _FOLDER.search(urlsplit(source.url).path)
    return found[1] if found and COMMUNITY.fullmatch(found[1]) else None


def beside(url: str, ending: str) -> str:
    """Return the URL of the file whose name is longer by *ending*."""
    parts = urlsplit(url)
    return parts._replace(path=parts.path + ending).geturl()


def on_loopback(url: str) -> bool:
    """Say whether a URL leads to this machine, without encryption."""
    parts = urlsplit(url)
    return parts.scheme == "http" and urls.this_machine(parts.hostname or "")


def may_follow(url: str, *, local: bool) -> bool:
    """Say whether a place that a manifest names may be asked: https, or all on this machine."""
    try:
        return urls.read(url).scheme == "https" or (local and on_loopback(url))
    except BadValue:
        return False
