"""Base: which service a command talks to."""

from __future__ import annotations

import os
from urllib.parse import urlsplit

from infra.output import Misuse

HERE = "http://127.0.0.1:8787"


def base_url(named: str | None) -> str:
    """Return the service's base URL: as named, from ``MUSTER_BASE``, or on this machine."""
    from muster.client import service_url

    try:
        return service_url(named or os.environ.get("MUSTER_BASE") or HERE)
    except ValueError as error:
        message, _, hint = str(error).partition("; ")
        raise Misuse(message, hint) from None


def is_this_machine(base: str) -> bool:
    """Say whether a URL means nothing on another machine."""
    host = urlsplit(base).hostname or ""
    return host in ("localhost", "::1", "0.0.0.0") or host.startswith("127.")  # noqa: S104
