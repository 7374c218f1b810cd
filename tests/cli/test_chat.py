"""`muster send` and `muster listen`: two terminals talk through a real service."""

import asyncio
import json
import signal
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from muster.cli import listening as verb
from muster.cli import times
from muster.cli.home import Home, Membership
from muster.cli.output import Misuse
from muster.errors import InvalidSignature, RateLimited
from muster.felund.circle import Circle
from muster.felund.client import Client
from muster.felund.invite import Invite
from muster.felund.sockets import Unreachable
from tests.cli.terminal import Terminal, serving

Open = Callable[[str], Terminal]
LISTENING = r"^\* listening"


def test_two_terminals_talk(one: Terminal, two: Terminal) -> None:
    with one.running("listen") as first:
        first.until(LISTENING)
        with two.running("listen") as second:
            second.until(LISTENING)
            first.until(r"^\* \w{24} joined")
            two.run("send", "hello", "from", "two")
            first.until(r"^\d\d:\d\d two: hello from two$")
            one.run("send", "hello from one")
            second.until(r"^\d\d:\d\d one: hello from one$")
        first.until(r"^\* two \(\w{8}…\) left")


def test_who_sends_hears_it_in_the_next_terminal(one: Terminal) -> None:
    with one.running("listen") as listening:
        listening.until(LISTENING)
        one.run("send", "to myself")
        listening.until("one: to myself")


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_listening_ends_cleanly(one: Terminal, number: signal.Signals) -> None:
    with one.running("listen") as listening:
        listening.until(LISTENING)
        assert listening.end(number) == 0
        assert "Traceback" not in "".join(listening.seen)


def test_a_restart_shows_what_was_missed_and_nothing_twice(one: Terminal, two: Terminal) -> None:
    one.run("send", "before the first time")
    with two.running("listen") as listening:
        listening.until("before the first time")
        one.run("send", "while listening")
        listening.until("while listening")
    one.run("send", "missed 1")
    one.run("send", "missed 2")
    with two.running("listen") as listening:
        listening.until(r"^\* 2 while you were away")
        listening.until("missed 1")
        listening.until("missed 2")
        listening.until(LISTENING)
    assert not any("listening " in line and "one:" in line for line in listening.seen)
    with two.running("listen") as listening:
        listening.until(LISTENING)
        one.run("send", "the end")
        listening.until("the end")
    assert sum(": " in line and "one" in line for line in listening.seen) == 1


def test_the_first_time_shows_the_last_messages(one: Terminal, two: Terminal) -> None:
    circle = Invite.parse(one.run("circle", "invite").stdout).circle
    asyncio.run(_say(one.base, circle, [f"number {n}" for n in range(verb.RECENT + 2)]))
    with two.running("listen") as listening:
        listening.until(r"^\* 2 older messages: muster listen --since all")
        listening.until(r"one: number 2$")
        listening.until(LISTENING)
    with two.running("listen", "--since", "all") as listening:
        listening.until(r"one: number 0$")
        listening.until(LISTENING)
    with two.running("listen", "--since", "2099-01-01") as listening:
        listening.until(LISTENING)
        assert not any("number" in line for line in listening.seen)


def test_json_is_a_line_for_each_event(one: Terminal, two: Terminal) -> None:
    with one.running("listen", "--json") as listening:
        listening.until(LISTENING)
        sent = json.loads(two.run("send", "--json", "zwei\nZeilen ✓").stdout)
        with two.running("listen") as second:
            second.until(LISTENING)
        listening.until('"t":"left"')
    events = [json.loads(line) for line in listening.seen if line.startswith("{")]
    assert [event["t"] for event in events] == ["message", "joined", "left"]
    assert events[0]["text"] == "zwei\nZeilen ✓"
    assert {**events[0], "circle": "circle"} == {"t": "message", **sent}


def test_other_people_s_text_does_not_steer_the_terminal(one: Terminal, two: Terminal) -> None:
    with one.running("listen") as listening:
        listening.until(LISTENING)
        two.run("send", "--name", "evil\nname\x1b[2J", "red \x1b[31m\x07 \u202eback\nsecond line")
        listening.until(r"evil name\\x1b\[2J: red \\x1b\[31m\\x07 \\u202eback$")
        listening.until("^      second line$")


def test_text_can_come_from_a_pipe(one: Terminal) -> None:
    one.run("send", "-", says="from a pipe\n")
    with one.running("listen") as listening:
        listening.until("one: from a pipe$")
    assert "there is nothing to send" in one.fails("send", "", expect=2)


def test_what_is_refused_has_a_hint(one: Terminal, two: Terminal) -> None:
    one.run("send", "hello")
    line = two.run("send", "-", says="x" * 800_000, expect=1).stderr
    assert "a body may have 1048576 bytes" in line
    assert "; send less at a time" in line
    assert line.count("\n") == 1


@pytest.mark.parametrize("words", [("send", "hello"), ("listen",)])
def test_a_service_that_is_not_there_has_a_hint(one: Terminal, words: tuple[str, ...]) -> None:
    line = one.fails(*words, "--base", "http://127.0.0.1:9")
    assert line == (
        "muster: nothing listens at 127.0.0.1:9; is it running? 'muster serve' starts one\n"
    )


