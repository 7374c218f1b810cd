"""The bytes that existing clients of a circle compute, case by case.

`felund.json` is read by other languages too. Each case's name says what it is
for: the word before the colon is the function under test. The expected values
were made by those clients or directly by a cryptographic library, never by the
code that they test, so no target rewrites them.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from muster.errors import BadValue
from muster.felund import crypto, signing
from muster.felund.circle import Circle, media_session, signal_session
from muster.felund.crypto import Note, Unreadable
from muster.felund.invite import InvalidInvite, Invite

CASES = json.loads(Path(__file__).with_name("felund.json").read_text("utf-8"))

REFUSALS: dict[str, tuple[str, type[Exception]]] = {
    "circle": ("invalid", ValueError),
    "datachannel": ("invalid", BadValue),
    "decrypt": ("unreadable", Unreadable),
    "invite": ("invalid", InvalidInvite),
}


def circle(given: dict[str, Any]) -> dict[str, str]:
    found = Circle.from_secret_hex(given["secret"])
    return {
        "circle_id": found.circle_id,
        "circle_hint": found.circle_hint,
        "request_key": found.request_key.hex(),
        "message_key": found.message_key.hex(),
    }


def request(given: dict[str, Any]) -> dict[str, str]:
    key = Circle.from_secret_hex(given["secret"]).request_key
    body = given["body"].encode()
    timestamp, nonce = str(given["ts"]), given["nonce"]
    headers = signing.headers(
        key,
        given["method"],
        given["path"],
        body,
        node_id="a" * 24,
        now=given["ts"],
        nonce=bytes.fromhex(nonce),
    )
    return {
        "canonical": signing.canonical(
            given["method"], given["path"], body, timestamp=timestamp, nonce=nonce
        ).decode(),
        "signature": headers["X-Felund-Signature"],
    }


def encrypt(given: dict[str, Any]) -> dict[str, Any]:
    note = Note(**given["note"])
    envelope = crypto.encrypt(
        Circle.from_secret_hex(given["secret"]), note, nonce=bytes.fromhex(given["nonce"])
    )
    return {"aad": crypto.aad(note).decode(), "envelope": envelope}


def decrypt(given: dict[str, Any]) -> dict[str, Any]:
    found = crypto.decrypt(Circle.from_secret_hex(given["secret"]), given["envelope"])
    return dataclasses.asdict(found)


def invite(given: dict[str, Any]) -> dict[str, Any]:
    found = Invite.parse(given["code"])
    assert Invite.parse(found.code()) == found
    return {
        "secret": found.circle.secret.hex(),
        "peer": found.peer,
        "base_url": found.base_url,
    }


def datachannel(given: dict[str, Any]) -> str:
    found = Circle.from_secret_hex(given["secret"])
    return crypto.datachannel_auth(found, given["my_nonce"], given["peer_nonce"])


def session(given: dict[str, Any]) -> str:
    if given["call"] is None:
        return signal_session(*given["nodes"])
    return media_session(given["call"], *given["nodes"])


SUBJECTS: dict[str, Callable[[dict[str, Any]], Any]] = {
    function.__name__: function
    for function in (circle, request, encrypt, decrypt, invite, datachannel, session)
}


@pytest.mark.parametrize("case", CASES, ids=lambda case: case["name"])
def test_what_existing_clients_compute(case: dict[str, Any]) -> None:
    subject = case["name"].partition(":")[0]
    if case["expect"] == "ok":
        assert SUBJECTS[subject](case["input"]) == case["output"]
        return
    expect, refusal = REFUSALS[subject]
    assert case["expect"] == expect
    with pytest.raises(refusal):
        SUBJECTS[subject](case["input"])


def test_every_function_has_a_case() -> None:
    assert {case["name"].partition(":")[0] for case in CASES} == set(SUBJECTS)


def test_our_codes_are_the_codes_existing_clients_write() -> None:
    codes = [case["input"]["code"] for case in CASES if case["name"].startswith("invite: ")]
    ours = [
        case["input"]["code"]
        for case in CASES
        if case["name"] in ("invite: 192.0.2.10:9999", "invite: https://relay.example/api")
    ]

    assert len(ours) == 2
    assert [Invite.parse(code).code() for code in ours] == ours
    assert set(ours) < set(codes)
