"""What pipes.json has: pieces of messages (docs/pipes.md), read and written in two languages.

`make golden` writes it. `begins` and `datagrams` are read or refused; `streams` are pieces in the
order in which they come over a link, the messages that come of them and the pieces that are
answered; `sent` are messages and the pieces that they go in.
"""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

from capsules import canonical
from capsules.errors import Refused
from muster.circle.pipes import Coming, Cut, Header, Kind, Limits, Message, piece, read_datagram
from muster.frames import PAYLOAD_BYTES

FILE = Path(__file__).with_name("pipes.json")
LIMITS = Limits(memory=100_000, file=200_000)


def _head(data: Any, rest: bytes = b"") -> bytes:
    raw = data if isinstance(data, bytes) else canonical.strict(data)
    return len(raw).to_bytes(2, "big") + raw + rest


def _said(**more: Any) -> dict[str, Any]:
    return {"pipe": "files", "as": "bytes", "size": 3, **more}


BEGINS: dict[str, bytes] = {
    "bytes": _head(_said(), b"abc"),
    "nothing of them yet": _head(_said(size=2**53 - 1)),
    "json": _head(_said(**{"as": "json"}), b"[1]"),
    "an empty text": _head(_said(**{"as": "text", "size": 0})),
    "a file": _head(_said(**{"as": "file", "name": "été.txt", "type": "text/plain"}), b"abc"),
    "a file without a name": _head(_said(**{"as": "file"}), b"abc"),
    "what a reader does not know is ignored": _head(_said(later=[1]), b"abc"),
    "a name counts for files alone": _head(_said(name="../x"), b"abc"),
    "a pipe of 64 bytes": _head(_said(pipe="ü" * 32), b"abc"),
    "a pipe of 66 bytes": _head(_said(pipe="ü" * 33)),
    "no pipe": _head({"as": "bytes", "size": 3}),
    "a pipe without a name": _head(_said(pipe="")),
    "a pipe with a line feed": _head(_said(pipe="a\nb")),
    "a pipe with DEL": _head(_said(pipe="a\x7f")),
    "a pipe that is a number": _head(_said(pipe=5)),
    "an unknown form": _head(_said(**{"as": "video"})),
    "no form": _head({"pipe": "x", "size": 3}),
    "no size": _head({"pipe": "x", "as": "bytes"}),
    "less than nothing": _head(_said(size=-1)),
    "a size beyond 2^53": _head(b'{"as":"bytes","pipe":"x","size":9007199254740992}'),
    "a size in text": _head(_said(size="3")),
    "half a byte": _head(b'{"as":"bytes","pipe":"x","size":0.5}'),
    "a size that is spelled otherwise": _head(b'{"as":"bytes","pipe":"x","size":3.0}'),
    "a space": _head(b'{"as":"bytes", "pipe":"x","size":3}'),
    "another order": _head(b'{"pipe":"x","as":"bytes","size":3}'),
    "the same key twice": _head(b'{"as":"bytes","as":"text","pipe":"x","size":3}'),
    "half a surrogate pair": _head(b'{"as":"bytes","pipe":"\\ud800","size":3}'),
    "no UTF-8": _head(b'{"as":"bytes","pipe":"\xff","size":3}'),
    "an array": _head([1]),
    "no JSON": _head(b"{"),
    "33 levels": _head(
        b'{"as":"bytes","later":' + b"[" * 32 + b"]" * 32 + b',"pipe":"x","size":3}'
    ),
    "a file in another folder": _head(_said(**{"as": "file", "name": "../x"})),
    "a file of another system's folder": _head(_said(**{"as": "file", "name": "a\\b"})),
    "a file that is a folder": _head(_said(**{"as": "file", "name": ".."})),
    "a file with an empty name": _head(_said(**{"as": "file", "name": ""})),
    "a file with a control": _head(_said(**{"as": "file", "name": "a\x00"})),
    "a file with a name of 256 bytes": _head(_said(**{"as": "file", "name": "x" * 256})),
    "a file with a type of 128 bytes": _head(_said(**{"as": "file", "type": "x" * 128})),
    "a file with a type that is none": _head(_said(**{"as": "file", "type": None})),
    "a header of 1,024 bytes": _head(
        _said(later="x" * (1024 - len(canonical.strict(_said(later="")))))
    ),
    "a header of more": _head(_said(later="x" * (1025 - len(canonical.strict(_said(later="")))))),
    "a header that is cut": _head(_said())[:-1],
    "half a length": b"\x00",
    "nothing": b"",
}

