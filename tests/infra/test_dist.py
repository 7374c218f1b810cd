"""What `make dist` makes, and what a member has who installs it: the client, and nothing else."""

import hashlib
import json
import os
import re
import shutil
import subprocess
import sys
import tomllib
import zipfile
from email.message import Message
from email.parser import HeaderParser
from pathlib import Path

import pytest
from packaging.requirements import Requirement

from tests.infra.test_pins import pins
from tests.support.local import ROOT

PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]


def clean(**more: str) -> dict[str, str]:
    """Return an environment in which nothing leads back to this checkout."""
    unwanted = ("COV", "GIT", "MUSTER", "PYTHON", "VIRTUAL_ENV")
    kept = {name: value for name, value in os.environ.items() if not name.startswith(unwanted)}
    return kept | more


def ran(*words: str, where: Path, **more: str) -> str:
    """Run a command that must succeed; return what it said."""
    done = subprocess.run(
        words, cwd=where, env=clean(**more), capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, (words, done.stdout, done.stderr)
    return done.stdout


@pytest.fixture(scope="module")
def commit(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A repository whose one commit is this checkout as it is now."""
    if shutil.which("git") is None or not (ROOT / ".git").exists():
        pytest.skip("needs git and a clone: a release is made of a commit")
    folder = tmp_path_factory.mktemp("commit")
    listed = ("git", "ls-files", "-z", "--cached", "--others", "--exclude-standard")
    for name in ran(*listed, where=ROOT).split("\0"):
        if (ROOT / name).is_file():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(ROOT / name, folder / name)
    who = ("-c", "user.name=A", "-c", "user.email=a@example.org")
    ran("git", "init", "--quiet", where=folder)
    ran("git", "add", "--all", where=folder)
    ran("git", *who, "commit", "--quiet", "--message", "A release", where=folder)
    (folder / ".venv").symlink_to(sys.prefix)
    return folder


@pytest.fixture(scope="module")
def release(commit: Path) -> Path:
    """What `make dist` made."""
    ran(".ci/dist", where=commit)
    return commit / "dist"


@pytest.fixture(scope="module")
def wheel(release: Path) -> Path:
    (found,) = release.glob("*.whl")
    return found


def contents(wheel: Path) -> dict[str, bytes]:
    with zipfile.ZipFile(wheel) as opened:
        return {name: opened.read(name) for name in opened.namelist()}


@pytest.fixture(scope="module")
def names(wheel: Path) -> set[str]:
    return set(contents(wheel))


@pytest.fixture(scope="module")
def metadata(wheel: Path) -> Message:
    (raw,) = (raw for name, raw in contents(wheel).items() if name.endswith(".dist-info/METADATA"))
    return HeaderParser().parsestr(raw.decode())


def test_a_release_is_a_wheel_a_source_archive_what_changed_and_checksums(release: Path) -> None:
    lines = (release / "SHA256SUMS").read_text().splitlines()
    sums = {name: told for told, _, name in (line.partition("  ") for line in lines)}
    others = [path for path in release.iterdir() if path.name != "SHA256SUMS"]

    assert {path.name for path in others} == set(sums)
    assert {path.suffix for path in others} == {".gz", ".md", ".whl"}
    for path in others:
        assert hashlib.sha256(path.read_bytes()).hexdigest() == sums[path.name]
    assert (release / "CHANGES.md").read_text() in (ROOT / "CHANGELOG.md").read_text()


def test_the_same_commit_makes_the_same_bytes_whoever_builds_it(
    commit: Path, release: Path, tmp_path: Path
) -> None:
    again = tmp_path / "again"
    strict = f"umask 077; exec .ci/dist {again}"
    ran("bash", "-c", strict, where=commit, TZ="Asia/Kolkata", LC_ALL="C", HOME=str(tmp_path))

    first, second = (
        {path.name: path.read_bytes() for path in folder.iterdir()} for folder in (release, again)
    )
    assert first == second


def test_what_an_earlier_build_left_is_not_packed(commit: Path, wheel: Path) -> None:
    stale = commit / "build" / "lib" / "muster" / "stale.py"
    stale.parent.mkdir(parents=True)
    stale.touch()
    ran(".ci/dist", str(commit / "build" / "again"), where=commit)
    (again,) = (commit / "build" / "again").glob("*.whl")

    assert again.read_bytes() == wheel.read_bytes()


def test_the_source_archive_is_the_checkout_and_makes_the_same_wheel(
    release: Path, wheel: Path, tmp_path: Path
) -> None:
    (archive,) = release.glob("*.tar.gz")
    pip = (sys.executable, "-m", "pip", "wheel", "--quiet", "--no-index", "--no-deps")
    ran(*pip, "--no-build-isolation", "-w", str(tmp_path), str(archive), where=tmp_path)
    shutil.unpack_archive(archive, tmp_path, filter="data")
    (built,) = tmp_path.glob("*.whl")
    source = tmp_path / archive.name.removesuffix(".tar.gz")

    assert contents(built) == contents(wheel)
    for needed in (
        "Makefile",
        "PKG-INFO",
        "app.py",
        "chalicelib",
        "infra",
        "requirements-serve.txt",
        "web/muster/index.js",
    ):
        assert (source / needed).exists()


# --- the wheel -------------------------------------------------------------------------


def test_the_wheel_takes_two_names_in_somebodys_site_packages(names: set[str]) -> None:
    tops = {name.partition("/")[0] for name in names}

    assert {top for top in tops if not top.endswith(".dist-info")} == {"capsules", "muster"}


def test_the_wheel_has_every_module_of_the_client_and_no_other_file(names: set[str]) -> None:
    modules = {
        path.relative_to(ROOT).as_posix()
        for package in ("capsules", "muster")
        for kind in ("*.py", "*.tcss", "py.typed")
        for path in (ROOT / package).rglob(kind)
    }

    assert {name for name in names if ".dist-info/" not in name} == modules


def test_the_wheel_says_who_it_is(metadata: Message, names: set[str]) -> None:
    assert metadata["Name"] == PROJECT["name"] != "muster", "that one is another project's"
    assert metadata["License-Expression"] == "Apache-2.0"
    assert metadata["Requires-Python"] == ">=3.11"
    assert any(name.endswith("/licenses/LICENSE") for name in names)
    assert any(name.endswith("/entry_points.txt") for name in names)


def test_the_wheel_asks_for_what_its_pins_give(metadata: Message) -> None:
    asked = [Requirement(line) for line in metadata.get_all("Requires-Dist", [])]
    given = pins("requirements-client.txt")
    listed = {
        line.partition("=")[0]
        for file in ("requirements.in", "requirements-client.in")
        for line in (ROOT / file).read_text().splitlines()
        if line and not line.startswith(("#", "-"))
    }

    assert {wanted.name for wanted in asked} == listed
    assert [str(wanted) for wanted in asked if given[wanted.name] not in wanted.specifier] == []
    assert "chalice" not in given


# --- installed -------------------------------------------------------------------------


@pytest.fixture(scope="module")
def bin_(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The programs of an empty environment that got the wheel and the pins of the client."""
    prefix = tmp_path_factory.mktemp("member")
    ran(sys.executable, "-m", "venv", str(prefix), where=prefix)
    pip = (str(prefix / "bin" / "pip"), "install", "--quiet", "--disable-pip-version-check")
    exactly = ("--no-deps", "--require-hashes", "--only-binary", ":all:")
    command = (*pip, *exactly, "-r", str(ROOT / "requirements-client.txt"))
    done = subprocess.run(command, env=clean(), capture_output=True, text=True, check=False)
    if "No matching distribution" in done.stderr or "Could not fetch" in done.stderr:
        pytest.skip("needs a package registry: the client's packages could not be fetched")
    assert done.returncode == 0, done.stderr
    ran(*pip, "--no-deps", "--no-index", str(wheel), where=prefix)
    return prefix / "bin"


def test_nothing_is_missing_where_the_pins_of_the_client_are(bin_: Path, tmp_path: Path) -> None:
    assert "No broken requirements" in ran(str(bin_ / "pip"), "check", where=tmp_path)


def test_the_installed_command_says_its_version_and_lists_circles(
    bin_: Path, tmp_path: Path
) -> None:
    muster, home = str(bin_ / "muster"), str(tmp_path / "home")

    assert ran(muster, "--version", where=tmp_path).startswith("muster ")
    assert ran(muster, "circle", "list", "--json", where=tmp_path, MUSTER_HOME=home) == ""


def test_an_app_developer_imports_the_client(bin_: Path, tmp_path: Path) -> None:
    program = "from muster.felund import Client; from muster.bootstrap import bootstrap"

    ran(str(bin_ / "python"), "-c", program, where=tmp_path)


@pytest.mark.parametrize(
    "words", [("serve",), ("backup", "kept"), ("keygen", "root", "--out", "root.key"), ("plan",)]
)
def test_a_verb_that_needs_the_checkout_says_so_in_one_sentence(
    bin_: Path, tmp_path: Path, words: tuple[str, ...]
) -> None:
    command = [str(bin_ / "muster"), *words]
    home = str(tmp_path / "home")
    done = subprocess.run(
        command,
        cwd=tmp_path,
        env=clean(MUSTER_HOME=home),
        capture_output=True,
        text=True,
        check=False,
    )

    assert done.returncode != 0
    assert re.fullmatch(r"muster: .*checkout.*\n", done.stderr), done.stderr
    assert list(tmp_path.iterdir()) == []


ON_WINDOWS = """
import asyncio, concurrent.futures, getpass, http, importlib, importlib.abc, json, pkgutil
import socket, ssl, subprocess, sys, tempfile  # these know what to do without
POSIX = {"fcntl", "grp", "pty", "pwd", "readline", "resource", "syslog", "termios", "tty"}
class Windows(importlib.abc.MetaPathFinder):
    def find_spec(self, name, path=None, target=None):
        if name in POSIX:
            raise ImportError(f"there is no {name} on Windows")
for name in POSIX:
    sys.modules.pop(name, None)
sys.meta_path.insert(0, Windows())
failed = {}
for package in map(importlib.import_module, ("capsules", "muster")):
    for found in pkgutil.walk_packages(package.__path__, package.__name__ + "."):
        if not found.name.endswith("__main__"):
            try:
                importlib.import_module(found.name)
            except ImportError as error:
                failed[found.name] = str(error)
print(json.dumps(failed))
"""

CHECKOUT_VERBS = {
    f"muster.cli.{name}"
    for name in ("access", "copies", "given", "inspecting", "keys", "publishing")
}
"""Modules whose verbs work on a service's own files, with the service's code."""


def test_the_client_needs_nothing_that_windows_lacks(bin_: Path, tmp_path: Path) -> None:
    failed = json.loads(ran(str(bin_ / "python"), "-c", ON_WINDOWS, where=tmp_path))

    assert set(failed) <= CHECKOUT_VERBS, failed
