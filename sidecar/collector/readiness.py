"""Whether what a sidecar ships now would be taken, logged and receipted (proto/HEALTH.md)."""

from __future__ import annotations

import asyncio
import logging
import math
import time
from collections.abc import Callable
from typing import Final

from sidecar.collector.index import Index
from sidecar.collector.objects import read_checkpoint
from sidecar.collector.sequencer import Sequencer
from sidecar.collector.storage import Storage
from sidecar.errors import StorageError

log = logging.getLogger("sidecar.collector")

EVERY: Final = 1.0  # seconds
OBJECTS_EVERY: Final = 10.0  # seconds: in S3 each look is a request


class Readiness:
    """``monotonic`` in seconds. ``ends``, once known: when the certificate that is shown does, seconds since 1970."""

    def __init__(
        self, index: Index, storage: Storage, sequencer: Sequencer, monotonic: Callable[[], float] = time.monotonic
    ) -> None:
        self._index, self._storage, self._sequencer, self._monotonic = index, storage, sequencer, monotonic
        self.ends: Callable[[], float] = lambda: math.inf
        self._due, self._unread = monotonic(), ""
        self.opened = False  # whether every chain that is held was looked at

    def look(self) -> str:
        """Why not, or "". Blocks."""
        if self.ends() <= time.time():
            return "the collector's certificate has ended; renew tls.cert_file, or see to the SPIFFE agent"
        try:
            self._index.tip()
        except StorageError as error:
            return f"index: {error}"
        if self._monotonic() >= self._due:
            self._unread = self._objects()
            self._due = self._monotonic() + OBJECTS_EVERY
        if self._unread:
            return self._unread
        if self._sequencer.failures:
            return f"the log does not grow, {self._sequencer.failures} attempts failed; see the collector's log"
        return "" if self.opened else "it starts: the chains that it holds are being looked at"

    def _objects(self) -> str:
        fleet = self._sequencer.fleet
        try:
            if fleet.signed and read_checkpoint(self._storage, fleet.number) is None:
                return f"objects: checkpoint {fleet.number} of the log is gone"
        except StorageError as error:
            return f"objects: {error}"
        return ""


async def follow(readiness: Readiness, found: Callable[[str], bool]) -> None:
    """Look until cancelled; ``found`` is told each cause, and says whether to log it. It holds up nothing else: storage
    may hang, and then nobody is told anything."""
    while True:
        cause = await asyncio.to_thread(readiness.look)
        if found(cause):
            log.warning("not ready: %s", cause)
        await asyncio.sleep(EVERY)
