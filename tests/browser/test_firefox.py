"""Firefox and Chromium in one circle: one library, two implementations of all below it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support import firefox
from tests.support.pages import Pages

JOIN = """
  const { Circle } = await library();
  return hold(await Circle.join(given[0], given[1]))
"""
SEES = "[...circle.peers.values()].some((one) => one.name === given && one.path === 'webrtc')"
READS = "(await circle.history(given[0])).some((one) => one.text === given[1])"
NO_FIREFOX = firefox.missing()

pytestmark = pytest.mark.skipif(bool(NO_FIREFOX), reason=NO_FIREFOX or "it is here")


@pytest.fixture
def fox(pages: Pages, tmp_path: Path) -> Iterator[firefox.Page]:
    with firefox.page(pages.origin, tmp_path / "profile") as opened:
        yield opened


def test_a_page_in_firefox_and_one_in_chromium_share_a_circle(
    pages: Pages, here: str, fox: firefox.Page
) -> None:
    ada = pages.person()
    invite = ada.create(here, name="Ada", circle="Friends")
    ada.post("before you came")

    me = fox.run(JOIN, [invite, {"name": "Bob"}])
    fox.until(READS, ["general", "before you came"])
    fox.run("await circle.post('general', 'hello from Firefox')")
    ada.reads("hello from Firefox")

    ada.sees("Bob", "webrtc", ms=30_000)
    fox.until(SEES, "Ada")
    fox.run(
        """circle.pipe("files").addEventListener("message", ({ detail }) => {
          piped.push([detail.data.name, detail.data.size]);
          circle.pipe("files").send(new File([detail.data], "back.bin"), { to: detail.from });
        })"""
    )
    ada.run(
        """const pipe = circle.pipe("files");
        pipe.addEventListener("message", ({ detail: { data } }) => piped.push(data.size));
        await pipe.send(new File([new Uint8Array(3_000_000)], "there.bin"))"""
    )
    fox.until("piped.length")
    assert fox.run("return piped") == [["there.bin", 3_000_000]]
    ada.until("piped[0] === 3_000_000")

    ada.run("window.plans = (await circle.act('create', 'plans', 'invite')).channel")
    ada.run("await circle.act('invite', 'plans', given)", me["id"])
    ada.post("between us", "plans")
    fox.until("(await circle.channels()).some((one) => one.name === 'plans')")
    fox.until(READS, ["plans", "between us"])

    fox.goto()
    again = fox.run(JOIN, ["", {}])
    assert again["id"] == me["id"]
    fox.until(READS, ["plans", "between us"])
    ada.sees("Bob", "webrtc", ms=30_000)


def test_firefox_reads_what_python_and_chromium_have_written_and_refuses_the_same(
    fox: firefox.Page,
) -> None:
    found = fox.run(
        """const { verify } = await library("crypto.js");
        const { unhex } = await library("bytes.js");
        const cases = await (await fetch("/tests/golden/version2.json")).json();
        const wrong = [];
        for (const { name, expect, input } of cases) {
          if (!name.startsWith("ed25519:")) continue;
          const given = [input.public, input.signature, input.message].map(unhex);
          if ((await verify(...given)) !== (expect === "ok")) wrong.push(name);
        }
        return [cases.length, wrong]"""
    )
    assert found[0] > 200
    assert found[1] == []
