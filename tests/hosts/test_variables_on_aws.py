"""What the AWS host makes of variables that do not fit: a sentence in its log, and no more."""

import json
import logging
from pathlib import Path
from typing import Any

import pytest

from chalicelib.aws.host import AwsHost
from chalicelib.variables import WrongValue
from tests.support import wrong
from tests.support.gateway import rest_event

TABLES = {
    f"MUSTER_TABLE_{name}": f"muster-{name.lower()}" for name in ("PRESENCE", "MAIL", "GUARD")
}
KEYS = {"AWS_REGION": "us-east-1", "AWS_ACCESS_KEY_ID": "a", "AWS_SECRET_ACCESS_KEY": "b"}
WRONG = wrong.SETTINGS | wrong.AWS


def health(host: AwsHost) -> tuple[int, dict[str, Any]]:
    answer = host.answer(rest_event("GET", "/v1/health"))
    return answer.status_code, json.loads(answer.body)


@pytest.mark.parametrize("name", WRONG)
def test_a_value_that_does_not_fit_is_one_sentence(name: str) -> None:
    for text in WRONG[name]:
        with pytest.raises(WrongValue) as refusal:
            _ = AwsHost(TABLES | KEYS | {name: text}).service
        said = str(refusal.value)
        assert said.startswith(name), text
        assert said.isprintable()
        assert wrong.SECRET not in said


@pytest.mark.parametrize("name", ["MUSTER_UNSIGNED", "MUSTER_TABLE_MAIL", "MUSTER_EDGE_SECRET"])
def test_callers_are_refused_and_the_log_has_one_line(
    name: str, caplog: pytest.LogCaptureFixture
) -> None:
    host = AwsHost(TABLES | KEYS | {name: WRONG[name][-1]})
    with caplog.at_level(logging.WARNING, logger="muster"):
        status, body = health(host)
    assert (status, body["code"]) == (500, "INTERNAL")
    assert name not in json.dumps(body)
    [line] = caplog.records
    assert line.getMessage().startswith(name)
    assert line.exc_info is None


def test_a_name_that_nobody_reads_is_a_line_in_the_log_and_no_outage(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    variables = {"MUSTER_STORE": f"sqlite:{tmp_path / 'muster.db'}", "MUSTER_CIRCEL_MEMBERS": "7"}
    host = AwsHost(variables)
    with caplog.at_level(logging.WARNING, logger="muster"):
        assert health(host)[0] == health(host)[0] == 200
    [line] = caplog.records
    assert line.getMessage() == (
        "there is no variable MUSTER_CIRCEL_MEMBERS; the nearest is MUSTER_CIRCLE_MEMBERS"
    )


def test_who_greets_must_be_named_where_sockets_are_opened() -> None:
    host = AwsHost(TABLES | KEYS)
    assert host.service.settings.unsigned == "refuse", "the publisher has no such variable"
    with pytest.raises(WrongValue, match="MUSTER_GREET_FUNCTION must name a Lambda function"):
        _ = host.greeter
