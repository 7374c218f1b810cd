"""Canonical JSON: one value, one byte string, in Python and in every browser.

`encode` writes what existing clients of the mesh sign: keys sorted as their browsers sort
them, numbers as ECMAScript prints them. Browsers sort by a collation that depends on the
language of the user, so keys that it could order differently are refused, not guessed
(docs/adr/0005). `strict` is for what we sign ourselves: RFC 8785 without floats.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable, Iterable
from typing import Any, NamedTuple

from capsules.errors import Reason, Refused

MAX_INTEGER = 2**53 - 1
"""The largest integer that every JSON reader reads back exactly."""

MAX_DEPTH = 32
"""How deep arrays and objects may nest."""

KNOWN_KEYS = frozenset(
    {
        # an envelope and its payload
        *("version", "algorithm", "publicKey", "signature", "payload"),
        *("peerId", "userId", "issuedAt", "expiresAt", "nonce"),
        # a capsule
        *("community", "peers"),
    }
)
"""Members of the mesh's own formats: measured to sort alike in all collations that matter."""

_PLAIN_KEY = re.compile(r"[A-Za-z0-9_]+", re.ASCII)
_ASCII_KEY = re.compile(r"[\x20-\x7e]*", re.ASCII)
_ESCAPED = re.compile('["\\\\\x00-\x1f\ud800-\udfff]')
_SURROGATE = re.compile("[\ud800-\udfff]")
_SHORT = {
    '"': '\\"',
    "\\": "\\\\",
    "\b": "\\b",
    "\t": "\\t",
    "\n": "\\n",
    "\f": "\\f",
    "\r": "\\r",
}


def loads(raw: bytes | str) -> Any:
    """Read JSON as ``JSON.parse`` does: doubles for numbers, the last of equal keys.

    Integral numbers up to 2^53 come back as ``int`` however they were written. Raises
    `Refused` (``MALFORMED``) for anything that is not UTF-8 JSON or nests too deeply.
    """
    try:
        value = _DECODER.decode(raw if isinstance(raw, str) else raw.decode("utf-8"))
    except UnicodeDecodeError:
        raise Refused(Reason.MALFORMED, "it is not UTF-8 text") from None
    except RecursionError:
        raise Refused(Reason.MALFORMED, "it nests too deeply") from None
    except ValueError as error:
        raise Refused(Reason.MALFORMED, f"it is not JSON: {error}") from None
    _bound(value)
    return value


def encode(value: Any) -> bytes:
    """Return the bytes that existing clients of the mesh sign for a parsed JSON value.

    Raises `Refused` (``NOT_CANONICAL``) where two of them could compute different bytes.
    """
    return _write(value, MAX_DEPTH, _MESH).encode("utf-8")


def strict(value: Any) -> bytes:
    """Return the RFC 8785 bytes of a value without floats, for what we sign ourselves.

    Raises `Refused` (``NOT_CANONICAL``) for floats, integers beyond 2^53, half surrogate
    pairs and keys that are not printable ASCII.
    """
    return _write(value, MAX_DEPTH, _RFC8785).encode("utf-8")


def read_strict(raw: bytes) -> Any:
    """Read what we sign ourselves; what is spelled in another way was not written by us.

    Raises `Refused`: ``MALFORMED`` if it is no JSON, ``NOT_CANONICAL`` if it has another form.
    """
    value = loads(raw)
    if strict(value) != raw:
        raise Refused(Reason.NOT_CANONICAL, "it is spelled in another way than it was signed")
    return value


def number(value: float) -> str:
    """Print a number as ECMAScript does (ECMA-262, Number::toString)."""
    if isinstance(value, int) and abs(value) <= MAX_INTEGER:
        return str(value)
    try:
        value = float(value)
    except OverflowError:
        return "null"
    if not math.isfinite(value):
        return "null"
    if value == 0:
        return "0"
    return ("-" if value < 0 else "") + _digits(abs(value))


def _digits(value: float) -> str:
    mantissa, _, exponent = repr(value).partition("e")
    whole, _, fraction = mantissa.partition(".")
    fraction = fraction.rstrip("0")
    digits = (whole + fraction).lstrip("0")
    # value = 0.DIGITS x 10^point
    point = len(digits) - len(fraction) + int(exponent or 0)
    digits = digits.rstrip("0")
    count = len(digits)
    if count <= point <= 21:
        return digits + "0" * (point - count)
    if 0 < point <= 21:
        return f"{digits[:point]}.{digits[point:]}"
    if -6 < point <= 0:
        return f"0.{'0' * -point}{digits}"
    head = digits[0] + ("." + digits[1:] if count > 1 else "")
    return f"{head}e{point - 1:+d}"


