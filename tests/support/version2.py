"""Members of a circle of version 2, who call a service by whatever passes calls on."""

from __future__ import annotations

import contextlib
import json
import secrets
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any
from urllib.error import HTTPError
from urllib.request import Request, urlopen

from websockets.sync.client import ClientConnection, connect
from websockets.typing import Subprotocol

from capsules.keys import SigningKey, VerifyKey
from chalicelib.call import Call, Connection, Effect
from chalicelib.circle import sockets
from chalicelib.circle.sockets import Opened
from muster import base64url, calls, keys, presences, records, signals
from muster.calls import Answer, Authorization, Credential, Proof
from tests.support.circle import World

DAY_MS = 86_400_000

Pass = Callable[[str, str, Mapping[str, str], bytes], tuple[int, Mapping[str, str], bytes]]
"""Method, path, headers and body in; status, headers in lower case, and body out."""


def founded() -> tuple[VerifyKey, keys.Epoch]:
    """A new circle's founder key and its first epoch."""
    founder = SigningKey(secrets.token_bytes(32)).verify_key
    return founder, keys.Epoch.first(founder)


def new_epoch() -> keys.Epoch:
    """The first epoch of a new circle."""
    return founded()[1]


@dataclass
class Node:
    """A node of a circle at one service."""

    epoch: keys.Epoch
    send: Pass
    clock_ms: Callable[[], int]
    service_id: bytes = b""
    code: str = ""
    member: keys.Member = field(init=False)

    def __post_init__(self) -> None:
        self.member = keys.Member(self.epoch.circle_id, secrets.token_bytes(32))
        self.node = self.member.node(self.epoch)
        self.answers: list[Answer] = []
        if not self.service_id:
            status, _, body = self.send("GET", "/v2/info", {}, b"")
            assert status == 200, body
            self.service_id = bytes.fromhex(json.loads(body)["service_id"])

    @property
    def id(self) -> str:
        return self.node.id.hex()

    def credential(self, *, expires_ms: int = 0) -> Credential:
        until = expires_ms or self.clock_ms() + 7 * DAY_MS
        return Credential.make(self.epoch.circle_key, self.node.public, expires_ms=until)

    def header(
        self,
        body: bytes,
        *,
        call: str = calls.SYNC,
        at_ms: int | None = None,
        credential: Credential | None = None,
    ) -> Authorization:
        made = credential or self.credential()
        proof = Proof.make(
            self.node.key,
            made,
            call=call,
            service=self.service_id,
            body=body,
            at_ms=self.clock_ms() if at_ms is None else at_ms,
        )
        tag = calls.access_tag(self.code, self.service_id, made) if self.code else b""
        return Authorization(made.raw, proof, tag)

    def raw(
        self, body: bytes, header: Authorization | None = None
    ) -> tuple[int, Mapping[str, str], Any]:
        """Make a sync with a body as it is; whatever is answered to a proof is signed."""
        header = header or self.header(body)
        said = {"authorization": header.header, "content-type": "application/json"}
        status, headers, answer = self.send("POST", "/v2/sync", said, body)
        if calls.ANSWER.lower() in headers:
            signed = Answer.parse(headers[calls.ANSWER.lower()])
            signed.check(self.service_id, header.proof.raw, status=status, body=answer)
            self.answers.append(signed)
        return status, headers, json.loads(answer)

    def sync(self, **asked: Any) -> Any:
        """Sync, and see that it is answered and signed."""
        status, headers, answer = self.raw(json.dumps(asked).encode())
        assert status == 200, answer
        assert calls.ANSWER.lower() in headers
        return answer

    def presence(self, name: str = "Ada", *, at_ms: int | None = None) -> str:
        at = self.clock_ms() if at_ms is None else at_ms
        made = presences.Presence.of(self.node, name=name, at_ms=at)
        return base64url.encode(presences.seal(self.node, made, nonce=secrets.token_bytes(12)))

    def message(self, text: str, *, seq: int = 1, prev: bytes | None = None) -> str:
        record = records.Record(
            self.epoch.circle_id,
            self.epoch.number,
            self.member.public,
            seq,
            prev,
            self.clock_ms(),
            records.GENERAL,
            "text",
            {"text": text},
        )
        said = record.said(self.member)
        return base64url.encode(records.seal(self.epoch, said, nonce=secrets.token_bytes(12)))

    def signal(self, to: Node, kind: str = "connect") -> dict[str, Any]:
        made = signals.Signal(
            self.node.public, to.node.id, secrets.token_bytes(16), kind, self.clock_ms(), {}
        )
        sealed = signals.seal(self.node, made, nonce=secrets.token_bytes(12))
        return {"to": to.id, "sealed": base64url.encode(sealed)}

    def texts(self, answer: Any) -> list[str]:
        """Read the texts of an answer's entries."""
        found = []
        for entry in answer["entries"]:
            for sealed in entry["messages"]:
                said = records.unseal(self.epoch, base64url.decode(sealed))
                record = records.Record.from_said(self.epoch.circle_id, said)
                found.append(str(record.body["text"]))
        return found

    def names(self, answer: Any) -> list[str]:
        """Read the names of an answer's peers."""
        return [
            presences.unseal(
                self.epoch, bytes.fromhex(peer["node_id"]), base64url.decode(peer["sealed"])
            ).name
            for peer in answer["peers"]
        ]


