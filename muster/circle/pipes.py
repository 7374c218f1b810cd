"""Pipes: named messages of any size over a link, several at a time (docs/pipes.md).

Pages speak them too (`web/muster/pipes.js`): a program and a page exchange files.

    async with Pipes(await here.link(peer)) as pipes:
        await pipes.send("files", Path("holiday.jpg"), progress=print)
        async for message in pipes: ...

Messages go in pieces and in turns, so that a large one does not hold up a small one. What the
other side sends is bounded, whatever it promises.
"""

from __future__ import annotations

import asyncio
import json
import re
import tempfile
from collections import deque
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from enum import IntEnum
from pathlib import Path
from typing import IO, Any, Literal, Self

from capsules import canonical, fields
from capsules.errors import Reason, Refused
from muster.circle.links import Link
from muster.errors import Hinted
from muster.exchange import Closed
from muster.frames import PAYLOAD_BYTES

MOST_HEADER = 1024
MOST_OPEN = 64
"""How many messages the other side may have begun at a time."""

MOST_TURNS = 32
"""How many large messages go out at a time; others wait for their turn."""

MOST_HELD = 64 << 20
"""How much of messages that are not whole yet is kept in memory."""

MOST_COME = 256
"""How many messages wait to be read; then the other side is made to wait."""

MOST_WAITING = 8
"""While more frames than these wait, datagrams are dropped."""

As = Literal["json", "text", "bytes", "file"]
FORMS: tuple[As, ...] = ("json", "text", "bytes", "file")
_HEAD = 5
_CONTROL = re.compile(r"[\0-\x1f\x7f]")
_NO_FILE = re.compile(r"[\0-\x1f\x7f/\\]|^\.{0,2}$")
_UNSUITED = re.compile("[\\0-\\x1f\\x7f/\\\\\ud800-\udfff]")


class Kind(IntEnum):
    """What a piece is for."""

    BEGIN = 1
    MORE = 2
    CANCEL = 3
    STOP = 4
    DATAGRAM = 5


class Why(IntEnum):
    """Why the receiver wants no more of a message."""

    MALFORMED = 0
    TOO_LARGE = 1
    TOO_MANY = 2


class Stopped(Hinted):
    """The other side wants no more of a message; `why` says why."""

    def __init__(self, why: Why) -> None:
        super().__init__(f"the other side took no more of it: {why.name}")
        self.why = why


class Cut(Exception):
    """What the other side sends cannot be taken, and why."""

    def __init__(self, why: Why) -> None:
        super().__init__(why.name)
        self.why = why


@dataclass(frozen=True, slots=True)
class Header:
    """What begins a message: its pipe, its form and how many bytes it has in all."""

    pipe: str
    form: As
    size: int
    name: str | None = None
    type: str | None = None

    @classmethod
    def read(cls, rest: bytes) -> tuple[Self, bytes]:
        """Read it, and return the message's first bytes after it; raises `Refused`."""
        end = 2 + int.from_bytes(rest[:2], "big")
        if len(rest) < 2 or not end <= min(len(rest), 2 + MOST_HEADER):
            raise fields.malformed("the header of a message is cut, or too long")
        data = fields.members(canonical.read_strict(rest[2:end]), "a header")
        form: As | None = next((one for one in FORMS if one == data.get("as")), None)
        if form is None:
            raise fields.malformed("a message is json, text, bytes or a file")
        pipe = _clean(data, "pipe", least=1, most=64, bad=_CONTROL)
        size = fields.integer(data, "size")
        name = mime = None
        if form == "file" and "name" in data:
            name = _clean(data, "name", least=1, most=255, bad=_NO_FILE)
        if form == "file" and "type" in data:
            mime = _clean(data, "type", least=0, most=127, bad=_CONTROL)
        return cls(pipe, form, size, name, mime), rest[end:]

    @property
    def raw(self) -> bytes:
        """The bytes of it, after their length."""
        data: dict[str, Any] = {"pipe": self.pipe, "as": self.form, "size": self.size}
        if self.name is not None:
            data["name"] = self.name
        if self.type is not None:
            data["type"] = self.type
        raw = canonical.strict(data)
        return len(raw).to_bytes(2, "big") + raw


