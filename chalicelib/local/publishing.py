"""Publishing on one machine: keys and capsules in the data directory, served by ourselves."""

from __future__ import annotations

import contextlib
import logging
import re
import secrets
import shlex
import shutil
import threading
import time
from collections.abc import Collection
from dataclasses import replace
from pathlib import Path
from typing import Any

import msgspec

from capsules.keys import KEY_BYTES, SigningKey
from capsules.manifest import Publisher
from chalicelib import http, store
from chalicelib.call import Call, Reply
from chalicelib.community import beacon, key_files, keyring
from chalicelib.community.keyring import RootKey, Unusable
from chalicelib.community.publisher import FILES, Outcome, Press, outcomes
from chalicelib.community.shelf import CACHE_CONTROL, FolderShelf, media_type
from chalicelib.service import Service
from muster.errors import MethodNotAllowed, NotFound, Unavailable

WAY = "/capsules/"
ROUTE = "GET /capsules/*"

SOON_S = 1.0
"""How soon a community that was not published for long is published after an announce."""

KEPT_S = 3 * 24 * 3600
"""How long the files of a community to which nobody announces any more are kept."""

NAMED = 50
"""How many communities the status page and the metrics name."""

STOP_S = 3.0

RENEW_S = 30 * keyring.DAY_S
"""So long before its end a certificate is renewed, where the root key is at hand."""

_PATH = re.compile(r"/capsules/([A-Za-z0-9][A-Za-z0-9._-]{0,63})/(peers\.json(?:\.\w{1,8})?)", re.A)
_HEADERS = http.CORS | {
    "Access-Control-Expose-Headers": "ETag, Retry-After, X-Request-Id",
    "Cache-Control": CACHE_CONTROL,
    "X-Content-Type-Options": "nosniff",
}
_PREFLIGHT = http.PREFLIGHT | {
    "Access-Control-Allow-Methods": "GET, HEAD, OPTIONS",
    "Access-Control-Allow-Headers": "Authorization, Content-Type, If-None-Match",
}

_log = logging.getLogger("muster")


