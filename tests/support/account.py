"""An AWS account that exists nowhere: moto behind a port, with what it lacks done here.

moto knows neither the SAM transform nor some of the resource types. The transform is
done as AWS does it, by AWS's own translator, when a change set is created; resources of
the types in `STUBBED` are left out, and what refers to them gets a made-up value. Nothing
answers calls in this account, so its `BaseUrl` is where the test says.
"""

import contextlib
import io
import json
import re
import threading
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import parse_qs, urlencode
from urllib.request import Request, urlopen

from boto3.session import Session
from moto.cloudformation.models import Event
from moto.moto_server.werkzeug_app import DomainDispatcherApplication, create_backend_app
from werkzeug.serving import make_server

from infra import stack
from tests.support import roles

ACCOUNT, REGION = "123456789012", "eu-central-1"

STUBBED = (
    "AWS::ApiGateway::Deployment",
    "AWS::ApiGateway::Stage",
    "AWS::ApiGatewayV2::Api",
    "AWS::ApiGatewayV2::Deployment",
    "AWS::ApiGatewayV2::Integration",
    "AWS::ApiGatewayV2::Route",
    "AWS::ApiGatewayV2::Stage",
    "AWS::CloudFront::Distribution",
    "AWS::CloudFront::Function",
    "AWS::CloudFront::OriginAccessControl",
    "AWS::CloudWatch::Alarm",
    "AWS::S3::BucketPolicy",
    "AWS::SNS::Subscription",
)
"""What moto's CloudFormation does not make: all that the emulated account leaves out."""

NAMESPACE = "http://cloudformation.amazonaws.com/doc/2010-05-15/"

Start = Callable[..., Any]


@dataclass
class Refusal:
    """What AWS is to answer in place of doing something."""

    action: str
    code: str
    message: str = ""
    status: int = 400
    times: int = 1_000_000


