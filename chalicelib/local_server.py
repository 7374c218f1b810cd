"""The server under the one-machine host: uvicorn, with its gaps closed."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from types import FrameType
from typing import TYPE_CHECKING, Any

import uvicorn

if TYPE_CHECKING:
    from chalicelib.local import Host

KEEP_ALIVE_S = 65
GOODBYE_S = 2.0
STOP_S = 3

MOST_FRAME_BYTES = 256 * 1024
"""Beyond the largest frame there may be, so that a frame over the limit is refused in good order."""


def run(app: Host, listener: socket.socket) -> None:
    """Serve on *listener* until SIGTERM or SIGINT, then stop in good order."""
    config = uvicorn.Config(
        app,
        loop="uvloop",
        http="httptools",
        ws="websockets-sansio",
        ws_max_size=MOST_FRAME_BYTES,
        ws_ping_interval=None,
        ws_per_message_deflate=False,
        lifespan="on",
        log_config=None,
        access_log=False,
        proxy_headers=False,
        server_header=False,
        timeout_keep_alive=KEEP_ALIVE_S,
        timeout_graceful_shutdown=STOP_S,
    )
    _Server(config, app).run(sockets=[listener])


class _Server(uvicorn.Server):
    """Uvicorn's server, which says goodbye to sockets and then exits with 0."""

    def __init__(self, config: uvicorn.Config, app: Host) -> None:
        super().__init__(config)
        self._app = app

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """Stop; the second signal does not wait for anybody."""
        self.force_exit = self.should_exit
        self.should_exit = True

    async def shutdown(self, sockets: Any = None) -> None:
        """Stop accepting, close the sockets, let the calls finish."""
        for server in self.servers:
            server.close()
        self._app.say_goodbye()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(GOODBYE_S):
                while len(self._app.sockets) and not self.force_exit:
                    await asyncio.sleep(0.01)
        await super().shutdown(sockets)
