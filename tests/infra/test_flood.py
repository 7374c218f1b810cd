"""A flood of strangers: what it takes, counted, is what the model says that it costs.

The AWS host runs in process over dynalite, which counts units as DynamoDB does, and moto's S3.
No emulator throttles, so the rate is not the flood's: what a call takes is counted, and the
throttle's rate makes a month of it. How long a call keeps a machine busy is the model's, as
no other machine's time is Lambda's.
"""

import contextlib
import hashlib
import itertools
import logging
import re
import secrets
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest

from capsules import ticket
from capsules.keys import SigningKey
from capsules.ticket import MAX_NAME_BYTES
from chalicelib import log, tables
from chalicelib.access import READ_AT_ONCE
from chalicelib.aws.capsules import KEPT_S
from chalicelib.aws.clients import open_client
from chalicelib.aws.files import BURST_BYTES, BYTES_PER_S
from chalicelib.aws.share import Meter
from chalicelib.library import load
from infra import ceilings
from infra.bill import GB, MONTH_S, Estimate, Use
from infra.ceilings import Ceilings, Terms
from infra.cost import CAPSULE_FILES
from infra.standing import LINE_BYTES, Standing
from tests.support import aws, moto_http, web_app
from tests.support.gateway import Answer, Gateway, HandshakeRefused
from tests.support.members import Member, dumps
from tests.support.version2 import Node, new_epoch

CALLS = 5
"""Calls of a kind; more say the same."""

GATEWAY_BYTES = 250
"""What the gateway adds to an answer: status line, date, length, its request id, TLS records."""

AGREED = 0.2
FILE = b"x" * 40_000
NODE = '"' * log.NODE_CHARS
QUIET = Standing(alarms=8, metrics=2)

Ask = Callable[[], Answer]


@dataclass
class Taken:
    """What one call of a kind takes, on average."""

    read: float = 0
    written: float = 0
    log_bytes: float = 0
    answer_bytes: float = 0


class Total(Meter):
    """The host's own meter, which does not forget when the host begins with another event."""

    def __init__(self) -> None:
        super().__init__()
        self.begin()

    def begin(self) -> None:
        """Count from here on."""
        self.all = Meter()

    def add(self, verb: str, units: float) -> None:
        super().add(verb, units)
        self.all.add(verb, units)


class Lines(logging.Handler):
    """Counts log lines as CloudWatch does."""

    def __init__(self) -> None:
        super().__init__()
        self.setFormatter(log.JsonLines())
        self.bytes = 0

    def emit(self, record: logging.LogRecord) -> None:
        self.bytes += len(self.format(record).encode()) + LINE_BYTES


@dataclass
class Flood:
    """Strangers before a deployed service, each call from another network."""

    gateway: Gateway
    lines: Lines
    meter: Total
    _numbers: Iterator[int] = field(default_factory=itertools.count)

    @property
    def host(self) -> Any:
        return self.gateway.machines[0].module.host

    def address(self) -> str:
        return f"2001:db8:{next(self._numbers):x}::7"  # each a whole /48

    def call(self, method: str, path: str, **more: Any) -> Answer:
        """Call as nobody."""
        headers = more.pop("headers", [("X-Felund-Node", NODE)])
        return self.gateway.call(method, path, headers=headers, source_ip=self.address(), **more)

    def sync(self, *, late_ms: int = 0) -> Answer:
        """Sync in a circle of version 2 of one's own."""
        node = Node(new_epoch(), _nobody, lambda: int(time.time() * 1000) - late_ms, bytes(16))
        body = dumps({"presence": {"sealed": node.presence()}})
        headers = [("Authorization", node.header(body).header), ("X-Felund-Node", NODE)]
        return self.call("POST", "/v2/sync", headers=headers, body=body)

    def register(self) -> Answer:
        """Register in a circle of one's own."""
        member = Member(self.gateway, f"node-{next(self._numbers):05d}", secrets.token_bytes(32))
        return self.signed(member, "POST", "/v1/register", _registration(member))

    def signed(self, member: Member, method: str, path: str, body: Any) -> Answer:
        """Make a member's call."""
        raw = dumps(body) if body is not None else b""
        headers = [("Content-Type", "application/json"), *member.signed(method, path, raw).items()]
        return self.call(method, path, headers=headers, body=raw)

    def announce(self) -> Answer:
        """Announce a ticket with the longest names, by a key of its own."""
        number = next(self._numbers)
        made = ticket.create(
            SigningKey(secrets.token_bytes(32)),
            peer_id=f"{number:0{MAX_NAME_BYTES}d}",
            user_id="u" * MAX_NAME_BYTES,
            now_ms=int(time.time() * 1000),
            nonce=secrets.token_bytes(12),
            ttl_ms=3_600_000,
        )
        return self.call("POST", "/announce", body=dumps({"ticket": dict(made.to_json())}))

    def knock(self) -> Answer:
        """Open a socket without a token that anybody gave."""
        headers = [("X-Felund-Node", NODE)]
        with pytest.raises(HandshakeRefused) as refused:
            self.gateway.open("token=abc", headers=headers, source_ip=self.address())
        return refused.value.answer

    def take(self, ask: Ask, *, status: int) -> Taken:
        """Count what a call takes, once what is remembered is remembered."""
        assert ask().status == status
        self.lines.bytes = 0
        taken = Taken()
        for _ in range(CALLS):
            self.meter.begin()
            answer = ask()
            assert answer.status == status
            taken.read += self.meter.all.read / CALLS
            taken.written += self.meter.all.written / CALLS
            taken.answer_bytes += _size(answer) / CALLS
        taken.log_bytes = self.lines.bytes / CALLS
        return taken


