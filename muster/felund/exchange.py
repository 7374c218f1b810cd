"""One HTTP exchange with a service: a record goes out, a record or a refusal comes back.

Time and size are bounded; what does not look like Muster's answer is a `BadReply`.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Generic, TypeVar
from urllib.parse import urlsplit

import httpx2
import msgspec

from muster import __version__, network, structs, urls
from muster.errors import BadValue, Refused
from muster.felund import answers
from muster.felund.answers import NOT_OURS
from muster.felund.sockets import Unreachable

TIMEOUT_S = 10.0
MAX_REPLY_BYTES = 8 * 1024 * 1024

_R = TypeVar("_R", bound=structs.Record)


class BadReply(Unreachable):
    """Something answered, but not a Muster service, or not in bounds."""


@dataclass(frozen=True, slots=True)
class Operation(Generic[_R]):
    """One thing a service does: the record it answers, and where and how it is asked.

    *path* is what a signature covers and stands below ``/v1``; *root* is for the one path
    that existing clients want at the root.
    """

    reply: type[_R]
    method: str
    path: str
    signed: bool = True
    root: bool = False

    def url(self, base_url: str) -> str:
        """Return where it is at a service."""
        return f"{base_url}{self.path}" if self.root else f"{base_url}/v1{self.path}"


class Exchange:
    """The connections to one service.

    Raises `BadValue` if this machine's environment names no usable way there.
    """

    def __init__(
        self,
        base_url: str,
        *,
        transport: httpx2.AsyncBaseTransport | None = None,
        timeout_s: float = TIMEOUT_S,
        max_reply_bytes: int = MAX_REPLY_BYTES,
    ) -> None:
        self.base_url = base_url
        self._timeout_s = timeout_s
        self._max_reply_bytes = max_reply_bytes
        network.route(base_url)
        self.http = httpx2.AsyncClient(
            transport=transport or network.Transport(),
            timeout=timeout_s,
            headers={
                "Accept": "application/json",
                "Accept-Encoding": "identity",  # so that a bound on bytes is a bound on work
                "User-Agent": f"muster/{__version__}",
            },
        )

    async def make(
        self,
        operation: Operation[_R],
        query: Mapping[str, Any],
        content: bytes,
        headers: Mapping[str, str],
    ) -> _R:
        """Ask once, with a query or a body; read the record that is answered."""
        url = operation.url(self.base_url)
        reply, raw = await self._send(operation.method, url, query, content, headers)
        if not reply.is_success:
            raise _refusal(reply, raw)
        try:
            return msgspec.json.decode(raw, type=operation.reply)
        except msgspec.MsgspecError as error:
            raise BadReply(f"{url} did not answer as Muster does: {error}", NOT_OURS) from None

    async def _send(
        self,
        method: str,
        url: str,
        query: Mapping[str, Any],
        content: bytes,
        headers: Mapping[str, str],
    ) -> tuple[httpx2.Response, bytes]:
        try:
            async with (
                asyncio.timeout(self._timeout_s),
                self.http.stream(
                    method, url, params=query or None, content=content or None, headers=headers
                ) as reply,
            ):
                return reply, await self._bounded(reply)
        except TimeoutError:
            raise Unreachable(f"{url} has not answered in {self._timeout_s:g} s") from None
        except (httpx2.HTTPError, httpx2.InvalidURL, BadValue) as error:
            reason = str(error) or type(error).__name__
            raise Unreachable(f"cannot reach {url}: {reason}") from error

    async def _bounded(self, reply: httpx2.Response) -> bytes:
        """Read a body, as long as it stays in bounds."""
        if reply.headers.get("content-encoding", "identity") != "identity":
            raise BadReply(f"{reply.url.host} answered compressed, which was not asked for")
        raw = bytearray()
        async for chunk in reply.aiter_bytes():
            raw += chunk
            if len(raw) > self._max_reply_bytes:
                raise BadReply(f"{reply.url.host} answered more than {self._max_reply_bytes} bytes")
        return bytes(raw)


def service_url(text: str) -> str:
    """Return a base URL without a slash or ``/v1`` at its end.

    Raises `BadValue`, a `ValueError`, if it is not an http or https URL.
    """
    parts = urls.read(text, what="the URL of a service")
    if parts.query or parts.fragment:
        raise BadValue("a service's URL has no '?' or '#' in it")
    return parts.geturl().rstrip("/").removesuffix("/v1").rstrip("/")


def websocket_url(base_url: str, relay_url: str) -> str:
    """Return where to open a WebSocket; a token from an https service is not sent in clear."""
    base = urlsplit(base_url)
    try:
        relay = urls.read(relay_url, "ws", "wss")
    except BadValue:
        raise BadReply("the service named a relay that is not a WebSocket URL") from None
    if base.scheme == "http" or relay.scheme == "wss":
        return relay.geturl()
    if relay.hostname != base.hostname:
        raise BadReply(f"the service named a relay without encryption, {relay.hostname}")
    return relay._replace(scheme="wss").geturl()  # the service stands behind a proxy that decrypts


def members(record: structs.Record) -> dict[str, Any]:
    """Return what is set in a record."""
    found = msgspec.structs.asdict(record)
    return {name: value for name, value in found.items() if value is not None}


def _refusal(reply: httpx2.Response, raw: bytes) -> Refused | Unreachable:
    if reply.has_redirect_location:
        target = reply.headers["location"]
        return BadReply(f"{reply.url.host} redirects to {target}", "use that as the service's URL")
    wait = reply.headers.get("retry-after", "")
    return answers.refusal(reply.status_code, raw, host=reply.url.host, retry_after=wait)