@pytest.mark.slow
def test_listening_outlives_the_service(tmp_path: Path) -> None:
    port = _free_port()
    one = Terminal(tmp_path / "one", f"http://127.0.0.1:{port}")
    one.run("circle", "new", "--felund")
    with ExitStack() as stack:
        with serving(tmp_path, port=port):
            listening = stack.enter_context(one.running("listen"))
            listening.until(LISTENING)
        listening.until(r"^\* no live connection")
        with serving(tmp_path, port=port):
            one.run("send", "back again")
            listening.until("one: back again")
            assert listening.end() == 0


@pytest.mark.slow
def test_listening_outlives_a_front_end_at_work(tmp_path: Path) -> None:
    port = _free_port()
    one = Terminal(tmp_path / "one", f"http://127.0.0.1:{port}")
    one.run("circle", "new", "--felund")
    with ExitStack() as stack:
        with serving(tmp_path, port=port):
            listening = stack.enter_context(one.running("listen"))
            listening.until(LISTENING)
        with _at_work(port):
            listening.until(r"^\* no live connection \(.* 404 without a word from Muster")
        with serving(tmp_path, port=port):
            one.run("send", "back again")
            listening.until("one: back again")
            assert listening.end() == 0


@pytest.mark.parametrize("beyond", [2**53 - 1, 86_400_000])
def test_a_place_beyond_the_mailbox_that_was_kept_heals(
    one: Terminal, base: str, beyond: int
) -> None:
    one.run("send", "said before")
    with one.running("listen") as listening:
        listening.until("said before")
    home = Home(one.home)
    member = home.chosen(None)
    true = home.cursor(member, base)
    assert true is not None
    home.keep_cursor(member, base, max(beyond, true + beyond) if beyond < 2**52 else beyond)

    with one.running("listen") as listening:
        listening.until("said before")
        listening.until(LISTENING)
        one.run("send", "said now")
        listening.until("said now")

    kept = home.cursor(member, base)
    assert kept is not None
    assert true < kept < true + 100


@pytest.mark.slow
def test_listening_outlives_the_service_s_data(tmp_path: Path) -> None:
    port = _free_port()
    one = Terminal(tmp_path / "one", f"http://127.0.0.1:{port}")
    one.run("circle", "new", "--felund")
    with ExitStack() as stack:
        with serving(tmp_path / "first", port=port):
            listening = stack.enter_context(one.running("listen"))
            listening.until(LISTENING)
            one.run("send", "before")
            listening.until("one: before")
        with serving(tmp_path / "second", port=port):
            listening.until(r"^\* the service had forgotten this circle: registered again")
            one.run("send", "after")
            listening.until("one: after")
            assert listening.end() == 0


def test_registering_again_is_not_repeated_where_it_does_not_help(tmp_path: Path) -> None:
    class Refusing:
        """Events of a service that forgets the circle as soon as it knows it."""

        cursor = 0

        def __aiter__(self) -> "Refusing":
            return self

        async def __anext__(self) -> None:
            raise InvalidSignature("no request key is pinned for this circle; register first")

    class Counting:
        """A client whose service accepts every registration."""

        calls = 0

        async def register(self, *, ttl_s: int) -> None:
            self.calls += 1

    member = Membership("circle", Circle(bytes(range(32))), "http://127.0.0.1:9")
    listener = verb.Listener(Home(tmp_path), member, member.base_url)
    client = Counting()
    with pytest.raises(InvalidSignature):
        asyncio.run(listener._follow(client, Refusing()))  # type: ignore[arg-type] # they stand in
    assert client.calls == 1


def test_the_registration_is_renewed_until_it_is_refused_for_good(tmp_path: Path) -> None:
    class Answering:
        """A client whose service answers as told, one answer a call."""

        def __init__(self) -> None:
            self.answers = [
                None,
                Unreachable("gone"),
                RateLimited("slowly"),
                None,
                InvalidSignature("another key"),
            ]

        async def register(self, *, ttl_s: int) -> None:
            assert ttl_s == verb.TTL_S
            answer = self.answers.pop(0)
            if answer:
                raise answer

    member = Membership("circle", Circle(bytes(range(32))), "http://127.0.0.1:9")
    listener = verb.Listener(Home(tmp_path), member, member.base_url, ttl_s=0.001, again_s=0)
    client = Answering()
    with pytest.raises(InvalidSignature):
        asyncio.run(listener._stay_registered(client))  # type: ignore[arg-type] # it stands in
    assert client.answers == []


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("all", 0.0), ("90s", 910.0), ("10m", 400.0), ("0h", 1000.0), ("1970-01-02T00:00Z", 86400.0)],
)
def test_a_start_is_a_while_ago_or_a_date(text: str, seconds: float) -> None:
    assert times.since(text, now=1000.0) == seconds


@pytest.mark.parametrize("text", ["", "soon", "10", "-1h", "1.5h", "2026-13-01", "9" * 10 + "d"])
def test_another_start_is_refused(text: str) -> None:
    with pytest.raises(Misuse, match="is no time"):
        times.since(text, now=1000.0)


async def _say(base: str, circle: Circle, texts: list[str]) -> None:
    async with Client(base, circle, "many-words") as client:
        await client.register()
        for text in texts:
            await client.send(text, display_name="one")


@contextmanager
def _at_work(port: int) -> Iterator[None]:
    """Stand where the service was, and answer as a front end that knows nothing of it."""

    class Page(BaseHTTPRequestHandler):
        def answer(self) -> None:
            self.send_error(404)

        do_GET = do_POST = do_DELETE = answer

        def log_message(self, format: str, *arguments: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", port), Page) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield
        server.shutdown()


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port
