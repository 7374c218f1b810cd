"""Variables: how a ``MUSTER_…`` variable of the environment is read, kind by kind.

A reader takes the name of a variable and its text, and returns a value that is right or
raises `WrongValue`. What may be a secret is not repeated in the message. An empty text is
the same as no variable.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Callable, Mapping
from dataclasses import field, fields
from typing import Any

from capsules.keys import VerifyKey, lenient_base64

PREFIX = "MUSTER_"

HOST_PORT = (
    r"(?:[A-Za-z0-9_][A-Za-z0-9._-]{0,252}|\[(?P<v6>[0-9A-Fa-f:.]{2,45})\])"
    r"(?::(?P<port>[0-9]{1,5}))?"
)
"""A name, an IPv4 address or an IPv6 address in brackets, and perhaps a port."""

MOST = 10**9
"""The largest number of things, or of things a second: it fits 32 bits twice."""

MOST_BYTES = 2**40
MOST_S = 100 * 365 * 24 * 3600

_WHOLE = re.compile(r"0|[1-9][0-9]*")
_PRINTABLE = re.compile(r"[\x21-\x7e]+")
_URL = re.compile(rf"(?P<scheme>[a-z]+)://{HOST_PORT}(?:/[A-Za-z0-9._~!$&'()*+,;=:@%/-]*)?")
_URL_CHARS = 400

Reader = Callable[[str, str], Any]


class WrongValue(ValueError):
    """A variable whose value does not fit; the message is a sentence that names it."""


def chosen(shape: type[Any], environment: Mapping[str, str]) -> dict[str, Any]:
    """Read ``MUSTER_<FIELD>`` for each field of a dataclass; return the fields that are set."""
    found = {}
    for each in fields(shape):
        name = PREFIX + each.name.upper()
        text = environment.get(name)
        if text:
            found[each.name] = each.metadata.get("read", whole)(name, text)
    return found


def read_by(read: Reader, default: Any, *, secret: bool = False) -> Any:
    """Declare a field of a dataclass that `chosen` is to read with *read*."""
    return field(default=default, repr=not secret, metadata={"read": read})


def names(shape: type[Any]) -> frozenset[str]:
    """Return the variables that `chosen` reads for a dataclass."""
    return frozenset(PREFIX + each.name.upper() for each in fields(shape))


# --- readers ----------------------------------------------------------------------


def whole(name: str, text: str, *, most: int | None = None) -> int:
    """Read a whole number from 1: ASCII digits, without sign, space, point or separator."""
    most = most or (
        MOST_S if name.endswith("_S") else MOST_BYTES if name.endswith("_BYTES") else MOST
    )
    if not _WHOLE.fullmatch(text):
        raise WrongValue(f"{name} must be a whole number in digits alone, not {text[:24]!r}")
    if text == "0":
        raise WrongValue(f"{name} must be at least 1, not 0")
    if len(text) > len(str(most)) or int(text) > most:
        raise WrongValue(f"{name} must be at most {most}")
    return int(text)


def at_most(most: int) -> Reader:
    """Return a reader of whole numbers from 1 to *most*."""
    return lambda name, text: whole(name, text, most=most)


def choice(*allowed: str) -> Reader:
    """Return a reader of one of a few words."""

    def read(name: str, text: str) -> str:
        if text not in allowed:
            raise WrongValue(f"{name} must be {' or '.join(map(repr, allowed))}")
        return text

    return read


def matching(pattern: str, what: str) -> Reader:
    """Return a reader of texts of one form; *what* is what such a text is called."""
    form = re.compile(pattern, re.ASCII)

    def read(name: str, text: str) -> str:
        if not form.fullmatch(text):
            raise WrongValue(f"{name} must be {what}")
        return text

    return read


def listed(read_one: Reader, *, most: int = 1000) -> Reader:
    """Return a reader of a comma list that holds something; each entry is kept once, in order."""

    def read(name: str, text: str) -> tuple[Any, ...]:
        pieces = [part for piece in text.split(",") if (part := piece.strip())]
        if not 0 < len(pieces) <= most:
            count = f"{len(pieces)} entries" if pieces else "none"
            raise WrongValue(f"{name} must be a comma list of 1 to {most} entries; it has {count}")
        found = [read_one(f"{name}, entry {n},", piece) for n, piece in enumerate(pieces, 1)]
        return tuple(dict.fromkeys(found))

    return read


def verify_key(name: str, text: str) -> str:
    """Read an Ed25519 verify key in either alphabet of base64, padded or not, as tools write it.

    Returns the one spelling by which keys are compared (`VerifyKey.to_base64`).
    """
    try:
        raw = lenient_base64(text.translate(str.maketrans("-_", "+/")))
        return VerifyKey(raw).to_base64()
    except ValueError:
        raise WrongValue(
            f"{name} must be an Ed25519 verify key: 43 characters of base64, with or without a '='"
        ) from None


def token(name: str, text: str) -> str:
    """Read a secret that is sent in a header."""
    if not _PRINTABLE.fullmatch(text):
        raise WrongValue(f"{name} must be printable ASCII without spaces")
    return text


def url(*schemes: str) -> Reader:
    """Return a reader of URLs to which more is joined: nothing follows their path."""
    shown = " or ".join(f"{scheme}://" for scheme in schemes)

    def read(name: str, text: str) -> str:
        found = _URL.fullmatch(text)
        if not found or found["scheme"] not in schemes or not reachable(found):
            raise WrongValue(
                f"{name} must be a URL that begins with {shown} and a host, "
                "and has no user name, '?' or '#' in it"
            )
        if len(text) > _URL_CHARS:
            raise WrongValue(f"{name} must be a URL of at most {_URL_CHARS} characters")
        return text

    return read


def reachable(found: re.Match[str]) -> bool:
    """Say whether what `HOST_PORT` matched has a port that there is, and an address."""
    try:
        ipaddress.IPv6Address(found["v6"] or "::")
    except ValueError:
        return False
    return 0 < int(found["port"] or 1) < 65536
