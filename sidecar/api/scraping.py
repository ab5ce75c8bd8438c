"""What Prometheus scrapes and probes ask: `/metrics`, `/healthz`, `/readyz`. It is never on the decision socket."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable
from typing import Final

from sidecar.api.health import Health
from sidecar.api.metrics import CONTENT_TYPE
from sidecar.web import MAX_HEAD, PATIENCE, TEXT, Found, browsed

__all__ = ["MAX_AT_ONCE", "MAX_HEAD", "PATIENCE", "scraped"]

MAX_AT_ONCE: Final = 16  # connections; for one more the oldest is broken off

Page = Callable[[], bytes]


@contextlib.asynccontextmanager
async def scraped(page: Page, health: Health, host: str, port: int) -> AsyncIterator[str]:
    """Serve ``page()`` and the health while inside; gives the page's URL (a port 0 becomes the one that was had).

    Raises:
        UsageError: the address cannot be had.
    """

    async def look(path: str) -> Found | None:
        if path == "/metrics":
            return Found(await asyncio.to_thread(page), CONTENT_TYPE)
        told = health.page(path)
        return None if told is None else Found(told[1], TEXT, told[0])

    async with browsed(look, host, port, "metrics", MAX_AT_ONCE) as url:
        yield f"{url}/metrics"
