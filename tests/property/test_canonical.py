"""Canonical JSON against two oracles: RFC 8785's own package, and a Node that sorts and prints."""

from __future__ import annotations

import base64
import contextlib
import json
import random
import string
import struct
import subprocess
from typing import Any

import pytest
import rfc8785
from hypothesis import given
from hypothesis import strategies as st

from capsules import canonical, ticket
from capsules.errors import Refused
from capsules.keys import exact_base64, lenient_base64
from tests.support import node

MAX = canonical.MAX_INTEGER
NUMBERS = st.integers(-MAX, MAX)
UNICODE = st.text(st.characters(exclude_categories=["Cs"]))
KEYS = st.text(st.sampled_from(string.ascii_letters + string.digits + "_"), min_size=1, max_size=4)
OURS = st.recursive(
    st.none() | st.booleans() | NUMBERS | UNICODE,
    lambda inner: st.lists(inner) | st.dictionaries(KEYS, inner),
    max_leaves=20,
)
ANY = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(KEYS | st.text(), inner),
    max_leaves=20,
)

REFERENCE = """
const write = (value) => Array.isArray(value) ? `[${value.map(write).join(",")}]`
  : typeof value === "object" && value !== null
    ? `{${Object.keys(value).sort((a, b) => a.localeCompare(b))
        .map((key) => `${JSON.stringify(key)}:${write(value[key])}`).join(",")}}`
    : JSON.stringify(value);
const texts = JSON.parse(require("node:fs").readFileSync(0, "utf8"));
console.log(JSON.stringify(texts.map((text) => write(JSON.parse(text)))));
"""


def existing(texts: list[str]) -> list[str]:
    """Return what existing clients sign for these JSON texts, by their own means."""
    done = subprocess.run(
        [node.executable(), "-e", REFERENCE],
        input=json.dumps(texts),
        capture_output=True,
        text=True,
        encoding="utf-8",
        check=True,
    )
    found: list[str] = json.loads(done.stdout)
    return found


def written(text: str) -> str | None:
    """Return what we sign for a JSON text, None where we do not answer."""
    value = canonical.loads(text)
    with contextlib.suppress(Refused):
        return canonical.encode(value).decode()
    return None


def agree(texts: list[str]) -> int:
    """Compare where we answer at all; say how often we did."""
    ours = [written(text) for text in texts]
    for mine, theirs, text in zip(ours, existing(texts), texts, strict=True):
        assert mine is None or mine == theirs, text
    return len(ours) - ours.count(None)


@given(OURS)
def test_what_we_sign_is_rfc_8785(value: Any) -> None:
    assert canonical.strict(value) == rfc8785.dumps(value)


@given(OURS)
def test_the_canonical_form_is_read_back(value: Any) -> None:
    assert canonical.loads(canonical.strict(value)) == value


@given(st.floats(allow_nan=False, allow_infinity=False))
def test_numbers_are_printed_as_rfc_8785_prints_them(value: float) -> None:
    assert canonical.number(value).encode() == rfc8785.dumps(value)


def test_numbers_are_printed_as_node_prints_them() -> None:
    source = random.Random(8785)
    floats = [struct.unpack("<d", source.randbytes(8))[0] for _ in range(3000)]
    edges = [m * 10.0**e for e in range(-30, 30) for m in (1, 1.5, 9.999999999999999, 123456)]
    big = [source.getrandbits(source.randrange(1, 1100)) for _ in range(300)]
    texts = [json.dumps(x) for x in (*floats, *edges, *big) if x == x and abs(x) != float("inf")]

    assert agree(texts) == len(texts)


def test_keys_are_ordered_as_node_orders_them() -> None:
    source = random.Random(5)
    alphabets = ("abAB", "aA_1", "abcXYZ019_", string.ascii_letters + string.digits + "_-.é ")
    known = sorted(canonical.KNOWN_KEYS)
    texts = []
    for _ in range(4000):
        letters = source.choice(alphabets)
        keys = {
            "".join(source.choices(letters, k=source.randint(1, 4)))
            for _ in range(source.randint(1, 5))
        }
        keys.update(source.sample(known, source.randint(0, 3)))
        texts.append(json.dumps(dict.fromkeys(source.sample(sorted(keys), len(keys)), 1)))

    answered = agree(texts)

    assert 200 < answered < len(texts)


def test_strings_are_written_as_node_writes_them() -> None:
    source = random.Random(8259)
    edges = [*range(0x100), 0x2028, 0x2029, 0xD7FF, *range(0xD800, 0xE000, 97), 0xFFFF, 0x1F600]
    texts = [
        json.dumps("".join(chr(source.choice(edges)) for _ in range(source.randint(0, 8))))
        for _ in range(2000)
    ]

    assert agree(texts) == len(texts)


@given(ANY)
def test_every_value_has_a_canonical_form_or_a_reason_not_to(value: Any) -> None:
    for write in (canonical.encode, canonical.strict):
        with contextlib.suppress(Refused):
            raw = write(value)
            assert write(canonical.loads(raw)) == raw


@given(st.binary() | st.text().map(lambda text: text.encode("utf-8", "surrogatepass")))
def test_no_bytes_crash_the_reader(raw: bytes) -> None:
    with contextlib.suppress(Refused):
        canonical.loads(raw)


@given(ANY, st.sampled_from(["", "payload", "publicKey", "signature", "algorithm", "peerId"]))
def test_no_value_crashes_the_reader_of_tickets(value: Any, where: str) -> None:
    payload = {"peerId": "p", "userId": "u", "nonce": "", "issuedAt": 1, "expiresAt": 2}
    envelope: dict[str, Any] = {"algorithm": "ed25519", "publicKey": "", "signature": ""}
    envelope["payload"] = payload
    if where:
        (payload if where in payload else envelope)[where] = value
    with contextlib.suppress(Refused):
        ticket.Ticket.from_json(envelope if where else value).verify(now_ms=1)


@given(st.binary(max_size=40), st.integers(0, 60))
def test_base64_that_we_write_is_read_both_ways(raw: bytes, place: int) -> None:
    text = base64.b64encode(raw).decode()

    assert exact_base64(text) == lenient_base64(text) == raw
    spaced = text[:place] + " \n" + text[place:]
    assert lenient_base64(spaced) == raw
    with pytest.raises(ValueError, match=r".*"):
        exact_base64(spaced)
