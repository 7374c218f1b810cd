"""The archive: what Chalice collected, made small, complete, precompiled and the same every time.

What the runtime has and nobody imports is taken out, every module is compiled for the
Python that Lambda will run, and the zip is written so that the same files make the same bytes.
"""

from __future__ import annotations

import os
import platform
import re
import shutil
import struct
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from muster.cli.output import Failure

ROOT = Path(__file__).resolve().parents[1]
NEEDED = (
    "app.py",
    "capsules",
    "chalice",
    "chalicelib",
    "cryptography",
    "msgspec",
    "muster",
    "nacl",
    "web/app",
    "web/muster",
)
OURS = frozenset({"app.py", "capsules", "chalice", "chalicelib", "muster", "web"})
"""What does not come from a wheel."""

UNUSED = re.compile(
    r"""
      ^ [^/]+\.dist-info/                   # what was installed, for installers
    | ^ (cffi|pycparser)/                   # build what _cffi_backend alone runs
    | ^ (boto3|botocore|s3transfer|jmespath|urllib3|dateutil|six\.py) (/|$)   # the runtime has them
    | (^|/) (tests?|__pycache__) /
    | \. (pyi|pyx|pxd|c|h|pyc) $
    | (^|/) py\.typed $
    """,
    re.VERBOSE,
)
MACHINES = {"x86_64": 62, "arm64": 183}
"""What the head of a shared library says of whom it is for."""

OLDEST_GLIBC, GLIBC, GLIBC_OF_3_11 = 17, 34, 26
"""The C library of Lambda's machines, 2.x: pip takes each tag literally, so all are named."""

EPOCH = (1980, 1, 1, 0, 0, 0)
TASK = "/var/task"
"""Where Lambda unpacks the zip: what tracebacks name."""

COMPILE = """
import compileall, py_compile, sys
tree, task, *sourceless = sys.argv[1:]
same = dict(maxlevels=99, quiet=1, force=True, workers=1, stripdir=tree, prependdir=task,
            invalidation_mode=py_compile.PycInvalidationMode.UNCHECKED_HASH)
done = [compileall.compile_dir(f"{tree}/{name}", legacy=True, **same) for name in sourceless]
sys.exit(not all(done) or not compileall.compile_dir(tree, **same))
"""


@dataclass(frozen=True, slots=True)
class Wheels:
    """Which wheels Lambda needs: those of its Python and machine, brought by any Python's pip."""

    pip: str
    version: str
    architecture: str

    def bring(self, tree: Path) -> None:
        """Install what the service needs into a folder, from the pins, checked by hash."""
        machine = {"arm64": "aarch64"}.get(self.architecture, self.architecture)
        newest = GLIBC_OF_3_11 if self.version == "3.11" else GLIBC
        kinds = ["2014", *(f"_2_{minor}" for minor in range(OLDEST_GLIBC, newest + 1))]
        command = [self.pip, "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
        command += ["--no-compile", "--no-deps", "--require-hashes", "--only-binary=:all:"]
        command += ["--implementation=cp", f"--python-version={self.version}"]
        command += [f"--platform=manylinux{kind}_{machine}" for kind in kinds]
        command += [f"--target={tree}", f"--requirement={ROOT / 'requirements.txt'}"]
        done = subprocess.run(  # noqa: S603 - a command of ours
            command, capture_output=True, text=True, check=False
        )
        if done.returncode:
            said = [line for line in done.stderr.splitlines() if line.startswith("ERROR")]
            raise Failure(
                f"no wheels of Python {self.version} for {self.architecture}: "
                f"{said[0] if said else 'pip does not say why'}",
                "a package registry is needed",
            )


def finish(archive: Path, wheels: Wheels, *, compiler: str | None = sys.executable) -> None:
    """Rewrite what Chalice packed: with its wheels, without what is not needed, and compiled.

    The *compiler* must be the Python that Lambda runs; without one every cold start compiles.
    """
    with tempfile.TemporaryDirectory() as name:
        tree = Path(name)
        with zipfile.ZipFile(archive) as opened:
            opened.extractall(tree)
        wheels.bring(tree)
        slim(tree)
        check(tree, wheels.architecture)
        if compiler:
            precompile(tree, python=compiler)
        write(tree, archive)


def slim(tree: Path) -> None:
    """Remove what is not needed when the functions run."""
    for path in _files(tree):
        if UNUSED.search(path.relative_to(tree).as_posix()):
            path.unlink()
    for folder in sorted((p for p in tree.rglob("*") if p.is_dir()), reverse=True):
        if not any(folder.iterdir()):
            folder.rmdir()


def precompile(tree: Path, *, python: str = sys.executable) -> None:
    """Compile every module, to be taken as it is: nobody looks whether its source has changed.

    Of libraries only what was compiled is kept; our own sources stay, for tracebacks.
    """
    libraries = sorted({path.name for path in tree.iterdir() if path.is_dir()} - OURS)
    command = [python, "-I", "-c", COMPILE, str(tree), TASK, *libraries]
    environment = os.environ | {"PYTHONHASHSEED": "0"}
    done = subprocess.run(  # noqa: S603 - the Python that packs
        command, env=environment, capture_output=True, text=True, check=False
    )
    if done.returncode:
        raise Failure(f"the modules cannot be compiled: {done.stdout.strip()}")
    for name in libraries:
        for source in (tree / name).rglob("*.py"):
            source.unlink()
        for folder in list((tree / name).rglob("__pycache__")):
            shutil.rmtree(folder)


def write(tree: Path, archive: Path) -> Path:
    """Write a zip that depends on nothing but names and contents."""
    unfinished = archive.with_suffix(".part")
    with zipfile.ZipFile(unfinished, "w", zipfile.ZIP_DEFLATED, compresslevel=9) as opened:
        for path in _files(tree):
            entry = zipfile.ZipInfo(path.relative_to(tree).as_posix(), EPOCH)
            entry.compress_type = zipfile.ZIP_DEFLATED
            entry.create_system = 3
            entry.external_attr = 0o100644 << 16
            opened.writestr(entry, path.read_bytes())
    return unfinished.replace(archive)


def check(tree: Path, architecture: str) -> None:
    """Refuse a package that lacks something, or brings libraries for another machine."""
    missing = [name for name in NEEDED if not (tree / name).exists()]
    if missing:
        raise Failure(f"the package lacks {', '.join(missing)}")
    if not fits(tree, architecture):
        raise Failure(f"the package has libraries that are not for {architecture}")


def here() -> str:
    """Return this machine's architecture, as Lambda calls it."""
    return {"aarch64": "arm64"}.get(platform.machine(), platform.machine())


def fits(tree: Path, architecture: str) -> bool:
    """Say whether every shared library is for the architecture."""
    heads = (path.read_bytes()[:20] for path in _files(tree) if ".so" in path.suffixes)
    return all(struct.unpack_from("<H", head, 18)[0] == MACHINES[architecture] for head in heads)


def _files(tree: Path) -> Iterator[Path]:
    yield from sorted(path for path in tree.rglob("*") if path.is_file())
