"""The command against a service that speaks TLS itself, with an authority of one's own."""

import os
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.cli.terminal import Running, Terminal
from tests.support.certificate import Authority


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("authority"))


@pytest.fixture(scope="module")
def running(authority: Authority, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    """A service as its operator starts it: closed, as it has a certificate."""
    cert, key = authority.issue()
    folder = tmp_path_factory.mktemp("service")
    words = ("--port", "0", "--data", str(folder / "data"))
    environment = {"MUSTER_TLS_CERT": "/nowhere", "MUSTER_TLS_KEY": str(key)}
    with Terminal(folder).running("serve", *words, "--tls-cert", str(cert), **environment) as made:
        yield made
        assert made.end(signal.SIGTERM) == 0, made.seen


@pytest.fixture(scope="module")
def secure(running: Running) -> str:
    return running.until(r"listens on (https://\S+)")[1]


@pytest.fixture
def member(authority: Authority, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Terminal:
    """Who believes the authority, and no other."""
    monkeypatch.setenv("SSL_CERT_FILE", str(authority.file))
    return Terminal(tmp_path / "member")


def test_the_doctor_is_green_in_a_circle_that_was_let_in(
    running: Running, secure: str, member: Terminal
) -> None:
    made = member.run("circle", "new", "--felund", secure, "--name", "doctor")
    assert "muster access allow" in made.stdout + made.stderr
    code = member.run("circle", "invite").stdout.split()[0]
    data = os.fspath(Path(running.until(r"^  data +(\S+)")[1]))
    member.run("access", "allow", code, "--data", data)

    done = member.run("doctor", secure, "--circle", "doctor", COLUMNS="80")
    assert "All" in done.stdout
    assert member.run("info", secure).stdout.count("wss://") == 1


def test_who_does_not_believe_the_authority_is_told_how(secure: str, tmp_path: Path) -> None:
    line = Terminal(tmp_path).fails("info", secure)
    assert "shows a certificate that cannot be trusted" in line
    assert "SSL_CERT_FILE=FILE" in line


def test_who_calls_in_clear_is_told_so(secure: str, member: Terminal) -> None:
    line = member.fails("info", secure.replace("https", "http"))
    assert "this port speaks TLS alone: the address begins with https://" in line


def test_who_speaks_tls_where_none_is_is_told_so(base: str, member: Terminal) -> None:
    line = member.fails("info", base.replace("http", "https"))
    assert "does not speak TLS as expected; try http://" in line


@pytest.mark.parametrize(
    ("words", "environment", "said"),
    [
        (("--tls-cert", "{cert}"), {}, "a TLS certificate is named and no key"),
        (("--tls-key", "{key}"), {}, "a TLS key is named and no certificate"),
        ((), {"MUSTER_TLS_CERT": "{cert}"}, "a TLS certificate is named and no key"),
        (("--tls-cert", "{cert}", "--tls-key", "{other}"), {}, "is not that of the certificate"),
        (("--tls-cert", "/nowhere", "--tls-key", "{key}"), {}, "cannot read the certificate /no"),
    ],
)
def test_files_that_do_not_fit_are_a_wrong_call_and_leave_no_folder(
    authority: Authority,
    tmp_path: Path,
    words: tuple[str, ...],
    environment: dict[str, str],
    said: str,
) -> None:
    cert, key = authority.issue("one")
    places = {"cert": str(cert), "key": str(key), "other": str(authority.issue("two")[1])}
    line = Terminal(tmp_path).fails(
        *("serve", "--port", "0", "--data", str(tmp_path / "data")),
        *(word.format(**places) for word in words),
        expect=2,
        **{name: value.format(**places) for name, value in environment.items()},
    )
    assert said in line
    assert line.endswith("--tls-cert FILE and --tls-key FILE name them\n")
    assert not (tmp_path / "data").exists()
