"""Calls from what the server heard: addresses, headers and queries, and what of them to believe."""

from __future__ import annotations

import ipaddress
import re
import time
from collections.abc import Iterable, Mapping
from functools import lru_cache
from typing import Any, NamedTuple
from urllib.parse import parse_qsl

from chalicelib.call import Call
from chalicelib.circle import sockets
from muster.errors import InvalidRequest

Scope = dict[str, Any]
"""An ASGI connection scope, or the part of one that a call is read from."""

_BAD_ESCAPE = re.compile(rb"%(?![0-9A-Fa-f]{2})")
_HOST = re.compile(r"[A-Za-z0-9._-]{1,253}(:[0-9]{1,5})?|\[[0-9A-Fa-f:.]{2,45}\](:[0-9]{1,5})?")
_PORT = re.compile(r":[0-9]{1,5}$")
_MOST_PARAMETERS = 64
_FORWARDED = frozenset(
    (
        *("forwarded", "via", "x-forwarded-for", "x-forwarded-host", "x-forwarded-proto"),
        *("x-forwarded-port", "x-forwarded-server", "x-real-ip", "x-client-ip", "true-client-ip"),
        *(
            "cf-connecting-ip",
            "cf-ray",
            "fastly-client-ip",
            "fly-client-ip",
            "x-envoy-external-address",
        ),
    )
)
"""Headers by which whatever stands in front of a service tells that it passes a call on."""
_MOST_HOPS = 16
_TLS = ("https", "wss")


class Source(NamedTuple):
    """Where a call comes from, and whether it came over TLS."""

    address: str
    port: int | None
    secure: bool


class Reader:
    """Reads calls; believes forwarded headers as far as trusted proxies wrote them."""

    def __init__(self, trusted_proxies: Iterable[str] = ()) -> None:
        self._trusted = tuple(
            ipaddress.ip_network(proxy, strict=False) for proxy in trusted_proxies
        )

    def call(self, scope: Scope, *, request_id: str) -> Call:
        """Read a call from its scope; its body comes later.

        Raises `InvalidRequest` if the query is not one.
        """
        headers: dict[str, str] = {}
        for raw_name, raw_value in scope["headers"]:
            name, value = raw_name.decode("latin-1"), raw_value.decode("latin-1")
            headers[name] = f"{headers[name]}, {value}" if name in headers else value
        source = self._source(scope, headers)
        return Call(
            method="GET" if scope["method"] == "HEAD" else scope["method"],
            path=scope["path"],
            query=_query(scope["query_string"]),
            headers=headers,
            source_ip=source.address,
            source_port=source.port,
            clock=time.time(),
            request_id=request_id,
            websocket_url=_websocket_url(scope, headers, secure=source.secure),
            outside=_outside(scope, headers),
        )

    def trusts(self, address: str) -> bool:
        """Say whether a proxy that we trust is at *address*."""
        if not self._trusted:
            return False
        try:
            parsed = ipaddress.ip_address(address)
        except ValueError:
            return False
        return any(parsed in network for network in self._trusted)

    def _source(self, scope: Scope, headers: Mapping[str, str]) -> Source:
        address, port = scope.get("client") or ("", None)
        address = address.removeprefix("::ffff:") if "." in address else address
        secure = scope["scheme"] in _TLS
        if not self.trusts(address):
            return Source(address, port, secure)
        forwarded = headers.get("x-forwarded-proto", "").rpartition(",")[2].strip().lower()
        if forwarded:
            secure = forwarded in _TLS
        hops = headers.get("x-forwarded-for", "").rsplit(",", _MOST_HOPS)[-_MOST_HOPS:]
        for hop in reversed(hops):
            found = _address(hop)
            if found is None:
                break  # nobody we trust wrote that, nor what stands before it
            address = found
            if not self.trusts(found):
                break
        return Source(address, None, secure)


def is_loopback(name: str) -> bool:
    """Say whether a host name or address means this machine, wherever it is resolved."""
    try:
        return ipaddress.ip_address(name.strip("[]")).is_loopback
    except ValueError:
        return name.lower() == "localhost"


def of_this_machine(call: Call) -> bool:
    """Say whether a call comes from this machine, and not from a page of somebody else's."""
    host = call.headers.get("host", "")
    origin = call.headers.get("origin")
    return not call.outside and (origin is None or origin.partition("://")[2] == host)


@lru_cache(maxsize=1024)
def _names_this_machine(host: str) -> bool:
    return is_loopback(_PORT.sub("", host))


@lru_cache(maxsize=1024)
def _is_neighbour(address: str) -> bool:
    return is_loopback(address.removeprefix("::ffff:"))


def _outside(scope: Scope, headers: Mapping[str, str]) -> bool:
    """Say whether a call may have come from another machine.

    It comes from this one if the other end of the connection does, if nothing says that
    it was passed on, and if it was meant for this machine: a page of somebody else's whose
    name was made to resolve to loopback still says its own name. HTTP/1.0 is what proxies
    speak that were not told otherwise.
    """
    address, _ = scope.get("client") or ("", None)
    return (
        not _is_neighbour(address)
        or not _FORWARDED.isdisjoint(headers)
        or not _names_this_machine(headers.get("host", ""))
        or scope.get("http_version") == "1.0"
    )


def base_url(host: str, port: int | None, *, scheme: str = "http") -> str:
    """Return the URL under which a listening address is reached from the same machine."""
    everywhere = {"0.0.0.0": "127.0.0.1", "": "127.0.0.1", "::": "::1"}  # noqa: S104
    shown = everywhere.get(host, host)
    shown = f"[{shown}]" if ":" in shown else shown
    return f"{scheme}://{shown}:{port}" if port else f"{scheme}://{shown}"


def _query(text: bytes) -> dict[str, str]:
    """Read a query string; of repeated parameters the first counts."""
    if not text:
        return {}
    if _BAD_ESCAPE.search(text):
        raise InvalidRequest("the query has a % that escapes nothing")
    try:
        pairs = parse_qsl(
            text.decode("ascii"),
            keep_blank_values=True,
            errors="strict",
            max_num_fields=_MOST_PARAMETERS,
        )
    except ValueError:
        raise InvalidRequest(
            f"the query is not percent-encoded UTF-8 of at most {_MOST_PARAMETERS} parameters"
        ) from None
    found: dict[str, str] = {}
    for name, value in pairs:
        found.setdefault(name, value)
    return found


def _address(hop: str) -> str | None:
    """Read an address as proxies write it, with or without a port."""
    text = hop.strip()
    if text.startswith("["):
        text = text[1:].partition("]")[0]
    elif text.count(":") == 1:
        text = text.partition(":")[0]
    try:
        parsed = ipaddress.ip_address(text)
    except ValueError:
        return None
    return str(getattr(parsed, "ipv4_mapped", None) or parsed)


def _websocket_url(scope: Scope, headers: Mapping[str, str], *, secure: bool) -> str:
    """Return where the WebSocket is, under the name by which the caller knows us."""
    host = headers.get("host", "")
    if not _HOST.fullmatch(host):
        host = base_url(*(scope.get("server") or ("127.0.0.1", None))).partition("//")[2]
    return f"{'wss' if secure else 'ws'}://{host}{sockets.PATH}"
