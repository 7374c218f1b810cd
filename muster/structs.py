"""Structs: how the shapes of every version read JSON and queries, and what they say is wrong."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, TypeVar

import msgspec

from muster.errors import InvalidRequest


class Record(msgspec.Struct, frozen=True):
    """The base of all shapes. Members that one does not know are ignored."""


_R = TypeVar("_R", bound=Record)
_MOST_SAID = 200


def from_json(value: Any, shape: type[_R]) -> _R:
    """Read decoded JSON as a record.

    Raises `InvalidRequest` naming the member and what is expected of it.
    """
    try:
        return msgspec.convert(value, shape)
    except (msgspec.ValidationError, RecursionError) as error:
        raise InvalidRequest(plain(str(error))) from None


def find(raw: bytes, shape: type[_R]) -> _R:
    """Find the members that a record names in a JSON object, and make nothing of the rest.

    A megabyte takes a few milliseconds, whatever is in it: the rest is passed over. For a
    body that `muster.strict` reads this is what it finds there; of other bodies it may take
    some, so the body is still to be read. Raises `InvalidRequest`.
    """
    try:
        return msgspec.json.decode(raw, type=shape)
    except msgspec.ValidationError as error:
        raise InvalidRequest(plain(str(error))) from None
    except RecursionError:
        raise InvalidRequest("the body nests too deeply") from None
    except ValueError as error:
        raise InvalidRequest(f"the body is not JSON: {error}") from None


def from_query(query: Mapping[str, str], shape: type[_R]) -> _R:
    """Read query parameters as a record; numbers come as decimal digits."""
    known = {name: value for name, value in query.items() if name in shape.__struct_fields__}
    try:
        return msgspec.convert(known, shape, strict=False)
    except msgspec.ValidationError as error:
        raise InvalidRequest(plain(str(error))) from None


def plain(message: str) -> str:
    """Turn msgspec's sentence into ours: lower case, the member first."""
    text, _, path = message.partition(" - at `$")
    member = path.rstrip("`").lstrip(".")
    text = text[:1].lower() + text[1:]
    if len(text) > _MOST_SAID:
        text = text[:_MOST_SAID] + "…"  # it may quote what it was given
    return f"{member}: {text}" if member else text
