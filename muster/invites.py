"""Invites to a circle of version 2, and the addresses of services: text to paste, scan or open.

An invite is ``muster2.`` and base64url JSON, as a code or as the fragment of a link. Whoever
reads it is a member of the circle until the founder makes the next epoch.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Self
from urllib.parse import parse_qsl, urlsplit, urlunsplit

from capsules.canonical import MAX_INTEGER
from capsules.keys import VerifyKey
from muster import base64url, keys, urls
from muster.calls import LEAST_CODE
from muster.errors import BadValue

PREFIX = "muster2."
MOST_CHARS = 4096
MOST_SERVICES = 8
MOST_PEERS = 16
NAME_BYTES = 64

_CODE = re.compile(rf"[ -~]{{{LEAST_CODE},256}}")
_ID = re.compile(r"[0-9a-f]{32}")
_PEER = re.compile(r"(?:\[[0-9A-Fa-f:.]{2,45}\]|[A-Za-z0-9._-]{1,253}):([0-9]{1,5})")
_AGAIN = "ask for a new one"


class InvalidInvite(BadValue):
    """The text is no invite; the hint says what to do."""


@dataclass(frozen=True, slots=True)
class ServiceAddress:
    """Where a service is, which key it has, and what it asks for: `https://host#id&access=code`."""

    url: str
    id: bytes
    code: str = field(default="", repr=False)

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read a service's address; raises `BadValue`, which repeats no access code."""
        address, _, fragment = text.strip().partition("#")
        parts = urls.read(address, what="a service's address")
        if parts.query:
            raise BadValue("a service's address has no query", "copy it from the service again")
        name, *rest = fragment.split("&")
        given = dict(parse_qsl("&".join(rest), keep_blank_values=True))
        code = given.get("access", "")
        if not _ID.fullmatch(name):
            raise BadValue(
                f"the address {address} does not name the service's id",
                "'muster serve' and 'muster status' print the whole address, with #id",
            )
        if given.keys() - {"access"} or ("access" in given and not _CODE.fullmatch(code)):
            raise BadValue(
                f"what follows the id of {address} is no access code",
                "ask who runs the service for the whole address",
            )
        return cls(urlunsplit(parts).rstrip("/"), bytes.fromhex(name), code)

    @property
    def text(self) -> str:
        """The address as people copy it; with a code it is a secret."""
        from urllib.parse import quote

        access = f"&access={quote(self.code, safe='')}" if self.code else ""
        return f"{self.url}#{self.id.hex()}{access}"


@dataclass(frozen=True, slots=True)
class Invite:
    """Everything that a newcomer needs: the circle, its newest secret, and where to meet."""

    founder: VerifyKey
    epoch: keys.Epoch = field(repr=False)
    services: tuple[ServiceAddress, ...] = ()
    peers: tuple[str, ...] = ()
    at_ms: int = 0
    name: str = ""

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read a code, or a link that carries one; raises `InvalidInvite`, never repeating it."""
        data = _content(text.strip())
        version = data.get("v")
        if version != 2 or isinstance(version, bool):
            raise InvalidInvite("the invite has an unknown version", "update muster")
        founder = VerifyKey(_raw(data, "circle"))
        name = data.get("name", "")
        if not isinstance(name, str) or len(name.encode("utf-8", "replace")) > NAME_BYTES:
            raise InvalidInvite("the invite's name is not a short text", _AGAIN)
        return cls(
            founder,
            keys.Epoch(
                keys.circle_id(founder),
                _number(data, "epoch", keys.MOST_EPOCHS),
                _raw(data, "secret"),
            ),
            tuple(_service(item) for item in _texts(data, "services", MOST_SERVICES)),
            tuple(peer(item) for item in _texts(data, "peers", MOST_PEERS)),
            _number(data, "at_ms", MAX_INTEGER),
            name,
        )

    @property
    def code(self) -> str:
        """The invite as one line."""
        content: dict[str, Any] = {
            "v": 2,
            "circle": base64url.encode(self.founder.raw),
            "epoch": self.epoch.number,
            "secret": base64url.encode(self.epoch.secret),
            "services": [service.text for service in self.services],
            "at_ms": self.at_ms,
        }
        if self.peers:
            content["peers"] = list(self.peers)
        if self.name:
            content["name"] = self.name
        text = json.dumps(content, separators=(",", ":"), ensure_ascii=False)
        return PREFIX + base64url.encode(text.encode())

    def link(self, service: ServiceAddress | None = None) -> str:
        """Return the invite as a link to the app of a service, by default the first one's.

        Raises `ValueError` where there is no service.
        """
        where = service or next(iter(self.services), None)
        if where is None:
            raise ValueError("a circle without a service has no link; give the code")
        return f"{where.url}/app/#{self.code}"


def _content(text: str) -> Mapping[str, Any]:
    code = urlsplit(text).fragment if "#" in text else text
    body = code.removeprefix(PREFIX)
    if body == code:
        raise InvalidInvite(f"an invite starts with '{PREFIX}'", "copy the whole line")
    if len(body) > MOST_CHARS:
        raise InvalidInvite("the invite is longer than any that muster writes", "copy it again")
    try:
        content = json.loads(base64url.decode(body))
    except (ValueError, RecursionError):
        raise InvalidInvite("the invite is cut off or damaged", "copy the whole line") from None
    if not isinstance(content, Mapping):
        raise InvalidInvite("the invite is damaged", _AGAIN)
    return content


def _raw(data: Mapping[str, Any], name: str) -> bytes:
    value = data.get(name)
    try:
        raw = base64url.decode(value) if isinstance(value, str) else b""
    except ValueError:
        raw = b""
    if len(raw) != keys.KEY_BYTES:
        raise InvalidInvite(f"the invite's {name} is not 32 bytes of base64url", _AGAIN)
    return raw


def _number(data: Mapping[str, Any], name: str, most: int) -> int:
    value = data.get(name, 0)
    if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value <= most:
        raise InvalidInvite(f"the invite's {name} is not a whole number", _AGAIN)
    return value


def _texts(data: Mapping[str, Any], name: str, most: int) -> list[str]:
    values = data.get(name, [])
    if (
        not isinstance(values, list)
        or len(values) > most
        or not all(isinstance(value, str) for value in values)
    ):
        raise InvalidInvite(f"the invite's {name} are not a list of at most {most} texts", _AGAIN)
    return values


def _service(text: str) -> ServiceAddress:
    try:
        return ServiceAddress.parse(text)
    except BadValue as error:
        raise InvalidInvite(f"in the invite, {error.message}", _AGAIN) from None


def peer(text: str) -> str:
    """Return where a member is reached, `host:port`; raises `InvalidInvite`."""
    found = _PEER.fullmatch(text)
    if found is None or not 1 <= int(found[1]) <= 65_535:
        raise InvalidInvite("a peer of the invite is not host:port", _AGAIN)
    return text