@dataclass
class Account:
    """The account as a WSGI app, and what a test wants of it."""

    base_url: str = "http://127.0.0.1:9"
    url: str = ""
    refusals: list[Refusal] = field(default_factory=list)
    answers: dict[str, str] = field(default_factory=dict)
    asked: Counter[str] = field(default_factory=Counter)
    touched: set[roles.Asked] = field(default_factory=set)
    before: dict[str, Callable[[], None]] = field(default_factory=dict)
    after: dict[str, Callable[[], None]] = field(default_factory=dict)
    made: set[str] = field(default_factory=set)
    _proposed: dict[str, str] = field(default_factory=dict)
    _templates: dict[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self._moto = DomainDispatcherApplication(create_backend_app)

    def client(self, service: str) -> Any:
        """Return a client of the account."""
        return Session().client(  # type: ignore[call-overload]
            service,
            endpoint_url=self.url,
            region_name=REGION,
            aws_access_key_id="testing",
            aws_secret_access_key="testing",
        )

    def reset(self) -> None:
        """Make the account empty: moto keeps one for the whole process."""
        request = Request(f"{self.url}/moto-api/reset", method="POST")  # noqa: S310
        with urlopen(request):  # noqa: S310 - our own server
            self.asked.clear()

    def refuse(self, action: str, code: str, message: str = "", **more: Any) -> None:
        """Have AWS refuse an action from now on."""
        self.refusals.append(Refusal(action, code, message, **more))

    @property
    def changed(self) -> list[str]:
        """What was asked of the account that may have changed something."""
        looks = ("Get", "Describe", "List", "Head", "Filter", "Lookup", "GET ", "HEAD ")
        return sorted(action for action in self.asked if not action.startswith(looks))

    def stack(self, name: str) -> Any:
        """Return moto's own stack, to put it into a state."""
        from moto.cloudformation.models import cloudformation_backends

        return cloudformation_backends[ACCOUNT][REGION].get_stack(name)

    # --- WSGI -------------------------------------------------------------------

    def __call__(self, environ: dict[str, Any], start: Start) -> Iterable[bytes]:
        body = environ["wsgi.input"].read(int(environ.get("CONTENT_LENGTH") or 0))
        form = (
            parse_qs(body.decode(errors="replace"), keep_blank_values=True)
            if _is_form(environ)
            else {}
        )
        action = _action(environ, form)
        self.asked[action] += 1
        if environ.get("HTTP_X_AMZ_TARGET", "").startswith("DynamoDB_"):
            told = json.loads(body)
            if "TableName" in told or "RequestItems" in told:
                self.touched.update(roles.asked(action, told))
        if action in self.before:
            self.before.pop(action)()
        for refusal in self.refusals:
            if refusal.action == action and refusal.times > 0:
                refusal.times -= 1
                return _refuse(refusal, environ, start)
        if action in self.answers:
            text = self.answers[action]
            kind = "text/xml" if text.startswith("<") else "application/json"
            start("200 OK", [("Content-Type", kind)])
            return [text.encode()]
        if action == "CreateChangeSet":
            body = self._transformed(form)
        if action == "DeleteStack":
            self.made.clear()
        if action == "ExecuteChangeSet":
            (name,) = form["StackName"]
            self._templates[name] = self._proposed[name]
        if action == "GetTemplate" and form["StackName"][0] in self._templates:
            start("200 OK", [("Content-Type", "text/xml")])
            return [self._original(form["StackName"][0])]
        environ["wsgi.input"] = io.BytesIO(body)
        environ["CONTENT_LENGTH"] = str(len(body))
        answer: Iterable[bytes] = self._moto(environ, start)
        if action == "ExecuteChangeSet":
            self._settle(form["StackName"][0])
        if action in self.after:
            self.after.pop(action)()
        return answer

    def _settle(self, name: str) -> None:
        """Do what moto forgets when it carries out a change set: outputs, parameters, events."""
        found = self.stack(name)
        if not isinstance(found.template, str):
            found.template = json.dumps(found.template)
        found.template_dict = json.loads(found.template)
        found.output_map = found._create_output_map()
        found.parameters = dict(found.resource_map.input_parameters)
        done = found.events.pop()
        for logical, resource in found.resource_map._parsed_resources.items():
            if logical in found.template_dict["Resources"] and logical not in self.made:
                self.made.add(logical)
                found.events.append(_event(found, logical, resource))
        found.events.append(done)

    def _transformed(self, form: dict[str, list[str]]) -> bytes:
        """Do to the template what AWS does, and leave out what moto cannot make."""
        (url,), (name,) = form["TemplateURL"], form["StackName"]
        bucket, _, key = url.removeprefix(f"{self.url}/").partition("/")
        original = self.client("s3").get_object(Bucket=bucket, Key=key)["Body"].read().decode()
        self._proposed[name] = original
        if form["ChangeSetType"] == ["CREATE"]:
            self._forget_empty(name)
        made = stubbed(stack.transform(json.loads(original), region=REGION))
        if "BaseUrl" in made.get("Outputs", {}):
            made["Outputs"]["BaseUrl"]["Value"] = self.base_url
        rest = {name: values for name, values in form.items() if name != "TemplateURL"}
        return urlencode({**rest, "TemplateBody": json.dumps(made)}, doseq=True).encode()

    def _forget_empty(self, name: str) -> None:
        """Let a new change set take over a stack that is still empty; moto would make a second."""
        from moto.cloudformation.models import cloudformation_backends

        stacks = cloudformation_backends[ACCOUNT][REGION].stacks
        for key, found in list(stacks.items()):
            if found.name == name and found.status == "REVIEW_IN_PROGRESS":
                del stacks[key]

    def _original(self, name: str) -> bytes:
        """Answer with the template as it was given; moto knows only the transformed one."""
        from xml.sax.saxutils import escape

        text = escape(self._templates[name])
        return (
            f'<GetTemplateResponse xmlns="{NAMESPACE}"><GetTemplateResult><TemplateBody>{text}'
            "</TemplateBody></GetTemplateResult></GetTemplateResponse>"
        ).encode()


@contextlib.contextmanager
def running() -> Iterator[Account]:
    """Open an account, empty, on a port of this machine."""
    account = Account()
    server = make_server("127.0.0.1", 0, account, threaded=True)
    account.url = f"http://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever, args=(0.01,))
    thread.start()
    try:
        account.reset()
        yield account
        account.reset()
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def environment(account: Account) -> dict[str, str]:
    """Return the variables that lead any AWS SDK to the account."""
    return {
        "AWS_ENDPOINT_URL": account.url,
        "AWS_ACCESS_KEY_ID": "testing",
        "AWS_SECRET_ACCESS_KEY": "testing",
        "AWS_REGION": REGION,
        "AWS_DEFAULT_REGION": REGION,
    }


def stubbed(template: Mapping[str, Any]) -> dict[str, Any]:
    """Leave out what moto cannot make; moto keeps only what is to be retained always."""
    resources = template["Resources"]
    gone = {name for name, made in resources.items() if made["Type"] in STUBBED}
    kept = {name: made for name, made in resources.items() if name not in gone}
    for made in kept.values():
        waits = made.get("DependsOn", [])
        made["DependsOn"] = [n for n in ([waits] if isinstance(waits, str) else waits) if n in kept]
        if made.get("DeletionPolicy") == "RetainExceptOnCreate":
            made["DeletionPolicy"] = "Retain"
    whole = {k: v for k, v in template.items() if k not in ("Rules", "Resources")}
    done: dict[str, Any] = _replace({**whole, "Resources": kept}, gone)
    return done


def _replace(value: Any, gone: set[str]) -> Any:
    """Put made-up values where something refers to what is not there."""
    if isinstance(value, list):
        return [_replace(inner, gone) for inner in value]
    if not isinstance(value, Mapping):
        return value
    match value:
        case {"Ref": str(name)} if name in gone:
            return f"{name.lower()}-stub"
        case {"Fn::GetAtt": [str(name), attribute]} if name in gone:
            return f"{name.lower()}-{attribute.lower()}.example"
        case {"Fn::Sub": str(text)}:
            return {"Fn::Sub": _replace_in(text, gone)}
    return {key: _replace(inner, gone) for key, inner in value.items()}


def _replace_in(text: str, gone: set[str]) -> str:
    def made_up(found: "re.Match[str]") -> str:
        name = found[1].partition(".")[0]
        return f"{found[1].lower()}-stub" if name in gone else found[0]

    return re.sub(r"\$\{([A-Za-z0-9.]+)\}", made_up, text)


def _event(made: Any, logical: str, resource: Any) -> Event:
    return Event(
        stack_id=made.stack_id,
        stack_name=made.name,
        logical_resource_id=logical,
        physical_resource_id=getattr(resource, "physical_resource_id", ""),
        resource_type=getattr(resource, "type", ""),
        resource_status="CREATE_COMPLETE",
        resource_status_reason=None,
        resource_properties=None,
    )


def _is_form(environ: Mapping[str, Any]) -> bool:
    return "x-www-form-urlencoded" in environ.get("CONTENT_TYPE", "")


def _action(environ: Mapping[str, Any], form: Mapping[str, list[str]]) -> str:
    """Name what is asked, as AWS names it where the request says so."""
    if "Action" in form:
        return form["Action"][0]
    target: str = environ.get("HTTP_X_AMZ_TARGET", "")
    if target:
        return target.rpartition(".")[2]
    path = environ["PATH_INFO"]
    kind = "bucket" if path.count("/") == 1 else "object"
    if not re.match(r"/muster-", path):
        kind = path
    return f"{environ['REQUEST_METHOD']} {kind}"


def _refuse(refusal: Refusal, environ: Mapping[str, Any], start: Start) -> Iterable[bytes]:
    if environ.get("HTTP_X_AMZ_TARGET"):
        start(f"{refusal.status} No", [("Content-Type", "application/x-amz-json-1.1")])
        return [json.dumps({"__type": refusal.code, "message": refusal.message}).encode()]
    start(f"{refusal.status} No", [("Content-Type", "text/xml")])
    error = f"<Error><Code>{refusal.code}</Code><Message>{refusal.message}</Message></Error>"
    wrapped = f"<ErrorResponse>{error}</ErrorResponse>" if _is_form(environ) else error
    return [b"" if environ["REQUEST_METHOD"] == "HEAD" else wrapped.encode()]
