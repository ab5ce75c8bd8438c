"""Connections until TLS has let them in: how many at once, for how long, and what was wrong with those that failed.

A listener of asyncio's own with TLS tells nobody of a handshake that failed, and counts none that is under way.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
import ssl
from collections.abc import AsyncIterator, Callable
from typing import Final

_AGAIN: Final = 0.5  # seconds, where the process may open no more


class Arrivals:
    """Makes each connection one of HTTP once its handshake is done. ``most``: under way at once; for one more, the one
    that took longest is dropped, so that who never ends a handshake keeps nobody out."""

    def __init__(
        self,
        tls: ssl.SSLContext,
        http: Callable[[], asyncio.Protocol],
        most: int,
        patience: float,
        begun: Callable[[], object],
        failed: Callable[[bytes], object],
    ) -> None:
        """``patience``: seconds for a handshake. ``begun``: told of each; ``failed``: of each that TLS ended, with what
        OpenSSL said."""
        self._tls, self._http, self._most, self._patience = tls, http, most, patience
        self._begun, self._failed = begun, failed
        self._under_way: dict[asyncio.Task[None], None] = {}

    @contextlib.asynccontextmanager
    async def taken(self, bound: socket.socket) -> AsyncIterator[None]:
        """Take connections of a listening socket while inside."""
        bound.setblocking(False)
        taking = asyncio.create_task(self._take(bound))
        try:
            yield
        finally:
            tasks = [taking, *self._under_way]
            for task in tasks:
                task.cancel()
            await asyncio.wait(tasks)

    async def _take(self, bound: socket.socket) -> None:
        while True:
            try:
                arrived, _ = await asyncio.get_running_loop().sock_accept(bound)
            except OSError:
                await asyncio.sleep(_AGAIN)
                continue
            if len(self._under_way) >= self._most:
                oldest = next(iter(self._under_way))
                del self._under_way[oldest]
                oldest.cancel()
            task = asyncio.create_task(self._secure(arrived))
            self._under_way[task] = None
            task.add_done_callback(lambda done: self._under_way.pop(done, None))
            await asyncio.sleep(0)  # it begins, however many come at once

    async def _secure(self, arrived: socket.socket) -> None:
        self._begun()
        try:
            await asyncio.get_running_loop().connect_accepted_socket(
                self._http, arrived, ssl=self._tls, ssl_handshake_timeout=self._patience
            )
        except ssl.SSLError as error:
            self._failed(str(error).encode())
        except OSError:
            pass  # gone, or too slow
