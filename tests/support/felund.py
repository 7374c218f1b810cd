"""The existing clients, written anew from what is known of their wire, and from nothing of ours.

`PythonClient` calls as the terminal client does (urllib, a connection a call,
everything but health signed), `WebClient` as the browser client does: through a
small browser that enforces CORS, signing only register, unregister and peers.
"""

import base64
import hashlib
import hmac
import http.client
import json
import os
import time
import urllib.error
import urllib.request
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple
from urllib.parse import quote, urlencode, urlsplit

from websockets.sync.client import ClientConnection, connect
from websockets.typing import Origin

PAGE_ORIGIN = "https://chat.example"
SAFE_METHODS = {"GET", "HEAD", "POST"}
SAFE_TYPES = {"text/plain", "application/x-www-form-urlencoded", "multipart/form-data"}


class Got(NamedTuple):
    """An answer as a client sees it; header names in lower case."""

    status: int
    headers: dict[str, str]
    raw: bytes

    def json(self) -> Any:
        return json.loads(self.raw)


@dataclass(frozen=True)
class Circle:
    """What members of a circle share, and what follows from it."""

    secret: bytes

    @property
    def circle_id(self) -> str:
        return hashlib.sha256(self.secret).hexdigest()[:24]

    @property
    def hint(self) -> str:
        return hashlib.sha256(self.circle_id.encode()).hexdigest()[:16]

    @property
    def signing_key(self) -> bytes:
        return hmac.new(self.secret, b"api-v1", hashlib.sha256).digest()


def new_circle() -> Circle:
    return Circle(os.urandom(32))


def signature(key: bytes, method: str, path: str, body: bytes, ts: int, nonce: str) -> str:
    """Sign a call; everything is joined without separators, the query is left out."""
    canonical = method.upper() + path + hashlib.sha256(body).hexdigest() + str(ts) + nonce
    return hmac.new(key, canonical.encode(), hashlib.sha256).hexdigest()


def signed(circle: Circle, node_id: str, method: str, path: str, body: bytes) -> dict[str, str]:
    ts, nonce = int(time.time()), os.urandom(16).hex()
    return {
        "X-Felund-Node": node_id,
        "X-Felund-Ts": str(ts),
        "X-Felund-Nonce": nonce,
        "X-Felund-Signature": signature(circle.signing_key, method, path, body, ts, nonce),
    }


def sealed(circle: Circle, node_id: str, created: int, *, msg_id: str = "") -> dict[str, Any]:
    """Make a message as both clients push it; each time it is pushed it is sealed anew."""
    return {
        "msg_id": msg_id or os.urandom(16).hex(),
        "circle_id": circle.circle_id,
        "channel_id": "general",
        "author_node_id": node_id,
        "created_ts": created,
        "enc": {
            "alg": "AES-256-GCM",
            "key_id": "epoch-0",
            "nonce": base64.b64encode(os.urandom(12)).decode(),
            "ciphertext": base64.b64encode(os.urandom(60)).decode(),
        },
    }


class _NoRedirect(urllib.request.HTTPRedirectHandler):
    def redirect_request(self, *args: Any) -> None:
        return None


_opener = urllib.request.build_opener(_NoRedirect, urllib.request.ProxyHandler({}))