def in_world(here: World, epoch: keys.Epoch | None = None, *, source_ip: str = "192.0.2.1") -> Node:
    """A node whose calls a world answers."""

    def send(
        method: str, path: str, headers: Mapping[str, str], body: bytes
    ) -> tuple[int, Mapping[str, str], bytes]:
        lower = {name.lower(): value for name, value in headers.items()}
        reply = here.reply(
            Call(method, path, headers=lower, body=body, source_ip=source_ip, clock=here.clock)
        )
        told = {name.lower(): value for name, value in reply.headers.items()}
        return reply.status, told, reply.body

    return Node(epoch or new_epoch(), send, lambda: int(here.clock * 1000))


@dataclass
class Wire:
    """A node's socket, as a gateway holds it."""

    here: World
    node: Node
    id: str
    header: Authorization | None = None
    opened: Opened = field(init=False)

    def __post_init__(self) -> None:
        self.header = self.header or self.node.header(b"", call=calls.OPEN)
        self.vouched = self.header.credential
        call = Call(
            "GET",
            "/v2/socket",
            headers={"sec-websocket-protocol": f"muster.v2, {self.header.text}"},
            source_ip="192.0.2.1",
            clock=self.here.clock,
        )
        self.connection = Connection(self.id)
        self.opened = sockets.open_socket(self.here.service, call, self.connection)
        self.deliver(self.opened.effects)
        self.deliver(sockets.greet(self.here.service, self.connection, now=self.here.now))

    def deliver(self, effects: Iterable[Effect]) -> None:
        sockets.deliver(self.here.service, effects, now=self.here.now)

    def say(self, frame: Any) -> list[dict[str, Any]]:
        """Send a frame; return what came back."""
        text = frame if isinstance(frame, str) else json.dumps(frame)
        service, now = self.here.service, self.here.now
        self.deliver(sockets.receive(service, self.connection, text, now=now))
        return self.told()

    def raw_sync(self, body: str, *, n: int = 1) -> list[dict[str, Any]]:
        """Sync by a frame with a body as it is; return what came back."""
        self.last = self.node.header(
            body.encode(), call=calls.FRAME, credential=Credential.from_bytes(self.vouched)
        )
        proof = base64url.encode(self.last.proof.raw)
        return self.say({"t": "SYNC", "n": n, "proof": proof, "body": body})

    def told(self) -> list[dict[str, Any]]:
        return self.here.gateway.take(self.id)

    def sync(self, n: int = 1, **asked: Any) -> Any:
        """Sync by a frame; the answer is for it, signed, and good."""
        body = json.dumps(asked)
        told = self.raw_sync(body, n=n)
        header = self.last
        if asked.get("quiet") and not told:
            return None
        (answer,) = [frame for frame in told if frame["t"] == "SYNCED"]
        signed = Answer.parse(answer["answer"])
        said = answer["body"].encode()
        signed.check(self.node.service_id, header.proof.raw, status=answer["status"], body=said)
        assert (answer["n"], answer["status"]) == (n, 200), answer
        return json.loads(said)

    def close(self) -> None:
        effects = sockets.closed(self.here.service, self.connection, now=self.here.now)
        self.deliver(effects)