def _registration(member: Member) -> dict[str, Any]:
    return {
        "node_id": member.node_id,
        "circle_hint": member.hint,
        "endpoints": [{"transport": "tcp", "host": "192.0.2.7", "port": 9999}],
        "signing_key": member.key.hex(),
    }


def _size(answer: Answer) -> int:
    head = sum(len(name) + len(text) + 4 for name, text in answer.headers.items())
    return GATEWAY_BYTES + head + len(answer.body)


@contextlib.contextmanager
def counted_lines() -> Iterator[Lines]:
    """Log as on Lambda, into a counter."""
    lines, ours = Lines(), logging.getLogger("muster")
    before = ours.level, ours.propagate
    ours.addHandler(lines)
    ours.setLevel(logging.INFO)
    ours.propagate = False
    try:
        yield lines
    finally:
        ours.removeHandler(lines)
        ours.setLevel(before[0])
        ours.propagate = before[1]


@contextlib.contextmanager
def flooded(directory: Path, dynalite_url: str, **settings: str) -> Iterator[Flood]:
    limits = Ceilings()
    told = {
        "MUSTER_REST_RATE": limits.rest_rate,
        "MUSTER_SOCKET_RATE": limits.socket_rate,
        "MUSTER_TABLE_READ_UNITS": limits.read_units,
        "MUSTER_TABLE_WRITE_UNITS": limits.write_units,
    }
    settings |= {name: str(value) for name, value in told.items()}
    with (
        counted_lines() as lines,
        aws.running("dynalite", directory=directory, dynalite_url=dynalite_url, **settings) as made,
    ):
        meter = made.machines[0].module.host.used = Total()
        yield Flood(made, lines, meter)


@pytest.fixture
def closed(dynalite_url: str, tmp_path: Path) -> Iterator[Flood]:
    """A closed service that lets in more circles than it reads at once."""
    with flooded(tmp_path, dynalite_url, MUSTER_ACCESS="closed") as flood:
        stores, until = flood.host.service.stores, int(time.time()) + 3600
        for number in range(READ_AT_ONCE + 1):
            tables.allow(
                stores, f"circle-{number:02d}", tables.Allowed(name="", since=0), until=until
            )
        yield flood


@pytest.fixture
def public(dynalite_url: str, tmp_path: Path) -> Iterator[Flood]:
    """A closed service with a community that everybody may announce to."""
    names = {"MUSTER_ACCESS": "closed", "MUSTER_COMMUNITY_NAMES": "mainnet"}
    with flooded(tmp_path, dynalite_url, **names) as flood:
        yield flood


def _nobody(*_: object) -> Any:
    raise AssertionError("this node calls by the flood")


