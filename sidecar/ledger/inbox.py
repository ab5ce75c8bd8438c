"""Between callers and the writer's thread: a bounded queue in, answers out."""

from __future__ import annotations

import asyncio
import threading
from collections import deque
from collections.abc import Iterable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from typing import Final

from sidecar.errors import LedgerError
from sidecar.ledger.clock import Clock
from sidecar.ledger.draft import Prepared, Recorded

MAX_BYTES_WAITING: Final = 64 * 1024 * 1024
MAX_GROUP_BYTES: Final = 16 * 1024 * 1024

Answer = Recorded | LedgerError
Waiter = Future[Recorded] | asyncio.Future[Recorded]


@dataclass(frozen=True, slots=True)
class Item:
    """An entry to be written, and who waits for it (nobody, for the writer's own)."""

    entry: Prepared
    waiter: Waiter | None = None


class Inbox:
    """Callers put, the writer takes. It is shut once, and says why from then on."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._condition = threading.Condition()
        self._items: deque[Item] = deque()
        self._bytes = 0
        self._shut: LedgerError | None = None
        self._sleeping = False

    @property
    def depth(self) -> int:
        """How many wait."""
        return len(self._items)

    def put(self, item: Item) -> bool:
        """Queue an item; whether the writer sleeps, and is to be woken.

        Raises:
            LedgerError: too much waits already, or the ledger is closed or has failed.
        """
        size = _size(item)
        with self._condition:
            if self._shut is not None:
                raise again(self._shut)
            if len(self._items) >= self._limit or self._bytes + size > MAX_BYTES_WAITING:
                raise LedgerError("the disk cannot keep up: too many entries are waiting; try again later")
            self._items.append(item)
            self._bytes += size
            return self._sleeping

    def wake(self) -> None:
        """Have the writer look at what waits."""
        with self._condition:
            self._sleeping = False
            self._condition.notify()

    def take(self, most: int, clock: Clock, until_mono_ns: int) -> tuple[list[Item], bool]:
        """Up to ``most`` items, waiting for the first until then at most; and whether the inbox is shut and empty."""
        taken: list[Item] = []
        size = 0
        with self._condition:
            if not self._items and self._shut is None:
                self._sleeping = True
                clock.wait(self._condition, until_mono_ns)
                self._sleeping = False
            while self._items and len(taken) < most and size < MAX_GROUP_BYTES:
                item = self._items.popleft()
                taken.append(item)
                size += _size(item)
            self._bytes -= size
            return taken, self._shut is not None and not self._items

    def shut(self, why: LedgerError) -> None:
        """Take nothing more; what waits already may still be taken."""
        with self._condition:
            self._shut = self._shut or why
            self._condition.notify_all()

    def fail(self, why: LedgerError) -> list[Item]:
        """Take nothing more and give what waits."""
        with self._condition:
            self._shut = why
            items = list(self._items)
            self._items.clear()
            self._bytes = 0
            return items


def _size(item: Item) -> int:
    return len(item.entry.payload) + (len(item.entry.attachment[1]) if item.entry.attachment else 0)


def release(answers: Iterable[tuple[Waiter | None, Answer]]) -> None:
    """Give each waiter its answer; one call into each event loop."""
    loops: dict[asyncio.AbstractEventLoop, list[tuple[asyncio.Future[Recorded], Answer]]] = {}
    for waiter, answer in answers:
        if isinstance(waiter, Future):
            _settle(waiter, answer)
        elif waiter is not None:
            loops.setdefault(waiter.get_loop(), []).append((waiter, answer))
    for loop, settled in loops.items():
        try:
            loop.call_soon_threadsafe(_settle_all, settled)
        except RuntimeError:
            continue  # the loop is closed: nobody is left to be told; the entries stand


def refuse(items: Sequence[Item], error: LedgerError) -> None:
    """Answer every item with its own copy of an error."""
    release([(item.waiter, again(error)) for item in items])


def again(error: LedgerError) -> LedgerError:
    """The same error as a new object: one raised in many places would gather all their tracebacks."""
    return type(error)(*error.args)


def _settle_all(settled: list[tuple[asyncio.Future[Recorded], Answer]]) -> None:
    for waiter, answer in settled:
        if not waiter.done():  # its task may have been cancelled meanwhile
            _settle(waiter, answer)


def _settle(waiter: Waiter, answer: Answer) -> None:
    if isinstance(answer, Recorded):
        waiter.set_result(answer)
    else:
        waiter.set_exception(answer)
