"""Generated calls, right and wrong, against a real service: no crash, and answers as described.

Left out is the one check that every call the schema allows is accepted: a schema cannot say
that JSON is strict (no number beyond 2^53, anywhere), nor what a signature must be.
"""

import os
import time
from collections.abc import Iterator
from typing import Any

import pytest
import requests
import schemathesis
from hypothesis import HealthCheck, settings
from schemathesis.checks import not_a_server_error
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    positive_data_acceptance,
    response_headers_conformance,
    response_schema_conformance,
    status_code_conformance,
)

from muster.felund import signing
from tests.cli.terminal import Terminal
from tools import openapi

EXAMPLES = {"quick": 12, "deep": 500}
PLENTY = "1000000"
HINT, KEY = "0123456789abcdef", bytes(range(32))
NODE = "generated-caller"

OF_THE_ANSWER = [
    not_a_server_error,
    status_code_conformance,
    content_type_conformance,
    response_headers_conformance,
    response_schema_conformance,
]

generated = schemathesis.openapi.from_dict(openapi.document())
every_operation = generated.parametrize()
some = settings(
    max_examples=EXAMPLES.get(os.environ.get("HYPOTHESIS_PROFILE", ""), EXAMPLES["quick"]),
    suppress_health_check=list(HealthCheck),
)


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Where a service listens that takes unsigned calls, and many of them; alive to the end."""
    directory = tmp_path_factory.mktemp("service")
    words = ("serve", "--port", "0", "--data", str(directory), "--unsigned", "allow")
    names = ("ADDRESS_BURST", "ADDRESS_PER_S", "NODE_BURST", "NODE_PER_S")
    limits = {f"MUSTER_{name}": PLENTY for name in names}
    with Terminal(directory).running(*words, **limits) as running:
        url = running.until(r"listens on (\S+)")[1]
        body = {"node_id": NODE, "circle_hint": HINT, "signing_key": KEY.hex()}
        pinned = requests.Request("POST", f"{url}/v1/register", json=body).prepare()
        assert requests.Session().send(_sign(pinned, NODE)).ok
        yield url
        assert requests.get(f"{url}/v1/health", timeout=20).ok
        assert running.end() == 0
        assert [line for line in running.seen if "unforeseen" in line] == []


@every_operation
@some
def test_answers_to_strangers_are_as_described(case: Any, base: str) -> None:
    case.call_and_validate(base_url=base, excluded_checks=[positive_data_acceptance])


@every_operation
@some
def test_answers_to_members_are_as_described(case: Any, base: str) -> None:
    """The same calls by somebody who holds the circle's key and signs them."""
    for part in (case.body, case.query):
        if isinstance(part, dict) and "circle_hint" in part:
            part["circle_hint"] = HINT
        if isinstance(part, dict) and "signing_key" in part:
            part["signing_key"] = KEY.hex()
    case.headers = {}
    prepared = requests.Request(**_known(case.as_transport_kwargs(base_url=base))).prepare()
    answer = requests.Session().send(_sign(prepared, _actor(case)), timeout=10)
    case.validate_response(answer, checks=OF_THE_ANSWER)


def _known(arguments: dict[str, Any]) -> dict[str, Any]:
    names = ("method", "url", "headers", "params", "data", "json", "cookies")
    return {name: arguments[name] for name in names if name in arguments}


def _actor(case: Any) -> str:
    """Return the node that a call speaks for, so that it may."""
    for part in (case.body, case.query):
        if isinstance(part, dict):
            for name in ("from_node_id", "to_node_id", "node_id"):
                named = part.get(name)
                if isinstance(named, str) and named.isascii() and named.isprintable() and named:
                    return named.strip() or NODE
    return NODE


def _sign(prepared: requests.PreparedRequest, node_id: str) -> requests.PreparedRequest:
    body = prepared.body or b""
    raw = body.encode() if isinstance(body, str) else body
    assert isinstance(raw, bytes)
    path = prepared.path_url.partition("?")[0].removeprefix("/v1")
    made = signing.headers(
        KEY,
        prepared.method or "",
        path,
        raw,
        node_id=node_id,
        now=int(time.time()),
        nonce=os.urandom(16),
    )
    prepared.headers.update(made)
    return prepared