def month(limits: Ceilings, calls: Taken, knocks: Taken, terms: Terms) -> Estimate:
    """Bill a month in which the gateway lets through all that it may of such calls.

    Files come on top of that, which the service bounds itself: their flood is below.
    """
    use, called, knocked = Use(), limits.rest_rate * MONTH_S, limits.socket_rate * MONTH_S
    use.http_call, use.socket_message = called, knocked
    use.lambda_request = called + knocked
    use.busy((called + knocked) * ceilings.REFUSED_MS)
    use.send(limits.concurrency * BYTES_PER_S * MONTH_S)
    for times, taken in ((called, calls), (knocked, knocks)):
        use.read_unit += times * taken.read
        use.write_unit += times * taken.written
        use.log(times * taken.log_bytes)
        use.send(times * taken.answer_bytes)
    return terms.bill(use)


def worst(kinds: list[Taken]) -> Taken:
    """Return what no call of these kinds takes more than, of anything."""
    return Taken(*(max(getattr(one, name) for one in kinds) for name in Taken.__dataclass_fields__))


def usd(estimate: Estimate, what: str) -> float:
    return sum(row.usd for row in estimate.rows if row.what == what)


# --- a closed service -------------------------------------------------------------------


def test_strangers_before_a_closed_service_cost_what_the_model_says(closed: Flood) -> None:
    """Every line of the bill, and the whole of it."""
    body = b"x" * 900_000
    wide = f"circle_hint={quote(chr(0x1F300) * 16)}"  # each twelve bytes of a line
    calls = [
        closed.take(closed.register, status=403),
        closed.take(closed.announce, status=403),
        closed.take(lambda: closed.call("POST", "/v1/register", body=body), status=401),
        closed.take(lambda: closed.call("GET", "/peers"), status=403),
        closed.take(lambda: closed.call("GET", "/v1/peers", query=wide), status=403),
        closed.take(lambda: closed.call("GET", "/v1/messages", query=wide), status=403),
        closed.take(lambda: closed.call("GET", "/v1/health"), status=200),
        closed.take(lambda: closed.call("GET", "/v1/info"), status=200),
        closed.take(lambda: closed.call("GET", "/v2/info"), status=200),
        closed.take(closed.sync, status=403),
        closed.take(lambda: closed.sync(late_ms=200_000), status=400),
        closed.take(lambda: closed.call("OPTIONS", "/v1/messages"), status=204),
        closed.take(lambda: closed.call("POST", "/v1/session", body=b"{}"), status=401),
        closed.take(lambda: closed.call("POST", "/api/p2p/assist", body=b"{}"), status=401),
    ]
    limits, terms = Ceilings(), Terms(standing=QUIET)
    told = limits.strangers(terms)
    found = month(limits, worst(calls), closed.take(closed.knock, status=401), terms)

    assert worst(calls).written == 0
    for row in found.rows:
        assert usd(told, row.what) == pytest.approx(row.usd, rel=AGREED), row.what
    assert told.total_usd == pytest.approx(found.total_usd, rel=AGREED)
    assert told.total_usd <= 100


def test_one_call_more_or_less_is_seen_by_the_flood(closed: Flood) -> None:
    """The comparison can fail: a service that answered with a list would not agree."""
    calls = closed.take(closed.register, status=403)
    calls.answer_bytes += 60_000
    limits, terms = Ceilings(), Terms(standing=QUIET)
    found = month(limits, calls, closed.take(closed.knock, status=401), terms)

    assert limits.strangers(terms).total_usd < found.total_usd * (1 - AGREED)


def test_a_flood_of_announces_takes_what_a_public_community_may(public: Flood) -> None:
    for _ in range(60):
        public.announce()
    takes = [public.take(public.announce, status=200) for _ in range(5)]
    announced = sorted(takes, key=lambda one: (one.written, one.read))[2]  # a new minute adds
    listed = public.take(lambda: public.call("GET", "/peers"), status=200)

    assert announced.written == pytest.approx(ceilings.PUBLIC.write, rel=AGREED)
    assert announced.read == pytest.approx(ceilings.PUBLIC.read, rel=AGREED)
    for taken in (announced, listed):
        assert taken.answer_bytes == pytest.approx(ceilings.PUBLIC_KNOCK.answer_bytes, rel=AGREED)


# --- capsules ---------------------------------------------------------------------------


class Gets(logging.Handler):
    """Counts what moto's server is asked for a file."""

    def __init__(self) -> None:
        super().__init__()
        self.count = 0

    def emit(self, record: logging.LogRecord) -> None:
        self.count += "GET /capsules-of-" in record.getMessage()


