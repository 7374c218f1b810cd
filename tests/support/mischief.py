"""Bad input of all kinds, from a seed: requests, heads, garbage and WebSocket frames.

Everything here must be refused. What looks wrong but is not (an unknown member,
a since of `1.0`) has no place in it.
"""

import base64
import json
import os
import random
import struct
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

HINT = "bad-circle-0001"
REFUSED = frozenset({400, 401, 404, 405, 413})


class Bad(NamedTuple):
    """One bad request: what is wrong with it, its bytes, and the statuses it may get."""

    what: str
    raw: bytes
    statuses: frozenset[int] = REFUSED


def request(
    method: str, target: str | bytes, body: bytes = b"", headers: Sequence[tuple[str, str]] = ()
) -> bytes:
    """Write a request whose head is in order."""
    where = target if isinstance(target, bytes) else target.encode("latin-1")
    lines = [b"%s %s HTTP/1.1" % (method.encode(), where), b"Host: muster.test"]
    if body or method in ("POST", "DELETE"):
        lines.append(b"Content-Length: %d" % len(body))
    lines += [f"{name}: {value}".encode("latin-1") for name, value in headers]
    return b"\r\n".join([*lines, b"", b""]) + body


# --- bodies ---------------------------------------------------------------------------

ENDPOINT: dict[str, Any] = {"transport": "tcp", "host": "192.0.2.7", "port": 9999, "family": "ipv4"}
MESSAGE: dict[str, Any] = {"msg_id": "message-0001", "created_ts": 1_700_000_000, "text": "hello"}
GOOD: dict[tuple[str, str], dict[str, Any]] = {
    ("POST", "/v1/register"): {
        "node_id": "bad-node-0001",
        "circle_hint": HINT,
        "endpoints": [ENDPOINT],
        "capabilities": {"relay": False, "transport": ["tcp"], "can_anchor": False},
        "ttl_s": 120,
        "signing_key": "0f" * 32,
    },
    ("DELETE", "/v1/register"): {"node_id": "bad-node-0001", "circle_hint": HINT},
    ("POST", "/v1/messages"): {"circle_hint": HINT, "messages": [MESSAGE]},
    ("POST", "/v1/signal"): {
        "session_id": "bad-node-0001:bad-node-0002",
        "from_node_id": "bad-node-0001",
        "to_node_id": "bad-node-0002",
        "circle_hint": HINT,
        "type": "offer",
        "payload": "{}",
    },
    ("POST", "/v1/relay/session"): {
        "node_id": "bad-node-0001",
        "target_node_id": "bad-node-0002",
        "circle_hint": HINT,
        "ttl_s": 60,
    },
    ("POST", "/v1/relay/subscription"): {"node_id": "bad-node-0001", "circle_hint": HINT},
}
NAMES = ("node_id", "circle_hint", "session_id", "from_node_id", "to_node_id", "target_node_id")
REQUIRED = frozenset({*NAMES, "type", "payload"})