class _Dialect(NamedTuple):
    order: Callable[[Iterable[str]], list[str]]
    number: Callable[[float], str]
    text: Callable[[str], str]


def _write(value: Any, depth: int, dialect: _Dialect) -> str:
    match value:
        case str():
            return dialect.text(value)
        case None:
            return "null"
        case bool():
            return "true" if value else "false"
        case int() | float():
            return dialect.number(value)
        case list() | tuple() if depth:
            return "[" + ",".join(_write(item, depth - 1, dialect) for item in value) + "]"
        case dict() if depth:
            members = (
                f"{dialect.text(key)}:{_write(value[key], depth - 1, dialect)}"
                for key in dialect.order(value)
            )
            return "{" + ",".join(members) + "}"
        case dict() | list() | tuple():
            raise Refused(Reason.NOT_CANONICAL, f"it nests deeper than {MAX_DEPTH} levels")
    raise Refused(Reason.NOT_CANONICAL, f"a {type(value).__name__} is not JSON")


def _text(value: str) -> str:
    return f'"{_ESCAPED.sub(_escape, value)}"'


def _escape(found: re.Match[str]) -> str:
    return _SHORT.get(found[0]) or f"\\u{ord(found[0]):04x}"


def _unicode(value: str) -> str:
    if _SURROGATE.search(value):
        raise Refused(Reason.NOT_CANONICAL, "half a surrogate pair is not text")
    return _text(value)


def _integer(value: int | float) -> str:
    if isinstance(value, float) or abs(value) > MAX_INTEGER:
        raise Refused(Reason.NOT_CANONICAL, "only integers up to 2^53 have one form everywhere")
    return str(value)


def _collated(keys: Iterable[str]) -> list[str]:
    """Sort keys as every browser does, or refuse."""
    ordered = sorted(keys)
    if KNOWN_KEYS.issuperset(ordered):
        return ordered
    if not all(_PLAIN_KEY.fullmatch(key) for key in ordered) or ordered != sorted(
        ordered, key=_collation
    ):
        raise Refused(Reason.NOT_CANONICAL, "browsers could disagree about the order of the keys")
    return ordered


def _collation(key: str) -> tuple[str, str]:
    """Order as the root collation does (UTS #10): letters first, then lower case before upper."""
    return key.lower().replace("_", " "), key.swapcase()


def _by_code_point(keys: Iterable[str]) -> list[str]:
    ordered = sorted(keys)
    if not all(_ASCII_KEY.fullmatch(key) for key in ordered):
        raise Refused(Reason.NOT_CANONICAL, "keys must be printable ASCII")
    return ordered


_MESH = _Dialect(_collated, number, _text)
_RFC8785 = _Dialect(_by_code_point, _integer, _unicode)


def _bound(value: Any) -> None:
    """Refuse what nests too deeply."""
    if deeper(value, MAX_DEPTH):
        raise Refused(Reason.MALFORMED, f"it nests deeper than {MAX_DEPTH} levels")


def deeper(value: Any, depth: int) -> bool:
    """Say whether parsed JSON nests deeper than *depth*; level by level, without recursion."""
    level = [value]
    for _ in range(depth):
        level = [
            child
            for parent in level
            if isinstance(parent, dict | list)
            for child in (parent.values() if isinstance(parent, dict) else parent)
        ]
        if not level:
            return False
    return any(isinstance(child, dict | list) for child in level)


def _read_integer(digits: str) -> float:
    # A longer one is beyond 2^53 in any case, and int() takes time for long ones.
    if len(digits) <= len(str(MAX_INTEGER)) + 1 and abs(int(digits)) <= MAX_INTEGER:
        return int(digits)
    return _read_float(digits)


def _read_float(digits: str) -> float:
    value = float(digits)
    return int(value) if value.is_integer() and abs(value) <= MAX_INTEGER else value


def _refuse_constant(name: str) -> float:
    raise ValueError(f"{name} is not a JSON number")


_DECODER = json.JSONDecoder(
    parse_int=_read_integer, parse_float=_read_float, parse_constant=_refuse_constant
)
