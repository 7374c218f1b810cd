"""The stack: what `chalice package` makes, and what is beside it, as one template.

Chalice merges `infra/resources.json` into its own template. What a merge cannot do is
done here: handlers are folded into one function, an HTTP API takes the place of Chalice's
REST API (docs/adr/0018-http-api.md), and the files `edge.js` and
`dashboard.json` are put in. Everything is a function of its input.
"""

from __future__ import annotations

import copy
import hashlib
import json
import logging
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

Template = dict[str, Any]

HERE = Path(__file__).parent
RESOURCES = HERE / "resources.json"

SERVE, PUBLISH = "APIHandler", "Publish"
RUNTIMES = ("python3.13", "python3.12", "python3.11")
"""Lambda's Pythons that the code runs on, the best first; 3.11 retires in June 2027."""

_FOLDED = ("Greet", "Sweep", "WebsocketConnect", "WebsocketMessage", "WebsocketDisconnect")
_ROUTES = ("WebsocketConnectRoute", "WebsocketMessageRoute", "WebsocketDisconnectRoute")
_DEPLOYMENT = "WebsocketAPIDeployment"
_REST, _REST_PERMISSION = "RestAPI", "APIHandlerInvokePermission"


def assemble(packaged: Mapping[str, Any], settings: Mapping[str, str] | None = None) -> Template:
    """Return the whole template; *settings* are ``MUSTER_…`` variables of both functions."""
    template: Template = copy.deepcopy(dict(packaged))
    resources = template["Resources"]
    ours = json.loads(RESOURCES.read_text())
    _fold(resources)
    _name_sockets_deployment(resources)
    _take_calls(resources)
    _fill_in(resources)
    template["Outputs"] = ours["Outputs"]
    for function in (SERVE, PUBLISH):
        resources[function]["Properties"]["Environment"]["Variables"].update(settings or {})
    template.setdefault("Metadata", {})["Muster"] = {"Settings": dict(settings or {})}
    return template


def retarget(template: Mapping[str, Any], runtime: str) -> Template:
    """Return the template for another Python."""
    changed: Template = copy.deepcopy(dict(template))
    for function in (SERVE, PUBLISH):
        changed["Resources"][function]["Properties"]["Runtime"] = runtime
    return changed


def settings(template: Mapping[str, Any]) -> dict[str, str]:
    """Return the settings that a template was assembled with."""
    found = (template.get("Metadata") or {}).get("Muster") or {}
    return dict(found.get("Settings") or {})


def defaults(template: Mapping[str, Any]) -> dict[str, str]:
    """Return the parameters that have a default, and it."""
    return {
        name: str(declared["Default"])
        for name, declared in template.get("Parameters", {}).items()
        if "Default" in declared
    }


def encode(template: Mapping[str, Any]) -> str:
    """Return the template's text: the same for the same template."""
    return json.dumps(template, sort_keys=True, separators=(",", ":"))


def transform(template: Mapping[str, Any], *, region: str) -> Template:
    """Do what AWS does with the SAM part of a template; no account is asked."""
    from samtranslator.translator.managed_policy_translator import ManagedPolicyLoader
    from samtranslator.translator.transform import transform as translate

    # Its own metrics, which nobody collects here, are all that it would warn of.
    logging.getLogger("samtranslator.metrics").setLevel(logging.ERROR)
    with _region(region):
        done: Template = translate(json.loads(encode(template)), {}, ManagedPolicyLoader(None))  # type: ignore[arg-type]
    return done


def _fold(resources: Template) -> None:
    """Let one function take the events of all the others."""
    for name in _FOLDED:
        for gone in (name, f"{name}InvokePermission", f"{name}APIIntegration"):
            resources.pop(gone, None)
    resources[SERVE]["Properties"]["Handler"] = "app.serve"
    for route in _ROUTES:
        target = {"Fn::Sub": "integrations/${WebsocketIntegration}"}
        resources[route]["Properties"]["Target"] = target


def _name_sockets_deployment(resources: Template) -> None:
    """Name the WebSocket API's deployment after what it deploys: a deployment never changes."""
    parts = [resources[name] for name in (*_ROUTES, "WebsocketIntegration", "WebsocketAPI")]
    digest = hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()[:10]
    deployment = resources.pop(_DEPLOYMENT)
    deployment["DependsOn"] = list(_ROUTES)
    resources[_DEPLOYMENT + digest] = deployment
    stage = resources["WebsocketAPIStage"]["Properties"]
    stage["DeploymentId"] = {"Ref": _DEPLOYMENT + digest}


def _take_calls(resources: Template) -> None:
    """Have our HTTP API take the calls, in place of Chalice's REST API: its one route is enough."""
    for gone in (_REST, _REST_PERMISSION):
        resources.pop(gone)


def _fill_in(resources: Template) -> None:
    """Put in the files that have an editor's language of their own."""
    edge = resources["EdgeFunction"]["Properties"]
    edge["FunctionCode"] = (HERE / edge["FunctionCode"]).read_text()
    dashboard = resources["Overview"]["Properties"]
    body = json.loads((HERE / dashboard["DashboardBody"]["Fn::Sub"]).read_text())
    dashboard["DashboardBody"] = {"Fn::Sub": json.dumps(body, separators=(",", ":"))}


def references(value: Any, conditions: Mapping[str, Any]) -> Iterator[str]:
    """Name what a part of a template depends on, parameters and resources alike."""
    if isinstance(value, Mapping):
        for key, inner in value.items():
            match key, inner:
                case "Ref", str():
                    yield inner
                case "Fn::GetAtt", [str(name), *_]:
                    yield name
                case "Fn::Sub", _:
                    text = inner[0] if isinstance(inner, list) else inner
                    for piece in str(text).split("${")[1:]:
                        yield piece.partition("}")[0].partition(".")[0]
                case ("Fn::If", [str(name), *_]) | ("Condition", str(name)):
                    yield from references(conditions.get(name), conditions)
            yield from references(inner, conditions)
    elif isinstance(value, list | tuple):
        for inner in value:
            yield from references(inner, conditions)


@contextmanager
def _region(name: str) -> Iterator[None]:
    """Tell SAM's translator the region: it knows it from the environment only."""
    before = os.environ.get("AWS_DEFAULT_REGION")
    os.environ["AWS_DEFAULT_REGION"] = name
    try:
        yield
    finally:
        if before is None:
            del os.environ["AWS_DEFAULT_REGION"]
        else:
            os.environ["AWS_DEFAULT_REGION"] = before
