"""The network around a client: by which proxy a URL is reached, and whom to believe there.

HTTP and WebSocket ask here, so that they decide alike. The proxy is that of ``http_proxy``
(http, ws) or ``https_proxy`` (https, wss), else ``all_proxy``, unless ``no_proxy`` names the
host; this machine is never asked for by a proxy. ``SSL_CERT_FILE`` and ``SSL_CERT_DIR`` name
the authorities to believe in place of the system's.
"""

from __future__ import annotations

import errno
import functools
import ipaddress
import os
import re
import socket
import ssl
from importlib.util import find_spec
from typing import Any, NamedTuple
from urllib.request import getproxies

import httpx2

from muster import urls
from muster.errors import BadValue

_LIKE = {"ws": "http", "wss": "https"}
_PORTS = {"http": 80, "https": 443}
_SOCKS = ("socks5", "socks5h")
_WITH_PORT = re.compile(r"(\[.*\]|[^:]*):([0-9]{1,5})")


SILENT_S, ASK_S, ASK_TIMES = 10, 5, 3
"""After how much silence a connection is asked whether it lives, how often, how many times."""


def notice_end(opened: socket.socket) -> None:
    """Let a connection end that leads nowhere any more, instead of waiting for ever.

    Whoever only listens is told by nobody that a router forgot, or a telephone moved.
    """
    opened.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    for name, value in (
        ("TCP_KEEPIDLE", SILENT_S),
        ("TCP_KEEPINTVL", ASK_S),
        ("TCP_KEEPCNT", ASK_TIMES),
        ("TCP_USER_TIMEOUT", (SILENT_S + ASK_S * ASK_TIMES) * 1000),  # for what was sent
    ):
        if option := getattr(socket, name, None):
            opened.setsockopt(socket.IPPROTO_TCP, option, value)


def has_moved(opened: socket.socket) -> bool:
    """Say whether this machine has no longer the address that a connection of it comes from."""
    try:
        host, _, *more = opened.getsockname()
        with socket.socket(opened.family, socket.SOCK_DGRAM) as probe:
            probe.bind((host, 0, *more))
    except OSError as error:
        return error.errno == errno.EADDRNOTAVAIL
    return False


class Route(NamedTuple):
    """How a URL is reached: by a proxy, if any, and with which TLS, if any.

    *variable* says what named the proxy, for people; *proxy_tls* is for the way to it.
    """

    proxy: str | None = None
    variable: str = ""
    tls: ssl.SSLContext | None = None
    proxy_tls: ssl.SSLContext | None = None


def route(url: str) -> Route:
    """Return how a URL is reached; raises `BadValue`, which names the variable that is wrong."""
    named, _, rest = url.partition("://")
    place = rest.partition("/")[0].partition("?")[0]
    parts = urls.read(f"{named}://{place}", "http", "https", "ws", "wss")
    scheme = _LIKE.get(parts.scheme, parts.scheme)
    proxy, variable = _proxy(scheme, parts.hostname or "", parts.port)
    return Route(
        proxy or None,
        variable,
        tls=authorities() if scheme == "https" else None,
        proxy_tls=authorities() if proxy.startswith("https:") else None,
    )


def options(url: str) -> dict[str, Any]:
    """Return what httpx2 is to be told for a URL; raises `BadValue`."""
    found = route(url)
    proxy = httpx2.Proxy(found.proxy, ssl_context=found.proxy_tls) if found.proxy else None
    # Without https on the way there is nothing to verify, and no certificate need be read.
    return {"verify": found.tls or False, "proxy": proxy, "trust_env": False}


def websocket_options(url: str) -> dict[str, Any]:
    """Return what websockets is to be told for a URL; raises `BadValue`."""
    found = route(url)
    options: dict[str, Any] = {"proxy": found.proxy, "ssl": found.tls}
    return options | {"proxy_ssl": found.proxy_tls} if found.proxy_tls else options


