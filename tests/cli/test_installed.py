"""The command as members install it: `capsules` and `muster`, and nothing else of a checkout."""

import json
import shutil
import subprocess
import sys
import sysconfig
from pathlib import Path

import pytest

from tests.cli.terminal import MUSTER, Terminal

ROOT = Path(__file__).parents[2]
NOBODY = "http://127.0.0.1:9"


class Installed:
    """Copies of the two packages in a folder of their own, and the command that uses them.

    The interpreter starts without site-packages, so that nothing of the checkout is found
    through them; *libraries* is where third-party libraries are looked for.
    """

    def __init__(self, folder: Path, libraries: Path) -> None:
        self._folder = folder
        packages = folder / "packages"
        for package in ("capsules", "muster"):
            shutil.copytree(ROOT / package, packages / package)
        self._path = [str(packages), str(libraries)]

    def run(self, *words: str) -> "subprocess.CompletedProcess[str]":
        program = (
            f"import sys; sys.path += {self._path!r}\n"
            "from muster.cli.main import main; sys.exit(main())"
        )
        return subprocess.run(
            [sys.executable, "-I", "-S", "-c", program, *words],
            cwd=self._folder,
            env={"MUSTER_HOME": str(self._folder / "home"), "MUSTER_BASE": NOBODY},
            capture_output=True,
            text=True,
            check=False,
        )

    def misuse(self, *words: str) -> str:
        done = self.run(*words)
        assert done.returncode == 2, (done.stdout, done.stderr)
        assert done.stderr.startswith("muster: ")
        assert done.stderr.count("\n") == 1
        return done.stderr


@pytest.fixture
def libraries(tmp_path: Path) -> Path:
    """Every library that is installed here, each as a link."""
    folder = tmp_path / "libraries"
    folder.mkdir()
    for path in Path(sysconfig.get_path("purelib")).iterdir():
        if "editable" not in path.name and path.suffix != ".pth":
            (folder / path.name).symlink_to(path)
    return folder


@pytest.fixture
def installed(tmp_path: Path, libraries: Path) -> Installed:
    return Installed(tmp_path, libraries)


@pytest.mark.parametrize(
    ("verb", "words"),
    [
        ("serve", ()),
        ("backup", ("copy.tar",)),
        ("restore", ("copy.tar",)),
        ("keygen root", ("--out", "root.key")),
        ("keygen capsule", ("--out", "keys", "--root", "root.key")),
        ("capsule publish", ("--beacon", "http://a", "--keys", "k", "--out", "o")),
        ("capsule rotate", ("--online", "--root", "r", "--keys", "k")),
        ("capsule revoke", ("K", "--root", "r", "--keys", "k")),
        ("capsule inspect", ("peers.json",)),
    ],
)
def test_what_needs_the_service_says_so(
    installed: Installed, verb: str, words: tuple[str, ...]
) -> None:
    said = installed.misuse(*verb.split(), *words)

    assert f"'{verb}' needs the service, which is not installed here; " in said
    assert "'make run'" in said


@pytest.mark.parametrize(
    "verb",
    ["plan", "deploy", "status", "outputs", "dashboard", "logs", "rotate", "destroy", "cost"],
)
def test_what_needs_the_tools_for_aws_says_so(installed: Installed, verb: str) -> None:
    said = installed.misuse(verb)

    assert f"'{verb}' needs the tools for AWS, which are not installed here; " in said
    assert "'make setup'" in said


def test_what_members_do_needs_no_checkout(installed: Installed) -> None:
    made = installed.run("circle", "new", "--felund", "--json")
    assert made.returncode == 0, made.stderr
    name = json.loads(made.stdout)["circle"]

    code = installed.run("circle", "invite").stdout.strip()
    assert code.startswith("felund1.")
    assert installed.run("circle", "join", code).returncode == 0
    assert json.loads(installed.run("circle", "list", "--json").stdout)["circle"] == name
    assert name in installed.run("circle", "list").stdout


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("send", "hello"), "nothing listens at 127.0.0.1:9"),
        (("listen",), "nothing listens at 127.0.0.1:9"),
        (("info",), "nothing listens at 127.0.0.1:9"),
        (("doctor",), "nothing listens at 127.0.0.1:9"),
        (("assist",), "nothing listens at 127.0.0.1:9"),
        (("bootstrap", "--beacon", NOBODY), "UNREACHABLE"),
        (("capsule", "fetch", f"{NOBODY}/p#{'A' * 43}"), "UNREACHABLE"),
        (("capsule", "verify", "peers.json", "--key", "A" * 43 + "="), "cannot read peers.json"),
    ],
)
def test_what_fails_there_fails_for_its_own_reason(
    installed: Installed, words: tuple[str, ...], said: str
) -> None:
    installed.run("circle", "new", "--felund")
    done = installed.run(*words)

    assert done.returncode == 1
    assert said in done.stdout + done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize(
    ("library", "words"),
    [
        ("httpx2", ("info",)),
        ("msgspec", ("assist",)),
        ("rich", ("circle", "list")),
        ("websockets", ("listen",)),
        ("websockets", ("doctor", "--json")),
    ],
)
def test_a_library_that_is_missing_is_named_with_what_installs_it(
    installed: Installed, libraries: Path, base: str, library: str, words: tuple[str, ...]
) -> None:
    installed.run("circle", "new", "--felund")
    (libraries / library).unlink()
    said = installed.misuse(*words, *([base] if "doctor" in words else []))

    assert f"needs the library '{library}', which is not installed here; " in said
    assert f"'pip install {library}'" in said


def test_the_module_and_the_command_are_the_same(tmp_path: Path) -> None:
    script = str(Path(sys.executable).with_name("muster"))
    environment = Terminal(tmp_path).environment()

    def said(*program: str) -> tuple[int, str, str]:
        done = subprocess.run(program, env=environment, capture_output=True, text=True, check=False)
        return done.returncode, done.stdout, done.stderr

    for words in (["--version"], ["--help"], ["circle"], ["circle", "list", "--json"]):
        assert said(*MUSTER, *words) == said(script, *words)