@pytest.fixture
def gets() -> Iterator[Gets]:
    server, counter = logging.getLogger("werkzeug"), Gets()
    server.addHandler(counter)
    yield counter
    server.removeHandler(counter)


def test_a_flood_for_capsules_reads_the_bucket_and_sends_as_little_as_the_model_says(
    dynalite_url: str, tmp_path: Path, gets: Gets
) -> None:
    names = ("peers.json", "peers.json.sig", "peers.json.manifest")
    with moto_http.running() as url, aws.environ({"AWS_ENDPOINT_URL_S3": url}):
        logging.getLogger("werkzeug").setLevel(logging.INFO)
        bucket = f"capsules-of-{secrets.token_hex(4)}"
        settings = {
            "MUSTER_ACCESS": "closed",
            "MUSTER_COMMUNITY_NAMES": "mainnet",
            "MUSTER_CAPSULE_BUCKET": bucket,
        }
        with flooded(tmp_path, dynalite_url, **settings) as flood:
            client = open_client("s3")
            client.create_bucket(Bucket=bucket)
            manifest = hashlib.sha256(FILE).hexdigest().encode().ljust(len(FILE))
            for name, body in zip(names, (FILE, FILE, manifest), strict=True):
                client.put_object(Bucket=bucket, Key=f"capsules/mainnet/{name}", Body=body)
            started = time.monotonic()
            answers = [
                flood.call("GET", f"/capsules/mainnet/{name}") for _ in range(20) for name in names
            ]
            strays = [flood.call("GET", "/capsules/elsewhere/peers.json") for _ in range(10)]
            within = time.monotonic() - started
    limits, terms = Ceilings(), Terms(standing=QUIET, communities=1)
    told = limits.strangers(terms)

    assert within < KEPT_S, "the flood is over before anything is read again"
    assert gets.count == CAPSULE_FILES
    month_gets = limits.concurrency * gets.count / KEPT_S * MONTH_S
    published = CAPSULE_FILES * MONTH_S / 60
    read = next(row.quantity for row in told.rows if row.what == "files read")
    assert read == pytest.approx(month_gets + published, rel=AGREED)
    sent = sum(len(answer.body) for answer in answers if answer.status == 200)
    assert sent <= BURST_BYTES * (1 + AGREED)
    assert {answer.status for answer in answers} == {200, 429}
    assert {answer.status for answer in strays} == {404}


def test_a_flood_for_the_library_asks_no_table_and_sends_as_little_as_the_model_says(
    closed: Flood,
) -> None:
    modules = sorted(load().modules)
    taken = closed.take(lambda: closed.call("GET", modules[0]), status=200)
    answers = [closed.call("GET", path) for _ in range(20) for path in modules]

    assert (taken.read, taken.written) == (0, 0)
    assert taken.log_bytes <= ceilings.CALL.log_bytes * (1 + AGREED)
    assert {answer.status for answer in answers} == {200, 429}
    sent = sum(len(answer.body) for answer in answers if answer.status == 200)
    assert sent <= BURST_BYTES * (1 + AGREED)


def test_a_flood_for_the_app_asks_no_table_and_sends_as_little_as_the_model_says(
    closed: Flood, tmp_path: Path
) -> None:
    """What has a body is in the container's budget; what has none is a call as others are."""
    web_app.on_aws(closed.gateway, web_app.as_packed(tmp_path / "web", random_bytes=100_000))
    closed.host.used = closed.meter
    page = closed.call("GET", "/app/")
    known = [("If-None-Match", page.headers["etag"]), ("X-Felund-Node", NODE)]
    taken = [
        closed.take(lambda: closed.call("GET", "/app/", headers=known), status=304),
        closed.take(lambda: closed.call("GET", "/app"), status=308),
        closed.take(lambda: closed.call("GET", "/app/none.js"), status=404),
        closed.take(lambda: closed.call("POST", "/app/"), status=405),
    ]
    script = re.findall(r"app\.[0-9a-f]{16}\.js", page.body.decode())[0]
    answers = [closed.call("GET", f"/app/{script}") for _ in range(30)]

    assert (worst(taken).read, worst(taken).written) == (0, 0)
    assert worst(taken).answer_bytes <= ceilings.CALL.answer_bytes
    assert worst(taken).log_bytes <= ceilings.CALL.log_bytes * (1 + AGREED)
    assert {answer.status for answer in answers} == {200, 429}
    sent = sum(len(answer.body) for answer in answers if answer.status == 200)
    assert sent <= BURST_BYTES * (1 + AGREED)


