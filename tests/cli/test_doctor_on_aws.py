"""The doctor's steps on the AWS host, over each engine: as green as on one machine."""

import asyncio
import json
import queue
from pathlib import Path

import httpx2
import msgspec
import pytest

from muster import errors
from muster.backoff import Backoff
from muster.cli.doctor.examination import STEPS, examine
from muster.felund import frames, sockets
from muster.felund.circle import Circle
from muster.felund.client import Client
from muster.felund.frames import FromNode, FromService
from tests.support import aws
from tests.support.gateway import Gateway, HandshakeRefused, Wire

BASE = "https://muster.example"
LOOK_S = 0.1


class Calls(httpx2.AsyncBaseTransport):
    """Passes calls to the gateway, as a thread of its own, since the app does not wait."""

    def __init__(self, gateway: Gateway) -> None:
        self._gateway = gateway

    async def handle_async_request(self, request: httpx2.Request) -> httpx2.Response:
        answer = await asyncio.to_thread(
            self._gateway.call,
            request.method,
            request.url.path,
            query=request.url.query.decode(),
            headers=list(request.headers.items()),
            body=await request.aread(),
        )
        return httpx2.Response(
            answer.status, headers=dict(answer.headers), stream=httpx2.ByteStream(answer.body)
        )


class OnWire:
    """A socket of the client's on a wire of the gateway's."""

    def __init__(self, wire: Wire) -> None:
        self._wire = wire

    async def send(self, frame: FromNode) -> None:
        await asyncio.to_thread(self._wire.send, frames.encode(frame))

    async def receive(self) -> FromService:
        while True:
            try:
                text = await asyncio.to_thread(self._wire.received.get, timeout=LOOK_S)
            except queue.Empty:
                continue
            if text is None:
                raise sockets.Closed("by the gateway")
            frame: FromService = _decoder.decode(text)
            return frame

    async def close(self) -> None:
        await asyncio.to_thread(self._wire.close)


@pytest.mark.parametrize("engine", aws.ENGINES)
def test_all_is_well(engine: str, tmp_path: Path, dynalite_url: str) -> None:
    url = dynalite_url if engine == "dynalite" else ""
    with aws.running(engine, directory=tmp_path, dynalite_url=url) as gateway:

        async def connect(url: str, token: str) -> sockets.Socket:
            try:
                wire = await asyncio.to_thread(
                    gateway.open, headers=[("Authorization", f"Bearer {token}")]
                )
            except HandshakeRefused as refused:
                body = json.loads(refused.answer.body)
                raise errors.from_json(body, status=refused.answer.status) from None
            return OnWire(wire)

        def make(circle: Circle, node_id: str) -> Client:
            return Client(
                BASE,
                circle,
                node_id,
                transport=Calls(gateway),
                connect=connect,
                backoff=Backoff(attempts=1),
            )

        report = asyncio.run(examine(make, base=BASE, deadline_s=20))
        assert [(step.name, step.error, step.hint) for step in report.failed] == []
        assert [step.name for step in report.steps] == [step.name for step in STEPS]
        assert report.ok
        assert not gateway.crashes


_decoder = msgspec.json.Decoder(FromService)
