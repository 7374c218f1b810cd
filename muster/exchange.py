"""One exchange with a service: bytes go out by HTTP or a WebSocket is opened, both in bounds.

What is said in it, and by whom it is signed, is each protocol's own (`muster.felund`,
`muster.circle`); what a network may do to it is the same for both.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

import httpx2

from muster import __version__, answers, errors, network, urls
from muster.errors import BadValue, Refused

if TYPE_CHECKING:
    from websockets.asyncio.client import ClientConnection
    from websockets.typing import Subprotocol

TIMEOUT_S = 10.0
MAX_REPLY_BYTES = 8 * 1024 * 1024

OPEN_TIMEOUT_S = 8.0
CLOSE_TIMEOUT_S = 1.0


class Unreachable(errors.Hinted):
    """The service did not answer, or not in time, or not as Muster does."""


class BadReply(Unreachable):
    """Something answered, but not a Muster service, or not in bounds."""


class Closed(Exception):
    """The socket is closed, or so silent that it must be."""


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

    async def send(
        self,
        method: str,
        url: str,
        query: Mapping[str, Any],
        content: bytes,
        headers: Mapping[str, str],
    ) -> tuple[httpx2.Response, bytes]:
        """Send a call; return the answer and its body. Raises `Unreachable`."""
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


def refusal(reply: httpx2.Response, raw: bytes) -> Refused | Unreachable:
    """Return what an answer without success says."""
    if reply.has_redirect_location:
        target = reply.headers["location"]
        return BadReply(f"{reply.url.host} redirects to {target}", "use that as the service's URL")
    wait = reply.headers.get("retry-after", "")
    return answers.refusal(reply.status_code, raw, host=reply.url.host, retry_after=wait)


async def open_websocket(
    url: str,
    *,
    authorization: str,
    max_size: int,
    subprotocols: list[Subprotocol] | None = None,
) -> ClientConnection:
    """Open a WebSocket with what the caller shows in its header, where no log will keep it.

    Raises `Refused` or `Unreachable`.
    """
    from websockets.asyncio.client import connect
    from websockets.exceptions import InvalidStatus, WebSocketException

    try:
        opened = await connect(
            url,
            **network.websocket_options(url),
            additional_headers={"Authorization": authorization},
            user_agent_header=f"muster/{__version__}",
            subprotocols=subprotocols,
            compression=None,  # payloads are encrypted
            open_timeout=OPEN_TIMEOUT_S,
            close_timeout=CLOSE_TIMEOUT_S,
            ping_interval=None,  # frames of ours do that, also through API Gateway
            max_size=max_size,
        )
    except InvalidStatus as refused:
        answer, host = refused.response, urlsplit(url).hostname or url
        wait = next(iter(answer.headers.get_all("Retry-After")), "")
        raw = bytes(answer.body or b"")
        raise answers.refusal(answer.status_code, raw, host=host, retry_after=wait) from None
    except (OSError, TimeoutError, WebSocketException, ValueError) as error:
        reason = str(error) or type(error).__name__
        raise Unreachable(f"cannot open a WebSocket to {url}: {reason}") from error
    network.notice_end(opened.transport.get_extra_info("socket"))
    return opened
