"""One service for all tests of the command, and homes for those who use it."""

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.cli.terminal import Terminal, serving


@pytest.fixture(scope="session")
def base(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Where the service listens."""
    with serving(tmp_path_factory.mktemp("service")) as url:
        yield url


@pytest.fixture
def terminal(tmp_path: Path, base: str) -> Callable[[str], Terminal]:
    """Open a terminal with a home of that name."""
    return lambda name: Terminal(tmp_path / name, base)


@pytest.fixture
def one(terminal: Callable[[str], Terminal]) -> Terminal:
    """A terminal with a circle."""
    opened = terminal("one")
    opened.run("circle", "new", "--felund")
    return opened


@pytest.fixture
def two(terminal: Callable[[str], Terminal], one: Terminal) -> Terminal:
    """A terminal in the same circle."""
    opened = terminal("two")
    code = one.run("circle", "invite").stdout
    opened.run("circle", "join", "-", says=code)
    return opened