@dataclass(frozen=True, slots=True)
class Limits:
    """How much of a message may come: in memory, and as files (all that come, together)."""

    memory: int = 16 << 20
    file: int = 1 << 30


@dataclass(frozen=True, slots=True)
class Message:
    """One message: JSON, text or bytes, or the path of a file that goes when the pipes end."""

    pipe: str
    data: Any
    form: As
    name: str | None = None
    type: str | None = None


def piece(kind: Kind, number: int, *rest: bytes) -> bytes:
    """Write a piece of a message."""
    return bytes([kind]) + number.to_bytes(4, "big") + b"".join(rest)


def read_datagram(raw: bytes) -> Message:
    """Read a datagram; raises `Refused`."""
    end = 1 + raw[0] if raw else 0
    if not raw or len(raw) <= end or raw[end] >= FORMS.index("file"):
        raise fields.malformed("this is no datagram")
    form = FORMS[raw[end]]
    pipe = _clean({"pipe": _text(raw[1:end])}, "pipe", least=1, most=64, bad=_CONTROL)
    return Message(pipe, _value(form, raw[end + 1 :]), form)


@dataclass(slots=True)
class _Coming:
    """A message on its way in."""

    header: Header
    buffer: bytearray = field(default_factory=bytearray)
    file: IO[bytes] | None = None
    path: Path | None = None
    got: int = 0


class Coming:
    """All that comes over one link: pieces in, messages out; nothing here waits or sends."""

    def __init__(self, directory: Path, limits: Limits) -> None:
        self._directory, self._limits = directory, limits
        self._open: dict[int, _Coming] = {}
        self._held = self._files = 0

    def take(self, kind: int, number: int, rest: bytes) -> Message | None:
        """Take a piece; return the message if it is whole now.

        Raises `Cut`, with which the message has ended.
        """
        try:
            if kind == Kind.CANCEL:
                self.end(number)
            elif kind == Kind.BEGIN:
                return self._add(number, self._begin(number, rest))
            elif kind == Kind.MORE and number in self._open:
                return self._add(number, rest)
        except (Refused, Cut) as error:
            self.end(number)
            raise (error if isinstance(error, Cut) else Cut(Why.MALFORMED)) from None
        return None

    def end(self, number: int, *, keep: bool = False) -> None:
        """Forget a message that comes."""
        one = self._open.pop(number, None)
        if one is None:
            return
        self._held -= len(one.buffer)
        if one.header.form == "file":
            self._files -= one.header.size
        if one.file is not None:
            one.file.close()
        if one.path is not None and not keep:
            with suppress(OSError):
                one.path.unlink()

    def end_all(self) -> None:
        """Forget all of them."""
        for number in list(self._open):
            self.end(number)

    def _begin(self, number: int, rest: bytes) -> bytes:
        header, data = Header.read(rest)
        if number in self._open:
            raise Cut(Why.MALFORMED)
        if len(self._open) >= MOST_OPEN:
            raise Cut(Why.TOO_MANY)
        is_file = header.form == "file"
        if header.size > (self._limits.file - self._files if is_file else self._limits.memory):
            raise Cut(Why.TOO_LARGE)
        one = self._open[number] = _Coming(header)
        if is_file:
            self._files += header.size
            try:
                opened, path = tempfile.mkstemp(dir=self._directory)
            except OSError:
                raise Cut(Why.TOO_MANY) from None
            one.file, one.path = open(opened, "wb"), Path(path)  # noqa: SIM115 - until it is whole
        return data

    def _add(self, number: int, data: bytes) -> Message | None:
        one = self._open[number]
        header = one.header
        one.got += len(data)
        if one.got > header.size:
            raise Cut(Why.TOO_LARGE)
        if one.file is not None:
            try:
                one.file.write(data)
            except OSError:
                raise Cut(Why.TOO_LARGE) from None
        else:
            one.buffer += data
            self._held += len(data)
            if self._held > MOST_HELD:
                raise Cut(Why.TOO_MANY)
        if one.got < header.size:
            return None
        found = one.path if one.path is not None else _value(header.form, bytes(one.buffer))
        self.end(number, keep=True)
        return Message(header.pipe, found, header.form, header.name, header.type)


