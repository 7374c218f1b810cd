"""The JavaScript verifier in a real browser: the golden files, and a capsule fetched by URL."""

from __future__ import annotations

import functools
import http.server
import json
import shutil
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Page, sync_playwright

from tests.support import javascript

REPOSITORY = Path(__file__).parents[2]
CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")

pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="needs chromium: apt-get install chromium")

RUN = """async ({ file }) => {
  const c = await import("/web/muster/bootstrap/index.js");
  const bytes = (text) => new TextEncoder().encode(text);
  const run = {
    tickets: ({ ticket, now_ms: nowMs, rules = {}, peer_id: peerId, user_id: userId }) =>
      c.verifyTicket(ticket, { nowMs, peerId, userId,
        rules: { ...rules, maxLifetimeMs: rules.max_lifetime_ms } }),
    capsules: ({ capsule, verify_key, now_ms: nowMs }) =>
      c.verifyCapsule(bytes(capsule), verify_key, { nowMs }),
    trust: ({ state, community, now, manifest, capsule, signature, pinned }) => {
      const options = { community: community ?? undefined, now };
      const files = { manifest: bytes(manifest), capsule: bytes(capsule),
        signature: signature === null ? undefined : bytes(signature) };
      return pinned ? c.acceptPinned(c.readState(state), files.capsule, pinned, options)
        : c.accept(c.readState(state), files, options);
    },
  }[file];
  const answers = {};
  for (const { name, input } of await (await fetch(`/tests/golden/${file}.json`)).json()) {
    try {
      await run(input);
      answers[name] = "ok";
    } catch (error) {
      answers[name] = error.reason ?? String(error.stack);
    }
  }
  return answers;
}"""

FETCH = """async ({ root, now }) => {
  const c = await import("/web/muster/bootstrap/index.js");
  const url = new URL("/published/peers.json", location.href).href;
  const { tickets, fresh } = await c.fetchCapsule(url, { root, community: "mainnet", now });
  return { peers: tickets.map((ticket) => ticket.peerId), fresh };
}"""


def golden(name: str) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = json.loads(
        (REPOSITORY / "tests" / "golden" / f"{name}.json").read_text("utf-8")
    )
    return found


REFUSED = """async ({ root, now }) => {
  const c = await import("/web/muster/bootstrap/index.js");
  const answer = (promise) => promise.then(() => "ok", (e) => `${e.message} ${!!e.state}`);
  const url = new URL("/published/peers.json", location.href).href;
  const read = async (name) => new Uint8Array(await (await fetch(url + name)).arrayBuffer());
  const files = { manifest: await read(".manifest"), capsule: await read("") };
  const at = { community: "mainnet", now };
  return [
    await answer(c.fetchCapsule(url, { root, ...at })),
    await answer(c.accept(c.begin(root), files, at)),
    await answer(c.acceptPinned(c.begin(root), files.capsule, root, at)),
  ];
}"""

ELSEWHERE = "muster.test"
"""A name that is not localhost's: what it serves without TLS is no secure context."""

FIRST = next(case for case in golden("trust") if case["name"] == "trust: the first capsule")
PUBLISHED = {
    "/published/peers.json": FIRST["input"]["capsule"],
    "/published/peers.json.manifest": FIRST["input"]["manifest"],
}


class Files(http.server.SimpleHTTPRequestHandler):
    """The repository, and a published capsule."""

    def do_GET(self) -> None:
        if self.path not in PUBLISHED:
            super().do_GET()
            return
        body = PUBLISHED[self.path].encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:
        pass


@pytest.fixture(scope="module")
def page() -> Iterator[Page]:
    handler = functools.partial(Files, directory=str(REPOSITORY))
    with (
        http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server,
        sync_playwright() as playwright,
    ):
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        flags = ["--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage"]
        flags.append(f"--host-resolver-rules=MAP {ELSEWHERE} 127.0.0.1")
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=flags)
        made = javascript.begin(browser.new_context().new_page())
        made.goto(f"http://127.0.0.1:{server.server_port}/web/")
        yield made
        javascript.end(made)
        browser.close()
        server.shutdown()
        thread.join()


@pytest.mark.parametrize("file", ["tickets", "capsules", "trust"])
def test_a_browser_says_what_python_says(page: Page, file: str) -> None:
    answers = page.evaluate(RUN, {"file": file})

    assert answers == {case["name"]: case["expect"] for case in golden(file)}


def test_a_browser_fetches_a_capsule_by_its_url(page: Page) -> None:
    given = FIRST["input"]
    root = given["state"]["root"]["verify_key"]
    found = page.evaluate(FETCH, {"root": root, "now": given["now"]})

    assert found == {"peers": FIRST["output"]["peers"], "fresh": True}


def test_a_page_from_plain_http_is_told_so_and_hears_of_no_forgery(page: Page) -> None:
    given = FIRST["input"]
    elsewhere = javascript.begin(page.context.new_page())
    elsewhere.goto(page.url.replace("127.0.0.1", ELSEWHERE))
    assert not elsewhere.evaluate("isSecureContext")

    told = elsewhere.evaluate(
        REFUSED, {"root": given["state"]["root"]["verify_key"], "now": given["now"]}
    )
    javascript.end(elsewhere)
    elsewhere.close()

    advice = "browsers verify signatures only for pages from https or localhost: open this page"
    assert told == [f"UNSUPPORTED: {advice} there true"] * 3
