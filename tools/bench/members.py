"""Members: signed calls of made-up nodes in made-up circles, ready to be sent."""

from __future__ import annotations

import itertools
import json
import os
import time
from collections.abc import Mapping
from typing import Any, NamedTuple
from urllib.parse import urlencode

from capsules.keys import VerifyKey
from chalicelib.call import Call
from muster import base64url, calls, keys, presences
from muster.felund import signing
from muster.felund.circle import Circle

_nonces = itertools.count()
_messages = itertools.count()
_run = os.urandom(8)


class Ready(NamedTuple):
    """One call, signed."""

    method: str
    path: str
    query: dict[str, str]
    headers: dict[str, str]
    body: bytes

    def http(self) -> bytes:
        """Return it as a host on the network reads it."""
        target = self.path + ("?" + urlencode(self.query) if self.query else "")
        head = {
            "Host": "127.0.0.1",
            "Content-Type": "application/json",
            "Content-Length": str(len(self.body)),
        } | self.headers
        lines = "".join(f"{name}: {value}\r\n" for name, value in head.items())
        return f"{self.method} {target} HTTP/1.1\r\n{lines}\r\n".encode() + self.body

    def call(self, *, source_ip: str = "192.0.2.1") -> Call:
        """Return it as the service reads it."""
        return Call(
            method=self.method,
            path=self.path,
            query=self.query,
            headers={name.lower(): value for name, value in self.headers.items()},
            body=self.body,
            source_ip=source_ip,
            source_port=4242,
            clock=time.time(),
            request_id="bench",
            websocket_url="ws://127.0.0.1/v1/relay/ws",
        )


class Member:
    """One node of one circle."""

    def __init__(self, circle: Circle, node_id: str) -> None:
        self.circle = circle
        self.node_id = node_id

    def register(self) -> Ready:
        """Two endpoints and the circle's key, as a client sends them every minute."""
        endpoint = {"transport": "tcp", "host": "192.0.2.7", "port": 9999, "family": "ipv4"}
        return self.sign(
            "POST",
            "/v1/register",
            {
                "node_id": self.node_id,
                "endpoints": [endpoint, endpoint | {"transport": "ws", "port": 8080}],
                "capabilities": {"relay": False, "transport": ["tcp", "ws"], "can_anchor": False},
                "ttl_s": 600,
                "signing_key": self.circle.request_key.hex(),
            },
        )

    def peers(self) -> Ready:
        """Ask for up to 50."""
        return self.sign("GET", "/v1/peers", query={"limit": "50"})

    def post(self, count: int = 1) -> Ready:
        """Leave new messages."""
        return self.repost([message(self.node_id) for _ in range(count)])

    def repost(self, messages: list[dict[str, Any]]) -> Ready:
        """Leave these messages."""
        return self.sign("POST", "/v1/messages", {"messages": messages})

    def poll(self, after: int) -> Ready:
        """Collect the messages after a cursor."""
        return self.sign("GET", "/v1/messages", query={"after": str(after)})

    def signal(self, to: Member) -> Ready:
        """Leave a candidate."""
        pair = sorted((self.node_id, to.node_id))
        return self.sign(
            "POST",
            "/v1/signal",
            {
                "session_id": ":".join(pair),
                "from_node_id": self.node_id,
                "to_node_id": to.node_id,
                "type": "candidate",
                "payload": "candidate:1 1 udp 2122260223 192.0.2.7 50000 typ host " + "x" * 100,
            },
        )

    def signals(self, since_id: int) -> Ready:
        """Collect signals."""
        query = {"to_node_id": self.node_id, "since_id": str(since_id)}
        return self.sign("GET", "/v1/signal", query=query)

    def subscription(self) -> Ready:
        """Ask for a token that opens a subscription."""
        return self.sign("POST", "/v1/relay/subscription", {"node_id": self.node_id, "ttl_s": 120})

    def session(self, target: Member) -> Ready:
        """Open a relay session."""
        wanted = {"node_id": self.node_id, "target_node_id": target.node_id, "ttl_s": 120}
        return self.sign("POST", "/v1/relay/session", wanted)

    def sign(
        self,
        method: str,
        path: str,
        body: Mapping[str, Any] | None = None,
        *,
        query: Mapping[str, str] | None = None,
    ) -> Ready:
        """Sign a call for the circle, now."""
        hint = {"circle_hint": self.circle.circle_hint}
        raw = b"" if body is None else json.dumps({**hint, **body}).encode()
        headers = signing.headers(
            self.circle.request_key,
            method,
            path.removeprefix("/v1"),
            raw,
            node_id=self.node_id,
            now=int(time.time()),
            nonce=_run + next(_nonces).to_bytes(8, "big"),
        )
        return Ready(method, path, {} if query is None else {**hint, **query}, headers, raw)


class Node:
    """One node of one circle of version 2, at the service with that key."""

    def __init__(self, service: VerifyKey) -> None:
        founder = VerifyKey(os.urandom(keys.KEY_BYTES))
        self._epoch = keys.Epoch.first(founder)
        self._node = keys.Member.new(self._epoch.circle_id).node(self._epoch)
        self._service = keys.service_id(service)
        self._at_ms = int(time.time() * 1000)
        self._credential = self._vouched()

    def sync(self, *, credential: calls.Credential | None = None) -> Ready:
        """Say where it is and read all that there is, as a client without a socket does."""
        self._at_ms += 1  # each call is later than the one before
        presence = presences.Presence.of(self._node, name="bench", at_ms=self._at_ms)
        sealed = presences.seal(self._node, presence, nonce=os.urandom(12))
        asked = {
            "presence": {"sealed": base64url.encode(sealed), "ttl_s": 120},
            "want": {"peers": True, "messages": 200, "signals": 50},
        }
        body = json.dumps(asked).encode()
        vouched = credential or self._credential
        proof = calls.Proof.make(
            self._node.key,
            vouched,
            call=calls.SYNC,
            service=self._service,
            body=body,
            at_ms=self._at_ms,
        )
        header = calls.Authorization(vouched.raw, proof).header
        return Ready("POST", "/v2/sync", {}, {"Authorization": header}, body)

    def sync_anew(self) -> Ready:
        """Do the same with a credential that the service has not seen."""
        return self.sync(credential=self._vouched())

    def _vouched(self) -> calls.Credential:
        until = self._at_ms + calls.CREDENTIAL_MS // 2
        key = self._epoch.circle_key
        return calls.Credential.make(key, self._node.public, expires_ms=until)


def circle(members: int) -> list[Member]:
    """Make up a circle with so many members."""
    made = Circle(os.urandom(32))
    return [Member(made, os.urandom(12).hex()) for _ in range(members)]


def message(author: str) -> dict[str, Any]:
    """Make up an encrypted message of some 350 bytes, as clients send them."""
    return {
        "msg_id": f"{_run.hex()}{next(_messages):016x}",
        "channel_id": "general",
        "author_node_id": author,
        "created_ts": int(time.time()),
        "enc": {
            "alg": "AES-256-GCM",
            "key_id": "epoch-0",
            "nonce": "AAAAAAAAAAAAAAAA",
            "ciphertext": "A" * 120,
        },
    }
