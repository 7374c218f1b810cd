"""`muster serve`: what it takes, where it listens, and why it would not."""

import errno
import json
import signal
import socket
import urllib.request
from pathlib import Path
from typing import Any

import pytest

from muster.cli import serving as serve_command
from muster.cli.main import main
from tests.cli.terminal import Terminal, serving
from tests.support import wrong

WRONG = wrong.SETTINGS | wrong.BOUNDS | wrong.LOCAL


def test_settings_come_from_the_environment_and_flags_win(tmp_path: Path) -> None:
    terminal = Terminal(tmp_path)
    words = ("serve", "--port", "0", "--data", str(tmp_path / "data"))
    environment = {"MUSTER_UNSIGNED": "allow", "MUSTER_CIRCLE_MEMBERS": "7"}
    with terminal.running(*words, **environment) as running:
        info = _info(running.until(r"listens on (\S+)")[1])
        assert info["unsigned"] == "allow"
        assert info["limits"]["circle_members"] == 7
    with terminal.running(*words, "--unsigned", "refuse", **environment) as running:
        assert _info(running.until(r"listens on (\S+)")[1])["unsigned"] == "refuse"
        assert running.end(signal.SIGTERM) == 0


def test_verbose_logs_a_json_line_for_each_call(tmp_path: Path) -> None:
    with serving(tmp_path / "quiet") as base:
        _info(base)
    words = ("serve", "--port", "0", "--data", str(tmp_path / "data"), "--verbose")
    with Terminal(tmp_path).running(*words) as running:
        _info(running.until(r"listens on (\S+)")[1])
        line = running.until(r"^\{.*GET /v1/info")
    assert json.loads(line.string)["status"] == 200


def test_a_taken_port_has_a_hint(tmp_path: Path, base: str) -> None:
    port = base.rpartition(":")[2]
    line = Terminal(tmp_path).fails("serve", "--port", port, "--data", str(tmp_path / "d"))
    assert f"port {port} of 127.0.0.1 is taken; 'muster info {base}'" in line
    assert "--port takes another" in line


def test_a_folder_in_use_has_a_hint(tmp_path: Path) -> None:
    with serving(tmp_path):
        words = ("serve", "--port", "0", "--data", str(tmp_path / "data"))
        assert "another muster is serving from" in Terminal(tmp_path).fails(*words)


def test_a_folder_that_cannot_be_written_has_a_hint(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    line = Terminal(tmp_path).fails("serve", "--port", "0", "--data", str(tmp_path / "file"))
    assert "cannot keep data in" in line
    assert "--data DIR takes another folder" in line


def test_a_damaged_database_has_a_hint(tmp_path: Path) -> None:
    (tmp_path / "muster.sqlite3").write_text("not a database, and long enough to be read as one")
    line = Terminal(tmp_path).fails("serve", "--port", "0", "--data", str(tmp_path))
    assert "cannot use the database" in line


def test_a_foreign_address_has_a_hint(tmp_path: Path) -> None:
    words = ("serve", "--host", "192.0.2.1", "--port", "0", "--data", str(tmp_path))
    assert "'192.0.2.1' is no address of this machine" in Terminal(tmp_path).fails(*words)


@pytest.mark.parametrize(
    ("words", "environment", "said"),
    [
        (("--trusted-proxy", "everybody"), {}, "--trusted-proxy everybody is not a network"),
        ((), {"MUSTER_BODY_BYTES": "many"}, "MUSTER_BODY_BYTES must be a whole number"),
        ((), {"MUSTER_UNSIGNED": "perhaps"}, "MUSTER_UNSIGNED must be"),
    ],
)
def test_a_wrong_setting_is_a_wrong_call(
    tmp_path: Path, words: tuple[str, ...], environment: dict[str, str], said: str
) -> None:
    line = Terminal(tmp_path).fails("serve", *words, expect=2, **environment)
    assert said in line


@pytest.mark.parametrize("name", WRONG)
def test_every_variable_that_does_not_fit_is_one_line_that_names_it_and_no_folder(
    name: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    for text in WRONG[name]:
        monkeypatch.setenv(name, text)
        assert main(("serve", "--port", "0", "--data", str(tmp_path / "data"))) == 2, text
        said = capsys.readouterr()
        assert said.out == ""
        assert said.err.startswith("muster: ")
        assert said.err.count("\n") == 1
        assert name.partition("\n")[0] in said.err
        assert wrong.SECRET not in said.err
    assert not (tmp_path / "data").exists()


def test_a_misspelt_variable_is_told_with_the_nearest_one(tmp_path: Path) -> None:
    line = Terminal(tmp_path).fails("serve", expect=2, MUSTER_SOKCETS="3")
    assert line.startswith("muster: there is no variable MUSTER_SOKCETS; the nearest is MUSTER_SO")


def test_a_member_s_commands_do_not_read_the_service_s_variables(tmp_path: Path) -> None:
    terminal = Terminal(tmp_path)
    wrong_ones = {"MUSTER_SOCKETS": "1e4", "MUSTER_SOKCETS": "3", "MUSTER_UNSIGNED": "perhaps"}
    assert "no circle" in terminal.fails("send", "hello", expect=2, **wrong_ones)
    assert terminal.fails("circle", "leave", "nowhere", expect=2, **wrong_ones)


@pytest.mark.parametrize("host", ["192.0.2.1", "not an address", "a..b", "é" * 70, ""])
def test_a_host_that_is_none_leaves_no_folder_behind(tmp_path: Path, host: str) -> None:
    words = ("serve", "--host", host, "--port", "0", "--data", str(tmp_path / "data"))
    assert f"'{host}' is no address of this machine" in Terminal(tmp_path).fails(*words)
    assert not (tmp_path / "data").exists()


def test_a_taken_port_leaves_no_folder_behind(tmp_path: Path, base: str) -> None:
    words = ("--port", base.rpartition(":")[2], "--data", str(tmp_path / "data"))
    assert "is taken" in Terminal(tmp_path).fails("serve", *words)
    assert not (tmp_path / "data").exists()


@pytest.mark.parametrize("folder", ["/proc/nowhere/data", "/dev/null/data", "d" * 300])
def test_a_folder_that_cannot_be_made_has_a_hint(tmp_path: Path, folder: str) -> None:
    line = Terminal(tmp_path).fails("serve", "--port", "0", "--data", folder)
    assert "cannot keep data in" in line


def test_no_folder_at_all_is_a_wrong_call(tmp_path: Path) -> None:
    assert "--data names no folder" in Terminal(tmp_path).fails("serve", "--data", "", expect=2)


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (OSError(errno.EACCES, "Permission denied"), "port 80 is for the system"),
        (PermissionError(errno.EACCES, "Permission denied", "data"), "permission denied"),
        (socket.gaierror(-2, "Name or service not known"), "is no address of this machine"),
        (OSError(errno.EMFILE, "Too many open files"), "Too many open files"),
    ],
)
def test_what_the_system_says_becomes_a_hint(error: OSError, said: str) -> None:
    assert said in str(serve_command.explain(error, "host", 80, Path("data")))


def _info(base: str) -> dict[str, Any]:
    with urllib.request.urlopen(f"{base}/v1/info", timeout=20) as answer:  # noqa: S310 - our own
        told: dict[str, Any] = json.load(answer)
        return told
