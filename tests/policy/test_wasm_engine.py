"""The embedded engine: its limits hold, and what broke one evaluation does not reach the next."""

from __future__ import annotations

import asyncio
import hashlib
from typing import Any

import pytest

from sidecar.errors import EngineError, EngineTimeout, EngineUnavailable, PolicyLoadError, PolicyUndefined
from sidecar.policy import STARTER_BUNDLE, STARTER_ENTRYPOINT, WasmEngine
from tests.policy.processes import stop
from tests.wasm.processes import beside

from .conftest import Build

POLICY = """package p

decision := {"echo": input.arguments} if not input.arguments.mode

decision := {"n": n} if {
	input.arguments.mode == "spin"
	many := numbers.range(0, 20000)
	n := count([1 | some a in many; some b in many; a == b; a < 0])
}

decision := {"n": n} if {
	input.arguments.mode == "eat"
	n := count([a | some a in numbers.range(0, 50000000)])
}

decision := 1 if input.arguments.mode == "conflict"

decision := 2 if input.arguments.mode == "conflict"

decision := time.clock(input.arguments.ns) if input.arguments.mode == "builtin"
"""
ENTRYPOINT = "p/decision"


@pytest.fixture(scope="module")
def bundle(build: Build) -> bytes:
    return build(POLICY, ENTRYPOINT, revision="r7")


def mode(name: str, **more: Any) -> dict[str, Any]:
    return {"arguments": {"mode": name, **more}}


def run_with(bundle: bytes, body: Any, *, company: bool = False, **settings: Any) -> None:
    async def run() -> None:
        engine = WasmEngine(bundle, ENTRYPOINT, **settings)
        try:
            if company:
                await in_company(engine)
            await body(engine)
        finally:
            await engine.close()
        assert beside() == []

    asyncio.run(asyncio.wait_for(run(), 600))  # a guard against waiting forever, not a measure of speed


async def in_company(engine: WasmEngine) -> None:
    """From now on it evaluates in the process beside this one, as long as questions come together."""
    for _ in iter(lambda: bool(beside()) and engine._beside.ready(), True):
        await asyncio.gather(*(works(engine) for _ in range(80)))


async def works(engine: WasmEngine) -> None:
    assert (await engine.evaluate({"arguments": {"x": 1}}, 60)).result == {"echo": {"x": 1}}


def test_the_version_names_the_bundle(bundle: bytes) -> None:
    async def body(engine: WasmEngine) -> None:
        version = (await engine.evaluate({"arguments": {}}, 30)).version
        assert version == engine.version
        assert (version.engine, version.entrypoint, version.revision) == ("wasm", ENTRYPOINT, "r7")
        assert version.engine_version.startswith("wasmtime ")
        assert version.bundle_digest == hashlib.sha256(bundle).hexdigest()

    run_with(bundle, body)


COMPANY = pytest.mark.parametrize("company", [False, True], ids=["alone", "in company"])


@COMPANY
@pytest.mark.parametrize(
    ("asked", "error", "named"),
    [
        (mode("spin"), EngineTimeout, "did not answer in time"),
        (mode("eat"), EngineError, "more memory than its limit"),
        (mode("conflict"), EngineError, "the policy aborted: .*conflict"),
        (mode("builtin", ns="hunter22"), EngineError, "time.clock: takes nanoseconds"),
        (mode("none"), PolicyUndefined, "undefined"),
        (mode("none", x=float("nan")), EngineError, "input is not JSON"),
        (mode("none", x="y" * (8 << 20)), EngineError, "memory"),
    ],
)
def test_a_fault_ends_one_evaluation_only(
    bundle: bytes, asked: dict[str, Any], error: type[EngineError], named: str, company: bool
) -> None:
    async def body(engine: WasmEngine) -> None:
        for _ in range(2):
            with pytest.raises(error, match=named) as caught:
                await engine.evaluate(asked, 0.3 if error is EngineTimeout else 60)
            assert type(caught.value) is error
            assert "hunter22" not in str(caught.value)
            await works(engine)

    run_with(bundle, body, company=company, memory_limit=8 << 20, workers=1)


def test_the_time_limit_ends_the_guest_itself(bundle: bytes) -> None:
    """With one worker, the next question is answered only if the first one's thread came back."""

    async def body(engine: WasmEngine) -> None:
        spinning = [asyncio.create_task(engine.evaluate(mode("spin"), 0.2)) for _ in range(3)]
        for task in spinning:
            with pytest.raises(EngineTimeout):
                await task
        await works(engine)

    run_with(bundle, body, workers=1)


def test_the_event_loop_does_not_wait_for_the_guest(bundle: bytes) -> None:
    """A loop that waited would get round to no other question before the guest's limit, however long that is."""

    async def turns(engine: WasmEngine, limit: float) -> int:
        spinning = asyncio.create_task(engine.evaluate(mode("spin"), limit))
        count = 0
        while not spinning.done():
            await works(engine)  # on the second worker
            count += 1
        with pytest.raises(EngineTimeout):
            await spinning
        return count

    async def body(engine: WasmEngine) -> None:
        limit = 0.25  # enough on a quick machine; a slow one is given longer
        while await turns(engine, limit) < 2:
            limit *= 2
            assert limit <= 60

    run_with(bundle, body, workers=2)


def test_cancelling_is_passed_on(bundle: bytes) -> None:
    async def body(engine: WasmEngine) -> None:
        task = asyncio.create_task(engine.evaluate(mode("spin"), 0.5))
        await asyncio.sleep(0)  # one turn of the loop: the question is handed to the worker
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        await works(engine)

    run_with(bundle, body, workers=1)


