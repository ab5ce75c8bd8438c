"""Running recorded or written inputs again: the one place that puts an input document to an engine and keeps what came.

The gate's expectations, `policy diff` and replay use it. Like the decision path it makes DENY of everything that is
not plainly a decision, and says by which cause.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncGenerator, Iterable
from dataclasses import dataclass
from typing import Any, Final

from sidecar.errors import EngineError

from .engine import Engine, PolicyVersion
from .verdict import Effect, Reason, Verdict, interpret

DECIDED: Final = "policy"


@dataclass(frozen=True, slots=True)
class Rerun:
    """What one input gave: the verdict, the policy's whole ``result``, under which ``version``.

    ``cause`` is "policy" when the policy decided; else the engine error's stable word, the verdict is DENY for that
    reason, and ``result`` is what was misshapen, or None.
    """

    verdict: Verdict
    result: object
    version: PolicyVersion
    cause: str

    @property
    def decided(self) -> bool:
        """Whether the policy itself gave this verdict."""
        return self.cause == DECIDED

    @property
    def effect(self) -> Effect:
        """What came out."""
        return self.verdict.effect

    @property
    def codes(self) -> tuple[str, ...]:
        """The reasons' codes, in the policy's order."""
        return tuple(reason.code for reason in self.verdict.reasons)


async def rerun(
    engine: Engine, documents: Iterable[dict[str, Any]], *, timeout: float = 5.0, at_once: int = 16
) -> AsyncGenerator[Rerun, None]:
    """Evaluate each document and yield what it gave, in their order.

    ``timeout`` is seconds for each; ``at_once`` of them are under way and no more are taken from ``documents``, which
    may be of any length. Raises nothing of the engine's; left early, it cancels what is under way.
    """
    if timeout <= 0 or at_once < 1:
        raise ValueError("timeout must be above 0 and at_once at least 1")
    under_way: deque[asyncio.Task[Rerun]] = deque()
    try:
        for document in documents:
            under_way.append(asyncio.create_task(_one(engine, document, timeout)))
            if len(under_way) >= at_once:
                yield await under_way.popleft()
        while under_way:
            yield await under_way.popleft()
    finally:
        for task in under_way:
            task.cancel()
        await asyncio.gather(*under_way, return_exceptions=True)


async def _one(engine: Engine, document: dict[str, Any], timeout: float) -> Rerun:
    version, result = engine.version, None
    try:
        answer = await engine.evaluate(document, timeout)
        version, result = answer.version, answer.result
        return Rerun(interpret(result), result, version, DECIDED)
    except EngineError as error:
        because = Reason(error.cause, str(error)[:1024] or error.cause)
        return Rerun(Verdict("DENY", (because,), ()), result, version, error.cause)