DATAGRAMS: dict[str, bytes] = {
    "json": b"\x06cursor\x00[1,2.5]",
    "text": "\x06cursor\x01é".encode(),
    "bytes": b"\x06cursor\x02\x00\xff",
    "no bytes": b"\x06cursor\x02",
    "a file": b"\x06cursor\x03abc",
    "an unknown form": b"\x06cursor\x04abc",
    "a name that is cut": b"\x06cur",
    "a name and no form": b"\x06cursor",
    "no name": b"\x00\x02abc",
    "a name with a control": b"\x02a\x0a\x02abc",
    "a name of 65 bytes": b"\x41" + b"x" * 65 + b"\x02",
    "no JSON": b"\x06cursor\x00[1",
    "JSON of 33 levels": b"\x06cursor\x00" + b"[" * 33 + b"]" * 33,
    "no UTF-8": b"\x06cursor\x01\xff",
    "nothing": b"",
}


def _begin(number: int, form: str, size: int, data: bytes = b"", **more: Any) -> bytes:
    return piece(Kind.BEGIN, number, _head({"pipe": "x", "as": form, "size": size, **more}, data))


def _more(number: int, data: bytes) -> bytes:
    return piece(Kind.MORE, number, data)


STREAMS: dict[str, list[bytes]] = {
    "a message in one piece": [_begin(1, "text", 2, b"hi")],
    "a message of nothing": [_begin(1, "bytes", 0)],
    "two in turns": [
        _begin(1, "text", 4, b"ab"),
        _begin(2, "json", 3, b"[1"),
        _more(1, b"c"),
        _more(2, b"]"),
        _more(1, b"d"),
    ],
    "a small one passes a large one": [
        _begin(1, "bytes", 4, b"ab"),
        _begin(2, "text", 5, b"small"),
        _more(1, b"cd"),
    ],
    "a file": [_begin(1, "file", 4, b"ab", name="a.bin", type="x/y"), _more(1, b"cd")],
    "an empty file without a name": [_begin(1, "file", 0)],
    "a character over two pieces": [_begin(1, "text", 2, b"\xc3"), _more(1, b"\xa9")],
    "more than it said": [_begin(1, "bytes", 2, b"a"), _more(1, b"bc"), _begin(2, "text", 1, b"y")],
    "more than it said at once": [_begin(1, "file", 2, b"abc")],
    "cancelled": [_begin(1, "bytes", 2, b"a"), piece(Kind.CANCEL, 1), _more(1, b"b")],
    "cancelled before it began": [piece(Kind.CANCEL, 9), _begin(9, "text", 1, b"x")],
    "begun twice": [_begin(1, "bytes", 2, b"a"), _begin(1, "bytes", 2, b"a"), _more(1, b"b")],
    "a number is used again when it has ended": [
        _begin(1, "text", 1, b"a"),
        _begin(1, "text", 1, b"b"),
    ],
    "pieces of what never began": [_more(7, b"x"), piece(Kind.STOP, 7, b"\x00")],
    "too large for memory": [_begin(1, "text", 100_001), _more(1, b"x")],
    "as large as may be": [_begin(1, "bytes", 100_000)],
    "10^15 bytes": [_begin(1, "file", 10**15)],
    "files that are too large together": [
        _begin(1, "file", 150_000),
        _begin(2, "file", 50_001),
        _begin(3, "file", 50_000),
    ],
    "a file of before is not counted": [
        _begin(1, "file", 150_000),
        piece(Kind.CANCEL, 1),
        _begin(2, "file", 200_000),
    ],
    "65 at a time": [_begin(number, "bytes", 2, b"a") for number in range(65)]
    + [_more(0, b"b"), _begin(99, "text", 1, b"z")],
    "no JSON": [_begin(1, "json", 2, b"[1")],
    "no UTF-8": [_begin(1, "text", 2, b"\xff\xff")],
    "a header of nothing": [piece(Kind.BEGIN, 1, b"\x00\x00")],
    "pieces that are cut": [b"", b"\x01", b"\x01\x00\x00\x00", _begin(1, "text", 1, b"x")],
    "an unknown kind": [piece(9, 1, b"x"), _begin(1, "text", 1, b"x")],  # type: ignore[arg-type]
    "datagrams": [b"\x05\x06cursor\x00[1]", b"\x05", b"\x05\x01x\x02ab"],
}

