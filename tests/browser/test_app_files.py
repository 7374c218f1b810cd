"""The packed app in Chromium, by AWS's handlers: what calls it takes, and what its policy is."""

import contextlib
import logging
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from chalicelib.app_files import ROUTE
from infra.cost import LOAD_CALLS
from tests.support import aws, web_app
from tests.support.pages import ROOT, Pages
from tests.support.serving import serving

FIRST_CALLS = 6
REGISTER = """
const policy = trustedTypes.createPolicy("muster", { createScriptURL: (url) => url });
navigator.serviceWorker.register(policy.createScriptURL("./sw.js"), { updateViaCache: "none" });
"""
WATCH = """
window.violations = [];
addEventListener("securitypolicyviolation", (event) => violations.push(event.effectiveDirective));
"""


class Calls(logging.Handler):
    """Notes the status of each call for a file, of whichever thread of the browser it is."""

    def __init__(self) -> None:
        super().__init__()
        self.statuses: list[int] = []

    def emit(self, record: logging.LogRecord) -> None:
        if record.getMessage().startswith(f"{ROUTE} "):
            self.statuses.append(record.__dict__["status"])


@contextlib.contextmanager
def counted() -> Iterator[Calls]:
    ours, calls = logging.getLogger("muster"), Calls()
    before = ours.level
    ours.addHandler(calls)
    ours.setLevel(logging.INFO)
    try:
        yield calls
    finally:
        ours.removeHandler(calls)
        ours.setLevel(before)


@pytest.fixture
def calls() -> Iterator[Calls]:
    with counted() as found:
        yield found


@pytest.fixture
def base(calls: Calls, tmp_path: Path) -> Iterator[str]:
    """A service with a small packed app that has the worker of the true one."""
    web = web_app.as_packed(tmp_path / "web")
    shutil.copyfile(ROOT / "web" / "app" / "worker.js", web / "app" / "worker.js")
    with (web / "app" / "packed" / "app.js").open("a") as opened:
        opened.write(REGISTER)
    with aws.running("sqlite", directory=tmp_path, MUSTER_ACCESS="closed") as made:
        web_app.on_aws(made, web)
        with serving(made) as url:
            yield url
    assert made.crashes == []


@pytest.fixture
def page(browser: Pages, base: str) -> Iterator[Any]:
    """The app's page, kept by its worker, on which whatever is complained of fails the test."""
    complaints: list[str] = []
    with contextlib.closing(browser.browser.new_context()) as context:
        made = context.new_page()
        made.add_init_script(WATCH)
        made.on("pageerror", lambda error: complaints.append(str(error)))
        made.goto(f"{base}/app#an-invite")
        made.evaluate("navigator.serviceWorker.ready.then(() => null)")
        assert made.url == f"{base}/app/#an-invite", "the fragment is an invite's secret"
        assert made.evaluate("document.getElementById('said').textContent") == "packed"
        assert made.evaluate("violations") == []
        yield made
    assert complaints == []


def test_a_first_visit_takes_as_few_calls_as_are_priced(page: Any, calls: Calls) -> None:
    """The redirect of a link without its slash, what the page needs, and what the worker keeps."""
    sent, known = calls.statuses.count(200), calls.statuses.count(304)

    assert calls.statuses.count(308) == 1
    assert sent <= FIRST_CALLS + 1, "with the part that the page loads late"
    assert sent + known <= LOAD_CALLS, calls.statuses


def test_a_second_visit_asks_for_the_worker_alone(page: Any, calls: Calls) -> None:
    before = len(calls.statuses)
    page.reload()
    page.evaluate("navigator.serviceWorker.ready.then((found) => found.update()).then(() => null)")

    assert page.evaluate("document.getElementById('said').textContent") == "packed"
    assert page.evaluate("import('./later.js').catch(() => 'not by this name')")
    assert [status for status in calls.statuses[before:] if status == 200] == []


def test_the_policy_lets_nobody_else_s_text_become_a_page_or_a_script(page: Any) -> None:
    tries = """async () => {
      const tried = async (what) => { try { return await what(); } catch (e) { return e.name; } };
      const inline = document.createElement("script");
      inline.append("window.ran = true");
      document.body.append(inline);
      return [
        await tried(() => { document.body.innerHTML = "<b>no</b>"; }),
        await tried(() => navigator.serviceWorker.register("./other.js")),
        await tried(() => trustedTypes.createPolicy("other", {})),
        await tried(() => fetch("http://192.0.2.7/")),
        window.ran,
      ];
    }"""

    assert page.evaluate(tries) == [
        *("TypeError", "TypeError", "TypeError", "TypeError", None),
    ]
    assert {"require-trusted-types-for", "connect-src"} <= set(page.evaluate("violations"))
