"""A client of version 2 from docs/protocol2.md alone: what the page does not say shows here."""

import base64
import json
import os
import time
from hashlib import sha256
from typing import Any
from urllib.request import Request, urlopen

from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.kdf.hkdf import HKDF
from websockets.sync.client import ClientConnection, connect


def b64(raw: bytes) -> str:
    return base64.urlsafe_b64encode(raw).decode().rstrip("=")


def unb64(text: str) -> bytes:
    return base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))


def label(what: str) -> bytes:
    return f"muster2 {what}\n".encode()


def identify(what: str, key: bytes) -> bytes:
    return sha256(label(what) + key).digest()[:16]


def derive(secret: bytes, salt: bytes, what: str) -> bytes:
    return HKDF(hashes.SHA256(), 32, salt, label(what)).derive(secret)


def signer(seed: bytes) -> tuple[Ed25519PrivateKey, bytes]:
    key = Ed25519PrivateKey.from_private_bytes(seed)
    return key, key.public_key().public_bytes_raw()


def canonical(value: dict[str, Any]) -> bytes:
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False).encode()


class Member:
    def __init__(self, code: str, name: str) -> None:
        invite = json.loads(unb64(code.removeprefix("muster2.")))
        self.name, self.secret = name, os.urandom(32)
        self.epoch, self.epoch_secret = invite["epoch"], unb64(invite["secret"])
        self.circle_id = identify("circle", unb64(invite["circle"]))
        self.salt = self.circle_id + self.epoch.to_bytes(4, "big")
        self.circle_key, self.circle = signer(derive(self.epoch_secret, self.salt, "circle key"))
        self.hint = identify("hint", self.circle)
        self.member_key, self.member = signer(derive(self.secret, self.circle_id, "member key"))
        self.node_key, self.node = signer(derive(self.secret, self.hint, "node key"))
        self.node_id = identify("node", self.node)
        box = X25519PrivateKey.from_private_bytes(derive(self.secret, self.circle_id, "box key"))
        self.box = box.public_key().public_bytes_raw()
        self.url, _, fragment = invite["services"][0].partition("#")
        self.service = bytes.fromhex(fragment.partition("&")[0])
        self.seq, self.cursor = 0, 0
        self.prev: str | None = None

    def call(self, **asked: Any) -> Any:
        body = json.dumps(asked).encode()
        header, proof = self.header("POST /v2/sync", body)
        request = Request(self.url + "/v2/sync", data=body, headers=header)  # noqa: S310
        with urlopen(request, timeout=20) as reply:  # noqa: S310 - the service of the invite
            answer, status, said = unb64(reply.headers["Muster-Answer"]), reply.status, reply.read()
        assert identify("service", answer[:32]) == self.service
        when = int.from_bytes(answer[32:40], "big")
        told = (sha256(proof).hexdigest(), status, sha256(said).hexdigest(), when)
        line = label("answer") + "".join(f"{one}\n" for one in told).encode()
        Ed25519PublicKey.from_public_bytes(answer[:32]).verify(answer[40:], line)
        return json.loads(said)

    def header(self, call: str, body: bytes) -> tuple[dict[str, str], bytes]:
        at = time.time_ns() // 10**6
        until = (at + 7 * 86_400_000).to_bytes(8, "big")
        vouched = self.circle_key.sign(label("credential") + self.node + until)
        credential = self.circle + self.node + until + vouched
        lines = (
            call,
            self.service.hex(),
            sha256(body).hexdigest(),
            sha256(credential).hexdigest(),
            at,
        )
        signed = label("call") + "".join(f"{line}\n" for line in lines).encode()
        proof = at.to_bytes(8, "big") + self.node_key.sign(signed)
        return {"Authorization": f"Muster2 {b64(credential)}.{b64(proof)}"}, proof

    def open(self) -> ClientConnection:
        with urlopen(self.url + "/v2/info", timeout=20) as reply:  # noqa: S310
            where = json.loads(reply.read())["socket"]
        return connect(where, additional_headers=self.header("GET /v2/socket", b"")[0], proxy=None)

    def cipher(self, kind: str) -> AESGCM:
        return AESGCM(derive(self.epoch_secret, self.salt, f"seal {kind}"))

    def seal(self, kind: str, key: Ed25519PrivateKey, text: bytes, bound: bytes, size: int) -> str:
        plain = len(text).to_bytes(4, "big") + key.sign(label(kind) + text) + text
        filled = plain.ljust((size or -(-(len(plain) + 28) // 256) * 256) - 28, b"\0")
        nonce = os.urandom(12)
        return b64(nonce + self.cipher(kind).encrypt(nonce, filled, label(kind) + bound))

    def unseal(self, kind: str, sealed: str, bound: bytes, who: str) -> Any:
        raw = unb64(sealed)
        plain = self.cipher(kind).decrypt(raw[:12], raw[12:], label(kind) + bound)
        text = plain[68 : 68 + int.from_bytes(plain[:4], "big")]
        found, head = json.loads(text), (text, kind, self.circle_id.hex())
        assert (canonical(found), found["is"], found["circle"]) == head
        key = Ed25519PublicKey.from_public_bytes(unb64(found[who]))
        key.verify(plain[4:68], label(kind) + text)
        return found

    def text(self, what: str, **members: Any) -> bytes:
        said = {"is": what, "circle": self.circle_id.hex(), "at_ms": time.time_ns() // 10**6}
        return canonical(said | members)

    def arrive(self) -> Any:
        bond = self.member_key.sign(label("bond") + self.hint + self.node + self.box)
        keys = {"node": self.node, "member": self.member, "box": self.box, "bond": bond}
        said = {name: b64(raw) for name, raw in keys.items()}
        text = self.text("presence", name=self.name, endpoints=[], abilities=[], **said)
        sealed = self.seal("presence", self.node_key, text, self.hint + self.node_id, 640)
        return self.call(presence={"sealed": sealed, "ttl_s": 120})

    def say(self, words: str) -> Any:
        self.seq += 1
        place = {"epoch": self.epoch, "author": b64(self.member), "seq": self.seq}
        body = {"channel": "00" * 16, "kind": "text", "body": {"text": words}}
        text = self.text("record", prev=self.prev, **place, **body)
        self.prev = sha256(label("record") + text).hexdigest()
        sealed = self.seal("record", self.member_key, text, self.hint, 0)
        return self.call(send={"messages": [sealed]})

    def read(self) -> tuple[list[str], list[str]]:
        want, texts, names = {"peers": True, "messages": 200}, [], []
        found = self.call(want=want, after={"messages": self.cursor})
        for entry in found["entries"]:
            self.cursor = entry["number"]
            texts += [self.unseal("record", one, self.hint, "author") for one in entry["messages"]]
        for peer in found["peers"]:
            bound = self.hint + bytes.fromhex(peer["node_id"])
            names.append(self.unseal("presence", peer["sealed"], bound, "node")["name"])
        return names, [one["body"]["text"] for one in texts]
