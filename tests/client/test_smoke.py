"""Two hundred clients start again while a third of all sources fail, in every way they can."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path

import pytest

from tools import histogram, smoke
from tools.smoke import Reconnect, Report

REPORTS = Path(__file__).parents[2] / "build" / "reports"


@pytest.fixture(scope="module")
def report() -> Report:
    return asyncio.run(smoke.run(200))


def test_at_least_99_of_100_find_a_peer_within_five_seconds(
    report: Report, capsys: pytest.CaptureFixture[str]
) -> None:
    with capsys.disabled():
        print("\n" + "\n".join(report.lines()))
    drawing = smoke.keep(report, REPORTS)

    assert len(report.reconnects) == 200
    assert report.share >= 0.99
    assert "<svg" in drawing.read_text()


def test_whoever_had_a_source_that_works_found_somebody(report: Report) -> None:
    for one in report.reconnects:
        assert one.good or one.hopeless, one


def test_every_way_to_fail_was_met(report: Report) -> None:
    met = {kind for one in report.reconnects for kind in one.beacons + one.hosts}
    assert met >= {"dead", "hanging", "dripping", "stale", "tampered", "a page", "bomb"}
    assert {one.cache for one in report.reconnects} == {"none", "empty", "past", "damaged", "live"}


def test_where_everything_fails_nobody_is_found_and_it_is_said(tmp_path: Path) -> None:
    report = asyncio.run(smoke.run(6, seed=3, deadline_s=0.3, failing=1.0))
    alone = [one for one in report.reconnects if one.cache != "live"]
    assert alone
    assert all(one.hopeless and one.first_peer_ms is None for one in alone)
    assert report.share < smoke.WANTED


def test_the_command_prints_and_draws(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert smoke.main(["--reconnects=8", f"--out={tmp_path}"]) in (0, 1)
    assert "time to the first peer" in capsys.readouterr().out
    assert smoke.main(["--reconnects=3", f"--out={tmp_path}", "--json"]) in (0, 1)
    assert json.loads(capsys.readouterr().out)["reconnects"] == 3
    assert (tmp_path / "smoke.svg").exists()
    with pytest.raises(SystemExit):
        smoke.main(["--reconnects=0"])


def test_a_histogram_counts_everybody_once() -> None:
    times = [1, 10, 10.1, 500, 5000, 5001]
    counts = dict(histogram.buckets(times, never=2))
    assert sum(counts.values()) == 8
    assert counts["to 10 ms"] == 2
    assert counts["over 5 s"] == 1
    assert counts["never"] == 2
    assert histogram.text([], never=0)
    assert "&lt;b&gt;" in histogram.svg(times, title="<b>")


def test_a_report_of_nobody_has_no_times() -> None:
    lost = Reconnect(("dead",), ("dead",), "none", None, ("UNREACHABLE",))
    report = Report(1, (lost,), 1.0)
    assert report.quantile(0.5) == float("inf")
    assert report.share == 0
