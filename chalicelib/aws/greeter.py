"""Greeter: has a new connection greeted by a function that runs once it can be sent to."""

from __future__ import annotations

import json
import logging
from typing import Any

from chalicelib.call import Connection
from chalicelib.log import code_of

_log = logging.getLogger("muster")


class Greeter:
    """Starts a Lambda function that greets, and does not wait for it."""

    def __init__(self, client: Any, function: str) -> None:
        self._client, self._function = client, function

    def greet(self, connection: Connection, address: str = "") -> None:
        """Start the function; if that fails, the socket lives without its backlog.

        The *address* that opened the connection is charged for what greeting it takes.
        """
        told = {"id": connection.id, "endpoint": connection.endpoint, "address": address}
        payload = json.dumps(told).encode()
        try:
            self._client.invoke(
                FunctionName=self._function, InvocationType="Event", Payload=payload
            )
        except Exception as error:
            _log.warning("a socket is not greeted: %s", code_of(error))
