"""The embedded engine: a policy compiled to Wasm by `opa build -t wasm`, run in this process.

No other process is needed. Each evaluation has a hard time limit (Wasmtime's epoch) and each instance a hard memory
limit; the event loop waits for the guest 10 ms at most. A policy that is usually quick is evaluated on the loop's own
thread while the loop has time, for two changes of threads cost more than the evaluation; on a busy loop it is evaluated
for many questions at once on another thread (`wasm_batches`). One that is slow has a thread for each question.
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
import threading
import time
from collections import deque
from concurrent.futures import ThreadPoolExecutor
from importlib.metadata import version as installed_version
from typing import Any, Final

import wasmtime

from sidecar.errors import (
    EngineError,
    EngineTimeout,
    EngineUnavailable,
    PolicyLoadError,
    PolicyUndefined,
    UsageError,
)

from .bundle import Bundle, open_bundle
from .document import check_result, decode_answer, encode_input
from .engine import READY_PROBE, READY_TIMEOUT, Evaluation, PolicyVersion, check_entrypoint
from .machine_code import MACHINE_CODE
from .wasm_batches import Batches
from .wasm_instance import Instance, Program

_TICK: Final = 0.005  # seconds between two steps of the epoch while something runs
_AT_ONCE_TICKS: Final = 2  # the longest that the event loop waits for the guest: 10 ms
_QUICK: Final = 0.001  # processor seconds that a quick policy takes at most
_RESTED: Final = 0.0005  # seconds since its last evaluation, after which the loop has time for another
_NEWEST: Final = 0.125  # what one evaluation counts in the mean: a single hiccup does not drive the others off the loop
_REST_TICKS: Final = 40  # steps in a row that find nothing running before the ticker rests
_LOAD_SECONDS: Final = 10.0
_MAX_TIMEOUT: Final = 60.0
_MIN_MEMORY: Final = 4 << 20
_MAX_MEMORY: Final = 1 << 30


class WasmEngine:
    """Evaluates one entry point of one bundle on a few threads of its own."""

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
        self._ticker = _Ticker(self._program.engine)
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
        self._evaluated = -math.inf  # when one on the event loop's own thread ended
        self._threads = ThreadPoolExecutor(workers, thread_name_prefix="policy-wasm")
        self._batches = Batches(self._threads, self._at_once)
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
        limit = min(timeout, _MAX_TIMEOUT)
        quick = self._usual <= _QUICK and limit > _AT_ONCE_TICKS * _TICK
        at_once = quick and self._batches.idle and time.monotonic() - self._evaluated >= _RESTED
        answer = self._here(raw) if at_once else None
        if answer is None:
            answer = await self._elsewhere(raw, limit, quick=quick and not at_once)
        return Evaluation(_unwrap(answer), self._version)

    def _here(self, raw: bytes) -> bytes | None:
        """As `_at_once`, on the event loop's own thread."""
        try:
            return self._at_once(raw)
        finally:
            self._evaluated = time.monotonic()

    async def _elsewhere(self, raw: bytes, limit: float, *, quick: bool) -> bytes:
        """The answer, within ``limit`` seconds, of another thread: with others' where it is ``quick``."""
        work = functools.partial(self._run, raw, time.monotonic() + limit)
        try:
            async with asyncio.timeout(limit):
                answer = await self._batches.do(raw) if quick else None
                if answer is None:
                    answer = await asyncio.get_running_loop().run_in_executor(self._threads, work)
                return answer
        except TimeoutError:
            raise _too_slow() from None

    def _at_once(self, raw: bytes) -> bytes | None:
        """The answer, within the 10 ms that others may be kept waiting; else None."""
        if self._usual > _QUICK:
            return None
        try:
            with self._ticker:
                return self._timed(raw, _AT_ONCE_TICKS)
        except Exception:  # whatever it is, a worker finds it again and says what
            self._usual = math.inf
            return None

    def _timed(self, raw: bytes, ticks: int) -> bytes:
        started = time.thread_time()  # waiting for a processor or Python's lock is no fault of the policy
        answer = self._answer(raw, ticks)
        took = time.thread_time() - started
        self._usual = took if self._usual == math.inf else self._usual + (took - self._usual) * _NEWEST
        return answer

    async def ready(self) -> None:
        """See `Engine.ready`."""
        await self.evaluate(READY_PROBE, READY_TIMEOUT)

    async def close(self) -> None:
        """See `Engine.close`. Waits for running evaluations, each within its own time limit."""
        if self._closed:
            return
        self._closed = True
        self._batches.close()
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
                return self._timed(raw, math.ceil(remaining / _TICK) + 1)
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
                return Instance(self._program, math.ceil(_LOAD_SECONDS / _TICK))
        except PolicyLoadError:
            raise
        except Exception as error:
            raise PolicyLoadError(f"the policy's Wasm does not start: {_cause(error)}") from None


class _Ticker:
    """Moves the engine's epoch on, on a thread of its own, while something runs.

    It rests only after many steps that found nothing running: waking it costs a change of threads, in the middle of
    the decision that does so.
    """

    def __init__(self, engine: wasmtime.Engine) -> None:
        self._engine = engine
        self._lock = threading.Lock()
        self._running = 0
        self._busy = threading.Event()
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._tick, name="policy-wasm-ticker", daemon=True)
        self._thread.start()

    def __enter__(self) -> None:
        with self._lock:
            self._running += 1
            if not self._busy.is_set():
                self._busy.set()

    def __exit__(self, *_: object) -> None:
        with self._lock:
            self._running -= 1

    def stop(self) -> None:
        with self._lock:  # or the thread could go to rest after its last look
            self._stopping.set()
            self._busy.set()
        self._thread.join()

    def _tick(self) -> None:
        idle = 0
        while self._busy.wait() and not self._stopping.wait(_TICK):
            self._engine.increment_epoch()
            with self._lock:
                idle = 0 if self._running else idle + 1
                if idle >= _REST_TICKS and not self._stopping.is_set():
                    self._busy.clear()
                    idle = 0


def _compile(bundle: Bundle, memory_limit: int) -> Program:
    config = wasmtime.Config()
    config.epoch_interruption = True
    config.wasm_threads = False
    config.wasm_memory64 = False
    engine = wasmtime.Engine(config)
    try:
        module = MACHINE_CODE.module(engine, bundle.wasm)
    except wasmtime.WasmtimeError:
        raise PolicyLoadError("the policy bundle's policy.wasm is not a valid Wasm module") from None
    return Program(engine, module, bundle.data, len(bundle.wasm), memory_limit)


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
