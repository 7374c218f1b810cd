"""URLs as people, invites and services give them: one reader, stricter than any library.

Libraries disagree about what they let through: control characters that one drops and
another sends, digits of other scripts, hosts that are numbers in disguise. What is read
here means the same to all of them: the host is in ASCII and the port is a port.
"""

from __future__ import annotations

import ipaddress
import re
import unicodedata
from urllib.parse import SplitResult, urlsplit

from muster.errors import BadValue

MOST_CHARS = 2048
HINT = "it looks like https://host/path"

_PORT = re.compile(r"[0-9]{1,5}")
_LABEL = re.compile(r"[A-Za-z0-9_](?:[A-Za-z0-9_-]{0,61}[A-Za-z0-9_])?")
_NUMBER = re.compile(r"[0-9]+|0[xX][0-9A-Fa-f]*")


def read(text: str, *schemes: str, what: str = "a URL", user: bool = False) -> SplitResult:
    """Return the parts of a URL of one of these schemes (http and https).

    *what* completes "is not …"; *user* lets a name and password stand before the host.
    Raises `BadValue`, which never repeats a password.
    """
    url = text.strip()
    try:
        return _read(url, schemes or ("http", "https"), user=user)
    except ValueError as error:
        _, at, host = url.rpartition("@")
        why = f": {error}" if isinstance(error, _Wrong) else ""
        said = f"…@{host}" if at else url
        raise BadValue(f"'{said[:200]}' is not {what}{why}", HINT) from None


def this_machine(host: str) -> bool:
    """Say whether a host is this machine, whatever networks it is in."""
    try:
        address = ipaddress.ip_address(host.strip("[]"))
    except ValueError:
        name = host.lower().removesuffix(".")
        return name == "localhost" or name.endswith(".localhost")
    inner = getattr(address, "ipv4_mapped", None) or address
    return bool(inner.is_loopback or inner.is_unspecified)


class _Wrong(ValueError):
    """What is wrong with a URL, for people."""


def _read(url: str, schemes: tuple[str, ...], *, user: bool) -> SplitResult:
    if len(url) > MOST_CHARS:
        raise _Wrong(f"it has more than {MOST_CHARS} characters")
    if any(c in "\\ " or unicodedata.category(c)[0] in "CZ" for c in url):
        raise _Wrong("it holds a space, a backslash or a control character")
    parts = urlsplit(url)
    if parts.scheme not in schemes or not parts.netloc:
        raise ValueError
    named, at, place = parts.netloc.rpartition("@")
    if at and not user:
        raise _Wrong("a user name has no place in it")
    host, port = _place(place)
    netloc = f"{named}{at}{host}{port}"
    return parts._replace(netloc=netloc)


def _place(place: str) -> tuple[str, str]:
    """Return host and port, with its colon, if there is one."""
    if place.startswith("["):
        address, bracket, rest = place[1:].partition("]")
        if not bracket:
            raise ValueError
        return f"[{_ipv6(address)}]", _port(rest)
    if place.count(":") > 1:
        raise _Wrong("an IPv6 address stands in brackets, as in http://[::1]:8787")
    name, colon, port = place.partition(":")
    return _host(name), _port(colon + port)


def _ipv6(address: str) -> str:
    try:
        if "%" not in address:
            ipaddress.IPv6Address(address)
            return address
    except ValueError:
        pass
    raise _Wrong("what stands in brackets is not an IPv6 address")


def _host(name: str) -> str:
    """Return a host in ASCII; one that ends in a number is a whole IPv4 address or none."""
    host = name if name.isascii() else _ascii(name)
    labels = host.removesuffix(".").split(".")
    if len(host) > 253 or not all(map(_LABEL.fullmatch, labels)):
        raise _Wrong("it has no host that can be looked up")
    if _NUMBER.fullmatch(labels[-1]):
        try:
            ipaddress.IPv4Address(host)
        except ValueError:
            raise _Wrong("its host is not an IPv4 address") from None
    return host


def _ascii(name: str) -> str:
    import httpx2

    try:
        return httpx2.URL(f"https://{name}/").raw_host.decode("ascii")
    except (httpx2.InvalidURL, UnicodeError):
        raise _Wrong("its host is no international name") from None


def _port(text: str) -> str:
    if not text:
        return ""
    number = text[1:]
    if text[0] != ":" or not _PORT.fullmatch(number) or not 1 <= int(number) <= 65_535:
        raise _Wrong("its port is not a number from 1 to 65535")
    return text
