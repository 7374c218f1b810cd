"""Housekeeping: the background jobs of the one-machine host."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections.abc import AsyncIterator, Callable

from chalicelib import store
from chalicelib.circle import relay
from chalicelib.local.certificate import LOOK_S, Certificate
from chalicelib.local.desk import SocketDesk
from chalicelib.local.publishing import FolderPublishing
from chalicelib.quotas import TIGHT
from chalicelib.service import Service

SWEEP_S = 5.0
SLICE_S = 0.05
PURGE_S = 0.25
PURGE_ITEMS = 500
MEASURE_S = 0.25

TIGHT_SLICES = 4
"""So many slices are purged at a time when the store is nearly full."""

FULL_TOLD_S = 60.0
"""How often the log is told that the store is full."""
CHECKPOINT_S = 0.5

SOON_S = 1.0
"""How soon a community that was not published for long is published after an announce."""

_log = logging.getLogger("muster")


class Housekeeping:
    """Sweeps relay seats, purges what has expired, checks sockets, and publishes capsules.

    Where TLS is ours it looks for a new certificate.
    """

    def __init__(
        self, service: Service, desk: SocketDesk, certificate: Certificate | None = None
    ) -> None:
        self.publishing: FolderPublishing | None = None
        self._certificate = certificate
        self._service = service
        self._desk = desk
        self._tell_at = 0.0

    @contextlib.asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Run all jobs for the length of a block; how full the store is, is known before it."""
        with contextlib.suppress(store.Unavailable):
            self._measure()
        jobs = [
            asyncio.create_task(self._sweep()),
            asyncio.create_task(_every(MEASURE_S, self._measure)),
            asyncio.create_task(_every(PURGE_S, self._purge)),
            asyncio.create_task(_every(1.0, self._desk.check_sockets)),
            asyncio.create_task(_every(CHECKPOINT_S, self._checkpoint, in_thread=True)),
            asyncio.create_task(self._publish()),
        ]
        if self._certificate is not None:
            look = _every(LOOK_S, self._certificate.look, in_thread=True)
            jobs.append(asyncio.create_task(look))
        try:
            yield
        finally:
            for job in jobs:
                job.cancel()
            await asyncio.gather(*jobs, return_exceptions=True)
            if self.publishing is not None:
                self.publishing.stop()

    async def _publish(self) -> None:
        """Publish in a thread when it is time to."""
        while self.publishing is not None:
            await asyncio.sleep(SOON_S)
            try:
                if self.publishing.due(int(time.time())):
                    await asyncio.to_thread(self.publishing.run)
            except Exception:
                _log.exception("unforeseen")

    async def _sweep(self) -> None:
        """Sweep relay seats slice by slice, so that many of them hold nobody up."""
        after = ""
        while True:
            await asyncio.sleep(SLICE_S if after else SWEEP_S)
            try:
                swept = relay.sweep(self._service, now=int(time.time()), after=after)
                self._desk.deliver(swept.effects)
                after = swept.after
            except Exception:
                _log.exception("unforeseen")

    def _measure(self) -> None:
        """Note how full the store is, and tell the log while it is full."""
        room = getattr(self._service.stores, "room", None)  # DynamoDB has no end
        if room is None:
            return
        quotas = self._service.quotas
        quotas.measured(room())
        if quotas.full and time.monotonic() >= self._tell_at:
            self._tell_at = time.monotonic() + FULL_TOLD_S
            _log.error(
                "the store is full and takes no messages: see MUSTER_STORE_BYTES, and the disk"
            )

    def _purge(self) -> None:
        """Remove what has expired among the next few hundred items of each table."""
        purge = getattr(self._service.stores, "purge", None)  # DynamoDB does that by itself
        if purge is not None:
            for _ in range(TIGHT_SLICES if self._service.quotas.fullness >= TIGHT else 1):
                purge(int(time.time()), slice_items=PURGE_ITEMS)

    def _checkpoint(self) -> None:
        """Write to the file what has been committed; runs in a thread, as the disk may be slow."""
        checkpoint = getattr(self._service.stores, "checkpoint", None)
        if checkpoint is not None:
            checkpoint()


async def _every(period_s: float, job: Callable[[], None], *, in_thread: bool = False) -> None:
    while True:
        await asyncio.sleep(period_s)
        try:
            if in_thread:
                await asyncio.to_thread(job)
            else:
                job()
        except store.Unavailable:
            _log.warning("the store did not answer in time")
        except Exception:
            _log.exception("unforeseen")
