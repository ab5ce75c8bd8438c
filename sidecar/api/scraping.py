"""What Prometheus scrapes: `GET /metrics`, and nothing else. It is never on the decision socket."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator, Callable
from typing import Final

from sidecar.api.metrics import CONTENT_TYPE
from sidecar.web import MAX_HEAD, PATIENCE, Found, browsed

__all__ = ["MAX_AT_ONCE", "MAX_HEAD", "PATIENCE", "scraped"]

MAX_AT_ONCE: Final = 16  # connections; one more is dropped

Page = Callable[[], bytes]


@contextlib.asynccontextmanager
async def scraped(page: Page, host: str, port: int) -> AsyncIterator[str]:
    """Serve ``page()`` while inside; gives the page's URL (a port 0 becomes the one that was had).

    Raises:
        UsageError: the address cannot be had.
    """

    async def look(path: str) -> Found | None:
        return (page(), CONTENT_TYPE) if path == "/metrics" else None

    async with browsed(look, host, port, "metrics", MAX_AT_ONCE) as url:
        yield f"{url}/metrics"
