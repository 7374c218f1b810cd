"""The cache on disk: what was learned about signers, who was there, and where to look.

One folder, readable by nobody else. Files are replaced whole; one that is damaged is reported
and skipped. Programs that share a folder lose nothing that one of them learned about a
signer, since what is there is read again before it is replaced.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, TypeVar

from capsules import canonical, fields
from capsules.errors import Refused
from capsules.keys import KEY_BYTES, SigningKey, VerifyKey
from capsules.ticket import Ticket
from capsules.trust import State
from muster import whole_file
from muster.bootstrap.sources import Kind, Source

_T = TypeVar("_T")

MAX_FILE_BYTES = 4 * 1024 * 1024
MAX_TICKETS = 200
MAX_PLACES = 32


class Damaged(Exception):
    """A file of the cache that cannot be read, and which."""


@dataclass(frozen=True, slots=True)
class Known:
    """What was known of a community when a search ended."""

    tickets: tuple[Ticket, ...] = ()
    places: tuple[Source, ...] = ()
    """Where manifests said to look; each with the root key that such a manifest led to."""


class Cache:
    """The folder, read and written; it is made when something is kept first."""

    def __init__(self, folder: str | os.PathLike[str]) -> None:
        self.folder = Path(folder)

    def state(self, key: VerifyKey) -> State | None:
        """Return what was learned about the signers under a key that a caller named."""
        data = self._read(self._state_path(key))
        return None if data is None else _checked(State.from_json, data, self._state_path(key))

    def keep_state(self, key: VerifyKey, state: State) -> State:
        """Keep what was learned, and return it with what another program has learned since."""
        with suppress(Damaged):
            other = self.state(key)
            state = state if other is None else merged(other, state)
        self._write(self._state_path(key), json.dumps(state.to_json()))
        return state

    def known(self, community: str) -> Known:
        """Return who and what was known of a community; nothing in it is verified."""
        path = self._known_path(community)
        data = self._read(path)
        return Known() if data is None else _checked(_known, data, path)

    def keep_known(self, community: str, known: Known) -> None:
        """Keep who is there and where to look."""
        content = {
            "version": 1,
            "tickets": [ticket.to_json() for ticket in known.tickets[:MAX_TICKETS]],
            "places": [
                {
                    "kind": str(place.kind),
                    "url": place.url,
                    "verify_key": place.key.to_base64() if place.key else "",
                }
                for place in known.places[:MAX_PLACES]
            ],
        }
        self._write(self._known_path(community), json.dumps(content))

    def signing_key(self, entropy: Callable[[int], bytes]) -> SigningKey:
        """Return the key with which this node signs its tickets; made at the first use."""
        path = self.folder / "node.json"
        data = self._read(path)
        if data is None:
            fresh = SigningKey(entropy(KEY_BYTES))
            with suppress(FileExistsError):  # another program was first, and its key counts
                self._write(path, json.dumps({"signing_key": fresh.to_base64()}), new=True)
            data = self._read(path)
        return _checked(_signing_key, data, path)

    def _state_path(self, key: VerifyKey) -> Path:
        return self.folder / f"trust-{key.key_id}.json"

    def _known_path(self, community: str) -> Path:
        name = hashlib.sha256(community.encode()).hexdigest()[:16]
        return self.folder / f"known-{name}.json"

    def _read(self, path: Path) -> Any | None:
        try:
            raw = whole_file.read(path, most=MAX_FILE_BYTES)
        except FileNotFoundError:
            return None
        except OSError as error:
            raise Damaged(f"{path.name} cannot be read: {_why(error)}") from None
        if len(raw) > MAX_FILE_BYTES:
            raise Damaged(f"{path.name} has more than {MAX_FILE_BYTES} bytes")
        return _checked(canonical.loads, raw, path)

    def _write(self, path: Path, text: str, *, new: bool = False) -> None:
        self.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        whole_file.write(path, text + "\n", new=new)


def merged(one: State, two: State) -> State:
    """Return everything that either state has learned."""
    root = max(one.root, two.root, key=lambda root: root.version)
    lists = [state for state in (one, two) if state.root.version == root.version]
    newest = max(lists, key=lambda state: state.revocations)
    # What earlier roots revoked stays so until the newest one has signed a list.
    revoked = newest.revoked if newest.revocations else one.revoked | two.revoked
    state = replace(newest, root=root, revoked=revoked, memories=())
    for memory in (*one.memories, *two.memories):
        if memory.verify_key in state.revoked:
            continue
        known = state.recall(memory.community, memory.verify_key, pinned=memory.pinned) or memory
        newer = max(known, memory, key=lambda memory: memory.sequence)
        state = state.remember(replace(newer, serial=max(known.serial, memory.serial)))
    return state


def _known(data: Any) -> Known:
    whole = fields.members(data, "the file")
    fields.constant(whole, "version", 1)
    tickets = fields.items(whole, "tickets", most=MAX_TICKETS)
    places = fields.items(whole, "places", most=MAX_PLACES)
    return Known(
        tickets=tuple(Ticket.from_json(ticket) for ticket in tickets),
        places=tuple(_place(fields.members(place, "a place")) for place in places),
    )


def _place(data: dict[str, Any]) -> Source:
    kind = fields.text(data, "kind", most=16)
    if kind not in (Kind.BEACON, Kind.CAPSULE):
        raise fields.malformed("kind must be beacon or capsule")
    url = fields.text(data, "url", most=512)
    return Source(Kind(kind), url, fields.verify_key(data), learned=True)


def _signing_key(data: Any) -> SigningKey:
    members = fields.members(data, "the file")
    try:
        return SigningKey.from_base64(fields.text(members, "signing_key", most=256))
    except ValueError:
        raise fields.malformed("it holds no signing key") from None


def _checked(read: Callable[[Any], _T], data: Any, path: Path) -> _T:
    try:
        return read(data)
    except Refused as refusal:
        raise Damaged(f"{path.name} is damaged: {refusal.message}") from None


def _why(error: OSError) -> str:
    return (error.strerror or str(error)).lower()
