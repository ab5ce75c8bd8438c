"""Ending what runs beside decisions, and a start that is not over. Belongs to `main.py`: see there."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Coroutine
from typing import Any, Final, TypeVar

log = logging.getLogger("sidecar")

_AGAIN_AFTER: Final = 1.0  # seconds until a task that was cancelled, and goes on, is cancelled again
_T = TypeVar("_T")


class Stopped(Exception):
    """The end was asked for before the sidecar had begun."""


async def unless(stopping: asyncio.Event, begin: Coroutine[Any, Any, _T]) -> _T:
    """What ``begin`` gives: a policy's gate, say, may take minutes. Raises Stopped: ``stopping`` was set before."""
    beginning, stop = asyncio.create_task(begin), asyncio.create_task(stopping.wait())
    await asyncio.wait({beginning, stop}, return_when=asyncio.FIRST_COMPLETED)
    in_time = beginning.done()
    await ended(stop, *([] if in_time else [beginning]))
    if not in_time and (beginning.cancelled() or beginning.exception()):
        raise Stopped
    return beginning.result()


async def unless_on_thread(stopping: asyncio.Event, begin: Callable[[], _T], break_off: Callable[[], object]) -> _T:
    """As `unless`, of what blocks: it runs on a thread of its own, and ``break_off`` makes it end soon."""
    beginning, stop = asyncio.create_task(asyncio.to_thread(begin)), asyncio.create_task(stopping.wait())
    await asyncio.wait({beginning, stop}, return_when=asyncio.FIRST_COMPLETED)
    if not beginning.done():
        break_off()
        await asyncio.wait({beginning})
        if beginning.exception():
            raise Stopped
    await ended(stop)
    return beginning.result()


async def ended(*tasks: asyncio.Task[Any]) -> None:
    """Cancel them until they have ended: what goes wrong while one ends must not make it forget that it was to."""
    while left := [task for task in tasks if not task.done()]:
        for task in left:
            task.cancel()
        await asyncio.wait(left, timeout=_AGAIN_AFTER)
    for error in [task.exception() for task in tasks if not task.cancelled()]:
        if error is not None:
            log.error("what ran beside decisions ended by a fault (%s)", type(error).__name__)
