"""Strict JSON against Python's own reader, and what it costs to read the worst of a megabyte."""

from __future__ import annotations

import contextlib
import json
import math
import time
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from capsules.canonical import deeper
from muster import strict, structs
from muster.errors import InvalidRequest
from muster.felund import records

MIB = 2**20
MAX = strict.MAX_INTEGER
REFUSED = object()

TOKENS = st.sampled_from(
    [
        *("[", "]", "{", "}", ",", ":", " ", "\t", "\n", '"', "\\", "\\\\", '\\"', "\\u003a"),
        *("null", "true", "NaN", "-", "0", "00", "1.5", ".", "E5", "1e308", "1e309"),
        *("9007199254740992", "\\ud83d", "\\ude00", "é", "\x01"),
        *('"a":', '"a":1', '"circle_hint":', '"b"'),
    ]
)
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(max_size=3), inner),
    max_leaves=30,
)
WRITTEN = st.builds(
    lambda value, indent, plain: json.dumps(value, indent=indent, ensure_ascii=plain),
    VALUES,
    st.none() | st.integers(0, 2),
    st.booleans(),
)
PAIRS = st.lists(
    st.tuples(st.sampled_from(["a", "b", ":", "\\", '"', "a:"]), VALUES), max_size=4
).map(lambda pairs: "{" + ",".join(f"{json.dumps(k)}:{json.dumps(v)}" for k, v in pairs) + "}")
TEXTS = WRITTEN | PAIRS | st.lists(TOKENS, max_size=12).map("".join)


def plainly(raw: bytes) -> Any:
    """Read strict JSON with Python's reader, rule by rule, however long that takes."""

    def unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        members = dict(pairs)
        if len(members) != len(pairs):
            raise ValueError("twice")
        return members

    def refuse(name: str) -> None:
        raise ValueError(name)

    try:
        value = json.loads(raw.decode(), object_pairs_hook=unique, parse_constant=refuse)
        json.dumps(value, ensure_ascii=False).encode()
    except (ValueError, RecursionError):
        return REFUSED
    within = all(
        math.isfinite(leaf) and (isinstance(leaf, float) or abs(leaf) <= MAX)
        for leaf in leaves(value)
        if isinstance(leaf, int | float)
    )
    return value if within and not deeper(value, strict.MAX_DEPTH) else REFUSED


def leaves(value: Any) -> list[Any]:
    if isinstance(value, dict | list):
        inner = value.values() if isinstance(value, dict) else value
        return [leaf for child in inner for leaf in leaves(child)]
    return [value]


def read(raw: bytes) -> Any:
    try:
        return strict.loads(raw)
    except InvalidRequest:
        return REFUSED


@given(TEXTS)
@example('{"a":1,"a":1}')
@example('{"a":":","a":"\\u003a"}')
@example('{"a":{"b":1,"b":2},"a":1}')
@example('{"\\u0061":1,"a":2}')
@example('["\\\\","\\\\\\"",{"a":"\\\\"}]')
@example("[9007199254740993.5,90071992547409930e-1,-9007199254740991]")
@example("[1e999]")
@example("[null,1e999]")
@example("-9007199254740992")
@example("[\n9007199254740992\n]")
@example("[" * 32 + "]" * 32)
@example("[" * 33 + "]" * 33)
@example('[{"a":' * 16 + "1" + "}]" * 16)
@example('[{"a":' * 17 + "1" + "}]" * 17)
@example("\ufeff1")
def test_it_reads_what_pythons_reader_reads_by_the_same_rules(text: str) -> None:
    raw = text.encode(errors="surrogatepass")
    expected, found = plainly(raw), read(raw)

    assert found == expected
    assert repr(found) == repr(expected), "1 and 1.0 and true are different"


