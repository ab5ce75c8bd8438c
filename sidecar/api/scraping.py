"""The small HTTP listener that Prometheus scrapes: `GET /metrics`, and nothing else (RFC 9112).

It is never on the decision socket. One request a connection, a few connections at once, a bounded head, a few seconds
for everything: whatever is sent here, decisions go on.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable
from typing import Final

from sidecar.api.metrics import CONTENT_TYPE
from sidecar.errors import UsageError

MAX_HEAD: Final = 8 * 1024  # bytes of request line and headers
MAX_AT_ONCE: Final = 16  # connections; one more is dropped
PATIENCE: Final = 5.0  # seconds from connecting to the last byte taken

_REASONS: Final = {200: "OK", 400: "Bad Request", 404: "Not Found", 405: "Method Not Allowed"}

Page = Callable[[], bytes]


@contextlib.asynccontextmanager
async def scraped(page: Page, host: str, port: int) -> AsyncIterator[str]:
    """Serve ``page()`` while inside; gives the page's URL (a port 0 becomes the one that was had).

    Raises:
        UsageError: the address cannot be had.
    """
    calls = _Calls(page)
    try:
        server = await asyncio.start_server(calls.one, host, port, limit=MAX_HEAD)
    except OSError as error:
        raise UsageError(f"cannot serve metrics on {host}:{port}: {error.strerror or 'no such address'}") from None
    at = server.sockets[0].getsockname()
    try:
        yield f"http://{f'[{at[0]}]' if ':' in at[0] else at[0]}:{at[1]}/metrics"
    finally:
        server.close()
        await calls.end()


class _Calls:
    """The connections under way."""

    def __init__(self, page: Page) -> None:
        self._page = page
        self._tasks: set[asyncio.Task[None]] = set()

    async def one(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """One connection, from its first byte to its end."""
        task = asyncio.current_task()
        assert task is not None
        if len(self._tasks) >= MAX_AT_ONCE:
            writer.transport.abort()
            return
        self._tasks.add(task)
        try:
            async with asyncio.timeout(PATIENCE):
                await self._exchange(reader, writer)
        except (TimeoutError, OSError, EOFError, asyncio.CancelledError):
            writer.transport.abort()
        finally:
            self._tasks.discard(task)
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
        writer.write(self._answer(head))
        await writer.drain()

    def _answer(self, head: bytes) -> bytes:
        method, _, rest = head.partition(b"\r\n")[0].partition(b" ")
        target, _, version = rest.partition(b" ")
        if version not in (b"HTTP/1.1", b"HTTP/1.0"):
            return _response(400)
        if target.partition(b"?")[0] != b"/metrics":
            return _response(404)
        return _response(200, self._page()) if method == b"GET" else _response(405)


def _response(status: int, body: bytes = b"") -> bytes:
    lines = [f"HTTP/1.1 {status} {_REASONS[status]}", "Connection: close", f"Content-Length: {len(body)}"]
    if status == 200:
        lines += [f"Content-Type: {CONTENT_TYPE}", "Cache-Control: no-store"]
    if status == 405:
        lines.append("Allow: GET")
    return "\r\n".join([*lines, "", ""]).encode() + body