class Pipes:
    """The pipes over one link, which they alone read from then on."""

    def __init__(
        self, link: Link, *, limits: Limits | None = None, directory: Path | None = None
    ) -> None:
        self.link = link
        self._directory = tempfile.TemporaryDirectory(dir=directory, prefix="muster-pipes-")
        self._coming = Coming(Path(self._directory.name), limits or Limits())
        self._stopped: dict[int, Why | None] = {}
        self._come: deque[Message] = deque()
        self._changed = asyncio.Condition()
        self._turns = asyncio.Semaphore(MOST_TURNS)
        self._turn = asyncio.Lock()
        self._number = 0
        self._ended = False
        self._task: asyncio.Task[None] | None = None

    async def __aenter__(self) -> Self:
        self._task = asyncio.create_task(self._read())
        return self

    async def __aexit__(self, *_: object) -> None:
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)
        self._coming.end_all()
        self._directory.cleanup()

    # --- going out ------------------------------------------------------------------------

    async def send(
        self,
        pipe: str,
        data: Any,
        *,
        progress: Callable[[int, int], None] | None = None,
        reliable: bool = True,
    ) -> None:
        """Send JSON, a text, bytes, or a file by its path; returns when it was taken.

        Without *reliable* it is sent only if the link has room, and may be lost. Raises `Closed`,
        `Stopped`, `OSError` for the file, `ValueError` and `TypeError` for what has no JSON.
        """
        form, body, name = _packed(data)
        try:
            _clean({"pipe": pipe}, "pipe", least=1, most=64, bad=_CONTROL)
        except Refused as error:
            raise ValueError(str(error)) from None
        if not reliable:
            await self._send_loose(pipe, form, body)
            return
        size = len(body) if isinstance(body, bytes) else body.stat().st_size
        head = Header(pipe, form, size, name).raw
        number = self._number = (self._number + 1) % 2**32
        self._stopped[number] = None
        try:
            if len(head) + size <= PAYLOAD_BYTES - _HEAD:
                await self._carry(number, head, size, body, progress)
            else:
                async with self._turns:
                    await self._carry(number, head, size, body, progress)
            await self.link.drained()
            await asyncio.sleep(0)
            self._check(number)
        finally:
            del self._stopped[number]

    async def _carry(
        self,
        number: int,
        head: bytes,
        size: int,
        body: bytes | Path,
        progress: Callable[[int, int], None] | None,
    ) -> None:
        sent, begun = 0, False
        try:
            for data in _parts(body, PAYLOAD_BYTES - _HEAD - len(head), size):
                async with self._turn:  # who waits first is first: all go in turns
                    self._check(number)
                    if begun:
                        await self.link.send(piece(Kind.MORE, number, data))
                    else:
                        await self.link.send(piece(Kind.BEGIN, number, head, data))
                begun = True
                sent += len(data)
                if progress is not None:
                    progress(sent, size)
        except BaseException as error:
            if begun and sent < size and not isinstance(error, (Stopped, Closed)):
                with suppress(Closed):
                    await asyncio.shield(self.link.send(piece(Kind.CANCEL, number)))
            raise

    def _check(self, number: int) -> None:
        why = self._stopped.get(number)
        if why is not None:
            raise Stopped(why)

    async def _send_loose(self, pipe: str, form: As, body: bytes | Path) -> None:
        name = pipe.encode()
        if isinstance(body, Path) or len(body) > PAYLOAD_BYTES - 67:
            raise ValueError(f"a datagram has at most {PAYLOAD_BYTES - 67} bytes, and is no file")
        if self.link.session.waiting < MOST_WAITING:
            head = bytes([Kind.DATAGRAM, len(name)]) + name + bytes([FORMS.index(form)])
            await self.link.send(head + body)

    # --- coming in ------------------------------------------------------------------------

    def __aiter__(self) -> AsyncIterator[Message]:
        return self

    async def __anext__(self) -> Message:
        """Wait for the next message; ends with the link."""
        async with self._changed:
            await self._changed.wait_for(lambda: self._come or self._ended)
            if not self._come:
                raise StopAsyncIteration
            self._changed.notify_all()
            return self._come.popleft()

    async def _read(self) -> None:
        try:
            async for raw in self.link:
                message = await self._take(raw)
                if message is not None:
                    async with self._changed:
                        await self._changed.wait_for(lambda: len(self._come) < MOST_COME)
                        self._come.append(message)
                        self._changed.notify_all()
        finally:
            self._ended = True
            async with self._changed:
                self._changed.notify_all()

    async def _take(self, raw: bytes) -> Message | None:
        if raw[:1] == bytes([Kind.DATAGRAM]):
            with suppress(Refused):
                return read_datagram(raw[1:])
            return None
        if len(raw) < _HEAD:
            return None
        kind, number, rest = raw[0], int.from_bytes(raw[1:_HEAD], "big"), raw[_HEAD:]
        if kind == Kind.STOP:
            if number in self._stopped:
                known = rest[:1] and rest[0] in set(Why)
                self._stopped[number] = Why(rest[0]) if known else Why.MALFORMED
            return None
        try:
            return self._coming.take(kind, number, rest)
        except Cut as cut:
            with suppress(Closed):
                await self.link.send(piece(Kind.STOP, number, bytes([cut.why])))
            return None


