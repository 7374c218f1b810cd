"""The zip that Lambda is given, run by AWS's own runtime client over dynalite.

Nothing of this checkout and nothing that is installed here is within the function's
reach, but for the runtime client and the SDK, which Lambda's image has too.
"""

import json
import subprocess
import sys
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from infra import package
from muster.cli.output import Failure
from muster.felund import frames
from tests.support import aws, gateway, runtime_api
from tests.support.gateway import HandshakeRefused, Machine, rest_event
from tests.support.members import Member, circle

ZIP_BYTES = 8_000_000

pytestmark = pytest.mark.timeout(180)


class Container(Machine):
    """A machine whose handlers run in the packaged zip."""

    def __init__(self, function: runtime_api.Lambda) -> None:
        super().__init__()  # the gateway asks the app for its routes
        self.function = function

    def run(self, handler: str, event: object) -> Any:
        assert handler == "serve"
        try:
            return self.function.run(event)
        except Exception as error:
            self.crashes.append(error)
            raise


@pytest.fixture(scope="module")
def archive(tmp_path_factory: pytest.TempPathFactory) -> Path:
    try:
        return package.build(tmp_path_factory.mktemp("package"))
    except Failure as failure:
        if "registry" in str(failure):
            pytest.skip("needs a package registry: what Lambda is to have could not be fetched")
        raise


