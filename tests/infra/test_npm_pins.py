"""What comes from npm is named exactly, with its hash, and without saying from where."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[2]
FOLDERS = ("tests", "tools/bench/npm")


def read(folder: str, name: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((ROOT / folder / name).read_text("utf-8"))
    return found


@pytest.mark.parametrize("folder", FOLDERS)
def test_every_package_is_asked_for_in_one_version(folder: str) -> None:
    asked = read(folder, "package.json")["devDependencies"]

    assert asked
    assert [name for name, version in asked.items() if not re.fullmatch(r"[\d.]+", version)] == []
    assert read(folder, "package-lock.json")["packages"][""]["devDependencies"] == asked


@pytest.mark.parametrize("folder", FOLDERS)
def test_the_lock_has_every_hash_and_names_no_registry(folder: str) -> None:
    packages = read(folder, "package-lock.json")["packages"]
    locked = {name: package for name, package in packages.items() if name}

    assert locked
    assert [name for name, package in locked.items() if "integrity" not in package] == []
    assert [name for name, package in locked.items() if "resolved" in package] == []


def test_the_library_for_pages_has_no_packages() -> None:
    assert not (ROOT / "web" / "muster" / "package-lock.json").exists()
