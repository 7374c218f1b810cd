"""Circles of version 2 on the command line, against a real service and in real processes."""

from __future__ import annotations

import json
import re
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import pytest

from muster.circle import Circle
from muster.invites import Invite, ServiceAddress
from tests.cli.terminal import Terminal, serving

Open = Callable[[str], Terminal]
LISTENING = r"^\* listening"


@pytest.fixture
def ann(terminal: Open) -> Terminal:
    opened = terminal("Ann")
    opened.run("circle", "new", "--name", "friends")
    return opened


@pytest.fixture
def bob(terminal: Open, ann: Terminal) -> Terminal:
    opened = terminal("Bob")
    opened.run("circle", "join", "-", says=ann.run("circle", "invite").stdout)
    return opened


def circle_of(home: Terminal, name: str = "friends") -> Circle:
    return Circle.open(home.home / "circles" / f"{name}.muster2")


# --- talking --------------------------------------------------------------------------------


def test_the_first_talk_between_two_friends(ann: Terminal, bob: Terminal) -> None:
    with ann.running("listen") as hers:
        hers.until(LISTENING)
        with bob.running("listen") as his:
            his.until(LISTENING)
            hers.until(r"^\* Bob is here$")
            bob.run("send", "hello", "from", "Bob")
            hers.until(r"^\d\d:\d\d Bob: hello from Bob$")
            ann.run("send", "hello yourself")
            his.until(r"^\d\d:\d\d Ann: hello yourself$")
            hers.until(r"^\d\d:\d\d Ann: hello yourself$")
            assert his.end() == 0
        hers.until(r"^\* Bob has left$")


def test_what_was_missed_is_shown_once(ann: Terminal, bob: Terminal) -> None:
    ann.run("send", "one")
    with bob.running("listen") as his:
        his.until("Ann: one")
        assert his.end(signal.SIGTERM) == 0
    ann.run("send", "two")
    with bob.running("listen") as his:
        his.until("Ann: two")
        his.until(LISTENING)
        his.end()
    assert not any("Ann: one" in line for line in his.seen)
    since = bob.running("listen", "--since", "all")
    with since as his:
        his.until("Ann: one")
        his.until("Ann: two")


def test_programs_read_lines_of_json(ann: Terminal, bob: Terminal) -> None:
    sent = json.loads(ann.run("send", "hello", "--json").stdout)
    with bob.running("listen", "--json") as his:
        his.until(r'"text": ?"hello"')
        his.end()
    heard = [json.loads(line) for line in his.seen if line.startswith("{")]
    (found,) = [one for one in heard if one.get("text") == "hello"]
    assert (found["t"], found["name"], found["id"]) == ("message", "Ann", sent["id"])


def test_peers_shows_who_is_there_and_who_was(ann: Terminal, bob: Terminal) -> None:
    with bob.running("listen") as his:
        his.until(LISTENING)
        here = json.loads(ann.run("peers", "--json").stdout)
        assert (here["name"], here["here"]) == ("Bob", True)
        his.end()
    assert re.search(r"^Bob +was here 20\d\d", ann.run("peers").stdout, re.MULTILINE)


def test_a_second_listen_of_one_home_shows_what_the_first_one_brings(
    ann: Terminal, bob: Terminal
) -> None:
    with ann.running("listen") as first:
        first.until(LISTENING)
        with ann.running("listen") as second:
            second.until("beside another process")
            bob.run("send", "for both")
            first.until("Bob: for both")
            second.until("Bob: for both")


# --- inviting -------------------------------------------------------------------------------


def test_an_invite_is_a_code_a_link_and_either_leads_in(ann: Terminal, terminal: Open) -> None:
    told = json.loads(ann.run("circle", "invite", "--json").stdout)
    assert told["link"] == f"{ann.base}/app/#{told['code']}"

    for number, text in enumerate((told["code"], told["link"])):
        friend = terminal(f"friend{number}")
        said = friend.run("circle", "join", text).stdout
        assert f"circle 'friends' meets at {ann.base}" in said
        assert friend.run("circle", "join", text).stdout.startswith("You are in 'friends' already")


