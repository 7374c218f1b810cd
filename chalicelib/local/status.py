"""Status: the pages on which an operator, and everybody else, can look at a running host."""

from __future__ import annotations

import hashlib
import re
from base64 import b64encode
from pathlib import Path

import msgspec
from prometheus_client import CollectorRegistry, ProcessCollector, generate_latest

from chalicelib.call import Reply
from chalicelib.http import CORS
from chalicelib.local.counters import Counters
from chalicelib.local.metrics import Metrics

PAGES = ("/", "/status.json", "/metrics")

_encoder = msgspec.json.Encoder()


class Pages:
    """Three pages: one for people, its figures as JSON, and the same for Prometheus."""

    def __init__(self, counters: Counters) -> None:
        self._counters = counters
        self._page, self._policy = _page()
        self._registry = CollectorRegistry()
        self._registry.register(Metrics(counters))
        ProcessCollector(registry=self._registry)

    async def reply(self, path: str) -> Reply:
        """Return one of `PAGES`."""
        headers = CORS | {"Cache-Control": "no-store", "X-Content-Type-Options": "nosniff"}
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
