"""The benchmark runs and says what it promises to say; how fast things are is not tested."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tools.bench import table
from tools.bench.figures import Aim, Figures, latencies, ratio

ROOT = Path(__file__).parents[2]
RESULTS = {
    "register": {"calls_per_s", "p50_ms", "p99_ms", "server_cpu_ms"},
    "sync": {"calls_per_s", "p50_ms", "p99_ms", "server_cpu_ms"},
    "peers_50": {"calls_per_s", "p50_ms", "p99_ms", "server_cpu_ms"},
    "post": {"calls_per_s", "p50_ms", "p99_ms", "server_cpu_ms"},
    "poll_nothing_new": {"calls_per_s", "p50_ms", "p99_ms", "server_cpu_ms"},
    "poll_50_new": {"calls_per_s", "p50_ms", "p99_ms", "server_cpu_ms"},
    "post_to_push": {"p50_ms", "p99_ms"},
    "relay_frame": {"p50_ms", "p99_ms"},
    "relay_frame_16_kib": {"p50_ms", "p99_ms"},
    "large_bodies": {"calls_per_s", "p50_ms", "p99_ms", "server_cpu_ms"},
    "memory": {"idle_server_mib", "socket_kib"},
}
AIMED_AT = {
    "register",
    "peers_50",
    "post_to_push",
    "relay_frame",
    "large_bodies",
    "handler_cpu",
    "store_units",
    "web_size",
}
LIBRARIES = {"peerjs", "trystero core", "trystero", "y-webrtc, without yjs"}
WAYS = {"bare", "muster_signal", "muster_relay", "peerjs", "y_webrtc"}


def run(
    *arguments: str, stderr: int = subprocess.PIPE, module: str = "tools.bench"
) -> "subprocess.CompletedProcess[str]":
    command = [sys.executable, "-m", module, *arguments]
    return subprocess.run(
        command, cwd=ROOT, stdout=subprocess.PIPE, stderr=stderr, text=True, check=False
    )


@pytest.fixture(scope="module")
def report() -> dict[str, Any]:
    done = run("--quick")
    assert done.returncode == 0, done.stderr + done.stdout
    assert done.stderr == ""
    found: dict[str, Any] = json.loads(done.stdout)
    return found


@pytest.mark.slow
def test_a_quick_run_measures_everything(report: dict[str, Any]) -> None:
    assert report["mode"] == "quick"
    assert {"muster", "python", "cpus", "where", "how", "took_s"} <= set(report)
    told = {"handler_cpu", "store_units", "chat", "web_size", "web_latency"}
    assert set(report["results"]) == {*RESULTS, *told}
    for name, figures in RESULTS.items():
        result = report["results"][name]
        assert result["runs"] >= 1, name
        assert set(result["best"]) == set(result["median"]) == figures, name


@pytest.mark.slow
def test_the_chat_is_measured_from_a_peer_from_a_mailbox_and_on_the_screen(
    report: dict[str, Any],
) -> None:
    found = report["results"]["chat"]

    assert found["messages"] == 1000
    for name in ("newcomer_from_peer_s", "newcomer_from_mailbox_s", "screen_start_s", "screen_mib"):
        assert found[name] > 0, name


@pytest.mark.slow
def test_the_browser_library_is_weighed_beside_others(report: dict[str, Any]) -> None:
    found = report["results"]["web_size"]

    assert {name for name in found["sizes"] if "muster" not in name} == LIBRARIES
    for name, size in found["sizes"].items():
        assert 0 < size["gzip_bytes"] < size["min_bytes"], name
    whole = found["sizes"]["muster"]["min_bytes"]
    assert 0.8 * whole < sum(found["modules"].values()) <= whole


@pytest.mark.slow
def test_small_payloads_take_their_turns_through_all_servers(report: dict[str, Any]) -> None:
    found = report["results"]["web_latency"]

    assert set(found["round_trips"]) == WAYS
    for name, times in found["round_trips"].items():
        assert 0 < times["p50_ms"] <= times["p99_ms"], name
    assert {"cpus", "processor", "node", "load_before"} <= set(found["machine"])
    assert found["noise"]["bare_p99_by_p50"] >= 1


@pytest.mark.slow
def test_aims_stand_beside_their_results(report: dict[str, Any]) -> None:
    told = {name for name, result in report["results"].items() if "aim" in result}

    assert told == AIMED_AT
    assert all(isinstance(report["results"][name]["reached"], bool) for name in told)


@pytest.mark.slow
def test_what_large_bodies_do_to_others_is_told_beside_a_quiet_server(
    report: dict[str, Any],
) -> None:
    found = report["results"]["large_bodies"]

    assert found["sent"] > 0
    assert set(found["quiet"]["median"]) == RESULTS["large_bodies"]
    assert found["ratio"]["best"] > 0


@pytest.mark.slow
@pytest.mark.parametrize("name", ["register", "peers_50"])
def test_the_references_are_measured_in_the_same_run(report: dict[str, Any], name: str) -> None:
    for reference in ("reference", "reference_wal"):
        beside = report["results"][name][reference]
        assert set(beside["median"]) == RESULTS[name]
        assert beside["ratio"]["median"] > 0


@pytest.mark.slow
def test_processor_time_is_told_for_both_places_of_the_store(report: dict[str, Any]) -> None:
    cpu = report["results"]["handler_cpu"]

    for engine in ("file", "memory"):
        assert set(cpu[engine]) == {
            *("register", "peers", "message", "signal", "poll"),
            *("sync", "sync_new_credential"),
        }
        assert all(call["median"]["cpu_ms"] > 0 for call in cpu[engine].values())


@pytest.mark.slow
def test_store_units_are_counted_call_by_call(report: dict[str, Any]) -> None:
    calls = report["results"]["store_units"]["calls"]

    assert len({call["call"] for call in calls}) == len(calls) >= 20
    for call in calls:
        assert call["verbs"], call
        assert set(call["warm"]) == set(call["cold"]) == {"read_units", "write_units"}
        assert call["warm"]["read_units"] + call["warm"]["write_units"] > 0


@pytest.mark.slow
def test_the_table_has_a_line_for_every_result(report: dict[str, Any]) -> None:
    text = "\n".join(table.lines(report))

    assert all(name in text for name in RESULTS)
    assert all(call["call"] in text for call in report["results"]["store_units"]["calls"])


def test_people_who_watch_see_the_progress_and_the_table() -> None:
    leader, follower = os.openpty()
    try:
        done = run("--quick", "--only", "cpu", stderr=follower)
        seen = os.read(leader, 65536).decode()
    finally:
        os.close(leader)
        os.close(follower)

    assert done.returncode == 0
    assert set(json.loads(done.stdout)["results"]) == {"handler_cpu"}
    assert "1 of 1: cpu" in seen
    assert "cpu register, file" in seen


def test_what_cannot_be_measured_is_not_asked_for() -> None:
    done = run("--only", "weather")

    assert done.returncode == 2
    assert "weather" in done.stderr


@pytest.fixture(scope="module")
def strangers() -> dict[str, Any]:
    done = run("--quick", module="tools.bench.strangers")
    assert done.returncode == 0, done.stderr + done.stdout
    assert done.stderr == ""
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def test_seats_that_do_not_read_are_measured_beside_a_pair_that_does(
    strangers: dict[str, Any],
) -> None:
    found = strangers["seats_that_do_not_read"]

    assert found["seats"] == 2
    assert found["honest_frames"] >= 5
    for name in ("honest_quiet", "honest_meanwhile"):
        assert 0 < found[name]["p50_ms"] <= found[name]["p99_ms"]


def test_strangers_fill_the_disk_up_to_its_bound_and_a_known_circle_goes_on(
    strangers: dict[str, Any],
) -> None:
    found = strangers["strangers_fill_the_disk"]

    assert 0 < found["strangers_stored_mib"] <= found["store_mib"] < found["asked_mib"]
    assert found["strangers_refused"] > 0
    assert found["known_circle_posted"] == "9 of 9"
    assert found["known_circle_registered"] == "3 of 3"


def test_many_circles_of_version_2_are_answered_beside_one_that_was_first(
    strangers: dict[str, Any],
) -> None:
    found = strangers["a_thousand_circles_of_version_2"]

    assert found["answers"] == {"200": 6 * 3}
    accepted, of = found["honest_accepted"].split(" of ")
    assert accepted == of != "0"
    assert 0 < found["honest_quiet"]["p50_ms"] <= found["honest_quiet"]["p99_ms"]


def test_only_what_is_asked_for_of_the_strangers_is_measured() -> None:
    done = run("--quick", "--only", "seats", "--seats", "1", module="tools.bench.strangers")

    (found,) = json.loads(done.stdout).values()
    assert found["seats"] == 1


def test_best_is_the_highest_rate_and_the_lowest_time() -> None:
    figures = Figures(
        [
            {"calls_per_s": 10.0, "p50_ms": 3.0},
            {"calls_per_s": 30.0, "p50_ms": 1.0},
            {"calls_per_s": 20.0, "p50_ms": 2.0},
        ]
    ).to_json()

    assert figures["best"] == {"calls_per_s": 30.0, "p50_ms": 1.0}
    assert figures["median"] == {"calls_per_s": 20.0, "p50_ms": 2.0}


def test_latencies_are_told_by_their_middle_and_their_tail() -> None:
    found = latencies([n / 1000 for n in range(1, 101)])

    assert found == {"p50_ms": 51.0, "p99_ms": 100.0}


def test_a_ratio_compares_like_with_like() -> None:
    ours = {"best": {"calls_per_s": 9.0}, "median": {"calls_per_s": 4.0}}
    theirs = {"best": {"calls_per_s": 3.0}, "median": {"calls_per_s": 2.0}}

    assert ratio(ours, theirs, "calls_per_s") == {"best": 3.0, "median": 2.0}


@pytest.mark.parametrize(
    ("value", "reached"), [(4.0, True), (3.9, False), (6.0, True), (6.1, False), (None, None)]
)
def test_an_aim_is_reached_at_its_border(value: float | None, reached: bool | None) -> None:
    aim = Aim("four to six", lambda result: value, at_least=4, at_most=6)

    assert aim.reached({}) is reached


def test_what_failed_says_so_in_the_table() -> None:
    report = {
        "mode": "quick",
        "took_s": 1.0,
        "where": "here",
        "results": {"memory": {"error": "RuntimeError: no /proc"}},
    }

    assert any("FAILED: RuntimeError: no /proc" in line for line in table.lines(report))
