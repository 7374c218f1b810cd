"""Standard streams that are closed, full or not UTF-8: an exit code and a line, for every verb."""

from __future__ import annotations

import io
import os
import secrets
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from chalicelib.community import key_files, keyring
from chalicelib.community.keyring import RootKey
from chalicelib.store.sqlite import open_sqlite
from muster import circle as circles
from muster import keys
from muster.circle.peers import Member
from muster.cli import main
from muster.cli.home import Home, Membership
from muster.felund.circle import Circle
from muster.felund.invite import Invite
from muster.records import GENERAL
from tests.cli.terminal import MUSTER, Terminal
from tests.support import members2
from tests.support.community import key

FULL = Path("/dev/full")
KEY = key("root").verify_key.to_base64()

REPORTS = {
    "--version": (),
    "--help": (),
    "circle list": (),
    "circle invite": (),
    "circle services list": ("--circle", "ours"),
    "peers": ("--circle", "ours"),
    "inbox": (),
    "doctor": (),
    "info": (),
    "watch": ("--json", "--after", "2"),
    "assist": (),
    "bootstrap": (
        *("--beacon", "{base}", "--announce"),
        *("--peer-id", "a", "--community", "{community}"),
    ),
    "capsule inspect": ("{keys}",),
    "cost": (),
}
"""Verbs whose output is what was asked for: without it they have failed.

The first node of a community finds nobody, so that its `bootstrap` exits with 1.
"""

DEEDS = {
    "send": ("hello",),
    "circle new": ("--name", "other"),
    "circle join": ("{code}", "--name", "joined"),
    "circle use": ("circle",),
    "circle rename": ("circle", "renamed"),
    "circle leave": ("circle", "--yes"),
    "circle services add": ("{address}", "--circle", "ours"),
    "circle services remove": ("{base}", "--circle", "ours"),
    "circle rekey": ("--circle", "ours", "--yes", "--json"),
    "circle founder give": ("Bob", "--circle", "ours"),
    "circle upgrade": ("--circle", "circle", "--json"),
    "keygen root": ("--out", "{folder}/fresh.key"),
    "keygen capsule": ("--root", "{root}", "--out", "{folder}/online/"),
    "capsule rotate": ("--online", "--root", "{root}", "--keys", "{keys}"),
    "capsule revoke": (KEY, "--root", "{root}", "--keys", "{keys}"),
    "export": ("{folder}/copy.jsonl", "--plain"),
    "import": ("{folder}/profile.jsonl",),
    "backup": ("{folder}/copy.tar", "--data", "{data}"),
    "restore": ("{backup}", "--data", "{folder}/restored"),
}
"""Verbs that have done something: whoever sees them fail does it again."""


class Stage(NamedTuple):
    """A member with a circle, keys and a service's data, all fresh."""

    terminal: Terminal
    places: dict[str, str]

    def words(self, verb: str) -> list[str]:
        given = (DEEDS | REPORTS)[verb]
        return [*verb.split(), *(word.format(**self.places) for word in given)]

    def run(self, verb: str, **streams: Any) -> subprocess.CompletedProcess[str]:
        given = {"stdin": subprocess.DEVNULL, "stderr": subprocess.PIPE} | streams
        environment = self.terminal.environment(COLUMNS="80")
        return subprocess.run(
            [*MUSTER, *self.words(verb)],
            env=environment,
            text=True,
            timeout=30,
            check=False,
            **given,
        )


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory, base: str) -> Path:
    """What every stage begins with."""
    folder = tmp_path_factory.mktemp("made")
    mine = Membership("circle", Circle.new(), base)
    Home(folder / "home").keep(mine, new=True)
    ours = circles.Circle.new(
        Home(folder / "home").place_for("ours"), services=[members2.address(base)]
    )
    bob = keys.Member.new(ours.id)
    ours.file.introduce(Member(bob.id, bob.public, bob.box_public, "Bob", b"", 0, 1))
    ours.file.draft(GENERAL, "text", {"text": "hello"})
    for draft in ours.file.drafts():
        ours.record(draft)
    ours.close()
    Home(folder / "home").use("circle")
    (folder / "code").write_text(Invite(Circle.new(), base).code())
    root = RootKey.first(key("root"), now=1_700_000_000)
    key_files.keep_new(folder / "root.key", root.encode())
    online = root.certify(key("online"), now=int(time.time()), lasting_s=100_000)
    key_files.keep_new(folder / "publishing.key", keyring.encode(online))
    (folder / "data").mkdir()
    open_sqlite(folder / "data" / "muster.sqlite3").close()
    words = ("backup", str(folder / "backup.tar"), "--data", str(folder / "data"))
    Terminal(folder / "home", base).run(*words)
    Terminal(folder / "home", base).run("export", str(folder / "profile.jsonl"), "--plain")
    return folder