class Keys:
    """The publishing keys in a folder, made when there are none, and read again when changed."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._path = folder / key_files.PUBLISHING
        self._read: tuple[tuple[int, int], Publisher] | None = None

    @property
    def root_path(self) -> Path:
        """Where the root key is, until somebody takes it to a safe place."""
        return self._folder / key_files.ROOT

    def prepare(self, *, now: int) -> bool:
        """Make sure that there are keys; say whether they were made now.

        Raises `OSError` and `Unusable`.
        """
        if self._path.exists():
            self.load(now)
            return False
        self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        if not self.root_path.exists():
            made = RootKey.first(_fresh(), now=now)
            key_files.keep_new(self.root_path, made.encode())
        root = key_files.read_root(self.root_path)
        key_files.keep_new(self._path, keyring.encode(root.certify(_fresh(), now=now)))
        return True

    def load(self, now: int) -> Publisher:
        """Return the publishing keys; a certificate that ends soon is renewed if that is possible.

        Raises `OSError` and `Unusable`.
        """
        found = self._path.stat()
        stamp = (found.st_mtime_ns, found.st_ino)
        if self._read is None or self._read[0] != stamp:
            self._read = (stamp, key_files.read_publishing(self._path))
        keys = self._read[1]
        if keyring.certificate(keys).expires_at - now < RENEW_S and self.root_path.exists():
            with contextlib.suppress(Unusable, OSError):
                root = key_files.read_root(self.root_path)
                if root.verify_key == keyring.root_key(keys):
                    keys = root.renew(keys, now=now, lasting_s=keyring.CERTIFIED_S)
                    key_files.replace(self._path, keyring.encode(keys))
        return keys


class Publishing:
    """Runs the press, and serves and remembers what it has published."""

    def __init__(
        self, service: Service, *, keys: Keys, folder: Path, every_s: int, now: int
    ) -> None:
        self.every_s = every_s
        self.certified_until = 0
        self._service = service
        self._keys = keys
        self._folder = folder
        self._shelf = FolderShelf(folder)
        self._press = Press(service, self._shelf, self._load)
        self._latest = {found.community: found for found in outcomes(service, now=now)}
        self._next_at = max((found.at + every_s for found in self._latest.values()), default=now)
        self._announced: set[str] = set()
        self._one_at_a_time = threading.Lock()
        self._stopped = False
        self._load(now)

    # --- publishing -----------------------------------------------------------------

    def heard(self, call: Call, reply: Reply) -> None:
        """Take note of an answered call: an announce may bring a community to life."""
        if call.path != "/announce" or reply.status != 200 or reply.code:
            return
        community = _community(call)
        last = self._latest.get(community)
        if last is None or last.at <= call.now - self.every_s:
            self._announced.add(community)

    def due(self, now: int) -> bool:
        """Say whether there is something to publish."""
        return now >= self._next_at or bool(self._announced)

    def run(self) -> None:
        """Publish what is due; takes a while, so let it run beside the calls."""
        with self._one_at_a_time:
            if self._stopped:
                return
            now = int(time.time())
            announced, self._announced = self._announced, set()
            if now < self._next_at:
                self._publish(now, only=announced)
            else:
                self._next_at = now + self.every_s
                self._publish(now, only=None)
                self._tidy(now)

    def stop(self) -> None:
        """Wait a little for a run to end, and let no other begin."""
        self._stopped = True
        if self._one_at_a_time.acquire(timeout=STOP_S):
            self._one_at_a_time.release()

    def _publish(self, now: int, *, only: Collection[str] | None) -> None:
        done = self._press.run(now=now, only=only)
        self._latest = self._latest | {found.community: found for found in done}

    def _load(self, now: int) -> Publisher:
        keys = self._keys.load(now)
        self.certified_until = keyring.certificate(keys).expires_at
        root, known = keyring.root_key(keys).to_base64(), self._service.settings
        if known.capsule_root != root:
            self._service.settings = replace(known, capsule_root=root)
        return keys

    def _tidy(self, now: int) -> None:
        """Remove the folders of communities that have been silent for days."""
        if not self._folder.is_dir():
            return
        for folder in list(self._folder.iterdir()):
            with contextlib.suppress(OSError):
                if folder.is_dir() and _published_at(folder) < now - KEPT_S:
                    shutil.rmtree(folder)

    # --- showing --------------------------------------------------------------------

    def outcomes(self, *, now: int) -> list[Outcome]:
        """Return how publishing went, the worst first, then the largest; of the last day."""
        self._latest = {
            name: found for name, found in self._latest.items() if found.at > now - 24 * 3600
        }
        return sorted(self._latest.values(), key=_weight)

    def reply(self, call: Call) -> Reply:
        """Answer a call for a published file."""
        if call.method == "OPTIONS":
            return Reply(204, headers=dict(_PREFLIGHT), route="OPTIONS")
        if call.method != "GET":
            raise MethodNotAllowed("this path takes GET and HEAD", allow="GET, HEAD, OPTIONS")
        path = _PATH.fullmatch(call.path)
        if not path or path[2] not in FILES:
            raise NotFound("there is no such file; /capsules/COMMUNITY/ has " + ", ".join(FILES))
        try:
            found = self._shelf.read(f"{path[1]}/{path[2]}")
        except store.Unavailable as error:
            raise Unavailable(str(error), retry_after_s=30) from error
        if found is None:
            raise NotFound("nothing is published for this community; somebody must announce first")
        tag = f'"{found.tag[:32]}"'
        headers = _HEADERS | {"ETag": tag, "Content-Type": media_type(path[2])}
        if _matches(call.headers.get("if-none-match", ""), tag):
            return Reply(304, headers=headers, route=ROUTE)
        return Reply(200, body=found.body, headers=headers, route=ROUTE)

    def to_json(self, *, now: int) -> dict[str, Any]:
        """Return what the status page shows; it names few communities: strangers choose names."""
        every = self.outcomes(now=now)
        named, others = every[:NAMED], every[NAMED:]
        return {
            "every_s": self.every_s,
            "root": self._service.settings.capsule_root,
            "root_key_here": self._keys.root_path.exists(),
            "certified_until": self.certified_until,
            "alarm": any(found.alarming for found in self._latest.values()),
            "communities": [
                {
                    "community": found.community,
                    "at": found.at,
                    "sequence": found.sequence,
                    "peers": found.peers,
                    "failures": found.failures,
                    "reason": found.reason,
                    "alarm": found.alarming,
                }
                for found in named
            ],
            "others": {
                "communities": len(others),
                "peers": sum(found.peers for found in others),
                "failures": sum(found.failures for found in others),
            },
        }


def greeting(keys: Keys, base: str, *, made: bool, now: int) -> str:
    """Say with which keys is published, and what the operator should do about them."""
    publisher = keys.load(now)
    lines = [
        f"  capsules  {base}{WAY}COMMUNITY/{FILES[0]}",
        f"  root key  {keyring.root_key(publisher).to_base64()}",
    ]
    left_s = keyring.certificate(publisher).expires_at - now
    if keys.root_path.exists():
        what = "Keys to publish with were made." if made else "The root key is still here."
        lines += ["", f"{what} Move the root key to a safe place off this machine:"]
        lines += [f"  {keys.root_path}"]
    elif left_s < keyring.WARN_S:
        days = max(left_s, 0) // keyring.DAY_S
        lines += ["", f"The online key may publish for {days} more days; with the root key,"]
        folder = shlex.quote(str(keys.root_path.parent))
        lines += [f"'muster capsule rotate --online --root FILE --keys {folder}' makes another."]
    return "".join(line + "\n" for line in lines)


class _Named(msgspec.Struct):
    """What an announce says of its community."""

    community: Any = None


def _community(call: Call) -> str:
    """Return the community of an announce that was taken, as the beacon reads it."""
    named = call.query.get("community")
    if named is None:
        with contextlib.suppress(msgspec.MsgspecError):  # nobody read it, if over the limit
            named = msgspec.json.decode(call.body, type=_Named).community
    return named if isinstance(named, str) else beacon.MAINNET


def _weight(found: Outcome) -> tuple[int, int, str]:
    return -found.failures, -found.peers, found.community


def _published_at(folder: Path) -> float:
    """Return when a community was last published; a folder without a manifest has its own age."""
    try:
        return (folder / FILES[2]).stat().st_mtime
    except FileNotFoundError:
        return folder.stat().st_mtime


def _matches(condition: str, tag: str) -> bool:
    """Compare as RFC 9110 section 13.1.2 says: weakly, in a list, or with any."""
    tags = [given.strip().removeprefix("W/") for given in condition.split(",")]
    return tag in tags or tags == ["*"]


def _fresh() -> SigningKey:
    return SigningKey(secrets.token_bytes(KEY_BYTES))


__all__ = ["SOON_S", "WAY", "Keys", "Publishing", "greeting"]
