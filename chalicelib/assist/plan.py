"""Plan: what the operator knows about connecting, from ``MUSTER_ASSIST``.

A JSON object, or the path of a file that holds one. Whatever is not in it is not
advised: no path, server or candidate is made up. docs/assist.md explains it.
"""

from __future__ import annotations

import ipaddress
import re
from typing import Annotated, Literal

import msgspec
from msgspec import Meta

from muster.felund.assist_records import Fingerprint, Label, Name, Transport

DAY_S = 24 * 3600

_HOST_PORT = re.compile(
    r"(?:\[(?P<v6>[0-9A-Fa-f:.]+)\]|(?P<host>[^:\[\]]+))(?::(?P<port>\d{1,5}))?"
)
_ICE_SCHEMES = ("stun:", "stuns:", "turn:", "turns:")

_Port = Annotated[int, Meta(ge=1, le=65535)]


class _Part(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The base of all parts: a name that means nothing is a mistake."""


class PathPlan(_Part, frozen=True, kw_only=True):
    """A path that the operator runs."""

    id: Annotated[str, Meta(min_length=1, max_length=64)]
    address: Name
    transport: Transport
    port: _Port = 443
    server_name: Name | None = None
    priority: Annotated[int, Meta(ge=0, le=255)] = 100
    reality_fingerprint: Fingerprint | None = None
    probe: Literal["auto", "tcp", "tls", "none"] = "auto"


class IceServerPlan(_Part, frozen=True, kw_only=True):
    """A STUN or TURN server: with a `secret` shared with coturn, a fixed login, or none."""

    urls: Annotated[tuple[str, ...], Meta(min_length=1, max_length=8)]
    secret: str = ""
    username: str = ""
    password: str = ""
    realm: str = ""

    def __post_init__(self) -> None:
        if not all(url.startswith(_ICE_SCHEMES) for url in self.urls):
            raise ValueError("urls of ice servers begin with stun:, stuns:, turn: or turns:")
        if bool(self.username) != bool(self.password):
            raise ValueError("an ice server has a username and a password, or neither")
        if self.secret and self.username:
            raise ValueError("an ice server has a secret or a username, not both")


class LitePlan(_Part, frozen=True, kw_only=True):
    """Where the operator's ICE-lite agent listens."""

    ip: str
    port: _Port

    def __post_init__(self) -> None:
        ipaddress.ip_address(self.ip)


class Plan(_Part, frozen=True, kw_only=True):
    """Everything an operator may say about connecting; lifetimes are clamped where used."""

    paths: Annotated[tuple[PathPlan, ...], Meta(max_length=16)] = ()
    ice_servers: Annotated[tuple[IceServerPlan, ...], Meta(max_length=8)] = ()
    ice_lite: LitePlan | None = None
    ice_ttl_s: int = 300
    ice_keepalive_s: int = 60
    turn_ttl_s: int = 600
    noise_pattern: Literal["XK", "IK"] = "XK"
    noise_prologue: Label = "commucat"
    probe_hosts: Annotated[tuple[str, ...], Meta(max_length=32)] = ()
    keys_s: Annotated[int, Meta(ge=3600)] = 30 * DAY_S
    keys_overlap_s: Annotated[int, Meta(ge=3600)] = 7 * DAY_S

    def __post_init__(self) -> None:
        names = [path.id for path in self.paths]
        if len(names) != len(set(names)):
            raise ValueError("two paths have the same id")
        for text in self.probe_hosts:
            host_port(text)

    def probed(self) -> frozenset[tuple[str, int]]:
        """Return every host and port that may be connected to, in one spelling."""
        named = {(spelled(path.address), path.port) for path in self.paths if path.probe != "none"}
        return frozenset(named | {host_port(text) for text in self.probe_hosts})


NOTHING = Plan()
"""The plan of an operator who said nothing."""


def read(text: str) -> Plan:
    """Read a plan from JSON, or from the file of that name; from nothing, the empty one.

    Raises `ValueError` that says what is wrong, without the secrets in it.
    """
    if not text:
        return NOTHING
    try:
        return msgspec.json.decode(_raw(text), type=Plan)
    except OSError as error:
        raise ValueError(f"MUSTER_ASSIST is no JSON object and no file: {error.strerror}") from None
    except msgspec.MsgspecError as error:
        raise ValueError(f"MUSTER_ASSIST: {error}") from None


def _raw(text: str) -> bytes:
    if text.lstrip().startswith("{"):
        return text.encode()
    with open(text, "rb") as file:
        return file.read()


def spelled(host: str) -> str:
    """Return the one spelling of a host's name by which it is compared."""
    return host.lower().removesuffix(".")


def host_port(text: str) -> tuple[str, int]:
    """Read ``host`` or ``host:port``; alone, a host means port 443."""
    found = _HOST_PORT.fullmatch(text)
    port = int(found["port"] or 443) if found else 0
    if found is None or not 0 < port < 65536:
        raise ValueError(f"'{text}' is not a host, host:port or [address]:port")
    return spelled(found["v6"] or found["host"]), port
