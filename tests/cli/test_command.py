"""The command line itself: what it says of itself, and what it loads to say it."""

import argparse
import os
import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from importlib import import_module
from pathlib import Path

import pytest

from muster import __version__
from muster.cli import main
from tests.cli.terminal import MUSTER, Terminal

HEAVY = ("httpx2", "websockets", "uvicorn", "rich", "msgspec", "cryptography", "chalicelib.http")


@pytest.mark.parametrize("words", [["--help"], ["circle", "new", "--help"], ["serve", "--help"]])
def test_help_loads_nothing_heavy(words: list[str]) -> None:
    program = (
        "import sys\nfrom muster.cli import main\n"
        f"try:\n    main.main({words!r})\nexcept SystemExit: pass\n"
        f"print([name for name in {HEAVY!r} if name in sys.modules])"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    )
    assert done.stdout.splitlines()[-1] == "[]"


def test_the_version_is_the_package_s(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match="0"):
        main.main(["--version"])
    assert capsys.readouterr().out == f"muster {__version__}\n"


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ([], "COMMAND"),
        (["nonsense"], "nonsense"),
        (["circle"], "COMMAND"),
        (["serve", "--port", "65536"], "'65536' is not a port"),
        (["serve", "--port", "-1"], "--port"),
        (["serve", "--unsigned", "perhaps"], "perhaps"),
        (["doctor", "--timeout", "0"], "'0' is not a number of seconds"),
        (["doctor", "--timeout", "soon"], "'soon' is not a number of seconds"),
        (["send"], "TEXT"),
    ],
)
def test_a_wrong_call_is_one_line_and_code_2(
    words: list[str], said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as ended:
        main.main(words)
    error = capsys.readouterr().err
    assert ended.value.code == 2
    assert said in error
    assert error.startswith("muster: ")
    assert error.count("\n") == 1


def verbs(parser: argparse.ArgumentParser) -> Iterator[argparse.ArgumentParser]:
    """Yield every verb of the command, those of groups too."""
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            for chosen in action.choices.values():
                yield from verbs(chosen)
    if parser.get_default("run"):
        yield parser


def test_every_command_exists() -> None:
    """Each name in the table of commands leads to a function."""
    places = [verb.get_default("run") for verb in verbs(main.parser())]

    assert len(places) > 20
    for place in places:
        module, _, function = place.partition(":")
        assert callable(getattr(import_module(module), function))


def test_help_lists_every_verb_under_what_it_needs() -> None:
    said = main.parser().format_help()
    groups = dict(re.findall(r"^(for [^\n]+):\n((?:  \S.*\n)+)", said, re.MULTILINE))
    members, service, cloud = (
        re.findall(r"^  (\S+)", lines, re.MULTILINE) for lines in groups.values()
    )

    assert {"circle", "send", "listen", "doctor", "bootstrap", "capsule"} <= set(members)
    assert {"serve", "access", "backup", "restore", "keygen"} == set(service)
    assert {"plan", "deploy", "destroy", "cost"} <= set(cloud)
    assert all("checkout" in heading for heading in list(groups)[1:])


def test_output_into_a_closed_pipe_is_no_error(one: Terminal) -> None:
    reading, writing = os.pipe()
    os.close(reading)
    with os.fdopen(writing) as pipe:
        done = subprocess.run(
            [*MUSTER, "circle", "list", "--json"],
            env=one.environment(),
            stdout=pipe,
            stderr=subprocess.PIPE,
            text=True,
            check=False,
        )
    assert done.stderr == ""


def test_ctrl_c_in_the_middle_is_quiet(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("MUSTER_HOME", str(tmp_path))

    class Interrupted:
        @property
        def buffer(self) -> str:
            raise KeyboardInterrupt

    monkeypatch.setattr(sys, "stdin", Interrupted())
    assert main.main(["circle", "join", "-"]) == main.INTERRUPTED


def test_the_service_s_address_comes_from_the_environment(
    terminal: Callable[[str], Terminal],
) -> None:
    asked = terminal("asked")
    assert "protocol 1" in asked.run("info").stdout
    assert "nothing listens at 127.0.0.1:9" in asked.fails("info", MUSTER_BASE="http://127.0.0.1:9")
