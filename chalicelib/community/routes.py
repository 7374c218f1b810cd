"""The beacon's paths, loaded with the first call of one."""

from __future__ import annotations

from chalicelib import access
from chalicelib.auth import anyone
from chalicelib.community import beacon
from chalicelib.route import Route
from muster.felund import records

ROUTES = (
    Route(
        "POST",
        "/announce",
        anyone,
        records.Announce,
        beacon.announce,
        records.Tickets,
        over=beacon.listing,
        knock=access.community,
    ),
    Route(
        "GET",
        "/peers",
        anyone,
        records.ListTickets,
        beacon.peers,
        records.Tickets,
        over=beacon.listing,
        knock=access.community,
    ),
)
