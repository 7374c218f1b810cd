"""A scripted relay: sessions and seats in memory, and a network that does as it is told."""

from __future__ import annotations

import asyncio
import dataclasses
import json
from collections.abc import Callable
from typing import Any

import httpx2
import msgspec

from muster import errors
from muster.felund import frames, records
from muster.felund.circle import Circle
from muster.felund.client import Client, Unreachable
from muster.felund.frames import FromNode, FromService
from muster.felund.sockets import Closed
from tests.client import virtual

CIRCLE = Circle(bytes(range(32)))
NEAR, FAR = "node-near-0001", "node-far-00001"
LATENCY_S = 0.01
TTL_S = 60

Network = Callable[[str, FromNode], float | None]
"""Says how many seconds a node's frame travels, or None where it is lost."""


class Seat:
    """A node's end of a WebSocket."""

    def __init__(self, relay: Relay, node_id: str, session_id: str) -> None:
        self.node_id = node_id
        self.session_id = session_id
        self.said: list[FromNode] = []
        self._relay = relay
        self._heard: asyncio.Queue[FromService | None] = asyncio.Queue()
        self._dead = False

    async def send(self, frame: FromNode) -> None:
        await asyncio.sleep(0)
        if self._dead:
            raise Closed("gone")
        self.said.append(frame)
        self._relay.take(self, frame)

    async def receive(self) -> FromService:
        frame = await self._heard.get()
        if frame is None:
            self._heard.put_nowait(None)
            raise Closed("gone")
        return frame

    async def close(self) -> None:
        self._relay.leave(self)

    def tell(self, frame: FromService, *, after_s: float = LATENCY_S) -> None:
        asyncio.get_running_loop().call_later(after_s, self._heard.put_nowait, frame)

    def die(self) -> None:
        """Close the connection under the node's feet."""
        self._dead = True
        self._heard.put_nowait(None)
        self._relay.leave(self)


class Relay:
    """The part of the service that links need, scripted; everything is counted."""

    def __init__(self) -> None:
        self.registered = {NEAR, FAR}
        self.seats: dict[str, Seat] = {}
        self.opened: list[tuple[str, float]] = []
        self.attached: list[tuple[str, float]] = []
        self.refused: list[float] = []
        self.frames: list[tuple[str, FromNode]] = []
        self.network: Network = lambda node_id, frame: 0.0
        self.refusal: errors.Refused | None = None
        self.unreachable = False
        self.page: httpx2.Response | None = None
        self.handshake: errors.Refused | None = None
        self.step_s = 0.0
        self.silent = False
        self.announces = True
        self.session = 0
        self.server_time_back_s = 0

    def client(self, node_id: str, *, seed: int = 1) -> Client:
        return Client(
            "http://relay.test",
            CIRCLE,
            node_id,
            transport=httpx2.MockTransport(self._call),
            connect=self._connect,
            rim=dataclasses.replace(
                virtual.rim(seed=seed), now=lambda: virtual.now() + self.step_s
            ),
        )

    def _call(self, call: httpx2.Request) -> httpx2.Response:
        ask = json.loads(call.content)
        if self.unreachable:
            raise httpx2.ConnectError("down")
        if self.page is not None:
            return httpx2.Response(self.page.status_code, content=self.page.content)
        if self.refusal is not None:
            return httpx2.Response(self.refusal.status, json=self.refusal.to_json())
        if ask["target_node_id"] not in self.registered:
            refusal = errors.NotFound("the target node is not registered")
            return httpx2.Response(refusal.status, json=refusal.to_json())
        self.opened.append((ask["node_id"], virtual.now() - virtual.START))
        server_time = int(virtual.now()) - self.server_time_back_s
        session_id = f"session-{self.session}"
        body = records.SessionOpened(
            relay_url="ws://relay.test/v1/relay/ws",
            session_id=session_id,
            token=f"{ask['node_id']} {session_id}",
            expires_at=server_time + ask["ttl_s"],
            server_time=server_time,
        )
        return httpx2.Response(200, content=msgspec.json.encode(body))

    async def _connect(self, url: str, token: str) -> Seat:
        await asyncio.sleep(LATENCY_S)
        if self.unreachable:
            raise Unreachable("down")
        if self.handshake is not None:
            self.refused.append(virtual.now() - virtual.START)
            raise self.handshake
        node_id, session_id = token.split()
        old = self.seats.pop(node_id, None)
        if old is not None:
            old.die()
        seat = self.seats[node_id] = Seat(self, node_id, session_id)
        self.attached.append((node_id, virtual.now() - virtual.START))
        other = self.other(node_id)
        if other is not None and self.announces:
            seat.tell(frames.Attached(session_id=session_id, node_id=other.node_id))
            other.tell(frames.Attached(session_id=session_id, node_id=node_id))
        return seat

    def other(self, node_id: str) -> Seat | None:
        return next((seat for name, seat in self.seats.items() if name != node_id), None)

    def leave(self, seat: Seat) -> None:
        if self.seats.get(seat.node_id) is not seat:
            return
        del self.seats[seat.node_id]
        other = self.other(seat.node_id)
        if other is not None:
            other.tell(frames.Gone(session_id=seat.session_id, node_id=seat.node_id))

    def take(self, seat: Seat, frame: FromNode) -> None:
        self.frames.append((seat.node_id, frame))
        if self.silent:
            return
        if isinstance(frame, frames.Ping):
            seat.tell(frames.Pong())
        if not isinstance(frame, frames.Frame | frames.Ack):
            return
        travels_s = self.network(seat.node_id, frame)
        if travels_s is not None:
            loop = asyncio.get_running_loop()
            loop.call_later(LATENCY_S + travels_s, self._pass, seat, frame)

    def _pass(self, seat: Seat, frame: frames.Frame | frames.Ack) -> None:
        other = self.other(seat.node_id)
        if other is None:
            error = frames.Error(code="NOT_FOUND", message="empty", retryable=True, seq=frame.seq)
            seat.tell(error)
            return
        if isinstance(frame, frames.Ack):
            other.tell(frames.Ack(session_id=frame.session_id, seq=frame.seq, from_=seat.node_id))
            return
        other.tell(
            frames.Frame(
                session_id=frame.session_id,
                seq=frame.seq,
                payload_b64=frame.payload_b64,
                from_=seat.node_id,
            )
        )
        seat.tell(frames.Ack(session_id=frame.session_id, seq=frame.seq))

    def said(self, node_id: str, kind: type[Any]) -> list[Any]:
        """Return what a node has sent of a kind, over all its sockets."""
        return [frame for name, frame in self.frames if name == node_id and isinstance(frame, kind)]
