"""Connections to one server of HTTP/1.1, each carrying one question at a time (`http1`), kept and used again.

Nothing is asked twice: a question whose connection breaks has failed. A connection serves again only after a whole
answer; after anything else, a timeout and cancelling included, it is cut, so that a late answer reaches nobody.
"""

from __future__ import annotations

import asyncio
import functools
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final, cast

from .http1 import NotHttp, Reader, Response, TooLong

CONNECTIONS: Final = 100  # at once; who comes after them waits


@dataclass(frozen=True, slots=True)
class Place:
    """Where the server is: a unix socket's path, or host and port with ``socket`` empty."""

    host: str
    port: int
    socket: str = ""


class Connections:
    """Belongs to the event loop that is running at the first question. ``limit`` as for `Reader`."""

    def __init__(self, place: Place, limit: Callable[[int], int]) -> None:
        self._place, self._limit = place, limit
        self._open: set[_Connection] = set()
        self._idle: dict[_Connection, None] = {}  # the one used last is last
        self._room = asyncio.Semaphore(CONNECTIONS)
        self._closed = False

    async def ask(self, request: bytes) -> Response:
        """Send one request, whole, and wait for its answer; however long: the deadline is the caller's.

        Raises:
            OSError: no connection, or it broke before anything was answered. NotHttp, TooLong: as `Reader.feed`.
        """
        async with self._room:
            connection = self._idle.popitem()[0] if self._idle else await self._connect()
            response = None
            try:
                response = await connection.ask(request)
            finally:
                if response is None or not response.reusable:
                    connection.cut()
                elif connection in self._open:
                    self._idle[connection] = None
            return response

    def close(self) -> None:
        """Cut every connection, also one being made; who waits for an answer gets a `ConnectionError`."""
        self._closed = True
        for connection in list(self._open):
            connection.cut()

    def opened(self, connection: _Connection) -> None:
        """A connection can carry a question."""
        self._open.add(connection)
        if self._closed:
            connection.cut()

    def lost(self, connection: _Connection) -> None:
        """It can carry nothing more. May be told twice."""
        self._open.discard(connection)
        self._idle.pop(connection, None)

    async def _connect(self) -> _Connection:
        loop, place = asyncio.get_running_loop(), self._place
        made = functools.partial(_Connection, self, self._limit)
        if place.socket:
            _, connection = await loop.create_unix_connection(made, place.socket)
        else:
            _, connection = await loop.create_connection(made, place.host, place.port)
        return connection


class _Connection(asyncio.Protocol):
    """One connection of a pool."""

    def __init__(self, pool: Connections, limit: Callable[[int], int]) -> None:
        self._pool, self._limit = pool, limit
        self._transport: asyncio.WriteTransport | None = None
        self._reader: Reader | None = None
        self._waiter: asyncio.Future[Response] | None = None

    async def ask(self, request: bytes) -> Response:
        if self._transport is None:
            raise ConnectionResetError
        self._reader = Reader(self._limit)
        self._waiter = asyncio.get_running_loop().create_future()
        self._transport.write(request)
        return await self._waiter

    def cut(self) -> None:
        """Let go of it at once; what was not sent yet never is."""
        transport, self._transport = self._transport, None
        self._pool.lost(self)
        self._settle(ConnectionResetError())
        if transport is not None:
            transport.abort()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.WriteTransport", transport)  # uvloop's is one without saying so
        self._pool.opened(self)

    def data_received(self, data: bytes) -> None:
        if self._reader is None:  # nothing was asked
            self.cut()
            return
        try:
            response = self._reader.feed(data)
        except (NotHttp, TooLong) as error:
            self._settle(error)
            self.cut()
            return
        if response is not None:
            self._settle(response)

    def connection_lost(self, _error: Exception | None) -> None:
        if self._reader is not None and self._reader.started:
            self._settle(NotHttp("the answer was cut short"))
        self.cut()

    def _settle(self, outcome: Response | Exception) -> None:
        waiter, self._waiter, self._reader = self._waiter, None, None
        if waiter is None or waiter.done():
            return
        if isinstance(outcome, Exception):
            waiter.set_exception(outcome)
        else:
            waiter.set_result(outcome)
