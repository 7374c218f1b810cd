"""One conversation with a host, over HTTP and WebSocket, and what was heard in it.

What must differ between any two runs (times, tokens, names made up by the service)
is replaced by words, the same word for the same thing, so that two transcripts can
be compared.
"""

import contextlib
import functools
import json
import os
import time
from collections.abc import Mapping
from typing import Any

import httpx2
from websockets.exceptions import ConnectionClosed, InvalidStatus
from websockets.sync.client import ClientConnection, connect
from websockets.typing import Subprotocol

from capsules import ticket
from capsules.keys import SigningKey
from chalicelib.circle.sockets import PATH
from muster.felund import signing

WAIT_S = 10
TOLD = (
    "access-control-allow-headers",
    "access-control-allow-methods",
    "access-control-allow-origin",
    "access-control-expose-headers",
    "access-control-max-age",
    "allow",
    "cache-control",
    "content-type",
    "retry-after",
)
"""The headers that every host must give alike."""

TIMES = {"time", "server_time", "expires_at", "observed_at", "created_at"}
NUMBERS = {"cursor", "after", "id"}
MADE_UP = {"session_id", "token", "kid", "verify_key"}
URLS = {"relay_url", "websocket"}


class Node:
    """A node of a circle, which signs what it says."""

    def __init__(self, node_id: str, secret: bytes) -> None:
        self.node_id = node_id
        self.key = signing.request_key(secret)

    def headers(self, method: str, path: str, body: bytes, *, at: int = 0) -> dict[str, str]:
        return signing.headers(
            self.key,
            method,
            path.removeprefix("/v1"),
            body,
            node_id=self.node_id,
            now=int(time.time()) + at,
            nonce=os.urandom(16),
        )


class Player:
    """Speaks to the host at a base URL, and writes down what it hears."""

    def __init__(self, base: str) -> None:
        self.heard: list[Any] = []
        self._base = base
        self._stack = contextlib.ExitStack()
        self._http = self._stack.enter_context(httpx2.Client(base_url=base, timeout=WAIT_S))
        self._words: dict[Any, str] = {}

    def __enter__(self) -> "Player":
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def call(
        self,
        method: str,
        path: str,
        body: Any = None,
        *,
        by: Node | None = None,
        query: Mapping[str, str] | None = None,
        headers: Mapping[str, str] | None = None,
        at: int = 0,
    ) -> Any:
        """Make a call, signed if a node makes it; return what was answered."""
        raw = body if isinstance(body, bytes) else b"" if body is None else dumps(body)
        signed = by.headers(method, path, raw, at=at) if by else {}
        answer = self._http.request(
            method,
            path,
            params=query,
            content=raw or None,
            headers={"content-type": "application/json", **signed, **(headers or {})},
        )
        found = answer.json() if answer.content else None
        told = {name: answer.headers[name] for name in TOLD if name in answer.headers}
        asked = f"{method} {path}"
        self.heard.append([asked, answer.status_code, told, self._plain(found)])
        return found

    def open(
        self,
        *,
        query: str = "",
        headers: Mapping[str, str] | None = None,
        offer: tuple[str, ...] = (),
    ) -> ClientConnection | None:
        """Open a socket, and write down how it was answered."""
        try:
            opening = connect(
                self._base.replace("http", "ws", 1) + PATH + (f"?{query}" if query else ""),
                additional_headers=headers,
                subprotocols=[Subprotocol(name) for name in offer] or None,
                compression=None,
                ping_interval=None,
                open_timeout=WAIT_S,
                close_timeout=WAIT_S,
            )
            line = self._stack.enter_context(opening)
        except InvalidStatus as refused:
            body = json.loads(refused.response.body or b"null")
            self.heard.append(["refused", refused.response.status_code, self._plain(body)])
            return None
        self.heard.append(["opened", line.subprotocol])
        return line

    def hear(self, line: ClientConnection, *, until: str = "") -> list[Any]:
        """Take what a socket was told: up to a frame of that type, and what came before a pong."""
        found: list[Any] = []
        try:
            while until and until not in [frame["t"] for frame in found]:
                found.append(json.loads(line.recv(timeout=WAIT_S)))
            line.send('{"t":"PING"}')
            while not found or found[-1] != {"t": "PONG"}:
                found.append(json.loads(line.recv(timeout=WAIT_S)))
        except ConnectionClosed as closed:
            found.append({"t": "closed", "code": closed.rcvd.code if closed.rcvd else None})
        self.heard.append(["frames", [self._plain(frame) for frame in found]])
        return found

    def _plain(self, value: Any, name: str = "") -> Any:
        if isinstance(value, dict):
            return {key: self._plain(found, key) for key, found in value.items() if key != "port"}
        if isinstance(value, list):
            plain = [self._plain(found, name) for found in value]
            return sorted(plain, key=dumps) if name == "peers" else plain
        if name in URLS:
            return f"<{name}>"
        if name in TIMES:
            assert abs(value - time.time()) < 3600, (name, value)
            return "<time>"
        if name in NUMBERS or (name in MADE_UP and value not in PLAIN):
            return self._words.setdefault(value, f"<{name} {len(self._words)}>")
        return value


