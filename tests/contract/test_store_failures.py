"""What is a store worth when its engine is not well? `Unavailable`, and nothing worse."""

import contextlib
import json
import socket
import sqlite3
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, ClassVar

import pytest
from botocore.exceptions import ClientError

from chalicelib.store import Item, Store, Stores, TableNames, Unavailable, stamped
from chalicelib.store.dynamodb import open_dynamodb
from chalicelib.store.dynamodb_http import DynamoError
from chalicelib.store.sqlite import open_sqlite
from tests.support import dynalite, stores

NAMES = TableNames("presence", "mail", "guard")
MANY = tuple(Item("circle#c", f"{n:02}", 10) for n in range(30))

VERBS: dict[str, Callable[[Store], object]] = {
    "put": lambda store: store.put(Item("circle#c", "a", 10)),
    "put many": lambda store: store.put(*MANY),
    "put_new": lambda store: store.put_new(Item("circle#c", "a", 10), now=1),
    "put_later": lambda store: store.put_later(stamped(Item("circle#c", "a", 10), 1), now=1),
    "get": lambda store: store.get("circle#c", "a", now=1),
    "known": lambda store: store.known("circle#c", ["a"], now=1),
    "newest": lambda store: store.newest("circle#c", limit=1, now=1),
    "after": lambda store: store.after("circle#c", "", limit=1, now=1),
    "delete": lambda store: store.delete("circle#c", "a", now=1),
    "delete with body": lambda store: store.delete("circle#c", "a", now=1, body=b"x"),
    "add": lambda store: store.add("circle#c", "a", 1, expires_at=10, now=1),
}
WRITES = {name: verb for name, verb in VERBS.items() if name.startswith(("put", "delete", "add"))}
READS = {name: verb for name, verb in VERBS.items() if name not in WRITES}

verbs = pytest.mark.parametrize("verb", VERBS.values(), ids=VERBS)
writes = pytest.mark.parametrize("verb", WRITES.values(), ids=WRITES)
reads = pytest.mark.parametrize("verb", READS.values(), ids=READS)


class Answer:
    """What the impostor says: a status and a body, as many bytes of it as it lives to send."""

    def __init__(self, status: int, body: object, *, sent: int | None = None) -> None:
        self.status = status
        self.body = body if isinstance(body, bytes) else json.dumps(body).encode()
        self.sent = sent


def fault(status: int, code: str) -> Answer:
    return Answer(status, {"__type": f"com.amazonaws.dynamodb.v20120810#{code}", "message": "no"})


SILENCE = Answer(0, b"")
BROKEN_OFF = Answer(200, {"Item": {"pk": {"S": "circle#c"}}}, sent=9)
HUNG_UP = Answer(0, b"")


CLIENTS: dict[str, Callable[..., Any]] = {
    "botocore": stores.local_client,
    "signed": stores.signed_client,
}


class Impostor(ThreadingHTTPServer):
    """What listens where DynamoDB should, and answers by a script of which the last line stays."""

    daemon_threads = True

    def __init__(self, asked_by: str) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.url = f"http://127.0.0.1:{self.server_address[1]}"
        self.asked_by = asked_by

    def play(self, *script: Answer) -> None:
        self.script = list(script)
        self.heard: list[tuple[str, Any]] = []
        self.pauses: list[float] = []

    def store(self, *, attempts: int = 1) -> Store:
        client = CLIENTS[self.asked_by](self.url, read_s=0.2, attempts=attempts)
        return open_dynamodb(tables=NAMES, client=client, pause=self.pauses.append).mail


class _Handler(BaseHTTPRequestHandler):
    server: Impostor

    def do_POST(self) -> None:
        asked = self.rfile.read(int(self.headers["Content-Length"]))
        impostor = self.server
        impostor.heard.append((self.headers["X-Amz-Target"].split(".")[1], json.loads(asked)))
        answer = impostor.script.pop(0) if len(impostor.script) > 1 else impostor.script[0]
        if answer is SILENCE:
            self.rfile.read(1)  # until the caller has had enough
        if answer in (SILENCE, HUNG_UP):
            self.close_connection = True
            return
        self.send_response(answer.status)
        self.send_header("Content-Length", str(len(answer.body)))
        self.send_header("Content-Type", "application/x-amz-json-1.0")
        self.end_headers()
        self.wfile.write(answer.body[: answer.sent])
        self.close_connection = answer.sent is not None

    def log_message(self, format: str, *args: object) -> None:
        pass


@pytest.fixture(scope="module", params=CLIENTS)
def listening(request: pytest.FixtureRequest) -> Iterator[Impostor]:
    with Impostor(request.param) as impostor:
        thread = threading.Thread(target=impostor.serve_forever, args=(0.01,))
        thread.start()
        yield impostor
        impostor.shutdown()
        thread.join()


@pytest.fixture
def impostor(listening: Impostor) -> Impostor:
    listening.play()
    return listening


