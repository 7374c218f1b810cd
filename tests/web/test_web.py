"""The browser library in Node: files of tests for Node's own runner, each test told by name.

Most of them wait for time to pass, so several files run at once.
"""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

import pytest

from tests.support import javascript

HERE = Path(__file__).parent
FILES = sorted(path.name for path in HERE.glob("*.test.mjs"))
AT_ONCE = 3

Runs = dict[str, Future[javascript.Run]]


@pytest.fixture(scope="module")
def runs(request: pytest.FixtureRequest) -> Iterator[Runs]:
    """Run all files that were asked for."""
    asked = [getattr(item, "callspec", None) for item in request.session.items]
    files = [found.params["file"] for found in asked if found and "file" in found.params]
    with ThreadPoolExecutor(AT_ONCE) as pool:
        yield {file: pool.submit(javascript.run, HERE / file) for file in FILES if file in files}
        pool.shutdown(cancel_futures=True)


@pytest.mark.parametrize("file", FILES)
def test_node_says_so_too(file: str, runs: Runs, subtests: pytest.Subtests) -> None:
    ran = runs[file].result()

    for case in ran.cases:
        with subtests.test(case.name):
            if case.skip is not None:
                pytest.skip(case.skip)
            assert case.failure is None, case.failure
    assert ran.cases, f"no test in {file}:\n{ran.output}"
    assert ran.passed or any(case.failure for case in ran.cases), ran.output
