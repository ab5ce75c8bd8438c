"""The embedded engine: a policy compiled to Wasm by `opa build -t wasm`, run by this program alone.

Each evaluation has a hard time limit (Wasmtime's epoch) and each instance a hard memory limit; the event loop waits for
the guest 10 ms at most. A policy that is usually quick is evaluated on the loop's own thread for who asks alone, since
two changes of threads cost more than the evaluation; for many at once, in a process beside this one (`wasm.beside`).
One that is slow has a thread for each question.
`opa-py-wasm` 1.2.1 was tried and left: it sees arguments of built-ins as JSON, so `sprintf("%v", [{"a"}])` differs
from OPA, and its time limit is not per call.

One difference to a running OPA with strict-builtin-errors remains: built-ins that OPA compiled into the module
(to_number, division) are undefined on bad arguments, where OPA reports an error. A policy that checks types first
never meets it.
"""

from __future__ import annotations

import asyncio
import functools
import math
import time
from collections import deque
from concurrent.futures import ThreadPoolExecutor
from importlib.metadata import version as installed_version
from typing import Any, Final

from sidecar.errors import (
    EngineError,
    EngineTimeout,
    EngineUnavailable,
    PolicyLoadError,
    PolicyUndefined,
    UsageError,
)
from sidecar.wasm.beside import LONGEST, Beside
from sidecar.wasm.instance import Instance, Program
from sidecar.wasm.machine_code import MACHINE_CODE, new_engine
from sidecar.wasm.ticker import AT_ONCE_TICKS, LOAD_TICKS, TICK, Ticker

from .bundle import Bundle, open_bundle
from .document import MAX_RESULT_BYTES, check_result, decode_answer, encode_input
from .engine import READY_PROBE, READY_TIMEOUT, Evaluation, PolicyVersion, check_entrypoint

_QUICK: Final = 0.001  # processor seconds that a quick policy takes at most
_ALONE: Final = 0.02  # seconds since two questions were there at once, after which one is taken to come alone
_COMPANY: Final = 64  # questions that were there with others, after which a process beside this one is worth its start
_NEWEST: Final = 0.125  # what one evaluation counts in the mean: a single hiccup does not drive the others off the loop
_MAX_TIMEOUT: Final = 60.0
_MIN_MEMORY: Final = 4 << 20
_MAX_MEMORY: Final = 1 << 30