@pytest.fixture
def stage(made: Path, base: str, tmp_path: Path) -> Stage:
    folder = Path(shutil.copytree(made, tmp_path / "stage"))
    places = {
        "base": base,
        "address": members2.address(base).text,
        "code": (folder / "code").read_text(),
        "root": folder / "root.key",
        "keys": folder / "publishing.key",
        "data": folder / "data",
        "backup": folder / "backup.tar",
        "folder": folder,
        "community": f"alone-{secrets.token_hex(8)}",
    }
    return Stage(
        Terminal(folder / "home", base), {name: str(place) for name, place in places.items()}
    )


def closed(number: int) -> Callable[[], None]:
    """Close a stream in the new process, as `>&-` does."""
    return lambda: os.close(number)


def test_the_tables_here_hold_every_verb_that_is_not_tried_elsewhere() -> None:
    verbs = set(_verbs(main.parser(), ()))
    long = {"listen", "serve", "chat", "node"}
    cloud = {"plan", "deploy", "status", "outputs", "dashboard", "logs", "rotate", "destroy"}
    with_community = {"capsule fetch", "capsule verify", "capsule publish"}

    doors = {"access allow", "access new", "access list", "access revoke"}

    tried = {verb for verb in {*DEEDS, *REPORTS} if verb[0] != "-"}
    assert tried == verbs - long - cloud - with_community - doors


def _verbs(parser: object, before: tuple[str, ...]) -> list[str]:
    found = []
    for action in getattr(parser, "_actions", ()):
        choices = getattr(action, "choices", None)
        if isinstance(choices, dict):
            for name, inner in choices.items():
                found += _verbs(inner, (*before, name)) or [" ".join((*before, name))]
    return found


@pytest.mark.parametrize("verb", [*DEEDS, *REPORTS])
def test_a_closed_stdout_is_one_that_leads_nowhere(stage: Stage, verb: str) -> None:
    done = stage.run(verb, preexec_fn=closed(1))

    assert (done.returncode, done.stderr.count("muster:")) == (1 if verb == "bootstrap" else 0, 0)
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize("verb", DEEDS)
def test_what_is_done_stays_done_where_its_report_cannot_be_written(
    stage: Stage, verb: str
) -> None:
    with FULL.open("w") as full:
        done = stage.run(verb, stdout=full)

    assert done.returncode == 0, done.stderr
    assert done.stderr == (
        "muster: cannot write to standard output: no space left on device; "
        "what was asked for is done all the same\n"
    )


@pytest.mark.parametrize("verb", REPORTS)
def test_a_report_that_cannot_be_written_is_a_failure(stage: Stage, verb: str) -> None:
    with FULL.open("w") as full:
        done = stage.run(verb, stdout=full)

    assert done.returncode == 1
    complaint = "muster: cannot write to standard output: no space left on device"
    assert done.stderr.splitlines()[-1] == complaint
    assert done.stderr.count("muster:") == 1


@pytest.mark.parametrize("verb", [*DEEDS, *REPORTS])
def test_nobody_reads_the_report(stage: Stage, verb: str) -> None:
    reading, writing = os.pipe()
    os.close(reading)
    with os.fdopen(writing) as pipe:
        done = stage.run(verb, stdout=pipe)

    assert done.returncode == 0
    assert "muster:" not in done.stderr
    assert "Error" not in done.stderr


@pytest.mark.parametrize("verb", [*DEEDS, *REPORTS])
def test_where_all_streams_are_closed_the_exit_code_stays_the_same(stage: Stage, verb: str) -> None:
    done = stage.run(verb, stdin=None, stderr=None, preexec_fn=lambda: os.closerange(0, 3))

    assert done.returncode == (1 if verb == "bootstrap" else 0)


@pytest.mark.parametrize("how", ["closed", "full"])
def test_complaints_that_nobody_can_read_change_no_exit_code(stage: Stage, how: str) -> None:
    with FULL.open("w") as full:
        lost: dict[str, Any] = {"stderr": full}
        if how == "closed":
            lost = {"stderr": None, "preexec_fn": closed(2)}
        for verb, code in (("send", 0), ("circle invite", 0), ("bootstrap", 1)):
            assert stage.run(verb, stdout=subprocess.DEVNULL, **lost).returncode == code


@pytest.mark.parametrize(
    "words", [("circle", "use", "nobody"), ("nonsense",), ("circle", "leave", "circle")]
)
def test_misuse_has_its_exit_code_also_where_it_cannot_be_said(
    one: Terminal, words: tuple[str, ...]
) -> None:
    done = subprocess.run(
        [*MUSTER, *words],
        env=one.environment(),
        preexec_fn=lambda: os.closerange(0, 3),
        check=False,
    )
    assert done.returncode == 2


