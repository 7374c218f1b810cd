"""Assist routes: the part of the table that is loaded when it is first called."""

from __future__ import annotations

from chalicelib import access
from chalicelib.assist import advise
from chalicelib.assist.bearer import bearer
from chalicelib.auth import signed
from chalicelib.route import Route
from muster.felund import assist_records, records

ROUTES = (
    Route(
        "POST",
        "/v1/session",
        signed,
        assist_records.OpenAssist,
        advise.open_session,
        assist_records.AssistOpened,
    ),
    Route(
        "POST",
        "/api/p2p/assist",
        bearer,
        assist_records.AskAdvice,
        advise.advise,
        assist_records.Advice,
        unasked=advise.unasked,
        refusal=advise.problem,
        knock=access.anyone,
        body_bytes="assist_body_bytes",
    ),
    Route(
        "GET",
        "/api/p2p/assist",
        bearer,
        records.Nothing,
        advise.unasked,
        assist_records.Advice,
        refusal=advise.problem,
        knock=access.anyone,
    ),
)