BAD_NAMES: tuple[Any, ...] = (
    "",
    "short",
    "x" * 301,
    "x" * 100_000,
    "with space",
    "newline\n",
    "newline\r\n",
    "\nnewline",
    "nul\x00nul\x00",
    "tab\ttab\t",
    "zoë-zoë-zoë",
    "🐳🐳🐳🐳🐳🐳🐳🐳",
    "\x7f" * 8,
    12345678,
    1.5,
    None,
    True,
    [],
    ["bad-node-0001"],
    {},
    {"bad-node-0001": 1},
)
BAD_TIMES: tuple[Any, ...] = (-1, 1.5, "1", None, True, [], {}, -(2**53) + 1, 0.0)
BAD_HOSTS: tuple[Any, ...] = ("", "h" * 256, "a b", "h\n", 1, None, [], "zoë")
BAD_MESSAGES: tuple[Any, ...] = (
    None,
    "messages",
    7,
    {},
    {"0": MESSAGE},
    [None],
    ["message"],
    [[]],
    [MESSAGE, 1],
    [MESSAGE, {}],
    [{"created_ts": 1}],
    [MESSAGE] * 51,
    *([MESSAGE | {"msg_id": name}] for name in BAD_NAMES),
    *([MESSAGE, MESSAGE | {"msg_id": "m" * 65}] for _ in range(2)),
    *([MESSAGE | {"created_ts": value}] for value in BAD_TIMES),
)
BAD_ENDPOINTS: tuple[Any, ...] = (
    None,
    "tcp",
    7,
    {},
    [None],
    ["tcp:192.0.2.7:1"],
    [ENDPOINT] * 17,
    *([ENDPOINT | {"port": port}] for port in (0, -1, 65536, 2**53 - 1, "80", 80.5, None, True)),
    *([ENDPOINT | {"host": host}] for host in BAD_HOSTS),
    *([ENDPOINT | {"transport": way}] for way in ("udp", "TCP", "", None, 1, ["tcp"], "t" * 9999)),
    *([ENDPOINT | {"family": kind}] for kind in ("ipv5", "", 4, None)),
    *([ENDPOINT | {"nat": kind}] for kind in ("cone", 1, None)),
    [{"transport": "tcp"}],
    [{}],
)
BAD_CAPABILITIES: tuple[Any, ...] = (
    None,
    [],
    "relay",
    {"relay": "yes"},
    {"relay": 1},
    {"can_anchor": None},
    {"transport": "tcp"},
    {"transport": [""]},
    {"transport": ["t" * 17]},
    {"transport": ["tcp"] * 9},
    {"transport": ["tcp\n"]},
    {"transport": [1]},
)
BAD_MEMBERS: dict[str, tuple[Any, ...]] = {
    **dict.fromkeys(NAMES, BAD_NAMES),
    "messages": BAD_MESSAGES,
    "endpoints": BAD_ENDPOINTS,
    "capabilities": BAD_CAPABILITIES,
    "ttl_s": ("60", None, True, [], {}, "9" * 400),
    "signing_key": (
        "",
        "0f" * 31,
        "0f" * 33,
        "zz" * 32,
        "0f" * 31 + "0\n",
        1,
        [],
        "0F " * 21 + "0",
    ),
    "type": ("", "bye", "OFFER", "offer\n", 1, None, [], "o" * 50_000),
    "payload": (None, 1, {}, [], "x" * 65_537, True),
}

# Members that nobody knows are ignored, so what is wrong here is the JSON itself.
BAD_VALUES = (
    "NaN",
    "Infinity",
    "-Infinity",
    "nan",
    "9007199254740992",
    "-9007199254740992",
    "9" * 400,
    "9" * 20_000,
    "1e999",
    "-1e999",
    "01",
    "+1",
    ".5",
    "1.",
    "0x10",
    "1_000",
    "'single'",
    '"\\ud800"',
    '"\\udc00\\ud800"',
    '{"\\udfff":1}',
    '["\\ud83d","\\ude00"]',
    '"\\x41"',
    '"\\u12"',
    '"a\nb"',
    '"a\x00b"',
    '{"a":1,"a":2}',
    '[{"b":{"a":1,"a":1}}]',
    "[" * 33 + "]" * 33,
    "[" * 5_000 + "]" * 5_000,
    '{"a":' * 40 + "1" + "}" * 40,
    "[1,]",
    '{"a":1,}',
    "{1:1}",
    "/* */ 1",
    "undefined",
    "True",
    "",
)

Mutation = Callable[[random.Random, dict[str, Any]], tuple[str, bytes]]


def _dumped(body: Any) -> bytes:
    return json.dumps(body).encode()


def _cut(chance: random.Random, body: dict[str, Any]) -> tuple[str, bytes]:
    raw = _dumped(body)
    return "cut off", raw[: chance.randrange(len(raw))]


