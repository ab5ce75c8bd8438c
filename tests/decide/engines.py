"""Engines that do what a test tells them: the faults that a real engine cannot be made to show on command."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from typing import Any

from sidecar.decide import InForce
from sidecar.errors import EngineUnavailable
from sidecar.ledger import Ledger
from sidecar.policy import Evaluation, PolicyVersion, Switch

VERSION = PolicyVersion("wasm", "test 1", "agents/decision", "revision-1", "ab" * 32)
ALLOW = {"effect": "ALLOW", "reasons": [{"code": "granted", "message": "a test allows it"}]}


class AnyPolicy(InForce):
    """Every policy may decide: for tests of other things."""

    def __init__(self, ledger: Ledger | None = None) -> None:
        super().__init__(Switch("wasm", "agents/decision"), ledger)  # type: ignore[arg-type]  # asked for registries

        self.deciding = VERSION

    @property
    def current(self) -> PolicyVersion:
        return self.deciding

    async def check(self, version: PolicyVersion) -> Sequence[str]:
        return ()


class ScriptedEngine:
    """Answers what ``script(document)`` gives, or raises what it raises."""

    def __init__(self, script: Callable[[dict[str, Any]], object]) -> None:
        self._script = script
        self.seen: list[dict[str, Any]] = []
        self.up = True

    @property
    def version(self) -> PolicyVersion:
        return VERSION

    async def evaluate(self, document: dict[str, Any], timeout: float) -> Evaluation:
        self.seen.append(document)
        return Evaluation(self._script(document), VERSION)

    async def ready(self) -> None:
        if not self.up:
            raise EngineUnavailable("the engine is down")

    async def close(self) -> None:
        pass


class HangingEngine(ScriptedEngine):
    """Never answers."""

    def __init__(self) -> None:
        super().__init__(lambda _: ALLOW)
        self.asked = asyncio.Event()

    async def evaluate(self, document: dict[str, Any], timeout: float) -> Evaluation:
        self.asked.set()
        await asyncio.Event().wait()
        raise AssertionError("unreachable")
