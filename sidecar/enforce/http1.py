"""HTTP/1.1 listened for (aiohttp: the extras `authzen` and `mcp`), over TLS or not, on a port or a unix socket.

What is sent here is bounded: heads of 8 KiB a line and 64 lines, bodies as who reads them says, so many connections,
ten seconds for a head and ten for a body; one more is dropped, or answered with an error. Whatever is sent, the rest
of the process goes on.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import socket
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Final

from aiohttp import web

from sidecar.enforce.arriving import Arrivals
from sidecar.errors import RequestError

MOST_CONNECTIONS: Final = 256
PATIENCE: Final = 10.0  # seconds for a head, a body, a handshake
STOP_GRACE: Final = 5.0  # seconds for what is under way

_SILENT: Final = logging.getLogger("sidecar.doors.http")  # what aiohttp says of bad requests holds their bytes
_SILENT.addHandler(logging.NullHandler())
_SILENT.propagate = False

Answer = Callable[[web.BaseRequest], Awaitable[web.StreamResponse]]


@contextlib.asynccontextmanager
async def listening(
    answer: Answer,
    bound: socket.socket,
    tls: ssl.SSLContext | None,
    most: int = MOST_CONNECTIONS,
    patience: float = PATIENCE,
    *,
    hangs_up: bool = False,
    begun: Callable[[], object] = lambda: None,
    failed: Callable[[bytes], object] = lambda _: None,
) -> AsyncIterator[None]:
    """Answer on ``bound`` while inside. ``most``: connections at once, and handshakes besides; ``patience``: seconds
    for a head and for a handshake. ``hangs_up``: an answer is cancelled when its client is gone. ``begun``, ``failed``:
    as `Arrivals` has them."""
    server = web.Server(
        answer,
        handler_cancellation=hangs_up,
        keepalive_timeout=patience,
        max_headers=64,
        lingering_time=1.0,
        auto_decompress=False,
        access_log=None,
        logger=_SILENT,
    )

    def accepted() -> asyncio.Protocol:
        return server() if len(server.connections) < most else _Dropped()

    async with contextlib.AsyncExitStack() as stack:
        stack.push_async_callback(server.shutdown, STOP_GRACE)
        stack.callback(server.pre_shutdown)
        if tls:
            await stack.enter_async_context(Arrivals(tls, accepted, most, patience, begun, failed).taken(bound))
        else:
            loop = asyncio.get_running_loop()
            listen = loop.create_unix_server if bound.family == socket.AF_UNIX else loop.create_server
            stack.callback((await listen(accepted, sock=bound)).close)
        yield


class _Dropped(asyncio.Protocol):
    """One connection too many."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        transport.abort()


async def whole(request: web.BaseRequest, most: int, patience: float, field: str) -> bytes:
    """All of a body. Raises RequestError for one that is too long (``field``), too slow, or not all there."""
    if (request.content_length or 0) > most:
        raise RequestError(field, f"is longer than {most} bytes")
    found = bytearray()
    try:
        async with asyncio.timeout(patience):
            async for part in request.content.iter_any():
                found += part
                if len(found) > most:
                    raise RequestError(field, f"is longer than {most} bytes")
    except TimeoutError:
        raise RequestError("request", f"did not come within {patience:g} seconds") from None
    except (web.RequestPayloadError, OSError):
        raise RequestError("request", "ended before its end") from None
    return bytes(found)
