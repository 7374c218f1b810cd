"""The guard of assist: who shows a token for it, as its clients sign nothing."""

from __future__ import annotations

import hashlib
import hmac

from chalicelib import access, tokens
from chalicelib.auth import Guard
from chalicelib.call import Call
from chalicelib.service import Service
from muster.errors import InvalidToken


class _Bearer(Guard):
    """Lets in who shows a token: one of `POST /v1/session`, or one of the operator's."""

    def meet(self, service: Service, call: Call) -> None:
        _check(service, call)


bearer = _Bearer()


def _check(service: Service, call: Call) -> None:
    if service.settings.assist_open == "allow":
        return
    scheme, _, rest = call.headers.get("authorization", "").strip().partition(" ")
    text = rest.strip() if scheme.lower() == "bearer" else f"{scheme} {rest}".strip()
    if not text:
        raise InvalidToken("send 'Authorization: Bearer' and a token, which POST /v1/session gives")
    name = _given_out(service, text)
    if name:
        service.limits.spend_node("assist", name, clock=call.clock)
        return
    if access.closed(service, call):
        access.let_in(service, call, tokens.claimed(text).circle_hint)
    token = tokens.read(service.signer(now=call.now), text, now=call.now)
    if token.use != "assist":
        raise InvalidToken("the token is not for assist; POST /v1/session gives one that is")
    service.limits.spend_node(token.circle_hint, token.node_id, clock=call.clock)


def _given_out(service: Service, text: str) -> str:
    """Return the name of the operator's token that this is; all of them are compared."""
    shown, name = hashlib.sha256(text.encode(errors="surrogatepass")).digest(), ""
    for known in service.settings.assist_tokens:
        digest = hashlib.sha256(known.encode()).digest()
        if hmac.compare_digest(digest, shown):
            name = digest.hex()[:16]
    return name
