"""Engines of archived policies, for re-running what they decided: bundles kept in files, the last few used running."""

from __future__ import annotations

import contextlib
import hashlib
import re
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path
from typing import Final

from sidecar.errors import PolicyLoadError, UsageError
from sidecar.policy import Engine, OpaProgram, archived_opa, archived_wasm

_MOST_KEPT: Final = 4 << 30  # bytes of bundles
_RUNNING: Final = 3  # engines that are kept
_HEX32: Final = re.compile(r"[0-9a-f]{64}")

ArchivedPolicy = tuple[str, str, str]
"""Engine, entry point, and the bundle's SHA-256 in hex, as a DECISION names them."""


class Engines:
    """Engines by policy: the last few used keep running. Bundles lie in ``place`` under their digests."""

    def __init__(self, program: Callable[[], OpaProgram], place: Path, stack: contextlib.AsyncExitStack) -> None:
        self._program, self._place, self._stack = program, place, stack
        self._running: OrderedDict[ArchivedPolicy, tuple[Engine, contextlib.AsyncExitStack]] = OrderedDict()
        self._useless: dict[ArchivedPolicy, str] = {}
        self._kept = 0

    def keep(self, bundle: bytes) -> None:
        """An attachment of the stream; beyond `_MOST_KEPT` bytes in all they are passed over, and so not here."""
        self._kept += len(bundle)
        if self._kept <= _MOST_KEPT:
            (self._place / hashlib.sha256(bundle).hexdigest()).write_bytes(bundle)

    async def get(self, policy: ArchivedPolicy) -> Engine:
        """The engine that decides by this policy. Raises PolicyLoadError or UsageError, each time anew."""
        if policy in self._useless:
            raise PolicyLoadError(self._useless[policy])
        if policy in self._running:
            self._running.move_to_end(policy)
            return self._running[policy][0]
        try:
            engine, own = await self._start(policy)
        except (PolicyLoadError, UsageError) as error:
            self._useless[policy] = str(error)
            raise
        while len(self._running) >= _RUNNING:
            await self._running.popitem(last=False)[1][1].aclose()
        self._running[policy] = engine, own
        return engine

    async def _start(self, policy: ArchivedPolicy) -> tuple[Engine, contextlib.AsyncExitStack]:
        engine, entrypoint, digest = policy
        own = contextlib.AsyncExitStack()
        self._stack.push_async_callback(own.aclose)
        packed = self._bundle(digest)
        if engine == "wasm":
            return await own.enter_async_context(archived_wasm(packed, entrypoint)), own
        if engine == "opa":
            return await own.enter_async_context(archived_opa(self._program(), packed, entrypoint)), own
        raise PolicyLoadError(f"the engine {engine[:64]!r} is none of ours")

    def _bundle(self, digest: str) -> bytes:
        if not _HEX32.fullmatch(digest):
            raise PolicyLoadError("the record names no bundle: an OPA that others feed does not show what it serves")
        try:
            return (self._place / digest).read_bytes()
        except FileNotFoundError:
            raise PolicyLoadError(f"the bundle {digest[:16]}… is not here; give the whole ledger") from None
