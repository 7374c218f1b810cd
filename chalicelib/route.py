"""Route: what one line of the table of the HTTP API says."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

from chalicelib import access
from chalicelib.auth import Guard
from muster import structs
from muster.errors import Refused


class Route(NamedTuple):
    """One endpoint: who may call it, what it reads, what it does, what it answers."""

    method: str
    path: str
    guard: Guard
    ask: type[structs.Record]
    use: Callable[..., Any]
    answer: type[structs.Record]
    over: Callable[..., Any] | None = None
    """What a caller over its address's limit is answered instead of a refusal."""
    unasked: Callable[..., Any] | None = None
    """What a call with an empty body uses; without it, a body must be there."""
    refusal: Callable[[Refused], Any] | None = None
    """How the path writes refusals, as problem+json, if its clients know another form."""
    knock: access.Knock = access.circle
    """Whom a closed service lets call it, before anything is parsed."""
    body_bytes: str = "body_bytes"
    """The setting that says how large a body may be."""