@pytest.mark.parametrize("timeout", [0, -1, float("nan")])
def test_no_time_left(bundle: bytes, timeout: float) -> None:
    async def body(engine: WasmEngine) -> None:
        with pytest.raises(EngineTimeout):
            await engine.evaluate({"arguments": {}}, timeout)
        await works(engine)

    run_with(bundle, body)


@COMPANY
def test_many_at_once_do_not_mix(bundle: bytes, company: bool) -> None:
    async def body(engine: WasmEngine) -> None:
        async def one(number: int) -> None:
            if number % 7 == 0:
                with pytest.raises(EngineError, match="takes nanoseconds"):
                    await engine.evaluate(mode("builtin", ns="x"), 60)
            elif number % 11 == 0:
                with pytest.raises(EngineError, match="aborted"):
                    await engine.evaluate(mode("conflict"), 60)
            else:
                answer = await engine.evaluate({"arguments": {"n": number}}, 60)
                assert answer.result == {"echo": {"n": number}}

        await asyncio.gather(*(one(number) for number in range(400)))

    run_with(bundle, body, company=company, workers=4)


def test_one_that_only_some_ask_is_not_started(bundle: bytes) -> None:
    async def body(engine: WasmEngine) -> None:
        for _ in range(500):
            await works(engine)
            await asyncio.sleep(0)  # each comes in a turn of its own
        await asyncio.gather(*(works(engine) for _ in range(50)))
        assert beside() == []

    run_with(bundle, body)


def test_who_asks_again_and_again_lets_others_have_their_turn(bundle: bytes) -> None:
    async def body(engine: WasmEngine) -> None:
        await works(engine)  # found to be quick
        other = asyncio.create_task(asyncio.sleep(0))
        while not other.done():
            await works(engine)

    run_with(bundle, body)


def test_who_asks_alone_is_answered_here_again(bundle: bytes) -> None:
    """A process that hangs is in nobody's way who asks alone."""

    async def body(engine: WasmEngine) -> None:
        await asyncio.sleep(0.1)  # longer than company is taken to stay
        (pid,) = beside()
        stop(pid)
        await works(engine)
        assert beside() == [pid]  # it was not asked, or it would be gone by now

    run_with(bundle, body, company=True)


def test_a_slow_policy_is_for_threads(build: Build) -> None:
    """More than a thousandth of a second of a processor: nobody waits for it in turn, here or beside."""
    many = "some a in numbers.range(0, 300); some b in numbers.range(0, 300); a == b"
    packed = build(f"package p\n\ndecision := count([1 | {many}])\n", ENTRYPOINT)

    async def run() -> None:
        engine = WasmEngine(packed, ENTRYPOINT)
        try:
            answers = await asyncio.gather(*(engine.evaluate({}, 60) for _ in range(100)))
            assert [answer.result for answer in answers] == [301] * 100
            assert beside() == []
        finally:
            await engine.close()

    asyncio.run(asyncio.wait_for(run(), 600))


def test_nothing_is_kept_from_one_evaluation_to_the_next(bundle: bytes) -> None:
    """Long and short inputs in turn through one instance: its memory neither grows without end nor mixes."""

    async def body(engine: WasmEngine) -> None:
        for length in [1, 200_000, 3, 100_000, 0] * 20:
            arguments = {"text": "é" * length, "mode": ""}
            with pytest.raises(PolicyUndefined):
                await engine.evaluate({"arguments": arguments}, 60)
            await works(engine)

    run_with(bundle, body, memory_limit=8 << 20, workers=1)


@pytest.mark.parametrize(
    "source",
    [
        "decision := time.now_ns()",
        'decision := http.send({"method": "get", "url": "http://127.0.0.1"})',
        'decision := rand.intn("x", 5)',
        'decision := uuid.rfc4122("x")',
        "decision := opa.runtime()",
        'decision := crypto.md5("x") if input.never',
    ],
)
def test_built_ins_we_do_not_supply_are_refused_by_name(build: Build, source: str) -> None:
    needed = source.split(":= ")[1].split("(")[0]
    with pytest.raises(PolicyLoadError, match=needed.replace(".", r"\.")):
        WasmEngine(build(f"package p\n\n{source}\n", ENTRYPOINT), ENTRYPOINT)


def test_data_too_large_for_the_memory_is_refused(build: Build) -> None:
    packed = build("package p\n\ndecision := data.x[input.n]\n", ENTRYPOINT, data='{"x":[' + "1," * 2_000_000 + "1]}")
    with pytest.raises(PolicyLoadError, match="does not start"):
        WasmEngine(packed, ENTRYPOINT, memory_limit=4 << 20)


def test_closing_tells_those_who_still_wait(bundle: bytes) -> None:
    async def body(engine: WasmEngine) -> None:
        asked = [asyncio.create_task(engine.evaluate(mode("spin"), 0.5)) for _ in range(4)]
        await asyncio.sleep(0)  # one turn of the loop: the questions are handed to the worker
        await engine.close()
        for task in asked:
            with pytest.raises((EngineTimeout, EngineUnavailable)):
                await task

    run_with(bundle, body, workers=1)


def test_closed() -> None:
    async def run() -> None:
        engine = WasmEngine(STARTER_BUNDLE.read_bytes(), STARTER_ENTRYPOINT)
        await engine.ready()
        await engine.close()
        await engine.close()
        with pytest.raises(EngineUnavailable, match="closed"):
            await engine.evaluate({}, 1)

    asyncio.run(run())


def test_an_undefined_entry_point_is_not_ready(build: Build) -> None:
    packed = build("package p\n\ndecision := 1 if input.never\n", ENTRYPOINT)

    async def run() -> None:
        engine = WasmEngine(packed, ENTRYPOINT)
        try:
            with pytest.raises(PolicyUndefined):
                await engine.ready()
        finally:
            await engine.close()

    asyncio.run(run())
