"""Virtual time: an event loop whose clock jumps to the next timer when nothing else is left."""

from __future__ import annotations

import asyncio
import random
import selectors
from collections.abc import Coroutine
from typing import Any, TypeVar

from muster.backoff import Rim

START = 1_800_000_000.0

_T = TypeVar("_T")


class _Selector(selectors.DefaultSelector):
    """Waits for nothing: moves the clock instead."""

    skipped = 0.0
    most = 10_000.0  # no scene is longer; one that waits for ever fails

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        if timeout is None:
            raise AssertionError("everybody waits, and no timer will wake anybody")
        self.skipped += max(timeout, 0.0)
        if self.skipped > self.most:
            self.most = float("inf")
            raise AssertionError("the scene waits for something that does not come")
        return super().select(0)


class VirtualLoop(asyncio.SelectorEventLoop):
    """An event loop in which a minute takes no time."""

    def __init__(self) -> None:
        self._virtual = _Selector()
        super().__init__(self._virtual)

    def time(self) -> float:
        return self._virtual.skipped


def run(main: Coroutine[Any, Any, _T]) -> _T:
    """Run a test in virtual time."""
    with asyncio.Runner(loop_factory=VirtualLoop) as runner:
        return runner.run(main)


def now() -> float:
    """Read the virtual clock."""
    return START + asyncio.get_running_loop().time()


def rim(*, seed: int = 1, skew_s: float = 0.0, chance: float | None = None) -> Rim:
    """Return a rim on virtual time, with seeded chance or always the same."""
    source = random.Random(seed)
    return Rim(
        now=lambda: now() + skew_s,
        sleep=asyncio.sleep,
        chance=source.random if chance is None else lambda: chance,
        entropy=source.randbytes,
    )
