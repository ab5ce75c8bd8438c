"""What comes while the thread is at work goes to it together; nothing is lost, done for nobody, or left waiting."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Coroutine
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from sidecar.errors import EngineUnavailable
from sidecar.policy.wasm_batches import Batches

PATIENCE = 60.0


class Work:
    """Says when it has begun, and goes on when it may."""

    def __init__(self) -> None:
        self.begun, self.may = threading.Event(), threading.Event()
        self.done: list[int] = []

    def __call__(self, number: int) -> int:
        self.begun.set()
        assert self.may.wait(PATIENCE)
        self.done.append(number)
        return -number


def with_batches(body: Callable[[Batches[int, int], Work], Coroutine[Any, Any, None]]) -> None:
    work = Work()

    async def run() -> None:
        with ThreadPoolExecutor(2) as threads:
            try:
                await body(Batches(threads, work), work)
            finally:
                work.may.set()

    asyncio.run(asyncio.wait_for(run(), PATIENCE))


async def at_work(batches: Batches[int, int], work: Work, *numbers: int) -> list[asyncio.Task[int]]:
    """The first is at work, the others are kept."""
    tasks = [asyncio.create_task(batches.do(numbers[0]))]
    await asyncio.to_thread(work.begun.wait, PATIENCE)
    tasks += [asyncio.create_task(batches.do(number)) for number in numbers[1:]]
    await asyncio.sleep(0)  # each has asked
    return tasks


def test_what_is_kept_is_done_in_order_without_what_nobody_waits_for() -> None:
    async def body(batches: Batches[int, int], work: Work) -> None:
        tasks = await at_work(batches, work, 1, 2, 3, 4)
        tasks[2].cancel()
        await asyncio.sleep(0)
        assert not batches.idle
        work.may.set()
        assert await asyncio.gather(*(tasks[n] for n in (0, 1, 3))) == [-1, -2, -4]
        assert work.done == [1, 2, 4]
        await asyncio.sleep(0)
        assert batches.idle
        assert await batches.do(5) == -5

    with_batches(body)


def test_closing_turns_away_what_is_kept_and_what_comes() -> None:
    async def body(batches: Batches[int, int], work: Work) -> None:
        tasks = await at_work(batches, work, 1, 2)
        batches.close()
        with pytest.raises(EngineUnavailable):
            await tasks[1]
        work.may.set()
        assert await tasks[0] == -1
        with pytest.raises(EngineUnavailable):
            await batches.do(3)
        assert work.done == [1]

    with_batches(body)