class WasmEngine:
    """Evaluates one entry point of one bundle. Used on one event loop, after its making."""

    def __init__(self, bundle_bytes: bytes, entrypoint: str, *, memory_limit: int = 64 << 20, workers: int = 2) -> None:
        """Open, compile and try the bundle; takes a few tenths of a second, unless it was compiled here just before.

        ``memory_limit`` is in bytes for each of ``workers`` instances, 4 MiB to 1 GiB; ``workers`` is 1 to 32.
        Raises `UsageError` for those, `PolicyLoadError` when the bundle cannot be used.
        """
        check_entrypoint(entrypoint)
        if not _MIN_MEMORY <= memory_limit <= _MAX_MEMORY or not 1 <= workers <= 32:
            raise UsageError("the wasm engine takes a memory limit of 4 MiB to 1 GiB and 1 to 32 workers")
        bundle = open_bundle(bundle_bytes)
        self._program = _compile(bundle, memory_limit)
        self._ticker = Ticker(self._program.engine)
        try:
            first = self._load()
            if entrypoint not in first.entrypoints:
                first.close()
                known = ", ".join(sorted(first.entrypoints))[:300]
                raise PolicyLoadError(f"the policy bundle has no entry point {entrypoint}; it has: {known}")
        except BaseException:
            self._ticker.stop()
            raise
        self._entrypoint = first.entrypoints[entrypoint]
        self._idle = deque([first])  # append and pop are atomic
        self._closed = False
        self._usual = math.inf  # processor seconds that an evaluation takes: a mean in which the newest counts most
        self._under_way = 0  # questions
        self._in_turn = False  # whether one came in this turn of the loop
        self._together = -math.inf  # when two were last there at once
        self._company = 0  # how many came while others were there
        self._threads = ThreadPoolExecutor(workers, thread_name_prefix="policy-wasm")
        self._beside = Beside(self._program, self._entrypoint, self._took)
        wasmtime_version = f"wasmtime {installed_version('wasmtime')}"
        self._version = PolicyVersion("wasm", wasmtime_version, entrypoint, bundle.revision, bundle.digest)

    @property
    def version(self) -> PolicyVersion:
        return self._version

    async def evaluate(self, document: dict[str, Any], timeout: float) -> Evaluation:
        """See `Engine.evaluate`. A ``timeout`` above 60 seconds counts as 60."""
        if self._closed:
            raise _closed()
        if not timeout > 0:
            raise EngineTimeout("no time was left to ask the policy")
        raw = encode_input(document)
        began, limit = time.monotonic(), min(timeout, _MAX_TIMEOUT)
        alone = self._alone()
        self._under_way += 1
        try:
            answer = None
            if self._usual <= _QUICK and limit > AT_ONCE_TICKS * TICK:
                answer = await self._quickly(raw, limit, alone=alone)
            if answer is None:
                answer = await self._on_a_thread(raw, limit - (time.monotonic() - began))
        finally:
            self._under_way -= 1
        return Evaluation(_unwrap(answer), self._version)

    def _alone(self) -> bool:
        """Whether the question that just came is taken to be the only one."""
        now = time.monotonic()
        if self._under_way or self._in_turn:
            self._together = now
            self._company += 1
        else:
            self._in_turn = True
            asyncio.get_running_loop().call_soon(self._turned)
        return now - self._together >= _ALONE

    def _turned(self) -> None:
        self._in_turn = False

    async def _quickly(self, raw: bytes, limit: float, *, alone: bool) -> bytes | None:
        """The answer, where it is to be had at once: beside this process if others ask too, else here."""
        if alone:
            return self._at_once(raw)
        if self._company < _COMPANY or len(raw) > LONGEST or not self._beside.ready():
            await asyncio.sleep(0)  # others have their turn, who may ask so often that nothing else would
            return self._at_once(raw)
        try:
            async with asyncio.timeout(limit):
                answer = await self._beside.ask(raw)
        except TimeoutError:
            raise _too_slow() from None
        if answer is None:
            self._usual = math.inf  # until a thread has found out what is the matter
        return answer

    async def _on_a_thread(self, raw: bytes, limit: float) -> bytes:
        """The answer, within ``limit`` seconds, of a worker."""
        work = functools.partial(self._run, raw, time.monotonic() + limit)
        try:
            async with asyncio.timeout(limit):
                return await asyncio.get_running_loop().run_in_executor(self._threads, work)
        except TimeoutError:
            raise _too_slow() from None

    def _at_once(self, raw: bytes) -> bytes | None:
        """The answer, within the 10 ms that others may be kept waiting; else None."""
        try:
            with self._ticker:
                return self._timed(raw, AT_ONCE_TICKS)
        except Exception:  # whatever it is, a worker finds it again and says what
            self._usual = math.inf
            return None

    def _timed(self, raw: bytes, ticks: int) -> bytes:
        started = time.thread_time()  # waiting for a processor or Python's lock is no fault of the policy
        answer = self._answer(raw, ticks)
        self._took(time.thread_time() - started)
        return answer

    def _took(self, seconds: float) -> None:
        self._usual = seconds if self._usual == math.inf else self._usual + (seconds - self._usual) * _NEWEST

    async def ready(self) -> None:
        """See `Engine.ready`."""
        await self.evaluate(READY_PROBE, READY_TIMEOUT)

    async def close(self) -> None:
        """See `Engine.close`. Waits for running evaluations, each within its own time limit."""
        if self._closed:
            return
        self._closed = True
        await self._beside.close()
        await asyncio.to_thread(self._threads.shutdown)  # what still waits is told so by `_run`
        self._ticker.stop()
        while self._idle:
            self._idle.pop().close()

    def _run(self, raw: bytes, deadline: float) -> bytes:
        """On a worker thread. Raises `EngineError` and nothing else."""
        if self._closed:
            raise _closed()
        remaining = deadline - time.monotonic()
        if remaining <= 0:
            raise _too_slow()
        try:
            with self._ticker:
                return self._timed(raw, math.ceil(remaining / TICK) + 1)
        except EngineError:
            raise
        except Exception as error:
            # Whether time was up is for the clock to say, whatever the trap is called.
            if time.monotonic() >= deadline:
                raise _too_slow() from None
            raise EngineError(f"the policy's Wasm stopped: {_cause(error)}") from None

    def _answer(self, raw: bytes, ticks: int) -> bytes:
        instance = self._take(ticks)
        try:
            answer = instance.evaluate(self._entrypoint, raw)
        except BaseException:
            instance.close()  # its memory is in an unknown state
            raise
        self._idle.append(instance)
        return answer

    def _take(self, ticks: int) -> Instance:
        try:
            instance = self._idle.pop()
        except IndexError:
            return Instance(self._program, ticks)
        instance.deadline(ticks)
        return instance

    def _load(self) -> Instance:
        try:
            with self._ticker:
                return Instance(self._program, LOAD_TICKS)
        except PolicyLoadError:
            raise
        except Exception as error:
            raise PolicyLoadError(f"the policy's Wasm does not start: {_cause(error)}") from None


def _compile(bundle: Bundle, memory_limit: int) -> Program:
    engine = new_engine()
    module = MACHINE_CODE.module(engine, bundle.wasm)
    return Program(engine, module, bundle.data, len(bundle.wasm), memory_limit, MAX_RESULT_BYTES)


def _unwrap(answer: bytes) -> object:
    results = decode_answer(answer)
    if results == []:
        raise PolicyUndefined("the policy's entry point is undefined for this input; give it a default rule")
    if not isinstance(results, list) or not isinstance(results[0], dict) or "result" not in results[0]:
        raise EngineError("the policy's Wasm answered something that is not a result set")
    return check_result(results[0]["result"])


def _closed() -> EngineUnavailable:
    return EngineUnavailable("the policy engine is closed")


def _too_slow() -> EngineTimeout:
    return EngineTimeout("the policy did not answer in time; simplify it or allow it more time")


def _cause(error: Exception) -> str:
    """The last line of a trap: the lines before it are the guest's stack."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[-1][:200] if lines else type(error).__name__
