"""Does a browser take every ICE server that a plan may name?"""

import shutil
from collections.abc import Iterator

import pytest
from playwright.sync_api import Page, sync_playwright

from chalicelib.assist import ice, plan
from tests.support import wrong

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")

pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="needs chromium: apt-get install chromium")

URLS = (
    "stun:a.example",
    "stuns:a.example:5349",
    "stun:192.0.2.1:3478",
    "stun:[2001:db8::1]",
    "turn:a_b.example",
    "turn:a.example:65535?transport=udp",
    "turn:[2001:db8::1]:3478?transport=tcp",
    "turns:a.example?transport=udp",
    "turns:a.example:443?transport=tcp",
)
OPEN = """servers => {
  try { new RTCPeerConnection({ iceServers: servers }).close(); return "opened" }
  catch (error) { return error.name }
}"""


@pytest.fixture(scope="module")
def page() -> Iterator[Page]:
    with sync_playwright() as playwright:
        started = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield started.new_page()
        started.close()


@pytest.mark.parametrize("login", [{"secret": "s"}, {"username": "u" * 508, "password": "p"}])
def test_a_browser_takes_every_server_that_a_plan_may_name(
    page: Page, login: dict[str, str]
) -> None:
    for url in URLS:
        made = plan.read(wrong.servers(url, **login))
        advised = ice.advice(made, entropy=bytes(40), now=1_800_000_000).servers
        told = [
            {"urls": list(one.urls), "username": one.username, "credential": one.credential}
            for one in advised
        ]
        assert page.evaluate(OPEN, told) == "opened", url


def test_stun_needs_no_login_and_turn_does(page: Page) -> None:
    assert plan.read(wrong.servers("stun:a.example")).ice_servers[0].username == ""
    assert page.evaluate(OPEN, [{"urls": ["stun:a.example"]}]) == "opened"
    assert page.evaluate(OPEN, [{"urls": ["turn:a.example"]}]) == "InvalidAccessError"


def test_what_a_browser_throws_on_is_refused(page: Page) -> None:
    thrown = [
        url
        for url in wrong.ICE
        if page.evaluate(OPEN, [{"urls": [url], "username": "u", "credential": "p"}]) != "opened"
    ]
    assert "stun:a.example?transport=udp" in thrown
    assert "turn://a.example" in thrown
    for url in thrown:
        with pytest.raises(ValueError, match="urls of ice servers"):
            plan.read(wrong.servers(url, username="u", password="p"))
