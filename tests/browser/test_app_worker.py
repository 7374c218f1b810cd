"""The app's service worker in Chromium: what it keeps and leaves alone, how a newer one comes."""

from __future__ import annotations

import http.server
import json
import shutil
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from playwright.sync_api import BrowserContext, Page

from tests.support import aws, local, web_app
from tests.support.pages import ROOT, Pages, Person

APP = ROOT / "web/app"
PAGE = """<!doctype html><title>%(version)s</title>
<script type="module" src="./app.%(version)s.js"></script>"""
MAIN = """
  import { applyUpdate, check, register } from "./worker-client.js";
  Object.assign(window, { applyUpdate, check, waiting: 0 });
  window.later = () => import("./later.%(version)s.js").then(({ version }) => version);
  window.registered = register({ onUpdate: () => (window.waiting += 1) });
"""


@dataclass
class Site:
    """A service with the app of one version at a time, and an API that counts."""

    origin: str = ""
    version: str = ""
    files: dict[str, tuple[str, str]] = field(default_factory=dict)
    asked: list[str] = field(default_factory=list)
    is_down: bool = False
    policy: str = ""

    def has(self, version: str, *, page: str = "") -> None:
        """Serve a version; its page may be of another one."""
        told = {"version": version}
        immutable = "max-age=31536000, immutable"
        names = [f"./app.{version}.js", f"./later.{version}.js", "./worker-client.js"]
        line = json.dumps({"version": version, "files": ["./", *names]})
        worker = f"const MUSTER = {line};\n" + (APP / "worker.js").read_text()
        client = (APP / "model/worker-client.js").read_text()
        self.version = version
        self.files = {
            "/app/": (PAGE % {"version": page or version}, "no-cache"),
            f"/app/app.{version}.js": (MAIN % told, immutable),
            f"/app/later.{version}.js": (f"export const version = '{version}';", immutable),
            "/app/worker-client.js": (client, "no-cache"),
            "/app/sw.js": (worker, "no-cache"),
            "/app/muster/index.js": ("export const library = 1;", "max-age=300"),
            "/blank": ("<!doctype html>", "no-store"),
        }

    def answer(self, handler: http.server.BaseHTTPRequestHandler) -> None:
        path = handler.path.partition("?")[0]
        self.asked.append(path)
        if self.is_down:
            handler.close_connection = True
            return
        body, cache = self.files.get(path, ("", ""))
        if path == "/v2/info":
            body, cache = str(self.asked.count(path)), "max-age=300"
        kind = "text/javascript" if path.endswith(".js") else "text/html"
        handler.send_response(200 if body else 404)
        handler.send_header("Content-Type", kind)
        handler.send_header("Cache-Control", cache)
        handler.send_header("Vary", "Accept-Encoding")
        if self.policy:
            handler.send_header("Content-Security-Policy", self.policy)
        handler.send_header("Content-Length", str(len(body.encode())))
        handler.end_headers()
        handler.wfile.write(body.encode())


@pytest.fixture
def site() -> Iterator[Site]:
    made = Site()

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            made.answer(self)

        do_POST = do_GET

        def log_message(self, format: str, *args: object) -> None:
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        made.origin = f"http://127.0.0.1:{server.server_port}"
        made.has("one")
        yield made
        server.shutdown()
        thread.join()


def opened(pages: Pages, site: Site, context: BrowserContext | None = None) -> Person:
    """Open the app in a tab, and wait until it is kept."""
    page = (context or pages.browser.new_context()).new_page()
    person = Person(page.context, page)
    page.on("pageerror", lambda error: person.errors.append(str(error)))
    pages.people.append(person)
    page.goto(f"{site.origin}/app/")
    taken(page)
    return person


def taken(page: Page) -> None:
    """Wait until the worker answers for the page."""
    page.evaluate(
        """async () => {
        const { serviceWorker } = navigator;
        const come = new Promise((resolve) => (serviceWorker.oncontrollerchange = resolve));
        if (!serviceWorker.controller) await come;
        }"""
    )


def kept(page: Page) -> dict[str, list[str]]:
    """The caches of the origin, and the paths in each."""
    return dict(
        page.evaluate(
            """async () => Object.fromEntries(await Promise.all((await caches.keys()).map(
            async (name) => [name, (await (await caches.open(name)).keys())
                .map(({ url }) => new URL(url).pathname).sort()])))"""
        )
    )


