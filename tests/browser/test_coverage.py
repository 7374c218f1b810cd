"""What a page runs of the library is counted, together with what Node runs."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

from tests.support import javascript, node
from tests.support.pages import BLANK, Pages, serving_files

IN_NODE = 'import { hex } from "./web/muster/bytes.js"; hex(new Uint8Array(1));'
IN_A_PAGE = """async (path) => {
  const { Refused } = await import(path);
  return new Refused("WORD", "text").reason;
}"""


def test_pages_and_node_make_one_figure(
    browser: Pages,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setenv(javascript.VARIABLE, str(tmp_path))
    with serving_files() as origin:
        page = javascript.begin(browser.browser.new_page())
        page.goto(origin + BLANK)
        assert page.evaluate(IN_A_PAGE, "/web/muster/refused.js") == "WORD"
        page.reload()  # what was counted before is not forgotten
        javascript.end(page)
        page.close()
    subprocess.run(
        [node.executable(), "--input-type=module", "--eval", IN_NODE],
        cwd=javascript.ROOT,
        env=os.environ | javascript.environment(),
        check=True,
    )

    assert not javascript.report(tmp_path)

    lines = capfd.readouterr().out.splitlines()
    percent = {
        cells[0].strip(): float(cells[4])
        for cells in (line.split("|") for line in lines)
        if cells[0].strip().endswith(".js")
    }
    assert percent["refused.js"] > 60
    assert percent["bytes.js"] > 60
    assert percent["rtc.js"] == 0
    assert javascript.report(tmp_path, floor=0)
