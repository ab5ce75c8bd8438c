"""Following the registry's file: what is found there is put in force or refused; on record either way.

A file that is broken or gone leaves the registry in force as it was. How soon a change counts: within a second.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Final, Protocol

from sidecar.decide.in_force import InForce
from sidecar.decide.registered import Registered
from sidecar.errors import LedgerError, Malformed, UsageError
from sidecar.identity import RegistryFile

log = logging.getLogger("sidecar.registry")

EVERY: Final = 1.0  # seconds between two looks
_KIND: Final = "file"


class RegistryCounted(Protocol):
    """Who counts what came of looking at the file; must neither block nor raise."""

    def registry_event(self, event: str) -> None:
        """``event``: activated, refused, unreachable or failed."""
        ...


class RegistryFollower:
    """Looks at the file again and again; ``sleep`` takes seconds."""

    def __init__(
        self,
        file: RegistryFile,
        in_force: InForce,
        counted: RegistryCounted,
        *,
        sleep: Callable[[float], Awaitable[object]] = asyncio.sleep,
    ) -> None:
        self._file, self._in_force, self._counted, self._sleep = file, in_force, counted, sleep
        self._told = ""
        # Of its own: in the loop's, what agents ask for could stand before the registry that bars them.
        self._thread = ThreadPoolExecutor(1, "registry")

    @property
    def broken(self) -> bool:
        """Whether the file cannot be read, or holds no registry: the one before is in force."""
        return bool(self._told)

    async def first(self) -> None:
        """Put what is there in force. Raises UsageError: there is nothing, or it is no registry."""
        try:
            await self._take()
        except Malformed as error:
            raise UsageError(f"registry {self._file.path}: {error}; run `sidecar agents list` on it") from None

    async def follow(self) -> None:
        """Look until cancelled. Whatever goes wrong is recorded or logged once, counted, and tried again."""
        while True:
            await self._sleep(EVERY)
            await self.look()

    async def look(self) -> None:
        """Look once."""
        try:
            await self._take()
        except Malformed as error:
            await self._refuse(str(error))
        except UsageError as error:
            self._say("unreachable", str(error))
        except LedgerError as error:
            self._say("failed", str(error))

    async def _take(self) -> None:
        found = await asyncio.get_running_loop().run_in_executor(self._thread, self._file.look)
        if found is None:
            return
        current = self._in_force.registry
        if current is None or current.read.digest != found.digest:
            await self._in_force.put_registry(Registered(found, _KIND, str(self._file.path)))
            self._counted.registry_event("activated")
            log.info("a registry of %d principals is in force, digest %s", len(found.principals), found.digest)
        self._told = ""

    async def _refuse(self, cause: str) -> None:
        self._say("refused", cause)
        try:
            await self._in_force.refuse_registry(_KIND, str(self._file.path), cause)
        except LedgerError as error:
            log.error("a refused registry could not be recorded: %s", error)

    def _say(self, event: str, cause: str) -> None:
        if self._told != cause:
            self._told = cause
            log.error("the registry in force stays: %s", cause)
            self._counted.registry_event(event)
