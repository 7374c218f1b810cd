"""What others wrote, in every place where the command prints it: shown, bounded, never obeyed."""

from __future__ import annotations

import asyncio
import hashlib
import json
import re
import time
import unicodedata
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from muster.cli import cleaning, main, output
from muster.cli.home import Home, Membership
from muster.cli.listening import Listener
from muster.felund import crypto, records
from muster.felund.circle import Circle
from muster.felund.client import Client
from muster.felund.subscription import Joined, Left
from tests.cli.terminal import Terminal
from tests.support.community import Community, made
from tests.support.liar import Liar, lying
from tools.loopback import Place, says

FORGED = ("* Alice joined", "12:00 Bob: forged", "muster: forged", "  unsigned calls  refused")
HOSTILE = (
    "\x1b]0;title\x07\x1b[2J\x9b31m\x00\x7f\x08\u202e\u2066\u200b\ufeff\u00ad\u115f\U000e0041"
    + "".join(f"\n{line}\r{line}\x85{line}\u2028{line}\x0b{line}" for line in FORGED)
    + "e" + "\u0301" * 50
)  # fmt: skip

Run = Callable[..., "tuple[int, str]"]


def harmless(printed: str) -> None:
    """Check that nothing printed is obeyed, forged or hidden."""
    for character in printed:
        assert character == "\n" or unicodedata.category(character) not in ("Cc", "Cs"), printed
        assert character not in "\u202e\u2066\u200b\ufeff\u00ad\u115f\u2028\U000e0041", printed
    for line in printed.split("\n"):
        assert not line.startswith(FORGED), printed
    assert not re.search(f"\u0301{{{cleaning.MARKS + 1}}}", printed)
    lines = [line for line in printed.split("\n") if not line.startswith("{")]
    assert max(map(len, lines)) < 6 * cleaning.MOST_LINE


@pytest.fixture
def liar(base: str) -> Iterator[Liar]:
    with lying(base) as running:
        yield running


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> Run:
    """Run a verb here, in a home of its own; return its code and all that it printed."""
    for name, value in Terminal(tmp_path / "home").environment(MUSTER_NAME="ann").items():
        monkeypatch.setenv(name, value)

    def running(*words: str) -> tuple[int, str]:
        try:
            code = main.main(words)
        except SystemExit as ended:
            code = int(ended.code or 0)
        said = capsys.readouterr()
        return code, said.out + said.err

    return running


@pytest.mark.parametrize(
    "words",
    [
        ("info",),
        ("assist",),
        ("doctor", "--timeout", "1"),
        ("send", "hello"),
        ("bootstrap", "--deadline", "2", "--beacon"),
    ],
    ids=lambda words: words[0],
)
def test_no_text_of_an_answer_is_obeyed(liar: Liar, run: Run, words: tuple[str, ...]) -> None:
    verb = words[0]
    if verb == "send":
        run("circle", "new", "--felund", liar.base)
    else:
        words = (*words, liar.base)
    if verb == "bootstrap":
        run("bootstrap", "--beacon", liar.base, "--announce", "--peer-id", "a")
    run(*words)
    places = list(liar.places)
    assert places

    def lie_everywhere(place: str, text: str) -> str:
        return HOSTILE

    tried: list[Callable[[str, str], str]] = [lie_everywhere]
    for chosen in places if verb in ("info", "assist") else ():
        tried.append(lambda place, text, chosen=chosen: HOSTILE if place == chosen else text)  # type: ignore[misc]
    if verb == "doctor":
        paths = {re.split(r"[.\[]", place)[0] for place in places}
        for path in sorted(paths):
            tried.append(lambda place, text, path=path: HOSTILE if place.startswith(path) else text)  # type: ignore[misc]
    for lie in tried:
        liar.lie = lie
        for more in ((), ("--json",)):
            code, printed = run(*words, *more)
            harmless(printed)
            assert code in (0, 1)
            assert "Traceback" not in printed


@pytest.mark.parametrize("code", ["RATE_LIMITED", "INVALID_SIGNATURE", "UNHEARD_OF", HOSTILE])
def test_no_refusal_forges_a_line(liar: Liar, run: Run, code: str) -> None:
    run("circle", "new", "--felund", liar.base)
    liar.refuses = {"ok": False, "code": code, "message": HOSTILE, "detail": HOSTILE}
    for words in (
        ("info", liar.base),
        ("assist", liar.base),
        ("send", "hello"),
        ("circle", "invite"),
        ("doctor", liar.base),
        ("bootstrap", "--beacon", liar.base),
        ("circle", "leave", "circle", "--yes"),
    ):
        code_, printed = run(*words)
        harmless(printed)
        assert code_ in (0, 1)


