"""`muster doctor` and `muster info`: green where all is well, and a hint where it is not."""

import asyncio
import json
import time
from collections.abc import Callable
from typing import Any

import httpx2
import msgspec
import pytest

from capsules.keys import SigningKey
from muster import errors
from muster.backoff import Backoff
from muster.cli import bars, hints
from muster.cli.doctor import waterfall
from muster.cli.doctor.examination import STEPS, Report, Result, examine
from muster.felund import frames, sockets
from muster.felund.circle import Circle
from muster.felund.client import BadReply, Client
from muster.felund.frames import FromService
from tests.cli.terminal import Terminal

Open = Callable[[str], Terminal]
Change = Callable[[httpx2.Request, dict[str, Any]], tuple[int, dict[str, Any]] | None]


class Altered(httpx2.AsyncHTTPTransport):
    """The way to the real service, with somebody on it who changes answers."""

    def __init__(self, change: Change) -> None:
        super().__init__()
        self._change = change

    async def handle_async_request(self, request: httpx2.Request) -> httpx2.Response:
        answer = await super().handle_async_request(request)
        body = await answer.aread()
        await answer.aclose()
        status, content = self._change(request, json.loads(body)) or (answer.status_code, None)
        return httpx2.Response(
            status,
            headers={"retry-after": "7"} if status == 429 else {},
            stream=Once(body if content is None else json.dumps(content).encode()),
        )


class Once(httpx2.AsyncByteStream):
    def __init__(self, body: bytes) -> None:
        self._body = body

    async def __aiter__(self) -> Any:
        yield self._body


def examined(
    base: str,
    change: Change = lambda request, answer: None,
    connect: sockets.Connect = sockets.connect,
    **options: Any,
) -> Report:
    def make(circle: Circle, node_id: str) -> Client:
        return Client(
            base,
            circle,
            node_id,
            transport=Altered(change),
            connect=connect,
            backoff=Backoff(attempts=1),
        )

    return asyncio.run(examine(make, base=base, **options))


def failures(report: Report) -> dict[str, Result]:
    assert not report.ok
    return {step.name: step for step in report.failed}


# --- as people and programs call it --------------------------------------------


def test_all_is_well(terminal: Open, base: str) -> None:
    shown = terminal("someone").run("doctor", base).stdout
    lines = shown.splitlines()
    assert len(lines) == len(STEPS) + 1
    for step, line in zip(STEPS, lines, strict=False):
        assert line.startswith("✓")
        assert step.what in line
        assert " ms " in line
        assert "█" in line
        assert line == line.rstrip()
    assert lines[-1].startswith(f"All {len(STEPS)} steps passed in ")


def test_all_is_well_where_only_ascii_can_be_drawn(terminal: Open, base: str) -> None:
    shown = terminal("someone").run("doctor", base, PYTHONUTF8="0", PYTHONIOENCODING="ascii")
    assert shown.stdout.isascii()
    assert shown.stdout.startswith("ok")


def test_the_report_for_programs(terminal: Open, base: str) -> None:
    report = json.loads(terminal("someone").run("doctor", base, "--json").stdout)
    assert report["ok"]
    assert report["base"] == base
    assert [step["name"] for step in report["steps"]] == [step.name for step in STEPS]
    ends = [step["started_ms"] + step["took_ms"] for step in report["steps"]]
    assert sorted(ends) == ends
    assert ends[-1] <= report["took_ms"]


def test_info_shows_policy_and_limits(terminal: Open, base: str) -> None:
    shown = terminal("someone").run("info", base).stdout
    assert "refused" in shown
    assert "frame_payload_bytes" in shown
    assert "16,384" in shown
    told = json.loads(terminal("someone").run("info", base, "--json").stdout)
    assert told["limits"]["frame_payload_bytes"] == 16384


@pytest.mark.parametrize(
    ("url", "said", "hint"),
    [
        ("http://127.0.0.1:9", "nothing listens at 127.0.0.1:9", "'muster serve' starts one"),
        ("http://no-such-host.invalid", "no host 'no-such-host.invalid'", "check the spelling"),
        ("{https}", "does not speak TLS", "try http://"),
        ("{base}/wrong", "not at this path", "check the path of the URL"),
    ],
)
def test_a_wrong_url_is_told_apart(
    terminal: Open, base: str, url: str, said: str, hint: str
) -> None:
    wrong = url.format(base=base, https=base.replace("http:", "https:"))
    someone = terminal("someone")
    shown = someone.run("doctor", wrong, expect=1).stdout
    assert said in shown
    assert hint in shown
    assert f"{len(STEPS) - 1} could not be tried" in shown
    line = someone.fails("info", wrong)
    assert said in line
    assert hint in line


