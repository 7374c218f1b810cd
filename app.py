"""The AWS host: events of API Gateway and of the clock in, answers out.

Chalice packs this module and makes a Lambda function of `app` and of each function
with a decorator. What an event means is said in `chalicelib`.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any

from chalice.app import Chalice, Rate, Response

from chalicelib.aws.events import EVERY, Kind, kind
from chalicelib.aws.host import METHODS, Answer, AwsHost

app = Chalice("muster", configure_logs=False)
app.experimental_feature_flags.add("WEBSOCKETS")
host = AwsHost(os.environ)


@app.route(EVERY, methods=list(METHODS), content_types=[])
def answer() -> Response:
    """Answer the call at hand, which says itself for which path it is."""
    request = app.current_request
    return host.answer(request.to_original_event() if request else {})


@app.middleware("http")
def answer_refusals(event: Any, get_response: Callable[[Any], Response]) -> Response:
    """Answer what Chalice refuses before it asks a view: its error bodies have another form."""
    response = get_response(event)
    return response if isinstance(response, Answer) else answer()


@app.on_ws_connect()
def on_connect(event: Any) -> dict[str, Any]:
    """Admit a WebSocket, or refuse it."""
    return host.connect(event.to_dict())


@app.on_ws_message()
def on_message(event: Any) -> None:
    """Take a text frame."""
    host.receive(event.to_dict())


@app.on_ws_disconnect()
def on_disconnect(event: Any) -> None:
    """Forget a WebSocket that has ended."""
    host.disconnect(event.to_dict())


@app.lambda_function()
def greet(event: Any, context: Any) -> None:
    """Tell a WebSocket what it is told first; started by `on_connect`, run after it."""
    host.greet(event)


@app.schedule(Rate(1, unit=Rate.MINUTES))
def sweep(event: Any) -> None:
    """End relay seats that are idle or out of time."""
    host.sweep()


_FOLDED: dict[Kind, Callable[[Any, Any], Any]] = {
    "call": app,
    "connect": on_connect,
    "message": on_message,
    "disconnect": on_disconnect,
    "greet": greet,
    "sweep": sweep,
}


def serve(event: Any, context: Any) -> Any:
    """Take any event but the publisher's: one function, which stays warm for all (ADR 0012)."""
    return _FOLDED[kind(event)](event, context)


@app.schedule(Rate(1, unit=Rate.MINUTES))
def publish(event: Any) -> None:
    """Publish the capsules that are due."""
    host.publish()
