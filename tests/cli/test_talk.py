"""The chat in real processes: lines, a node without a screen, a terminal of 80 columns."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path

import pytest

from muster.circle import Circle
from tests.cli.terminal import MUSTER, Running, Terminal

NOWHERE = "http://127.0.0.1:9"
HERE = ("--bind", "127.0.0.1")
CODE = r"(muster2\.[A-Za-z0-9_-]+)"

Open = Callable[[str], Terminal]


def alone(folder: Path, name: str) -> Terminal:
    """A home that knows of no service."""
    return Terminal(folder / name, NOWHERE)


def code_of(hers: Running) -> str:
    hers.type("/invite")
    return hers.until(CODE)[1]


# --- lines --------------------------------------------------------------------------------------


def test_two_people_talk_in_lines_from_an_invite_alone(tmp_path: Path) -> None:
    ann, bob = alone(tmp_path, "Ann"), alone(tmp_path, "Bob")
    with ann.typing("chat", "--plain", *HERE) as hers:
        hers.until("you are in no circle yet")
        hers.type("/circle create book club")
        hers.until("you have a circle")
        hers.type("the first line")
        hers.until("Ann \\(you\\): the first line")
        code = code_of(hers)
        with bob.typing("chat", "--plain", *HERE) as his:
            his.until("no circle")
            his.type(f"/join {code}")
            his.until("you are in 'book club'")
            his.until("Ann: the first line")
            his.type("I hear you")
            hers.until("Bob: I hear you")
            hers.type("/channel create plans")
            hers.until("#plans is made")
            hers.type("what next?")
            his.until("#plans Ann: what next\\?")
            his.type("/who")
            his.until("Ann: here, direct")
            his.type(f"/joyn {code}")
            his.until("there is no command '/joyn'")
            his.type("/quit")
            assert his.end() == 0
        hers.until("nobody met so far")
    told = [json.loads(line) for line in bob.run("inbox", "--json").stdout.splitlines()]
    assert {(one["channel"], one["text"]) for one in told} == {
        ("general", "the first line"),
        ("general", "I hear you"),
        ("plans", "what next?"),
    }
    assert code not in ann.run("inbox", "--limit", "100").stdout


def test_what_is_piped_in_is_said_before_it_ends(tmp_path: Path) -> None:
    ann = alone(tmp_path, "Ann")
    done = ann.run("chat", "--plain", *HERE, says="/circle create x\none\ntwo\n")
    assert "Ann (you): two" in done.stdout
    assert ann.run("inbox").stdout.count("Ann:") == 2


# --- a node, and what works beside it -----------------------------------------------------------


def test_send_listen_peers_inbox_and_chat_work_beside_a_node(tmp_path: Path) -> None:
    ann, bob = alone(tmp_path, "Ann"), alone(tmp_path, "Bob")
    ann.run("circle", "new", "--name", "us")
    with ann.running("node", *HERE, "--json") as node:
        told = json.loads(node.until(r'"reached_at":\["').string)
        (place,) = told["reached_at"]
        bob.run("circle", "join", "-", says=ann.run("circle", "invite", "--peer", place).stdout)
        with bob.typing("chat", "--plain", *HERE) as his:
            his.until("1 direct")
            ann.run("send", "by the node")
            his.until("Ann: by the node")
            assert "by the node" in ann.run("inbox").stdout
            assert re.search("^Bob +here", ann.run("peers").stdout, re.MULTILINE)
            with ann.running("listen") as listening:
                listening.until("beside another process")
                with ann.typing("chat", "--plain", *HERE) as hers:
                    hers.until("'us'")
                    hers.type("from a screen beside it")
                    his.until("Ann: from a screen beside it")
                    his.type("and back")
                    hers.until("Bob: and back")
                    listening.until("Bob: and back")
        assert node.end() == 0


def test_a_node_without_a_circle_says_what_to_do(tmp_path: Path) -> None:
    assert "there is no circle in this home" in alone(tmp_path, "Ann").fails("node")


def test_a_node_announces_itself_in_a_public_community(terminal: Open, base: str) -> None:
    ann = terminal("Ann")
    assert "--announce needs" in ann.fails("node", "--announce", expect=2)
    with ann.running("node", "--announce", "--peer-id", "shed", "--beacon", base) as node:
        node.until("announced as shed")
    found = ann.run("bootstrap", "--beacon", base, "--json").stdout
    assert '"shed"' in found


# --- another device -----------------------------------------------------------------------------


def test_a_profile_is_brought_to_another_device_and_both_talk_on(tmp_path: Path) -> None:
    ann, phone = alone(tmp_path, "Ann"), alone(tmp_path, "Phone")
    secret = tmp_path / "passphrase"
    secret.write_text("correct horse battery\n")
    ann.run("circle", "new", "--name", "us")
    file = str(tmp_path / "ann.age")
    with ann.typing("chat", "--plain", *HERE) as hers:
        hers.type("before")
        hers.until("before")
        ann.run("export", file, "--passphrase-file", str(secret))
        assert Path(file).read_bytes().startswith(b"age-encryption.org/v1")
        assert Path(file).stat().st_mode & 0o077 == 0
        told = json.loads(
            phone.run(
                *("import", file, "--passphrase-file", str(secret), "--json"), MUSTER_NAME=""
            ).stdout
        )
        with closing(Circle.open(phone.home / "circles" / "us.muster2")) as circle:
            assert circle.file.fact("introduced").startswith(b"Ann\n"), "not the user's login"
        assert told["circles"] == ["us"]
        assert "Ann: before" in phone.run("inbox").stdout
    plain = str(tmp_path / "plain.jsonl")
    ann.run("export", plain, "--plain")
    assert json.loads(Path(plain).read_text().splitlines()[0])["t"] == "muster-export"
    secret.write_text("another\n")
    line = phone.fails("import", file, "--passphrase-file", str(secret), expect=2)
    assert "does not open with this passphrase" in line
    assert "--passphrase-file" in ann.fails("export", file, expect=2)


# --- both kinds ---------------------------------------------------------------------------------


def test_a_felund_circle_stands_beside_ours_and_its_clients_read_along(terminal: Open) -> None:
    ann, bob = terminal("Ann"), terminal("Bob")
    ann.run("circle", "new", "--felund", "--name", "old")
    bob.run("circle", "join", "-", says=ann.run("circle", "invite").stdout)
    with bob.running("listen") as his, ann.typing("chat", "--plain") as hers:
        his.until("listening")
        hers.until("'old'")
        hers.type("from the chat")
        his.until("Ann: from the chat")
        bob.run("send", "from an old client")
        hers.until("Bob: from an old client")
        hers.type("/reply no")
        hers.until("a felund circle has texts and names alone")
        hers.type("/channel create x")
        hers.until("begin when somebody writes")
        hers.type("/who")
        hers.until("Ann \\(you\\): here")
        hers.type("/circle create ours too")
        hers.until("you have a circle")
        hers.type("/circles")
        hers.until(r"old \(felund\)")


# --- a terminal ---------------------------------------------------------------------------------

TMUX = shutil.which("tmux")


@pytest.fixture
def screen(tmp_path: Path) -> Iterator[Screen]:
    found = Screen(tmp_path)
    yield found
    found.end()


class Screen:
    """A terminal of 80 by 24 cells, by tmux, driven by keys."""

    def __init__(self, folder: Path) -> None:
        self._socket = folder / "tmux"
        home = alone(folder, "Ada")
        environment = home.environment(TERM="xterm-256color")
        del environment["COLUMNS"]
        self._call(
            *("new-session", "-d", "-x", "80", "-y", "24"),
            " ".join([*MUSTER, "chat", *HERE]),
            environment=environment,
        )

    def _call(self, *words: str, environment: dict[str, str] | None = None) -> str:
        command = [str(TMUX), "-S", str(self._socket), "-f", "/dev/null", *words]
        done = subprocess.run(
            command, capture_output=True, text=True, check=False, env=environment, timeout=20
        )
        return done.stdout

    def keys(self, *keys: str) -> None:
        self._call("send-keys", *keys)

    def type(self, text: str) -> None:
        self._call("send-keys", "-l", text)

    def shows(self, *words: str) -> str:
        end = time.monotonic() + 20
        while time.monotonic() < end:
            shown = self._call("capture-pane", "-p")
            if all(word in shown for word in words):
                return shown
            time.sleep(0.1)
        raise AssertionError(f"{words} not in:\n{shown}")

    def shows_no(self, word: str) -> None:
        end = time.monotonic() + 20
        while word in self._call("capture-pane", "-p") and time.monotonic() < end:
            time.sleep(0.1)

    def settles(self) -> None:
        """Wait until nothing is drawn any more: then what is to have the focus has it."""
        before, still = "", 0
        end = time.monotonic() + 20
        while still < 15 and time.monotonic() < end:
            shown = self._call("capture-pane", "-p")  # without colours: a cursor blinks
            before, still = shown, still + 1 if shown == before else 0
            time.sleep(0.1)

    def ended(self) -> bool:
        return self._call("list-sessions") == ""

    def end(self) -> None:
        self._call("kill-server")


@pytest.mark.skipif(TMUX is None, reason="needs tmux: apt-get install tmux")
def test_a_terminal_of_80_by_24_is_driven_by_keys(screen: Screen) -> None:
    screen.shows("Welcome to Muster", "A link or code")
    screen.settles()
    screen.keys("Tab", "Tab")
    screen.type("friends")
    screen.shows("friends")
    screen.keys("Enter")
    screen.shows("muster · friends · #general", "Nothing was said")
    screen.type("hello from a small terminal")
    screen.keys("Enter")
    shown = screen.shows("Ada: hello from a small", "waits for")
    assert max(map(len, shown.splitlines())) <= 80
    screen.keys("F2")
    screen.shows("Whoever has this reads and writes", "muster2.")
    screen.keys("Escape")
    screen.shows_no("Whoever has this")
    screen.keys("F1")
    screen.shows("Keys", "Alt-Enter")
    screen.keys("F1")
    screen.shows_no("Alt-Enter")
    screen.keys("C-f")
    screen.type("small")
    screen.shows("Search in this channel", "hello from a small terminal")
    screen.keys("Escape")
    screen.shows_no("Search in this channel")
    screen.type("/channel create plans")
    screen.keys("Enter")
    screen.shows("muster · friends · #plans")
    screen.keys("C-q")
    end = time.monotonic() + 20
    while not screen.ended() and time.monotonic() < end:
        time.sleep(0.1)
    assert screen.ended()
