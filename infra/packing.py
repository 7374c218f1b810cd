"""Packing: the zip for Lambda and its template, made by Chalice from a copy of the checkout.

Chalice makes the template and puts our code together; `infra.archive` brings the wheels of
the Python that Lambda will run, whichever Python packs, and finishes the zip. A Python that
has no Chalice gets a virtual environment of its own, from the pins, under `build/`.

    python -m infra.packing [--architecture arm64] [--python PATH] OUT
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from infra import app_files, archive, stack
from muster import whole_file
from muster.cli import output
from muster.cli.output import Failure, say

ROOT = Path(__file__).resolve().parent.parent
ARCHIVE, TEMPLATE = "deployment.zip", "sam.json"
"""What Chalice calls what it makes."""

PROJECT = ("app.py", ".chalice", "chalicelib")
VENDORED = ("capsules", "muster")
"""Our packages that Chalice does not look for: it takes them from `vendor/`."""

LEFT_OUT = frozenset(
    {
        *("muster/bootstrap", "muster/chat", "muster/circle", "muster/cli"),
        "chalicelib/local",
    }
)
"""Folders of ours that no function needs: the command, its clients, the one-machine host."""

LIBRARY, MODULES = Path("web") / "muster", "*.js"
"""What the service sends to browsers; it looks for it beside its own package."""

PINS = "requirements-pack.txt"
STAGE = "deploy"
PREFERRED = ("3.13", "3.12")
"""What Lambda is to run, the best first; another Python packs for the first of them."""

OLDEST = (3, 11)

_ASK = (
    "import json, sys; from importlib.util import find_spec; "
    "print(json.dumps(['%d.%d' % sys.version_info[:2], "
    "all(map(find_spec, ['chalice', 'msgspec', 'nacl', 'cryptography']))]))"
)

_CHALICE = f"""
import sys
sys.path.insert(0, "vendor")
from chalice.cli import main
from chalice.cli.factory import CLIFactory
from chalice.deploy.validate import validate_configuration
validate_configuration(CLIFactory(".").create_config_obj("{STAGE}"))
sys.exit(main())
"""
"""What packs. Chalice looks into `vendor/` last, where another `muster` may be installed; and
`chalice package` does not check what `chalice deploy` would."""


@dataclass(frozen=True, slots=True)
class Python:
    """An interpreter that can pack."""

    path: str
    version: str
    ready: bool
    target: str

    @property
    def runtime(self) -> str:
        """Lambda's name for the Python that is packed for."""
        return f"python{self.target}"

    @property
    def compiles(self) -> bool:
        """Whether what it compiles is what Lambda's Python reads."""
        return self.version == self.target


@dataclass(frozen=True, slots=True)
class Package:
    """What is uploaded, and the template that Chalice made for it, with ours merged in."""

    archive: Path
    template: Mapping[str, Any]
    runtime: str
    digest: str
    archive_bytes: int

    @property
    def key(self) -> str:
        """What the archive is called in the bucket: the same code has the same name."""
        return f"code/{self.digest}.zip"


def find_python(
    named: str | None = None,
    *,
    here: str = sys.executable,
    known: Callable[[str], Iterable[str]] | None = None,
) -> Python:
    """Return the Python to pack with: as *named*, else one that Lambda has, else this one.

    What is named runs on Lambda in its own version, if Lambda has it. Any other Python packs for
    Lambda's best, without compiling for it.
    """
    if named:
        found = _asked(shutil.which(named) or named)
        if found is None:
            raise Failure(f"there is no Python '{named}'", "name it like --python python3.13")
        return _fit(found)
    this = _asked(here)
    if this is not None and this.version in PREFERRED:
        return this
    for version in PREFERRED:
        for path in (known or candidates)(version):
            found = _asked(path)
            if found is not None and found.version == version:
                return found
    if this is None:
        raise Failure(f"{here} does not say its version", "name a Python with --python PATH")
    return _fit(replace(this, target=PREFERRED[0]))


def _fit(found: Python) -> Python:
    """Let a Python pack for itself, or for Lambda's best where Lambda has no such Python."""
    if tuple(map(int, found.version.split("."))) < OLDEST:
        raise Failure(
            f"Muster does not run on Python {found.version}", "it needs 3.11 or a newer one"
        )
    if f"python{found.target}" not in stack.RUNTIMES:
        found = replace(found, target=PREFERRED[0])
    if not found.compiles:
        say(
            f"Python {found.version} packs for Lambda's {found.target}, but does not compile for "
            f"it: a cold start takes longer; with python{found.target} on the path it does not"
        )
    return found


def prepare(python: Python) -> Python:
    """Give a Python without Chalice an environment that has it; takes a minute, once."""
    if python.ready:
        return python
    home = ROOT / "build" / f"packing-{python.version}"
    inside = str(home / "bin" / "python")
    found = _asked(inside) if home.exists() else None
    if found is not None and found.ready:
        return replace(found, target=python.target)
    say(f"making {home.relative_to(ROOT)} with Python {python.version}, once")
    _run([python.path, "-m", "venv", "--clear", str(home)], "an environment cannot be made")
    pip = [inside, "-m", "pip", "--disable-pip-version-check", "--quiet", "install"]
    exactly = ["--no-deps", "--require-hashes", "--only-binary", ":all:"]  # as .ci/setup says why
    _run([*pip, *exactly, "-r", PINS], "Chalice cannot be installed")
    found = _asked(inside)
    if found is None or not found.ready:
        raise Failure(f"{home} is not usable", "delete it and try again")
    return replace(found, target=python.target)


