"""`muster circle`: what is kept, what is shown, what is refused."""

import asyncio
import io
import json
import socket
import stat
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from muster.cli import base as where
from muster.cli import main
from muster.cli.home import Home
from muster.felund.client import Client
from muster.felund.invite import Invite
from tests.cli.terminal import Terminal

Open = Callable[[str], Terminal]
NOWHERE = "http://127.0.0.1:9"


def test_a_circle_travels_by_invite(one: Terminal, two: Terminal, base: str) -> None:
    mine, theirs = one.run("circle", "list", "--json"), two.run("circle", "list", "--json")
    assert json.loads(mine.stdout) == json.loads(theirs.stdout)
    assert json.loads(mine.stdout)["base_url"] == base


def test_a_secret_is_shown_by_invite_alone(terminal: Open) -> None:
    opened = terminal("home")
    shown = [
        opened.run("circle", "new", "--felund"),
        opened.run("circle", "new", "--felund", "--name", "second", "--json"),
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
    line = Terminal(tmp_path / "file" / "home").fails("circle", "new", "--felund")
    assert "MUSTER_HOME chooses another place" in line


def test_several_circles_ask_for_a_choice(terminal: Open) -> None:
    opened = terminal("home")
    assert "there is no circle yet" in opened.fails("send", "hello", expect=2)
    assert "There is no circle yet" in opened.run("circle", "list").stderr
    opened.run("circle", "new", "--felund")
    told = opened.run("circle", "new", "--felund").stdout
    assert "'circle-2'" in told
    assert "muster circle invite --circle circle-2" in told
    assert "muster circle use circle-2" in told
    assert "choose one with --circle: circle, circle-2" in opened.fails("send", "x", expect=2)
    assert "circle, circle-2" in opened.fails("send", "x", "--circle", "nope", expect=2)
    opened.run("send", "x", "--circle", "circle-2")
    line = opened.fails("send", "x", expect=2)
    for verb in ("use NAME", "rename", "leave"):
        assert f"muster circle {verb}" in line


def test_without_a_circle_the_way_in_is_said(terminal: Open) -> None:
    opened = terminal("home")
    assert "'muster circle join CODE'" in opened.fails("send", "hello", expect=2)
    assert "'muster circle join CODE'" in opened.run("circle", "list").stderr


@pytest.mark.parametrize("how", ["argument", "option", "environment"])
def test_a_service_that_is_not_there_is_warned_of(terminal: Open, how: str) -> None:
    opened = terminal("home")
    words = {"argument": [NOWHERE], "option": ["--base", NOWHERE]}.get(how, [])
    made = opened.run(
        "circle", "new", "--felund", *words, MUSTER_BASE=NOWHERE if not words else opened.base
    )
    assert f"meets at {NOWHERE}" in made.stdout
    assert "warning: nothing listens at 127.0.0.1:9" in made.stderr
    assert "muster circle use circle --base URL" in made.stderr
    assert "MUSTER_BASE=URL" in made.stderr
    moved = opened.run("circle", "use", "circle", "--base", opened.base)
    assert moved.stderr == ""
    opened.run("send", "there it is")


def test_inviting_and_joining_warn_too(one: Terminal, terminal: Open) -> None:
    assert "warning" not in one.run("circle", "invite").stderr
    invited = one.run("circle", "invite", "--base", NOWHERE)
    assert "warning: nothing listens at 127.0.0.1:9" in invited.stderr
    assert "--base URL" in invited.stderr
    joined = terminal("two").run("circle", "join", "-", says=invited.stdout)
    assert "warning: nothing listens at 127.0.0.1:9" in joined.stderr
    assert "muster circle use circle --base URL" in joined.stderr


def test_what_is_no_muster_is_warned_of(terminal: Open, base: str) -> None:
    made = terminal("home").run("circle", "new", "--felund", f"{base}/elsewhere")
    assert "does not answer as Muster does" in made.stderr


def test_a_service_that_says_nothing_is_not_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(where, "PATIENCE_S", 0.1)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        port = silent.getsockname()[1]
        failure = where.silence(f"http://127.0.0.1:{port}")
    assert failure is not None
    assert "did not answer in time" in failure.message


def test_a_default_circle_is_used_until_another_is(terminal: Open) -> None:
    opened = terminal("home")
    opened.run("circle", "new", "--felund", "--name", "old")
    opened.run("circle", "new", "--felund", "--name", "family")
    assert "'family'" in opened.run("circle", "use", "family").stdout
    assert "sent to 'family'" in opened.run("send", "x").stdout
    assert "sent to 'old'" in opened.run("send", "x", "--circle", "old").stdout
    listed = [json.loads(line) for line in _lines(opened)]
    assert {told["circle"]: told["default"] for told in listed} == {"family": True, "old": False}
    drawn = opened.run("circle", "list").stdout.splitlines()
    assert [line.split()[0] for line in drawn if line.rstrip().endswith("default")] == ["family"]
    assert json.loads(opened.run("circle", "use", "old", "--json").stdout)["default"]
    assert "sent to 'old'" in opened.run("send", "x").stdout
    assert "there is no circle 'nope'" in opened.fails("circle", "use", "nope", expect=2)


def test_a_renamed_circle_is_the_same_one(one: Terminal) -> None:
    hint = json.loads(_lines(one)[0])["circle_hint"]
    one.run("circle", "new", "--felund", "--name", "other")
    one.run("circle", "use", "circle")
    with one.running("listen") as listening:
        listening.until(r"^\* listening")
        one.run("send", "already read")
        listening.until("already read")
    assert "'family'" in one.run("circle", "rename", "circle", "family").stdout
    told = [json.loads(line) for line in _lines(one)]
    assert [(t["circle"], t["default"]) for t in told] == [("family", True), ("other", False)]
    assert told[0]["circle_hint"] == hint
    with one.running("listen") as listening:
        listening.until(r"^\* listening to 'family'")
    assert not any("already read" in line for line in listening.seen)
    assert "already" in one.fails("circle", "rename", "family", "other", expect=2)
    assert "cannot name" in one.fails("circle", "rename", "family", "a\nb\x07", expect=2)
    assert json.loads(one.run("circle", "rename", "family", "f", "--json").stdout)["circle"] == "f"


def test_leaving_says_what_is_lost_and_asks(one: Terminal) -> None:
    line = one.fails("circle", "leave", "circle", expect=2)
    assert "removes its secret" in line
    assert "muster circle leave circle --yes" in line
    assert len(_lines(one)) == 1
    assert "You have left 'circle'" in one.run("circle", "leave", "circle", "--yes").stdout
    assert _lines(one) == []
    assert "there is no circle 'circle'" in one.fails("circle", "leave", "circle", expect=2)


@pytest.mark.parametrize(("answer", "left"), [("y\n", True), ("n\n", False), ("", False)])
def test_leaving_is_agreed_to_on_a_terminal(
    monkeypatch: pytest.MonkeyPatch, one: Terminal, answer: str, left: bool
) -> None:
    class Typed(io.StringIO):
        def isatty(self) -> bool:
            return True

    monkeypatch.setenv("MUSTER_HOME", str(one.home))
    monkeypatch.setattr(sys, "stdin", Typed(answer))
    assert main.main(["circle", "leave", "circle"]) == (0 if left else 1)
    assert len(_lines(one)) == (0 if left else 1)


def test_who_leaves_is_unregistered_and_forgotten(one: Terminal) -> None:
    circle = Invite.parse(one.run("circle", "invite").stdout).circle
    node_id = Home(one.home).node_id()

    async def there(*, first: bool = False) -> list[str]:
        if first:
            async with Client(one.base, circle, node_id) as left_open:
                await left_open.register()
        async with Client(one.base, circle, "somebody-else") as other:
            return [peer.node_id for peer in (await other.peers()).peers]

    assert asyncio.run(there(first=True)) == [node_id]
    told = json.loads(one.run("circle", "leave", "circle", "--yes", "--json").stdout)
    assert told["unregistered"] is True
    assert asyncio.run(there()) == []


def test_a_circle_can_be_left_whose_service_is_gone(terminal: Open) -> None:
    opened = terminal("home")
    opened.run("circle", "new", "--felund", NOWHERE)
    opened.run("circle", "new", "--felund", "--name", "other")
    opened.run("circle", "use", "circle")
    left = opened.run("circle", "leave", "circle", "--yes")
    assert "could not be told: nothing listens" in left.stderr
    secrets = [path.read_text() for path in opened.home.rglob("circle.json")]
    assert secrets == []
    assert not (opened.home / "default.json").exists()


def test_a_name_is_taken_once(one: Terminal) -> None:
    line = one.fails("circle", "new", "--felund", "--name", "circle", expect=2)
    assert "there is a circle 'circle' already; choose another --name" in line


def test_a_name_is_one_that_is_seen_and_typed(terminal: Open) -> None:
    assert "cannot name a circle" in terminal("home").fails(
        "circle", "new", "--felund", "--name", "x" * 65, expect=2
    )


def test_a_name_given_for_a_url_is_explained(terminal: Open) -> None:
    line = terminal("home").fails("circle", "new", "--felund", "family", expect=2)
    assert "muster circle new --name family" in line


@pytest.mark.parametrize(
    "url", ["ftp://host", "host:80", "http://", "http://u:p@host/", "http://h/?q"]
)
def test_a_wrong_url_is_explained(terminal: Open, url: str) -> None:
    assert "URL" in terminal("home").fails("circle", "new", "--felund", url, expect=2)


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
    assert "this machine" not in there.stderr
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


def _lines(opened: Terminal) -> list[str]:
    return opened.run("circle", "list", "--json").stdout.splitlines()
