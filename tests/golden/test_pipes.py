"""The golden file of pipes: both languages read the same messages, and refuse the same."""

import asyncio
import json
from pathlib import Path
from typing import Any

import pytest

from capsules.errors import Refused
from muster.circle.links import Link
from muster.circle.pipes import Header, Pipes, read_datagram
from tests.golden import make_pipes
from tests.golden.make_capsules import render

GOLDEN: dict[str, Any] = json.loads(make_pipes.FILE.read_text("utf-8"))


def test_the_file_is_what_the_code_makes(rewrite_golden: bool) -> None:
    made = render(make_pipes.made())
    if rewrite_golden:
        make_pipes.FILE.write_text(made, encoding="utf-8")

    assert make_pipes.FILE.read_text("utf-8") == made


@pytest.mark.parametrize("case", GOLDEN["begins"], ids=lambda case: case["name"])
def test_a_beginning_is_read_or_refused(case: dict[str, Any]) -> None:
    rest = bytes.fromhex(case["rest"])
    if case["expect"] != "ok":
        with pytest.raises(Refused) as refusal:
            Header.read(rest)
        assert refusal.value.reason == case["expect"]
        return
    header, data = Header.read(rest)
    assert (header.pipe, header.form, header.size) == tuple(
        case["header"][name] for name in ("pipe", "as", "size")
    )
    assert (header.name, header.type) == (case["header"].get("name"), case["header"].get("type"))
    assert data.hex() == case["data"]


@pytest.mark.parametrize("case", GOLDEN["datagrams"], ids=lambda case: case["name"])
def test_a_datagram_is_read_or_refused(case: dict[str, Any]) -> None:
    if case["expect"] != "ok":
        with pytest.raises(Refused):
            read_datagram(bytes.fromhex(case["raw"]))
        return
    found = read_datagram(bytes.fromhex(case["raw"]))
    data = found.data.hex() if isinstance(found.data, bytes) else found.data
    assert (found.pipe, found.form, data) == (case["pipe"], case["as"], case["data"])


class Told(Link):
    """A link that keeps what is sent, and from which nothing comes."""

    def __init__(self) -> None:
        super().__init__(bytes(16), bytes(16))
        self.sent: list[bytes] = []

    async def send(self, data: bytes) -> None:
        self.sent.append(data)


def is_a_programs(case: dict[str, Any]) -> bool:
    """Whether a program can send it: a file of a program has a name, and it says no type of it."""
    return case["as"] != "file" or ("name" in case and "type" not in case)


@pytest.mark.parametrize(
    "case",
    [case for case in GOLDEN["sent"] if is_a_programs(case)],
    ids=lambda case: f"{case['as']} {len(case['data'])}",
)
def test_a_message_goes_in_these_pieces(case: dict[str, Any], tmp_path: Path) -> None:
    raw = bytes.fromhex(case["data"])
    data: Any = raw
    if case["as"] == "json":
        data = json.loads(raw)
    elif case["as"] == "text":
        data = raw.decode()
    elif case["as"] == "file":
        data = tmp_path / case["name"]
        data.write_bytes(raw)

    async def scene() -> list[bytes]:
        link = Told()
        async with Pipes(link) as pipes:
            await pipes.send(case["pipe"], data)
        link.abort()
        return link.sent

    assert [piece.hex() for piece in asyncio.run(scene())] == case["pieces"]
