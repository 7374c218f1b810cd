"""The cold-start benchmark says what it promises to say; how fast things are is not tested."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tools.bench import cold

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def report() -> dict[str, Any]:
    command = [sys.executable, "-m", "tools.bench.cold", "--runs", "1"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    if "a package registry is needed" in done.stderr:
        pytest.skip("needs a package registry: what Lambda is to have could not be fetched")
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def test_both_variants_are_measured_in_one_run(report: dict[str, Any]) -> None:
    assert set(report["results"]) == {"muster", "eager_boto3"}
    for result in report["results"].values():
        assert set(result) == {*cold.FIGURES, "best_until_stored_s", "zip_mb"}
        assert all(figure > 0 for figure in result.values())
    assert set(report["ratio"]) == {*cold.FIGURES, "zip_mb"}


def test_the_aim_stands_beside_the_result(report: dict[str, Any]) -> None:
    assert "0.3 s" in report["aim"]
    assert isinstance(report["reached"], bool)
    assert report["results"]["muster"]["zip_mb"] <= cold.AIM_MB


def test_a_report_is_drawn_as_a_table(report: dict[str, Any]) -> None:
    drawn = "\n".join(cold.lines(report))

    assert "all together" in drawn
    assert "zip, MB" in drawn
    assert report["aim"] in drawn
