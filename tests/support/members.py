"""Members of a circle who call an app behind the gateway, signed and by the real clock."""

import json
import os
import time
from typing import Any

from muster.felund import signing
from tests.support.gateway import Answer, Gateway, Headers, Machine, Wire


class Member:
    """One node of a circle."""

    def __init__(self, gateway: Gateway, node_id: str, secret: bytes) -> None:
        self.gateway, self.node_id = gateway, node_id
        self.key = signing.request_key(secret)
        self.hint = secret.hex()[:16]

    def signed(self, method: str, path: str, raw: bytes) -> dict[str, str]:
        """Return the headers of a signed call."""
        return signing.headers(
            self.key,
            method,
            path.removeprefix("/v1"),
            raw,
            node_id=self.node_id,
            now=int(time.time()),
            nonce=os.urandom(16),
        )

    def call(
        self,
        method: str,
        path: str,
        body: Any = None,
        *,
        query: str = "",
        headers: Headers = (("Content-Type", "application/json"),),
        machine: Machine | None = None,
    ) -> Answer:
        """Make a signed call."""
        raw = body if isinstance(body, bytes) else b"" if body is None else dumps(body)
        every = [*headers, *self.signed(method, path, raw).items()]
        return self.gateway.call(
            method, path, query=query, headers=every, body=raw, machine=machine
        )

    def ask(self, method: str, path: str, body: Any = None, **more: Any) -> Any:
        """Make a signed call that must be answered with 200; return what it says."""
        answer = self.call(method, path, body, **more)
        assert answer.status == 200, (answer.status, answer.body)
        return answer.json()

    def register(self, **more: Any) -> Any:
        """Register with the circle's key."""
        body = {
            "node_id": self.node_id,
            "circle_hint": self.hint,
            "endpoints": [{"transport": "tcp", "host": "192.0.2.7", "port": 9999}],
            "signing_key": self.key.hex(),
        }
        return self.ask("POST", "/v1/register", body, **more)

    def leave(self, *msg_ids: str, size: int = 1, **more: Any) -> Any:
        """Leave messages."""
        messages = [{"msg_id": msg_id, "text": "x" * size} for msg_id in msg_ids]
        body = {"circle_hint": self.hint, "messages": messages}
        return self.ask("POST", "/v1/messages", body, **more)

    def collect(self, **more: Any) -> list[str]:
        """Return the ids of all messages in the mailbox."""
        query = f"circle_hint={self.hint}&after=0"
        found = self.ask("GET", "/v1/messages", query=query, **more)
        return [message["msg_id"] for message in found["messages"]]

    def token(self, **more: Any) -> str:
        """Ask for a subscription token."""
        body = {"node_id": self.node_id, "circle_hint": self.hint}
        return str(self.ask("POST", "/v1/relay/subscription", body, **more)["token"])

    def subscribe(self, **more: Any) -> Wire:
        """Open a subscription."""
        return self.gateway.open(f"token={self.token()}", **more)

    def session(self, other: "Member") -> Any:
        """Open a relay session with another member."""
        body = {
            "node_id": self.node_id,
            "target_node_id": other.node_id,
            "circle_hint": self.hint,
        }
        return self.ask("POST", "/v1/relay/session", body)

    def attach(self, other: "Member", **more: Any) -> Wire:
        """Take a seat opposite another member."""
        token = self.session(other)["token"]
        return self.gateway.open(headers=[("Authorization", f"Bearer {token}")], **more)


def dumps(value: object) -> bytes:
    """Write JSON as a client might."""
    return json.dumps(value).encode()


def circle(gateway: Gateway, *names: str) -> list[Member]:
    """Return registered members of a fresh circle."""
    secret = os.urandom(32)
    members = [Member(gateway, f"{name}-00001", secret) for name in names]
    for member in members:
        member.register()
    return members