@pytest.fixture(scope="module", params=CLIENTS)
def nobody(request: pytest.FixtureRequest) -> Iterator[Store]:
    with socket.socket() as bound:  # and not listening
        bound.bind(("127.0.0.1", 0))
        client = CLIENTS[request.param](f"http://127.0.0.1:{bound.getsockname()[1]}")
        yield open_dynamodb(tables=NAMES, client=client).mail


@pytest.fixture(scope="module", params=[stores.in_dynalite, stores.signed])
def killed(request: pytest.FixtureRequest) -> Store:
    with dynalite.running() as url:
        store: Store = request.param(url).mail
        assert store.put_new(Item("circle#c", "a", 10), now=1)
    return store


class TestDynamoDB:
    ILL: ClassVar = {
        "throttled": fault(400, "ProvisionedThroughputExceededException"),
        "throttled at the door": fault(400, "ThrottlingException"),
        "too many requests": fault(400, "RequestLimitExceeded"),
        "an error inside": fault(500, "InternalServerError"),
        "not there": fault(503, "ServiceUnavailable"),
        "a proxy's page": Answer(502, b"<html>bad gateway</html>"),
        "an empty error": Answer(500, b""),
        "silent": SILENCE,
        "broken off": BROKEN_OFF,
        "broken off where it looks whole": Answer(200, {"Item": {"n": {"N": "1"}}}, sent=25),
        "somebody else's": Answer(200, b"<html>log in to the hotel</html>"),
        "hung up": HUNG_UP,
    }

    @verbs
    @pytest.mark.parametrize("answer", ILL.values(), ids=ILL)
    def test_illness_is_unavailable(
        self, impostor: Impostor, verb: Callable[[Store], object], answer: Answer
    ) -> None:
        impostor.play(answer)
        with pytest.raises(Unavailable):
            verb(impostor.store())

    @verbs
    def test_nobody_there_is_unavailable(
        self, nobody: Store, verb: Callable[[Store], object]
    ) -> None:
        with pytest.raises(Unavailable):
            verb(nobody)

    @verbs
    @pytest.mark.parametrize(
        "code", ["ValidationException", "AccessDeniedException", "ResourceNotFoundException"]
    )
    def test_our_own_mistakes_are_not_called_weather(
        self, impostor: Impostor, verb: Callable[[Store], object], code: str
    ) -> None:
        impostor.play(fault(400, code))
        with pytest.raises((ClientError, DynamoError), match=code):
            verb(impostor.store())

    def test_a_hiccup_is_repeated_and_not_noticed(self, impostor: Impostor) -> None:
        impostor.play(fault(500, "InternalServerError"), Answer(200, {}))
        impostor.store(attempts=3).put(Item("circle#c", "a", 10))

        assert [target for target, _ in impostor.heard] == ["PutItem", "PutItem"]

    def test_three_failures_are_enough(self, impostor: Impostor) -> None:
        impostor.play(fault(500, "InternalServerError"))
        mail = impostor.store(attempts=3)
        with pytest.raises(Unavailable):
            mail.put(Item("circle#c", "a", 10))

        assert len(impostor.heard) == 3

    def test_a_write_that_finds_itself_after_a_lost_answer_is_not_refused(
        self, impostor: Impostor
    ) -> None:
        """The first attempt was written, its answer lost: to call that a replay would be wrong."""
        impostor.play(HUNG_UP, fault(400, "ConditionalCheckFailedException"))
        guard = impostor.store(attempts=2)
        with pytest.raises(Unavailable):
            guard.put_new(Item("nonce#k", "n", 10), now=1)
        assert not guard.put_new(Item("nonce#k", "n", 10), now=1)

    def test_what_a_batch_left_over_is_put_again(self, impostor: Impostor) -> None:
        def left(*sks: str) -> Answer:
            key = {"pk": {"S": "circle#c"}, "expires_at": {"N": "10"}}
            rest = [{"PutRequest": {"Item": {**key, "sk": {"S": sk}}}} for sk in sks]
            return Answer(200, {"UnprocessedItems": {"mail": rest} if rest else {}})

        impostor.play(left("03", "04"), left("04"), left(), left())
        impostor.store().put(*MANY)

        asked = [
            [request["PutRequest"]["Item"]["sk"]["S"] for request in body["RequestItems"]["mail"]]
            for _, body in impostor.heard
        ]
        sks = [item.sk for item in MANY]
        assert asked == [sks[:25], ["03", "04"], ["04"], sks[25:]]
        assert impostor.pauses == [0.05, 0.1]

    def test_what_a_batch_leaves_over_for_ever_is_unavailable(self, impostor: Impostor) -> None:
        key = {"pk": {"S": "circle#c"}, "sk": {"S": "03"}, "expires_at": {"N": "10"}}
        impostor.play(Answer(200, {"UnprocessedItems": {"mail": [{"PutRequest": {"Item": key}}]}}))
        with pytest.raises(Unavailable):
            impostor.store().put(*MANY)

        assert impostor.pauses == [0.05, 0.1, 0.2, 0.4]

    def test_keys_left_over_are_asked_for_again(self, impostor: Impostor) -> None:
        def found(*sks: str, left: tuple[str, ...] = ()) -> Answer:
            items = [{"sk": {"S": sk}, "expires_at": {"N": "10"}} for sk in sks]
            keys = [{"pk": {"S": "circle#c"}, "sk": {"S": sk}} for sk in left]
            rest = {"mail": {"Keys": keys, "ConsistentRead": True}} if left else {}
            return Answer(200, {"Responses": {"mail": items}, "UnprocessedKeys": rest})

        impostor.play(found("a", left=("b",)), found("b"))
        assert impostor.store().known("circle#c", ["a", "b"], now=1) == {"a", "b"}
        impostor.play(found("a", left=("b",)))
        with pytest.raises(Unavailable):
            impostor.store().known("circle#c", ["a", "b"], now=1)

    def test_a_counter_that_is_now_expired_and_now_not_is_given_up(
        self, impostor: Impostor
    ) -> None:
        impostor.play(fault(400, "ConditionalCheckFailedException"))
        with pytest.raises(Unavailable):
            impostor.store().add("count", "c", 1, expires_at=10, now=1)

        assert len(impostor.heard) == 10


