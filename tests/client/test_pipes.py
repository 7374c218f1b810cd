"""Pipes between two programs: every form, a file, and what a hostile member sends."""

from __future__ import annotations

import asyncio
import hashlib
import os
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from muster.circle import Circle
from muster.circle.links import Link
from muster.circle.pipes import (
    MOST_OPEN,
    Coming,
    Cut,
    Header,
    Kind,
    Limits,
    Message,
    Pipes,
    Stopped,
    Why,
    piece,
)
from muster.exchange import Closed
from tests.client.test_circle_links import linked
from tests.support import local
from tests.support.members2 import address, joined, play, present


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[local.Server]:
    with local.running(tmp_path_factory.mktemp("service")) as found:
        yield found


@asynccontextmanager
async def links(server: local.Server) -> AsyncIterator[tuple[Link, Link]]:
    ann = Circle.new(services=[address(server.base)])
    bob = joined(ann)
    async with present(ann, "Ann") as hers, present(bob, "Bob") as his:
        yield await linked(hers, his)


async def _read(pipes: Pipes, count: int) -> list[Message]:
    return [await anext(pipes) for _ in range(count)]


def test_json_text_and_bytes_come_as_they_were_sent_both_ways(server: local.Server) -> None:
    async def scene() -> None:
        async with links(server) as (one, two), Pipes(one) as hers, Pipes(two) as his:
            large = os.urandom(200_000)
            sends = [
                hers.send("a", {"deep": [1, None, 0.5, "é"]}),
                hers.send("b", "né" * 40_000),
                hers.send("c", large),
                hers.send("d", b""),
                his.send("e", [True]),
            ]
            await asyncio.gather(*sends)
            found = {one.pipe: one.data for one in await _read(his, 4)}
            assert found == {
                "a": {"deep": [1, None, 0.5, "é"]},
                "b": "né" * 40_000,
                "c": large,
                "d": b"",
            }
            assert await anext(hers) == Message("e", [True], "json")
            await hers.send("cursor", [1], reliable=False)
            assert await anext(his) == Message("cursor", [1], "json")
            await one.aclose()
            with pytest.raises(StopAsyncIteration):
                await asyncio.wait_for(anext(his), 10)
            with pytest.raises(Closed):
                await his.send("x", 1)

    play(scene())


def test_a_file_of_5_mb_comes_whole_and_a_message_passes_it(
    server: local.Server, tmp_path: Path
) -> None:
    async def scene() -> None:
        file = tmp_path / "holiday.bin"
        file.write_bytes(os.urandom(5_000_000))
        told: list[tuple[int, int]] = []
        begun = asyncio.Event()

        def tell(sent: int, size: int) -> None:
            told.append((sent, size))
            begun.set()

        async with links(server) as (one, two), Pipes(one) as hers, Pipes(two) as his:
            sending = asyncio.create_task(hers.send("files", file, progress=tell))
            await begun.wait()
            await hers.send("chat", "meanwhile")
            first, second = await _read(his, 2)
            await sending
            assert (first.pipe, second.pipe) == ("chat", "files")
            assert (second.name, second.form) == ("holiday.bin", "file")
            assert told[-1] == (5_000_000, 5_000_000)
            assert isinstance(second.data, Path)
            assert _hash(second.data) == _hash(file)
            where = second.data
        assert not where.exists()

    play(scene())