def _not_utf_8(chance: random.Random, body: dict[str, Any]) -> tuple[str, bytes]:
    raw = _dumped(body)
    at = chance.randrange(len(raw) + 1)
    bad = chance.choice([b"\xff", b"\xc3", b"\xed\xa0\x80", b"\xf5\x80\x80\x80", b"\xc0\xaf"])
    return "not UTF-8", raw[:at] + bad + raw[at:]


def _other_coding(chance: random.Random, body: dict[str, Any]) -> tuple[str, bytes]:
    coding = chance.choice(["utf-8-sig", "utf-16", "utf-16-le", "utf-32"])
    return f"in {coding}", json.dumps(body).encode(coding)


def _no_object(chance: random.Random, body: dict[str, Any]) -> tuple[str, bytes]:
    value = chance.choice([[body], [], 1, "text", None, True, 1.5, json.dumps(body)])
    return "not an object", _dumped(value)


def _more_after(chance: random.Random, body: dict[str, Any]) -> tuple[str, bytes]:
    return "more after it", _dumped(body) + chance.choice([b"x", b"{}", b",", b"\x00", b"}", b"]"])


def _bad_value(chance: random.Random, body: dict[str, Any]) -> tuple[str, bytes]:
    text = chance.choice(BAD_VALUES)
    extra = f',"unknown":{text}}}'.encode("utf-8", "surrogatepass")
    return f"with {text[:24]!r}", _dumped(body)[:-1] + extra


def _twice(chance: random.Random, body: dict[str, Any]) -> tuple[str, bytes]:
    name = chance.choice(list(body))
    extra = f",{json.dumps(name)}:{json.dumps(body[name])}}}"
    return "a key twice", _dumped(body)[:-1] + extra.encode()


def _missing(chance: random.Random, body: dict[str, Any]) -> tuple[str, bytes]:
    name = chance.choice([name for name in body if name in REQUIRED])
    return f"without {name}", _dumped({n: value for n, value in body.items() if n != name})


def _bad_member(chance: random.Random, body: dict[str, Any]) -> tuple[str, bytes]:
    name = chance.choice([name for name in body if name in BAD_MEMBERS])
    value = chance.choice(BAD_MEMBERS[name])
    return f"{name}={str(value)[:24]!r}", _dumped(body | {name: value})


def _noise(chance: random.Random, body: dict[str, Any]) -> tuple[str, bytes]:
    return "noise", b"\x80" + chance.randbytes(chance.randrange(400))


MUTATIONS: tuple[Mutation, ...] = (
    _cut,
    _not_utf_8,
    _other_coding,
    _no_object,
    _more_after,
    _bad_value,
    _bad_value,
    _twice,
    _missing,
    _bad_member,
    _bad_member,
    _bad_member,
    _bad_member,
    _noise,
)


def _statuses(path: str) -> frozenset[int]:
    """Return how a bad body is refused; where calls must be signed, nobody looks at it."""
    return frozenset({401 if path.startswith("/v1/relay/") else 400, 413})


def bodies(chance: random.Random) -> Iterator[Bad]:
    """Yield requests with bad bodies, without end."""
    while True:
        (method, path), body = chance.choice(list(GOOD.items()))
        what, raw = chance.choice(MUTATIONS)(chance, body)
        yield Bad(f"{method} {path} {what}", request(method, path, raw), _statuses(path))


