"""From a running service to a browser: two nodes announce, a page believes the capsule.

The page has another origin than the service, as an app has.
"""

from __future__ import annotations

import asyncio
import base64
import functools
import http.server
import re
import shutil
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Page, sync_playwright

from muster.bootstrap import bootstrap
from tests.support import javascript
from tests.support.community import key, made
from tests.support.local import Server, running

ROOT = Path(__file__).parents[2]
COMMUNITY = "town"
CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")

pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="needs chromium: apt-get install chromium")

FETCH = """async ({ url, root, community }) => {
  const { fetchCapsule } = await import("/web/muster/bootstrap/index.js");
  try {
    const found = await fetchCapsule(url, { root, community });
    return { peers: found.tickets.map((ticket) => ticket.peerId).sort(), fresh: found.fresh };
  } catch (error) {
    return { reason: error.reason ?? String(error.stack) };
  }
}"""


class Quiet(http.server.SimpleHTTPRequestHandler):
    def log_message(self, format: str, *args: object) -> None:
        pass


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A service with a capsule of two nodes."""
    with running(tmp_path_factory.mktemp("data"), "--publish-every=1") as service:
        asyncio.run(_announce(service.base))
        service.await_published(COMMUNITY, "ann", "bob")
        yield service


async def _announce(base: str) -> None:
    for name in ("ann", "bob"):
        ticket = made(name, now=int(time.time()))
        found = await bootstrap(beacons=[base], community=COMMUNITY, ticket=ticket)
        assert found.sources[0].announced, found


@pytest.fixture(scope="module")
def page() -> Iterator[Page]:
    """A page of an app, on an origin of its own."""
    handler = functools.partial(Quiet, directory=str(ROOT))
    with (
        http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as app,
        sync_playwright() as playwright,
    ):
        thread = threading.Thread(target=app.serve_forever)
        thread.start()
        flags = ["--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage"]
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=flags)
        opened = javascript.begin(browser.new_page())
        opened.goto(f"http://127.0.0.1:{app.server_port}/web/")
        yield opened
        javascript.end(opened)
        browser.close()
        app.shutdown()
        thread.join()


def fetch(page: Page, server: Server, root: str) -> Any:
    url = f"{server.base}/capsules/{COMMUNITY}/peers.json"
    return page.evaluate(FETCH, {"url": url, "root": root, "community": COMMUNITY})


def test_a_page_believes_the_capsule_by_the_printed_root_key(server: Server, page: Page) -> None:
    printed = re.search(r"root key  (\S+)", server.greeting)
    assert printed is not None

    found = fetch(page, server, printed[1])
    if "reason" in found:  # the service publishes each second, perhaps between two reads
        page.wait_for_timeout(300)
        found = fetch(page, server, printed[1])
    assert found == {"peers": ["ann", "bob"], "fresh": True}


def test_a_page_with_another_root_key_believes_nothing(server: Server, page: Page) -> None:
    other = base64.b64encode(key("mallory").verify_key.raw).decode()

    assert fetch(page, server, other) == {"reason": "ROOT_CHAIN_BROKEN"}
