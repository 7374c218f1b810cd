"""One call of the client: signing, retries, clock, bounds and refusals, on a scripted service."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable
from typing import Any

import httpx2
import pytest

from muster import errors
from muster.backoff import Backoff
from muster.felund import crypto, records, signing
from muster.felund.circle import Circle
from muster.felund.client import BadReply, Client, Unreachable, service_url
from tests.client import virtual

CIRCLE = Circle(bytes(range(32)))
NODE = "node-a-0001"
HEALTHY = {"ok": True, "version": "1", "time": int(virtual.START)}
NOBODY = {"ok": True, "peers": [], "server_time": 1}

Answer = httpx2.Response | Exception


class Script:
    """Answers each call with the next answer, the last one for ever; keeps the calls."""

    def __init__(self, *answers: Answer) -> None:
        self.answers = list(answers)
        self.calls: list[httpx2.Request] = []
        self.at: list[float] = []

    def __call__(self, call: httpx2.Request) -> httpx2.Response:
        self.calls.append(call)
        self.at.append(virtual.now() - virtual.START)
        answer = self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]
        if isinstance(answer, Exception):
            raise answer
        return httpx2.Response(answer.status_code, headers=answer.headers, content=answer.read())


def ok(body: object = NOBODY) -> httpx2.Response:
    return httpx2.Response(200, json=body)


def no(refusal: errors.Refused) -> httpx2.Response:
    headers = {}
    if refusal.retry_after_s is not None:
        headers["Retry-After"] = str(refusal.retry_after_s)
    return httpx2.Response(refusal.status, json=refusal.to_json(), headers=headers)


def play(
    handler: Callable[[httpx2.Request], Any],
    act: Callable[[Client], Awaitable[Any]],
    *,
    base_url: str = "https://muster.test",
    **options: Any,
) -> Any:
    async def main() -> Any:
        options.setdefault("rim", virtual.rim(chance=1.0))
        client = Client(base_url, CIRCLE, NODE, transport=httpx2.MockTransport(handler), **options)
        async with client:
            return await act(client)

    return virtual.run(main())


def peers(client: Client) -> Awaitable[records.Peers]:
    return client.peers()


def test_a_call_carries_a_signature_over_its_body() -> None:
    script = Script(ok({"ok": True, "removed": True}))

    assert play(script, lambda client: client.unregister()).removed

    (call,) = script.calls
    body = call.read()
    assert call.method == "DELETE"
    assert json.loads(body) == {"node_id": NODE, "circle_hint": CIRCLE.circle_hint}
    assert call.headers["X-Felund-Node"] == NODE
    assert call.headers["X-Felund-Ts"] == str(int(virtual.START))
    assert call.headers["X-Felund-Signature"] == signing.sign(
        CIRCLE.request_key,
        "DELETE",
        "/register",
        body,
        timestamp=call.headers["X-Felund-Ts"],
        nonce=call.headers["X-Felund-Nonce"],
    )
    assert call.headers["Accept-Encoding"] == "identity"


def test_the_query_is_not_signed_and_the_base_may_have_a_path() -> None:
    script = Script(ok())

    play(script, peers, base_url="https://muster.test/api/v1/")

    (call,) = script.calls
    expected = f"https://muster.test/api/v1/peers?circle_hint={CIRCLE.circle_hint}&limit=50"
    assert str(call.url) == expected
    assert call.headers["X-Felund-Signature"] == signing.sign(
        CIRCLE.request_key,
        "GET",
        "/peers",
        b"",
        timestamp=call.headers["X-Felund-Ts"],
        nonce=call.headers["X-Felund-Nonce"],
    )


@pytest.mark.parametrize(
    "base", ["https://h", "https://h/", "https://h/v1", "https://h/v1/", "  https://h/v1//  "]
)
def test_a_base_url_may_be_written_in_several_ways(base: str) -> None:
    assert service_url(base) == "https://h"


@pytest.mark.parametrize(
    "base",
    ["", "h:8787", "//h", "ftp://h", "https://", "https://h?x", "https://h#x", "https://u:p@h"],
)
def test_a_base_url_that_is_none_is_refused_with_a_hint(base: str) -> None:
    with pytest.raises(ValueError, match="URL"):
        service_url(base)


@pytest.mark.parametrize(
    "node_id", ["", "short", "has space", "tab\tinside", "ünicode-node", "n" * 129]
)
def test_a_node_id_that_no_service_takes_is_refused_at_once(node_id: str) -> None:
    with pytest.raises(errors.InvalidRequest, match="node_id"):
        Client("https://h", CIRCLE, node_id)


@pytest.mark.parametrize(
    "trouble",
    [
        httpx2.ConnectError("connection refused"),
        httpx2.ReadTimeout("slow"),
        httpx2.RemoteProtocolError("closed"),
        no(errors.Unavailable("the store is slow")),
        no(errors.InternalError("oops")),
        no(errors.RateLimited("too many", retry_after_s=2)),
        no(errors.NonceReplay("a proxy repeated the call")),
        httpx2.Response(502, text="<html>bad gateway</html>"),
        httpx2.Response(504, text="slow down"),
    ],
    ids=lambda trouble: str(getattr(trouble, "status_code", type(trouble).__name__)),
)
def test_what_may_pass_is_tried_again_with_a_fresh_nonce(trouble: Answer) -> None:
    script = Script(trouble, trouble, ok())

    assert play(script, peers).peers == ()

    assert len(script.calls) == 3
    assert len({call.headers["X-Felund-Nonce"] for call in script.calls}) == 3
    assert len({call.headers["X-Felund-Signature"] for call in script.calls}) == 3


def test_waits_grow_and_each_try_is_signed_for_its_own_time() -> None:
    script = Script(no(errors.Unavailable("the store is slow")))

    with pytest.raises(errors.Unavailable, match="the store is slow"):
        play(script, peers, backoff=Backoff(first_s=1, longest_s=4, attempts=5))

    assert script.at == [0, 1, 3, 7, 11]
    signed = [int(call.headers["X-Felund-Ts"]) - int(virtual.START) for call in script.calls]
    assert signed == [0, 1, 3, 7, 11]


def test_retry_after_is_honoured() -> None:
    script = Script(no(errors.RateLimited("too many", retry_after_s=7)), ok())

    play(script, peers)

    assert script.at == [0, 7.25]


def test_a_wait_that_is_too_long_is_the_callers_decision() -> None:
    script = Script(no(errors.MailboxFull("full", retry_after_s=3600)), ok())

    with pytest.raises(errors.MailboxFull) as caught:
        play(script, peers)

    assert caught.value.retry_after_s == 3600
    assert len(script.calls) == 1


@pytest.mark.parametrize(
    "retry_after", ["", "soon", "-1", "9" * 30, "Wed, 21 Oct 2026 07:28:00 GMT"]
)
def test_a_retry_after_that_is_no_number_of_seconds_is_not_followed(retry_after: str) -> None:
    refusal = no(errors.RateLimited("too many"))
    refusal.headers["Retry-After"] = retry_after

    script = Script(refusal, ok())
    play(script, peers)

    assert script.at == [0, 0.25]


def test_a_service_that_is_not_there_is_named() -> None:
    script = Script(httpx2.ConnectError("connection refused"))

    with pytest.raises(
        Unreachable, match=r"cannot reach https://muster\.test/v1/peers: connection"
    ):
        play(script, peers)

    assert len(script.calls) == Backoff().attempts


@pytest.mark.parametrize(
    "refusal",
    [
        errors.InvalidRequest("limit: expected a number"),
        errors.InvalidSignature("the signature does not match"),
        errors.NotFound("the target node is not registered"),
        errors.CircleFull("a circle may have 512 members"),
        errors.PayloadTooLarge("too large"),
        errors.SessionExpired("expired"),
    ],
    ids=lambda refusal: refusal.code,
)
def test_a_refusal_is_raised_as_its_class_and_not_tried_again(refusal: errors.Refused) -> None:
    script = Script(no(refusal))

    with pytest.raises(type(refusal), match=refusal.message):
        play(script, peers)

    assert len(script.calls) == 1


def test_a_wrong_clock_is_corrected_once_and_stays_corrected() -> None:
    ahead_s = 7200
    script = Script(no(errors.ExpiredTimestamp("the clock is off")), ok(HEALTHY), ok(), ok())

    async def twice(client: Client) -> float:
        await client.peers()
        await client.peers()
        return client.clock_offset_s

    offset_s = play(script, twice, rim=virtual.rim(skew_s=ahead_s))

    paths = [call.url.path for call in script.calls]
    assert paths == ["/v1/peers", "/v1/health", "/v1/peers", "/v1/peers"]
    assert abs(offset_s + ahead_s) <= 1
    assert "X-Felund-Signature" not in script.calls[1].headers
    first, _, second, third = (call.headers.get("X-Felund-Ts", "0") for call in script.calls)
    assert int(first) - int(second) == pytest.approx(ahead_s, abs=1)
    assert second == third


def test_a_clock_that_stays_wrong_is_reported() -> None:
    def handler(call: httpx2.Request) -> httpx2.Response:
        if call.url.path == "/v1/health":
            return ok(HEALTHY)
        calls.append(call)
        return no(errors.ExpiredTimestamp("the clock is off"))

    calls: list[httpx2.Request] = []
    with pytest.raises(errors.ExpiredTimestamp):
        play(handler, peers)

    assert len(calls) == 2


@pytest.mark.parametrize(
    "answer",
    [
        httpx2.Response(200, text="<html>welcome to the hotel's network</html>"),
        httpx2.Response(200, text=""),
        httpx2.Response(200, json=[]),
        httpx2.Response(200, json={"ok": True}),
        httpx2.Response(200, json={"ok": False, "peers": [], "server_time": 1}),
        httpx2.Response(200, json={"ok": True, "peers": 5, "server_time": 1}),
        httpx2.Response(200, content=b"\xff\xfe"),
        httpx2.Response(200, content=b"[" * 100_000),
    ],
)
def test_an_answer_that_is_not_musters_is_named(answer: httpx2.Response) -> None:
    script = Script(answer)

    with pytest.raises(BadReply, match="did not answer as Muster does"):
        play(script, peers)

    assert len(script.calls) == 1


def test_a_redirect_is_not_followed_but_told() -> None:
    script = Script(httpx2.Response(308, headers={"Location": "https://www.muster.test/v1/peers"}))

    with pytest.raises(BadReply, match=r"redirects to https://www\.muster\.test"):
        play(script, peers)


def test_a_strangers_404_asks_whether_the_url_is_right() -> None:
    with pytest.raises(errors.NotFound, match="is this the service's URL"):
        play(Script(httpx2.Response(404, text="nginx")), peers)


def test_an_endless_answer_is_cut() -> None:
    read = 0

    class Endless(httpx2.AsyncByteStream):
        async def __aiter__(self) -> Any:
            nonlocal read
            while True:
                read += 1000
                yield b" " * 1000

    def handler(call: httpx2.Request) -> httpx2.Response:
        return httpx2.Response(200, stream=Endless())

    with pytest.raises(BadReply, match="more than 5000 bytes"):
        play(handler, peers, max_reply_bytes=5000)

    assert read <= 6000


def test_a_dripping_answer_is_given_up_in_time() -> None:
    class Dripping(httpx2.AsyncByteStream):
        async def __aiter__(self) -> Any:
            while True:
                await asyncio.sleep(1)
                yield b" "

    def handler(call: httpx2.Request) -> httpx2.Response:
        return httpx2.Response(200, stream=Dripping())

    async def act(client: Client) -> float:
        with pytest.raises(Unreachable, match="has not answered in 3 s"):
            await client.peers()
        return virtual.now() - virtual.START

    assert play(handler, act, timeout_s=3, backoff=Backoff(attempts=1)) == 3


def test_a_compressed_answer_is_refused_unread() -> None:
    answer = httpx2.Response(
        200, headers={"Content-Encoding": "gzip"}, stream=httpx2.ByteStream(b"")
    )

    with pytest.raises(BadReply, match="compressed"):
        play(lambda call: answer, peers)


def test_a_message_is_encrypted_before_it_leaves() -> None:
    script = Script(ok({"ok": True, "stored": 1, "server_time": 1, "cursor": 1}))

    note = play(script, lambda client: client.send("geheim", channel="dev", display_name="Zoë"))

    (call,) = script.calls
    (envelope,) = json.loads(call.read())["messages"]
    assert b"geheim" not in call.read()
    assert set(envelope) == {*crypto.HEADS, "enc"}
    assert crypto.decrypt(CIRCLE, envelope) == note
    assert (note.text, note.channel_id, note.author_node_id) == ("geheim", "dev", NODE)


def test_a_message_that_is_sent_again_is_the_same_message() -> None:
    script = Script(
        httpx2.ReadTimeout("the answer was lost"),
        ok({"ok": True, "stored": 0, "server_time": 1, "cursor": 1}),
    )

    play(script, lambda client: client.send("once"))

    first, second = (call.read() for call in script.calls)
    assert first == second


def sealed(text: str) -> dict[str, Any]:
    note = crypto.Note(
        crypto.new_msg_id(NODE, now=1), CIRCLE.circle_id, "general", NODE, 1, "Ann", text
    )
    return crypto.encrypt(CIRCLE, note)


def page(*envelopes: object, cursor: int, more: bool = False) -> httpx2.Response:
    return ok(
        {
            "ok": True,
            "messages": list(envelopes),
            "server_time": 1,
            "cursor": cursor,
            "more": more,
        }
    )


def test_messages_are_received_page_by_page_and_what_is_unreadable_is_counted() -> None:
    script = Script(
        page(sealed("one"), {"msg_id": "x" * 8}, sealed("two"), cursor=5, more=True),
        page(sealed("three"), cursor=9),
        page(cursor=9),
    )

    async def act(client: Client) -> tuple[list[str], int, int]:
        texts = [note.text async for note in client.receive()]
        texts += [note.text async for note in client.receive()]
        return texts, client.cursor, client.unreadable

    assert play(script, act) == (["one", "two", "three"], 9, 1)
    assert [call.url.params["after"] for call in script.calls] == ["0", "5", "9"]


def test_breaking_off_in_the_middle_of_a_page_loses_nothing() -> None:
    script = Script(page(sealed("one"), sealed("two"), cursor=5), page(cursor=5))

    async def act(client: Client) -> list[str]:
        texts = []
        async for note in client.receive():
            texts.append(note.text)
            break
        return texts + [note.text async for note in client.receive()]

    assert play(script, act) == ["one", "two"]


def test_a_page_that_promises_more_without_moving_ends() -> None:
    script = Script(page(sealed("one"), cursor=0, more=True))

    async def act(client: Client) -> list[str]:
        return [note.text async for note in client.receive()]

    assert play(script, act) == ["one"]
    assert len(script.calls) == 1


def relay(url: str) -> records.SubscriptionOpened:
    return records.SubscriptionOpened(relay_url=url, token="t", expires_at=1, server_time=1)


@pytest.mark.parametrize(
    ("base", "named", "used"),
    [
        ("https://h", "wss://h/v1/relay/ws", "wss://h/v1/relay/ws"),
        ("https://h", "wss://other/ws", "wss://other/ws"),
        ("http://h", "ws://h/v1/relay/ws", "ws://h/v1/relay/ws"),
        ("https://h", "ws://h/v1/relay/ws", "wss://h/v1/relay/ws"),
        ("https://h", "ws://other/ws", None),
        ("https://h", "http://h/ws", None),
        ("https://h", "", None),
    ],
)
def test_a_token_from_an_encrypted_service_is_not_sent_in_clear(
    base: str, named: str, used: str | None
) -> None:
    opened: list[str] = []

    async def connect(url: str, token: str) -> Any:
        opened.append(url)

    async def act(client: Client) -> None:
        await client.attach(relay(named))

    if used is None:
        with pytest.raises(BadReply, match="relay"):
            play(Script(ok()), act, base_url=base, connect=connect)
        assert opened == []
    else:
        play(Script(ok()), act, base_url=base, connect=connect)
        assert opened == [used]
