"""A browser, and services of both hosts for its pages."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.support import aws, local
from tests.support.members2 import address
from tests.support.pages import CHROMIUM, Pages, browsing
from tests.support.serving import serving


@pytest.fixture(scope="module")
def browser() -> Iterator[Pages]:
    if CHROMIUM is None:
        pytest.skip("needs chromium: apt-get install chromium")
    with browsing() as pages:
        yield pages


@pytest.fixture
def pages(browser: Pages) -> Iterator[Pages]:
    """People with fresh profiles; whatever a page throws fails the test."""
    yield browser
    browser.close()


@pytest.fixture(scope="module", params=["one machine", "aws"])
def service(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[str]:
    """The whole address of a running service of each host."""
    directory = tmp_path_factory.mktemp("service")
    if request.param == "one machine":
        with local.running(directory) as server:
            yield address(server.base).text
        return
    with (
        aws.running("sqlite", directory=directory, **local.GENEROUS) as gateway,
        serving(gateway) as url,
        aws.environ({"MUSTER_WEBSOCKET_URL": url.replace("http", "ws", 1) + "/v2/socket"}),
    ):
        yield address(url).text
    assert gateway.crashes == []
