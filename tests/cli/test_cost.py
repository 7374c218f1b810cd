"""`muster cost` as a person reads it, and as a program does."""

import json
import re
from pathlib import Path

import pytest

from infra import cost
from tests.cli.terminal import Terminal


@pytest.fixture
def terminal(tmp_path: Path) -> Terminal:
    return Terminal(tmp_path / "home")


@pytest.mark.parametrize(
    ("words", "client"),
    [((), "app"), (("--design", "polling"), "spec"), (("--client", "web"), "web")],
)
def test_a_month_is_told_to_programs(
    terminal: Terminal, words: tuple[str, ...], client: str
) -> None:
    told = json.loads(
        terminal.run("cost", "--nodes", "5", "--hours", "24", "--json", *words).stdout
    )

    expected = cost.estimate(nodes=5, hours=24, client=client)
    assert told["client"] == client
    assert told["total_usd"] == pytest.approx(expected.total_usd, abs=0.001)
    assert sum(row["usd"] for row in told["rows"]) == pytest.approx(told["list_usd"], abs=0.01)


def test_a_month_is_drawn_for_people(terminal: Terminal) -> None:
    said = terminal.run("cost", "--nodes", "5", "--max-usd", "200").stdout

    for row in cost.estimate(nodes=5, hours=24, client="app").rows:
        assert row.what in said
    assert "█" in said
    assert "The worst month with these limits" in said
    assert "by strangers, whom a closed service refuses" in said
    assert "$0.625 a million, DynamoDB" in said, "each line has its price, and whose it is"
    assert "large bodies: API Gateway counts" in said, "and what no limit bounds is named"
    assert "Prices as of" in said


def test_all_that_is_said_fits_a_terminal_of_eighty_columns(terminal: Terminal) -> None:
    said = terminal.run("cost", "--client", "web", "--max-usd", "200").stdout

    assert max(map(len, said.splitlines())) <= 80


def test_a_program_reads_who_can_cause_what(terminal: Terminal) -> None:
    told = json.loads(terminal.run("cost", "--json").stdout)

    assert told["strangers_usd"] < told["members_usd"] == told["worst_usd"] < told["open_usd"]
    assert told["idle"]["total_usd"] == told["idle_usd"] <= 0.05
    assert told["boundless"]
    assert all(row["source"].startswith("https://aws.amazon.com/") for row in told["rows"])


def test_a_region_whose_prices_nobody_knows_is_refused(terminal: Terminal) -> None:
    said = terminal.fails("cost", "--region", "ap-south-1", expect=2)

    assert "there are no prices of ap-south-1" in said


def test_limits_that_nothing_can_keep_are_refused_with_the_least(terminal: Terminal) -> None:
    assert "the lowest ones allow $" in terminal.fails("cost", "--max-usd", "1", expect=2)
    assert "there are: app, sync, push" in terminal.fails("cost", "--client", "pigeon", expect=2)


def test_the_help_names_every_client_and_numbers_are_refused_in_a_sentence(
    terminal: Terminal,
) -> None:
    told = " ".join(terminal.run("cost", "--help").stdout.split())
    assert all(
        re.search(rf"\b{name}\b", told.partition("whose month")[2]) for name in cost.clients()
    )
    said = terminal.run("cost", "--nodes", "0", expect=2).stderr
    assert "'0' is not a number of nodes from 1 to a million" in said