def pack(target: Path, python: Python, *, architecture: str) -> Package:
    """Pack the service into the folder *target*: the zip, and the template beside it."""
    target.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="muster-pack-") as made:
        raw = chalice(Path(made), python, architecture=architecture)
        wheels = archive.Wheels(python.path, python.target, architecture)
        archive.finish(raw / ARCHIVE, wheels, compiler=python.path if python.compiles else None)
        packed = target / ARCHIVE
        for name in (ARCHIVE, TEMPLATE):
            whole_file.write(target / name, (raw / name).read_bytes(), mode=whole_file.PUBLIC)
    digest = hashlib.sha256(packed.read_bytes()).hexdigest()[:32]
    template = stack.retarget(json.loads((target / TEMPLATE).read_text()), python.runtime)
    return Package(packed, template, python.runtime, digest, packed.stat().st_size)


def chalice(work: Path, python: Python, *, architecture: str) -> Path:
    """Run `chalice package` on a copy of what goes to Lambda; return the folder it filled."""
    project, packed = work / "project", work / "packed"
    _copy(project, architecture)
    arguments = ["package", "--stage", STAGE, "--merge-template", str(stack.RESOURCES), str(packed)]
    _run([python.path, "-c", _CHALICE, *arguments], "packing failed", where=project)
    return packed


def _copy(project: Path, architecture: str) -> None:
    """Copy what is packed to where Chalice looks for it, and name the architecture."""
    places = {name: name for name in PROJECT} | {name: f"vendor/{name}" for name in VENDORED}
    project.mkdir()
    for name, place in places.items():
        if (ROOT / name).is_dir():
            shutil.copytree(ROOT / name, project / place, ignore=_left_out)
        else:
            shutil.copyfile(ROOT / name, project / place)
    for path in sorted((ROOT / LIBRARY).rglob(MODULES)):
        module = project / "vendor" / path.relative_to(ROOT)
        module.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(path, module)
    app_files.copy(ROOT / "web", project / "vendor" / "web")
    (project / "requirements.txt").write_text("")  # wheels are brought afterwards
    path = project / ".chalice" / "config.json"
    config = json.loads(path.read_text()) | {"lambda_architecture": architecture}
    path.write_text(json.dumps(config))


def _left_out(folder: str, names: Sequence[str]) -> list[str]:
    """Say what of a folder is not copied."""
    place = Path(folder).relative_to(ROOT)
    return [
        name for name in names if name == "__pycache__" or (place / name).as_posix() in LEFT_OUT
    ]


def version_of(path: str) -> str | None:
    """Return an interpreter's version; None if it does not say it."""
    found = _asked(path)
    return found.version if found else None


def candidates(version: str) -> list[str]:
    """Return where a Python of a version may be."""
    found = shutil.which(f"python{version}")
    kept = sorted(Path.home().glob(f".pyenv/versions/{version}*/bin/python{version}"), reverse=True)
    return [*([found] if found else []), *(str(path) for path in kept)]


def _asked(path: str) -> Python | None:
    """Ask an interpreter for its version, and whether it can pack."""
    try:
        done = subprocess.run(  # noqa: S603 - an interpreter that the operator has
            [path, "-c", _ASK], capture_output=True, text=True, timeout=20, check=True
        )
        version, ready = json.loads(done.stdout)
    except (OSError, ValueError, subprocess.SubprocessError):
        return None
    return Python(path, version, ready, target=version)


def _run(command: Sequence[str], what: str, *, where: Path = ROOT) -> str:
    environment = {**os.environ, "PYTHONWARNINGS": "ignore"}
    environment.setdefault("AWS_DEFAULT_REGION", "us-east-1")
    done = subprocess.run(  # noqa: S603 - commands of ours
        command, cwd=where, env=environment, capture_output=True, text=True, check=False
    )
    if done.returncode:
        lines = [line for line in (done.stdout + done.stderr).splitlines() if line.strip()]
        raise Failure(f"{what}: {lines[-1].strip() if lines else 'no reason given'}")
    return done.stdout + done.stderr


def main(arguments: Sequence[str] | None = None) -> int:
    """Pack as told on the command line."""
    parser = argparse.ArgumentParser(prog="python -m infra.packing", description=__doc__)
    parser.add_argument("out", metavar="OUT", type=Path, help="folder for the zip and the template")
    parser.add_argument("--architecture", default="arm64", choices=tuple(archive.MACHINES))
    parser.add_argument("--python", metavar="PATH", help="the Python to pack with")
    chosen = parser.parse_args(arguments)
    try:
        python = prepare(find_python(chosen.python))
        package = pack(chosen.out, python, architecture=chosen.architecture)
    except Failure as failure:
        return output.complain(failure)
    size = package.archive_bytes / 1_000_000
    print(f"{package.archive}: {size:.1f} MB for {package.runtime} on {chosen.architecture}")
    return output.OK


if __name__ == "__main__":
    sys.exit(main())
