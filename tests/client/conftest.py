"""Real services to speak with: the one-machine host, and the AWS host behind a gateway."""

from __future__ import annotations

from collections.abc import Iterator

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