def _hash(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def test_what_is_too_large_is_stopped_and_the_next_one_comes(
    server: local.Server, tmp_path: Path
) -> None:
    async def scene() -> None:
        file = tmp_path / "large"
        file.write_bytes(bytes(3_000_000))
        limits = Limits(memory=1000, file=2_999_999)
        async with (
            links(server) as (one, two),
            Pipes(one) as hers,
            Pipes(two, limits=limits) as his,
        ):
            with pytest.raises(Stopped, match="TOO_LARGE"):
                await hers.send("x", file)
            with pytest.raises(Stopped):
                await hers.send("x", bytes(6_000_000))
            file.write_bytes(bytes(2_999_999))
            await hers.send("x", file)
            assert (await anext(his)).data.stat().st_size == 2_999_999

    play(scene())


def test_what_was_cut_off_does_not_come(server: local.Server, tmp_path: Path) -> None:
    async def scene() -> None:
        file = tmp_path / "large"
        file.write_bytes(bytes(9_000_000))
        async with links(server) as (one, two), Pipes(one) as hers, Pipes(two) as his:

            def cut() -> None:
                sending.cancel()

            sending = asyncio.create_task(hers.send("x", file, progress=lambda *_: cut()))
            with pytest.raises(asyncio.CancelledError):
                await sending
            await hers.send("x", "after")
            assert (await anext(his)).data == "after"
            assert not list(Path(his._directory.name).iterdir())

    play(scene())


def test_what_cannot_be_sent_is_said(server: local.Server, tmp_path: Path) -> None:
    async def scene() -> None:
        async with links(server) as (one, _), Pipes(one) as pipes:
            for name, data in (("", 1), ("a\n", 1), ("x", float("nan")), ("x", "\ud800")):
                with pytest.raises(ValueError, match=r"."):
                    await pipes.send(name, data)
            with pytest.raises(TypeError):
                await pipes.send("x", object())
            with pytest.raises(OSError, match="nothing"):
                await pipes.send("x", tmp_path / "nothing")
            with pytest.raises(ValueError, match="datagram"):
                await pipes.send("x", bytes(16_000), reliable=False)

    play(scene())


# --- hostile pieces ---------------------------------------------------------------------------


def _begin(number: int, **header: Any) -> bytes:
    return piece(Kind.BEGIN, number, Header("x", **header).raw)


def test_a_hostile_member_s_pieces_end_their_message_and_nothing_else(
    server: local.Server,
) -> None:
    async def scene() -> None:
        async with links(server) as (one, two), Pipes(two) as his:
            for raw in (
                b"\x01",
                bytes(5),
                b"\x05\xff",
                _begin(1, form="file", size=10**15),
                _begin(2, form="bytes", size=2**40),
                piece(Kind.BEGIN, 3, b"\xff\xff{"),
                piece(Kind.BEGIN, 4, b'\x00\x02{"'),
                _begin(5, form="json", size=1) + b"{",
                _begin(6, form="text", size=1) + b"\xff",
                _begin(7, form="bytes", size=1) + b"ab",
                piece(Kind.STOP, 9),
                piece(Kind.MORE, 9, b"x"),
            ):
                await one.send(raw)
            answers = [await anext(one) for _ in range(7)]
            assert {raw[0] for raw in answers} == {Kind.STOP}
            assert [raw[4] for raw in answers] == [1, 2, 3, 4, 5, 6, 7]
            for number in range(1000):
                await one.send(_begin(number, form="file", size=2))
            for _ in range(1000 - MOST_OPEN):
                assert (await anext(one))[5] == Why.TOO_MANY
            await one.send(piece(Kind.MORE, 0, b"ab"))
            assert (await anext(his)).data.read_bytes() == b"ab"

    play(scene())


@given(
    st.lists(
        st.tuples(
            st.integers(0, 6),
            st.integers(0, 3),
            st.one_of(
                st.binary(max_size=40),
                st.builds(
                    lambda form, size, rest: Header("x", form, size).raw + rest,
                    st.sampled_from(["json", "text", "bytes", "file"]),
                    st.sampled_from([0, 1, 5, 1000, 10**15]),
                    st.binary(max_size=8),
                ),
            ),
        ),
        max_size=60,
    )
)
@settings(max_examples=300, deadline=None)
def test_any_pieces_are_taken_or_cut_and_leave_nothing_behind(
    tmp_path_factory: pytest.TempPathFactory, pieces: list[tuple[int, int, bytes]]
) -> None:
    folder = tmp_path_factory.mktemp("files")
    coming = Coming(folder, Limits(memory=500, file=500))
    for kind, number, rest in pieces:
        try:
            found = coming.take(kind, number, rest)
        except Cut:
            continue
        if found is not None and isinstance(found.data, Path):
            found.data.unlink()
    coming.end_all()
    assert (coming._held, coming._files, list(folder.iterdir())) == (0, 0, [])
