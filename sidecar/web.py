"""A small HTTP listener that answers GET with whole bodies, and nothing else (RFC 9112): metrics, a log's tiles.

One request a connection, a bounded number of connections at once, a bounded head, a few seconds for everything:
whatever is sent here, the rest of the process goes on. Where there are too many, the oldest is broken off: whoever
holds connections and says nothing does not keep a probe of Kubernetes out, which would end the process.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Final, NamedTuple

from sidecar.errors import UsageError

MAX_HEAD: Final = 8 * 1024  # bytes of request line and headers
PATIENCE: Final = 5.0  # seconds from connecting to the last byte taken

_REASONS: Final = {
    200: "OK", 400: "Bad Request", 404: "Not Found", 405: "Method Not Allowed", 503: "Service Unavailable",
}  # fmt: skip
TEXT: Final = "text/plain; charset=utf-8"


class Found(NamedTuple):
    """What is at a path; ``status`` 200 or 503."""

    body: bytes
    content_type: str
    status: int = 200


Look = Callable[[str], Awaitable[Found | None]]
"""What is at a path, without its query; None: nothing is."""


@contextlib.asynccontextmanager
async def browsed(look: Look, host: str, port: int, what: str, at_once: int) -> AsyncIterator[str]:
    """Serve what ``look`` finds while inside; gives the URL without a path (a port 0 becomes the one that was had).

    ``what``: what is served, for messages. ``at_once``: connections; for one more the oldest is broken off.

    Raises:
        UsageError: the address cannot be had.
    """
    calls = _Calls(look, at_once)
    try:
        server = await asyncio.start_server(calls.one, host, port, limit=MAX_HEAD)
    except OSError as error:
        raise UsageError(f"cannot serve {what} on {host}:{port}: {error.strerror or 'no such address'}") from None
    at = server.sockets[0].getsockname()
    try:
        yield f"http://{f'[{at[0]}]' if ':' in at[0] else at[0]}:{at[1]}"
    finally:
        server.close()
        await calls.end()


class _Calls:
    """The connections under way."""

    def __init__(self, look: Look, at_once: int) -> None:
        self._look, self._at_once = look, at_once
        self._tasks: dict[asyncio.Task[None], None] = {}  # the oldest first

    async def one(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """One connection, from its first byte to its end."""
        task = asyncio.current_task()
        assert task is not None
        if len(self._tasks) >= self._at_once:
            oldest = next(iter(self._tasks))
            del self._tasks[oldest]
            oldest.cancel()
        self._tasks[task] = None
        try:
            async with asyncio.timeout(PATIENCE):
                await self._exchange(reader, writer)
        except (TimeoutError, OSError, EOFError, asyncio.CancelledError):
            writer.transport.abort()
        finally:
            self._tasks.pop(task, None)
            writer.close()

    async def end(self) -> None:
        """Break off what is under way."""
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _exchange(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            head = await reader.readuntil(b"\r\n\r\n")
        except asyncio.LimitOverrunError:
            head = b""
        writer.transport.set_write_buffer_limits(high=0)  # so that draining waits for the last byte
        writer.write(await self._answer(head))
        await writer.drain()

    async def _answer(self, head: bytes) -> bytes:
        method, _, rest = head.partition(b"\r\n")[0].partition(b" ")
        target, _, version = rest.partition(b" ")
        if version not in (b"HTTP/1.1", b"HTTP/1.0"):
            return _response(400)
        found = await self._look(target.partition(b"?")[0].decode("ascii", "replace"))
        if found is None:
            return _response(404)
        return _response(found.status, found.body, found.content_type) if method == b"GET" else _response(405)


def _response(status: int, body: bytes = b"", content_type: str = "") -> bytes:
    lines = [f"HTTP/1.1 {status} {_REASONS[status]}", "Connection: close", f"Content-Length: {len(body)}"]
    if content_type:
        lines += [f"Content-Type: {content_type}", "Cache-Control: no-store"]
    if status == 405:
        lines.append("Allow: GET")
    return "\r\n".join([*lines, "", ""]).encode() + body