PLAIN = {"ann-00001:bob-00002", "somewhere-else"}
"""Names that the conversation itself makes up, where the service might."""


def dumps(value: object) -> bytes:
    """Write JSON."""
    return json.dumps(value).encode()


def signed(player: Player) -> None:
    """Play what members do, and what strangers try, where unsigned calls are refused."""
    secret = bytes(range(32))
    hint = "e03c84dccc271635"
    ann, bob = Node("ann-00001", secret), Node("bob-00002", secret)
    eve = Node("eve-00003", bytes(32))
    of_circle = {"circle_hint": hint}
    _meet(player, ann, bob, eve, hint)
    _leave_and_collect(player, ann, bob, hint)
    _subscribe(player, ann, bob, hint)
    _relay(player, ann, bob, hint)
    for _ in range(2):
        body = {"node_id": bob.node_id} | of_circle
        player.call("DELETE", "/v1/register", body, by=bob)
    player.call("GET", "/v1/peers", by=ann, query=of_circle)
    _announce(player)


def unsigned(player: Player) -> None:
    """Play what the existing clients do, where unsigned calls are allowed."""
    hint, other = "e03c84dccc271635", "0123456789abcdef"
    ann = Node("ann-00001", bytes(range(32)))
    of_circle = {"circle_hint": hint}
    player.call("GET", "/v1/health")
    player.call("POST", "/v1/messages", of_circle | {"messages": [{"msg_id": "m0000001"}]})
    player.call("GET", "/v1/messages", query=of_circle | {"since": "0", "limit": "200"})
    player.open(query="circle_hint=short&node_id=ann-00001")
    player.open()
    line = player.open(query=f"circle_hint={hint}&node_id=web-000001")
    assert line
    player.hear(line, until="MESSAGES")
    line.send("[]")
    line.send('{"t":"FRAME","session_id":"somewhere-else","seq":1,"payload_b64":"AAAA"}')
    player.hear(line)
    messages = [{"msg_id": "m0000002", "enc": {"nonce": "n", "ciphertext": "é\u2028"}}]
    posted = of_circle | {"messages": messages}
    player.call("POST", "/v1/messages", posted, headers={"content-type": "text/plain"})
    player.hear(line)
    player.call("POST", "/v1/messages", posted, headers={"X-Felund-Node": "web-000001"})
    player.hear(line)
    signal = {
        "session_id": "ann-00001:bob-00002",
        "from_node_id": "ann-00001",
        "to_node_id": "bob-00002",
        "circle_hint": hint,
        "type": "offer",
        "payload": "v=0",
        "ttl_s": 9999,
    }
    player.call("POST", "/v1/signal", signal)
    player.call("GET", "/v1/signal", query={"to_node_id": "bob-00002", "since_id": "0"})
    player.hear(line)
    endpoint = {"transport": "ws", "host": "page.example", "port": 443}
    here = {"node_id": "web-000001", "circle_hint": other}
    player.call("POST", "/v1/register", here | {"endpoints": [endpoint], "ttl_s": 120.5})
    player.call("GET", "/v1/peers", query={"circle_hint": other, "limit": "1000"})
    player.call("DELETE", "/v1/register", here)
    key = {"node_id": ann.node_id, "signing_key": ann.key.hex(), "endpoints": []}
    player.call("POST", "/v1/register", of_circle | key, by=ann)
    player.call("GET", "/v1/peers", query=of_circle)
    player.call("DELETE", "/v1/register", of_circle | {"node_id": ann.node_id})