def listed(version: str) -> dict[str, list[str]]:
    names = ["", f"app.{version}.js", f"later.{version}.js", "worker-client.js"]
    return {f"muster {version}": [f"/app/{name}" for name in names]}


def test_the_app_opens_without_a_network_after_the_first_load(pages: Pages, site: Site) -> None:
    page = opened(pages, site).page
    assert kept(page) == listed("one")
    site.is_down = True
    site.asked.clear()
    for address in ("/app/", "/app/?profile=work", "/app/#/circle"):
        page.goto(site.origin + address)
        assert page.title() == "one"
        assert page.evaluate("later()") == "one"
    page.reload()
    assert page.evaluate("registered") is True
    assert not [path for path in site.asked if path not in ("/app/sw.js", "/favicon.ico")]


def test_what_services_say_is_never_kept_nor_what_is_not_listed(pages: Pages, site: Site) -> None:
    page = opened(pages, site).page
    api = "(how) => fetch('/v2/info', how).then((one) => one.text(), () => 'no network')"
    first, second = [page.evaluate(api, {"cache": "no-store"}) for _ in range(2)]
    assert int(second) == int(first) + 1
    page.evaluate("import('/app/muster/index.js')")
    page.evaluate("Promise.all([fetch('./?x=1'), fetch('./', { method: 'POST' })])")
    assert kept(page) == listed("one")
    site.is_down = True
    assert page.evaluate(api, {"cache": "no-store"}) == "no network"
    assert page.evaluate("fetch('./?x=1').catch(() => 'no network')") == "no network"


def test_a_newer_version_waits_until_it_is_let_begin_and_all_tabs_follow(
    pages: Pages, site: Site
) -> None:
    ours = opened(pages, site)
    tabs = [ours.page, opened(pages, site, ours.context).page]
    site.has("two")
    tabs[0].evaluate("check()")
    for tab in tabs:
        tab.wait_for_function("waiting === 1")
    tabs[0].reload()
    assert [tab.title() for tab in tabs] == ["one", "one"]
    tabs[0].wait_for_function("waiting === 1")  # who loads it again is asked again
    assert tabs[0].evaluate("later()") == "one"  # of one version, though there is another
    loads = [tab.evaluate("performance.timeOrigin") for tab in tabs]
    assert tabs[1].evaluate("applyUpdate()")
    for tab, before in zip(tabs, loads, strict=True):
        tab.wait_for_function("(before) => performance.timeOrigin !== before", arg=before)
        tab.wait_for_function("document.title === 'two' && window.later")
        assert tab.evaluate("later()") == "two"
    assert kept(tabs[0]) == listed("two")
    assert tabs[0].evaluate("[applyUpdate(), waiting]") == [False, 0]


def test_a_newer_version_is_looked_for_when_the_page_is_seen_again(
    pages: Pages, site: Site
) -> None:
    page = opened(pages, site).page
    site.has("two")
    page.evaluate("document.dispatchEvent(new Event('visibilitychange'))")
    page.wait_for_function("waiting === 1")
    asked = site.asked.count("/app/sw.js")
    page.evaluate("document.dispatchEvent(new Event('visibilitychange')), check()")
    assert site.asked.count("/app/sw.js") == asked  # once a minute at most


def test_a_newer_version_begins_by_itself_when_no_tab_is_open(pages: Pages, site: Site) -> None:
    ours = opened(pages, site)
    other = ours.context.new_page()
    other.goto(f"{site.origin}/blank")
    site.has("two")
    ours.page.evaluate("check()")
    ours.page.wait_for_function("waiting === 1")
    ours.page.close()
    other.wait_for_function(
        """async () => !(await navigator.serviceWorker.getRegistration("/app/")).waiting
        && (await caches.keys()).join() === "muster two" """
    )
    other.goto(f"{site.origin}/app/")
    assert other.title() == "two"


def test_a_cache_that_is_wiped_is_done_without_and_filled_again(pages: Pages, site: Site) -> None:
    page = opened(pages, site).page
    assert page.evaluate("caches.delete('muster one')")
    page.reload()
    assert page.title() == "one"
    page.wait_for_function("caches.match('./').then(Boolean)")
    site.is_down = True
    page.reload()
    assert page.evaluate("later()") == "one"

    # all of the site's storage, the worker too
    site.is_down = False
    devtools = page.context.new_cdp_session(page)
    wiped = {"origin": site.origin, "storageTypes": "all"}
    devtools.send("Storage.clearDataForOrigin", wiped)
    page.reload()
    taken(page)
    assert kept(page) == listed("one")


