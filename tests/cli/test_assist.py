"""`muster assist`: advice as a person reads it, and as a program does."""

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.cli.terminal import Terminal
from tests.support.local import running

PLAN = {
    "paths": [
        {"id": "one", "address": "one.example.org", "transport": "WebSocket"},
        {"id": "two", "address": "two.example.org", "transport": "Onion", "probe": "none"},
    ],
    "ice_servers": [
        {"urls": ["turn:turn.example.org:3478"], "secret": "shared"},
        {"urls": ["stun:stun.example.org"]},
    ],
    "ice_lite": {"ip": "198.51.100.10", "port": 3478},
}


@pytest.fixture(scope="module")
def planned(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Terminal]:
    """A terminal at a service whose operator planned something."""
    directory = tmp_path_factory.mktemp("planned")
    plan = json.dumps(PLAN)
    with running(directory, assist=plan, assist_tokens="from-the-operator") as server:
        yield Terminal(directory / "home", server.base)


def test_advice_is_printed_as_a_person_reads_it(planned: Terminal) -> None:
    done = planned.run("assist")
    for text in (
        "one.example.org:443",
        "nobody looked",
        "Tor",
        "turn:turn.example.org:3478 as ",
        "stun:stun.example.org",
        "candidate:2d2e29bc 1 udp",
        "begin with",
    ):
        assert text in done.stdout


def test_a_program_gets_the_whole_answer(planned: Terminal) -> None:
    done = planned.run("assist", "--json", "--mtu", "1400", "--overhead", "0.5")
    answer = json.loads(done.stdout)
    assert [one["path_id"] for one in answer["transports"]] == ["one", "two"]
    assert answer["multipath"]["fec_mtu"] == 1400
    assert len(answer["noise"]["device_seed_hex"]) == 64


def test_paths_of_ones_own(planned: Terminal) -> None:
    words = ("--path", "127.0.0.1:3478", "--path", "[::1]", "--path", "b.example.org")
    answer = json.loads(planned.run("assist", "--json", *words).stdout)
    assert [(one["address"], one["port"]) for one in answer["transports"]] == [
        ("127.0.0.1", 3478),
        ("::1", 443),
        ("b.example.org", 443),
    ]
    assert "is not a path" in planned.fails("assist", "--path", "a:b", expect=2)


def test_a_token_of_the_operators(planned: Terminal) -> None:
    planned.run("assist", "--token", "from-the-operator")
    planned.run("assist", MUSTER_ASSIST_TOKEN="from-the-operator")
    assert "asks for one by itself" in planned.fails("assist", "--token", "made-up")


def test_a_service_without_a_plan_names_its_own_relay(one: Terminal) -> None:
    done = one.run("assist", "--peer-hint", "hint.example.org", "--prefer-reality")
    assert "WebSocket" in done.stdout
    assert "hint.example.org:443" in done.stdout


def test_where_nothing_listens_it_says_so_in_a_line(tmp_path: Path) -> None:
    line = Terminal(tmp_path, "http://127.0.0.1:9").fails("assist")
    assert "nothing listens" in line