def test_a_url_that_is_none_is_a_wrong_call(terminal: Open) -> None:
    assert "looks like https://host/path" in terminal("someone").fails("doctor", "x", expect=2)


# --- what can be wrong ---------------------------------------------------------


def test_a_clock_that_is_off_is_named_and_the_rest_goes_on(base: str) -> None:
    def later(request: httpx2.Request, answer: dict[str, Any]) -> tuple[int, dict[str, Any]] | None:
        return (200, {**answer, "time": answer["time"] + 400}) if _is(request, "health") else None

    failed = failures(examined(base, later))
    assert set(failed) == {"clock"}
    assert "behind the service" in failed["clock"].error
    assert "300 s" in failed["clock"].hint


def test_a_clock_that_is_a_little_off_is_said(base: str) -> None:
    def earlier(
        request: httpx2.Request, answer: dict[str, Any]
    ) -> tuple[int, dict[str, Any]] | None:
        return (200, {**answer, "time": answer["time"] - 60}) if _is(request, "health") else None

    report = examined(base, earlier)
    assert report.ok
    assert "ahead of the service" in _step(report, "clock").detail


@pytest.mark.parametrize(
    ("path", "answer", "step", "said", "hint"),
    [
        ("info", (200, {"protocol": 2}), "info", "speaks protocol 2", "update"),
        ("register", (429, {}), "register", "refused", "wait 7 s"),
        ("register", (401, {}), "register", "refused", "X-Felund"),
        ("relay/subscription", (404, {}), "subscribe", "not at this path", "older"),
        ("peers", (200, {"peers": []}), "find", "does not see", "share this address"),
        ("signal", (200, {"signals": [], "id": 1}), "signal", "offer did not", "share"),
        ("messages", (200, {"messages": [], "stored": 1}), "collect", "2 messages", "broken"),
        ("relay/session", (503, {}), "relay", "refused", "overloaded"),
        ("register", (200, {"removed": False}), "unregister", "not registered any", "share"),
    ],
)
def test_each_failure_has_its_hint(
    base: str, path: str, answer: tuple[int, dict[str, Any]], step: str, said: str, hint: str
) -> None:
    status, content = answer
    codes = {
        401: "INVALID_SIGNATURE",
        404: "NOT_FOUND",
        429: "RATE_LIMITED",
        503: "UNAVAILABLE",
    }

    def change(request: httpx2.Request, real: dict[str, Any]) -> tuple[int, dict[str, Any]] | None:
        if not _is(request, path) or not real["ok"]:
            return None
        if status == 200:
            return 200, {**real, **{key: content[key] for key in content if key in real}}
        message = "there is no such path" if status == 404 else "no"
        return status, {"code": codes[status], "message": message}

    failed = failures(examined(base, change))
    assert said in failed[step].error
    assert hint in failed[step].hint


def test_an_outsider_who_gets_in_is_the_worst(base: str) -> None:
    def open_door(
        request: httpx2.Request, answer: dict[str, Any]
    ) -> tuple[int, dict[str, Any]] | None:
        stranger = "stranger" in request.headers.get("x-felund-node", "")
        if stranger and _is(request, "peers"):
            return 200, {"ok": True, "peers": [], "server_time": 1}
        return None

    failed = failures(examined(base, open_door))
    assert "a stranger without the secret may list the nodes" in failed["outsider"].error
    assert failed["outsider"].hint == "do not use this service"


@pytest.mark.parametrize(
    "error",
    [
        sockets.Unreachable("cannot open a WebSocket: did not receive a valid HTTP response"),
        errors.from_json({}, status=426),
    ],
)
def test_a_proxy_that_blocks_the_websocket_is_named(base: str, error: Exception) -> None:
    async def blocked(url: str, token: str) -> sockets.Socket:
        raise error

    report = examined(base, connect=blocked)
    failed = failures(report)
    assert set(failed) == {"subscribe", "relay"}
    assert "'Upgrade: websocket'" in failed["subscribe"].hint
    assert _step(report, "push").detail == "needs 'subscribe'"
    assert _step(report, "frames").status == "skipped"


def test_a_websocket_that_the_service_refuses_is_not_blamed_on_a_proxy(base: str) -> None:
    async def refused(url: str, token: str) -> sockets.Socket:
        raise errors.InvalidToken("the token was not issued by this service")

    failed = failures(examined(base, connect=refused))
    assert "did not accept its own token" in failed["subscribe"].hint


