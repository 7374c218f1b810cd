"""A service on SQLite with a clock that tests set, and members who call it."""

import itertools
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from chalicelib import http
from chalicelib.call import Call, Connection, Gone, Reply
from chalicelib.circle import sockets
from chalicelib.service import Service
from chalicelib.settings import Settings
from chalicelib.store import Stores
from chalicelib.store.sqlite import open_sqlite
from muster.felund import signing

SECRET = bytes(range(32))
HINT = "e03c84dccc271635"
ANN = "ann-0001"
BOB = "bob-0002"
START = 1_800_000_000
LOT_BYTES = 2
"""A lot is always the same here; what is drawn for a name never is."""

_nonces = itertools.count(1)


class Gateway:
    """Holds connections and what was sent to them; a gateway that cannot run here."""

    def __init__(self) -> None:
        self.sent: dict[str, list[dict[str, Any]]] = {}
        self.closed: dict[str, int] = {}
        self.gone: set[str] = set()

    def send(self, connection: Connection, text: str) -> None:
        """Keep the frame, or say that the connection is gone."""
        if connection.id in self.gone or connection.id in self.closed:
            raise Gone(connection.id)
        self.sent.setdefault(connection.id, []).append(json.loads(text))

    def close(self, connection: Connection, code: int, reason: str) -> None:
        """End the connection."""
        self.closed[connection.id] = code

    def take(self, connection_id: str) -> list[dict[str, Any]]:
        """Return what a connection was sent since the last time."""
        return self.sent.pop(connection_id, [])


@dataclass
class World:
    """One service, its clock, and the gateway in front of it."""

    service: Service
    gateway: Gateway
    clock: float = float(START)
    entropy: "itertools.count[int]" = field(default_factory=lambda: itertools.count(1))

    @property
    def now(self) -> int:
        """The second it is."""
        return int(self.clock)

    def call(
        self,
        method: str,
        path: str,
        body: Any = None,
        *,
        query: Mapping[str, str] | None = None,
        node: str = ANN,
        key: bytes | None = signing.request_key(SECRET),
        headers: Mapping[str, str] | None = None,
        source_ip: str = "192.0.2.1",
    ) -> tuple[int, dict[str, Any]]:
        """Make a call, signed unless *key* is None, perform its effects, return status and body."""
        raw = (
            body if isinstance(body, bytes) else b"" if body is None else json.dumps(body).encode()
        )
        if headers is None:
            headers = self.signed(method, path, raw, node=node, key=key) if key else {}
        reply = self.reply(
            Call(
                method,
                path,
                query=query or {},
                headers=headers,
                body=raw,
                source_ip=source_ip,
                source_port=4242,
                clock=self.clock,
                request_id="r-1",
                websocket_url="wss://muster.example/v1/relay/ws",
            )
        )
        return reply.status, json.loads(reply.body) if reply.body else {}

    def reply(self, call: Call) -> Reply:
        """Answer a call as a host does."""
        reply = http.handle(self.service, call)
        sockets.deliver(self.service, reply.effects, now=self.now)
        return reply

    def signed(
        self, method: str, path: str, raw: bytes, *, node: str, key: bytes, at: int | None = None
    ) -> dict[str, str]:
        """Return the headers of a signed call, names in lower case."""
        nonce = next(_nonces).to_bytes(16, "big")
        made = signing.headers(
            key,
            method,
            path.removeprefix("/v1"),
            raw,
            node_id=node,
            now=self.now if at is None else at,
            nonce=nonce,
        )
        return {name.lower(): value for name, value in made.items()}

    def register(self, node: str = ANN, **members: Any) -> tuple[int, dict[str, Any]]:
        """Register a node with the circle's key."""
        body = {
            "node_id": node,
            "circle_hint": HINT,
            "endpoints": [{"transport": "tcp", "host": "192.0.2.7", "port": 9999}],
            "signing_key": signing.request_key(SECRET).hex(),
        } | members
        return self.call("POST", "/v1/register", body, node=node)

    def leave(self, *msg_ids: str, node: str = ANN, **more: Any) -> tuple[int, dict[str, Any]]:
        """Leave messages with these ids."""
        messages = [{"msg_id": msg_id, "created_ts": 1} | more for msg_id in msg_ids]
        return self.call(
            "POST", "/v1/messages", {"circle_hint": HINT, "messages": messages}, node=node
        )

    def poll(self, node: str = BOB, **query: Any) -> dict[str, Any]:
        """Collect messages."""
        asked = {"circle_hint": HINT} | {name: str(value) for name, value in query.items()}
        status, body = self.call("GET", "/v1/messages", query=asked, node=node)
        assert status == 200, body
        return body

    def open(self, connection_id: str, token: str = "", **query: str) -> Connection:
        """Open a socket and greet it."""
        connection = Connection(connection_id)
        headers = {"authorization": f"Bearer {token}"} if token else {}
        call = Call(
            "GET",
            sockets.PATH,
            query=query,
            headers=headers,
            source_ip="192.0.2.1",
            clock=self.clock,
        )
        opened = sockets.open_socket(self.service, call, connection)
        sockets.deliver(self.service, opened.effects, now=self.now)
        sockets.deliver(
            self.service, sockets.greet(self.service, connection, now=self.now), now=self.now
        )
        return connection

    def say(self, connection: Connection, frame: Any) -> None:
        """Send a frame from a node."""
        text = frame if isinstance(frame, str) else json.dumps(frame)
        effects = sockets.receive(self.service, connection, text, now=self.now)
        sockets.deliver(self.service, effects, now=self.now)

    def subscribe(self, node: str, connection_id: str) -> Connection:
        """Open a subscription with a token."""
        status, body = self.call(
            "POST", "/v1/relay/subscription", {"node_id": node, "circle_hint": HINT}, node=node
        )
        assert status == 200, body
        return self.open(connection_id, body["token"])

    def session(self, node: str, target: str, **members: Any) -> tuple[int, dict[str, Any]]:
        """Open a relay session."""
        body = {"node_id": node, "target_node_id": target, "circle_hint": HINT} | members
        return self.call("POST", "/v1/relay/session", body, node=node)


def world(stores: Stores | None = None, **settings: Any) -> World:
    """Make a service on SQLite in memory, or on *stores*; settings as an operator writes them."""
    gateway = Gateway()
    chosen = {f"MUSTER_{name.upper()}": str(value) for name, value in settings.items()}
    drawn = itertools.count(1)
    service = Service(
        Settings.from_environment(chosen),
        stores or open_sqlite(":memory:"),
        gateway,
        lambda size: bytes(size) if size == LOT_BYTES else next(drawn).to_bytes(size, "big"),
    )
    return World(service, gateway)


__all__ = ["ANN", "BOB", "HINT", "SECRET", "START", "Gateway", "World", "world"]
