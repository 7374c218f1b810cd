"""Output: what a terminal would obey is shown instead, and nothing fails for want of a letter."""

import io
import sys

import pytest

from muster.cli import output
from muster.cli.output import Failure, Misuse


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("plain ✓ ä 漢 👋🏽", "plain ✓ ä 漢 👋🏽"),
        ("a\tb", "a    b"),
        ("one\r\ntwo\n", "one\ntwo\n"),
        ("\x1b[2J\x07\x00", "\\x1b[2J\\x07\\x00"),
        ("over\rwritten", "over\\x0dwritten"),
        ("\x9b31m", "\\x9b31m"),
        ("\u202egnp.exe\u2066", "\\u202egnp.exe\\u2066"),
        ("\u2028", "\\u2028"),
        ("\ud800", "\\ud800"),
    ],
)
def test_what_would_be_obeyed_is_shown(text: str, shown: str) -> None:
    assert output.clean(text) == shown


def test_a_failure_is_one_line_and_its_code(capsys: pytest.CaptureFixture[str]) -> None:
    assert output.complain(Failure("it broke", "mend it")) == 1
    assert output.complain(Misuse("not like this")) == 2
    assert capsys.readouterr().err == "muster: it broke; mend it\nmuster: not like this\n"


def test_letters_that_a_stream_cannot_write_are_escaped(monkeypatch: pytest.MonkeyPatch) -> None:
    written = io.BytesIO()
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(written, encoding="ascii"))
    output.show("ä ✓")
    output.dump({"text": "ä"})
    assert output.plain()
    assert written.getvalue() == b'\\xe4 \\u2713\n{"text":"\\u00e4"}\n'


def test_json_is_compact_and_on_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    output.dump({"a": [1, None, "x\ny"]})
    assert capsys.readouterr().out == '{"a":[1,null,"x\\ny"]}\n'
