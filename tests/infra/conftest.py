"""One package for all tests, and an emulated account for each that wants one."""

import sys
import zipfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from infra import archive, packing, stack
from infra.packing import Package
from infra.stack import Template
from muster.cli.output import Failure
from tests.support import account
from tests.support.account import Account


@pytest.fixture(scope="session")
def package(tmp_path_factory: pytest.TempPathFactory) -> Package:
    """What is uploaded, packed as `muster deploy` does, for a Lambda like this machine."""
    python = packing.find_python(sys.executable)
    target = tmp_path_factory.mktemp("packed")
    try:
        return packing.pack(target, python, architecture=archive.here())
    except Failure as failure:
        if "registry" in str(failure):
            pytest.skip(f"needs a package registry: {failure}")
        raise


@pytest.fixture(scope="session")
def tree(package: Package, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The zip as Lambda unpacks it."""
    unpacked = tmp_path_factory.mktemp("task")
    with zipfile.ZipFile(package.archive) as opened:
        opened.extractall(unpacked)
    return unpacked


@pytest.fixture(scope="session")
def template(package: Package) -> Template:
    """The whole template."""
    return stack.assemble(package.template)


@pytest.fixture
def emulated(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Account]:
    """An empty account, to which the environment leads."""
    with account.running() as opened:
        for name, value in account.environment(opened).items():
            monkeypatch.setenv(name, value)
        monkeypatch.delenv("AWS_SESSION_TOKEN", raising=False)
        monkeypatch.delenv("AWS_PROFILE", raising=False)
        monkeypatch.setenv("MUSTER_HOME", str(tmp_path / "home"))
        yield opened