def test_no_redirect_forges_a_line(liar: Liar, run: Run) -> None:
    liar.redirects = "/" + re.sub(r"[\r\n\x85\u2028\x0b]", "", HOSTILE).encode().decode("latin-1")
    for words in (("info", liar.base), ("doctor", liar.base), ("bootstrap", "--beacon", liar.base)):
        harmless(run(*words)[1])


# --- listen ---------------------------------------------------------------------------


def note(circle: Circle, **hostile: Any) -> crypto.Note:
    said = crypto.new_note(circle, "bob-00001", "hello", now=1_700_000_000, display_name="Bob")
    return replace(said, **hostile)


@pytest.fixture
def listener(tmp_path: Path) -> Listener:
    membership = Membership("circle", Circle.new(), "http://127.0.0.1:9")
    return Listener(Home(tmp_path), membership, membership.base_url)


@pytest.mark.parametrize("as_json", [False, True])
@pytest.mark.parametrize(
    "field", ["author_node_id", "display_name", "text", "channel_id", "msg_id"]
)
def test_no_field_of_a_message_is_obeyed(
    listener: Listener, field: str, as_json: bool, capsys: pytest.CaptureFixture[str]
) -> None:
    listener.as_json = as_json
    said = note(listener.membership.circle, **{field: HOSTILE})
    listener._show(said)
    listener._show(replace(said, display_name=""))
    peer = records.Peer(
        node_id=said.author_node_id,
        circle_hint=listener.membership.circle.circle_hint,
        endpoints=(),
        capabilities=records.Capabilities(),
        observed_at=1,
        expires_at=2,
    )
    listener._show(Joined(peer))
    listener._show(Left(said.author_node_id))
    listener._show(Joined(replace_node(peer, HOSTILE)))
    printed = capsys.readouterr()

    harmless(printed.out + printed.err.replace("* Bob (", "- Bob ("))
    if as_json:
        assert all(json.loads(line) for line in printed.out.splitlines())


def replace_node(peer: records.Peer, node_id: str) -> records.Peer:
    import msgspec

    return msgspec.structs.replace(peer, node_id=node_id)


@pytest.mark.parametrize("instant", [-1, 0, 2**53, 10**18])
def test_no_time_of_a_message_ends_listen(
    listener: Listener, instant: int, capsys: pytest.CaptureFixture[str]
) -> None:
    listener._show(note(listener.membership.circle, created_ts=instant))
    assert "Bob: hello" in capsys.readouterr().out