def passing(base: str) -> Pass:
    """Pass calls on to a service."""

    def send(
        method: str, path: str, headers: Mapping[str, str], body: bytes
    ) -> tuple[int, Mapping[str, str], bytes]:
        data = body if method == "POST" else None
        asked = Request(base + path, data=data, headers=dict(headers), method=method)  # noqa: S310
        try:
            with urlopen(asked, timeout=20) as answer:  # noqa: S310 - our own server
                found = answer.status, answer.headers, answer.read()
        except HTTPError as error:
            found = error.code, error.headers, error.read()
        return found[0], {name.lower(): value for name, value in found[1].items()}, found[2]

    return send


@contextlib.contextmanager
def opened(node: Node, base: str, *, header: Authorization | None = None) -> Iterator[Any]:
    """Open a node's socket as a browser does: what it shows stands among the subprotocols."""
    shown = header or node.header(b"", call=calls.OPEN)
    offered = [Subprotocol("muster.v2"), Subprotocol(shown.text)]
    told = json.loads(node.send("GET", "/v2/info", {}, b"")[2])["socket"]
    # behind the emulated gateway the address is of AWS
    url = (
        told if told.startswith("ws://127.0.0.1") else base.replace("http", "ws", 1) + "/v2/socket"
    )
    with connect(url, subprotocols=offered, proxy=None, max_size=None) as wire:
        assert wire.subprotocol == "muster.v2"
        yield Socket(node, wire, shown)


class Socket:
    """A node's open socket."""

    def __init__(self, node: Node, wire: ClientConnection, shown: Authorization) -> None:
        self.node, self.wire = node, wire
        self.credential = Credential.from_bytes(shown.credential)

    def hear(self) -> Any:
        return json.loads(self.wire.recv(timeout=20))

    def say(self, **frame: Any) -> None:
        self.wire.send(json.dumps(frame))

    def sync(self, **asked: Any) -> Any:
        body = json.dumps(asked)
        header = self.node.header(body.encode(), call=calls.FRAME, credential=self.credential)
        self.say(t="SYNC", n=5, proof=base64url.encode(header.proof.raw), body=body)
        told = self.hear()
        assert (told["t"], told["n"], told["status"]) == ("SYNCED", 5, 200)
        said = told["body"].encode()
        signed = Answer.parse(told["answer"])
        signed.check(self.node.service_id, header.proof.raw, status=200, body=said)
        return json.loads(said)


def converse(base: str) -> None:
    """Have two nodes do at a service whatever a sync can do, refused parts included."""
    epoch = new_epoch()

    def clock_ms() -> int:
        return int(time.time() * 1000)

    ann, bob = (Node(epoch, passing(base), clock_ms) for _ in range(2))
    whole = {"peers": True, "messages": 9, "signals": 9}
    large = {"messages": [ann.message("x" * 20_000)]}
    body = json.dumps({"presence": {"sealed": ann.presence()}, "send": large}).encode()
    header = ann.header(body)
    assert ann.raw(body, header)[2]["refused"] == {}
    again = ann.raw(body, header)[2]["refused"]
    assert {part["code"] for part in again.values()} == {"OUTDATED"}
    ann.sync(send={"messages": [ann.message("x" * 400_000)], "signals": [ann.signal(bob)]})
    found = bob.sync(presence=None, want=whole)
    assert len(found["entries"]) == 2
    assert len(found["signals"]) == len(found["peers"]) == 1
    with opened(ann, base) as hers, opened(bob, base) as his:
        hers.sync(presence={"sealed": ann.presence(), "tell": True}, quiet=False)
        assert his.hear()["t"] == "EVENT"
        his.say(t="FRAME", n=1, to=ann.id, payload="AAAA")
        assert hers.hear()["from"] == bob.id
        assert his.hear() == {"t": "TAKEN", "n": 1}
