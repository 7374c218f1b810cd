"""One call of the client: signing, retries, clock, bounds and refusals, on a scripted service."""

from __future__ import annotations

import asyncio
import hmac
import json
from collections.abc import Awaitable, Callable
from typing import Any

import httpx2
import pytest

from muster import errors
from muster.backoff import Backoff
from muster.felund import crypto, records, signing
from muster.felund.circle import Circle
from muster.felund.client import CHECK_S, BadReply, Client, Unreachable, service_url
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


FIRST = 1_799_000_000_000
TOMORROWS = int((virtual.START + 2 * 86_400) * 1000)


class Mail:
    """A service with a mailbox, a node's signals and members; it may lie for one answer."""

    def __init__(self, *texts: str, pages: bool = True) -> None:
        self.entries = [sealed(text) for text in texts]
        self.members: list[str] = []
        self.pages = pages
        self.lies: list[int] = []
        self.asked: list[dict[str, str]] = []

    def __call__(self, call: httpx2.Request) -> httpx2.Response:
        self.asked.append(dict(call.url.params))
        return self.peers() if call.url.path == "/v1/peers" else self.messages()

    def messages(self) -> httpx2.Response:
        after = self.asked[-1].get("after")
        end = FIRST + len(self.entries) - 1 if self.entries else 0
        if after is None:
            return page(cursor=end)
        found = self.entries[max(int(after) - FIRST + 1, 0) :]
        cursor = end if found else int(after)
        return page(*found, cursor=self.lies.pop() if self.lies else cursor)

    def peers(self) -> httpx2.Response:
        limit, after = int(self.asked[-1]["limit"]), self.asked[-1].get("after", "")
        beyond = sorted(name for name in self.members if name > after or not self.pages)
        more = {"more": len(beyond) > limit} if self.pages else {}
        return ok({"ok": True, "peers": [peer(n) for n in beyond[:limit]], "server_time": 1} | more)


def peer(node_id: str) -> dict[str, Any]:
    return {
        "node_id": node_id,
        "circle_hint": CIRCLE.circle_hint,
        "endpoints": [],
        "capabilities": {},
        "observed_at": 1,
        "expires_at": 2,
    }


async def texts(client: Client) -> list[str]:
    return [note.text async for note in client.receive()]


@pytest.mark.parametrize("cursor", [TOMORROWS, 2**53 - 1])
def test_a_cursor_of_the_future_is_not_believed(cursor: int) -> None:
    mail = Mail("one", "two")
    mail.lies = [cursor]

    async def act(client: Client) -> list[str]:
        with pytest.raises(BadReply, match="future"):
            await texts(client)
        assert client.cursor == 0
        return await texts(client)

    assert play(mail, act) == ["one", "two"]


@pytest.mark.parametrize("cursor", [2**53 - 1, int(virtual.START * 1000), FIRST + 2])
def test_a_kept_cursor_beyond_the_mailbox_starts_again(cursor: int) -> None:
    mail = Mail("one", "two")

    async def act(client: Client) -> list[str]:
        found = await texts(client)
        mail.entries.append(sealed("three"))
        return found + await texts(client)

    assert play(mail, act, cursor=cursor) == ["one", "two", "three"]


def test_a_kept_cursor_that_is_right_is_checked_once() -> None:
    mail = Mail("one", "two")

    async def act(client: Client) -> list[str]:
        return await texts(client) + await texts(client)

    assert play(mail, act, cursor=FIRST + 1) == []
    assert ["after" in asked for asked in mail.asked] == [True, False, True]


def test_a_reader_that_was_led_astray_finds_back_and_sees_nothing_twice() -> None:
    mail = Mail("one", "two")

    async def act(client: Client) -> list[str]:
        found = await texts(client)
        mail.entries.append(sealed("three"))
        mail.lies = [int(virtual.now() * 1000)]
        found += await texts(client)
        mail.entries.append(sealed("four"))
        assert await texts(client) == []
        await asyncio.sleep(CHECK_S)
        return found + await texts(client)

    assert play(mail, act) == ["one", "two", "three", "four"]


