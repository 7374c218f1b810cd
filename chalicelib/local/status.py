"""Status: the pages on which an operator can look at a running host.

They are for who sits at this machine, or shows the operator's token. Nobody else learns
that they are there, and no page of somebody else's may read them: CORS is not for them.
"""

from __future__ import annotations

import hashlib
import hmac
import re
from base64 import b64decode, b64encode
from pathlib import Path

import msgspec
from prometheus_client import CollectorRegistry, ProcessCollector, generate_latest

from chalicelib import http
from chalicelib.call import Call, Reply
from chalicelib.local.calls import of_this_machine
from chalicelib.local.counters import Counters
from chalicelib.local.metrics import Metrics
from muster.errors import InvalidToken, MethodNotAllowed, NotFound

PAGES = ("/", "/status.json", "/metrics")

_encoder = msgspec.json.Encoder()


class Pages:
    """Three pages: one for people, its figures as JSON, and the same for Prometheus."""

    def __init__(self, counters: Counters, *, token: str = "") -> None:
        self._counters = counters
        self._token = token
        self._page, self._policy = _page()
        self._registry = CollectorRegistry()
        self._registry.register(Metrics(counters))
        ProcessCollector(registry=self._registry)

    async def reply(self, call: Call) -> Reply:
        """Return one of `PAGES`; raises `NotFound` for who may not see it, as for any path."""
        if not self._may_see(call):
            if not self._token:
                raise NotFound(http.NO_SUCH_PATH)
            return _asking_for_the_token()
        if call.method != "GET":
            raise MethodNotAllowed("this path takes GET", allow="GET, OPTIONS")
        return await self._reply(call.path)

    def _may_see(self, call: Call) -> bool:
        if of_this_machine(call):
            return True
        shown = _credential(call.headers.get("authorization", ""))
        return bool(self._token) and hmac.compare_digest(shown, self._token.encode())

    async def _reply(self, path: str) -> Reply:
        headers = {"Cache-Control": "no-store", "X-Content-Type-Options": "nosniff"}
        if path == "/":
            headers |= {
                "Content-Type": "text/html; charset=utf-8",
                "Content-Security-Policy": self._policy,
                "Referrer-Policy": "no-referrer",
            }
            body = self._page
        elif path == "/status.json":
            headers["Content-Type"] = "application/json"
            body = _encoder.encode(await self._counters.to_json())
        else:
            await self._counters.stored()
            headers["Content-Type"] = "text/plain; version=0.0.4; charset=utf-8"
            body = generate_latest(self._registry)
        return Reply(200, body=body, headers=headers, route=f"GET {path}")


def _credential(header: str) -> bytes:
    """Return the token that is shown: a program's bearer token, or a browser's password."""
    scheme, _, text = header.strip().partition(" ")
    if scheme.lower() == "bearer":
        return text.strip().encode(errors="surrogatepass")
    if scheme.lower() != "basic":
        return b""
    try:
        return b64decode(text.strip(), validate=True).partition(b":")[2]
    except ValueError:
        return b""


def _asking_for_the_token() -> Reply:
    """Return what lets a browser ask for the token, as the password of any user."""
    reply = http.refuse(InvalidToken("this page wants the token that MUSTER_STATUS_TOKEN sets"))
    reply.headers["WWW-Authenticate"] = 'Basic realm="Muster", charset="UTF-8"'
    for name in http.CORS:
        del reply.headers[name]
    return reply


def _page() -> tuple[bytes, str]:
    """Return the page, and the policy that lets it run its own script and nothing else."""
    page = Path(__file__).with_name("status.html").read_bytes()
    script, style = (
        " ".join(
            f"'sha256-{b64encode(hashlib.sha256(text).digest()).decode()}'"
            for text in re.findall(rb"<%b>(.*?)</%b>" % (tag, tag), page, re.DOTALL)
        )
        for tag in (b"script", b"style")
    )
    return page, (
        f"default-src 'none'; script-src {script}; style-src {style}; connect-src 'self'; "
        "img-src data:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    )
