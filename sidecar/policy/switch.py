"""An engine that stands for another, which can be put in another's place while decisions are made."""

from __future__ import annotations

import asyncio
from typing import Any

from sidecar.errors import EngineUnavailable

from .engine import Engine, Evaluation, PolicyVersion, check_entrypoint


class Retired:
    """An engine that is asked no more: it is closed when the last evaluation begun with it has ended."""

    def __init__(self, held: _Held | None) -> None:
        self._held = held

    async def gone(self) -> None:
        """Return when it is closed."""
        if self._held is not None:
            await self._held.idle.wait()
            await self._held.engine.close()


class Switch:
    """See `Engine`. Evaluations go to the engine put last; without one, they raise `EngineUnavailable`.

    Used on the event loop's thread alone.
    """

    def __init__(self, kind: str, entrypoint: str) -> None:
        """``kind``: the engine's name ("opa" or "wasm"), said while there is none. Raises `UsageError`."""
        check_entrypoint(entrypoint)
        self._none = PolicyVersion(kind, "", entrypoint, "", "")
        self._held: _Held | None = None
        self._closed = False

    @property
    def version(self) -> PolicyVersion:
        """Of the engine that is asked now."""
        return self._held.engine.version if self._held else self._none

    @property
    def engine(self) -> Engine | None:
        """The engine that is asked now."""
        return self._held.engine if self._held else None

    def put(self, engine: Engine) -> Retired:
        """Ask ``engine`` from now on, and close it in the end; gives the one before."""
        before, self._held = self._held, _Held(engine)
        if before is not None:
            before.retire()
        return Retired(before)

    async def evaluate(self, document: dict[str, Any], timeout: float) -> Evaluation:
        """See `Engine.evaluate`."""
        held = self._current()
        held.users += 1
        try:
            return await held.engine.evaluate(document, timeout)
        finally:
            held.users -= 1
            held.look()

    async def ready(self) -> None:
        """See `Engine.ready`."""
        await self._current().engine.ready()

    async def close(self) -> None:
        """See `Engine.close`."""
        self._closed = True
        if self._held is not None:
            await self._held.engine.close()

    def _current(self) -> _Held:
        if self._held is None or self._closed:
            raise EngineUnavailable(
                "the policy engine is closed" if self._closed else "no policy is in force yet; see the sidecar's log"
            )
        return self._held


class _Held:
    """An engine and how many evaluations it is at."""

    def __init__(self, engine: Engine) -> None:
        self.engine = engine
        self.users = 0
        self.idle = asyncio.Event()
        self._retired = False

    def retire(self) -> None:
        self._retired = True
        self.look()

    def look(self) -> None:
        if self._retired and self.users == 0:
            self.idle.set()