@pytest.mark.parametrize("number", [TOMORROWS, 2**53 - 1])
def test_a_signal_of_the_future_is_not_believed(number: int) -> None:
    signal = {
        "id": number,
        "session_id": "session-1",
        "from_node": "node-00002",
        "to_node": NODE,
        "type": "offer",
        "payload": "x",
        "created_at": 1,
    }
    script = Script(ok({"ok": True, "signals": [signal], "server_time": 1}))

    with pytest.raises(BadReply, match="future"):
        play(script, lambda client: client.poll_signals())


def test_a_message_in_clear_is_counted_as_unreadable_whatever_its_mac() -> None:
    heads = {
        "msg_id": "m" * 32,
        "circle_id": CIRCLE.circle_id,
        "channel_id": "general",
        "author_node_id": NODE,
        "created_ts": 1,
    }
    fields = ["m" * 32, CIRCLE.circle_id, "general", NODE, "Ann", "1", "forged"]
    mac = hmac.digest(CIRCLE.secret, "|".join(fields).encode(), "sha256").hex()
    clear = {**heads, "display_name": "Ann", "text": "forged", "mac": mac}
    script = Script(page(clear, sealed("true"), cursor=2))

    async def act(client: Client) -> tuple[list[str], int]:
        async for note in client.receive():
            return [note.text], client.unreadable
        return [], client.unreadable

    assert play(script, act) == (["true"], 1)


@pytest.mark.parametrize("days", [-400.0, -1.1, 1.1, 365.0])
def test_no_service_moves_our_clock_by_more_than_a_day(days: float) -> None:
    there = int(virtual.START + days * 86_400)
    script = Script(
        no(errors.ExpiredTimestamp("the clock is off")),
        ok({"ok": True, "version": "1", "time": there}),
        ok(),
    )

    async def act(client: Client) -> None:
        with pytest.raises(errors.ExpiredTimestamp, match="days from this machine's"):
            await client.peers()
        assert client.clock_offset_s == 0
        await client.peers()

    play(script, act)

    signed = [call.headers["X-Felund-Ts"] for call in script.calls if call.url.path != "/v1/health"]
    assert signed == [str(int(virtual.START))] * 2


def test_a_text_is_dated_by_the_clock_that_is_known_to_be_right() -> None:
    stored = ok({"ok": True, "stored": 1, "server_time": 1, "cursor": 1})
    script = Script(no(errors.ExpiredTimestamp("the clock is off")), ok(HEALTHY), stored)

    note = play(script, lambda client: client.send("late"), rim=virtual.rim(skew_s=7200))

    first, _, second = (call.read() for call in script.calls)
    sent = [json.loads(body)["messages"][0] for body in (first, second)]
    assert abs(note.created_ts - virtual.START) <= 1
    assert sent[1]["created_ts"] == note.created_ts
    assert sent[0]["msg_id"] == sent[1]["msg_id"]
    assert crypto.decrypt(CIRCLE, sent[1]) == note


@pytest.mark.parametrize("status", [400, 401, 403, 404, 405, 409])
@pytest.mark.parametrize("body", [b"<html>at work</html>", b'{"message":"Forbidden"}', b""])
def test_an_answer_without_musters_words_is_a_path_that_may_be_mended(
    status: int, body: bytes
) -> None:
    script = Script(httpx2.Response(status, content=body), ok())

    assert play(script, peers).peers == ()
    assert script.at == [0, 0.25]


@pytest.mark.parametrize("status", [429, 503])
def test_a_bare_wait_is_waited(status: int) -> None:
    script = Script(
        httpx2.Response(status, headers={"Retry-After": "9"}, text="<html>slowly</html>"), ok()
    )

    play(script, peers)

    assert script.at == [0, 9.25]


@pytest.mark.parametrize(("count", "calls"), [(0, 1), (200, 1), (201, 2), (450, 3)])
def test_all_peers_are_listed_page_by_page(count: int, calls: int) -> None:
    mail = Mail()
    mail.members = [f"node-{number:05}" for number in range(count)]

    found = play(mail, lambda client: client.all_peers())

    assert sorted(peer.node_id for peer in found.peers) == mail.members
    assert not found.more
    assert len(mail.asked) == calls


def test_an_older_service_that_knows_no_pages_says_what_it_has() -> None:
    mail = Mail(pages=False)
    mail.members = [f"node-{number:05}" for number in range(450)]

    found = play(mail, lambda client: client.all_peers())

    assert len(found.peers) == 200
    assert found.more, "somebody is missing"
    assert len(mail.asked) == 1


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