@functools.cache
def _ticket(number: int, peer_id: str) -> dict[str, Any]:
    """Sign a ticket, once for all hosts."""
    made = ticket.create(
        SigningKey(number.to_bytes(32, "big")),
        peer_id=peer_id,
        user_id="somebody",
        now_ms=int(time.time() * 1000),
        nonce=bytes(12),
        ttl_ms=1_800_000,
    )
    return dict(made.to_json())


def _announce(player: Player) -> None:
    ann, bob, thief = _ticket(1, "peer-ann"), _ticket(2, "peer-bob"), _ticket(3, "peer-ann")
    for body in (
        *({"ticket": ann}, {"ticket": bob}, {"ticket": ann}, {"ticket": thief}),
        {"ticket": bob | {"payload": bob["payload"] | {"peerId": "peer-eve"}}},
        *({"ticket": bob | {"signature": "***"}}, {"ticket": None}, {}),
    ):
        player.call("POST", "/announce", body)
    player.call("POST", "/announce", {"ticket": bob}, query={"community": "other"})
    player.call("GET", "/peers")
    for community in ("other", "empty", "../x"):
        player.call("GET", "/peers", query={"community": community})
    player.call("OPTIONS", "/announce")
    player.call("PUT", "/peers")


def _meet(player: Player, ann: Node, bob: Node, eve: Node, hint: str) -> None:
    of_circle = {"circle_hint": hint}
    endpoint = {"transport": "tcp", "host": "192.0.2.7", "port": 9999}
    here = of_circle | {"node_id": ann.node_id, "endpoints": [endpoint]}
    key = {"signing_key": ann.key.hex()}
    player.call("GET", "/v1/health")
    player.call("GET", "/v1/info")
    player.call("OPTIONS", "/v1/register")
    player.call("GET", "/v1/nothing")
    player.call("PUT", "/v1/peers")
    player.call("POST", "/v1/health")
    player.call("POST", "/v1/register", here | key)
    player.call("POST", "/v1/register", here | key, by=ann, at=-400)
    player.call("POST", "/v1/register", here | key, by=bob)
    player.call("POST", "/v1/register", here | key | {"endpoints": [{}]}, by=ann)
    player.call("POST", "/v1/register", here | key | {"ttl_s": 9999}, by=ann)
    player.call("POST", "/v1/register", here | key | {"node_id": bob.node_id}, by=bob)
    player.call("POST", "/v1/register", here | {"signing_key": eve.key.hex()}, by=eve)
    player.call("GET", "/v1/peers", by=ann, query=of_circle)
    player.call("GET", "/v1/peers", by=eve, query=of_circle)
    player.call("GET", "/v1/peers", query=of_circle)
    player.call("GET", "/v1/peers", by=ann)
    once = bob.headers("GET", "/v1/peers", b"")
    player.call("GET", "/v1/peers", query=of_circle | {"limit": "1"}, headers=once)
    player.call("GET", "/v1/peers", query=of_circle, headers=once)
    octets = {"content-type": "application/octet-stream"}
    player.call("POST", "/v1/messages", b"\xff", headers=octets)
    for body in (b"{", b"[]", b'{"a":1,"a":2}', b'{"a":NaN}', b"x" * (1024 * 1024 + 1)):
        player.call("POST", "/v1/messages", body)


def _leave_and_collect(player: Player, ann: Node, bob: Node, hint: str) -> None:
    of_circle = {"circle_hint": hint}
    message = {"msg_id": "m0000001", "created_ts": 1, "text": 'é "quoted" \u2028', "n": 1.5}
    player.call("POST", "/v1/messages", of_circle | {"messages": [message]}, by=ann)
    player.call("POST", "/v1/messages", of_circle | {"messages": [message]}, by=bob)
    player.call("POST", "/v1/messages", of_circle | {"messages": [{"msg_id": "short"}]}, by=ann)
    player.call("POST", "/v1/messages", of_circle | {"messages": [message] * 51}, by=ann)
    player.call("POST", "/v1/messages", of_circle, by=ann)
    player.call("GET", "/v1/messages", by=bob, query=of_circle | {"since": "0"})
    page = player.call("GET", "/v1/messages", by=bob, query=of_circle | {"after": "0"})
    player.call("GET", "/v1/messages", by=bob, query=of_circle | {"after": str(page["cursor"])})
    player.call("GET", "/v1/messages", by=bob, query=of_circle | {"after": "soon"})
    signal = of_circle | {
        "session_id": "ann-00001:bob-00002",
        "from_node_id": ann.node_id,
        "to_node_id": bob.node_id,
        "type": "offer",
        "payload": "v=0",
    }
    left = player.call("POST", "/v1/signal", signal, by=ann)
    player.call("POST", "/v1/signal", signal, by=bob)
    player.call("POST", "/v1/signal", signal | {"type": "wave"}, by=ann)
    for_bob = of_circle | {"to_node_id": bob.node_id}
    player.call("GET", "/v1/signal", by=bob, query=for_bob)
    player.call("GET", "/v1/signal", by=bob, query=for_bob | {"since_id": str(left["id"])})
    player.call("GET", "/v1/signal", by=ann, query=for_bob)


