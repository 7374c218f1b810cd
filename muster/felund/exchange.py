"""One exchange of version 1: a record goes out, a record or a refusal comes back."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

import msgspec

from muster import exchange, structs
from muster.answers import NOT_OURS
from muster.exchange import MAX_REPLY_BYTES, TIMEOUT_S, BadReply, service_url, websocket_url

__all__ = [
    "MAX_REPLY_BYTES",
    "TIMEOUT_S",
    "BadReply",
    "Exchange",
    "Operation",
    "members",
    "service_url",
    "websocket_url",
]

_R = TypeVar("_R", bound=structs.Record)


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


class Exchange(exchange.Exchange):
    """The connections to one service, and what its answers say."""

    async def make(
        self,
        operation: Operation[_R],
        query: Mapping[str, Any],
        content: bytes,
        headers: Mapping[str, str],
    ) -> _R:
        """Ask once, with a query or a body; read the record that is answered."""
        url = operation.url(self.base_url)
        reply, raw = await self.send(operation.method, url, query, content, headers)
        if not reply.is_success:
            raise exchange.refusal(reply, raw)
        try:
            return msgspec.json.decode(raw, type=operation.reply)
        except msgspec.MsgspecError as error:
            raise BadReply(f"{url} did not answer as Muster does: {error}", NOT_OURS) from None


def members(record: structs.Record) -> dict[str, Any]:
    """Return what is set in a record."""
    found = msgspec.structs.asdict(record)
    return {name: value for name, value in found.items() if value is not None}
