"""OpenAPI: the HTTP API as a document, made from the routes and the records.

python -m tools.openapi            write docs/openapi.json and docs/asyncapi.json
python -m tools.openapi --check    fail if they are not what would be written
"""

from __future__ import annotations

import argparse
import inspect
import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec

from chalicelib import auth, proved, static
from chalicelib.assist import advise
from chalicelib.assist.bearer import bearer
from chalicelib.routes import ROUTES, Route
from chalicelib.settings import Settings
from muster import __version__, errors, shapes, structs
from muster.felund import assist_records, records, signing
from tools import examples

DOCS = Path(__file__).resolve().parents[1] / "docs"
DIALECT = "https://json-schema.org/draft/2020-12/schema"

_HEADERS = {
    "FelundNode": ("X-Felund-Node", "The calling node's id."),
    "FelundTime": ("X-Felund-Ts", "Unix seconds in decimal digits, at most 300 s off."),
    "FelundNonce": ("X-Felund-Nonce", "32 lower-case hex digits, used once."),
    "FelundSignature": ("X-Felund-Signature", "See x-muster-signing."),
}
_SIGNED: dict[str, list[str]] = {name: [] for name in _HEADERS}
_SECURITY: dict[auth.Guard, list[dict[str, list[str]]]] = {
    auth.anyone: [],
    auth.signed: [_SIGNED],
    auth.member: [_SIGNED, {}],
    auth.owner: [_SIGNED, {}],
    bearer: [{"AssistToken": []}],
    proved.sync: [{"Muster2": []}],
    proved.info: [{"Muster2": []}, {}],
}
_UNSIGNED: dict[auth.Guard, str] = {
    auth.member: "Unsigned calls are accepted only where `unsigned` is `allow` (GET /v1/info).",
    auth.owner: "Unsigned calls are accepted only where `unsigned` is `allow` (GET /v1/info), "
    "and never for a circle that has a request key.",
}
_NOTES = {
    400: "The call is malformed, or its time is outside the window.",
    401: "The call is not signed as it must be.",
    404: "There is nothing of that name.",
    409: "The nonce was used before, or the circle is full.",
    413: "The body or a part of it is over its limit.",
    429: "Too many calls, or the mailbox is full.",
    500: "The service failed.",
    503: "The store did not answer in time; nothing was acknowledged.",
}

_HOMES = (records, assist_records, shapes)

# Calls that have a body and are asked something in the query besides.
_QUERIES = {"/announce": records.ListTickets}

# What the service passes through unread has no type of its own.
_OPAQUE: dict[tuple[str, str], dict[str, Any]] = {
    ("LeaveMessages", "messages"): {"items": {"$ref": "#/components/schemas/MessageHead"}},
    ("Messages", "messages"): {"items": {"$ref": "#/components/schemas/MessageHead"}},
    ("LeaveSignal", "ttl_s"): {
        "description": "Seconds; clamped. What is not a number means as long as possible."
    },
}


def document() -> dict[str, Any]:
    """Return the OpenAPI 3.1 document."""
    paths: dict[str, dict[str, Any]] = {}
    for route in ROUTES:
        paths.setdefault(route.path, {})[route.method.lower()] = _operation(route)
    paths |= _files()
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "Muster",
            "version": __version__,
            "summary": "Presence, mail and relay for small groups.",
            "description": "docs/protocol.md is binding; docs/asyncapi.json describes the "
            "WebSocket at /v1/relay/ws.",
            "license": {"name": "Apache-2.0", "identifier": "Apache-2.0"},
        },
        "jsonSchemaDialect": DIALECT,
        "servers": [{"url": "http://127.0.0.1:8787", "description": "The one-machine host."}],
        "paths": paths,
        "components": {
            "schemas": schemas(),
            "responses": {
                **{f"Refused{status}": _refused(status) for status in _NOTES},
                **{f"Problem{status}": _problem(status) for status in _NOTES},
            },
            "headers": {
                "RequestId": {
                    "description": "Names the call in the service's log.",
                    "schema": {"type": "string"},
                },
                "RetryAfter": {
                    "description": "Seconds to wait.",
                    "schema": {"type": "integer", "minimum": 1},
                },
            },
            "securitySchemes": {
                **{
                    name: {"type": "apiKey", "in": "header", "name": header, "description": what}
                    for name, (header, what) in _HEADERS.items()
                },
                "AssistToken": {
                    "type": "http",
                    "scheme": "bearer",
                    "description": "From POST /v1/session, or from the operator.",
                },
                "Muster2": {
                    "type": "apiKey",
                    "in": "header",
                    "name": "Authorization",
                    "description": "Muster2 CREDENTIAL.PROOF[.TAG]: docs/protocol2.md. The answer "
                    "is signed in Muster-Answer.",
                },
            },
        },
        "x-muster-signing": _signing(),
    }