SENT: list[tuple[str, str, bytes, str | None, str | None]] = [
    ("json", "chat", b'{"a":[1,2]}', None, None),
    ("text", "chat", "né".encode(), None, None),
    ("bytes", "chat", bytes(range(256)) * 65, None, None),
    ("file", "files", b"x" * 16_100, "a.txt", "text/plain"),
    ("file", "files", b"", None, None),
]


def _message(message: Message) -> dict[str, Any]:
    data = message.data
    if isinstance(data, Path):
        data = data.read_bytes()
    found = {"pipe": message.pipe, "as": message.form}
    found["data"] = data.hex() if isinstance(data, bytes) else data
    if message.name is not None:
        found["name"] = message.name
    if message.type is not None:
        found["type"] = message.type
    return found


def read(pieces: list[bytes]) -> dict[str, Any]:
    """Read what comes over a link: the messages, and the pieces that are answered."""
    messages, answers = [], []
    with tempfile.TemporaryDirectory() as folder:
        coming = Coming(Path(folder), LIMITS)
        for raw in pieces:
            if raw[:1] == bytes([Kind.DATAGRAM]):
                try:
                    messages.append(_message(read_datagram(raw[1:])))
                except Refused:
                    continue
            elif len(raw) >= 5:
                number = int.from_bytes(raw[1:5], "big")
                try:
                    found = coming.take(raw[0], number, raw[5:])
                except Cut as cut:
                    answers.append(piece(Kind.STOP, number, bytes([cut.why])).hex())
                else:
                    messages += [_message(found)] if found else []
        coming.end_all()
    return {"messages": messages, "answers": answers}


def sent(form: Any, pipe: str, data: bytes, name: str | None, mime: str | None) -> list[str]:
    """Return the pieces of a message that goes alone, the first of its link."""
    head = Header(pipe, form, len(data), name, mime).raw
    first = PAYLOAD_BYTES - 5 - len(head)
    pieces = [piece(Kind.BEGIN, 1, head, data[:first])]
    for at in range(first, len(data), PAYLOAD_BYTES - 5):
        pieces.append(piece(Kind.MORE, 1, data[at : at + PAYLOAD_BYTES - 5]))
    return [raw.hex() for raw in pieces]


def _begin_case(name: str, rest: bytes) -> dict[str, Any]:
    case: dict[str, Any] = {"name": name, "rest": rest.hex()}
    try:
        header, data = Header.read(rest)
    except Refused as refusal:
        return {**case, "expect": refusal.reason.value}
    found: dict[str, Any] = {"pipe": header.pipe, "as": header.form, "size": header.size}
    if header.name is not None:
        found["name"] = header.name
    if header.type is not None:
        found["type"] = header.type
    return {**case, "expect": "ok", "header": found, "data": data.hex()}


def _datagram_case(name: str, raw: bytes) -> dict[str, Any]:
    case: dict[str, Any] = {"name": name, "raw": raw.hex()}
    try:
        found = _message(read_datagram(raw))
    except Refused as refusal:
        return {**case, "expect": refusal.reason.value}
    return {**case, "expect": "ok", "pipe": found["pipe"], "as": found["as"], "data": found["data"]}


def made() -> dict[str, Any]:
    """Return all that the file has."""
    return {
        "limits": {"memory": LIMITS.memory, "file": LIMITS.file},
        "begins": [_begin_case(name, rest) for name, rest in BEGINS.items()],
        "datagrams": [_datagram_case(name, raw) for name, raw in DATAGRAMS.items()],
        "streams": [
            {"name": name, "pieces": [raw.hex() for raw in pieces], **read(pieces)}
            for name, pieces in STREAMS.items()
        ],
        "sent": [
            {
                "pipe": pipe,
                "as": form,
                "data": data.hex(),
                **({} if name is None else {"name": name}),
                **({} if mime is None else {"type": mime}),
                "pieces": sent(form, pipe, data, name, mime),
            }
            for form, pipe, data, name, mime in SENT
        ],
    }
