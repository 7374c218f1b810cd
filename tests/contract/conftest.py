"""Every engine, for whoever asks for `stores` or `store`."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from chalicelib.store import Store, Stores
from tests.support.stores import ENGINES, opened


@pytest.fixture(params=ENGINES)
def engine(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def stores(engine: str, request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Stores]:
    url = request.getfixturevalue("dynalite_url") if engine == "dynalite" else ""
    with opened(engine, directory=tmp_path, dynalite_url=url) as stores:
        yield stores


@pytest.fixture
def store(stores: Stores) -> Store:
    return stores.mail