class Transport(httpx2.AsyncBaseTransport):
    """Sends each request by its own route; what is wrong with one concerns no other."""

    def __init__(self) -> None:
        self._ways: dict[tuple[str | None, bool], httpx2.AsyncHTTPTransport] = {}

    async def handle_async_request(self, request: httpx2.Request) -> httpx2.Response:
        """Send a request; raises `BadValue` where the environment names no usable way."""
        url = str(request.url)
        found = route(url)
        way = self._ways.get(key := (found.proxy, found.tls is not None))
        if way is None:
            way = self._ways[key] = httpx2.AsyncHTTPTransport(**options(url))
        return await way.handle_async_request(request)

    async def aclose(self) -> None:
        """Close all connections."""
        for way in self._ways.values():
            await way.aclose()


def authorities() -> ssl.SSLContext:
    """Return whom to believe; raises `BadValue` if what the environment names is no such list."""
    return _authorities(os.environ.get("SSL_CERT_FILE"), os.environ.get("SSL_CERT_DIR"))


@functools.cache
def _authorities(file: str | None, folder: str | None) -> ssl.SSLContext:
    """Read the authorities once; it takes longer than many a call."""
    if not file and not folder:
        return httpx2.create_ssl_context()
    if folder and not os.path.isdir(folder):
        raise BadValue(f"SSL_CERT_DIR names {folder}, which is no folder", "mend it, or unset it")
    try:
        return ssl.create_default_context(cafile=file or None, capath=folder or None)
    except ssl.SSLError:
        why = "which holds no certificate in PEM"
    except OSError as error:
        why = f"which cannot be read: {(error.strerror or str(error)).lower()}"
    raise BadValue(f"SSL_CERT_FILE names {file}, {why}", "mend it, or unset it")


def _proxy(scheme: str, host: str, port: int | None) -> tuple[str, str]:
    """Return the proxy for a host, and what names it; both empty if there is none."""
    if urls.this_machine(host):
        return "", ""
    named = getproxies()
    kind = next((kind for kind in (scheme, "all") if named.get(kind)), "")
    if not kind or _spared(host, port or _PORTS[scheme], named.get("no", "")):
        return "", ""
    names = (f"{kind}_proxy", f"{kind.upper()}_PROXY")
    variable = next((name for name in names if os.environ.get(name)), "the system's setting")
    return _usable(named[kind], variable), variable


def _usable(proxy: str, variable: str) -> str:
    """Return a proxy's URL if both libraries can use it; its password is never repeated."""
    text = proxy if "://" in proxy else f"http://{proxy}"
    try:
        parts = urls.read(text, "http", "https", *_SOCKS, user=True)
    except BadValue:
        raise _no_proxy(variable) from None
    if parts.path not in ("", "/") or parts.query or parts.fragment:
        raise _no_proxy(variable)
    if parts.scheme in _SOCKS and not (find_spec("socksio") and find_spec("python_socks")):
        raise BadValue(
            f"{variable} names a SOCKS proxy, which takes libraries that are not installed here",
            "'pip install socksio python-socks' brings them; no_proxy=HOST goes without a proxy",
        )
    netloc = parts.netloc
    if parts.username is not None and parts.password is None:
        netloc = netloc.replace("@", ":@")
    return f"{parts.scheme}://{netloc}"


def _no_proxy(variable: str) -> BadValue:
    return BadValue(f"{variable} does not name a proxy", "it looks like http://host:port")


def _spared(host: str, port: int, no_proxy: str) -> bool:
    """Say whether ``no_proxy`` names a host: itself, its domain, its network, or everything."""
    entries = no_proxy.lower().replace(",", " ").split()
    return any(_names(entry, host.lower(), port) for entry in entries)


def _names(entry: str, host: str, port: int) -> bool:
    if with_port := _WITH_PORT.fullmatch(entry):
        return int(with_port[2]) == port and _names(with_port[1], host, port)
    try:
        return ipaddress.ip_address(host) in ipaddress.ip_network(entry.strip("[]"), strict=False)
    except ValueError:
        domain = entry.removeprefix("*").removeprefix(".")
        return entry == "*" or (bool(domain) and f".{host}".endswith(f".{domain}"))
