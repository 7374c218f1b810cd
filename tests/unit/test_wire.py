"""Strict JSON, records, frames, errors, settings, logs: what has no rule of the service."""

import json
import logging
from typing import Any

import msgspec
import pytest

from chalicelib import log
from chalicelib.call import Call, Reply
from chalicelib.service import Memory
from chalicelib.settings import Settings
from muster import errors, strict, structs
from muster.errors import InvalidFrame, InvalidRequest, PayloadTooLarge, Refused
from muster.felund import frames, records


@pytest.mark.parametrize(
    "value",
    [
        None,
        True,
        0,
        -1,
        2**53 - 1,
        -(2**53) + 1,
        1.5,
        "",
        "✓ \U0001f600 \u2028",
        [],
        {},
        {"a": [1]},
    ],
)
def test_what_json_can_hold_is_read(value: Any) -> None:
    assert strict.loads(json.dumps(value).encode()) == value
    assert strict.loads(strict.dumps(value)) == value


@pytest.mark.parametrize(
    ("raw", "said"),
    [
        (b"", "not JSON"),
        (b"\xff", "not UTF-8"),
        (b"{", "not JSON"),
        (b"1 2", "not JSON"),
        (b"NaN", "NaN"),
        (b"-Infinity", "-Infinity"),
        (b"1e999", "out of range"),
        (b"9007199254740992", "2^53"),
        (b"-9007199254740992", "2^53"),
        (b"1" * 10_000, "2^53"),
        (b'{"a":1,"a":1}', "twice"),
        (b'[{"b":{"a":1,"a":1}}]', "twice"),
        (b'"\\ud800"', "surrogate"),
        (b'"\\udc00\\ud800"', "surrogate"),
        (b'{"\\ud800":1}', "surrogate"),
        (b'{"x":"\\ud83d\\ude00","y":' + b"[" * 900 + b"]" * 900 + b"}", "32 levels"),
        (b"[" * 33 + b"]" * 33, "32 levels"),
        (b"[" * 100_000, "deeply"),
    ],
)
def test_what_readers_could_disagree_about_is_refused(raw: bytes, said: str) -> None:
    with pytest.raises(InvalidRequest, match="body") as caught:
        strict.loads(raw)

    assert said in caught.value.message


def test_nesting_is_allowed_as_far_as_it_says() -> None:
    deep = b"[" * strict.MAX_DEPTH + b"]" * strict.MAX_DEPTH

    assert strict.loads(deep)
    assert strict.loads(b"[" + b"[]," * 100 + b"[]]")


def test_a_frame_survives_its_text() -> None:
    for frame in (
        frames.Ping(),
        frames.Pong(),
        frames.Frame(session_id="a-session", seq=1, payload_b64="AAAA"),
        frames.Ack(session_id="a-session", seq=2),
    ):
        assert frames.decode_from_node(frames.encode(frame)) == frame
        assert frames.decode_from_service(frames.encode(frame)) == frame


def test_what_the_service_sends_is_read_with_its_messages_as_they_came() -> None:
    sent = frames.Messages(
        messages=(msgspec.Raw(b'{"msg_id":"m-000001","x":[1.50]}'),),
        server_time=1,
        after=2,
        cursor=3,
    )

    got = frames.decode_from_service(frames.encode(sent))

    assert isinstance(got, frames.Messages)
    assert [bytes(message) for message in got.messages] == [bytes(sent.messages[0])]
    assert (got.after, got.cursor) == (2, 3)


@pytest.mark.parametrize("text", ["", "\ud800", "[]", '{"t":"SHOUT"}'])
def test_what_the_service_never_sends_is_refused(text: str) -> None:
    with pytest.raises(InvalidFrame):
        frames.decode_from_service(text)


def test_a_frame_over_its_limit_is_told_so() -> None:
    with pytest.raises(PayloadTooLarge):
        frames.decode_from_node(" " * (frames.MAX_TEXT_BYTES + 1))
    with pytest.raises(PayloadTooLarge):
        frames.payload_bytes("A" * 30_000)


@pytest.mark.parametrize("text", ["", "\ud800", '"x"', '{"t":"MESSAGES"}', '{"t":7}'])
def test_a_frame_that_is_none_is_refused(text: str) -> None:
    with pytest.raises(InvalidFrame):
        frames.decode_from_node(text)