def test_a_step_that_hangs_ends_at_its_deadline(base: str) -> None:
    async def hangs(url: str, token: str) -> sockets.Socket:
        return await asyncio.Event().wait()  # type: ignore[return-value] # it never returns

    started = time.monotonic()
    failed = failures(examined(base, connect=hangs, deadline_s=0.5))
    assert failed["subscribe"].error == "not done after 0.5 s"
    assert time.monotonic() - started < 5


class Meddling:
    """A real socket with somebody on it who changes what arrives."""

    def __init__(self, real: sockets.Socket, change: Callable[[FromService], FromService]) -> None:
        self._real, self._change = real, change
        self.send, self.close = real.send, real.close

    async def receive(self) -> FromService:
        return self._change(await self._real.receive())


def _other_payload(frame: FromService) -> FromService:
    changed = isinstance(frame, frames.Frame)
    return msgspec.structs.replace(frame, payload_b64="AAAA") if changed else frame


def _nameless_ack(frame: FromService) -> FromService:
    return msgspec.structs.replace(frame, from_=None) if isinstance(frame, frames.Ack) else frame


def _refusal(frame: FromService) -> FromService:
    if isinstance(frame, frames.Frame):
        return frames.Error(code="NOT_FOUND", message="the other seat is empty", retryable=True)
    return frame


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (_other_payload, "a frame was changed on the way"),
        (_nameless_ack, "not acknowledged by service and peer"),
        (_refusal, "the relay refused: the other seat is empty"),
    ],
)
def test_frames_that_are_changed_or_refused_are_found(
    base: str, change: Callable[[FromService], FromService], said: str
) -> None:
    async def meddled(url: str, token: str) -> sockets.Socket:
        return Meddling(await sockets.connect(url, token), change)

    assert said in failures(examined(base, connect=meddled))["frames"].error


@pytest.mark.parametrize(
    ("path", "step", "said"),
    [
        ("peers", "find", "endpoint was lost"),
        ("signal", "signal", "changed on the way"),
        ("relay/session", "relay", "different sessions"),
        ("register", "register", ""),
    ],
)
def test_what_is_changed_on_the_way_is_found(base: str, path: str, step: str, said: str) -> None:
    def change(request: httpx2.Request, real: dict[str, Any]) -> tuple[int, dict[str, Any]] | None:
        if not _is(request, path) or not real["ok"]:
            return None
        for peer in real.get("peers", ()):
            peer["endpoints"] = []
        for signal in real.get("signals", ()):
            signal["payload"] += "!"
        if "session_id" in real:
            real["session_id"] = request.headers["x-felund-node"]
        return 200, {name: value for name, value in real.items() if "observed" not in name}

    report = examined(base, change)
    if said:
        assert said in failures(report)[step].error
    else:
        assert _step(report, step).detail == "two nodes"


def _told(path: str, answer: Any, *, status: int = 200) -> Change:
    """Answer calls of a path with something else."""

    def change(request: httpx2.Request, real: dict[str, Any]) -> Any:
        found = request.url.path
        return (status, answer) if path in (found, found.rpartition("/")[2]) else None

    return change


def _another_root(request: httpx2.Request, answer: dict[str, Any]) -> Any:
    if request.url.path != "/v1/info":
        return None
    return 200, answer | {"capsule_root": SigningKey(bytes(32)).verify_key.to_base64()}


def _expired(request: httpx2.Request, answer: dict[str, Any]) -> Any:
    if request.url.path != "/peers" or not answer["peers"]:
        return None
    ticket = answer["peers"][0]
    payload = ticket["payload"] | {"issuedAt": 0, "expiresAt": 1}
    return 200, answer | {"peers": [ticket | {"payload": payload}]}


@pytest.mark.parametrize(
    ("change", "step", "said"),
    [
        (
            _told("/announce", {"ok": False, "peers": [], "validation": {"reason": "EXPIRED"}}),
            "announce",
            "a ticket was refused: EXPIRED",
        ),
        (_told("/announce", {}, status=403), "announce", "is answered with 403"),
        (_told("/announce", []), "announce", "something else than JSON"),
        (_expired, "list", "a ticket is listed that clients refuse: EXPIRED"),
        (_told("/peers", {"ok": True, "peers": []}), "list", "not done after 1 s"),
        (_told("peers.json.manifest", {}, status=404), "publish", "not done after 1 s"),
        (_told("peers.json.manifest", {}), "publish", "MALFORMED"),
        (_told("peers.json", {}), "verify", "clients refuse the capsule: LENGTH_MISMATCH"),
        (_another_root, "verify", "clients refuse the capsule: ROOT_CHAIN_BROKEN"),
    ],
)
def test_a_beacon_that_does_not_do_its_part_is_named(
    base: str, change: Change, step: str, said: str
) -> None:
    examined(base)  # so that there is a capsule

    report = examined(base, change, deadline_s=1)

    failed = failures(report)
    assert said in failed[step].error
    assert list(failed) == [step]