def test_files_of_two_versions_are_never_kept_together(pages: Pages, site: Site) -> None:
    site.has("one", page="two")  # a service that is being updated
    page = pages.browser.new_context().new_page()
    page.goto(f"{site.origin}/blank")
    found = page.evaluate(
        """async () => {
        const found = await navigator.serviceWorker.register("/app/sw.js", { scope: "/app/" });
        const { installing } = found;
        await new Promise((resolve) => (installing.onstatechange = resolve));
        return [installing.state, Boolean(found.active), await caches.keys()];
        }"""
    )
    assert found == ["redundant", False, []]


def test_the_worker_begins_where_scripts_must_pass_a_policy(pages: Pages, site: Site) -> None:
    page = pages.browser.new_context().new_page()
    for named, expected in (("muster", True), ("'none'", False)):
        site.policy = f"require-trusted-types-for 'script'; trusted-types {named}"
        page.goto(f"{site.origin}/app/")
        assert page.evaluate("registered") is expected
        page.evaluate("navigator.serviceWorker.getRegistration().then((one) => one?.unregister())")


def test_a_notification_shows_its_channel_in_the_tab_that_has_it(pages: Pages, site: Site) -> None:
    ours = opened(pages, site)
    circle, channel, other = "a" * 32, "b" * 32, "c" * 32
    tabs = [ours.page, opened(pages, site, ours.context).page]
    tabs[0].evaluate("(one) => (location.hash = `#/${one}`)", f"{other}/{channel}")
    tabs[1].evaluate("(one) => (location.hash = `#/${one}`)", f"{circle}/{other}")
    [worker] = ours.context.service_workers
    click = """([data, tabs]) => {
      const opened = [];
      clients.openWindow = async (url) => opened.push(url);
      if (!tabs) clients.matchAll = async () => [];
      const event = new ExtendableEvent("notificationclick");
      const over = new Promise((resolve) => (event.waitUntil = (work) => resolve(work)));
      event.notification = { data, close: () => opened.push("closed") };
      dispatchEvent(event);
      return over.then((work) => work).then(() => opened);
    }"""
    shows = {"circle": circle, "channel": channel}
    assert worker.evaluate(click, [shows, True]) == ["closed"]
    tabs[1].wait_for_function("(one) => location.hash === one", arg=f"#/{circle}/{channel}")
    assert tabs[0].evaluate("location.hash") == f"#/{other}/{channel}"
    assert worker.evaluate(click, [shows, False]) == ["closed", f"./#/{circle}/{channel}"]
    hostile = {"circle": "//elsewhere.example", "channel": 1}
    assert worker.evaluate(click, [hostile, False]) == ["closed", "./"]


def test_an_installed_app_opens_when_its_service_is_gone_and_updates_when_it_is_back(
    pages: Pages, tmp_path: Path
) -> None:
    web = tmp_path / "code/web"
    shutil.copytree(ROOT / "web", web, ignore=shutil.ignore_patterns("examples", "types"))
    (web / "app/main.js").unlink()  # then there is the packed app alone
    page = pages.browser.new_context().new_page()
    with web_app.on_one_machine(web, tmp_path / "data") as server:
        page.goto(f"{server.base}/app/")
        taken(page)
        [(name, paths)] = kept(page).items()
        version = name.removeprefix("muster ")
        assert {"/app/", f"/app/app.{version}.js", f"/app/later.{version}.js"} <= set(paths)
        assert not [path for path in paths if "sw.js" in path or "muster/" in path]
        port = f"--port={server.port}"
    page.reload()
    page.get_by_role("heading", level=1).wait_for()

    packed = web / "app/packed/app.js"
    packed.write_text(packed.read_text() + "globalThis.isNewer = true;\n")
    code = {"PYTHONPATH": str(web.parent), "PYTHONSAFEPATH": "1"}
    with aws.environ(code), local.running(tmp_path / "data", port):
        page.evaluate("document.dispatchEvent(new Event('visibilitychange'))")
        restart = page.get_by_role("button", name="Restart")
        restart.wait_for()
        assert not page.evaluate("globalThis.isNewer")
        with page.expect_navigation():
            restart.click()
        page.get_by_role("heading", level=1).wait_for()
        assert page.evaluate("globalThis.isNewer")
        assert len(kept(page)) == 1
        assert name not in kept(page)