def _subscribe(player: Player, ann: Node, bob: Node, hint: str) -> None:
    of_circle = {"circle_hint": hint}
    player.open()
    player.open(query=f"circle_hint={hint}&node_id=bob-00002")
    player.open(query="token=muster1.e30.AAAA")
    player.call("POST", "/v1/relay/subscription", of_circle | {"node_id": bob.node_id})
    asked = of_circle | {"node_id": bob.node_id}
    token = player.call("POST", "/v1/relay/subscription", asked, by=bob)["token"]
    player.open(query=f"token={token}&circle_hint=0123456789abcdef")
    player.open(query=f"token={token[:-8]}AAAAAAAA")
    line = player.open(offer=("muster.v1", token))
    assert line
    player.hear(line, until="MESSAGES")
    for n, by in ((2, ann), (3, bob), (4, ann)):
        messages = [{"msg_id": f"m{n:07}", "text": "x" * n}]
        player.call("POST", "/v1/messages", of_circle | {"messages": messages}, by=by)
    player.hear(line)
    signal = of_circle | {
        "session_id": "ann-00001:bob-00002",
        "from_node_id": ann.node_id,
        "to_node_id": bob.node_id,
        "type": "candidate",
        "payload": "candidate:1",
    }
    player.call("POST", "/v1/signal", signal, by=ann)
    here = of_circle | {"node_id": ann.node_id, "endpoints": []}
    player.call("POST", "/v1/register", here, by=ann)
    player.hear(line)
    for text in ("[]", "{", '{"t":"WAVE"}', '{"t":"PONG"}', "x" * 32_768):
        line.send(text)
    player.hear(line)
    line.close()


def _relay(player: Player, ann: Node, bob: Node, hint: str) -> None:
    asked = {"circle_hint": hint, "node_id": ann.node_id, "target_node_id": bob.node_id}
    back = asked | {"node_id": bob.node_id, "target_node_id": ann.node_id}
    player.call("POST", "/v1/relay/session", asked | {"target_node_id": "nobody-01"}, by=ann)
    player.call("POST", "/v1/relay/session", asked | {"target_node_id": ann.node_id}, by=ann)
    player.call("POST", "/v1/relay/session", asked)
    mine = player.call("POST", "/v1/relay/session", asked, by=ann)
    theirs = player.call("POST", "/v1/relay/session", back, by=bob)
    near = player.open(headers={"Authorization": f"Bearer {mine['token']}"})
    assert near
    frame = {"t": "FRAME", "session_id": mine["session_id"], "seq": 1, "payload_b64": "AAAA"}
    near.send(json.dumps(frame))
    player.hear(near)
    far = player.open(query=f"token={theirs['token']}")
    assert far
    player.hear(far, until="ATTACHED")
    player.hear(near, until="ATTACHED")
    near.send(json.dumps(frame | {"seq": 2}))
    player.hear(near, until="ACK")
    player.hear(far)
    far.send(json.dumps({"t": "ACK", "session_id": mine["session_id"], "seq": 2}))
    player.hear(far)
    player.hear(near)
    for change in (
        {"session_id": "somewhere-else"},
        {"seq": -1},
        {"seq": 2**53},
        {"payload_b64": "%"},
        {"payload_b64": "AAAA" * 5462},
    ):
        near.send(json.dumps(frame | change))
        player.hear(near)
    again = player.open(headers={"Authorization": f"Bearer {mine['token']}"})
    assert again
    player.hear(again, until="ATTACHED")
    player.hear(near, until="closed")
    far.close()
    player.hear(again, until="GONE")
    again.close()


PLAYS = {"refuse": signed, "allow": unsigned}
