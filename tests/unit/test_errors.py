"""Errors: advice has a field of its own, and the wire's error body knows one text."""

import pytest

from muster import errors
from muster.felund.exchange import service_url
from muster.felund.invite import InvalidInvite, Invite


def test_advice_stands_beside_the_message_and_is_read_in_one_line() -> None:
    refusal = errors.NotFound("there is no such path", "docs/protocol.md lists what there is")

    assert refusal.message == "there is no such path"
    assert refusal.hint == "docs/protocol.md lists what there is"
    assert str(refusal) == "there is no such path; docs/protocol.md lists what there is"
    assert str(errors.NotFound("there is no such path")) == "there is no such path"


def test_the_error_body_has_message_and_advice_in_one_text() -> None:
    body = errors.RateLimited("too many calls", "wait 2 s", retry_after_s=2).to_json()

    assert body == {
        "ok": False,
        "code": "RATE_LIMITED",
        "message": "too many calls; wait 2 s",
        "retryable": True,
        "detail": "too many calls; wait 2 s",
    }


def test_a_message_from_the_wire_is_not_taken_apart() -> None:
    told = errors.from_json({"code": "NOT_FOUND", "message": "one; two"}, status=404)

    assert (told.message, told.hint) == ("one; two", "")


def test_a_bad_value_is_a_value_error_with_advice() -> None:
    with pytest.raises(ValueError, match="not the URL of a service") as bad:
        service_url("host:1")
    assert isinstance(bad.value, errors.BadValue)
    assert bad.value.hint == "it looks like https://host/path"

    with pytest.raises(InvalidInvite) as invalid:
        Invite.parse("felund2.x")
    assert invalid.value.hint == "copy the whole line"
