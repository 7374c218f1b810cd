"""The AWS host behind a gateway, on every engine."""

from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest

from tests.support import aws, faults
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


@pytest.fixture
def way(dynalite_url: str) -> Iterator[faults.Way]:
    with faults.way(dynalite_url) as opened:
        yield opened


@pytest.fixture
def shaky(way: faults.Way, tmp_path: Path) -> Iterator[Gateway]:
    """A gateway whose DynamoDB can be spoiled."""
    with aws.running("dynalite", directory=tmp_path, dynalite_url=way.url) as made:
        yield made
    assert made.crashes == []
