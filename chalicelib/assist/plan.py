"""Plan: what the operator knows about connecting, from ``MUSTER_ASSIST``.

A JSON object, or the path of a file that holds one. Whatever is not in it is not
advised: no path, server or candidate is made up. docs/assist.md explains it.
ICE servers are such as browsers take (RFC 7064, RFC 7065, RTCPeerConnection).
"""

from __future__ import annotations

import hashlib
import hmac
import ipaddress
import re
from base64 import b64encode
from typing import Annotated, Literal, NamedTuple

import msgspec
from msgspec import Meta

from chalicelib import variables
from chalicelib.variables import MOST_S, WrongValue
from muster.felund.assist_records import Fingerprint, Label, Name, Transport

DAY_S = 24 * 3600
MOST_BYTES = 1024 * 1024

LEAST_TURN_TTL_S = 60

MOST_USERNAME_BYTES = 508
"""RFC 8489, 14.3; Chromium throws where it is longer."""

_HOST_PORT = re.compile(
    r"(?:\[(?P<v6>[0-9A-Fa-f:.]+)\]|(?P<host>[^:\[\]]+))(?::(?P<port>[0-9]{1,5}))?"
)
_STUN = re.compile(rf"stuns?:{variables.HOST_PORT}")
_TURN = re.compile(rf"turns?:{variables.HOST_PORT}(?:\?transport=(?:udp|tcp))?")

_Port = Annotated[int, Meta(ge=1, le=65535)]
_Seconds = Annotated[int, Meta(le=MOST_S)]


class Login(NamedTuple):
    """A name and a word for a TURN server, and until when they are good; 0 for ever."""

    username: str
    credential: str
    until: int


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
    """STUN or TURN: a `secret` shared with coturn or a fixed login; STUN alone needs neither."""

    urls: Annotated[tuple[str, ...], Meta(min_length=1, max_length=8)]
    secret: str = ""
    username: str = ""
    password: str = ""
    realm: str = ""

    def __post_init__(self) -> None:
        turn = [_is_turn(url) for url in self.urls]
        if bool(self.username) != bool(self.password):
            raise ValueError("an ice server has a username and a password, or neither")
        if self.secret and self.username:
            raise ValueError("an ice server has a secret or a username, not both")
        if any(turn) and not (self.secret or self.username):
            raise ValueError("a turn: server has a secret, or a username and a password")
        if len(self.username.encode()) > MOST_USERNAME_BYTES:
            raise ValueError(f"a username has at most {MOST_USERNAME_BYTES} bytes")

    def login(self, name: str, *, ttl_s: int, now: int) -> Login:
        """Return what a client shows the server, and for how long that is good.

        With a shared secret it is made for *name*, as coturn's use-auth-secret has it.
        """
        if not self.secret:
            return Login(self.username, self.password, 0)
        until = now + max(LEAST_TURN_TTL_S, ttl_s)
        username = f"{until}:{name}"
        made = hmac.digest(self.secret.encode(), username.encode(), hashlib.sha1)
        return Login(username, b64encode(made).decode(), until)


class LitePlan(_Part, frozen=True, kw_only=True):
    """Where the operator's ICE-lite agent listens."""

    ip: str
    port: _Port

    def __post_init__(self) -> None:
        if "%" in self.ip:
            raise ValueError("an address of ice_lite has no zone")
        ipaddress.ip_address(self.ip)


class Plan(_Part, frozen=True, kw_only=True):
    """Everything an operator may say about connecting; lifetimes are clamped where used."""

    paths: Annotated[tuple[PathPlan, ...], Meta(max_length=16)] = ()
    ice_servers: Annotated[tuple[IceServerPlan, ...], Meta(max_length=8)] = ()
    ice_lite: LitePlan | None = None
    ice_ttl_s: _Seconds = 300
    ice_keepalive_s: _Seconds = 60
    turn_ttl_s: _Seconds = 600
    noise_pattern: Literal["XK", "IK"] = "XK"
    noise_prologue: Label = "commucat"
    probe_hosts: Annotated[tuple[str, ...], Meta(max_length=32)] = ()
    keys_s: Annotated[int, Meta(ge=3600, le=MOST_S)] = 30 * DAY_S
    keys_overlap_s: Annotated[int, Meta(ge=3600, le=MOST_S)] = 7 * DAY_S

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

    Raises `WrongValue` that says what is wrong, without the secrets in it.
    """
    if not text:
        return NOTHING
    try:
        return msgspec.json.decode(_raw(text), type=Plan)
    except OSError as error:
        raise WrongValue(f"MUSTER_ASSIST is no JSON object and no file: {error.strerror}") from None
    except UnicodeError:
        raise WrongValue("MUSTER_ASSIST: it is not UTF-8 text") from None
    except msgspec.MsgspecError as error:
        raise WrongValue(f"MUSTER_ASSIST: {error}") from None


def _raw(text: str) -> bytes:
    if text.lstrip().startswith("{"):
        return text.encode()
    with open(text, "rb") as file:
        raw = file.read(MOST_BYTES + 1)
    if len(raw) > MOST_BYTES:
        raise WrongValue(f"MUSTER_ASSIST: a plan has at most {MOST_BYTES} bytes")
    return raw


def _is_turn(url: str) -> bool:
    """Say whether a URL is of TURN, not of STUN; one that browsers do not take is refused."""
    found = _TURN.fullmatch(url) or _STUN.fullmatch(url)
    if found is None or not variables.reachable(found):
        raise ValueError(
            "urls of ice servers are stun:HOST, stuns:HOST, turn:HOST or turns:HOST, "
            "with :PORT if need be, and only after turn ?transport=udp or tcp"
        )
    return url.startswith("turn")


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