def large_bodies(chance: random.Random) -> Iterator[Bad]:
    """Yield requests with bodies of about a mebibyte, without end."""
    million = 1024 * 1024
    while True:
        method, path = chance.choice(list(GOOD))
        size = chance.choice([million - 500, million + 1, million + 70_000])
        filler = chance.choice([b"[", b"x", b'"', b"{}", b"1,", b"\xff", b'{"a":[0,'])
        raw = (filler * (size // len(filler) + 1))[:size]
        if chance.random() < 0.5:
            raw = b'{"unknown":[' + b"0," * (size // 2) + b"0]}"  # whole, but without a member
        yield Bad(f"{method} {path} large", request(method, path, raw), _statuses(path))


# --- queries, paths, methods, headers -------------------------------------------------

BAD_HINTS = (
    "",
    "short",
    "x" * 129,
    "x" * 5_000,
    "with%20space",
    "nul%00nul%00",
    "line%0aline",
    "line-line%0a",
    "zo%C3%ABzo%C3%AB",
    "%FF%FE%FD%FC%FB%FA%F9%F8",
    "%ED%A0%80%ED%A0%80",
    "%zz%zz%zz%zz",
    "trailing%",
    "trailing%4",
)
BAD_NUMBERS = (
    "",
    "x",
    "--5",
    "1-",
    "1.5",
    "1e999",
    "nan",
    "inf",
    "0x10",
    "1_000",
    "%C2%B2",
    "%D9%A3",
    "9007199254740992",
    "-9007199254740992",
    "9" * 400,
    "%00",
    "[]",
    "true",
    "5%0a",
)
OF_GET = {
    "/v1/peers": ("circle_hint", ("limit",)),
    "/v1/messages": ("circle_hint", ("since", "limit", "after")),
    "/v1/signal": ("to_node_id", ("since_id",)),
}


def queries(chance: random.Random) -> Iterator[Bad]:
    """Yield calls with bad queries, without end."""
    while True:
        path, (name, numbers) = chance.choice(list(OF_GET.items()))
        good = f"{name}={HINT}"
        number = chance.choice(numbers)
        query = chance.choice(
            [
                f"{name}={chance.choice(BAD_HINTS)}",
                f"{good}&{number}={chance.choice(BAD_NUMBERS)}",
                f"{good}&x=%{chance.choice(['', '4', 'zz', 'g0', '-1'])}",
                f"{good}&{chance.choice(['%FF', '%C3', '%ED%A0%80'])}=1",
                "&".join([good, *(f"p{n}=1" for n in range(chance.randint(65, 200)))]),
                "",
                name,
                f"{name.upper()}={HINT}",
                "&&&===&",
            ]
        )
        yield Bad(f"GET {path}?{query[:40]}", request("GET", f"{path}?{query}"), frozenset({400}))


def after_negative(chance: random.Random) -> Iterator[Bad]:
    """Yield cursors that cannot be, without end."""
    while True:
        target = f"/v1/messages?circle_hint={HINT}&after=-{chance.randint(1, 2**53 - 1)}"
        yield Bad("a cursor below nothing", request("GET", target), frozenset({400}))


METHODS = ["PUT", "PATCH", "TRACE", "LOCK", "MKCOL", "PROPFIND", "SEARCH", "REPORT", "PURGE"]
WORD = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-._~!$&'()*+,;=:@"


def paths(chance: random.Random) -> Iterator[Bad]:
    """Yield calls to what does not exist, and by methods that it does not take, without end."""
    known = ["/v1/register", "/v1/peers", "/v1/messages", "/v1/signal", "/v1/health", "/v1/info"]
    while True:
        path = "/" + "/".join(
            "".join(chance.choices(WORD, k=chance.randint(1, 12)))
            for _ in range(chance.randint(1, 6))
        )
        odd = chance.choice(
            [
                path,
                "/v1" + path,
                "/v1/../v1/health",
                "/v1/health/..%2f..%2fetc%2fpasswd",
                "/v1/health%00",
                "/v1/health%0d%0aX-Evil:%201",
                "/%ff%fe",
                "/v1/" + "a" * chance.randint(1, 4_000),
                "//v1/health",
                "/v1//health",
                "/v1/health/",
                "/V1/HEALTH",
                "/v1/%C0%AE%C0%AE/health",
                "/v1;x=1/health",
                "*",
            ]
        )
        method = chance.choice([*METHODS, "GET", "POST", "DELETE"])
        yield Bad(f"{method} {odd[:40]}", request(method, odd), frozenset({404}))
        method = chance.choice(METHODS)
        yield Bad(f"{method} on a path", request(method, chance.choice(known)), frozenset({405}))


def signatures(chance: random.Random) -> Iterator[Bad]:
    """Yield calls whose signature headers are bad, without end."""
    names = ["X-Felund-Node", "X-Felund-Ts", "X-Felund-Nonce", "X-Felund-Signature"]
    while True:
        values = ["bad-node-0001", "1800000000", "0f" * 16, "0f" * 32]
        for _ in range(chance.randint(1, 3)):
            values[chance.randrange(4)] = chance.choice(
                ["", "x", "-1", "9" * 400, "\xff" * 20, "a" * 9_000, "1e9", "NaN", "\t", "0f" * 64]
            )
        headers = [pair for pair in zip(names, values, strict=True) if chance.random() < 0.9]
        if not any(name in ("X-Felund-Ts", "X-Felund-Nonce") for name, _ in headers):
            headers.append(("X-Felund-Ts", "1800000000"))
        if chance.random() < 0.2:
            headers.append(chance.choice(headers))
        method, target, body = chance.choice(
            [
                ("GET", f"/v1/peers?circle_hint={HINT}", b""),
                ("GET", f"/v1/messages?circle_hint={HINT}", b""),
                *((m, p, _dumped(good)) for (m, p), good in GOOD.items()),
            ]
        )
        raw = request(method, target, body, headers)
        yield Bad("a bad signature", raw, frozenset({400, 401}))


# --- heads and garbage ----------------------------------------------------------------


def heads(chance: random.Random) -> Iterator[Bad]:
    """Yield what is hardly HTTP, without end; the connection ends with it."""
    start = b"POST /v1/messages HTTP/1.1\r\nHost: muster.test\r\n"
    while True:
        n = chance.randrange(256)
        yield Bad(
            "a bad head",
            chance.choice(
                [
                    start + b"Content-Length: abc\r\n\r\n",
                    start + b"Content-Length: -1\r\n\r\n",
                    start + b"Content-Length: 5\r\nContent-Length: 6\r\n\r\nhello",
                    start + b"Content-Length: " + b"9" * 30 + b"\r\n\r\n",
                    start + b"Content-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
                    start + b"Transfer-Encoding: chunked\r\n\r\nzz\r\nhello\r\n",
                    start + b"Transfer-Encoding: chunked\r\n\r\n" + b"f" * 20 + b"\r\n",
                    start + b"Transfer-Encoding: gzip\r\n\r\n",
                    start + b"No colon\r\n\r\n",
                    start + b"Bad name : x\r\n\r\n",
                    start + b"X\x00Y: 1\r\n\r\n",
                    start + b"X: " + bytes([n % 9]) + b"\r\n\r\n",
                    start + b": empty\r\n\r\n",
                    start + b"X: " + b"a" * chance.randint(40_000, 90_000) + b"\r\n\r\n",
                    start + b"".join(b"X-%d: 1\r\n" % i for i in range(150)) + b"\r\n",
                    b"GET /v1/health?"
                    + b"q" * chance.randint(9_000, 70_000)
                    + b" HTTP/1.1\r\n\r\n",
                    b"GET /v1/h\xc3\xa9alth HTTP/1.1\r\n\r\n",
                    b"GET /v1/health HTTP/9.9\r\n\r\n",
                    b"GET /nothing\r\n\r\n",
                    b"GET  /nothing  HTTP/1.1\r\n\r\n",
                    b"get /v1/health HTTP/1.1\r\n\r\n",
                    b"BREW /v1/health HTTP/1.1\r\n\r\n",
                    b"CONNECT muster.test:443 HTTP/1.1\r\n\r\n",
                    b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
                    b"\r\n\r\n\r\n\r\nGET",
                    b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + chance.randbytes(40),
                    b"SSH-2.0-OpenSSH_9.9\r\n",
                    b"EHLO muster.test\r\n",
                    b"*1\r\n$4\r\nPING\r\n",
                    b"\x00" * chance.randint(1, 5_000),
                    chance.randbytes(chance.randint(1, 3_000)),
                    bytes([n]) * chance.randint(1, 300) + b"\r\n\r\n",
                ]
            ),
            frozenset({400, 404, 405, 413}),
        )


def partial(chance: random.Random) -> bytes:
    """Return the beginning of something."""
    whole = chance.choice(
        [
            request("POST", "/v1/messages", _dumped(GOOD["POST", "/v1/messages"])),
            request("POST", "/v1/register", b"x" * 200_000),
            request("GET", f"/v1/peers?circle_hint={HINT}"),
            handshake(f"/v1/relay/ws?circle_hint={HINT}&node_id=bad-node-0001"),
        ]
    )
    return whole[: chance.randrange(len(whole) - 1)]


# --- sockets --------------------------------------------------------------------------


def handshake(target: str, *headers: tuple[str, str]) -> bytes:
    """Ask for a WebSocket."""
    usual = [
        ("Connection", "Upgrade"),
        ("Upgrade", "websocket"),
        ("Sec-WebSocket-Version", "13"),
        ("Sec-WebSocket-Key", base64.b64encode(os.urandom(16)).decode()),
    ]
    return request("GET", target, headers=[*usual, *headers])


def bad_handshakes(chance: random.Random) -> Iterator[Bad]:
    """Yield handshakes that must be refused as an ordinary call is, without end."""
    good = f"circle_hint={HINT}&node_id=bad-node-0001"
    while True:
        token = chance.choice(
            [
                "x",
                "muster1.e30.e30",
                "muster1..",
                "muster1." + "A" * 2_000 + "." + "A" * 86,
                "muster1.%C3%AB.%FF",
                "muster2.a.b",
                "." * 50,
            ]
        )
        yield Bad(
            "a handshake",
            chance.choice(
                [
                    handshake(f"/v1/relay/ws?circle_hint={chance.choice(BAD_HINTS)}"),
                    handshake("/v1/relay/ws?node_id=bad-node-0001"),
                    handshake("/v1/relay/ws"),
                    handshake(f"/v1/elsewhere?{good}"),
                    handshake(f"/v1/relay/ws?token={token}"),
                    handshake("/v1/relay/ws", ("Authorization", f"Bearer {token}")),
                    handshake("/v1/relay/ws", ("Sec-WebSocket-Protocol", f"muster.v1, {token}")),
                    handshake(f"/v1/relay/ws?{good}").replace(b"-Key:", b"-No:"),
                    handshake(f"/v1/relay/ws?{good}").replace(b"-Version: 13", b"-Version: 7"),
                    handshake(f"/v1/relay/ws?{good}").replace(b"GET", b"POST", 1),
                ]
            ),
        )


def texts(chance: random.Random, session_id: str) -> Iterator[str]:
    """Yield texts that are no frames, or frames for nobody, without end."""
    frame = {"t": "FRAME", "session_id": session_id, "seq": 1, "payload_b64": "aGk="}
    while True:
        whole = json.dumps(frame)
        seq: Any = chance.choice([-1, 1.5, "1", None, True, [], 2**53 - 1 + 1, "NaN"])
        payload = chance.choice(
            ["x", "aGk", "a-_k", "====", " aGk=", "aGk=\n", 1, None, "A" * 21_850]
        )
        other = chance.choice(["other-session-01", "short", "", None, 1, "s" * 301, "a b a b a b"])
        yield chance.choice(
            [
                "",
                "hello",
                "null",
                "[]",
                "{}",
                '{"t":1}',
                '{"t":"HELLO"}',
                '{"t":"MESSAGES","messages":[]}',
                '{"t":"ping"}',
                '{"t":"PING","t":"PING"}',
                '{"t":"PING","x":NaN}',
                '{"t":"PING","x":"\\ud800"}',
                '{"t":"PING","x":9007199254740992}',
                "[" * 10_000,
                '{"t":' * 2_000,
                whole[: chance.randrange(len(whole))],
                whole + "}",
                json.dumps(frame | {"seq": seq}),
                json.dumps(frame | {"payload_b64": payload}),
                json.dumps(frame | {"session_id": other}),
                json.dumps({"t": "ACK", "session_id": other, "seq": 1}),
                json.dumps({"t": "ACK", "session_id": session_id}),
                json.dumps({name: value for name, value in frame.items() if name != "seq"}),
                "".join(chance.choices(WORD + '{}[]":,\\\u2028ü🐳\x00', k=chance.randrange(300))),
                "x" * 32_768,
            ]
        )


TEXT, BINARY, CLOSE, PING = 1, 2, 8, 9


def framed(
    data: bytes, opcode: int = TEXT, *, fin: bool = True, masked: bool = True, reserved: int = 0
) -> bytes:
    """Write one WebSocket frame, right or wrong."""
    head = bytes([(0x80 if fin else 0) | reserved << 4 | opcode])
    mask = 0x80 if masked else 0
    if len(data) < 126:
        head += bytes([mask | len(data)])
    elif len(data) < 65536:
        head += bytes([mask | 126]) + struct.pack("!H", len(data))
    else:
        head += bytes([mask | 127]) + struct.pack("!Q", len(data))
    if not masked:
        return head + data
    key = b"\x37\xfa\x21\x3d"
    repeated = key * (len(data) // 4 + 1)
    body = int.from_bytes(data, "big") ^ int.from_bytes(repeated[: len(data)], "big")
    return head + key + body.to_bytes(len(data), "big")


class Ends(NamedTuple):
    """Bytes after which a socket ends, and the close codes that may say why."""

    what: str
    raw: bytes
    codes: frozenset[int]


def endings(chance: random.Random) -> Iterator[Ends]:
    """Yield what a socket does not survive, without end."""
    many = chance.randint(32_769, 60_000)
    while True:
        found: tuple[tuple[str, bytes, *tuple[int, ...]], ...] = (
            ("binary", framed(chance.randbytes(9), BINARY), 1003),
            ("over 32 KiB", framed(b"x" * many), 1009),
            ("over 256 KiB", framed(b"x" * 270_000), 1009),
            ("in pieces over 32 KiB", _pieces(40_000), 1009),
            ("not UTF-8", framed(b"\xff\xfe\xfd"), 1007),
            ("not UTF-8 across pieces", _cut_rune(), 1007),
            ("reserved bit", framed(b"x", reserved=chance.choice([1, 2, 4, 7])), 1002),
            ("reserved opcode", framed(b"x", chance.choice([3, 4, 7, 11, 15])), 1002),
            ("unmasked", framed(b"x", masked=False), 1002),
            ("long ping", framed(b"x" * 126, PING), 1002),
            ("ping in pieces", framed(b"x", PING, fin=False), 1002),
            ("nothing to continue", framed(b"x", 0), 1002),
            ("a text within a text", framed(b"x", fin=False) + framed(b"y"), 1002),
            ("close of one byte", framed(b"\x03", CLOSE), 1002),
            ("close with a code that is none", framed(struct.pack("!H", 999), CLOSE), 1002),
            ("close with 1005", framed(struct.pack("!H", 1005), CLOSE), 1002),
            ("close, not UTF-8", framed(struct.pack("!H", 1000) + b"\xff", CLOSE), 1007, 1002),
            ("a length of 2^63", b"\x81\xff" + b"\xff" * 8 + b"mask", 1002, 1009),
            ("a length of 2^40", b"\x81\xff" + struct.pack("!Q", 2**40) + b"mask", 1009),
            ("close, then more", framed(struct.pack("!H", 1000), CLOSE) + framed(b"{}"), 1000),
            ("HTTP again", request("GET", "/v1/health"), 1002),
            ("noise", b"\x7f" + chance.randbytes(chance.randint(20, 500)), 1002),
        )
        for what, raw, *codes in found:
            yield Ends(what, raw, frozenset(codes))


def _pieces(size: int) -> bytes:
    middle = b"".join(framed(b"x" * 1_000, 0, fin=False) for _ in range(size // 1_000))
    return framed(b"x", fin=False) + middle + framed(b"x", 0)


def _cut_rune() -> bytes:
    return framed(b"\xc3", fin=False) + framed(b"x", 0)
