"""Every engine, for whoever asks for `stores` or `store`."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from chalicelib.store import Store, Stores
from tests.support import moto_http
from tests.support.stores import ENGINES, opened


@pytest.fixture(scope="session")
def moto_url() -> Iterator[str]:
    """Where moto listens, for who cannot be patched."""
    with moto_http.running() as url:
        yield url


@pytest.fixture(params=[*ENGINES, "moto, signed"])
def engine(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def stores(engine: str, request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Stores]:
    emulator, _, signed = engine.partition(", ")
    served = emulator == "dynalite" or signed
    url = request.getfixturevalue(f"{emulator}_url") if served else ""
    with opened(engine, directory=tmp_path, dynalite_url=url) as stores:
        yield stores


@pytest.fixture
def store(stores: Stores) -> Store:
    return stores.mail
