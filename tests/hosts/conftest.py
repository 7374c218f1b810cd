"""The AWS host behind a gateway, on every engine."""

from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest

from tests.support import aws
from tests.support.gateway import Gateway


@pytest.fixture(params=aws.ENGINES)
def engine(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def settings() -> Mapping[str, str]:
    """What the operator chose; tests that choose parametrize it."""
    return {}


@pytest.fixture
def gateway(
    engine: str, settings: Mapping[str, str], request: pytest.FixtureRequest, tmp_path: Path
) -> Iterator[Gateway]:
    """A gateway with one machine; what reaches Lambda as an error fails the test."""
    url = request.getfixturevalue("dynalite_url") if engine == "dynalite" else ""
    with aws.running(engine, directory=tmp_path, dynalite_url=url, **settings) as made:
        yield made
    assert made.crashes == []
    assert made.unsigned == [], "AWS was asked without a signature"
