"""Packing: what Lambda is given, small, complete, precompiled and the same every time.

Chalice collects the files. What the runtime has and nobody imports is taken out, every
module is compiled for the Python that packs, which is the one that Chalice names in the
template, and the zip is written so that the same sources make the same bytes.

    python -m infra.package [--stage dev] [--architecture x86_64] OUT
"""

from __future__ import annotations

import argparse
import os
import re
import shutil
import struct
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Iterator, Sequence
from pathlib import Path

from muster.cli import output
from muster.cli.output import Failure

ROOT = Path(__file__).resolve().parents[1]
ARCHIVE, TEMPLATE = "deployment.zip", "sam.json"

PROJECT = ("app.py", "capsules", "chalicelib", "muster", "requirements.txt", "vendor", ".chalice")
NEEDED = (
    "app.py",
    "capsules",
    "chalice",
    "chalicelib",
    "cryptography",
    "msgspec",
    "muster",
    "nacl",
)
OURS = frozenset({"app.py", "capsules", "chalice", "chalicelib", "muster"})
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


def build(out: Path, *, stage: str = "dev", architecture: str = "x86_64") -> Path:
    """Pack the AWS side into the folder *out*, with Chalice's template; return the zip."""
    out.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as name:
        packed = chalice(Path(name), stage)
        finish(packed / ARCHIVE, architecture=architecture)
        shutil.copyfile(packed / TEMPLATE, out / TEMPLATE)
        return Path(shutil.copyfile(packed / ARCHIVE, out / ARCHIVE))


def finish(archive: Path, *, architecture: str = "x86_64", python: str = sys.executable) -> None:
    """Rewrite what Chalice packed: without what is not needed, and compiled by *python*.

    That must be the Python that packed; its version is the one Lambda will run.
    """
    with tempfile.TemporaryDirectory() as name:
        tree = Path(name)
        with zipfile.ZipFile(archive) as opened:
            opened.extractall(tree)
        if not _fits(tree, architecture):
            _exchange_wheels(tree, architecture, python)
        slim(tree)
        check(tree, architecture)
        precompile(tree, python=python)
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


def runtime() -> str:
    """Name the Lambda runtime that the package is for: the Python that packs it."""
    return f"python{sys.version_info.major}.{sys.version_info.minor}"


def chalice(work: Path, stage: str) -> Path:
    """Let Chalice pack a copy of the project, where nothing is left from another time."""
    project, packed = work / "project", work / "packed"
    unwanted = shutil.ignore_patterns("__pycache__", "deployments", "deployed")
    for name in PROJECT:
        source = ROOT / name
        if source.is_dir():
            shutil.copytree(source, project / name, ignore=unwanted)
        else:
            project.mkdir(exist_ok=True)
            shutil.copyfile(source, project / name)
    run = "from chalice.cli import main; main()"
    command = [sys.executable, "-c", run, "--project-dir", str(project), "package"]
    region = os.environ.get("AWS_DEFAULT_REGION") or os.environ.get("AWS_REGION") or "us-east-1"
    done = subprocess.run(  # noqa: S603 - a command of ours
        [*command, "--stage", stage, str(packed)],
        cwd=project,
        env=os.environ | {"AWS_DEFAULT_REGION": region, "PYTHONWARNINGS": "ignore"},
        capture_output=True,
        text=True,
        check=False,
    )
    said = (done.stdout + done.stderr).strip()
    if "Could not install" in said:  # it exits with 0 all the same
        raise Failure(f"dependencies could not be packed: {said}", "a package registry is needed")
    if done.returncode:
        raise Failure(f"chalice package failed: {said}")
    return packed


def _exchange_wheels(tree: Path, architecture: str, python: str) -> None:
    """Put the wheels of another machine in place of Chalice's, which knows one kind only."""
    machine = {"arm64": "aarch64"}.get(architecture, architecture)
    for path in tree.iterdir():
        if path.name not in OURS:
            shutil.rmtree(path) if path.is_dir() else path.unlink()
    platforms = [f"--platform=manylinux{kind}_{machine}" for kind in ("2014", "_2_17", "_2_28")]
    command = [python, "-m", "pip", "install", "--quiet", "--no-compile", "--no-deps"]
    done = subprocess.run(  # noqa: S603 - a command of ours
        [
            *command,
            "--disable-pip-version-check",
            "--only-binary=:all:",
            "--implementation=cp",
            *platforms,
            f"--target={tree}",
            f"--requirement={ROOT / 'requirements.txt'}",
        ],
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        raise Failure(
            f"no wheels for {architecture}: {done.stderr.strip()}", "a package registry is needed"
        )


def check(tree: Path, architecture: str) -> None:
    """Refuse a package that lacks something, or brings libraries for another machine."""
    missing = [name for name in NEEDED if not (tree / name).exists()]
    if missing:
        raise Failure(f"the package lacks {', '.join(missing)}")
    if not _fits(tree, architecture):
        raise Failure(f"the package has libraries that are not for {architecture}")


def _fits(tree: Path, architecture: str) -> bool:
    heads = (path.read_bytes()[:20] for path in _files(tree) if ".so" in path.suffixes)
    return all(struct.unpack_from("<H", head, 18)[0] == MACHINES[architecture] for head in heads)


def _files(tree: Path) -> Iterator[Path]:
    yield from sorted(path for path in tree.rglob("*") if path.is_file())


def main(arguments: Sequence[str] | None = None) -> int:
    """Pack as told on the command line."""
    parser = argparse.ArgumentParser(prog="python -m infra.package", description=__doc__)
    parser.add_argument("out", metavar="OUT", type=Path, help="folder for the zip and the template")
    parser.add_argument("--stage", default="dev")
    parser.add_argument("--architecture", default="x86_64", choices=tuple(MACHINES))
    chosen = parser.parse_args(arguments)
    try:
        archive = build(chosen.out, stage=chosen.stage, architecture=chosen.architecture)
    except Failure as failure:
        return output.complain(failure)
    size = archive.stat().st_size / 1_000_000
    print(f"{archive}: {size:.1f} MB for {runtime()} on {chosen.architecture}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