def many(unit: bytes, *, most: int = MIB) -> bytes:
    """Repeat a value in a list until there is a megabyte of it, or so many."""
    count = min((MIB - 2) // (len(unit) + 1), most)
    return b"[" + b",".join([unit] * count) + b"]"


ALLOWED = strict.MAX_VALUES
WORST = {
    "open brackets": b"[" * MIB,
    "nested lists": many(b"[" * 900 + b"]" * 900),
    "lists 30 deep": many(b"[" * 30 + b"]" * 30),
    "empty lists": many(b"[]"),
    "empty objects": many(b"{}"),
    "small objects": many(b'{"a":1}'),
    "digits": many(b"1"),
    "floats": many(b"1e300"),
    "empty strings": many(b'""'),
    "quotes": b'"' * MIB,
    "as many lists as may be": many(b"[]", most=ALLOWED // 2 - 1),
    "as many objects as may be": many(b'{"abc":1}', most=ALLOWED // 2 - 1),
    "as many nested lists as may be": many(b"[" * 30 + b"]" * 30, most=ALLOWED // 31 - 1),
    "as many floats as may be": many(b"1.2345e-300", most=ALLOWED - 1),
    "as many long numbers as may be": many(b"9007199254740991", most=ALLOWED - 1),
    "as many strings as may be": many(b'"abcdefghijklmnopqrstuvwxyz"', most=ALLOWED - 1),
    "as many keys as may be": b"{%b}" % b",".join(b'"%024x":0' % n for n in range(ALLOWED)),
    "spaces and a long number": b" " * (MIB - 16) + b"1234567890123456",
    "a long fraction": b"0." + b"1" * (MIB - 2),
    "escapes": b'"' + b"\\n" * (MIB // 2 - 1) + b'"',
    "backslashes": b'"' + b"\\" * (MIB - 2) + b'"',
    "surrogate pairs": b'"' + b"\\ud83d\\ude00" * (MIB // 12 - 1) + b'"',
}


@pytest.mark.parametrize("raw", WORST.values(), ids=WORST)
def test_the_worst_of_a_megabyte_costs_little(raw: bytes) -> None:
    """Some 20 ms at the most on an idle machine; before, nested lists took half a second."""
    took = []
    for _ in range(5):
        started = time.process_time()
        read(raw)
        took.append(time.process_time() - started)

    assert min(took) < 0.1


def test_a_full_batch_of_messages_is_far_from_what_a_body_may_hold() -> None:
    sealed = {"alg": "AES-256-GCM", "key_id": "epoch-0", "nonce": "x", "ciphertext": "x"}
    message = {f"member{n}": n for n in range(20)} | {"enc": sealed}
    body = {"circle_hint": "12345678", "messages": [message] * 50}

    assert strict.loads(json.dumps(body).encode()) == body
    with pytest.raises(InvalidRequest, match=f"more than {ALLOWED} values"):
        strict.loads(many(b"1"))


HINTED = st.lists(
    st.tuples(
        st.sampled_from(
            ['"circle_hint"', '"circle\\u005fhint"', '"\\u0063ircle_hint"', '"x"', '"y"']
        ),
        st.sampled_from(['"hint-00001"', '"hint-\\u0030002"', "null", '"short"', "7", "[]"])
        | WRITTEN,
    ),
    max_size=5,
).map(lambda pairs: "{" + " , ".join(f"{name} :{value}" for name, value in pairs) + "}")


class Named(structs.Record, frozen=True):
    circle_hint: records.CircleHint | None = None


@given(HINTED | TEXTS)
@example('{"circle_hint":"hint-00001","circle_hint":"hint-00002"}')
@example('{"x":{"circle_hint":"hint-00002"},"circle_hint":"hint-00001"}')
@example('{"x":"\\"circle_hint\\":","circle_hint":"hint-00001"}')
def test_what_is_found_in_a_body_is_what_the_reader_finds(text: str) -> None:
    raw = text.encode(errors="surrogatepass")
    try:
        found: Any = structs.find(raw, Named)
    except InvalidRequest:
        found = REFUSED

    value = read(raw)
    if value is REFUSED:
        return
    try:
        expected: Any = structs.from_json(value, Named)
    except InvalidRequest:
        expected = REFUSED
    assert found == expected


@pytest.mark.parametrize("raw", WORST.values(), ids=WORST)
def test_to_find_something_in_the_worst_of_a_megabyte_costs_less(raw: bytes) -> None:
    took = []
    for _ in range(5):
        started = time.process_time()
        with contextlib.suppress(InvalidRequest):
            structs.find(b'{"x":' + raw + b',"circle_hint":"hint-00001"}', Named)
        took.append(time.process_time() - started)

    assert min(took) < 0.02
