"""Clients of AWS's services that give up soon, as a caller waits for them."""

from __future__ import annotations

from functools import cache
from typing import Any

CONNECTIONS = 16
"""How many calls a client makes at once."""


def open_client(service: str, **chosen: Any) -> Any:
    """Make a client of an AWS service that gives up soon; repeating is up to the caller."""
    import botocore.config

    config = botocore.config.Config(
        connect_timeout=1,
        read_timeout=2,
        retries={"mode": "standard", "total_max_attempts": 1},
        max_pool_connections=CONNECTIONS,
        parameter_validation=False,
        tcp_keepalive=True,
    )
    return _session().create_client(service, config=config, **chosen)


@cache
def _session() -> Any:
    import botocore.session

    return botocore.session.Session()
