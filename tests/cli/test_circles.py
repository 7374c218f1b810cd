"""`muster circle`: what is kept, what is shown, what is refused."""

import json
import stat
from collections.abc import Callable
from pathlib import Path

import pytest

from muster.invite import Invite
from tests.cli.terminal import Terminal

Open = Callable[[str], Terminal]


def test_a_circle_travels_by_invite(one: Terminal, two: Terminal, base: str) -> None:
    mine, theirs = one.run("circle", "list", "--json"), two.run("circle", "list", "--json")
    assert json.loads(mine.stdout) == json.loads(theirs.stdout)
    assert json.loads(mine.stdout)["base_url"] == base


def test_a_secret_is_shown_by_invite_alone(terminal: Open) -> None:
    opened = terminal("home")
    shown = [
        opened.run("circle", "new"),
        opened.run("circle", "new", "--name", "second", "--json"),
        opened.run("circle", "list"),
        opened.run("circle", "list", "--json"),
        opened.run("send", "--circle", "second", "hello"),
    ]
    code = opened.run("circle", "invite", "--circle", "second").stdout
    joined = terminal("other").run("circle", "join", code)
    secrets = [
        json.loads(path.read_text())["secret"] for path in (opened.home / "circles").iterdir()
    ]
    assert len(secrets) == 2
    for done in [*shown, joined]:
        for secret in secrets:
            assert secret not in done.stdout + done.stderr
        assert "felund1." not in done.stdout + done.stderr
    assert Invite.parse(code).circle.secret.hex() in secrets


def test_nobody_else_can_read_a_home(one: Terminal) -> None:
    one.run("send", "hello")
    paths = [one.home, *one.home.rglob("*")]
    modes = {path: stat.S_IMODE(path.stat().st_mode) for path in paths}
    assert all(mode == (0o700 if path.is_dir() else 0o600) for path, mode in modes.items())


def test_a_home_that_others_can_read_is_not_used(one: Terminal) -> None:
    (one.home / "circles" / "circle.json").chmod(0o644)
    assert "others can read" in one.fails("circle", "list")


@pytest.mark.parametrize("content", ["", "{", "[]", "{}", '{"secret": "zz", "base_url": ""}'])
def test_a_damaged_circle_is_said(one: Terminal, content: str) -> None:
    (one.home / "circles" / "circle.json").write_text(content)
    assert "circle.json is damaged" in one.fails("circle", "list")


@pytest.mark.parametrize("content", ["{}", '{"node_id": "short"}', '{"node_id": 7}'])
def test_a_damaged_node_is_said(one: Terminal, content: str) -> None:
    path = one.home / "node.json"
    path.write_text(content)
    path.chmod(0o600)
    assert "node.json is damaged" in one.fails("send", "hello")


def test_a_home_that_cannot_be_used_is_said(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    line = Terminal(tmp_path / "file" / "home").fails("circle", "new")
    assert "MUSTER_HOME chooses another place" in line


def test_several_circles_ask_for_a_choice(terminal: Open) -> None:
    opened = terminal("home")
    assert "there is no circle yet" in opened.fails("send", "hello", expect=2)
    assert "There is no circle yet" in opened.run("circle", "list").stderr
    opened.run("circle", "new")
    told = opened.run("circle", "new").stdout
    assert "'circle-2'" in told
    assert "muster circle invite --circle circle-2" in told
    assert "choose one with --circle: circle, circle-2" in opened.fails("send", "x", expect=2)
    assert "circle, circle-2" in opened.fails("send", "x", "--circle", "nope", expect=2)
    opened.run("send", "x", "--circle", "circle-2")


def test_a_name_is_taken_once(one: Terminal) -> None:
    line = one.fails("circle", "new", "--name", "circle", expect=2)
    assert "there is a circle 'circle' already; choose another --name" in line


@pytest.mark.parametrize("name", ["../up", ".hidden", "a b", "x" * 33, "ä"])
def test_a_name_is_a_file_s_name(terminal: Open, name: str) -> None:
    assert "cannot name a circle" in terminal("home").fails(
        "circle", "new", "--name", name, expect=2
    )


def test_a_name_given_for_a_url_is_explained(terminal: Open) -> None:
    line = terminal("home").fails("circle", "new", "family", expect=2)
    assert "muster circle new --name family" in line


@pytest.mark.parametrize(
    "url", ["ftp://host", "host:80", "http://", "http://u:p@host/", "http://h/?q"]
)
def test_a_wrong_url_is_explained(terminal: Open, url: str) -> None:
    assert "URL" in terminal("home").fails("circle", "new", url, expect=2)


def test_joining_again_changes_nothing(one: Terminal, two: Terminal) -> None:
    code = one.run("circle", "invite").stdout.strip()
    assert "You were in already" in two.run("circle", "join", code).stdout
    two.run("circle", "join", code, "--name", "circle")
    line = two.fails("circle", "join", code, "--name", "other", expect=2)
    assert "you are in this circle already, as 'circle'" in line
    assert len(two.run("circle", "list", "--json").stdout.splitlines()) == 1


def test_joining_can_choose_name_and_service(one: Terminal, terminal: Open) -> None:
    code = one.run("circle", "invite", "--base", "https://muster.example/").stdout.strip()
    assert Invite.parse(code).base_url == "https://muster.example"
    three = terminal("three")
    told = three.run("circle", "join", code, "--name", "fam", "--json").stdout
    assert json.loads(told)["base_url"] == "https://muster.example"
    told = three.run("circle", "join", code, "--base", "http://127.0.0.1:9", "--json").stdout
    assert json.loads(told) | {"circle_hint": ""} == {
        "circle": "fam",
        "circle_hint": "",
        "base_url": "http://127.0.0.1:9",
    }


def test_an_invite_says_where_it_works(one: Terminal) -> None:
    here = one.run("circle", "invite")
    assert "works on this machine only" in here.stderr
    assert here.stdout.startswith("felund1.")
    assert here.stdout.count("\n") == 1
    there = one.run("circle", "invite", "--base", "https://muster.example", "--json")
    assert there.stderr == ""
    assert json.loads(there.stdout)["code"].startswith("felund1.")


def test_a_code_without_a_service_leads_to_the_usual_one(one: Terminal, terminal: Open) -> None:
    circle = Invite.parse(one.run("circle", "invite").stdout).circle
    for peer in ("", "relay", "192.0.2.7:9000"):
        joined = terminal(f"from-{len(peer)}").run("circle", "join", Invite(circle, peer).code())
        assert f"meets at {one.base}" in joined.stdout


@pytest.mark.parametrize("code", ["", "felund1.", "felund1.abc", "felund2.abc", "felund1.e30", "x"])
def test_a_wrong_code_is_refused_without_repeating_it(terminal: Open, code: str) -> None:
    line = terminal("home").fails("circle", "join", code, expect=2)
    assert "; " in line
    assert not code[8:] or code not in line