def schemas() -> dict[str, Any]:
    """Return the JSON Schema of every record, by name."""
    shapes = [shape for route in ROUTES for shape in (route.ask, route.answer)]
    _, found = msgspec.json.schema_components(
        [*shapes, records.MessageHead, records.ErrorBody, assist_records.Problem],
        ref_template="#/components/schemas/{name}",
    )
    for (name, member), more in _OPAQUE.items():
        found[name]["properties"][member].update(more)
    for name in ("ErrorBody", "Problem"):
        found[name]["properties"]["code"]["enum"] = sorted(errors.CODES)
    for name in _answers(found):
        record = next(getattr(home, name) for home in _HOMES if hasattr(home, name))
        if not record.__struct_config__.omit_defaults:
            members = msgspec.structs.fields(record)
            found[name]["required"] = [
                m.encode_name for m in members if m.default is not msgspec.UNSET
            ]
    return dict(sorted(found.items()))


def _answers(found: dict[str, Any]) -> list[str]:
    """Name the records that only answers hold: what the service writes, it writes whole."""
    asked = _reachable(found, [route.ask.__name__ for route in ROUTES])
    answered = _reachable(found, [route.answer.__name__ for route in ROUTES])
    return [*sorted(answered - asked - {"MessageHead"}), "ErrorBody"]


def _reachable(found: dict[str, Any], names: list[str]) -> set[str]:
    reached: set[str] = set()
    while names:
        name = names.pop()
        if name not in reached:
            reached.add(name)
            text = json.dumps(found[name])
            names += [other for other in found if f'"#/components/schemas/{other}"' in text]
    return reached


def _operation_id(use: Callable[..., Any]) -> str:
    """Return the name that generated clients give to a call; it outlives a move of the code."""
    module = use.__module__.rpartition(".")[2]
    return f"{'assist' if module == 'advise' else module}_{use.__name__}"


def _operation(route: Route) -> dict[str, Any]:
    ask, answer = examples.of(route.method, route.path) or (None, None)
    operation: dict[str, Any] = {
        "operationId": _operation_id(route.use),
        "summary": (inspect.getdoc(route.use) or "").partition("\n")[0],
        "description": "\n\n".join(
            part for part in (inspect.getdoc(route.ask), _UNSIGNED.get(route.guard)) if part
        ),
        "security": _SECURITY.get(route.guard, []),
    }
    if route.method == "GET":
        operation["parameters"] = _parameters(route.ask, ask)
    else:
        if route.path in _QUERIES:
            operation["parameters"] = _parameters(_QUERIES[route.path], None)
        operation["requestBody"] = {
            "required": route.unasked is None,
            "content": {"application/json": _content(route.ask, ask)},
        }
    operation["responses"] = {
        "200": {
            "description": inspect.getdoc(route.answer),
            "headers": {"X-Request-Id": {"$ref": "#/components/headers/RequestId"}},
            "content": {"application/json": _content(route.answer, answer)},
        },
        **{
            str(status): {"$ref": f"#/components/responses/{_form(route)}{status}"}
            for status in _statuses(route)
        },
    }
    return operation


def _files() -> dict[str, Any]:
    """Describe the app's files, which the hosts serve and no route knows."""
    name = {
        "name": "name",
        "in": "path",
        "required": True,
        "description": "As the page, its modules or the service worker name it.",
        "schema": {"type": "string", "pattern": "^[a-z0-9][a-z0-9._-]{0,63}$"},
        "example": "icon.svg",
    }
    page = _file("app_page", "Load the app: a page, with its content security policy.", ".html")
    kinds = [".js", ".css", ".svg", ".webmanifest"]
    file = _file("app_file", "Load a file of the app; only what is packed has a digest.", *kinds)
    return {"/app/": {"get": page}, "/app/{name}": {"get": {**file, "parameters": [name]}}}


def _file(operation_id: str, summary: str, *kinds: str) -> dict[str, Any]:
    headers = {"X-Request-Id": {"$ref": "#/components/headers/RequestId"}}
    content: dict[str, Any] = {static.TYPES[kind].partition(";")[0]: {} for kind in kinds}
    return {
        "operationId": operation_id,
        "summary": summary,
        "security": [],
        "responses": {
            "200": {"description": "The file.", "headers": headers, "content": content},
            "304": {"description": "The caller has it already.", "headers": headers},
            **{
                str(status): {"$ref": f"#/components/responses/Refused{status}"}
                for status in (400, 404, 429, 500)
            },
        },
    }


def _form(route: Route) -> str:
    return "Problem" if route.refusal else "Refused"


def _content(shape: type[structs.Record], example: structs.Record | None) -> dict[str, Any]:
    content: dict[str, Any] = {"schema": {"$ref": f"#/components/schemas/{shape.__name__}"}}
    return content | ({"example": examples.plain(example)} if example else {})


