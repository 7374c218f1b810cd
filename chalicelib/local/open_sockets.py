"""The open sockets of one process, by connection id: what the service sends through."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from chalicelib.call import Connection, Gone
from chalicelib.limits import Tally

if TYPE_CHECKING:
    from chalicelib.local.websockets import WebSocket


class OpenSockets:
    """Finds an open socket by its connection's id; a `Sender`."""

    def __init__(self) -> None:
        self._open: dict[str, WebSocket] = {}
        self._by_network = Tally()
        self.pushed = 0

    def __len__(self) -> int:
        return len(self._open)

    def __iter__(self) -> Iterator[WebSocket]:
        return iter(list(self._open.values()))

    def crowded(self, address: str, *, most: int) -> bool:
        """Say whether as many sockets come from where an address is as may come from there."""
        return self._by_network.full(address, most=most)

    def add(self, websocket: WebSocket) -> None:
        """Take a socket in."""
        self._open[websocket.id] = websocket
        self._by_network.add(websocket.address)

    def remove(self, websocket: WebSocket) -> None:
        """Forget a socket."""
        if self._open.pop(websocket.id, None) is not None:
            self._by_network.remove(websocket.address)

    def send(self, connection: Connection, text: str) -> None:
        """Send text to a connection; raises `Gone` if it is not open here."""
        websocket = self._open.get(connection.id)
        if websocket is None:
            raise Gone
        websocket.put(text)
        self.pushed += 1

    def close(self, connection: Connection, code: int, reason: str) -> None:
        """End a connection."""
        websocket = self._open.get(connection.id)
        if websocket is not None:
            websocket.close(code, reason)