def test_the_picture_of_a_link_is_a_qr_code_that_holds_it() -> None:
    import segno

    from muster.cli.circle.making import _picture

    link = Circle.new().invite(name="us")
    drawn = _picture("https://host.example/app/#" + link.code)
    rows = drawn.splitlines()
    modules = segno.make("https://host.example/app/#" + link.code, error="l", micro=False)
    assert len(rows) in (
        -(-(modules.symbol_size()[1]) // 2),
        -(-(modules.symbol_size(border=2)[1]) // 2),
    )
    assert len({len(re.sub(r"\x1b\[[0-9;]*m", "", row)) for row in rows}) == 1


def test_both_kinds_of_circles_live_in_one_home(ann: Terminal) -> None:
    ann.run("circle", "new", "--felund", "--name", "old")
    found = [json.loads(line) for line in ann.run("circle", "list", "--json").stdout.splitlines()]
    assert {one["circle"]: one.get("version", 1) for one in found} == {"friends": 2, "old": 1}
    assert "there are several circles" in ann.fails("send", "hello", expect=2)
    ann.run("circle", "use", "friends")
    ann.run("send", "to friends")
    ann.run("send", "--circle", "old", "to the old ones")
    ann.run("circle", "rename", "friends", "family")
    ann.run("send", "still the default")
    assert "there is a circle 'old'" in ann.fails("circle", "new", "--name", "old", expect=2)
    assert "there is a circle 'family'" in ann.fails(
        "circle", "new", "--felund", "--name", "family", expect=2
    )
    ann.run("circle", "leave", "family", "--yes")
    assert [path.name for path in (ann.home / "circles").iterdir()] == ["old.json"]


def test_a_file_that_is_damaged_is_said_in_one_sentence(ann: Terminal) -> None:
    path = ann.home / "circles" / "friends.muster2"
    path.write_bytes(path.read_bytes()[:100] + b"x" * 5000)
    assert "is damaged" in ann.fails("send", "hello")


# --- services -------------------------------------------------------------------------------


def test_members_learn_of_a_service_from_the_founder(
    ann: Terminal, bob: Terminal, tmp_path: Path
) -> None:
    with serving(tmp_path / "second") as second:
        said = ann.run("circle", "services", "add", second)
        assert "Its id is" in said.stderr
        with bob.running("listen") as his:
            his.until(re.escape(second))
            his.end()
        shown = bob.run("circle", "services", "list").stdout.splitlines()
        assert [line.partition("#")[0] for line in shown] == [ann.base, second]
        bob.run("circle", "services", "remove", ann.base)
        ann.run("send", "over the second one")
        with bob.running("listen") as his:
            his.until("over the second one")
            his.end()
    assert "does not meet at" in bob.fails("circle", "services", "remove", ann.base, expect=2)


def test_a_circle_may_be_made_where_no_service_is(terminal: Open) -> None:
    made = terminal("alone").run("circle", "new", MUSTER_BASE="http://127.0.0.1:9")
    assert "It has no service yet" in made.stdout
    made = terminal("alone").run("circle", "new", f"http://127.0.0.1:9#{'0' * 32}")
    assert "meets at http://127.0.0.1:9" in made.stdout
    assert "there nobody is met so far" in made.stderr


def test_a_circle_is_called_here_as_its_own_people_call_it(terminal: Open, ann: Terminal) -> None:
    invite = Invite.parse(ann.run("circle", "invite").stdout)
    long = circle_of(ann).invite(name="漢" * 32)
    assert Invite.parse(long.code).name == "漢" * 21, "an invite has room for 64 bytes"
    forged = replace(invite, name="Sunday\x1b[2J\u202e & Ö").code
    bob = terminal("Bob")
    bob.run("circle", "new", "--name", "Sunday[2J & Ö")
    said = bob.run("circle", "join", forged).stdout
    assert "circle 'Sunday[2J & Ö-2' meets" in said
    assert "muster listen --circle 'Sunday[2J & Ö-2'" in said
    bob.run("send", "hello", "--circle", "Sunday[2J &  Ö-2")


def test_a_closed_service_is_used_by_the_address_that_it_prints(tmp_path: Path) -> None:
    home = Terminal(tmp_path / "Ann")
    with Terminal(tmp_path / "host").running(
        "serve", "--port", "0", "--data", str(tmp_path / "data"), MUSTER_ACCESS="closed"
    ) as running:
        address = running.until(r"address +(http://\S+#[0-9a-f]{32}&access=\S+)")[1]
        base = address.partition("#")[0]
        wrong = f"{address[:-3]}xyz"
        assert "none that lets in" in home.fails("circle", "new", wrong)
        assert "has another key" in home.fails("circle", "new", f"{base}#{'0' * 32}")
        made = home.run("circle", "new", address.partition("&")[0], "--name", "us").stderr
        closed = "is closed to circles without an access code"
        assert closed in made
        assert closed in home.fails("send", "hello")
        assert "none that lets in" in home.fails("circle", "services", "add", wrong)
        home.run("circle", "services", "add", address)
        home.run("send", "hello again")
        assert base in home.run("circle", "list").stdout
        code = Invite.parse(home.run("circle", "invite").stdout)
        assert code.services[0].text == address, "the invite lets others in too"
        there = replace(code, services=(ServiceAddress.parse(wrong),)).code
        assert "none that lets in" in Terminal(tmp_path / "Bob").fails("circle", "join", there)
        assert not (tmp_path / "Bob" / "circles").exists()
        running.end()
    with Terminal(tmp_path / "host").running(
        "serve", "--port", "0", "--data", str(tmp_path / "data"), MUSTER_ACCESS="closed"
    ) as running:
        assert "access=" not in running.until(r"address +(\S+)")[1], "a code is shown once"
        running.end()


# --- keys -----------------------------------------------------------------------------------


def test_a_rekey_shows_who_stays_and_who_goes_reads_no_more(
    ann: Terminal, bob: Terminal, terminal: Open
) -> None:
    eve = terminal("Eve")
    eve.run("circle", "join", "-", says=ann.run("circle", "invite").stdout)
    old = ann.run("circle", "invite").stdout
    assert "nobody was asked" in ann.run("circle", "rekey", expect=2).stderr
    said = ann.run("circle", "rekey", "--without", "Eve", "--yes")
    assert "has new keys (epoch 1) without Eve" in said.stdout
    assert re.search(r"^  Bob \(\w{8}\), last heard of", said.stderr, re.MULTILINE)
    ann.run("send", "among us")
    with bob.running("listen") as his:
        his.until("among us")
        his.end()
    with eve.running("listen") as hers:
        hers.until("the founder has gone on without you")
        hers.end()
    assert not any("among us" in line for line in hers.seen)
    assert "left this member out" in eve.fails("send", "hello?")
    assert "only the founder's device" in bob.fails("circle", "rekey", "--yes")
    late = terminal("Late")
    done = late.run("circle", "join", "-", says=old, expect=1)
    assert "changed its keys since this invite was made" in done.stderr
    with late.running("listen") as his:
        his.until("gone on without you")
        his.end()
    late.run("circle", "join", "-", says=ann.run("circle", "invite").stdout)
    with late.running("listen") as his:
        his.until("among us")
        his.end()


def test_a_rekey_for_named_members_alone_leaves_all_others_behind(
    ann: Terminal, bob: Terminal, terminal: Open
) -> None:
    eve = terminal("Eve")
    eve.run("circle", "join", "-", says=ann.run("circle", "invite").stdout)
    said = ann.run("circle", "rekey", "--only", "Bob", "--yes", "--json")
    assert json.loads(said.stdout)["epoch"] == 1
    for home, out in ((bob, False), (eve, True)):
        home.run("peers")
        assert json.loads(home.run("circle", "list", "--json").stdout)["out"] is out


def test_the_program_of_the_readme_tells_what_is_new_once_and_ends_well(
    ann: Terminal, tmp_path: Path
) -> None:
    root = Path(__file__).parents[2]
    text = (root / "README.md").read_text()
    (program,) = re.findall(r"```python\n(.*?muster\.circle.*?)```", text, re.DOTALL)
    file = tmp_path / "program.py"
    file.write_text(program.replace("muster2.…", ann.run("circle", "invite").stdout.strip()))
    ann.run("send", "before it joined")
    with ann.running("listen") as hers:
        for news in ("hello bot", "hello again"):
            with subprocess.Popen(
                [sys.executable, str(file)],
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                text=True,
                cwd=tmp_path,
                env=ann.environment(PYTHONPATH=str(root), PYTHONUNBUFFERED="1"),
                # a run in the background ignores Ctrl-C, and so does whom it starts
                preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
            ) as process:
                try:
                    hers.until("bot: hello from a program")
                    ann.run("send", news)
                    assert process.stdout is not None
                    assert process.stdout.readline() == f"Ann {news}\n"
                    process.send_signal(signal.SIGINT)
                    assert process.communicate(timeout=20) == ("", "")
                    assert process.returncode == 0
                finally:
                    process.kill()
    (bot,) = circle_of(ann).file.members()
    assert bot.name == "bot", "it is the same member at every start"


def test_the_founder_key_is_handed_on(ann: Terminal, bob: Terminal) -> None:
    assert "no member is called 'Bop'" in ann.fails("circle", "founder", "give", "Bop", expect=2)
    ann.run("circle", "founder", "give", "Bob")
    with bob.running("listen") as his:
        his.until("you were given the founder key")
        his.end()
    bob.run("circle", "rekey", "--yes")
    with ann.running("listen") as hers:
        hers.until(r"new keys \(epoch 1\)")
        hers.end()


# --- old and new ----------------------------------------------------------------------------


@pytest.fixture
def old_service() -> Iterator[str]:
    """A service of before version 2: it answers what it does not know with 404, unsigned."""

    class Old(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            known = self.path in ("/v1/health", "/v1/info")
            body = b'{"ok":true,"time":1790000000}' if known else b'{"detail":"Not Found"}'
            self.send_response(200 if known else 404)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        do_POST = do_GET

        def log_message(self, *_: object) -> None:
            pass

    server = HTTPServer(("127.0.0.1", 0), Old)
    thread = threading.Thread(target=server.serve_forever, args=(0.01,))
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    thread.join()
    server.server_close()


def test_a_new_circle_at_an_old_service_is_told_which_kind_it_serves(
    terminal: Open, old_service: str
) -> None:
    line = terminal("Ann").fails("circle", "new", old_service)
    assert "does not speak version 2" in line
    assert "circle new --felund" in line


def test_a_new_invite_that_leads_to_an_old_service_is_kept_and_said(
    ann: Terminal, terminal: Open, old_service: str
) -> None:
    """The service was put back to an older version after the invite was made."""
    invite = Invite.parse(ann.run("circle", "invite").stdout)
    (service,) = invite.services
    moved = Invite(
        invite.founder, invite.epoch, (type(service)(old_service, service.id),), name="old"
    )
    assert f"a service at {old_service} now" in ann.fails("circle", "join", moved.code, expect=2)
    friend = terminal("friend")
    said = friend.run("circle", "join", moved.code)
    assert "no service has answered" in said.stderr
    assert old_service.rpartition("/")[2] in friend.fails("send", "hello")


def test_an_old_invite_leads_a_new_client_into_a_felund_circle(terminal: Open) -> None:
    host, friend = terminal("host"), terminal("friend")
    host.run("circle", "new", "--felund")
    code = host.run("circle", "invite").stdout
    assert code.startswith("felund1.")
    friend.run("circle", "join", "-", says=code)
    friend.run("send", "hello")
    with host.running("listen") as hers:
        hers.until("friend: hello")


@pytest.mark.parametrize(
    "words",
    [
        ("services", "list"),
        ("rekey", "--yes"),
        ("founder", "give", "Bob"),
        ("services", "add", "http://127.0.0.1:9#" + "0" * 32),
    ],
)
def test_what_a_felund_circle_cannot_do_names_the_way_to_version_2(
    terminal: Open, words: tuple[str, ...]
) -> None:
    host = terminal("host")
    host.run("circle", "new", "--felund")
    assert "'muster circle upgrade'" in host.fails("circle", *words, expect=2)


def test_a_felund_circle_moves_its_members_to_version_2(terminal: Open) -> None:
    host, friend = terminal("host"), terminal("friend")
    host.run("circle", "new", "--felund", "--name", "us")
    friend.run("circle", "join", "-", says=host.run("circle", "invite").stdout)
    made = json.loads(host.run("circle", "upgrade", "--circle", "us", "--json").stdout)
    with friend.running("listen", "--circle", "circle") as his:
        code = his.until(r"muster circle join (muster2\.\S+)")[1]
    assert code == made["code"]
    friend.run("circle", "join", code, "--name", "new")
    friend.run("send", "--circle", "new", "here we are")
    with host.running("listen", "--circle", made["circle"]) as hers:
        hers.until("friend: here we are")
    assert "is a circle of version 2" in friend.fails(
        "circle", "upgrade", "--circle", "new", expect=2
    )


# --- without a service ----------------------------------------------------------------------


def test_two_friends_talk_with_no_service_at_all(tmp_path: Path) -> None:
    nowhere = "http://127.0.0.1:9"
    ann, bob = Terminal(tmp_path / "Ann", nowhere), Terminal(tmp_path / "Bob", nowhere)
    ann.run("circle", "new", "--name", "us")
    with ann.running("listen", "--port", "0", "--bind", "127.0.0.1") as hers:
        where = hers.until(r"^\* reached directly at (127\.0\.0\.1:\d+)$")[1]
        code = ann.run("circle", "invite", "--peer", where).stdout
        bob.run("circle", "join", "-", says=code)
        bob.run("send", "hello without a service")
        hers.until("Bob: hello without a service")
        ann.run("send", "I hear you")
        with bob.running("listen") as his:
            his.until("Ann: I hear you")
            hers.until("Bob is here")
            ann.run("send", "live")
            his.until("Ann: live")


@pytest.mark.parametrize("text", ["host", "host:0", "host:99999", "a b:1", "[::1]"])
def test_a_peer_that_is_no_host_and_port_is_named(ann: Terminal, text: str) -> None:
    assert "--peer is HOST:PORT" in ann.fails("circle", "invite", "--peer", text, expect=2)


def test_a_port_that_is_taken_is_said(ann: Terminal) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = str(taken.getsockname()[1])
        line = ann.run("listen", "--port", port, "--bind", "127.0.0.1", expect=1).stderr
    assert f"cannot be reached at port {port}" in line
