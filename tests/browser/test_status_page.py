"""The status page in a real browser, on a running service."""

import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Browser, Page, Request, expect, sync_playwright

from tests.support.local import Server, circle, running

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")

pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="needs chromium: apt-get install chromium")


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with running(tmp_path_factory.mktemp("server")) as made:
        yield made


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    flags = ["--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage"]
    with sync_playwright() as playwright:
        started = playwright.chromium.launch(executable_path=CHROMIUM, args=flags)
        yield started
        started.close()


@pytest.fixture
def asked() -> list[str]:
    """What the page asked for."""
    return []


@pytest.fixture
def page(browser: Browser, asked: list[str]) -> Iterator[Page]:
    """A page on which an error or a message on the console fails the test."""
    made = browser.new_page()
    complaints: list[str] = []

    def note(request: Request) -> None:
        asked.append(request.url)

    made.on("request", note)
    made.on("console", lambda message: complaints.append(message.text))
    made.on("pageerror", lambda error: complaints.append(str(error)))
    yield made
    made.close()
    assert complaints == []


def tile(page: Page, name: str) -> str:
    found = page.locator(".tile", has=page.get_by_text(name, exact=True)).locator("b")
    return found.inner_text()


def test_it_shows_that_the_service_lives_and_keeps_up_with_it(
    server: Server, page: Page, asked: list[str]
) -> None:
    ann, bob = circle(server, "ann", "bob")
    page.goto(server.base)
    expect(page.locator("#word")).to_have_text("alive")
    expect(page.locator("#policy")).to_have_text("signed calls only")
    assert tile(page, "nodes") == "2"
    assert tile(page, "sockets") == "0"

    with bob.subscribe():
        ann.leave("message-0001")
        nodes = page.locator(".tile", has_text="sockets").locator("b")
        expect(nodes).to_have_text("1", timeout=10_000)
    row = page.locator("#routes tr", has_text="/v1/register")
    expect(row.locator("td").nth(1)).to_have_text("2")
    assert {url.removeprefix(server.base) for url in asked} <= {"/", "/status.json"} | {
        url for url in asked if url.startswith("data:")
    }
    text = page.inner_text("body")
    for secret in (ann.hint, ann.node_id, bob.node_id):
        assert secret not in text


@pytest.mark.parametrize("width", [320, 390, 768, 1280])
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_it_fits_every_screen(server: Server, page: Page, width: int, scheme: str) -> None:
    page.emulate_media(color_scheme="dark" if scheme == "dark" else "light")
    page.set_viewport_size({"width": width, "height": 800})
    page.goto(server.base)
    expect(page.locator("#word")).to_have_text("alive")
    page.locator("summary").click()

    assert page.evaluate("document.documentElement.scrollWidth") <= width
    if folder := os.environ.get("MUSTER_SCREENSHOTS"):
        page.screenshot(path=Path(folder) / f"status-{scheme}-{width}.png", full_page=True)


def test_it_says_so_when_the_service_is_gone(
    browser: Browser, tmp_path: Path, server: Server
) -> None:
    page = browser.new_page()
    with running(tmp_path) as other:
        page.goto(other.base)
        expect(page.locator("#word")).to_have_text("alive")
        assert other.stop() == 0
    expect(page.locator("#word")).to_contain_text("no answer", timeout=15_000)
    assert "dead" in (page.locator("#state").get_attribute("class") or "")
    page.close()