def _parameters(ask: type[structs.Record], example: structs.Record | None) -> list[dict[str, Any]]:
    shape = schemas()[ask.__name__]
    shown = examples.plain(example) if example else {}
    return [
        {
            "name": name,
            "in": "query",
            "required": name in shape.get("required", ()),
            "schema": _present(schema),
            **({"example": shown[name]} if shown.get(name) is not None else {}),
        }
        for name, schema in shape["properties"].items()
    ]


def _present(schema: dict[str, Any]) -> dict[str, Any]:
    """Return the schema of a query parameter that is there: a query cannot say null."""
    kinds = [kind for kind in schema.get("anyOf", ()) if kind != {"type": "null"}]
    rest = {key: value for key, value in schema.items() if key != "anyOf" and value is not None}
    return rest | kinds[0] if kinds else rest


def _statuses(route: Route) -> list[int]:
    statuses = {400, 413, 429, 500, 503}
    if route.guard is not auth.anyone:
        statuses |= {401} if route.guard is bearer else {401, 409}
    if route.ask is records.OpenSession:
        statuses.add(404)
    return sorted(statuses)


def _refused(status: int) -> dict[str, Any]:
    headers = {"X-Request-Id": {"$ref": "#/components/headers/RequestId"}}
    if status in (429, 503):
        headers["Retry-After"] = {"$ref": "#/components/headers/RetryAfter"}
    codes = sorted({code for code in errors.CODES if examples.status_of(code) == status})
    return {
        "description": f"{_NOTES[status]} Codes: {', '.join(codes)}.",
        "headers": headers,
        "content": {
            "application/json": {
                "schema": {"$ref": "#/components/schemas/ErrorBody"},
                "example": examples.refusal(codes[0]),
            }
        },
    }


def _problem(status: int) -> dict[str, Any]:
    """Return a refusal in the form of the paths that know problem+json."""
    refused = _refused(status)
    code = refused["content"]["application/json"]["example"]["code"]
    content = {
        "schema": {"$ref": "#/components/schemas/Problem"},
        "example": advise.problem(errors.from_json(examples.refusal(code), status=status)),
    }
    return refused | {"content": {"application/problem+json": content}}


def _signing() -> dict[str, Any]:
    signed = examples.SIGNED
    return {
        "version": 1,
        "key": "HMAC-SHA256(circle_secret, 'api-v1')",
        "canonical": "METHOD + path after /v1 without query + hex(SHA-256(body)) + X-Felund-Ts + "
        "X-Felund-Nonce, joined without separators",
        "signature": "hex(HMAC-SHA256(key, canonical))",
        "window_s": signing.WINDOW_S,
        "limits": {
            name: number for name, number in Settings().limits().items() if name == "body_bytes"
        },
        "example": {
            "circle_secret": signed.secret.hex(),
            "key": signing.request_key(signed.secret).hex(),
            "method": signed.method,
            "path": "/v1" + signed.path,
            "body": signed.body.decode(),
            "canonical": signing.canonical(
                signed.method,
                signed.path,
                signed.body,
                timestamp=str(examples.NOW),
                nonce=signed.nonce.hex(),
            ).decode(),
            "headers": signing.headers(
                signing.request_key(signed.secret),
                signed.method,
                signed.path,
                signed.body,
                node_id=examples.NODE,
                now=examples.NOW,
                nonce=signed.nonce,
            ),
        },
    }


def documents() -> dict[Path, str]:
    """Return what each file should hold."""
    from tools import asyncapi

    return {
        DOCS / "openapi.json": _text(document()),
        DOCS / "asyncapi.json": _text(asyncapi.document()),
    }


def _text(value: dict[str, Any]) -> str:
    text = json.dumps(value, indent=2, ensure_ascii=False) + "\n"
    # Only Python's `$` lets a line break pass; JSON Schema's is ECMAScript's, and other
    # readers cannot look ahead.
    return text.replace(r"(?!\\n)", "")


def main(argv: list[str] | None = None) -> int:
    """Write the documents, or check them."""
    parser = argparse.ArgumentParser(prog="python -m tools.openapi", description=__doc__)
    what = parser.add_mutually_exclusive_group()
    what.add_argument("--check", action="store_true", help="fail if the documents are stale")
    what.add_argument("--write", action="store_true", help="write them (as without options)")
    arguments = parser.parse_args(argv)
    stale = [
        path
        for path, text in documents().items()
        if not path.exists() or path.read_text(encoding="utf-8") != text
    ]
    if arguments.check:
        for path in stale:
            print(f"docs/{path.name} is stale: make openapi", file=sys.stderr)
        return 1 if stale else 0
    for path in stale:
        path.write_text(documents()[path], encoding="utf-8")
        print(f"wrote docs/{path.name}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
