"""Judging: ask the engine, and turn every way of not getting a decision into DENY with its reason.

This is the place where nothing may become ALLOW by default. Only a result that the policy gave, in the shape of a
decision, within the time allowed, and that can be recorded as it is, decides.
"""

from __future__ import annotations

import asyncio
from typing import Any

from sidecar.chain import strictjson
from sidecar.decide.entries import Judgement
from sidecar.decide.in_force import InForce
from sidecar.errors import EngineError, EngineTimeout, LedgerError, Malformed, PolicyMisshaped
from sidecar.policy import Engine, Evaluation, PolicyVersion, Reason, Verdict, interpret

MAX_RESULT = 1024 * 1024  # bytes of JSON


async def judge(engine: Engine, in_force: InForce, document: dict[str, Any], timeout: float) -> Judgement:
    """The judgement on one input document, within ``timeout`` seconds.

    Raises:
        LedgerError: the policy that answered had to be recorded first, and could not be.
    """
    version = engine.version
    try:
        in_force.check_fresh()
        async with asyncio.timeout(timeout):
            evaluation = await engine.evaluate(document, timeout)
        version = evaluation.version
        impure = await in_force.check(version)
        return _interpreted(evaluation, tuple(impure))
    except TimeoutError:
        return denied(EngineTimeout("the policy engine did not answer in time"), version)
    except EngineError as error:
        return denied(error, version)
    except LedgerError:
        raise
    except Exception as error:  # an engine that breaks its promise denies like any other fault
        return denied(EngineError(f"the policy engine failed: {type(error).__name__}"), version)


def denied(error: EngineError, version: PolicyVersion, result: object = None) -> Judgement:
    """DENY, for want of a decision."""
    reason = Reason(error.cause, str(error)[:1024] or error.cause)
    return Judgement(Verdict("DENY", (reason,), ()), error.cause, result, version)


def _interpreted(evaluation: Evaluation, impure: tuple[str, ...]) -> Judgement:
    try:
        recordable(evaluation.result)
    except Malformed as error:
        return denied(PolicyMisshaped(f"the policy's result cannot be recorded: {error}"), evaluation.version)
    try:
        verdict = interpret(evaluation.result)
    except PolicyMisshaped as error:
        return denied(error, evaluation.version, evaluation.result)
    return Judgement(verdict, "policy", evaluation.result, evaluation.version, impure)


def recordable(result: object) -> None:
    """Raises Malformed for a result that a payload cannot hold as it is."""
    written = strictjson.dumps(result)
    if len(written) > MAX_RESULT:
        raise Malformed(f"it is longer than {MAX_RESULT} bytes")
    if strictjson.parse_written(written, max_depth=48) != result:
        raise Malformed("it changes when written as JSON")
