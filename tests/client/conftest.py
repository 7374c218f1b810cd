"""Real services to speak with: the one-machine host, and the AWS host behind a gateway."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support import aws, local
from tests.support.serving import serving


@pytest.fixture(scope="session", params=["one machine", "aws"])
def service(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[str]:
    """The base URL of a running service; circles of different tests do not meet."""
    directory = tmp_path_factory.mktemp("service")
    if request.param == "aws":
        with aws.running("sqlite", directory=directory) as gateway, serving(gateway) as base:
            yield base
        assert gateway.crashes == []
    else:
        with local.running(directory) as server:
            yield server.base


@pytest.fixture(params=["one machine", "sqlite", "dynalite"])
def base(request: pytest.FixtureRequest, tmp_path: Path, dynalite_url: str) -> Iterator[str]:
    """A service of either host, on every engine; behind the emulated gateway, sockets too."""
    if request.param == "one machine":
        with local.running(tmp_path) as found:
            yield found.base
        return
    with (
        aws.running(request.param, directory=tmp_path, dynalite_url=dynalite_url) as gateway,
        serving(gateway) as url,
        aws.environ({"MUSTER_WEBSOCKET_URL": url.replace("http", "ws", 1) + "/v2/socket"}),
    ):
        yield url
    assert gateway.crashes == []