@dataclass
class PythonClient:
    """The terminal client: 8 s cycles of register, peers, push and pull."""

    base: str
    circle: Circle
    node_id: str = field(default_factory=lambda: os.urandom(12).hex())
    signs: bool = True
    since: int = 0
    known: dict[str, dict[str, Any]] = field(default_factory=dict)

    def request(
        self,
        method: str,
        path: str,
        body: Any = None,
        *,
        query: Mapping[str, Any] | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> Got:
        """Make a call as urllib does: a new connection, a content type even on GET."""
        raw = b"" if body is None else json.dumps(body).encode()
        made = {"Content-Type": "application/json"}
        if headers is not None:
            made |= headers
        elif self.signs:
            made |= signed(self.circle, self.node_id, method, path, raw)
        url = self.base.rstrip("/") + "/v1" + path + ("?" + urlencode(query) if query else "")
        asked = urllib.request.Request(  # noqa: S310 - loopback, by http
            url, data=raw or None, headers=made, method=method
        )
        try:
            with _opener.open(asked, timeout=8) as answer:
                return _got(answer.status, answer.headers, answer.read())
        except urllib.error.HTTPError as error:
            with error:
                return _got(error.code, error.headers, error.read())

    def health(self) -> Got:
        return self.request("GET", "/health", headers={})

    def register(self, **more: Any) -> Got:
        body = {
            "node_id": self.node_id,
            "circle_hint": self.circle.hint,
            "endpoints": [
                {
                    "transport": "tcp",
                    "host": "192.0.2.7",
                    "port": 9999,
                    "family": "ipv4",
                    "nat": "unknown",
                }
            ],
            "capabilities": {"relay": False, "transport": ["tcp"], "can_anchor": False},
            "ttl_s": 120,
        }
        if self.signs:
            body["signing_key"] = self.circle.signing_key.hex()
        return self.request("POST", "/register", body | more)

    def unregister(self) -> Got:
        body = {"node_id": self.node_id, "circle_hint": self.circle.hint}
        return self.request("DELETE", "/register", body)

    def peers(self, limit: int = 50) -> list[tuple[str, str, int]]:
        """Look up where the others are; one malformed endpoint ends the lookup with an error."""
        answer = self.request(
            "GET", "/peers", query={"circle_hint": self.circle.hint, "limit": limit}
        )
        assert answer.status == 200, answer
        found = []
        for peer in answer.json()["peers"]:
            for endpoint in peer["endpoints"]:
                if endpoint.get("transport") == "tcp" and endpoint.get("host"):
                    assert int(endpoint["port"]) > 0
                    found.append((peer["node_id"], endpoint["host"], endpoint["port"]))
                    break
        return found

    def say(self, text: str = "") -> str:
        """Compose a message; the next push takes it along."""
        message = sealed(self.circle, self.node_id, int(time.time()))
        self.known[message["msg_id"]] = message
        return str(message["msg_id"])

    def push(self) -> int:
        """Push the newest 100 of all messages, in batches of 50, sealed anew; how many were new."""
        stored = 0
        newest = list(self.known.values())[-100:]
        for start in range(0, len(newest), 50):
            batch = [
                sealed(self.circle, m["author_node_id"], m["created_ts"], msg_id=m["msg_id"])
                for m in newest[start : start + 50]
            ]
            answer = self.leave(batch)
            assert answer.status == 200, answer
            stored += answer.json()["stored"]
        return stored

    def leave(self, batch: Iterable[Mapping[str, Any]], **more: Any) -> Got:
        body = {"circle_hint": self.circle.hint, "messages": list(batch)}
        return self.request("POST", "/messages", body, **more)

    def pull(self) -> list[dict[str, Any]]:
        """Collect messages and keep the new ones; the next pull begins at `server_time`."""
        query = {"circle_hint": self.circle.hint, "since": self.since, "limit": 200}
        answer = self.request("GET", "/messages", query=query)
        assert answer.status == 200, answer
        found = answer.json()
        new = [message for message in found["messages"] if message["msg_id"] not in self.known]
        self.known |= {message["msg_id"]: message for message in new}
        self.since = max(self.since, found["server_time"])
        return new

    def cycle(self) -> None:
        """Do what it does every 8 s."""
        assert self.register().status == 200
        self.peers()
        self.push()
        self.pull()


class Blocked(Exception):
    """The browser did not let the page make or read this call."""


class Browser:
    """One page's connection: preflights, their cache, and who may read what."""

    def __init__(self) -> None:
        self.preflights = 0
        self._allowed: dict[tuple[str, str], tuple[float, set[str]]] = {}
        self._connections: dict[str, http.client.HTTPConnection] = {}

    def close(self) -> None:
        for connection in self._connections.values():
            connection.close()

    def fetch(
        self, method: str, url: str, body: bytes | None = None, headers: Mapping[str, str] = {}
    ) -> Got:
        """Make a call across origins; redirects are not followed."""
        parts = urlsplit(url)
        target = parts.path + ("?" + parts.query if parts.query else "")
        unsafe = {
            name.lower()
            for name, value in headers.items()
            if name.lower() != "content-type" or value not in SAFE_TYPES
        }
        if unsafe or method not in SAFE_METHODS:
            self._preflight(method, parts.netloc, parts.path, target, unsafe)
        got = self._send(method, parts.netloc, target, body, headers)
        if got.headers.get("access-control-allow-origin") not in ("*", PAGE_ORIGIN):
            raise Blocked(f"no page may read the answer to {method} {url}")
        assert not 300 <= got.status < 400
        return got

    def _preflight(self, method: str, netloc: str, path: str, target: str, names: set[str]) -> None:
        until, allowed = self._allowed.get((method, path), (0.0, set()))
        if until > time.monotonic() and names <= allowed:
            return
        self.preflights += 1
        asked = {
            "Access-Control-Request-Method": method,
            "Access-Control-Request-Headers": ",".join(sorted(names)),
        }
        got = self._send("OPTIONS", netloc, target, None, asked)
        if not 200 <= got.status < 300:
            raise Blocked(f"the preflight was answered {got.status}")
        if got.headers.get("access-control-allow-origin") not in ("*", PAGE_ORIGIN):
            raise Blocked("the preflight names no origin")
        if method not in SAFE_METHODS | _list(got, "access-control-allow-methods"):
            raise Blocked(f"the preflight does not allow {method}")
        allowed = {name.lower() for name in _list(got, "access-control-allow-headers")}
        if not names <= allowed:
            raise Blocked(f"the preflight does not allow {names - allowed}")
        until = time.monotonic() + int(got.headers.get("access-control-max-age", "5"))
        self._allowed[method, path] = until, allowed

    def _send(
        self,
        method: str,
        netloc: str,
        target: str,
        body: bytes | None,
        headers: Mapping[str, str],
    ) -> Got:
        every = {
            "User-Agent": "Mozilla/5.0 (X11; Linux x86_64) Chrome/140.0 Safari/537.36",
            "Accept": "*/*",
            "Accept-Encoding": "gzip, deflate, br, zstd",
            "Accept-Language": "en",
            "Origin": PAGE_ORIGIN,
            "Referer": PAGE_ORIGIN + "/",
            "Sec-Fetch-Mode": "cors",
            "Sec-Fetch-Site": "cross-site",
            "Sec-Fetch-Dest": "empty",
            **headers,
        }
        connection = self._connections.get(netloc)
        if connection is None:
            connection = http.client.HTTPConnection(netloc, timeout=8)
            self._connections[netloc] = connection
        connection.request(method, target, body=body, headers=every)
        answer = connection.getresponse()
        return _got(answer.status, answer.headers, answer.read())


@dataclass
class WebClient:
    """The browser client: signs half of its calls, polls, and listens on a socket a circle."""

    base: str
    circle: Circle
    browser: Browser
    node_id: str = field(default_factory=lambda: os.urandom(16).hex())
    since: int = 0
    known: dict[str, dict[str, Any]] = field(default_factory=dict)
    since_id: int = 0

    def url(self, path: str) -> str:
        """Join as it does everywhere but for signals: a base may end in /v1."""
        return self.base.strip().rstrip("/").removesuffix("/v1") + "/v1" + path

    def health(self) -> Got:
        return self.browser.fetch("GET", self.url("/health"))

    def register(self) -> Got:
        page = {"transport": "ws", "host": "chat.example", "port": 443}
        return self._signed(
            "POST",
            "/register",
            {
                "node_id": self.node_id,
                "circle_hint": self.circle.hint,
                "endpoints": [page | {"family": "ipv4", "nat": "unknown"}],
                "capabilities": {"relay": False, "transport": ["ws"], "can_anchor": False},
                "ttl_s": 120,
                "signing_key": self.circle.signing_key.hex(),
            },
        )

    def unregister(self) -> Got:
        """Say goodbye as the page closes, with `keepalive`."""
        body = {"node_id": self.node_id, "circle_hint": self.circle.hint}
        return self._signed("DELETE", "/register", body)

    def peers(self) -> list[str]:
        answer = self._signed("GET", "/peers", query=f"?circle_hint={self.circle.hint}&limit=50")
        assert answer.status == 200, answer
        return [peer["node_id"] for peer in answer.json()["peers"]]

    def leave(self, *messages: Mapping[str, Any]) -> Got:
        body = {"circle_hint": self.circle.hint, "messages": messages}
        return self._unsigned("POST", self.url("/messages"), body)

    def say(self) -> str:
        """Compose a message and push it."""
        message = sealed(self.circle, self.node_id, int(time.time()))
        assert self.leave(message).status == 200
        return str(message["msg_id"])

    def pull(self) -> list[dict[str, Any]]:
        """Collect messages; the next pull begins a second before `server_time`."""
        query = f"?circle_hint={self.circle.hint}&since={self.since}&limit=200"
        answer = self.browser.fetch("GET", self.url("/messages") + query)
        assert answer.status == 200, answer
        found = answer.json()
        new = [message for message in found["messages"] if message["msg_id"] not in self.known]
        self.known |= {message["msg_id"]: message for message in new}
        self.since = max(self.since, found["server_time"] - 1)
        return new

    def signal(self, to: "WebClient", kind: str, payload: Any, /, **more: Any) -> Got:
        """Leave a signal; here the base is joined without any regard for /v1."""
        body = {
            "session_id": session_id(self.node_id, to.node_id),
            "from_node_id": self.node_id,
            "to_node_id": to.node_id,
            "circle_hint": self.circle.hint,
            "type": kind,
            "payload": json.dumps(payload),
            "ttl_s": 60 if "candidate" in kind else 120,
        }
        url = self.base.strip().rstrip("/") + "/v1/signal"
        return self._unsigned("POST", url, body | more)

    def signals(self, since_id: int | None = None) -> list[dict[str, Any]]:
        """Poll for signals; without an id, from where this poller is."""
        since = self.since_id if since_id is None else since_id
        query = f"?to_node_id={quote(self.node_id)}&since_id={since}"
        answer = self.browser.fetch("GET", self.base.strip().rstrip("/") + "/v1/signal" + query)
        assert answer.status == 200, answer
        found: list[dict[str, Any]] = answer.json()["signals"]
        if since_id is None:
            self.since_id = max([self.since_id, *(one["id"] for one in found)])
        return found

    def socket(self) -> ClientConnection:
        """Open the circle's socket as a browser does."""
        query = f"?circle_hint={self.circle.hint}&node_id={quote(self.node_id)}"
        return browser_socket(self.url("/relay/ws") + query)

    def _signed(self, method: str, path: str, body: Any = None, *, query: str = "") -> Got:
        raw = None if body is None else _dumps(body)
        headers = {"Content-Type": "application/json"}
        headers |= signed(self.circle, self.node_id, method, path, raw or b"")
        return self.browser.fetch(method, self.url(path) + query, raw, headers)

    def _unsigned(self, method: str, url: str, body: Any) -> Got:
        return self.browser.fetch(method, url, _dumps(body), {"Content-Type": "application/json"})


class Page:
    """One page with several circles: a poller for each of them, and all of them hear everything.

    It offers a data channel in the circle that is shown, and answers whatever offer a
    poller hears in that poller's own circle. What comes first is taken, and whether it
    was meant for this circle shows when the two ends prove the circle's secret.
    """

    def __init__(self, base: str, circles: Iterable[Circle], browser: Browser) -> None:
        node_id = os.urandom(16).hex()
        self.pollers = [WebClient(base, circle, browser, node_id=node_id) for circle in circles]
        self.node_id = node_id
        self.offered: Circle | None = None
        self.outcomes: list[str] = []

    def offer(self, shown: int, to: "Page") -> None:
        """Show a circle and offer the other page a data channel in it."""
        own = self.pollers[shown]
        self.offered = own.circle
        assert own.signal(to.pollers[0], "offer", own.circle.hint).status == 200

    def poll(self, of: "Page", *, order: int = 1) -> None:
        """Let each poller ask, in this order or the other, and act on what it hears."""
        for own in self.pollers[::order]:
            for one in own.signals():
                self._hear(own, of.pollers[0], one["type"], json.loads(one["payload"]))

    def _hear(self, own: WebClient, of: WebClient, kind: str, circle_hint: str) -> None:
        if kind == "offer":
            for answer in ("answer", "candidate"):
                assert own.signal(of, answer, own.circle.hint).status == 200
        elif kind == "answer" and own.circle == self.offered:
            self.offered = None
            right = circle_hint == own.circle.hint
            self.outcomes.append("open" if right else "auth failed")


def session_id(one: str, other: str, *, call: str = "") -> str:
    """Name a data channel's session, or with *call* a call's."""
    joined = ":".join(sorted((one, other)))
    return f"media:{call}:{joined}" if call else joined


def browser_socket(url: str) -> ClientConnection:
    """Open a WebSocket with what a browser sends: an origin and an offer to compress."""
    where = url.replace("http", "ws", 1)
    return connect(
        where,
        origin=Origin(PAGE_ORIGIN),
        compression="deflate",
        ping_interval=None,
        proxy=None,
    )


def _got(status: int, headers: Any, raw: bytes) -> Got:
    return Got(status, {name.lower(): value for name, value in headers.items()}, raw)


def _dumps(body: Any) -> bytes:
    """Write JSON as JavaScript does."""
    return json.dumps(body, separators=(",", ":"), ensure_ascii=False).encode()


def _list(got: Got, name: str) -> set[str]:
    return {part.strip() for part in got.headers.get(name, "").split(",")}