def test_listen_ends_where_its_output_is_lost_and_shows_it_again(one: Terminal) -> None:
    one.run("send", "remember me")
    with FULL.open("w") as full:
        done = subprocess.run(
            [*MUSTER, "listen"],
            env=one.environment(),
            stdin=subprocess.DEVNULL,
            stdout=full,
            stderr=subprocess.PIPE,
            text=True,
            timeout=20,
            check=False,
        )
    assert done.returncode == 1
    assert done.stderr.endswith("standard output: no space left on device\n")
    with one.running("listen") as listening:
        listening.until("remember me")


def test_listen_loses_no_message_that_came_while_the_disk_was_full(
    one: Terminal, tmp_path: Path
) -> None:
    """The live way: what could not be shown is not counted as read."""
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    reader = os.open(pipe, os.O_RDONLY | os.O_NONBLOCK)
    with pipe.open("w") as writing:
        process = subprocess.Popen(
            [*MUSTER, "listen"],
            env=one.environment(),
            stdin=subprocess.DEVNULL,
            stdout=writing,
            stderr=subprocess.PIPE,
            text=True,
        )
    assert process.stderr is not None
    while "listening to" not in process.stderr.readline():
        pass
    os.close(reader)
    one.run("send", "nobody reads this")
    assert process.wait(20) == 0
    process.stderr.close()
    with one.running("listen") as listening:
        listening.until("nobody reads this")


# --- standard input -------------------------------------------------------------------


def piped(terminal: Terminal, *words: str, raw: bytes | None) -> subprocess.CompletedProcess[str]:
    done = subprocess.run(
        [*MUSTER, *words],
        env=terminal.environment(),
        input=raw,
        capture_output=True,
        timeout=20,
        check=False,
        **({} if raw is not None else {"preexec_fn": closed(0)}),  # type: ignore[call-overload]
    )
    return subprocess.CompletedProcess(words, done.returncode, done.stdout, done.stderr.decode())


@pytest.mark.parametrize("words", [("send", "-"), ("circle", "join", "-")], ids=" ".join)
@pytest.mark.parametrize(
    ("raw", "says"),
    [
        (b"Z\xfcrich\n", "is not UTF-8"),
        (b"\xff\xfe\n", "is not UTF-8"),
        (b"x" * (1024 * 1024 + 1), "more than 1048576 bytes"),
        (b"", ""),
        (None, ""),
    ],
    ids=["latin-1", "bytes", "too much", "nothing", "closed"],
)
def test_standard_input_that_is_no_text(
    one: Terminal, words: tuple[str, ...], raw: bytes | None, says: str
) -> None:
    done = piped(one, *words, raw=raw)

    assert done.returncode == 2
    assert says in done.stderr
    assert done.stderr.startswith("muster: ")
    assert done.stderr.count("\n") == 1


def test_input_without_end_is_not_read_to_it(one: Terminal) -> None:
    with Path("/dev/zero").open("rb") as zeros:
        done = subprocess.run(
            [*MUSTER, "send", "-"],
            env=one.environment(),
            stdin=zeros,
            capture_output=True,
            timeout=20,
            check=False,
        )
    assert done.returncode == 2


