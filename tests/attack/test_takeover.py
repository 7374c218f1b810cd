"""The table of attempts: what an outsider, a member and a thief try, and what they get.

Each attempt is made against a circle whose key is pinned and whose members are
registered; afterwards the circle must be as it was.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pytest

from chalicelib import tables, tokens
from chalicelib.call import Call, Connection
from chalicelib.circle.sockets import PATH, open_socket
from muster.errors import InvalidToken, Refused, SessionExpired
from muster.felund import signing
from tests.support.circle import ANN, BOB, HINT, SECRET, START, World, world

KEY = signing.request_key(SECRET)
MALLORY = signing.request_key(b"\x66" * 32)
FOREIGN = "foreign-circle-1"
Answer = tuple[int, dict[str, Any]]


def circle(unsigned: str = "refuse") -> World:
    """Return a world with the circle under attack, and a foreign circle with Mallory in it."""
    here = world(unsigned=unsigned)
    here.register(ANN, ttl_s=600)
    here.register(BOB, ttl_s=600)
    body = {"node_id": "mallory-1", "circle_hint": FOREIGN, "signing_key": MALLORY.hex()}
    assert here.call("POST", "/v1/register", body, node="mallory-1", key=MALLORY)[0] == 200
    here.leave("m-000001")
    return here


def state(here: World) -> Any:
    """Return everything an attacker may want to change or to read."""
    peers = here.call("GET", "/v1/peers", query={"circle_hint": HINT}, node="observer")[1]["peers"]
    pinned = tables.pinned(here.service.stores, HINT, now=here.now)
    assert pinned is not None
    return (pinned.body, peers, here.poll(after=0)["messages"])


def register(node: str = ANN, hint: str = HINT, key: bytes | None = MALLORY) -> dict[str, Any]:
    body: dict[str, Any] = {"node_id": node, "circle_hint": hint, "endpoints": []}
    return body if key is None else body | {"signing_key": key.hex()}


@dataclass(frozen=True)
class Attempt:
    """One attempt: what is done, and the refusal it must meet."""

    name: str
    make: Callable[[World], Answer]
    status: int
    code: str


def replayed(here: World, *, query: dict[str, str] | None = None) -> Answer:
    """Catch a signed peers call of a member and send it again."""
    headers = here.signed("GET", "/v1/peers", b"", node=ANN, key=KEY)
    first = here.call("GET", "/v1/peers", query={"circle_hint": HINT}, headers=headers)
    assert first[0] == 200
    return here.call("GET", "/v1/peers", query=query or {"circle_hint": HINT}, headers=headers)


def moved(here: World, method: str, path: str, body: Any, **swapped: Any) -> Answer:
    """Take the headers that a member signed for a register and use them for something else."""
    headers = here.signed("POST", "/v1/register", b"{}", node=ANN, key=KEY) | swapped
    return here.call(method, path, body, query={"circle_hint": HINT}, headers=headers)


def shifted(here: World) -> Answer:
    """Move a digit from the nonce to the time: the canonical string stays the same."""
    nonce = "1" + "0" * 31
    stamp = str(here.now)
    signature = signing.sign(KEY, "GET", "/peers", b"", timestamp=stamp, nonce=nonce)
    headers = {
        signing.NODE: ANN,
        signing.TIME: stamp + nonce[0],
        signing.NONCE: nonce[1:],
        signing.SIGNATURE: signature,
    }
    return here.call("GET", "/v1/peers", query={"circle_hint": HINT}, headers=headers)


def at(seconds: int) -> Callable[[World], Answer]:
    def make(here: World) -> Answer:
        headers = here.signed("GET", "/v1/peers", b"", node=ANN, key=KEY, at=here.now + seconds)
        return here.call("GET", "/v1/peers", query={"circle_hint": HINT}, headers=headers)

    return make


def without(*names: str) -> Callable[[World], Answer]:
    def make(here: World) -> Answer:
        headers = here.signed("GET", "/v1/peers", b"", node=ANN, key=KEY)
        kept = {name: value for name, value in headers.items() if name not in names}
        return here.call("GET", "/v1/peers", query={"circle_hint": HINT}, headers=kept)

    return make


def named(name: str, value: str) -> Callable[[World], Answer]:
    def make(here: World) -> Answer:
        headers = here.signed("GET", "/v1/peers", b"", node=ANN, key=KEY) | {name: value}
        return here.call("GET", "/v1/peers", query={"circle_hint": HINT}, headers=headers)

    return make


POST, GET, DELETE = "POST", "GET", "DELETE"
MESSAGES = {"circle_hint": HINT, "messages": [{"msg_id": "evil-0001"}]}
SIGNAL = {
    "session_id": "evil-session",
    "from_node_id": ANN,
    "to_node_id": BOB,
    "circle_hint": HINT,
    "type": "offer",
    "payload": "x",
}
SESSION = {"node_id": ANN, "target_node_id": BOB, "circle_hint": HINT}
HERE = {"circle_hint": HINT}

ATTEMPTS = [
    # another key
    Attempt(
        "register a member with one's own key",
        lambda w: w.call(POST, "/v1/register", register(), key=MALLORY),
        401,
        "INVALID_SIGNATURE",
    ),
    Attempt(
        "register a new node with one's own key",
        lambda w: w.call(
            POST, "/v1/register", register("evil-node"), node="evil-node", key=MALLORY
        ),
        401,
        "INVALID_SIGNATURE",
    ),
    Attempt(
        "bring the right key, sign with one's own",
        lambda w: w.call(POST, "/v1/register", register(key=KEY), key=MALLORY),
        401,
        "INVALID_SIGNATURE",
    ),
    Attempt(
        "a member replaces the circle's key",
        lambda w: w.call(POST, "/v1/register", register(key=MALLORY), key=KEY),
        401,
        "INVALID_SIGNATURE",
    ),
    Attempt(
        "list peers with one's own key",
        lambda w: w.call(GET, "/v1/peers", query=HERE, key=MALLORY),
        401,
        "INVALID_SIGNATURE",
    ),
    Attempt(
        "read messages with one's own key",
        lambda w: w.call(GET, "/v1/messages", query=HERE, key=MALLORY),
        401,
        "INVALID_SIGNATURE",
    ),
    Attempt(
        "leave messages with one's own key",
        lambda w: w.call(POST, "/v1/messages", MESSAGES, key=MALLORY),
        401,
        "INVALID_SIGNATURE",
    ),
    Attempt(
        "unregister a member with one's own key",
        lambda w: w.call(DELETE, "/v1/register", register(key=None), key=MALLORY),
        401,
        "INVALID_SIGNATURE",
    ),
    Attempt(
        "leave a signal with one's own key",
        lambda w: w.call(POST, "/v1/signal", SIGNAL, key=MALLORY),
        401,
        "INVALID_SIGNATURE",
    ),
    Attempt(
        "open a relay session with one's own key",
        lambda w: w.call(POST, "/v1/relay/session", SESSION, key=MALLORY),
        401,
        "INVALID_SIGNATURE",
    ),
    # no signature
    *[
        Attempt(
            f"unsigned {method} {path}",
            lambda w, m=method, p=path, b=body: w.call(
                m, p, b, query=HERE | {"to_node_id": BOB}, key=None
            ),  # type: ignore[misc]
            401,
            "INVALID_SIGNATURE",
        )
        for method, path, body in [
            (POST, "/v1/register", register()),
            (DELETE, "/v1/register", register(key=None)),
            (GET, "/v1/peers", None),
            (POST, "/v1/messages", MESSAGES),
            (GET, "/v1/messages", None),
            (POST, "/v1/signal", SIGNAL),
            (GET, "/v1/signal", None),
            (POST, "/v1/relay/session", SESSION),
            (POST, "/v1/relay/subscription", {"node_id": ANN, "circle_hint": HINT}),
        ]
    ],
    Attempt("half a signature", without(signing.SIGNATURE), 401, "INVALID_SIGNATURE"),
    Attempt("no nonce", without(signing.NONCE), 401, "INVALID_SIGNATURE"),
    Attempt("no time", without(signing.TIME), 401, "INVALID_SIGNATURE"),
    Attempt("no node", without(signing.NODE), 401, "INVALID_SIGNATURE"),
    Attempt("a node's name of 30 KB", named(signing.NODE, "x" * 30_000), 400, "INVALID_REQUEST"),
    Attempt(
        "a node's name twice", named(signing.NODE, "ann-0001, bob-0002"), 400, "INVALID_REQUEST"
    ),
    Attempt("an empty signature", named(signing.SIGNATURE, ""), 401, "INVALID_SIGNATURE"),
    Attempt(
        "a signature of another length", named(signing.SIGNATURE, "ab"), 401, "INVALID_SIGNATURE"
    ),
    Attempt(
        "a signature that is no text", named(signing.SIGNATURE, "é" * 64), 401, "INVALID_SIGNATURE"
    ),
    # replay, time
    Attempt("replay", replayed, 409, "NONCE_REPLAY"),
    Attempt("five minutes late", at(-301), 400, "EXPIRED_TIMESTAMP"),
    Attempt("five minutes early", at(301), 400, "EXPIRED_TIMESTAMP"),
    Attempt("a time that is no number", named(signing.TIME, "soon"), 400, "INVALID_REQUEST"),
    Attempt("a time with a fraction", named(signing.TIME, "1800000000.0"), 400, "INVALID_REQUEST"),
    Attempt("a digit moved from nonce to time", shifted, 400, "INVALID_REQUEST"),
    # a signature taken elsewhere
    Attempt(
        "a register's signature on an unregister",
        lambda w: moved(w, DELETE, "/v1/register", register(key=None)),
        401,
        "INVALID_SIGNATURE",
    ),
    Attempt(
        "a register's signature on a peers call",
        lambda w: moved(w, GET, "/v1/peers", None),
        401,
        "INVALID_SIGNATURE",
    ),
    Attempt(
        "a register's signature on another body",
        lambda w: moved(w, POST, "/v1/register", register(key=None)),
        401,
        "INVALID_SIGNATURE",
    ),
    Attempt(
        "a query swapped to another circle",
        lambda w: replayed(w, query={"circle_hint": FOREIGN}),
        401,
        "INVALID_SIGNATURE",
    ),
    Attempt(
        "a foreign member's good signature on this circle's query",
        lambda w: w.call(GET, "/v1/messages", query=HERE, node="mallory-1", key=MALLORY),
        401,
        "INVALID_SIGNATURE",
    ),
    # speaking for somebody else
    Attempt(
        "register somebody else",
        lambda w: w.call(POST, "/v1/register", register(BOB, key=KEY), node=ANN, key=KEY),
        401,
        "INVALID_SIGNATURE",
    ),
    Attempt(
        "unregister somebody else",
        lambda w: w.call(DELETE, "/v1/register", register(BOB, key=None), node=ANN, key=KEY),
        401,
        "INVALID_SIGNATURE",
    ),
    Attempt(
        "read somebody else's signals",
        lambda w: w.call(GET, "/v1/signal", query=HERE | {"to_node_id": BOB}, node=ANN, key=KEY),
        401,
        "INVALID_SIGNATURE",
    ),
    Attempt(
        "read signals without naming the circle",
        lambda w: w.call(GET, "/v1/signal", query={"to_node_id": BOB}, node=BOB, key=KEY),
        400,
        "INVALID_REQUEST",
    ),
    Attempt(
        "sign for a circle that nobody registered",
        lambda w: w.call(GET, "/v1/peers", query={"circle_hint": "never-was"}, key=MALLORY),
        401,
        "INVALID_SIGNATURE",
    ),
]


@pytest.mark.parametrize("attempt", ATTEMPTS, ids=lambda attempt: attempt.name)
def test_the_attempt_is_refused_and_changes_nothing(attempt: Attempt) -> None:
    here = circle()
    before = state(here)

    status, body = attempt.make(here)

    assert (status, body.get("code")) == (attempt.status, attempt.code), body
    assert state(here) == before


def test_an_outsiders_attempts_write_nothing_at_all() -> None:
    here = circle()
    state(here)
    written: list[str] = []
    for table in ("presence", "mail", "guard"):
        watched = Watched(getattr(here.service.stores, table), written)
        here.service.stores = here.service.stores._replace(**{table: watched})
    for method, path, body in [
        (POST, "/v1/register", register()),
        (DELETE, "/v1/register", register(key=None)),
        (GET, "/v1/peers", None),
        (POST, "/v1/messages", MESSAGES),
        (POST, "/v1/signal", SIGNAL),
        (POST, "/v1/relay/session", SESSION),
    ]:
        for key in (None, MALLORY):
            assert here.call(method, path, body, query=HERE, key=key)[0] == 401

    assert written == []


class Watched:
    """A store that notes what is written."""

    def __init__(self, store: Any, written: list[str]) -> None:
        self._store, self._written = store, written

    def __getattr__(self, name: str) -> Any:
        if name in ("put", "put_new", "delete", "add"):
            self._written.append(name)
        return getattr(self._store, name)


# --- where unsigned calls are allowed ---------------------------------------------


@pytest.mark.parametrize(
    ("method", "path", "body"),
    [
        (POST, "/v1/register", register()),
        (POST, "/v1/register", register(key=None)),
        (DELETE, "/v1/register", register(key=None)),
        (GET, "/v1/peers", None),
        (POST, "/v1/relay/session", SESSION),
        (POST, "/v1/relay/subscription", {"node_id": ANN, "circle_hint": HINT}),
    ],
)
def test_a_pinned_circle_never_takes_these_unsigned(method: str, path: str, body: Any) -> None:
    here = circle(unsigned="allow")
    before = state(here)

    assert here.call(method, path, body, query=HERE, key=None)[0] == 401
    assert state(here) == before


@pytest.mark.parametrize(
    ("method", "path", "body"),
    [(POST, "/v1/messages", MESSAGES), (GET, "/v1/messages", None), (POST, "/v1/signal", SIGNAL)],
)
def test_a_wrong_signature_is_refused_even_where_none_is_needed(
    method: str, path: str, body: Any
) -> None:
    here = circle(unsigned="allow")

    assert here.call(method, path, body, query=HERE, key=MALLORY)[0] == 401
    assert here.call(method, path, body, query=HERE, key=None)[0] == 200


def test_an_unsigned_register_pins_nothing() -> None:
    here = world(unsigned="allow")
    body = {"node_id": "evil-node", "circle_hint": HINT, "signing_key": MALLORY.hex()}
    assert here.call(POST, "/v1/register", body, key=None)[0] == 200

    assert here.register(ANN)[0] == 200
    assert here.call(POST, "/v1/register", body, node="evil-node", key=MALLORY)[0] == 401


# --- pins -------------------------------------------------------------------------


def test_a_pin_lives_thirty_days_after_its_last_use() -> None:
    here = circle()
    day = 24 * 3600
    for _ in range(3):
        here.clock += 20 * day
        assert here.register(ANN)[0] == 200
        attack = here.call(
            POST, "/v1/register", register("evil-node"), node="evil-node", key=MALLORY
        )
        assert attack[0] == 401

    here.clock += 30 * day
    assert here.call(POST, "/v1/register", register(), key=MALLORY)[0] == 200


@pytest.mark.parametrize("pin_s", [3600, 6 * 3600, 24 * 3600, 25 * 3600])
def test_a_circle_in_use_keeps_its_pin_however_short_pins_live(pin_s: int) -> None:
    here = world(pin_s=pin_s)
    here.register(ANN)
    for _ in range(3 * pin_s // 540):
        here.clock += 540  # as seldom as a quiet client registers
        attack = here.call(
            POST, "/v1/register", register("evil-node"), node="evil-node", key=MALLORY
        )
        assert attack[0] == 401
        assert here.register(ANN)[0] == 200


def test_attempts_do_not_keep_a_pin_alive() -> None:
    here = circle()
    here.clock = START + 29 * 24 * 3600
    assert here.call(POST, "/v1/register", register(), key=MALLORY)[0] == 401

    here.clock = START + 30 * 24 * 3600

    assert tables.pinned(here.service.stores, HINT, now=here.now) is None


# --- tokens -----------------------------------------------------------------------


def socket(here: World, token: str, **query: str) -> None:
    call = Call(
        "GET", PATH, query=query, headers={"authorization": f"Bearer {token}"}, clock=here.clock
    )
    open_socket(here.service, call, Connection("c-evil"))


def forged(here: World) -> str:
    """Write a token that says what one wants, signed by another key."""
    token = tokens.Token(
        use="relay",
        circle_hint=HINT,
        node_id=ANN,
        expires_at=here.now + 60,
        session_id="a" * 32,
    )
    return tokens.issue(tokens.Ed25519Signer(b"\x42" * 32), token)


def stolen(here: World) -> str:
    body = here.session(ANN, BOB)[1]
    token: str = body["token"]
    return token


@pytest.mark.parametrize(
    ("name", "make", "query", "refusal"),
    [
        ("no token", lambda w: "", {}, InvalidToken),
        ("not a token", lambda w: "hello", {}, InvalidToken),
        ("a huge token", lambda w: "muster1." + "A" * 10_000 + ".A", {}, InvalidToken),
        ("no base64", lambda w: "muster1.*.*", {}, InvalidToken),
        ("signed by another key", forged, {}, InvalidToken),
        ("one letter changed", lambda w: stolen(w)[:-2] + "AA", {}, InvalidToken),
        (
            "claims of one, signature of another",
            lambda w: ".".join([*forged(w).split(".")[:2], stolen(w).split(".")[2]]),
            {},
            InvalidToken,
        ),
        ("an extra sign of padding", lambda w: stolen(w) + "=", {}, InvalidToken),
        ("another member's name", stolen, {"node_id": BOB}, InvalidToken),
        ("a foreign circle", stolen, {"circle_hint": FOREIGN}, InvalidToken),
    ],
)
def test_a_token_is_good_for_what_it_says_and_nothing_else(
    name: str, make: Callable[[World], str], query: dict[str, str], refusal: type[Refused]
) -> None:
    here = circle()

    with pytest.raises(refusal):
        socket(here, make(here), **query)


def test_an_expired_token_opens_nothing() -> None:
    here = circle()
    token = stolen(here)
    here.clock += 60

    with pytest.raises(SessionExpired):
        socket(here, token)


def test_a_foreign_circles_token_gives_no_seat_in_a_session() -> None:
    here = circle()
    session_id = here.session(ANN, BOB)[1]["session_id"]
    body = {"node_id": "mallory-1", "circle_hint": FOREIGN}
    token = here.call(POST, "/v1/relay/subscription", body, node="mallory-1", key=MALLORY)[1][
        "token"
    ]
    evil = here.open("c-evil", token)

    here.say(evil, {"t": "FRAME", "session_id": session_id, "seq": 1, "payload_b64": "AAAA"})

    assert [frame["code"] for frame in here.gateway.take(evil.id)] == ["INVALID_FRAME"]


def test_where_unsigned_is_refused_a_socket_needs_a_token() -> None:
    here = circle()
    call = Call("GET", PATH, query={"circle_hint": HINT, "node_id": BOB}, clock=here.clock)

    with pytest.raises(InvalidToken):
        open_socket(here.service, call, Connection("c-evil"))
