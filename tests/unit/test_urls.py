"""URLs: what every library reads alike is taken, and the rest is refused in one sentence."""

import pytest

from muster import urls
from muster.bootstrap import sources
from muster.errors import BadValue
from muster.felund.exchange import BadReply, service_url, websocket_url

KEY = "A" * 43

BAD = [
    "http://h:99999",
    "http://h:0",
    "http://h:abc",
    "http://h:-1",
    "http://h:",
    "http://h:８７８７",
    "http://h:8787:1",
    "http://１２７.0.0.1",
    "http://::1:8787",
    "http://[::1",
    "http://[::1]x",
    "http://[h]",
    "http://[fe80::1%eth0]",
    "http://2130706433",
    "http://0x7f.1",
    "http://127.1",
    "http://256.1.1.1",
    "http://1.2.3.4.5",
    "http://a..b",
    "http://-a",
    "http://%68",
    "http://h_\x00",
    "http://h/\x1b[2J",
    "http://h/a b",
    "http://h\u00a0h",
    "http://h\t.example",
    "http://h\n.example",
    "http://h\\@other",
    "http://h/\u202e",
    "http://h/\ud800",
    "http://user@h",
    "http://user:password@h",
    "http://@h",
    "http:h",
    "http:///h",
    "//h",
    "h:8787",
    "ftp://h",
    "http://" + "a" * 64,
    "http://h/" + "a" * urls.MOST_CHARS,
    "",
]


@pytest.mark.parametrize("url", BAD)
def test_what_libraries_would_read_differently_is_refused_wherever_a_url_is_given(url: str) -> None:
    for read in (
        urls.read,
        service_url,
        sources.beacon,
        lambda text: sources.capsule(f"{text}#{KEY}"),
    ):
        with pytest.raises(BadValue) as bad:
            read(url)
        assert "\n" not in bad.value.hint
        assert "password" not in str(bad.value)
        assert len(str(bad.value)) < 500
    assert not sources.may_follow(url, local=True)
    with pytest.raises(BadReply):
        websocket_url("https://h", url.replace("http", "ws", 1))


@pytest.mark.parametrize(
    ("url", "means"),
    [
        ("HTTP://h", "http://h"),
        ("https://H.Example.org:8787/a/b", "https://H.Example.org:8787/a/b"),
        ("https://[2001:db8::1]:8787", "https://[2001:db8::1]:8787"),
        ("http://192.0.2.1/", "http://192.0.2.1/"),
        ("http://muster_1:80", "http://muster_1:80"),
        ("http://localhost.", "http://localhost."),
        ("https://bücher.example:8787/x", "https://xn--bcher-kva.example:8787/x"),
        ("  https://h/x?y=z  ", "https://h/x?y=z"),
    ],
)
def test_what_is_taken_has_its_host_in_ascii(url: str, means: str) -> None:
    assert urls.read(url).geturl() == means


def test_a_question_mark_without_a_question_is_dropped() -> None:
    assert service_url("https://h/x/v1/?#") == "https://h/x"


@pytest.mark.parametrize(
    ("host", "here"),
    [
        ("localhost", True),
        ("LocalHost.", True),
        ("node.localhost", True),
        ("127.8.9.10", True),
        ("::1", True),
        ("[::1]", True),
        ("::ffff:127.0.0.1", True),
        ("0.0.0.0", True),  # noqa: S104
        ("::", True),
        ("localhost.example", False),
        ("10.0.0.1", False),
        ("::ffff:10.0.0.1", False),
        ("", False),
    ],
)
def test_this_machine_is_known_by_all_its_names(host: str, here: bool) -> None:
    assert urls.this_machine(host) is here
