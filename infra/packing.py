"""Packing: the code and its template, made from a copy, so that the checkout stays as it is.

Lambda runs the Python that packs. A Python that has no Chalice gets a virtual
environment of its own, from the pins, under `build/`.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from infra import package, stack
from muster.cli.output import Failure, say

ROOT = Path(__file__).resolve().parent.parent
PACKED = ("app.py", "requirements.txt", "chalicelib", "vendor", ".chalice")
PINS = "requirements-pack.txt"
STAGE = "deploy"
PREFERRED = ("3.13", "3.12")

_ASK = (
    "import json, sys; from importlib.util import find_spec; "
    "print(json.dumps(['%d.%d' % sys.version_info[:2], "
    "all(map(find_spec, ['chalice', 'msgspec', 'nacl', 'cryptography']))]))"
)

_CHALICE = f"""
import sys
from chalice.cli import main
from chalice.cli.factory import CLIFactory
from chalice.deploy.validate import validate_configuration
validate_configuration(CLIFactory(".").create_config_obj("{STAGE}"))
sys.exit(main())
"""
"""What packs; `chalice package` does not check what `chalice deploy` would."""


@dataclass(frozen=True, slots=True)
class Python:
    """An interpreter that can pack."""

    path: str
    version: str
    ready: bool

    @property
    def runtime(self) -> str:
        """Lambda's name for it."""
        return f"python{self.version}"


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


def find_python(named: str | None = None) -> Python:
    """Return the Python to pack with: as *named*, else one that Lambda keeps for long."""
    if named:
        found = _asked(shutil.which(named) or named)
        if found is None:
            raise Failure(f"there is no Python '{named}'", "name it like --python python3.13")
        if found.runtime not in stack.RUNTIMES:
            raise Failure(
                f"Lambda has no Python {found.version} that Muster runs on",
                "it runs on 3.13, 3.12 and, until Lambda retires it in June 2027, 3.11",
            )
        return found
    here = _asked(sys.executable)
    if here is not None and here.version in PREFERRED:
        return here
    for version in PREFERRED:
        for path in _candidates(version):
            found = _asked(path)
            if found is not None and found.version == version:
                return found
    raise Failure(
        f"there is no Python 3.13 or 3.12 here, and Lambda retires {sys.version_info[0]}."
        f"{sys.version_info[1]} soon",
        f"install one of them, or take this one for now with --python {Path(sys.executable).name}",
    )


def prepare(python: Python) -> Python:
    """Give a Python without Chalice an environment that has it; takes a minute, once."""
    if python.ready:
        return python
    home = ROOT / "build" / f"packing-{python.version}"
    inside = str(home / "bin" / "python")
    found = _asked(inside) if home.exists() else None
    if found is not None and found.ready:
        return found
    say(f"making {home.relative_to(ROOT)} with Python {python.version}, once")
    _run([python.path, "-m", "venv", "--clear", str(home)], "an environment cannot be made")
    pip = [inside, "-m", "pip", "--disable-pip-version-check", "--quiet", "install"]
    exactly = ["--no-deps", "--require-hashes", "--only-binary", ":all:"]  # as .ci/setup says why
    _run([*pip, *exactly, "-r", PINS], "Chalice cannot be installed")
    found = _asked(inside)
    if found is None or not found.ready:
        raise Failure(f"{home} is not usable", "delete it and try again")
    return found


def pack(target: Path, python: Python, *, architecture: str) -> Package:
    """Run `chalice package` on a copy of what goes to Lambda."""
    with tempfile.TemporaryDirectory(prefix="muster-pack-") as made:
        project = Path(made)
        _copy(project, architecture)
        command = [python.path, "-c", _CHALICE]
        arguments = ["package", "--stage", STAGE, "--merge-template", str(stack.RESOURCES)]
        shutil.rmtree(target, ignore_errors=True)
        target.mkdir(parents=True)
        shown = _run([*command, *arguments, str(target)], "packing failed", where=project)
    if "Could not install" in shown:
        raise Failure(
            "the package would lack some of what it needs: " + _missing(shown),
            "a package registry must be within reach, with wheels for " + architecture,
        )
    archive = target / "deployment.zip"
    package.finish(archive, architecture=architecture, python=python.path)
    template = json.loads((target / "sam.json").read_text())
    digest = hashlib.sha256(archive.read_bytes()).hexdigest()[:32]
    return Package(archive, template, python.runtime, digest, archive.stat().st_size)


def _copy(project: Path, architecture: str) -> None:
    """Copy what is packed; the links in `vendor/` become what they lead to."""
    ignored = shutil.ignore_patterns("__pycache__", "deployments", "deployed", "*.pyc")
    for name in PACKED:
        source = ROOT / name
        if source.is_dir():
            shutil.copytree(source, project / name, ignore=ignored)
        else:
            shutil.copy(source, project / name)
    path = project / ".chalice" / "config.json"
    config = json.loads(path.read_text())
    config["lambda_architecture"] = architecture
    config["stages"] = {
        STAGE: {"api_gateway_stage": "api", "autogen_policy": False, "iam_policy_file": "none.json"}
    }
    path.write_text(json.dumps(config))
    (path.parent / "none.json").write_text('{"Version": "2012-10-17", "Statement": []}')


def _candidates(version: str) -> list[str]:
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
    return Python(path, version, ready)


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


def _missing(shown: str) -> str:
    _, _, rest = shown.partition("Could not install dependencies:")
    return ", ".join(line.strip() for line in rest.splitlines()[:6] if "==" in line) or "see above"