def test_a_service_that_publishes_nothing_is_well(base: str) -> None:
    def silent(request: httpx2.Request, answer: dict[str, Any]) -> Any:
        if request.url.path == "/v1/info":
            return 200, answer | {"capsule_root": None}
        return None

    report = examined(base, silent)

    assert report.ok
    assert [step.detail for step in report.steps[-2:]] == [
        "this service publishes none",
        "nothing to verify",
    ]


def test_nobody_stays_registered_after_a_failure(base: str) -> None:
    left: list[str] = []

    def full(request: httpx2.Request, answer: dict[str, Any]) -> tuple[int, dict[str, Any]] | None:
        if request.method == "DELETE" and answer["removed"]:
            left.append(request.headers["x-felund-node"])
        return (429, {"code": "RATE_LIMITED", "message": "no"}) if _is(request, "peers") else None

    assert not examined(base, full).ok
    assert len(left) == 2


# --- what is drawn -------------------------------------------------------------


@pytest.mark.parametrize("ascii_only", [True, False])
@pytest.mark.parametrize(
    ("started", "took"), [(0, 100), (0, 0), (99.99, 0.01), (100, 50), (50, 25), (0, 1000)]
)
def test_a_bar_stays_in_the_picture(started: float, took: float, ascii_only: bool) -> None:
    step = Result("x", "x", "ok", started, took)
    bar = waterfall.drawn(step, 100.0, ascii_only=ascii_only)
    assert len(bar) == bars.CELLS
    assert bar.strip(" ")


def test_what_was_not_tried_has_no_bar() -> None:
    assert not waterfall.drawn(Result("x", "x", "skipped", 1, 0), 100.0, ascii_only=True).strip()


def test_a_partial_failure_shows_every_step(capsys: pytest.CaptureFixture[str]) -> None:
    steps = (
        Result("a", "the first", "ok", 0, 10, detail="fine"),
        Result("b", "the second", "failed", 10, 10, error="broken", hint="mend it"),
        Result("c", "the third", "skipped", 20, 0, detail="needs 'b'"),
    )
    waterfall.draw(Report("http://x", "0", 20.0, steps))
    shown = capsys.readouterr().out
    assert "1 of 3 steps failed, 1 could not be tried." in shown
    assert "the second: broken\n  hint: mend it" in shown
    assert "needs 'b'" in shown


# --- hints ---------------------------------------------------------------------


@pytest.mark.parametrize("code", errors.CODES)
def test_every_refusal_reads_as_one_line(code: str) -> None:
    refusal = errors.from_json({"code": code, "message": "no"}, status=400)
    line = str(hints.explain(refusal, "http://x"))
    assert line.startswith("refused: no")
    assert "\n" not in line


@pytest.mark.parametrize(
    ("cause", "said"),
    [
        (ConnectionResetError(), "broke off"),
        (OSError(113, "No route to host"), "no way to"),
        (TimeoutError(), "did not answer in time"),
        (ExceptionGroup("all", [ConnectionRefusedError()]), "nothing listens"),
        (RuntimeError("odd"), "cannot reach"),
    ],
)
def test_what_the_network_says_is_told_apart(cause: Exception, said: str) -> None:
    error = sockets.Unreachable("cannot reach it\nat all")
    error.__cause__ = cause
    assert said in str(hints.explain(error, "http://host:1"))


def test_what_is_not_muster_is_asked_about() -> None:
    for error in (
        BadReply("host redirects to x"),
        errors.from_json(
            {"message": "h answered 404 without a word from Muster"},
            status=404,
            hint="is this the service's URL?",
        ),
    ):
        assert hints.explain(error, "http://h").hint == "is this the service's URL?"


def test_other_failures_are_said_too() -> None:
    assert "was closed" in str(hints.explain(sockets.Closed("1006"), "http://h"))
    assert "too long" in str(hints.explain(TimeoutError(), "http://h"))
    assert "mistake in muster" in str(hints.explain(KeyError("x"), "http://h"))
    assert (
        "registered here yet"
        in hints.explain(errors.InvalidSignature("no request key is pinned"), "http://h").hint
    )


def _is(request: httpx2.Request, path: str) -> bool:
    return request.url.path == f"/v1/{path}"


def _step(report: Report, name: str) -> Result:
    return next(step for step in report.steps if step.name == name)