@pytest.mark.parametrize("locale", ["C", "POSIX", "en_US.ISO-8859-1"])
def test_text_from_a_pipe_is_utf_8_whatever_the_locale_is(one: Terminal, locale: str) -> None:
    environment = {"LC_ALL": locale, "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}
    for said in ("ä ✓ 漢".encode(),):
        done = subprocess.run(
            [*MUSTER, "send", "-", "--json"],
            env=one.environment(**environment),
            input=said,
            capture_output=True,
            timeout=20,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        assert b"\\u00e4 \\u2713 \\u6f22" in done.stdout
    listed = one.run("doctor", expect=0, **environment)
    assert "All" in listed.stdout


@pytest.mark.parametrize("columns", ["0", "1", "-1", "abc", "", "８０", "999999999", " 80"])
def test_odd_columns_do_no_harm(one: Terminal, columns: str) -> None:
    for words in (("--help",), ("circle", "list"), ("info",), ("send", "--help")):
        done = one.run(*words, expect=0, COLUMNS=columns)
        assert max(map(len, done.stdout.splitlines())) < 1000


# --- no home --------------------------------------------------------------------------


@pytest.mark.parametrize(
    "words",
    [
        ("circle", "new", "--felund"),
        ("circle", "list"),
        ("send", "hello"),
        ("listen",),
        ("bootstrap", "--beacon", "http://127.0.0.1:9"),
        ("capsule", "fetch", f"http://127.0.0.1:9/peers.json#{KEY}"),
    ],
    ids=" ".join,
)
@pytest.mark.parametrize("home", ["empty", "of nobody"])
def test_who_has_no_home_is_told_in_a_sentence(
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    words: tuple[str, ...],
    home: str,
) -> None:
    monkeypatch.delenv("MUSTER_HOME", raising=False)
    if home == "empty":
        monkeypatch.setenv("HOME", "")
    else:
        monkeypatch.setenv("MUSTER_HOME", "~nobody-of-that-name/x")
    assert main.main(words) == 1
    said = capsys.readouterr()
    assert said.out == ""
    assert "there is no home folder for ~" in said.err
    assert said.err.count("\n") == 1


AS_NOBODY = """
import os, pwd, sys
from muster.cli.home import Home
from muster.cli.output import Failure, complain
pwd.getpwall()
if os.geteuid() == 0:
    os.setuid(54321)
else:
    os.environ["MUSTER_HOME"] = "~nobody-of-that-name"
try:
    Home.from_environment()
except Failure as failure:
    sys.exit(complain(failure))
"""


def test_whoever_has_neither_home_nor_entry_is_told_too(tmp_path: Path) -> None:
    environment = Terminal(tmp_path).environment()
    for name in ("HOME", "MUSTER_HOME"):
        environment.pop(name, None)
    done = subprocess.run(
        [sys.executable, "-c", AS_NOBODY],
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 1
    assert "there is no home folder for ~" in done.stderr


def test_a_folder_that_was_removed_is_said(one: Terminal, tmp_path: Path) -> None:
    gone = tmp_path / "gone"
    script = 'mkdir "$1"; cd "$1"; rmdir "$1"; shift; exec "$@"'
    root = Path(__file__).parents[2]
    for words in (("backup", "x", "--data", "data"), ("restore", "x", "--data", "data")):
        done = subprocess.run(
            ["sh", "-c", script, "sh", str(gone), *MUSTER, *words],
            env=one.environment(PYTHONPATH=str(root)),
            capture_output=True,
            text=True,
            timeout=20,
            check=False,
        )
        assert done.returncode == 1
        assert done.stderr.startswith("muster: ")
        assert done.stderr.count("\n") == 1


# --- words that are no text -----------------------------------------------------------

ODD = ("\udcff", "a\nb", "\x1b[2J", "x" * 5000, "", " ", "😀", "\u202e")


@pytest.mark.parametrize("odd", ODD, ids=ascii)
def test_odd_words_are_refused_or_taken_and_never_a_traceback(
    stage: Stage, odd: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    base, folder = stage.terminal.base, stage.places["folder"]
    monkeypatch.chdir(folder)
    for name, value in stage.terminal.environment().items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO()))
    for words in (
        ("send", odd),
        ("send", "hello", "--name", odd),
        ("send", "hello", "--circle", odd),
        ("circle", "new", "--felund", "--name", odd),
        ("circle", "new", "--name", odd),
        ("circle", "services", "add", odd),
        ("circle", "rekey", "--without", odd, "--circle", "ours"),
        ("circle", "founder", "give", odd, "--circle", "ours"),
        ("send", "--circle", "ours", odd),
        ("peers", "--circle", odd),
        ("circle", "join", odd),
        ("circle", "use", odd),
        ("circle", "rename", "circle", odd),
        ("info", odd),
        ("assist", "--token", odd),
        ("assist", "--peer-hint", odd),
        ("assist", "--path", odd),
        ("bootstrap", "--beacon", base, "--community", odd),
        ("bootstrap", "--beacon", base, "--announce", "--peer-id", odd),
        ("bootstrap", "--beacon", base, "--cache", f"{folder}/{odd}"),
        ("capsule", "fetch", f"{base}/peers.json#{odd}"),
        ("capsule", "inspect", odd),
        ("capsule", "verify", odd, "--root", odd),
        ("keygen", "root", "--out", f"{folder}/{odd}"),
        ("keygen", "capsule", "--root", odd, "--out", odd, "--community", odd),
        ("capsule", "revoke", odd, "--root", odd, "--keys", odd),
        ("backup", f"{folder}/{odd}", "--data", odd),
        ("restore", odd, "--data", f"{folder}/fresh"),
        ("listen", "--since", odd),
        ("nonsense", odd),
        (odd,),
    ):
        code = run_here(words)
        said = capsys.readouterr()
        assert code in (0, 1, 2), words
        assert "mistake in muster" not in said.err, words
        assert "\x1b" not in said.err + said.out, words
        assert sum(line.startswith("muster: ") for line in said.err.splitlines()) <= 1, words


def run_here(words: tuple[str, ...]) -> object:
    try:
        return main.main(words)
    except SystemExit as ended:
        return ended.code