@pytest.fixture(scope="module")
def tree(archive: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    unpacked = tmp_path_factory.mktemp("task")
    with zipfile.ZipFile(archive) as opened:
        opened.extractall(unpacked)
    return unpacked


@pytest.fixture(scope="module")
def made(tree: Path, dynalite_url: str) -> Iterator[gateway.Gateway]:
    """A gateway before one container of the folded function."""
    with gateway.running() as (opened, environment):
        variables = environment | aws.dynamodb(dynalite_url)
        with runtime_api.running(tree, "app.serve", variables) as function:
            opened.machines.append(Container(function))
            yield opened


@pytest.fixture(scope="module")
def pair(made: gateway.Gateway) -> list[Member]:
    return circle(made, "ann", "bob")


def test_it_is_small(archive: Path) -> None:
    assert archive.stat().st_size <= ZIP_BYTES


def test_what_the_runtime_has_is_left_out(tree: Path) -> None:
    found = {path.name for path in tree.iterdir()}

    assert not found & {"boto3", "botocore", "pip", "setuptools", "cffi", "pycparser"}
    assert not list(tree.rglob("*.dist-info"))
    assert not list(tree.rglob("*.pyi"))


def test_every_module_is_compiled_and_taken_as_it_is(tree: Path) -> None:
    """Flag 1 is a hash in place of a time, without 2 it is not checked (PEP 552)."""
    tag = sys.implementation.cache_tag
    sources = list(tree.rglob("*.py"))

    assert tree / "app.py" in sources
    for source in sources:
        compiled = source.parent / "__pycache__" / f"{source.stem}.{tag}.pyc"
        assert compiled.read_bytes()[4:8] == b"\1\0\0\0", source
    assert not list((tree / "nacl").rglob("*.py"))
    assert str(tree).encode() not in (tree / "__pycache__" / f"app.{tag}.pyc").read_bytes()


def test_the_template_names_the_python_that_compiled(archive: Path) -> None:
    template = json.loads(archive.with_name(package.TEMPLATE).read_text())
    functions = [
        resource["Properties"]["Runtime"]
        for resource in template["Resources"].values()
        if resource["Type"] == "AWS::Serverless::Function"
    ]

    assert set(functions) == {package.runtime()}


def test_the_same_files_make_the_same_zip(tree: Path, archive: Path, tmp_path: Path) -> None:
    first = package.write(tree, tmp_path / "first.zip")
    for path in tree.rglob("*.py"):
        path.touch()
    package.precompile(tree)

    assert package.write(tree, tmp_path / "second.zip").read_bytes() == first.read_bytes()
    assert first.read_bytes() == archive.read_bytes()


def test_libraries_for_another_machine_are_refused(tree: Path) -> None:
    with pytest.raises(Failure, match="not for arm64"):
        package.check(tree, "arm64")


def test_a_package_that_lacks_something_is_refused(tmp_path: Path) -> None:
    (tmp_path / "app.py").touch()
    with pytest.raises(Failure, match="lacks capsules, chalice"):
        package.check(tmp_path, "x86_64")


def test_the_command_says_what_it_made(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "infra.package", str(tmp_path / "out")]
    done = subprocess.run(command, cwd=package.ROOT, capture_output=True, text=True, check=False)

    assert done.returncode == 0, done.stderr
    assert "MB for python3." in done.stdout
    assert {path.name for path in (tmp_path / "out").iterdir()} == {
        package.ARCHIVE,
        package.TEMPLATE,
    }


# --- every event that the functions take -----------------------------------------------


def test_a_call_is_answered(made: gateway.Gateway) -> None:
    answer = made.call("GET", "/v1/health")

    assert (answer.status, answer.json()["ok"]) == (200, True)


def test_a_signed_call_is_stored_and_found(pair: list[Member]) -> None:
    ann, _ = pair
    found = ann.ask("GET", "/v1/peers", query=f"circle_hint={ann.hint}")

    assert [peer["node_id"] for peer in found["peers"]] == ["bob-00001"]


def test_a_stranger_is_refused_in_our_words(made: gateway.Gateway) -> None:
    answer = made.call("GET", "/v1/peers", query="circle_hint=0123456789abcdef")

    assert (answer.status, answer.json()["code"]) == (401, "INVALID_SIGNATURE")


def test_a_socket_is_opened_greeted_pushed_to_and_closed(
    made: gateway.Gateway, pair: list[Member]
) -> None:
    """$connect, the greeting that it starts, a push, and $disconnect."""
    ann, bob = pair
    bob.leave("before-01")
    wire = ann.subscribe()
    greeting = wire.frames()
    bob.leave("during-01")
    pushed = wire.frames()
    wire.send('{"t":"PING"}')
    answered = wire.frames()
    wire.close()

    assert [m["msg_id"] for f in greeting for m in f.get("messages", ())] == ["before-01"]
    assert [m["msg_id"] for f in pushed for m in f.get("messages", ())] == ["during-01"]
    assert [f["t"] for f in answered] == ["PONG"]
    assert made.crashes == []


def test_frames_pass_between_two_seats(made: gateway.Gateway, pair: list[Member]) -> None:
    ann, bob = pair
    session_id = ann.session(bob)["session_id"]
    here, there = ann.attach(bob), bob.attach(ann)
    here.frames(), there.frames()
    here.send(frames.encode(frames.Frame(session_id=session_id, seq=7, payload_b64="AAAA")))

    assert [(f["t"], f.get("seq")) for f in there.frames()] == [("FRAME", 7)]
    assert [(f["t"], f.get("seq")) for f in here.frames()] == [("ACK", 7)]
    assert made.crashes == []


def test_a_socket_without_a_token_is_refused(made: gateway.Gateway) -> None:
    with pytest.raises(HandshakeRefused) as caught:
        made.open()

    assert caught.value.answer.status == 401


def test_the_schedule_of_the_sweep_is_taken(made: gateway.Gateway) -> None:
    made.machines[0].run("serve", scheduled("sweep"))

    assert made.crashes == []


def test_the_publisher_runs_by_itself(tree: Path, dynalite_url: str) -> None:
    """No bucket is chosen here: what it publishes is tested where there is one."""
    variables = aws.dynamodb(dynalite_url)
    with runtime_api.running(tree, "app.publish", variables) as function:
        assert function.run(scheduled("publish")) is None


def test_a_handler_that_is_not_there_is_told(tree: Path) -> None:
    with runtime_api.running(tree, "app.nobody", {}) as function, pytest.raises(runtime_api.Crash):
        function.run(rest_event("GET", "/v1/health"))


def scheduled(name: str) -> dict[str, Any]:
    """Return the event of a schedule."""
    return {
        "version": "0",
        "id": "53dc4d37-cffa-4f76-80c9-8b7d4a4d2eaa",
        "detail-type": "Scheduled Event",
        "source": "aws.events",
        "account": "123456789012",
        "time": "2026-10-08T16:53:06Z",
        "region": gateway.REGION,
        "resources": [f"arn:aws:events:{gateway.REGION}:123456789012:rule/muster-{name}"],
        "detail": {},
    }
