"""Two pages joined by the relay and by WebRTC: one takes over from the other, and nothing is lost.

Signals and frames go through the test, by a channel between the pages; peer connections are
the browser's own.
"""

from __future__ import annotations

import functools
import http.server
import shutil
import threading
import time
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Browser, Page, sync_playwright

from tests.browser.conftest import TURN_SECRET
from tests.support import javascript

ROOT = Path(__file__).parents[2]
CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
FLAGS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-dev-shm-usage",
    "--disable-features=WebRtcHideLocalIpsWithMdns",
    "--allow-loopback-in-peer-connection",
    "--enable-precise-memory-info",
    "--js-flags=--expose-gc",
    "--use-fake-device-for-media-stream",
    "--use-fake-ui-for-media-stream",
]

pytestmark = [
    pytest.mark.skipif(CHROMIUM is None, reason="needs chromium: apt-get install chromium"),
]


MIME = {**http.server.SimpleHTTPRequestHandler.extensions_map, ".mjs": "text/javascript"}


class Quiet(http.server.SimpleHTTPRequestHandler):
    extensions_map = MIME

    def log_message(self, format: str, *args: object) -> None:
        pass


@pytest.fixture(scope="module")
def origin() -> Iterator[str]:
    handler = functools.partial(Quiet, directory=str(ROOT))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as app:
        thread = threading.Thread(target=app.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{app.server_port}/tests/browser/"
        app.shutdown()
        thread.join()


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with sync_playwright() as playwright:
        started = playwright.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        yield started
        started.close()


class Node:
    """One page, and the functions of links.mjs in it."""

    def __init__(self, page: Page) -> None:
        self.page = page
        self.errors: list[str] = []
        page.on("pageerror", lambda error: self.errors.append(str(error)))

    def __call__(self, name: str, *args: Any) -> Any:
        """Call a function and wait for what it comes to."""
        return self.page.evaluate("([name, args]) => at[name](...args)", [name, list(args)])

    def start(self, name: str, *args: Any) -> None:
        """Call a function and go on; `ended` waits for it."""
        self.page.evaluate(
            "([name, args]) => { work[name] = at[name](...args) }", [name, list(args)]
        )

    def ended(self, name: str) -> Any:
        return self.page.evaluate("name => work[name]", name)


class Pair:
    def __init__(self, browser: Browser, origin: str) -> None:
        self.context = browser.new_context()
        self.nodes = [Node(javascript.begin(self.context.new_page())) for _ in range(2)]
        self.channel = uuid.uuid4().hex
        for node in self.nodes:
            node.page.goto(origin)
            node.page.evaluate(
                "async () => { window.work = {}; window.at = await import('./links.mjs') }"
            )

    def begin(self, **options: Any) -> tuple[Node, Node]:
        one, two = self.nodes
        one("begin", "ann", self.channel, options)
        two("begin", "bob", self.channel, options)
        return one, two


@pytest.fixture
def pair(browser: Browser, origin: str) -> Iterator[Pair]:
    made = Pair(browser, origin)
    yield made
    javascript.end(made.context)
    made.context.close()
    assert [node.errors for node in made.nodes] == [[], []]


def test_webrtc_takes_over_and_gives_back_and_nothing_is_lost_or_doubled(pair: Pair) -> None:
    one, two = pair.begin()
    began = time.monotonic()
    one("open")
    for node in (one, two):
        node.start("reads")
        node.start("sends", 0, 1000)
    for node in (one, two):
        node("path", "webrtc")
    print(f"\ndata channel after {time.monotonic() - began:.2f} s")
    for node in (one, two):
        node.ended("sends")
        node.start("sends", 1000, 2000)
    one("closePeerConnection")
    for node in (one, two):
        node.ended("sends")
        assert node("heard", 2000)
        node("untilPaths", ["relay", "webrtc", "relay", "webrtc"])  # by a new peer connection
    one("close")
    two.ended("reads")
    assert two("said")["path"][-1] == "none"


def test_messages_go_on_over_the_data_channel_while_the_relay_is_cut(pair: Pair) -> None:
    one, two = pair.begin()
    one("open")
    for node in (one, two):
        node("path", "webrtc")
        node("cut", True)
        node.start("reads")
    one.start("sends", 0, 500)
    two("sends", 0, 500)
    one.ended("sends")
    assert one("heard", 500)
    assert two("heard", 500)
    one("closePeerConnection")
    two("path", "none")
    one.start("sends", 500, 600)
    time.sleep(0.3)
    for node in (one, two):
        node("cut", False)
        node("check")
    one.ended("sends")
    assert two("heard", 600)


def test_an_ice_restart_keeps_the_link_and_both_may_begin_one_at_once(pair: Pair) -> None:
    one, two = pair.begin()
    one.start("open")
    two.start("open")
    for node in (one, two):
        node.ended("open")
        node("path", "webrtc")
        node.start("reads")
    before = [one("ufrag"), two("ufrag")]
    for node in (one, two):
        node.start("sends", 0, 400)
        node("restart")
    for node, was in zip((one, two), before, strict=True):
        node.page.wait_for_function("was => at.ufrag() !== was", arg=was)
        node.ended("sends")
        assert node("heard", 400)
        assert node("said")["path"] == ["relay", "webrtc"]
        assert not node("peerConnection")["dead"]


def test_a_file_of_20_mb_goes_by_pipes_and_messages_pass_it(pair: Pair) -> None:
    one, two = pair.begin()
    one("open")
    for node in (one, two):
        node("path", "webrtc")
        node("listens")
    one.start("sendFile", 20_000_000)
    one("sendPipe", "chat", {"text": "meanwhile"})
    one("sendPipe", "cursor", [1, 2], {"reliable": False})
    sent = one.ended("sendFile")
    two("until_heard", 3)
    heard = two("said")["heard"]
    peak = two("said")["peak"]
    print(f"\n20 MB in {sent['ms']:.0f} ms, {peak / 1e6:.1f} MB of the heap at the most")
    assert peak < 20_000_000
    assert sorted(name for name, _ in heard) == ["chat", "cursor", "files"]
    assert heard[-1][0] == "files"
    assert heard[-1][1] == {
        "name": "holiday.bin",
        "type": "application/x-test",
        "size": 20_000_000,
        "hash": sent["hash"],
    }
    assert sent["told"] == 20_000_000
    assert one("stats")["sent"] > 20_000_000


def test_what_a_member_lies_in_sdp_costs_it_its_own_connection_alone(pair: Pair) -> None:
    one, two = pair.begin(rtc=True)
    one("open")
    for node in (one, two):
        node("path", "webrtc")
        node.start("reads")
    for body in (
        {"description": {"type": "offer", "sdp": "v=0\r\no=- 5 5 IN IP4 0.0.0.0\r\n"}},
        {"description": {"type": "answer", "sdp": "nonsense"}},
        {"description": {"type": "offer", "sdp": "x" * 20_000}},
        {
            "candidates": [{"candidate": "candidate:1 1 udp 1 192.0.2.1 9 typ host", "sdpMid": "9"}]
            * 32
        },
        {
            "candidates": [{"candidate": "nonsense", "sdpMid": "0", "usernameFragment": "never"}]
            * 32
        },
        {"candidates": 5},
    ):
        two("lie", body)
    one.start("sends", 0, 200)
    assert two("heard", 200)
    offer = two.page.evaluate(
        "at.offer(pc => { pc.addTransceiver('video'); pc.createDataChannel('more') })"
    )
    two("lie", {"description": offer})
    one.start("sends", 200, 400)
    assert two("heard", 400)
    two("until_declined")


def test_turn_alone_carries_it_and_logins_are_renewed_before_they_end(
    pair: Pair, coturn: str
) -> None:
    one, two = pair.begin(turn={"urls": coturn, "secret": TURN_SECRET, "lasts": 52}, policy="relay")
    one("open")
    for node in (one, two):
        node("path", "webrtc")
        node.start("reads")
    stats = one("stats")
    assert (stats["local"], stats["remote"]) == ("relay", "relay")
    before = one("ufrag")
    one.start("sends", 0, 2000)
    one.page.wait_for_function("was => at.said().logins > 1 && at.ufrag() !== was", arg=before)
    one.ended("sends")
    assert two("heard", 2000)
    assert one("said")["path"] == ["relay", "webrtc"]
    one("close")


def test_without_peer_connections_the_relay_carries_all(pair: Pair) -> None:
    one, two = pair.begin(rtc=False)
    one("open")
    two.start("reads")
    one("sends", 0, 300)
    assert two("heard", 300)
    assert one("said")["path"] == ["relay"]
    assert set(one("said")["signals"]) == {"key"}


def test_a_call_of_two_goes_on_over_restarts_and_another_peer_connection(pair: Pair) -> None:
    one, two = pair.begin()
    one("open")
    for node in (one, two):
        node("path", "webrtc")
    offers = one("said")["signals"].count("description") + two("said")["signals"].count(
        "description"
    )
    one("startCall")
    one.page.wait_for_timeout(300)  # two is not in the call yet, and declines
    assert two("kinds") == []
    two("startCall")
    for node in (one, two):
        node("untilKinds", "audio,video")
        node("untilMedia")
    now = one("said")["signals"].count("description") + two("said")["signals"].count("description")
    print(
        f"\n{now - offers} descriptions for a call,"
        f" the largest of {max(one('said')['sizes'])} bytes"
    )
    one("restart")
    for node in (one, two):
        node("untilMedia")
        assert node("said")["path"] == ["relay", "webrtc"]
    one("replaceTrack")
    two("untilMedia")
    one("removeTrack", "video")
    two("untilKinds", "audio")
    one("addTrack", {"video": True})
    two("untilKinds", "audio,video")
    two("untilMedia")
    two("closePeerConnection")
    for node in (one, two):
        node("untilPaths", ["relay", "webrtc", "relay", "webrtc"])
        node("untilKinds", "audio,video")
        node("untilMedia")
    one("endCall")
    two("untilKinds", "")
    one("startCall", {"audio": True})
    two("untilKinds", "audio")
    two("endCall")