def _clean(data: Any, name: str, *, least: int, most: int, bad: re.Pattern[str]) -> str:
    found = fields.text(data, name, least=least, most=most)
    if bad.search(found):
        raise fields.malformed(f"{name} has what no name has")
    return found


def _text(raw: bytes) -> str:
    try:
        return raw.decode()
    except UnicodeDecodeError:
        raise fields.malformed("it is not UTF-8") from None


def _value(form: As, raw: bytes) -> Any:
    if form == "json":
        return canonical.loads(raw)
    return _text(raw) if form == "text" else raw


def _packed(data: Any) -> tuple[As, bytes | Path, str | None]:
    """Say how a value travels."""
    if isinstance(data, Path):
        name = _UNSUITED.sub("_", data.name)[-60:]
        return "file", data, None if _NO_FILE.search(name) else name
    if isinstance(data, str):
        return "text", data.encode(), None
    if isinstance(data, bytes | bytearray | memoryview):
        return "bytes", bytes(data), None
    written = json.dumps(data, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
    return "json", written.encode(), None


def _parts(body: bytes | Path, first: int, size: int) -> Iterator[bytes]:
    """Cut a body into what the pieces of it carry; there is one at least."""
    each, sent = first, 0
    with body.open("rb") if isinstance(body, Path) else _Held(body) as source:
        while True:
            data = source.read(min(each, size - sent))
            if not data and sent < size:
                raise Refused(Reason.MALFORMED, "the file is shorter than it was")
            sent += len(data)
            yield data
            if sent >= size:
                return
            each = PAYLOAD_BYTES - _HEAD


class _Held:
    """Bytes that are read like a file, without a copy."""

    def __init__(self, data: bytes) -> None:
        self._data, self._at = memoryview(data), 0

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._data.release()

    def read(self, count: int) -> bytes:
        found = bytes(self._data[self._at : self._at + count])
        self._at += len(found)
        return found
