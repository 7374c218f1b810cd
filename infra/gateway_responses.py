"""What API Gateway is to say when it refuses a call itself, before the service sees it.

The same body and CORS headers as the service's own refusals, in the form in which
an OpenAPI document has them (``x-amazon-apigateway-gateway-responses``). The
deployment's template merges them; docs/adr/0008-backlog-on-api-gateway.md says why.
"""

from __future__ import annotations

import json
from typing import Any

from chalicelib import http
from muster.errors import (
    InternalError,
    InvalidRequest,
    NotFound,
    PayloadTooLarge,
    RateLimited,
    Refused,
    Unavailable,
)

EXTENSION = "x-amazon-apigateway-gateway-responses"

_NO_PATH = NotFound("there is no such path; GET /v1/info and docs/protocol.md list what there is")
_BUSY = RateLimited("too many calls; wait 1 s", retry_after_s=1)
_LATE = Unavailable("the service did not answer in time; try again", retry_after_s=1)

_REFUSALS: dict[str, Refused] = {
    # Nothing of ours asks API Gateway to authorize: these are calls of paths there are not.
    "MISSING_AUTHENTICATION_TOKEN": _NO_PATH,
    "INVALID_SIGNATURE": _NO_PATH,
    "EXPIRED_TOKEN": _NO_PATH,
    "ACCESS_DENIED": _NO_PATH,
    "UNAUTHORIZED": _NO_PATH,
    "RESOURCE_NOT_FOUND": _NO_PATH,
    "REQUEST_TOO_LARGE": PayloadTooLarge("the call is larger than the gateway passes"),
    "THROTTLED": _BUSY,
    "QUOTA_EXCEEDED": _BUSY,
    "WAF_FILTERED": _BUSY,
    "INTEGRATION_FAILURE": _LATE,
    "INTEGRATION_TIMEOUT": _LATE,
    "DEFAULT_4XX": InvalidRequest("the gateway cannot read the call"),
    "DEFAULT_5XX": InternalError("the service failed; try again", retry_after_s=1),
}


def gateway_responses() -> dict[str, Any]:
    """Return a gateway response for every kind, and so for none in the gateway's own words."""
    return {kind: _response(refusal) for kind, refusal in _REFUSALS.items()}


def _response(refusal: Refused) -> dict[str, Any]:
    reply = http.refuse(refusal)
    headers = {name: value for name, value in reply.headers.items() if name != "Content-Type"}
    return {
        "statusCode": str(reply.status),
        "responseParameters": {
            f"gatewayresponse.header.{name}": f"'{value}'" for name, value in headers.items()
        },
        "responseTemplates": {http.JSON: reply.body.decode()},
    }


if __name__ == "__main__":
    print(json.dumps({EXTENSION: gateway_responses()}, indent=2))
