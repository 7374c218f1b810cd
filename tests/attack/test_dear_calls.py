"""What costs nothing comes first: a stranger's megabyte is not parsed, and soon not read.

The worst JSON is tried in tests/property/test_strict.py, and what it does to other callers
is measured by `make bench` (the line large_bodies).
"""

import json
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from chalicelib.limits import SMALL_BYTES
from chalicelib.settings import Settings
from muster.felund import signing
from tests.support import aws, gateway, local, members
from tests.support.circle import ANN, HINT, SECRET, World, world

MIB = 2**20
NO_JSON = b"[" * 1000
POST = ("POST", "/v1/messages")


def body(size: int = 0) -> bytes:
    """Return an empty batch of messages of so many bytes."""
    return json.dumps({"circle_hint": HINT, "messages": []}).encode().ljust(size)


def answered(here: World, raw: bytes, *, key: bytes | None, **more: Any) -> int:
    return here.call(*POST, raw, key=key, **more)[0]


# --- before the body ------------------------------------------------------------------


def test_an_unsigned_call_is_refused_without_a_look_at_its_body() -> None:
    here = world()

    assert answered(here, NO_JSON, key=None) == 401
    assert here.call("GET", "/v1/peers", query={"circle_hint": "?"}, key=None)[0] == 401


@pytest.mark.parametrize(
    ("header", "value", "status"),
    [
        (signing.NODE, "", 401),
        (signing.NODE, "short", 400),
        (signing.TIME, "1", 400),
        (signing.TIME, "1000000000", 400),
        (signing.NONCE, "short", 400),
        (signing.SIGNATURE, "", 401),
    ],
)
def test_the_form_of_the_headers_is_looked_at_before_the_body(
    header: str, value: str, status: int
) -> None:
    here = world()
    headers = here.signed(*POST, NO_JSON, node=ANN, key=b"k" * 32) | {header: value}

    refused, said = here.call(*POST, NO_JSON, headers=headers)

    assert (refused, "body" in said["message"]) == (status, False)


def test_the_signature_is_checked_before_the_body_is_parsed() -> None:
    here = world()
    here.register()
    twice = b'{"circle_hint":"%s","messages":[],"x":{"a":1,"a":2}}' % HINT.encode()

    assert answered(here, twice, key=b"another" * 4) == 401
    assert answered(here, twice, key=signing.request_key(SECRET)) == 400


@pytest.mark.parametrize(
    "raw",
    [
        b'{"messages":[%s],"circle_hint":"%s"}',
        b'{"circle_hint":"other-circle","messages":[%s],"circle_hint":"%s"}',
        b'{"messages":[%s],"circle\\u005fhint":"%s"}',
        b'{"x":{"circle_hint":"other-circle"},"messages":[%s],"circle_hint":"%s"}',
    ],
)
def test_the_circle_is_found_wherever_it_stands(raw: bytes) -> None:
    here = world()
    here.register()
    raw %= (b'{"msg_id":"m-000001","circle_hint":"another-one"}', HINT.encode())

    status = answered(here, raw, key=signing.request_key(SECRET))

    assert status == (400 if raw.count(b'"other-circle"') and b'"x"' not in raw else 200)


def test_what_was_refused_for_its_body_spends_no_nonce() -> None:
    here = world()
    here.register()
    raw = body().replace(b"[]", b"7")
    headers = here.signed(*POST, raw, node=ANN, key=signing.request_key(SECRET))

    assert [here.call(*POST, raw, headers=headers)[0] for _ in range(2)] == [400, 400]


# --- by bytes -------------------------------------------------------------------------


def test_an_address_has_so_many_bytes_and_gets_more_with_time() -> None:
    here = world(unsigned="allow", address_burst_bytes=2 * MIB, address_bytes_per_s=MIB)

    assert [answered(here, body(MIB), key=None) for _ in range(4)] == [200, 200, 429, 429]
    assert answered(here, body(MIB), key=None, source_ip="192.0.2.2") == 200
    here.clock += 1
    assert [answered(here, body(MIB), key=None) for _ in range(2)] == [200, 429]


def test_bytes_are_counted_where_the_call_is_refused_unread() -> None:
    here = world(address_burst_bytes=MIB, address_bytes_per_s=1)
    headers = {"content-length": str(MIB)}

    answers = [here.call(*POST, b"", headers=headers)[0] for _ in range(2)]

    assert answers == [401, 429]


def test_whoever_has_used_up_its_bytes_may_still_make_small_calls() -> None:
    here = world(address_burst_bytes=MIB, address_bytes_per_s=1)
    here.register()
    answered(here, body(MIB), key=signing.request_key(SECRET))

    assert answered(here, body(SMALL_BYTES + 1), key=signing.request_key(SECRET)) == 429
    assert answered(here, body(SMALL_BYTES), key=signing.request_key(SECRET)) == 200
    assert here.call("GET", "/v1/peers", query={"circle_hint": HINT})[0] == 200


def test_the_limits_are_far_from_what_existing_clients_send() -> None:
    """The terminal client sends 329 kB in 64 s, and now and then there is a megabyte."""
    chosen = Settings()

    assert chosen.address_burst_bytes >= 32 * chosen.body_bytes
    assert chosen.address_bytes_per_s >= 100 * 329_000 / 64


# --- on the hosts ---------------------------------------------------------------------


@pytest.fixture(params=aws.ENGINES)
def behind(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[gateway.Gateway]:
    engine = str(request.param)
    url = request.getfixturevalue("dynalite_url") if engine == "dynalite" else ""
    limits = {"MUSTER_ADDRESS_BURST_BYTES": str(MIB), "MUSTER_ADDRESS_BYTES_PER_S": "1"}
    with aws.running(engine, directory=tmp_path, dynalite_url=url, **limits) as made:
        yield made


def test_on_aws_what_costs_nothing_comes_first(behind: gateway.Gateway) -> None:
    (ann,) = members.circle(behind, "ann")
    large = json.dumps({"circle_hint": ann.hint}).encode().ljust(MIB)

    assert behind.call(*POST, body=NO_JSON).status == 401
    assert [ann.call(*POST, large).status for _ in range(2)] == [200, 429]
    assert behind.call("GET", "/v1/health").status == 200


def test_on_one_machine_a_refusal_does_not_wait_for_the_body(tmp_path: Path) -> None:
    with local.running(tmp_path, body_s="1000") as server, closing(server.open()) as wire:
        wire.send(local.request(*POST, headers={"Content-Length": str(MIB)}))
        assert wire.answer().status == 401
        wire.send(b"x" * MIB)
        assert wire.call("GET", "/v1/health").status == 200


def test_on_one_machine_bytes_count_with_a_length_and_in_chunks(tmp_path: Path) -> None:
    few = {"address_burst_bytes": str(MIB), "address_bytes_per_s": "1"}
    chunked = {"Transfer-Encoding": "chunked"}
    for name, headers in (("told", {"Content-Length": str(MIB)}), ("chunked", chunked)):
        with (
            local.running(tmp_path / name, "--unsigned=allow", **few) as server,
            closing(server.open()) as wire,
        ):
            raw = body(MIB) if name == "told" else b"100000\r\n" + body(MIB) + b"\r\n0\r\n\r\n"
            for status in (200, 429):
                wire.send(local.request(*POST, headers=headers) + raw)
                assert wire.answer().status == status
            assert wire.call("GET", "/v1/health").status == 200