def test_a_name_of_a_hundred_lines_is_one_short_one(
    listener: Listener, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in (
        "a\n" * 100,
        " " * 200 + "* Alice joined",
        "漢" * 100,
        "e" + "\u0301" * 1000,
        "\u3164 ",
    ):
        listener._show(note(listener.membership.circle, display_name=name))
    for line in capsys.readouterr().out.splitlines()[1:]:
        assert sum(map(cleaning._width, line)) < 70
        assert re.fullmatch(r"\d\d:\d\d \S.*: hello", line)


def test_a_message_without_end_is_cut(
    listener: Listener, capsys: pytest.CaptureFixture[str]
) -> None:
    listener._show(note(listener.membership.circle, text="x" * 500_000))
    assert len(capsys.readouterr().out) < cleaning.MOST_TEXT + 100


def test_listen_shows_a_hostile_member_harmlessly(one: Terminal) -> None:
    (kept,) = (one.home / "circles").iterdir()
    circle = Circle.from_secret_hex(json.loads(kept.read_text())["secret"])

    async def attack() -> None:
        async with Client(one.base, circle, "mallory-01") as client:
            await client.register()
            for field in ("author_node_id", "display_name", "text"):
                said = note(circle, **{field: HOSTILE.replace("|", "")})
                await client.leave_messages([crypto.encrypt(circle, said)])
            last = note(circle, text="the end", msg_id=hashlib.sha256(b"x").hexdigest())
            await client.leave_messages([crypto.encrypt(circle, last)])

    asyncio.run(attack())
    with one.running("listen") as listening_now:
        listening_now.until("the end")
        seen = [line for line in listening_now.seen if not line.startswith("* ")]
    harmless("\n".join(seen))


# --- capsules and logs ----------------------------------------------------------------


def test_no_ticket_and_no_capsule_is_obeyed(run: Run, tmp_path: Path) -> None:
    us = Community()
    names = [part for part in (HOSTILE[:60], HOSTILE[60:120], "\u202eevil", "a\nb") if _makes(part)]
    tickets = [made(name, now=us.now, user=name) for name in names]
    capsule = tmp_path / "peers.json"
    capsule.write_bytes(us.publish(*tickets).capsule)
    harmless(run("capsule", "inspect", str(capsule))[1])
    listed = json.dumps({"ok": True, "peers": [one.to_json() for one in tickets]}).encode()

    async def asked() -> tuple[int, str]:
        async with Place({"/peers": says(listed)}) as place:
            return await asyncio.to_thread(run, "bootstrap", "--beacon", place.url)

    harmless(asyncio.run(asked())[1])


def _makes(name: str) -> bool:
    from capsules.errors import Refused

    try:
        made(name, now=int(time.time()))
    except Refused:
        return False
    return True


@pytest.mark.parametrize("field", ["type", "community", "peers", "payload"])
def test_no_file_is_obeyed(run: Run, tmp_path: Path, field: str) -> None:
    path = tmp_path / "file.json"
    path.write_text(json.dumps({"version": 1, "peers": [], field: HOSTILE}))
    for words in (("inspect", str(path)), ("verify", str(path), "--key", "A" * 43 + "=")):
        harmless(run("capsule", *words)[1])


def test_no_line_of_a_log_is_obeyed() -> None:
    from infra.deployed import _readable

    for logged in (
        HOSTILE,
        json.dumps({"level": "INFO", "message": HOSTILE, "node": HOSTILE}),
        json.dumps({"level": HOSTILE, "message": "called", HOSTILE: 1}),
    ):
        harmless("12:00:00  " + _readable(logged))


def test_a_text_cannot_begin_a_line_where_the_terminal_breaks_it() -> None:
    said = (
        "12:00 Bob: hello" + " " * 24 + "* Alice joined\nand 漢漢漢漢漢漢漢漢漢漢漢漢漢漢漢漢漢漢漢"
    )

    assert cleaning.wrapped(said, width=40, indent="      ").split("\n") == [
        "12:00 Bob: hello" + " " * 24,
        "      * Alice joined",
        "      and 漢漢漢漢漢漢漢漢漢漢漢漢漢漢漢",
        "      漢漢漢漢",
    ]


# --- the function itself ----------------------------------------------------------------


@pytest.mark.parametrize(
    "text",
    [
        "plain ✓ ä 漢 👋🏽",
        "👩‍💻 ❤️‍🔥",
        "می‌خواهم",
        "क्‍ष",
        "שָׁלוֹם",
        "a\u0301 ế",
        "٠١٢ ؁",
        "C:\\x1b",
    ],
)
def test_what_people_write_stays_as_it_is(text: str) -> None:
    assert output.clean(text) == text
    assert output.line(text) == text
    assert output.name(text) == text


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("a\n\nb", "a  b"),
        ("a\r\nb\x85c\u2028d", "a  b  c  d"),
        ("a" + " " * 500 + "b", "a  b"),
        ("a  b", "a  b"),
        (" \n a", "a"),
        ("", ""),
    ],
)
def test_a_line_is_one_line_without_wide_gaps(text: str, shown: str) -> None:
    assert output.line(text) == shown


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("Al\u200dice", "Al\\u200dice"),
        ("👩\u200d\u200d👩", "👩\u200d\\u200d👩"),
        ("\u0301x", "\\u0301x"),
        ("x" + "\u0301" * 9, "x" + "\u0301" * 4),
        ("a\u00adb\u2800", "a\\xadb\\u2800"),
        ("\U000e0041", "\\U000e0041"),
        ("x" * 41, "x" * 40 + "…"),
        ("漢" * 21, "漢" * 20 + "…"),
        ("\x1b" * 11, "\\x1b" * 10 + "…"),
    ],
)
def test_a_name_hides_nothing_and_is_short(text: str, shown: str) -> None:
    assert output.name(text) == shown


def test_json_is_ascii_without_control_characters(capsys: pytest.CaptureFixture[str]) -> None:
    output.dump({"text": HOSTILE, HOSTILE: "\x7f"})
    printed = capsys.readouterr().out

    assert printed.isascii()
    assert printed.rstrip("\n").isprintable()
    assert json.loads(printed) == {"text": HOSTILE, HOSTILE: "\x7f"}
