"""Ending what runs beside decisions, and a start that is not over. Belongs to `main.py`: see there."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Coroutine
from typing import Any, Final, TypeVar

from sidecar.client import Source

log = logging.getLogger("sidecar")

_AGAIN_AFTER: Final = 1.0  # seconds until a task that was cancelled, and goes on, is cancelled again
_T = TypeVar("_T")
_Source = TypeVar("_Source", bound=Source[Any])


class Stopped(Exception):
    """The end was asked for before the sidecar had begun."""


async def unless(
    stopping: asyncio.Event, begin: Coroutine[Any, Any, _T], break_off: Callable[[], object] | None = None
) -> _T:
    """What ``begin`` gives: a policy's gate, say, may take minutes. Raises Stopped: ``stopping`` was set before.

    ``break_off`` makes it end soon, in the place of a cancellation, which a thread that it waits for does not hear.
    """
    beginning, stop = asyncio.create_task(begin), asyncio.create_task(stopping.wait())
    await asyncio.wait({beginning, stop}, return_when=asyncio.FIRST_COMPLETED)
    if beginning.done():
        await ended(stop)
        return beginning.result()
    if break_off is None:
        await ended(beginning)
    else:
        break_off()
        await asyncio.wait({beginning})
    if beginning.cancelled() or beginning.exception():
        raise Stopped
    return beginning.result()


async def first(source: _Source, stopping: asyncio.Event) -> _Source:
    """It, once there is material: the SPIFFE agent may take its time. Raises UsageError, and Stopped as `unless`."""
    await unless(stopping, asyncio.to_thread(source.wait), source.close)
    return source


async def ended(*tasks: asyncio.Task[Any]) -> None:
    """Cancel them until they have ended: what goes wrong while one ends must not make it forget that it was to."""
    while left := [task for task in tasks if not task.done()]:
        for task in left:
            task.cancel()
        await asyncio.wait(left, timeout=_AGAIN_AFTER)
    for error in [task.exception() for task in tasks if not task.cancelled()]:
        if error is not None:
            log.error("what ran beside decisions ended by a fault (%s)", type(error).__name__)