class TestDynalite:
    @verbs
    def test_what_was_killed_is_unavailable(
        self, killed: Store, verb: Callable[[Store], object]
    ) -> None:
        with pytest.raises(Unavailable):
            verb(killed)

    @pytest.mark.parametrize("create", [stores.in_dynalite, stores.signed])
    def test_writers_whom_it_dies_under_know_what_they_do_not_know(
        self, create: Callable[[str], Stores]
    ) -> None:
        """Each write is acknowledged or `Unavailable`, and none of them hangs."""
        acknowledged: list[int] = []
        refusals: list[Exception] = []
        enough = threading.Event()

        def write(store: Store, writer: int) -> None:
            try:
                for n in range(100_000):
                    store.put(Item(f"circle#{writer}", f"{n:06}", 10, b"x" * 1_000))
                    acknowledged.append(n)
                    if n > 20:
                        enough.set()
            except Exception as error:
                refusals.append(error)

        with dynalite.running() as url:
            store = create(url).mail
            threads = [threading.Thread(target=write, args=(store, n)) for n in range(4)]
            for thread in threads:
                thread.start()
            assert enough.wait(30)
        for thread in threads:
            thread.join(30)

        assert [type(refusal) for refusal in refusals] == [Unavailable] * 4
        assert len(acknowledged) > 20


class TestSqlite:
    @pytest.fixture
    def path(self, tmp_path: Path) -> Path:
        return tmp_path / "muster.db"

    @pytest.fixture
    def store(self, path: Path) -> Iterator[Store]:
        opened = open_sqlite(path, busy_s=0.05)
        yield opened.mail
        opened.close()

    @pytest.fixture
    def locked(self, path: Path, store: Store) -> Iterator[sqlite3.Connection]:
        """Another process of ours that has begun to write and does not come to an end."""
        store.put(Item("circle#c", "before", 10))
        with contextlib.closing(sqlite3.connect(path, isolation_level=None)) as other:
            other.execute("BEGIN IMMEDIATE")
            yield other

    @writes
    def test_a_write_to_a_locked_file_is_unavailable_and_not_written(
        self, locked: sqlite3.Connection, store: Store, verb: Callable[[Store], object]
    ) -> None:
        with pytest.raises(Unavailable, match="locked"):
            verb(store)
        locked.execute("COMMIT")

        assert [item.sk for item in store.newest("circle#c", limit=99, now=1).items] == ["before"]
        verb(store)

    @reads
    @pytest.mark.usefixtures("locked")
    def test_a_read_does_not_wait_for_a_writer(
        self, store: Store, verb: Callable[[Store], object]
    ) -> None:
        verb(store)
        assert store.get("circle#c", "before", now=1) is not None

    def test_several_items_are_put_or_none(self, store: Store) -> None:
        bad = Item("circle#c", "\ud800", 10)
        with pytest.raises(UnicodeEncodeError):
            store.put(*MANY, bad)

        assert store.newest("circle#c", limit=99, now=1).items == ()
        store.put(*MANY)
        assert len(store.newest("circle#c", limit=99, now=1).items) == len(MANY)

    def test_a_file_that_cannot_be_opened_is_unavailable(self, tmp_path: Path) -> None:
        with pytest.raises(Unavailable):
            open_sqlite(tmp_path / "no such folder" / "muster.db")

    def test_a_full_disk_is_unavailable_and_nothing_is_half_written(self, path: Path) -> None:
        opened = open_sqlite(path)
        with opened.database.connection() as connection:
            pages = connection.execute("PRAGMA page_count").fetchone()[0]
            connection.execute(f"PRAGMA max_page_count = {pages + 10}")
        large = tuple(Item("circle#c", f"{n:02}", 10, b"x" * 10_000) for n in range(30))
        with pytest.raises(Unavailable, match="full"):
            opened.mail.put(*large)

        assert opened.mail.newest("circle#c", limit=99, now=1).items == ()
        opened.close()
