"""What stands around the command: its environment, its URLs. One sentence names what is wrong."""

from __future__ import annotations

import base64
import json
from pathlib import Path

import pytest

from tests.cli.terminal import Terminal
from tests.support import proxy

PROXIES = ("http_proxy", "https_proxy", "all_proxy", "ALL_PROXY")
KEY = "A" * 43


@pytest.fixture
def home(tmp_path: Path) -> Terminal:
    """A home whose usual service is nowhere."""
    return Terminal(tmp_path / "home", "http://127.0.0.1:9")


# --- proxies and authorities ------------------------------------------------------


def test_the_service_on_this_machine_is_found_whatever_the_environment_says(one: Terminal) -> None:
    with proxy.running(refuses=True) as way:
        odd = dict.fromkeys(PROXIES[:3], way.url) | {
            "ALL_PROXY": "socks5://127.0.0.1:1",
            "SSL_CERT_FILE": "/nonexistent",
            "SSL_CERT_DIR": "/nonexistent",
        }
        one.run("doctor", expect=0, **odd)
        one.run("send", "hello", expect=0, **odd)
        one.run("circle", "invite", expect=0, **odd)
        one.run("bootstrap", "--beacon", one.base, "--announce", "--peer-id", "a", expect=1, **odd)

    assert way.asked == []


@pytest.mark.parametrize(
    "words", [("info",), ("doctor",), ("assist",), ("send", "hello"), ("listen",)], ids=" ".join
)
@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("ALL_PROXY", "socks5://127.0.0.1:1"),
        ("https_proxy", "http://h:99999"),
        ("SSL_CERT_FILE", "/nonexistent"),
        ("SSL_CERT_DIR", "/nonexistent"),
    ],
)
def test_what_is_wrong_with_the_environment_is_named(
    home: Terminal, words: tuple[str, ...], name: str, value: str
) -> None:
    setting = {"MUSTER_BASE": "https://service.invalid", name: value}
    warned = home.run("circle", "new", "--felund", expect=0, **setting).stderr
    line = home.fails(*words, expect=2, **setting)

    assert warned.startswith(f"muster: warning: {name} ")
    assert line.startswith(f"muster: {name} ")


def test_a_proxy_that_leads_nowhere_is_not_blamed_on_the_service(home: Terminal) -> None:
    line = home.fails("info", "http://service.invalid", http_proxy="http://127.0.0.1:9")
    assert "the proxy that http_proxy names does not lead to service.invalid" in line
    with proxy.running(refuses=True) as way:
        line = home.fails("info", "http://service.invalid", http_proxy=way.url)
    assert "does the proxy answer that http_proxy names?" in line


# --- URLs -------------------------------------------------------------------------

BAD = ("http://h:99999", "http://h:abc", "http://h:８７８７", "http://::1:8787", "http://u:pw@h")


@pytest.mark.parametrize("url", BAD)
def test_a_url_that_is_none_is_refused_and_not_kept(home: Terminal, url: str) -> None:
    for words in (("new", url), ("new", "--base", url)):
        line = home.fails("circle", *words, expect=2)
        assert "is not the URL of a service" in line
        assert "pw" not in line
    home.fails("circle", "join", _invite(url), expect=2)
    assert not (home.home / "circles").exists()


def _invite(peer: str) -> str:
    content = {"v": 1, "secret": "ab" * 32, "peer": peer}
    return "felund1." + base64.urlsafe_b64encode(json.dumps(content).encode()).decode().rstrip("=")


def test_every_verb_refuses_such_a_url(home: Terminal) -> None:
    home.run("circle", "new", "--felund")
    url = BAD[0]
    for words in (
        ("info", url),
        ("doctor", url),
        ("assist", url),
        ("send", "hello", "--base", url),
        ("listen", "--base", url),
        ("circle", "invite", "--base", url),
        ("circle", "use", "circle", "--base", url),
        ("bootstrap", "--beacon", url),
        ("bootstrap", "--capsule", f"{url}#{KEY}"),
        ("capsule", "fetch", f"{url}#{KEY}"),
        ("capsule", "publish", "--beacon", url, "--keys", "k", "--out", "o"),
        (
            "capsule",
            "publish",
            "--beacon",
            "http://h",
            "--mirror",
            url,
            "--keys",
            "k",
            "--out",
            "o",
        ),
        ("assist", "--path", "h:99999"),
        ("assist", "--path", "h:８７８７"),
    ):
        assert "is not " in home.fails(*words, expect=2), words
    assert "is not the URL" in home.fails("info", expect=2, MUSTER_BASE=url)


def test_a_url_that_was_kept_by_an_earlier_version_is_named(home: Terminal) -> None:
    home.run("circle", "new", "--felund")
    (kept,) = (home.home / "circles").iterdir()
    kept.write_text(kept.read_text().replace("http://127.0.0.1:9", BAD[0]))
    for words in (("send", "hello"), ("listen",), ("circle", "invite")):
        assert BAD[0] in home.fails(*words, expect=2)
    home.run("circle", "list")
    home.run("circle", "use", "circle", "--base", home.base)
    home.run("circle", "leave", "circle", "--yes")


@pytest.mark.parametrize("port", ["８７８７", "٨٧", "99999", "-1", "1_0", "", " 1", "1" * 5000])
def test_a_port_is_written_in_ascii_digits(home: Terminal, port: str) -> None:
    assert "port" in home.fails("serve", f"--port={port}", expect=2)


@pytest.mark.parametrize("seconds", ["１", "1_0", "nan", "inf", "1e999", "0x10", " 1"])
def test_a_number_is_written_in_ascii_digits(home: Terminal, seconds: str) -> None:
    assert "--timeout" in home.fails("info", f"--timeout={seconds}", expect=2)
