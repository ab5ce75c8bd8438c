"""Nothing but a policy's own, well-formed, timely, recordable answer becomes ALLOW."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Callable

import orjson
import pytest

from sidecar.chain.payload import CAUSES
from sidecar.decide.entries import Judgement
from sidecar.decide.judge import judge
from sidecar.errors import EngineError, EngineTimeout, EngineUnavailable, PolicyUndefined
from sidecar.policy import Engine
from tests.decide.engines import ALLOW, AnyPolicy, HangingEngine, ScriptedEngine


def judged(script: Callable[[dict[str, object]], object]) -> Judgement:
    return asyncio.run(asked(ScriptedEngine(script), {"action": "x"}, 5.0))


async def asked(engine: Engine, document: dict[str, object], timeout: float) -> Judgement:
    """Judged by a policy that may decide."""
    return await judge(engine, AnyPolicy(), document, timeout)


def raising(error: BaseException) -> Callable[[dict[str, object]], object]:
    def script(_: dict[str, object]) -> object:
        raise error

    return script


def test_a_policys_allow_is_an_allow() -> None:
    result = judged(lambda _: ALLOW)
    assert (result.verdict.effect, result.cause, result.result) == ("ALLOW", "policy", ALLOW)


@pytest.mark.parametrize(
    ("error", "cause"),
    [
        (EngineError("x"), "engine_error"),
        (EngineTimeout("x"), "engine_timeout"),
        (EngineUnavailable("x"), "engine_unavailable"),
        (PolicyUndefined("x"), "policy_undefined"),
        (RuntimeError("an engine that breaks its promise"), "engine_error"),
        (RecursionError(), "engine_error"),
    ],
)
def test_every_engine_fault_is_a_recorded_deny(error: Exception, cause: str) -> None:
    result = judged(raising(error))
    assert (result.verdict.effect, result.cause) == ("DENY", cause)
    assert result.verdict.reasons[0].code == cause
    assert cause in CAUSES


@pytest.mark.parametrize(
    "result",
    [
        None,
        True,
        "ALLOW",
        [ALLOW],
        {},
        {"effect": "allow", "reasons": []},
        {"effect": "ALLOW"},
        {"effect": ["ALLOW"], "reasons": []},
        {**ALLOW, "obligations": [{"kind": 1}]},
        {**ALLOW, "score": math.nan},
        {**ALLOW, "score": math.inf},
        {**ALLOW, "big": 2**53},
        {**ALLOW, "text": "\ud800"},
        {**ALLOW, "text": "\ufdd0"},
        {**ALLOW, 1: "a key that is no string"},
        {**ALLOW, "pair": (1, 2)},
        {**ALLOW, "text": orjson.Fragment(b"no JSON")},
        {**ALLOW, "text": orjson.Fragment(b'{"a":1,"a":2}')},
        {**ALLOW, "long": "x" * (1024 * 1024)},
    ],
)
def test_anything_odd_is_a_deny(result: object) -> None:
    assert judged(lambda _: result).verdict.effect == "DENY"
    assert judged(lambda _: result).cause == "policy_misshaped"


@pytest.mark.parametrize(("deep", "cause"), [(47, "policy"), (48, "policy_misshaped"), (100, "policy_misshaped")])
def test_a_deeply_nested_result_is_a_deny(deep: int, cause: str) -> None:
    value: object = 0
    for _ in range(deep):
        value = [value]
    assert judged(lambda _: {**ALLOW, "deep": value}).cause == cause


def test_an_engine_that_never_answers_is_a_deny() -> None:
    async def ask() -> Judgement:
        return await asked(HangingEngine(), {}, 0.01)

    assert asyncio.run(ask()).cause == "engine_timeout"


def test_cancellation_goes_through() -> None:
    async def ask() -> None:
        engine = HangingEngine()
        task = asyncio.create_task(asked(engine, {}, 60.0))
        await engine.asked.wait()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    asyncio.run(ask())
