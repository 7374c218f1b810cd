"""Routes of version 2: the part of the table that is loaded when one of it is first called."""

from __future__ import annotations

from chalicelib import access, proved
from chalicelib.circle import sync
from chalicelib.route import Route
from muster import shapes

ROUTES = (
    Route(
        "POST",
        "/v2/sync",
        proved.sync,
        shapes.Sync,
        sync.sync,
        shapes.Synced,
        knock=proved.knock,
    ),
    Route(
        "GET",
        "/v2/info",
        proved.info,
        shapes.NoParameters,
        sync.info,
        shapes.ServiceInfo,
        knock=access.anyone,
    ),
)