# --- an open service --------------------------------------------------------------------


CIRCLE, TEXTS, CHARS = 120, 20, 15_800
FAT = [{"transport": "tcp", "host": "h" * 120, "port": 9999}] * 3
MIX = {"post": 0.2, "poll": 0.2, "peers": 4, "announce": 6.6}
"""What strangers might choose, in calls a second: together as many as the gateway lets through."""


def test_strangers_of_an_open_service_cost_what_the_model_says(
    dynalite_url: str, tmp_path: Path
) -> None:
    """Eleven calls a second are enough to reach the tables' ceilings, which the model counts.

    What the machines are busy with and send to sockets has ceilings of its own, and is the
    model's in both.
    """
    with flooded(tmp_path, dynalite_url, MUSTER_ACCESS="open") as flood:
        secret = secrets.token_bytes(32)
        circle = [Member(flood.gateway, f"node-{number:05d}", secret) for number in range(CIRCLE)]
        for member in circle:
            body = _registration(member) | {"endpoints": FAT}
            assert flood.signed(member, "POST", "/v1/register", body).status == 200
        members = itertools.cycle(circle)

        def post() -> Answer:
            texts = [{"msg_id": secrets.token_hex(8), "text": "x" * CHARS} for _ in range(TEXTS)]
            body = {"circle_hint": circle[0].hint, "messages": texts}
            return flood.signed(next(members), "POST", "/v1/messages", body)

        def ask(path: str, query: str) -> Answer:
            headers = list(next(members).signed("GET", path, b"").items())
            query = f"circle_hint={circle[0].hint}{query}"
            return flood.call("GET", path, headers=headers, query=query)

        taken = {
            "post": flood.take(post, status=200),
            "poll": flood.take(lambda: ask("/v1/messages", "&after=0"), status=200),
            "peers": flood.take(lambda: ask("/v1/peers", "&limit=200"), status=200),
            "announce": flood.take(flood.announce, status=200),
            "socket": flood.take(lambda: socket(flood, next(members)), status=200),
        }
    limits, terms = Ceilings(), Terms(standing=QUIET)
    told = limits.open(terms)
    found = open_month(limits, taken)

    print(taken, found, told.rows)
    for what, quantity in found.items():
        ((row),) = (row for row in told.rows if row.what == what)
        assert row.quantity == pytest.approx(quantity, rel=AGREED), what


def socket(flood: Flood, member: Member) -> Answer:
    """Ask for a token, open a socket by it, and hang up; only the socket is counted."""
    body = {"node_id": member.node_id, "circle_hint": member.hint}
    answer = flood.signed(member, "POST", "/v1/relay/subscription", body)
    flood.meter.begin()
    flood.gateway.open(f"token={answer.json()['token']}", source_ip=flood.address()).close()
    return answer


def open_month(limits: Ceilings, taken: Mapping[str, Taken]) -> dict[str, float]:
    """Return what a month of the mix takes, as far as the tables give it."""
    assert sum(MIX.values()) == pytest.approx(limits.rest_rate)
    wrote = {name: MIX[name] * taken[name].written for name in MIX}
    read = {name: MIX[name] * taken[name].read for name in MIX}
    beside = sum(wrote.values()) - wrote["post"]
    beside += limits.socket_rate / 2 * taken["socket"].written  # opened and closed
    mail = min(read["post"] + read["poll"], limits.read_units)
    places = min(read["peers"], limits.read_units)
    out = mail / taken["poll"].read * taken["poll"].answer_bytes
    out += places / taken["peers"].read * taken["peers"].answer_bytes
    pushed = limits.pushes_per_s * limits.concurrency * ceilings.PIECE_BYTES
    return {
        "store, written": (min(wrote["post"], limits.write_units) + beside) * MONTH_S,
        "store, read": (mail + places + read["announce"]) * MONTH_S,
        "data out": (out + pushed) * MONTH_S / GB,
        "HTTP calls": limits.rest_rate * MONTH_S,
    }
