"""What `npm pack` makes of the browser library: somebody installs it, imports and compiles."""

from __future__ import annotations

import json
import shutil
import subprocess
import tarfile
from pathlib import Path
from typing import Any

import pytest

import muster
from tests.support import node

ROOT = Path(__file__).parents[2]
LIBRARY = ROOT / "web" / "muster"
COMPILER = ROOT / "tests" / "node_modules" / "typescript" / "bin" / "tsc"
ASIDE = {"package.json", "README.md", "LICENSE"}

APPS = Path(__file__).parent / "installed"


def npm(*arguments: str | Path, cwd: Path) -> str:
    done = subprocess.run(
        node.npm(*arguments, "--loglevel=error"),
        cwd=cwd,
        env=node.environment(),
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def packed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("packed")
    npm("pack", "--pack-destination", folder, cwd=LIBRARY)
    (found,) = folder.glob("*.tgz")
    return found


@pytest.fixture(scope="module")
def app(packed: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An empty folder in which somebody has installed the package, from the file alone."""
    folder = tmp_path_factory.mktemp("app")
    (folder / "package.json").write_text('{ "private": true, "type": "module" }')
    npm("install", "--offline", "--no-audit", "--no-fund", packed, cwd=folder)
    for path in APPS.iterdir():
        shutil.copy(path, folder)
    return folder


def manifest() -> dict[str, Any]:
    found: dict[str, Any] = json.loads((LIBRARY / "package.json").read_text("utf-8"))
    return found


def sources() -> set[str]:
    return {
        path.relative_to(LIBRARY).as_posix()
        for path in LIBRARY.rglob("*.js")
        if "types" not in path.relative_to(LIBRARY).parts
    }


def test_its_version_is_the_projects() -> None:
    assert manifest()["version"] == muster.__version__


def test_it_needs_nothing_at_run_time() -> None:
    assert not {"dependencies", "peerDependencies", "optionalDependencies"} & set(manifest())


def test_it_holds_the_sources_their_types_and_nothing_else(packed: Path) -> None:
    with tarfile.open(packed) as archive:
        held = {name.removeprefix("package/") for name in archive.getnames()}

    types = {f"types/{name.removesuffix('.js')}.d.ts" for name in sources()}
    assert held == ASIDE | sources() | types


def test_packing_leaves_nothing_beside_the_sources(packed: Path) -> None:
    assert not (LIBRARY / "types").exists()
    assert not (LIBRARY / "LICENSE").exists()


def test_every_way_in_is_there(app: Path) -> None:
    installed = app / "node_modules" / manifest()["name"]
    for way in manifest()["exports"].values():
        for path in way.values() if isinstance(way, dict) else [way]:
            assert (installed / path).is_file(), path


def test_node_imports_it(app: Path) -> None:
    done = subprocess.run(
        [node.executable(), "app.js"], cwd=app, capture_output=True, text=True, check=False
    )

    assert done.returncode == 0, done.stderr
    assert done.stdout == '["function","function","function"] true\n'


@pytest.mark.parametrize("resolution", ["bundler", "nodenext"])
def test_strict_typescript_compiles_against_it(app: Path, resolution: str) -> None:
    module = "esnext" if resolution == "bundler" else resolution
    done = subprocess.run(
        [
            *(node.executable(), COMPILER, "--strict", "--noEmit", "--target", "es2022"),
            *("--module", module, "--moduleResolution", resolution, "app.ts"),
        ],
        cwd=app,
        capture_output=True,
        text=True,
        check=False,
    )

    assert done.returncode == 0, done.stdout
