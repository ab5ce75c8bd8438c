"""Small pieces of work for one other thread, handed to it together.

A change of threads costs as much as a quick evaluation. So while the thread is at work what comes is kept, and goes to
it all at once when it is back: the busier the loop, the fewer changes, and the warmer the processor's caches.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Generic, TypeVar

from sidecar.errors import EngineUnavailable

Piece = TypeVar("Piece")
Done = TypeVar("Done")


class Batches(Generic[Piece, Done]):
    """``work`` does one piece on one of ``threads``, at once and without raising. Used on one event loop at a time."""

    def __init__(self, threads: ThreadPoolExecutor, work: Callable[[Piece], Done]) -> None:
        self._threads, self._work = threads, work
        self._kept: list[tuple[Piece, asyncio.Future[Done]]] = []
        self._closed = False
        self.idle = True

    async def do(self, piece: Piece) -> Done:
        """What became of the piece. A piece that nobody waits for any more is left out. Raises EngineUnavailable."""
        loop = asyncio.get_running_loop()
        waiter: asyncio.Future[Done] = loop.create_future()
        self._kept.append((piece, waiter))
        if self.idle:
            self.idle = False
            loop.call_soon(self._hand_over, loop)  # with what else this turn of the loop brings
        return await waiter

    def close(self) -> None:
        """Turn away what is kept and what is to come."""
        self._closed = True
        kept, self._kept = self._kept, []
        for _, waiter in kept:
            if not waiter.done():
                waiter.set_exception(EngineUnavailable("the policy engine is closed"))

    def _hand_over(self, loop: asyncio.AbstractEventLoop) -> None:
        if self._closed:
            self.close()
        kept, self._kept = self._kept, []
        self.idle = not kept
        if kept:
            self._threads.submit(self._work_all, kept, loop)

    def _work_all(self, kept: list[tuple[Piece, asyncio.Future[Done]]], loop: asyncio.AbstractEventLoop) -> None:
        done = [(waiter, self._work(piece)) for piece, waiter in kept if not waiter.done()]
        try:
            loop.call_soon_threadsafe(self._back, done, loop)
        except RuntimeError:  # the loop is closed: nobody waits any more
            self.idle = True

    def _back(self, done: list[tuple[asyncio.Future[Done], Done]], loop: asyncio.AbstractEventLoop) -> None:
        self._hand_over(loop)
        for waiter, result in done:
            if not waiter.done():  # its task may have been cancelled meanwhile
                waiter.set_result(result)
