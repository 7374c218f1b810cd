"""The zip that Lambda is given, run by AWS's own runtime client over dynalite.

Nothing of this checkout and nothing that is installed here is within the function's
reach, but for the runtime client and the SDK, which Lambda's image has too.
"""

import gzip
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from chalicelib import log
from chalicelib.app_files import FOR_GOOD, POLICY
from chalicelib.aws.events import EVERY
from chalicelib.aws.host import METHODS
from chalicelib.library import FOLDER
from chalicelib.routes import PATHS, ROUTES
from infra.deployed import _readable
from infra.stack import Template
from muster.felund import frames
from tests.support import aws, gateway, runtime_api
from tests.support.gateway import HandshakeRefused, Machine, rest_event
from tests.support.members import Member, circle, dumps


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
def made(tree: Path, dynalite_url: str) -> Iterator[gateway.Gateway]:
    """A gateway before one container of the folded function."""
    with gateway.running() as (opened, environment):
        variables = environment | aws.dynamodb(dynalite_url) | {"MUSTER_ACCESS": "open"}
        with runtime_api.running(tree, "app.serve", variables) as function:
            opened.machines.append(Container(function))
            yield opened


@pytest.fixture(scope="module")
def pair(made: gateway.Gateway) -> list[Member]:
    return circle(made, "ann", "bob")


def test_a_call_is_answered(made: gateway.Gateway) -> None:
    answer = made.call("GET", "/v1/health")

    assert (answer.status, answer.json()["ok"]) == (200, True)


def test_a_module_of_the_browser_library_is_answered_from_the_zip(made: gateway.Gateway) -> None:
    plain = made.call("GET", "/app/muster/index.js")
    zipped = made.call("GET", "/app/muster/index.js", headers=[("Accept-Encoding", "gzip, br")])

    assert plain.body == (FOLDER / "index.js").read_bytes()
    assert gzip.decompress(zipped.body) == plain.body
    assert plain.headers["content-type"] == "text/javascript; charset=utf-8"


def test_the_app_is_answered_from_the_zip_in_its_packed_form(made: gateway.Gateway) -> None:
    """Everything that a browser asks for, as it finds the names."""
    page = made.call("GET", "/app/")
    names = re.findall(r'(?:src|href)="\./([^"]+)"', page.body.decode())
    script = next(name for name in names if name.endswith(".js"))
    answers = {name: made.call("GET", f"/app/{name}") for name in [*names, "sw.js"]}
    told = answers["sw.js"].body.decode().splitlines()[0]

    assert page.headers["content-security-policy"] == POLICY
    assert made.call("GET", "/app").headers["location"] == "app/"
    assert {answer.status for answer in answers.values()} == {200}
    assert answers[script].headers["cache-control"] == FOR_GOOD
    assert f'"./{script}"' in told
    assert made.call("GET", "/app/main.js").status == 404


def test_a_signed_call_is_stored_and_found(pair: list[Member]) -> None:
    ann, _ = pair
    found = ann.ask("GET", "/v1/peers", query=f"circle_hint={ann.hint}")

    assert [peer["node_id"] for peer in found["peers"]] == ["bob-00001"]


def test_every_route_of_the_template_leads_to_the_service_with_every_method(
    made: gateway.Gateway, template: Template
) -> None:
    """What the gateway lets through is answered by the service, never by Chalice or a crash."""
    keys = [
        str(resource["Properties"]["RouteKey"])
        for resource in template["Resources"].values()
        if resource["Type"] == "AWS::ApiGatewayV2::Route"
    ]
    callers = iter(range(1, 255))

    assert [key for key in keys if not key.startswith("$")] == [f"ANY {EVERY}"]
    for path in (*PATHS, *FILES, "/v1/nothing", "/v1/health/"):
        source_ip = f"198.51.100.{next(callers)}"
        for method in METHODS:
            answer = made.call(method, path, source_ip=source_ip)
            asks = "GET" if method == "HEAD" else method
            served = method == "OPTIONS" or asks in SERVED.get(path, ())

            assert answer.headers["access-control-allow-origin"] == "*", (method, path)
            if path in SERVED:
                assert (answer.status == 405) is not served, (method, path, answer)
            assert answer.status == 204 or answer.headers["x-request-id"], (method, path)
    assert made.crashes == []


FILES = ("/capsules/mainnet/peers.json", "/app/muster/index.js", "/app/muster/none.js")
SERVED = {path: {route.method for route in ROUTES if route.path == path} for path in PATHS}


def test_a_body_of_no_text_is_what_was_signed_whatever_the_case_of_headers(
    made: gateway.Gateway,
) -> None:
    """An HTTP API passes it on in base64, and header names as HTTP/2 has them, in lower case."""
    (ann,) = circle(made, "ann")
    body = dumps({"circle_hint": ann.hint, "messages": [{"msg_id": "octets-1", "text": "é"}]})
    signed = ann.signed("POST", "/v1/messages", body)
    headers = [(name.lower(), value) for name, value in signed.items()]
    answer = made.call("POST", "/v1/messages", headers=headers, body=body)

    assert answer.status == 200, answer.body
    assert ann.collect() == ["octets-1"]


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


def test_what_is_logged_is_read_as_before_though_lambda_logs_json(
    tree: Path, tmp_path: Path
) -> None:
    variables = {"MUSTER_STORE": f"sqlite:{tmp_path / 'muster.db'}", "MUSTER_ACCESS": "open"}
    with runtime_api.running(tree, "app.serve", variables) as function:
        function.run(rest_event("GET", "/peers", request_id="r-1"))
        with pytest.raises(runtime_api.Crash):
            function.run([])
    ours, crash = map(json.loads, function.said)

    assert _readable(function.said[0]).startswith("info  GET /peers 200 request_id=r-1")
    assert ours["_aws"]["CloudWatchMetrics"][0]["Dimensions"] == [[log.FUNCTION]]
    assert ours[log.FUNCTION] == "muster-test", "what the template's alarm counts"
    assert (crash["level"], crash["errorType"]) == ("ERROR", "AttributeError")
    assert "AttributeError" in _readable(function.said[1])


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
