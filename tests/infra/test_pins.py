"""Set-up looks at nothing but the pins: each file is complete, and installs whatever is newer."""

import base64
import hashlib
import re
import shutil
import subprocess
import sys
import zipfile
from collections.abc import Iterator
from functools import cache
from importlib.metadata import distribution
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version

from tests.support import ministack
from tests.support.local import ROOT

FILES = sorted(path.name for path in ROOT.glob("requirements*.txt"))
NEWEST = "pip"
PIPS = ("pip==23.0.1", "pip==23.2.1", NEWEST)
EXACTLY = ("--no-deps", "--require-hashes")


def pins(file: str) -> dict[str, Version]:
    """Return every package that a file names, with the one version it may have."""
    lines = re.sub(r"\\\n", " ", (ROOT / file).read_text()).splitlines()
    found: dict[str, Version] = {}
    for line in lines:
        if line and not line.startswith(("#", " ")):
            wanted = Requirement(line.partition("--hash")[0].strip())
            (pin,) = wanted.specifier
            assert pin.operator == "=="
            assert "--hash=sha256:" in line, f"{wanted.name} has no hash"
            if wanted.marker is None or wanted.marker.evaluate():
                found[canonicalize_name(wanted.name)] = Version(pin.version)
    return found


@cache
def asked(name: str, extras: frozenset[str]) -> list[Requirement]:
    """Return what an installed package asks for here."""
    lines = distribution(name).requires or []
    return [
        wanted
        for wanted in map(Requirement, lines)
        if wanted.marker is None
        or any(wanted.marker.evaluate({"extra": extra}) for extra in ("", *extras))
    ]


def missing(file: str) -> Iterator[str]:
    """Yield what the packages of a file ask for and the file does not give them."""
    known = pins(file)
    todo = [(name, frozenset[str]()) for name in known]
    seen = set(todo)
    while todo:
        name, extras = todo.pop()
        for wanted in asked(name, extras):
            other = canonicalize_name(wanted.name)
            if other not in known or not wanted.specifier.contains(known[other]):
                yield f"{name} asks for {wanted}"
            elif (step := (other, frozenset(wanted.extras))) not in seen:
                seen.add(step)
                todo.append(step)


def test_there_are_files_of_pins() -> None:
    assert {"requirements.txt", "requirements-serve.txt", "requirements-dev.txt"} <= set(FILES)
    assert "requirements-client.txt" in FILES


@pytest.mark.parametrize("file", FILES)
def test_a_file_of_pins_names_everything_that_its_packages_ask_for(file: str) -> None:
    assert list(missing(file)) == []


@pytest.mark.parametrize("file", FILES)
def test_every_file_pins_the_versions_that_are_tested(file: str) -> None:
    tested = pins("requirements-dev.txt")

    assert {name: tested.get(name) for name in pins(file)} == pins(file)


def test_the_emulator_has_an_environment_of_its_own_with_everything_that_it_asks_for() -> None:
    python = ministack.PYTHON
    if not python.exists():
        pytest.skip("needs ministack: make ministack")
    pip = [str(python), "-m", "pip", "--disable-pip-version-check"]
    checked = subprocess.run([*pip, "check"], capture_output=True, check=False)
    frozen = subprocess.run([*pip, "freeze"], capture_output=True, text=True, check=True)
    installed = {
        canonicalize_name(name): Version(version)
        for name, _, version in (line.partition("==") for line in frozen.stdout.split())
    }

    assert checked.returncode == 0, checked.stdout
    assert installed == pins("tests/ministack.txt")


def test_running_installs_a_fraction_of_what_testing_does() -> None:
    assert len(pins("requirements-serve.txt")) <= 32  # 7 of them draw the chat's screen


def test_uvicorn_stays_at_the_minor_version_whose_internals_we_subclass() -> None:
    lines = (ROOT / "requirements-serve.in").read_text().splitlines()
    (wanted,) = (Requirement(line) for line in lines if line.startswith("uvicorn"))
    major, minor, _ = distribution("uvicorn").version.split(".")

    assert wanted.specifier.contains(f"{major}.{minor}.99")
    assert not wanted.specifier.contains(f"{major}.{int(minor) + 1}.0")


def test_pins_come_without_extras_as_old_pips_would_look_for_the_newest() -> None:
    for file in (*FILES, "tests/ministack.txt"):
        for line in (ROOT / file).read_text().splitlines():
            assert not re.match(r"[\w.-]+\[", line), f"{file}: {line}"


@pytest.mark.parametrize("place", [".ci/setup", "Dockerfile", "packaging/muster.service"])
def test_whoever_installs_pins_tells_pip_not_to_resolve(place: str) -> None:
    text = (ROOT / place).read_text()
    installs = [line for line in text.splitlines() if "--require-hashes" in line]

    assert installs
    assert all("--no-deps" in line and "--only-binary" in line for line in installs)


