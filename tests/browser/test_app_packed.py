"""The packed app, as AWS and the image have it: few calls, and all of it works."""

from __future__ import annotations

import time
from collections.abc import Iterator

import pytest

from chalicelib import app_files
from chalicelib.library import Library
from tests.support.app import joined, visit
from tests.support.pages import Pages, told
from tests.support.serving import on_aws

MOST_CALLS = 6
MOST_FILES = 3


@pytest.fixture(scope="module")
def packed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The handlers of AWS behind an emulated gateway, with the packed app; the whole address."""
    made = app_files.AppFiles(app_files.WEB / "app", Library(app_files.WEB / "muster"), packed=True)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(app_files, "load", lambda web=app_files.WEB: made)
        with on_aws(tmp_path_factory.mktemp("packed")) as found:
            yield found


def test_a_first_visit_takes_at_most_six_calls_and_two_talk_by_three_packed_files(
    pages: Pages, packed: str
) -> None:
    calls: list[str] = []
    lengths: list[int] = []
    ada = visit(pages, packed, path="/app/LICENSES")  # a page of the same origin, to listen first
    ada.page.context.on("request", lambda one: calls.append(one.url.partition("#")[0]))
    ada.page.on("requestfinished", lambda one: lengths.append(one.sizes()["responseBodySize"]))
    began = time.monotonic()
    ada.page.goto(packed.partition("#")[0] + "/app/")
    ada.button("Make a circle").wait_for()
    usable_s = time.monotonic() - began
    ada.page.wait_for_function("navigator.serviceWorker.ready.then(() => true)")
    base = packed.partition("#")[0]
    of_app = [one for one in calls if one.startswith(f"{base}/app/")]
    once = list(dict.fromkeys(of_app))  # the worker takes the rest from the browser's own cache
    first = [one for one in once if "/later." not in one]  # which the worker keeps for the day
    told(
        names=[one.removeprefix(base) for one in once],
        kilobytes=round(sum(lengths) / 1000),
        usable_ms=round(usable_s * 1000),
    )
    assert len(first) <= MOST_CALLS
    assert len([one for one in once if one.rpartition("/")[2].count(".") > 1]) <= MOST_FILES

    link = ada.make("Friends", "Ada")
    bert = joined(pages, link, "Bert")
    bert.say("by the packed files")
    ada.reads("by the packed files")
    bert.sees("Ada")
