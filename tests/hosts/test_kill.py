"""What is left after `kill -9`, at any moment, of the real server on a real file?"""

import json
import random
import sqlite3
import threading
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, closing, contextmanager
from http.client import HTTPException
from pathlib import Path
from signal import SIGKILL
from typing import Any

import pytest

from muster.felund import signing
from tests.support.local import Answer, Node, Server, barrier, circle, running

POSTS = 1_000
POSTERS = 8
KILLS = 3


class House:
    """A server that is killed and started again, at one address over one directory."""

    def __init__(self, directory: Path, running: ExitStack, *arguments: str) -> None:
        self._directory, self._running, self._arguments = directory, running, arguments
        self._up = threading.Event()
        self._nodes: list[Node] = []
        self.interrupted = 0
        self.server = running.enter_context(running_at(directory, 0, *arguments))
        self._up.set()

    def members(self, *names: str) -> list[Node]:
        """Return registered members of a new circle, who stay with the house."""
        made = circle(self.server, *names)
        self._nodes += made
        return made

    def kill(self) -> None:
        """Kill the server, and no other process, where it stands."""
        self._up.clear()
        self.server.stop(SIGKILL)

    def restart(self) -> None:
        """Start it again, where it was."""
        again = running_at(self._directory, self.server.port, *self._arguments)
        self.server = self._running.enter_context(again)
        for node in self._nodes:
            node.server = self.server
        self._up.set()

    def insist(self, node: Node, method: str, path: str, body: Any = None) -> Answer:
        """Make a signed call, and again if no answer came, until it is answered."""
        while True:
            self._up.wait()
            try:
                answer = node.call(method, path, body)
            except (OSError, HTTPException):
                self.interrupted += 1
                continue
            if answer.status != 503:
                return answer


def running_at(directory: Path, port: int, *arguments: str) -> Any:
    return running(directory, f"--port={port}", *arguments)


@contextmanager
def house(directory: Path, *arguments: str) -> Iterator[House]:
    with ExitStack() as running:
        yield House(directory, running, *arguments)


