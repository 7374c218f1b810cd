"""ministack with what it lacks: run by its own Python in the place of `ministack`.

Each patch says what AWS does and why the tests need it; docs/aws.md lists them. What fails
is what the file `FAULTS` names, as long as it does: a call, or making a kind of resource.
"""

import json
import uuid
from collections.abc import Awaitable, Callable, Mapping
from contextvars import ContextVar
from importlib import import_module
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs

Receive = Callable[[], Awaitable[dict[str, Any]]]
Send = Callable[[dict[str, Any]], Awaitable[None]]

FAULTS = Path("faults.json")

provisioners: Any = import_module("ministack.services.cloudformation.provisioners")
HANDLERS: dict[str, dict[str, Any]] = provisioners._RESOURCE_HANDLERS


def deployment_create(
    logical_id: str, props: Mapping[str, Any], stack_name: str
) -> tuple[str, dict[str, Any]]:
    """A WebSocket API's deployment: an identifier. ministack serves what there is at the moment."""
    made = uuid.uuid4().hex[:6]
    return made, {"DeploymentId": made}


def deployment_delete(physical_id: str, props: Mapping[str, Any]) -> None:
    """Nothing was kept."""


def failing(kind: str, make: Callable[..., Any]) -> Callable[..., Any]:
    """Let making or changing a kind of resource fail while a test wants it to."""

    def handle(*arguments: Any, **named: Any) -> Any:
        if kind in (found := faults()):
            raise ValueError(found[kind])
        return make(*arguments, **named)

    return handle


def faults() -> dict[str, str]:
    """Return what is to fail, and with which message."""
    try:
        found: dict[str, str] = json.loads(FAULTS.read_text())
    except FileNotFoundError:
        return {}
    return found


def without_math(handler: Callable[..., Any]) -> Callable[..., Any]:
    """Make an alarm on a formula as one on a metric that never comes: it is made and deleted."""

    def handle(*arguments: Any, **named: Any) -> Any:
        return handler(*(_plain(one) for one in arguments), **named)

    return handle


def _plain(value: Any) -> Any:
    if not isinstance(value, dict) or "Metrics" not in value:
        return value
    rest = {name: inner for name, inner in value.items() if name != "Metrics"}
    return {**rest, "Namespace": "Muster", "MetricName": "None", "Period": 60, "Statistic": "Sum"}


ALARM = HANDLERS["AWS::CloudWatch::Alarm"]
ALARM |= {verb: without_math(ALARM[verb]) for verb in ("create", "update") if verb in ALARM}

HANDLERS.setdefault(
    "AWS::ApiGatewayV2::Deployment",
    {"create": deployment_create, "delete": deployment_delete},
)


def batch_get_item(data: dict[str, Any]) -> tuple[int, dict[str, str], bytes]:
    """Say what reading took, where it was asked for: AWS does, and the service counts it."""
    status, headers, body = PLAIN_BATCH(data)
    if status == 200 and data.get("ReturnConsumedCapacity", "NONE") != "NONE":
        took = [
            {"TableName": name, "CapacityUnits": _units(wanted)}
            for name, wanted in data["RequestItems"].items()
        ]
        body = json.dumps({**json.loads(body), "ConsumedCapacity": took}).encode()
    return status, headers, body


def _units(wanted: Mapping[str, Any]) -> float:
    return len(wanted["Keys"]) * (1.0 if wanted.get("ConsistentRead") else 0.5)


dynamodb: Any = import_module("ministack.services.dynamodb")
PLAIN_BATCH = dynamodb._batch_get_item
dynamodb._batch_get_item = batch_get_item

for each, handlers in HANDLERS.items():
    handlers["create"] = failing(each, handlers["create"])
    if "update" in handlers:
        handlers["update"] = failing(f"{each}:update", handlers["update"])


# --- imports ------------------------------------------------------------------------

changesets: Any = import_module("ministack.services.cloudformation.changesets")
stacks: Any = import_module("ministack.services.cloudformation.stacks")
PLAIN_EXISTING, PLAIN_ERRORS = changesets._existing_resources, stacks._validation_errors
IMPORTED: set[str] = set()


def existing_resources(changes: Any, template: Any) -> Any:
    """Remember what the change set takes in."""
    found = PLAIN_EXISTING(changes, template)
    IMPORTED.clear()
    IMPORTED.update(entry["LogicalResourceId"] for entry in found)
    return found


