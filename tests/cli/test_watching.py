"""`muster watch`: silent while a service is well, a line for each thing that is wrong."""

import json
import shlex
import subprocess
import threading
import time
from collections.abc import Iterator
from datetime import timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from muster.cli.main import parser
from tests.cli.terminal import MUSTER, Terminal
from tests.support.certificate import Authority
from tests.support.community import Community, key
from tests.support.local import running, running_with_tls

ROOT = Path(__file__).parents[2]
COMMUNITY = "town"
NOWHERE = "http://127.0.0.1:9"


@pytest.fixture
def watcher(tmp_path: Path) -> Terminal:
    return Terminal(tmp_path / "watcher")


class Told(ThreadingHTTPServer):
    """A service that says of its health what a test wants."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Answers)
        self.files: dict[str, bytes] = {}

    @property
    def base(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}"

    def is_well(self, **but: Any) -> None:
        told = {"ok": True, "version": "1", "time": int(time.time())} | but
        self.files["/v1/health"] = json.dumps(told).encode()


class _Answers(BaseHTTPRequestHandler):
    server: Told

    def do_GET(self) -> None:
        found = self.server.files.get(self.path)
        self.send_response(404 if found is None else 200)
        self.send_header("Content-Length", str(len(found or b"")))
        self.end_headers()
        self.wfile.write(found or b"")

    def log_message(self, *_: Any) -> None:
        pass


@pytest.fixture
def told() -> Iterator[Told]:
    with Told() as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield server
        server.shutdown()


# --- what is looked at ----------------------------------------------------------------


def test_while_all_is_well_nothing_is_said(watcher: Terminal, base: str) -> None:
    done = watcher.run("watch", base)
    assert (done.stdout, done.stderr) == ("", "")
    assert not watcher.home.exists(), "without --after nothing is kept"

    shown = json.loads(watcher.run("watch", base, "--json").stdout)
    assert shown == {
        "ok": True,
        "url": base,
        "communities": [],
        "certificate_until": None,
        "failures": 0,
        "wrong": [],
    }


def test_a_service_that_does_not_answer_is_the_one_thing_that_is_said(watcher: Terminal) -> None:
    words = ("watch", NOWHERE, "--community", "town")
    line = watcher.fails(*words)
    assert line.startswith(f"muster: {NOWHERE}: nothing listens at 127.0.0.1:9; is it running?")
    done = watcher.run(*words, "--json", expect=1)
    [wrong] = json.loads(done.stdout)["wrong"]
    assert (wrong["about"], done.stderr) == ("service", "")


@pytest.mark.parametrize(
    ("answer", "said"),
    [
        (b"{}", "it does not answer as Muster does"),
        (b"<html>", "it does not answer as Muster does"),
        (b" " * 70_000, "more than 65536 bytes"),
    ],
)
def test_something_else_at_the_address_is_said(
    watcher: Terminal, told: Told, answer: bytes, said: str
) -> None:
    told.files["/v1/health"] = answer
    assert said in watcher.fails("watch", told.base)


def test_each_thing_that_is_wrong_has_a_line(watcher: Terminal, told: Told) -> None:
    told.is_well(time=int(time.time()) - 300, store_full=True)
    done = watcher.run("watch", told.base, expect=1, COLUMNS="80")
    first, second = done.stderr.splitlines()
    assert first.startswith(f"muster: {told.base}: its clock is ")
    assert first.endswith(" s behind this machine's; set the one that is wrong")
    assert second == (
        f"muster: {told.base}: its store is full and takes no messages; "
        "see MUSTER_STORE_BYTES, and the disk"
    )
    told.is_well(time=int(time.time()) + 300)
    assert "ahead of this machine's" in watcher.fails("watch", told.base)
    told.is_well(time=int(time.time()) + 30)
    watcher.run("watch", told.base)


def test_a_certificate_that_ends_soon_is_said(
    watcher: Terminal, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    authority = Authority(tmp_path)
    monkeypatch.setenv("SSL_CERT_FILE", str(authority.file))
    with running_with_tls(tmp_path / "data", authority) as server:
        shown = json.loads(watcher.run("watch", server.base, "--json").stdout)
        assert shown["certificate_until"] == pytest.approx(time.time() + 90 * 86_400, abs=60)
        line = watcher.fails("watch", server.base, "--days", "91")
        assert f"muster: {server.base}: its certificate ends on 20" in line
    ended = authority.issue("ended", since=timedelta(days=9), lasting=timedelta(days=-1))
    with running(tmp_path / "data", f"--tls-cert={ended[0]}", f"--tls-key={ended[1]}") as server:
        base = server.base.replace("http:", "https:")
        assert "certificate has expired" in watcher.fails("watch", base)


# --- capsules -------------------------------------------------------------------------


@pytest.fixture(scope="module")
def publishing(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, str, Path]]:
    """A service that has published a capsule: where, its root key, its folder."""
    home = Terminal(tmp_path_factory.mktemp("home"))
    data = tmp_path_factory.mktemp("data")
    with home.running("serve", "--port=0", f"--data={data}") as serving:
        base = serving.until(r"listens on (http://\S+)")[1]
        root = serving.until(r"root key  (\S+)")[1]
        announce(home, base)
        deadline = time.monotonic() + 20
        while not (data / "capsules" / COMMUNITY / "peers.json.manifest").exists():
            assert time.monotonic() < deadline, "nothing was published"
            time.sleep(0.1)
        yield base, root, data


def announce(home: Terminal, base: str) -> None:
    words = ("--beacon", base, "--community", COMMUNITY, "--announce", "--peer-id", "ann")
    subprocess.run(
        [*MUSTER, "bootstrap", *words],
        env=home.environment(),
        capture_output=True,
        timeout=20,
        check=False,
    )


def test_a_fresh_capsule_is_well_by_the_key_that_the_service_says_and_by_the_one_named(
    watcher: Terminal, publishing: tuple[str, str, Path]
) -> None:
    base, root, _ = publishing
    watcher.run("watch", base, "--community", COMMUNITY)
    done = watcher.run("watch", base, "--community", COMMUNITY, "--root", root)
    assert (done.stdout, done.stderr) == ("", "")


def test_a_capsule_of_another_key_or_of_nobody_is_said(
    watcher: Terminal, publishing: tuple[str, str, Path]
) -> None:
    base, _, _ = publishing
    other = key("other").verify_key.to_base64()
    done = watcher.run(
        *("watch", base, "--root", other),
        *("--community", COMMUNITY, "--community", "nowhere", "--community", COMMUNITY),
        expect=1,
    )
    first, second = done.stderr.splitlines()
    assert first.startswith(f"muster: {base}: the capsule of {COMMUNITY} is no good: ")
    assert "is this the root key of this publisher?" in first
    assert second.startswith(f"muster: {base}: the capsule of nowhere is no good: ")
    assert "it answered 404" in second


def test_a_capsule_that_is_old_is_said(watcher: Terminal, told: Told) -> None:
    """As long as it is valid it can be believed; it is its age that an operator must know."""
    told.is_well()
    earlier = Community(now=int(time.time()) - 3600)
    made = earlier.publish("ann", community=COMMUNITY)
    for ending, raw in (("", made.capsule), (".manifest", made.manifest)):
        told.files[f"/capsules/{COMMUNITY}/peers.json{ending}"] = raw
    root = earlier.roots[0].verify_key.to_base64()
    line = watcher.fails("watch", told.base, "--community", COMMUNITY, "--root", root)
    assert f"the capsule of {COMMUNITY} was last published on 20" in line
    assert "docs/capsules.md" in line


def test_a_service_that_publishes_nothing_is_said(watcher: Terminal, tmp_path: Path) -> None:
    with running(tmp_path / "data", "--publish-every=0") as server:
        line = watcher.fails("watch", server.base, "--community", COMMUNITY)
    assert f"muster: {server.base}: it publishes no capsules" in line


# --- how often ------------------------------------------------------------------------


def test_what_was_wrong_once_is_told_the_second_time_and_when_it_is_well_again(
    watcher: Terminal, told: Told
) -> None:
    words = ("watch", told.base, "--after", "2")
    told.is_well(store_full=True)
    done = watcher.run(*words)
    assert (done.stdout, done.stderr) == ("", "")
    assert watcher.fails(*words).count("its store is full") == 1
    assert watcher.fails(*words).count("its store is full") == 1, "until it is well"
    assert json.loads(watcher.run(*words, "--json", expect=1).stdout)["failures"] == 4

    told.is_well()
    done = watcher.run(*words)
    assert (done.stdout, done.stderr) == (f"RECOVERED: {told.base} is well again\n", "")
    assert watcher.run(*words).stdout == ""

    told.is_well(store_full=True)
    assert watcher.run(*words).stderr == "", "it is counted from the beginning"


def test_services_are_counted_each_for_itself(watcher: Terminal, told: Told) -> None:
    told.is_well(store_full=True)
    watcher.run("watch", told.base, "--after", "2")
    watcher.run("watch", NOWHERE, "--after", "2")
    assert watcher.fails("watch", told.base, "--after", "2")
    for file in (watcher.home / "watch").iterdir():
        assert file.stat().st_mode & 0o777 == 0o600


@pytest.mark.parametrize("kept", ["", "{", "[]", '{"failures": "many"}', '{"failures": -3}'])
def test_a_count_that_is_damaged_begins_again(watcher: Terminal, told: Told, kept: str) -> None:
    told.is_well(store_full=True)
    watcher.run("watch", told.base, "--after", "2")
    (file,) = (watcher.home / "watch").iterdir()
    file.write_text(kept)
    watcher.run("watch", told.base, "--after", "2")
    assert json.loads(file.read_text())["failures"] == 1


def test_a_count_that_cannot_be_kept_is_said(watcher: Terminal) -> None:
    watcher.home.mkdir()
    (watcher.home / "watch").write_text("")
    assert "cannot count in" in watcher.fails("watch", NOWHERE, "--after", "2")


# --- how it is called -----------------------------------------------------------------


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("--root", key("root").verify_key.to_base64()), "--community C names one"),
        (("--root", "abc", "--community", "a"), "'abc' is not a verify key"),
        (("--community", "a b"), "'a b' cannot name a community"),
        (("--after", "0"), "'0' is not a number from 1 to 1000"),
        (("--days", "many"), "'many' is not a number of days"),
        (("ftp://a.example",), "is not the URL of a service"),
    ],
)
def test_what_cannot_be_meant_is_a_wrong_call(
    watcher: Terminal, words: tuple[str, ...], said: str
) -> None:
    assert said in watcher.fails("watch", *words, expect=2)


def test_the_line_for_cron_in_the_documents_is_taken(watcher: Terminal) -> None:
    text = (ROOT / "docs" / "one-machine.md").read_text()
    [line] = [line for line in text.splitlines() if "muster watch" in line and "*/10" in line]
    words = shlex.split(line)[6:]
    chosen = parser().parse_args(words)
    assert (chosen.after, chosen.community, chosen.root) == (2, ["mainnet"], "KEY")