def test_payloads_are_standard_base64() -> None:
    assert frames.payload_bytes(frames.payload(b"\xff\xfe")) == b"\xff\xfe"


@pytest.mark.parametrize("code", errors.CODES)
def test_a_refusal_comes_back_as_the_class_it_was(code: str) -> None:
    raised = errors.from_json({"code": code, "message": "why"}, status=418, retry_after_s=7)

    assert (type(raised).code, raised.message, raised.retry_after_s) == (code, "why", 7)
    assert raised.to_json()["detail"] == "why"


@pytest.mark.parametrize(
    ("status", "expected"),
    [
        (400, "INVALID_REQUEST"),
        (401, "INVALID_SIGNATURE"),
        (404, "NOT_FOUND"),
        (405, "METHOD_NOT_ALLOWED"),
        (413, "PAYLOAD_TOO_LARGE"),
        (429, "RATE_LIMITED"),
        (500, "INTERNAL"),
        (502, "UNAVAILABLE"),
        (504, "UNAVAILABLE"),
    ],
)
def test_a_strangers_error_body_is_understood_by_its_status(status: int, expected: str) -> None:
    raised = errors.from_json({"detail": ["x"], "code": 7}, status=status)

    assert raised.code == expected
    assert str(status) in raised.message


def test_every_record_refuses_what_is_not_an_object() -> None:
    shapes = [
        shape
        for shape in vars(records).values()
        if isinstance(shape, type) and issubclass(shape, structs.Record)
    ]
    assert len(shapes) > 20
    for shape in shapes:
        for value in (list[int](), "x", 7, None):
            with pytest.raises(InvalidRequest):
                structs.from_json(value, shape)


def test_settings_come_from_the_environment() -> None:
    settings = Settings.from_environment(
        {"MUSTER_UNSIGNED": "allow", "MUSTER_ADDRESS_BURST": "7", "MUSTER_NODE_BURST": "", "X": "1"}
    )

    assert (settings.unsigned, settings.address_burst) == ("allow", 7)
    assert settings.node_burst == Settings().node_burst


@pytest.mark.parametrize(
    "environment",
    [{"MUSTER_UNSIGNED": "maybe"}, {"MUSTER_BODY_BYTES": "1 MB"}, {"MUSTER_BODY_BYTES": "-1"}],
)
def test_a_setting_that_does_not_fit_is_refused(environment: dict[str, str]) -> None:
    with pytest.raises(ValueError, match=r"(?i)unsigned|body_bytes"):
        Settings.from_environment(environment)


def test_memory_forgets_in_time_and_in_size() -> None:
    memory: Memory[int] = Memory(2)
    for number, name in enumerate("abc"):
        memory.keep(name, number, until=10)

    assert [memory.recall(name, now=9) for name in "abc"] == [None, 1, 2]
    assert memory.recall("c", now=10) is None
    memory.forget("b")
    memory.forget("never")
    assert memory.recall("b", now=9) is None


def test_a_log_line_has_what_an_operator_needs_and_no_secret(
    caplog: pytest.LogCaptureFixture,
) -> None:
    made = Call(
        "GET",
        "/v1/peers",
        query={"circle_hint": "e03c84dccc271635", "token": "muster1.secret"},
        headers={"x-felund-node": "ann-0001", "x-felund-signature": "feed" * 16},
        body=b"very private",
        source_ip="192.0.2.1",
        request_id="r-1",
    )
    with caplog.at_level(logging.INFO, logger="muster.calls"):
        log.call(made, Reply(200, route="GET /v1/peers"), latency_s=0.00123)

    line = json.loads(log.JsonLines().format(caplog.records[0]))
    assert line["request_id"] == "r-1"
    assert (line["node_id"], line["circle_hint"]) == ("ann-0001", "e03c84…")
    assert (line["status"], line["latency_ms"]) == (200, 1.23)
    for secret in ("muster1", "feed", "private", "192.0.2.1", "e03c84dccc271635"):
        assert secret not in json.dumps(line)


def test_a_crash_in_the_log_keeps_its_traceback() -> None:
    refusal = Refused("why")
    record = logging.getLogger("x").makeRecord(
        "x", logging.ERROR, __file__, 1, "failed", (), (Refused, refusal, None)
    )
    assert "Refused: why" in json.loads(log.JsonLines().format(record))["exception"]
