from __future__ import annotations

import asyncio

import pytest
from hypothesis import given
from hypothesis import strategies as st

from muster.backoff import Backoff, within
from tests.client import virtual


@pytest.mark.parametrize(
    ("failures", "ceiling"), [(0, 0.25), (1, 0.5), (2, 1.0), (5, 8.0), (6, 10.0), (10_000, 10.0)]
)
def test_the_wait_doubles_up_to_a_bound(failures: int, ceiling: float) -> None:
    assert Backoff().delay(failures, chance=1.0) == ceiling
    assert Backoff().delay(failures, chance=0.0) == 0.0
    assert Backoff().delay(failures, chance=0.5) == ceiling / 2


@given(st.integers(0, 100), st.floats(0, 1), st.floats(0, 30))
def test_nobody_comes_back_before_the_service_said(
    failures: int, chance: float, retry_after_s: float
) -> None:
    wait_s = Backoff().delay(failures, chance=chance, retry_after_s=retry_after_s)

    assert retry_after_s <= wait_s <= retry_after_s + Backoff().longest_s


def test_tries_are_counted() -> None:
    assert [Backoff(attempts=3).again(tried) for tried in (1, 2, 3, 4)] == [
        True,
        True,
        False,
        False,
    ]


def test_a_wait_beyond_patience_is_not_waited() -> None:
    assert Backoff(patience_s=30).again(1, retry_after_s=30)
    assert not Backoff(patience_s=30).again(1, retry_after_s=31)


def test_work_is_waited_for_only_so_long() -> None:
    async def main() -> None:
        rim = virtual.rim()
        assert await within(asyncio.sleep(1), 2, rim)
        assert virtual.now() == virtual.START + 1
        assert not await within(asyncio.sleep(60), 2, rim)
        assert virtual.now() == virtual.START + 3

    virtual.run(main())


def test_what_breaks_in_time_is_raised() -> None:
    async def broken() -> None:
        raise ZeroDivisionError

    async def main() -> None:
        with pytest.raises(ZeroDivisionError):
            await within(broken(), 2, virtual.rim())

    virtual.run(main())
