"""The browser library in Node: files of tests for Node's own runner, each test told by name."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.support import javascript

HERE = Path(__file__).parent
FILES = sorted(path.name for path in HERE.glob("*.test.mjs"))


@pytest.mark.timeout(300)
@pytest.mark.parametrize("file", FILES)
def test_node_says_so_too(file: str, subtests: pytest.Subtests) -> None:
    ran = javascript.run(HERE / file)

    for case in ran.cases:
        with subtests.test(case.name):
            if case.skip is not None:
                pytest.skip(case.skip)
            assert case.failure is None, case.failure
    assert ran.cases, f"no test in {file}:\n{ran.output}"
    assert ran.passed, ran.output