def test_node_packages_come_from_the_lock() -> None:
    calls = re.findall(r"\bnode\[@\]\}\" npm (\w+)", (ROOT / ".ci/setup").read_text())
    assert calls == ["ci"]


class Registry:
    """A registry in a folder: one package that asks for another one with an extra."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def add(self, name: str, version: str, *lines: str) -> str:
        """Publish a wheel, and return the line that pins it."""
        place = self.folder / name
        place.mkdir(parents=True, exist_ok=True)
        file = place / f"{name}-{version}-py3-none-any.whl"
        said = f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n"
        info = f"{name}-{version}.dist-info"
        members = {
            f"{name}.py": f"version = {version!r}\n",
            f"{info}/METADATA": said + "".join(f"{line}\n" for line in lines),
            f"{info}/WHEEL": "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
        }
        record = "".join(f"{path},{_digest(text)},{len(text)}\n" for path, text in members.items())
        with zipfile.ZipFile(file, "w") as wheel:
            for path, text in (members | {f"{info}/RECORD": record}).items():
                wheel.writestr(path, text)
        links = [f'<a href="{wheel.name}">{wheel.name}</a>' for wheel in place.glob("*.whl")]
        (place / "index.html").write_text("\n".join(links))
        return f"{name}=={version} --hash=sha256:{hashlib.sha256(file.read_bytes()).hexdigest()}\n"


def _digest(text: str) -> str:
    raw = hashlib.sha256(text.encode()).digest()
    return "sha256=" + base64.urlsafe_b64encode(raw).rstrip(b"=").decode()


@pytest.fixture(scope="module")
def registry(tmp_path_factory: pytest.TempPathFactory) -> tuple[Registry, str]:
    """A registry in which everything has a newer version than its pin, and the pins."""
    made = Registry(tmp_path_factory.mktemp("registry"))
    text = made.add("alpha", "1.0", "Requires-Dist: beta[quick]>=1.0")
    text += made.add("beta", "1.0", "Provides-Extra: quick")
    made.add("alpha", "2.0", "Requires-Dist: beta[quick]>=2.0")
    made.add("beta", "2.0", "Provides-Extra: quick")
    return made, text


@pytest.fixture(scope="module", params=PIPS)
def checkout(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with our way to install, and an environment whose pip is of the given age."""
    folder = tmp_path_factory.mktemp("checkout")
    (folder / ".ci").mkdir()
    shutil.copy(ROOT / ".ci" / "setup", folder / ".ci" / "setup")
    subprocess.run([sys.executable, "-m", "venv", str(folder / ".venv")], check=True)
    done = _pip(folder, "install", "--quiet", "--upgrade", request.param)
    if done.returncode:
        pytest.skip(f"needs a package registry: {request.param} could not be fetched")
    return folder


def _pip(folder: Path, *words: str) -> "subprocess.CompletedProcess[str]":
    command = [str(folder / ".venv" / "bin" / "python"), "-m", "pip", *words]
    command.append("--disable-pip-version-check")
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)


def test_pins_install_as_they_are_when_everything_has_a_newer_version(
    checkout: Path, registry: tuple[Registry, str]
) -> None:
    made, text = registry
    (checkout / "pins.txt").write_text(text)
    environment = {
        "PATH": "/usr/bin:/bin",
        "HOME": str(checkout / "nowhere"),
        "LC_ALL": "C",
        "PIP_INDEX_URL": made.folder.as_uri(),
        "PIP_CONFIG_FILE": "/dev/null",
    }
    command = ["bash", ".ci/setup", "pins", "pins.txt"]
    done = subprocess.run(
        command, cwd=checkout, env=environment, capture_output=True, text=True, check=False
    )
    frozen = _pip(checkout, "freeze").stdout.split()

    assert done.returncode == 0, done.stdout + done.stderr
    assert {"alpha==1.0", "beta==1.0"} <= set(frozen)


def test_a_pip_that_resolves_before_24_would_fail_on_the_same_pins(
    checkout: Path, registry: tuple[Registry, str]
) -> None:
    """Why the test above is worth its time: this is how set-up was done, and broke by itself."""
    made, text = registry
    (checkout / "pins.txt").write_text(text)
    place = ["--isolated", "--index-url", made.folder.as_uri(), "--target", str(checkout / "other")]
    done = _pip(checkout, "install", "--require-hashes", "-r", "pins.txt", *place)
    old = _pip(checkout, "--version").stdout.startswith("pip 23.")

    assert (done.returncode != 0) is old, done.stdout + done.stderr
