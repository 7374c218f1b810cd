"""Invite codes: the circle's secret and where to meet, in one line to paste.

``felund1.`` and base64url JSON ``{"v":1,"secret","peer"}``. The peer is a
service's base URL, a node's ``host:port``, the word ``relay``, or absent; a
base URL is what every known client accepts, so it is what to write.
"""

from __future__ import annotations

import base64
import binascii
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Self

from muster import base64url
from muster.errors import BadValue
from muster.felund.circle import Circle

PREFIX = "felund1."
RELAY = "relay"

_MAX_CHARS = 4096
_CODE = re.compile(r"[A-Za-z0-9_-]+={0,2}")
_URL = re.compile(r"(?:https?:)?//[^\s/]\S*", re.IGNORECASE)
_HOST_PORT = re.compile(r"(?:\[[0-9A-Fa-f:.%]+\]|[^\s:/\[\]]+):([0-9]{1,5})")


class InvalidInvite(BadValue):
    """The text is not an invite code; the hint says what to do."""


@dataclass(frozen=True, slots=True)
class Invite:
    """A circle, and where its members meet: a URL, ``host:port``, ``relay`` or nothing."""

    circle: Circle
    peer: str = ""

    def __post_init__(self) -> None:
        """Refuse a peer that other clients would choke on."""
        if self.peer and not _is_peer(self.peer):
            raise InvalidInvite(
                "the invite's peer is neither a URL nor host:port nor 'relay'", "ask for a new code"
            )

    @classmethod
    def parse(cls, code: str) -> Self:
        """Read an invite code; spaces around it do not matter.

        Raises `InvalidInvite`, without ever repeating the code, which is a secret.
        """
        content = _content(code.strip())
        secret, peer = content.get("secret"), content.get("peer") or ""
        if content.get("v") != 1 or isinstance(content["v"], bool):
            raise InvalidInvite("the invite has an unknown version", "update muster")
        if not isinstance(secret, str) or not isinstance(peer, str):
            raise InvalidInvite("the invite holds no circle secret", "ask for a new code")
        try:
            circle = Circle.from_secret_hex(secret)
        except ValueError as error:
            raise InvalidInvite(f"{error}", "ask for a new code") from None
        return cls(circle, peer.strip())

    def code(self) -> str:
        """Write the invite as a code. Whoever reads it is a member of the circle."""
        content = {"v": 1, "secret": self.circle.secret.hex(), "peer": self.peer}
        raw = json.dumps(content, separators=(",", ":")).encode()
        return PREFIX + base64url.encode(raw)

    @property
    def base_url(self) -> str | None:
        """The service to meet at, if the invite names one."""
        if self.peer.startswith("//"):
            return f"https:{self.peer}"
        return self.peer if _URL.fullmatch(self.peer) else None


def _content(code: str) -> Mapping[str, Any]:
    body = code.removeprefix(PREFIX)
    if body == code:
        raise InvalidInvite(f"an invite code starts with '{PREFIX}'", "copy the whole line")
    if len(code) > _MAX_CHARS or not _CODE.fullmatch(body):
        raise InvalidInvite("the invite code holds characters it cannot have", "copy it again")
    unpadded = body.rstrip("=")
    try:
        raw = base64.urlsafe_b64decode(unpadded + "=" * (-len(unpadded) % 4))
        content = json.loads(raw)
    except (binascii.Error, ValueError, RecursionError):
        raise InvalidInvite(
            "the invite code is cut off or damaged", "copy the whole line"
        ) from None
    if not isinstance(content, Mapping):
        raise InvalidInvite("the invite code is damaged", "copy the whole line")
    return content


def _is_peer(peer: str) -> bool:
    return peer == RELAY or _URL.fullmatch(peer) is not None or _is_address(peer)


def _is_address(peer: str) -> bool:
    found = _HOST_PORT.fullmatch(peer)
    return found is not None and 1 <= int(found[1]) <= 65535
