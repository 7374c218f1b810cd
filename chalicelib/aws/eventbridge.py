"""EventBridge without an SDK, as DynamoDB is asked (ADR 0013): an announce may wait for it.

Enabling a rule takes 10 ms so, and 285 ms by botocore where that is not loaded yet.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from chalicelib.store.dynamodb_http import JsonClient, open_at


class EventsClient(JsonClient):
    """Asks EventBridge."""

    service, target, content_type = "events", "AWSEvents", "application/x-amz-json-1.1"

    def enable_rule(self, **arguments: Any) -> dict[str, Any]:
        """Have a rule run."""
        return self._ask("EnableRule", arguments)

    def disable_rule(self, **arguments: Any) -> dict[str, Any]:
        """Have a rule rest."""
        return self._ask("DisableRule", arguments)


def open_events(environment: Mapping[str, str]) -> Any:
    """Make a client of EventBridge: ours, or botocore's where only that can."""
    client = open_at(EventsClient, environment, "EVENTBRIDGE", read_s=2, attempts=1)
    if client is not None:
        return client
    from chalicelib.aws.clients import open_client

    return open_client("events")
