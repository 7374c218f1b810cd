"""Pages of an app in real Chromium: people with a browser profile each, and what their pages did.

An app's pages come from an origin of their own, as an app that is not the service has.
"""

from __future__ import annotations

import functools
import http.server
import json
import os
import shutil
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from playwright.sync_api import Browser, BrowserContext, Page, sync_playwright

from tests.support import javascript

ROOT = Path(__file__).parents[2]
CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
FLAGS = (
    "--no-sandbox",
    "--disable-gpu",
    "--disable-dev-shm-usage",
    "--disable-features=WebRtcHideLocalIpsWithMdns",
    "--use-fake-ui-for-media-stream",
    "--use-fake-device-for-media-stream",
)
BLANK = "/tests/support/blank.html"

HARNESS = """
  window.happened = [];
  window.said = [];
  window.piped = [];
  window.hold = (circle) => {
    window.circle = circle;
    for (const type of "state peer left message change error unread rekeyed".split(" ")) {
      const note = ({ detail }) => happened.push([type, detail, Math.round(performance.now())]);
      circle.addEventListener(type, note);
    }
    return circle.me;
  };
  window.library = (path = "index.js") => import(new URL(`/web/muster/${path}`, location.href));
  window.until = async (check, ms = 15000) => {
    const end = performance.now() + ms;
    for (;;) {
      const found = await check();
      if (found) return found;
      if (performance.now() > end) {
        const told = JSON.stringify(happened.filter(([type]) => type === "state").slice(-6));
        throw new Error(`not in ${ms} ms: ${check} ${told}`);
      }
      await new Promise((resolve) => setTimeout(resolve, 20));
    }
  };
"""


class Quiet(http.server.SimpleHTTPRequestHandler):
    """Files of a directory; what a browser asks for is not written down."""

    def guess_type(self, path: str | os.PathLike[str]) -> str:
        is_script = str(path).endswith((".js", ".mjs"))
        return "text/javascript" if is_script else super().guess_type(path)

    def log_message(self, format: str, *args: object) -> None:
        pass


@dataclass
class Person:
    """Somebody with a browser profile, and a page that holds a circle."""

    context: BrowserContext
    page: Page
    errors: list[str] = field(default_factory=list)

    def run(self, script: str, argument: Any = None) -> Any:
        """Run a script in the page: the body of an async function of ``given``."""
        return self.page.evaluate(f"async (given) => {{ {script} }}", argument)

    def join(self, invite: str, **options: Any) -> Any:
        """Go in by an invite; returns who this is."""
        return self.run(
            """const { Circle } = await library();
            return hold(await Circle.join(given.invite, given.options))""",
            {"invite": invite, "options": options},
        )

    def create(self, service: str | None, **options: Any) -> str:
        """Make a circle; returns the invite."""
        self.run(
            """const { Circle } = await library();
            hold(await Circle.create({ services: given.services, ...given.options }))""",
            {"services": [service] if service else [], "options": options},
        )
        return str(self.run("return circle.invite()"))

    def until(self, check: str, argument: Any = None, ms: int = 15_000) -> Any:
        """Wait until an expression of the page is true; returns it."""
        return self.page.evaluate(
            f"([given, ms]) => until(async () => ({check}), ms)", [argument, ms]
        )

    def post(self, text: str, channel: str = "general") -> Any:
        return self.run("return circle.post(given[0], given[1])", [channel, text])

    def texts(self, channel: str = "general") -> list[str]:
        """What is shown of a channel."""
        script = "return (await circle.history(given, { limit: 5000 })).map((one) => one.text)"
        return list(self.run(script, channel))

    def reads(self, text: str, channel: str = "general", ms: int = 15_000) -> Any:
        """Wait until a text is shown; returns the message."""
        check = (
            "(await circle.history(given[0], { limit: 200 })).find((one) => one.text === given[1])"
        )
        return self.until(check, [channel, text], ms)

    def sees(self, name: str, path: str = "", ms: int = 15_000) -> Any:
        """Wait until somebody is there, by a path if one is given; returns the peer."""
        check = """[...circle.peers.values()].find(
            (one) => one.name === given[0] && (!given[1] || one.path === given[1]))"""
        return self.until(check, [name, path], ms)

    def loses(self, name: str, ms: int = 15_000) -> None:
        self.until("![...circle.peers.values()].some((one) => one.name === given)", name, ms)


class Pages:
    """A browser, an app's origin, and the people in it."""

    def __init__(self, browser: Browser, origin: str) -> None:
        self.browser, self.origin = browser, origin
        self.people: list[Person] = []

    def person(self, path: str = BLANK) -> Person:
        """Open a page for somebody new."""
        return self.tab(self.browser.new_context(), path)

    def tab(self, context: BrowserContext, path: str = BLANK) -> Person:
        """Open one more page of a profile."""
        page = javascript.begin(context.new_page())
        person = Person(context, page)
        page.on("pageerror", lambda error: person.errors.append(str(error)))
        page.add_init_script(HARNESS)
        page.goto(path if path.startswith("http") else self.origin + path)
        self.people.append(person)
        return person

    def close(self) -> None:
        """Close all that was opened; nothing may have been thrown in any page."""
        found = [error for person in self.people for error in person.errors]
        for context in list(self.browser.contexts):
            javascript.end(context)
            context.close()
        self.people.clear()
        assert not found, found


@contextmanager
def serving_files(directory: Path | None = None) -> Iterator[str]:
    """Serve a directory on an origin of its own, by default the checkout."""
    handler = functools.partial(Quiet, directory=str(directory or ROOT))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}"
        finally:
            server.shutdown()
            thread.join()


@contextmanager
def browsing(flags: Sequence[str] = ()) -> Iterator[Pages]:
    """Start Chromium, and an origin for an app."""
    with serving_files() as origin, sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=[*FLAGS, *flags])
        try:
            yield Pages(browser, origin)
        finally:
            browser.close()


def told(**figures: Any) -> None:
    """Print what a test measured; nothing depends on it."""
    print(json.dumps({"measured": figures, "at": int(time.time())}))
