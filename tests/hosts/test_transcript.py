"""Do the hosts say the same? One conversation with each, on each engine, compared line by line."""

import contextlib
import dataclasses
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from chalicelib.local.main import Bounds
from tests.support import aws, transcript
from tests.support.local import GENEROUS
from tests.support.local import running as one_machine
from tests.support.serving import serving


@contextlib.contextmanager
def aws_host(engine: str, policy: str, directory: Path, dynalite_url: str) -> Iterator[str]:
    """Serve the AWS host behind the fake gateway."""
    url = dynalite_url if engine == "dynalite" else ""
    settings = GENEROUS | {"MUSTER_UNSIGNED": policy}
    with (
        aws.running(engine, directory=directory, dynalite_url=url, **settings) as made,
        serving(made) as base,
    ):
        yield base
    assert made.crashes == []


def play(policy: str, base: str) -> list[Any]:
    with transcript.Player(base) as player:
        transcript.PLAYS[policy](player)
        return [_alike(line) for line in player.heard]


def _alike(line: Any) -> Any:
    """Leave out what only one process bounds, which AWS bounds in its own way."""
    if isinstance(line, list):
        return [_alike(part) for part in line]
    if not isinstance(line, dict) or "limits" not in line:
        return line
    own = {field.name for field in dataclasses.fields(Bounds)}
    return line | {"limits": {k: v for k, v in line["limits"].items() if k not in own}}


@pytest.fixture(scope="module", params=transcript.PLAYS)
def policy(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(scope="module")
def heard(policy: str, tmp_path_factory: pytest.TempPathFactory) -> list[Any]:
    """What the one-machine host says."""
    directory = tmp_path_factory.mktemp("one-machine")
    with one_machine(directory, f"--unsigned={policy}", "--publish-every=0") as server:
        return play(policy, server.base)


@pytest.mark.parametrize("engine", aws.ENGINES)
def test_the_aws_host_says_what_the_one_machine_host_says(
    engine: str, policy: str, heard: list[Any], tmp_path: Path, dynalite_url: str
) -> None:
    with aws_host(engine, policy, tmp_path, dynalite_url) as base:
        said = play(policy, base)

    for line, expected in zip(said, heard, strict=True):
        assert line == expected


def test_nothing_in_the_conversation_is_an_error_of_the_service(heard: list[Any]) -> None:
    answers = [line for line in heard if " " in line[0]]

    assert len(answers) > 10
    assert {answer[1] for answer in answers} <= {200, 204, 400, 401, 404, 405, 409, 413}
