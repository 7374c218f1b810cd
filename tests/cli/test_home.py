"""The home: files that are whole, also when two commands write at once."""

import json
import threading
from pathlib import Path

import pytest

from muster.cli.home import Home, Membership, check_name
from muster.cli.output import Failure
from muster.felund.circle import Circle

CIRCLE = Circle(bytes(range(32)))
HERE = "http://127.0.0.1:8787"


@pytest.fixture
def home(tmp_path: Path) -> Home:
    return Home(tmp_path / "home")


def test_the_home_is_where_the_environment_says(tmp_path: Path) -> None:
    assert Home.from_environment({"MUSTER_HOME": str(tmp_path)}).path == tmp_path
    assert Home.from_environment({}).path == Path.home() / ".muster"


def test_a_node_keeps_its_id(home: Home) -> None:
    assert home.node_id() == home.node_id()
    assert len(home.node_id()) == 24


def test_many_first_commands_agree_on_one_id(home: Home) -> None:
    found: list[str] = []
    threads = [threading.Thread(target=lambda: found.append(home.node_id())) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(found) == 8
    assert len(set(found)) == 1
    assert [path.name for path in home.path.iterdir()] == ["node.json"]


def test_a_cursor_belongs_to_a_service_and_a_circle(home: Home) -> None:
    member = Membership("circle", CIRCLE, HERE)
    other = Membership("circle", Circle(bytes(32)), HERE)
    assert home.cursor(member, HERE) is None
    home.keep_cursor(member, HERE, 7)
    home.keep_cursor(member, "https://elsewhere", 9)
    assert home.cursor(member, HERE) == 7
    assert home.cursor(member, "https://elsewhere") == 9
    assert home.cursor(other, HERE) is None


def test_what_a_crash_leaves_is_no_circle(home: Home) -> None:
    home.keep(Membership("circle", CIRCLE, HERE))
    (home.path / "circles" / ".circle.json.77.abcd").write_text("{")
    assert [membership.name for membership in home.memberships()] == ["circle"]


def test_a_file_that_cannot_be_read_is_said(home: Home) -> None:
    home.keep(Membership("circle", CIRCLE, HERE))
    path = home.path / "circles" / "circle.json"
    path.unlink()
    path.mkdir()
    with pytest.raises(Failure, match=r"cannot use .*circle\.json"):
        home.memberships()


def test_the_usual_circle_is_the_only_one_or_the_one_chosen(home: Home) -> None:
    first = Membership("first", CIRCLE, HERE)
    second = Membership("second", Circle(bytes(32)), HERE)
    assert home.usual() is None
    home.keep(first)
    assert home.usual() == first
    home.keep(second)
    assert home.usual() is None
    home.use("second")
    assert home.usual() == second
    home.forget(second)
    home.keep(second)
    home.keep(Membership("third", CIRCLE, HERE))
    assert home.usual() is None


def test_a_renamed_circle_takes_its_cursors_along(home: Home) -> None:
    first = Membership("first", CIRCLE, HERE)
    home.keep(first)
    home.keep_cursor(first, HERE, 7)
    renamed = home.rename(first, "renamed")
    assert home.memberships() == [renamed]
    assert home.cursor(renamed, HERE) == 7
    assert home.cursor(first, HERE) is None


def test_files_are_plain_json(home: Home) -> None:
    home.keep(Membership("circle", CIRCLE, HERE))
    kept = json.loads((home.path / "circles" / "circle.json").read_text())
    assert kept == {"secret": CIRCLE.secret.hex(), "base_url": HERE}


@pytest.mark.parametrize(
    "name", ["../up", ".hidden", "a b", "C:\\x", "ä/ö", "100%", "%2e", "x" * 64]
)
def test_a_circle_has_its_name_whatever_a_file_may_be_called(home: Home, name: str) -> None:
    home.place_for(check_name(name)).touch()
    assert [path.parent for path in home.path.glob("**/*.muster2")] == [home.path / "circles"]
    assert home.names() == [name]
    assert home.which(f" {name.replace(' ', '  ')}") == name
    assert home.is_ours(name)
    home.rename_ours(name, "other")
    home.keep(Membership(name, CIRCLE, HERE))
    assert home.chosen(name).name == name


def test_a_name_from_others_is_one_that_can_be_seen_and_typed(home: Home) -> None:
    assert home.free_name("Sunday\x1b[2J \u202e hikers\n") == "Sunday[2J hikers"
    assert home.free_name("o\u0308") == "\xf6"
    assert home.free_name("--yes") == "yes"
    assert home.free_name("\u200b ") == home.free_name() == "circle"
    assert len(home.free_name("ö" * 64).encode()) == 64
    for expected in ("Us", "us-2", "us-3"):
        found = home.free_name("Us" if expected == "Us" else "us")
        assert found == expected, "some file systems know no capitals"
        home.place_for(found).touch()
