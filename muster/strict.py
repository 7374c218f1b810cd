"""Strict JSON: what every JSON reader agrees on, and nothing else.

Bodies pass through clients in several languages, so what they could read
differently is refused at the edge: duplicate keys, NaN and infinities, integers
beyond 2^53, lone surrogates, and nesting deep enough to exhaust a parser.
"""

from __future__ import annotations

import json
import math
import re
from typing import Any

import msgspec

from capsules.canonical import deeper
from muster.errors import InvalidRequest

MAX_INTEGER = 2**53 - 1
"""The largest integer that JavaScript reads back exactly."""

MAX_DEPTH = 32
"""How deep arrays and objects may nest."""

_SURROGATE = re.compile(r"\\u[dD][89a-fA-F]")
_OPENINGS = re.compile(rb"[\[{]")


def loads(raw: bytes) -> Any:
    """Read one strict JSON value.

    Raises `InvalidRequest` with a message that names what is wrong.
    """
    try:
        text = raw.decode("utf-8")
    except UnicodeDecodeError:
        raise InvalidRequest("the body is not UTF-8 text") from None
    try:
        value = _DECODER.decode(text)
    except RecursionError:
        raise InvalidRequest("the body nests too deeply") from None
    except ValueError as error:
        raise InvalidRequest(f"the body is not JSON: {error}") from None
    if len(_OPENINGS.findall(raw)) > MAX_DEPTH and deeper(value, MAX_DEPTH):
        raise InvalidRequest(f"the body nests deeper than {MAX_DEPTH} levels")
    if _SURROGATE.search(text) and not _is_text(value):
        raise InvalidRequest("the body holds half a surrogate pair, which no UTF-8 text can carry")
    return value


def dumps(value: Any) -> bytes:
    """Write a value as compact UTF-8 JSON."""
    return msgspec.json.encode(value)


def _integer(digits: str) -> int:
    if len(digits) > len(str(MAX_INTEGER)) + 1:
        raise ValueError("a number is beyond 2^53")
    number = int(digits)
    if abs(number) > MAX_INTEGER:
        raise ValueError("a number is beyond 2^53")
    return number


def _float(digits: str) -> float:
    number = float(digits)
    if not math.isfinite(number):
        raise ValueError("a number is out of range")
    return number


def _constant(name: str) -> float:
    raise ValueError(f"{name} is not a JSON number")


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    members = dict(pairs)
    if len(members) != len(pairs):
        raise ValueError("an object has the same key twice")
    return members


def _is_text(value: Any) -> bool:
    try:
        json.dumps(value, ensure_ascii=False).encode("utf-8")
    except UnicodeEncodeError:
        return False
    return True


_DECODER = json.JSONDecoder(
    object_pairs_hook=_unique,
    parse_int=_integer,
    parse_float=_float,
    parse_constant=_constant,
)
