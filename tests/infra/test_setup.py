"""Set-up does again what changed, and no more: make itself says what it would do."""

import os
import shutil
import subprocess
from pathlib import Path

import pytest

from tests.support.local import ROOT

MADE = ("Makefile", "pyproject.toml", "requirements-dev.txt", "requirements-serve.txt")


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """A checkout in which everything was set up, as far as make can see."""
    for name in MADE:
        shutil.copy(ROOT / name, tmp_path / name)
    (tmp_path / ".venv").mkdir()
    for name in ("run", "test", "checkout"):
        (tmp_path / ".venv" / f".ready-{name}").touch()
    return tmp_path


def would(checkout: Path, goal: str) -> list[str]:
    """Return the steps of set-up that a goal would take."""
    command = ["make", "--dry-run", goal]
    done = subprocess.run(command, cwd=checkout, capture_output=True, text=True, check=True)
    return [line.split()[1] for line in done.stdout.splitlines() if line.startswith(".ci/setup ")]


@pytest.mark.parametrize("goal", ["run", "quick"])
def test_what_is_set_up_is_not_set_up_again(checkout: Path, goal: str) -> None:
    assert would(checkout, goal) == []


@pytest.mark.parametrize("goal", ["run", "quick"])
def test_a_change_of_pyproject_installs_the_checkout_again_and_no_pins(
    checkout: Path, goal: str
) -> None:
    newer(checkout, "pyproject.toml")

    assert would(checkout, goal) == ["checkout"]


def test_running_asks_for_the_pins_of_running_only(checkout: Path) -> None:
    newer(checkout, "requirements-dev.txt")

    assert would(checkout, "run") == []
    assert would(checkout, "quick") == ["test"]


def test_pins_come_before_the_checkout(tmp_path: Path) -> None:
    for name in MADE:
        shutil.copy(ROOT / name, tmp_path / name)

    assert would(tmp_path, "run") == ["run", "checkout"]
    assert would(tmp_path, "quick") == ["test", "checkout"]


def newer(checkout: Path, name: str) -> None:
    """Give a file a time after that of everything that was made from it."""
    made = (checkout / ".venv" / ".ready-checkout").stat().st_mtime
    os.utime(checkout / name, (made + 1, made + 1))