@pytest.mark.parametrize("seed", [1, 2])
def test_killed_in_the_middle_of_posts_it_keeps_what_it_acknowledged_and_nothing_twice(
    tmp_path: Path, seed: int
) -> None:
    chance = random.Random(seed)
    with house(tmp_path) as here:
        posters = here.members(*(f"poster{n}" for n in range(POSTERS)))
        reader = posters[0]
        acknowledged: list[str] = []

        def post(poster: Node) -> None:
            for n in range(POSTS // POSTERS):
                ids = [f"{poster.node_id}-{n:04}-{part}" for part in range(1 + n % 3)]
                messages = [{"msg_id": msg_id, "created_ts": n} for msg_id in ids]
                body = {"circle_hint": poster.hint, "messages": messages}
                answer = here.insist(poster, "POST", "/v1/messages", body)
                assert answer.status == 200, answer
                acknowledged.extend(ids)

        with ThreadPoolExecutor(POSTERS) as pool:
            work = [pool.submit(post, poster) for poster in posters]
            for at in sorted(chance.sample(range(100, 2 * POSTS - 400), KILLS)):
                wait_for(lambda at=at: len(acknowledged) >= at or any(w.done() for w in work))
                promised = list(acknowledged)
                here.kill()
                here.restart()
                kept = reader.collect()
                assert set(promised) <= set(kept)
                assert max(Counter(kept).values()) == 1
            for done in work:
                done.result()
        kept = reader.collect()

        assert here.interrupted >= KILLS, "no call was under way: this shows nothing"
        assert Counter(kept) == Counter(acknowledged)
        assert len(kept) == sum(1 + n % 3 for n in range(POSTS // POSTERS)) * POSTERS
        for poster in posters:
            own = [msg_id for msg_id in kept if msg_id.startswith(poster.node_id)]
            assert own == sorted(own), "what one node left stays in its order"
        here.kill()
        assert whole(tmp_path)
        here.restart()
        assert reader.collect() == kept


def wait_for(fact: Any) -> None:
    """Wait until something is so; the test's time limit bounds it."""
    while not fact():
        time.sleep(0.002)


def whole(directory: Path) -> bool:
    """Whether SQLite finds its file in order after the kill."""
    with closing(sqlite3.connect(directory / "muster.sqlite3")) as database:
        return bool(database.execute("PRAGMA integrity_check").fetchone() == ("ok",))


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_killed_while_nodes_come_and_go_it_knows_who_is_there(tmp_path: Path, seed: int) -> None:
    chance = random.Random(seed)
    with house(tmp_path) as here:
        nodes = here.members(*(f"guest{n:02}" for n in range(24)))
        observer = here.members("observer")[0]
        observer.secret = nodes[0].secret
        told: dict[str, int | None] = {}

        def come_and_go(some: Sequence[Node]) -> None:
            whims = random.Random(f"{seed} {some[0].node_id}")
            for turn in range(6):
                for node in some:
                    body = {"node_id": node.node_id, "circle_hint": node.hint}
                    if turn % 2 == 0 or whims.random() < 0.7:
                        key = signing.request_key(node.secret).hex()
                        more = {"signing_key": key, "ttl_s": 600}
                        answer = here.insist(node, "POST", "/v1/register", body | more)
                        told[node.node_id] = answer.json()["expires_at"]
                    else:
                        answer = here.insist(node, "DELETE", "/v1/register", body)
                        assert answer.status == 200
                        told[node.node_id] = None

        with ThreadPoolExecutor(4) as pool:
            work = [pool.submit(come_and_go, nodes[n::4]) for n in range(4)]
            for _ in range(2):
                threading.Event().wait(chance.uniform(0.05, 0.3))
                here.kill()
                here.restart()
            for done in work:
                done.result()
        here.kill()
        here.restart()
        found = observer.ask("GET", "/v1/peers", query=f"?circle_hint={nodes[0].hint}&limit=200")

        assert {peer["node_id"]: peer["expires_at"] for peer in found["peers"]} == {
            node_id: until for node_id, until in told.items() if until is not None
        }


def test_what_was_spent_and_pinned_before_the_kill_stays_so(tmp_path: Path) -> None:
    with house(tmp_path) as here:
        (ann,) = here.members("ann")
        key = signing.request_key(ann.secret)
        headers = signing.headers(
            key, "GET", "/peers", b"", node_id=ann.node_id, now=int(time.time()), nonce=bytes(16)
        )
        target = f"/v1/peers?circle_hint={ann.hint}"
        assert here.server.call("GET", target, headers=headers).status == 200
        before = here.server.call("GET", "/v1/info").json()["keys"]

        here.kill()
        here.restart()

        again = here.server.call("GET", target, headers=headers)
        assert (again.status, again.json()["code"]) == (409, "NONCE_REPLAY")
        mallory = Node(here.server, "mallory-0001", bytes(31) + b"\x66")
        body = {
            "node_id": mallory.node_id,
            "circle_hint": ann.hint,
            "signing_key": signing.request_key(mallory.secret).hex(),
        }
        refused = mallory.call("POST", "/v1/register", body)
        assert (refused.status, refused.json()["code"]) == (401, "INVALID_SIGNATURE")
        assert here.server.call("GET", "/v1/info").json()["keys"] == before


def frame(session_id: str, seq: int) -> str:
    return json.dumps({"t": "FRAME", "session_id": session_id, "seq": seq, "payload_b64": "aGk="})


def test_seats_that_a_kill_left_behind_are_empty_and_can_be_taken_again(tmp_path: Path) -> None:
    with house(tmp_path) as here, ExitStack() as sockets:
        ann, bob = here.members("ann", "bob")
        first, session = ann.attach(bob)
        second, _ = bob.attach(ann)
        sockets.enter_context(first)
        sockets.enter_context(second)
        first.send(frame(session, 1))
        assert {"t": "ACK", "session_id": session, "seq": 1} in barrier_after(first, "ACK")

        here.kill()
        here.restart()

        first, same = ann.attach(bob)
        sockets.enter_context(first)
        assert same == session, "the pair keeps its session"
        barrier(first)  # it may have been told of the old seat, and that it is gone
        first.send(frame(session, 2))
        answers = barrier(first)
        assert [a for a in answers if a["t"] == "ACK"] == [], "nobody has taken the frame"
        [error] = [a for a in answers if a["t"] == "ERROR"]
        assert (error["code"], error["retryable"], error["seq"]) == ("NOT_FOUND", True, 2)

        second, _ = bob.attach(ann)
        sockets.enter_context(second)
        joined = {"t": "ATTACHED", "session_id": session, "node_id": bob.node_id}
        assert joined in barrier(first)
        for seq, here_from, there in ((3, first, second), (4, second, first)):
            here_from.send(frame(session, seq))
            assert {"t": "ACK", "session_id": session, "seq": seq} in barrier(here_from)
            assert [a["seq"] for a in barrier(there) if a["t"] == "FRAME"] == [seq]


def barrier_after(socket: Any, kind: str) -> list[Any]:
    """Read until a frame of this kind has come."""
    seen = barrier(socket)
    while kind not in {one["t"] for one in seen}:
        seen += barrier(socket)
    return seen


def test_listeners_that_a_kill_left_behind_hinder_nobody(tmp_path: Path) -> None:
    with house(tmp_path) as here, ExitStack() as sockets:
        ann, bob = here.members("ann", "bob")
        token = bob.token()
        for _ in range(5):
            sockets.enter_context(bob.subscribe())
        ann.leave("before-0001")

        here.kill()
        here.restart()

        again = sockets.enter_context(
            here.server.websocket(additional_headers={"Authorization": f"Bearer {token}"})
        )
        told = barrier_after(again, "MESSAGES")
        assert [m["msg_id"] for one in told for m in one["messages"]] == ["before-0001"]
        ann.leave("after-0001")
        told = barrier_after(again, "MESSAGES")
        assert [m["msg_id"] for one in told for m in one["messages"]] == ["after-0001"]
        assert bob.collect() == ["before-0001", "after-0001"]


def test_a_server_killed_at_once_starts_again(tmp_path: Path) -> None:
    """A kill while it starts leaves nothing that would hinder the next one."""
    for _ in range(3):
        with running_at(tmp_path, 0) as server:
            server.stop(SIGKILL)
    with running_at(tmp_path, 0) as server:
        assert isinstance(server, Server)
        assert server.call("GET", "/v1/health").status == 200
