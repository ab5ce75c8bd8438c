"""HTTP/1.1 listened for (aiohttp: the extras `authzen` and `mcp`), over TLS or not, on a port or a unix socket.

What is sent here is bounded: heads of 8 KiB a line and 64 lines, bodies as who reads them says, so many connections,
ten seconds for a head and ten for a body; one more is dropped, or answered with an error. So is what is answered: who
takes nothing of it for a minute is dropped. Whatever is sent, the rest of the process goes on.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import math
import socket
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any, Final, cast

from aiohttp import HttpVersion11, web

from sidecar.enforce.arriving import Arrivals
from sidecar.errors import RequestError

MOST_CONNECTIONS: Final = 256
PATIENCE: Final = 10.0  # seconds for a head, a body, a handshake
TAKEN: Final = 60.0  # seconds in which a client takes nothing of what is written
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
    taken: float = TAKEN,
    hangs_up: bool = False,
    begun: Callable[[], object] = lambda: None,
    failed: Callable[[bytes], object] = lambda _: None,
) -> AsyncIterator[None]:
    """Answer on ``bound`` while inside. ``most``: connections at once, and handshakes besides; ``patience``: seconds
    for a head and for a handshake. ``taken``: seconds in which a client takes nothing of its answers, until it is
    dropped. ``hangs_up``: an answer is cancelled when its client is gone. ``begun``, ``failed``: as `Arrivals` has
    them."""
    server, loop = web.Server(answer, handler_cancellation=hangs_up), asyncio.get_running_loop()

    def accepted() -> asyncio.Protocol:
        if len(server.connections) >= most:
            return _Dropped()
        return _Connection(
            server,
            loop=loop,
            taken=taken,
            keepalive_timeout=patience,
            max_headers=64,
            lingering_time=1.0,
            auto_decompress=False,
            access_log=None,
            logger=_SILENT,
        )

    async with contextlib.AsyncExitStack() as stack:
        stack.push_async_callback(server.shutdown, STOP_GRACE)
        stack.callback(server.pre_shutdown)
        if tls:
            await stack.enter_async_context(Arrivals(tls, accepted, most, patience, begun, failed).taken(bound))
        else:
            listen = loop.create_unix_server if bound.family == socket.AF_UNIX else loop.create_server
            stack.callback((await listen(accepted, sock=bound)).close)
        yield


class _Connection(web.RequestHandler):
    """One whose client is to take what it is answered. ``taken``: as `listening` has it."""

    __slots__ = ("_taken", "_watch")

    def __init__(self, manager: web.Server, *, taken: float, **options: Any) -> None:
        super().__init__(manager, **options)
        self._taken = taken
        self._watch: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        super().connection_made(transport)
        to = cast(asyncio.WriteTransport, transport)  # uvloop's over TLS is none by its type
        to.set_write_buffer_limits(1, 0)  # what is held at all is watched, also once the connection is closed

    def pause_writing(self) -> None:
        super().pause_writing()
        self._look(math.inf)

    def resume_writing(self) -> None:
        self._rest()
        super().resume_writing()

    def connection_lost(self, exc: BaseException | None) -> None:
        self._rest()
        super().connection_lost(exc)

    def _look(self, before: float) -> None:
        """Of ``before`` bytes some are taken by now, or its client is gone."""
        if self.transport is None:
            return
        held = self.transport.get_write_buffer_size()
        if held < before:
            self._watch = self._loop.call_later(self._taken, self._look, held)
        else:
            self.transport.abort()

    def _rest(self) -> None:
        if self._watch is not None:
            self._watch.cancel()
            self._watch = None


class _Dropped(asyncio.Protocol):
    """One connection too many."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        cast(asyncio.WriteTransport, transport).abort()


def faulty(request: web.BaseRequest) -> tuple[int, str] | None:
    """Status and cause, where the parser takes what another server in the way could take for something else."""
    codings, expected = (request.headers.getall(name, []) for name in ("transfer-encoding", "expect"))
    if request.version != HttpVersion11:
        return 505, "the version is HTTP/1.1"
    if codings and [each.lower() for each in codings] != ["chunked"]:
        return 400, "transfer-encoding: is not chunked alone"
    if expected and [each.lower() for each in expected] != ["100-continue"]:
        return 417, "expect: is not 100-continue"
    return None


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