def validation_errors(*arguments: Any, **named: Any) -> Any:
    """Find no conflict in the name of a bucket that is taken in: AWS does not, ministack does."""
    return [error for error in PLAIN_ERRORS(*arguments, **named) if error[0] not in IMPORTED]


changesets._existing_resources = existing_resources
stacks._validation_errors = validation_errors

# --- HTTP APIs ----------------------------------------------------------------------

gateway: Any = import_module("ministack.services.apigateway")
PLAIN_INVOKE, PLAIN_RUN = gateway._invoke_lambda_proxy, gateway.run_reentrant
FORMAT: ContextVar[str] = ContextVar("FORMAT", default="")


async def invoke(integration: Mapping[str, Any], *arguments: Any, **named: Any) -> Any:
    """Remember which form of event an integration asks for: ministack makes 2.0 only."""
    FORMAT.set(str(integration.get("payloadFormatVersion")))
    return await PLAIN_INVOKE(integration, *arguments, **named)


async def run(function: Any, record: Any, event: dict[str, Any], **named: Any) -> Any:
    """Run a function with the event in the form that was asked for."""
    if FORMAT.get() == "1.0" and event.get("version") == "2.0":
        event = first_form(event)
    return await PLAIN_RUN(function, record, event, **named)


def first_form(event: Mapping[str, Any]) -> dict[str, Any]:
    """Return an event of payload format 2.0 as format 1.0 has it."""
    context, resource = event["requestContext"], event["routeKey"].rpartition(" ")[2]
    http, query = context["http"], parse_qs(event["rawQueryString"], keep_blank_values=True)
    headers = event["headers"]
    return {
        "version": "1.0",
        "resource": resource,
        "path": event["rawPath"],
        "httpMethod": http["method"],
        "headers": headers,
        "multiValueHeaders": {name: [value] for name, value in headers.items()},
        "queryStringParameters": {name: values[-1] for name, values in query.items()} or None,
        "multiValueQueryStringParameters": query or None,
        "pathParameters": event.get("pathParameters"),
        "stageVariables": None,
        "requestContext": {
            **{name: context[name] for name in ("accountId", "apiId", "domainName", "stage")},
            "requestId": context["requestId"],
            "resourcePath": resource,
            "httpMethod": http["method"],
            "path": event["rawPath"],
            "protocol": http["protocol"],
            "identity": {"sourceIp": http["sourceIp"], "userAgent": http["userAgent"]},
        },
        "body": event.get("body"),
        "isBase64Encoded": event["isBase64Encoded"],
    }


gateway._invoke_lambda_proxy, gateway.run_reentrant = invoke, run

# --- calls --------------------------------------------------------------------------


async def app(scope: dict[str, Any], receive: Receive, send: Send) -> None:
    """Refuse the calls that a test wants refused; ministack gets the others."""
    if scope["type"] != "http":
        await PLAIN_APP(scope, receive, send)
        return
    parts: list[dict[str, Any]] = []
    while not parts or parts[-1].get("more_body"):
        parts.append(await receive())
    body = b"".join(part.get("body", b"") for part in parts)
    action = _action(scope, body)
    if action in (found := faults()):
        told = {"__type": "AccessDeniedException", "message": found[action]}
        text = f"<Error><Code>AccessDenied</Code><Message>{found[action]}</Message></Error>"
        is_json = any(name == b"x-amz-target" for name, _ in scope["headers"])
        answer = json.dumps(told) if is_json else f"<ErrorResponse>{text}</ErrorResponse>"
        await send({"type": "http.response.start", "status": 403, "headers": []})
        await send({"type": "http.response.body", "body": answer.encode()})
        return

    async def again() -> dict[str, Any]:
        return parts.pop(0) if parts else await receive()

    await PLAIN_APP(scope, again, send)


def _action(scope: dict[str, Any], body: bytes) -> str:
    """Name what is asked, as far as the request names it."""
    target = dict(scope["headers"]).get(b"x-amz-target", b"").decode()
    if target:
        return str(target.rpartition(".")[2])
    found = parse_qs(body[:4096].decode("latin-1")).get("Action", [""])[0]
    return found or f"{scope['method']} {scope['path']}"


server: Any = import_module("ministack.app")
PLAIN_APP = server.app
server.app = app

if __name__ == "__main__":
    server.main()
