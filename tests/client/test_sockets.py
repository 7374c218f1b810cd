"""Real sockets to a server that misbehaves as no real service can be made to."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from http import HTTPStatus

import msgspec
import pytest
from websockets.asyncio.client import connect
from websockets.asyncio.server import ServerConnection, serve
from websockets.datastructures import Headers
from websockets.http11 import Request, Response

from muster import errors, shapes
from muster.circle import Circle
from muster.circle.service import MOST_WAITING, Service, ServiceSocket
from muster.felund import frames, sockets
from muster.felund.sockets import Closed, Socket, Unreachable
from muster.invites import ServiceAddress

Answer = Callable[[ServerConnection, Request], Response | None]


def play(
    server: Callable[[ServerConnection], Awaitable[None]],
    client: Callable[[str], Awaitable[None]],
    *,
    answer: Answer | None = None,
) -> None:
    async def main() -> None:
        async with serve(server, "127.0.0.1", 0, process_request=answer) as running:
            port = running.sockets[0].getsockname()[1]
            async with asyncio.timeout(10):
                await client(f"ws://127.0.0.1:{port}/v1/relay/ws")

    asyncio.run(main())


async def nothing(connection: ServerConnection) -> None:
    await connection.wait_closed()


def test_frames_of_a_newer_version_and_nonsense_are_passed_over() -> None:
    async def server(connection: ServerConnection) -> None:
        for text in ("", "[]", "nonsense", '{"t":"FUTURE","x":1}', '{"t":"ACK"}', b"\xff\x00"):
            await connection.send(text)
        await connection.send('{"t":"PONG","new_member":true}')

    async def client(url: str) -> None:
        found: Socket = await sockets.connect(url, "token")
        assert await found.receive() == frames.Pong()
        with pytest.raises(Closed):
            await found.receive()

    play(server, client)


def test_a_flood_of_what_nobody_reads_holds_no_answer_back() -> None:
    told = shapes.PassedFrame(from_="0" * 32, payload="AAAA")

    async def server(connection: ServerConnection) -> None:
        await connection.recv()
        for _ in range(MOST_WAITING + 10):
            await connection.send(msgspec.json.encode(told).decode())
        await connection.send('{"t":"TAKEN","n":1}')
        await connection.wait_closed()

    async def client(url: str) -> None:
        circle = Circle.new()
        node = circle.member.node(circle.epoch)
        service = Service(ServiceAddress("http://127.0.0.1:9", b"s" * 16), node)
        socket = ServiceSocket(service, await connect(url))
        await socket.frame(node.id, b"hello")
        assert socket.lost  # what is not certain is asked for
        assert await anext(socket) == told
        await socket.aclose()

    play(server, client)


def test_a_frame_beyond_every_bound_ends_the_socket() -> None:
    async def server(connection: ServerConnection) -> None:
        await connection.send("x" * (2 * frames.MAX_PUSH_BYTES + 1))
        await connection.wait_closed()

    async def client(url: str) -> None:
        found = await sockets.connect(url, "token")
        with pytest.raises(Closed):
            await found.receive()

    play(server, client)


def test_the_token_travels_in_the_header_alone() -> None:
    seen: list[tuple[str, str]] = []

    def answer(connection: ServerConnection, request: Request) -> None:
        seen.append((request.path, request.headers["Authorization"]))

    async def client(url: str) -> None:
        await (await sockets.connect(url, "secret.token")).close()

    play(nothing, client, answer=answer)

    assert seen == [("/v1/relay/ws", "Bearer secret.token")]


@pytest.mark.parametrize(
    ("status", "body", "refusal"),
    [
        (401, b'{"ok":false,"code":"SESSION_EXPIRED","message":"too late"}', errors.SessionExpired),
        (401, b'{"ok":false,"code":"INVALID_TOKEN","message":"forged"}', errors.InvalidToken),
        (404, b"<html>nginx</html>", errors.NotFound),
        (503, b"", errors.Unavailable),
        (429, b"[]", errors.RateLimited),
    ],
)
def test_a_handshake_that_is_refused_is_raised_as_its_class(
    status: int, body: bytes, refusal: type[errors.Refused]
) -> None:
    def answer(connection: ServerConnection, request: Request) -> Response:
        phrase = HTTPStatus(status).phrase
        return Response(status, phrase, Headers({"Content-Length": str(len(body))}), body)

    async def client(url: str) -> None:
        with pytest.raises(refusal):
            await sockets.connect(url, "token")

    play(nothing, client, answer=answer)


@pytest.mark.parametrize(
    ("body", "foreign"),
    [
        (b"<html>nginx</html>", True),
        (b'{"message":"Too Many Requests"}', True),
        (b'{"ok":false,"code":"RATE_LIMITED","message":"slowly"}', False),
        (b'{"ok":false,"code":"OF_A_NEWER_VERSION","message":"slowly"}', False),
    ],
)
def test_a_handshake_says_who_refused_it_and_for_how_long(body: bytes, foreign: bool) -> None:
    def answer(connection: ServerConnection, request: Request) -> Response:
        headers = Headers({"Content-Length": str(len(body)), "Retry-After": "17"})
        return Response(429, "Too Many Requests", headers, body)

    async def client(url: str) -> None:
        with pytest.raises(errors.RateLimited) as caught:
            await sockets.connect(url, "token")
        assert caught.value.retry_after_s == 17
        assert caught.value.foreign is foreign

    play(nothing, client, answer=answer)


@pytest.mark.parametrize("url", ["ws://127.0.0.1:1/v1/relay/ws", "http://h/ws", "ws://", ""])
def test_what_no_socket_can_be_opened_to_is_unreachable(url: str) -> None:
    async def main() -> None:
        with pytest.raises(Unreachable, match="cannot open a WebSocket"):
            await sockets.connect(url, "token")

    asyncio.run(main())
