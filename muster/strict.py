"""Strict JSON: what every JSON reader agrees on, and nothing else.

Bodies pass through clients in several languages, so what they could read
differently is refused at the edge: duplicate keys, NaN and infinities, integers
beyond 2^53, lone surrogates, and nesting deep enough to exhaust a parser.

A megabyte of anything is read in some 20 ms (tests/property/test_strict.py): the values
are made once, there may be only so many of them, and all that Python itself looks at is
what stands outside the strings, as bytes.
"""

from __future__ import annotations

import re
from typing import Any

import msgspec

from muster.errors import InvalidRequest

MAX_INTEGER = 2**53 - 1
"""The largest integer that JavaScript reads back exactly."""

MAX_DEPTH = 32
"""How deep arrays and objects may nest."""

MAX_VALUES = 2**15
"""How many values a body may hold; a full batch of messages has some hundreds."""

_TOO_MUCH = f"the body holds more than {MAX_VALUES} values, or nests too deeply"
_NO_BRACKETS = bytes(set(range(256)) - set(b"[]{}"))
_DIGITS_ALIKE = bytes.maketrans(b"123456789", b"000000000")
_INTEGER = re.compile(rb"(?<![0-9.eE+])[0-9]{16,}(?![0-9.eE])")
_HALF_PAIR = re.compile(rb"\\u[dD][89abAB]..(?!\\u[dD][c-fC-F])")
# Its own reader of numbers takes 15 microseconds for one like 1e300.
_DECODER = msgspec.json.Decoder(float_hook=float)


def loads(raw: bytes) -> Any:
    """Read one strict JSON value.

    Raises `InvalidRequest` with a message that names what is wrong.
    """
    plain = _is_plain(raw)
    outside = raw if plain else _outside_strings(raw)
    if not plain and outside.count(b",") + outside.count(b"[") + outside.count(b"{") > MAX_VALUES:
        raise InvalidRequest(_TOO_MUCH)
    try:
        value = _DECODER.decode(raw)
    except RecursionError:
        raise InvalidRequest(_TOO_MUCH) from None
    except ValueError as error:
        raise InvalidRequest(_why(raw, outside, error)) from None
    if plain:
        _check_members(raw, dumps(value))
    else:
        _check_nesting(outside)
        _check_integers(outside)
        _check_members(outside, _outside_strings(dumps(value)))
    return value


def dumps(value: Any) -> bytes:
    """Write a value as compact UTF-8 JSON."""
    return msgspec.json.encode(value)


def _is_plain(raw: bytes) -> bool:
    """Say whether it does not matter for what follows what is inside the strings."""
    openings = raw.count(b"[") + raw.count(b"{")
    return (
        openings <= MAX_DEPTH
        and openings + raw.count(b",") <= MAX_VALUES
        and b"0" * 16 not in raw.translate(_DIGITS_ALIKE)
        and b"\\u" not in raw
    )


def _outside_strings(raw: bytes) -> bytes:
    """Return JSON without its strings: a quote that is not escaped begins or ends one."""
    if b"\\" in raw:
        raw = raw.replace(b"\\\\", b"").replace(b'\\"', b"")
    if raw.count(b'"') > 4 * MAX_VALUES:  # two for a value and two for its key
        raise InvalidRequest(_TOO_MUCH)
    return b"".join(raw.split(b'"')[::2])


def _check_nesting(outside: bytes) -> None:
    """Take away the innermost brackets as often as they may nest; then none may be left."""
    if outside.count(b"[") + outside.count(b"{") <= MAX_DEPTH:
        return
    brackets = outside.translate(None, _NO_BRACKETS)
    for _ in range(MAX_DEPTH):
        brackets = brackets.replace(b"[]", b" ").replace(b"{}", b" ").replace(b" ", b"")
    if brackets:
        raise InvalidRequest(f"the body nests deeper than {MAX_DEPTH} levels")


def _check_integers(outside: bytes) -> None:
    if len(outside) < 16 or b"0" * 16 not in outside.translate(_DIGITS_ALIKE):
        return
    for digits in _INTEGER.findall(outside.translate(None, b" \t\r\n")):
        if len(digits) > 16 or int(digits) > MAX_INTEGER:
            raise InvalidRequest("the body is not JSON: a number is beyond 2^53")


def _check_members(outside: bytes, written: bytes) -> None:
    """Compare with the value as it is written: what was lost in reading was not strict.

    Of a key that an object has twice one is lost, and a number without end becomes null.
    """
    if written.count(b":") != outside.count(b":"):
        raise InvalidRequest("the body is not JSON: an object has the same key twice")
    if written.count(b"null") != outside.count(b"null"):
        raise InvalidRequest("the body is not JSON: a number is out of range")


def _why(raw: bytes, outside: bytes, error: ValueError) -> str:
    """Say what is wrong with a body that could not be read."""
    try:
        raw.decode()
    except UnicodeDecodeError:
        return "the body is not UTF-8 text"
    if "surrogate" in str(error) or _HALF_PAIR.search(raw):
        return "the body holds half a surrogate pair, which no UTF-8 text can carry"
    for name in ("NaN", "-Infinity", "Infinity"):
        if name.encode() in outside:
            return f"the body is not JSON: {name} is not a JSON number"
    if "out of range" in str(error):
        return "the body is not JSON: a number is beyond 2^53"
    return f"the body is not JSON: {str(error).removeprefix('JSON is malformed: ')}"
