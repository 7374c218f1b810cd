"""Publishing on one machine: when capsules are published, and how that goes."""

from __future__ import annotations

import contextlib
import shutil
import threading
import time
from collections.abc import Collection
from dataclasses import replace
from pathlib import Path
from typing import Any

import msgspec

from capsules.manifest import Publisher
from chalicelib.call import Call, Reply
from chalicelib.capsule_files import CapsuleFiles
from chalicelib.community import beacon, keyring
from chalicelib.community.press import LOOK_S, Press, due
from chalicelib.community.publisher import FILES, PublishOutcome, outcomes
from chalicelib.community.shelf import FolderShelf
from chalicelib.local.publishing_keys import KeyFolder
from chalicelib.service import Service

KEPT_S = 3 * 24 * 3600
"""How long the files of a community to which nobody announces any more are kept."""

NAMED = 50
"""How many communities the status page and the metrics name."""

STOP_S = 3.0


class FolderPublishing:
    """Runs the press, and serves and remembers what it has published."""

    def __init__(
        self, service: Service, *, keys: KeyFolder, folder: Path, every_s: int, now: int
    ) -> None:
        self.every_s = every_s
        self.certified_until = 0
        self._service = service
        self._keys = keys
        self._folder = folder
        shelf = FolderShelf(folder)
        self.files = CapsuleFiles(shelf.read)
        self._press = Press(service, shelf, self._load, every_s=every_s)
        self._latest = {done.community: done for done in outcomes(service, now=now)}
        self._look_s = min(LOOK_S, every_s)
        done_at = (done.at + self._look_s for done in self._latest.values())
        self._next_at = max(done_at, default=now)
        self._announced: set[str] = set()
        self._one_at_a_time = threading.Lock()
        self._stopped = False
        self._load(now)

    # --- publishing -----------------------------------------------------------------

    def heard(self, call: Call, reply: Reply) -> None:
        """Take note of an answered call: an announce may bring something to publish."""
        if call.path != "/announce" or reply.status != 200 or reply.code:
            return
        community = _community(call)
        last = self._latest.get(community)
        if last and last.at > call.now - self._look_s:
            return
        if due(last, now=call.now, every_s=self.every_s):
            self._announced.add(community)

    def due(self, now: int) -> bool:
        """Say whether there may be something to publish."""
        return now >= self._next_at or bool(self._announced)

    def run(self) -> None:
        """Publish what is due; takes a while, so run it in a thread."""
        with self._one_at_a_time:
            if self._stopped:
                return
            now = int(time.time())
            announced, self._announced = self._announced, set()
            if now < self._next_at:
                self._publish(now, only=announced)
            else:
                self._next_at = now + self._look_s
                self._publish(now, only=None)
                self._tidy(now)

    def stop(self) -> None:
        """Wait a little for a run to end, and let no other begin."""
        self._stopped = True
        if self._one_at_a_time.acquire(timeout=STOP_S):
            self._one_at_a_time.release()

    def _publish(self, now: int, *, only: Collection[str] | None) -> None:
        done = self._press.run(now=now, only=only)
        self._latest = self._latest | {outcome.community: outcome for outcome in done}

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

    def outcomes(self, *, now: int) -> list[PublishOutcome]:
        """Return how publishing went, the worst first, then the largest; of the last day."""
        self._latest = {
            name: done for name, done in self._latest.items() if done.at > now - 24 * 3600
        }
        return sorted(self._latest.values(), key=_weight)

    def to_json(self, *, now: int) -> dict[str, Any]:
        """Return what the status page shows; it names few communities: strangers choose names."""
        every = self.outcomes(now=now)
        named, others = every[:NAMED], every[NAMED:]
        return {
            "every_s": self.every_s,
            "root": self._service.settings.capsule_root,
            "root_key_here": self._keys.root_path.exists(),
            "certified_until": self.certified_until,
            "alarm": any(done.alarming for done in self._latest.values()),
            "communities": [
                {
                    "community": done.community,
                    "at": done.at,
                    "sequence": done.sequence,
                    "peers": done.peers,
                    "failures": done.failures,
                    "reason": done.reason,
                    "alarm": done.alarming,
                }
                for done in named
            ],
            "others": {
                "communities": len(others),
                "peers": sum(done.peers for done in others),
                "failures": sum(done.failures for done in others),
            },
        }


class _Named(msgspec.Struct):
    """What an announce says of its community."""

    community: Any = None


def _community(call: Call) -> str:
    """Return the community of an announce that was taken, as the beacon reads it."""
    if (named := call.query.get("community")) is not None:
        return named
    with contextlib.suppress(msgspec.MsgspecError):  # nobody read it, if over the limit
        named = msgspec.json.decode(call.body, type=_Named).community
    return beacon.named_in_body(named)


def _weight(done: PublishOutcome) -> tuple[int, int, str]:
    return -done.failures, -done.peers, done.community


def _published_at(folder: Path) -> float:
    """Return when a community was last published; a folder without a manifest has its own age."""
    try:
        return (folder / FILES[2]).stat().st_mtime
    except FileNotFoundError:
        return folder.stat().st_mtime
